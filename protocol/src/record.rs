//! Records inside a batch, read one after the other.
//!
//! ```text
//! size          varint   of what follows
//! attributes    i8       unused
//! timestamp     varlong  delta to the batch's base timestamp, ms
//! offset        varint   delta to the batch's base offset
//! key           varint size (-1: null), bytes
//! value         varint size (-1: null), bytes
//! headers       varint count, each: key (size, bytes), value (size or -1, bytes)
//! ```

use bytes::{Buf, BufMut, Bytes};

use crate::{
    batch::{BatchError, Header, TimestampType},
    varint,
};

/// One record. Key, value and headers are views into the (decompressed) batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its offset in the partition.
    pub offset: i64,
    pub offset_delta: i32,
    /// Milliseconds; the batch's append time where the topic keeps that instead.
    pub timestamp: i64,
    pub timestamp_delta: i64,
    pub key: Option<Bytes>,
    /// `None` is a tombstone on a compacted topic.
    pub value: Option<Bytes>,
    pub headers: Headers,
}

/// A record's headers, still encoded. They were checked when the record was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    count: usize,
    encoded: Bytes,
}

impl Headers {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Name and value of each, in the order written; names may repeat.
    pub fn iter(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        let mut rest = self.encoded.clone();
        (0..self.count).map_while(move |_| {
            let key = nullable(&mut rest).ok()??;
            let value = nullable(&mut rest).ok()?;
            Some((key, value))
        })
    }
}

/// The records of one batch; ends after the first error.
#[derive(Debug, Clone)]
pub struct Records {
    base_offset: i64,
    base_timestamp: i64,
    /// The one time all records have, under log append time.
    append_time: Option<i64>,
    left: i32,
    rest: Bytes,
}

impl Records {
    pub(crate) fn new(header: &Header, records: Bytes) -> Records {
        Records {
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time: (header.timestamp_type() == TimestampType::LogAppendTime)
                .then_some(header.max_timestamp),
            left: header.record_count,
            rest: records,
        }
    }

    /// The same records, counted from another base offset: a batch read back before its offset
    /// was assigned.
    pub fn at(self, base_offset: i64) -> Records {
        Records {
            base_offset,
            ..self
        }
    }

    fn take(&mut self) -> Result<Record, BatchError> {
        let size = varint::signed(unsigned(&mut self.rest)?);
        let size = usize::try_from(size)
            .map_err(|_| BatchError::Record("a record has a negative size"))?;
        if size > self.rest.len() {
            return Err(BatchError::Record("a record is longer than its batch"));
        }
        let mut body = self.rest.split_to(size);
        byte(&mut body)?;
        let timestamp_delta = varint::signed_long(varint::unsigned_long(|| byte(&mut body))?);
        let offset_delta = varint::signed(unsigned(&mut body)?);
        let key = nullable(&mut body)?;
        let value = nullable(&mut body)?;
        let headers = headers(body)?;
        Ok(Record {
            offset: self.base_offset.saturating_add(i64::from(offset_delta)),
            offset_delta,
            // Wraps as Java's does; a client's nonsense must not stop a consumer of the rest.
            timestamp: self
                .append_time
                .unwrap_or_else(|| self.base_timestamp.wrapping_add(timestamp_delta)),
            timestamp_delta,
            key,
            value,
            headers,
        })
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Result<Record, BatchError>> {
        if self.left == 0 {
            if self.rest.is_empty() {
                return None;
            }
            self.rest.clear();
            return Some(Err(BatchError::Record(
                "the batch has more records than it counts",
            )));
        }
        let record = self.take();
        if record.is_ok() {
            self.left -= 1;
        } else {
            self.left = 0;
            self.rest.clear();
        }
        Some(record)
    }
}

fn byte(bytes: &mut Bytes) -> Result<u8, BatchError> {
    bytes
        .try_get_u8()
        .map_err(|_| BatchError::Record("a record ends early"))
}

fn unsigned(bytes: &mut Bytes) -> Result<u32, BatchError> {
    varint::unsigned(|| byte(bytes))
}

/// Bytes with their size in front; any negative size is null, as in Kafka.
fn nullable(bytes: &mut Bytes) -> Result<Option<Bytes>, BatchError> {
    let size = varint::signed(unsigned(bytes)?);
    let Ok(size) = usize::try_from(size) else {
        return Ok(None);
    };
    if size > bytes.len() {
        return Err(BatchError::Record("a field is longer than its record"));
    }
    Ok(Some(bytes.split_to(size)))
}

fn headers(mut encoded: Bytes) -> Result<Headers, BatchError> {
    let count = usize::try_from(varint::signed(unsigned(&mut encoded)?))
        .map_err(|_| BatchError::Record("a record has a negative number of headers"))?;
    if count == 0 && encoded.is_empty() {
        return Ok(Headers::default());
    }
    let mut rest = encoded.clone();
    for _ in 0..count {
        nullable(&mut rest)?.ok_or(BatchError::Record("a record header has no key"))?;
        nullable(&mut rest)?;
    }
    if !rest.is_empty() {
        return Err(BatchError::Record("a record is longer than its fields"));
    }
    Ok(Headers { count, encoded })
}

/// Appends one encoded record.
pub(crate) fn put(
    out: &mut impl BufMut,
    offset_delta: i32,
    timestamp_delta: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&[u8], Option<&[u8]>)],
) {
    let mut size =
        1 + varint::signed_size(timestamp_delta) + varint::signed_size(offset_delta.into());
    size += nullable_size(key) + nullable_size(value) + varint::signed_size(headers.len() as i64);
    for (name, value) in headers {
        size += nullable_size(Some(name)) + nullable_size(*value);
    }
    put_size(out, size);
    out.put_u8(0);
    varint::put_signed_long(out, timestamp_delta);
    varint::put_signed(out, offset_delta);
    put_nullable(out, key);
    put_nullable(out, value);
    put_size(out, headers.len());
    for (name, value) in headers {
        put_nullable(out, Some(name));
        put_nullable(out, *value);
    }
}

fn nullable_size(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => 1,
        Some(bytes) => varint::signed_size(bytes.len() as i64) + bytes.len(),
    }
}

fn put_nullable(out: &mut impl BufMut, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put_signed(out, -1),
        Some(bytes) => {
            put_size(out, bytes.len());
            out.put_slice(bytes);
        }
    }
}

// Sizes of what is in memory: written as 64-bit so that no cast can lose anything. A batch that is
// too large for the format is refused when it is built.
fn put_size(out: &mut impl BufMut, size: usize) {
    varint::put_signed_long(out, size as i64);
}
