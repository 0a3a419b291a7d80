//! May a client's batch be appended? One walk over its records, on the produce hot path.
//!
//! The rules are those of Kafka's `LogValidator` and of the checks in front of it. The walk copies
//! and allocates nothing for an uncompressed batch; a compressed one streams through a fixed
//! buffer, so a batch that decompresses to gigabytes costs time up to the limit but no memory.
//!
//! What is refused here is INVALID_RECORD (see [`BatchError`] for the exceptions) or, as soon as
//! one [`RecordError`] is about a timestamp, INVALID_TIMESTAMP for the whole batch.

use std::{fmt, io::Read, ops::RangeInclusive};

use crate::{
    batch::{Batch, BatchError, TimestampType},
    compression::{Compression, Reader},
    varint,
};

/// What a topic asks of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Every record needs a key: the topic is compacted.
    pub keyed: bool,
    /// The times (ms) a record may carry, both ends included; -1 (unknown) always may. `None` when
    /// the topic keeps append times.
    pub timestamps: Option<RangeInclusive<i64>>,
    /// `max.decompressed.message.bytes`: what compressed records may decompress to.
    pub decompressed_max: usize,
}

/// What the walk has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The largest timestamp (ms) of a record: -1 if none has one. The header's may be another;
    /// see [`Batch::with_create_time`].
    pub max_timestamp: i64,
    /// Bytes of all records, decompressed.
    pub records_size: usize,
}

/// Why a client's batch is not appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The records do not decompress, do too much so, or are not records.
    Malformed(BatchError),
    /// Clients count from 0.
    BaseOffset(i64),
    /// A client's batch has at least one record, and as many as it spans offsets.
    Count {
        records: i32,
        last_offset_delta: i32,
    },
    /// Only brokers write control batches.
    Control,
    /// An idempotent producer without a sequence number.
    Sequence(i32),
    /// Some records break the topic's rules.
    Records(RecordErrors),
}

/// The records that break the topic's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordErrors {
    /// How many there are.
    pub total: usize,
    /// The first of them, at most [`RecordErrors::KEPT`]. Never empty.
    pub first: Vec<RecordError>,
    /// Whether any of all of them is about a timestamp, which decides the batch's error code.
    pub any_timestamp: bool,
}

impl RecordErrors {
    /// Kafka keeps all; a batch of a million records without keys shall not cost us more than it
    /// cost its sender.
    pub const KEPT: usize = 1000;
}

/// One record that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordError {
    /// Its place in the batch, from 0.
    pub index: i32,
    pub reason: RecordReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordReason {
    /// The topic is compacted.
    NoKey,
    /// The record's time (ms) is outside [`Rules::timestamps`].
    Timestamp(i64),
    /// The batch claims log append time, which is the broker's to set. As Kafka, we let it pass on
    /// a topic that keeps create times if the time it claims is there and allowed.
    TimestampType,
    /// Offset deltas are 0, 1, 2... Kafka looks only at those of compressed batches (and trips over
    /// them: UNKNOWN_SERVER_ERROR). In others it takes any, and consumers then see offsets that
    /// belong to later batches.
    OffsetDelta(i32),
}

impl RecordReason {
    pub fn is_timestamp(self) -> bool {
        matches!(
            self,
            RecordReason::Timestamp(_) | RecordReason::TimestampType
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Malformed(err) => err.fmt(f),
            Refusal::BaseOffset(offset) => {
                write!(
                    f,
                    "the base offset of the record batch should be 0, but it is {offset}"
                )
            }
            Refusal::Count {
                records,
                last_offset_delta,
            } => write!(
                f,
                "inconsistent batch: {records} records, last offset delta {last_offset_delta}"
            ),
            Refusal::Control => f.write_str("Clients are not allowed to write control records"),
            Refusal::Sequence(sequence) => {
                write!(
                    f,
                    "Invalid sequence number {sequence} in record batch with a producer id"
                )
            }
            Refusal::Records(errors) => {
                write!(f, "{} records break the topic's rules", errors.total)
            }
        }
    }
}

impl std::error::Error for Refusal {}

impl From<BatchError> for Refusal {
    fn from(err: BatchError) -> Refusal {
        Refusal::Malformed(err)
    }
}

