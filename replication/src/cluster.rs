//! What the cluster knows about itself: a fold of the records of `__cluster_metadata-0`.
//!
//! - [`ClusterImage::replay`] is the only mutator: live, at start, from a checkpoint and in tests.
//! - An image that has been published never changes. A copy is cheap: what it holds is shared, and
//!   replaying a record copies only the broker, topic or partition it names.
//! - A record that cannot be folded (it names a topic that is not there) means that the log is not
//!   what its writer decided on. Replay refuses it, and the controller stops there.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use protocol::records::{
    control::{ControlRecord, KRaftVersionRecord, VotersRecord},
    metadata::{
        AccessControlEntryRecord, BrokerEndpoint, BrokerFeature, BrokerRegistrationChangeRecord,
        ClientQuotaRecord, ConfigRecord, DelegationTokenRecord, EntityData, FeatureLevelRecord,
        MetadataRecord, PartitionChangeRecord, PartitionRecord, ProducerIdsRecord,
        RegisterBrokerRecord, RegisterControllerRecord, TopicRecord, UserScramCredentialRecord,
    },
};
use uuid::Uuid;

/// The leader of a partition that has none.
pub const NO_LEADER: i32 = -1;

/// A replica in this directory has not said yet where it is.
pub const UNASSIGNED_DIRECTORY: Uuid = Uuid::from_u128(1);

/// A replica whose place was never noted, because there were no directory ids when it was made. Another
/// reserved id, 2, is a directory that is lost.
const MIGRATING_DIRECTORY: Uuid = Uuid::from_u128(0);

/// In a change record: the leader stays who it is.
pub(crate) const LEADER_UNCHANGED: i32 = -2;

/// A leader's recovery state after an unclean election.
pub(crate) const RECOVERING: i8 = 1;

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

#[derive(Debug, Clone, PartialEq)]
struct Transaction {
    began: i64,
    records: Vec<(i64, MetadataRecord)>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Quorum {
    pub(crate) version: KRaftVersionRecord,
    pub(crate) voters: VotersRecord,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    /// Offset of the record that registered this incarnation.
    pub epoch: i64,
    pub incarnation_id: Uuid,
    pub endpoints: Vec<Endpoint>,
    /// Name to the range of levels it can live with.
    pub features: BTreeMap<String, (i16, i16)>,
    pub rack: Option<String>,
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
    /// Directories it can use.
    pub log_dirs: Vec<Uuid>,
    /// Directories that take no new partitions; `None` where the metadata version has no word for it.
    pub cordoned_log_dirs: Option<Vec<Uuid>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub security_protocol: i16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub id: Uuid,
    pub name: Arc<str>,
    pub partitions: BTreeMap<i32, Arc<PartitionInfo>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The first is the preferred leader.
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    pub removing_replicas: Vec<i32>,
    pub adding_replicas: Vec<i32>,
    pub leader: i32,
    /// Set by an unclean election until the new leader has said that it is consistent again.
    pub leader_recovering: bool,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    /// Where each of `replicas` keeps its copy, in their order.
    pub directories: Vec<Uuid>,
    /// Left the in-sync set with everything committed, and were not killed since (KIP-966).
    pub eligible_leader_replicas: Vec<i32>,
    pub last_known_eligible_leader_replicas: Vec<i32>,
}

/// What a config belongs to, ordered by kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    pub kind: ResourceKind,
    /// Empty is the default of all brokers, where the kind is that.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    Topic = 2,
    Broker = 4,
    ClientMetrics = 16,
    Group = 32,
}

/// Config names and values.
pub type Configs = BTreeMap<String, String>;

/// Who a client quota is for: pairs of type and name, `None` the default of its type.
pub type QuotaEntity = BTreeMap<String, Option<String>>;

/// A record the state has no place for: the log is not what its writer decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayError {
    pub offset: i64,
    pub reason: String,
}

/// Is a certain directory noted as a replica's?
pub fn is_assigned(directory: Uuid) -> bool {
    directory != UNASSIGNED_DIRECTORY && directory != MIGRATING_DIRECTORY
}

