//! Produce (key 0), v3-v13: append record batches to partitions this broker leads.
//!
//! - Every partition is answered on its own; one refusal never fails its neighbours.
//! - `acks=all` is answered when the high watermark has passed the batch, `acks=1` when the leader has
//!   appended it, `acks=0` never: the connection writes nothing and reads on. A topic with
//!   `flush.messages=1` is answered when the batch is on disk, whatever `acks` says.
//! - `acks=0` has one way to say that something went wrong: Kafka closes the connection, so that the
//!   client asks for metadata anew. So do we.
//! - A partition that is named twice gets one batch, the last one, and is answered once.
//! - A batch of a transaction is refused: no transaction is begun here, and what nobody ends would hold
//!   back its readers for good.
//! - The client's batch is stored as it came. Only its base offset and leader epoch are rewritten,
//!   and neither is under the CRC.
//!
//! Appending and waiting are two stages: the connection appends the next request while this one waits.
//!
//! Versions: v5 log start offset, v8 record errors and error message, v10 current leader, v12
//! transactions add their partitions by producing, v13 topic ids instead of names (KIP-516).

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use kafka_protocol::messages::{
    ProduceRequest, ProduceResponse, TopicName,
    produce_request::{PartitionProduceData, TopicProduceData},
    produce_response::{
        BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse,
    },
};
use protocol::{batch::Header, error::ErrorCode};
use replication::{
    partition::{Appended, Error as PartitionError, Partition},
    partitions::TopicPartitions,
};
use tracing::error;
use uuid::Uuid;

use super::error::Error;
use crate::{broker::Broker, metrics::Counts, server::Context, topic_name};

/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;

/// First version that can tell who leads instead.
const CURRENT_LEADER: i16 = 10;

/// The client id that Kafka's administration tools use.
const ADMIN_CLIENT: &str = "__admin_client";

/// `acks`: how much must have happened before the client is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acks {
    None,
    Leader,
    All,
    /// No such thing; every partition is refused.
    Other(i16),
}

/// A Produce whose appends are done.
pub(crate) enum Produced {
    /// Nothing to wait for.
    Done(Outcome),
    /// Some appends still wait for replicas or for the disk.
    Waiting(Waiting),
}

/// How a Produce ends on the connection.
pub(crate) enum Outcome {
    Answer(ProduceResponse),
    /// `acks=0`, and all went well.
    Silence,
    /// `acks=0`, and something did not.
    Close(String),
}

/// The second stage: what the answer waits for.
pub(crate) struct Waiting {
    topics: Vec<Topic>,
    acks: Acks,
    deadline: Instant,
    version: i16,
}

struct Topic {
    name: TopicName,
    id: Uuid,
    writes: Vec<Write>,
}

/// One partition's share of the request, from append to answer.
struct Write {
    index: i32,
    partition: Option<Arc<Partition>>,
    /// Bytes of the client's batch.
    size: usize,
    outcome: Result<Appended, Error>,
}

/// The first stage: everything that must happen in the order of the requests.
pub(crate) fn append(broker: &Broker, ctx: &Context, req: ProduceRequest) -> Produced {
    let acks = match req.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        -1 => Acks::All,
        other => Acks::Other(other),
    };
    let topic_data = once_each(req.topic_data);
    // Kafka asks this of the request before it looks at any partition.
    let forbidden = req.transactional_id.is_none() && topic_data.iter().any(is_transactional);
    // Append everywhere first and wait afterwards: the waits then overlap, and the slowest
    // partition sets the latency instead of the sum.
    let topics: Vec<Topic> = topic_data
        .into_iter()
        .map(|topic| {
            let partitions = match forbidden {
                true => Err((|| Error::NoTransactionalId) as fn() -> Error),
                false => find(broker, ctx, &topic.name, topic.topic_id),
            };
            let writes = topic.partition_data.into_iter();
            let writes: Vec<Write> = writes
                .map(|data| Write::append(&partitions, ctx, acks, data))
                .collect();
            if let Ok(partitions) = &partitions {
                let metrics = broker.metrics();
                metrics.count(partitions.name(), |counts| count(counts, &writes));
            }
            Topic {
                writes,
                id: topic.topic_id,
                name: topic.name,
            }
        })
        .collect();

    if acks == Acks::None {
        return Produced::Done(silence(&topics));
    }
    let timeout = Duration::from_millis(u64::try_from(req.timeout_ms).unwrap_or(0));
    let waiting = Waiting {
        topics,
        acks,
        deadline: ctx.received_at + timeout,
        version: ctx.version,
    };
    if waiting.writes().all(|write| write.is_committed(acks)) {
        return Produced::Done(Outcome::Answer(waiting.response()));
    }
    Produced::Waiting(waiting)
}

