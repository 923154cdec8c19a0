//! Which members a command is for: chosen by role and name, shown, and confirmed by the operator before anything is done.
//!
//! Not here: what is done to them. Tested below and through the commands (`orders_tests`).

use std::fmt;

use anyhow::bail;
use clap::{Args, ValueEnum};
use pgherd_ha::{Member, Role, View};

use super::context::Context;
use super::list;
use super::table::Format;

/// The one order that is never for everybody: the data of a whole cluster are not thrown away for want of a name.
pub const REINITIALIZE: &str = "reinitialize";

/// A part that members play. Without a leader nobody plays the first three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Leader,
    // The leader of a cluster that follows no other, and of one that follows another.
    Primary,
    StandbyLeader,
    Replica,
    // The same as `replica`.
    Standby,
    #[default]
    Any,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no part is left out");
        f.write_str(value.get_name())
    }
}

/// The members that an order is for.
#[derive(Args, Clone, Debug, Default)]
pub struct Targets {
    /// The cluster
    #[arg(value_name = "CLUSTER")]
    pub cluster: String,
    /// Only these members [default: all of the role]
    #[arg(value_name = "MEMBER")]
    pub members: Vec<String>,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value_t)]
    pub role: Part,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

/// One member, for a command that looks at one.
#[derive(Args, Clone, Debug, Default)]
pub struct One {
    /// Any member with this role [default: the leader]
    #[arg(short, long, value_enum)]
    pub role: Option<Part>,
    /// This member
    #[arg(short, long, value_name = "MEMBER")]
    pub member: Option<String>,
}

impl One {
    /// A named member may play any part.
    pub fn part(&self) -> anyhow::Result<Part> {
        match (self.role, &self.member) {
            (Some(_), Some(_)) => bail!("--role and --member are mutually exclusive options"),
            (Some(role), None) => Ok(role),
            (None, Some(_)) => Ok(Part::Any),
            (None, None) => Ok(Part::Leader),
        }
    }

    pub fn find<'a>(&self, view: &'a View) -> anyhow::Result<Option<&'a Member>> {
        let wanted = |member: &&Member| self.member.as_ref().is_none_or(|name| *name == member.name);
        Ok(with_part(view, self.part()?).into_iter().find(wanted))
    }
}

/// In the order of their names.
pub fn with_part(view: &View, part: Part) -> Vec<&Member> {
    let leader = view.leader.as_ref().map(|leader| leader.name.as_str());
    let plays = |member: &&Member| {
        let leads = Some(member.name.as_str()) == leader;
        match part {
            Part::Any => true,
            Part::Leader => leads,
            Part::Primary => leads && member.role != Role::StandbyLeader,
            Part::StandbyLeader => leads && member.role != Role::Primary,
            Part::Replica | Part::Standby => !leads,
        }
    };
    view.members.iter().filter(plays).collect()
}

/// Shows the cluster and says which members the order `action` is for. Names of other members are passed over as long
/// as one fits.
pub async fn choose(
    context: &mut Context,
    view: &View,
    targets: &Targets,
    action: &str,
) -> anyhow::Result<Vec<Member>> {
    let Targets { cluster, members: named, role, force } = targets;
    let possible = with_part(view, *role);
    if possible.is_empty() && named.is_empty() {
        bail!("{cluster} cluster doesn't have any members");
    }
    context.terminal.print(&list::text_of(cluster, view, Format::Pretty, false))?;
    let names = match named.as_slice() {
        [] if action == REINITIALIZE && !force => vec![ask_for_name(context, &possible, action).await?],
        [] if action == REINITIALIZE => vec![],
        [] => possible.iter().map(|member| member.name.clone()).collect(),
        named => named.to_vec(),
    };
    let chosen: Vec<Member> = possible.iter().filter(|member| names.contains(&member.name)).copied().cloned().collect();
    if chosen.is_empty() && !named.is_empty() {
        match action {
            REINITIALIZE => bail!("No {role} among provided members"),
            _ => bail!("No '{role}' among provided members"),
        }
    }
    Ok(chosen)
}

async fn ask_for_name(context: &mut Context, possible: &[&Member], action: &str) -> anyhow::Result<String> {
    let names: Vec<&str> = possible.iter().map(|member| member.name.as_str()).collect();
    let question = format!("Which member do you want to {action} [{}]?", names.join(", "));
    let name = context.terminal.ask(&question, "").await?;
    if !names.contains(&name.as_str()) {
        bail!("{name} is not a member of cluster");
    }
    Ok(name)
}

/// `at` is when, if not now.
pub async fn confirm(context: &mut Context, members: &[Member], action: &str, at: Option<&str>) -> anyhow::Result<()> {
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let names = names.join(", ");
    let (question, refused) = match at {
        Some(at) => (
            format!("Are you sure you want to schedule {action} of members {names} at {at}?"),
            format!("Aborted scheduled {action}"),
        ),
        None => (format!("Are you sure you want to {action} members {names}?"), format!("Aborted {action}")),
    };
    match context.terminal.confirm(&question).await? {
        true => Ok(()),
        false => bail!(refused),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ctl::fake::view;

    #[test]
    fn the_parts_that_members_play() {
        let member = |role: &str| json!({"conn_url": "postgres://h/p", "role": role});
        let cluster = |leader: &str, role: &str| {
            view(&json!({"leader": leader, "members/n1": member(role), "members/n2": member("replica")}))
        };
        let check = |view: &View, part: Part, expected: &[&str]| {
            let names: Vec<&str> = with_part(view, part).iter().map(|member| member.name.as_str()).collect();
            assert_eq!(names, expected, "{part}");
        };
        let usual = cluster("n1", "primary");
        check(&usual, Part::Any, &["n1", "n2"]);
        check(&usual, Part::Leader, &["n1"]);
        check(&usual, Part::Primary, &["n1"]);
        check(&usual, Part::StandbyLeader, &[]);
        check(&usual, Part::Replica, &["n2"]);
        check(&usual, Part::Standby, &["n2"]);
        let standby_cluster = cluster("n1", "standby_leader");
        check(&standby_cluster, Part::Leader, &["n1"]);
        check(&standby_cluster, Part::Primary, &[]);
        check(&standby_cluster, Part::StandbyLeader, &["n1"]);
        let leaderless = cluster("n9", "primary");
        check(&leaderless, Part::Leader, &[]);
        check(&leaderless, Part::Replica, &["n1", "n2"]);
    }

    #[test]
    fn a_member_by_name_or_by_role() {
        let member = json!({"conn_url": "postgres://h/p", "role": "replica"});
        let view = view(&json!({"leader": "n2", "members/n1": member, "members/n2": member}));
        let find = |role: Option<Part>, name: Option<&str>| {
            let one = One { role, member: name.map(str::to_owned) };
            one.find(&view).map(|found| found.map(|member| member.name.clone()))
        };
        assert_eq!(find(None, None).expect("a choice").as_deref(), Some("n2"));
        assert_eq!(find(Some(Part::Any), None).expect("a choice").as_deref(), Some("n1"));
        assert_eq!(find(None, Some("n1")).expect("a choice").as_deref(), Some("n1"));
        assert_eq!(find(None, Some("n9")).expect("a choice"), None);
        assert!(find(Some(Part::Any), Some("n1")).is_err());
    }
}
