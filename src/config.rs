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
mod dynamic;
mod environment;
mod group;
mod key;
mod listeners;
pub(crate) mod properties;
mod settings;
mod table;
mod topic;
mod transaction;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use check::Refused;
pub use describe::{Entry, Source, Synonym};
pub use dynamic::{Ignored, Layer};
pub use group::{ConsumerGroupConfig, Groups, MigrationPolicy};
pub use key::{Key, Kind, Update, Value};
pub use listeners::{Listener, Protocol, Voter};
pub use settings::Origin;
pub use topic::{Compression, TopicConfig};
pub use transaction::Transactions;

use replication::cluster::ResourceKind;
use settings::{Reader, Setting, Settings};

/// What one node does when nobody has told it anything: Kafka's defaults, in `./data`, with internal topics that
/// a single broker can hold.
const SINGLE_NODE: &[(&str, &str)] = &[
    ("controller.listener.names", "CONTROLLER"),
    ("log.dirs", "./data"),
    ("node.id", "1"),
    ("offsets.topic.replication.factor", "1"),
    ("process.roles", "broker,controller"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.replication.factor", "1"),
];

/// Where the configuration is to be read from.
#[derive(Debug, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    pub environment: Vec<(String, String)>,
    pub overrides: Vec<(String, String)>,
}

