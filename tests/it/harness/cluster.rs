//! A real cluster, made by `pgherd demo`: a store, agents with their PostgreSQL, and an entrypoint, in a directory of its own.
//!
//! Everything blocks until it is so, or fails the test at a deadline. Dropped, it ends every process of the cluster, and
//! checks that none was left. A test that fails shows the end of every log.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::process::{Process, postmaster_of, residents_of, traces_of};
use super::{binary, eventually};

/// For what takes seconds on an idle machine; tests run beside each other on few cores.
pub const LONG: Duration = Duration::from_secs(60);
/// One answer of a server or of the REST API.
const ANSWER: Duration = Duration::from_secs(5);
/// Lines of each log that a failed test shows.
const LOG_LINES: usize = 60;

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    parent: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

/// One node as the demo recorded it.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub postgres_port: u16,
    pub rest_port: u16,
    pub data_dir: PathBuf,
    pub config: PathBuf,
    pub log: PathBuf,
    pub agent: Process,
}

/// One line of `GET /cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub role: String,
    pub state: String,
    pub timeline: Option<u64>,
}

impl Cluster {
    /// Starts `nodes` nodes and waits until all of them are healthy.
    pub fn start(nodes: u8) -> Cluster {
        Cluster::start_on("zookeeper", nodes)
    }

