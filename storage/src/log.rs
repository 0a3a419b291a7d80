//! A log: batches in the order of their offsets, in segments, on one disk.
//!
//! ```text
//! start_offset <= flushed_offset (after a while) <= end_offset
//!      |                |                              |
//!      |                | on the disk before, maybe    | the next batch goes here
//!      | deleted before | only in the page cache after |
//! ```
//!
//! One lock is the writer's, held over its calls into the page cache. Readers never take it: what
//! they need to find a batch is under a second lock that is held for arithmetic only.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::IoSlice,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use protocol::batch::{Batch, HEADER_SIZE, Header};

use crate::{
    aborted::Aborted,
    checkpoint,
    config::Config,
    directory::Volume,
    disk::{Disk, Mode, write_all},
    epochs::Epochs,
    error::Error,
    files::{Place, file_name},
    producers::{Marker, Origin, Producer, Producers, Verdict},
    recovery::{self, EPOCHS, Opened, SNAPSHOT},
    retention,
    segment::{Active, Located, Segment},
};
pub use crate::{
    recovery::{Shutdown, Start},
    segment::TimestampOffset,
};

#[derive(Debug)]
pub struct Log {
    place: Arc<Place>,
    config: RwLock<Arc<Config>>,
    writer: Mutex<Writer>,
    view: RwLock<View>,
    transactions: Mutex<Transactions>,
    /// Held by whoever flushes, so that a second one finds the work done.
    flushing: Mutex<()>,
    /// Bytes appended since the last flush began.
    unflushed: AtomicU64,
}

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: i64,
    pub last_offset: i64,
    pub log_start_offset: i64,
    /// The batch was here already: the offsets are those of the first time.
    pub duplicate: bool,
}

/// What only the writer needs.
#[derive(Debug)]
struct Writer {
    active: Active,
    next_offset: i64,
    /// Loaded when first needed.
    producers: Option<Producers>,
    /// Offsets for which there is a `.snapshot` file.
    snapshots: BTreeSet<i64>,
    bytes_since_snapshot: u64,
    snapshot_size: u64,
    /// Sealed segments that are not on the disk yet.
    unsynced: Vec<Arc<Segment>>,
    /// Files were created or renamed since the directory was synced.
    dir_changed: bool,
    /// The directory itself may not be on the disk.
    created: bool,
    epochs_changed: bool,
    /// Anything at all was written since the log was opened.
    changed: bool,
    /// When the oldest record that is not flushed was appended.
    unflushed_since: Option<i64>,
    /// Segments called `.deleted`, and when they may be removed.
    deleted: VecDeque<(i64, Arc<Segment>)>,
}

/// What readers need, and the writer publishes.
#[derive(Debug)]
struct View {
    start_offset: i64,
    end_offset: i64,
    flushed_offset: i64,
    /// By base offset; never empty, the last is the active one.
    segments: BTreeMap<i64, Arc<Segment>>,
    epochs: Epochs,
    tail: Tail,
}

/// Where the last few batches begin. Consumers and followers at the end of the log, and the high
/// watermark, are nearly always found here, without a look at the file.
#[derive(Debug, Default)]
struct Tail {
    /// Base offset and position in the active segment, ascending.
    batches: VecDeque<(i64, u64)>,
}

impl Tail {
    const MAX: usize = 32;

    fn push(&mut self, base_offset: i64, position: u64) {
        if self.batches.len() == Tail::MAX {
            self.batches.pop_front();
        }
        self.batches.push_back((base_offset, position));
    }

    /// The batch that holds `offset`, which is below the end of the log; `size` is the segment's.
    fn locate(&self, offset: i64, size: u64) -> Option<Located> {
        let count = self.batches.partition_point(|(base, _)| *base <= offset);
        let (_, position) = self.batches.get(count.checked_sub(1)?)?;
        let end = self.batches.get(count).map_or(size, |(_, next)| *next);
        Some(Located {
            position: *position,
            size: usize::try_from(end - position).ok()?,
        })
    }
}

/// Transactions that hold back a `read_committed` consumer.
#[derive(Debug, Default)]
struct Transactions {
    /// Whether producer state has been loaded since opening or truncating.
    known: bool,
    first_ongoing: Option<i64>,
    /// Ended, but the marker may not have passed the high watermark yet: first and last offset.
    ended: Vec<(i64, i64)>,
}

/// Unless producers are very many, this much log at most lies between the last snapshot of producer
/// state and a crash.
const SNAPSHOT_INTERVAL: u64 = 4 << 20;

