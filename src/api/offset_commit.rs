//! OffsetCommit (key 8), v2-v10: note down up to where a group has read.
//!
//! - Partitions that do not exist are refused here, each on its own, and what is left goes to the group's coordinator.
//!   If nothing is left nobody is asked whether the group may be committed to.
//! - In the answer stands first what was refused here, as a real broker has it.
//! - The empty group id is a group like others: very old consumers commit under it.
//!
//! Versions: v5 no retention of its own, v6 leader epoch, v7 group instance id (KIP-345), v9 member epochs and their
//! errors (KIP-848), v10 topic ids instead of names (KIP-848).

use kafka_protocol::{
    messages::{
        OffsetCommitRequest, OffsetCommitResponse, TopicName,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
    protocol::StrBytes,
};
use protocol::error::ErrorCode;
use replication::cluster::ClusterImage;
use uuid::Uuid;

use super::merge::merged;
use crate::{broker::Broker, coordinator::group::request::Sent, server::Context};

/// First version that names topics by their ids.
const TOPIC_IDS: i16 = 10;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    mut req: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let asked = std::mem::take(&mut req.topics);
    let (known, refused) = sort(&broker.image(), ctx.version, asked);
    if known.is_empty() {
        return OffsetCommitResponse::default().with_topics(both(refused, Vec::new()));
    }
    let named: Vec<Named> = known.iter().map(Named::new).collect();
    req.topics = known;
    let group_id = req.group_id.clone();
    let commit = Sent::new(ctx, req);
    let answered = match broker.groups().ask_group(&group_id, commit).await {
        Ok(answer) => answer.topics,
        Err(code) => named.into_iter().map(|topic| topic.all(code)).collect(),
    };
    OffsetCommitResponse::default().with_topics(both(refused, answered))
}

/// What is asked for of a topic, without what is to be committed.
struct Named {
    name: TopicName,
    topic_id: Uuid,
    partitions: Vec<i32>,
}

impl Named {
    fn new(topic: &OffsetCommitRequestTopic) -> Self {
        let partitions = topic.partitions.iter();
        Self {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: partitions
                .map(|partition| partition.partition_index)
                .collect(),
        }
    }

    /// The same code for every partition.
    fn all(self, code: ErrorCode) -> OffsetCommitResponseTopic {
        let partitions = self.partitions.into_iter().map(|index| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code.code())
        });
        OffsetCommitResponseTopic::default()
            .with_name(self.name)
            .with_topic_id(self.topic_id)
            .with_partitions(partitions.collect())
    }
}

/// What exists, with name and id, and an answer for what does not.
fn sort(
    image: &ClusterImage,
    version: i16,
    asked: Vec<OffsetCommitRequestTopic>,
) -> (
    Vec<OffsetCommitRequestTopic>,
    Vec<OffsetCommitResponseTopic>,
) {
    let mut known = Vec::with_capacity(asked.len());
    let mut refused = Vec::new();
    for mut topic in asked {
        let (found, code) = match version {
            TOPIC_IDS.. => (image.topic_by_id(topic.topic_id), ErrorCode::UnknownTopicId),
            _ => (image.topic(&topic.name), ErrorCode::UnknownTopicOrPartition),
        };
        let Some(found) = found else {
            refused.push(Named::new(&topic).all(code));
            continue;
        };
        topic.name = StrBytes::from_string(found.name.to_string()).into();
        topic.topic_id = found.id;
        let is_missing = |partition: &mut OffsetCommitRequestPartition| {
            !found.partitions.contains_key(&partition.partition_index)
        };
        let missing: Vec<_> = topic.partitions.extract_if(.., is_missing).collect();
        if !missing.is_empty() {
            let there = std::mem::replace(&mut topic.partitions, missing);
            let code = ErrorCode::UnknownTopicOrPartition;
            refused.push(Named::new(&topic).all(code));
            topic.partitions = there;
        }
        if !topic.partitions.is_empty() {
            known.push(topic);
        }
    }
    (known, refused)
}

/// Both in one, each topic in the place where it first came.
fn both(
    refused: Vec<OffsetCommitResponseTopic>,
    answered: Vec<OffsetCommitResponseTopic>,
) -> Vec<OffsetCommitResponseTopic> {
    // As in Apache Kafka: a topic that was asked for twice is then answered twice.
    if refused.is_empty() {
        return answered;
    }
    let key = |topic: &OffsetCommitResponseTopic| (topic.name.clone(), topic.topic_id);
    merged(refused.into_iter().chain(answered), key, |first, later| {
        first.partitions.extend(later.partitions);
    })
}
