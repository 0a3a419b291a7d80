//! From records to an image and back: what [`ClusterImage::records`] writes, [`ClusterImage::replay`] must read.

use std::{collections::BTreeMap, fmt, sync::Arc};

use protocol::records::{
    control::ControlRecord,
    metadata::{
        ClientQuotaRecord, ConfigRecord, EntityData, FeatureLevelRecord, MetadataRecord,
        TopicRecord,
    },
};
use uuid::Uuid;

use super::{
    Broker, ClusterImage, METADATA_VERSION, PartitionInfo, QuotaEntity, Resource, ResourceKind,
    Topic,
};

/// A record the state has no place for: the log is not what its writer decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayError {
    pub offset: i64,
    pub reason: String,
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

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Transaction {
    pub(super) began: i64,
    pub(super) records: Vec<(i64, MetadataRecord)>,
}

impl ClusterImage {
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
