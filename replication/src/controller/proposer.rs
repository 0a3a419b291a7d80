//! The one task that decides and proposes: what is asked meanwhile waits, and goes together.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::BytesMut;
use openraft::error::{ClientWriteError, RaftError};
use protocol::{batch::Batch, records::metadata::MetadataRecord};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use uuid::Uuid;

use super::{
    ControllerConfig, Decision, Scene, activation,
    dice::Dice,
    images::Images,
    metadata_log::{MetadataLog, fold, record_batch},
    raft::{Batches, Raft, fatal},
    raft_log::Closed,
};
use crate::{
    cluster::{ClusterImage, METADATA_VERSION},
    error::Error,
};

/// No more joins an entry that has come to this size.
const ENTRY_SIZE: usize = 4 << 20;

const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the proposer is asked.
pub(super) enum Message {
    Propose(Proposal),
    Stop(oneshot::Sender<()>),
}

/// A decision to be made, and who waits for it.
pub(super) struct Proposal(Box<dyn FnOnce(&mut Scene<'_>) -> Decided + Send>);

struct Decided {
    records: Vec<MetadataRecord>,
    answer: Answer,
}

/// Gives the answer that was decided on, or says why there is none.
type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;

impl Proposal {
    pub(super) fn new<T: Send + 'static>(
        decide: impl FnOnce(&mut Scene<'_>) -> Decision<T> + Send + 'static,
        waiting: oneshot::Sender<Result<T, Error>>,
    ) -> Proposal {
        Proposal(Box::new(move |scene| {
            let Decision { records, answer } = decide(scene);
            Decided {
                records,
                // Who asked may have gone; what was decided stands.
                answer: Box::new(move |agreed| drop(waiting.send(agreed.map(|()| answer)))),
            }
        }))
    }
}

pub(super) struct Proposer {
    config: ControllerConfig,
    raft: Raft,
    images: Arc<Images>,
    log: Arc<MetadataLog>,
    database_closed: Closed,
    queue: mpsc::Receiver<Message>,
    dice: Dice,
    checkpoints: CheckpointPolicy,
    /// Somebody waits for this to end.
    stopping: Option<oneshot::Sender<()>>,
}

impl Proposer {
    pub(super) fn new(
        config: ControllerConfig,
        raft: Raft,
        images: Arc<Images>,
        log: Arc<MetadataLog>,
        database_closed: Closed,
        queue: mpsc::Receiver<Message>,
    ) -> Proposer {
        let [seed, _] = halves(Uuid::new_v4());
        let checkpoints = CheckpointPolicy {
            size_max: config.snapshot_bytes,
            age_max: Duration::from_millis(config.snapshot_interval_ms),
            size: log.size_after_checkpoint(),
            since: None,
        };
        Proposer {
            config,
            raft,
            images,
            log,
            database_closed,
            queue,
            dice: Dice::new(seed),
            checkpoints,
            stopping: None,
        }
    }

    /// Makes a new term known in the log, and a new cluster exist.
    pub(super) async fn activate(&mut self) -> Result<(), Error> {
        // Everything agreed on so far is in the image after this.
        self.raft
            .ensure_linearizable()
            .await
            .map_err(|err| fatal(&err))?;
        let term = self.raft.metrics().borrow().current_term;
        let epoch = i32::try_from(term)
            .map_err(|_| Error::Corrupt(format!("Raft's term {term} is no leader epoch")))?;
        let mut draft = Draft::new(&self.images.current(), epoch, now());
        activation::decide(&self.config, self.log.disk(), self.log.dir(), &mut draft)?;
        self.agree(draft).await
    }

    pub(super) async fn run(mut self) {
        while self.stopping.is_none() {
            let first = tokio::select! {
                first = self.queue.recv() => first,
                () = self.checkpoints.aged() => {
                    self.checkpoint().await;
                    continue;
                }
            };
            match first {
                // Every handle is gone.
                None => break,
                Some(Message::Stop(stopped)) => self.stopping = Some(stopped),
                Some(Message::Propose(first)) => self.propose(first).await,
            }
            if self.checkpoints.is_large() {
                self.checkpoint().await;
            }
        }
        let stopping = self.stopping.take();
        self.close().await;
        if let Some(stopping) = stopping {
            // Who asked may not have waited.
            let _ = stopping.send(());
        }
    }

    async fn propose(&mut self, first: Proposal) {
        let image = self.images.current();
        let mut draft = Draft::new(&image, image.epoch, now());
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some(proposal) = next.take() {
            answers.extend(self.decide(&mut draft, proposal));
            if draft.bytes.len() < ENTRY_SIZE {
                match self.queue.try_recv() {
                    Ok(Message::Propose(proposal)) => next = Some(proposal),
                    Ok(Message::Stop(stopped)) => self.stopping = Some(stopped),
                    Err(_) => {}
                }
            }
        }
        let agreed = self.agree(draft).await;
        for answer in answers {
            answer(match &agreed {
                Ok(()) => Ok(()),
                Err(Error::NotController { leader }) => {
                    Err(Error::NotController { leader: *leader })
                }
                Err(_) => Err(Error::Stopped),
            });
        }
    }

    /// Adds what is decided to the draft. `None` if it was answered already, with an error.
    fn decide(&mut self, draft: &mut Draft, proposal: Proposal) -> Option<Answer> {
        let mut scene = Scene {
            image: &draft.image,
            rules: &*self.config.rules,
            node_id: self.config.node_id,
            dice: &mut self.dice,
        };
        let Decided { records, answer } = (proposal.0)(&mut scene);
        match draft.add_records(&records) {
            Ok(()) => Some(answer),
            Err(err) => {
                tracing::error!(error = %err, "a decision that cannot be carried out");
                answer(Err(err));
                None
            }
        }
    }

    /// Returns when what was drafted is in the image.
    async fn agree(&mut self, draft: Draft) -> Result<(), Error> {
        if draft.bytes.is_empty() {
            return Ok(());
        }
        let size = draft.bytes.len();
        let batches = Batches(draft.bytes.freeze());
        match self.raft.client_write(batches).await {
            Ok(_) => {
                self.checkpoints.grown(size);
                Ok(())
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(Error::NotController {
                    leader: forward.leader_id,
                })
            }
            Err(err) => Err(fatal(&err)),
        }
    }

    async fn checkpoint(&mut self) {
        self.checkpoints.taken();
        // Raft writes it in a task of its own, and stops if it cannot.
        if let Err(err) = self.raft.trigger().snapshot().await {
            fatal(&err);
        }
    }

    async fn close(self) {
        if let Err(err) = self.raft.shutdown().await {
            tracing::error!(error = %err, "the controller's Raft did not stop in good order");
        }
        // Its last handle goes with one of Raft's tasks, soon after; who opens the directory next
        // must find the database unlocked.
        drop(self.raft);
        if tokio::time::timeout(CLOSE_TIMEOUT, self.database_closed)
            .await
            .is_err()
        {
            tracing::error!("the controller's database is still in use");
        }
        let log = self.log;
        if let Err(err) = super::blocking(move || log.close()).await {
            tracing::error!(error = %err, "the metadata log did not close in good order");
        }
    }
}

/// Batches that are about to be proposed, and the image as they leave it.
pub(super) struct Draft {
    pub(super) image: ClusterImage,
    pub(super) epoch: i32,
    pub(super) now: i64,
    bytes: BytesMut,
}

impl Draft {
    fn new(image: &ClusterImage, epoch: i32, now: i64) -> Draft {
        Draft {
            image: image.clone(),
            epoch,
            now,
            bytes: BytesMut::new(),
        }
    }

    /// Adds records as one batch: all of them or, if they cannot be replayed, none.
    pub(super) fn add_records(&mut self, records: &[MetadataRecord]) -> Result<(), Error> {
        self.add_records_of(self.image.feature(METADATA_VERSION), records)
    }

    /// The same under a metadata.version that is only about to be the cluster's.
    pub(super) fn add_records_of(
        &mut self,
        metadata_version: i16,
        records: &[MetadataRecord],
    ) -> Result<(), Error> {
        match record_batch(records, metadata_version, self.now)? {
            Some(batch) => self.add(&batch),
            None => Ok(()),
        }
    }

    pub(super) fn add(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut image = self.image.clone();
        fold(&mut image, batch, self.image.offset + 1, self.epoch)?;
        self.image = image;
        self.bytes.extend_from_slice(batch.bytes());
        Ok(())
    }
}

/// When the next checkpoint is due: after so many bytes, or so long after the first of them.
struct CheckpointPolicy {
    size_max: u64,
    age_max: Duration,
    size: u64,
    since: Option<Instant>,
}

impl CheckpointPolicy {
    fn grown(&mut self, size: usize) {
        self.size = self.size.saturating_add(size as u64);
        self.since.get_or_insert_with(Instant::now);
    }

    fn taken(&mut self) {
        self.size = 0;
        self.since = None;
    }

    fn is_large(&self) -> bool {
        self.size_max <= self.size
    }

    async fn aged(&self) {
        match self.since {
            Some(since) if !self.age_max.is_zero() => {
                tokio::time::sleep_until(since + self.age_max).await;
            }
            _ => std::future::pending().await,
        }
    }
}

/// Milliseconds since the epoch, by this controller's clock.
pub(super) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn halves(id: Uuid) -> [u64; 2] {
    let (high, low) = id.as_u64_pair();
    [high ^ low, low]
}
