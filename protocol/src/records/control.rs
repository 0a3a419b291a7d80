//! Control records: what brokers and controllers write into a log about the log itself.
//!
//! Each is the only kind of record in a control batch. Its key is a version (i16, 0) and a type
//! (i16). Transaction markers may be in any log; the others are in `__cluster_metadata` and its
//! snapshots, and carry their own version as their first field.

use bytes::{Buf, BufMut, Bytes};
use uuid::Uuid;

use crate::{
    error::DecodeError,
    json::Json,
    schema::{self, Field, Form, Output, schema},
};

/// The value of a control record, by its type.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlRecord {
    /// The producer's transaction is aborted: what it wrote here since its last marker is void.
    Abort(EndTxnMarker),
    /// The producer's transaction is committed.
    Commit(EndTxnMarker),
    /// The first record of an epoch of the metadata log.
    LeaderChange(LeaderChangeMessage),
    /// The first record of a snapshot.
    SnapshotHeader(SnapshotHeaderRecord),
    /// The last record of a snapshot: without it the snapshot is not whole.
    SnapshotFooter(SnapshotFooterRecord),
    KRaftVersion(KRaftVersionRecord),
    Voters(VotersRecord),
    /// A type of a later version. Kafka passes over it.
    Unknown(i16),
}

impl ControlRecord {
    /// Understands a record of a control batch.
    pub fn decode(mut key: Bytes, value: Bytes) -> Result<ControlRecord, DecodeError> {
        let cut = |_| DecodeError::new("a control record's key ends early");
        let version = key.try_get_i16().map_err(cut)?;
        if version < 0 {
            return Err(DecodeError::new(format!(
                "a control record of version {version}"
            )));
        }
        Ok(match key.try_get_i16().map_err(cut)? {
            0 => ControlRecord::Abort(marker(value)?),
            1 => ControlRecord::Commit(marker(value)?),
            2 => ControlRecord::LeaderChange(versioned(value, 1)?),
            3 => ControlRecord::SnapshotHeader(versioned(value, 0)?),
            4 => ControlRecord::SnapshotFooter(versioned(value, 0)?),
            5 => ControlRecord::KRaftVersion(versioned(value, 0)?),
            6 => ControlRecord::Voters(versioned(value, 0)?),
            unknown => ControlRecord::Unknown(unknown),
        })
    }

    /// Its fields, as tools show them.
    pub fn json(&self) -> Json {
        match self {
            ControlRecord::Abort(marker) | ControlRecord::Commit(marker) => {
                marker.json(EndTxnMarker::form(0))
            }
            ControlRecord::LeaderChange(record) => record.json(flexible(record.version)),
            ControlRecord::SnapshotHeader(record) => record.json(flexible(record.version)),
            ControlRecord::SnapshotFooter(record) => record.json(flexible(record.version)),
            ControlRecord::KRaftVersion(record) => record.json(flexible(record.version)),
            ControlRecord::Voters(record) => record.json(flexible(record.version)),
            ControlRecord::Unknown(_) => Json::Null,
        }
    }

    /// The record's key and value. An unknown type has an empty value.
    ///
    /// # Panics
    /// If a string in it is longer than 32,767 bytes, or its version is none there is.
    pub fn encode(&self) -> (Bytes, Bytes) {
        let mut out = Output::default();
        let (key, written) = match self {
            ControlRecord::Abort(marker) => (0, put_marker(marker, &mut out)),
            ControlRecord::Commit(marker) => (1, put_marker(marker, &mut out)),
            ControlRecord::LeaderChange(record) => {
                (2, record.write(&mut out, flexible(record.version)))
            }
            ControlRecord::SnapshotHeader(record) => {
                (3, record.write(&mut out, flexible(record.version)))
            }
            ControlRecord::SnapshotFooter(record) => {
                (4, record.write(&mut out, flexible(record.version)))
            }
            ControlRecord::KRaftVersion(record) => {
                (5, record.write(&mut out, flexible(record.version)))
            }
            ControlRecord::Voters(record) => (6, record.write(&mut out, flexible(record.version))),
            ControlRecord::Unknown(key) => (*key, Ok(())),
        };
        written.unwrap_or_else(|err| panic!("a control record does not encode: {err}"));
        let mut head = Vec::with_capacity(4);
        head.put_i16(0);
        head.put_i16(key);
        (head.into(), out.bytes.into())
    }
}

fn flexible(version: i16) -> Form {
    Form {
        version,
        flexible: true,
    }
}

