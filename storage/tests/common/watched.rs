//! The machine's disk with somebody who watches: told of each call before it is made, and able to hold it up
//! or have it fail.

use std::{
    fmt,
    io::{self, IoSlice},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use storage::disk::{self, Disk, Entry, File, Lock, Mode, Space};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)] // Each test file uses its part.
pub(crate) enum Call {
    Open,
    Stat,
    Rename,
    Remove,
    Read,
    Write,
    Sync,
    SyncDir,
}

type Watch = dyn Fn(Call, &Path) -> io::Result<()> + Send + Sync;

#[derive(Clone)]
pub(crate) struct Watched {
    disk: Arc<dyn Disk>,
    watch: Arc<Watch>,
}

/// A disk of which `watch` is told. A rename is told by the name it begins with.
pub(crate) fn watched(
    watch: impl Fn(Call, &Path) -> io::Result<()> + Send + Sync + 'static,
) -> Arc<dyn Disk> {
    Arc::new(Watched {
        disk: disk::real(),
        watch: Arc::new(watch),
    })
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl Disk for Watched {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn File>> {
        (self.watch)(Call::Open, path)?;
        Ok(Box::new(WatchedFile {
            file: self.disk.open(path, mode)?,
            path: path.to_owned(),
            watch: Arc::clone(&self.watch),
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(dir)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        (self.watch)(Call::Stat, path)?;
        self.disk.size(path)
    }

    fn modified(&self, path: &Path) -> io::Result<i64> {
        (self.watch)(Call::Stat, path)?;
        self.disk.modified(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.watch)(Call::Rename, from)?;
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        (self.watch)(Call::Remove, path)?;
        self.disk.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        (self.watch)(Call::SyncDir, path)?;
        self.disk.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }

    fn boot_id(&self) -> Option<String> {
        self.disk.boot_id()
    }
}

struct WatchedFile {
    file: Box<dyn File>,
    path: PathBuf,
    watch: Arc<Watch>,
}

impl fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl File for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        (self.watch)(Call::Read, &self.path)?;
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        (self.watch)(Call::Write, &self.path)?;
        self.file.write_at(parts, position)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.file.set_size(size)
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        self.file.reserve(size)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn sync(&self) -> io::Result<()> {
        (self.watch)(Call::Sync, &self.path)?;
        self.file.sync()
    }

    fn start_writeback(&self) -> io::Result<()> {
        self.file.start_writeback()
    }

    fn resident(&self, position: u64, size: usize) -> bool {
        self.file.resident(position, size)
    }

    fn send(&self, socket: BorrowedFd<'_>, position: u64, size: usize) -> io::Result<usize> {
        self.file.send(socket, position, size)
    }
}
