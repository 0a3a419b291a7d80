//! A log directory: one entry of `log.dirs`, with the logs in it.
//!
//! ```text
//! .lock                                 held while we run; says under which boot of the machine, if the
//!                                       page cache can be believed until the next
//! meta.properties                       whose it is
//! .kafka_cleanshutdown                  there from a clean stop to the next start
//! recovery-point-offset-checkpoint      below, a log is on the disk
//! log-start-offset-checkpoint           below, records were deleted by request
//! replication-offset-checkpoint         high watermarks, for their owner to write and read
//! cleaner-offset-checkpoint             below, a log is compacted
//! orders-0/                             a log
//! orders-0.0123...-delete/              one on its way out; likewise -future and -stray
//! ```
//!
//! A failed write or sync takes the whole directory offline until a restart: nobody can tell any
//! more what is on the disk. A sync is never tried again, because the kernel reports a page it could
//! not write only once. For the same reason the next start does not believe what it finds in the page
//! cache, as it otherwise does if the machine has not been restarted: the note in `.lock` is gone. It
//! comes back when all logs have been looked at.
//!
//! One thread flushes. Whoever needs an offset to be durable asks and is called back; all that came
//! while one sync was under way share the next. Another keeps what is unflushed in all logs together
//! below a bound, so that a restart after a power cut has little to check; that is gigabytes at a time,
//! for which nobody who asked shall wait.

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use uuid::Uuid;

use crate::{
    checkpoint::{self, Offsets},
    config::Config,
    disk::{self, Disk, Lock, Mode, Space},
    error::Error,
    files::{Files, Place, read_small},
    log::{Log, Shutdown, Start},
    properties::{self, Identity},
};

const LOCK: &str = ".lock";
const META: &str = "meta.properties";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const START_OFFSETS: &str = "log-start-offset-checkpoint";
const CLEANED: &str = "cleaner-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
const PARTITION_METADATA: &str = "partition.metadata";

/// In [`LOCK`], where the page cache is not to be believed.
const NO_NOTE: &str = "";

/// What may be unflushed in all logs of a directory before we step in. Checking it after a power cut
/// takes about as long as reading it from the disk: Kafka has up to a segment of each partition to
/// check, 1 GiB by default. Until then the kernel writes at its own pace, and what retention deletes
/// before its turn comes is never written at all.
const UNFLUSHED_MAX: u64 = 2 << 30;

#[derive(Debug)]
pub struct Directory {
    volume: Arc<Volume>,
    id: Uuid,
    shutdown: Shutdown,
    previous_broker_epoch: Option<i64>,
    boot_id: String,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    /// Last, so that it is released when all else is done.
    lock: Arc<dyn Lock>,
}

/// A directory in the log directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// `orders-0`, or with its suffix `orders-0.0123...-delete`.
    pub name: String,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Live,
    /// Its topic is deleted; the files follow after a delay.
    Deleted,
    /// A copy that will replace the log in another directory.
    Future,
    /// The cluster does not know it.
    Stray,
}

impl State {
    fn suffix(self) -> &'static str {
        match self {
            State::Live => "",
            State::Deleted => "-delete",
            State::Future => "-future",
            State::Stray => "-stray",
        }
    }

    /// What the directory of the log `name` is called in this state.
    pub fn name_of(self, name: &str) -> String {
        let suffix = self.suffix();
        match self {
            State::Live => name.to_owned(),
            State::Deleted | State::Future | State::Stray => {
                let unique = Uuid::new_v4().simple();
                // Kafka keeps to what a file name may have.
                let kept = 255 - 1 - 32 - suffix.len();
                let name = name.get(..kept).unwrap_or(name);
                format!("{name}.{unique}{suffix}")
            }
        }
    }
}

/// Called when a flush is done, with the offset below which the log is now durable: it is less than
/// was asked for if the log was truncated meanwhile. Runs on the flusher: it must not block.
pub type Flushed = Box<dyn FnOnce(Result<i64, Error>) + Send>;

