//! ConsumerGroupHeartbeat (key 68), v0-v1: a member of a group of the consumer protocol joins, lives and leaves (KIP-848),
//! and is told what to read.
//!
//! - What comes of it is in `coordinator::group::consumer`.
//! - A regular expression is compiled first, where nobody else waits for it.
//! - The protocol has to be finalized, as `group.version`, and not left out of `group.coordinator.rebalance.protocols`.
//!
//! Versions: v1 subscriptions by regular expression, and member ids chosen by clients.

use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use protocol::error::ErrorCode;

use crate::{
    broker::Broker,
    coordinator::group::request::{ConsumerHeartbeat, Sent},
    server::Context,
};

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let refused =
        |code: ErrorCode| ConsumerGroupHeartbeatResponse::default().with_error_code(code.code());
    if !is_served(broker) {
        return refused(ErrorCode::UnsupportedVersion);
    }
    let group_id = req.group_id.clone();
    let is_expression = |it: &str| !it.is_empty();
    let compiles = req
        .subscribed_topic_regex
        .as_deref()
        .is_some_and(is_expression);
    let sent = Sent::new(ctx, req);
    let ask = match compiles {
        false => ConsumerHeartbeat::new(sent),
        true => {
            let compile = move || ConsumerHeartbeat::new(sent);
            match broker.group_threads().run(compile).await {
                Some(ask) => ask,
                None => return refused(ErrorCode::UnknownServerError),
            }
        }
    };
    match broker.groups().ask_group(&group_id, ask).await {
        Ok(response) => response,
        Err(code) => refused(code),
    }
}

/// Does this cluster have the consumer protocol?
pub(super) fn is_served(broker: &Broker) -> bool {
    broker.config().groups.consumer_protocol && broker.image().feature("group.version") >= 1
}
