//! DescribeTopicPartitions (key 75), v0: topics and their partitions, a page at a time (KIP-966).
//!
//! - Topics are answered in the order of their names, each once, however they were asked for. An empty
//!   list means all of them.
//! - A page has at most `response_partition_limit` partitions, never more than
//!   `max.request.partition.size.limit`, and at least one. If it ends early, its cursor says which
//!   partition the next page begins with, and the client sends it back.
//! - The cursor's topic must be one of those asked for; it may have been deleted since.

use std::collections::BTreeSet;

use kafka_protocol::{
    messages::{
        BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
        describe_topic_partitions_request as request,
        describe_topic_partitions_response::{
            Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
        },
    },
    protocol::StrBytes,
};
use protocol::error::ErrorCode;
use replication::cluster::{ClusterImage, PartitionInfo};

use super::operations;
use crate::{broker::Broker, server::Context, topic_name};

pub(crate) fn handle(
    broker: &Broker,
    _ctx: &Context,
    req: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let limit = usize::try_from(req.response_partition_limit)
        .unwrap_or(0)
        .clamp(1, broker.config().max_request_partition_size_limit.max(1));
    let image = broker.applied_image();
    let everything = req.topics.is_empty();
    let start = req.cursor.as_ref();
    let names = if everything {
        image
            .topics()
            .map(|topic| StrBytes::from(topic.name.to_string()))
            .collect()
    } else {
        asked_for(&req)
    };
    if !everything && start.is_some_and(|start| !names.contains(&start.topic_name.0))
        || start.is_some_and(|start| start.partition_index < 0)
    {
        return refused(&req, ErrorCode::InvalidRequest);
    }
    page(&image, &names, start, limit, everything)
}

fn asked_for(req: &DescribeTopicPartitionsRequest) -> BTreeSet<StrBytes> {
    req.topics
        .iter()
        .map(|topic| topic.name.0.clone())
        .collect()
}

fn page(
    image: &ClusterImage,
    names: &BTreeSet<StrBytes>,
    start: Option<&request::Cursor>,
    limit: usize,
    everything: bool,
) -> DescribeTopicPartitionsResponse {
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut room = limit;
    let first = start
        .map(|start| start.topic_name.0.clone())
        .unwrap_or_default();
    for name in names.range(first..) {
        if room == 0 {
            response.next_cursor = Some(cursor(name, 0));
            break;
        }
        let Some(topic) = image.topic(name) else {
            // It was there when the list of all topics was made, and a client that asked for all
            // topics does not want to hear of one that is gone.
            if !everything {
                response.topics.push(unknown(name));
            }
            continue;
        };
        let from = match start {
            Some(start) if start.topic_name.0 == *name => start.partition_index,
            _ => 0,
        };
        let mut rest = topic.partitions.range(from..);
        let partitions: Vec<_> = rest
            .by_ref()
            .take(room)
            .map(|(&index, partition)| describe(image, index, partition))
            .collect();
        room -= partitions.len();
        response.topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(TopicName(name.clone())))
                .with_topic_id(topic.id)
                .with_is_internal(topic_name::is_internal(name))
                .with_partitions(partitions)
                .with_topic_authorized_operations(operations::TOPIC),
        );
        if let Some((&index, _)) = rest.next() {
            response.next_cursor = Some(cursor(name, index));
            break;
        }
    }
    response
}

fn describe(
    image: &ClusterImage,
    index: i32,
    partition: &PartitionInfo,
) -> DescribeTopicPartitionsResponsePartition {
    let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
    // No leader is no error here, unlike in Metadata.
    DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(index)
        .with_leader_id(BrokerId(partition.leader))
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(ids(&partition.replicas))
        .with_isr_nodes(ids(&partition.isr))
        .with_eligible_leader_replicas(Some(ids(&partition.eligible_leader_replicas)))
        .with_last_known_elr(Some(ids(&partition.last_known_eligible_leader_replicas)))
        .with_offline_replicas(ids(&image.offline_replicas(partition)))
}

fn cursor(topic: &StrBytes, index: i32) -> Cursor {
    Cursor::default()
        .with_topic_name(TopicName(topic.clone()))
        .with_partition_index(index)
}

/// A real broker claims every operation on a topic that is not there, and so do we.
fn unknown(name: &StrBytes) -> DescribeTopicPartitionsResponseTopic {
    let code = match topic_name::check(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(code.code())
        .with_name(Some(TopicName(name.clone())))
        .with_topic_authorized_operations(operations::TOPIC)
}

fn refused(
    req: &DescribeTopicPartitionsRequest,
    code: ErrorCode,
) -> DescribeTopicPartitionsResponse {
    let topics = req.topics.iter().map(|topic| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(code.code())
            .with_name(Some(topic.name.clone()))
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}
