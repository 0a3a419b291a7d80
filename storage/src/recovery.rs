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

mod names;
mod producers;
mod scan;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

pub(crate) use self::producers::load_producers;
use self::{names::Names, scan::Scan};
use crate::{
    checkpoint,
    config::Config,
    epochs::Epochs,
    error::Error,
    files::{Kind, Place, file_name},
    segment::{Active, Segment},
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
