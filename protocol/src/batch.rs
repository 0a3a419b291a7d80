//! A record batch (magic 2) as a checked view over `Bytes`.
//!
//! A [`Batch`] exists only if its lengths agree and its CRC is right, so nobody below checks again.
//! It is never copied to be stored: base offset and leader epoch lie outside the CRC, and
//! [`Batch::stamped`] yields the 61 header bytes with both rewritten; what follows is the client's.
//!
//! ```text
//!  0 base offset        i64    prefix: not counted in `length`
//!  8 length             i32
//! 12 leader epoch       i32
//! 16 magic              i8     2
//! 17 CRC-32C            u32    of everything from 21 on
//! 21 attributes         i16    codec 0-2, log append time 3, transactional 4, control 5, delete horizon 6
//! 23 last offset delta  i32
//! 27 base timestamp     i64    ms; the delete horizon where attribute 6 is set
//! 35 max timestamp      i64    ms
//! 43 producer id        i64    -1: none
//! 51 producer epoch     i16
//! 53 base sequence      i32
//! 57 record count       i32
//! 61 records
//! ```
//!
//! Records themselves are not looked at here: [`crate::validate`] walks those of a client's batch,
//! [`Batch::records`] reads them. A batch may hold fewer records than it spans offsets, even none:
//! compaction leaves such batches behind.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    compression::{self, Compression, DecompressError},
    record::{self, Records},
    varint::Malformed,
};

/// Bytes before the first record.
pub const HEADER_SIZE: usize = 61;

/// Bytes that `length` does not count: base offset and length itself.
const PREFIX_SIZE: usize = 12;

/// A producer id, epoch or sequence that is not there; a timestamp that is not known.
const NONE: i8 = -1;

/// What the smallest message of the oldest format counted in `length`.
const MESSAGE_LENGTH_MIN: i32 = 14;

const CRC_START: usize = 21;
const MAGIC: i8 = 2;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

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

    fn check(&self) -> Result<(), BatchError> {
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

/// The bytes of exactly one batch, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    header: Header,
    bytes: Bytes,
}

impl Batch {
    /// Takes `bytes` as exactly one batch. Allocates and copies nothing; reads every byte once.
    pub fn parse(bytes: Bytes) -> Result<Batch, BatchError> {
        let header = Header::parse(&bytes)?;
        if header.size > bytes.len() {
            return Err(BatchError::TooShort {
                size: bytes.len(),
                needed: header.size,
            });
        }
        if header.size < bytes.len() {
            return Err(BatchError::Trailing(bytes.len() - header.size));
        }
        let computed = crc32c::crc32c(&bytes[CRC_START..]);
        if computed != header.crc {
            return Err(BatchError::Crc {
                stored: header.crc,
                computed,
            });
        }
        Ok(Batch { header, bytes })
    }

    /// The bytes of the one batch that a producer may send, off the front of what it sent.
    ///
    /// Kafka takes whole batches off the front as long as there are any: a second one is refused, and so
    /// is what cannot become one; the beginning of one is passed over. Nothing of the batch is checked
    /// but its header.
    pub fn only(bytes: Bytes) -> Result<Bytes, BatchError> {
        let size = Header::parse(&bytes)?.size;
        if size > bytes.len() {
            return Err(BatchError::TooShort {
                size: bytes.len(),
                needed: size,
            });
        }
        let rest = &bytes[size..];
        let length = rest.get(8..).and_then(<[u8]>::first_chunk);
        if let Some(length) = length.map(|length| i32::from_be_bytes(*length)) {
            let magic = rest.get(16).map(|magic| magic.cast_signed());
            let possible = length >= MESSAGE_LENGTH_MIN
                && magic.is_none_or(|magic| (0..=MAGIC).contains(&magic));
            if !possible {
                return Err(BatchError::Garbage(rest.len()));
            }
            let whole =
                usize::try_from(length).is_ok_and(|length| length + PREFIX_SIZE <= rest.len());
            if whole && magic.is_some() {
                return Err(BatchError::Trailing(rest.len()));
            }
        }
        Ok(bytes.slice(..size))
    }

