//! End to end latency by Kafka's own `EndToEndLatency`: send one record, wait for its acknowledgement,
//! poll until it arrives, next.
//!
//! What is wanted is of its own figures. They are whole milliseconds, of all records, those of a virtual machine that is still
//! compiling included; `bench/kafka/Stopwatch.java` listens to its producer and consumer and reports microseconds of what
//! comes after.

use std::fs;

use nix::unistd::sync;

use crate::{
    Result,
    bench::Bench,
    broker::Broker,
    client,
    quiet::{Lateness, awake, with_lateness},
    report::{Measured, Wanted},
    turns::in_turns,
};

const TOPIC: &str = "latency";
const RECORD_SIZE: &str = "1024";

/// What one run of the class reports, in milliseconds.
struct Run {
    median: f64,
    p99: f64,
    p999: f64,
    /// The class's own words for the last two.
    whole_p99: f64,
    whole_p999: f64,
}

/// One of a run, or of the machine meanwhile.
type Figure = fn(&(Run, Lateness)) -> f64;

pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let mut brokers = bench.brokers("latency")?;
    for broker in brokers.iter() {
        client::create_topic(broker, TOPIC, 1, &[])?;
    }
    let runs = in_turns(&mut brokers, bench.runs, |_, broker| {
        sync();
        awake(|| with_lateness(|| end_to_end(bench, broker)))
    })?;
    let figures: [(&str, Figure, Wanted); 7] = [
        ("p99", |(run, _)| run.whole_p99, Wanted::RatioAtMost(0.4)),
        ("p99.9", |(run, _)| run.whole_p999, Wanted::RatioAtMost(0.4)),
        (
            "median, in microseconds and warm",
            |(run, _)| run.median,
            Wanted::Nothing,
        ),
        ("p99 so", |(run, _)| run.p99, Wanted::Nothing),
        ("p99.9 so", |(run, _)| run.p999, Wanted::Nothing),
        (
            "for comparison: how late a sleeping thread is woken, p99",
            |(_, late)| late.p99,
            Wanted::Nothing,
        ),
        (
            "for comparison: how late a sleeping thread is woken, p99.9",
            |(_, late)| late.p999,
            Wanted::Nothing,
        ),
    ];
    let rows = figures.map(|(what, figure, wanted)| runs.row(what, "ms", figure, wanted));
    let note = format!(
        "{} records of 1 KiB a run, acks=1. The first two rows are what EndToEndLatency says, in whole milliseconds and of all \
         records; warm is without the first third.",
        bench.sizes.latency_records
    );
    Ok(Measured {
        rows: rows.into(),
        runs: bench.runs,
        notes: vec![note],
    })
}

fn end_to_end(bench: &Bench, broker: &Broker) -> Result<Run> {
    let scratch = bench.dir("stopwatch")?;
    fs::create_dir(scratch.join("classes"))?;
    let properties = scratch.join("client.properties");
    fs::write(&properties, "interceptor.classes=Stopwatch\n")?;

    let mut tool = bench.kafka.tool(
        "org.apache.kafka.tools.EndToEndLatency",
        "Stopwatch.java",
        &scratch,
    )?;
    tool.arg("--bootstrap-server").arg(broker.address()).args([
        "--topic",
        TOPIC,
        "--producer-acks",
        "1",
    ]);
    tool.arg("--num-records")
        .arg(bench.sizes.latency_records.to_string())
        .args(["--record-size", RECORD_SIZE]);
    tool.arg("--command-config").arg(&properties);
    // The exit code says only how its consumer's `close` went, which wants a group coordinator.
    let output = tool.output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    parse(&printed).ok_or_else(|| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        format!("EndToEndLatency said something else than expected:\n{printed}{complaint}").into()
    })
}

fn parse(printed: &str) -> Option<Run> {
    let numbers = |prefix: &str| -> Option<Vec<f64>> {
        let line = printed.lines().find_map(|line| line.strip_prefix(prefix))?;
        // "50th = 0, 99th = 1, 99.9th = 3" for one, "412 801 1502" for the other.
        line.split([',', ' '])
            .filter_map(|word| word.parse().ok())
            .map(Some)
            .collect()
    };
    let (micros, whole) = (numbers("Microseconds: ")?, numbers("Percentiles: ")?);
    match (&micros[..], &whole[..]) {
        (&[median, p99, p999], &[_, whole_p99, whole_p999]) => Some(Run {
            median: median / 1e3,
            p99: p99 / 1e3,
            p999: p999 / 1e3,
            whole_p99,
            whole_p999,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_reports_are_found_among_the_progress_lines() {
        let printed = "0\t12.3\n1000\t0.7\nAvg latency: 0.5123 ms\n\
             Percentiles: 50th = 0, 99th = 1, 99.9th = 3\nMicroseconds: 412 801 1502\n";
        let run = parse(printed).expect("both lines are there");
        assert_eq!((run.median, run.p99, run.p999), (0.412, 0.801, 1.502));
        assert_eq!((run.whole_p99, run.whole_p999), (1.0, 3.0));
        assert!(parse("Percentiles: 50th = 0, 99th = 1, 99.9th = 3\n").is_none());
    }
}
