//! Appending: a producer's batch as leader, a leader's batches as follower.

use std::{
    io::IoSlice,
    sync::{Arc, atomic::Ordering},
};

use protocol::batch::{Batch, HEADER_SIZE, Header};

use super::{Log, Recent, Tail, Writer, producers::SNAPSHOT_INTERVAL};
use crate::{
    aborted::Aborted,
    config::Config,
    error::Error,
    producers::{Marker, Origin, Verdict},
    segment::Active,
};

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: i64,
    pub last_offset: i64,
    pub log_start_offset: i64,
    /// The batch was here already: the offsets are those of the first time, and this is its max
    /// timestamp (ms).
    pub duplicate: Option<i64>,
}

impl Log {
    /// Appends a producer's batch as leader: it gets the next offset and this leader epoch.
    pub fn append(&self, batch: &Batch, leader_epoch: i32, now: i64) -> Result<Appended, Error> {
        self.append_from(batch, leader_epoch, Origin::Client, now)
    }

    /// Appends as leader what a producer or a coordinator has sent.
    pub fn append_from(
        &self,
        batch: &Batch,
        leader_epoch: i32,
        origin: Origin,
        now: i64,
    ) -> Result<Appended, Error> {
        let config = self.config();
        let marker = marker(batch)?;
        let mut writer = self.writer()?;
        let base_offset = writer.next_offset;
        let header = Header {
            base_offset,
            leader_epoch,
            ..*batch.header()
        };
        if header.has_producer() {
            let producers = self.producers_of(&mut writer, now)?;
            if let Verdict::Duplicate(first) = producers.check(&header, marker.as_ref(), origin)? {
                return Ok(Appended {
                    base_offset: first.first_offset(),
                    last_offset: first.last_offset,
                    log_start_offset: self.start_offset(),
                    duplicate: Some(first.timestamp),
                });
            }
        }
        self.make_room(&mut writer, header.size, &header, &config, now)?;
        let stamped = batch.stamped(base_offset, leader_epoch);
        let mut parts = [
            IoSlice::new(&stamped),
            IoSlice::new(&batch.bytes()[HEADER_SIZE..]),
        ];
        self.write(&mut writer, &mut parts, &[(header, marker)], &config, now)?;
        Ok(Appended {
            base_offset,
            last_offset: header.last_offset(),
            log_start_offset: self.start_offset(),
            duplicate: None,
        })
    }

    /// Appends batches that have their offsets and leader epochs, as a follower does.
    pub fn append_assigned(&self, batches: &[Batch], now: i64) -> Result<Appended, Error> {
        let config = self.config();
        let mut writer = self.writer()?;
        let mut expected = writer.next_offset;
        let mut marked = Vec::with_capacity(batches.len());
        for batch in batches {
            let header = *batch.header();
            if header.base_offset < expected {
                return Err(Error::UnexpectedOffset {
                    expected,
                    found: header.base_offset,
                });
            }
            expected = header.next_offset();
            marked.push((header, marker(batch)?));
        }
        let base_offset = batches
            .first()
            .map_or(expected, |batch| batch.header().base_offset);
        let mut rest = &marked[..];
        let mut bytes = batches;
        while let Some((first, _)) = rest.first() {
            self.make_room(&mut writer, first.size, first, &config, now)?;
            // As many as go into this segment, in one call.
            let mut size = first.size;
            let mut count = 1;
            while let Some((header, _)) = rest.get(count) {
                let active = &mut writer.active;
                size += header.size;
                let (last, newest) = (header.last_offset(), header.max_timestamp);
                if active.is_full(size, last, newest, &config, now)? {
                    break;
                }
                count += 1;
            }
            let mut parts: Vec<_> = bytes[..count]
                .iter()
                .map(|batch| IoSlice::new(batch.bytes()))
                .collect();
            self.write(&mut writer, &mut parts, &rest[..count], &config, now)?;
            rest = &rest[count..];
            bytes = &bytes[count..];
        }
        Ok(Appended {
            base_offset,
            last_offset: expected - 1,
            log_start_offset: self.start_offset(),
            duplicate: None,
        })
    }

    /// This broker leads from now on: records from the log end on are of this epoch, even before
    /// the first is written.
    pub fn assign_epoch(&self, leader_epoch: i32) -> Result<(), Error> {
        let mut writer = self.writer()?;
        let start = writer.next_offset;
        if self.view_mut().epochs.assign(leader_epoch, start) {
            self.write_epochs(&mut writer)?;
        }
        Ok(())
    }

