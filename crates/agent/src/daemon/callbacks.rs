//! Running the user's callbacks: what the decision wants told (`pgherd_ha::Callback`), and every reload. Source: Patroni's behaviour contract,
//! section 14.
//!
//! Nobody waits for one. A newer call ends the one that still runs, with all that it has started: what it would tell is not so any more. Reloads
//! have a place of their own, so that they end no other.

use std::collections::BTreeMap;

use pgherd_ha::{Callback, CallbackEvent};

use crate::user_command::{Group, Running, UserCommand};

#[derive(Debug, Default)]
pub struct Callbacks {
    event: Group,
    reload: Group,
}

impl Callbacks {
    /// Tells the command of this event, if there is one. It goes on when the agent ends.
    pub fn call(&mut self, commands: &BTreeMap<String, UserCommand>, callback: Callback, scope: &str) {
        let (event, role) = (callback.event.name(), callback.role.as_str());
        let Some(command) = commands.get(event) else { return };
        let before = match callback.event {
            CallbackEvent::Reload => &mut self.reload,
            _ => &mut self.event,
        };
        before.kill();
        let command = command.with([event, role, scope].map(str::to_owned));
        tracing::info!("running the callback {event} as {role}: {command}");
        match command.start(&[]) {
            Ok(running) => {
                *before = running.group();
                tokio::spawn(reap(running, event));
            }
            Err(error) => tracing::warn!("the callback {event} told nobody: {error}"),
        }
    }
}

async fn reap(mut running: Running, event: &'static str) {
    match running.ended().await {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!("the callback {event} has failed ({status})"),
        Err(error) => tracing::warn!("how the callback {event} has ended is unknown: {error}"),
    }
}
