//! Bytes that Apache Kafka 4.4.0 wrote, read and written again.
//!
//! `kafka-4.4.0/` holds what a fresh single node had on disk after five topics were created (with
//! configurations), one altered, one deleted, a SCRAM user added, and 40 records produced by the
//! Java client with each codec: the segments of the metadata log and of the topic, and the
//! snapshot that formatting wrote. Then, of another such node: the group coordinator's log after a
//! classic and a consumer group had one member each for a while, the transaction coordinator's
//! after a transaction, and the partition that the transaction wrote to.

use bytes::Bytes;
use sordini_protocol::{
    batch::{Batch, Builder},
    compression::Compression,
    records::{
        control::{ControlRecord, EndTxnMarker},
        group::GroupRecord,
        metadata::MetadataRecord,
        transaction::TransactionRecord,
    },
    validate::{self, Rules},
};

const LIMIT: usize = 1 << 20;

#[test]
fn what_the_java_client_produced_is_read_whatever_its_codec() {
    let batches = Batch::split(Bytes::from_static(include_bytes!(
        "kafka-4.4.0/records.log"
    )))
    .unwrap();
    assert_eq!(
        batches
            .iter()
            .map(|batch| batch.header().compression())
            .collect::<Vec<_>>(),
        Compression::ALL
    );

    let mut next_offset = 0;
    for batch in &batches {
        let header = batch.header();
        assert!(header.has_producer());
        for record in batch.records(LIMIT).unwrap() {
            let record = record.unwrap();
            assert_eq!(record.offset, next_offset);
            assert_eq!((record.key, record.value.unwrap().len()), (None, 300));
            assert!((header.base_timestamp..=header.max_timestamp).contains(&record.timestamp));
            next_offset += 1;
        }
        assert_eq!(next_offset, header.next_offset());
    }
    assert_eq!(next_offset, 200);
}

#[test]
fn what_the_java_client_produced_passes_for_a_clients_batch() {
    let rules = Rules {
        keyed: false,
        timestamps: Some(0..=i64::MAX),
        decompressed_max: LIMIT,
    };
    for batch in Batch::split(Bytes::from_static(include_bytes!(
        "kafka-4.4.0/records.log"
    )))
    .unwrap()
    {
        // As it was when it came: at offset 0, and without a leader epoch.
        let mut bytes = batch.stamped(0, -1).to_vec();
        bytes.extend_from_slice(&batch.records_bytes());
        let batch = Batch::parse(bytes.into()).unwrap();
        let summary = validate::client_batch(&batch, &rules).unwrap();
        assert_eq!(summary.max_timestamp, batch.header().max_timestamp);
        assert!(summary.records_size > 40 * 300);
    }
}

#[test]
fn an_uncompressed_batch_is_built_byte_for_byte_as_the_java_client_builds_it() {
    let batches = Batch::split(Bytes::from_static(include_bytes!(
        "kafka-4.4.0/records.log"
    )))
    .unwrap();
    let theirs = &batches[0];
    assert_eq!(again(theirs).bytes(), theirs.bytes());
}

#[test]
fn every_record_of_the_metadata_log_is_read_and_written_byte_for_byte() {
    let batches = Batch::split(Bytes::from_static(include_bytes!(
        "kafka-4.4.0/metadata.log"
    )))
    .unwrap();
    let mut names: Vec<&str> = batches.iter().flat_map(read_and_written).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(
        names,
        [
            "BeginTransactionRecord",
            "BrokerRegistrationChangeRecord",
            "ConfigRecord",
            "EndTransactionRecord",
            "FeatureLevelRecord",
            "NoOpRecord",
            "PartitionChangeRecord",
            "PartitionRecord",
            "ProducerIdsRecord",
            "RegisterBrokerRecord",
            "RegisterControllerRecord",
            "RemoveTopicRecord",
            "TopicRecord",
            "UserScramCredentialRecord",
            "control",
        ]
    );
    for batch in &batches {
        assert_eq!(again(batch).bytes(), batch.bytes());
    }
}