impl Directory {
    /// Locks the directory, which must exist, and reads what is known of the logs in it.
    ///
    /// At most `files_max` of its files are kept open.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        identity: &Identity,
        files_max: usize,
        now: i64,
    ) -> Result<Directory, Error> {
        let volume = Volume::new(disk, path.to_owned(), files_max);
        let disk = &*volume.disk;
        let lock = match disk.lock(&path.join(LOCK)) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                let dir = path.to_owned();
                return Err(Error::InUse { dir });
            }
            locked => volume.done("lock", &path.join(LOCK), locked)?,
        };
        let lock: Arc<dyn Lock> = Arc::from(lock);
        // Just begun: it cannot be set.
        let _ = volume.lock.set(Arc::downgrade(&lock));
        let id = volume.identify(identity, now)?;

        let clean_path = path.join(CLEAN_SHUTDOWN);
        let clean = volume.done("read", &clean_path, read_small(disk, &clean_path))?;
        let boot_id = disk.boot_id().unwrap_or_default();
        // If we are killed before the logs have been looked at, the next one must do it.
        let last_boot_id = volume.done("write", &path.join(LOCK), lock.leave_note(NO_NOTE))?;
        let shutdown = if clean.is_some() {
            Shutdown::Clean
        } else if !boot_id.is_empty() && boot_id == last_boot_id {
            Shutdown::Killed
        } else {
            Shutdown::PowerLost
        };
        if clean.is_some() {
            let removed = disk.remove_file(&clean_path);
            volume.done("remove", &clean_path, removed)?;
            // Or a power cut could bring it back, over logs that are not clean any more.
            volume.done("fsync", path, disk.sync_dir(path))?;
        }
        volume.read_positions()?;
        let volume = Arc::new(volume);
        let start = |name: &str, work: fn(&Volume)| {
            let thread = {
                let volume = Arc::clone(&volume);
                thread::Builder::new()
                    .name(name.to_owned())
                    .spawn(move || work(&volume))
            };
            volume.done("start a thread for", path, thread)
        };
        let threads = vec![
            start("flusher", Volume::run_flusher)?,
            start("writeback", Volume::run_writeback)?,
        ];
        let directory = Directory {
            id,
            shutdown,
            boot_id,
            previous_broker_epoch: clean.as_deref().and_then(properties::broker_epoch),
            threads: Mutex::new(threads),
            volume,
            lock,
        };
        if shutdown != Shutdown::PowerLost || directory.logs()?.is_empty() {
            directory.leave_note()?;
        }
        Ok(directory)
    }

    /// All logs that were there at the start have been opened: whatever a power cut has left of them has
    /// been seen. A start after us need not look again, unless the machine is restarted.
    pub fn recovered(&self) -> Result<(), Error> {
        match self.shutdown {
            Shutdown::PowerLost => self.leave_note(),
            Shutdown::Clean | Shutdown::Killed => Ok(()),
        }
    }

    fn leave_note(&self) -> Result<(), Error> {
        self.volume.check()?;
        let left = self.lock.leave_note(&self.boot_id);
        self.volume.done("write", &self.path().join(LOCK), left)?;
        if self.is_offline() {
            // Since we asked.
            self.volume.disown_page_cache();
        }
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.volume.root
    }

    /// `directory.id` of `meta.properties`.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// How the directory was left before this start.
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown
    }

    /// The broker epoch of the last clean stop, if that was the last stop.
    pub fn previous_broker_epoch(&self) -> Option<i64> {
        self.previous_broker_epoch
    }

    /// Whether a failure has taken it offline.
    pub fn is_offline(&self) -> bool {
        self.volume.check().is_err()
    }

    /// Has `wake` called when a failure takes the directory offline; at once if one has already. Only the
    /// first to ask is served.
    pub fn when_offline(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.volume.on_offline.set(Box::new(wake));
        if let (true, Some(wake)) = (self.is_offline(), self.volume.on_offline.get()) {
            wake();
        }
    }

    pub fn space(&self) -> Result<Space, Error> {
        let space = self.volume.disk.space(&self.volume.root);
        self.volume.done("stat", &self.volume.root, space)
    }

    /// The logs in it, by their directories.
    pub fn logs(&self) -> Result<Vec<Found>, Error> {
        let root = &self.volume.root;
        let entries = self
            .volume
            .done("list", root, self.volume.disk.list(root))?;
        let logs = entries.into_iter().filter(|entry| entry.is_dir);
        Ok(logs.filter_map(|entry| found(entry.name)).collect())
    }

    /// Opens the log called `name`, or begins it.
    pub fn open_log(&self, name: &str, config: Config, now: i64) -> Result<Arc<Log>, Error> {
        let dir = self.volume.root.join(name);
        let start = match self.volume.disk.size(&dir) {
            Ok(_) => self.start_of(name),
            // A log of the same name was deleted, perhaps.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                self.volume.forget_on_disk(name)?;
                let created = self.volume.disk.create_dir(&dir);
                self.volume.done("create", &dir, created)?;
                Start::clean()
            }
            Err(err) => self.volume.done("stat", &dir, Err(err))?,
        };
        let log = Log::open_in(Arc::clone(&self.volume), dir, config, start, now)?;
        let log = Arc::new(log);
        let known = Known {
            log: Arc::downgrade(&log),
            place: Arc::downgrade(log.place()),
        };
        self.volume.logs().insert(name.to_owned(), known);
        Ok(log)
    }

    fn start_of(&self, name: &str) -> Start {
        let positions = self.volume.positions();
        Start {
            shutdown: self.shutdown,
            recovery_point: positions.recovery.get(name).unwrap_or(0),
            log_start_offset: positions.starts.get(name).unwrap_or(0),
        }
    }

    /// The topic id in the log's `partition.metadata`.
    pub fn topic_id(&self, name: &str) -> Result<Option<Uuid>, Error> {
        let path = self.volume.root.join(name).join(PARTITION_METADATA);
        let read = read_small(&*self.volume.disk, &path);
        let Some(bytes) = self.volume.done("read", &path, read)? else {
            return Ok(None);
        };
        if bytes.is_empty() {
            // The power went before `sync` had it on the disk.
            return Ok(None);
        }
        let id = properties::topic_id(&bytes).ok_or(Error::Corrupt {
            path,
            position: 0,
            reason: "not a partition.metadata file",
        })?;
        Ok(Some(id))
    }

    pub fn set_topic_id(&self, name: &str, topic_id: Uuid) -> Result<(), Error> {
        let path = self.volume.root.join(name).join(PARTITION_METADATA);
        let content = properties::partition_metadata(topic_id);
        self.volume.replace(&path, content.as_bytes())
    }

    /// As [`Self::set_topic_id`], but only [`Self::sync`] makes it durable: for many logs at a time.
    pub fn set_topic_id_unsynced(&self, name: &str, topic_id: Uuid) -> Result<(), Error> {
        self.volume.check()?;
        let path = self.volume.root.join(name).join(PARTITION_METADATA);
        let content = properties::partition_metadata(topic_id);
        let disk = &*self.volume.disk;
        let done = checkpoint::replace_unsynced(disk, &path, content.as_bytes());
        self.volume.done("write", &path, done)
    }

    /// Makes all that was written in the directory durable.
    pub fn sync(&self) -> Result<(), Error> {
        self.volume.check()?;
        let synced = self.lock.sync_filesystem();
        self.volume.done("sync", &self.volume.root, synced)
    }

    /// Renames a log's directory: `name.<uuid>-delete`, `name.<uuid>-future`,
    /// `name.<uuid>-stray`, or back to `name`. Reading from it goes on.
    pub fn rename(&self, log: &Log, name: &str, state: State) -> Result<String, Error> {
        let new_name = state.name_of(name);
        let old_name = log.name();
        if state == State::Live {
            self.volume.forget_on_disk(&new_name)?;
        }
        log.rename(self.volume.root.join(&new_name))?;
        let mut logs = self.volume.logs();
        if let Some(known) = logs.remove(&old_name) {
            logs.insert(new_name.clone(), known);
        }
        drop(logs);
        if matches!(state, State::Deleted | State::Stray) {
            self.volume.forget(&old_name);
        } else {
            self.volume.move_positions(&old_name, &new_name);
        }
        Ok(new_name)
    }

    /// Removes a log's directory with all its files, for good.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let dir = self.volume.root.join(name);
        let disk = &*self.volume.disk;
        let known = self.volume.logs().remove(name);
        if let Some(known) = known {
            // Whoever looks at a file from now on finds it gone, if only by a segment that it still has.
            if let Some(place) = known.place.upgrade() {
                place.abandon();
            }
            if let Some(log) = known.log.upgrade() {
                log.abandon();
            }
        }
        self.volume.forget(name);
        let entries = match disk.list(&dir) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            listed => self.volume.done("list", &dir, listed)?,
        };
        for entry in entries {
            let path = dir.join(entry.name);
            self.volume.done("remove", &path, disk.remove_file(&path))?;
        }
        self.volume.done("remove", &dir, disk.remove_dir(&dir))
    }

    /// The high watermarks last written, by log name.
    pub fn high_watermarks(&self) -> Result<Offsets, Error> {
        self.volume.read_offsets(HIGH_WATERMARKS)
    }

    pub fn write_high_watermarks(&self, offsets: &Offsets) -> Result<(), Error> {
        self.volume.write_offsets(HIGH_WATERMARKS, offsets)
    }

    /// How far the log called `name` is compacted.
    pub fn cleaned_offset(&self, name: &str) -> Option<i64> {
        self.volume.positions().cleaned.get(name)
    }

    /// The log called `name` is compacted below `offset`: it is a copy of one that was.
    /// [`Log::compact`] sees to it by itself.
    pub fn set_cleaned_offset(&self, name: &str, offset: i64) -> Result<(), Error> {
        let mut positions = self.volume.positions();
        positions.cleaned.set(name, offset);
        self.volume.write(&mut positions.cleaned)
    }

    /// Writes how far logs are flushed and compacted and where they start, if that has changed.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.volume.write_positions()
    }

    /// Writes how far logs are flushed, if that has changed. To be called once in a while.
    pub fn checkpoint_recovery_points(&self) -> Result<(), Error> {
        self.volume.write_recovery_points()
    }

    /// Writes where logs start, if that has changed. To be called once in a while.
    pub fn checkpoint_start_offsets(&self) -> Result<(), Error> {
        self.volume.write_start_offsets()
    }

    /// Has the log flushed up to `upto` and then calls `done`, from the flusher's thread.
    pub fn flush_then(&self, log: &Arc<Log>, upto: i64, done: Flushed) {
        self.volume.ask(Request {
            log: Arc::clone(log),
            upto,
            done,
        });
    }

    /// Has the log flushed up to `upto` and waits for it.
    pub fn flush(&self, log: &Arc<Log>, upto: i64) -> Result<i64, Error> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let done = Box::new(move |result| {
            // Nobody else has the receiver, and it waits.
            let _ = sender.send(result);
        });
        self.flush_then(log, upto, done);
        receiver.recv().unwrap_or_else(|_| {
            let dir = self.volume.root.clone();
            Err(Error::Offline { dir })
        })
    }

    /// Closes all logs and leaves the marker of a clean stop. A directory that is offline, or a log
    /// that cannot be closed, leaves none.
    pub fn close(&self, broker_epoch: i64) -> Result<(), Error> {
        let logs: Vec<_> = self
            .volume
            .logs()
            .values()
            .filter_map(|known| known.log.upgrade())
            .collect();
        self.stop_threads();
        let mut changed = false;
        for log in &logs {
            changed |= match log.complete() {
                // Removed since we asked which there are.
                Err(Error::Gone { .. }) => false,
                completed => completed?,
            };
        }
        if changed {
            self.sync()?;
        }
        logs.iter().for_each(|log| log.closed());
        self.volume.write_positions()?;
        let path = self.volume.root.join(CLEAN_SHUTDOWN);
        let content = properties::clean_shutdown(broker_epoch);
        self.volume.replace(&path, content.as_bytes())
    }

    fn stop_threads(&self) {
        self.volume.queue().closed = true;
        self.volume.asked.notify_all();
        self.volume.pressed.notify_all();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // It has no result, and a panic of it has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

/// Whether a failed call says that what was written before may not reach the disk. A file system without
/// space, or a file that is not there, says nothing about others.
fn may_have_lost_writes(op: &str, err: &io::Error) -> bool {
    let harmless = matches!(
        err.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::NotFound
    );
    op == "fsync" || op == "sync" || !(harmless || is_out_of_descriptors(err))
}

/// Makes a log directory that is not there yet, with the directories above it.
pub fn create(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    match disk.size(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => (),
        _ => return Ok(()),
    }
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        create(disk, parent)?;
    }
    disk.create_dir(path).map_err(|source| Error::Io {
        op: "create",
        path: path.to_owned(),
        source,
    })
}

