//! The controller: what is decided about the cluster, and how that becomes fact.
//!
//! ```text
//! request -> decide (pure: image in, records out)       one subject each: topics, brokers, config...
//!         -> Raft agrees on the batch                   raft, raft_log (RocksDB), raft_network
//!         -> apply: append it to the metadata log,      raft_state, metadata_log
//!            fold it into the next image, publish
//!         -> answer
//! ```
//!
//! - Proposals go one at a time, so a decision never races another. What queued up meanwhile goes
//!   together: each is decided on what the one before it leaves, and one fsync carries them all.
//! - An answer is given when everything it saw is agreed on, also one that changes nothing.
//! - A single node is a quorum of one; there is no other path.

mod activation;
pub mod brokers;
mod checkpoint;
pub mod config;
mod dice;
pub mod directories;
pub mod features;
mod images;
pub mod leaders;
mod metadata_log;
mod opening;
mod placement;
pub mod producer_ids;
mod proposer;
mod raft;
mod raft_log;
mod raft_network;
mod raft_state;
#[cfg(test)]
mod script;
pub mod topics;

use std::{collections::BTreeMap, sync::Arc};

use protocol::records::metadata::MetadataRecord;
use storage::{directory::Directory, disk::Disk};
use tokio::sync::{mpsc, oneshot, watch};

use self::{
    brokers::Registration,
    config::{ConfigRules, Operation, Replacement},
    dice::Dice,
    directories::Place,
    features::{Supported, Update},
    images::Images,
    leaders::{Elected, Election, Targets},
    metadata_log::MetadataLog,
    producer_ids::Block,
    proposer::{Message, Proposal, Proposer},
    raft_log::Failure,
    raft_state::State,
    topics::{Created, Defaults, Deleted, MorePartitions, NewTopic, TopicRef},
};
pub use self::{
    metadata_log::{TOPIC, TOPIC_ID},
    opening::{Opening, opening},
};
use crate::{
    cluster::{ClusterImage, Endpoint, Resource},
    error::{Error, Refusal},
};

/// Requests that may wait for the controller before callers have to.
const QUEUE: usize = 1024;

/// How much of the metadata's past is kept: the newest checkpoint and the log after it always are.
#[derive(Debug, Clone, Copy)]
pub struct History {
    /// `metadata.max.retention.bytes`, of the log and its checkpoints together.
    pub bytes: u64,
    /// `metadata.max.retention.ms`, of a checkpoint; negative is for ever.
    pub ms: i64,
}

pub struct ControllerConfig {
    pub node_id: i32,
    /// The quorum: node id to `host:port`. One voter, this node.
    pub voters: BTreeMap<i32, String>,
    pub cluster_id: String,
    /// What holds the metadata log: `metadata.log.dir`, or the first of `log.dirs`.
    pub directory: Arc<Directory>,
    /// The disk it is on.
    pub disk: Arc<dyn Disk>,
    pub log: storage::config::Config,
    pub history: History,
    /// `metadata.log.max.record.bytes.between.snapshots`
    pub snapshot_bytes: u64,
    /// `metadata.log.max.snapshot.interval.ms`
    pub snapshot_interval_ms: u64,
    /// Where this controller listens, as it registers itself.
    pub endpoints: Vec<Endpoint>,
    /// What this software can live with.
    pub supported_features: Supported,
    /// What a new cluster starts with.
    pub features: BTreeMap<String, i16>,
    /// `num.partitions` and `default.replication.factor`
    pub defaults: Defaults,
    pub rules: Arc<dyn ConfigRules>,
}

/// A handle on the controller; clones are the same controller.
#[derive(Clone)]
pub struct Controller {
    shared: Arc<Shared>,
}

struct Shared {
    node_id: i32,
    defaults: Defaults,
    supported_features: Supported,
    images: Arc<Images>,
    proposals: mpsc::Sender<Message>,
    log: Arc<MetadataLog>,
    failure: Failure,
    raft: raft::Metrics,
}

/// What a decision is made on.
pub struct Scene<'a> {
    pub image: &'a ClusterImage,
    pub rules: &'a dyn ConfigRules,
    pub node_id: i32,
    pub dice: &'a mut Dice,
}

/// What was decided: records that carry it out (none, if it changes nothing), and the answer once
/// they are agreed on.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<T> {
    pub records: Vec<MetadataRecord>,
    pub answer: T,
}

