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

mod builder;
mod error;
mod header;

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};

use self::header::{CODEC_MASK, LOG_APPEND_TIME, MAGIC, MESSAGE_LENGTH_MIN, PREFIX_SIZE};
pub use self::{
    builder::Builder,
    error::BatchError,
    header::{HEADER_SIZE, Header, TimestampType, sequence_after},
};
use crate::{
    compression::{self, Compression, DecompressError},
    record::Records,
};

const CRC_START: usize = 21;

/// The bytes of exactly one batch, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    header: Header,
    bytes: Bytes,
}

impl Batch {
    /// Takes `bytes` as exactly one batch. Allocates and copies nothing; reads every byte once.
    pub fn parse(bytes: Bytes) -> Result<Batch, BatchError> {
        let batch = Batch::parse_checked(bytes)?;
        let computed = crc32c::crc32c(&batch.bytes[CRC_START..]);
        if computed != batch.header.crc {
            return Err(BatchError::Crc {
                stored: batch.header.crc,
                computed,
            });
        }
        Ok(batch)
    }

    /// As [`Self::parse`], of bytes whose CRC was found right a moment ago: it is not computed again.
    pub fn parse_checked(bytes: Bytes) -> Result<Batch, BatchError> {
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

    /// The batch with its records compressed anew, as they are, if that is no larger than `max` bytes; else how large it
    /// would be. No more than that is in memory at once, whatever the records decompress to.
    ///
    /// Time has no such limit: how much they are has been looked at before.
    pub fn recompressed(
        &self,
        codec: Compression,
        level: Option<i32>,
        max: usize,
    ) -> Result<Result<Batch, usize>, BatchError> {
        let from = self.header.compression();
        let mut kept = Kept {
            bytes: self.bytes[..HEADER_SIZE].to_vec(),
            max,
            size: HEADER_SIZE,
        };
        compression::transcode(from, &self.bytes[HEADER_SIZE..], codec, level, &mut kept)
            .map_err(|_| BatchError::decompress(from, DecompressError::Malformed))?;
        let Kept {
            mut bytes, size, ..
        } = kept;
        if max < size || i32::try_from(size).is_err() {
            return Ok(Err(size));
        }
        let mut header = Header {
            attributes: self.header.attributes & !CODEC_MASK | codec.id(),
            size,
            ..self.header
        };
        bytes[..HEADER_SIZE].copy_from_slice(&header.encode());
        seal(&mut header, &mut bytes);
        Ok(Ok(Batch {
            header,
            bytes: bytes.into(),
        }))
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

/// Keeps the first `max` bytes of what is written, and counts the others.
struct Kept {
    bytes: Vec<u8>,
    max: usize,
    size: usize,
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size = self.size.saturating_add(bytes.len());
        if self.size <= self.max {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Computes the CRC over `bytes` and writes it there and into the header.
fn seal(header: &mut Header, bytes: &mut [u8]) {
    header.crc = crc32c::crc32c(&bytes[CRC_START..]);
    bytes[17..CRC_START].copy_from_slice(&header.crc.to_be_bytes());
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