    /// The batches with which `bytes` begin; the last one may be cut off, as it may be in what a log is read for.
    ///
    /// # Errors
    /// If not even the first is whole, or one is damaged.
    pub fn whole(bytes: Bytes) -> Result<Vec<Batch>, BatchError> {
        let mut rest = bytes.clone();
        while rest.len() >= HEADER_SIZE {
            let size = Header::parse(&rest)?.size;
            if size > rest.len() {
                break;
            }
            rest = rest.slice(size..);
        }
        match bytes.len() - rest.len() {
            // Says what is missing.
            0 => Self::split(bytes),
            whole => Self::split(bytes.slice(..whole)),
        }
    }

    /// Takes `bytes` as whole batches in a row, as a follower receives them.
    pub fn split(mut bytes: Bytes) -> Result<Vec<Batch>, BatchError> {
        let mut batches = Vec::new();
        while !bytes.is_empty() {
            let size = Header::parse(&bytes)?.size;
            if size > bytes.len() {
                return Err(BatchError::TooShort {
                    size: bytes.len(),
                    needed: size,
                });
            }
            batches.push(Batch::parse(bytes.split_to(size))?);
        }
        Ok(batches)
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What follows the header: the records, compressed if the header says so.
    pub fn records_bytes(&self) -> Bytes {
        self.bytes.slice(HEADER_SIZE..)
    }

    /// The header's bytes with base offset and leader epoch rewritten; the CRC covers neither.
    pub fn stamped(&self, base_offset: i64, leader_epoch: i32) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes.copy_from_slice(&self.bytes[..HEADER_SIZE]);
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        bytes
    }

    /// The batch as a topic with `message.timestamp.type=LogAppendTime` keeps it: every record's
    /// time is `now` (ms). The bytes are copied, the CRC is new.
    pub fn with_log_append_time(self, now: i64) -> Batch {
        let attributes = self.header.attributes | LOG_APPEND_TIME;
        self.rewritten(attributes, now)
    }

    /// The batch as a topic with `message.timestamp.type=CreateTime` keeps it: with the largest
    /// timestamp (ms) of its records as the max timestamp. The same batch if it is that already,
    /// as it is from every client that works.
    ///
    /// A wrong max timestamp would mislead retention and the time index. Kafka corrects it silently,
    /// and clears a log append time flag that the client set, and so do we.
    pub fn with_create_time(self, max_timestamp: i64) -> Batch {
        let attributes = self.header.attributes & !LOG_APPEND_TIME;
        if self.header.max_timestamp == max_timestamp && self.header.attributes == attributes {
            return self;
        }
        self.rewritten(attributes, max_timestamp)
    }

    fn rewritten(self, attributes: i16, max_timestamp: i64) -> Batch {
        let mut header = Header {
            attributes,
            max_timestamp,
            ..self.header
        };
        let mut bytes = self
            .bytes
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        bytes[..HEADER_SIZE].copy_from_slice(&header.encode());
        seal(&mut header, &mut bytes);
        Batch {
            header,
            bytes: bytes.freeze(),
        }
    }

    /// The records in order. Those of a compressed batch are decompressed first, at once, and no
    /// further than to `limit` bytes; those of an uncompressed one are views into this batch.
    pub fn records(&self, limit: usize) -> Result<Records, BatchError> {
        let codec = self.header.compression();
        let records = match codec {
            Compression::None => self.records_bytes(),
            codec => compression::decompress(codec, &self.bytes[HEADER_SIZE..], limit)
                .map_err(|err| BatchError::decompress(codec, err))?,
        };
        Ok(Records::new(&self.header, records))
    }
}

/// Computes the CRC over `bytes` and writes it there and into the header.
fn seal(header: &mut Header, bytes: &mut [u8]) {
    header.crc = crc32c::crc32c(&bytes[CRC_START..]);
    bytes[17..CRC_START].copy_from_slice(&header.crc.to_be_bytes());
}

