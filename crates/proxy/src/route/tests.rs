use pgherd_ha::{Lsn, Timeline};

use super::*;
use crate::haproxy_cfg;

/// What happens, at which millisecond; servers are `a`, `b`, `c` = 0, 1, 2, each with its own agent.
enum Step {
    /// Server, epoch with the milliseconds of its permit, in recovery.
    Push(usize, Option<(u64, u64)>, bool),
    Stopped(usize),
    /// In order, under a permit that has so many milliseconds left.
    Stopping(usize, u64),
    Paused(usize, u64),
    Lost(usize),
    Plain(usize),
    Check(usize, bool),
    HotStandby(usize),
    /// A standby and its lag.
    Lag(usize, Option<u64>),
    NoLoadBalance(usize),
    StandbyLeader(usize),
}
use Step::*;

/// Name, steps with their times, the time that is asked for, the expected table.
type Case = (&'static str, Vec<(u64, Step)>, u64, &'static str);

fn node(epoch: Option<u64>, permit_ms: Option<u64>, in_recovery: bool) -> NodeRoute {
    NodeRoute {
        name: "n".into(),
        scope: "s".into(),
        address: "h:1".into(),
        running: true,
        in_recovery: Some(in_recovery),
        epoch: epoch.map(Epoch),
        permit_ms,
        stopping_ms: None,
        paused: false,
        timeline: Some(Timeline(1)),
        lsn: Some(Lsn(1)),
        lag: in_recovery.then_some(0),
        noloadbalance: false,
        standby_leader: false,
        state: "running".into(),
    }
}

fn listener(check: &str, options: &str) -> Listener {
    let servers: String =
        ["a", "b", "c"].iter().map(|name| format!("server {name} {name}:5432 check port 8008\n")).collect();
    let text = format!("listen l\nbind *:1\noption httpchk {check}\ndefault-server rise 2 fall 2 {options}\n{servers}");
    haproxy_cfg::parse("f", &text, &|_| None).expect("a listener").config.listeners.remove(0)
}

fn apply(routes: &mut Routes, step: &Step, at: u64) {
    let now = Boot::from_millis(at);
    let mut push = |agent, node| routes.on_push(agent, RouteMessage { elapsed_ms: 0, node }, now, now);
    match *step {
        Push(agent, Some((epoch, left)), in_recovery) => push(agent, node(Some(epoch), Some(left), in_recovery)),
        Push(agent, None, in_recovery) => push(agent, node(None, None, in_recovery)),
        Stopped(agent) => {
            let kept = node(Some(5), Some(1_000), false);
            push(agent, NodeRoute { running: false, in_recovery: None, ..kept });
        }
        Stopping(agent, left) => {
            let stops =
                NodeRoute { running: false, in_recovery: None, stopping_ms: Some(left), ..node(None, None, false) };
            push(agent, stops);
        }
        Paused(agent, epoch) => push(agent, NodeRoute { paused: true, ..node(Some(epoch), None, false) }),
        Lost(agent) => routes.on_stream_lost(agent),
        Plain(agent) => routes.on_plain(agent),
        Check(server, passed) => routes.on_check(0, server, passed, now),
        HotStandby(server) => routes.on_hot_standby(0, server, now),
        Lag(agent, lag) => push(agent, NodeRoute { lag, ..node(None, None, true) }),
        NoLoadBalance(agent) => push(agent, NodeRoute { noloadbalance: true, ..node(None, None, true) }),
        StandbyLeader(agent) => push(agent, NodeRoute { standby_leader: true, ..node(None, None, true) }),
    }
}

/// Runs the steps and writes the table at `now` as one word a server.
fn outcome(listener: &Listener, steps: &[(u64, Step)], now: u64) -> String {
    let mut ids = 0..;
    let mut routes = Routes::new(std::slice::from_ref(listener), |_, _| ids.next(), Boot::ZERO);
    for (at, step) in steps {
        apply(&mut routes, step, *at);
    }
    words(&routes, now)
}

