//! The start of a demo: store, agents and entrypoint, the first write, and the members' health.
//!
//! Nothing sleeps for a fixed time: each step is asked for again every few milliseconds until it is reached, a process
//! has ended, or its deadline has passed. Tested by `tests/it/demo.rs`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep, timeout};

use super::cluster::{Member, Rest, postgres_at};
use super::files::{self, Layout, Passwords, node_name};
use super::launch::{Launch, Process, User, last_lines};
use super::ports::{self, Ports};
use super::processes::own_program;
use super::programs::{self, Programs};
use super::progress::Progress;
use super::state::{Node, State};
use super::store::{self, StoreKind};

/// A store needs 0.3 s on an idle laptop, a few seconds on a very busy one.
const STORE_DEADLINE: Duration = Duration::from_secs(30);
/// initdb, the election and the first write take 2 to 4 s; an old disk may need much more.
const FIRST_WRITE_DEADLINE: Duration = Duration::from_secs(90);
/// One base backup for each further node.
const MEMBERS_DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

/// Writes the files, starts everything and returns once all members are healthy. The state is kept up to date from
/// before the first process on, so that whoever cleans up finds what was started.
pub async fn start(
    layout: &Layout,
    nodes: usize,
    store: StoreKind,
    progress: &Progress,
) -> anyhow::Result<(State, Vec<Member>)> {
    let programs = programs::find(store)?;
    let user = programs::server_user()?;
    if user.is_some() {
        check_reachable(&layout.directory)?;
    }
    let (ports, _claimed) =
        ports::free(nodes).context("found no free block of ports between 5000 and 8999 on 127.0.0.1")?;
    let passwords = Passwords::random().context("the kernel gave no random bytes for the passwords")?;
    files::write_all(layout, nodes, ports, &programs, &passwords, user)
        .with_context(|| format!("writing the configuration to {} failed", layout.directory.display()))?;

    let mut state = describe(layout, nodes, store, ports);
    state.save()?;
    start_store(&mut state, &programs, user, progress).await?;
    start_agents_and_entry(&mut state, user, progress)?;
    first_write(&state, progress).await?;
    let members = all_members(&state, progress).await?;
    state.complete = true;
    state.save()?;
    Ok((state, members))
}

/// Started by root, the servers run as another user, who must be able to enter the directory.
fn check_reachable(directory: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for ancestor in directory.ancestors() {
        let mode = std::fs::metadata(ancestor).with_context(|| format!("reading {} failed", ancestor.display()))?;
        if mode.permissions().mode() & 0o001 == 0 {
            bail!(
                "{} cannot be entered by user postgres, whom the servers run as; choose another --directory",
                ancestor.display()
            );
        }
    }
    Ok(())
}

fn describe(layout: &Layout, nodes: usize, store_kind: StoreKind, ports: Ports) -> State {
    let node = |number| {
        let name = node_name(number);
        Node {
            postgres_port: ports.postgres(number),
            rest_port: ports.rest(number),
            data_directory: layout.node_data(&name),
            config: layout.node_config(&name),
            agent: None,
            name,
        }
    };
    State {
        directory: layout.directory.clone(),
        entry_port: ports.entry(),
        stats_port: ports.stats(),
        store_port: ports.store(),
        store_kind,
        complete: false,
        store: None,
        entry: None,
        nodes: (1..=nodes).map(node).collect(),
    }
}

