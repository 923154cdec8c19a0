//! A new cluster: initdb in a directory of its own, put in place when complete.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::data_directory::{Marker, Staging};
use super::{Error, Server, config_files, data_directory, installation, program};

/// They would break what pgherd relies on.
pub const FORBIDDEN: [&str; 5] = ["pgdata", "nosync", "pwfile", "sync-only", "version"];

const GIGABYTE: u64 = 1 << 30;

/// Runs initdb with the user's options and puts the result in place of the (empty) data directory, with access rules
/// and the settings that only a server of our own gets. It is not started here.
pub async fn initdb(server: &Server, limit: Duration) -> Result<(), Error> {
    refuse_forbidden("initdb", &server.initdb_options, &FORBIDDEN)?;
    let staging = Staging::prepare(server)?;
    let mut command = installation::command(server, "initdb")?;
    command.arg("--pgdata").arg(staging.path());
    arguments(server, &mut command);
    let password_file = password_file(server)?;
    if let Some(file) = &password_file {
        command.arg("--pwfile").arg(file.path());
    }
    program::run(command, program::Limit::Total(limit), |line| tracing::debug!("initdb: {line}")).await?;
    // Removed here, and on every other way out of this function.
    drop(password_file);
    finish(server, staging.path())?;
    Marker::NewCluster.set(staging.path())?;
    if let Some(old) = staging.install()? {
        data_directory::remove_if_empty(&old)?;
    }
    move_to_config_dir(server)
}

/// Refuses options that would break what pgherd relies on.
pub(super) fn refuse_forbidden(program: &str, options: &[super::ToolOption], forbidden: &[&str]) -> Result<(), Error> {
    match options.iter().find(|option| forbidden.contains(&option.name.trim_start_matches('-'))) {
        None => Ok(()),
        Some(option) => Err(Error::Refused(format!(
            "the option {} of {program} is pgherd's own: remove it from the configuration",
            option.name
        ))),
    }
}

fn arguments(server: &Server, command: &mut Command) {
    let options = &server.initdb_options;
    let given = |names: &[&str]| options.iter().any(|option| names.contains(&option.name.as_str()));
    command.args(options.iter().map(super::ToolOption::argument));
    command.arg(format!("--username={}", server.superuser.username));
    if !given(&["data-checksums", "no-data-checksums"]) {
        command.arg("--data-checksums");
    }
    // The locale of a new cluster is the user's, not the one in which output is parsed. A machine without one would get
    // SQL_ASCII, which no client wants.
    let inherited = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| std::env::var(name).ok());
    let has_locale = inherited.is_some_and(|locale| !matches!(locale.as_str(), "" | "C" | "POSIX"));
    match std::env::var_os("LC_ALL") {
        Some(locale) => command.env("LC_ALL", locale),
        None => command.env_remove("LC_ALL"),
    };
    if !has_locale && !given(&["locale", "no-locale", "locale-provider", "lc-collate", "lc-ctype"]) {
        command.arg("--locale=C.UTF-8");
        if !given(&["encoding"]) {
            command.arg("--encoding=UTF8");
        }
    }
}

/// Readable by the owner only (`tempfile` creates it so); gone when dropped.
fn password_file(server: &Server) -> Result<Option<tempfile::NamedTempFile>, Error> {
    let Some(password) = &server.superuser.password else { return Ok(None) };
    let failed = |source| Error::File { operation: "write a password file in", path: std::env::temp_dir(), source };
    let mut file = tempfile::NamedTempFile::with_prefix("pgherd-pwfile-").map_err(failed)?;
    writeln!(file, "{}", password.expose()).map_err(failed)?;
    Ok(Some(file))
}

/// What a server that pgherd initialised has from the first start.
fn finish(server: &Server, new: &Path) -> Result<(), Error> {
    let hba = new.join("pg_hba.conf");
    if server.pg_hba.is_empty() && server.bootstrap_pg_hba.is_empty() {
        config_files::write_lines(&hba, &config_files::default_pg_hba(server))?;
    } else if server.pg_hba.is_empty() {
        append(&hba, &server.bootstrap_pg_hba.join("\n"))?;
    }
    // A slot of a standby that never comes back would fill the disk. Only where nobody relies on another behaviour
    // yet, and in the file that the user's settings override.
    let limit = (data_directory::free_bytes(new)? / 4 / GIGABYTE).clamp(1, 64);
    append(
        &new.join("postgresql.conf"),
        &format!("max_slot_wal_keep_size = '{limit}GB'\t# pgherd: a quarter of the disk"),
    )
}

fn append(path: &Path, line: &str) -> Result<(), Error> {
    let opened = OpenOptions::new().append(true).open(path);
    opened.and_then(|mut file| writeln!(file, "\n{line}")).map_err(Error::file("append to", path))
}

/// The configuration of a new cluster lives where the user wants it; a file that is there already is theirs.
fn move_to_config_dir(server: &Server) -> Result<(), Error> {
    if server.config_dir() == server.data_dir {
        return Ok(());
    }
    let main = format!("{}.conf", server.config_base_name);
    for (from, to) in
        [("postgresql.conf", main.as_str()), ("pg_hba.conf", "pg_hba.conf"), ("pg_ident.conf", "pg_ident.conf")]
    {
        let (from, to) = (server.data_dir.join(from), server.config_dir().join(to));
        if !to.exists() {
            fs::copy(&from, &to).map_err(Error::file("copy to the configuration directory", &from))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{Credentials, ToolOption};

    #[test]
    fn the_users_options_come_first_and_forbidden_ones_are_refused() {
        let mut server = Server::new("n", "c", "/data", Credentials::new("postgres", None));
        server.initdb_options =
            vec![ToolOption::with_value("locale", "ru_RU.UTF-8"), ToolOption::flag("data-checksums")];
        let mut command = Command::new("initdb");
        arguments(&server, &mut command);
        let arguments: Vec<_> = command.as_std().get_args().collect();
        assert_eq!(arguments, ["--locale=ru_RU.UTF-8", "--data-checksums", "--username=postgres"]);
        let error =
            refuse_forbidden("initdb", &[ToolOption::with_value("pwfile", "x")], &FORBIDDEN).expect_err("refused");
        assert!(error.to_string().contains("pwfile of initdb"), "{error}");
    }
}