/// May a replica be online that is noted in `directory`? It is taken for granted where no place is noted,
/// and of a broker whose directories are not known.
pub fn may_be_online(directory: Uuid, online: &[Uuid]) -> bool {
    !is_assigned(directory) || online.is_empty() || online.contains(&directory)
}

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
        let pieces = before.topics.pieces.iter().zip(&self.topics.pieces);
        let changed = pieces.filter(|(before, now)| !Arc::ptr_eq(before, now));
        changed.flat_map(|(before, now)| {
            let gone = before.iter().filter(|(id, _)| !now.contains_key(id));
            gone.map(|(_, topic)| topic)
        })
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

    /// Folds the record at `offset` into this image.
    pub fn replay(&mut self, offset: i64, record: &MetadataRecord) -> Result<(), ReplayError> {
        let error = |reason: &str| ReplayError {
            offset,
            reason: reason.to_owned(),
        };
        match (&mut self.transaction, record) {
            (None, MetadataRecord::BeginTransaction(_)) => {
                self.transaction = Some(Arc::new(Transaction {
                    began: offset,
                    records: Vec::new(),
                }));
            }
            (Some(_), MetadataRecord::BeginTransaction(_)) => {
                return Err(error("a metadata transaction within another"));
            }
            (Some(_), MetadataRecord::AbortTransaction(_)) => self.transaction = None,
            (Some(open), MetadataRecord::EndTransaction(_)) => {
                let ended = Arc::clone(open);
                self.transaction = None;
                for (offset, record) in &ended.records {
                    self.apply(*offset, record)?;
                }
            }
            (None, MetadataRecord::AbortTransaction(_) | MetadataRecord::EndTransaction(_)) => {
                return Err(error("the end of a metadata transaction that never began"));
            }
            (Some(open), record) => {
                let records = &mut Arc::make_mut(open).records;
                records.push((offset, record.clone()));
            }
            (None, record) => self.apply(offset, record)?,
        }
        self.offset = self.offset.max(offset);
        Ok(())
    }

    /// Folds a control record: most are about the log, two about the quorum.
    pub(crate) fn replay_control(&mut self, record: &ControlRecord) {
        match record {
            ControlRecord::KRaftVersion(version) => {
                Arc::make_mut(self.quorum.get_or_insert_default()).version = version.clone();
            }
            ControlRecord::Voters(voters) => {
                Arc::make_mut(self.quorum.get_or_insert_default()).voters = voters.clone();
            }
            _ => {}
        }
    }

    /// What rebuilds this image when replayed from an empty one: features first, since they say how
    /// to read the rest. Records held back by an open transaction are not part of it.
    pub fn records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        let (metadata, others): (Vec<_>, Vec<_>) = self
            .features
            .iter()
            .partition(|(name, _)| *name == METADATA_VERSION);
        for (name, level) in metadata.into_iter().chain(others) {
            records.push(MetadataRecord::FeatureLevel(FeatureLevelRecord {
                name: name.clone(),
                feature_level: *level,
            }));
        }
        for broker in self.brokers.values() {
            records.push(MetadataRecord::RegisterBroker((&**broker).into()));
        }
        for controller in self.controllers.values() {
            records.push(MetadataRecord::RegisterController((**controller).clone()));
        }
        for topic in self.topics() {
            records.push(MetadataRecord::Topic(TopicRecord {
                name: topic.name.to_string(),
                topic_id: topic.id,
            }));
            for (index, partition) in &topic.partitions {
                records.push(MetadataRecord::Partition(
                    partition.record(topic.id, *index),
                ));
            }
        }
        for (resource, configs) in self.configs() {
            for (name, value) in &**configs {
                records.push(MetadataRecord::Config(ConfigRecord {
                    resource_type: resource.kind.id(),
                    resource_name: resource.name.clone(),
                    name: name.clone(),
                    value: Some(value.clone()),
                }));
            }
        }
        for (entity, limits) in self.client_quotas.iter() {
            for (key, value) in limits {
                let entity = entity.iter().map(|(entity_type, entity_name)| EntityData {
                    entity_type: entity_type.clone(),
                    entity_name: entity_name.clone(),
                });
                records.push(MetadataRecord::ClientQuota(ClientQuotaRecord {
                    entity: entity.collect(),
                    key: key.clone(),
                    value: *value,
                    remove: false,
                }));
            }
        }
        records.extend(self.producer_ids.clone().map(MetadataRecord::ProducerIds));
        records.extend(
            self.acls
                .values()
                .cloned()
                .map(MetadataRecord::AccessControlEntry),
        );
        let scram = self.scram_credentials.values().cloned();
        records.extend(scram.map(MetadataRecord::UserScramCredential));
        let tokens = self.delegation_tokens.values().cloned();
        records.extend(tokens.map(MetadataRecord::DelegationToken));
        records
    }

    fn apply(&mut self, offset: i64, record: &MetadataRecord) -> Result<(), ReplayError> {
        use MetadataRecord as R;
        let refused = match record {
            R::RegisterBroker(r) => {
                self.brokers.insert(r.broker_id, Arc::new(Broker::from(r)));
                None
            }
            R::UnregisterBroker(r) => match self.brokers.remove(&r.broker_id) {
                Some(broker) if broker.epoch == r.broker_epoch => None,
                _ => Some(format!("no broker {} of that epoch", r.broker_id)),
            },
            R::FenceBroker(r) => self.change_broker(r.id, r.epoch, |b| b.fenced = true),
            R::UnfenceBroker(r) => self.change_broker(r.id, r.epoch, |b| b.fenced = false),
            R::BrokerRegistrationChange(r) => {
                self.change_broker(r.broker_id, r.broker_epoch, |broker| broker.change(r))
            }
            R::RegisterController(r) => {
                self.controllers
                    .insert(r.controller_id, Arc::new(r.clone()));
                None
            }
            R::UnregisterController(r) => {
                self.controllers.remove(&r.controller_id);
                None
            }
            R::Topic(r) => self.add_topic(&r.name, r.topic_id),
            R::RemoveTopic(r) => self.remove_topic(r.topic_id),
            R::Partition(r) => self.change_topic(r.topic_id, |topic| {
                let partition = PartitionInfo::from(r);
                topic.partitions.insert(r.partition_id, Arc::new(partition));
                None
            }),
            R::PartitionChange(r) => self.change_topic(r.topic_id, |topic| {
                match topic.partitions.get_mut(&r.partition_id) {
                    Some(partition) => {
                        Arc::make_mut(partition).change(r);
                        None
                    }
                    None => Some(format!("no partition {}", r.partition_id)),
                }
            }),
            R::ClearElr(r) => self.clear_eligible_leaders(&r.topic_name),
            R::Config(r) => self.set_config(r),
            R::FeatureLevel(r) => {
                match r.feature_level {
                    0 => self.features.remove(&r.name),
                    level => self.features.insert(r.name.clone(), level),
                };
                None
            }
            R::ProducerIds(r) => {
                self.producer_ids = Some(r.clone());
                None
            }
            R::ClientQuota(r) => {
                let entity: QuotaEntity = r
                    .entity
                    .iter()
                    .map(|e| (e.entity_type.clone(), e.entity_name.clone()))
                    .collect();
                let quotas = Arc::make_mut(&mut self.client_quotas);
                let limits = quotas.entry(entity.clone()).or_default();
                if r.remove {
                    limits.remove(&r.key);
                } else {
                    limits.insert(r.key.clone(), r.value);
                }
                if limits.is_empty() {
                    quotas.remove(&entity);
                }
                None
            }
            R::AccessControlEntry(r) => {
                Arc::make_mut(&mut self.acls).insert(r.id, r.clone());
                None
            }
            R::RemoveAccessControlEntry(r) => {
                Arc::make_mut(&mut self.acls).remove(&r.id);
                None
            }
            R::UserScramCredential(r) => {
                Arc::make_mut(&mut self.scram_credentials)
                    .insert((r.name.clone(), r.mechanism), r.clone());
                None
            }
            R::RemoveUserScramCredential(r) => {
                Arc::make_mut(&mut self.scram_credentials).remove(&(r.name.clone(), r.mechanism));
                None
            }
            R::DelegationToken(r) => {
                Arc::make_mut(&mut self.delegation_tokens).insert(r.token_id.clone(), r.clone());
                None
            }
            R::RemoveDelegationToken(r) => {
                Arc::make_mut(&mut self.delegation_tokens).remove(&r.token_id);
                None
            }
            // ZooKeeper is gone: what is left of the migration is a record in every old log.
            R::NoOp(_) | R::ZkMigrationState(_) => None,
            R::BeginTransaction(_) | R::EndTransaction(_) | R::AbortTransaction(_) => {
                unreachable!("replay() keeps transaction markers to itself")
            }
        };
        match refused {
            None => Ok(()),
            Some(reason) => Err(ReplayError { offset, reason }),
        }
    }

    fn change_broker(
        &mut self,
        id: i32,
        epoch: i64,
        change: impl FnOnce(&mut Broker),
    ) -> Option<String> {
        match self.brokers.get_mut(&id) {
            Some(broker) if broker.epoch == epoch => {
                change(Arc::make_mut(broker));
                None
            }
            _ => Some(format!("no broker {id} of epoch {epoch}")),
        }
    }

    fn add_topic(&mut self, name: &str, id: Uuid) -> Option<String> {
        if self.topic_ids.get(name).is_some() {
            return Some(format!("a second topic {name}"));
        }
        let name: Arc<str> = Arc::from(name);
        self.topic_ids.insert(name.clone(), id);
        self.topics.insert(
            id,
            Arc::new(Topic {
                id,
                name,
                partitions: BTreeMap::new(),
            }),
        );
        None
    }

    fn remove_topic(&mut self, id: Uuid) -> Option<String> {
        let Some(topic) = self.topics.remove(&id) else {
            return Some(format!("no topic {id}"));
        };
        self.topic_ids.remove(&*topic.name);
        self.configs.remove(&Resource::topic(&topic.name));
        None
    }

    fn change_topic(
        &mut self,
        id: Uuid,
        change: impl FnOnce(&mut Topic) -> Option<String>,
    ) -> Option<String> {
        match self.topics.get_mut(&id) {
            Some(topic) => change(Arc::make_mut(topic)),
            None => Some(format!("no topic {id}")),
        }
    }

    /// An empty name means every topic.
    fn clear_eligible_leaders(&mut self, name: &str) -> Option<String> {
        let ids: Vec<Uuid> = if name.is_empty() {
            self.topics().map(|topic| topic.id).collect()
        } else {
            self.topic_ids.get(name).copied().into_iter().collect()
        };
        for id in ids {
            self.change_topic(id, |topic| {
                for partition in topic.partitions.values_mut() {
                    let partition = Arc::make_mut(partition);
                    partition.eligible_leader_replicas.clear();
                    partition.last_known_eligible_leader_replicas.clear();
                }
                None
            });
        }
        None
    }

    fn set_config(&mut self, record: &ConfigRecord) -> Option<String> {
        let Some(kind) = ResourceKind::from_id(record.resource_type) else {
            return Some(format!("unknown resource type {}", record.resource_type));
        };
        let resource = Resource {
            kind,
            name: record.resource_name.clone(),
        };
        match &record.value {
            Some(value) => {
                let configs = self.configs.or_default(resource);
                Arc::make_mut(configs).insert(record.name.clone(), value.clone());
            }
            None => {
                if let Some(configs) = self.configs.get_mut(&resource) {
                    Arc::make_mut(configs).remove(&record.name);
                    if configs.is_empty() {
                        self.configs.remove(&resource);
                    }
                }
            }
        }
        None
    }
}

