//! Removing the oldest records: by request and by retention.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use super::{Log, Writer};
use crate::{error::Error, files::file_name, recovery::SNAPSHOT, retention, segment::Segment};

impl Log {
    /// Moves the start offset up to `before`. Segments that lie below go with the next
    /// [`Self::retain`].
    pub fn delete_records(&self, before: i64) -> Result<i64, Error> {
        let mut writer = self.writer()?;
        let start = before.min(writer.next_offset);
        self.move_start(&mut writer, start)?;
        Ok(self.start_offset())
    }

    fn move_start(&self, writer: &mut Writer, start: i64) -> Result<(), Error> {
        let mut view = self.view_mut();
        if start <= view.start_offset {
            return Ok(());
        }
        view.start_offset = start;
        let epochs_changed = view.epochs.truncate_from_start(start);
        let first = view.segments.keys().next().copied().unwrap_or(start);
        drop(view);
        if epochs_changed {
            self.write_epochs(writer)?;
        }
        self.place
            .volume
            .set_start_offset(&self.name(), start, first);
        Ok(())
    }

    /// Deletes what retention allows, and removes the files of what was deleted before. Returns how
    /// many segments were deleted.
    pub fn retain(&self, high_watermark: i64, now: i64) -> Result<usize, Error> {
        let config = self.config();
        // A flush or a compaction that has just looked at a segment must find its files.
        let _no_flush = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writer = self.writer()?;
        self.remove_deleted(&mut writer, now)?;
        if let Some(producers) = &mut writer.producers {
            producers.expire(config.producer_id_expiration_ms, now);
        }
        let (start_offset, segments) = self.snapshot_of_segments();
        let mut candidates = Vec::with_capacity(segments.len());
        for (at, (segment, size)) in segments.iter().enumerate() {
            let next = segments.get(at + 1);
            candidates.push(retention::Candidate {
                size: *size,
                largest_timestamp: segment.largest_timestamp()?,
                end_offset: next.map_or(writer.next_offset, |(next, _)| next.base_offset),
            });
        }
        let count = retention::deletable(&candidates, start_offset, high_watermark, &config, now);
        if count == 0 {
            return Ok(0);
        }
        if count == segments.len() {
            let next_offset = writer.next_offset;
            self.roll(&mut writer, next_offset, &config, now)?;
        }
        self.move_start(&mut writer, candidates[count - 1].end_offset)?;
        let removed = segments.into_iter().take(count).map(|(segment, _)| segment);
        self.drop_segments(&mut writer, removed.collect(), now)?;
        // Before the checkpoint forgets the start offset, because the first segment tells it: a
        // power cut could bring older ones back.
        self.place.sync_dir()?;
        let first = writer.active.segment.base_offset;
        let first = self.view().segments.keys().next().copied().unwrap_or(first);
        let start = self.start_offset();
        self.place
            .volume
            .set_start_offset(&self.name(), start, first);
        Ok(count)
    }

    /// When a file that is deleted now may be removed.
    pub(super) fn removal_time(&self, now: i64) -> i64 {
        now.saturating_add(self.config().file_delete_delay_ms)
    }

    /// Takes segments out of the readers' sight and renames their files to `.deleted`.
    pub(super) fn drop_segments(
        &self,
        writer: &mut Writer,
        segments: Vec<Arc<Segment>>,
        now: i64,
    ) -> Result<(), Error> {
        let at = self.removal_time(now);
        {
            let mut view = self.view_mut();
            for segment in &segments {
                view.segments.remove(&segment.base_offset);
            }
        }
        for segment in segments {
            segment.mark_deleted()?;
            if writer.snapshots.remove(&segment.base_offset) {
                self.place
                    .remove(&file_name(segment.base_offset, SNAPSHOT))?;
            }
            writer
                .unsynced
                .retain(|other| !Arc::ptr_eq(other, &segment));
            writer.deleted.push_back((at, segment));
        }
        self.forget_unflushed(writer);
        writer.dir_changed = true;
        writer.changed = true;
        Ok(())
    }

    /// What is deleted need not be flushed: no more counts than is left that a flush would write.
    fn forget_unflushed(&self, writer: &Writer) {
        let sealed = writer.unsynced.iter().map(|segment| segment.size());
        let left = sealed.sum::<u64>() + writer.active.size;
        // Under the writer's lock, like all that adds to it or takes it.
        let excess = self.unflushed_bytes().saturating_sub(left);
        self.unflushed.fetch_sub(excess, Ordering::Relaxed);
        self.place.volume.flushed(excess);
    }

    fn remove_deleted(&self, writer: &mut Writer, now: i64) -> Result<(), Error> {
        while let Some((at, _)) = writer.deleted.front()
            && *at <= now
            && let Some((_, segment)) = writer.deleted.pop_front()
        {
            segment.remove()?;
        }
        Ok(())
    }
}
