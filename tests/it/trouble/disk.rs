//! A disk that is full: a small file system of its own, which only root may mount.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::messages;
use super::standby::Standby;
use crate::harness::cluster::{LONG, text};
use crate::harness::eventually;
use crate::harness::{notes, user};

/// A file system in memory. Dropped, it is taken away, whoever still uses it.
struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// `Err`: why there is none.
    fn mount(place: &Path, megabytes: u32) -> Result<SmallDisk, String> {
        let (uid, gid) = user::postgres();
        let options = format!("size={megabytes}m,mode=0700,uid={uid},gid={gid}");
        mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], place)?;
        Ok(SmallDisk { place: place.to_owned() })
    }

    fn grow(&self, megabytes: u32) {
        mount(&["-o", &format!("remount,size={megabytes}m")], &self.place).expect("it was mounted by us");
    }

    /// Takes all the space that is left; the file that does.
    fn fill(&self) -> PathBuf {
        let path = self.place.join("fill");
        let mut file = std::fs::File::create(&path).expect("a file");
        let ended = std::io::copy(&mut std::io::repeat(0), &mut file).expect_err("the disk is full");
        assert_eq!(ended.kind(), std::io::ErrorKind::StorageFull, "{ended}");
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // At the end of a failed test servers may work on it; they are ended with the cluster.
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}

fn mount(arguments: &[&str], place: &Path) -> Result<(), String> {
    let output = Command::new("mount").args(arguments).arg(place).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(text(&output)) }
}

#[test]
fn a_full_disk_is_named_and_the_node_comes_back_when_there_is_room() {
    if !rustix::process::geteuid().is_root() {
        return notes::skip("only root may mount a small file system");
    }
    let standby = Standby::start();
    standby.stop();
    let (cluster, data_dir) = (&standby.cluster, standby.data_dir());
    let place = data_dir.parent().expect("the node's directory").to_owned();
    let kept = cluster.directory().join("kept");
    std::fs::rename(&data_dir, &kept).expect("the test's own cluster");
    let disk = match SmallDisk::mount(&place, 12) {
        Ok(disk) => disk,
        Err(why) => return notes::skip(&format!("no file system can be mounted: {why}")),
    };

    // Of the two whichever is seen first: the size that pg_basebackup tells, or the end of the disk.
    standby.waits(&[&messages::COPY_DISK_FULL, &messages::COPY_TOO_LARGE], || {
        eventually("nothing half-made is left", LONG, || {
            let left: Vec<_> =
                std::fs::read_dir(&place).expect("readable").flatten().map(|it| it.file_name()).collect();
            let half = left.iter().any(|name| !name.as_encoded_bytes().starts_with(b".") && name != "pgpass");
            if half { Err(format!("{left:?}")) } else { Ok(()) }
        });
        assert!(!data_dir.exists());
        disk.grow(200);
    });

    let fill = disk.fill();
    let leader = cluster.leader();
    let rows = "CREATE TABLE rows AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 40000)";
    cluster.sql(&leader, rows).expect("the primary has room");
    // PostgreSQL ends where it needs the space for the data, and goes on trying where it needs it for the log.
    standby.complains(&[&messages::DISK_FULL, &messages::ENDED_DISK_FULL], || {
        std::fs::remove_file(&fill).expect("the test's own file");
        assert_eq!(cluster.leader(), leader);
    });
    cluster.shows(&standby.name, "SELECT count(*) FROM rows", &["40000"]);

    standby.stop();
    drop(disk);
    std::fs::rename(&kept, &data_dir).expect("the test's own cluster");
}

#[test]
fn the_old_data_goes_before_its_copy_is_complete_only_with_consent() {
    if !rustix::process::geteuid().is_root() {
        return notes::skip("only root may mount a small file system");
    }
    let standby = Standby::start();
    let (cluster, node) = (&standby.cluster, standby.node());
    let rows = "CREATE TABLE rows AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 40000)";
    cluster.sql(&cluster.leader(), rows).expect("the primary has room");
    cluster.shows(&standby.name, "SELECT count(*) FROM rows", &["40000"]);
    standby.stop();
    let place = node.data_dir.parent().expect("the node's directory").to_owned();
    let kept = cluster.directory().join("kept");
    std::fs::rename(&place, &kept).expect("the test's own cluster");
    std::fs::create_dir(&place).expect("a place to mount at");
    let disk = match SmallDisk::mount(&place, 400) {
        Ok(disk) => disk,
        Err(why) => return notes::skip(&format!("no file system can be mounted: {why}")),
    };
    let copied = Command::new("cp").arg("-a").arg(format!("{}/.", kept.display())).arg(&place).status();
    assert!(copied.expect("cp runs").success());
    cluster.start_agent(&standby.name);
    cluster.wait_healthy();

    // There are 67 MB to copy.
    let fill = std::fs::File::options().write(true).open(disk.fill()).expect("the test's own file");
    fill.set_len(fill.metadata().expect("a file").len() - (50 << 20)).expect("it can be cut");
    let reinitialize = |force: bool| {
        let order = format!(r#"{{"force": {force}}}"#);
        let (status, text) = cluster.rest(&standby.name, "POST", "/reinitialize", &order).expect("an answer");
        assert_eq!(status, 200, "{text}");
    };
    let system = std::fs::read(node.data_dir.join("PG_VERSION")).expect("a data directory");
    standby.complains_after(|| reinitialize(false), &[&messages::COPY_DISK_FULL, &messages::COPY_TOO_LARGE]);
    assert_eq!(std::fs::read(node.data_dir.join("PG_VERSION")).expect("it is untouched"), system);
    cluster.wait_healthy();
    reinitialize(true);
    eventually("the old data is removed first", LONG, || {
        let log = standby.news();
        if log.contains("removing the old data, as was consented to") { Ok(()) } else { Err(log) }
    });
    cluster.wait_healthy();
    cluster.shows(&standby.name, "SELECT count(*) FROM rows", &["40000"]);
    standby.stop();
    drop(disk);
}
