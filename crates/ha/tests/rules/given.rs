//! Situations to start a case from, and the words to change them with.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_ha::{
    Action, Address, Agent, Boot, ConnectedStandby, ControlFile, ControlState, DataDirectory, Divergence, Epoch,
    FailoverKey, FailsafeAnswer, FailsafeAsk, HistoryLine, Job, JobInProgress, JobOutcome, JobResult, Leader,
    LeaderOwner, Lease, Local, Lsn, Member, MemberState, Now, Peer, PeerAnswer, PeerPoll, Postgres, Remote, Role, Rule,
    Running, Settings, Slot, SlotChange, SlotKind, StandbyCluster, StandbyNames, Store, SyncKey, SyncState,
    Synchronous, SystemId, Timeline, Upstream, Verdict, Versioned, View, Wall, Watchdog,
};
use serde_json::Map;

pub const EPOCH: Epoch = Epoch(100);
const SYSTEM: SystemId = SystemId(7_123_456_789_012_345_678);

/// The whole input of a decision, at an instant that the steps move on.
#[derive(Clone)]
pub struct Given {
    pub view: View,
    pub reachable: bool,
    pub ever_loaded: bool,
    pub local: Local,
    pub settings: Settings,
    pub millis: u64,
    /// The primary that asks this node, before the decision, to agree to it in failsafe mode.
    pub asked_by: Option<&'static str>,
    /// Where that one says its slots are.
    pub slots_told: BTreeMap<String, u64>,
}

type Change = fn(&mut Given);

pub struct Case {
    name: &'static str,
    given: Given,
    steps: Vec<(Change, Rule, &'static str)>,
}

pub fn case(name: &'static str, given: Given) -> Case {
    Case { name, given, steps: Vec::new() }
}

impl Case {
    /// After `change`, `rule` decides and asks for `actions` (in the words of [`brief`], joined by commas, and `clients held` where none is
    /// sent here).
    pub fn then(mut self, change: Change, rule: Rule, actions: &'static str) -> Case {
        self.steps.push((change, rule, actions));
        self
    }

    pub fn rules(&self) -> Vec<Rule> {
        self.steps.iter().map(|(_, rule, _)| *rule).collect()
    }

