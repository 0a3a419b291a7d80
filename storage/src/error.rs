//! What can go wrong with a log, by what the caller can do about it.

use std::{fmt, io, path::PathBuf};

/// Why a log operation failed.
///
/// There is one variant for each thing a caller can *do* about it, not one for each place that can
/// fail: answer the client, cut the tail during recovery, or treat the directory as gone.
#[derive(Debug)]
pub enum Error {
    /// The offset is outside `start..=end`. Ordinary: a consumer fell behind retention.
    OffsetOutOfRange { offset: i64, start: i64, end: i64 },

    /// A batch that carries its offset (from a leader, from the metadata log) does not follow what
    /// is here. The follower must truncate or fetch again.
    UnexpectedOffset { expected: i64, found: i64 },

    /// The batch is larger than a segment may be.
    BatchTooLarge { size: usize, max: u32 },

    /// The sequence is not the one after the producer's last. A record is missing in between, or
    /// this is a retry from before the last five batches.
    OutOfOrderSequence {
        producer_id: i64,
        producer_epoch: i16,
        last: i32,
        found: i32,
    },

    /// A producer with a newer epoch has written here: this one is a zombie.
    InvalidProducerEpoch {
        producer_id: i64,
        found: i16,
        current: i16,
    },

    /// A record outside of a transaction from a producer that has one open here.
    InvalidTxnState { producer_id: i64 },

    /// A transaction marker from a coordinator that is no longer the one.
    CoordinatorFenced {
        producer_id: i64,
        found: i32,
        current: i32,
    },

    /// The batch is well formed but not something a log can hold.
    InvalidRecord { reason: &'static str },

    /// Bytes read back do not pass their check. Recovery truncates here; anywhere else it is fatal
    /// for the segment.
    Corrupt {
        path: PathBuf,
        position: u64,
        reason: &'static str,
    },

    /// The segment was deleted while it was being read: by now the offset is out of range, or compaction has put
    /// another in its place. Or the whole log was.
    Gone { path: PathBuf },

    /// A system call failed, and with it the log directory: after a failed *fsync* the page cache
    /// can no longer be trusted, and Kafka draws the same line at any other IO error.
    Io {
        op: &'static str,
        path: PathBuf,
        source: io::Error,
    },

    /// An earlier failure took this log directory offline. It stays so until a restart.
    Offline { dir: PathBuf },

    /// Another process (ours or Kafka's) holds the directory's `.lock`.
    InUse { dir: PathBuf },

    /// The directory is laid out in a way that is not known here.
    Format { path: PathBuf, version: String },

    /// The directory belongs to another node or cluster.
    NotOurs {
        path: PathBuf,
        key: &'static str,
        expected: String,
        found: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::OffsetOutOfRange { offset, start, end } => {
                write!(f, "offset {offset} is outside of the log, {start} to {end}")
            }
            Error::UnexpectedOffset { expected, found } => {
                write!(
                    f,
                    "a batch at offset {found} does not follow the log end {expected}"
                )
            }
            Error::BatchTooLarge { size, max } => {
                write!(f, "a batch of {size} bytes does not fit a segment of {max}")
            }
            Error::OutOfOrderSequence {
                producer_id,
                producer_epoch,
                last,
                found,
            } => write!(
                f,
                "sequence {found} of producer {producer_id} epoch {producer_epoch} does not follow {last}"
            ),
            Error::InvalidProducerEpoch {
                producer_id,
                found,
                current,
            } => write!(
                f,
                "epoch {found} of producer {producer_id} is older than {current}"
            ),
            Error::InvalidTxnState { producer_id } => write!(
                f,
                "producer {producer_id} wrote outside of its open transaction"
            ),
            Error::CoordinatorFenced {
                producer_id,
                found,
                current,
            } => write!(
                f,
                "a marker for producer {producer_id} comes from coordinator epoch {found}, older than {current}"
            ),
            Error::InvalidRecord { reason } => f.write_str(reason),
            Error::Corrupt {
                path,
                position,
                reason,
            } => write!(f, "{} is damaged at {position}: {reason}", path.display()),
            Error::Gone { path } => write!(f, "{} has been deleted", path.display()),
            Error::Io { op, path, .. } => write!(f, "cannot {op} {}", path.display()),
            Error::Offline { dir } => write!(
                f,
                "log directory {} is offline after an earlier failure",
                dir.display()
            ),
            Error::InUse { dir } => write!(
                f,
                "log directory {} is locked by another process",
                dir.display()
            ),
            Error::Format { path, version } if version == "0" => write!(
                f,
                "{} is of version 0, which brokers with ZooKeeper write: only version 1 can be read, which Apache Kafka \
                 3.9 or earlier leaves when it has moved the cluster to KRaft",
                path.display()
            ),
            Error::Format { path, version } => write!(
                f,
                "{} is of version {version}, only version 1 can be read: a newer broker has written it",
                path.display()
            ),
            Error::NotOurs {
                path,
                key,
                expected,
                found,
            } => write!(
                f,
                "{} says {key}={found}, this node has {expected}",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
