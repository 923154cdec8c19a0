//! The standby of a cluster of two, whose surroundings a test breaks and mends.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Instant;

use rustix::process::Signal;

use super::messages::Trouble;
use crate::harness::cluster::{Cluster, LONG, Node};
use crate::harness::eventually;

pub struct Standby {
    pub cluster: Cluster,
    pub name: String,
    /// Its configuration as the demo wrote it.
    yaml: String,
    /// How much of its log is of what was before.
    read: Cell<usize>,
}

impl Standby {
    pub fn start() -> Standby {
        let cluster = Cluster::start(2);
        let name = cluster.replicas().remove(0);
        let yaml = std::fs::read_to_string(cluster.node(&name).config).expect("its configuration");
        Standby { cluster, name, yaml, read: Cell::new(0) }
    }

    pub fn node(&self) -> Node {
        self.cluster.node(&self.name)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.node().data_dir
    }

    /// Ends its agent, and its server with it.
    pub fn stop(&self) {
        let node = self.node();
        node.agent.signal(Signal::TERM);
        node.agent.ended_within(LONG);
        self.read.set(self.cluster.log(&self.name).len());
    }

    /// Kills its agent; its server runs on.
    pub fn kill_agent(&self) {
        self.node().agent.kill();
        self.read.set(self.cluster.log(&self.name).len());
    }

    /// Starts its agent, which must wait and say why, once: the same complaint is not repeated within 30 s. `mend` makes it good, and
    /// then the agent goes on by itself.
    pub fn waits(&self, trouble: &[&Trouble], mend: impl FnOnce()) {
        self.cluster.start_agent(&self.name);
        self.complains(trouble, mend);
    }

    /// The same of an agent that runs.
    pub fn complains(&self, troubles: &[&Trouble], mend: impl FnOnce()) {
        let begun = Instant::now();
        self.says_one_of(troubles);
        mend();
        self.cluster.wait_healthy();
        let log = self.news();
        self.read.set(self.cluster.log(&self.name).len());
        for trouble in troubles {
            let lines = trouble.lines(&log);
            let allowed = usize::try_from(begun.elapsed().as_secs() / 30).expect("a small number") + 1;
            assert!(lines.len() <= allowed, "said too often: {lines:#?}");
        }
    }

    /// Waits until an agent that runs says one of these, after `order`.
    pub fn complains_after(&self, order: impl FnOnce(), troubles: &[&Trouble]) {
        self.read.set(self.cluster.log(&self.name).len());
        order();
        self.says_one_of(troubles);
    }

    fn says_one_of(&self, troubles: &[&Trouble]) {
        eventually("the agent says what is wrong", LONG, || {
            let log = self.news();
            let said = troubles.iter().map(|trouble| trouble.said_in(&log));
            said.reduce(Result::or).expect("something is to be said")
        });
    }

    /// What has been logged since it was stopped, or was last well.
    pub fn news(&self) -> String {
        self.cluster.log(&self.name)[self.read.get()..].to_owned()
    }

    /// Its configuration with something else in it, or as it was.
    pub fn configure(&self, change: impl FnOnce(&str) -> String) {
        let changed = change(&self.yaml);
        std::fs::write(self.node().config, changed).expect("a configuration");
    }

    /// As an operator does: the file is made good, and read again.
    pub fn mend_configuration(&self) {
        self.configure(str::to_owned);
        self.node().agent.signal(Signal::HUP);
    }
}
