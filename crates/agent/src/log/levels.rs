//! Which events are logged: a level for all, and others for single loggers.
//!
//! A logger is named as Patroni names it (`patroni.postgresql.rewind`), or by our own module (`pgherd_agent.postgres.rewind`,
//! with dots or with `::`). As in Python a name stands for all below it, and the longest counts. Not here: Patroni's
//! words for levels in the file (`config`). Tested below.

use tracing::level_filters::LevelFilter;

/// Our modules and the logger of Patroni that speaks of the same; the first that fits counts. The third: a library of Patroni's for
/// that work, which people silence by its name.
const LOGGERS: [(&str, &str, &str); 29] = [
    ("pgherd_agent::api", "patroni.api", ""),
    ("pgherd_agent::config", "patroni.config", ""),
    ("pgherd_agent::log", "patroni.log", ""),
    ("pgherd_agent::watchdog", "patroni.watchdog.base", ""),
    ("pgherd_agent::guard", "patroni.postgresql.postmaster", ""),
    ("pgherd_agent::user_command", "patroni.postgresql.callback_executor", ""),
    ("pgherd_agent::postgres::rewind", "patroni.postgresql.rewind", ""),
    ("pgherd_agent::postgres::slots", "patroni.postgresql.slots", ""),
    ("pgherd_agent::postgres::slot_copy", "patroni.postgresql.slots", ""),
    ("pgherd_agent::postgres::slot_sync", "patroni.postgresql.slots", ""),
    ("pgherd_agent::postgres::base_backup", "patroni.postgresql.bootstrap", ""),
    ("pgherd_agent::postgres::own_method", "patroni.postgresql.bootstrap", ""),
    ("pgherd_agent::postgres::parameters", "patroni.postgresql.config", ""),
    ("pgherd_agent::postgres::acceptance", "patroni.postgresql.config", ""),
    ("pgherd_agent::postgres::config_files", "patroni.postgresql.config", ""),
    ("pgherd_agent::postgres::connection", "patroni.postgresql.connection", ""),
    ("pgherd_agent::postgres", "patroni.postgresql", ""),
    ("pgherd_agent::daemon::callbacks", "patroni.postgresql.callback_executor", ""),
    ("pgherd_agent::daemon::slots", "patroni.postgresql.slots", ""),
    ("pgherd_agent::daemon", "patroni.ha", ""),
    ("pgherd_agent", "patroni", ""),
    ("pgherd_dcs::zookeeper", "patroni.dcs.zookeeper", "kazoo.client"),
    ("pgherd_dcs::etcd", "patroni.dcs.etcd3", "urllib3.connectionpool"),
    ("pgherd_dcs", "patroni.dcs", ""),
    ("pgherd_store", "patroni.dcs.raft", "pysyncobj"),
    ("reqwest", "urllib3.connectionpool", ""),
    ("hyper", "urllib3.connectionpool", ""),
    ("hyper_util", "urllib3.connectionpool", ""),
    ("tokio_postgres", "psycopg", ""),
];

/// Libraries that tell of every step that they take, and of every try that fails: they are silent without a level of their own. What matters of it
/// their users say.
const CHATTY: [&str; 1] = ["openraft"];

/// The levels in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    pub root: LevelFilter,
    /// Names with dots.
    pub loggers: Vec<(String, LevelFilter)>,
}

impl Levels {
    /// A word of Patroni (`WARNING`), or a filter: levels and `LOGGER=LEVEL` with commas (`info,pgherd_agent::api=debug`).
    /// `None`: it is neither.
    pub fn parse(text: &str) -> Option<Levels> {
        let mut levels = Levels { root: LevelFilter::ERROR, loggers: Vec::new() };
        for directive in text.split(',').map(str::trim) {
            match directive.split_once('=') {
                Some((name, level)) => levels.set(name, level_of(level)?),
                None => levels.root = level_of(directive)?,
            }
        }
        Some(levels)
    }

    /// Gives one logger its level.
    pub fn set(&mut self, name: &str, level: LevelFilter) {
        self.loggers.push((name.trim().replace("::", "."), level));
    }

    /// What an event of this module must be at least.
    pub fn of(&self, target: &str) -> LevelFilter {
        let (name, other) = names_of(target);
        let own = target.replace("::", ".");
        let found = [own.as_str(), name, other].into_iter().find_map(|name| self.named(name));
        let tells_every_step = CHATTY.iter().any(|library| target.split("::").next() == Some(library));
        found.unwrap_or(if tells_every_step { LevelFilter::OFF } else { self.root })
    }

    /// Of the longest name that is this one or stands above it; of two that are the same the later.
    fn named(&self, name: &str) -> Option<LevelFilter> {
        let above = |above: &str| name.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let fits = self.loggers.iter().filter(|(logger, _)| !logger.is_empty() && above(logger));
        fits.max_by_key(|(logger, _)| logger.len()).map(|(_, level)| *level)
    }

    /// Nothing below this is logged by anybody.
    pub fn lowest(&self) -> LevelFilter {
        self.loggers.iter().map(|(_, level)| *level).fold(self.root, LevelFilter::max)
    }
}

