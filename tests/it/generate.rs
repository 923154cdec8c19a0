//! `--generate-sample-config` and `--generate-config` beside the real ones: the same keys and values, files that both validators pass, and one for a
//! running server that an agent then takes over.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::ctl::patronictl;
use crate::harness::agent::Agent;
use crate::harness::binary::pgherd;
use crate::harness::cluster::LONG;
use crate::harness::eventually;
use crate::harness::ports::free_ports;
use crate::harness::postgres::bin_dir;
use crate::harness::process::postmaster_of;
use crate::harness::user::{give_to_servers, servers_directory};
use crate::harness::zookeeper::ZooKeeperServer;

fn patroni() -> PathBuf {
    patronictl().with_file_name("patroni")
}

fn run(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let path = format!("{}:/usr/bin:/bin", bin_dir().display());
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", path).env("HOME", "/nonexistent").env("LC_ALL", "C.UTF-8");
    command.envs(environment.iter().copied()).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What PyYAML reads, without the one key that Patroni's own validator refuses beside another.
fn read(yaml: &str) -> Value {
    let python = patronictl().with_file_name("python3");
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.argv[1])))";
    let output = Command::new(python).args(["-c", script, yaml]).output().expect("Python runs");
    assert!(output.status.success(), "{}\n{yaml}", text(&output.stderr));
    let mut value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    value["tags"].as_object_mut().expect("tags").remove("nosync");
    value
}

/// Both validators pass the file.
fn is_valid(path: &Path, environment: &[(&str, &str)]) {
    for program in [pgherd(), patroni()] {
        let output = run(&program, &["--validate-config", "-i", &path.display().to_string()], environment);
        assert!(output.status.success(), "{}: {}", program.display(), text(&output.stderr));
    }
}

#[test]
fn the_example_is_that_of_patroni_and_both_validators_pass_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let store = format!("'127.0.0.1:{}'", listener.local_addr().expect("an address").port());
    let elsewhere = [
        ("PATRONI_RESTAPI_CONNECT_ADDRESS", "10.1.2.3:8008"),
        ("PATRONI_POSTGRESQL_CONNECT_ADDRESS", "10.1.2.3:5432"),
        ("PATRONI_ZOOKEEPER_HOSTS", store.as_str()),
    ];
    let more = [
        ("PATRONI_SCOPE", "batman"),
        ("PATRONI_NAMESPACE", "/x/"),
        ("PATRONI_CTL_INSECURE", "on"),
        ("PATRONI_REPLICATION_USERNAME", "me"),
        ("PATRONI_REWIND_USERNAME", "winder"),
        ("PATRONI_LOG_FORMAT", "asctime, message"),
        ("PATRONI_CITUS_GROUP", "1"),
    ];
    for environment in [&elsewhere[..], &[&elsewhere[..], &more].concat()] {
        let theirs = run(&patroni(), &["--generate-sample-config"], environment);
        assert!(theirs.status.success(), "{}", text(&theirs.stderr));
        let ours = run(&pgherd(), &["--generate-sample-config"], environment);
        assert!(ours.status.success(), "{}", text(&ours.stderr));
        assert_eq!(read(&text(&ours.stdout)), read(&text(&theirs.stdout)));
        // Sections and keys stand in the same order, too; only the comments are our own.
        let keys = |output: &str| -> Vec<String> {
            let lines = output.lines().filter(|line| !line.trim_start().starts_with('#') && !line.contains("nosync:"));
            lines.map(str::to_owned).collect()
        };
        let (printed, expected) = (keys(&text(&ours.stdout)), keys(&text(&theirs.stdout)));
        let filled = |lines: &[String]| lines.iter().filter(|line| !line.is_empty()).cloned().collect::<Vec<_>>();
        assert_eq!(filled(&printed), filled(&expected));
    }
    let path = directory.path().join("new/sample.yml");
    let output = run(&pgherd(), &["--generate-sample-config", &path.display().to_string()], &elsewhere);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    is_valid(&path, &[]);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).expect("written").permissions().mode() & 0o777, 0o600);
}

#[test]
fn without_postgresqls_programs_there_is_no_example() {
    let output = Command::new(pgherd()).arg("--generate-sample-config").env_clear().env("PATH", "/nowhere").output();
    let output = output.expect("pgherd runs");
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(
        error.starts_with("Error: Failed to get postgres version: [Errno 2] No such file or directory: 'postgres'"),
        "{error}"
    );
}

/// A server as somebody runs it without any of this.
struct Plain {
    directory: tempfile::TempDir,
    port: u16,
}

