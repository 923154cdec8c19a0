//! `pgherd proxy`: runs the entrypoint, or only checks its configuration.
//!
//! Not here: the entrypoint itself (`pgherd_proxy`).

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use pgherd_proxy::haproxy_cfg;

#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// A haproxy.cfg
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only check the file: every problem on a line of its own, exit code 1 if it cannot be used
    #[arg(long)]
    check: bool,
}

pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if arguments.check {
        check(&arguments.file)?
    } else {
        pgherd_proxy::run(&arguments.file)?
    }
    Ok(ExitCode::SUCCESS)
}

fn check(path: &Path) -> anyhow::Result<()> {
    let file = path.display().to_string();
    let bytes =
        std::fs::read(path).with_context(|| format!("{file} cannot be read; give the path of a haproxy.cfg"))?;
    let text = String::from_utf8_lossy(&bytes);
    match haproxy_cfg::parse(&file, &text, &|name| std::env::var(name).ok()) {
        Ok(parsed) if parsed.warnings.problems.is_empty() => println!("{file}: valid"),
        Ok(parsed) => println!("{}\n{file}: valid, with warnings", parsed.warnings),
        Err(problems) => bail!("{file} cannot be used:\n{problems}"),
    }
    Ok(())
}
