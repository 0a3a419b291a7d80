//! Why a cluster did not do what it was asked, in words for the person who asked.

use std::fmt;

use protocol::error::{self, ErrorCode};
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
            None => match error::sentence(self.code) {
                Some(sentence) => f.write_str(sentence),
                None => self.code.fmt(f),
            },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_comes_without_words_is_said_in_some_or_by_its_name() {
        let said = |code, message: Option<&str>| {
            let message = message.map(str::to_owned);
            Refusal { code, message }.to_string()
        };
        let sentence = "This is not the correct controller for this cluster.";
        assert_eq!(said(ErrorCode::NotController, None), sentence);
        assert_eq!(said(ErrorCode::NotController, Some("ask 2")), "ask 2");
        assert_eq!(said(ErrorCode::SnapshotNotFound, None), "SnapshotNotFound");
        assert_eq!(
            said(ErrorCode::Unknown(999), None),
            "Unknown error code: 999"
        );
    }
}
