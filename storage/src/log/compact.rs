//! Compacting: what of the log is dirty, and a smaller copy in its place. See [`crate::compaction`].

use std::{
    collections::HashMap,
    io::IoSlice,
    sync::{Arc, MutexGuard, PoisonError, TryLockError},
};

use protocol::{batch::Header, record::View};

use super::Log;
use crate::{
    compaction::{
        Compacted, Dirty, Flow, Pace, Settings,
        filter::{self, Counts, Left, Standing, Time, Verdict},
        offsets::{Newest, OffsetMap, Tag},
        plan::{self, Bounds, Facts, Portion, Room},
        source::Source,
        transactions::{ControlBatch, Transactions},
    },
    config::Config,
    error::Error,
    files::{Stage, file_name},
    producers::Marker,
    recovery::SNAPSHOT,
    segment::{Active, Segment},
};

/// The disk begins to write a copy whenever it has grown by as much, so that the sync at its end waits for little.
const WRITEBACK_INTERVAL: u64 = 32 << 20;

/// Stopped, or of no use any more.
struct Stopped;

/// One compaction, from the log's side.
struct Run<'a> {
    log: &'a Log,
    config: Arc<Config>,
    dirty: &'a Dirty,
    settings: &'a Settings,
    time: Time,
    pace: Pace<'a>,
    /// [`super::Writer::truncations`] at the start.
    truncations: u64,
    keys: OffsetMap,
    newest: Option<Newest>,
    /// Up to where `keys` knows the log.
    keys_end: i64,
    done: Compacted,
}

impl Log {
    /// What there is to compact. `cleaned` is how far the last compaction came.
    pub fn dirty(
        &self,
        cleaned: Option<i64>,
        high_watermark: i64,
        now: i64,
    ) -> Result<Dirty, Error> {
        self.place.volume.check()?;
        let config = self.config();
        let stable_offset = self.last_stable_offset(high_watermark, now)?;
        let (start_offset, segments) = self.snapshot_of_segments();
        let active = segments.len().saturating_sub(1);
        let mut facts = Vec::with_capacity(segments.len());
        for (at, (segment, size)) in segments.iter().enumerate() {
            let mut fact = Facts {
                base_offset: segment.base_offset,
                size: *size,
                ..Facts::default()
            };
            let next = segments.get(at + 1).map(|(next, _)| next.base_offset);
            let is_dirty = next.is_some_and(|next| cleaned.is_none_or(|cleaned| cleaned < next));
            if at < active && is_dirty && config.min_compaction_lag_ms > 0 {
                fact.largest_timestamp = segment.largest_timestamp()?;
            }
            if at < active && is_dirty && config.max_compaction_lag_ms < i64::MAX {
                let first = segment.walk(0, *size, 0, |walk| walk.next())?;
                fact.first_timestamp = first.map(|(_, header)| header.max_timestamp);
            }
            facts.push(fact);
        }
        let bounds = Bounds {
            start_offset,
            end_offset: self.end_offset(),
            stable_offset,
            min_lag_ms: config.min_compaction_lag_ms,
            max_lag_ms: config.max_compaction_lag_ms,
            now,
        };
        Ok(plan::dirty(cleaned, &facts, bounds))
    }

