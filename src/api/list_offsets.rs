//! ListOffsets (key 2), v1-v11: where a partition begins and ends, and where a time begins.
//!
//! | timestamp | answered with | since |
//! |---|---|---|
//! | -1 | end: the high watermark, or the last stable offset for `read_committed` | v1 |
//! | -2 | start of the log | v1 |
//! | -3 | the record with the largest timestamp | v7 (KIP-734) |
//! | -4 | start of what is on local disk | v8 (KIP-405) |
//! | -5 | end of what is in remote storage | v9 (KIP-1005) |
//! | -6 | start of what is not in remote storage yet | v11 (KIP-1023) |
//! | 0 and up | the first batch that reaches this time, its first record that does | v1 |
//!
//! Where no record has a timestamp, the first is the one with the largest.
//!
//! A time nobody has reached is no error: offset -1, timestamp -1. The same partition twice in one
//! request is one: INVALID_REQUEST for it. Remote storage holds nothing here, so -5 and -6 find nothing.

use std::{collections::HashSet, sync::Arc};

use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse,
    list_offsets_request::ListOffsetsPartition,
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
};
use replication::partition::Partition;
use storage::log::TimestampOffset;

use super::{error::Error, producer_state};
use crate::{broker::Broker, server::Context};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

const READ_COMMITTED: i8 = 1;

/// First version that tells the leader epoch of what was found.
const LEADER_EPOCHS: i16 = 4;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let committed_only = req.isolation_level == READ_COMMITTED;
    let mut seen = HashSet::new();
    let mut topics = Vec::with_capacity(req.topics.len());
    for topic in req.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let found = if seen.insert((topic.name.clone(), wanted.partition_index)) {
                match broker.partition(&topic.name, wanted.partition_index) {
                    Ok(partition) => find(&partition, ctx, &wanted, committed_only).await,
                    Err(missing) => Err(missing.into()),
                }
            } else {
                Err(Error::DuplicatePartition)
            };
            partitions.push(respond(ctx.version, wanted.partition_index, found));
        }
        if !partitions.is_empty() {
            topics.push(
                ListOffsetsTopicResponse::default()
                    .with_name(topic.name)
                    .with_partitions(partitions),
            );
        }
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// First version that knows the special timestamp; later ones do not exist.
fn known_since(timestamp: i64) -> i16 {
    match timestamp {
        0.. | LATEST | EARLIEST => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => i16::MAX,
    }
}

async fn find(
    partition: &Arc<Partition>,
    ctx: &Context,
    wanted: &ListOffsetsPartition,
    committed_only: bool,
) -> Result<Option<TimestampOffset>, Error> {
    if ctx.version < known_since(wanted.timestamp) {
        return Err(Error::UnsupportedTimestamp);
    }
    let epoch = partition
        .check_epoch(wanted.current_leader_epoch)
        .map_err(Error::Partition)?;
    let log = partition.log();
    let end = match committed_only {
        true => {
            producer_state::load(std::iter::once(partition), ctx.now).await;
            log.last_stable_offset(partition.high_watermark(), ctx.now)
                .map_err(|err| Error::Partition(err.into()))?
        }
        false => partition.high_watermark(),
    };
    let position = |offset, leader_epoch| TimestampOffset {
        timestamp: -1,
        offset,
        leader_epoch,
    };
    match wanted.timestamp {
        LATEST => Ok(Some(position(end, Some(epoch)))),
        EARLIEST | EARLIEST_LOCAL => {
            let start = log.start_offset();
            Ok(Some(position(start, log.epoch_at(start).or(Some(epoch)))))
        }
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Ok(None),
        timestamp => {
            // Walks an index and a batch on disk, which may be cold.
            let partition = Arc::clone(partition);
            let found = tokio::task::spawn_blocking(move || match timestamp {
                MAX_TIMESTAMP => partition.log().offset_of_max_timestamp(),
                _ => partition.log().offset_for_timestamp(timestamp),
            });
            let found = found.await.map_err(|_| Error::ShuttingDown)?;
            let found = found.map_err(|err| Error::Partition(err.into()))?;
            let start = log.start_offset();
            let found = match found {
                None if timestamp == MAX_TIMESTAMP => {
                    Some(position(start, log.epoch_at(start).or(Some(epoch))))
                }
                found => found,
            };
            // What is not visible yet has not been found.
            Ok(found.filter(|found| found.offset < end))
        }
    }
}

fn respond(
    version: i16,
    index: i32,
    found: Result<Option<TimestampOffset>, Error>,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match found {
        Ok(Some(found)) => response
            .with_timestamp(found.timestamp)
            .with_offset(found.offset)
            .with_leader_epoch(match version {
                LEADER_EPOCHS.. => found.leader_epoch.unwrap_or(-1),
                _ => -1,
            }),
        Ok(None) => response.with_timestamp(-1).with_offset(-1),
        Err(err) => response
            .with_error_code(err.code().code())
            .with_timestamp(-1)
            .with_offset(-1),
    }
}
