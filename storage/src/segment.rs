//! A segment: a `.log` file of batches in a row, with its indexes.
//!
//! [`Segment`] is what readers use, of any age. [`Active`] is the writer's side of the newest one;
//! sealing it writes out what the indexes hold in memory, and it will not change again.

mod aborted;
mod active;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use protocol::batch::{Batch, Header};

pub(crate) use self::active::Active;
use crate::{
    error::Error,
    files::{Handle, Kind, Place, Stage},
    index::{Index, OffsetEntry, TimeEntry},
    read::Walk,
};

/// Read ahead when walking from an index entry to an offset: the distance between two entries.
const LOOKUP_CHUNK: usize = 4096;

/// Records in a batch are decompressed to find one by its time: the most they may come to.
const DECOMPRESSED_MAX: usize = 1 << 30;

pub(crate) const NO_TIMESTAMP: i64 = -1;

/// A record's time and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    pub offset: i64,
    pub timestamp: i64,
    /// Of the leader that wrote it; `None` where only the time index was asked.
    pub leader_epoch: Option<i32>,
}

/// Where a batch lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Located {
    pub(crate) position: u64,
    pub(crate) size: usize,
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base_offset: i64,
    pub(crate) place: Arc<Place>,
    pub(crate) log: Handle,
    pub(crate) offsets: Index<OffsetEntry>,
    pub(crate) times: Index<TimeEntry>,
    pub(crate) txns: Handle,
    /// Whether there is a `.txnindex`.
    has_txns: AtomicBool,
    /// It may not be on the disk as it is.
    txns_changed: AtomicBool,
    /// How many entries the `.txnindex` has and the last one's last offset; unknown until an abort comes.
    txns_end: Mutex<Option<(usize, i64)>>,
    /// Bytes that readers may see.
    size: AtomicU64,
    /// The largest timestamp and the last offset of the batch that has it; unknown until asked.
    newest: Mutex<Option<(i64, i64)>>,
}

impl Segment {
    /// A segment found on disk.
    pub(crate) fn existing(
        place: &Arc<Place>,
        base_offset: i64,
        size: u64,
        has_txns: bool,
    ) -> Segment {
        Segment {
            base_offset,
            place: Arc::clone(place),
            log: Handle::new(base_offset, Kind::Log),
            offsets: Index::existing(base_offset, Kind::OffsetIndex),
            times: Index::existing(base_offset, Kind::TimeIndex),
            txns: Handle::new(base_offset, Kind::TxnIndex),
            has_txns: AtomicBool::new(has_txns),
            txns_changed: AtomicBool::new(has_txns),
            txns_end: Mutex::new(None),
            size: AtomicU64::new(size),
            newest: Mutex::new(None),
        }
    }

    fn new(place: &Arc<Place>, base_offset: i64) -> Segment {
        Segment {
            offsets: Index::empty(base_offset, Kind::OffsetIndex),
            times: Index::empty(base_offset, Kind::TimeIndex),
            newest: Mutex::new(Some((NO_TIMESTAMP, base_offset))),
            ..Segment::existing(place, base_offset, 0, false)
        }
    }