    pub fn check(&self) -> Result<(), String> {
        let mut given = self.given.clone();
        let mut agent = Agent::new(given.settings.clone());
        for (index, (change, rule, actions)) in self.steps.iter().enumerate() {
            change(&mut given);
            agent.settings = given.settings.clone();
            if let Some(from) = given.asked_by.take() {
                let slots = given.slots_told.clone();
                let ask = FailsafeAsk { from: from.into(), ttl: Some(given.settings.ttl), slots };
                let answer = agent.failsafe_asked(&ask, given.now().boot);
                if answer != FailsafeAnswer::Accepted {
                    return Err(format!("{}, step {}: {from} is answered {answer:?}", self.name, index + 1));
                }
            }
            let decision = agent.decide(given.store(), &given.local, given.now());
            let held = (!decision.admits).then(|| "clients held".to_owned());
            let found = decision.actions.iter().map(brief).chain(held).collect::<Vec<_>>().join(", ");
            if (decision.rule, found.as_str()) != (*rule, *actions) {
                return Err(format!(
                    "{}, step {}:\n  expected {} [{actions}]\n  found    {} [{found}]",
                    self.name,
                    index + 1,
                    rule.name(),
                    decision.rule.name()
                ));
            }
            if decision.wake.at <= given.now().boot {
                return Err(format!("{}, step {}: wakes in the past: {:?}", self.name, index + 1, decision.wake));
            }
        }
        Ok(())
    }
}

/// An action in a few words; what a case does not care about is left out.
fn brief(action: &Action) -> String {
    match action {
        Action::Run(Job::Clone { source, make_room, from_leader }) => {
            let source = source.as_ref().map_or("nobody", |source| &source.name);
            let room = if *make_room { " in the room of ours" } else { "" };
            format!("clone {source}{room}{}", if *from_leader { " by base backup" } else { "" })
        }
        Action::Run(Job::Rewind { source }) => format!("rewind from {}", source.name),
        Action::Run(Job::CheckDivergence { leader, .. }) => format!("compare with {}", leader.name),
        Action::Run(Job::StartStandby { upstream: Some(upstream) }) => format!("start standby of {}", upstream.name),
        Action::Run(Job::StartStandby { upstream: None }) => "start standby".into(),
        Action::Run(Job::Stop(mode)) => format!("stop {mode:?}").to_lowercase(),
        Action::Run(Job::Restart { epoch, .. }) => if epoch.is_some() { "restart primary" } else { "restart" }.into(),
        Action::Run(Job::StartPrimary { names: Some(names), .. }) => {
            format!("start as primary waiting for `{}`", names.text())
        }
        Action::Run(Job::Promote { timeline, names, slots, unproven, .. }) => {
            let promote = match names {
                Some(names) => format!("promote to {timeline} waiting for `{}`", names.text()),
                None => format!("promote to {timeline}"),
            };
            let changed = (!slots.is_empty()).then(|| changed(slots));
            let unproven = (!unproven.is_empty()).then(|| format!("warn of {}", unproven.join("+")));
            [promote].into_iter().chain(changed).chain(unproven).collect::<Vec<_>>().join(", ")
        }
        Action::Run(Job::CopySlots { source, slots }) => {
            format!("copy slots {} of {}", slots.keys().cloned().collect::<Vec<_>>().join("+"), source.name)
        }
        Action::Run(job) => job.name().into(),
        Action::Follow { upstream: Some(upstream) } => format!("follow {}", upstream.name),
        Action::Follow { upstream: None } => "follow nobody".into(),
        Action::PollPeers { names } => format!("ask {}", names.join("+")),
        Action::ChangeSlots { changes } => changed(changes),
        Action::AskLeaderSlots { leader, names, .. } => format!("ask {} of {}", leader.name, names.join("+")),
        Action::Exit { failure } => if failure.is_some() { "exit with an error" } else { "exit" }.into(),
        Action::RefuseRequest { .. } => "refuse".into(),
        Action::ClaimInitialize => "claim".into(),
        Action::RemoveClaim { .. } => "remove claim".into(),
        Action::WriteInitialize { .. } => "write initialize".into(),
        Action::WriteConfig { .. } => "write config".into(),
        Action::Acquire => "acquire".into(),
        Action::Renew { .. } => "renew".into(),
        Action::Release { .. } => "release".into(),
        Action::WriteStatus { .. } => "write status".into(),
        Action::WriteHistory { .. } => "write history".into(),
        Action::WriteSync { key, .. } => {
            let leader = key.leader.as_deref().unwrap_or("nobody");
            format!("sync {leader}/{}/{}", key.quorum, key.sync_standby.join("+"))
        }
        Action::SetStandbyNames { names: Some(names), .. } => format!("names `{}`", names.text()),
        Action::SetStandbyNames { names: None, .. } => "names of the user".into(),
        Action::AdmitClients => "admit".into(),
        Action::ReserveTimeline { timeline, version: None, .. } => format!("reserve {timeline}"),
        Action::ReserveTimeline { timeline, version: Some(version), .. } => {
            format!("reserve {timeline} over version {version}")
        }
        Action::WriteFailsafe { members, .. } => format!("list {}", joined(members)),
        Action::AskFailsafe { members, .. } => format!("may this go on: {}", joined(members)),
        Action::ClearFailover { .. } => "clear request".into(),
        Action::Checkpoint => "checkpoint".into(),
        Action::Guard => "guard".into(),
        Action::ArmWatchdog { .. } => "arm watchdog".into(),
        Action::DisarmWatchdog => "disarm watchdog".into(),
        Action::Fence => "fence".into(),
        Action::CutOff => "cut off".into(),
    }
}

/// Slots that are made by their names; of others what is done with them.
fn changed(changes: &[SlotChange]) -> String {
    let made = |change: &SlotChange| matches!(change, SlotChange::Create { kind: SlotKind::Physical, .. });
    let made: Vec<&str> = changes.iter().filter(|change| made(change)).map(SlotChange::name).collect();
    let made = (!made.is_empty()).then(|| format!("slots {}", made.join("+")));
    let others = changes.iter().filter_map(|change| match change {
        SlotChange::Create { kind: SlotKind::Physical, .. } => None,
        SlotChange::Create { name, .. } => Some(format!("logical slot {name}")),
        SlotChange::Drop { name, .. } => Some(format!("drop slot {name}")),
        SlotChange::Advance { name, to, .. } => Some(format!("slot {name} to {}", to.0)),
    });
    made.into_iter().chain(others).collect::<Vec<_>>().join(", ")
}

/// A slot that nobody uses, as new as can be.
pub fn physical(name: &str) -> Slot {
    Slot {
        name: name.into(),
        kind: SlotKind::Physical,
        active: false,
        temporary: false,
        restart: Some(Lsn(900)),
        confirmed: None,
        has_xmin: false,
        catalog_xmin: None,
        lost: false,
        failover: false,
        synced: false,
        broken: false,
    }
}

fn joined(members: &BTreeMap<String, String>) -> String {
    members.keys().cloned().collect::<Vec<_>>().join("+")
}

impl Given {
    pub fn now(&self) -> Now {
        let boot = Boot::from_millis(self.millis);
        let millis = i64::try_from(self.millis).expect("a case lasts minutes");
        Now { boot, wall: Wall::from_millisecond(1_700_000_000_000 + millis).expect("a time of this century") }
    }

