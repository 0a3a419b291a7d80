//! DescribeTransactions (key 65), v0: what transactional ids are doing (KIP-664).
//!
//! Every id is answered on its own, by its coordinator.

use std::sync::Arc;

use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse,
    describe_transactions_response::TransactionState,
};
use protocol::error::ErrorCode;

use crate::{
    broker::Broker,
    coordinator::transaction::request::{Request, Response},
};

pub(crate) async fn handle(
    broker: &Broker,
    req: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let mut states = Vec::with_capacity(req.transactional_ids.len());
    for transactional_id in req.transactional_ids {
        let request = Request::Describe(Arc::from(&**transactional_id));
        let described = match broker.transactions().ask(&transactional_id, request).await {
            Ok(Response::Described(described)) => *described,
            Ok(_) => refused(ErrorCode::UnknownServerError),
            Err(code) => refused(code),
        };
        states.push(described.with_transactional_id(transactional_id));
    }
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

fn refused(code: ErrorCode) -> TransactionState {
    TransactionState::default().with_error_code(code.code())
}
