//! A ZooKeeper that lets nobody in who shows no certificate, with keys that are nobody else's, under a path of their own: one section for an
//! agent of ours and a plain Patroni, for our commands and for patronictl.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::ctl::patronictl;
use crate::harness::certificates::Certificates;
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::site::{Program, Site};
use crate::harness::zookeeper::ZooKeeperServer;
use crate::harness::{binary, eventually, user};

#[test]
fn one_protected_zookeeper_serves_patroni_and_us() {
    let certificates = Certificates::make();
    let server = ZooKeeperServer::start_secured(&certificates);
    user::give_to_servers(&certificates.file(""));
    let section = json!({
        "hosts": format!("{}/herds/here", server.secure_address()),
        "use_ssl": true,
        "cacert": certificates.shown("ca.crt"),
        "cert": certificates.shown("client.crt"),
        "key": certificates.shown("client.key"),
        "set_acls": {"CN=client": ["ALL"]},
    });
    let cluster = Cluster::start(1);
    let timing = json!({"ttl": 20, "loop_wait": 1, "retry_timeout": 3});
    let west = Site::on(&cluster, "west", &[Program::Pgherd, Program::Patroni], &timing, Some(&section));
    let mut leader = west.healthy(&cluster, "leader");
    cluster.sql(&leader, "CREATE TABLE town (name text)").expect("a primary");

    let run = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.arg("-c").arg(cluster.node("west1").config).args(arguments).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("HOME", cluster.directory());
        let output = command.output().expect("the program runs");
        assert!(output.status.success(), "{} {arguments:?}: {}", program.display(), text(&output));
        text(&output)
    };
    let (ours, theirs) = (binary::pgherd(), patronictl());
    for (program, town) in [(&ours, "Ulm"), (&theirs, "Hof"), (&ours, "Wik")] {
        let other = west.nodes.iter().find(|node| **node != leader).expect("two");
        let said = run(program, &["switchover", "west", "--leader", &leader, "--candidate", other, "--force"]);
        assert!(said.contains("Successfully switched over"), "{said}");
        leader = west.another_leader(&cluster, "leader", &leader);
        west.healthy(&cluster, "leader");
        let insert = format!("INSERT INTO town VALUES ('{town}')");
        eventually("the new primary takes writes", LONG, || cluster.sql(&leader, &insert));
        // Whatever changes from one moment to the next.
        eventually("both list the same", LONG, || {
            let (one, other) = (run(&ours, &["list", "west"]), run(&theirs, &["list", "west"]));
            if one == other { Ok(()) } else { Err(format!("{one}\n{other}")) }
        });
    }
    west.nodes.iter().for_each(|node| cluster.shows(node, "SELECT name FROM town ORDER BY 1", &["Hof", "Ulm", "Wik"]));

    let lost = leader.clone();
    cluster.kill_host(&lost);
    west.another_leader(&cluster, "leader", &lost);
    cluster.start_agent(&lost);
    west.healthy(&cluster, "leader");
}
