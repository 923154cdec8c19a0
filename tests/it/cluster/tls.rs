//! The REST API behind TLS: members, commands and the entrypoint, with one certificate that is authority, server's and client's at once.

use std::path::Path;
use std::time::Duration;

use pgherd_tls::{Check, ClientOptions, Identity};
use serde_json::Value;

use crate::ctl::patronictl;
use crate::harness::certificates::{Certificates, self_signed};
use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::{eventually, user};

/// Asks like a member that has the certificate, or like somebody who has none.
struct Asker(reqwest::Client);

impl Asker {
    fn new(file: &Path, certified: bool) -> Asker {
        let identity = certified.then_some(Identity { certificate: file, key: None, key_password: None });
        let tls =
            pgherd_tls::client(&ClientOptions { check: Check::Name, authorities: Some(file), identity, revoked: &[] });
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10));
        Asker(client.tls_backend_preconfigured(tls.expect("TLS")).build().expect("a client"))
    }

    fn get(&self, url: &str) -> Result<Value, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        runtime.block_on(async {
            let answer = self.0.get(url).send().await.map_err(|error| format!("{error:?}"))?;
            answer.json().await.map_err(|error| error.to_string())
        })
    }
}

#[test]
fn a_cluster_moves_to_tls_while_it_runs() {
    let cluster = Cluster::start(2);
    let file = cluster.directory().join("own.pem");
    self_signed(&file);
    // To the user that the agents run as.
    let (uid, gid) = user::owner(&cluster.node("node1").data_dir);
    user::give(&file, uid, gid);
    let shown = file.display();
    for node in cluster.nodes() {
        let address = format!("  connect_address: 127.0.0.1:{}\n", node.rest_port);
        let restapi = format!("  certfile: {shown}\n  cafile: {shown}\n  verify_client: required\n");
        let ctl = format!("\nctl:\n  certfile: {shown}\n  cacert: {shown}\n");
        cluster.edit(&node.name, &address, &format!("{address}{restapi}{ctl}"));
        assert_eq!(cluster.rest(&node.name, "POST", "/reload", "").expect("an answer").0, 202);
    }
    let (member, stranger) = (Asker::new(&file, true), Asker::new(&file, false));
    for node in cluster.nodes() {
        let url = format!("https://127.0.0.1:{}/cluster", node.rest_port);
        eventually("all members are to be asked over TLS", LONG, || {
            let answer = member.get(&url)?;
            let members = answer["members"].as_array().ok_or("no members")?;
            let moved = |member: &Value| member["api_url"].as_str().is_some_and(|url| url.starts_with("https://"));
            if members.iter().filter(|member| moved(member)).count() == 2 { Ok(()) } else { Err(answer.to_string()) }
        });
        stranger.get(&url).expect_err("a certificate is required");
        cluster.rest(&node.name, "GET", "/", "").expect_err("it speaks TLS only");
    }

    // Orders go to members, and members ask each other.
    for program in [crate::harness::binary::pgherd(), patronictl()] {
        let said = text(&cluster.ctl_by(&program, &["switchover", "demo", "--force"]));
        assert!(said.contains("Successfully switched over"), "{}: {said}", program.display());
        eventually("both are well", LONG, || {
            let listed = text(&cluster.ctl(&["list", "demo", "-f", "json"]));
            let well = listed.contains("\"Leader\"") && listed.contains("\"streaming\"");
            if well { Ok(()) } else { Err(listed) }
        });
    }

    // The entrypoint, which asked in vain since.
    let config = cluster.directory().join("haproxy.cfg");
    let lines = std::fs::read_to_string(&config).expect("its file");
    let checked = format!("check check-ssl verify required ca-file {shown} crt {shown} port");
    std::fs::write(&config, lines.replace("check port", &checked)).expect("its file");
    cluster.restart_entry();
    eventually("clients are served", LONG, || {
        cluster.sql_at(cluster.entry_port(), "CREATE TABLE IF NOT EXISTS town()")
    });
    let log = cluster.entry_log();
    assert!(log.contains("it holds the leader key"), "by the route, not only by checks\n{log}");

    // A file that is broken changes nothing.
    std::fs::write(&file, "no certificate").expect("written");
    let node = cluster.nodes().remove(0);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(node.agent.pid).expect("a process"),
        rustix::process::Signal::HUP,
    )
    .expect("signalled");
    let kept = format!("{shown} holds no certificate");
    eventually("it is said", LONG, || {
        let log = cluster.log(&node.name);
        if log.contains(&kept) && log.contains("the settings of the REST API stay as they were") {
            Ok(())
        } else {
            Err(log)
        }
    });
    member.get(&format!("https://127.0.0.1:{}/cluster", node.rest_port)).expect("it answers as before");
}

