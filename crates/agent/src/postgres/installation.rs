//! PostgreSQL's programs on this machine: where they are and which version.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::{Error, Server, program};

/// `postgres --version` reads no data directory; on a healthy machine it takes milliseconds.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// The version of the binaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    /// 15 of 15.18; what a data directory's `PG_VERSION` must say.
    pub major: u32,
    /// As `server_version_num`: 150018.
    pub number: u32,
}

/// As PostgreSQL writes it: `15.18`.
impl std::fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.number % 10_000)
    }
}

/// The path of one of PostgreSQL's programs (`postgres`, `initdb`, `pg_rewind`, ...), by `bin_dir` and `bin_name`.
pub fn locate(server: &Server, program: &str) -> Result<PathBuf, Error> {
    let file_name = server.bin_names.get(program).map_or(program, String::as_str);
    let found = match &server.bin_dir {
        Some(directory) => Some(directory.join(file_name)).filter(|path| is_executable(path)),
        None => std::env::var_os("PATH").and_then(|path| {
            std::env::split_paths(&path).map(|directory| directory.join(file_name)).find(|path| is_executable(path))
        }),
    };
    found.ok_or_else(|| Error::ProgramMissing {
        program: file_name.to_owned(),
        searched: server.bin_dir.as_ref().map_or_else(|| "the PATH".to_owned(), |path| path.display().to_string()),
    })
}

/// Fails unless every program that the daemon will need is there; better at start than in a failover.
pub fn check_programs(server: &Server) -> Result<(), Error> {
    for program in ["initdb", "pg_controldata", "pg_basebackup", "pg_rewind", "pg_waldump"] {
        locate(server, program)?;
    }
    recognisable(&locate(server, "postgres")?)
}

/// Guard and agent know the server's processes by the name of the program that they run.
fn recognisable(postgres: &Path) -> Result<(), Error> {
    let program = postgres.canonicalize().map_err(Error::file("resolve", postgres))?;
    match program.file_name() {
        Some(name) if name == "postgres" => Ok(()),
        _ => Err(Error::Refused(format!(
            "{} is the program {}: the guard finds PostgreSQL's processes by the name `postgres` only, and could not end them; let \
             bin_dir and bin_name lead to a program of that name",
            postgres.display(),
            program.display()
        ))),
    }
}

/// Asks the `postgres` binary for its version.
pub async fn version(server: &Server) -> Result<ServerVersion, Error> {
    let mut command = command(server, "postgres")?;
    command.arg("--version");
    let output = program::run(command, program::Limit::Total(VERSION_LIMIT), |_| ()).await?;
    parse_version(&output).ok_or_else(|| Error::answer("postgres --version", output.trim()))
}

/// A command of one of PostgreSQL's programs, ready for arguments.
pub(super) fn command(server: &Server, name: &str) -> Result<Command, Error> {
    Ok(program::command(&locate(server, name)?))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-1)`; a beta (`18beta1`) counts as release 0 of its major version.
pub(super) fn parse_version(text: &str) -> Option<ServerVersion> {
    let version = text.split_once("(PostgreSQL)")?.1.split_whitespace().next()?;
    let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().unwrap_or("").parse::<u32>().ok();
    let major = digits(version)?;
    let minor = version.split_once('.').map_or(Some(0), |(_, minor)| digits(minor))?;
    let number = major.checked_mul(10_000)?.checked_add(minor)?;
    Some(ServerVersion { major, number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Credentials;

    #[test]
    fn versions_of_releases_betas_and_development() {
        let cases = [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-1)\n", Some((15, 150_018))),
            ("postgres (PostgreSQL) 17.5\n", Some((17, 170_005))),
            ("postgres (PostgreSQL) 18beta1", Some((18, 180_000))),
            ("postgres (PostgreSQL) 19devel", Some((19, 190_000))),
            ("postgres (PostgreSQL) ", None),
            ("postgres (PostgreSQL) 4294967295.1", None),
            ("psql 15", None),
        ];
        for (text, expected) in cases {
            let version = parse_version(text).map(|version| (version.major, version.number));
            assert_eq!(version, expected, "{text}");
        }
    }

    #[test]
    fn a_missing_program_says_where_it_was_looked_for() {
        let mut server = Server::new("n", "c", "/data", Credentials::new("postgres", None));
        server.bin_dir = Some("/nonexistent".into());
        let error = locate(&server, "initdb").expect_err("nothing is there").to_string();
        assert!(error.starts_with("the program initdb is not in /nonexistent:"), "{error}");
        server.bin_dir = Some("/bin".into());
        server.bin_names.insert("initdb".into(), "sh".into());
        assert_eq!(locate(&server, "initdb").expect("the shell"), PathBuf::from("/bin/sh"));
    }

    proptest::proptest! {
        #[test]
        fn any_version_text_is_survived(text in "\\PC*", tail in "\\PC*") {
            parse_version(&text);
            parse_version(&format!("postgres (PostgreSQL) {tail}"));
        }
    }
}
