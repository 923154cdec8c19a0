//! A data directory: its log, its control file, where it is to stream from. Survives every crash.

use pgherd_ha::{ControlFile, ControlState, DataDirectory, HistoryLine, Lsn, Slot, StandbyNames, SystemId, Timeline};

use super::Histories;

/// A record of the log. Its number is its own everywhere: two records at one position differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub number: u64,
    pub timeline: Timeline,
    /// The position after it.
    pub end: Lsn,
}

#[derive(Clone, Debug)]
pub enum Data {
    Empty,
    /// A rewind was interrupted.
    Incomplete,
    Present(Directory),
}

#[derive(Clone, Debug)]
pub struct Directory {
    pub system_id: SystemId,
    pub log: Vec<Record>,
    pub timeline: Timeline,
    pub histories: Histories,
    pub state: ControlState,
    /// Where the newest checkpoint's record begins.
    pub checkpoint: Lsn,
    pub standby_signal: bool,
    pub bootstrap_pending: bool,
    /// A restored backup that recovers first and then leaves recovery by itself.
    pub restores: bool,
    /// A copy that was made without a leader and has not streamed from one yet.
    pub from_archive: bool,
    /// `primary_conninfo`: the node to stream from.
    pub upstream: Option<usize>,
    /// `synchronous_standby_names`
    pub names: StandbyNames,
    /// `max_connections` of the primary whose log this is, as the control file keeps it.
    pub limit: u64,
    /// `pg_hba.conf` lets clients in.
    pub admits_clients: bool,
    pub slots: Vec<Slot>,
}

impl Directory {
    pub fn initdb(system_id: SystemId, number: u64) -> Directory {
        let first = Record { number, timeline: Timeline(1), end: Lsn(0x100_0000) };
        Directory {
            system_id,
            log: vec![first],
            timeline: Timeline(1),
            histories: Histories::default(),
            state: ControlState::ShutDown,
            checkpoint: Lsn(0xff_ffc0),
            standby_signal: false,
            bootstrap_pending: true,
            restores: false,
            from_archive: false,
            upstream: None,
            names: StandbyNames::default(),
            limit: 0,
            admits_clients: true,
            slots: Vec::new(),
        }
    }

    pub fn end(&self) -> Lsn {
        self.position(self.log.len())
    }

    /// The position after so many records.
    pub fn position(&self, records: usize) -> Lsn {
        records.checked_sub(1).and_then(|last| self.log.get(last)).map_or(Lsn(0), |record| record.end)
    }

    pub fn append(&mut self, number: u64, bytes: u64) {
        let end = Lsn(self.end().0 + bytes);
        self.log.push(Record { number, timeline: self.timeline, end });
    }

    /// The newest records are gone, at most those of the newest timeline but its first; answers how many.
    pub fn lose(&mut self, records: usize) -> usize {
        let newest = self.log.iter().rev().take_while(|record| record.timeline == self.timeline).count();
        let lost = records.min(newest.saturating_sub(1));
        self.log.truncate(self.log.len() - lost);
        self.checkpoint = self.checkpoint.min(self.end());
        lost
    }

    /// Whether this log is a beginning of the other one. Numbers are unique, so the last record decides.
    pub fn is_prefix_of(&self, other: &Directory) -> bool {
        self.log.last().is_none_or(|last| other.log.get(self.log.len() - 1) == Some(last))
    }

    /// How many records of the beginning the two have in common.
    pub fn common(&self, other: &Directory) -> usize {
        self.log.iter().zip(&other.log).take_while(|(a, b)| a == b).count()
    }

    /// This timeline and those that it came from.
    pub fn lineage(&self) -> Vec<Timeline> {
        let mut timelines: Vec<Timeline> =
            self.log.iter().map(|record| record.timeline).chain([self.timeline]).collect();
        timelines.dedup();
        timelines
    }

    /// How each former timeline ended; one that was passed over, where it would have begun.
    pub fn history(&self) -> Vec<HistoryLine> {
        let switches = self.log.windows(2).filter(|pair| pair[0].timeline != pair[1].timeline);
        let lines = |pair: &[Record]| {
            let switch_lsn = pair[0].end;
            let line = move |timeline| HistoryLine {
                timeline: Timeline(timeline),
                switch_lsn,
                reason: "no recovery target specified".into(),
                timestamp: None,
                new_leader: None,
            };
            (pair[0].timeline.0..pair[1].timeline.0).map(line)
        };
        switches.flat_map(lines).collect()
    }
}

impl Data {
    pub fn directory(&self) -> Option<&Directory> {
        match self {
            Data::Present(directory) => Some(directory),
            Data::Empty | Data::Incomplete => None,
        }
    }

    pub fn directory_mut(&mut self) -> Option<&mut Directory> {
        match self {
            Data::Present(directory) => Some(directory),
            Data::Empty | Data::Incomplete => None,
        }
    }

    /// As `pg_controldata` and the signal files show it.
    pub fn as_seen(&self) -> DataDirectory {
        match self {
            Data::Empty => DataDirectory::Empty,
            Data::Incomplete => DataDirectory::Incomplete,
            Data::Present(directory) => DataDirectory::Present(ControlFile {
                system_id: directory.system_id,
                state: directory.state,
                timeline: directory.timeline,
                checkpoint: directory.checkpoint,
                standby_signal: directory.standby_signal,
                bootstrap_pending: directory.bootstrap_pending,
                rewindable: true,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_went_another_way_is_no_beginning() {
        let mut a = Directory::initdb(SystemId(1), 1);
        a.append(2, 100);
        let mut b = a.clone();
        assert!(a.is_prefix_of(&b));
        b.append(3, 100);
        assert!(a.is_prefix_of(&b) && !b.is_prefix_of(&a));
        a.append(4, 100);
        assert!(!a.is_prefix_of(&b) && a.end() == b.end(), "the same position, another record");
        assert_eq!(a.common(&b), 2);
    }

    #[test]
    fn the_history_tells_where_timelines_ended() {
        let mut a = Directory::initdb(SystemId(1), 1);
        let end = a.end();
        a.timeline = Timeline(3);
        a.append(2, 100);
        assert_eq!(a.history().len(), 2);
        assert_eq!((a.history()[0].timeline, a.history()[0].switch_lsn), (Timeline(1), end));
        assert_eq!((a.history()[1].timeline, a.history()[1].switch_lsn), (Timeline(2), end));
    }
}
