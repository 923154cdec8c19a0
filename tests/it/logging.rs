//! `log` of a Patroni file: the same record through Python's own libraries and through ours, and the log of a running agent.
//!
//! Not here: a disk that takes nothing, as data (`agent/src/log/sink.rs`).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use pgherd_agent::log::{Destination, Extra, Layout, Record, Sink};
use serde_json::{Map, Value, json};
use tracing::Level;

use crate::ctl::patronictl;
use crate::harness::cluster::{Cluster, LONG};
use crate::harness::eventually;
use crate::harness::user::servers_directory;

/// Formats that Python's logging takes; each is filled from every record.
const PLAIN: [&str; 50] = [
    "",
    "%(asctime)s %(levelname)s: %(message)s",
    "%(message)s",
    "%(levelname)-8s|%(levelname)8s|%(levelname).1s|%(levelname)-6.3s|",
    "%(levelno)s %(levelno)d %(levelno)05d %(levelno)-5d| %(levelno)+d %(levelno) d",
    "%(levelno)x %(levelno)#x %(levelno)X %(levelno)#X %(levelno)o %(levelno)#o",
    "%(levelno)08x|%(levelno)#08x|%(levelno)-#8x|",
    "%(levelno).4d|%(levelno)8.4d|%(levelno).4x|%(levelno)#.4x|",
    "%(levelno)i %(levelno)u %(levelno)ld",
    "%(name)s",
    "%(pathname)s:%(lineno)d",
    "%(filename)s %(module)s %(lineno)s",
    "%(process)d %(process)s %(process)8d|%(process)-8d|",
    "%(processName)s %(thread)d %(thread)s %(threadName)s",
    "%(threadName)12s|%(threadName)-12s|",
    "%(created)s",
    "%(created)f",
    "%(created).3f",
    "%(created)d",
    "%(created)020.2f",
    "%(created)+.0f %(created)#.0f",
    "%(created)e %(created)E %(created).2e",
    "%(created)g %(created)G %(created).3g %(created).12g",
    "%(msecs)s",
    "%(msecs)d",
    "%(msecs)03d",
    "%(msecs)3d|%(msecs)-5d|",
    "%(msecs)f %(msecs).1f",
    "%(msecs)g %(msecs)e",
    "%(relativeCreated)s",
    "%(relativeCreated)d",
    "%(relativeCreated)6d|%(relativeCreated)-6d|",
    "%(relativeCreated)f %(relativeCreated).2f %(relativeCreated)g",
    "100%% %(message)s 50%%",
    "{%(message)s}",
    "%(message)r",
    "%(message)a",
    "%(message)40s|",
    "%(message)-40s|",
    "%(message)040s|",
    "%(message).5s|",
    "%(message)10.5s|",
    "%(message)-10.5s|",
    "%(message)#s %(message)+s %(message) s",
    "%(levelname)s\n%(message)s\ttab",
    "%(levelname)s \u{fc}ber %(message)s",
    "%(exc_text)s %(stack_info)s",
    "%(asctime)25s|%(asctime)-25s|%(asctime).10s|",
    "[%(asctime)s][%(process)d][%(levelname)-5s] %(message)s",
    "%(asctime)s.%(msecs)03dZ %(levelname)s: %(message)s",
];

/// Formats of the time.
const DATES: [&str; 24] = [
    "",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S%z",
    "%d/%b/%Y:%H:%M:%S %z",
    "%a %A %b %B %h",
    "%c",
    "%x %X",
    "%D %F %T %R %r",
    "%I:%M:%S %p %P",
    "%j %U %W %V %G %g %u %w",
    "%C %y %e %k %l",
    "%s",
    "%n%t%%",
    "%Z",
    "%f",
    "%N %Q %q",
    "%-d %_d %0e",
    "%^a %^B %#Z",
    "%Ey %Od %EY",
    "%.3f",
    "%:z",
    "100%",
    "no directive \u{fc}",
    "%E %O",
];

/// Python prints what its libraries make of the records that it reads.
const ORACLE: &str = r"
import json, logging, sys
from pythonjsonlogger.json import JsonFormatter

class Handler(logging.Handler):
    pass

def record(data):
    made = logging.LogRecord(data['name'], data['levelno'], data['pathname'], data['lineno'], data['message'], None, None)
    for name in ('created', 'msecs', 'relativeCreated', 'process', 'thread', 'threadName'):
        setattr(made, name, data[name])
    for name, value in data['extra'].items():
        setattr(made, name, value)
    return made

