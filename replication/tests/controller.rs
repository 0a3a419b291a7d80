//! A controller on a real directory: what it decides is there after a stop, and after a crash.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use protocol::{
    batch::{Batch, Builder},
    records::{
        control::{ControlRecord, LeaderChangeMessage},
        metadata::{BeginTransactionRecord, FeatureLevelRecord, MetadataRecord, TopicRecord},
    },
};
use sordini_replication::{
    cluster::{ClusterImage, Endpoint, Resource, ResourceKind},
    controller::{
        Controller, ControllerConfig, History, Opening,
        brokers::{Registration, SupportedFeature},
        config::ConfigRules,
        opening,
        topics::{Defaults, NewTopic},
    },
    error::{Error, Refusal},
};
use storage::{directory::Directory, disk, log::Log, properties::Identity};
use uuid::Uuid;

const CLUSTER: &str = "Epf03KCDRG26zMUBfbeQpw";
const NODE: i32 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    let epoch = node.register().await;
    node.create("orders", 3).await;
    let before = node.controller.image();
    node.stop(epoch).await;

    let node = Node::start(dir.path()).await;
    assert_same(&node.controller.image(), &before);
    node.stop(epoch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_begins_as_apache_kafkas_does() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(found(dir.path()), Opening::New);
    let node = Node::start(dir.path()).await;
    let image = node.controller.image();
    assert_eq!(image.epoch, 1);
    assert_eq!(image.feature("metadata.version"), 33);
    assert_eq!(image.feature("share.version"), 0);
    assert!(image.controllers.contains_key(&NODE));
    let everywhere = image.config(ResourceKind::Broker, "").unwrap();
    assert_eq!(everywhere["min.insync.replicas"], "1");

    let epoch = node.register().await;
    // The epoch of a broker is where its registration was decided.
    assert_eq!(epoch, image.offset + 1);
    assert!(node.controller.image().is_active(NODE));
    node.stop(epoch).await;
    assert_eq!(found(dir.path()), Opening::Ours);
}

/// A broker that was killed leads on under a new epoch, so that consumers can tell what it lost; one
/// that stopped in good order has lost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_kill_changes_leader_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    let epoch = node.register().await;
    node.create("orders", 1).await;
    node.stop(epoch).await;

    let node = Node::start(dir.path()).await;
    let epoch = node.register().await;
    assert_eq!(node.leader_epoch("orders"), 0);
    node.kill().await;

    let node = Node::start(dir.path()).await;
    node.register().await;
    assert_eq!(node.leader_epoch("orders"), 1);
    assert_ne!(epoch, node.controller.image().brokers[&NODE].epoch);
    node.kill().await;
}

