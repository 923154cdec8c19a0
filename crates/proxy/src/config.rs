//! What an entrypoint is told to do: listeners, their servers, limits and times, as plain values.
//!
//! Not here: reading them from a file (`haproxy_cfg`). Every default that stands in for a missing directive is in this
//! file, with its reason.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Client connections in all, without `maxconn` in `global`: two sockets each, well below the usual hard limit of open files.
pub const DEFAULT_MAXCONN: usize = 10_000;

/// How long a client is held without `timeout queue`: the longest default lease of a Patroni cluster (30 s), so that a
/// failover passes unseen; the application's own time-out is usually longer.
pub const DEFAULT_HOLD: Duration = Duration::from_secs(30);

/// For a connection to a server without `timeout connect`.
pub const DEFAULT_CONNECT: Duration = Duration::from_secs(4);

/// For a client to say who it is. PostgreSQL's own `authentication_timeout` is a minute; this covers only the first packet.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that one entrypoint serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Client connections in all.
    pub maxconn: usize,
    /// Worker threads; `None`: one a core.
    pub threads: Option<usize>,
    pub listeners: Vec<Listener>,
    pub stats: Vec<StatsListener>,
}

/// A TCP service in front of some servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: String,
    pub binds: Vec<Bind>,
    pub maxconn: Option<usize>,
    pub role: Role,
    pub check: CheckKind,
    pub timeouts: Timeouts,
    pub balance: Balance,
    /// `option allbackups`: without other servers all backups serve, not only the first.
    pub all_backups: bool,
    pub servers: Vec<Server>,
}

/// Which of several open servers gets a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The one with the fewest for its weight.
    #[default]
    LeastConn,
    /// The first one below its `maxconn`.
    First,
}

impl Balance {
    /// HAProxy's name.
    pub fn name(self) -> &'static str {
        match self {
            Balance::LeastConn => "leastconn",
            Balance::First => "first",
        }
    }
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    pub address: SocketAddr,
    /// Whether `[::]` is for IPv6 alone (`v6only`) or for IPv4 as well (`v4v6`); `None`: as the system has it, which on Linux is both.
    pub v6_only: Option<bool>,
}

/// Which servers a listener is for, read from its check path as Patroni names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one primary.
    ReadWrite,
    /// Standbys no further behind than `max_lag` bytes, and the primary as well where `primary_too`.
    ReadOnly { primary_too: bool, max_lag: Option<u64> },
    /// What the check says and nothing else: a path whose condition the agents do not push, a check that does not pass by 200 or
    /// does by 503, or no HTTP check at all.
    Checks,
}

/// How the servers of a listener are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A connection that is accepted is enough.
    Tcp,
    Http(HttpCheck),
}

/// An HTTP check: the request and the answers that count as healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    pub method: String,
    pub uri: String,
    /// As written, `HTTP/1.0` unless told; HAProxy's older files append headers to it.
    pub version: String,
    pub headers: Vec<(String, String)>,
    pub expect: ExpectStatus,
}

/// Status codes that pass, as inclusive ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectStatus {
    pub ranges: Vec<(u16, u16)>,
    /// `http-check expect ! status`: the ranges are those that fail.
    pub negated: bool,
}

impl Default for ExpectStatus {
    /// Without `http-check expect`, HAProxy takes 2xx and 3xx.
    fn default() -> Self {
        ExpectStatus { ranges: vec![(200, 399)], negated: false }
    }
}

impl ExpectStatus {
    pub fn passes(&self, status: u16) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&status)) != self.negated
    }
}

/// Times as in the file. Without `client`, `server` and `tunnel` a session may be idle for ever; for the others there are defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    pub client: Option<Duration>,
    pub server: Option<Duration>,
    /// In place of `client` and `server` once a session is established.
    pub tunnel: Option<Duration>,
    pub connect: Option<Duration>,
    pub check: Option<Duration>,
    pub queue: Option<Duration>,
}

impl Timeouts {
    pub fn hold(&self) -> Duration {
        self.queue.unwrap_or(DEFAULT_HOLD)
    }

    pub fn connect(&self) -> Duration {
        self.connect.unwrap_or(DEFAULT_CONNECT)
    }

    /// A session without a byte in either direction for this long ends.
    pub fn idle(&self) -> Option<Duration> {
        self.tunnel.or_else(|| [self.client, self.server].into_iter().flatten().min())
    }
}

/// One server of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub name: String,
    /// A name or an address without brackets; names are resolved again at every dial.
    pub host: String,
    pub port: u16,
    pub maxconn: Option<usize>,
    /// 0 to 256; 0 takes no new sessions.
    pub weight: u32,
    /// Used only while no other server is.
    pub backup: bool,
    /// `None`: not checked, always taken as healthy.
    pub check: Option<Check>,
    /// `on-marked-down shutdown-sessions`
    pub shutdown_sessions: bool,
}

impl Server {
    pub fn address(&self) -> String {
        join_address(&self.host, self.port)
    }
}

