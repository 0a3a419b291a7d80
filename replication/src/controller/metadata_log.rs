//! `__cluster_metadata-0`: the log of what the controllers agreed on, and its checkpoints.
//!
//! Only agreed batches are appended, so its end is its high watermark. The leader epoch is Raft's
//! term, and a term starts with a LeaderChange control batch, as Kafka's own quorum writes it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::{
    batch::{Batch, Builder},
    records::{
        control::{ControlRecord, LeaderChangeMessage, Voter},
        metadata::MetadataRecord,
    },
};
use storage::{config::Config, disk::Disk, log::Log};

use super::{History, checkpoint::Checkpoint};
use crate::{cluster::ClusterImage, error::Error};

pub const TOPIC: &str = "__cluster_metadata";

/// The topic id that every cluster's metadata has.
pub const TOPIC_ID: uuid::Uuid = uuid::Uuid::from_u128(1);

/// What Apache Kafka's quorum takes in one batch.
const BATCH_SIZE_MAX: usize = 8 << 20;

/// How much of the log is read at a time when it is folded.
const READ_SIZE: usize = 4 << 20;

pub(super) struct MetadataLog {
    log: Arc<Log>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    history: History,
    /// How much of the log the last `load` had to fold.
    loaded_size: u64,
}

impl MetadataLog {
    pub(super) fn new(
        log: Arc<Log>,
        disk: Arc<dyn Disk>,
        dir: &Path,
        history: History,
    ) -> Result<MetadataLog, Error> {
        Checkpoint::remove_unfinished(&*disk, dir)?;
        Ok(MetadataLog {
            log,
            disk,
            dir: dir.to_owned(),
            history,
            loaded_size: 0,
        })
    }

    pub(super) fn size_after_checkpoint(&self) -> u64 {
        self.loaded_size
    }

    pub(super) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(super) fn end_offset(&self) -> i64 {
        self.log.end_offset()
    }

    pub(super) fn latest_epoch(&self) -> i32 {
        self.log.latest_epoch().unwrap_or(0)
    }

    /// The epoch of what is right before `offset`; 0 before the first.
    pub(super) fn epoch_before(&self, offset: i64) -> i32 {
        self.log.epoch_at(offset - 1).unwrap_or(0)
    }

    /// Appends an agreed batch and says at which offset.
    pub(super) fn append(&self, batch: &Batch, epoch: i32) -> Result<i64, Error> {
        // The batch's own time, not the clock's: segments then roll at the same place everywhere.
        let now = batch.header().max_timestamp;
        Ok(self.log.append(batch, epoch, now)?.base_offset)
    }

    pub(super) fn truncate(&self, to: i64) -> Result<(), Error> {
        // Nothing of the log's times depends on when it was cut.
        self.log.truncate(to, 0)?;
        Ok(())
    }

    pub(super) fn flush(&self) -> Result<(), Error> {
        self.log.flush()?;
        Ok(())
    }

    pub(super) fn close(&self) -> Result<(), Error> {
        Ok(self.log.close()?)
    }

    /// The image of everything in the log: from the newest whole checkpoint, then the log's rest.
    pub(super) fn load(&mut self, cluster_id: &str) -> Result<ClusterImage, Error> {
        let end = self.end_offset();
        let mut image = ClusterImage::empty(cluster_id);
        for checkpoint in Checkpoint::list(self.disk(), &self.dir)?.iter().rev() {
            // `kafka-storage format` leaves one at offset 0: how to begin, and no state yet.
            let has_state = 0 < checkpoint.end_offset && checkpoint.end_offset <= end;
            if has_state && let Some(found) = checkpoint.read(self.disk(), cluster_id)? {
                image = found;
                break;
            }
        }
        if image.offset + 1 < self.log.start_offset() {
            return Err(Error::Corrupt(format!(
                "the metadata log starts at {} and no checkpoint reaches that far",
                self.log.start_offset()
            )));
        }
        self.fold_to(&mut image, end)?;
        Ok(image)
    }

    fn fold_to(&mut self, image: &mut ClusterImage, end: i64) -> Result<(), Error> {
        while image.offset + 1 < end {
            let slice = self.log.read(image.offset + 1, READ_SIZE, true, end)?;
            let bytes = slice.read()?;
            self.loaded_size += bytes.len() as u64;
            for batch in Batch::split(bytes).map_err(|err| Error::Corrupt(err.to_string()))? {
                let header = *batch.header();
                if image.offset < header.last_offset() {
                    fold(image, &batch, header.base_offset, header.leader_epoch)?;
                }
            }
        }
        Ok(())
    }

