//! Whether a directory's history leads into the leader's: the pure half of rejoining. Source of the rules: Patroni's
//! behaviour contract, section 11, and `postgres-facts` 5 and 8.

use std::fmt;

use pgherd_ha::{Lsn, SystemId, Timeline};

/// How one timeline ended: a line of a `.history` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    pub timeline: Timeline,
    pub at: Lsn,
}

/// Where the leader is and how it came there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderLineage {
    pub system_id: SystemId,
    pub in_recovery: bool,
    pub timeline: Timeline,
    /// Flushed.
    pub position: Lsn,
    /// Oldest first.
    pub history: Vec<Switch>,
}

impl LeaderLineage {
    /// The leader's timeline and those that it came from.
    pub fn timelines(&self) -> Vec<Timeline> {
        self.history.iter().map(|switch| switch.timeline).chain([self.timeline]).collect()
    }
}

/// Where the local directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPosition {
    pub timeline: Timeline,
    pub lsn: Lsn,
    pub kind: LocalKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalKind {
    /// `lsn`: replayed.
    Standby,
    /// Stopped; `lsn`: where its last checkpoint begins.
    FormerPrimary {
        /// Where the shutdown checkpoint ends, if it stopped cleanly and that could be read.
        shutdown_checkpoint_end: Option<Lsn>,
    },
}

/// What the directory needs before it can follow the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RewindVerdict {
    /// It can follow as it is.
    NotNeeded,
    /// It has WAL that the leader has not: pg_rewind, or a new copy.
    Needed(Divergence),
    /// It has WAL that the leader has not, on the same timeline: pg_rewind would see no difference, so only a new
    /// copy helps.
    OnlyCopy(Divergence),
}

/// Why, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    OtherSystem {
        local: SystemId,
        leader: SystemId,
    },
    TimelineAhead {
        local: Timeline,
        leader: Timeline,
    },
    TimelineUnknown {
        local: Timeline,
        leader: Timeline,
    },
    PastSwitch {
        timeline: Timeline,
        local: Lsn,
        switch: Lsn,
    },
    /// A former primary that cannot show that it stopped where the new timeline begins.
    PerhapsPastSwitch {
        timeline: Timeline,
        switch: Lsn,
    },
    AheadOnSameTimeline {
        local: Lsn,
        leader: Lsn,
    },
    /// Two servers that were promoted apart have begun a timeline of the same number.
    OtherBeginning {
        timeline: Timeline,
    },
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Divergence::OtherSystem { local, leader } => {
                write!(f, "the directory belongs to the cluster {local}, the leader to {leader}")
            }
            Divergence::TimelineAhead { local, leader } => {
                write!(f, "the directory is on timeline {local}, the leader only on {leader}")
            }
            Divergence::TimelineUnknown { local, leader } => {
                write!(f, "the history of the leader's timeline {leader} does not know timeline {local}")
            }
            Divergence::PastSwitch { timeline, local, switch } => {
                write!(f, "the leader left timeline {timeline} at {switch}, the directory went on to {local}")
            }
            Divergence::PerhapsPastSwitch { timeline, switch } => {
                write!(
                    f,
                    "it was the primary of timeline {timeline} and was not stopped in order, so it may have written on after {switch}, where \
                     the leader left that timeline"
                )
            }
            Divergence::AheadOnSameTimeline { local, leader } => {
                write!(f, "the directory has WAL up to {local}, the leader only up to {leader}")
            }
            Divergence::OtherBeginning { timeline } => {
                write!(f, "the directory's timeline {timeline} has begun elsewhere than the leader's of that number")
            }
        }
    }
}

