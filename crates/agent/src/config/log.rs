//! `log`: what the file says of it, as what the log does (`crate::log`).

use serde_json::Value;
use tracing::level_filters::LevelFilter;

use super::place::{Problem, Problems};
use super::tree::Tree;
use super::values::text;
use crate::log::levels::{Levels, level_of};
use crate::log::{Destination, Layout};

/// Patroni's, where the form of a line is asked for and no format is.
const FORMAT: &str = crate::log::DEFAULT_FORMAT;

/// Of these each says that whoever reads the log expects Patroni's form; without any of them it is ours.
const FORM: [&str; 5] = ["log.type", "log.format", "log.dateformat", "log.static_fields", "log.dir"];

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// `None`: what the program was started with.
    pub levels: Option<Levels>,
    /// Those of single loggers.
    pub loggers: Vec<(String, LevelFilter)>,
    /// `None`: ours.
    pub layout: Option<Layout>,
    pub destination: Destination,
    /// How many lines may wait to be written; 0: no bound was asked for.
    pub max_queue_size: usize,
    /// The rule of every round is said, not only one that differs from that before.
    pub repeats: bool,
}

/// Rotated files that are kept at most.
const MOST_FILES: u32 = 1000;

impl Log {
    /// What cannot be used is a warning: a log in another form is better than no agent.
    pub(super) fn read(tree: &Tree<'_>, problems: &mut Problems) -> Log {
        let count = |path: &str| tree.count(path);
        Log {
            levels: tree.written("log.level").and_then(Value::as_str).and_then(Levels::parse),
            loggers: loggers(tree, problems),
            layout: FORM.iter().any(|path| tree.written(path).is_some()).then(|| layout(tree, problems)),
            destination: Destination {
                dir: tree.file("log.dir"),
                mode: tree.integer("log.mode").and_then(|mode| u32::try_from(mode).ok()).map(|mode| mode & 0o777),
                file_size: count("log.file_size"),
                // Each of them is renamed at each rotation.
                file_num: u32::try_from(count("log.file_num")).unwrap_or(u32::MAX).min(MOST_FILES),
            },
            max_queue_size: usize::try_from(count("log.max_queue_size")).unwrap_or(usize::MAX),
            repeats: tree.written("log.deduplicate_heartbeat_logs").and_then(Value::as_bool) == Some(false),
        }
    }
}

fn layout(tree: &Tree<'_>, problems: &mut Problems) -> Layout {
    let default = Value::from(FORMAT);
    let format = tree.written("log.format").unwrap_or(&default);
    let date_format = tree.text("log.dateformat").filter(|text| !text.is_empty());
    let (layout, problem) = match tree.text("log.type").as_deref() {
        Some("json") => Layout::json(format, date_format, tree.map("log.static_fields")),
        _ => Layout::plain(format, date_format),
    };
    if let Some(problem) = problem {
        let text = format!("{problem}; `{FORMAT}` is used");
        problems.push(Problem::warning("log.format", text));
    }
    layout
}

fn loggers(tree: &Tree<'_>, problems: &mut Problems) -> Vec<(String, LevelFilter)> {
    let mut loggers = Levels { root: LevelFilter::OFF, loggers: Vec::new() };
    for (name, level) in tree.map("log.loggers") {
        match text(&level).as_deref().and_then(level_of) {
            // It has the level of what stands above it.
            Some(LevelFilter::TRACE) if level == "NOTSET" => {}
            Some(level) => loggers.set(&name, level),
            None => problems.push(Problem::warning(
                format!("log.loggers.{name}"),
                "ignored: expected a level (CRITICAL, ERROR, WARNING, INFO, DEBUG)",
            )),
        }
    }
    loggers.loggers
}
