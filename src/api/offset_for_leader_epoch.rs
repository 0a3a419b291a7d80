//! OffsetForLeaderEpoch (key 23), v2-v4: where the records of a leader epoch end.
//!
//! A consumer (or follower) that has read up to some offset under an epoch asks whether that part of the
//! log still stands: if the epoch ends before its offset, the log was cut and written anew.
//!
//! - The answer's epoch is the newest one not above the epoch asked for; its end is the start of the next
//!   epoch, or the log's end. An epoch we have not had yet has neither (-1, -1).
//! - `current_leader_epoch` fences clients whose metadata is older or newer than ours.
//!
//! Versions: v3 who is asking, v4 flexible.

use kafka_protocol::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    offset_for_leader_epoch_request::OffsetForLeaderPartition,
    offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
};

use super::error::Error;
use crate::{broker::Broker, server::Context};

pub(crate) fn handle(
    broker: &Broker,
    _ctx: &Context,
    req: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = req.topics.into_iter().map(|topic| {
        let partitions = topic
            .partitions
            .iter()
            .map(|asked| result(asked, end_of_epoch(broker, &topic.topic, asked)))
            .collect();
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic)
            .with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

/// The epoch that the answer is about, and its end.
fn end_of_epoch(
    broker: &Broker,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<(i32, i64), Error> {
    let partition = broker.partition(topic, asked.partition)?;
    let current = partition.check_epoch(asked.current_leader_epoch)?;
    let log = partition.log();
    if asked.leader_epoch == current {
        // Under this epoch nothing may have been written yet; it ends here all the same.
        return Ok((current, log.end_offset()));
    }
    Ok(log.end_offset_for_epoch(asked.leader_epoch))
}

fn result(asked: &OffsetForLeaderPartition, outcome: Result<(i32, i64), Error>) -> EpochEndOffset {
    let result = EpochEndOffset::default().with_partition(asked.partition);
    match outcome {
        Ok((epoch, end_offset)) => result.with_leader_epoch(epoch).with_end_offset(end_offset),
        Err(err) => result.with_error_code(err.code().code()),
    }
}
