//! `pgherd health`: asks one health check, for a container's HEALTHCHECK and for scripts on hosts without an HTTP client.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

/// Shorter than what health checks are usually given, so that the reason is printed before they give up.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// What to ask: an agent's REST API with the path of the check, or an entrypoint's page
    #[arg(value_name = "URL", env = "PGHERD_HEALTH", default_value = "http://localhost:8008/health")]
    url: String,
}

/// Exit code 0 for a status of 200, 1 for any other; it is printed.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the event loop cannot be started")?.block_on(ask(&arguments.url))
}

async fn ask(url: &str) -> anyhow::Result<ExitCode> {
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
    let answer = client.get(url).send().await.with_context(|| format!("{url} does not answer"))?;
    println!("{url}: {}", answer.status());
    Ok(if answer.status() == reqwest::StatusCode::OK { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
