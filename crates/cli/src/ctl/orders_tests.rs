//! The orders to members (reload, restart, reinit, flush) and the removal of a cluster: what is asked, what is sent, what
//! is said.

use clap::{FromArgMatches, Subcommand};
use serde_json::{Value, json};

use super::fake::{FakeMember, World, block_on};
use super::{Command, flush, reinit, reload, remove, restart};

/// The leader n1 and the replicas n2, which waits for a restart and has one scheduled, and n3.
fn keys(api_url: &str) -> Value {
    let member = |number: u8, role: &str, more: Value| {
        let mut member = json!({"conn_url": format!("postgres://10.0.0.{number}:5432/postgres"), "api_url": api_url,
            "state": "running", "role": role, "version": "4.1.4"});
        member.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        member
    };
    let waits = json!({"pending_restart": true, "scheduled_restart": {"schedule": "2030-01-02T03:04:05+00:00"}});
    json!({"initialize": "7123456789012345678", "leader": "n1", "config": {"loop_wait": 7},
        "failover": {"leader": "n1", "member": "n2", "scheduled_at": "2030-01-02T03:04:05+00:00"},
        "members/n1": member(1, "primary", json!({})), "members/n2": member(2, "replica", waits),
        "members/n3": member(3, "replica", json!({}))})
}

/// Nobody listens there.
const DEAD: &str = "http://127.0.0.1:1/patroni";

fn command(line: &str) -> Command {
    let parser = Command::augment_subcommands(clap::Command::new("pgherd"));
    let matches = parser.try_get_matches_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
    Command::from_arg_matches(&matches).expect("a command")
}

/// The error, if any.
fn run(line: &str, world: &mut World) -> String {
    let context = &mut world.context;
    let result = block_on(async {
        match command(line) {
            Command::Reload(arguments) => reload::run(arguments, context).await,
            Command::Restart(arguments) => restart::run(arguments, context).await,
            Command::Reinit(arguments) => reinit::run(arguments, context).await,
            Command::Flush(arguments) => flush::run(arguments, context).await,
            Command::Remove(arguments) => remove::run(arguments, context).await,
            other => panic!("{other:?} is not tested here"),
        }
    });
    result.err().map(|error| format!("{error:#}")).unwrap_or_default()
}

type Answer = (&'static str, u16, &'static str);

/// What was said below the table, the error, and what was sent; without the credentials.
fn ask(line: &str, answers: &'static str, member: &[Answer]) -> (String, String, Vec<String>) {
    let member = FakeMember::start(member);
    let mut world = World::new(&keys(&member.url), answers);
    let error = run(line, &mut world);
    let plan = " Switchover scheduled at: 2030-01-02T03:04:05+00:00\n                    from: n1\n                      to: n2\n";
    let said = world.said();
    let requests = member.requests();
    let sent = requests.iter().map(|request| request.split(" as Basic ").next().unwrap_or_default().to_owned());
    (said.strip_prefix(plan).unwrap_or(&said).to_owned(), error, sent.collect())
}

/// The same, as expected: nothing wrong.
fn done(said: &str, sent: &[&str]) -> (String, String, Vec<String>) {
    (said.to_owned(), String::new(), sent.iter().map(|request| (*request).to_owned()).collect())
}

/// Refused before anything is sent.
fn refused(said: &str, error: &str) -> (String, String, Vec<String>) {
    (said.to_owned(), error.to_owned(), Vec::new())
}

#[test]
fn members_reload() {
    let accepted: &[Answer] = &[("POST /reload", 202, "reload scheduled")];
    let received =
        |name: &str| format!("Reload request received for member {name} and will be processed within 7 seconds\n");
    let both = received("n2") + &received("n3");
    assert_eq!(ask("pgherd reload demo -r replica --force", "", accepted), done(&both, &["POST /reload"; 2]));
    // A name that is none is passed over.
    let question = "Are you sure you want to reload members n2? [y/N]: ";
    let one = question.to_owned() + &received("n2");
    assert_eq!(ask("pgherd reload demo n2 n9", "y\n", accepted), done(&one, &["POST /reload"]));
    assert_eq!(ask("pgherd reload demo n2", "n\n", accepted), refused(question, "Aborted reload"));
    assert_eq!(ask("pgherd reload demo n2", "", accepted), refused(question, "Aborted!"));
    for (status, body, expected) in [
        (200, "nothing", "No changes to apply on member n1\n"),
        (503, "busy", "Failed: reload for member n1, status code=503, (busy)\n"),
    ] {
        let (said, ..) = ask("pgherd reload demo n1 --force", "", &[("POST /reload", status, body)]);
        assert_eq!(said, expected);
    }
}

