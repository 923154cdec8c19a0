//! pg_rewind: what must be known before it, running it, and the crash recovery that an old primary needs first.
//!
//! Whether it is needed is [`lineage`](super::lineage)'s answer; whether it is wanted is the decision's.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_ha::{Lsn, SystemId, Timeline};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;

use super::config_files::{self, Recovery};
use super::connection::{query_remote, try_replication_role};
use super::data_directory::{Marker, remove_copied_socket_locks};
use super::initdb::refuse_forbidden;
use super::lineage::{LeaderLineage, LocalKind, LocalPosition, parse_history, record_end};
use super::program::{self, Limit};
use super::replication_login::try_replication_login;
use super::{ClusterState, ControlData, Error, Postmaster, Server, Upstream, conninfo, control_data, installation};

/// What is set by us or would break the rewind.
pub const FORBIDDEN: [&str; 10] = [
    "target-pgdata",
    "source-pgdata",
    "source-server",
    "write-recovery-conf",
    "dry-run",
    "restore-target-wal",
    "config-file",
    "no-ensure-shutdown",
    "version",
    "help",
];

/// Between two looks at another cluster's checkpoint.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// pg_waldump reads one record.
const WALDUMP_LIMIT: Duration = Duration::from_secs(10);

/// What pg_rewind says just before it begins to change the target.
const BEGINS_TO_COPY: &str = "need to copy";

/// Why a standby does not stream from `leader`, as far as logging in there tells; else where to look.
pub async fn why_not_streaming(server: &Server, leader: &Upstream) -> String {
    match try_replication_role(server, leader).await {
        Err(error) if error.sql_state() != Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => error.full(),
        // No rule for this role in an ordinary database says nothing about `replication`.
        Ok(()) | Err(_) => match try_replication_login(server, leader).await {
            Err(error) => error.full(),
            Ok(()) => "PostgreSQL's own log of this node says why (the lines of the walreceiver)".to_owned(),
        },
    }
}

/// Asks the leader where it is and how it came there, with the role of pg_rewind (or the superuser): over SQL, because
/// the client library has no replication protocol; the history file is one of the files that this role may read.
pub async fn leader_lineage(server: &Server, leader: &Upstream) -> Result<LeaderLineage, Error> {
    #[derive(Deserialize)]
    struct Answer {
        system_id: SystemId,
        in_recovery: bool,
        timeline: Timeline,
        position: Lsn,
    }
    const SQL: &str = "SELECT row_to_json(x)::text FROM (SELECT r.in_recovery,
        (SELECT system_identifier FROM pg_control_system()) AS system_id,
        CASE WHEN r.in_recovery
          THEN greatest((SELECT received_tli FROM pg_stat_get_wal_receiver()),
                        (SELECT timeline_id FROM pg_control_checkpoint()),
                        (SELECT min_recovery_end_timeline FROM pg_control_recovery()))
          ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END AS timeline,
        CASE WHEN r.in_recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END - '0/0' AS position
        FROM (SELECT pg_is_in_recovery() AS in_recovery) r) x";
    let what = "asking the leader for its timeline";
    let text = query_remote(server, leader, what, SQL).await?.unwrap_or_default();
    let answer: Answer =
        serde_json::from_str(&text).map_err(|error| Error::answer("the leader", format!("{error} in {text}")))?;
    let history = match answer.timeline {
        // The first timeline has no history.
        Timeline(0 | 1) => Vec::new(),
        Timeline(timeline) => {
            let sql = format!("SELECT convert_from(pg_read_binary_file('pg_wal/{timeline:08X}.history'), 'UTF8')");
            let text = query_remote(server, leader, "reading the history of the leader's timeline", &sql).await?;
            parse_history(&text.unwrap_or_default())
        }
    };
    Ok(LeaderLineage {
        system_id: answer.system_id,
        in_recovery: answer.in_recovery,
        timeline: answer.timeline,
        position: answer.position,
        history,
    })
}

