//! InitProducerId (key 22), v0-v5: an id under which a producer numbers its batches, so that a retry is
//! recognised and nothing is written twice.
//!
//! - Without a transactional id every request gets an id of its own, at epoch 0. A producer that asks
//!   anew because its sequences are beyond repair (v3) gets a new id too: nothing is remembered of the old.
//! - Ids come in blocks from the controller, which writes each block down first. What is left of a block
//!   when the broker stops is never given out.
//! - With a transactional id this is the first step of a transaction, and this broker coordinates none.
//!
//! Versions: v3 a producer's former id and epoch (KIP-360).

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::error::Error;
use crate::{broker::Broker, server::Context};

/// In a request: not known. In an answer: none given.
const NO_ID: i64 = -1;
const NO_EPOCH: i16 = -1;

pub(crate) async fn handle(
    broker: &Broker,
    _ctx: &Context,
    req: InitProducerIdRequest,
) -> InitProducerIdResponse {
    match init(broker, &req).await {
        Ok(id) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(0),
        Err(err) => InitProducerIdResponse::default()
            .with_error_code(err.code().code())
            .with_producer_id(ProducerId(NO_ID))
            .with_producer_epoch(NO_EPOCH),
    }
}

async fn init(broker: &Broker, req: &InitProducerIdRequest) -> Result<i64, Error> {
    if (req.producer_id.0 == NO_ID) != (req.producer_epoch == NO_EPOCH) {
        return Err(Error::InvalidRequest(
            "a producer id and an epoch belong together",
        ));
    }
    match &req.transactional_id {
        None => broker.next_producer_id().await,
        Some(id) if id.is_empty() => Err(Error::InvalidRequest("the transactional id is empty")),
        Some(_)
            if !broker
                .config()
                .is_transaction_timeout(req.transaction_timeout_ms) =>
        {
            Err(Error::InvalidTransactionTimeout)
        }
        Some(_) => Err(Error::NotCoordinator),
    }
}
