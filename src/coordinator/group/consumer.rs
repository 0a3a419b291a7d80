//! Groups of the consumer protocol (KIP-848): the broker assigns, and leads each member to its assignment by itself.
//!
//! ```text
//!   the group's epoch        goes on whenever somebody comes, goes or reads other topics, and when topics change
//!   -> target assignment     computed for an epoch at a heartbeat, at most every consumer.assignment.interval.ms
//!   -> members' assignments  each led there in its own time: gives back first, gets what is free, heartbeat by heartbeat
//! ```
//!
//! - All of this is in records and changed by [`ConsumerGroup::replay`] alone; a heartbeat only says which records
//!   there are to be. Sessions, and who has to give something back by when, are timers: a member's go when it does, on
//!   replay, and what follows from records that a heartbeat brings follows when they are in the log.
//! - Members of the classic protocol can live in such a group ([`classic_members`]), and groups pass from one
//!   protocol to the other ([`migration`]).
//! - Epochs begin at 1 and are not written down before the first change: a group whose members read nothing stays in 1.
//!
//! [`heartbeat`] is what members say, [`refusal`] what they are refused for, [`leave`] how they go, [`targets`] who is to have
//! what, [`reconciliation`] the step from one assignment to the next, [`resolution`] what members' expressions match.

mod classic_members;
mod embedded;
mod heartbeat;
mod leave;
mod member;
mod migration;
mod reconciliation;
mod refusal;
mod regex;
mod resolution;
mod show;
mod subscription;
mod targets;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{
    error::ErrorCode,
    records::group::{
        ConsumerGroupMetadataValue, GroupKey, GroupRecord, TargetAssignmentMemberValue,
        TargetAssignmentMetadataValue, TopicPartitions,
    },
};
use replication::cluster::{ClusterImage, ResourceKind};
use uuid::Uuid;

pub(super) use self::regex::check as check_regex;
pub(super) use self::resolution::{Resolution, ResolveExpressions};
use self::{
    member::{About, Current, Member, Owned},
    regex::Resolved,
    subscription::{Hashed, Subscriptions},
};
use super::{Committer, Effects, Group, GroupCoordinator, RetentionBase, assignor::Partitions};
use crate::{
    config::ConsumerGroupConfig,
    coordinator::{Env, Origin},
};

/// The first version of OffsetCommit that knows of member epochs.
const COMMIT_WITH_EPOCH: i16 = 9;

/// When a removal is tried again that could not be written down.
const RETRY_MS: i32 = 1000;

#[derive(Debug, Clone)]
pub(crate) struct ConsumerGroup {
    epoch: i32,
    /// Of the topics that its members read.
    metadata_hash: i64,
    members: BTreeMap<Arc<str>, Member>,
    subscriptions: Subscriptions,
    /// Instance ids of static members, and the member ids they go by.
    static_members: BTreeMap<Arc<str>, Arc<str>>,
    /// The epoch that the target assignment is for, and when it was computed (ms).
    target_epoch: i32,
    target_timestamp: i64,
    targets: BTreeMap<Arc<str>, Arc<Partitions>>,
    /// Who has a partition: in which epoch its owner is, until he has given it back.
    owners: BTreeMap<Uuid, BTreeMap<i32, i32>>,
    /// What members' expressions have been found to match.
    regexes: BTreeMap<Arc<str>, Resolved>,
    looked: Looked,
}

/// When the group last looked at the cluster. Not in the log: after a restart it looks again.
#[derive(Debug, Clone)]
struct Looked {
    /// The last hash that was computed.
    hashed: Option<Arc<Hashed>>,
    /// Offset of the metadata in which expressions were resolved, and when that was, by the steady clock as all that
    /// follows (ms).
    regexes: i64,
    regexes_at: i64,
    /// Expressions are being resolved, a few at a time: in the metadata of which offset, and up to which one.
    pass: Option<(i64, Arc<str>)>,
    /// What they match could not be written down, and is not looked for again before this (ms).
    regexes_rest_until: i64,
    /// So many are resolved at a time, and written down together.
    regexes_at_once: usize,
    /// What these match is more than can be written down; they are not looked at before this (ms).
    regexes_too_large: BTreeMap<Arc<str>, i64>,
}

