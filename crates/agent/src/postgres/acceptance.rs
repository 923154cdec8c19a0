//! Which settings this PostgreSQL accepts: its own program is asked, with a file of them (`postgres -C`), before any server sees them.
//!
//! So values are read as the very version reads them, with units, bounds and the checks of each setting, and no table of ours can be
//! wrong or old. A number out of bounds becomes the bound (but for the settings that members must agree on); for what is refused otherwise the value counts that was accepted before, or none.
//! Not found out here: what only a start shows (too little memory, a library that is not there, a sum of settings that does not
//! work out); a failed start falls back (`daemon/fallback.rs`). Tested on the real program in `tests/it/postgres/acceptance.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::config_files::{push_setting, quoted};
use super::parameters::{is_controlled, is_forbidden, refused_by_contract, start_settings};
use super::{Error, Server, installation, program};

/// The program reads one file and ends, which takes some 10 ms.
const LIMIT: Duration = Duration::from_secs(2);

/// A value out of bounds hides others twice at most (unknown names first, then numbers beyond all bounds, then the bounds); more rounds than
/// this would be a program that says something new each time.
const ROUNDS: usize = 8;

pub type Values = BTreeMap<String, String>;

/// What may be written for the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    pub parameters: Values,
    pub recovery_conf: Values,
    /// The file to be included in place of the one that PostgreSQL was set up with.
    pub custom_conf: Option<PathBuf>,
    /// One sentence for each value that does not count.
    pub warnings: Vec<String>,
}

/// A value that does not count as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    name: String,
    why: String,
    /// The nearest value that is within the bounds.
    nearest: Option<String>,
}

/// Asks about all settings of `server`. `before`: what was accepted of them last.
///
/// An error means that the program could not be asked; what was in force then stays.
pub async fn accepted(server: &Server, before: &Accepted) -> Result<Accepted, Error> {
    let directory = tempfile::tempdir().map_err(Error::file("create", std::env::temp_dir()))?;
    let mut judged = Judged { server: server.clone(), given: BTreeMap::new(), before, warnings: Vec::new() };
    judged.by_contract();
    for _ in 0..ROUNDS {
        let findings = ask(&judged.server, directory.path(), &judged.candidates()).await?;
        let Some(findings) = findings else { break };
        let mut mended = judged.take(findings);
        if !mended {
            mended = judged.one_by_one(directory.path()).await?;
        }
        if !mended {
            break;
        }
    }
    let custom_conf = judged.custom_conf(directory.path()).await?;
    let Judged { server, warnings, .. } = judged;
    Ok(Accepted { parameters: server.parameters, recovery_conf: server.recovery_conf, custom_conf, warnings })
}

struct Judged<'a> {
    /// With the values that are left.
    server: Server,
    /// What stood in place of those that have been replaced, by section and name.
    given: BTreeMap<String, String>,
    before: &'a Accepted,
    warnings: Vec<String>,
}

