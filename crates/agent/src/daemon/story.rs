//! The log as a story for somebody who has never seen a failover: who led, who is gone and how that was noticed, what this node has become,
//! and how long it took.
//!
//! Pure: what was seen goes in, sentences come out; the loop logs them. Why something is done is the rule's sentence; here are only the
//! facts that it was decided on. docs/failover.md walks through a real one.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use pgherd_ha::{Boot, Epoch, FailoverKey, Local, Lsn, PeerPoll, Postgres, Rule, Running, Timeline, View};

/// What one round saw, as far as the story goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    pub leader: Option<(String, Epoch)>,
    /// The registered members.
    pub members: BTreeSet<String>,
    pub server: ServerScene,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerScene {
    Down,
    /// Up, and not to be asked: it starts, or does not answer.
    Silent,
    Primary {
        timeline: Timeline,
    },
    Standby {
        timeline: Timeline,
        position: Lsn,
        /// The upstream, while it streams.
        streams_from: Option<String>,
    },
}

impl Scene {
    pub fn new(view: &View, local: &Local) -> Scene {
        Scene {
            leader: view.leader.as_ref().map(|leader| (leader.name.clone(), leader.epoch)),
            members: view.members.iter().map(|member| member.name.clone()).collect(),
            server: match &local.postgres {
                Postgres::Stopped | Postgres::Orphans => ServerScene::Down,
                Postgres::Starting { .. } | Postgres::Silent { .. } => ServerScene::Silent,
                Postgres::Running(Running { in_recovery: false, timeline, .. }) => {
                    ServerScene::Primary { timeline: *timeline }
                }
                Postgres::Running(running) => ServerScene::Standby {
                    timeline: running.timeline,
                    position: running.position,
                    streams_from: local.following.as_ref().filter(|_| running.streaming).map(|from| from.name.clone()),
                },
            },
        }
    }
}

/// What has been told so far.
#[derive(Debug, Default)]
pub struct Story {
    last: Option<Scene>,
    /// Whose leadership ended, and when this node saw it.
    lost: Option<(String, Boot)>,
    /// Since when the present leader is known.
    led_since: Option<Boot>,
    /// What this node's server was when it was last seen up, so that a start of a known server is no news.
    was_up: Option<ServerScene>,
}

impl Story {
    /// What is new since the last scene, in the order of cause and effect. `me`: this node's name.
    pub fn tell(&mut self, me: &str, scene: Scene, now: Boot) -> Vec<String> {
        let last = self.last.replace(scene.clone());
        let Some(last) = last else {
            self.remember_server(&scene.server);
            return Vec::new();
        };
        let mut lines = Vec::new();
        self.leadership(me, &last, &scene, now, &mut lines);
        members(me, &last, &scene, &mut lines);
        self.server(me, &last.server, &scene, now, &mut lines);
        self.remember_server(&scene.server);
        lines
    }

    fn remember_server(&mut self, server: &ServerScene) {
        if matches!(server, ServerScene::Primary { .. } | ServerScene::Standby { .. }) {
            self.was_up = Some(server.clone());
        }
    }

    fn leadership(&mut self, me: &str, last: &Scene, scene: &Scene, now: Boot, lines: &mut Vec<String>) {
        if last.leader == scene.leader {
            return;
        }
        if let Some((name, epoch)) = &last.leader {
            self.lost = Some((name.clone(), now));
            // This node's own key: whoever let it go has said so.
            if name != me {
                let how = if scene.members.contains(name) {
                    "has released the leader key"
                } else {
                    "has lost the leader key: its session with the store has ended"
                };
                lines.push(format!("{name} {how} (epoch {epoch}){}", position(&scene.server)));
            }
        }
        if let Some((name, epoch)) = &scene.leader {
            self.led_since = Some(now);
            let after = self.since_lost(now).map(|after| format!(", {after}")).unwrap_or_default();
            match name == me {
                true => lines.push(format!("this node holds the leader key (epoch {epoch}){after}")),
                false => lines.push(format!("{name} holds the leader key (epoch {epoch}){after}")),
            }
        }
    }

