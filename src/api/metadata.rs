//! Metadata (key 3), v0-v13: the brokers, and the topics with who leads their partitions.
//!
//! - No topics asked for: all of them in v0, none since v1, where `null` asks for all.
//! - A topic that is not there is created when the client allows it (v4; before, always) and
//!   `auto.create.topics.enable` is on. The answer is UNKNOWN_TOPIC_OR_PARTITION even so: the client
//!   asks again, and by then the topic is there.
//! - Since v12 one id makes the whole request one for ids: topics named in it are passed over.
//! - A topic without name and id fails the whole request, as does, before v12, one with an id.
//! - The addresses are those advertised on the listener the client came in by.
//!
//! Versions: v2 cluster id, v5 offline replicas, v7 leader epochs, v8 authorized operations, v10 topic
//! ids, v12 look-up by id (KIP-516), v13 an error for the whole answer (KIP-1102).

use std::{collections::HashSet, sync::Arc};

use kafka_protocol::messages::{
    MetadataRequest, MetadataResponse, TopicName,
    metadata_request::MetadataRequestTopic,
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
};
use replication::cluster::{ClusterImage, PartitionInfo, Topic};

use super::{error::Error, operations};
use crate::{broker::Broker, server::Context, topic_name};

/// First version whose empty list means none.
const NULL_IS_ALL: i16 = 1;
/// First version that lets the client say whether a missing topic may be created.
const MAY_FORBID_CREATION: i16 = 4;
/// First version that can find a topic by its id.
const LOOK_UP_BY_ID: i16 = 12;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    ctx: &Context,
    req: MetadataRequest,
) -> MetadataResponse {
    let mut req = req;
    if let Err(err) = judge(&mut req, ctx.version) {
        return refuse_all(req, &err);
    }
    let image = broker.applied_image();
    let may_create = ctx.version < MAY_FORBID_CREATION || req.allow_auto_topic_creation;
    let mut missing = Vec::new();
    let mut topics: Vec<MetadataResponseTopic> = match req.topics {
        Some(asked) if !asked.is_empty() || NULL_IS_ALL <= ctx.version => {
            let mut seen = HashSet::new();
            let new =
                |topic: &MetadataRequestTopic| seen.insert((topic.name.clone(), topic.topic_id));
            let mut topics = Vec::with_capacity(asked.len());
            for asked in asked.into_iter().filter(new) {
                topics.push(match find(&image, &asked) {
                    Ok(topic) => describe(&image, topic),
                    Err(err) => {
                        if let (Error::UnknownTopicOrPartition, Some(name)) = (&err, &asked.name) {
                            missing.push(name.to_string());
                        }
                        refuse(asked, &err)
                    }
                });
            }
            topics
        }
        _ => image
            .topics()
            .map(|topic| describe(&image, topic))
            .collect(),
    };
    if may_create && broker.config().auto_create_topics_enable && !missing.is_empty() {
        broker.create_missing(missing);
    }
    if req.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            topic.topic_authorized_operations = operations::TOPIC;
        }
    }
    let cluster_operations = match req.include_cluster_authorized_operations {
        true => operations::CLUSTER,
        false => operations::NOT_ASKED,
    };
    MetadataResponse::default()
        .with_brokers(brokers(&image, &ctx.listener))
        .with_cluster_id(Some(image.cluster_id.to_string().into()))
        .with_controller_id(broker.node_id().into())
        .with_topics(topics)
        .with_cluster_authorized_operations(cluster_operations)
}

/// Leaves the topics that are to be found, if the request makes sense.
fn judge(req: &mut MetadataRequest, version: i16) -> Result<(), Error> {
    let Some(asked) = &mut req.topics else {
        return Ok(());
    };
    let by_id = |topic: &MetadataRequestTopic| !topic.topic_id.is_nil();
    let nameless = |topic: &MetadataRequestTopic| topic.name.is_none();
    if version < LOOK_UP_BY_ID {
        if asked.iter().any(|topic| by_id(topic) || nameless(topic)) {
            return Err(Error::InvalidRequest("topic ids need version 12"));
        }
    } else if asked.iter().any(by_id) {
        asked.retain(by_id);
    } else if asked.iter().any(nameless) {
        return Err(Error::Nonsense("a topic without name and id"));
    }
    Ok(())
}

