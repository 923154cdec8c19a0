//! The settings of the server: which are controlled (passed on the command line), which pgherd ships by default,
//! which are the user's. Pure; `config_files` writes them. Source of the controlled ones: Patroni's configuration
//! contract, section 4.

use std::collections::BTreeMap;

use super::{ControlData, Server};

/// Defaults that a highly available server should have (measured: promotion waits up to
/// `wal_retrieve_retry_interval`; a silent peer is noticed after the time-outs). The user's value wins.
const AVAILABILITY_DEFAULTS: [(&str, &str); 5] = [
    ("restart_after_crash", "off"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_receiver_timeout", "5s"),
    ("wal_retrieve_retry_interval", "100ms"),
    ("wal_sender_timeout", "5s"),
];

/// Settings that only have a meaning on a standby or while recovering; they belong to the recovery block.
const RECOVERY_PARAMETERS: [&str; 15] = [
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
];

/// The agent's to set in synchronous mode.
pub const STANDBY_NAMES: &str = "synchronous_standby_names";

pub fn is_recovery_parameter(name: &str) -> bool {
    RECOVERY_PARAMETERS.contains(&name)
}

/// What a controlled setting may be.
#[derive(Clone, Copy, Debug)]
enum Valid {
    AtLeast(u64),
    Boolean,
    MustBeOn,
    WalLevel,
    /// Not below 16 MB; megabytes where no unit is given.
    KeptWal,
}

struct Controlled {
    name: &'static str,
    default: &'static str,
    valid: Valid,
}

const fn controlled_setting(name: &'static str, default: &'static str, valid: Valid) -> Controlled {
    Controlled { name, default, valid }
}

/// In the order of the command line, after `listen_addresses`, `port` and `cluster_name`.
const CONTROLLED: [Controlled; 10] = [
    controlled_setting("wal_level", "replica", Valid::WalLevel),
    controlled_setting("hot_standby", "on", Valid::MustBeOn),
    controlled_setting("max_connections", "100", Valid::AtLeast(25)),
    controlled_setting("max_wal_senders", "10", Valid::AtLeast(3)),
    controlled_setting("max_prepared_transactions", "0", Valid::AtLeast(0)),
    controlled_setting("max_locks_per_transaction", "64", Valid::AtLeast(32)),
    controlled_setting("track_commit_timestamp", "off", Valid::Boolean),
    controlled_setting("max_replication_slots", "10", Valid::AtLeast(4)),
    controlled_setting("max_worker_processes", "8", Valid::AtLeast(2)),
    controlled_setting("wal_log_hints", "on", Valid::Boolean),
];

/// Controlled too, but only in the file.
const WAL_KEEP_SIZE: Controlled = controlled_setting("wal_keep_size", "128MB", Valid::KeptWal);

/// The user's value for one of these is dropped; theirs come from `postgresql.listen` and `scope`.
const NEVER_SETTABLE: [&str; 3] = ["listen_addresses", "port", "cluster_name"];

/// Whether only the dynamic configuration may set it.
pub fn is_controlled(name: &str) -> bool {
    NEVER_SETTABLE.contains(&name)
        || matches!(name, "wal_keep_size" | "wal_keep_segments")
        || CONTROLLED.iter().any(|setting| setting.name == name)
}

/// Where the server's files are, and what they include: said by keys of their own, and never by a setting.
const FORBIDDEN: [&str; 5] = ["config_file", "data_directory", "include", "include_dir", "include_if_exists"];

/// Whether nobody may set it.
pub fn is_forbidden(name: &str) -> bool {
    FORBIDDEN.iter().any(|forbidden| forbidden.eq_ignore_ascii_case(name))
}

/// What is expected of a controlled setting, if this value is not it.
pub fn refused_by_contract(name: &str, value: &str) -> Option<String> {
    let setting = CONTROLLED.iter().chain([&WAL_KEEP_SIZE]).find(|setting| setting.name == name)?;
    setting.valid.accept(value).err()
}

/// The settings of which a standby needs as much as its primary had when it wrote the log.
pub const BINDING: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// The settings that a start of the server takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartSettings {
    /// For the command line, in the contract's order.
    pub command_line: Vec<(&'static str, String)>,
    /// For `postgresql.conf`: the same and everything else.
    pub file: BTreeMap<String, String>,
    /// Raised above the configuration because the WAL to be replayed needs it: shown as a pending restart.
    pub raised: Vec<&'static str>,
    /// Values that were refused, one sentence each.
    pub warnings: Vec<String>,
}

impl StartSettings {
    /// The arguments of `postgres` after `-D` and `--config-file`.
    pub fn arguments(&self) -> Vec<String> {
        self.command_line.iter().map(|(name, value)| format!("--{name}={value}")).collect()
    }
}

/// All settings of `server`. A standby passes the control data of its directory: it must not start with less than the
/// primary whose WAL it replays had.
pub fn start_settings(server: &Server, standby: Option<&ControlData>) -> StartSettings {
    let mut warnings = Vec::new();
    let mut raised = Vec::new();
    let mut command_line = vec![
        ("listen_addresses", server.listen_addresses.clone()),
        ("port", server.port.to_string()),
        ("cluster_name", server.scope.clone()),
    ];
    for setting in &CONTROLLED {
        let mut value = setting.value(&server.parameters, &mut warnings);
        let needed = standby.and_then(|control| required_by(control, setting.name));
        if let Some(needed) = needed.filter(|needed| integer(&value).is_some_and(|value| value < *needed)) {
            value = needed.to_string();
            raised.push(setting.name);
        }
        command_line.push((setting.name, value));
    }
    let mut file: BTreeMap<String, String> =
        AVAILABILITY_DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let of_user = server
        .parameters
        .iter()
        .filter(|(name, _)| !is_controlled(name) && !is_recovery_parameter(name) && !is_forbidden(name));
    file.extend(of_user.map(|(name, value)| (name.clone(), value.clone())));
    if let Some(names) = &server.standby_names {
        // Also if they are empty: the user's original file, which is included, may have some.
        file.insert(STANDBY_NAMES.to_owned(), names.clone());
    }
    file.insert(WAL_KEEP_SIZE.name.to_owned(), WAL_KEEP_SIZE.value(&server.parameters, &mut warnings));
    file.extend(command_line.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    StartSettings { command_line, file, raised, warnings }
}

impl Controlled {
    fn value(&self, parameters: &BTreeMap<String, String>, warnings: &mut Vec<String>) -> String {
        let Some(wanted) = parameters.get(self.name) else { return self.default.to_owned() };
        match self.valid.accept(wanted) {
            Ok(value) => value,
            Err(expected) => {
                let Controlled { name, default, .. } = self;
                warnings.push(format!("{name} = {wanted} is not valid ({expected}); using {default}"));
                self.default.to_owned()
            }
        }
    }
}

impl Valid {
    /// The value to use, or what was expected.
    fn accept(self, value: &str) -> Result<String, String> {
        let value = value.trim();
        match self {
            Valid::AtLeast(least) => integer(value)
                .filter(|number| *number >= least && *number <= i32::MAX as u64)
                .map(|number| number.to_string())
                .ok_or_else(|| format!("expected a number of at least {least}")),
            Valid::Boolean => boolean(value).map(on_off).ok_or_else(|| "expected on or off".to_owned()),
            Valid::MustBeOn => boolean(value).filter(|on| *on).map(on_off).ok_or_else(|| "it must be on".to_owned()),
            Valid::WalLevel => match value.to_ascii_lowercase().as_str() {
                "replica" | "hot_standby" => Ok("replica".to_owned()),
                "logical" => Ok("logical".to_owned()),
                _ => Err("expected replica or logical".to_owned()),
            },
            Valid::KeptWal => megabytes(value)
                .filter(|size| *size >= 16.0)
                .map(|_| value.to_owned())
                .ok_or_else(|| "expected a size of at least 16MB".to_owned()),
        }
    }
}

fn required_by(control: &ControlData, name: &str) -> Option<u64> {
    let required = control.required.by_name();
    required.into_iter().find(|(of, _)| *of == name).map(|(_, value)| u64::from(value))
}

fn on_off(value: bool) -> String {
    if value { "on".to_owned() } else { "off".to_owned() }
}

/// As PostgreSQL reads it, prefixes like `tr` left out.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Decimal, `0x` hexadecimal or `0` octal, as PostgreSQL reads integers.
fn integer(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // from_str_radix would take a sign.
    digits.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

fn megabytes(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "B" => 1.0 / 1024.0 / 1024.0,
        "kB" => 1.0 / 1024.0,
        "MB" | "" => 1.0,
        "GB" => 1024.0,
        "TB" => 1024.0 * 1024.0,
        _ => return None,
    };
    number.trim().parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{Credentials, control_data};

    fn server(parameters: &[(&str, &str)]) -> Server {
        let mut server = Server::new("n1", "batman", "/data", Credentials::new("postgres", None));
        server.listen_addresses = "0.0.0.0".into();
        server.parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        server
    }

    #[test]
    fn the_command_line_has_the_order_of_the_contract() {
        let expected = [
            "--listen_addresses=0.0.0.0",
            "--port=5432",
            "--cluster_name=batman",
            "--wal_level=replica",
            "--hot_standby=on",
            "--max_connections=100",
            "--max_wal_senders=10",
            "--max_prepared_transactions=0",
            "--max_locks_per_transaction=64",
            "--track_commit_timestamp=off",
            "--max_replication_slots=10",
            "--max_worker_processes=8",
            "--wal_log_hints=on",
        ];
        assert_eq!(start_settings(&server(&[]), None).arguments(), expected);
    }

    #[test]
    fn controlled_values_are_validated() {
        // (name, wanted, used, warned)
        for (name, wanted, used, warned) in [
            ("wal_level", "hot_standby", "replica", false),
            ("wal_level", "LOGICAL", "logical", false),
            ("wal_level", "minimal", "replica", true),
            ("hot_standby", "off", "on", true),
            ("max_connections", "24", "100", true),
            ("max_connections", "0x64", "100", false),
            ("max_connections", "0310", "200", false),
            ("max_connections", "+200", "100", true),
            ("max_connections", "99999999999", "100", true),
            ("max_wal_senders", "3", "3", false),
            ("track_commit_timestamp", "True", "on", false),
            ("wal_log_hints", "no", "off", false),
            ("wal_keep_size", "15MB", "128MB", true),
            ("wal_keep_size", "2GB", "2GB", false),
            ("wal_keep_size", "64", "64", false),
            ("wal_keep_size", "lots", "128MB", true),
            ("port", "1", "5432", false),
        ] {
            let settings = start_settings(&server(&[(name, wanted)]), None);
            assert_eq!(settings.file[name], used, "{name} = {wanted}");
            assert_eq!(!settings.warnings.is_empty(), warned, "{name} = {wanted}: {:?}", settings.warnings);
        }
    }

    #[test]
    fn the_users_settings_win_over_the_defaults_for_availability() {
        let settings = start_settings(&server(&[("wal_receiver_timeout", "1min"), ("work_mem", "8MB")]), None);
        assert_eq!(settings.file["wal_receiver_timeout"], "1min");
        assert_eq!(settings.file["wal_retrieve_retry_interval"], "100ms");
        assert_eq!(settings.file["work_mem"], "8MB");
        let recovery = start_settings(&server(&[("restore_command", "cp")]), None);
        assert!(!recovery.file.contains_key("restore_command"));
    }

    #[test]
    fn a_standby_is_raised_to_what_the_wal_needs() {
        let mut control = control_data::example();
        control.required.max_connections = 300;
        control.required.max_worker_processes = 4;
        control.required.max_prepared_transactions = 0;
        let settings = start_settings(&server(&[]), Some(&control));
        assert_eq!(
            (settings.file["max_connections"].as_str(), settings.file["max_worker_processes"].as_str()),
            ("300", "8")
        );
        assert_eq!(settings.raised, ["max_connections"]);
        assert!(settings.arguments().contains(&"--max_connections=300".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn any_value_is_survived(value in "\\PC*") {
            for name in ["wal_level", "max_connections", "wal_log_hints", "wal_keep_size"] {
                start_settings(&server(&[(name, &value)]), None);
            }
        }
    }
}
