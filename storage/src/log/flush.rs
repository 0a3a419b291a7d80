//! Durability: what was appended survives a power cut, and a clean stop leaves nothing to recover.

use std::{
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use super::{Log, Writer};
use crate::{checkpoint, disk::Disk, error::Error, recovery::EPOCHS};

impl Log {
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
            self.replace_epochs(checkpoint::replace)?;
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
        self.place.volume.set_recovery_point(self, flushed);
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
        let is_blank = writer.active.size == 0 && writer.snapshots.is_empty();
        if writer.producers.is_some() && !is_blank {
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
        self.place.volume.set_recovery_point(self, flushed);
    }

    /// Written at once, so that it is found if the process is killed; synced by the next flush.
    pub(super) fn write_epochs(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.epochs_changed = true;
        writer.changed = true;
        self.replace_epochs(checkpoint::replace_unsynced)
    }

    pub(super) fn replace_epochs(
        &self,
        replace: fn(&dyn Disk, &Path, &[u8]) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        // Two at a time would take the temporary file from each other, and the later content could be the older.
        let _one = self
            .epochs_file
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let content = checkpoint::render_epochs(&self.epochs());
        self.place.at("write", EPOCHS, |path| {
            replace(self.place.disk(), path, &content)
        })
    }

    /// Starts writing to the disk what is not there, without waiting for it.
    pub(crate) fn start_writeback(&self) {
        let newest = self.view().segments.values().next_back().cloned();
        if let Some(segment) = newest {
            segment.start_writeback();
        }
    }
}
