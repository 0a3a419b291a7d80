//! ConsumerGroupHeartbeat at its group: what a member says of itself, and the step that it takes for it.
//!
//! 1. Who is it? New, known by its epoch, or back with an instance id.
//! 2. What does it read? Another subscription, another assignor or other topics are another epoch of the group.
//! 3. Who is to have what? Computed anew if the epoch has gone on and the last time is long enough ago.
//! 4. The member is led there as far as it can go now.

use std::{collections::BTreeMap, mem, sync::Arc};

use kafka_protocol::{
    messages::{
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
        consumer_group_heartbeat_response::{Assignment, TopicPartitions},
    },
    protocol::StrBytes,
};
use protocol::{error::ErrorCode, records::group::GroupRecord};
use uuid::Uuid;

use super::{
    ConsumerGroup, Timer, config, epoch_record,
    member::{self, AWAY, About, Current, Member, Owned, State, sorted},
    reconciliation::{Goal, UnknownState},
    refusal::{
        Refusal, check_epoch, check_instance, not_found, refusal, unknown_instance, unknown_member,
        validate,
    },
    regex,
    subscription::Hashed,
    target_epoch_record, target_record,
};
use crate::coordinator::{
    Env, Then, Ticket,
    group::{
        Effects, Group, GroupCoordinator,
        assignor::Partitions,
        request::{Client, ConsumerHeartbeat, Response, Sent},
    },
};

/// What stands for "as before" in a heartbeat.
pub(super) const UNCHANGED: i32 = -1;

/// What somebody who joins or speaks is found to be.
pub(super) struct Speaker {
    pub(super) member: Member,
    /// Nobody knew it.
    pub(super) is_new: bool,
    /// Whose place it takes: a static member's of the same instance id.
    pub(super) replaces: Option<Arc<str>>,
}

/// What comes of a member's words, whichever protocol it speaks.
pub(super) struct Step {
    pub(super) records: Vec<GroupRecord>,
    pub(super) current: Arc<Current>,
    pub(super) follow: Follow,
}

/// What follows from a step outside the log.
pub(super) struct Follow {
    /// There are expressions to resolve.
    resolve: bool,
    /// The hash of what the group reads, if it was looked at.
    hashed: Option<Arc<Hashed>>,
}

impl GroupCoordinator {
    pub(in super::super) fn consumer_heartbeat(
        &mut self,
        ticket: Ticket,
        heartbeat: ConsumerHeartbeat,
        env: &mut Env<'_>,
    ) -> Effects {
        let ConsumerHeartbeat { sent, regex } = heartbeat;
        let Sent { client, mut body } = sent;
        let outcome = validate(&body, client.version, &env.config.groups).and_then(|()| {
            if body.member_id.is_empty() {
                body.member_id = StrBytes::from_string(new_member_id(env));
            }
            if body.member_epoch < 0 {
                self.heartbeat_leave(&body, env)
            } else {
                self.heartbeat_step(&client, &body, regex, env)
            }
        });
        match outcome {
            Ok((response, mut effects)) => {
                let response = Response::ConsumerHeartbeat(response);
                effects.answers.push((ticket, Ok(response)));
                effects
            }
            Err(Refusal { code, message }) => {
                let response = ConsumerGroupHeartbeatResponse::default()
                    .with_error_code(code.code())
                    .with_error_message(Some(message.into()));
                Effects::answer(ticket, Ok(Response::ConsumerHeartbeat(response)))
            }
        }
    }

    fn heartbeat_step(
        &mut self,
        client: &Client,
        request: &ConsumerGroupHeartbeatRequest,
        regex: Result<(), String>,
        env: &mut Env<'_>,
    ) -> Result<(ConsumerGroupHeartbeatResponse, Effects), Refusal> {
        let group_id: Arc<str> = match self.groups.get_key_value(&*request.group_id.0) {
            Some((id, _)) => Arc::clone(id),
            None => Arc::from(&*request.group_id.0),
        };
        let joins = request.member_epoch == 0;
        let arrival = self.arrive(&group_id, joins, env)?;
        let group = match (&arrival.group, self.groups.get(&group_id)) {
            (Some(group), _) | (None, Some(Group::Consumer(group))) => group,
            _ => return Err(not_found(&group_id)),
        };

        let owned = request.topic_partitions.as_ref().map(|topics| {
            let mut owned = Partitions::new();
            for topic in topics {
                owned
                    .entry(topic.topic_id)
                    .or_default()
                    .extend(&topic.partitions);
            }
            owned
        });
        let member_id: Arc<str> = group.member_id(&request.member_id);
        let speaker = group.speaker(&group_id, &member_id, request, owned.as_ref(), env)?;
        let about = about(&speaker.member.about, client, request);
        let was_classic = speaker.member.is_classic();
        let is_itself = speaker.is_itself();
        let watched = speaker.watched();
        let before = Arc::clone(&speaker.member.current);
        group.check_regex(&speaker.member.about, &about, regex)?;
        let step = group.step(&group_id, &member_id, speaker, about, owned.as_ref(), env)?;

        let config = config(&group_id, env);
        let names_topics =
            request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some();
        let says_all = request.rebalance_timeout_ms != UNCHANGED && names_topics && owned.is_some();
        let is_full = joins || says_all;
        let mut response = ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some((*member_id).to_owned().into()))
            .with_member_epoch(step.current.epoch)
            .with_heartbeat_interval_ms(config.heartbeat_interval_ms);
        if is_full || !same_partitions(&before.assigned, &step.current.assigned) {
            response.assignment = Some(assignment(&step.current.assigned));
        }

