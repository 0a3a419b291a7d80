//! Why one item of a request was not done: refused here, or refused below.
//!
//! [`Error::code`] is the only place where an error becomes a number. Its matches have no wildcard, so
//! a new variant anywhere below does not compile until its answer has been decided here.

use std::fmt;

use protocol::{
    batch::BatchError,
    error::ErrorCode,
    validate::{self, RecordErrors, RecordReason},
};
use replication::{
    admission::Refusal as Inadmissible,
    error::{Reason, Refusal},
    partition,
    partitions::Missing,
};

/// How many record errors a message spells out, as Apache Kafka does.
const RECORD_ERRORS_SHOWN: usize = 3;

#[derive(Debug)]
pub(crate) enum Error {
    /// `acks` is neither 0, 1 nor -1.
    InvalidRequiredAcks(i16),
    UnknownTopicId,
    UnknownTopicOrPartition,
    /// The topic that had this name was deleted, and another one was created.
    InconsistentTopicId,
    /// Who fetches as a replica is none of the partition's; this broker leads it.
    NotAReplica {
        leader: i32,
        epoch: i32,
    },
    /// Records of a transaction in a request without a transactional id.
    NoTransactionalId,
    /// No transaction coordinator has given out this producer id.
    UnknownTransactionalProducer,
    /// What was asked for contradicts itself in a way that a real broker trips over.
    Nonsense(&'static str),
    /// A client wrote to a topic that belongs to the brokers.
    InternalTopic,
    InvalidTopicName,
    LeaderNotAvailable,
    /// The request contradicts itself; the text says how.
    InvalidRequest(&'static str),
    /// One request names the same partition twice.
    DuplicatePartition,
    /// A timestamp with a special meaning that this version of the request does not have.
    UnsupportedTimestamp,
    ShuttingDown,
    /// A Fetch that has not looked yet: never seen by a client.
    NotReadYet,
    /// The partition is here, but its log directory has failed.
    Offline,
    /// A transactional producer with a time-out the broker does not allow.
    InvalidTransactionTimeout,
    /// This broker coordinates neither the group nor the transaction.
    NotCoordinator,
    /// What it coordinates is being read from its log.
    CoordinatorLoading,
    /// A transaction's coordinator has refused this; the text is for the client.
    Transaction(ErrorCode, Option<String>),
    /// `delete.topic.enable=false`.
    TopicDeletionDisabled,
    /// The topic keeps the newest record of each key for good: nothing of it may be cut off.
    DeletionIsNotThePolicy,
    /// Nothing that has configs is of this type.
    UnknownResourceType,
    /// No log directory of this broker has this path.
    LogDirNotFound,
    /// The log directory takes no new replicas.
    CordonedLogDir,
    /// The time-out of the request was over before it could be done.
    TimedOut,
    Partition(partition::Error),
    /// The controller will not do it.
    Refused(Refusal),
    /// The controller cannot do it.
    Controller(replication::error::Error),
}

impl From<partition::Error> for Error {
    fn from(err: partition::Error) -> Self {
        Self::Partition(err)
    }
}

impl From<Missing> for Error {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Unknown => Self::UnknownTopicOrPartition,
            Missing::Offline => Self::Offline,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<replication::error::Error> for Error {
    fn from(err: replication::error::Error) -> Self {
        Self::Controller(err)
    }
}

impl Error {
    pub(crate) fn code(&self) -> ErrorCode {
        use partition::Error as P;
        use replication::error::Error as C;
        use storage::error::Error as S;
        match self {
            Self::InvalidRequiredAcks(_) => ErrorCode::InvalidRequiredAcks,
            Self::InconsistentTopicId => ErrorCode::InconsistentTopicId,
            Self::NotAReplica { .. } => ErrorCode::NotLeaderOrFollower,
            Self::NoTransactionalId => ErrorCode::TransactionalIdAuthorizationFailed,
            Self::UnknownTransactionalProducer => ErrorCode::InvalidProducerIdMapping,
            Self::UnknownTopicId => ErrorCode::UnknownTopicId,
            Self::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
            Self::InternalTopic | Self::InvalidTopicName => ErrorCode::InvalidTopicException,
            Self::LeaderNotAvailable => ErrorCode::LeaderNotAvailable,
            Self::InvalidRequest(_) | Self::DuplicatePartition | Self::UnknownResourceType => {
                ErrorCode::InvalidRequest
            }
            Self::UnsupportedTimestamp => ErrorCode::UnsupportedVersion,
            Self::ShuttingDown => ErrorCode::NotLeaderOrFollower,
            Self::NotReadYet | Self::Nonsense(_) => ErrorCode::UnknownServerError,
            Self::Offline => ErrorCode::KafkaStorageError,
            Self::InvalidTransactionTimeout => ErrorCode::InvalidTransactionTimeout,
            Self::NotCoordinator => ErrorCode::NotCoordinator,
            Self::CoordinatorLoading => ErrorCode::CoordinatorLoadInProgress,
            Self::Transaction(code, _) => *code,
            Self::TopicDeletionDisabled => ErrorCode::TopicDeletionDisabled,
            Self::DeletionIsNotThePolicy => ErrorCode::PolicyViolation,
            Self::LogDirNotFound => ErrorCode::LogDirNotFound,
            Self::CordonedLogDir => ErrorCode::InvalidReplicaAssignment,
            Self::TimedOut => ErrorCode::RequestTimedOut,
            Self::Refused(refusal) => refused(refusal.reason),
            Self::Controller(err) => match err {
                C::NotController { .. } | C::Stopped => ErrorCode::NotController,
                C::TooLarge { .. } => ErrorCode::PolicyViolation,
                C::Setup(_) | C::Corrupt(_) => ErrorCode::UnknownServerError,
                C::Storage(_) | C::Database(_) | C::Io { .. } => ErrorCode::KafkaStorageError,
            },
            Self::Partition(err) => match err {
                P::NotLeader { .. } => ErrorCode::NotLeaderOrFollower,
                P::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
                P::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
                P::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
                P::ReplicationTimedOut => ErrorCode::RequestTimedOut,
                P::ShuttingDown => ErrorCode::NotLeaderOrFollower,
                P::Refused(refusal) => inadmissible(refusal),
                P::Storage(err) => match err {
                    S::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
                    S::BatchTooLarge { .. } => ErrorCode::RecordListTooLarge,
                    S::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
                    S::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
                    S::InvalidTxnState { .. } => ErrorCode::InvalidTxnState,
                    S::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
                    S::InvalidRecord { .. } => ErrorCode::InvalidRecord,
                    // `Gone`: who asks again finds what is in its place, or the offset out of range.
                    S::Gone { .. }
                    | S::UnexpectedOffset { .. }
                    | S::Corrupt { .. }
                    | S::Io { .. }
                    | S::Offline { .. }
                    | S::InUse { .. }
                    | S::Format { .. }
                    | S::NotOurs { .. } => ErrorCode::KafkaStorageError,
                },
            },
        }
    }

    /// Our own fault, which the operator should see in the log.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(
            self.code(),
            ErrorCode::KafkaStorageError | ErrorCode::UnknownServerError
        )
    }

    /// Was the request refused by the log itself, or on the way to it?
    pub(crate) fn is_from_within_the_log(&self) -> bool {
        match self {
            Self::Partition(partition::Error::Refused(refusal)) => {
                matches!(
                    refusal,
                    Inadmissible::Records(_)
                        | Inadmissible::Timestamp { .. }
                        | Inadmissible::Malformed(
                            BatchError::Count { .. }
                                | BatchError::BaseOffset(_)
                                | BatchError::Compression(_)
                        )
                )
            }
            Self::Partition(partition::Error::Storage(_)) => true,
            _ => false,
        }
    }

    /// What the client is told besides the code, worded as Apache Kafka words it.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Self::Partition(partition::Error::Refused(refusal)) => match refusal {
                Inadmissible::Timestamp { .. } => {
                    Some("One or more records have been rejected due to invalid timestamp".into())
                }
                Inadmissible::Malformed(BatchError::Length(size)) => Some(format!(
                    "Record size {size} is less than the minimum record overhead (14)"
                )),
                Inadmissible::Malformed(BatchError::Magic(magic)) if !(0..=1).contains(magic) => {
                    Some(format!("Invalid magic found in record: {magic}"))
                }
                Inadmissible::Malformed(_)
                | Inadmissible::Records(_)
                | Inadmissible::TooLarge { .. } => None,
            },
            Self::Refused(refusal) => refusal.message.clone(),
            Self::Transaction(_, message) => message.clone(),
            _ => None,
        }
    }

    /// The same with the records that are to blame, which are in this partition.
    pub(crate) fn message_in(&self, partition: &str) -> Option<String> {
        let Self::Partition(partition::Error::Refused(Inadmissible::Records(
            validate::Refusal::Records(errors),
        ))) = self
        else {
            return self.message();
        };
        let shown: Vec<String> = self
            .records(partition)
            .into_iter()
            .take(RECORD_ERRORS_SHOWN)
            .map(|(index, message)| format!("RecordError(batchIndex={index}, message='{message}')"))
            .collect();
        Some(format!(
            "One or more records have been rejected due to {} record errors in total, \
             and only showing the first three errors at most: [{}]",
            errors.total,
            shown.join(", ")
        ))
    }

    /// The same for requests whose answers always say something: what a real broker says with the code
    /// if there is nothing better to say.
    pub(crate) fn explained(&self) -> Option<String> {
        let said = self.message();
        said.or_else(|| protocol::error::sentence(self.code()).map(str::to_owned))
    }

    /// The records that are to blame, by their index in the batch.
    pub(crate) fn records(&self, partition: &str) -> Vec<(i32, String)> {
        let (errors, range): (&RecordErrors, _) = match self {
            Self::Partition(partition::Error::Refused(refusal)) => match refusal {
                Inadmissible::Timestamp { errors, range } => (errors, *range),
                Inadmissible::Records(validate::Refusal::Records(errors)) => (errors, (0, 0)),
                Inadmissible::Malformed(_)
                | Inadmissible::Records(_)
                | Inadmissible::TooLarge { .. } => return Vec::new(),
            },
            _ => return Vec::new(),
        };
        let describe = |index: i32, reason| match reason {
            RecordReason::NoKey => format!(
                "Compacted topic cannot accept message without key in topic partition {partition}"
            ),
            RecordReason::Timestamp(timestamp) => format!(
                "Timestamp {timestamp} of message with offset {index} is out of range. \
                 The timestamp should be within [{}, {}]",
                range.0, range.1
            ),
            RecordReason::TimestampType => format!(
                "Invalid timestamp type in message {index}. \
                 Producer should not set timestamp type to LogAppendTime."
            ),
            RecordReason::OffsetDelta(delta) => {
                format!("Record {index} has the offset delta {delta}.")
            }
        };
        errors
            .first
            .iter()
            .map(|error| (error.index, describe(error.index, error.reason)))
            .collect()
    }
}

