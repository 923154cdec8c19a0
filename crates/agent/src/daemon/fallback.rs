//! A server that does not start with changed settings is started with those with which it last let somebody in.
//!
//! What `postgres::acceptance` cannot find out shows here: more memory than there is, a library that is missing, access rules that
//! cannot be read. The settings that served last are kept beside the data directory, so that a new agent knows them too. What was tried in
//! vain is left out until somebody changes it. Pure but for that one file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::postgres::acceptance::{Accepted, Values};
use crate::postgres::{Server, keep_file, kept_file};

/// The part of a server's settings that may keep it from starting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    parameters: Values,
    recovery_conf: Values,
    pg_hba: Vec<String>,
    custom_conf: Option<PathBuf>,
    /// The lines of `pg_hba.conf`, also where it is not ours.
    #[serde(default)]
    access: Vec<String>,
}

/// What was tried in vain: those settings of it that differ from what served before. `None`: the setting was not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Refused {
    role: String,
    parameters: BTreeMap<String, Option<String>>,
    recovery_conf: BTreeMap<String, Option<String>>,
    pg_hba: Option<Vec<String>>,
    custom_conf: Option<Option<PathBuf>>,
}

#[derive(Debug, Default)]
pub struct Fallback {
    /// `None`: there is no place beside the data directory.
    file: Option<PathBuf>,
    /// By role: with which the server has last let somebody in.
    good: BTreeMap<String, Taken>,
    /// Of the job that is about to start a server.
    staged: Option<(String, Taken)>,
    /// Of the server that was started and has not answered yet.
    tried: Option<(String, Taken)>,
    refused: Option<Refused>,
    /// The lines of `pg_hba.conf`, as a running server takes them.
    pub access: Lines,
    /// Those of `pg_ident.conf`.
    pub mappings: Lines,
}

/// Lines of a file that the server would not read, and those that it goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedLines {
    pub refused: Vec<String>,
    pub before: Vec<String>,
    /// As it is told to people.
    pub said: String,
}

/// What is known of a file whose lines a running server reads anew, and passes over where it cannot.
#[derive(Debug, Default)]
pub struct Lines {
    refused: Option<RefusedLines>,
    /// What it has read last, as far as that is known. The file may hold newer lines that were not looked at in time.
    readable: Option<Vec<String>>,
}

impl Lines {
    /// What the server goes back to from these lines, if not to themselves. `in_file`: what the file held before they came, which is all that is known at first.
    pub fn before(&mut self, lines: &[String], in_file: Option<Vec<String>>) -> Option<Vec<String>> {
        self.readable = self.readable.take().or(in_file);
        self.readable.clone().filter(|before| *before != lines)
    }

    /// The server has read these.
    pub fn read(&mut self, lines: &[String]) {
        self.readable = Some(lines.to_vec());
    }

    /// The running server cannot use these, and goes on with those of before.
    pub fn refuse(&mut self, refused: RefusedLines) {
        self.refused = Some(refused);
    }

    fn apply(&self, lines: &mut Vec<String>) {
        if let Some(refused) = self.refused.as_ref().filter(|refused| refused.refused == *lines) {
            lines.clone_from(&refused.before);
        }
    }

    /// What was said of these, if they are not used.
    fn said(&self, wanted: &[String]) -> Option<String> {
        self.refused.as_ref().filter(|refused| refused.refused == wanted).map(|refused| refused.said.clone())
    }
}

impl Fallback {
    pub fn new(file: Option<PathBuf>) -> Fallback {
        let kept = file.as_deref().and_then(kept_file);
        let good = kept.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Fallback { file, good, ..Fallback::default() }
    }

    /// What served last in this role.
    pub fn good(&self, role: &str) -> Option<Accepted> {
        let Taken { parameters, recovery_conf, custom_conf, .. } = self.good.get(role)?.clone();
        Some(Accepted { parameters, recovery_conf, custom_conf, warnings: Vec::new() })
    }