/// The metadata log is not fsynced: after a power cut any part of its end may be gone, and half a
/// batch may be left. Raft's log has it all.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_metadata_log_lost_is_applied_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    node.register().await;
    for name in ["a", "b", "c"] {
        node.create(name, 2).await;
    }
    let before = node.controller.image();
    node.kill().await;

    let log = segment(dir.path(), 0);
    let whole = std::fs::read(&log).unwrap();
    for kept in (0..whole.len()).step_by(97).rev() {
        std::fs::write(&log, &whole[..kept]).unwrap();
        let node = Node::start(dir.path()).await;
        assert_same(&node.controller.image(), &before);
        node.kill().await;
        assert_eq!(std::fs::read(&log).unwrap(), whole, "from {kept} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_from_a_checkpoint_knows_what_the_whole_log_knows() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_with(dir.path(), |config| config.snapshot_bytes = 2_000).await;
    let epoch = node.register().await;
    for at in 0..20 {
        node.create(&format!("topic-{at}"), 2).await;
    }
    let before = node.controller.image();
    node.stop(epoch).await;

    let checkpoints = checkpoints(dir.path());
    assert!(!checkpoints.is_empty());
    let node = Node::start(dir.path()).await;
    assert_same(&node.controller.image(), &before);
    node.stop(epoch).await;

    // A checkpoint that is not whole is passed over: the log is still there from its start.
    for path in checkpoints {
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    }
    let node = Node::start(dir.path()).await;
    assert_same(&node.controller.image(), &before);
    node.stop(epoch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_history_goes_once_a_checkpoint_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_with(dir.path(), |config| {
        config.snapshot_bytes = 2_000;
        config.history.bytes = 0;
        config.log.segment_bytes = 4_000;
    })
    .await;
    let epoch = node.register().await;
    for at in 0..50 {
        node.create(&format!("topic-{at}"), 2).await;
    }
    let before = node.controller.image();
    node.stop(epoch).await;
    assert_eq!(checkpoints(dir.path()).len(), 1);

    let node = Node::start(dir.path()).await;
    assert!(0 < node.controller.log().start_offset());
    assert_same(&node.controller.image(), &before);
    node.stop(epoch).await;
}

/// A disk that is full, say. Nothing could be decided any more, and nobody would know.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_cannot_be_written_ends_the_controller() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_with(dir.path(), |config| config.snapshot_bytes = 2_000).await;
    node.register().await;
    let failed = node.controller.failed();
    // Directories in the places of files.
    let end = node.controller.log().end_offset();
    for offset in end..end + 1000 {
        let name = format!("{offset:020}-0000000001.checkpoint.tmp");
        std::fs::create_dir(metadata(dir.path()).join(name)).unwrap();
    }
    // Until it has ended; what is decided before grows to a checkpoint.
    let mut at = 0;
    while node
        .controller
        .create_topics(vec![new_topic(&format!("topic-{at}"), 1)], false)
        .await
        .is_ok()
    {
        at += 1;
        assert!(at < 1000, "it goes on");
    }
    let why = tokio::time::timeout(Duration::from_secs(60), failed).await;
    assert!(why.unwrap().contains(".checkpoint"));
    node.kill().await;
}

/// As Apache Kafka counts: a checkpoint of a large cluster is larger than all that happens in a day.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_history_too() {
    const LIMIT: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let size = |paths: &[PathBuf]| -> u64 {
        let sizes = paths.iter().map(|path| path.metadata().unwrap().len());
        sizes.sum()
    };
    let node = Node::start_with(dir.path(), |config| {
        config.snapshot_bytes = 500;
        config.history.bytes = LIMIT;
    })
    .await;
    let epoch = node.register().await;
    for at in 0..50 {
        node.create(&format!("topic-{at}"), 2).await;
    }
    assert!(node.controller.log().size() < LIMIT, "it has no part in it");
    node.stop(epoch).await;
    let left = checkpoints(dir.path());
    assert!(size(&left) < LIMIT, "{left:?}");

    // And whose time is over, whatever there is room for.
    let unfinished = metadata(dir.path()).join("00000000000000000007-0000000001.checkpoint.tmp");
    std::fs::write(&unfinished, "half of it").unwrap();
    let node = Node::start_with(dir.path(), |config| {
        config.snapshot_bytes = 500;
        config.history.ms = 0;
    })
    .await;
    assert!(!unfinished.exists());
    let epoch = node.register().await;
    for at in 50..60 {
        node.create(&format!("topic-{at}"), 2).await;
    }
    let before = node.controller.image();
    node.stop(epoch).await;
    assert_eq!(checkpoints(dir.path()).len(), 1);
    let node = Node::start(dir.path()).await;
    assert_same(&node.controller.image(), &before);
    node.stop(epoch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_apache_kafka_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let orders = Uuid::from_u128(4711);
    write_as_kafka(dir.path(), |log| {
        log.append(&leader_change(), 3, 0).unwrap();
        log.append(
            &records(&[feature("metadata.version", 33), topic("orders", orders)]),
            3,
            0,
        )
        .unwrap();
        // Its transaction never ended: as if it had not begun.
        let begin = MetadataRecord::BeginTransaction(BeginTransactionRecord { name: None });
        log.append(
            &records(&[begin, topic("ghost", Uuid::from_u128(42))]),
            3,
            0,
        )
        .unwrap();
    });
    std::fs::write(metadata(dir.path()).join("quorum-state"), QUORUM_STATE).unwrap();
    assert_eq!(found(dir.path()), Opening::Kafkas);

    let node = Node::start(dir.path()).await;
    let image = node.controller.image();
    assert_eq!(image.topic("orders").unwrap().id, orders);
    assert!(image.topic("ghost").is_none());
    // Above the epoch in quorum-state, which Kafka's next one would have been too.
    assert_eq!(image.epoch, 8);
    let epoch = node.register().await;
    node.create("more", 1).await;
    let before = node.controller.image();
    node.stop(epoch).await;
    assert_eq!(found(dir.path()), Opening::Ours);

    let node = Node::start(dir.path()).await;
    assert_same(&node.controller.image(), &before);
    node.stop(epoch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_apache_kafka_wrote_after_us_is_taken_over_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    let epoch = node.register().await;
    node.stop(epoch).await;
    write_as_kafka(dir.path(), |log| {
        log.append(&leader_change(), 9, 0).unwrap();
        log.append(&records(&[topic("orders", Uuid::from_u128(1 << 70))]), 9, 0)
            .unwrap();
    });
    // A take-over that a crash cut short is begun again.
    std::fs::create_dir(metadata(dir.path()).join("raft.new")).unwrap();
    std::fs::write(metadata(dir.path()).join("raft.new/CURRENT"), "half").unwrap();

    let node = Node::start(dir.path()).await;
    let image = node.controller.image();
    assert!(image.topic("orders").is_some());
    assert_eq!(image.epoch, 10);
    assert!(!metadata(dir.path()).join("raft.new").exists());
    node.stop(epoch).await;
}

/// Its log may then be no longer than ours was: what tells them apart is the epoch.
#[tokio::test(flavor = "multi_thread")]
async fn so_is_what_it_wrote_after_a_power_cut_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    node.register().await;
    for name in ["a", "b", "c", "d", "e"] {
        node.create(name, 2).await;
    }
    let end = node.controller.log().end_offset();
    node.kill().await;
    let log = segment(dir.path(), 0);
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, &whole[..whole.len() / 2]).unwrap();
    write_as_kafka(dir.path(), |log| {
        log.append(&leader_change(), 9, 0).unwrap();
        let orders = topic("orders", Uuid::from_u128(1 << 70));
        let last_offset = log.append(&records(&[orders]), 9, 0).unwrap().last_offset;
        assert!(last_offset < end);
    });
    let node = Node::start(dir.path()).await;
    let image = node.controller.image();
    assert!(image.topic("orders").is_some());
    assert!(image.topic("a").is_some(), "it was there when Kafka came");
    assert_eq!(image.epoch, 10);
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_of_others_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    write_as_kafka(dir.path(), |log| {
        log.append(&leader_change(), 3, 0).unwrap();
    });
    let state = QUORUM_STATE.replace("\"voterId\":1", "\"voterId\":2");
    std::fs::write(metadata(dir.path()).join("quorum-state"), state).unwrap();
    let Err(err) = Node::try_start(dir.path(), |_| ()).await else {
        panic!("it started");
    };
    assert!(err.to_string().contains("quorum of the nodes [2]"), "{err}");
    assert!(!metadata(dir.path()).join("raft").exists());
}

