//! WriteTxnMarkers (key 27), v1-v2: end transactions in partitions that this broker leads.
//!
//! Coordinators send it, and administrators who end a transaction that hangs (`kafka-transactions.sh abort`). Every
//! partition is answered on its own, a producer that is named twice once. However many they are, other connections are
//! served in between.
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
use crate::{broker::Broker, coordinator::transaction::markers, server::Context, turns::Turns};

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
    let mut turns = Turns::default();
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
            let mut outcomes = Vec::with_capacity(topic.partition_indexes.len());
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
                outcomes.push((index, outcome));
                turns.step().await;
            }
            writes.push(Write {
                producer_id: ProducerId(marker.producer_id),
                topic: TopicName(topic.name.clone()),
                outcomes,
            });
        }
    }
    let deadline = ctx.received_at + broker.config().groups.offsets_commit_timeout;
    let mut results = Vec::with_capacity(writes.len());
    for write in writes {
        results.push(write.answer(deadline, &mut turns).await);
    }
    WriteTxnMarkersResponse::default().with_markers(each_once(results))
}

impl Write {
    async fn answer(self, deadline: Instant, turns: &mut Turns) -> WritableTxnMarkerResult {
        let mut partitions = Vec::with_capacity(self.outcomes.len());
        for (index, outcome) in self.outcomes {
            partitions.push(
                WritableTxnMarkerPartitionResult::default()
                    .with_partition_index(index)
                    .with_error_code(code(outcome, deadline).await),
            );
            turns.step().await;
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

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use protocol::messages::{WritableTxnMarker, WritableTxnMarkerTopic};

    use super::*;
    use crate::{Config, clock};

    /// Everybody on the thread once waited until the last of them had been written to.
    #[tokio::test]
    async fn others_are_served_between_the_partitions_of_a_request() {
        const COUNT: i32 = 6_400;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log_dir = dir.path().display().to_string();
        let config = Config::single_node(&[
            ("log.dirs", &*log_dir),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("sordini.metrics.listener", ""),
        ]);
        let running = crate::start(config.expect("a configuration"))
            .await
            .expect("a broker");
        let turns = Arc::new(AtomicUsize::new(0));
        let others = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move {
                loop {
                    turns.fetch_add(1, Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
        let ctx = Context {
            received_at: Instant::now(),
            now: clock::now(),
            version: 1,
            client_id: None,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            listener: Arc::from("PLAINTEXT"),
            role: crate::server::Role::Broker,
        };
        let topic = WritableTxnMarkerTopic {
            name: "nope".into(),
            partition_indexes: (0..COUNT).collect(),
        };
        let marker = WritableTxnMarker {
            topics: vec![topic],
            ..WritableTxnMarker::default()
        };
        let request = WriteTxnMarkersRequest {
            markers: vec![marker],
        };
        let before = turns.load(Relaxed);
        let answer = handle(running.broker(), &ctx, request).await;
        let turns = turns.load(Relaxed) - before;
        let partitions = &answer.markers[0].topics[0].partitions;
        assert_eq!(partitions.len(), 6_400);
        assert!(100 <= turns, "{turns}");
        others.abort();
        running.stop().await;
    }
}
