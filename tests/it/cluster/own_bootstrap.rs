//! New clusters by the user's own command: from a backup, to a point in time, with `post_bootstrap`; and what is left of one that fails.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::cluster::{Cluster, LONG};
use crate::harness::postgres::bin_dir;
use crate::harness::process::Process;
use crate::harness::script::Script;
use crate::harness::{eventually, user};

/// Stops every agent, takes away the data and all that the store knows of the cluster, as if it had never been.
pub fn forget(cluster: &Cluster) {
    for node in cluster.nodes() {
        node.agent.signal(Signal::TERM);
        node.agent.ended_within(LONG);
    }
    let output = cluster.ctl_with(&["remove", "demo"], "demo\nYes I am aware\n");
    assert!(output.status.success(), "{output:?}");
    for node in cluster.nodes() {
        std::fs::remove_dir_all(&node.data_dir).expect("the test's own cluster");
    }
}

pub fn start_again(cluster: &Cluster) {
    for node in cluster.nodes() {
        cluster.start_agent(&node.name);
    }
}

/// A directory of PostgreSQL's user beside the nodes.
pub fn directory(cluster: &Cluster, name: &str) -> PathBuf {
    let path = cluster.directory().join(name);
    user::servers_directory(&path);
    path
}

/// A base backup of the leader, in `backup/` beside the nodes.
pub fn back_up(cluster: &Cluster) -> PathBuf {
    let backup = directory(cluster, "backup");
    let mut command = Command::new(bin_dir().join("pg_basebackup"));
    let port = cluster.node(&cluster.leader()).postgres_port;
    command.args(["--checkpoint=fast", "--no-password", "--username=replicator", "--host=127.0.0.1"]);
    command.arg(format!("--port={port}")).arg(format!("--pgdata={}", backup.display()));
    let file = std::fs::read_to_string(cluster.node("node1").config).expect("the node's file");
    let password = file.split("username: replicator\n      password: ").nth(1).and_then(|rest| rest.lines().next());
    let password = password.expect("a password").trim_matches('"').to_owned();
    let output = command.env("PGPASSWORD", password).output().expect("pg_basebackup runs");
    assert!(output.status.success(), "{output:?}");
    user::give_to_servers(&backup);
    backup
}

/// `bootstrap.method` with these keys, in the file of every node.
fn configure(cluster: &Cluster, section: &str) {
    for node in cluster.nodes() {
        cluster.edit(&node.name, "watchdog:", &format!("bootstrap:\n{section}\nwatchdog:"));
    }
}

#[test]
fn a_backup_becomes_a_new_cluster_with_post_bootstrap() {
    let cluster = Cluster::start(2);
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    let backup = back_up(&cluster);
    cluster.write("INSERT INTO town VALUES ('after the backup')");
    let old = cluster.sql(&cluster.leader(), "SELECT system_identifier FROM pg_control_system()").expect("an answer");
    forget(&cluster);
    let restore = Script::write(
        &cluster.directory(),
        "restore",
        &format!(
            "echo \"$@\" >> $CALLS\nfor word in \"$@\"; do case $word in --datadir=*) to=${{word#--datadir=}};; esac; done\n\
             mkdir -p $to && exec cp -a {}/. $to/",
            backup.display()
        ),
    );
    let psql = bin_dir().join("psql");
    let post = Script::write(
        &cluster.directory(),
        "post",
        &format!(
            "echo \"$PGOPTIONS\" >> $CALLS\n{} -X -d \"$1\" -c \"INSERT INTO town VALUES ('post')\"",
            psql.display()
        ),
    );
    configure(
        &cluster,
        &format!(
            "  method: restore\n  restore:\n    command: {}\n    from: somewhere\n    verbose: true\n  post_bootstrap: {}",
            restore.path.display(),
            post.path.display()
        ),
    );
    start_again(&cluster);
    cluster.wait_healthy();
    let leader = cluster.leader();
    let rows = cluster.sql(&leader, "SELECT name FROM town ORDER BY name").expect("an answer");
    assert_eq!(rows, ["Ulm", "post"]);
    let now = cluster.sql(&leader, "SELECT system_identifier FROM pg_control_system()").expect("an answer");
    assert_eq!(now, old, "it is the cluster of the backup");
    let data_dir = cluster.node(&leader).data_dir;
    let expected = format!("--scope=demo --datadir={} --from=somewhere --verbose=True", data_dir.display());
    assert_eq!(restore.calls(), [expected]);
    assert_eq!(post.calls(), ["-c synchronous_commit=local -c statement_timeout=0"]);
    cluster.shows(&cluster.replicas()[0], "SELECT name FROM town ORDER BY name", &["Ulm", "post"]);
}

