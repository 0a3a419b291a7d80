//! Records of `__transaction_state`, as Apache Kafka 4.4 writes them.

use std::{collections::BTreeSet, sync::Arc};

use protocol::records::transaction::{
    PartitionsSchema, TransactionLogKey, TransactionLogValue, TransactionRecord,
};

use super::state::{State, Status};
use crate::coordinator::Producer;

/// The row of a transactional id.
pub(super) fn row(transactional_id: &str, state: &State) -> TransactionRecord {
    let topics = state
        .partitions
        .iter()
        .map(|(topic, indexes)| PartitionsSchema {
            topic: topic.to_string(),
            partition_ids: indexes.iter().copied().collect(),
        });
    let value = TransactionLogValue {
        producer_id: state.producer.id,
        producer_epoch: state.producer.epoch,
        transaction_timeout_ms: state.timeout_ms,
        transaction_status: number(state.status),
        // A real broker leaves the list out while nothing has been begun, and only then.
        transaction_partitions: match state.status {
            Status::Empty => None,
            _ => Some(topics.collect()),
        },
        transaction_last_update_timestamp_ms: state.last_update_timestamp,
        transaction_start_timestamp_ms: state.start_timestamp,
        previous_producer_id: state.previous_producer_id,
        next_producer_id: state.next_producer_id,
        client_transaction_version: state.client_version,
        ..TransactionLogValue::default()
    };
    TransactionRecord::TransactionLog {
        key: key(transactional_id),
        value: Some(value),
    }
}

/// The transactional id is forgotten.
pub(super) fn tombstone(transactional_id: &str) -> TransactionRecord {
    TransactionRecord::TransactionLog {
        key: key(transactional_id),
        value: None,
    }
}

fn key(transactional_id: &str) -> TransactionLogKey {
    TransactionLogKey {
        transactional_id: transactional_id.to_owned(),
    }
}

/// `None` for a state that is never written.
pub(super) fn state(value: TransactionLogValue) -> Option<State> {
    let topics = value.transaction_partitions.unwrap_or_default();
    let partitions = topics.into_iter().map(|topic| {
        let indexes: BTreeSet<i32> = topic.partition_ids.into_iter().collect();
        (Arc::from(topic.topic), indexes)
    });
    Some(State {
        producer: Producer {
            id: value.producer_id,
            epoch: value.producer_epoch,
        },
        previous_producer_id: value.previous_producer_id,
        next_producer_id: value.next_producer_id,
        timeout_ms: value.transaction_timeout_ms,
        status: status(value.transaction_status)?,
        partitions: partitions.collect(),
        start_timestamp: value.transaction_start_timestamp_ms,
        last_update_timestamp: value.transaction_last_update_timestamp_ms,
        client_version: value.client_transaction_version,
    })
}

fn number(status: Status) -> i8 {
    match status {
        Status::Empty => 0,
        Status::Ongoing => 1,
        Status::PrepareCommit => 2,
        Status::PrepareAbort => 3,
        Status::CompleteCommit => 4,
        Status::CompleteAbort => 5,
    }
}

fn status(number: i8) -> Option<Status> {
    Some(match number {
        0 => Status::Empty,
        1 => Status::Ongoing,
        2 => Status::PrepareCommit,
        3 => Status::PrepareAbort,
        4 => Status::CompleteCommit,
        5 => Status::CompleteAbort,
        _ => return None,
    })
}
