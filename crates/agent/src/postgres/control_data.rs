//! What pg_controldata says of a data directory: readable while the server is down.

use std::path::Path;
use std::time::Duration;

use pgherd_ha::{Lsn, SystemId, Timeline};

use super::{Error, Server, installation, program};

/// It reads one 8 kB file.
const LIMIT: Duration = Duration::from_secs(10);

/// `Database cluster state`: what the server was doing when it last wrote its control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterState {
    StartingUp,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    InCrashRecovery,
    InArchiveRecovery,
    InProduction,
    Other(String),
}

impl ClusterState {
    fn parse(text: &str) -> ClusterState {
        match text {
            "starting up" => ClusterState::StartingUp,
            "shut down" => ClusterState::ShutDown,
            "shut down in recovery" => ClusterState::ShutDownInRecovery,
            "shutting down" => ClusterState::ShuttingDown,
            "in crash recovery" => ClusterState::InCrashRecovery,
            "in archive recovery" => ClusterState::InArchiveRecovery,
            "in production" => ClusterState::InProduction,
            other => ClusterState::Other(other.to_owned()),
        }
    }

    /// It was a primary, and did not stop cleanly.
    pub fn is_crashed_primary(&self) -> bool {
        matches!(self, ClusterState::InProduction | ClusterState::ShuttingDown | ClusterState::InCrashRecovery)
    }

    /// It ran as a standby, stopped cleanly or not.
    pub fn was_in_recovery(&self) -> bool {
        matches!(self, ClusterState::ShutDownInRecovery | ClusterState::InArchiveRecovery)
    }
}

/// The settings that a standby must have at least as large as the primary whose WAL it replays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequiredSettings {
    pub max_connections: u32,
    pub max_worker_processes: u32,
    pub max_wal_senders: u32,
    pub max_prepared_transactions: u32,
    pub max_locks_per_transaction: u32,
}

