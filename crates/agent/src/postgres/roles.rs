//! The roles of a new cluster: superuser, replication, rewind. Passwords travel and are logged, if at all, as SCRAM
//! verifiers.

use super::sql::{identifier, literal};
use super::{Connection, Credentials, Error, Server};

/// The functions that pg_rewind calls on its source.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// Creates the roles that the configuration names, or gives existing ones their password and rights. To be run once,
/// on a primary that was just bootstrapped; running it again changes nothing but the salts.
pub async fn create_roles(connection: &mut Connection) -> Result<(), Error> {
    let server = connection.server().clone();
    for statement in statements(&server) {
        let (role, attributes, grants) = statement;
        let exists = format!("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {}", literal(&role.username));
        let exists = connection.query_text("looking for a role", &exists).await?.is_some();
        let sql = transaction(role, attributes, grants, exists);
        connection.execute(&format!("creating the role {}", role.username), &sql).await?;
    }
    Ok(())
}

/// Each role once, with its rights; a later section for the same name adds nothing (the superuser needs no more).
fn statements(server: &Server) -> Vec<(&Credentials, &'static str, &'static [&'static str])> {
    let mut roles: Vec<(&Credentials, &'static str, &'static [&'static str])> =
        vec![(&server.superuser, "SUPERUSER LOGIN", &[])];
    let others = [
        (Some(&server.replication), "REPLICATION LOGIN", [].as_slice()),
        (server.rewind.as_ref(), "LOGIN", REWIND_FUNCTIONS.as_slice()),
    ];
    for (role, attributes, grants) in others {
        let Some(role) = role else { continue };
        if roles.iter().all(|(known, ..)| known.username != role.username) {
            roles.push((role, attributes, grants));
        }
    }
    roles
}

fn transaction(role: &Credentials, attributes: &str, grants: &[&str], exists: bool) -> String {
    let name = identifier(&role.username);
    let verb = if exists { "ALTER" } else { "CREATE" };
    let password = role.password.as_ref().map_or_else(String::new, |password| {
        let verifier = postgres_protocol::password::scram_sha_256(password.expose().as_bytes());
        format!(" PASSWORD {}", literal(&verifier))
    });
    let grants: String = grants.iter().map(|it| format!("GRANT EXECUTE ON FUNCTION {it} TO {name};\n")).collect();
    // The settings are the transaction's own: the statement shows up in no log, not even as one that failed or was
    // slow.
    format!(
        "BEGIN;\n\
         SET LOCAL log_statement = 'none';\n\
         SET LOCAL log_min_duration_statement = -1;\n\
         SET LOCAL log_min_error_statement = 'panic';\n\
         SET LOCAL synchronous_commit = 'local';\n\
         {verb} ROLE {name} WITH {attributes}{password};\n\
         {grants}COMMIT;"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_once_and_no_password_in_clear() {
        let mut server = Server::new("n", "c", "/data", Credentials::new("postgres", Some("zalando")));
        assert_eq!(statements(&server).len(), 1);
        server.replication = Credentials::new("repl\"icator", Some("rep-pass"));
        server.rewind = Some(Credentials::new("rewinder", None));
        let roles = statements(&server);
        let sql = transaction(roles[1].0, roles[1].1, roles[1].2, false);
        assert!(
            sql.contains(r#"CREATE ROLE "repl""icator" WITH REPLICATION LOGIN PASSWORD 'SCRAM-SHA-256$4096:"#),
            "{sql}"
        );
        assert!(!sql.contains("rep-pass"));
        let sql = transaction(roles[2].0, roles[2].1, roles[2].2, true);
        assert!(
            sql.contains("ALTER ROLE \"rewinder\" WITH LOGIN;\nGRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir("),
            "{sql}"
        );
        assert_eq!(sql.matches("GRANT").count(), 4);
    }
}