impl Broker {
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// Directories that take no new partitions.
    pub fn cordoned(&self) -> &[Uuid] {
        self.cordoned_log_dirs.as_deref().unwrap_or_default()
    }

    pub fn has_cordoned(&self, directory: Uuid) -> bool {
        self.cordoned().contains(&directory)
    }

    /// Does none of its directories take new partitions?
    pub fn is_cordoned(&self) -> bool {
        let is_one = |directory: &Uuid| self.has_cordoned(*directory);
        !self.log_dirs.is_empty() && self.log_dirs.iter().all(is_one)
    }

    /// The record's flags are -1 for "now false", 1 for "now true", 0 for "as it was".
    fn change(&mut self, record: &BrokerRegistrationChangeRecord) {
        let changed = |flag: &mut bool, to: i8| {
            if to != 0 {
                *flag = 0 < to;
            }
        };
        changed(&mut self.fenced, record.fenced);
        changed(
            &mut self.in_controlled_shutdown,
            record.in_controlled_shutdown,
        );
        if !record.log_dirs.is_empty() {
            self.log_dirs = record.log_dirs.clone();
        }
        if let Some(cordoned) = &record.cordoned_log_dirs {
            self.cordoned_log_dirs = Some(cordoned.clone());
        }
    }
}

impl From<&RegisterBrokerRecord> for Broker {
    fn from(record: &RegisterBrokerRecord) -> Broker {
        Broker {
            id: record.broker_id,
            epoch: record.broker_epoch,
            incarnation_id: record.incarnation_id,
            endpoints: record
                .end_points
                .iter()
                .map(|e| Endpoint {
                    name: e.name.clone(),
                    host: e.host.clone(),
                    port: e.port,
                    security_protocol: e.security_protocol,
                })
                .collect(),
            features: record
                .features
                .iter()
                .map(|f| {
                    let range = (f.min_supported_version, f.max_supported_version);
                    (f.name.clone(), range)
                })
                .collect(),
            rack: record.rack.clone(),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            log_dirs: record.log_dirs.clone(),
            cordoned_log_dirs: record.cordoned_log_dirs.clone(),
        }
    }
}

