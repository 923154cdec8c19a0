//! Keeping clients out while a primary must not show them anything yet: `pg_hba.conf`, narrowed to the roles of the agents.
//!
//! The lines stay as they are, but for whom: where a line lets everybody in, the narrowed one lets in the superuser and the roles of replication
//! and rewind only. Only a file of ours is narrowed, for it can be written anew from what we know; one that is the user's own is never touched.
//! Tested beside the code, and on real servers in `tests/it/cluster/synchronous`.

use std::path::{Path, PathBuf};

use super::atomic_file::{PRIVATE, read_if_present, replace};
use super::config_files::{HEADER, default_pg_hba};
use super::{Connection, Error, Purpose, Server};

/// The first line of a narrowed file, by which a later agent knows it.
const NARROWED: &str = "# pgherd lets nobody in but members and the superuser, until the synchronous standbys have what this server shows.\n";

fn file(server: &Server) -> PathBuf {
    server.config_dir().join("pg_hba.conf")
}

/// Whether the file keeps clients out.
pub fn is_narrowed(server: &Server) -> Result<bool, Error> {
    Ok(read_if_present(&file(server))?.is_some_and(|text| text.starts_with(NARROWED)))
}

/// The lines of the file, as `postgresql.pg_hba` would have them; `None` if it is not there, or keeps clients out.
pub fn lines_in_force(server: &Server) -> Option<Vec<String>> {
    lines_of(&file(server))
}

/// The same of `pg_ident.conf`.
pub fn mappings_in_force(server: &Server) -> Option<Vec<String>> {
    lines_of(&server.config_dir().join("pg_ident.conf"))
}

fn lines_of(path: &Path) -> Option<Vec<String>> {
    let text = read_if_present(path).ok()??;
    let lines = || text.strip_prefix(HEADER).unwrap_or(&text).lines().map(str::to_owned).collect();
    (!text.starts_with(NARROWED)).then(lines)
}

/// Why PostgreSQL does not understand the mappings that are in its file, from version 15 on; before, it says so in its log only.
pub async fn trouble_of_mappings(connection: &mut Connection) -> Result<Option<String>, Error> {
    let errors = connection.query_text("checking pg_ident.conf", ERRORS_OF_MAPPINGS).await?;
    Ok(errors.map(|errors| format!("PostgreSQL does not understand it ({errors})")))
}

/// Why the running server should not be left with the rules that are in its file: it does not understand them, or would let the agent in no
/// more. An error says nothing of the rules.
pub async fn trouble(connection: &mut Connection, server: &Server) -> Result<Option<String>, Error> {
    let errors = match connection.query_text("checking pg_hba.conf", ERRORS).await {
        Ok(errors) => errors,
        Err(error) if error.is_refusal() => return Ok(Some(refused(&error))),
        Err(error) => return Err(error),
    };
    if let Some(errors) = errors {
        return Ok(Some(format!("PostgreSQL does not understand it ({errors})")));
    }
    // The session that asked may be older than the rules.
    let another = Connection::new(server, Purpose::Heartbeat).connect().await;
    Ok(another.err().filter(Error::is_refusal).map(|error| refused(&error)))
}

fn refused(error: &Error) -> String {
    format!("it does not let this agent in ({})", error.full())
}

/// Lines as the configuration counts them, without our two lines on top.
const ERRORS: &str = "SELECT string_agg(format('line %s: %s', line_number - 2, error), '; ' ORDER BY line_number)
    FROM pg_catalog.pg_hba_file_rules WHERE error IS NOT NULL";

const ERRORS_OF_MAPPINGS: &str =
    "SELECT string_agg(format('line %s: %s', line_number - 2, error), '; ' ORDER BY line_number)
    FROM pg_catalog.pg_ident_file_mappings WHERE error IS NOT NULL";

/// `false`: it is not ours, says more than is read here, or is narrowed already.
pub fn narrow(server: &Server) -> Result<bool, Error> {
    let present = read_if_present(&file(server))?.unwrap_or_default();
    if present.starts_with(NARROWED) {
        return Ok(false);
    }
    let ours = !server.pg_hba.is_empty() || present.starts_with(HEADER);
    let elsewhere = server.parameters.contains_key("hba_file");
    let narrowed = narrowed(&lines(server), &accounts(server)).filter(|_| ours && !elsewhere);
    let Some(narrowed) = narrowed else {
        tracing::warn!(
            "the access rules of this server are not ours, or include others, so its direct clients are not kept out while it is not safe to read \
             from; those of the entrypoint are. With `postgresql.pg_hba` in the configuration (without groups and included files) they are ours"
        );
        return Ok(false);
    };
    replace(&file(server), &format!("{NARROWED}{narrowed}"), PRIVATE)
}

/// The lines of the configuration, else those that a new cluster gets: also where a narrowed file has come with a copy of another server.
pub fn widen(server: &Server) -> Result<bool, Error> {
    if !is_narrowed(server)? {
        return Ok(false);
    }
    super::config_files::write_lines(&file(server), &lines(server))
}

