//! `pgherd topology`: the members as a tree, each below the one that it replicates from.

use clap::Args;
use pgherd_ha::View;
use serde_json::Value;

use super::context::{Access, Context};
use super::list::{self, Tags, Watch};
use super::members::{self, ShownMember};
use super::table::Format;

#[derive(Args, Clone, Debug, Default)]
pub struct TopologyArguments {
    /// Clusters to show [default: the configured scope]
    #[arg(value_name = "CLUSTER")]
    pub clusters: Vec<String>,
    #[command(flatten)]
    pub watch: Watch,
    #[command(flatten)]
    pub access: Access,
}

pub async fn run(arguments: TopologyArguments, context: &mut Context) -> anyhow::Result<()> {
    let clusters = context.clusters(&arguments.clusters);
    if clusters.is_empty() {
        list::warn_no_cluster("topology");
        return Ok(());
    }
    list::repeat(arguments.watch.interval(), true, context, async |context| {
        for cluster in &clusters {
            let view = context.load(cluster).await?;
            context.terminal.print(&text_of(cluster, &view))?;
        }
        Ok(())
    })
    .await
}

fn text_of(cluster: &str, view: &View) -> String {
    let members = members::shown(view);
    let table = list::table_of(cluster, view, tree(&members), Format::Pretty, Tags::Braces, false);
    table.render(Format::Pretty) + &list::notes(view)
}

/// The leader, then everybody else below its parent, two columns further in each level.
fn tree<'a>(members: &'a [ShownMember<'a>]) -> Vec<(String, &'a ShownMember<'a>)> {
    let mut rows: Vec<(String, &ShownMember<'_>)> = members
        .iter()
        .filter(|member| member.role.is_leader())
        .map(|leader| (leader.name.to_owned(), leader))
        .collect();
    push_children(None, 0, members, &mut rows);
    // Members that name each other as their source hang on nobody; they must not disappear for that.
    for member in members {
        if !rows.iter().any(|(_, shown)| shown.name == member.name) {
            rows.push((format!("+ {}", member.name), member));
        }
    }
    rows
}

fn push_children<'a>(
    parent: Option<&str>,
    depth: usize,
    members: &'a [ShownMember<'a>],
    rows: &mut Vec<(String, &'a ShownMember<'a>)>,
) {
    for child in members.iter().filter(|member| !member.role.is_leader() && source(member, members) == parent) {
        rows.push((format!("{}+ {}", "  ".repeat(depth), child.name), child));
        push_children(Some(child.name), depth + 1, members, rows);
    }
}

/// Whom a member replicates from: `None` is the leader, also if the tag names nobody that is there.
fn source<'a>(member: &'a ShownMember<'_>, members: &[ShownMember<'_>]) -> Option<&'a str> {
    let named = member.tags.get("replicatefrom").and_then(Value::as_str)?;
    members.iter().any(|other| other.name == named && !other.role.is_leader()).then_some(named)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ctl::fake::view;

    fn shown(sources: &[(&str, &str)], leader: &str) -> Vec<String> {
        let members = sources.iter().map(|(name, source)| {
            let value = json!({"conn_url": "postgres://h/p", "role": "replica", "tags": {"replicatefrom": source}});
            (format!("members/{name}"), value)
        });
        let mut keys: serde_json::Map<String, Value> = members.collect();
        keys.insert("leader".into(), leader.into());
        let view = view(&Value::Object(keys));
        tree(&members::shown(&view)).into_iter().map(|(label, _)| label).collect()
    }

    #[test]
    fn everybody_stands_below_its_source() {
        let cascade = [("n1", "n2"), ("n2", ""), ("n3", ""), ("n4", "n1"), ("n5", "n9"), ("n6", "n3")];
        assert_eq!(shown(&cascade, "n3"), ["n3", "+ n2", "  + n1", "    + n4", "+ n5", "+ n6"]);
        assert_eq!(shown(&[("n1", "n2"), ("n2", "")], ""), ["+ n2", "  + n1"]);
    }

    #[test]
    fn members_in_a_circle_are_shown() {
        assert_eq!(
            shown(&[("n1", "n2"), ("n2", "n1"), ("n3", ""), ("n4", "n4")], "n3"),
            ["n3", "+ n1", "+ n2", "+ n4"]
        );
    }
}
