//! Asking the store: finds who leads, asks again where that changes nothing, and says when the outcome of a write is unknown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::kv::{Answer, Command, Entry, LeaseId, Revision};
use crate::network::{Dialer, Peer};
use crate::types::Member;
use crate::wire::{Question, Renewal, Reply, Status};

/// Between two rounds of all members while nobody leads.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Members of which none can be reached for so long are given up: they are down, or we are cut off.
const RECONNECT: Duration = Duration::from_millis(500);

/// A member that does not answer within this time is passed over for the next.
const PATIENCE: Duration = Duration::from_millis(300);

/// A watch is answered within ten seconds.
const WATCH: Duration = Duration::from_secs(15);

/// No verdict of the store.
#[derive(Debug, thiserror::Error)]
#[error("the store: {why}")]
pub struct ClientError {
    /// A write may have been done, or be done yet.
    pub may_be_done: bool,
    why: String,
}

/// A client; clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    dialer: Dialer,
    /// As configured.
    members: Arc<[String]>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    peers: BTreeMap<String, Peer>,
    leader: Option<String>,
}

impl Client {
    /// `members`: some addresses of the store, `HOST:PORT`; the others are learned.
    pub fn new(dialer: Dialer, members: &[String]) -> Client {
        Client { dialer, members: members.into(), known: Arc::default() }
    }

    pub async fn write(&self, command: Command, until: Instant) -> Result<Answer, ClientError> {
        match self.ask_leader(|| Question::Write(command.clone()), false, until).await? {
            Reply::Written(answer) => Ok(answer),
            other => Err(nonsense(&other)),
        }
    }

    pub async fn renew(
        &self,
        lease: LeaseId,
        holds: Option<(String, Revision)>,
        until: Instant,
    ) -> Result<Renewal, ClientError> {
        match self.ask_leader(|| Question::Renew { lease, holds: holds.clone() }, true, until).await? {
            Reply::Renewed(renewal) => Ok(renewal),
            other => Err(nonsense(&other)),
        }
    }

    /// Linearizable.
    pub async fn read(&self, prefix: &str, until: Instant) -> Result<(Revision, Vec<(String, Entry)>), ClientError> {
        match self.ask_leader(|| Question::Read { prefix: prefix.to_owned() }, true, until).await? {
            Reply::Contents { revision, keys } => Ok((revision, keys)),
            other => Err(nonsense(&other)),
        }
    }

    /// Returns when something that begins so has changed since `since`, or after some seconds: the revision to go on from, and which keys; `None` if that
    /// is not known. An error is a reason to look, too.
    pub async fn watch(&self, prefix: &str, since: Revision) -> Result<(Revision, Option<Vec<String>>), ClientError> {
        let until = Instant::now() + WATCH;
        // Whoever leads has it first; who only follows would do.
        let leader = self.known().leader.clone();
        let address = leader.or_else(|| self.members.first().cloned()).unwrap_or_default();
        let question = Question::Watch { prefix: prefix.to_owned(), since };
        let asked = self.peer(&address).ask(&question, until - Instant::now()).await;
        match asked {
            Ok(Reply::Changed { revision, keys }) => Ok((revision, keys)),
            Ok(other) => Err(nonsense(&other)),
            Err(error) => {
                self.forget(&address);
                Err(ClientError { may_be_done: false, why: error.to_string() })
            }
        }
    }

    /// One more member, which runs at this address and is new; who the voters are then.
    pub async fn add(&self, address: &str, until: Instant) -> Result<Vec<Member>, ClientError> {
        self.change(|| Question::Add { address: address.to_owned() }, until).await
    }

    /// One member less; who the voters are then.
    pub async fn remove(&self, name: &str, until: Instant) -> Result<Vec<Member>, ClientError> {
        self.change(|| Question::Remove { name: name.to_owned() }, until).await
    }

    async fn change(&self, question: impl Fn() -> Question, until: Instant) -> Result<Vec<Member>, ClientError> {
        match self.ask_leader(question, false, until).await? {
            Reply::Members(members) => Ok(members),
            other => Err(nonsense(&other)),
        }
    }

