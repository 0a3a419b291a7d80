//! The records of `__transaction_state`: for each transactional id, its whole state.

use bytes::Bytes;

use crate::{
    error::DecodeError,
    json::Json,
    records::coordinator_records,
    schema::{self, EncodeError, Field, schema},
};

coordinator_records! {
    /// A record of the transaction coordinator's log.
    TransactionRecord {
        TransactionLog(TransactionLogKey, TransactionLogValue) = 0,
    }
}

// Keys have no flexible version, and no version but 0.
schema! {
    pub struct TransactionLogKey 0..=0, flexible 1 {
        transactional_id: String,
    }

    pub struct TransactionLogValue 0..=1, flexible 1 {
        producer_id: i64,
        previous_producer_id: i64 [1.., tag 0] = -1,
        next_producer_id: i64 [1.., tag 1] = -1,
        producer_epoch: i16,
        next_producer_epoch: i16 [1.., tag 3] = -1,
        transaction_timeout_ms: i32,
        /// 0 Empty, 1 Ongoing, 2 PrepareCommit, 3 PrepareAbort, 4 CompleteCommit, 5 CompleteAbort,
        /// 6 Dead, 7 PrepareEpochFence.
        transaction_status: i8,
        transaction_partitions: Option<Vec<PartitionsSchema>> = Some(Vec::new()),
        transaction_last_update_timestamp_ms: i64,
        transaction_start_timestamp_ms: i64,
        /// 2 or higher if the client bumps its epoch with every transaction (KIP-890).
        client_transaction_version: i16 [1.., tag 2],
    }

    pub struct PartitionsSchema 0..=1, flexible 1 {
        topic: String,
        partition_ids: Vec<i32>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_read_back_from_its_newest_version() {
        for record in one_of_each() {
            let (key, value) = record.encoded(record.latest_version()).unwrap();
            assert_eq!(TransactionRecord::decode(key, value), Ok(record));
        }
    }

    #[test]
    fn version_0_has_fixed_sizes_and_no_place_for_what_kip_890_added() {
        let key = TransactionLogKey {
            transactional_id: "t".into(),
        };
        let partitions = vec![PartitionsSchema {
            topic: "a".into(),
            partition_ids: vec![3],
        }];
        let value = TransactionLogValue {
            producer_id: 7,
            producer_epoch: 2,
            transaction_partitions: Some(partitions),
            ..TransactionLogValue::default()
        };
        let newer = TransactionLogValue {
            next_producer_epoch: 3,
            ..value.clone()
        };
        let record = TransactionRecord::TransactionLog {
            key: key.clone(),
            value: Some(value),
        };
        let (encoded_key, encoded_value) = record.encoded(0).unwrap();
        assert_eq!(encoded_key, &b"\0\0\0\x01t"[..]);
        let expected = b"\0\0\0\0\0\0\0\0\0\x07\0\x02\0\0\0\0\0\
            \0\0\0\x01\0\x01a\0\0\0\x01\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(encoded_value.as_deref(), Some(&expected[..]));
        assert_eq!(
            TransactionRecord::decode(encoded_key, encoded_value),
            Ok(record)
        );

        let record = TransactionRecord::TransactionLog {
            key,
            value: Some(newer),
        };
        assert!(record.encoded(0).is_err());
    }
}
