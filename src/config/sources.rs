//! The layers a configuration is read from: what is built in, the file, the environment, overrides.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    Config, Error, environment, properties,
    settings::{Origin, Setting, Settings},
    table,
};

/// What one node does when nobody has told it anything: Kafka's defaults, in `./data`, with internal topics that
/// a single broker can hold.
const SINGLE_NODE: &[(&str, &str)] = &[
    ("controller.listener.names", "CONTROLLER"),
    ("log.dirs", "./data"),
    ("node.id", "1"),
    ("offsets.topic.replication.factor", "1"),
    ("process.roles", "broker,controller"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.replication.factor", "1"),
];

/// Where the configuration is to be read from.
#[derive(Debug, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    pub environment: Vec<(String, String)>,
    pub overrides: Vec<(String, String)>,
}

impl Config {
    /// Reads the file, and puts the environment and the overrides on top.
    pub fn load(sources: &Sources) -> Result<Config, Error> {
        let file = match &sources.file {
            Some(path) => read(path)?,
            None => Vec::new(),
        };
        Config::of(file, &sources.environment, &sources.overrides)
    }

    /// A single node with these settings: what a test, or a caller in the same process, starts a broker with.
    pub fn single_node(settings: &[(&str, &str)]) -> Result<Config, Error> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let overrides: Vec<(String, String)> = settings.iter().map(own).collect();
        Config::of(Vec::new(), &[], &overrides)
    }

    pub(super) fn of(
        file: Vec<(String, Setting)>,
        environment: &[(String, String)],
        overrides: &[(String, String)],
    ) -> Result<Config, Error> {
        let mut fixed: BTreeMap<String, Setting> = file.into_iter().collect();
        let from_file = !fixed.is_empty();
        let mut from_environment = false;
        for (variable, value) in environment {
            if let Some(key) = environment::property(variable) {
                // `KAFKA_HOME` and the like of some shell are not a configuration.
                from_environment |= table::broker(&key).is_some();
                fixed.insert(
                    key,
                    Setting::new(value, Origin::Environment(variable.clone())),
                );
            }
        }
        if !from_file && !from_environment {
            for (key, value) in SINGLE_NODE {
                fixed
                    .entry((*key).to_owned())
                    .or_insert(Setting::new(value, Origin::BuiltIn));
            }
        }
        for (key, value) in overrides {
            fixed.insert(key.clone(), Setting::new(value, Origin::Override));
        }
        complete(&mut fixed);
        if !fixed.contains_key("listeners")
            && let Some(advertised) = fixed.get("advertised.listeners")
            && let Origin::Environment(_) = advertised.origin
        {
            let listeners = environment::listeners_of(&advertised.value);
            let derived = Setting::new(&listeners, advertised.origin.clone());
            fixed.insert("listeners".to_owned(), derived);
        }
        let cluster_id = environment
            .iter()
            .find(|(variable, value)| variable == "CLUSTER_ID" && !value.is_empty())
            .map(|(_, value)| value.clone());
        let mut config = Config::build(Settings::new(fixed))?;
        config.cluster_id = cluster_id;
        Ok(config)
    }
}

/// Says what goes without saying: a node's number under both of its names, and its roles.
fn complete(fixed: &mut BTreeMap<String, Setting>) {
    for (key, other) in [("node.id", "broker.id"), ("broker.id", "node.id")] {
        let is_set = fixed
            .get(key)
            .is_some_and(|setting| setting.origin != Origin::BuiltIn);
        if let Some(setting) = fixed.get(other).filter(|_| !is_set) {
            let setting = setting.clone();
            fixed.insert(key.to_owned(), setting);
        }
    }
    // Kafka demands these. Whoever left them out, as Compose files for older brokers do, means one node.
    for (key, value) in [
        ("node.id", "1"),
        ("broker.id", "1"),
        ("process.roles", "broker,controller"),
    ] {
        let built_in = || Setting::new(value, Origin::BuiltIn);
        fixed.entry(key.to_owned()).or_insert_with(built_in);
    }
}

fn read(path: &Path) -> Result<Vec<(String, Setting)>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let properties = properties::parse(&text).map_err(|(line, reason)| Error::Malformed {
        path: path.to_owned(),
        line,
        reason,
    })?;
    let setting = |property: properties::Property| {
        let origin = Origin::File {
            path: path.to_owned(),
            line: property.line,
        };
        (property.key, Setting::new(&property.value, origin))
    };
    Ok(properties.into_iter().map(setting).collect())
}
