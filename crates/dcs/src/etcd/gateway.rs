//! Calls of the JSON gateway: which server, how long, and who we are. What is known of a call that failed is in `verdict`.
//!
//! A call goes to the server that answered last. One that could not have been carried out is tried on the next server; so is one whose
//! answer is lost if doing it twice is as good as once. Everything runs on the runtime of [`Gateway::new`], the lease thread's, whoever
//! calls: else a pooled connection would hang when the thread that opened it does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgherd_tls::ClientOptions;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::servers::EtcdOptions;
use super::srv::{self, EtcdSrv};
use super::verdict::{CallError, failed, last_cause, read, verdict};
use super::wire::{Credentials, MembersAnswer, TokenAnswer, VersionAnswer};
use crate::StoreSecret;
use crate::error::error_chain;
use crate::home::at_home;

/// The shortest time for one attempt: a busy server needs that long.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(500);

/// A server that is not there must leave time for another.
const LONGEST_CONNECT: Duration = Duration::from_millis(750);

/// Servers that are known at most: a cluster of etcd has up to seven.
const MOST_SERVERS: usize = 16;

/// Attempts of one call after a refused token: a new one, and one more in case it was of a server that has just gone.
const LOGINS: usize = 2;

/// Whether a call whose answer is lost may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    Yes,
    No,
}

/// After refused credentials: they do not become right by themselves, and each login costs the store a hash that is meant to be slow.
const LOG_IN_AGAIN: Duration = Duration::from_secs(1);

/// Between two questions for a domain's records.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The way to the servers, shared by everything of one client.
#[derive(Debug)]
pub struct Gateway {
    http: Client,
    /// Addresses that want TLS are of no use without.
    secured: bool,
    srv: Option<EtcdSrv>,
    /// When the records were last asked for, and to what end. Held by whoever asks.
    asked: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
    /// No server that is known answers: the records may name others by now.
    all_gone: AtomicBool,
    never_asked: AtomicBool,
    home: Handle,
    credentials: Mutex<Option<(String, StoreSecret)>>,
    /// When our credentials were refused last, and in what words.
    refused: Mutex<Option<(Instant, CallError)>>,
    token: Mutex<Option<HeaderValue>>,
    servers: Mutex<Servers>,
    /// The server that is used now; the watch goes with it.
    current: watch::Sender<Arc<str>>,
    retry_timeout: Duration,
}

#[derive(Debug)]
struct Servers {
    /// `http://host:port`: the configured ones, then those that the cluster has named. Empty only until the records have named some.
    urls: Vec<Arc<str>>,
    at: usize,
    /// `/v3`, once a server has said its version.
    prefix: Option<&'static str>,
    version: String,
}

impl Gateway {
    pub fn new(options: &EtcdOptions, retry_timeout: Duration) -> Result<Gateway, String> {
        let urls: Vec<Arc<str>> = options.urls.iter().map(|url| url.as_str().into()).collect();
        if urls.is_empty() && options.srv.is_none() {
            return Err("no host is configured; name at least one in `etcd3.hosts`".into());
        }
        let first = urls.first().cloned().unwrap_or_default();
        let tls = options.tls().map_err(|error| format!("the section `etcd3`: {}", error_chain(&error)))?;
        let secured = tls.is_some();
        let tls = tls.map_or_else(|| pgherd_tls::client(&ClientOptions::UNCHECKED), Ok);
        let tls = tls.map_err(|error| error_chain(&error))?;
        // A proxy for the web must not see calls inside the cluster.
        let http = Client::builder()
            .no_proxy()
            .connect_timeout(LONGEST_CONNECT)
            .tcp_keepalive(Duration::from_secs(5))
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(|error| format!("the HTTP client cannot be made: {}", last_cause(&error)))?;
        Ok(Gateway {
            http,
            secured,
            srv: options.srv.clone(),
            asked: tokio::sync::Mutex::new(None),
            all_gone: AtomicBool::new(true),
            never_asked: AtomicBool::new(true),
            home: Handle::current(),
            credentials: Mutex::new(options.username.clone().zip(options.password.clone())),
            refused: Mutex::new(None),
            token: Mutex::new(None),
            servers: Mutex::new(Servers { urls, at: 0, prefix: None, version: String::new() }),
            current: watch::Sender::new(first),
            retry_timeout,
        })
    }

    /// The server that is used now, and every change of it.
    pub fn server(&self) -> watch::Receiver<Arc<str>> {
        self.current.subscribe()
    }

