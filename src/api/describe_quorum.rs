//! DescribeQuorum (key 55), v0-v2: who leads the controllers' quorum, and how far each member's copy of
//! the metadata log goes (KIP-595).
//!
//! A request is about `__cluster_metadata-0` and nothing else. With anything beside it, a real broker
//! refuses every partition of the request, and so do we.
//!
//! Directory ids are all zero: they tell the voters of a dynamic quorum apart, and ours is static.
//!
//! Versions: v1 times of fetching and of being caught up (KIP-836), v2 directory ids and the controllers'
//! addresses (KIP-853).

use std::sync::Arc;

use kafka_protocol::messages::{
    BrokerId, DescribeQuorumRequest, DescribeQuorumResponse,
    describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData},
};
use protocol::records::metadata::RegisterControllerRecord;
use replication::{
    cluster::ClusterImage,
    controller::{self, Quorum},
};

use super::error::Error;
use crate::{broker::Broker, server::Context};

/// First version with the controllers' addresses.
const ADDRESSES: i16 = 2;

pub(crate) fn handle(
    broker: &Broker,
    ctx: &Context,
    req: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let asks_for_it_alone = match &req.topics[..] {
        [topic] => {
            *topic.topic_name == *controller::TOPIC
                && matches!(&topic.partitions[..], [only] if only.partition_index == 0)
        }
        _ => false,
    };
    // Success is told with an empty text, not with none: a quirk clients have got used to.
    let response = DescribeQuorumResponse::default().with_error_message(Some("".into()));
    if !asks_for_it_alone {
        let topics = req.topics.into_iter().map(|topic| {
            let refused = topic
                .partitions
                .iter()
                .map(|asked| refused(asked.partition_index));
            TopicData::default()
                .with_topic_name(topic.topic_name)
                .with_partitions(refused.collect())
        });
        return response.with_topics(topics.collect());
    }
    let quorum = broker.controller().quorum();
    let topics = req.topics.into_iter().map(|topic| {
        TopicData::default()
            .with_topic_name(topic.topic_name)
            .with_partitions(vec![partition(ctx, &quorum)])
    });
    let response = response.with_topics(topics.collect());
    if ctx.version < ADDRESSES {
        return response;
    }
    response.with_nodes(nodes(&broker.image()))
}

/// A voter that leads has fetched, and caught up with itself, just now.
fn partition(ctx: &Context, quorum: &Quorum) -> PartitionData {
    let voters = quorum.voters.iter().map(|&(id, end_offset)| {
        let seen = if id == quorum.leader { ctx.now } else { -1 };
        ReplicaState::default()
            .with_replica_id(BrokerId(id))
            .with_log_end_offset(end_offset)
            .with_last_fetch_timestamp(seen)
            .with_last_caught_up_timestamp(seen)
    });
    PartitionData::default()
        .with_error_message(Some("".into()))
        .with_leader_id(BrokerId(quorum.leader))
        .with_leader_epoch(quorum.epoch)
        .with_high_watermark(quorum.high_watermark)
        .with_current_voters(voters.collect())
}

fn nodes(image: &ClusterImage) -> Vec<Node> {
    let node = |controller: &Arc<RegisterControllerRecord>| {
        let listeners = controller.end_points.iter().map(|endpoint| {
            Listener::default()
                .with_name(endpoint.name.clone().into())
                .with_host(endpoint.host.clone().into())
                .with_port(endpoint.port)
        });
        Node::default()
            .with_node_id(BrokerId(controller.controller_id))
            .with_listeners(listeners.collect())
    };
    image.controllers.values().map(node).collect()
}

fn refused(index: i32) -> PartitionData {
    let err = Error::UnknownTopicOrPartition;
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(err.code().code())
        .with_error_message(err.explained().map(Into::into))
}
