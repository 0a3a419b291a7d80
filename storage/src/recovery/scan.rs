//! Reading a segment again: up to its last whole batch, completing what is derived from batches on the way.

use std::sync::Arc;

use super::{Shutdown, Start};
use crate::{
    config::Config,
    epochs::Epochs,
    error::Error,
    files::{Place, read_small},
    index::{OffsetEntry, TimeEntry, decode_ascending},
    read::Walk,
    segment::{Active, NO_TIMESTAMP, Segment},
};

/// How far the headers of batches are read ahead when a whole segment is walked.
const SCAN_CHUNK: usize = 1 << 20;

/// Reads segments again and completes what is derived from them.
pub(super) struct Scan<'a> {
    pub(super) place: &'a Arc<Place>,
    pub(super) config: &'a Config,
    pub(super) start: Start,
    pub(super) now: i64,
    pub(super) epochs: Epochs,
    pub(super) epochs_lost: bool,
    /// The epochs from the first batch scanned on were dropped, to be found again.
    pub(super) epochs_cut: bool,
}

impl Scan<'_> {
    /// The segment up to its last whole batch, and the offset after that.
    pub(super) fn segment(
        &mut self,
        segment: &Arc<Segment>,
        newest: bool,
        indexed: bool,
    ) -> Result<(Active, i64), Error> {
        let file_size = segment.size();
        let mut active = Active::resume(Arc::clone(segment), self.config, self.now);
        let trusted = if !indexed || self.epochs_lost {
            None
        } else {
            match self.start.shutdown {
                Shutdown::Clean | Shutdown::Killed => Some(i64::MAX),
                Shutdown::PowerLost => Some(self.start.recovery_point),
            }
        };
        let clean = self.start.shutdown == Shutdown::Clean && trusted.is_some();
        active.size = match trusted {
            Some(_) if clean => self.last_indexed(segment, file_size)?,
            Some(below) => self.trust_index(segment, file_size, below)?,
            None => self.drop_index(segment)?,
        };
        let from = active.size;
        let end_offset = self.batches(&mut active, file_size, !clean)?;
        if active.size < file_size {
            tracing::warn!(
                path = %segment.log.path(self.place).display(),
                position = active.size,
                bytes = file_size - active.size,
                "cut the log at the first batch that is not whole"
            );
            let done = segment.log.get(self.place)?.set_size(active.size);
            let path = segment.log.path(self.place);
            self.place.volume.done("truncate", &path, done)?;
            segment.set_size(active.size);
            if self.start.shutdown == Shutdown::PowerLost {
                // What follows may be whole. Another power cut must not bring it back behind what is
                // written there now.
                segment.sync(false)?;
            }
        }
        match self.start.shutdown {
            // The index may have reached the disk when its batches have not, and what was cut from
            // it may be back. What is dropped, loading the producers finds again.
            Shutdown::PowerLost => {
                segment.truncate_aborted(end_offset.min(self.start.recovery_point))?;
            }
            Shutdown::Killed => segment.truncate_aborted(end_offset)?,
            Shutdown::Clean => (),
        }
        if !newest {
            active.seal()?;
        }
        tracing::debug!(
            path = %segment.log.path(self.place).display(),
            from,
            size = active.size,
            end_offset,
            "scanned"
        );
        Ok((active, end_offset))
    }

    /// Indexes the batches from `active.size` on, until one is not whole.
    fn batches(&mut self, active: &mut Active, end: u64, check: bool) -> Result<i64, Error> {
        let segment = Arc::clone(&active.segment);
        let mut end_offset = segment.base_offset;
        if active.size >= end {
            return Ok(end_offset);
        }
        let chunk = if check { SCAN_CHUNK } else { 4096 };
        let mut leader_epoch = i32::MIN;
        segment.walk(active.size, end, chunk, |walk| {
            loop {
                let (at, header) = match walk.next() {
                    Ok(Some(next)) => next,
                    Ok(None) | Err(Error::Corrupt { .. }) => return Ok(end_offset),
                    Err(err) => return Err(err),
                };
                let fits = header.base_offset >= end_offset
                    && header.leader_epoch >= leader_epoch
                    && i32::try_from(header.last_offset() - segment.base_offset).is_ok();
                if !fits || (check && !is_whole(walk, at, header.size)?) {
                    return Ok(end_offset);
                }
                // What the checkpoint says of here on may be from a future that the power cut undid.
                if check && !std::mem::replace(&mut self.epochs_cut, true) {
                    self.epochs.truncate_from_end(header.base_offset);
                }
                // The scan begins a little before what the checkpoint does not know.
                if self
                    .epochs
                    .latest()
                    .is_none_or(|latest| latest < header.leader_epoch)
                {
                    self.epochs.assign(header.leader_epoch, header.base_offset);
                }
                active.index(&header, self.config)?;
                leader_epoch = header.leader_epoch;
                end_offset = header.next_offset();
            }
        })
    }

    /// Where the last index entry points, of a segment that was closed.
    fn last_indexed(&self, segment: &Segment, file_size: u64) -> Result<u64, Error> {
        segment.offsets.trim(self.place)?;
        segment.times.trim(self.place)?;
        match segment.offsets.last(self.place)? {
            None => Ok(0),
            Some(entry) if points_to_batch(segment, file_size, entry)? => {
                Ok(u64::try_from(entry.position).unwrap_or(0))
            }
            Some(_) => self.drop_index(segment),
        }
    }

    /// Keeps the index entries below an offset that agree with the log; returns where to go on.
    fn trust_index(&self, segment: &Segment, file_size: u64, below: i64) -> Result<u64, Error> {
        // An entry that does not point to its batch condemns those around it less and less likely.
        const TRIES: usize = 16;
        let base_offset = segment.base_offset;
        let bytes = read_small(self.place.disk(), &segment.offsets.handle.path(self.place));
        let path = segment.offsets.handle.path(self.place);
        let bytes = self.place.volume.done("read", &path, bytes)?;
        let mut entries: Vec<OffsetEntry> = decode_ascending(&bytes.unwrap_or_default());
        entries.retain(|entry| base_offset + i64::from(entry.relative_offset) < below);
        if self.start.shutdown == Shutdown::PowerLost
            && let Some(last) = entries.last().copied()
        {
            // The index is not synced with its batches. What was written last may be there in part,
            // and a torn entry can look like one: so much is read at once anyway.
            let reread = i64::try_from(SCAN_CHUNK).unwrap_or(0);
            let whole = i64::from(last.position) - reread;
            entries.retain(|entry| i64::from(entry.position) < whole);
        }
        for _ in 0..TRIES {
            match entries.last() {
                Some(entry) if !points_to_batch(segment, file_size, *entry)? => entries.pop(),
                _ => break,
            };
        }
        let Some(last) = entries.last().copied() else {
            return self.drop_index(segment);
        };
        if !points_to_batch(segment, file_size, last)? {
            return self.drop_index(segment);
        }
        let path = segment.times.handle.path(self.place);
        let bytes = read_small(self.place.disk(), &path);
        let bytes = self.place.volume.done("read", &path, bytes)?;
        let mut times: Vec<TimeEntry> = decode_ascending(&bytes.unwrap_or_default());
        times.retain(|entry| entry.relative_offset <= last.relative_offset);
        segment.offsets.resume(self.place, &entries)?;
        segment.times.resume(self.place, &times)?;
        let position = u64::try_from(last.position).unwrap_or(0);
        match segment.reread_newest(position) {
            Ok(()) => Ok(position),
            Err(Error::Corrupt { .. }) => self.drop_index(segment),
            Err(err) => Err(err),
        }
    }

    fn drop_index(&self, segment: &Segment) -> Result<u64, Error> {
        segment.offsets.resume(self.place, &[])?;
        segment.times.resume(self.place, &[])?;
        segment.set_newest((NO_TIMESTAMP, segment.base_offset));
        Ok(0)
    }
}

fn points_to_batch(segment: &Segment, file_size: u64, entry: OffsetEntry) -> Result<bool, Error> {
    let Ok(position) = u64::try_from(entry.position) else {
        return Ok(false);
    };
    let found = segment.walk(position, file_size, 0, |walk| walk.next());
    match found {
        Ok(Some((_, header))) => {
            let last_offset = segment.base_offset + i64::from(entry.relative_offset);
            Ok(header.last_offset() == last_offset)
        }
        Ok(None) | Err(Error::Corrupt { .. }) => Ok(false),
        Err(err) => Err(err),
    }
}

fn is_whole(walk: &mut Walk<'_>, at: u64, size: usize) -> Result<bool, Error> {
    match walk.batch(at, size) {
        Ok(bytes) => {
            // The CRC is at 17 and covers everything from 21 on.
            let stored = bytes
                .get(17..21)
                .map(|crc| [crc[0], crc[1], crc[2], crc[3]]);
            Ok(stored.map(u32::from_be_bytes) == Some(crc32c::crc32c(&bytes[21..])))
        }
        Err(Error::Corrupt { .. }) => Ok(false),
        Err(err) => Err(err),
    }
}
