//! Why bytes are not a record batch, or its records are not records.

use std::fmt;

use crate::{
    compression::{Compression, DecompressError},
    varint::Malformed,
};

/// Why bytes are not a record batch, or its records are not records.
///
/// What Apache Kafka 4.4.0 was seen to answer a producer is said with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchError {
    /// Fewer bytes than a header has, or than the header announces. INVALID_RECORD: there is no
    /// whole batch.
    TooShort { size: usize, needed: usize },
    /// A length below what a header takes. CORRUPT_MESSAGE.
    Length(i32),
    /// Not version 2. INVALID_RECORD for 0 and 1, which are formats no client since 0.11 need send;
    /// CORRUPT_MESSAGE for what never was one.
    Magic(i8),
    /// The stored CRC-32C is not that of the bytes. CORRUPT_MESSAGE.
    Crc { stored: u32, computed: u32 },
    /// A negative base offset, or one so large that the last offset does not fit. INVALID_RECORD.
    BaseOffset(i64),
    /// More records than offsets, or a negative number of either. INVALID_RECORD.
    Count {
        records: i32,
        last_offset_delta: i32,
    },
    /// Bytes after the batch where exactly one was expected. INVALID_RECORD for another batch.
    Trailing(usize),
    /// What follows the batch is long enough to tell that it never becomes another. CORRUPT_MESSAGE.
    Garbage(usize),
    /// A codec number nobody has assigned (5 to 7). Kafka trips: UNKNOWN_SERVER_ERROR.
    Compression(i16),
    /// The compressed records do not decompress. Kafka trips: UNKNOWN_SERVER_ERROR.
    Decompress(Compression),
    /// The records decompress to more than `limit` bytes. INVALID_RECORD.
    DecompressedTooLarge { limit: usize },
    /// A record does not follow the format, or their number is not the header's. INVALID_RECORD.
    Record(&'static str),
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchError::TooShort { size, needed } => {
                write!(f, "the batch needs {needed} bytes and has {size}")
            }
            BatchError::Length(length) => write!(f, "the batch length {length} is too small"),
            BatchError::Magic(magic) => write!(f, "the batch has magic {magic}, not 2"),
            BatchError::Crc { stored, computed } => {
                write!(
                    f,
                    "the batch is corrupt (stored crc = {stored}, computed crc = {computed})"
                )
            }
            BatchError::BaseOffset(offset) => write!(f, "the batch has base offset {offset}"),
            BatchError::Count {
                records,
                last_offset_delta,
            } => write!(
                f,
                "the batch has {records} records and last offset delta {last_offset_delta}"
            ),
            BatchError::Trailing(extra) => write!(f, "{extra} bytes follow the batch"),
            BatchError::Garbage(extra) => {
                write!(f, "{extra} bytes that are no batch follow the batch")
            }
            BatchError::Compression(id) => write!(f, "unknown compression type id: {id}"),
            BatchError::Decompress(codec) => write!(f, "the records are not valid {codec}"),
            BatchError::DecompressedTooLarge { limit } => {
                write!(f, "the records decompress to more than {limit} bytes")
            }
            BatchError::Record(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for BatchError {}

impl BatchError {
    pub(crate) fn decompress(codec: Compression, err: DecompressError) -> BatchError {
        match err {
            DecompressError::TooLarge { limit } => BatchError::DecompressedTooLarge { limit },
            DecompressError::Malformed => BatchError::Decompress(codec),
        }
    }
}

impl From<Malformed> for BatchError {
    fn from(_: Malformed) -> BatchError {
        BatchError::Record("a record ends inside an integer")
    }
}
