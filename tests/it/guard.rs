//! The guard with real PostgreSQL: whoever dies or hangs, no process of the server outlives its permit.

use std::process::{Child, Command};
use std::time::Duration;

use pgherd_agent::guard::{Attached, Cause, Guard, GuardError, PermitEnded, State, attach, scan, start_unguarded};
use pgherd_dcs::boot_now;
use pgherd_ha::Boot;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::postgres::Server;
use crate::harness::user::passed_as_postgres;
use crate::harness::{binary, wait_until};

const SOON: Duration = Duration::from_secs(10);
/// What the permit's arithmetic allows for the killing (`pgherd_ha::STOP_TIME`).
const STOP_TIME: Duration = pgherd_ha::STOP_TIME;

/// pgbench, writing on many connections; killed when dropped.
struct Load(Child);

impl Load {
    async fn start(server: &Server, clients: usize) -> Load {
        let pgbench = |words: &[&str]| {
            let mut command = Command::new(server.bin_dir.join("pgbench"));
            command.arg("--host").arg(server.socket_dir()).args(["--username=postgres"]).args(words).arg("postgres");
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            command
        };
        drop(server.connect().await);
        assert!(pgbench(&["-i", "-q"]).status().expect("pgbench").success());
        let load = Load(pgbench(&["-n", "-T", "60", "-c", &clients.to_string()]).spawn().expect("pgbench"));
        wait_until("the clients are connected", SOON, || server.processes() > clients).await;
        load
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Backends that never wait for a client do not notice that their postmaster is gone: they go on committing.
async fn write_without_end(server: &Server, writers: u32) {
    let control = server.connect().await;
    for writer in 0..writers {
        // A table each: a backend that waits for another's lock notices the postmaster's death, and ends by itself.
        control.batch_execute(&format!("CREATE TABLE t{writer} (i int)")).await.expect("a table");
        let client = server.connect().await;
        let endless = format!("DO $$ BEGIN LOOP INSERT INTO t{writer} VALUES (1); COMMIT; END LOOP; END $$");
        tokio::spawn(async move { client.batch_execute(&endless).await });
    }
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'";
    while control.query_one(busy, &[]).await.expect("a count").get::<_, i64>(0) < i64::from(writers) {}
}

fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).expect("a running process");
}

#[tokio::test]
async fn the_deadline_leaves_no_process_of_a_busy_server() {
    if passed_as_postgres("guard::the_deadline_leaves_no_process_of_a_busy_server") {
        return;
    }
    let server = Server::new();
    let guard = Guard::start(&server.spawn()).await.expect("a guard");
    let _load = Load::start(&server, 100).await;
    let before = server.processes();
    let deadline = boot_now() + Duration::from_millis(300);
    guard.page().set_deadline(deadline).expect("not ended");
    let fate = guard.fate().await.expect("the guard's account");
    let late = boot_now().since(deadline);
    assert_eq!(server.processes(), 0);
    println!(
        "{before} processes gone {late:?} after the deadline; the guard counts {:?} for {}",
        fate.took, fate.killed
    );
    println!("abilities: {:?}", guard.page().abilities());
    assert!(late < STOP_TIME, "{late:?}");
    assert!(fate.ended_at >= deadline);
    assert_eq!(fate.cause, Cause::PermitEnded);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&fate.status.expect("its child's status")), Some(9));
    assert_eq!(guard.page().set_no_end(), Err(PermitEnded));
    assert!(server.log().contains("the permit of this node ended"));
}

#[tokio::test]
async fn a_permit_can_be_prolonged_but_its_end_is_immediate_and_final() {
    if passed_as_postgres("guard::a_permit_can_be_prolonged_but_its_end_is_immediate_and_final") {
        return;
    }
    let server = Server::new();
    let guard = Guard::start(&server.spawn()).await.expect("a guard");
    let client = server.connect().await;
    let page = guard.page();
    let lease = Duration::from_millis(400);
    let end = boot_now() + Duration::from_secs(2);
    while boot_now() < end {
        page.set_deadline(boot_now() + lease).expect("not ended");
        client.execute("SELECT pg_sleep(0.05)", &[]).await.expect("the server lives on");
    }
    page.set_no_end().expect("not ended");
    client.execute("SELECT pg_sleep(0.5)", &[]).await.expect("the server lives on");
    assert_eq!(page.state(), State::Watching);
    let begun = boot_now();
    page.kill_now();
    assert_eq!(page.set_deadline(Boot::NEVER), Err(PermitEnded));
    guard.guard_exit().await;
    println!("kill_now took {:?}", boot_now().since(begun));
    assert!(boot_now().since(begun) < STOP_TIME);
    assert_eq!(server.processes(), 0);
}

