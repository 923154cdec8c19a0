//! The REST API beside the real Patroni's: two clusters of the same members on one store are brought into the same situations, and both are asked the same.
//!
//! The questions are data (`reads.txt`, `orders.txt`), and so is what may differ, with the reasons (`masks`). A run takes all situations one after the other,
//! collects every difference, and fails with the list. Not here: the commands (`ctl`), and clusters of both kinds (`cluster/mixed`).

mod compare;
mod http;
mod masks;
mod sides;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::cluster::{Cluster, LONG};
use crate::harness::site::Program;
use crate::harness::{eventually, notes};
use compare::differences;
use http::{Answer, Question};
use sides::{Side, Who};

const READS: &str = include_str!("reads.txt");
const ORDERS: &str = include_str!("orders.txt");

/// For what both show only after their next rounds, and after what their servers and their peers tell them.
const SETTLED: Duration = Duration::from_secs(12);
const BOTH: [Who; 2] = [Who::Leader, Who::Replica];

/// Both clusters, and what has come out so far.
struct Parity {
    cluster: Cluster,
    theirs: Side,
    ours: Side,
    compared: usize,
    situations: Vec<String>,
    failures: Vec<String>,
}

impl Parity {
    fn start() -> Parity {
        let cluster = Cluster::start(1);
        // The members of both get this file. What the header says by default is the name and the version of each program.
        let extended = "restapi:\n  server_tokens: productonly\n  http_extra_headers: {X-Parity: \"yes\"}\n";
        cluster.edit("node1", "restapi:\n", extended);
        cluster.write("CREATE TABLE filler (text text)");
        let theirs = Side::start(&cluster, Program::Patroni);
        let ours = Side::start(&cluster, Program::Pgherd);
        theirs.arrange(&cluster);
        ours.arrange(&cluster);
        Parity { cluster, theirs, ours, compared: 0, situations: Vec::new(), failures: Vec::new() }
    }

    fn sides(&self) -> [&Side; 2] {
        [&self.theirs, &self.ours]
    }

    /// Both at the same time.
    fn ask(&self, who: Who, question: &Question) -> [Answer; 2] {
        std::thread::scope(|scope| {
            let ask = |side| move || Side::ask(side, &self.cluster, who, question);
            self.sides().map(|side| scope.spawn(ask(side))).map(|asking| asking.join().expect("an answer"))
        })
    }

    /// Asks until both say the same, for these cases may be repeated.
    fn compare(&mut self, situation: &str, cases: Vec<(Who, Question)>) {
        self.situations.push(situation.to_owned());
        self.compared += cases.len();
        let begun = Instant::now();
        let mut left: Vec<_> = cases.into_iter().map(|(who, question)| (who, question, Vec::new())).collect();
        loop {
            left.retain_mut(|(who, question, found)| {
                let [theirs, ours] = self.ask(*who, question);
                *found = differences(place(question), &theirs, &ours);
                !found.is_empty()
            });
            if left.is_empty() || begun.elapsed() > SETTLED {
                break;
            }
        }
        for (who, question, found) in left {
            self.fail(situation, who, &question, &found);
        }
        // Shown if the test fails: how far it came, and how long it took.
        eprintln!("{situation}: {} ms", begun.elapsed().as_millis());
    }

    /// What does something is asked once. Returns Patroni's status.
    fn once(&mut self, situation: &str, who: Who, line: &str) -> u16 {
        let question = question(line);
        self.compared += 1;
        let [theirs, ours] = self.ask(who, &question);
        let found = differences(place(&question), &theirs, &ours);
        if !found.is_empty() {
            self.fail(situation, who, &question, &found);
        }
        theirs.status
    }

    fn fail(&mut self, situation: &str, who: Who, question: &Question, found: &[String]) {
        let text = format!("{situation}, {who:?}: {question}\n      {}", found.join("\n      "));
        eprintln!("{text}");
        self.failures.push(text);
    }

    fn reads(&mut self, situation: &str, members: &[Who]) {
        self.reads_but(&[], situation, members);
    }

