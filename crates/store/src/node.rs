//! One member: the library's engine with our log and state machine, and the leases of the leader.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::error::{CheckIsLeaderError, ClientWriteError, Fatal, ForwardToLeader, RaftError};
use openraft::{ChangeMembers, Config, Raft, ServerState, SnapshotPolicy};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::Client;
use crate::kv::{Command, LeaseId, Revision};
use crate::leases::{Instant, Leases};
use crate::log::{Log, OpenError};
use crate::machine::{Changes, Machine};
use crate::network::{Dialer, Network};
use crate::types::{Member, MemberId, Types};
use crate::wire::{Question, Renewal, Reply, Status};

/// Between two heartbeats, and how long one waits for them; in milliseconds. Measured: a new leader leads after 0.26 s in the median.
const HEARTBEAT: u64 = 30;
const ELECTION: (u64, u64) = (75, 150);

/// A snapshot after so many entries; the log behind it goes.
const ENTRIES_BETWEEN_SNAPSHOTS: u64 = 2000;
const ENTRIES_KEPT: u64 = 500;

/// The quorum has so long to confirm or to take something.
const QUORUM: Duration = Duration::from_secs(2);

/// Of a command, in bytes: one that is much longer would hold up those behind it on a slow link.
const LONGEST_COMMAND: usize = 256 << 10;

/// A leader that no quorum has answered for so long, in milliseconds, takes no more commands.
const SILENT: u64 = 2_000;

/// A watch is answered after so long even if nothing has changed.
const WATCH: Duration = Duration::from_secs(10);

/// A new member has so long to catch up.
const LEARN: Duration = Duration::from_secs(30);

/// How often leases are looked at. A lease ends at most so much later than it might.
const LEASES: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the directory of the store {path}: {source}")]
    Identity { path: String, source: io::Error },
    #[error("the store's engine does not start: {0}")]
    Engine(#[from] Fatal<MemberId>),
}

/// A member; clones are the same.
#[derive(Clone)]
pub struct Node {
    raft: Raft<Types>,
    machine: Machine,
    leases: Arc<Mutex<Term>>,
    id: MemberId,
    name: String,
    dialer: Dialer,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// The leases, and for which term they count. `None`: not the leader, or not known to be one for certain.
#[derive(Debug, Default)]
struct Term {
    term: Option<u64>,
    leases: Leases,
}

/// Ends the leases that have run out, while it is there.
#[derive(Debug)]
pub struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn boot_now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Node {
    /// Takes up the member in `directory`, or makes a new one there, which belongs to no store until it is [made](Self::initialize) or added to one.
    pub async fn start(directory: &Path, name: &str, dialer: Dialer) -> Result<(Node, Keeper), StartError> {
        let mut log = Log::open(directory)?;
        let machine = Machine::open(directory, log.clone())?;
        log.wait_for_snapshots(machine.kept());
        let id = identity(directory)
            .map_err(|source| StartError::Identity { path: directory.display().to_string(), source })?;
        log.lead_no_more(id);
        let config = Config {
            cluster_name: dialer.cluster.clone(),
            heartbeat_interval: HEARTBEAT,
            election_timeout_min: ELECTION.0,
            election_timeout_max: ELECTION.1,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_BETWEEN_SNAPSHOTS),
            max_in_snapshot_log_to_keep: ENTRIES_KEPT,
            // As JSON it is four times as long, and a frame is bounded.
            snapshot_max_chunk_size: 256 << 10,
            install_snapshot_timeout: 5_000,
            ..Config::default()
        };
        let raft = Raft::new(id, Arc::new(config), Network::new(dialer.clone()), log, machine.clone()).await?;
        let node = Node { raft, machine, leases: Arc::default(), id, name: name.to_owned(), dialer };
        let keeper = Keeper(tokio::spawn(node.clone().keep_leases()));
        Ok((node, keeper))
    }

    pub fn id(&self) -> MemberId {
        self.id
    }

    /// Makes the store, of these members. To be called on one of them, once, when all of them are new.
    pub async fn initialize(&self, members: BTreeMap<MemberId, Member>) -> Result<(), String> {
        self.raft.initialize(members).await.map_err(|error| error.to_string())
    }

