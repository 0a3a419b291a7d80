//! Compaction: of each key the newest record stays. [`crate::log::Log::compact`] is the door.
//!
//! ```text
//! plan          where to begin and to end; which segments become one     pure
//! offsets       the newest offset of each key, in bounded memory
//! transactions  what was aborted, and which markers are needed           pure
//! filter        what is left of a batch                                  pure
//! source        a segment's batches, read in chunks
//! ```
//!
//! Two passes: the first reads what has come since the last compaction and notes the newest offset of each
//! key; the second copies the log up to there without what is outdated. A copy is called `.cleaned` while
//! it is written and `.swap` when it is whole and on the disk; from then on it counts, whatever happens.
//! Readers go on: those that have found an old segment keep it.
//!
//! What is kept beyond the newest records:
//!
//! - offsets: a batch keeps its first and last, whatever is left in it;
//! - tombstones, for `delete.retention.ms` after the compaction that found them newest. The batch
//!   says until when, in Kafka's own way: attribute bit 6, and the time in place of the base timestamp;
//! - transaction markers, until no record of the transaction is left and as long again;
//! - the last batch of each producer, if need be without records: its sequence would be forgotten;
//! - the batch that ends where the compaction ends, for the same reason of offsets.

pub(crate) mod filter;
pub(crate) mod offsets;
pub(crate) mod plan;
pub(crate) mod source;
pub(crate) mod transactions;

pub use plan::Dirty;

/// What a compaction may use.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// For the newest offset of each key.
    pub map_bytes: u64,
    pub map_load_factor: f64,
    /// For reading, and as much for writing. A batch that is larger takes what it needs.
    pub buffer_bytes: usize,
    /// The most that the records of one batch may decompress to.
    pub decompressed_max: usize,
}

/// Whether to go on. Called with the bytes read or written since the last call, at least once for
/// each buffer: the place to wait, if they were too many, and to stop.
pub type Pace<'a> = &'a mut dyn FnMut(usize) -> Flow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Continue,
    Stop,
}

/// What a compaction has done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Compacted {
    /// Where the next one begins. `None` if it was stopped, or the log has changed under it.
    pub cleaned: Option<i64>,
    pub map_bytes_read: u64,
    /// Of the memory for keys, the share that was used.
    pub map_utilization: f64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub records_read: u64,
    pub records_written: u64,
    /// Records without a key, which do not belong into a compacted log.
    pub records_without_key: u64,
}