        let session = Timer::Session(Arc::clone(&member_id));
        if is_itself {
            // It lives, whatever becomes of its words.
            self.set_timer(&group_id, session.clone(), config.session_timeout_ms, env);
        }
        let upgrades = arrival.upgrades;
        let Step {
            mut records,
            follow,
            ..
        } = step;
        if !arrival.records.is_empty() {
            let step = mem::replace(&mut records, arrival.records);
            records.extend(step);
        }
        let then = move |machine: &mut Self, env: &mut Env<'_>| {
            let answers = if upgrades {
                machine.upgraded(&group_id, env)
            } else {
                Vec::new()
            };
            machine.follow_step(&group_id, &follow, env);
            machine.watch(&group_id, &member_id, watched.as_ref(), env);
            machine.set_timer(&group_id, session, config.session_timeout_ms, env);
            if was_classic {
                machine.cancel_timer(&group_id, Timer::Join(Arc::clone(&member_id)));
                machine.cancel_timer(&group_id, Timer::Sync(member_id));
            }
            answers
        };
        let effects = Effects {
            append: records,
            then: Some(Then::if_written(then)),
            ..Effects::default()
        };
        Ok((response, effects))
    }

    /// What follows from a step outside the log, once it is in it.
    pub(super) fn follow_step(&mut self, group_id: &Arc<str>, follow: &Follow, env: &Env<'_>) {
        if let Some(Group::Consumer(group)) = self.groups.get_mut(group_id)
            && follow.hashed.is_some()
        {
            group.looked.hashed.clone_from(&follow.hashed);
        }
        let key = super::super::Timer::Consumer(Arc::clone(group_id), Timer::Regexes);
        if follow.resolve && self.timers.get(&key).is_none() {
            self.set_timer(group_id, Timer::Regexes, 0, env);
        }
    }

    /// What the member has to give back, it has to give back in time. `watched` is what it is waited for already.
    fn watch(
        &mut self,
        group_id: &Arc<str>,
        member_id: &Arc<str>,
        watched: Option<&Arc<Current>>,
        env: &Env<'_>,
    ) {
        let Some(Group::Consumer(group)) = self.groups.get(group_id) else {
            return;
        };
        let member = group.members.get(member_id);
        let Some(member) = member.filter(|member| watched != Some(&member.current)) else {
            return;
        };
        let timer = Timer::Rebalance(Arc::clone(member_id));
        if member.current.state == State::Unrevoked {
            let timeout_ms = member.about.rebalance_timeout_ms;
            self.set_timer(group_id, timer, timeout_ms, env);
        } else {
            self.cancel_timer(group_id, timer);
        }
    }
}

impl ConsumerGroup {
    /// Who speaks, and may it?
    fn speaker(
        &self,
        group_id: &str,
        member_id: &Arc<str>,
        request: &ConsumerGroupHeartbeatRequest,
        owned: Option<&Partitions>,
        env: &Env<'_>,
    ) -> Result<Speaker, Refusal> {
        let epoch = request.member_epoch;
        let known = self.members.get(member_id);
        self.check_size(member_id, env.config.groups.consumer_max_size)?;
        let Some(instance_id) = request.instance_id.as_deref() else {
            return match known {
                Some(member) => {
                    check_epoch(&member.current, epoch, owned)?;
                    Ok(Speaker::known(member))
                }
                None if epoch == 0 => Ok(Speaker::new()),
                None => Err(unknown_member(group_id, member_id)),
            };
        };
        let owner = self.static_members.get(instance_id);
        let owner = owner.and_then(|id| Some((id, self.members.get(id)?)));
        match owner {
            None if epoch == 0 => Ok(known.map_or_else(Speaker::new, Speaker::known)),
            None => Err(unknown_instance(instance_id)),
            Some((id, member)) if epoch == 0 => {
                if !member.is_classic() && member.current.epoch != AWAY {
                    return Err(refusal(
                        ErrorCode::UnreleasedInstanceId,
                        format!(
                            "Static member {member_id} with instance id {instance_id} cannot join the group because \
                             the instance id is owned by {id} member."
                        ),
                    ));
                }
                Ok(Speaker::replacing(id, member))
            }
            Some((id, member)) => {
                check_instance(id, member_id, instance_id)?;
                check_epoch(&member.current, epoch, owned)?;
                Ok(Speaker::known(member))
            }
        }
    }

