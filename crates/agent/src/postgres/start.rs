//! How a postmaster is started; the guard starts it (`crate::guard`).

use std::ffi::OsString;

use super::parameters::StartSettings;
use super::{Server, config_files};

/// The arguments of `postgres`: controlled settings are on the command line, so that no file can change them.
pub fn arguments(server: &Server, settings: &StartSettings) -> Vec<OsString> {
    let mut config_file = OsString::from("--config-file=");
    config_file.push(config_files::postgresql_conf(server));
    let mut arguments = vec![OsString::from("-D"), server.data_dir.clone().into(), config_file];
    arguments.extend(settings.arguments().into_iter().map(OsString::from));
    arguments
}

/// Whether a variable of the agent's environment is kept from the server: secrets of the configuration, and what
/// would make the server talk to the agent's service supervisor.
pub fn is_private_variable(name: &str) -> bool {
    name.starts_with("PATRONI_") || name.starts_with("KUBERNETES_") || name == "NOTIFY_SOCKET"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Credentials;
    use crate::postgres::parameters::start_settings;

    #[test]
    fn the_directory_and_the_file_come_first() {
        let mut server = Server::new("n1", "batman", "/data", Credentials::new("postgres", None));
        server.config_dir = Some("/etc/pg".into());
        let arguments = arguments(&server, &start_settings(&server, None));
        assert_eq!(arguments[..3], ["-D", "/data", "--config-file=/etc/pg/postgresql.conf"]);
        assert_eq!(arguments[3], "--listen_addresses=localhost");
        assert!(is_private_variable("PATRONI_SUPERUSER_PASSWORD") && !is_private_variable("PATH"));
    }
}
