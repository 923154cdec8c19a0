//! A node without data, and a cluster without an identity.
//!
//! The race for a new cluster is the creation of `initialize` with an empty value. Its winner runs initdb, takes the leader key, and only
//! then starts the server: there is no writer without a permit, not even a new one. `initialize` gets the system identifier once
//! the roles are made, and only from then on do others copy.

use std::time::Duration;

use crate::action::{Action, Job, Upstream, WakeReason};
use crate::agent::{Memory, Plan, Situation, Standing};
use crate::local::{ControlFile, DataDirectory, JobOutcome, Postgres};
use crate::rule::Rule;
use crate::view::{Member, MemberState, View};

/// How long an empty `initialize` may stand with no leader and nobody at work before it counts as abandoned. Long enough for a
/// member that just won the claim to register what it does.
const IDLE_CLAIM: Duration = Duration::from_secs(10);

/// The pause after a failed copy or initdb.
const RETRY: Duration = Duration::from_secs(5);

/// The directory belongs to another cluster: never touched, and this node takes no part.
pub(crate) fn foreign_cluster(at: &Situation<'_>) -> Option<Plan> {
    let control = at.local.control()?;
    let cluster = at.view.system_id()?;
    if control.system_id == cluster || is_leftover(at, control) {
        return None;
    }
    if at.paused {
        return Some(Plan::wait(Rule::ForeignCluster));
    }
    let failure = format!(
        "the data directory has the system identifier {}, the cluster in the store has {cluster}: point data_dir to this cluster's \
         data, or scope to the other cluster, or move the directory away to have it copied anew",
        control.system_id
    );
    Some(match at.standing {
        Standing::Mine(epoch) if at.local.postgres == Postgres::Stopped && at.local.job.is_none() => {
            Plan::act(Rule::ForeignCluster, [Action::Release { epoch }])
        }
        _ => Plan::act(Rule::ForeignCluster, [Action::Exit { failure: Some(failure) }]),
    })
}

/// The situations without data, and those of a new cluster that is not yet announced.
pub(crate) fn plan(at: &Situation<'_>, memory: &mut Memory) -> Option<Plan> {
    match &at.local.data {
        DataDirectory::Empty => Some(without_data(at, memory)),
        DataDirectory::Incomplete => Some(copy(at)),
        DataDirectory::Present(control) if is_leftover(at, control) => Some(copy(at)),
        DataDirectory::Present(control) if control.bootstrap_pending => new_cluster(at, memory),
        DataDirectory::Present(_) | DataDirectory::Unusable(_) => None,
    }
}

/// An initdb of ours that never became the cluster, because another node's did.
fn is_leftover(at: &Situation<'_>, control: &ControlFile) -> bool {
    let other = at.view.system_id().is_some_and(|cluster| cluster != control.system_id);
    control.bootstrap_pending && other && at.local.postgres == Postgres::Stopped
}

fn without_data(at: &Situation<'_>, memory: &mut Memory) -> Plan {
    match (at.standing, &at.view.initialize) {
        (Standing::Mine(_) | Standing::Other(_), _) => copy(at),
        (Standing::Nobody, None) if at.settings.nofailover => Plan::wait(Rule::WaitForBootstrap),
        (Standing::Nobody, None) => Plan::act(Rule::ClaimBootstrap, [Action::ClaimInitialize]),
        (Standing::Nobody, Some(key)) if !key.value.is_empty() => Plan::wait(Rule::WaitForLeaderToClone),
        (Standing::Nobody, Some(_)) if at.local.claimed_initialize => initdb(at),
        (Standing::Nobody, Some(claim)) => claimed_by_another(at, memory, claim.version),
    }
}

fn initdb(at: &Situation<'_>) -> Plan {
    match at.local.last(|job| *job == Job::Initdb) {
        Some(failed) if failed.outcome != JobOutcome::Done && at.now.boot < failed.at + RETRY => {
            Plan::wait(Rule::RetryLater)
        }
        _ => Plan::act(Rule::Initdb, [Action::Run(Job::Initdb)]),
    }
}

