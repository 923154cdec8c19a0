//! What `--validate-config` asks the machine: who listens where, what lies in the data directory, where PostgreSQL's programs are.
//!
//! The answers are in Patroni's words (and, for the machine's own errors, Python's), which scripts look for. Not here: which option is asked
//! about what (`options::schema`). Compared with a real Patroni in `tests/it/validate.rs`.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{Access, access};
use serde_json::{Map, Value};

use crate::python_text::quoted;

/// Hosts that lead every node to itself.
const OWN_HOSTS: [&str; 5] = ["127.0.0.1", "0.0.0.0", "*", "::1", "localhost"];

/// What does not answer by then is not reachable; Patroni waits for as long as the kernel does.
const ANSWER: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Probe {
    /// Ports where somebody listens are no error.
    pub ignores_ports: bool,
    /// The section, for `bin_dir` and `bin_name`.
    pub postgresql: Map<String, Value>,
}

impl Probe {
    /// Where others reach this node.
    pub fn connect_address(&self, text: &str) -> Result<(), String> {
        let (host, _) = split(text)?;
        if OWN_HOSTS.contains(&host.as_str()) {
            return Err(r#"must not contain "127.0.0.1", "0.0.0.0", "*", "::1", "localhost""#.to_owned());
        }
        Ok(())
    }

    /// Somebody listens there.
    pub fn server(&self, text: &str) -> Result<(), String> {
        let (host, port) = split(text)?;
        for host in hosts(&host, false)? {
            if !answers(&host, port)? {
                return Err(format!("{text} is not reachable"));
            }
        }
        Ok(())
    }

    /// Nobody listens there yet. `several`: hosts stand with commas.
    pub fn listen(&self, text: &str, several: bool) -> Result<(), String> {
        let (host, port) = split(text)?;
        for host in hosts(&host, several)? {
            if answers(&host, port)? && !self.ignores_ports {
                return Err(format!("Port {port} is already in use."));
            }
        }
        Ok(())
    }

    /// Nothing is there, or data of the version of the programs.
    pub fn data_directory(&self, text: &str) -> Result<(), String> {
        let directory = Path::new(text);
        if text.is_empty() {
            return Err("is an empty string".to_owned());
        }
        if directory.exists() && !directory.is_dir() {
            return Err("is not a directory".to_owned());
        }
        if is_empty(directory).map_err(|error| python_error(&error, directory))? {
            return Ok(());
        }
        let version = directory.join("PG_VERSION");
        if !version.exists() {
            return Err("doesn't look like a valid data directory".to_owned());
        }
        let version = fs::read_to_string(&version).map_err(|error| python_error(&error, &version))?;
        let version = version.trim();
        let number: f64 =
            version.parse().map_err(|_| format!("could not convert string to float: {}", quoted(version, false)))?;
        let log = if number >= 10.0 { "pg_wal" } else { "pg_xlog" };
        if !directory.join(log).is_dir() {
            return Err(format!("data dir for the cluster is not empty, but doesn't contain \"{log}\" directory"));
        }
        let program = self.major_version()?;
        if version != program {
            return Err(format!(
                "data_dir directory postgresql version ({version}) doesn't match with 'postgres --version' output ({program})"
            ));
        }
        Ok(())
    }

    /// A single program is where it is looked for.
    pub fn program(&self, name: &str) -> Result<(), String> {
        if name.is_empty() {
            return Err("is an empty string".to_owned());
        }
        let directory = self.postgresql.get("bin_dir").and_then(Value::as_str);
        found(name, directory)
    }

    /// What is missing of these programs; an empty `directory` is the PATH.
    pub fn programs(&self, directory: &str, programs: &[&str]) -> Vec<String> {
        let path = Path::new(directory);
        if !directory.is_empty() && !path.exists() {
            return vec![format!("Directory '{directory}' does not exist.")];
        }
        if !directory.is_empty() && !path.is_dir() {
            return vec![format!("'{directory}' is not a directory.")];
        }
        let directory = Some(directory).filter(|directory| !directory.is_empty());
        programs.iter().filter_map(|program| found(&self.name_of(program), directory).err()).collect()
    }

    /// As `bin_name` has it.
    fn name_of(&self, program: &str) -> String {
        let name = self.postgresql.get("bin_name").and_then(|names| names.get(program)).and_then(Value::as_str);
        name.unwrap_or(program).to_owned()
    }

    /// `15`; `9.6` of the old ones.
    fn major_version(&self) -> Result<String, String> {
        let directory = self.postgresql.get("bin_dir").and_then(Value::as_str).unwrap_or_default();
        let program = Path::new(directory).join(self.name_of("postgres"));
        major_version(&program)
    }
}

/// Asks a `postgres` for its major version.
pub fn major_version(program: &Path) -> Result<String, String> {
    let failed = |why: String| format!("Failed to get postgres version: {why}");
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| failed(python_error(&error, program)))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().nth(2).unwrap_or_default();
    let version: String = version.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
    match version.rsplit_once('.') {
        _ if version.is_empty() => Err(failed(format!("{} says {}", program.display(), quoted(text.trim(), false)))),
        Some((major, _)) => Ok(major.to_owned()),
        None => Ok(version),
    }
}

