//! Which server a standby is to stream from, and which standbys stream from this one: by the tags `replicatefrom` and `nostream`, and in a
//! standby cluster from another cluster.
//!
//! Not here: where a copy is taken from (`bootstrap::copy_source`), and whose history counts, which is always the leader's.

use crate::action::{Address, Upstream};
use crate::agent::{Situation, Standing};
use crate::view::{Member, MemberState, View};

/// What a standby is to follow.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    /// It is not known now, so it goes on with what it has.
    Unknown,
    /// Nobody: its log comes from the archive.
    Archive,
    Stream(Upstream),
}

impl Target {
    /// The upstream of a server that is to be started.
    pub fn upstream(&self) -> Option<Upstream> {
        match self {
            Target::Stream(upstream) => Some(upstream.clone()),
            Target::Archive | Target::Unknown => None,
        }
    }

    /// What must be followed in place of what is.
    pub fn differs_from(&self, following: Option<&Upstream>) -> bool {
        match self {
            Target::Unknown => false,
            Target::Archive => following.is_some(),
            Target::Stream(upstream) => following != Some(upstream),
        }
    }
}

/// What this node is to follow.
pub(crate) fn target(at: &Situation<'_>) -> Target {
    if at.settings.nostream {
        return Target::Archive;
    }
    if let (Some(standby), Standing::Mine(_) | Standing::Nobody) = (&at.settings.standby_cluster, at.standing) {
        return standby.upstream.clone().map_or(Target::Archive, Target::Stream);
    }
    let Some(leader) = other_leader(at.view, at.me()) else { return Target::Unknown };
    let source = source(at.view, at.me(), at.settings.replicatefrom.as_deref()).unwrap_or(leader);
    of_member(source).map_or(Target::Unknown, Target::Stream)
}

/// The leader's own server: what this node's history is compared with, and is rewound to.
pub(crate) fn leader(at: &Situation<'_>) -> Option<Upstream> {
    other_leader(at.view, at.me()).and_then(of_member)
}

/// The other members that are to stream from this one.
pub(crate) fn followers<'a>(at: &'a Situation<'_>) -> impl Iterator<Item = &'a Member> {
    let leads = matches!(at.standing, Standing::Mine(_));
    at.view.members.iter().filter(move |member| {
        let source = source(at.view, &member.name, member.replicatefrom());
        let from_here = source.map_or(leads, |source| source.name == at.me());
        member.name != at.me() && !member.tag("nostream") && from_here
    })
}

/// The member that this node's log comes over from the leader: itself, or the first of those above it.
pub(crate) fn next_to_leader<'a>(at: &'a Situation<'_>) -> &'a str {
    let (mut name, mut wanted) = (at.me(), at.settings.replicatefrom.as_deref());
    // A chain is no longer than there are members.
    for _ in &at.view.members {
        let above = source(at.view, name, wanted);
        match above.filter(|above| at.view.leader.as_ref().is_none_or(|leader| leader.name != above.name)) {
            Some(above) => (name, wanted) = (&above.name, above.replicatefrom()),
            None => break,
        }
    }
    name
}

pub(crate) fn of_member(member: &Member) -> Option<Upstream> {
    let (host, port) = member.postgres_address()?;
    Some(Upstream { name: member.name.clone(), addresses: vec![Address { host, port }], remote: None })
}

/// A key of this node's own former session leads nobody.
fn other_leader<'a>(view: &'a View, me: &str) -> Option<&'a Member> {
    view.leader_member().filter(|leader| leader.name != me)
}

/// The member that `name` streams from in place of the leader, as its tag wants it. `None`: from the leader, since the tag names nobody, or one
/// that does not run, or one that gets its own log through `name` again.
fn source<'a>(view: &'a View, name: &str, wanted: Option<&str>) -> Option<&'a Member> {
    let source = wanted.filter(|wanted| *wanted != name).and_then(|wanted| view.member(wanted))?;
    if source.state != MemberState::Running {
        return None;
    }
    let leads = |member: &Member| view.leader.as_ref().is_some_and(|leader| leader.name == member.name);
    let mut above = source;
    // A chain is no longer than there are members, else it goes round.
    for _ in &view.members {
        let next = above.replicatefrom().filter(|_| !leads(above)).and_then(|next| view.member(next));
        match next.filter(|next| next.state == MemberState::Running) {
            None => return Some(source),
            Some(next) if next.name == name => return None,
            Some(next) => above = next,
        }
    }
    None
}
