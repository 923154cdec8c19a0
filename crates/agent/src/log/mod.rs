//! The log of every role.
//!
//! Until something is configured, lines go to standard error at once, readable without tools, with the local time to the millisecond.
//! An agent then applies `log` of its file (`apply`), at its start and whenever the file is read again: what is logged (`levels`), how a
//! line looks (`layout`, `python`), where it goes (`sink`). From then on nobody who logs waits for a disk (`queue`). Not here: what is
//! said. Tested as data in these files, on running agents and against Python in `tests/it/logging.rs`.

pub mod layout;
pub mod levels;
mod python;
mod queue;
mod record;
mod sink;

use std::io::IsTerminal;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

pub use layout::Layout;
use levels::Levels;
pub use python::DEFAULT as DEFAULT_FORMAT;
use queue::Queue;
pub use record::{Extra, Record};
pub use sink::{Destination, Sink};

use crate::config::Log;

/// Patroni's names of the variable; the last that is set counts.
const VARIABLES: [&str; 3] = ["LOGLEVEL", "PATRONI_LOGLEVEL", "PATRONI_LOG_LEVEL"];

/// How long the end of an agent waits for its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What is logged, and how it looks.
#[derive(Debug)]
struct Style {
    levels: Levels,
    layout: Layout,
}

/// One log a process, as tracing has it.
static STYLE: ArcSwapOption<Style> = ArcSwapOption::const_empty();
static QUEUE: OnceLock<Queue> = OnceLock::new();
static BEGUN: OnceLock<Timestamp> = OnceLock::new();
/// What counts where no configuration says another.
static FIRST: OnceLock<Levels> = OnceLock::new();

/// Starts the log with a default level, unless the environment says another. A word of Patroni (`WARNING`) or a filter
/// (`info,pgherd_agent=debug`) is accepted.
pub fn start(default: &str) {
    BEGUN.get_or_init(Timestamp::now);
    LazyLock::force(&record::ZONE);
    let asked = VARIABLES.iter().rev().find_map(|name| std::env::var(name).ok().filter(|level| !level.is_empty()));
    let asked = asked.and_then(|text| Levels::parse(&text)).or_else(|| Levels::parse(default));
    let levels = FIRST.get_or_init(|| asked.unwrap_or_else(first)).clone();
    let layout = Layout::Own { coloured: std::io::stderr().is_terminal() };
    STYLE.store(Some(Arc::new(Style { levels, layout })));
    // An error says that a log is there already, which is as good.
    let _ = tracing_subscriber::registry().with(Lines).try_init();
}

fn first() -> Levels {
    Levels { root: LevelFilter::INFO, loggers: Vec::new() }
}

/// Brings `log` of a configuration into force.
pub fn apply(log: &Log) {
    let coloured = log.destination.dir.is_none() && std::io::stderr().is_terminal();
    let layout = log.layout.clone().unwrap_or(Layout::Own { coloured });
    let mut levels = log.levels.clone().unwrap_or_else(|| FIRST.get_or_init(first).clone());
    levels.loggers.extend(log.loggers.iter().cloned());
    if let Some(queue) = queue() {
        queue.configure(log.destination.clone(), log.max_queue_size);
    }
    STYLE.store(Some(Arc::new(Style { levels, layout })));
    tracing::callsite::rebuild_interest_cache();
}

/// The queue, which lives as long as the process. Without its thread lines are written where they are logged.
fn queue() -> Option<&'static Queue> {
    if QUEUE.get().is_none() {
        match Queue::start(|news| tracing::warn!("{news}")) {
            Ok(queue) => return Some(QUEUE.get_or_init(|| queue)),
            Err(error) => {
                tracing::warn!("no thread could be started to write the log ({error}): whoever logs waits for it")
            }
        }
    }
    QUEUE.get()
}

/// How many lines wait to be written, and how many were lost.
pub fn figures() -> (usize, u64) {
    QUEUE.get().map(Queue::figures).unwrap_or_default()
}

/// Waits a little until everything is written. `false`: the log hangs, and its last lines are lost.
pub fn finish() -> bool {
    QUEUE.get().is_none_or(|queue| queue.drain(LAST_LINES))
}

/// What takes tracing's events.
struct Lines;

impl Lines {
    fn is_logged(metadata: &Metadata<'_>) -> bool {
        STYLE.load().as_ref().is_some_and(|style| *metadata.level() <= style.levels.of(metadata.target()))
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Lines::is_logged(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        Lines::is_logged(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        STYLE.load().as_ref().map(|style| style.levels.lowest())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(style) = STYLE.load_full() else { return };
        let record = Record::of(event, *BEGUN.get_or_init(Timestamp::now));
        let line = style.layout.line(&record);
        match QUEUE.get() {
            Some(queue) => queue.push(line),
            None => sink::to_standard_error(&line),
        }
    }
}
