//! The persistent keys: compare-and-set, and the cluster as a whole.

use serde_json::Value;

use super::Client;
use super::gateway::Again;
use super::verdict::CallError;
use super::wire::{Act, Compare, DeleteAnswer, PutAnswer, RangeAnswer, TxnAnswer, keys_below, one_key, put, txn};
use crate::{Expect, Written, snapshot};

/// etcd refuses requests of more than 1.5 MiB, ZooKeeper those of more than one.
const LARGEST_VALUE: usize = 1 << 20;

impl Client {
    pub(super) async fn write_key(&self, path: &str, value: &[u8], expect: Expect) -> Result<Written, CallError> {
        if value.len() > LARGEST_VALUE {
            let cause = format!("a value has {} bytes, and at most {LARGEST_VALUE} can be stored", value.len());
            return Err(CallError::Refused(cause));
        }
        let Some(compare) = compare(path, expect) else { return Ok(Written::Conflict) };
        let Some(compare) = compare else {
            let answer: PutAnswer = self.gateway.call("kv/put", put(path, value, 0), Again::No).await?;
            return Ok(Written::Done { version: answer.header.revision });
        };
        let answer: TxnAnswer =
            self.gateway.call("kv/txn", txn(&[compare], Act::Put(path, value, 0)), Again::No).await?;
        let version = answer.header.revision;
        Ok(if answer.succeeded { Written::Done { version } } else { Written::Conflict })
    }

    pub(super) async fn delete_key(&self, path: &str, expect: Expect) -> Result<bool, CallError> {
        match (expect, compare(path, expect)) {
            (Expect::Any, _) => Ok(self.delete_range(one_key(path)).await? > 0),
            (Expect::Absent, _) | (_, None | Some(None)) => Ok(false),
            (Expect::Version(_), Some(Some(compare))) => {
                let body = txn(&[compare], Act::Delete(path));
                let answer: TxnAnswer = self.gateway.call("kv/txn", body, Again::No).await?;
                Ok(answer.succeeded)
            }
        }
    }

    pub(super) async fn delete_tree(&self) -> Result<(), CallError> {
        self.delete_range(keys_below(&format!("{}/", self.layout.base()))).await.map(|_| ())
    }

    async fn delete_range(&self, range: Value) -> Result<i64, CallError> {
        let answer: DeleteAnswer = self.gateway.call("kv/deleterange", range, Again::No).await?;
        Ok(answer.deleted)
    }

    pub(super) async fn list_clusters(&self) -> Result<Vec<String>, CallError> {
        let mut body = keys_below(&snapshot::namespace_prefix(&self.layout));
        body["keys_only"] = true.into();
        let answer: RangeAnswer = self.gateway.call("kv/range", body, Again::Yes).await?;
        let paths = answer.kvs.iter().filter_map(|key| std::str::from_utf8(&key.key.0).ok());
        Ok(snapshot::clusters(&self.layout, paths))
    }
}

/// `None`: no key can be like that. `Some(None)`: nothing is demanded.
fn compare(path: &str, expect: Expect) -> Option<Option<Compare<'_>>> {
    match expect {
        Expect::Any => Some(None),
        Expect::Absent => Some(Some(Compare::Created(path, 0))),
        // A revision of 0 would mean absent to the server; no key has one.
        Expect::Version(version) => (version > 0).then_some(Some(Compare::Modified(path, version))),
    }
}
