//! What the logs of a directory share with it: the disk, the open files, and the end of both when a call fails.

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use uuid::Uuid;

use super::{META, flusher::Flusher, positions::Positions};
use crate::{
    checkpoint,
    disk::{self, Disk, Lock, Mode},
    error::Error,
    files::{Files, Place, read_small},
    log::Log,
    properties::{self, Identity},
};

/// In the lock file, where the page cache is not to be believed.
pub(super) const NO_NOTE: &str = "";

/// What a log needs of the directory it is in.
pub(crate) struct Volume {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) root: PathBuf,
    pub(crate) files: Files,
    offline: AtomicBool,
    lock: OnceLock<Weak<dyn Lock>>,
    on_offline: OnceLock<Box<dyn Fn() + Send + Sync>>,
    pub(super) positions: Mutex<Positions>,
    pub(super) flusher: Flusher,
    logs: Mutex<HashMap<String, Known>>,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Volume({})", self.root.display())
    }
}

/// A log that was opened.
pub(super) struct Known {
    pub(super) log: Weak<Log>,
    /// Its segments, which know their place, may be in use for longer.
    pub(super) place: Weak<Place>,
}

impl Volume {
    pub(super) fn new(disk: Arc<dyn Disk>, root: PathBuf, files_max: usize) -> Volume {
        Volume {
            disk,
            root,
            files: Files::new(files_max),
            offline: AtomicBool::new(false),
            lock: OnceLock::new(),
            on_offline: OnceLock::new(),
            positions: Mutex::default(),
            flusher: Flusher::default(),
            logs: Mutex::default(),
        }
    }

    /// For one log by itself.
    pub(crate) fn lone(disk: Arc<dyn Disk>, root: PathBuf) -> Volume {
        const FILES_MAX: usize = 16;
        Volume {
            positions: Mutex::new(Positions::lone()),
            ..Volume::new(disk, root, FILES_MAX)
        }
    }

    /// In `lock` a note is left when the directory fails.
    pub(super) fn set_lock(&self, lock: &Arc<dyn Lock>) {
        // Just begun: it cannot be set.
        let _ = self.lock.set(Arc::downgrade(lock));
    }

    /// Has `wake` called when a failure takes the directory offline; at once if one has already.
    pub(super) fn when_offline(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_offline.set(Box::new(wake));
        if let (Err(_), Some(wake)) = (self.check(), self.on_offline.get()) {
            wake();
        }
    }

    /// Fails if a failure has taken the directory offline.
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
    pub(super) fn disown_page_cache(&self) {
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

    pub(super) fn identify(&self, identity: &Identity, now: i64) -> Result<Uuid, Error> {
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

    pub(super) fn replace(&self, path: &Path, content: &[u8]) -> Result<(), Error> {
        self.check()?;
        let done = checkpoint::replace(&*self.disk, path, content);
        self.done("write", path, done)
    }

    pub(super) fn logs(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
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

fn is_out_of_descriptors(err: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE};
    matches!(err.raw_os_error(), Some(EMFILE | ENFILE))
}
