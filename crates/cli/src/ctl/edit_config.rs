//! `pgherd edit-config`: changes the dynamic configuration in the store, from options, from files or in an editor.
//!
//! The configuration is replaced only as it was when it was read. Tested in `edit_config_tests`, and beside the real
//! patronictl in `tests/it/ctl.rs`.

use std::path::Path;

use anyhow::{Context as _, bail};
use clap::Args;
use pgherd_agent::config;
use pgherd_dcs::layout::compact;
use pgherd_dcs::{Expect, Key, Written};
use serde_json::{Map, Value};

use super::context::{Access, Context};
use super::{config_change, diff, editor, pager, yaml};

#[derive(Args, Clone, Debug, Default)]
pub struct EditConfigArguments {
    /// The cluster [default: the configured scope]
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// Do not show what changes
    #[arg(short, long)]
    pub quiet: bool,
    /// Set a value, like ttl=20 or postgresql.use_slots=true; null removes the key (may be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Set a parameter of PostgreSQL, the same as -s postgresql.parameters.NAME=VALUE (may be repeated)
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub pg: Vec<String>,
    /// Lay this YAML over the configuration; - is the standard input
    #[arg(long, value_name = "FILE")]
    pub apply: Option<String>,
    /// Put this YAML in the place of the configuration; - is the standard input
    #[arg(long, value_name = "FILE")]
    pub replace: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub access: Access,
}

impl EditConfigArguments {
    /// Then nobody can answer a question.
    fn reads_input(&self) -> bool {
        [&self.apply, &self.replace].into_iter().flatten().any(|file| file == STANDARD_INPUT)
    }
}

const STANDARD_INPUT: &str = "-";

/// A configuration, and as it is shown.
struct Edited {
    config: Map<String, Value>,
    text: String,
}

impl Edited {
    fn new(config: Map<String, Value>) -> Edited {
        let text = yaml::block(&Value::Object(config.clone()));
        Edited { config, text }
    }
}

pub async fn run(arguments: EditConfigArguments, context: &mut Context) -> anyhow::Result<()> {
    let cluster = context.cluster(arguments.cluster.as_deref(), "edit-config")?;
    let found = context.load(&cluster).await?.config;
    let found = found.with_context(|| format!("The config key does not exist in the cluster {cluster}"))?;
    let before = Edited::new(found.value);
    let after = match change(context, &arguments, &before.config)? {
        Some(config) => Edited::new(config),
        None => edit(&before.text, &cluster).await?,
    };
    if after.config == before.config {
        return if arguments.quiet { Ok(()) } else { Ok(context.terminal.line("Not changed")?) };
    }
    if !arguments.quiet {
        pager::show(&diff::unified(&before.text, &after.text), &mut context.terminal)?;
    }
    if !arguments.force {
        if arguments.reads_input() {
            return Ok(context.terminal.line("Use --force option to apply changes")?);
        }
        if !context.terminal.confirm("Apply these changes?").await? {
            return Ok(());
        }
    }
    let value = compact(&Value::Object(after.config));
    match context.store(&cluster).await?.write(Key::Config, &value, Expect::Version(found.version)).await? {
        Written::Done { .. } => Ok(context.terminal.line("Configuration changed")?),
        Written::Conflict => bail!("Config modification aborted due to concurrent changes"),
    }
}

/// What the options make of the configuration; `None` if they ask for no change.
fn change(
    context: &mut Context,
    arguments: &EditConfigArguments,
    before: &Map<String, Value>,
) -> anyhow::Result<Option<Map<String, Value>>> {
    let mut config = before.clone();
    if let Some(file) = &arguments.replace {
        config = Map::new();
        config::patch(&mut config, &read(context, file)?);
    }
    if let Some(file) = &arguments.apply {
        config::patch(&mut config, &read(context, file)?);
    }
    for pair in &arguments.set {
        config_change::set(&mut config, pair)?;
    }
    for pair in &arguments.pg {
        config_change::set(&mut config, &format!("postgresql.parameters.{}", pair.trim_start()))?;
    }
    let EditConfigArguments { replace, apply, set, pg, .. } = arguments;
    let asked = replace.is_some() || apply.is_some() || !set.is_empty() || !pg.is_empty();
    Ok(asked.then_some(config))
}

fn read(context: &mut Context, file: &str) -> anyhow::Result<Map<String, Value>> {
    if file == STANDARD_INPUT {
        let text = context.terminal.read_text().context("the standard input cannot be read")?;
        return config_change::read("the standard input", &text);
    }
    let text = std::fs::read_to_string(Path::new(file)).with_context(|| format!("{file} cannot be read"))?;
    config_change::read(file, &text)
}

/// The text is shown as the operator left it.
async fn edit(before: &str, cluster: &str) -> anyhow::Result<Edited> {
    let text = editor::edit(before, cluster).await?;
    Ok(Edited { config: config_change::read("the edited text", &text)?, text })
}