/// What a group waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A sign of life from this member.
    Session(Arc<str>),
    /// What this member has to give back.
    Rebalance(Arc<str>),
    /// A member of the classic protocol, called to join again.
    Join(Arc<str>),
    /// The same, to ask for its assignment.
    Sync(Arc<str>),
    /// There are expressions to be resolved.
    Regexes,
}

impl Default for ConsumerGroup {
    fn default() -> Self {
        Self {
            epoch: 1,
            metadata_hash: 0,
            members: BTreeMap::new(),
            subscriptions: Subscriptions::default(),
            static_members: BTreeMap::new(),
            target_epoch: 1,
            target_timestamp: 0,
            targets: BTreeMap::new(),
            owners: BTreeMap::new(),
            regexes: BTreeMap::new(),
            looked: Looked {
                hashed: None,
                regexes: i64::MIN,
                regexes_at: i64::MIN,
                pass: None,
                regexes_rest_until: 0,
                regexes_at_once: resolution::AT_ONCE,
                regexes_too_large: BTreeMap::new(),
            },
        }
    }
}

impl ConsumerGroup {
    /// Members may commit in their epoch, and in an older one what they have had since (KIP-1251).
    pub(super) fn check_commit(&self, commit: &Committer<'_>) -> Result<(), ErrorCode> {
        // Somebody who is no member may commit while nobody is.
        if commit.epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        // A producer that says nothing of its consumer is fenced by its epoch, and by nothing else.
        let is_nobody =
            commit.epoch == -1 && commit.member_id.is_empty() && commit.group_instance_id.is_none();
        if commit.transactional && is_nobody {
            return Ok(());
        }
        let member = self.members.get(commit.member_id);
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        if !commit.transactional && !member.is_classic() && commit.version < COMMIT_WITH_EPOCH {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if commit.epoch == member.current.epoch {
            return Ok(());
        }
        let mut has_had_all = (0..member.current.epoch).contains(&commit.epoch);
        if has_had_all {
            let since = |owned: &Owned, topic, index| {
                let since = owned.get(&topic).and_then(|owned| owned.get(&index));
                since.is_some_and(|since| *since <= commit.epoch)
            };
            (commit.partitions)(&mut |topic, index| {
                let Current {
                    assigned, revoking, ..
                } = &*member.current;
                has_had_all &= since(assigned, topic, index) || since(revoking, topic, index);
            });
        }
        if has_had_all {
            Ok(())
        } else {
            Err(stale(member))
        }
    }

    pub(super) fn check_fetch(
        &self,
        member_id: Option<&str>,
        member_epoch: i32,
    ) -> Result<(), ErrorCode> {
        if member_id.is_none() && member_epoch < 0 {
            return Ok(());
        }
        let member = member_id.and_then(|id| self.members.get(id));
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        if member_epoch == member.current.epoch {
            Ok(())
        } else {
            Err(stale(member))
        }
    }

    pub(super) fn check_delete(&self) -> Result<(), ErrorCode> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(ErrorCode::NonEmptyGroup)
        }
    }

    pub(super) fn tombstones(&self, group_id: &str) -> Vec<GroupRecord> {
        let members = self
            .members
            .keys()
            .map(|member_id| member::tombstones(group_id, member_id));
        // Of all members the same at a time, the newest kind of record first.
        let mut kinds = [Vec::new(), Vec::new(), Vec::new()];
        for tombstones in members {
            for (kind, tombstone) in kinds.iter_mut().zip(tombstones) {
                kind.push(tombstone);
            }
        }
        let [current, targets, about] = kinds;
        let key = || GroupKey {
            group_id: group_id.to_owned(),
        };
        let regexes = self.regexes.keys();
        let mut tombstones = current;
        tombstones.extend(targets);
        tombstones.push(GroupRecord::ConsumerGroupTargetAssignmentMetadata {
            key: key(),
            value: None,
        });
        tombstones.extend(about);
        tombstones.extend(regexes.map(|pattern| regex::tombstone(group_id, pattern)));
        // Kafka before 4.1 wrote such a record.
        tombstones.push(GroupRecord::ConsumerGroupPartitionMetadata {
            key: key(),
            value: None,
        });
        tombstones.push(GroupRecord::ConsumerGroupMetadata {
            key: key(),
            value: None,
        });
        tombstones
    }

    pub(super) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.reads(topic)
    }

    pub(super) fn retention_base(&self) -> Option<RetentionBase> {
        Some(RetentionBase::Commit)
    }

    pub(super) fn state(&self) -> &'static str {
        let mut members = self.members.values();
        if self.members.is_empty() {
            "Empty"
        } else if self.target_epoch < self.epoch {
            "Assigning"
        } else if members.all(|member| member.is_reconciled_to(self.target_epoch)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    pub(super) fn member_count(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn is_free(&self, topic: Uuid, index: i32) -> bool {
        let owners = self.owners.get(&topic);
        owners.is_none_or(|owners| !owners.contains_key(&index))
    }

    /// Applies a record of this group.
    fn replay(&mut self, record: GroupRecord) {
        use GroupRecord as R;
        match record {
            R::ConsumerGroupMetadata { value, .. } => {
                let value = value.unwrap_or_default();
                self.epoch = value.epoch;
                self.metadata_hash = value.metadata_hash;
            }
            R::ConsumerGroupMemberMetadata { key, value } => match value {
                Some(value) => self.set_about(&key.member_id, About::of_record(value)),
                None => self.remove(&key.member_id),
            },
            R::ConsumerGroupTargetAssignmentMetadata { value, .. } => {
                let value = value.unwrap_or(TargetAssignmentMetadataValue {
                    assignment_epoch: 1,
                    assignment_timestamp: 0,
                });
                self.target_epoch = value.assignment_epoch;
                self.target_timestamp = value.assignment_timestamp;
            }
            R::ConsumerGroupTargetAssignmentMember { key, value } => match value {
                Some(value) => {
                    let id = self.member_id(&key.member_id);
                    self.targets.insert(id, Arc::new(partitions_of(value)));
                }
                None => {
                    self.targets.remove(&*key.member_id);
                }
            },
            R::ConsumerGroupCurrentMemberAssignment { key, value } => match value {
                Some(value) => self.set_current(&key.member_id, Current::of_record(value)),
                None => {
                    if self.members.contains_key(&*key.member_id) {
                        let nothing = Current {
                            epoch: member::LEFT,
                            previous_epoch: member::LEFT,
                            ..Current::default()
                        };
                        self.set_current(&key.member_id, nothing);
                    }
                }
            },
            R::ConsumerGroupRegularExpression { key, value } => match value {
                Some(value) => {
                    let pattern = Arc::from(key.regular_expression);
                    self.regexes.insert(pattern, Resolved::of_record(value));
                }
                None => {
                    self.regexes.remove(&*key.regular_expression);
                }
            },
            _ => (),
        }
    }

    /// The id as it is kept already, if it is.
    fn member_id(&self, member_id: &str) -> Arc<str> {
        let known = self.members.get_key_value(member_id);
        known.map_or_else(|| Arc::from(member_id), |(id, _)| Arc::clone(id))
    }

    fn set_about(&mut self, member_id: &str, about: About) {
        let id = self.member_id(member_id);
        let before = self
            .members
            .get(&id)
            .map(|member| Arc::clone(&member.about));
        if let Some(before) = before.filter(|before| before.instance_id != about.instance_id) {
            self.release_instance(&before, &id);
        }
        if let Some(instance_id) = &about.instance_id {
            self.static_members
                .insert(Arc::clone(instance_id), Arc::clone(&id));
        }
        self.subscriptions.add(&about);
        let about = Arc::new(about);
        let before = std::mem::replace(&mut self.members.entry(id).or_default().about, about);
        self.subscriptions.remove(&before);
    }

    fn set_current(&mut self, member_id: &str, current: Current) {
        let id = self.member_id(member_id);
        let member = self.members.entry(id).or_default();
        let before = std::mem::replace(&mut member.current, Arc::new(current));
        let now = Arc::clone(&member.current);
        self.release(&before);
        for owned in [&now.assigned, &now.revoking] {
            for (topic, partitions) in owned {
                let owners = self.owners.entry(*topic).or_default();
                owners.extend(partitions.keys().map(|index| (*index, now.epoch)));
            }
        }
    }

    fn remove(&mut self, member_id: &str) {
        let Some(member) = self.members.remove(member_id) else {
            return;
        };
        self.release(&member.current);
        self.subscriptions.remove(&member.about);
        self.release_instance(&member.about, member_id);
    }

    /// Its instance id is free, if it is not another's meanwhile.
    fn release_instance(&mut self, about: &About, member_id: &str) {
        if let Some(instance_id) = &about.instance_id
            && self
                .static_members
                .get(instance_id)
                .is_some_and(|id| **id == *member_id)
        {
            self.static_members.remove(instance_id);
        }
    }

    /// Nobody has what this member had. A log that has been compacted may show first who has a partition now, and
    /// then who had it: what is another's meanwhile stays his.
    fn release(&mut self, current: &Current) {
        for owned in [&current.assigned, &current.revoking] {
            for (topic, partitions) in owned {
                let Some(owners) = self.owners.get_mut(topic) else {
                    continue;
                };
                for index in partitions.keys() {
                    if owners.get(index) == Some(&current.epoch) {
                        owners.remove(index);
                    }
                }
                if owners.is_empty() {
                    self.owners.remove(topic);
                }
            }
        }
    }
}

/// What a member is told whose epoch is not the one it says.
fn stale(member: &Member) -> ErrorCode {
    if member.is_classic() {
        ErrorCode::IllegalGeneration
    } else {
        ErrorCode::StaleMemberEpoch
    }
}

fn partitions_of(value: TargetAssignmentMemberValue) -> Partitions {
    let mut partitions = Partitions::new();
    for topic in value.topic_partitions {
        let indexes: &mut BTreeSet<i32> = partitions.entry(topic.topic_id).or_default();
        indexes.extend(topic.partitions);
    }
    partitions.retain(|_, indexes| !indexes.is_empty());
    partitions
}

fn target_record(group_id: &str, member_id: &str, target: &Partitions) -> GroupRecord {
    let topics = target.iter().map(|(topic_id, indexes)| TopicPartitions {
        topic_id: *topic_id,
        partitions: indexes.iter().copied().collect(),
    });
    GroupRecord::ConsumerGroupTargetAssignmentMember {
        key: member::key(group_id, member_id),
        value: Some(TargetAssignmentMemberValue {
            topic_partitions: topics.collect(),
        }),
    }
}

fn target_epoch_record(group_id: &str, epoch: i32, timestamp: i64) -> GroupRecord {
    GroupRecord::ConsumerGroupTargetAssignmentMetadata {
        key: GroupKey {
            group_id: group_id.to_owned(),
        },
        value: Some(TargetAssignmentMetadataValue {
            assignment_epoch: epoch,
            assignment_timestamp: timestamp,
        }),
    }
}

fn epoch_record(group_id: &str, epoch: i32, metadata_hash: i64) -> GroupRecord {
    GroupRecord::ConsumerGroupMetadata {
        key: GroupKey {
            group_id: group_id.to_owned(),
        },
        value: Some(ConsumerGroupMetadataValue {
            epoch,
            metadata_hash,
        }),
    }
}

/// What holds for this group.
fn config(group_id: &str, env: &Env<'_>) -> ConsumerGroupConfig {
    let overrides = env.image.config(ResourceKind::Group, group_id);
    match overrides {
        Some(overrides) => env.config.consumer_group(overrides),
        None => env.config.consumer_group(&BTreeMap::new()),
    }
}

impl GroupCoordinator {
    pub(super) fn replay_consumer(&mut self, record: GroupRecord, _origin: Origin) {
        use GroupRecord as R;
        let (group_id, is_tombstone) = match &record {
            R::ConsumerGroupMetadata { key, value } => (&key.group_id, value.is_none()),
            R::ConsumerGroupTargetAssignmentMetadata { key, value } => {
                (&key.group_id, value.is_none())
            }
            R::ConsumerGroupMemberMetadata { key, value } => (&key.group_id, value.is_none()),
            R::ConsumerGroupTargetAssignmentMember { key, value } => {
                (&key.group_id, value.is_none())
            }
            R::ConsumerGroupCurrentMemberAssignment { key, value } => {
                (&key.group_id, value.is_none())
            }
            R::ConsumerGroupRegularExpression { key, value } => (&key.group_id, value.is_none()),
            _ => return,
        };
        let known = self.groups.get_key_value(&**group_id);
        let id = match known {
            Some((id, Group::Consumer(_))) => Arc::clone(id),
            // What there is to be forgotten has been.
            _ if is_tombstone => return,
            Some((id, Group::Classic(_))) => Arc::clone(id),
            None => Arc::from(&**group_id),
        };
        if is_tombstone && matches!(record, R::ConsumerGroupMetadata { .. }) {
            self.cancel_timer(&id, Timer::Regexes);
            self.groups.remove(&id);
            return;
        }
        if let R::ConsumerGroupMemberMetadata { key, value: None } = &record {
            self.forget_timers(&id, &Arc::from(&*key.member_id));
        }
        let empty = || Group::Consumer(ConsumerGroup::default());
        let group = self.groups.entry(id).or_insert_with(empty);
        if !matches!(group, Group::Consumer(_)) {
            // What was there of the other kind has been converted, or was there for its offsets alone.
            *group = empty();
        }
        if let Group::Consumer(group) = group {
            group.replay(record);
        }
    }

    pub(super) fn consumer_loaded(&mut self, env: &mut Env<'_>) {
        let mut due = Vec::new();
        for (group_id, group) in &self.groups {
            let Group::Consumer(group) = group else {
                continue;
            };
            let session_timeout_ms = config(group_id, env).session_timeout_ms;
            for (id, member) in &group.members {
                let session_timeout_ms = match &member.about.classic {
                    Some(classic) => classic.session_timeout_ms,
                    None => session_timeout_ms,
                };
                due.push((
                    Arc::clone(group_id),
                    Timer::Session(Arc::clone(id)),
                    session_timeout_ms,
                ));
                let is_waited_for = member.current.state == member::State::Unrevoked
                    && member.current.epoch != member::AWAY;
                if is_waited_for && !member.is_classic() {
                    let timeout_ms = member.about.rebalance_timeout_ms;
                    due.push((
                        Arc::clone(group_id),
                        Timer::Rebalance(Arc::clone(id)),
                        timeout_ms,
                    ));
                }
            }
        }
        for (group_id, timer, timeout_ms) in due {
            self.set_timer(&group_id, timer, timeout_ms, env);
        }
    }

    /// Groups look at the cluster when their members speak.
    pub(super) fn consumer_image_changed(&mut self, _env: &mut Env<'_>) {}

    pub(super) fn consumer_due(
        &mut self,
        group_id: &Arc<str>,
        timer: Timer,
        env: &mut Env<'_>,
    ) -> Effects {
        let Some(Group::Consumer(group)) = self.groups.get(group_id) else {
            return Effects::default();
        };
        let (member_id, reason) = match &timer {
            Timer::Regexes => return self.resolve(group_id, env),
            Timer::Session(id) => (id, "its session has timed out"),
            Timer::Rebalance(id) => (id, "it has not given back its partitions in time"),
            Timer::Join(id) => (id, "it has not joined again in time"),
            Timer::Sync(id) => (id, "it has not asked for its assignment in time"),
        };
        let Some(member) = group.members.get(member_id) else {
            return Effects::default();
        };
        if matches!(timer, Timer::Rebalance(_)) && member.current.state != member::State::Unrevoked
        {
            return Effects::default();
        }
        tracing::info!(?group_id, ?member_id, reason, "a member is removed");
        let member_id = Arc::clone(member_id);
        // It has no deadlines any more when it is written down that it has gone. Until then this one comes again.
        self.set_timer(group_id, timer, RETRY_MS, env);
        self.remove_members(group_id, &[member_id], env)
    }

    fn set_timer(&mut self, group_id: &Arc<str>, timer: Timer, timeout_ms: i32, env: &Env<'_>) {
        let timer = super::Timer::Consumer(Arc::clone(group_id), timer);
        self.timers
            .set(timer, env.steady_now + i64::from(timeout_ms));
    }

    fn cancel_timer(&mut self, group_id: &Arc<str>, timer: Timer) {
        self.timers
            .cancel(&super::Timer::Consumer(Arc::clone(group_id), timer));
    }

    fn forget_timers(&mut self, group_id: &Arc<str>, member_id: &Arc<str>) {
        for timer in [Timer::Session, Timer::Rebalance, Timer::Join, Timer::Sync] {
            self.cancel_timer(group_id, timer(Arc::clone(member_id)));
        }
    }
}

/// What `image` says of how many partitions a topic has.
fn partition_count(image: &ClusterImage, topic: Uuid) -> i32 {
    let topic = image.topic_by_id(topic);
    topic.map_or(0, |topic| {
        i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
    })
}
