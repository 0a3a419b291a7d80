//! Groups that pass from one protocol to the other.
//!
//! - A group that is empty changes when somebody of the other protocol comes. Its offsets stay what they are.
//! - A group of classic members becomes one of the consumer protocol when the first such member comes, and a classic
//!   one again when the last of them goes: if `group.consumer.migration.policy` allows it, and all classic members
//!   are consumers whose words can be read. Nobody has to stop for it. The generation goes on as the epoch, and
//!   the epoch as the generation.
//! - All of it is in the records: tombstones of the one kind, and in the same batch the records of the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use bytes::Bytes;
use protocol::{
    error::ErrorCode,
    records::group::{GroupMetadataKey, GroupMetadataValue, GroupRecord, MemberMetadata},
};
use replication::cluster::ClusterImage;

use super::{
    ConsumerGroup, Timer,
    embedded::{Subscription, decode_assignment, encode_assignment},
    epoch_record,
    member::{About, Classic, Current, Member, Owned, State, sorted},
    refusal::{Refusal, not_a_consumer_group, not_found, refusal},
    target_epoch_record, target_record,
};
use crate::coordinator::{
    Answer, Env, Ticket,
    group::{
        Group, GroupCoordinator,
        assignor::Partitions,
        classic::ClassicGroup,
        protocols::{self, CONSUMER},
    },
};

/// The group that somebody comes to who speaks the consumer protocol.
#[derive(Default)]
pub(super) struct Arrival {
    /// As it is going to be, if it is not one of the consumer protocol yet.
    pub(super) group: Option<ConsumerGroup>,
    /// What makes it so.
    pub(super) records: Vec<GroupRecord>,
    /// It has classic members, who may be waiting.
    pub(super) upgrades: bool,
}

impl GroupCoordinator {
    pub(super) fn arrive(
        &self,
        group_id: &Arc<str>,
        joins: bool,
        env: &Env<'_>,
    ) -> Result<Arrival, Refusal> {
        let group = match self.groups.get(group_id) {
            Some(Group::Consumer(_)) => return Ok(Arrival::default()),
            None if joins => {
                return Ok(Arrival {
                    group: Some(ConsumerGroup::default()),
                    ..Arrival::default()
                });
            }
            None => return Err(not_found(group_id)),
            Some(Group::Classic(_)) if !joins => return Err(not_a_consumer_group(group_id)),
            Some(Group::Classic(group)) => group,
        };
        let mut append = group.tombstones(group_id);
        let mut upgraded = ConsumerGroup::default();
        let upgrades = !group.is_empty();
        if upgrades {
            let records = upgrade(group, group_id, env)?;
            for record in &records {
                upgraded.replay(record.clone());
            }
            append.extend(records);
        }
        Ok(Arrival {
            group: Some(upgraded),
            records: append,
            upgrades,
        })
    }

    /// The group has been a classic one and has classic members now, who are minded from here on. Those who waited in
    /// the classic group join again.
    pub(super) fn upgraded(
        &mut self,
        group_id: &Arc<str>,
        env: &Env<'_>,
    ) -> Vec<(Ticket, Answer<Self>)> {
        let members = match self.groups.get(group_id) {
            Some(Group::Consumer(group)) => group.members.iter(),
            _ => return Vec::new(),
        };
        let sessions = members.filter_map(|(id, member)| {
            let classic = member.about.classic.as_ref()?;
            Some((Arc::clone(id), classic.session_timeout_ms))
        });
        for (member_id, timeout_ms) in sessions.collect::<Vec<_>>() {
            self.set_timer(group_id, Timer::Session(member_id), timeout_ms, env);
        }
        let waiting = mem::take(&mut self.called_off).into_iter();
        let waiting = waiting.map(|ticket| (ticket, Err(ErrorCode::RebalanceInProgress)));
        waiting.collect()
    }
}

/// The records of the group of the consumer protocol that this one becomes.
fn upgrade(
    group: &ClassicGroup,
    group_id: &str,
    env: &Env<'_>,
) -> Result<Vec<GroupRecord>, Refusal> {
    let refused = |reason: &str| {
        refusal(
            ErrorCode::GroupIdNotFound,
            format!("Cannot upgrade classic group {group_id} to consumer group because {reason}."),
        )
    };
    let groups = &env.config.groups;
    if !groups.consumer_migration_policy.upgrades() {
        return Err(refused("the online upgrade is disabled"));
    }
    if !group.is_of_consumers() {
        return Err(refused(
            "the group does not use the consumer embedded protocol",
        ));
    }
    if groups.consumer_max_size < group.member_count() {
        return Err(refused(
            "the group size exceeds the consumer group maximum size",
        ));
    }
    let epoch = group.generation();
    let mut upgraded = ConsumerGroup {
        epoch,
        target_epoch: epoch,
        ..ConsumerGroup::default()
    };
    let mut targets = BTreeMap::new();
    for portrait in group.portraits() {
        let malformed = || refused("the embedded consumer protocol is malformed");
        let subscription = Subscription::decode(portrait.metadata).ok_or_else(malformed)?;
        let assigned = decode_assignment(portrait.assignment).ok_or_else(malformed)?;
        let target = by_id(&assigned, env.image);
        let owned = target.iter().map(|(topic, indexes)| {
            let indexes = indexes.iter().map(|index| (*index, epoch)).collect();
            (*topic, indexes)
        });
        let about = About {
            instance_id: portrait.instance_id.map(Arc::from),
            rack_id: subscription.rack_id.map(Arc::from),
            client_id: Arc::from(portrait.client_id),
            client_host: Arc::from(portrait.client_host),
            topic_names: sorted(subscription.topics.iter().map(|name| &**name)),
            rebalance_timeout_ms: portrait.rebalance_timeout_ms,
            classic: Some(Box::new(Classic {
                session_timeout_ms: portrait.session_timeout_ms,
                protocols: portrait
                    .protocols
                    .map(|(name, metadata)| (Arc::from(name), metadata.clone()))
                    .collect(),
            })),
            ..About::default()
        };
        let current = Current {
            epoch,
            previous_epoch: epoch,
            state: State::Stable,
            assigned: owned.collect::<Owned>(),
            revoking: Owned::new(),
        };
        let member = Member {
            about: Arc::new(about),
            current: Arc::new(current),
        };
        targets.insert(Arc::clone(portrait.id), target);
        upgraded.subscriptions.add(&member.about);
        upgraded.members.insert(Arc::clone(portrait.id), member);
    }

    let hash = upgraded.hash(&BTreeMap::new(), &BTreeMap::new(), env.image);
    let members = || upgraded.members.iter();
    let mut records: Vec<GroupRecord> = members()
        .map(|(id, member)| member.about.record(group_id, id))
        .collect();
    records.push(epoch_record(group_id, epoch, hash));
    let targets = targets.iter();
    records.extend(targets.map(|(id, target)| target_record(group_id, id, target)));
    records.push(target_epoch_record(group_id, epoch, 0));
    records.extend(members().map(|(id, member)| member.current.record(group_id, id)));
    Ok(records)
}

