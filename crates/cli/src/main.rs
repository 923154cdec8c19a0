//! The one binary: a subcommand a role, and the operator's commands.

mod arguments;
mod configuration;
mod ctl;
mod demo;
mod drill;
mod entrypoint;
mod generate;
mod health;
mod interrupts;
mod store;

use std::process::ExitCode;

use crate::arguments::{Arguments, Program, Role};

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let own_name = words.next();
    let mut words = words.peekable();
    let program = Program::from_path(own_name.as_ref());
    // Before anything is allocated or started for the other roles: the guard must stay small. The agent starts it by our
    // own name; `patroni guard` is an agent with a file of that name.
    if program == Program::Pgherd && words.next_if(|role| role == "guard").is_some() {
        return pgherd_agent::guard::main(words);
    }
    let all = own_name.into_iter().chain(words).collect();
    match arguments::parse(all, program) {
        Ok(arguments) => run(arguments, program),
        Err(exit_code) => exit_code,
    }
}

fn run(arguments: Arguments, program: Program) -> ExitCode {
    // The demo starts roles through that link.
    pgherd_agent::privileges::restore_name();
    pgherd_agent::log::start(match &arguments.role {
        Role::Agent(_) | Role::Proxy(_) => "info",
        Role::Store(store) if store.is_member() => "info",
        _ => "warn",
    });
    let result = match arguments.role {
        Role::Agent(arguments) => {
            return configuration::run(&arguments).unwrap_or_else(|| pgherd_agent::run(arguments.file.as_deref()));
        }
        Role::Proxy(arguments) => entrypoint::run(arguments),
        Role::Demo(arguments) => demo::run(arguments),
        Role::Drill(arguments) => drill::run(arguments),
        Role::Health(arguments) => health::run(arguments),
        Role::Store(store) => store::run(store, &arguments.access),
        Role::Operate(command) => return ctl::run(*command, &arguments.access, program),
    };
    result.unwrap_or_else(|error| {
        eprintln!("Error: {error:#}");
        ExitCode::FAILURE
    })
}
