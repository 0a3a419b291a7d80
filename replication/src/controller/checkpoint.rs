//! The cluster image in a file, so that a start need not fold the whole metadata log.
//!
//! ```text
//! 00000000000000004711-0000000003.checkpoint     everything before offset 4711, whose epoch is 3
//!
//!   SnapshotHeader    control batch: the timestamp of the newest batch in it
//!   records           what rebuilds the image, in batches
//!   SnapshotFooter    control batch: the file is whole
//! ```
//!
//! It is Apache Kafka's format, offsets within the file from 0. A file without its footer, or damaged,
//! is passed over: an older one, or the log from its start, gives the same image.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use protocol::{
    batch::{Batch, Builder},
    records::{
        control::{ControlRecord, SnapshotFooterRecord, SnapshotHeaderRecord},
        metadata::MetadataRecord,
    },
};
use storage::disk::{Disk, Mode};

use super::metadata_log::{control_batch, fold};
use crate::{
    cluster::{ClusterImage, METADATA_VERSION},
    error::Error,
};

const SUFFIX: &str = ".checkpoint";

/// In the log directory itself: how a cluster begins, as `kafka-storage format` leaves it, or has left it up to Kafka 4.x.
pub(super) const BOOTSTRAP: &str = "bootstrap.checkpoint";

/// What it is called until it is whole.
const UNFINISHED: &str = ".checkpoint.tmp";

/// About how large a batch in the file gets.
const BATCH_SIZE: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) end_offset: i64,
    pub(super) epoch: i32,
    path: PathBuf,
}

impl Checkpoint {
    /// Those in `dir`, the oldest first.
    pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<Checkpoint>, Error> {
        let entries = disk.list(dir).map_err(|source| Error::Io {
            op: "list",
            path: dir.to_owned(),
            source,
        })?;
        let mut found: Vec<Checkpoint> = entries
            .iter()
            .filter_map(|entry| Checkpoint::named(dir, &entry.name))
            .collect();
        found.sort_by_key(|checkpoint| (checkpoint.end_offset, checkpoint.epoch));
        Ok(found)
    }

    /// What `kafka-storage format` left in a log directory beside the metadata log's own.
    pub(super) fn bootstrap(disk: &dyn Disk, log_dir: &Path) -> Result<Option<Checkpoint>, Error> {
        let entries = disk.list(log_dir).map_err(|source| Error::Io {
            op: "list",
            path: log_dir.to_owned(),
            source,
        })?;
        let is_there = entries.iter().any(|entry| entry.name == BOOTSTRAP);
        Ok(is_there.then(|| Checkpoint {
            end_offset: 0,
            epoch: 0,
            path: log_dir.join(BOOTSTRAP),
        }))
    }

    fn named(dir: &Path, name: &str) -> Option<Checkpoint> {
        let (end_offset, epoch) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        if end_offset.len() != 20 || epoch.len() != 10 {
            return None;
        }
        Some(Checkpoint {
            end_offset: end_offset.parse().ok()?,
            epoch: epoch.parse().ok()?,
            path: dir.join(name),
        })
    }

    pub(super) fn name(&self) -> String {
        file_name(self.end_offset, self.epoch)
    }

    pub(super) fn write(
        disk: &dyn Disk,
        dir: &Path,
        image: &ClusterImage,
    ) -> Result<Checkpoint, Error> {
        let (end_offset, epoch) = (image.offset + 1, image.epoch);
        let path = dir.join(file_name(end_offset, epoch));
        storage::checkpoint::replace(disk, &path, &encode(image)?).map_err(|source| Error::Io {
            op: "write",
            path: path.clone(),
            source,
        })?;
        Ok(Checkpoint {
            end_offset,
            epoch,
            path,
        })
    }

    /// The image in it; `None`, and a line in the log, if the file is not whole.
    pub(super) fn read(
        &self,
        disk: &dyn Disk,
        cluster_id: &str,
    ) -> Result<Option<ClusterImage>, Error> {
        let bytes = self.bytes(disk)?;
        match decode(&bytes, cluster_id) {
            Some(mut image) => {
                image.offset = self.end_offset - 1;
                image.epoch = self.epoch;
                Ok(Some(image))
            }
            None => {
                tracing::warn!(path = %self.path.display(), "passing over a damaged checkpoint");
                Ok(None)
            }
        }
    }

    /// Its records, for one that says how to begin rather than what is (`kafka-storage format`).
    pub(super) fn records(&self, disk: &dyn Disk) -> Result<Vec<MetadataRecord>, Error> {
        let damaged = || Error::Setup(format!("{} is damaged", self.path.display()));
        let mut records = Vec::new();
        for batch in Batch::split(self.bytes(disk)?).map_err(|_| damaged())? {
            if batch.header().is_control() {
                continue;
            }
            for record in batch.records(usize::MAX).map_err(|_| damaged())? {
                let value = record.map_err(|_| damaged())?.value.ok_or_else(damaged)?;
                records.push(MetadataRecord::decode(value).map_err(|_| damaged())?);
            }
        }
        Ok(records)
    }