/// Compares a local position with the leader's lineage, which must have been read after it.
pub fn needs_rewind(local: &LocalPosition, local_system: SystemId, leader: &LeaderLineage) -> RewindVerdict {
    if local_system != leader.system_id {
        return RewindVerdict::OnlyCopy(Divergence::OtherSystem { local: local_system, leader: leader.system_id });
    }
    if leader.in_recovery && local.timeline >= leader.timeline {
        // A standby that is behind will catch up.
        return RewindVerdict::NotNeeded;
    }
    if local.timeline > leader.timeline {
        let divergence = Divergence::TimelineAhead { local: local.timeline, leader: leader.timeline };
        return RewindVerdict::Needed(divergence);
    }
    if local.timeline == leader.timeline {
        return match local.lsn > leader.position {
            true => {
                RewindVerdict::OnlyCopy(Divergence::AheadOnSameTimeline { local: local.lsn, leader: leader.position })
            }
            false => RewindVerdict::NotNeeded,
        };
    }
    let Some(switch) = leader.history.iter().find(|switch| switch.timeline == local.timeline) else {
        let divergence = Divergence::TimelineUnknown { local: local.timeline, leader: leader.timeline };
        return RewindVerdict::Needed(divergence);
    };
    let past = match local.kind {
        LocalKind::Standby => local.lsn > switch.at,
        // A clean stop whose last record ends where the new timeline begins is the one way for a primary to have lost
        // nothing; without proof of that it is assumed to have gone on.
        LocalKind::FormerPrimary { shutdown_checkpoint_end } => {
            local.lsn >= switch.at || shutdown_checkpoint_end != Some(switch.at)
        }
    };
    let (timeline, switch) = (local.timeline, switch.at);
    match past {
        true if local.lsn > switch => {
            RewindVerdict::Needed(Divergence::PastSwitch { timeline, local: local.lsn, switch })
        }
        true => RewindVerdict::Needed(Divergence::PerhapsPastSwitch { timeline, switch }),
        false => RewindVerdict::NotNeeded,
    }
}

/// Whether the local timeline has begun where the leader's of that number has, by the history files of the two: two clusters of one origin that
/// were promoted apart take the same numbers. Where one of the two has no such file nothing is known.
pub fn other_beginning(timeline: Timeline, local: &[Switch], leader: &LeaderLineage) -> Option<RewindVerdict> {
    let theirs: Vec<&Switch> = leader.history.iter().filter(|switch| switch.timeline < timeline).collect();
    let known = !local.is_empty() && !theirs.is_empty() && timeline <= leader.timeline;
    let ancestor = leader.timeline == timeline || leader.history.iter().any(|switch| switch.timeline == timeline);
    if !known || !ancestor || local.iter().eq(theirs) {
        return None;
    }
    let divergence = Divergence::OtherBeginning { timeline };
    // pg_rewind compares the beginnings, but not of equal numbers.
    Some(if timeline == leader.timeline {
        RewindVerdict::OnlyCopy(divergence)
    } else {
        RewindVerdict::Needed(divergence)
    })
}

/// The lines of a `.history` file, `TIMELINE <tab> LSN <tab> REASON`; a line that is not one is passed over, as
/// PostgreSQL's own comments are.
pub fn parse_history(text: &str) -> Vec<Switch> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let timeline = Timeline(fields.next()?.parse().ok()?);
            Some(Switch { timeline, at: fields.next()?.parse().ok()? })
        })
        .collect()
}

/// WAL is written in pages of this size (the build's default, which distributions keep).
const PAGE: u64 = 8192;
const PAGE_HEADER: u64 = 24;
/// The first page of a segment says more.
const SEGMENT_HEADER: u64 = 40;