    pub fn store(&self) -> Store<'_> {
        match (self.reachable, self.ever_loaded) {
            (true, _) => Store::Reachable(&self.view),
            (false, loaded) => Store::Unreachable { last: loaded.then_some(&self.view) },
        }
    }

    pub fn pass(&mut self, millis: u64) {
        self.millis += millis;
    }

    pub fn control(&mut self) -> &mut ControlFile {
        match &mut self.local.data {
            DataDirectory::Present(control) => control,
            other => panic!("this case has no control file but {other:?}"),
        }
    }

    pub fn running(&mut self) -> &mut Running {
        match &mut self.local.postgres {
            Postgres::Running(running) => running,
            other => panic!("in this case the server is {other:?}"),
        }
    }

    pub fn pause(&mut self) {
        let config = Map::from_iter([("pause".to_owned(), true.into())]);
        self.view.config = Some(Versioned { value: config, version: 1 });
    }

    /// A request in the `failover` key.
    pub fn ask_for(&mut self, leader: Option<&str>, member: Option<&str>) {
        let value = FailoverKey { leader: leader.map(Into::into), member: member.map(Into::into), scheduled_at: None };
        self.view.failover = Some(Versioned { value, version: 3 });
    }

    pub fn schedule(&mut self, seconds: i64) {
        let due = self.now().wall + jiff::SignedDuration::from_secs(seconds);
        self.view.failover.as_mut().expect("a request").value.scheduled_at = Some(due);
    }

    /// The peers answer a poll that was asked now.
    pub fn answers(&mut self, answers: &[(&str, u64)]) {
        let peer = |(name, position): &(&str, u64)| Peer { name: (*name).into(), answer: Some(standby_at(*position)) };
        self.local.peers = Some(PeerPoll { asked: self.now().boot, peers: answers.iter().map(peer).collect() });
    }

    pub fn peer(&mut self) -> &mut PeerAnswer {
        self.local.peers.as_mut().and_then(|poll| poll.peers[0].answer.as_mut()).expect("an answer")
    }

    /// This cluster follows another one.
    pub fn follows(&mut self, other: Option<Upstream>) {
        self.settings.standby_cluster = Some(StandbyCluster { upstream: other });
    }

    /// A member has this tag.
    pub fn tag(&mut self, name: &str, tag: &str, value: serde_json::Value) {
        let member = self.view.members.iter_mut().find(|member| member.name == name).expect("a member");
        member.tags.insert(tag.into(), value);
    }

    /// Synchronous mode is on, and the key says who leads and who may take over.
    pub fn synchronous(&mut self, quorum: bool, leader: &str, needed: u32, voters: &[&str]) {
        self.settings.synchronous = Some(Synchronous { quorum, strict: false, node_count: 1, maximum_lag: None });
        self.sync_key(leader, needed, voters);
    }

    pub fn sync_key(&mut self, leader: &str, quorum: u32, voters: &[&str]) {
        let sync_standby = voters.iter().map(|name| (*name).to_owned()).collect();
        let value = SyncKey { leader: Some(leader.into()), quorum, sync_standby };
        self.view.sync = Some(Versioned { value, version: 5 });
    }

    /// These stream from here and have flushed so much; those that the names list know it.
    pub fn standbys(&mut self, standbys: &[(&str, u64)]) {
        let names = StandbyNames::parse(&self.running().synchronous_standby_names).unwrap_or_default();
        let row = |(name, flushed): &(&str, u64)| ConnectedStandby {
            name: (*name).into(),
            streaming: true,
            flushed: Lsn(*flushed),
            sync_state: if names.contains(name) { SyncState::Sync } else { SyncState::Async },
            listed: names.contains(name),
        };
        self.running().standbys = standbys.iter().map(row).collect();
    }

