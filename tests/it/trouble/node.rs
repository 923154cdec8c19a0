//! Ports, programs and the data directory of a node that is started.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use super::messages;
use super::standby::Standby;
use crate::harness::agent::run_agent;
use crate::harness::content::content;
use crate::harness::notes;

#[test]
fn a_taken_port_and_missing_programs_are_named() {
    let standby = Standby::start();
    standby.stop();
    let node = standby.node();
    let before = content(&node.data_dir);

    let empty = tempfile::tempdir().expect("a temporary directory");
    standby.configure(|yaml| {
        let without = |line: &&str| !line.trim_start().starts_with("bin_dir:");
        let lines: Vec<&str> = yaml.lines().filter(without).collect();
        let bin_dir = format!("postgresql:\n  bin_dir: {}", empty.path().display());
        lines.join("\n").replacen("postgresql:", &bin_dir, 1)
    });
    messages::PROGRAMS_MISSING.ends(&run_agent(&node.config));
    standby.configure(str::to_owned);

    let taken = TcpListener::bind(("127.0.0.1", node.rest_port)).expect("its agent has ended");
    messages::REST_PORT_TAKEN.ends(&run_agent(&node.config));
    drop(taken);
    assert_eq!(content(&node.data_dir), before);

    let taken = TcpListener::bind(("127.0.0.1", node.postgres_port)).expect("its server has ended");
    standby.waits(&[&messages::PORT_TAKEN], || drop(taken));
}

#[test]
fn a_data_directory_of_another_version_mode_or_owner_is_left_alone_until_it_is_mended() {
    let standby = Standby::start();
    let data_dir = standby.data_dir();
    let untouched = |trouble, mend: &dyn Fn()| {
        let before = content(&data_dir);
        standby.waits(&[trouble], || {
            assert_eq!(content(&data_dir), before);
            mend();
        });
    };

    standby.stop();
    let file = data_dir.join("PG_VERSION");
    let version = std::fs::read_to_string(&file).expect("a version");
    std::fs::write(&file, "9.6\n").expect("the test's own cluster");
    untouched(&messages::OTHER_VERSION, &|| std::fs::write(&file, &version).expect("the test's own cluster"));

    standby.stop();
    let mode =
        |mode| std::fs::set_permissions(&data_dir, PermissionsExt::from_mode(mode)).expect("its mode can be set");
    mode(0o755);
    untouched(&messages::OTHER_MODE, &|| mode(0o700));

    if !rustix::process::geteuid().is_root() {
        return another_owners(&standby);
    }
    standby.stop();
    let owner = std::fs::metadata(&data_dir).expect("it is there");
    let own = |uid, gid| chown(&data_dir, Some(uid), Some(gid)).expect("root may");
    // Not even to be looked into, as its mode is 0700.
    own(0, 0);
    untouched(&messages::OTHER_OWNER, &|| own(owner.uid(), owner.gid()));
}

/// Who may give no directory away takes one that is root's everywhere, and sees only that it is refused.
fn another_owners(standby: &Standby) {
    let roots = Path::new("/usr/share");
    if std::fs::metadata(roots).expect("it is everywhere").uid() != 0 {
        return notes::skip("no directory of root's is at hand");
    }
    standby.stop();
    let own = standby.data_dir().display().to_string();
    standby.configure(|yaml| yaml.replace(&own, &roots.display().to_string()));
    standby.waits(&[&messages::OTHER_OWNER], || {
        standby.stop();
        standby.configure(str::to_owned);
        standby.cluster.start_agent(&standby.name);
    });
}
