//! Consuming what is in the page cache, against a bare `sendfile` loop and a bare read and write loop.

use std::time::Duration;

use crate::{
    Result,
    baseline::{self, Cost},
    bench::Bench,
    broker::Side,
    client::{self, Load},
    report::{Measured, Row, Wanted},
    stats::Samples,
    turns::in_turns,
};

const TOPIC: &str = "read";
const RECORD_SIZE: usize = 1024;

struct Run {
    elapsed: Duration,
    cpu_time: Duration,
}

pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let records = bench.sizes.load_bytes / RECORD_SIZE as u64;
    let load = Load {
        topic: TOPIC,
        partitions: 1,
        records,
        record_size: RECORD_SIZE,
        settings: &[("acks", "1")],
    };
    let mut brokers = bench.brokers("consume")?;
    for broker in brokers.iter() {
        client::create_topic(broker, TOPIC, 1, &[])?;
        client::produce(broker, load)?;
    }
    let runs = in_turns(&mut brokers, bench.runs, |_, broker| {
        client::consume(&broker.address(), TOPIC, records)?;
        let (elapsed, cpu_time) =
            broker.cpu_time_of(|| client::consume(&broker.address(), TOPIC, records))?;
        Ok(Run { elapsed, cpu_time })
    })?;
    drop(brokers);

    // Far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    let gb = load.bytes() as f64 / 1e9;
    let cpu = |run: &Run| run.cpu_time.as_secs_f64() / gb;
    let speed = |run: &Run| gb * 1e3 / run.elapsed.as_secs_f64();
    let ours = runs.samples(Side::Sordini, cpu);
    let bare = Bare::measure(bench)?;

    let rows = vec![
        runs.row("broker CPU", "CPU-s/GB", cpu, Wanted::RatioAtMost(0.9)),
        runs.row(
            "throughput (the client is the limit)",
            "MB/s",
            speed,
            Wanted::Nothing,
        ),
        bare_row("for comparison: a bare sendfile loop", &bare.send_file),
        bare_row(
            "for comparison: the same, each MiB asked for",
            &bare.send_file_when_asked,
        ),
        bare_row(
            "for comparison: a bare read and write loop",
            &bare.read_and_write,
        ),
        Row {
            work: "our CPU by that of the cheaper bare loop".into(),
            unit: "times",
            sordini: ours.and_then(|ours| Samples::new([ours.median() / bare.cheapest()])),
            kafka: runs
                .samples(Side::Kafka, cpu)
                .and_then(|kafka| Samples::new([kafka.median() / bare.cheapest()])),
            wanted: Wanted::AtMost(1.15),
        },
    ];
    Ok(Measured {
        rows,
        runs: bench.runs,
        notes: Vec::new(),
    })
}

/// The loops, in turns as well.
struct Bare {
    send_file: Samples,
    send_file_when_asked: Samples,
    read_and_write: Samples,
}

impl Bare {
    fn measure(bench: &Bench) -> Result<Bare> {
        let file = bench.dir("bare")?.join("segment");
        baseline::make_file(&file, bench.sizes.load_bytes)?;
        let (mut sent, mut asked, mut copied) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..bench.runs {
            sent.push(baseline::send_file(&file)?);
            asked.push(baseline::send_file_when_asked(&file)?);
            copied.push(baseline::read_and_write(&file)?);
        }
        let samples = |costs: &[Cost]| {
            Samples::new(costs.iter().map(Cost::cpu_seconds_per_gb)).ok_or("no runs")
        };
        Ok(Bare {
            send_file: samples(&sent)?,
            send_file_when_asked: samples(&asked)?,
            read_and_write: samples(&copied)?,
        })
    }

    fn cheapest(&self) -> f64 {
        self.send_file.median().min(self.read_and_write.median())
    }
}

fn bare_row(work: &str, samples: &Samples) -> Row {
    Row {
        work: work.to_owned(),
        unit: "CPU-s/GB",
        sordini: Some(samples.clone()),
        kafka: None,
        wanted: Wanted::Nothing,
    }
}
