//! The newest segment of a log, for its one writer.

use std::{io::IoSlice, sync::Arc};

use protocol::batch::Header;

use super::Segment;
use crate::{
    config::Config,
    disk::write_all,
    error::Error,
    files::{Kind, Place, file_name},
    index::{OffsetEntry, TimeEntry},
};

/// Index entries are written out at least this often: after a kill, batches after the last that is
/// in the file are checked, and a thousand logs are to be open again in half a second.
const SPILL_INTERVAL: u64 = 512 << 10;

/// The newest segment, from the writer's side.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) size: u64,
    bytes_since_index: u64,
    bytes_since_spill: u64,
    /// The largest time of the first batch: rolling by age counts from it. Read when first needed.
    first_timestamp: Option<i64>,
    created: i64,
    jitter_ms: i64,
}

impl Active {
    /// Creates the files of a new segment.
    pub(crate) fn create(
        place: &Arc<Place>,
        base_offset: i64,
        config: &Config,
        now: i64,
    ) -> Result<Active, Error> {
        let segment = Segment::new(place, base_offset);
        let file = segment.log.create(place)?;
        // A leftover of the same name is emptied; a new file is not, because ext4 takes a truncated
        // file for one being replaced and writes it out when it is closed.
        let done = file.size().and_then(|size| match size {
            0 => Ok(()),
            _ => file.set_size(0),
        });
        place
            .volume
            .done("create", &segment.log.path(place), done)?;
        // The indexes come with their first entries: most partitions are idle.
        for kind in [Kind::OffsetIndex, Kind::TimeIndex] {
            place.remove(&file_name(base_offset, kind.suffix()))?;
        }
        place.remove(&file_name(base_offset, Kind::TxnIndex.suffix()))?;
        if config.preallocate {
            let done = file.reserve(u64::from(config.segment_bytes));
            place
                .volume
                .done("allocate", &segment.log.path(place), done)?;
        }
        Ok(Active::resume(Arc::new(segment), config, now))
    }

    /// Creates the files of a compacted copy, called `.cleaned`.
    pub(crate) fn create_cleaned(
        place: &Arc<Place>,
        base_offset: i64,
        config: &Config,
        now: i64,
    ) -> Result<Active, Error> {
        let segment = Segment::cleaned(place, base_offset);
        // What an attempt before has left.
        segment.remove()?;
        segment.log.create(place)?;
        Ok(Active::resume(Arc::new(segment), config, now))
    }

    /// Goes on writing at the end of a segment.
    pub(crate) fn resume(segment: Arc<Segment>, config: &Config, now: i64) -> Active {
        Active {
            size: segment.size(),
            bytes_since_index: 0,
            bytes_since_spill: 0,
            first_timestamp: None,
            created: now,
            jitter_ms: jitter(&segment, config),
            segment,
        }
    }

    /// Whether batches of `size` bytes up to `last_offset` belong into a new segment.
    pub(crate) fn is_full(
        &mut self,
        size: usize,
        last_offset: i64,
        max_timestamp: i64,
        config: &Config,
        now: i64,
    ) -> Result<bool, Error> {
        let segment = &self.segment;
        let relative = last_offset - segment.base_offset;
        if self.size + size as u64 > u64::from(config.segment_bytes)
            || i32::try_from(relative).is_err()
        {
            return Ok(true);
        }
        let index_bytes = config.segment_index_bytes as usize;
        if segment.offsets.count(&segment.place)? >= index_bytes / 8
            // One is kept for the entry that sealing adds.
            || segment.times.count(&segment.place)? >= (index_bytes / 12).saturating_sub(1)
        {
            return Ok(true);
        }
        Ok(self.size > 0
            && self.waited(max_timestamp, now)? > config.roll_ms().saturating_sub(self.jitter_ms))
    }

    /// How long the segment has been written to, by its records' time if they have one.
    pub(crate) fn waited(&mut self, timestamp: i64, now: i64) -> Result<i64, Error> {
        if self.first_timestamp.is_none() && self.size > 0 {
            let first = self.segment.walk(0, self.size, 0, |walk| walk.next())?;
            self.first_timestamp = first.map(|(_, header)| header.max_timestamp);
        }
        Ok(match self.first_timestamp {
            Some(first) if first >= 0 => timestamp.saturating_sub(first),
            _ => now.saturating_sub(self.created),
        })
    }

