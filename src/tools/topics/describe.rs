//! `--describe`: a line for each topic, below it one for each partition.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    BrokerId, DescribeConfigsRequest, DescribeTopicPartitionsRequest,
    ListPartitionReassignmentsRequest,
    describe_configs_request::DescribeConfigsResource,
    describe_topic_partitions_request::{Cursor, TopicRequest},
    describe_topic_partitions_response::{
        DescribeTopicPartitionsResponsePartition as Partition,
        DescribeTopicPartitionsResponseTopic as Topic,
    },
};

use storage::properties::{decode_uuid, encode_uuid};

use super::{Options, matching};
use crate::{
    client::{Client, Error, refused, topic_name},
    tools::{Failure, console::Console},
};

/// A topic as a resource that has configurations.
const TOPIC_RESOURCE: i8 = 2;

/// Where a configuration's value comes from when nobody has set it.
const DEFAULT_CONFIG: i8 = 5;

/// The configurations of a topic that somebody has set, on the topic or below it.
type Configs = BTreeMap<String, String>;

/// The replicas a partition is moving to and from.
type Moves = BTreeMap<(String, i32), (Vec<BrokerId>, Vec<BrokerId>)>;

pub(super) async fn run(
    options: &Options,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let names = match &options.topic_id {
        // The id of no topic at all means all, in Kafka's tool too.
        Some(id) if id != "AAAAAAAAAAAAAAAAAAAAAA" => by_id(id, options, client).await?,
        _ => matching(options, client).await?,
    };
    if names.is_empty() {
        return match &options.topic {
            Some(topic) if !options.if_exists => Err(Failure::Refused(format!(
                "Topic '{topic}' does not exist as expected"
            ))),
            _ => Ok(()),
        };
    }
    let topics = describe(&names, options.partition_size_limit_per_response, client).await?;
    let configs = configs(&names, client).await?;
    let moves = reassignments(client).await?;
    let alive: Vec<i32> = client.brokers().await?.into_keys().collect();
    let narrowed = options.under_replicated_partitions
        || options.unavailable_partitions
        || options.under_min_isr_partitions
        || options.at_min_isr_partitions;
    for topic in &topics {
        let name = topic
            .name
            .as_ref()
            .map(|name| name.to_string())
            .unwrap_or_default();
        let (set, min_isr) = configs.get(&name).cloned().unwrap_or_default();
        let is_left_out = options.topics_with_overrides && set.is_empty();
        if !(narrowed || is_left_out) {
            console.line(&topic_line(topic, &name, &set, &moves))?;
        }
        if options.topics_with_overrides {
            continue;
        }
        for partition in &topic.partitions {
            let moving = moves.get(&(name.clone(), partition.partition_index));
            if is_shown(partition, options, moving, min_isr, &alive) {
                console.line(&partition_line(partition, &name, moving))?;
            }
        }
    }
    Ok(())
}

fn is_shown(
    partition: &Partition,
    options: &Options,
    moving: Option<&(Vec<BrokerId>, Vec<BrokerId>)>,
    min_isr: usize,
    alive: &[i32],
) -> bool {
    let leader = partition.leader_id.0;
    if options.under_replicated_partitions {
        // Replicas that are being added are not missed yet.
        let adding = moving.map_or(0, |(adding, _)| adding.len());
        partition.isr_nodes.len()
            < partition.replica_nodes.len() - adding.min(partition.replica_nodes.len())
    } else if options.unavailable_partitions {
        leader < 0 || !alive.contains(&leader)
    } else if options.under_min_isr_partitions {
        partition.isr_nodes.len() < min_isr
    } else if options.at_min_isr_partitions {
        partition.isr_nodes.len() == min_isr
    } else {
        true
    }
}

fn topic_line(topic: &Topic, name: &str, set: &Configs, moves: &Moves) -> String {
    let first = topic.partitions.first();
    let factor = first.map_or(0, |partition| {
        let moving = moves.get(&(name.to_owned(), partition.partition_index));
        partition.replica_nodes.len() - moving.map_or(0, |(adding, _)| adding.len())
    });
    let configs: Vec<String> = set
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!(
        "Topic: {name}\tTopicId: {}\tPartitionCount: {}\tReplicationFactor: {factor}\tConfigs: {}",
        encode_uuid(topic.topic_id),
        topic.partitions.len(),
        configs.join(",")
    )
}