    /// `synchronous_standby_names` is in force.
    pub fn names(&mut self, text: &str) {
        self.running().synchronous_standby_names = text.into();
        let standbys: Vec<(String, u64)> =
            self.running().standbys.iter().map(|standby| (standby.name.clone(), standby.flushed.0)).collect();
        self.standbys(&standbys.iter().map(|(name, flushed)| (name.as_str(), *flushed)).collect::<Vec<_>>());
    }

    pub fn job(&mut self, job: Job) {
        self.local.job = Some(JobInProgress { job, since: self.now().boot });
    }

    pub fn ended(&mut self, job: Job, outcome: JobOutcome) {
        self.local.job = None;
        self.local.last_job = Some(JobResult { job, at: self.now().boot, outcome });
    }

    pub fn compared(&mut self, verdict: Verdict) {
        self.local.divergence = Some(Divergence { epoch: EPOCH, verdict, at: self.now().boot });
    }

    pub fn lose_leader(&mut self) {
        self.view.leader = None;
        self.view.members.retain(|member| member.name != "n2");
        self.local.lease = None;
    }

    pub fn led_by(&mut self, name: &str) {
        let owner = if name == "n1" { LeaderOwner::Me } else { LeaderOwner::Other };
        self.view.leader = Some(Leader { name: name.into(), epoch: EPOCH, owner });
        self.local.lease = (name == "n1").then(|| lease(self.millis));
    }

    pub fn renew(&mut self) {
        self.local.lease = Some(lease(self.millis));
    }

    pub fn stop_server(&mut self, state: ControlState) {
        self.local.postgres = Postgres::Stopped;
        self.control().state = state;
    }

    /// The server was stopped as a standby.
    pub fn stop_standby(&mut self) {
        self.stop_server(ControlState::ShutDownInRecovery);
        self.control().standby_signal = true;
    }
}

fn lease(millis: u64) -> Lease {
    Lease { epoch: EPOCH, sent: Boot::from_millis(millis), granted: Duration::from_secs(8), tick: None }
}

pub fn upstream(name: &str) -> Upstream {
    Upstream { name: name.into(), addresses: vec![Address::new(name, 5432)], remote: None }
}

/// The cluster that a standby cluster follows.
pub fn other_cluster() -> Upstream {
    Upstream { name: "the other".into(), addresses: vec![Address::new("east", 5432)], remote: Some(Remote::default()) }
}

pub fn clone_of(name: &str) -> Job {
    Job::Clone { source: Some(upstream(name)), make_room: false, from_leader: false }
}

fn standby_at(position: u64) -> PeerAnswer {
    PeerAnswer {
        in_recovery: true,
        position: Lsn(position),
        timeline: Some(Timeline(1)),
        nofailover: false,
        failover_priority: 1,
        watchdog_failed: false,
        settled: true,
    }
}

fn member(name: &str, role: Role) -> Member {
    Member {
        name: name.into(),
        conn_url: format!("postgres://{name}:5432/postgres"),
        api_url: format!("http://{name}:8008/patroni"),
        state: MemberState::Running,
        role,
        version: "4.1.4".into(),
        pgherd: Some("0.1.0".into()),
        tags: Map::new(),
        xlog_location: Some(Lsn(1000)),
        replay_lsn: None,
        receive_lsn: None,
        replication_state: None,
        timeline: Some(Timeline(1)),
        checkpoint_after_promote: None,
        pending_restart: false,
        pause: false,
        extra: Map::new(),
    }
}

