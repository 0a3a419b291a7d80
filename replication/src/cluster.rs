//! What the cluster knows about itself: a fold of the records of `__cluster_metadata-0`.
//!
//! - [`ClusterImage::replay`] is the only mutator: live, at start, from a checkpoint and in tests.
//! - An image that has been published never changes. A copy is cheap: what it holds is shared, and
//!   replaying a record copies only the broker, topic or partition it names.
//! - A record that cannot be folded (it names a topic that is not there) means that the log is not
//!   what its writer decided on. Replay refuses it, and the controller stops there.

mod broker;
mod replay;
mod resource;
mod shards;
mod topic;

use std::{collections::BTreeMap, sync::Arc};

use protocol::records::{
    control::{KRaftVersionRecord, VotersRecord},
    metadata::{
        AccessControlEntryRecord, DelegationTokenRecord, ProducerIdsRecord,
        RegisterControllerRecord, UserScramCredentialRecord,
    },
};
use uuid::Uuid;

pub(crate) use self::topic::{LEADER_UNCHANGED, RECOVERING};
pub use self::{
    broker::{Broker, Endpoint},
    replay::ReplayError,
    resource::{Resource, ResourceKind},
    topic::{NO_LEADER, PartitionInfo, Topic, UNASSIGNED_DIRECTORY, is_assigned, may_be_online},
};
use self::{replay::Transaction, shards::Shards};

/// The feature that says which metadata records may be written.
pub const METADATA_VERSION: &str = "metadata.version";

#[derive(Debug, Clone)]
pub struct ClusterImage {
    pub cluster_id: Arc<str>,
    /// Offset of the newest record in here, -1 before the first.
    pub offset: i64,
    /// Leader epoch of that record.
    pub epoch: i32,
    /// When the newest batch in here was decided, by its leader's clock.
    pub timestamp: i64,
    pub brokers: BTreeMap<i32, Arc<Broker>>,
    pub controllers: BTreeMap<i32, Arc<RegisterControllerRecord>>,
    /// Finalized levels; a feature at level 0 is not in here.
    pub features: BTreeMap<String, i16>,
    /// The newest allocation: its `next_producer_id` is the first of the next block.
    pub producer_ids: Option<ProducerIdsRecord>,
    pub acls: Arc<BTreeMap<Uuid, AccessControlEntryRecord>>,
    pub client_quotas: Arc<BTreeMap<QuotaEntity, BTreeMap<String, f64>>>,
    /// By user name and mechanism.
    pub scram_credentials: Arc<BTreeMap<(String, i8), UserScramCredentialRecord>>,
    pub delegation_tokens: Arc<BTreeMap<String, DelegationTokenRecord>>,
    topics: Shards<Uuid, Arc<Topic>>,
    topic_ids: Shards<Arc<str>, Uuid>,
    configs: Shards<Resource, Arc<Configs>>,
    /// A metadata transaction that has begun and not ended: not yet part of the state.
    transaction: Option<Arc<Transaction>>,
    /// What control records said about the quorum itself, where it can change (`kraft.version` 1).
    pub(crate) quorum: Option<Arc<Quorum>>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Quorum {
    pub(crate) version: KRaftVersionRecord,
    pub(crate) voters: VotersRecord,
}

/// Config names and values.
pub type Configs = BTreeMap<String, String>;

/// Who a client quota is for: pairs of type and name, `None` the default of its type.
pub type QuotaEntity = BTreeMap<String, Option<String>>;

impl ClusterImage {
    pub fn empty(cluster_id: &str) -> ClusterImage {
        ClusterImage {
            cluster_id: Arc::from(cluster_id),
            offset: -1,
            epoch: -1,
            timestamp: -1,
            brokers: BTreeMap::new(),
            controllers: BTreeMap::new(),
            features: BTreeMap::new(),
            producer_ids: None,
            acls: Arc::default(),
            client_quotas: Arc::default(),
            scram_credentials: Arc::default(),
            delegation_tokens: Arc::default(),
            topics: Shards::default(),
            topic_ids: Shards::default(),
            configs: Shards::default(),
            transaction: None,
            quorum: None,
        }
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// Every topic, in no order a client may rely on, but always the same.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.iter().map(|(_, topic)| topic)
    }

    /// The topics of an earlier image that are not in this one, also where another has the name now. What the two
    /// share is not looked at.
    pub fn topics_gone_since<'a>(
        &'a self,
        before: &'a ClusterImage,
    ) -> impl Iterator<Item = &'a Arc<Topic>> {
        self.topics.gone_since(&before.topics)
    }

    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    pub fn partition(&self, topic: &str, index: i32) -> Option<&Arc<PartitionInfo>> {
        self.topic(topic)?.partitions.get(&index)
    }

    /// The overrides of one resource, if it has any. Never defaults.
    pub fn config(&self, kind: ResourceKind, name: &str) -> Option<&Arc<Configs>> {
        let name = name.to_owned();
        self.configs_of(&Resource { kind, name })
    }

    pub fn configs_of(&self, resource: &Resource) -> Option<&Arc<Configs>> {
        self.configs.get(resource)
    }

    /// Every resource with overrides.
    pub fn configs(&self) -> impl Iterator<Item = (&Resource, &Arc<Configs>)> {
        self.configs.iter()
    }

    /// First id of the next block of producer ids.
    pub fn next_producer_id(&self) -> i64 {
        self.producer_ids
            .as_ref()
            .map_or(0, |block| block.next_producer_id)
    }

    pub fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// A broker that may lead: registered, not fenced, not on its way out.
    pub fn is_active(&self, broker: i32) -> bool {
        self.brokers.get(&broker).is_some_and(|b| b.is_active())
    }

    /// Does this directory of a broker take no new partitions?
    pub fn has_cordoned(&self, broker: i32, directory: Uuid) -> bool {
        let broker = self.brokers.get(&broker);
        broker.is_some_and(|broker| broker.has_cordoned(directory))
    }

    /// Replicas that cannot serve: of a broker that does not, or in a directory that has failed.
    pub fn offline_replicas(&self, partition: &PartitionInfo) -> Vec<i32> {
        let is_online = |id: i32| match self.brokers.get(&id) {
            Some(broker) if broker.is_active() => partition
                .directory_of(id)
                .is_none_or(|directory| may_be_online(directory, &broker.log_dirs)),
            _ => false,
        };
        let replicas = partition.replicas.iter().copied();
        replicas.filter(|id| !is_online(*id)).collect()
    }

    /// Where the transaction began whose records are held back, because it has not ended.
    pub(crate) fn transaction_began(&self) -> Option<i64> {
        self.transaction.as_ref().map(|open| open.began)
    }
}
