//! Members of the classic protocol in a group of the consumer protocol: JoinGroup, SyncGroup, Heartbeat and LeaveGroup,
//! answered as if there were a generation, which is the member's epoch.
//!
//! - JoinGroup is what a heartbeat is for the others: what the member says of itself stands in its subscription, and what
//!   it has given back is what is no longer in there. It is answered at once.
//! - Nobody leads, since the broker assigns; SyncGroup brings what the member has come to have.
//! - Heartbeats call a member to join again when there is a step for it to take. Who then does not join, or has joined and
//!   does not ask for its assignment, within its rebalance time-out, is removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse, leave_group_response::MemberResponse,
};
use protocol::error::ErrorCode;
use replication::cluster::ClusterImage;

use super::{
    ConsumerGroup, Timer,
    embedded::Subscription,
    heartbeat::{Speaker, new_member_id, same_or_new},
    member::{About, Classic, Member, State, sorted},
    migration::{assignment, by_id},
    refusal::{Refusal, check_instance, refusal, unknown_instance, unknown_member},
};
use crate::coordinator::{
    Env, Then, Ticket,
    group::{
        Effects, Group, GroupCoordinator,
        protocols::{self, CONSUMER, MEMBER_ID_REQUIRED},
        request::{Client, Response, Sent},
    },
};

impl GroupCoordinator {
    pub(in super::super) fn join_consumer_group(
        &mut self,
        ticket: Ticket,
        join: Sent<JoinGroupRequest>,
        env: &mut Env<'_>,
    ) -> Effects {
        let Some((group_id, group)) = self.consumer_group(&join.body.group_id) else {
            return Effects::answer(ticket, Err(ErrorCode::UnknownMemberId));
        };
        if group.is_empty() {
            if !join.body.member_id.is_empty() {
                return Effects::answer(ticket, Err(ErrorCode::UnknownMemberId));
            }
            let tombstones = group.tombstones(&group_id);
            let effects = Self::join_first(ticket, join, env);
            return Effects {
                append: [tombstones, effects.append].concat(),
                ..effects
            };
        }
        match self.join_step(&group_id, &join, env) {
            Ok((response, mut effects)) => {
                effects.answers.push((ticket, Ok(Response::Join(response))));
                effects
            }
            Err(refusal) => Effects::answer(ticket, Err(refusal.code)),
        }
    }