/// How sockets are set up. Where nobody has said how, as suits the system rather than as Kafka's defaults
/// have it: 100 KiB would keep the system from growing the buffers of distant clients, and 50 connections
/// are too few for a thousand clients that come back after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sockets {
    /// `socket.listen.backlog.size`: connections that may wait to be accepted.
    pub listen_backlog: i32,
    /// `socket.send.buffer.bytes`; `None` leaves it to the system.
    pub send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes`; `None` leaves it to the system.
    pub receive_buffer_bytes: Option<usize>,
}

impl Sockets {
    const LISTEN_BACKLOG: i32 = 1024;

    fn read(read: &mut Reader<'_>, settings: &Settings) -> Sockets {
        let mut number = |key| {
            let value = read.int(key);
            settings.is_set(key).then_some(value)
        };
        let bytes = |value: Option<i32>| value.and_then(|value| usize::try_from(value).ok());
        Sockets {
            listen_backlog: number("socket.listen.backlog.size").unwrap_or(Self::LISTEN_BACKLOG),
            send_buffer_bytes: bytes(number("socket.send.buffer.bytes")),
            receive_buffer_bytes: bytes(number("socket.receive.buffer.bytes")),
        }
    }
}

/// The configuration of a node. A field is named after its key, dots as underscores.
#[derive(Debug, Clone)]
pub struct Config {
    pub node_id: i32,
    /// What `CLUSTER_ID` says. A directory that has been formatted knows better.
    pub cluster_id: Option<String>,
    pub broker_rack: Option<String>,

    /// Where clients are served; controllers' listeners are not among them.
    pub listeners: Vec<Listener>,
    /// What clients are told. A port of 0 stands for the one that was bound.
    pub advertised_listeners: Vec<Listener>,
    pub controller_listeners: Vec<Listener>,
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

/// Why there is no [`Config`].
#[derive(Debug)]
pub enum Error {
    Unreadable {
        path: PathBuf,
        source: io::Error,
    },
    Malformed {
        path: PathBuf,
        line: usize,
        reason: &'static str,
    },
    Invalid(Vec<Problem>),
}

/// A value that will not do.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Names key and value, in Kafka's words where Kafka has them.
    pub reason: String,
    /// Where the value was set; `None` when a key is missing.
    pub origin: Option<Origin>,
    pub allowed: Option<String>,
}

impl Config {
    /// Reads the file, and puts the environment and the overrides on top.
    pub fn load(sources: &Sources) -> Result<Config, Error> {
        let file = match &sources.file {
            Some(path) => read(path)?,
            None => Vec::new(),
        };
        Config::of(file, &sources.environment, &sources.overrides)
    }

    /// A single node with these settings: what a test, or a caller in the same process, starts a broker with.
    pub fn single_node(settings: &[(&str, &str)]) -> Result<Config, Error> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let overrides: Vec<(String, String)> = settings.iter().map(own).collect();
        Config::of(Vec::new(), &[], &overrides)
    }

    fn of(
        file: Vec<(String, Setting)>,
        environment: &[(String, String)],
        overrides: &[(String, String)],
    ) -> Result<Config, Error> {
        let mut fixed: BTreeMap<String, Setting> = file.into_iter().collect();
        let from_file = !fixed.is_empty();
        let mut from_environment = false;
        for (variable, value) in environment {
            if let Some(key) = environment::property(variable) {
                // `KAFKA_HOME` and the like of some shell are not a configuration.
                from_environment |= table::broker(&key).is_some();
                fixed.insert(
                    key,
                    Setting::new(value, Origin::Environment(variable.clone())),
                );
            }
        }
        if !from_file && !from_environment {
            for (key, value) in SINGLE_NODE {
                fixed
                    .entry((*key).to_owned())
                    .or_insert(Setting::new(value, Origin::BuiltIn));
            }
        }
        for (key, value) in overrides {
            fixed.insert(key.clone(), Setting::new(value, Origin::Override));
        }
        complete(&mut fixed);
        if !fixed.contains_key("listeners")
            && let Some(advertised) = fixed.get("advertised.listeners")
            && let Origin::Environment(_) = advertised.origin
        {
            let listeners = environment::listeners_of(&advertised.value);
            let derived = Setting::new(&listeners, advertised.origin.clone());
            fixed.insert("listeners".to_owned(), derived);
        }
        let cluster_id = environment
            .iter()
            .find(|(variable, value)| variable == "CLUSTER_ID" && !value.is_empty())
            .map(|(_, value)| value.clone());
        let mut config = Config::build(Settings::new(fixed))?;
        config.cluster_id = cluster_id;
        Ok(config)
    }

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

    /// The limit on connections from this address.
    pub fn max_connections_from(&self, address: &std::net::IpAddr) -> usize {
        let own = self
            .max_connections_per_ip_overrides
            .get(&address.to_string());
        own.copied().unwrap_or(self.max_connections_per_ip)
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
            inter_broker_listener_name: network.inter_broker_listener_name,
            controller_quorum_voters: voters(&mut read),

            log_dirs: log_dirs(&mut read),
            metadata_log_dir: metadata_log_dir(&mut read),
            cordoned_log_dirs: cordoned_log_dirs(&mut read),

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
        refuse_unsupported(&mut read);
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

/// Says what goes without saying: a node's number under both of its names, and its roles.
fn complete(fixed: &mut BTreeMap<String, Setting>) {
    for (key, other) in [("node.id", "broker.id"), ("broker.id", "node.id")] {
        if let Some(setting) = fixed.get(other).filter(|_| !fixed.contains_key(key)) {
            let setting = setting.clone();
            fixed.insert(key.to_owned(), setting);
        }
    }
    // Kafka demands these. Whoever left them out, as Compose files for older brokers do, means one node.
    for (key, value) in [
        ("node.id", "1"),
        ("broker.id", "1"),
        ("process.roles", "broker,controller"),
    ] {
        let built_in = || Setting::new(value, Origin::BuiltIn);
        fixed.entry(key.to_owned()).or_insert_with(built_in);
    }
}

/// Everything about listeners, which can only be judged together.
struct Network {
    listeners: Vec<Listener>,
    advertised_listeners: Vec<Listener>,
    controller_listeners: Vec<Listener>,
    inter_broker_listener_name: String,
}

impl Network {
    fn read(read: &mut Reader<'_>, settings: &Settings) -> Network {
        let controllers: Vec<String> = read
            .list("controller.listener.names")
            .iter()
            .map(|n| n.to_uppercase())
            .collect();
        let mut protocols = match listeners::protocols(&read.text("listener.security.protocol.map"))
        {
            Ok(protocols) => protocols,
            Err(why) => {
                read.refuse("listener.security.protocol.map", &why);
                BTreeMap::new()
            }
        };
        if !settings.is_set("listener.security.protocol.map") {
            // A map that nobody wrote has no room for the controllers' listener; Kafka makes it plaintext.
            for name in &controllers {
                protocols.entry(name.clone()).or_insert(Protocol::Plaintext);
            }
        }
        let parse = |read: &mut Reader<'_>, key, list| {
            let entries = read.list(key);
            listeners::parse(&entries, &protocols, list).unwrap_or_else(|why| {
                read.refuse(key, &why);
                Vec::new()
            })
        };
        let all = parse(read, "listeners", listeners::List::Bound);
        let (controller_listeners, listeners): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|listener| controllers.contains(&listener.name));
        let mut advertised_listeners =
            parse(read, "advertised.listeners", listeners::List::Advertised);
        advertised_listeners.retain(|listener| !controllers.contains(&listener.name));

        for listener in listeners.iter().chain(&controller_listeners) {
            if listener.protocol != Protocol::Plaintext {
                // Serving plaintext where encryption was asked for would be the worst answer.
                read.refuse(
                    "listeners",
                    &format!(
                        "{} speaks {}, and only PLAINTEXT is served",
                        listener.name, listener.protocol
                    ),
                );
            }
        }
        for listener in &advertised_listeners {
            if !listeners.iter().any(|bound| bound.name == listener.name) {
                read.refuse(
                    "advertised.listeners",
                    &format!(
                        "{} is advertised and not among the listeners",
                        listener.name
                    ),
                );
            }
            if listener.host == "0.0.0.0" || listener.host == "::" {
                read.refuse(
                    "advertised.listeners",
                    &format!(
                        "advertised.listeners cannot use the nonroutable meta-address {}. Use a routable IP address.",
                        listener.host
                    ),
                );
            }
        }
        if advertised_listeners.is_empty() {
            advertised_listeners = listeners.clone();
        }
        for listener in &mut advertised_listeners {
            if matches!(listener.host.as_str(), "" | "0.0.0.0" | "::") {
                listener.host = own_host(settings);
            }
        }
        let inter_broker_listener_name = inter_broker_listener(read, &listeners);
        Network {
            listeners,
            advertised_listeners,
            controller_listeners,
            inter_broker_listener_name,
        }
    }
}

fn inter_broker_listener(read: &mut Reader<'_>, listeners: &[Listener]) -> String {
    let by_name = read
        .optional_text("inter.broker.listener.name")
        .map(|name| name.to_uppercase());
    let by_protocol = read.text("security.inter.broker.protocol");
    let Some(name) = by_name else {
        // Kafka insists on a listener named like the protocol. One node has nobody to talk to over it.
        let named = listeners
            .iter()
            .find(|listener| listener.name == by_protocol);
        return named
            .or(listeners.first())
            .map_or(by_protocol, |listener| listener.name.clone());
    };
    if !listeners.iter().any(|listener| listener.name == name) {
        let names: Vec<&str> = listeners
            .iter()
            .map(|listener| listener.name.as_str())
            .collect();
        read.refuse(
            "inter.broker.listener.name",
            &format!("it must be one of the listeners: {}", names.join(", ")),
        );
    }
    name
}

/// What others call this machine, for listeners that are bound to every interface and advertise nothing else.
fn own_host(settings: &Settings) -> String {
    // Started without any configuration, a node is somebody's own, and a laptop's name need not resolve.
    if settings.is_built_in("log.dirs") {
        return "localhost".to_owned();
    }
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) if !name.trim().is_empty() => name.trim().to_owned(),
        _ => "localhost".to_owned(),
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

fn voters(read: &mut Reader<'_>) -> Vec<Voter> {
    let entries = read.list("controller.quorum.voters");
    entries
        .iter()
        .filter_map(|entry| Voter::parse(entry))
        .collect()
}

fn log_dirs(read: &mut Reader<'_>) -> Vec<PathBuf> {
    let older = read.list("log.dir");
    let dirs = read.list("log.dirs");
    let dirs = if dirs.is_empty() { older } else { dirs };
    dirs.iter().map(PathBuf::from).collect()
}

fn metadata_log_dir(read: &mut Reader<'_>) -> PathBuf {
    match read.optional_text("metadata.log.dir") {
        Some(dir) => PathBuf::from(dir),
        None => log_dirs(read).into_iter().next().unwrap_or_default(),
    }
}

fn cordoned_log_dirs(read: &mut Reader<'_>) -> Vec<PathBuf> {
    const KEY: &str = "cordoned.log.dirs";
    const ALL: &str = "*";
    let dirs = log_dirs(read);
    let cordoned = read.list(KEY);
    if cordoned == [ALL] {
        return dirs;
    }
    if cordoned.iter().any(|entry| entry == ALL) {
        let why = format!("When {KEY} is set to {ALL}, it must not contain other values");
        read.refuse_together(KEY, &why);
        return Vec::new();
    }
    // As they are written: `/a/` and `/a` compare as paths, and a real broker compares text.
    let is_missing = |entry: &&String| !dirs.iter().any(|dir| dir.as_os_str() == entry.as_str());
    let missing: Vec<&str> = cordoned
        .iter()
        .filter(is_missing)
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        let why = format!(
            "All entries in {KEY} must be present in log.dirs or log.dir. Missing entries : {}",
            missing.join(", ")
        );
        read.refuse_together(KEY, &why);
    }
    cordoned.iter().map(PathBuf::from).collect()
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

/// Refuses what would be dangerous to leave out in silence, and what a single node cannot be.
fn refuse_unsupported(read: &mut Reader<'_>) {
    if !read.text("authorizer.class.name").is_empty() {
        read.refuse(
            "authorizer.class.name",
            "there is no authorizer here yet, and without one everything is allowed",
        );
    }
    for (name, why) in [
        (
            "alter.config.policy.class.name",
            "classes cannot be loaded here, and what it forbids would be allowed",
        ),
        (
            "client.quota.callback.class",
            "classes cannot be loaded here, and what it limits would be without limits",
        ),
        (
            "create.topic.policy.class.name",
            "classes cannot be loaded here, and what it forbids would be allowed",
        ),
        (
            "principal.builder.class",
            "classes cannot be loaded here, and everybody would be somebody else",
        ),
    ] {
        // Whoever writes down Kafka's default wants nothing else.
        let is_default = |text: &str| {
            Config::key(ResourceKind::Broker, name)
                .and_then(|key| key.default)
                .unwrap_or_default()
                == text
        };
        let class = read.text(name);
        if !class.is_empty() && !is_default(&class) {
            read.refuse(name, why);
        }
    }
    if read.boolean("remote.log.storage.system.enable") {
        read.refuse(
            "remote.log.storage.system.enable",
            "there is no tiered storage here, and what is only there would be missing from its topics",
        );
    }
    let roles = read.list("process.roles");
    if !roles.is_empty() && roles.len() < 2 {
        read.refuse(
            "process.roles",
            "a node is broker and controller here; a node with one role is not supported yet",
        );
    }
    let id = read.int("node.id");
    let voters = voters(read);
    if !voters.is_empty() && voters.iter().map(|voter| voter.id).ne([id]) {
        read.refuse(
            "controller.quorum.voters",
            &format!("node {id} must be the only voter; several controllers are not supported yet"),
        );
    }
    if 1 < read.list("controller.quorum.bootstrap.servers").len() {
        read.refuse(
            "controller.quorum.bootstrap.servers",
            "several controllers are not supported yet",
        );
    }
}

fn read(path: &Path) -> Result<Vec<(String, Setting)>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let properties = properties::parse(&text).map_err(|(line, reason)| Error::Malformed {
        path: path.to_owned(),
        line,
        reason,
    })?;
    let setting = |property: properties::Property| {
        let origin = Origin::File {
            path: path.to_owned(),
            line: property.line,
        };
        (property.key, Setting::new(&property.value, origin))
    };
    Ok(properties.into_iter().map(setting).collect())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unreadable { path, .. } => write!(f, "cannot read {}", path.display()),
            Error::Malformed { path, line, reason } => {
                write!(f, "{}:{line}: {reason}", path.display())
            }
            Error::Invalid(problems) => {
                let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Unreadable { source, .. } => Some(source),
            Error::Malformed { .. } | Error::Invalid(_) => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match &self.origin {
            Some(origin) => write!(f, " (set by {origin}")?,
            None => f.write_str(" (not set")?,
        }
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        f.write_str(")")
    }
}

/// Keys that only have a meaning through the topics that have no value of their own.
fn topic_keys() -> BTreeSet<&'static str> {
    table::TOPIC.iter().filter_map(|key| key.broker).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_told_nothing_serves_plaintext_on_9092_from_the_working_directory() {
        let config = load("", &[], &[]).expect("a configuration");
        assert_eq!(config.node_id, 1);
        assert_eq!(config.log_dirs, [PathBuf::from("./data")]);
        assert_eq!(config.metadata_log_dir, PathBuf::from("./data"));
        assert_eq!(addresses(&config.listeners), "PLAINTEXT://:9092");
        assert_eq!(
            addresses(&config.advertised_listeners),
            "PLAINTEXT://localhost:9092"
        );
        assert_eq!(config.metrics_listener, "0.0.0.0:9404".parse().ok());
        assert_eq!(config.warnings(), [""; 0]);
    }

    /// As in the image: whoever sets anything has to say everything that differs from Kafka's own defaults.
    #[test]
    fn what_is_built_in_counts_only_while_nothing_is_set() {
        let config = load("", &["KAFKA_NODE_ID=7"], &[]).expect("a configuration");
        assert_eq!(config.node_id, 7);
        assert_eq!(config.log_dirs, [PathBuf::from("/tmp/kafka-logs")]);
        let config = load("num.partitions=3", &[], &[]).expect("a configuration");
        assert_eq!(config.log_dirs, [PathBuf::from("/tmp/kafka-logs")]);
        let config = load(
            "",
            &["KAFKA_HEAP_OPTS=-Xmx1g", "KAFKA_HOME=/opt/kafka"],
            &["num.partitions=3"],
        );
        let config = config.expect("a configuration");
        assert_eq!(config.log_dirs, [PathBuf::from("./data")]);
        assert_eq!(config.num_partitions, 3);
    }

    #[test]
    fn the_environment_goes_over_the_file_and_an_override_over_both() {
        let file = "num.partitions=2\nfetch.max.bytes=2048\nbroker.rack=a";
        let environment = [
            "KAFKA_NUM_PARTITIONS=3",
            "KAFKA_FETCH_MAX_BYTES=3072",
            "CLUSTER_ID=abc",
        ];
        let config = load(file, &environment, &["num.partitions=4"]).expect("a configuration");
        assert_eq!(config.num_partitions, 4);
        assert_eq!(config.fetch_max_bytes, 3072);
        assert_eq!(config.broker_rack.as_deref(), Some("a"));
        assert_eq!(config.cluster_id.as_deref(), Some("abc"));
        let origins: Vec<String> = config
            .effective()
            .iter()
            .filter_map(|(name, value, origin)| Some(format!("{name}={value} {}", (*origin)?)))
            .collect();
        assert_eq!(
            origins,
            [
                "broker.id=1 built in",
                "broker.rack=a server.properties:3",
                "fetch.max.bytes=3072 env KAFKA_FETCH_MAX_BYTES",
                "node.id=1 built in",
                "num.partitions=4 --override",
                "process.roles=broker,controller built in",
            ]
        );
    }

    /// What the Java Testcontainers module sets, which names no voters and listeners with dashes.
    #[test]
    fn a_testcontainers_environment_starts_one_node() {
        let config = load(
            "",
            &[
                "CLUSTER_ID=4L6g3nShT-eMCtK--X86sw",
                "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://localhost:32801,BROKER://a1b2:9093,TC-0://kafka:19092",
                "KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER",
                "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS=0",
                "KAFKA_INTER_BROKER_LISTENER_NAME=BROKER",
                "KAFKA_LISTENERS=PLAINTEXT://:9092,BROKER://:9093,CONTROLLER://:9094,TC-0://:19092",
                "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=BROKER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TC-0:PLAINTEXT",
                "KAFKA_LOG_FLUSH_INTERVAL_MESSAGES=9223372036854775807",
                "KAFKA_NODE_ID=1",
                "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS=1",
                "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR=1",
                "KAFKA_PROCESS_ROLES=broker,controller",
            ],
            &[],
        )
        .expect("a configuration");
        assert_eq!(
            addresses(&config.listeners),
            "PLAINTEXT://:9092 BROKER://:9093 TC-0://:19092"
        );
        assert_eq!(
            addresses(&config.controller_listeners),
            "CONTROLLER://:9094"
        );
        assert_eq!(
            addresses(&config.advertised_listeners),
            "PLAINTEXT://localhost:32801 BROKER://a1b2:9093 TC-0://kafka:19092"
        );
        assert_eq!(config.inter_broker_listener_name, "BROKER");
    }

    #[test]
    fn listeners_follow_what_the_environment_advertises() {
        let config = load(
            "",
            &["KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://broker:19092"],
            &[],
        );
        assert_eq!(
            addresses(&config.expect("a configuration").listeners),
            "PLAINTEXT://0.0.0.0:19092"
        );
    }

    #[test]
    fn older_names_and_units_are_understood() {
        let config = load(
            "broker.id=3\nlog.dir=/a\nlog.retention.minutes=2\nlog.roll.hours=1",
            &[],
            &[],
        );
        let config = config.expect("a configuration");
        assert_eq!(config.node_id, 3);
        assert_eq!(config.log_dirs, [PathBuf::from("/a")]);
        let topic = config.topic(&BTreeMap::new());
        assert_eq!(topic.log.retention_ms, 120_000);
        assert_eq!(topic.log.segment_ms, 3_600_000);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        refused(
            "log.retention.ms=x\nlisteners=SSL://:9093\nauthorizer.class.name=org.example.Authorizer",
            &["KAFKA_NUM_PARTITIONS=0"],
            &["process.roles=broker"],
            "Invalid value x for configuration log.retention.ms: Not a number of type LONG (set by server.properties:1; \
             allowed: a whole number of -9223372036854775808 to 9223372036854775807)
             Invalid value 0 for configuration num.partitions: Value must be at least 1 (set by env \
             KAFKA_NUM_PARTITIONS; allowed: a whole number of 1 to 2147483647)
             Invalid value SSL://:9093 for configuration listeners: SSL speaks SSL, and only PLAINTEXT is served (set \
             by server.properties:2)
             Invalid value org.example.Authorizer for configuration authorizer.class.name: there is no authorizer \
             here yet, and without one everything is allowed (set by server.properties:3)
             Invalid value broker for configuration process.roles: a node is broker and controller here; a node with \
             one role is not supported yet (set by --override)",
        );
        refused(
            "principal.builder.class=org.example.Builder\nclient.quota.callback.class=org.example.Quotas\n\
             create.topic.policy.class.name=org.example.Policy\nalter.config.policy.class.name=org.example.Policy\n\
             remote.log.storage.system.enable=true",
            &[],
            &[],
            "Invalid value org.example.Policy for configuration alter.config.policy.class.name: classes cannot be \
             loaded here, and what it forbids would be allowed (set by server.properties:4)
             Invalid value org.example.Quotas for configuration client.quota.callback.class: classes cannot be loaded \
             here, and what it limits would be without limits (set by server.properties:2)
             Invalid value org.example.Policy for configuration create.topic.policy.class.name: classes cannot be \
             loaded here, and what it forbids would be allowed (set by server.properties:3)
             Invalid value org.example.Builder for configuration principal.builder.class: classes cannot be loaded \
             here, and everybody would be somebody else (set by server.properties:1)
             Invalid value true for configuration remote.log.storage.system.enable: there is no tiered storage here, \
             and what is only there would be missing from its topics (set by server.properties:5)",
        );
        refused(
            "listeners=A://:1",
            &[],
            &[],
            "Invalid value A://:1 for configuration listeners: No security protocol defined for listener A (set by \
             server.properties:1)",
        );
        refused(
            "node.id=1\ncontroller.quorum.voters=1@a:1,2@b:1",
            &[],
            &[],
            "Invalid value 1@a:1,2@b:1 for configuration controller.quorum.voters: node 1 must be the only voter; \
             several controllers are not supported yet (set by server.properties:2)",
        );
    }

    #[test]
    fn a_secret_is_not_shown_where_it_is_wrong_or_listed() {
        let config = load("ssl.keystore.password=hunter2", &[], &[]).expect("a configuration");
        assert!(!format!("{:?}", config.effective()).contains("hunter2"));
        let entry = config
            .describe_broker()
            .into_iter()
            .find(|entry| entry.name == "ssl.keystore.password");
        let entry = entry.expect("a described key");
        assert!(entry.is_sensitive && entry.value.is_none());
        assert!(entry.synonyms.iter().all(|synonym| synonym.value.is_none()));
    }

    #[test]
    fn whoever_writes_down_kafkas_defaults_is_not_refused() {
        let builder = "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder";
        let file = format!(
            "principal.builder.class={builder}\ncreate.topic.policy.class.name=\n\
             remote.log.storage.system.enable=false"
        );
        assert!(load(&file, &[], &[]).is_ok());
    }

    #[test]
    fn unknown_and_idle_keys_are_warned_of() {
        let config = load(
            "num.io.threads=4\nzookeeper.connect=a:2181\nnum.partitions=1\n\
             group.consumer.session.timeout.ms=46000\ngroup.consumer.min.session.timeout.ms=1000",
            &[],
            &[],
        );
        assert_eq!(
            config.expect("a configuration").warnings(),
            [
                "unknown configuration key zookeeper.connect (server.properties:2), ignored",
                "configuration keys that have no effect here: num.io.threads",
            ]
        );
    }

    #[test]
    fn dynamic_values_go_over_static_ones_and_a_brokers_own_over_the_clusters() {
        let config = load("message.max.bytes=1000\nlog.retention.ms=5000", &[], &[])
            .expect("a configuration");
        let cluster = map(&[("message.max.bytes", "2000"), ("log.retention.ms", "6000")]);
        let broker = map(&[("message.max.bytes", "3000")]);
        let config = config
            .with_dynamic(&cluster, &broker)
            .expect("a configuration");
        let topic = config.topic(&BTreeMap::new());
        assert_eq!(
            (topic.max_message_bytes, topic.log.retention_ms),
            (3000, 6000)
        );

        let own = config.topic(&map(&[
            ("max.message.bytes", "4000"),
            ("cleanup.policy", "compact,delete"),
        ]));
        assert_eq!(own.max_message_bytes, 4000);
        assert!(own.log.compact && own.log.delete);
        assert!(!config.topic(&map(&[("cleanup.policy", "")])).log.delete);

        let back = config
            .with_dynamic(&BTreeMap::new(), &BTreeMap::new())
            .expect("a configuration");
        assert_eq!(back.topic(&BTreeMap::new()).max_message_bytes, 1000);
    }

    #[test]
    fn dynamic_keys_that_do_nothing_are_known() {
        let limit = "replica.alter.log.dirs.io.max.bytes.per.second";
        let config = load("num.io.threads=4", &[], &[]).expect("a configuration");
        assert_eq!(config.idle_dynamic(), [""; 0]);
        let cluster = map(&[("num.io.threads", "4"), ("log.retention.ms", "6000")]);
        let broker = map(&[(limit, "1"), ("num.io.threads", "5"), ("nobody.knows", "1")]);
        let config = config.with_dynamic(&cluster, &broker);
        let config = config.expect("a configuration");
        assert_eq!(config.idle_dynamic(), ["num.io.threads", limit]);
    }

    #[test]
    fn the_defaults_of_topics_are_those_of_the_log() {
        let config = load("", &[], &[]).expect("a configuration");
        assert_eq!(
            config.topic(&BTreeMap::new()).log,
            storage::config::Config::default()
        );
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn addresses(listeners: &[Listener]) -> String {
        let addresses: Vec<String> = listeners.iter().map(Listener::to_string).collect();
        addresses.join(" ")
    }

    #[track_caller]
    fn refused(file: &str, environment: &[&str], overrides: &[&str], want: &str) {
        let got = load(file, environment, overrides)
            .expect_err("a refusal")
            .to_string();
        let want: Vec<&str> = want.lines().map(str::trim).collect();
        assert_eq!(got.lines().collect::<Vec<_>>(), want);
    }

    /// A configuration of the text of a `server.properties`, `NAME=value` variables and overrides.
    fn load(file: &str, environment: &[&str], overrides: &[&str]) -> Result<Config, Error> {
        let pairs = |words: &[&str]| -> Vec<(String, String)> {
            let pair = |word: &&str| {
                word.split_once('=')
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
            };
            words.iter().filter_map(pair).collect()
        };
        let file = properties::parse(file).expect("readable properties");
        let setting = |property: properties::Property| {
            let origin = Origin::File {
                path: PathBuf::from("server.properties"),
                line: property.line,
            };
            (property.key, Setting::new(&property.value, origin))
        };
        Config::of(
            file.into_iter().map(setting).collect(),
            &pairs(environment),
            &pairs(overrides),
        )
    }
}
