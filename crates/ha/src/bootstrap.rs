//! A node without data, and a cluster without an identity.
//!
//! The race for a new cluster is the creation of `initialize` with an empty value. Its winner runs initdb, takes the leader key, and only
//! then starts the server: there is no writer without a permit, not even a new one. `initialize` gets the system identifier once
//! the roles are made, and only from then on do others copy.

use std::time::Duration;

use crate::action::{Action, Job, Upstream, WakeReason};
use crate::agent::{Memory, Plan, Situation, Standing};
use crate::leader;
use crate::local::{ControlFile, DataDirectory, JobOutcome, Postgres};
use crate::rule::Rule;
use crate::standby_cluster;
use crate::upstream::of_member;
use crate::view::{Member, MemberState};

/// How long an empty `initialize` may stand with no leader and nobody at work before it counts as abandoned. Long enough for a
/// member that just won the claim to register what it does.
const IDLE_CLAIM: Duration = Duration::from_secs(10);

/// The pause after a failed copy or initdb.
pub(crate) const RETRY: Duration = Duration::from_secs(5);

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
    if let Some(plan) = given_up(at) {
        return Some(plan);
    }
    match &at.local.data {
        DataDirectory::Empty => Some(without_data(at, memory)),
        // Nobody can use what is there.
        DataDirectory::Incomplete => Some(standby_cluster::made_here(at, true).unwrap_or_else(|| copy(at, true))),
        DataDirectory::Present(control) if is_leftover(at, control) => Some(copy(at, true)),
        DataDirectory::Present(control) if control.bootstrap_pending && at.settings.standby_cluster.is_some() => {
            Some(standby_cluster::made_here(at, true).unwrap_or_else(|| copy(at, true)))
        }
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
        (Standing::Mine(_) | Standing::Other(_), _) => copy(at, false),
        (Standing::Nobody, None) if at.settings.nofailover => Plan::wait(Rule::WaitForBootstrap),
        (Standing::Nobody, None) => Plan::act(Rule::ClaimBootstrap, [Action::ClaimInitialize]),
        (Standing::Nobody, Some(key)) if !key.value.is_empty() => copy(at, false),
        (Standing::Nobody, Some(_)) if at.local.claimed_initialize => {
            standby_cluster::made_here(at, false).unwrap_or_else(|| create(at))
        }
        (Standing::Nobody, Some(claim)) => claimed_by_another(at, memory, claim.version),
    }
}

fn create(at: &Situation<'_>) -> Plan {
    if at.settings.custom_bootstrap {
        return Plan::act(Rule::CustomBootstrap, [Action::Run(Job::CustomBootstrap)]);
    }
    match at.local.last(|job| *job == Job::Initdb) {
        Some(failed) if failed.outcome != JobOutcome::Done && at.now.boot < failed.at + RETRY => {
            Plan::wait(Rule::RetryLater)
        }
        _ => Plan::act(Rule::Initdb, [Action::Run(Job::Initdb)]),
    }
}

/// The user's own command has failed, or what it made did not become a cluster: nothing that would be mended by trying again. What is left of it
/// has been moved aside.
fn given_up(at: &Situation<'_>) -> Option<Plan> {
    let last = at.local.last(|job| matches!(job, Job::CustomBootstrap | Job::AbandonBootstrap))?;
    if last.job == Job::CustomBootstrap && last.outcome == JobOutcome::Done {
        return None;
    }
    let release = match at.standing {
        Standing::Mine(epoch) => Some(Action::Release { epoch }),
        Standing::Other(_) | Standing::Nobody => None,
    };
    let claim = at.view.initialize.as_ref().filter(|key| key.value.is_empty() && at.local.claimed_initialize);
    let claim = claim.map(|key| Action::RemoveClaim { version: key.version });
    let failure = "the new cluster could not be made; the log says why, and what was made of it lies beside the data directory, with `.failed` \
                   after its name. Mend the cause and start the agent again";
    let exit = Action::Exit { failure: Some(failure.into()) };
    Some(Plan::act(Rule::BootstrapFailed, release.into_iter().chain(claim).chain([exit])))
}