fn refused(reason: Reason) -> ErrorCode {
    match reason {
        Reason::BrokerIdNotRegistered => ErrorCode::BrokerIdNotRegistered,
        Reason::DuplicateBrokerRegistration => ErrorCode::DuplicateBrokerRegistration,
        Reason::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
        Reason::EligibleLeadersNotAvailable => ErrorCode::EligibleLeadersNotAvailable,
        Reason::InconsistentClusterId => ErrorCode::InconsistentClusterId,
        Reason::InvalidConfig => ErrorCode::InvalidConfig,
        Reason::InvalidPartitions => ErrorCode::InvalidPartitions,
        Reason::InvalidRegistration => ErrorCode::InvalidRegistration,
        Reason::InvalidReplicaAssignment => ErrorCode::InvalidReplicaAssignment,
        Reason::InvalidReplicationFactor => ErrorCode::InvalidReplicationFactor,
        Reason::InvalidRequest => ErrorCode::InvalidRequest,
        Reason::InvalidTopic => ErrorCode::InvalidTopicException,
        Reason::InvalidUpdateVersion => ErrorCode::InvalidUpdateVersion,
        Reason::PolicyViolation => ErrorCode::PolicyViolation,
        Reason::PreferredLeaderNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
        Reason::StaleBrokerEpoch => ErrorCode::StaleBrokerEpoch,
        Reason::TopicAlreadyExists => ErrorCode::TopicAlreadyExists,
        Reason::UnknownServerError => ErrorCode::UnknownServerError,
        Reason::UnknownTopicId => ErrorCode::UnknownTopicId,
        Reason::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
        Reason::UnsupportedVersion => ErrorCode::UnsupportedVersion,
    }
}

