//! Producer state of a log: the newest snapshot that can be used, and the batches after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::SNAPSHOT;
use crate::{
    aborted::Aborted,
    config::Config,
    error::Error,
    files::{Place, file_name, read_small},
    producers::{Marker, Producers},
    segment::Segment,
};

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
