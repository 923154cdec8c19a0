//! `--validate-config`, `--generate-sample-config`, `--generate-config`: what the agent does instead of running, as Patroni does.
//!
//! Not here: what is wrong with a configuration (`pgherd_agent::config`). Tested beside a real Patroni in `tests/it/validate.rs` and
//! `tests/it/generate.rs`.

use std::io::Write as _;
use std::process::ExitCode;

use pgherd_agent::config::{Environment, validate};
use serde_json::Value;

use crate::arguments::AgentArguments;
use crate::ctl::yaml;
use crate::generate;

/// `None`: nothing of it is asked for, the agent is to run.
pub fn run(arguments: &AgentArguments) -> Option<ExitCode> {
    let file = arguments.file.as_deref();
    let written = match arguments {
        _ if arguments.validate_config => return Some(check(arguments)),
        _ if arguments.generate_sample_config => generate::sample(file),
        _ if arguments.generate_config => generate::of_running(arguments.dsn.as_deref(), file),
        _ => return None,
    };
    Some(match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    })
}

/// Nothing is said of what is right.
fn check(arguments: &AgentArguments) -> ExitCode {
    let found = validate(arguments.file.as_deref(), &Environment::of_process(), arguments.ignore_listen_port);
    let validation = match found {
        Ok(validation) => validation,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for line in &validation.lines {
        eprintln!("{line}");
    }
    if !validation.lines.is_empty() {
        return ExitCode::FAILURE;
    }
    if arguments.print {
        let text = yaml::block_of_width(&Value::Object(validation.document), yaml::DEFAULT_WIDTH);
        // Whoever reads may have read enough.
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
    ExitCode::SUCCESS
}