fn words(routes: &Routes, now: u64) -> String {
    let words = routes.table(Boot::from_millis(now)).remove(0).into_iter().map(|access| match access {
        Access::Open { epoch: Some(epoch), until: Boot::NEVER } => format!("open{}", epoch.0),
        Access::Open { epoch: Some(epoch), until } => format!("open{}<{}", epoch.0, until.0.as_millis()),
        Access::Open { epoch: None, until: Boot::NEVER } => "open".into(),
        Access::Open { epoch: None, until } => format!("open<{}", until.0.as_millis()),
        Access::Keep { until: Boot::NEVER } => "keep".into(),
        Access::Keep { until } => format!("keep<{}", until.0.as_millis()),
        Access::Stopping { reason, until } => format!("{reason:?}<{}", until.0.as_millis()),
        Access::Closed(reason) => format!("{reason:?}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_read_write_listener_follows_the_greatest_proven_epoch() {
    let cases: Vec<Case> = vec![
        ("nothing is known", vec![], 0, "NotHeardYet NotHeardYet NotHeardYet"),
        (
            "a holder is open until its permit ends",
            vec![(10, Push(0, Some((5, 100)), false))],
            109,
            "open5<110 NewerLeader NewerLeader",
        ),
        (
            "past the permit nothing is open",
            vec![(10, Push(0, Some((5, 100)), false)), (20, Push(1, None, true))],
            110,
            "PermitEnded NotPrimary NotHeardYet",
        ),
        (
            "a passing check is no proof for an agent that pushes",
            vec![(10, Push(0, Some((5, 100)), false)), (10, Check(0, true)), (20, Lost(0))],
            110,
            "PermitEnded NotHeardYet NotHeardYet",
        ),
        (
            "a lost stream counts until the permit ends",
            vec![(10, Push(0, Some((5, 100)), false)), (20, Lost(0)), (21, Check(0, false))],
            100,
            "open5<110 NewerLeader NewerLeader",
        ),
        (
            "a greater epoch cuts the older one, even while it is still in recovery",
            vec![(10, Push(0, Some((5, 1_000)), false)), (20, Push(1, Some((7, 1_000)), true))],
            30,
            "NewerLeader NotPrimary NewerLeader",
        ),
        (
            "and opens when it has promoted",
            vec![(10, Push(0, Some((5, 1_000)), false)), (20, Push(1, Some((7, 1_000)), false))],
            30,
            "NewerLeader open7<1020 NewerLeader",
        ),
        (
            "a new epoch of the same server cuts nobody",
            vec![(10, Push(0, Some((5, 100)), false)), (20, Push(0, Some((7, 100)), false))],
            30,
            "open7<120 NewerLeader NewerLeader",
        ),
        (
            "an older epoch is refused after a newer one was seen and lost",
            vec![(10, Push(1, Some((7, 100)), false)), (50, Lost(1)), (60, Push(0, Some((5, 1_000)), false))],
            200,
            "OlderEpoch NewerLeader NewerLeader",
        ),
        (
            "as long as the store may be the same",
            vec![(10, Push(1, Some((7, 100)), false)), (50, Lost(1)), (60, Push(0, Some((5, 1_000_000)), false))],
            120_109,
            "OlderEpoch NewerLeader NewerLeader",
        ),
        (
            "but not for ever, because a store that was made anew counts from the beginning",
            vec![(10, Push(1, Some((7, 100)), false)), (50, Lost(1)), (60, Push(0, Some((5, 1_000_000)), false))],
            120_110,
            "open5<1000060 NewerLeader NewerLeader",
        ),
        (
            "in pause from the last line on",
            vec![(10, Paused(1, 7)), (50, Lost(1)), (60, Push(0, Some((5, 1_000_000)), false))],
            120_010,
            "open5<1000060 NewerLeader NewerLeader",
        ),
        (
            "until the newer one's holder says that it holds nothing",
            vec![
                (10, Push(1, Some((7, 100)), false)),
                (60, Push(0, Some((5, 1_000)), false)),
                (70, Push(1, None, true)),
            ],
            200,
            "open5<1060 NewerLeader NewerLeader",
        ),
        (
            "a holder whose PostgreSQL is down",
            vec![(10, Push(0, Some((5, 100)), false)), (20, Stopped(0))],
            30,
            "NotRunning NewerLeader NewerLeader",
        ),
        (
            "a holder that goes on proving is not forgotten",
            vec![
                (10, Push(1, Some((7, 100)), false)),
                (150_000, Push(1, Some((7, 100)), false)),
                (150_050, Lost(1)),
                (150_060, Push(0, Some((5, 1_000_000)), false)),
            ],
            200_000,
            "OlderEpoch NewerLeader NewerLeader",
        ),
        ("in pause the epoch has no end", vec![(10, Paused(0, 5))], u64::MAX / 2, "open5 NewerLeader NewerLeader"),
        (
            "but without a stream the checks decide",
            vec![(10, Paused(0, 5)), (20, Lost(0)), (30, Check(0, false))],
            40,
            "keep NotHeardYet NotHeardYet",
        ),
        (
            "a server that reports recovery is not delivered",
            vec![(10, Push(0, Some((5, 100)), false)), (20, HotStandby(0))],
            30,
            "NotPrimary NewerLeader NewerLeader",
        ),
        (
            "until its agent speaks again",
            vec![(10, Push(0, Some((5, 100)), false)), (20, HotStandby(0)), (30, Push(0, Some((5, 100)), false))],
            40,
            "open5<130 NewerLeader NewerLeader",
        ),
    ];
    check("/", "", cases);
}

#[test]
fn replication_from_a_server_that_is_stopped_in_order_goes_on_under_its_permit() {
    let serves = |at| (at, Push(0, Some((5, 100)), false));
    let cases: Vec<Case> = vec![
        (
            "clients' sessions end",
            vec![serves(10), (20, Stopping(0, 90))],
            30,
            "NotPrimary<110 NotHeardYet NotHeardYet",
        ),
        (
            "with every line it has longer",
            vec![serves(10), (20, Stopping(0, 90)), (60, Stopping(0, 100))],
            120,
            "NotPrimary<160 NotHeardYet NotHeardYet",
        ),
        ("the permit ends it", vec![serves(10), (20, Stopping(0, 90))], 110, "NotPrimary NotHeardYet NotHeardYet"),
        (
            "a lost stream prolongs nothing",
            vec![serves(10), (20, Stopping(0, 90)), (30, Lost(0))],
            110,
            "NotPrimary NotHeardYet NotHeardYet",
        ),
        (
            "and cuts nothing before",
            vec![serves(10), (20, Stopping(0, 90)), (30, Lost(0))],
            100,
            "NotPrimary<110 NotHeardYet NotHeardYet",
        ),
        (
            "it is down",
            vec![serves(10), (20, Stopping(0, 90)), (30, Push(0, None, true))],
            40,
            "NotPrimary NotHeardYet NotHeardYet",
        ),
        ("it is killed", vec![serves(10), (30, Stopped(0))], 40, "NotRunning NewerLeader NewerLeader"),
        (
            "another leads",
            vec![serves(10), (20, Stopping(0, 90)), (30, Push(1, Some((7, 1_000)), false))],
            40,
            "NewerLeader open7<1030 NewerLeader",
        ),
        (
            "a plain Patroni does not say it",
            vec![serves(10), (20, Stopping(0, 90)), (30, Plain(0)), (31, Check(0, false))],
            40,
            "ChecksFail NotHeardYet NotHeardYet",
        ),
    ];
    check("/", "on-marked-down shutdown-sessions", cases);
    let also = vec![(
        "in other listeners, too",
        vec![serves(10), (11, Check(0, true)), (20, Stopping(0, 90)), (21, Check(0, false))],
        30,
        "PermitEnded<110 NotHeardYet NotHeardYet",
    )];
    check("/read-only", "", also);
    let listener = listener("/", "");
    let mut ids = 0..;
    let mut routes = Routes::new(std::slice::from_ref(&listener), |_, _| ids.next(), Boot::ZERO);
    apply(&mut routes, &Stopping(0, 90), 20);
    assert_eq!(routes.next_change(Boot::from_millis(30)), Some(Boot::from_millis(110)));
}

#[test]
fn plain_patroni_is_routed_by_its_checks() {
    let cases: Vec<Case> = vec![
        (
            "one passes",
            vec![(1, Plain(0)), (1, Plain(1)), (2, Check(0, true)), (2, Check(1, false))],
            9,
            "open Closed NotHeardYet",
        ),
        (
            "of two that pass, the later one",
            vec![
                (1, Plain(0)),
                (1, Plain(1)),
                (2, Check(0, true)),
                (2, Check(1, false)),
                (3, Check(1, true)),
                (4, Check(1, true)),
            ],
            9,
            "keep open NotHeardYet",
        ),
        (
            "at the same moment, the first",
            vec![(1, Plain(0)), (1, Plain(1)), (2, Check(0, true)), (2, Check(1, true))],
            9,
            "open keep NotHeardYet",
        ),
        (
            "a proven epoch is stronger than a check",
            vec![(1, Plain(0)), (2, Check(0, true)), (3, Push(1, Some((7, 100)), false))],
            9,
            "NewerLeader open7<103 NewerLeader",
        ),
        (
            "a plain member leads, the others push that they do not",
            vec![(1, Plain(0)), (2, Check(0, true)), (3, Push(1, None, true))],
            9,
            "open NotPrimary NotHeardYet",
        ),
        (
            "a server that reports recovery waits for its next check",
            vec![(1, Plain(0)), (2, Check(0, true)), (3, HotStandby(0))],
            9,
            "NotPrimary NotHeardYet NotHeardYet",
        ),
    ];
    check("/", "on-marked-down shutdown-sessions", cases);
}

#[test]
fn read_only_listeners_serve_fresh_standbys() {
    let cases: Vec<Case> = vec![
        (
            "standbys within the limit; what is unknown or told to stay out is not served",
            vec![(1, Lag(0, Some(1_024))), (1, Lag(1, Some(1_025))), (1, Lag(2, None))],
            9,
            "open Closed Closed",
        ),
        ("noloadbalance", vec![(1, NoLoadBalance(0)), (1, Lag(1, Some(0)))], 9, "Closed open NotHeardYet"),
        (
            "a standby leader is no replica",
            vec![(1, StandbyLeader(0)), (1, Lag(1, Some(0)))],
            9,
            "Closed open NotHeardYet",
        ),
        (
            "never the primary",
            vec![(1, Push(0, Some((5, 100)), false)), (1, Check(0, true))],
            9,
            "Closed NotHeardYet NotHeardYet",
        ),
        (
            "a lost stream leaves it to the checks",
            vec![(1, Lag(0, Some(0))), (2, Lost(0)), (3, Check(0, true))],
            9,
            "open NotHeardYet NotHeardYet",
        ),
        ("a plain member by its checks", vec![(1, Plain(0)), (2, Check(0, true))], 9, "open NotHeardYet NotHeardYet"),
    ];
    check("/replica?lag=1kB", "on-marked-down shutdown-sessions", cases);
    let cases: Vec<Case> = vec![
        (
            "the primary too",
            vec![(1, Push(0, Some((5, 100)), false)), (1, Lag(1, None))],
            9,
            "open<101 open NotHeardYet",
        ),
        ("and a standby leader", vec![(1, StandbyLeader(0))], 9, "open NotHeardYet NotHeardYet"),
        ("a check that the primary passes waits for its agent", vec![(1, Check(0, true))], 9, "NotHeardYet"),
    ];
    check("/read-only", "", cases);
}

/// Without `on-marked-down shutdown-sessions`, which keeps sessions of servers that are out of service.
#[test]
fn sessions_that_could_write_end_with_the_permit_in_every_listener() {
    let push = |epoch, in_recovery| Push(0, epoch, in_recovery);
    for (path, name, steps, now, expected) in [
        ("/read-only", "a primary", vec![push(Some((5, 100)), false)], 100, "open<101"),
        ("/read-only", "whose permit ran out", vec![push(Some((5, 100)), false)], 101, "PermitEnded"),
        ("/read-only", "which says that it has none", vec![push(None, false)], 9, "PermitEnded"),
        ("/read-only", "in pause", vec![Paused(0, 5)], 9, "open"),
        ("/read-only", "by its check", vec![push(Some((5, 100)), false), Lost(0), Check(0, true)], 100, "open<101"),
        ("/read-only", "a failed one", vec![push(Some((5, 100)), false), Lost(0), Check(0, false)], 100, "keep<101"),
        ("/read-only", "no longer", vec![push(Some((5, 100)), false), Lost(0), Check(0, true)], 101, "PermitEnded"),
        ("/read-only", "that does not answer", vec![push(None, false), Stopped(0)], 9, "keep<1001"),
        ("/read-only", "at the end of its permit", vec![push(None, false), Stopped(0)], 1_001, "PermitEnded"),
        (
            "/read-only",
            "a lost standby, which may be promoted",
            vec![Lag(0, Some(0)), Lost(0), Check(0, true)],
            9,
            "keep",
        ),
        ("/replica", "a standby", vec![Lag(0, Some(0))], u64::MAX / 2, "open"),
        ("/replica", "that is promoted", vec![Lag(0, Some(0)), push(Some((5, 100)), false)], 100, "keep<101"),
        ("/replica", "whose permit ran out", vec![Lag(0, Some(0)), push(Some((5, 100)), false)], 101, "PermitEnded"),
        ("/replica", "about to be promoted", vec![push(Some((5, 100)), true)], 100, "open<101"),
        ("/replica", "and lost then", vec![push(Some((5, 100)), true), Lost(0), Check(0, true)], 101, "PermitEnded"),
        ("/replica", "that stays a standby", vec![push(Some((5, 100)), true), Lag(0, Some(0))], 101, "open"),
        ("/replica", "a plain one", vec![push(Some((5, 100)), false), Plain(0), Check(0, true)], 101, "open"),
        ("/health", "by checks alone", vec![push(Some((5, 100)), false), Check(0, true)], 100, "open<101"),
        ("/health", "and no longer", vec![push(Some((5, 100)), false), Check(0, true)], 101, "PermitEnded"),
    ] {
        check(path, "", vec![(name, steps.into_iter().map(|step| (1, step)).collect(), now, expected)]);
    }
}

/// `Closed` in an expectation stands for any reason but `NotHeardYet`.
fn check(path: &str, options: &str, cases: Vec<Case>) {
    let listener = listener(path, options);
    for (name, steps, now, expected) in cases {
        let found = outcome(&listener, &steps, now);
        let same = |(found, expected): (&str, &str)| {
            found == expected || expected == "Closed" && matches!(found, "NotPrimary" | "ChecksFail" | "NotRunning")
        };
        let matches = found.split(' ').zip(expected.split(' ')).all(same);
        assert!(matches, "{path}: {name}: found {found}, expected {expected}");
    }
}

#[test]
fn a_server_without_a_check_is_put_aside_when_it_says_that_it_is_a_standby() {
    let text = "listen l\nbind *:1\noption httpchk /primary\nserver a a:1\nserver b b:1\n";
    let listener = haproxy_cfg::parse("f", text, &|_| None).expect("a listener").config.listeners.remove(0);
    let (a, b) = (vec![(10, HotStandby(0))], vec![(10, HotStandby(0)), (20, HotStandby(1))]);
    for (steps, now, expected) in [
        (&vec![], 9, "open keep"),
        (&a, 11, "NotPrimary open"),
        // Its time is up, but the other has not said such a thing.
        (&a, 9_000, "keep open"),
        (&b, 21, "NotPrimary NotPrimary"),
        (&b, 2_010, "open NotPrimary"),
        (&b, 2_020, "open keep"),
    ] {
        let mut routes = Routes::new(std::slice::from_ref(&listener), |_, _| None, Boot::ZERO);
        steps.iter().for_each(|(at, step)| apply(&mut routes, step, *at));
        assert_eq!(words(&routes, now), expected, "after {} contradictions, at {now}", steps.len());
    }
    let mut routes = Routes::new(&[listener], |_, _| None, Boot::ZERO);
    apply(&mut routes, &HotStandby(0), 10);
    assert_eq!(routes.next_change(Boot::from_millis(11)), Some(Boot::from_millis(2_010)));
}

#[test]
fn backups_serve_only_when_nobody_else_does_and_one_at_a_time() {
    let up = |servers: &[usize]| (0..3).map(|server| (1, Check(server, servers.contains(&server)))).collect::<Vec<_>>();
    for (options, weight, steps, expected) in [
        ("", 1, up(&[0, 1, 2]), "open keep keep"),
        ("", 1, up(&[1, 2]), "keep open keep"),
        ("", 1, up(&[2]), "keep keep open"),
        ("", 0, up(&[0, 1]), "open open keep"),
        ("option allbackups", 1, up(&[0, 1, 2]), "open keep keep"),
        ("option allbackups", 1, up(&[1, 2]), "keep open open"),
        ("option allbackups\nno option allbackups", 1, up(&[1, 2]), "keep open keep"),
    ] {
        let servers =
            format!("server a a:1 check weight {weight}\nserver b b:1 backup check\nserver c c:1 backup check\n");
        let text = format!("listen l\nbind *:1\n{options}\n{servers}");
        let listener = haproxy_cfg::parse("f", &text, &|_| None).expect("a listener").config.listeners.remove(0);
        let mut routes = Routes::new(&[listener], |_, _| None, Boot::ZERO);
        steps.iter().for_each(|(at, step)| apply(&mut routes, step, *at));
        assert_eq!(words(&routes, 9), expected, "{options}");
    }
}

#[test]
fn the_table_changes_by_itself_at_the_end_of_a_permit_and_of_a_memory() {
    let listener = listener("/", "");
    let mut ids = 0..;
    let mut routes = Routes::new(&[listener], |_, _| ids.next(), Boot::ZERO);
    assert_eq!(routes.next_change(Boot::ZERO), None);
    apply(&mut routes, &Push(0, Some((5, 100)), false), 10);
    assert_eq!(routes.next_change(Boot::from_millis(10)), Some(Boot::from_millis(110)));
    // Then the epoch is forgotten.
    assert_eq!(routes.next_change(Boot::from_millis(110)), Some(Boot::from_millis(120_110)));
    assert_eq!(routes.forget_epochs(Boot::from_millis(120_109)), []);
    assert_eq!(routes.forget_epochs(Boot::from_millis(120_110)), [(0, Epoch(5))]);
    assert_eq!(routes.next_change(Boot::from_millis(120_110)), None);
    apply(&mut routes, &Paused(0, 5), 130_000);
    assert_eq!(routes.next_change(Boot::from_millis(130_001)), Some(Boot::from_millis(250_000)));
}
