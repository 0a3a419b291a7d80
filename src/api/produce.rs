//! Produce (key 0), v3-v13: append record batches to partitions this broker leads.
//!
//! - Every partition is answered on its own; one refusal never fails its neighbours.
//! - `acks=all` is answered when the high watermark has passed the batch, `acks=1` when the leader has
//!   appended it, `acks=0` never: the connection writes nothing and reads on. A topic with
//!   `flush.messages=1` is answered when the batch is on disk, whatever `acks` says.
//! - `acks=0` has one way to say that something went wrong: Kafka closes the connection, so that the
//!   client asks for metadata anew. So do we.
//! - A partition that is named twice gets one batch, the last one, and is answered once.
//! - A batch of a transaction is written if the partition is part of it; its coordinator is asked where the
//!   transaction has not begun in the partition yet. Until it has answered, no later request is served.
//! - The client's batch is stored as it came. Only its base offset and leader epoch are rewritten,
//!   and neither is under the CRC.
//!
//! Appending and waiting are two stages: the connection appends the next request while this one waits.
//!
//! Versions: v5 log start offset, v8 record errors and error message, v10 current leader, v12
//! transactions add their partitions by producing, v13 topic ids instead of names (KIP-516).

use std::{
    collections::{BTreeMap, HashSet},
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
use storage::producers::{Origin, Standing};
use tracing::error;
use uuid::Uuid;

use super::{error::Error, merge::merged};
use crate::{
    broker::Broker,
    coordinator::{
        Producer,
        transaction::{
            state::Partitions,
            verification::{self, Client},
        },
    },
    metrics::Counts,
    server::Context,
    topic_name,
};

/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;

/// First version that can tell who leads instead.
const CURRENT_LEADER: i16 = 10;

/// First version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE: i16 = 11;

/// First version that makes a partition part of a transaction by writing to it (KIP-890).
const ADDING: i16 = 12;

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

/// How far a Produce has come.
pub(crate) enum Produced {
    /// Nothing to wait for.
    Done(Outcome),
    /// A transaction's coordinator is to be asked before anything is appended.
    Verifying(Verifying),
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

/// What is to be appended, and how.
struct Request {
    topics: Vec<Asked>,
    acks: Acks,
    deadline: Instant,
    version: i16,
    now: i64,
}

struct Asked {
    name: TopicName,
    id: Uuid,
    found: Result<Arc<TopicPartitions>, fn() -> Error>,
    partitions: Vec<Batch>,
}

/// One partition's share of the request, before it is appended.
struct Batch {
    data: PartitionProduceData,
    /// In which capacity the client writes, or why it may not.
    origin: Result<Origin, Error>,
}

/// Before the first stage: what a transaction's coordinator is to be asked.
pub(crate) struct Verifying {
    request: Request,
    client: Client,
    transactional_id: String,
    producer: Producer,
    partitions: Partitions,
}

/// The first stage: everything that must happen in the order of the requests.
pub(crate) fn start(broker: &Broker, ctx: &Context, req: ProduceRequest) -> Produced {
    let acks = match req.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        -1 => Acks::All,
        other => Acks::Other(other),
    };
    let topic_data = once_each(req.topic_data);
    // Kafka asks this of the request before it looks at any partition.
    let forbidden = req.transactional_id.is_none() && topic_data.iter().any(is_transactional);
    let topics = topic_data.into_iter().map(|topic| Asked {
        found: match forbidden {
            true => Err((|| Error::NoTransactionalId) as fn() -> Error),
            false => find(broker, ctx, &topic.name, topic.topic_id),
        },
        partitions: topic
            .partition_data
            .into_iter()
            .map(|data| Batch {
                data,
                origin: Ok(Origin::Client),
            })
            .collect(),
        id: topic.topic_id,
        name: topic.name,
    });
    let timeout = Duration::from_millis(u64::try_from(req.timeout_ms).unwrap_or(0));
    let mut request = Request {
        topics: topics.collect(),
        acks,
        deadline: ctx.received_at + timeout,
        version: ctx.version,
        now: ctx.now,
    };
    if let Some(transactional_id) = req.transactional_id.filter(|_| !forbidden)
        && let Some((producer, partitions)) = request.in_transaction(broker)
    {
        return Produced::Verifying(Verifying {
            client: request.client(),
            request,
            transactional_id: transactional_id.to_string(),
            producer,
            partitions,
        });
    }
    request.append(broker)
}

impl Request {
    fn client(&self) -> Client {
        Client::of(self.version, ABORTABLE, ADDING)
    }

    /// Looks which batches are of a transaction, and notes in which capacity they are written. Returns of which
    /// partitions the transaction's coordinator has to say that they are part of it.
    fn in_transaction(&mut self, broker: &Broker) -> Option<(Producer, Partitions)> {
        let (client, now) = (self.client(), self.now);
        let bumps = client.bumps();
        let must_be_verified = bumps || broker.config().transactions.partition_verification_enable;
        let mut producers = HashSet::new();
        let mut unverified: Partitions = BTreeMap::new();
        for topic in &mut self.topics {
            for batch in &mut topic.partitions {
                // Without a producer there is no transaction either, whatever the batch says.
                let header = header(&batch.data)
                    .filter(|header| header.is_transactional() && header.has_producer());
                let (Some(header), Ok(found)) = (header, &topic.found) else {
                    continue;
                };
                let producer = Producer {
                    id: header.producer_id,
                    epoch: header.producer_epoch,
                };
                producers.insert(producer);
                let Ok(partition) = found.get(batch.data.index) else {
                    continue;
                };
                if !must_be_verified {
                    continue;
                }
                batch.origin = partition
                    .standing(producer.id, producer.epoch, bumps, now)
                    .map(|standing| Origin::Transaction { standing, bumps })
                    .map_err(Error::Partition);
                if let Ok(Origin::Transaction {
                    standing: Standing::Verified { .. },
                    ..
                }) = batch.origin
                {
                    let name = Arc::clone(&partition.name().topic);
                    unverified.entry(name).or_default().insert(batch.data.index);
                }
            }
        }
        if 1 < producers.len() {
            for batch in self
                .topics
                .iter_mut()
                .flat_map(|topic| &mut topic.partitions)
            {
                batch.origin = Err(Error::UnknownTransactionalProducer);
            }
            return None;
        }
        let producer = producers.into_iter().next()?;
        (!unverified.is_empty()).then_some((producer, unverified))
    }

    /// The same once more for the partitions that the coordinator is asked about.
    fn look_again(&mut self, producer: Producer) {
        let (bumps, now) = (self.client().bumps(), self.now);
        for topic in &mut self.topics {
            let Ok(found) = &topic.found else { continue };
            for batch in &mut topic.partitions {
                let Ok(Origin::Transaction {
                    standing: standing @ Standing::Verified { .. },
                    ..
                }) = &mut batch.origin
                else {
                    continue;
                };
                let partition = found.get(batch.data.index).map_err(Error::from);
                let looked = partition.and_then(|partition| {
                    Ok(partition.standing(producer.id, producer.epoch, bumps, now)?)
                });
                match looked {
                    Ok(looked) => *standing = looked,
                    Err(err) => batch.origin = Err(err),
                }
            }
        }
    }

    /// Appends everywhere first and waits afterwards: the waits then overlap, and the slowest
    /// partition sets the latency instead of the sum.
    fn append(self, broker: &Broker) -> Produced {
        let (acks, now) = (self.acks, self.now);
        let topics = self.topics.into_iter().map(|topic| {
            let writes = topic.partitions.into_iter();
            let writes: Vec<Write> = writes
                .map(|batch| Write::append(&topic.found, batch, acks, now))
                .collect();
            if let Ok(partitions) = &topic.found {
                let metrics = broker.metrics();
                metrics.count(partitions.name(), |counts| count(counts, &writes));
            }
            Topic {
                writes,
                id: topic.id,
                name: topic.name,
            }
        });
        let topics: Vec<Topic> = topics.collect();

        if acks == Acks::None {
            return Produced::Done(silence(&topics));
        }
        let waiting = Waiting {
            topics,
            acks,
            deadline: self.deadline,
            version: self.version,
        };
        if waiting.writes().all(|write| write.is_committed(acks)) {
            return Produced::Done(Outcome::Answer(waiting.response()));
        }
        Produced::Waiting(waiting)
    }
}

impl Verifying {
    /// Asks, appends, waits and answers.
    pub(crate) async fn answer(mut self, broker: &Broker) -> Outcome {
        let (client, producer) = (self.client, self.producer);
        let asked = self.partitions.clone();
        let request = &mut self.request;
        let look = || request.look_again(producer);
        let id = &self.transactional_id;
        let verified = verification::verify(broker, client, id, producer, asked, look).await;
        let (refused, code) = match verified {
            Ok(refused) => refused,
            Err(code) => (self.partitions, code),
        };
        for topic in &mut self.request.topics {
            let Some(indexes) = topic
                .found
                .as_ref()
                .ok()
                .and_then(|found| refused.get(found.name()))
            else {
                continue;
            };
            for batch in &mut topic.partitions {
                if indexes.contains(&batch.data.index) {
                    batch.origin = Err(unverified(code));
                }
            }
        }
        match self.request.append(broker) {
            Produced::Waiting(waiting) => Outcome::Answer(waiting.answer().await),
            Produced::Done(outcome) => outcome,
            Produced::Verifying(_) => unreachable!("what has been asked is not asked again"),
        }
    }
}

/// What a producer is told when its transaction's coordinator has answered with this code.
fn unverified(code: ErrorCode) -> Error {
    let name = match code {
        ErrorCode::InvalidTxnState => {
            let message = "Partition was not added to the transaction";
            return Error::Transaction(code, Some(message.to_owned()));
        }
        ErrorCode::ConcurrentTransactions => "CONCURRENT_TRANSACTIONS",
        ErrorCode::CoordinatorLoadInProgress => "COORDINATOR_LOAD_IN_PROGRESS",
        ErrorCode::CoordinatorNotAvailable => "COORDINATOR_NOT_AVAILABLE",
        ErrorCode::NotCoordinator => "NOT_COORDINATOR",
        code => return Error::Transaction(code, None),
    };
    // Producers do not expect these here. This one has them try again without looking for another leader first.
    let message = format!(
        "Unable to verify the partition has been added to the transaction. Underlying error: {name}"
    );
    Error::Transaction(ErrorCode::NotEnoughReplicas, Some(message))
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
        let key = |topic: &TopicProduceData| (topic.name.clone(), topic.topic_id);
        topics = merged(topics, key, |first, later| {
            first.partition_data.extend(later.partition_data);
        });
    }
    for topic in &mut topics {
        let data = &mut topic.partition_data;
        // As producers send it.
        if !data.is_sorted_by(|one, next| one.index < next.index) {
            let all = std::mem::take(data);
            *data = merged(all, |data| data.index, |first, later| *first = later);
        }
    }
    topics
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
        batch: Batch,
        acks: Acks,
        now: i64,
    ) -> Self {
        let Batch { data, origin } = batch;
        let partition = match (topic, acks) {
            (Err(error), _) => Err(error()),
            (Ok(topic), Acks::Other(acks)) => topic
                .get(data.index)
                .map_err(Error::from)
                .and(Err(Error::InvalidRequiredAcks(acks))),
            (Ok(topic), _) => topic.get(data.index).map_err(Error::from),
        };
        match partition.and_then(|partition| Ok((partition, origin?))) {
            Err(error) => Self {
                index: data.index,
                partition: None,
                size: 0,
                outcome: Err(error),
            },
            Ok((partition, origin)) => {
                let records = data.records.unwrap_or_default();
                let size = records.len();
                let appended = partition.append(records, origin, acks == Acks::All, now);
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
