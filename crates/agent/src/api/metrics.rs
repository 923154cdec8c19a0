//! `GET /metrics`: this node in the text format of Prometheus, under the names that dashboards for Patroni ask for.
//!
//! Pure: a snapshot in, text out. The names, their order and their values are the interface; the help texts are ours.

use std::fmt::Write;

use pgherd_ha::{Boot, MemberState, Role, Wall};
use serde_json::Value;

use super::health::is_true;
use super::snapshot::{Observation, PATRONI_VERSION, Snapshot, SynchronousMode, WalPosition};

/// The states that other members may report besides ours, in the order of the interface: the value of a state is its
/// place.
const STATES: [&str; 15] = [
    "initializing new cluster",
    "initdb failed",
    "running custom bootstrap script",
    "custom bootstrap failed",
    "creating replica",
    "running",
    "starting",
    "starting after custom bootstrap",
    "start failed",
    "restarting",
    "restart failed",
    "stopping",
    "stopped",
    "stop failed",
    "crashed",
];

pub fn metrics(snapshot: &Snapshot, now: Boot) -> String {
    let seen = snapshot.fresh_observation(now);
    let mut page = Page::new(snapshot);
    page.gauge("version", "The level of Patroni's interface, two digits a part.", padded(PATRONI_VERSION));
    put_server(&mut page, snapshot, seen, now);
    put_log(&mut page, seen);
    put_cluster(&mut page, snapshot, seen, now);
    put_state(&mut page, snapshot, seen);
    page.gauge("failover_priority", "0: never to be promoted; else the greater is preferred.", priority(snapshot));
    page.text
}

fn put_server(page: &mut Page, snapshot: &Snapshot, seen: Option<&Observation>, now: Boot) {
    let role = seen.map_or(snapshot.role, |seen| snapshot.shown_role(seen));
    let running = snapshot.state == MemberState::Running && seen.is_some();
    page.flag("postgres_running", "1: the server answers queries.", running);
    let started = seen.map(|seen| seen.postmaster_start_time);
    page.gauge("postmaster_start_time", "When the server was started, in seconds since 1970.", seconds(started));
    page.flag("primary", "1: the server is out of recovery.", role == Role::Primary);
    let flushed = seen.map_or(0, |seen| if let WalPosition::Primary { flushed } = seen.wal { flushed.0 } else { 0 });
    page.counter("xlog_location", "The flushed position of a primary, in bytes.", flushed);
    page.flag("standby_leader", "1: leads a standby cluster.", role == Role::StandbyLeader);
    page.flag("replica", "1: the server is a standby.", role == Role::Replica);
    let sync = seen.is_some() && role == Role::Replica && snapshot.is_sync_standby(now);
    let quorum = snapshot.dynamic.synchronous == SynchronousMode::Quorum;
    page.flag("sync_standby", "1: a synchronous standby.", sync && !quorum);
    page.flag("quorum_standby", "1: a standby of the quorum.", sync && quorum);
}

fn put_log(page: &mut Page, seen: Option<&Observation>) {
    let (received, replayed, at, paused) = match seen.map(|seen| seen.wal) {
        Some(WalPosition::Standby { received, replayed, replayed_at, replay_paused, .. }) => {
            (received.0, replayed.0, replayed_at, replay_paused)
        }
        _ => (0, 0, None, false),
    };
    page.counter("xlog_received_location", "The received position of a standby, in bytes.", received);
    page.counter("xlog_replayed_location", "The replayed position of a standby, in bytes.", replayed);
    page.gauge("xlog_replayed_timestamp", "When the last replayed transaction was committed.", seconds(at));
    page.flag("xlog_paused", "1: replay is paused.", paused);
    let replication = seen.and_then(|seen| seen.replication_state.as_deref());
    if let Some(seen) = seen {
        let archive = replication == Some("in archive recovery");
        page.flag("postgres_streaming", "1: the standby is streaming.", replication == Some("streaming"));
        page.flag("postgres_in_archive_recovery", "1: the standby reads the archive.", archive);
        page.gauge("postgres_server_version", "The version of the server, 0 if it does not run.", seen.server_version);
    } else {
        page.gauge("postgres_server_version", "The version of the server, 0 if it does not run.", 0);
    }
}

fn put_cluster(page: &mut Page, snapshot: &Snapshot, seen: Option<&Observation>, now: Boot) {
    let unlocked = snapshot.fresh_view(now).is_none_or(|view| view.leader.is_none());
    page.flag("cluster_unlocked", "1: nobody is known to lead.", unlocked);
    page.flag(
        "failsafe_mode_is_active",
        "1: the store is lost, and the members agreed on it.",
        snapshot.is_failsafe_active(now),
    );
    page.flag("failsafe_mode_enabled", "1: failsafe_mode is on.", snapshot.dynamic.failsafe_mode);
    let member = snapshot.failsafe_members.contains_key(&snapshot.name);
    page.flag("failsafe_member", "1: this node is asked in failsafe mode.", member);
    let timeline = seen.and_then(|seen| seen.timeline).map_or(0, |timeline| timeline.0);
    page.gauge("postgres_timeline", "The timeline of the server, 0 if it does not run.", timeline);
    page.gauge("dcs_last_seen", "The last load of the store, in seconds since 1970.", snapshot.dcs_last_seen);
    page.flag("pending_restart", "1: a setting waits for a restart.", snapshot.pending_restart.is_some());
    page.flag("is_paused", "1: the cluster is paused.", snapshot.paused);
}

