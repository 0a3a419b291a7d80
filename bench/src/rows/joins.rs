//! Joining: how soon the only consumer of a new group has its first record, and how soon a group that many join at
//! the same time is at rest.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::{
    Result,
    bench::Bench,
    broker::Broker,
    client::{self, Load},
    report::{Measured, Wanted},
    turns::in_turns,
    wire::{ConsumerMember, CoordinatorOf, Wire},
};

const READ: &str = "read";
/// With a partition for every member.
const SHARED: &str = "shared";
/// Far more often than clients do, or their patience would be measured.
const HEARTBEAT: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(120);
const STACK: usize = 256 * 1024;
const RUNS_MAX: u32 = 3;

struct Run {
    first_record_classic: Duration,
    first_record_consumer: Duration,
    bare_first_record_classic: Duration,
    bare_first_record_consumer: Duration,
    stable_classic: Duration,
    stable_consumer: Duration,
}

pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;

    let members = bench.sizes.members;
    let mut brokers = bench.brokers("joins")?;
    for broker in brokers.iter() {
        client::create_topic(broker, READ, 1, &[])?;
        client::create_topic(broker, SHARED, i32::try_from(members)?, &[])?;
        let load = Load {
            topic: READ,
            partitions: 1,
            records: 100,
            record_size: 1024,
            settings: &[],
        };
        client::produce(broker, load)?;
    }
    let runs_each = bench.runs.min(RUNS_MAX);
    let mut turn = 0;
    let runs = in_turns(&mut brokers, runs_each, |_, broker| {
        turn += 1;
        measure_once(bench, broker, turn)
    })?;

    let rows = vec![
        runs.row(
            "from subscribe to the first record, librdkafka, classic protocol",
            "ms",
            |run| run.first_record_classic.as_secs_f64() * 1e3,
            Wanted::RatioAtMost(1.0),
        ),
        runs.row(
            "from subscribe to the first record, librdkafka, consumer protocol",
            "ms",
            |run| run.first_record_consumer.as_secs_f64() * 1e3,
            Wanted::RatioAtMost(0.5),
        ),
        runs.row(
            "the same requests by a bare connection, classic protocol",
            "ms",
            |run| run.bare_first_record_classic.as_secs_f64() * 1e3,
            Wanted::RatioAtMost(1.0),
        ),
        runs.row(
            "the same requests by a bare connection, consumer protocol",
            "ms",
            |run| run.bare_first_record_consumer.as_secs_f64() * 1e3,
            Wanted::RatioAtMost(0.5),
        ),
        runs.row(
            format!("{members} members join at once, until stable, classic protocol"),
            "s",
            |run| run.stable_classic.as_secs_f64(),
            Wanted::RatioAtMost(0.5),
        ),
        runs.row(
            format!("{members} members join at once, until stable, consumer protocol"),
            "s",
            |run| run.stable_consumer.as_secs_f64(),
            Wanted::RatioAtMost(0.5),
        ),
    ];
    let note = format!(
        "The first record: the median of {} new groups with one consumer. The members are bare \
         connections with a heartbeat every {} ms; stable is when each has its one partition of {members}.",
        bench.sizes.joins,
        HEARTBEAT.as_millis()
    );
    Ok(Measured {
        rows,
        runs: runs_each,
        notes: vec![note],
    })
}

fn measure_once(bench: &Bench, broker: &Broker, turn: u32) -> Result<Run> {
    let classic = |group: &str| until_stable(bench, broker, group, classic_member);
    let consumer = |group: &str| until_stable(bench, broker, group, consumer_member);
    // The first of each warms up.
    classic(&format!("classic-{turn}-before"))?;
    consumer(&format!("consumer-{turn}-before"))?;
    Ok(Run {
        first_record_classic: first_record(bench, broker, "classic", turn)?,
        first_record_consumer: first_record(bench, broker, "consumer", turn)?,
        bare_first_record_classic: bare_first_record(bench, broker, "classic", turn)?,
        bare_first_record_consumer: bare_first_record(bench, broker, "consumer", turn)?,
        stable_classic: classic(&format!("classic-{turn}"))?,
        stable_consumer: consumer(&format!("consumer-{turn}"))?,
    })
}

/// The median over some new groups.
fn first_record(bench: &Bench, broker: &Broker, protocol: &str, turn: u32) -> Result<Duration> {
    let joins = (0..bench.sizes.joins).map(|number| {
        let group = format!("{protocol}-{turn}-alone-{number}");
        let settings = [
            ("group.id", &*group),
            ("group.protocol", protocol),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "false"),
        ];
        let consumer: BaseConsumer = client::config(&broker.address(), &settings).create()?;
        let begin = Instant::now();
        consumer.subscribe(&[READ])?;
        client::next(&consumer)?;
        Ok(begin.elapsed())
    });
    median(joins)
}