#[tokio::test]
async fn a_killed_guard_takes_its_server_along() {
    if passed_as_postgres("guard::a_killed_guard_takes_its_server_along") {
        return;
    }
    let server = Server::new();
    let guard = Guard::start(&server.spawn()).await.expect("a guard");
    let _load = Load::start(&server, 20).await;
    kill(guard.pid());
    let took = wait_until("the server is gone", SOON, || server.processes() == 0).await;
    println!("gone {took:?} after its guard");
    guard.postmaster_exit().await;
    assert!(guard.fate().await.is_none(), "nobody is left to tell");
    assert!(!guard.is_alive() && !guard.postmaster_is_alive());
}

#[tokio::test]
async fn orphans_of_a_killed_postmaster_are_killed_at_once() {
    if passed_as_postgres("guard::orphans_of_a_killed_postmaster_are_killed_at_once") {
        return;
    }
    let server = Server::new();
    let guard = Guard::start(&server.spawn()).await.expect("a guard");
    let writers = 8;
    write_without_end(&server, writers).await;
    let begun = boot_now();
    kill(guard.postmaster());
    guard.postmaster_exit().await;
    println!("noticed after {:?}", boot_now().since(begun));
    let fate = guard.fate().await.expect("the guard's account");
    println!("{} orphans gone after {:?}", fate.killed, boot_now().since(begun));
    assert!(fate.killed >= writers, "{fate:?}");
    assert!(boot_now().since(begun) < STOP_TIME);
    assert_eq!(server.processes(), 0);
    assert_eq!(fate.cause, Cause::PostmasterExit);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&fate.status.expect("its child's status")), Some(9));
    assert!(server.log().contains("left processes behind"));
}

#[tokio::test]
async fn a_clean_stop_is_told_from_a_crash() {
    if passed_as_postgres("guard::a_clean_stop_is_told_from_a_crash") {
        return;
    }
    let server = Server::new();
    let mut spawn = server.spawn();
    // The collector outlives the postmaster by a moment, for the last lines.
    spawn.args.push("--logging_collector=on".into());
    let guard = Guard::start(&spawn).await.expect("a guard");
    drop(server.connect().await);
    assert!(guard.signal_postmaster(Signal::INT));
    let fate = guard.fate().await.expect("the guard's account");
    assert_eq!((fate.cause, fate.killed), (Cause::PostmasterExit, 0));
    assert_eq!(fate.status.expect("its child's status").code(), Some(0));
    assert_eq!(server.processes(), 0);
    assert!(!guard.signal_postmaster(Signal::INT));
}

#[tokio::test]
async fn a_new_agent_finds_the_guard_again() {
    if passed_as_postgres("guard::a_new_agent_finds_the_guard_again") {
        return;
    }
    let server = Server::new();
    let guard = Guard::start(&server.spawn()).await.expect("a guard");
    drop(server.connect().await);
    let (pid, postmaster) = (guard.pid(), guard.postmaster());
    drop(guard);
    let Attached::Guarded(again) = attach(&server.data_dir()).expect("a look") else { panic!("no guard was found") };
    assert_eq!((again.pid(), again.postmaster()), (pid, postmaster));
    assert!(again.is_alive() && again.postmaster_is_alive());
    again.page().kill_now();
    let fate = again.fate().await.expect("the guard's account");
    assert!(fate.took < STOP_TIME, "{fate:?}");
    assert_eq!(server.processes(), 0);
    assert!(matches!(attach(&server.data_dir()), Ok(Attached::None)), "what is dead is not attached to");
}

#[tokio::test]
async fn a_server_that_somebody_else_started_gets_a_guard() {
    if passed_as_postgres("guard::a_server_that_somebody_else_started_gets_a_guard") {
        return;
    }
    let server = Server::new();
    server.start_by_hand();
    let Attached::Unguarded(found) = attach(&server.data_dir()).expect("a look") else { panic!("no server was found") };
    let adopt = || async {
        Guard::adopt(&server.data_dir(), found.pid(), Boot::NEVER, &binary::pgherd()).await.expect("a guard")
    };
    let first = adopt().await;
    assert!(first.page().abilities().adopted);
    kill(first.pid());
    first.guard_exit().await;
    assert!(found.is_alive(), "an adopted server does not die with its guard");
    let second = adopt().await;
    let Attached::Guarded(again) = attach(&server.data_dir()).expect("a look") else { panic!("no guard was found") };
    assert_eq!(again.pid(), second.pid());
    let _load = Load::start(&server, 20).await;
    again.page().set_deadline(boot_now()).expect("not ended");
    let fate = second.fate().await.expect("the guard's account");
    assert_eq!((fate.cause, fate.status), (Cause::PermitEnded, None));
    assert!(fate.took < STOP_TIME, "{fate:?}");
    assert_eq!(server.processes(), 0);
}

