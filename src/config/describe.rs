//! DescribeConfigs: a key's value, who set it, and what else it could have been.
//!
//! The sources, their order and Kafka's quirks in it are those of its `ConfigHelper`. One quirk that shows: a
//! topic's `retention.ms` that comes from `log.retention.hours` has no synonyms and counts as a default, since
//! only synonyms from the key's own name on are kept.

use std::collections::BTreeMap;

use super::{
    Config,
    key::{Key, Kind, Update},
    settings::Settings,
    table, topic,
};

/// One key of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    /// `None` if there is none, and always for what is secret.
    pub value: Option<String>,
    pub source: Source,
    pub is_read_only: bool,
    pub is_sensitive: bool,
    /// `None` for keys that are not Kafka's.
    pub kind: Option<Kind>,
    /// The value and what would hold without it, the strongest first.
    pub synonyms: Vec<Synonym>,
    pub documentation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    pub value: Option<String>,
    pub source: Source,
}

/// Who set a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Topic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
    ClientMetrics,
    Group,
}

impl Source {
    /// Its number in the answer.
    pub fn code(self) -> i8 {
        match self {
            Source::Topic => 1,
            Source::DynamicBroker => 2,
            Source::DynamicDefaultBroker => 3,
            Source::StaticBroker => 4,
            Source::Default => 5,
            Source::ClientMetrics => 7,
            Source::Group => 8,
        }
    }
}

impl Config {
    pub fn describe_topic(&self, overrides: &BTreeMap<String, String>) -> Vec<Entry> {
        describe_resource(&self.settings, table::TOPIC, Source::Topic, overrides)
    }

    pub fn describe_group(&self, overrides: &BTreeMap<String, String>) -> Vec<Entry> {
        describe_resource(&self.settings, table::GROUP, Source::Group, overrides)
    }

    pub fn describe_client_metrics(&self, overrides: &BTreeMap<String, String>) -> Vec<Entry> {
        describe_resource(
            &self.settings,
            table::CLIENT_METRICS,
            Source::ClientMetrics,
            overrides,
        )
    }

    /// This broker: every key of Kafka, and whatever else was set.
    pub fn describe_broker(&self) -> Vec<Entry> {
        let settings = &self.settings;
        let known = table::BROKER
            .iter()
            .map(|key| broker_entry(settings, key.name, Some(key)));
        let is_other = |name: &&String| {
            table::find(table::BROKER, name).is_none() && !name.starts_with("sordini.")
        };
        let mut others: Vec<&String> = settings
            .fixed
            .keys()
            .chain(settings.cluster.keys())
            .chain(settings.broker.keys())
            .filter(is_other)
            .collect();
        others.sort();
        others.dedup();
        let others = others
            .into_iter()
            .map(|name| broker_entry(settings, name, table::broker(name)));
        known.chain(others).collect()
    }

    /// What is set for all brokers at once: the answer for the broker without a name.
    pub fn describe_broker_defaults(&self) -> Vec<Entry> {
        let names = self.settings.cluster.keys();
        names
            .map(|name| {
                let mut entry = broker_entry(&self.settings, name, table::broker(name));
                entry
                    .synonyms
                    .retain(|synonym| synonym.source == Source::DynamicDefaultBroker);
                entry.source = Source::DynamicDefaultBroker;
                if !entry.is_sensitive {
                    entry.value = self.settings.cluster.get(name).cloned();
                }
                entry
            })
            .collect()
    }
}

fn describe_resource(
    settings: &Settings,
    keys: &'static [Key],
    own: Source,
    overrides: &BTreeMap<String, String>,
) -> Vec<Entry> {
    let describe = |key: &'static Key| {
        let mut synonyms = match key.broker {
            Some(broker) => broker_synonyms(settings, broker, false),
            None => Vec::new(),
        };
        let set = overrides.get(key.name).map(|text| normalised(key, text));
        if let Some(value) = &set {
            synonyms.insert(
                0,
                Synonym {
                    name: key.name.to_owned(),
                    value: Some(value.clone()),
                    source: own,
                },
            );
        }
        let inherited = || topic::inherited(settings, key).map(|text| normalised(key, &text));
        Entry {
            name: key.name.to_owned(),
            value: set.or_else(inherited),
            source: synonyms
                .first()
                .map_or(Source::Default, |synonym| synonym.source),
            is_read_only: false,
            is_sensitive: false,
            kind: Some(key.kind),
            synonyms,
            documentation: key.documentation,
        }
    };
    // Kafka shows a key of this prefix only where it is set.
    let is_shown =
        |key: &&Key| !key.name.starts_with("internal.") || overrides.contains_key(key.name);
    keys.iter().filter(is_shown).map(describe).collect()
}

fn broker_entry(settings: &Settings, name: &str, key: Option<&'static Key>) -> Entry {
    // Who knows what hides behind a name nobody knows: Kafka shows no value either.
    let is_sensitive = key.is_none_or(Key::is_sensitive);
    let value = match key {
        Some(key) => settings.value(key).map(|text| normalised(key, text)),
        None => None,
    };
    let synonyms = broker_synonyms(settings, name, is_sensitive);
    Entry {
        name: name.to_owned(),
        value: value.filter(|_| !is_sensitive),
        source: synonyms
            .first()
            .map_or(Source::Default, |synonym| synonym.source),
        is_read_only: key.is_none_or(|key| key.update == Update::ReadOnly),
        is_sensitive,
        kind: key.map(|key| key.kind),
        synonyms,
        documentation: key.map_or("", |key| key.documentation),
    }
}