/// Host or hosts, and the port; 1 where there is none.
fn split(text: &str) -> Result<(String, i64), String> {
    let (hosts, port) = match text.rsplit_once(':') {
        Some((hosts, port)) => (hosts, whole(port).ok_or("contains a wrong value")?),
        None => (text, 1),
    };
    let bare = |host: &str| host.trim().trim_matches(['[', ']']).to_owned();
    let hosts = match hosts.contains(':') {
        true => hosts.split(',').map(bare).collect::<Vec<_>>().join(","),
        false => hosts.to_owned(),
    };
    Ok((hosts, port))
}

/// As Python's `int()` reads a text: spaces around it, single underscores within.
fn whole(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let apart = digits.split('_').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    apart.then(|| text.replace('_', "").parse().ok()).flatten()
}

fn hosts(text: &str, several: bool) -> Result<Vec<String>, String> {
    let hosts: Vec<String> = if several { text.split(',').map(str::to_owned).collect() } else { vec![text.to_owned()] };
    match hosts.iter().any(|host| host == "*") {
        true if hosts.len() > 1 => Err("expecting '*' alone".to_owned()),
        true => Ok(vec!["0.0.0.0".to_owned(), "::".to_owned()]),
        false => Ok(hosts),
    }
}

/// Whether somebody takes a connection.
fn answers(host: &str, port: i64) -> Result<bool, String> {
    let found = (host, 0).to_socket_addrs().map_err(|error| unresolved(&error))?;
    let port = u16::try_from(port).map_err(|_| "connect_ex(): port must be 0-65535.".to_owned())?;
    let first = found.into_iter().next().map(|address| SocketAddr::new(address.ip(), port));
    Ok(first.is_some_and(|address| TcpStream::connect_timeout(&address, ANSWER).is_ok()))
}

/// The error of a name as Python shows it: with the number of the C library.
fn unresolved(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
    let number = match text {
        "Temporary failure in name resolution" => -3,
        "No address associated with hostname" => -5,
        _ => -2,
    };
    format!("[Errno {number}] {text}")
}

/// Only what begins with a dot, and what a file system brings.
fn is_empty(directory: &Path) -> io::Result<bool> {
    if directory.join("global/pg_control").is_file() {
        return Ok(false);
    }
    if !directory.exists() {
        return Ok(true);
    }
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if !(name.to_string_lossy().starts_with('.') || name == "lost+found") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn python_error(error: &io::Error, path: &Path) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let path = quoted(&path.display().to_string(), false);
    match error.raw_os_error() {
        Some(number) => format!("[Errno {number}] {text}: {path}"),
        None => format!("{text}: {path}"),
    }
}

/// As Python's `which` looks for a program: in the directory, else in the PATH; a name with a path in it as it is.
fn found(name: &str, directory: Option<&str>) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = match directory {
        _ if name.contains('/') => vec![PathBuf::new()],
        Some("") => Vec::new(),
        Some(directory) => vec![directory.into()],
        None => std::env::split_paths(&path).collect(),
    };
    let is_program = |path: PathBuf| path.is_file() && access(&path, Access::EXEC_OK).is_ok();
    if directories.iter().any(|directory| is_program(directory.join(name))) {
        return Ok(());
    }
    let place = directory.filter(|directory| !directory.is_empty()).unwrap_or("$PATH");
    Err(format!("does not contain '{name}' in '{place}'"))
}
