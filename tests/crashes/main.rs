//! The program is killed at any moment, many times, under producers of both generations and groups of both protocols
//! that read, write and commit in transactions. Afterwards everything is read, and compared with what they did.
//!
//! `KILLS=200 SEED=7 cargo test --release --test crashes` makes it longer and another one. Threads race, so that a seed
//! says what is done and not in which order; how often it was killed is bounded, and so is everything that is waited for.

mod check;
mod clients;
#[path = "../common/mod.rs"]
mod common;

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use check::{Chain, Outcome, Place, Reading, World};
use clients::{
    Copier, Generation, INPUT, INPUT_PARTITIONS, OUTPUT_PARTITIONS, Protocol, Shared,
    TRANSACTION_TIMEOUT,
};
use common::{Client, fetch_request, requests::Random, topic_name};
use kafka_protocol::messages::{
    FindCoordinatorRequest, ListOffsetsRequest, MetadataRequest,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};
use protocol::error::ErrorCode;

/// How often it is killed unless `KILLS` says otherwise.
const KILLS: usize = 8;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Small segments and an eager cleaner: the logs of the coordinators are rolled and compacted all the time.
const SETTINGS: [&str; 12] = [
    "sordini.metrics.listener=",
    "offsets.topic.num.partitions=2",
    "transaction.state.log.num.partitions=2",
    "group.initial.rebalance.delay.ms=0",
    "group.min.session.timeout.ms=100",
    "group.consumer.min.session.timeout.ms=100",
    "group.consumer.session.timeout.ms=1500",
    "group.consumer.assignment.interval.ms=0",
    "log.segment.bytes=1048576",
    "offsets.topic.segment.bytes=1048576",
    "transaction.state.log.segment.bytes=1048576",
    "log.cleaner.backoff.ms=100",
];