#[test]
fn members_that_do_not_fit_are_no_members() {
    for (line, error) in [
        ("pgherd reload demo n9 --force", "No 'any' among provided members"),
        ("pgherd restart demo n2 -r leader --force", "No 'leader' among provided members"),
        ("pgherd reinit demo n1 --force", "No replica among provided members"),
        ("pgherd flush demo n9 restart --force", "No 'any' among provided members"),
        ("pgherd restart demo -r standby-leader --force", "demo cluster doesn't have any members"),
    ] {
        assert_eq!(ask(line, "", &[]), refused("", error), "{line}");
    }
    let mut world = World::new(&json!({}), "");
    assert_eq!(run("pgherd reload demo --force", &mut world), "demo cluster doesn't have any members");
    let mut world = World::new(&keys(DEAD), "");
    assert!(
        run("pgherd reload demo --force", &mut world)
            .starts_with("POST /reload at http://127.0.0.1:1/patroni failed: ")
    );
}

#[test]
fn members_restart_one_after_the_other() {
    let restarted: &[Answer] = &[("POST /restart", 200, "restarted successfully")];
    let success = |name: &str| format!("Success: restart on member {name}\n");
    let plain = "POST /restart {}";
    let all = success("n1") + &success("n2") + &success("n3");
    assert_eq!(ask("pgherd restart demo --force", "", restarted), done(&all, &[plain; 3]));
    let pending = "POST /restart {\"restart_pending\":true}";
    assert_eq!(ask("pgherd restart demo --pending --force", "", restarted), done(&success("n2"), &[pending]));
    assert_eq!(ask("pgherd restart demo n1 --pending --force", "", restarted), done("", &[]));
    let one = "POST /restart {\"postgres_version\":\"15.4\",\"timeout\":\"5\"}";
    let (said, _, sent) = ask("pgherd restart demo --any --pg-version 15.4 --timeout 5 --force", "", restarted);
    assert_eq!((said.lines().count(), sent), (1, vec![one.to_owned()]));
    for (status, body, expected) in [
        (202, "Restart scheduled", "Success: restart scheduled on member n1\n"),
        (409, "Another restart is already scheduled", "Failed: another restart is already scheduled on member n1\n"),
        (503, "restart failed", "Failed: restart for member n1, status code=503, (restart failed)\n"),
    ] {
        assert_eq!(
            ask("pgherd restart demo n1 --force", "", &[("POST /restart", status, body)]),
            done(expected, &[plain])
        );
    }
}

#[test]
fn a_restart_is_talked_over() {
    let restarted: &[Answer] = &[("POST /restart", 200, "restarted successfully")];
    let (said, error, sent) = ask("pgherd restart demo n1", "\ny\n\n", restarted);
    assert!(said.starts_with("When should the restart take place (e.g. 20"), "{said}");
    let rest = ")  [now]: Are you sure you want to restart members n1? [y/N]: Restart if the PostgreSQL version is less than \
        provided (e.g. 9.5.2)  []: Success: restart on member n1\n";
    assert!(said.ends_with(rest), "{said}");
    assert_eq!((error.as_str(), sent), ("", vec!["POST /restart {}".to_owned()]));
    for (answers, expected) in [
        ("", "Aborted!"),
        ("zz\n", "Unable to parse scheduled timestamp (zz)."),
        ("\nn\n", "Aborted restart"),
        ("2030-01-01T00:00Z\nn\n", "Aborted scheduled restart"),
        ("\ny\n9\n", "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 9"),
        ("\ny\nx\n", "Invalid PostgreSQL version: x"),
    ] {
        let (_, error, sent) = ask("pgherd restart demo n1", answers, restarted);
        assert!(error.starts_with(expected), "{answers:?}: {error}");
        assert_eq!(sent, Vec::<String>::new());
    }
}

