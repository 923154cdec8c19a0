//! This node's member key on a store whose writes can name the revision that they replace. Of etcd and the built-in store.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Rounds of a write that races with others for the key.
const ROUNDS: usize = 4;

/// What the key is to hold and what we know of it, for revisions `R` and leases `L`.
#[derive(Debug)]
pub struct MemberKey<R, L> {
    known: Mutex<Known<R, L>>,
    /// Held by whoever writes.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Known<R, L> {
    value: Option<Bytes>,
    /// Counts the values.
    count: u64,
    /// The key's, as far as we know (`None`: absent).
    revision: Option<R>,
    /// The newest value that is in the store, and its lease.
    stored: Option<(u64, L)>,
}

/// A write's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put<R> {
    /// The key's revision now.
    Done(R),
    /// It had another revision than was named: this one.
    Found(Option<R>),
}

/// The key was another each time. (What ZooKeeper's client says, too.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key changes under our hands; is another node running with this name?")]
pub struct StillRacing;

impl<R: Copy, L: Copy + PartialEq> MemberKey<R, L> {
    pub fn new() -> MemberKey<R, L> {
        let known = Known { value: None, count: 0, revision: None, stored: None };
        MemberKey { known: Mutex::new(known), turn: tokio::sync::Mutex::new(()) }
    }

    /// What it is to hold from now on; the answer is for [`put`](Self::put).
    pub fn set(&self, value: &[u8]) -> u64 {
        let mut known = self.known();
        known.value = Some(Bytes::copy_from_slice(value));
        known.count += 1;
        known.count
    }

    pub fn has_a_value(&self) -> bool {
        self.known().value.is_some()
    }

    /// What a former process has left there, unless we know better by now.
    pub fn adopt(&self, value: Bytes) {
        self.known().value.get_or_insert(value);
    }

    /// Puts the newest value under this lease. Each write names the revision that it replaces: so one that was held up on its way cannot come after
    /// a newer one. One at a time: they would only stand in each other's way; and who waited for a write that brought its value (`count`) or a
    /// newer one need not write again.
    pub async fn put<E, F>(&self, lease: L, count: u64, write: impl Fn(Bytes, Option<R>) -> F) -> Result<(), E>
    where
        E: From<StillRacing>,
        F: Future<Output = Result<Put<R>, E>>,
    {
        let _turn = self.turn.lock().await;
        for _ in 0..ROUNDS {
            let Some((value, revision, newest)) = self.to_write(lease, count) else { return Ok(()) };
            match write(value, revision).await? {
                Put::Done(revision) => {
                    let mut known = self.known();
                    known.revision = Some(revision);
                    known.stored = Some((newest, lease));
                    return Ok(());
                }
                Put::Found(revision) => self.known().revision = revision,
            }
        }
        Err(StillRacing.into())
    }

    /// `None`: it is there already, or nobody has said a value yet.
    fn to_write(&self, lease: L, count: u64) -> Option<(Bytes, Option<R>, u64)> {
        let known = self.known();
        let is_stored = known.stored.is_some_and(|(stored, under)| stored >= count && under == lease);
        let value = known.value.clone().filter(|_| !is_stored)?;
        Some((value, known.revision, known.count))
    }

    fn known(&self) -> MutexGuard<'_, Known<R, L>> {
        // Nothing that holds it panics half way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Key = MemberKey<u64, u64>;
    /// The value, its revision, its lease.
    type Stored = Mutex<Option<(Bytes, u64, u64)>>;

    /// A store of one key, and how often it was written.
    #[derive(Debug, Default)]
    struct OneKey {
        stored: Stored,
        writes: Mutex<u64>,
    }

    impl OneKey {
        async fn put(&self, key: &Key, lease: u64, count: u64) -> Result<(), StillRacing> {
            key.put(lease, count, |value, replaced| async move {
                let mut stored = self.stored.lock().expect("one at a time");
                let mut writes = self.writes.lock().expect("one at a time");
                *writes += 1;
                let found = stored.as_ref().map(|stored| stored.1);
                if found != replaced {
                    return Ok(Put::Found(found));
                }
                *stored = Some((value, *writes, lease));
                Ok(Put::Done(*writes))
            })
            .await
        }

        fn shows(&self) -> (String, u64) {
            let stored = self.stored.lock().expect("one at a time").clone().expect("it was written");
            (String::from_utf8_lossy(&stored.0).into_owned(), stored.2)
        }

        fn writes(&self) -> u64 {
            *self.writes.lock().expect("one at a time")
        }
    }

    #[tokio::test]
    async fn what_is_there_already_is_not_written_again() {
        let (key, store) = (Key::new(), OneKey::default());
        let older = key.set(b"older");
        let newer = key.set(b"newer");
        store.put(&key, 1, older).await.expect("written");
        // Whoever came with the older value has brought the newer one.
        assert_eq!((store.shows(), store.writes()), (("newer".into(), 1), 1));
        store.put(&key, 1, newer).await.expect("there already");
        assert_eq!(store.writes(), 1);
        store.put(&key, 2, newer).await.expect("written");
        assert_eq!((store.shows(), store.writes()), (("newer".into(), 2), 2));
    }

    #[tokio::test]
    async fn a_key_that_somebody_else_has_written_is_taken_over() {
        let (key, store) = (Key::new(), OneKey::default());
        *store.stored.lock().expect("one at a time") = Some((Bytes::from_static(b"a former process"), 40, 1));
        let count = key.set(b"ours");
        store.put(&key, 2, count).await.expect("the second round");
        assert_eq!((store.shows(), store.writes()), (("ours".into(), 2), 2));
    }

    #[tokio::test]
    async fn one_that_changes_each_time_is_given_up() {
        let key = Key::new();
        let count = key.set(b"ours");
        let always_another = |_, replaced: Option<u64>| async move { Ok(Put::Found(Some(replaced.unwrap_or(0) + 1))) };
        assert_eq!(key.put(1, count, always_another).await, Err(StillRacing));
    }

    #[tokio::test]
    async fn nothing_is_written_before_there_is_a_value() {
        let (key, store) = (Key::new(), OneKey::default());
        store.put(&key, 1, u64::MAX).await.expect("nothing to write");
        assert_eq!((store.writes(), key.has_a_value()), (0, false));
        key.adopt(Bytes::from_static(b"a former process"));
        store.put(&key, 1, u64::MAX).await.expect("written");
        key.set(b"ours");
        key.adopt(Bytes::from_static(b"too late"));
        store.put(&key, 1, u64::MAX).await.expect("written");
        assert_eq!((store.shows(), store.writes()), (("ours".into(), 1), 2));
    }
}
