//! Connection strings and password files in libpq's formats.

use std::fmt::Write;

use pgherd_ha::Address;

use super::{Credentials, Server, Upstream};

/// Keys that follow the address, in the order of Patroni's contract; keys of the credentials fill them.
const BEFORE_APPLICATION_NAME: [&str; 8] =
    ["sslmode", "sslcompression", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslcrldir"];

/// A peer that is gone must be noticed in seconds: the receiver would otherwise wait for TCP's own minutes. Five
/// seconds is the same as the shipped `wal_receiver_timeout`.
const LIVENESS: [(&str, &str); 6] = [
    ("connect_timeout", "3"),
    ("keepalives", "1"),
    ("keepalives_idle", "2"),
    ("keepalives_interval", "1"),
    ("keepalives_count", "3"),
    ("tcp_user_timeout", "5000"),
];

/// The value of `primary_conninfo` on `server` for a standby of `upstream`; the password stays in the password file.
pub fn primary_conninfo(server: &Server, upstream: &Upstream) -> String {
    let mut text = Conninfo::new(&server.replication, server);
    text.address(upstream);
    // A slot of another cluster is on its primary.
    let attributes = upstream.slot.as_ref().and(one_of_several(upstream));
    text.options(&server.replication, &server.name, server.krbsrvname.as_deref(), attributes);
    text.0
}

/// Where there are several servers, of another cluster, its primary is meant.
fn one_of_several(upstream: &Upstream) -> Option<&'static str> {
    (upstream.addresses.len() > 1).then_some("read-write")
}

/// The `--dbname` of pg_basebackup and the `--source-server` of pg_rewind: no password, it comes from `PGPASSFILE`. With a database (for
/// pg_rewind) the primary of several servers is meant, for it has the history that counts; a copy may come from any.
pub fn tool_conninfo(
    server: &Server,
    credentials: &Credentials,
    upstream: &Upstream,
    database: Option<&str>,
) -> String {
    let mut text = Conninfo(String::new());
    if let Some(database) = database {
        text.push("dbname", database);
    }
    text.push("user", &credentials.username);
    text.address(upstream);
    text.options(credentials, &server.name, server.krbsrvname.as_deref(), database.and(one_of_several(upstream)));
    text.0
}

/// The password file: each role that this node uses on each upstream.
pub fn password_file(server: &Server, upstreams: &[&Upstream]) -> String {
    let roles = [Some(&server.replication), Some(&server.superuser), server.rewind.as_ref()];
    let mut text = String::new();
    for upstream in upstreams {
        // The first match counts, so a role that is configured twice keeps the password of its first section.
        for role in roles.iter().flatten() {
            let Some(password) = &role.password else { continue };
            for Address { host, port } in &upstream.addresses {
                let host = password_field(host);
                let (user, password) = (password_field(&role.username), password_field(password.expose()));
                let line = format!("{host}:{port}:*:{user}:{password}\n");
                if !text.contains(&line) {
                    text.push_str(&line);
                }
            }
        }
    }
    text
}

struct Conninfo(String);

impl Conninfo {
    fn new(credentials: &Credentials, server: &Server) -> Conninfo {
        let mut text = Conninfo(String::new());
        // Streaming does not read it; PostgreSQL 17 logs in there to copy logical slots.
        text.push("dbname", &server.database);
        text.push("user", &credentials.username);
        text.push("passfile", &server.pgpass.to_string_lossy());
        text
    }

    fn address(&mut self, upstream: &Upstream) {
        let hosts: Vec<&str> = upstream.addresses.iter().map(|address| address.host.as_str()).collect();
        let mut ports: Vec<String> = upstream.addresses.iter().map(|address| address.port.to_string()).collect();
        // One port is that of every host.
        if ports.iter().all(|port| *port == ports[0]) {
            ports.truncate(1);
        }
        self.push("host", &hosts.join(","));
        self.push("port", &ports.join(","));
    }

    /// Everything after the address.
    fn options(
        &mut self,
        credentials: &Credentials,
        application_name: &str,
        krbsrvname: Option<&str>,
        attributes: Option<&str>,
    ) {
        let option = |name: &str| credentials.options.get(name).map(String::as_str);
        for name in BEFORE_APPLICATION_NAME {
            let default = (name == "sslmode").then_some("prefer");
            self.push_some(name, option(name).or(default));
        }
        self.push("application_name", application_name);
        self.push_some("krbsrvname", krbsrvname);
        self.push("gssencmode", option("gssencmode").unwrap_or("prefer"));
        self.push("channel_binding", option("channel_binding").unwrap_or("prefer"));
        self.push_some("target_session_attrs", option("target_session_attrs").or(attributes));
        self.push_some("sslnegotiation", option("sslnegotiation"));
        for (name, value) in LIVENESS {
            self.push(name, value);
        }
    }

