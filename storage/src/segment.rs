//! A segment: a `.log` file of batches in a row, with its indexes.
//!
//! [`Segment`] is what readers use, of any age. [`Active`] is the writer's side of the newest one;
//! sealing it writes out what the indexes hold in memory, and it will not change again.

use std::{
    io::IoSlice,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use protocol::batch::{Batch, Header};

use crate::{
    aborted::{self, Aborted},
    config::Config,
    disk::write_all,
    error::Error,
    files::{Handle, Kind, Place, Stage, file_name},
    index::{Index, OffsetEntry, TimeEntry},
    read::Walk,
};

/// Read ahead when walking from an index entry to an offset: the distance between two entries.
const LOOKUP_CHUNK: usize = 4096;

/// Records in a batch are decompressed to find one by its time: the most they may come to.
const DECOMPRESSED_MAX: usize = 1 << 30;

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

fn end_of(aborted: &[Aborted]) -> (usize, i64) {
    let last = aborted.last().map_or(-1, |last| last.last_offset);
    (aborted.len(), last)
}

/// Index entries are written out at least this often: after a kill, batches after the last that is
/// in the file are checked, and a thousand logs are to be open again in half a second.
const SPILL_INTERVAL: u64 = 512 << 10;

pub(crate) const NO_TIMESTAMP: i64 = -1;

/// The newest segment, from the writer's side.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) size: u64,
    bytes_since_index: u64,
    bytes_since_spill: u64,
    /// The largest time of the first batch: rolling by age counts from it. Read when first needed.
    first_timestamp: Option<i64>,
    created: i64,
    jitter_ms: i64,
}

impl Active {
    /// Creates the files of a new segment.
    pub(crate) fn create(
        place: &Arc<Place>,
        base_offset: i64,
        config: &Config,
        now: i64,
    ) -> Result<Active, Error> {
        let segment = Segment::new(place, base_offset);
        let file = segment.log.create(place)?;
        // A leftover of the same name is emptied; a new file is not, because ext4 takes a truncated
        // file for one being replaced and writes it out when it is closed.
        let done = file.size().and_then(|size| match size {
            0 => Ok(()),
            _ => file.set_size(0),
        });
        place
            .volume
            .done("create", &segment.log.path(place), done)?;
        // The indexes come with their first entries: most partitions are idle.
        for kind in [Kind::OffsetIndex, Kind::TimeIndex] {
            place.remove(&file_name(base_offset, kind.suffix()))?;
        }
        place.remove(&file_name(base_offset, Kind::TxnIndex.suffix()))?;
        if config.preallocate {
            let done = file.reserve(u64::from(config.segment_bytes));
            place
                .volume
                .done("allocate", &segment.log.path(place), done)?;
        }
        Ok(Active::resume(Arc::new(segment), config, now))
    }

    /// Creates the files of a compacted copy, called `.cleaned`.
    pub(crate) fn create_cleaned(
        place: &Arc<Place>,
        base_offset: i64,
        config: &Config,
        now: i64,
    ) -> Result<Active, Error> {
        let segment = Segment::cleaned(place, base_offset);
        // What an attempt before has left.
        segment.remove()?;
        segment.log.create(place)?;
        Ok(Active::resume(Arc::new(segment), config, now))
    }

    /// Goes on writing at the end of a segment.
    pub(crate) fn resume(segment: Arc<Segment>, config: &Config, now: i64) -> Active {
        Active {
            size: segment.size(),
            bytes_since_index: 0,
            bytes_since_spill: 0,
            first_timestamp: None,
            created: now,
            jitter_ms: jitter(&segment, config),
            segment,
        }
    }

    /// Whether batches of `size` bytes up to `last_offset` belong into a new segment.
    pub(crate) fn is_full(
        &mut self,
        size: usize,
        last_offset: i64,
        max_timestamp: i64,
        config: &Config,
        now: i64,
    ) -> Result<bool, Error> {
        let segment = &self.segment;
        let relative = last_offset - segment.base_offset;
        if self.size + size as u64 > u64::from(config.segment_bytes)
            || i32::try_from(relative).is_err()
        {
            return Ok(true);
        }
        let index_bytes = config.segment_index_bytes as usize;
        if segment.offsets.count(&segment.place)? >= index_bytes / 8
            // One is kept for the entry that sealing adds.
            || segment.times.count(&segment.place)? >= (index_bytes / 12).saturating_sub(1)
        {
            return Ok(true);
        }
        Ok(self.size > 0
            && self.waited(max_timestamp, now)? > config.roll_ms().saturating_sub(self.jitter_ms))
    }

