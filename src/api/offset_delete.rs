//! OffsetDelete (key 47), v0: take back what a group has committed for some partitions.
//!
//! - Partitions that do not exist are refused here, each on its own; the group is asked all the same, and if it
//!   refuses there is nothing in the answer but its code.
//! - What the members of a living group read is refused, partition by partition (GROUP_SUBSCRIBED_TO_TOPIC).

use kafka_protocol::messages::{
    OffsetDeleteRequest, OffsetDeleteResponse,
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
};
use protocol::error::ErrorCode;
use replication::cluster::ClusterImage;

use super::merge::merged;
use crate::broker::Broker;

pub(crate) async fn handle(broker: &Broker, mut req: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let group_id = req.group_id.clone();
    let missing = take_missing(&broker.image(), &mut req.topics);
    match broker.groups().ask_named_group(&group_id, req).await {
        Ok(answer) => {
            let topics = both(missing, answer.topics);
            OffsetDeleteResponse::default().with_topics(topics)
        }
        Err(code) => refused(code),
    }
}

fn refused(code: ErrorCode) -> OffsetDeleteResponse {
    OffsetDeleteResponse::default().with_error_code(code.code())
}

/// Leaves what exists, and answers for what does not.
fn take_missing(
    image: &ClusterImage,
    topics: &mut Vec<OffsetDeleteRequestTopic>,
) -> Vec<OffsetDeleteResponseTopic> {
    let mut missing = Vec::new();
    for topic in topics.iter_mut() {
        let found = image.topic(&topic.name);
        let exists = |partition: &OffsetDeleteRequestPartition| {
            found.is_some_and(|found| found.partitions.contains_key(&partition.partition_index))
        };
        let asked = std::mem::take(&mut topic.partitions);
        let (there, gone): (Vec<_>, Vec<_>) = asked.into_iter().partition(exists);
        topic.partitions = there;
        if !gone.is_empty() {
            let partitions = gone.iter().map(|partition| {
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
            });
            let topic = OffsetDeleteResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect());
            missing.push(topic);
        }
    }
    topics.retain(|topic| !topic.partitions.is_empty());
    missing
}

/// Both in one, each topic in the place where it first came.
fn both(
    missing: Vec<OffsetDeleteResponseTopic>,
    answered: Vec<OffsetDeleteResponseTopic>,
) -> Vec<OffsetDeleteResponseTopic> {
    // As in Apache Kafka: a topic that was asked for twice is then answered twice.
    if missing.is_empty() {
        return answered;
    }
    let key = |topic: &OffsetDeleteResponseTopic| topic.name.clone();
    merged(missing.into_iter().chain(answered), key, |first, later| {
        first.partitions.extend(later.partitions);
    })
}
