//! The rows: every option that a configuration may have, in the order of the reference page.
//!
//! Where pgherd does not act on an option of Patroni's (other stores, Python's own settings), the row is here all the
//! same: the file must load without a warning about a key that was right.

use super::schema::{Case, Verify, Whole};
use super::{Kind, Scope, Setting};
use crate::config::values::Unit;

const fn local(path: &'static str, kind: Kind, default: &'static str) -> Setting {
    Setting::new(Scope::Local, path, kind, default)
}

const fn dynamic(path: &'static str, kind: Kind, default: &'static str) -> Setting {
    Setting::new(Scope::Dynamic, path, kind, default)
}

const fn both(path: &'static str, kind: Kind, default: &'static str) -> Setting {
    Setting::new(Scope::Both, path, kind, default)
}

const LOG_LEVELS: Kind = Kind::Choice(&["CRITICAL", "FATAL", "ERROR", "WARNING", "WARN", "INFO", "DEBUG", "NOTSET"]);

const fn whole(min: i64) -> Verify {
    Verify::Whole(Whole::ANY.from(min))
}

const fn typed(min: i64) -> Verify {
    Verify::Whole(Whole::TYPED.from(min))
}

const fn between(min: i64, max: i64) -> Verify {
    Verify::Whole(Whole::ANY.from(min).to(max))
}

const PORT: Verify = Verify::Whole(Whole::TYPED.to(65_535));
const STACK: Verify = Verify::Whole(Whole { unit: Unit::Bytes, aligned: 65_536, ..Whole::TYPED.from(65_536) });

/// Of PostgreSQL's settings in a member's file.
const LOCAL_SETTINGS: &[(&str, Verify)] = &[("unix_socket_directories", Verify::Text)];

/// Of those that hold for the cluster.
const CLUSTER_SETTINGS: &[(&str, Verify)] = &[
    ("max_connections", between(1, 262_143)),
    ("max_locks_per_transaction", between(10, 2_147_483_647)),
    ("max_prepared_transactions", between(0, 262_143)),
    ("max_replication_slots", between(0, 262_143)),
    ("max_wal_senders", between(0, 262_143)),
    ("max_worker_processes", between(0, 262_143)),
];

const TAGS: &[(&str, Verify)] = &[
    ("nofailover", Verify::Boolean),
    ("failover_priority", typed(0)),
    ("clonefrom", Verify::Boolean),
    ("noloadbalance", Verify::Boolean),
    ("replicatefrom", Verify::Text),
    ("nosync", Verify::Boolean),
    ("sync_priority", typed(0)),
    ("nostream", Verify::Boolean),
];

/// A flag and the number that says the same more finely.
const EXCLUSIVE_TAGS: &[[&str; 2]] = &[["nofailover", "failover_priority"], ["nosync", "sync_priority"]];

