//! CreateTopics (key 19), v2-v7: create topics, each on its own.
//!
//! - A name that occurs more than once in a request is refused, and answered once, after all others.
//! - A request for more than 10,000 partitions is refused as a whole: what it would write is one batch
//!   of the metadata log.
//! - `validate_only` answers what a real run would answer, and creates nothing.
//! - The answer is sent when the topics are in the metadata log and this broker has the partitions it
//!   leads, so that a client may use at once what it has created. A real broker leaves that gap open.
//! - A time-out that leaves no time is refused before anything is done.
//!
//! Versions: v4 defaults by -1 (KIP-464), v5 the topic's configuration in the answer (KIP-525), v7 topic ids.

use std::collections::HashMap;

use kafka_protocol::{
    messages::{
        CreateTopicsRequest, CreateTopicsResponse, TopicName,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
    protocol::StrBytes,
};
use replication::{
    controller::{
        self,
        topics::{Created, NewTopic, PARTITIONS_MAX},
    },
    error::{Reason, Refusal},
};

use super::error::Error;
use crate::{broker::Broker, server::Context};

/// First version whose answer has the topic's configuration.
const CONFIGS: i16 = 5;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let (topics, repeated) = set_repeated_apart(req.topics);
    let mut results: Vec<CreatableTopicResult> =
        match create(broker, ctx, &topics, req.timeout_ms, req.validate_only).await {
            Ok(outcomes) => topics
                .iter()
                .zip(outcomes)
                .map(|(topic, outcome)| match outcome {
                    Ok(created) => described(broker, ctx, &topic.name, &created),
                    Err(err) => refused(&topic.name, &err),
                })
                .collect(),
            Err(err) => topics
                .iter()
                .map(|topic| refused(&topic.name, &err))
                .collect(),
        };
    results.extend(repeated.iter().map(|name| {
        refused(
            name,
            &Refusal::new(Reason::InvalidRequest, "Duplicate topic name.").into(),
        )
    }));
    CreateTopicsResponse::default().with_topics(results)
}

fn set_repeated_apart(topics: Vec<CreatableTopic>) -> (Vec<CreatableTopic>, Vec<TopicName>) {
    let mut counts: HashMap<TopicName, usize> = HashMap::new();
    for topic in &topics {
        *counts.entry(topic.name.clone()).or_default() += 1;
    }
    let mut repeated = Vec::new();
    let mut once = Vec::with_capacity(topics.len());
    for topic in topics {
        match counts.get_mut(&topic.name) {
            Some(1) => once.push(topic),
            // The first of several stands for all, the others have been counted out.
            Some(count) if 1 < *count => {
                *count = 0;
                repeated.push(topic.name);
            }
            _ => (),
        }
    }
    (once, repeated)
}

/// An outcome for each topic, or what keeps all of them from being tried.
async fn create(
    broker: &Broker,
    ctx: &Context,
    topics: &[CreatableTopic],
    timeout_ms: i32,
    validate_only: bool,
) -> Result<Vec<Result<Created, Error>>, Error> {
    let asked_for: i64 = topics.iter().map(partition_count).sum();
    if PARTITIONS_MAX < asked_for {
        return Err(Refusal::new(
            Reason::PolicyViolation,
            "Excessively large number of partitions per request.",
        )
        .into());
    }
    // The controllers' log is not a topic a client can have.
    let (forbidden, allowed): (Vec<_>, Vec<_>) = topics
        .iter()
        .partition(|topic| &**topic.name == controller::TOPIC);
    debug_assert!(forbidden.len() <= 1, "repeated names have been set apart");
    let new = allowed.into_iter().map(new_topic).collect();
    let created = ctx
        .within(
            timeout_ms,
            broker.controller().create_topics(new, validate_only),
        )
        .await??;
    broker.catch_up(ctx, timeout_ms).await;
    let mut created = created.into_iter();
    Ok(topics
        .iter()
        .filter_map(|topic| match &**topic.name {
            controller::TOPIC => Some(Err(Refusal::new(
                Reason::InvalidRequest,
                format!(
                    "Creation of internal topic {} is prohibited.",
                    controller::TOPIC
                ),
            )
            .into())),
            _ => created.next().map(|outcome| outcome.map_err(Error::from)),
        })
        .collect())
}

fn partition_count(topic: &CreatableTopic) -> i64 {
    if topic.assignments.is_empty() {
        i64::from(topic.num_partitions.max(0))
    } else {
        i64::try_from(topic.assignments.len()).unwrap_or(i64::MAX)
    }
}

fn new_topic(topic: &CreatableTopic) -> NewTopic {
    NewTopic {
        name: topic.name.to_string(),
        partition_count: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic
            .assignments
            .iter()
            .map(|assignment| {
                let brokers = assignment.broker_ids.iter().map(|id| id.0).collect();
                (assignment.partition_index, brokers)
            })
            .collect(),
        configs: topic
            .configs
            .iter()
            .map(|config| {
                (
                    config.name.to_string(),
                    config.value.as_deref().map(str::to_owned),
                )
            })
            .collect(),
    }
}

fn described(
    broker: &Broker,
    ctx: &Context,
    name: &TopicName,
    created: &Created,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default()
        .with_name(name.clone())
        .with_topic_id(created.id)
        .with_error_message(None)
        .with_num_partitions(created.partition_count)
        .with_replication_factor(created.replication_factor);
    if ctx.version < CONFIGS {
        return result;
    }
    let configs = broker
        .config()
        .describe_topic(&created.configs)
        .into_iter()
        .map(|config| {
            CreatableTopicConfigs::default()
                .with_name(config.name.into())
                .with_value(config.value.map(StrBytes::from))
                .with_read_only(config.is_read_only)
                .with_config_source(config.source.code())
                .with_is_sensitive(config.is_sensitive)
        });
    result.with_configs(Some(configs.collect()))
}

fn refused(name: &TopicName, err: &Error) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name.clone())
        .with_error_code(err.code().code())
        .with_error_message(err.message().map(StrBytes::from))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
}
