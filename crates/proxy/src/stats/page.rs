//! The page for people: first the cluster, then HAProxy's tables. Plain HTML with its own style, nothing from elsewhere.

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use pgherd_ha::{Boot, NodeRoute};

use super::rows::{Kind, Row};
use crate::control::Overview;
use crate::route::{AgentView, Source};

const STYLE: &str = include_str!("page.css");

/// `listeners`: the lines of each; `uri`: of the page itself.
pub fn page(overview: &Overview, listeners: &[Vec<Row>], uri: &str, refresh: Option<Duration>, now: Boot) -> Markup {
    let held: usize = listeners.iter().flatten().filter_map(|row| row.held).sum();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(refresh) = refresh { meta http-equiv="refresh" content=(refresh.as_secs().max(1)); }
                title { "pgherd entrypoint" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "pgherd entrypoint" }
                (headline(overview, held, now))
                (nodes(overview, now))
                @for rows in listeners { (table(rows)) }
                p.note { "The same as CSV, with HAProxy's columns: " a href={ (uri) ";csv" } { (uri) ";csv" } }
            }
        }
    }
}

/// Who leads, in one sentence.
fn headline(overview: &Overview, held: usize, now: Boot) -> Markup {
    let leader = overview
        .agents
        .iter()
        .filter_map(|agent| Some((agent.proof(now)?, agent.node.as_ref()?)))
        .max_by_key(|((epoch, _), _)| *epoch);
    let plain = overview.agents.iter().any(|agent| agent.source == Source::Plain);
    html! {
        p.headline {
            @match leader {
                Some(((epoch, until), node)) => {
                    b { (node.name) } " leads " b { (node.scope) } ", epoch " (epoch) ", "
                    @if until == Boot::NEVER { "the cluster is paused" } @else { "permit " (seconds(until.since(now))) " left" }
                }
                None if plain => { "The agents push no route (a plain Patroni?): the health checks decide" }
                None => { b.bad { "Nobody proves to be the primary" } }
            }
            ". " @if held > 0 { b.warn { (held) " clients are held" } "." } @else { "No client is held." }
        }
    }
}

fn nodes(overview: &Overview, now: Boot) -> Markup {
    let known: Vec<(&AgentView, &NodeRoute)> =
        overview.agents.iter().filter_map(|agent| Some((agent, agent.node.as_ref()?))).collect();
    if known.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Cluster" }
            div.scroll { table {
                thead { tr {
                    th { "Node" } th { "Address" } th { "Role" } th { "State" } th.number { "Timeline" } th.number { "Position" }
                    th.number { "Lag" } th.number { "Epoch" } th.number { "Permit left" } th { "Route" }
                } }
                tbody { @for (agent, node) in known { (node_line(agent, node, now)) } }
            } }
        }
    }
}

fn node_line(agent: &AgentView, node: &NodeRoute, now: Boot) -> Markup {
    let proof = agent.proof(now);
    let (class, role) = match (node.in_recovery, proof) {
        (Some(false), Some(_)) => ("up", "primary"),
        (Some(false), None) => ("down", "not in recovery, without a permit"),
        (Some(true), _) if agent.source == Source::Live => ("up", "standby"),
        (Some(true), _) => ("", "standby"),
        (None, _) => ("down", "down"),
    };
    let permit = proof.map(|(_, until)| if until == Boot::NEVER { "paused".into() } else { seconds(until.since(now)) });
    html! {
        tr class=(class) {
            td { b { (node.name) } }
            td { (node.address) }
            td { (role) }
            td { (node.state) }
            td.number { (node.timeline.map_or("".into(), |timeline| timeline.to_string())) }
            td.number { (node.lsn.map_or("".into(), |lsn| lsn.to_string())) }
            td.number { (node.lag.map_or("".into(), bytes)) }
            td.number { (node.epoch.map_or("".into(), |epoch| epoch.to_string())) }
            td.number { (permit.unwrap_or_default()) }
            td { @if agent.source == Source::Live { "pushed" } @else { b.warn { "stream lost" } } }
        }
    }
}

