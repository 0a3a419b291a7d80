//! WriteTxnMarkers (key 27), v1-v2: end transactions in partitions that this broker leads.
//!
//! Coordinators send it, and administrators who end a transaction that hangs (`kafka-transactions.sh abort`). Every
//! partition is answered on its own, a producer that is named twice once.
//!
//! Versions: v2 the version of the transaction: with 2 the marker's epoch has to be a later one (KIP-890).

use std::{sync::Arc, time::Instant};

use kafka_protocol::messages::{
    ProducerId, TopicName, WriteTxnMarkersResponse,
    write_txn_markers_response::{
        WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
    },
};
use protocol::{error::ErrorCode, messages::WriteTxnMarkersRequest};
use replication::partition::{Appended, Marker, Partition};

use super::error::Error;
use crate::{broker::Broker, coordinator::transaction::markers, server::Context};

/// One partition's share of the request, from append to answer.
struct Write {
    producer_id: ProducerId,
    topic: TopicName,
    index: i32,
    outcome: Result<(Arc<Partition>, Appended), Error>,
}

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let mut writes = Vec::new();
    for marker in &req.markers {
        let written = Marker {
            producer_id: marker.producer_id,
            producer_epoch: marker.producer_epoch,
            commit: marker.transaction_result,
            coordinator_epoch: marker.coordinator_epoch,
            transaction_version: marker.transaction_version.into(),
        };
        for topic in &marker.topics {
            for &index in &topic.partition_indexes {
                // A real broker trips over what is no epoch.
                let outcome = match written {
                    Marker {
                        producer_id: 0..,
                        producer_epoch: 0..,
                        ..
                    } => markers::append(broker, &topic.name, index, &written),
                    _ => Err(Error::Nonsense("a marker without an epoch")),
                };
                writes.push(Write {
                    producer_id: ProducerId(marker.producer_id),
                    topic: TopicName(topic.name.clone()),
                    index,
                    outcome,
                });
            }
        }
    }
    let deadline = ctx.received_at + broker.config().groups.offsets_commit_timeout;
    let mut results = Vec::new();
    for write in writes {
        let code = write.code(deadline).await;
        put(&mut results, &write, code);
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}

impl Write {
    async fn code(&self, deadline: Instant) -> i16 {
        match &self.outcome {
            Ok((partition, appended)) => {
                match partition.committed(appended, true, deadline).await {
                    Ok(()) => 0,
                    Err(err) => Error::from(err).code().code(),
                }
            }
            Err(Error::NotCoordinator) => ErrorCode::NotLeaderOrFollower.code(),
            Err(err) => err.code().code(),
        }
    }
}

fn put(results: &mut Vec<WritableTxnMarkerResult>, write: &Write, code: i16) {
    let place = results
        .iter()
        .position(|result| result.producer_id == write.producer_id);
    let place = place.unwrap_or_else(|| {
        results.push(WritableTxnMarkerResult::default().with_producer_id(write.producer_id));
        results.len() - 1
    });
    let topics = &mut results[place].topics;
    let place = topics.iter().position(|topic| topic.name == write.topic);
    let place = place.unwrap_or_else(|| {
        topics.push(WritableTxnMarkerTopicResult::default().with_name(write.topic.clone()));
        topics.len() - 1
    });
    let partitions = &mut topics[place].partitions;
    let known = partitions
        .iter_mut()
        .find(|result| result.partition_index == write.index);
    match known {
        Some(known) => known.error_code = code,
        None => partitions.push(
            WritableTxnMarkerPartitionResult::default()
                .with_partition_index(write.index)
                .with_error_code(code),
        ),
    }
}