/// The answer to a request that fails as a whole.
fn refuse_all(req: MetadataRequest, err: &Error) -> MetadataResponse {
    let topics = req.topics.into_iter().flatten().map(|asked| {
        MetadataResponseTopic::default()
            .with_error_code(err.code().code())
            .with_name(Some(asked.name.unwrap_or_default()))
            .with_topic_id(asked.topic_id)
    });
    MetadataResponse::default()
        .with_topics(topics.collect())
        .with_error_code(err.code().code())
}

fn find<'a>(
    image: &'a ClusterImage,
    asked: &MetadataRequestTopic,
) -> Result<&'a Arc<Topic>, Error> {
    if !asked.topic_id.is_nil() {
        return image
            .topic_by_id(asked.topic_id)
            .ok_or(Error::UnknownTopicId);
    }
    let Some(name) = &asked.name else {
        return Err(Error::UnknownTopicOrPartition);
    };
    match image.topic(name) {
        Some(topic) => Ok(topic),
        None if topic_name::check(name).is_err() => Err(Error::InvalidTopicName),
        None => Err(Error::UnknownTopicOrPartition),
    }
}

fn brokers(image: &ClusterImage, listener: &str) -> Vec<MetadataResponseBroker> {
    let live = image.brokers.values().filter(|broker| !broker.fenced);
    // A broker that does not have this listener cannot be reached by this client.
    live.filter_map(|broker| {
        let endpoint = broker
            .endpoints
            .iter()
            .find(|endpoint| endpoint.name == listener)?;
        let response = MetadataResponseBroker::default()
            .with_node_id(broker.id.into())
            .with_host(endpoint.host.clone().into())
            .with_port(endpoint.port.into())
            .with_rack(broker.rack.clone().map(Into::into));
        Some(response)
    })
    .collect()
}

fn describe(image: &ClusterImage, topic: &Topic) -> MetadataResponseTopic {
    let name = TopicName(topic.name.to_string().into());
    MetadataResponseTopic::default()
        .with_is_internal(topic_name::is_internal(&topic.name))
        .with_name(Some(name))
        .with_topic_id(topic.id)
        .with_partitions(
            topic
                .partitions
                .iter()
                .map(|(index, info)| partition(image, *index, info))
                .collect(),
        )
}

fn partition(image: &ClusterImage, index: i32, info: &PartitionInfo) -> MetadataResponsePartition {
    let ids = |ids: &[i32]| ids.iter().map(|id| (*id).into()).collect();
    let leader_gone = info.leader < 0;
    let response = MetadataResponsePartition::default()
        .with_partition_index(index)
        .with_leader_id(info.leader.into())
        .with_leader_epoch(info.leader_epoch)
        .with_replica_nodes(ids(&info.replicas))
        .with_isr_nodes(ids(&info.isr))
        .with_offline_replicas(ids(&image.offline_replicas(info)));
    match leader_gone {
        true => response.with_error_code(Error::LeaderNotAvailable.code().code()),
        false => response,
    }
}

fn refuse(asked: MetadataRequestTopic, err: &Error) -> MetadataResponseTopic {
    // Of a topic that was not found by its id, not even the name that was sent is repeated.
    let name = asked.name.filter(|_| !matches!(err, Error::UnknownTopicId));
    let is_internal = name
        .as_ref()
        .is_some_and(|name| topic_name::is_internal(name));
    MetadataResponseTopic::default()
        .with_error_code(err.code().code())
        .with_name(name)
        .with_topic_id(asked.topic_id)
        .with_is_internal(is_internal)
}
