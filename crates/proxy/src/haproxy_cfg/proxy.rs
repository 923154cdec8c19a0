//! The directives of `defaults`, `listen`, `frontend` and `backend`.

use std::time::Duration;

use super::server::{self, ServerLine};
use super::{Report, one_number, one_word, units};
use crate::config::{Balance, Bind, ExpectStatus, HttpCheck, Timeouts};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Defaults,
    Listen,
    Frontend,
    Backend,
}

impl Kind {
    fn takes_clients(self) -> bool {
        matches!(self, Kind::Listen | Kind::Frontend)
    }

    fn has_servers(self) -> bool {
        matches!(self, Kind::Listen | Kind::Backend)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Tcp,
    Http,
}

/// A section as written; a new one starts as a copy of `defaults`.
#[derive(Clone, Debug)]
pub struct Section {
    pub kind: Kind,
    pub name: String,
    pub line: usize,
    pub mode: Mode,
    pub binds: Vec<Bind>,
    pub maxconn: Option<u32>,
    pub timeouts: Timeouts,
    pub httpchk: Option<HttpCheck>,
    /// Kept apart: it may stand before `option httpchk`.
    pub expect: Option<ExpectStatus>,
    pub balance: Balance,
    pub all_backups: bool,
    pub default_server: ServerLine,
    pub servers: Vec<ServerLine>,
    /// The line and the name.
    pub default_backend: Option<(usize, String)>,
    pub stats_enabled: bool,
    pub stats_uri: String,
    pub stats_refresh: Option<Duration>,
    pub disabled: bool,
}

impl Section {
    pub fn new(kind: Kind, name: String, line: usize) -> Section {
        Section {
            kind,
            name,
            line,
            mode: Mode::Tcp,
            binds: vec![],
            maxconn: None,
            timeouts: Timeouts::default(),
            httpchk: None,
            expect: None,
            balance: Balance::default(),
            all_backups: false,
            default_server: ServerLine::default(),
            servers: vec![],
            default_backend: None,
            stats_enabled: false,
            // HAProxy's own default.
            stats_uri: "/haproxy?stats".into(),
            stats_refresh: None,
            disabled: false,
        }
    }
}

const ACCEPTED: &str = "accepted here: mode, bind, maxconn, balance, timeout, retries, option httpchk, http-check expect, \
    default-server, server, default_backend, stats, disabled, and what concerns logs, which is ignored";

/// Applies one line to `section`.
pub fn directive(section: &mut Section, line: usize, first: &str, rest: &[&str], report: &mut Report) {
    /// Logs, descriptions and error pages of HTTP.
    const HARMLESS: &[&str] = &[
        "log",
        "log-format",
        "log-tag",
        "log-format-sd",
        "unique-id-format",
        "description",
        "id",
        "errorfile",
        "errorfiles",
        "errorloc",
        "backlog",
        "fullconn",
        "hash-type",
        "email-alert",
        "load-server-state-from-file",
        "enabled",
    ];
    match first {
        "mode" => mode(section, line, rest, report),
        "bind" => bind(section, line, rest, report),
        "maxconn" => section.maxconn = one_number(line, first, rest, report),
        "balance" => balance(section, line, rest, report),
        "timeout" => timeout(&mut section.timeouts, line, rest, report),
        // A client is held and sent to another server until `timeout queue` ends, however many dials that takes.
        "retries" => {
            _ = one_word(line, first, rest, report).map(|word| {
                report.value(line, word, units::number(word, 0, 1_000));
            })
        }
        "option" => option(section, line, rest, report),
        "no" => no(section, line, rest, report),
        "http-check" => http_check(section, line, rest, report),
        "default-server" => server::keyword_list(&mut section.default_server, line, rest, report),
        "server" if section.kind.has_servers() => {
            section.servers.extend(server::server(&section.default_server, line, rest, report));
        }
        "server" => report.error(line, first, "a server belongs into listen or backend"),
        "default_backend" => {
            section.default_backend = one_word(line, first, rest, report).map(|name| (line, name.to_owned()));
        }
        "stats" => stats(section, line, rest, report),
        "disabled" => section.disabled = true,
        _ if HARMLESS.contains(&first) => report.ignored(line, first),
        _ => report.error(line, first, format!("not known; {ACCEPTED}")),
    }
}

fn mode(section: &mut Section, line: usize, rest: &[&str], report: &mut Report) {
    match one_word(line, "mode", rest, report) {
        Some("tcp") => section.mode = Mode::Tcp,
        Some("http") => section.mode = Mode::Http,
        Some(other) => report.error(line, other, "accepted: mode tcp, or mode http for the stats page"),
        None => {}
    }
}

fn bind(section: &mut Section, line: usize, rest: &[&str], report: &mut Report) {
    if !section.kind.takes_clients() {
        report.error(line, "bind", "it belongs into listen or frontend");
        return;
    }
    let Some((address, options)) = rest.split_first() else {
        report.error(line, "bind", "expected bind ADDRESS:PORT, such as bind *:5432");
        return;
    };
    let addresses = report.value(line, address, units::bind_addresses(address)).unwrap_or_default();
    let mut v6_only = None;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "name" | "id" | "backlog" | "nice" | "process" | "thread" | "shards" => {
                options.next();
            }
            "v6only" => v6_only = Some(true),
            // `v6only` is the stronger.
            "v4v6" => v6_only = v6_only.or(Some(false)),
            "tfo" | "defer-accept" | "transparent" => report.ignored(line, option),
            other => {
                report.error(
                    line,
                    other,
                    "not known on a bind line; accepted after the address: name NAME, v4v6, v6only",
                );
                return;
            }
        }
    }
    section.binds.extend(addresses.into_iter().map(|address| Bind { address, v6_only }));
}