/// Checks a batch as a client sent it against the format and the topic's rules.
pub fn client_batch(batch: &Batch, rules: &Rules) -> Result<Summary, Refusal> {
    let header = batch.header();
    if header.base_offset != 0 {
        return Err(Refusal::BaseOffset(header.base_offset));
    }
    // `parse` has seen to it that the delta is not negative.
    if header.record_count == 0 || header.record_count - 1 != header.last_offset_delta {
        return Err(Refusal::Count {
            records: header.record_count,
            last_offset_delta: header.last_offset_delta,
        });
    }
    if header.is_control() {
        return Err(Refusal::Control);
    }
    if header.has_producer() && header.base_sequence < 0 {
        return Err(Refusal::Sequence(header.base_sequence));
    }

    let records = &batch.bytes()[crate::batch::HEADER_SIZE..];
    match header.compression() {
        Compression::None => walk(
            batch,
            rules,
            InMemory {
                bytes: records,
                at: 0,
            },
        ),
        codec => walk(
            batch,
            rules,
            Streamed::new(codec, records, rules.decompressed_max)?,
        ),
    }
}

fn walk(batch: &Batch, rules: &Rules, mut source: impl Source) -> Result<Summary, Refusal> {
    let header = batch.header();
    let append_time = match header.timestamp_type() {
        TimestampType::CreateTime => None,
        TimestampType::LogAppendTime => Some(header.max_timestamp),
    };
    let mut errors = RecordErrors {
        total: 0,
        first: Vec::new(),
        any_timestamp: false,
    };
    let mut max_timestamp = -1;
    for index in 0..header.record_count {
        let record = record(&mut source)?;
        // Wraps as Java's does; where times are checked, what has wrapped is out of range.
        let timestamp = append_time
            .unwrap_or_else(|| header.base_timestamp.wrapping_add(record.timestamp_delta));
        max_timestamp = max_timestamp.max(timestamp);

        let fault = timestamp_fault(rules, append_time, timestamp);
        let reason = if rules.keyed && !record.has_key {
            RecordReason::NoKey
        } else if let Some(fault) = fault {
            fault
        } else if record.offset_delta != index {
            RecordReason::OffsetDelta(record.offset_delta)
        } else {
            continue;
        };
        errors.total += 1;
        errors.any_timestamp |= reason.is_timestamp();
        if errors.first.len() < RecordErrors::KEPT {
            errors.first.push(RecordError { index, reason });
        }
    }
    if !source.at_end()? {
        return Err(BatchError::Record("the batch has more records than it counts").into());
    }
    if errors.total > 0 {
        return Err(Refusal::Records(errors));
    }
    Ok(Summary {
        max_timestamp,
        records_size: source.position(),
    })
}

fn timestamp_fault(
    rules: &Rules,
    append_time: Option<i64>,
    timestamp: i64,
) -> Option<RecordReason> {
    match &rules.timestamps {
        Some(range) if timestamp != -1 => {
            (!range.contains(&timestamp)).then_some(RecordReason::Timestamp(timestamp))
        }
        _ => append_time.map(|_| RecordReason::TimestampType),
    }
}

/// What the walk keeps of a record.
struct Seen {
    timestamp_delta: i64,
    offset_delta: i32,
    has_key: bool,
}

fn record(source: &mut impl Source) -> Result<Seen, BatchError> {
    let size = varint::signed(source.unsigned()?);
    let Ok(size) = usize::try_from(size) else {
        return Err(BatchError::Record("a record has a negative size"));
    };
    let start = source.position();
    source.byte()?;
    let timestamp_delta = varint::signed_long(varint::unsigned_long(|| source.byte())?);
    let offset_delta = varint::signed(source.unsigned()?);
    let has_key = field(source)?;
    field(source)?;
    let headers = varint::signed(source.unsigned()?);
    if headers < 0 {
        return Err(BatchError::Record(
            "a record has a negative number of headers",
        ));
    }
    for _ in 0..headers {
        if !field(source)? {
            return Err(BatchError::Record("a record header has no key"));
        }
        field(source)?;
    }
    if source.position() - start != size {
        return Err(BatchError::Record(
            "a record's size is not that of its fields",
        ));
    }
    Ok(Seen {
        timestamp_delta,
        offset_delta,
        has_key,
    })
}

