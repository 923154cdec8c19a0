//! `--validate-config` beside the real one: the same file to both, the same exit code and the same lines.
//!
//! The cases are data. Files that only pgherd refuses (a store that it does not speak to) are at the end, and so is what it prints otherwise on
//! purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use crate::ctl::patronictl;
use crate::harness::binary::pgherd;
use crate::harness::notes::note;
use crate::harness::ports::free_ports;
use crate::harness::postgres::bin_dir;

/// Runs Patroni's own program for one case after the other, in one process.
const ORACLE: &str = r"
import contextlib, io, json, os, socket, sys
from patroni.__main__ import process_arguments

# Patroni waits for as long as the kernel does.
socket.setdefaulttimeout(5)

before = dict(os.environ)
for line in sys.stdin:
    case = json.loads(line)
    os.environ.clear()
    os.environ.update(before)
    os.environ.update(case['environment'])
    sys.argv = ['patroni'] + case['arguments']
    out, err, code, crashed = io.StringIO(), io.StringIO(), 0, False
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            process_arguments()
        except SystemExit as end:
            code = end.code
        except Exception:
            code, crashed = 1, True
    if isinstance(code, str):
        err.write(code + '\n')
        code = 1
    sys.__stdout__.write(json.dumps({'code': code or 0, 'out': out.getvalue(), 'err': err.getvalue(), 'crashed': crashed}) + '\n')
    sys.__stdout__.flush()
";

/// What both are run with, and what the file is.
#[derive(Clone, Debug, Default)]
struct Case {
    text: String,
    /// In place of the file: those of a directory, by name.
    files: Vec<(&'static str, &'static str)>,
    /// The path leads to nothing.
    is_missing: bool,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq)]
struct Answer {
    code: i64,
    out: String,
    /// Sorted: both go through the file, each in its own order.
    err: Vec<String>,
    /// With a traceback in place of an answer.
    crashed: bool,
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// What a test of the machine finds there.
struct Machine {
    directory: tempfile::TempDir,
    /// Somebody listens there, as long as the test runs.
    open: u16,
    /// Nobody does.
    free: u16,
}

impl Machine {
    fn new() -> Machine {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [open_port, free_port] = free_ports();
        let open = TcpListener::bind(("127.0.0.1", open_port)).expect("a free port");
        let path = |name: &str| directory.path().join(name);
        let make = |name: &str| std::fs::create_dir_all(path(name)).expect("a new directory");
        let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("a new file");
        for name in
            ["data", "empty", "junk", "hidden", "lost/lost+found", "other/pg_wal", "without_log", "nine/pg_xlog"]
        {
            make(name);
        }
        for name in ["data/pg_wal", "data/global", "control/global", "garbled/pg_wal"] {
            make(name);
        }
        for name in ["junk/x", "hidden/.x", "control/global/pg_control", "file", "not_executable"] {
            write(name, "");
        }
        let version = bin_dir().parent().and_then(Path::file_name).and_then(|name| name.to_str().map(str::to_owned));
        write("data/PG_VERSION", &format!("{}\n", version.expect("the version is in the path")));
        write("other/PG_VERSION", "12\n");
        write("without_log/PG_VERSION", "15\n");
        write("nine/PG_VERSION", "9.6\n");
        write("garbled/PG_VERSION", "fifteen\n");
        // Those who are not let in would fill the queue.
        std::thread::spawn(move || open.incoming().for_each(drop));
        Machine { directory, open: open_port, free: free_port }
    }

    /// A file without a mistake.
    fn base(&self) -> Value {
        json!({
            "scope": "batman", "name": "one",
            "restapi": {"listen": "127.0.0.1:{free}", "connect_address": "10.1.2.3:8008"},
            "zookeeper": {"hosts": ["127.0.0.1:{open}"]},
            "postgresql": {
                "listen": "127.0.0.1:{free}", "connect_address": "10.1.2.3:5432", "data_dir": "{dir}/empty", "bin_dir": "{bin}",
                "authentication": {
                    "replication": {"username": "replicator", "password": "one"},
                    "superuser": {"username": "postgres", "password": "two"},
                },
            },
        })
    }

    /// Fills in what the machine has.
    fn filled(&self, text: &str) -> String {
        text.replace("{free}", &self.free.to_string())
            .replace("{open}", &self.open.to_string())
            .replace("{dir}", &self.directory.path().display().to_string())
            .replace("{bin}", &bin_dir().display().to_string())
    }

