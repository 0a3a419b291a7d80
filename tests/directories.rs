//! Log directories that fail, while the broker runs and when it starts: what is in them is refused, what
//! is elsewhere is served, and nothing that was acknowledged is lost. What a client is told is what Apache
//! Kafka 4.4.0 told when one of its two directories ran full.

mod common;
#[path = "../storage/tests/common/faulty.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod faulty;

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Client, TestBroker, batch, fetch_request, produce_request, topic_name, values};
use faulty::{Fault, FaultyDisk};
use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, CreateTopicsResponse, DeleteRecordsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest,
    IncrementalAlterConfigsRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse,
    OffsetForLeaderEpochRequest,
    alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    describe_producers_request::TopicRequest,
    describe_topic_partitions_request,
    elect_leaders_request::TopicPartitions,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    metadata_request::MetadataRequestTopic,
    metadata_response::MetadataResponsePartition,
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
};
use protocol::messages;
use storage::disk::{self, Disk, Entry, File, Lock, Mode, Space};

const KAFKA_STORAGE_ERROR: i16 = 56;
const LEADER_NOT_AVAILABLE: i16 = 5;
const INVALID_REPLICATION_FACTOR: i16 = 38;
const INVALID_REPLICA_ASSIGNMENT: i16 = 39;
const INVALID_REQUEST: i16 = 42;

/// The directory on the disk that fails.
const FAULTY: &str = "/faulty";

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A broker with two log directories: the first, with the metadata log, on the machine's disk, the second
/// on one that can be made to fail.
struct Machine {
    faulty: FaultyDisk,
    /// No new files in the first.
    first_is_broken: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Disks {
    real: Arc<dyn Disk>,
    faulty: Arc<dyn Disk>,
    first_is_broken: Arc<AtomicBool>,
}

impl Machine {
    fn new(seed: u64) -> Machine {
        Machine {
            faulty: FaultyDisk::new(seed, Path::new(FAULTY)),
            first_is_broken: Arc::default(),
        }
    }

    fn start(&self, properties: &[(&str, &str)]) -> TestBroker {
        self.start_in(tempfile::tempdir().expect("a directory"), properties)
    }

    fn start_in(&self, dir: tempfile::TempDir, properties: &[(&str, &str)]) -> TestBroker {
        let disks = Disks {
            real: disk::real(),
            faulty: self.faulty.disk(),
            first_is_broken: Arc::clone(&self.first_is_broken),
        };
        let dirs = format!("{},{FAULTY}", dir.path().join("data").display());
        // Nothing can be sent from a disk in memory, nor from any other with this.
        let mut all = vec![
            ("log.dirs", &*dirs),
            ("sordini.fetch.sendfile.min.bytes", "2147483647"),
        ];
        all.extend_from_slice(properties);
        TestBroker::start_on(Arc::new(disks), dir, &all)
    }