fn balance(section: &mut Section, line: usize, rest: &[&str], report: &mut Report) {
    match rest.first() {
        Some(&"leastconn") => section.balance = Balance::LeastConn,
        Some(&"first") => section.balance = Balance::First,
        Some(word @ (&"roundrobin" | &"static-rr" | &"random")) => {
            section.balance = Balance::LeastConn;
            report.warn(line, word, "read as leastconn: a session goes to the server with the fewest");
        }
        word => report.error(
            line,
            word.unwrap_or(&"balance"),
            "accepted: leastconn, first (also roundrobin, read as leastconn)",
        ),
    }
}

fn timeout(timeouts: &mut Timeouts, line: usize, rest: &[&str], report: &mut Report) {
    let [name, value] = rest else {
        report.error(line, "timeout", "expected timeout client|server|tunnel|connect|check|queue TIME");
        return;
    };
    let slot = match *name {
        "client" => &mut timeouts.client,
        "server" => &mut timeouts.server,
        "connect" => &mut timeouts.connect,
        "check" => &mut timeouts.check,
        "queue" => &mut timeouts.queue,
        "tunnel" => &mut timeouts.tunnel,
        "http-request" | "http-keep-alive" | "tarpit" | "client-fin" | "server-fin" => {
            return report.ignored(line, name);
        }
        other => {
            return report.error(line, other, "accepted after timeout: client, server, tunnel, connect, check, queue");
        }
    };
    // HAProxy reads 0 as no limit.
    let unlimited = (*name == "queue").then_some(units::LONGEST);
    if let Some(time) = report.value(line, value, units::time(value)) {
        *slot = if time.is_zero() { unlimited } else { Some(time) };
    }
}

fn option(section: &mut Section, line: usize, rest: &[&str], report: &mut Report) {
    /// Logs, what is always done here (keepalive, another server after a failed dial), and HTTP's own.
    const HARMLESS: &[&str] = &[
        "tcplog",
        "httplog",
        "dontlognull",
        "dontlog-normal",
        "log-health-checks",
        "log-separate-errors",
        "logasap",
        "tcpka",
        "clitcpka",
        "srvtcpka",
        "redispatch",
        "splice-auto",
        "splice-request",
        "splice-response",
        "socket-stats",
        "tcp-smart-accept",
        "tcp-smart-connect",
        "contstats",
        "forwardfor",
        "httpclose",
        "http-server-close",
        "http-keep-alive",
        "abortonclose",
        "nolinger",
    ];
    match rest {
        ["httpchk", request @ ..] => section.httpchk = httpchk(line, request, report),
        ["tcp-check"] => section.httpchk = None,
        ["allbackups"] => section.all_backups = true,
        [name, ..] if HARMLESS.contains(name) => report.ignored(line, name),
        [name, ..] => report.error(
            line,
            name,
            "not known; accepted after option: httpchk [METHOD] [URI] [VERSION], tcp-check, allbackups, and options of logs, which are ignored",
        ),
        [] => report.error(line, "option", "a name is missing after it"),
    }
}

/// `option httpchk`, `option httpchk URI`, `option httpchk METHOD URI [VERSION]`
fn httpchk(line: usize, request: &[&str], report: &mut Report) -> Option<HttpCheck> {
    let (method, uri, version) = match request {
        [] => ("OPTIONS", "/", "HTTP/1.0"),
        [uri] => ("OPTIONS", *uri, "HTTP/1.0"),
        [method, uri] => (*method, *uri, "HTTP/1.0"),
        [method, uri, version] => (*method, *uri, *version),
        [_, _, _, more, ..] => {
            report.error(line, more, "expected option httpchk [METHOD] [URI] [VERSION]");
            return None;
        }
    };
    let headers = vec![];
    check_request(line, method, uri, report)?;
    let expect = ExpectStatus::default();
    Some(HttpCheck { method: method.into(), uri: uri.into(), version: version.into(), headers, expect })
}

