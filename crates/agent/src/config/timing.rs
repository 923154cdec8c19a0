//! The three times of the cluster: how long a lease lasts, how often a round is made, how long one request may take.

use std::time::Duration;

use super::place::{Problem, Problems};
use super::tree::Tree;

/// Who shares the cluster, which the defaults depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Company {
    /// Every registered member is a pgherd.
    pub all_pgherd: bool,
    /// The store is the one inside the agents.
    pub built_in_store: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub ttl: Duration,
    pub loop_wait: Duration,
    pub retry_timeout: Duration,
}

/// Patroni's defaults, in seconds.
const PATRONI: [u64; 3] = [30, 10, 10];
/// Below these a Patroni takes the least value in place of the written one; beside it, so do we.
const PATRONI_LEAST: [u64; 3] = [20, 1, 3];
/// The shortest lease that survives the stop time and a late renewal (design: epoch and permit).
const LEAST: [u64; 3] = [4, 1, 1];

impl Timing {
    /// pgherd's defaults, where nobody else has to agree.
    pub fn of_pgherd(company: Company) -> Timing {
        let milliseconds = if company.built_in_store { [3_000, 500, 1_000] } else { [8_000, 1_000, 3_000] };
        let [ttl, loop_wait, retry_timeout] = milliseconds.map(Duration::from_millis);
        Timing { ttl, loop_wait, retry_timeout }
    }

    /// The times that the dynamic configuration sets, brought into proportion in memory; the store keeps the user's.
    pub(super) fn read(tree: &Tree<'_>, company: Company, problems: &mut Problems) -> Timing {
        let keys = ["ttl", "loop_wait", "retry_timeout"];
        let written = keys.map(|key| tree.written(key).is_some().then(|| tree.count(key)));
        if written.iter().all(Option::is_none) && company.all_pgherd {
            return Timing::of_pgherd(company);
        }
        let least = if company.all_pgherd { LEAST } else { PATRONI_LEAST };
        let mut seconds = PATRONI;
        for index in 0..keys.len() {
            let Some(value) = written[index] else { continue };
            seconds[index] = value.max(least[index]);
            if value < least[index] {
                let text = format!("{value} s is too short; {} s is used", least[index]);
                problems.push(Problem::warning(keys[index], text));
            }
        }
        if seconds[0] < PATRONI_LEAST[0] {
            let text = format!(
                "{} s is less than a Patroni in this cluster would accept ({} s)",
                seconds[0], PATRONI_LEAST[0]
            );
            problems.push(Problem::warning("ttl", text));
        }
        let [ttl, loop_wait, retry_timeout] = proportioned(seconds, problems).map(Duration::from_secs);
        Timing { ttl, loop_wait, retry_timeout }
    }
}

/// One round and two requests must fit into a lease. Source: the contract's rule for these three.
fn proportioned([ttl, loop_wait, retry_timeout]: [u64; 3], problems: &mut Problems) -> [u64; 3] {
    if loop_wait.saturating_add(retry_timeout.saturating_mul(2)) <= ttl {
        return [ttl, loop_wait, retry_timeout];
    }
    let (new_loop_wait, new_retry_timeout) = if retry_timeout.saturating_mul(2).saturating_add(1) > ttl {
        (1, (ttl - 1) / 2)
    } else {
        (ttl - 2 * retry_timeout, retry_timeout)
    };
    let text = format!(
        "loop_wait ({loop_wait}) + 2 * retry_timeout ({retry_timeout}) is more than ttl ({ttl}); \
         loop_wait {new_loop_wait} and retry_timeout {new_retry_timeout} are used"
    );
    problems.push(Problem::warning("ttl", text));
    [ttl, new_loop_wait, new_retry_timeout]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const HERD: Company = Company { all_pgherd: true, built_in_store: false };
    const MIXED: Company = Company { all_pgherd: false, built_in_store: false };
    const BUILT_IN: Company = Company { all_pgherd: true, built_in_store: true };

    fn read(config: &Value, company: Company) -> ([u64; 3], String) {
        let mut problems = Problems::default();
        let timing = Timing::read(&Tree(config), company, &mut problems);
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).expect("a short time");
        ([timing.ttl, timing.loop_wait, timing.retry_timeout].map(milliseconds), problems.to_string())
    }

    #[test]
    fn the_times_of_the_cluster() {
        let short = "ttl: 8 s is less than a Patroni in this cluster would accept (20 s)";
        let cases = [
            (json!({}), HERD, [8_000, 1_000, 3_000], ""),
            (json!({}), BUILT_IN, [3_000, 500, 1_000], ""),
            (json!({}), MIXED, [30_000, 10_000, 10_000], ""),
            (json!({"ttl": 30}), HERD, [30_000, 10_000, 10_000], ""),
            (json!({"ttl": 8, "loop_wait": 1, "retry_timeout": 3}), HERD, [8_000, 1_000, 3_000], short),
            (
                json!({"ttl": 8, "loop_wait": 1, "retry_timeout": 3}),
                MIXED,
                [20_000, 1_000, 3_000],
                "ttl: 8 s is too short; 20 s is used",
            ),
            (
                json!({"ttl": 20}),
                HERD,
                [20_000, 1_000, 9_000],
                "ttl: loop_wait (10) + 2 * retry_timeout (10) is more than ttl (20); \
                 loop_wait 1 and retry_timeout 9 are used",
            ),
            (
                json!({"ttl": 25}),
                HERD,
                [25_000, 5_000, 10_000],
                "ttl: loop_wait (10) + 2 * retry_timeout (10) is more than ttl (25); \
                 loop_wait 5 and retry_timeout 10 are used",
            ),
            (
                json!({"ttl": 1, "loop_wait": 1, "retry_timeout": 1}),
                HERD,
                [4_000, 1_000, 1_000],
                "ttl: 1 s is too short; 4 s is used\n\
                 ttl: 4 s is less than a Patroni in this cluster would accept (20 s)",
            ),
            (
                json!({"ttl": 30, "loop_wait": i64::MAX, "retry_timeout": i64::MAX}),
                HERD,
                [30_000, 1_000, 14_000],
                "ttl: loop_wait (9223372036854775807) + 2 * retry_timeout (9223372036854775807) is more than ttl (30); \
                 loop_wait 1 and retry_timeout 14 are used",
            ),
        ];
        for (config, company, expected, problems) in cases {
            assert_eq!(read(&config, company), (expected, problems.to_owned()), "{config} {company:?}");
        }
    }
}
