//! A bounded number of open files.
//!
//! A partition has four files per segment and a broker has ten thousand partitions, most of them
//! idle: files are opened when used and closed when others need the descriptor more. A [`Handle`]
//! names a file and remembers the descriptor as long as the cache keeps it.

use std::{
    collections::VecDeque,
    fmt,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use crate::{
    directory::Volume,
    disk::{Disk, File, Mode},
    error::Error,
};

/// The open files of a directory, at most `limit` of them besides those in use at this moment.
#[derive(Debug)]
pub(crate) struct Files {
    limit: usize,
    open: Mutex<VecDeque<Arc<Open>>>,
}

/// An open file. Closed when the cache has let go of it and nobody uses it any more.
#[derive(Debug)]
pub(crate) struct Open {
    file: Box<dyn File>,
    /// Set by each use, cleared when the cache passes by: a file gets a second chance before it is
    /// closed. Cheaper than the exact order of use, which would need a lock shared by all appends.
    used: AtomicBool,
}

impl Deref for Open {
    type Target = dyn File;

    fn deref(&self) -> &(dyn File + 'static) {
        &*self.file
    }
}

impl Files {
    pub(crate) fn new(limit: usize) -> Files {
        Files {
            limit: limit.max(1),
            open: Mutex::default(),
        }
    }

    fn keep(&self, file: Arc<Open>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(file);
        while open.len() > self.limit {
            let Some(oldest) = open.pop_front() else {
                break;
            };
            if oldest.used.swap(false, Ordering::Relaxed) {
                open.push_back(oldest);
            }
        }
    }

    /// Lets go of half of them. The system has no descriptor left.
    pub(crate) fn relieve(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let half = open.len().div_ceil(2);
        open.drain(..half);
    }

    fn forget(&self, file: &Arc<Open>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| !Arc::ptr_eq(other, file));
    }
}

/// Where a log lives: its directory, which may be renamed under it, on a volume.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) volume: Arc<Volume>,
    dir: RwLock<PathBuf>,
    /// Its files are removed, or about to be.
    abandoned: AtomicBool,
}

impl Place {
    pub(crate) fn new(volume: Arc<Volume>, dir: PathBuf) -> Place {
        Place {
            volume,
            dir: RwLock::new(dir),
            abandoned: AtomicBool::new(false),
        }
    }

    /// From now on a file that is not there any more is no failure of the disk.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .join(name)
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.volume.disk
    }

    /// Renames the directory; files opened from now on are looked for there.
    pub(crate) fn rename(&self, to: PathBuf) -> Result<(), Error> {
        let mut dir = self.dir.write().unwrap_or_else(PoisonError::into_inner);
        let renamed = self.disk().rename(&dir, &to);
        self.volume.done("rename", &dir, renamed)?;
        *dir = to;
        Ok(())
    }

    pub(crate) fn sync_dir(&self) -> Result<(), Error> {
        self.at("fsync", "", |dir| self.disk().sync_dir(dir))
    }

    /// Makes a call on a path in it. Under the lock, so that the directory is not renamed before the call:
    /// nothing would be found at the path, or what belongs to another log that has the name now.
    pub(crate) fn at<T>(
        &self,
        op: &'static str,
        name: &str,
        call: impl FnOnce(&Path) -> std::io::Result<T>,
    ) -> Result<T, Error> {
        let dir = self.dir.read().unwrap_or_else(PoisonError::into_inner);
        let path = dir.join(name);
        match call(&path) {
            Err(err) if is_missing(&err) && self.is_abandoned() => Err(Error::Gone { path }),
            done => self.volume.done(op, &path, done),
        }
    }

    /// Renames a file in it, if there is one of that name.
    pub(crate) fn rename_file(&self, from: &str, to: &str) -> Result<(), Error> {
        self.at("rename", from, |path| {
            match self.disk().rename(path, &path.with_file_name(to)) {
                Err(err) if is_missing(&err) => Ok(()),
                renamed => renamed,
            }
        })
    }

    /// Removes a file that may already be gone.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        self.at("remove", name, |path| match self.disk().remove_file(path) {
            Err(err) if is_missing(&err) => Ok(()),
            removed => removed,
        })
    }
}

fn is_missing(err: &std::io::Error) -> bool {
    err.kind() == std::io::ErrorKind::NotFound
}

/// Which of a segment's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    OffsetIndex,
    TimeIndex,
    TxnIndex,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [
        Kind::Log,
        Kind::OffsetIndex,
        Kind::TimeIndex,
        Kind::TxnIndex,
    ];

    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Kind::Log => "log",
            Kind::OffsetIndex => "index",
            Kind::TimeIndex => "timeindex",
            Kind::TxnIndex => "txnindex",
        }
    }
}

pub(crate) fn file_name(base_offset: i64, suffix: &str) -> String {
    format!("{base_offset:020}.{suffix}")
}

/// What a segment's files are called, by Kafka's rules for who finds them after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Live,
    /// Being written by compaction: of no use to who finds it.
    Cleaned,
    /// Complete, and about to take the place of the segments it was made from.
    Swap,
    /// Deleted: called so until the delay is over, because a reader that found the segment just
    /// before may still come for its bytes.
    Deleted,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::Live, Stage::Cleaned, Stage::Swap, Stage::Deleted];

    fn suffix(self) -> &'static str {
        match self {
            Stage::Live => "",
            Stage::Cleaned => CLEANED,
            Stage::Swap => SWAP,
            Stage::Deleted => DELETED,
        }
    }
}