fn check_request(line: usize, method: &str, uri: &str, report: &mut Report) -> Option<()> {
    if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) {
        report.error(line, method, "expected a method in capitals, such as OPTIONS, GET or HEAD");
        return None;
    }
    if !uri.starts_with('/') || !uri.bytes().all(|b| b.is_ascii_graphic()) {
        report.error(line, uri, "expected the path to ask for, such as / or /replica");
        return None;
    }
    Some(())
}

fn http_check(section: &mut Section, line: usize, rest: &[&str], report: &mut Report) {
    match rest {
        ["expect", "status", list] => section.expect = report.value(line, list, status_list(list, false)),
        ["expect", "!", "status", list] => section.expect = report.value(line, list, status_list(list, true)),
        ["expect", other, ..] => report.error(line, other, "accepted: http-check expect [!] status CODES"),
        ["send", pairs @ ..] => send(section, line, pairs, report),
        ["disable-on-404" | "send-state", ..] => report.ignored(line, rest[0]),
        _ => report.error(
            line,
            rest.first().unwrap_or(&"http-check"),
            "accepted: http-check expect [!] status CODES, http-check send meth M uri U ver V hdr NAME VALUE",
        ),
    }
}

/// `200`, `200,204`, `200-299`
fn status_list(list: &str, negated: bool) -> Result<ExpectStatus, String> {
    let expected = || "expected status codes from 100 to 599, such as 200 or 200-299,404".to_owned();
    let code = |text: &str| text.parse::<u16>().ok().filter(|code| (100..=599).contains(code)).ok_or_else(expected);
    let mut ranges = vec![];
    for part in list.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        ranges.push((code(low)?, code(high)?));
    }
    Ok(ExpectStatus { ranges, negated })
}

fn send(section: &mut Section, line: usize, mut words: &[&str], report: &mut Report) {
    let Some(mut check) = section.httpchk.clone().or_else(|| httpchk(line, &[], report)) else { return };
    while let [name, value, more @ ..] = words {
        match (*name, more) {
            ("meth", _) => check.method = (*value).into(),
            ("uri", _) => check.uri = (*value).into(),
            ("ver", _) => check.version = (*value).into(),
            ("hdr", [content, after @ ..]) => {
                check.headers.push(((*value).into(), (*content).into()));
                words = after;
                continue;
            }
            _ => {
                return report.error(
                    line,
                    name,
                    "accepted after http-check send: meth M, uri U, ver V, hdr NAME VALUE",
                );
            }
        }
        words = more;
    }
    if let [odd] = words {
        return report.error(line, odd, "its value is missing");
    }
    if check_request(line, &check.method.clone(), &check.uri.clone(), report).is_some() {
        section.httpchk = Some(check);
    }
}

fn no(section: &mut Section, line: usize, rest: &[&str], report: &mut Report) {
    match rest {
        ["option", "httpchk", ..] => section.httpchk = None,
        ["option", "allbackups"] => section.all_backups = false,
        ["option", name, ..] => report.ignored(line, name),
        ["log", ..] => report.ignored(line, "log"),
        _ => report.error(line, rest.first().unwrap_or(&"no"), "accepted after no: option NAME, log"),
    }
}

fn stats(section: &mut Section, line: usize, rest: &[&str], report: &mut Report) {
    match rest {
        ["enable"] => section.stats_enabled = true,
        ["uri", uri] if uri.starts_with('/') => {
            section.stats_enabled = true;
            section.stats_uri = (*uri).to_owned();
        }
        ["refresh", time] => {
            section.stats_enabled = true;
            section.stats_refresh = report.value(line, time, units::time(&seconds(time)));
        }
        ["hide-version" | "show-legends" | "show-node" | "show-desc" | "realm" | "show-modules", ..] => {
            report.ignored(line, rest[0]);
        }
        _ => report.error(
            line,
            rest.first().unwrap_or(&"stats"),
            "accepted after stats: enable, uri /PATH, refresh TIME (the page has no password: bind it to an address of your own)",
        ),
    }
}

/// Of all times only this one counts seconds where it has no unit.
fn seconds(word: &str) -> String {
    if word.bytes().all(|b| b.is_ascii_digit()) { format!("{word}s") } else { word.to_owned() }
}