    /// Writes batches at the end, in one call, and indexes them. `headers` are those of the batches
    /// in `parts`, with the offsets they get.
    ///
    /// Readers do not see them yet: [`Segment::set_size`] publishes.
    pub(crate) fn append(
        &mut self,
        parts: &mut [IoSlice<'_>],
        headers: impl Iterator<Item = Header>,
        config: &Config,
    ) -> Result<(), Error> {
        let place = &self.segment.place;
        let file = self.segment.log.get(place)?;
        let done = write_all(&**file, parts, self.size);
        if done.is_err() {
            // Cut back what was written of them (the disk is full, say), so that the file ends
            // with a whole batch whoever reads it next. If that fails too, recovery will do it.
            let _ = file.set_size(self.size);
        }
        place
            .volume
            .done("write", &self.segment.log.path(place), done)?;
        drop(file);
        for header in headers {
            self.index(&header, config)?;
        }
        if self.bytes_since_spill > SPILL_INTERVAL {
            self.spill()?;
        }
        Ok(())
    }

    /// Accounts for a batch at the end of the file.
    pub(crate) fn index(&mut self, header: &Header, config: &Config) -> Result<(), Error> {
        let segment = &self.segment;
        let place = &segment.place;
        let last_offset = header.last_offset();
        if self.size == 0 {
            self.first_timestamp = Some(header.max_timestamp);
        }
        let mut newest = segment.newest()?;
        if header.max_timestamp > newest.0 {
            newest = (header.max_timestamp, last_offset);
            segment.set_newest(newest);
        }
        if self.bytes_since_index > u64::from(config.index_interval_bytes)
            && let Ok(relative_offset) = i32::try_from(last_offset - segment.base_offset)
            && let Ok(position) = i32::try_from(self.size)
        {
            let entry = OffsetEntry {
                relative_offset,
                position,
            };
            segment.offsets.push(place, entry)?;
            self.index_newest(newest)?;
            self.bytes_since_index = 0;
        }
        self.bytes_since_index += header.size as u64;
        self.bytes_since_spill += header.size as u64;
        self.size += header.size as u64;
        Ok(())
    }

    /// Adds the largest timestamp to the time index, if it is larger than the last there.
    fn index_newest(&self, (timestamp, offset): (i64, i64)) -> Result<(), Error> {
        let segment = &self.segment;
        let last = segment.times.last(&segment.place)?;
        if last.is_none_or(|last| last.timestamp < timestamp)
            && timestamp >= 0
            && let Ok(relative_offset) = i32::try_from(offset - segment.base_offset)
        {
            let entry = TimeEntry {
                timestamp,
                relative_offset,
            };
            segment.times.push(&segment.place, entry)?;
        }
        Ok(())
    }

    /// Writes out what the indexes hold in memory, so that a crash of the process finds it there.
    pub(crate) fn spill(&mut self) -> Result<(), Error> {
        self.bytes_since_spill = 0;
        self.segment.offsets.spill(&self.segment.place)?;
        self.segment.times.spill(&self.segment.place)
    }

    /// Completes the index files: from now on nothing is added to the segment.
    pub(crate) fn seal(&mut self) -> Result<(), Error> {
        // The last entry of a time index is the segment's largest timestamp.
        self.index_newest(self.segment.newest()?)?;
        self.spill()?;
        // Empty or not, a segment that is done has both: Kafka takes a missing one for damage.
        self.segment.offsets.handle.create(&self.segment.place)?;
        self.segment.times.handle.create(&self.segment.place)?;
        Ok(())
    }
}

/// A fixed part of `segment.jitter.ms` for each segment, so that partitions created together do
/// not all roll together.
fn jitter(segment: &Segment, config: &Config) -> i64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let most = config.segment_jitter_ms.min(config.segment_ms);
    if most <= 0 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    segment.place.dir().hash(&mut hasher);
    segment.base_offset.hash(&mut hasher);
    (hasher.finish() >> 1).cast_signed() % most
}