impl From<&Broker> for RegisterBrokerRecord {
    fn from(broker: &Broker) -> RegisterBrokerRecord {
        RegisterBrokerRecord {
            broker_id: broker.id,
            incarnation_id: broker.incarnation_id,
            broker_epoch: broker.epoch,
            end_points: broker
                .endpoints
                .iter()
                .map(|e| BrokerEndpoint {
                    name: e.name.clone(),
                    host: e.host.clone(),
                    port: e.port,
                    security_protocol: e.security_protocol,
                })
                .collect(),
            features: broker
                .features
                .iter()
                .map(|(name, (min, max))| BrokerFeature {
                    name: name.clone(),
                    min_supported_version: *min,
                    max_supported_version: *max,
                })
                .collect(),
            rack: broker.rack.clone(),
            fenced: broker.fenced,
            in_controlled_shutdown: broker.in_controlled_shutdown,
            log_dirs: broker.log_dirs.clone(),
            cordoned_log_dirs: broker.cordoned_log_dirs.clone(),
            ..RegisterBrokerRecord::default()
        }
    }
}

impl PartitionInfo {
    pub fn has_leader(&self) -> bool {
        self.leader != NO_LEADER
    }

    pub fn preferred_leader(&self) -> i32 {
        self.replicas.first().copied().unwrap_or(NO_LEADER)
    }

