//! Another server does not let the node in, or its own does not.

use std::path::Path;

use super::messages;
use super::standby::Standby;

/// The configuration with another password for this user of `postgresql.authentication`.
fn with_wrong_password(yaml: &str, user: &str) -> String {
    let section = yaml.find(&format!("    {user}:\n")).expect("the user");
    let begin = section + yaml[section..].find("password: \"").expect("a password") + "password: \"".len();
    let end = begin + yaml[begin..].find('"').expect("its end");
    format!("{}wrong{}", &yaml[..begin], &yaml[end..])
}

#[test]
fn a_wrong_password_of_the_superuser_or_for_a_copy_is_waited_out() {
    let standby = Standby::start();
    standby.stop();
    standby.configure(|yaml| with_wrong_password(yaml, "superuser"));
    standby.waits(&[&messages::SUPERUSER_PASSWORD], || {
        let server = standby.cluster.postmaster(&standby.name).expect("the server runs all the same");
        standby.mend_configuration();
        standby.cluster.wait_healthy();
        assert_eq!(standby.cluster.postmaster(&standby.name), Some(server));
    });

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
fn a_standby_that_its_primary_refuses_says_so_and_streams_when_it_may() {
    let standby = Standby::start();
    standby.stop();
    standby.configure(|yaml| with_wrong_password(yaml, "replication"));
    standby.waits(&[&messages::STREAM_PASSWORD], || standby.mend_configuration());

    let (cluster, leader) = (&standby.cluster, standby.cluster.leader());
    let hba = cluster.node(&leader).data_dir.join("pg_hba.conf");
    let rules = std::fs::read_to_string(&hba).expect("the primary's access rules");
    let allow = |text: &str, then: &str| {
        write_in_place(&hba, text);
        cluster.sql(&leader, then).expect("the primary answers");
    };
    let reload = "SELECT pg_reload_conf()";
    // Sent away once the new rules are in force, which no query tells: until it is refused, a standby just comes back.
    let send_away = "SELECT pg_reload_conf(), pg_sleep(0.2), pg_terminate_backend(pid) FROM pg_stat_replication";
    allow(&format!("host replication all all reject\n{rules}"), send_away);
    standby.complains(&[&messages::STREAM_REFUSED], || allow(&rules, reload));
}

/// The file keeps its owner and mode.
fn write_in_place(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the test's own cluster");
}
