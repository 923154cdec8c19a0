//! The log of every role: lines on standard error, readable without tools, with the local time to the millisecond.

use std::fmt;
use std::io::IsTerminal;

use jiff::Zoned;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Patroni's names of the variable; the last that is set counts.
const VARIABLES: [&str; 3] = ["LOGLEVEL", "PATRONI_LOGLEVEL", "PATRONI_LOG_LEVEL"];

/// Starts the log with a default level, unless the environment says another. A word of Patroni (`WARNING`) or a filter
/// (`info,pgherd_agent=debug`) is accepted.
pub fn start(default: &str) {
    let asked = VARIABLES.iter().rev().find_map(|name| std::env::var(name).ok().filter(|level| !level.is_empty()));
    let filter = asked.as_deref().map_or_else(|| default.to_owned(), directives);
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_timer(LocalTime).with_writer(std::io::stderr);
    let coloured = std::io::stderr().is_terminal();
    // An error says that a log is there already, which is as good.
    let _ = subscriber.with_ansi(coloured).with_target(false).try_init();
}

/// Python's levels in the words of tracing.
fn directives(level: &str) -> String {
    match level.to_ascii_uppercase().as_str() {
        "CRITICAL" | "FATAL" | "ERROR" => "error".into(),
        "WARNING" | "WARN" => "warn".into(),
        "NOTSET" => "trace".into(),
        _ => level.to_ascii_lowercase(),
    }
}

struct LocalTime;

impl FormatTime for LocalTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", Zoned::now().strftime("%Y-%m-%d %H:%M:%S.%3f"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patronis_levels_are_understood() {
        for (level, expected) in [
            ("WARNING", "warn"),
            ("CRITICAL", "error"),
            ("DEBUG", "debug"),
            ("info,pgherd_dcs=trace", "info,pgherd_dcs=trace"),
        ] {
            assert_eq!(directives(level), expected);
        }
    }
}
