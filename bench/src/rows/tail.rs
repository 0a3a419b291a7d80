//! A consumer at the tail, while another reads from the disk what the page cache has lost.
//!
//! A broker whose network thread waits for the disk makes everybody wait who shares that thread
//! (KAFKA-7504). The tail gets a record every millisecond and its latency is from `produce` to `poll`,
//! both in this process. The reader is another process that gives way to everybody, so that what the tail feels comes
//! from the broker and not from a second client on the same cores.

use std::{
    fs::{self, File},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    unistd::sync,
};
use rdkafka::{
    Message, Offset,
    consumer::BaseConsumer,
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::{
    Result,
    bench::Bench,
    broker::Broker,
    client::{self, Load},
    process,
    quiet::with_lateness,
    reader::read_in_background,
    report::{Measured, Wanted},
    stats::quantile,
    turns::in_turns,
};

const COLD: &str = "cold";
const TAIL: &str = "tail";
const RECORD_SIZE: usize = 1024;
const PACE: Duration = Duration::from_millis(1);
const WARM_UP: Duration = Duration::from_secs(2);
/// The reader takes its time: more turns would make this row half of the whole benchmark.
const RUNS_MAX: u32 = 3;

struct Run {
    alone_ms: f64,
    beside_reader_ms: f64,
    reader_mb_per_second: f64,
    /// How much of what the reader got came from the disk.
    cold_share: f64,
    /// How late a thread that only sleeps was woken meanwhile, 99th percentile.
    late_alone_ms: f64,
    late_beside_reader_ms: f64,
}

pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let records = bench.sizes.cold_bytes / RECORD_SIZE as u64;
    let load = Load {
        topic: COLD,
        partitions: 1,
        records,
        record_size: RECORD_SIZE,
        settings: &[("acks", "1")],
    };
    let mut brokers = bench.brokers("tail")?;
    for broker in brokers.iter() {
        client::create_topic(broker, COLD, 1, &[])?;
        client::create_topic(broker, TAIL, 1, &[])?;
        client::produce(broker, load)?;
    }
    let runs_each = bench.runs.min(RUNS_MAX);
    let runs = in_turns(&mut brokers, runs_each, |_, broker| {
        measure_once(bench, broker, load)
    })?;

    let rows = vec![
        runs.row(
            "p99 at the tail, alone",
            "ms",
            |run| run.alone_ms,
            Wanted::Nothing,
        ),
        runs.row(
            "p99 at the tail, beside the reader",
            "ms",
            |run| run.beside_reader_ms,
            Wanted::Nothing,
        ),
        runs.row(
            "the second by the first",
            "times",
            |run| run.beside_reader_ms / run.alone_ms,
            Wanted::AtMost(1.3),
        ),
        runs.row(
            "the reader's speed",
            "MB/s",
            |run| run.reader_mb_per_second,
            Wanted::Nothing,
        ),
        runs.row(
            "of that from the disk",
            "share",
            |run| run.cold_share,
            Wanted::Nothing,
        ),
        runs.row(
            "for comparison: how late a sleeping thread is woken, alone",
            "ms",
            |run| run.late_alone_ms,
            Wanted::Nothing,
        ),
        runs.row(
            "the same beside the reader",
            "ms",
            |run| run.late_beside_reader_ms,
            Wanted::Nothing,
        ),
    ];
    // Far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    let gb = load.bytes() as f64 / 1e9;
    Ok(Measured {
        rows,
        runs: runs_each,
        notes: vec![format!("The reader reads {gb:.1} GB.")],
    })
}

// Counts of bytes and microseconds far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn measure_once(bench: &Bench, broker: &Broker, load: Load<'_>) -> Result<Run> {
    evict(&broker.partition_dir(COLD, 0))?;
    // What the other broker has left to be written back is not ours to wait for.
    sync();
    let ((alone, ()), late_alone) = with_lateness(|| {
        tail_p99(broker, || {
            thread::sleep(Duration::from_secs(bench.sizes.tail_seconds));
            Ok(())
        })
    })?;
    let read_before = process::disk_read_bytes(broker.pid())?;
    let ((beside_reader, elapsed), late_beside_reader) =
        with_lateness(|| tail_p99(broker, || read_in_background(broker, COLD, load.records)))?;
    let from_disk = process::disk_read_bytes(broker.pid())? - read_before;
    Ok(Run {
        alone_ms: alone as f64 / 1e3,
        beside_reader_ms: beside_reader as f64 / 1e3,
        reader_mb_per_second: load.bytes() as f64 / 1e6 / elapsed.as_secs_f64(),
        cold_share: from_disk as f64 / load.bytes() as f64,
        late_alone_ms: late_alone.p99,
        late_beside_reader_ms: late_beside_reader.p99,
    })
}

