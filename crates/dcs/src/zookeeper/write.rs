//! The persistent keys: compare-and-set, parents on demand, and the cluster as a whole.

use super::ZooKeeper;
use super::link::{CallError, Link, QUEUE, Refusal};
use crate::{Expect, Written};

/// Rounds of a write that finds the key gone and there in turn.
const ROUNDS: usize = 5;

/// Nodes of one cluster that are deleted at most: a cluster has some tens.
const MAX_NODES: usize = 10_000;

impl ZooKeeper {
    pub(super) async fn write_key(&self, path: &str, value: &[u8], expect: Expect) -> Result<Written, CallError> {
        let link = &*self.link().await?;
        for _ in 0..ROUNDS {
            let answer = match expect {
                Expect::Any => link.set(path, value, None).get().await,
                Expect::Absent => Err(CallError::Refused(Refusal::NoNode)),
                // A negative version would mean any to the server; no key has one.
                Expect::Version(version) => match i32::try_from(version) {
                    Ok(version) if version >= 0 => link.set(path, value, Some(version)).get().await,
                    _ => return Ok(Written::Conflict),
                },
            };
            match (answer, expect) {
                (Ok(stat), _) => return Ok(Written::Done { version: stat.version.into() }),
                (Err(CallError::Refused(Refusal::NoNode | Refusal::BadVersion)), Expect::Version(_)) => {
                    return Ok(Written::Conflict);
                }
                (Err(CallError::Refused(Refusal::NoNode)), _) => {}
                (Err(error), _) => return Err(error),
            }
            match (link.create(path, value, false).get().await, expect) {
                (Ok(stat), _) => return Ok(Written::Done { version: stat.version.into() }),
                (Err(CallError::Refused(Refusal::NoNode)), _) => self.create_parents(link, path).await?,
                (Err(CallError::Refused(Refusal::NodeExists)), Expect::Absent) => return Ok(Written::Conflict),
                (Err(CallError::Refused(Refusal::NodeExists)), _) => {}
                (Err(error), _) => return Err(error),
            }
        }
        Err(CallError::NotSent("the key comes and goes; is somebody removing the cluster?".into()))
    }

    pub(super) async fn delete_key(&self, path: &str, expect: Expect) -> Result<bool, CallError> {
        let link = &*self.link().await?;
        let version = match expect {
            Expect::Any => None,
            Expect::Absent => return Ok(false),
            Expect::Version(version) => match i32::try_from(version) {
                Ok(version) if version >= 0 => Some(version),
                _ => return Ok(false),
            },
        };
        match link.delete(path, version).get().await {
            Ok(()) => Ok(true),
            Err(CallError::Refused(Refusal::NoNode | Refusal::BadVersion)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates the keys above `path`, empty and persistent, as Patroni does.
    pub(super) async fn create_parents(&self, link: &Link, path: &str) -> Result<(), CallError> {
        // All at once; the server creates them in this order.
        let steps: Vec<_> =
            path.match_indices('/').skip(1).map(|(end, _)| link.create(&path[..end], b"", false)).collect();
        let mut first_error = None;
        let mut last = Ok(());
        for step in steps {
            last = match step.get().await {
                Ok(_) | Err(CallError::Refused(Refusal::NodeExists)) => Ok(()),
                Err(error @ CallError::Refused(_)) => Err(first_error.get_or_insert(error).clone()),
                Err(error) => return Err(error),
            };
        }
        // What is above may be somebody else's, who lets us create nothing beside what is there: a chroot is for that.
        last
    }

    pub(super) async fn delete_tree(&self) -> Result<(), CallError> {
        let link = &*self.link().await?;
        // A member that still runs writes its keys again: then the second round finds something, and the last fails.
        for _ in 0..ROUNDS {
            let mut found = vec![self.layout.base().to_owned()];
            let mut next = 0;
            while next < found.len() && found.len() <= MAX_NODES {
                let parent = found[next].clone();
                let children = link.children(&parent, false).optional().await?.unwrap_or_default();
                found.extend(children.into_iter().map(|child| format!("{parent}/{child}")));
                next += 1;
            }
            found.reverse();
            if delete_each(link, &found).await? {
                return Ok(());
            }
        }
        Err(CallError::Lost("keys are written again while they are deleted; stop the cluster's agents first".into()))
    }

    pub(super) async fn list_clusters(&self) -> Result<Vec<String>, CallError> {
        let link = &*self.link().await?;
        let namespace = self.layout.namespace();
        let mut names = link.children(namespace, false).optional().await?.unwrap_or_default();
        // ZooKeeper's own node at the root.
        names.retain(|name| namespace != "/" || name != "zookeeper");
        names.sort();
        Ok(names)
    }
}

/// `false` if one of them has children again.
async fn delete_each(link: &Link, paths: &[String]) -> Result<bool, CallError> {
    let mut all_gone = true;
    // A part of the queue at a time, so that there is room for a renewal.
    for some in paths.chunks(QUEUE / 4) {
        let deletions: Vec<_> = some.iter().map(|path| link.delete(path, None)).collect();
        for deletion in deletions {
            match deletion.get().await {
                Ok(()) | Err(CallError::Refused(Refusal::NoNode)) => {}
                Err(CallError::Refused(Refusal::NotEmpty)) => all_gone = false,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(all_gone)
}
