//! What repeats: the same complaint, round after round, is said when it is new, and now and then while it lasts.

use pgherd_ha::Boot;
use std::time::Duration;

/// A complaint that lasts is repeated after this time: often enough for whoever has just opened the log, and rarely enough that it buries
/// nothing.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// More than can be wrong with a node at once; beyond that the oldest is said again too early.
const KEPT: usize = 16;

/// What was said lately.
#[derive(Debug, Default)]
pub struct Complaints {
    said: Vec<(String, Boot)>,
}

impl Complaints {
    /// Whether to say it now. Numbers make no difference: the same failure has another file, process or time in it each time.
    pub fn is_due(&mut self, text: &str, now: Boot) -> bool {
        let text: String = text.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        self.said.retain(|(_, at)| now.since(*at) < SAY_AGAIN);
        if self.said.iter().any(|(said, _)| *said == text) {
            return false;
        }
        if self.said.len() == KEPT {
            self.said.remove(0);
        }
        self.said.push((text, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_said_when_it_is_new_and_again_after_a_while() {
        let mut complaints = Complaints::default();
        let mut due = |text: &str, second: u64| complaints.is_due(text, Boot(Duration::from_secs(second)));
        assert!(due("cannot write file 1", 1));
        assert!(!due("cannot write file 2", 2));
        assert!(due("cannot read file 2", 3));
        assert!(!due("cannot write file 3", 30));
        assert!(due("cannot write file 4", 31));
    }
}
