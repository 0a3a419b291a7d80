//! What the agreed entries do: append to the metadata log, fold, publish.
//!
//! - Raft's log is the journal, and the metadata log follows from it: the same entries give the same
//!   bytes at the same offsets, since nothing here reads a clock or decides anything.
//! - So appending needs no fsync. After a crash the metadata log is cut back to the end of the newest
//!   entry that it holds whole, and Raft applies what comes after that entry again.
//! - Raft's log is cut only behind a [`Base`]: a position up to which the metadata log is on disk. It
//!   moves with each checkpoint.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StorageIOError, storage::RaftStateMachine,
};
use protocol::batch::Batch;

use super::{
    checkpoint::Checkpoint,
    images::Images,
    metadata_log::{MetadataLog, fold},
    raft::{Batches, Entry, LogId, NodeId, StoredMembership, TypeConfig},
    raft_log::{Base, RaftLog},
};
use crate::{cluster::ClusterImage, error::Error};

pub(super) struct State {
    log: Arc<MetadataLog>,
    raft_log: RaftLog,
    images: Arc<Images>,
    image: Arc<ClusterImage>,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Arc<Mutex<Option<Snapshot<TypeConfig>>>>,
}

impl State {
    /// Brings metadata log and Raft's log to the same place, and folds what is before it.
    pub(super) fn open(
        cluster_id: &str,
        mut log: MetadataLog,
        raft_log: RaftLog,
    ) -> Result<State, Error> {
        let base = raft_log.base()?;
        if log.end_offset() < base.end_offset {
            return Err(Error::Corrupt(format!(
                "the metadata log ends at {}, but was on disk up to {}: part of it is lost",
                log.end_offset(),
                base.end_offset
            )));
        }

        let Base {
            applied,
            membership,
            end_offset,
        } = raft_log.end(&base, log.end_offset())?;
        if end_offset < log.end_offset() {
            tracing::info!(
                from = log.end_offset(),
                to = end_offset,
                "cutting the metadata log back to what was agreed on"
            );
            log.truncate(end_offset)?;
        }

        let image = Arc::new(log.load(cluster_id)?);
        let checkpoints = Checkpoint::list(log.disk(), log.dir())?;
        let newest = checkpoints
            .into_iter()
            .find(|checkpoint| 0 < base.end_offset && checkpoint.end_offset == base.end_offset);
        let snapshot = newest.map(|checkpoint| {
            let meta = SnapshotMeta {
                last_log_id: base.applied,
                last_membership: base.membership,
                snapshot_id: checkpoint.name(),
            };
            Snapshot {
                meta,
                snapshot: Box::new(checkpoint),
            }
        });
        Ok(State {
            log: Arc::new(log),
            raft_log,
            images: Arc::new(Images::new(image.clone())),
            image,
            applied,
            membership,
            snapshot: Arc::new(Mutex::new(snapshot)),
        })
    }

    pub(super) fn images(&self) -> Arc<Images> {
        self.images.clone()
    }

    pub(super) fn metadata_log(&self) -> Arc<MetadataLog> {
        self.log.clone()
    }

    fn append(&mut self, term: u64, batches: &Batches) -> Result<(), Error> {
        let epoch = i32::try_from(term)
            .map_err(|_| Error::Corrupt(format!("Raft's term {term} is no leader epoch")))?;
        let batches = Batch::split(batches.0.clone())
            .map_err(|err| Error::Corrupt(format!("an agreed batch: {err}")))?;
        let image = Arc::make_mut(&mut self.image);
        for batch in &batches {
            let base_offset = self.log.append(batch, epoch)?;
            fold(image, batch, base_offset, epoch)?;
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for State {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, StoredMembership), StorageError<NodeId>> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError<NodeId>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            match &entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                }
                EntryPayload::Normal(batches) => {
                    self.append(entry.log_id.leader_id.term, batches)
                        .map_err(|err| {
                            tracing::error!(error = %err, entry = %entry.log_id, "cannot apply");
                            StorageIOError::apply(entry.log_id, AnyError::new(&err))
                        })?;
                }
            }
            self.applied = Some(entry.log_id);
            answers.push(());
        }
        self.images.publish(self.image.clone());
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            log: self.log.clone(),
            raft_log: self.raft_log.clone(),
            image: self.image.clone(),
            applied: self.applied,
            membership: self.membership.clone(),
            snapshot: self.snapshot.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Checkpoint>, StorageError<NodeId>> {
        Err(no_peers())
    }

    async fn install_snapshot(
        &mut self,
        _: &SnapshotMeta<NodeId, openraft::BasicNode>,
        _: Box<Checkpoint>,
    ) -> Result<(), StorageError<NodeId>> {
        Err(no_peers())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<TypeConfig>>, StorageError<NodeId>> {
        Ok(lock(&self.snapshot).clone())
    }
}

/// A snapshot comes from another controller, and there is none.
fn no_peers() -> StorageError<NodeId> {
    let err = std::io::Error::from(std::io::ErrorKind::Unsupported);
    StorageIOError::write_snapshot(None, AnyError::new(&err)).into()
}

/// Writes a checkpoint of the image as it was when this was made, while entries go on being applied.
pub(super) struct Builder {
    log: Arc<MetadataLog>,
    raft_log: RaftLog,
    image: Arc<ClusterImage>,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Arc<Mutex<Option<Snapshot<TypeConfig>>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError<NodeId>> {
        let (log, raft_log, image) = (self.log.clone(), self.raft_log.clone(), self.image.clone());
        let base = Base {
            applied: self.applied,
            membership: self.membership.clone(),
            end_offset: image.offset + 1,
        };
        let written = tokio::task::spawn_blocking(move || -> Result<Checkpoint, Error> {
            log.flush()?;
            let checkpoint = Checkpoint::write(log.disk(), log.dir(), &image)?;
            raft_log.set_base(&base)?;
            log.retain(super::proposer::now())?;
            Ok(checkpoint)
        })
        .await;
        let checkpoint = match written {
            Ok(Ok(checkpoint)) => checkpoint,
            Ok(Err(err)) => return Err(snapshot_failed(&err)),
            Err(err) => return Err(snapshot_failed(&err)),
        };
        let snapshot = Snapshot {
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
                snapshot_id: checkpoint.name(),
            },
            snapshot: Box::new(checkpoint),
        };
        *lock(&self.snapshot) = Some(snapshot.clone());
        Ok(snapshot)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn snapshot_failed<E: std::error::Error + 'static>(err: &E) -> StorageError<NodeId> {
    tracing::error!(error = %err, "cannot write a checkpoint of the metadata");
    StorageIOError::write_snapshot(None, AnyError::new(err)).into()
}
