//! Reading a checked document: each value is there in its normal form, or the table's default stands in for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::options::find;
use super::values::setting;
use super::{Secret, yaml};

/// A document that `options::check_*` has been through.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a>(pub &'a Value);

impl Tree<'_> {
    /// The value as written.
    pub fn written(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(self.0, |value, key| value.get(key)).filter(|value| !value.is_null())
    }

    /// The value as written, or the default.
    fn value(&self, path: &str) -> Option<Value> {
        self.written(path).cloned().or_else(|| {
            let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
            let setting = find(&parts);
            debug_assert!(setting.is_some(), "{path} is not in the table of options");
            let default = setting.filter(|setting| !setting.default.is_empty())?;
            let value = yaml::read("default", default.default.as_bytes()).ok()?.value;
            default.kind.read(&value, None).ok()
        })
    }

    pub fn text(&self, path: &str) -> Option<String> {
        self.value(path)?.as_str().map(str::to_owned)
    }

    pub fn secret(&self, path: &str) -> Option<Secret> {
        self.text(path).map(Secret::new)
    }

    /// A path of the file system; `~/` is the home directory.
    pub fn file(&self, path: &str) -> Option<PathBuf> {
        let text = self.text(path)?;
        Some(match (text.strip_prefix("~/"), std::env::home_dir()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(text),
        })
    }

    pub fn flag(&self, path: &str) -> bool {
        self.value(path).is_some_and(|value| value.as_bool().unwrap_or(false))
    }

    pub fn integer(&self, path: &str) -> Option<i64> {
        self.value(path)?.as_i64()
    }

    /// A number that cannot be negative; 0 if it is, or if there is none.
    pub fn count(&self, path: &str) -> u64 {
        self.integer(path).and_then(|number| number.try_into().ok()).unwrap_or(0)
    }

    pub fn seconds(&self, path: &str) -> Duration {
        Duration::from_secs(self.count(path))
    }

    pub fn texts(&self, path: &str) -> Vec<String> {
        let list = self.value(path);
        let items = list.as_ref().and_then(Value::as_array).into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    pub fn map(&self, path: &str) -> Map<String, Value> {
        self.value(path).and_then(|value| value.as_object().cloned()).unwrap_or_default()
    }

    /// A whole section as written.
    pub fn map_of(&self, section: &str) -> Map<String, Value> {
        self.written(section).and_then(Value::as_object).cloned().unwrap_or_default()
    }

    /// A mapping of settings as PostgreSQL writes them, names in lower case.
    pub fn settings(&self, path: &str) -> BTreeMap<String, String> {
        let map = self.map(path);
        map.iter().filter_map(|(name, value)| Some((name.to_ascii_lowercase(), setting(value)?))).collect()
    }
}
