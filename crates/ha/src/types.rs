//! The units of the field as types: positions, timelines, epochs and the two clocks.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A position in the write-ahead log, in bytes. Comparable only within one lineage of timelines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

/// PostgreSQL writes positions as two hexadecimal halves, `0/3000088`.
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// The text is not two hexadecimal halves of at most 32 bits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a WAL position (expected two hexadecimal halves like 0/3000088)")]
pub struct LsnError(String);

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, LsnError> {
        let half = |part: &str| {
            let digits = !part.is_empty() && part.len() <= 8 && part.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| LsnError(text.to_owned()))
    }
}

/// A timeline of PostgreSQL; 1 after initdb, one more with each promotion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A transaction's number, which goes round: only numbers of the same time are comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Xid(pub u32);

impl Xid {
    /// Older, as PostgreSQL compares them.
    pub fn precedes(self, other: Xid) -> bool {
        self.0.wrapping_sub(other.0) > u32::MAX / 2
    }
}

/// The database system identifier that initdb chose; the same on every member of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The creation revision of a `leader` key (ZooKeeper's czxid, etcd's create_revision): it only grows, so of two
/// leaders the one with the greater epoch is the newer. Every action that needs the lease carries it as its proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// An instant on `CLOCK_BOOTTIME`, which also counts the time a machine was suspended. Leases, permits and
/// deadlines use this clock only; it means nothing on another machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(pub Duration);

impl Boot {
    pub const ZERO: Boot = Boot(Duration::ZERO);
    /// Later than any instant that will be seen; "no end".
    pub const NEVER: Boot = Boot(Duration::MAX);

    pub fn from_millis(millis: u64) -> Boot {
        Boot(Duration::from_millis(millis))
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    pub fn since(self, earlier: Boot) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Boot {
    type Output = Boot;
    fn add(self, by: Duration) -> Boot {
        Boot(self.0.saturating_add(by))
    }
}

/// Earlier by `by`; stops at the boot of the machine.
impl std::ops::Sub<Duration> for Boot {
    type Output = Boot;
    fn sub(self, by: Duration) -> Boot {
        Boot(self.0.saturating_sub(by))
    }
}

/// The wall clock, for schedules, history and logs; never for leases.
pub type Wall = jiff::Timestamp;

/// Both clocks, read together by the driver.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub boot: Boot,
    pub wall: Wall,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_as_postgresql_writes_them() {
        for (text, value) in
            [("0/0", 0), ("0/3000088", 0x300_0088), ("1A/2B", 0x1a_0000_002b), ("FFFFFFFF/FFFFFFFF", u64::MAX)]
        {
            assert_eq!(text.parse(), Ok(Lsn(value)));
            assert_eq!(Lsn(value).to_string(), text);
        }
        for text in ["", "/", "0", "0/", "/0", "g/0", "0/+1", "123456789/0", "0/0/0", " 0/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn instants_saturate() {
        assert_eq!(Boot::NEVER + Duration::from_secs(1), Boot::NEVER);
        assert_eq!(Boot::ZERO - Duration::from_secs(1), Boot::ZERO);
        assert_eq!(Boot::from_millis(5).since(Boot::from_millis(9)), Duration::ZERO);
    }
}
