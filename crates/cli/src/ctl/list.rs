//! `pgherd list`: the members of one or more clusters as a table, and what is planned for them.
//!
//! Also the table that other commands show before they ask (`table_of`). Tested in `list_tests` against text that
//! Patroni's console printed for the same keys, and on a real store in `tests/it/ctl.rs`.

use std::time::Duration;

use clap::Args;
use pgherd_ha::View;
use serde_json::Value;

use super::context::{Access, Context};
use super::members::{self, Position, ShownMember};
use super::table::{Align, Column, Format, Table};
use super::yaml;

#[derive(Args, Clone, Debug, Default)]
pub struct ListArguments {
    /// Clusters to show [default: the configured scope]
    #[arg(value_name = "CLUSTER")]
    pub clusters: Vec<String>,
    /// Show the columns about restarts and tags even if they are empty
    #[arg(short, long)]
    pub extended: bool,
    /// Print the time first
    #[arg(short, long)]
    pub timestamp: bool,
    #[arg(short, long, value_enum, default_value_t, hide_possible_values = false)]
    pub format: Format,
    #[command(flatten)]
    pub watch: Watch,
    #[command(flatten)]
    pub access: Access,
}

/// Show it again and again.
#[derive(Args, Clone, Debug, Default)]
pub struct Watch {
    /// Show again every 2 seconds
    #[arg(short = 'W')]
    pub every_two_seconds: bool,
    /// Show again every so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub watch: Option<Duration>,
}

impl Watch {
    pub fn interval(&self) -> Option<Duration> {
        self.watch.or(self.every_two_seconds.then_some(Duration::from_secs(2)))
    }
}

/// A day at most: more would be a mistake, and the sum with a clock must not overflow.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    match seconds {
        0.1..=86_400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected 0.1 to 86400 seconds".to_owned()),
    }
}

pub async fn run(arguments: ListArguments, context: &mut Context) -> anyhow::Result<()> {
    let clusters = context.clusters(&arguments.clusters);
    if clusters.is_empty() {
        warn_no_cluster("list");
        return Ok(());
    }
    repeat(arguments.watch.interval(), true, context, async |context| {
        if arguments.timestamp {
            context.terminal.line(&jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string())?;
        }
        for cluster in &clusters {
            let view = context.load(cluster).await?;
            let text = text_of(cluster, &view, arguments.format, arguments.extended);
            context.terminal.print(&text)?;
        }
        Ok(())
    })
    .await
}

/// Not an error: there is nothing to show, as with Patroni's console.
pub fn warn_no_cluster(command: &str) {
    tracing::warn!(
        "no cluster is named: `pgherd {command} CLUSTER`, or a configuration with its `scope` (-c FILE). `pgherd demo` starts a \
         cluster to try and prints its -c FILE"
    );
}

/// Once without an interval; else until the operator ends it, each time in an empty window or below what there is. Then
/// an error is shown in place of the table.
pub async fn repeat(
    interval: Option<Duration>,
    in_empty_window: bool,
    context: &mut Context,
    mut show: impl AsyncFnMut(&mut Context) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(interval) = interval else { return show(context).await };
    loop {
        if in_empty_window {
            context.terminal.clear()?;
        }
        if let Err(error) = show(context).await {
            context.terminal.line(&format!("Error: {error:#}"))?;
        }
        tokio::time::sleep(interval).await;
    }
}

/// The table and, in `pretty`, the lines under it.
pub fn text_of(cluster: &str, view: &View, format: Format, extended: bool) -> String {
    let members = members::shown(view);
    let rows = members.iter().map(|member| (member.name.to_owned(), member)).collect();
    let table = table_of(cluster, view, rows, format, Tags::of(format), extended);
    match format {
        Format::Pretty => table.render(format) + &notes(view),
        _ => table.render(format),
    }
}

/// How tags stand in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tags {
    /// A line a tag.
    Lines,
    /// In braces, on one line.
    Braces,
    /// As an object of the format.
    Object,
}

impl Tags {
    fn of(format: Format) -> Tags {
        match format {
            Format::Pretty => Tags::Lines,
            Format::Tsv => Tags::Braces,
            Format::Json | Format::Yaml => Tags::Object,
        }
    }
}