    /// The same on this kind of store.
    pub fn start_on(store: &str, nodes: u8) -> Cluster {
        let parent = tempfile::Builder::new().prefix("pgherd-cluster-").tempdir().expect("a temporary directory");
        // Started by root, the servers run as user postgres, who has to pass through.
        std::fs::set_permissions(parent.path(), PermissionsExt::from_mode(0o755)).expect("its mode can be set");
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A kept connection may lead to an agent that was killed since.
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).pool_max_idle_per_host(0);
        let cluster = Cluster {
            parent,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop"),
            client: client.build().expect("an HTTP client"),
        };
        let output = cluster.demo(&["demo", "--store", store, "--nodes", &nodes.to_string()]);
        assert!(output.status.success(), "the demo does not start\n{}", text(&output));
        cluster.wait_healthy();
        cluster
    }

    pub fn directory(&self) -> PathBuf {
        self.parent.path().join("demo")
    }

    /// A `pgherd` command with `--directory`.
    fn demo(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("pgherd runs")
    }

    /// The same, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary::pgherd());
        command.args(arguments).arg("--directory").arg(self.directory()).stdin(Stdio::null());
        command
    }

    /// One run of a drill; it must keep every promise that it checks itself. Its numbers.
    pub fn drill(&self, fault: &str) -> Value {
        let output = self.demo(&["drill", fault, "--json", "--seconds", "2"]);
        assert!(output.status.success(), "drill {fault}: {}\n{}", output.status, text(&output));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report["runs"][0].clone()
    }

    /// An operator's command with the configuration of the first node.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.ctl_by(&binary::pgherd(), arguments)
    }

    /// The same with another program, as patronictl.
    pub fn ctl_by(&self, program: &Path, arguments: &[&str]) -> Output {
        self.console(program, arguments).stdin(Stdio::null()).output().expect("the program runs")
    }

    /// An operator's command that asks, with the answers.
    pub fn ctl_with(&self, arguments: &[&str], answers: &str) -> Output {
        let mut command = self.console(&binary::pgherd(), arguments);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("pgherd runs");
        child.stdin.take().expect("a pipe").write_all(answers.as_bytes()).expect("pgherd reads");
        child.wait_with_output().expect("our own child")
    }

    fn console(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.directory().join("node1.yml")).args(arguments);
        command.env_clear().env("HOME", self.directory()).env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
        command
    }

    fn state(&self) -> Value {
        let text = std::fs::read(self.directory().join("state.json")).expect("the state of the demo");
        serde_json::from_slice(&text).expect("JSON")
    }

    pub fn entry_port(&self) -> u16 {
        port(&self.state()["entry_port"])
    }

    pub fn stats_port(&self) -> u16 {
        port(&self.state()["stats_port"])
    }

    pub fn entry_log(&self) -> String {
        std::fs::read_to_string(self.directory().join("entrypoint.log")).unwrap_or_default()
    }

    pub fn entry(&self) -> Process {
        process(&self.state()["entry"])
    }

    pub fn nodes(&self) -> Vec<Node> {
        let state = self.state();
        let nodes = state["nodes"].as_array().expect("nodes").iter();
        let path = |value: &Value| PathBuf::from(value.as_str().expect("a path"));
        let node = |node: &Value| Node {
            name: node["name"].as_str().expect("a name").to_owned(),
            postgres_port: port(&node["postgres_port"]),
            rest_port: port(&node["rest_port"]),
            data_dir: path(&node["data_directory"]),
            config: path(&node["config"]),
            log: path(&node["agent"]["launch"]["log"]),
            agent: process(&node["agent"]),
        };
        nodes.map(node).collect()
    }

    pub fn node(&self, name: &str) -> Node {
        self.nodes().into_iter().find(|node| node.name == name).expect("a node of this name")
    }

    /// What a node's agent has logged.
    pub fn log(&self, node: &str) -> String {
        std::fs::read_to_string(self.node(node).log).unwrap_or_default()
    }

    pub fn postmaster(&self, node: &str) -> Option<Process> {
        postmaster_of(&self.node(node).data_dir)
    }

    /// The parent of the postmaster, if it is a guard.
    pub fn guard(&self, node: &str) -> Option<Process> {
        self.postmaster(node)?.parent().filter(|parent| parent.name() == "pgherd-guard")
    }

    /// Changes what the demo has recorded of itself.
    pub fn change_state(&self, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        change(&mut state);
        std::fs::write(self.directory().join("state.json"), state.to_string()).expect("the state can be written");
    }

    /// Gives a node these tags in place of those that it has.
    pub fn tag(&self, node: &str, tags: &Value) {
        let config = self.node(node).config;
        let text = std::fs::read_to_string(&config).expect("its file");
        let kept: String = text.split_inclusive('\n').filter(|line| !line.starts_with("tags: ")).collect();
        std::fs::write(&config, format!("{kept}tags: {tags}\n")).expect("its file");
        self.reload(node);
    }

    /// Has a node's agent read its file again, and waits until it has.
    pub fn reload(&self, node: &str) {
        let read = || self.log(node).matches("the configuration was read again").count();
        let before = read();
        let (status, text) = self.rest(node, "POST", "/reload", "").expect("an answer");
        assert_eq!(status, 202, "{text}");
        eventually(&format!("{node} reads its file again"), LONG, || match read() {
            now if now > before => Ok(()),
            _ => Err(self.log(node)),
        });
    }

    /// The same after a change of the file.
    pub fn reload_with(&self, node: &str, from: &str, to: &str) {
        self.edit(node, from, to);
        self.reload(node);
    }

    /// Has a replica made anew, by an order through the REST API; returns when another server runs there.
    pub fn reinitialize(&self, node: &str, order: &Value) {
        let before = self.postmaster(node);
        let (status, text) = self.rest(node, "POST", "/reinitialize", &order.to_string()).expect("an answer");
        assert_eq!(status, 200, "{text}");
        eventually(&format!("another server runs on {node}"), LONG, || match self.postmaster(node) {
            now if now.is_some() && now != before => Ok(()),
            other => Err(format!("{other:?}\n{}", self.log(node))),
        });
    }

    /// Starts the agent of a node again, as its service would; the former one must have ended.
    pub fn start_agent(&self, node: &str) -> Process {
        self.start_agent_in(node, &[])
    }

    /// The same with these variables in its environment.
    pub fn start_agent_in(&self, node: &str, environment: &[(&str, &OsStr)]) -> Process {
        assert!(!self.node(node).agent.is_alive(), "the agent of {node} runs");
        let mut state = self.state();
        let nodes = state["nodes"].as_array_mut().expect("nodes");
        let recorded = nodes.iter_mut().find(|recorded| recorded["name"] == node).expect("a node of this name");
        let agent = self.launch(&recorded["agent"]["launch"], environment);
        recorded["agent"]["identity"] = json!({ "pid": agent.pid, "started_ticks": agent.started });
        // Recorded, so that the end of the demo asks it to stop in order.
        std::fs::write(self.directory().join("state.json"), state.to_string()).expect("the state can be written");
        agent
    }

    /// Ends the entrypoint and starts it again with what its file says now.
    pub fn restart_entry(&self) {
        self.entry().kill();
        let mut state = self.state();
        let entry = self.launch(&state["entry"]["launch"], &[]);
        state["entry"]["identity"] = json!({ "pid": entry.pid, "started_ticks": entry.started });
        std::fs::write(self.directory().join("state.json"), state.to_string()).expect("the state can be written");
    }

    pub fn store(&self) -> Process {
        process(&self.state()["store"])
    }

    /// Starts the store again on its data; the former process must have ended.
    pub fn start_store(&self) {
        assert!(!self.store().is_alive(), "the store runs");
        let mut state = self.state();
        let store = self.launch(&state["store"]["launch"], &[]);
        state["store"]["identity"] = json!({ "pid": store.pid, "started_ticks": store.started });
        std::fs::write(self.directory().join("state.json"), state.to_string()).expect("the state can be written");
    }

    /// As the demo does it: only its own marks in the environment, a session of its own, the output to its log.
    fn launch(&self, launch: &Value, environment: &[(&str, &OsStr)]) -> Process {
        let log = std::fs::File::options().append(true).open(launch["log"].as_str().expect("a log")).expect("its log");
        let mut command = Command::new(launch["program"].as_str().expect("a program"));
        for argument in launch["arguments"].as_array().expect("arguments") {
            command.arg(argument.as_str().expect("an argument"));
        }
        command.current_dir(self.directory()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.directory()).env("LC_ALL", "C.UTF-8").env("PGHERD_DEMO_DIRECTORY", self.directory());
        command.envs(environment.iter().copied());
        if let Some(node) = launch["node"].as_str() {
            command.env("PGHERD_DEMO_NODE", node);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log).process_group(0);
        let mut child = command.spawn().expect("the program can be started");
        let process = Process::of(i32::try_from(child.id()).expect("a pid")).expect("it has just been started");
        // Somebody has to take its exit code.
        std::thread::spawn(move || child.wait());
        process
    }

    /// `GET`, `POST`, `PATCH` on a node's REST API: status and text.
    pub fn rest(&self, node: &str, method: &str, path: &str, body: &str) -> Result<(u16, String), String> {
        self.rest_within(ANSWER, node, method, path, body)
    }

    /// The same for an order whose answer comes when it is carried out.
    pub fn rest_within(
        &self,
        limit: Duration,
        node: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<(u16, String), String> {
        let url = format!("http://127.0.0.1:{}{path}", self.node(node).rest_port);
        let method = method.parse().expect("a method");
        self.runtime.block_on(async {
            let request = self.client.request(method, url).timeout(limit).body(body.to_owned());
            let answer = request.send().await.map_err(|error| error.to_string())?;
            let status = answer.status().as_u16();
            Ok((status, answer.text().await.map_err(|error| error.to_string())?))
        })
    }

    /// The epoch under which a node serves as the primary, from the first line of the route that it pushes.
    pub fn epoch(&self, node: &str) -> Option<u64> {
        let url = format!("http://127.0.0.1:{}/pgherd/route", self.node(node).rest_port);
        let line = self.runtime.block_on(async {
            let mut stream = self.client.get(url).send().await.ok()?;
            let mut text = Vec::new();
            while !text.contains(&b'\n') {
                text.extend_from_slice(&stream.chunk().await.ok()??);
            }
            text.split(|byte| *byte == b'\n').next().map(<[u8]>::to_vec)
        });
        serde_json::from_slice::<pgherd_ha::RouteMessage>(&line?)
            .expect("a line of a route")
            .node
            .epoch
            .map(|epoch| epoch.0)
    }

    /// What the store has to say of its sessions and their keys.
    pub fn store_dump(&self) -> String {
        let ask = || -> std::io::Result<String> {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port(&self.state()["store_port"])))?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.write_all(b"dump")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().expect("the store answers")
    }

    /// Waits until the store has given up the session that this key belonged to.
    pub fn key_is_gone(&self, key: &str) {
        let key = format!("/service/demo/{key}\n");
        eventually(&format!("{key:?} is gone"), LONG, || {
            if self.store_dump().contains(&key) { Err("it is there".to_owned()) } else { Ok(()) }
        });
    }

    /// Agent, guard and server of a node at once, as when the machine is lost.
    pub fn kill_host(&self, node: &str) {
        let Node { data_dir, agent, .. } = self.node(node);
        let all = || {
            let guard = self.guard(node).filter(|guard| guard.is_alive());
            let agent = Some(agent).filter(|agent| agent.is_alive());
            agent.into_iter().chain(guard).chain(residents_of(&data_dir)).collect::<Vec<_>>()
        };
        eventually("nothing of the node is left", LONG, || {
            let left = all();
            left.iter().for_each(|process| process.signal(rustix::process::Signal::KILL));
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }

    /// What one member's status endpoint says.
    pub fn status(&self, node: &str) -> Result<Value, String> {
        let (_, text) = self.rest(node, "GET", "/patroni", "")?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// Changes the dynamic configuration, through any agent that runs.
    pub fn configure(&self, change: &Value) {
        let node = self.nodes().into_iter().find(|node| node.agent.is_alive()).expect("an agent");
        let (status, text) = self.rest(&node.name, "PATCH", "/config", &change.to_string()).expect("an answer");
        assert_eq!(status, 200, "{text}");
    }

    /// Changes a node's own file; its agent reads it when it is told to, or starts.
    pub fn edit(&self, node: &str, from: &str, to: &str) {
        let file = self.node(node).config;
        let text = std::fs::read_to_string(&file).expect("the node's file");
        assert!(text.contains(from), "{from:?} is not in {text}");
        std::fs::write(&file, text.replacen(from, to, 1)).expect("the node's file");
    }

    /// The members as one of them sees the cluster.
    pub fn members_by(&self, node: &str) -> Result<Vec<Member>, String> {
        let (_, text) = self.rest(node, "GET", "/cluster", "")?;
        let body: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let word = |member: &Value, key: &str| member[key].as_str().unwrap_or_default().to_owned();
        let members = body["members"].as_array().ok_or("no members")?.iter();
        let member = |member: &Value| Member {
            name: word(member, "name"),
            role: word(member, "role"),
            state: word(member, "state"),
            timeline: member["timeline"].as_u64(),
        };
        Ok(members.map(member).collect())
    }

    /// The leader's name, as soon as a running one is known to any member.
    pub fn leader(&self) -> String {
        eventually("a running leader", LONG, || {
            let members = self.nodes().iter().find_map(|node| self.members_by(&node.name).ok());
            let members = members.ok_or("nobody answers")?;
            let leader = members.iter().find(|member| member.role == "leader" && member.state == "running");
            leader.map(|leader| leader.name.clone()).ok_or_else(|| format!("{members:?}"))
        })
    }

    pub fn replicas(&self) -> Vec<String> {
        let leader = self.leader();
        self.nodes().into_iter().map(|node| node.name).filter(|name| *name != leader).collect()
    }

    /// Waits for a leader other than this one; its name.
    pub fn another_leader(&self, than: &str) -> String {
        eventually("another leader", LONG, || {
            let others = self.nodes().into_iter().filter(|node| node.name != than);
            let members = others.into_iter().find_map(|node| self.members_by(&node.name).ok());
            let members = members.ok_or("nobody answers")?;
            let leads = |member: &&Member| member.role == "leader" && member.state == "running" && member.name != than;
            members.iter().find(leads).map(|leader| leader.name.clone()).ok_or_else(|| format!("{members:?}"))
        })
    }

    /// Every member answers by itself, and all agree on one running leader and on standbys that stream on its timeline.
    pub fn wait_healthy(&self) {
        eventually("all members are healthy", 2 * LONG, || {
            let nodes = self.nodes();
            nodes.iter().try_for_each(|node| healthy(&self.members_by(&node.name)?, nodes.len()))
        });
    }

    pub fn connection_to(&self, port: u16) -> tokio_postgres::Config {
        let pgpass = std::fs::read_to_string(self.directory().join("pgpass")).expect("the password file");
        let password = pgpass.trim().rsplit(':').next().expect("a password").to_owned();
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).user("postgres").dbname("postgres").password(password);
        config.connect_timeout(ANSWER);
        config
    }

    /// Whether a client gets in with this; else the server's words with their code.
    pub fn connects(&self, config: &tokio_postgres::Config) -> Result<(), String> {
        let limited = async { tokio::time::timeout(LONG, config.connect(NoTls)).await };
        match self.runtime.block_on(limited).map_err(|_| "no answer".to_owned())? {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.as_db_error() {
                Some(server) => format!("{}: {}", server.code().code(), server.message()),
                None => format!("{error:?}"),
            }),
        }
    }

    /// Runs SQL on a port in a session of its own: the first column of each row, or the error in full.
    pub fn sql_at(&self, port: u16, sql: &str) -> Result<Vec<String>, String> {
        let config = self.connection_to(port);
        let session = async {
            let (client, connection) = config.connect(NoTls).await?;
            let driver = tokio::spawn(connection);
            let result = client.simple_query(sql).await;
            driver.abort();
            result
        };
        let limited = async { tokio::time::timeout(LONG, session).await };
        let messages = self.runtime.block_on(limited).map_err(|_| "no answer".to_owned())?;
        let messages = messages.map_err(|error| match error.as_db_error() {
            Some(server) => format!("{}: {}", server.code().code(), server.message()),
            None => format!("{error:?}"),
        })?;
        let first = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        };
        Ok(messages.iter().filter_map(first).collect())
    }

    /// On a node itself.
    pub fn sql(&self, node: &str, sql: &str) -> Result<Vec<String>, String> {
        self.sql_at(self.node(node).postgres_port, sql)
    }

    /// Through the entrypoint; it must work.
    pub fn write(&self, sql: &str) -> Vec<String> {
        self.sql_at(self.entry_port(), sql).expect("the entrypoint serves a primary")
    }

    /// Waits until a node answers a query with these rows.
    pub fn shows(&self, node: &str, sql: &str, rows: &[&str]) {
        eventually(&format!("{node} answers {sql:?} with {rows:?}"), LONG, || {
            let found = self.sql(node, sql)?;
            if found == rows { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }

    fn all_logs(&self) -> BTreeMap<String, String> {
        let entries = std::fs::read_dir(self.directory()).into_iter().flatten().flatten().map(|entry| entry.path());
        let logs = entries.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        let last = |path: PathBuf| {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            (path.display().to_string(), lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
        };
        logs.map(last).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing {
            for (log, lines) in self.all_logs() {
                eprintln!("--- {log}\n{lines}");
            }
        }
        let output = self.demo(&["demo", "--stop"]);
        let left = traces_of(&self.directory());
        left.iter().for_each(|process| process.signal(rustix::process::Signal::KILL));
        if !failing {
            assert!(output.status.success(), "the demo does not end\n{}", text(&output));
            assert_eq!(left, [], "processes of the cluster were left");
        }
    }
}

/// One running leader and everybody else streaming from it on its timeline; else what is missing.
fn healthy(members: &[Member], expected: usize) -> Result<(), String> {
    let wrong = || Err(format!("{members:?}"));
    let Some(leader) = members.iter().find(|member| member.role == "leader") else { return wrong() };
    let follows = |member: &Member| member.state == "streaming" && member.timeline == leader.timeline;
    let others = members.iter().filter(|member| member.name != leader.name).filter(|member| follows(member)).count();
    if leader.state == "running" && others + 1 == expected && members.len() == expected { Ok(()) } else { wrong() }
}

fn port(value: &Value) -> u16 {
    value.as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port")
}

fn process(value: &Value) -> Process {
    let identity = &value["identity"];
    let pid = identity["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
    Process { pid, started: identity["started_ticks"].as_u64().expect("a start time") }
}

/// Both outputs of a program, for messages.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
