//! DescribeProducers (key 61), v0: who writes to a partition idempotently, and how far they are (KIP-664).
//!
//! Asked of the leader, by people who look for a transaction that hangs: it is the one with an old
//! `current_txn_start_offset`.

use std::collections::HashSet;

use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, ProducerId,
    describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
};
use storage::producers::Producer;

use super::{
    again::{self, Room},
    error::Error,
};
use crate::{broker::Broker, server::Context};

/// The client's leader epoch, where the request has none.
const NOT_KNOWN: i32 = -1;

pub(crate) fn handle(
    broker: &Broker,
    ctx: &Context,
    req: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let (mut named, mut room) = (HashSet::new(), Room::default());
    let topics = req.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|&index| {
            let is_new = named.insert((topic.name.clone(), index));
            if !is_new && !room.is_left() {
                return PartitionResponse::default()
                    .with_partition_index(index)
                    .with_error_code(again::REFUSED.code());
            }
            let result = result(index, producers(broker, ctx, &topic.name, index));
            if !is_new {
                room.take(&result, ctx.version);
            }
            result
        });
        let partitions = partitions.collect();
        TopicResponse::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn producers(
    broker: &Broker,
    ctx: &Context,
    topic: &str,
    index: i32,
) -> Result<Vec<ProducerState>, Error> {
    let partition = broker.partition(topic, index)?;
    partition.check_epoch(NOT_KNOWN)?;
    let log = partition.log();
    let producers = log
        .producers(ctx.now)
        .map_err(|err| Error::Partition(err.into()))?;
    let mut producers: Vec<_> = producers.iter().map(state).collect();
    producers.sort_by_key(|producer| producer.producer_id.0);
    Ok(producers)
}

fn result(index: i32, outcome: Result<Vec<ProducerState>, Error>) -> PartitionResponse {
    let result = PartitionResponse::default().with_partition_index(index);
    match outcome {
        Ok(producers) => result.with_active_producers(producers),
        Err(err) => result
            .with_error_code(err.code().code())
            .with_error_message(err.message().map(Into::into)),
    }
}

fn state((id, producer): &(i64, Producer)) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(*id))
        .with_producer_epoch(producer.epoch.into())
        .with_last_sequence(producer.last_sequence())
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.current_txn_first_offset.unwrap_or(-1))
}
