//! The difference between two texts as a unified diff, line for line the one that Patroni's console prints.
//!
//! There are many right diffs of two texts. This one comes from the longest run of lines that both have, then the longest
//! in what is left before and after it, and so on (Ratcliff and Obershelp; Python's difflib). Pure. Tested below against
//! literal output.

use std::collections::HashMap;
use std::ops::Range;

/// Lines that are shown before and after a change.
const AROUND: usize = 3;

/// From this length on, lines that are found everywhere are no anchors any more: there are too many ways to match them.
const LONG: usize = 200;

/// Two header lines and the changes; nothing where the texts are the same.
pub fn unified(before: &str, after: &str) -> String {
    let (old, new) = (lines(before), lines(after));
    let groups = groups(&runs(&old, &new));
    if groups.is_empty() {
        return String::new();
    }
    let mut text = "--- \n+++ \n".to_owned();
    for group in &groups {
        push_group(&mut text, group, &old, &new);
    }
    text
}

/// A stretch of both texts, the same in both or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    same: bool,
    old: Range<usize>,
    new: Range<usize>,
}

fn lines(text: &str) -> Vec<&str> {
    text.trim_end_matches('\n').split('\n').collect()
}

/// The texts from beginning to end, same and changed in turn.
fn runs(old: &[&str], new: &[&str]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let (mut old_at, mut new_at) = (0, 0);
    let end = Run { same: true, old: old.len()..old.len(), new: new.len()..new.len() };
    for matching in matches(old, new).into_iter().chain([end]) {
        if old_at < matching.old.start || new_at < matching.new.start {
            runs.push(Run { same: false, old: old_at..matching.old.start, new: new_at..matching.new.start });
        }
        (old_at, new_at) = (matching.old.end, matching.new.end);
        match runs.last_mut() {
            Some(last) if last.same => (last.old.end, last.new.end) = (old_at, new_at),
            _ if matching.old.is_empty() => {}
            _ => runs.push(matching),
        }
    }
    runs
}

/// In order.
fn matches(old: &[&str], new: &[&str]) -> Vec<Run> {
    let places = places(new);
    let mut found = Vec::new();
    // The depth of a recursion would depend on the texts.
    let mut open = vec![(0..old.len(), 0..new.len())];
    while let Some((in_old, in_new)) = open.pop() {
        let longest = longest(old, new, &places, in_old.clone(), in_new.clone());
        if longest.old.is_empty() {
            continue;
        }
        open.push((in_old.start..longest.old.start, in_new.start..longest.new.start));
        open.push((longest.old.end..in_old.end, longest.new.end..in_new.end));
        found.push(longest);
    }
    found.sort_by_key(|run| run.old.start);
    found
}

/// Where each line stands, but for those that are found everywhere.
fn places<'a>(text: &[&'a str]) -> HashMap<&'a str, Vec<usize>> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, line) in text.iter().enumerate() {
        places.entry(line).or_default().push(at);
    }
    if text.len() >= LONG {
        places.retain(|_, found| found.len() <= text.len() / 100 + 1);
    }
    places
}

/// The longest run within these parts; of several, the first in `old`, then in `new`.
fn longest(
    old: &[&str],
    new: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    in_old: Range<usize>,
    in_new: Range<usize>,
) -> Run {
    let mut best = (in_old.start, in_new.start, 0);
    // How long the run is that ends at a line of `new` and at the line of `old` that was last looked at.
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for old_at in in_old.clone() {
        let mut next = HashMap::new();
        let found = places.get(old[old_at]).into_iter().flatten().copied();
        for new_at in found.filter(|new_at| in_new.contains(new_at)) {
            let before = new_at.checked_sub(1).and_then(|before| lengths.get(&before));
            let length = before.map_or(1, |length| length + 1);
            next.insert(new_at, length);
            if length > best.2 {
                best = (old_at + 1 - length, new_at + 1 - length, length);
            }
        }
        lengths = next;
    }
    let (mut old_run, mut new_run) = (best.0..best.0 + best.2, best.1..best.1 + best.2);
    // Lines that are no anchors belong to it all the same.
    while old_run.start > in_old.start
        && new_run.start > in_new.start
        && old[old_run.start - 1] == new[new_run.start - 1]
    {
        (old_run.start, new_run.start) = (old_run.start - 1, new_run.start - 1);
    }
    while old_run.end < in_old.end && new_run.end < in_new.end && old[old_run.end] == new[new_run.end] {
        (old_run.end, new_run.end) = (old_run.end + 1, new_run.end + 1);
    }
    Run { same: true, old: old_run, new: new_run }
}

