//! The bodies of etcd's JSON gateway: what is asked, and the parts of the answers that are read.
//!
//! Keys and values are in base64. Numbers of 64 bits come as text, and what is zero, false or empty is left out. Nothing that a
//! server sends can make this panic.

use std::fmt::Display;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Bytes as the gateway writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Base64).map_err(D::Error::custom)
    }
}

/// A number, or its text.
fn number<'de, D: Deserializer<'de>, N: FromStr<Err: Display> + Deserialize<'de>>(
    deserializer: D,
) -> Result<N, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<N> {
        Number(N),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(D::Error::custom),
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Header {
    #[serde(deserialize_with = "number")]
    pub cluster_id: u64,
    #[serde(deserialize_with = "number")]
    pub member_id: u64,
    #[serde(deserialize_with = "number")]
    pub revision: i64,
    #[serde(deserialize_with = "number")]
    pub raft_term: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    pub key: Base64,
    pub value: Base64,
    #[serde(deserialize_with = "number")]
    pub create_revision: i64,
    #[serde(deserialize_with = "number")]
    pub mod_revision: i64,
    /// 0: none.
    #[serde(deserialize_with = "number")]
    pub lease: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RangeAnswer {
    pub header: Header,
    pub kvs: Vec<KeyValue>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PutAnswer {
    pub header: Header,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeleteAnswer {
    #[serde(deserialize_with = "number")]
    pub deleted: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TxnAnswer {
    pub header: Header,
    pub succeeded: bool,
    responses: Vec<TxnStep>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TxnStep {
    response_range: Option<RangeAnswer>,
}

impl TxnAnswer {
    /// The key that the first range of the transaction found.
    pub fn found(self) -> Option<KeyValue> {
        self.responses.into_iter().find_map(|step| step.response_range)?.kvs.into_iter().next()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct GrantAnswer {
    #[serde(rename = "ID", deserialize_with = "number")]
    pub id: i64,
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub ttl: u32,
}

/// A stream of one answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeepAliveAnswer {
    pub result: Option<KeepAlive>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeepAlive {
    pub header: Header,
    /// 0: there is no such lease.
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub ttl: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TokenAnswer {
    pub token: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VersionAnswer {
    pub etcdserver: String,
    pub etcdcluster: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MembersAnswer {
    pub header: Header,
    pub members: Vec<Member>,
}

/// One server of the cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Where it says that it is.
    #[serde(rename = "clientURLs")]
    pub client_urls: Vec<String>,
}

/// One line of a watch.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WatchLine {
    pub result: Option<WatchAnswer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WatchAnswer {
    pub created: bool,
    pub canceled: bool,
    pub cancel_reason: String,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Event {
    #[serde(rename = "type")]
    pub kind: EventKind,
    pub kv: KeyValue,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum EventKind {
    #[default]
    #[serde(rename = "PUT")]
    Put,
    #[serde(rename = "DELETE")]
    Delete,
}

/// What a server says instead of doing what it was asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Refusal {
    pub code: i64,
    pub message: String,
    pub error: String,
}

/// What a transaction demands of a key.
#[derive(Clone, Copy, Debug)]
pub enum Compare<'a> {
    /// 0: it must not exist.
    Created(&'a str, i64),
    Modified(&'a str, i64),
    Lease(&'a str, i64),
}

impl Compare<'_> {
    fn body(self) -> Value {
        let (key, target, field, value) = match self {
            Compare::Created(key, revision) => (key, "CREATE", "create_revision", revision),
            Compare::Modified(key, revision) => (key, "MOD", "mod_revision", revision),
            Compare::Lease(key, lease) => (key, "LEASE", "lease", lease),
        };
        json!({"key": base64(key), "target": target, "result": "EQUAL", field: value.to_string()})
    }
}

/// What a transaction does if every comparison holds; it reads the key of the first one if not.
#[derive(Clone, Copy, Debug)]
pub enum Act<'a> {
    /// 0: under no lease.
    Put(&'a str, &'a [u8], i64),
    Delete(&'a str),
}

pub fn txn(compare: &[Compare<'_>], act: Act<'_>) -> Value {
    let (key, success) = match act {
        Act::Put(key, value, lease) => (key, json!({"request_put": put(key, value, lease)})),
        Act::Delete(key) => (key, json!({"request_delete_range": {"key": base64(key)}})),
    };
    json!({
        "compare": compare.iter().map(|one| one.body()).collect::<Vec<_>>(),
        "success": [success],
        "failure": [{"request_range": {"key": base64(key)}}],
    })
}

pub fn put(key: &str, value: &[u8], lease: i64) -> Value {
    let mut body = json!({"key": base64(key), "value": base64(value)});
    if lease != 0 {
        body["lease"] = lease.to_string().into();
    }
    body
}

pub fn one_key(key: &str) -> Value {
    json!({"key": base64(key)})
}

/// Every key that begins with `prefix`.
pub fn keys_below(prefix: &str) -> Value {
    json!({"key": base64(prefix), "range_end": base64(end_of(prefix))})
}

#[derive(Serialize)]
pub struct Credentials<'a> {
    pub name: &'a str,
    pub password: &'a str,
}

pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// The first key after all that begin with `prefix`; `\0`, which means no end, if there is none.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_left_out_is_zero_and_numbers_may_be_text() {
        let text = r#"{"header":{"member_id":"3319814642761637952","raft_term":2},"responses":[{"response_range":{"kvs":
            [{"key":"YQ==","create_revision":"2","mod_revision":"3","version":"1","value":"Yg==","lease":"9"}],"count":"1"}}]}"#;
        let answer: TxnAnswer = serde_json::from_str(text).expect("an answer of etcd 3.4");
        assert_eq!(answer.header, Header { member_id: 3319814642761637952, raft_term: 2, ..Header::default() });
        assert!(!answer.succeeded);
        let key = Base64(b"a".to_vec());
        let value = Base64(b"b".to_vec());
        assert_eq!(answer.found(), Some(KeyValue { key, value, create_revision: 2, mod_revision: 3, lease: 9 }));
        let gone: KeepAliveAnswer = serde_json::from_str(r#"{"result":{"header":{},"ID":"5"}}"#).expect("the same");
        assert_eq!(gone.result.map(|result| result.ttl), Some(0));
    }

    #[test]
    fn a_prefix_ends_before_its_next_key() {
        for (prefix, end) in [("/a/", &b"/a0"[..]), ("a", b"b"), ("", b"\0")] {
            assert_eq!(end_of(prefix), end, "{prefix:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(text in r#"\{("(result|header|kvs|events|succeeded|TTL)":("-?[0-9]{0,30}"|\[\]|\{\}|true|null),?){0,4}\}"#) {
            let _ = serde_json::from_str::<TxnAnswer>(&text);
            let _ = serde_json::from_str::<KeepAliveAnswer>(&text);
            let _ = serde_json::from_str::<WatchLine>(&text);
            let _ = serde_json::from_str::<GrantAnswer>(&text);
        }
    }
}
