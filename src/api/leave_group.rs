//! LeaveGroup (key 13), v0-v5: members of a group of the classic protocol go, and the others need not wait for
//! the end of their sessions.
//!
//! - Each member is answered on its own. Before version 3 there is one, and its error is the answer's.
//!
//! Versions: v3 several members, and static ones by their instance ids (KIP-345), v5 reason (KIP-800).

use kafka_protocol::messages::{
    LeaveGroupRequest, LeaveGroupResponse, leave_group_request::MemberIdentity,
};

use crate::{broker::Broker, coordinator::group::request::Sent, server::Context};

/// First version with several members.
const MANY: i16 = 3;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    mut req: LeaveGroupRequest,
) -> LeaveGroupResponse {
    if ctx.version < MANY {
        let member_id = std::mem::take(&mut req.member_id);
        req.members = vec![MemberIdentity::default().with_member_id(member_id)];
    }
    let group_id = req.group_id.clone();
    let ask = Sent::new(ctx, req);
    match broker.groups().ask_named_group(&group_id, ask).await {
        Ok(response) if ctx.version < MANY => {
            let only = response.members.first();
            LeaveGroupResponse::default()
                .with_error_code(only.map_or(0, |member| member.error_code))
        }
        Ok(response) => response,
        Err(code) => LeaveGroupResponse::default().with_error_code(code.code()),
    }
}