def formatter(case):
    from patroni.log import PatroniLogger
    made = PatroniLogger.__new__(PatroniLogger)
    return PatroniLogger._get_formatter(made, case)

answers = []
for case in json.load(sys.stdin):
    try:
        answers.append(formatter(case['config']).format(record(case['record'])))
    except Exception as error:
        answers.append(None)
print(json.dumps(answers))
";

fn records() -> Vec<Record> {
    let record = |level, time: &str, message: &str, age| Record {
        time: time.parse().expect("a time"),
        age,
        level,
        target: "pgherd_agent::daemon::round",
        file: "crates/agent/src/daemon/round.rs",
        line: 7,
        message: message.to_owned(),
        fields: Vec::new(),
        process: 4711,
        thread: 140_001,
        thread_name: "MainThread".to_owned(),
    };
    vec![
        record(Level::INFO, "2026-11-27T05:04:03.210987Z", "no action. I am (a), the leader with the lock", 12.5),
        record(Level::ERROR, "2026-01-01T00:00:00.007Z", "it's a \"quote\"\nand a line \\ \u{e4}\u{1f600}", 0.0),
        record(Level::WARN, "2024-02-29T23:59:59.999999Z", "", 1_234_567.891),
        record(Level::DEBUG, "2027-07-04T12:00:00Z", "%(message)s % 100%", 999.0),
    ]
}

/// The same record for the oracle.
fn described(record: &Record) -> Value {
    let extra: Map<String, Value> =
        record.fields.iter().map(|(name, extra)| ((*name).to_owned(), extra.value())).collect();
    let number = match record.level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        _ => 10,
    };
    json!({"name": "patroni.ha", "levelno": number, "pathname": record.file, "lineno": record.line, "message": record.message,
        "created": record.created(), "msecs": record.milliseconds() as f64, "relativeCreated": record.age,
        "process": record.process, "thread": record.thread, "threadName": record.thread_name, "extra": extra})
}