#[rustfmt::skip]
pub const OPTIONS: &[Setting] = &[
    // The node.
    local("scope", Kind::Text, "").required("my_cluster").doc("The name of the cluster; all its members have the same."),
    local("name", Kind::Text, "").required("node1").doc("The name of this member; no two members share one."),
    local("namespace", Kind::Text, "service").unverified().doc("The path in the store under which clusters live."),
    local("thread_pool_size", Kind::Integer, "5").verify(typed(5)).doc("Of Patroni's own threads; pgherd has no use for it."),
    local("thread_stack_size", Kind::Bytes, "512kB").verify(STACK).doc("Of Patroni's own threads; pgherd has no use for it."),

    // The log.
    local("log.type", Kind::Choice(&["plain", "json"]), "plain").verify(Verify::Words(&["plain", "json"], Case::Exact)).doc("Lines of text, or a JSON object a line."),
    local("log.level", Kind::LogLevel, "INFO").verify(Verify::Words(&["DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL"], Case::Exact)).doc("What is less important than this is not logged."),
    local("log.traceback_level", LOG_LEVELS, "ERROR").verify(Verify::Words(&["DEBUG", "ERROR"], Case::Any)).doc("Of Python's tracebacks; pgherd's errors carry their causes at every level."),
    local("log.format", Kind::Any, "'%(asctime)s %(levelname)s: %(message)s'").verify(Verify::LogFormat).doc("The fields of a line, in Python's notation; for JSON also a list of names and of `{name: other}`. Without `type`, `format`, `dateformat`, `static_fields` and `dir` lines have pgherd's own form."),
    local("log.dateformat", Kind::Text, "").doc("How the time is written, as strftime has it."),
    local("log.static_fields", Kind::Map, "{}").doc("Fields that every JSON line has besides."),
    local("log.max_queue_size", Kind::Integer, "1000").doc("How many lines may wait to be written; more are lost, and counted. 0: no bound."),
    local("log.dir", Kind::Path, "").doc("Log to `patroni.log` in this directory and not to standard error; while that cannot be written, to standard error all the same."),
    local("log.mode", Kind::Integer, "").verify(Verify::Whole(Whole::TYPED.from(0).to(511))).doc("The permissions of the log file; those that the umask leaves if it is left out."),
    local("log.file_size", Kind::Bytes, "25000000").doc("The size at which the log file is rotated; 0: it is not."),
    local("log.file_num", Kind::Integer, "4").doc("How many rotated log files are kept, 1000 at most; 0: the file is never rotated."),
    local("log.loggers", Kind::Map, "{}").doc("Levels of single parts of the program, by Patroni's names (`patroni.postgresql.rewind: DEBUG`) or by our own (`pgherd_dcs: DEBUG`); a name stands for all below it."),
    local("log.deduplicate_heartbeat_logs", Kind::Boolean, "on").doc("Leave out the line of a round that is the same as the line before. Patroni's default is off; where `off` is written, every `loop_wait` has its line."),

    // The REST API.
    local("restapi.listen", Kind::Listen, "").required("0.0.0.0:8008").verify(Verify::Listen).doc("Where the REST API listens; every address that the name resolves to is bound."),
    local("restapi.connect_address", Kind::Address, "").example("10.0.0.1:8008").expected().verify(Verify::ConnectAddress).doc("Where others reach the REST API; the listening address if it is left out."),
    local("restapi.authentication.username", Kind::Text, "").expected().doc("Who may use the endpoints that change something."),
    local("restapi.authentication.password", Kind::Secret, "").expected().doc("The password of that user."),
    local("restapi.certfile", Kind::Path, "").doc("The certificate (PEM); turns HTTPS on."),
    local("restapi.keyfile", Kind::Path, "").doc("The key of the certificate, if it is in a file of its own."),
    local("restapi.keyfile_password", Kind::Secret, "").doc("The password of an encrypted key."),
    local("restapi.cafile", Kind::Path, "").doc("The authorities whose client certificates are accepted."),
    local("restapi.ciphers", Kind::Text, "").doc("The permitted cipher suites."),
    local("restapi.verify_client", Kind::Choice(&["none", "optional", "required"]), "none").verify(Verify::Words(&["none", "optional", "required"], Case::Exact)).doc("Which requests need a client certificate: none, those that change something, or all."),
    local("restapi.allowlist", Kind::Words, "[]").doc("Addresses and networks that may use the endpoints that change something."),
    local("restapi.allowlist_include_members", Kind::Boolean, "off").doc("Let the other members of the cluster in besides the list."),
    local("restapi.http_extra_headers", Kind::Map, "{}").doc("Headers that every answer has besides."),
    local("restapi.https_extra_headers", Kind::Map, "{}").doc("Headers that every answer over HTTPS has besides."),
    local("restapi.request_queue_size", Kind::Integer, "5").verify(Verify::Whole(Whole::TYPED.from(0).to(4096))).doc("How many connections may wait to be accepted."),
    local("restapi.server_tokens", Kind::Choice(&["original", "minimal", "productonly"]), "original").verify(Verify::Words(&["minimal", "productonly", "original"], Case::Any)).doc("How much the `Server` header says."),
    local("restapi.thread_pool_size", Kind::Integer, "5").verify(typed(5)).doc("Of Patroni's own threads; pgherd has no use for it."),

    // The commands.
    local("ctl.authentication.username", Kind::Text, "").unverified().doc("Who the commands are at the REST API; that of `restapi` if it is left out."),
    local("ctl.authentication.password", Kind::Secret, "").unverified().doc("The password of that user."),
    local("ctl.insecure", Kind::Boolean, "off").doc("Accept any certificate of a REST API."),
    local("ctl.cacert", Kind::Path, "").doc("The authorities that certificates of REST APIs are checked against."),
    local("ctl.certfile", Kind::Path, "").doc("The client certificate for REST APIs."),
    local("ctl.keyfile", Kind::Path, "").doc("The key of the client certificate."),
    local("ctl.keyfile_password", Kind::Secret, "").doc("The password of an encrypted key."),

    // The store.
    local("zookeeper.hosts", Kind::Words, "").example("['10.0.0.10:2181']").doc("The servers of the ZooKeeper ensemble, `HOST:PORT` each; `/PATH` after the last one stands for the root."),
    local("zookeeper.use_ssl", Kind::Boolean, "off").doc("Connect with TLS. The files below are read anew for each connection."),
    local("zookeeper.cacert", Kind::Path, "").doc("The authorities that the servers are checked against; the system's if it is left out."),
    local("zookeeper.cert", Kind::Path, "").doc("The client certificate."),
    local("zookeeper.key", Kind::Path, "").doc("The key of the client certificate, where it is not in the same file."),
    local("zookeeper.key_password", Kind::Secret, "").doc("The password of an encrypted key."),
    local("zookeeper.verify", Kind::Boolean, "on").doc("Check the servers' certificates; their names are not, as with Patroni."),
    local("zookeeper.set_acls", Kind::Map, "{}").doc("The access list of what pgherd creates: `SCHEME:ID`, or the subject of a client certificate, to a list of `READ`, `WRITE`, `CREATE`, `DELETE`, `ADMIN`, `ALL`. Everybody may do everything if it is left out."),
    local("zookeeper.auth_data", Kind::Map, "{}").doc("Who pgherd is at ZooKeeper: scheme to credential, as `digest: USER:PASSWORD`. Shown to every server, so use TLS."),
    local("zookeeper.sasl.mechanism", Kind::Choice(&["DIGEST-MD5"]), "DIGEST-MD5").doc("How the user below is proven. Of pgherd's own: Patroni has no option for SASL."),
    local("zookeeper.sasl.username", Kind::Text, "").doc("The user of SASL; the principal is `sasl:USER`."),
    local("zookeeper.sasl.password", Kind::Secret, "").doc("The password of that user."),
    local("etcd3.host", Kind::Text, "").doc("One server of an etcd cluster, `HOST:PORT`."),
    local("etcd3.hosts", Kind::Words, "").doc("The servers of an etcd cluster."),
    local("etcd3.url", Kind::Text, "").doc("One server of an etcd cluster, as a URL."),
    local("etcd3.proxy", Kind::Text, "").doc("A proxy in front of an etcd cluster, as a URL; goes before all others."),
    local("etcd3.srv", Kind::Text, "").doc("The domain whose SRV records name the servers (`_etcd-client-ssl._tcp.DOMAIN`, `_etcd-client._tcp.DOMAIN`, ...); `hosts` or `host` count while they name nobody."),
    local("etcd3.srv_suffix", Kind::Text, "").doc("A suffix of the SRV records' names: `_etcd-client-SUFFIX._tcp.DOMAIN`."),
    local("etcd3.port", Kind::Integer, "").min(1).doc("The port, where an address has none."),
    local("etcd3.protocol", Kind::Choice(&["http", "https"]), "http").doc("How the servers are spoken to."),
    local("etcd3.username", Kind::Text, "").doc("The user at etcd."),
    local("etcd3.password", Kind::Secret, "").doc("The password of that user."),
    local("etcd3.cacert", Kind::Path, "").doc("The authorities that the servers are checked against (`protocol: https`)."),
    local("etcd3.cert", Kind::Path, "").doc("The client certificate."),
    local("etcd3.key", Kind::Path, "").doc("The key of the client certificate."),
    local("etcd3.use_proxies", Kind::Boolean, "off").doc("The servers are proxies; do not ask them for the cluster's servers."),
    local("store.members", Kind::Words, "").doc("The members of the built-in store, `HOST:PORT` each; the first makes it, once all are there."),
    local("store.name", Kind::Text, "").doc("The name of the store; `scope` without it."),
    local("store.listen", Kind::Text, "").doc("Where this node's member of the store listens, `HOST:PORT`; without it the node uses the members of others."),
    local("store.connect_address", Kind::Text, "").doc("How the other members reach it; `listen` without it."),
    local("store.data_dir", Kind::Path, "").doc("Where it keeps its log; `.NAME.pgherd-store` beside the data directory `NAME` without it."),
    local("store.secret", Kind::Secret, "").doc("What all members and clients of the store share, 16 characters or more; connections are encrypted with what is made of it."),
    local("store.certfile", Kind::Path, "").doc("In place of a secret: the certificate that this node shows, as member and as client."),
    local("store.keyfile", Kind::Path, "").doc("The key of that certificate, if it is in a file of its own."),
    local("store.keyfile_password", Kind::Secret, "").doc("The password of that key."),
    local("store.cafile", Kind::Path, "").doc("The authority that the others' certificates are checked against."),
    local("etcd", Kind::Map, "").doc("The API of etcd's version 2, which etcd has given up; use `etcd3`."),
    local("consul", Kind::Map, "").doc("A store of Patroni's that pgherd does not speak."),
    local("exhibitor", Kind::Map, "").doc("A store of Patroni's that pgherd does not speak."),
    local("kubernetes", Kind::Map, "").doc("A store of Patroni's that pgherd does not speak."),
    local("raft", Kind::Map, "").doc("A store of Patroni's that pgherd does not speak."),

    // PostgreSQL: where it is.
    local("postgresql.listen", Kind::Listen, "").required("0.0.0.0:5432").verify(Verify::ListenHosts).doc("Where PostgreSQL listens: hosts with commas, and the port."),
    local("postgresql.connect_address", Kind::Address, "").example("10.0.0.1:5432").expected().verify(Verify::ConnectAddress).doc("Where others reach PostgreSQL; `localhost` or the first listening address if it is left out."),
    local("postgresql.proxy_address", Kind::Address, "").verify(Verify::ConnectAddress).doc("A pooler in front of this PostgreSQL, published for others."),
    local("postgresql.data_dir", Kind::Path, "").required("/var/lib/postgresql/data").verify(Verify::DataDirectory).doc("The data directory; created if there is none."),
    local("postgresql.config_dir", Kind::Path, "").unverified().doc("Where `postgresql.conf` is, if not in the data directory."),
    both("postgresql.config_base_name", Kind::Text, "postgresql").unverified().doc("The name of the configuration file without `.conf`."),
    both("postgresql.bin_dir", Kind::Path, "").example("/usr/lib/postgresql/15/bin").verify(Verify::Programs).doc("Where PostgreSQL's programs are; the `PATH` if it is left out."),
    both("postgresql.bin_name.pg_ctl|initdb|pg_controldata|pg_basebackup|postgres|pg_isready|pg_rewind", Kind::Text, "").verify(Verify::Program).doc("The program's name, where it is called otherwise."),
    local("postgresql.pgpass", Kind::Path, "~/pgpass").unverified().doc("The password file that pgherd writes for replication."),
    both("postgresql.database", Kind::Text, "postgres").unverified().doc("The database of pgherd's own connections."),
    both("postgresql.krbsrvname", Kind::Text, "").unverified().doc("The Kerberos service name of replication connections."),

    // PostgreSQL: who connects.
    local("postgresql.authentication.superuser.username", Kind::Text, "postgres").expected().doc("The superuser that pgherd connects as."),
    local("postgresql.authentication.replication.username", Kind::Text, "").required("replicator").doc("The user of replication connections."),
    local("postgresql.authentication.rewind.username", Kind::Text, "").expected().doc("The user of pg_rewind; the superuser if it is left out."),
    local("postgresql.authentication.superuser|replication|rewind.password", Kind::Secret, "").doc("The password of that user."),
    local("postgresql.authentication.superuser|replication|rewind.sslmode", Kind::Choice(&["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]), "").unverified().doc("As in libpq."),
    local("postgresql.authentication.superuser|replication|rewind.sslcert", Kind::Path, "").unverified().doc("As in libpq: the client certificate."),
    local("postgresql.authentication.superuser|replication|rewind.sslkey", Kind::Path, "").unverified().doc("As in libpq: the key of the client certificate."),
    local("postgresql.authentication.superuser|replication|rewind.sslpassword", Kind::Secret, "").unverified().doc("As in libpq: the password of an encrypted key."),
    local("postgresql.authentication.superuser|replication|rewind.sslrootcert", Kind::Path, "").unverified().doc("As in libpq: the authorities."),
    local("postgresql.authentication.superuser|replication|rewind.sslcrl", Kind::Path, "").unverified().doc("As in libpq: revoked certificates."),
    local("postgresql.authentication.superuser|replication|rewind.sslcrldir", Kind::Path, "").unverified().doc("As in libpq: a directory of revoked certificates."),
    local("postgresql.authentication.superuser|replication|rewind.gssencmode", Kind::Choice(&["disable", "prefer", "require"]), "").unverified().doc("As in libpq."),
    local("postgresql.authentication.superuser|replication|rewind.channel_binding", Kind::Choice(&["disable", "prefer", "require"]), "").unverified().doc("As in libpq."),
    local("postgresql.authentication.superuser|replication|rewind.sslnegotiation", Kind::Choice(&["postgres", "direct"]), "").unverified().doc("As in libpq."),

    // PostgreSQL: its settings and files.
    both("postgresql.parameters", Kind::Map, "{}").verify(Verify::ByPlace(LOCAL_SETTINGS, CLUSTER_SETTINGS)).doc("Settings of PostgreSQL; local and cluster-wide ones are merged name by name."),
    both("postgresql.parameters_primary|parameters_replica|parameters_standby_leader", Kind::Map, "{}").unverified().doc("Settings that hold while the node has that role."),
    both("postgresql.pg_hba", Kind::Texts, "[]").doc("The lines of `pg_hba.conf`; without them the file is left alone."),
    both("postgresql.pg_hba_primary|pg_hba_replica|pg_hba_standby_leader", Kind::Texts, "[]").unverified().doc("The lines of `pg_hba.conf` while the node has that role."),
    both("postgresql.pg_ident", Kind::Texts, "[]").doc("The lines of `pg_ident.conf`; without them the file is left alone."),
    both("postgresql.pg_ident_primary|pg_ident_replica|pg_ident_standby_leader", Kind::Texts, "[]").unverified().doc("The lines of `pg_ident.conf` while the node has that role."),
    both("postgresql.recovery_conf", Kind::Map, "{}").unverified().doc("Recovery settings of a standby, such as `restore_command`."),
    both("postgresql.custom_conf", Kind::Path, "").unverified().doc("The file that `postgresql.conf` includes instead of the original one."),

    // PostgreSQL: how pgherd works on it.
    both("postgresql.create_replica_methods|create_replica_method", Kind::Words, "[basebackup]").unverified().doc("How a replica is made, in order of preference."),
    both("postgresql.basebackup", Kind::ListOrMap, "").unverified().doc("Options of pg_basebackup."),
    both("postgresql.rewind", Kind::ListOrMap, "").unverified().doc("Options of pg_rewind."),
    both("postgresql.use_pg_rewind", Kind::Boolean, "on").doc("Let a former primary rejoin by pg_rewind where that is possible (Patroni's default is off); else it gets a fresh copy."),
    both("postgresql.remove_data_directory_on_rewind_failure", Kind::Boolean, "off").unverified().doc("After a failed pg_rewind the data may be removed before its copy is complete, where there is no room for both."),
    both("postgresql.remove_data_directory_on_diverged_timelines", Kind::Boolean, "off").unverified().doc("The same for data that has diverged and cannot be rewound, and after a failed pg_rewind."),
    both("postgresql.use_unix_socket", Kind::Boolean, "off").unverified().doc("pgherd connects over the unix socket."),
    both("postgresql.use_unix_socket_repl", Kind::Boolean, "off").unverified().doc("Replication connections to the own server use the unix socket."),
    dynamic("postgresql.use_slots", Kind::Boolean, "on").doc("Members stream through replication slots."),
    both("postgresql.pg_ctl_timeout", Kind::Seconds, "60").min(1).verify(whole(0)).doc("How long an orderly stop of PostgreSQL may take before it is ended as in a crash; a start has `primary_start_timeout`."),
    both("postgresql.callbacks.on_start|on_stop|on_restart|on_reload|on_role_change", Kind::Command, "").unverified().doc("A command that is run after that event, with action, role and scope."),
    both("postgresql.pre_promote", Kind::Command, "").unverified().doc("A command that is run before a promotion; if it fails, nothing is promoted."),
    both("postgresql.before_stop", Kind::Command, "").unverified().doc("A command that is run before PostgreSQL is stopped."),

    // Bootstrap.
    local("bootstrap.dcs", Kind::Map, "{}").expected().verify(Verify::Dynamic).doc("The first dynamic configuration of a new cluster."),
    local("bootstrap.method", Kind::Text, "initdb").doc("How a new cluster is made: initdb, or the section of that name."),
    local("bootstrap.initdb", Kind::ListOrMap, "").example("[data-checksums, {encoding: UTF8}]").verify(Verify::TextsOrMappings).doc("Options of initdb."),
    local("bootstrap.pg_hba", Kind::Texts, "[]").unverified().doc("Lines for `pg_hba.conf` after initdb, if `postgresql.pg_hba` has none."),
    local("bootstrap.post_bootstrap|post_init", Kind::Command, "").unverified().doc("A command that is run once on the new primary, with its connection string."),
    local("bootstrap.users", Kind::Map, "").unverified().doc("No longer used, by Patroni neither: create users in `post_bootstrap`."),

    // The rest of the file.
    local("tags", Kind::Map, "{}").example("{nofailover: false}").verify(Verify::Open(TAGS, EXCLUSIVE_TAGS)).doc("What the member says of itself, for example nofailover, noloadbalance, clonefrom, nosync, failover_priority."),
    local("watchdog.mode", Kind::Choice(&["off", "automatic", "required"]), "automatic").verify(Verify::WatchdogMode).doc("Whether the kernel's watchdog goes underneath the guard: not at all, where the device works, or as a condition of leading."),
    local("watchdog.device", Kind::Path, "/dev/watchdog").doc("The device of the watchdog; the user of PostgreSQL must be able to open it."),
    local("watchdog.safety_margin", Kind::Integer, "5").min(-1).verify(typed(-1)).doc("How many seconds of `ttl` are not part of the watchdog's timeout; -1: half of them."),
    local("watchdog.driver", Kind::Choice(&["default", "testing"]), "default").unverified().doc("How the device is spoken to; `testing` writes to a FIFO and resets nothing."),
    local("guard.mode", Kind::Choice(&["required", "automatic", "off"]), "automatic").unverified().doc("Whether PostgreSQL may run without the process that kills it when the lease ends (pgherd's own)."),
    local("citus.database", Kind::Text, "").expected().doc("A part of Patroni's that pgherd does not have."),
    local("citus.group", Kind::Integer, "").expected().verify(typed(0)).doc("A part of Patroni's that pgherd does not have."),

    // Cluster-wide.
    dynamic("ttl", Kind::Seconds, "").min(4).verify(whole(20)).doc("The lease of the leader; 8 (3 on the built-in store), or 30 beside a Patroni, if none of the three times is set."),
    dynamic("loop_wait", Kind::Seconds, "").min(1).verify(whole(1)).doc("The longest pause between two rounds; 1, or 10 beside a Patroni."),
    dynamic("retry_timeout", Kind::Seconds, "").min(1).verify(whole(3)).doc("How long one request to the store or to PostgreSQL may take; 3, or 10 beside a Patroni."),
    dynamic("maximum_lag_on_failover", Kind::Bytes, "1048576").min(0).verify(whole(0)).doc("How far a replica may be behind and still be promoted."),
    dynamic("maximum_lag_on_syncnode", Kind::Bytes, "-1").min(-1).verify(whole(-1)).doc("How far a synchronous replica may be behind before another takes its place."),
    dynamic("primary_race_backoff", Kind::Seconds, "0").min(0).unverified().doc("How long a standby puts off its race for the leader key while what it follows still sends, and at least one `loop_wait`; 0: not at all."),
    dynamic("max_timelines_history", Kind::Integer, "0").min(0).unverified().doc("How many lines the history in the store keeps; 0: all."),
    dynamic("check_timeline", Kind::Boolean, "off").unverified().doc("A candidate must have the newest timeline."),
    dynamic("primary_start_timeout|master_start_timeout", Kind::Seconds, "300").min(0).verify(whole(0)).doc("How long a crashed primary may recover before another is promoted; 0: at once."),
    dynamic("primary_stop_timeout|master_stop_timeout", Kind::Seconds, "0").min(0).verify(whole(0)).doc("How long a primary may take to stop, in synchronous mode, before it is killed and another leads; 0: no limit."),
    dynamic("synchronous_mode", Kind::BooleanOr("quorum"), "off").verify(Verify::SynchronousMode).doc("A commit waits for a replica (on), or for any of several (quorum)."),
    dynamic("synchronous_mode_strict", Kind::Boolean, "off").doc("A commit waits even if there is no replica."),
    dynamic("synchronous_node_count", Kind::Integer, "1").min(0).verify(whole(1)).doc("How many replicas a commit waits for."),
    dynamic("failsafe_mode", Kind::Boolean, "off").unverified().doc("Without the store, a primary goes on if every member agrees."),
    dynamic("pause", Kind::Boolean, "off").unverified().doc("The operator is in charge; nothing is promoted or stopped."),
    dynamic("member_slots_ttl", Kind::Seconds, "1800").min(0).verify(Verify::Whole(Whole { unit: Unit::Seconds, ..Whole::ANY.from(0) })).doc("How long the slot of a member that is gone is kept; 0: it goes with the member."),
    dynamic("slots|permanent_slots|permanent_replication_slots", Kind::Map, "{}").unverified().doc("Replication slots that outlive a failover."),
    dynamic("ignore_slots", Kind::List, "[]").unverified().doc("Slots that are left alone."),
    dynamic("standby_cluster.host", Kind::Text, "").one_of().doc("The cluster to follow: its host, or several with commas, which are tried in their order."),
    dynamic("standby_cluster.port", Kind::Ports, "").one_of().verify(PORT).doc("The port of the cluster to follow, or one for each host, with commas; 5432 if only hosts are given."),
    dynamic("standby_cluster.primary_slot_name", Kind::Text, "").doc("The replication slot to stream through; it must be there. Without, no slot is used."),
    dynamic("standby_cluster.create_replica_methods", Kind::Words, "").doc("How the first node of the standby cluster is made."),
    dynamic("standby_cluster.restore_command", Kind::Text, "").one_of().doc("The command that fetches archived log, on every node of a standby cluster; without a host or port its leader lives by it alone."),
    dynamic("standby_cluster.archive_cleanup_command", Kind::Text, "").doc("The command that tidies the archive, on every node of a standby cluster."),
    dynamic("standby_cluster.recovery_min_apply_delay", Kind::Text, "").doc("How far the standby leader's replay stays behind on purpose."),
];
