//! ListPartitionReassignments (key 46), v0: partitions that are on their way to other brokers.
//!
//! No topics in the request (null) means all of them. A partition that is not moving, or not there, is
//! left out of the answer.

use kafka_protocol::{
    messages::{
        BrokerId, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
        list_partition_reassignments_response::{
            OngoingPartitionReassignment, OngoingTopicReassignment,
        },
    },
    protocol::StrBytes,
};
use replication::cluster::{PartitionInfo, Topic};

use crate::{broker::Broker, server::Context};

pub(crate) fn handle(
    broker: &Broker,
    _ctx: &Context,
    req: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let image = broker.image();
    let topics = match &req.topics {
        None => image
            .topics()
            .filter_map(|topic| ongoing(topic, topic.partitions.keys()))
            .collect(),
        Some(asked) => asked
            .iter()
            .filter_map(|asked| ongoing(image.topic(&asked.name)?, &asked.partition_indexes))
            .collect(),
    };
    ListPartitionReassignmentsResponse::default()
        .with_error_message(None)
        .with_topics(topics)
}

fn ongoing<'a>(
    topic: &Topic,
    indexes: impl IntoIterator<Item = &'a i32>,
) -> Option<OngoingTopicReassignment> {
    let partitions: Vec<_> = indexes
        .into_iter()
        .filter_map(|index| Some((*index, topic.partitions.get(index)?)))
        .filter(|(_, partition)| {
            !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty()
        })
        .map(|(index, partition)| describe(index, partition))
        .collect();
    if partitions.is_empty() {
        return None;
    }
    let name = TopicName(StrBytes::from(topic.name.to_string()));
    Some(
        OngoingTopicReassignment::default()
            .with_name(name)
            .with_partitions(partitions),
    )
}

fn describe(index: i32, partition: &PartitionInfo) -> OngoingPartitionReassignment {
    let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
    OngoingPartitionReassignment::default()
        .with_partition_index(index)
        .with_replicas(ids(&partition.replicas))
        .with_adding_replicas(ids(&partition.adding_replicas))
        .with_removing_replicas(ids(&partition.removing_replicas))
}
