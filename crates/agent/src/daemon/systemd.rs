//! What systemd is told where it has started the agent with `Type=notify`: that the agent serves, reads its configuration again or stops, and what
//! it does. With `WatchdogSec`, also that its rounds go on: systemd kills an agent of which it hears nothing and starts another, which finds
//! PostgreSQL as it was (`KillMode=process`).
//!
//! Nobody waits for systemd: a thread of its own tells it, and what would be out of date by the time that it can be told is left out. Without systemd there is no such thread.
//! Tested in `tests/it/cluster/systemd.rs`; the unit is `deploy/systemd/pgherd.service`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use pgherd_dcs::boot_now;
use pgherd_ha::Boot;
use sd_notify::NotifyState;

/// So many notices wait for a systemd that is busy before what will be out of date by then is left out.
const WAITING: usize = 16;

/// Characters of a line for `systemctl status`.
const LONGEST_STATUS: usize = 300;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Notice {
    Ready,
    Reloading,
    Stopping,
    Alive,
    /// A line for `systemctl status`.
    Doing(String),
}

/// The way to systemd, if there is one.
#[derive(Debug)]
pub struct Systemd {
    notices: Option<Sender<Notice>>,
    /// How many are on their way.
    waiting: Arc<AtomicUsize>,
    /// Half of `WatchdogSec`, and when systemd last heard of us.
    heartbeat: Option<(Duration, Boot)>,
}

impl Systemd {
    pub fn connect() -> Systemd {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Systemd { notices: None, waiting: Arc::default(), heartbeat: None };
        }
        let (notices, queue) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let sent = waiting.clone();
        let thread = std::thread::Builder::new().name("systemd".into());
        let notices = match thread.spawn(move || pass_on(&queue, &sent)) {
            Ok(_) => Some(notices),
            Err(error) => {
                tracing::warn!("systemd cannot be told anything: no thread for it: {error}");
                None
            }
        };
        let heartbeat = sd_notify::watchdog_enabled().map(|limit| (limit / 2, boot_now()));
        Systemd { notices, waiting, heartbeat }
    }

    /// The agent serves.
    pub fn ready(&mut self) {
        self.alive();
        self.tell(Notice::Ready);
    }

    /// [`ready`](Self::ready) ends it.
    pub fn reloading(&self) {
        self.tell(Notice::Reloading);
    }

    pub fn stopping(&self) {
        self.tell(Notice::Stopping);
    }

    pub fn doing(&self, text: &str) {
        self.tell(Notice::Doing(one_line(text)));
    }

    /// A round is done.
    pub fn alive(&mut self) {
        if let Some((_, told)) = &mut self.heartbeat {
            *told = boot_now();
            self.tell(Notice::Alive);
        }
    }

    /// By when the next round must be done.
    pub fn due(&self) -> Boot {
        self.heartbeat.map_or(Boot::NEVER, |(pause, told)| told + pause)
    }

    fn tell(&self, notice: Notice) {
        let Some(notices) = &self.notices else { return };
        let passes = matches!(notice, Notice::Alive | Notice::Doing(_));
        if passes && self.waiting.load(Ordering::Relaxed) >= WAITING {
            return tracing::debug!("systemd is busy; left out: {notice:?}");
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // Without its thread nobody hears it.
        let _ = notices.send(notice);
    }
}

/// Names of members and reasons come from outside, and a line feed would begin another assignment.
fn one_line(text: &str) -> String {
    text.chars().take(LONGEST_STATUS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Until the daemon is gone.
fn pass_on(queue: &Receiver<Notice>, waiting: &AtomicUsize) {
    while let Ok(notice) = queue.recv() {
        waiting.fetch_sub(1, Ordering::Relaxed);
        let told = match &notice {
            Notice::Ready => sd_notify::notify(&[NotifyState::Ready]),
            // By the time systemd knows which reload a `READY=1` ends.
            Notice::Reloading => {
                NotifyState::monotonic_usec_now().and_then(|time| sd_notify::notify(&[NotifyState::Reloading, time]))
            }
            Notice::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
            Notice::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
            Notice::Doing(text) => sd_notify::notify(&[NotifyState::Status(text)]),
        };
        if let Err(error) = told {
            tracing::debug!("systemd could not be told {notice:?}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_of_a_bounded_length() {
        assert_eq!(one_line("following a\nMAINPID=1\u{0}"), "following a MAINPID=1 ");
        assert_eq!(one_line(&"ü".repeat(1000)).chars().count(), LONGEST_STATUS);
    }
}
