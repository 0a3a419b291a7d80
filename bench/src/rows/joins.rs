//! Joining: how soon the only consumer of a new group has its first record, and how soon a group that many join at
//! the same time is at rest.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_executor::block_on;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::{
    net::TcpStream,
    task::{JoinSet, LocalSet},
    time::sleep,
};

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
const RUNS_MAX: u32 = 3;

/// Others of the same thread go on while it is not answered.
type Waiting = Wire<TcpStream>;

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
         connections on one thread, with a heartbeat every {} ms; stable is when each has its one partition of {members}.",
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
            while block_on(wire.consumer_heartbeat(&group, &mut member, READ, true))? {}
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

/// What the members of a group know of each other. They are all on one thread.
struct Group {
    name: String,
    members: usize,
    /// The generation that all members are in (classic protocol).
    generation: Cell<i32>,
    /// How many have their one partition (consumer protocol).
    settled: Cell<usize>,
    /// When all had it at the same time: the first of them leave before the last have noticed.
    all_settled: Cell<Option<Instant>>,
}

/// From the moment when all members are connected until the last of them is where it stays.
fn until_stable<M>(
    bench: &Bench,
    broker: &Broker,
    name: &str,
    member: impl Fn(Rc<Group>, Waiting, usize) -> M,
) -> Result<Duration>
where
    M: Future<Output = Result<Instant>> + 'static,
{
    let members = bench.sizes.members;
    Wire::connect(broker)?.find_coordinator(name)?;
    let wires = (0..members).map(|_| Wire::connect(broker));
    let wires: Vec<Wire> = wires.collect::<Result<_>>()?;
    let group = Rc::new(Group {
        name: name.to_owned(),
        members,
        generation: Cell::new(-1),
        settled: Cell::new(0),
        all_settled: Cell::new(None),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let wires = wires.into_iter().map(Waiting::into_waiting);
        let wires: Vec<Waiting> = wires.collect::<Result<_>>()?;
        let begin = Instant::now();
        let mut joining = JoinSet::new();
        for (number, wire) in wires.into_iter().enumerate() {
            joining.spawn_local(member(Rc::clone(&group), wire, number));
        }
        let mut last = begin;
        while let Some(stable) = joining.join_next().await {
            last = last.max(stable??);
        }
        Ok(last - begin)
    })
}

/// Joins again whenever the group rebalances, until the leader has seen all members.
async fn classic_member(group: Rc<Group>, mut wire: Waiting, _: usize) -> Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    let mut id = String::new();
    while Instant::now() < deadline {
        let (member, members) = wire.join_group(&group.name, &id, SHARED).await?;
        id.clone_from(&member.id);
        if members.len() == group.members {
            group.generation.set(member.generation);
        }
        let mut in_step = wire.sync_group(&member, &members, SHARED).await?;
        while in_step && Instant::now() < deadline {
            if group.generation.get() == member.generation {
                return Ok(Instant::now());
            }
            sleep(HEARTBEAT).await;
            in_step = wire.heartbeat(&member).await?;
        }
    }
    Err(format!("{} does not become stable", group.name).into())
}

/// Takes and gives up partitions as it is told, until every member has one. Then it leaves.
async fn consumer_member(group: Rc<Group>, mut wire: Waiting, number: usize) -> Result<Instant> {
    let mut member = ConsumerMember {
        id: format!("member-{number}"),
        ..ConsumerMember::default()
    };
    let deadline = Instant::now() + PATIENCE;
    let mut settled = false;
    let mut news = false;
    let stable_at = loop {
        if let Some(at) = group.all_settled.get() {
            break at;
        }
        if Instant::now() > deadline {
            return Err(format!("{} does not become stable", group.name).into());
        }
        let heard = wire.consumer_heartbeat(&group.name, &mut member, SHARED, news);
        news = heard.await?;
        let settles = member.partitions.len() == 1;
        let now_settled = match (settled, settles) {
            (false, true) => group.settled.get() + 1,
            (true, false) => group.settled.get() - 1,
            _ => group.settled.get(),
        };
        settled = settles;
        group.settled.set(now_settled);
        if now_settled == group.members && group.all_settled.get().is_none() {
            group.all_settled.set(Some(Instant::now()));
        }
        if !news {
            sleep(HEARTBEAT).await;
        }
    };
    member.epoch = -1;
    wire.consumer_heartbeat(&group.name, &mut member, SHARED, false)
        .await?;
    Ok(stable_at)
}
