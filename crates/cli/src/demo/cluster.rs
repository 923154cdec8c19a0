//! The demo's cluster as its members and its entrypoint show it: `GET /cluster`, and SQL through a port.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use super::state::{Node, State};

/// One line of `GET /cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Member {
    pub name: String,
    pub role: String,
    /// `running` on a leader, `streaming` on a standby that follows.
    pub state: String,
    pub timeline: Option<u64>,
    /// Bytes behind the leader, or `unknown`; absent on the leader.
    pub lag: Option<serde_json::Value>,
}

impl Member {
    pub fn is_leader(&self) -> bool {
        self.role == "leader"
    }
}

#[derive(Deserialize)]
struct Cluster {
    members: Vec<Member>,
}

/// A REST call answers from memory or asks the store once; a member that takes longer is asked again.
const REST_TIMEOUT: Duration = Duration::from_secs(2);

/// The demo's members over HTTP.
#[derive(Clone, Debug)]
pub struct Rest {
    client: reqwest::Client,
}

impl Rest {
    pub fn new() -> anyhow::Result<Rest> {
        // Building a client needs a provider even for plain HTTP. An error says that one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().context("preparing for HTTP failed")?;
        Ok(Rest { client })
    }

    /// What one member says of the whole cluster.
    pub async fn members(&self, rest_port: u16) -> anyhow::Result<Vec<Member>> {
        let url = format!("http://127.0.0.1:{rest_port}/cluster");
        let answer = self.client.get(&url).timeout(REST_TIMEOUT).send().await?.error_for_status()?;
        Ok(answer.json::<Cluster>().await?.members)
    }

    /// Every node answers by itself, and all agree on one leader and on `nodes - 1` streaming standbys.
    pub async fn all_healthy(&self, nodes: &[Node]) -> Result<Vec<Member>, String> {
        let mut members = Vec::new();
        for node in nodes {
            members = self.members(node.rest_port).await.map_err(|_| format!("{} does not answer", node.name))?;
            healthy(&members, nodes.len())?;
        }
        Ok(members)
    }

    /// The epoch under which a member serves, from the first line of the route that it pushes to entrypoints.
    pub async fn epoch(&self, rest_port: u16) -> Option<u64> {
        let url = format!("http://127.0.0.1:{rest_port}/pgherd/route");
        let mut stream = self.client.get(&url).timeout(REST_TIMEOUT).send().await.ok()?.error_for_status().ok()?;
        let mut text = Vec::new();
        // A line is some hundred bytes; a stream without a line end is cut off by the time-out or here.
        while text.len() < 64 * 1024 {
            text.extend_from_slice(&stream.chunk().await.ok()??);
            if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let message: pgherd_ha::RouteMessage = serde_json::from_slice(&text[..end]).ok()?;
                return message.node.epoch.map(|epoch| epoch.0);
            }
        }
        None
    }

    /// Whether the demo's commits wait for standbys.
    pub async fn is_synchronous(&self, state: &State) -> anyhow::Result<bool> {
        let node = state.nodes.first().context("the demo has no node")?;
        let url = format!("http://127.0.0.1:{}/config", node.rest_port);
        let config: serde_json::Value = self.client.get(&url).timeout(REST_TIMEOUT).send().await?.json().await?;
        Ok(!matches!(&config["synchronous_mode"], serde_json::Value::Null | serde_json::Value::Bool(false)))
    }

    /// The dynamic configuration changed through a member, say; the status and the text that it answered.
    pub async fn patch(
        &self,
        rest_port: u16,
        path: &str,
        body: &serde_json::Value,
        limit: Duration,
    ) -> anyhow::Result<(u16, String)> {
        let url = format!("http://127.0.0.1:{rest_port}{path}");
        let answer = self.client.patch(&url).timeout(limit).json(body).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// A body sent to a member; the status and the text that it answered.
    pub async fn post(
        &self,
        rest_port: u16,
        path: &str,
        body: &serde_json::Value,
        limit: Duration,
    ) -> anyhow::Result<(u16, String)> {
        let url = format!("http://127.0.0.1:{rest_port}{path}");
        let answer = self.client.post(&url).timeout(limit).json(body).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }
}

/// One running leader and everybody else streaming from it on its timeline; else what is missing.
pub fn healthy(members: &[Member], expected: usize) -> Result<(), String> {
    let leader = members.iter().find(|member| member.is_leader()).ok_or("there is no leader")?;
    if leader.state != "running" {
        return Err(format!("the leader {} is {}", leader.name, leader.state));
    }
    for member in members.iter().filter(|member| !member.is_leader()) {
        if member.state != "streaming" {
            return Err(format!("{} is {}", member.name, member.state));
        }
        if member.timeline != leader.timeline {
            return Err(format!("{} is on another timeline than the leader", member.name));
        }
    }
    match members.len() {
        count if count < expected => Err(format!("{count} of {expected} members are known")),
        _ => Ok(()),
    }
}

/// How to reach PostgreSQL on a port of this machine as the superuser, with the password of the demo's `pgpass`.
pub fn postgres_at(state: &State, port: u16, connect_limit: Duration) -> anyhow::Result<tokio_postgres::Config> {
    let password = password_of(&state.layout().pgpass())?;
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("postgres").dbname("postgres").password(password);
    config.connect_timeout(connect_limit).application_name("pgherd");
    Ok(config)
}

fn password_of(pgpass: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(pgpass).with_context(|| format!("reading {} failed", pgpass.display()))?;
    let password = text.lines().next().and_then(|line| line.rsplit(':').next());
    password.map(str::to_owned).with_context(|| format!("{} holds no password", pgpass.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, role: &str, state: &str, timeline: u64) -> Member {
        Member { name: name.into(), role: role.into(), state: state.into(), timeline: Some(timeline), lag: None }
    }

    #[test]
    fn healthy_means_one_leader_and_all_others_streaming_on_its_timeline() {
        let leader = || member("a", "leader", "running", 2);
        let cases = [
            (vec![leader(), member("b", "replica", "streaming", 2)], Ok(())),
            (vec![leader(), member("b", "sync_standby", "streaming", 2)], Ok(())),
            (vec![leader()], Err("1 of 2 members are known".to_owned())),
            (vec![leader(), member("b", "replica", "starting", 2)], Err("b is starting".to_owned())),
            (
                vec![leader(), member("b", "replica", "streaming", 1)],
                Err("b is on another timeline than the leader".to_owned()),
            ),
            (vec![member("b", "replica", "streaming", 2)], Err("there is no leader".to_owned())),
            (vec![member("a", "leader", "stopping", 2)], Err("the leader a is stopping".to_owned())),
        ];
        for (members, expected) in cases {
            assert_eq!(healthy(&members, 2), expected, "{members:?}");
        }
    }
}
