//! Walking the batches of a file by their headers.

use protocol::batch::{HEADER_SIZE, Header};

use crate::{
    error::Error,
    files::{Handle, Open, Place},
};

/// Headers one after the other, without the records between them.
///
/// Reads ahead by `chunk` bytes, so that small batches cost less than a call each.
pub(crate) struct Walk<'a> {
    place: &'a Place,
    handle: &'a Handle,
    file: &'a Open,
    chunk: usize,
    position: u64,
    /// Nothing at or after this belongs to the log.
    end: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        place: &'a Place,
        handle: &'a Handle,
        file: &'a Open,
        from: u64,
        end: u64,
        chunk: usize,
    ) -> Walk<'a> {
        Walk {
            place,
            handle,
            file,
            chunk: chunk.max(HEADER_SIZE),
            position: from,
            end,
            buffer: Vec::new(),
            buffer_at: from,
        }
    }

    /// The next header and where its batch starts; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Header)>, Error> {
        if self.position >= self.end {
            return Ok(None);
        }
        let at = self.position;
        let parsed = Header::parse(self.bytes(at, HEADER_SIZE)?);
        let header = parsed.map_err(|_| self.corrupt(at, "not a batch header"))?;
        let next = at + header.size as u64;
        if next > self.end {
            return Err(self.corrupt(at, "the batch is cut off"));
        }
        self.position = next;
        Ok(Some((at, header)))
    }

    /// The whole batch at `at`, which the header says is `size` long. For recovery, which checks
    /// the CRC, and for control batches.
    pub(crate) fn batch(&mut self, at: u64, size: usize) -> Result<&[u8], Error> {
        self.bytes(at, size)
    }

    fn bytes(&mut self, at: u64, size: usize) -> Result<&[u8], Error> {
        let have = self.buffer_at..self.buffer_at + self.buffer.len() as u64;
        if at < have.start || at + size as u64 > have.end {
            let left = usize::try_from(self.end - at).unwrap_or(usize::MAX);
            let want = self.chunk.max(size).min(left);
            self.buffer.resize(want, 0);
            let done = self.file.read_at(&mut self.buffer, at);
            let path = self.handle.path(self.place);
            let count = self.place.volume.done("read", &path, done)?;
            self.buffer.truncate(count);
            self.buffer_at = at;
        }
        let start = usize::try_from(at - self.buffer_at).unwrap_or(usize::MAX);
        match self.buffer.get(start..start.saturating_add(size)) {
            Some(bytes) => Ok(bytes),
            None => Err(Error::Corrupt {
                path: self.handle.path(self.place),
                position: at,
                reason: "the batch is cut off",
            }),
        }
    }

    fn corrupt(&self, position: u64, reason: &'static str) -> Error {
        Error::Corrupt {
            path: self.handle.path(self.place),
            position,
            reason,
        }
    }
}
