//! The server's configuration files, as Patroni's contract lays them out (configuration contract, section 4).
//!
//! Written whole, and only when something changed. Who reloads or restarts the server afterwards is not decided here.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::atomic_file::{PRIVATE, read_if_present, remove_if_present, replace};
use super::parameters::{STANDBY_NAMES, is_recovery_parameter};
use super::{Error, RestoreRecovery, Server, Upstream, access, bootstrap_access, conninfo};

/// The first lines of every file that pgherd writes.
pub(super) const HEADER: &str = "# Written by pgherd and overwritten with every change of the configuration.\n\
                      # Edit the YAML file or the dynamic configuration instead.\n";

const DATA_DIRECTORY_BACKUP_SUFFIX: &str = ".backup";

/// How the server is to start, or to go on, as far as its files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Out of recovery, or on its way out.
    Primary,
    /// A standby; without an upstream it replays what it has (and what `restore_command` brings) and waits.
    Standby { upstream: Option<Upstream> },
    /// A restored backup that becomes a new cluster: it recovers to where it was told, and then leaves recovery by itself.
    Restore(RestoreRecovery),
    /// It runs and is out of recovery. If it was started as a standby, the recovery settings of then mean nothing any more and stay in the
    /// file: PostgreSQL would complain, at every reload, of each that is gone.
    RunningPrimary,
}

/// Which files changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub postgresql_conf: bool,
    pub pg_hba: bool,
    pub pg_ident: bool,
    /// `standby.signal` or `recovery.signal`; has a meaning at the next start only.
    pub signal: bool,
}

/// The main configuration file.
pub fn postgresql_conf(server: &Server) -> PathBuf {
    server.config_dir().join(format!("{}.conf", server.config_base_name))
}

/// Writes every file: `parameters` are those of [`start_settings`](super::parameters::start_settings), with what the
/// daemon sets on top (`synchronous_standby_names`).
pub fn write(server: &Server, parameters: &BTreeMap<String, String>, recovery: &Recovery) -> Result<Changed, Error> {
    let main = postgresql_conf(server);
    if server.config_dir() != server.data_dir {
        // A directory that the configuration names anew: without access rules the server would not start.
        restore_backups(server)?;
    }
    let include = keep_original(server, &main)?;
    if let Recovery::Standby { upstream: Some(upstream) } = recovery {
        write_password_file(server, &[upstream])?;
    }
    let text = render(server, &include, parameters, &recovery_block(server, recovery));
    let keeps = matches!(recovery, Recovery::Restore(RestoreRecovery::Kept));
    let changed = Changed {
        postgresql_conf: replace(&main, &text, PRIVATE)? | (!keeps && clean_auto_conf(server)?),
        pg_hba: write_access(server)?,
        pg_ident: !server.bootstraps && write_lines(&server.config_dir().join("pg_ident.conf"), &server.pg_ident)?,
        signal: write_signals(&server.data_dir, recovery)?,
    };
    Ok(changed)
}

/// Writes `pgpass` for every role that this node uses on `upstreams`.
pub fn write_password_file(server: &Server, upstreams: &[&Upstream]) -> Result<(), Error> {
    replace(&server.pgpass, &conninfo::password_file(server, upstreams), PRIVATE).map(drop)
}

/// Copies the files into the data directory as `*.backup`, so that a base backup carries them even from another
/// `config_dir`.
pub fn save_backups(server: &Server) -> Result<(), Error> {
    for name in backed_up(server) {
        if let Some(text) = read_if_present(&server.config_dir().join(&name))? {
            replace(&server.data_dir.join(name + DATA_DIRECTORY_BACKUP_SUFFIX), &text, PRIVATE)?;
        }
    }
    Ok(())
}

/// Puts back the files that are missing after a clone from a server whose `config_dir` is not in its data directory.
pub fn restore_backups(server: &Server) -> Result<(), Error> {
    for name in backed_up(server) {
        let target = server.config_dir().join(&name);
        if target.exists() {
            continue;
        }
        if let Some(text) = read_if_present(&server.data_dir.join(name + DATA_DIRECTORY_BACKUP_SUFFIX))? {
            replace(&target, &text, PRIVATE)?;
        }
    }
    Ok(())
}

/// The access rules of a server that pgherd initialised itself and whose YAML has none: the agent, replication from any
/// member, and users with a password. Never written over a user's file.
pub fn default_pg_hba(server: &Server) -> Vec<String> {
    let superuser = hba_name(&server.superuser.username);
    // Without a password the agent can only come over the socket as the operating system's user of that name.
    let local = if server.superuser.password.is_some() { "scram-sha-256" } else { "peer" };
    vec![
        format!("local all {superuser} {local}"),
        "local all all scram-sha-256".to_owned(),
        "host all all all scram-sha-256".to_owned(),
        format!("local replication {} scram-sha-256", hba_name(&server.replication.username)),
        format!("host replication {} all scram-sha-256", hba_name(&server.replication.username)),
    ]
}

fn write_access(server: &Server) -> Result<bool, Error> {
    if server.bootstraps {
        return bootstrap_access::narrow(server);
    }
    let restored = bootstrap_access::restore(server)?;
    if !server.admits_clients {
        return access::narrow(server);
    }
    let widened = access::widen(server)?;
    Ok(write_lines(&server.config_dir().join("pg_hba.conf"), &server.pg_hba)? | widened | restored)
}

/// Writes `lines` as one of the access files; nothing if there are none, the file is then the user's.
pub(super) fn write_lines(path: &Path, lines: &[String]) -> Result<bool, Error> {
    if lines.is_empty() {
        return Ok(false);
    }
    let mut text = HEADER.to_owned();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    replace(path, &text, PRIVATE)
}

