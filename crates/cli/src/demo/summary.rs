//! What `pgherd demo` prints at the end: how to connect, who is there, what to try.

use super::cluster::Member;
use super::state::State;

/// The text for standard output. `own_directory`: the user named the directory and has to name it again.
pub fn text(state: &State, members: &[Member], own_directory: bool) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "pgherd".to_owned());
    let directory = match own_directory {
        true => format!(" --directory {}", shell_quoted(&state.directory.display().to_string())),
        false => String::new(),
    };
    let layout = state.layout();
    let pgpass = shell_quoted(&layout.pgpass().display().to_string());
    let config = state.nodes.first().map(|node| shell_quoted(&node.config.display().to_string())).unwrap_or_default();
    format!(
        "
{table}
Connect:
  PGPASSFILE={pgpass} psql -h 127.0.0.1 -p {entry} -U postgres

Try:
  {program} drill kill-postgres{directory}
  {program} -c {config} list
  {program} demo --stop{directory}
and open http://127.0.0.1:{stats}/ (the entrypoint's page). Files and logs: {files}
",
        table = table(state, members),
        entry = state.entry_port,
        stats = state.stats_port,
        files = state.directory.display(),
    )
}

fn table(state: &State, members: &[Member]) -> String {
    let mut builder = tabled::builder::Builder::new();
    builder.push_record(["Member", "Role", "State", "TL", "PostgreSQL", "REST API"]);
    for node in &state.nodes {
        let member = members.iter().find(|member| member.name == node.name);
        let text = |field: fn(&Member) -> String| member.map(field).unwrap_or_default();
        builder.push_record([
            node.name.clone(),
            text(|member| member.role.clone()),
            text(|member| member.state.clone()),
            text(|member| member.timeline.map(|number| number.to_string()).unwrap_or_default()),
            format!("127.0.0.1:{}", node.postgres_port),
            format!("http://127.0.0.1:{}", node.rest_port),
        ]);
    }
    builder.build().with(tabled::settings::Style::psql()).to_string() + "\n"
}

/// Safe to paste into a shell.
fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_path_survives_the_shell() {
        for (text, expected) in [("/a/b.yml", "/a/b.yml"), ("/a b", "'/a b'"), ("it's", r"'it'\''s'"), ("", "''")] {
            assert_eq!(super::shell_quoted(text), expected);
        }
    }
}
