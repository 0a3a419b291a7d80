//! Opening a log: finding its end, and after a crash the last batch that is whole.
//!
//! How much is looked at depends on how the log was left ([`Shutdown`]):
//!
//! - *clean*: the last index entry of the newest segment and the headers after it;
//! - *killed*, and the machine stayed up: everything that was written is still in the page cache, so
//!   only the last write can be torn. Index entries are written out every few hundred kilobytes;
//!   batches after the last of them are checked;
//! - *power lost*, or a sync has failed: what was not synced may be gone, in any order. Below the
//!   recovery point all was synced; batches above are checked, and the log is cut at the first that is
//!   not whole.
//!
//! What is derived from batches and may be missing from its file (index entries, epochs) is made
//! again on the way. Producer state is not: [`load_producers`] reads it when first asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use crate::{
    aborted::Aborted,
    checkpoint,
    config::Config,
    disk::Mode,
    epochs::Epochs,
    error::Error,
    files::{CLEANED, DELETED, Kind, Place, SWAP, file_name, read_small},
    index::{OffsetEntry, TimeEntry, decode_ascending},
    producers::{Marker, Producers},
    read::Walk,
    segment::{Active, NO_TIMESTAMP, Segment},
};

/// How the log was left by whoever wrote to it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Closed; all of it is on the disk.
    Clean,
    /// The process ended without closing it, but the machine has not been restarted since.
    Killed,
    /// The machine went down or the disk has failed, or nobody knows.
    PowerLost,
}

/// What is known about a log from the directory's checkpoints.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    pub shutdown: Shutdown,
    /// Everything below is on the disk.
    pub recovery_point: i64,
    pub log_start_offset: i64,
}

impl Start {
    /// Of a log that is not there yet, or was closed.
    pub fn clean() -> Start {
        Start {
            shutdown: Shutdown::Clean,
            recovery_point: 0,
            log_start_offset: 0,
        }
    }
}

pub(crate) struct Opened {
    pub(crate) segments: BTreeMap<i64, Arc<Segment>>,
    pub(crate) active: Active,
    pub(crate) start_offset: i64,
    pub(crate) end_offset: i64,
    pub(crate) flushed_offset: i64,
    pub(crate) epochs: Epochs,
    /// The epochs are not those of the checkpoint.
    pub(crate) epochs_changed: bool,
    pub(crate) snapshots: BTreeSet<i64>,
    /// Sealed segments whose indexes were written again, and are not on the disk yet.
    pub(crate) rewritten: Vec<Arc<Segment>>,
}

pub(crate) const EPOCHS: &str = "leader-epoch-checkpoint";
pub(crate) const SNAPSHOT: &str = "snapshot";

/// How far the headers of batches are read ahead when a whole segment is walked.
const SCAN_CHUNK: usize = 1 << 20;