    pub async fn stop(&self) {
        // It has ended already, or a task of it has: that is what is wanted.
        let _ = self.raft.shutdown().await;
    }

    /// Returns when the engine has ended, which it does when the disk does not take what it writes; why.
    pub async fn ended(&self) -> String {
        let mut metrics = self.raft.metrics();
        let ended = metrics.wait_for(|now| now.running_state.is_err()).await;
        match ended.as_ref().map(|now| &now.running_state) {
            Ok(Err(why)) => why.to_string(),
            Ok(Ok(())) | Err(_) => "its engine has ended".to_owned(),
        }
    }

    /// Whoever asks has shown that they may.
    pub async fn answer(&self, question: Question) -> Reply {
        match question {
            Question::Append(to, _) | Question::Vote(to, _) | Question::Snapshot(to, _) if to != self.id => {
                Reply::Refused {
                    why: format!("this is {} with another directory than that of the member {to}", self.name),
                }
            }
            Question::Append(_, rpc) => Reply::Append(self.raft.append_entries(rpc).await),
            Question::Vote(_, rpc) => Reply::Vote(self.raft.vote(rpc).await),
            Question::Snapshot(_, rpc) => Reply::Snapshot(self.raft.install_snapshot(rpc).await),
            Question::Status => Reply::Status(self.status().await),
            Question::Write(command) => self.write(command).await,
            Question::Renew { lease, holds } => self.renew(lease, holds.as_ref()).await,
            Question::Add { address } => self.add(address).await,
            Question::Remove { name } => self.remove(&name).await,
            Question::Read { prefix } => self.read(&prefix).await,
            Question::Watch { prefix, since } => self.watch(&prefix, since).await,
        }
    }

    async fn add(&self, address: String) -> Reply {
        let client = Client::new(self.dialer.clone(), std::slice::from_ref(&address));
        let status = match client.status(&address, tokio::time::Instant::now() + QUORUM).await {
            Ok(status) => status,
            Err(error) => return Reply::Refused { why: format!("nobody to be added answers: {error}") },
        };
        if status.initialized {
            let why = format!("{} at {address} is a member of a store already", status.name);
            return Reply::Refused { why };
        }
        let membership = self.raft.metrics().borrow().membership_config.clone();
        if let Some((_, known)) = membership.nodes().find(|(id, known)| known.name == status.name && **id != status.id)
        {
            return Reply::Refused { why: format!("there is a member {known} already: remove it first") };
        }
        let member_name = status.name.clone();
        let member = Member { name: status.name, address };
        // First it learns what there is, without a vote: a voter that has nothing would only be in the way.
        match timeout(LEARN, self.raft.add_learner(status.id, member, true)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return refused(error),
            Err(_) => {
                let gone = self.raft.change_membership(ChangeMembers::RemoveNodes([status.id].into()), false).await;
                let why = format!(
                    "{} has not caught up within {} s, and was not added ({})",
                    member_name,
                    LEARN.as_secs(),
                    gone.is_ok()
                );
                return Reply::Refused { why };
            }
        }
        self.change_voters(ChangeMembers::AddVoterIds([status.id].into())).await
    }

    async fn remove(&self, name: &str) -> Reply {
        let membership = self.raft.metrics().borrow().membership_config.clone();
        let Some(id) = membership.nodes().find(|(_, member)| member.name == name).map(|(id, _)| *id) else {
            return Reply::Refused { why: format!("there is no member {name:?}") };
        };
        if membership.voter_ids().all(|voter| voter == id) {
            return Reply::Refused {
                why: format!("{name} is the only member: end the store by removing its directory"),
            };
        }
        if membership.voter_ids().any(|voter| voter == id) {
            return self.change_voters(ChangeMembers::RemoveVoters([id].into())).await;
        }
        self.change_voters(ChangeMembers::RemoveNodes([id].into())).await
    }

    async fn change_voters(&self, change: ChangeMembers<MemberId, Member>) -> Reply {
        match self.raft.change_membership(change, false).await {
            Ok(_) => Reply::Members(self.status().await.voters),
            Err(error) => refused(error),
        }
    }