#[tokio::test]
async fn a_stale_pid_file_is_not_trusted() {
    if passed_as_postgres("guard::a_stale_pid_file_is_not_trusted") {
        return;
    }
    let server = Server::new();
    let pid_file = server.data_dir().join("postmaster.pid");
    assert!(matches!(attach(&server.data_dir()), Ok(Attached::None)));
    // Another program under the number, as after a reboot: this test itself.
    for content in [format!("{}\n", std::process::id()), "1\n".into(), "-7\n".into(), "4194303\n".into(), "".into()] {
        std::fs::write(&pid_file, &content).expect("written");
        assert!(matches!(attach(&server.data_dir()), Ok(Attached::None)), "{content:?}");
    }
    let own = Pid::from_raw(std::process::id() as i32).expect("positive");
    let refused = Guard::adopt(&server.data_dir(), own, Boot::NEVER, &binary::pgherd()).await;
    assert!(matches!(&refused, Err(GuardError::Refused(why)) if why.contains("no postmaster")), "{refused:?}");
    // A real postmaster, but of another directory.
    let other = Server::new();
    let guard = Guard::start(&other.spawn()).await.expect("a guard");
    drop(other.connect().await);
    std::fs::write(&pid_file, format!("{}\n", guard.postmaster().as_raw_pid())).expect("written");
    assert!(matches!(attach(&server.data_dir()), Ok(Attached::None)));
    guard.page().kill_now();
    guard.guard_exit().await;
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    if passed_as_postgres("guard::what_cannot_start_says_why") {
        return;
    }
    let server = Server::new();
    let mut spawn = server.spawn();
    spawn.postgres = "/nowhere/postgres".into();
    let refused = Guard::start(&spawn).await.expect_err("no such program").to_string();
    assert!(refused.contains("/nowhere/postgres: No such file"), "{refused}");
    let refused = start_unguarded(&spawn).await.expect_err("no such program").to_string();
    assert!(refused.contains("/nowhere/postgres: No such file"), "{refused}");
    // Begins, and ends by itself: a fate, unless guard and server are gone before anybody can ask, which is said as that.
    let mut spawn = server.spawn();
    spawn.args.push("--no_such_setting=1".into());
    match Guard::start(&spawn).await {
        Ok(guard) => {
            let fate = guard.fate().await.expect("the guard's account");
            assert_eq!(fate.status.expect("its child's status").code(), Some(1));
        }
        Err(error) => assert!(matches!(error, GuardError::Vanished { .. }), "{error}"),
    }
    assert!(server.log().contains("no_such_setting"));
}

#[tokio::test]
async fn without_a_guard_nothing_but_postgresql_stops_the_server() {
    if passed_as_postgres("guard::without_a_guard_nothing_but_postgresql_stops_the_server") {
        return;
    }
    let server = Server::new();
    let postmaster = start_unguarded(&server.spawn()).await.expect("a postmaster");
    drop(server.connect().await);
    let Attached::Unguarded(found) = attach(&server.data_dir()).expect("a look") else { panic!("no server was found") };
    assert_eq!(found.pid(), postmaster.pid());
    assert_eq!(rustix::process::getsid(Some(found.pid())).expect("its session"), found.pid());
    assert!(found.signal(Signal::INT));
    postmaster.exit().await;
    wait_until("the server is gone", SOON, || server.processes() == 0).await;
}

#[tokio::test]
async fn the_agent_clears_away_orphans_that_had_no_guard() {
    if passed_as_postgres("guard::the_agent_clears_away_orphans_that_had_no_guard") {
        return;
    }
    let server = Server::new();
    let postmaster = start_unguarded(&server.spawn()).await.expect("a postmaster");
    write_without_end(&server, 4).await;
    kill(postmaster.pid());
    postmaster.exit().await;
    assert!(server.processes() >= 4, "the writers go on");
    assert!(matches!(attach(&server.data_dir()), Ok(Attached::None)));
    let sent = scan::kill_all(&server.data_dir(), SOON).await.expect("all killed");
    assert!(sent >= 4, "{sent}");
    assert_eq!(server.processes(), 0);
    assert_eq!(scan::kill_all(&server.data_dir(), SOON).await.expect("nothing to do"), 0);
}