#[test]
fn a_scheduled_restart_makes_way_for_another_only_by_force() {
    let member: &[Answer] = &[("POST /restart", 202, "Restart scheduled"), ("DELETE /restart", 200, "deleted")];
    let line = "pgherd restart demo n2 n3 --scheduled 2030-01-01T00:00+02:00 --pending";
    let post = "POST /restart {\"restart_pending\":true,\"schedule\":\"2030-01-01T00:00:00+02:00\"}";
    let success = "Success: restart scheduled on member n2\nSuccess: restart scheduled on member n3\n";
    assert_eq!(ask(&format!("{line} --force"), "", member), done(success, &["DELETE /restart", post, post]));
    let (said, error, sent) = ask(line, "y\n\n", member);
    let question = "Are you sure you want to schedule restart of members n2, n3 at 2030-01-01 00:00:00+02:00? [y/N]: ";
    assert!(said.starts_with(question), "{said}");
    assert_eq!((error.as_str(), sent), ("", vec![post.to_owned(), post.to_owned()]));

    let mut paused = keys(DEAD);
    paused["config"] = json!({"pause": true});
    let mut world = World::new(&paused, "");
    let error = run("pgherd restart demo --scheduled 2030-01-01T00:00Z --force", &mut world);
    assert_eq!(error, "Can't schedule restart in the paused state");
}

#[test]
fn replicas_are_copied_anew_only_by_name() {
    let started: &[Answer] = &[("POST /reinitialize", 200, "reinitialize started")];
    let post = |force: bool, from_leader: bool| {
        format!("POST /reinitialize {{\"force\":{force},\"from_leader\":{from_leader}}}")
    };
    let success = "Success: reinitialize for member n2\n";
    let asked = "Which member do you want to reinitialize [n2, n3]? []: ";
    let sure = "Are you sure you want to reinitialize members n2? [y/N]: ";
    assert_eq!(
        ask("pgherd reinit demo", "n2\ny\n", started),
        done(&format!("{asked}{sure}{success}"), &[&post(false, false)])
    );
    assert_eq!(ask("pgherd reinit demo", "n1\n", started), refused(asked, "n1 is not a member of cluster"));
    assert_eq!(ask("pgherd reinit demo --force --wait", "", started), done("", &[]));
    let line = "pgherd reinit demo n1 n2 --from-leader --force";
    assert_eq!(ask(line, "", started), done(success, &[&post(true, true)]));

    let busy: &[Answer] = &[("POST /reinitialize", 503, "reinitialize already in progress")];
    let failed = "Failed: reinitialize for member n2, status code=503, (reinitialize already in progress)\n";
    let question = "Do you want to cancel it and reinitialize anyway? [y/N]: ";
    assert_eq!(
        ask("pgherd reinit demo n2", "y\nn\n", busy),
        done(&format!("{sure}{failed}{question}"), &[&post(false, false)])
    );
    let twice = format!("{sure}{failed}{question}{failed}");
    assert_eq!(ask("pgherd reinit demo n2", "y\ny\n", busy), done(&twice, &[&post(false, false), &post(true, false)]));
}

#[test]
fn the_end_of_a_copy_is_waited_for() {
    let member: &[Answer] =
        &[("POST /reinitialize", 200, "reinitialize started"), ("GET /patroni", 200, "{\"state\": \"running\"}")];
    let (said, error, sent) = ask("pgherd reinit demo n2 n3 --force --wait", "", member);
    let expected = "Success: reinitialize for member n2\nSuccess: reinitialize for member n3\n\
        Waiting for reinitialize to complete on: n2, n3\nReinitialize is completed on: n2\nReinitialize is completed on: n3\n";
    assert_eq!((said.as_str(), error.as_str(), sent.len()), (expected, "", 4));
}

