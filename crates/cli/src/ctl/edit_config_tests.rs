//! Editing the dynamic configuration: what is shown, what is written.

use serde_json::{Value, json};

use super::edit_config::{self, EditConfigArguments};
use super::fake::{World, block_on};

/// `ttl` 30 and a parameter.
fn keys() -> Value {
    json!({"config": {"ttl": 30, "postgresql": {"parameters": {"work_mem": "4MB"}}}})
}

/// `-s ttl=20`, with spaces between the words.
fn arguments(line: &str) -> EditConfigArguments {
    let mut arguments = EditConfigArguments::default();
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    while let Some(option) = words.next() {
        let mut value = || words.next().expect("a value").to_owned();
        match option {
            "-q" => arguments.quiet = true,
            "--force" => arguments.force = true,
            "-s" => arguments.set.push(value()),
            "-p" => arguments.pg.push(value()),
            "--apply" => arguments.apply = Some(value()),
            "--replace" => arguments.replace = Some(value()),
            other => panic!("{other} is no option of this test"),
        }
    }
    arguments
}

/// What was said, the error, the configuration then.
fn run(line: &str, answers: &'static str) -> (String, String, Value) {
    let mut world = World::new(&keys(), answers);
    let result = block_on(edit_config::run(arguments(line), &mut world.context));
    let config = world.store.view().config.map(|config| Value::Object(config.value)).unwrap_or_default();
    (world.output(), result.err().map(|error| format!("{error:#}")).unwrap_or_default(), config)
}

/// Of the only parameter, changed from 4MB.
fn diff(work_mem: &str) -> String {
    let around = " postgresql:\n   parameters:\n";
    format!("--- \n+++ \n@@ -1,4 +1,4 @@\n{around}-    work_mem: 4MB\n+    work_mem: {work_mem}\n ttl: 30\n")
}

#[test]
fn changes_are_shown_asked_for_and_written() {
    let changed = json!({"ttl": 30, "postgresql": {"parameters": {"work_mem": "8MB"}}});
    let shown = diff("8MB");
    for (line, answers, expected, config) in [
        ("-p work_mem=8MB --force", "", format!("{shown}Configuration changed\n"), &changed),
        ("-p work_mem=8MB", "y\n", format!("{shown}Apply these changes? [y/N]: Configuration changed\n"), &changed),
        ("-p work_mem=8MB", "n\n", format!("{shown}Apply these changes? [y/N]: "), &keys()["config"]),
        ("-s postgresql.parameters.work_mem=8MB -q --force", "", "Configuration changed\n".to_owned(), &changed),
        ("-s ttl=30", "", "Not changed\n".to_owned(), &keys()["config"]),
        ("-s ttl=30 -q", "", String::new(), &keys()["config"]),
        (
            "--apply -",
            "postgresql: {parameters: {work_mem: 8MB}}\n",
            format!("{shown}Use --force option to apply changes\n"),
            &keys()["config"],
        ),
        (
            "--apply - --force",
            "postgresql: {parameters: {work_mem: 8MB}}\n",
            format!("{shown}Configuration changed\n"),
            &changed,
        ),
        ("--replace - --force -q", "ttl: 20\n", "Configuration changed\n".to_owned(), &json!({"ttl": 20})),
        // One over the other, in this order.
        (
            "--replace - -s loop_wait=5 --force -q",
            "ttl: 20\n",
            "Configuration changed\n".to_owned(),
            &json!({"ttl": 20, "loop_wait": 5}),
        ),
    ] {
        assert_eq!(run(line, answers), (expected, String::new(), config.clone()), "{line} {answers:?}");
    }
}

#[test]
fn what_cannot_be_changed_is_an_error() {
    for (line, answers, expected) in [
        ("-s ttl --force", "", "Invalid parameter setting ttl"),
        ("-s ttl=20", "", "Aborted!"),
        ("--apply /does/not/exist", "", "/does/not/exist cannot be read: "),
        ("--apply -", "[1]\n", "the standard input is no mapping of keys to values"),
    ] {
        let (_, error, config) = run(line, answers);
        assert!(error.starts_with(expected), "{line}: {error}");
        assert_eq!(config, keys()["config"], "{line}");
    }
    let mut world = World::new(&json!({}), "");
    let error = block_on(edit_config::run(arguments("-s ttl=20"), &mut world.context)).expect_err("no key");
    assert_eq!(error.to_string(), "The config key does not exist in the cluster demo");
}

#[test]
fn a_change_that_came_in_meanwhile_is_not_overwritten() {
    let mut world = World::new(&keys(), "");
    let store = world.store.clone();
    let other = move || store.change(|view| view.config.as_mut().expect("a configuration").version += 1);
    world.answer_after(other, "y\n");
    let error = block_on(edit_config::run(arguments("-s ttl=20"), &mut world.context)).expect_err("a conflict");
    assert_eq!(error.to_string(), "Config modification aborted due to concurrent changes");
    assert_eq!(world.store.view().config.expect("a configuration").value["ttl"], 30);
}
