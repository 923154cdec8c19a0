//! Restarts that depend on something, are bounded, or come at their time.

use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::cluster::{Cluster, LONG, text};
use crate::harness::{eventually, user};

fn restart(cluster: &Cluster, node: &str, request: &Value) -> (u16, String) {
    cluster.rest(node, "POST", "/restart", &request.to_string()).expect("an answer")
}

#[test]
fn a_restart_is_made_only_where_its_conditions_are_met() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let before = [cluster.postmaster(&leader), cluster.postmaster(&replica)];
    let unmet = (503, "restart conditions are not satisfied".to_owned());
    for (node, request) in [
        (&leader, json!({ "role": "replica" })),
        (&replica, json!({ "role": "primary" })),
        (&replica, json!({ "role": "standby_leader" })),
        (&replica, json!({ "postgres_version": "9.6.0" })),
        (&replica, json!({ "postgres_version": "14.0" })),
        (&replica, json!({ "restart_pending": true })),
        (&leader, json!({ "role": "primary", "restart_pending": true })),
    ] {
        assert_eq!(restart(&cluster, node, &request), unmet, "{request}");
    }
    assert_eq!([cluster.postmaster(&leader), cluster.postmaster(&replica)], before);
    let skipped = text(&cluster.ctl(&["restart", "demo", "--pending", "--force"]));
    assert!(skipped.contains("none of these members has a pending restart"), "{skipped}");
    cluster.configure(&json!({ "postgresql": { "parameters": { "shared_buffers": "17MB" } } }));
    let met = json!({ "role": "replica", "postgres_version": "99.0", "restart_pending": true, "timeout": "1min" });
    eventually("the conditions are met", LONG, || match restart(&cluster, &replica, &met) {
        (200, said) if said == "restarted successfully" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.wait_healthy();
    cluster.shows(&replica, "SHOW shared_buffers", &["17MB"]);
    assert_eq!(cluster.postmaster(&leader), before[0]);
}

#[test]
fn a_restart_is_answered_when_its_time_is_over_and_goes_on() {
    let cluster = Cluster::start(2);
    let replica = cluster.replicas().remove(0);
    let before = cluster.postmaster(&replica).expect("a postmaster");
    // It hears of no stop.
    before.signal(Signal::STOP);
    let begun = Instant::now();
    let answer = restart(&cluster, &replica, &json!({ "timeout": 2 }));
    let took = begun.elapsed();
    before.signal(Signal::CONT);
    assert_eq!(answer, (503, "postgres is still starting".to_owned()));
    assert!(took >= Duration::from_secs(2), "{took:?}");
    cluster.wait_healthy();
    eventually("it has been restarted", LONG, || match cluster.postmaster(&replica) {
        now if now.is_some() && now != Some(before) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.wait_healthy();
}

/// The server of a primary waits, in its start, for somebody to read its second pid file.
#[test]
fn a_primary_that_starts_for_longer_than_its_restart_may_take_is_failed_over() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let pipe = cluster.directory().join("pid");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    user::give_to_servers(&pipe);
    let with = format!("unix_socket_directories: \"\"\n    external_pid_file: {}", pipe.display());
    cluster.reload_with(&leader, "unix_socket_directories: \"\"", &with);
    eventually("the setting waits for a restart", LONG, || match cluster.status(&leader)? {
        status if status["pending_restart"] == true => Ok(()),
        status => Err(status.to_string()),
    });
    cluster.write("CREATE TABLE town AS SELECT 'Ulm' AS name");
    let answer = restart(&cluster, &leader, &json!({ "timeout": 2 }));
    assert_eq!(answer, (503, "postgres is still starting".to_owned()));
    assert_eq!(cluster.another_leader(&leader), replica);
    cluster.write("INSERT INTO town VALUES ('Hof')");
    // Now there is a reader.
    let _reader = std::fs::File::options().read(true).write(true).open(&pipe).expect("the test's own pipe");
    cluster.wait_healthy();
    cluster.shows(&leader, "SELECT name FROM town ORDER BY name", &["Hof", "Ulm"]);
}

#[test]
fn a_scheduled_restart_comes_at_its_time_and_not_after_another() {
    let cluster = Cluster::start(2);
    let (leader, replica) = (cluster.leader(), cluster.replicas().remove(0));
    let schedule = |node: &str, seconds: i64, more: Value| {
        let at =
            pgherd_ha::Wall::from_second(pgherd_ha::Wall::now().as_second() + seconds).expect("a time of this century");
        let mut request = json!({ "schedule": at.to_string() });
        request.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        assert_eq!(restart(&cluster, node, &request), (202, "Restart scheduled".to_owned()));
    };
    let shown = |node: &str| cluster.status(node).map(|status| status["scheduled_restart"].clone());
    let gone = |node: &str| {
        eventually("no restart is scheduled", LONG, || match shown(node)? {
            Value::Null => Ok(()),
            other => Err(other.to_string()),
        });
    };
    let before = [cluster.postmaster(&leader), cluster.postmaster(&replica)];
    schedule(&replica, 2, json!({ "role": "replica" }));
    // Its condition will not be met.
    schedule(&leader, 2, json!({ "role": "replica", "timeout": 30 }));
    assert_eq!(shown(&leader).expect("a status")["role"], "replica");
    gone(&replica);
    gone(&leader);
    eventually("the replica is restarted", LONG, || match cluster.postmaster(&replica) {
        now if now.is_some() && now != before[1] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.wait_healthy();
    assert_eq!(cluster.postmaster(&leader), before[0]);

    schedule(&replica, 3600, json!({}));
    eventually("its key says for which server", LONG, || {
        let (_, body) = cluster.rest(&leader, "GET", "/cluster", "")?;
        let body: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let members = body["members"].as_array().ok_or("no members")?.iter();
        let mut planned = members.map(|member| &member["scheduled_restart"]["postmaster_start_time"]);
        if planned.any(Value::is_string) { Ok(()) } else { Err(body.to_string()) }
    });
    assert_eq!(restart(&cluster, &replica, &json!({})).0, 200);
    gone(&replica);
    cluster.wait_healthy();
}