/// Puts records together to a batch.
///
/// Records get the offsets 0, 1, 2... after the base offset unless placed by [`Builder::push_at`].
/// Made for what a broker writes itself: its own logs, markers, recompressed and compacted batches.
#[derive(Debug, Clone)]
pub struct Builder {
    header: Header,
    level: Option<i32>,
    /// The delta is fixed by [`Builder::spanning`] rather than by the last record.
    spanning: bool,
    /// The records after room for the header.
    bytes: Vec<u8>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// An uncompressed batch at offset 0 of no producer, leader epoch -1.
    pub fn new() -> Builder {
        Builder {
            header: Header {
                base_offset: 0,
                size: HEADER_SIZE,
                leader_epoch: -1,
                magic: MAGIC,
                crc: 0,
                attributes: 0,
                last_offset_delta: -1,
                base_timestamp: i64::from(NONE),
                max_timestamp: i64::from(NONE),
                producer_id: i64::from(NONE),
                producer_epoch: i16::from(NONE),
                base_sequence: i32::from(NONE),
                record_count: 0,
            },
            level: None,
            spanning: false,
            bytes: vec![0; HEADER_SIZE],
        }
    }

    /// An empty batch with everything but the records taken from `header`: the same offsets,
    /// producer, flags and codec. For compaction (which keeps some of the records and all of the
    /// rest, so that producers' sequences survive) and recompression.
    pub fn like(header: &Header) -> Builder {
        let max_timestamp = match header.timestamp_type() {
            TimestampType::CreateTime => i64::from(NONE),
            TimestampType::LogAppendTime => header.max_timestamp,
        };
        let header = Header {
            size: HEADER_SIZE,
            record_count: 0,
            max_timestamp,
            ..*header
        };
        Builder {
            header,
            level: None,
            spanning: true,
            bytes: vec![0; HEADER_SIZE],
        }
    }

    pub fn base_offset(mut self, offset: i64) -> Builder {
        self.header.base_offset = offset;
        self
    }

    pub fn leader_epoch(mut self, epoch: i32) -> Builder {
        self.header.leader_epoch = epoch;
        self
    }

    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Builder {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Compresses the records, at `level` or, with `None`, at Kafka's default for the codec.
    pub fn compression(mut self, codec: Compression, level: Option<i32>) -> Builder {
        self.header.attributes = self.header.attributes & !CODEC_MASK | codec.id();
        self.level = level;
        self
    }

    pub fn transactional(mut self) -> Builder {
        self.header.attributes |= TRANSACTIONAL;
        self
    }

    pub fn control(mut self) -> Builder {
        self.header.attributes |= CONTROL;
        self
    }

    /// Every record's time is `now` (ms), whatever the records say.
    pub fn log_append_time(mut self, now: i64) -> Builder {
        self.header.attributes |= LOG_APPEND_TIME;
        self.header.max_timestamp = now;
        self
    }

    /// Tombstones and markers in this batch may be dropped from `at` (ms) on.
    ///
    /// # Panics
    /// After the first record: the horizon is stored as what records count their time from.
    pub fn delete_horizon(mut self, at: i64) -> Builder {
        assert!(
            self.is_empty(),
            "the delete horizon is set before the first record"
        );
        self.header.attributes |= DELETE_HORIZON;
        self.header.base_timestamp = at;
        self
    }

    /// Ends the batch `last_offset_delta` after its base offset, whatever the last record is.
    pub fn spanning(mut self, last_offset_delta: i32) -> Builder {
        self.header.last_offset_delta = last_offset_delta;
        self.spanning = true;
        self
    }

    /// Sets the max timestamp (ms) of a batch that has no record left to tell it.
    pub fn max_timestamp(mut self, timestamp: i64) -> Builder {
        self.header.max_timestamp = timestamp;
        self
    }

    /// Adds a record after the last one. `timestamp` in ms.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        // Counts records, so it is right only as long as nobody left a gap with `push_at`.
        self.push_at(self.header.record_count, timestamp, key, value, headers);
    }

