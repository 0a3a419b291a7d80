//! What holds for one topic: its own values, and the broker's where it has none.

use std::collections::BTreeMap;

use protocol::batch::TimestampType;

use super::{
    Config,
    key::{Key, Value},
    settings::{Reader, Settings},
    table,
};

/// The configuration of a topic. A field is named after its key, dots as underscores.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    /// What the log below needs to know.
    pub log: storage::config::Config,
    pub compression_type: Compression,
    pub max_message_bytes: usize,
    pub max_decompressed_message_bytes: usize,
    pub message_timestamp_type: TimestampType,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_after_max_ms: i64,
    pub min_insync_replicas: usize,
    pub unclean_leader_election_enable: bool,
}

/// `compression.type` and the level that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As the client sent it.
    Producer,
    /// `None` means the codec's own default level.
    Codec(protocol::compression::Compression, Option<i32>),
}

impl Config {
    /// What holds for a topic with these overrides. An override that cannot be read counts as none: it was
    /// checked when it was set, so only a newer version of us could have accepted it.
    pub fn topic(&self, overrides: &BTreeMap<String, String>) -> TopicConfig {
        let topic = Topic {
            settings: &self.settings,
            overrides,
        };
        let policy = topic.list("cleanup.policy");
        let has = |name: &str| policy.iter().any(|item| item == name);
        TopicConfig {
            log: storage::config::Config {
                segment_bytes: topic.segment_bytes(),
                segment_ms: topic.long("segment.ms"),
                segment_jitter_ms: topic.long("segment.jitter.ms"),
                index_interval_bytes: topic.size("index.interval.bytes"),
                segment_index_bytes: topic.size("segment.index.bytes"),
                retention_ms: topic.long("retention.ms"),
                retention_bytes: topic.long("retention.bytes"),
                flush_messages: topic.long("flush.messages"),
                flush_ms: topic.long("flush.ms"),
                file_delete_delay_ms: topic.long("file.delete.delay.ms"),
                preallocate: topic.boolean("preallocate"),
                delete: has("delete"),
                compact: has("compact"),
                delete_retention_ms: topic.long("delete.retention.ms"),
                min_compaction_lag_ms: topic.long("min.compaction.lag.ms"),
                max_compaction_lag_ms: topic.long("max.compaction.lag.ms"),
                min_cleanable_dirty_ratio: topic.double("min.cleanable.dirty.ratio"),
                producer_id_expiration_ms: self.producer_id_expiration_ms,
            },
            compression_type: topic.compression(),
            max_message_bytes: topic.size("max.message.bytes"),
            max_decompressed_message_bytes: topic.size("max.decompressed.message.bytes"),
            message_timestamp_type: match topic.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            message_timestamp_before_max_ms: topic.long("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms: topic.long("message.timestamp.after.max.ms"),
            min_insync_replicas: topic.size("min.insync.replicas"),
            unclean_leader_election_enable: topic.boolean("unclean.leader.election.enable"),
        }
    }
}

struct Topic<'a> {
    settings: &'a Settings,
    overrides: &'a BTreeMap<String, String>,
}

impl Topic<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        let key = table::find(table::TOPIC, name)?;
        let own = self
            .overrides
            .get(name)
            .and_then(|text| key.parse(text).ok());
        own.or_else(|| key.parse(&inherited(self.settings, key)?).ok())
    }

    fn long(&self, name: &str) -> i64 {
        match self.value(name) {
            Some(Value::Integer(number)) => number,
            _ => 0,
        }
    }

    fn size<T: TryFrom<i64> + Default>(&self, name: &str) -> T {
        T::try_from(self.long(name)).unwrap_or_default()
    }

    /// The one for tests goes first. Kafka lets it be anything, and so does nothing but refuse records if it is
    /// less than one: as if it were one.
    fn segment_bytes(&self) -> u32 {
        match self.value("internal.segment.bytes") {
            Some(Value::Integer(number)) => u32::try_from(number).unwrap_or(1).max(1),
            _ => self.size("segment.bytes"),
        }
    }

    fn double(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Double(number)) => number,
            _ => 0.0,
        }
    }

    fn boolean(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Boolean(true)))
    }

    fn text(&self, name: &str) -> String {
        self.value(name)
            .map(|value| value.to_string())
            .unwrap_or_default()
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }

    fn compression(&self) -> Compression {
        use protocol::compression::Compression as Codec;
        let level = |name| Some(self.size(name));
        match self.text("compression.type").as_str() {
            "uncompressed" => Compression::Codec(Codec::None, None),
            "gzip" => Compression::Codec(
                Codec::Gzip,
                level("compression.gzip.level").filter(|level| *level != -1),
            ),
            "snappy" => Compression::Codec(Codec::Snappy, None),
            "lz4" => Compression::Codec(Codec::Lz4, level("compression.lz4.level")),
            "zstd" => Compression::Codec(Codec::Zstd, level("compression.zstd.level")),
            _ => Compression::Producer,
        }
    }
}

/// The text a topic's key has when the topic itself says nothing.
pub(super) fn inherited(settings: &Settings, key: &Key) -> Option<String> {
    let from_broker = key
        .broker
        .and_then(|broker| settings.value_of_synonyms(broker));
    from_broker.or_else(|| key.default.map(str::to_owned))
}

/// Limits on the broker's log keys that only hold once hours, minutes and milliseconds have been weighed up.
pub(super) fn check_broker(read: &mut Reader<'_>) {
    let limits = [
        (
            "log.roll.ms",
            1,
            "log.roll.ms must be greater than or equal to 1",
        ),
        (
            "log.roll.jitter.ms",
            0,
            "log.roll.jitter.ms must be greater than or equal to 0",
        ),
    ];
    let effective = |read: &Reader<'_>, name| {
        let text = read.settings().value_of_synonyms(name)?;
        text.trim().parse::<i64>().ok()
    };
    for (name, min, why) in limits {
        if effective(read, name).is_some_and(|value| value < min) {
            read.refuse(name, why);
        }
    }
    if effective(read, "log.retention.ms") == Some(0) {
        read.refuse(
            "log.retention.ms",
            "log.retention.ms must be unlimited, -1 or, equal or greater than 1",
        );
    }
    // The topics read these through their synonyms.
    for name in [
        "log.retention.minutes",
        "log.retention.hours",
        "log.roll.hours",
        "log.roll.jitter.hours",
    ] {
        read.optional_long(name);
    }
    read.optional_long("log.flush.scheduler.interval.ms");
}