/// Where a record that begins at `start` and is `length` bytes long ends, rounded up to where the next one begins:
/// page headers on the way are not counted in the length.
pub(super) fn record_end(start: Lsn, length: u32, segment_bytes: u64) -> Lsn {
    let mut position = start.0;
    let mut left = u64::from(length);
    loop {
        let room = PAGE - position % PAGE;
        if left <= room {
            return Lsn((position.saturating_add(left)).saturating_add(7) & !7);
        }
        left -= room;
        position = position.saturating_add(room);
        let is_segment = segment_bytes != 0 && position.is_multiple_of(segment_bytes);
        position = position.saturating_add(if is_segment { SEGMENT_HEADER } else { PAGE_HEADER });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: SystemId = SystemId(7);

    /// Timeline 3 now at 0/900; 1 ended at 0/300, 2 at 0/600.
    fn leader() -> LeaderLineage {
        let history = parse_history("1\t0/300\tno recovery target specified\n\n2\t0/600\tafter a crash\n# comment\n");
        LeaderLineage { system_id: SYSTEM, in_recovery: false, timeline: Timeline(3), position: Lsn(0x900), history }
    }

    #[test]
    fn verdicts() {
        enum Want {
            No,
            Rewind,
            Copy,
        }
        use Want::{Copy, No, Rewind};
        let clean = |end| LocalKind::FormerPrimary { shutdown_checkpoint_end: Some(Lsn(end)) };
        let unknown = LocalKind::FormerPrimary { shutdown_checkpoint_end: None };
        let cases = [
            // (situation, timeline, lsn, kind, want)
            ("a standby behind on the same timeline", 3, 0x700, LocalKind::Standby, No),
            ("a standby as far as the leader", 3, 0x900, LocalKind::Standby, No),
            ("a standby ahead of its leader: the leader lost WAL", 3, 0x901, LocalKind::Standby, Copy),
            ("a timeline that the leader has not reached", 4, 0x100, LocalKind::Standby, Rewind),
            ("a standby that stopped before the switch", 2, 0x500, LocalKind::Standby, No),
            ("a standby that stopped at the switch", 2, 0x600, LocalKind::Standby, No),
            ("a standby past the switch", 2, 0x601, LocalKind::Standby, Rewind),
            ("a standby two timelines back", 1, 0x300, LocalKind::Standby, No),
            ("a standby two timelines back and past", 1, 0x500, LocalKind::Standby, Rewind),
            ("a primary whose shutdown checkpoint was received", 2, 0x588, clean(0x600), No),
            ("a primary that checkpointed past the switch", 2, 0x600, clean(0x678), Rewind),
            ("a primary whose checkpoint spans the switch", 2, 0x5f0, clean(0x668), Rewind),
            ("a primary that has less than its successor: a dishonest disk", 2, 0x400, clean(0x478), Rewind),
            ("a primary whose end is not known", 2, 0x588, unknown, Rewind),
            ("a timeline from elsewhere", 0, 0x100, LocalKind::Standby, Rewind),
        ];
        for (situation, timeline, lsn, kind, want) in cases {
            let local = LocalPosition { timeline: Timeline(timeline), lsn: Lsn(lsn), kind };
            let verdict = needs_rewind(&local, SYSTEM, &leader());
            let right = match want {
                No => verdict == RewindVerdict::NotNeeded,
                Rewind => matches!(verdict, RewindVerdict::Needed(_)),
                Copy => matches!(verdict, RewindVerdict::OnlyCopy(_)),
            };
            assert!(right, "{situation}: {verdict:?}");
        }
        let local = LocalPosition { timeline: Timeline(3), lsn: Lsn(1), kind: LocalKind::Standby };
        let other = needs_rewind(&local, SystemId(8), &leader());
        assert!(matches!(other, RewindVerdict::OnlyCopy(Divergence::OtherSystem { .. })));
    }

    #[test]
    fn a_standby_that_is_behind_is_waited_for() {
        let standby = LeaderLineage { in_recovery: true, ..leader() };
        for (timeline, lsn, needed) in [(3, 0x901, false), (4, 0x100, false), (2, 0x600, false), (2, 0x601, true)] {
            let local = LocalPosition { timeline: Timeline(timeline), lsn: Lsn(lsn), kind: LocalKind::Standby };
            let verdict = needs_rewind(&local, SYSTEM, &standby);
            assert_eq!(verdict != RewindVerdict::NotNeeded, needed, "{timeline} {lsn:#x}: {verdict:?}");
        }
    }

    #[test]
    fn timelines_of_one_number_that_have_begun_apart() {
        let verdict = |timeline, history: &str| other_beginning(Timeline(timeline), &parse_history(history), &leader());
        let same = "1\t0/300\tx\n2\t0/600\ty\n";
        assert_eq!(verdict(3, same), None);
        assert_eq!(verdict(3, ""), None, "nothing is known");
        assert!(matches!(verdict(3, "1\t0/300\tx\n2\t0/610\ty\n"), Some(RewindVerdict::OnlyCopy(_))));
        assert!(matches!(verdict(3, "1\t0/300\tx\n"), Some(RewindVerdict::OnlyCopy(_))));
        assert!(matches!(verdict(2, "1\t0/310\tx\n"), Some(RewindVerdict::Needed(_))));
        assert_eq!(verdict(2, "1\t0/300\tx\n"), None);
        assert_eq!(verdict(4, "1\t0/310\tx\n"), None, "the leader is not there yet");
    }

    #[test]
    fn records_cross_pages_and_segments() {
        let segment = 16 << 20;
        for (start, length, end) in [
            (0x28, 114, 0xa0),
            (0x1f90, 112, 0x2000),
            (0x1fc0, 114, 0x2000 + 24 + 56),
            (0xff_ffc0, 114, 0x100_0000 + 40 + 56),
            (0x1ff8, 8192, 0x4000 + 24 + 16),
        ] {
            assert_eq!(record_end(Lsn(start), length, segment), Lsn(end), "{start:#x} + {length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn anything_is_survived(text in "\\PC*", start: u64, length: u32, segment: u64) {
            parse_history(&text);
            record_end(Lsn(start), length, segment);
        }
    }
}
