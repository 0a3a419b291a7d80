//! DeleteRecords (key 21), v0-v2: move the start of partitions, so that what is before it may go.
//!
//! - Offset -1 means the high watermark: everything that is committed. Below the start there is nothing
//!   to do, which is a success; past the watermark is OFFSET_OUT_OF_RANGE.
//! - A topic that is only compacted keeps the newest record of each key for good: POLICY_VIOLATION. The
//!   coordinators' topics are not for clients to cut.
//! - The files go when whole segments are below the new start, at the next round of retention.

use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse,
    delete_records_request::DeleteRecordsPartition,
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
};

use super::error::Error;
use crate::{broker::Broker, server::Context, topic_name};

/// What `low_watermark` says when nothing was moved.
const NO_WATERMARK: i64 = -1;

pub(crate) fn handle(
    broker: &Broker,
    _ctx: &Context,
    req: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let topics = req.topics.into_iter().map(|topic| {
        let partitions = topic
            .partitions
            .iter()
            .map(|asked| result(asked, delete(broker, &topic.name, asked)))
            .collect();
        DeleteRecordsTopicResult::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

/// The partition's new low watermark.
fn delete(broker: &Broker, topic: &str, asked: &DeleteRecordsPartition) -> Result<i64, Error> {
    let partition = broker.partition(topic, asked.partition_index)?;
    if topic_name::is_internal(topic) {
        return Err(Error::InternalTopic);
    }
    if !partition.log().config().delete {
        return Err(Error::DeletionIsNotThePolicy);
    }
    Ok(partition.delete_records(asked.offset)?)
}

fn result(
    asked: &DeleteRecordsPartition,
    outcome: Result<i64, Error>,
) -> DeleteRecordsPartitionResult {
    let result =
        DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
    match outcome {
        Ok(low_watermark) => result.with_low_watermark(low_watermark),
        Err(err) => result
            .with_low_watermark(NO_WATERMARK)
            .with_error_code(err.code().code()),
    }
}
