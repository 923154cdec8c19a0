//! Running the user's callbacks: what the decision wants told (`pgherd_ha::Callback`), and every reload. Source: Patroni's behaviour contract,
//! section 14.
//!
//! Nobody waits for one. A newer call ends the one that still runs, with all that it has started: what it would tell is not so any more. Reloads
//! have a place of their own, so that they end no other.

use std::collections::BTreeMap;
use std::path::Path;

use pgherd_ha::{Callback, CallbackEvent};

use crate::guard::Process;
use crate::survivors::{self, Purpose};
use crate::user_command::{Group, Running, UserCommand};

#[derive(Debug, Default)]
pub struct Callbacks {
    event: Group,
    reload: Group,
}

impl Callbacks {
    /// With those of a former agent that still run. They go on, and a newer one ends them as it would have there.
    pub fn take_over(data_dir: &Path) -> Callbacks {
        let mut callbacks = Callbacks::default();
        let places = [(&mut callbacks.event, Purpose::Event), (&mut callbacks.reload, Purpose::Reload)];
        for (place, purpose) in places {
            let Some(pid) = survivors::callback(data_dir, purpose) else { continue };
            match Process::hold(pid) {
                Ok(process) => {
                    tracing::info!("a callback of the agent before still runs (process {})", pid.as_raw_pid());
                    let group = Group::of(&process);
                    *place = group.clone();
                    tokio::spawn(async move {
                        process.exit().await;
                        group.forget();
                    });
                }
                Err(error) => tracing::debug!("{error}"),
            }
        }
        callbacks
    }

    /// Tells the command of this event, if there is one. It goes on when the agent ends.
    pub fn call(&mut self, commands: &BTreeMap<String, UserCommand>, callback: Callback, scope: &str, data_dir: &Path) {
        let (event, role) = (callback.event.name(), callback.role.as_str());
        let Some(command) = commands.get(event) else { return };
        let (before, purpose) = match callback.event {
            CallbackEvent::Reload => (&mut self.reload, Purpose::Reload),
            _ => (&mut self.event, Purpose::Event),
        };
        before.kill();
        let command = command.with([event, role, scope].map(str::to_owned));
        tracing::info!("running the callback {event} as {role}: {command}");
        match command.start(data_dir, purpose, &[]) {
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
