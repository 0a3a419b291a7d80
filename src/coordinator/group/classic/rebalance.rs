//! From one generation to the next: members are called, waited for, and told who leads.
//!
//! - Waiting ends when all members and all who have asked for an id have joined, or after the longest of the members'
//!   rebalance time-outs. Who has not joined by then is no member any more; static members stay until their
//!   session ends.
//! - A group that was empty waits for `group.initial.rebalance.delay.ms` in any case, so that the members of
//!   an application that is being started find each other, and longer while more of them come. Where that is 0, it
//!   waits a few milliseconds for those who have asked for an id.
//! - Whoever has joined has to ask for its assignment within the rebalance time-out too.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use kafka_protocol::messages::{JoinGroupResponse, join_group_response::JoinGroupResponseMember};
use protocol::{error::ErrorCode, records::group::GroupMetadataValue};
use tracing::info;

use super::{ClassicGroup, Member, State, Timer, Turn};
use crate::coordinator::group::{protocols, request::Response};

/// How long static members are waited for at least, when none has come (ms). A client may give its time-out as 0, and
/// what is due at once whenever it is due keeps the broker from everything else.
const WAIT_AGAIN_MIN_MS: i32 = 1000;

/// Whoever has been given an id comes back with it at once. A first generation without them is one in which nobody
/// gets to read, and of a thousand members that start together several such would follow each other (ms).
const COMING_MS: i32 = 5;

/// How the first members of an empty group wait for others.
#[derive(Debug)]
pub(super) struct InitialDelay {
    /// What is being waited, and what may be waited after it (ms).
    delay_ms: i32,
    remaining_ms: i32,
    /// Somebody has joined while it was waited.
    pub(super) has_grown: bool,
}

impl ClassicGroup {
    /// Begins a rebalance, or ends the one that has begun if this was all it waited for.
    pub(super) fn rebalance_or_complete(&mut self, turn: &mut Turn<'_>, reason: &str) {
        if self.state == State::PreparingRebalance {
            self.complete_if_all_joined(turn);
        } else {
            self.prepare_rebalance(turn, reason);
        }
    }

