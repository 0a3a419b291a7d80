//! ElectLeaders (key 43), v0-v2: give partitions the leader they should have (KIP-460).
//!
//! - The preferred replica (type 0), or any that is alive, at the price of records (type 1, unclean).
//! - For named partitions every outcome is answered, ELECTION_NOT_NEEDED included. When all partitions are
//!   meant (null), those that had nothing to elect are not mentioned.
//!
//! Versions: v0 only the preferred replica, v1 election types and a code for the whole request.

use kafka_protocol::{
    messages::{
        ElectLeadersRequest, ElectLeadersResponse, TopicName,
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
    protocol::StrBytes,
};
use replication::{
    controller::leaders::{Elected, Election},
    error::{Reason, Refusal},
};

use super::error::Error;
use crate::{broker::Broker, server::Context};

/// First version with election types, and with a code for the request as a whole.
const ELECTION_TYPES: i16 = 1;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: ElectLeadersRequest,
) -> ElectLeadersResponse {
    match elect(broker, ctx, &req).await {
        Ok(elected) => ElectLeadersResponse::default()
            .with_replica_election_results(elected.into_iter().map(result).collect()),
        Err(err) => refused(ctx, &req, &err),
    }
}

async fn elect(
    broker: &Broker,
    ctx: &Context,
    req: &ElectLeadersRequest,
) -> Result<Vec<Elected>, Error> {
    let election = match req.election_type {
        0 => Election::Preferred,
        1 => Election::Unclean,
        other => {
            let why = format!("Unknown election type {other}");
            return Err(Refusal::new(Reason::InvalidRequest, why).into());
        }
    };
    let targets = req.topic_partitions.as_ref().map(|topics| {
        topics
            .iter()
            .map(|topic| (topic.topic.to_string(), topic.partitions.clone()))
            .collect()
    });
    let elected = broker.controller().elect_leaders(election, targets);
    Ok(ctx.within(req.timeout_ms, elected).await??)
}

fn result(elected: Elected) -> ReplicaElectionResult {
    let partitions = elected
        .partitions
        .into_iter()
        .map(|(index, outcome)| partition(index, outcome.map_err(Error::from).as_ref().err()));
    ReplicaElectionResult::default()
        .with_topic(TopicName(StrBytes::from(elected.topic)))
        .with_partition_result(partitions.collect())
}

fn partition(index: i32, err: Option<&Error>) -> PartitionResult {
    let result = PartitionResult::default().with_partition_id(index);
    match err {
        None => result.with_error_message(None),
        Some(err) => result
            .with_error_code(err.code().code())
            .with_error_message(err.explained().map(Into::into)),
    }
}

fn refused(ctx: &Context, req: &ElectLeadersRequest, err: &Error) -> ElectLeadersResponse {
    let topics = req.topic_partitions.iter().flatten().map(|topic| {
        let partitions = topic
            .partitions
            .iter()
            .map(|&index| partition(index, Some(err)));
        ReplicaElectionResult::default()
            .with_topic(topic.topic.clone())
            .with_partition_result(partitions.collect())
    });
    let response = ElectLeadersResponse::default().with_replica_election_results(topics.collect());
    if ctx.version < ELECTION_TYPES {
        return response;
    }
    response.with_error_code(err.code().code())
}