/// Up to Kafka 4.x `kafka-storage format` put the features beside the metadata log, with who votes in its first checkpoint or
/// without one.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_begins_as_an_earlier_kafka_has_formatted_it() {
    for with_voters in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let formatted = records(&[feature("metadata.version", 21)]);
        std::fs::write(dir.path().join("bootstrap.checkpoint"), formatted.bytes()).unwrap();
        if with_voters {
            std::fs::create_dir(metadata(dir.path())).unwrap();
            let first = metadata(dir.path()).join("00000000000000000000-0000000000.checkpoint");
            std::fs::write(first, leader_change().bytes()).unwrap();
        }
        assert_eq!(found(dir.path()), Opening::Formatted);
        let node = Node::start(dir.path()).await;
        let epoch = node.register().await;
        let image = node.controller.image();
        assert_eq!(image.feature("metadata.version"), 21);
        assert_eq!(image.feature("group.version"), 0);
        node.stop(epoch).await;
    }
}

/// What Apache Kafka 4.4.0 wrote into a directory that was formatted with the release version 3.3-IV3, and
/// what a Kafka 3.3 can read.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_metadata_version_is_kept_to() {
    let dir = tempfile::tempdir().unwrap();
    let old = |config: &mut ControllerConfig| {
        config.features = BTreeMap::from([("metadata.version".to_owned(), 7)]);
        config.snapshot_bytes = 1;
    };
    let node = Node::start_with(dir.path(), old).await;
    let epoch = node.register().await;
    node.create("orders", 2).await;
    let stopping = node.controller.begin_controlled_shutdown(NODE, epoch).await;
    stopping.unwrap().unwrap();
    node.controller
        .fence_broker(NODE, epoch)
        .await
        .unwrap()
        .unwrap();
    let before = node.controller.image();
    node.stop(epoch).await;
    assert_eq!(
        versions(&segment(dir.path(), 0)),
        [
            "FeatureLevelRecord 0",
            "RegisterBrokerRecord 1",
            "BrokerRegistrationChangeRecord 0",
            "TopicRecord 0",
            "ConfigRecord 0",
            "PartitionRecord 0",
            "PartitionRecord 0",
            "BrokerRegistrationChangeRecord 1",
            "PartitionChangeRecord 0",
            "PartitionChangeRecord 0",
            "BrokerRegistrationChangeRecord 0",
        ]
    );
    let checkpoint = checkpoints(dir.path()).into_iter().max().unwrap();
    for record in versions(&checkpoint) {
        let expected = if record.starts_with("RegisterBroker") {
            '1'
        } else {
            '0'
        };
        assert!(record.ends_with(expected), "{record} in a checkpoint");
    }
    let node = Node::start_with(dir.path(), old).await;
    assert_same(&node.controller.image(), &before);
    node.stop(epoch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_or_newer_than_can_be_read_is_left_alone() {
    let anything = topic("orders", Uuid::from_u128(4711));
    for (features, level) in [
        (vec![feature("metadata.version", 6)], "6"),
        (vec![feature("metadata.version", 34)], "34"),
        // Before there was the feature.
        (vec![], "0"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let written = [features, vec![anything.clone()]].concat();
        write_as_kafka(dir.path(), |log| {
            log.append(&leader_change(), 3, 0).unwrap();
            log.append(&records(&written), 3, 0).unwrap();
        });
        let supported = |config: &mut ControllerConfig| {
            config.supported_features = BTreeMap::from([("metadata.version".to_owned(), (7, 33))]);
        };
        let Err(err) = Node::try_start(dir.path(), supported).await else {
            panic!("it started");
        };
        let why = format!(
            "has metadata.version {level} finalized, and this version can take over 7 to 33"
        );
        assert!(err.to_string().contains(&why), "{err}");
        assert_eq!(found(dir.path()), Opening::Kafkas, "nothing was changed");
    }
}

/// The metadata records in a file, by name and version.
fn versions(path: &Path) -> Vec<String> {
    let batches = Batch::split(std::fs::read(path).unwrap().into()).unwrap();
    let data = batches.iter().filter(|batch| !batch.header().is_control());
    data.flat_map(|batch| batch.records(usize::MAX).unwrap())
        .map(|record| record.unwrap().value.unwrap())
        .map(|value| {
            let version = value[2];
            format!(
                "{} {version}",
                MetadataRecord::decode(value).unwrap().name()
            )
        })
        .collect()
}

const QUORUM_STATE: &str = r#"{"clusterId":"","leaderId":1,"leaderEpoch":7,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}"#;

fn metadata(dir: &Path) -> PathBuf {
    dir.join("__cluster_metadata-0")
}

fn segment(dir: &Path, base_offset: i64) -> PathBuf {
    metadata(dir).join(format!("{base_offset:020}.log"))
}

fn new_topic(name: &str, partition_count: i32) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partition_count,
        replication_factor: 1,
        configs: vec![("retention.ms".to_owned(), Some("1000".to_owned()))],
        ..NewTopic::default()
    }
}