/// pg_rewind reads the timeline of a source from its control file, where it is an old one until the checkpoint after a promotion. A server of
/// another cluster does not tell us of that, so it is asked for one and waited for. A standby has no such moment.
pub async fn wait_for_checkpoint(server: &Server, source: &Upstream, limit: Duration) -> Result<(), Error> {
    const SQL: &str =
        "SELECT CASE WHEN pg_is_in_recovery() THEN true ELSE (SELECT timeline_id FROM pg_control_checkpoint())
        = ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END::text";
    let what = "asking for the checkpoint after a promotion";
    let mut asked = false;
    let done = async {
        while query_remote(server, source, what, SQL).await?.as_deref() != Some("true") {
            if !std::mem::replace(&mut asked, true)
                && let Err(error) = query_remote(server, source, what, "CHECKPOINT").await
            {
                tracing::info!("waiting for the checkpoint that {source} makes by itself: {}", error.full());
            }
            sleep(BETWEEN_LOOKS).await;
        }
        Ok(())
    };
    let operation = format!("waiting for the checkpoint of {source} after its promotion");
    timeout(limit, done).await.unwrap_or(Err(Error::Deadline { operation, limit }))
}

/// Where a stopped directory is. (A running standby's replayed position is in its observation.)
pub async fn local_position(server: &Server, control: &ControlData) -> LocalPosition {
    // A backup that was never started: its control file is the primary's, as it was when the backup began, and all that it needs is that the
    // leader comes from there.
    if server.data_dir.join("backup_label").exists() {
        return LocalPosition { timeline: control.timeline, lsn: control.checkpoint, kind: LocalKind::Standby };
    }
    if control.state.was_in_recovery() {
        let (timeline, lsn) = match control.min_recovery_end {
            Lsn(0) => (control.timeline, control.checkpoint),
            end => (control.min_recovery_end_timeline, end),
        };
        return LocalPosition { timeline, lsn, kind: LocalKind::Standby };
    }
    let shutdown_checkpoint_end = match control.is_shut_down() {
        true => checkpoint_end(server, control).await.unwrap_or_else(|error| {
            tracing::warn!("the end of the shutdown checkpoint is not known: {}", error.full());
            None
        }),
        false => None,
    };
    let kind = LocalKind::FormerPrimary { shutdown_checkpoint_end };
    LocalPosition { timeline: control.timeline, lsn: control.checkpoint, kind }
}

