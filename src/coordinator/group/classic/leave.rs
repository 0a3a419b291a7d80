//! LeaveGroup at a group of the classic protocol: several members in one request, each by its id or, for who
//! administers the group, by its instance id alone. Each is answered on its own.

use std::sync::Arc;

use kafka_protocol::messages::{
    LeaveGroupRequest, LeaveGroupResponse, leave_group_request::MemberIdentity,
    leave_group_response::MemberResponse,
};
use protocol::error::ErrorCode;
use tracing::info;

use super::{ClassicGroup, State, Timer, Turn, join::cut};
use crate::coordinator::{
    Env, Ticket,
    group::{
        Effects, Group, GroupCoordinator,
        request::{Response, Sent},
    },
};

impl GroupCoordinator {
    pub(in super::super) fn leave(
        &mut self,
        ticket: Ticket,
        leave: Sent<LeaveGroupRequest>,
        env: &mut Env<'_>,
    ) -> Effects {
        let group_id = &*leave.body.group_id.0;
        if let Some(Group::Consumer(_)) = self.groups.get(group_id) {
            return self.leave_consumer_group(ticket, leave, env);
        }
        let members = &leave.body.members;
        let Some((group, mut turn)) = self.classic(group_id, env) else {
            return nobody(ticket, &leave.body);
        };
        let left = group.leave(&mut turn, members);
        let mut effects = turn.effects;
        let members = members.iter().zip(left);
        let members = members.map(|(member, left)| answered(member, left));
        let response = LeaveGroupResponse::default().with_members(members.collect());
        effects
            .answers
            .push((ticket, Ok(Response::Leave(response))));
        effects
    }
}

/// None of them is known.
pub(super) fn nobody(ticket: Ticket, leave: &LeaveGroupRequest) -> Effects {
    let unknown = |member| answered(member, Err(ErrorCode::UnknownMemberId));
    let members = leave.members.iter().map(unknown).collect();
    let response = LeaveGroupResponse::default().with_members(members);
    Effects::answer(ticket, Ok(Response::Leave(response)))
}

fn answered(member: &MemberIdentity, left: Result<(), ErrorCode>) -> MemberResponse {
    MemberResponse::default()
        .with_member_id(member.member_id.clone())
        .with_group_instance_id(member.group_instance_id.clone())
        .with_error_code(left.err().map_or(0, |code| code.code()))
}

impl ClassicGroup {
    fn leave(
        &mut self,
        turn: &mut Turn<'_>,
        members: &[MemberIdentity],
    ) -> Vec<Result<(), ErrorCode>> {
        let left: Vec<Result<(), ErrorCode>> = members
            .iter()
            .map(|member| self.leave_one(turn, member))
            .collect();
        if left.iter().any(Result::is_ok) && self.state != State::Empty {
            self.rebalance_or_complete(turn, "members leave");
        }
        left
    }

    fn leave_one(&mut self, turn: &mut Turn<'_>, member: &MemberIdentity) -> Result<(), ErrorCode> {
        let instance_id = member.group_instance_id.as_deref();
        let member_id: Arc<str> = if member.member_id.is_empty() {
            let known = instance_id.and_then(|instance_id| self.static_members.get(instance_id));
            known.cloned().ok_or(ErrorCode::UnknownMemberId)?
        } else {
            let is_pending = self.pending_join.contains(&*member.member_id);
            if !is_pending {
                self.check_member(&member.member_id, instance_id)?;
            }
            Arc::from(&*member.member_id)
        };
        let reason = cut(member.reason.as_deref().unwrap_or("not provided"));
        info!(group_id = ?turn.group_id, ?member_id, reason, "a member leaves");
        self.remove(turn, &member_id);
        turn.cancel(Timer::Session(member_id));
        Ok(())
    }
}
