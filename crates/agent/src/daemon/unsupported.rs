//! What a Patroni configuration may ask for and this version does not do: said at the start and on every change, never passed over in
//! silence.

use crate::config::Config;
use crate::postgres::Credentials;

/// What is asked for and not done.
pub fn warnings(config: &Config) -> Vec<String> {
    let demands_kerberos =
        |credentials: &Credentials| credentials.options.get("gssencmode").is_some_and(|mode| mode == "require");
    let kerberos = std::iter::once(&config.node.superuser).chain(&config.node.rewind).any(demands_kerberos);
    let asked = [(
        kerberos,
        "postgresql.authentication.*.gssencmode",
        "the agent's own SQL connections are encrypted by TLS only; replication obeys it",
    )];
    let said = asked.into_iter().filter(|(is_asked, ..)| *is_asked);
    said.map(|(_, key, instead)| format!("`{key}` is set, and this version does not do it: {instead}")).collect()
}
