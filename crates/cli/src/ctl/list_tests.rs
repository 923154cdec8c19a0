//! The tables of `pgherd list`, against what Patroni's console (4.1.5) printed for the same keys.

use serde_json::{Value, json};

use super::fake::view;
use super::list::text_of;
use super::table::Format;

fn check(keys: Value, format: Format, expected: &str) {
    let text = text_of("c", &view(&keys), format, false);
    assert_eq!(text, expected, "\n{text}");
}

fn member(host: &str, role: &str, rest: Value) -> Value {
    let mut member = json!({"conn_url": format!("postgres://{host}/postgres"), "api_url": "http://h:8008/patroni",
        "state": "running", "role": role, "version": "4.1.4"});
    let fields = member.as_object_mut().expect("an object");
    fields.extend(rest.as_object().expect("an object").clone());
    member
}

fn healthy() -> Value {
    json!({"initialize": "7123456789012345678", "leader": "n1", "config": {"ttl": 30}, "status": {"optime": 67108864},
        "members/n1": member("10.0.0.1:5432", "primary", json!({"xlog_location": 67108864, "timeline": 3})),
        "members/n2": member("10.0.0.2:5432", "replica", json!({"receive_lsn": 67108000, "replay_lsn": 60108000,
            "xlog_location": 67108000, "replication_state": "streaming", "timeline": 3}))})
}

fn busy() -> Value {
    let long = "a".repeat(47);
    json!({"initialize": "7123456789012345678", "leader": "n1", "config": {"ttl": 30, "pause": true},
        "status": {"optime": 67108864},
        "failover": {"leader": "n1", "member": "n2", "scheduled_at": "2030-01-02T03:04:05+00:00"},
        "sync": {"leader": "n1", "quorum": 0, "sync_standby": "n2"},
        "members/n1": member("10.0.0.1:5432", "primary", json!({"xlog_location": 67108864, "timeline": 3,
            "pending_restart": true, "pending_restart_reason": {
                "max_connections": {"old_value": "100", "new_value": "200"},
                "shared_preload_libraries": {"old_value": long, "new_value": "b"}}})),
        "members/n2": member("10.0.0.2:5433", "replica", json!({"receive_lsn": 50331800, "replay_lsn": 50331800,
            "xlog_location": 50331800, "replication_state": "streaming", "timeline": 3,
            "tags": {"clonefrom": true, "foo": "1", "n": 1.4, "b": "yes", "list": [1, "x"], "u": "é"},
            "scheduled_restart": {"schedule": "2030-01-02T03:04:05+00:00", "postgres_version": "15.2"}})),
        "members/n3": {"conn_url": "postgres://10.0.0.3:5432/postgres", "api_url": "http://h:8008/patroni",
            "state": "starting", "role": "replica", "version": "4.1.4",
            "tags": {"nofailover": true, "replicatefrom": "n2"}}})
}

#[test]
fn a_healthy_cluster() {
    let pretty = "\
+ Cluster: c (7123456789012345678) -------+----+-------------+-----+------------+-----+
| Member | Host     | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+----------+---------+-----------+----+-------------+-----+------------+-----+
| n1     | 10.0.0.1 | Leader  | running   |  3 |             |     |            |     |
| n2     | 10.0.0.2 | Replica | streaming |  3 |   0/3FFFCA0 |   0 |  0/3952CE0 |   7 |
+--------+----------+---------+-----------+----+-------------+-----+------------+-----+
";
    check(healthy(), Format::Pretty, pretty);
    let tsv = "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag\n\
        c\tn1\t10.0.0.1\tLeader\trunning\t3\t\t\t\t\n\
        c\tn2\t10.0.0.2\tReplica\tstreaming\t3\t0/3FFFCA0\t0\t0/3952CE0\t7\n";
    check(healthy(), Format::Tsv, tsv);
    let json = r#"[{"Cluster": "c", "Member": "n1", "Host": "10.0.0.1", "Role": "Leader", "State": "running", "TL": 3}, {"Cluster": "c", "Member": "n2", "Host": "10.0.0.2", "Role": "Replica", "State": "streaming", "TL": 3, "Receive LSN": "0/3FFFCA0", "Receive Lag": 0, "Replay LSN": "0/3952CE0", "Replay Lag": 7}]"#;
    check(healthy(), Format::Json, &format!("{json}\n"));
    let yaml = "\
- Cluster: c
  Host: 10.0.0.1
  Member: n1
  Role: Leader
  State: running
  TL: 3
- Cluster: c
  Host: 10.0.0.2
  Member: n2
  Receive LSN: 0/3FFFCA0
  Receive Lag: 0
  Replay LSN: 0/3952CE0
  Replay Lag: 7
  Role: Replica
  State: streaming
  TL: 3

";
    check(healthy(), Format::Yaml, yaml);
}

