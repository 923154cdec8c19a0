//! The operator's commands: they read the store and ask the members' REST APIs, with the output and the exit codes of
//! Patroni's console. One file a command.
//!
//! Not here: the arguments of the whole program (`crate::arguments`). Exit codes: 0 done (also where a member refused and
//! its answer was printed), 1 an error, 2 wrong usage.

pub mod cluster_role;
mod config_change;
pub mod context;
mod diff;
pub mod document;
pub mod dsn;
pub mod edit_config;
mod editor;
pub mod flush;
pub mod history;
mod json;
pub mod list;
mod members;
mod pager;
mod password_file;
pub mod pause;
pub mod query;
pub mod reinit;
pub mod reload;
pub mod remove;
mod rest;
pub mod restart;
mod restart_order;
mod schedule;
mod selection;
mod settings;
pub mod show_config;
pub mod sql;
mod sql_text;
pub mod switchover;
pub mod table;
pub mod terminal;
pub mod topology;
pub mod version;
pub mod yaml;
mod yaml_scalar;

#[cfg(test)]
mod cluster_role_tests;
#[cfg(test)]
mod edit_config_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod list_tests;
#[cfg(test)]
mod orders_tests;
#[cfg(test)]
mod pause_tests;
#[cfg(test)]
mod switchover_tests;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

use self::cluster_role::{DemoteArguments, PromoteArguments};
use self::context::{Access, Context};
use self::dsn::DsnArguments;
use self::edit_config::EditConfigArguments;
use self::flush::FlushArguments;
use self::history::HistoryArguments;
use self::list::ListArguments;
use self::pause::PauseArguments;
use self::query::QueryArguments;
use self::reinit::ReinitArguments;
use self::reload::ReloadArguments;
use self::remove::RemoveArguments;
use self::restart::RestartArguments;
use self::show_config::ShowConfigArguments;
use self::switchover::{FailoverArguments, SwitchoverArguments};
use self::terminal::Aborted;
use self::topology::TopologyArguments;
use self::version::VersionArguments;
use crate::arguments::Program;

#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Show the members of a cluster
    List(ListArguments),
    /// Show the members as a tree of who replicates from whom
    Topology(TopologyArguments),
    /// Show how each timeline ended
    History(HistoryArguments),
    /// Show the dynamic configuration
    ShowConfig(ShowConfigArguments),
    /// Change the dynamic configuration
    EditConfig(EditConfigArguments),
    /// Hand the leadership to a replica, in good order
    Switchover(SwitchoverArguments),
    /// Make a named replica the leader, even without the present one
    Failover(FailoverArguments),
    /// Maintenance mode: nobody fails over by itself
    Pause(PauseArguments),
    /// End the maintenance mode
    Resume(PauseArguments),
    /// Make the cluster a copy of another one: its primary stops in order and follows
    DemoteCluster(DemoteArguments),
    /// Make a standby cluster stand alone: its standby leader is promoted
    PromoteCluster(PromoteArguments),
    /// Let members read their configuration files again
    Reload(ReloadArguments),
    /// Restart the PostgreSQL of members
    Restart(RestartArguments),
    /// Copy the data of replicas anew
    Reinit(ReinitArguments),
    /// Take back what is scheduled
    Flush(FlushArguments),
    /// Delete what the store knows of a cluster
    Remove(RemoveArguments),
    /// Show where a member's PostgreSQL is
    Dsn(DsnArguments),
    /// Run SQL on a member
    Query(QueryArguments),
    /// Show the version of this program, or of the members of a cluster
    Version(VersionArguments),
}

impl Command {
    fn access(&self) -> &Access {
        match self {
            Command::List(arguments) => &arguments.access,
            Command::Topology(arguments) => &arguments.access,
            Command::History(arguments) => &arguments.access,
            Command::ShowConfig(arguments) => &arguments.access,
            Command::EditConfig(arguments) => &arguments.access,
            Command::Switchover(arguments) => &arguments.access,
            Command::Failover(arguments) => &arguments.access,
            Command::Pause(arguments) | Command::Resume(arguments) => &arguments.access,
            Command::DemoteCluster(arguments) => &arguments.access,
            Command::PromoteCluster(arguments) => &arguments.access,
            Command::Reload(arguments) => &arguments.access,
            Command::Restart(arguments) => &arguments.access,
            Command::Reinit(arguments) => &arguments.access,
            Command::Flush(arguments) => &arguments.access,
            Command::Remove(arguments) => &arguments.access,
            Command::Dsn(arguments) => &arguments.access,
            Command::Query(arguments) => &arguments.access,
            Command::Version(arguments) => &arguments.access,
        }
    }
}

/// Runs one command and prints its error, if any. `earlier` are the options that stood before the command.
pub fn run(command: Command, earlier: &Access, program: Program) -> ExitCode {
    match try_run(command, earlier, program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Aborted>() => {
            // Below the question.
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
        // The reader of our output has gone (`pgherd list | head`); there is nobody to tell.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(is_broken_pipe) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}

fn try_run(command: Command, earlier: &Access, program: Program) -> anyhow::Result<()> {
    if let Command::Version(VersionArguments { cluster: None, .. }) = &command {
        println!("{}", version::own(program));
        return Ok(());
    }
    let mut context = Context::from_access(&command.access().clone().or(earlier))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("the event loop cannot be started")?;
    let result = runtime.block_on(perform(command, program, &mut context));
    // A question that was broken off leaves a thread that waits for its answer.
    runtime.shutdown_background();
    result
}

async fn perform(command: Command, program: Program, context: &mut Context) -> anyhow::Result<()> {
    let result = match command {
        Command::List(arguments) => list::run(arguments, context).await,
        Command::Topology(arguments) => topology::run(arguments, context).await,
        Command::History(arguments) => history::run(arguments, context).await,
        Command::ShowConfig(arguments) => show_config::run(arguments, context).await,
        Command::EditConfig(arguments) => edit_config::run(arguments, context).await,
        Command::Switchover(arguments) => switchover::switchover(arguments, context).await,
        Command::Failover(arguments) => switchover::failover(arguments, context).await,
        Command::Pause(arguments) => pause::run(arguments, true, context).await,
        Command::Resume(arguments) => pause::run(arguments, false, context).await,
        Command::DemoteCluster(arguments) => cluster_role::demote(arguments, context).await,
        Command::PromoteCluster(arguments) => cluster_role::promote(arguments, context).await,
        Command::Reload(arguments) => reload::run(arguments, context).await,
        Command::Restart(arguments) => restart::run(arguments, context).await,
        Command::Reinit(arguments) => reinit::run(arguments, context).await,
        Command::Flush(arguments) => flush::run(arguments, context).await,
        Command::Remove(arguments) => remove::run(arguments, context).await,
        Command::Dsn(arguments) => dsn::run(arguments, context).await,
        Command::Query(arguments) => query::run(arguments, context).await,
        Command::Version(arguments) => version::run(arguments, program, context).await,
    };
    context.close().await;
    result
}
