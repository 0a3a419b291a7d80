//! SyncGroup and Heartbeat at a group of the classic protocol.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, SyncGroupRequest, SyncGroupResponse,
};
use protocol::error::ErrorCode;

use super::{ClassicGroup, State, Timer, Turn};
use crate::coordinator::{
    Env, Ticket,
    group::{
        Effects, Group, GroupCoordinator,
        request::{Response, Sent},
    },
};

impl GroupCoordinator {
    pub(in super::super) fn sync(
        &mut self,
        ticket: Ticket,
        sync: Sent<SyncGroupRequest>,
        env: &mut Env<'_>,
    ) -> Effects {
        let group_id = &*sync.body.group_id.0;
        match self.groups.get(group_id) {
            Some(Group::Consumer(_)) => self.sync_consumer_group(ticket, sync, env),
            _ => match self.classic(group_id, env) {
                Some((group, mut turn)) => {
                    group.sync(&mut turn, ticket, &sync.body);
                    turn.effects
                }
                None => Effects::answer(ticket, Err(ErrorCode::UnknownMemberId)),
            },
        }
    }

    pub(in super::super) fn heartbeat(
        &mut self,
        ticket: Ticket,
        heartbeat: Sent<HeartbeatRequest>,
        env: &mut Env<'_>,
    ) -> Effects {
        let group_id = &*heartbeat.body.group_id.0;
        if let Some(Group::Consumer(_)) = self.groups.get(group_id) {
            return self.heartbeat_consumer_group(ticket, heartbeat, env);
        }
        let outcome = match self.classic(group_id, env) {
            Some((group, mut turn)) => group.heartbeat(&mut turn, &heartbeat.body),
            None => Err(ErrorCode::UnknownMemberId),
        };
        let alive = || Response::Heartbeat(HeartbeatResponse::default());
        Effects::answer(ticket, outcome.map(|()| alive()))
    }
}

impl ClassicGroup {
    fn sync(&mut self, turn: &mut Turn<'_>, ticket: Ticket, sync: &SyncGroupRequest) {
        if let Err(code) = self.check_sync(sync) {
            return turn.refuse(ticket, code);
        }
        let member_id = &*sync.member_id;
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            turn.cancel(Timer::Sync);
        }
        let is_leader = self.is_leader(member_id);
        let Some(member) = self.members.get_mut(member_id) else {
            return turn.refuse(ticket, ErrorCode::UnknownMemberId);
        };
        if self.state == State::Stable {
            let assignment = member.assignment.clone();
            let response = self.synced(assignment);
            return turn.answer(ticket, Response::Sync(response));
        }
        if let Some(earlier) = member.syncing.replace(ticket) {
            // It has asked twice, and nobody can be waiting for this answer any more.
            turn.refuse(earlier, ErrorCode::RebalanceInProgress);
        }
        if is_leader {
            self.assign(turn, sync);
        }
    }

    fn check_sync(&self, sync: &SyncGroupRequest) -> Result<(), ErrorCode> {
        let differs = |said: Option<&str>, known: &Option<Arc<str>>| {
            said.is_some_and(|said| known.as_deref().is_some_and(|known| known != said))
        };
        self.check_member(&sync.member_id, sync.group_instance_id.as_deref())?;
        if sync.generation_id != self.generation {
            Err(ErrorCode::IllegalGeneration)
        } else if differs(sync.protocol_type.as_deref(), &self.protocol_type)
            || differs(sync.protocol_name.as_deref(), &self.protocol)
        {
            Err(ErrorCode::InconsistentGroupProtocol)
        } else if self.state == State::PreparingRebalance {
            Err(ErrorCode::RebalanceInProgress)
        } else {
            Ok(())
        }
    }

    /// The leader has brought the assignment. Who waits gets its part when it has been written; who is not in it gets
    /// an empty one.
    fn assign(&mut self, turn: &mut Turn<'_>, sync: &SyncGroupRequest) {
        let given = sync.assignments.iter();
        let given: HashMap<&str, &Bytes> = given
            .map(|given| (&*given.member_id, &given.assignment))
            .collect();
        let part = |id: &str| given.get(id).copied().cloned().unwrap_or_default();
        let record = self.record(&turn.group_id, |id, _| part(id));
        turn.effects.append.push(record);

        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            if let Some(ticket) = member.syncing.take() {
                turn.expect(&id, member.session_timeout_ms);
                let response = self.synced(part(&id));
                turn.answer(ticket, Response::Sync(response));
            }
        }
    }

    fn synced(&self, assignment: Bytes) -> SyncGroupResponse {
        let text = |text: &Option<Arc<str>>| text.as_deref().map(|it| it.to_owned().into());
        SyncGroupResponse::default()
            .with_protocol_type(text(&self.protocol_type))
            .with_protocol_name(text(&self.protocol))
            .with_assignment(assignment)
    }

    fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        heartbeat: &HeartbeatRequest,
    ) -> Result<(), ErrorCode> {
        let member_id = &*heartbeat.member_id;
        self.check_member(member_id, heartbeat.group_instance_id.as_deref())?;
        if heartbeat.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if let Some((id, member)) = self.members.get_key_value(member_id) {
            turn.expect(id, member.session_timeout_ms);
        }
        match self.state {
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            // Consumers begin with heartbeats as soon as they have joined.
            State::CompletingRebalance | State::Stable => Ok(()),
            State::Empty => Err(ErrorCode::UnknownMemberId),
        }
    }
}
