//! Removing the newest records, which another leader does not have.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use super::{Log, Tail, Writer};
use crate::{error::Error, files::file_name, recovery::SNAPSHOT, segment::Active};

impl Log {
    /// Cuts the log back so that it ends at `to`; if that is inside a batch, before the batch.
    /// Returns the end.
    pub fn truncate(&self, to: i64, now: i64) -> Result<i64, Error> {
        let _no_flush = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writer = self.writer()?;
        if to >= writer.next_offset {
            return Ok(writer.next_offset);
        }
        let (start_offset, floor) = {
            let view = self.view();
            let floor = view.segments.range(..=to).next_back();
            (view.start_offset, floor.map(|(_, s)| Arc::clone(s)))
        };
        writer.truncations += 1;
        let Some(floor) = floor else {
            self.start_over(&mut writer, to, now)?;
            return Ok(to);
        };
        let located = floor.locate(to, floor.size())?;
        let end = match located {
            Some(located) => {
                let header = floor.walk(located.position, floor.size(), 0, |walk| walk.next())?;
                header.map_or(to, |(_, header)| header.base_offset.min(to))
            }
            None => to,
        };
        if end <= start_offset {
            // Nothing is left that anybody may read; of a batch that the start offset is inside of,
            // the part above it is gone too.
            let new_start = if end < start_offset { to } else { end };
            self.start_over(&mut writer, new_start, now)?;
            return Ok(new_start);
        }
        // Before anything else is written there: what comes to lie above must be checked after a
        // power cut.
        self.place.volume.lower_recovery_point(&self.name(), end)?;
        let above: Vec<_> = {
            let view = self.view();
            let above = view.segments.range(floor.base_offset + 1..);
            // The newest goes first, so that dying in between leaves no hole.
            above.rev().map(|(_, s)| Arc::clone(s)).collect()
        };
        let size = located.map_or(floor.size(), |located| located.position);
        {
            let mut view = self.view_mut();
            view.end_offset = end;
            view.flushed_offset = view.flushed_offset.min(end);
            view.tail = Tail::default();
            view.epochs.truncate_from_end(end);
            floor.set_size(size);
        }
        self.drop_segments(&mut writer, &above, now)?;
        let done = floor.log.get(&self.place)?.set_size(size);
        let path = floor.log.path(&self.place);
        self.place.volume.done("truncate", &path, done)?;
        // Or a power cut could bring back the end that was cut off, behind what is written now.
        floor.sync(false)?;
        self.place.sync_dir()?;
        let keeps = |relative: i32| floor.base_offset + i64::from(relative) < end;
        floor
            .offsets
            .truncate(&self.place, |entry| keeps(entry.relative_offset))?;
        floor
            .times
            .truncate(&self.place, |entry| keeps(entry.relative_offset))?;
        floor.truncate_aborted(end)?;
        floor.reread_newest(size)?;
        writer.unsynced.retain(|other| !Arc::ptr_eq(other, &floor));
        writer.active = Active::resume(floor, &self.config(), now);
        writer.next_offset = end;
        self.forget_producers(&mut writer, end)?;
        self.write_epochs(&mut writer)?;
        Ok(end)
    }

    /// Deletes everything; the next batch gets `new_start`. What a follower does when the leader's
    /// log begins after its own end.
    pub fn truncate_fully(&self, new_start: i64, now: i64) -> Result<(), Error> {
        let _no_flush = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writer = self.writer()?;
        self.start_over(&mut writer, new_start, now)
    }

    fn start_over(&self, writer: &mut Writer, new_start: i64, now: i64) -> Result<(), Error> {
        self.place
            .volume
            .lower_recovery_point(&self.name(), new_start)?;
        writer.truncations += 1;
        if new_start > 0 {
            // If we die before there is a segment that tells it.
            let volume = &self.place.volume;
            volume.set_start_offset(&self.name(), new_start, 0);
            volume.write_start_offsets()?;
        }
        let segments: Vec<_> = self.view().segments.values().cloned().collect();
        for segment in &segments {
            segment.mark_deleted()?;
        }
        // Before the directory is synced: one at `new_start` knows producers that this log does not, and a power cut
        // must not bring it back.
        for offset in std::mem::take(&mut writer.snapshots) {
            self.place.remove(&file_name(offset, SNAPSHOT))?;
        }
        let config = self.config();
        let active = Active::create(&self.place, new_start, &config, now)?;
        self.place.sync_dir()?;
        {
            let mut view = self.view_mut();
            view.segments = BTreeMap::from([(new_start, Arc::clone(&active.segment))]);
            view.start_offset = new_start;
            view.end_offset = new_start;
            view.flushed_offset = new_start;
            view.tail = Tail::default();
            view.epochs.clear();
        }
        // Removed without delay: the same names may come again.
        for segment in segments {
            segment.remove()?;
        }
        writer.active = active;
        writer.next_offset = new_start;
        writer.unsynced.clear();
        writer.dir_changed = true;
        self.forget_producers(writer, new_start)?;
        self.write_epochs(writer)?;
        // Written at once: a start offset above the end would cost what is appended now.
        let volume = &self.place.volume;
        volume.set_start_offset(&self.name(), new_start, new_start);
        volume.write_positions()
    }
}