fn table(rows: &[Row]) -> Markup {
    let name = rows.first().map_or("", |row| row.proxy.as_str());
    html! {
        section {
            h2 { (name) }
            div.scroll { table {
                thead {
                    tr {
                        th rowspan="2" { "Server" } th rowspan="2" { "Status" } th colspan="2" { "Held" }
                        th colspan="4" { "Sessions" } th colspan="2" { "Bytes" } th colspan="3" { "Errors" }
                        th colspan="5" { "Checks" }
                    }
                    tr {
                        th.number { "Now" } th.number { "Most" }
                        th.number { "Now" } th.number { "Most" } th.number { "Limit" } th.number { "Total" }
                        th.number { "In" } th.number { "Out" }
                        th.number { "Dial" } th.number { "Lost" } th.number { "Retried" }
                        th { "Last" } th.number { "Failed" } th.number { "Downs" } th.number { "Since" } th.number { "Downtime" }
                    }
                }
                tbody { @for row in rows { (line(row)) } }
            } }
        }
    }
}

fn line(row: &Row) -> Markup {
    let class = match (row.kind, row.usable) {
        (Kind::Server, true) => "up",
        (Kind::Server, false) => "down",
        _ => "sum",
    };
    let check = row.check_code.map(|code| match (row.check_status, row.check_took) {
        (Some(status), Some(took)) => format!("{code} {status} in {} ms", took.as_millis()),
        (None, Some(took)) => format!("{code} in {} ms", took.as_millis()),
        _ => code.to_owned(),
    });
    html! {
        tr class=(class) {
            td { b { (row.name) } @if let Some(address) = &row.address { br; small { (address) } } }
            td { (row.status) @if let Some(because) = row.because { br; small { (because) } } }
            (count(row.held)) (count(row.most_held))
            (count(Some(row.sessions))) (count(Some(row.most_sessions))) (count(row.limit)) (count(Some(row.total)))
            td.number { (bytes(row.bytes_in)) } td.number { (bytes(row.bytes_out)) }
            (count(row.dial_errors)) (count(row.lost)) (count(row.retries))
            td { (check.unwrap_or_default()) }
            (count(row.checks_failed)) (count(row.times_down))
            td.number { (row.since_change.map_or("".into(), rough)) }
            td.number { (row.downtime.map_or("".into(), rough)) }
        }
    }
}

fn count(value: Option<impl std::fmt::Display>) -> Markup {
    html! { td.number { @if let Some(value) = value { (value) } } }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// The two greatest units, as HAProxy writes times: `2d3h`, `5m1s`.
fn rough(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1_024.0;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let rough_of = |seconds| rough(Duration::from_secs(seconds));
        assert_eq!([rough_of(59), rough_of(301), rough_of(7_260), rough_of(183_600)], ["59s", "5m1s", "2h1m", "2d3h"]);
        assert_eq!([bytes(0), bytes(1_023), bytes(1_536), bytes(u64::MAX)], ["0 B", "1023 B", "1.5 kB", "16384.0 PB"]);
    }

    #[test]
    fn names_from_outside_are_escaped_and_the_csv_is_beside_the_page() {
        let text = headline(&Overview::default(), 2, Boot::ZERO).into_string();
        assert!(text.contains("Nobody proves to be the primary") && text.contains("2 clients are held"), "{text}");
        let node = serde_json::from_str::<NodeRoute>(
            r#"{"name":"<b>","scope":"s","address":"h:1","running":true,"in_recovery":true,"epoch":null,"permit_ms":null,
                "paused":false,"timeline":1,"lsn":1,"lag":5,"noloadbalance":false,"state":"running"}"#,
        );
        let text = node_line(&AgentView::default(), &node.expect("a route"), Boot::ZERO).into_string();
        assert!(text.contains("&lt;b&gt;"), "{text}");
        let text = page(&Overview::default(), &[], "/stats", None, Boot::ZERO).into_string();
        assert!(text.contains(r#"<a href="/stats;csv">/stats;csv</a>"#), "{text}");
    }
}
