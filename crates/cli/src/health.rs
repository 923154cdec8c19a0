//! `pgherd health`: asks one health check, for a container's HEALTHCHECK and for scripts on hosts without an HTTP client.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use pgherd_tls::{Check, ClientOptions, Identity, TlsError};

/// Shorter than what health checks are usually given, so that the reason is printed before they give up.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// What to ask: an agent's REST API with the path of the check, or an entrypoint's page
    #[arg(value_name = "URL", env = "PGHERD_HEALTH", default_value = "http://localhost:8008/health")]
    url: String,
    /// Take any certificate of what is asked
    #[arg(short = 'k', long)]
    insecure: bool,
    /// The authorities (PEM) that its certificate is checked against; those of the system by default
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// A certificate (PEM) to show to it
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key of that certificate, if it is in a file of its own
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// Exit code 0 for a status of 200, 1 for any other; it is printed.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the event loop cannot be started")?.block_on(ask(&arguments))
}

async fn ask(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let url = &arguments.url;
    // A machine without authorities asks over plain HTTP all the same.
    let tls = if url.starts_with("https:") { tls(arguments)? } else { pgherd_tls::client(&ClientOptions::UNCHECKED)? };
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().tls_backend_preconfigured(tls);
    let answer = client.build()?.get(url).send().await.with_context(|| format!("{url} does not answer"))?;
    println!("{url}: {}", answer.status());
    Ok(if answer.status() == reqwest::StatusCode::OK { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tls(arguments: &Arguments) -> Result<rustls::ClientConfig, TlsError> {
    let identity = |certificate| Identity { certificate, key: arguments.key.as_deref(), key_password: None };
    pgherd_tls::client(&ClientOptions {
        check: if arguments.insecure { Check::Nothing } else { Check::Name },
        authorities: arguments.cacert.as_deref(),
        identity: arguments.cert.as_deref().map(identity),
        revoked: &[],
    })
}
