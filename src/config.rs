//! What this node was told to be: `server.properties`, the environment and `--override`, read into [`Config`].
//!
//! - Four layers, the later wins: what is built in, the file, `KAFKA_*` variables, overrides. What is built in for
//!   a single node counts only while neither a file nor a variable sets anything, as in the Apache image.
//! - Above them lie the dynamic layers, which come from the cluster's metadata: the defaults of all brokers, then
//!   those of this one. [`Config::following`] makes a new `Config`; whoever holds one holds a consistent one.
//! - Everything that is wrong is found at once, before anything is opened. A key that is unknown, or known and
//!   without effect here, is a warning: the images of Kafka's users are full of both.
//!
//! [`table`] has every key with its type, default and range; [`describe`] answers questions about them.

mod check;
mod describe;
mod directories;
mod dynamic;
mod environment;
mod error;
mod group;
mod key;
mod listeners;
pub(crate) mod properties;
mod settings;
mod sockets;
mod sources;
mod table;
#[cfg(test)]
mod tests;
mod topic;
mod transaction;
mod unsupported;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

pub use check::Refused;
pub use describe::{Entry, Source, Synonym};
pub use dynamic::{Ignored, Layer};
pub use error::{Error, Problem};
pub use group::{ConsumerGroupConfig, Groups, MigrationPolicy};
pub use key::{Key, Kind, Update, Value};
pub use listeners::{Listener, Protocol, Voter};
pub use settings::Origin;
pub use sockets::Sockets;
pub use sources::Sources;
pub use topic::{Compression, TopicConfig};
pub use transaction::Transactions;

use listeners::Network;
use replication::cluster::ResourceKind;
use settings::{Reader, Settings};

/// The configuration of a node. A field is named after its key, dots as underscores.
#[derive(Debug, Clone)]
pub struct Config {
    pub node_id: i32,
    /// What `CLUSTER_ID` says. A directory of another cluster is refused, as by Apache's image.
    pub cluster_id: Option<String>,
    pub broker_rack: Option<String>,

    /// Where clients are served; controllers' listeners are not among them.
    pub listeners: Vec<Listener>,
    /// What clients are told. A port of 0 stands for the one that was bound.
    pub advertised_listeners: Vec<Listener>,
    pub controller_listeners: Vec<Listener>,
    pub advertised_controller_listeners: Vec<Listener>,
    pub inter_broker_listener_name: String,
    pub controller_quorum_voters: Vec<Voter>,

    pub log_dirs: Vec<PathBuf>,
    /// Those of them that take no new partitions.
    pub cordoned_log_dirs: Vec<PathBuf>,
    pub metadata_log_dir: PathBuf,

    pub connections_max_idle: Duration,
    pub max_connections: usize,
    pub max_connections_per_ip: usize,
    /// Address or host name, as written, and its own limit.
    pub max_connections_per_ip_overrides: BTreeMap<String, usize>,
    pub socket_request_max_bytes: usize,
    pub sockets: Sockets,

    pub fetch_max_bytes: usize,
    pub max_incremental_fetch_session_cache_slots: usize,
    pub max_request_partition_size_limit: usize,
    pub sendfile_min_bytes: usize,

    pub auto_create_topics_enable: bool,
    pub delete_topic_enable: bool,
    pub num_partitions: i32,
    pub default_replication_factor: i16,

    pub log_cleaner_backoff: Duration,
    /// For all threads together, as the next but one.
    pub log_cleaner_dedupe_buffer_size: u64,
    pub log_cleaner_enable: bool,
    pub log_cleaner_io_buffer_load_factor: f64,
    pub log_cleaner_io_buffer_size: usize,
    pub log_cleaner_io_max_bytes_per_second: f64,
    pub log_cleaner_threads: usize,
    pub log_flush_offset_checkpoint_interval: Duration,
    pub log_flush_start_offset_checkpoint_interval: Duration,
    pub log_retention_check_interval: Duration,
    pub num_recovery_threads_per_data_dir: usize,
    pub producer_id_expiration_ms: i64,
    pub replica_high_watermark_checkpoint_interval: Duration,