    fn join_step(
        &mut self,
        group_id: &Arc<str>,
        join: &Sent<JoinGroupRequest>,
        env: &mut Env<'_>,
    ) -> Result<(JoinGroupResponse, Effects), Refusal> {
        let Sent { client, body: join } = join;
        let Some(Group::Consumer(group)) = self.groups.get(group_id) else {
            return Err(refusal(ErrorCode::UnknownMemberId, ""));
        };
        let has_id = !join.member_id.is_empty();
        let member_id: Arc<str> = if has_id {
            group.member_id(&join.member_id)
        } else {
            Arc::from(new_member_id(env))
        };
        group.check_size(&member_id, env.config.groups.consumer_max_size)?;
        let inconsistent = || refusal(ErrorCode::InconsistentGroupProtocol, "");
        let (Some(first), true) = (join.protocols.first(), group.suits(join)) else {
            return Err(inconsistent());
        };
        let subscription = Subscription::decode(&first.metadata).ok_or_else(inconsistent)?;
        if !has_id && join.group_instance_id.is_none() && MEMBER_ID_REQUIRED <= client.version {
            let response = JoinGroupResponse::default()
                .with_member_id((*member_id).to_owned().into())
                .with_error_code(ErrorCode::MemberIdRequired.code());
            return Ok((response, Effects::default()));
        }

        let speaker = group.joining(join, &member_id)?;
        let is_itself = speaker.is_itself();
        let replaces_other_kind = speaker.replaces.is_some() && !speaker.member.is_classic();
        let owned = by_id(&subscription.owned, env.image);
        let about = about(&speaker.member.about, client, join, &subscription);
        let step = group.step(group_id, &member_id, speaker, about, Some(&owned), env)?;
        let mut records = step.records;

        // The last one of the consumer protocol may just have come back as a classic one. Nobody has gone, and
        // everybody keeps what he has.
        let mut is_downgraded = false;
        if replaces_other_kind {
            let mut after = group.clone();
            for record in &records {
                after.replay(record.clone());
            }
            if let Some(downgraded) = after.downgraded_without(group_id, &Default::default(), env) {
                records.extend(downgraded);
                is_downgraded = true;
            }
        }
        let response = JoinGroupResponse::default()
            .with_member_id((*member_id).to_owned().into())
            .with_generation_id(step.current.epoch)
            .with_protocol_type(Some(CONSUMER.into()))
            .with_protocol_name(Some(first.name.clone()));

        let timer = |timer: fn(Arc<str>) -> Timer| timer(Arc::clone(&member_id));
        let session = timer(Timer::Session);
        let (join_timer, sync_timer) = (timer(Timer::Join), timer(Timer::Sync));
        let rebalance_timer = timer(Timer::Rebalance);
        let session_timeout_ms = join.session_timeout_ms;
        let rebalance_timeout_ms = join.rebalance_timeout_ms;
        if is_itself {
            // It lives, whatever becomes of its words.
            self.set_timer(group_id, session.clone(), session_timeout_ms, env);
        }
        let group_id = Arc::clone(group_id);
        let follow = step.follow;
        let then = move |machine: &mut Self, env: &mut Env<'_>| {
            if is_downgraded {
                machine.classic_adopted(&group_id, false, env);
                return Vec::new();
            }
            machine.follow_step(&group_id, &follow, env);
            // Its steps are watched by the time-outs for joining and for asking.
            machine.cancel_timer(&group_id, rebalance_timer);
            machine.cancel_timer(&group_id, join_timer);
            machine.set_timer(&group_id, session, session_timeout_ms, env);
            machine.set_timer(&group_id, sync_timer, rebalance_timeout_ms, env);
            Vec::new()
        };
        let effects = Effects {
            append: records,
            then: Some(Then::if_written(then)),
            ..Effects::default()
        };
        Ok((response, effects))
    }

    pub(in super::super) fn sync_consumer_group(
        &mut self,
        ticket: Ticket,
        sync: Sent<SyncGroupRequest>,
        env: &mut Env<'_>,
    ) -> Effects {
        let sync = sync.body;
        let found = self.classic_member(
            &sync.group_id,
            &sync.member_id,
            sync.group_instance_id.as_deref(),
            sync.generation_id,
        );
        let (group_id, member_id, member, target_epoch) = match found {
            Ok(found) => found,
            Err(code) => return Effects::answer(ticket, Err(code)),
        };
        let classic = member.about.classic.as_deref();
        let (session_timeout_ms, name) = classic.map_or((0, ""), |classic| {
            let first = classic.protocols.first();
            (
                classic.session_timeout_ms,
                first.map_or("", |(name, _)| &**name),
            )
        });
        let other = |said: Option<&str>, known: &str| said.is_some_and(|said| said != known);
        if other(sync.protocol_type.as_deref(), CONSUMER)
            || other(sync.protocol_name.as_deref(), name)
        {
            return Effects::answer(ticket, Err(ErrorCode::InconsistentGroupProtocol));
        }
        // Who has something to give back first has joined again already.
        if member.current.epoch < target_epoch && member.current.state != State::Unrevoked {
            self.call_to_join(&group_id, &member_id, &member, env);
            return Effects::answer(ticket, Err(ErrorCode::RebalanceInProgress));
        }
        self.cancel_timer(&group_id, Timer::Sync(Arc::clone(&member_id)));
        self.set_timer(
            &group_id,
            Timer::Session(member_id),
            session_timeout_ms,
            env,
        );
        let response = SyncGroupResponse::default()
            .with_protocol_type(sync.protocol_type)
            .with_protocol_name(sync.protocol_name)
            .with_assignment(assignment(&member, env.image));
        Effects::answer(ticket, Ok(Response::Sync(response)))
    }

    pub(in super::super) fn heartbeat_consumer_group(
        &mut self,
        ticket: Ticket,
        heartbeat: Sent<HeartbeatRequest>,
        env: &mut Env<'_>,
    ) -> Effects {
        let heartbeat = heartbeat.body;
        let found = self.classic_member(
            &heartbeat.group_id,
            &heartbeat.member_id,
            heartbeat.group_instance_id.as_deref(),
            heartbeat.generation_id,
        );
        let (group_id, member_id, member, target_epoch) = match found {
            Ok(found) => found,
            Err(code) => return Effects::answer(ticket, Err(code)),
        };
        let session_timeout_ms = member
            .about
            .classic
            .as_ref()
            .map_or(0, |it| it.session_timeout_ms);
        let timer = Timer::Session(Arc::clone(&member_id));
        self.set_timer(&group_id, timer, session_timeout_ms, env);
        let has_a_step = match member.current.state {
            _ if member.current.epoch < target_epoch => true,
            State::Unrevoked => true,
            State::Unreleased => match self.groups.get(&group_id) {
                Some(Group::Consumer(group)) => !group.waits_for_others(&member_id, &member),
                _ => false,
            },
            State::Stable | State::Unknown => false,
        };
        let has_a_step = has_a_step || self.has_to_compute(&group_id, env);
        let answer = if has_a_step {
            self.call_to_join(&group_id, &member_id, &member, env);
            Err(ErrorCode::RebalanceInProgress)
        } else {
            Ok(Response::Heartbeat(HeartbeatResponse::default()))
        };
        Effects::answer(ticket, answer)
    }

    /// Has a classic member to join for the others' sake, so that it is computed who is to have what? Where there are
    /// members of the consumer protocol one of their heartbeats does that. Apache Kafka calls nobody: where the group
    /// may not become a classic one, what the last of them had is read by nobody there until somebody joins.
    fn has_to_compute(&mut self, group_id: &Arc<str>, env: &Env<'_>) -> bool {
        let Some(Group::Consumer(group)) = self.groups.get_mut(group_id) else {
            return false;
        };
        if group.is_computed(env.image) || !group.members.values().all(Member::is_classic) {
            return false;
        }
        if !group.has_looked_at(env.image) {
            let hashed = group.hash_after(&BTreeMap::new(), env.image);
            if hashed.hash == group.metadata_hash {
                // Nothing of what this group reads has changed, and the next heartbeat need not look again.
                group.looked.hashed = Some(hashed);
            }
        }
        !group.is_computed(env.image) && group.may_compute(group_id, env)
    }

    /// Members of both protocols can be taken out in this way, and by their instance id alone.
    pub(in super::super) fn leave_consumer_group(
        &mut self,
        ticket: Ticket,
        leave: Sent<LeaveGroupRequest>,
        env: &mut Env<'_>,
    ) -> Effects {
        let leave = leave.body;
        let Some((group_id, group)) = self.consumer_group(&leave.group_id) else {
            return Effects::answer(ticket, Err(ErrorCode::UnknownMemberId));
        };
        let mut leaving = BTreeSet::new();
        let mut responses = Vec::with_capacity(leave.members.len());
        for identity in leave.members {
            let instance_id = identity.group_instance_id.as_deref();
            let named = match instance_id {
                Some(instance_id) if identity.member_id.is_empty() => {
                    let owner = group.static_members.get(instance_id);
                    owner.ok_or_else(|| unknown_instance(instance_id))
                }
                _ => group.named(&group_id, &identity.member_id, instance_id),
            };
            let mut response = MemberResponse::default()
                .with_member_id(identity.member_id)
                .with_group_instance_id(identity.group_instance_id);
            match named {
                Ok(member_id) if !leaving.contains(member_id) => {
                    response.member_id = (**member_id).to_owned().into();
                    leaving.insert(Arc::clone(member_id));
                }
                Ok(_) => response.error_code = ErrorCode::UnknownMemberId.code(),
                Err(refusal) => response.error_code = refusal.code.code(),
            }
            responses.push(response);
        }
        let response = LeaveGroupResponse::default().with_members(responses);
        let mut effects = if leaving.is_empty() {
            Effects::default()
        } else {
            self.remove_members(&group_id, &leaving.into_iter().collect::<Vec<_>>(), env)
        };
        let answer = Ok(Response::Leave(response));
        effects.answers.push((ticket, answer));
        effects
    }

    pub(super) fn consumer_group(&self, group_id: &str) -> Option<(Arc<str>, &ConsumerGroup)> {
        match self.groups.get_key_value(group_id)? {
            (id, Group::Consumer(group)) => Some((Arc::clone(id), group)),
            (_, Group::Classic(_)) => None,
        }
    }

    /// A member that has joined, with its group and the epoch that the group has been assigned for.
    fn classic_member(
        &self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(Arc<str>, Arc<str>, Member, i32), ErrorCode> {
        let found = self.consumer_group(group_id);
        let (group_id, group) = found.ok_or(ErrorCode::UnknownMemberId)?;
        let member_id = group.named(&group_id, member_id, instance_id);
        let member_id = member_id.map_err(|refusal| refusal.code)?;
        let member = group.members.get(member_id);
        let member = member.filter(|member| member.is_classic());
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        if generation != member.current.epoch {
            return Err(ErrorCode::IllegalGeneration);
        }
        Ok((
            group_id,
            Arc::clone(member_id),
            member.clone(),
            group.target_epoch,
        ))
    }

    /// The member has been told to join, and has its rebalance time-out to do it: from the first time it is told.
    fn call_to_join(
        &mut self,
        group_id: &Arc<str>,
        member_id: &Arc<str>,
        member: &Member,
        env: &Env<'_>,
    ) {
        let timer = Timer::Join(Arc::clone(member_id));
        let key = super::super::Timer::Consumer(Arc::clone(group_id), timer.clone());
        if self.timers.get(&key).is_none() {
            self.set_timer(group_id, timer, member.about.rebalance_timeout_ms, env);
        }
    }
}