/// What a client asks for from its connection to its first record, without what it waits by itself in between.
fn bare_first_record(
    bench: &Bench,
    broker: &Broker,
    protocol: &str,
    turn: u32,
) -> Result<Duration> {
    let joins = (0..bench.sizes.joins).map(|number| {
        let group = format!("{protocol}-{turn}-bare-{number}");
        let begin = Instant::now();
        let mut wire = Wire::connect(broker)?;
        wire.find(CoordinatorOf::Groups, &group)?;
        if protocol == "classic" {
            wire.join(&group, READ)?;
        } else {
            let mut member = ConsumerMember {
                id: "member".to_owned(),
                ..ConsumerMember::default()
            };
            // It takes what it is given, and says so.
            while wire.consumer_heartbeat(&group, &mut member, READ, true)? {}
        }
        if wire.read_first(&group, READ)? == 0 {
            return Err("there are no records".into());
        }
        Ok(begin.elapsed())
    });
    median(joins)
}

fn median(joins: impl Iterator<Item = Result<Duration>>) -> Result<Duration> {
    let mut joins: Vec<Duration> = joins.collect::<Result<_>>()?;
    joins.sort_unstable();
    Ok(joins[joins.len() / 2])
}

/// What the members of a group know of each other.
struct Group<'a> {
    name: &'a str,
    members: usize,
    begin: &'a Barrier,
    /// The generation that all members are in (classic protocol).
    generation: AtomicI32,
    /// How many have their one partition (consumer protocol).
    settled: AtomicUsize,
    /// All have had it at the same time: the first of them leave before the last have noticed.
    all_settled: AtomicBool,
}

/// From the moment when all members are connected until the last of them is where it stays.
fn until_stable(
    bench: &Bench,
    broker: &Broker,
    name: &str,
    member: fn(&Group<'_>, Wire, usize) -> Result<Instant>,
) -> Result<Duration> {
    let members = bench.sizes.members;
    Wire::connect(broker)?.find_coordinator(name)?;
    let wires = (0..members).map(|_| Wire::connect(broker));
    let wires: Vec<Wire> = wires.collect::<Result<_>>()?;
    let group = Group {
        name,
        members,
        begin: &Barrier::new(members + 1),
        generation: AtomicI32::new(-1),
        settled: AtomicUsize::new(0),
        all_settled: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let group = &group;
        let threads = wires.into_iter().enumerate().map(|(number, wire)| {
            thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, move || member(group, wire, number))
        });
        let threads: Vec<_> = threads.collect::<std::io::Result<_>>()?;
        group.begin.wait();
        let begin = Instant::now();
        let mut last = begin;
        for thread in threads {
            last = last.max(thread.join().map_err(|_| "a member has panicked")??);
        }
        Ok(last - begin)
    })
}

/// Joins again whenever the group rebalances, until the leader has seen all members.
fn classic_member(group: &Group<'_>, mut wire: Wire, _: usize) -> Result<Instant> {
    group.begin.wait();
    let deadline = Instant::now() + PATIENCE;
    let mut id = String::new();
    while Instant::now() < deadline {
        let (member, members) = wire.join_group(group.name, &id, SHARED)?;
        id.clone_from(&member.id);
        if members.len() == group.members {
            group.generation.store(member.generation, Ordering::Release);
        }
        let mut in_step = wire.sync_group(&member, &members, SHARED)?;
        while in_step && Instant::now() < deadline {
            if group.generation.load(Ordering::Acquire) == member.generation {
                return Ok(Instant::now());
            }
            thread::sleep(HEARTBEAT);
            in_step = wire.heartbeat(&member)?;
        }
    }
    Err(format!("{} does not become stable", group.name).into())
}

/// Takes and gives up partitions as it is told, until every member has one. Then it leaves.
fn consumer_member(group: &Group<'_>, mut wire: Wire, number: usize) -> Result<Instant> {
    let mut member = ConsumerMember {
        id: format!("member-{number}"),
        ..ConsumerMember::default()
    };
    group.begin.wait();
    let deadline = Instant::now() + PATIENCE;
    let mut settled = false;
    let mut news = false;
    while !group.all_settled.load(Ordering::Acquire) {
        if Instant::now() > deadline {
            return Err(format!("{} does not become stable", group.name).into());
        }
        news = wire.consumer_heartbeat(group.name, &mut member, SHARED, news)?;
        let settles = member.partitions.len() == 1;
        if settles && !settled {
            let before = group.settled.fetch_add(1, Ordering::AcqRel);
            if before + 1 == group.members {
                group.all_settled.store(true, Ordering::Release);
            }
        } else if settled && !settles {
            group.settled.fetch_sub(1, Ordering::AcqRel);
        }
        settled = settles;
        if !news {
            thread::sleep(HEARTBEAT);
        }
    }
    let stable_at = Instant::now();
    member.epoch = -1;
    wire.consumer_heartbeat(group.name, &mut member, SHARED, false)?;
    Ok(stable_at)
}