/// A file of a segment, open or not.
pub(crate) struct Handle {
    base_offset: i64,
    kind: Kind,
    /// A [`Stage`], by its place in [`Stage::ALL`].
    stage: AtomicU8,
    /// Removed for good. Another may be called the same since: what was made of the segment by one compaction
    /// and replaced by the next.
    removed: AtomicBool,
    open: Mutex<Weak<Open>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Handle {
    pub(crate) fn new(base_offset: i64, kind: Kind) -> Handle {
        Handle {
            base_offset,
            kind,
            stage: AtomicU8::new(Stage::Live as u8),
            removed: AtomicBool::new(false),
            open: Mutex::new(Weak::new()),
        }
    }

    fn stage(&self) -> Stage {
        // Only stages are ever stored.
        Stage::ALL[usize::from(self.stage.load(Ordering::Acquire))]
    }

    pub(crate) fn name(&self) -> String {
        let mut name = file_name(self.base_offset, self.kind.suffix());
        name.push_str(self.stage().suffix());
        name
    }

    /// Says what the file is called, of one that is not there yet.
    pub(crate) fn begin_at(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    pub(crate) fn path(&self, place: &Place) -> PathBuf {
        place.path(&self.name())
    }

    /// The open file; opened now if it is not.
    pub(crate) fn get(&self, place: &Place) -> Result<Arc<Open>, Error> {
        self.open_as(place, Mode::Open)
    }

    pub(crate) fn create(&self, place: &Place) -> Result<Arc<Open>, Error> {
        self.open_as(place, Mode::Create)
    }

    fn open_as(&self, place: &Place, mode: Mode) -> Result<Arc<Open>, Error> {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = slot.upgrade() {
            open.used.store(true, Ordering::Relaxed);
            return Ok(open);
        }
        if mode != Mode::Open {
            self.removed.store(false, Ordering::Relaxed);
        }
        let file = self.ask("open", place, |path| place.volume.open(path, mode))?;
        let open = Arc::new(Open {
            file,
            used: AtomicBool::new(true),
        });
        *slot = Arc::downgrade(&open);
        place.volume.files.keep(Arc::clone(&open));
        Ok(open)
    }

    /// Makes a call on the file's path. [`Error::Gone`] if it was removed on purpose: with its log, or by retention
    /// or compaction.
    pub(crate) fn ask<T>(
        &self,
        op: &'static str,
        place: &Place,
        call: impl Fn(&Path) -> std::io::Result<T>,
    ) -> Result<T, Error> {
        loop {
            let name = self.name();
            if self.removed.load(Ordering::Relaxed) || place.is_abandoned() {
                let path = place.path(&name);
                return Err(Error::Gone { path });
            }
            let asked = place.at(op, &name, |path| match call(path) {
                // Renamed or removed between our asking for the name and the call.
                Err(err) if is_missing(&err) && self.may_be_gone(&name) => Ok(None),
                done => done.map(Some),
            })?;
            match asked {
                Some(done) => return Ok(done),
                None if self.name() != name => (),
                None => {
                    let path = place.path(&name);
                    return Err(Error::Gone { path });
                }
            }
        }
    }

    fn may_be_gone(&self, name: &str) -> bool {
        self.stage() == Stage::Deleted || self.name() != name
    }

    /// Removes the file, which may not be there.
    pub(crate) fn remove(&self, place: &Place) -> Result<(), Error> {
        self.close(place);
        // Under the slot's lock, so that nobody opens it meanwhile.
        let _slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.removed.store(true, Ordering::Relaxed);
        place.remove(&self.name())
    }

    /// Lets go of the descriptor, so that a removed file gives its space back.
    pub(crate) fn close(&self, place: &Place) {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = std::mem::take(&mut *slot).upgrade() {
            place.volume.files.forget(&open);
        }
    }

    /// Renames the file. One that never came to be (a `.txnindex` without aborts) is no failure.
    pub(crate) fn rename_to(&self, stage: Stage, place: &Place) -> Result<(), Error> {
        // Under the slot's lock, so that nobody opens the old name meanwhile.
        let _slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let from = self.name();
        self.stage.store(stage as u8, Ordering::Release);
        place.rename_file(&from, &self.name())
    }
}

/// What Kafka appends to the name of a file that will be removed after `file.delete.delay.ms`.
pub(crate) const DELETED: &str = ".deleted";
/// To that of a compacted copy while it is written.
pub(crate) const CLEANED: &str = ".cleaned";
/// And when it is whole.
pub(crate) const SWAP: &str = ".swap";

/// Reads a small file whole; `None` when it does not exist.
pub(crate) fn read_small(disk: &dyn Disk, path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, Mode::Open) {
        Ok(file) => file,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    };
    let size = usize::try_from(file.size()?).unwrap_or(usize::MAX);
    let mut buffer = vec![0; size];
    let count = file.read_at(&mut buffer, 0)?;
    buffer.truncate(count);
    Ok(Some(buffer))
}
