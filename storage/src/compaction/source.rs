//! A segment's batches, read in chunks.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use protocol::batch::{Batch, HEADER_SIZE, Header};

use crate::{error::Error, files::Open, segment::Segment};

pub(crate) struct Source<'a> {
    segment: &'a Segment,
    file: Arc<Open>,
    chunk: usize,
    /// Batches that begin at these offsets have been read, and found right, a moment ago.
    checked: Range<i64>,
    /// Memory for what is read, used again when nobody has batches in it any more: new memory has to be cleared, and
    /// mapped, for every chunk.
    memory: Bytes,
    filled: usize,
    /// What is read but not taken, in that memory, and where in the file it begins.
    buffer: Bytes,
    position: u64,
    end: u64,
    /// Bytes read since somebody asked.
    read: usize,
}

impl<'a> Source<'a> {
    /// From the position on, which must be a batch's.
    pub(crate) fn new(segment: &'a Segment, from: u64, chunk: usize) -> Result<Source<'a>, Error> {
        Ok(Source {
            file: segment.log.get(&segment.place)?,
            segment,
            chunk: chunk.max(HEADER_SIZE),
            checked: 0..0,
            memory: Bytes::new(),
            filled: 0,
            buffer: Bytes::new(),
            position: from,
            end: segment.size(),
            read: 0,
        })
    }

    /// Does not compute the CRC of batches that begin at these offsets again.
    pub(crate) fn trusting(self, checked: Range<i64>) -> Source<'a> {
        Source { checked, ..self }
    }

    /// The next batch, its CRC checked.
    pub(crate) fn next(&mut self) -> Result<Option<Batch>, Error> {
        if self.position >= self.end {
            return Ok(None);
        }
        if self.buffer.len() < HEADER_SIZE {
            self.fill(self.chunk)?;
        }
        let header = Header::parse(&self.buffer);
        let header = header.map_err(|_| self.corrupt("not a batch header"))?;
        if self.buffer.len() < header.size {
            // With the header after it, so that batches larger than a chunk are read once too.
            self.fill(self.chunk.max(header.size + HEADER_SIZE))?;
        }
        if self.buffer.len() < header.size {
            return Err(self.corrupt("the batch is cut off"));
        }
        let bytes = self.buffer.split_to(header.size);
        let batch = match self.checked.contains(&header.base_offset) {
            true => Batch::parse_checked(bytes),
            false => Batch::parse(bytes),
        };
        let batch = batch.map_err(|_| self.corrupt("the batch's CRC is wrong"))?;
        self.position += header.size as u64;
        Ok(Some(batch))
    }

    pub(crate) fn take_read(&mut self) -> usize {
        std::mem::take(&mut self.read)
    }

    /// For one whose batch cannot be used.
    pub(crate) fn corrupt(&self, reason: &'static str) -> Error {
        Error::Corrupt {
            path: self.segment.log.path(&self.segment.place),
            position: self.position,
            reason,
        }
    }

    fn fill(&mut self, want: usize) -> Result<(), Error> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let want = want.min(left);
        let have = self.buffer.len();
        let rest = self.filled - have..self.filled;
        self.buffer = Bytes::new();
        // Copied if somebody still has a batch in it.
        let mut memory = Vec::from(std::mem::take(&mut self.memory));
        memory.copy_within(rest, 0);
        if memory.len() < want {
            memory.resize(want, 0);
        }
        let done = self
            .file
            .read_at(&mut memory[have..want], self.position + have as u64);
        let place = &self.segment.place;
        let count = place
            .volume
            .done("read", &self.segment.log.path(place), done)?;
        self.read += count;
        self.filled = have + count;
        self.memory = memory.into();
        self.buffer = self.memory.slice(..self.filled);
        Ok(())
    }
}
