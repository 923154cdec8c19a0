//! What the store holds: keys with versions, and leases that own keys.
//!
//! Pure: one command in, one answer out, the same on every member. Time is not here: that a lease has run out is a command, too, which the leader
//! gives ([`leases`](crate::leases)).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Counts the commands that have changed something. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revision(pub u64);

/// Chosen at random by whoever asks for the lease, so that asking twice makes one. It is also the secret that its keys are held by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

/// Any bytes. In the log and on the wire they are base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Bytes).map_err(serde::de::Error::custom)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub value: Bytes,
    /// When it came to be, since it was last absent.
    pub created: Revision,
    /// When it was last written.
    pub modified: Revision,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// All of `then`, if all of `expect` holds; else nothing.
    Write {
        expect: Vec<Condition>,
        then: Vec<Change>,
    },
    Grant {
        lease: LeaseId,
        ttl_ms: u64,
    },
    /// The end of a lease, and of its keys: asked for by its holder, or because it has run out.
    End {
        lease: LeaseId,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    Absent { key: String },
    Modified { key: String, at: Revision },
    Created { key: String, at: Revision },
    HeldBy { key: String, lease: LeaseId },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Put {
        key: String,
        value: Bytes,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<LeaseId>,
    },
    Delete {
        key: String,
    },
    /// Everything that begins so.
    DeleteAll {
        prefix: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done {
        revision: Revision,
    },
    /// A condition did not hold; nothing has changed.
    Refused,
    /// There is no such lease (any more); nothing has changed.
    NoLease,
}

/// All of it. A snapshot is this as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    revision: Revision,
    keys: BTreeMap<String, Entry>,
    /// With what each was granted, in milliseconds.
    leases: BTreeMap<LeaseId, u64>,
}

