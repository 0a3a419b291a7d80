//! CreatePartitions (key 37), v0-v3: more partitions for topics that are there.
//!
//! - `count` is how many there shall be in all. There is no way back to fewer.
//! - A topic that occurs more than once in a request is refused, and answered once, after the others.
//! - Like CreateTopics, the answer waits until this broker has the new partitions that it leads.

use std::collections::HashMap;

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, TopicName,
    create_partitions_request::CreatePartitionsTopic,
    create_partitions_response::CreatePartitionsTopicResult,
};
use replication::{
    controller::topics::MorePartitions,
    error::{Reason, Refusal},
};

use super::error::Error;
use crate::{broker::Broker, server::Context};

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut counts: HashMap<TopicName, usize> = HashMap::new();
    for topic in &req.topics {
        *counts.entry(topic.name.clone()).or_default() += 1;
    }
    let (once, mut repeated): (Vec<_>, Vec<_>) = req
        .topics
        .into_iter()
        .partition(|topic| counts[&topic.name] == 1);
    repeated.sort_by(|a, b| a.name.cmp(&b.name));
    repeated.dedup_by(|a, b| a.name == b.name);

    let wanted = once.iter().map(more_partitions).collect();
    let grown = broker
        .controller()
        .create_partitions(wanted, req.validate_only);
    let grown = ctx
        .within(req.timeout_ms, grown)
        .await
        .and_then(|grown| grown.map_err(Error::from));
    broker.catch_up(ctx, req.timeout_ms).await;
    let mut results: Vec<_> = match grown {
        Ok(outcomes) => once
            .into_iter()
            .zip(outcomes)
            .map(|(topic, outcome)| result(topic.name, outcome.map_err(Error::from).as_ref().err()))
            .collect(),
        Err(err) => once
            .into_iter()
            .map(|topic| result(topic.name, Some(&err)))
            .collect(),
    };
    let duplicate = Refusal::new(Reason::InvalidRequest, "Duplicate topic name.").into();
    results.extend(
        repeated
            .into_iter()
            .map(|topic| result(topic.name, Some(&duplicate))),
    );
    CreatePartitionsResponse::default().with_results(results)
}

fn more_partitions(topic: &CreatePartitionsTopic) -> MorePartitions {
    let brokers =
        |ids: &Vec<kafka_protocol::messages::BrokerId>| ids.iter().map(|id| id.0).collect();
    MorePartitions {
        topic: topic.name.to_string(),
        count: topic.count,
        assignments: topic.assignments.as_ref().map(|all| {
            all.iter()
                .map(|assignment| brokers(&assignment.broker_ids))
                .collect()
        }),
    }
}

fn result(name: TopicName, err: Option<&Error>) -> CreatePartitionsTopicResult {
    let result = CreatePartitionsTopicResult::default().with_name(name);
    match err {
        None => result,
        Some(err) => result
            .with_error_code(err.code().code())
            .with_error_message(err.message().map(Into::into)),
    }
}
