//! The numbers of the entrypoint as HAProxy's table has them: a line a frontend, a server, a backend.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pgherd_ha::Boot;

use crate::control::{Overview, ServerOverview};
use crate::entry::{Entry, ServerEntry};
use crate::route::{Access, Reason};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Frontend,
    Server,
    Backend,
}

/// One line. What HAProxy leaves empty for a kind is `None`.
#[derive(Clone, Debug)]
pub struct Row {
    pub proxy: String,
    pub name: String,
    pub kind: Kind,
    /// From 1, in the order of the configuration.
    pub proxy_id: usize,
    /// From 1; 0 for frontends and backends.
    pub server_id: usize,
    pub held: Option<usize>,
    pub most_held: Option<usize>,
    pub sessions: usize,
    pub most_sessions: usize,
    pub limit: Option<usize>,
    pub total: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub dial_errors: Option<u64>,
    pub lost: Option<u64>,
    pub retries: Option<u64>,
    pub status: String,
    pub usable: bool,
    /// Why a server takes no sessions, for people.
    pub because: Option<&'static str>,
    pub weight: Option<u32>,
    pub backup: Option<bool>,
    pub checks_failed: Option<u64>,
    pub times_down: Option<u64>,
    pub since_change: Option<Duration>,
    pub downtime: Option<Duration>,
    pub check_code: Option<&'static str>,
    pub check_status: Option<u16>,
    pub check_took: Option<Duration>,
    pub rise_fall: Option<(u32, u32)>,
    pub address: Option<String>,
    pub balance: Option<&'static str>,
}

impl Row {
    fn new(entry: &Entry, proxy_id: usize, name: &str, kind: Kind) -> Row {
        Row {
            proxy: entry.config.name.clone(),
            name: name.to_owned(),
            kind,
            proxy_id,
            server_id: 0,
            held: None,
            most_held: None,
            sessions: 0,
            most_sessions: 0,
            limit: None,
            total: 0,
            bytes_in: 0,
            bytes_out: 0,
            dial_errors: None,
            lost: None,
            retries: None,
            status: String::new(),
            usable: false,
            because: None,
            weight: None,
            backup: None,
            checks_failed: None,
            times_down: None,
            since_change: None,
            downtime: None,
            check_code: None,
            check_status: None,
            check_took: None,
            rise_fall: None,
            address: None,
            balance: None,
        }
    }
}

/// All lines of one listener: its frontend, its servers, its backend.
pub fn of_listener(index: usize, entry: &Entry, overview: &Overview, now: Boot) -> Vec<Row> {
    let live = entry.live_bytes();
    let mut servers = vec![];
    for (position, server) in entry.servers.iter().enumerate() {
        let known = overview.servers.get(index).and_then(|servers| servers.get(position)).cloned().unwrap_or_default();
        let access = overview.table.get(index).and_then(|table| table.get(position));
        let mut row = Row::new(entry, index + 1, &server.config.name, Kind::Server);
        row.server_id = position + 1;
        (row.bytes_in, row.bytes_out) = live[position];
        fill_server(&mut row, server, &known, access, now);
        servers.push(row);
    }
    let sum = |field: fn(&Row) -> u64| servers.iter().map(field).sum::<u64>();
    let (bytes_in, bytes_out) = (sum(|row| row.bytes_in), sum(|row| row.bytes_out));
    let front = Row {
        sessions: entry.clients.load(Relaxed),
        most_sessions: entry.most_clients.load(Relaxed),
        limit: Some(entry.slot_count),
        total: entry.total_clients.load(Relaxed),
        status: "OPEN".into(),
        usable: true,
        bytes_in,
        bytes_out,
        ..Row::new(entry, index + 1, "FRONTEND", Kind::Frontend)
    };
    let usable = servers.iter().any(|row| row.usable);
    let back = Row {
        held: Some(entry.held.load(Relaxed)),
        most_held: Some(entry.most_held.load(Relaxed)),
        sessions: servers.iter().map(|row| row.sessions).sum(),
        most_sessions: entry.most_clients.load(Relaxed),
        total: sum(|row| row.total),
        dial_errors: Some(sum(|row| row.dial_errors.unwrap_or(0))),
        lost: Some(sum(|row| row.lost.unwrap_or(0))),
        retries: Some(sum(|row| row.retries.unwrap_or(0))),
        status: if usable { "UP" } else { "DOWN" }.into(),
        balance: Some(entry.config.balance.name()),
        usable,
        bytes_in,
        bytes_out,
        ..Row::new(entry, index + 1, "BACKEND", Kind::Backend)
    };
    [vec![front], servers, vec![back]].concat()
}

fn fill_server(row: &mut Row, server: &ServerEntry, known: &ServerOverview, access: Option<&Access>, now: Boot) {
    row.sessions = server.current.load(Relaxed);
    row.most_sessions = server.most.load(Relaxed);
    row.limit = server.config.maxconn;
    row.total = server.total.load(Relaxed);
    row.bytes_in += server.bytes_in.load(Relaxed);
    row.bytes_out += server.bytes_out.load(Relaxed);
    row.dial_errors = Some(server.dial_errors.load(Relaxed));
    row.lost = Some(server.lost.load(Relaxed));
    row.retries = Some(server.retries.load(Relaxed));
    row.weight = Some(server.config.weight);
    row.backup = Some(server.config.backup);
    row.address = Some(server.config.address());
    row.usable = server.refuses().is_none();
    row.because = match access {
        Some(Access::Closed(reason) | Access::Stopping { reason, .. }) => Some(reason.words()),
        Some(Access::Keep { .. }) => Some("it takes no new sessions"),
        Some(Access::Open { .. }) if !row.usable => Some(Reason::PermitEnded.words()),
        _ => None,
    };
    let words = known.health.as_ref().map_or("no check".into(), |health| health.words());
    // The routes know more than the checks: a fresh primary is used before its check passes, a stale one is not.
    row.status = match (row.usable, words.as_str()) {
        (true, words) if words.starts_with("UP") || words == "no check" => words.to_owned(),
        (true, _) => "UP".into(),
        (false, words) if words.starts_with("DOWN") => words.to_owned(),
        (false, _) => "DOWN".into(),
    };
    if let Some(health) = &known.health {
        row.checks_failed = Some(health.failed);
        row.times_down = Some(health.times_down);
        row.since_change = Some(now.since(health.since));
        row.downtime = Some(health.downtime(now));
    }
    if let Some(check) = &known.last_check {
        row.check_code = Some(check.code);
        row.check_status = check.status;
        row.check_took = Some(check.took);
    }
    row.rise_fall = server.config.check.as_ref().map(|check| (check.rise, check.fall));
}