    /// What one member knows.
    pub async fn status(&self, address: &str, until: Instant) -> Result<Status, ClientError> {
        let left = until.saturating_duration_since(Instant::now());
        match self.peer(address).ask(&Question::Status, left).await {
            Ok(Reply::Status(status)) => Ok(status),
            Ok(other) => Err(nonsense(&other)),
            Err(error) => Err(ClientError { may_be_done: false, why: error.to_string() }),
        }
    }

    /// `again`: it may be asked twice.
    async fn ask_leader(
        &self,
        question: impl Fn() -> Question,
        again: bool,
        until: Instant,
    ) -> Result<Reply, ClientError> {
        let mut why = "no member was reached".to_owned();
        let mut may_be_done = false;
        let asked = async {
            let mut turn = 0;
            let mut unreachable = None;
            loop {
                let address = self.next(&mut turn).await;
                let mut unanswered = Unanswered { client: self, address: &address, answered: false };
                let reply = self.peer(&address).ask(&question(), patience(again, until)).await;
                unanswered.answered = true;
                drop(unanswered);
                match reply {
                    Ok(Reply::Elsewhere { leader }) => {
                        why = format!(
                            "{address} does not lead, and {}",
                            match &leader {
                                Some(leader) => format!("names {leader}"),
                                None =>
                                    "knows of no leader: a quorum of its members must run and reach each other".into(),
                            }
                        );
                        self.known().leader = leader.map(|leader| leader.address).filter(|named| *named != address);
                        if self.known().leader.is_none() {
                            sleep(TRY_AGAIN).await;
                        }
                    }
                    Ok(Reply::NoQuorum { why: said }) => {
                        why = format!("{address}: {said}");
                        self.forget(&address);
                        if !again {
                            may_be_done = true;
                            return None;
                        }
                        sleep(TRY_AGAIN).await;
                    }
                    Ok(reply) => {
                        self.known().leader = Some(address);
                        return Some(reply);
                    }
                    Err(error) => {
                        why = error.to_string();
                        self.forget(&address);
                        if error.may_be_done && !again {
                            may_be_done = true;
                            return None;
                        }
                        let since = *unreachable.get_or_insert_with(Instant::now);
                        if since.elapsed() >= RECONNECT && turn > self.members.len() {
                            return None;
                        }
                        continue;
                    }
                }
                unreachable = None;
            }
        };
        match timeout_at(until, asked).await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(ClientError { may_be_done, why }),
            // It may have been on its way.
            Err(_) => Err(ClientError { may_be_done: !again, why: format!("no answer in time; {why}") }),
        }
    }

    /// The leader, if one is known; else each in turn.
    async fn next(&self, turn: &mut usize) -> String {
        if let Some(leader) = self.known().leader.clone() {
            return leader;
        }
        if *turn > 0 && turn.is_multiple_of(self.members.len().max(1)) {
            sleep(TRY_AGAIN).await;
        }
        let address = self.members.get(*turn % self.members.len().max(1)).cloned().unwrap_or_default();
        *turn += 1;
        address
    }

    fn peer(&self, address: &str) -> Peer {
        let mut known = self.known();
        let peer = known.peers.entry(address.to_owned());
        peer.or_insert_with(|| Peer::new(self.dialer.clone(), address.to_owned())).clone()
    }

    fn forget(&self, address: &str) {
        let mut known = self.known();
        if known.leader.as_deref() == Some(address) {
            known.leader = None;
        }
        if let Some(peer) = known.peers.get(address) {
            peer.forget_connections();
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Nothing that holds it panics half way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever is given up on in the middle of a question is not asked first the next time.
struct Unanswered<'a> {
    client: &'a Client,
    address: &'a str,
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.client.forget(self.address);
        }
    }
}

/// What can be asked twice is asked another member soon: the leader may be frozen.
fn patience(again: bool, until: Instant) -> Duration {
    let left = until.saturating_duration_since(Instant::now());
    if again { left.min(PATIENCE) } else { left }
}

fn nonsense(reply: &Reply) -> ClientError {
    let why = match reply {
        Reply::Refused { why } => why.clone(),
        // Not what it says: there may be secrets in it.
        _ => "a member answers another question".to_owned(),
    };
    ClientError { may_be_done: false, why }
}
