//! What a member shows of itself in the store and at its REST API, in Patroni's words.

use crate::action::Job;
use crate::local::{DataDirectory, JobOutcome, Local, Postgres};
use crate::view::{MemberState, Role};

impl Local {
    pub fn member_state(&self) -> MemberState {
        match self.job.as_ref().map(|job| &job.job) {
            Some(Job::Initdb | Job::PostBootstrap { .. }) => return MemberState::InitializingNewCluster,
            Some(Job::CustomBootstrap) => return MemberState::CustomBootstrap,
            Some(Job::Clone { .. }) => return MemberState::CreatingReplica,
            Some(Job::Restart { .. } | Job::CopySlots { .. }) => return MemberState::Restarting,
            Some(Job::Stop(_) | Job::AbandonBootstrap) => return MemberState::Stopping,
            Some(Job::StartPrimary { .. } | Job::StartStandby { .. }) => return MemberState::Starting,
            Some(Job::Rewind { .. }) => return MemberState::Stopped,
            Some(Job::PrePromote { .. } | Job::Promote { .. } | Job::CheckDivergence { .. }) | None => {}
        }
        match &self.postgres {
            Postgres::Running(_) | Postgres::Silent { .. } => MemberState::Running,
            Postgres::Starting { .. } => MemberState::Starting,
            Postgres::Orphans => MemberState::Crashed,
            Postgres::Stopped => self.stopped_state(),
        }
    }

    fn stopped_state(&self) -> MemberState {
        let Some(last) = &self.last_job else { return MemberState::Stopped };
        match (&last.job, last.outcome) {
            (Job::Initdb | Job::PostBootstrap { .. }, JobOutcome::Failed) => MemberState::InitdbFailed,
            (Job::CustomBootstrap, JobOutcome::Failed) => MemberState::CustomBootstrapFailed,
            (Job::StartPrimary { .. } | Job::StartStandby { .. }, JobOutcome::Failed) => MemberState::StartFailed,
            (Job::Restart { .. } | Job::CopySlots { .. }, JobOutcome::Failed) => MemberState::RestartFailed,
            (Job::Stop(_), JobOutcome::Failed) => MemberState::StopFailed,
            (Job::StartPrimary { .. } | Job::StartStandby { .. } | Job::Promote { .. }, JobOutcome::Done) => {
                MemberState::Crashed
            }
            _ => MemberState::Stopped,
        }
    }

    /// State and role as they are shown. In pause nobody is to start a server, so one that is down has not crashed, and is what it was.
    pub fn shown(&self, paused: bool, standby_leader: bool) -> (MemberState, Role) {
        let (state, role) = (self.member_state(), self.role(standby_leader));
        let stopped_by_us = self.last_job.as_ref().is_some_and(|last| matches!(last.job, Job::Stop(_)));
        if !paused || self.postgres != Postgres::Stopped || self.job.is_some() || stopped_by_us {
            return (state, role);
        }
        let state = if state == MemberState::Crashed { MemberState::Stopped } else { state };
        (state, if role == Role::Demoted { Role::Primary } else { role })
    }

    /// `standby_leader`: it leads a standby cluster.
    pub fn role(&self, standby_leader: bool) -> Role {
        match (&self.data, &self.job) {
            (_, Some(job)) if matches!(job.job, Job::Promote { .. }) => Role::Promoted,
            (DataDirectory::Empty | DataDirectory::Incomplete, _) => Role::Uninitialized,
            _ if self.is_writer() => Role::Primary,
            (DataDirectory::Present(control), _) if self.postgres == Postgres::Stopped && control.was_primary() => {
                Role::Demoted
            }
            _ if standby_leader => Role::StandbyLeader,
            _ => Role::Replica,
        }
    }
}