    /// The base with these changes: null removes, the text `NULL` is null.
    fn file(&self, change: &Value) -> String {
        let mut document = self.base();
        change_in(&mut document, change);
        self.filled(&document.to_string()).replace("\"NULL\"", "null")
    }

    fn arguments(&self, case: &Case) -> Vec<String> {
        let path = self.directory.path().join("node.yml");
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_dir_all(&path);
        if !case.files.is_empty() {
            std::fs::create_dir(&path).expect("a new directory");
            for (name, text) in &case.files {
                std::fs::write(path.join(name), self.filled(text)).expect("a file of the case");
            }
        } else if !case.is_missing {
            std::fs::write(&path, &case.text).expect("the file of the case");
        }
        let path = path.display().to_string();
        ["--validate-config".to_owned(), path].into_iter().chain(case.arguments.iter().cloned()).collect()
    }

    fn theirs(&self, cases: &[Case]) -> Vec<Answer> {
        let python = patronictl().with_file_name("python3");
        let mut child =
            self.command(&python).args(["-c", ORACLE]).spawn().expect("the Python of the real Patroni runs");
        let mut input = child.stdin.take().expect("a pipe");
        let mut output = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        let answers = cases.iter().map(|case| {
            let arguments = self.arguments(case);
            let question = json!({"arguments": arguments, "environment": case.environment});
            writeln!(input, "{question}").expect("Python reads");
            let mut line = String::new();
            std::io::BufRead::read_line(&mut output, &mut line).expect("an answer");
            let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
            let text = |key: &str| answer[key].as_str().expect("a text").to_owned();
            Answer {
                code: answer["code"].as_i64().expect("a number"),
                out: text("out"),
                err: sorted(&text("err")),
                crashed: answer["crashed"] == true,
            }
        });
        let answers = answers.collect();
        drop(input);
        assert!(child.wait().expect("our own child").success());
        answers
    }