/// A marker has its version in front, and nothing in it is flexible.
fn marker(mut value: Bytes) -> Result<EndTxnMarker, DecodeError> {
    let version = value
        .try_get_i16()
        .map_err(|_| DecodeError::new("a transaction marker is empty"))?;
    if version < 0 {
        return Err(DecodeError::new(format!(
            "a transaction marker of version {version}"
        )));
    }
    // Later versions may add fields behind those we know, as Kafka reads it.
    EndTxnMarker::read(&mut value, EndTxnMarker::form(0))
}

fn put_marker(marker: &EndTxnMarker, out: &mut Output) -> Result<(), schema::EncodeError> {
    out.bytes.put_i16(0);
    marker.write(out, EndTxnMarker::form(0))
}

/// A message that begins with its own version.
fn versioned<T: Field>(value: Bytes, latest: i16) -> Result<T, DecodeError> {
    let version = (&value[..])
        .try_get_i16()
        .map_err(|_| DecodeError::new("a control record is empty"))?;
    if !(0..=latest).contains(&version) {
        return Err(DecodeError::new(format!(
            "a control record of version {version}"
        )));
    }
    schema::decode(value, flexible(version))
}

schema! {
    pub struct EndTxnMarker 0..=0, flexible 1 {
        /// The transaction coordinator's leader epoch.
        coordinator_epoch: i32,
    }

    pub struct LeaderChangeMessage 0..=1, flexible 0 {
        version: i16,
        leader_id: i32,
        voters: Vec<Voter>,
        granting_voters: Vec<Voter>,
    }

    pub struct Voter 0..=1, flexible 0 {
        voter_id: i32,
        voter_directory_id: Uuid [1..],
    }

    pub struct SnapshotHeaderRecord 0..=0, flexible 0 {
        version: i16,
        /// The append time (ms) of the last batch whose effect is in the snapshot.
        last_contained_log_timestamp: i64,
    }

    pub struct SnapshotFooterRecord 0..=0, flexible 0 {
        version: i16,
    }

    pub struct KRaftVersionRecord 0..=0, flexible 0 {
        version: i16,
        k_raft_version: i16,
    }

    pub struct VotersRecord 0..=0, flexible 0 {
        version: i16,
        voters: Vec<VoterNode>,
    }

    pub struct VoterNode 0..=0, flexible 0 {
        voter_id: i32,
        voter_directory_id: Uuid,
        endpoints: Vec<VoterEndpoint>,
        k_raft_version_feature: KRaftVersionFeature,
    }

    pub struct VoterEndpoint 0..=0, flexible 0 {
        /// The listener's name.
        name: String,
        host: String,
        port: u16,
    }

    pub struct KRaftVersionFeature 0..=0, flexible 0 {
        min_supported_version: i16,
        max_supported_version: i16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_marker_is_what_kafka_writes() {
        let marker = ControlRecord::Commit(EndTxnMarker {
            coordinator_epoch: 5,
        });
        let (key, value) = marker.encode();
        assert_eq!(
            (&key[..], &value[..]),
            (&b"\0\0\0\x01"[..], &b"\0\0\0\0\0\x05"[..])
        );
        assert_eq!(ControlRecord::decode(key, value), Ok(marker));
    }

    #[test]
    fn both_versions_of_a_leader_change_are_read() {
        for version in LeaderChangeMessage::VERSIONS {
            let directory = Uuid::from_u128(if version == 1 { 7 } else { 0 });
            let voter = Voter {
                voter_id: 1,
                voter_directory_id: directory,
            };
            let record = ControlRecord::LeaderChange(LeaderChangeMessage {
                version,
                leader_id: 1,
                voters: vec![voter.clone()],
                granting_voters: vec![voter],
            });
            let (key, value) = record.encode();
            assert_eq!(ControlRecord::decode(key, value), Ok(record));
        }
    }

    #[test]
    fn an_unknown_type_is_passed_on_and_a_broken_record_refused() {
        let decode = |key: &'static [u8], value: &'static [u8]| {
            ControlRecord::decode(Bytes::from_static(key), Bytes::from_static(value))
        };
        assert_eq!(
            decode(b"\0\0\0\x63", b"anything"),
            Ok(ControlRecord::Unknown(99))
        );
        assert!(decode(b"\0\0\0", b"").is_err());
        assert!(decode(b"\0\0\0\x01", b"\0\0\0").is_err());
        assert!(decode(b"\0\0\0\x02", b"\0\x09").is_err());
    }
}
