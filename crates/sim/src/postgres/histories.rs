//! The timeline history files of a directory: what decides which timeline a promotion begins, and whom a standby can follow. Not modelled:
//! that a base backup brings only the newest of them, for it brings none of the log from before either.

use std::collections::BTreeMap;

use pgherd_ha::{Lsn, Timeline};

/// A file, as far as anybody reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum History {
    /// Where its timeline begins.
    Real(Lsn),
    /// Only its name counts (`crates/agent/src/postgres/history_files.rs`).
    Placeholder,
}

#[derive(Clone, Debug, Default)]
pub struct Histories(BTreeMap<Timeline, History>);

fn after(timeline: Timeline) -> Timeline {
    Timeline(timeline.0 + 1)
}

impl Histories {
    /// PostgreSQL's `findNewestTimeLine`.
    pub fn newest_after(&self, own: Timeline) -> Timeline {
        let mut newest = own;
        while self.0.contains_key(&after(newest)) {
            newest = after(newest);
        }
        newest
    }

    pub fn begin(&mut self, timeline: Timeline, at: Lsn) {
        self.0.insert(timeline, History::Real(at));
    }

    pub fn pass_over(&mut self, own: Timeline, reserved: Timeline) {
        for number in own.0 + 1..reserved.0 {
            self.0.entry(Timeline(number)).or_insert(History::Placeholder);
        }
    }

    /// Those that no real history follows without a gap.
    pub fn remove_unused(&mut self) {
        let mut stays_after = None;
        for (timeline, history) in std::mem::take(&mut self.0).into_iter().rev() {
            if history != History::Placeholder || stays_after == Some(after(timeline)) {
                stays_after = Some(timeline);
                self.0.insert(timeline, history);
            }
        }
    }

    /// A standby whose newest history is a placeholder looks for its own checkpoint in it, for ever.
    pub fn let_start(&self, own: Timeline) -> bool {
        self.0.get(&self.newest_after(own)) != Some(&History::Placeholder) || self.newest_after(own) == own
    }

    /// A newer history that is here left this timeline before `end`: a standby that has replayed so far refuses to start (`requested timeline does
    /// not contain minimum recovery point`).
    pub fn leave_before(&self, own: Timeline, end: Lsn) -> bool {
        let newer = (own.0 + 1..=self.newest_after(own).0).map(Timeline);
        newer.filter_map(|timeline| self.0.get(&timeline)).any(|it| matches!(it, History::Real(at) if *at < end))
    }

    /// Real ones of timelines that the leader does not come from, above the directory's own.
    pub fn remove_dead_ends(&mut self, own: Timeline, lineage: &[Timeline]) {
        let stays = |timeline: &Timeline, history: &mut History| {
            *history == History::Placeholder || *timeline <= own || lineage.contains(timeline)
        };
        self.0.retain(stays);
    }

    /// What a walreceiver fetches before it streams. `false`: the sender lacks one, or what is here hides the one that matters.
    pub fn can_fetch(&self, own: Timeline, from: &Histories, theirs: Timeline) -> bool {
        let hidden = own != theirs && self.0.get(&theirs) == Some(&History::Placeholder);
        !hidden && (own.0 + 1..=theirs.0).map(Timeline).all(|it| self.0.contains_key(&it) || from.0.contains_key(&it))
    }

    pub fn fetch(&mut self, own: Timeline, from: &Histories, theirs: Timeline) {
        for timeline in (own.0 + 1..=theirs.0).map(Timeline) {
            if let Some(history) = from.0.get(&timeline) {
                self.0.entry(timeline).or_insert(*history);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: fn(u32) -> Timeline = Timeline;

    #[test]
    fn a_placeholder_is_passed_over_and_must_not_be_the_newest_at_a_start() {
        let mut own = Histories::default();
        own.pass_over(T(1), T(4));
        assert_eq!(own.newest_after(T(1)), T(3));
        assert!(!own.let_start(T(1)));
        let mut unused = own.clone();
        unused.remove_unused();
        assert!(unused.let_start(T(1)) && unused.newest_after(T(1)) == T(1));
        own.begin(T(4), Lsn(9));
        own.remove_unused();
        assert!(own.let_start(T(1)) && own.newest_after(T(1)) == T(4), "below a real one they stay");
        assert!(own.leave_before(T(1), Lsn(10)) && !own.leave_before(T(1), Lsn(9)));
    }

    #[test]
    fn a_standby_fetches_every_file_in_between() {
        let mut leader = Histories::default();
        leader.pass_over(T(1), T(3));
        leader.begin(T(3), Lsn(9));
        let mut standby = Histories::default();
        assert!(standby.can_fetch(T(1), &leader, T(3)));
        assert!(!standby.can_fetch(T(1), &Histories::default(), T(3)), "the sender lacks them");
        standby.fetch(T(1), &leader, T(3));
        assert_eq!(standby.newest_after(T(1)), T(3));
        let mut misled = Histories::default();
        misled.pass_over(T(1), T(4));
        assert!(!misled.can_fetch(T(1), &leader, T(3)), "its placeholder hides the real history");
    }
}
