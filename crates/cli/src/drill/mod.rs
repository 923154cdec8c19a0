//! `pgherd drill`: one fault on the running demo, and honest numbers of what its clients saw.
//!
//! Not here: the demo itself. The numbers are defined in `measure`, which is pure; the rest drives real processes.
//! Tested by `tests/it/cluster/faults.rs` and `drill.rs` beside it.

mod fault;
mod key;
mod lease;
mod measure;
mod mode;
mod outcome;
mod recovery;
mod report;
mod run;
mod writers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use crate::demo;
use crate::demo::cluster::Rest;
use crate::demo::progress::Progress;
use crate::demo::state::{State, StateError};
use crate::interrupts::Interrupts;
use fault::Fault;
use outcome::Outcome;

const ABOUT_NUMBERS: &str = "\
Writers insert one row per transaction through the entrypoint and connect again 10 ms after an error; one more goes to \
the primary's own port and stays with that server to the end. All times are read from one clock, the drill's own; an \
insert is acknowledged when its answer has been read.

  Outage          the longest time between two acknowledged inserts, over all writers through the entrypoint
  Worst client    the longest time that one of these writers by itself had no acknowledged insert
  Client errors   connections and inserts of these writers that failed, or had no answer for a second at the end
  Rows lost       rows acknowledged to them that the primary at the end does not have
  Overlap         the time in which two servers acknowledged writes: from the first acknowledgement of the new primary \
to the last one of the old, the direct client's included. Each server says in its answer which one it is. Read at the \
client, so exact to about one round trip (below 1 ms here)
  Leader changes  promotions (another server, or the same on a new timeline), or a leader key that was taken anew
  Lease           the session time-out that the store had granted to the leader
  Key freed       from the fault until the store had freed the old leader's key; - if it never did

A row that got an error or no answer may be there or not; it counts as neither. After the fault the drill heals what it \
broke and waits until all members run and every writer is served. It ends with 1 if a promise was broken: two writers, rows \
lost (the direct client's included) after an orderly stop, without a change of server or in synchronous mode, a leader change where none should \
be, a writer that was not served again, a process that ended and was not to. Ctrl-C, SIGTERM and SIGHUP heal the fault, too; \
a second one ends the drill at once.

On one machine a blip of the network to the store is made by stopping the store (SIGSTOP) for a second: its clients get \
no answers, as in a partition, but their requests are not lost, only late.";

/// Cause a fault in the running demo and measure what clients notice.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = ABOUT_NUMBERS)]
pub struct Arguments {
    /// What happens, to the primary's node unless it says otherwise.
    #[arg(value_enum)]
    fault: Fault,
    /// How long to go on writing after the recovery, before the fault is healed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=600))]
    seconds: u64,
    /// Clients that write through the entrypoint.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    writers: u8,
    /// How often to do it; with several runs the median is shown, too.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Set the demo's synchronous_mode first; without it, the demo is taken as it is.
    #[arg(long, value_enum, value_name = "MODE")]
    sync: Option<mode::Sync>,
    /// Print the runs as JSON.
    #[arg(long)]
    json: bool,
    /// The directory of the demo, if it is not the default one.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let directory = demo::directory(arguments.directory.as_deref())?;
    let mut state = State::load(&directory)?;
    if !state.is_running() {
        return Err(StateError::NoDemo(directory).into());
    }
    state.check_complete()?;
    let _alone = lock(&state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcomes = runtime.block_on(all_runs(&arguments, &mut state))?;
    match arguments.json {
        true => println!("{}", json(&outcomes)?),
        false => print!("{}", report::text(arguments.fault, &outcomes)),
    }
    let broken = outcomes.iter().any(|outcome| !outcome.broken_promises().is_empty());
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn all_runs(arguments: &Arguments, state: &mut State) -> anyhow::Result<Vec<Outcome>> {
    let rest = Rest::new()?;
    let progress = Progress::new();
    let mut interrupts = Interrupts::new()?;
    if let Some(mode) = arguments.sync {
        progress.doing("setting synchronous_mode");
        interrupts.or(mode::set(mode, state, &rest)).await?;
    }
    let synchronous = rest.is_synchronous(state).await?;
    let mut outcomes = Vec::new();
    for number in 1..=arguments.runs {
        let plan = run::Plan {
            fault: arguments.fault.concrete()?,
            synchronous,
            writers: arguments.writers,
            watch: Duration::from_secs(arguments.seconds),
        };
        let outcome = run::run(plan, state, &rest, &mut interrupts, &progress).await;
        outcomes.push(outcome.with_context(|| format!("run {number} of drill {} failed", plan.fault.name()))?);
    }
    Ok(outcomes)
}

/// Two drills at once would measure each other. The lock ends with the process.
fn lock(state: &State) -> anyhow::Result<std::fs::File> {
    let path = state.directory.join("drill.lock");
    let file = std::fs::File::create(&path).with_context(|| format!("opening {} failed", path.display()))?;
    let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    locked.context("another drill is running on this demo; wait for its end")?;
    Ok(file)
}

fn json(outcomes: &[Outcome]) -> anyhow::Result<String> {
    let median = report::median_of(outcomes);
    let summary = serde_json::json!({
        "outage_ms": median.outage_ms,
        "worst_client_ms": median.worst_client_ms,
        "client_errors": median.client_errors,
        "rows_acknowledged": median.rows_acknowledged,
        "rows_lost": median.rows_lost,
        "overlap_ms": median.overlap_ms,
        "leader_changes": median.leader_changes,
        "lease_ms": median.lease_ms,
        "key_freed_ms": median.key_freed_ms,
    });
    Ok(serde_json::to_string_pretty(&serde_json::json!({ "runs": outcomes, "median": summary }))?)
}