fn claimed_by_another(at: &Situation<'_>, memory: &mut Memory, version: i64) -> Plan {
    let at_work = at.view.members.iter().any(|member| {
        member.name != at.me()
            && matches!(
                member.state,
                MemberState::InitializingNewCluster
                    | MemberState::Starting
                    | MemberState::Running
                    | MemberState::Unknown
            )
    });
    if at_work {
        memory.idle_claim_since = None;
        return Plan::wait(Rule::WaitForBootstrap);
    }
    let since = *memory.idle_claim_since.get_or_insert(at.now.boot);
    if at.now.boot.since(since) < IDLE_CLAIM {
        return Plan::wait(Rule::WaitForBootstrap);
    }
    memory.idle_claim_since = None;
    Plan::act(Rule::RemoveAbandonedClaim, [Action::RemoveClaim { version }])
}

/// A copy of the leader's data, beside whatever is there.
fn copy(at: &Situation<'_>) -> Plan {
    if let Standing::Mine(epoch) = at.standing {
        return match at.local.postgres {
            Postgres::Stopped => Plan::act(Rule::LeaderWithoutData, [Action::Release { epoch }]),
            _ => Plan::act(Rule::LeaderWithoutData, [Action::Fence]),
        };
    }
    let failed = at.local.last(|job| matches!(job, Job::Clone { .. })).filter(|last| last.outcome != JobOutcome::Done);
    if failed.is_some_and(|failed| at.now.boot < failed.at + RETRY) {
        return Plan::wait(Rule::RetryLater);
    }
    match copy_source(at.view, at.me()) {
        Some(source) => Plan::act(Rule::CloneFromLeader, [Action::Run(Job::Clone { source })]),
        None => Plan::wait(Rule::WaitForLeaderToClone).wake(at.soon(Duration::from_millis(200), WakeReason::Retry)),
    }
}

/// The leader, once the cluster is announced; or a running member that offers itself (`clonefrom`).
pub(crate) fn copy_source(view: &View, me: &str) -> Option<Upstream> {
    view.system_id()?;
    let leader = view.leader_member().filter(|leader| leader.name != me && leader.state == MemberState::Running)?;
    let offers = |member: &&Member| {
        member.name != me
            && member.name != leader.name
            && member.state == MemberState::Running
            && member.tag("clonefrom")
    };
    upstream(view.members.iter().find(offers).unwrap_or(leader))
}

pub(crate) fn upstream(member: &Member) -> Option<Upstream> {
    let (host, port) = member.postgres_address()?;
    Some(Upstream { name: member.name.clone(), host, port })
}

/// initdb is done; the key, the server and the roles follow, in this order.
fn new_cluster(at: &Situation<'_>, memory: &mut Memory) -> Option<Plan> {
    match at.standing {
        Standing::Nobody => Some(Plan::act(Rule::LeadNewCluster, [Action::Acquire])),
        Standing::Other(_) => Some(Plan::wait(Rule::WaitForBootstrap)),
        Standing::Mine(epoch) => match &at.local.postgres {
            _ if !at.permitted() => Some(Plan::act(Rule::ProveLease, [Action::Renew { epoch }])),
            Postgres::Stopped => Some(match memory.may_start(at.now.boot) {
                Ok(()) => Plan::act(Rule::StartNewCluster, [Action::Run(Job::StartPrimary { epoch })]),
                Err(wake) => Plan::wait(Rule::RetryLater).wake(wake),
            }),
            Postgres::Running(running) if !running.in_recovery => {
                let failed = at.local.last(|job| matches!(job, Job::PostBootstrap { .. }));
                Some(match failed {
                    Some(failed) if failed.outcome != JobOutcome::Done && at.now.boot < failed.at + RETRY => {
                        Plan::wait(Rule::RetryLater)
                    }
                    _ => Plan::act(Rule::MakeRoles, [Action::Run(Job::PostBootstrap { epoch })]),
                })
            }
            _ => None,
        },
    }
}