/// The cluster that the log directory at `path` belongs to, if it is there and belongs to one.
pub fn cluster_id(disk: &dyn Disk, path: &Path) -> Result<Option<String>, Error> {
    let path = path.join(META);
    match read_small(disk, &path) {
        Ok(found) => Ok(found.as_deref().and_then(properties::cluster_id)),
        Err(source) => Err(Error::Io {
            op: "read",
            path,
            source,
        }),
    }
}

fn is_out_of_descriptors(err: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE};
    matches!(err.raw_os_error(), Some(EMFILE | ENFILE))
}

/// A directory's name as a log's: topic, `-`, partition, and perhaps a suffix.
fn found(name: String) -> Option<Found> {
    let suffixed = [State::Deleted, State::Future, State::Stray]
        .into_iter()
        .find(|state| name.ends_with(state.suffix()));
    if let Some(state) = suffixed {
        return Some(Found { name, state });
    }
    let (topic, partition) = name.rsplit_once('-')?;
    let live = !topic.is_empty() && partition.parse::<u32>().is_ok();
    live.then_some(())?;
    let state = State::Live;
    Some(Found { name, state })
}

/// What a log needs of the directory it is in.
pub(crate) struct Volume {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) root: PathBuf,
    pub(crate) files: Files,
    offline: AtomicBool,
    lock: OnceLock<Weak<dyn Lock>>,
    on_offline: OnceLock<Box<dyn Fn() + Send + Sync>>,
    positions: Mutex<Positions>,
    logs: Mutex<HashMap<String, Known>>,
    unflushed: AtomicU64,
    queue: Mutex<Queue>,
    asked: Condvar,
    pressed: Condvar,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Volume({})", self.root.display())
    }
}