    /// Adds a record at `offset_delta`, which must be larger than the last one's.
    pub fn push_at(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let first = self.header.record_count == 0;
        if first && !self.header.has_delete_horizon() {
            self.header.base_timestamp = timestamp;
        }
        if self.header.timestamp_type() == TimestampType::CreateTime {
            self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        }
        let timestamp_delta = timestamp.wrapping_sub(self.header.base_timestamp);
        record::put(
            &mut self.bytes,
            offset_delta,
            timestamp_delta,
            key,
            value,
            headers,
        );
        self.header.record_count += 1;
        if !self.spanning {
            self.header.last_offset_delta = offset_delta;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// Bytes the batch takes so far, before compression.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The finished batch. `None` if it has neither records nor a span, or does not fit 2 GiB.
    pub fn build(self) -> Option<Batch> {
        let Builder {
            mut header,
            level,
            mut bytes,
            ..
        } = self;
        if header.check().is_err() {
            return None;
        }
        let records = &bytes[HEADER_SIZE..];
        // A batch that lost all its records stays uncompressed: there is nothing to decompress.
        match header.compression() {
            _ if records.is_empty() => header.attributes &= !CODEC_MASK,
            Compression::None => (),
            codec => {
                let compressed = compression::compress(codec, level, records);
                bytes.truncate(HEADER_SIZE);
                bytes.extend_from_slice(&compressed);
            }
        }
        header.size = bytes.len();
        i32::try_from(header.size).ok()?;
        bytes[..HEADER_SIZE].copy_from_slice(&header.encode());
        seal(&mut header, &mut bytes);
        Some(Batch {
            header,
            bytes: bytes.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_parsed_and_read_back() {
        for codec in Compression::ALL {
            let mut builder = Builder::new()
                .compression(codec, None)
                .producer(7, 3, 41)
                .leader_epoch(5);
            builder.push(
                1000,
                Some(b"key"),
                Some(b"value"),
                &[(b"h", Some(b"1")), (b"h", None)],
            );
            builder.push(990, None, None, &[]);
            let built = builder.base_offset(100).build().unwrap();
            let batch = Batch::parse(built.bytes().clone()).unwrap();
            assert_eq!(batch, built);

            let header = batch.header();
            assert_eq!((header.last_offset(), header.next_offset()), (101, 102));
            assert_eq!((header.base_timestamp, header.max_timestamp), (1000, 1000));
            assert_eq!(
                (
                    header.producer_id,
                    header.producer_epoch,
                    header.last_sequence()
                ),
                (7, 3, 42)
            );
            assert_eq!(header.compression(), codec);
            assert_eq!(header.encode(), batch.bytes()[..HEADER_SIZE]);

            let records: Vec<_> = batch.records(1000).unwrap().map(Result::unwrap).collect();
            assert_eq!(records.len(), 2);
            assert_eq!(records[0].key.as_deref(), Some(&b"key"[..]));
            assert_eq!(records[0].value.as_deref(), Some(&b"value"[..]));
            let headers: Vec<_> = records[0].headers.iter().collect();
            assert_eq!(
                headers,
                [("h".into(), Some("1".into())), ("h".into(), None)]
            );
            assert_eq!((records[1].offset, records[1].timestamp), (101, 990));
            assert_eq!((&records[1].key, &records[1].value), (&None, &None));
        }
    }

    #[test]
    fn a_flipped_bit_under_the_crc_is_found_and_those_outside_may_change() {
        let batch = small();
        for at in CRC_START..batch.bytes().len() {
            let mut bytes = batch.bytes().to_vec();
            bytes[at] ^= 0x10;
            assert!(Batch::parse(bytes.into()).is_err(), "byte {at}");
        }
        let mut bytes = batch.bytes().to_vec();
        bytes[..HEADER_SIZE].copy_from_slice(&batch.stamped(1234, 56));
        let stamped = Batch::parse(bytes.into()).unwrap();
        assert_eq!(
            (stamped.header().base_offset, stamped.header().leader_epoch),
            (1234, 56)
        );
    }

    #[test]
    fn each_fault_has_its_name() {
        let good = small().bytes().to_vec();
        let size = good.len();
        let changed = |at: usize, with: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + with.len()].copy_from_slice(with);
            Batch::parse(bytes.into()).unwrap_err()
        };
        assert_eq!(
            Batch::parse(Bytes::new()),
            Err(BatchError::TooShort {
                size: 0,
                needed: 61
            })
        );
        assert_eq!(
            Batch::parse(good[..size - 1].to_vec().into()),
            Err(BatchError::TooShort {
                size: size - 1,
                needed: size
            })
        );
        assert_eq!(
            Batch::parse([&good[..], b"x"].concat().into()),
            Err(BatchError::Trailing(1))
        );
        assert_eq!(changed(8, &48i32.to_be_bytes()), BatchError::Length(48));
        assert_eq!(
            changed(8, &i32::MIN.to_be_bytes()),
            BatchError::Length(i32::MIN)
        );
        assert_eq!(changed(16, &[1]), BatchError::Magic(1));
        assert_eq!(
            changed(0, &i64::MAX.to_be_bytes()),
            BatchError::BaseOffset(i64::MAX)
        );
        assert_eq!(changed(22, &[7]), BatchError::Compression(7));
        assert_eq!(
            changed(57, &9i32.to_be_bytes()),
            BatchError::Count {
                records: 9,
                last_offset_delta: 0
            }
        );
        assert!(matches!(changed(size - 1, b"!"), BatchError::Crc { .. }));
    }

    #[test]
    fn batches_in_a_row_are_split() {
        let batches = [small(), small()];
        let row: Vec<u8> = batches
            .iter()
            .flat_map(|batch| batch.bytes().to_vec())
            .collect();
        assert_eq!(Batch::split(row.clone().into()).unwrap(), batches);
        assert!(Batch::split(row[..row.len() - 1].to_vec().into()).is_err());
        let cut = |size: usize| Batch::whole(row[..size].to_vec().into());
        assert_eq!(cut(row.len()).unwrap(), batches);
        assert_eq!(cut(row.len() - 1).unwrap(), batches[..1]);
        assert!(cut(batches[0].bytes().len() - 1).is_err());
        assert!(cut(HEADER_SIZE - 1).is_err() && cut(0).unwrap().is_empty());
    }

    #[test]
    fn the_append_time_holds_for_every_record() {
        let batch = small().with_log_append_time(777);
        assert_eq!(Batch::parse(batch.bytes().clone()).as_ref(), Ok(&batch));
        let times: Vec<_> = batch
            .records(0)
            .unwrap()
            .map(|record| record.unwrap().timestamp)
            .collect();
        assert_eq!(times, [777]);
    }

    #[test]
    fn a_wrong_max_timestamp_and_a_flag_that_is_not_the_clients_are_corrected() {
        let batch = small();
        assert_eq!(batch.clone().with_create_time(1), batch);
        let wrong = batch.clone().with_log_append_time(777);
        assert_eq!(wrong.with_create_time(1), batch);
    }

    #[test]
    fn a_compacted_batch_keeps_its_span_and_producer_even_without_records() {
        let mut builder = Builder::new()
            .producer(7, 0, i32::MAX - 1)
            .compression(Compression::Lz4, None);
        for timestamp in 0..4 {
            builder.push(timestamp, Some(b"k"), None, &[]);
        }
        let full = builder.base_offset(10).build().unwrap();
        assert_eq!(full.header().last_sequence(), 1);

        let empty = Builder::like(full.header())
            .max_timestamp(3)
            .build()
            .unwrap();
        assert_eq!(empty.bytes().len(), HEADER_SIZE);
        let header = empty.header();
        assert_eq!(
            (
                header.record_count,
                header.last_offset(),
                header.last_sequence()
            ),
            (0, 13, 1)
        );
        assert_eq!(empty.records(0).unwrap().count(), 0);

        let mut some = Builder::like(full.header()).delete_horizon(5000);
        some.push_at(2, 2, Some(b"k"), None, &[]);
        let some = some.build().unwrap();
        assert_eq!(some.header().delete_horizon(), Some(5000));
        assert_eq!(some.header().last_offset(), 13);
        let record = some.records(1000).unwrap().next().unwrap().unwrap();
        assert_eq!((record.offset, record.timestamp), (12, 2));
    }

    #[test]
    fn records_that_are_not_what_the_header_counts_are_an_error() {
        let two = {
            let mut builder = Builder::new();
            builder.push(1, None, None, &[]);
            builder.push(1, None, None, &[]);
            builder.build().unwrap()
        };
        for claimed in [1, 3] {
            let mut bytes = two.bytes().to_vec();
            bytes[23..27].copy_from_slice(&2i32.to_be_bytes());
            bytes[57..61].copy_from_slice(&i32::to_be_bytes(claimed));
            let crc = crc32c::crc32c(&bytes[CRC_START..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            let batch = Batch::parse(bytes.into()).unwrap();
            let last = batch.records(0).unwrap().last().unwrap();
            assert!(matches!(last, Err(BatchError::Record(_))));
        }
    }

    fn small() -> Batch {
        let mut builder = Builder::new();
        builder.push(1, Some(b"k"), Some(b"v"), &[]);
        builder.build().unwrap()
    }
}
