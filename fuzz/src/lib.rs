//! The readers of bytes that come from outside, of agent, entrypoint and stores, by name: nothing that arrives may panic a process.
//!
//! The crates name their own (`fuzz.rs` in each). Tested below with broken examples, in every run of the tests; `scripts/fuzz.sh NAME` lets LLVM's
//! fuzzer look for inputs that reach new code, for as long as one likes.

use pgherd_dcs::fuzz::Target;

pub fn targets() -> Vec<Target> {
    let all = [pgherd_agent::fuzz::TARGETS, pgherd_dcs::fuzz::TARGETS, pgherd_proxy::fuzz::TARGETS];
    all.into_iter().flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    /// Of each target; all together take some seconds.
    const INPUTS: usize = 3_000;

    /// What readers stumble over.
    const MARKS: [&[u8]; 24] = [
        b"\0",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\x80\0\0\0",
        b"-1",
        b"0",
        b"18446744073709551616",
        b"1e999",
        b"\"",
        b"'",
        b"\\",
        b"{",
        b"[",
        b"}",
        b"\n",
        b"\t",
        b"  ",
        b":",
        b"%",
        b"\xc3\x28",
        b"\xf0\x9f\x98\x80",
        b"null",
        b"&a *a",
        b"<<:",
    ];

    fn range(random: &mut fastrand::Rng, length: usize) -> std::ops::Range<usize> {
        let (one, other) = (random.usize(..=length), random.usize(..=length));
        one.min(other)..one.max(other)
    }

    fn broken(random: &mut fastrand::Rng, examples: &[&str]) -> Vec<u8> {
        let pick =
            |random: &mut fastrand::Rng| random.choice(examples).map_or(Vec::new(), |text| text.as_bytes().to_vec());
        let mut bytes = pick(random);
        for _ in 0..random.usize(1..6) {
            let place = range(random, bytes.len());
            match random.u8(..6) {
                0 => bytes.truncate(place.start),
                1 => drop(bytes.drain(place)),
                2 => {
                    let again = bytes[place.clone()].to_vec();
                    bytes.splice(place.end..place.end, again);
                }
                3 => {
                    let other = pick(random);
                    let part = range(random, other.len());
                    bytes.splice(place, other[part].iter().copied());
                }
                4 => {
                    let mark = random.choice(MARKS).unwrap_or_default();
                    bytes.splice(place.start..place.start, mark.iter().copied());
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(place.start) {
                        *byte = random.u8(..);
                    }
                }
            }
        }
        bytes
    }

    #[test]
    fn no_reader_panics_on_broken_examples() {
        let seed = std::env::var("PGHERD_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        let mut random = fastrand::Rng::with_seed(seed);
        for target in targets() {
            for example in target.examples {
                (target.read)(example.as_bytes());
            }
            for _ in 0..INPUTS {
                let input = broken(&mut random, target.examples);
                let read = catch_unwind(|| (target.read)(&input));
                let shown = String::from_utf8_lossy(&input);
                assert!(
                    read.is_ok(),
                    "{} panics (PGHERD_TEST_SEED={seed}) on {input:?}, which is {shown:?}",
                    target.name
                );
            }
        }
    }

    #[test]
    fn every_target_has_a_name_of_its_own_and_an_example() {
        let targets = targets();
        let mut names: Vec<&str> = targets.iter().map(|target| target.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), targets.len());
        assert!(targets.iter().all(|target| !target.examples.is_empty()));
    }
}