impl ConsumerGroup {
    /// The member of this id, which is also the one of this instance id.
    fn named(
        &self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<&Arc<str>, Refusal> {
        if let Some(instance_id) = instance_id {
            let owner = self.static_members.get(instance_id);
            let owner = owner.ok_or_else(|| unknown_instance(instance_id))?;
            check_instance(owner, member_id, instance_id)?;
        }
        let known = self.members.get_key_value(member_id);
        let known = known.ok_or_else(|| unknown_member(group_id, member_id))?;
        Ok(known.0)
    }

    /// Is this a consumer, and has it a protocol that all the classic members have?
    fn suits(&self, join: &JoinGroupRequest) -> bool {
        let members = self.members.values();
        let classic = members.filter_map(|member| member.about.classic.as_ref());
        let names = classic.map(|classic| classic.protocols.iter().map(|(name, _)| &**name));
        let common = protocols::common(names);
        let is_common = |name: &str| common.as_ref().is_none_or(|common| common.contains(name));
        *join.protocol_type == *CONSUMER && join.protocols.iter().any(|it| is_common(&it.name))
    }

    fn joining(&self, join: &JoinGroupRequest, member_id: &Arc<str>) -> Result<Speaker, Refusal> {
        let known = || {
            self.members
                .get(member_id)
                .map_or_else(Speaker::new, Speaker::known)
        };
        let Some(instance_id) = join.group_instance_id.as_deref() else {
            return Ok(known());
        };
        match self.static_members.get_key_value(instance_id) {
            None if join.member_id.is_empty() => Ok(known()),
            None => Err(unknown_instance(instance_id)),
            // It has started again, and has no id any more.
            Some((_, owner)) if join.member_id.is_empty() => {
                let member = self.members.get(owner);
                Ok(member.map_or_else(Speaker::new, |member| Speaker::replacing(owner, member)))
            }
            Some((_, owner)) => {
                check_instance(owner, member_id, instance_id)?;
                Ok(known())
            }
        }
    }

    /// Is everybody's target that of the group's last epoch, and this of the topics as they are?
    fn is_computed(&self, image: &ClusterImage) -> bool {
        self.epoch <= self.target_epoch && self.has_looked_at(image)
    }

    /// Has another still what this member waits for?
    fn waits_for_others(&self, member_id: &str, member: &Member) -> bool {
        let Some(target) = self.targets.get(member_id) else {
            return false;
        };
        target.iter().any(|(topic, indexes)| {
            let nothing = BTreeMap::new();
            let assigned = member.current.assigned.get(topic).unwrap_or(&nothing);
            let mut missing = indexes.iter().filter(|index| !assigned.contains_key(index));
            missing.any(|index| !self.is_free(*topic, *index))
        })
    }
}

/// What the member says of itself in its subscription.
fn about(
    before: &About,
    client: &Client,
    join: &JoinGroupRequest,
    subscription: &Subscription,
) -> About {
    let protocols = join.protocols.iter().map(|protocol| {
        let name: Arc<str> = Arc::from(&*protocol.name);
        // A copy: a slice would keep the whole request with it.
        (name, Bytes::copy_from_slice(&protocol.metadata))
    });
    let instance_id = join.group_instance_id.as_deref().map(Arc::from);
    let rack_id = subscription.rack_id.as_deref().map(Arc::from);
    About {
        instance_id: instance_id.or_else(|| before.instance_id.clone()),
        rack_id: rack_id.or_else(|| before.rack_id.clone()),
        client_id: Arc::clone(&client.id),
        client_host: same_or_new(&before.client_host, &client.host()),
        topic_names: sorted(subscription.topics.iter().map(|name| &**name)),
        topic_regex: Arc::from(""),
        rebalance_timeout_ms: join.rebalance_timeout_ms,
        assignor: before.assignor.clone(),
        classic: Some(Box::new(Classic {
            session_timeout_ms: join.session_timeout_ms,
            protocols: protocols.collect(),
        })),
    }
}