impl Log {
    /// Opens the log in `dir`, or begins one. For a log that is not in a
    /// [`crate::directory::Directory`], whose [`crate::directory::Directory::open_log`] knows how
    /// each of its logs was left.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: Config,
        start: Start,
        now: i64,
    ) -> Result<Log, Error> {
        let root = dir.parent().unwrap_or(dir).to_owned();
        let volume = Arc::new(Volume::lone(disk, root));
        Log::open_in(volume, dir.to_owned(), config, start, now)
    }

    pub(crate) fn open_in(
        volume: Arc<Volume>,
        dir: PathBuf,
        config: Config,
        start: Start,
        now: i64,
    ) -> Result<Log, Error> {
        volume.check()?;
        match volume.disk.create_dir(&dir) {
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => (),
            created => volume.done("create", &dir, created)?,
        }
        let place = Arc::new(Place::new(volume, dir));
        let Opened {
            segments,
            active,
            start_offset,
            end_offset,
            flushed_offset,
            epochs,
            epochs_changed,
            snapshots,
            rewritten,
        } = recovery::open(&place, &config, start, now)?;
        let changed =
            start.shutdown != Shutdown::Clean || active.size == 0 || !rewritten.is_empty();
        let writer = Writer {
            active,
            next_offset: end_offset,
            producers: None,
            snapshots,
            bytes_since_snapshot: 0,
            snapshot_size: 0,
            unsynced: rewritten,
            dir_changed: changed,
            created: changed,
            epochs_changed: changed,
            changed,
            unflushed_since: (flushed_offset < end_offset).then_some(now),
            deleted: VecDeque::new(),
        };
        let mut log = Log {
            place,
            config: RwLock::new(Arc::new(config)),
            writer: Mutex::new(writer),
            view: RwLock::new(View {
                start_offset,
                end_offset,
                flushed_offset,
                segments,
                epochs,
                tail: Tail::default(),
            }),
            transactions: Mutex::default(),
            flushing: Mutex::new(()),
            unflushed: AtomicU64::new(0),
        };
        if start.shutdown != Shutdown::Clean {
            log.note_unflushed(flushed_offset);
        }
        if epochs_changed {
            // If this process is killed, the next one will not look as far back.
            let mut writer = log.writer()?;
            log.write_epochs(&mut writer)?;
        }
        Ok(log)
    }

    /// What recovery left unflushed counts like what is appended.
    fn note_unflushed(&mut self, flushed_offset: i64) {
        let view = self.view.get_mut().unwrap_or_else(PoisonError::into_inner);
        // One that ends at the flushed offset too: it may have been sealed after the flush.
        let floor = view.segments.range(..flushed_offset).next_back();
        let floor = floor.map_or(flushed_offset, |(base_offset, _)| *base_offset);
        let mut unflushed: Vec<_> = view
            .segments
            .range(floor..)
            .map(|(_, s)| s.clone())
            .collect();
        let bytes = if flushed_offset < view.end_offset {
            unflushed.iter().map(|segment| segment.size()).sum()
        } else {
            0
        };
        // The active one is synced with every flush.
        unflushed.pop();
        let writer = self
            .writer
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for segment in unflushed {
            let known = |other| Arc::ptr_eq(other, &segment);
            if !writer.unsynced.iter().any(known) {
                writer.unsynced.push(segment);
            }
        }
        *self.unflushed.get_mut() = bytes;
        self.place.volume.add_unflushed(bytes);
    }

    /// The directory it is in.
    pub fn dir(&self) -> PathBuf {
        self.place.dir()
    }

    /// The directory's name: topic and partition.
    pub fn name(&self) -> String {
        let dir = self.place.dir();
        let name = dir.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set_config(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    pub fn start_offset(&self) -> i64 {
        self.view().start_offset
    }

    /// Where the next batch goes.
    pub fn end_offset(&self) -> i64 {
        self.view().end_offset
    }

    /// What is below survives a power cut.
    pub fn flushed_offset(&self) -> i64 {
        self.view().flushed_offset
    }

    /// Bytes in all segments.
    pub fn size(&self) -> u64 {
        self.view()
            .segments
            .values()
            .map(|segment| segment.size())
            .sum()
    }

    pub fn segment_count(&self) -> usize {
        self.view().segments.len()
    }

    /// Bytes appended since the last flush began.
    pub fn unflushed_bytes(&self) -> u64 {
        self.unflushed.load(Ordering::Relaxed)
    }

    // Appending.

    /// Appends a producer's batch as leader: it gets the next offset and this leader epoch.
    pub fn append(&self, batch: &Batch, leader_epoch: i32, now: i64) -> Result<Appended, Error> {
        self.append_from(batch, leader_epoch, Origin::Client, now)
    }

    /// Appends as leader what a producer or a coordinator has sent.
    pub fn append_from(
        &self,
        batch: &Batch,
        leader_epoch: i32,
        origin: Origin,
        now: i64,
    ) -> Result<Appended, Error> {
        let config = self.config();
        let marker = marker(batch)?;
        let mut writer = self.writer()?;
        let base_offset = writer.next_offset;
        let header = Header {
            base_offset,
            leader_epoch,
            ..*batch.header()
        };
        if header.has_producer() {
            let producers = self.producers_of(&mut writer, now)?;
            if let Verdict::Duplicate(first) = producers.check(&header, marker.as_ref(), origin)? {
                return Ok(Appended {
                    base_offset: first.first_offset(),
                    last_offset: first.last_offset,
                    log_start_offset: self.start_offset(),
                    duplicate: true,
                });
            }
        }
        self.make_room(&mut writer, header.size, &header, &config, now)?;
        let stamped = batch.stamped(base_offset, leader_epoch);
        let mut parts = [
            IoSlice::new(&stamped),
            IoSlice::new(&batch.bytes()[HEADER_SIZE..]),
        ];
        self.write(&mut writer, &mut parts, &[(header, marker)], &config, now)?;
        Ok(Appended {
            base_offset,
            last_offset: header.last_offset(),
            log_start_offset: self.start_offset(),
            duplicate: false,
        })
    }

    /// Appends batches that have their offsets and leader epochs, as a follower does.
    pub fn append_assigned(&self, batches: &[Batch], now: i64) -> Result<Appended, Error> {
        let config = self.config();
        let mut writer = self.writer()?;
        let mut expected = writer.next_offset;
        let mut marked = Vec::with_capacity(batches.len());
        for batch in batches {
            let header = *batch.header();
            if header.base_offset < expected {
                return Err(Error::UnexpectedOffset {
                    expected,
                    found: header.base_offset,
                });
            }
            expected = header.next_offset();
            marked.push((header, marker(batch)?));
        }
        let base_offset = batches
            .first()
            .map_or(expected, |batch| batch.header().base_offset);
        let mut rest = &marked[..];
        let mut bytes = batches;
        while let Some((first, _)) = rest.first() {
            self.make_room(&mut writer, first.size, first, &config, now)?;
            // As many as go into this segment, in one call.
            let mut size = first.size;
            let mut count = 1;
            while let Some((header, _)) = rest.get(count) {
                let active = &mut writer.active;
                size += header.size;
                let (last, newest) = (header.last_offset(), header.max_timestamp);
                if active.is_full(size, last, newest, &config, now)? {
                    break;
                }
                count += 1;
            }
            let mut parts: Vec<_> = bytes[..count]
                .iter()
                .map(|batch| IoSlice::new(batch.bytes()))
                .collect();
            self.write(&mut writer, &mut parts, &rest[..count], &config, now)?;
            rest = &rest[count..];
            bytes = &bytes[count..];
        }
        Ok(Appended {
            base_offset,
            last_offset: expected - 1,
            log_start_offset: self.start_offset(),
            duplicate: false,
        })
    }

    /// This broker leads from now on: records from the log end on are of this epoch, even before
    /// the first is written.
    pub fn assign_epoch(&self, leader_epoch: i32) -> Result<(), Error> {
        let mut writer = self.writer()?;
        let start = writer.next_offset;
        if self.view_mut().epochs.assign(leader_epoch, start) {
            self.write_epochs(&mut writer)?;
        }
        Ok(())
    }

    /// Rolls if the batch does not belong into the active segment.
    fn make_room(
        &self,
        writer: &mut Writer,
        size: usize,
        header: &Header,
        config: &Config,
        now: i64,
    ) -> Result<(), Error> {
        if size > config.segment_bytes as usize {
            return Err(Error::BatchTooLarge {
                size,
                max: config.segment_bytes,
            });
        }
        let (last, newest) = (header.last_offset(), header.max_timestamp);
        if writer.active.is_full(size, last, newest, config, now)? {
            self.roll(writer, header.base_offset, config, now)?;
        }
        Ok(())
    }

    /// Writes batches into the active segment, applies them and publishes them to readers.
    fn write(
        &self,
        writer: &mut Writer,
        parts: &mut [IoSlice<'_>],
        batches: &[(Header, Option<Marker>)],
        config: &Config,
        now: i64,
    ) -> Result<(), Error> {
        let Some((last, _)) = batches.last() else {
            return Ok(());
        };
        let mut position = writer.active.size;
        let headers = batches.iter().map(|(header, _)| *header);
        writer.active.append(parts, headers, config)?;
        let appended = writer.active.size - position;
        writer.next_offset = last.next_offset();
        writer.changed = true;
        writer.unflushed_since.get_or_insert(now);

        // Before readers can see the records: a transaction that has just begun holds back the
        // last stable offset.
        for (header, marker) in batches.iter().filter(|(header, _)| header.has_producer()) {
            let producers = self.producers_of(writer, now)?;
            let completed = producers.apply(header, header.base_offset, marker.as_ref());
            let first_ongoing = producers.first_ongoing();
            if let Some(completed) = completed
                && !completed.commit
            {
                let segment = &writer.active.segment;
                writer.dir_changed |= segment.add_aborted(&Aborted::from(completed))?;
            }
            if header.is_transactional() {
                let mut transactions = self.transactions();
                transactions.first_ongoing = first_ongoing;
                if let Some(completed) = completed {
                    let ended = (completed.first_offset, completed.last_offset);
                    transactions.ended.push(ended);
                }
            }
        }

        let mut new_epoch = false;
        {
            let mut view = self.view_mut();
            for (header, _) in batches {
                new_epoch |= view.epochs.assign(header.leader_epoch, header.base_offset);
                view.tail.push(header.base_offset, position);
                position += header.size as u64;
            }
            writer.active.segment.set_size(writer.active.size);
            view.end_offset = writer.next_offset;
        }
        if new_epoch {
            self.write_epochs(writer)?;
        }
        self.unflushed.fetch_add(appended, Ordering::Relaxed);
        self.place.volume.add_unflushed(appended);
        writer.bytes_since_snapshot += appended;
        if writer.bytes_since_snapshot > SNAPSHOT_INTERVAL.max(64 * writer.snapshot_size) {
            self.write_snapshot(writer)?;
        }
        Ok(())
    }

    /// Begins a new segment.
    fn roll(
        &self,
        writer: &mut Writer,
        base_offset: i64,
        config: &Config,
        now: i64,
    ) -> Result<(), Error> {
        if writer.active.segment.base_offset == base_offset {
            // Nothing in it yet: there is nothing to roll away from.
            return Ok(());
        }
        writer.active.seal()?;
        // At each segment's start there is a snapshot: truncation and recovery begin at one.
        self.producers_of(writer, now)?;
        self.write_snapshot_at(writer, base_offset)?;
        let active = Active::create(&self.place, base_offset, config, now)?;
        let mut view = self.view_mut();
        view.segments
            .insert(base_offset, Arc::clone(&active.segment));
        view.tail = Tail::default();
        drop(view);
        let sealed = std::mem::replace(&mut writer.active, active);
        writer.unsynced.push(sealed.segment);
        writer.dir_changed = true;
        writer.changed = true;
        Ok(())
    }

    // Reading.

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

    /// The first record at or after the start offset with this time or a later one.
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<TimestampOffset>, Error> {
        self.place.volume.check()?;
        let (start_offset, segments) = self.snapshot_of_segments();
        for (segment, size) in segments {
            // Not every segment that is new enough has one: it may lie below the start offset.
            if segment.largest_timestamp()? >= timestamp
                && let Some(found) = segment.find_timestamp(timestamp, start_offset, size)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first record that has the largest timestamp of all.
    pub fn offset_of_max_timestamp(&self) -> Result<Option<TimestampOffset>, Error> {
        self.place.volume.check()?;
        let (_, segments) = self.snapshot_of_segments();
        let mut newest: Option<(i64, Arc<Segment>, u64)> = None;
        for (segment, size) in segments {
            let (timestamp, _) = segment.newest()?;
            if newest.as_ref().is_none_or(|(known, ..)| *known < timestamp) {
                newest = Some((timestamp, segment, size));
            }
        }
        match newest {
            Some((_, segment, size)) => segment.find_newest(size),
            None => Ok(None),
        }
    }

    fn snapshot_of_segments(&self) -> (i64, Vec<(Arc<Segment>, u64)>) {
        let view = self.view();
        let segments = view.segments.values();
        let segments = segments.map(|segment| (Arc::clone(segment), segment.size()));
        (view.start_offset, segments.collect())
    }

    /// The epoch of the leader that wrote the record at `offset`.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.view().epochs.at(offset)
    }

    pub fn latest_epoch(&self) -> Option<i32> {
        self.view().epochs.latest()
    }

    /// Leader epochs and the offsets they begin at.
    pub fn epochs(&self) -> Vec<(i32, i64)> {
        self.view().epochs.entries().to_vec()
    }

    /// The largest epoch not above `epoch` and the offset it ends at, -1 and -1 if there is none:
    /// the answer to OffsetsForLeaderEpoch.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> (i32, i64) {
        let view = self.view();
        let end = view.epochs.end_of(epoch, view.end_offset);
        end.unwrap_or((-1, -1))
    }

    // Producers and transactions.

    /// What is known of each producer, by id.
    pub fn producers(&self, now: i64) -> Result<Vec<(i64, Producer)>, Error> {
        let mut writer = self.writer()?;
        let producers = self.producers_of(&mut writer, now)?;
        Ok(producers
            .iter()
            .map(|(id, known)| (id, known.clone()))
            .collect())
    }

    /// Where the oldest transaction begins that is open, or whose end is not below the high
    /// watermark; the high watermark if there is none before it.
    pub fn last_stable_offset(&self, high_watermark: i64, now: i64) -> Result<i64, Error> {
        if !self.transactions().known {
            let mut writer = self.writer()?;
            self.producers_of(&mut writer, now)?;
        }
        let mut transactions = self.transactions();
        transactions
            .ended
            .retain(|(_, last)| *last >= high_watermark);
        let ended = transactions.ended.iter().map(|(first, _)| *first);
        let first = ended.chain(transactions.first_ongoing).min();
        Ok(first.map_or(high_watermark, |first| first.min(high_watermark)))
    }

    /// Aborted transactions with records in `from..to`, for a `read_committed` consumer.
    pub fn aborted(&self, from: i64, to: i64, now: i64) -> Result<Vec<Aborted>, Error> {
        // Loading completes what a crash may have lost of the index.
        self.last_stable_offset(to, now)?;
        let segments: Vec<_> = {
            let view = self.view();
            let floor = view.segments.range(..=from).next_back();
            let floor = floor.map_or(from, |(base_offset, _)| *base_offset);
            view.segments
                .range(floor..)
                .map(|(_, s)| s.clone())
                .collect()
        };
        let mut found = Vec::new();
        for segment in segments {
            for aborted in segment.aborted()? {
                if aborted.last_offset >= from && aborted.first_offset < to {
                    found.push(aborted);
                }
                // All that comes later begins after this.
                if aborted.last_stable_offset >= to {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// The producers, loaded from the last snapshot and the log after it if they are not.
    fn producers_of<'a>(
        &self,
        writer: &'a mut Writer,
        now: i64,
    ) -> Result<&'a mut Producers, Error> {
        if writer.producers.is_none() {
            let (start_offset, end_offset, segments) = {
                let view = self.view();
                (view.start_offset, view.end_offset, view.segments.clone())
            };
            let loaded = recovery::load_producers(
                &self.place,
                &segments,
                &mut writer.snapshots,
                (start_offset, end_offset),
                &self.config(),
                now,
            )?;
            let mut transactions = self.transactions();
            transactions.known = true;
            transactions.first_ongoing = loaded.first_ongoing();
            writer.producers = Some(loaded);
        }
        // Just filled.
        Ok(writer.producers.get_or_insert_default())
    }

    /// Writes producer state and index entries where a crash of the process finds them.
    fn write_snapshot(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.active.spill()?;
        self.write_snapshot_at(writer, writer.next_offset)
    }

    fn write_snapshot_at(&self, writer: &mut Writer, offset: i64) -> Result<(), Error> {
        writer.bytes_since_snapshot = 0;
        let Some(producers) = &writer.producers else {
            return Ok(());
        };
        let bytes = producers.encode();
        writer.snapshot_size = bytes.len() as u64;
        let path = self.place.path(&file_name(offset, SNAPSHOT));
        // Not synced: it has a CRC, and without it the batches are read.
        let done = self
            .place
            .disk()
            .open(&path, Mode::Replace)
            .and_then(|file| write_all(&*file, &mut [IoSlice::new(&bytes)], 0));
        self.place.volume.done("write", &path, done)?;
        // Between segment starts only the newest is of use.
        let active_base = writer.active.segment.base_offset;
        let stale: Vec<i64> = writer
            .snapshots
            .range(active_base + 1..offset.max(active_base + 1))
            .copied()
            .collect();
        for offset in stale {
            self.place.remove(&file_name(offset, SNAPSHOT))?;
            writer.snapshots.remove(&offset);
        }
        writer.snapshots.insert(offset);
        Ok(())
    }

    // Durability.

    /// Makes everything appended so far survive a power cut. Returns the offset below which it does.
    pub fn flush(&self) -> Result<i64, Error> {
        let _one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writer = self.writer()?;
        let target = writer.next_offset;
        if self.flushed_offset() == target && !writer.dir_changed && !writer.epochs_changed {
            return Ok(target);
        }
        let active = Arc::clone(&writer.active.segment);
        let sealed = std::mem::take(&mut writer.unsynced);
        let dir_changed = std::mem::take(&mut writer.dir_changed);
        let epochs_changed = std::mem::take(&mut writer.epochs_changed);
        let created = std::mem::take(&mut writer.created);
        let bytes = self.unflushed.swap(0, Ordering::Relaxed);
        writer.unflushed_since = None;
        drop(writer);

        // A failure takes the directory offline, so there is nothing to put back.
        for segment in sealed {
            segment.sync(true)?;
        }
        active.sync(false)?;
        // Recovery does not look at batches below the flushed offset, so their epochs are written
        // before it moves.
        if epochs_changed {
            let path = self.place.path(EPOCHS);
            let content = checkpoint::render_epochs(&self.epochs());
            let done = checkpoint::replace(self.place.disk(), &path, &content);
            self.place.volume.done("write", &path, done)?;
        } else if dir_changed {
            self.place.sync_dir()?;
        }
        if created {
            let root = &self.place.volume.root;
            let synced = self.place.disk().sync_dir(root);
            self.place.volume.done("fsync", root, synced)?;
        }
        self.place.volume.flushed(bytes);
        // A truncation meanwhile has taken back what was flushed above it.
        let mut view = self.view_mut();
        let flushed = target.min(view.end_offset);
        view.flushed_offset = view.flushed_offset.max(flushed);
        let flushed = view.flushed_offset;
        drop(view);
        self.place.volume.set_recovery_point(&self.name(), flushed);
        Ok(flushed)
    }

    /// Whether `flush.messages` or `flush.ms` ask for a flush.
    pub fn flush_due(&self, now: i64) -> bool {
        let config = self.config();
        let (flushed, end) = {
            let view = self.view();
            (view.flushed_offset, view.end_offset)
        };
        if flushed == end {
            return false;
        }
        if end - flushed >= config.flush_messages {
            return true;
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer
            .unflushed_since
            .is_some_and(|since| now.saturating_sub(since) >= config.flush_ms)
    }

    /// Completes the files and makes them durable, so that the next opening has nothing to read
    /// again. The log must not be appended to afterwards.
    pub fn close(&self) -> Result<(), Error> {
        if self.complete()? {
            self.flush()?;
            let active = Arc::clone(&self.writer()?.active.segment);
            active.sync(true)?;
        }
        self.closed();
        Ok(())
    }

    /// Completes the files. False if they have not changed since the log was opened.
    pub(crate) fn complete(&self) -> Result<bool, Error> {
        let mut writer = self.writer()?;
        if !writer.changed {
            return Ok(false);
        }
        writer.active.seal()?;
        if writer.producers.is_some() {
            let end = writer.next_offset;
            self.write_snapshot_at(&mut writer, end)?;
        }
        Ok(true)
    }

    /// All of the log is on the disk, by whoever has synced it.
    pub(crate) fn closed(&self) {
        let flushed = {
            let mut view = self.view_mut();
            view.flushed_offset = view.end_offset;
            view.segments.values().for_each(|segment| segment.close());
            view.end_offset
        };
        let bytes = self.unflushed.swap(0, Ordering::Relaxed);
        self.place.volume.flushed(bytes);
        self.place.volume.set_recovery_point(&self.name(), flushed);
    }

    /// Written at once, so that it is found if the process is killed; synced by the next flush.
    fn write_epochs(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.epochs_changed = true;
        writer.changed = true;
        let path = self.place.path(EPOCHS);
        let content = checkpoint::render_epochs(&self.epochs());
        let done = checkpoint::replace_unsynced(self.place.disk(), &path, &content);
        self.place.volume.done("write", &path, done)
    }

    /// Starts writing to the disk what is not there, without waiting for it.
    pub(crate) fn start_writeback(&self) {
        let newest = self.view().segments.values().next_back().cloned();
        if let Some(segment) = newest
            && let Ok(file) = segment.log.get(&self.place)
        {
            // A hint: what fails here fails again, and is seen, in the sync that follows.
            let _ = file.start_writeback();
        }
    }

    // Removing.

    /// Moves the start offset up to `before`. Segments that lie below go with the next
    /// [`Self::retain`].
    pub fn delete_records(&self, before: i64) -> Result<i64, Error> {
        let mut writer = self.writer()?;
        let start = before.min(writer.next_offset);
        self.move_start(&mut writer, start)?;
        Ok(self.start_offset())
    }

    fn move_start(&self, writer: &mut Writer, start: i64) -> Result<(), Error> {
        let mut view = self.view_mut();
        if start <= view.start_offset {
            return Ok(());
        }
        view.start_offset = start;
        let epochs_changed = view.epochs.truncate_from_start(start);
        let first = view.segments.keys().next().copied().unwrap_or(start);
        drop(view);
        if epochs_changed {
            self.write_epochs(writer)?;
        }
        self.place
            .volume
            .set_start_offset(&self.name(), start, first);
        Ok(())
    }

    /// Deletes what retention allows, and removes the files of what was deleted before. Returns how
    /// many segments were deleted.
    pub fn retain(&self, high_watermark: i64, now: i64) -> Result<usize, Error> {
        let config = self.config();
        let mut writer = self.writer()?;
        self.remove_deleted(&mut writer, now)?;
        if let Some(producers) = &mut writer.producers {
            producers.expire(config.producer_id_expiration_ms, now);
        }
        let (start_offset, segments) = self.snapshot_of_segments();
        let mut candidates = Vec::with_capacity(segments.len());
        for (at, (segment, size)) in segments.iter().enumerate() {
            let next = segments.get(at + 1);
            candidates.push(retention::Candidate {
                size: *size,
                largest_timestamp: segment.largest_timestamp()?,
                end_offset: next.map_or(writer.next_offset, |(next, _)| next.base_offset),
            });
        }
        let count = retention::deletable(&candidates, start_offset, high_watermark, &config, now);
        if count == 0 {
            return Ok(0);
        }
        if count == segments.len() {
            let next_offset = writer.next_offset;
            self.roll(&mut writer, next_offset, &config, now)?;
        }
        self.move_start(&mut writer, candidates[count - 1].end_offset)?;
        let removed = segments.into_iter().take(count).map(|(segment, _)| segment);
        self.drop_segments(&mut writer, removed.collect(), now)?;
        // Before the checkpoint forgets the start offset, because the first segment tells it: a
        // power cut could bring older ones back.
        self.place.sync_dir()?;
        let first = writer.active.segment.base_offset;
        let first = self.view().segments.keys().next().copied().unwrap_or(first);
        let start = self.start_offset();
        self.place
            .volume
            .set_start_offset(&self.name(), start, first);
        Ok(count)
    }

    /// Takes segments out of the readers' sight and renames their files to `.deleted`.
    fn drop_segments(
        &self,
        writer: &mut Writer,
        segments: Vec<Arc<Segment>>,
        now: i64,
    ) -> Result<(), Error> {
        let at = now.saturating_add(self.config().file_delete_delay_ms);
        {
            let mut view = self.view_mut();
            for segment in &segments {
                view.segments.remove(&segment.base_offset);
            }
        }
        for segment in segments {
            segment.mark_deleted()?;
            if writer.snapshots.remove(&segment.base_offset) {
                self.place
                    .remove(&file_name(segment.base_offset, SNAPSHOT))?;
            }
            writer
                .unsynced
                .retain(|other| !Arc::ptr_eq(other, &segment));
            writer.deleted.push_back((at, segment));
        }
        writer.dir_changed = true;
        writer.changed = true;
        Ok(())
    }

    fn remove_deleted(&self, writer: &mut Writer, now: i64) -> Result<(), Error> {
        while let Some((at, _)) = writer.deleted.front()
            && *at <= now
            && let Some((_, segment)) = writer.deleted.pop_front()
        {
            segment.remove()?;
        }
        Ok(())
    }

    /// Cuts the log back so that it ends at `to`; if that is inside a batch, before the batch.
    /// Returns the end.
    pub fn truncate(&self, to: i64, now: i64) -> Result<i64, Error> {
        let _no_flush = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writer = self.writer()?;
        if to >= writer.next_offset {
            return Ok(writer.next_offset);
        }
        let (start_offset, floor) = {
            let view = self.view();
            let floor = view.segments.range(..=to).next_back();
            (view.start_offset, floor.map(|(_, s)| Arc::clone(s)))
        };
        let Some(floor) = floor else {
            self.start_over(&mut writer, to, now)?;
            return Ok(to);
        };
        let located = floor.locate(to, floor.size())?;
        let end = match located {
            Some(located) => {
                let header = floor.walk(located.position, floor.size(), 0, |walk| walk.next())?;
                header.map_or(to, |(_, header)| header.base_offset.min(to))
            }
            None => to,
        };
        if end <= start_offset {
            // Nothing is left that anybody may read; of a batch that the start offset is inside of,
            // the part above it is gone too.
            let new_start = if end < start_offset { to } else { end };
            self.start_over(&mut writer, new_start, now)?;
            return Ok(new_start);
        }
        // Before anything else is written there: what comes to lie above must be checked after a
        // power cut.
        self.place.volume.lower_recovery_point(&self.name(), end)?;
        let above: Vec<_> = {
            let view = self.view();
            let above = view.segments.range(floor.base_offset + 1..);
            // The newest goes first, so that dying in between leaves no hole.
            above.rev().map(|(_, s)| Arc::clone(s)).collect()
        };
        let size = located.map_or(floor.size(), |located| located.position);
        {
            let mut view = self.view_mut();
            view.end_offset = end;
            view.flushed_offset = view.flushed_offset.min(end);
            view.tail = Tail::default();
            view.epochs.truncate_from_end(end);
            floor.set_size(size);
        }
        self.drop_segments(&mut writer, above, now)?;
        let done = floor.log.get(&self.place)?.set_size(size);
        let path = floor.log.path(&self.place);
        self.place.volume.done("truncate", &path, done)?;
        // Or a power cut could bring back the end that was cut off, behind what is written now.
        floor.sync(false)?;
        self.place.sync_dir()?;
        let keeps = |relative: i32| floor.base_offset + i64::from(relative) < end;
        floor
            .offsets
            .truncate(&self.place, |entry| keeps(entry.relative_offset))?;
        floor
            .times
            .truncate(&self.place, |entry| keeps(entry.relative_offset))?;
        floor.truncate_aborted(end)?;
        floor.reread_newest(size)?;
        writer.unsynced.retain(|other| !Arc::ptr_eq(other, &floor));
        writer.active = Active::resume(floor, &self.config(), now);
        writer.next_offset = end;
        self.forget_producers(&mut writer, end)?;
        self.write_epochs(&mut writer)?;
        Ok(end)
    }

    /// Deletes everything; the next batch gets `new_start`. What a follower does when the leader's
    /// log begins after its own end.
    pub fn truncate_fully(&self, new_start: i64, now: i64) -> Result<(), Error> {
        let _no_flush = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writer = self.writer()?;
        self.start_over(&mut writer, new_start, now)
    }

    fn start_over(&self, writer: &mut Writer, new_start: i64, now: i64) -> Result<(), Error> {
        self.place
            .volume
            .lower_recovery_point(&self.name(), new_start)?;
        let segments: Vec<_> = self.view().segments.values().cloned().collect();
        for segment in &segments {
            segment.mark_deleted()?;
        }
        let config = self.config();
        let active = Active::create(&self.place, new_start, &config, now)?;
        self.place.sync_dir()?;
        {
            let mut view = self.view_mut();
            view.segments = BTreeMap::from([(new_start, Arc::clone(&active.segment))]);
            view.start_offset = new_start;
            view.end_offset = new_start;
            view.flushed_offset = new_start;
            view.tail = Tail::default();
            view.epochs.clear();
        }
        // Removed without delay: the same names may come again.
        for segment in segments {
            segment.remove()?;
        }
        for offset in std::mem::take(&mut writer.snapshots) {
            self.place.remove(&file_name(offset, SNAPSHOT))?;
        }
        writer.active = active;
        writer.next_offset = new_start;
        writer.unsynced.clear();
        writer.dir_changed = true;
        self.forget_producers(writer, new_start)?;
        self.write_epochs(writer)?;
        // Written at once: a start offset above the end would cost what is appended now.
        let volume = &self.place.volume;
        volume.set_start_offset(&self.name(), new_start, new_start);
        volume.write_positions()
    }

    /// Moves the log's directory.
    pub(crate) fn rename(&self, to: PathBuf) -> Result<(), Error> {
        let _writer = self.writer()?;
        self.place.rename(to)?;
        let root = &self.place.volume.root;
        self.place
            .volume
            .done("fsync", root, self.place.disk().sync_dir(root))
    }

    /// The log's files are about to be removed: nothing of it is to be flushed any more.
    pub(crate) fn abandon(&self) {
        let _no_flush = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.unflushed.swap(0, Ordering::Relaxed);
        self.place.volume.flushed(bytes);
        for segment in self.view().segments.values() {
            segment.close();
        }
    }

    /// What is known of producers goes back to before the truncation when next asked for.
    fn forget_producers(&self, writer: &mut Writer, end: i64) -> Result<(), Error> {
        writer.producers = None;
        *self.transactions() = Transactions::default();
        for offset in writer.snapshots.split_off(&(end + 1)) {
            self.place.remove(&file_name(offset, SNAPSHOT))?;
        }
        Ok(())
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>, Error> {
        self.place.volume.check()?;
        Ok(self.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn transactions(&self) -> MutexGuard<'_, Transactions> {
        self.transactions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The transaction marker in a batch, if it is one.
fn marker(batch: &Batch) -> Result<Option<Marker>, Error> {
    let header = batch.header();
    if header.is_control() && header.has_producer() {
        Marker::of(batch)
    } else {
        Ok(None)
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

    /// As [`Self::read`], after what is in the buffer.
    pub fn read_into(&self, buffer: &mut BytesMut) -> Result<(), Error> {
        if self.size == 0 {
            return Ok(());
        }
        let file = self.segment.log.get(&self.segment.place)?;
        let start = buffer.len();
        buffer.resize(start + self.size, 0);
        let done = file.read_at(&mut buffer[start..], self.position);
        let path = self.segment.log.path(&self.segment.place);
        let count = self.segment.place.volume.done("read", &path, done)?;
        // The log was truncated since: what is left is still batches.
        buffer.truncate(start + count);
        Ok(())
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
            let read = file.read_at(&mut buffer[..want], self.position + done as u64);
            let path = self.segment.log.path(&self.segment.place);
            match self.segment.place.volume.done("read", &path, read)? {
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
    /// transactions matter to its reader. `None`: the log end.
    pub fn bound(&self) -> Result<Option<i64>, Error> {
        self.segment.bound_after(self.position, self.size)
    }
}
