//! What the transaction coordinator goes by.

use std::time::Duration;

use super::settings::Reader;

/// The broker's keys for transactions. A field is named after its key, dots as underscores; times are in
/// milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transactions {
    pub max_timeout_ms: i32,
    pub partition_verification_enable: bool,
    pub remove_expired_interval_ms: i64,
    pub transactional_id_expiration_ms: i64,
    /// How long who adds a partition waits for the end of the transaction before.
    pub add_partitions_retry_max: Duration,

    pub state_log_min_isr: i32,
    pub state_log_num_partitions: i32,
    pub state_log_replication_factor: i16,
    pub state_log_segment_bytes: i32,
}

impl Transactions {
    pub(super) fn read(read: &mut Reader<'_>) -> Self {
        Self {
            max_timeout_ms: read.int("transaction.max.timeout.ms"),
            partition_verification_enable: read
                .boolean("transaction.partition.verification.enable"),
            remove_expired_interval_ms: read
                .long("transaction.remove.expired.transaction.cleanup.interval.ms"),
            transactional_id_expiration_ms: read.long("transactional.id.expiration.ms"),
            add_partitions_retry_max: read.duration("add.partitions.to.txn.retry.backoff.max.ms"),

            state_log_min_isr: read.int("transaction.state.log.min.isr"),
            state_log_num_partitions: read.int("transaction.state.log.num.partitions"),
            state_log_replication_factor: read.short("transaction.state.log.replication.factor"),
            state_log_segment_bytes: read.int("transaction.state.log.segment.bytes"),
        }
    }

    /// Whether a producer may ask for this transaction timeout.
    pub fn is_timeout(&self, timeout_ms: i32) -> bool {
        (1..=self.max_timeout_ms).contains(&timeout_ms)
    }
}
