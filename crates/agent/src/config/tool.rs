//! Options of initdb, pg_basebackup and pg_rewind as the configuration writes them: a list of flags and pairs, or a mapping.
//!
//! Those that pgherd itself sets, or that would break what it does, are refused here.

use serde_json::Value;

use super::place::{Problem, Problems};
use super::values::{describe, text};

pub use crate::postgres::ToolOption;
use crate::postgres::{base_backup, initdb, rewind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Initdb,
    PgBasebackup,
    PgRewind,
}

impl Tool {
    fn key(self) -> &'static str {
        match self {
            Tool::Initdb => "bootstrap.initdb",
            Tool::PgBasebackup => "postgresql.basebackup",
            Tool::PgRewind => "postgresql.rewind",
        }
    }

    /// Source: Patroni's configuration contract, section 2.1.
    fn forbidden(self) -> &'static [&'static str] {
        match self {
            Tool::Initdb => &initdb::FORBIDDEN,
            Tool::PgBasebackup => &base_backup::FORBIDDEN,
            Tool::PgRewind => &rewind::FORBIDDEN,
        }
    }

    fn problem(self, text: String) -> Problem {
        // A cluster that was made with options other than the wanted ones cannot be mended; a copy can be made again.
        match self {
            Tool::Initdb => Problem::error(self.key(), text),
            Tool::PgBasebackup | Tool::PgRewind => Problem::warning(self.key(), text + "; it is left out"),
        }
    }
}

/// The options in order. What is wrong becomes a problem: an error for initdb, else a warning.
pub fn options(tool: Tool, value: Option<&Value>, problems: &mut Problems) -> Vec<ToolOption> {
    let mut options = Vec::new();
    let mut add = |name: &str, value: Option<&Value>| match option(tool, name, value) {
        Ok(option) => options.extend(option),
        Err(text) => problems.push(tool.problem(text)),
    };
    match value {
        Some(Value::Array(items)) => {
            for item in items {
                match item {
                    Value::Object(pairs) => pairs.iter().for_each(|(name, value)| add(name, Some(value))),
                    other => add(&text(other).unwrap_or_default(), None),
                }
            }
        }
        Some(Value::Object(pairs)) => pairs.iter().for_each(|(name, value)| add(name, Some(value))),
        _ => {}
    }
    options
}

fn option(tool: Tool, name: &str, value: Option<&Value>) -> Result<Option<ToolOption>, String> {
    let name = name.trim_start_matches('-');
    if name.is_empty() || name.contains(['=', ' ']) {
        return Err(format!("`{name}` is no option; expected a long name without dashes, or NAME: VALUE"));
    }
    if tool.forbidden().contains(&name) {
        return Err(format!("`{name}` is set by pgherd itself"));
    }
    let option = match value {
        None | Some(Value::Null | Value::Bool(true)) => Some(ToolOption::flag(name)),
        Some(Value::Bool(false)) => None,
        Some(value) => {
            let value =
                text(value).ok_or_else(|| format!("`{name}` needs a single value, found {}", describe(value)))?;
            Some(ToolOption::with_value(name, value))
        }
    };
    let client_side = |option: &ToolOption| !option.value.as_ref().is_some_and(|value| value.starts_with("server-"));
    if tool == Tool::PgBasebackup && name == "compress" && option.as_ref().is_some_and(client_side) {
        return Err(
            "`compress` must name a method of the server's (`server-...`): a copy is unpacked as it arrives".into()
        );
    }
    Ok(option)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_of_tools() {
        let cases = [
            (Tool::Initdb, json!(["data-checksums", {"encoding": "UTF8"}]), "--data-checksums --encoding=UTF8", ""),
            (
                Tool::PgBasebackup,
                json!({"max-rate": "100M", "verbose": true, "quiet": false}),
                "--max-rate=100M --verbose",
                "",
            ),
            (Tool::PgBasebackup, json!(["--no-slot", {"checkpoint": "fast"}]), "--no-slot --checkpoint=fast", ""),
            (Tool::Initdb, json!([{"pwfile": "x"}, "k"]), "--k", "bootstrap.initdb: `pwfile` is set by pgherd itself"),
            (
                Tool::PgBasebackup,
                json!([{"compress": "gzip"}, {"format": "t"}]),
                "",
                "postgresql.basebackup: `compress` must name a method of the server's (`server-...`): a copy is unpacked as \
                 it arrives; it is left out\npostgresql.basebackup: `format` is set by pgherd itself; it is left out",
            ),
            (Tool::PgBasebackup, json!({"compress": "server-zstd"}), "--compress=server-zstd", ""),
            (
                Tool::PgRewind,
                json!(["a b", {"x": []}]),
                "",
                "postgresql.rewind: `a b` is no option; expected a long name without dashes, or NAME: VALUE; it is left \
                 out\npostgresql.rewind: `x` needs a single value, found a list; it is left out",
            ),
        ];
        for (tool, value, expected, expected_problems) in cases {
            let mut problems = Problems::default();
            let options = options(tool, Some(&value), &mut problems);
            let arguments: Vec<String> = options.iter().map(ToolOption::argument).collect();
            assert_eq!(
                (arguments.join(" "), problems.to_string()),
                (expected.into(), expected_problems.into()),
                "{value}"
            );
        }
    }
}