fn checkpoints(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(metadata(dir)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "checkpoint"))
        .collect()
}

fn found(dir: &Path) -> Opening {
    opening(&*disk::real(), dir).unwrap()
}

/// Writes to the metadata log without our controller.
fn write_as_kafka(dir: &Path, write: impl FnOnce(&Log)) {
    let directory = Directory::open(disk::real(), dir, &identity(), 100, now()).unwrap();
    let config = storage::config::Config::default();
    let log = directory
        .open_log("__cluster_metadata-0", config, now())
        .unwrap();
    write(&log);
    directory.close(-1).unwrap();
}

fn leader_change() -> Batch {
    let (key, value) = ControlRecord::LeaderChange(LeaderChangeMessage::default()).encode();
    let mut batch = Builder::new().control();
    batch.push(0, Some(&key), Some(&value), &[]);
    batch.build().unwrap()
}

fn records(records: &[MetadataRecord]) -> Batch {
    let mut batch = Builder::new();
    for record in records {
        batch.push(0, None, Some(&record.encode()), &[]);
    }
    batch.build().unwrap()
}

fn feature(name: &str, feature_level: i16) -> MetadataRecord {
    MetadataRecord::FeatureLevel(FeatureLevelRecord {
        name: name.to_owned(),
        feature_level,
    })
}

