//! SyncGroup (key 14), v0-v5: a member of a group of the classic protocol asks for its assignment, and the leader brings
//! everybody's.
//!
//! - Members are answered when the leader's assignment has been written to the group's log and committed.
//!
//! Versions: v3 static members (KIP-345), v5 the protocol, so that a mistake is noticed (KIP-559).

use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use protocol::error::ErrorCode;

use crate::{broker::Broker, coordinator::group::request::Sent, server::Context};

/// From this version on the protocol may be null in the request's form, and must not be.
const PROTOCOL_REQUIRED: i16 = 5;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: SyncGroupRequest,
) -> SyncGroupResponse {
    let has_protocol = req.protocol_type.is_some() && req.protocol_name.is_some();
    if PROTOCOL_REQUIRED <= ctx.version && !has_protocol {
        let code = ErrorCode::InconsistentGroupProtocol.code();
        return SyncGroupResponse::default().with_error_code(code);
    }
    let group_id = req.group_id.clone();
    let ask = Sent::new(ctx, req);
    match broker.groups().ask_named_group(&group_id, ask).await {
        Ok(response) => response,
        Err(code) => SyncGroupResponse::default().with_error_code(code.code()),
    }
}