#[test]
fn exactly_once_whenever_it_is_killed() {
    let seed = number_of("SEED").unwrap_or(1);
    let kills = number_of("KILLS").map_or(KILLS, |kills| usize::try_from(kills).expect("a count"));
    eprintln!("KILLS={kills} SEED={seed}");
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Broker {
        dir: dir.path(),
        address: free_address(),
    };
    let chains = ["classic", "consumer"].map(|group| Chain {
        group: group.to_owned(),
        input: INPUT.to_owned(),
        output: format!("out-{group}"),
    });

    let mut process = broker.start();
    let mut client = broker.client();
    client.create_topic(INPUT, INPUT_PARTITIONS);
    for chain in &chains {
        client.create_topic(&chain.output, OUTPUT_PARTITIONS);
    }
    for key_type in [0, 1] {
        wait("there are coordinators", || {
            let request = FindCoordinatorRequest::default()
                .with_key_type(key_type)
                .with_coordinator_keys(vec!["anybody".into()]);
            client.call(4, &request).coordinators[0].error_code == 0
        });
    }
    let input_id = topic_id(&mut client, INPUT);
    drop(client);

    let shared = Shared::new(broker.address);
    thread::scope(|scope| {
        // Whatever happens here, nobody is waited for who waits for a broker.
        let _stop = StopAtEnd(&shared);
        let shared = &shared;
        let (first, second) = (Generation::First, Generation::Second);
        let generations = [first, second, first, second];
        let mut seed = || random.below(usize::MAX) as u64;
        for (number, generation) in generations.into_iter().enumerate() {
            let seed = seed();
            scope.spawn(move || {
                let _stop = StopAtEnd(shared);
                clients::produce(shared, &format!("producer-{number}"), generation, seed);
            });
        }
        let kinds = [
            (Protocol::Classic, Generation::First),
            (Protocol::Consumer, Generation::Second),
        ];
        for (chain, (protocol, generation)) in chains.iter().zip(kinds) {
            for number in 0..2 {
                let seed = seed();
                let copier = Copier {
                    shared,
                    chain,
                    protocol,
                    generation,
                    input_id,
                    number,
                };
                scope.spawn(move || {
                    let _stop = StopAtEnd(shared);
                    copier.run(seed);
                });
            }
        }

        for _ in 0..kills {
            match random.below(8) {
                // While it starts.
                0 => thread::park_timeout(Duration::from_millis(random.below(200) as u64)),
                _ => {
                    broker.wait_until_it_listens();
                    let until = shared.request_count() + random.below(600) as u64;
                    wait("requests are answered", || {
                        until <= shared.request_count() || shared.is_stopped()
                    });
                }
            }
            if shared.is_stopped() {
                break;
            }
            process.kill();
            process = broker.start();
        }
        broker.wait_until_it_listens();
        let until = shared.request_count() + 500;
        wait("requests are answered", || {
            until <= shared.request_count() || shared.is_stopped()
        });
        assert!(!shared.is_stopped(), "a client has failed");
    });

    let world = broker.settled(&chains);
    process.kill();
    process = broker.start();
    let again = broker.settled(&chains);
    // Groups still notice that their members are gone.
    let is_theirs = |place: &&Place| !place.0.starts_with("__");
    for place in world.partitions.keys().filter(is_theirs) {
        let [before, after] = [&world, &again].map(|world| &world.partitions[place]);
        assert!(
            before == after,
            "KILLS={kills} SEED={seed}: {place:?} is another one"
        );
    }
    assert_eq!(world.committed, again.committed);
    process.kill();

    let journal = shared.journal();
    let counts = [Outcome::Committed, Outcome::Unknown, Outcome::Abandoned]
        .map(|outcome| journal.iter().filter(|it| it.outcome == outcome).count());
    eprintln!(
        "committed, unknown, abandoned: {counts:?}; {} requests",
        shared.request_count()
    );
    let faults = check::faults(&journal, &chains, &world);
    let log = broker.complaints();
    if !faults.is_empty() {
        let dir = dir.keep();
        for fault in &faults {
            eprintln!("{fault}");
        }
        panic!(
            "KILLS={kills} SEED={seed}: {} faults, see {}",
            faults.len(),
            dir.display()
        );
    }
    assert!(log.is_empty(), "KILLS={kills} SEED={seed}: {log:#?}");
    // Everybody has come to something.
    for name in ["producer-0", "producer-1", "classic-0", "consumer-0"] {
        let is_done = |it: &&check::Transaction| {
            it.outcome == Outcome::Committed && it.name.starts_with(name) && !it.records.is_empty()
        };
        assert!(
            journal.iter().any(|it| is_done(&it)),
            "{name} has committed nothing"
        );
    }
}

fn number_of(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|err| panic!("{name}={value}: {err}")),
    )
}

/// Below those that the system gives to who connects: who calls again and again at such a port while nobody listens
/// there comes to call himself.
fn free_address() -> SocketAddr {
    let mut random = Random::new(u64::from(std::process::id()));
    loop {
        let port = 20_000 + random.below(12_000);
        let port = u16::try_from(port).expect("a port");
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().expect("its address");
        }
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

fn topic_id(client: &mut Client, name: &str) -> uuid::Uuid {
    let request = MetadataRequest::default().with_topics(None);
    let topics = client.call(12, &request).topics;
    let is_it = |topic: &&kafka_protocol::messages::metadata_response::MetadataResponseTopic| {
        topic.name == Some(topic_name(name))
    };
    topics.iter().find(is_it).expect("the topic").topic_id
}

struct StopAtEnd<'a>(&'a Shared);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Where the program runs, one process after the other.
struct Broker<'a> {
    dir: &'a Path,
    address: SocketAddr,
}

struct Process(Child);

