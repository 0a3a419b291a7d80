//! Putting records together to a batch.

use super::{
    Batch,
    header::{
        CODEC_MASK, CONTROL, DELETE_HORIZON, HEADER_SIZE, Header, LOG_APPEND_TIME, MAGIC, NONE,
        TRANSACTIONAL, TimestampType,
    },
    seal,
};
use crate::{
    compression::{self, Compression},
    record,
};

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