/// A log that was opened.
struct Known {
    log: Weak<Log>,
    /// Its segments, which know their place, may be in use for longer.
    place: Weak<Place>,
}

/// How far logs are flushed and where they start, by name.
#[derive(Debug)]
struct Positions {
    recovery: Checkpoint,
    starts: Checkpoint,
    /// How far they are compacted.
    cleaned: Checkpoint,
    /// A log that is not in a [`Directory`]: its owner keeps what it needs to open it again.
    lone: bool,
}

impl Default for Positions {
    fn default() -> Positions {
        Positions {
            recovery: Checkpoint::new(RECOVERY_POINTS),
            starts: Checkpoint::new(START_OFFSETS),
            cleaned: Checkpoint::new(CLEANED),
            lone: false,
        }
    }
}

/// Offsets of logs, and what the file has of them.
#[derive(Debug)]
struct Checkpoint {
    file: &'static str,
    now: Offsets,
    written: Offsets,
}

impl Checkpoint {
    fn new(file: &'static str) -> Checkpoint {
        Checkpoint {
            file,
            now: Offsets::new(),
            written: Offsets::new(),
        }
    }

    fn get(&self, name: &str) -> Option<i64> {
        self.now.get(name).copied()
    }

    fn set(&mut self, name: &str, offset: i64) {
        match self.now.get_mut(name) {
            Some(known) => *known = offset,
            None => {
                self.now.insert(name.to_owned(), offset);
            }
        }
    }

