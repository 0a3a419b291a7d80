//! EndTxn (key 26), v0-v5: commit or abort a producer's transaction.
//!
//! - The answer comes when it is decided, and that has been written; the partitions are told afterwards.
//! - From v5 on the producer goes on with the epoch of the answer, and with the id, which is a new one when the
//!   epochs are used up. It is the version of the request that decides, whatever the cluster is able to do.
//! - From v5 on a transaction may be aborted that was not begun: the client cannot know whether it was.
//! - Whoever asks again, because the answer was lost, is answered as the first time.
//!
//! Versions: v2 PRODUCER_FENCED, v4 TRANSACTION_ABORTABLE, v5 a new epoch with every transaction (KIP-890).

use std::sync::Arc;

use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};
use protocol::error::ErrorCode;

use crate::{
    broker::Broker,
    coordinator::{
        Producer,
        transaction::request::{Request, Response},
    },
    server::Context,
};

/// First version whose clients know PRODUCER_FENCED.
const PRODUCER_FENCED: i16 = 2;

/// First version after which the producer has another epoch.
const BUMPS: i16 = 5;

/// There is no producer in the answer.
const NONE: Producer = Producer { id: -1, epoch: -1 };

pub(crate) async fn handle(broker: &Broker, ctx: &Context, req: EndTxnRequest) -> EndTxnResponse {
    let (code, producer) = match end(broker, ctx, &req).await {
        Ok(producer) => (0, producer),
        Err(ErrorCode::ProducerFenced) if ctx.version < PRODUCER_FENCED => {
            (ErrorCode::InvalidProducerEpoch.code(), NONE)
        }
        Err(code) => (code.code(), NONE),
    };
    let response = EndTxnResponse::default().with_error_code(code);
    if ctx.version < BUMPS {
        return response;
    }
    response
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
}

async fn end(broker: &Broker, ctx: &Context, req: &EndTxnRequest) -> Result<Producer, ErrorCode> {
    let transactional_id: Arc<str> = Arc::from(&**req.transactional_id);
    let mut new_id = None;
    loop {
        let request = Request::End {
            transactional_id: Arc::clone(&transactional_id),
            producer: Producer {
                id: req.producer_id.0,
                epoch: req.producer_epoch,
            },
            commit: req.committed,
            bumps: BUMPS <= ctx.version,
            new_id,
        };
        match broker
            .transactions()
            .ask(&transactional_id, request)
            .await?
        {
            Response::Producer(producer) => return Ok(producer),
            Response::NeedsId if new_id.is_none() => {
                let id = broker.next_producer_id().await;
                new_id = Some(id.map_err(|err| err.code())?);
            }
            _ => return Err(ErrorCode::UnknownServerError),
        }
    }
}
