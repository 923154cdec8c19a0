//! The password that libpq would find for a connection: `PGPASSWORD`, else the password file (`PGPASSFILE`, `~/.pgpass`).
//!
//! Not here: the questions to the operator.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// For whom a password is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    pub host: &'a str,
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

pub fn find(login: Login<'_>) -> Option<String> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(password) = variable("PGPASSWORD") {
        return password.into_string().ok();
    }
    let usual = || variable("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
    let path = variable("PGPASSFILE").map(PathBuf::from).or_else(usual)?;
    let mode = std::fs::metadata(&path).ok()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!("{} is passed over: others may read it; chmod 0600", path.display());
        return None;
    }
    let text = std::fs::read_to_string(&path).ok()?;
    text.lines().find_map(|line| password(line, login))
}

/// `HOST:PORT:DATABASE:USER:PASSWORD`; each of the first four may be `*`, a backslash makes the next character plain.
fn password(line: &str, login: Login<'_>) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    let port = login.port.to_string();
    for expected in [login.host, &port, login.database, login.user] {
        let raw;
        (raw, rest) = split_field(rest)?;
        if raw != "*" && plain(raw) != expected {
            return None;
        }
    }
    Some(plain(split_field(rest).map_or(rest, |(password, _)| password)))
}

/// Up to the next colon that is none of the text.
fn split_field(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let end = text.find(|c: char| {
        let found = c == ':' && !escaped;
        escaped = c == '\\' && !escaped;
        found
    })?;
    Some((&text[..end], &text[end + 1..]))
}

fn plain(field: &str) -> String {
    let mut escaped = false;
    let keep = |c: &char| {
        escaped = *c == '\\' && !escaped;
        !escaped
    };
    field.chars().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOGIN: Login<'_> = Login { host: "10.0.0.1", port: 5432, database: "postgres", user: "admin" };

    #[test]
    fn lines_of_the_password_file() {
        for (line, expected) in [
            ("10.0.0.1:5432:postgres:admin:secret", Some("secret")),
            ("*:*:*:admin:secret", Some("secret")),
            ("*:*:*:*:with\\:colon\\\\", Some("with:colon\\")),
            ("*:*:*:*:secret:more", Some("secret")),
            ("*:*:*:*:", Some("")),
            ("10.0.0.2:5432:postgres:admin:secret", None),
            ("*:5433:*:*:secret", None),
            ("#*:*:*:*:secret", None),
            ("*:*:*", None),
            ("", None),
        ] {
            assert_eq!(password(line, LOGIN).as_deref(), expected, "{line}");
        }
        let ipv6 = Login { host: "::1", ..LOGIN };
        assert_eq!(password("\\:\\:1:*:*:*:secret", ipv6).as_deref(), Some("secret"));
    }

    proptest! {
        #[test]
        fn any_line_gets_an_answer(line in "[*:\\\\a-c#é]{0,20}") {
            let _ = password(&line, LOGIN);
        }
    }
}
