//! The `history` key: how each timeline ended, read from the server's own history file.

use std::path::Path;

use pgherd_ha::{HistoryLine, Lsn, MOST_TIMELINES_AHEAD, Timeline, Wall};

/// Of a timeline that was passed over, and ends where it would have begun.
const PASSED_OVER: &str = "reserved for a promotion that came to nothing";

/// The lines of the file of `current`, with the time and the leader that the store knows of older ones. The newest line, if it is new to
/// the store, is this leader's. Only the `max` newest lines are kept.
///
/// The interface has no gaps: a reader takes the timeline after the newest line for the cluster's. So a number that was passed over gets
/// a line, too.
pub fn merge(
    file: &str,
    current: Timeline,
    known: &[HistoryLine],
    leader: &str,
    ended: Wall,
    max: Option<u64>,
) -> Vec<HistoryLine> {
    let mut lines = without_gaps(file.lines().filter_map(parse_line).collect(), current);
    let newest = lines.len().saturating_sub(1);
    for (index, line) in lines.iter_mut().enumerate() {
        let same = |old: &&HistoryLine| (old.timeline, old.switch_lsn) == (line.timeline, line.switch_lsn);
        match known.iter().find(same) {
            Some(old) if old.timestamp.is_some() => {
                line.timestamp = old.timestamp.clone();
                line.new_leader = old.new_leader.clone();
            }
            _ if index == newest => {
                line.timestamp = Some(crate::api::iso(ended));
                line.new_leader = Some(leader.to_owned());
            }
            _ => {}
        }
    }
    if let Some(max) = max.and_then(|max| usize::try_from(max).ok()) {
        lines.drain(..lines.len().saturating_sub(max));
    }
    lines
}

fn without_gaps(lines: Vec<HistoryLine>, current: Timeline) -> Vec<HistoryLine> {
    let next = lines.iter().skip(1).map(|line| line.timeline).chain([current]).collect::<Vec<_>>();
    let filled = lines.into_iter().zip(next).flat_map(|(line, next)| {
        // A greater distance is damage, and not worth a line a number.
        let gap = (line.timeline.0.saturating_add(1)..next.0).take(MOST_TIMELINES_AHEAD as usize);
        let passed_over = |timeline: u32| HistoryLine {
            timeline: Timeline(timeline),
            switch_lsn: line.switch_lsn,
            reason: PASSED_OVER.into(),
            timestamp: None,
            new_leader: None,
        };
        let passed_over: Vec<HistoryLine> = gap.map(passed_over).collect();
        [line].into_iter().chain(passed_over)
    });
    filled.collect()
}

/// The history file of `timeline`, and when it was written; timeline 1 has none.
pub fn read(data_dir: &Path, timeline: Timeline) -> std::io::Result<(String, Wall)> {
    let path = data_dir.join("pg_wal").join(format!("{:08X}.history", timeline.0));
    let text = std::fs::read_to_string(&path)?;
    let written = std::fs::metadata(&path)?.modified()?;
    Ok((text, Wall::try_from(written).unwrap_or(Wall::UNIX_EPOCH)))
}

/// `1<TAB>0/3000148<TAB>no recovery target specified`; comments and anything else are passed over.
fn parse_line(line: &str) -> Option<HistoryLine> {
    let mut fields = line.splitn(3, '\t');
    let timeline = fields.next()?.trim().parse().ok()?;
    let switch_lsn: Lsn = fields.next()?.trim().parse().ok()?;
    let reason = fields.next().unwrap_or("").trim().to_owned();
    Some(HistoryLine { timeline: Timeline(timeline), switch_lsn, reason, timestamp: None, new_leader: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t0/5000000\tno recovery target specified\n";

    #[test]
    fn the_newest_line_is_this_leaders_and_older_ones_keep_what_is_known() {
        let known = [HistoryLine {
            timeline: Timeline(1),
            switch_lsn: Lsn(0x300_0148),
            reason: "no recovery target specified".into(),
            timestamp: Some("2026-01-01T00:00:00+00:00".into()),
            new_leader: Some("n1".into()),
        }];
        let lines = merge(FILE, Timeline(3), &known, "n2", Wall::UNIX_EPOCH, None);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], known[0]);
        assert_eq!(lines[1].new_leader.as_deref(), Some("n2"));
        assert_eq!(lines[1].switch_lsn, Lsn(0x500_0000));
        assert_eq!(merge(FILE, Timeline(3), &known, "n2", Wall::UNIX_EPOCH, Some(1)).len(), 1);
    }

    #[test]
    fn a_timeline_that_was_passed_over_has_a_line() {
        let lines = merge("1\t0/300\tr\n4\t0/500\tr\n", Timeline(6), &[], "n2", Wall::UNIX_EPOCH, None);
        let told: Vec<(u32, u64, bool)> =
            lines.iter().map(|line| (line.timeline.0, line.switch_lsn.0, line.reason == PASSED_OVER)).collect();
        let expected = [(1, 0x300, false), (2, 0x300, true), (3, 0x300, true), (4, 0x500, false), (5, 0x500, true)];
        assert_eq!(told, expected);
        assert_eq!(lines[4].new_leader.as_deref(), Some("n2"), "who leads the timeline after it");
        assert!(lines[..4].iter().all(|line| line.new_leader.is_none()));
        let damaged = merge("1\t0/300\tr\n", Timeline(u32::MAX), &[], "n2", Wall::UNIX_EPOCH, None);
        assert_eq!(damaged.len(), 1 + MOST_TIMELINES_AHEAD as usize);
    }

    #[test]
    fn nonsense_is_passed_over() {
        assert_eq!(merge("x\ty\tz\n1\n\u{0}", Timeline(2), &[], "n", Wall::UNIX_EPOCH, None), []);
    }
}