impl Process {
    fn kill(&mut self) {
        let ended = self.0.try_wait().expect("its state");
        assert!(ended.is_none(), "it has ended by itself: {ended:?}");
        self.0.kill().expect("it is alive");
        self.0.wait().expect("its end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Broker<'_> {
    fn start(&self) -> Process {
        let log = self.dir.join("log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sordini"));
        command.env_clear();
        command.args([
            "--override",
            &format!("log.dirs={}", self.dir.join("data").display()),
        ]);
        command.args([
            "--override",
            &format!("listeners=PLAINTEXT://{}", self.address),
        ]);
        for setting in SETTINGS {
            command.args(["--override", setting]);
        }
        let errors = log.try_clone().expect("a file");
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn();
        Process(child.expect("the program runs"))
    }

    fn wait_until_it_listens(&self) {
        wait("it listens", || TcpStream::connect(self.address).is_ok());
    }

    fn client(&self) -> Client {
        self.wait_until_it_listens();
        Client::connect(self.address)
    }

    /// What is read when every transaction has had its time.
    fn settled(&self, chains: &[Chain]) -> World {
        let mut client = self.client();
        let deadline = Instant::now() + TRANSACTION_TIMEOUT + PATIENCE / 4;
        loop {
            let world = read(&mut client, chains);
            let is_settled = world.committed.values().all(Option::is_some)
                && world
                    .partitions
                    .values()
                    .all(|it| it.last_stable_offset == it.high_watermark);
            // What has not come by then is for the checker to tell.
            if is_settled || deadline < Instant::now() {
                return world;
            }
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// What the broker itself calls an error.
    fn complaints(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.join("log")).expect("the log");
        log.lines()
            .filter(|line| line.contains("ERROR") || line.contains("panicked"))
            .map(str::to_owned)
            .collect()
    }
}

fn read(client: &mut Client, chains: &[Chain]) -> World {
    let mut world = World::default();
    let outputs = chains
        .iter()
        .map(|chain| (&*chain.output, OUTPUT_PARTITIONS));
    let topics = outputs.chain([(INPUT, INPUT_PARTITIONS), ("__consumer_offsets", 2)]);
    for (topic, count) in topics {
        for index in 0..count {
            let place = (topic.to_owned(), index);
            let reading = read_partition(client, &place);
            world.partitions.insert(place, reading);
        }
    }
    for chain in chains {
        let request = clients::offsets_request(&chain.group).with_require_stable(true);
        let answer = client.call(8, &request).groups.remove(0);
        let undecided = [
            ErrorCode::CoordinatorLoadInProgress.code(),
            ErrorCode::NotCoordinator.code(),
            ErrorCode::UnstableOffsetCommit.code(),
        ];
        let mut offsets: BTreeMap<i32, Option<i64>> = BTreeMap::new();
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let code = partition.error_code;
            assert!(code == 0 || undecided.contains(&code), "{partition:?}");
            let offset = (code == 0).then_some(partition.committed_offset.max(0));
            offsets.insert(partition.partition_index, offset);
        }
        for index in 0..INPUT_PARTITIONS {
            let offset = offsets.get(&index).copied().flatten();
            world.committed.insert((chain.group.clone(), index), offset);
        }
    }
    world
}

fn read_partition(client: &mut Client, place: &Place) -> Reading {
    let (topic, index) = place;
    let [last_stable_offset, high_watermark] = [1, 0].map(|isolation_level| {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(*index)
            .with_timestamp(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_isolation_level(isolation_level)
            .with_topics(vec![topic]);
        let partition = client
            .call(7, &request)
            .topics
            .remove(0)
            .partitions
            .remove(0);
        match partition.error_code {
            0 => partition.offset,
            _ => -1 - i64::from(isolation_level),
        }
    });
    let mut records = Vec::new();
    // What coordinators have written is not for this reader.
    let mut position = match topic.starts_with("__") {
        true => i64::MAX,
        false => 0,
    };
    while position < last_stable_offset {
        let request = fetch_request(topic, *index, position)
            .with_isolation_level(1)
            .with_max_wait_ms(0);
        let answer = client
            .call(12, &request)
            .responses
            .remove(0)
            .partitions
            .remove(0);
        assert_eq!(answer.error_code, 0, "{place:?}");
        let (shown, next_offset) = common::read_committed(&answer);
        records.extend(shown);
        position = next_offset.expect("records up to the last stable offset");
    }
    Reading {
        records,
        last_stable_offset,
        high_watermark,
    }
}
