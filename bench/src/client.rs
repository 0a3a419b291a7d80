//! The load, from librdkafka: topics made, records produced and consumed, with its defaults unless said.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_executor::block_on;
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use crate::{Result, broker::Broker};

const PATIENCE: Duration = Duration::from_secs(120);
const KEY_SIZE: usize = 8;

/// Some records to produce.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partitions: i32,
    pub(crate) records: u64,
    /// Key and value together.
    pub(crate) record_size: usize,
    pub(crate) settings: &'a [(&'a str, &'a str)],
}

impl Load<'_> {
    pub(crate) fn bytes(&self) -> u64 {
        self.records * self.record_size as u64
    }
}

pub(crate) fn config(address: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("broker.address.family", "v4");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config
}

pub(crate) fn create_topic(
    broker: &Broker,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    create_topics(broker, &[topic.to_owned()], partitions, settings)
}

/// In one request.
pub(crate) fn create_topics(
    broker: &Broker,
    topics: &[String],
    partitions: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(&broker.address(), &[]).create()?;
    let options = AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE));
    let topics: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
            settings
                .iter()
                .fold(new, |new, (key, value)| new.set(key, value))
        })
        .collect();
    for created in block_on(admin.create_topics(&topics, &options))? {
        created.map_err(|(topic, code)| format!("cannot create {topic}: {code}"))?;
    }
    Ok(())
}

/// Replaces what a topic has of its own configuration.
pub(crate) fn configure_topic(
    broker: &Broker,
    topic: &str,
    settings: &[(&str, &str)],
) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(&broker.address(), &[]).create()?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let topic = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let topic = settings
        .iter()
        .fold(topic, |topic, (key, value)| topic.set(key, value));
    for done in block_on(admin.alter_configs([&topic], &options))? {
        done.map_err(|(_, code)| format!("cannot configure the topic: {code}"))?;
    }
    Ok(())
}

/// How many partitions have a leader, all topics together.
pub(crate) fn led_partitions(broker: &Broker) -> Result<usize> {
    let client: BaseConsumer = config(&broker.address(), &[]).create()?;
    let metadata = client.fetch_metadata(None, PATIENCE)?;
    let partitions = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions());
    Ok(partitions
        .filter(|partition| partition.leader() >= 0 && partition.error().is_none())
        .count())
}

/// Counts the records that were refused.
#[derive(Default)]
struct Refusals {
    count: AtomicU64,
    last: Mutex<Option<RDKafkaErrorCode>>,
}

impl ClientContext for Refusals {}

impl ProducerContext for Refusals {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((err, _)) = result {
            self.count.fetch_add(1, Ordering::Relaxed);
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = err.rdkafka_error_code();
        }
    }
}

/// Produces it all and returns how long it took until the last record was acknowledged. Each record
/// has a key of its own.
pub(crate) fn produce(broker: &Broker, load: Load<'_>) -> Result<Duration> {
    produce_with_keys(broker, load, |number| number)
}

/// The same with the key that `key_of` gives the record of a number.
pub(crate) fn produce_with_keys(
    broker: &Broker,
    load: Load<'_>,
    key_of: impl Fn(u64) -> u64,
) -> Result<Duration> {
    let mut config = config(&broker.address(), load.settings);
    // Enough for every batch to be full: the broker is to be measured, not the client's queue.
    config
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "262144");
    let producer: BaseProducer<Refusals> = config.create_with_context(Refusals::default())?;
    // The connection is not part of the work.
    producer
        .client()
        .fetch_metadata(Some(load.topic), PATIENCE)?;
    let value = vec![b'x'; load.record_size.saturating_sub(KEY_SIZE)];
    let partitions = u64::try_from(load.partitions)?;

    let begin = Instant::now();
    for number in 0..load.records {
        let key = key_of(number).to_be_bytes();
        let partition = i32::try_from(number % partitions)?;
        let mut record = BaseRecord::to(load.topic)
            .partition(partition)
            .key(&key[..])
            .payload(&value[..]);
        while let Err((err, refused)) = producer.send(record) {
            if err != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(err.into());
            }
            record = refused;
            producer.poll(Duration::from_millis(10));
        }
        if number % 256 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    // Not `flush`, which looks up only every 100 ms whether it is done.
    let mut in_flight = producer.in_flight_count();
    let mut progress_at = Instant::now();
    while in_flight > 0 {
        producer.poll(Duration::from_millis(1));
        let left = producer.in_flight_count();
        if left < in_flight {
            progress_at = Instant::now();
        } else if progress_at.elapsed() > PATIENCE {
            return Err("the records are not acknowledged".into());
        }
        in_flight = left;
    }
    let elapsed = begin.elapsed();

    let refusals = producer.context();
    match refusals.count.load(Ordering::Relaxed) {
        0 => Ok(elapsed),
        count => Err(format!(
            "{count} records were refused, the last with {:?}",
            refusals.last.lock()
        )
        .into()),
    }
}

/// Reads that many records of partition 0 from its beginning and returns how long it took from the
/// first to the last.
pub(crate) fn consume(address: &str, topic: &str, records: u64) -> Result<Duration> {
    let consumer = consumer(address, topic, Offset::Beginning)?;
    let mut begin = None;
    for _ in 0..records {
        next(&consumer)?;
        begin.get_or_insert_with(Instant::now);
    }
    Ok(begin.map(|begin| begin.elapsed()).unwrap_or_default())
}

/// A consumer of partition 0 alone. librdkafka wants the name of a group even where none is used.
pub(crate) fn consumer(address: &str, topic: &str, from: Offset) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = config(
        address,
        &[("group.id", "bench"), ("enable.auto.commit", "false")],
    )
    .create()?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, from)?;
    consumer.assign(&assignment)?;
    Ok(consumer)
}

pub(crate) fn next(consumer: &BaseConsumer) -> Result<rdkafka::message::BorrowedMessage<'_>> {
    let deadline = Instant::now() + PATIENCE;
    // Other events than records, such as a new assignment, end a poll too.
    while Instant::now() < deadline {
        if let Some(message) = consumer.poll(PATIENCE) {
            return Ok(message?);
        }
    }
    Err("no record for two minutes".into())
}
