//! The one binary: a subcommand a role.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        // Before anything is allocated or started for the other roles: the guard must stay small.
        Some(role) if role == "guard" => pgherd_agent::guard::main(args),
        _ => ExitCode::from(2),
    }
}
