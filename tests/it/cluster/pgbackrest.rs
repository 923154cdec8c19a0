//! pgBackRest as users wire it: as the archive, as a method of making replicas, and for a new cluster at a point in time
//! ([docs/backups.md](../../../docs/backups.md) says the same).

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::json;

use super::own_bootstrap::{directory, forget, start_again};
use crate::harness::cluster::{Cluster, LONG};
use crate::harness::eventually;
use crate::harness::user::{give_to_servers, owner, servers_directory};

struct Backups {
    cluster: Cluster,
}

impl Backups {
    /// Two nodes whose servers archive by pgBackRest; the repository is a directory.
    fn start() -> Backups {
        let cluster = Cluster::start(2);
        let repository = directory(&cluster, "repository");
        let backups = Backups { cluster };
        let cluster = &backups.cluster;
        let password_file = cluster.directory().join("backrest.pgpass");
        std::fs::copy(cluster.directory().join("pgpass"), &password_file).expect("the password file");
        give_to_servers(&password_file);
        for node in cluster.nodes() {
            let data = node.data_dir.display();
            let text = format!(
                "[global]\nrepo1-path={0}\nrepo1-retention-full=2\nlog-path={0}\nlock-path={0}/lock-{1}\nspool-path={0}/spool-{1}\nlog-level-console=warn\n\
                 log-level-file=off\nstart-fast=y\n\n[demo]\npg1-path={data}\npg1-socket-path={data}\npg1-port={2}\npg1-user=postgres\n",
                repository.display(),
                node.name,
                node.postgres_port
            );
            std::fs::write(backups.config(&node.name), text).expect("the test's own directory");
            // The archive is made first: PostgreSQL makes a long pause where archiving has failed a few times.
            let archiving = format!(
                "unix_socket_directories: \".\"\n    archive_mode: 'on'\n  recovery_conf:\n    restore_command: {} archive-get %f %p",
                backups.command(&node.name)
            );
            cluster.reload_with(&node.name, "unix_socket_directories: \"\"", &archiving);
        }
        for node in [cluster.replicas().remove(0), cluster.leader()] {
            eventually("archiving waits for a restart", LONG, || {
                match cluster.status(&node)?["pending_restart"].as_bool() {
                    Some(true) => Ok(()),
                    other => Err(format!("{other:?}\n{}", cluster.log(&node))),
                }
            });
            let output = cluster.ctl(&["restart", "--force", "demo", &node]);
            assert!(output.status.success(), "{output:?}");
            cluster.wait_healthy();
        }
        backups.run(&cluster.leader(), &["stanza-create"]);
        for node in cluster.nodes() {
            let push =
                format!("archive_mode: 'on'\n    archive_command: {} archive-push %p", backups.command(&node.name));
            cluster.reload_with(&node.name, "archive_mode: 'on'", &push);
            cluster.shows(
                &node.name,
                "SELECT (current_setting('archive_command') LIKE '% archive-push \\%p')::text",
                &["true"],
            );
        }
        backups
    }

    fn config(&self, node: &str) -> std::path::PathBuf {
        self.cluster.directory().join(format!("{node}.pgbackrest"))
    }

    fn command(&self, node: &str) -> String {
        format!("pgbackrest --config={} --stanza=demo", self.config(node).display())
    }

    /// Runs it beside a node, as PostgreSQL's user.
    fn run(&self, node: &str, arguments: &[&str]) {
        let mut command = Command::new("pgbackrest");
        command.arg(format!("--config={}", self.config(node).display())).arg("--stanza=demo").args(arguments);
        command.env("PGPASSFILE", self.cluster.directory().join("backrest.pgpass")).current_dir("/");
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = owner(&self.cluster.directory().join("repository"));
            command.uid(uid).gid(gid);
        }
        let output = command.output().expect("pgbackrest runs: install the package pgbackrest");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn replicas_and_a_cluster_at_a_point_in_time_come_from_pgbackrest() {
    let backups = Backups::start();
    let cluster = &backups.cluster;
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    backups.run(&leader, &["backup", "--type=full"]);
    cluster.write("INSERT INTO town VALUES ('after the backup')");

    // A replica: what is there is brought up to date from the repository.
    let method = format!(
        "  create_replica_methods:\n    - pgbackrest\n    - basebackup\n  pgbackrest:\n    command: {} --delta restore\n    keep_data: true\n    \
         no_params: true\n  pgpass:",
        backups.command(&replica)
    );
    cluster.reload_with(&replica, "  pgpass:", &method);
    cluster.reinitialize(&replica, &json!({"force": true}));
    cluster.wait_healthy();
    let rows = "SELECT name FROM town ORDER BY name";
    cluster.shows(&replica, rows, &["Ulm", "after the backup"]);
    let log = cluster.log(&replica);
    assert!(
        log.contains("making a replica by pgbackrest")
            && !log.rsplit("making a replica by pgbackrest").next().expect("the rest").contains("base backup"),
        "{log}"
    );

    // A new cluster as it was at a point in time.
    cluster.write("SELECT pg_create_restore_point('here')");
    cluster.write("INSERT INTO town VALUES ('too late')");
    let last = cluster.write("SELECT pg_walfile_name(pg_switch_wal())").remove(0);
    eventually("the log is archived", LONG, || {
        let archived = cluster.write("SELECT last_archived_wal FROM pg_stat_archiver").remove(0);
        if archived >= last { Ok(()) } else { Err(format!("{archived}, not {last}\n{}", cluster.log(&leader))) }
    });
    // The repository's backup is of the timeline that is left, and the archive leads on along it: the replicas of the new cluster are copies of
    // its primary until there is a backup of it.
    cluster.edit(&replica, "    - pgbackrest\n    - basebackup", "    - basebackup");
    forget(cluster);
    let bootstrap = |node: &str| {
        format!(
            "bootstrap:\n  method: pgbackrest\n  pgbackrest:\n    command: {} restore --type=name --target=here --target-action=promote\n    \
             keep_existing_recovery_conf: true\n    no_params: true\n\nwatchdog:",
            backups.command(node)
        )
    };
    for node in cluster.nodes() {
        cluster.edit(&node.name, "watchdog:", &bootstrap(&node.name));
        // pgBackRest wants the directory to be there.
        servers_directory(&node.data_dir);
    }
    start_again(cluster);
    cluster.wait_healthy();
    for node in cluster.nodes() {
        cluster.shows(&node.name, rows, &["Ulm", "after the backup"]);
    }
    // It goes on archiving, on a timeline of its own.
    let last = cluster.write("SELECT pg_walfile_name(pg_switch_wal())").remove(0);
    eventually("the new cluster archives", LONG, || {
        let archived = cluster.write("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver").remove(0);
        if archived >= last {
            Ok(())
        } else {
            Err(format!("{archived}, not {last}\n{}", cluster.log(&cluster.leader())))
        }
    });
}
