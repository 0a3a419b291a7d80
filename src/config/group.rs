//! What the group coordinator goes by: the broker's keys, and a group's own values where it has some.

use std::{collections::BTreeMap, time::Duration};

use protocol::compression::Compression;

use super::{Config, key::Value, settings::Reader, table, topic};

/// The broker's keys for groups and their offsets. A field is named after its key, dots as underscores; times are
/// in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// `group.coordinator.rebalance.protocols` names it.
    pub consumer_protocol: bool,
    /// How many threads may find out what members' expressions match.
    pub background_threads: usize,

    pub initial_rebalance_delay_ms: i32,
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    pub max_size: usize,

    pub consumer_assignors: Vec<String>,
    pub consumer_max_size: usize,
    pub consumer_migration_policy: MigrationPolicy,

    pub offset_metadata_max_bytes: usize,
    pub offsets_commit_timeout: Duration,
    pub offsets_retention_check_interval_ms: i64,
    pub offsets_retention_ms: i64,
    /// Of what is written into `__consumer_offsets`.
    pub offsets_topic_compression: Compression,
    pub offsets_topic_num_partitions: i32,
    pub offsets_topic_replication_factor: i16,
    pub offsets_topic_segment_bytes: i32,
}

/// Whether groups pass between the classic and the consumer protocol by themselves (KIP-848): upward when a member
/// of the new protocol comes, downward when the last of them goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationPolicy {
    Disabled,
    Downgrade,
    Upgrade,
    Bidirectional,
}

impl MigrationPolicy {
    pub fn upgrades(self) -> bool {
        matches!(self, Self::Upgrade | Self::Bidirectional)
    }

    pub fn downgrades(self) -> bool {
        matches!(self, Self::Downgrade | Self::Bidirectional)
    }
}

/// What holds for one group of the consumer protocol. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupConfig {
    pub assignment_interval_ms: i32,
    pub heartbeat_interval_ms: i32,
    pub session_timeout_ms: i32,
}

impl Groups {
    pub(super) fn read(read: &mut Reader<'_>) -> Self {
        let protocols = read.list("group.coordinator.rebalance.protocols");
        let serves = |name: &str| protocols.iter().any(|protocol| protocol == name);
        Self {
            consumer_protocol: serves("consumer"),
            background_threads: read.size("group.coordinator.background.threads"),

            initial_rebalance_delay_ms: read.int("group.initial.rebalance.delay.ms"),
            min_session_timeout_ms: read.int("group.min.session.timeout.ms"),
            max_session_timeout_ms: read.int("group.max.session.timeout.ms"),
            max_size: read.size("group.max.size"),

            consumer_assignors: read.list("group.consumer.assignors"),
            consumer_max_size: read.size("group.consumer.max.size"),
            consumer_migration_policy: match &*read
                .text("group.consumer.migration.policy")
                .to_ascii_lowercase()
            {
                "disabled" => MigrationPolicy::Disabled,
                "downgrade" => MigrationPolicy::Downgrade,
                "upgrade" => MigrationPolicy::Upgrade,
                _ => MigrationPolicy::Bidirectional,
            },

            offset_metadata_max_bytes: read.size("offset.metadata.max.bytes"),
            offsets_commit_timeout: read.duration("offsets.commit.timeout.ms"),
            offsets_retention_check_interval_ms: read.long("offsets.retention.check.interval.ms"),
            offsets_retention_ms: i64::from(read.int("offsets.retention.minutes")) * 60_000,
            offsets_topic_compression: compression(read),
            offsets_topic_num_partitions: read.int("offsets.topic.num.partitions"),
            offsets_topic_replication_factor: read.short("offsets.topic.replication.factor"),
            offsets_topic_segment_bytes: read.int("offsets.topic.segment.bytes"),
        }
    }
}

fn compression(read: &mut Reader<'_>) -> Compression {
    const KEY: &str = "offsets.topic.compression.codec";
    let codec = i16::try_from(read.int(KEY)).ok();
    codec.and_then(Compression::from_id).unwrap_or_else(|| {
        read.refuse(KEY, "0 (none), 1 (gzip), 2 (snappy), 3 (lz4) or 4 (zstd)");
        Compression::None
    })
}

/// Keys that have a meaning through the groups of the consumer protocol: as what holds for those that have no value of
/// their own, and as the bounds of those that have.
pub(super) fn consumer_keys() -> impl Iterator<Item = &'static str> {
    let all = table::BROKER.iter().map(|key| key.name);
    all.filter(|name| name.starts_with("group.consumer.") && name.ends_with(".ms"))
}

impl Config {
    /// What holds for a group with these overrides; a value that cannot be read counts as none.
    pub fn consumer_group(&self, overrides: &BTreeMap<String, String>) -> ConsumerGroupConfig {
        let millis = |name: &str| -> i32 {
            let key = table::find(table::GROUP, name);
            let of = |text: &str| key?.parse(text).ok();
            let own = overrides.get(name).and_then(|text| of(text));
            let value = own.or_else(|| of(&topic::inherited(&self.settings, key?)?));
            match value {
                Some(Value::Integer(number)) => i32::try_from(number).unwrap_or(i32::MAX),
                _ => 0,
            }
        };
        ConsumerGroupConfig {
            assignment_interval_ms: millis("consumer.assignment.interval.ms"),
            heartbeat_interval_ms: millis("consumer.heartbeat.interval.ms"),
            session_timeout_ms: millis("consumer.session.timeout.ms"),
        }
    }
}
