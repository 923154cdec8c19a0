//! Synchronous and quorum replication: whom commits wait for, who may take over, and that nothing acknowledged is lost.

use std::time::{Duration, Instant};

use jiff::civil;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::cluster::{Cluster, LONG};
use crate::harness::eventually;
use crate::harness::process::residents_of;
use crate::harness::writers::Writers;

/// Longer than rounds, grace and retries: what would happen by itself has happened.
const A_WHILE: Duration = Duration::from_secs(3);

/// The members that have this role in the cluster's own table.
fn with_role(cluster: &Cluster, role: &str) -> Vec<String> {
    let answers = cluster.nodes().into_iter().find_map(|node| cluster.members_by(&node.name).ok());
    answers.into_iter().flatten().filter(|member| member.role == role).map(|member| member.name).collect()
}

/// Turns a mode on and waits until so many standbys have the role that it gives.
pub fn synchronous(cluster: &Cluster, settings: &Value, role: &str, count: usize) -> Vec<String> {
    cluster.configure(settings);
    eventually(&format!("{count} members are {role}"), LONG, || {
        let found = with_role(cluster, role);
        if found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
    })
}

/// Turns quorum commit on and waits until so many standbys have a vote.
pub fn quorum(cluster: &Cluster, votes: usize) {
    synchronous(cluster, &json!({"synchronous_mode": "quorum"}), "quorum_standby", votes);
}

/// Until then the key in the store lets nobody succeed who may lack what was acknowledged.
pub fn wait_until_others_may_succeed(cluster: &Cluster, leader: &str) {
    eventually("the store knows who may take over", LONG, || {
        if cluster.log(leader).contains("SyncKeyAfter") { Ok(()) } else { Err("not yet".to_owned()) }
    });
}

/// Every process of a node's server takes part or does not.
fn signal_server(cluster: &Cluster, node: &str, signal: Signal) {
    residents_of(&cluster.node(node).data_dir).iter().for_each(|process| process.signal(signal));
}

fn names_in_force(cluster: &Cluster, node: &str) -> String {
    cluster.sql(node, "SHOW synchronous_standby_names").map(|rows| rows.concat()).unwrap_or_default()
}

/// When a log says this; all logs are in UTC.
fn times(log: &str, phrase: &str) -> Vec<civil::DateTime> {
    let said = log.lines().filter(|line| line.contains(phrase));
    said.filter_map(|line| line.get(..line.match_indices(' ').nth(1)?.0)?.parse().ok()).collect()
}

/// A statement of a client of its own, which may take long.
struct Pending(std::thread::JoinHandle<Result<(), String>>);

