//! HAProxy's counter of good and bad checks: when a server goes up and down, and when it is asked next.
//!
//! One difference: HAProxy takes a server as up before the first answer; here it is unknown until then, and clients
//! are held. The first answer decides alone, as it does in HAProxy.

use std::time::Duration;

use pgherd_ha::Boot;

use crate::config::Check;

/// The state of one checked server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Unknown,
    Up,
    Down,
}

/// The counter: up from `rise` on, full at `rise + fall - 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    rise: u32,
    fall: u32,
    count: u32,
    status: Status,
    /// Since when the status is what it is.
    pub since: Boot,
    /// Checks that failed while the server was up.
    pub failed: u64,
    /// Times that it went down.
    pub times_down: u64,
    /// Time spent down before `since`.
    downtime: Duration,
}

impl Health {
    pub fn new(check: &Check, now: Boot) -> Health {
        Health {
            rise: check.rise.max(1),
            fall: check.fall.max(1),
            count: 0,
            status: Status::Unknown,
            since: now,
            failed: 0,
            times_down: 0,
            downtime: Duration::ZERO,
        }
    }

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn downtime(&self, now: Boot) -> Duration {
        let current = if self.status == Status::Down { now.since(self.since) } else { Duration::ZERO };
        self.downtime + current
    }

    /// Counts the answer of one check.
    pub fn on_check(&mut self, passed: bool, now: Boot) {
        let full = self.rise + self.fall - 1;
        match (self.status, passed) {
            (Status::Unknown, true) => self.become_(Status::Up, full, now),
            (Status::Unknown, false) => self.become_(Status::Down, 0, now),
            (Status::Up, true) => self.count = full.min(self.count + 1),
            (Status::Up, false) => {
                self.failed += 1;
                if self.count > self.rise {
                    self.count -= 1;
                } else {
                    self.times_down += 1;
                    self.become_(Status::Down, 0, now);
                }
            }
            (Status::Down, true) if self.count + 1 >= self.rise => self.become_(Status::Up, full, now),
            (Status::Down, true) => self.count += 1,
            (Status::Down, false) => self.count = 0,
        }
        // As HAProxy: one good check while going down makes the server whole again.
        if self.status == Status::Up && passed {
            self.count = full;
        }
    }

    fn become_(&mut self, status: Status, count: u32, now: Boot) {
        if self.status == Status::Down {
            self.downtime += now.since(self.since);
        }
        (self.status, self.count, self.since) = (status, count, now);
    }

    /// The time until the next check.
    pub fn interval(&self, check: &Check) -> Duration {
        let full = self.rise + self.fall - 1;
        match self.status {
            Status::Up if self.count == full => check.inter,
            Status::Down if self.count == 0 => check.downinter.unwrap_or(check.inter),
            _ => check.fastinter.unwrap_or(check.inter),
        }
    }

    /// HAProxy's words: `UP`, `UP 2/3`, `DOWN`, `DOWN 1/2`.
    pub fn words(&self) -> String {
        let full = self.rise + self.fall - 1;
        match self.status {
            Status::Unknown => "INI".into(),
            Status::Up if self.count == full => "UP".into(),
            Status::Up => format!("UP {}/{}", self.count + 1 - self.rise, self.fall),
            Status::Down if self.count == 0 => "DOWN".into(),
            Status::Down => format!("DOWN {}/{}", self.count, self.rise),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(rise, fall, answers, words after each)`
    #[test]
    fn servers_rise_and_fall_as_in_haproxy() {
        for (rise, fall, answers, expected) in [
            (2, 3, "+---", "UP,UP 2/3,UP 1/3,DOWN"),
            (2, 3, "+--+---", "UP,UP 2/3,UP 1/3,UP,UP 2/3,UP 1/3,DOWN"),
            (2, 3, "-++", "DOWN,DOWN 1/2,UP"),
            (2, 3, "-+-++", "DOWN,DOWN 1/2,DOWN,DOWN 1/2,UP"),
            (1, 1, "+-+", "UP,DOWN,UP"),
        ] {
            let check = check(rise, fall);
            let mut health = Health::new(&check, Boot::ZERO);
            let words: Vec<String> = answers
                .chars()
                .map(|answer| {
                    health.on_check(answer == '+', Boot::ZERO);
                    health.words()
                })
                .collect();
            assert_eq!(words.join(","), expected, "rise {rise} fall {fall} {answers}");
        }
    }

    #[test]
    fn the_interval_follows_the_state() {
        let check = check(2, 2);
        let mut health = Health::new(&check, Boot::ZERO);
        let mut after = |passed| {
            health.on_check(passed, Boot::ZERO);
            health.interval(&check).as_secs()
        };
        assert_eq!([after(true), after(false), after(false), after(true), after(true)], [3, 1, 9, 1, 3]);
    }

    #[test]
    fn downtime_counts_only_while_down() {
        let second = |n| Boot(Duration::from_secs(n));
        let mut health = Health::new(&check(1, 1), second(0));
        health.on_check(true, second(1));
        health.on_check(false, second(2));
        assert_eq!(health.downtime(second(5)), Duration::from_secs(3));
        health.on_check(true, second(6));
        assert_eq!(health.downtime(second(9)), Duration::from_secs(4));
    }

    fn check(rise: u32, fall: u32) -> Check {
        let seconds = |n| Some(Duration::from_secs(n));
        Check {
            tls: None,
            host: "h".into(),
            port: 1,
            inter: Duration::from_secs(3),
            fastinter: seconds(1),
            downinter: seconds(9),
            rise,
            fall,
        }
    }
}
