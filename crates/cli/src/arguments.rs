//! The arguments of the program: a subcommand a role, and the operator's commands beside them.
//!
//! `guard` is not among them: `main` starts it before anything else. Wrong usage is printed as Patroni's console prints
//! it (usage first, then `Error: ...`) and ends with exit code 2.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::ctl::context::Access;
use crate::ctl::version::PATRONI_LEVEL;
use crate::{ctl, demo, drill, entrypoint, health, store};

/// PostgreSQL that stays available: an agent beside every server, an entrypoint for the clients, and the commands to
/// look after them
#[derive(Parser, Clone, Debug)]
#[command(name = "pgherd", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
// Of an option that is repeated the last counts: scripts add to what others put together.
#[command(args_override_self = true)]
pub struct Arguments {
    #[command(flatten)]
    pub access: Access,
    #[command(subcommand)]
    pub role: Role,
}

#[derive(Subcommand, Clone, Debug)]
pub enum Role {
    /// Run the agent beside a PostgreSQL server
    Agent(AgentArguments),
    /// Run the entrypoint that clients connect to
    Proxy(entrypoint::Arguments),
    /// Start a whole cluster on this machine, to try it out
    Demo(demo::Arguments),
    /// Do one fault to the demo and measure what its clients see
    Drill(drill::Arguments),
    /// Ask one health check; ends with 0 if it is passed (for containers and scripts)
    Health(health::Arguments),
    /// Run a member of the built-in store without a PostgreSQL, or look after its members
    Store(store::Arguments),
    #[command(flatten)]
    Operate(Box<ctl::Command>),
}

#[derive(clap::Args, Clone, Debug)]
pub struct AgentArguments {
    /// A Patroni YAML, or a directory of them; without it the environment (PATRONI_*) alone. The file to write with --generate-config
    /// and --generate-sample-config; without it, to standard output
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Check the configuration, tell what is wrong with it, a line each, and exit
    #[arg(long, group = "instead")]
    pub validate_config: bool,
    /// Write an example of a configuration and exit
    #[arg(long, group = "instead")]
    pub generate_sample_config: bool,
    /// Write a configuration for a PostgreSQL that runs here and exit
    #[arg(long, group = "instead")]
    pub generate_config: bool,
    /// With --generate-config: how to connect to that PostgreSQL, as a superuser
    #[arg(long, value_name = "DSN")]
    pub dsn: Option<String>,
    /// With --validate-config: somebody may listen already where this node is to listen
    #[arg(long, short)]
    pub ignore_listen_port: bool,
    /// With --validate-config: print the configuration, the environment included
    #[arg(long, short)]
    pub print: bool,
}

/// The agent by Patroni's name: `patroni [FILE]`.
#[derive(Parser, Clone, Debug)]
#[command(name = "patroni", version = PATRONI_LEVEL, max_term_width = 100, infer_long_args = true)]
struct PatroniArguments {
    #[command(flatten)]
    agent: AgentArguments,
}

/// As what the program was called: a symlink with one of Patroni's names gives Patroni's console, or its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Pgherd,
    Patroni,
    Patronictl,
}

impl Program {
    pub fn from_path(path: Option<&OsString>) -> Program {
        match path.and_then(|path| Path::new(path).file_name()) {
            Some(name) if name == "patroni" => Program::Patroni,
            Some(name) if name == "patronictl" => Program::Patronictl,
            _ => Program::Pgherd,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Program::Pgherd => "pgherd",
            Program::Patroni => "patroni",
            Program::Patronictl => "patronictl",
        }
    }
}

/// `arguments` begin with the program's own name. On failure (or `--help`) everything is printed already.
pub fn parse(mut arguments: Vec<OsString>, program: Program) -> Result<Arguments, ExitCode> {
    // These are options of the agent, and `pgherd --validate-config FILE` is what somebody who knows Patroni types.
    if program == Program::Pgherd && is_about_configuration(&arguments) {
        arguments.insert(1, "agent".into());
    }
    let mut command = command_of(program);
    let parsed = command.try_get_matches_from_mut(&arguments).and_then(|matches| match program {
        Program::Patroni => PatroniArguments::from_arg_matches(&matches).map(Arguments::from),
        Program::Pgherd | Program::Patronictl => Arguments::from_arg_matches(&matches),
    });
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            eprint!("{}", usage_error(&error.render().to_string(), &mut command, &arguments));
            ExitCode::from(2)
        }
    })
}