fn put_state(page: &mut Page, snapshot: &Snapshot, seen: Option<&Observation>) {
    let lost = snapshot.state == MemberState::Running && seen.is_none();
    let place = STATES.iter().position(|state| !lost && *state == snapshot.state.as_str());
    let values: Vec<_> = STATES.iter().enumerate().map(|(place, state)| format!("{place}={state}")).collect();
    let comment = format!("# Values: {}\n", values.join(", "));
    let value = place.map_or_else(|| "-1".to_owned(), |place| place.to_string());
    page.put("postgres_state", "The state of the server as a number, -1 if unknown.", &comment, "gauge", &value);
}

fn priority(snapshot: &Snapshot) -> i64 {
    match snapshot.tags.get("nofailover") {
        Some(value) if is_true(value) => 0,
        _ => snapshot.tags.get("failover_priority").and_then(Value::as_i64).unwrap_or(1),
    }
}

/// `4.1.4` -> `040104`
fn padded(version: &str) -> String {
    version.split('.').map(|part| format!("{part:0>2}")).collect()
}

fn seconds(at: Option<Wall>) -> String {
    at.map_or_else(|| "0".to_owned(), |at| format!("{}.{:06}", at.as_second(), at.subsec_microsecond().unsigned_abs()))
}

/// The text so far.
struct Page {
    text: String,
    labels: String,
}

impl Page {
    fn new(snapshot: &Snapshot) -> Page {
        let escaped = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let labels = format!("{{scope=\"{}\",name=\"{}\"}}", escaped(&snapshot.scope), escaped(&snapshot.name));
        Page { text: String::with_capacity(4_096), labels }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl ToString) {
        self.put(name, help, "", "gauge", &value.to_string());
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.put(name, help, "", "counter", &value.to_string());
    }

    fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.gauge(name, help, u8::from(value));
    }

    fn put(&mut self, name: &str, help: &str, comment: &str, kind: &str, value: &str) {
        let labels = &self.labels;
        write!(
            self.text,
            "# HELP patroni_{name} {help}\n{comment}# TYPE patroni_{name} {kind}\npatroni_{name}{labels} {value}\n"
        )
        .expect("a string takes every text");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixture::{object, observation, snapshot, standby};
    use super::*;

    const NOW: Boot = Boot(Duration::from_secs(1_000));

    fn values(page: &str) -> Vec<(String, String)> {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let pair = |line: &str| {
            let (name, value) = line.split_once("{scope=\"batman\",name=\"n1\"} ").expect("labels");
            (name.trim_start_matches("patroni_").to_owned(), value.to_owned())
        };
        lines.map(pair).collect()
    }

    #[test]
    fn a_primary_has_these_values_in_this_order() {
        let expected = "version 040104, postgres_running 1, postmaster_start_time 1795420800.500000, primary 1, \
             xlog_location 50331784, standby_leader 0, replica 0, sync_standby 0, quorum_standby 0, \
             xlog_received_location 0, xlog_replayed_location 0, xlog_replayed_timestamp 0, xlog_paused 0, \
             postgres_streaming 0, postgres_in_archive_recovery 0, postgres_server_version 150018, \
             cluster_unlocked 0, failsafe_mode_is_active 0, failsafe_mode_enabled 0, failsafe_member 0, \
             postgres_timeline 2, dcs_last_seen 1763800000, pending_restart 0, is_paused 0, postgres_state 5, \
             failover_priority 1";
        let page = metrics(&snapshot(NOW), NOW);
        let seen: Vec<_> = values(&page).into_iter().map(|(name, value)| format!("{name} {value}")).collect();
        assert_eq!(seen.join(", "), expected);
        assert!(page.contains("# TYPE patroni_xlog_location counter\n"), "{page}");
        assert!(page.contains("# Values: 0=initializing new cluster, 1=initdb failed, "), "{page}");
    }

    #[test]
    fn a_standby_and_a_server_that_does_not_answer() {
        let mut snapshot = Snapshot { observation: Some(observation(NOW, standby(8))), ..snapshot(NOW) };
        snapshot.tags = object(r#"{"nofailover": true}"#);
        let check = |snapshot: &Snapshot, expected: &[(&str, &str)]| {
            let seen = values(&metrics(snapshot, NOW));
            for (name, value) in expected {
                assert!(seen.contains(&((*name).to_owned(), (*value).to_owned())), "{name} {value}: {seen:?}");
            }
        };
        check(&snapshot, &[("replica", "1"), ("xlog_replayed_location", "50331776"), ("postgres_streaming", "1")]);
        check(&snapshot, &[("failover_priority", "0"), ("primary", "0"), ("xlog_location", "0")]);
        snapshot.observation = None;
        snapshot.role = Role::Replica;
        check(&snapshot, &[("postgres_running", "0"), ("postgres_state", "-1"), ("replica", "1")]);
        snapshot.state = MemberState::Crashed;
        check(&snapshot, &[("postgres_state", "14"), ("postgres_server_version", "0")]);
    }
}
