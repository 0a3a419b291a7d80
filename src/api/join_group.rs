//! JoinGroup (key 11), v0-v9: a member of a group of the classic protocol comes, or comes again, and is answered when
//! the next generation begins.
//!
//! - What a generation waits for, and who leads it, is in `coordinator::group::classic`.
//! - The answer may take as long as the members' rebalance time-outs. Nothing else of this connection is served
//!   meanwhile, as in Apache Kafka: clients have a connection of its own for this.
//!
//! Versions: v1 rebalance time-out, v4 an id before membership (KIP-394), v5 static members (KIP-345), v7 protocol type, v8
//! reason (KIP-800), v9 a leader that need not assign (KIP-814).

use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use crate::{broker::Broker, coordinator::group::request::Sent, server::Context};

/// From this version on the answer may be without a protocol.
const PROTOCOL_NULLABLE: i16 = 7;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: JoinGroupRequest,
) -> JoinGroupResponse {
    let group_id = req.group_id.clone();
    let member_id = req.member_id.clone();
    let ask = Sent::new(ctx, req);
    let mut response = match broker.groups().ask_named_group(&group_id, ask).await {
        Ok(response) => response,
        Err(code) => JoinGroupResponse::default()
            .with_member_id(member_id)
            .with_error_code(code.code()),
    };
    let has_protocol = response.error_code == 0;
    response.protocol_name = response.protocol_name.filter(|_| has_protocol);
    if ctx.version < PROTOCOL_NULLABLE {
        response.protocol_name.get_or_insert_default();
    }
    response
}