impl Plain {
    fn start(port: u16) -> Plain {
        let directory = tempfile::Builder::new().prefix("pgherd-it-").tempdir().expect("a temporary directory");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("its mode can be set");
        let plain = Plain { directory, port };
        servers_directory(&plain.directory.path().join("pg"));
        let password = plain.directory.path().join("password");
        std::fs::write(&password, "super\n").expect("a new file");
        give_to_servers(&password);
        let password = format!("--pwfile={}", password.display());
        let data = plain.data().display().to_string();
        plain.program("initdb", &["--no-sync", "-U", "postgres", "-A", "scram-sha-256", &password, "-D", &data]);
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nmax_connections = 150\nwork_mem = '5MB'\n\
             cluster_name = 'batman'\narchive_mode = on\narchive_command = '/bin/true'\nfsync = off\nwal_log_hints = on\n",
            plain.directory.path().join("pg").display()
        );
        let file = plain.data().join("postgresql.conf");
        let before = std::fs::read_to_string(&file).expect("initdb has written it");
        std::fs::write(&file, before + &settings).expect("the servers' file");
        let hba = plain.data().join("pg_hba.conf");
        let before = std::fs::read_to_string(&hba).expect("initdb has written it");
        std::fs::write(&hba, before + "host all all 10.0.0.0/8 scram-sha-256\n").expect("the servers' file");
        let log = plain.directory.path().join("pg/log").display().to_string();
        plain.program("pg_ctl", &["start", "-w", "-s", "-l", &log, "-D", &data]);
        plain
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("pg/data")
    }

    /// As the servers' user.
    fn program(&self, name: &str, arguments: &[&str]) {
        let mut command = Command::new(bin_dir().join(name));
        if rustix::process::geteuid().is_root() {
            use std::os::unix::process::CommandExt;
            let (uid, gid) = crate::harness::user::postgres();
            command.uid(uid).gid(gid);
        }
        // Not captured: the server would hold the pipe open.
        let status = command.args(arguments).current_dir("/").stdout(std::process::Stdio::null()).status().expect(name);
        assert!(status.success(), "{name}: {status}");
    }

    fn dsn(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres password=super dbname=postgres", self.port)
    }

    /// Runs this in the database.
    fn sql(&self, sql: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&self.dsn(), tokio_postgres::NoTls).await.expect("a server");
            let session = tokio::spawn(connection);
            client.batch_execute(sql).await.expect("valid SQL");
            drop(client);
            session.await.expect("it ends with the client").expect("and in order");
        });
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        if let Some(postmaster) = postmaster_of(&self.data()) {
            postmaster.signal(rustix::process::Signal::INT);
            eventually("the server has ended", LONG, || match postmaster.is_alive() {
                true => Err("it runs".to_owned()),
                false => Ok(()),
            });
        }
    }
}

#[test]
fn what_a_running_server_says_is_what_patroni_writes_and_an_agent_takes_it_over() {
    let [port, rest] = free_ports();
    let plain = Plain::start(port);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [ours, theirs] = ["ours.yml", "theirs.yml"].map(|name| directory.path().join(name));
    for (program, file) in [(pgherd(), &ours), (patroni(), &theirs)] {
        let arguments = ["--generate-config", "--dsn", &plain.dsn(), &file.display().to_string()];
        let output = run(&program, &arguments, &[]);
        assert!(output.status.success(), "{}: {}", program.display(), text(&output.stderr));
    }
    let [written, expected] = [&ours, &theirs].map(|path| read(&std::fs::read_to_string(path).expect("written")));
    assert_eq!(written, expected);
    assert_eq!(written["scope"], "batman");
    assert_eq!(written["bootstrap"]["dcs"]["postgresql"]["parameters"]["work_mem"], "5MB");
    assert_eq!(written["postgresql"]["parameters"]["archive_command"], "/bin/true");

    // Filled in as the operator does: the store, where the REST API is, who replicates.
    let store = ZooKeeperServer::start();
    plain.sql("CREATE TABLE town AS SELECT 'Ulm' AS name; CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'repl'");
    let text = std::fs::read_to_string(&ours).expect("written");
    let address = written["restapi"]["listen"].as_str().expect("an address");
    let text = text.replace(address, &format!("127.0.0.1:{rest}"));
    let text = text.replacen("password: '#FIXME'", "password: repl", 1).replacen(
        "username: '#FIXME'",
        "username: replicator",
        1,
    );
    let file = plain.directory.path().join("node.yml");
    std::fs::write(&file, format!("{text}\nzookeeper:\n  hosts: ['{}']\n", store.address())).expect("a new file");
    give_to_servers(&file);
    let postmaster = postmaster_of(&plain.data()).expect("it runs");
    let agent = Agent::start(&file, plain.directory.path().join("agent.log"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let status = || -> Result<Value, String> {
        let url = format!("http://127.0.0.1:{rest}/primary");
        let answer =
            runtime.block_on(async { client.get(url).send().await?.error_for_status()?.json::<Value>().await });
        answer.map_err(|error| format!("{error}\n{}", agent.log()))
    };
    let status = eventually("the agent leads with the server that was there", LONG, status);
    assert_eq!(
        (status["role"].as_str(), status["patroni"]["scope"].as_str()),
        (Some("primary"), Some("batman")),
        "{status}"
    );
    assert_eq!(postmaster_of(&plain.data()), Some(postmaster), "{}", agent.log());
    plain.sql("INSERT INTO town VALUES ('Hof')");
}