async fn start_store(
    state: &mut State,
    programs: &Programs,
    user: Option<User>,
    progress: &Progress,
) -> anyhow::Result<()> {
    let (layout, kind, port) = (state.layout(), state.store_kind, state.store_port);
    if kind == StoreKind::BuiltIn && !store::has_third_member(state.nodes.len()) {
        progress.done("store       members in the agents");
        return Ok(());
    }
    progress.doing(&format!("starting the store ({kind})"));
    let (program, arguments) = store::command(&programs.store, &layout, port)?;
    let launch = Launch {
        name: "store".into(),
        program: program.into(),
        arguments,
        log: layout.log("store"),
        directory: layout.directory.clone(),
        node: None,
        user,
    };
    let store = launch.start().with_context(|| format!("starting {kind} failed"))?;
    state.store = Some(store);
    state.save()?;
    reached(state, STORE_DEADLINE, "the store answers", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    progress.done(&format!("store       {kind} on port {port}"));
    Ok(())
}

fn start_agents_and_entry(state: &mut State, user: Option<User>, progress: &Progress) -> anyhow::Result<()> {
    let layout = state.layout();
    let program = own_program().context("finding pgherd's own program failed")?;
    let launch = |name: &str, role: &str, config: &Path, node: Option<String>, user: Option<User>| Launch {
        name: name.to_owned(),
        program: program.clone(),
        arguments: vec![role.to_owned(), config.display().to_string()],
        log: layout.log(name),
        directory: layout.directory.clone(),
        node,
        user,
    };
    for node in &mut state.nodes {
        // As root, the agent takes its real-time limits first and changes its user then: by itself.
        let agent = launch(&node.name, "agent", &node.config, Some(node.name.clone()), None);
        node.agent = Some(agent.start().with_context(|| format!("starting the agent of {} failed", node.name))?);
        progress.done(&format!(
            "{}       PostgreSQL on port {}, REST API on port {}",
            node.name, node.postgres_port, node.rest_port
        ));
    }
    let entry = launch("entrypoint", "proxy", &layout.entry_config(), None, user);
    let failed = || format!("starting the entrypoint failed; it executes {} as the servers' user", program.display());
    state.entry = Some(entry.start().with_context(failed)?);
    state.save()?;
    progress.done(&format!("entrypoint  on port {}, its page on port {}", state.entry_port, state.stats_port));
    Ok(())
}

async fn first_write(state: &State, progress: &Progress) -> anyhow::Result<()> {
    progress.doing("waiting for a primary and the first write through the entrypoint");
    let config = postgres_at(state, state.entry_port, Duration::from_secs(5))?;
    reached(state, FIRST_WRITE_DEADLINE, "a write through the entrypoint", async || {
        write_once(&config).await.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    })
    .await?;
    progress.done("first write through the entrypoint");
    Ok(())
}

async fn write_once(config: &tokio_postgres::Config) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let written = client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS demo (id bigint GENERATED ALWAYS AS IDENTITY, text text, \
             at timestamptz NOT NULL DEFAULT now()); INSERT INTO demo (text) VALUES ('the first write')",
        )
        .await;
    connection.abort();
    written
}

async fn all_members(state: &State, progress: &Progress) -> anyhow::Result<Vec<Member>> {
    let rest = Rest::new()?;
    progress.doing(&format!("waiting for all {} members", state.nodes.len()));
    let members = reached(state, MEMBERS_DEADLINE, "all members run", async || rest.all_healthy(&state.nodes).await);
    let members = members.await?;
    progress.done(&format!("all {} members are running", state.nodes.len()));
    Ok(members)
}

/// Asks until the answer is `Ok`. The error names the process that has ended, or what the last answer said.
async fn reached<T>(
    state: &State,
    limit: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    let mut last = "no answer yet".to_owned();
    loop {
        if let Some(ended) = state.processes().find(|process| !process.identity.is_alive()) {
            bail!("{}", ended_message(ended));
        }
        let left = end.saturating_duration_since(Instant::now());
        // One attempt may wait, as the entrypoint holds its clients; but not without looking at the processes.
        match timeout(left.min(Duration::from_secs(5)), ask()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        if Instant::now() >= end {
            let logs: String = state.processes().map(|process| log_of(process, 8)).collect();
            bail!("waited {} s, but not reached: {what} ({last})\n{logs}", limit.as_secs());
        }
        sleep(POLL).await;
    }
}

fn ended_message(process: &Process) -> String {
    format!("{} ended by itself\n{}", process.launch.name, log_of(process, 20))
}

fn log_of(process: &Process, lines: usize) -> String {
    let log = &process.launch.log;
    format!("  last lines of the log of {}:\n{}", process.launch.name, last_lines(log, lines))
}
