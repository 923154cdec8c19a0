//! Reads the part of `haproxy.cfg` that matters to a TCP service in front of PostgreSQL.
//!
//! Three answers to a directive: it is obeyed; it cannot change what clients see (logs, users, process settings), then it
//! is a warning; anything else is an error that names file, line and word and says what is accepted there. All errors
//! are reported at once. Not here: what a configuration means (`config`), opening the file (`lib.rs`).
//! Tested in `tests.rs` beside this file: data, and property tests that nothing panics.

mod proxy;
mod resolve;
mod server;
mod units;
mod words;

use std::fmt;

use crate::config::Config;
use proxy::{Kind, Section};

/// What is wrong in one place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    pub word: String,
    pub message: String,
}

/// Problems with the name of their file; one a line when displayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    pub file: String,
    pub problems: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { line, word, message }) in self.problems.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:{line}: `{word}`: {message}", self.file)?;
        }
        Ok(())
    }
}

/// A configuration that can be served, and what was ignored on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub config: Config,
    pub warnings: Problems,
}

/// Reads `text`; `file` names it in messages, `environment` answers for `"$VARIABLES"`.
pub fn parse(file: &str, text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Parsed, Problems> {
    let mut report = Report::default();
    let sections = read_sections(text, environment, &mut report);
    let config = resolve::config(sections, &mut report);
    let named = |problems| Problems { file: file.to_owned(), problems };
    if report.errors.is_empty() {
        Ok(Parsed { config, warnings: named(report.warnings) })
    } else {
        report.errors.sort_by_key(|problem| problem.line);
        Err(named(report.errors))
    }
}

/// What is found wrong while reading.
#[derive(Debug, Default)]
struct Report {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// At most this many problems are told; a file that is not a configuration at all has one on every line.
const MOST_PROBLEMS: usize = 50;

impl Report {
    fn error(&mut self, line: usize, word: &str, message: impl Into<String>) {
        push(&mut self.errors, line, word, message.into());
    }

    fn warn(&mut self, line: usize, word: &str, message: impl Into<String>) {
        push(&mut self.warnings, line, word, message.into());
    }

    fn ignored(&mut self, line: usize, word: &str) {
        self.warn(line, word, "ignored: it does not change what clients see here");
    }

    /// The value, or an error at `word`.
    fn value<T>(&mut self, line: usize, word: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|message| self.error(line, word, message)).ok()
    }
}

fn push(problems: &mut Vec<Problem>, line: usize, word: &str, message: String) {
    if problems.len() < MOST_PROBLEMS {
        problems.push(Problem { line, word: word.to_owned(), message });
    }
}

/// `global`.
#[derive(Debug, Default)]
struct Global {
    maxconn: Option<u32>,
    threads: Option<u32>,
}

#[derive(Debug, Default)]
struct Sections {
    global: Global,
    sections: Vec<Section>,
}

enum Where {
    Nowhere,
    Global,
    Defaults,
    Proxy,
    /// A section that is skipped as a whole.
    Skipped,
}

fn read_sections(text: &str, environment: &dyn Fn(&str) -> Option<String>, report: &mut Report) -> Sections {
    let mut found = Sections::default();
    let mut defaults = Section::new(Kind::Defaults, String::new(), 0);
    let mut place = Where::Nowhere;
    for (number, line) in joined_lines(text.trim_start_matches('\u{feff}')) {
        let (words, unset) = match words::split(&line, environment) {
            Ok(split) => split,
            Err(error) => {
                report.error(number, line.trim(), error.to_string());
                continue;
            }
        };
        for name in unset {
            report.warn(number, &name, "this environment variable is not set; an empty text stands in its place");
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some((first, rest)) = words.split_first() else { continue };
        if let Some(next) = open_section(first, rest, number, &mut defaults, &mut found, report) {
            place = next;
            continue;
        }
        match place {
            Where::Global => global_directive(&mut found.global, number, first, rest, report),
            Where::Defaults => proxy::directive(&mut defaults, number, first, rest, report),
            Where::Proxy => {
                if let Some(section) = found.sections.last_mut() {
                    proxy::directive(section, number, first, rest, report);
                }
            }
            Where::Skipped => {}
            Where::Nowhere => report.error(number, first, "expected a section first: global, defaults or listen NAME"),
        }
    }
    found
}

/// Lines with their numbers; a line that ends in a backslash goes on with the next.
fn joined_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = vec![];
    let mut continued = false;
    for (index, line) in text.lines().enumerate() {
        let backslashes = line.bytes().rev().take_while(|b| *b == b'\\').count();
        let goes_on = backslashes % 2 == 1 && !line.contains('#');
        let content = if goes_on { &line[..line.len() - 1] } else { line };
        match lines.last_mut() {
            Some((_, open)) if continued => open.push_str(content),
            _ => lines.push((index + 1, content.to_owned())),
        }
        continued = goes_on;
    }
    lines
}

/// Opens a section if `first` is the name of one.
fn open_section(
    first: &str,
    rest: &[&str],
    line: usize,
    defaults: &mut Section,
    found: &mut Sections,
    report: &mut Report,
) -> Option<Where> {
    let kind = match first {
        "global" => return Some(Where::Global),
        "defaults" => {
            // A later `defaults` starts from nothing, as in HAProxy.
            *defaults = Section::new(Kind::Defaults, String::new(), line);
            return Some(Where::Defaults);
        }
        "listen" => Kind::Listen,
        "frontend" => Kind::Frontend,
        "backend" => Kind::Backend,
        "userlist" | "peers" | "mailers" | "resolvers" | "program" | "cache" | "ring" | "log-forward" => {
            report.ignored(line, first);
            return Some(Where::Skipped);
        }
        _ => return None,
    };
    let Some((name, more)) = rest.split_first() else {
        report.error(line, first, format!("expected a name: {first} NAME"));
        return Some(Where::Skipped);
    };
    if !more.is_empty() {
        report.error(line, more[0], "nothing is accepted after the name; put the address on a `bind` line");
    }
    let mut section = defaults.clone();
    (section.kind, section.name, section.line) = (kind, (*name).to_owned(), line);
    found.sections.push(section);
    Some(Where::Proxy)
}

fn global_directive(global: &mut Global, line: usize, first: &str, rest: &[&str], report: &mut Report) {
    /// Settings of a process, of logs and of TLS defaults: nothing that a client of a plain TCP service sees.
    const HARMLESS: &[&str] = &[
        "log",
        "log-tag",
        "log-send-hostname",
        "user",
        "group",
        "uid",
        "gid",
        "daemon",
        "chroot",
        "pidfile",
        "stats",
        "node",
        "description",
        "ca-base",
        "crt-base",
        "master-worker",
        "nbproc",
        "cpu-map",
        "ulimit-n",
        "quiet",
        "hard-stop-after",
        "localpeer",
        "presetenv",
        "setenv",
        "spread-checks",
        "external-check",
        "debug",
        "zero-warning",
        "nosplice",
        "noepoll",
        "nopoll",
        "noreuseport",
        "server-state-file",
        "server-state-base",
        "unix-bind",
        "lua-load",
    ];
    match first {
        "maxconn" => global.maxconn = one_number(line, first, rest, report),
        "nbthread" => global.threads = one_number(line, first, rest, report).map(|threads| threads.min(64)),
        _ if HARMLESS.contains(&first) || first.starts_with("ssl-") || first.starts_with("tune.") => {
            report.ignored(line, first);
        }
        _ => report.error(
            line,
            first,
            "not known in `global`; accepted here: maxconn N, nbthread N, and settings of \
            HAProxy's process and logs, which are ignored",
        ),
    }
}

/// The only argument as a number from 1.
fn one_number(line: usize, directive: &str, rest: &[&str], report: &mut Report) -> Option<u32> {
    let word = one_word(line, directive, rest, report)?;
    report.value(line, word, units::number(word, 1, 1_000_000))
}

/// The only argument.
fn one_word<'a>(line: usize, directive: &str, rest: &[&'a str], report: &mut Report) -> Option<&'a str> {
    match rest {
        [word] => Some(word),
        [] => {
            report.error(line, directive, "a value is missing after it");
            None
        }
        [_, more, ..] => {
            report.error(line, more, format!("`{directive}` takes one value"));
            None
        }
    }
}

#[cfg(test)]
mod tests;
