//! TxnOffsetCommit (key 28), v0-v6: note down up to where a group has read, as part of a producer's transaction.
//!
//! - What is committed here is shown to nobody before the transaction has been committed, and never if it is aborted.
//! - The group's partition must have been made part of the transaction, by AddOffsetsToTxn; from v5 on it is made so
//!   by this request.
//! - Partitions that do not exist are refused here, each on its own. In the answer they stand first, as a real broker
//!   has it.
//!
//! Versions: v2 leader epoch, v3 member and generation (KIP-447), v4 TRANSACTION_ABORTABLE, v5 no AddOffsetsToTxn
//! (KIP-890), v6 topic ids instead of names, member epochs and their errors (KIP-848).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{
    error::ErrorCode,
    messages::{TxnOffsetCommitRequest, TxnOffsetCommitRequestTopic, TxnOffsetCommitResponse},
};
use storage::producers::Standing;

use super::{
    committed_topics::{By, Named, both, refuse, sort},
    error::Error,
};
use crate::{
    broker::Broker,
    coordinator::{
        Producer,
        group::request::{Ask, Sent},
        transaction::verification::{self, Client},
    },
    server::Context,
    topic_name,
};

/// First version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE: i16 = 4;

/// First version that makes the group part of the transaction.
const ADDING: i16 = 5;

/// First version that names topics by their ids.
const TOPIC_IDS: i16 = 6;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    mut req: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let asked = std::mem::take(&mut req.topics);
    let by = match ctx.version {
        TOPIC_IDS.. => By::Id,
        _ => By::Name,
    };
    let (known, refused) = sort(&broker.image(), by, asked);
    let mut answered = Vec::new();
    if !known.is_empty() {
        let named: Vec<Named> = known.iter().map(Named::new).collect();
        req.topics = known;
        answered = match commit(broker, ctx, req).await {
            Ok(answer) => answer.topics,
            Err(code) => refuse::<TxnOffsetCommitRequestTopic>(named, code),
        };
    }
    TxnOffsetCommitResponse {
        topics: both::<TxnOffsetCommitRequestTopic>(refused, answered),
        ..TxnOffsetCommitResponse::default()
    }
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
    let request = Sent::new(ctx, req).request();
    let groups = broker.groups();
    let answer = groups.ask_in_transaction(index, request, standing).await?;
    <Sent<TxnOffsetCommitRequest> as Ask>::answer(answer).ok_or(ErrorCode::UnknownServerError)
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
        id: req.producer_id,
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
