//! A disk in memory that does what disks do when the power goes: what was not synced is lost in
//! part and in any order, writes are torn, names come back. It also cuts writes short, runs full and
//! fails to sync.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use storage::disk::{Disk, Entry, File, Lock, Mode, Space};

/// Small, seeded, and good enough to choose what breaks.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What goes wrong when a chosen system call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)] // Each test file uses its part.
pub(crate) enum Fault {
    /// The process dies in the middle of the call.
    Die,
    /// No space is left: a write is cut short and then refused.
    Full,
    /// A sync fails, and what it should have written is lost though it can still be read.
    SyncFails,
}

#[derive(Debug)]
pub(crate) struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: Random,
    now: Names,
    durable: Names,
    pending: Vec<NameChange>,
    inodes: Vec<Inode>,
    calls: u64,
    fault: Option<(u64, Fault)>,
    full: bool,
    dead: bool,
    boot: u64,
    note: String,
}

#[derive(Debug, Clone, Default)]
struct Names {
    dirs: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, usize>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Dir(PathBuf),
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    RemoveDir(PathBuf),
}

#[derive(Debug, Default, Clone)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// A sync has failed: what is in memory counts as written, and may be dropped.
    failed: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Size(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write(position, bytes) => {
                let end = position + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*position..end].copy_from_slice(bytes);
            }
            Change::Size(size) => content.resize(*size, 0),
        }
    }
}

impl Names {
    fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Dir(path) => {
                self.dirs.insert(path.clone());
            }
            NameChange::Create(path, inode) => {
                self.files.insert(path.clone(), *inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = self.files.remove(from) {
                    self.files.insert(to.clone(), inode);
                }
                if self.dirs.remove(from) {
                    self.dirs.insert(to.clone());
                    let files = std::mem::take(&mut self.files).into_iter();
                    let moved = files.map(|(path, inode)| match path.strip_prefix(from) {
                        Ok(name) => (to.join(name), inode),
                        Err(_) => (path, inode),
                    });
                    self.files = moved.collect();
                }
            }
            NameChange::Remove(path) => {
                self.files.remove(path);
            }
            NameChange::RemoveDir(path) => {
                self.dirs.remove(path);
            }
        }
    }
}

impl NameChange {
    fn dir(&self) -> Option<&Path> {
        match self {
            NameChange::Dir(path)
            | NameChange::Create(path, _)
            | NameChange::Rename(path, _)
            | NameChange::Remove(path)
            | NameChange::RemoveDir(path) => path.parent(),
        }
    }
}

#[allow(dead_code)] // Each test file uses its part.
impl FaultyDisk {
    /// An empty disk with one directory.
    pub(crate) fn new(seed: u64, root: &Path) -> FaultyDisk {
        let names = Names {
            dirs: BTreeSet::from([root.to_owned()]),
            files: BTreeMap::new(),
        };
        let state = State {
            random: Random::new(seed),
            now: names.clone(),
            durable: names,
            pending: Vec::new(),
            inodes: Vec::new(),
            calls: 0,
            fault: None,
            full: false,
            dead: false,
            boot: 0,
            note: String::new(),
        };
        FaultyDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// As a log takes it.
    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(FaultyDisk {
            state: Arc::clone(&self.state),
        })
    }

