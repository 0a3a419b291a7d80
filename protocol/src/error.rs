//! Error codes as clients see them, and why a frame was not understood.

use std::{borrow::Cow, fmt};

pub use kafka_protocol::ResponseError as ErrorCode;

/// Why bytes could not be decoded.
///
/// A client that sends such bytes has lost its place in the stream or never spoke Kafka, so all
/// one can do is close the connection; the text is for the one log line that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    reason: Cow<'static, str>,
}

impl DecodeError {
    pub(crate) fn new(reason: impl Into<Cow<'static, str>>) -> DecodeError {
        DecodeError {
            reason: reason.into(),
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for DecodeError {}

/// What a code means, in words: what a broker says with it if there is nothing better to say, and a tool where a broker has
/// sent the code alone. Not every code has some: those that only programs meet are told by their names.
pub fn sentence(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::OffsetOutOfRange => {
            "The requested offset is not within the range of offsets maintained by the server."
        }
        ErrorCode::CorruptMessage => {
            "The records do not pass their check, or one has no key in a compacted topic."
        }
        ErrorCode::UnknownTopicOrPartition => "This server does not host this topic-partition.",
        ErrorCode::LeaderNotAvailable => "The partition has no leader: one is being elected.",
        ErrorCode::NotLeaderOrFollower => "The broker no longer leads the partition.",
        ErrorCode::RequestTimedOut => "The request timed out.",
        ErrorCode::BrokerNotAvailable => "The broker is not available.",
        ErrorCode::ReplicaNotAvailable => "The replica is not available.",
        ErrorCode::MessageTooLarge => "The record is larger than the topic's max.message.bytes.",
        ErrorCode::RecordListTooLarge => "The batch is larger than the topic's segment.bytes.",
        ErrorCode::CoordinatorLoadInProgress => "The coordinator is still reading its log.",
        ErrorCode::CoordinatorNotAvailable => "The coordinator is not available.",
        ErrorCode::NotCoordinator => "This is not the correct coordinator.",
        ErrorCode::InvalidTopicException => {
            "The request attempted to perform an operation on an invalid topic."
        }
        ErrorCode::NotEnoughReplicas => {
            "Fewer replicas are in sync than min.insync.replicas asks for."
        }
        ErrorCode::NotEnoughReplicasAfterAppend => {
            "The records were written, but to fewer replicas than min.insync.replicas asks for."
        }
        ErrorCode::IllegalGeneration => "The group has gone on to another generation.",
        ErrorCode::InvalidGroupId => "The group id is invalid.",
        ErrorCode::UnknownMemberId => "The coordinator is not aware of this member.",
        ErrorCode::RebalanceInProgress => "The group is rebalancing, so a rejoin is needed.",
        ErrorCode::InconsistentGroupProtocol => {
            "The group's members use another protocol or other assignors than this one."
        }
        ErrorCode::TopicAuthorizationFailed => "Topic authorization failed.",
        ErrorCode::GroupAuthorizationFailed => "Group authorization failed.",
        ErrorCode::ClusterAuthorizationFailed => "Cluster authorization failed.",
        ErrorCode::UnsupportedVersion => "The version of API is not supported.",
        ErrorCode::TopicAlreadyExists => "Topic with this name already exists.",
        ErrorCode::InvalidTimestamp => "A record's timestamp is outside of what the topic accepts.",
        ErrorCode::NonEmptyGroup => "The group is not empty.",
        ErrorCode::GroupIdNotFound => "The group id does not exist.",
        ErrorCode::GroupSubscribedToTopic => {
            "Deleting offsets of a topic is forbidden while the consumer group is actively subscribed to it."
        }
        ErrorCode::TopicDeletionDisabled => "Topic deletion is disabled.",
        ErrorCode::NotController => "This is not the correct controller for this cluster.",
        ErrorCode::InvalidRequest => {
            "This most likely occurs because of a request being malformed by the client library or \
             the message was sent to an incompatible broker. See the broker logs for more details."
        }
        ErrorCode::PolicyViolation => "Request parameters do not satisfy the configured policy.",
        ErrorCode::PreferredLeaderNotAvailable => "The preferred leader was not available.",
        ErrorCode::EligibleLeadersNotAvailable => {
            "Eligible topic partition leaders are not available."
        }
        ErrorCode::ElectionNotNeeded => "Leader election not needed for topic partition.",
        ErrorCode::BrokerIdNotRegistered => "The given broker ID was not registered.",
        ErrorCode::KafkaStorageError => "The broker's disk failed.",
        ErrorCode::UnknownTopicId => "This server does not host this topic ID.",
        ErrorCode::InvalidRecord => "A record breaks the topic's rules.",
        ErrorCode::GroupMaxSizeReached => "The consumer group has reached its max size.",
        ErrorCode::UnknownServerError => {
            "The broker failed while it processed the request: its log says how."
        }
        _ => return None,
    })
}