impl Judged<'_> {
    /// What is refused whatever PostgreSQL says.
    fn by_contract(&mut self) {
        let wanted = self.server.parameters.clone();
        for (name, value) in wanted.iter().filter(|(name, _)| is_forbidden(name)) {
            self.server.parameters.remove(name);
            self.warnings.push(format!(
                "postgresql.parameters.{name} = '{value}' is left out: where the server's files are is said by postgresql.data_dir, \
                 config_dir and custom_conf"
            ));
        }
        for (name, value) in &wanted {
            if let Some(expected) = refused_by_contract(name, value) {
                self.replace(&Finding { name: name.clone(), why: expected, nearest: None });
            }
        }
    }

    fn candidates(&self) -> Values {
        let mut all = start_settings(&self.server, None).file;
        all.extend(self.server.recovery_conf.clone());
        all
    }

    /// `false`: nothing has come of it.
    fn take(&mut self, findings: Vec<Finding>) -> bool {
        findings.iter().fold(false, |mended, finding| self.replace(finding) | mended)
    }

    fn replace(&mut self, finding: &Finding) -> bool {
        let Judged { server, given, before, warnings } = self;
        let sections = [
            ("parameters", &mut server.parameters, &before.parameters),
            ("recovery_conf", &mut server.recovery_conf, &before.recovery_conf),
        ];
        let mut mended = false;
        for (section, values, before) in sections {
            let key = values.keys().find(|name| name.eq_ignore_ascii_case(&finding.name)).cloned();
            let Some((name, wanted)) = key.and_then(|key| values.remove_entry(&key)) else { continue };
            mended = true;
            let kept = before.get(&name).filter(|value| **value != wanted).cloned();
            let (instead, consequence) = match (&finding.nearest, kept) {
                (Some(nearest), _) if *nearest != wanted => (Some(nearest.clone()), format!("{nearest} is used")),
                (_, Some(kept)) => (Some(kept.clone()), format!("{kept} stays in force")),
                _ => (None, "it is left out".to_owned()),
            };
            let why = &finding.why;
            let key = format!("postgresql.{section}.{name}");
            let wanted = given.entry(key.clone()).or_insert(wanted);
            warnings.retain(|warning| !warning.starts_with(&format!("{key} = ")));
            warnings.push(format!("{key} = '{wanted}' is not accepted: {why}; {consequence} until it is corrected"));
            if let Some(value) = instead {
                values.insert(name, value);
            }
        }
        mended
    }

    /// The program refuses and does not say what: each value by itself.
    async fn one_by_one(&mut self, directory: &Path) -> Result<bool, Error> {
        let all: Vec<(String, String)> = self
            .server
            .parameters
            .iter()
            .chain(&self.server.recovery_conf)
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
        let mut mended = false;
        for (name, value) in all {
            if ask(&self.server, directory, &Values::from([(name.clone(), value)])).await?.is_some() {
                let why = "this PostgreSQL refuses it".to_owned();
                mended |= self.replace(&Finding { name, why, nearest: None });
            }
        }
        Ok(mended)
    }

    /// The file, if it can be read and is accepted; else the one of before.
    async fn custom_conf(&mut self, directory: &Path) -> Result<Option<PathBuf>, Error> {
        let Some(custom) = self.server.custom_conf.clone() else { return Ok(None) };
        let Some(why) = self.refuses_file(directory, &custom).await? else { return Ok(Some(custom)) };
        let kept = match &self.before.custom_conf {
            Some(before) if *before != custom && self.refuses_file(directory, before).await?.is_none() => {
                Some(before.clone())
            }
            _ => None,
        };
        let instead = kept
            .as_ref()
            .map_or("the file that PostgreSQL was set up with".to_owned(), |kept| kept.display().to_string());
        self.warnings.push(format!(
            "postgresql.custom_conf = {} is not used: {why}; {instead} is, until it is corrected",
            custom.display()
        ));
        Ok(kept)
    }

    async fn refuses_file(&self, directory: &Path, custom: &Path) -> Result<Option<String>, Error> {
        let path = self.server.config_dir().join(custom);
        let include = format!("include '{}'\n", quoted(&path.to_string_lossy()));
        let said = run(&self.server, directory, &include).await?.err();
        let why = |said: Vec<String>| said.iter().find_map(|line| message(line)).unwrap_or("it is refused").to_owned();
        Ok(said.map(why))
    }
}

/// `None`: all are accepted.
async fn ask(server: &Server, directory: &Path, values: &Values) -> Result<Option<Vec<Finding>>, Error> {
    let mut text = String::new();
    values.iter().for_each(|(name, value)| push_setting(&mut text, name, value));
    let names: Vec<&str> = values.keys().map(String::as_str).collect();
    Ok(run(server, directory, &text).await?.err().map(|said| findings(&said, &names, values)))
}

/// Runs the program on a file of this text: its words, if it does not like it.
async fn run(server: &Server, directory: &Path, text: &str) -> Result<Result<(), Vec<String>>, Error> {
    let file = directory.join("candidate.conf");
    std::fs::write(&file, text).map_err(Error::file("write", &file))?;
    let mut command = installation::command(server, "postgres")?;
    command.arg("-D").arg(directory).arg(format!("--config-file={}", file.display()));
    // What the file says of messages must not keep them from us.
    for setting in ["log_min_messages=warning", "log_error_verbosity=default", "log_line_prefix=", "lc_messages=C"] {
        command.arg("-c").arg(setting);
    }
    command.arg("-C").arg("server_version");
    let mut said = Vec::new();
    match program::run(command, program::Limit::Total(LIMIT), |line| said.push(line.to_owned())).await {
        Ok(_) => Ok(Ok(())),
        Err(Error::ProgramFailed { .. }) => Ok(Err(said)),
        Err(error) => Err(error),
    }
}

/// The text of a message that says what is wrong.
fn message(line: &str) -> Option<&str> {
    let (level, text) = line.split_once(':')?;
    let text = text.trim();
    let harmless = text.starts_with("skipping missing configuration file");
    (matches!(level.trim(), "LOG" | "WARNING" | "ERROR" | "FATAL") && !harmless).then_some(text)
}