    /// The server without what was tried in vain.
    pub fn apply(&self, role: &str, mut server: Server) -> Server {
        self.access.apply(&mut server.pg_hba);
        self.mappings.apply(&mut server.pg_ident);
        let Some((refused, good)) =
            self.refused.as_ref().filter(|refused| refused.role == role).zip(self.good_for(role))
        else {
            return server;
        };
        if !refused.is_still_asked_for(&Taken::of(&server)) {
            return server;
        }
        put_back(&mut server.parameters, &refused.parameters, &good.parameters);
        put_back(&mut server.recovery_conf, &refused.recovery_conf, &good.recovery_conf);
        if refused.pg_hba.is_some() {
            server.pg_hba.clone_from(if good.pg_hba.is_empty() { &good.access } else { &good.pg_hba });
        }
        if refused.custom_conf.is_some() {
            server.custom_conf.clone_from(&good.custom_conf);
        }
        server
    }

    /// One that has never served in this role may have served in another.
    fn good_for(&self, role: &str) -> Option<&Taken> {
        self.good.get(role).or_else(|| self.good.values().next())
    }

    /// A job is about to start the server like this.
    pub fn stage(&mut self, role: &str, server: &Server) {
        self.staged = Some((role.to_owned(), Taken::of(server)));
    }

    /// It was started.
    pub fn started(&mut self) {
        self.tried = self.staged.take();
    }

    /// What was said of the lines that are configured and not used.
    pub fn refused_lines(&self, wanted: &Server) -> Vec<String> {
        [self.access.said(&wanted.pg_hba), self.mappings.said(&wanted.pg_ident)].into_iter().flatten().collect()
    }

    /// It lets somebody in. `access`: the lines of its `pg_hba.conf`.
    pub fn answered(&mut self, access: impl FnOnce() -> Option<Vec<String>>) {
        let Some((role, mut tried)) = self.tried.take() else { return };
        tried.access = access().unwrap_or_default();
        if self.good.get(&role) == Some(&tried) {
            return;
        }
        self.good.insert(role, tried);
        if let (Some(file), Ok(text)) = (&self.file, serde_json::to_string(&self.good))
            && let Err(error) = keep_file(file, &text)
        {
            tracing::debug!("the settings that serve are not kept: {}", error.full());
        }
    }

    /// It ended before it let anybody in. What is done about it, if that may be because of its settings.
    pub fn ended(&mut self) -> Option<String> {
        let (role, tried) = self.tried.take()?;
        let good = self.good_for(&role)?;
        let refused = Refused::between(&role, &tried, good);
        if refused.is_nothing() {
            // They are not the reason, and neither were those that were left out.
            self.refused = None;
            return None;
        }
        let names = refused.names();
        self.refused = Some(refused);
        Some(format!(
            "PostgreSQL did not start after a change of its settings ({names}); its own log says why. It is started with those that it \
             served with before, until the configuration is changed again"
        ))
    }

    /// What is configured and left out, as long as it is.
    pub fn left_out(&self, role: &str, wanted: &Server) -> Option<String> {
        let refused = self.refused.as_ref().filter(|refused| refused.role == role)?;
        refused.is_still_asked_for(&Taken::of(wanted)).then(|| {
            let names = refused.names();
            format!("PostgreSQL runs with its settings of before, since it did not start with these changed ({names}): correct them")
        })
    }
}

impl Taken {
    fn of(server: &Server) -> Taken {
        Taken {
            parameters: server.parameters.clone(),
            recovery_conf: server.recovery_conf.clone(),
            pg_hba: server.pg_hba.clone(),
            custom_conf: server.custom_conf.clone(),
            access: Vec::new(),
        }
    }
}

impl Refused {
    fn between(role: &str, tried: &Taken, good: &Taken) -> Refused {
        Refused {
            role: role.to_owned(),
            parameters: differences(&tried.parameters, &good.parameters),
            recovery_conf: differences(&tried.recovery_conf, &good.recovery_conf),
            pg_hba: (tried.pg_hba != good.pg_hba).then(|| tried.pg_hba.clone()),
            custom_conf: (tried.custom_conf != good.custom_conf).then(|| tried.custom_conf.clone()),
        }
    }

    fn is_nothing(&self) -> bool {
        *self == Refused { role: self.role.clone(), ..Refused::default() }
    }

