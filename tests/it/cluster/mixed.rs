//! Agents of both kinds in one cluster, a real Patroni and pgherd: each leads and each follows, whoever is asked and by whatever program, and no row that
//! was acknowledged is lost.
//!
//! Commits wait for the other member (`synchronous_mode`), since a Patroni that is killed leaves its server running as a primary. A standby cluster of both
//! kinds is in `beside_patroni`, a member that changes its kind in `replacement`.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::ctl::patronictl;
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::site::{Program, Site};
use crate::harness::writers::{ACKNOWLEDGED, TABLE, Writers};
use crate::harness::{binary, eventually};

const SCOPE: &str = "mixed";
/// The shortest that Patroni takes.
pub const TTL: Duration = Duration::from_secs(20);
/// Clients that each look for the primary by themselves, as libpq does with several hosts.
const CLIENTS: [i32; 3] = [1, 2, 3];

/// A cluster of both kinds with clients that write to whoever lets them.
pub struct Mixed {
    pub cluster: Cluster,
    pub site: Site,
}

impl Mixed {
    /// The first of `programs` is started first, and as a rule makes the cluster.
    pub fn start(store: &str, programs: &[Program], dynamic: &Value) -> Mixed {
        let cluster = Cluster::start_on(store, 1);
        // Patroni leaves a former primary that has diverged as it is, unless it may rewind it.
        let rewind = json!({"use_pg_rewind": true});
        let mut all = json!({"ttl": 20, "loop_wait": 1, "retry_timeout": 3, "postgresql": rewind});
        all.as_object_mut().expect("a mapping").extend(dynamic.as_object().expect("a mapping").clone());
        let site = Site::of(&cluster, SCOPE, programs, &all);
        let mixed = Mixed { cluster, site };
        mixed.site.healthy(&mixed.cluster, "leader");
        mixed
    }

    pub fn leader(&self) -> String {
        self.site.leader(&self.cluster, "leader")
    }

    pub fn other(&self, than: &str) -> String {
        self.site.nodes.iter().find(|node| *node != than).expect("two members").clone()
    }

    pub fn writers(&self) -> Writers {
        self.cluster.sql(&self.leader(), TABLE).expect("a primary");
        let mut everybody = self.cluster.connection_to(self.cluster.node(&self.site.nodes[0]).postgres_port);
        for node in &self.site.nodes[1..] {
            everybody.host("127.0.0.1").port(self.cluster.node(node).postgres_port);
        }
        everybody.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
        let mut writers = Writers::default();
        CLIENTS.iter().for_each(|client| writers.add(*client, 0, everybody.clone(), || ()));
        writers.wait_for_more();
        writers
    }

    /// Waits until one leads and everybody else streams as a standby of this role.
    pub fn all_are(&self, role: &str) {
        eventually(&format!("every other member is a {role} that streams"), 4 * LONG, || {
            let leader = self.leader();
            for asked in &self.site.nodes {
                let members = self.cluster.members_by(asked)?;
                let fits = |name: &&String| {
                    let member = members.iter().find(|member| member.name == **name);
                    member
                        .is_some_and(|member| **name == leader || (member.role == role && member.state == "streaming"))
                };
                if !self.site.nodes.iter().all(|name| fits(&name)) {
                    return Err(format!("{asked} says {members:?}"));
                }
            }
            Ok(())
        });
    }

    /// A command of the operator's, which must succeed.
    pub fn ctl(&self, program: &Path, arguments: &[&str]) -> String {
        let output = self.try_ctl(program, arguments);
        assert!(output.status.success(), "{} {arguments:?}: {}", program.display(), text(&output));
        text(&output)
    }

    fn try_ctl(&self, program: &Path, arguments: &[&str]) -> Output {
        self.cluster.ctl_by(program, arguments)
    }

    pub fn finish(&self, writers: Writers) {
        writers.wait_for_more();
        let record = writers.finish();
        record.assert_one_writer_at_a_time();
        record.assert_all_among(self.cluster.sql(&self.leader(), ACKNOWLEDGED).expect("a primary"));
    }
}

/// Who is asked to move the lead.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    Patronictl,
    Pgherd,
    LeadersApi,
    OthersApi,
}

