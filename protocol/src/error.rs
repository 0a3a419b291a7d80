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
