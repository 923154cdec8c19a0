//! Commands that ask and change, each beside the real patronictl on a ZooKeeper of its own with the same keys: one after the
//! other, they must say the same, end the same and leave the same.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use super::{console, patronictl, pgherd, server_with_clusters, text};
use crate::harness::zookeeper::ZooKeeperServer;

/// The two programs and their worlds.
struct Both {
    theirs: (PathBuf, ZooKeeperServer),
    ours: (PathBuf, ZooKeeperServer),
    home: tempfile::TempDir,
}

impl Both {
    fn start() -> Both {
        let theirs = (patronictl(), server_with_clusters());
        let ours = (pgherd(), server_with_clusters());
        Both { theirs, ours, home: tempfile::tempdir().expect("a temporary directory") }
    }

    /// Standard output, with the times of now masked, and exit code.
    fn assert_same(&self, arguments: &[&str], input: &str) {
        let run = |(program, server): &(PathBuf, ZooKeeperServer)| {
            let output = self.run(program, server, arguments, input);
            (output.status.code(), masked(&text(&output.stdout)), text(&output.stderr))
        };
        let (theirs, ours) = (run(&self.theirs), run(&self.ours));
        let context = format!("{arguments:?} {input:?}\npatronictl: {}\npgherd: {}", theirs.2, ours.2);
        assert_eq!((ours.0, ours.1), (theirs.0, theirs.1), "{context}");
    }

    /// What was left in the stores, as our own program shows it: it starts faster.
    fn assert_left_same(&self, arguments: &[&str]) {
        let shown = |server| text(&self.run(&self.ours.0, server, arguments, "").stdout);
        assert_eq!(shown(&self.ours.1), shown(&self.theirs.1), "{arguments:?}");
    }