impl Contents {
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.keys.get(key)
    }

    /// All keys that begin so, in order.
    pub fn range<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Entry)> + 'a {
        self.keys.range(prefix.to_owned()..).take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// With what it was granted, in milliseconds.
    pub fn lease(&self, lease: LeaseId) -> Option<u64> {
        self.leases.get(&lease).copied()
    }

    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, u64)> + '_ {
        self.leases.iter().map(|(lease, ttl_ms)| (*lease, *ttl_ms))
    }

    /// The answer, and the keys that have changed.
    pub fn apply(&mut self, command: &Command) -> (Answer, BTreeSet<String>) {
        match command {
            Command::Write { expect, then } => self.write(expect, then),
            Command::Grant { lease, ttl_ms } => {
                // One that is there gets another time: from its next renewal on.
                self.leases.insert(*lease, *ttl_ms);
                (Answer::Done { revision: self.revision }, BTreeSet::new())
            }
            Command::End { lease } => self.end(*lease),
        }
    }

    fn write(&mut self, expect: &[Condition], then: &[Change]) -> (Answer, BTreeSet<String>) {
        if !expect.iter().all(|condition| self.holds(condition)) {
            return (Answer::Refused, BTreeSet::new());
        }
        let lives = |lease: &Option<LeaseId>| lease.is_none_or(|lease| self.leases.contains_key(&lease));
        if !then.iter().all(|change| !matches!(change, Change::Put { lease, .. } if !lives(lease))) {
            return (Answer::NoLease, BTreeSet::new());
        }
        let revision = Revision(self.revision.0 + 1);
        let mut changed = BTreeSet::new();
        for change in then {
            match change {
                Change::Put { key, value, lease } => {
                    let created = self.keys.get(key).map_or(revision, |entry| entry.created);
                    let entry = Entry { value: value.clone(), created, modified: revision, lease: *lease };
                    self.keys.insert(key.clone(), entry);
                    changed.insert(key.clone());
                }
                Change::Delete { key } => changed.extend(self.keys.remove_entry(key).map(|(key, _)| key)),
                Change::DeleteAll { prefix } => {
                    let all: Vec<String> = self.range(prefix).map(|(key, _)| key.clone()).collect();
                    changed.extend(all.into_iter().filter(|key| self.keys.remove(key).is_some()));
                }
            }
        }
        if !changed.is_empty() {
            self.revision = revision;
        }
        (Answer::Done { revision: self.revision }, changed)
    }

    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Absent { key } => !self.keys.contains_key(key),
            Condition::Modified { key, at } => self.keys.get(key).is_some_and(|entry| entry.modified == *at),
            Condition::Created { key, at } => self.keys.get(key).is_some_and(|entry| entry.created == *at),
            Condition::HeldBy { key, lease } => self.keys.get(key).is_some_and(|entry| entry.lease == Some(*lease)),
        }
    }

    fn end(&mut self, lease: LeaseId) -> (Answer, BTreeSet<String>) {
        if self.leases.remove(&lease).is_none() {
            return (Answer::NoLease, BTreeSet::new());
        }
        let held = |entry: &Entry| entry.lease == Some(lease);
        let keys: BTreeSet<String> =
            self.keys.iter().filter(|(_, entry)| held(entry)).map(|(key, _)| key.clone()).collect();
        self.keys.retain(|_, entry| !held(entry));
        if !keys.is_empty() {
            self.revision.0 += 1;
        }
        (Answer::Done { revision: self.revision }, keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: LeaseId = LeaseId(7);

    fn put(key: &str, lease: Option<LeaseId>) -> Change {
        Change::Put { key: key.into(), value: Bytes(key.as_bytes().to_vec()), lease }
    }

    fn write(contents: &mut Contents, expect: &[Condition], then: &[Change]) -> Answer {
        contents.apply(&Command::Write { expect: expect.into(), then: then.into() }).0
    }

    fn done(revision: u64) -> Answer {
        Answer::Done { revision: Revision(revision) }
    }

    #[test]
    fn a_key_is_created_once_and_replaced_by_whoever_knows_its_version() {
        let mut contents = Contents::default();
        let absent = || Condition::Absent { key: "a".into() };
        let modified = |at| Condition::Modified { key: "a".into(), at: Revision(at) };
        assert_eq!(write(&mut contents, &[absent()], &[put("a", None)]), done(1));
        assert_eq!(write(&mut contents, &[absent()], &[put("a", None)]), Answer::Refused);
        assert_eq!(write(&mut contents, &[modified(2)], &[put("a", None)]), Answer::Refused);
        assert_eq!(write(&mut contents, &[modified(1)], &[put("a", None)]), done(2));
        let entry = contents.get("a").expect("it is there");
        assert_eq!((entry.created, entry.modified), (Revision(1), Revision(2)));
        assert_eq!(write(&mut contents, &[], &[Change::Delete { key: "a".into() }]), done(3));
        assert_eq!(write(&mut contents, &[], &[Change::Delete { key: "a".into() }]), done(3), "nothing was there");
        assert_eq!(write(&mut contents, &[absent()], &[put("a", None)]), done(4), "an epoch never comes again");
    }

    #[test]
    fn a_lease_ends_with_its_keys_and_holds_none_afterwards() {
        let mut contents = Contents::default();
        assert_eq!(write(&mut contents, &[], &[put("leader", Some(LEASE))]), Answer::NoLease);
        contents.apply(&Command::Grant { lease: LEASE, ttl_ms: 3000 });
        contents.apply(&Command::Grant { lease: LEASE, ttl_ms: 9000 });
        assert_eq!(contents.lease(LEASE), Some(9000));
        assert_eq!(write(&mut contents, &[], &[put("leader", Some(LEASE)), put("other", None)]), done(1));
        let held = [Condition::HeldBy { key: "leader".into(), lease: LEASE }];
        assert_eq!(write(&mut contents, &held, &[put("leader", Some(LEASE))]), done(2));
        let (answer, changed) = contents.apply(&Command::End { lease: LEASE });
        assert_eq!((answer, changed), (done(3), BTreeSet::from(["leader".to_owned()])));
        assert_eq!(write(&mut contents, &held, &[put("leader", Some(LEASE))]), Answer::Refused);
        assert_eq!(contents.apply(&Command::End { lease: LEASE }).0, Answer::NoLease);
        assert!(contents.get("other").is_some());
    }

    #[test]
    fn a_prefix_is_read_and_deleted_whole_and_alone() {
        let mut contents = Contents::default();
        write(&mut contents, &[], &["/a", "/a/b", "/a/c", "/ab", "/b"].map(|key| put(key, None)));
        let keys = |prefix| contents.range(prefix).map(|(key, _)| key.as_str()).collect::<Vec<_>>();
        assert_eq!(keys("/a/"), ["/a/b", "/a/c"]);
        assert_eq!(keys("/c"), [""; 0]);
        let all = Change::DeleteAll { prefix: "/a/".into() };
        let (_, changed) = contents.apply(&Command::Write { expect: vec![], then: vec![all] });
        assert_eq!(changed, BTreeSet::from(["/a/b".to_owned(), "/a/c".to_owned()]));
        assert_eq!(contents.range("").count(), 3);
    }

    fn any_command(random: &mut fastrand::Rng) -> Command {
        let key = random.choice(["a", "a/b", "c"]).expect("there are some").to_owned();
        let lease = LeaseId(random.u64(0..3));
        let at = Revision(random.u64(0..20));
        let conditions = [
            Condition::Absent { key: key.clone() },
            Condition::Modified { key: key.clone(), at },
            Condition::Created { key: key.clone(), at },
            Condition::HeldBy { key: key.clone(), lease },
        ];
        let changes =
            [put(&key, None), put(&key, Some(lease)), Change::Delete { key }, Change::DeleteAll { prefix: "a".into() }];
        match random.u8(0..6) {
            0 => Command::Grant { lease, ttl_ms: 1000 },
            1 => Command::End { lease },
            _ => {
                let (few, some) = (random.usize(0..2), random.usize(0..3));
                let expect = random.choose_multiple(conditions, few);
                Command::Write { expect, then: random.choose_multiple(changes, some) }
            }
        }
    }

    #[test]
    fn whatever_is_applied_keys_have_living_leases_and_revisions_never_go_back() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let mut contents = Contents::default();
            for _ in 0..60 {
                let before = contents.clone();
                let command = any_command(&mut random);
                let (answer, changed) = contents.apply(&command);
                let is_changed = contents.keys != before.keys;
                assert!(!is_changed || !changed.is_empty(), "{command:?} changes {contents:?} unsaid");
                assert!(changed.is_empty() == (contents.revision == before.revision), "{command:?}: {changed:?}");
                if !matches!(answer, Answer::Done { .. }) {
                    assert_eq!(contents, before, "{command:?} was refused");
                }
                for (key, entry) in contents.range("") {
                    assert!(entry.created <= entry.modified && entry.modified <= contents.revision, "{key}: {entry:?}");
                    assert!(entry.lease.is_none_or(|lease| contents.lease(lease).is_some()), "{key}: {entry:?}");
                }
                let text = serde_json::to_string(&contents).expect("JSON");
                assert_eq!(serde_json::from_str::<Contents>(&text).expect("the same"), contents);
            }
        }
    }
}
