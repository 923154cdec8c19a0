//! The reference page and the example file, written from the table.
//!
//! `PGHERD_WRITE_DOCS=1 cargo test -p pgherd-agent documentation` writes both anew; without it, that test fails when they
//! are stale.

use std::fmt::Write;

use super::{Kind, OPTIONS, Scope, Setting};
use crate::config::environment;

const INTRODUCTION: &str = "\
# Configuration

pgherd reads a Patroni YAML file (or a directory of them, in the order of their names) and Patroni's environment
variables, which win over the file. Settings of the whole cluster live in the store and are changed with `PATCH /config`.

*Where* says which of the two a setting belongs to: **file**, **cluster**, or both, in which case the file wins.

This page is generated from the table in `crates/agent/src/config/options/table.rs`; do not edit it by hand.
An example file with every setting is `example.yml`.
";

/// `docs/configuration.md`.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut section = "";
    for setting in OPTIONS {
        let current = heading(setting);
        if current != section {
            section = current;
            let _ = write!(page, "\n## {section}\n\n| key | type | default | where | environment | meaning |\n");
            page.push_str("|---|---|---|---|---|---|\n");
        }
        let keys: Vec<String> = setting.paths().iter().map(|path| format!("`{path}`")).collect();
        let variables: Vec<String> = setting
            .paths()
            .iter()
            .filter_map(|path| environment::variable(path))
            .map(|name| format!("`{name}`"))
            .collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} |",
            keys.join("<br>"),
            kind(setting),
            default(setting),
            location(setting.scope),
            variables.join("<br>"),
            setting.doc,
        );
    }
    page
}

fn kind(setting: &Setting) -> String {
    let kind = setting.kind.expected();
    match setting.min {
        Some(min) => format!("{kind}, at least {min}"),
        None => kind,
    }
}

fn default(setting: &Setting) -> String {
    match (setting.is_required, setting.default) {
        (true, _) => "required".to_owned(),
        (false, "") => String::new(),
        (false, default) => format!("`{default}`"),
    }
}

fn location(scope: Scope) -> &'static str {
    match scope {
        Scope::Local => "file",
        Scope::Dynamic => "cluster",
        Scope::Both => "file, cluster",
    }
}

fn heading(setting: &Setting) -> &'static str {
    match (setting.path.split('.').next().unwrap_or_default(), setting.scope) {
        ("postgresql", _) => "postgresql",
        ("standby_cluster", _) => "standby_cluster",
        (_, Scope::Dynamic) => "The whole cluster",
        (name, _) if !setting.path.contains('.') && setting.kind != Kind::Map => {
            debug_assert!(!name.is_empty());
            "The member"
        }
        ("consul" | "etcd" | "exhibitor" | "kubernetes" | "raft" | "citus", _) => "Not in pgherd",
        (name, _) => name,
    }
}

/// `docs/example.yml`: required and telling options live, the others as comments with their defaults.
pub fn example() -> String {
    let mut file = String::from(
        "# An example with every setting of a member's file. Generated from the table of options, like configuration.md.\n\
         # What is commented out shows its default, if it has one.\n",
    );
    // Alternatives of a whole section (two stores of one shape) would make a wrong file.
    let shown = |setting: &&Setting| {
        setting.scope != Scope::Dynamic && heading(setting) != "Not in pgherd" && !setting.path.starts_with("etcd3")
    };
    let mut lines = Vec::new();
    for setting in OPTIONS.iter().filter(shown) {
        for (index, path) in setting.paths().iter().enumerate() {
            lines.push(Line { path: path.split('.').map(str::to_owned).collect(), setting, has_doc: index == 0 });
        }
    }
    write_section(&mut file, 0, &lines.iter().collect::<Vec<_>>());
    file
}

/// One option of the example file.
struct Line {
    path: Vec<String>,
    setting: &'static Setting,
    has_doc: bool,
}

/// The lines of one section; those below a section of their own come together, where the first of them stands.
fn write_section(file: &mut String, level: usize, lines: &[&Line]) {
    let indent = "  ".repeat(level);
    let mut written: Vec<&str> = Vec::new();
    for line in lines {
        let name = line.path[level].as_str();
        if line.path.len() > level + 1 {
            if written.contains(&name) {
                continue;
            }
            written.push(name);
            let below: Vec<&Line> = lines.iter().copied().filter(|line| line.path[level] == name).collect();
            let _ = writeln!(file, "{}{indent}{name}:", if level == 0 { "\n" } else { "" });
            write_section(file, level + 1, &below);
            continue;
        }
        if line.has_doc {
            let _ = writeln!(file, "{indent}# {}", line.setting.doc);
        }
        let _ = match (line.setting.example, line.setting.default) {
            ("", "") => writeln!(file, "{indent}# {name}:"),
            ("", default) => writeln!(file, "{indent}# {name}: {default}"),
            (example, _) => writeln!(file, "{indent}{name}: {example}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn documentation_is_what_the_table_says() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        for (name, text) in [("configuration.md", reference()), ("example.yml", example())] {
            let path = docs.join(name);
            if std::env::var_os("PGHERD_WRITE_DOCS").is_some() {
                std::fs::create_dir_all(&docs).expect("the directory of the documentation can be made");
                std::fs::write(&path, &text).expect("the documentation can be written");
            }
            let written = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                written == text,
                "docs/{name} is stale: run `PGHERD_WRITE_DOCS=1 cargo test -p pgherd-agent documentation`"
            );
        }
    }
}
