//! `pgherd demo` and `pgherd drill` as a user runs them: a cluster on this machine, every fault on it, and no trace left.
//!
//! The drill is also the oracle of the fault tests: it ends with 1 if two servers acknowledged writes at one time, if a
//! row was lost after an orderly stop, if a leader changed where none should, or if the cluster did not recover.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::binary;

/// A demo in a directory of its own, ended when the test is over, however that happens.
struct Demo {
    parent: tempfile::TempDir,
}

impl Demo {
    fn prepare() -> Demo {
        let parent = tempfile::tempdir().expect("a temporary directory");
        // Started by root, the servers run as user postgres, who has to pass through.
        std::fs::set_permissions(parent.path(), PermissionsExt::from_mode(0o755)).expect("its mode can be set");
        Demo { parent }
    }

    fn start(nodes: u8) -> Demo {
        let demo = Demo::prepare();
        succeeds(demo.pgherd(&["demo", "--nodes", &nodes.to_string()]));
        demo
    }

    fn directory(&self) -> PathBuf {
        self.parent.path().join("demo")
    }

    fn pgherd(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary::pgherd());
        command.args(arguments).arg("--directory").arg(self.directory());
        command
    }

    /// Runs a drill that must keep every promise, and returns its numbers.
    fn drill(&self, fault: &str) -> Value {
        let output = succeeds(self.pgherd(&["drill", fault, "--json", "--seconds", "2"]));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let run = report["runs"][0].clone();
        assert!(run["rows_acknowledged"].as_u64().is_some_and(|rows| rows > 100), "{fault}: {run}");
        assert_eq!(run["overlap_ms"], 0, "{fault}: {run}");
        run
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

/// The pids of all processes that have the directory on their command line, in their environment or as their place.
fn traces_of(directory: &Path) -> Vec<String> {
    let name = directory.to_str().expect("a path in UTF-8").as_bytes();
    let holds =
        |file: PathBuf| std::fs::read(file).is_ok_and(|bytes| bytes.windows(name.len()).any(|window| window == name));
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    let traces = processes.filter(|process| {
        let place = std::fs::read_link(process.join("cwd")).is_ok_and(|place| place.starts_with(directory));
        place || holds(process.join("cmdline")) || holds(process.join("environ"))
    });
    traces.map(|process| process.display().to_string()).collect()
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

    succeeds(demo.pgherd(&["demo", "--stop"]));
    assert!(!demo.directory().exists());
    assert_eq!(traces_of(&demo.directory()), Vec::<String>::new());
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

#[test]
fn an_orderly_change_of_the_primary_loses_nothing() {
    let demo = Demo::start(3);
    for fault in ["stop", "switchover"] {
        let run = demo.drill(fault);
        assert_eq!((&run["rows_lost"], &run["leader_changes"]), (&Value::from(0), &Value::from(1)), "{fault}: {run}");
    }
    let run = demo.drill("kill-postgres");
    assert!(run["primary_after"].is_string(), "{run}");
}

#[test]
fn a_primary_that_nobody_can_ask_is_replaced_after_its_lease() {
    let demo = Demo::start(3);
    for fault in ["kill-agent", "hang-agent", "kill-host"] {
        let run = demo.drill(fault);
        assert_ne!(run["primary_before"], run["primary_after"], "{fault}: {run}");
    }
}

#[test]
fn what_passes_within_the_lease_changes_no_leader() {
    let demo = Demo::start(3);
    // The drill itself judges this one: on a very busy machine the store may need longer to start than is promised.
    demo.drill("restart-store");
    for fault in ["blip", "hang-agent-briefly"] {
        let run = demo.drill(fault);
        assert_eq!((&run["rows_lost"], &run["leader_changes"]), (&Value::from(0), &Value::from(0)), "{fault}: {run}");
        assert_eq!(run["primary_before"], run["primary_after"], "{fault}: {run}");
    }
}