    /// Removes what a stop has left that came while one was written.
    pub(super) fn remove_unfinished(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
        let io_error = |op, path: PathBuf| move |source| Error::Io { op, path, source };
        let entries = disk.list(dir).map_err(io_error("list", dir.to_owned()))?;
        for entry in entries {
            if entry.name.ends_with(UNFINISHED) {
                let path = dir.join(entry.name);
                disk.remove_file(&path).map_err(io_error("remove", path))?;
            }
        }
        Ok(())
    }

    /// In bytes.
    pub(super) fn size(&self, disk: &dyn Disk) -> Result<u64, Error> {
        disk.size(&self.path).map_err(|source| self.stat(source))
    }

    /// When (ms).
    pub(super) fn written(&self, disk: &dyn Disk) -> Result<i64, Error> {
        disk.modified(&self.path)
            .map_err(|source| self.stat(source))
    }

    fn stat(&self, source: std::io::Error) -> Error {
        Error::Io {
            op: "stat",
            path: self.path.clone(),
            source,
        }
    }

    pub(super) fn remove(&self, disk: &dyn Disk) -> Result<(), Error> {
        disk.remove_file(&self.path).map_err(|source| Error::Io {
            op: "remove",
            path: self.path.clone(),
            source,
        })
    }

    fn bytes(&self, disk: &dyn Disk) -> Result<Bytes, Error> {
        let read = || {
            let file = disk.open(&self.path, Mode::Open)?;
            let size = usize::try_from(file.size()?).map_err(std::io::Error::other)?;
            let mut bytes = vec![0; size];
            let read = file.read_at(&mut bytes, 0)?;
            bytes.truncate(read);
            Ok(bytes.into())
        };
        read().map_err(|source| Error::Io {
            op: "read",
            path: self.path.clone(),
            source,
        })
    }
}

fn file_name(end_offset: i64, epoch: i32) -> String {
    format!("{end_offset:020}-{epoch:010}{SUFFIX}")
}

fn encode(image: &ClusterImage) -> Result<Bytes, Error> {
    // No clock: two controllers at the same offset write the same file.
    let now = image.timestamp;
    let mut out = BytesMut::new();
    let mut next_offset = 0;
    let mut add = |batch: Builder| {
        let batch = batch
            .base_offset(next_offset)
            .leader_epoch(image.epoch.max(0))
            .build()
            .ok_or_else(|| Error::Corrupt("a checkpoint's batch is too large".to_owned()))?;
        next_offset = batch.header().next_offset();
        out.extend_from_slice(batch.bytes());
        Ok::<(), Error>(())
    };

    let header = SnapshotHeaderRecord {
        last_contained_log_timestamp: image.timestamp,
        ..SnapshotHeaderRecord::default()
    };
    add(control_batch(&ControlRecord::SnapshotHeader(header), now))?;
    if let Some(quorum) = &image.quorum {
        for record in [
            ControlRecord::KRaftVersion(quorum.version.clone()),
            ControlRecord::Voters(quorum.voters.clone()),
        ] {
            add(control_batch(&record, now))?;
        }
    }

    let mut batch = Builder::new();
    for record in image.records() {
        let value = record
            .encode_for(image.feature(METADATA_VERSION))
            .map_err(|err| Error::Corrupt(err.to_string()))?;
        if let Some(value) = value {
            batch.push(now, None, Some(&value), &[]);
        }
        if BATCH_SIZE <= batch.size() {
            add(std::mem::take(&mut batch))?;
        }
    }
    if !batch.is_empty() {
        add(batch)?;
    }

    let footer = SnapshotFooterRecord::default();
    add(control_batch(&ControlRecord::SnapshotFooter(footer), now))?;
    Ok(out.freeze())
}

fn decode(bytes: &Bytes, cluster_id: &str) -> Option<ClusterImage> {
    let batches = Batch::split(bytes.clone()).ok()?;
    let [header, records @ .., footer] = &batches[..] else {
        return None;
    };
    let (ControlRecord::SnapshotHeader(header), ControlRecord::SnapshotFooter(_)) =
        (control_record(header)?, control_record(footer)?)
    else {
        return None;
    };
    let mut image = ClusterImage::empty(cluster_id);
    for batch in records {
        fold(&mut image, batch, batch.header().base_offset, 0).ok()?;
    }
    image.timestamp = header.last_contained_log_timestamp;
    Some(image)
}

fn control_record(batch: &Batch) -> Option<ControlRecord> {
    if !batch.header().is_control() {
        return None;
    }
    let record = batch.records(usize::MAX).ok()?.next()?.ok()?;
    ControlRecord::decode(record.key?, record.value?).ok()
}
