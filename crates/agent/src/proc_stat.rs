//! What `/proc/PID/stat` says of a process.
//!
//! It is asked instead of getpgid(2) and getsid(2): those answer 0 for a group or a session that was made outside of our PID namespace, as in a
//! container that is entered from outside, and `rustix` takes that for impossible.

use rustix::process::Pid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    state: char,
    /// These three are `None` where the process that they name is outside of our PID namespace.
    pub parent: Option<Pid>,
    pub group: Option<Pid>,
    pub session: Option<Pid>,
}

impl Stat {
    /// `None` where there is no such process.
    pub fn of(pid: Pid) -> Option<Stat> {
        parse(&std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?)
    }

    /// Only its number is left, until its parent has asked for its exit code.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

pub(crate) fn parse(stat: &str) -> Option<Stat> {
    // The name is in parentheses and may itself hold some: count from the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let mut pid =
        || fields.next()?.parse().ok().map(|number: i32| (number > 0).then(|| Pid::from_raw(number)).flatten());
    Some(Stat { state, parent: pid()?, group: pid()?, session: pid()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything_and_a_group_may_be_outside() {
        let pid = Pid::from_raw;
        let some = |state, parent, group, session| Some(Stat { state, parent, group, session });
        for (text, expected) in [
            ("7 (sleep) S 1 7 5 0 -1 4194560", some('S', pid(1), pid(7), pid(5))),
            ("7 (a) Z (b)) R 4 7 7 0", some('R', pid(4), pid(7), pid(7))),
            ("7 (sh) Z 0 0 0 0", some('Z', None, None, None)),
            ("7 (sh) S -1 7 x 0", None),
            ("7 (sh) S 1", None),
            ("7 sh S 1 7 7", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        assert_eq!(parse("7 (sh) Z 1 7 7").map(|stat| stat.has_ended()), Some(true));
        assert_eq!(Stat::of(rustix::process::getpid()).map(|stat| stat.has_ended()), Some(false));
    }
}
