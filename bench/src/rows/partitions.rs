//! Many partitions on one node, with the open files of a common machine: create them, write to each,
//! stop, start again.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    Result,
    bench::Bench,
    broker::{Broker, Side},
    client::{self, Load},
    process,
    report::{Measured, Wanted},
    turns::kafka_once,
};

const TOPICS: i32 = 10;
const LIMIT: Duration = Duration::from_secs(300);
const RUNS_MAX: u32 = 3;

struct Run {
    create: Duration,
    write: Duration,
    restart: Duration,
    restart_until_led: Duration,
    resident_mib: f64,
}

pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let runs_each = bench.runs.min(RUNS_MAX);
    let runs = kafka_once(&bench.sides, runs_each, |side| measure_once(bench, side))?;
    let rows = vec![
        runs.row(
            "create, until each has a leader",
            "s",
            |run| run.create.as_secs_f64(),
            Wanted::Nothing,
        ),
        runs.row(
            "a record to each",
            "s",
            |run| run.write.as_secs_f64(),
            Wanted::Nothing,
        ),
        runs.row(
            "resident memory then",
            "MiB",
            |run| run.resident_mib,
            Wanted::Nothing,
        ),
        runs.row(
            "restart, until the first answer",
            "s",
            |run| run.restart.as_secs_f64(),
            Wanted::AtMost(2.0),
        ),
        runs.row(
            "restart, until each has a leader",
            "s",
            |run| run.restart_until_led.as_secs_f64(),
            Wanted::AtMost(2.0),
        ),
    ];
    let note = format!(
        "{} partitions in {TOPICS} topics, `ulimit -n 20000`, clean stop. Kafka has one turn.",
        bench.sizes.partitions
    );
    Ok(Measured {
        rows,
        runs: runs_each,
        notes: vec![note],
    })
}

// Memory in KiB is far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn measure_once(bench: &Bench, side: Side) -> Result<Run> {
    let broker = bench.broker(side, "partitions")?;
    let topics: Vec<String> = (0..TOPICS).map(|topic| format!("many-{topic}")).collect();
    let each = bench.sizes.partitions / TOPICS;

    let begin = Instant::now();
    client::create_topics(&broker, &topics, each, &[])?;
    until_led(&broker, bench.sizes.partitions)?;
    let create = begin.elapsed();

    let mut write = Duration::ZERO;
    for topic in &topics {
        let records = u64::try_from(each)?;
        write += client::produce(
            &broker,
            Load {
                topic,
                partitions: each,
                records,
                record_size: 100,
                settings: &[("acks", "all")],
            },
        )?;
    }
    let resident_mib = process::resident_kib(broker.pid())? as f64 / 1024.0;

    let dir = broker.stop()?;
    let begin = Instant::now();
    let broker = Broker::start(bench, side, &dir)?;
    until_led(&broker, bench.sizes.partitions)?;
    Ok(Run {
        create,
        write,
        restart: broker.started_in(),
        restart_until_led: begin.elapsed(),
        resident_mib,
    })
}

fn until_led(broker: &Broker, partitions: i32) -> Result<()> {
    let begin = Instant::now();
    let wanted = usize::try_from(partitions)?;
    loop {
        let led = client::led_partitions(broker)?;
        if led == wanted {
            return Ok(());
        }
        if begin.elapsed() > LIMIT {
            return Err(format!("only {led} of {wanted} partitions have a leader").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
}
