//! JoinGroup at a group of the classic protocol.
//!
//! - Who has no id is given one. From version 4 on it comes back with it before it is a member (KIP-394), so that
//!   a client whose connection breaks while it waits leaves nothing behind.
//! - A static member (KIP-345) is known by its instance id: without a member id it takes the place of who had the
//!   instance id before, and in a stable group gets that one's assignment without a rebalance.
//! - A member that joins again with what it has said before is told of the generation; the leader, and who
//!   says something new, bring a rebalance about.

use std::sync::Arc;

use kafka_protocol::messages::JoinGroupRequest;
use protocol::{
    error::ErrorCode,
    records::group::{GroupMetadataValue, GroupRecord},
};

use super::{
    ClassicGroup, Member, State, Timer, Turn,
    rebalance::{refused, select_protocol, shown_to_leader},
};
use crate::coordinator::{
    Env, Then, Ticket,
    group::{
        Effects, Group, GroupCoordinator,
        protocols::{self, MEMBER_ID_REQUIRED},
        request::{Client, Response, Sent},
    },
};

/// How long somebody waits as a new member (ms). It cannot send heartbeats yet, and that its connection has ended
/// is not seen while its request waits.
const NEW_MEMBER_TIMEOUT_MS: i32 = 5 * 60 * 1000;

/// From this version on a leader can be told that there is nothing to assign (KIP-814).
const SKIP_ASSIGNMENT: i16 = 9;

impl GroupCoordinator {
    pub(in super::super) fn join(
        &mut self,
        ticket: Ticket,
        join: Sent<JoinGroupRequest>,
        env: &mut Env<'_>,
    ) -> Effects {
        let Sent {
            client,
            body: mut join,
        } = join;
        let groups = &env.config.groups;
        let sessions = groups.min_session_timeout_ms..=groups.max_session_timeout_ms;
        if !sessions.contains(&join.session_timeout_ms) {
            return Effects::answer(ticket, Err(ErrorCode::InvalidSessionTimeout));
        }
        if client.version == 0 {
            join.rebalance_timeout_ms = join.session_timeout_ms;
        }
        let group_id = &*join.group_id.0;
        match self.groups.get(group_id) {
            Some(Group::Consumer(_)) => {
                self.join_consumer_group(ticket, Sent { client, body: join }, env)
            }
            Some(Group::Classic(_)) => self.join_classic(ticket, &client, &join, env),
            None if !join.member_id.is_empty() => {
                Effects::answer(ticket, Err(ErrorCode::UnknownMemberId))
            }
            None => Self::join_first(ticket, Sent { client, body: join }, env),
        }
    }

    fn join_classic(
        &mut self,
        ticket: Ticket,
        client: &Client,
        join: &JoinGroupRequest,
        env: &mut Env<'_>,
    ) -> Effects {
        let Some((group, mut turn)) = self.classic(&join.group_id.0, env) else {
            return Effects::answer(ticket, Err(ErrorCode::UnknownMemberId));
        };
        group.join(&mut turn, ticket, client, join);
        turn.effects
    }

    /// Somebody comes to where there is no classic group: first it is written down that there is one, whatever becomes
    /// of this member, and then the member joins it.
    pub(in super::super) fn join_first(
        ticket: Ticket,
        join: Sent<JoinGroupRequest>,
        env: &Env<'_>,
    ) -> Effects {
        let group = ClassicGroup::empty(env.now);
        let record = group.record(&join.body.group_id, |_, _| bytes::Bytes::new());
        let then = move |machine: &mut Self, written: Result<(), ErrorCode>, env: &mut Env<'_>| {
            if let Err(code) = written {
                return vec![(ticket, Err(code))];
            }
            // Nobody is in the group yet, so this begins no generation and writes nothing.
            let joined = machine.join_classic(ticket, &join.client, &join.body, env);
            debug_assert!(joined.append.is_empty());
            joined.answers
        };
        Effects {
            append: vec![record],
            then: Some(Then::new(then)),
            ..Effects::default()
        }
    }
}

impl ClassicGroup {
    fn join(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        client: &Client,
        join: &JoinGroupRequest,
    ) {
        if !self.has_room_for(&join.member_id, turn.config.max_size) {
            self.remove(turn, &join.member_id);
            let refused = refused("", ErrorCode::GroupMaxSizeReached);
            turn.answer(ticket, Response::Join(refused));
        } else if !self.suits(join) {
            turn.refuse(ticket, ErrorCode::InconsistentGroupProtocol);
        } else if join.member_id.is_empty() {
            self.join_anew(turn, ticket, client, join);
        } else {
            self.join_again(turn, ticket, client, join);
        }
    }

