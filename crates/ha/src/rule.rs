//! The named rules: every decision is one of them. A rule's sentence goes to the log, the history and the documentation.

macro_rules! rules {
    ($($name:ident $text:literal;)*) => {
        /// Why a decision is as it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $($name),* }

        impl Rule {
            pub const ALL: &'static [Rule] = &[$(Rule::$name),*];

            /// What was seen and what follows, in one sentence.
            pub fn sentence(self) -> &'static str {
                match self { $(Rule::$name => $text),* }
            }

            /// The rule's name as logs and metrics show it.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$name => stringify!($name)),* }
            }
        }
    };
}

rules! {
    // The directory and the cluster's identity.
    UnusableDirectory "the data directory cannot be used and is left untouched";
    ForeignCluster "the data directory belongs to another cluster than the store's and is left untouched";
    // Bootstrap.
    ClaimBootstrap "there is no cluster and no claim to make one: claiming it";
    Initdb "this node claimed the bootstrap: creating the new cluster";
    CustomBootstrap "this node claimed the bootstrap: creating the new cluster by the configured method";
    WaitForRecovery "the new cluster's server is still in recovery: waiting for its end";
    AbandonBootstrap "the new cluster could not be completed: moving it aside";
    BootstrapFailed "the new cluster could not be made and was moved aside: giving up the claim and ending";
    LeadNewCluster "the new cluster's directory is ready: taking the leader key before its server starts";
    StartNewCluster "this node leads the new cluster: starting its server";
    MakeRoles "the new cluster's server runs: making its roles";
    AnnounceCluster "the new cluster is complete: writing its identifier and configuration";
    WaitForBootstrap "another node creates the cluster: waiting for it";
    RemoveAbandonedClaim "whoever claimed the bootstrap is gone: removing the claim";
    CloneFromLeader "the data directory is empty: copying the leader's";
    CloneWithoutLeader "the data directory is empty and there is no leader: making a replica by a method that needs none";
    WaitForLeaderToClone "the data directory is empty and no leader can be copied: waiting";
    CloneRemote "this node claimed the bootstrap of a standby cluster: copying the data of the cluster that it follows";
    NothingToClone "a standby cluster is to be made and standby_cluster names no host whose data could be copied: waiting";
    LeaderWithoutData "this node holds the leader key and has no data: releasing the key";
    // Leading.
    Lead "this node leads";
    LeadWithoutStore "the store is not reachable and the permit still holds: going on as primary";
    ProveLease "the leader key is ours but no renewal proves it yet: proving it";
    WaitForGuard "the server has no guard: giving it one before it may lead";
    GiveKeyBack "this node must not lead under the key that it took: giving it back";
    NoGuard "the server cannot be given a guard: it must not lead without";
    WatchdogFailed "the watchdog that is required does not work: this node must not lead";
    PermitOver "the permit is over: no writer may be left";
    StopBeforePermitEnds "the lease could not be renewed and the permit is about to end: stopping the primary in order";
    PrePromote "this node holds the leader key: running pre_promote before the promotion";
    PrePromoteFailed "pre_promote has failed: releasing the leader key";
    PrePromoteCutOff "pre_promote still runs and its time is over, or there is nothing any more to promote: ending it";
    Promote "this node holds the leader key: promoting";
    Promoting "the promotion is under way";
    RestartCrashedPrimary "the primary's server is down and the key is ours: starting it again";
    FailOverAfterCrash "the primary has crashed, another node can lead and primary_start_timeout is 0: giving up the key";
    StartStandbyToPromote "the key is ours and the directory is a standby's: starting it as a standby first";
    PrimaryStarting "the primary's server is starting";
    PrimaryStartTimeout "the primary's server did not start in time and another node can lead: giving up the key";
    PrimaryStopTimeout "the primary did not stop within primary_stop_timeout: stopping it as in a crash";
    PrimarySilent "the primary's server has not answered for too long and another node can lead: giving up the key";
    StopHangs "the server was told to stop in order and has not: killing it";
    DiskStuck "no write to the data directory has reached the disk for a whole lease and another node can lead: giving up the key";
    PrimaryStartFailed "the primary's server could not be started: giving up the key";
    HoldClients "this node leads; its clients wait until the synchronous standbys have what it would show them";
    AdmitClients "clients were kept out and need not be any more: letting them in";
    // A standby cluster.
    StandbyLead "this node leads the standby cluster: following the cluster that it is a copy of";
    StartStandbyLeader "the standby leader's server is down: starting it as a standby of the other cluster";
    DemoteCluster "this cluster is to follow another one and this server is a primary: stopping it in order";
    // Synchronous replication.
    SyncBegin "synchronous mode is on: writing to the store that this primary alone has everything so far";
    SyncKeyBefore "the synchronous standbys change: writing to the store what holds before and after";
    SyncNames "the synchronous standbys change: telling the server whom its commits wait for";
    SyncKeyAfter "the synchronous standbys have what was acknowledged: writing to the store who may take over";
    SyncClaim "this node is to be promoted: writing to the store that it leads the synchronous standbys";
    SyncOff "synchronous mode is off: removing its key before commits stop waiting";
    SyncNamesOff "synchronous mode is off: commits wait for whom the configuration names";
    LeaveSync "this standby is to stop: waiting until commits do not wait for it";
    // Switchover.
    SwitchoverDone "the requested change of leader has been made: clearing the request";
    SwitchoverRefused "the requested switchover is not possible: clearing the request";
    SwitchoverAskCandidates "a switchover was requested: asking the candidates where they are";
    SwitchoverStop "a switchover was requested and a candidate is ready: stopping the primary in order";
    HandOverWait "the primary is stopped: waiting for a candidate to hold its last record";
    HandOver "a candidate holds the stopped primary's last record: releasing the leader key";
    LeaveKey "the agent stops and its server is down, no candidate is known to hold the last record: releasing the leader key";
    HandOverFailed "no candidate got the stopped primary's last record: starting the primary again";
    // Following.
    Follow "following the leader";
    ChangeUpstream "this node is to follow another server than before: changing over";
    CheckHistory "comparing this node's history with the leader's";
    Rewind "this node's history has left the leader's: rewinding";
    RewindWait "this node's history has left the leader's, whose checkpoint after the promotion is not done yet: waiting to rewind";
    CloneDiverged "this node's history has left the leader's and cannot be rewound: copying the leader's data";
    StartStandby "the server is down: starting it as a standby of the leader";
    CopySlots "the leader has logical slots that this standby lacks: copying them";
    StandbyStarting "the standby is starting";
    RestartForReplay "replay has paused, since the log needs more of some settings than this standby has: restarting it with as much";
    FenceUnlicensedPrimary "another node leads and this server is a primary: killing it";
    // Without a leader.
    RaceNotAllowed "there is no leader and this node must not be promoted";
    RaceHoldOff "there is no leader and what this node follows still sends: putting the race off";
    RaceSettle "there is no leader: cutting the upstream so that this node's position is final";
    RaceWaitForMembers "there is no leader, this agent has just come up, and members of before have not: giving them time to come";
    RaceAskPeers "there is no leader: asking the others how far they are";
    RaceBehind "there is no leader and another node is ahead: leaving the race to it";
    RaceNoQuorum "there is no leader and too few synchronous standbys have said where they are: waiting for more";
    NotSynchronous "this node is none of those that have every acknowledged row: not leading";
    RaceTooFarBehind "there is no leader and this node lags more than maximum_lag_on_failover: not racing";
    RaceWrongTimeline "there is no leader and this node's timeline is older than the cluster's: not racing";
    RaceWithoutWatchdog "there is no leader and the watchdog that is required does not work: not racing";
    RacePrimaryAlive "there is no leader and another node is still a primary: not racing";
    RaceYield "there is no leader and the request names another candidate: leaving the race to it";
    RaceAcquire "there is no leader and nobody is ahead: taking the leader key";
    KeepPrimary "there is no leader and this server is a primary: taking the leader key back";
    CandidateAcquire "there is no leader and the request names this node: taking the leader key";
    StartForRace "there is no leader and the server is down: starting it as a standby";
    // Jobs.
    JobInProgress "a job is in progress";
    RetryLater "the last attempt failed: waiting before the next";
    KillOrphans "the postmaster is gone but its processes still work: killing them";
    // Without a store.
    StoreUnreachable "the store is not reachable: nothing is changed";
    StartWithoutStore "the store is not reachable and the server is down: starting it read-only";
    FenceWithoutPermit "this server is a primary without a permit: killing it";
    // Failsafe mode.
    FailsafeList "the members have changed: writing whom a primary asks that has lost the store";
    LeadByFailsafe "the store is not reachable and every member has agreed: going on as primary";
    FailsafeFollow "there is no leader and this node has agreed to a primary that runs without the store: following it";
    FailsafeUnlisted "there is no leader and this node is not in the key failsafe, so a primary without the store would not ask it: not racing";
    FailsafeAskAll "this agent may have agreed to a primary without the store before it was started again: asking everybody first";
    // Pause.
    PausedLead "paused: this node leads";
    PausedKeepPrimary "paused: this server goes on as primary without the key";
    PausedTakeKey "paused: nobody leads and this server is a primary: taking the leader key";
    PausedFollow "paused: following the leader";
    PausedDown "paused: the server is down and stays down";
    PausedReleaseKey "paused: this node holds the key and its server is no primary: releasing the key";
    PausedIdle "paused: nothing is changed";
    // The operator's requests and the end.
    OperatorRestart "an operator asked for a restart";
    OperatorReinitialize "an operator asked for a fresh copy of the data";
    RequestRefused "the operator's request cannot be done on this node now";
    StopServer "the agent was told to stop: stopping the server";
    StopDetached "the agent was told to stop while paused: leaving the server as it is";
    StopDone "the agent was told to stop and the server is down: ending";
}
