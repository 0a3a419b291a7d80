//! What groups have committed: up to where they have read each partition.
//!
//! - [`table`] holds the offsets; [`commit`], [`fetch`], [`delete`] and [`expiry`] are what is done with them.
//! - An offset that is committed in a transaction is *pending* until the transaction's marker comes: it is kept by
//!   producer, beside what counts already, and readers who ask for stability are sent away meanwhile.
//! - Of two commits for a partition the one later in the log holds, also when the earlier one's transaction ends
//!   last: compaction may have taken away the order in which they came to count.

mod commit;
mod delete;
mod expiry;
mod fetch;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use protocol::records::group::{LegacyOffsetCommitValue, OffsetCommitKey, OffsetCommitValue};
use replication::cluster::ClusterImage;

pub(crate) use self::table::Topics;
use self::table::{Committed, Names, Table};
use super::{Group, GroupCoordinator, classic::ClassicGroup};
use crate::coordinator::{Origin, Producer};

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    committed: Table,
    /// By producer id.
    pending: HashMap<i64, Table>,
    /// The producers that have something pending in a group. Invariant: each is in `pending`, with this group.
    open: HashMap<Arc<str>, BTreeSet<i64>>,
    topics: Names,
    /// The topics of this image were compared with ours, and what had gone was dropped.
    compared: Option<Arc<ClusterImage>>,
    /// Groups that are still to be looked at for expired offsets, when it was too much for one turn.
    expiring: Vec<Arc<str>>,
    /// The same for offsets of deleted topics, by the topics of metadata of this offset.
    dropping: Option<(i64, Vec<Arc<str>>)>,
}

impl Offsets {
    /// What a group has committed.
    pub(super) fn of(&self, group_id: &str) -> Option<&Topics> {
        self.committed.group(group_id)
    }

    /// How many offsets all groups have committed.
    pub(super) fn count(&self) -> usize {
        self.committed.len()
    }

    /// Will a transaction that is not over yet change this offset?
    fn is_pending(&self, group_id: &str, topic: &str, partition: i32) -> bool {
        let pending = |id| {
            let table: Option<&Table> = self.pending.get(id);
            table.is_some_and(|table| table.get(group_id, topic, partition).is_some())
        };
        self.open
            .get(group_id)
            .is_some_and(|ids| ids.iter().any(pending))
    }

    /// What transactions have pending in a group.
    fn pending_in(&self, group_id: &str) -> impl Iterator<Item = &Topics> {
        let ids = self.open.get(group_id).into_iter().flatten();
        ids.filter_map(move |id| self.pending.get(id)?.group(group_id))
    }

    fn put(
        &mut self,
        group_id: &Arc<str>,
        key: &OffsetCommitKey,
        value: OffsetCommitValue,
        origin: Origin,
    ) {
        let topic = self.topics.shared(&key.topic);
        let committed = Committed::new(key.partition, value, origin.offset);
        match origin.producer {
            None => self.committed.put(group_id, &topic, committed),
            Some(producer) => {
                let table = self.pending.entry(producer.id).or_default();
                table.put(group_id, &topic, committed);
                let open = self.open.entry(Arc::clone(group_id)).or_default();
                open.insert(producer.id);
            }
        }
    }

    /// Forgets the offset, also what is pending of it: what is deleted does not come back when a transaction ends.
    fn remove(&mut self, key: &OffsetCommitKey) {
        let OffsetCommitKey {
            group: group_id,
            topic,
            partition,
        } = key;
        self.committed.remove(group_id, topic, *partition);
        let Some(open) = self.open.get_mut(&**group_id) else {
            return;
        };
        open.retain(|id| {
            let Some(table) = self.pending.get_mut(id) else {
                return false;
            };
            table.remove(group_id, topic, *partition);
            let stays = table.group(group_id).is_some();
            if table.is_empty() {
                self.pending.remove(id);
            }
            stays
        });
        if open.is_empty() {
            self.open.remove(&**group_id);
        }
    }

    pub(super) fn end_transaction(&mut self, producer: Producer, commit: bool) {
        let Some(table) = self.pending.remove(&producer.id) else {
            return;
        };
        for (group_id, topics) in table.into_groups() {
            if let Some(open) = self.open.get_mut(&group_id) {
                open.remove(&producer.id);
                if open.is_empty() {
                    self.open.remove(&group_id);
                }
            }
            if commit {
                self.settle(&group_id, topics);
            }
        }
    }

    /// What was pending counts, unless something later does already.
    fn settle(&mut self, group_id: &Arc<str>, topics: Topics) {
        for (topic, partitions) in topics {
            for pending in partitions {
                let known = self.committed.get(group_id, &topic, pending.partition);
                if known.is_none_or(|known| known.record_offset < pending.record_offset) {
                    self.committed.put(group_id, &topic, pending);
                }
            }
        }
    }
}

impl GroupCoordinator {
    pub(super) fn replay_offset(
        &mut self,
        key: OffsetCommitKey,
        value: Option<OffsetCommitValue>,
        origin: Origin,
    ) {
        match value {
            Some(value) => {
                let group_id = self.group_with_offsets(&key.group);
                self.offsets.put(&group_id, &key, value, origin);
            }
            None => self.offsets.remove(&key),
        }
    }

    /// The same from the time before groups: no broker writes this, but a log may hold it.
    pub(super) fn replay_legacy_offset(
        &mut self,
        key: OffsetCommitKey,
        value: Option<LegacyOffsetCommitValue>,
        origin: Origin,
    ) {
        let value = value.map(|value| OffsetCommitValue {
            offset: value.offset,
            metadata: value.metadata,
            commit_timestamp: value.commit_timestamp,
            ..OffsetCommitValue::default()
        });
        self.replay_offset(key, value, origin);
    }

    /// Who has offsets is a group: one without members, if nobody has joined it.
    fn group_with_offsets(&mut self, group_id: &str) -> Arc<str> {
        if let Some((known, _)) = self.groups.get_key_value(group_id) {
            return Arc::clone(known);
        }
        let group_id: Arc<str> = Arc::from(group_id);
        let simple = Group::Classic(ClassicGroup::simple());
        self.groups.insert(Arc::clone(&group_id), simple);
        group_id
    }
}