    pub(super) fn check_size(&self, member_id: &str, max_size: usize) -> Result<(), Refusal> {
        if max_size <= self.members.len() && !self.members.contains_key(member_id) {
            return Err(refusal(
                ErrorCode::GroupMaxSizeReached,
                format!(
                    "The consumer group has reached its maximum capacity of {max_size} members."
                ),
            ));
        }
        Ok(())
    }

    /// An expression that the group does not know has to be one; `found` says whether it is.
    fn check_regex(
        &self,
        before: &About,
        about: &About,
        found: Result<(), String>,
    ) -> Result<(), Refusal> {
        let pattern = &about.topic_regex;
        if *pattern == before.topic_regex || 0 < self.regex_subscribers(pattern) {
            return Ok(());
        }
        found.map_err(|reason| {
            let reason = format!(
                "SubscribedTopicRegex `{pattern}` is not a valid regular expression: {reason}."
            );
            refusal(ErrorCode::InvalidRegularExpression, reason)
        })
    }

    /// Is it long enough ago that it was computed who is to have what? What is in the log may be ahead of a clock that
    /// was set back.
    pub(super) fn may_compute(&self, group_id: &str, env: &Env<'_>) -> bool {
        let interval_ms = i64::from(config(group_id, env).assignment_interval_ms);
        let since_ms = env.now - self.target_timestamp;
        since_ms < 0 || interval_ms <= since_ms
    }

    /// Decides what comes of a member saying `about` of itself.
    pub(super) fn step(
        &self,
        group_id: &str,
        member_id: &Arc<str>,
        speaker: Speaker,
        about: About,
        owned: Option<&Partitions>,
        env: &Env<'_>,
    ) -> Result<Step, Refusal> {
        let Speaker {
            member,
            is_new,
            replaces,
        } = speaker;
        let mut records = Vec::new();
        let mut current = Arc::clone(&member.current);
        if let Some(replaced) = &replaces {
            records.extend(member::tombstones(group_id, replaced));
            records.push(member.about.record(group_id, member_id));
            let nothing = Partitions::new();
            let target = self
                .targets
                .get(replaced)
                .map_or(&nothing, |target| &**target);
            records.push(target_record(group_id, member_id, target));
            current = Arc::new(current.returning());
            records.push(current.record(group_id, member_id));
        }

        if is_new || about != *member.about {
            records.push(about.record(group_id, member_id));
        }
        let names_changed = about.topic_names != member.about.topic_names;
        let regex_changed = about.topic_regex != member.about.topic_regex;
        let mut bump = names_changed || about.assignor != member.about.assignor;
        let mut resolve = false;
        if regex_changed {
            let before = &member.about.topic_regex;
            if !before.is_empty() && self.regex_subscribers(before) <= 1 {
                records.push(regex::tombstone(group_id, before));
            }
            let pattern = &about.topic_regex;
            if pattern.is_empty() || self.regexes.contains_key(pattern) {
                bump = true;
            } else {
                resolve = true;
            }
        }
        resolve |= self.is_refresh_due(env);

        let mut epoch = self.epoch;
        let mut looked = None;
        if bump || !self.has_looked_at(env.image) {
            let mut changed = BTreeMap::from([(&**member_id, Some(&about))]);
            if let Some(replaced) = replaces.as_deref().filter(|it| **it != **member_id) {
                changed.insert(replaced, None);
            }
            let hashed = self.hash_after(&changed, env.image);
            bump |= hashed.hash != self.metadata_hash;
            if bump {
                epoch += 1;
                records.push(epoch_record(group_id, epoch, hashed.hash));
            }
            looked = Some(hashed);
        }

        let former = replaces.as_ref().unwrap_or(member_id);
        let mut target = self.targets.get(former).cloned().unwrap_or_default();
        let mut target_epoch = self.target_epoch;
        if target_epoch < epoch && self.may_compute(group_id, env) {
            let targets = self.assign(member_id, &about, replaces.as_ref(), env);
            target_epoch = epoch;
            target = Arc::default();
            for it in targets {
                if it.is_new() {
                    records.push(target_record(group_id, it.id, it.assigned()));
                }
                if *it.id == **member_id {
                    target = it.into_assigned();
                }
            }
            records.push(target_epoch_record(group_id, epoch, env.now));
        }

        let subscription_changed = names_changed || regex_changed;
        if subscription_changed || current.state != State::Stable || current.epoch != target_epoch {
            let goal = Goal {
                epoch: target_epoch,
                target: &target,
                subscribed: &self.topic_ids(&about, env.image),
                subscription_changed,
                owned,
            };
            let next = current.reconcile(goal, |topic, index| self.is_free(topic, index));
            let next = next.map_err(|UnknownState| {
                refusal(
                    ErrorCode::FencedMemberEpoch,
                    "The consumer group member is in a unknown state. The member must abandon all its partitions and \
                     rejoin.",
                )
            })?;
            if let Some(next) = next {
                records.push(next.record(group_id, member_id));
                current = Arc::new(next);
            }
        }
        Ok(Step {
            records,
            current,
            follow: Follow {
                resolve,
                hashed: looked,
            },
        })
    }
}

