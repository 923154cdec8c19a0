//! Whether PostgreSQL gets a guard: `guard: {mode: ...}` in the configuration, or `PGHERD_GUARD`.

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