    pub groups: Groups,
    pub transactions: Transactions,

    pub metadata_log_max_record_bytes_between_snapshots: u64,
    pub metadata_log_max_snapshot_interval: Duration,
    pub metadata_log_segment_bytes: u32,
    pub metadata_log_segment_ms: i64,
    pub metadata_max_retention_bytes: u64,
    pub metadata_max_retention_ms: i64,

    /// Where `/metrics` is served; `None` where it is not.
    pub metrics_listener: Option<SocketAddr>,

    settings: Settings,
    warnings: Vec<String>,
    idle: Vec<String>,
}

impl Config {
    /// The same node after a change of its dynamic configuration: `cluster` holds for every broker, `broker`
    /// for this one.
    ///
    /// Fails with what is wrong: whoever accepts a change asks first. What was accepted, by whatever version, is
    /// followed as far as it can be: [`Config::following`].
    pub fn with_dynamic(
        &self,
        cluster: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Result<Config, Error> {
        let config = Config::build(self.settings.with_dynamic(cluster, broker))?;
        Ok(Config {
            cluster_id: self.cluster_id.clone(),
            // What is bound stays bound; a dynamic value of these is refused.
            listeners: self.listeners.clone(),
            advertised_listeners: self.advertised_listeners.clone(),
            controller_listeners: self.controller_listeners.clone(),
            advertised_controller_listeners: self.advertised_controller_listeners.clone(),
            ..config
        })
    }

    /// What should be said at the start: keys nobody knows, and keys that do nothing here.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Dynamic keys of Kafka that do nothing here: limits on how fast replicas move are among them.
    pub fn idle_dynamic(&self) -> &[String] {
        &self.idle
    }

    /// Every key with its value and where it came from, `None` for Kafka's default; for `sordini config`.
    pub fn effective(&self) -> Vec<(&str, String, Option<&Origin>)> {
        self.settings.effective()
    }

    /// Has somebody said what this key of the broker is to be?
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.settings.is_set(name)
    }

    /// How the controller keeps its log.
    pub fn metadata_log(&self) -> storage::config::Config {
        storage::config::Config {
            segment_bytes: self.metadata_log_segment_bytes,
            segment_ms: self.metadata_log_segment_ms,
            ..storage::config::Config::default()
        }
    }

