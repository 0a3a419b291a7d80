//! Why a cluster did not do what it was asked, in words for the person who asked.

use std::fmt;

use protocol::error::ErrorCode;
use replication::peer;

#[derive(Debug)]
pub(crate) enum Error {
    /// What was given as a server is not `host:port`.
    Address(String),
    /// None of the servers that were given answers.
    Bootstrap(peer::Error),
    /// A broker is not where it says it is.
    Advertised { node: i32, source: peer::Error },
    /// A broker that was there is not there now.
    Unreachable { node: i32, source: peer::Error },
    /// A connection that worked does no longer, or the broker does not serve the request.
    Peer(peer::Error),
    /// The cluster has no broker with this number.
    NoBroker(i32),
    /// A broker understood the request and says no.
    Refused(Refusal),
    /// A setting for the connection (`--command-config`) cannot be had.
    Setting(String),
}

/// An error code in an answer, and what the broker said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: Option<String>,
}

impl From<peer::Error> for Error {
    fn from(err: peer::Error) -> Self {
        Self::Peer(err)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Error {
    /// Is it only that a broker cannot be reached, as while it restarts?
    pub(crate) fn is_away(&self) -> bool {
        match self {
            Self::Bootstrap(_)
            | Self::Advertised { .. }
            | Self::Unreachable { .. }
            | Self::NoBroker(_) => true,
            Self::Peer(err) => is_broken_off(err),
            Self::Address(_) | Self::Refused(_) | Self::Setting(_) => false,
        }
    }

    /// May a broker have got the request all the same?
    pub(crate) fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Peer(err) if is_broken_off(err))
    }

    /// The error as Kafka's tools show one in the midst of a sentence: the exception's name where it came from a
    /// broker.
    pub(crate) fn with_exception(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.with_exception(),
            _ => self.to_string(),
        }
    }
}

impl Refusal {
    /// `org.apache.kafka.common.errors.GroupNotEmptyException: The group is not empty.`
    pub(crate) fn with_exception(&self) -> String {
        format!(
            "org.apache.kafka.common.errors.{}: {self}",
            exception(self.code)
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => f.write_str(message),
            None => f.write_str(sentence(self.code)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(
                f,
                "'{address}' is not a server's address: host:port is expected, as in localhost:9092"
            ),
            Self::Bootstrap(err) => {
                with_cause(f, err)?;
                f.write_str(match err {
                    peer::Error::Connect { .. } => {
                        ". Is a broker running, and is this the address of its listener?"
                    }
                    peer::Error::Address { .. } => ". Is the host's name right?",
                    peer::Error::NotKafka { .. } | peer::Error::Closed { .. } => {
                        ". Is this the port of a PLAINTEXT listener? TLS and SASL are not spoken by these tools yet"
                    }
                    _ => "",
                })
            }
            Self::Advertised { node, source } => {
                write!(f, "broker {node} is not where it advertises itself: ")?;
                with_cause(f, source)?;
                f.write_str(". Its advertised.listeners says where clients find it")
            }
            Self::Unreachable { node, source } => {
                write!(f, "broker {node} cannot be reached: ")?;
                with_cause(f, source)
            }
            Self::Peer(err) => with_cause(f, err),
            Self::NoBroker(node) => write!(f, "the cluster has no broker {node}"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Setting(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

/// Did a connection end, or keep silent, before the answer came?
fn is_broken_off(err: &peer::Error) -> bool {
    matches!(
        err,
        peer::Error::Closed { .. } | peer::Error::Io { .. } | peer::Error::Silent { .. }
    )
}

fn with_cause(f: &mut fmt::Formatter<'_>, err: &peer::Error) -> fmt::Result {
    write!(f, "{err}")?;
    match std::error::Error::source(err) {
        Some(cause) => write!(f, ": {cause}"),
        None => Ok(()),
    }
}

/// What Kafka's Java clients call the error; scripts look for these names.
fn exception(code: ErrorCode) -> String {
    match code {
        ErrorCode::NonEmptyGroup => "GroupNotEmptyException".to_owned(),
        ErrorCode::TopicAlreadyExists => "TopicExistsException".to_owned(),
        ErrorCode::InvalidTopicException => "InvalidTopicException".to_owned(),
        ErrorCode::InvalidConfig => "InvalidConfigurationException".to_owned(),
        ErrorCode::RequestTimedOut => "TimeoutException".to_owned(),
        ErrorCode::MessageTooLarge => "RecordTooLargeException".to_owned(),
        ErrorCode::RecordListTooLarge => "RecordBatchTooLargeException".to_owned(),
        ErrorCode::UnsupportedVersion => "UnsupportedVersionException".to_owned(),
        ErrorCode::ResourceNotFound => "ResourceNotFoundException".to_owned(),
        ErrorCode::KafkaStorageError => "KafkaStorageException".to_owned(),
        ErrorCode::Unknown(code) => format!("UnknownServerException (code {code})"),
        ErrorCode::UnknownServerError => "UnknownServerException".to_owned(),
        named => format!("{named}Exception"),
    }
}

/// What the code means, where a broker sends no words with it.
fn sentence(code: ErrorCode) -> &'static str {
    match code {
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
        _ => "The broker gives no reason.",
    }
}