/// How the quorum stands, as DescribeQuorum tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    pub leader: i32,
    pub epoch: i32,
    pub high_watermark: i64,
    /// Node id and log end offset.
    pub voters: Vec<(i32, i64)>,
}

impl<T> Decision<T> {
    pub(crate) fn refused(answer: T) -> Decision<T> {
        Decision {
            records: Vec::new(),
            answer,
        }
    }
}

impl Scene<'_> {
    /// Where the first record of this decision will be.
    pub(crate) fn next_offset(&self) -> i64 {
        self.image.offset + 1
    }
}

impl Controller {
    /// Starts the controller, and returns when it leads and everything agreed on is in its image.
    pub async fn start(config: ControllerConfig) -> Result<Controller, Error> {
        if config.voters.keys().ne([&config.node_id]) {
            return Err(Error::Setup(format!(
                "controller.quorum.voters names the nodes {:?}, and this version can only run a \
                 quorum of one: node {} alone",
                config.voters.keys().collect::<Vec<_>>(),
                config.node_id
            )));
        }
        let node_id = config.node_id;
        let opened = opening::open(&config).await?;
        let (raft_log, closed) = opened.database;
        let failure = raft_log.failure();
        let state = blocking({
            let (cluster_id, raft_log) = (config.cluster_id.clone(), raft_log.clone());
            move || State::open(&cluster_id, opened.log, raft_log)
        })
        .await?;
        let (images, log) = (state.images(), state.metadata_log());
        let raft = raft::start(node_id, raft_log, state).await?;

        let (proposals, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            node_id,
            defaults: config.defaults,
            supported_features: config.supported_features.clone(),
            images: images.clone(),
            proposals,
            log: log.clone(),
            failure,
            raft: raft.metrics(),
        });
        let mut proposer = Proposer::new(config, raft, images, log, closed, queue);
        proposer.activate().await?;
        tokio::spawn(proposer.run());
        Ok(Controller { shared })
    }

    /// The newest image. It never changes; ask again for a newer one.
    pub fn image(&self) -> Arc<ClusterImage> {
        self.shared.images.current()
    }

    pub fn watch(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.shared.images.watch()
    }

    /// Completes when nothing is decided any more, and says why: the database that Raft's log is in cannot be
    /// written or read, a checkpoint cannot be written, or Raft has a fault.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static + use<> {
        let mut failure = self.shared.failure.clone();
        let raft = self.shared.raft.clone();
        async move {
            let database = async {
                let failed = failure.wait_for(Option::is_some).await;
                match failed.ok().and_then(|why| why.clone()) {
                    Some(why) => why,
                    // Closed, and in good order.
                    None => std::future::pending().await,
                }
            };
            // Of the two that end with the database, it says more.
            tokio::select! {
                biased;
                why = database => why,
                why = raft::failed(raft) => why,
            }
        }
    }

    /// The metadata log, for those who follow it by Fetch.
    pub fn log(&self) -> Arc<storage::log::Log> {
        self.shared.log.log().clone()
    }

    pub fn quorum(&self) -> Quorum {
        let image = self.image();
        let end = image.offset + 1;
        Quorum {
            leader: self.shared.node_id,
            epoch: image.epoch,
            high_watermark: end,
            voters: vec![(self.shared.node_id, end)],
        }
    }

    pub async fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
    ) -> Result<Vec<Result<Created, Refusal>>, Error> {
        let defaults = self.shared.defaults;
        self.propose(move |scene| topics::create(scene, defaults, &topics, validate_only))
            .await
    }

    pub async fn delete_topics(
        &self,
        topics: Vec<TopicRef>,
    ) -> Result<Vec<Result<Deleted, Refusal>>, Error> {
        self.propose(move |scene| topics::delete(scene.image, &topics))
            .await
    }

    pub async fn create_partitions(
        &self,
        topics: Vec<MorePartitions>,
        validate_only: bool,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        self.propose(move |scene| topics::create_partitions(scene, &topics, validate_only))
            .await
    }

    /// Changes single configs (IncrementalAlterConfigs).
    pub async fn alter_configs(
        &self,
        changes: Vec<(Resource, Vec<Operation>)>,
        validate_only: bool,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        self.propose(move |scene| config::alter(scene.image, scene.rules, &changes, validate_only))
            .await
    }

    /// Replaces all configs of each resource (AlterConfigs).
    pub async fn replace_configs(
        &self,
        changes: Vec<(Resource, Replacement)>,
        validate_only: bool,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        self.propose(move |scene| {
            config::replace(scene.image, scene.rules, &changes, validate_only)
        })
        .await
    }

    /// Registers a broker; the answer is its epoch.
    pub async fn register_broker(
        &self,
        registration: Registration,
    ) -> Result<Result<i64, Refusal>, Error> {
        self.propose(move |scene| brokers::register(scene, &registration))
            .await
    }

    pub async fn unregister_broker(&self, id: i32) -> Result<Result<(), Refusal>, Error> {
        self.propose(move |scene| brokers::unregister(scene, id))
            .await
    }

    pub async fn unfence_broker(&self, id: i32, epoch: i64) -> Result<Result<(), Refusal>, Error> {
        self.propose(move |scene| brokers::unfence(scene, id, epoch))
            .await
    }

    pub async fn fence_broker(&self, id: i32, epoch: i64) -> Result<Result<(), Refusal>, Error> {
        self.propose(move |scene| brokers::fence(scene, id, epoch))
            .await
    }

    /// Notes where replicas of a broker are.
    pub async fn assign_directories(
        &self,
        broker_id: i32,
        broker_epoch: i64,
        places: Vec<Place>,
    ) -> Result<Result<(), Refusal>, Error> {
        self.propose(move |scene| directories::assign(scene, broker_id, broker_epoch, &places))
            .await
    }

    /// A broker has lost directories: `online` are those it has left.
    pub async fn fail_directories(
        &self,
        broker_id: i32,
        broker_epoch: i64,
        online: Vec<uuid::Uuid>,
    ) -> Result<Result<(), Refusal>, Error> {
        self.propose(move |scene| directories::fail(scene, broker_id, broker_epoch, &online))
            .await
    }

    /// Says which directories of a broker take no new partitions.
    pub async fn cordon_directories(
        &self,
        broker_id: i32,
        broker_epoch: i64,
        cordoned: Vec<uuid::Uuid>,
    ) -> Result<Result<(), Refusal>, Error> {
        self.propose(move |scene| directories::cordon(scene, broker_id, broker_epoch, &cordoned))
            .await
    }

    pub async fn begin_controlled_shutdown(
        &self,
        id: i32,
        epoch: i64,
    ) -> Result<Result<(), Refusal>, Error> {
        self.propose(move |scene| brokers::begin_controlled_shutdown(scene, id, epoch))
            .await
    }

    pub async fn allocate_producer_ids(
        &self,
        broker_id: i32,
        broker_epoch: i64,
    ) -> Result<Result<Block, Refusal>, Error> {
        self.propose(move |scene| producer_ids::allocate(scene.image, broker_id, broker_epoch))
            .await
    }

    pub async fn update_features(
        &self,
        updates: Vec<Update>,
        validate_only: bool,
    ) -> Result<Result<(), Refusal>, Error> {
        let supported = self.shared.supported_features.clone();
        self.propose(move |scene| {
            features::update(
                scene.image,
                &supported,
                scene.node_id,
                &updates,
                validate_only,
            )
        })
        .await
    }

    pub async fn elect_leaders(
        &self,
        election: Election,
        targets: Targets,
    ) -> Result<Vec<Elected>, Error> {
        self.propose(move |scene| leaders::elect(scene, election, &targets))
            .await
    }

    /// Finishes what was proposed, and closes log and database. Later calls are refused.
    pub async fn shutdown(&self) {
        let (stop, stopped) = oneshot::channel();
        if self
            .shared
            .proposals
            .send(Message::Stop(stop))
            .await
            .is_ok()
        {
            // An error means that it has stopped by itself.
            let _ = stopped.await;
        }
    }

    /// The answer to a decision, once everything it saw and wrote is agreed on.
    async fn propose<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Scene<'_>) -> Decision<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let proposal = Proposal::new(decide, answer);
        if self
            .shared
            .proposals
            .send(Message::Propose(proposal))
            .await
            .is_err()
        {
            return Err(Error::Stopped);
        }
        answered.await.unwrap_or(Err(Error::Stopped))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
