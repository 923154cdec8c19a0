//! Whatever is killed, frozen or taken away at whatever moment: with every feature that promises it, no acknowledged row is lost, and at no time
//! do two servers take writes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::synchronous::synchronous;
use crate::harness::cluster::{Cluster, LONG};
use crate::harness::writers::Writers;

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The postmaster dies, and its backends notice.
    KillServer,
    KillHost,
    KillAgent,
    StopAgent,
    /// For up to two leases, so that it may wake up with a plan from before.
    FreezeAgent,
    /// For up to one and a half leases.
    StopStore,
    Switchover,
    /// One of the others while the cluster is paused.
    InPause,
}

const OF_A_NODE: [Fault; 5] =
    [Fault::KillServer, Fault::KillHost, Fault::KillAgent, Fault::StopAgent, Fault::FreezeAgent];

/// Faults in one test, each on its own.
const ROUNDS: usize = 6;

#[test]
fn in_quorum_mode_nothing_acknowledged_is_lost_whatever_is_killed_whenever() {
    let settings = json!({"synchronous_mode": "quorum"});
    nothing_is_lost(&settings, "quorum_standby", 2, &OF_A_NODE);
}

#[test]
fn nor_with_two_strictly_synchronous_standbys() {
    let settings = json!({"synchronous_mode": true, "synchronous_mode_strict": true, "synchronous_node_count": 2});
    nothing_is_lost(&settings, "sync_standby", 2, &OF_A_NODE);
}

#[test]
fn nor_with_one_where_lag_and_timeouts_are_limited() {
    let settings = json!({
        "synchronous_mode": true, "maximum_lag_on_syncnode": 1_048_576, "primary_stop_timeout": 5, "primary_race_backoff": 2,
        "primary_start_timeout": 0, "check_timeline": true,
    });
    let faults = [&OF_A_NODE[..], &[Fault::Switchover]].concat();
    nothing_is_lost(&settings, "sync_standby", 1, &faults);
}

#[test]
fn nor_in_failsafe_mode_when_the_store_goes_away_as_well() {
    let settings = json!({"synchronous_mode": "quorum", "failsafe_mode": true});
    let faults = [&OF_A_NODE[..], &[Fault::StopStore; 3]].concat();
    nothing_is_lost(&settings, "quorum_standby", 2, &faults);
}

#[test]
fn nor_in_pauses_and_where_diverged_directories_go_before_they_are_copied() {
    let settings = json!({
        "synchronous_mode": "quorum",
        "postgresql": {
            "use_pg_rewind": false,
            "remove_data_directory_on_diverged_timelines": true,
        },
    });
    let faults = [&OF_A_NODE[..], &[Fault::InPause; 3]].concat();
    nothing_is_lost(&settings, "quorum_standby", 2, &faults);
}

fn nothing_is_lost(settings: &Value, role: &str, standbys: usize, faults: &[Fault]) {
    let cluster = Cluster::start(3);
    synchronous(&cluster, settings, role, standbys);
    let writers = Writers::start(&cluster, &cluster.leader());
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    println!("seed {seed}");
    for round in 0..ROUNDS {
        writers.wait_for_more();
        // At any moment of the way back, too.
        pass(Duration::from_millis(random.u64(0..1500)));
        // The first is a leader's; and mostly it hurts most there.
        let nodes = cluster.nodes();
        let any = &nodes[random.usize(0..nodes.len())].name;
        let node = if round == 0 || random.u8(0..4) > 0 { cluster.leader() } else { any.clone() };
        let fault = faults[random.usize(0..faults.len())];
        println!("{fault:?} {node}");
        strike(&cluster, fault, &node, &mut random);
    }
    cluster.wait_healthy();
    writers.wait_for_more();
    let record = writers.finish();
    record.assert_one_writer_at_a_time();
    record.assert_nothing_lost(&cluster);
}

/// `PGHERD_TEST_SEED` repeats the choice of a run, if not its moments to the millisecond.
fn seed() -> u64 {
    let given = std::env::var("PGHERD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos().into()))
}

/// It has happened, and whatever ended comes back.
fn strike(cluster: &Cluster, fault: Fault, node: &str, random: &mut fastrand::Rng) {
    let agent = cluster.node(node).agent;
    match fault {
        Fault::KillServer => {
            cluster.postmaster(node).into_iter().for_each(|process| process.signal(Signal::KILL));
            // It may lose its agent as well.
            if random.bool() {
                agent.signal(Signal::KILL);
                agent.ended_within(LONG);
            }
        }
        Fault::KillHost => cluster.kill_host(node),
        Fault::KillAgent | Fault::StopAgent => {
            agent.signal(if matches!(fault, Fault::KillAgent) { Signal::KILL } else { Signal::TERM });
            agent.ended_within(LONG);
        }
        Fault::FreezeAgent => {
            agent.freeze();
            pass(Duration::from_millis(random.u64(500..16_000)));
            agent.thaw();
        }
        Fault::StopStore => {
            cluster.store().kill();
            pass(Duration::from_millis(random.u64(500..12_000)));
            cluster.start_store();
        }
        Fault::InPause => {
            let during = OF_A_NODE[random.usize(0..OF_A_NODE.len())];
            cluster.ctl(&["pause"]);
            println!("  {during:?}");
            strike(cluster, during, node, random);
            pass(Duration::from_millis(random.u64(0..3000)));
            cluster.ctl(&["resume"]);
        }
        Fault::Switchover => {
            // Nobody may be there to take over; then it is refused.
            cluster.ctl(&["switchover", "--force"]);
        }
    }
    if !cluster.node(node).agent.is_alive() {
        cluster.start_agent(node);
    }
}

/// The time itself is what is tested.
fn pass(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
}
