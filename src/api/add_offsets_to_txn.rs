//! AddOffsetsToTxn (key 25), v0-v4: make what a group commits part of a producer's transaction.
//!
//! What is added is the partition that keeps the group. Any group may be named, also one that is not there.
//!
//! Versions: v2 PRODUCER_FENCED, v4 TRANSACTION_ABORTABLE.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use protocol::error::ErrorCode;

use crate::{
    broker::Broker,
    coordinator::{Producer, transaction::request::Request},
    server::Context,
    topic_name,
};

/// First version whose clients know PRODUCER_FENCED.
const PRODUCER_FENCED: i16 = 2;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    ctx: &Context,
    req: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let code = match add(broker, req).await {
        Ok(()) => 0,
        Err(ErrorCode::ProducerFenced) if ctx.version < PRODUCER_FENCED => {
            ErrorCode::InvalidProducerEpoch.code()
        }
        Err(code) => code.code(),
    };
    AddOffsetsToTxnResponse::default().with_error_code(code)
}

async fn add(broker: &Arc<Broker>, req: AddOffsetsToTxnRequest) -> Result<(), ErrorCode> {
    if req.transactional_id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let Some(index) = broker.groups().partition_of(&req.group_id) else {
        broker.create_missing(vec![topic_name::OFFSETS.to_owned()]);
        return Err(ErrorCode::CoordinatorNotAvailable);
    };
    let transactional_id: Arc<str> = Arc::from(&**req.transactional_id);
    let request = Request::Add {
        transactional_id: Arc::clone(&transactional_id),
        producer: Producer {
            id: req.producer_id.0,
            epoch: req.producer_epoch,
        },
        partitions: BTreeMap::from([(Arc::from(topic_name::OFFSETS), BTreeSet::from([index]))]),
        client_version: 0,
    };
    let patience = broker.config().transactions.add_partitions_retry_max;
    let transactions = broker.transactions();
    transactions
        .ask_patiently(&transactional_id, request, patience, || ())
        .await?;
    Ok(())
}
