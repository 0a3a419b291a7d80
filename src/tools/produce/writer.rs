//! Records on their way: gathered by partition, sent to the leaders, sent again when that may help.

use std::{collections::BTreeMap, time::Duration};

use kafka_protocol::{
    messages::{
        InitProducerIdRequest, MetadataRequest, ProduceRequest,
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use protocol::{
    batch::{Builder, sequence_after},
    error::ErrorCode,
};
use tokio::time::Instant;

use super::{Sending, lines::Record, partitioner};
use crate::{
    client::{Client, Error, Refusal, refused, topic_name},
    clock, random,
    tools::{Failure, console::Console},
};

/// The newest Produce that names topics; later ones know them by id only.
const PRODUCE: i16 = 12;

const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acks {
    None,
    Leader,
    All,
}

impl Acks {
    fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// Who writes, for brokers that drop what they have already.
#[derive(Debug, Clone, Copy)]
struct Producer {
    id: i64,
    epoch: i16,
}

#[derive(Debug)]
pub(super) struct Writer {
    client: Client,
    topic: String,
    sending: Sending,
    producer: Option<Producer>,
    /// The next sequence number of each partition.
    sequences: BTreeMap<i32, i32>,
    /// Each partition's leader; empty until the topic has been asked for.
    leaders: BTreeMap<i32, i32>,
    gathered: BTreeMap<i32, Vec<(Record, i64)>>,
    bytes: BTreeMap<i32, usize>,
    /// The partition that records without a key go to until a batch is full.
    sticky: i32,
    due: Option<Instant>,
    lost: u64,
}

impl Writer {
    pub(super) fn new(client: Client, topic: String, sending: Sending) -> Writer {
        Writer {
            client,
            topic,
            sending,
            producer: None,
            sequences: BTreeMap::new(),
            leaders: BTreeMap::new(),
            gathered: BTreeMap::new(),
            bytes: BTreeMap::new(),
            // Or many short runs would all write to the first partition.
            sticky: random::positive(),
            due: None,
            lost: 0,
        }
    }

    /// When what has been gathered is to be sent.
    pub(super) fn due(&self) -> Instant {
        self.due.unwrap_or_else(Instant::now)
    }

    /// Records that were not written.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Takes a record, and sends what has been gathered if that makes a full batch.
    pub(super) async fn add(
        &mut self,
        record: Record,
        console: &mut Console,
    ) -> Result<(), Failure> {
        if self.leaders.is_empty() {
            self.find_topic().await?;
        }
        let count = i32::try_from(self.leaders.len()).unwrap_or(i32::MAX);
        let partition = match &record.key {
            Some(key) => partitioner::of_key(key, count),
            None => self.sticky % count,
        };
        let bytes = self.bytes.entry(partition).or_default();
        *bytes += record.size();
        let is_full = self.sending.batch_bytes <= *bytes;
        self.gathered
            .entry(partition)
            .or_default()
            .push((record, clock::now()));
        self.due
            .get_or_insert_with(|| Instant::now() + self.sending.linger);
        if is_full {
            self.flush(console).await?;
        }
        Ok(())
    }

    /// Sends all that has been gathered and waits for the answers.
    pub(super) async fn flush(&mut self, console: &mut Console) -> Result<(), Failure> {
        self.due = None;
        self.bytes.clear();
        for (partition, records) in std::mem::take(&mut self.gathered) {
            let outcome = self.write(partition, &records, console).await;
            let Err(err) = outcome else { continue };
            self.lost += records.len() as u64;
            // Nobody knows whether it was written, so nobody knows which sequence number is next: begin anew.
            self.producer = None;
            self.sequences.clear();
            for (record, _) in &records {
                let size = |part: &Option<bytes::Bytes>| match part {
                    Some(part) => format!("{} bytes", part.len()),
                    None => "null".to_owned(),
                };
                console.complain(&format!(
                    "Error when sending message to topic {} with key: {}, value: {} with error: {}",
                    self.topic,
                    size(&record.key),
                    size(&record.value),
                    err.with_exception()
                ));
            }
            if !matches!(err, Error::Refused(_)) {
                return Err(err.into());
            }
        }
        // The next records without a key go elsewhere.
        self.sticky = self.sticky.wrapping_add(1) & i32::MAX;
        Ok(())
    }

    /// Waits until the topic is there: asking for it makes the cluster create it, if the cluster is allowed to.
    async fn find_topic(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.sending.max_block;
        loop {
            match self.find_leaders().await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(refusal)) if !refusal.code.is_retriable() => {
                    return Err(Failure::Refused(format!("{}: {refusal}", self.topic)));
                }
                Err(err) if !err.is_away() || deadline < Instant::now() + RETRY_PAUSE => {
                    return Err(err.into());
                }
                Ok(Err(_)) if deadline < Instant::now() + RETRY_PAUSE => {
                    return Err(Failure::Refused(format!(
                        "Topic {} not present in metadata after {} ms. Does it exist, or may it be created on demand \
                         (auto.create.topics.enable)?",
                        self.topic,
                        self.sending.max_block.as_millis()
                    )));
                }
                Ok(Err(_)) | Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// Asks who leads the topic's partitions. The inner error says why nobody does.
    async fn find_leaders(&mut self) -> Result<Result<(), Refusal>, Error> {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(&self.topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(true);
        let response = self.client.any(12, &request).await?;
        let Some(topic) = response.topics.first() else {
            return Ok(Err(leaderless()));
        };
        if let Err(refusal) = refused(topic.error_code, None) {
            return Ok(Err(refusal));
        }
        if topic.partitions.is_empty() || topic.partitions.iter().any(|p| p.leader_id.0 < 0) {
            return Ok(Err(leaderless()));
        }
        let leaders = topic
            .partitions
            .iter()
            .map(|p| (p.partition_index, p.leader_id.0));
        self.leaders = leaders.collect();
        Ok(Ok(()))
    }

    /// Writes records to a partition, trying again while that may help. With a sequence number a broker knows what it has,
    /// so sending again never writes twice.
    async fn write(
        &mut self,
        partition: i32,
        records: &[(Record, i64)],
        console: &mut Console,
    ) -> Result<(), Error> {
        let until = Instant::now() + self.sending.delivery_timeout;
        let mut retries = 0;
        let mut told = false;
        loop {
            self.client.begin_operation();
            let Err(err) = self.attempt(partition, records).await else {
                return Ok(());
            };
            let (may_pass, counts) = match &err {
                // Another leads, or nobody yet: nothing has been written, and it will be somebody soon.
                Error::Refused(refusal) => (refusal.code.is_retriable(), !is_leaderless(refusal)),
                // Where it says it is, it has never been: that is rather a setting than a restart.
                Error::Advertised { .. } => (true, true),
                err => (err.is_away(), err.may_have_arrived()),
            };
            retries += u32::from(counts);
            if !may_pass || self.sending.retries < retries || until < Instant::now() + RETRY_PAUSE {
                return Err(err);
            }
            if err.is_away() && !told {
                console.complain(&format!("Trying again: {err}"));
                told = true;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            // Whatever went wrong, the leader may be another now; if that cannot be asked, the next attempt says so.
            let _ = self.find_leaders().await;
        }
    }

    async fn attempt(&mut self, partition: i32, records: &[(Record, i64)]) -> Result<(), Error> {
        if self.sending.idempotent && self.producer.is_none() {
            self.producer = Some(self.init_producer().await?);
        }
        let sequence = self.sequences.get(&partition).copied().unwrap_or(0);
        let request = self.request(partition, sequence, records)?;
        self.send(partition, &request).await?;
        let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
        self.sequences
            .insert(partition, sequence_after(sequence, count));
        Ok(())
    }

    fn request(
        &self,
        partition: i32,
        sequence: i32,
        records: &[(Record, i64)],
    ) -> Result<ProduceRequest, Error> {
        let mut builder = Builder::new().compression(self.sending.compression, None);
        if let Some(producer) = self.producer {
            builder = builder.producer(producer.id, producer.epoch, sequence);
        }
        for (record, time) in records {
            let headers: Vec<(&[u8], Option<&[u8]>)> = record
                .headers
                .iter()
                .map(|(key, value)| (&key[..], value.as_deref()))
                .collect();
            builder.push(
                *time,
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            );
        }
        let batch = builder.build().ok_or(Refusal {
            code: ErrorCode::MessageTooLarge,
            message: None,
        })?;
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch.bytes().clone()));
        let topic = TopicProduceData::default()
            .with_name(topic_name(&self.topic))
            .with_partition_data(vec![data]);
        Ok(ProduceRequest::default()
            .with_acks(self.sending.acks.code())
            .with_timeout_ms(self.client.timeout_ms())
            .with_topic_data(vec![topic]))
    }

    async fn send(&mut self, partition: i32, request: &ProduceRequest) -> Result<(), Error> {
        let leader = self.leaders.get(&partition).copied().ok_or(leaderless())?;
        if self.sending.acks == Acks::None {
            return self.client.send_to(leader, PRODUCE, request).await;
        }
        let response = self.client.at(leader, PRODUCE, request).await?;
        let answers = response
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses);
        for answer in answers {
            match refused(answer.error_code, answer.error_message.as_ref()) {
                // It was written by an attempt whose answer was lost.
                Err(refusal) if refusal.code == ErrorCode::DuplicateSequenceNumber => (),
                outcome => outcome?,
            }
        }
        Ok(())
    }

    async fn init_producer(&mut self) -> Result<Producer, Error> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        loop {
            let response = self.client.any(4, &request).await?;
            match refused(response.error_code, None::<&StrBytes>) {
                Ok(()) => {
                    return Ok(Producer {
                        id: response.producer_id.0,
                        epoch: response.producer_epoch,
                    });
                }
                Err(refusal) if refusal.code.is_retriable() && self.client.pause().await => (),
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }
}

/// Does the answer only say that the leader is to be looked for?
fn is_leaderless(refusal: &Refusal) -> bool {
    matches!(
        refusal.code,
        ErrorCode::NotLeaderOrFollower | ErrorCode::LeaderNotAvailable
    )
}

fn leaderless() -> Refusal {
    Refusal {
        code: ErrorCode::LeaderNotAvailable,
        message: None,
    }
}
