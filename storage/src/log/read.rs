//! Reading: an offset to the range of a file that holds it.

use std::{os::fd::BorrowedFd, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{Log, producers::aborted_in};
use crate::{
    aborted::Aborted,
    error::Error,
    segment::{Located, Segment},
};

impl Log {
    /// The range of a file that holds the batches from the one with `offset` on, below the offset
    /// `end`: the high watermark or last stable offset for consumers, the log end for followers.
    ///
    /// At most `max_bytes`, so the last batch may be cut off, as Kafka's brokers do and clients
    /// expect, though it is avoided; but never less than the first batch with `min_one`, and nothing at all if that does
    /// not fit without.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        min_one: bool,
        end: i64,
    ) -> Result<Slice, Error> {
        self.place.volume.check()?;
        self.unless_gone(|| self.read_once(offset, max_bytes, min_one, end))
    }

    /// As [`Self::read`], up to the last stable offset `end`, with the transactions whose records in what is read are
    /// to be skipped: they were aborted. One or another may be named that only comes after it, as an index does not know
    /// every batch.
    pub fn read_committed(
        &self,
        offset: i64,
        max_bytes: usize,
        min_one: bool,
        end: i64,
        now: i64,
    ) -> Result<(Slice, Vec<Aborted>), Error> {
        self.place.volume.check()?;
        // Loading completes what a crash may have lost of the index.
        self.load_producers(now)?;
        self.unless_gone(|| {
            let slice = self.read_once(offset, max_bytes, min_one, end)?;
            if slice.is_empty() {
                return Ok((slice, Vec::new()));
            }
            let segments = self.segments_from(&slice.segment)?;
            // Not up to the last stable offset: a million aborted transactions may lie before that.
            let next_base = segments.get(1).map(|next| next.base_offset);
            let to = slice.bound()?.or(next_base).map_or(end, |to| to.min(end));
            let aborted = aborted_in(&segments, offset, to)?;
            Ok((slice, aborted))
        })
    }

    fn read_once(
        &self,
        offset: i64,
        max_bytes: usize,
        min_one: bool,
        end: i64,
    ) -> Result<Slice, Error> {
        let mut from = offset;
        loop {
            let plan = self.plan(from, offset, end)?;
            let Some(next) = plan.next_base else {
                return plan.slice(from, end, max_bytes, min_one);
            };
            let slice = plan.slice(from, end, max_bytes, min_one)?;
            if slice.found {
                return Ok(slice);
            }
            // Compaction has left no batch between here and the next segment.
            from = next;
        }
    }

    /// The segment and all after it, as long as it is still in its place: one that a compaction has put there may
    /// have the aborted transactions of more segments, and know less of them.
    fn segments_from(&self, segment: &Arc<Segment>) -> Result<Vec<Arc<Segment>>, Error> {
        let view = self.view();
        let segments = view.segments.range(segment.base_offset..);
        let segments: Vec<_> = segments.map(|(_, segment)| Arc::clone(segment)).collect();
        match segments.first() {
            Some(first) if Arc::ptr_eq(first, segment) => Ok(segments),
            _ => Err(Error::Gone {
                path: segment.log.path(&segment.place),
            }),
        }
    }

    /// Looks again if a segment that was found has been removed before it could be looked into: another is in
    /// its place, or the start offset has passed it.
    pub(super) fn unless_gone<T>(&self, look: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        // Each time a compaction or retention has been quicker.
        const TRIES: usize = 16;
        for _ in 1..TRIES {
            match look() {
                Err(Error::Gone { .. }) if !self.place.is_abandoned() => (),
                done => return done,
            }
        }
        look()
    }

    fn plan(&self, from: i64, asked: i64, end: i64) -> Result<Plan, Error> {
        let view = self.view();
        let (start_offset, end_offset) = (view.start_offset, view.end_offset);
        let outside = Error::OffsetOutOfRange {
            offset: asked,
            start: start_offset,
            end: end_offset,
        };
        if asked < start_offset || asked > end_offset {
            return Err(outside);
        }
        let Some((_, segment)) = view.segments.range(..=from).next_back() else {
            return Err(outside);
        };
        let next_base = view
            .segments
            .range(from + 1..)
            .next()
            .map(|(base_offset, _)| *base_offset);
        let size = segment.size();
        let end = end.min(end_offset);
        // Positions are the active segment's.
        let tail = next_base.is_none().then_some(&view.tail);
        Ok(Plan {
            segment: Arc::clone(segment),
            size,
            next_base,
            empty: from >= end,
            first: tail.and_then(|tail| tail.locate(from, size)),
            end: if next_base.is_some_and(|next| next <= end) || end == end_offset {
                Some(size)
            } else {
                let batch = tail.and_then(|tail| tail.locate(end, size));
                batch.map(|batch| batch.position)
            },
        })
    }
}

/// What a reader takes from the view, to go on without its lock.
struct Plan {
    segment: Arc<Segment>,
    size: u64,
    next_base: Option<i64>,
    /// There is nothing to read below the end asked for.
    empty: bool,
    first: Option<Located>,
    /// The position of the first batch not to be read, if known without a look at the file.
    end: Option<u64>,
}

