//! Deleting by time, and with the topic.
//!
//! - An offset goes `offsets.retention.minutes` after its group became empty, or after it was committed where the group
//!   has no members to become empty of. What living members read stays, and what a transaction is about to change.
//! - A group that is left without members and offsets goes too.
//! - What goes at once is bounded, so that it fits a batch; the rest follows in a moment.

use std::{collections::BTreeSet, mem, sync::Arc};

use protocol::records::group::GroupRecord;
use replication::cluster::ClusterImage;

use super::{
    super::{Effects, Group, GroupCoordinator, RetentionBase, Timer},
    delete::Tombstones,
    table::Committed,
};
use crate::coordinator::Env;

/// The most that the tombstones of one batch take; a log takes batches of a million bytes unless told otherwise.
const BATCH_BYTES: usize = 256 << 10;

/// When the rest follows. Not at once: a log that cannot be written to must not keep us busy.
const REST_MS: i64 = 100;

/// When what could not be written is tried again.
const AGAIN_MS: i64 = 1000;

impl GroupCoordinator {
    /// Once in every `offsets.retention.check.interval.ms`.
    pub(in super::super) fn expire_offsets(&mut self, env: &mut Env<'_>) -> Effects {
        let mut gone = Tombstones::at_most(BATCH_BYTES, env);
        let retention_ms = env.config.groups.offsets_retention_ms;
        let mut rest = mem::take(&mut self.offsets.expiring);
        if rest.is_empty() {
            rest.extend(self.groups.keys().map(Arc::clone));
        }
        while let Some(group_id) = rest.last().filter(|_| !gone.is_full()) {
            let Some(group) = self.groups.get(group_id) else {
                rest.pop();
                continue;
            };
            let expired = Expiry {
                coordinator: self,
                group_id,
                group,
                now: env.now,
                retention_ms,
            };
            let is_left_without = expired.collect(&mut gone);
            if gone.is_full() {
                break;
            }
            if is_left_without && group.is_empty() {
                gone.push_group(group_id, group);
            }
            rest.pop();
        }
        self.figures.offset_expirations.add(gone.offset_count);
        let next = if rest.is_empty() {
            self.offsets.topics.drop_unused();
            env.config.groups.offsets_retention_check_interval_ms
        } else {
            REST_MS
        };
        self.offsets.expiring = rest;
        let at = env.steady_now.saturating_add(next);
        self.timers.set(Timer::ExpireOffsets, at);
        Effects {
            append: gone.records,
            ..Effects::default()
        }
    }

    /// Offsets of topics that are no more, or that are others now though they have the same name.
    pub(in super::super) fn drop_deleted_topics(&mut self, env: &mut Env<'_>) -> Effects {
        let mut gone = Tombstones::at_most(BATCH_BYTES, env);
        let compared = self.offsets.compared.as_deref();
        if compared.is_some_and(|before| !self.lost_a_topic(before, env.image)) {
            self.offsets.compared = Some(Arc::clone(env.image));
            self.offsets.dropping = None;
            return Effects::default();
        }
        let begun = self.offsets.dropping.take();
        let begun = begun.filter(|(offset, _)| *offset == env.image.offset);
        let mut rest = begun.map_or_else(
            || self.groups.keys().map(Arc::clone).collect(),
            |(_, rest)| rest,
        );
        while let Some(group_id) = rest.last() {
            let committed = self.offsets.committed.group(group_id);
            let known = committed
                .into_iter()
                .chain(self.offsets.pending_in(group_id));
            // What counts may have something pending for the same partition.
            let mut keys = BTreeSet::new();
            for (topic, partitions) in known.flatten() {
                let found = env.image.topic(topic).map(|topic| topic.id);
                let is_gone = |it: &&Committed| found.is_none_or(|id| it.is_of_another(id));
                let partitions = partitions.iter().filter(is_gone);
                keys.extend(partitions.map(|known| (topic, known.partition)));
            }
            for (topic, partition) in keys {
                if !gone.is_full() {
                    gone.push(group_id, topic, partition);
                }
            }
            if gone.is_full() {
                break;
            }
            rest.pop();
        }
        if rest.is_empty() {
            self.offsets.compared = Some(Arc::clone(env.image));
        } else {
            self.offsets.dropping = Some((env.image.offset, rest));
            let at = env.steady_now + REST_MS;
            self.timers.set(Timer::DropDeletedTopics, at);
        }
        self.figures.offset_deletions.add(gone.offset_count);
        Effects {
            append: gone.records,
            ..Effects::default()
        }
    }

    /// Tombstones of deleted topics are not written by anybody else: they are tried again.
    pub(in super::super) fn offsets_append_failed(
        &mut self,
        records: &[GroupRecord],
        env: &mut Env<'_>,
    ) {
        let is_tombstone =
            |record: &GroupRecord| matches!(record, GroupRecord::OffsetCommit { value: None, .. });
        if records.iter().any(is_tombstone) {
            self.offsets.compared = None;
            // Some of the groups that have been looked at have to be looked at again.
            self.offsets.dropping = None;
            self.offsets.expiring.clear();
            let at = env.steady_now + AGAIN_MS;
            self.timers.set(Timer::DropDeletedTopics, at);
        }
    }

    /// Is a topic gone since that somebody has read?
    fn lost_a_topic(&self, before: &ClusterImage, now: &ClusterImage) -> bool {
        now.topics_gone_since(before)
            .any(|topic| self.offsets.topics.contains(&topic.name))
    }
}

/// One group, when it is looked for what has expired.
struct Expiry<'a> {
    coordinator: &'a GroupCoordinator,
    group_id: &'a str,
    group: &'a Group,
    now: i64,
    retention_ms: i64,
}

impl Expiry<'_> {
    /// Adds what has expired. Is the group without offsets then?
    fn collect(&self, gone: &mut Tombstones) -> bool {
        let offsets = &self.coordinator.offsets;
        let has_open_transactions = offsets.open.contains_key(self.group_id);
        let Some(topics) = offsets.committed.group(self.group_id) else {
            return !has_open_transactions;
        };
        let Some(base) = self.group.retention_base() else {
            return false;
        };
        let mut left = 0;
        for (topic, partitions) in topics {
            if gone.is_full() {
                return false;
            }
            if self.group.is_subscribed_to(topic) {
                left += partitions.len();
                continue;
            }
            for committed in partitions {
                let index = committed.partition;
                if !gone.is_full()
                    && self.has_expired(committed, base)
                    && !offsets.is_pending(self.group_id, topic, index)
                {
                    gone.push(self.group_id, topic, index);
                } else {
                    left += 1;
                }
            }
        }
        left == 0 && !has_open_transactions
    }

    fn has_expired(&self, committed: &Committed, base: RetentionBase) -> bool {
        if let Some(at) = committed.expire_timestamp() {
            return at <= self.now;
        }
        let since = match base {
            RetentionBase::Commit => committed.commit_timestamp,
            RetentionBase::Empty(at) => at,
        };
        self.retention_ms <= self.now.saturating_sub(since)
    }
}
