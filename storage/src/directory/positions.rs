//! How far each log is flushed and compacted and where it starts, and the checkpoints that say so after a restart.
//!
//! A checkpoint may say less than is true, which costs work, and never more: it is corrected before a log is cut, and
//! is rid of a deleted log before another of the same name begins.

use std::{
    io,
    sync::{MutexGuard, PoisonError},
};

use super::{
    Volume,
    names::{Found, State, found},
};
use crate::{
    checkpoint::{self, Offsets},
    error::Error,
    log::{Log, Shutdown, Start},
};

const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const START_OFFSETS: &str = "log-start-offset-checkpoint";
const CLEANED: &str = "cleaner-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";

/// How far logs are flushed and where they start, by name.
#[derive(Debug)]
pub(super) struct Positions {
    recovery: Checkpoint,
    starts: Checkpoint,
    /// How far they are compacted.
    cleaned: Checkpoint,
    /// A log that is not in a [`super::Directory`]: its owner keeps what it needs to open it again.
    lone: bool,
}

impl Positions {
    fn all_mut(&mut self) -> [&mut Checkpoint; 3] {
        [&mut self.recovery, &mut self.starts, &mut self.cleaned]
    }
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

impl Positions {
    /// Of a log that is not in a [`super::Directory`].
    pub(super) fn lone() -> Positions {
        Positions {
            lone: true,
            ..Positions::default()
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

impl Volume {
    pub(super) fn read_positions(&self) -> Result<(), Error> {
        let mut positions = self.positions();
        for checkpoint in positions.all_mut() {
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

    pub(super) fn write_recovery_points(&self) -> Result<(), Error> {
        self.write_changed(|positions| &mut positions.recovery)
    }

    /// How the log called `name` is to be opened.
    pub(super) fn start_of(&self, name: &str, shutdown: Shutdown) -> Start {
        let positions = self.positions();
        Start {
            shutdown,
            recovery_point: positions.recovery.get(name).unwrap_or(0),
            log_start_offset: positions.starts.get(name).unwrap_or(0),
        }
    }

    /// How far the log called `name` is compacted.
    pub(super) fn cleaned_offset(&self, name: &str) -> Option<i64> {
        self.positions().cleaned.get(name)
    }

    /// The log called `name` is compacted below `offset`, whatever is known of it here.
    pub(super) fn set_cleaned_offset(&self, name: &str, offset: i64) -> Result<(), Error> {
        let mut positions = self.positions();
        positions.cleaned.set(name, offset);
        self.write(&mut positions.cleaned)
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
    pub(super) fn forget(&self, name: &str) {
        let mut positions = self.positions();
        for checkpoint in positions.all_mut() {
            checkpoint.forget(name);
        }
    }

    /// A log of this name is about to begin, and nothing of an earlier one holds for it: neither now
    /// nor after a crash. A file is written only if it names the log, and is then rid of all that were
    /// forgotten.
    pub(super) fn forget_on_disk(&self, name: &str) -> Result<(), Error> {
        self.forget(name);
        let mut positions = self.positions();
        for checkpoint in positions.all_mut() {
            if checkpoint.written.contains_key(name) {
                self.write(checkpoint)?;
            }
        }
        Ok(())
    }

    pub(super) fn move_positions(&self, from: &str, to: &str) {
        let mut positions = self.positions();
        for checkpoint in positions.all_mut() {
            checkpoint.rename(from, to);
        }
    }

    /// The high watermarks last written, by log name: their owner keeps them.
    pub(super) fn high_watermarks(&self) -> Result<Offsets, Error> {
        self.read_offsets(HIGH_WATERMARKS)
    }

    pub(super) fn write_high_watermarks(&self, offsets: &Offsets) -> Result<(), Error> {
        self.write_offsets(HIGH_WATERMARKS, offsets)
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
}