/// A table of members, each with the text for its column `Member`, in the given order.
pub fn table_of(
    cluster: &str,
    view: &View,
    members: Vec<(String, &ShownMember<'_>)>,
    format: Format,
    tags: Tags,
    extended: bool,
) -> Table {
    let pretty = format == Format::Pretty;
    let left = |name: &'static str| Column { name: name.into(), align: Align::Left };
    let right = |name: &'static str| Column { name: name.into(), align: Align::Right };
    let (receive_lag, replay_lag) = if pretty { ("Lag", "Lag") } else { ("Receive Lag", "Replay Lag") };
    let mut columns = vec![
        left("Member"),
        left("Host"),
        left("Role"),
        left("State"),
        right("TL"),
        right("Receive LSN"),
        right(receive_lag),
        right("Replay LSN"),
        right(replay_lag),
    ];
    let mut rows: Vec<Vec<Value>> = members.iter().map(|(label, member)| main_cells(label, member)).collect();
    if !pretty {
        columns.insert(0, left("Cluster"));
        rows.iter_mut().for_each(|row| row.insert(0, cluster.into()));
    }
    for name in ["Pending restart", "Pending restart reason", "Scheduled restart", "Tags"] {
        let cells: Vec<Value> = members.iter().map(|(_, member)| extra_cell(name, member, pretty, tags)).collect();
        if extended || cells.iter().any(|cell| cell != "") {
            columns.push(left(name));
            rows.iter_mut().zip(cells).for_each(|(row, cell)| row.push(cell));
        }
    }
    let initialized = match view.initialize.as_ref().map(|key| key.value.as_str()) {
        None => "uninitialized",
        Some("") => "initializing",
        Some(system) => system,
    };
    Table { title: Some(format!(" Cluster: {cluster} ({initialized}) ")), columns, rows, omit_empty: true }
}

fn main_cells(label: &str, member: &ShownMember<'_>) -> Vec<Value> {
    let mut cells = vec![
        label.into(),
        member.host.as_str().into(),
        member.role.title().into(),
        member.state.into(),
        member.timeline.map_or("".into(), Value::from),
    ];
    match member.positions {
        Some(positions) => {
            cells.extend(position_cells(positions.received));
            cells.extend(position_cells(positions.replayed));
        }
        None => cells.extend(std::iter::repeat_n(Value::from(""), 4)),
    }
    cells
}

fn position_cells(position: Position) -> [Value; 2] {
    let lsn = position.lsn.map_or("unknown".into(), |lsn| lsn.to_string().into());
    [lsn, position.lag.map_or("".into(), |lag| megabytes(lag).into())]
}

/// Rounded, halves to the even neighbour as Python rounds them.
fn megabytes(bytes: u64) -> u64 {
    const MEGABYTE: u64 = 1024 * 1024;
    let (whole, rest) = (bytes / MEGABYTE, bytes % MEGABYTE);
    match rest.cmp(&(MEGABYTE / 2)) {
        std::cmp::Ordering::Less => whole,
        std::cmp::Ordering::Equal => whole + whole % 2,
        std::cmp::Ordering::Greater => whole + 1,
    }
}

fn extra_cell(name: &str, member: &ShownMember<'_>, pretty: bool, tags: Tags) -> Value {
    match name {
        "Pending restart" => if member.pending_restart { "*" } else { "" }.into(),
        "Pending restart reason" => {
            let lines =
                member.pending_restart_reason.iter().map(|(parameter, change)| reason(parameter, change, pretty));
            lines.collect::<Vec<_>>().join("\n").into()
        }
        "Scheduled restart" => member.scheduled_restart.as_str().into(),
        _ if member.tags.is_empty() => "".into(),
        _ => {
            let value = Value::Object(member.tags.clone());
            match tags {
                Tags::Lines => yaml::block(&value).trim_end_matches('\n').into(),
                Tags::Braces => yaml::flow(&value).trim_end_matches('\n').into(),
                Tags::Object => value,
            }
        }
    }
}

/// A long line would push the table out of the window.
fn reason(parameter: &str, change: &str, pretty: bool) -> String {
    const LONGEST: usize = 50;
    let line = format!("{parameter}: {change}");
    if pretty && line.chars().count() > LONGEST { format!("{parameter}: [hidden - too long]") } else { line }
}

/// What is on or planned for the whole cluster, under the table.
pub fn notes(view: &View) -> String {
    let mut text = String::new();
    if view.is_paused() {
        text.push_str(" Maintenance mode: on\n");
    }
    let request = view.failover.as_ref().map(|key| &key.value);
    if let Some((request, at)) = request.and_then(|request| Some((request, request.scheduled_at?))) {
        let at = super::schedule::iso(&at.to_zoned(jiff::tz::TimeZone::UTC));
        text.push_str(&format!(" Switchover scheduled at: {at}\n"));
        for (word, name) in [("from", &request.leader), ("to", &request.member)] {
            if let Some(name) = name {
                text.push_str(&format!("{word:>24}: {name}\n"));
            }
        }
    }
    text
}