/// What Python makes of each case, in the time zone of the test.
fn ask_python(cases: &[Value]) -> Vec<Option<String>> {
    let python = patronictl().with_file_name("python3");
    let mut child = Command::new(python)
        .args(["-c", ORACLE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the Python of the real Patroni runs");
    let text = Value::from(cases).to_string();
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("Python reads");
    let output = child.wait_with_output().expect("its output");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The layout that a `log` section asks for.
fn layout(log: &Value) -> Layout {
    let format = log.get("format").cloned().unwrap_or_else(|| json!("%(asctime)s %(levelname)s: %(message)s"));
    let date = log.get("dateformat").and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let constant = log.get("static_fields").and_then(Value::as_object).cloned().unwrap_or_default();
    let (layout, problem) = match log["type"] == "json" {
        true => Layout::json(&format, date, constant),
        false => Layout::plain(&format, date),
    };
    assert_eq!(problem, None, "{log}");
    layout
}

/// Every configuration with every record; returns how many lines were compared.
fn compare(configurations: &[Value], records: &[Record]) -> usize {
    let pairs: Vec<(&Value, &Record)> =
        configurations.iter().flat_map(|log| records.iter().map(move |record| (log, record))).collect();
    let cases: Vec<Value> =
        pairs.iter().map(|(log, record)| json!({"config": log, "record": described(record)})).collect();
    let answers = ask_python(&cases);
    assert_eq!(answers.len(), pairs.len());
    for ((log, record), answer) in pairs.iter().zip(&answers) {
        let line = layout(log).line(record);
        assert_eq!(Some(&line), answer.as_ref(), "{log} of {}", described(record));
    }
    answers.len()
}

#[test]
fn lines_are_those_of_pythons_logging() {
    let formats = PLAIN.iter().map(|format| json!({"format": format}));
    let dates = DATES.iter().map(|date| json!({"format": "%(asctime)s", "dateformat": date}));
    let configurations: Vec<Value> = formats.chain(dates).collect();
    let compared = compare(&configurations, &records());
    crate::harness::notes::note(&format!("log: {compared} lines are those of Python's logging\n"));
}

#[test]
fn json_lines_are_those_of_pythons_json_logger() {
    let formats = [
        json!("%(asctime)s %(levelname)s: %(message)s"),
        json!("%(message)s"),
        json!("%(levelname)-8s %(message)s %(process)d"),
        json!(["message"]),
        json!(["asctime", "levelname", "message", "name", "module", "filename", "lineno", "pathname"]),
        json!(["created", "msecs", "relativeCreated", "levelno", "process", "processName", "thread", "threadName"]),
        json!(["asctime", {"levelname": "severity"}, {"message": "@message"}]),
        json!([{"asctime": "@timestamp"}, {"nobody": "renamed"}, "nobody_else", "exc_info", "stack_info"]),
        json!([{"levelname": "a", "message": "b"}, {"rule": "why"}, {"app": "application"}]),
        json!(["message", "message", {"message": "twice"}]),
    ];
    let constants = [json!({}), json!({"app": "db", "n": 5, "message": "wins"}), json!({"\u{e4}": [1, {"x": null}]})];
    let mut configurations = Vec::new();
    for format in &formats {
        for constant in &constants {
            configurations.push(json!({"type": "json", "format": format, "static_fields": constant}));
        }
        configurations.push(json!({"type": "json", "format": format, "dateformat": "%H:%M"}));
    }
    configurations.push(json!({"type": "json"}));
    let mut records = records();
    records[0].fields =
        vec![("rule", Extra::Text("race".into())), ("votes", Extra::Other(json!(2))), ("app", Extra::Text("x".into()))];
    let compared = compare(&configurations, &records);
    crate::harness::notes::note(&format!("log: {compared} lines are those of python-json-logger\n"));
}

/// What Python refuses or cannot fill is refused by us, too: then Patroni's default is used.
#[test]
fn formats_that_python_cannot_fill_are_refused() {
    let formats = [
        "plain",
        "%(message)",
        "%(message)d",
        "%(nobody)s",
        "%s",
        "%(levelname)s %d",
        "%(message)y",
        "%(created)x",
        "%(message",
        "%(lineno)s %",
        "%(message)*s",
    ];
    let record = &records()[0];
    let cases: Vec<Value> =
        formats.iter().map(|format| json!({"config": {"format": format}, "record": described(record)})).collect();
    for (format, answer) in formats.iter().zip(ask_python(&cases)) {
        let (layout, problem) = Layout::plain(&json!(format), None);
        assert!(answer.is_none(), "Python takes {format:?}: {answer:?}");
        assert!(problem.is_some(), "{format:?} is taken");
        assert!(layout.line(record).ends_with(&format!("INFO: {}", record.message)), "{format:?}");
    }
}

/// Patroni's own handler for its file.
const ROTATION: &str = r"
import json, logging, os, sys
from patroni.log import PatroniFileHandler

for case in json.load(sys.stdin):
    handler = PatroniFileHandler(os.path.join(case['dir'], 'patroni.log'), case['mode'])
    handler.maxBytes, handler.backupCount = case['file_size'], case['file_num']
    for line in case['lines']:
        handler.handle(logging.LogRecord('patroni', 20, '', 0, line, None, None))
    handler.close()
";

/// Names, permissions and contents.
fn files(directory: &Path) -> BTreeMap<String, (u32, String)> {
    let entries = std::fs::read_dir(directory).expect("listed").flatten();
    let file = |entry: std::fs::DirEntry| {
        let mode = entry.metadata().expect("it is there").permissions().mode() & 0o777;
        (entry.file_name().to_string_lossy().into_owned(), (mode, read(&entry.path())))
    };
    entries.map(file).collect()
}

#[test]
fn files_are_rotated_as_patroni_rotates_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let lines: Vec<String> = (0..40).map(|number| format!("{number}{}", "x".repeat(number * 7 % 31))).collect();
    let mut cases = Vec::new();
    for (file_size, file_num) in [(0, 3), (100, 0), (100, 1), (100, 3), (64, 20), (1000, 2), (10_000, 4)] {
        for mode in [0o600, 0o644] {
            let dir = |whose: &str| directory.path().join(format!("{whose}-{file_size}-{file_num}-{mode:o}"));
            let (theirs, ours) = (dir("theirs"), dir("ours"));
            std::fs::create_dir(&theirs).expect("a new directory");
            std::fs::create_dir(&ours).expect("a new directory");
            let destination = Destination { dir: Some(ours.clone()), mode: Some(mode), file_size, file_num };
            let mut sink = Sink::new(destination);
            for line in &lines {
                assert_eq!(sink.write(line), None);
            }
            let case =
                json!({"dir": theirs, "mode": mode, "file_size": file_size, "file_num": file_num, "lines": lines});
            cases.push((case, theirs, ours));
        }
    }
    let questions: Vec<&Value> = cases.iter().map(|(case, ..)| case).collect();
    let mut child = Command::new(patronictl().with_file_name("python3"))
        .args(["-c", ROTATION])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the Python of the real Patroni runs");
    child.stdin.take().expect("a pipe").write_all(json!(questions).to_string().as_bytes()).expect("Python reads");
    assert!(child.wait().expect("our own child").success());
    for (case, theirs, ours) in &cases {
        assert_eq!(files(ours), files(theirs), "{}", case["file_size"]);
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// One node, whose agent reads its file again and again with another `log`.
#[test]
fn a_running_agent_obeys_log_whenever_its_file_is_read_again() {
    let cluster = Cluster::start(1);
    let directory = cluster.directory().join("logs");
    servers_directory(&directory);
    let file = directory.join("patroni.log");
    let config = cluster.node("node1").config;
    let text = read(&config);
    // A kept connection may have ended meanwhile, which the client notices when it uses it.
    let reload = || {
        let answer = eventually("an answer to POST /reload", LONG, || cluster.rest("node1", "POST", "/reload", ""));
        assert_eq!(answer.0, 202, "{}", answer.1);
    };
    let leads = || eventually("an answer", LONG, || cluster.rest("node1", "GET", "/primary", "")).0 == 200;
    let with_log = |log: &Value| {
        std::fs::write(&config, format!("{text}\nlog: {log}\n")).expect("the node's file");
        reload();
    };
    let wait = |what: &str, is: &dyn Fn() -> bool| {
        eventually(what, LONG, || match is() {
            true => Ok(()),
            false => Err(format!("{}\n{}", read(&file), cluster.log("node1"))),
        });
    };

    // Before anything is configured: our own form, on standard error.
    let own = cluster.log("node1");
    assert!(own.lines().any(|line| line.contains("  INFO pgherd ")), "{own}");

    let plain = json!({"dir": directory, "mode": 0o640, "file_size": 600, "file_num": 2, "deduplicate_heartbeat_logs": false,
        "format": "%(asctime)s|%(levelname)-8s|%(name)s|%(message)s"});
    with_log(&plain);
    // The rule of every round, until the file was rotated twice.
    wait("two rotated files", &|| directory.join("patroni.log.2").exists());
    assert!(!directory.join("patroni.log.3").exists());
    let rotated = directory.join("patroni.log.1");
    let size = std::fs::metadata(&rotated).expect("rotated").len();
    assert!((300..600).contains(&size), "{size}");
    let mode = std::fs::metadata(&rotated).expect("rotated").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    for line in read(&rotated).lines() {
        let [time, level, name, _] = line.splitn(4, '|').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S,%f", time).is_ok(), "{line}");
        assert_eq!((level, name), ("INFO    ", "patroni.ha"), "{line}");
    }

    // Only warnings, but everything of the REST API; as JSON.
    let levels = json!({"dir": directory, "type": "json", "format": ["message", {"levelname": "level"}, "name"], "level": "WARNING",
        "static_fields": {"app": "db"}, "loggers": {"patroni.ha": "INFO", "patroni": "ERROR"}});
    with_log(&levels);
    wait("a line in JSON", &|| read(&file).lines().any(|line| line.starts_with('{')));
    let last = read(&file).lines().last().map(str::to_owned).expect("a line");
    let line: Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!((line["level"].as_str(), line["name"].as_str()), (Some("INFO"), Some("patroni.ha")), "{line}");
    assert_eq!(line["app"], "db", "{line}");

    // The directory vanishes: the lines go on, elsewhere, and so does the node.
    let vanished = cluster.directory().join("vanished");
    std::fs::rename(&directory, &vanished).expect("moved");
    with_log(&plain);
    let failed = || cluster.log("node1").contains("patroni.log cannot be written (No such file or directory");
    wait("the trouble is told on standard error", &failed);
    assert!(leads());
    servers_directory(&directory);
    wait("the file is written again", &|| read(&file).contains("is written again; "));

    // A wrong format is told, and Patroni's default used.
    with_log(&json!({"format": "%(nobody)s"}));
    let told = "log.format: `%(nobody)` is no field of a log record; `%(asctime)s %(levelname)s: %(message)s` is used";
    wait("a warning in Patroni's form", &|| {
        cluster.log("node1").lines().any(|line| line.contains(" WARNING: ") && line.contains(told))
    });

    // And back.
    let before = cluster.log("node1").len();
    std::fs::write(&config, &text).expect("the node's file");
    reload();
    wait("our own form", &|| cluster.log("node1")[before..].contains("  INFO the configuration was read again"));
    assert!(leads());
}