#[tokio::test]
async fn a_permit_that_is_over_at_the_start_lets_nothing_live() {
    if passed_as_postgres("guard::a_permit_that_is_over_at_the_start_lets_nothing_live") {
        return;
    }
    let server = Server::new();
    let mut spawn = server.spawn();
    spawn.deadline = boot_now();
    let guard = Guard::start(&spawn).await.expect("a guard, which outlives its server");
    let fate = guard.fate().await.expect("the guard's account");
    assert_eq!((fate.cause, server.processes()), (Cause::PermitEnded, 0));
}

/// The frozen agent is this test's own program, started again with the data directory in this variable.
const FROZEN: &str = "PGHERD_IT_AGENT_TO_FREEZE";

#[tokio::test]
async fn a_frozen_agent_does_not_keep_its_server_alive() {
    if passed_as_postgres("guard::a_frozen_agent_does_not_keep_its_server_alive") {
        return;
    }
    let server = Server::new();
    let guard = Guard::start(&server.spawn()).await.expect("a guard");
    let _load = Load::start(&server, 50).await;
    let mut agent = Command::new(binary::OWN)
        .args(["guard::agent_to_freeze", "--exact"])
        .env(FROZEN, server.data_dir())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("run this test again");
    let page = guard.page();
    wait_until("the agent renews", SOON, || page.deadline() != Some(Boot::NEVER)).await;
    let first = page.deadline();
    wait_until("the agent renews again", SOON, || page.deadline() != first).await;
    let agent_pid = Pid::from_raw(agent.id() as i32).expect("positive");
    kill_process(agent_pid, Signal::STOP).expect("a running process");
    let fate = guard.fate().await.expect("the guard's account");
    let _ = agent.kill();
    let _ = agent.wait();
    assert_eq!((fate.cause, server.processes()), (Cause::PermitEnded, 0));
    assert!(fate.took < STOP_TIME, "{fate:?}");
}

/// Not a test by itself: the agent of the test above. Renews for as long as it is let.
#[tokio::test]
async fn agent_to_freeze() {
    let Some(data_dir) = std::env::var_os(FROZEN) else { return };
    let Ok(Attached::Guarded(guard)) = attach(data_dir.as_ref()) else { panic!("no guard was found") };
    while guard.page().set_deadline(boot_now() + Duration::from_millis(500)).is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_guard_is_small_and_its_children_are_ordinary() {
    if passed_as_postgres("guard::the_guard_is_small_and_its_children_are_ordinary") {
        return;
    }
    let server = Server::new();
    let guard = Guard::start(&server.spawn()).await.expect("a guard");
    drop(server.connect().await);
    // Only then has the guard measured itself.
    wait_until("the guard sleeps in its loop", SOON, || status_of(guard.pid(), "VmLck:").is_some()).await;
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", guard.pid().as_raw_pid())).expect("readable");
    println!("{rollup}\n{:?}", guard.page().abilities());
    assert_eq!(
        std::fs::read_to_string(format!("/proc/{}/comm", guard.pid().as_raw_pid())).expect("a name"),
        "pgherd-guard\n"
    );
    let ignored = status_of(guard.postmaster(), "SigIgn:").expect("a mask");
    let ignored = u64::from_str_radix(&ignored, 16).expect("a mask");
    // PostgreSQL itself ignores SIGPIPE (13), SIGTTIN, SIGTTOU and SIGXFSZ; what matters is HUP, INT, QUIT, TERM.
    assert_eq!(ignored & 0b100_0000_0000_0111, 0, "{ignored:#b}");
    // The 41st field of `stat`: the scheduling policy. Two come before the state.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", guard.postmaster().as_raw_pid())).expect("readable");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    assert_eq!(fields[38], "0", "the postmaster runs at ordinary priority");
    assert!(guard.sees_server());
    assert_eq!(open_files(guard.postmaster()).iter().filter(|file| file.contains("pgherd")).count(), 2, "its log");
    let mut files = open_files(guard.pid());
    println!("{files:?}");
    files.retain(|file| {
        !["pgherd-permit", "pidfd", "timerfd", "/proc", "pipe:", "/dev/null", "/log"]
            .iter()
            .any(|own| file.contains(own))
    });
    assert_eq!(files, Vec::<String>::new(), "the guard holds nothing else");
    guard.page().kill_now();
    guard.guard_exit().await;
}

fn open_files(pid: Pid) -> Vec<String> {
    let files = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())).expect("readable");
    files.flatten().filter_map(|file| Some(std::fs::read_link(file.path()).ok()?.display().to_string())).collect()
}

/// A line of `/proc/PID/status`.
fn status_of(pid: Pid, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field)).map(|value| value.trim().to_owned())
}