    fn restart(&self, mut broker: TestBroker, properties: &[(&str, &str)]) -> TestBroker {
        broker.stop();
        let dir = std::mem::replace(&mut broker.dir, tempfile::tempdir().expect("a directory"));
        self.start_in(dir, properties)
    }
}

#[test]
fn a_directory_that_fails_takes_its_partitions_with_it_and_no_others() {
    let machine = Machine::new(1);
    let broker = machine.start(&[("sordini.metrics.listener", "127.0.0.1:0")]);
    let mut client = broker.client();
    client.create_topic("orders", 4);
    for index in 0..4 {
        assert_eq!(produce(&mut client, index, "before"), 0);
    }
    let bad = in_directory(&mut client, FAULTY);
    let good: Vec<i32> = (0..4).filter(|index| !bad.contains(index)).collect();
    assert_eq!((bad.len(), good.len()), (2, 2));

    machine.faulty.fail_in(0, Fault::Full);
    // Some of it may still have been written.
    let full = || produce(&mut broker.client(), bad[0], "too much") == KAFKA_STORAGE_ERROR;
    until("the disk is full", full);
    // The other partition on it has not been written to, and is told of all the same.
    until("the directory is given up", || {
        leaders(&mut client, "orders")[&bad[1]].error_code == LEADER_NOT_AVAILABLE
    });
    for (index, partition) in leaders(&mut client, "orders") {
        let ids = |ids: &[kafka_protocol::messages::BrokerId]| -> Vec<i32> {
            ids.iter().map(|id| id.0).collect()
        };
        let told = (
            partition.error_code,
            partition.leader_id.0,
            partition.leader_epoch,
            ids(&partition.replica_nodes),
            ids(&partition.isr_nodes),
            ids(&partition.offline_replicas),
        );
        let expected = match bad.contains(&index) {
            true => (LEADER_NOT_AVAILABLE, -1, 1, vec![1], vec![], vec![1]),
            false => (0, 1, 0, vec![1], vec![1], vec![]),
        };
        assert_eq!(told, expected, "orders-{index}");
    }
    assert_eq!(
        described(&mut client, bad[0]),
        (0, -1, vec![], vec![1], vec![1], vec![1])
    );
    for index in bad.iter().copied() {
        assert_eq!(
            codes(&mut client, index),
            [KAFKA_STORAGE_ERROR; 6],
            "orders-{index}"
        );
    }
    for index in good.iter().copied() {
        assert_eq!(codes(&mut client, index), [0; 6], "orders-{index}");
    }
    assert_eq!(elected(&mut client, 0, &[bad[0], good[0]]), [80, 84]);
    assert_eq!(elected(&mut client, 1, &[bad[0], good[0]]), [83, 84]);

    let dirs = directories(&mut client);
    assert_eq!(
        dirs.iter().map(|dir| dir.1).collect::<Vec<_>>(),
        [0, KAFKA_STORAGE_ERROR]
    );
    assert_eq!(dirs[1].2, []);
    assert_eq!(moved(&mut client, &dirs[0].0, bad[0]), KAFKA_STORAGE_ERROR);
    assert_eq!(moved(&mut client, FAULTY, good[0]), KAFKA_STORAGE_ERROR);

    let running = broker.running.as_ref().expect("it runs");
    let scraped = scrape(running.metrics_address().expect("metrics are served"));
    for line in [
        "kafka_log_logmanager_offlinelogdirectorycount 1",
        "kafka_log_logmanager_logdirectoryoffline{logDirectory=\"/faulty\"} 1",
        "kafka_server_replicamanager_offlinereplicacount 2",
        "kafka_controller_kafkacontroller_offlinepartitionscount 2",
    ] {
        assert!(
            scraped.lines().any(|found| found == line),
            "{line} in\n{scraped}"
        );
    }

    // What is new goes where there is room.
    client.create_topic("more", 4);
    assert_eq!(directories(&mut client)[0].2.len(), 4 + good.len());

    drop(client);
    machine.faulty.restart();
    let broker = machine.restart(broker, &[]);
    let mut client = broker.client();
    for (index, partition) in leaders(&mut client, "orders") {
        assert_eq!((partition.error_code, partition.leader_id.0), (0, 1));
        assert_eq!(records(&mut client, index)[0], "before");
        assert_eq!(produce(&mut client, index, "after"), 0);
    }
}

/// An empty log in another directory would be taken for the partition, and what is in the failed one for
/// a stray.
#[test]
fn what_is_in_a_directory_that_cannot_be_opened_is_waited_for() {
    let machine = Machine::new(2);
    let broker = machine.start(&[]);
    let mut client = broker.client();
    client.create_topic("orders", 2);
    for index in 0..2 {
        assert_eq!(produce(&mut client, index, "before"), 0);
    }
    let bad = in_directory(&mut client, FAULTY);
    assert_eq!(bad.len(), 1);
    drop(client);
    let mut broker = broker;
    broker.stop();
    machine.faulty.fail_in(0, Fault::Die);
    let broker = machine.restart(broker, &[]);
    let mut client = broker.client();
    for index in 0..2 {
        let is_bad = bad.contains(&index);
        let partition = &leaders(&mut client, "orders")[&index];
        let expected = if is_bad {
            (LEADER_NOT_AVAILABLE, -1)
        } else {
            (0, 1)
        };
        assert_eq!((partition.error_code, partition.leader_id.0), expected);
        let expected = if is_bad { KAFKA_STORAGE_ERROR } else { 0 };
        assert_eq!(produce(&mut client, index, "meanwhile"), expected);
    }
    let dirs = directories(&mut client);
    assert_eq!((&*dirs[1].0, dirs[1].1), (FAULTY, KAFKA_STORAGE_ERROR));

    drop(client);
    machine.faulty.restart();
    let broker = machine.restart(broker, &[]);
    let mut client = broker.client();
    assert_eq!(produce(&mut client, bad[0], "after"), 0);
    assert_eq!(records(&mut client, bad[0]), ["before", "after"]);
}

/// It was asked for the cluster's id, with no other directory's answer accepted in its place.
#[test]
fn a_directory_that_cannot_be_read_may_be_the_first_one_listed() {
    let machine = Machine::new(6);
    let dir = tempfile::tempdir().expect("a directory");
    let good = dir.path().join("data").display().to_string();
    let dirs = format!("{FAULTY},{good}");
    let properties = [("log.dirs", &*dirs), ("metadata.log.dir", &*good)];
    // The other is new.
    machine.faulty.fail_in(0, Fault::Die);
    let broker = machine.start_in(dir, &properties);
    broker.client().create_topic("orders", 1);
    assert_eq!(produce(&mut broker.client(), 0, "one"), 0);
    // And formatted.
    let broker = machine.restart(broker, &properties);
    let mut client = broker.client();
    assert_eq!(produce(&mut client, 0, "two"), 0);
    let offline = directories(&mut client)
        .into_iter()
        .filter(|dir| dir.1 == KAFKA_STORAGE_ERROR);
    assert_eq!(offline.count(), 1);
}

#[test]
fn a_cordoned_directory_takes_nothing_new_and_keeps_what_it_has() {
    let machine = Machine::new(5);
    let broker = machine.start(&[("cordoned.log.dirs", FAULTY)]);
    let mut client = broker.client();
    let first = broker.dir.path().join("data").display().to_string();
    assert_eq!(cordoned(&mut client), [false, true]);
    client.create_topic("orders", 3);
    assert_eq!(in_directory(&mut client, &first), [0, 1, 2]);
    assert_eq!(moved(&mut client, FAULTY, 0), INVALID_REPLICA_ASSIGNMENT);

    // The other way round, while it runs.
    assert_eq!(cordon(&mut client, &first), 0);
    until("it is told", || cordoned(&mut client) == [true, false]);
    client.create_topic("others", 1);
    assert_eq!(in_directory(&mut client, FAULTY), [0]);
    assert_eq!(produce(&mut client, 1, "where it is"), 0);
    assert_eq!(moved(&mut client, FAULTY, 0), 0);
    // Its copy is shown beside it until it has.
    until("it has moved", || {
        in_directory(&mut client, FAULTY) == [0, 0] && in_directory(&mut client, &first) == [1, 2]
    });
    assert_eq!(moved(&mut client, &first, 0), INVALID_REPLICA_ASSIGNMENT);

    assert_eq!(cordon(&mut client, "/elsewhere"), INVALID_REQUEST);
    assert_eq!(cordon(&mut client, "*"), 0);
    until("it is told", || cordoned(&mut client) == [true, true]);
    let answer: CreateTopicsResponse = client.call(7, &Client::new_topic("more", 1, &[]));
    assert_eq!(answer.topics[0].error_code, INVALID_REPLICATION_FACTOR);
    assert_eq!(produce(&mut client, 1, "still there"), 0);
    assert_eq!(cordon(&mut client, ""), 0);
    until("it is told", || cordoned(&mut client) == [false, false]);
    client.create_topic("more", 1);
}

/// Which of the directories take nothing new, as DescribeLogDirs 5 tells it.
fn cordoned(client: &mut Client) -> Vec<bool> {
    client.send_frame(b"\0\x23\0\x05\0\0\0\x07\xff\xff\0\0\0");
    let answer = client.receive_frame().expect("an answer");
    let answer = messages::DescribeLogDirsResponse::decode(answer.slice(5..), 5);
    let dirs = answer.expect("an answer").results;
    dirs.iter().map(|dir| dir.is_cordoned).collect()
}

fn cordon(client: &mut Client, dirs: &str) -> i16 {
    const BROKER: i8 = 4;
    let config = AlterableConfig::default()
        .with_name("cordoned.log.dirs".to_owned().into())
        .with_value(Some(dirs.to_owned().into()));
    let resource = AlterConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name("1".to_owned().into())
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    client.call(1, &request).responses[0].error_code
}

#[test]
fn without_the_metadata_the_broker_cannot_go_on() {
    let machine = Machine::new(3);
    let broker = machine.start(&[]);
    let mut client = broker.client();
    machine.first_is_broken.store(true, Ordering::Release);
    client.create_topic("orders", 2);
    let running = broker.running.as_ref().expect("it runs");
    let failed = async { tokio::time::timeout(PATIENCE, running.failed()).await };
    let why = broker.runtime.block_on(failed).expect("it has failed");
    let first = broker.dir.path().join("data");
    assert_eq!(
        why,
        format!("the metadata log dir {} has failed", first.display())
    );
    drop(client);

    // And with none at all.
    let machine = Machine::new(4);
    let broker = machine.start(&[]);
    let mut client = broker.client();
    machine.faulty.fail_in(0, Fault::Die);
    machine.first_is_broken.store(true, Ordering::Release);
    client.create_topic("orders", 2);
    let running = broker.running.as_ref().expect("it runs");
    let failed = async { tokio::time::timeout(PATIENCE, running.failed()).await };
    broker.runtime.block_on(failed).expect("it has failed");
}

/// The power goes at any moment, and what was not synced is lost in part and in any order. With
/// `flush.messages=1` an acknowledgement says that the records are on the disk.
#[test]
fn what_was_acknowledged_as_flushed_is_there_after_the_power_was_lost() {
    for seed in 0..12 {
        let machine = Machine::new(seed);
        let broker = machine.start(&[("log.flush.interval.messages", "1")]);
        let mut client = broker.client();
        client.create_topic("orders", 2);
        let index = in_directory(&mut client, FAULTY)[0];
        machine.faulty.fail_in(20 + seed * 7, Fault::Die);
        let mut sent = 0;
        let mut acknowledged = Vec::new();
        loop {
            let value = sent.to_string();
            sent += 1;
            match produce(&mut client, index, &value) {
                0 => acknowledged.push(value),
                code => {
                    assert_eq!(code, KAFKA_STORAGE_ERROR);
                    break;
                }
            }
        }
        drop(client);
        let mut broker = broker;
        broker.stop();
        machine.faulty.lose_power();
        let broker = machine.restart(broker, &[]);
        let mut client = broker.client();
        // Whoever was told of a failure does not know whether it was written: one more may be there.
        let found = records(&mut client, index);
        assert_eq!(found[..acknowledged.len()], acknowledged, "seed {seed}");
        assert!(
            found.len() <= acknowledged.len() + 1,
            "seed {seed}: {found:?}"
        );
        assert_eq!(produce(&mut client, index, "after"), 0);
        assert_eq!(records(&mut client, index).len(), found.len() + 1);
    }
}

/// A replica goes from one directory to the other and back while it is written to, and the process is
/// killed at any moment of it.
#[test]
fn a_replica_on_its_way_survives_kills() {
    let root = tempfile::tempdir().expect("a directory");
    let dirs = ["first", "second"].map(|name| root.path().join(name).display().to_string());
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut acknowledged: Vec<usize> = Vec::new();
    let mut next = 0;
    for round in 0..6 {
        let process = Process::start(&dirs, address);
        let mut client = Client::connect(address);
        if round == 0 {
            client.create_topic("orders", 1);
        }
        let found = everything(&mut client);
        assert!(
            found.is_sorted_by(|a, b| a < b),
            "round {round}: once each, and in order"
        );
        let found: BTreeSet<usize> = found.into_iter().collect();
        let lost = acknowledged.iter().find(|value| !found.contains(value));
        assert_eq!(lost, None, "round {round}");

        let load = std::thread::spawn(move || produce_until_killed(address, next));
        let mut moves = 0;
        let mut looks = 0;
        let enough_looks = 3 + round * 17;
        while moves < 1 + round % 3 || looks < enough_looks {
            looks += 1;
            let homes = in_directories(&mut client);
            let [home] = homes[..] else {
                continue;
            };
            moves += 1;
            assert_eq!(moved(&mut client, &dirs[1 - home], 0), 0);
        }
        process.kill();
        let (more, sent) = load.join().expect("it ends when the broker does");
        acknowledged.extend(more);
        next = sent;
    }
    assert!(acknowledged.len() > 6, "something was written meanwhile");
}

/// A kill between the two renames of a move leaves a partition whole in both directories. It goes on in
/// one of them; the other log is not there to be taken for it after a later start, nor in the way of a
/// later move.
#[test]
fn a_partition_in_two_directories_goes_on_in_one() {
    let root = tempfile::tempdir().expect("a directory");
    let dirs = ["first", "second"].map(|name| root.path().join(name).display().to_string());
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let process = Process::start(&dirs, address);
    let mut client = Client::connect(address);
    client.create_topic("orders", 2);
    let homes = [0, 1].map(|index| {
        assert_eq!(produce(&mut client, index, "before"), 0);
        let is_there = |dir: &&String| Path::new(dir).join(format!("orders-{index}")).is_dir();
        let home = dirs.iter().position(|dir| is_there(&dir));
        home.expect("it is in one of them")
    });
    assert_ne!(homes[0], homes[1]);
    process.kill();
    for (index, home) in homes.into_iter().enumerate() {
        let log = format!("orders-{index}");
        let copy = Path::new(&dirs[1 - home]).join(&log);
        std::fs::create_dir(&copy).expect("it is not there yet");
        for file in std::fs::read_dir(Path::new(&dirs[home]).join(&log)).expect("it is there") {
            let file = file.expect("a file").path();
            let name = file.file_name().expect("its name");
            std::fs::copy(&file, copy.join(name)).expect("it can be copied");
        }
    }

    let process = Process::start(&dirs, address);
    let mut client = Client::connect(address);
    for index in 0..2 {
        assert_eq!(produce(&mut client, index, "after"), 0);
    }
    process.kill();
    let _process = Process::start(&dirs, address);
    let mut client = Client::connect(address);
    for index in 0..2 {
        assert_eq!(records(&mut client, index), ["before", "after"]);
        // Either will do: the controller may not have been told where it was before the first kill.
        let places = [0, 1].map(|at: usize| Path::new(&dirs[at]).join(format!("orders-{index}")));
        let [home] = [0, 1]
            .into_iter()
            .filter(|at: &usize| places[*at].is_dir())
            .collect::<Vec<_>>()[..]
        else {
            panic!("it is not in one of {places:?}");
        };
        let there = &places[home];
        assert_eq!(moved(&mut client, &dirs[1 - home], index), 0);
        until("it has moved", || !there.exists());
        assert_eq!(records(&mut client, index), ["before", "after"]);
    }
}

/// The limit of open files is for the logs first. Where only the soft one is low it is raised, as Java does.
#[test]
fn a_crowd_of_connections_takes_no_directory_with_it() {
    let root = tempfile::tempdir().expect("a directory");
    let dirs = ["first", "second"].map(|name| root.path().join(name).display().to_string());
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let process = Process::start_limited("ulimit -Sn 100; ulimit -Hn 320", &dirs, address);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.0.id()));
    let limits = limits.expect("its limits");
    let open_files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = open_files.and_then(|line| line.split_whitespace().nth(3));
    assert_eq!(soft, Some("320"));

    let mut client = Client::connect(address);
    client.create_topic("orders", 90);
    let crowd: Vec<TcpStream> = (0..400)
        .map(|_| TcpStream::connect(address).expect("the system accepts for it"))
        .collect();
    // More logs than there may be open files.
    for index in (0..90).chain(0..90) {
        assert_eq!(produce(&mut client, index, "in a crowd"), 0);
    }
    // Who is too much is sent away, and does not have to find out by waiting.
    let mut last = crowd.last().expect("one");
    assert_eq!(last.read(&mut [0]).ok(), Some(0));
    drop(crowd);
    process.kill();
}

