//! What OffsetCommit and TxnOffsetCommit have in common: topics that are not there are refused before the group is asked,
//! and stand first in the answer, as a real broker has it.

use kafka_protocol::{
    messages::{
        offset_commit_request::OffsetCommitRequestTopic,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
    protocol::StrBytes,
};
use protocol::{
    error::ErrorCode,
    messages::{
        TxnOffsetCommitRequestTopic, TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
    },
};
use replication::cluster::ClusterImage;
use uuid::Uuid;

use super::merge::merged;

/// A topic of such a request, with what is to be committed of its partitions.
pub(super) trait CommittedTopic {
    /// The same topic in the answer.
    type Answer;

    fn name(&self) -> &StrBytes;
    fn topic_id(&self) -> Uuid;
    fn identify(&mut self, name: StrBytes, topic_id: Uuid);

    /// The indexes of its partitions.
    fn partitions(&self) -> impl Iterator<Item = i32>;
    /// Removes partitions by their indexes, and returns those.
    fn take_partitions(&mut self, is_taken: impl Fn(i32) -> bool) -> Vec<i32>;

    /// The same code for every partition.
    fn answer(named: Named, code: ErrorCode) -> Self::Answer;
    /// What an answer is about.
    fn key(answer: &Self::Answer) -> (StrBytes, Uuid);
    fn join(first: &mut Self::Answer, later: Self::Answer);
}

macro_rules! committed_topic {
    ($topic:ty => $answer:ident of $partition:ident) => {
        impl CommittedTopic for $topic {
            type Answer = $answer;

            fn name(&self) -> &StrBytes {
                &self.name
            }

            fn topic_id(&self) -> Uuid {
                self.topic_id
            }

            fn identify(&mut self, name: StrBytes, topic_id: Uuid) {
                self.name = name.into();
                self.topic_id = topic_id;
            }

            fn partitions(&self) -> impl Iterator<Item = i32> {
                self.partitions.iter().map(|one| one.partition_index)
            }

            fn take_partitions(&mut self, is_taken: impl Fn(i32) -> bool) -> Vec<i32> {
                let taken = self
                    .partitions
                    .extract_if(.., |one| is_taken(one.partition_index));
                taken.map(|one| one.partition_index).collect()
            }

            fn answer(named: Named, code: ErrorCode) -> $answer {
                let partitions = named.partitions.into_iter().map(|index| {
                    let mut partition = $partition::default();
                    partition.partition_index = index;
                    partition.error_code = code.code();
                    partition
                });
                let mut answer = $answer::default();
                answer.name = named.name.into();
                answer.topic_id = named.topic_id;
                answer.partitions = partitions.collect();
                answer
            }

            fn key(answer: &$answer) -> (StrBytes, Uuid) {
                (StrBytes::clone(&answer.name), answer.topic_id)
            }

            fn join(first: &mut $answer, later: $answer) {
                first.partitions.extend(later.partitions);
            }
        }
    };
}

committed_topic!(OffsetCommitRequestTopic => OffsetCommitResponseTopic of OffsetCommitResponsePartition);
committed_topic!(TxnOffsetCommitRequestTopic => TxnOffsetCommitResponseTopic of TxnOffsetCommitResponsePartition);

/// What is asked for of a topic, without what is to be committed.
pub(super) struct Named {
    name: StrBytes,
    topic_id: Uuid,
    partitions: Vec<i32>,
}

impl Named {
    pub(super) fn new(topic: &impl CommittedTopic) -> Self {
        Self {
            name: topic.name().clone(),
            topic_id: topic.topic_id(),
            partitions: topic.partitions().collect(),
        }
    }
}

/// By what a request names its topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Name,
    Id,
}

/// What exists, with name and id, and an answer for what does not.
pub(super) fn sort<T: CommittedTopic>(
    image: &ClusterImage,
    by: By,
    asked: Vec<T>,
) -> (Vec<T>, Vec<T::Answer>) {
    let mut known = Vec::with_capacity(asked.len());
    let mut refused = Vec::new();
    for mut topic in asked {
        let (found, code) = match by {
            By::Id => {
                let found = image.topic_by_id(topic.topic_id());
                (found, ErrorCode::UnknownTopicId)
            }
            By::Name => {
                let found = image.topic(topic.name());
                (found, ErrorCode::UnknownTopicOrPartition)
            }
        };
        let Some(found) = found else {
            refused.push(T::answer(Named::new(&topic), code));
            continue;
        };
        topic.identify(StrBytes::from_string(found.name.to_string()), found.id);
        let missing = topic.take_partitions(|index| !found.partitions.contains_key(&index));
        if !missing.is_empty() {
            let missing = Named {
                name: topic.name().clone(),
                topic_id: topic.topic_id(),
                partitions: missing,
            };
            refused.push(T::answer(missing, ErrorCode::UnknownTopicOrPartition));
        }
        if topic.partitions().next().is_some() {
            known.push(topic);
        }
    }
    (known, refused)
}

/// The same code for all of them.
pub(super) fn refuse<T: CommittedTopic>(named: Vec<Named>, code: ErrorCode) -> Vec<T::Answer> {
    let named = named.into_iter();
    named.map(|topic| T::answer(topic, code)).collect()
}

/// Both in one, each topic in the place where it first came.
pub(super) fn both<T: CommittedTopic>(
    refused: Vec<T::Answer>,
    answered: Vec<T::Answer>,
) -> Vec<T::Answer> {
    // As in Apache Kafka: a topic that was asked for twice is then answered twice.
    if refused.is_empty() {
        return answered;
    }
    merged(refused.into_iter().chain(answered), T::key, T::join)
}