/// Renames the original file once, and returns what the new one includes.
fn keep_original(server: &Server, main: &Path) -> Result<String, Error> {
    let base_name = format!("{}.base.conf", server.config_base_name);
    let base = server.config_dir().join(&base_name);
    if !base.exists() {
        match main.exists() {
            true => fs::rename(main, &base).map_err(Error::file("rename to postgresql.base.conf", main))?,
            // A copy of a server whose configuration is elsewhere: an include of nothing would keep it from starting.
            false => replace(&base, "", PRIVATE).map(drop)?,
        }
    }
    Ok(server.custom_conf.as_ref().map_or(base_name, |path| path.to_string_lossy().into_owned()))
}

fn render(
    server: &Server,
    include: &str,
    parameters: &BTreeMap<String, String>,
    recovery: &BTreeMap<String, String>,
) -> String {
    let mut text = format!("{HEADER}include '{}'\n\n", quoted(include));
    for (name, value) in parameters.iter().filter(|(name, _)| !is_recovery_parameter(name)) {
        push_setting(&mut text, name, value);
    }
    for (name, file) in [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")] {
        if !parameters.contains_key(name) {
            push_setting(&mut text, name, &server.config_dir().join(file).to_string_lossy());
        }
    }
    if !recovery.is_empty() {
        text.push_str("\n# recovery.conf\n");
        recovery.iter().for_each(|(name, value)| push_setting(&mut text, name, value));
    }
    text
}

pub(super) fn push_setting(text: &mut String, name: &str, value: &str) {
    writeln!(text, "{name} = '{}'", quoted(value)).expect("writing to a String cannot fail");
}

/// Sorted by name.
fn recovery_block(server: &Server, recovery: &Recovery) -> BTreeMap<String, String> {
    let of_user = || {
        let parameters = server.parameters.iter().filter(|(name, _)| is_recovery_parameter(name));
        parameters.chain(&server.recovery_conf).map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    match recovery {
        Recovery::Primary | Recovery::Restore(RestoreRecovery::Nothing | RestoreRecovery::Kept) => BTreeMap::new(),
        Recovery::Restore(RestoreRecovery::Settings(settings)) => {
            let mut block = settings.clone();
            // Paused at its target it would wait for somebody for ever.
            block.entry("recovery_target_action".into()).or_insert_with(|| "promote".into());
            block
        }
        Recovery::Standby { .. } | Recovery::RunningPrimary => {
            let upstream = match recovery {
                Recovery::Standby { upstream } => upstream.as_ref(),
                Recovery::Primary | Recovery::RunningPrimary | Recovery::Restore(_) => None,
            };
            let mut block: BTreeMap<String, String> = of_user();
            // A target would end the standby's recovery.
            for name in ["", "_name", "_time", "_xid", "_lsn"] {
                block.insert(format!("recovery_target{name}"), String::new());
            }
            let conninfo = upstream.map_or_else(String::new, |it| conninfo::primary_conninfo(server, it));
            let slot = upstream.and_then(|it| it.slot.clone()).unwrap_or_default();
            block.insert("primary_conninfo".into(), conninfo);
            block.insert("primary_slot_name".into(), slot);
            block.insert("recovery_target_timeline".into(), "latest".into());
            block
        }
    }
}

/// The settings of recovery, and the names of synchronous standbys where they are the agent's, must come from the file that pgherd writes:
/// `ALTER SYSTEM` and `pg_basebackup -R` put theirs into this one, which wins.
fn clean_auto_conf(server: &Server) -> Result<bool, Error> {
    let path = server.data_dir.join("postgresql.auto.conf");
    let Some(text) = read_if_present(&path)? else { return Ok(false) };
    let is_ours = |line: &&str| {
        let name = line.trim_start().split(|c: char| c == '=' || c.is_whitespace()).next().unwrap_or("");
        let name = name.to_ascii_lowercase();
        is_recovery_parameter(&name) || (server.standby_names.is_some() && name == STANDBY_NAMES)
    };
    if !text.lines().any(|line| is_ours(&line)) {
        return Ok(false);
    }
    let kept: String = text.split_inclusive('\n').filter(|line| !is_ours(line)).collect();
    replace(&path, &kept, PRIVATE)
}

fn write_signals(data_dir: &Path, recovery: &Recovery) -> Result<bool, Error> {
    // They are there from the restore on, and PostgreSQL removes them at the end of the recovery.
    if let Recovery::Restore(RestoreRecovery::Kept | RestoreRecovery::Settings(_)) = recovery {
        return Ok(false);
    }
    let mut changed = false;
    for (name, wanted) in [("standby.signal", matches!(recovery, Recovery::Standby { .. })), ("recovery.signal", false)]
    {
        let path = data_dir.join(name);
        changed |= match wanted {
            true => !path.exists() && replace(&path, "", PRIVATE)?,
            false => remove_if_present(&path)?,
        };
    }
    Ok(changed)
}

fn backed_up(server: &Server) -> [String; 4] {
    let base = &server.config_base_name;
    [format!("{base}.conf"), format!("{base}.base.conf"), "pg_hba.conf".into(), "pg_ident.conf".into()]
}

/// Inside single quotes of `postgresql.conf`, which end with the line.
pub(super) fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n").replace('\r', "\\r")
}

/// A role in `pg_hba.conf`; quoted, no name is a keyword, and a quote of its own is doubled.
pub(super) fn hba_name(role: &str) -> String {
    format!("\"{}\"", role.replace('"', "\"\""))
}

#[cfg(test)]
#[path = "config_files_tests.rs"]
mod tests;