    /// Rolls if the batch does not belong into the active segment.
    fn make_room(
        &self,
        writer: &mut Writer,
        size: usize,
        header: &Header,
        config: &Config,
        now: i64,
    ) -> Result<(), Error> {
        if size > config.segment_bytes as usize {
            return Err(Error::BatchTooLarge {
                size,
                max: config.segment_bytes,
            });
        }
        let (last, newest) = (header.last_offset(), header.max_timestamp);
        if writer.active.is_full(size, last, newest, config, now)? {
            self.roll(writer, header.base_offset, config, now)?;
        }
        Ok(())
    }

    /// Writes batches into the active segment, applies them and publishes them to readers.
    fn write(
        &self,
        writer: &mut Writer,
        parts: &mut [IoSlice<'_>],
        batches: &[(Header, Option<Marker>)],
        config: &Config,
        now: i64,
    ) -> Result<(), Error> {
        let Some((last, _)) = batches.last() else {
            return Ok(());
        };
        let mut position = writer.active.size;
        let headers = batches.iter().map(|(header, _)| *header);
        writer.active.append(parts, headers, config)?;
        let appended = writer.active.size - position;
        writer.next_offset = last.next_offset();
        writer.changed = true;
        writer.unflushed_since.get_or_insert(now);

        // Before readers can see the records: a transaction that has just begun holds back the
        // last stable offset.
        for (header, marker) in batches.iter().filter(|(header, _)| header.has_producer()) {
            let producers = self.producers_of(writer, now)?;
            let completed = producers.apply(header, header.base_offset, marker.as_ref(), now);
            let oldest = producers.oldest_ongoing();
            if let Some(completed) = completed
                && !completed.commit
            {
                let segment = &writer.active.segment;
                writer.dir_changed |= segment.add_aborted(&Aborted::from(completed))?;
            }
            if header.is_transactional() {
                let mut transactions = self.transactions();
                transactions.oldest = oldest;
                if let Some(completed) = completed {
                    let ended = (completed.first_offset, completed.last_offset);
                    transactions.ended.push(ended);
                }
            }
        }

        let mut new_epoch = false;
        {
            let mut view = self.view_mut();
            for (header, _) in batches {
                new_epoch |= view.epochs.assign(header.leader_epoch, header.base_offset);
                view.tail.push(Recent {
                    base_offset: header.base_offset,
                    next_offset: header.next_offset(),
                    position,
                });
                position += header.size as u64;
            }
            writer.active.segment.set_size(writer.active.size);
            view.end_offset = writer.next_offset;
        }
        if new_epoch {
            self.write_epochs(writer)?;
        }
        self.unflushed.fetch_add(appended, Ordering::Relaxed);
        self.place.volume.add_unflushed(appended);
        writer.bytes_since_snapshot += appended;
        if writer.bytes_since_snapshot > SNAPSHOT_INTERVAL.max(64 * writer.snapshot_size) {
            // Of a log without producers too: what says so is the snapshot.
            self.producers_of(writer, now)?;
            self.write_snapshot(writer)?;
        }
        Ok(())
    }

    /// Begins a new segment.
    pub(super) fn roll(
        &self,
        writer: &mut Writer,
        base_offset: i64,
        config: &Config,
        now: i64,
    ) -> Result<(), Error> {
        if writer.active.segment.base_offset == base_offset {
            // Nothing in it yet: there is nothing to roll away from.
            return Ok(());
        }
        writer.active.seal()?;
        // At each segment's start there is a snapshot: truncation and recovery begin at one.
        self.producers_of(writer, now)?;
        self.write_snapshot_at(writer, base_offset)?;
        let active = Active::create(&self.place, base_offset, config, now)?;
        let mut view = self.view_mut();
        view.segments
            .insert(base_offset, Arc::clone(&active.segment));
        view.tail = Tail::default();
        drop(view);
        let sealed = std::mem::replace(&mut writer.active, active);
        writer.unsynced.push(sealed.segment);
        writer.dir_changed = true;
        writer.changed = true;
        Ok(())
    }
}

/// The transaction marker in a batch, if it is one.
fn marker(batch: &Batch) -> Result<Option<Marker>, Error> {
    let header = batch.header();
    if header.is_control() && header.has_producer() {
        Marker::of(batch)
    } else {
        Ok(None)
    }
}
