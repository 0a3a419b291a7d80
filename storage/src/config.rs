//! What a topic's configuration says about its logs, with Kafka's defaults.

/// The topic settings that reach the log. Names are Kafka's keys with dots as underscores.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Roll before the segment would grow past this.
    pub segment_bytes: u32,
    /// Roll when a batch is this much younger than the segment's first.
    pub segment_ms: i64,
    /// Spread the rolls of many partitions over this much time.
    pub segment_jitter_ms: i64,
    /// One index entry for about this many bytes of log.
    pub index_interval_bytes: u32,
    /// The most an index file may grow to: a full index rolls the segment.
    pub segment_index_bytes: u32,
    /// Delete segments whose newest record is older; negative keeps them.
    pub retention_ms: i64,
    /// Delete the oldest segments while the log is larger; negative keeps them.
    pub retention_bytes: i64,
    /// A flush is due after this many records (1: before every acknowledgement).
    pub flush_messages: i64,
    /// A flush is due when the oldest unflushed record has waited this long.
    pub flush_ms: i64,
    /// Time between renaming a file to `.deleted` and removing it: readers may still be at it.
    pub file_delete_delay_ms: i64,
    /// Reserve `segment_bytes` on disk when a segment is created.
    pub preallocate: bool,
    /// `cleanup.policy` contains `delete`.
    pub delete: bool,
    /// `cleanup.policy` contains `compact`.
    pub compact: bool,
    pub delete_retention_ms: i64,
    pub min_compaction_lag_ms: i64,
    pub max_compaction_lag_ms: i64,
    pub min_cleanable_dirty_ratio: f64,
    /// Forget a producer that has been silent for this long.
    pub producer_id_expiration_ms: i64,
}

impl Config {
    /// When the active segment is rolled by its age. It is not compacted, so it may not outlive
    /// `max.compaction.lag.ms`.
    pub(crate) fn roll_ms(&self) -> i64 {
        if self.compact && self.max_compaction_lag_ms > 0 {
            self.segment_ms.min(self.max_compaction_lag_ms)
        } else {
            self.segment_ms
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Config {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            file_delete_delay_ms: 60_000,
            preallocate: false,
            delete: true,
            compact: false,
            delete_retention_ms: DAY_MS,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_dirty_ratio: 0.5,
            producer_id_expiration_ms: DAY_MS,
        }
    }
}