fn lines(server: &Server) -> Vec<String> {
    if server.pg_hba.is_empty() { default_pg_hba(server) } else { server.pg_hba.clone() }
}

fn accounts(server: &Server) -> Vec<&str> {
    let mut names = vec![
        server.superuser.username.as_str(),
        server.replication.username.as_str(),
        server.rewind_credentials().username.as_str(),
    ];
    names.sort_unstable();
    names.dedup();
    names
}

/// `None`: the lines say more than is read here.
pub(super) fn narrowed(lines: &[String], accounts: &[&str]) -> Option<String> {
    let mut text = String::new();
    for line in lines {
        // It goes on in the next one.
        if line.trim_end().ends_with('\\') {
            return None;
        }
        let fields = fields(line);
        match fields.as_slice() {
            [] => {}
            [kind, ..] if kind.starts_with("include") || kind.starts_with('@') => return None,
            [kind, database, user, rest @ ..] => {
                // Members of a group, and whom a pattern means: the superuser must not get in by a way that was meant for them.
                let others = |name: &str| name.starts_with(['+', '/', '@']);
                if database.contains('@') || user.split(',').any(others) {
                    return None;
                }
                let Some(user) = kept(database, user, rest, accounts) else { continue };
                text.push_str(&[kind.as_str(), database, &user, &rest.join(" ")].join(" "));
                text.push('\n');
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    Some(text)
}

/// Whom a line still lets in (or keeps out).
fn kept(database: &str, user: &str, rest: &[String], accounts: &[&str]) -> Option<String> {
    if database == "replication" || rest.iter().any(|word| word == "reject") {
        return Some(user.to_owned());
    }
    let listed: Vec<&str> = user.split(',').collect();
    let open = listed.contains(&"all");
    let stays = |account: &&&str| open || listed.iter().any(|name| name.trim_matches('"') == **account);
    let names: Vec<String> =
        accounts.iter().filter(stays).map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// Words of a line: quotes keep spaces together, a `#` outside of them ends it, and a comma takes the next word along.
fn fields(line: &str) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '#' if !quoted => break,
            '"' => {
                quoted = !quoted;
                word.push(letter);
            }
            space if space.is_whitespace() && !quoted => {
                if !word.is_empty() && !word.ends_with(',') {
                    fields.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        fields.push(word);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_becomes_the_agents_roles() {
        let lines = [
            "# comment",
            "local all all trust # for all",
            "host replication repl 0.0.0.0/0 scram-sha-256",
            "host all all 10.0.0.0/8 scram-sha-256",
            "hostssl app app 0.0.0.0/0 scram-sha-256",
            "host all \"postgres\", app 0.0.0.0/0 md5",
            "host all all 192.168.0.0/16 reject",
        ];
        let expected = "local all \"postgres\",\"repl\" trust\n\
                        host replication repl 0.0.0.0/0 scram-sha-256\n\
                        host all \"postgres\",\"repl\" 10.0.0.0/8 scram-sha-256\n\
                        host all \"postgres\" 0.0.0.0/0 md5\n\
                        host all all 192.168.0.0/16 reject\n";
        let lines = lines.map(str::to_owned);
        assert_eq!(narrowed(&lines, &["postgres", "repl"]).as_deref(), Some(expected));
        for line in [
            "include other.conf",
            "host all @admins all md5",
            "@more",
            "local all +dba peer",
            "host all /^app all trust",
            "host all \\",
        ] {
            assert_eq!(narrowed(&[line.to_owned()], &["postgres"]), None, "{line}");
        }
    }

    #[test]
    fn only_a_file_of_ours_is_narrowed() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Server::new("n1", "c", directory.path(), crate::postgres::Credentials::new("postgres", None));
        let text = |server: &Server| std::fs::read_to_string(file(server)).expect("read");
        let own = "local all all trust\n";
        std::fs::write(file(&server), own).expect("written");
        assert!(!narrow(&server).expect("not ours") && !widen(&server).expect("not narrowed"));
        assert_eq!(text(&server), own);
        server.pg_hba = vec!["local all all md5".into()];
        assert!(narrow(&server).expect("ours") && !narrow(&server).expect("twice"));
        assert!(is_narrowed(&server).expect("read") && text(&server).contains("local all \"postgres\" md5"));
        assert!(widen(&server).expect("wide again") && !widen(&server).expect("twice"));
        assert!(text(&server).contains("local all all md5"));
        // One that has come with a copy, where the configuration says nothing.
        assert!(narrow(&server).expect("ours"));
        server.pg_hba.clear();
        assert!(widen(&server).expect("wide again") && text(&server).contains("host all all all scram-sha-256"));
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_survived(line in "\\PC*") {
            let _ = narrowed(&[line], &["postgres"]);
        }
    }
}
