//! Who may log in to the server of a custom bootstrap before its roles are made: the agent alone, as the superuser, over the unix socket and as
//! the operating system's user that it is. The passwords of a restored backup may be other ones than the configuration's, and nobody else is to
//! see half a cluster. (Where the server has no unix socket the superuser's password must be the configuration's.) The files that the command brought are kept beside and put back when the roles are made.

use std::path::PathBuf;

use super::atomic_file::{PRIVATE, read_if_present, remove_if_present, replace};
use super::config_files::{HEADER, hba_name};
use super::connection::has_socket;
use super::{Error, Server};

/// The map in `pg_ident.conf`.
const MAP: &str = "pgherd_bootstrap";
const KEPT: &str = ".pgherd-before-bootstrap";

fn path(server: &Server, name: &str) -> PathBuf {
    server.config_dir().join(name)
}

/// Lets the agent in, and nobody else. Nothing to do where that is so already.
pub fn narrow(server: &Server) -> Result<bool, Error> {
    let superuser = hba_name(&server.superuser.username);
    let user = operating_system_user();
    let mut changed = false;
    let who = match has_socket(server) {
        true => format!("local all {superuser} peer map={MAP}\n"),
        false => format!("host all {superuser} all scram-sha-256\n"),
    };
    for (name, line) in [("pg_hba.conf", who), ("pg_ident.conf", format!("{MAP} {} {superuser}\n", hba_name(&user)))] {
        let (file, kept) = (path(server, name), path(server, &format!("{name}{KEPT}")));
        let text = format!("{HEADER}{line}");
        let present = read_if_present(&file)?.unwrap_or_default();
        if present != text && read_if_present(&kept)?.is_none() {
            replace(&kept, &present, PRIVATE)?;
        }
        changed |= replace(&file, &text, PRIVATE)?;
    }
    Ok(changed)
}

/// Puts the files back that the command brought, with `bootstrap.pg_hba` after them. Those of the configuration are written over them.
pub fn restore(server: &Server) -> Result<bool, Error> {
    let mut changed = false;
    for name in ["pg_hba.conf", "pg_ident.conf"] {
        let kept = path(server, &format!("{name}{KEPT}"));
        let Some(mut text) = read_if_present(&kept)? else { continue };
        if name == "pg_hba.conf" {
            for line in &server.bootstrap_pg_hba {
                text.push_str(line);
                text.push('\n');
            }
        }
        changed |= replace(&path(server, name), &text, PRIVATE)?;
        remove_if_present(&kept)?;
    }
    Ok(changed)
}

fn operating_system_user() -> String {
    let uid = nix::unistd::geteuid();
    nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Credentials;

    #[test]
    fn the_agent_alone_gets_in_and_the_files_come_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Server::new("n1", "batman", directory.path(), Credentials::new("admin", Some("x")));
        server.bootstrap_pg_hba = vec!["host all all 10.0.0.0/8 scram-sha-256".into()];
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect("there");
        std::fs::write(directory.path().join("pg_hba.conf"), "# restored\n").expect("written");
        for _ in 0..2 {
            narrow(&server).expect("narrowed");
            assert!(read("pg_hba.conf").ends_with("local all \"admin\" peer map=pgherd_bootstrap\n"));
            assert!(read("pg_ident.conf").contains("\" \"admin\"\n"));
        }
        assert!(restore(&server).expect("restored"));
        assert_eq!(read("pg_hba.conf"), "# restored\nhost all all 10.0.0.0/8 scram-sha-256\n");
        assert!(!restore(&server).expect("nothing is left to do"));
    }
}