    /// Drops the oldest checkpoints, and the log before those that stay, while there is more history than
    /// wanted.
    pub(super) fn retain(&self, now: i64) -> Result<(), Error> {
        let disk = &*self.disk;
        let checkpoints = Checkpoint::list(disk, &self.dir)?;
        let mut size = self.log.size();
        for checkpoint in &checkpoints {
            size += checkpoint.size(disk)?;
        }
        let mut oldest = 0;
        for checkpoint in checkpoints.iter().take(checkpoints.len().saturating_sub(1)) {
            let age = now.saturating_sub(checkpoint.written(disk)?);
            let is_old = 0 <= self.history.ms && self.history.ms <= age;
            if size <= self.history.bytes && !is_old {
                break;
            }
            size -= checkpoint.size(disk)?;
            checkpoint.remove(disk)?;
            oldest += 1;
        }
        let is_large = self.history.bytes < self.log.size();
        if let Some(checkpoint) = checkpoints.get(oldest)
            && (0 < oldest || is_large)
        {
            self.log.delete_records(checkpoint.end_offset)?;
            // Removes the files that are behind the new start; see `log_config`.
            self.log.retain(self.end_offset(), now)?;
        }
        Ok(())
    }
}

/// Neither age nor size deletes anything from this log: only a checkpoint does, that has it.
pub(super) fn log_config(config: &Config) -> Config {
    Config {
        retention_ms: -1,
        retention_bytes: -1,
        delete: true,
        compact: false,
        ..config.clone()
    }
}

/// Folds a batch that is at `base_offset` into `image`.
pub(super) fn fold(
    image: &mut ClusterImage,
    batch: &Batch,
    base_offset: i64,
    epoch: i32,
) -> Result<(), Error> {
    let header = batch.header();
    let corrupt = |offset: i64, why: &dyn std::fmt::Display| {
        Error::Corrupt(format!("metadata record at offset {offset}: {why}"))
    };
    let records = batch
        .records(usize::MAX)
        .map_err(|err| corrupt(base_offset, &err))?;
    for record in records {
        let record = record.map_err(|err| corrupt(base_offset, &err))?;
        // The batch may not know its place yet.
        let offset = base_offset + i64::from(record.offset_delta);
        let value = record
            .value
            .ok_or_else(|| corrupt(offset, &"it is empty"))?;
        if header.is_control() {
            let key = record.key.unwrap_or_default();
            let control = ControlRecord::decode(key, value).map_err(|err| corrupt(offset, &err))?;
            image.replay_control(&control);
        } else {
            let metadata = MetadataRecord::decode(value).map_err(|err| corrupt(offset, &err))?;
            image.replay(offset, &metadata)?;
        }
    }
    image.offset = base_offset + i64::from(header.last_offset_delta);
    image.epoch = epoch;
    image.timestamp = image.timestamp.max(header.max_timestamp);
    Ok(())
}

/// The batch that starts a term.
pub(super) fn leader_change(leader: i32, voters: &[i32], now: i64) -> Batch {
    let voters: Vec<Voter> = voters
        .iter()
        .map(|id| Voter {
            voter_id: *id,
            ..Voter::default()
        })
        .collect();
    let message = LeaderChangeMessage {
        leader_id: leader,
        // Of a quorum of one it is known who voted: everyone.
        granting_voters: voters.clone(),
        voters,
        ..LeaderChangeMessage::default()
    };
    control_batch(&ControlRecord::LeaderChange(message), now)
        .build()
        .expect("one small record is a batch")
}

pub(super) fn control_batch(record: &ControlRecord, now: i64) -> Builder {
    let (key, value) = record.encode();
    let mut batch = Builder::new().control();
    batch.push(now, Some(&key), Some(&value), &[]);
    batch
}

/// Records as one batch, in the versions that belong to a metadata.version. `None` if it has nothing to say.
pub(super) fn record_batch(
    records: &[MetadataRecord],
    metadata_version: i16,
    now: i64,
) -> Result<Option<Batch>, Error> {
    let mut batch = Builder::new();
    for record in records {
        let value = record
            .encode_for(metadata_version)
            .map_err(|err| Error::TooLarge(err.to_string()))?;
        if let Some(value) = value {
            batch.push(now, None, Some(&value), &[]);
        }
    }
    if batch.is_empty() {
        return Ok(None);
    }
    let batch = batch
        .build()
        .filter(|batch| batch.bytes().len() <= BATCH_SIZE_MAX)
        .ok_or_else(|| Error::TooLarge(format!("{} metadata records", records.len())))?;
    Ok(Some(batch))
}
