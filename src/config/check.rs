//! What may be asked of a topic, a broker, a group or a client metrics subscription while the cluster runs.
//!
//! `proposed` is always everything that would be set, not only what changes: some limits hold between keys.
//! Messages are Kafka's. So is which of the two refusals a request gets: a broker's are called invalid requests
//! though they are about configurations (KAFKA-13609), and clients have learnt that.

use std::collections::BTreeMap;

use super::{
    Config, Error,
    dynamic::{Ignored, Layer},
    key::{Key, Update, Value},
    table,
};

/// Why a change of configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    InvalidConfig(String),
    InvalidRequest(String),
}

/// These are set for one listener, by `listener.name.NAME.` before them.
const PER_LISTENER: [&str; 10] = [
    "ssl.key.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

/// Kafka opens and closes listeners while it runs. Here they are bound at the start, and a value that is taken without
/// doing anything would be described as what holds.
const BOUND_AT_THE_START: [&str; 2] = ["listener.security.protocol.map", "listeners"];

/// A group's key, and the broker's keys that bound it from below and from above.
const GROUP_BOUNDS: [(&str, &str, &str); 12] = [
    (
        "consumer.assignment.interval.ms",
        "group.consumer.min.assignment.interval.ms",
        "group.consumer.max.assignment.interval.ms",
    ),
    (
        "consumer.heartbeat.interval.ms",
        "group.consumer.min.heartbeat.interval.ms",
        "group.consumer.max.heartbeat.interval.ms",
    ),
    (
        "consumer.session.timeout.ms",
        "group.consumer.min.session.timeout.ms",
        "group.consumer.max.session.timeout.ms",
    ),
    (
        "share.assignment.interval.ms",
        "group.share.min.assignment.interval.ms",
        "group.share.max.assignment.interval.ms",
    ),
    (
        "share.delivery.count.limit",
        "group.share.min.delivery.count.limit",
        "group.share.max.delivery.count.limit",
    ),
    (
        "share.heartbeat.interval.ms",
        "group.share.min.heartbeat.interval.ms",
        "group.share.max.heartbeat.interval.ms",
    ),
    (
        "share.partition.max.record.locks",
        "group.share.min.partition.max.record.locks",
        "group.share.max.partition.max.record.locks",
    ),
    (
        "share.record.lock.duration.ms",
        "group.share.min.record.lock.duration.ms",
        "group.share.max.record.lock.duration.ms",
    ),
    (
        "share.session.timeout.ms",
        "group.share.min.session.timeout.ms",
        "group.share.max.session.timeout.ms",
    ),
    (
        "streams.assignment.interval.ms",
        "group.streams.min.assignment.interval.ms",
        "group.streams.max.assignment.interval.ms",
    ),
    (
        "streams.heartbeat.interval.ms",
        "group.streams.min.heartbeat.interval.ms",
        "group.streams.max.heartbeat.interval.ms",
    ),
    (
        "streams.session.timeout.ms",
        "group.streams.min.session.timeout.ms",
        "group.streams.max.session.timeout.ms",
    ),
];

/// The sizes of Kafka's thread pools.
const THREAD_POOLS: [&str; 5] = [
    "num.io.threads",
    "num.network.threads",
    "num.replica.fetchers",
    "num.recovery.threads.per.data.dir",
    "background.threads",
];

/// What a client metrics subscription can select clients by.
const CLIENT_SELECTORS: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

impl Config {
    pub fn check_topic(&self, proposed: &BTreeMap<String, String>) -> Result<(), Refused> {
        for name in proposed.keys() {
            if table::find(table::TOPIC, name).is_none() {
                return invalid(format!("Unknown topic config name: {name}"));
            }
        }
        parse_all(table::TOPIC, proposed)?;
        if proposed
            .get("remote.storage.enable")
            .is_some_and(|text| text.trim().eq_ignore_ascii_case("true"))
        {
            return invalid(
                "Tiered Storage functionality is disabled in the broker. \
                 Topic cannot be configured with remote log storage."
                    .to_owned(),
            );
        }
        let topic = self.topic(proposed).log;
        if topic.min_compaction_lag_ms > topic.max_compaction_lag_ms {
            return invalid(format!(
                "conflict topic config setting min.compaction.lag.ms ({}) > max.compaction.lag.ms ({})",
                topic.min_compaction_lag_ms, topic.max_compaction_lag_ms
            ));
        }
        Ok(())
    }

    /// What is asked of this broker. `existing` is what is stored by now.
    pub fn check_broker(
        &self,
        proposed: &BTreeMap<String, String>,
        existing: &BTreeMap<String, String>,
    ) -> Result<(), Refused> {
        let (_, ignored) = self.following(&self.settings.cluster, existing);
        let proposed = &without(Layer::ThisBroker, &ignored, proposed, existing);
        check_update(proposed)?;
        check_bound(proposed.keys())?;
        self.check_together(&self.settings.cluster, proposed)
    }

    /// What is asked of all brokers at once. `existing` is what is stored by now.
    pub fn check_broker_defaults(
        &self,
        proposed: &BTreeMap<String, String>,
        existing: &BTreeMap<String, String>,
    ) -> Result<(), Refused> {
        let (_, ignored) = self.following(existing, &BTreeMap::new());
        let proposed = &without(Layer::AllBrokers, &ignored, proposed, existing);
        check_update(proposed)?;
        let is_own =
            |name: &&str| table::broker(name).is_some_and(|key| key.update == Update::PerBroker);
        let own: Vec<&str> = proposed.keys().map(String::as_str).filter(is_own).collect();
        if !own.is_empty() {
            return request(format!(
                "Cannot update these configs at default cluster level, broker id must be specified: [{}]",
                own.join(", ")
            ));
        }
        self.check_together(proposed, &self.settings.broker)
    }

    pub fn check_group(&self, proposed: &BTreeMap<String, String>) -> Result<(), Refused> {
        for name in proposed.keys() {
            if table::find(table::GROUP, name).is_none() {
                return invalid(format!("Unknown group config name: {name}"));
            }
        }
        parse_all(table::GROUP, proposed)?;
        for (name, min, max) in GROUP_BOUNDS {
            let Some(value) = number(proposed, name) else {
                continue;
            };
            let (min, max) = (self.limit(min), self.limit(max));
            if !(min..=max).contains(&value) {
                return invalid(format!(
                    "{name} must be in the range {min} to {max} inclusive."
                ));
            }
        }
        let max = self.limit("group.streams.max.standby.replicas");
        if number(proposed, "streams.num.standby.replicas").is_some_and(|value| value > max) {
            return invalid(format!(
                "streams.num.standby.replicas must be less than or equal to {max}"
            ));
        }
        if let Some(name) = proposed.get("streams.assignor.name") {
            let known = self
                .settings
                .set_value("group.streams.assignors")
                .unwrap_or("sticky");
            if !known.split(',').any(|assignor| assignor.trim() == name) {
                return invalid(format!(
                    "streams.assignor.name '{name}' is not a registered task assignor. \
                     Registered assignors are: [{known}]."
                ));
            }
        }
        if proposed
            .get("errors.deadletterqueue.topic.name")
            .is_some_and(|name| name.starts_with("__"))
        {
            return invalid(
                "errors.deadletterqueue.topic.name: DLQ topic name must not start with '__'"
                    .to_owned(),
            );
        }
        Ok(())
    }

    pub fn check_client_metrics(&self, proposed: &BTreeMap<String, String>) -> Result<(), Refused> {
        for name in proposed.keys() {
            if table::find(table::CLIENT_METRICS, name).is_none() {
                return request(format!("Unknown client metrics configuration: {name}"));
            }
        }
        parse_all(table::CLIENT_METRICS, proposed)?;
        if let Some(interval) = number(proposed, "interval.ms")
            && !(100..=3_600_000).contains(&interval)
        {
            return request(format!(
                "Invalid value {interval} for interval.ms, interval must be between 100 and 3600000 (1 hour)"
            ));
        }
        for selector in super::key::split(proposed.get("match").map_or("", String::as_str)) {
            let known = selector.split_once('=').is_some_and(|(name, pattern)| {
                CLIENT_SELECTORS.contains(&name.trim()) && !pattern.is_empty()
            });
            if !known {
                return invalid(format!("Illegal client matching pattern: {selector}"));
            }
        }
        Ok(())
    }

    fn check_together(
        &self,
        cluster: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Result<(), Refused> {
        match self.with_dynamic(cluster, broker) {
            Err(Error::Invalid(problems)) if !problems.is_empty() => {
                request(problems[0].reason.clone())
            }
            Err(other) => request(other.to_string()),
            Ok(changed) => self.check_change(&changed),
        }
    }

    /// What Kafka refuses though either value would do: thread pools change by no more than a factor of two
    /// at a time, and a limit on connections does not lock everybody out.
    fn check_change(&self, changed: &Config) -> Result<(), Refused> {
        for name in THREAD_POOLS {
            let (old, new) = (self.limit(name), changed.limit(name));
            let why = if new < old / 2 {
                format!("value should be at least half the current value {old}")
            } else if old * 2 < new {
                format!("value should not be greater than double the current value {old}")
            } else {
                continue;
            };
            return dynamic(&format!(
                "Dynamic thread count update validation failed for {name}={new}, {why}"
            ));
        }
        for name in ["max.connections", "max.connection.creation.rate"] {
            let (old, new) = (self.limit(name), changed.limit(name));
            if new != old && new == 0 {
                return dynamic(&format!("Invalid {name} {new}"));
            }
        }
        Ok(())
    }

    fn limit(&self, name: &str) -> i64 {
        let value = table::broker(name).and_then(|key| key.parse(self.settings.value(key)?).ok());
        match value {
            Some(Value::Integer(number)) => number,
            _ => 0,
        }
    }
}

/// Leaves out what is stored, is ignored, and stays as it is: it must not keep the others from being changed.
fn without(
    layer: Layer,
    ignored: &[Ignored],
    proposed: &BTreeMap<String, String>,
    existing: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut proposed = proposed.clone();
    for one in ignored.iter().filter(|one| one.layer == layer) {
        if proposed.get(&one.key) == existing.get(&one.key) {
            proposed.remove(&one.key);
        }
    }
    proposed
}

/// What no broker lets itself be told while it runs, for one or for all.
fn check_update(proposed: &BTreeMap<String, String>) -> Result<(), Refused> {
    check_names(proposed.keys().map(String::as_str))?;
    // A name nobody knows is let through, as Kafka does: it may belong to a plugin.
    for (name, text) in proposed {
        if let Some(key) = table::broker(name) {
            key.parse(text).map_err(Refused::InvalidRequest)?;
        }
    }
    Ok(())
}

/// These can be set while a broker runs, whatever the values.
pub(super) fn check_names<'a>(
    names: impl IntoIterator<Item = &'a str> + Clone,
) -> Result<(), Refused> {
    let among = |is_refused: fn(&str) -> bool| -> Vec<&str> {
        let names = names.clone().into_iter();
        names.filter(|name| is_refused(name)).collect()
    };
    let fixed = among(|name| table::broker(name).is_some_and(|key| key.update == Update::ReadOnly));
    if !fixed.is_empty() {
        return request(format!(
            "Cannot update these configs dynamically: [{}]",
            fixed.join(", ")
        ));
    }
    let bare = among(|name| PER_LISTENER.contains(&name));
    if !bare.is_empty() {
        return request(format!(
            "These security configs can be dynamically updated only per-listener using the listener prefix: [{}]",
            bare.join(", ")
        ));
    }
    Ok(())
}

/// None of these is what only another start can change.
pub(super) fn check_bound<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<(), Refused> {
    let bound = |name: &&String| BOUND_AT_THE_START.contains(&name.as_str());
    match names.into_iter().find(bound) {
        Some(name) => request(format!(
            "{name} cannot be changed while the broker runs: set it where the broker is started, and start it again"
        )),
        None => Ok(()),
    }
}

fn parse_all(keys: &'static [Key], proposed: &BTreeMap<String, String>) -> Result<(), Refused> {
    for (name, text) in proposed {
        if let Some(key) = table::find(keys, name) {
            key.parse(text).map_err(Refused::InvalidConfig)?;
        }
    }
    Ok(())
}

fn number(proposed: &BTreeMap<String, String>, name: &str) -> Option<i64> {
    proposed.get(name)?.trim().parse().ok()
}

fn invalid(message: String) -> Result<(), Refused> {
    Err(Refused::InvalidConfig(message))
}

fn request(message: String) -> Result<(), Refused> {
    Err(Refused::InvalidRequest(message))
}

/// A refusal as Kafka words those that only show when the change is made.
fn dynamic(why: &str) -> Result<(), Refused> {
    request(format!(
        "Invalid value org.apache.kafka.common.config.ConfigException: {why} \
         for configuration Invalid dynamic configuration"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sentences are those of Kafka 4.4.0's own validators.
    #[test]
    fn a_topics_values_are_refused_in_kafkas_words() {
        topic("retention.ms=-1", "");
        topic("retention.ms= 5 ", "");
        topic("retention.ms=+5", "");
        topic(
            "retention.ms=x",
            "Invalid value x for configuration retention.ms: Not a number of type LONG",
        );
        topic(
            "retention.ms=-2",
            "Invalid value -2 for configuration retention.ms: Value must be at least -1",
        );
        topic(
            "retention.ms=",
            "Invalid value  for configuration retention.ms: Not a number of type LONG",
        );
        topic(
            "retention.ms=1.5",
            "Invalid value 1.5 for configuration retention.ms: Not a number of type LONG",
        );
        topic(
            "segment.bytes=3000000000",
            "Invalid value 3000000000 for configuration segment.bytes: Not a number of type INT",
        );
        topic(
            "segment.bytes=14",
            "Invalid value 14 for configuration segment.bytes: Value must be at least 1048576",
        );
        topic("cleanup.policy=", "");
        topic("cleanup.policy= delete , compact ", "");
        topic("cleanup.policy=delete,delete", "");
        topic(
            "cleanup.policy=delete,",
            "Configuration 'cleanup.policy' values must not be empty.",
        );
        topic(
            "cleanup.policy=DELETE",
            "Invalid value DELETE for configuration cleanup.policy: String must be one of: compact, delete",
        );
        topic(
            "compression.type=none",
            "Invalid value none for configuration compression.type: \
             String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        );
        topic(
            "compression.gzip.level=0",
            "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
        );
        topic("preallocate= TRUE", "");
        topic(
            "preallocate=yes",
            "Invalid value yes for configuration preallocate: Expected value to be either true or false",
        );
        topic("min.cleanable.dirty.ratio=1e-1", "");
        topic(
            "min.cleanable.dirty.ratio=1.5",
            "Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
        );
        topic("leader.replication.throttled.replicas=0:1, 1:2", "");
        topic("leader.replication.throttled.replicas=*", "");
        topic(
            "leader.replication.throttled.replicas=*,0:1",
            "Invalid value [*, 0:1] for configuration leader.replication.throttled.replicas: \
             leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following \
             format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        );
        topic(
            "message.format.version=3.0",
            "Unknown topic config name: message.format.version",
        );
        topic(
            "min.compaction.lag.ms=100 max.compaction.lag.ms=50",
            "conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms (50)",
        );
        topic(
            "remote.storage.enable=true",
            "Tiered Storage functionality is disabled in the broker. \
             Topic cannot be configured with remote log storage.",
        );
    }

    #[test]
    fn a_broker_may_be_told_only_what_can_change_while_it_runs() {
        broker("message.max.bytes=5", "");
        broker("nobody.knows=1", "");
        broker("listener.name.plaintext.ssl.keystore.password=x", "");
        broker(
            "node.id=2",
            "Cannot update these configs dynamically: [node.id]",
        );
        broker(
            "log.retention.hours=1",
            "Cannot update these configs dynamically: [log.retention.hours]",
        );
        broker(
            "ssl.keystore.password=x",
            "These security configs can be dynamically updated only per-listener using the listener prefix: \
             [ssl.keystore.password]",
        );
        for name in BOUND_AT_THE_START {
            let why = "cannot be changed while the broker runs: set it where the broker is started, and start it again";
            broker(&format!("{name}=PLAINTEXT://:1"), &format!("{name} {why}"));
        }
        broker(
            "num.io.threads=0",
            "Invalid value 0 for configuration num.io.threads: Value must be at least 1",
        );
        broker(
            "leader.replication.throttled.rate=-1",
            "Invalid value -1 for configuration leader.replication.throttled.rate: Value must be at least 0",
        );
        broker(
            "log.roll.ms=0",
            "Invalid value 0 for configuration log.roll.ms: log.roll.ms must be greater than or equal to 1",
        );
        let config = single_node();
        assert_eq!(
            config.check_broker_defaults(&map("listeners=PLAINTEXT://:1"), &BTreeMap::new()),
            request(
                "Cannot update these configs at default cluster level, broker id must be specified: [listeners]"
                    .to_owned()
            )
        );
    }

    /// Or nothing could be changed before somebody has found out which of them it is.
    #[test]
    fn a_stored_value_that_is_ignored_does_not_keep_others_from_being_changed() {
        let config = single_node();
        let stored = map("log.segment.bytes=1 message.max.bytes=5");
        let none = BTreeMap::new();
        for proposed in [
            "log.segment.bytes=1 message.max.bytes=6",
            "log.segment.bytes=2097152",
            "message.max.bytes=6",
        ] {
            assert_eq!(config.check_broker(&map(proposed), &stored), Ok(()));
            let of_all = config.check_broker_defaults(&map(proposed), &stored);
            assert_eq!(of_all, Ok(()), "{proposed}");
        }
        let worse = map("log.segment.bytes=2 message.max.bytes=6");
        assert!(config.check_broker(&worse, &stored).is_err());
        let wrong = map("log.segment.bytes=1");
        assert!(config.check_broker(&wrong, &none).is_err());
    }

    #[test]
    fn a_group_stays_within_what_the_broker_allows() {
        group("consumer.session.timeout.ms=50000", "");
        group(
            "consumer.session.timeout.ms=5",
            "consumer.session.timeout.ms must be in the range 45000 to 60000 inclusive.",
        );
        group(
            "share.delivery.count.limit=1",
            "Invalid value 1 for configuration share.delivery.count.limit: Value must be at least 2",
        );
        group(
            "share.delivery.count.limit=11",
            "share.delivery.count.limit must be in the range 2 to 10 inclusive.",
        );
        group(
            "streams.num.standby.replicas=3",
            "streams.num.standby.replicas must be less than or equal to 2",
        );
        group("share.auto.offset.reset=by_duration:P1DT2H", "");
        group(
            "share.auto.offset.reset=by_duration:-P1D",
            "Invalid value by_duration:-P1D for configuration share.auto.offset.reset: Invalid value \
             `by_duration:-P1D` for configuration share.auto.offset.reset. The value must be either 'earliest', \
             'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'.",
        );
        group(
            "streams.assignor.name=x",
            "streams.assignor.name 'x' is not a registered task assignor. Registered assignors are: [sticky].",
        );
        group("nope=1", "Unknown group config name: nope");
    }

    #[test]
    fn a_client_metrics_subscription_selects_by_what_clients_have() {
        client_metrics("match=client_id=a.*,client_software_name=b", "");
        client_metrics("metrics=*", "");
        client_metrics("match=foo=bar", "Illegal client matching pattern: foo=bar");
        client_metrics(
            "interval.ms=5",
            "Invalid value 5 for interval.ms, interval must be between 100 and 3600000 (1 hour)",
        );
        client_metrics("nope=1", "Unknown client metrics configuration: nope");
    }

    fn single_node() -> Config {
        Config::single_node(&[]).expect("the built-in configuration")
    }

    #[track_caller]
    fn topic(settings: &str, want: &str) {
        check(single_node().check_topic(&map(settings)), settings, want);
    }

    #[track_caller]
    fn broker(settings: &str, want: &str) {
        let none = BTreeMap::new();
        check(
            single_node().check_broker(&map(settings), &none),
            settings,
            want,
        );
    }

    #[track_caller]
    fn group(settings: &str, want: &str) {
        check(single_node().check_group(&map(settings)), settings, want);
    }

    #[track_caller]
    fn client_metrics(settings: &str, want: &str) {
        check(
            single_node().check_client_metrics(&map(settings)),
            settings,
            want,
        );
    }

    #[track_caller]
    fn check(got: Result<(), Refused>, settings: &str, want: &str) {
        let got = match got {
            Ok(()) => String::new(),
            Err(Refused::InvalidConfig(message) | Refused::InvalidRequest(message)) => message,
        };
        assert_eq!(got, want, "for {settings}");
    }

    /// `a=1` alone keeps its blanks; several settings are separated by one.
    fn map(settings: &str) -> BTreeMap<String, String> {
        let many = settings.split(' ').all(|word| word.contains('='));
        let words: Vec<&str> = if many {
            settings.split(' ').collect()
        } else {
            vec![settings]
        };
        let pair = |word: &&str| {
            word.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        words.iter().filter_map(pair).collect()
    }
}