    /// Something goes wrong after this many more changes.
    pub(crate) fn fail_in(&self, calls: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.calls + calls, fault));
    }

    /// The process is started again; the machine stayed up. Of files whose sync has failed what is on the disk
    /// is read.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        state.dead = false;
        state.full = false;
        state.fault = None;
        for inode in state.inodes.iter_mut().filter(|inode| inode.failed) {
            inode.failed = false;
            let size = inode.now.len();
            inode.now = inode.durable.clone();
            inode.now.resize(size, 0);
            inode.durable = inode.now.clone();
        }
    }

    /// A sync of a file has failed since the start.
    pub(crate) fn has_failed_to_sync(&self) -> bool {
        self.state().inodes.iter().any(|inode| inode.failed)
    }

    /// The power goes and comes back: of what was not synced, some is there.
    pub(crate) fn lose_power(&self) {
        self.restart();
        let mut state = self.state();
        let state = &mut *state;
        state.boot += 1;
        // A file system's journal keeps the order of names, so a prefix of the changes is there.
        let kept = state.random.below(state.pending.len() as u64 + 1);
        let mut names = state.durable.clone();
        for change in state.pending.drain(..).take(usize::try_from(kept).unwrap()) {
            names.apply(&change);
        }
        let dirs = names.dirs.clone();
        names
            .files
            .retain(|path, _| path.parent().is_some_and(|dir| dirs.contains(dir)));
        for inode in &mut state.inodes {
            let mut content = std::mem::take(&mut inode.durable);
            for change in inode.pending.drain(..) {
                survive(&change, &mut content, &mut state.random);
            }
            inode.now = content.clone();
            inode.durable = content;
        }
        state.now = names.clone();
        state.durable = names;
    }
}

/// What is left of a change that was not synced: all, nothing, or some of its sectors.
#[allow(dead_code)] // Of power cuts, which not each test file has.
fn survive(change: &Change, content: &mut Vec<u8>, random: &mut Random) {
    const SECTOR: usize = 64;
    match random.below(3) {
        0 => (),
        1 => change.apply(content),
        _ => match change {
            Change::Size(_) => change.apply(content),
            Change::Write(position, bytes) => {
                for (at, sector) in bytes.chunks(SECTOR).enumerate() {
                    if random.chance(50) {
                        Change::Write(position + at * SECTOR, sector.to_vec()).apply(content);
                    }
                }
            }
        },
    }
}

