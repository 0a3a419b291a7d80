//! A controller on a real directory: what it decides is there after a stop, and after a crash.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use sordini_replication::{
    cluster::{ClusterImage, Endpoint, Resource, ResourceKind},
    controller::{
        Controller, ControllerConfig,
        brokers::{Registration, SupportedFeature},
        config::ConfigRules,
        topics::{Defaults, NewTopic},
    },
    error::Refusal,
};
use storage::{directory::Directory, disk, properties::Identity};
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
}

struct Node {
    controller: Controller,
    directory: Arc<Directory>,
}

impl Node {
    async fn start(dir: &Path) -> Node {
        let disk = disk::real();
        let identity = Identity {
            cluster_id: CLUSTER.to_owned(),
            node_id: NODE,
        };
        let directory = Directory::open(disk.clone(), dir, &identity, 100, now()).unwrap();
        let directory = Arc::new(directory);
        let controller = Controller::start(ControllerConfig {
            node_id: NODE,
            voters: BTreeMap::from([(NODE, "localhost:9093".to_owned())]),
            cluster_id: CLUSTER.to_owned(),
            directory: directory.clone(),
            disk,
            log: storage::config::Config::default(),
            retention_bytes: 100 << 20,
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
        })
        .await
        .unwrap();
        Node {
            controller,
            directory,
        }
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
        let topic = NewTopic {
            name: name.to_owned(),
            partition_count,
            replication_factor: 1,
            configs: vec![("retention.ms".to_owned(), Some("1000".to_owned()))],
            ..NewTopic::default()
        };
        let created = self.controller.create_topics(vec![topic], false).await;
        created.unwrap().remove(0).unwrap();
    }

    async fn stop(self, epoch: i64) {
        self.controller.shutdown().await;
        drop(self.controller);
        self.directory.close(epoch).unwrap();
    }
}

/// Two images that came about in different ways and say the same.
fn assert_same(found: &ClusterImage, want: &ClusterImage) {
    assert_eq!(found.records(), want.records());
    assert_eq!((found.offset, found.epoch), (want.offset, want.epoch));
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