    fn server(&mut self, me: &str, last: &ServerScene, scene: &Scene, now: Boot, lines: &mut Vec<String>) {
        match (&scene.server, &self.was_up) {
            (ServerScene::Primary { timeline }, was) if !matches!(last, ServerScene::Primary { .. }) => {
                let promoted = matches!(was, Some(ServerScene::Standby { .. }));
                let after = self.since_lost(now).filter(|_| promoted).map(|after| format!(", {after}"));
                let leads = scene.leader.as_ref().is_some_and(|(name, _)| name == me);
                let ready = if leads { " and takes writes" } else { "" };
                lines.push(format!(
                    "PostgreSQL is a primary on timeline {timeline}{ready}{}",
                    after.unwrap_or_default()
                ));
                self.lost = None;
            }
            (ServerScene::Standby { timeline, streams_from: Some(upstream), .. }, _) => {
                let before = match last {
                    ServerScene::Standby { streams_from, .. } => streams_from.as_ref(),
                    _ => None,
                };
                if before != Some(upstream) {
                    let after = self.led_since.take().map(|since| now.since(since).as_millis());
                    let after = after.map(|after| format!(", {after} ms after that node was seen to lead"));
                    lines.push(format!(
                        "PostgreSQL is a standby that streams from {upstream} on timeline {timeline}{}",
                        after.unwrap_or_default()
                    ));
                    self.lost = None;
                }
            }
            (ServerScene::Standby { .. }, _) => {
                if let ServerScene::Standby { streams_from: Some(upstream), .. } = last {
                    lines.push(format!(
                        "PostgreSQL does not stream from {upstream} any more{}",
                        position(&scene.server)
                    ));
                }
            }
            (ServerScene::Down, Some(was)) if *last != ServerScene::Down => {
                let what = if matches!(was, ServerScene::Primary { .. }) { "primary" } else { "standby" };
                lines.push(format!("PostgreSQL, which was a {what}, is down"));
                // Said once, however often it ends again before it lets anybody in.
                self.was_up = None;
            }
            _ => {}
        }
    }

    fn since_lost(&self, now: Boot) -> Option<String> {
        let (name, at) = self.lost.as_ref()?;
        Some(format!("{} ms after {name} was seen to lead no more", now.since(*at).as_millis()))
    }
}

fn members(me: &str, last: &Scene, scene: &Scene, lines: &mut Vec<String>) {
    let others = |name: &&String| *name != me;
    for name in scene.members.difference(&last.members).filter(others) {
        lines.push(format!("{name} is registered in the store"));
    }
    let led = last.leader.as_ref().map(|(name, _)| name);
    for name in last.members.difference(&scene.members).filter(others).filter(|name| Some(*name) != led) {
        lines.push(format!("{name} is gone from the store: its session has ended"));
    }
}

fn position(server: &ServerScene) -> String {
    match server {
        ServerScene::Standby { timeline, position, .. } => {
            format!("; this node is a standby at {position} on timeline {timeline}")
        }
        _ => String::new(),
    }
}

/// The facts that a rule was chosen by, where its sentence leaves them out.
pub fn facts(rule: Rule, local: &Local, view: Option<&View>) -> Option<String> {
    match rule {
        Rule::RaceBehind
        | Rule::RaceAcquire
        | Rule::CandidateAcquire
        | Rule::RacePrimaryAlive
        | Rule::RaceYield
        | Rule::HandOver => Some(format!("{}{}", own_position(local), answers(local.peers.as_ref()?))),
        Rule::RewindWait => {
            let leader = &view?.leader.as_ref()?.name;
            Some(format!("Waiting for checkpoint on {leader} before rewind"))
        }
        Rule::RaceTooFarBehind => {
            Some(format!("{}; the last leader was at {}", own_position(local), view?.status.optime))
        }
        Rule::SwitchoverAskCandidates | Rule::SwitchoverStop | Rule::SwitchoverRefused => {
            request(view?.failover_request()?)
        }
        _ => None,
    }
}

fn own_position(local: &Local) -> String {
    match (local.running(), local.control()) {
        (Some(running), _) => format!("this node: {} on timeline {}", running.position, running.timeline),
        (None, Some(control)) => format!("this node: stopped at {}", control.checkpoint),
        (None, None) => "this node: no data".into(),
    }
}

fn answers(poll: &PeerPoll) -> String {
    poll.peers.iter().fold(String::new(), |mut text, peer| {
        // Writing to a string cannot fail.
        let _ = match &peer.answer {
            None => write!(text, "; {}: no answer", peer.name),
            Some(answer) => {
                let kind = if answer.in_recovery { "" } else { "a primary at " };
                let timeline = answer.timeline.map(|timeline| format!(" on timeline {timeline}")).unwrap_or_default();
                write!(text, "; {}: {kind}{}{timeline}", peer.name, answer.position)
            }
        };
        text
    })
}

