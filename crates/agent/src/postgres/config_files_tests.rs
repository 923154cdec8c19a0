//! The files byte for byte.

use super::*;
use crate::postgres::Credentials;

fn server(directory: &Path) -> Server {
    let mut server = Server::new("n1", "batman", directory, Credentials::new("postgres", Some("secret")));
    server.replication = Credentials::new("replicator", Some("rep-pass"));
    server.pgpass = directory.join("pgpass");
    server
}

fn parameters() -> BTreeMap<String, String> {
    let pairs = [("port", "5432"), ("archive_command", r"cp '%p' C:\%f"), ("unix_socket_directories", ".")];
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn upstream(slot: Option<&str>) -> Recovery {
    Recovery::Standby { upstream: Some(Upstream { slot: slot.map(Into::into), ..Upstream::at("h", 1) }) }
}

fn directory_with_original() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("postgresql.conf"), "# initdb's\n").expect("written");
    directory
}

fn content(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_file_of_a_primary() {
    let directory = directory_with_original();
    let path = directory.path();
    let changed = write(&server(path), &parameters(), &Recovery::Primary).expect("written");
    assert_eq!(changed, Changed { postgresql_conf: true, ..Changed::default() });
    assert_eq!(content(path, "postgresql.base.conf"), "# initdb's\n");
    let expected = format!(
        "# Written by pgherd and overwritten with every change of the configuration.\n\
         # Edit the YAML file or the dynamic configuration instead.\n\
         include 'postgresql.base.conf'\n\n\
         archive_command = 'cp ''%p'' C:\\\\%f'\n\
         port = '5432'\n\
         unix_socket_directories = '.'\n\
         hba_file = '{0}/pg_hba.conf'\n\
         ident_file = '{0}/pg_ident.conf'\n",
        path.display()
    );
    assert_eq!(content(path, "postgresql.conf"), expected);
    assert_eq!(write(&server(path), &parameters(), &Recovery::Primary).expect("again"), Changed::default());
}

#[test]
fn the_file_of_a_standby_and_of_one_without_upstream() {
    let directory = directory_with_original();
    let path = directory.path();
    let mut server = server(path);
    server.recovery_conf.insert("restore_command".into(), "cp /a/%f %p".into());
    server.recovery_conf.insert("recovery_target_time".into(), "yesterday".into());
    let changed = write(&server, &parameters(), &upstream(Some("n1"))).expect("written");
    assert_eq!(changed, Changed { postgresql_conf: true, signal: true, ..Changed::default() });
    let block = |conninfo: &str, slot: &str| {
        format!(
            "\n# recovery.conf\nprimary_conninfo = '{conninfo}'\nprimary_slot_name = '{slot}'\nrecovery_target = ''\n\
             recovery_target_lsn = ''\nrecovery_target_name = ''\nrecovery_target_time = ''\n\
             recovery_target_timeline = 'latest'\nrecovery_target_xid = ''\nrestore_command = 'cp /a/%f %p'\n"
        )
    };
    let conninfo = conninfo::primary_conninfo(&server, &Upstream::at("h", 1));
    assert!(content(path, "postgresql.conf").ends_with(&block(&conninfo, "n1")));
    assert_eq!(content(path, "standby.signal"), "");
    assert_eq!(content(path, "pgpass"), "h:1:*:replicator:rep-pass\nh:1:*:postgres:secret\n");

    write(&server, &parameters(), &Recovery::Standby { upstream: None }).expect("written");
    assert!(content(path, "postgresql.conf").ends_with(&block("", "")));
    let changed = write(&server, &parameters(), &Recovery::Primary).expect("written");
    assert!(changed.signal && !path.join("standby.signal").exists());
    assert!(!content(path, "postgresql.conf").contains("recovery"));
}

#[test]
fn access_files_are_written_only_from_given_lines() {
    let directory = directory_with_original();
    let path = directory.path();
    fs::write(path.join("pg_hba.conf"), "the user's").expect("written");
    let mut server = server(path);
    write(&server, &parameters(), &Recovery::Primary).expect("written");
    assert_eq!(content(path, "pg_hba.conf"), "the user's");
    server.pg_hba = vec!["host all all all md5".into()];
    server.pg_ident = vec!["map a b".into()];
    let changed = write(&server, &parameters(), &Recovery::Primary).expect("written");
    assert!(changed.pg_hba && changed.pg_ident && !changed.postgresql_conf);
    assert_eq!(content(path, "pg_hba.conf"), format!("{HEADER}host all all all md5\n"));
    assert_eq!(content(path, "pg_ident.conf"), format!("{HEADER}map a b\n"));
}

#[test]
fn recovery_settings_leave_the_automatic_file() {
    let directory = directory_with_original();
    let path = directory.path();
    let text = "# Do not edit\nwork_mem = '8MB'\nprimary_conninfo = 'user=x'\n  RESTORE_COMMAND='y'\nport='2'";
    fs::write(path.join("postgresql.auto.conf"), text).expect("written");
    let changed = write(&server(path), &parameters(), &Recovery::Primary).expect("written");
    assert!(changed.postgresql_conf);
    assert_eq!(content(path, "postgresql.auto.conf"), "# Do not edit\nwork_mem = '8MB'\nport='2'");
}

#[test]
fn another_config_directory_survives_a_clone() {
    let (data, config) = (tempfile::tempdir().expect("a directory"), directory_with_original());
    let mut server = server(data.path());
    server.config_dir = Some(config.path().to_owned());
    write(&server, &parameters(), &Recovery::Primary).expect("written");
    save_backups(&server).expect("saved");
    let original = content(config.path(), "postgresql.conf");
    for name in ["postgresql.conf", "postgresql.base.conf"] {
        fs::remove_file(config.path().join(name)).expect("removed");
    }
    restore_backups(&server).expect("restored");
    assert_eq!(content(config.path(), "postgresql.conf"), original);
    assert_eq!(content(config.path(), "postgresql.base.conf"), "# initdb's\n");
}

#[test]
fn a_copy_without_any_file_still_starts() {
    let directory = tempfile::tempdir().expect("a directory");
    write(&server(directory.path()), &parameters(), &Recovery::Primary).expect("written");
    assert_eq!(content(directory.path(), "postgresql.base.conf"), "");
}

#[test]
fn default_access_rules() {
    let mut server = server(Path::new("/data"));
    server.superuser.username = "all\"s".into();
    let expected = [
        r#"local all "all""s" scram-sha-256"#,
        "local all all scram-sha-256",
        "host all all all scram-sha-256",
        r#"local replication "replicator" scram-sha-256"#,
        r#"host replication "replicator" all scram-sha-256"#,
    ];
    assert_eq!(default_pg_hba(&server), expected);
    server.superuser.password = None;
    assert_eq!(default_pg_hba(&server)[0], r#"local all "all""s" peer"#);
}
