//! Which settings PostgreSQL's own program accepts: the values of all kinds that it refuses, and what counts in their place.

use std::collections::BTreeMap;

use pgherd_agent::postgres::acceptance::{Accepted, accepted};

use super::node::{Node, as_postgres};

/// What comes of each: `None`, it is left out.
const CASES: [(&str, &str, Option<&str>); 22] = [
    // As they are.
    ("shared_buffers", "131072kB", Some("131072kB")),
    ("work_mem", " 4 MB ", Some(" 4 MB ")),
    ("DateStyle", "ISO", Some("ISO")),
    ("my.own", "any; thing '\\ it\nmay be", Some("any; thing '\\ it\nmay be")),
    ("search_path", "\"$user\", public", Some("\"$user\", public")),
    ("max_connections", "0x64", Some("0x64")),
    ("shared_preload_libraries", "no_such_library", Some("no_such_library")),
    // The bound.
    ("autovacuum_naptime", "0", Some("1")),
    ("checkpoint_completion_target", "7", Some("1")),
    ("random_page_cost", "-1", Some("0")),
    ("maintenance_work_mem", "99999999999999999999", Some("2147483647")),
    ("deadlock_timeout", "-99999999999999999999", Some("1")),
    // What was accepted before.
    ("timezone", "Nowhere", Some("UTC")),
    ("wal_level", "minimal", Some("logical")),
    // Left out; the first, since its bound would not fit with other settings.
    ("max_wal_senders", "300000", None),
    ("fsync", "perhaps", None),
    ("wal_compression", "strong", None),
    ("no_such_setting", "1", None),
    ("two words", "1", None),
    ("", "1", None),
    ("server_version", "9", None),
    ("include_dir", "/etc", None),
];

#[test]
fn values_are_judged_by_postgresql_itself() {
    as_postgres("postgres::acceptance::values_are_judged_by_postgresql_itself", |directory| async move {
        let mut server = Node::new(&directory, "n1").server.clone();
        server.parameters = CASES.iter().map(|(name, value, _)| ((*name).into(), (*value).into())).collect();
        server.recovery_conf.insert("recovery_min_apply_delay".into(), "soon".into());
        server.recovery_conf.insert("archive_cleanup_command".into(), "true".into());
        let mut before = Accepted::default();
        for (name, value) in [("timezone", "UTC"), ("wal_level", "logical"), ("fsync", "perhaps")] {
            before.parameters.insert(name.into(), value.into());
        }
        let judged = accepted(&server, &before).await.expect("the program answers");
        let expected: BTreeMap<String, String> =
            CASES.iter().filter_map(|(name, _, value)| Some(((*name).into(), (*value)?.into()))).collect();
        assert_eq!(judged.parameters, expected, "{:#?}", judged.warnings);
        assert_eq!(judged.recovery_conf.keys().collect::<Vec<_>>(), ["archive_cleanup_command"]);
        assert_eq!(judged.custom_conf, None);
        let changed = CASES.iter().filter(|(_, value, accepted)| Some(*value) != *accepted).count();
        assert_eq!(judged.warnings.len(), changed + 1, "{:#?}", judged.warnings);

        // What was accepted is accepted again, and a file of the user's is looked into.
        server.parameters = judged.parameters.clone();
        server.recovery_conf = judged.recovery_conf.clone();
        for (content, good) in [(Some("work_mem = '1MB'\n"), true), (Some("work_mem = 'x'\n"), false), (None, false)] {
            let custom = directory.join("custom.conf");
            let _ = std::fs::remove_file(&custom);
            if let Some(content) = content {
                std::fs::write(&custom, content).expect("a file");
            }
            server.custom_conf = Some(custom.clone());
            let again = accepted(&server, &judged).await.expect("the program answers");
            let expected = (good.then_some(custom), usize::from(!good));
            assert_eq!((again.custom_conf, again.warnings.len()), expected, "{:#?}", again.warnings);
            assert_eq!(again.parameters, judged.parameters);
        }
    });
}
