//! Dynamic configuration as it is stored, which is not always as this version would take it.
//!
//! Another version may have accepted it, Kafka's before 4.0 for one, and the directory was then taken over. What cannot be
//! followed counts as none, key by key: if one took the others with it, a retention that was lifted would be back, and
//! records would be deleted. A value that was refused here in the first place never gets this far: see `check`.

use std::{collections::BTreeMap, fmt};

use super::{
    Config, Error,
    check::{self, Refused},
    key::Update,
    table,
};

/// Whom a dynamic value is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    AllBrokers,
    ThisBroker,
}

/// A stored value that counts as none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    pub layer: Layer,
    pub key: String,
    pub reason: String,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.layer {
            Layer::AllBrokers => "all brokers",
            Layer::ThisBroker => "this broker",
        };
        write!(f, "{}, set for {of}: {}", self.key, self.reason)
    }
}

/// Values by name, for all brokers and for this one.
#[derive(Default)]
struct Layers {
    all: BTreeMap<String, String>,
    own: BTreeMap<String, String>,
}

impl Layers {
    fn of(&mut self, layer: Layer) -> &mut BTreeMap<String, String> {
        match layer {
            Layer::AllBrokers => &mut self.all,
            Layer::ThisBroker => &mut self.own,
        }
    }
}

impl Config {
    /// The same node with what can be followed of the dynamic configuration that is stored, and what cannot.
    pub fn following(
        &self,
        cluster: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> (Config, Vec<Ignored>) {
        let mut ignored = Vec::new();
        let mut stored = Layers::default();
        for (layer, values) in [(Layer::AllBrokers, cluster), (Layer::ThisBroker, broker)] {
            for (key, value) in values {
                match never(layer, key) {
                    Some(reason) => ignored.push(Ignored {
                        layer,
                        key: key.clone(),
                        reason,
                    }),
                    None => {
                        stored.of(layer).insert(key.clone(), value.clone());
                    }
                }
            }
        }
        if let Ok(config) = self.with_dynamic(&stored.all, &stored.own) {
            return (config, ignored);
        }
        let stored = self.without_bad(stored, &mut ignored);
        // Each was accepted with the others, so all are. If not, what was there at the start still holds.
        let config = self.with_dynamic(&stored.all, &stored.own);
        (config.unwrap_or_else(|_| self.clone()), ignored)
    }

    /// Key by key, and again while that lets another one in: some are only right together.
    fn without_bad(&self, stored: Layers, ignored: &mut Vec<Ignored>) -> Layers {
        let all = stored.all.into_iter();
        let all = all.map(|(key, value)| (Layer::AllBrokers, key, value));
        let own = stored.own.into_iter();
        let own = own.map(|(key, value)| (Layer::ThisBroker, key, value));
        // There is nothing wrong with a name that nobody knows; there is no limit on how many there are, either.
        let (mut open, unknown): (Vec<_>, Vec<_>) = all
            .chain(own)
            .partition(|(_, key, _)| table::broker(key).is_some());
        let mut good = Layers::default();
        loop {
            let mut refused = Vec::new();
            let mut rest = Vec::new();
            let count = open.len();
            for (layer, key, value) in open {
                good.of(layer).insert(key.clone(), value.clone());
                if let Err(err) = self.with_dynamic(&good.all, &good.own) {
                    good.of(layer).remove(&key);
                    refused.push(Ignored {
                        layer,
                        key: key.clone(),
                        reason: reason(err),
                    });
                    rest.push((layer, key, value));
                }
            }
            if rest.len() == count || rest.is_empty() {
                ignored.append(&mut refused);
                break;
            }
            open = rest;
        }
        for (layer, key, value) in unknown {
            good.of(layer).insert(key, value);
        }
        good
    }
}

/// Why a key is no dynamic one on this layer, whatever its value.
fn never(layer: Layer, key: &String) -> Option<String> {
    let update = table::broker(key).map(|key| key.update);
    let is_allowed = match layer {
        Layer::AllBrokers => update != Some(Update::PerBroker),
        Layer::ThisBroker => true,
    };
    if !is_allowed {
        return Some("it can only be set for one broker".to_owned());
    }
    match check::check_names([key.as_str()]).and_then(|()| check::check_bound([key])) {
        Ok(()) => None,
        Err(Refused::InvalidRequest(why) | Refused::InvalidConfig(why)) => Some(why),
    }
}

fn reason(err: Error) -> String {
    match err {
        Error::Invalid(problems) => problems
            .into_iter()
            .next()
            .map_or_else(String::new, |problem| problem.reason),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Kafka of before 4.0 took it: segments of half a mebibyte. All were ignored with it, and after five minutes
    /// what should be kept for ever was deleted.
    #[test]
    fn a_key_that_cannot_be_read_does_not_take_the_others_with_it() {
        let (config, ignored) = following(
            "log.segment.bytes=524288 log.retention.ms=-1 message.max.bytes=2000 nobody.knows=1",
            "message.max.bytes=x log.cleaner.threads=2",
        );
        let topic = config.topic(&BTreeMap::new());
        assert_eq!(topic.log.retention_ms, -1);
        assert_eq!(topic.log.segment_bytes, 1 << 30);
        assert_eq!(topic.max_message_bytes, 2000, "what is set for all holds");
        assert_eq!(config.log_cleaner_threads, 2);
        assert_eq!(
            ignored,
            [
                "log.segment.bytes, set for all brokers: Invalid value 524288 for configuration log.segment.bytes: \
                 Value must be at least 1048576",
                "message.max.bytes, set for this broker: Invalid value x for configuration message.max.bytes: \
                 Not a number of type INT",
            ]
        );
    }

    /// What two keys mean together is nobody's fault alone, and the rest is followed.
    #[test]
    fn values_that_contradict_what_the_node_was_started_with_are_ignored_too() {
        let (config, ignored) = following("log.roll.ms=0 log.retention.ms=-1", "");
        assert_eq!(config.topic(&BTreeMap::new()).log.retention_ms, -1);
        assert_eq!(ignored.len(), 1, "{ignored:?}");
    }

    #[test]
    fn what_is_fixed_at_the_start_stays_as_it_was() {
        let (config, ignored) = following(
            "node.id=7 max.connections.per.ip=5 listeners=PLAINTEXT://:1",
            "listeners=PLAINTEXT://:1 ssl.keystore.password=x",
        );
        assert_eq!((config.node_id, config.max_connections_per_ip), (1, 5));
        let keys: Vec<&str> = ignored
            .iter()
            .filter_map(|one| one.split(',').next())
            .collect();
        assert_eq!(
            keys,
            ["listeners", "node.id", "listeners", "ssl.keystore.password"]
        );
    }

    /// The configuration, and what was ignored as it is told.
    fn following(cluster: &str, broker: &str) -> (Config, Vec<String>) {
        let fixed = Config::single_node(&[]).expect("the built-in configuration");
        let map = |settings: &str| -> BTreeMap<String, String> {
            let words = settings
                .split_whitespace()
                .filter_map(|word| word.split_once('='));
            words
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        };
        let (config, ignored) = fixed.following(&map(cluster), &map(broker));
        (config, ignored.iter().map(Ignored::to_string).collect())
    }
}