/// Changes with what is around them; those that are near each other stand in one group.
fn groups(runs: &[Run]) -> Vec<Vec<Run>> {
    let mut groups = Vec::new();
    let mut group: Vec<Run> = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        if !run.same {
            group.push(run.clone());
            continue;
        }
        let (first, last) = (at == 0, at + 1 == runs.len());
        let length = run.old.len();
        if !first && !last && length <= 2 * AROUND {
            group.push(run.clone());
            continue;
        }
        let shown = length.min(AROUND);
        if !first {
            group.push(Run {
                same: true,
                old: run.old.start..run.old.start + shown,
                new: run.new.start..run.new.start + shown,
            });
            groups.push(std::mem::take(&mut group));
        }
        if !last {
            group.push(Run {
                same: true,
                old: run.old.end - shown..run.old.end,
                new: run.new.end - shown..run.new.end,
            });
        }
    }
    if group.iter().any(|run| !run.same) {
        groups.push(group);
    }
    groups
}

fn push_group(text: &mut String, group: &[Run], old: &[&str], new: &[&str]) {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
    let (in_old, in_new) = (span(first.old.start..last.old.end), span(first.new.start..last.new.end));
    text.push_str(&format!("@@ -{in_old} +{in_new} @@\n"));
    let mut push = |sign: char, lines: &[&str]| lines.iter().for_each(|line| text.push_str(&format!("{sign}{line}\n")));
    for run in group {
        if run.same {
            push(' ', &old[run.old.clone()]);
        } else {
            push('-', &old[run.old.clone()]);
            push('+', &new[run.new.clone()]);
        }
    }
}

/// Lines count from 1; an empty span is named by the line before it.
fn span(lines: Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => format!("{}", lines.start + 1),
        length => format!("{},{length}", lines.start + 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts of one letter a line; the expected text is what Python's difflib wrote.
    fn check(before: &str, after: &str, expected: &[&str]) {
        let lines = |text: &str| text.chars().map(|c| format!("{c}\n")).collect::<String>();
        let printed = unified(&lines(before), &lines(after));
        assert_eq!(printed.lines().collect::<Vec<_>>(), expected, "{before} {after}");
    }

    #[test]
    fn changes_with_what_is_around_them() {
        check("abc", "abc", &[]);
        check("a", "b", &["--- ", "+++ ", "@@ -1 +1 @@", "-a", "+b"]);
        check(
            "abcdefghi",
            "abcdeXfghi",
            &["--- ", "+++ ", "@@ -3,6 +3,7 @@", " c", " d", " e", "+X", " f", " g", " h"],
        );
        check("abc", "Xabc", &["--- ", "+++ ", "@@ -1,3 +1,4 @@", "+X", " a", " b", " c"]);
    }

    proptest! {
        /// Applied to the old text, the diff gives the new one.
        #[test]
        fn a_diff_leads_from_the_one_to_the_other(before in "[abc]{1,30}", after in "[abc]{1,30}") {
            let split = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
            let (old, new) = (split(&before), split(&after));
            let (old, new): (Vec<&str>, Vec<&str>) =
                (old.iter().map(String::as_str).collect(), new.iter().map(String::as_str).collect());
            let runs = runs(&old, &new);
            let mut made = Vec::new();
            for run in &runs {
                if run.same {
                    prop_assert_eq!(&old[run.old.clone()], &new[run.new.clone()]);
                }
                made.extend_from_slice(&new[run.new.clone()]);
            }
            prop_assert_eq!(made, new);
            prop_assert!(runs.windows(2).all(|pair| pair[0].same != pair[1].same));
        }
    }
}