    fn forget(&mut self, name: &str) {
        self.now.remove(name);
    }

    fn rename(&mut self, from: &str, to: &str) {
        if let Some(offset) = self.now.remove(from) {
            self.now.insert(to.to_owned(), offset);
        }
    }

    /// Lowers what is known of the log to `offset`. True if the file says more.
    fn lower(&mut self, name: &str, offset: i64) -> bool {
        if let Some(known) = self.now.get_mut(name) {
            *known = offset.min(*known);
        }
        self.written.get(name).is_some_and(|known| *known > offset)
    }
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Request>,
    /// Too much is unflushed.
    pressure: bool,
    closed: bool,
}

struct Request {
    log: Arc<Log>,
    upto: i64,
    done: Flushed,
}

impl Volume {
    fn new(disk: Arc<dyn Disk>, root: PathBuf, files_max: usize) -> Volume {
        Volume {
            disk,
            root,
            files: Files::new(files_max),
            offline: AtomicBool::new(false),
            lock: OnceLock::new(),
            on_offline: OnceLock::new(),
            positions: Mutex::default(),
            logs: Mutex::default(),
            unflushed: AtomicU64::new(0),
            queue: Mutex::default(),
            asked: Condvar::new(),
            pressed: Condvar::new(),
        }
    }

    /// For one log by itself.
    pub(crate) fn lone(disk: Arc<dyn Disk>, root: PathBuf) -> Volume {
        const FILES_MAX: usize = 16;
        let volume = Volume::new(disk, root, FILES_MAX);
        volume.positions().lone = true;
        volume
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.offline.load(Ordering::Acquire) {
            let dir = self.root.clone();
            return Err(Error::Offline { dir });
        }
        Ok(())
    }