    pub(super) fn prepare_rebalance(&mut self, turn: &mut Turn<'_>, reason: &str) {
        let (group_id, state, generation) = (&turn.group_id, self.state, self.generation);
        info!(?group_id, %state, generation, reason, "preparing to rebalance");
        if self.state == State::CompletingRebalance {
            self.call_off(turn, ErrorCode::RebalanceInProgress);
        }
        self.pending_sync.clear();
        turn.cancel(Timer::Sync);

        let was_empty = self.state == State::Empty;
        self.enter(State::PreparingRebalance, turn.now);
        if was_empty {
            let delay_ms = self.initial_delay_ms(turn);
            self.initial = Some(InitialDelay {
                delay_ms,
                remaining_ms: self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0),
                has_grown: false,
            });
            turn.wake(Timer::Join, delay_ms);
        } else if self.have_all_joined() {
            self.begin_generation(turn);
        } else {
            turn.wake(Timer::Join, self.rebalance_timeout_ms());
        }
    }

    pub(super) fn complete_if_all_joined(&mut self, turn: &mut Turn<'_>) {
        let is_waiting = self.state == State::PreparingRebalance && self.initial.is_none();
        if is_waiting && self.have_all_joined() {
            self.begin_generation(turn);
        }
    }

    pub(super) fn joining_is_due(&mut self, turn: &mut Turn<'_>) {
        if self.state != State::PreparingRebalance {
            return;
        }
        let delay_ms = self.initial_delay_ms(turn);
        match &mut self.initial {
            Some(initial) if initial.has_grown && initial.remaining_ms != 0 => {
                let delay_ms = delay_ms.min(initial.remaining_ms);
                *initial = InitialDelay {
                    delay_ms,
                    remaining_ms: (initial.remaining_ms - initial.delay_ms).max(0),
                    has_grown: false,
                };
                turn.wake(Timer::Join, delay_ms);
            }
            _ => self.begin_generation(turn),
        }
    }

    fn initial_delay_ms(&self, turn: &Turn<'_>) -> i32 {
        let delay_ms = turn.config.initial_rebalance_delay_ms;
        if self.pending_join.is_empty() {
            delay_ms
        } else {
            delay_ms.max(COMING_MS)
        }
    }

    /// Goes on with those who have joined.
    fn begin_generation(&mut self, turn: &mut Turn<'_>) {
        turn.cancel(Timer::Join);
        let late = self.members.iter();
        let late = late.filter(|(_, it)| it.joining.is_none() && it.instance_id.is_none());
        let late: Vec<Arc<str>> = late.map(|(id, _)| Arc::clone(id)).collect();
        for member_id in late {
            info!(group_id = ?turn.group_id, ?member_id, "a member has not joined in time");
            self.remove(turn, &member_id);
            turn.cancel(Timer::Session(member_id));
        }
        if !self.elect_leader() && !self.members.is_empty() {
            // Static members, and none of them has come: until their sessions end.
            let timeout_ms = self.rebalance_timeout_ms().max(WAIT_AGAIN_MIN_MS);
            turn.wake(Timer::Join, timeout_ms);
            return;
        }
        self.initial = None;
        self.pending_sync.clear();
        self.generation = self.generation.wrapping_add(1);
        let protocol = select_protocol(self.members.values().map(|member| &**member));
        self.protocol = protocol.map(Arc::from);
        self.note_subscriptions();

        let (group_id, generation) = (&turn.group_id, self.generation);
        let member_count = self.members.len();
        info!(?group_id, generation, member_count, "a generation begins");
        if self.members.is_empty() {
            self.enter(State::Empty, turn.now);
            let record = self.record(group_id, |_, member| member.assignment.clone());
            turn.effects.append.push(record);
            return;
        }
        self.enter(State::CompletingRebalance, turn.now);
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.is_new = false;
            turn.expect(&id, member.session_timeout_ms);
            if let Some(ticket) = member.joining.take() {
                let response = self.joined(&id);
                turn.answer(ticket, Response::Join(response));
            }
            self.pending_sync.insert(id);
        }
        turn.wake(Timer::Sync, self.rebalance_timeout_ms());
    }

    /// The leader stays if it has joined; otherwise another that has is elected. `false` if there is none.
    fn elect_leader(&mut self) -> bool {
        let has_joined = |id: &str| {
            let member = self.members.get(id);
            member.is_some_and(|member| member.joining.is_some())
        };
        if self.leader.as_deref().is_some_and(has_joined) {
            return true;
        }
        let mut members = self.members.iter();
        match members.find(|(_, member)| member.joining.is_some()) {
            Some((id, _)) => {
                self.leader = Some(Arc::clone(id));
                true
            }
            None => false,
        }
    }

    /// What this member is told of the generation; the leader is told of all members.
    pub(super) fn joined(&self, member_id: &Arc<str>) -> JoinGroupResponse {
        let text = |text: &Option<Arc<str>>| text.as_deref().map(|it| it.to_owned().into());
        let response = JoinGroupResponse::default()
            .with_member_id((**member_id).to_owned().into())
            .with_generation_id(self.generation)
            .with_protocol_type(text(&self.protocol_type))
            .with_protocol_name(text(&self.protocol))
            .with_leader(text(&self.leader).unwrap_or_default());
        if self.is_leader(member_id) {
            response.with_members(self.shown_to_leader())
        } else {
            response
        }
    }

    pub(super) fn shown_to_leader(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter();
        let members = members.map(|(id, member)| shown_to_leader(id, member, protocol));
        members.collect()
    }

    fn have_all_joined(&self) -> bool {
        let mut members = self.members.values();
        self.pending_join.is_empty() && members.all(|member| member.joining.is_some())
    }

    /// This generation gets no assignment: who waits for one is told so.
    fn call_off(&mut self, turn: &mut Turn<'_>, code: ErrorCode) {
        for (id, member) in &mut self.members {
            member.assignment.clear();
            if let Some(ticket) = member.syncing.take() {
                turn.refuse(ticket, code);
                turn.expect(id, member.session_timeout_ms);
            }
        }
    }

    /// Who has not asked for its assignment by now is no member any more.
    pub(super) fn syncing_is_due(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        let late = std::mem::take(&mut self.pending_sync);
        if late.is_empty() {
            return;
        }
        for member_id in late {
            info!(group_id = ?turn.group_id, ?member_id, "a member has not synced in time");
            self.remove(turn, &member_id);
            turn.cancel(Timer::Session(member_id));
        }
        self.prepare_rebalance(turn, "members have not synced in time");
    }

    pub(super) fn session_is_over(&mut self, turn: &mut Turn<'_>, member_id: &Arc<str>) {
        let is_gone = match self.members.get(member_id) {
            Some(member) => !member.is_alive_without_heartbeats(),
            None => self.pending_join.contains(member_id),
        };
        if !is_gone {
            return;
        }
        info!(group_id = ?turn.group_id, ?member_id, "a member's session is over");
        let was_member = self.members.contains_key(member_id);
        self.remove(turn, member_id);
        match self.state {
            // A real broker does not care here whether an empty group still waits for its first members.
            State::PreparingRebalance if self.have_all_joined() => self.begin_generation(turn),
            State::Stable | State::CompletingRebalance if was_member => {
                self.prepare_rebalance(turn, "a member's session is over");
            }
            _ => (),
        }
    }

    /// Takes a member, or who has only been given an id, out of the group. What it waited for tells it so.
    pub(super) fn remove(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        if let Some(member) = self.members.remove(member_id) {
            if let Some(instance_id) = &member.instance_id {
                self.static_members.remove(instance_id);
            }
            if let Some(ticket) = member.joining {
                let refused = refused("", ErrorCode::UnknownMemberId);
                turn.answer(ticket, Response::Join(refused));
            }
            if let Some(ticket) = member.syncing {
                turn.refuse(ticket, ErrorCode::UnknownMemberId);
            }
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_join.remove(member_id);
        self.pending_sync.remove(member_id);
    }

    /// A record of this group could not be appended, and who was to be answered with it knows. An empty generation that
    /// is not written is no loss: nobody is in it.
    pub(super) fn not_written(
        &mut self,
        turn: &mut Turn<'_>,
        value: &GroupMetadataValue,
        code: ErrorCode,
    ) {
        self.staged = None;
        let is_assignment = !value.members.is_empty() && self.state == State::CompletingRebalance;
        if is_assignment && value.generation == self.generation {
            self.call_off(turn, code);
            self.prepare_rebalance(turn, "the assignment could not be written");
        }
    }
}