    /// Without these endpoints.
    fn reads_but(&mut self, left_out: &[&str], situation: &str, members: &[Who]) {
        let mut cases = Vec::new();
        for path in lines(READS).filter(|path| !left_out.contains(path)) {
            for method in ["GET", "HEAD", "OPTIONS"] {
                let question = question(&format!("{method} {path}"));
                cases.extend(members.iter().map(|who| (*who, question.clone())));
            }
        }
        self.compare(situation, cases);
    }

    fn orders(&mut self, situation: &str, members: &[Who]) {
        let mut cases = Vec::new();
        for line in lines(ORDERS) {
            let (who, rest) = line.split_once(' ').expect("who is asked, and what");
            let asked = match who {
                "leader" => &[Who::Leader][..],
                "replica" => &[Who::Replica],
                _ => &BOTH,
            };
            cases.extend(asked.iter().filter(|who| members.contains(who)).map(|who| (*who, question(rest))));
        }
        self.compare(situation, cases);
    }

    /// Of both sides.
    fn until(&self, what: &str, who: Who, fits: impl Fn(&Value) -> bool) {
        for side in self.sides() {
            eventually(&format!("{what}, {} {who:?}", side.scope), 2 * LONG, || {
                let status = side.status(&self.cluster, who)?;
                if fits(&status) { Ok(()) } else { Err(status.to_string()) }
            });
        }
    }

    fn configure(&mut self, situation: &str, change: &Value) {
        let status = self.once(situation, Who::Leader, &format!("PATCH /config {change}"));
        assert_eq!(status, 200, "{situation}: {change}");
    }

    fn healthy(&self) {
        for side in self.sides() {
            assert_eq!(side.site.healthy(&self.cluster, "leader"), side.site.nodes[0], "{}", side.scope);
        }
    }

    /// Changes the file of every member; its agent is told by a signal, as by its service.
    fn files(&self, from: &str, to: &str) {
        for node in self.sides().into_iter().flat_map(|side| &side.site.nodes) {
            self.cluster.edit(node, from, to);
            self.cluster.node(node).agent.signal(Signal::HUP);
        }
    }
}

/// Without comments and empty lines.
fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// What the JSON of an answer is called in the table of masks, where it is no status and no list of members.
fn place(question: &Question) -> &'static str {
    match question.path.split(['/', '?']).nth(1) {
        Some("history") => "history",
        Some("failsafe") => "failsafe",
        _ => "",
    }
}

/// `METHOD PATH [BODY]`; a body of `""` is an empty one, not none.
fn question(line: &str) -> Question {
    let (method, rest) = line.split_once(' ').expect("a method and a path");
    let (path, body) = rest.split_once(' ').map_or((rest, None), |(path, body)| (path, Some(body)));
    let body = body.map(|body| if body == "\"\"" { String::new() } else { body.to_owned() });
    Question { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body }
}

#[test]
fn every_answer_of_the_rest_api_is_patronis() {
    let begun = Instant::now();
    let mut parity = Parity::start();
    standby_cluster(&mut parity);
    normal(&mut parity);
    scheduled(&mut parity);
    configuration(&mut parity);
    tags(&mut parity);
    lag(&mut parity);
    synchronous(&mut parity);
    paused(&mut parity);
    moves(&mut parity);
    access(&mut parity);
    failsafe(&mut parity);
    no_leader(&mut parity);
    server_down(&mut parity);
    let Parity { compared, situations, failures, .. } = &parity;
    notes::note(&format!(
        "parity: {compared} answers of the REST API compared with a real Patroni's, in {} situations, in {} s; {} differ\n",
        situations.len(),
        begun.elapsed().as_secs(),
        failures.len()
    ));
    assert!(failures.is_empty(), "Patroni / pgherd:\n  {}", failures.join("\n  "));
}

fn standby_cluster(parity: &mut Parity) {
    parity.until("it leads the standby cluster", Who::Leader, |status| status["replication_state"] == "streaming");
    parity.reads("in a standby cluster", &BOTH);
}