    /// Those who wait count while members are called, since the group may have more members than it may keep: the
    /// last to come are then turned away.
    fn has_room_for(&self, member_id: &str, max: usize) -> bool {
        let member = self.members.get(member_id);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                let waiting = self.members.values();
                let waiting = waiting.filter(|member| member.joining.is_some());
                member.is_some_and(|member| member.joining.is_some()) || waiting.count() < max
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.members.len() < max
            }
        }
    }

    /// Is there a protocol that this member and all the others have?
    fn suits(&self, join: &JoinGroupRequest) -> bool {
        if self.state == State::Empty {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        if self.protocol_type.as_deref() != Some(&*join.protocol_type) {
            return false;
        }
        let members = self.members.values();
        let common = protocols::common(members.map(|member| member.protocols()));
        let mut own = join.protocols.iter();
        own.any(|protocol| {
            common
                .as_ref()
                .is_none_or(|it| it.contains(&*protocol.name))
        })
    }

    fn join_anew(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        client: &Client,
        join: &JoinGroupRequest,
    ) {
        let instance_id = join.group_instance_id.as_deref();
        let id = format!("{}-{}", instance_id.unwrap_or(&client.id), (turn.new_id)());
        let id: Arc<str> = Arc::from(id);
        let known = instance_id.and_then(|instance_id| self.static_members.get(instance_id));
        if let Some(old_id) = known.cloned() {
            self.replace(turn, ticket, client, join, &old_id, &id);
        } else if instance_id.is_none() && MEMBER_ID_REQUIRED <= client.version {
            let response = refused(&id, ErrorCode::MemberIdRequired);
            turn.expect(&id, join.session_timeout_ms);
            self.pending_join.insert(id);
            turn.answer(ticket, Response::Join(response));
        } else {
            self.add(turn, ticket, client, join, id);
        }
    }

    fn join_again(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        client: &Client,
        join: &JoinGroupRequest,
    ) {
        if let Some(id) = self.pending_join.get(&*join.member_id).cloned() {
            return match join.group_instance_id {
                None => self.add(turn, ticket, client, join, id),
                // Static members are never given an id in advance. A real broker stumbles over one that has got one.
                Some(_) => {
                    let refused = refused("", ErrorCode::UnknownServerError);
                    turn.answer(ticket, Response::Join(refused));
                }
            };
        }
        if let Err(code) = self.check_member(&join.member_id, join.group_instance_id.as_deref()) {
            return turn.refuse(ticket, code);
        }
        let Some((id, member)) = self.members.get_key_value(&*join.member_id) else {
            return turn.refuse(ticket, ErrorCode::UnknownMemberId);
        };
        let id = Arc::clone(id);
        let tells_news = match self.state {
            State::PreparingRebalance => true,
            State::CompletingRebalance => !member.matches(join),
            // The leader may have seen something in the topics that calls for another assignment.
            State::Stable => self.is_leader(&id) || !member.matches(join),
            State::Empty => return turn.refuse(ticket, ErrorCode::UnknownMemberId),
        };
        if tells_news {
            self.update(turn, ticket, join, &id);
            self.rebalance_or_complete(turn, &reason("a member joins again", join));
        } else {
            // It may not have got the answer to its first request.
            let response = self.joined(&id);
            turn.answer(ticket, Response::Join(response));
        }
    }

    fn add(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        client: &Client,
        join: &JoinGroupRequest,
        id: Arc<str>,
    ) {
        let mut member = Member::new(client, join);
        member.joining = Some(ticket);
        if let Some(initial) = &mut self.initial {
            initial.has_grown = true;
        }
        if let Some(instance_id) = &member.instance_id {
            let instance_id = Arc::clone(instance_id);
            self.static_members.insert(instance_id, Arc::clone(&id));
        }
        if self.members.is_empty() {
            self.protocol_type = Some(Arc::from(&*join.protocol_type));
        }
        if self.leader.is_none() {
            self.leader = Some(Arc::clone(&id));
        }
        self.pending_join.remove(&id);
        turn.expect(&id, NEW_MEMBER_TIMEOUT_MS);
        self.members.insert(id, Box::new(member));
        self.rebalance_or_complete(turn, &reason("a member joins", join));
    }

    /// A member waits for the next generation.
    fn update(&mut self, turn: &mut Turn<'_>, ticket: Ticket, join: &JoinGroupRequest, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.update(join);
            if let Some(earlier) = member.joining.replace(ticket) {
                // It has asked twice, and nobody can be waiting for this answer any more.
                turn.refuse(earlier, ErrorCode::RebalanceInProgress);
            }
        }
    }

    /// A static member takes the place of the one that had its instance id.
    fn replace(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        client: &Client,
        join: &JoinGroupRequest,
        old_id: &Arc<str>,
        id: &Arc<str>,
    ) {
        let Some(old) = self.members.get(old_id) else {
            return turn.refuse(ticket, ErrorCode::UnknownMemberId);
        };
        let member = old.replaced_by(join);
        turn.expect(id, old.session_timeout_ms);
        if self.state == State::Stable && self.stays_chosen(old_id, &member) {
            return self.replace_quietly(turn, ticket, client.version, old_id, id, member);
        }

        if let Some(mut old) = self.members.remove(old_id) {
            turn.cancel(Timer::Session(Arc::clone(old_id)));
            if let Some(ticket) = old.joining.take() {
                let refused = refused(old_id, ErrorCode::FencedInstanceId);
                turn.answer(ticket, Response::Join(refused));
            }
            if let Some(ticket) = old.syncing.take() {
                turn.refuse(ticket, ErrorCode::FencedInstanceId);
            }
        }
        if let Some(instance_id) = &member.instance_id {
            let instance_id = Arc::clone(instance_id);
            self.static_members.insert(instance_id, Arc::clone(id));
        }
        if self.is_leader(old_id) {
            self.leader = Some(Arc::clone(id));
        }
        self.members.insert(Arc::clone(id), Box::new(member));
        self.update(turn, ticket, join, id);
        self.rebalance_or_complete(turn, &reason("a static member is replaced", join));
    }

    /// Would the group choose the protocol that it has, with `member` in the place of the one with this id?
    fn stays_chosen(&self, old_id: &Arc<str>, member: &Member) -> bool {
        let members = self.members.iter();
        let members = members.map(|(id, known)| if id == old_id { member } else { &**known });
        select_protocol(members) == self.protocol.as_deref()
    }

    /// Nothing changes for the others, and the new member gets the assignment of the old one. It is a member when
    /// that has been written down.
    fn replace_quietly(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        version: i16,
        old_id: &Arc<str>,
        id: &Arc<str>,
        member: Member,
    ) {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let mut response = self
            .joined(old_id)
            .with_member_id((**id).to_owned().into())
            .with_members(Vec::new());
        let leads = self.is_leader(old_id);
        if SKIP_ASSIGNMENT <= version && leads {
            let others = self.members.iter().filter(|(known, _)| *known != old_id);
            let others = others.map(|(id, member)| shown_to_leader(id, member, protocol));
            let members = others.chain([shown_to_leader(id, &member, protocol)]);
            response.members = members.collect();
            response.leader = (**id).to_owned().into();
            response.skip_assignment = true;
        }
        // In older versions a leader is told of the leader it replaces: who does not know itself for the leader
        // assigns nothing, and nobody would hear of it.

        let mut record = self.record(&turn.group_id, |_, member| member.assignment.clone());
        if let GroupRecord::GroupMetadata {
            value: Some(value), ..
        } = &mut record
        {
            let GroupMetadataValue {
                members, leader, ..
            } = value;
            members.retain(|known| *known.member_id != **old_id);
            members.push(member.record(id, protocol, member.assignment.clone()));
            if leads {
                *leader = Some((**id).to_owned());
            }
        }
        self.staged = Some((Arc::clone(id), Box::new(member)));
        turn.effects.append.push(record);
        turn.answer(ticket, Response::Join(response));
    }
}

/// A client's reason for something, as much of it as clients of Kafka send.
pub(super) fn cut(reason: &str) -> &str {
    let end = reason
        .char_indices()
        .nth(255)
        .map_or(reason.len(), |(at, _)| at);
    &reason[..end]
}

/// For the log: what happened, and what the client says of it (KIP-800).
fn reason(what: &str, join: &JoinGroupRequest) -> String {
    match join.reason.as_deref() {
        None | Some("") => what.to_owned(),
        Some(reason) => format!("{what}: {}", cut(reason)),
    }
}