pub(super) fn shown_to_leader(
    id: &str,
    member: &Member,
    protocol: &str,
) -> JoinGroupResponseMember {
    let instance_id = member.instance_id.as_deref();
    JoinGroupResponseMember::default()
        .with_member_id(id.to_owned().into())
        .with_group_instance_id(instance_id.map(|id| id.to_owned().into()))
        .with_metadata(member.metadata(protocol).cloned().unwrap_or_default())
}

/// A refusal for a member with this id, which need not be the one in the request.
pub(super) fn refused(member_id: &str, code: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_member_id(member_id.to_owned().into())
        .with_error_code(code.code())
}

/// The protocol that most members like best among those that all have.
pub(super) fn select_protocol<'a>(
    members: impl Iterator<Item = &'a Member> + Clone,
) -> Option<&'a str> {
    let first = members.clone().next()?;
    let common = protocols::common(members.clone().map(Member::protocols))?;
    // By name: how many like it best, and how many the first member likes better.
    let mut votes: HashMap<&str, (usize, Reverse<usize>)> = HashMap::with_capacity(common.len());
    for (rank, protocol) in first.protocols().enumerate() {
        if common.contains(protocol) {
            votes.entry(protocol).or_insert((0, Reverse(rank)));
        }
    }
    for member in members {
        let choice = member.protocols().find(|name| common.contains(name));
        if let Some((count, _)) = choice.and_then(|name| votes.get_mut(name)) {
            *count += 1;
        }
    }
    // Between equals it is as the first member likes it.
    let most = votes.into_iter().max_by_key(|(_, votes)| *votes);
    most.map(|(protocol, _)| protocol)
}
