//! The layers of configuration: who set what, and which of them holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    time::Duration,
};

use super::{
    Problem, group,
    key::{Key, Value},
    table,
};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Ours, for a node that was told nothing.
    BuiltIn,
    File {
        path: PathBuf,
        line: usize,
    },
    /// The variable's name.
    Environment(String),
    Override,
    /// Set while the cluster runs, for this broker or for all.
    Dynamic,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::BuiltIn => f.write_str("built in"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(variable) => write!(f, "env {variable}"),
            Origin::Override => f.write_str("--override"),
            Origin::Dynamic => f.write_str("dynamic"),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) value: String,
    pub(super) origin: Origin,
}

impl Setting {
    pub(super) fn new(value: &str, origin: Origin) -> Setting {
        Setting {
            value: value.to_owned(),
            origin,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// What the node was started with.
    pub(super) fixed: BTreeMap<String, Setting>,
    pub(super) cluster: BTreeMap<String, String>,
    pub(super) broker: BTreeMap<String, String>,
}

impl Settings {
    pub(super) fn new(fixed: BTreeMap<String, Setting>) -> Settings {
        Settings {
            fixed,
            ..Settings::default()
        }
    }

    pub(super) fn with_dynamic(
        &self,
        cluster: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Settings {
        Settings {
            fixed: self.fixed.clone(),
            cluster: cluster.clone(),
            broker: broker.clone(),
        }
    }

    /// The value of the topmost layer that has one; Kafka's default if none has.
    pub(super) fn value(&self, key: &Key) -> Option<&str> {
        self.set_value(key.name).or(key.default)
    }

    pub(super) fn set_value(&self, name: &str) -> Option<&str> {
        let dynamic = self.broker.get(name).or_else(|| self.cluster.get(name));
        dynamic
            .or_else(|| self.fixed.get(name).map(|setting| &setting.value))
            .map(String::as_str)
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.set_value(name).is_some()
    }

    pub(super) fn is_built_in(&self, name: &str) -> bool {
        self.fixed
            .get(name)
            .is_some_and(|setting| setting.origin == Origin::BuiltIn)
    }

    fn origin(&self, name: &str) -> Option<Origin> {
        if self.broker.contains_key(name) || self.cluster.contains_key(name) {
            return Some(Origin::Dynamic);
        }
        self.fixed.get(name).map(|setting| setting.origin.clone())
    }

    /// The first of a key's synonyms that is set, as `log.retention.ms` before minutes before hours, in the
    /// unit of the first; else the default of the last that has one.
    pub(super) fn value_of_synonyms(&self, name: &str) -> Option<String> {
        let names = table::broker_synonyms(name);
        let text = |synonym: &&str, text: &str| in_unit_of(name, synonym, text);
        names
            .iter()
            .find_map(|synonym| self.set_value(synonym).map(|value| text(synonym, value)))
            .or_else(|| {
                let default = |synonym: &&str| {
                    table::broker(synonym)?
                        .default
                        .map(|value| text(synonym, value))
                };
                names.iter().find_map(default)
            })
    }

    pub(super) fn effective(&self) -> Vec<(&str, String, Option<&Origin>)> {
        let known = table::BROKER.iter().chain(table::SORDINI);
        known
            .filter_map(|key| {
                let value = self.value(key)?;
                let value = if key.is_sensitive() {
                    "[hidden]"
                } else {
                    value
                };
                let origin = self.fixed.get(key.name).map(|setting| &setting.origin);
                Some((key.name, value.to_owned(), origin))
            })
            .collect()
    }

    /// Keys of Kafka that were set while the cluster ran and have no effect. Names that nobody knows are not among them:
    /// any client can make up any number of those.
    pub(super) fn idle_dynamic(&self, used: &BTreeSet<&'static str>) -> Vec<String> {
        let set: BTreeSet<&String> = self.cluster.keys().chain(self.broker.keys()).collect();
        set.into_iter()
            .filter(|name| table::broker(name).is_some() && !used.contains(name.as_str()))
            .cloned()
            .collect()
    }

    /// Unknown keys one by one; keys without effect in one line, since every image of Kafka brings many.
    pub(super) fn warnings(&self, used: &BTreeSet<&'static str>) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut idle = Vec::new();
        for (name, setting) in &self.fixed {
            if setting.origin == Origin::BuiltIn || used.contains(name.as_str()) {
                continue;
            }
            if table::broker(name).is_some() || name.starts_with("listener.name.") {
                idle.push(name.as_str());
            } else {
                warnings.push(format!(
                    "unknown configuration key {name} ({}), ignored",
                    setting.origin
                ));
            }
        }
        if !idle.is_empty() {
            warnings.push(format!(
                "configuration keys that have no effect here: {}",
                idle.join(", ")
            ));
        }
        warnings
    }
}

/// Hours and minutes as milliseconds where the key counts those. A text that is no number stays as it is: it is
/// refused under its own key.
fn in_unit_of(name: &str, synonym: &str, text: &str) -> String {
    let factor = match synonym.rsplit_once('.') {
        Some((_, "hours")) if name.ends_with(".ms") => 3_600_000,
        Some((_, "minutes")) if name.ends_with(".ms") => 60_000,
        _ => return text.to_owned(),
    };
    match text.trim().parse::<i64>() {
        // "Negative" means "without limit" in any unit.
        Ok(number) if number < 0 => number.to_string(),
        Ok(number) => number.saturating_mul(factor).to_string(),
        Err(_) => text.to_owned(),
    }
}

/// Longer than anything runs, and short enough to be added to any moment.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads settings into typed values, and remembers what was wrong and what was read.
///
/// A value that cannot be read is noted once, and the default stands in for it so that reading goes on and the
/// next mistake is found too.
pub(super) struct Reader<'a> {
    settings: &'a Settings,
    used: BTreeSet<&'static str>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a Settings) -> Reader<'a> {
        let mut reader = Reader {
            settings,
            used: BTreeSet::new(),
            problems: Vec::new(),
        };
        let names = settings
            .fixed
            .keys()
            .chain(settings.cluster.keys())
            .chain(settings.broker.keys());
        for key in names
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter_map(|name| table::broker(name))
        {
            if let Some(Err(reason)) = settings.set_value(key.name).map(|text| key.parse(text)) {
                reader.note(key, reason);
            }
        }
        reader
    }

    pub(super) fn finish(mut self) -> (BTreeSet<&'static str>, Vec<Problem>) {
        self.used.extend(topic_keys());
        self.used.extend(group::consumer_keys());
        (self.used, self.problems)
    }

    pub(super) fn settings(&self) -> &'a Settings {
        self.settings
    }

    /// Notes that a key's value will not do, for a reason of ours.
    /// Refuses what contradicts another key, as Kafka words that.
    pub(super) fn refuse_together(&mut self, name: &'static str, why: &str) {
        self.problems.push(Problem {
            reason: format!("requirement failed: {why}"),
            origin: self.settings.origin(name),
            allowed: None,
        });
    }

    pub(super) fn refuse(&mut self, name: &'static str, why: &str) {
        let key = row(name);
        let value = self.settings.value(key).unwrap_or_default();
        self.problems.push(Problem {
            reason: key.invalid(value, why),
            origin: self.settings.origin(name),
            allowed: None,
        });
    }

    fn note(&mut self, key: &Key, reason: String) {
        self.problems.push(Problem {
            reason,
            origin: self.settings.origin(key.name),
            allowed: Some(key.allowed()),
        });
    }

    fn value(&mut self, name: &'static str) -> Option<Value> {
        let key = row(name);
        self.used.insert(key.name);
        let set = self
            .settings
            .value(key)
            .and_then(|text| key.parse(text).ok());
        set.or_else(|| key.default.and_then(|text| key.parse(text).ok()))
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> bool {
        matches!(self.value(name), Some(Value::Boolean(true)))
    }

    pub(super) fn optional_long(&mut self, name: &'static str) -> Option<i64> {
        match self.value(name) {
            Some(Value::Integer(number)) => Some(number),
            _ => None,
        }
    }

    pub(super) fn long(&mut self, name: &'static str) -> i64 {
        self.optional_long(name).unwrap_or_default()
    }

    pub(super) fn double(&mut self, name: &'static str) -> f64 {
        match self.value(name) {
            Some(Value::Double(number)) => number,
            _ => 0.0,
        }
    }

    pub(super) fn optional_int(&mut self, name: &'static str) -> Option<i32> {
        self.optional_long(name)
            .and_then(|number| number.try_into().ok())
    }

    pub(super) fn int(&mut self, name: &'static str) -> i32 {
        self.optional_int(name).unwrap_or_default()
    }

    pub(super) fn short(&mut self, name: &'static str) -> i16 {
        match self.long(name).try_into() {
            Ok(number) => number,
            Err(_) => {
                self.refuse(name, &format!("Value must be no more than {}", i16::MAX));
                0
            }
        }
    }

    pub(super) fn size(&mut self, name: &'static str) -> usize {
        usize::try_from(self.long(name)).unwrap_or_default()
    }

    /// A key that counts milliseconds. A negative time never comes.
    pub(super) fn duration(&mut self, name: &'static str) -> Duration {
        match u64::try_from(self.long(name)) {
            Ok(ms) => Duration::from_millis(ms).min(NEVER),
            Err(_) => NEVER,
        }
    }

    pub(super) fn optional_text(&mut self, name: &'static str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn text(&mut self, name: &'static str) -> String {
        self.optional_text(name).unwrap_or_default()
    }

    pub(super) fn list(&mut self, name: &'static str) -> Vec<String> {
        match self.value(name) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }
}

/// The row of a key this program reads: all of them are in the table, and a test reads them all.
fn row(name: &str) -> &'static Key {
    table::broker(name).unwrap_or_else(|| panic!("{name} is not in the table of keys"))
}

/// Keys that only have a meaning through the topics that have no value of their own.
fn topic_keys() -> BTreeSet<&'static str> {
    table::TOPIC.iter().filter_map(|key| key.broker).collect()
}
