//! `pgherd show-config`: the dynamic configuration, as YAML.

use clap::Args;
use serde_json::Value;

use super::context::{Access, Context};
use super::yaml;

#[derive(Args, Clone, Debug, Default)]
pub struct ShowConfigArguments {
    /// The cluster [default: the configured scope]
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
    #[command(flatten)]
    pub access: Access,
}

pub async fn run(arguments: ShowConfigArguments, context: &mut Context) -> anyhow::Result<()> {
    let cluster = context.cluster(arguments.cluster.as_deref(), "show-config")?;
    match context.load(&cluster).await?.config {
        Some(config) => Ok(context.terminal.line(&yaml::block(&Value::Object(config.value)))?),
        None => {
            tracing::warn!("show-config: the cluster `{cluster}` has no configuration in the store (yet)");
            Ok(())
        }
    }
}