fn inadmissible(refusal: &Inadmissible) -> ErrorCode {
    match refusal {
        Inadmissible::TooLarge { .. } => ErrorCode::MessageTooLarge,
        Inadmissible::Timestamp { .. } => ErrorCode::InvalidTimestamp,
        Inadmissible::Records(_) => ErrorCode::InvalidRecord,
        Inadmissible::Malformed(err) => malformed(err),
    }
}

/// A real broker tells bytes that were damaged (CORRUPT_MESSAGE: the client may try again) from bytes
/// that are not one batch of today's format (INVALID_RECORD: it should not).
fn malformed(err: &BatchError) -> ErrorCode {
    match err {
        BatchError::Crc { .. } | BatchError::Length(_) | BatchError::Garbage(_) => {
            ErrorCode::CorruptMessage
        }
        BatchError::Magic(0 | 1)
        | BatchError::TooShort { .. }
        | BatchError::BaseOffset(_)
        | BatchError::Count { .. }
        | BatchError::Trailing(_)
        | BatchError::Compression(_)
        | BatchError::Decompress(_)
        | BatchError::DecompressedTooLarge { .. }
        | BatchError::Record(_) => ErrorCode::InvalidRecord,
        BatchError::Magic(_) => ErrorCode::CorruptMessage,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidRequiredAcks(acks) => write!(f, "acks must be 0, 1 or -1, not {acks}"),
            Self::UnknownTopicId => f.write_str("no topic has this id"),
            Self::InconsistentTopicId => f.write_str("the topic of this name has another id"),
            Self::NotAReplica { .. } => f.write_str("a fetch by who is no replica"),
            Self::NoTransactionalId => f.write_str("a transaction without a transactional id"),
            Self::UnknownTransactionalProducer => {
                f.write_str("no coordinator knows the transaction's producer")
            }
            Self::UnknownTopicOrPartition => f.write_str("there is no such topic or partition"),
            Self::InternalTopic => f.write_str("the topic belongs to the brokers"),
            Self::InvalidTopicName => f.write_str("a topic cannot have this name"),
            Self::LeaderNotAvailable => f.write_str("the partition has no leader"),
            Self::InvalidRequest(reason) | Self::Nonsense(reason) => f.write_str(reason),
            Self::DuplicatePartition => f.write_str("the request names the partition twice"),
            Self::UnsupportedTimestamp => f.write_str("this version does not know the timestamp"),
            Self::ShuttingDown => f.write_str("the broker is shutting down"),
            Self::NotReadYet => f.write_str("the partition has not been read"),
            Self::Offline => f.write_str("the partition's log directory has failed"),
            Self::InvalidTransactionTimeout => {
                f.write_str("the transaction timeout is not allowed")
            }
            Self::NotCoordinator => f.write_str("this broker is not the coordinator"),
            Self::CoordinatorLoading => f.write_str("the coordinator reads its log"),
            Self::Transaction(code, None) => write!(f, "not in a transaction: {code}"),
            Self::Transaction(_, Some(message)) => f.write_str(message),
            Self::TopicDeletionDisabled => f.write_str("topics are not deleted here"),
            Self::DeletionIsNotThePolicy => f.write_str("the topic's policy is not to delete"),
            Self::UnknownResourceType => f.write_str("nothing of this type has configs"),
            Self::LogDirNotFound => f.write_str("there is no such log directory"),
            Self::CordonedLogDir => f.write_str("the log directory takes no new replicas"),
            Self::TimedOut => f.write_str("the request's time was over before it could be done"),
            Self::Partition(err) => write!(f, "{err}"),
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Controller(err) => write!(f, "{err}"),
        }
    }
}
