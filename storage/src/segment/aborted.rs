//! The index of aborted transactions: which of them end in the segment.

use std::{
    io::IoSlice,
    sync::{MutexGuard, PoisonError, atomic::Ordering},
};

use super::Segment;
use crate::{
    aborted::{self, Aborted},
    disk::write_all,
    error::Error,
};

impl Segment {
    /// Aborted transactions whose marker lies in this segment.
    pub(crate) fn aborted(&self) -> Result<Vec<Aborted>, Error> {
        if !self.has_txns.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        let file = self.txns.get(&self.place)?;
        let path = self.txns.path(&self.place);
        let done = file.size().and_then(|size| {
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
            let count = file.read_at(&mut bytes, 0)?;
            bytes.truncate(count);
            Ok(bytes)
        });
        Ok(aborted::decode_all(
            &self.place.volume.done("read", &path, done)?,
        ))
    }

    /// Adds to `found` the aborted transactions with records in `from..to` whose marker lies in this segment. True if
    /// no marker after it ends one that begins before `to`.
    pub(crate) fn aborted_within(
        &self,
        from: i64,
        to: i64,
        found: &mut Vec<Aborted>,
    ) -> Result<bool, Error> {
        if !self.has_txns.load(Ordering::Acquire) {
            return Ok(false);
        }
        let file = self.txns.get(&self.place)?;
        let done = aborted::within(&**file, from, to, found);
        let path = self.txns.path(&self.place);
        self.place.volume.done("read", &path, done)
    }

    /// Adds an aborted transaction, unless it is there: recovery comes by a second time. True if
    /// that has created the file, whose name is on the disk when the directory is synced.
    pub(crate) fn add_aborted(&self, entry: &Aborted) -> Result<bool, Error> {
        let mut end = self.txns_end();
        let (count, last_offset) = match *end {
            Some(end) => end,
            None => end_of(&self.aborted()?),
        };
        if last_offset >= entry.last_offset {
            *end = Some((count, last_offset));
            return Ok(false);
        }
        *end = None;
        let file = self.txns.create(&self.place)?;
        let position = (count * aborted::ENTRY_SIZE) as u64;
        let done = write_all(&**file, &mut [IoSlice::new(&entry.encode())], position);
        let path = self.txns.path(&self.place);
        self.place.volume.done("write", &path, done)?;
        *end = Some((count + 1, entry.last_offset));
        self.txns_changed.store(true, Ordering::Release);
        Ok(!self.has_txns.swap(true, Ordering::AcqRel))
    }

    fn txns_end(&self) -> MutexGuard<'_, Option<(usize, i64)>> {
        self.txns_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the aborted transactions of a compacted segment, all at once.
    pub(crate) fn set_aborted(&self, entries: &[Aborted]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = entries.iter().flat_map(Aborted::encode).collect();
        let file = self.txns.create(&self.place)?;
        let done = write_all(&**file, &mut [IoSlice::new(&bytes)], 0);
        let path = self.txns.path(&self.place);
        self.place.volume.done("write", &path, done)?;
        self.txns_changed.store(true, Ordering::Release);
        self.has_txns.store(true, Ordering::Release);
        Ok(())
    }

    /// Forgets aborted transactions whose marker is at or after `end`.
    pub(crate) fn truncate_aborted(&self, end: i64) -> Result<(), Error> {
        let known = self.aborted()?;
        let kept = known.partition_point(|entry| entry.last_offset < end);
        *self.txns_end() = Some(end_of(&known[..kept]));
        let kept = (kept * aborted::ENTRY_SIZE) as u64;
        if !self.has_txns.load(Ordering::Acquire) {
            return Ok(());
        }
        let file = self.txns.get(&self.place)?;
        let path = self.txns.path(&self.place);
        // Also where the file ends in what is not an entry.
        if kept < self.place.volume.done("stat", &path, file.size())? {
            let done = file.set_size(kept);
            self.place.volume.done("truncate", &path, done)?;
            self.txns_changed.store(true, Ordering::Release);
        }
        Ok(())
    }
}

fn end_of(aborted: &[Aborted]) -> (usize, i64) {
    let last = aborted.last().map_or(-1, |last| last.last_offset);
    (aborted.len(), last)
}