impl RequiredSettings {
    pub fn by_name(&self) -> [(&'static str, u32); 5] {
        [
            ("max_connections", self.max_connections),
            ("max_worker_processes", self.max_worker_processes),
            ("max_wal_senders", self.max_wal_senders),
            ("max_prepared_transactions", self.max_prepared_transactions),
            ("max_locks_per_transaction", self.max_locks_per_transaction),
        ]
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlData {
    pub system_id: SystemId,
    pub state: ClusterState,
    /// Where the latest checkpoint record begins.
    pub checkpoint: Lsn,
    pub redo: Lsn,
    pub timeline: Timeline,
    pub previous_timeline: Timeline,
    /// How far a standby must replay to be consistent; 0 unless in recovery.
    pub min_recovery_end: Lsn,
    pub min_recovery_end_timeline: Timeline,
    /// Not 0 while a base backup is being replayed.
    pub backup_start: Lsn,
    pub wal_log_hints: bool,
    pub checksums: bool,
    pub wal_segment_bytes: u64,
    pub required: RequiredSettings,
}

impl ControlData {
    /// The server stopped as a primary after a complete shutdown checkpoint.
    pub fn is_shut_down(&self) -> bool {
        self.state == ClusterState::ShutDown
    }

    /// pg_rewind can work on it.
    pub fn allows_rewind(&self) -> bool {
        self.wal_log_hints || self.checksums
    }
}

/// Reads the control file of the server's own data directory.
pub async fn read(server: &Server) -> Result<ControlData, Error> {
    read_directory(server, &server.data_dir).await
}

/// Reads the control file of any data directory.
pub async fn read_directory(server: &Server, data_dir: &Path) -> Result<ControlData, Error> {
    let mut command = installation::command(server, "pg_controldata")?;
    command.arg("--pgdata").arg(data_dir);
    let text = program::run(command, program::Limit::Total(LIMIT), |_| ()).await?;
    parse(&text)
}

/// Understands the output of pg_controldata in the C locale, of every version from 14 on.
pub fn parse(text: &str) -> Result<ControlData, Error> {
    let fields = Fields(text);
    Ok(ControlData {
        system_id: SystemId(fields.number("Database system identifier")?),
        state: ClusterState::parse(fields.text("Database cluster state")?),
        checkpoint: fields.lsn("Latest checkpoint location")?,
        redo: fields.lsn("Latest checkpoint's REDO location")?,
        timeline: Timeline(fields.number("Latest checkpoint's TimeLineID")?),
        previous_timeline: Timeline(fields.number("Latest checkpoint's PrevTimeLineID")?),
        min_recovery_end: fields.lsn("Minimum recovery ending location")?,
        min_recovery_end_timeline: Timeline(fields.number("Min recovery ending loc's timeline")?),
        backup_start: fields.lsn("Backup start location")?,
        wal_log_hints: fields.text("wal_log_hints setting")? == "on",
        checksums: fields.number::<u32>("Data page checksum version")? != 0,
        wal_segment_bytes: fields.number("Bytes per WAL segment")?,
        required: RequiredSettings {
            max_connections: fields.number("max_connections setting")?,
            max_worker_processes: fields.number("max_worker_processes setting")?,
            max_wal_senders: fields.number("max_wal_senders setting")?,
            max_prepared_transactions: fields.number("max_prepared_xacts setting")?,
            max_locks_per_transaction: fields.number("max_locks_per_xact setting")?,
        },
    })
}

/// The lines `label:   value`.
struct Fields<'a>(&'a str);

impl<'a> Fields<'a> {
    fn text(&self, label: &str) -> Result<&'a str, Error> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(label)?.strip_prefix(':'))
            .map(str::trim)
            .ok_or_else(|| Error::answer("pg_controldata", format!("no line `{label}`")))
    }

    fn number<T: std::str::FromStr>(&self, label: &str) -> Result<T, Error> {
        let text = self.text(label)?;
        text.parse().map_err(|_| Error::answer("pg_controldata", format!("`{label}: {text}` is not a number")))
    }

    fn lsn(&self, label: &str) -> Result<Lsn, Error> {
        let text = self.text(label)?;
        text.parse().map_err(|error| Error::answer("pg_controldata", format!("{label}: {error}")))
    }
}

/// The control data of a standby, for tests written as data.
#[cfg(test)]
pub(super) fn example() -> ControlData {
    parse(tests::STANDBY).expect("a complete output")
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const STANDBY: &str = "\
pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7412345678901234567
Database cluster state:               in archive recovery
pg_control last modified:             Mon Nov 23 08:00:00 2026
Latest checkpoint location:           0/3000060
Latest checkpoint's REDO location:    0/3000028
Latest checkpoint's REDO WAL file:    000000020000000000000003
Latest checkpoint's TimeLineID:       2
Latest checkpoint's PrevTimeLineID:   1
Minimum recovery ending location:     0/3000100
Min recovery ending loc's timeline:   2
Backup start location:                0/0
Backup end location:                  0/0
End-of-backup record required:        no
wal_level setting:                    replica
wal_log_hints setting:                on
max_connections setting:              120
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           3
max_locks_per_xact setting:           64
track_commit_timestamp setting:       off
Bytes per WAL segment:                16777216
Data page checksum version:           0
";

    #[test]
    fn every_field_is_read() {
        let data = parse(STANDBY).expect("a complete output");
        assert_eq!(data.system_id, SystemId(7_412_345_678_901_234_567));
        assert_eq!(data.state, ClusterState::InArchiveRecovery);
        assert!(data.state.was_in_recovery() && !data.state.is_crashed_primary() && !data.is_shut_down());
        assert_eq!((data.checkpoint, data.redo), (Lsn(0x300_0060), Lsn(0x300_0028)));
        assert_eq!((data.timeline, data.previous_timeline), (Timeline(2), Timeline(1)));
        assert_eq!((data.min_recovery_end, data.min_recovery_end_timeline), (Lsn(0x300_0100), Timeline(2)));
        assert!(data.wal_log_hints && !data.checksums && data.allows_rewind());
        assert_eq!(data.wal_segment_bytes, 16 << 20);
        let required = RequiredSettings {
            max_connections: 120,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 3,
            max_locks_per_transaction: 64,
        };
        assert_eq!(data.required, required);
    }

    #[test]
    fn a_missing_or_broken_line_is_named() {
        for (line, replacement, expected) in [
            ("Database system identifier:           7412345678901234567\n", "", "no line `Database system identifier`"),
            ("Latest checkpoint location:           0/3000060", "Latest checkpoint location: x", "Latest checkpoint"),
            ("max_connections setting:              120", "max_connections setting: many", "is not a number"),
        ] {
            let error = parse(&STANDBY.replace(line, replacement)).expect_err("a broken output").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_output_is_survived(text in "\\PC*", cut in 0..STANDBY.len(), value in "\\PC*") {
            let _ = parse(&text);
            let _ = parse(&format!("{}{value}{}", &STANDBY[..cut], &STANDBY[cut..]));
        }
    }
}