    /// Compacts what [`Self::dirty`] has found, and notes how far it came. Takes its time: not for a
    /// thread that serves others.
    ///
    /// Does nothing while another compacts the log or [`Self::keep_from_compaction`] holds.
    ///
    /// An error other than [`Error::Io`] and [`Error::Offline`] says that this log cannot be
    /// compacted as it is. It is unchanged from where the error lies on.
    pub fn compact(
        &self,
        dirty: &Dirty,
        settings: &Settings,
        now: i64,
        pace: Pace<'_>,
    ) -> Result<Compacted, Error> {
        let _one = match self.compacting.try_lock() {
            Ok(one) => one,
            Err(TryLockError::Poisoned(one)) => one.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Compacted::default()),
        };
        // What is compacted must be on the disk before, and be known to be: see recovery.
        if self.flushed_offset() < dirty.end {
            self.flush()?;
        }
        let volume = &self.place.volume;
        volume.write_recovery_point(&self.name(), dirty.end)?;
        let truncations = {
            let writer = self.writer()?;
            // Truncated since somebody looked.
            if writer.active.segment.base_offset < dirty.end {
                return Ok(Compacted::default());
            }
            writer.truncations
        };
        let config = self.config();
        let records = u64::try_from(dirty.end - dirty.first_dirty).unwrap_or(0);
        let mut run = Run {
            log: self,
            dirty,
            settings,
            time: Time {
                now,
                delete_retention_ms: config.delete_retention_ms,
            },
            config,
            pace,
            truncations,
            keys: OffsetMap::new(
                settings.map_bytes,
                settings.map_load_factor,
                dirty.first_dirty,
                records,
            ),
            newest: None,
            keys_end: dirty.first_dirty,
            done: Compacted::default(),
        };
        match run.go() {
            Ok(Ok(())) => {
                if self.note_cleaned(run.keys_end, truncations)? {
                    run.done.cleaned = Some(run.keys_end);
                }
            }
            // Retention has come first.
            Ok(Err(Stopped)) | Err(Error::Gone { .. }) => (),
            Err(err) => return Err(err),
        }
        run.done.map_utilization = run.keys.utilization();
        Ok(run.done)
    }

    /// Waits for the compaction that is under way, and keeps off others. For who copies the log: a
    /// copy must not have an old record from before a compaction and lack the tombstone that was
    /// dropped by it.
    pub fn keep_from_compaction(&self) -> MutexGuard<'_, ()> {
        self.compacting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// False if the log was truncated since.
    fn note_cleaned(&self, cleaned: i64, truncations: u64) -> Result<bool, Error> {
        // Keeps truncation out.
        let _no_flush = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.writer()?.truncations != truncations {
            return Ok(false);
        }
        self.place.volume.set_cleaned(self, cleaned)?;
        Ok(true)
    }

    /// Puts a compacted copy in the place of `sources`. False if they are not what they were when
    /// it was made.
    fn swap(
        &self,
        sources: &[Arc<Segment>],
        copy: &Arc<Segment>,
        truncations: u64,
        now: i64,
    ) -> Result<bool, Error> {
        // Keeps retention and truncation out too.
        let _no_flush = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let unchanged = self.writer()?.truncations == truncations && {
            let view = self.view();
            let known = |source: &Arc<Segment>| {
                let found = view.segments.get(&source.base_offset);
                found.is_some_and(|found| Arc::ptr_eq(found, source))
            };
            sources.iter().all(known)
        };
        if !unchanged || self.place.is_abandoned() {
            return Ok(false);
        }
        copy.rename_to(Stage::Swap)?;
        // From here on recovery takes the copy, and what it was made from is in the way.
        self.place.sync_dir()?;
        let mut writer = self.writer()?;
        // One of the same name may still wait to be removed, from the compaction before.
        let mut waiting = std::mem::take(&mut writer.deleted);
        for (at, segment) in waiting.drain(..) {
            if sources
                .iter()
                .any(|source| source.base_offset == segment.base_offset)
            {
                segment.remove()?;
            } else {
                writer.deleted.push_back((at, segment));
            }
        }
        for source in sources {
            source.mark_deleted()?;
        }
        copy.rename_to(Stage::Live)?;
        {
            let mut view = self.view_mut();
            for source in sources {
                view.segments.remove(&source.base_offset);
            }
            view.segments.insert(copy.base_offset, Arc::clone(copy));
        }
        let at = self.removal_time(now);
        for source in sources {
            let base_offset = source.base_offset;
            if base_offset != copy.base_offset && writer.snapshots.remove(&base_offset) {
                self.place.remove(&file_name(base_offset, SNAPSHOT))?;
            }
            writer.unsynced.retain(|other| !Arc::ptr_eq(other, source));
            writer.deleted.push_back((at, Arc::clone(source)));
        }
        writer.dir_changed = true;
        writer.changed = true;
        Ok(true)
    }

    /// Producers by id: epoch, and the offset of their last record.
    fn last_records(&self, now: i64) -> Result<HashMap<i64, (i16, Option<i64>)>, Error> {
        let mut writer = self.writer()?;
        let producers = self.producers_of(&mut writer, now)?;
        let last = producers.iter().map(|(id, producer)| {
            let last_offset = producer.batches.back().map(|last| last.last_offset);
            (id, (producer.epoch, last_offset))
        });
        Ok(last.collect())
    }
}

