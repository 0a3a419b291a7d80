//! Offsets by time and by leader epoch.

use std::sync::Arc;

use super::Log;
use crate::{
    error::Error,
    segment::{Segment, TimestampOffset},
};

impl Log {
    /// The first record at or after the start offset with this time or a later one.
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<TimestampOffset>, Error> {
        self.place.volume.check()?;
        self.unless_gone(|| {
            let (start_offset, segments) = self.snapshot_of_segments();
            for (segment, size) in segments {
                // Not every segment that is new enough has one: it may lie below the start offset.
                if segment.largest_timestamp()? >= timestamp
                    && let Some(found) = segment.find_timestamp(timestamp, start_offset, size)?
                {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }

    /// The first record that has the largest timestamp of all.
    pub fn offset_of_max_timestamp(&self) -> Result<Option<TimestampOffset>, Error> {
        self.place.volume.check()?;
        self.unless_gone(|| {
            let (_, segments) = self.snapshot_of_segments();
            let mut newest: Option<(i64, Arc<Segment>, u64)> = None;
            for (segment, size) in segments {
                let (timestamp, _) = segment.newest()?;
                if newest.as_ref().is_none_or(|(known, ..)| *known < timestamp) {
                    newest = Some((timestamp, segment, size));
                }
            }
            match newest {
                Some((_, segment, size)) => segment.find_newest(size),
                None => Ok(None),
            }
        })
    }

    pub(super) fn snapshot_of_segments(&self) -> (i64, Vec<(Arc<Segment>, u64)>) {
        let view = self.view();
        let segments = view.segments.values();
        let segments = segments.map(|segment| (Arc::clone(segment), segment.size()));
        (view.start_offset, segments.collect())
    }

    /// The epoch of the leader that wrote the record at `offset`.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.view().epochs.at(offset)
    }

    pub fn latest_epoch(&self) -> Option<i32> {
        self.view().epochs.latest()
    }

    /// Leader epochs and the offsets they begin at.
    pub fn epochs(&self) -> Vec<(i32, i64)> {
        self.view().epochs.entries().to_vec()
    }

    /// The largest epoch not above `epoch` and the offset it ends at, -1 and -1 if there is none:
    /// the answer to OffsetsForLeaderEpoch.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> (i32, i64) {
        let view = self.view();
        let end = view.epochs.end_of(epoch, view.end_offset);
        end.unwrap_or((-1, -1))
    }
}
