//! AddPartitionsToTxn (key 24), v0-v5: make partitions part of a producer's transaction, which begins with the first.
//!
//! - Producers send v0-v3, for one transaction. Leaders of partitions send v4 and v5, for many, also only to learn
//!   whether a partition is part of one.
//! - All partitions of a transaction are added or none: if one does not exist, or is of a topic that belongs to the
//!   brokers, the others are answered OPERATION_NOT_ATTEMPTED.
//! - While the markers of the transaction before are on their way the producer has to come again.
//!
//! Versions: v2 PRODUCER_FENCED, v4 batches (KIP-890), v5 TRANSACTION_ABORTABLE.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, TopicName, TransactionalId,
    add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
    add_partitions_to_txn_response::{
        AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
    },
};
use protocol::error::ErrorCode;
use replication::cluster::ClusterImage;

use crate::{
    broker::Broker,
    coordinator::{
        Producer,
        transaction::{
            request::{Request, Response},
            state::{BUMPING, Partitions},
        },
    },
    server::Context,
    topic_name,
};

/// First version in which leaders ask for many transactions.
const BATCHES: i16 = 4;

/// First version whose clients know PRODUCER_FENCED.
const PRODUCER_FENCED: i16 = 2;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    if BATCHES <= ctx.version {
        let mut results = Vec::with_capacity(req.transactions.len());
        for transaction in req.transactions {
            let id = transaction.transactional_id.clone();
            results.push(
                AddPartitionsToTxnResult::default()
                    .with_transactional_id(id)
                    .with_topic_results(answer(broker, ctx, transaction, BUMPING).await),
            );
        }
        return AddPartitionsToTxnResponse::default().with_results_by_transaction(results);
    }
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(req.v3_and_below_transactional_id)
        .with_producer_id(req.v3_and_below_producer_id)
        .with_producer_epoch(req.v3_and_below_producer_epoch)
        .with_topics(req.v3_and_below_topics);
    AddPartitionsToTxnResponse::default()
        .with_results_by_topic_v3_and_below(answer(broker, ctx, transaction, 0).await)
}

/// One transaction's share of the answer.
async fn answer(
    broker: &Broker,
    ctx: &Context,
    transaction: AddPartitionsToTxnTransaction,
    client_version: i16,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let AddPartitionsToTxnTransaction {
        transactional_id,
        producer_id,
        producer_epoch,
        verify_only,
        topics,
        ..
    } = transaction;
    if transactional_id.is_empty() {
        return results(&topics, |_, _| Some(ErrorCode::InvalidRequest));
    }
    let image = broker.image();
    let may_not = |topic: &TopicName, index: i32| check(&image, topic, index);
    let refused = |topic: &AddPartitionsToTxnTopic| {
        let mut indexes = topic.partitions.iter();
        indexes.any(|&index| may_not(&topic.name, index).is_some())
    };
    if topics.iter().any(refused) {
        let not_attempted = Some(ErrorCode::OperationNotAttempted);
        return results(&topics, |topic, index| {
            may_not(topic, index).or(not_attempted)
        });
    }
    let producer = Producer {
        id: producer_id.0,
        epoch: producer_epoch,
    };
    let asked = ask(
        broker,
        &transactional_id,
        producer,
        &topics,
        verify_only,
        client_version,
    );
    match asked.await {
        Ok(missing) => results(&topics, |topic, index| {
            let is_missing = missing
                .get(&***topic)
                .is_some_and(|indexes| indexes.contains(&index));
            is_missing.then_some(ErrorCode::TransactionAbortable)
        }),
        Err(ErrorCode::ProducerFenced) if ctx.version < PRODUCER_FENCED => {
            results(&topics, |_, _| Some(ErrorCode::InvalidProducerEpoch))
        }
        Err(code) => results(&topics, |_, _| Some(code)),
    }
}

/// Why the partition cannot be part of any transaction of a producer's own.
fn check(image: &ClusterImage, topic: &str, index: i32) -> Option<ErrorCode> {
    if topic_name::is_internal(topic) {
        return Some(ErrorCode::TopicAuthorizationFailed);
    }
    match image.partition(topic, index) {
        Some(_) => None,
        None => Some(ErrorCode::UnknownTopicOrPartition),
    }
}

/// Returns the partitions that were to be part of the transaction and are not.
async fn ask(
    broker: &Broker,
    transactional_id: &TransactionalId,
    producer: Producer,
    topics: &[AddPartitionsToTxnTopic],
    verify_only: bool,
    client_version: i16,
) -> Result<Partitions, ErrorCode> {
    let mut partitions: Partitions = BTreeMap::new();
    for topic in topics {
        let indexes = partitions.entry(Arc::from(&**topic.name)).or_default();
        indexes.extend(&topic.partitions);
    }
    let id: Arc<str> = Arc::from(&***transactional_id);
    let (request, patience) = match verify_only {
        true => {
            let request = Request::Verify {
                transactional_id: Arc::clone(&id),
                producer,
                partitions,
            };
            (request, Duration::ZERO)
        }
        false => {
            let request = Request::Add {
                transactional_id: Arc::clone(&id),
                producer,
                partitions,
                client_version,
            };
            (
                request,
                broker.config().transactions.add_partitions_retry_max,
            )
        }
    };
    match broker
        .transactions()
        .ask_patiently(&id, request, patience, || ())
        .await?
    {
        Response::Missing(missing) => Ok(missing),
        _ => Ok(Partitions::new()),
    }
}

fn results(
    topics: &[AddPartitionsToTxnTopic],
    code: impl Fn(&TopicName, i32) -> Option<ErrorCode>,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let topics = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|&index| {
            let code = code(&topic.name, index).map_or(0, |code| code.code());
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(index)
                .with_partition_error_code(code)
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    topics.collect()
}
