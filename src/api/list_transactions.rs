//! ListTransactions (key 66), v0-v2: the transactional ids that this broker coordinates (KIP-664).
//!
//! - A state that is none there is, by its exact name, is told back and matches nothing.
//! - The duration counts from the begin of the transaction; an id that has never had one is older than any.
//! - The pattern has to match the whole of an id, in RE2's syntax.
//!
//! Versions: v1 duration (KIP-994), v2 pattern (KIP-1152).

use std::{collections::HashSet, sync::Arc};

use kafka_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse};
use protocol::error::ErrorCode;
use regex::{Regex, RegexBuilder};

use crate::{
    broker::Broker,
    coordinator::transaction::{
        request::{ListFilter, Request, Response},
        state::Status,
    },
};

/// What a compiled pattern may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// How deep brackets may be nested.
const NESTING_MAX: u32 = 100;

/// Longer patterns are refused unread.
const LENGTH_MAX: usize = 32 << 10;

pub(crate) async fn handle(
    broker: &Broker,
    req: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let response = ListTransactionsResponse::default();
    let pattern = match req.transactional_id_pattern.as_deref() {
        None | Some("") => None,
        Some(pattern) => match whole(pattern) {
            Some(pattern) => Some(pattern),
            None => {
                return response.with_error_code(ErrorCode::InvalidRegularExpression.code());
            }
        },
    };
    let mut statuses = HashSet::new();
    let mut unknown = Vec::new();
    for name in &req.state_filters {
        match status(name) {
            Some(status) => statuses.extend(status),
            None => unknown.push(name.clone()),
        }
    }
    let filter = ListFilter {
        statuses: (!req.state_filters.is_empty()).then_some(statuses),
        producer_ids: Arc::new(req.producer_id_filters.iter().map(|id| id.0).collect()),
        longer_than_ms: (0 <= req.duration_filter).then_some(req.duration_filter),
        pattern,
    };
    let runtime = broker.transactions().runtime();
    let mut listed = Vec::new();
    for index in runtime.coordinated() {
        let request = Request::List(filter.clone());
        match runtime.ask_partition(index, request).await {
            Ok(Response::Listed(states)) => listed.extend(states),
            // It has just gone to another broker, or cannot be read.
            Ok(_) | Err(ErrorCode::NotCoordinator) => (),
            Err(code) => return response.with_error_code(code.code()),
        }
    }
    response
        .with_unknown_state_filters(unknown)
        .with_transaction_states(listed)
}

/// `None` if there is no such state; nothing is ever in the last two.
fn status(name: &str) -> Option<Option<Status>> {
    Some(match name {
        "Empty" => Some(Status::Empty),
        "Ongoing" => Some(Status::Ongoing),
        "PrepareCommit" => Some(Status::PrepareCommit),
        "PrepareAbort" => Some(Status::PrepareAbort),
        "CompleteCommit" => Some(Status::CompleteCommit),
        "CompleteAbort" => Some(Status::CompleteAbort),
        "Dead" | "PrepareEpochFence" => None,
        _ => return None,
    })
}

fn whole(pattern: &str) -> Option<Regex> {
    if LENGTH_MAX < pattern.len() {
        return None;
    }
    let build = |pattern: &str| {
        let regex = RegexBuilder::new(pattern)
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(COMPILED_BYTES_MAX)
            .nest_limit(NESTING_MAX)
            .build();
        regex.ok()
    };
    // The pattern as it stands has to be one: what closes more brackets than it opens must not profit from ours.
    build(pattern)?;
    build(&format!("\\A(?:{pattern})\\z"))
}