/// Where and how often a server is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub host: String,
    pub port: u16,
    pub inter: Duration,
    /// While changing its mind; `inter` if absent.
    pub fastinter: Option<Duration>,
    /// While down; `inter` if absent.
    pub downinter: Option<Duration>,
    pub rise: u32,
    pub fall: u32,
    /// `None`: without TLS.
    pub tls: Option<CheckTls>,
}

/// The TLS of checks and of the route's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckTls {
    pub verify: bool,
    /// `None`: those of the system.
    pub authorities: Option<PathBuf>,
    /// A certificate to show, its key in the same file.
    pub certificate: Option<PathBuf>,
}

/// A page for people, over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsListener {
    pub name: String,
    pub binds: Vec<Bind>,
    pub uri: String,
    pub refresh: Option<Duration>,
}

/// `host:port`, with brackets around an IPv6 address.
pub fn join_address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Role {
    /// The role that a check path stands for. Patroni matches by substring and in this order.
    pub fn from_check(check: &CheckKind) -> Role {
        let CheckKind::Http(http) = check else { return Role::Checks };
        // Patroni says yes with 200 and no with 503; a check that reads that otherwise (`expect ! status 200`: whoever is not the
        // primary) does not ask for what the path is named after.
        if !http.expect.passes(200) || http.expect.passes(503) {
            return Role::Checks;
        }
        let (path, query) = http.uri.split_once('?').unwrap_or((&http.uri, ""));
        let has = |word: &str| path.contains(word);
        // The leader of a standby cluster is in recovery, and the agents' route does not name it.
        if has("standby_leader") || has("standby-leader") {
            return Role::Checks;
        }
        if path == "/" || ["leader", "master", "primary", "read-write"].into_iter().any(has) {
            return Role::ReadWrite;
        }
        let Some(max_lag) = lag_of_query(query) else { return Role::Checks };
        match () {
            () if has("replica") => Role::ReadOnly { primary_too: false, max_lag },
            () if has("read-only") && !has("sync") && !has("quorum") => Role::ReadOnly { primary_too: true, max_lag },
            () => Role::Checks,
        }
    }
}

/// The limit of `lag=`: `Some(None)` without one. `None`: the query asks for what the route does not carry (tags, ...).
fn lag_of_query(query: &str) -> Option<Option<u64>> {
    let mut limit = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let value = pair.strip_prefix("lag=")?;
        limit = parse_size(value);
    }
    Some(limit)
}

/// A number of bytes with PostgreSQL's units. Patroni takes what it cannot read as "no limit".
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(uri: &str, expect: ExpectStatus) -> CheckKind {
        CheckKind::Http(HttpCheck {
            method: "OPTIONS".into(),
            uri: uri.into(),
            version: "HTTP/1.0".into(),
            headers: vec![],
            expect,
        })
    }

    #[test]
    fn the_role_of_a_listener_is_its_check_path() {
        let read_only = |primary_too, max_lag| Role::ReadOnly { primary_too, max_lag };
        for (uri, role) in [
            ("/", Role::ReadWrite),
            ("/primary", Role::ReadWrite),
            ("/master", Role::ReadWrite),
            ("/read-write", Role::ReadWrite),
            ("/leader", Role::ReadWrite),
            ("/standby-leader", Role::Checks),
            ("/replica", read_only(false, None)),
            ("/replica?lag=10MB", read_only(false, Some(10 << 20))),
            ("/replica?lag=1048576", read_only(false, Some(1 << 20))),
            ("/replica?lag=soon", read_only(false, None)),
            ("/replica?tag_dc=one", Role::Checks),
            ("/read-only", read_only(true, None)),
            ("/read-only-sync", Role::Checks),
            ("/sync", Role::Checks),
            ("/health", Role::Checks),
        ] {
            assert_eq!(Role::from_check(&http(uri, ExpectStatus::default())), role, "{uri}");
        }
        assert_eq!(Role::from_check(&CheckKind::Tcp), Role::Checks);
        for (ranges, negated, role) in [
            (vec![(200, 200)], false, Role::ReadWrite),
            (vec![(200, 299), (301, 301)], false, Role::ReadWrite),
            (vec![(503, 503)], true, Role::ReadWrite),
            (vec![(200, 200)], true, Role::Checks),
            (vec![(503, 503)], false, Role::Checks),
            (vec![(200, 200), (503, 503)], false, Role::Checks),
            (vec![(404, 404)], true, Role::Checks),
        ] {
            let expect = ExpectStatus { ranges, negated };
            assert_eq!(Role::from_check(&http("/primary", expect.clone())), role, "{expect:?}");
        }
    }

    #[test]
    fn expected_status_codes() {
        assert!(ExpectStatus::default().passes(204) && !ExpectStatus::default().passes(503));
        let not_503 = ExpectStatus { ranges: vec![(503, 503)], negated: true };
        assert!(not_503.passes(200) && !not_503.passes(503));
    }
}
