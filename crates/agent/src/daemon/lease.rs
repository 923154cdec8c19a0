//! The keeper of the lease: a thread of its own that renews, and carries the permit to the guard.
//!
//! It waits for nothing but the store: no SQL, no disk, no lock of the daemon. So a server that hangs, a full disk or a busy daemon does
//! not cost the lease; but a daemon that is wedged for a whole lease does ([`Watch::silence`]), since nobody would act on what
//! happens. What a lease permits is `pgherd_ha`'s to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use pgherd_dcs::{Store, StoreError, StoreOptions, boot_now};
use pgherd_ha::{Boot, Epoch, Lease, Permit};
use tokio::sync::{Notify, oneshot};

use crate::api::PermitCell;
use crate::guard::Page;
use crate::watchdog::Watchdog;

/// A failed renewal is tried again after this time; the store's own reconnect takes about as long.
const RETRY: Duration = Duration::from_millis(100);

/// How long before the watchdog would reset the machine the lease counts as over: the server is stopped in order, and its guard has killed
/// what is left, while the agent still has time to see it and to disarm.
const BEFORE_RESET: Duration = Duration::from_millis(500);

/// What the daemon, the keeper and the REST API share; every field is read and written without waiting.
#[derive(Debug)]
pub struct LeaseState {
    /// The epoch to renew, 0 for none. Written by the daemon.
    held: AtomicU64,
    /// The newest proof. Written by the keeper, and by the daemon when it has acquired.
    lease: ArcSwapOption<Lease>,
    /// Until when there may be a writer. The daemon decides, the keeper prolongs.
    pub permit: PermitCell,
    /// The page of the server that may write; none while the server is a standby, whose page has no end.
    page: ArcSwapOption<Page>,
    pub watch: Watch,
    pub watchdog: Watchdog,
    /// Wakes the keeper: there is something to renew.
    kick: Notify,
    /// Wakes the daemon: the lease was lost.
    pub lost: Notify,
    interval_millis: AtomicU64,
    ttl_millis: AtomicU64,
    /// What a session was granted before `ttl` was lowered, 0 for none: a proof of it counts for the new `ttl` only.
    outdated_millis: AtomicU64,
}

/// The signs of life that a renewal depends on.
#[derive(Debug, Default)]
pub struct Watch {
    round: AtomicInstant,
    probe: AtomicInstant,
    /// The longest silence that is tolerated.
    tolerance: AtomicU64,
}

/// A [`Boot`] in milliseconds that is read and written without a lock.
#[derive(Debug, Default)]
struct AtomicInstant(AtomicU64);

