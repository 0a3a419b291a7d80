//! The records of `__cluster_metadata`: what the cluster knows about itself, one change each.
//!
//! Fields and versions are Apache Kafka 4.4.0's, so its own tools read our log and we read its.
//! A record is the value of a record in a batch, framed as
//!
//! ```text
//! frame version  uvarint  1
//! type           uvarint
//! version        uvarint
//! fields         always in the flexible form
//! ```

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    error::DecodeError,
    json::Json,
    schema::{self, EncodeError, Field, Output, schema},
    varint,
};

const FRAME_VERSION: u32 = 1;

/// [`PartitionChangeRecord::leader`]: the leader stays who it is.
pub const NO_LEADER_CHANGE: i32 = -2;

/// [`BrokerRegistrationChangeRecord`]: as before.
pub const NO_CHANGE: i8 = 0;

/// Declares the enum over all records with their type numbers, and how each is framed.
macro_rules! metadata_records {
    ($($(#[$meta:meta])* $variant:ident($record:ident) = $key:literal,)*) => {
        /// One change to what the cluster knows.
        #[derive(Debug, Clone, PartialEq)]
        pub enum MetadataRecord {
            $($(#[$meta])* $variant($record),)*
        }

        $(impl From<$record> for MetadataRecord {
            fn from(record: $record) -> MetadataRecord {
                MetadataRecord::$variant(record)
            }
        })*

        impl MetadataRecord {
            /// Kafka's number for this type of record.
            pub fn key(&self) -> i16 {
                match self {
                    $(MetadataRecord::$variant(_) => $key,)*
                }
            }

            /// Kafka's name for it, as `kafka-dump-log` shows it.
            pub fn name(&self) -> &'static str {
                match self {
                    $(MetadataRecord::$variant(_) => stringify!($record),)*
                }
            }

            /// Its fields in this version, as tools show them.
            pub fn json(&self, version: i16) -> Json {
                match self {
                    $(MetadataRecord::$variant(record) => record.json($record::form(version)),)*
                }
            }

            /// The newest version of this type of record.
            pub fn latest_version(&self) -> i16 {
                match self {
                    $(MetadataRecord::$variant(_) => *$record::VERSIONS.end(),)*
                }
            }

            /// The record's bytes in `version`. Fails if there is no such version, or a field is
            /// set that it lacks.
            pub fn encode_version(&self, version: i16) -> Result<Bytes, EncodeError> {
                let mut out = Output::default();
                varint::put_unsigned(&mut out.bytes, FRAME_VERSION);
                varint::put_unsigned(&mut out.bytes, u32::from(self.key().unsigned_abs()));
                varint::put_unsigned(&mut out.bytes, u32::from(version.unsigned_abs()));
                match self {
                    $(MetadataRecord::$variant(record) => {
                        if !$record::VERSIONS.contains(&version) {
                            return Err(EncodeError::new(format!(
                                "there is no {} version {version}", self.name(),
                            )));
                        }
                        record.write(&mut out, $record::form(version))?;
                    })*
                }
                Ok(out.bytes.into())
            }

            fn decode_fields(key: u32, version: i16, fields: Bytes) -> Result<MetadataRecord, DecodeError> {
                match key {
                    $($key => {
                        if !$record::VERSIONS.contains(&version) {
                            return Err(DecodeError::new(format!(
                                "{} version {version} is not known", stringify!($record),
                            )));
                        }
                        schema::decode(fields, $record::form(version)).map(MetadataRecord::$variant)
                    })*
                    _ => Err(DecodeError::new(format!("metadata record type {key} is not known"))),
                }
            }
        }

        #[cfg(test)]
        fn one_of_each() -> Vec<MetadataRecord> {
            vec![$(MetadataRecord::$variant($record::default()),)*]
        }
    };
}

metadata_records! {
    RegisterBroker(RegisterBrokerRecord) = 0,
    UnregisterBroker(UnregisterBrokerRecord) = 1,
    Topic(TopicRecord) = 2,
    Partition(PartitionRecord) = 3,
    Config(ConfigRecord) = 4,
    PartitionChange(PartitionChangeRecord) = 5,
    FenceBroker(FenceBrokerRecord) = 7,
    UnfenceBroker(UnfenceBrokerRecord) = 8,
    RemoveTopic(RemoveTopicRecord) = 9,
    DelegationToken(DelegationTokenRecord) = 10,
    UserScramCredential(UserScramCredentialRecord) = 11,
    FeatureLevel(FeatureLevelRecord) = 12,
    ClientQuota(ClientQuotaRecord) = 14,
    ProducerIds(ProducerIdsRecord) = 15,
    BrokerRegistrationChange(BrokerRegistrationChangeRecord) = 17,
    AccessControlEntry(AccessControlEntryRecord) = 18,
    RemoveAccessControlEntry(RemoveAccessControlEntryRecord) = 19,
    NoOp(NoOpRecord) = 20,
    ZkMigrationState(ZkMigrationStateRecord) = 21,
    RemoveUserScramCredential(RemoveUserScramCredentialRecord) = 22,
    BeginTransaction(BeginTransactionRecord) = 23,
    EndTransaction(EndTransactionRecord) = 24,
    AbortTransaction(AbortTransactionRecord) = 25,
    RemoveDelegationToken(RemoveDelegationTokenRecord) = 26,
    RegisterController(RegisterControllerRecord) = 27,
    ClearElr(ClearElrRecord) = 28,
    UnregisterController(UnregisterControllerRecord) = 29,
}

/// Levels of the feature metadata.version from which records have more to say, by Apache Kafka's names.
const IN_3_4_IV0: i16 = 8;
const IN_3_5_IV2: i16 = 11;
const IN_3_6_IV1: i16 = 13;
const IN_3_6_IV2: i16 = 14;
const IN_3_7_IV0: i16 = 15;
const IN_3_7_IV2: i16 = 17;
const IN_4_0_IV1: i16 = 23;
const IN_4_3_IV0: i16 = 30;
const IN_4_4_IV2: i16 = 33;

impl MetadataRecord {
    /// The record's bytes as a cluster with this metadata.version finalized writes them: in a version that
    /// the oldest software in it reads. What that version has no place for is left out. `None` if there is
    /// no such record yet.
    pub fn encode_for(&self, metadata_version: i16) -> Result<Option<Bytes>, EncodeError> {
        match self.version_for(metadata_version) {
            Some(version) => self
                .without_later_fields(version)
                .encode_version(version)
                .map(Some),
            None => Ok(None),
        }
    }

    fn version_for(&self, metadata_version: i16) -> Option<i16> {
        let newest_of = |since: &[(i16, i16)]| {
            let found = since.iter().find(|(level, _)| *level <= metadata_version);
            Some(found.map_or(0, |(_, version)| *version))
        };
        let since = |level: i16| (level <= metadata_version).then_some(0);
        match self {
            MetadataRecord::RegisterBroker(_) => {
                newest_of(&[(IN_4_3_IV0, 4), (IN_3_7_IV2, 3), (IN_3_4_IV0, 2), (0, 1)])
            }
            MetadataRecord::Partition(_) | MetadataRecord::PartitionChange(_) => {
                newest_of(&[(IN_4_0_IV1, 2), (IN_3_7_IV2, 1)])
            }
            // This one is in the lowest version that has what it says, whatever is finalized.
            MetadataRecord::BrokerRegistrationChange(r) => {
                if r.cordoned_log_dirs.is_some() && IN_4_3_IV0 <= metadata_version {
                    Some(3)
                } else if !r.log_dirs.is_empty() && IN_3_7_IV2 <= metadata_version {
                    Some(2)
                } else {
                    Some(i16::from(r.in_controlled_shutdown != NO_CHANGE))
                }
            }
            MetadataRecord::UserScramCredential(_)
            | MetadataRecord::RemoveUserScramCredential(_) => since(IN_3_5_IV2),
            MetadataRecord::BeginTransaction(_)
            | MetadataRecord::EndTransaction(_)
            | MetadataRecord::AbortTransaction(_) => since(IN_3_6_IV1),
            MetadataRecord::DelegationToken(_) | MetadataRecord::RemoveDelegationToken(_) => {
                since(IN_3_6_IV2)
            }
            MetadataRecord::RegisterController(_) => since(IN_3_7_IV0),
            MetadataRecord::ClearElr(_) => since(IN_4_0_IV1),
            MetadataRecord::UnregisterController(_) => since(IN_4_4_IV2),
            MetadataRecord::ZkMigrationState(_) => since(IN_3_4_IV0),
            MetadataRecord::UnregisterBroker(_)
            | MetadataRecord::Topic(_)
            | MetadataRecord::Config(_)
            | MetadataRecord::FenceBroker(_)
            | MetadataRecord::UnfenceBroker(_)
            | MetadataRecord::RemoveTopic(_)
            | MetadataRecord::FeatureLevel(_)
            | MetadataRecord::ClientQuota(_)
            | MetadataRecord::ProducerIds(_)
            | MetadataRecord::AccessControlEntry(_)
            | MetadataRecord::RemoveAccessControlEntry(_)
            | MetadataRecord::NoOp(_) => Some(0),
        }
    }

    fn without_later_fields(&self, version: i16) -> MetadataRecord {
        let mut record = self.clone();
        match &mut record {
            MetadataRecord::RegisterBroker(r) => {
                if version < 4 {
                    r.cordoned_log_dirs = None;
                }
                if version < 3 {
                    r.log_dirs.clear();
                }
            }
            MetadataRecord::Partition(r) => {
                if version < 2 {
                    r.eligible_leader_replicas = None;
                    r.last_known_elr = None;
                }
                if version < 1 {
                    r.directories.clear();
                }
            }
            MetadataRecord::PartitionChange(r) => {
                if version < 2 {
                    r.eligible_leader_replicas = None;
                    r.last_known_elr = None;
                }
                if version < 1 {
                    r.directories = None;
                }
            }
            MetadataRecord::BrokerRegistrationChange(r) => {
                if version < 3 {
                    r.cordoned_log_dirs = None;
                }
                if version < 2 {
                    r.log_dirs.clear();
                }
            }
            _ => {}
        }
        record
    }

    /// The record's bytes in its newest version.
    ///
    /// # Panics
    /// If a string in it is longer than 32,767 bytes: whoever made the record has checked what
    /// clients sent.
    pub fn encode(&self) -> Bytes {
        self.encode_version(self.latest_version())
            .unwrap_or_else(|err| panic!("{} does not encode: {err}", self.name()))
    }

    /// Understands the value of a record of the metadata log. Fails for types and versions that
    /// 4.4.0 does not have: a newer Kafka wrote them, and to go on without them would be to know
    /// something else than the cluster does.
    pub fn decode(value: Bytes) -> Result<MetadataRecord, DecodeError> {
        MetadataRecord::decode_with_version(value).map(|(record, _)| record)
    }

    /// The same, with the version that the record is written in.
    pub fn decode_with_version(mut value: Bytes) -> Result<(MetadataRecord, i16), DecodeError> {
        let frame_version = schema::read_varint(&mut value)?;
        if frame_version != FRAME_VERSION {
            return Err(DecodeError::new(format!(
                "metadata frame version {frame_version} is not known"
            )));
        }
        let key = schema::read_varint(&mut value)?;
        let version = schema::read_varint(&mut value)?;
        let version = i16::try_from(version)
            .map_err(|_| DecodeError::new(format!("a metadata record of version {version}")))?;
        let record = MetadataRecord::decode_fields(key, version, value)?;
        Ok((record, version))
    }
}

schema! {
    /// A broker has (re)started; it is fenced until its first heartbeats have caught up.
    pub struct RegisterBrokerRecord 0..=4, flexible 0 {
        broker_id: i32,
        is_migrating_zk_broker: bool [2..],
        /// New with every start of the process.
        incarnation_id: Uuid,
        /// The offset of this record: what tells this registration from earlier ones.
        broker_epoch: i64,
        end_points: Vec<BrokerEndpoint>,
        features: Vec<BrokerFeature>,
        rack: Option<String>,
        fenced: bool = true,
        in_controlled_shutdown: bool [1..],
        /// The ids of its log directories, from their `meta.properties`.
        log_dirs: Vec<Uuid> [3.., tag 0],
        /// Directories that take no new partitions (KIP-1066).
        cordoned_log_dirs: Option<Vec<Uuid>> [4.., tag 1],
    }

    pub struct BrokerEndpoint 0..=4, flexible 0 {
        /// The listener's name.
        name: String,
        host: String,
        port: u16,
        /// 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
        security_protocol: i16,
    }

    pub struct BrokerFeature 0..=4, flexible 0 {
        name: String,
        min_supported_version: i16,
        max_supported_version: i16,
    }

    pub struct UnregisterBrokerRecord 0..=0, flexible 0 {
        broker_id: i32,
        broker_epoch: i64,
    }

    pub struct TopicRecord 0..=0, flexible 0 {
        name: String,
        topic_id: Uuid,
    }

    pub struct PartitionRecord 0..=2, flexible 0 {
        partition_id: i32 = -1,
        topic_id: Uuid,
        replicas: Vec<i32>,
        isr: Vec<i32>,
        removing_replicas: Vec<i32>,
        adding_replicas: Vec<i32>,
        /// -1: none.
        leader: i32 = -1,
        /// 0 recovered, 1 recovering from an unclean election.
        leader_recovery_state: i8 [0.., tag 0],
        leader_epoch: i32 = -1,
        partition_epoch: i32 = -1,
        /// The log directory of each replica, in the order of `replicas`.
        directories: Vec<Uuid> [1..],
        eligible_leader_replicas: Option<Vec<i32>> [2.., tag 1],
        last_known_elr: Option<Vec<i32>> [2.., tag 2],
    }

    pub struct ConfigRecord 0..=0, flexible 0 {
        /// 2 topic, 4 broker, 16 client metrics, 32 group.
        resource_type: i8,
        /// A broker's is its id, or empty for all brokers.
        resource_name: String,
        name: String,
        /// `None` removes it.
        value: Option<String>,
    }

    /// What is not here stays as it was; the partition epoch goes up by one.
    pub struct PartitionChangeRecord 0..=2, flexible 0 {
        partition_id: i32 = -1,
        topic_id: Uuid,
        isr: Option<Vec<i32>> [0.., tag 0],
        /// -1: none; [`NO_LEADER_CHANGE`]. Any other, even the same one, begins a leader epoch.
        leader: i32 [0.., tag 1] = NO_LEADER_CHANGE,
        replicas: Option<Vec<i32>> [0.., tag 2],
        removing_replicas: Option<Vec<i32>> [0.., tag 3],
        adding_replicas: Option<Vec<i32>> [0.., tag 4],
        /// -1: as before.
        leader_recovery_state: i8 [0.., tag 5] = -1,
        directories: Option<Vec<Uuid>> [1.., tag 8],
        eligible_leader_replicas: Option<Vec<i32>> [2.., tag 6],
        last_known_elr: Option<Vec<i32>> [2.., tag 7],
    }

    /// Superseded by [`BrokerRegistrationChangeRecord`], but still in old logs.
    pub struct FenceBrokerRecord 0..=0, flexible 0 {
        id: i32,
        epoch: i64,
    }

    /// Superseded by [`BrokerRegistrationChangeRecord`], but still in old logs.
    pub struct UnfenceBrokerRecord 0..=0, flexible 0 {
        id: i32,
        epoch: i64,
    }

    pub struct RemoveTopicRecord 0..=0, flexible 0 {
        topic_id: Uuid,
    }

    pub struct DelegationTokenRecord 0..=0, flexible 0 {
        owner: String,
        requester: String,
        renewers: Vec<String>,
        issue_timestamp: i64,
        max_timestamp: i64,
        expiration_timestamp: i64,
        token_id: String,
    }

    pub struct UserScramCredentialRecord 0..=0, flexible 0 {
        name: String,
        /// 1 SCRAM-SHA-256, 2 SCRAM-SHA-512.
        mechanism: i8,
        salt: Bytes,
        stored_key: Bytes,
        server_key: Bytes,
        iterations: i32,
    }

    pub struct FeatureLevelRecord 0..=0, flexible 0 {
        name: String,
        /// 0 turns the feature off.
        feature_level: i16,
    }

    pub struct ClientQuotaRecord 0..=0, flexible 0 {
        entity: Vec<EntityData>,
        key: String,
        value: f64,
        remove: bool,
    }

    pub struct EntityData 0..=0, flexible 0 {
        entity_type: String,
        /// `None` is the default entity.
        entity_name: Option<String>,
    }

    /// A broker was given the producer ids before `next_producer_id`.
    pub struct ProducerIdsRecord 0..=0, flexible 0 {
        broker_id: i32,
        broker_epoch: i64 = -1,
        next_producer_id: i64,
    }

    pub struct BrokerRegistrationChangeRecord 0..=3, flexible 0 {
        broker_id: i32,
        broker_epoch: i64,
        /// -1 unfence, 1 fence, [`NO_CHANGE`].
        fenced: i8 [0.., tag 0],
        /// 1 the broker is shutting down, [`NO_CHANGE`].
        in_controlled_shutdown: i8 [1.., tag 1],
        /// Empty: as before.
        log_dirs: Vec<Uuid> [2.., tag 2],
        /// `None`: as before.
        cordoned_log_dirs: Option<Vec<Uuid>> [3.., tag 3],
    }

    pub struct AccessControlEntryRecord 0..=0, flexible 0 {
        id: Uuid,
        resource_type: i8,
        resource_name: String,
        pattern_type: i8,
        principal: String,
        host: String,
        operation: i8,
        permission_type: i8,
    }

    pub struct RemoveAccessControlEntryRecord 0..=0, flexible 0 {
        id: Uuid,
    }

    /// Keeps the log moving, so that followers see that the leader lives.
    pub struct NoOpRecord 0..=0, flexible 0 {
    }

    pub struct ZkMigrationStateRecord 0..=0, flexible 0 {
        zk_migration_state: i8,
    }

    pub struct RemoveUserScramCredentialRecord 0..=0, flexible 0 {
        name: String,
        mechanism: i8,
    }

    /// What follows takes effect together at the matching [`EndTransactionRecord`], or not at all.
    pub struct BeginTransactionRecord 0..=0, flexible 0 {
        name: Option<String> [0.., tag 0],
    }

    pub struct EndTransactionRecord 0..=0, flexible 0 {
    }

    pub struct AbortTransactionRecord 0..=0, flexible 0 {
        reason: Option<String> [0.., tag 0],
    }

    pub struct RemoveDelegationTokenRecord 0..=0, flexible 0 {
        token_id: String,
    }

    pub struct RegisterControllerRecord 0..=0, flexible 0 {
        controller_id: i32,
        incarnation_id: Uuid,
        zk_migration_ready: bool,
        end_points: Vec<ControllerEndpoint>,
        features: Vec<ControllerFeature>,
    }

    pub struct ControllerEndpoint 0..=0, flexible 0 {
        name: String,
        host: String,
        port: u16,
        security_protocol: i16,
    }

    pub struct ControllerFeature 0..=0, flexible 0 {
        name: String,
        min_supported_version: i16,
        max_supported_version: i16,
    }

    /// Forgets a topic's eligible leader replicas, or with an empty name all topics'.
    pub struct ClearElrRecord 0..=0, flexible 0 {
        topic_name: String,
    }

    pub struct UnregisterControllerRecord 0..=0, flexible 0 {
        controller_id: i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The versions that Apache Kafka 4.4.0 wrote after `kafka-storage format` with the release versions
    /// 3.3-IV3 and 4.4-IV2.
    #[test]
    fn an_old_metadata_version_is_written_in_old_records() {
        let registration = RegisterBrokerRecord {
            log_dirs: vec![Uuid::from_u128(7)],
            cordoned_log_dirs: Some(Vec::new()),
            ..RegisterBrokerRecord::default()
        };
        let partition = PartitionRecord {
            directories: vec![Uuid::from_u128(7)],
            eligible_leader_replicas: Some(vec![1]),
            ..PartitionRecord::default()
        };
        let change = PartitionChangeRecord {
            directories: Some(vec![Uuid::from_u128(7)]),
            last_known_elr: Some(vec![1]),
            ..PartitionChangeRecord::default()
        };
        let fenced = BrokerRegistrationChangeRecord {
            fenced: 1,
            ..BrokerRegistrationChangeRecord::default()
        };
        let stopping = BrokerRegistrationChangeRecord {
            in_controlled_shutdown: 1,
            ..BrokerRegistrationChangeRecord::default()
        };
        let failed = BrokerRegistrationChangeRecord {
            log_dirs: vec![Uuid::from_u128(7)],
            ..BrokerRegistrationChangeRecord::default()
        };
        for (record, versions) in [
            (registration.into(), [1, 2, 3, 4]),
            (partition.into(), [0, 0, 1, 2]),
            (change.into(), [0, 0, 1, 2]),
            (MetadataRecord::from(fenced), [0, 0, 0, 0]),
            (stopping.into(), [1, 1, 1, 1]),
            (failed.into(), [0, 0, 2, 2]),
        ] {
            for (level, version) in [7, 8, 17, 33].into_iter().zip(versions) {
                let bytes = record.encode_for(level).unwrap().unwrap();
                assert_eq!(bytes[2], version, "{} at {level}", record.name());
                let read = MetadataRecord::decode(bytes).unwrap();
                let kept = read == record;
                assert_eq!(kept, i16::from(version) == record.version_for(33).unwrap());
            }
        }
        let controller = MetadataRecord::from(RegisterControllerRecord::default());
        assert_eq!(controller.encode_for(14).unwrap(), None);
        assert!(controller.encode_for(15).unwrap().is_some());
    }

    #[test]
    fn every_record_is_read_back_from_its_newest_version() {
        for record in one_of_each() {
            assert_eq!(
                MetadataRecord::decode(record.encode()).as_ref(),
                Ok(&record)
            );
        }
    }

    #[test]
    fn a_record_is_framed_with_version_type_and_version() {
        let topic = TopicRecord {
            name: "t".into(),
            topic_id: Uuid::from_u128(1),
        };
        let expected = b"\x01\x02\0\x02t\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0";
        assert_eq!(MetadataRecord::from(topic).encode(), &expected[..]);
    }

    #[test]
    fn an_older_version_refuses_what_it_cannot_carry() {
        let mut partition = PartitionRecord {
            partition_id: 0,
            ..PartitionRecord::default()
        };
        let old = MetadataRecord::from(partition.clone())
            .encode_version(0)
            .unwrap();
        assert_eq!(MetadataRecord::decode(old), Ok(partition.clone().into()));
        partition.directories = vec![Uuid::from_u128(1)];
        assert!(
            MetadataRecord::from(partition.clone())
                .encode_version(0)
                .is_err()
        );
        assert!(MetadataRecord::from(partition).encode_version(3).is_err());
    }

    #[test]
    fn unknown_frames_types_versions_and_trailing_bytes_are_refused() {
        for bytes in [
            &b""[..],
            b"\0\x02\0",
            b"\x01\x06\0",
            b"\x01\x14\x01\0",
            b"\x01\x14\0\0x",
        ] {
            assert!(
                MetadataRecord::decode(Bytes::copy_from_slice(bytes)).is_err(),
                "{bytes:?}"
            );
        }
        assert_eq!(
            MetadataRecord::decode(Bytes::from_static(b"\x01\x14\0\0")),
            Ok(NoOpRecord::default().into())
        );
    }
}