    /// How long the segment has been written to, by its records' time if they have one.
    pub(crate) fn waited(&mut self, timestamp: i64, now: i64) -> Result<i64, Error> {
        if self.first_timestamp.is_none() && self.size > 0 {
            let first = self.segment.walk(0, self.size, 0, |walk| walk.next())?;
            self.first_timestamp = first.map(|(_, header)| header.max_timestamp);
        }
        Ok(match self.first_timestamp {
            Some(first) if first >= 0 => timestamp.saturating_sub(first),
            _ => now.saturating_sub(self.created),
        })
    }

    /// Writes batches at the end, in one call, and indexes them. `headers` are those of the batches
    /// in `parts`, with the offsets they get.
    ///
    /// Readers do not see them yet: [`Segment::set_size`] publishes.
    pub(crate) fn append(
        &mut self,
        parts: &mut [IoSlice<'_>],
        headers: impl Iterator<Item = Header>,
        config: &Config,
    ) -> Result<(), Error> {
        let place = &self.segment.place;
        let file = self.segment.log.get(place)?;
        let done = write_all(&**file, parts, self.size);
        if done.is_err() {
            // Cut back what was written of them (the disk is full, say), so that the file ends
            // with a whole batch whoever reads it next. If that fails too, recovery will do it.
            let _ = file.set_size(self.size);
        }
        place
            .volume
            .done("write", &self.segment.log.path(place), done)?;
        drop(file);
        for header in headers {
            self.index(&header, config)?;
        }
        if self.bytes_since_spill > SPILL_INTERVAL {
            self.spill()?;
        }
        Ok(())
    }

    /// Accounts for a batch at the end of the file.
    pub(crate) fn index(&mut self, header: &Header, config: &Config) -> Result<(), Error> {
        let segment = &self.segment;
        let place = &segment.place;
        let last_offset = header.last_offset();
        if self.size == 0 {
            self.first_timestamp = Some(header.max_timestamp);
        }
        let mut newest = segment.newest()?;
        if header.max_timestamp > newest.0 {
            newest = (header.max_timestamp, last_offset);
            segment.set_newest(newest);
        }
        if self.bytes_since_index > u64::from(config.index_interval_bytes)
            && let Ok(relative_offset) = i32::try_from(last_offset - segment.base_offset)
            && let Ok(position) = i32::try_from(self.size)
        {
            let entry = OffsetEntry {
                relative_offset,
                position,
            };
            segment.offsets.push(place, entry)?;
            self.index_newest(newest)?;
            self.bytes_since_index = 0;
        }
        self.bytes_since_index += header.size as u64;
        self.bytes_since_spill += header.size as u64;
        self.size += header.size as u64;
        Ok(())
    }

    /// Adds the largest timestamp to the time index, if it is larger than the last there.
    fn index_newest(&self, (timestamp, offset): (i64, i64)) -> Result<(), Error> {
        let segment = &self.segment;
        let last = segment.times.last(&segment.place)?;
        if last.is_none_or(|last| last.timestamp < timestamp)
            && timestamp >= 0
            && let Ok(relative_offset) = i32::try_from(offset - segment.base_offset)
        {
            let entry = TimeEntry {
                timestamp,
                relative_offset,
            };
            segment.times.push(&segment.place, entry)?;
        }
        Ok(())
    }

    /// Writes out what the indexes hold in memory, so that a crash of the process finds it there.
    pub(crate) fn spill(&mut self) -> Result<(), Error> {
        self.bytes_since_spill = 0;
        self.segment.offsets.spill(&self.segment.place)?;
        self.segment.times.spill(&self.segment.place)
    }

    /// Completes the index files: from now on nothing is added to the segment.
    pub(crate) fn seal(&mut self) -> Result<(), Error> {
        // The last entry of a time index is the segment's largest timestamp.
        self.index_newest(self.segment.newest()?)?;
        self.spill()?;
        // Empty or not, a segment that is done has both: Kafka takes a missing one for damage.
        self.segment.offsets.handle.create(&self.segment.place)?;
        self.segment.times.handle.create(&self.segment.place)?;
        Ok(())
    }
}

/// A fixed part of `segment.jitter.ms` for each segment, so that partitions created together do
/// not all roll together.
fn jitter(segment: &Segment, config: &Config) -> i64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let most = config.segment_jitter_ms.min(config.segment_ms);
    if most <= 0 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    segment.place.dir().hash(&mut hasher);
    segment.base_offset.hash(&mut hasher);
    (hasher.finish() >> 1).cast_signed() % most
}