fn topic(name: &str, topic_id: Uuid) -> MetadataRecord {
    MetadataRecord::Topic(TopicRecord {
        name: name.to_owned(),
        topic_id,
    })
}

struct Node {
    controller: Controller,
    directory: Arc<Directory>,
}

impl Node {
    async fn start(dir: &Path) -> Node {
        Node::start_with(dir, |_| ()).await
    }

    async fn start_with(dir: &Path, change: impl FnOnce(&mut ControllerConfig)) -> Node {
        Node::try_start(dir, change).await.unwrap()
    }

    async fn try_start(
        dir: &Path,
        change: impl FnOnce(&mut ControllerConfig),
    ) -> Result<Node, Error> {
        let disk = disk::real();
        let directory = Directory::open(disk.clone(), dir, &identity(), 100, now()).unwrap();
        let directory = Arc::new(directory);
        let mut config = ControllerConfig {
            node_id: NODE,
            voters: BTreeMap::from([(NODE, "localhost:9093".to_owned())]),
            cluster_id: CLUSTER.to_owned(),
            directory: directory.clone(),
            disk,
            log: storage::config::Config::default(),
            history: History {
                bytes: 100 << 20,
                ms: -1,
            },
            snapshot_bytes: 20 << 20,
            snapshot_interval_ms: 3_600_000,
            endpoints: vec![endpoint("CONTROLLER", 9093)],
            supported_features: features()
                .into_iter()
                .map(|(name, level)| (name, (0, level)))
                .collect(),
            features: features(),
            defaults: Defaults {
                partition_count: 1,
                replication_factor: 1,
            },
            rules: Arc::new(AnyConfig),
        };
        change(&mut config);
        let controller = Controller::start(config).await?;
        Ok(Node {
            controller,
            directory,
        })
    }

    async fn register(&self) -> i64 {
        let features =
            features()
                .into_iter()
                .map(|(name, max)| SupportedFeature { name, min: 0, max });
        self.controller
            .register_broker(Registration {
                broker_id: NODE,
                cluster_id: CLUSTER.to_owned(),
                incarnation_id: Uuid::new_v4(),
                endpoints: vec![endpoint("PLAINTEXT", 9092)],
                features: features.collect(),
                rack: None,
                log_dirs: vec![self.directory.id()],
                previous_epoch: self.directory.previous_broker_epoch().unwrap_or(-1),
                ready: true,
            })
            .await
            .unwrap()
            .unwrap()
    }

    async fn create(&self, name: &str, partition_count: i32) {
        let topic = new_topic(name, partition_count);
        let created = self.controller.create_topics(vec![topic], false).await;
        created.unwrap().remove(0).unwrap();
    }

    fn leader_epoch(&self, topic: &str) -> i32 {
        let image = self.controller.image();
        image.partition(topic, 0).unwrap().leader_epoch
    }

    async fn stop(self, epoch: i64) {
        self.controller.shutdown().await;
        self.directory.close(epoch).unwrap();
    }

    /// Leaves the directory without a word: nothing is closed but what would lock it.
    async fn kill(self) {
        self.controller.shutdown().await;
    }
}

/// Two images that came about in different ways and say the same.
fn assert_same(found: &ClusterImage, want: &ClusterImage) {
    assert_eq!(found.records(), want.records());
    assert_eq!((found.offset, found.epoch), (want.offset, want.epoch));
}

fn identity() -> Identity {
    Identity {
        cluster_id: CLUSTER.to_owned(),
        node_id: NODE,
    }
}

fn features() -> BTreeMap<String, i16> {
    let features = [
        ("metadata.version", 33),
        ("eligible.leader.replicas.version", 1),
        ("transaction.version", 2),
    ];
    features
        .map(|(name, level)| (name.to_owned(), level))
        .into()
}

fn endpoint(name: &str, port: u16) -> Endpoint {
    Endpoint {
        name: name.to_owned(),
        host: "localhost".to_owned(),
        port,
        security_protocol: 0,
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

struct AnyConfig;

impl ConfigRules for AnyConfig {
    fn validate(
        &self,
        _: &Resource,
        _: &BTreeMap<String, String>,
        _: &BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    fn is_list(&self, _: ResourceKind, name: &str) -> bool {
        name == "cleanup.policy"
    }

    fn default_value(&self, _: ResourceKind, name: &str) -> Option<String> {
        (name == "min.insync.replicas").then(|| "1".to_owned())
    }
}