/// Lets a crashed primary finish its recovery on its own timeline, in single-user mode, without letting anyone in.
///
/// For a crashed *primary* only: a standby must be started as a standby (`postgres-facts` 18). `limit` is for all of
/// it; versions before 15 tell no progress.
pub async fn recover_crashed_primary(server: &Server, limit: Duration) -> Result<(), Error> {
    refuse_if_running(server)?;
    let control = control_data::read(server).await?;
    if !control.state.is_crashed_primary() {
        let state = &control.state;
        return Err(Error::Refused(format!(
            "no crash recovery in single-user mode: the directory's state is {state:?}"
        )));
    }
    // Raised like a standby's: prepared transactions of the crashed server must fit.
    let parameters = super::parameters::start_settings(server, Some(&control));
    config_files::write(server, &parameters.file, &Recovery::Primary)?;
    let mut command = installation::command(server, "postgres")?;
    command.arg("--single").arg("-D").arg(&server.data_dir);
    command.arg("-c").arg(format!("config_file={}", config_files::postgresql_conf(server).display()));
    for (name, value) in parameters.command_line {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    // Nothing is archived, and nothing that waits for it is forgotten.
    command.args(["-c", "archive_mode=on", "-c", "archive_command=false", "template1"]);
    tracing::info!(
        "the server crashed as a primary: letting PostgreSQL recover it in single-user mode first, as pg_rewind wants"
    );
    program::run(command, Limit::Total(limit), |line| tracing::debug!("crash recovery: {line}")).await?;
    match control_data::read(server).await?.state {
        ClusterState::ShutDown => Ok(()),
        state => {
            Err(Error::answer("crash recovery in single-user mode", format!("it ended, and the state is {state:?}")))
        }
    }
}

/// Rewinds the stopped directory to `leader`, and writes its configuration (`parameters`) to follow it.
///
/// `patience`: how long pg_rewind may be silent. Afterwards the directory is marked [`Marker::Unproven`]. After an
/// error look at [`Marker::Incomplete`]: if it is set, the directory was being changed and can only be replaced by a
/// copy; else it is as before.
pub async fn rewind(
    server: &Server,
    leader: &Upstream,
    parameters: &BTreeMap<String, String>,
    patience: Duration,
) -> Result<(), Error> {
    refuse_forbidden("pg_rewind", &server.rewind_options, &FORBIDDEN)?;
    refuse_if_running(server)?;
    let control = control_data::read(server).await?;
    if !control.allows_rewind() {
        return Err(Error::Refused("pg_rewind needs wal_log_hints = on or data checksums on this server".to_owned()));
    }
    // restore_command for --restore-target-wal is read from the file.
    let recovery = Recovery::Standby { upstream: Some(leader.clone()) };
    config_files::write(server, parameters, &recovery)?;
    refuse_socket_of(server, leader).await?;
    let major = installation::version(server).await?.major;
    let mut command = installation::command(server, "pg_rewind")?;
    arguments(server, leader, major, &mut command);

    Marker::Incomplete.set(&server.data_dir)?;
    let mut changing = false;
    let result = program::run(command, Limit::Standstill(patience), |line| {
        changing |= line.contains(BEGINS_TO_COPY);
        tracing::info!("pg_rewind: {}", line.trim_start_matches("pg_rewind: ").trim());
    })
    .await;
    if let Err(error) = result {
        if !changing {
            Marker::Incomplete.clear(&server.data_dir)?;
        }
        return Err(error);
    }
    remove_copied_socket_locks(&server.data_dir)?;
    // It has brought the leader's files.
    config_files::write(server, parameters, &recovery)?;
    Marker::Unproven.set(&server.data_dir)?;
    Marker::Incomplete.clear(&server.data_dir)
}

fn arguments(server: &Server, leader: &Upstream, major: u32, command: &mut Command) {
    let source = conninfo::tool_conninfo(server, server.rewind_credentials(), leader, Some(&server.database));
    command.arg("--progress").arg(format!("--source-server={source}"));
    command.arg("--target-pgdata").arg(&server.data_dir);
    let restores = [&server.recovery_conf, &server.parameters].iter().any(|it| it.contains_key("restore_command"));
    // pg_rewind lets `postgres` read it there, and before 15 finds no other file.
    let config_file = config_files::postgresql_conf(server);
    let elsewhere = config_file != server.data_dir.join("postgresql.conf");
    if restores && (major >= 15 || !elsewhere) {
        command.arg("--restore-target-wal");
    }
    if major >= 15 && elsewhere {
        command.arg(format!("--config-file={}", config_file.display()));
    }
    command.args(server.rewind_options.iter().map(super::ToolOption::argument));
    command.env("PGPASSFILE", &server.pgpass);
}

fn refuse_if_running(server: &Server) -> Result<(), Error> {
    match Postmaster::find(&server.data_dir) {
        None => Ok(()),
        Some(running) => {
            Err(Error::Refused(format!("PostgreSQL (process {}) still runs in the data directory", running.pid())))
        }
    }
}

/// pg_rewind takes a socket in the source's data directory for a file, and fails on it when half of the target is
/// overwritten.
async fn refuse_socket_of(server: &Server, leader: &Upstream) -> Result<(), Error> {
    const SQL: &str = "SELECT name FROM pg_ls_dir('.', false, false) name \
        WHERE name LIKE '.s.PGSQL.%' AND name NOT LIKE '%.lock' LIMIT 1";
    match query_remote(server, leader, "looking for a socket in the leader's data directory", SQL).await? {
        None => Ok(()),
        Some(socket) => Err(Error::Refused(format!(
            "pg_rewind cannot copy from a server whose socket ({socket}) is in its data directory: set \
             unix_socket_directories to a directory elsewhere; until then only a new copy helps"
        ))),
    }
}

/// Where the record of the latest checkpoint ends, by its length; `None` if that record is not a shutdown checkpoint.
async fn checkpoint_end(server: &Server, control: &ControlData) -> Result<Option<Lsn>, Error> {
    let mut command = installation::command(server, "pg_waldump")?;
    command.arg("--path").arg(server.data_dir.join("pg_wal"));
    command.arg(format!("--timeline={}", control.timeline)).arg(format!("--start={}", control.checkpoint));
    command.arg("--limit=1");
    // It learns the size of a segment from this file. From one that it picks itself, which may be made for later and still empty, it learns 0.
    command.arg(segment_name(control.timeline, control.checkpoint, control.wal_segment_bytes));
    let text = program::run(command, Limit::Total(WALDUMP_LIMIT), |_| ()).await?;
    let length = checkpoint_length(&text).ok_or_else(|| Error::answer("pg_waldump", text.trim()))?;
    Ok(length.map(|length| record_end(control.checkpoint, length, control.wal_segment_bytes)))
}

/// The file of the log that holds a position.
pub fn segment_name(timeline: Timeline, position: Lsn, segment_bytes: u64) -> String {
    let (segment, per_id) = (position.0 / segment_bytes.max(1), (1 << 32) / segment_bytes.max(1));
    format!("{:08X}{:08X}{:08X}", timeline.0, segment / per_id.max(1), segment % per_id.max(1))
}

/// `rmgr: XLOG  len (rec/tot):  114/   114, tx: 0, lsn: 0/03000028, ... desc: CHECKPOINT_SHUTDOWN ...`
pub(super) fn checkpoint_length(text: &str) -> Option<Option<u32>> {
    let (_, numbers) = text.split_once("len (rec/tot):")?;
    let (_, total) = numbers.split_once(',')?.0.split_once('/')?;
    let total = total.trim().parse().ok()?;
    Some(text.contains("CHECKPOINT_SHUTDOWN").then_some(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{Credentials, ToolOption};

    #[test]
    fn the_length_of_a_shutdown_checkpoint() {
        let line = "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/03000028, prev 0/02000100, \
                    desc: CHECKPOINT_SHUTDOWN redo 0/3000028; tli 1;";
        assert_eq!(checkpoint_length(line), Some(Some(114)));
        assert_eq!(checkpoint_length(&line.replace("_SHUTDOWN", "_ONLINE")), Some(None));
        assert_eq!(checkpoint_length("pg_waldump: error"), None);
    }

    #[test]
    fn segments_are_named_as_postgresql_names_them() {
        for (timeline, position, bytes, name) in [
            (1, 0x300_0028, 16 << 20, "000000010000000000000003"),
            (120, 0x22CC_A688, 16 << 20, "000000780000000000000022"),
            (2, 0x1_0000_0000, 16 << 20, "000000020000000100000000"),
            (2, 0x1_4000_0001, 1 << 30, "000000020000000100000001"),
        ] {
            assert_eq!(segment_name(Timeline(timeline), Lsn(position), bytes), name);
        }
    }

    #[test]
    fn arguments_carry_no_password() {
        let mut server = Server::new("n", "c", "/data", Credentials::new("postgres", Some("secret")));
        server.recovery_conf.insert("restore_command".into(), "cp".into());
        server.config_dir = Some("/etc/pg".into());
        server.rewind_options = vec![ToolOption::flag("no-sync")];
        let leader = Upstream::at("h", 1);
        let with = |server: &Server, major| {
            let mut command = Command::new("pg_rewind");
            arguments(server, &leader, major, &mut command);
            command.as_std().get_args().map(|it| it.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert!(
            with(&server, 15).ends_with(
                "--target-pgdata /data --restore-target-wal --config-file=/etc/pg/postgresql.conf --no-sync"
            )
        );
        assert!(!with(&server, 14).contains("config-file") && !with(&server, 15).contains("secret"));
        assert!(!with(&server, 14).contains("restore-target-wal"), "it would not find the configuration");
        server.config_dir = None;
        assert!(with(&server, 14).contains("--restore-target-wal") && !with(&server, 15).contains("config-file"));
        server.config_base_name = "patroni".into();
        assert!(with(&server, 15).contains("--config-file=/data/patroni.conf"));
    }

    proptest::proptest! {
        #[test]
        fn any_output_is_survived(text in "\\PC*") {
            checkpoint_length(&text);
            checkpoint_length(&format!("len (rec/tot):{text}"));
        }
    }
}