#[test]
fn a_snapshot_is_read_and_written_byte_for_byte() {
    let batches = Batch::split(Bytes::from_static(include_bytes!(
        "kafka-4.4.0/bootstrap.checkpoint"
    )))
    .unwrap();
    let first = batches
        .first()
        .unwrap()
        .records(LIMIT)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let last = batches
        .last()
        .unwrap()
        .records(LIMIT)
        .unwrap()
        .last()
        .unwrap()
        .unwrap();
    let control = |record: sordini_protocol::record::Record| {
        ControlRecord::decode(record.key.unwrap(), record.value.unwrap()).unwrap()
    };
    assert!(matches!(control(first), ControlRecord::SnapshotHeader(_)));
    assert!(matches!(control(last), ControlRecord::SnapshotFooter(_)));
    for batch in &batches {
        read_and_written(batch);
    }
}

#[test]
fn every_record_of_the_coordinators_logs_is_read_and_written_byte_for_byte() {
    let log = Bytes::from_static(include_bytes!("kafka-4.4.0/groups.log"));
    let written = records(log, |key, value, version| {
        let record = GroupRecord::decode(key, value).unwrap();
        assert!(!matches!(record, GroupRecord::Unknown(_)));
        record.encoded(version).unwrap()
    });
    assert_eq!(written, 15);

    let log = Bytes::from_static(include_bytes!("kafka-4.4.0/transactions.log"));
    let written = records(log, |key, value, version| {
        let record = TransactionRecord::decode(key, value).unwrap();
        assert!(!matches!(record, TransactionRecord::Unknown(_)));
        record.encoded(version).unwrap()
    });
    assert!(written >= 4, "begun, prepared, completed");
}

#[test]
fn a_transaction_ends_with_its_marker() {
    let log = Bytes::from_static(include_bytes!("kafka-4.4.0/transactional-records.log"));
    let batches = Batch::split(log).unwrap();
    let (marker, data) = batches.split_last().unwrap();
    for batch in data {
        assert!(batch.header().is_transactional() && !batch.header().is_control());
    }
    assert!(marker.header().is_transactional() && marker.header().is_control());
    assert_eq!(marker.header().producer_id, data[0].header().producer_id);
    assert_eq!(read_and_written(marker), ["control"]);
    let record = marker.records(LIMIT).unwrap().next().unwrap().unwrap();
    assert_eq!(
        ControlRecord::decode(record.key.unwrap(), record.value.unwrap()),
        Ok(ControlRecord::Commit(EndTxnMarker {
            coordinator_epoch: 0
        }))
    );
    assert_eq!(again(marker).bytes(), marker.bytes());
}

/// Has each record of a coordinator's log decoded and encoded again; returns how many there are.
fn records(
    log: Bytes,
    again: impl Fn(Bytes, Option<Bytes>, i16) -> (Bytes, Option<Bytes>),
) -> usize {
    let mut count = 0;
    for batch in Batch::split(log).unwrap() {
        for record in batch.records(LIMIT).unwrap().map(Result::unwrap) {
            let key = record.key.unwrap();
            let version = record
                .value
                .as_ref()
                .map_or(0, |value| i16::from_be_bytes([value[0], value[1]]));
            assert_eq!(
                again(key.clone(), record.value.clone(), version),
                (key, record.value)
            );
            count += 1;
        }
    }
    count
}

/// Decodes each record of a batch and encodes it again; returns what they are.
fn read_and_written(batch: &Batch) -> Vec<&'static str> {
    let is_control = batch.header().is_control();
    let records = batch.records(LIMIT).unwrap().map(Result::unwrap);
    records
        .map(|record| {
            let value = record.value.unwrap();
            if is_control {
                let key = record.key.unwrap();
                let decoded = ControlRecord::decode(key.clone(), value.clone()).unwrap();
                assert!(!matches!(decoded, ControlRecord::Unknown(_)));
                assert_eq!(decoded.encode(), (key, value));
                return "control";
            }
            let decoded = MetadataRecord::decode(value.clone()).unwrap();
            let version = i16::from(value[2]);
            assert_eq!(
                decoded.encode_version(version).unwrap(),
                value,
                "{decoded:?}"
            );
            decoded.name()
        })
        .collect()
}

/// The batch built anew from its records.
fn again(batch: &Batch) -> Batch {
    let mut builder = Builder::like(batch.header());
    for record in batch.records(LIMIT).unwrap().map(Result::unwrap) {
        let headers: Vec<_> = record.headers.iter().collect();
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (&name[..], value.as_deref()))
            .collect();
        builder.push_at(
            record.offset_delta,
            record.timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            &headers,
        );
    }
    builder.build().unwrap()
}