    fn ours(&self, case: &Case) -> Answer {
        let mut command = self.command(&pgherd());
        let output = command.args(self.arguments(case)).envs(&case.environment).output().expect("pgherd runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().expect("it ends by itself").into();
        Answer { code, out: text(&output.stdout), err: sorted(&text(&output.stderr)), crashed: false }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/bin:/bin", bin_dir().display());
        command.env_clear().env("PATH", path).env("HOME", self.directory.path()).env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }
}

fn change_in(document: &mut Value, change: &Value) {
    let (Value::Object(map), Value::Object(changes)) = (document, change) else { panic!("{change}") };
    for (key, change) in changes {
        match (map.get_mut(key), change) {
            (_, Value::Null) => {
                map.remove(key);
            }
            (Some(inner @ Value::Object(_)), Value::Object(_)) => change_in(inner, change),
            (_, value) => {
                map.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Each of these values at this path, and the path left out.
fn at(path: &str, values: &[Value]) -> Vec<Value> {
    values.iter().map(|value| nested(path, value.clone())).collect()
}

fn nested(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |inner, key| {
        let mut map = Map::new();
        map.insert(key.to_owned(), inner);
        Value::Object(map)
    })
}

fn changes() -> Vec<Value> {
    let any = [json!(5), json!(true), json!("NULL"), json!([]), json!({}), json!(1.5)];
    let mut changes = vec![json!({})];
    let mut put = |path: &str, values: &[Value]| changes.extend(at(path, values));
    // Whatever is in its place is of another type, or missing.
    for path in
        ["scope", "name", "restapi", "postgresql", "postgresql.authentication", "zookeeper", "log", "ctl", "tags"]
    {
        put(path, &[json!(null)]);
        put(path, &any);
    }
    for path in [
        "restapi.listen",
        "restapi.connect_address",
        "restapi.certfile",
        "postgresql.listen",
        "postgresql.connect_address",
        "postgresql.data_dir",
        "postgresql.bin_dir",
        "postgresql.pg_hba",
        "zookeeper.hosts",
        "bootstrap",
        "bootstrap.dcs",
        "watchdog",
        "citus",
        "postgresql.authentication.superuser",
        "postgresql.authentication.rewind",
        "postgresql.authentication.replication.username",
        "restapi.authentication",
        "restapi.allowlist",
        "restapi.http_extra_headers",
        "log.format",
        "log.level",
        "log.static_fields",
        "log.mode",
        "ctl.insecure",
        "postgresql.parameters",
        "postgresql.bin_name",
        "watchdog.mode",
        "thread_pool_size",
        "bootstrap.dcs.ttl",
        "bootstrap.dcs.synchronous_mode",
        "bootstrap.dcs.standby_cluster",
        "bootstrap.dcs.postgresql",
        "bootstrap.initdb",
        "zookeeper.verify",
        "zookeeper.set_acls",
        "postgresql.proxy_address",
    ] {
        put(path, &[json!(null)]);
        put(path, &any);
        put(path, &[json!("text")]);
    }
    let texts = |texts: &[&str]| -> Vec<Value> { texts.iter().map(|text| json!(text)).collect() };
    let addresses = texts(&[
        "127.0.0.1:{open}",
        "127.0.0.1:{free}",
        "localhost:{open}",
        "127.0.0.1",
        "*:{open}",
        "*:{free}",
        "127.0.0.1,localhost:{free}",
        "127.0.0.1, localhost:{open}",
        "*,127.0.0.1:{free}",
        "[::1]:{free}",
        "::1:{free}",
        "[::1]",
        "127.0.0.1:http",
        "127.0.0.1:",
        ":{free}",
        "127.0.0.1: {free} ",
        "127.0.0.1:1_0",
        "127.0.0.1:99999",
        "127.0.0.1:-1",
        "127.0.0.1:0",
        "no.such.host.invalid:80",
        "0.0.0.0:{open}",
        "",
    ]);
    for path in ["restapi.listen", "postgresql.listen"] {
        put(path, &addresses);
    }
    let hosts = texts(&[
        "10.1.2.3:1",
        "10.1.2.3",
        "localhost:1",
        "[::1]:5",
        "::1:5",
        "*:5",
        "a,b:5",
        "a:b",
        "a:",
        "",
        "127.0.0.1:5",
        "0.0.0.0:5",
        "x:99999",
    ]);
    for path in ["restapi.connect_address", "postgresql.connect_address", "postgresql.proxy_address"] {
        put(path, &hosts);
    }
    put(
        "zookeeper.hosts",
        &texts(&[
            "127.0.0.1:{open}",
            "127.0.0.1:{open}, localhost:{open}",
            "127.0.0.1:{open},127.0.0.1:{free}",
            "127.0.0.1:{free}",
            "a:b",
            "no.such.host.invalid:2181",
            "",
        ]),
    );
    put(
        "zookeeper.hosts",
        &[
            json!(["127.0.0.1:{free}", "127.0.0.1:{free}"]),
            json!(["127.0.0.1:{open}", "127.0.0.1:{free}"]),
            json!([5]),
            json!([null]),
            json!(["a:b", "127.0.0.1:{open}"]),
            json!([["127.0.0.1:{open}"]]),
        ],
    );
    put(
        "postgresql.data_dir",
        &texts(&[
            "",
            "{dir}/new",
            "{dir}/empty",
            "{dir}/file",
            "{dir}/junk",
            "{dir}/hidden",
            "{dir}/lost",
            "{dir}/data",
            "{dir}/other",
            "{dir}/without_log",
            "{dir}/nine",
            "{dir}/control",
            "{dir}/garbled",
        ]),
    );
    put("postgresql.bin_dir", &texts(&["", "{dir}/new", "{dir}/file", "{dir}/empty", "{bin}"]));
    put(
        "postgresql.bin_name",
        &[
            json!({"pg_ctl": "nothing"}),
            json!({"postgres": "pg_ctl", "pg_rewind": ""}),
            json!({"initdb": "{bin}/initdb"}),
            json!({"initdb": 5, "pg_isready": "{dir}/not_executable"}),
            json!({"unknown": 5}),
        ],
    );
    put("log.level", &texts(&["DEBUG", "info", "WARN", "FATAL", "NOTSET", "loud"]));
    put("log.traceback_level", &texts(&["debug", "ERROR", "INFO"]));
    put("log.type", &texts(&["json", "JSON", "plain"]));
    put(
        "log.format",
        &[
            json!(["message"]),
            json!(["message", {"a": "b"}]),
            json!([{"a": 5}]),
            json!([{"a": "b", "c": "d"}]),
            json!([5]),
        ],
    );
    put("log.mode", &[json!(0o600), json!(512), json!(-1), json!("0600")]);
    put("log.max_queue_size", &[json!(0), json!("5"), json!(1.5)]);
    put("log.deduplicate_heartbeat_logs", &[json!(true), json!("on"), json!(1)]);
    put("thread_pool_size", &[json!(4), json!(5), json!("8")]);
    put("thread_stack_size", &[json!(65536), json!(65537), json!(1), json!("512kB")]);
    put("ctl", &[json!({"insecure": "on", "cacert": 5, "certfile": 1.5})]);
    put(
        "restapi.authentication",
        &[json!({"username": "a"}), json!({"password": "a"}), json!({"username": "a", "password": "b"})],
    );
    put("restapi.verify_client", &texts(&["none", "NONE", "some"]));
    put("restapi.server_tokens", &texts(&["Minimal", "PRODUCTONLY", "all"]));
    put("restapi.request_queue_size", &[json!(0), json!(4096), json!(4097), json!("5")]);
    put("restapi.thread_pool_size", &[json!(4), json!(5)]);
    put("restapi.allowlist", &[json!(["10.0.0.0/8"]), json!([5, "a"]), json!("10.0.0.0/8")]);
    put("restapi.allowlist_include_members", &[json!("on"), json!(false)]);
    put("watchdog.mode", &texts(&["off", "automatic", "required", "Required", "on"]));
    put("watchdog.mode", &[json!(false)]);
    put("watchdog.safety_margin", &[json!(-1), json!(-2), json!("5"), json!(5)]);
    put("watchdog.device", &[json!(5)]);
    put(
        "tags",
        &[
            json!({"nofailover": true, "failover_priority": 1}),
            json!({"nosync": false, "sync_priority": 0, "nofailover": "on"}),
            json!({"nofailover": true, "failover_priority": 1, "nosync": true, "sync_priority": 1}),
            json!({"failover_priority": -1}),
            json!({"failover_priority": "1"}),
            json!({"replicatefrom": 5, "clonefrom": "yes"}),
            json!({"nostream": 1, "mine": [1]}),
        ],
    );
    for name in [
        "ttl",
        "loop_wait",
        "retry_timeout",
        "maximum_lag_on_failover",
        "maximum_lag_on_syncnode",
        "member_slots_ttl",
        "primary_start_timeout",
        "primary_stop_timeout",
        "synchronous_node_count",
    ] {
        let path = format!("bootstrap.dcs.{name}");
        put(
            &path,
            &[
                json!(-2),
                json!(-1),
                json!(0),
                json!(1),
                json!(20),
                json!("30"),
                json!("30min"),
                json!("0x10"),
                json!(19.6),
                json!("x"),
                json!(false),
            ],
        );
    }
    put(
        "bootstrap.dcs.synchronous_mode",
        &[json!("quorum"), json!("QUORUM"), json!("maybe"), json!(1), json!("on"), json!(2)],
    );
    put("bootstrap.dcs.synchronous_mode_strict", &[json!(true), json!("on")]);
    put("bootstrap.dcs.failsafe_mode", &[json!("maybe")]);
    put(
        "bootstrap.dcs.postgresql",
        &[
            json!({"parameters": {"max_connections": 0}}),
            json!({"parameters": {"max_connections": "262143", "max_wal_senders": -1}}),
            json!({"parameters": {"max_locks_per_transaction": 9, "wal_level": 5}}),
            json!({"parameters": 5}),
            json!({"pg_hba": ["a", 5]}),
            json!({"pg_hba": "a"}),
            json!({"pg_ident": []}),
            json!({"use_slots": "on", "use_pg_rewind": 1}),
            json!({"pg_ctl_timeout": -1}),
            json!({"bin_dir": "/nowhere", "listen": 5}),
        ],
    );
    put(
        "bootstrap.dcs.standby_cluster",
        &[
            json!({"host": "a"}),
            json!({"port": 5432}),
            json!({"port": 70000}),
            json!({"port": "5432"}),
            json!({"primary_slot_name": "a"}),
            json!({"host": "a", "create_replica_methods": "basebackup", "recovery_min_apply_delay": 5}),
            json!({"restore_command": 5, "archive_cleanup_command": "x"}),
        ],
    );
    put(
        "bootstrap",
        &[
            json!({"method": 5, "dcs": {}}),
            json!({"initdb": ["a", {"b": "c"}, 5, null], "dcs": {}}),
            json!({"method": "x"}),
        ],
    );
    put(
        "postgresql.parameters",
        &[json!({"unix_socket_directories": 5}), json!({"unix_socket_directories": ".", "max_connections": 0})],
    );
    put("postgresql.pg_ctl_timeout", &[json!(-1), json!("60"), json!("x")]);
    put("postgresql.use_pg_rewind", &[json!("on"), json!(true)]);
    put("postgresql.pg_hba", &[json!(["a"]), json!(["a", 5, null, {"b": "it's"}])]);
    put("postgresql.authentication", &[json!({"rewind": {"password": "x"}}), json!({"superuser": {"username": null}})]);
    put("citus", &[json!({"database": "a"}), json!({"database": 5, "group": -1})]);
    // Without any store, and several mistakes at once.
    changes.push(json!({"zookeeper": null}));
    changes.push(json!({"zookeeper": null, "etcd3": {"host": "127.0.0.1:{open}"}}));
    changes.push(json!({"zookeeper": null, "etcd3": {"hosts": "127.0.0.1:{open},127.0.0.1:{free}", "username": 5}}));
    changes.push(json!({"zookeeper": null, "etcd3": {"hosts": ["127.0.0.1:{free}"], "cacert": 5}}));
    changes.push(json!({"zookeeper": null, "etcd3": {}}));
    changes.push(json!({"zookeeper": null, "etcd3": {"host": 5}}));
    changes.push(json!({"scope": null, "name": 5, "restapi": {"listen": "x:y"}, "postgresql": {"listen": null, "authentication": {"superuser": null}}}));
    changes
}

/// What pgherd does not start with, and so refuses, though Patroni's validator says nothing of it.
const ONLY_OURS: [&str; 16] = [
    "bootstrap.method  there is no command for it: the section `bootstrap.x` needs a key `command`; or leave the method out, for initdb",
    "postgresql.bin_dir  expected a path, found a list",
    "postgresql.bin_dir  expected a path, found a mapping",
    "postgresql.connect_address  expected HOST:PORT, found ``",
    "postgresql.connect_address  expected HOST:PORT, found `10.1.2.3`",
    "postgresql.connect_address  expected HOST:PORT, found `a,b:5`",
    "postgresql.connect_address  expected HOST:PORT, found `text`",
    "postgresql.connect_address  expected HOST:PORT, found `x:99999`",
    "postgresql.listen  expected HOST[,HOST...]:PORT, found `127.0.0.1: {free} `",
    "postgresql.listen  expected HOST[,HOST...]:PORT, found `127.0.0.1:0`",
    "postgresql.listen  expected HOST[,HOST...]:PORT, found `127.0.0.1:1_0`",
    "postgresql.proxy_address  expected HOST:PORT, found ``",
    "postgresql.proxy_address  expected HOST:PORT, found `10.1.2.3`",
    "postgresql.proxy_address  expected HOST:PORT, found `a,b:5`",
    "postgresql.proxy_address  expected HOST:PORT, found `text`",
    "postgresql.proxy_address  expected HOST:PORT, found `x:99999`",
];

#[test]
fn every_file_gets_the_lines_and_the_exit_code_of_the_real_one() {
    let machine = Machine::new();
    let cases: Vec<Case> =
        changes().iter().map(|change| Case { text: machine.file(change), ..Case::default() }).collect();
    let (mut differences, mut only_ours, mut crashed) = (Vec::new(), BTreeSet::new(), 0);
    for (case, expected) in cases.iter().zip(machine.theirs(&cases)) {
        let ours = machine.ours(case);
        let (more, same): (Vec<String>, Vec<String>) =
            ours.err.iter().cloned().partition(|line| !expected.err.contains(line));
        let is_same = same == expected.err && ours.out == expected.out;
        // Ours alone have two spaces after a key that has a value.
        let are_own = more.iter().all(|line| line.contains("  expected ") || line.contains("  there is no command"));
        let code = if more.is_empty() { expected.code } else { 1 };
        if expected.crashed {
            crashed += 1;
            assert_eq!(ours.code, 1, "{}", case.text);
        } else if !is_same || !are_own || ours.code != code {
            differences.push(format!("{}\n  ours   {ours:?}\n  theirs {expected:?}", case.text));
        } else {
            only_ours.extend(more.iter().map(|line| line.replace(&machine.free.to_string(), "{free}")));
        }
    }
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), cases.len(), differences.join("\n"));
    // Those of the REST API's addresses are the same.
    let apart: BTreeSet<&str> =
        only_ours.iter().map(String::as_str).filter(|line| !line.starts_with("restapi.")).collect();
    assert_eq!(apart, BTreeSet::from(ONLY_OURS));
    note(&format!(
        "--validate-config: {} files, of which the real one crashes at {crashed}: the same lines and exit codes\n",
        cases.len()
    ));
}

#[test]
fn the_environment_directories_and_options_are_those_of_the_real_one() {
    let machine = Machine::new();
    let base = || Case { text: machine.file(&json!({})), ..Case::default() };
    let print = || vec!["-p".to_owned()];
    let printed = |variables: &[(&str, &str)]| Case {
        arguments: print(),
        environment: variables.iter().map(|(name, value)| ((*name).to_owned(), machine.filled(value))).collect(),
        ..base()
    };
    let mut cases = vec![base(), printed(&[])];
    for variables in [
        &[("PATRONI_NAME", "other"), ("PATRONI_SCOPE", ""), ("PATRONI_NAMESPACE", "/x/")][..],
        &[("PATRONI_THREAD_POOL_SIZE", "8")],
        &[("PATRONI_LOGLEVEL", "DEBUG"), ("PATRONI_LOGFORMAT", "%(message)s"), ("PATRONI_LOG_DATEFMT", "%H")],
        &[("PATRONI_LOGLEVEL", "DEBUG"), ("PATRONI_LOG_LEVEL", "WARNING"), ("PATRONI_LOG_DATEFORMAT", "%M")],
        &[("PATRONI_LOG_FORMAT", "asctime, {levelname: level}, message"), ("PATRONI_LOG_TYPE", "json")],
        &[("PATRONI_LOG_FORMAT", "[message]"), ("PATRONI_LOG_STATIC_FIELDS", "app: db, n: 5")],
        &[("PATRONI_LOG_MAX_QUEUE_SIZE", "500"), ("PATRONI_LOG_FILE_SIZE", "0x100"), ("PATRONI_LOG_MODE", "0644")],
        &[("PATRONI_LOG_FILE_NUM", "7"), ("PATRONI_LOG_DIR", "{dir}/empty"), ("PATRONI_LOG_TRACEBACK_LEVEL", "DEBUG")],
        &[("PATRONI_LOG_LOGGERS", "{patroni.ha: DEBUG}"), ("PATRONI_LOG_DEDUPLICATE_HEARTBEAT_LOGS", "on")],
        &[("PATRONI_RESTAPI_LISTEN", "127.0.0.1:{free}"), ("PATRONI_RESTAPI_REQUEST_QUEUE_SIZE", "9")],
        &[("PATRONI_RESTAPI_ALLOWLIST", "10.0.0.0/8,'::1'"), ("PATRONI_RESTAPI_ALLOWLIST_INCLUDE_MEMBERS", "yes")],
        &[("PATRONI_RESTAPI_HTTP_EXTRA_HEADERS", "X-A: b"), ("PATRONI_RESTAPI_VERIFY_CLIENT", "optional")],
        &[("PATRONI_RESTAPI_USERNAME", "me"), ("PATRONI_RESTAPI_PASSWORD", "0123"), ("PATRONI_CTL_INSECURE", "off")],
        &[("PATRONI_CTL_USERNAME", "me"), ("PATRONI_CTL_PASSWORD", "it"), ("PATRONI_CTL_CACERT", "/ca")],
        &[("PATRONI_RESTAPI_THREAD_POOL_SIZE", "9"), ("PATRONI_RESTAPI_SERVER_TOKENS", "minimal")],
        &[("PATRONI_POSTGRESQL_DATA_DIR", "{dir}/new"), ("PATRONI_POSTGRESQL_BIN_DIR", "{bin}")],
        &[("PATRONI_POSTGRESQL_BIN_PG_CTL", "pg_ctl"), ("PATRONI_POSTGRESQL_BIN_IS_READY", "x")],
        &[
            ("PATRONI_REPLICATION_USERNAME", "r"),
            ("PATRONI_SUPERUSER_SSLMODE", "require"),
            ("PATRONI_REWIND_USERNAME", "w"),
        ],
        &[("PATRONI_ZOOKEEPER_HOSTS", "'127.0.0.1:{open}','localhost:{open}'"), ("PATRONI_ZOOKEEPER_VERIFY", "off")],
        &[("PATRONI_ZOOKEEPER_HOSTS", "- 127.0.0.1:{open}"), ("PATRONI_ZOOKEEPER_KEY_PASSWORD", "5")],
        &[
            ("PATRONI_ETCD3_HOSTS", "127.0.0.1:{open}"),
            ("PATRONI_ETCD3_USERNAME", "u"),
            ("PATRONI_ETCD3_PASSWORD", "p"),
        ],
        &[
            ("PATRONI_ETCD3_HOST", "127.0.0.1:{open}"),
            ("PATRONI_ETCD3_PORT", "2379"),
            ("PATRONI_ETCD3_USE_PROXIES", "no"),
        ],
        &[("PATRONI_CITUS_GROUP", "0"), ("PATRONI_CITUS_DATABASE", "d"), ("PATRONI_CITUS_PORT", "5")],
        &[("PATRONI_NOTHING", "x"), ("PATRONI_LOG_NOTHING", "x")],
        &[("PATRONI_ZOOKEEPER_USE_SSL", "on")],
        &[("PATRONI_CONFIGURATION", "name: ignored")],
    ] {
        cases.push(printed(variables));
    }
    // Ports that are in use.
    let used = machine.file(&json!({"restapi": {"listen": "127.0.0.1:{open}"}, "postgresql": {"listen": "*:{open}"}}));
    for options in [&[][..], &["-i"], &["--ignore-listen-port", "--print"]] {
        let arguments = options.iter().map(|option| (*option).to_owned()).collect();
        cases.push(Case { text: used.clone(), arguments, ..Case::default() });
    }
    // Without a file.
    let alone = [
        ("PATRONI_SCOPE", "c"),
        ("PATRONI_NAME", "n"),
        ("PATRONI_RESTAPI_LISTEN", "127.0.0.1:{free}"),
        ("PATRONI_RESTAPI_CONNECT_ADDRESS", "10.1.2.3:8008"),
        ("PATRONI_ZOOKEEPER_HOSTS", "'127.0.0.1:{open}'"),
        ("PATRONI_POSTGRESQL_LISTEN", "127.0.0.1:{free}"),
        ("PATRONI_POSTGRESQL_CONNECT_ADDRESS", "10.1.2.3:5432"),
        ("PATRONI_POSTGRESQL_DATA_DIR", "{dir}/empty"),
        ("PATRONI_REPLICATION_USERNAME", "r"),
        ("PATRONI_SUPERUSER_USERNAME", "s"),
    ];
    for variables in [&alone[..], &alone[..3], &[]] {
        cases.push(Case { is_missing: true, text: String::new(), ..printed(variables) });
    }
    let whole = machine.file(&json!({"name": "from_the_variable"}));
    cases.push(Case { is_missing: true, ..printed(&[("PATRONI_CONFIGURATION", &whole), ("PATRONI_NAME", "ignored")]) });
    cases.push(Case { is_missing: true, ..printed(&[("PATRONI_CONFIGURATION", "# nothing"), ("PATRONI_NAME", "n")]) });
    // Directories of files.
    let rest = "restapi: {listen: '127.0.0.1:{free}', connect_address: '10.1.2.3:8008'}\nzookeeper: {hosts: '127.0.0.1:{open}'}\n\
                postgresql: {listen: '127.0.0.1:{free}', connect_address: '10.1.2.3:1', data_dir: '{dir}/empty', authentication: \
                {replication: {username: r}, superuser: {username: s}}}\n";
    let directories: [&[(&str, &str)]; 9] = [
        &[("1.yml", "scope: c\nname: n\n"), ("2.yaml", rest)],
        &[("2.yml", "scope: d\nname: ~\nloop: {a: 1, b: ~}\n"), ("1.yml", "scope: c\nname: n\n"), ("3.yml", rest)],
        &[
            ("1.yml", "scope: c\nname: n\nx: 20\ny: on\nz: [1]\n"),
            ("2.yml", "x: '20'\ny: 'True'\nz: ['1']\n"),
            ("3.yml", rest),
        ],
        &[
            ("1.yml", "scope: c\nname: n\nm: {a: {b: 1, c: 2}}\n"),
            ("2.yml", "m: {a: {b: ~, d: 3}, e: ~}\n"),
            ("3.yml", rest),
        ],
        &[("1.yml", "scope: c\nname: n\nm: 1\n"), ("2.yml", "m: {a: 1}\n"), ("3.yml", rest)],
        &[("1.yml", "scope: c\nname: n\nm: {a: 1}\n"), ("2.yml", "m: 5\n"), ("3.yml", rest), ("4.txt", "name: [")],
        &[("10.yml", "scope: ten\n"), ("9.yml", "scope: nine\nname: n\n"), ("3.yml", rest)],
        &[(".hidden.yml", "name: hidden\nscope: c\n"), ("3.yml", rest), ("4.YML", "name: upper\n")],
        &[("1.txt", "scope: c\n")],
    ];
    for files in directories {
        cases.push(Case { files: files.to_vec(), arguments: print(), ..Case::default() });
    }
    let mut differences = Vec::new();
    for (case, expected) in cases.iter().zip(machine.theirs(&cases)) {
        let ours = machine.ours(case);
        if ours != expected {
            differences.push(format!("{case:?}\n  ours   {ours:?}\n  theirs {expected:?}"));
        }
    }
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), cases.len(), differences.join("\n"));
    note(&format!("--validate-config: {} environments, directories and options, the same answers\n", cases.len()));
}

/// What PyYAML makes of a value is what `-p` prints of it.
#[test]
fn values_of_the_file_are_read_as_pyyaml_reads_them() {
    let machine = Machine::new();
    let values = [
        "on",
        "off",
        "Yes",
        "no",
        "y",
        "TRUE",
        "~",
        "null",
        "Null",
        "none",
        "0755",
        "08",
        "0o17",
        "0x1F",
        "0b101",
        "1_000",
        "+12",
        "-0",
        "1:30",
        "190:20:30",
        "1:60",
        "1e3",
        "1.5e+3",
        "1.",
        ".5",
        "-.5",
        "1_0.2_5",
        "10.0.0.1",
        "127.0.0.1:5432",
        "30min",
        "'on'",
        "\"off\"",
        "'0755'",
        "\"a\\tb\\u00e4\"",
        "'it''s'",
        "[a, on, 0755, ~]",
        "{a: on, 'b': [1, {c: d}]}",
        "|\n    a\n    b\n",
        ">-\n    a\n    b\n",
        "!!str 5",
        "!!int '5'",
        "!!float 5",
        "!!bool 'yes'",
        "a b: c",
        "a #b",
        "a#b",
        "'#b'",
        "\u{fc}ber",
        "-",
        "--- a",
        "@",
        "%a",
        "&x [1]",
        "[]",
        "{}",
        "''",
        "a\n    b",
        "2.0",
        "1e-7",
        "123456789012345678901.5",
        "0.1",
        "-5",
        "[1,\n   2]",
        "? a",
        "a: b",
        "*",
    ];
    let mut cases = Vec::new();
    for value in values {
        let base: Value = serde_json::from_str(&machine.file(&json!({}))).expect("the base is JSON");
        let lines: Vec<String> =
            base.as_object().expect("a mapping").iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        let text = format!("{}watchdog:\n  x: {value}\n", lines.concat());
        cases.push(Case { text, arguments: vec!["-p".to_owned()], ..Case::default() });
    }
    let mut differences = Vec::new();
    for (case, expected) in cases.iter().zip(machine.theirs(&cases)) {
        let ours = machine.ours(case);
        // A traceback of PyYAML's has no text to compare.
        let is_same = if expected.crashed { ours.code == 1 } else { ours == expected };
        if !is_same {
            let what = case.text.rsplit("watchdog:").next().unwrap_or_default();
            differences.push(format!("{what:?}\n  ours   {ours:?}\n  theirs {expected:?}"));
        }
    }
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), cases.len(), differences.join("\n"));
    note(&format!("YAML: {} values are read as PyYAML reads them\n", cases.len()));
}