    fn push_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.push(name, value);
        }
    }

    fn push(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '\'' || c == '\\');
        let written = match plain {
            true => write!(self.0, "{name}={value}"),
            false => write!(self.0, "{name}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'")),
        };
        written.expect("writing to a String cannot fail");
    }
}

fn password_field(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        let mut server = Server::new("node 1", "c", "/data", Credentials::new("postgres", Some("p:w\\")));
        server.replication = Credentials::new("replicator", Some("rep-pass"));
        server.pgpass = "/run/pgpass1".into();
        server
    }

    fn upstream(host: &str) -> Upstream {
        Upstream::at(host, 5433)
    }

    fn several() -> Upstream {
        Upstream { addresses: vec![Address::new("a", 5433), Address::new("b", 5433)], slot: None }
    }

    #[test]
    fn primary_conninfo_has_the_order_of_the_contract() {
        let mut server = server();
        let tail = " connect_timeout=3 keepalives=1 keepalives_idle=2 keepalives_interval=1 keepalives_count=3 \
                    tcp_user_timeout=5000";
        let expected = "dbname=postgres user=replicator passfile=/run/pgpass1 host=pg-master port=5433 sslmode=prefer \
                        application_name='node 1' gssencmode=prefer channel_binding=prefer";
        assert_eq!(primary_conninfo(&server, &upstream("pg-master")), format!("{expected}{tail}"));
        for (name, value) in [("sslmode", "verify-ca"), ("sslrootcert", "/ca's.crt"), ("channel_binding", "require")] {
            server.replication.options.insert(name.into(), value.into());
        }
        server.krbsrvname = Some("pg".into());
        let expected = "dbname=postgres user=replicator passfile=/run/pgpass1 host=h port=5433 sslmode=verify-ca \
                        sslrootcert='/ca\\'s.crt' application_name='node 1' krbsrvname=pg gssencmode=prefer \
                        channel_binding=require";
        assert_eq!(primary_conninfo(&server, &upstream("h")), format!("{expected}{tail}"));
    }

    #[test]
    fn of_several_servers_the_primary_is_wanted_where_its_slot_is_used_or_its_history_counts() {
        let server = server();
        let several = several();
        let wants = |text: String| text.contains(" target_session_attrs=read-write ");
        assert!(!wants(primary_conninfo(&server, &several)), "any may send");
        let slot = Upstream { slot: Some("s".into()), ..several.clone() };
        assert!(wants(primary_conninfo(&server, &slot)));
        assert!(!wants(primary_conninfo(&server, &Upstream { addresses: vec![Address::new("a", 5433)], ..slot })));
        assert!(wants(tool_conninfo(&server, &server.superuser, &several, Some("postgres"))), "a rewind");
        assert!(!wants(tool_conninfo(&server, &server.replication, &several, None)), "a copy");
    }

    #[test]
    fn several_servers_have_one_port_or_each_its_own() {
        let mut server = server();
        server.superuser.password = None;
        let mut several = several();
        assert!(primary_conninfo(&server, &several).contains(" host=a,b port=5433 "));
        several.addresses[1].port = 5434;
        assert!(primary_conninfo(&server, &several).contains(" host=a,b port=5433,5434 "));
        assert_eq!(password_file(&server, &[&several]), "a:5433:*:replicator:rep-pass\nb:5434:*:replicator:rep-pass\n");
    }

    #[test]
    fn tools_get_no_password() {
        let server = server();
        let text = tool_conninfo(&server, &server.superuser, &upstream("h"), Some("postgres"));
        assert!(text.starts_with("dbname=postgres user=postgres host=h port=5433 sslmode=prefer "), "{text}");
        assert!(!text.contains("pass"), "{text}");
    }

    #[test]
    fn password_files_are_escaped_and_name_every_role() {
        let mut server = server();
        server.rewind = Some(Credentials::new("rewind:er", Some("x")));
        let expected = "h:5433:*:replicator:rep-pass\nh:5433:*:postgres:p\\:w\\\\\nh:5433:*:rewind\\:er:x\n\
                        \\:\\:1:5433:*:replicator:rep-pass\n\
                        \\:\\:1:5433:*:postgres:p\\:w\\\\\n\\:\\:1:5433:*:rewind\\:er:x\n";
        assert_eq!(password_file(&server, &[&upstream("h"), &upstream("::1")]), expected);
        server.replication.password = None;
        server.superuser.password = None;
        server.rewind = None;
        assert_eq!(password_file(&server, &[&upstream("h")]), "");
    }
}