    async fn write(&self, command: Command) -> Reply {
        let length = serde_json::to_vec(&command).map_or(usize::MAX, |text| text.len());
        if length > LONGEST_COMMAND {
            return Reply::Refused {
                why: format!("{length} bytes are too long for the store; {LONGEST_COMMAND} are the limit"),
            };
        }
        let (led, silent) = {
            let now = self.raft.metrics().borrow().clone();
            let alone = now.membership_config.voter_ids().count() < 2;
            (now.state == ServerState::Leader, now.millis_since_quorum_ack.filter(|silent| !alone && *silent > SILENT))
        };
        if let Some(silent) = silent.filter(|_| led) {
            // Else all that comes would be kept, for when it is over.
            return Reply::Refused { why: format!("no quorum has answered for {silent} ms; nothing was done") };
        }
        match timeout(QUORUM, self.raft.client_write(command)).await {
            Ok(Ok(written)) => match written.data {
                Some(answer) => Reply::Written(answer),
                None => Reply::Refused { why: "the engine has answered another question".into() },
            },
            // It led when it took the command, which may be carried out yet.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) if led => {
                Reply::NoQuorum { why: "it has lost the lead meanwhile".into() }
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => elsewhere(to),
            Ok(Err(error)) => Reply::NoQuorum { why: error.to_string() },
            Err(_) => Reply::NoQuorum { why: format!("no quorum has taken it within {} s", QUORUM.as_secs()) },
        }
    }

    /// A quorum has confirmed that this member led when it was asked, in which term, and has applied all of before. Else, what is to be answered.
    async fn confirm(&self) -> Result<u64, Reply> {
        let term = self.raft.metrics().borrow().current_term;
        match timeout(QUORUM, self.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(term),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => Err(elsewhere(to)),
            Ok(Err(error)) => Err(Reply::NoQuorum { why: error.to_string() }),
            Err(_) => Err(Reply::NoQuorum { why: format!("no quorum has answered within {} s", QUORUM.as_secs()) }),
        }
    }

    async fn renew(&self, lease: LeaseId, holds: Option<&(String, Revision)>) -> Reply {
        let asked = boot_now();
        let term = match self.confirm().await {
            Ok(term) => term,
            Err(reply) => return reply,
        };
        // First: what is about to be ended must not be taken for living.
        let mut known = self.term();
        let (ttl_ms, holds) = self.machine.read(|contents| {
            let held = |(key, created): &(String, Revision)| {
                contents.get(key).is_some_and(|entry| entry.created == *created && entry.lease == Some(lease))
            };
            (contents.lease(lease), holds.is_none_or(held))
        });
        let Some(ttl_ms) = ttl_ms else { return Reply::Renewed(Renewal::NoLease) };
        if known.term != Some(term) {
            // The leases of this term are not counted yet: a moment later they are.
            return Reply::NoQuorum { why: "this member has only just become the leader".into() };
        }
        known.leases.granted(lease, Duration::from_millis(ttl_ms), asked);
        if known.leases.renew(lease, asked) {
            Reply::Renewed(Renewal::Done { ttl_ms, holds })
        } else {
            Reply::Renewed(Renewal::NoLease)
        }
    }

    async fn read(&self, prefix: &str) -> Reply {
        if let Err(reply) = self.confirm().await {
            return reply;
        }
        self.machine.read(|contents| Reply::Contents {
            revision: contents.revision(),
            keys: contents.range(prefix).map(|(key, entry)| (key.clone(), entry.clone())).collect(),
        })
    }

    async fn watch(&self, prefix: &str, since: Revision) -> Reply {
        let mut revisions = self.machine.revisions();
        let changed = async {
            loop {
                let revision = *revisions.borrow_and_update();
                match self.machine.changes_since(since, prefix) {
                    Changes::Keys(keys) if keys.is_empty() => {}
                    Changes::Keys(keys) => return (revision, Some(keys.into_iter().collect())),
                    Changes::Unknown => return (revision, None),
                }
                if revisions.changed().await.is_err() {
                    return (revision, None);
                }
            }
        };
        match timeout(WATCH, changed).await {
            Ok((revision, keys)) => Reply::Changed { revision, keys },
            Err(_) => Reply::Changed { revision: since, keys: Some(Vec::new()) },
        }
    }