/// Where pgherd says something else on purpose, or more.
#[test]
fn what_is_told_otherwise_on_purpose() {
    let machine = Machine::new();
    let password = json!({"postgresql": {"authentication": {"replication": {"password": 4711}}}});
    for (change, expected) in [
        // No message shows a password; Patroni's does.
        (password, "postgresql.authentication.replication.password *** is not a string"),
        (
            json!({"zookeeper": null, "consul": {"host": "127.0.0.1:{open}"}}),
            "consul  pgherd does not speak to this store; name a ZooKeeper under `zookeeper.hosts`, or an etcd under `etcd3.hosts`",
        ),
        (
            json!({"postgresql": {"use_unix_socket": "maybe"}}),
            "postgresql.use_unix_socket  expected a boolean (on or off), found `maybe`",
        ),
        (json!({"bootstrap": {"dcs": {}, "initdb": ["nosync"]}}), "bootstrap.initdb  `nosync` is set by pgherd itself"),
    ] {
        let ours = machine.ours(&Case { text: machine.file(&change), ..Case::default() });
        assert_eq!((ours.code, ours.err), (1, vec![expected.to_owned()]), "{change}");
    }
    // A traceback in Patroni.
    for (text, expected) in [
        ("scope: [\n", "this is not YAML"),
        ("a: 1\na: 2\n", "a: this key is written twice; remove one"),
        ("- a\n", "expected keys with values, found a list"),
        ("", "expected keys with values, found nothing"),
    ] {
        let ours = machine.ours(&Case { text: text.to_owned(), ..Case::default() });
        assert_eq!(ours.code, 1, "{text:?}");
        assert!(ours.err.iter().any(|line| line.contains(expected)), "{text:?}: {ours:?}");
    }
}
