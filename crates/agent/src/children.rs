//! What the agent's children (PostgreSQL, its guard, its programs) do not inherit.

use std::ffi::OsString;

use crate::survivors::VARIABLE;

/// The variables of this process that a child must not see: passwords of the configuration may be among them, and PostgreSQL's own
/// children (an `archive_command`, say) would show them.
pub fn not_inherited() -> Vec<OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(|name| is_private(&name.to_string_lossy())).collect()
}

fn is_private(name: &str) -> bool {
    ["PATRONI_", "KUBERNETES_"].iter().any(|prefix| name.starts_with(prefix))
        || ["PGHERD_GUARD", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", VARIABLE].contains(&name)
}

/// The same, and libpq's own variables (`PGHOST`, `PGPASSWORD`, ...): a program of PostgreSQL is told everything in its arguments and its
/// password file, and a variable would win over some of that.
pub fn not_for_programs() -> Vec<OsString> {
    let of_libpq = |name: &OsString| name.to_str().is_some_and(is_of_libpq);
    let others = std::env::vars_os().map(|(name, _)| name).filter(of_libpq);
    not_inherited().into_iter().chain(others).collect()
}

fn is_of_libpq(name: &str) -> bool {
    name.starts_with("PG") && !name.starts_with("PG_") && !name.starts_with("PGHERD")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_inherit_no_passwords() {
        for name in ["PATRONI_SUPERUSER_PASSWORD", "KUBERNETES_PORT", "NOTIFY_SOCKET", "WATCHDOG_USEC", "PGHERD_GUARD"]
        {
            assert!(is_private(name), "{name}");
        }
        assert!(!is_private("PATH") && !is_private("PGHERD_DEMO_NODE"));
        assert!(is_of_libpq("PGPASSWORD") && is_of_libpq("PGOPTIONS") && !is_of_libpq("PG_COLOR"));
    }
}