impl Speaker {
    pub(super) fn new() -> Self {
        Self {
            member: Member::default(),
            is_new: true,
            replaces: None,
        }
    }

    pub(super) fn known(member: &Member) -> Self {
        Self {
            member: member.clone(),
            is_new: false,
            replaces: None,
        }
    }

    /// Is it a member that speaks for itself?
    pub(super) fn is_itself(&self) -> bool {
        !self.is_new && self.replaces.is_none()
    }

    /// What its rebalance time-out is about, if there may be one. Classic members have others.
    pub(super) fn watched(&self) -> Option<Arc<Current>> {
        let is_watched = self.is_itself() && !self.member.is_classic();
        is_watched.then(|| Arc::clone(&self.member.current))
    }

    pub(super) fn replacing(id: &Arc<str>, member: &Member) -> Self {
        Self {
            member: member.clone(),
            is_new: false,
            replaces: Some(Arc::clone(id)),
        }
    }
}

/// What the member says of itself now; what it leaves out is as it was.
fn about(before: &About, client: &Client, request: &ConsumerGroupHeartbeatRequest) -> About {
    let or = |said: Option<&StrBytes>, before: &Option<Arc<str>>| match (said, before) {
        (Some(said), Some(before)) if **said == **before => Some(Arc::clone(before)),
        (Some(said), _) => Some(Arc::from(&**said)),
        (None, before) => before.clone(),
    };
    let topic_names = request.subscribed_topic_names.as_ref();
    let topic_names = topic_names.map(|names| sorted(names.iter().map(|name| &***name)));
    let regex = request.subscribed_topic_regex.as_deref();
    About {
        instance_id: or(request.instance_id.as_ref(), &before.instance_id),
        rack_id: or(request.rack_id.as_ref(), &before.rack_id),
        client_id: Arc::clone(&client.id),
        client_host: same_or_new(&before.client_host, &client.host()),
        topic_names: topic_names.unwrap_or_else(|| before.topic_names.clone()),
        topic_regex: match regex {
            Some(regex) => same_or_new(&before.topic_regex, regex),
            None => Arc::clone(&before.topic_regex),
        },
        rebalance_timeout_ms: match request.rebalance_timeout_ms {
            UNCHANGED => before.rebalance_timeout_ms,
            timeout_ms => timeout_ms,
        },
        assignor: or(request.server_assignor.as_ref(), &before.assignor),
        classic: None,
    }
}

pub(super) fn same_or_new(before: &Arc<str>, text: &str) -> Arc<str> {
    if **before == *text {
        Arc::clone(before)
    } else {
        Arc::from(text)
    }
}

fn same_partitions(a: &Owned, b: &Owned) -> bool {
    let keys = |owned: &Owned| -> Vec<(Uuid, Vec<i32>)> {
        let topics = owned.iter();
        topics
            .map(|(topic, it)| (*topic, it.keys().copied().collect()))
            .collect()
    };
    a == b || keys(a) == keys(b)
}

fn assignment(assigned: &Owned) -> Assignment {
    let topics = assigned.iter().map(|(topic_id, partitions)| {
        TopicPartitions::default()
            .with_topic_id(*topic_id)
            .with_partitions(partitions.keys().copied().collect())
    });
    Assignment::default().with_topic_partitions(topics.collect())
}

/// An id as Kafka makes them: a random UUID in base 64 as it stands in URLs, and never a dash in front.
pub(super) fn new_member_id(env: &mut Env<'_>) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    loop {
        let bits = (env.new_id)().as_u128();
        // 21 digits of six bits, and the last two bits as the first ones of another.
        let digit = |at: u32| {
            let shift = 122_u32.checked_sub(6 * at);
            let digit = shift.map_or_else(|| bits << 4, |shift| bits >> shift) & 63;
            char::from(ALPHABET[usize::try_from(digit).unwrap_or(0)])
        };
        let id: String = (0..22).map(digit).collect();
        if !id.starts_with('-') {
            return id;
        }
    }
}