impl Waiting {
    /// Waits for every append and answers.
    pub(crate) async fn answer(mut self) -> ProduceResponse {
        for write in self.topics.iter_mut().flat_map(|topic| &mut topic.writes) {
            write.committed(self.acks, self.deadline).await;
        }
        self.response()
    }

    fn writes(&self) -> impl Iterator<Item = &Write> {
        self.topics.iter().flat_map(|topic| &topic.writes)
    }

    fn response(self) -> ProduceResponse {
        let topics = self.topics.into_iter().map(|topic| {
            TopicProduceResponse::default()
                .with_name(topic.name)
                .with_topic_id(topic.id)
                .with_partition_responses(
                    topic
                        .writes
                        .iter()
                        .map(|write| write.response(self.version))
                        .collect(),
                )
        });
        ProduceResponse::default().with_responses(topics.collect())
    }
}

/// Every topic once, with every partition once, at the place where it first came. Of a partition's
/// batches the last counts.
fn once_each(mut topics: Vec<TopicProduceData>) -> Vec<TopicProduceData> {
    topics.retain(|topic| !topic.partition_data.is_empty());
    if 1 < topics.len() {
        topics = merged(topics);
    }
    for topic in &mut topics {
        let data = &mut topic.partition_data;
        // As producers send it.
        if !data.is_sorted_by(|one, next| one.index < next.index) {
            *data = last_of_each(std::mem::take(data));
        }
    }
    topics
}

fn merged(topics: Vec<TopicProduceData>) -> Vec<TopicProduceData> {
    let mut merged: Vec<TopicProduceData> = Vec::with_capacity(topics.len());
    let mut places = HashMap::with_capacity(topics.len());
    for topic in topics {
        match places.entry((topic.name.clone(), topic.topic_id)) {
            Entry::Occupied(place) => {
                let place: usize = *place.get();
                merged[place].partition_data.extend(topic.partition_data);
            }
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push(topic);
            }
        }
    }
    merged
}

fn last_of_each(partitions: Vec<PartitionProduceData>) -> Vec<PartitionProduceData> {
    let mut last: Vec<PartitionProduceData> = Vec::with_capacity(partitions.len());
    let mut places = HashMap::with_capacity(partitions.len());
    for data in partitions {
        match places.entry(data.index) {
            Entry::Occupied(place) => {
                let place: usize = *place.get();
                last[place] = data;
            }
            Entry::Vacant(place) => {
                place.insert(last.len());
                last.push(data);
            }
        }
    }
    last
}

fn is_transactional(topic: &TopicProduceData) -> bool {
    let mut records = topic.partition_data.iter().filter_map(header);
    records.any(|header| header.is_transactional())
}

/// Of the batch, if it is one.
fn header(data: &PartitionProduceData) -> Option<Header> {
    Header::parse(data.records.as_deref()?).ok()
}

fn find(
    broker: &Broker,
    ctx: &Context,
    name: &TopicName,
    id: Uuid,
) -> Result<Arc<TopicPartitions>, fn() -> Error> {
    let topic = if TOPIC_IDS <= ctx.version {
        broker
            .partitions()
            .topic_by_id(id)
            .ok_or((|| Error::UnknownTopicId) as fn() -> Error)
    } else {
        broker
            .partitions()
            .topic(name)
            .ok_or((|| Error::UnknownTopicOrPartition) as fn() -> Error)
    }?;
    // Only Kafka's own tools, which call themselves so, may write to the brokers' topics.
    if topic_name::is_internal(topic.name()) && ctx.client_id.as_deref() != Some(ADMIN_CLIENT) {
        return Err(|| Error::InternalTopic);
    }
    Ok(topic)
}

