//! The IO edge: the dozen system calls a log needs, and nothing else in this crate makes one.
//!
//! [`Disk`] is a trait because crash tests put a disk behind it that loses what was not synced. The
//! calls are the kernel's, with its sharp edges: writes may be short, a rename is durable only after
//! the directory is synced, and a failed sync means that the data may be gone even if a later sync
//! succeeds.

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::{self, IoSlice},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use nix::{errno::Errno, libc};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To read and write; it must exist.
    Open,
    /// To read and write; created when absent, kept as it is when present.
    Create,
    /// To read and write; created when absent, emptied when present.
    Replace,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub is_dir: bool,
}

/// Space on the file system of a path, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    pub usable: u64,
}

/// Held as long as the process may write to a directory; released on drop.
pub trait Lock: Send + Sync + fmt::Debug {
    /// Leaves a note in the lock file for the next holder; returns the last holder's.
    fn leave_note(&self, note: &str) -> io::Result<String>;

    /// Makes everything on the file system of the lock durable: when a thousand files are to be
    /// synced, one call does it. The lock file is open as long as the directory is in use, so that
    /// the kernel reports here any write that failed since.
    fn sync_filesystem(&self) -> io::Result<()>;
}

pub trait Disk: Send + Sync + fmt::Debug {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn File>>;
    /// Every entry, in no order. Names that are not UTF-8 are none of ours and left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    fn size(&self, path: &Path) -> io::Result<u64>;
    /// Time of the last change, in milliseconds since the epoch.
    fn modified(&self, path: &Path) -> io::Result<i64>;
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Make creations, renames and removals in this directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// An exclusive lock on a file, created when absent. `WouldBlock` when another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Differs after each start of the machine: what was written under the same value is still in
    /// the page cache, even if the process that wrote it was killed.
    fn boot_id(&self) -> Option<String>;
}

pub trait File: Send + Sync + fmt::Debug {
    /// Fewer bytes than asked only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// As `pwritev`: may write less than given.
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Reserve space for `size` bytes without changing what can be read.
    fn reserve(&self, size: u64) -> io::Result<()>;
    fn size(&self) -> io::Result<u64>;
    /// Make the data, and the size needed to read it back, durable.
    fn sync(&self) -> io::Result<()>;
    /// Start writing out dirty data without waiting for it.
    fn start_writeback(&self) -> io::Result<()>;
    /// Whether reading the range now would not wait for the disk.
    fn resident(&self, position: u64, size: usize) -> bool;
    /// Fills the buffer if that does not wait for the disk. `false` if it would, or if the file ends before.
    fn read_now_at(&self, buffer: &mut [u8], position: u64) -> io::Result<bool> {
        let now = self.resident(position, buffer.len());
        Ok(now && self.read_at(buffer, position)? == buffer.len())
    }
    /// From the page cache to a socket, as `sendfile`.
    fn send(&self, socket: BorrowedFd<'_>, position: u64, size: usize) -> io::Result<usize>;
}

/// Writes all of `parts`, whose buffers are consumed in doing so.
pub(crate) fn write_all(
    file: &dyn File,
    mut parts: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    // The kernel takes at most this many buffers in one call.
    const PARTS_MAX: usize = 1024;
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        let count = parts.len().min(PARTS_MAX);
        let written = match file.write_at(&parts[..count], position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(err),
        };
        position += written as u64;
        IoSlice::advance_slices(&mut parts, written);
    }
    Ok(())
}

/// The machine's own file systems.
pub fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

#[derive(Debug)]
struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(mode != Mode::Open)
            .truncate(mode == Mode::Replace)
            .open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                let is_dir = entry.file_type()?.is_dir();
                entries.push(Entry { name, is_dir });
            }
        }
        Ok(entries)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn modified(&self, path: &Path) -> io::Result<i64> {
        let meta = fs::metadata(path)?;
        Ok(meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        RealLock::take(path).map(|lock| Box::new(lock) as Box<dyn Lock>)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = nix::sys::statvfs::statvfs(path)?;
        let unit = stat.fragment_size();
        Ok(Space {
            total: stat.blocks() * unit,
            usable: stat.blocks_available() * unit,
        })
    }

    fn boot_id(&self) -> Option<String> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned())
    }
}

