//! Replicas made by the user's own commands: in their order, with what they are told, without a leader, and what comes of bad ones.

use rustix::process::Signal;
use serde_json::json;

use super::own_bootstrap::back_up;
use crate::harness::cluster::{Cluster, LONG};
use crate::harness::eventually;
use crate::harness::postgres::bin_dir;
use crate::harness::process::Process;
use crate::harness::script::Script;

#[test]
fn methods_are_tried_in_their_order_and_what_is_there_stays_until_one_succeeds() {
    let cluster = Cluster::start(2);
    let replica = cluster.replicas().remove(0);
    let data = cluster.node(&replica).data_dir;
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    let parameters = "echo \"$@\" >> $CALLS\nfor word in \"$@\"; do case $word in --datadir=*) to=${word#*=};; --connstring=*) from=${word#*=};; esac; done";
    let bad = Script::write(
        &cluster.directory(),
        "bad",
        &format!("{parameters}\nls -A $to >> $CALLS\necho half > $to/half\nexit 4"),
    );
    let body = format!(
        "{parameters}\nexec {} --pgdata=\"$to\" --dbname=\"$from\" --checkpoint=fast",
        bin_dir().join("pg_basebackup").display()
    );
    let good = Script::write(&cluster.directory(), "good", &body);
    let methods = format!(
        "  create_replica_methods:\n    - bad\n    - good\n    - basebackup\n  bad:\n    command: {}\n    depth: 3\n  good:\n    \
         command: {}\n  pgpass:",
        bad.path.display(),
        good.path.display()
    );
    cluster.reload_with(&replica, "  pgpass:", &methods);
    cluster.reinitialize(&replica, &json!({"force": true}));
    cluster.wait_healthy();
    cluster.shows(&replica, "SELECT name FROM town", &["Ulm"]);
    let calls = bad.calls();
    let start =
        format!("--depth=3 --scope=demo --role=replica --datadir={} --connstring=user=replicator ", data.display());
    assert!(calls.len() == 1 && calls[0].starts_with(&start) && !calls[0].contains("password="), "{calls:?}");
    assert_eq!(good.calls().len(), 1);
    assert!(!data.join("half").exists(), "nothing is left of the one that failed");
    let parent = data.parent().expect("a parent");
    let beside: Vec<_> = std::fs::read_dir(parent).expect("listed").flatten().map(|entry| entry.file_name()).collect();
    assert!(beside.iter().all(|name| !name.to_string_lossy().starts_with("data.")), "{beside:?}");

    cluster.reinitialize(&replica, &json!({"force": true, "from_leader": true}));
    cluster.wait_healthy();
    assert_eq!((bad.calls().len(), good.calls().len()), (1, 1), "by pg_basebackup from the leader");
}

#[test]
fn a_method_that_is_cut_off_gives_back_what_was_there() {
    let cluster = Cluster::start(2);
    let replica = cluster.replicas().remove(0);
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    let hangs = Script::write(&cluster.directory(), "hangs", "echo $$ >> $CALLS\nsleep 1000; echo half");
    cluster.reload_with(
        &replica,
        "  pgpass:",
        &format!("  create_replica_methods: [hangs]\n  hangs:\n    command: {}\n  pgpass:", hangs.path.display()),
    );
    let (status, text) = cluster.rest(&replica, "POST", "/reinitialize", "{}").expect("an answer");
    assert_eq!(status, 200, "{text}");
    eventually("the method is called", LONG, || if hangs.calls().is_empty() { Err("not yet".into()) } else { Ok(()) });
    let agent = cluster.node(&replica).agent;
    agent.kill();
    let command = Process::of(hangs.calls()[0].parse().expect("its number"));
    let command = command.expect("it lives on without its agent, as any process does");
    cluster.edit(&replica, "create_replica_methods: [hangs]", "create_replica_methods: [basebackup]");
    cluster.start_agent(&replica);
    cluster.wait_healthy();
    cluster.shows(&replica, "SELECT name FROM town", &["Ulm"]);
    assert!(!command.is_alive(), "the next agent ends it");
    let log = cluster.log(&replica);
    let last = log.rsplit("pgherd 0.1.0 on").next().expect("the newest agent's");
    assert!(!last.contains("replica creation"), "what was there is good, and nothing is copied: {last}");
}

#[test]
fn without_a_leader_a_replica_is_made_by_a_method_that_needs_none() {
    let cluster = Cluster::start(2);
    let replica = cluster.replicas().remove(0);
    let leader = cluster.leader();
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    let backup = back_up(&cluster);
    for node in [&replica, &leader] {
        let agent = cluster.node(node).agent;
        agent.signal(Signal::TERM);
        agent.ended_within(LONG);
    }
    std::fs::remove_dir_all(cluster.node(&replica).data_dir).expect("the test's own cluster");
    let body = format!(
        "echo \"$@\" >> $CALLS\nmkdir -p {0} && exec cp -a {1}/. {0}/",
        cluster.node(&replica).data_dir.display(),
        backup.display()
    );
    let restore = Script::write(&cluster.directory(), "restore", &body);
    cluster.edit(
        &replica,
        "  pgpass:",
        &format!("  create_replica_methods: [basebackup, restore]\n  restore:\n    command: {}\n    no_leader: true\n  pgpass:", restore.path.display()),
    );
    cluster.start_agent(&replica);
    assert_eq!(cluster.another_leader(&leader), replica);
    let calls = restore.calls();
    assert!(calls.len() == 1 && calls[0].ends_with("--connstring="), "{calls:?}");
    cluster.shows(&replica, "SELECT name FROM town", &["Ulm"]);
    cluster.start_agent(&leader);
    cluster.wait_healthy();
}

#[test]
fn a_method_that_is_none_is_named_and_left_out() {
    let cluster = Cluster::start(2);
    let replica = cluster.replicas().remove(0);
    cluster.reload_with(
        &replica,
        "  pgpass:",
        "  create_replica_methods: [odd, basebackup]\n  odd:\n    command: \"cp 'x\"\n  pgpass:",
    );
    eventually("the mistake is named", LONG, || {
        match cluster.log(&replica).contains("is every quote closed? The method is left out") {
            true => Ok(()),
            false => Err(cluster.log(&replica)),
        }
    });
    cluster.reinitialize(&replica, &json!({"force": true}));
    cluster.wait_healthy();
}
