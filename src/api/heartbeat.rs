//! Heartbeat (key 12), v0-v4: a member of a group of the classic protocol is alive, and learns whether it has to
//! join again.
//!
//! - REBALANCE_IN_PROGRESS calls it to join. While the leader works on the assignment there is nothing to do, and
//!   no error.
//!
//! Versions: v3 static members (KIP-345).

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use protocol::error::ErrorCode;

use crate::{broker::Broker, coordinator::group::request::Sent, server::Context};

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: HeartbeatRequest,
) -> HeartbeatResponse {
    let group_id = req.group_id.clone();
    let ask = Sent::new(ctx, req);
    match broker.groups().ask_named_group(&group_id, ask).await {
        Ok(response) => response,
        // Sessions begin anew when the group has been loaded, so nothing is lost in the meantime.
        Err(ErrorCode::CoordinatorLoadInProgress) => HeartbeatResponse::default(),
        Err(code) => HeartbeatResponse::default().with_error_code(code.code()),
    }
}
