//! Deleting on somebody's word: OffsetDelete takes offsets of a group, DeleteGroups groups with all they have.
//!
//! - What is pending goes as well: its transaction may end as it likes.
//! - A group that has more offsets than can be deleted at once is deleted in parts, and itself with the last of them.
//!   Apache Kafka cannot delete it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use kafka_protocol::{
    messages::{
        GroupId, OffsetDeleteRequest, OffsetDeleteResponse,
        delete_groups_response::DeletableGroupResult,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
    protocol::StrBytes,
};
use protocol::{
    error::ErrorCode,
    records::group::{GroupRecord, OffsetCommitKey},
};

use super::super::{
    Effects, Group, GroupCoordinator,
    request::{DeleteGroups, Response},
};
use crate::coordinator::{Env, Ticket};

/// The most that the tombstones of one append take, if a batch may be larger than twice that: a log takes batches of
/// 1 MiB unless told otherwise.
const BATCH_BYTES: usize = 512 << 10;

/// What a tombstone takes beside its group's id and its topic's name, at most.
const TOMBSTONE_BYTES: usize = 40;

impl GroupCoordinator {
    pub(in super::super) fn delete_offsets(
        &mut self,
        ticket: Ticket,
        delete: OffsetDeleteRequest,
        _env: &mut Env<'_>,
    ) -> Effects {
        let group_id: &str = &delete.group_id;
        let Some(group) = self.groups.get(group_id) else {
            return Effects::answer(ticket, Err(ErrorCode::GroupIdNotFound));
        };
        if let Err(code) = group.check_delete_offsets() {
            return Effects::answer(ticket, Err(code));
        }
        let mut records = Vec::new();
        // Everything is looked for and written down once, however often it is named.
        let mut subscribed_to: HashMap<&str, bool> = HashMap::new();
        let mut deleted: HashSet<(&str, i32)> = HashSet::new();
        let mut topics = Vec::with_capacity(delete.topics.len());
        for topic in &delete.topics {
            let subscribed = *subscribed_to
                .entry(&topic.name)
                .or_insert_with(|| group.is_subscribed_to(&topic.name));
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let mut answer =
                    OffsetDeleteResponsePartition::default().with_partition_index(index);
                if subscribed {
                    answer.error_code = ErrorCode::GroupSubscribedToTopic.code();
                } else if self.has_offset(group_id, &topic.name, index)
                    && deleted.insert((&topic.name, index))
                {
                    records.push(tombstone(group_id, &topic.name, index));
                }
                partitions.push(answer);
            }
            topics.push(
                OffsetDeleteResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions),
            );
        }
        self.figures.offset_deletions.add(records.len());
        let response = OffsetDeleteResponse::default().with_topics(topics);
        Effects::append(records, ticket, Response::DeleteOffsets(response))
    }

    /// Every group is answered on its own. Those that are not answered are to be asked for again: there is something
    /// left of them.
    pub(in super::super) fn delete(
        &mut self,
        ticket: Ticket,
        groups: DeleteGroups,
        env: &mut Env<'_>,
    ) -> Effects {
        let mut gone = Tombstones::at_most(BATCH_BYTES, env);
        let mut results = Vec::with_capacity(groups.0.len());
        let mut has_room = true;
        for group_id in groups.0 {
            let deleted = match self.groups.get(&group_id) {
                None => Err(ErrorCode::GroupIdNotFound),
                Some(group) => group.check_delete().map(|()| group),
            };
            if let Ok(group) = deleted {
                has_room = has_room && self.delete_group(&group_id, group, &mut gone);
                if !has_room {
                    continue;
                }
            }
            let code = deleted.err().map_or(0, |code| code.code());
            let group_id = GroupId(group_id.to_string().into());
            results.push(
                DeletableGroupResult::default()
                    .with_group_id(group_id)
                    .with_error_code(code),
            );
        }
        self.figures.offset_deletions.add(gone.offset_count);
        Effects::append(gone.records, ticket, Response::Delete(results))
    }

    /// Adds what deletes the group, or the first of its offsets if that is too much. `false` if something is left.
    fn delete_group(&self, group_id: &str, group: &Group, gone: &mut Tombstones) -> bool {
        // No more than are too many.
        let known = self.known_offsets(group_id, 1 + gone.bytes_max / TOMBSTONE_BYTES);
        let sizes = known.iter().map(|(topic, _)| size_of(group_id, topic));
        let size = gone.size + sizes.sum::<usize>();
        // What fits by itself is not torn apart.
        if !gone.records.is_empty() && gone.bytes_max <= size {
            return false;
        }
        for (topic, partition) in known {
            if gone.is_full() {
                return false;
            }
            gone.push(group_id, topic, partition);
        }
        gone.push_group(group_id, group);
        true
    }

    /// Each partition of which anything is known, up to so many.
    fn known_offsets(&self, group_id: &str, count_max: usize) -> BTreeSet<(&Arc<str>, i32)> {
        let committed = self.offsets.committed.group(group_id);
        let known = committed
            .into_iter()
            .chain(self.offsets.pending_in(group_id));
        let mut keys = BTreeSet::new();
        for (topic, partitions) in known.flatten() {
            let room = count_max.saturating_sub(keys.len());
            let partitions = partitions.iter().take(room);
            keys.extend(partitions.map(|known| (topic, known.partition)));
        }
        keys
    }

    fn has_offset(&self, group_id: &str, topic: &str, partition: i32) -> bool {
        let offsets = &self.offsets;
        offsets.committed.get(group_id, topic, partition).is_some()
            || offsets.is_pending(group_id, topic, partition)
    }
}

/// Tombstones as they are collected for one append.
pub(super) struct Tombstones {
    /// Of offsets, and of groups.
    pub(super) records: Vec<GroupRecord>,
    pub(super) offset_count: usize,
    size: usize,
    bytes_max: usize,
}

impl Tombstones {
    /// At least one has room.
    pub(super) fn at_most(bytes: usize, env: &Env<'_>) -> Self {
        Self {
            records: Vec::new(),
            offset_count: 0,
            size: 0,
            bytes_max: bytes.min(env.records_bytes_max / 2).max(1),
        }
    }

    pub(super) fn push(&mut self, group_id: &str, topic: &str, partition: i32) {
        self.records.push(tombstone(group_id, topic, partition));
        self.offset_count += 1;
        self.size += size_of(group_id, topic);
    }

    pub(super) fn push_group(&mut self, group_id: &str, group: &Group) {
        let tombstones = group.tombstones(group_id);
        self.size += tombstones.len() * size_of(group_id, "");
        self.records.extend(tombstones);
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes_max <= self.size
    }
}

/// What a tombstone takes at most.
fn size_of(group_id: &str, topic: &str) -> usize {
    TOMBSTONE_BYTES + group_id.len() + topic.len()
}

/// Says that an offset is gone.
fn tombstone(group_id: &str, topic: &str, partition: i32) -> GroupRecord {
    GroupRecord::OffsetCommit {
        key: OffsetCommitKey {
            group: StrBytes::from_string(group_id.to_owned()),
            topic: StrBytes::from_string(topic.to_owned()),
            partition,
        },
        value: None,
    }
}
