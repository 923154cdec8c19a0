//! What a Patroni configuration may ask for and this version does not do: said at the start and on every change, never passed over in
//! silence.

use crate::config::Config;
use crate::postgres::Credentials;

/// What is asked for and not done.
pub fn warnings(config: &Config) -> Vec<String> {
    let demands_tls = |credentials: &Credentials| {
        credentials
            .options
            .get("sslmode")
            .is_some_and(|mode| matches!(mode.as_str(), "require" | "verify-ca" | "verify-full"))
    };
    let tls = std::iter::once(&config.node.superuser).chain(&config.node.rewind).any(demands_tls);
    let asked = [(
        tls,
        "postgresql.authentication.*.sslmode",
        "the agent's own SQL connections are without TLS; replication obeys it",
    )];
    let said = asked.into_iter().filter(|(is_asked, ..)| *is_asked);
    said.map(|(_, key, instead)| format!("`{key}` is set, and this version does not do it: {instead}")).collect()
}