/// The 99th percentile in microseconds of the records sent while `meanwhile` ran, and what that returned.
fn tail_p99<T>(broker: &Broker, meanwhile: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
    let producer: BaseProducer =
        client::config(&broker.address(), &[("linger.ms", "0"), ("acks", "1")]).create()?;
    let (_, end) = producer
        .client()
        .fetch_watermarks(TAIL, 0, Duration::from_secs(30))?;
    let consumer = client::consumer(&broker.address(), TAIL, Offset::Offset(end))?;
    let clock = Instant::now();
    let sent = AtomicU64::new(0);
    let done = AtomicBool::new(false);

    thread::scope(|scope| {
        let sender = scope.spawn(|| send_steadily(&producer, clock, &sent, &done));
        let receiver = scope.spawn(|| receive(&consumer, clock, &sent, &done));
        thread::sleep(WARM_UP);
        let begin = clock.elapsed();
        let outcome = meanwhile();
        let end = clock.elapsed();
        done.store(true, Ordering::Release);
        sender
            .join()
            .map_err(|_| "the producer's thread panicked")??;
        let latencies = receiver
            .join()
            .map_err(|_| "the consumer's thread panicked")??;
        let mut counted: Vec<u64> = latencies
            .into_iter()
            .filter(|(sent_at, _)| (begin..end).contains(sent_at))
            .filter_map(|(_, latency)| u64::try_from(latency.as_micros()).ok())
            .collect();
        Ok((quantile(&mut counted, 0.99), outcome?))
    })
}

/// A record every millisecond, carrying the time it was sent at.
fn send_steadily(
    producer: &BaseProducer,
    clock: Instant,
    sent: &AtomicU64,
    done: &AtomicBool,
) -> Result<()> {
    let mut value = [b'x'; RECORD_SIZE];
    let mut next = clock.elapsed();
    while !done.load(Ordering::Acquire) {
        thread::sleep(next.saturating_sub(clock.elapsed()));
        next += PACE;
        let now = u64::try_from(clock.elapsed().as_nanos())?;
        value[..8].copy_from_slice(&now.to_be_bytes());
        let record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(TAIL).partition(0).payload(&value[..]);
        producer.send(record).map_err(|(err, _)| err)?;
        sent.fetch_add(1, Ordering::AcqRel);
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(30))?;
    Ok(())
}

/// When each record was sent, and how long it took to arrive. Ends when all have arrived: the slowest
/// must not be lost.
fn receive(
    consumer: &BaseConsumer,
    clock: Instant,
    sent: &AtomicU64,
    done: &AtomicBool,
) -> Result<Vec<(Duration, Duration)>> {
    let mut latencies = Vec::new();
    let all_arrived =
        |count: usize| done.load(Ordering::Acquire) && count as u64 >= sent.load(Ordering::Acquire);
    while !all_arrived(latencies.len()) {
        let message = match consumer.poll(Duration::from_millis(100)) {
            Some(message) => message?,
            None if consumer_is_late(clock, &latencies) => {
                return Err("records at the tail do not arrive".into());
            }
            None => continue,
        };
        let now = clock.elapsed();
        let time = message
            .payload()
            .and_then(|value| value.first_chunk())
            .ok_or("a record without its time")?;
        let sent_at = Duration::from_nanos(u64::from_be_bytes(*time));
        latencies.push((sent_at, now.saturating_sub(sent_at)));
    }
    Ok(latencies)
}

/// Nothing has come for half a minute.
fn consumer_is_late(clock: Instant, latencies: &[(Duration, Duration)]) -> bool {
    let last = latencies
        .last()
        .map(|(sent_at, latency)| *sent_at + *latency)
        .unwrap_or_default();
    clock.elapsed() > last + Duration::from_secs(30)
}

/// Takes a partition's files out of the page cache: written back first, since dirty pages stay.
fn evict(partition: &Path) -> Result<()> {
    for entry in fs::read_dir(partition)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    Ok(())
}