    /// Another server is to be used than this one, which does not answer.
    pub fn leave(&self, server: &Arc<str>) {
        let mut servers = self.servers.lock().expect("nobody panics while holding this lock");
        if servers.urls.get(servers.at) == Some(server) {
            servers.at = (servers.at + 1) % servers.urls.len();
            let next = servers.urls[servers.at].clone();
            self.current.send_replace(next);
        }
    }

    /// Sees to it that servers are known. Where none of them answers any more, the domain's records are asked again, beside the calls: a
    /// name server that hangs must not be in the way of a server that comes back.
    async fn find_servers(self: &Arc<Self>) -> Result<(), CallError> {
        if self.srv.is_none() || !self.all_gone.load(Ordering::SeqCst) {
            return Ok(());
        }
        // The first time they go before servers that are named beside them, which may be another cluster's.
        let first = self.never_asked.load(Ordering::SeqCst);
        if self.knows_a_server() && !first {
            if self.all_gone.swap(false, Ordering::SeqCst) {
                let gateway = self.clone();
                self.home.spawn(async move {
                    if let Err(why) = gateway.ask_records().await {
                        debug!("etcd: {why}; going on with the servers that are known");
                    }
                });
            }
            return Ok(());
        }
        let asked = self.ask_records().await;
        match asked {
            Err(why) if self.knows_a_server() => warn!("etcd: {why}; going on with the servers that are configured"),
            Err(why) => return Err(CallError::NotSent(why)),
            Ok(()) => {}
        }
        self.never_asked.store(false, Ordering::SeqCst);
        self.all_gone.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// What was known stays if the records name nobody.
    async fn ask_records(&self) -> Result<(), String> {
        let Some(srv) = &self.srv else { return Ok(()) };
        let mut asked = self.asked.lock().await;
        // Somebody else has just asked.
        if let Some((at, end)) = &*asked
            && at.elapsed() < ASK_AGAIN
        {
            return end.clone();
        }
        let end = srv::servers(srv).await.and_then(|urls| self.take_over(srv, urls));
        *asked = Some((Instant::now(), end.clone()));
        end
    }

    fn take_over(&self, srv: &EtcdSrv, urls: Vec<String>) -> Result<(), String> {
        if !self.secured && !urls.iter().all(|url| url.starts_with("http:")) {
            return Err("the servers want TLS, and there are no authorities; name them in `etcd3.cacert`".into());
        }
        let urls: Vec<Arc<str>> = urls.into_iter().map(Arc::from).collect();
        let mut servers = self.servers.lock().expect("nobody panics while holding this lock");
        if urls.iter().any(|url| !servers.urls.contains(url)) {
            info!("etcd: the SRV records of {} name {}", srv.domain, urls.join(", "));
        }
        self.current.send_replace(urls.first().cloned().unwrap_or_default());
        *servers = Servers { urls, at: 0, prefix: None, version: String::new() };
        Ok(())
    }

    fn knows_a_server(&self) -> bool {
        !self.servers.lock().expect("nobody panics while holding this lock").urls.is_empty()
    }

    /// The time of one attempt: a call leaves some for the other servers.
    fn attempt_limit(&self) -> Duration {
        let servers = self.servers.lock().expect("nobody panics while holding this lock").urls.len().max(1);
        let share = self.retry_timeout / u32::try_from(servers).unwrap_or(u32::MAX);
        share.max(SHORTEST_ATTEMPT).min(self.retry_timeout)
    }

    /// Asks the cluster for its other servers. Each is asked itself before it counts: what a server was told to advertise may be
    /// somebody else from here (`localhost`).
    pub async fn learn(&self) -> Result<(), CallError> {
        let server = self.current.borrow().clone();
        let named = self.members(&server).await?;
        let urls = named.members.into_iter().flat_map(|member| member.client_urls);
        for url in urls.map(|url| Arc::<str>::from(url.trim_end_matches('/'))) {
            let known = self.servers.lock().expect("nobody panics while holding this lock").urls.clone();
            // One that is spoken to differently would get by what was configured for TLS.
            let alike =
                url.split_once("://").map(|(scheme, _)| scheme) == server.split_once("://").map(|(scheme, _)| scheme);
            if known.len() >= MOST_SERVERS || known.contains(&url) || !alike {
                continue;
            }
            // One that does not answer now may do so the next time.
            if let Ok(own) = self.members(&url).await
                && own.header.cluster_id == named.header.cluster_id
            {
                debug!("etcd: the cluster names {url}, too");
                self.servers.lock().expect("nobody panics while holding this lock").urls.push(url);
            }
        }
        Ok(())
    }

    async fn members(&self, server: &Arc<str>) -> Result<MembersAnswer, CallError> {
        let bytes = self.attempt(server, "cluster/member/list", &Value::Object(serde_json::Map::new())).await?;
        read(server, &bytes)
    }

    /// Calls `method` (`kv/range`) and reads its answer.
    pub async fn call<A>(self: &Arc<Self>, method: &'static str, body: Value, again: Again) -> Result<A, CallError>
    where
        A: DeserializeOwned + Send + 'static,
    {
        let gateway = self.clone();
        let call = async move { gateway.call_here(method, &body, again).await };
        at_home(&self.home, call).await.unwrap_or_else(|_| Err(CallError::Lost("this client has ended".into())))
    }

    async fn call_here<A: DeserializeOwned>(
        self: &Arc<Self>,
        method: &str,
        body: &Value,
        again: Again,
    ) -> Result<A, CallError> {
        self.find_servers().await?;
        let mut attempts = self.servers.lock().expect("nobody panics while holding this lock").urls.len();
        let mut logins = LOGINS;
        loop {
            let server = self.current.borrow().clone();
            let error = match self.attempt(&server, method, body).await {
                Ok(bytes) => return read(&server, &bytes),
                Err(error) => error,
            };
            match &error {
                CallError::NotSent(_) => self.leave(&server),
                CallError::Lost(_) => {
                    self.leave(&server);
                    if again == Again::No {
                        // Whether the others answer is for the next call to see.
                        return Err(error);
                    }
                }
                // It was refused before anything was done.
                CallError::Unauthenticated(_) if logins > 0 && self.credentials().is_some() => {
                    logins -= 1;
                    self.forget_token();
                    continue;
                }
                _ => return Err(error),
            }
            attempts = attempts.saturating_sub(1);
            if attempts == 0 {
                self.all_gone.store(true, Ordering::SeqCst);
                return Err(error);
            }
        }
    }

    /// One call of one server.
    async fn attempt(&self, server: &Arc<str>, method: &str, body: &Value) -> Result<Vec<u8>, CallError> {
        let prefix = self.prefix(server).await?;
        let token = self.token(server, prefix).await?;
        let mut request = self.http.post(format!("{server}{prefix}/{method}")).timeout(self.attempt_limit()).json(body);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        verdict(server, request.send().await.map_err(|error| failed(server, &error))?).await
    }

    /// Begins a watch on the server that is used now; the answer's body goes on until it ends.
    pub async fn open_watch(&self, server: &Arc<str>, body: &Value) -> Result<Response, CallError> {
        let begin = async {
            let prefix = self.prefix(server).await?;
            let mut request = self.http.post(format!("{server}{prefix}/watch")).json(body);
            if let Some(token) = self.token(server, prefix).await? {
                request = request.header(AUTHORIZATION, token);
            }
            request.send().await.map_err(|error| failed(server, &error))
        };
        let response = tokio::time::timeout(self.attempt_limit(), begin).await;
        let response = response.map_err(|_| CallError::Lost(format!("{server}: no answer")))??;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        verdict(server, response).await?;
        Err(CallError::Refused(format!("{server}: it does not watch")))
    }

    /// Where the gateway is: servers of different versions have it in different places.
    async fn prefix(&self, server: &Arc<str>) -> Result<&'static str, CallError> {
        if server.is_empty() {
            return Err(CallError::NotSent("no server is known yet".into()));
        }
        if let Some(prefix) = self.servers.lock().expect("nobody panics while holding this lock").prefix {
            return Ok(prefix);
        }
        let request = self.http.get(format!("{server}/version")).timeout(self.attempt_limit());
        // Nothing was asked to be done yet.
        let unsent = |error: CallError| match error {
            CallError::Lost(why) => CallError::NotSent(why),
            other => other,
        };
        let response = request.send().await.map_err(|error| unsent(failed(server, &error)))?;
        let bytes = verdict(server, response).await.map_err(unsent)?;
        let version: VersionAnswer = read(server, &bytes).map_err(unsent)?;
        let prefix = prefix_of(&version.etcdcluster).or_else(|| prefix_of(&version.etcdserver)).ok_or_else(|| {
            CallError::Refused(format!("{server}: it is no etcd of version 3 (it says `{}`)", version.etcdserver))
        })?;
        let mut servers = self.servers.lock().expect("nobody panics while holding this lock");
        (servers.prefix, servers.version) = (Some(prefix), version.etcdserver);
        Ok(prefix)
    }

    /// The version of a server that was asked for it, if leases are not safe with it.
    pub fn unsafe_version(&self) -> Option<String> {
        let version = self.servers.lock().expect("nobody panics while holding this lock").version.clone();
        lets_former_leaders_revoke(&version).then_some(version)
    }

    /// The token of our user, asked for if there is none; `None` without credentials or where the store wants none.
    async fn token(&self, server: &Arc<str>, prefix: &str) -> Result<Option<HeaderValue>, CallError> {
        let Some((name, password)) = self.credentials() else { return Ok(None) };
        if let Some(token) = self.token.lock().expect("nobody panics while holding this lock").clone() {
            return Ok(Some(token));
        }
        if let Some((at, error)) = &*self.refused.lock().expect("nobody panics while holding this lock")
            && at.elapsed() < LOG_IN_AGAIN
        {
            return Err(error.clone());
        }
        let body = Credentials { name: &name, password: &password.0 };
        let request =
            self.http.post(format!("{server}{prefix}/auth/authenticate")).timeout(self.attempt_limit()).json(&body);
        let unsent = |error: CallError| match error {
            CallError::Lost(why) => CallError::NotSent(why),
            CallError::Refused(why) => CallError::Refused(format!(
                "{why}; check `etcd3.username` and `etcd3.password` (a reload takes them in)"
            )),
            other => other,
        };
        let response = request.send().await.map_err(|error| unsent(failed(server, &error)))?;
        let bytes = match verdict(server, response).await {
            Err(CallError::Refused(why)) if why.contains("authentication is not enabled") => return Ok(None),
            answer => answer.map_err(unsent).inspect_err(|error| {
                if matches!(error, CallError::Refused(_)) {
                    self.set_refused(Some((Instant::now(), error.clone())));
                }
            })?,
        };
        let answer: TokenAnswer = read(server, &bytes)?;
        let mut token = HeaderValue::from_str(&answer.token)
            .map_err(|_| CallError::Refused(format!("{server}: its token cannot be sent")))?;
        token.set_sensitive(true);
        *self.token.lock().expect("nobody panics while holding this lock") = Some(token.clone());
        Ok(Some(token))
    }

    fn credentials(&self) -> Option<(String, StoreSecret)> {
        self.credentials.lock().expect("nobody panics while holding this lock").clone()
    }

    fn set_refused(&self, refused: Option<(Instant, CallError)>) {
        *self.refused.lock().expect("nobody panics while holding this lock") = refused;
    }

    /// From now on, as soon as the store does not take the token any more that the former ones gave: so a password can be changed here first,
    /// and then there.
    pub fn set_credentials(&self, options: &EtcdOptions) {
        let new = options.username.clone().zip(options.password.clone());
        let former = std::mem::replace(
            &mut *self.credentials.lock().expect("nobody panics while holding this lock"),
            new.clone(),
        );
        if former != new {
            self.set_refused(None);
            info!("etcd: the user and the password have changed");
        }
    }

    pub fn forget_token(&self) {
        *self.token.lock().expect("nobody panics while holding this lock") = None;
    }
}

/// The gateway's place in a version, as Patroni chooses it.
fn prefix_of(version: &str) -> Option<&'static str> {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next()?.ok()?, numbers.next()?.ok()?) {
        (3, 0..=2) => Some("/v3alpha"),
        (3, 3) => Some("/v3beta"),
        (major, _) if major >= 3 => Some("/v3"),
        _ => None,
    }
}

