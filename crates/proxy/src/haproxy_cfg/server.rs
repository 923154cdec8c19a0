//! The keywords of `server` and `default-server` lines.

use std::path::PathBuf;
use std::time::Duration;

use super::{Report, units};
use crate::config::{Check, CheckTls, Server};

/// A `server` line, or what `default-server` lines have set so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLine {
    pub line: usize,
    pub name: String,
    pub host: String,
    pub port: u16,
    check: bool,
    check_host: Option<String>,
    check_port: Option<u16>,
    inter: Duration,
    fastinter: Option<Duration>,
    downinter: Option<Duration>,
    rise: u32,
    fall: u32,
    maxconn: Option<usize>,
    weight: u32,
    backup: bool,
    disabled: bool,
    shutdown_sessions: bool,
    tls: bool,
    verify: bool,
    ca_file: Option<String>,
    certificate: Option<PathBuf>,
}

impl Default for ServerLine {
    /// HAProxy's defaults.
    fn default() -> Self {
        ServerLine {
            line: 0,
            name: String::new(),
            host: String::new(),
            port: 0,
            check: false,
            check_host: None,
            check_port: None,
            inter: Duration::from_secs(2),
            fastinter: None,
            downinter: None,
            rise: 2,
            fall: 3,
            maxconn: None,
            weight: 1,
            backup: false,
            disabled: false,
            shutdown_sessions: false,
            tls: false,
            verify: true,
            ca_file: None,
            certificate: None,
        }
    }
}

/// HAProxy's word for what the system trusts.
const SYSTEM_AUTHORITIES: &str = "@system-ca";

impl ServerLine {
    /// The server that the line describes; `None` if it is switched off.
    pub fn server(self) -> Option<Server> {
        let tls = self.tls.then(|| CheckTls {
            verify: self.verify,
            authorities: self.ca_file.filter(|file| file != SYSTEM_AUTHORITIES).map(PathBuf::from),
            certificate: self.certificate,
        });
        let check = self.check.then(|| Check {
            host: self.check_host.unwrap_or_else(|| self.host.clone()),
            port: self.check_port.unwrap_or(self.port),
            inter: self.inter,
            fastinter: self.fastinter,
            downinter: self.downinter,
            rise: self.rise,
            fall: self.fall,
            tls,
        });
        let server = Server {
            name: self.name,
            host: self.host,
            port: self.port,
            maxconn: self.maxconn,
            weight: self.weight,
            backup: self.backup,
            check,
            shutdown_sessions: self.shutdown_sessions,
        };
        (!self.disabled).then_some(server)
    }
}

const ACCEPTED: &str = "accepted here: check, port N, addr HOST, inter TIME, fastinter TIME, downinter TIME, rise N, fall N, \
    maxconn N, weight N, backup, disabled, on-marked-down shutdown-sessions, check-ssl, verify none|required, ca-file FILE, crt FILE";

/// Reads `server NAME ADDRESS [keywords]` on top of the defaults.
pub fn server(defaults: &ServerLine, line: usize, rest: &[&str], report: &mut Report) -> Option<ServerLine> {
    let [name, address, keywords @ ..] = rest else {
        report.error(line, "server", "expected server NAME HOST:PORT [check port N ...]");
        return None;
    };
    let (host, port) = report.value(line, address, units::server_address(address))?;
    let mut server = ServerLine { line, name: (*name).to_owned(), host, port, ..defaults.clone() };
    keyword_list(&mut server, line, keywords, report);
    if server.check && server.tls && server.verify && server.ca_file.is_none() {
        report.error(
            line,
            "check-ssl",
            "the agents' certificates are to be verified, and there is no ca-file; add one (@system-ca: the system's), or verify none",
        );
    }
    Some(server)
}

/// Applies keywords to `server`.
pub fn keyword_list(server: &mut ServerLine, line: usize, words: &[&str], report: &mut Report) {
    /// Without a value, and without effect here: names are resolved again at every dial.
    const HARMLESS: &[&str] = &["non-stick", "enabled", "no-tfo", "tfo", "no-ssl", "no-send-proxy"];
    /// The same, with one value.
    const HARMLESS_WITH_VALUE: &[&str] = &[
        "init-addr",
        "resolvers",
        "resolve-prefer",
        "resolve-net",
        "resolve-opts",
        "id",
        "slowstart",
        "minconn",
        "error-limit",
        "pool-purge-delay",
        "pool-max-conn",
        "tcp-ut",
        "log-proto",
    ];
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "check" => server.check = true,
            "no-check" => server.check = false,
            "backup" => server.backup = true,
            "no-backup" => server.backup = false,
            "disabled" => server.disabled = true,
            "check-ssl" => server.tls = true,
            "no-check-ssl" => server.tls = false,
            _ if HARMLESS.contains(&word) => report.ignored(line, word),
            _ => {
                let Some(value) = words.next() else {
                    report.error(line, word, format!("not known, or its value is missing; {ACCEPTED}"));
                    return;
                };
                if HARMLESS_WITH_VALUE.contains(&word) {
                    report.ignored(line, word);
                } else if !keyword_with_value(server, line, word, value, report) {
                    return;
                }
            }
        }
    }
}

/// One keyword with its value; `false` if it is not known, so that what follows cannot be told apart.
fn keyword_with_value(server: &mut ServerLine, line: usize, word: &str, value: &str, report: &mut Report) -> bool {
    let time = |report: &mut Report| report.value(line, value, units::time(value).and_then(not_zero));
    let count = |report: &mut Report, low, high| report.value(line, value, units::number(value, low, high));
    match word {
        "port" => server.check_port = report.value(line, value, units::port(value)).or(server.check_port),
        "addr" => server.check_host = Some(value.to_owned()),
        "inter" => server.inter = time(report).unwrap_or(server.inter),
        "fastinter" => server.fastinter = time(report),
        "downinter" => server.downinter = time(report),
        "rise" => server.rise = count(report, 1, 1_000).unwrap_or(server.rise),
        "fall" => server.fall = count(report, 1, 1_000).unwrap_or(server.fall),
        // 0 is HAProxy's "no limit".
        "maxconn" => server.maxconn = count(report, 0, 1_000_000).filter(|n| *n > 0).map(|n| n as usize),
        "weight" => server.weight = count(report, 0, 256).unwrap_or(server.weight),
        "verify" if value == "none" => server.verify = false,
        "verify" if value == "required" => server.verify = true,
        "verify" => report.error(line, value, "accepted after verify: none, required"),
        "ca-file" => server.ca_file = Some(value.to_owned()),
        "crt" => server.certificate = Some(value.into()),
        "on-marked-down" if value == "shutdown-sessions" => server.shutdown_sessions = true,
        "on-marked-down" => report.error(line, value, "accepted after on-marked-down: shutdown-sessions"),
        _ => {
            report.error(line, word, format!("not known on a server; {ACCEPTED}"));
            return false;
        }
    }
    true
}

fn not_zero(time: Duration) -> Result<Duration, String> {
    if time.is_zero() { Err("expected a time above zero".into()) } else { Ok(time) }
}