    /// Opens a file, at the cost of others that are open if there is no descriptor for it: that is not
    /// the disk's fault.
    pub(crate) fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn disk::File>> {
        match self.disk.open(path, mode) {
            Err(err) if is_out_of_descriptors(&err) => {
                self.files.relieve();
                self.disk.open(path, mode)
            }
            opened => opened,
        }
    }

    /// The result of a system call. A failure takes the directory offline.
    pub(crate) fn done<T>(
        &self,
        op: &'static str,
        path: &Path,
        result: io::Result<T>,
    ) -> Result<T, Error> {
        result.map_err(|source| {
            if !self.offline.swap(true, Ordering::AcqRel) {
                if may_have_lost_writes(op, &source) {
                    self.disown_page_cache();
                }
                tracing::error!(
                    op,
                    path = %path.display(),
                    error = %source,
                    dir = %self.root.display(),
                    "log directory goes offline"
                );
                if let Some(wake) = self.on_offline.get() {
                    wake();
                }
            }
            Error::Io {
                op,
                path: path.to_owned(),
                source,
            }
        })
    }

    /// The next start is to take what was not synced for what a power cut has left, though the machine may
    /// stay up.
    fn disown_page_cache(&self) {
        let Some(lock) = self.lock.get().and_then(Weak::upgrade) else {
            return;
        };
        if let Err(err) = lock.leave_note(NO_NOTE) {
            tracing::error!(
                dir = %self.root.display(),
                error = %err,
                "cannot note that the log directory has failed: restart the machine before it is used again"
            );
        }
    }