/// Whether a leader of this version that was frozen, and has a successor by now, may still end leases (etcd's pull request 16822, in 3.4.31 and
/// 3.5.13).
fn lets_former_leaders_revoke(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten()) {
        (Some(3), Some(0..4), _) => true,
        (Some(3), Some(4), Some(patch)) => patch < 31,
        (Some(3), Some(5), Some(patch)) => patch < 13,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_place_depends_on_the_version() {
        for (version, expected) in [
            ("3.0.4", Some("/v3alpha")),
            ("3.3.27", Some("/v3beta")),
            ("3.4.0", Some("/v3")),
            ("3.6.1", Some("/v3")),
            ("4.0", Some("/v3")),
            ("2.3.8", None),
            ("not_decided", None),
            ("", None),
        ] {
            assert_eq!(prefix_of(version), expected, "{version}");
        }
    }

    #[test]
    fn versions_with_which_leases_are_not_safe() {
        for (version, expected) in [
            ("3.3.27", true),
            ("3.4.23", true),
            ("3.4.31", false),
            ("3.5.12", true),
            ("3.5.13", false),
            ("3.5.0-rc.1", true),
            ("3.6.0", false),
            ("4.0.0", false),
            ("", false),
            ("3.5", false),
        ] {
            assert_eq!(lets_former_leaders_revoke(version), expected, "{version}");
        }
    }
}