impl ConsumerGroup {
    /// If the group has only classic members when these have gone, the records that make it a classic one.
    pub(super) fn downgraded_without(
        &self,
        group_id: &str,
        removed: &BTreeSet<&Arc<str>>,
        env: &Env<'_>,
    ) -> Option<Vec<GroupRecord>> {
        let groups = &env.config.groups;
        let staying = || self.members.iter().filter(|(id, _)| !removed.contains(id));
        let allowed = groups.consumer_migration_policy.downgrades();
        if !allowed
            || staying().next().is_none()
            || groups.max_size < staying().count()
            || !staying().all(|(_, member)| member.is_classic())
        {
            return None;
        }
        let mut records = self.tombstones(group_id);
        records.push(downgrade(group_id, self.epoch, staying(), env));
        Some(records)
    }
}

/// The record of a classic group of these members, with what each has of its target.
fn downgrade<'a>(
    group_id: &str,
    generation: i32,
    members: impl Iterator<Item = (&'a Arc<str>, &'a Member)> + Clone,
    env: &Env<'_>,
) -> GroupRecord {
    let protocols = |member: &'a Member| {
        let classic = member.about.classic.as_ref();
        classic.into_iter().flat_map(|classic| &*classic.protocols)
    };
    let metadata = |member: &'a Member, protocol: &str| {
        let mut protocols = protocols(member);
        protocols
            .find(|(name, _)| **name == *protocol)
            .map(|(_, metadata)| metadata)
    };
    let names = |member| protocols(member).map(|(name, _)| &**name);
    let common = protocols::common(members.clone().map(|(_, member)| names(member)));
    let first = members.clone().next();
    let mut candidates = first.into_iter().flat_map(|(_, first)| names(first));
    let protocol = common.and_then(|common| candidates.find(|name| common.contains(name)));
    let protocol = protocol.unwrap_or_default();
    let written = members.clone().map(|(id, member)| {
        let classic = member.about.classic.as_deref();
        MemberMetadata {
            member_id: (**id).to_owned(),
            group_instance_id: member.about.instance_id.as_deref().map(str::to_owned),
            client_id: (*member.about.client_id).to_owned(),
            client_host: (*member.about.client_host).to_owned(),
            rebalance_timeout: member.about.rebalance_timeout_ms,
            session_timeout: classic.map_or(0, |classic| classic.session_timeout_ms),
            subscription: metadata(member, protocol).cloned().unwrap_or_default(),
            assignment: assignment(member, env.image),
        }
    });
    let leader = members.clone().next().map(|(id, _)| (**id).to_owned());
    GroupRecord::GroupMetadata {
        key: GroupMetadataKey {
            group: group_id.to_owned(),
        },
        value: Some(GroupMetadataValue {
            protocol_type: CONSUMER.to_owned(),
            generation,
            protocol: Some(protocol.to_owned()),
            leader,
            current_state_timestamp: env.now,
            members: written.collect(),
        }),
    }
}

/// What a classic member has, as it reads it.
pub(super) fn assignment(member: &Member, image: &ClusterImage) -> Bytes {
    let metadata = member.about.classic.as_ref();
    let metadata = metadata.and_then(|classic| classic.protocols.first());
    let version = metadata.and_then(|(_, metadata)| Subscription::decode(metadata));
    let version = version.map_or(0, |subscription| subscription.version);
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, indexes) in &member.current.assigned {
        if let Some(topic) = image.topic_by_id(*topic) {
            topics.insert(&topic.name, indexes.keys().copied().collect());
        }
    }
    encode_assignment(version, topics.into_iter())
}

/// The same by topic id; topics that do not exist are left out.
pub(super) fn by_id(partitions: &[(String, Vec<i32>)], image: &ClusterImage) -> Partitions {
    let mut by_id = Partitions::new();
    for (name, indexes) in partitions {
        if let Some(topic) = image.topic(name)
            && !indexes.is_empty()
        {
            by_id.entry(topic.id).or_default().extend(indexes);
        }
    }
    by_id
}
