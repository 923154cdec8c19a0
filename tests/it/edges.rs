//! The edges between the crates, what the pure ones may not pull in, and the dependencies that `deny.toml` bans.
//!
//! Read from `cargo metadata` and from the files themselves; no server is started.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Who may depend on whom: `cli -> agent, proxy -> dcs -> ha`; `tls` below all that reach a network; `sim -> ha`; nothing depends on `sim`.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("pgherd", &["pgherd-agent", "pgherd-proxy", "pgherd-dcs", "pgherd-ha", "pgherd-store", "pgherd-tls"]),
    ("pgherd-agent", &["pgherd-dcs", "pgherd-ha", "pgherd-store", "pgherd-tls"]),
    ("pgherd-proxy", &["pgherd-dcs", "pgherd-ha", "pgherd-tls"]),
    ("pgherd-dcs", &["pgherd-ha", "pgherd-store", "pgherd-tls"]),
    ("pgherd-ha", &[]),
    ("pgherd-sim", &["pgherd-ha"]),
    ("pgherd-tls", &[]),
    ("pgherd-store", &[]),
    ("pgherd-it", &[]),
    ("pgherd-fuzz", &["pgherd-agent", "pgherd-dcs", "pgherd-proxy"]),
];

/// What would let a pure crate wait, reach a network or the system, or draw a random number.
const IMPURE: [&str; 12] = [
    "async-trait",
    "axum",
    "futures",
    "getrandom",
    "hyper",
    "libc",
    "mio",
    "rand",
    "reqwest",
    "rustix",
    "socket2",
    "tokio",
];

/// The normal (and build) dependencies of every package, by name.
struct Graph {
    members: BTreeSet<String>,
    normal: BTreeMap<String, BTreeSet<String>>,
    all: BTreeMap<String, BTreeSet<String>>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/it lies two levels below the root")
}

fn graph() -> Graph {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = |value: &Value| value.as_array().cloned().expect("a list");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let names: BTreeMap<String, String> =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
    let mut graph = Graph {
        members: list(&metadata["workspace_members"]).iter().map(|id| names[&text(id)].clone()).collect(),
        normal: BTreeMap::new(),
        all: BTreeMap::new(),
    };
    for node in list(&metadata["resolve"]["nodes"]) {
        let name = &names[&text(&node["id"])];
        for dependency in list(&node["deps"]) {
            let target = names[&text(&dependency["pkg"])].clone();
            let only_for_tests = list(&dependency["dep_kinds"]).iter().all(|kind| kind["kind"] == "dev");
            graph.all.entry(name.clone()).or_default().insert(target.clone());
            if !only_for_tests {
                graph.normal.entry(name.clone()).or_default().insert(target);
            }
        }
    }
    graph
}

#[test]
fn the_crates_depend_on_each_other_in_one_direction_only() {
    let graph = graph();
    let expected: BTreeSet<String> = ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(graph.members, expected, "a new crate needs its line in ALLOWED and in ARCHITECTURE.md");
    for (name, allowed) in ALLOWED {
        for dependency in graph.normal.get(name).into_iter().flatten().filter(|other| graph.members.contains(*other)) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
    for (name, dependencies) in &graph.all {
        assert!(!dependencies.contains("pgherd-sim"), "nothing depends on the simulator, but {name} does");
    }
}

#[test]
fn the_pure_crates_pull_in_nothing_that_waits_or_reaches_out() {
    let graph = graph();
    for pure in ["pgherd-ha", "pgherd-sim"] {
        let mut reached = BTreeSet::new();
        let mut next = vec![pure.to_owned()];
        while let Some(name) = next.pop() {
            for dependency in graph.normal.get(&name).into_iter().flatten() {
                if reached.insert(dependency.clone()) {
                    next.push(dependency.clone());
                }
            }
        }
        let impure: Vec<&&str> = IMPURE.iter().filter(|name| reached.contains(**name)).collect();
        assert!(impure.is_empty(), "{pure} is pure, but pulls in {impure:?}");
    }
}

#[test]
fn the_pure_crates_forbid_clocks_and_random_order() {
    let rules = |name: &str| std::fs::read_to_string(root().join("crates").join(name).join("clippy.toml"));
    let rules_of_ha = rules("ha").expect("crates/ha has lints of its own");
    assert_eq!(rules_of_ha, rules("sim").expect("crates/sim, too"), "both pure crates have the same rules");
    for forbidden in
        ["std::time::Instant::now", "jiff::Timestamp::now", "std::thread::spawn", "std::collections::HashMap"]
    {
        assert!(rules_of_ha.contains(forbidden), "{forbidden} is not forbidden");
    }
}

/// The names in the list of `deny.toml`, each with those that may use it all the same.
fn banned(rules: &str) -> BTreeMap<String, Vec<String>> {
    let list = rules.split("deny = [\n").nth(1).and_then(|rest| rest.split("\n]").next()).expect("a list of bans");
    let quoted = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<String>>();
    let lines = list.lines().filter(|line| line.trim_start().starts_with('{')).map(quoted);
    lines.map(|names| (names[0].clone(), names[1..].to_vec())).collect()
}

#[test]
fn no_banned_crate_is_in_the_lock_file() {
    let rules = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let banned = banned(&rules);
    for name in ["openssl", "native-tls", "serde_yaml", "serde_yml", "chrono", "lazy_static"] {
        assert!(banned.contains_key(name), "deny.toml does not ban {name}");
    }
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    for package in lock.split("[[package]]").skip(1) {
        let name = package.split('"').nth(1).expect("a package has a name");
        for (ban, exceptions) in &banned {
            assert!(name != ban || !exceptions.is_empty(), "{ban} is banned, but in the lock file");
            let depends =
                package.lines().any(|line| line.trim().trim_matches([',', '"']).split(' ').next() == Some(ban));
            assert!(!depends || exceptions.iter().any(|one| one == name), "{name} depends on {ban}, which is banned");
        }
    }
}
