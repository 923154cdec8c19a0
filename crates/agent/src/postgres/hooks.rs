//! How a hook of the user's logs in to the server that it is run for.

use std::ffi::OsString;

use super::connection::{LocalAddress, local_address};
use super::{Error, Server, Upstream, config_files, conninfo};

/// How the superuser logs in.
#[derive(Debug)]
pub struct Login {
    /// Without the password.
    pub conninfo: String,
    /// Where libpq finds the password; the hook's commits wait for nobody, and its statements take their time.
    pub environment: [(&'static str, OsString); 2],
}

pub fn local_login(server: &Server) -> Result<Login, Error> {
    let host = match local_address(server) {
        LocalAddress::Socket(directory) => directory.display().to_string(),
        LocalAddress::Host(host) => host,
    };
    let local = Upstream::at(&host, server.port);
    // For libpq the socket is at `localhost`.
    let named = Upstream::at("localhost", server.port);
    config_files::write_password_file(server, &[&local, &named])?;
    let conninfo = conninfo::tool_conninfo(server, &server.superuser, &local, Some(&server.database));
    let options = OsString::from("-c synchronous_commit=local -c statement_timeout=0");
    Ok(Login { conninfo, environment: [("PGPASSFILE", OsString::from(&server.pgpass)), ("PGOPTIONS", options)] })
}