/// Skips bytes with their size in front; false if they are null.
#[inline]
fn field(source: &mut impl Source) -> Result<bool, BatchError> {
    let size = varint::signed(source.unsigned()?);
    match usize::try_from(size) {
        Ok(size) => source.skip(size).map(|()| true),
        Err(_) => Ok(false),
    }
}

const ENDS_EARLY: BatchError = BatchError::Record("the batch ends inside a record");

/// Bytes in order, from memory or out of a decompressor.
trait Source {
    fn byte(&mut self) -> Result<u8, BatchError>;
    fn skip(&mut self, count: usize) -> Result<(), BatchError>;
    /// Bytes taken and skipped so far.
    fn position(&self) -> usize;
    fn at_end(&mut self) -> Result<bool, BatchError>;

    #[inline]
    fn unsigned(&mut self) -> Result<u32, BatchError> {
        varint::unsigned(|| self.byte())
    }
}

struct InMemory<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Source for InMemory<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, BatchError> {
        let byte = *self.bytes.get(self.at).ok_or(ENDS_EARLY)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<(), BatchError> {
        if count > self.bytes.len() - self.at {
            return Err(ENDS_EARLY);
        }
        self.at += count;
        Ok(())
    }

    fn position(&self) -> usize {
        self.at
    }

    fn at_end(&mut self) -> Result<bool, BatchError> {
        Ok(self.at == self.bytes.len())
    }
}

struct Streamed<'a> {
    codec: Compression,
    reader: Reader<'a>,
    limit: usize,
    /// What has been decompressed and not yet taken is `window[at..filled]`.
    window: Box<[u8; Streamed::WINDOW]>,
    at: usize,
    filled: usize,
    /// Bytes that went through the window before its present contents.
    passed: usize,
}

impl<'a> Streamed<'a> {
    const WINDOW: usize = 16 * 1024;

    fn new(codec: Compression, bytes: &'a [u8], limit: usize) -> Result<Streamed<'a>, BatchError> {
        let reader = Reader::new(codec, bytes).map_err(|_| BatchError::Decompress(codec))?;
        let window = Box::new([0; Streamed::WINDOW]);
        Ok(Streamed {
            codec,
            reader,
            limit,
            window,
            at: 0,
            filled: 0,
            passed: 0,
        })
    }

    /// Decompresses the next piece into the used-up window; it stays empty at the end.
    fn refill(&mut self) -> Result<(), BatchError> {
        self.passed += self.filled;
        self.at = 0;
        self.filled = 0;
        self.filled = self
            .reader
            .read(&mut self.window[..])
            .map_err(|_| BatchError::Decompress(self.codec))?;
        if self.passed + self.filled > self.limit {
            return Err(BatchError::DecompressedTooLarge { limit: self.limit });
        }
        Ok(())
    }
}

impl Source for Streamed<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, BatchError> {
        if self.at_end()? {
            return Err(ENDS_EARLY);
        }
        let byte = self.window[self.at];
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, mut count: usize) -> Result<(), BatchError> {
        while count > self.filled - self.at {
            count -= self.filled - self.at;
            self.refill()?;
            if self.filled == 0 {
                return Err(ENDS_EARLY);
            }
        }
        self.at += count;
        Ok(())
    }

    fn position(&self) -> usize {
        self.passed + self.at
    }