#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .0
                .read_at(&mut buffer[filled..], position + filled as u64)
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => (),
                Err(err) => return Err(err),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        Ok(nix::sys::uio::pwritev(&self.0, parts, offset(position)?)?)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        let keep = nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(nix::fcntl::fallocate(&self.0, keep, 0, offset(size)?)?)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn start_writeback(&self) -> io::Result<()> {
        // SAFETY: a call on a descriptor we own; no memory is passed.
        let result =
            unsafe { libc::sync_file_range(self.0.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
        Errno::result(result)?;
        Ok(())
    }

    fn resident(&self, position: u64, size: usize) -> bool {
        if size == 0 {
            return true;
        }
        match cached_pages(self.0.as_fd(), position, size) {
            Some(pages) if pages < page_count(position, size) => false,
            // What is on its way from the disk is in the page cache too, from the moment on at which the kernel
            // begins to read ahead.
            _ => reads_without_waiting(self.0.as_fd(), position, size),
        }
    }

    fn read_now_at(&self, buffer: &mut [u8], position: u64) -> io::Result<bool> {
        match read_without_waiting(self.0.as_fd(), buffer, offset(position)?) {
            Ok(count) => Ok(count == buffer.len()),
            Err(Errno::EAGAIN) => Ok(false),
            // The file system cannot tell.
            Err(Errno::EOPNOTSUPP) => Ok(self.read_at(buffer, position)? == buffer.len()),
            Err(err) => Err(err.into()),
        }
    }

    fn send(&self, socket: BorrowedFd<'_>, position: u64, size: usize) -> io::Result<usize> {
        let mut at = offset(position)?;
        Ok(nix::sys::sendfile::sendfile(
            socket,
            self.0.as_fd(),
            Some(&mut at),
            size,
        )?)
    }
}

fn offset(position: u64) -> io::Result<i64> {
    i64::try_from(position).map_err(|_| io::ErrorKind::InvalidInput.into())
}

const PAGE_SIZE: u64 = 4096;

fn page_count(position: u64, size: usize) -> u64 {
    let last = position + size as u64 - 1;
    last / PAGE_SIZE - position / PAGE_SIZE + 1
}

/// How many pages of the range are in the page cache, by `cachestat(2)`: one call that counts,
/// where `mincore` needs a mapping per file (and we have more files than mappings) and `RWF_NOWAIT`
/// a probe per page. `None` before Linux 6.5 and on file systems without it.
fn cached_pages(file: BorrowedFd<'_>, position: u64, size: usize) -> Option<u64> {
    #[repr(C)]
    struct Range {
        offset: u64,
        size: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Stat {
        cached: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    const CACHESTAT: libc::c_long = 451;

    let range = Range {
        offset: position,
        size: size as u64,
    };
    let mut stat = Stat::default();
    // SAFETY: both structs are laid out as the kernel's cachestat_range and cachestat and live
    // through the call.
    let result = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            std::ptr::from_ref(&range),
            std::ptr::from_mut(&mut stat),
            0,
        )
    };
    (result == 0).then_some(stat.cached)
}

/// Reads a byte at each end of the range and in every readahead window, refusing to wait.
fn reads_without_waiting(file: BorrowedFd<'_>, position: u64, size: usize) -> bool {
    const WINDOW: usize = 128 << 10;
    let end = position + size as u64 - 1;
    let probes = (position..end).step_by(WINDOW).chain([end]);
    probes.into_iter().all(|at| {
        let Ok(at) = i64::try_from(at) else {
            return false;
        };
        // A file system that cannot tell (EOPNOTSUPP) is taken as fast: the alternative is to
        // send every read through the blocking pool.
        read_without_waiting(file, &mut [0], at) != Err(Errno::EAGAIN)
    })
}

/// Reads as much as is in the page cache from the position on, by `RWF_NOWAIT`. `EAGAIN` if the first byte is not.
fn read_without_waiting(
    file: BorrowedFd<'_>,
    buffer: &mut [u8],
    position: i64,
) -> Result<usize, Errno> {
    let part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: one buffer, as long as is said, that nobody else has during the call.
    let count = unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            &raw const part,
            1,
            position,
            libc::RWF_NOWAIT,
        )
    };
    Errno::result(count).map(isize::cast_unsigned)
}

