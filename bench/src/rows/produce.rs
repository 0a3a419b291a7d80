//! Producing: how fast, and at what cost in processor time.
//!
//! The topic keeps 1 GiB in segments of 256 MiB, so that after the first warm-up the broker rolls and
//! deletes all the time; records have keys. Each measured run follows a warm-up of the same size.

use std::time::Duration;

use crate::{
    Result,
    baseline::{self, Cost},
    bench::Bench,
    broker::{Broker, Side},
    client::{self, Load},
    report::{Measured, Row, Wanted},
    stats::Samples,
    turns::{BySide, in_turns},
};

const TOPIC: &str = "load";
const KEEP_ONE_GIB: [(&str, &str); 2] = [
    ("retention.bytes", "1073741824"),
    ("segment.bytes", "268435456"),
];
const KIB: usize = 1024;

const ACKS_ONE: &[(&str, &str)] = &[("acks", "1")];
const IDEMPOTENT: &[(&str, &str)] = &[("acks", "all"), ("enable.idempotence", "true")];

/// What one run of a load took.
struct Run {
    elapsed: Duration,
    cpu_time: Duration,
    load: Load<'static>,
}

impl Run {
    fn mb_per_second(&self) -> f64 {
        bytes(self.load) / 1e6 / self.elapsed.as_secs_f64()
    }

    fn cpu_seconds_per_gb(&self) -> f64 {
        self.cpu_time.as_secs_f64() / bytes(self.load) * 1e9
    }

    fn cpu_seconds_per_million(&self) -> f64 {
        self.cpu_time.as_secs_f64() / records(self.load) * 1e6
    }

    fn thousands_per_second(&self) -> f64 {
        records(self.load) / 1e3 / self.elapsed.as_secs_f64()
    }
}

// Both counts are far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn bytes(load: Load<'_>) -> f64 {
    load.bytes() as f64
}

#[allow(clippy::cast_precision_loss)]
fn records(load: Load<'_>) -> f64 {
    load.records as f64
}

pub(super) fn one_kib(bench: &Bench) -> Result<Measured> {
    let runs = in_turns(
        &mut with_topic(bench, "produce", &[])?,
        bench.runs,
        |_, broker| measure(broker, kib_records(bench.sizes.load_bytes, ACKS_ONE)),
    )?;
    let bare = bare_loop(bench)?;
    let mut rows = throughput_rows(&runs);
    rows.push(Row {
        work: "for comparison: a bare loop that receives, checks the CRC and writes".into(),
        unit: "CPU-s/GB",
        sordini: bare,
        kafka: None,
        wanted: Wanted::Nothing,
    });
    Ok(Measured {
        rows,
        runs: bench.runs,
        notes: Vec::new(),
    })
}

pub(super) fn idempotent(bench: &Bench) -> Result<Measured> {
    let runs = in_turns(
        &mut with_topic(bench, "idempotent", &[])?,
        bench.runs,
        |_, broker| measure(broker, kib_records(bench.sizes.load_bytes, IDEMPOTENT)),
    )?;
    Ok(Measured {
        rows: throughput_rows(&runs),
        runs: bench.runs,
        notes: Vec::new(),
    })
}

pub(super) fn small(bench: &Bench) -> Result<Measured> {
    let load = Load {
        topic: TOPIC,
        partitions: 1,
        records: bench.sizes.small_records,
        record_size: 100,
        settings: ACKS_ONE,
    };
    let runs = in_turns(
        &mut with_topic(bench, "small", &[])?,
        bench.runs,
        |_, broker| measure(broker, load),
    )?;
    let rows = vec![
        runs.row(
            "broker CPU",
            "CPU-s/million",
            Run::cpu_seconds_per_million,
            Wanted::RatioAtMost(0.5),
        ),
        runs.row(
            "throughput",
            "1000 records/s",
            Run::thousands_per_second,
            Wanted::Nothing,
        ),
    ];
    Ok(Measured {
        rows,
        runs: bench.runs,
        notes: Vec::new(),
    })
}

/// Ours with `flush.messages=1` against Kafka without any flush, and Kafka with it to show what it costs.
pub(super) fn flushed(bench: &Bench) -> Result<Measured> {
    const FLUSHED: [(&str, &str); 1] = [("flush.messages", "1")];
    let load = |topic| Load {
        topic,
        ..kib_records(bench.sizes.flushed_bytes, ACKS_ONE)
    };

    let mut brokers = with_topic(bench, "flush", &[])?;
    for broker in brokers.iter() {
        client::create_topic(
            broker,
            "flushed",
            1,
            &[&KEEP_ONE_GIB[..], &FLUSHED].concat(),
        )?;
    }
    let plain = in_turns(&mut brokers, bench.runs, |_, broker| {
        measure(broker, load(TOPIC))
    })?;
    let flushed = in_turns(&mut brokers, bench.runs, |_, broker| {
        measure(broker, load("flushed"))
    })?;

    let rows = vec![
        Row {
            work: "ours with flush.messages=1, Kafka without".into(),
            unit: "MB/s",
            sordini: flushed.samples(Side::Sordini, Run::mb_per_second),
            kafka: plain.samples(Side::Kafka, Run::mb_per_second),
            wanted: Wanted::RatioAtLeast(1.0),
        },
        flushed.row(
            "both with flush.messages=1",
            "MB/s",
            Run::mb_per_second,
            Wanted::Nothing,
        ),
        plain.row("both without", "MB/s", Run::mb_per_second, Wanted::Nothing),
    ];
    Ok(Measured {
        rows,
        runs: bench.runs,
        notes: Vec::new(),
    })
}

/// A broker of each side with the topic made.
fn with_topic(bench: &Bench, group: &str, settings: &[(&str, &str)]) -> Result<BySide<Broker>> {
    let brokers = bench.brokers(group)?;
    for broker in brokers.iter() {
        client::create_topic(broker, TOPIC, 1, &[&KEEP_ONE_GIB[..], settings].concat())?;
    }
    Ok(brokers)
}

fn kib_records(bytes: u64, settings: &'static [(&'static str, &'static str)]) -> Load<'static> {
    Load {
        topic: TOPIC,
        partitions: 1,
        records: bytes / KIB as u64,
        record_size: KIB,
        settings,
    }
}

fn measure(broker: &Broker, load: Load<'static>) -> Result<Run> {
    client::produce(broker, load)?;
    let (elapsed, cpu_time) = broker.cpu_time_of(|| client::produce(broker, load))?;
    Ok(Run {
        elapsed,
        cpu_time,
        load,
    })
}

fn throughput_rows(runs: &BySide<Vec<Run>>) -> Vec<Row> {
    vec![
        runs.row(
            "broker CPU",
            "CPU-s/GB",
            Run::cpu_seconds_per_gb,
            Wanted::RatioAtMost(0.4),
        ),
        runs.row(
            "throughput",
            "MB/s",
            Run::mb_per_second,
            Wanted::RatioAtLeast(1.5),
        ),
    ]
}

fn bare_loop(bench: &Bench) -> Result<Option<Samples>> {
    let dir = bench.dir("bare")?;
    let run = || baseline::receive_check_write(&dir, bench.sizes.load_bytes);
    run()?;
    let costs: Vec<Cost> = (0..bench.runs).map(|_| run()).collect::<Result<_>>()?;
    Ok(Samples::new(costs.iter().map(Cost::cpu_seconds_per_gb)))
}