impl Write {
    fn append(
        topic: &Result<Arc<TopicPartitions>, fn() -> Error>,
        ctx: &Context,
        acks: Acks,
        data: PartitionProduceData,
    ) -> Self {
        let partition = match (topic, acks) {
            (Err(error), _) => Err(error()),
            (Ok(topic), Acks::Other(acks)) => topic
                .get(data.index)
                .map_err(Error::from)
                .and(Err(Error::InvalidRequiredAcks(acks))),
            (Ok(topic), _) => topic.get(data.index).map_err(Error::from),
        };
        // Without a producer there is no transaction either, whatever the batch says.
        let in_transaction = |header: Header| header.is_transactional() && header.has_producer();
        let partition = match partition {
            Ok(_) if header(&data).is_some_and(in_transaction) => {
                Err(Error::UnknownTransactionalProducer)
            }
            partition => partition,
        };
        match partition {
            Err(error) => Self {
                index: data.index,
                partition: None,
                size: 0,
                outcome: Err(error),
            },
            Ok(partition) => {
                let records = data.records.unwrap_or_default();
                let size = records.len();
                let appended = partition.append(records, acks == Acks::All, ctx.now);
                Self {
                    index: data.index,
                    outcome: appended.map_err(Error::Partition),
                    size,
                    partition: Some(partition),
                }
            }
        }
    }

    fn is_committed(&self, acks: Acks) -> bool {
        match (&self.partition, &self.outcome) {
            (Some(partition), Ok(appended)) => partition.is_committed(appended, acks == Acks::All),
            _ => true,
        }
    }

    async fn committed(&mut self, acks: Acks, deadline: Instant) {
        if let (Some(partition), Ok(appended)) = (&self.partition, &self.outcome)
            && let Err(err) = partition
                .committed(appended, acks == Acks::All, deadline)
                .await
        {
            self.outcome = Err(Error::Partition(err));
        }
    }

    fn response(&self, version: i16) -> PartitionProduceResponse {
        let response = PartitionProduceResponse::default().with_index(self.index);
        match &self.outcome {
            Ok(appended) => response
                .with_base_offset(appended.base_offset)
                .with_log_append_time_ms(appended.log_append_time.unwrap_or(-1))
                .with_log_start_offset(appended.log_start_offset),
            Err(err) => self.refusal(response, err, version),
        }
    }

    fn refusal(
        &self,
        response: PartitionProduceResponse,
        err: &Error,
        version: i16,
    ) -> PartitionProduceResponse {
        let mut response = response
            .with_error_code(err.code().code())
            .with_base_offset(-1);
        if let Some(partition) = &self.partition {
            if err.is_ours() {
                error!(partition = %partition.name(), %err, "a produce failed");
            }
            if err.is_from_within_the_log() {
                // A real broker tells the start of the log only if it came as far as the log.
                response = response.with_log_start_offset(partition.log().start_offset());
            }
            if let Error::Partition(PartitionError::NotLeader { leader, epoch }) = err
                && CURRENT_LEADER <= version
            {
                let current = LeaderIdAndEpoch::default();
                response = response.with_current_leader(
                    current
                        .with_leader_id((*leader).into())
                        .with_leader_epoch(*epoch),
                );
            }
            let records = err.records(&partition.name().to_string());
            response = response.with_record_errors(
                records
                    .into_iter()
                    .map(|(index, message)| {
                        BatchIndexAndErrorMessage::default()
                            .with_batch_index(index)
                            .with_batch_index_error_message(Some(message.into()))
                    })
                    .collect(),
            );
        }
        let message = match &self.partition {
            Some(partition) => err.message_in(&partition.name().to_string()),
            None => err.message(),
        };
        response.with_error_message(message.map(Into::into))
    }
}

/// What the metrics of a topic are to know of the appends to its partitions.
fn count(counts: &Counts, writes: &[Write]) {
    for write in writes {
        counts.produce_requests.fetch_add(1, Relaxed);
        match &write.outcome {
            Ok(appended) => {
                let records = appended.end_offset - appended.base_offset;
                counts.appended(records.unsigned_abs(), write.size);
            }
            Err(err) => {
                counts.produce_failures.fetch_add(1, Relaxed);
                if err.code() == ErrorCode::MessageTooLarge {
                    counts.bytes_rejected.fetch_add(write.size as u64, Relaxed);
                }
            }
        }
    }
}

fn silence(topics: &[Topic]) -> Outcome {
    for topic in topics {
        for write in &topic.writes {
            if let Err(err) = &write.outcome {
                let (topic, index) = (&*topic.name, write.index);
                return Outcome::Close(format!(
                    "produce with acks=0 to {topic}-{index} failed: {err}"
                ));
            }
        }
    }
    Outcome::Silence
}