/// Three members, n1 is this one, n2 leads, all stream. 100 s after the machine's start.
pub fn replica() -> Given {
    let view = View {
        initialize: Some(Versioned { value: SYSTEM.to_string(), version: 1 }),
        config: Some(Versioned { value: Map::new(), version: 0 }),
        leader: Some(Leader { name: "n2".into(), epoch: EPOCH, owner: LeaderOwner::Other }),
        members: vec![member("n1", Role::Replica), member("n2", Role::Primary), member("n3", Role::Replica)],
        status: pgherd_ha::Status { optime: Lsn(1000), ..Default::default() },
        ..View::default()
    };
    let control = ControlFile {
        system_id: SYSTEM,
        state: ControlState::InArchiveRecovery,
        timeline: Timeline(1),
        checkpoint: Lsn(900),
        standby_signal: true,
        bootstrap_pending: false,
        rewindable: true,
    };
    let running = Running {
        in_recovery: true,
        restores: false,
        timeline: Timeline(1),
        newest_history: Timeline(1),
        position: Lsn(1000),
        streaming: true,
        settled: false,
        checkpointed: true,
        synchronous_standby_names: String::new(),
        starved: false,
        checkpointer_listens: true,
        standbys: Vec::new(),
        replayed: Lsn(1000),
        slots: vec![physical("n2"), physical("n3")],
    };
    let local = Local {
        data: DataDirectory::Present(control),
        postgres: Postgres::Running(running),
        job: None,
        last_job: None,
        lease: None,
        claimed_initialize: false,
        guarded: true,
        watchdog: Watchdog::Unused,
        disk_stuck: false,
        following: Some(upstream("n2")),
        peers: None,
        failsafe: None,
        divergence: Some(Divergence { epoch: EPOCH, verdict: Verdict::Same, at: Boot::from_millis(100_000) }),
        request: None,
        stopping: false,
        manages_standby_names: false,
        limits: BTreeMap::new(),
        last_slots: BTreeMap::new(),
        leader_slots: None,
        admits_clients: true,
    };
    let settings = Settings {
        name: "n1".into(),
        loop_wait: Duration::from_secs(1),
        retry_timeout: Duration::from_secs(3),
        ttl: Duration::from_secs(8),
        maximum_lag_on_failover: 1_048_576,
        primary_start_timeout: Duration::from_secs(300),
        check_timeline: false,
        nofailover: false,
        failover_priority: 1,
        use_pg_rewind: true,
        remove_on_rewind_failure: false,
        remove_on_diverged: false,
        use_slots: true,
        synchronous: None,
        failsafe_mode: false,
        pre_promote: false,
        custom_bootstrap: false,
        post_bootstrap: false,
        copies_without_leader: false,
        member_slots_ttl: Duration::from_secs(1800),
        standby_cluster: None,
        replicatefrom: None,
        nostream: false,
        permanent_slots: BTreeMap::new(),
        ignore_slots: Vec::new(),
        primary_stop_timeout: None,
        primary_race_backoff: Duration::ZERO,
    };
    Given {
        view,
        reachable: true,
        ever_loaded: true,
        local,
        settings,
        millis: 100_000,
        asked_by: None,
        slots_told: BTreeMap::new(),
    }
}

/// The same, and n1 leads with a lease of now.
pub fn primary() -> Given {
    let mut given = replica();
    given.led_by("n1");
    given.view.members[0].role = Role::Primary;
    given.view.members[1].role = Role::Replica;
    given.local.following = None;
    given.local.divergence = None;
    given.running().in_recovery = false;
    given.running().slots.clear();
    given.control().state = ControlState::InProduction;
    given.control().standby_signal = false;
    given
}

/// The same as [`replica`], after n2 was lost with its keys and this standby has settled.
pub fn leaderless() -> Given {
    let mut given = replica();
    given.lose_leader();
    given.local.following = None;
    given.running().settled = true;
    given.running().streaming = false;
    given
}

/// A node without data in a store without keys.
pub fn blank() -> Given {
    let mut given = replica();
    given.view = View { members: given.view.members.split_off(2), ..View::default() };
    given.view.members[0].state = MemberState::Stopped;
    given.local.data = DataDirectory::Empty;
    given.local.postgres = Postgres::Stopped;
    given.local.following = None;
    given.local.divergence = None;
    given
}

/// `initialize` while somebody bootstraps.
pub fn claim() -> Option<Versioned<String>> {
    Some(Versioned { value: String::new(), version: 0 })
}

/// The same as [`primary`], but this cluster follows another one, and n1 is its standby leader.
pub fn standby_leader() -> Given {
    let mut given = replica();
    given.follows(Some(other_cluster()));
    given.led_by("n1");
    given.view.members[0].role = Role::StandbyLeader;
    given.view.members[1].role = Role::Replica;
    given.local.following = Some(other_cluster());
    given.running().slots.clear();
    given
}

/// A change that changes nothing.
pub fn as_given(_: &mut Given) {}

/// How a timeline ended.
pub fn ended(timeline: u32) -> HistoryLine {
    HistoryLine {
        timeline: Timeline(timeline),
        switch_lsn: Lsn(500),
        reason: "no recovery target specified".into(),
        timestamp: None,
        new_leader: None,
    }
}
