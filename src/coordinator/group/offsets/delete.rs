//! Deleting on somebody's word: OffsetDelete takes offsets of a group, DeleteGroups groups with all they have.
//!
//! What is pending goes as well: its transaction may end as it likes.

use std::collections::{BTreeSet, HashMap, HashSet};

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
    Effects, GroupCoordinator,
    request::{DeleteGroups, Response},
};
use crate::coordinator::{Env, Ticket};

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

    /// Every group is answered on its own.
    pub(in super::super) fn delete(
        &mut self,
        ticket: Ticket,
        groups: DeleteGroups,
        _env: &mut Env<'_>,
    ) -> Effects {
        let mut records = Vec::new();
        let mut results = Vec::with_capacity(groups.0.len());
        for group_id in groups.0 {
            let deleted = match self.groups.get(&group_id) {
                None => Err(ErrorCode::GroupIdNotFound),
                Some(group) => group.check_delete().map(|()| {
                    let before = records.len();
                    records.extend(self.offset_tombstones(&group_id));
                    self.figures.offset_deletions.add(records.len() - before);
                    records.extend(group.tombstones(&group_id));
                }),
            };
            let code = deleted.err().map_or(0, |code| code.code());
            let group_id = GroupId(group_id.to_string().into());
            results.push(
                DeletableGroupResult::default()
                    .with_group_id(group_id)
                    .with_error_code(code),
            );
        }
        Effects::append(records, ticket, Response::Delete(results))
    }

    /// One for each partition of which anything is known.
    fn offset_tombstones(&self, group_id: &str) -> impl Iterator<Item = GroupRecord> {
        let committed = self.offsets.committed.group(group_id);
        let known = committed
            .into_iter()
            .chain(self.offsets.pending_in(group_id));
        let mut keys = BTreeSet::new();
        for (topic, partitions) in known.flatten() {
            keys.extend(partitions.iter().map(|known| (topic, known.partition)));
        }
        keys.into_iter()
            .map(move |(topic, partition)| tombstone(group_id, topic, partition))
    }

    fn has_offset(&self, group_id: &str, topic: &str, partition: i32) -> bool {
        let offsets = &self.offsets;
        offsets.committed.get(group_id, topic, partition).is_some()
            || offsets.is_pending(group_id, topic, partition)
    }
}

/// Says that an offset is gone.
pub(super) fn tombstone(group_id: &str, topic: &str, partition: i32) -> GroupRecord {
    GroupRecord::OffsetCommit {
        key: OffsetCommitKey {
            group: StrBytes::from_string(group_id.to_owned()),
            topic: StrBytes::from_string(topic.to_owned()),
            partition,
        },
        value: None,
    }
}
