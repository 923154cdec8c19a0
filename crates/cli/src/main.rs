//! The one binary: a subcommand a role.

mod demo;
mod drill;

use std::process::ExitCode;

use clap::Parser as _;

/// High availability for PostgreSQL.
#[derive(clap::Parser)]
#[command(version)]
enum Command {
    Demo(demo::Arguments),
    Drill(drill::Arguments),
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        // Before anything is allocated or started for the other roles: the guard must stay small.
        Some(role) if role == "guard" => pgherd_agent::guard::main(args),
        _ => run(Command::parse()),
    }
}

fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Drill(arguments) => drill::run(arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("Error: {error:#}");
        ExitCode::FAILURE
    })
}