    fn at_end(&mut self) -> Result<bool, BatchError> {
        if self.at == self.filled {
            self.refill()?;
        }
        Ok(self.at == self.filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Builder;

    const RULES: Rules = Rules {
        keyed: false,
        timestamps: None,
        decompressed_max: 1 << 20,
    };

    #[test]
    fn a_batch_as_producers_send_it_passes_whatever_its_codec() {
        for codec in Compression::ALL {
            let batch = batch(codec, 1000);
            let summary = client_batch(&batch, &RULES).unwrap();
            assert_eq!(summary.max_timestamp, 1999);
            let plain = batch.records(1 << 20).unwrap();
            assert_eq!(plain.map(Result::unwrap).count(), 1000);
        }
    }

    #[test]
    fn records_without_keys_are_named_on_a_compacted_topic() {
        let mut builder = Builder::new();
        builder.push(1, Some(b"k"), Some(b"v"), &[]);
        builder.push(2, None, Some(b"v"), &[]);
        builder.push(3, Some(b""), None, &[]);
        let rules = Rules {
            keyed: true,
            ..RULES
        };
        assert_eq!(
            client_batch(&builder.build().unwrap(), &rules),
            Err(Refusal::Records(RecordErrors {
                total: 1,
                first: vec![RecordError {
                    index: 1,
                    reason: RecordReason::NoKey
                }],
                any_timestamp: false,
            }))
        );
    }

    #[test]
    fn times_outside_the_allowed_range_are_named_but_no_time_is_fine() {
        let mut builder = Builder::new();
        for timestamp in [-1, 99, 100, 200, 201] {
            builder.push(timestamp, None, None, &[]);
        }
        let batch = builder.build().unwrap();
        let rules = Rules {
            timestamps: Some(100..=200),
            ..RULES
        };
        let Err(Refusal::Records(errors)) = client_batch(&batch, &rules) else {
            panic!("accepted");
        };
        let reasons: Vec<_> = errors
            .first
            .iter()
            .map(|error| (error.index, error.reason))
            .collect();
        assert_eq!(
            reasons,
            [
                (1, RecordReason::Timestamp(99)),
                (4, RecordReason::Timestamp(201))
            ]
        );
        assert!(errors.any_timestamp);
        assert_eq!(client_batch(&batch, &RULES).unwrap().max_timestamp, 201);
    }

    #[test]
    fn what_only_a_broker_writes_is_refused() {
        let record = |builder: Builder| {
            let mut builder = builder;
            builder.push(1, None, None, &[]);
            client_batch(&builder.build().unwrap(), &RULES).unwrap_err()
        };
        assert_eq!(record(Builder::new().control()), Refusal::Control);
        assert_eq!(
            record(Builder::new().base_offset(5)),
            Refusal::BaseOffset(5)
        );
        assert_eq!(
            record(Builder::new().producer(7, 0, -1)),
            Refusal::Sequence(-1)
        );
        assert!(matches!(
            record(Builder::new().log_append_time(3)),
            Refusal::Records(_)
        ));
        assert_eq!(
            record(Builder::new().spanning(1)),
            Refusal::Count {
                records: 1,
                last_offset_delta: 1
            }
        );
    }

    #[test]
    fn a_claimed_append_time_passes_only_as_a_create_time_that_is_allowed() {
        let claim = |time: i64, timestamps| {
            let mut builder = Builder::new().log_append_time(time);
            builder.push(1, None, None, &[]);
            let rules = Rules {
                timestamps,
                ..RULES
            };
            match client_batch(&builder.build().unwrap(), &rules) {
                Ok(summary) => Ok(summary.max_timestamp),
                Err(Refusal::Records(errors)) => Err(errors.first[0].reason),
                Err(refusal) => panic!("{refusal}"),
            }
        };
        assert_eq!(claim(150, Some(100..=200)), Ok(150));
        assert_eq!(claim(99, Some(100..=200)), Err(RecordReason::Timestamp(99)));
        assert_eq!(claim(-1, Some(100..=200)), Err(RecordReason::TimestampType));
        assert_eq!(claim(150, None), Err(RecordReason::TimestampType));
    }

    #[test]
    fn offsets_have_no_gaps() {
        let mut builder = Builder::new().spanning(1);
        builder.push_at(0, 1, None, None, &[]);
        builder.push_at(2, 1, None, None, &[]);
        let Err(Refusal::Records(errors)) = client_batch(&builder.build().unwrap(), &RULES) else {
            panic!("accepted");
        };
        assert_eq!(errors.first[0].reason, RecordReason::OffsetDelta(2));
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let value = vec![0; 10 << 20];
        for codec in Compression::ALL.into_iter().skip(1) {
            let mut builder = Builder::new().compression(codec, None);
            builder.push(1, None, Some(&value), &[]);
            assert_eq!(
                client_batch(&builder.build().unwrap(), &RULES),
                Err(Refusal::Malformed(BatchError::DecompressedTooLarge {
                    limit: 1 << 20
                }))
            );
        }
    }

    fn batch(codec: Compression, count: u16) -> Batch {
        let mut builder = Builder::new().compression(codec, None);
        for index in 0..count {
            let value = vec![b'v'; usize::from(index)];
            let headers: &[(&[u8], Option<&[u8]>)] = &[(b"name", Some(b"value")), (b"", None)];
            builder.push(1000 + i64::from(index), Some(b"key"), Some(&value), headers);
        }
        builder.build().unwrap()
    }
}