impl Plan {
    fn slice(self, from: i64, end: i64, max_bytes: usize, min_one: bool) -> Result<Slice, Error> {
        let mut slice = Slice {
            segment: self.segment,
            position: 0,
            size: 0,
            found: true,
        };
        if self.empty {
            return Ok(slice);
        }
        let first = match self.first {
            Some(first) => Some(first),
            None => slice.segment.locate(from, self.size)?,
        };
        let Some(first) = first else {
            slice.found = false;
            return Ok(slice);
        };
        let end = match self.end {
            Some(end) => end,
            None => {
                let batch = slice.segment.locate(end, self.size)?;
                batch.map_or(self.size, |batch| batch.position)
            }
        };
        slice.position = first.position;
        let readable = usize::try_from(end.saturating_sub(first.position)).unwrap_or(usize::MAX);
        slice.size = if readable == 0 {
            0
        } else if readable <= max_bytes {
            readable
        } else if first.size <= max_bytes {
            // A batch that is cut off is thrown away by the client and sent again: with batches of
            // nearly a megabyte and fetches of one, an eighth of all bytes. End between two where
            // the index knows such a place.
            let start = slice
                .segment
                .known_start(first.position + max_bytes as u64)?;
            let whole = start.and_then(|start| start.checked_sub(first.position));
            let whole = whole.and_then(|size| usize::try_from(size).ok());
            whole
                .filter(|size| first.size <= *size)
                .unwrap_or(max_bytes)
        } else if min_one {
            first.size
        } else {
            0
        };
        Ok(slice)
    }
}

/// A range of a segment's file: batches in a row. Holds no file descriptor.
#[derive(Debug, Clone)]
pub struct Slice {
    segment: Arc<Segment>,
    position: u64,
    size: usize,
    found: bool,
}

impl Slice {
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// The bytes, waiting for the disk if they are not in the page cache.
    pub fn read(&self) -> Result<Bytes, Error> {
        let mut buffer = BytesMut::new();
        self.read_into(&mut buffer)?;
        Ok(buffer.freeze())
    }

    /// The bytes if they are in the page cache: one call where asking first and reading then are several. `None` if reading
    /// would wait for the disk, or if the log was truncated since.
    pub fn read_now(&self) -> Result<Option<Bytes>, Error> {
        let file = self.segment.log.get(&self.segment.place)?;
        let mut buffer = BytesMut::zeroed(self.size);
        let whole = self.done(file.read_now_at(&mut buffer, self.position))?;
        Ok(whole.then(|| buffer.freeze()))
    }

    /// As [`Self::read`], after what is in the buffer.
    pub fn read_into(&self, buffer: &mut BytesMut) -> Result<(), Error> {
        if self.size == 0 {
            return Ok(());
        }
        let file = self.segment.log.get(&self.segment.place)?;
        let start = buffer.len();
        buffer.resize(start + self.size, 0);
        let count = self.done(file.read_at(&mut buffer[start..], self.position))?;
        // The log was truncated since: what is left is still batches.
        buffer.truncate(start + count);
        Ok(())
    }

    /// The name of the file is needed only if it could not be read.
    fn done<T>(&self, read: std::io::Result<T>) -> Result<T, Error> {
        read.or_else(|err| {
            let place = &self.segment.place;
            let path = self.segment.log.path(place);
            place.volume.done("read", &path, Err(err))
        })
    }

    /// Whether reading now would not wait for the disk.
    pub fn resident(&self) -> bool {
        self.size == 0
            || self
                .segment
                .log
                .get(&self.segment.place)
                .is_ok_and(|file| file.resident(self.position, self.size))
    }

    /// Brings the range into the page cache. Waits for the disk: not for a thread that serves
    /// others.
    pub fn warm(&self) -> Result<(), Error> {
        const CHUNK: usize = 256 << 10;
        if self.size == 0 {
            return Ok(());
        }
        let file = self.segment.log.get(&self.segment.place)?;
        let mut buffer = vec![0; CHUNK.min(self.size)];
        let mut done = 0;
        while done < self.size {
            let want = buffer.len().min(self.size - done);
            match self.done(file.read_at(&mut buffer[..want], self.position + done as u64))? {
                0 => break,
                count => done += count,
            }
        }
        Ok(())
    }

    /// Sends the range from its byte `from` on to a socket, as much as it takes now: `sendfile`.
    /// `WouldBlock` when it takes nothing.
    pub fn send(&self, socket: BorrowedFd<'_>, from: usize) -> std::io::Result<usize> {
        let file = self
            .segment
            .log
            .get(&self.segment.place)
            .map_err(std::io::Error::other)?;
        let left = self.size.saturating_sub(from);
        file.send(socket, self.position + from as u64, left)
    }

    /// An offset at or after the end of the slice, by the index: the bound up to which aborted
    /// transactions matter to its reader. `None`: the end of the segment.
    fn bound(&self) -> Result<Option<i64>, Error> {
        self.segment.bound_after(self.position, self.size)
    }
}