#[test]
fn restarts_tags_ports_pause_and_a_planned_switchover() {
    let pretty = "\
+ Cluster: c (7123456789012345678) +-----------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+---------------------------------------------+-------------------+
| Member | Host          | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Pending restart | Pending restart reason                        | Scheduled restart                           | Tags              |
+--------+---------------+---------+-----------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+---------------------------------------------+-------------------+
| n1     | 10.0.0.1:5432 | Leader  | running   |  3 |             |     |            |     | *               | max_connections: 100->200                     |                                             |                   |
|        |               |         |           |    |             |     |            |     |                 | shared_preload_libraries: [hidden - too long] |                                             |                   |
+--------+---------------+---------+-----------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+---------------------------------------------+-------------------+
| n2     | 10.0.0.2:5433 | Replica | streaming |  3 |   0/3000098 |  16 |  0/3000098 |  16 |                 |                                               | 2030-01-02T03:04:05+00:00 if version < 15.2 | b: 'yes'          |
|        |               |         |           |    |             |     |            |     |                 |                                               |                                             | clonefrom: true   |
|        |               |         |           |    |             |     |            |     |                 |                                               |                                             | foo: '1'          |
|        |               |         |           |    |             |     |            |     |                 |                                               |                                             | list:             |
|        |               |         |           |    |             |     |            |     |                 |                                               |                                             | - 1               |
|        |               |         |           |    |             |     |            |     |                 |                                               |                                             | - x               |
|        |               |         |           |    |             |     |            |     |                 |                                               |                                             | n: 1.4            |
|        |               |         |           |    |             |     |            |     |                 |                                               |                                             | u: é              |
+--------+---------------+---------+-----------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+---------------------------------------------+-------------------+
| n3     | 10.0.0.3:5432 | Replica | starting  |    |     unknown |     |    unknown |     |                 |                                               |                                             | nofailover: true  |
|        |               |         |           |    |             |     |            |     |                 |                                               |                                             | replicatefrom: n2 |
+--------+---------------+---------+-----------+----+-------------+-----+------------+-----+-----------------+-----------------------------------------------+---------------------------------------------+-------------------+
 Maintenance mode: on
 Switchover scheduled at: 2030-01-02T03:04:05+00:00
                    from: n1
                      to: n2
";
    check(busy(), Format::Pretty, pretty);
    let tsv = format!(
        "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag\tPending restart\t\
         Pending restart reason\tScheduled restart\tTags\n\
         c\tn1\t10.0.0.1:5432\tLeader\trunning\t3\t\t\t\t\t*\tmax_connections: 100->200\n\
         shared_preload_libraries: {}->b\t\t\n\
         c\tn2\t10.0.0.2:5433\tReplica\tstreaming\t3\t0/3000098\t16\t0/3000098\t16\t\t\t\
         2030-01-02T03:04:05+00:00 if version < 15.2\t\
         {{b: 'yes', clonefrom: true, foo: '1', list: [1, x], n: 1.4, u: é}}\n\
         c\tn3\t10.0.0.3:5432\tReplica\tstarting\t\tunknown\t\tunknown\t\t\t\t\t{{nofailover: true, replicatefrom: n2}}\n",
        "a".repeat(47)
    );
    check(busy(), Format::Tsv, &tsv);
    let json = text_of("c", &view(&busy()), Format::Json, false);
    assert!(json.contains(r#""Scheduled restart": "2030-01-02T03:04:05+00:00 if version < 15.2", "Tags": {"clonefrom": true, "foo": "1", "n": 1.4, "b": "yes", "list": [1, "x"], "u": "\u00e9"}}"#));
}

#[test]
fn before_and_without_a_cluster() {
    let empty = "\
+ Cluster: c (uninitialized) --+----+-------------+-----+------------+-----+
| Member | Host | Role | State | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+------+------+-------+----+-------------+-----+------------+-----+
+--------+------+------+-------+----+-------------+-----+------------+-----+
";
    check(json!({}), Format::Pretty, empty);
    check(json!({}), Format::Json, "[]\n");
    check(json!({}), Format::Yaml, "[]\n\n");
    let starting = "\
+ Cluster: c (initializing) --+--------------------------+----+-------------+-----+------------+-----+
| Member | Host     | Role    | State                    | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+----------+---------+--------------------------+----+-------------+-----+------------+-----+
| n1     | 10.0.0.1 | Replica | initializing new cluster |    |     unknown |     |    unknown |     |
+--------+----------+---------+--------------------------+----+-------------+-----+------------+-----+
";
    let state = json!({"state": "initializing new cluster"});
    check(
        json!({"initialize": "", "members/n1": member("10.0.0.1:5432", "uninitialized", state)}),
        Format::Pretty,
        starting,
    );
}

#[test]
fn a_state_that_pgherd_does_not_know_is_shown_as_it_is() {
    let state = json!({"state": "running custom bootstrap script"});
    let text = text_of("c", &view(&json!({"members/n1": member("h:5432", "replica", state)})), Format::Tsv, false);
    assert!(text.contains("\trunning custom bootstrap script\t"), "{text}");
}

#[test]
fn the_roles_follow_the_configuration() {
    let roles = |config: Value| -> Vec<String> {
        let sync = json!({"leader": "n1", "quorum": 1, "sync_standby": "N2"});
        let keys = json!({"leader": "n1", "config": config, "sync": sync, "members/n1": member("h:1", "primary", json!({})),
            "members/n2": member("h:2", "replica", json!({})), "members/n3": member("h:3", "replica", json!({}))});
        let text = text_of("c", &view(&keys), Format::Tsv, false);
        text.lines().skip(1).map(|line| line.split('\t').nth(3).unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(roles(json!({"synchronous_mode": true})), ["Leader", "Sync Standby", "Replica"]);
    assert_eq!(roles(json!({"synchronous_mode": "Quorum"})), ["Leader", "Quorum Standby", "Replica"]);
    assert_eq!(roles(json!({"synchronous_mode": "off"})), ["Leader", "Replica", "Replica"]);
    assert_eq!(
        roles(json!({"synchronous_mode": "on", "standby_cluster": {"host": "x"}})),
        ["Standby Leader", "Replica", "Replica"]
    );
}
