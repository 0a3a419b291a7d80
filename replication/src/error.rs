//! Why the controller refused or failed. No Kafka codes: `src/api/error.rs` turns these into them.
//!
//! A [`Refusal`] is an answer: the request was understood, and this part of it will not be done. An
//! [`Error`] means that the controller could not do its work.

use std::{fmt, io, path::PathBuf};

use crate::cluster::ReplayError;

/// The controller could not do its work; one variant for each thing a caller can do about it.
#[derive(Debug)]
pub enum Error {
    /// Another node is the controller, or none is known: ask it, or later.
    NotController { leader: Option<i32> },
    /// It is shutting down, or has stopped after a failure that was logged.
    Stopped,
    /// What was asked does not fit a metadata record, or its records no batch.
    TooLarge(String),
    /// It cannot start with this configuration or this directory. The text says what to change.
    Setup(String),
    /// The metadata log does not hold what its writer decided on.
    Corrupt(String),
    /// The metadata log's directory failed.
    Storage(storage::error::Error),
    /// The database with Raft's log and vote failed.
    Database(rocksdb::Error),
    Io {
        op: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// Why one part of a request will not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    /// As Apache Kafka words it; `None` where it sends none either.
    pub message: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    BrokerIdNotRegistered,
    DuplicateBrokerRegistration,
    ElectionNotNeeded,
    EligibleLeadersNotAvailable,
    InconsistentClusterId,
    InvalidConfig,
    InvalidPartitions,
    InvalidRegistration,
    InvalidReplicaAssignment,
    InvalidReplicationFactor,
    InvalidRequest,
    InvalidTopic,
    InvalidUpdateVersion,
    PolicyViolation,
    PreferredLeaderNotAvailable,
    StaleBrokerEpoch,
    TopicAlreadyExists,
    UnknownServerError,
    UnknownTopicId,
    UnknownTopicOrPartition,
    UnsupportedVersion,
}

impl Refusal {
    pub fn new(reason: Reason, message: impl Into<String>) -> Refusal {
        Refusal {
            reason,
            message: Some(message.into()),
        }
    }

    pub fn bare(reason: Reason) -> Refusal {
        Refusal {
            reason,
            message: None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{:?}: {message}", self.reason),
            None => write!(f, "{:?}", self.reason),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotController { leader: Some(id) } => {
                write!(f, "the active controller is node {id}")
            }
            Error::NotController { leader: None } => f.write_str("no active controller is known"),
            Error::Stopped => f.write_str("the controller has stopped"),
            Error::TooLarge(what) => write!(f, "too large for the metadata log: {what}"),
            Error::Setup(text) | Error::Corrupt(text) => f.write_str(text),
            Error::Storage(err) => write!(f, "metadata log: {err}"),
            Error::Database(err) => write!(f, "controller database: {err}"),
            Error::Io { op, path, source } => write!(f, "{op} {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Storage(err) => Some(err),
            Error::Database(err) => Some(err),
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<storage::error::Error> for Error {
    fn from(err: storage::error::Error) -> Error {
        Error::Storage(err)
    }
}

impl From<rocksdb::Error> for Error {
    fn from(err: rocksdb::Error) -> Error {
        Error::Database(err)
    }
}

impl From<ReplayError> for Error {
    fn from(err: ReplayError) -> Error {
        Error::Corrupt(err.to_string())
    }
}
