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

mod append;
mod compact;
mod flush;
mod lookup;
mod producers;
mod read;
mod trim;
mod truncate;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

pub use self::{append::Appended, read::Slice};
use crate::{
    config::Config,
    directory::Volume,
    disk::Disk,
    epochs::Epochs,
    error::Error,
    files::Place,
    producers::{Ongoing, Producers},
    recovery::{self, Opened},
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
    /// Held by whoever replaces the file of leader epochs: an append that begins an epoch, and a flush.
    epochs_file: Mutex<()>,
    /// Bytes appended since the last flush began.
    unflushed: AtomicU64,
    /// Held by whoever compacts.
    compacting: Mutex<()>,
}

/// What only the writer needs.
#[derive(Debug)]
struct Writer {
    active: Active,
    next_offset: i64,
    /// Loaded when first needed, unless the log began here.
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
    /// How often the end was cut off: a compacted copy from before is of what is gone.
    truncations: u64,
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
    /// Of the active segment, ascending.
    batches: VecDeque<Recent>,
}

#[derive(Debug, Clone, Copy)]
struct Recent {
    base_offset: i64,
    next_offset: i64,
    position: u64,
}

impl Tail {
    const MAX: usize = 32;

    fn push(&mut self, batch: Recent) {
        if self.batches.len() == Tail::MAX {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
    }

    /// The batch that holds `offset`, or the one after it where the leader's compaction has left
    /// none; `None` too if that may lie before what is known here. `size` is the segment's.
    fn locate(&self, offset: i64, size: u64) -> Option<Located> {
        if offset < self.batches.front()?.base_offset {
            return None;
        }
        let at = self
            .batches
            .partition_point(|batch| batch.next_offset <= offset);
        let position = self.batches.get(at)?.position;
        let end = self.batches.get(at + 1).map_or(size, |next| next.position);
        Some(Located {
            position,
            size: usize::try_from(end - position).ok()?,
        })
    }
}

/// Transactions that hold back a `read_committed` consumer.
#[derive(Debug, Default)]
struct Transactions {
    /// Whether producer state has been loaded since opening or truncating.
    known: bool,
    oldest: Option<Ongoing>,
    /// Ended, but the marker may not have passed the high watermark yet: first and last offset.
    ended: Vec<(i64, i64)>,
}

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
        match volume.disk.create_dir(dir) {
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => (),
            created => volume.done("create", dir, created)?,
        }
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
        // Nobody has produced to a log that begins: there is nothing to load.
        let begins = active.size == 0 && segments.len() == 1 && snapshots.is_empty();
        let writer = Writer {
            active,
            next_offset: end_offset,
            producers: begins.then(Producers::default),
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
            truncations: 0,
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
            transactions: Mutex::new(Transactions {
                known: begins,
                ..Transactions::default()
            }),
            flushing: Mutex::new(()),
            epochs_file: Mutex::new(()),
            unflushed: AtomicU64::new(0),
            compacting: Mutex::new(()),
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

    /// Moves the log's directory.
    pub(crate) fn rename(&self, to: PathBuf) -> Result<(), Error> {
        let _writer = self.writer()?;
        self.place.rename(to)?;
        let root = &self.place.volume.root;
        self.place
            .volume
            .done("fsync", root, self.place.disk().sync_dir(root))
    }

    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// The log's files are about to be removed: nothing of it is written, flushed or compacted any
    /// more. Waits for those who do to see it.
    pub(crate) fn abandon(&self) {
        self.place.abandon();
        let _no_compaction = self.keep_from_compaction();
        let _no_flush = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let _no_append = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.unflushed.swap(0, Ordering::Relaxed);
        self.place.volume.flushed(bytes);
        for segment in self.view().segments.values() {
            segment.close();
        }
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>, Error> {
        self.place.volume.check()?;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.place.is_abandoned() {
            let path = self.place.dir();
            return Err(Error::Gone { path });
        }
        Ok(writer)
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