pub(crate) fn open(
    place: &Arc<Place>,
    config: &Config,
    start: Start,
    now: i64,
) -> Result<Opened, Error> {
    let names = Names::tidy(place)?;
    let mut epochs = read_epochs(place)?;
    let epochs_lost = epochs.is_none();
    let checkpointed = epochs.clone();
    let mut segments = BTreeMap::new();
    for base_offset in &names.logs {
        let path = place.path(&file_name(*base_offset, Kind::Log.suffix()));
        let size = place.volume.done("stat", &path, place.disk().size(&path))?;
        let has_txns = names.has(*base_offset, Kind::TxnIndex);
        let segment = Segment::existing(place, *base_offset, size, has_txns);
        segments.insert(*base_offset, Arc::new(segment));
    }

    let mut log = Scan {
        place,
        config,
        start,
        now,
        epochs: epochs.take().unwrap_or_default(),
        epochs_lost,
        epochs_cut: false,
    };
    let mut active = None;
    let mut rewritten = Vec::new();
    let mut end_offset = start.log_start_offset;
    let bases: Vec<i64> = segments.keys().copied().collect();
    for (at, base_offset) in bases.iter().enumerate() {
        let segment = &segments[base_offset];
        let newest = at + 1 == bases.len();
        let indexed =
            names.has(*base_offset, Kind::OffsetIndex) && names.has(*base_offset, Kind::TimeIndex);
        let settled = match start.shutdown {
            Shutdown::Clean | Shutdown::Killed => !newest,
            // One that ends below the recovery point: a flush came after it was sealed, and took
            // its indexes along. At the recovery point is not enough, it may have been sealed since.
            Shutdown::PowerLost => !newest && bases[at + 1] < start.recovery_point,
        };
        if settled && indexed && !epochs_lost {
            continue;
        }
        let file_size = segment.size();
        let (scanned, end) = log.segment(segment, newest, indexed)?;
        end_offset = end;
        // A sealed segment that lost its end with the power is shorter than where the next begins.
        // Compaction leaves such gaps too, and what it has written is on the disk.
        let gap = start.shutdown == Shutdown::PowerLost
            && !config.compact
            && bases.get(at + 1).is_some_and(|next| end < *next);
        let cut = scanned.size < file_size || gap;
        if settled {
            // Its indexes were lost, or the epochs: no flush comes by here again.
            segment.sync(true)?;
        } else if !newest {
            rewritten.push(Arc::clone(segment));
        }
        active = Some(scanned);
        if cut {
            // Whatever follows the hole is not the log's any more.
            for base_offset in &bases[at + 1..] {
                if let Some(segment) = segments.remove(base_offset) {
                    tracing::warn!(
                        path = %segment.log.path(place).display(),
                        bytes = segment.size(),
                        log_end_offset = end,
                        "removed a segment that does not follow the end of the log: what is in it is lost"
                    );
                    segment.mark_deleted()?;
                    segment.remove()?;
                }
            }
            place.sync_dir()?;
            break;
        }
    }
    let mut epochs = log.epochs;

    if end_offset < start.log_start_offset {
        tracing::warn!(
            dir = %place.dir().display(),
            end_offset,
            log_start_offset = start.log_start_offset,
            "the log ends below its start offset, all of it is deleted"
        );
        for segment in std::mem::take(&mut segments).into_values() {
            tracing::warn!(
                path = %segment.log.path(place).display(),
                bytes = segment.size(),
                "removed a segment below the start offset"
            );
            segment.mark_deleted()?;
            segment.remove()?;
        }
        place.sync_dir()?;
        active = None;
        end_offset = start.log_start_offset;
        epochs.clear();
    }
    let active = match active {
        Some(active) => active,
        None => {
            let active = Active::create(place, end_offset, config, now)?;
            segments.insert(end_offset, Arc::clone(&active.segment));
            active
        }
    };
    let first = segments.keys().next().copied().unwrap_or(end_offset);
    let start_offset = start.log_start_offset.max(first);
    let flushed_offset = match start.shutdown {
        Shutdown::Clean => end_offset,
        Shutdown::Killed | Shutdown::PowerLost => start.recovery_point.min(end_offset),
    };
    if start_offset < end_offset && epochs.at(start_offset).is_none() {
        epochs = complete_epochs(&segments, start_offset, &epochs)?;
    }
    epochs.truncate_from_end(end_offset);
    if start.log_start_offset > first {
        epochs.truncate_from_start(start_offset);
    }
    // After a power cut, a snapshot above the recovery point may know more than has survived: a
    // transaction as ended whose marker is there but whose entry in the index is not.
    let snapshots_end = match start.shutdown {
        Shutdown::Clean | Shutdown::Killed => end_offset,
        Shutdown::PowerLost => flushed_offset,
    };
    let snapshots = tidy_snapshots(place, names.snapshots, &segments, snapshots_end)?;
    Ok(Opened {
        segments,
        active,
        start_offset,
        end_offset,
        flushed_offset,
        epochs_changed: checkpointed.as_ref() != Some(&epochs),
        epochs,
        snapshots,
        rewritten,
    })
}

/// `None` if the file is damaged: it was being replaced when the power went.
fn read_epochs(place: &Place) -> Result<Option<Epochs>, Error> {
    let path = place.path(EPOCHS);
    match checkpoint::read_epochs(place.disk(), &path) {
        Err(err) if err.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(path = %path.display(), "damaged, read again from the batches");
            Ok(None)
        }
        read => Ok(Some(Epochs::new(place.volume.done("read", &path, read)?))),
    }
}

/// The epochs from `start_offset` on. The checkpoint may know them only from a later offset: the
/// start offset had moved there when the process died, and had not reached its own checkpoint.
fn complete_epochs(
    segments: &BTreeMap<i64, Arc<Segment>>,
    start_offset: i64,
    known: &Epochs,
) -> Result<Epochs, Error> {
    let mut complete = Epochs::default();
    let Some((_, first_known)) = known.entries().first().copied() else {
        return Ok(complete);
    };
    let floor = segments.range(..=start_offset).next_back();
    let floor = floor.map_or(start_offset, |(base_offset, _)| *base_offset);
    for segment in segments
        .range(floor..first_known)
        .map(|(_, segment)| segment)
    {
        let size = segment.size();
        let Some(located) = segment.locate(start_offset, size)? else {
            continue;
        };
        segment.walk(located.position, size, 4096, |walk| {
            while let Some((_, header)) = walk.next()?
                && header.base_offset < first_known
            {
                complete.assign(header.leader_epoch, header.base_offset.max(start_offset));
            }
            Ok(())
        })?;
    }
    for (epoch, first) in known.entries() {
        complete.assign(*epoch, *first);
    }
    Ok(complete)
}

