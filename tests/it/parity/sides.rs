//! The two clusters that are asked, side by side: one of Patroni's, one of ours, with the same members and the same data.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::http::{Answer, Question, ask};
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;
use crate::harness::process::Process;
use crate::harness::site::{Program, Site};

/// One of the two.
pub struct Side {
    pub scope: &'static str,
    pub site: Site,
    /// What stands for what: names and ports differ between the sides and so are replaced in answers, and put into questions.
    words: BTreeMap<String, String>,
}

/// Which member is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Leader,
    Replica,
}

impl Side {
    /// Two members, the first of which leads, of a cluster that follows the demo's.
    pub fn start(cluster: &Cluster, program: Program) -> Side {
        let scope = if program == Program::Patroni { "theirs" } else { "ours" };
        let upstream = json!({"host": "127.0.0.1", "port": cluster.node("node1").postgres_port});
        let dynamic = json!({"ttl": 20, "loop_wait": 1, "retry_timeout": 3, "standby_cluster": upstream, "maximum_lag_on_failover": 1_048_576});
        let site = Site::of(cluster, scope, &[program, program], &dynamic);
        let mut words = BTreeMap::from([(scope.to_owned(), "SCOPE".to_owned())]);
        for (node, (name, port)) in site.nodes.iter().zip([("LEADER", 0), ("REPLICA", 1)]) {
            let node = cluster.node(node);
            words.insert(node.name, name.to_owned());
            words.insert(node.postgres_port.to_string(), (54_320 + port).to_string());
            words.insert(node.rest_port.to_string(), (8_000 + port).to_string());
        }
        Side { scope, site, words }
    }

    /// The first member is to lead, so that both sides look the same. In a standby cluster that begins no timeline.
    pub fn arrange(&self, cluster: &Cluster) {
        let leader = self.site.healthy(cluster, "standby_leader");
        let first = &self.site.nodes[0];
        if leader != *first {
            let output = cluster.ctl(&["switchover", self.scope, "--leader", &leader, "--candidate", first, "--force"]);
            assert!(text(&output).contains("Successfully switched over"), "{}", text(&output));
            assert_eq!(self.site.healthy(cluster, "standby_leader"), *first);
        }
    }

    pub fn node(&self, who: Who) -> &str {
        &self.site.nodes[if who == Who::Leader { 0 } else { 1 }]
    }

    /// Asks with this side's names; answers with those that stand for them.
    pub fn ask(&self, cluster: &Cluster, who: Who, question: &Question) -> Answer {
        let names: BTreeMap<&str, &str> =
            self.words.iter().map(|(real, word)| (word.as_str(), real.as_str())).collect();
        let put = |text: &str| replace(text, |word| names.get(word).copied());
        let question =
            Question { path: put(&question.path), body: question.body.as_deref().map(put), ..question.clone() };
        let port = cluster.node(self.node(who)).rest_port;
        let answer = eventually("an answer", LONG, || ask(port, &question));
        Answer { body: replace(&answer.body, |word| self.words.get(word).map(String::as_str)), ..answer }
    }

    /// The process of the replica's server that replays the log.
    pub fn replaying(&self, cluster: &Cluster) -> Process {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'";
        let pid = cluster.sql(self.node(Who::Replica), sql).expect("an answer").remove(0);
        Process::of(pid.parse().expect("a pid")).expect("a standby replays")
    }

    pub fn status(&self, cluster: &Cluster, who: Who) -> Result<Value, String> {
        cluster.status(self.node(who))
    }

    pub fn sql(&self, cluster: &Cluster, who: Who, sql: &str) {
        cluster.sql(self.node(who), sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// Replaces whole words of letters, digits and underscores.
fn replace<'a>(text: &'a str, of: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let inside = rest.starts_with(is_word);
        let end = rest.find(|c| is_word(c) != inside).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        replaced += if inside { of(word).unwrap_or(word) } else { word };
        rest = after;
    }
    replaced
}