#[test]
fn scheduled_restarts_are_taken_back() {
    let member: &[Answer] = &[("DELETE /restart", 200, "deleted")];
    let expected = "No scheduled restart for member n1\nSuccess: flush scheduled restart for member n2\n\
        No scheduled restart for member n3\n";
    assert_eq!(ask("pgherd flush demo restart --force", "", member), done(expected, &["DELETE /restart"]));
    let question = "Are you sure you want to flush members n3? [y/N]: ";
    let expected = format!("{question}No scheduled restart for member n3\n");
    assert_eq!(ask("pgherd flush demo n3 restart", "y\n", member), done(&expected, &[]));
    let (said, ..) = ask("pgherd flush demo n2 --force restart", "", &[("DELETE /restart", 404, "none")]);
    assert_eq!(said, "Failed: flush scheduled restart for member n2, status code=404, (none)\n");
}

#[test]
fn a_scheduled_switchover_is_taken_back_by_a_member_or_in_the_store() {
    let delete = "DELETE /switchover";
    for (status, body, expected) in [
        (200, "scheduled switchover deleted", "Success: scheduled switchover deleted\n"),
        (404, "no switchover is scheduled", "Failed: no switchover is scheduled\n"),
    ] {
        assert_eq!(ask("pgherd flush demo switchover", "", &[(delete, status, body)]), done(expected, &[delete]));
    }
    let (said, _, sent) = ask("pgherd flush demo switchover", "", &[(delete, 409, "conflict")]);
    let each = |name: &str| format!("Failed: member={name}, status_code=409, conflict\n");
    assert!(said.starts_with(&(each("n1") + &each("n2") + &each("n3"))), "{said}");
    assert!(said.ends_with(" Could not find any accessible member of cluster demo\n"), "{said}");
    assert_eq!(sent.len(), 3);

    let mut world = World::new(&keys(DEAD), "");
    assert_eq!(run("pgherd flush demo switchover", &mut world), "");
    assert!(world.said().ends_with(" Could not find any accessible member of cluster demo\n"));
    assert!(world.store.view().failover.is_some_and(|request| request.value.is_empty() && request.version == 1));
    assert_eq!(run("pgherd flush demo switchover", &mut world), "");
    assert!(world.said().ends_with("No pending scheduled switchover\n"));
}

#[test]
fn the_last_word_of_flush_says_what() {
    let parser = || Command::augment_subcommands(clap::Command::new("pgherd"));
    for line in ["pgherd flush demo", "pgherd flush demo n1", "pgherd flush demo restart n1", "pgherd flush"] {
        let parsed = parser().try_get_matches_from(line.split(' ')).and_then(|found| Command::from_arg_matches(&found));
        assert!(parsed.is_err(), "{line}");
    }
}

#[test]
fn a_cluster_is_removed_after_three_answers() {
    let name = "Please confirm the cluster name to remove: ";
    let aware = "You are about to remove all information in DCS for demo, please type: \"Yes I am aware\": ";
    let leader = "This cluster currently is healthy. Please specify the leader name to continue: ";
    for (answers, said, error) in [
        ("", name.to_owned(), "Aborted!"),
        ("\nx\n", format!("{name}{name}"), "Cluster names specified do not match"),
        ("demo\nyes\n", format!("{name}{aware}"), "You did not exactly type \"Yes I am aware\""),
        (
            "demo\nYes I am aware\nn2\n",
            format!("{name}{aware}{leader}"),
            "You did not specify the current leader of the cluster",
        ),
    ] {
        assert_eq!(ask("pgherd remove demo", answers, &[]), refused(&said, error), "{answers:?}");
    }
    let mut world = World::new(&keys(DEAD), "demo\nYes I am aware\nn1\n");
    assert_eq!(run("pgherd remove demo -f tsv", &mut world), "");
    assert_eq!(world.store.view(), Default::default());
    let mut world = World::new(&json!({}), "demo\nYes I am aware\n");
    assert_eq!(run("pgherd remove demo", &mut world), "");
}
