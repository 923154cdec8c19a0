//! `pgherd demo` as a user runs it: a cluster on this machine, and no trace left. The drills are in `cluster/faults.rs`.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;

use crate::harness::cluster::LONG;
use crate::harness::process::{Process, traces_of};
use crate::harness::{binary, eventually};

/// A demo in a directory of its own, ended when the test is over, however that happens.
struct Demo {
    parent: tempfile::TempDir,
    program: PathBuf,
}

impl Demo {
    fn prepare() -> Demo {
        let parent = tempfile::tempdir().expect("a temporary directory");
        // Started by root, the servers run as user postgres, who has to pass through.
        std::fs::set_permissions(parent.path(), PermissionsExt::from_mode(0o755)).expect("its mode can be set");
        // As below /root: nobody else can enter the directory of the program.
        let closed = parent.path().join("closed");
        std::fs::DirBuilder::new().mode(0o700).create(&closed).expect("a directory");
        let program = closed.join("pgherd");
        let built = binary::pgherd();
        std::fs::hard_link(&built, &program).or_else(|_| std::fs::copy(&built, &program).map(drop)).expect("a copy");
        Demo { parent, program }
    }

    fn directory(&self) -> PathBuf {
        self.parent.path().join("demo")
    }

    fn pgherd(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--directory").arg(self.directory());
        command
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.directory().exists() {
            let _ = self.pgherd(&["demo", "--stop"]).output();
        }
    }
}

fn succeeds(mut command: Command) -> Output {
    let output = command.output().expect("pgherd runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    output
}

fn fails(mut command: Command, why: &str) {
    let output = command.output().expect("pgherd runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    assert!(said.contains(why), "{command:?}: {why:?} is missing in\n{said}");
}

/// The pid of the demo's store.
fn store(demo: &Demo) -> i32 {
    let state = std::fs::read(demo.directory().join("state.json")).expect("the state of the demo");
    let state: serde_json::Value = serde_json::from_slice(&state).expect("JSON");
    state["store"]["identity"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid")
}

#[test]
fn a_demo_is_started_once_shown_and_ended_without_a_trace() {
    let demo = Demo::prepare();
    let output = succeeds(demo.pgherd(&["demo", "--nodes", "2"]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["leader", "streaming", "psql", "drill kill-postgres", "demo --stop"] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let secret = std::fs::read_to_string(demo.directory().join("pgpass")).expect("the password file");
    let password = secret.trim().rsplit(':').next().expect("a password");
    assert!(!text.contains(password) && !String::from_utf8_lossy(&output.stderr).contains(password));
    for private in ["pgpass", "state.json", "node1.yml", "node1.log"] {
        let mode = std::fs::metadata(demo.directory().join(private)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{private} can be read by others");
    }

    let again = succeeds(demo.pgherd(&["demo"]));
    assert!(String::from_utf8_lossy(&again.stderr).contains("already running"));
    Process::of(store(&demo)).expect("the store runs").kill();
    fails(demo.pgherd(&["demo"]), "is incomplete: store has ended");

    succeeds(demo.pgherd(&["demo", "--stop"]));
    assert!(!demo.directory().exists());
    assert_eq!(traces_of(&demo.directory()), []);
}

/// A start that has got as far as its first process.
fn begin(demo: &Demo) -> Process {
    let mut command = demo.pgherd(&["demo", "--nodes", "1"]);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("pgherd runs");
    let process = Process::of(i32::try_from(child.id()).expect("a pid")).expect("it has just been started");
    eventually("the store is started", LONG, || {
        let state = std::fs::read_to_string(demo.directory().join("state.json")).map_err(|error| error.to_string())?;
        if state.contains("started_ticks") { Ok(()) } else { Err(state) }
    });
    // Somebody has to take its exit code.
    std::thread::spawn(move || child.wait());
    process
}

#[test]
fn a_start_that_is_told_to_end_leaves_nothing() {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let demo = Demo::prepare();
        let start = begin(&demo);
        start.signal(signal);
        start.ended_within(LONG);
        assert!(!demo.directory().exists(), "{signal:?}");
        assert_eq!(traces_of(&demo.directory()), [], "{signal:?}");
    }
}

#[test]
fn a_demo_whose_start_was_cut_short_is_said_to_be_incomplete() {
    let demo = Demo::prepare();
    let start = begin(&demo);
    // It goes on: neither complete nor cut short.
    start.freeze();
    fails(demo.pgherd(&["demo"]), "another `pgherd demo` is starting");
    start.kill();
    for arguments in [&["demo"][..], &["drill", "stop"]] {
        fails(demo.pgherd(arguments), "is incomplete: its start was cut short. End it with `pgherd demo --stop`");
    }
    succeeds(demo.pgherd(&["demo", "--stop"]));
    assert_eq!(traces_of(&demo.directory()), []);
}

#[test]
fn a_demo_without_java_names_the_package_and_leaves_nothing() {
    let demo = Demo::prepare();
    let output = demo.pgherd(&["demo"]).env("PATH", "/nonexistent").output().expect("pgherd runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("apt-get install") && text.contains("default-jre-headless"), "{text}");
    assert!(!demo.directory().exists());
}

#[test]
fn a_directory_with_other_files_is_never_touched() {
    let demo = Demo::prepare();
    std::fs::create_dir(demo.directory()).expect("a directory");
    let file = demo.directory().join("precious");
    std::fs::write(&file, "data").expect("a file");
    for arguments in [&["demo"][..], &["demo", "--stop"], &["drill", "stop"]] {
        let output = demo.pgherd(arguments).output().expect("pgherd runs");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "data");
    std::fs::remove_dir_all(demo.directory()).expect("removed by the test itself");
}