/// Every server lets in only who speaks TLS, and every role wants the server's certificate checked, name and all.
#[test]
fn a_cluster_whose_servers_let_nobody_in_without_tls() {
    let cluster = Cluster::start(2);
    let certificates = Certificates::make();
    user::give_to_servers(&certificates.file(""));
    let (ca, shown) = (certificates.shown("ca.crt"), |name: &str| certificates.shown(name));
    // First the servers have TLS, then nothing goes without.
    let ssl = format!(
        "    ssl: 'on'\n    ssl_cert_file: {}\n    ssl_key_file: {}\n    ssl_ca_file: {ca}\n",
        shown("server.crt"),
        shown("server.key")
    );
    for node in cluster.nodes() {
        cluster.reload_with(&node.name, "  parameters:\n", &format!("  parameters:\n{ssl}"));
        cluster.shows(&node.name, "SHOW ssl", &["on"]);
    }
    let demand = format!("sslmode: verify-full\n      sslrootcert: {ca}\n      channel_binding: require");
    let rules = "  pg_hba:\n    - hostssl all all all scram-sha-256\n    - hostssl replication all all scram-sha-256\n";
    for node in cluster.nodes() {
        for role in ["replicator", "postgres"] {
            let line = format!("      username: {role}\n");
            cluster.edit(&node.name, &line, &format!("{line}      {demand}\n"));
        }
        cluster.reload_with(&node.name, "  parameters:\n", &format!("{rules}  parameters:\n"));
    }
    let refused = || cluster.sql(&cluster.leader(), "SELECT 1").is_err_and(|error| error.contains("no encryption"));
    eventually("nobody gets in without TLS", LONG, || if refused() { Ok(()) } else { Err("not yet".to_owned()) });
    cluster.wait_healthy();

    let query = |mode: &str, sql: &str| {
        let mut command = std::process::Command::new(crate::harness::binary::pgherd());
        command.arg("-c").arg(cluster.directory().join("node1.yml")).args(["query", "demo", "-U", "postgres", "-d"]);
        command.args(["postgres", "-r", "primary", "-c", sql]).env("PGSSLMODE", mode).env("PGSSLROOTCERT", &ca);
        command.env("PGPASSFILE", cluster.directory().join("pgpass"));
        text(&command.output().expect("pgherd runs"))
    };
    let made = query("verify-full", "CREATE TABLE town (name text)");
    assert!(made.contains("didn't produce records"), "{made}");
    assert!(query("disable", "SELECT 1").contains("no encryption"));
    let encrypted = "SELECT bool_and(ssl), count(*) > 1 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL";
    let all = query("verify-full", encrypted);
    assert!(all.contains("True\tTrue"), "{all}");

    let first = cluster.leader();
    let said = text(&cluster.ctl(&["switchover", "demo", "--force"]));
    assert!(said.contains("Successfully switched over"), "{said}");
    cluster.wait_healthy();
    // Its old server has to be rewound, over TLS as well.
    let second = cluster.another_leader(&first);
    cluster.kill_host(&second);
    assert_eq!(cluster.another_leader(&second), first);
    query("verify-full", "INSERT INTO town VALUES ('Ulm')");
    let lost = second;
    cluster.start_agent(&lost);
    cluster.wait_healthy();
    let log = cluster.log(&lost);
    assert!(!log.contains("does not do it"), "{log}");

    // A certificate that is for another name is not taken, and that is said.
    let stranger = certificates.file("stranger.pem");
    self_signed(&stranger);
    user::give_to_servers(&stranger);
    cluster.edit(&lost, &format!("sslrootcert: {ca}\n"), &format!("sslrootcert: {}\n", stranger.display()));
    cluster.edit(&lost, &format!("sslrootcert: {ca}\n"), &format!("sslrootcert: {}\n", stranger.display()));
    cluster.reload(&lost);
    eventually("it says that it does not believe its server", LONG, || {
        let log = cluster.log(&lost);
        if log.contains("invalid peer certificate") { Ok(()) } else { Err(log) }
    });
    cluster.edit(&lost, &format!("sslrootcert: {}\n", stranger.display()), &format!("sslrootcert: {ca}\n"));
    cluster.edit(&lost, &format!("sslrootcert: {}\n", stranger.display()), &format!("sslrootcert: {ca}\n"));
    cluster.reload(&lost);
    cluster.wait_healthy();
}