fn claimed_by_another(at: &Situation<'_>, memory: &mut Memory, version: i64) -> Plan {
    let at_work = at.view.members.iter().any(|member| {
        member.name != at.me()
            && matches!(
                member.state,
                MemberState::InitializingNewCluster
                    | MemberState::CreatingReplica
                    | MemberState::CustomBootstrap
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

/// A copy of the leader's data, beside whatever is there; without a leader by a method that needs none.
fn copy(at: &Situation<'_>, make_room: bool) -> Plan {
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
    match copy_source(at) {
        Some(source) => {
            let job = Job::Clone { source: Some(source), make_room, from_leader: false };
            Plan::act(Rule::CloneFromLeader, [Action::Run(job)])
        }
        None if at.settings.copies_without_leader
            && at.standing == Standing::Nobody
            && at.view.system_id().is_some() =>
        {
            let job = Job::Clone { source: None, make_room, from_leader: false };
            Plan::act(Rule::CloneWithoutLeader, [Action::Run(job)])
        }
        None => Plan::wait(Rule::WaitForLeaderToClone).wake(at.soon(Duration::from_millis(200), WakeReason::Retry)),
    }
}

/// The leader, once the cluster is announced; or one of the running members that offer themselves (`clonefrom`), so that the leader has less
/// to do. Nodes differ in which of several they take, and one that a copy has just failed from is not taken again.
pub(crate) fn copy_source(at: &Situation<'_>) -> Option<Upstream> {
    at.view.system_id()?;
    let leader = at.view.leader_member().filter(|it| it.name != at.me() && it.state == MemberState::Running)?;
    let failed = at.local.last_job.as_ref().filter(|last| last.outcome == JobOutcome::Failed);
    let has_failed = |member: &Member| matches!(failed.map(|last| &last.job), Some(Job::Clone { source: Some(source), .. }) if source.name == member.name);
    let offers = |member: &&Member| {
        member.name != at.me()
            && member.name != leader.name
            && member.state == MemberState::Running
            && member.tag("clonefrom")
            && !has_failed(member)
    };
    let offered: Vec<&Member> = at.view.members.iter().filter(offers).collect();
    let chosen = at.me().bytes().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    of_member(offered.get(chosen % offered.len().max(1)).copied().unwrap_or(leader))
}

/// initdb is done; the key, the server and the roles follow, in this order.
fn new_cluster(at: &Situation<'_>, memory: &mut Memory) -> Option<Plan> {
    match at.standing {
        Standing::Nobody => Some(Plan::act(Rule::LeadNewCluster, [Action::Acquire])),
        Standing::Other(_) => Some(Plan::wait(Rule::WaitForBootstrap)),
        Standing::Mine(epoch) => match &at.local.postgres {
            _ if !at.permitted() => Some(Plan::act(Rule::ProveLease, [Action::Renew { epoch }])),
            // It has ended by itself, before the end of its recovery: to start it again would lead to the same end.
            Postgres::Stopped if at.settings.custom_bootstrap && memory.new_cluster_started => {
                Some(Plan::act(Rule::AbandonBootstrap, [Action::Run(Job::AbandonBootstrap)]))
            }
            Postgres::Stopped => Some(match memory.may_start(at.now.boot) {
                Ok(()) => {
                    memory.new_cluster_started = true;
                    Plan::act(Rule::StartNewCluster, [leader::start_primary(at, memory, epoch)])
                }
                Err(wake) => Plan::wait(Rule::RetryLater).wake(wake),
            }),
            // A restore that is not at its end. It leaves recovery by itself.
            Postgres::Running(running) if running.in_recovery => Some(Plan::wait(Rule::WaitForRecovery)),
            Postgres::Running(_) => {
                let failed = at.local.last(|job| matches!(job, Job::PostBootstrap { .. }));
                Some(match failed {
                    // The user's command may have done half of its work, and its author knows nothing of being run twice.
                    Some(failed)
                        if failed.outcome == JobOutcome::Failed
                            && (at.settings.custom_bootstrap || at.settings.post_bootstrap) =>
                    {
                        Plan::act(Rule::AbandonBootstrap, [Action::Run(Job::AbandonBootstrap)])
                    }
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