fn request(request: &FailoverKey) -> Option<String> {
    let words: Vec<String> = [("from", &request.leader), ("to", &request.member)]
        .into_iter()
        .filter_map(|(word, name)| Some(format!("{word} {}", name.as_ref()?)))
        .collect();
    (!words.is_empty()).then(|| format!("asked for: {}", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(leader: Option<(&str, u64)>, members: &[&str], server: ServerScene) -> Scene {
        Scene {
            leader: leader.map(|(name, epoch)| (name.to_owned(), Epoch(epoch))),
            members: members.iter().map(|name| (*name).to_owned()).collect(),
            server,
        }
    }

    fn standby(streams_from: Option<&str>) -> ServerScene {
        ServerScene::Standby {
            timeline: Timeline(3),
            position: Lsn(0x500_0060),
            streams_from: streams_from.map(str::to_owned),
        }
    }

    /// What n1 tells of one scene after the other, each at its millisecond.
    fn told(scenes: Vec<(u64, Scene)>) -> Vec<String> {
        let mut story = Story::default();
        scenes.into_iter().flat_map(|(at, scene)| story.tell("n1", scene, Boot::from_millis(at))).collect()
    }

    #[test]
    fn nothing_new_is_not_told() {
        let quiet = || scene(Some(("n2", 1)), &["n1", "n2"], standby(Some("n2")));
        assert_eq!(told(vec![(0, quiet()), (1_000, quiet()), (2_000, quiet())]), Vec::<String>::new());
    }

    #[test]
    fn the_winner_of_a_failover() {
        let lines = told(vec![
            (0, scene(Some(("n2", 16)), &["n1", "n2", "n3"], standby(Some("n2")))),
            (900, scene(Some(("n2", 16)), &["n1", "n2", "n3"], standby(None))),
            (9_000, scene(None, &["n1", "n3"], standby(None))),
            (9_060, scene(Some(("n1", 17)), &["n1", "n3"], standby(None))),
            (9_110, scene(Some(("n1", 17)), &["n1", "n3"], ServerScene::Primary { timeline: Timeline(4) })),
            (12_000, scene(Some(("n1", 17)), &["n1", "n2", "n3"], ServerScene::Primary { timeline: Timeline(4) })),
        ]);
        assert_eq!(
            lines,
            [
                "PostgreSQL does not stream from n2 any more; this node is a standby at 0/5000060 on timeline 3",
                "n2 has lost the leader key: its session with the store has ended (epoch 0x10); this node is a standby at 0/5000060 \
                 on timeline 3",
                "this node holds the leader key (epoch 0x11), 60 ms after n2 was seen to lead no more",
                "PostgreSQL is a primary on timeline 4 and takes writes, 110 ms after n2 was seen to lead no more",
                "n2 is registered in the store",
            ]
        );
    }

    #[test]
    fn a_standby_of_a_switchover() {
        let lines = told(vec![
            (0, scene(Some(("n2", 16)), &["n1", "n2", "n3"], standby(Some("n2")))),
            (100, scene(None, &["n1", "n2", "n3"], standby(None))),
            (140, scene(Some(("n3", 17)), &["n1", "n2", "n3"], standby(None))),
            (250, scene(Some(("n3", 17)), &["n1", "n2", "n3"], standby(Some("n3")))),
        ]);
        assert_eq!(
            lines,
            [
                "n2 has released the leader key (epoch 0x10); this node is a standby at 0/5000060 on timeline 3",
                "PostgreSQL does not stream from n2 any more; this node is a standby at 0/5000060 on timeline 3",
                "n3 holds the leader key (epoch 0x11), 40 ms after n2 was seen to lead no more",
                "PostgreSQL is a standby that streams from n3 on timeline 3, 110 ms after that node was seen to lead",
            ]
        );
    }

    #[test]
    fn the_old_primary_goes_down_and_comes_back() {
        let primary = || ServerScene::Primary { timeline: Timeline(3) };
        let lines = told(vec![
            (0, scene(Some(("n1", 16)), &["n1", "n2"], primary())),
            (10, scene(Some(("n1", 16)), &["n1", "n2"], ServerScene::Down)),
            (90, scene(Some(("n1", 16)), &["n1", "n2"], ServerScene::Silent)),
            (200, scene(Some(("n1", 16)), &["n1", "n2"], primary())),
        ]);
        assert_eq!(
            lines,
            ["PostgreSQL, which was a primary, is down", "PostgreSQL is a primary on timeline 3 and takes writes",]
        );
    }
}
