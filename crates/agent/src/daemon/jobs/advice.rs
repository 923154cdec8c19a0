//! What an operator can do about a failed program.

use crate::postgres::{Server, data_directory};

/// What to do about the commonest reasons: another server does not let this node in, the disk is full.
pub(super) fn with_advice(server: &Server, error: String) -> String {
    let user = &server.replication.username;
    let advice = if error.contains("password authentication failed") || error.contains("no password supplied") {
        format!(
            "; this node logs in there as {user}: compare postgresql.authentication.replication (or PATRONI_REPLICATION_PASSWORD) of the \
             two nodes"
        )
    } else if error.contains("no pg_hba.conf entry") || error.contains("pg_hba.conf rejects") {
        format!(
            "; that server's pg_hba.conf needs a line that lets {user} in from this host, for the database `replication`"
        )
    } else if error.contains("Connection refused")
        || error.contains("timeout expired")
        || error.contains("No route to host")
    {
        "; is that server up, does it listen on this address, and does a firewall let port and host through?".to_owned()
    } else if error.contains("No space left on device") {
        let left = data_directory::free_bytes(&server.data_dir).unwrap_or(0) >> 20;
        format!(
            "; the disk of {} is full: what was begun there has been removed ({left} MB are left now) and nothing half-made is started; \
             free some space, it is tried again by itself",
            server.data_dir.display()
        )
    } else {
        String::new()
    };
    format!("{error}{advice}")
}
