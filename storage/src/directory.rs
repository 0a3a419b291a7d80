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
//! `volume` is what its logs have of it; `positions` keeps the checkpoints; `flusher` has the threads that sync.

mod flusher;
mod names;
mod positions;
mod volume;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use uuid::Uuid;

pub(crate) use self::volume::Volume;
pub use self::{
    flusher::Flushed,
    names::{Found, State},
};
use self::{
    flusher::Request,
    names::found,
    volume::{Known, NO_NOTE},
};
use crate::{
    checkpoint::{self, Offsets},
    config::Config,
    disk::{Disk, Lock, Space},
    error::Error,
    files::read_small,
    log::{Log, Shutdown, Start},
    properties::{self, Identity},
};

const LOCK: &str = ".lock";
const META: &str = "meta.properties";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const PARTITION_METADATA: &str = "partition.metadata";

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
        volume.set_lock(&lock);
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
        self.volume.when_offline(wake);
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
            Ok(_) => self.volume.start_of(name, self.shutdown),
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
        self.volume.high_watermarks()
    }

    pub fn write_high_watermarks(&self, offsets: &Offsets) -> Result<(), Error> {
        self.volume.write_high_watermarks(offsets)
    }

    /// How far the log called `name` is compacted.
    pub fn cleaned_offset(&self, name: &str) -> Option<i64> {
        self.volume.cleaned_offset(name)
    }

    /// The log called `name` is compacted below `offset`: it is a copy of one that was.
    /// [`Log::compact`] sees to it by itself.
    pub fn set_cleaned_offset(&self, name: &str, offset: i64) -> Result<(), Error> {
        self.volume.set_cleaned_offset(name, offset)
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
        self.volume.stop_flushing();
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
