//! Another server does not let the node in, or its own does not.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::messages;
use super::standby::Standby;
use crate::harness::cluster::LONG;
use crate::harness::eventually;
use crate::harness::ports::free_port;

/// The configuration with another password for this user of `postgresql.authentication`.
fn with_wrong_password(yaml: &str, user: &str) -> String {
    let section = yaml.find(&format!("    {user}:\n")).expect("the user");
    let begin = section + yaml[section..].find("password: \"").expect("a password") + "password: \"".len();
    let end = begin + yaml[begin..].find('"').expect("its end");
    format!("{}wrong{}", &yaml[..begin], &yaml[end..])
}

#[test]
fn an_agent_that_its_own_server_refuses_waits_and_seldom_knocks() {
    let standby = Standby::start();
    standby.stop();
    standby.configure(|yaml| with_wrong_password(yaml, "superuser"));
    standby.waits(&[&messages::SUPERUSER_PASSWORD], || {
        let server = standby.cluster.postmaster(&standby.name).expect("the server runs all the same");
        // Another agent that finds the server running.
        standby.kill_agent();
        let begun = Instant::now();
        standby.cluster.start_agent(&standby.name);
        eventually("the agent knocks again", LONG, || {
            let refused = standby.news().matches("FATAL:  password authentication failed").count();
            if refused >= 3 { Ok(()) } else { Err(format!("{refused} times")) }
        });
        assert!(begun.elapsed() > Duration::from_secs(8), "it knocks too often: {:?}", begun.elapsed());
        standby.mend_configuration();
        standby.cluster.wait_healthy();
        assert_eq!(standby.cluster.postmaster(&standby.name), Some(server));
    });
}

#[test]
fn a_wrong_password_for_replication_is_named_by_a_standby_and_by_a_copy() {
    let standby = Standby::start();
    standby.stop();
    standby.configure(|yaml| with_wrong_password(yaml, "replication"));
    standby.waits(&[&messages::STREAM_PASSWORD], || standby.mend_configuration());

    standby.stop();
    let data_dir = standby.data_dir();
    std::fs::rename(&data_dir, data_dir.with_file_name("kept")).expect("the test's own cluster");
    standby.configure(|yaml| with_wrong_password(yaml, "replication"));
    standby.waits(&[&messages::COPY_PASSWORD], || {
        assert!(!data_dir.exists());
        standby.mend_configuration();
    });
}

#[test]
fn a_standby_that_cannot_reach_its_primary_says_why_and_streams_when_it_can() {
    let standby = Standby::start();
    let (cluster, leader) = (&standby.cluster, standby.cluster.leader());
    let hba = cluster.node(&leader).data_dir.join("pg_hba.conf");
    let rules = std::fs::read_to_string(&hba).expect("the primary's access rules");
    let allow = |text: &str, then: &str| {
        write_in_place(&hba, text);
        cluster.sql(&leader, then).expect("the primary answers");
    };
    let reload = "SELECT pg_reload_conf()";
    allow(&format!("host replication all all reject\n{rules}"), reload);
    // Until the new rules are in force a standby that is sent away just comes back.
    eventually("the standby is sent away for good", LONG, || {
        cluster.sql(&leader, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")?;
        let refused = standby.news().contains("pg_hba.conf rejects replication connection");
        if refused { Ok(()) } else { Err("not yet".to_owned()) }
    });
    standby.complains(&[&messages::STREAM_REFUSED], || allow(&rules, reload));

    // A leader that names an address where it is not, or that a firewall cuts off.
    let node = cluster.node(&leader);
    let yaml = std::fs::read_to_string(&node.config).expect("its configuration");
    let name_address = |port: u16| {
        let own = format!("connect_address: 127.0.0.1:{}", node.postgres_port);
        write_in_place(&node.config, &yaml.replace(&own, &format!("connect_address: 127.0.0.1:{port}")));
        node.agent.signal(Signal::HUP);
    };
    name_address(free_port());
    standby.complains(&[&messages::STREAM_UNREACHABLE], || name_address(node.postgres_port));
}

/// The file keeps its owner and mode.
fn write_in_place(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the test's own cluster");
}
