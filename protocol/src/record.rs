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

/// One record. Key, value and headers share the (decompressed) batch's memory.
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
        let own = |bytes| self.encoded.slice_ref(bytes);
        let headers = headers(self.count, &self.encoded);
        headers.map(move |(name, value)| (own(name), value.map(own)))
    }
}

/// A [`Record`] that borrows: for who looks at many and keeps few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<'a> {
    pub offset: i64,
    pub offset_delta: i32,
    pub timestamp: i64,
    pub timestamp_delta: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    header_count: usize,
    /// As they are encoded. They were checked when the record was read.
    headers: &'a [u8],
}

impl<'a> View<'a> {
    /// Name and value of each header, in the order written; names may repeat.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        headers(self.header_count, self.headers)
    }

    /// `bytes` is what this is a view of.
    fn own(&self, bytes: &Bytes) -> Record {
        let own = |part| bytes.slice_ref(part);
        Record {
            offset: self.offset,
            offset_delta: self.offset_delta,
            timestamp: self.timestamp,
            timestamp_delta: self.timestamp_delta,
            key: self.key.map(own),
            value: self.value.map(own),
            headers: Headers {
                count: self.header_count,
                encoded: own(self.headers),
            },
        }
    }
}

/// What a batch says of all its records.
#[derive(Debug, Clone, Copy)]
struct Base {
    offset: i64,
    timestamp: i64,
    /// The one time all records have, under log append time.
    append_time: Option<i64>,
}

/// The records of one batch; ends after the first error.
#[derive(Debug, Clone)]
pub struct Records {
    base: Base,
    left: i32,
    rest: Bytes,
}

impl Records {
    pub(crate) fn new(header: &Header, records: Bytes) -> Records {
        Records {
            base: Base {
                offset: header.base_offset,
                timestamp: header.base_timestamp,
                append_time: (header.timestamp_type() == TimestampType::LogAppendTime)
                    .then_some(header.max_timestamp),
            },
            left: header.record_count,
            rest: records,
        }
    }

    /// The same records, counted from another base offset: a batch read back before its offset
    /// was assigned.
    pub fn at(mut self, base_offset: i64) -> Records {
        self.base.offset = base_offset;
        self
    }

    /// The same records, borrowed.
    pub fn views(&self) -> Views<'_> {
        Views {
            base: self.base,
            left: self.left,
            rest: &self.rest,
        }
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Result<Record, BatchError>> {
        let mut views = self.views();
        let view = views.next()?;
        let record = view.map(|view| view.own(&self.rest));
        let (left, taken) = (views.left, self.rest.len() - views.rest.len());
        self.left = left;
        self.rest.advance(taken);
        Some(record)
    }
}

/// [`Records`], borrowed.
#[derive(Debug, Clone)]
pub struct Views<'a> {
    base: Base,
    left: i32,
    rest: &'a [u8],
}

impl<'a> Views<'a> {
    fn take(&mut self) -> Result<View<'a>, BatchError> {
        let size = varint::signed(unsigned(&mut self.rest)?);
        let size = usize::try_from(size)
            .map_err(|_| BatchError::Record("a record has a negative size"))?;
        let too_long = BatchError::Record("a record is longer than its batch");
        let (mut body, rest) = self.rest.split_at_checked(size).ok_or(too_long)?;
        self.rest = rest;
        byte(&mut body)?;
        let timestamp_delta = varint::signed_long(varint::unsigned_long(|| byte(&mut body))?);
        let offset_delta = varint::signed(unsigned(&mut body)?);
        let key = nullable(&mut body)?;
        let value = nullable(&mut body)?;
        let header_count = usize::try_from(varint::signed(unsigned(&mut body)?))
            .map_err(|_| BatchError::Record("a record has a negative number of headers"))?;
        check_headers(header_count, body)?;
        let Base {
            offset,
            timestamp,
            append_time,
        } = self.base;
        Ok(View {
            offset: offset.saturating_add(i64::from(offset_delta)),
            offset_delta,
            // Wraps as Java's does; a client's nonsense must not stop a consumer of the rest.
            timestamp: append_time.unwrap_or_else(|| timestamp.wrapping_add(timestamp_delta)),
            timestamp_delta,
            key,
            value,
            header_count,
            headers: body,
        })
    }
}

impl<'a> Iterator for Views<'a> {
    type Item = Result<View<'a>, BatchError>;

    fn next(&mut self) -> Option<Result<View<'a>, BatchError>> {
        if self.left == 0 {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = &[];
            return Some(Err(BatchError::Record(
                "the batch has more records than it counts",
            )));
        }
        let view = self.take();
        if view.is_ok() {
            self.left -= 1;
        } else {
            self.left = 0;
            self.rest = &[];
        }
        Some(view)
    }
}

fn byte(bytes: &mut &[u8]) -> Result<u8, BatchError> {
    let (first, rest) = bytes
        .split_first()
        .ok_or(BatchError::Record("a record ends early"))?;
    *bytes = rest;
    Ok(*first)
}

fn unsigned(bytes: &mut &[u8]) -> Result<u32, BatchError> {
    varint::unsigned(|| byte(bytes))
}

/// Bytes with their size in front; any negative size is null, as in Kafka.
fn nullable<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BatchError> {
    let size = varint::signed(unsigned(bytes)?);
    let Ok(size) = usize::try_from(size) else {
        return Ok(None);
    };
    let too_long = BatchError::Record("a field is longer than its record");
    let (field, rest) = bytes.split_at_checked(size).ok_or(too_long)?;
    *bytes = rest;
    Ok(Some(field))
}

fn check_headers(count: usize, mut encoded: &[u8]) -> Result<(), BatchError> {
    for _ in 0..count {
        nullable(&mut encoded)?.ok_or(BatchError::Record("a record header has no key"))?;
        nullable(&mut encoded)?;
    }
    if !encoded.is_empty() {
        return Err(BatchError::Record("a record is longer than its fields"));
    }
    Ok(())
}

/// Headers that have been checked.
fn headers(count: usize, mut encoded: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    (0..count).map_while(move |_| {
        let name = nullable(&mut encoded).ok()??;
        let value = nullable(&mut encoded).ok()?;
        Some((name, value))
    })
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