/// The lock Kafka takes (Java's `FileChannel.tryLock` is `fcntl(F_SETLK)`), so that we refuse each
/// other. Such a lock belongs to the process: a second taker inside of it is told by [`HELD`].
#[derive(Debug)]
struct RealLock {
    path: PathBuf,
    file: Option<fs::File>,
}

static HELD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

impl RealLock {
    fn take(path: &Path) -> io::Result<RealLock> {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked up before opening: closing any descriptor of a file drops all of the process's
        // locks on it.
        if let Ok(known) = path.canonicalize()
            && held.contains(&known)
        {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        // Both are small constants, whose type differs between C libraries.
        #[allow(clippy::cast_possible_truncation)]
        let whole = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&whole)).map_err(
            |errno| match errno {
                Errno::EACCES | Errno::EAGAIN => io::ErrorKind::WouldBlock.into(),
                errno => io::Error::from(errno),
            },
        )?;
        let path = path.canonicalize()?;
        held.insert(path.clone());
        Ok(RealLock {
            path,
            file: Some(file),
        })
    }
}

impl Lock for RealLock {
    fn leave_note(&self, note: &str) -> io::Result<String> {
        const NOTE_MAX: usize = 256;
        let Some(file) = &self.file else {
            return Ok(String::new());
        };
        let mut last = vec![0; NOTE_MAX];
        let count = file.read_at(&mut last, 0)?;
        last.truncate(count);
        if last != note.as_bytes() {
            file.set_len(0)?;
            file.write_all_at(note.as_bytes(), 0)?;
        }
        Ok(String::from_utf8(last).unwrap_or_default())
    }

    fn sync_filesystem(&self) -> io::Result<()> {
        match &self.file {
            Some(file) => Ok(nix::unistd::syncfs(file)?),
            None => Ok(()),
        }
    }
}

impl Drop for RealLock {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        // Closed before the name is free again: the other way round, our closing could drop the
        // lock of the next holder in this process.
        self.file = None;
        held.remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

    use super::*;

    const SIZE: usize = 1 << 20;

    #[test]
    fn what_the_page_cache_has_lost_is_not_at_hand_until_it_was_read() {
        // Beside this program: /tmp is memory on many machines.
        let program = std::env::current_exe().expect("this program");
        let dir = tempfile::tempdir_in(program.parent().expect("its directory"));
        let dir = dir.expect("a directory");
        let path = dir.path().join("file");
        let written = vec![b'x'; SIZE];
        fs::write(&path, &written).expect("room for a file");
        let file = RealFile(fs::File::open(&path).expect("the file"));
        let mut read = vec![0; SIZE];
        assert!(file.resident(0, SIZE));
        assert!(file.read_now_at(&mut read, 0).expect("a read"));
        assert_eq!(read, written);

        file.0.sync_all().expect("a sync");
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        posix_fadvise(&file.0, 0, 0, advice).expect("an advice");
        // A file system in memory, or a kernel that cannot count, says nothing else.
        if cached_pages(file.0.as_fd(), 0, SIZE) == Some(0) {
            assert!(!file.resident(0, SIZE));
            assert!(!file.read_now_at(&mut read, 0).expect("no read"));
        }

        file.read_at(&mut read, 0).expect("a read");
        assert!(file.resident(0, SIZE));
        assert!(file.read_now_at(&mut read, 0).expect("a read"));
        // What is not there is not at hand either.
        assert!(!file.read_now_at(&mut read, 1).expect("a short read"));
    }
}
