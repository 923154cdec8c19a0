//! The `history` key: how each timeline ended, read from the server's own history file.

use std::path::Path;

use pgherd_ha::{HistoryLine, Lsn, Timeline, Wall};

/// The lines of the file of `current`, with the time and the leader that the store knows of older ones. The newest line, if it is new to
/// the store, is this leader's. Only the `max` newest lines are kept.
pub fn merge(file: &str, known: &[HistoryLine], leader: &str, ended: Wall, max: Option<u64>) -> Vec<HistoryLine> {
    let mut lines: Vec<HistoryLine> = file.lines().filter_map(parse_line).collect();
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
        let lines = merge(FILE, &known, "n2", Wall::UNIX_EPOCH, None);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], known[0]);
        assert_eq!(lines[1].new_leader.as_deref(), Some("n2"));
        assert_eq!(lines[1].switch_lsn, Lsn(0x500_0000));
        assert_eq!(merge(FILE, &known, "n2", Wall::UNIX_EPOCH, Some(1)).len(), 1);
    }

    #[test]
    fn nonsense_is_passed_over() {
        assert_eq!(merge("x\ty\tz\n1\n\u{0}", &[], "n", Wall::UNIX_EPOCH, None), []);
    }
}
