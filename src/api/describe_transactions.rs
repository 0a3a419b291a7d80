//! DescribeTransactions (key 65), v0: what transactional ids are doing (KIP-664).
//!
//! Every id is answered on its own, by its coordinator.

use std::{collections::HashSet, sync::Arc};

use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse,
    describe_transactions_response::TransactionState,
};
use protocol::error::ErrorCode;

use super::again::{self, Room};
use crate::{
    broker::Broker,
    coordinator::transaction::request::{Request, Response},
    server::Context,
};

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let mut states = Vec::with_capacity(req.transactional_ids.len());
    let (mut named, mut room) = (HashSet::new(), Room::default());
    for transactional_id in req.transactional_ids {
        let is_new = named.insert(transactional_id.clone());
        if !is_new && !room.is_left() {
            states.push(refused(again::REFUSED).with_transactional_id(transactional_id));
            continue;
        }
        let request = Request::Describe(Arc::from(&**transactional_id));
        let described = match broker.transactions().ask(&transactional_id, request).await {
            Ok(Response::Described(described)) => *described,
            Ok(_) => refused(ErrorCode::UnknownServerError),
            Err(code) => refused(code),
        };
        let described = described.with_transactional_id(transactional_id);
        if !is_new {
            room.take(&described, ctx.version);
        }
        states.push(described);
    }
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

fn refused(code: ErrorCode) -> TransactionState {
    TransactionState::default().with_error_code(code.code())
}