    pub async fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow().clone();
        let membership = &metrics.membership_config;
        let voters: Vec<MemberId> = membership.voter_ids().collect();
        let of = |is_voter: bool| {
            let some = membership.nodes().filter(|(id, _)| voters.contains(id) == is_voter);
            some.map(|(_, member)| member.clone()).collect()
        };
        let leader = metrics.current_leader;
        let silent = metrics.millis_since_quorum_ack.map(Duration::from_millis);
        Status {
            id: self.id,
            name: self.name.clone(),
            initialized: self.raft.is_initialized().await.unwrap_or(true),
            leader: membership.nodes().find(|(id, _)| Some(**id) == leader).map(|(_, member)| member.clone()),
            term: metrics.current_term,
            last: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            revision: self.machine.read(|contents| contents.revision()),
            voters: of(true),
            learners: of(false),
            quorum_silent: silent,
        }
    }

    fn term(&self) -> MutexGuard<'_, Term> {
        // Nothing that holds it panics half way through a change.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_leases(self) {
        let mut metrics = self.raft.metrics();
        let mut revisions = self.machine.revisions();
        loop {
            let (leads, term) = {
                let now = metrics.borrow_and_update();
                (now.state == ServerState::Leader, now.current_term)
            };
            if leads {
                self.lead(term).await;
            } else {
                let mut known = self.term();
                known.term = None;
                known.leases.end_term();
            }
            if wake(&mut metrics, &mut revisions).await.is_err() {
                return;
            }
        }
    }

    /// One look at the leases of a term in which this member leads, as far as it knows.
    async fn lead(&self, term: u64) {
        if self.term().term != Some(term) {
            // What a former leader has decided is applied, and nobody else leads: now the counting begins.
            match self.confirm().await {
                Ok(confirmed) if confirmed == term => {}
                _ => return,
            }
            let all = self.machine.read(|contents| contents.leases().collect::<Vec<_>>());
            let all = all.into_iter().map(|(lease, ttl_ms)| (lease, Duration::from_millis(ttl_ms)));
            let mut known = self.term();
            known.leases.begin_term(all, boot_now());
            known.term = Some(term);
        }
        let now = boot_now();
        let all = self.machine.read(|contents| contents.leases().collect::<BTreeMap<_, _>>());
        let over = {
            let mut known = self.term();
            for (lease, ttl_ms) in &all {
                known.leases.granted(*lease, Duration::from_millis(*ttl_ms), now);
            }
            known.leases.retain(|lease| all.contains_key(&lease));
            known.leases.run_out(now)
        };
        for lease in over {
            if let Reply::NoQuorum { why } = self.write(Command::End { lease }).await {
                tracing::debug!("the end of a lease that has run out could not be written: {why}");
            }
        }
    }
}

/// Until there may be something to do.
async fn wake(
    metrics: &mut watch::Receiver<openraft::RaftMetrics<MemberId, Member>>,
    revisions: &mut watch::Receiver<Revision>,
) -> Result<(), watch::error::RecvError> {
    tokio::select! {
        changed = metrics.changed() => changed,
        changed = revisions.changed() => changed,
        () = tokio::time::sleep(LEASES) => Ok(()),
    }
}

fn refused(error: RaftError<MemberId, ClientWriteError<MemberId, Member>>) -> Reply {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => elsewhere(to),
        error => Reply::Refused { why: error.to_string() },
    }
}

fn elsewhere(to: ForwardToLeader<MemberId, Member>) -> Reply {
    Reply::Elsewhere { leader: to.leader_node }
}

/// Drawn once. A member whose directory was lost is another one: it must not vote again in the name of the first.
fn identity(directory: &Path) -> io::Result<MemberId> {
    let path = directory.join("id");
    if !path.exists() && directory.join("vote").exists() {
        let why = format!("{} is gone, and other files of this member are there", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {text:?} is not a member's number", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
            let id = MemberId::from_be_bytes(bytes);
            crate::log::write_whole(&path, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}