    /// Somebody who changes one of them wants to see what comes of it.
    fn is_still_asked_for(&self, wanted: &Taken) -> bool {
        let same = |refused: &BTreeMap<String, Option<String>>, wanted: &Values| {
            refused.iter().all(|(name, value)| wanted.get(name) == value.as_ref())
        };
        same(&self.parameters, &wanted.parameters)
            && same(&self.recovery_conf, &wanted.recovery_conf)
            && self.pg_hba.as_ref().is_none_or(|lines| *lines == wanted.pg_hba)
            && self.custom_conf.as_ref().is_none_or(|path| *path == wanted.custom_conf)
    }

    fn names(&self) -> String {
        let settings = self.parameters.keys().chain(self.recovery_conf.keys()).map(String::as_str);
        let hba = self.pg_hba.as_ref().map(|_| "pg_hba");
        let custom = self.custom_conf.as_ref().map(|_| "custom_conf");
        settings.chain(hba).chain(custom).collect::<Vec<_>>().join(", ")
    }
}

fn differences(tried: &Values, good: &Values) -> BTreeMap<String, Option<String>> {
    let names = tried.keys().chain(good.keys()).filter(|name| tried.get(*name) != good.get(*name));
    names.map(|name| (name.clone(), tried.get(name).cloned())).collect()
}

fn put_back(values: &mut Values, refused: &BTreeMap<String, Option<String>>, good: &Values) {
    for name in refused.keys() {
        match good.get(name) {
            Some(value) => values.insert(name.clone(), value.clone()),
            None => values.remove(name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Credentials;

    fn server(parameters: &[(&str, &str)]) -> Server {
        let mut server = Server::new("n1", "batman", "/data", Credentials::new("postgres", None));
        server.parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        server
    }

    fn start(fallback: &mut Fallback, server: &Server) {
        fallback.stage("primary", server);
        fallback.started();
    }

    #[test]
    fn what_was_tried_in_vain_is_left_out_until_it_is_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = Some(directory.path().join("settings"));
        let good = server(&[("shared_buffers", "128MB")]);
        let mut fallback = Fallback::new(file.clone());
        start(&mut fallback, &good);
        fallback.answered(|| None);

        let mut fallback = Fallback::new(file);
        let wanted = server(&[("shared_buffers", "9TB"), ("work_mem", "8MB")]);
        assert_eq!(fallback.apply("primary", wanted.clone()), wanted);
        start(&mut fallback, &wanted);
        let said = fallback.ended().expect("a complaint");
        assert!(said.contains("(shared_buffers, work_mem)"), "{said}");
        assert_eq!(fallback.apply("primary", wanted.clone()), good);
        assert_eq!(fallback.apply("replica", wanted.clone()), wanted);
        // It serves with what served before, which changes nothing of that.
        start(&mut fallback, &good);
        fallback.answered(|| None);
        assert_eq!(fallback.apply("primary", wanted), good);
        let corrected = server(&[("shared_buffers", "64MB"), ("work_mem", "8MB")]);
        assert_eq!(fallback.apply("primary", corrected.clone()), corrected);
    }

    #[test]
    fn lines_go_back_to_what_was_read_and_not_to_what_the_file_held() {
        let lines = |text: &str| vec![text.to_owned()];
        let mut known = Lines::default();
        assert_eq!(known.before(&lines("bad"), Some(lines("good"))), Some(lines("good")));
        // These were not looked at in time, and others came.
        assert_eq!(known.before(&lines("worse"), Some(lines("bad"))), Some(lines("good")));
        known.read(&lines("better"));
        assert_eq!(known.before(&lines("worse"), Some(lines("better"))), Some(lines("better")));
        assert_eq!(known.before(&lines("better"), Some(lines("worse"))), None);
    }

    #[test]
    fn a_start_that_fails_with_the_settings_of_before_blames_none() {
        let good = server(&[]);
        let mut fallback = Fallback::new(None);
        start(&mut fallback, &good);
        assert_eq!(fallback.ended(), None, "nothing is known to be better");
        start(&mut fallback, &good);
        fallback.answered(|| None);
        let wanted = server(&[("shared_buffers", "9TB")]);
        start(&mut fallback, &wanted);
        assert!(fallback.ended().is_some());
        start(&mut fallback, &good);
        assert_eq!(fallback.ended(), None);
        assert_eq!(fallback.apply("primary", wanted.clone()), wanted);
    }
}