/// What was said of which setting. `names`: in the order of the file's lines.
pub(super) fn findings(said: &[String], names: &[&str], values: &Values) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for line in said {
        if let (Some(hint), Some(last)) = (more(line), found.last_mut()) {
            last.why = format!("{} ({hint})", last.why);
            if hint.starts_with("Value exceeds integer range") {
                let negative = values.get(&last.name).is_some_and(|value| value.trim().starts_with('-'));
                last.nearest = Some(if negative { i32::MIN } else { i32::MAX }.to_string());
            }
            continue;
        }
        let Some(text) = message(line) else { continue };
        let named = between(text, "parameter \"", "\"");
        let on_line = || between(&format!("{text},"), "\" line ", ",").and_then(|number| number.parse::<usize>().ok());
        let on_line = || names.get(on_line()?.checked_sub(1)?).map(|name| (*name).to_owned());
        let Some(name) = named.or_else(on_line) else { continue };
        // Keyed as we wrote it: PostgreSQL has its own spelling of some.
        let name =
            names.iter().find(|known| known.eq_ignore_ascii_case(&name)).map_or(name, |known| (*known).to_owned());
        let why = match text.split_once(" in file \"") {
            Some((why, _)) => why.to_owned(),
            None => text.to_owned(),
        };
        // A greatest value of one of these would take all the memory that there is.
        let nearest = nearest(text).filter(|_| !is_controlled(&name));
        found.push(Finding { nearest, name, why });
    }
    found
}

/// What follows a message and explains it.
fn more(line: &str) -> Option<&str> {
    let (level, text) = line.split_once(':')?;
    matches!(level.trim(), "HINT" | "DETAIL").then_some(text.trim())
}

/// `0 s is outside the valid range for parameter "autovacuum_naptime" (1 .. 2147483)`: 1. Later versions write the unit of the bounds, too.
fn nearest(text: &str) -> Option<String> {
    let (value, rest) = text.split_once(" is outside the valid range for parameter ")?;
    let (least, greatest) = rest.rsplit_once('(')?.1.strip_suffix(')')?.split_once(" .. ")?;
    let number = |text: &str| text.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
    let below = number(value)? < number(least)?;
    Some(if below { least } else { greatest }.to_owned())
}

fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let rest = text.split_once(before)?.1;
    rest.split_once(after).map(|(inside, _)| inside.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(said: &[&str], values: &[(&str, &str)]) -> Vec<String> {
        let values: Values = values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let names: Vec<&str> = values.keys().map(String::as_str).collect();
        let said: Vec<String> = said.iter().map(|line| (*line).to_owned()).collect();
        let shown = |finding: Finding| format!("{}: {} -> {:?}", finding.name, finding.why, finding.nearest);
        findings(&said, &names, &values).into_iter().map(shown).collect()
    }

    #[test]
    fn the_programs_words_are_understood() {
        let said = [
            "LOG:  skipping missing configuration file \"/x/postgresql.auto.conf\"",
            "LOG:  9999999 is outside the valid range for parameter \"max_connections\" (1 .. 262143)",
            "LOG:  invalid value for parameter \"wal_level\": \"foo\"",
            "HINT:  Available values: minimal, replica, logical.",
            "LOG:  0 s is outside the valid range for parameter \"autovacuum_naptime\" (1 s .. 2147483 s)",
            "LOG:  invalid value for parameter \"TimeZone\": \"Nowhere\"",
            "LOG:  invalid value for parameter \"work_mem\": \"-99999999999\"",
            "HINT:  Value exceeds integer range.",
            "LOG:  unrecognized configuration parameter \"nosuch\" in file \"/x/candidate.conf\" line 3",
            "FATAL:  configuration file \"/x/candidate.conf\" contains errors",
        ];
        let values = [("timezone", "Nowhere"), ("work_mem", "-99999999999"), ("nosuch", "1"), ("wal_level", "foo")];
        let expected = [
            "max_connections: 9999999 is outside the valid range for parameter \"max_connections\" (1 .. 262143) -> None",
            "wal_level: invalid value for parameter \"wal_level\": \"foo\" (Available values: minimal, replica, logical.) -> None",
            "autovacuum_naptime: 0 s is outside the valid range for parameter \"autovacuum_naptime\" (1 s .. 2147483 s) -> Some(\"1 s\")",
            "timezone: invalid value for parameter \"TimeZone\": \"Nowhere\" -> None",
            "work_mem: invalid value for parameter \"work_mem\": \"-99999999999\" (Value exceeds integer range.) -> Some(\"-2147483648\")",
            "nosuch: unrecognized configuration parameter \"nosuch\" -> None",
        ];
        assert_eq!(found(&said, &values), expected);
    }

    #[test]
    fn a_line_that_is_no_setting_is_found_by_its_number() {
        let said = ["LOG:  syntax error in file \"/x/candidate.conf\" line 2, near token \"=\""];
        assert_eq!(found(&said, &[("a", "1"), ("b c", "2")]), ["b c: syntax error -> None"]);
    }

    proptest::proptest! {
        #[test]
        fn any_words_are_survived(lines: Vec<String>, tail in "\\PC*") {
            let mut said = lines;
            said.extend([format!("LOG: {tail}"), format!("HINT: {tail}"), format!("LOG: 1 is outside the valid range for parameter {tail}")]);
            findings(&said, &["a"], &Values::new());
        }
    }
}
