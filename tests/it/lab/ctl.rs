//! The operator's console, unmodified, on a host of its own beside the lab's cluster.

use serde_json::Value;

use super::cluster::{Lab, SOON};
use crate::ctl::patronictl;

const STORE: [&str; 2] = ["-d", "zookeeper://zoo:2181"];

#[test]
fn patronictl_lists_the_lab_and_switches_it_over_and_back() {
    let Some(lab) = Lab::deploy() else { return };
    for _ in 0..2 {
        let primary = lab.primary().expect("a primary");
        let [leader, candidate] = [primary, 1 - primary].map(|node| lab.nodes[node].member());
        let members = members(&lab);
        let role = |name: &str| members.iter().find(|member| member["Member"] == name).map(|member| &member["Role"]);
        assert_eq!(role(leader), Some(&Value::from("Leader")), "{members:?}");
        assert_eq!(role(candidate), Some(&Value::from("Replica")), "{members:?}");
        let order = ["switchover", "my_cluster", "--leader", leader, "--candidate", candidate, "--force"];
        let said = console(&lab, &order);
        assert!(said.contains("Successfully switched over"), "{said}\n{}", lab.logs());
        lab.wait("the other node leads, the former leader follows", SOON, |lab| {
            lab.primary() == Some(1 - primary) && lab.streams(primary)
        });
    }
    let timelines: Vec<Value> = members(&lab).iter().map(|member| member["TL"].clone()).collect();
    assert_eq!(timelines, [3, 3], "two promotions");
}

fn members(lab: &Lab) -> Vec<Value> {
    let text = console(lab, &["list", "my_cluster", "-f", "json"]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// What it prints; it must succeed.
fn console(lab: &Lab, arguments: &[&str]) -> String {
    // A host sees the directory of the built programs and not the way there through the sources.
    let patronictl = patronictl().canonicalize().expect("it is there");
    let output = lab.client.command(patronictl).args(STORE).args(arguments).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}\n{errors}\n{}", lab.logs());
    text
}
