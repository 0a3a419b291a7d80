//! WriteTxnMarkers (key 27), v1-v2: end transactions in partitions that this broker leads.
//!
//! Coordinators send it, and administrators who end a transaction that hangs (`kafka-transactions.sh abort`). Every
//! partition is answered on its own, a producer that is named twice once.
//!
//! Versions: v2 the version of the transaction: with 2 the marker's epoch has to be a later one (KIP-890).

use std::{mem, sync::Arc, time::Instant};

use kafka_protocol::messages::{
    ProducerId, TopicName, WriteTxnMarkersResponse,
    write_txn_markers_response::{
        WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
    },
};
use protocol::{error::ErrorCode, messages::WriteTxnMarkersRequest};
use replication::partition::{Appended, Marker, Partition};

use super::{error::Error, merge::merged};
use crate::{broker::Broker, coordinator::transaction::markers, server::Context};

/// One topic's share of the request, from append to answer.
struct Write {
    producer_id: ProducerId,
    topic: TopicName,
    outcomes: Vec<(i32, Outcome)>,
}

type Outcome = Result<(Arc<Partition>, Appended), Error>;

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
        let asked = marker.topics.iter();
        for topic in asked.filter(|topic| !topic.partition_indexes.is_empty()) {
            let outcomes = topic.partition_indexes.iter().map(|&index| {
                // A real broker trips over what is no epoch.
                let outcome = match written {
                    Marker {
                        producer_id: 0..,
                        producer_epoch: 0..,
                        ..
                    } => markers::append(broker, &topic.name, index, &written),
                    _ => Err(Error::Nonsense("a marker without an epoch")),
                };
                (index, outcome)
            });
            writes.push(Write {
                producer_id: ProducerId(marker.producer_id),
                topic: TopicName(topic.name.clone()),
                outcomes: outcomes.collect(),
            });
        }
    }
    let deadline = ctx.received_at + broker.config().groups.offsets_commit_timeout;
    let mut results = Vec::with_capacity(writes.len());
    for write in writes {
        results.push(write.answer(deadline).await);
    }
    WriteTxnMarkersResponse::default().with_markers(each_once(results))
}

impl Write {
    async fn answer(self, deadline: Instant) -> WritableTxnMarkerResult {
        let mut partitions = Vec::with_capacity(self.outcomes.len());
        for (index, outcome) in self.outcomes {
            partitions.push(
                WritableTxnMarkerPartitionResult::default()
                    .with_partition_index(index)
                    .with_error_code(code(outcome, deadline).await),
            );
        }
        let topic = WritableTxnMarkerTopicResult::default()
            .with_name(self.topic)
            .with_partitions(partitions);
        WritableTxnMarkerResult::default()
            .with_producer_id(self.producer_id)
            .with_topics(vec![topic])
    }
}

async fn code(outcome: Outcome, deadline: Instant) -> i16 {
    match outcome {
        Ok((partition, appended)) => match partition.committed(&appended, true, deadline).await {
            Ok(()) => 0,
            Err(err) => Error::from(err).code().code(),
        },
        Err(Error::NotCoordinator) => ErrorCode::NotLeaderOrFollower.code(),
        Err(err) => err.code().code(),
    }
}

/// Every producer, in it every topic, and in that every partition once, with what became of it last.
fn each_once(results: Vec<WritableTxnMarkerResult>) -> Vec<WritableTxnMarkerResult> {
    let mut producers = merged(
        results,
        |producer| producer.producer_id,
        |first, later| first.topics.extend(later.topics),
    );
    for producer in &mut producers {
        producer.topics = merged(
            mem::take(&mut producer.topics),
            |topic| topic.name.clone(),
            |first, later| first.partitions.extend(later.partitions),
        );
        for topic in &mut producer.topics {
            topic.partitions = merged(
                mem::take(&mut topic.partitions),
                |partition| partition.partition_index,
                |first, later| first.error_code = later.error_code,
            );
        }
    }
    producers
}
