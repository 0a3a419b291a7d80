//! Produce (key 0), v3-v13: append record batches to partitions this broker leads.
//!
//! - Every partition is answered on its own; one refusal never fails its neighbours.
//! - `acks=all` is answered when the high watermark has passed the batch, `acks=1` when the leader has
//!   appended it, `acks=0` never: the connection writes nothing and reads on. A topic with
//!   `flush.messages=1` is answered when the batch is on disk, whatever `acks` says.
//! - `acks=0` has one way to say that something went wrong: Kafka closes the connection, so that the
//!   client asks for metadata anew. So do we.
//! - The client's batch is stored as it came. Only its base offset and leader epoch are rewritten,
//!   and neither is under the CRC.
//!
//! Appending and waiting are two stages: the connection appends the next request while this one waits.
//!
//! Versions: v5 log start offset, v8 record errors and error message, v10 current leader, v12
//! transactions add their partitions by producing, v13 topic ids instead of names (KIP-516).

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use kafka_protocol::messages::{
    ProduceRequest, ProduceResponse, TopicName,
    produce_request::PartitionProduceData,
    produce_response::{
        BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse,
    },
};
use protocol::error::ErrorCode;
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
        _ => return Produced::Done(Outcome::Answer(refuse_acks(req, ctx.version))),
    };
    // Append everywhere first and wait afterwards: the waits then overlap, and the slowest
    // partition sets the latency instead of the sum.
    let topics: Vec<Topic> = req
        .topic_data
        .into_iter()
        .filter(|topic| !topic.partition_data.is_empty())
        .map(|topic| {
            let partitions = find(broker, ctx, &topic.name, topic.topic_id);
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
        let partition = match topic {
            Ok(topic) => topic.get(data.index).map_err(Error::from),
            Err(error) => Err(error()),
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
        response.with_error_message(err.message().map(Into::into))
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

fn refuse_acks(req: ProduceRequest, version: i16) -> ProduceResponse {
    let (acks, deadline) = (Acks::Leader, Instant::now());
    let topics = req.topic_data.into_iter().map(|topic| Topic {
        name: topic.name,
        id: topic.topic_id,
        writes: topic
            .partition_data
            .into_iter()
            .map(|data| Write {
                index: data.index,
                partition: None,
                size: 0,
                outcome: Err(Error::InvalidRequiredAcks(req.acks)),
            })
            .collect(),
    });
    Waiting {
        topics: topics.collect(),
        acks,
        deadline,
        version,
    }
    .response()
}