pub fn switch_over(mixed: &Mixed, asked: Asked) {
    let leader = mixed.leader();
    let other = mixed.other(&leader);
    let command = ["switchover", SCOPE, "--leader", &leader, "--candidate", &other, "--force"];
    let request = json!({"leader": leader, "candidate": other}).to_string();
    let api = |node: &str| {
        // A restart of the API's own connections is no answer; and Patroni's call takes as long as the move.
        mixed.cluster.rest_within(2 * LONG, node, "POST", "/switchover", &request).expect("an answer").1
    };
    let said = match asked {
        Asked::Patronictl => mixed.ctl(&patronictl(), &command),
        Asked::Pgherd => mixed.ctl(&binary::pgherd(), &command),
        Asked::LeadersApi => api(&leader),
        Asked::OthersApi => api(&other),
    };
    assert!(said.contains(&format!("Successfully switched over to \"{other}\"")), "{asked:?}, from {leader}: {said}");
    assert_eq!(mixed.site.another_leader(&mixed.cluster, "leader", &leader), other);
}

fn switchovers_go_both_ways(store: &str, programs: &[Program]) {
    let mixed = Mixed::start(store, programs, &json!({"synchronous_mode": true}));
    let writers = mixed.writers();
    // Twice each: once from either kind to the other.
    for asked in [Asked::Patronictl, Asked::Pgherd, Asked::LeadersApi, Asked::OthersApi] {
        for _ in 0..2 {
            mixed.all_are("sync_standby");
            switch_over(&mixed, asked);
            writers.wait_for_more();
        }
    }
    mixed.all_are("sync_standby");
    mixed.finish(writers);
}

#[test]
fn on_zookeeper_either_kind_hands_over_to_the_other_whoever_is_asked() {
    switchovers_go_both_ways("zookeeper", &[Program::Pgherd, Program::Patroni]);
}

#[test]
fn on_etcd_either_kind_hands_over_to_the_other_whoever_is_asked() {
    switchovers_go_both_ways("etcd", &[Program::Patroni, Program::Pgherd]);
}

/// Twice each way: the whole host is lost, or only the agent; a Patroni's server then goes on as a primary that nobody's commits wait for.
fn failovers_go_both_ways(store: &str, programs: &[Program], mode: &Value, role: &str) {
    let mixed = Mixed::start(store, programs, &json!({"synchronous_mode": mode}));
    let writers = mixed.writers();
    for only_the_agent in [false, false, true, true] {
        mixed.all_are(role);
        let lost = mixed.leader();
        let other = mixed.other(&lost);
        if only_the_agent {
            let agent = mixed.cluster.node(&lost).agent;
            agent.signal(Signal::KILL);
            agent.ended_within(LONG);
        } else {
            mixed.cluster.kill_host(&lost);
        }
        eventually(&format!("{other} takes over from {lost}"), 2 * LONG, || {
            let status = mixed.cluster.status(&other)?;
            if status["role"] == "primary" && status["state"] == "running" { Ok(()) } else { Err(status.to_string()) }
        });
        mixed.cluster.start_agent(&lost);
        assert_eq!(mixed.site.healthy(&mixed.cluster, "leader"), other);
        writers.wait_for_more();
    }
    mixed.all_are(role);
    mixed.finish(writers);
}

#[test]
fn on_zookeeper_either_kind_takes_over_from_the_other_and_no_row_is_lost() {
    failovers_go_both_ways("zookeeper", &[Program::Patroni, Program::Pgherd], &json!(true), "sync_standby");
}

#[test]
fn on_etcd_either_kind_takes_over_from_the_other_and_no_row_is_lost() {
    failovers_go_both_ways("etcd", &[Program::Pgherd, Program::Patroni], &json!("quorum"), "quorum_standby");
}