/// Keeps what Kafka keeps: a snapshot for each segment's start, and the newest one. None above
/// `end`.
fn tidy_snapshots(
    place: &Place,
    found: BTreeSet<i64>,
    segments: &BTreeMap<i64, Arc<Segment>>,
    end: i64,
) -> Result<BTreeSet<i64>, Error> {
    let newest = found.range(..=end).next_back().copied();
    let mut kept = BTreeSet::new();
    for offset in found {
        let wanted = segments.contains_key(&offset) || Some(offset) == newest;
        if wanted && offset <= end {
            kept.insert(offset);
        } else {
            place.remove(&file_name(offset, SNAPSHOT))?;
        }
    }
    Ok(kept)
}

/// Reads segments again and completes what is derived from them.
struct Scan<'a> {
    place: &'a Arc<Place>,
    config: &'a Config,
    start: Start,
    now: i64,
    epochs: Epochs,
    epochs_lost: bool,
    /// The epochs from the first batch scanned on were dropped, to be found again.
    epochs_cut: bool,
}

impl Scan<'_> {
    /// The segment up to its last whole batch, and the offset after that.
    fn segment(
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

/// Producer state at `end_offset`: the newest usable snapshot and the batches after it. Aborted
/// transactions that end on the way are added to their index, should a crash have lost them.
pub(crate) fn load_producers(
    place: &Place,
    segments: &BTreeMap<i64, Arc<Segment>>,
    snapshots: &mut BTreeSet<i64>,
    (start_offset, end_offset): (i64, i64),
    config: &Config,
    now: i64,
) -> Result<Producers, Error> {
    let mut producers = Producers::default();
    let mut from = start_offset;
    while let Some(offset) = snapshots.range(..=end_offset).next_back().copied() {
        let path = place.path(&file_name(offset, SNAPSHOT));
        let read = read_small(place.disk(), &path);
        let bytes = place.volume.done("read", &path, read)?.unwrap_or_default();
        match Producers::decode(&bytes) {
            Ok(decoded) => {
                producers = decoded;
                from = offset;
                break;
            }
            Err(reason) => {
                tracing::warn!(path = %path.display(), reason, "cannot use producer snapshot");
                place.remove(&file_name(offset, SNAPSHOT))?;
                snapshots.remove(&offset);
            }
        }
    }
    // Who has expired by then, and no other: of a producer that is found in the log a retry may be on its way, however
    // old its records are.
    producers.expire(config.producer_id_expiration_ms, now);
    let floor = segments
        .range(..=from)
        .next_back()
        .map_or(from, |(base_offset, _)| *base_offset);
    for segment in segments.range(floor..).map(|(_, segment)| segment) {
        if from >= end_offset {
            break;
        }
        // Some of it may lie below the recovery point, where no flush comes by again.
        let created = replay(segment, from, &mut producers, now)?;
        segment.sync_aborted()?;
        if created {
            place.sync_dir()?;
        }
    }
    Ok(producers)
}

/// True if an index of aborted transactions was created.
fn replay(
    segment: &Segment,
    from: i64,
    producers: &mut Producers,
    now: i64,
) -> Result<bool, Error> {
    let size = segment.size();
    let Some(located) = segment.locate(from, size)? else {
        return Ok(false);
    };
    let mut created = false;
    segment.walk(located.position, size, 4096, |walk| {
        while let Some((at, header)) = walk.next()? {
            if !header.has_producer() {
                continue;
            }
            let marker = if header.is_control() {
                let bytes = bytes::Bytes::copy_from_slice(walk.batch(at, header.size)?);
                let batch = protocol::batch::Batch::parse(bytes).map_err(|_| Error::Corrupt {
                    path: segment.log.path(&segment.place),
                    position: at,
                    reason: "a control batch is damaged",
                })?;
                Marker::of(&batch)?
            } else {
                None
            };
            let completed = producers.apply(&header, header.base_offset, marker.as_ref(), now);
            if let Some(completed) = completed
                && !completed.commit
            {
                created |= segment.add_aborted(&Aborted::from(completed))?;
            }
        }
        Ok(created)
    })
}

/// The files of a log, after what a crash has left half done was finished or removed.
struct Names {
    logs: BTreeSet<i64>,
    snapshots: BTreeSet<i64>,
    indexes: BTreeSet<(i64, &'static str)>,
}

impl Names {
    fn has(&self, base_offset: i64, kind: Kind) -> bool {
        self.indexes.contains(&(base_offset, kind.suffix()))
    }

    fn tidy(place: &Place) -> Result<Names, Error> {
        let names = list(place)?;
        if names.iter().any(|name| is_temporary(name)) {
            finish_swap(place, &names)?;
            return Names::collect(place, list(place)?);
        }
        Names::collect(place, names)
    }

    fn collect(place: &Place, names: Vec<String>) -> Result<Names, Error> {
        let mut collected = Names {
            logs: BTreeSet::new(),
            snapshots: BTreeSet::new(),
            indexes: BTreeSet::new(),
        };
        for name in &names {
            match parse(name) {
                Some((offset, "log")) => {
                    collected.logs.insert(offset);
                }
                Some((offset, SNAPSHOT)) => {
                    collected.snapshots.insert(offset);
                }
                Some((offset, suffix)) => {
                    let kind = Kind::ALL.iter().find(|kind| kind.suffix() == suffix);
                    if let Some(kind) = kind {
                        collected.indexes.insert((offset, kind.suffix()));
                    }
                }
                None => (),
            }
        }
        // An index without its log is of no use, and would be in the way of a new segment's.
        let orphans: Vec<_> = collected
            .indexes
            .iter()
            .filter(|(offset, _)| !collected.logs.contains(offset))
            .copied()
            .collect();
        for (offset, suffix) in orphans {
            place.remove(&file_name(offset, suffix))?;
            collected.indexes.remove(&(offset, suffix));
        }
        Ok(collected)
    }
}

fn list(place: &Place) -> Result<Vec<String>, Error> {
    let dir = place.dir();
    let entries = place.volume.done("list", &dir, place.disk().list(&dir))?;
    Ok(entries
        .into_iter()
        .filter(|entry| !entry.is_dir)
        .map(|entry| entry.name)
        .collect())
}

/// `00000000000000000042.index` is (42, "index").
fn parse(name: &str) -> Option<(i64, &str)> {
    let (stem, suffix) = name.split_once('.')?;
    let digits = stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some(())?;
    Some((stem.parse().ok()?, suffix))
}

fn is_temporary(name: &str) -> bool {
    // A metadata snapshot on its way out is its owner's business.
    let deleted = name.ends_with(DELETED) && !name.ends_with(".checkpoint.deleted");
    deleted || name.ends_with(CLEANED) || name.ends_with(SWAP)
}

/// What compaction was doing when the process died, by Kafka's rules: `.cleaned` files are
/// unfinished copies, `.swap` files are finished ones that replace the segments they cover.
fn finish_swap(place: &Place, names: &[String]) -> Result<(), Error> {
    let offset = |name: &str| parse(name).map(|(offset, _)| offset);
    let unfinished = names
        .iter()
        .filter(|name| name.ends_with(CLEANED))
        .filter_map(|name| offset(name))
        .min()
        .unwrap_or(i64::MAX);
    let mut swaps = Vec::new();
    for name in names.iter().filter(|name| is_temporary(name)) {
        match offset(name) {
            Some(offset) if name.ends_with(SWAP) && offset < unfinished => swaps.push(name),
            _ => place.remove(name)?,
        }
    }
    let mut covered: Option<(i64, i64)> = None;
    for name in swaps.iter().filter(|name| name.ends_with(".log.swap")) {
        let Some(base_offset) = offset(name) else {
            continue;
        };
        // An empty one replaces at least the segment it is called like.
        let end = end_of_file(place, name, base_offset)?.max(base_offset + 1);
        let (low, high) = covered.unwrap_or((base_offset, end));
        covered = Some((low.min(base_offset), high.max(end)));
    }
    if let Some((low, high)) = covered {
        for name in names.iter().filter(|name| !is_temporary(name)) {
            if offset(name).is_some_and(|offset| (low..high).contains(&offset)) {
                place.remove(name)?;
            }
        }
    }
    for name in swaps {
        let from = place.path(name);
        let to = place.path(name.trim_end_matches(SWAP));
        let renamed = place.disk().rename(&from, &to);
        place.volume.done("rename", &from, renamed)?;
    }
    place.sync_dir()
}

/// The offset after the last batch of a `.log.swap` file.
fn end_of_file(place: &Place, name: &str, base_offset: i64) -> Result<i64, Error> {
    use protocol::batch::{HEADER_SIZE, Header};
    let path = place.path(name);
    let file = place
        .volume
        .done("open", &path, place.volume.open(&path, Mode::Open))?;
    let size = place.volume.done("stat", &path, file.size())?;
    let mut position = 0;
    let mut end = base_offset;
    let mut bytes = [0; HEADER_SIZE];
    while position < size {
        let count = place
            .volume
            .done("read", &path, file.read_at(&mut bytes, position))?;
        let Ok(header) = Header::parse(&bytes[..count]) else {
            break;
        };
        end = header.next_offset();
        position += header.size as u64;
    }
    Ok(end)
}