/// Python's levels in any case, their numbers, and those of tracing. `None`: another word.
pub fn level_of(text: &str) -> Option<LevelFilter> {
    let level = match text.trim().to_ascii_uppercase().as_str() {
        // What ends the program is an error with us, and must not be lost.
        "CRITICAL" | "FATAL" | "ERROR" => LevelFilter::ERROR,
        "WARNING" | "WARN" => LevelFilter::WARN,
        "INFO" => LevelFilter::INFO,
        "DEBUG" => LevelFilter::DEBUG,
        "NOTSET" | "TRACE" => LevelFilter::TRACE,
        "OFF" => LevelFilter::OFF,
        number => match number.parse::<u32>().ok()? {
            0..10 => LevelFilter::TRACE,
            10 => LevelFilter::DEBUG,
            11..=20 => LevelFilter::INFO,
            21..=30 => LevelFilter::WARN,
            _ => LevelFilter::ERROR,
        },
    };
    Some(level)
}

/// The name that a line shows as its logger.
pub fn logger(target: &str) -> &str {
    match names_of(target) {
        ("", _) => target,
        (name, _) => name,
    }
}

fn names_of(target: &str) -> (&'static str, &'static str) {
    let fits = |module: &str| target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    LOGGERS.iter().find(|(module, ..)| fits(module)).map_or(("", ""), |(_, name, other)| (name, other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patronis_levels_and_filters_are_understood() {
        for (text, root, loggers) in [
            ("WARNING", LevelFilter::WARN, &[][..]),
            ("warn", LevelFilter::WARN, &[]),
            ("CRITICAL", LevelFilter::ERROR, &[]),
            ("FATAL", LevelFilter::ERROR, &[]),
            ("DEBUG", LevelFilter::DEBUG, &[]),
            ("NOTSET", LevelFilter::TRACE, &[]),
            ("20", LevelFilter::INFO, &[]),
            ("25", LevelFilter::WARN, &[]),
            ("off", LevelFilter::OFF, &[]),
            ("info,pgherd_dcs=trace", LevelFilter::INFO, &[("pgherd_dcs", LevelFilter::TRACE)]),
            ("pgherd_agent::api=debug", LevelFilter::ERROR, &[("pgherd_agent.api", LevelFilter::DEBUG)]),
        ] {
            let levels = Levels::parse(text).unwrap_or_else(|| panic!("{text} was refused"));
            let loggers = loggers.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect();
            assert_eq!(levels, Levels { root, loggers }, "{text}");
        }
        for text in ["loud", "", "info,x", "info,x=loud"] {
            assert_eq!(Levels::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_logger_has_the_level_of_the_longest_name_that_is_set() {
        use LevelFilter as L;
        type Case<'a> = (&'a [(&'a str, L)], &'a str, L);
        // (loggers, module, level where INFO is that of all)
        let cases: [Case<'_>; 13] = [
            (&[], "pgherd_agent::daemon::round", L::INFO),
            (&[("patroni", L::WARN)], "pgherd_agent::daemon::round", L::WARN),
            (&[("patroni", L::WARN)], "pgherd_dcs::etcd::watch", L::WARN),
            (&[("patroni", L::WARN), ("patroni.ha", L::DEBUG)], "pgherd_agent::daemon::round", L::DEBUG),
            (&[("patroni.ha", L::DEBUG), ("patroni", L::WARN)], "pgherd_agent::daemon::round", L::DEBUG),
            (&[("patroni.postgresql", L::ERROR)], "pgherd_agent::postgres::rewind", L::ERROR),
            (&[("patroni.postgresql.rewind", L::ERROR)], "pgherd_agent::postgres::promote", L::INFO),
            (&[("patroni.postgresql.postmaster", L::ERROR)], "pgherd_agent::guard::handle", L::ERROR),
            (&[("kazoo", L::ERROR)], "pgherd_dcs::zookeeper::link", L::ERROR),
            (&[("urllib3", L::ERROR)], "reqwest::connect", L::ERROR),
            (&[("pgherd_agent", L::TRACE), ("patroni", L::WARN)], "pgherd_agent::api", L::TRACE),
            (&[("pgherd_agent.daemon.round", L::OFF)], "pgherd_agent::daemon::round", L::OFF),
            (&[("patroni.h", L::ERROR), ("pgherd", L::ERROR)], "pgherd_agent::daemon::round", L::INFO),
        ];
        for (loggers, target, expected) in cases {
            let loggers = loggers.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect();
            let levels = Levels { root: L::INFO, loggers };
            assert_eq!(levels.of(target), expected, "{levels:?} for {target}");
        }
    }

    #[test]
    fn lines_show_patronis_names() {
        for (target, expected) in [
            ("pgherd_agent::daemon::round", "patroni.ha"),
            ("pgherd_agent::postgres::rewind", "patroni.postgresql.rewind"),
            ("pgherd_agent::postgresql", "patroni"),
            ("pgherd_proxy::entry", "pgherd_proxy::entry"),
        ] {
            assert_eq!(logger(target), expected);
        }
    }
}