    /// Where `broker` keeps its replica, as far as it has said.
    pub fn directory_of(&self, broker: i32) -> Option<Uuid> {
        let at = self.replicas.iter().position(|id| *id == broker)?;
        self.directories.get(at).copied()
    }

    pub fn is_reassigning(&self) -> bool {
        !self.removing_replicas.is_empty() || !self.adding_replicas.is_empty()
    }

    fn change(&mut self, record: &PartitionChangeRecord) {
        fn set<T: Clone>(field: &mut T, to: &Option<T>) {
            if let Some(to) = to {
                *field = to.clone();
            }
        }
        set(&mut self.isr, &record.isr);
        set(&mut self.replicas, &record.replicas);
        set(&mut self.directories, &record.directories);
        set(&mut self.removing_replicas, &record.removing_replicas);
        set(&mut self.adding_replicas, &record.adding_replicas);
        set(
            &mut self.eligible_leader_replicas,
            &record.eligible_leader_replicas,
        );
        set(
            &mut self.last_known_eligible_leader_replicas,
            &record.last_known_elr,
        );
        if record.leader != LEADER_UNCHANGED {
            self.leader = record.leader;
            self.leader_epoch += 1;
        }
        if record.leader_recovery_state != -1 {
            self.leader_recovering = record.leader_recovery_state == RECOVERING;
        }
        self.partition_epoch += 1;
    }
}