/// The controller's database shares the directory with logs that can still be written: it is as little without the
/// one as without the other.
#[test]
fn without_the_database_of_the_controller_the_broker_cannot_go_on() {
    let root = tempfile::tempdir().expect("a directory");
    let dirs = ["first", "second"].map(|name| root.path().join(name).display().to_string());
    let said = root.path().join("said");
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // No file may grow above 128 KiB, and what is decided is longer in the database than in the metadata log.
    let limit = format!("trap '' XFSZ; ulimit -f 256; exec >{}", said.display());
    let mut process = Process::start_limited(&limit, &dirs, address);
    let mut client = Client::connect(address);
    client.create_topic("orders", 1);
    assert_eq!(produce(&mut client, 0, "before"), 0);
    let replicas: Vec<String> = (0..1000).map(|index| format!("{index}:1")).collect();
    let config = [(
        "leader.replication.throttled.replicas",
        &*replicas.join(","),
    )];
    let created = (0..100).take_while(|at| {
        let request = Client::new_topic(&format!("topic-{at}"), 1, &config);
        let answer: io::Result<CreateTopicsResponse> = client.try_call(7, &request);
        answer.is_ok_and(|answer| answer.topics[0].error_code == 0)
    });
    let created = created.count();
    assert!((1..100).contains(&created), "{created}");
    until("it has ended", || {
        process.0.try_wait().is_ok_and(|it| it.is_some())
    });
    let said = std::fs::read_to_string(said).expect("what it said");
    let why = said
        .lines()
        .find(|line| line.contains("Shutdown broker because"))
        .unwrap_or_else(|| panic!("{said}"));
    let database = Path::new(&dirs[0]).join("__cluster_metadata-0");
    assert!(why.contains(&*database.display().to_string()), "{why}");
    assert!(why.contains("File too large"), "{why}");

    // Nothing that was acknowledged is lost.
    let _process = Process::start(&dirs, address);
    let mut client = Client::connect(address);
    assert_eq!(records(&mut client, 0), ["before"]);
    let known: MetadataResponse = client.call(12, &MetadataRequest::default().with_topics(None));
    assert!(known.topics.len() > created, "{}", known.topics.len());
}