impl AtomicInstant {
    /// Never goes back.
    fn advance(&self, instant: Boot) {
        self.0.fetch_max(u64::try_from(instant.0.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    fn get(&self) -> Boot {
        Boot::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl Watch {
    /// The daemon has finished a round.
    pub fn round_done(&self, now: Boot) {
        self.round.advance(now);
    }

    /// A write to the data directory has reached the disk, or there is no server whose disk matters. The probe of a server that
    /// has just been started may not have had its turn yet: until then the latter counts.
    pub fn disk_answered(&self, at: Boot) {
        self.probe.advance(at);
    }

    /// What has not been seen for a whole lease, in words.
    pub(super) fn silence(&self, now: Boot) -> Option<&'static str> {
        let tolerance = Duration::from_millis(self.tolerance.load(Ordering::SeqCst));
        if now.since(self.probe.get()) > tolerance {
            return Some("no write to the data directory has reached the disk: look at the disk and the kernel's log");
        }
        (now.since(self.round.get()) > tolerance)
            .then_some("the agent has not finished a round: the machine is overloaded, or something in it hangs")
    }
}

impl LeaseState {
    pub fn new(watchdog: Watchdog) -> Arc<LeaseState> {
        let state = LeaseState {
            held: AtomicU64::new(0),
            lease: ArcSwapOption::empty(),
            permit: Arc::new(ArcSwap::from_pointee(Permit::None)),
            page: ArcSwapOption::empty(),
            watch: Watch::default(),
            watchdog,
            kick: Notify::new(),
            lost: Notify::new(),
            interval_millis: AtomicU64::new(500),
            ttl_millis: AtomicU64::new(0),
            outdated_millis: AtomicU64::new(0),
        };
        state.watch.round_done(boot_now());
        state.watch.disk_answered(boot_now());
        Arc::new(state)
    }

    /// Several renewals fit into a permit: two in each `loop_wait`. A lease is also how long the daemon may be silent.
    pub fn set_times(&self, ttl: Duration, loop_wait: Duration) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // Half a second at most: of a permit of some 5 s, an outage of the store may then take all but one interval.
        self.interval_millis.store(millis(loop_wait / 2).clamp(100, 500), Ordering::SeqCst);
        self.watch.tolerance.store(millis(ttl), Ordering::SeqCst);
        let before = self.ttl_millis.swap(millis(ttl), Ordering::SeqCst);
        let Some(lease) = self.lease().filter(|_| millis(ttl) < before) else {
            if millis(ttl) > before {
                self.outdated_millis.store(0, Ordering::SeqCst);
            }
            return;
        };
        // A shorter session is asked for after this: from then on the store may free the key sooner than the proof at hand says.
        self.outdated_millis.store(millis(lease.granted), Ordering::SeqCst);
        let capped = self.capped(lease);
        self.lease.store(Some(Arc::new(capped)));
        let given = lease.deadline();
        let shorten = |permit: &Arc<Permit>| match **permit {
            // A later one is the members', in failsafe mode: it is as good as it was.
            Permit::Until { epoch, deadline } if epoch == lease.epoch && deadline <= given => {
                Arc::new(Permit::from_lease(&capped))
            }
            _ => permit.clone(),
        };
        self.permit.rcu(shorten);
        self.inform_guard();
    }

    fn capped(&self, lease: Lease) -> Lease {
        let lease = before_reset(lease, self.watchdog.timeout());
        let outdated = Duration::from_millis(self.outdated_millis.load(Ordering::SeqCst));
        if outdated.is_zero() || lease.granted < outdated {
            return lease;
        }
        Lease { granted: lease.granted.min(Duration::from_millis(self.ttl_millis.load(Ordering::SeqCst))), ..lease }
    }

    pub fn lease(&self) -> Option<Lease> {
        self.lease.load().as_deref().copied()
    }

    /// The leader key is ours: keep it.
    pub fn hold(&self, epoch: Epoch) {
        if self.held.swap(epoch.0, Ordering::SeqCst) != epoch.0 {
            self.kick.notify_one();
        }
    }

    /// The key is not ours, or is to be given up: stop renewing. The page keeps its deadline.
    pub fn let_go(&self) {
        self.held.store(0, Ordering::SeqCst);
        self.lease.store(None);
    }

    /// A proof has come: keep it, and prolong what it permits. What the members have permitted in failsafe mode may last longer, and then
    /// stays: after a silence a proof counts from before it, and the guard must not hear of an end that is over already.
    pub fn proven(&self, lease: Lease) {
        let newer = self.lease().is_none_or(|known| known.epoch != lease.epoch || known.sent < lease.sent);
        if !newer || self.held.load(Ordering::SeqCst) != lease.epoch.0 {
            return;
        }
        self.take(self.capped(lease));
        self.watchdog.keep_alive(&lease);
    }

    /// The machine's watchdog runs from now on, and what is proven so far lasts no longer than it lets the machine live.
    pub async fn arm_watchdog(&self) -> Result<(), String> {
        let Some(lease) = self.lease() else { return Err("there is no lease to arm the watchdog under".into()) };
        self.watchdog.arm(&lease).await?;
        self.take(self.capped(lease));
        Ok(())
    }

    /// Keeps the proof, and brings what it permits into force.
    fn take(&self, lease: Lease) {
        self.lease.store(Some(Arc::new(lease)));
        let prolong = |permit: &Arc<Permit>| match **permit {
            Permit::Until { epoch, deadline } if epoch == lease.epoch && deadline < lease.deadline() => {
                Arc::new(Permit::from_lease(&lease))
            }
            _ => permit.clone(),
        };
        self.permit.rcu(prolong);
        self.inform_guard();
    }

    /// The decision's permit comes into force.
    pub fn permit(&self, permit: Permit) {
        // The keeper may have renewed since the decision was made; of one epoch the later deadline counts.
        let current = **self.permit.load();
        let keep = matches!((current, permit), (Permit::Until { epoch: a, deadline: old }, Permit::Until { epoch: b, deadline: new }) if a == b && old > new);
        if !keep {
            self.permit.store(Arc::new(permit));
        }
        self.inform_guard();
    }

    /// From now on the permit binds this server: to be called before it can write.
    pub fn license(&self, page: Arc<Page>) -> Result<(), Unlicensed> {
        let permit = **self.permit.load();
        if !permit.allows_writer(boot_now()) {
            return Err(Unlicensed);
        }
        write_page(&page, permit).map_err(|_| Unlicensed)?;
        self.page.store(Some(page));
        Ok(())
    }

    /// The server that was licensed is gone, or was found as a standby.
    pub fn forget_page(&self) {
        self.page.store(None);
    }

    /// A server that was found running as a primary: its page follows the permit as soon as there is one.
    pub fn watch_page(&self, page: Arc<Page>) {
        self.page.store(Some(page));
    }

    fn inform_guard(&self) {
        let Some(page) = self.page.load_full() else { return };
        loop {
            let permit = self.permit.load_full();
            // Refused when the guard has begun to kill; the daemon sees the server go.
            let _ = write_page(&page, *permit);
            // The other thread may have stored and written a newer one before we wrote: the newest must be the last.
            if Arc::ptr_eq(&permit, &self.permit.load_full()) {
                return;
            }
        }
    }
}

/// Without another proof the machine is reset that long after the last one: a server that serves until then loses what an orderly stop
/// would have kept.
fn before_reset(lease: Lease, watchdog: Option<Duration>) -> Lease {
    let Some(timeout) = watchdog else { return lease };
    let tick = lease.tick.unwrap_or(lease.granted / 4);
    let granted = lease.granted.min(timeout.saturating_sub(BEFORE_RESET) + tick);
    Lease { granted, tick: Some(tick), ..lease }
}

/// No permit: what is running keeps the deadline it has.
fn write_page(page: &Page, permit: Permit) -> Result<(), crate::guard::PermitEnded> {
    match permit {
        Permit::None => Ok(()),
        Permit::Until { deadline, .. } => page.set_deadline(deadline),
        Permit::Paused { .. } => page.set_no_end(),
    }
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the permit to have a writer is over; the leader key must be renewed first")]
pub struct Unlicensed;

/// Starts the keeper's thread. Its runtime also carries the store's session, so nothing else can keep a heartbeat waiting.
pub async fn start(options: StoreOptions, state: Arc<LeaseState>) -> Result<Arc<dyn Store>, StoreError> {
    let (ready, store) = oneshot::channel();
    let keeper = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!("the lease thread cannot start its event loop: {error}");
                return;
            }
        };
        runtime.block_on(async move {
            let opened = pgherd_dcs::open(&options);
            let keep = opened.as_ref().ok().cloned();
            if ready.send(opened).is_ok()
                && let Some(store) = keep
            {
                renew_for_ever(store, &state).await;
            }
        });
    };
    thread::Builder::new().name("lease".into()).spawn(keeper).expect("the process may start one more thread");
    store.await.expect("the lease thread answers before it ends")
}

async fn renew_for_ever(store: Arc<dyn Store>, state: &LeaseState) {
    let mut failing = false;
    loop {
        let interval = Duration::from_millis(state.interval_millis.load(Ordering::SeqCst));
        let pause = if failing { RETRY } else { interval };
        tokio::select! {
            () = state.kick.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        let held = state.held.load(Ordering::SeqCst);
        if held == 0 {
            failing = false;
            continue;
        }
        if let Some(silence) = state.watch.silence(boot_now()) {
            if !failing {
                tracing::error!("not renewing the lease any more, for a whole ttl {silence}");
            }
            failing = true;
            continue;
        }
        match store.renew(Epoch(held)).await {
            Ok(Some(lease)) => {
                if failing {
                    tracing::info!("the lease of epoch {} is renewed again", Epoch(held));
                }
                failing = false;
                state.proven(lease);
            }
            Ok(None) => {
                tracing::warn!("the leader key of epoch {} is not ours any more", Epoch(held));
                if state.held.compare_exchange(held, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                    state.lease.store(None);
                }
                state.lost.notify_one();
            }
            Err(error) => {
                if !failing {
                    tracing::warn!("the lease could not be renewed and is tried again: {error}");
                }
                failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watchdog::Wish;

    fn lease(epoch: u64, sent: u64) -> Lease {
        Lease { epoch: Epoch(epoch), sent: Boot::from_millis(sent), granted: Duration::from_secs(8), tick: None }
    }

    fn no_watchdog() -> Watchdog {
        Watchdog::start(Wish::off()).expect("a thread")
    }

    #[test]
    fn a_lease_is_over_before_the_watchdog_resets_the_machine() {
        let (ms, seconds) = (Duration::from_millis, Duration::from_secs);
        // (granted, tick, time-out of the watchdog, when the lease ends after its proof), in ms.
        for (granted, tick, timeout, end) in [
            (30_000, Some(2_000), Some(25), 24_500),
            (30_000, None, Some(25), 22_500),
            (8_000, Some(2_000), Some(3), 2_500),
            (8_000, None, Some(3), 2_500),
            (8_000, None, None, 6_000),
        ] {
            let lease = Lease { granted: ms(granted), tick: tick.map(ms), ..lease(1, 0) };
            assert_eq!(
                before_reset(lease, timeout.map(seconds)).end(),
                Boot::from_millis(end),
                "{granted} {timeout:?}"
            );
        }
    }

    #[test]
    fn a_proof_prolongs_only_the_permit_of_its_epoch() {
        let state = LeaseState::new(no_watchdog());
        state.hold(Epoch(1));
        state.permit(Permit::from_lease(&lease(1, 1_000)));
        state.proven(lease(1, 2_000));
        assert_eq!(**state.permit.load(), Permit::from_lease(&lease(1, 2_000)));
        state.proven(lease(2, 3_000));
        assert_eq!(**state.permit.load(), Permit::from_lease(&lease(1, 2_000)));
        state.permit(Permit::None);
        state.proven(lease(1, 4_000));
        assert_eq!(**state.permit.load(), Permit::None, "only a decision gives a permit");
    }

    #[test]
    fn an_older_decision_does_not_shorten_what_the_keeper_has_prolonged() {
        let state = LeaseState::new(no_watchdog());
        state.hold(Epoch(1));
        state.permit(Permit::from_lease(&lease(1, 1_000)));
        state.proven(lease(1, 2_000));
        state.permit(Permit::from_lease(&lease(1, 1_500)));
        assert_eq!(**state.permit.load(), Permit::from_lease(&lease(1, 2_000)));
    }

    #[test]
    fn a_shorter_ttl_shortens_the_permit_before_the_session_is_asked_for() {
        let state = LeaseState::new(no_watchdog());
        let (second, long) = (Duration::from_secs(1), Lease { granted: Duration::from_secs(30), ..lease(1, 1_000) });
        state.set_times(30 * second, second);
        state.hold(Epoch(1));
        state.permit(Permit::from_lease(&long));
        state.proven(long);
        state.set_times(8 * second, second);
        assert_eq!(**state.permit.load(), Permit::from_lease(&lease(1, 1_000)));
        state.proven(Lease { sent: Boot::from_millis(2_000), ..long });
        assert_eq!(state.lease(), Some(lease(1, 2_000)), "an answer of the longer session does not count for more");
        let floor = Lease { granted: 10 * second, ..lease(1, 2_500) };
        state.proven(floor);
        assert_eq!(state.lease(), Some(floor), "what the store grants counts, be it more than was asked for");
        state.set_times(30 * second, second);
        state.proven(Lease { sent: Boot::from_millis(3_000), ..long });
        assert_eq!(state.lease().map(|lease| lease.granted), Some(long.granted));
    }

    #[test]
    fn what_the_members_have_given_is_shortened_by_no_proof_and_no_ttl() {
        let state = LeaseState::new(no_watchdog());
        let second = Duration::from_secs(1);
        state.set_times(8 * second, second);
        state.hold(Epoch(1));
        state.proven(lease(1, 1_000));
        let members = Permit::Until { epoch: Epoch(1), deadline: Boot::from_millis(20_000) };
        state.permit(members);
        state.proven(lease(1, 2_000));
        assert_eq!(**state.permit.load(), members, "an older proof that came late");
        state.set_times(4 * second, second);
        assert_eq!(**state.permit.load(), members);
        state.proven(lease(1, 30_000));
        let capped = Lease { granted: 4 * second, ..lease(1, 30_000) };
        assert_eq!(**state.permit.load(), Permit::from_lease(&capped));
        state.let_go();
        assert_eq!(**state.permit.load(), Permit::from_lease(&capped), "only a decision takes a permit");
    }

    #[test]
    fn what_was_let_go_is_not_proven_again() {
        let state = LeaseState::new(no_watchdog());
        state.hold(Epoch(1));
        state.proven(lease(1, 1_000));
        assert!(state.lease().is_some());
        state.let_go();
        state.proven(lease(1, 2_000));
        assert_eq!(state.lease(), None);
    }

    #[test]
    fn a_wedged_daemon_or_disk_ends_the_renewals() {
        let watch = Watch::default();
        watch.tolerance.store(8_000, Ordering::SeqCst);
        watch.round_done(Boot::from_millis(10_000));
        watch.disk_answered(Boot::from_millis(10_000));
        assert_eq!(watch.silence(Boot::from_millis(18_000)), None);
        watch.round_done(Boot::from_millis(18_000));
        assert!(watch.silence(Boot::from_millis(18_001)).is_some_and(|what| what.contains("disk")));
        watch.disk_answered(Boot::from_millis(18_001));
        assert_eq!(watch.silence(Boot::from_millis(18_001)), None);
        watch.disk_answered(Boot::ZERO);
        assert_eq!(watch.silence(Boot::from_millis(26_000)), None, "a probe that has never run takes nothing back");
        assert!(watch.silence(Boot::from_millis(26_001)).is_some_and(|what| what.contains("round")));
    }
}