/// Every layer that has a value for the key or one of its synonyms, from the key's own name on.
fn broker_synonyms(settings: &Settings, name: &str, is_sensitive: bool) -> Vec<Synonym> {
    let names = match table::broker_synonyms(name) {
        [] => &[name],
        names => names,
    };
    let mut found = Vec::new();
    let mut add = |name: &str, value: Option<&str>, source| {
        if let Some(value) = value {
            found.push(Synonym {
                name: name.to_owned(),
                value: (!is_sensitive).then(|| value.to_owned()),
                source,
            });
        }
    };
    for name in names {
        add(
            name,
            settings.broker.get(*name).map(String::as_str),
            Source::DynamicBroker,
        );
    }
    for name in names {
        add(
            name,
            settings.cluster.get(*name).map(String::as_str),
            Source::DynamicDefaultBroker,
        );
    }
    for name in names {
        add(
            name,
            settings
                .fixed
                .get(*name)
                .map(|setting| setting.value.as_str()),
            Source::StaticBroker,
        );
    }
    for name in names {
        // The limits of reassignments have no default in Kafka's own table of brokers' keys.
        let key = table::find(table::BROKER, name);
        add(name, key.and_then(|key| key.default), Source::Default);
    }
    let first = found.iter().position(|synonym| synonym.name == name);
    found.split_off(first.unwrap_or(found.len()))
}

fn normalised(key: &Key, text: &str) -> String {
    match key.parse(text) {
        Ok(value) => value.to_string(),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `ConfigHelper` of Kafka 4.4.0 puts them together.
    #[test]
    fn sources_and_synonyms_are_kafkas() {
        let config = Config::single_node(&[
            ("log.retention.hours", "24"),
            ("log.segment.bytes", "2097152"),
        ]);
        let config = config.expect("a configuration");
        let cluster = map(&[
            ("message.max.bytes", "2000"),
            ("log.cleanup.policy", "compact"),
        ]);
        let broker = map(&[("message.max.bytes", "3000"), ("nobody.knows", "x")]);
        let config = config
            .with_dynamic(&cluster, &broker)
            .expect("a configuration");
        let topic = config.describe_topic(&map(&[("cleanup.policy", " delete , compact")]));
        assert_eq!(topic.len(), 37);
        check(
            &topic,
            "cleanup.policy=delete,compact 1 [cleanup.policy=delete,compact@1 log.cleanup.policy=compact@3 \
             log.cleanup.policy=delete@5]",
        );
        check(
            &topic,
            "max.message.bytes=3000 2 [message.max.bytes=3000@2 message.max.bytes=2000@3 message.max.bytes=1048588@5]",
        );
        check(
            &topic,
            "segment.bytes=2097152 4 [log.segment.bytes=2097152@4 log.segment.bytes=1073741824@5]",
        );
        check(&topic, "retention.ms=86400000 5 []");
        let small = config.describe_topic(&map(&[("internal.segment.bytes", "20000")]));
        assert_eq!(small.len(), 38);
        check(
            &small,
            "internal.segment.bytes=20000 1 [internal.segment.bytes=20000@1]",
        );
        check(&topic, "flush.ms=9223372036854775807 5 []");

        let broker = config.describe_broker();
        check(
            &broker,
            "log.retention.hours=24 4 [log.retention.hours=24@4 log.retention.hours=168@5]",
        );
        check(&broker, "log.retention.ms=null 5 []");
        check(&broker, "nobody.knows=null 2 [nobody.knows=null@2]");
        let defaults = config.describe_broker_defaults();
        assert_eq!(defaults.len(), 2);
        check(
            &defaults,
            "message.max.bytes=2000 3 [message.max.bytes=2000@3]",
        );

        let group = config.describe_group(&map(&[("consumer.session.timeout.ms", "50000")]));
        check(
            &group,
            "consumer.session.timeout.ms=50000 8 [consumer.session.timeout.ms=50000@8 \
             group.consumer.session.timeout.ms=45000@5]",
        );
        check(
            &config.describe_client_metrics(&BTreeMap::new()),
            "interval.ms=300000 5 []",
        );
    }

    #[test]
    fn the_table_is_in_order_and_its_defaults_pass_its_own_checks() {
        for keys in [
            table::BROKER,
            table::SORDINI,
            table::DYNAMIC_ONLY,
            table::TOPIC,
            table::GROUP,
            table::CLIENT_METRICS,
        ] {
            assert!(keys.is_sorted_by(|a, b| a.name < b.name));
            for key in keys {
                if let Some(default) = key.default {
                    assert_eq!(
                        key.parse(default).expect("a valid default").to_string(),
                        default,
                        "{}",
                        key.name
                    );
                }
                if let Some(broker) = key.broker {
                    assert!(table::broker(broker).is_some(), "{broker}");
                }
                assert!(key.documentation.ends_with('.'), "{}", key.name);
            }
        }
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// `name=value source [synonym=value@source ...]`
    #[track_caller]
    fn check(entries: &[Entry], want: &str) {
        let shown = |value: &Option<String>| value.clone().unwrap_or("null".to_owned());
        let name = want.split('=').next().unwrap_or_default();
        let entry = entries
            .iter()
            .find(|entry| entry.name == name)
            .expect("an entry");
        let synonyms: Vec<String> = entry
            .synonyms
            .iter()
            .map(|synonym| {
                format!(
                    "{}={}@{}",
                    synonym.name,
                    shown(&synonym.value),
                    synonym.source.code()
                )
            })
            .collect();
        let got = format!(
            "{name}={} {} [{}]",
            shown(&entry.value),
            entry.source.code(),
            synonyms.join(" ")
        );
        assert_eq!(got, want);
    }
}
