//! The sparse indexes of a segment: offset to position, timestamp to offset.
//!
//! Entries ascend, so both are searched by bisection. The newest entries of a segment that is being
//! written are in memory and reach the file in batches; the older ones are read from the file when
//! somebody asks, never mapped: ten thousand partitions have more index files than a process may
//! have mappings. What is missing from the file after a crash, recovery writes again.

use std::{
    io::IoSlice,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    disk::write_all,
    error::Error,
    files::{Handle, Kind, Open, Place, read_small},
};

/// One entry of an index file.
pub trait Entry: Copy + std::fmt::Debug {
    const SIZE: usize;
    fn encode(self, into: &mut Vec<u8>);
    /// From exactly [`Entry::SIZE`] bytes.
    fn decode(bytes: &[u8]) -> Option<Self>;
    /// The first of two entries that are in order.
    fn ascends(self, next: Self) -> bool;
    /// What a file has where nothing was written.
    fn is_zero(self) -> bool;
}

/// `.index`: the batch that starts at `position` ends with this offset, relative to the segment's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetEntry {
    pub relative_offset: i32,
    pub position: i32,
}

impl Entry for OffsetEntry {
    const SIZE: usize = 8;

    fn encode(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.relative_offset.to_be_bytes());
        into.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<OffsetEntry> {
        let (relative_offset, rest) = bytes.split_first_chunk()?;
        Some(OffsetEntry {
            relative_offset: i32::from_be_bytes(*relative_offset),
            position: i32::from_be_bytes(*rest.first_chunk()?),
        })
    }

    fn ascends(self, next: OffsetEntry) -> bool {
        self.relative_offset < next.relative_offset && self.position < next.position
    }

    fn is_zero(self) -> bool {
        (self.relative_offset, self.position) == (0, 0)
    }
}

/// `.timeindex`: up to this offset no record is newer than `timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeEntry {
    pub timestamp: i64,
    pub relative_offset: i32,
}

impl Entry for TimeEntry {
    const SIZE: usize = 12;

    fn encode(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.timestamp.to_be_bytes());
        into.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<TimeEntry> {
        let (timestamp, rest) = bytes.split_first_chunk()?;
        Some(TimeEntry {
            timestamp: i64::from_be_bytes(*timestamp),
            relative_offset: i32::from_be_bytes(*rest.first_chunk()?),
        })
    }

    fn ascends(self, next: TimeEntry) -> bool {
        self.timestamp < next.timestamp && self.relative_offset < next.relative_offset
    }

    fn is_zero(self) -> bool {
        (self.timestamp, self.relative_offset) == (0, 0)
    }
}

/// The entries in a whole index file. Kafka's active files end in zeros up to their preallocated
/// size, and a crash can leave any: only the ascending start is taken.
pub fn decode_ascending<E: Entry>(bytes: &[u8]) -> Vec<E> {
    let mut entries: Vec<E> = Vec::new();
    for entry in bytes.chunks_exact(E::SIZE).filter_map(E::decode) {
        match entries.last() {
            Some(last) if !last.ascends(entry) => break,
            None if entry.is_zero() => break,
            _ => entries.push(entry),
        }
    }
    entries
}

/// This many entries wait in memory for the next write to the file.
const RECENT_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Index<E> {
    pub(crate) handle: Handle,
    state: Mutex<State<E>>,
}

#[derive(Debug)]
struct State<E> {
    /// Entries in the file; unknown until somebody asks.
    written: Option<usize>,
    /// Entries after those, oldest first.
    recent: Vec<E>,
    /// The newest of all, if there is one. Kept so that an append need not read.
    last: Option<E>,
}

impl<E: Entry> Index<E> {
    /// An index whose file is to be created with its first entries.
    pub(crate) fn empty(base_offset: i64, kind: Kind) -> Index<E> {
        Index::new(base_offset, kind, Some(0))
    }

    /// An index whose file is there already.
    pub(crate) fn existing(base_offset: i64, kind: Kind) -> Index<E> {
        Index::new(base_offset, kind, None)
    }

