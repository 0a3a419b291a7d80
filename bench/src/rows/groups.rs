//! Groups at rest: how fast offsets are committed, what a group takes in memory, and how soon all is there after a restart.

use std::{
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use crate::{
    Result,
    bench::Bench,
    broker::{Broker, Side},
    client, process,
    report::{Measured, Wanted},
    turns::{in_turns, kafka_once},
    wire::{Member, Wire},
};

const TOPIC: &str = "read";
/// Of the topic, all of which every commit is about.
const PARTITIONS: i32 = 100;
/// Consumers that commit at the same time, each in a group of its own.
const COMMITTERS: u64 = 8;
/// What a broker does by itself after a load has settled.
const SETTLE: Duration = Duration::from_secs(5);
const RUNS_MAX: u32 = 3;

struct Commits {
    per_second: f64,
    cpu_micros: f64,
    bare_per_second: f64,
    bare_cpu_micros: f64,
}

/// Who commits one offset of all partitions, and waits for the answer.
trait Committer: Send {
    fn commit(&mut self, offset: i64) -> Result<()>;
}

struct Groups {
    kib_each: f64,
    restart_s: f64,
}

pub(super) fn commits(bench: &Bench) -> Result<Measured> {
    let mut brokers = bench.brokers("commits")?;
    for broker in brokers.iter() {
        client::create_topic(broker, TOPIC, PARTITIONS, &[])?;
        for committer in 0..COMMITTERS {
            Wire::connect(broker)?.find_coordinator(&name(committer))?;
        }
    }
    let runs = in_turns(&mut brokers, bench.runs, |_, broker| {
        let (per_second, cpu_micros) = commit_all(bench, broker, librdkafka)?;
        let (bare_per_second, bare_cpu_micros) = commit_all(bench, broker, bare)?;
        Ok(Commits {
            per_second,
            cpu_micros,
            bare_per_second,
            bare_cpu_micros,
        })
    })?;
    let rows = vec![
        runs.row(
            "commits of 100 partitions, librdkafka",
            "per s",
            |run| run.per_second,
            Wanted::RatioAtLeast(3.0),
        ),
        runs.row(
            "CPU of each, librdkafka",
            "µs",
            |run| run.cpu_micros,
            Wanted::RatioAtMost(0.3),
        ),
        runs.row(
            "commits of 100 partitions, bare connections",
            "per s",
            |run| run.bare_per_second,
            Wanted::RatioAtLeast(3.0),
        ),
        runs.row(
            "CPU of each, bare connections",
            "µs",
            |run| run.bare_cpu_micros,
            Wanted::RatioAtMost(0.3),
        ),
    ];
    let note = format!(
        "{COMMITTERS} clients commit at the same time, each waiting for its answer. They share the cores with the \
         broker; bare connections leave it more of them."
    );
    Ok(Measured {
        rows,
        runs: bench.runs,
        notes: vec![note],
    })
}

pub(super) fn many(bench: &Bench) -> Result<Measured> {
    let runs_each = bench.runs.min(RUNS_MAX);
    let runs = kafka_once(&bench.sides, runs_each, |side| many_groups(bench, side))?;
    let groups = bench.sizes.groups;
    let rows = vec![
        runs.row(
            format!("each of {groups} groups with one member"),
            "KiB",
            |run| run.kib_each,
            Wanted::AtMost(4.0),
        ),
        runs.row(
            format!("{groups} groups: from exec until all of them answer"),
            "s",
            |run| run.restart_s,
            Wanted::AtMost(2.0),
        ),
    ];
    let note = "The groups have committed one offset each. The restart is after a clean stop. Kafka has one turn.";
    Ok(Measured {
        rows,
        runs: runs_each,
        notes: vec![note.to_owned()],
    })
}

pub(super) fn load(bench: &Bench) -> Result<Measured> {
    let runs_each = bench.runs.min(RUNS_MAX);
    let runs = kafka_once(&bench.sides, runs_each, |side| load_once(bench, side))?;
    let offsets = offsets(bench);
    let row = runs.row(
        format!("{offsets} commits in one partition: from exec until they are loaded"),
        "s",
        |seconds| *seconds,
        Wanted::AtMost(2.0),
    );
    let note = "A hundred partitions, committed again and again. The restart is after a clean stop. Kafka has one turn.";
    Ok(Measured {
        rows: vec![row],
        runs: runs_each,
        notes: vec![note.to_owned()],
    })
}

fn name(committer: u64) -> String {
    format!("committer-{committer}")
}

/// Commits per second, and what each took of the broker's processor time (µs). All commits are shared among the
/// committers, after as many that warm up.
fn commit_all<C: Committer>(
    bench: &Bench,
    broker: &Broker,
    committer: fn(&Broker, &str) -> Result<C>,
) -> Result<(f64, f64)> {
    let committers = (0..COMMITTERS).map(|number| committer(broker, &name(number)));
    let mut committers: Vec<C> = committers.collect::<Result<_>>()?;
    let each = i64::try_from(bench.sizes.commits / COMMITTERS)?;
    let mut all = || {
        let begin = Instant::now();
        thread::scope(|scope| {
            let threads = committers.iter_mut().map(|committer| {
                scope.spawn(move || (1..=each).try_for_each(|offset| committer.commit(offset)))
            });
            let threads: Vec<_> = threads.collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "a committer has panicked")?)
        })?;
        Ok(begin.elapsed())
    };
    all()?;
    let (elapsed, cpu_time): (Duration, Duration) = broker.cpu_time_of(all)?;
    // Some ten thousand.
    #[allow(clippy::cast_precision_loss)]
    let count = bench.sizes.commits as f64;
    let micros_each = cpu_time.as_secs_f64() * 1e6 / count;
    Ok((count / elapsed.as_secs_f64(), micros_each))
}

