//! The 61 bytes in front of the records.

use bytes::BufMut;

use super::BatchError;
use crate::compression::Compression;

/// Bytes before the first record.
pub const HEADER_SIZE: usize = 61;

/// Bytes that `length` does not count: base offset and length itself.
pub(super) const PREFIX_SIZE: usize = 12;

/// A producer id, epoch or sequence that is not there; a timestamp that is not known.
pub(super) const NONE: i8 = -1;

/// What the smallest message of the oldest format counted in `length`.
pub(super) const MESSAGE_LENGTH_MIN: i32 = 14;

pub(super) const MAGIC: i8 = 2;

pub(super) const CODEC_MASK: i16 = 0x07;
pub(super) const LOG_APPEND_TIME: i16 = 0x08;
pub(super) const TRANSACTIONAL: i16 = 0x10;
pub(super) const CONTROL: i16 = 0x20;
pub(super) const DELETE_HORIZON: i16 = 0x40;

/// What a batch's timestamps mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// Each record carries its producer's time.
    CreateTime,
    /// The batch's max timestamp is when the broker appended it, and holds for all its records.
    LogAppendTime,
}

/// The 61 bytes in front of the records, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub base_offset: i64,
    /// The whole batch in bytes, the 12 of the prefix included. At least [`HEADER_SIZE`].
    pub size: usize,
    pub leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    /// -1 when the producer is not idempotent.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl Header {
    /// Reads the header in front of `bytes`, which need not hold the rest of the batch.
    ///
    /// What is checked: magic, length at least [`HEADER_SIZE`], a known codec, offsets that do not
    /// overflow and a count that fits the offsets. Not the CRC, which needs the rest.
    pub fn parse(bytes: &[u8]) -> Result<Header, BatchError> {
        // Length and magic lie at the same place in every version, and an old message may be
        // shorter than a header of ours: say what it is rather than that it is short.
        if let Some(length) = bytes.get(8..).and_then(<[u8]>::first_chunk)
            && i32::from_be_bytes(*length) < MESSAGE_LENGTH_MIN
        {
            return Err(BatchError::Length(i32::from_be_bytes(*length)));
        }
        if let Some(&magic) = bytes.get(16)
            && magic.cast_signed() != MAGIC
        {
            return Err(BatchError::Magic(magic.cast_signed()));
        }
        let Some(header) = bytes.first_chunk::<HEADER_SIZE>() else {
            return Err(BatchError::TooShort {
                size: bytes.len(),
                needed: HEADER_SIZE,
            });
        };
        let length = i32::from_be_bytes(field(header, 8));
        let size = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_add(PREFIX_SIZE))
            .filter(|size| *size >= HEADER_SIZE)
            .ok_or(BatchError::Length(length))?;
        let header = Header {
            base_offset: i64::from_be_bytes(field(header, 0)),
            size,
            leader_epoch: i32::from_be_bytes(field(header, 12)),
            magic: MAGIC,
            crc: u32::from_be_bytes(field(header, 17)),
            attributes: i16::from_be_bytes(field(header, 21)),
            last_offset_delta: i32::from_be_bytes(field(header, 23)),
            base_timestamp: i64::from_be_bytes(field(header, 27)),
            max_timestamp: i64::from_be_bytes(field(header, 35)),
            producer_id: i64::from_be_bytes(field(header, 43)),
            producer_epoch: i16::from_be_bytes(field(header, 51)),
            base_sequence: i32::from_be_bytes(field(header, 53)),
            record_count: i32::from_be_bytes(field(header, 57)),
        };
        header.check()?;
        Ok(header)
    }

    pub(super) fn check(&self) -> Result<(), BatchError> {
        let codec = self.attributes & CODEC_MASK;
        if Compression::from_id(codec).is_none() {
            return Err(BatchError::Compression(codec));
        }
        let counts_fit = self.last_offset_delta >= 0
            && self.record_count >= 0
            && i64::from(self.record_count) <= i64::from(self.last_offset_delta) + 1;
        if !counts_fit {
            return Err(BatchError::Count {
                records: self.record_count,
                last_offset_delta: self.last_offset_delta,
            });
        }
        // One past the last offset must be an offset too: it is where the next batch goes.
        if self.base_offset < 0 || self.base_offset > i64::MAX - 1 - i64::from(i32::MAX) {
            return Err(BatchError::BaseOffset(self.base_offset));
        }
        Ok(())
    }

    /// The header as it lies in a log, with the CRC it was read with.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        let mut rest = &mut out[..];
        rest.put_i64(self.base_offset);
        // Invariant: `size` came from an i32 length or was checked to fit by the builder.
        rest.put_i32(i32::try_from(self.size - PREFIX_SIZE).expect("a batch length fits an i32"));
        rest.put_i32(self.leader_epoch);
        rest.put_i8(self.magic);
        rest.put_u32(self.crc);
        rest.put_i16(self.attributes);
        rest.put_i32(self.last_offset_delta);
        rest.put_i64(self.base_timestamp);
        rest.put_i64(self.max_timestamp);
        rest.put_i64(self.producer_id);
        rest.put_i16(self.producer_epoch);
        rest.put_i32(self.base_sequence);
        rest.put_i32(self.record_count);
        out
    }

    pub fn compression(&self) -> Compression {
        // Invariant: checked by `parse`, written by the builder.
        Compression::from_id(self.attributes & CODEC_MASK)
            .expect("a parsed header's codec is known")
    }

    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the one record is a marker of the broker's (commit, abort, leader change), not data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether the base timestamp is the time (ms) from which compaction may drop the batch's
    /// tombstones and transaction markers.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    pub fn delete_horizon(&self) -> Option<i64> {
        self.has_delete_horizon().then_some(self.base_timestamp)
    }

    /// Whether an idempotent or transactional producer wrote it.
    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    /// The offset of the last record, or of the last one that compaction removed.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Where the following batch starts.
    pub fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// The sequence number of the last record. After `i32::MAX` comes 0. -1 without a sequence.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return i32::from(NONE);
        }
        sequence_after(self.base_sequence, self.last_offset_delta)
    }
}

/// The sequence number `steps` after `sequence`; both are at least 0. After `i32::MAX` comes 0.
pub fn sequence_after(sequence: i32, steps: i32) -> i32 {
    // 2^31 - 1 + 1 wraps to 0, as in Kafka's DefaultRecordBatch.incrementSequence.
    sequence.wrapping_add(steps) & i32::MAX
}

fn field<const N: usize>(header: &[u8; HEADER_SIZE], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}
