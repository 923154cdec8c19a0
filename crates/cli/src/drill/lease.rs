//! Which lease time the store granted to the leader, asked of the store itself: ZooKeeper's `dump` and `cons`, etcd's gateway.
//!
//! The drill compares its outages with this number: a fault that nobody can notice but by silence lasts as long as it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::demo::store::StoreKind;

/// An answer is some lines for each client of a demo.
const MOST_BYTES: u64 = 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(2);

/// The granted time of the session or lease that `leader_key` is under; `None` if there is none, or the store does not say.
pub async fn granted(kind: StoreKind, store_port: u16, leader_key: &str) -> Option<Duration> {
    match kind {
        StoreKind::ZooKeeper => granted_by_zookeeper(store_port, leader_key).await,
        StoreKind::Etcd => granted_by_etcd(store_port, leader_key).await,
        // It grants what is asked for, and tells nobody but its holder.
        StoreKind::BuiltIn => None,
    }
}

async fn granted_by_etcd(store_port: u16, leader_key: &str) -> Option<Duration> {
    let key = call(store_port, "kv/range", &json!({"key": STANDARD.encode(leader_key)})).await?;
    let lease = call(store_port, "lease/timetolive", &json!({"ID": lease_of(&key)?})).await?;
    Some(Duration::from_secs(lease["grantedTTL"].as_str()?.parse().ok()?))
}

/// The gateway writes numbers of 64 bits as text, and leaves out what is 0.
fn lease_of(range: &Value) -> Option<&str> {
    range["kvs"][0]["lease"].as_str()
}

async fn call(port: u16, method: &str, body: &Value) -> Option<Value> {
    let request = reqwest::Client::builder().no_proxy().timeout(LIMIT).build().ok()?;
    let answer = request.post(format!("http://127.0.0.1:{port}/v3/{method}")).json(body).send().await.ok()?;
    answer.json().await.ok()
}

async fn granted_by_zookeeper(store_port: u16, leader_key: &str) -> Option<Duration> {
    let dump = ask(store_port, "dump").await?;
    let connections = ask(store_port, "cons").await?;
    timeout_of(&connections, owner_of(&dump, leader_key)?)
}

async fn ask(port: u16, word: &str) -> Option<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(LIMIT, exchange).await.ok()?.ok()
}

/// Below each session of the dump its keys are indented.
fn owner_of<'a>(dump: &'a str, key: &str) -> Option<&'a str> {
    let mut session = None;
    for line in dump.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| name.starts_with("0x")) {
            session = Some(name);
        } else if line.trim() == key {
            return session;
        }
    }
    None
}

/// A line a connection: `/127.0.0.1:51334[1](queued=0,...,sid=0x1000,...,to=8000,...)`.
fn timeout_of(connections: &str, session: &str) -> Option<Duration> {
    let fields = |line: &'_ str| line.split(['(', ',', ')']).map(str::to_owned).collect::<Vec<_>>();
    let wanted = format!("sid={session}");
    let line = connections.lines().map(fields).find(|fields| fields.contains(&wanted))?;
    let millis = line.iter().find_map(|field| field.strip_prefix("to="))?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "SessionTracker dump:\nSession Sets (1)/(2):\n2 expire at Mon Nov 23 08:00:00 UTC 2026:\n\t0x100\n\
        \t0x10001\nephemeral nodes dump:\nSessions with Ephemerals (2):\n0x100:\n\t/service/demo/members/node2\n0x10001:\n\
        \t/service/demo/leader\n\t/service/demo/members/node1\nConnections dump:\nConnections Sets (1)/(2):\n";
    const CONNECTIONS: &str = " /127.0.0.1:4[0](queued=0,recved=1,sent=0)\n \
        /127.0.0.1:5[1](queued=0,recved=5,sid=0x100,lop=PING,to=40000,lcxid=0x1)\n \
        /127.0.0.1:6[1](queued=0,recved=5,sid=0x10001,lop=SETD,to=8000,lcxid=0x2)\n\n";

    #[test]
    fn the_owners_session_is_found_in_both_answers() {
        assert_eq!(owner_of(DUMP, "/service/demo/leader"), Some("0x10001"));
        assert_eq!(owner_of(DUMP, "/service/demo/members/node2"), Some("0x100"));
        assert_eq!(owner_of(DUMP, "/service/other/leader"), None);
        assert_eq!(timeout_of(CONNECTIONS, "0x10001"), Some(Duration::from_secs(8)));
        assert_eq!(timeout_of(CONNECTIONS, "0x1000"), None);
        let range = json!({"header": {}, "kvs": [{"key": "bGVhZGVy", "lease": "7587859"}]});
        assert_eq!(lease_of(&range), Some("7587859"));
        assert_eq!(lease_of(&json!({"header": {}})), None);
        assert_eq!(owner_of("dump is not executed because it is not in the whitelist.", "/x"), None);
    }
}