fn librdkafka(broker: &Broker, group: &str) -> Result<BaseConsumer> {
    let settings = [("group.id", group), ("enable.auto.commit", "false")];
    Ok(client::config(&broker.address(), &settings).create()?)
}

impl Committer for BaseConsumer {
    fn commit(&mut self, offset: i64) -> Result<()> {
        let mut offsets = TopicPartitionList::with_capacity(usize::try_from(PARTITIONS)?);
        for partition in 0..PARTITIONS {
            offsets.add_partition_offset(TOPIC, partition, Offset::Offset(offset))?;
        }
        Ok(Consumer::commit(self, &offsets, CommitMode::Sync)?)
    }
}

struct Bare {
    wire: Wire,
    group: String,
}

fn bare(broker: &Broker, group: &str) -> Result<Bare> {
    Ok(Bare {
        wire: Wire::connect(broker)?,
        group: group.to_owned(),
    })
}

impl Committer for Bare {
    fn commit(&mut self, offset: i64) -> Result<()> {
        self.wire.commit(&self.group, TOPIC, PARTITIONS, offset)
    }
}

fn many_groups(bench: &Bench, side: Side) -> Result<Groups> {
    let broker = bench.broker(side, "groups")?;
    client::create_topic(&broker, TOPIC, 1, &[])?;
    let mut wire = Wire::connect(&broker)?;
    // The topic of offsets, and all its partitions' coordinators, are not part of a group.
    for group in 0..100 {
        wire.find_coordinator(&format!("before-{group}"))?;
    }
    thread::sleep(SETTLE);
    let before = process::resident_kib(broker.pid())?;
    let members = (0..bench.sizes.groups).map(|number| {
        let group = format!("group-{number}");
        let member = wire.join(&group, TOPIC)?;
        wire.commit_as(&member, TOPIC, 1, 1)?;
        Ok(member)
    });
    let members: Vec<Member> = members.collect::<Result<_>>()?;
    thread::sleep(SETTLE);
    let after = process::resident_kib(broker.pid())?;

    let dir = broker.stop()?;
    let begin = Instant::now();
    let broker = Broker::start(bench, side, &dir)?;
    let mut wire = Wire::connect(&broker)?;
    for member in &members {
        wire.wait_for_member(member)?;
    }
    // Some ten thousand groups of some KiB.
    #[allow(clippy::cast_precision_loss)]
    let kib_each = after.saturating_sub(before) as f64 / members.len() as f64;
    Ok(Groups {
        kib_each,
        restart_s: begin.elapsed().as_secs_f64(),
    })
}

/// How soon a partition with a million commits is there again (s).
fn load_once(bench: &Bench, side: Side) -> Result<f64> {
    const GROUP: &str = "loaded";
    let broker = bench.broker(side, "load")?;
    client::create_topic(&broker, TOPIC, PARTITIONS, &[])?;
    let mut wire = Wire::connect(&broker)?;
    wire.find_coordinator(GROUP)?;
    for offset in 0..offsets(bench) / i64::from(PARTITIONS) {
        wire.commit(GROUP, TOPIC, PARTITIONS, offset)?;
    }
    let dir = broker.stop()?;
    let begin = Instant::now();
    let broker = Broker::start(bench, side, &dir)?;
    Wire::connect(&broker)?.wait_for_offsets(GROUP)?;
    Ok(begin.elapsed().as_secs_f64())
}

/// A hundred for every group.
fn offsets(bench: &Bench) -> i64 {
    bench.sizes.groups * 100
}
