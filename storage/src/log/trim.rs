//! Removing the oldest records: by request and by retention.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use super::{Log, Writer};
use crate::{
    checkpoint, error::Error, files::file_name, recovery::SNAPSHOT, retention, segment::Segment,
};

impl Log {
    /// Moves the start offset up to `before`. Segments that lie below go with the next
    /// [`Self::retain`].
    pub fn delete_records(&self, before: i64) -> Result<i64, Error> {
        let mut writer = self.writer()?;
        let start = before.min(writer.next_offset);
        let moved = self.move_start(&mut writer, start);
        if moved.as_ref().is_some_and(|moved| moved.epochs_changed) {
            self.write_epochs(&mut writer)?;
        }
        drop(writer);
        if let Some(moved) = moved {
            moved.say(self, "records were deleted by request");
        }
        Ok(self.start_offset())
    }

    fn move_start(&self, writer: &mut Writer, start: i64) -> Option<Moved> {
        let mut view = self.view_mut();
        if start <= view.start_offset {
            return None;
        }
        let from = view.start_offset;
        view.start_offset = start;
        let epochs_changed = view.epochs.truncate_from_start(start);
        let first = view.segments.keys().next().copied().unwrap_or(start);
        drop(view);
        self.place
            .volume
            .set_start_offset(&self.name(), start, first);
        writer.epochs_changed |= epochs_changed;
        writer.changed = true;
        Some(Moved {
            from,
            to: start,
            epochs_changed,
        })
    }

    /// Deletes what retention allows, and removes the files of what was deleted before. Returns how
    /// many segments were deleted.
    ///
    /// The disk is waited for without the writer's lock, for which a whole partition waits: sealed segments do
    /// not change, and nobody but who holds `flushing` takes them away.
    pub fn retain(&self, high_watermark: i64, now: i64) -> Result<usize, Error> {
        self.place.volume.check()?;
        let config = self.config();
        // Read from their indexes once after a start, and known from then on: the flusher need not wait for that.
        for (segment, _) in self.snapshot_of_segments().1 {
            match segment.newest() {
                Ok(_) | Err(Error::Gone { .. }) => (),
                Err(err) => return Err(err),
            }
        }
        // A flush or a compaction that has just looked at a segment must find its files.
        let _no_flush = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let (due, next_offset) = {
            let mut writer = self.writer()?;
            if let Some(producers) = &mut writer.producers {
                producers.expire(config.producer_id_expiration_ms, now);
            }
            (take_due(&mut writer, now), writer.next_offset)
        };
        due.iter().try_for_each(|segment| segment.remove())?;
        let (start_offset, segments) = self.snapshot_of_segments();
        let mut candidates = Vec::with_capacity(segments.len());
        for (at, (segment, size)) in segments.iter().enumerate() {
            let next = segments.get(at + 1);
            candidates.push(retention::Candidate {
                size: *size,
                largest_timestamp: segment.largest_timestamp()?,
                end_offset: next.map_or(next_offset, |(next, _)| next.base_offset),
            });
        }
        let mut reasons =
            retention::deletable(&candidates, start_offset, high_watermark, &config, now);
        if reasons.is_empty() {
            return Ok(0);
        }
        let mut writer = self.writer()?;
        if reasons.len() == segments.len() {
            if writer.next_offset == next_offset {
                self.roll(&mut writer, next_offset, &config, now)?;
            } else {
                // There is more in it by now, or it is not the last any more.
                reasons.pop();
            }
        }
        let Some(last) = reasons.len().checked_sub(1) else {
            return Ok(0);
        };
        let deleted = segments.into_iter().take(reasons.len());
        let deleted: Vec<_> = deleted.map(|(segment, _)| segment).collect();
        let moved = self.move_start(&mut writer, candidates[last].end_offset);
        let snapshots = self.take_out(&mut writer, &deleted, now);
        drop(writer);
        for ((segment, candidate), reason) in deleted.iter().zip(&candidates).zip(&reasons) {
            tracing::info!(
                log = self.name(),
                base_offset = segment.base_offset,
                end_offset = candidate.end_offset,
                bytes = candidate.size,
                largest_timestamp = candidate.largest_timestamp,
                "deleting a segment: {reason}"
            );
        }
        if let Some(moved) = moved {
            moved.say(self, "segments were deleted");
            if moved.epochs_changed {
                self.replace_epochs(checkpoint::replace_unsynced)?;
            }
        }
        self.set_aside(&deleted, &snapshots)?;
        // Before the checkpoint forgets the start offset, because the first segment tells it: a
        // power cut could bring older ones back.
        self.place.sync_dir()?;
        let writer = self.writer()?;
        let first = writer.active.segment.base_offset;
        let first = self.view().segments.keys().next().copied().unwrap_or(first);
        let start = self.start_offset();
        self.place
            .volume
            .set_start_offset(&self.name(), start, first);
        Ok(reasons.len())
    }

    /// When a file that is deleted now may be removed.
    pub(super) fn removal_time(&self, now: i64) -> i64 {
        now.saturating_add(self.config().file_delete_delay_ms)
    }

    /// Takes segments out of the readers' sight and renames their files to `.deleted`.
    pub(super) fn drop_segments(
        &self,
        writer: &mut Writer,
        segments: &[Arc<Segment>],
        now: i64,
    ) -> Result<(), Error> {
        let snapshots = self.take_out(writer, segments, now);
        self.set_aside(segments, &snapshots)
    }

    /// Takes segments out of the readers' and the writer's sight. Returns at which of their offsets there are
    /// snapshots. [`Self::set_aside`] is to follow.
    fn take_out(&self, writer: &mut Writer, segments: &[Arc<Segment>], now: i64) -> Vec<i64> {
        let at = self.removal_time(now);
        {
            let mut view = self.view_mut();
            for segment in segments {
                view.segments.remove(&segment.base_offset);
            }
        }
        let mut snapshots = Vec::new();
        for segment in segments {
            if writer.snapshots.remove(&segment.base_offset) {
                snapshots.push(segment.base_offset);
            }
            writer.unsynced.retain(|other| !Arc::ptr_eq(other, segment));
            writer.deleted.push_back((at, Arc::clone(segment)));
        }
        self.forget_unflushed(writer);
        writer.dir_changed = true;
        writer.changed = true;
        snapshots
    }

    /// Renames the segments' files to `.deleted`, and removes the snapshots at these offsets.
    fn set_aside(&self, segments: &[Arc<Segment>], snapshots: &[i64]) -> Result<(), Error> {
        segments.iter().try_for_each(|one| one.mark_deleted())?;
        snapshots
            .iter()
            .try_for_each(|offset| self.place.remove(&file_name(*offset, SNAPSHOT)))
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
}

/// The start offset has moved.
struct Moved {
    from: i64,
    to: i64,
    /// They are then to be written.
    epochs_changed: bool,
}

impl Moved {
    fn say(&self, log: &Log, reason: &str) {
        let Moved { from, to, .. } = self;
        tracing::info!(log = log.name(), from, to, "start offset moved: {reason}");
    }
}

/// The deleted segments whose files may be removed by now.
fn take_due(writer: &mut Writer, now: i64) -> Vec<Arc<Segment>> {
    let mut due = Vec::new();
    while let Some((at, _)) = writer.deleted.front()
        && *at <= now
        && let Some((_, segment)) = writer.deleted.pop_front()
    {
        due.push(segment);
    }
    due
}