fn normal(parity: &mut Parity) {
    parity.configure("promoting the cluster", &json!({"standby_cluster": null}));
    parity.until("it is a primary", Who::Leader, |status| status["role"] == "primary" && status["state"] == "running");
    parity.healthy();
    parity.reads("a healthy cluster", &BOTH);
    parity.orders("orders in a healthy cluster", &BOTH);
}

fn scheduled(parity: &mut Parity) {
    let situation = "something is scheduled";
    let at = "2099-01-02T03:04:05+00:00";
    for filter in
        ["", r#", "role": "primary", "postgres_version": "99.1", "timeout": 10"#, r#", "restart_pending": false"#]
    {
        let order = format!(r#"POST /restart {{"schedule": "{at}"{filter}}}"#);
        parity.once(situation, Who::Leader, &order);
        parity.once(situation, Who::Leader, &order);
        parity.compare(situation, shown());
        parity.once(situation, Who::Leader, "DELETE /restart");
        parity.once(situation, Who::Leader, "DELETE /restart");
    }
    for (who, order) in [
        (Who::Leader, r#"{"leader": "LEADER", "scheduled_at": "2099-01-02T03:04:05+00:00"}"#),
        (
            Who::Replica,
            r#"{"leader": "LEADER", "candidate": "REPLICA", "scheduled_at": "2099-01-02T03:04:05.678+02:00"}"#,
        ),
        (Who::Leader, r#"{"leader": "LEADER", "candidate": "nobody", "scheduled_at": "2099-01-02 03:04 UTC"}"#),
    ] {
        parity.once(situation, who, &format!("POST /switchover {order}"));
        parity.once(situation, who, "GET /cluster");
        parity.once(situation, who, "DELETE /switchover");
        parity.once(situation, who, "DELETE /switchover");
    }
    parity.compare("nothing is scheduled any more", shown());
}

/// Where everything that may be shown is shown.
fn shown() -> Vec<(Who, Question)> {
    let paths = ["GET /patroni", "GET /cluster", "GET /metrics", "GET /config", "GET /history", "GET /"];
    BOTH.into_iter().flat_map(|who| paths.map(|path| (who, question(path)))).collect()
}

fn configuration(parity: &mut Parity) {
    let situation = "the configuration is changed";
    for order in [
        r#"PATCH /config {"postgresql": {"parameters": {"work_mem": "8MB", "log_min_duration_statement": 4321}}}"#,
        r#"PATCH /config {"postgresql": {"parameters": {"work_mem": null}}}"#,
        r#"PATCH /config {"postgresql": {"parameters": {"log_min_duration_statement": "4321"}}}"#,
        r#"PATCH /config {"umlaut": "ü\u00e9", "nested": {"a": [1, 2.50, true, null], "b": {}}}"#,
        r#"PATCH /config {"nested": {"a": {"c": 1}, "b": null}}"#,
        r#"PATCH /config {"nested": 5}"#,
        r#"PATCH /config {"nested": null, "umlaut": null}"#,
        r#"PATCH /config/x?y {"maximum_lag_on_failover": 1048576}"#,
        "GET /config",
    ] {
        parity.once(situation, Who::Leader, order);
        parity.once(situation, Who::Replica, order);
    }
    let config = parity.ask(Who::Leader, &question("GET /config"));
    let [same, _] = config.map(|answer| answer.body);
    parity.once(situation, Who::Replica, &format!("PUT /config {same}"));

    let situation = "a restart is pending";
    parity.configure(situation, &json!({"postgresql": {"parameters": {"max_connections": 123}}}));
    for who in BOTH {
        parity.until("it waits for a restart", who, |status| status["pending_restart"] == true);
    }
    parity.compare(situation, shown());
    parity.once(situation, Who::Replica, r#"POST /restart {"role": "primary", "restart_pending": true}"#);
    parity.once(situation, Who::Replica, r#"POST /restart {"role": "replica", "restart_pending": true}"#);
    parity.healthy();
    parity.once(situation, Who::Leader, r#"POST /restart {"postgres_version": "99.1", "timeout": "1min"}"#);
    parity.healthy();
    for who in BOTH {
        parity.until("it waits for no restart", who, |status| status.get("pending_restart").is_none());
    }
    parity.compare("it was restarted", shown());
    parity.once("a replica is made anew", Who::Replica, "POST /reinitialize {}");
    parity.until("the new replica streams", Who::Replica, |status| status["replication_state"] == "streaming");
    parity.healthy();
}

fn tags(parity: &mut Parity) {
    let tags = "tags: {zone: west, number: 1, fraction: 1.4, flag: true, text: \"1\", list: [1, 2], nothing: null, clonefrom: false}";
    parity.files("postgresql:\n", &format!("{tags}\npostgresql:\n"));
    for who in BOTH {
        parity.until("it has its tags", who, |status| status["tags"]["zone"] == "west");
    }
    parity.reads("with tags", &BOTH);
    parity.files("zone: west", "zone: west, noloadbalance: true, nofailover: true");
    for who in BOTH {
        parity.until("it has its tags", who, |status| status["tags"]["nofailover"] == true);
    }
    parity.reads("out of the balance", &[Who::Replica]);
    for order in [
        r#"POST /switchover {"leader": "LEADER", "candidate": "REPLICA"}"#,
        r#"POST /switchover {"leader": "LEADER"}"#,
        r#"POST /failover {"candidate": "REPLICA"}"#,
    ] {
        parity.once("no candidate may take over", Who::Leader, order);
    }
    parity.files("zone: west, noloadbalance: true, nofailover: true", "zone: west");
    for who in BOTH {
        parity.until("it has its tags", who, |status| status["tags"].get("nofailover").is_none());
    }
}

fn lag(parity: &mut Parity) {
    // Not by a paused replay or a delay: Patroni ends both.
    let replaying: Vec<_> = parity.sides().into_iter().map(|side| side.replaying(&parity.cluster)).collect();
    replaying.iter().for_each(|process| process.freeze());
    for side in parity.sides() {
        let rows = "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 3000)";
        side.sql(&parity.cluster, Who::Leader, rows);
        let behind = "SELECT pg_last_wal_receive_lsn() - pg_last_wal_replay_lsn() > 3000000";
        parity.cluster.shows(side.node(Who::Replica), behind, &["t"]);
    }
    parity.reads("with a replica that is behind", &BOTH);
    replaying.iter().for_each(|process| process.thaw());
    for side in parity.sides() {
        let caught_up = "SELECT pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()";
        parity.cluster.shows(side.node(Who::Replica), caught_up, &["t"]);
    }
}

fn synchronous(parity: &mut Parity) {
    for (mode, key) in [(json!(true), "sync_standby"), (json!("quorum"), "quorum_standby")] {
        let situation = format!("with a {key}");
        parity.configure(&situation, &json!({"synchronous_mode": mode}));
        parity.until(key, Who::Replica, |status| status[key] == true);
        parity.reads(&situation, &BOTH);
        for order in [
            r#"POST /switchover {"leader": "LEADER", "candidate": "nobody"}"#,
            r#"POST /failover {"candidate": "nobody"}"#,
        ] {
            parity.once(&situation, Who::Leader, order);
        }
        // From one mode to the other Patroni leaves the names as they are where both mean the same.
        parity.configure("no synchronous mode", &json!({"synchronous_mode": null}));
        parity.until("it is none", Who::Replica, |status| status.get(key).is_none());
    }
}

fn paused(parity: &mut Parity) {
    parity.configure("a pause", &json!({"pause": true}));
    for who in BOTH {
        parity.until("it is paused", who, |status| status["pause"] == true);
    }
    parity.reads("in pause", &BOTH);
    parity.orders("orders in pause", &BOTH);
    for order in [
        r#"POST /restart {"schedule": "2099-01-02T03:04:05+00:00"}"#,
        r#"POST /switchover {"leader": "LEADER"}"#,
        r#"POST /switchover {"leader": "LEADER", "scheduled_at": "2099-01-02T03:04:05+00:00"}"#,
        r#"POST /switchover {"leader": "LEADER", "candidate": "REPLICA", "scheduled_at": "2099-01-02T03:04:05+00:00"}"#,
    ] {
        parity.once("in pause", Who::Leader, order);
    }
    parity.configure("the end of a pause", &json!({"pause": null}));
    parity.until("it is a primary", Who::Leader, |status| status["role"] == "primary" && status["state"] == "running");
    parity.healthy();
}

fn moves(parity: &mut Parity) {
    let situation = "the lead moves";
    for (who, order, leads) in [
        (Who::Leader, r#"POST /switchover {"leader": "LEADER"}"#, 1),
        (Who::Leader, r#"POST /switchover {"leader": "REPLICA", "candidate": "LEADER"}"#, 0),
        (Who::Replica, r#"POST /failover {"candidate": "REPLICA"}"#, 1),
        (Who::Replica, r#"POST /failover {"leader": "REPLICA", "candidate": "LEADER"}"#, 0),
    ] {
        let question = question(order);
        let [theirs, ours] = parity.ask(who, &question);
        let found = differences("", &theirs, &ours);
        parity.compared += 1;
        // A Patroni that looks between the end of the request and the new leader takes a success for a failure.
        let mistaken = theirs.body.ends_with(" failed") && ours.status == 200;
        if !found.is_empty() && !mistaken {
            parity.fail(situation, who, &question, &found);
        }
        for side in parity.sides() {
            assert_eq!(side.site.healthy(&parity.cluster, "leader"), side.site.nodes[leads], "{} {order}", side.scope);
        }
        parity.compare(situation, shown());
    }
    parity.reads("after several moves", &BOTH);
}

/// Every order with every way of not being allowed to give it.
fn access(parity: &mut Parity) {
    const ORDERS: [&str; 11] = [
        "PATCH /config {}",
        "PUT /config {}",
        "POST /reload",
        "POST /sigterm",
        r#"POST /restart {"role": "king"}"#,
        "DELETE /restart",
        "POST /switchover {}",
        "POST /failover {}",
        "DELETE /switchover",
        "POST /failsafe {}",
        "POST /nothing {}",
    ];
    const GIVEN: [Option<&str>; 7] = [
        None,
        Some(""),
        Some("Basic"),
        Some("Basic d3Jvbmc6d3Jvbmc="),
        Some("Bearer YWRtaW46c2VjcmV0"),
        Some("basic YWRtaW46c2VjcmV0"),
        // admin:secret
        Some("Basic YWRtaW46c2VjcmV0"),
    ];
    let cases = || {
        let given = |order: &str, authorization: &str| {
            let headers = vec![("Authorization".to_owned(), authorization.to_owned())];
            Question { headers, ..question(order) }
        };
        let asked = |order: &str| GIVEN.map(|header| header.map_or_else(|| question(order), |it| given(order, it)));
        ORDERS.iter().flat_map(|order| asked(order)).map(|question| (Who::Leader, question)).collect::<Vec<_>>()
    };
    let password = "  authentication: {username: admin, password: secret}\n";
    parity.files("restapi:\n", &format!("restapi:\n{password}"));
    let refused = |parity: &Parity, code: u16, what: &str| {
        for side in parity.sides() {
            eventually(what, LONG, || match side.ask(&parity.cluster, Who::Leader, &question("PATCH /config {}")) {
                answer if answer.status == code => Ok(()),
                answer => Err(format!("{answer:?}")),
            });
        }
    };
    refused(parity, 401, "a password is asked for");
    parity.compare("with a password", cases());
    parity.reads("reading where a password is asked for", &[Who::Leader]);

    parity.files(password, &format!("{password}  allowlist: [10.11.12.13]\n"));
    refused(parity, 403, "nobody is let in");
    parity.compare("with a list of others", cases());
    parity.files("  allowlist: [10.11.12.13]\n", "  allowlist: [10.11.12.13, 127.0.0.0/8]\n");
    refused(parity, 401, "everybody here is let in");
    parity.compare("with a list of networks", cases());
    parity.files(
        "  allowlist: [10.11.12.13, 127.0.0.0/8]\n",
        "  allowlist: [10.11.12.13]\n  allowlist_include_members: true\n",
    );
    refused(parity, 401, "members are let in");
    parity.compare("with a list and the members", cases());
    parity.files(&format!("{password}  allowlist: [10.11.12.13]\n  allowlist_include_members: true\n"), "");
    refused(parity, 400, "nothing is asked for any more");
}

fn failsafe(parity: &mut Parity) {
    let situation = "failsafe mode";
    parity.configure(situation, &json!({"failsafe_mode": true}));
    for side in parity.sides() {
        for who in BOTH {
            eventually("the members are listed", LONG, || {
                match side.ask(&parity.cluster, who, &question("GET /failsafe")) {
                    answer if answer.status == 200 && answer.body.contains("REPLICA") => Ok(()),
                    answer => Err(format!("{answer:?}")),
                }
            });
        }
    }
    parity.reads("in failsafe mode", &BOTH);
    parity.orders("orders in failsafe mode", &[Who::Leader]);
    for who in BOTH {
        for body in [
            r#"{"name": "LEADER", "conn_url": "postgres://127.0.0.1:54320/postgres", "api_url": "http://127.0.0.1:8000/patroni"}"#,
            r#"{"name": "LEADER", "conn_url": "postgres://127.0.0.1:54320/postgres", "api_url": "http://127.0.0.1:8000/patroni", "slots": {"a": 5}}"#,
            "{}",
            "[]",
            "nonsense",
        ] {
            parity.once(situation, who, &format!("POST /failsafe {body}"));
        }
    }
    parity.reads("the replica has agreed", &[Who::Replica]);
    parity.configure("no failsafe mode", &json!({"failsafe_mode": null}));
}

/// The leader's host is lost, and the other may not take over.
fn no_leader(parity: &mut Parity) {
    for side in parity.sides() {
        let replica = side.node(Who::Replica);
        parity.cluster.edit(replica, "zone: west", "zone: west, nofailover: true");
        parity.cluster.node(replica).agent.signal(Signal::HUP);
    }
    parity.until("it may not lead", Who::Replica, |status| status["tags"]["nofailover"] == true);
    for side in parity.sides() {
        parity.cluster.kill_host(side.node(Who::Leader));
    }
    parity.until("nobody leads", Who::Replica, |status| status["cluster_unlocked"] == true);
    let unlisted = |side: &Side| {
        let answer = side.ask(&parity.cluster, Who::Replica, &question("GET /cluster"));
        if answer.body.contains("LEADER") { Err(answer.body) } else { Ok(()) }
    };
    parity.sides().into_iter().for_each(|side| eventually("the lost member is gone", LONG, || unlisted(side)));
    parity.reads("nobody leads", &[Who::Replica]);
    parity.orders("orders where nobody leads", &[Who::Replica]);
    parity.once("nobody leads", Who::Replica, "POST /reinitialize {}");
    for side in parity.sides() {
        parity.cluster.start_agent(side.node(Who::Leader));
    }
}

/// The last one, in pause, for who starts the server afterwards is another question. A replica's is no case: whether a Patroni starts it hangs on what it
/// has done before.
fn server_down(parity: &mut Parity) {
    parity.healthy();
    parity.configure("a pause", &json!({"pause": true}));
    for who in BOTH {
        parity.until("it is paused", who, |status| status["pause"] == true);
    }
    for side in parity.sides() {
        let server = parity.cluster.postmaster(side.node(Who::Leader)).expect("a server");
        server.signal(Signal::INT);
        server.ended_within(LONG);
    }
    parity.until("it shows that its server is down", Who::Leader, |status| status["state"] != "running");
    // The lost leader has come back with a timeline more on Patroni's side, which goes on calling it promoted: so do the metrics and the history.
    parity.reads_but(&["/history", "/metrics"], "the leader's server is down", &BOTH);
}
