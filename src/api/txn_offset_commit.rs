//! TxnOffsetCommit (key 28), v0-v5: note down up to where a group has read, as part of a producer's transaction.
//!
//! - What is committed here is shown to nobody before the transaction has been committed, and never if it is aborted.
//! - The group's partition must have been made part of the transaction, by AddOffsetsToTxn; from v5 on it is made so
//!   by this request.
//! - Partitions that do not exist are refused here, each on its own.
//!
//! Versions: v2 leader epoch, v3 member and generation (KIP-447), v4 TRANSACTION_ABORTABLE, v5 no AddOffsetsToTxn
//! (KIP-890).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kafka_protocol::messages::{
    TxnOffsetCommitRequest, TxnOffsetCommitResponse,
    txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
    txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic},
};
use protocol::error::ErrorCode;
use storage::producers::Standing;

use super::error::Error;
use crate::{
    broker::Broker,
    coordinator::{
        Producer,
        group::request::{Ask, From},
        transaction::verification::{self, Client},
    },
    server::Context,
    topic_name,
};

/// First version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE: i16 = 4;

/// First version that makes the group part of the transaction.
const ADDING: i16 = 5;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    mut req: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let (known, mut answers) = sort(broker, std::mem::take(&mut req.topics));
    if !known.is_empty() {
        req.topics = known.clone();
        match commit(broker, ctx, req).await {
            Ok(answer) => answers.extend(answer.topics),
            Err(code) => answers.extend(known.iter().map(|topic| all(topic, code))),
        }
    }
    TxnOffsetCommitResponse::default().with_topics(answers)
}

async fn commit(
    broker: &Broker,
    ctx: &Context,
    req: TxnOffsetCommitRequest,
) -> Result<TxnOffsetCommitResponse, ErrorCode> {
    if req.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let index = broker.groups().partition_of(&req.group_id);
    let index = index.ok_or(ErrorCode::NotCoordinator)?;
    let client = Client::of(ctx.version, ABORTABLE, ADDING);
    let must_be_verified = broker.config().transactions.partition_verification_enable;
    let standing = match must_be_verified || client == Client::Adding {
        true => verified(broker, ctx, client, index, &req).await?,
        false => Standing::Unverified,
    };
    let request = From::new(ctx, req).request();
    let groups = broker.groups();
    let answer = groups.ask_in_transaction(index, request, standing).await?;
    <From<TxnOffsetCommitRequest> as Ask>::answer(answer).ok_or(ErrorCode::UnknownServerError)
}

/// Is the partition that keeps the group part of the transaction?
async fn verified(
    broker: &Broker,
    ctx: &Context,
    client: Client,
    index: i32,
    req: &TxnOffsetCommitRequest,
) -> Result<Standing, ErrorCode> {
    let producer = Producer {
        id: req.producer_id.0,
        epoch: req.producer_epoch,
    };
    let partition = broker.partition(topic_name::OFFSETS, index);
    let partition = partition.map_err(|_| ErrorCode::NotCoordinator)?;
    let look = || {
        let standing = partition.standing(producer.id, producer.epoch, client.bumps(), ctx.now);
        standing.map_err(|err| match Error::from(err).code() {
            code @ ErrorCode::InvalidProducerEpoch => code,
            _ => ErrorCode::NotCoordinator,
        })
    };
    let mut standing = look();
    if matches!(standing, Err(_) | Ok(Standing::Open)) {
        return standing;
    }
    let partitions = BTreeMap::from([(Arc::from(topic_name::OFFSETS), BTreeSet::from([index]))]);
    let id = &req.transactional_id;
    let verified = verification::verify(broker, client, id, producer, partitions, || {
        standing = look();
    });
    let (missing, refusal) = verified.await?;
    match missing.is_empty() {
        true => standing,
        false => Err(refusal),
    }
}

/// What exists, and an answer for what does not.
fn sort(
    broker: &Broker,
    asked: Vec<TxnOffsetCommitRequestTopic>,
) -> (
    Vec<TxnOffsetCommitRequestTopic>,
    Vec<TxnOffsetCommitResponseTopic>,
) {
    let image = broker.image();
    let mut known = Vec::with_capacity(asked.len());
    let mut refused = Vec::new();
    for mut topic in asked {
        let exists = |partition: &TxnOffsetCommitRequestPartition| {
            let index = partition.partition_index;
            image.partition(&topic.name, index).is_some()
        };
        let (there, missing): (Vec<_>, Vec<_>) = std::mem::take(&mut topic.partitions)
            .into_iter()
            .partition(exists);
        if !missing.is_empty() {
            topic.partitions = missing;
            refused.push(all(&topic, ErrorCode::UnknownTopicOrPartition));
        }
        if !there.is_empty() {
            topic.partitions = there;
            known.push(topic);
        }
    }
    (known, refused)
}

/// The same code for every partition of a topic.
fn all(topic: &TxnOffsetCommitRequestTopic, code: ErrorCode) -> TxnOffsetCommitResponseTopic {
    let partitions = topic.partitions.iter().map(|partition| {
        TxnOffsetCommitResponsePartition::default()
            .with_partition_index(partition.partition_index)
            .with_error_code(code.code())
    });
    TxnOffsetCommitResponseTopic::default()
        .with_name(topic.name.clone())
        .with_partitions(partitions.collect())
}