    /// A segment that compaction is about to write.
    fn cleaned(place: &Arc<Place>, base_offset: i64) -> Segment {
        let segment = Segment::new(place, base_offset);
        for handle in segment.handles() {
            handle.begin_at(Stage::Cleaned);
        }
        segment
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(crate) fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    /// The first batch that ends at or after `offset`, if it begins below `end`.
    pub(crate) fn locate(&self, offset: i64, end: u64) -> Result<Option<Located>, Error> {
        let from = self.position_before(offset)?;
        let file = self.log.get(&self.place)?;
        let mut walk = Walk::new(&self.place, &self.log, &file, from, end, LOOKUP_CHUNK);
        while let Some((position, header)) = walk.next()? {
            if header.last_offset() >= offset {
                let size = header.size;
                return Ok(Some(Located { position, size }));
            }
        }
        Ok(None)
    }

    /// A position from which walking finds `offset`, by the index.
    fn position_before(&self, offset: i64) -> Result<u64, Error> {
        let relative = offset - self.base_offset;
        let entry = self.offsets.last_where(&self.place, |entry| {
            i64::from(entry.relative_offset) <= relative
        })?;
        Ok(entry.map_or(0, |entry| u64::try_from(entry.position).unwrap_or(0)))
    }

    /// The last place at or before `position` where the index knows that a batch starts.
    pub(crate) fn known_start(&self, position: u64) -> Result<Option<u64>, Error> {
        let start = |entry: &OffsetEntry| u64::try_from(entry.position).unwrap_or(0);
        let entry = self
            .offsets
            .last_where(&self.place, |entry| start(entry) <= position)?;
        Ok(entry.as_ref().map(start))
    }

    /// Headers from the batch at `position` on.
    pub(crate) fn walk<T>(
        &self,
        position: u64,
        end: u64,
        chunk: usize,
        visit: impl FnOnce(&mut Walk<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let file = self.log.get(&self.place)?;
        let mut walk = Walk::new(&self.place, &self.log, &file, position, end, chunk);
        visit(&mut walk)
    }

    /// The largest timestamp so far (-1: none) and the last offset of the batch that has it.
    pub(crate) fn newest(&self) -> Result<(i64, i64), Error> {
        let known = *self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(newest) = known {
            return Ok(newest);
        }
        let newest = match self.times.last(&self.place)? {
            Some(entry) => (
                entry.timestamp,
                self.base_offset + i64::from(entry.relative_offset),
            ),
            None => (NO_TIMESTAMP, self.base_offset),
        };
        self.set_newest(newest);
        Ok(newest)
    }

    pub(crate) fn set_newest(&self, newest: (i64, i64)) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(newest);
    }

    /// Finds the largest timestamp again, of the batches before position `end`: from the last entry
    /// of the time index on, which may have lost more of its end than the offset index.
    pub(crate) fn reread_newest(&self, end: u64) -> Result<(), Error> {
        let mut newest = match self.times.last(&self.place)? {
            Some(entry) => (
                entry.timestamp,
                self.base_offset + i64::from(entry.relative_offset),
            ),
            None => (NO_TIMESTAMP, self.base_offset),
        };
        let position = self.position_before(newest.1)?;
        self.walk(position, end, LOOKUP_CHUNK, |walk| {
            while let Some((_, header)) = walk.next()? {
                if header.max_timestamp > newest.0 {
                    newest = (header.max_timestamp, header.last_offset());
                }
            }
            Ok(())
        })?;
        self.set_newest(newest);
        Ok(())
    }

    /// For retention: of the newest record, or of the file where records have no time.
    pub(crate) fn largest_timestamp(&self) -> Result<i64, Error> {
        match self.newest()? {
            (timestamp, _) if timestamp >= 0 => Ok(timestamp),
            _ => {
                let place = &self.place;
                self.log
                    .ask("stat", place, |path| place.disk().modified(path))
            }
        }
    }

    /// The first record at or after `start` whose time is at or after `timestamp`.
    pub(crate) fn find_timestamp(
        &self,
        timestamp: i64,
        start: i64,
        end: u64,
    ) -> Result<Option<TimestampOffset>, Error> {
        // All records up to the entry's offset are older.
        let entry = self
            .times
            .last_where(&self.place, |entry| entry.timestamp < timestamp)?;
        let after = entry.map_or(self.base_offset, |entry| {
            self.base_offset + i64::from(entry.relative_offset)
        });
        self.first_record(after.max(start), end, start, |header, record| {
            header.max_timestamp >= timestamp && record >= timestamp
        })
    }

    /// The first record that has the segment's largest timestamp.
    pub(crate) fn find_newest(&self, end: u64) -> Result<Option<TimestampOffset>, Error> {
        let (timestamp, last_offset) = self.newest()?;
        if timestamp < 0 {
            return Ok(None);
        }
        self.first_record(last_offset, end, self.base_offset, |header, record| {
            header.max_timestamp == timestamp && record == timestamp
        })
    }

    /// The first record at or after `start` that is wanted, walking from where `from` is. `wanted`
    /// sees the batch and the record's time; batches are only opened when their largest time is
    /// wanted too.
    fn first_record(
        &self,
        from: i64,
        end: u64,
        start: i64,
        wanted: impl Fn(&Header, i64) -> bool,
    ) -> Result<Option<TimestampOffset>, Error> {
        let position = self.position_before(from)?;
        self.walk(position, end, LOOKUP_CHUNK, |walk| {
            while let Some((at, header)) = walk.next()? {
                if header.last_offset() < start || !wanted(&header, header.max_timestamp) {
                    continue;
                }
                let bytes = bytes::Bytes::copy_from_slice(walk.batch(at, header.size)?);
                let corrupt = |_| Error::Corrupt {
                    path: self.log.path(&self.place),
                    position: at,
                    reason: "the batch's records cannot be read",
                };
                let batch = Batch::parse(bytes).map_err(corrupt)?;
                for record in batch.records(DECOMPRESSED_MAX).map_err(corrupt)? {
                    let record = record.map_err(corrupt)?;
                    if record.offset >= start && wanted(&header, record.timestamp) {
                        return Ok(Some(TimestampOffset {
                            offset: record.offset,
                            timestamp: record.timestamp,
                            leader_epoch: (header.leader_epoch >= 0).then_some(header.leader_epoch),
                        }));
                    }
                }
            }
            Ok(None)
        })
    }

    /// An offset at or after the end of the `size` bytes at `position`, by the index: the bound up
    /// to which aborted transactions matter to their reader. `None`: the end of the segment.
    pub(crate) fn bound_after(&self, position: u64, size: usize) -> Result<Option<i64>, Error> {
        let end = position + size as u64;
        let entry = self.offsets.first_where_not(&self.place, |entry| {
            u64::try_from(entry.position).unwrap_or(0) < end
        })?;
        Ok(entry.map(|entry| self.base_offset + i64::from(entry.relative_offset)))
    }

    /// Makes the log file durable, and what cannot be found again in it: the aborted transactions.
    /// With `indexes` those too, as a sealed segment's must be before recovery trusts them.
    pub(crate) fn sync(&self, indexes: bool) -> Result<(), Error> {
        self.sync_file(&self.log)?;
        self.sync_aborted()?;
        if indexes {
            self.sync_file(&self.offsets.handle)?;
            self.sync_file(&self.times.handle)?;
        }
        Ok(())
    }

    /// Starts writing the log file to the disk, without waiting for it.
    pub(crate) fn start_writeback(&self) {
        if let Ok(file) = self.log.get(&self.place) {
            // A hint: what fails here fails again, and is seen, in the sync that follows.
            let _ = file.start_writeback();
        }
    }

    /// Where a transaction began that is aborted below the recovery point, no scan looks for any
    /// more, and producer snapshots know only those that are open.
    pub(crate) fn sync_aborted(&self) -> Result<(), Error> {
        if self.txns_changed.swap(false, Ordering::AcqRel) {
            self.sync_file(&self.txns)?;
        }
        Ok(())
    }

    fn sync_file(&self, handle: &Handle) -> Result<(), Error> {
        let done = handle.get(&self.place)?.sync();
        let path = handle.path(&self.place);
        self.place.volume.done("fsync", &path, done)
    }

    fn handles(&self) -> [&Handle; 4] {
        [
            &self.log,
            &self.offsets.handle,
            &self.times.handle,
            &self.txns,
        ]
    }

    /// Renames the files to `.deleted`; who reads them still can.
    pub(crate) fn mark_deleted(&self) -> Result<(), Error> {
        self.rename_to(Stage::Deleted)
    }

    pub(crate) fn rename_to(&self, stage: Stage) -> Result<(), Error> {
        self.handles()
            .iter()
            .try_for_each(|handle| handle.rename_to(stage, &self.place))
    }

    /// Removes the files, which nobody looks for any more.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        self.handles()
            .iter()
            .try_for_each(|handle| handle.remove(&self.place))
    }

    /// Gives the file descriptors back.
    pub(crate) fn close(&self) {
        for handle in self.handles() {
            handle.close(&self.place);
        }
    }
}