/// The program itself.
struct Process(Child);

impl Process {
    fn start(dirs: &[String; 2], address: SocketAddr) -> Process {
        Process::start_limited("true", dirs, address)
    }

    /// `limit` is what a shell does before it becomes the program.
    fn start_limited(limit: &str, dirs: &[String; 2], address: SocketAddr) -> Process {
        let program = env!("CARGO_BIN_EXE_sordini");
        let child = Command::new("/bin/sh")
            .env_clear()
            .args(["-c", &format!("{limit}; exec \"$0\" \"$@\""), program])
            .args(["--override", &format!("log.dirs={}", dirs.join(","))])
            .args(["--override", &format!("listeners=PLAINTEXT://{address}")])
            .args(["--override", "sordini.metrics.listener="])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program runs");
        let process = Process(child);
        until("it listens", || TcpStream::connect(address).is_ok());
        process
    }

    fn kill(mut self) {
        self.0.kill().expect("it is alive");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes numbers from `next` on, each once, and tells which were acknowledged and where it stopped.
fn produce_until_killed(address: SocketAddr, mut next: usize) -> (Vec<usize>, usize) {
    let mut acknowledged = Vec::new();
    // On a busy machine the broker may be killed before this has begun.
    let Ok(mut client) = Client::try_connect(address) else {
        return (acknowledged, next);
    };
    loop {
        let value = format!("{next:08}{}", "x".repeat(3000));
        next += 1;
        let request = produce_request("orders", 0, batch(&[&value]));
        let Ok(response) = client.try_call(9, &request) else {
            return (acknowledged, next);
        };
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        acknowledged.push(next - 1);
    }
}

/// All numbers in the partition, in the order of their offsets, which have no hole.
fn everything(client: &mut Client) -> Vec<usize> {
    let mut found = Vec::new();
    loop {
        let offset = i64::try_from(found.len()).expect("not so many");
        let request = fetch_request("orders", 0, offset)
            .with_min_bytes(0)
            .with_max_wait_ms(0);
        let response = client.call(12, &request);
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        let records = values(partition.records.clone().unwrap_or_default());
        if records.is_empty() {
            assert_eq!(partition.high_watermark, offset);
            return found;
        }
        for (offset, value) in records {
            assert_eq!(usize::try_from(offset), Ok(found.len()));
            found.push(value[..8].parse().expect("a number"));
        }
    }
}

/// Which directories have a copy, finished or not.
fn in_directories(client: &mut Client) -> Vec<usize> {
    let dirs = directories(client).into_iter().enumerate();
    let with = dirs.filter(|(_, dir)| dir.2.iter().any(|(topic, _)| topic == "orders"));
    with.map(|(at, _)| at).collect()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

fn produce(client: &mut Client, index: i32, value: &str) -> i16 {
    let response = client.produce("orders", index, batch(&[value]));
    response.responses[0].partition_responses[0].error_code
}

fn records(client: &mut Client, index: i32) -> Vec<String> {
    let response = client.fetch("orders", index, 0);
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    let found = values(partition.records.clone().unwrap_or_default()).into_iter();
    let found = found.enumerate().map(|(at, (offset, value))| {
        assert_eq!(usize::try_from(offset), Ok(at), "offsets have no hole");
        value
    });
    found.collect()
}

/// Path, error code, and the partitions in it.
type LogDir = (String, i16, Vec<(String, i32)>);

fn directories(client: &mut Client) -> Vec<LogDir> {
    let request = DescribeLogDirsRequest::default().with_topics(None);
    let dirs = client.call(4, &request).results.into_iter();
    let dirs = dirs.map(|dir| {
        let partitions = dir.topics.iter().flat_map(|topic| {
            let name = topic.name.to_string();
            let indexes = topic.partitions.iter().map(|one| one.partition_index);
            indexes.map(move |index| (name.clone(), index))
        });
        (
            dir.log_dir.to_string(),
            dir.error_code,
            partitions.collect(),
        )
    });
    dirs.collect()
}

fn in_directory(client: &mut Client, path: &str) -> Vec<i32> {
    let dirs = directories(client);
    let (_, _, partitions) = dirs.iter().find(|dir| dir.0 == path).expect("a directory");
    partitions.iter().map(|(_, index)| *index).collect()
}

fn leaders(
    client: &mut Client,
    topic: &str,
) -> std::collections::BTreeMap<i32, MetadataResponsePartition> {
    let asked = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    let topic = client.call(12, &request).topics.remove(0);
    let partitions = topic.partitions.into_iter();
    partitions
        .map(|partition| (partition.partition_index, partition))
        .collect()
}

/// Error code, leader, in-sync, eligible, last known eligible and offline replicas.
type Described = (i16, i32, Vec<i32>, Vec<i32>, Vec<i32>, Vec<i32>);

fn described(client: &mut Client, index: i32) -> Described {
    let asked =
        describe_topic_partitions_request::TopicRequest::default().with_name(topic_name("orders"));
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![asked])
        .with_response_partition_limit(100);
    let topic = client.call(0, &request).topics.remove(0);
    let found = topic
        .partitions
        .iter()
        .find(|one| one.partition_index == index);
    let found = found.expect("a partition");
    let ids = |ids: &[kafka_protocol::messages::BrokerId]| ids.iter().map(|id| id.0).collect();
    let optional = |found: &Option<Vec<_>>| found.as_deref().map(ids).unwrap_or_default();
    (
        found.error_code,
        found.leader_id.0,
        ids(&found.isr_nodes),
        optional(&found.eligible_leader_replicas),
        optional(&found.last_known_elr),
        ids(&found.offline_replicas),
    )
}

/// What Produce, Fetch, ListOffsets, DeleteRecords, OffsetForLeaderEpoch and DescribeProducers answer.
fn codes(client: &mut Client, index: i32) -> [i16; 6] {
    let produced = produce(client, index, "more");
    let fetched = client.fetch("orders", index, 0);
    let partition = ListOffsetsPartition::default()
        .with_partition_index(index)
        .with_timestamp(-1);
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name("orders"))
        .with_partitions(vec![partition]);
    let listed = client.call(7, &ListOffsetsRequest::default().with_topics(vec![topic]));
    let partition = DeleteRecordsPartition::default()
        .with_partition_index(index)
        .with_offset(0);
    let topic = DeleteRecordsTopic::default()
        .with_name(topic_name("orders"))
        .with_partitions(vec![partition]);
    let deleted = client.call(2, &DeleteRecordsRequest::default().with_topics(vec![topic]));
    let partition = OffsetForLeaderPartition::default()
        .with_partition(index)
        .with_current_leader_epoch(-1);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(topic_name("orders"))
        .with_partitions(vec![partition]);
    let ended = client.call(
        4,
        &OffsetForLeaderEpochRequest::default().with_topics(vec![topic]),
    );
    let topic = TopicRequest::default()
        .with_name(topic_name("orders"))
        .with_partition_indexes(vec![index]);
    let producers = client.call(
        0,
        &DescribeProducersRequest::default().with_topics(vec![topic]),
    );
    [
        produced,
        fetched.responses[0].partitions[0].error_code,
        listed.topics[0].partitions[0].error_code,
        deleted.topics[0].partitions[0].error_code,
        ended.topics[0].partitions[0].error_code,
        producers.topics[0].partitions[0].error_code,
    ]
}

fn elected(client: &mut Client, election: i8, indexes: &[i32]) -> Vec<i16> {
    let asked = TopicPartitions::default()
        .with_topic(topic_name("orders"))
        .with_partitions(indexes.to_vec());
    let request = ElectLeadersRequest::default()
        .with_election_type(election)
        .with_topic_partitions(Some(vec![asked]))
        .with_timeout_ms(10_000);
    let answer = client.call(2, &request).replica_election_results.remove(0);
    let outcomes = answer.partition_result.iter();
    outcomes.map(|outcome| outcome.error_code).collect()
}

fn moved(client: &mut Client, path: &str, index: i32) -> i16 {
    let topic = AlterReplicaLogDirTopic::default()
        .with_name(topic_name("orders"))
        .with_partitions(vec![index]);
    let dir = AlterReplicaLogDir::default()
        .with_path(path.to_owned().into())
        .with_topics(vec![topic]);
    let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]);
    client.call(2, &request).results[0].partitions[0].error_code
}

/// Asks again until it is so; each look is a round trip to the broker.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
    }
}

fn scrape(address: SocketAddr) -> String {
    let mut socket = TcpStream::connect(address).expect("metrics are served");
    socket
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("a request");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer
}

impl Disks {
    fn of(&self, path: &Path) -> &dyn Disk {
        match path.starts_with(FAULTY) {
            true => &*self.faulty,
            false => &*self.real,
        }
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        let is_broken = self.first_is_broken.load(Ordering::Acquire);
        match is_broken && !path.starts_with(FAULTY) {
            true => Err(io::Error::other("a fault was injected")),
            false => Ok(()),
        }
    }
}

impl Disk for Disks {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn File>> {
        self.of(path).open(path, mode)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.of(dir).list(dir)
    }
    fn size(&self, path: &Path) -> io::Result<u64> {
        self.of(path).size(path)
    }
    fn modified(&self, path: &Path) -> io::Result<i64> {
        self.of(path).modified(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.create(path)?;
        self.of(path).create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.of(from).rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.of(path).remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.of(path).remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.of(path).sync_dir(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.of(path).lock(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.of(path).space(path)
    }
    fn boot_id(&self) -> Option<String> {
        self.faulty.boot_id()
    }
}