    fn run(&self, program: &Path, server: &ZooKeeperServer, arguments: &[&str], input: &str) -> Output {
        let url = format!("zookeeper://{}", server.address());
        let mut command = console(program, &[&["-d", url.as_str()], arguments].concat(), self.home.path());
        // For the editor, which does what somebody else might do meanwhile.
        command.env("PROGRAM", program).env("URL", url).env("EDITOR", self.home.path().join("editor"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        // It fails if the program ends before it has read everything.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        child.wait_with_output().expect("our own child")
    }

    /// A shell script as the editor; the file is its first argument.
    fn set_editor(&self, script: &str) {
        let path = self.home.path().join("editor");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a new file");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its mode can be set");
    }
}

/// Every date with its time as `T`.
fn masked(text: &str) -> String {
    let is_date = |text: &str| {
        let date = text.as_bytes().get(..10).filter(|date| date.starts_with(b"20"));
        date.is_some_and(|date| date.iter().enumerate().all(|(at, byte)| (at == 4 || at == 7) == (*byte == b'-')))
    };
    let mut masked = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if is_date(rest) {
            masked.push('T');
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || "-:. T".contains(c));
        } else {
            masked.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    masked
}

#[test]
fn where_members_are() {
    let both = Both::start();
    for arguments in [
        &["dsn", "plain"][..],
        &["dsn", "plain", "-r", "replica"],
        &["dsn", "plain", "-r", "standby", "--role", "any"],
        &["dsn", "alpha", "-m", "n3"],
        &["dsn", "ipv6p", "--member", "n1"],
        &["dsn", "plain", "-m", "n9"],
        &["dsn", "plain", "-m", "n1", "-r", "any"],
        &["dsn", "plain", "-r", "king"],
        &["dsn", "slrole", "-r", "primary"],
        &["dsn", "slrole", "-r", "standby-leader"],
        &["dsn", "slconf", "-r", "standby-leader"],
        &["dsn", "nolead"],
        &["dsn", "no-such-cluster", "-r", "any"],
        &["query", "nolead", "-c", "SELECT 1"],
        &["query", "nolead", "-c", "SELECT 1", "-r", "leader"],
        &["query", "nolead", "-c", "SELECT 1", "-m", "n9", "--format", "pretty"],
        &["query", "nolead", "-c", "SELECT 1", "-f", "/etc/passwd"],
        &["query", "nolead"],
    ] {
        both.assert_same(arguments, "");
    }
}

#[test]
fn the_configuration_is_edited() {
    let both = Both::start();
    let file = both.home.path().join("over.yml");
    std::fs::write(&file, "loop_wait: 5\npostgresql:\n  parameters: {work_mem: 64MB, b: null}\n").expect("a new file");
    let file = file.to_str().expect("a path in UTF-8");
    for (arguments, input) in [
        (&["-s", "ttl=20", "--force"][..], ""),
        (&["-s", "ttl=20", "--force"], ""),
        (&["-s", "ttl=21"], "n\n"),
        (&["-s", "ttl=21"], "perhaps"),
        (&["-s", "ttl=21"], ""),
        (&["-s", "ttl=21", "-q"], "y\n"),
        (&["-p", "superuser_reserved_connections=6", "-p", " pg_stat_statements.max = 5", "--force"], ""),
        (&["-s", "postgresql.parameters.pg_stat_statements.track=all", "-s", "ignore_slots=null", "--force"], ""),
        (&["-s", "a.b.c={x: [1, 'on', on, 0x10, 1.5]}", "-s", "tags=é: \u{1f600}", "--force"], ""),
        (&["-s", "a.b.c=null", "--force"], ""),
        (&["-s", "ttl", "--force"], ""),
        (&["-s", "ttl=[1", "--force"], ""),
        (&["--apply", file], "y\n"),
        (&["--apply", file, "-q"], ""),
        (&["--apply", "-"], "maximum_lag_on_failover: 5\n"),
        (&["--apply", "-", "--force"], "maximum_lag_on_failover: 5\nttl: '21'\n"),
        (&["--apply", "-", "--force"], "- a\n"),
        (&["--apply", "/does/not/exist"], ""),
        (&["--replace", file, "--apply", "-", "-s", "ttl=30", "--force"], "check_timeline: on\n"),
        (&["--replace", "-", "--force", "-q"], "ttl: 30\n"),
    ] {
        both.assert_same(&[&["edit-config", "hist"], arguments].concat(), input);
        both.assert_left_same(&["show-config", "hist"]);
    }
    both.assert_same(&["edit-config", "boot", "-s", "ttl=20", "--force"], "");
    both.assert_same(&["edit-config", "empty", "-s", "ttl=20", "--force"], "");
}

#[test]
fn the_configuration_is_edited_in_an_editor() {
    let both = Both::start();
    for (script, input) in [
        ("true", ""),
        ("exit 3", ""),
        ("sed -i 's/^ttl: 30/ttl: 25/' \"$1\"", "y\n"),
        ("echo '# a remark' >> \"$1\"; echo 'loop_wait: 4' >> \"$1\"", "y\n"),
        // Somebody else is quicker.
        ("\"$PROGRAM\" -d \"$URL\" edit-config plain -s ttl=99 -q --force; echo 'loop_wait: 5' > \"$1\"", "y\n"),
    ] {
        both.set_editor(script);
        both.assert_same(&["edit-config", "plain"], input);
        both.assert_left_same(&["show-config", "plain"]);
    }
}

#[test]
fn orders_that_reach_nobody() {
    let both = Both::start();
    for (arguments, input) in [
        (&["reload", "half", "n2"][..], "n\n"),
        (&["reload", "half", "n2"], ""),
        (&["reload", "half", "n2", "n9"], "y\n"),
        (&["reload", "half", "n9", "--force"], ""),
        (&["reload", "half", "-r", "replica", "n1", "--force"], ""),
        (&["reload", "no-such-cluster", "--force"], ""),
        (&["reload", "no-such-cluster", "n1", "--force"], ""),
        (&["restart", "half", "n1"], "\nn\n"),
        (&["restart", "half", "n1"], "2030-01-01T10:00+02:00\nn\n"),
        (&["restart", "half", "n1"], "\ny\n9\n"),
        (&["restart", "half", "n1", "--force", "--pg-version", "x"], ""),
        (&["restart", "half", "--pending", "--force"], ""),
        (&["restart", "pausestr", "--scheduled", "2030-01-01T10:00Z", "--force"], ""),
        (&["restart", "pausestr", "--scheduled", "zz", "--force"], ""),
        (&["restart", "half", "n1", "--force"], ""),
        (&["reinit", "old", "n1", "--force"], ""),
        (&["reinit", "old", "n2"], "n\n"),
        (&["reinit", "plain"], "n1\n"),
        (&["reinit", "plain"], ""),
        (&["reinit", "old", "--force", "--wait"], ""),
        (&["flush", "half", "restart", "--force"], ""),
        (&["flush", "half", "n1", "restart"], "n\n"),
        (&["flush", "half", "n1", "--force", "restart"], ""),
        (&["flush", "half", "switchover"], ""),
        (&["flush", "sched2", "switchover"], ""),
        (&["flush", "sched3", "switchover"], ""),
        (&["flush", "sched3", "switchover"], ""),
    ] {
        both.assert_same(arguments, input);
    }
    both.assert_left_same(&["list", "sched3"]);
}

#[test]
fn a_cluster_is_removed() {
    let both = Both::start();
    for (arguments, input) in [
        (&["remove"][..], ""),
        (&["remove", "alpha"], ""),
        (&["remove", "alpha"], "\nplain\n"),
        (&["remove", "alpha"], "alpha\nyes\n"),
        (&["remove", "alpha"], "alpha\nYes I am aware\nn2\n"),
        (&["remove", "alpha"], "alpha\nYes I am aware\n"),
        (&["remove", "alpha", "-f", "json"], "alpha\nYes I am aware\nn1\n"),
        (&["remove", "alpha"], "alpha\nYes I am aware\n"),
        (&["remove", "nolead", "-f", "tsv"], "nolead\nYes I am aware\n"),
    ] {
        both.assert_same(arguments, input);
        both.assert_left_same(&["list", "alpha", "nolead", "plain"]);
    }
}

#[test]
fn times_are_masked() {
    assert_eq!(masked("a 2026-11-25 23:36:54.32160 Could é 2030-x"), "a TCould é 2030-x");
}