impl State {
    /// Counts a call that changes something, and fails it if it is its turn.
    fn change(&mut self, sync: bool) -> io::Result<Option<Fault>> {
        if self.dead {
            return Err(io::Error::other("the process is dead"));
        }
        if self.full && !sync {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.calls += 1;
        match self.fault {
            Some((at, Fault::SyncFails)) if self.calls >= at && sync => {
                self.fault = None;
                Ok(Some(Fault::SyncFails))
            }
            Some((at, fault)) if self.calls >= at && fault != Fault::SyncFails => {
                self.fault = None;
                match fault {
                    Fault::Die => self.dead = true,
                    _ => self.full = true,
                }
                Ok(Some(fault))
            }
            _ => Ok(None),
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the process is dead"));
        }
        Ok(())
    }

    fn rename_now(&mut self, change: NameChange) -> io::Result<()> {
        if self.change(false)?.is_some() {
            return Err(io::Error::other("a fault was injected"));
        }
        self.now.apply(&change);
        self.pending.push(change);
        Ok(())
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let inode = self.now.files.get(path).copied();
        inode.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.alive()?;
        let inode = match state.find(path) {
            Ok(inode) => inode,
            Err(err) if mode == Mode::Open => return Err(err),
            Err(_) => {
                if !path
                    .parent()
                    .is_some_and(|dir| state.now.dirs.contains(dir))
                {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let inode = state.inodes.len();
                state.rename_now(NameChange::Create(path.to_owned(), inode))?;
                state.inodes.push(Inode::default());
                inode
            }
        };
        drop(state);
        let file = FaultyFile {
            inode,
            state: Arc::clone(&self.state),
        };
        if mode == Mode::Replace && file.size()? > 0 {
            file.set_size(0)?;
        }
        Ok(Box::new(file))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let state = self.state();
        state.alive()?;
        if !state.now.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let within = |path: &&PathBuf| path.parent() == Some(dir);
        let entry = |path: &PathBuf, is_dir| Entry {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            is_dir,
        };
        let dirs = state.now.dirs.iter().filter(within);
        let files = state.now.files.keys().filter(within);
        Ok(dirs
            .map(|path| entry(path, true))
            .chain(files.map(|path| entry(path, false)))
            .collect())
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        let state = self.state();
        state.alive()?;
        if state.now.dirs.contains(path) {
            return Ok(0);
        }
        Ok(state.inodes[state.find(path)?].now.len() as u64)
    }

    fn modified(&self, path: &Path) -> io::Result<i64> {
        self.size(path).map(|_| crate::common::NOW)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        if state.now.dirs.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.rename_now(NameChange::Dir(path.to_owned()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        if !state.now.dirs.contains(from) {
            state.find(from)?;
        }
        state.rename_now(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        state.find(path)?;
        state.rename_now(NameChange::Remove(path.to_owned()))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.rename_now(NameChange::RemoveDir(path.to_owned()))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.change(true)?.is_some() {
            return Err(io::Error::other("a fault was injected"));
        }
        let pending = std::mem::take(&mut state.pending);
        for change in pending {
            if change.dir() == Some(path) {
                state.durable.apply(&change);
            } else {
                state.pending.push(change);
            }
        }
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Lock>> {
        let state = Arc::clone(&self.state);
        Ok(Box::new(FaultyLock { state }))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(Space {
            total: 1 << 30,
            usable: 1 << 29,
        })
    }

    fn boot_id(&self) -> Option<String> {
        Some(self.state().boot.to_string())
    }
}

#[derive(Debug)]
struct FaultyLock {
    state: Arc<Mutex<State>>,
}

impl Lock for FaultyLock {
    fn leave_note(&self, note: &str) -> io::Result<String> {
        let mut state = self.state.lock().unwrap();
        Ok(std::mem::replace(&mut state.note, note.to_owned()))
    }

    fn sync_filesystem(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.change(true)?.is_some() {
            return Err(io::Error::other("a fault was injected"));
        }
        let state = &mut *state;
        state.pending.clear();
        state.durable = state.now.clone();
        for inode in &mut state.inodes {
            inode.pending.clear();
            inode.durable = inode.now.clone();
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FaultyFile {
    inode: usize,
    state: Arc<Mutex<State>>,
}

impl FaultyFile {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl File for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let state = self.state();
        state.alive()?;
        let content = &state.inodes[self.inode].now;
        let start = usize::try_from(position).unwrap().min(content.len());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut state = self.state();
        let fault = state.change(false)?;
        if fault.is_some() || state.random.chance(10) {
            let kept = state.random.below(bytes.len() as u64 + 1);
            // A kernel writes at least something or fails.
            bytes.truncate(usize::try_from(kept).unwrap().max(1));
        }
        let change = Change::Write(usize::try_from(position).unwrap(), bytes.clone());
        let inode = &mut state.inodes[self.inode];
        change.apply(&mut inode.now);
        inode.pending.push(change);
        match fault {
            Some(Fault::Die) => Err(io::Error::other("the process is dead")),
            _ => Ok(bytes.len()),
        }
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut state = self.state();
        // Cutting back works on a full disk.
        let full = std::mem::take(&mut state.full);
        let fault = state.change(false);
        state.full |= full;
        if fault?.is_some() {
            return Err(io::Error::other("a fault was injected"));
        }
        let change = Change::Size(usize::try_from(size).unwrap());
        let inode = &mut state.inodes[self.inode];
        change.apply(&mut inode.now);
        inode.pending.push(change);
        Ok(())
    }

    fn reserve(&self, _size: u64) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let state = self.state();
        state.alive()?;
        Ok(state.inodes[self.inode].now.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.change(true)?;
        let inode = &mut state.inodes[self.inode];
        inode.pending.clear();
        match fault {
            Some(fault) => {
                inode.failed = fault == Fault::SyncFails;
                Err(io::Error::other("the sync failed"))
            }
            None => {
                inode.durable = inode.now.clone();
                Ok(())
            }
        }
    }

    fn start_writeback(&self) -> io::Result<()> {
        Ok(())
    }

    fn resident(&self, _position: u64, _size: usize) -> bool {
        true
    }

    fn send(&self, _socket: BorrowedFd<'_>, _position: u64, _size: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
