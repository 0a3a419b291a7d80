//! Starting: from exec to the first ApiVersions answer, empty and with data, after a clean stop and
//! after kill -9.

use std::{fs, time::Duration};

use crate::{
    Result,
    bench::Bench,
    broker::{Broker, Side},
    client::{self, Load},
    report::{Measured, Wanted},
    turns::{BySide, in_turns},
};

const TOPIC: &str = "many";
const RECORD_SIZE: usize = 16 * 1024;
const LOADED_RUNS_MAX: u32 = 3;

pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let runs_loaded = bench.runs.min(LOADED_RUNS_MAX);
    let empty = start_empty(bench)?;
    // Not in turns: two such directories do not fit into the page cache of a common machine.
    let loaded = BySide::try_new(&bench.sides, |side| {
        // Kafka reads all of its data after a kill.
        let runs = if side == Side::Kafka { 1 } else { runs_loaded };
        start_loaded(bench, side, runs)
    })?;
    let (after_stop, after_kill) = loaded.unzip();
    let millis = |elapsed: &Duration| elapsed.as_secs_f64() * 1e3;
    let (partitions, bytes) = (
        bench.sizes.start_partitions,
        bench.sizes.start_bytes / 1_000_000,
    );
    let rows = vec![
        empty.row("empty", "ms", millis, Wanted::AtMost(50.0)),
        after_stop.row(
            format!("{partitions} partitions and {bytes} MB, after a clean stop"),
            "ms",
            millis,
            Wanted::AtMost(150.0),
        ),
        after_kill.row(
            format!("{partitions} partitions and {bytes} MB, after kill -9"),
            "ms",
            millis,
            Wanted::AtMost(500.0),
        ),
    ];
    let note =
        format!("With data: {runs_loaded} runs of ours, one of Kafka, one broker after the other.");
    Ok(Measured {
        rows,
        runs: bench.runs,
        notes: vec![note],
    })
}

fn start_empty(bench: &Bench) -> Result<BySide<Vec<Duration>>> {
    // The very first start formats the directory and is not counted.
    let mut dirs = BySide::try_new(&bench.sides, |side| bench.broker(side, "start")?.stop())?;
    in_turns(&mut dirs, bench.runs, |side, dir| {
        let broker = Broker::start(bench, side, dir)?;
        let elapsed = broker.started_in();
        broker.stop()?;
        Ok(elapsed)
    })
}

/// After clean stops, and after kills.
fn start_loaded(bench: &Bench, side: Side, runs: u32) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let broker = bench.broker(side, "start-loaded")?;
    let partitions = bench.sizes.start_partitions;
    client::create_topic(&broker, TOPIC, partitions, &[])?;
    let load = Load {
        topic: TOPIC,
        partitions,
        records: bench.sizes.start_bytes / RECORD_SIZE as u64,
        record_size: RECORD_SIZE,
        settings: &[("acks", "1"), ("linger.ms", "50")],
    };
    client::produce(&broker, load)?;

    // Killed again as soon as it answers, a broker finds the same work at its next start.
    let mut dir = broker.kill()?;
    let mut after_kill = Vec::new();
    for _ in 0..runs {
        let broker = Broker::start(bench, side, &dir)?;
        after_kill.push(broker.started_in());
        dir = broker.kill()?;
    }
    dir = Broker::start(bench, side, &dir)?.stop()?;
    let mut after_stop = Vec::new();
    for _ in 0..runs {
        let broker = Broker::start(bench, side, &dir)?;
        after_stop.push(broker.started_in());
        dir = broker.stop()?;
    }
    // Now and not at the end of the benchmark: it is 10 GB.
    fs::remove_dir_all(dir)?;
    Ok((after_stop, after_kill))
}