    fn identify(&self, identity: &Identity, now: i64) -> Result<Uuid, Error> {
        let path = self.root.join(META);
        let found = self.done("read", &path, read_small(&*self.disk, &path))?;
        let Some(found) = found else {
            let id = properties::new_directory_id();
            let content = properties::meta(identity, id, now);
            self.replace(&path, content.as_bytes())?;
            return Ok(id);
        };
        match properties::check_meta(&path, &found, identity)? {
            Some(id) => Ok(id),
            // Written before directories had ids.
            None => {
                let id = properties::new_directory_id();
                let content = properties::meta(identity, id, now);
                self.replace(&path, content.as_bytes())?;
                Ok(id)
            }
        }
    }

    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), Error> {
        self.check()?;
        let done = checkpoint::replace(&*self.disk, path, content);
        self.done("write", path, done)
    }

    fn read_offsets(&self, name: &str) -> Result<Offsets, Error> {
        let path = self.root.join(name);
        match checkpoint::read_offsets(&*self.disk, &path) {
            // Without it, more is scanned and fetched again, which is safe.
            Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(path = %path.display(), "damaged checkpoint ignored");
                Ok(Offsets::new())
            }
            read => self.done("read", &path, read),
        }
    }

    fn write_offsets(&self, name: &str, offsets: &Offsets) -> Result<(), Error> {
        self.check()?;
        let path = self.root.join(name);
        let done = checkpoint::write_offsets(&*self.disk, &path, offsets);
        self.done("write", &path, done)
    }

    fn positions(&self) -> MutexGuard<'_, Positions> {
        self.positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_positions(&self) -> Result<(), Error> {
        let mut positions = self.positions();
        let Positions {
            recovery,
            starts,
            cleaned,
            ..
        } = &mut *positions;
        for checkpoint in [recovery, starts, cleaned] {
            checkpoint.now = self.read_offsets(checkpoint.file)?;
            checkpoint.written = checkpoint.now.clone();
        }
        Ok(())
    }

    pub(crate) fn write_positions(&self) -> Result<(), Error> {
        self.write_start_offsets()?;
        self.write_recovery_points()?;
        self.write_changed(|positions| &mut positions.cleaned)
    }

    pub(crate) fn write_start_offsets(&self) -> Result<(), Error> {
        self.write_changed(|positions| &mut positions.starts)
    }

    fn write_recovery_points(&self) -> Result<(), Error> {
        self.write_changed(|positions| &mut positions.recovery)
    }

    fn write_changed(
        &self,
        which: impl Fn(&mut Positions) -> &mut Checkpoint,
    ) -> Result<(), Error> {
        let mut positions = self.positions();
        let lone = positions.lone;
        let checkpoint = which(&mut positions);
        if checkpoint.now == checkpoint.written || lone {
            return Ok(());
        }
        self.write(checkpoint)
    }

    fn write(&self, checkpoint: &mut Checkpoint) -> Result<(), Error> {
        self.write_offsets(checkpoint.file, &checkpoint.now)?;
        checkpoint.written.clone_from(&checkpoint.now);
        Ok(())
    }

    /// The log is on the disk below `offset`.
    pub(crate) fn set_recovery_point(&self, log: &Log, offset: i64) {
        let mut positions = self.positions();
        // Asked for under the lock: who renames a log comes here afterwards to have it forgotten.
        positions.recovery.set(&log.name(), offset);
    }

    /// The log is compacted below `offset`. Nothing is noted of one on its way out: one of the same
    /// name may have begun.
    pub(crate) fn set_cleaned(&self, log: &Log, offset: i64) -> Result<(), Error> {
        let mut positions = self.positions();
        match found(log.name()) {
            Some(Found {
                name,
                state: State::Live,
            }) => positions.cleaned.set(&name, offset),
            _ => return Ok(()),
        }
        if positions.lone {
            return Ok(());
        }
        self.write(&mut positions.cleaned)
    }

    /// Makes sure that the file says so too, before compaction leaves gaps below: recovery takes a
    /// gap above for what a power cut has left.
    pub(crate) fn write_recovery_point(&self, name: &str, offset: i64) -> Result<(), Error> {
        let known = self.positions().recovery.written.get(name).copied();
        if known.is_some_and(|known| known >= offset) {
            return Ok(());
        }
        self.write_positions()
    }

    /// The log is to be cut at `offset`. If the file says that more of it is on the disk, the file
    /// is corrected before this returns: what will be appended there is not.
    pub(crate) fn lower_recovery_point(&self, name: &str, offset: i64) -> Result<(), Error> {
        let mut positions = self.positions();
        let lone = positions.lone;
        if positions.cleaned.lower(name, offset) && !lone {
            self.write(&mut positions.cleaned)?;
        }
        if positions.recovery.lower(name, offset) && !lone {
            self.write(&mut positions.recovery)?;
        }
        Ok(())
    }

    /// The log starts at `offset`; its first segment at `first`. Only what its files do not tell
    /// goes into the checkpoint.
    pub(crate) fn set_start_offset(&self, name: &str, offset: i64, first: i64) {
        let mut positions = self.positions();
        if offset > first {
            positions.starts.set(name, offset);
        } else {
            positions.starts.forget(name);
        }
    }

    /// The log is not there any more. The files may go on naming it: see [`Self::forget_on_disk`].
    fn forget(&self, name: &str) {
        let mut positions = self.positions();
        positions.recovery.forget(name);
        positions.starts.forget(name);
        positions.cleaned.forget(name);
    }

    /// A log of this name is about to begin, and nothing of an earlier one holds for it: neither now
    /// nor after a crash. A file is written only if it names the log, and is then rid of all that were
    /// forgotten.
    fn forget_on_disk(&self, name: &str) -> Result<(), Error> {
        self.forget(name);
        let mut positions = self.positions();
        let Positions {
            recovery,
            starts,
            cleaned,
            ..
        } = &mut *positions;
        for checkpoint in [recovery, starts, cleaned] {
            if checkpoint.written.contains_key(name) {
                self.write(checkpoint)?;
            }
        }
        Ok(())
    }

    fn move_positions(&self, from: &str, to: &str) {
        let mut positions = self.positions();
        positions.recovery.rename(from, to);
        positions.starts.rename(from, to);
        positions.cleaned.rename(from, to);
    }

    pub(crate) fn add_unflushed(&self, bytes: u64) {
        let before = self.unflushed.fetch_add(bytes, Ordering::Relaxed);
        if before <= UNFLUSHED_MAX && before + bytes > UNFLUSHED_MAX {
            self.queue().pressure = true;
            self.pressed.notify_all();
        }
    }

    pub(crate) fn flushed(&self, bytes: u64) {
        self.unflushed.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn ask(&self, request: Request) {
        let mut queue = self.queue();
        if queue.closed {
            drop(queue);
            let dir = self.root.clone();
            (request.done)(Err(Error::Offline { dir }));
            return;
        }
        queue.waiting.push(request);
        drop(queue);
        self.asked.notify_all();
    }

    fn run_flusher(&self) {
        loop {
            let waiting = {
                let mut queue = self.queue();
                loop {
                    if !queue.waiting.is_empty() {
                        break std::mem::take(&mut queue.waiting);
                    }
                    if queue.closed {
                        return;
                    }
                    queue = wait(&self.asked, queue);
                }
            };
            self.serve(waiting);
        }
    }

    fn run_writeback(&self) {
        loop {
            let mut queue = self.queue();
            while !queue.pressure && !queue.closed {
                queue = wait(&self.pressed, queue);
            }
            if queue.closed {
                return;
            }
            queue.pressure = false;
            drop(queue);
            self.relieve();
        }
    }

    /// One sync for each log, whoever many wait for it.
    fn serve(&self, mut waiting: Vec<Request>) {
        // By log; the order of those who wait for the same stays.
        waiting.sort_by_key(|request| Arc::as_ptr(&request.log));
        let distinct = waiting.chunk_by(|a, b| Arc::ptr_eq(&a.log, &b.log));
        let logs: Vec<Arc<Log>> = distinct.map(|group| Arc::clone(&group[0].log)).collect();
        if logs.len() > 1 {
            // All disks writes under way before the first is waited for.
            for log in &logs {
                log.start_writeback();
            }
        }
        let mut waiting = waiting.into_iter().peekable();
        for log in logs {
            let mut group = Vec::new();
            while let Some(request) = waiting.next_if(|request| Arc::ptr_eq(&request.log, &log)) {
                group.push(request);
            }
            let upto = group.iter().map(|request| request.upto).max().unwrap_or(0);
            let flushed = match log.flushed_offset() {
                flushed if flushed >= upto => Ok(flushed),
                _ => log.flush(),
            };
            let mut failure = None;
            for request in group {
                let result = match &flushed {
                    Ok(offset) => Ok(*offset),
                    Err(Error::Gone { path }) => Err(Error::Gone { path: path.clone() }),
                    Err(_) => Err(Error::Offline {
                        dir: self.root.clone(),
                    }),
                };
                match failure {
                    None => failure = Some((request.done, result)),
                    Some(_) => (request.done)(result),
                }
            }
            // The first to wait gets the failure itself.
            if let Some((done, result)) = failure {
                done(flushed.or(result));
            }
        }
    }

    /// Flushes the logs with the most to flush until half the bound is left.
    fn relieve(&self) {
        let mut logs: Vec<_> = self
            .logs()
            .values()
            .filter_map(|known| known.log.upgrade())
            .map(|log| (log.unflushed_bytes(), log))
            .collect();
        logs.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (_, log) in logs {
            if self.unflushed.load(Ordering::Relaxed) <= UNFLUSHED_MAX / 2 {
                break;
            }
            match log.flush() {
                Ok(_) | Err(Error::Gone { .. }) => (),
                // What failed is in the log and has taken the directory offline.
                Err(_) => return,
            }
        }
        let _ = self.write_positions();
        // More came in than went out meanwhile: go on.
        if self.unflushed.load(Ordering::Relaxed) > UNFLUSHED_MAX {
            self.queue().pressure = true;
        }
    }
}

fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition
        .wait(guard)
        .unwrap_or_else(PoisonError::into_inner)
}
