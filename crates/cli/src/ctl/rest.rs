//! Calls to the REST API of a member.
//!
//! Not here: what the answers mean. Tested by the flows of the commands against a fake member.

use std::cell::OnceCell;
use std::time::Duration;

use anyhow::Context as _;
use pgherd_ha::Member;
use pgherd_tls::{Check, ClientOptions, Identity, TlsError};
use reqwest::{Client, Method, Url};
use serde_json::Value;

use super::settings::RestSettings;

/// To reach a member; it is on the same network or gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For calls that a member answers from memory.
pub const SHORT: Duration = Duration::from_secs(10);

/// No answer of the API that a person is to read is larger; the rest is cut off.
const LARGEST_BODY: usize = 1024 * 1024;

/// The call has no answer. Whether it was carried out is unknown unless the connection failed.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path} at {api_url} failed: {}", cause(source))]
pub struct RestError {
    method: Method,
    path: String,
    api_url: String,
    #[source]
    source: anyhow::Error,
}

/// The last of the causes says what happened; those above it only where.
fn cause(error: &anyhow::Error) -> String {
    error.root_cause().to_string()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub body: String,
}

impl Reply {
    pub fn is_refusal(&self) -> bool {
        self.status >= 400
    }

    /// How the commands that order something of each member print a refusal.
    pub fn refusal(&self, action: &str, member: &Member) -> String {
        format!("Failed: {action} for member {}, status code={}, ({})", member.name, self.status, self.body)
    }
}

/// The client is made at the first call: commands that only read the store do not pay for it.
#[derive(Debug)]
pub struct RestClient {
    settings: RestSettings,
    client: OnceCell<Client>,
}

impl RestClient {
    pub fn new(settings: RestSettings) -> RestClient {
        RestClient { settings, client: OnceCell::new() }
    }

    /// `path` replaces the one of the member's `api_url`. `limit` is for the whole call.
    pub async fn call(
        &self,
        member: &Member,
        method: Method,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Reply, RestError> {
        let sent = self.send(&member.api_url, method.clone(), path, body, limit).await;
        let (path, api_url) = (path.to_owned(), member.api_url.clone());
        sent.map_err(|source| RestError { method, path, api_url, source })
    }

    async fn send(
        &self,
        api_url: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> anyhow::Result<Reply> {
        let mut url: Url = api_url.parse().with_context(|| format!("its api_url `{api_url}` is not a URL"))?;
        url.set_path(path);
        url.set_query(None);
        let mut request = self.client()?.request(method, url).timeout(limit);
        if let Some((user, password)) = &self.settings.credentials {
            request = request.basic_auth(user, Some(password));
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(reqwest::Error::without_url)?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LARGEST_BODY {
                bytes.truncate(LARGEST_BODY);
                break;
            }
        }
        Ok(Reply { status, body: String::from_utf8_lossy(&bytes).into_owned() })
    }

    fn client(&self) -> anyhow::Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = build(&self.settings)?;
        Ok(self.client.get_or_init(|| client))
    }
}

fn build(settings: &RestSettings) -> anyhow::Result<Client> {
    // A proxy for the web must not see calls inside the cluster.
    let builder = Client::builder()
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("pgherd/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls(settings).context("the section `ctl`")?);
    builder.build().context("the HTTP client cannot be made")
}

/// As patronictl: told not to check, it still checks who has signed, once it has a certificate of its own to show.
fn tls(settings: &RestSettings) -> Result<rustls::ClientConfig, TlsError> {
    let identity = settings.certificate_file.as_deref().map(|certificate| Identity {
        certificate,
        key: settings.key_file.as_deref(),
        key_password: settings.key_password.as_deref(),
    });
    let check = match (settings.insecure, identity.is_some()) {
        (false, _) => Check::Name,
        (true, true) => Check::Authority,
        (true, false) => Check::Nothing,
    };
    pgherd_tls::client(&ClientOptions { check, authorities: settings.ca_file.as_deref(), identity, revoked: &[] })
}
