//! Whether PostgreSQL gets a guard: `guard: {mode: ...}` in the configuration, or `PGHERD_GUARD`.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuardMode {
    /// No guard, no PostgreSQL.
    Required,
    /// A guard; if it cannot be had, PostgreSQL runs without one and never leads.
    #[default]
    Automatic,
    /// PostgreSQL is started directly, as other agents do: nothing ends the writer of an agent that hangs.
    Off,
}

impl GuardMode {
    pub const ALL: [GuardMode; 3] = [GuardMode::Required, GuardMode::Automatic, GuardMode::Off];

    pub fn as_str(self) -> &'static str {
        match self {
            GuardMode::Required => "required",
            GuardMode::Automatic => "automatic",
            GuardMode::Off => "off",
        }
    }
}

impl fmt::Display for GuardMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a mode of the guard (expected `required`, `automatic` or `off`)")]
pub struct UnknownGuardMode(pub String);

impl FromStr for GuardMode {
    type Err = UnknownGuardMode;

    fn from_str(text: &str) -> Result<Self, UnknownGuardMode> {
        let known = GuardMode::ALL.into_iter().find(|mode| mode.as_str().eq_ignore_ascii_case(text.trim()));
        known.ok_or_else(|| UnknownGuardMode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_they_are_written() {
        for mode in GuardMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!(" Required ".parse(), Ok(GuardMode::Required));
        assert!("on".parse::<GuardMode>().is_err());
    }
}