#[test]
fn a_backup_is_restored_to_a_point_in_time() {
    let cluster = Cluster::start(2);
    let archive = directory(&cluster, "archive");
    let archiving = serde_json::json!({"postgresql": {"parameters": {
        "archive_mode": "on", "archive_command": format!("cp %p {}/%f", archive.display()),
    }}});
    cluster.configure(&archiving);
    for node in [cluster.replicas().remove(0), cluster.leader()] {
        eventually("the setting waits for a restart", LONG, || {
            match cluster.status(&node)?["pending_restart"].as_bool() {
                Some(true) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        let output = cluster.ctl(&["restart", "--force", "demo", &node]);
        assert!(output.status.success(), "{output:?}");
        cluster.wait_healthy();
    }
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    let backup = back_up(&cluster);
    cluster.write("INSERT INTO town VALUES ('before')");
    cluster.write("SELECT pg_create_restore_point('here')");
    cluster.write("INSERT INTO town VALUES ('after')");
    let last = cluster.write("SELECT pg_walfile_name(pg_switch_wal())").remove(0);
    eventually("the log is archived", LONG, || match archive.join(&last).exists() {
        true => Ok(()),
        false => Err(format!("{last} is not there")),
    });
    forget(&cluster);
    let restore = Script::write(
        &cluster.directory(),
        "restore",
        &format!("exec cp -a {}/. {}/", backup.display(), "$(dirname $0)/node1/data"),
    );
    let data = cluster.node("node1").data_dir;
    user::servers_directory(&data);
    configure(
        &cluster,
        &format!(
            "  method: restore\n  restore:\n    command: {}\n    no_params: true\n    recovery_conf:\n      \
             restore_command: cp {}/%f %p\n      recovery_target_name: here",
            restore.path.display(),
            archive.display()
        ),
    );
    // The method knows the directory of this node only.
    cluster.edit("node2", "zookeeper:", "tags:\n  nofailover: true\n\nzookeeper:");
    start_again(&cluster);
    cluster.wait_healthy();
    assert_eq!(cluster.leader(), "node1");
    for node in ["node1", "node2"] {
        cluster.shows(node, "SELECT name FROM town ORDER BY name", &["Ulm", "before"]);
    }
    cluster.write("INSERT INTO town VALUES ('again')");
}

#[test]
fn a_bootstrap_that_fails_leaves_evidence_and_no_half_cluster() {
    let cluster = Cluster::start(1);
    // Its log lies elsewhere, where it wants an empty directory.
    let elsewhere = directory(&cluster, "elsewhere");
    forget(&cluster);
    let (data, parent) = (cluster.node("node1").data_dir, cluster.directory().join("node1"));
    let fails = cluster.directory().join("restore.calls.fails");
    let body = format!(
        "mkdir -p {data}; echo half > {data}/PG_VERSION\n\
         [ -e $CALLS.fails ] && ln -s {wal} {data}/pg_wal && echo half > {wal}/0001 && exit 7\n\
         rm -rf {data}/*; exec {initdb} -N -D {data} --waldir={wal} --auth=trust -U postgres",
        data = data.display(),
        wal = elsewhere.join("wal").display(),
        initdb = bin_dir().join("initdb").display()
    );
    let restore = Script::write(&cluster.directory(), "restore", &body);
    // What the command makes knows no password: the agent gets in over the socket, as the user that it is.
    cluster.edit("node1", "unix_socket_directories: \"\"", "unix_socket_directories: \".\"");
    configure(
        &cluster,
        &format!("  method: restore\n  restore:\n    command: {}\n  post_init: 'false'", restore.path.display()),
    );
    // The command fails; then its cluster is whole, and the command on it fails.
    user::servers_directory(&elsewhere.join("wal"));
    for (command_fails, said) in
        [(true, "`restore` has failed (exit status: 7)"), (false, "`false` has failed (exit status: 1)")]
    {
        match command_fails {
            true => std::fs::write(&fails, "").expect("the test's own file"),
            false => std::fs::remove_file(&fails).expect("the test's own file"),
        }
        cluster.start_agent("node1").ended_within(LONG);
        let log = cluster.log("node1");
        assert!(log.contains(said) && log.contains("the new cluster could not be made"), "{log}");
        assert!(
            !data.exists() || std::fs::read_dir(&data).expect("listed").next().is_none(),
            "nothing is left to be started"
        );
        cluster.key_is_gone("initialize");
        cluster.key_is_gone("leader");
    }
    let aside = std::fs::read_dir(&parent).expect("listed").flatten().map(|entry| entry.file_name());
    let aside = aside.filter(|name| name.to_string_lossy().starts_with("data.failed-")).count();
    assert_eq!(aside, 2, "what was made can be looked at");
    let logs = std::fs::read_dir(&elsewhere).expect("listed").flatten().map(|entry| entry.file_name());
    let logs = logs.filter(|name| name.to_string_lossy().starts_with("wal.failed-")).count();
    assert_eq!((logs, elsewhere.join("wal/0001").exists()), (2, false), "and is in nobody's way");
    // The cause is mended.
    cluster.edit("node1", "  post_init: 'false'", "  post_init: 'true'");
    cluster.start_agent("node1");
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
}

#[test]
fn a_bootstrap_that_outlives_its_agent_is_ended_before_the_next_begins() {
    let cluster = Cluster::start(1);
    forget(&cluster);
    let node = cluster.node("node1");
    let data = node.data_dir.display();
    // The first call would spoil what the second one makes.
    let body = format!(
        "echo $$ >> $CALLS\n[ $(wc -l < $CALLS) -gt 1 ] && exec {initdb} -N -D {data} --auth=trust -U postgres\n\
         mkdir -p {data}; echo half > {data}/PG_VERSION; sleep 1000; echo late > {data}/late",
        initdb = bin_dir().join("initdb").display()
    );
    let restore = Script::write(&cluster.directory(), "restore", &body);
    cluster.edit("node1", "unix_socket_directories: \"\"", "unix_socket_directories: \".\"");
    configure(&cluster, &format!("  method: restore\n  restore:\n    command: {}", restore.path.display()));
    let agent = cluster.start_agent("node1");
    eventually("the command is at work", LONG, || match node.data_dir.join("PG_VERSION").exists() {
        true => Ok(()),
        false => Err(cluster.log("node1")),
    });
    agent.kill();
    let first = Process::of(restore.calls()[0].parse().expect("its number")).expect("it goes on without its agent");
    cluster.start_agent("node1");
    cluster.wait_healthy();
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    assert!(!first.is_alive(), "{}", cluster.log("node1"));
    assert_eq!(restore.calls().len(), 2, "it is made once");
    assert!(!node.data_dir.join("late").exists());
    assert!(cluster.log("node1").contains("the agent before was killed while a command of the user's ran for it"));
    let beside = std::fs::read_dir(cluster.directory().join("node1")).expect("listed").flatten();
    let aside = beside.filter(|entry| entry.file_name().to_string_lossy().starts_with("data.failed-")).count();
    assert_eq!(aside, 1, "what the first one has made can be looked at");
}

/// A directory that is a mount, as long as this lives.
struct Mount(PathBuf);

impl Mount {
    fn on(path: &std::path::Path) -> Option<Mount> {
        let mounted = Command::new("mount").arg("--bind").args([path, path]).status();
        mounted.is_ok_and(|status| status.success()).then(|| Mount(path.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn commands_make_a_cluster_and_a_replica_in_directories_that_are_mounts() {
    let cluster = Cluster::start(2);
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    let backup = back_up(&cluster);
    forget(&cluster);
    let mounts: Vec<Option<Mount>> = cluster
        .nodes()
        .iter()
        .map(|node| {
            user::servers_directory(&node.data_dir);
            Mount::on(&node.data_dir)
        })
        .collect();
    if mounts.iter().any(Option::is_none) {
        return crate::harness::notes::skip("nothing can be mounted here");
    }
    // As a restore does it, it wants an empty directory; the first time it fails.
    let body = format!(
        "echo called >> $CALLS\nfor word in \"$@\"; do case $word in --datadir=*) to=${{word#--datadir=}};; esac; done\n\
         [ -z \"$(ls -A $to)\" ] || exit 9\n[ $(wc -l < $CALLS) -gt 1 ] || {{ echo half > $to/PG_VERSION; exit 7; }}\n\
         exec cp -a {}/. $to/",
        backup.display()
    );
    let restore = Script::write(&cluster.directory(), "restore", &body);
    let section = format!("  method: restore\n  restore:\n    command: {}", restore.path.display());
    configure(&cluster, &section);
    for node in cluster.nodes() {
        let method =
            format!("  create_replica_methods: [again]\n  again:\n    command: {}\n  pgpass:", restore.path.display());
        cluster.edit(&node.name, "  pgpass:", &method);
    }
    let first = cluster.start_agent("node1");
    first.ended_within(LONG);
    assert!(cluster.log("node1").contains("`restore` has failed (exit status: 7)"), "{}", cluster.log("node1"));
    start_again(&cluster);
    cluster.wait_healthy();
    for node in cluster.nodes() {
        cluster.shows(&node.name, "SELECT name FROM town", &["Ulm"]);
    }
    // And once more, where there is data that may go.
    let replica = cluster.replicas().remove(0);
    let calls = restore.calls().len();
    cluster.reinitialize(&replica, &serde_json::json!({ "force": true }));
    cluster.wait_healthy();
    assert_eq!(restore.calls().len(), calls + 1);
    cluster.shows(&replica, "SELECT name FROM town", &["Ulm"]);
}

#[test]
fn a_method_without_a_command_is_refused_by_name() {
    let cluster = Cluster::start(1);
    forget(&cluster);
    configure(&cluster, "  method: restore");
    cluster.start_agent("node1").ended_within(LONG);
    let log = cluster.log("node1");
    assert!(log.contains("bootstrap.method") && log.contains("needs a key `command`"), "{log}");
}