impl Pending {
    fn begin(cluster: &Cluster, port: u16, sql: &'static str) -> Pending {
        let config = cluster.connection_to(port);
        Pending(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
            runtime.block_on(async {
                let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(|e| e.to_string())?;
                let driver = tokio::spawn(connection);
                let result = client.batch_execute(sql).await.map_err(|error| error.to_string());
                driver.abort();
                result
            })
        }))
    }

    fn still_waits(&self, during: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < during {
            assert!(!self.0.is_finished(), "the commit did not wait");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ends(self) -> Result<(), String> {
        eventually("the statement ends", LONG, || if self.0.is_finished() { Ok(()) } else { Err(String::new()) });
        self.0.join().expect("it does not panic")
    }
}

#[test]
fn a_commit_waits_for_its_standby_which_alone_takes_over() {
    let cluster = Cluster::start(3);
    let standby = synchronous(&cluster, &json!({"synchronous_mode": true}), "sync_standby", 1).remove(0);
    let primary = cluster.leader();
    assert!(names_in_force(&cluster, &primary).contains(&standby));
    let writers = Writers::start(&cluster, &primary);
    writers.wait_for_more();
    cluster.kill_host(&primary);
    assert_eq!(cluster.another_leader(&primary), standby);
    cluster.start_agent(&primary);
    cluster.wait_healthy();
    let record = writers.finish();
    record.assert_one_writer_at_a_time();
    record.assert_nothing_lost(&cluster);
}

#[test]
fn without_its_standby_a_primary_goes_on_alone_and_nobody_else_may_take_over() {
    let cluster = Cluster::start(2);
    let standby = synchronous(&cluster, &json!({"synchronous_mode": true}), "sync_standby", 1).remove(0);
    let primary = cluster.leader();
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    cluster.kill_host(&standby);
    // It waits for as long as the standby may be about to come back, and then without it.
    cluster.write("INSERT INTO town VALUES ('Bonn')");
    assert_eq!(names_in_force(&cluster, &primary), "");
    cluster.kill_host(&primary);
    cluster.start_agent(&standby);
    cluster.key_is_gone("leader");
    let begun = Instant::now();
    while begun.elapsed() < A_WHILE {
        let recovers = cluster.sql(&standby, "SELECT pg_is_in_recovery()");
        assert!(recovers.as_ref().is_err() || recovers.is_ok_and(|rows| rows == ["t"]), "it lacks a row and leads");
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster.start_agent(&primary);
    cluster.wait_healthy();
    assert_eq!(cluster.leader(), primary);
    assert_eq!(cluster.write("SELECT count(*) FROM town"), ["2"]);
}

#[test]
fn strictly_commits_wait_and_neither_a_crash_nor_a_new_agent_lets_them_through() {
    let cluster = Cluster::start(2);
    let strict = json!({"synchronous_mode": true, "synchronous_mode_strict": true});
    let standby = synchronous(&cluster, &strict, "sync_standby", 1).remove(0);
    let primary = cluster.leader();
    cluster.write("CREATE ROLE app LOGIN PASSWORD 'secret'");
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    signal_server(&cluster, &standby, Signal::STOP);
    let port = cluster.node(&primary).postgres_port;
    let commit = Pending::begin(&cluster, port, "INSERT INTO town VALUES ('Bonn')");
    commit.still_waits(A_WHILE);

    // The agent dies, and the next one finds a server with names that it has not set.
    let agent = cluster.node(&primary).agent;
    agent.signal(Signal::KILL);
    agent.ended_within(LONG);
    cluster.start_agent(&primary);
    commit.still_waits(A_WHILE);

    // The server crashes: started again it would show the row that nobody else has.
    cluster.postmaster(&primary).expect("a postmaster").kill();
    commit.ends().expect_err("its server is gone");
    let app = || {
        let mut config = cluster.connection_to(port);
        config.user("app").password("secret");
        cluster.connects(&config)
    };
    eventually("its own clients are kept out", LONG, || match app() {
        Err(error) if error.contains("28000") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(cluster.rest(&primary, "GET", "/primary", "").expect("an answer").0, 503);

    signal_server(&cluster, &standby, Signal::CONT);
    eventually("clients are let in", LONG, app);
    eventually("and sent there", LONG, || match cluster.rest(&primary, "GET", "/primary", "")?.0 {
        200 => Ok(()),
        other => Err(other.to_string()),
    });
    cluster.wait_healthy();
    cluster.shows(&standby, "SELECT count(*) FROM town", &["2"]);
}

#[test]
fn an_orderly_stop_of_the_standby_holds_no_commit_up() {
    let cluster = Cluster::start(3);
    let standby = synchronous(&cluster, &json!({"synchronous_mode": true}), "sync_standby", 1).remove(0);
    let primary = cluster.leader();
    let writers = Writers::start(&cluster, &primary);
    writers.wait_for_more();
    let agent = cluster.node(&standby).agent;
    agent.signal(Signal::TERM);
    agent.ended_within(LONG);
    writers.wait_for_more();
    let others = with_role(&cluster, "sync_standby");
    assert!(!others.contains(&standby), "{others:?}");
    drop(writers.finish());
    // It was let go for what it asked: a standby that is lost is waited for until its grace of a second is over.
    let (own, its) = (cluster.log(&standby), cluster.log(&primary));
    let asked = times(&own, "rule=\"LeaveSync\"").pop().expect("it asked");
    let stopped = times(&own, "received fast shutdown request").pop().expect("its stop");
    let mut changes = times(&its, "parameter \"synchronous_standby_names\" changed to").into_iter();
    let let_go = changes.find(|change| *change > asked).expect("other names");
    assert!(let_go < stopped + Duration::from_secs(1), "it stopped at {stopped}, the names changed at {let_go}");
    let in_force = names_in_force(&cluster, &primary);
    assert!(!in_force.contains(&standby), "{in_force}");
    cluster.start_agent(&standby);
    cluster.wait_healthy();
}

#[test]
fn turned_off_and_misspelt() {
    let cluster = Cluster::start(2);
    let primary = cluster.leader();
    quorum(&cluster, 1);
    assert!(names_in_force(&cluster, &primary).starts_with("ANY 1 ("));
    // A mistake does not turn it off.
    cluster.configure(&json!({"synchronous_mode": "qourum"}));
    eventually("the mistake is named", LONG, || {
        let log = cluster.log(&primary);
        if log.contains("found `qourum`; \"quorum\" stays in force") { Ok(()) } else { Err("not yet".to_owned()) }
    });
    let begun = Instant::now();
    while begun.elapsed() < A_WHILE {
        assert!(names_in_force(&cluster, &primary).starts_with("ANY 1 ("));
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.configure(&json!({"synchronous_mode": false}));
    eventually("commits wait for nobody", LONG, || match names_in_force(&cluster, &primary).as_str() {
        "" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(with_role(&cluster, "quorum_standby"), Vec::<String>::new());
}
