//! Telling every partition of a transaction how it has ended.
//!
//! - All partitions are written to first and waited for afterwards, so that the slowest one sets the time and not the
//!   sum of all.
//! - What cannot be written now is tried again until it can be, or until its topic is gone, or until another broker
//!   coordinates the transaction. Meanwhile its producer is asked to wait. A marker that is written twice is the same
//!   to readers as one.
//! - A partition that another broker leads is tried again too: nothing is sent to other brokers.

use std::{sync::Arc, time::Duration};

use protocol::error::ErrorCode;
use replication::partition::{Appended, Error as PartitionError, Marker, Partition};
use tokio::time::Instant;
use tracing::{error, warn};

use super::{
    TransactionCoordinator, WriteMarkers,
    request::{Request, Response},
};
use crate::{
    api::error::Error, broker::Broker, clock, coordinator::runtime::Job, topic_name, turns::Turns,
};

/// How long to wait before what failed is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How often it is said that markers cannot be written.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Tells the partitions, and then the coordinator that they have been told. Ends when the broker stops.
pub(crate) async fn write(broker: Arc<Broker>, job: Job<TransactionCoordinator>) {
    tokio::select! {
        () = tell_all(&broker, &job) => (),
        () = broker.stopping() => (),
    }
}

async fn tell_all(broker: &Broker, job: &Job<TransactionCoordinator>) {
    let timeout = broker.config().groups.offsets_commit_timeout;
    while !job.committed(timeout).await {
        if !still_coordinates(broker, job) {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
    if tell_partitions(broker, job).await {
        tell_coordinator(broker, job).await;
    }
    broker.transactions().notify();
}

/// `false` if it is another's to tell them.
async fn tell_partitions(broker: &Broker, job: &Job<TransactionCoordinator>) -> bool {
    let WriteMarkers {
        producer,
        commit,
        partitions,
        transaction_version,
        transactional_id,
    } = &job.task;
    let marker = Marker {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        commit: *commit,
        coordinator_epoch: job.leader_epoch,
        transaction_version: *transaction_version,
    };
    let targets = partitions
        .iter()
        .flat_map(|(topic, indexes)| indexes.iter().map(move |index| (Arc::clone(topic), *index)));
    let mut left: Vec<(Arc<str>, i32)> = targets.collect();
    let mut complain_at = Instant::now();
    let mut turns = Turns::default();
    loop {
        let mut written = Vec::with_capacity(left.len());
        let mut failed = Vec::new();
        for (topic, index) in left {
            match append(broker, &topic, index, &marker) {
                Ok((partition, appended)) => written.push((topic, index, partition, appended)),
                Err(err) => match fate(broker, &topic, index, &err) {
                    Fate::Done => (),
                    Fate::NotOurs => return false,
                    Fate::Later => failed.push((topic, index, err)),
                },
            }
            turns.step().await;
        }
        let deadline = std::time::Instant::now() + broker.config().groups.offsets_commit_timeout;
        for (topic, index, partition, appended) in written {
            if let Err(err) = partition.committed(&appended, true, deadline).await {
                failed.push((topic, index, err.into()));
            }
        }
        let Some((topic, index, err)) = failed.first() else {
            return true;
        };
        if !still_coordinates(broker, job) {
            return false;
        }
        if complain_at <= Instant::now() {
            warn!(
                %transactional_id,
                partition = %format_args!("{topic}-{index}"),
                %err,
                "a transaction is over, but not all of its partitions can be told: trying again"
            );
            complain_at = Instant::now() + COMPLAINT_INTERVAL;
        }
        tokio::time::sleep(RETRY).await;
        left = failed
            .into_iter()
            .map(|(topic, index, _)| (topic, index))
            .collect();
    }
}

async fn tell_coordinator(broker: &Broker, job: &Job<TransactionCoordinator>) {
    let index = job.partition.name().index;
    let mut new_id = None;
    loop {
        let request = Request::MarkersWritten {
            transactional_id: Arc::clone(&job.task.transactional_id),
            producer: job.task.producer,
            new_id,
        };
        match broker
            .transactions()
            .runtime()
            .ask_partition(index, request)
            .await
        {
            Ok(Response::Done) => return,
            Ok(Response::NeedsId) if new_id.is_none() => match broker.next_producer_id().await {
                Ok(id) => new_id = Some(id),
                Err(_) if !still_coordinates(broker, job) => return,
                Err(_) => tokio::time::sleep(RETRY).await,
            },
            Ok(other) => {
                error!(?other, "the transaction coordinator answers something else");
                return;
            }
            // Another broker is told of it when it has read that the markers are to be written.
            Err(ErrorCode::NotCoordinator | ErrorCode::InvalidTxnState) => return,
            Err(_) if !still_coordinates(broker, job) => return,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Writes one marker, as the leader of the partition.
pub(crate) fn append(
    broker: &Broker,
    topic: &str,
    index: i32,
    marker: &Marker,
) -> Result<(Arc<Partition>, Appended), Error> {
    // What groups have committed in the transaction is to count, or not, together with its records.
    if topic == topic_name::OFFSETS {
        return broker.groups().end_transaction(index, marker);
    }
    let partition = broker.partition(topic, index)?;
    let appended = partition.append_marker(marker, clock::now())?;
    Ok((partition, appended))
}

/// What a failure means for a marker.
enum Fate {
    /// There is nothing to tell, or nobody.
    Done,
    Later,
    /// A later coordinator has been here.
    NotOurs,
}

fn fate(broker: &Broker, topic: &str, index: i32, err: &Error) -> Fate {
    use storage::error::Error as S;
    match err {
        Error::Partition(PartitionError::Storage(S::CoordinatorFenced { .. })) => Fate::NotOurs,
        // Somebody else has ended the transaction here, and the next one too: an administrator may.
        Error::Partition(PartitionError::Storage(S::InvalidProducerEpoch { .. })) => Fate::Done,
        _ if broker.image().partition(topic, index).is_none() => Fate::Done,
        _ => Fate::Later,
    }
}

fn still_coordinates(broker: &Broker, job: &Job<TransactionCoordinator>) -> bool {
    let leadership = job.partition.leadership();
    leadership.leader == broker.node_id() && leadership.leader_epoch == job.leader_epoch
}