fn partition_line(
    partition: &Partition,
    name: &str,
    moving: Option<&(Vec<BrokerId>, Vec<BrokerId>)>,
) -> String {
    let leader = match partition.leader_id.0 {
        -1 => "none".to_owned(),
        leader => leader.to_string(),
    };
    let or_unknown = |brokers: &Option<Vec<BrokerId>>| match brokers {
        Some(brokers) => ids(brokers),
        None => "N/A".to_owned(),
    };
    let mut line = format!(
        "\tTopic: {name}\tPartition: {}\tLeader: {leader}\tReplicas: {}\tIsr: {}",
        partition.partition_index,
        ids(&partition.replica_nodes),
        ids(&partition.isr_nodes)
    );
    if let Some((adding, removing)) = moving {
        line += &format!(
            "\tAdding Replicas: {}\tRemoving Replicas: {}",
            ids(adding),
            ids(removing)
        );
    }
    line += &format!(
        "\tElr: {}\tLastKnownElr: {}",
        or_unknown(&partition.eligible_leader_replicas),
        or_unknown(&partition.last_known_elr)
    );
    line
}

fn ids(brokers: &[BrokerId]) -> String {
    let ids: Vec<String> = brokers.iter().map(|broker| broker.0.to_string()).collect();
    ids.join(",")
}

async fn by_id(id: &str, options: &Options, client: &mut Client) -> Result<Vec<String>, Failure> {
    let wanted = decode_uuid(id).ok_or_else(|| {
        Failure::Refused(format!(
            "'{id}' is not a topic id: 22 characters of base64 are expected"
        ))
    })?;
    let all = client.metadata(None).await?;
    let found = all
        .topics
        .into_iter()
        .find(|topic| topic.topic_id == wanted);
    match found.and_then(|topic| topic.name) {
        Some(name) => Ok(vec![name.to_string()]),
        None if options.if_exists => Ok(Vec::new()),
        None => Err(Failure::Refused(format!(
            "TopicId '{id}' does not exist as expected"
        ))),
    }
}

/// The topics with their partitions, which come in as many answers as it takes.
async fn describe(
    names: &[String],
    limit: i32,
    client: &mut Client,
) -> Result<Vec<Topic>, Failure> {
    let mut topics: Vec<Topic> = Vec::new();
    let mut cursor = None;
    loop {
        let from = cursor
            .as_ref()
            .map(|cursor: &Cursor| cursor.topic_name.to_string());
        let rest = names
            .iter()
            .filter(|name| from.as_ref().is_none_or(|from| from <= *name));
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(
                rest.map(|name| TopicRequest::default().with_name(topic_name(name)))
                    .collect(),
            )
            .with_response_partition_limit(limit)
            .with_cursor(cursor.clone());
        let response = client.any(0, &request).await?;
        for topic in response.topics {
            refused(topic.error_code, None)?;
            match topics.last_mut() {
                Some(last) if last.topic_id == topic.topic_id => {
                    last.partitions.extend(topic.partitions);
                }
                _ => topics.push(topic),
            }
        }
        let next = response.next_cursor.map(|next| {
            Cursor::default()
                .with_topic_name(next.topic_name)
                .with_partition_index(next.partition_index)
        });
        // A cursor that does not move would be asked for ever.
        if next.is_none() || next == cursor {
            return Ok(topics);
        }
        cursor = next;
    }
}

/// What is set for each topic, and its min.insync.replicas.
async fn configs(
    names: &[String],
    client: &mut Client,
) -> Result<BTreeMap<String, (Configs, usize)>, Failure> {
    let resource = |name: &String| {
        DescribeConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(name.clone().into())
            .with_configuration_keys(None)
    };
    let request =
        DescribeConfigsRequest::default().with_resources(names.iter().map(resource).collect());
    let response = client.any(4, &request).await?;
    let mut topics = BTreeMap::new();
    for result in response.results {
        refused(result.error_code, result.error_message.as_ref())?;
        let mut set = Configs::new();
        let mut min_isr = 0;
        for config in result.configs {
            let value = config
                .value
                .map(|value| value.to_string())
                .unwrap_or_default();
            if &*config.name == "min.insync.replicas" {
                min_isr = value.parse().unwrap_or(0);
            }
            if config.config_source != DEFAULT_CONFIG {
                set.insert(config.name.to_string(), value);
            }
        }
        topics.insert(result.resource_name.to_string(), (set, min_isr));
    }
    Ok(topics)
}

/// Partitions whose replicas are changing. A broker that cannot move any does not serve the question.
async fn reassignments(client: &mut Client) -> Result<Moves, Failure> {
    let request = ListPartitionReassignmentsRequest::default()
        .with_topics(None)
        .with_timeout_ms(client.timeout_ms());
    let response = match client.any(0, &request).await {
        Ok(response) => response,
        Err(Error::Peer(replication::peer::Error::Unserved { .. })) => return Ok(Moves::new()),
        Err(err) => return Err(err.into()),
    };
    refused(response.error_code, response.error_message.as_ref())?;
    let mut moves = Moves::new();
    for topic in response.topics {
        for partition in topic.partitions {
            moves.insert(
                (topic.name.to_string(), partition.partition_index),
                (partition.adding_replicas, partition.removing_replicas),
            );
        }
    }
    Ok(moves)
}