/// Each of these is said by one kind and done by both.
#[test]
fn the_configuration_and_a_pause_are_everybodys() {
    let mixed = Mixed::start("etcd", &[Program::Pgherd, Program::Patroni], &json!({}));
    let Mixed { cluster, site, .. } = &mixed;
    let both_show = |sql: &str, row: &str| site.nodes.iter().for_each(|node| cluster.shows(node, sql, &[row]));
    let (ours, theirs) = (binary::pgherd(), patronictl());
    for (at, node) in site.nodes.iter().enumerate() {
        let change = json!({"postgresql": {"parameters": {"log_min_duration_statement": 4_321 + at}}});
        let (status, said) = cluster.rest(node, "PATCH", "/config", &change.to_string()).expect("an answer");
        assert_eq!(status, 200, "{said}");
        both_show("SHOW log_min_duration_statement", &format!("{}ms", 4_321 + at));
    }
    for (program, value) in [(&ours, "5321"), (&theirs, "5432")] {
        mixed.ctl(program, &["edit-config", SCOPE, "-p", &format!("log_min_duration_statement={value}"), "--force"]);
        both_show("SHOW log_min_duration_statement", &format!("{value}ms"));
    }
    assert_eq!(mixed.ctl(&ours, &["show-config", SCOPE]), mixed.ctl(&theirs, &["show-config", SCOPE]));

    // What needs a restart is announced by both, and either's command restarts both.
    for (program, value) in [(&ours, "130"), (&theirs, "140")] {
        mixed.ctl(program, &["edit-config", SCOPE, "-p", &format!("max_connections={value}"), "--force"]);
        eventually("both wait for a restart", LONG, || match mixed.ctl(&theirs, &["list", SCOPE]) {
            list if list.matches(&format!("->{value}")).count() == 2 => Ok(()),
            list => Err(list),
        });
        let leader = mixed.leader();
        for node in [&mixed.other(&leader), &leader] {
            let said = mixed.ctl(program, &["restart", SCOPE, node, "--force"]);
            assert!(said.contains(&format!("Success: restart on member {node}")), "{said}");
        }
        both_show("SHOW max_connections", value);
        site.healthy(cluster, "leader");
    }

    for (pauses, resumes) in [(&ours, &theirs), (&theirs, &ours)] {
        let said = mixed.ctl(pauses, &["pause", SCOPE, "--wait"]);
        assert!(said.contains("Success: cluster management is paused"), "{said}");
        for node in &site.nodes {
            assert_eq!(cluster.status(node).expect("an answer")["pause"], true, "{node}");
        }
        let leader = mixed.leader();
        let server = cluster.postmaster(&leader).expect("a primary");
        server.kill();
        // Nobody starts it, nobody takes over.
        eventually("its death is shown", LONG, || {
            let members = cluster.members_by(&mixed.other(&leader))?;
            let down = |member: &crate::harness::cluster::Member| member.name == leader && member.state != "running";
            if members.iter().any(down) { Ok(()) } else { Err(format!("{members:?}")) }
        });
        assert!(cluster.postmaster(&leader).is_none());
        let said = mixed.ctl(resumes, &["resume", SCOPE, "--wait"]);
        assert!(said.contains("Success: cluster management is resumed"), "{said}");
        let leader = site.healthy(cluster, "leader");
        switch_over(&mixed, Asked::Pgherd);
        assert_ne!(site.healthy(cluster, "leader"), leader);
    }
    for command in ["list", "topology", "history"] {
        eventually("both consoles show the same", LONG, || {
            let (one, other) = (mixed.ctl(&ours, &[command, SCOPE]), mixed.ctl(&theirs, &[command, SCOPE]));
            if one == other { Ok(()) } else { Err(format!("{one}\n{other}")) }
        });
    }
}

/// Each kind asks the other whether it may go on without the store, and each agrees.
#[test]
fn without_the_store_either_kind_leads_on_as_long_as_the_other_agrees() {
    let mixed = Mixed::start("etcd", &[Program::Pgherd, Program::Patroni], &json!({"failsafe_mode": true}));
    let Mixed { cluster, site, .. } = &mixed;
    let writers = mixed.writers();
    for _ in 0..2 {
        let leader = site.healthy(cluster, "leader");
        for node in &site.nodes {
            eventually("both are listed", LONG, || match cluster.rest(node, "GET", "/failsafe", "")? {
                (200, list) if site.nodes.iter().all(|node| list.contains(node)) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
        cluster.store().kill();
        for node in &site.nodes {
            eventually(&format!("{node} is in the mode"), LONG, || match cluster.status(node)? {
                status if status["failsafe_mode_is_active"] == true => Ok(()),
                status => Err(status.to_string()),
            });
        }
        // Longer than any lease or promise of before lasts.
        let begun = Instant::now();
        while begun.elapsed() < TTL + Duration::from_secs(5) {
            writers.wait_for_more();
        }
        cluster.start_store();
        assert_eq!(site.healthy(cluster, "leader"), leader);
        // Until its promise is over a member takes over from nobody.
        for node in &site.nodes {
            eventually(&format!("{node} is in the mode no more"), LONG, || match cluster.status(node)? {
                status if status.get("failsafe_mode_is_active").is_none() => Ok(()),
                status => Err(status.to_string()),
            });
        }
        switch_over(&mixed, Asked::Patronictl);
    }
    mixed.finish(writers);
}
