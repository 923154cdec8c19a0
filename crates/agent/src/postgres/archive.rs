//! The log that a former primary has finished and not archived yet. A rewind removes it, a copy replaces it, and the new primary archives only
//! what it has written itself: without this the archive would have a gap for ever.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::program::{self, Limit};
use super::{Error, Server};

/// One segment of 16 MB to wherever it goes. The node waits to rejoin meanwhile, so a hung command must not hold it up for long.
const ONE: Duration = Duration::from_secs(60);

/// Hands every finished file of the stopped server to its `archive_command`, oldest first. The first that fails is the last that is tried: what
/// cannot be archived now is said, and must not keep the node away.
pub async fn archive_ready(server: &Server) {
    let Some(archive_command) = archive_command(server) else { return };
    let ready = match ready(&server.data_dir) {
        Ok(ready) => ready,
        Err(error) => return tracing::warn!("whether there is log to archive is not known: {}", error.full()),
    };
    for name in &ready {
        if let Err(error) = archive(server, archive_command, name).await {
            return tracing::warn!(
                "the log file {name} was not archived and will be missing there, and so will others of this server: {}",
                error.full()
            );
        }
        tracing::info!("archived the log file {name}, which the server had not got to");
    }
}

/// Hands the file that holds the shutdown checkpoint to the `archive_command` of the stopped server: PostgreSQL archives all before it and leaves
/// this one, which is not full. Whoever lives by the archive has then everything that this server has written.
pub async fn archive_last(server: &Server, name: &str) {
    let Some(archive_command) = archive_command(server) else {
        return tracing::info!("the log with the shutdown checkpoint is not archived: archiving is not configured");
    };
    match run(server, archive_command, name).await {
        Ok(()) => tracing::info!("archived the log file {name} with the shutdown checkpoint"),
        Err(error) => tracing::warn!(
            "the log file {name} with the shutdown checkpoint was not archived, so a cluster that lives by the archive lacks it: {}",
            error.full()
        ),
    }
}

fn archive_command(server: &Server) -> Option<&str> {
    let setting = |name: &str| server.parameters.get(name).map(String::as_str);
    let on = setting("archive_mode").is_some_and(|mode| ["on", "always", "true", "yes", "1"].contains(&mode));
    setting("archive_command").filter(|command| on && !command.trim().is_empty())
}

fn status_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("pg_wal/archive_status")
}

/// In the order in which they were written, history files before the log of their timeline.
fn ready(data_dir: &Path) -> Result<Vec<String>, Error> {
    let directory = status_directory(data_dir);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries.collect::<std::io::Result<Vec<_>>>().map_err(Error::file("list", &directory))?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("list", &directory)(error)),
    };
    let names = entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok());
    let mut ready: Vec<String> = names.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned)).collect();
    ready.sort();
    Ok(ready)
}

async fn archive(server: &Server, archive_command: &str, name: &str) -> Result<(), Error> {
    run(server, archive_command, name).await?;
    let directory = status_directory(&server.data_dir);
    let (ready, done) = (directory.join(format!("{name}.ready")), directory.join(format!("{name}.done")));
    fs::rename(&ready, done).map_err(Error::file("rename", &ready))
}

async fn run(server: &Server, archive_command: &str, name: &str) -> Result<(), Error> {
    let mut command = program::command(Path::new("/bin/sh"));
    command.arg("-c").arg(substituted(archive_command, name)).current_dir(&server.data_dir);
    program::run(command, Limit::Total(ONE), |line| tracing::debug!("archive_command: {line}")).await.map(drop)
}

/// `%p` is the path from the data directory, `%f` the name, `%%` a per cent sign, as in PostgreSQL.
pub(super) fn substituted(command: &str, name: &str) -> String {
    let mut text = String::new();
    let mut letters = command.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('p') => text.push_str(&format!("pg_wal/{name}")),
            Some('f') => text.push_str(name),
            Some('%') => text.push('%'),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Credentials;

    #[test]
    fn placeholders_are_those_of_postgresql() {
        for (command, expected) in
            [("cp %p /a/%f", "cp pg_wal/0001 /a/0001"), ("date +%%s %x %", "date +%s %x %"), ("true", "true")]
        {
            assert_eq!(substituted(command, "0001"), expected);
        }
    }

    #[tokio::test]
    async fn what_is_ready_is_archived_in_its_order_until_one_fails() {
        let root = tempfile::tempdir().expect("a directory");
        let data_dir = root.path().join("data");
        let status = status_directory(&data_dir);
        fs::create_dir_all(&status).expect("a directory");
        for name in ["0001", "0002", "0003"] {
            fs::write(data_dir.join("pg_wal").join(name), name).expect("written");
            fs::write(status.join(format!("{name}.ready")), "").expect("written");
        }
        let mut server = Server::new("n1", "c", &data_dir, Credentials::new("postgres", None));
        archive_ready(&server).await;
        assert_eq!(ready(&data_dir).expect("listed").len(), 3, "this server archives nothing");
        let archive = root.path().join("archive");
        let command = format!("[ %f != 0002 ] && cat %p >> {}", archive.display());
        server.parameters.insert("archive_mode".into(), "on".into());
        server.parameters.insert("archive_command".into(), command);
        archive_ready(&server).await;
        assert_eq!(ready(&data_dir).expect("listed"), ["0002", "0003"]);
        let command = format!("cat %p >> {}", archive.display());
        server.parameters.insert("archive_command".into(), command);
        archive_ready(&server).await;
        assert_eq!(fs::read_to_string(archive).expect("the archive"), "000100020003");
        assert!(ready(&data_dir).expect("listed").is_empty() && status.join("0003.done").exists());
        archive_ready(&Server::new("n1", "c", root.path(), Credentials::new("postgres", None))).await;
    }

    proptest::proptest! {
        #[test]
        fn any_command_is_survived(command in "\\PC*") {
            substituted(&command, "0001");
        }
    }
}
