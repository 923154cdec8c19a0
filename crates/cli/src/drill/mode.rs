//! Whom the demo's commits wait for while it is drilled: `--sync`.

use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::demo::cluster::{Member, Rest};
use crate::demo::state::State;

/// The demo's `synchronous_mode`. It stays so after the drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sync {
    /// Commits wait for nobody.
    Off,
    /// For one standby, which alone may take over.
    On,
    /// For any one of the standbys.
    Quorum,
}

const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// New names are in force for a second before they count.
const SETTLED_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Sets it and waits until as many standbys as possible are what it makes of them.
pub async fn set(mode: Sync, state: &State, rest: &Rest) -> anyhow::Result<()> {
    let value = match mode {
        Sync::Off => json!(null),
        Sync::On => json!(true),
        Sync::Quorum => json!("quorum"),
    };
    let Some(node) = state.nodes.first() else { bail!("the demo has no node") };
    let body = json!({ "synchronous_mode": value });
    let (status, text) = rest.patch(node.rest_port, "/config", &body, REQUEST_LIMIT).await?;
    if status != 200 {
        bail!("setting synchronous_mode was answered with {status}: {text}");
    }
    let end = Instant::now() + SETTLED_LIMIT;
    loop {
        let members = rest.members(node.rest_port).await.unwrap_or_default();
        if is_settled(mode, &members) {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("the standbys did not become what synchronous_mode asks for within {} s", SETTLED_LIMIT.as_secs());
        }
        sleep(POLL).await;
    }
}

fn is_settled(mode: Sync, members: &[Member]) -> bool {
    let standbys = members.iter().filter(|member| !member.is_leader()).count();
    let of = |role: &str| members.iter().filter(|member| member.role == role).count();
    let (sync, quorum) = (of("sync_standby"), of("quorum_standby"));
    standbys > 0
        && match mode {
            Sync::Off => sync + quorum == 0,
            Sync::On => sync == 1,
            Sync::Quorum => quorum == standbys,
        }
}