fn is_about_configuration(arguments: &[OsString]) -> bool {
    // Not `pgherd list --validate-config`, which is a mistake of another kind.
    let first_of_all = ["--validate-config", "--generate-sample-config", "--generate-config", "-i", "-p"];
    arguments.get(1).is_some_and(|word| first_of_all.iter().any(|option| word == option))
}

fn command_of(program: Program) -> clap::Command {
    let command = match program {
        Program::Patroni => PatroniArguments::command(),
        Program::Pgherd | Program::Patronictl => Arguments::command(),
    };
    command.name(program.name()).bin_name(program.name())
}

impl From<PatroniArguments> for Arguments {
    fn from(arguments: PatroniArguments) -> Arguments {
        Arguments { access: Access::default(), role: Role::Agent(arguments.agent) }
    }
}

/// The same content in the order of Patroni's console. `rendered` is clap's text: `error: ...`, perhaps tips and a usage.
fn usage_error(rendered: &str, command: &mut clap::Command, arguments: &[OsString]) -> String {
    let message = rendered.split("\n\nUsage:").next().unwrap_or(rendered);
    let message = message.split("\n\nFor more information").next().unwrap_or(message);
    let message = message.strip_prefix("error: ").unwrap_or(message).trim_end();
    command.build();
    let named = arguments.iter().skip(1).find_map(|argument| {
        let name = argument.to_str()?;
        command.get_subcommands().any(|known| known.get_name() == name).then(|| name.to_owned())
    });
    let command = match named.and_then(|name| command.find_subcommand_mut(name)) {
        Some(found) => found,
        None => command,
    };
    let path = command.get_bin_name().unwrap_or("pgherd").to_owned();
    format!("{}\nTry '{path} --help' for help.\n\nError: {message}\n", command.render_usage())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(line: &str) -> Arguments {
        let arguments = line.split_whitespace().map(OsString::from).collect();
        parse(arguments, Program::Pgherd).unwrap_or_else(|_| panic!("{line} was refused"))
    }

    #[test]
    fn the_definitions_are_consistent() {
        for program in [Program::Pgherd, Program::Patroni, Program::Patronictl] {
            command_of(program).debug_assert();
        }
    }

    #[test]
    fn options_may_stand_before_the_command_and_after_its_arguments() {
        for line in [
            "pgherd -c f -d zoo:2181 -k list demo -f json",
            "pgherd list demo -f json -k -c f --dcs zoo:2181",
            "pgherd -k list -d zoo:2181 -f json demo --config-file f",
        ] {
            let arguments = accept(line);
            let Role::Operate(command) = arguments.role else { panic!("{line}") };
            let ctl::Command::List(list) = *command else { panic!("{line}") };
            let access = list.access.clone().or(&arguments.access);
            assert_eq!(access.config_file.as_deref(), Some(Path::new("f")));
            assert_eq!((access.dcs_url.as_deref(), access.insecure), (Some("zoo:2181"), true));
            assert_eq!(list.clusters, ["demo"]);
        }
    }

    #[test]
    fn the_options_of_patronictl_are_known() {
        for line in [
            "pgherd proxy haproxy.cfg --check",
            "pgherd list",
            "pgherd list a b -e -t -f yml -W",
            "pgherd list -w 0.5",
            "pgherd switchover c --leader a --candidate b --scheduled now --force",
            "pgherd switchover --primary a --force",
            "pgherd failover c --candidate b --force",
            "pgherd pause c --wait",
            "pgherd resume --wait",
            "pgherd demote-cluster c --host h --port 5432 --restore-command cp --primary-slot-name s --force",
            "pgherd promote-cluster --force",
            "pgherd reload c a b -r standby-leader --force",
            "pgherd restart c a -r replica --any --scheduled now --pg-version 15.4 --pending --timeout 5 --force",
            "pgherd reinit c a b --force --from-leader --wait",
            "pgherd flush c a -r any restart --force",
            "pgherd flush c switchover",
            "pgherd remove c -f json",
            "pgherd edit-config c -q -s a=1 --set b=2 -p c=3 --pg d=4 --apply - --replace f --force",
            "pgherd dsn c -r primary",
            "pgherd dsn --member a",
            "pgherd dsn -r replica --role any",
            "pgherd -c f -d zoo:2181 query c -c SQL -d db -U me --password -m a -W --format json --delimiter |",
            "pgherd query --file f --dbname db --role any -w 1 --config-file f --dcs zoo:2181",
            "pgherd version c n1 n2",
        ] {
            accept(line);
        }
    }

    #[test]
    fn by_the_name_of_patroni_it_is_the_agent() {
        let parsed = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let program = Program::from_path(words.first());
            parse(words, program).map(|arguments| arguments.role)
        };
        for (line, expected) in [
            ("/usr/bin/patroni /etc/patroni.yml", Some("/etc/patroni.yml")),
            ("patroni", None),
            ("patroni list", Some("list")),
            ("/usr/bin/pgherd agent f", Some("f")),
            ("patronictl agent f", Some("f")),
        ] {
            let Ok(Role::Agent(agent)) = parsed(line) else { panic!("{line} is no agent") };
            assert_eq!(agent.file.as_deref(), expected.map(Path::new), "{line}");
        }
        for line in ["patroni a b", "patroni --validate-config --generate-config", "patroni -c f"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn questions_about_a_configuration_are_the_agents() {
        for line in [
            "pgherd --validate-config f -i -p",
            "pgherd -p --ignore-listen-port f --validate-config",
            "pgherd agent f --validate-config --print",
            "pgherd --generate-sample-config",
            "pgherd --generate-config --dsn host=/tmp f",
        ] {
            let Role::Agent(agent) = accept(line).role else { panic!("{line}") };
            assert!(agent.validate_config || agent.generate_config || agent.generate_sample_config, "{line}");
            assert_eq!(agent.file.is_some(), line.contains(" f"), "{line}");
        }
        let abbreviated = ["patroni", "--validate", "f"].map(OsString::from).to_vec();
        let Ok(Arguments { role: Role::Agent(agent), .. }) = parse(abbreviated, Program::Patroni) else {
            panic!("refused")
        };
        assert!(agent.validate_config);
    }

    #[test]
    fn wrong_usage_is_told_with_the_usage_first() {
        let check = |line: &str, expected: &str| {
            let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let mut command = Arguments::command().name("pgherd").bin_name("pgherd");
            let parsed = command.try_get_matches_from_mut(&arguments);
            let error = parsed.and_then(|found| Arguments::from_arg_matches(&found)).expect_err("wrong usage");
            let text = usage_error(&error.render().to_string(), &mut command, &arguments);
            assert!(text.starts_with(expected), "{text}");
            assert!(text.contains("\n\nError: "), "{text}");
        };
        check(
            "pgherd list -f foo",
            "Usage: pgherd list [OPTIONS] [CLUSTER]...\nTry 'pgherd list --help' for help.\n\nError: invalid value 'foo'",
        );
        check(
            "pgherd list --foo",
            "Usage: pgherd list [OPTIONS] [CLUSTER]...\nTry 'pgherd list --help' for help.\n\nError: unexpected argument '--foo'",
        );
        check(
            "pgherd flush c n1",
            "Usage: pgherd flush [OPTIONS] <CLUSTER> <[MEMBER]... restart|switchover>...\nTry 'pgherd flush --help' for help.\n\n\
             Error: the last word must be `restart` or `switchover`, not `n1`",
        );
        check(
            "pgherd foo",
            "Usage: pgherd [OPTIONS] <COMMAND>\nTry 'pgherd --help' for help.\n\nError: unrecognized subcommand 'foo'",
        );
    }
}
