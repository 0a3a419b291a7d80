//! Reading what is committed: OffsetFetch, one group at a time.
//!
//! - A group that is not there, and a partition for which nothing is committed, are no errors: the offset is -1.
//! - Who asks for stable offsets is not told one that a transaction is about to change.

use kafka_protocol::{
    messages::{
        TopicName,
        offset_fetch_request::OffsetFetchRequestTopics,
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
        },
    },
    protocol::StrBytes,
};
use protocol::error::ErrorCode;
use uuid::Uuid;

use super::{
    super::{
        Effects, GroupCoordinator,
        request::{FetchOffsets, Response},
    },
    Topics,
    table::{self, Committed},
};
use crate::coordinator::{Env, Ticket};

impl GroupCoordinator {
    pub(in super::super) fn fetch_offsets(
        &mut self,
        ticket: Ticket,
        fetch: FetchOffsets,
        env: &mut Env<'_>,
    ) -> Effects {
        let FetchOffsets {
            group: asked,
            require_stable,
        } = fetch;
        let known = match self.groups.get::<str>(&asked.group_id) {
            None => None,
            Some(group) => {
                match group.check_fetch(asked.member_id.as_deref(), asked.member_epoch) {
                    Ok(()) => self.offsets.committed.group(&asked.group_id),
                    Err(ErrorCode::GroupIdNotFound) => None,
                    Err(code) => return Effects::answer(ticket, Err(code)),
                }
            }
        };
        let view = View {
            coordinator: self,
            group_id: &asked.group_id,
            require_stable,
        };
        let topics = match (&asked.topics, known) {
            (Some(topics), known) => topics
                .iter()
                .map(|topic| view.asked(topic, known))
                .collect(),
            (None, Some(known)) => view.all(known, env),
            (None, None) => Vec::new(),
        };
        let answer = OffsetFetchResponseGroup::default()
            .with_group_id(asked.group_id)
            .with_topics(topics);
        Effects::answer(ticket, Ok(Response::FetchOffsets(answer)))
    }
}

/// A group's offsets as one request sees them.
struct View<'a> {
    coordinator: &'a GroupCoordinator,
    group_id: &'a str,
    require_stable: bool,
}

impl View<'_> {
    /// What was asked for, in that order.
    fn asked(
        &self,
        topic: &OffsetFetchRequestTopics,
        known: Option<&Topics>,
    ) -> OffsetFetchResponseTopics {
        let committed = known.and_then(|topics| topics.get::<str>(&topic.name));
        let partitions = topic.partition_indexes.iter().map(|&index| {
            let found = committed.and_then(|partitions| table::find(partitions, index));
            let found = found.filter(|found| !found.is_of_another(topic.topic_id));
            self.partition(&topic.name, index, found)
        });
        OffsetFetchResponseTopics::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions.collect())
    }

    /// Everything there is, but for what is left from topics that are gone.
    fn all(&self, known: &Topics, env: &Env<'_>) -> Vec<OffsetFetchResponseTopics> {
        let mut topics = Vec::with_capacity(known.len());
        for (name, partitions) in known {
            let topic_id = env.image.topic(name).map_or(Uuid::nil(), |topic| topic.id);
            let own = partitions
                .iter()
                .filter(|committed| !committed.is_of_another(topic_id));
            let partitions =
                own.map(|committed| self.partition(name, committed.partition, Some(committed)));
            let partitions: Vec<_> = partitions.collect();
            if !partitions.is_empty() {
                topics.push(
                    OffsetFetchResponseTopics::default()
                        .with_name(TopicName(StrBytes::from_string(name.to_string())))
                        .with_topic_id(topic_id)
                        .with_partitions(partitions),
                );
            }
        }
        topics
    }

    fn partition(
        &self,
        topic: &str,
        index: i32,
        committed: Option<&Committed>,
    ) -> OffsetFetchResponsePartitions {
        let answer = OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(StrBytes::default()));
        let offsets = &self.coordinator.offsets;
        if self.require_stable && offsets.is_pending(self.group_id, topic, index) {
            return answer.with_error_code(ErrorCode::UnstableOffsetCommit.code());
        }
        let Some(committed) = committed else {
            return answer;
        };
        answer
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(StrBytes::from_string(committed.metadata().to_owned())))
    }
}
