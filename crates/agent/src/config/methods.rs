//! The sections that name a command of the user's: `bootstrap.METHOD` and `postgresql.METHOD`. Every key that has no meaning of its own there is an
//! argument of the command.

use serde_json::{Map, Value};

use super::place::{Problem, Problems};
use super::tree::Tree;
use super::values::{boolean, setting, text};
use crate::postgres::{CustomBootstrap, OwnMethod, ReplicaMethod, RestoreRecovery};
use crate::user_command::UserCommand;

const NO_COMMAND: &str = "no command can be made of this: is every quote closed?";

/// `bootstrap.method` and its section. `None`: initdb.
pub fn custom_bootstrap(tree: &Tree<'_>, problems: &mut Problems) -> Option<CustomBootstrap> {
    const OWN: [&str; 6] = ["command", "no_params", "keep_existing_recovery_conf", "recovery_conf", "scope", "datadir"];
    let name = tree.text("bootstrap.method").filter(|name| name != "initdb")?;
    let section = tree.map_of(&format!("bootstrap.{name}"));
    let Some(written) = section.get("command").and_then(text) else {
        let problem = format!(
            "there is no command for it: the section `bootstrap.{name}` needs a key `command`; or leave the method out, for initdb"
        );
        problems.push(Problem::error("bootstrap.method", problem));
        return None;
    };
    let Some(command) = UserCommand::parse(&written) else {
        problems.push(Problem::error(format!("bootstrap.{name}.command"), NO_COMMAND));
        return None;
    };
    let flag = |key: &str| section.get(key).and_then(boolean).unwrap_or(false);
    let recovery = match section.get("recovery_conf") {
        Some(Value::Object(settings)) => {
            let settings =
                settings.iter().filter_map(|(name, value)| Some((name.to_ascii_lowercase(), setting(value)?)));
            RestoreRecovery::Settings(settings.collect())
        }
        _ if flag("keep_existing_recovery_conf") => RestoreRecovery::Kept,
        _ => RestoreRecovery::Nothing,
    };
    let method = OwnMethod {
        command,
        arguments: arguments(&section, |key| !OWN.contains(&key)),
        no_params: flag("no_params"),
        keep_data: false,
        no_leader: true,
        name,
    };
    Some(CustomBootstrap { method, recovery })
}

/// `create_replica_methods` in their order; those that cannot be used are left out.
pub fn replica_methods(names: &[String], tree: &Tree<'_>, problems: &mut Problems) -> Vec<ReplicaMethod> {
    let method = |name: &String| match name.as_str() {
        "basebackup" => Some(ReplicaMethod::BaseBackup),
        _ => replica_method(name, &tree.map_of(&format!("postgresql.{name}")), problems).map(ReplicaMethod::Own),
    };
    let methods: Vec<ReplicaMethod> = names.iter().filter_map(method).collect();
    if methods.is_empty() { vec![ReplicaMethod::BaseBackup] } else { methods }
}

fn replica_method(name: &str, section: &Map<String, Value>, problems: &mut Problems) -> Option<OwnMethod> {
    let flag = |key: &str| section.get(key).and_then(boolean).unwrap_or(false);
    let no_params = flag("no_params");
    // Whoever wants no other arguments wants none of these either.
    let hidden = |key: &str| key == "command" || no_params && ["no_params", "no_leader", "keep_data"].contains(&key);
    let written = section.get("command").and_then(text).unwrap_or_else(|| name.to_owned());
    let Some(command) = UserCommand::parse(&written) else {
        let problem = format!("{NO_COMMAND} The method is left out");
        problems.push(Problem::warning(format!("postgresql.{name}.command"), problem));
        return None;
    };
    Some(OwnMethod {
        command,
        arguments: arguments(section, |key| !hidden(key)),
        no_params,
        keep_data: flag("keep_data"),
        no_leader: flag("no_leader"),
        name: name.to_owned(),
    })
}

/// As Python writes values, which is what the users' commands are used to.
fn arguments(section: &Map<String, Value>, is_argument: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let shown = |value: &Value| match value {
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Null => "None".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let own = section.iter().filter(|(key, _)| is_argument(key));
    own.map(|(key, value)| (key.clone(), shown(value))).collect()
}
