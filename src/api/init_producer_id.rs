//! InitProducerId (key 22), v0-v5: an id and an epoch under which a producer numbers its batches, so that a retry is
//! recognised and nothing is written twice.
//!
//! - Without a transactional id every request gets an id of its own, at epoch 0. A producer that asks
//!   anew because its sequences are beyond repair (v3) gets a new id too: nothing is remembered of the old.
//! - Ids come in blocks from the controller, which writes each block down first. What is left of a block
//!   when the broker stops is never given out.
//! - A transactional id keeps its producer id, and gets another epoch: who has had it before is fenced. What that one
//!   has left unfinished is aborted first, and CONCURRENT_TRANSACTIONS has the new one come again.
//! - Who goes on after an error says who it is (v3) and is fenced itself if another one has come since.
//!
//! Versions: v3 a producer's former id and epoch (KIP-360), v4 PRODUCER_FENCED.

use std::sync::Arc;

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use protocol::error::ErrorCode;

use super::error::Error;
use crate::{
    broker::Broker,
    coordinator::{
        Producer,
        transaction::request::{Request, Response},
    },
    server::Context,
};

/// In a request: not known. In an answer: none given.
const NO_ID: i64 = -1;
const NO_EPOCH: i16 = -1;

/// First version whose clients know PRODUCER_FENCED.
const PRODUCER_FENCED: i16 = 4;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |code: ErrorCode| {
        let code = match code {
            ErrorCode::ProducerFenced if ctx.version < PRODUCER_FENCED => {
                ErrorCode::InvalidProducerEpoch
            }
            code => code,
        };
        InitProducerIdResponse::default()
            .with_error_code(code.code())
            .with_producer_id(ProducerId(NO_ID))
            .with_producer_epoch(NO_EPOCH)
    };
    match init(broker, &req).await {
        Ok(producer) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch),
        Err(err) => refused(err.code()),
    }
}

async fn init(broker: &Broker, req: &InitProducerIdRequest) -> Result<Producer, Error> {
    let is_known = req.producer_id.0 != NO_ID;
    if is_known != (req.producer_epoch != NO_EPOCH) {
        return Err(Error::InvalidRequest(
            "a producer id and an epoch belong together",
        ));
    }
    let Some(transactional_id) = &req.transactional_id else {
        let id = broker.next_producer_id().await?;
        return Ok(Producer { id, epoch: 0 });
    };
    if transactional_id.is_empty() {
        return Err(Error::InvalidRequest("the transactional id is empty"));
    }
    let config = broker.config();
    if !config.transactions.is_timeout(req.transaction_timeout_ms) {
        return Err(Error::InvalidTransactionTimeout);
    }
    drop(config);
    let transactional_id: Arc<str> = Arc::from(&***transactional_id);
    let mut new_id = None;
    loop {
        let request = Request::Init {
            transactional_id: Arc::clone(&transactional_id),
            expected: is_known.then_some(Producer {
                id: req.producer_id.0,
                epoch: req.producer_epoch,
            }),
            timeout_ms: req.transaction_timeout_ms,
            new_id,
        };
        let answer = broker.transactions().ask(&transactional_id, request).await;
        match answer.map_err(|code| Error::Transaction(code, None))? {
            Response::Producer(producer) => return Ok(producer),
            Response::NeedsId if new_id.is_none() => {
                new_id = Some(broker.next_producer_id().await?);
            }
            _ => return Err(Error::Nonsense("the coordinator answers something else")),
        }
    }
}
