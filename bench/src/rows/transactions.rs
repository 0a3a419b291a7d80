//! Transactions: how many one producer makes in a second, and how soon a coordinator of many transactional ids
//! is there again.

use std::{
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::{
    Result,
    bench::Bench,
    broker::{Broker, Side},
    client::{self, Load},
    report::{Measured, Wanted},
    stats::quantile,
    turns::{in_turns, kafka_once},
    wire::{CoordinatorOf, Wire},
};

const INPUT: &str = "input";
const OUTPUT: &str = "output";
const PARTITIONS: i32 = 10;
/// Of a transaction.
const RECORDS: u32 = 100;
const RECORD_SIZE: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(60);
/// One of so many, before they are counted.
const WARM_UP_PART: u32 = 4;
const RUNS_MAX: u32 = 3;

struct Run {
    per_second: f64,
    commit_p99_ms: f64,
    cpu_micros: f64,
    rounds_per_second: f64,
}

pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let mut brokers = bench.brokers("transactions")?;
    for broker in brokers.iter() {
        client::create_topic(broker, INPUT, 1, &[])?;
        client::create_topic(broker, OUTPUT, PARTITIONS, &[])?;
        let load = Load {
            topic: INPUT,
            partitions: 1,
            records: u64::from(2 * bench.sizes.transactions * RECORDS),
            record_size: RECORD_SIZE,
            settings: &[],
        };
        client::produce(broker, load)?;
    }
    let runs = in_turns(&mut brokers, bench.runs, |_, broker| {
        measure_once(bench.sizes.transactions, broker)
    })?;
    let rows = vec![
        runs.row(
            "transactions",
            "per s",
            |run| run.per_second,
            Wanted::RatioAtLeast(2.0),
        ),
        runs.row(
            "p99 of commit",
            "ms",
            |run| run.commit_p99_ms,
            Wanted::RatioAtMost(0.4),
        ),
        runs.row(
            "CPU of each transaction",
            "µs",
            |run| run.cpu_micros,
            Wanted::Nothing,
        ),
        runs.row(
            "consume, transform, produce: rounds",
            "per s",
            |run| run.rounds_per_second,
            Wanted::RatioAtLeast(2.0),
        ),
    ];
    let note = format!(
        "{} transactions a run. A commit begins when all records are acknowledged. A round reads {RECORDS} records \
         and writes them with the offsets in one transaction.",
        bench.sizes.transactions
    );
    Ok(Measured {
        rows,
        runs: bench.runs,
        notes: vec![note],
    })
}

// Some thousand transactions, some thousand microseconds.
#[allow(clippy::cast_precision_loss)]
fn measure_once(transactions: u32, broker: &Broker) -> Result<Run> {
    let settings = [("transactional.id", "bench"), ("linger.ms", "0")];
    let producer: BaseProducer = client::config(&broker.address(), &settings).create()?;
    producer.init_transactions(PATIENCE)?;
    let value = vec![b'x'; RECORD_SIZE];
    let mut commits = Vec::new();
    let mut transact = |count: u32| {
        commits.clear();
        let begin = Instant::now();
        for _ in 0..count {
            producer.begin_transaction()?;
            for number in 0..RECORDS {
                send(&producer, number, &value)?;
            }
            commits.push(u64::try_from(commit(&producer)?.as_micros())?);
        }
        Ok(begin.elapsed())
    };
    let warm_up = transactions / WARM_UP_PART;
    transact(warm_up)?;
    let (elapsed, cpu_time) = broker.cpu_time_of(|| transact(transactions))?;

    let consumer = client::consumer(&broker.address(), INPUT, Offset::Beginning)?;
    let transform = |count: u32| {
        let begin = Instant::now();
        for _ in 0..count {
            transform(&consumer, &producer)?;
        }
        Result::Ok(begin.elapsed())
    };
    transform(warm_up)?;
    let rounds_elapsed = transform(transactions)?;
    Ok(Run {
        per_second: f64::from(transactions) / elapsed.as_secs_f64(),
        commit_p99_ms: quantile(&mut commits, 0.99) as f64 / 1e3,
        cpu_micros: cpu_time.as_secs_f64() * 1e6 / f64::from(transactions),
        rounds_per_second: f64::from(transactions) / rounds_elapsed.as_secs_f64(),
    })
}

/// One round: reads, and writes with the offsets in one transaction.
fn transform(consumer: &BaseConsumer, producer: &BaseProducer) -> Result<()> {
    producer.begin_transaction()?;
    let mut next_offset = 0;
    for number in 0..RECORDS {
        let record = client::next(consumer)?;
        send(producer, number, record.payload().unwrap_or_default())?;
        next_offset = record.offset() + 1;
    }
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(INPUT, 0, Offset::Offset(next_offset))?;
    let group = consumer
        .group_metadata()
        .ok_or("a consumer without a group")?;
    producer.send_offsets_to_transaction(&offsets, &group, PATIENCE)?;
    commit(producer)?;
    Ok(())
}

fn send(producer: &BaseProducer, number: u32, value: &[u8]) -> Result<()> {
    let key = number.to_be_bytes();
    let record = BaseRecord::to(OUTPUT)
        .partition(i32::try_from(number)? % PARTITIONS)
        .key(&key[..])
        .payload(value);
    Ok(producer.send(record).map_err(|(err, _)| err)?)
}

/// How long the commit took once all records were acknowledged. A record that was refused fails the commit.
fn commit(producer: &BaseProducer) -> Result<Duration> {
    // `poll` with a timeout returns only when it is over, however soon an acknowledgement comes.
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::ZERO);
        thread::sleep(Duration::from_micros(50));
    }
    let begin = Instant::now();
    producer.commit_transaction(PATIENCE)?;
    Ok(begin.elapsed())
}

pub(super) fn restart(bench: &Bench) -> Result<Measured> {
    let runs_each = bench.runs.min(RUNS_MAX);
    let runs = kafka_once(&bench.sides, runs_each, |side| restart_once(bench, side))?;
    let row = runs.row(
        "from exec until one of them has its producer id",
        "s",
        Duration::as_secs_f64,
        Wanted::AtMost(1.0),
    );
    let note = format!(
        "{} transactional ids, each has committed a transaction. The restart is after a clean stop. Kafka has \
         one turn.",
        bench.sizes.transactional_ids
    );
    Ok(Measured {
        rows: vec![row],
        runs: runs_each,
        notes: vec![note],
    })
}

fn restart_once(bench: &Bench, side: Side) -> Result<Duration> {
    let broker = bench.broker(side, "transactional-ids")?;
    client::create_topic(&broker, OUTPUT, PARTITIONS, &[])?;
    let mut wire = Wire::connect(&broker)?;
    let ids = (0..bench.sizes.transactional_ids).map(|number| format!("producer-{number}"));
    let ids: Vec<String> = ids.collect();
    wire.find(CoordinatorOf::Transactions, "producer")?;
    for id in &ids {
        let producer = wire.init_producer_id(id)?;
        wire.commit_transaction(&producer, OUTPUT, 0)?;
    }
    let last = ids.last().ok_or("no transactional ids")?;

    let dir = broker.stop()?;
    let begin = Instant::now();
    let broker = Broker::start(bench, side, &dir)?;
    let mut wire = Wire::connect(&broker)?;
    wire.find(CoordinatorOf::Transactions, last)?;
    wire.init_producer_id(last)?;
    Ok(begin.elapsed())
}