    fn new(base_offset: i64, kind: Kind, written: Option<usize>) -> Index<E> {
        Index {
            handle: Handle::new(base_offset, kind),
            state: Mutex::new(State {
                written,
                recent: Vec::new(),
                last: None,
            }),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self, place: &Place) -> Result<usize, Error> {
        if let Some(written) = self.state().written {
            return Ok(written);
        }
        let size = self
            .handle
            .ask("stat", place, |path| place.disk().size(path))?;
        let written = usize::try_from(size).unwrap_or(usize::MAX) / E::SIZE;
        self.state().written = Some(written);
        Ok(written)
    }

    pub(crate) fn count(&self, place: &Place) -> Result<usize, Error> {
        Ok(self.written(place)? + self.state().recent.len())
    }

    pub(crate) fn last(&self, place: &Place) -> Result<Option<E>, Error> {
        if let Some(last) = self.state().last {
            return Ok(Some(last));
        }
        let written = self.written(place)?;
        if written == 0 {
            return Ok(None);
        }
        let file = self.handle.get(place)?;
        let last = self.read(place, &file, written - 1, 1)?.pop();
        self.state().last = last;
        Ok(last)
    }

    /// Adds an entry in memory, and writes out those that have waited when there are many.
    /// Only the log's writer calls this, and [`Self::spill`], [`Self::resume`], [`Self::truncate`].
    pub(crate) fn push(&self, place: &Place, entry: E) -> Result<(), Error> {
        let waiting = {
            let mut state = self.state();
            state.recent.push(entry);
            state.last = Some(entry);
            state.recent.len()
        };
        if waiting < RECENT_MAX {
            return Ok(());
        }
        self.spill(place)
    }

    /// Writes what waits in memory to the file. Readers go on meanwhile: they find the entries in
    /// memory until they are in the file.
    pub(crate) fn spill(&self, place: &Place) -> Result<(), Error> {
        let written = self.written(place)?;
        let mut bytes = Vec::new();
        let count = {
            let state = self.state();
            for entry in &state.recent {
                entry.encode(&mut bytes);
            }
            state.recent.len()
        };
        if count == 0 {
            return Ok(());
        }
        let file = self.handle.create(place)?;
        let position = (written * E::SIZE) as u64;
        let done = write_all(&**file, &mut [IoSlice::new(&bytes)], position);
        place.volume.done("write", &self.handle.path(place), done)?;
        let mut state = self.state();
        state.written = Some(written + count);
        state.recent.drain(..count);
        state.recent.shrink_to(0);
        Ok(())
    }

    /// Keeps these of the entries in the file, from its start, and nothing else.
    pub(crate) fn resume(&self, place: &Place, kept: &[E]) -> Result<(), Error> {
        let file = self.handle.create(place)?;
        let size = (kept.len() * E::SIZE) as u64;
        // On the disk before other entries are written there: what a power cut brought back of the
        // old ones would look like them.
        let done = file.size().and_then(|found| {
            if found == size {
                Ok(())
            } else {
                file.set_size(size).and_then(|()| file.sync())
            }
        });
        place
            .volume
            .done("truncate", &self.handle.path(place), done)?;
        let mut state = self.state();
        state.written = Some(kept.len());
        state.recent = Vec::new();
        state.last = kept.last().copied();
        Ok(())
    }

    /// Cuts off the zeros up to the preallocated size at the end of a file that Kafka has written
    /// to last. They would count as entries, and a full index rolls its segment.
    pub(crate) fn trim(&self, place: &Place) -> Result<(), Error> {
        // A single entry of zeros may be one: the first record, and its time the epoch.
        let zeros = self.last(place)?.is_some_and(Entry::is_zero) && self.written(place)? > 1;
        if !zeros {
            return Ok(());
        }
        let path = self.handle.path(place);
        let bytes = place
            .volume
            .done("read", &path, read_small(place.disk(), &path))?;
        self.resume(place, &decode_ascending(&bytes.unwrap_or_default()))
    }

    /// Forgets the entries from the first on for which `holds` is false.
    pub(crate) fn truncate(&self, place: &Place, holds: impl Fn(&E) -> bool) -> Result<(), Error> {
        self.spill(place)?;
        let mut entries = self.entries(place)?;
        entries.truncate(entries.partition_point(holds));
        self.resume(place, &entries)
    }

    /// Every entry.
    fn entries(&self, place: &Place) -> Result<Vec<E>, Error> {
        let written = self.written(place)?;
        let mut entries = Vec::new();
        if written > 0 {
            let file = self.handle.get(place)?;
            entries = self.read(place, &file, 0, written)?;
        }
        entries.extend_from_slice(&self.state().recent);
        Ok(entries)
    }

    /// The last entry for which `holds` is true; it must be true for a prefix of the entries.
    pub(crate) fn last_where(
        &self,
        place: &Place,
        holds: impl Fn(&E) -> bool,
    ) -> Result<Option<E>, Error> {
        {
            let state = self.state();
            let count = state.recent.partition_point(&holds);
            if let Some(at) = count.checked_sub(1) {
                return Ok(Some(state.recent[at]));
            }
        }
        let block = self.block_where(place, &holds)?;
        let count = block.partition_point(&holds);
        Ok(count.checked_sub(1).map(|at| block[at]))
    }

    /// The first entry for which `holds` is false; it must be true for a prefix of the entries.
    pub(crate) fn first_where_not(
        &self,
        place: &Place,
        holds: impl Fn(&E) -> bool,
    ) -> Result<Option<E>, Error> {
        let newest_written_holds = {
            let state = self.state();
            let count = state.recent.partition_point(&holds);
            if count > 0 {
                return Ok(state.recent.get(count).copied());
            }
            state.recent.first().copied()
        };
        let block = self.block_where(place, &holds)?;
        let count = block.partition_point(&holds);
        Ok(block.get(count).copied().or(newest_written_holds))
    }

    /// The block of the file in which `holds` turns false, found by bisection.
    fn block_where(&self, place: &Place, holds: impl Fn(&E) -> bool) -> Result<Vec<E>, Error> {
        const BLOCK: usize = 256;
        let written = self.written(place)?;
        if written == 0 {
            return Ok(Vec::new());
        }
        let file = self.handle.get(place)?;
        // Invariant: `holds` is true before `low` and false from `high` on.
        let (mut low, mut high) = (0, written);
        while high - low > BLOCK {
            let middle = low + (high - low) / 2;
            match self.read(place, &file, middle, 1)?.first() {
                Some(entry) if holds(entry) => low = middle,
                // An entry cut off meanwhile is as good as one past what is looked for.
                _ => high = middle,
            }
        }
        // One more than was searched: `first_where_not` wants the entry after the block too.
        let count = (high - low + 1).min(written - low);
        self.read(place, &file, low, count)
    }

    fn read(
        &self,
        place: &Place,
        file: &Arc<Open>,
        at: usize,
        count: usize,
    ) -> Result<Vec<E>, Error> {
        let mut bytes = vec![0; count * E::SIZE];
        let done = file.read_at(&mut bytes, (at * E::SIZE) as u64);
        let read = place.volume.done("read", &self.handle.path(place), done)?;
        Ok(bytes[..read]
            .chunks_exact(E::SIZE)
            .filter_map(E::decode)
            .collect())
    }
}
