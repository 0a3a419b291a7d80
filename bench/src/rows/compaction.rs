//! Compaction of one large partition by one thread, everything else at rest.
//!
//! The log is written first, while its topic is configured never to be dirty enough. The time is from the
//! configuration that makes it so to the line in `cleaner-offset-checkpoint` that says it is compacted.

use std::{
    fs::{self, File},
    path::Path,
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
    turns::{BySide, in_turns},
};

const TOPIC: &str = "compacted";
const RECORD_SIZE: usize = 1024;
const RECORDS_PER_KEY: u64 = 10;
const LIMIT: Duration = Duration::from_secs(3600);
const RUNS_MAX: u32 = 2;
/// Or the wait for the cleaner's next look would be measured too.
const PROPERTIES: &str = "log.cleaner.backoff.ms=100\n";

struct Run {
    bytes: u64,
    elapsed: Duration,
    cpu: Duration,
    resident_mib: f64,
}

impl Run {
    // Far below 2^53 bytes.
    #[allow(clippy::cast_precision_loss)]
    fn gigabytes(&self) -> f64 {
        self.bytes as f64 / 1e9
    }
}

pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let runs_each = bench.runs.min(RUNS_MAX);
    let mut sides = BySide::try_new(&bench.sides, Ok)?;
    let runs = in_turns(&mut sides, runs_each, |side, _| measure_once(bench, side))?;
    let rows = vec![
        runs.row(
            "rate",
            "MB/s",
            |run| run.gigabytes() * 1e3 / run.elapsed.as_secs_f64(),
            Wanted::RatioAtLeast(2.0),
        ),
        runs.row(
            "CPU",
            "s/GB",
            |run| run.cpu.as_secs_f64() / run.gigabytes(),
            Wanted::Nothing,
        ),
        runs.row(
            "resident memory, at most",
            "MiB",
            |run| run.resident_mib,
            Wanted::AtMost(128.0),
        ),
    ];
    let note = format!(
        "{} MB, {} keys in random order, each about {RECORDS_PER_KEY} times.",
        bench.sizes.compact_bytes / 1_000_000,
        keys(bench)
    );
    Ok(Measured {
        rows,
        runs: runs_each,
        notes: vec![note],
    })
}

fn keys(bench: &Bench) -> u64 {
    bench.sizes.compact_bytes / RECORD_SIZE as u64 / RECORDS_PER_KEY
}

/// As good as random, and the same for both brokers (the steps of splitmix64).
fn scatter(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

// Memory in KiB is far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn measure_once(bench: &Bench, side: Side) -> Result<Run> {
    let dir = bench.dir(&format!("compact-{side}"))?;
    let broker = Broker::start_with(bench, side, &dir, PROPERTIES)?;
    let segment_bytes = (bench.sizes.compact_bytes / 10).clamp(1 << 20, 1 << 30);
    let segment_bytes = segment_bytes.to_string();
    let settings = |ratio| {
        [
            ("cleanup.policy", "compact"),
            ("segment.bytes", &*segment_bytes),
            ("min.cleanable.dirty.ratio", ratio),
        ]
    };
    client::create_topic(&broker, TOPIC, 1, &settings("1.0"))?;
    let keys = keys(bench);
    let load = Load {
        topic: TOPIC,
        partitions: 1,
        records: keys * RECORDS_PER_KEY,
        record_size: RECORD_SIZE,
        settings: &[("acks", "1"), ("linger.ms", "50")],
    };
    client::produce_with_keys(&broker, load, |number| scatter(number) % keys)?;

    let (active, bytes) = sealed(&broker)?;
    // What the kernel has still to write is not the cleaner's doing.
    write_back(&broker.partition_dir(TOPIC, 0))?;
    let begin = Instant::now();
    let mut resident = 0;
    let (elapsed, cpu) = broker.cpu_time_of(|| {
        client::configure_topic(&broker, TOPIC, &settings("0.0"))?;
        while compacted(&broker)? < active {
            if begin.elapsed() > LIMIT {
                return Err("the log is not compacted".into());
            }
            resident = resident.max(process::resident_kib(broker.pid())?);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(begin.elapsed())
    })?;
    // Now and not at the end of the benchmark: it is 10 GB.
    drop(broker);
    fs::remove_dir_all(dir)?;
    Ok(Run {
        bytes,
        elapsed,
        cpu,
        resident_mib: resident as f64 / 1024.0,
    })
}

/// Where the active segment begins, and how large all others are.
fn sealed(broker: &Broker) -> Result<(u64, u64)> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(broker.partition_dir(TOPIC, 0))? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(base_offset) = name.to_string_lossy().strip_suffix(".log") {
            segments.push((base_offset.parse()?, entry.metadata()?.len()));
        }
    }
    segments.sort_unstable();
    let (active, _) = segments.pop().ok_or("the partition has no segment")?;
    Ok((active, segments.iter().map(|(_, bytes)| bytes).sum()))
}

fn write_back(partition: &Path) -> Result<()> {
    for entry in fs::read_dir(partition)? {
        File::open(entry?.path())?.sync_all()?;
    }
    Ok(())
}

/// Up to where the broker says it has compacted.
fn compacted(broker: &Broker) -> Result<u64> {
    let path = broker.data_dir().join("cleaner-offset-checkpoint");
    // Not there before the first time.
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{TOPIC} 0 ")));
    Ok(line.map(str::parse).transpose()?.unwrap_or(0))
}