impl Run<'_> {
    fn go(&mut self) -> Result<Result<(), Stopped>, Error> {
        let segments: Vec<_> = {
            let view = self.log.view();
            let below = view.segments.range(..self.dirty.end);
            below.map(|(_, segment)| Arc::clone(segment)).collect()
        };
        if let Err(stopped) = self.note_keys(&segments)? {
            return Ok(Err(stopped));
        }
        self.newest = self.keys.newest(self.keys_end);
        let segments: Vec<_> = segments
            .into_iter()
            .filter(|segment| segment.base_offset < self.keys_end)
            .collect();
        let mut portions = Vec::with_capacity(segments.len());
        for segment in &segments {
            let place = &segment.place;
            portions.push(Portion {
                base_offset: segment.base_offset,
                size: segment.size(),
                index_bytes: 8 * segment.offsets.count(place)? as u64,
                time_index_bytes: 12 * segment.times.count(place)? as u64,
            });
        }
        let room = Room {
            size: u64::from(self.config.segment_bytes),
            index_bytes: u64::from(self.config.segment_index_bytes),
        };
        let mut transactions = Transactions::default();
        let mut rest = &segments[..];
        for count in plan::groups(&portions, room, self.dirty.end) {
            let (group, after) = rest.split_at(count);
            rest = after;
            let end = rest.first().map_or(self.dirty.end, |next| next.base_offset);
            if let Err(stopped) = self.group(group, end, &mut transactions)? {
                return Ok(Err(stopped));
            }
        }
        Ok(Ok(()))
    }

    fn paced(&mut self, bytes: usize) -> Result<(), Stopped> {
        if self.log.place.is_abandoned() || (self.pace)(bytes) == Flow::Stop {
            return Err(Stopped);
        }
        Ok(())
    }

    /// The first pass: the newest offset of each key in what is dirty, or in as much of it as there
    /// is memory for.
    fn note_keys(&mut self, segments: &[Arc<Segment>]) -> Result<Result<(), Stopped>, Error> {
        let first_dirty = self.dirty.first_dirty;
        let mut transactions = Transactions::default();
        // Of one batch. The processor looks up several keys at a time when it need not hash in between.
        let mut tags: Vec<(Tag, i64)> = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            let end = segments
                .get(at + 1)
                .map_or(self.dirty.end, |next| next.base_offset);
            if end <= first_dirty {
                continue;
            }
            let from = first_dirty.max(segment.base_offset);
            transactions.announce(self.log.aborted(from, end, self.time.now)?);
            let Some(first) = segment.locate(from, segment.size())? else {
                self.keys_end = end;
                continue;
            };
            let mut source = Source::new(segment, first.position, self.settings.buffer_bytes)?;
            while let Some(batch) = source.next()? {
                let read = source.take_read();
                if read > 0 {
                    self.done.map_bytes_read += read as u64;
                    if let Err(stopped) = self.paced(read) {
                        return Ok(Err(stopped));
                    }
                }
                let header = batch.header();
                if header.is_control() {
                    transactions.control(header, control(&batch)?);
                } else if !transactions.records(header) {
                    let unreadable = |_| source.corrupt("the batch's records cannot be read");
                    let records = batch.records(self.settings.decompressed_max);
                    let records = records.map_err(unreadable)?;
                    tags.clear();
                    for record in records.views() {
                        let record = record.map_err(unreadable)?;
                        if let Some(key) = record.key
                            && record.offset >= first_dirty
                        {
                            tags.push((self.keys.tag(key), record.offset));
                        }
                    }
                    for (tag, offset) in &tags {
                        if self.keys.put(*tag, *offset).is_err() {
                            return self.no_more_keys();
                        }
                    }
                }
                self.keys_end = header.next_offset().max(self.keys_end);
            }
            self.keys_end = end;
        }
        Ok(Ok(()))
    }

    fn no_more_keys(&self) -> Result<Result<(), Stopped>, Error> {
        if self.keys_end <= self.dirty.first_dirty {
            return Err(Error::InvalidRecord {
                reason: "one batch has more keys than there is memory for in a compaction",
            });
        }
        Ok(Ok(()))
    }

    /// The second pass, for segments that become one.
    fn group(
        &mut self,
        sources: &[Arc<Segment>],
        end: i64,
        transactions: &mut Transactions,
    ) -> Result<Result<(), Stopped>, Error> {
        let Some(first) = sources.first() else {
            return Ok(Ok(()));
        };
        let now = self.time.now;
        let mut copy =
            Active::create_cleaned(&self.log.place, first.base_offset, &self.config, now)?;
        let segment = Arc::clone(&copy.segment);
        let copied = self.copy(sources, end, &mut copy, transactions);
        let swapped = match copied {
            Ok(Ok(())) => {
                segment.set_size(copy.size);
                copy.seal()?;
                segment.sync(true)?;
                let log = self.log;
                log.swap(sources, &segment, self.truncations, now)
            }
            Ok(Err(Stopped)) => Ok(false),
            Err(err) => Err(err),
        };
        match swapped {
            Ok(true) => Ok(Ok(())),
            Ok(false) => {
                segment.remove()?;
                Ok(Err(Stopped))
            }
            Err(err) => {
                // The error tells more than what fails after it.
                let _ = segment.remove();
                Err(err)
            }
        }
    }

    fn copy(
        &mut self,
        sources: &[Arc<Segment>],
        end: i64,
        copy: &mut Active,
        transactions: &mut Transactions,
    ) -> Result<Result<(), Stopped>, Error> {
        let last_records = self.log.last_records(self.time.now)?;
        let mut aborted = Vec::new();
        let mut out = Out::default();
        for (at, segment) in sources.iter().enumerate() {
            let segment_end = sources.get(at + 1).map_or(end, |next| next.base_offset);
            let from = segment.base_offset;
            transactions.announce(self.log.aborted(from, segment_end, self.time.now)?);
            // The first pass has been there.
            let checked = self.dirty.first_dirty..self.keys_end;
            let mut source = Source::new(segment, 0, self.settings.buffer_bytes)?.trusting(checked);
            while let Some(batch) = source.next()? {
                let read = source.take_read();
                if read > 0 {
                    self.done.bytes_read += read as u64;
                    if let Err(stopped) = self.paced(read) {
                        return Ok(Err(stopped));
                    }
                }
                let header = batch.header();
                let obsolete = if header.is_control() {
                    transactions.control(header, control(&batch)?)
                } else {
                    transactions.records(header)
                };
                let is_last =
                    last_records
                        .get(&header.producer_id)
                        .is_some_and(|(epoch, last_offset)| match last_offset {
                            Some(last_offset) => *last_offset == header.last_offset(),
                            None => header.is_control() && *epoch == header.producer_epoch,
                        });
                let verdict = Verdict {
                    obsolete,
                    header_stays: (header.has_producer() && is_last)
                        || header.next_offset() == self.dirty.end,
                };
                let mut counts = Counts::default();
                let standing = |record: &View<'_>| self.standing(record);
                let left = filter::filter(
                    &batch,
                    verdict,
                    self.time,
                    self.settings.decompressed_max,
                    standing,
                    &mut counts,
                );
                let left =
                    left.map_err(|_| source.corrupt("the batch's records cannot be read"))?;
                self.done.records_read += counts.read;
                self.done.records_written += counts.kept;
                self.done.records_without_key += counts.keyless;
                match left {
                    Left::Nothing => (),
                    Left::All => out.push(*header, batch.bytes()),
                    Left::Part(bytes) => {
                        let header = Header::parse(&bytes)
                            .map_err(|_| source.corrupt("a filtered batch is not one"))?;
                        out.push(header, &bytes);
                    }
                }
                if out.bytes.len() >= self.settings.buffer_bytes
                    && let Err(stopped) = self.write(&mut out, copy)?
                {
                    return Ok(Err(stopped));
                }
            }
            aborted.append(&mut transactions.take_kept());
        }
        if let Err(stopped) = self.write(&mut out, copy)? {
            return Ok(Err(stopped));
        }
        copy.segment.set_aborted(&aborted)?;
        Ok(Ok(()))
    }

    fn standing(&self, record: &View<'_>) -> Standing {
        if record.offset >= self.keys_end {
            return Standing::Undecided;
        }
        let is_outdated = match (record.key, &self.newest) {
            (None, _) => false,
            (Some(_), Some(newest)) if self.dirty.first_dirty <= record.offset => {
                !newest.contains(record.offset)
            }
            (Some(key), _) => {
                let newest = self.keys.get(self.keys.tag(key));
                newest.is_some_and(|newest| record.offset < newest)
            }
        };
        if is_outdated {
            Standing::Outdated
        } else {
            Standing::Newest
        }
    }

    fn write(&mut self, out: &mut Out, copy: &mut Active) -> Result<Result<(), Stopped>, Error> {
        let size = out.bytes.len();
        let parts = &mut [IoSlice::new(&out.bytes)];
        copy.append(parts, out.headers.drain(..), &self.config)?;
        out.bytes.clear();
        let written_before = self.done.bytes_written;
        self.done.bytes_written += size as u64;
        if written_before / WRITEBACK_INTERVAL < self.done.bytes_written / WRITEBACK_INTERVAL {
            copy.segment.start_writeback();
        }
        Ok(self.paced(size))
    }
}

/// Batches on their way into the copy.
#[derive(Default)]
struct Out {
    headers: Vec<Header>,
    /// Copied: a batch that is left of many would hold all that was read with it in memory.
    bytes: Vec<u8>,
}

impl Out {
    fn push(&mut self, header: Header, bytes: &[u8]) {
        self.headers.push(header);
        self.bytes.extend_from_slice(bytes);
    }
}

/// What a control batch holds; `None` if it is not of a transaction.
fn control(batch: &protocol::batch::Batch) -> Result<Option<ControlBatch>, Error> {
    if batch.header().record_count == 0 {
        return Ok(Some(ControlBatch::Empty));
    }
    Ok(Marker::of(batch)?.map(ControlBatch::Marker))
}