    /// What is known of a key of this kind of resource.
    pub fn key(kind: ResourceKind, name: &str) -> Option<&'static Key> {
        match kind {
            ResourceKind::Topic => table::find(table::TOPIC, name),
            ResourceKind::Broker => table::broker(name),
            ResourceKind::Group => table::find(table::GROUP, name),
            ResourceKind::ClientMetrics => table::find(table::CLIENT_METRICS, name),
        }
    }

    fn build(settings: Settings) -> Result<Config, Error> {
        let mut read = Reader::new(&settings);
        let network = Network::read(&mut read, &settings);
        let config = Config {
            node_id: node_id(&mut read),
            cluster_id: None,
            broker_rack: read.optional_text("broker.rack"),

            listeners: network.listeners,
            advertised_listeners: network.advertised_listeners,
            controller_listeners: network.controller_listeners,
            advertised_controller_listeners: network.advertised_controller_listeners,
            inter_broker_listener_name: network.inter_broker_listener_name,
            controller_quorum_voters: listeners::voters(&mut read),

            log_dirs: directories::log_dirs(&mut read),
            metadata_log_dir: directories::metadata_log_dir(&mut read),
            cordoned_log_dirs: directories::cordoned_log_dirs(&mut read),

            connections_max_idle: read.duration("connections.max.idle.ms"),
            max_connections: read.size("max.connections"),
            max_connections_per_ip: read.size("max.connections.per.ip"),
            max_connections_per_ip_overrides: max_connections_per_ip_overrides(&mut read),
            socket_request_max_bytes: read.size("socket.request.max.bytes"),
            sockets: Sockets::read(&mut read, &settings),

            fetch_max_bytes: read.size("fetch.max.bytes"),
            max_incremental_fetch_session_cache_slots: read
                .size("max.incremental.fetch.session.cache.slots"),
            max_request_partition_size_limit: read.size("max.request.partition.size.limit"),
            sendfile_min_bytes: read.size("sordini.fetch.sendfile.min.bytes"),

            auto_create_topics_enable: read.boolean("auto.create.topics.enable"),
            delete_topic_enable: read.boolean("delete.topic.enable"),
            num_partitions: read.int("num.partitions"),
            default_replication_factor: read.short("default.replication.factor"),

            log_cleaner_backoff: read.duration("log.cleaner.backoff.ms"),
            log_cleaner_dedupe_buffer_size: u64::try_from(
                read.long("log.cleaner.dedupe.buffer.size"),
            )
            .unwrap_or_default(),
            log_cleaner_enable: read.boolean("log.cleaner.enable"),
            log_cleaner_io_buffer_load_factor: read.double("log.cleaner.io.buffer.load.factor"),
            log_cleaner_io_buffer_size: read.size("log.cleaner.io.buffer.size"),
            log_cleaner_io_max_bytes_per_second: read.double("log.cleaner.io.max.bytes.per.second"),
            log_cleaner_threads: read.size("log.cleaner.threads"),
            log_flush_offset_checkpoint_interval: read
                .duration("log.flush.offset.checkpoint.interval.ms"),
            log_flush_start_offset_checkpoint_interval: read
                .duration("log.flush.start.offset.checkpoint.interval.ms"),
            log_retention_check_interval: read.duration("log.retention.check.interval.ms"),
            num_recovery_threads_per_data_dir: read.size("num.recovery.threads.per.data.dir"),
            producer_id_expiration_ms: read.long("producer.id.expiration.ms"),
            replica_high_watermark_checkpoint_interval: read
                .duration("replica.high.watermark.checkpoint.interval.ms"),

            groups: Groups::read(&mut read),
            transactions: Transactions::read(&mut read),

            metadata_log_max_record_bytes_between_snapshots: read
                .long("metadata.log.max.record.bytes.between.snapshots")
                .unsigned_abs(),
            metadata_log_max_snapshot_interval: read
                .duration("metadata.log.max.snapshot.interval.ms"),
            metadata_log_segment_bytes: u32::try_from(read.int("metadata.log.segment.bytes"))
                .unwrap_or(u32::MAX),
            metadata_log_segment_ms: read.long("metadata.log.segment.ms"),
            metadata_max_retention_bytes: u64::try_from(read.long("metadata.max.retention.bytes"))
                .unwrap_or(u64::MAX),
            metadata_max_retention_ms: read.long("metadata.max.retention.ms"),

            metrics_listener: read.text("sordini.metrics.listener").parse().ok(),

            settings: Settings::default(),
            warnings: Vec::new(),
            idle: Vec::new(),
        };
        unsupported::refuse(&mut read);
        topic::check_broker(&mut read);
        let (used, problems) = read.finish();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let warnings = settings.warnings(&used);
        let idle = settings.idle_dynamic(&used);
        Ok(Config {
            settings,
            warnings,
            idle,
            ..config
        })
    }
}

fn node_id(read: &mut Reader<'_>) -> i32 {
    let Some(id) = read.optional_int("node.id") else {
        return 0;
    };
    if read.int("broker.id") != id {
        read.refuse(
            "broker.id",
            &format!("node.id is {id}, and broker.id must be the same or not be set"),
        );
    }
    id
}

fn max_connections_per_ip_overrides(read: &mut Reader<'_>) -> BTreeMap<String, usize> {
    const KEY: &str = "max.connections.per.ip.overrides";
    let mut limits = BTreeMap::new();
    for entry in key::split(&read.text(KEY)) {
        match entry
            .rsplit_once(':')
            .map(|(host, limit)| (host, limit.trim().parse()))
        {
            Some((host, Ok(limit))) => {
                limits.insert(host.trim().to_owned(), limit);
            }
            _ => read.refuse(KEY, &format!("`{entry}` is not of the form host:number")),
        }
    }
    limits
}
