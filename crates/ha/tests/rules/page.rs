//! `docs/rules.md`: every rule with its sentence, written from the rules themselves.
//!
//! `PGHERD_WRITE_DOCS=1 cargo test -p pgherd-ha the_page_of_rules` writes it anew; without it, that test fails when it is stale.

use std::fmt::Write;
use std::path::Path;

use pgherd_ha::Rule;

const INTRODUCTION: &str = "\
# Rules

Every decision of an agent is one of these rules. The log shows the sentence when the rule changes, with the name beside it
(`rule=\"Promote\"`). What a rule looks at and what it asks for is in `crates/ha/src/`, one file a situation; cases of each are
in `crates/ha/tests/rules/`.

This page is generated from `crates/ha/src/rule.rs`; do not edit it by hand.

| rule | what was seen, and what follows |
|---|---|
";

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for rule in Rule::ALL {
        let _ = writeln!(page, "| `{}` | {} |", rule.name(), rule.sentence());
    }
    page
}

#[test]
fn the_page_of_rules_is_what_the_rules_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rules.md");
    #[allow(clippy::disallowed_methods, reason = "a test may be told to write the page")]
    if std::env::var_os("PGHERD_WRITE_DOCS").is_some() {
        std::fs::write(&path, page()).expect("the documentation can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/rules.md is stale: run `PGHERD_WRITE_DOCS=1 cargo test -p pgherd-ha the_page_of_rules`"
    );
}