impl PartitionInfo {
    fn record(&self, topic_id: Uuid, partition_id: i32) -> PartitionRecord {
        let unless_empty = |ids: &Vec<i32>| (!ids.is_empty()).then(|| ids.clone());
        PartitionRecord {
            partition_id,
            topic_id,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            removing_replicas: self.removing_replicas.clone(),
            adding_replicas: self.adding_replicas.clone(),
            leader: self.leader,
            leader_recovery_state: i8::from(self.leader_recovering),
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            directories: self.directories.clone(),
            eligible_leader_replicas: unless_empty(&self.eligible_leader_replicas),
            last_known_elr: unless_empty(&self.last_known_eligible_leader_replicas),
        }
    }
}

impl From<&PartitionRecord> for PartitionInfo {
    fn from(record: &PartitionRecord) -> PartitionInfo {
        PartitionInfo {
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            removing_replicas: record.removing_replicas.clone(),
            adding_replicas: record.adding_replicas.clone(),
            leader: record.leader,
            leader_recovering: record.leader_recovery_state == RECOVERING,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            directories: record.directories.clone(),
            eligible_leader_replicas: record.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_eligible_leader_replicas: record.last_known_elr.clone().unwrap_or_default(),
        }
    }
}

impl Resource {
    pub fn topic(name: &str) -> Resource {
        Resource {
            kind: ResourceKind::Topic,
            name: name.to_owned(),
        }
    }

    pub fn broker(id: i32) -> Resource {
        Resource {
            kind: ResourceKind::Broker,
            name: id.to_string(),
        }
    }

    /// What holds for every broker without an override of its own.
    pub fn all_brokers() -> Resource {
        Resource {
            kind: ResourceKind::Broker,
            name: String::new(),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.kind, self.name)
    }
}

impl ResourceKind {
    pub fn id(self) -> i8 {
        self as i8
    }

    pub fn from_id(id: i8) -> Option<ResourceKind> {
        [
            ResourceKind::Topic,
            ResourceKind::Broker,
            ResourceKind::ClientMetrics,
            ResourceKind::Group,
        ]
        .into_iter()
        .find(|kind| kind.id() == id)
    }
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "metadata record at offset {}: {}",
            self.offset, self.reason
        )
    }
}

impl std::error::Error for ReplayError {}

/// A map cut into pieces that copies share: writing to a copy clones one piece.
///
/// Ten thousand topics cloned for every change would cost more than the change's fsync.
#[derive(Debug, Clone)]
struct Shards<K, V> {
    pieces: Vec<Arc<BTreeMap<K, V>>>,
}

const SHARDS: usize = 128;

impl<K, V> Default for Shards<K, V> {
    fn default() -> Shards<K, V> {
        let empty = Arc::new(BTreeMap::new());
        Shards {
            pieces: vec![empty; SHARDS],
        }
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Shards<K, V> {
    fn get<Q: Ord + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.pieces[shard(key)].get(key)
    }

    fn get_mut<Q: Ord + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
    {
        Arc::make_mut(&mut self.pieces[shard(key)]).get_mut(key)
    }

    fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        Arc::make_mut(&mut self.pieces[shard(&key)])
            .entry(key)
            .or_default()
    }

    fn insert(&mut self, key: K, value: V) {
        Arc::make_mut(&mut self.pieces[shard(&key)]).insert(key, value);
    }

    fn remove<Q: Ord + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        Arc::make_mut(&mut self.pieces[shard(key)]).remove(key)
    }

    fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }
}

fn shard<Q: Hash + ?Sized>(key: &Q) -> usize {
    // `DefaultHasher::new()` has fixed keys: the order of `iter` is the same in every process, so
    // two controllers write the same checkpoint.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0)
}
