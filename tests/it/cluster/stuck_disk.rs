//! A primary whose disk does not answer any more: a frozen file system, on which whoever writes waits in the kernel and cannot be killed.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::synchronous::quorum;
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::eventually;
use crate::harness::notes;
use crate::harness::writers::Writers;

/// A file system in a file, which can be frozen. Dropped, it thaws and is taken away, whoever still uses it.
struct FreezingDisk {
    place: PathBuf,
}

impl FreezingDisk {
    /// `Err`: why there is none.
    fn mount(image: &Path, place: &Path) -> Result<FreezingDisk, String> {
        let file = std::fs::File::create(image).map_err(|error| error.to_string())?;
        file.set_len(512 << 20).map_err(|error| error.to_string())?;
        run(Command::new("/usr/sbin/mkfs.ext4").arg("-q").arg(image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(place))?;
        let disk = FreezingDisk { place: place.to_owned() };
        disk.freeze().and_then(|()| disk.thaw())?;
        Ok(disk)
    }

    fn freeze(&self) -> Result<(), String> {
        run(Command::new("/usr/sbin/fsfreeze").arg("--freeze").arg(&self.place))
    }

    fn thaw(&self) -> Result<(), String> {
        run(Command::new("/usr/sbin/fsfreeze").arg("--unfreeze").arg(&self.place))
    }
}

impl Drop for FreezingDisk {
    fn drop(&mut self) {
        // It is no error that it was not frozen.
        let _ = self.thaw();
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", text(&output))) }
}

#[test]
fn a_primary_whose_disk_does_not_answer_is_replaced_and_nothing_is_lost() {
    if !rustix::process::geteuid().is_root() {
        return notes::skip("only root may mount and freeze a file system");
    }
    let cluster = Cluster::start(3);
    quorum(&cluster, 2);
    let moved = cluster.replicas().remove(0);
    let agent = cluster.node(&moved).agent;
    agent.signal(Signal::TERM);
    agent.ended_within(LONG);
    let place = cluster.node(&moved).data_dir.parent().expect("the node's directory").to_owned();
    let kept = place.with_extension("kept");
    std::fs::rename(&place, &kept).expect("the test's own cluster");
    std::fs::create_dir(&place).expect("its place is free");
    let disk = match FreezingDisk::mount(&cluster.directory().join("disk"), &place) {
        Ok(disk) => disk,
        Err(why) => return notes::skip(&format!("no file system can be frozen: {why}")),
    };
    run(Command::new("cp").arg("-a").arg(kept.join(".")).arg(&place)).expect("there is room");
    cluster.start_agent(&moved);
    cluster.wait_healthy();
    quorum(&cluster, 2);
    let switched = cluster.ctl(&["switchover", "--candidate", &moved, "--force"]);
    assert!(text(&switched).contains("Successfully switched over"), "{}", text(&switched));
    cluster.wait_healthy();
    assert_eq!(cluster.leader(), moved);
    let writers = Writers::start(&cluster, &moved);
    writers.wait_for_more();

    let port = cluster.node(&moved).postgres_port;
    disk.freeze().expect("as a moment ago");
    let leader = cluster.another_leader(&moved);
    writers.wait_for_another(port);
    writers.wait_for_more();
    let (status, _) = cluster.rest(&moved, "GET", "/primary", "").expect("its agent answers");
    assert_eq!(status, 503);
    let log = cluster.log(&moved);
    assert!(log.contains("DiskStuck"), "{log}");

    disk.thaw().expect("it is frozen");
    eventually("the old primary follows", LONG, || {
        let seen = cluster.members_by(&leader)?;
        let back = seen.iter().any(|member| member.name == moved && member.state == "streaming");
        if back { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    let record = writers.finish();
    let outage = record.outage(&[1, 2, 3]);
    notes::note(&format!("a primary's disk that does not answer: {:.1} s without a write\n", outage.as_secs_f64()));
    record.assert_one_writer_at_a_time();
    record.assert_nothing_lost(&cluster);
}
