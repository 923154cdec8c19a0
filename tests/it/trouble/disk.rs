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
