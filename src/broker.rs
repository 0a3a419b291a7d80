//! Owns everything, and knows the order of starting and stopping.
//!
//! ```text
//! start   directories locked -> listeners bound -> controller -> registration -> logs opened -> served
//! stop    nothing new accepted -> answers in flight -> connections cut -> controller -> logs closed, clean shutdown marked
//! ```
//!
//! The listeners are bound early, so that a port that is taken is found out before anything is changed,
//! and served last, so that nobody meets a broker without its partitions.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use replication::{
    cluster::{ClusterImage, Endpoint, ResourceKind},
    controller::{
        Controller, ControllerConfig, History,
        brokers::{Registration, SupportedFeature},
        topics::{Defaults, NewTopic},
    },
    error::{Reason, Refusal},
    partition,
    partitions::{Missing, Partitions},
};
use storage::{
    directory::{self, Directory},
    disk::{self, Disk},
    properties::{self, Identity},
};
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    task::JoinHandle,
};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    api::error::Error,
    cleaner::Cleaner,
    clock,
    complaints::Complaints,
    config::{self, Compression, Config, TopicConfig},
    coordinator::{
        group::{GroupCoordinator, figures::Figures},
        runtime::{Host, Job, Runtime},
        transaction::{TransactionCoordinator, markers, request::Transactions},
    },
    descriptors::Shares,
    features,
    fetch_sessions::FetchSessions,
    metrics::{self, Metrics, gauges},
    rules::Rules,
    server::{Connections, Context, Listener},
    topic_name, upkeep, warnings,
};

/// Partitions that all fetch sessions together may remember. A partition costs about 200 bytes.
const SESSION_PARTITIONS_MAX: usize = 1_000_000;

/// How long answers in flight are waited for when the broker stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What handlers work with.
pub struct Broker {
    node_id: i32,
    broker_epoch: i64,
    /// As it was at the start, without dynamic changes.
    fixed_config: Config,
    config: Arc<ArcSwap<Config>>,
    /// The dynamic part of `config`.
    overrides: Mutex<Overrides>,
    controller: Controller,
    partitions: Arc<Partitions>,
    fetch_sessions: Mutex<FetchSessions>,
    /// What is left of the block of producer ids that the controller gave us: next and end.
    producer_ids: AsyncMutex<std::ops::Range<i64>>,
    connections: Arc<Connections>,
    groups: Arc<Runtime<GroupCoordinator>>,
    group_figures: Arc<Figures>,
    transactions: Transactions,
    /// Why topics could not be created automatically.
    complaints: Mutex<Complaints>,
    metrics: Arc<Metrics>,
    cleaner: Cleaner,
    stopping: watch::Sender<bool>,
    /// Why the broker cannot go on.
    failed: watch::Sender<Option<String>>,
}

impl Broker {
    pub(crate) fn node_id(&self) -> i32 {
        self.node_id
    }

    /// The configuration in force, dynamic changes included.
    pub(crate) fn config(&self) -> Guard<Arc<Config>> {
        self.config.load()
    }

    pub(crate) fn controller(&self) -> &Controller {
        &self.controller
    }

    /// What the cluster knows about itself.
    pub(crate) fn image(&self) -> Arc<ClusterImage> {
        self.controller.image()
    }

    /// What clients are told of topics: they may come for a partition as soon as they have heard of it, and some
    /// do not come twice.
    pub(crate) fn applied_image(&self) -> Arc<ClusterImage> {
        let applied = self.partitions.applied_image();
        applied.unwrap_or_else(|| self.image())
    }

    pub(crate) fn partitions(&self) -> &Arc<Partitions> {
        &self.partitions
    }

    pub(crate) fn partition(
        &self,
        topic: &str,
        index: i32,
    ) -> Result<Arc<partition::Partition>, Missing> {
        self.partitions.partition(topic, index)
    }

    /// Groups, their members and their offsets.
    pub(crate) fn groups(&self) -> &Arc<Runtime<GroupCoordinator>> {
        &self.groups
    }

    /// What groups have counted.
    pub(crate) fn group_figures(&self) -> &Figures {
        &self.group_figures
    }

    /// Transactional ids and what becomes of their transactions.
    pub(crate) fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    pub(crate) fn fetch_sessions(&self) -> &Mutex<FetchSessions> {
        &self.fetch_sessions
    }

    pub(crate) fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn cleaner(&self) -> &Cleaner {
        &self.cleaner
    }

    /// An id no producer has had before.
    pub(crate) async fn next_producer_id(&self) -> Result<i64, Error> {
        let mut ids = self.producer_ids.lock().await;
        if ids.is_empty() {
            let block = self
                .controller
                .allocate_producer_ids(self.node_id, self.broker_epoch)
                .await??;
            *ids = block.first..block.first + block.count;
        }
        let id = ids.start;
        ids.start += 1;
        Ok(id)
    }

    /// Creates the topics a client has named, if that is allowed, and those that coordinators need, in any case.
    /// Nobody waits for it.
    pub(crate) fn create_missing(self: &Arc<Self>, names: Vec<String>) {
        let config = self.config();
        let topics: Vec<NewTopic> = names
            .into_iter()
            .filter_map(|name| match topic_name::is_internal(&name) {
                true => internal_topic(&config, name),
                false => config.auto_create_topics_enable.then(|| NewTopic {
                    name,
                    partition_count: -1,
                    replication_factor: -1,
                    assignments: Vec::new(),
                    configs: Vec::new(),
                }),
            })
            .collect();
        if topics.is_empty() {
            return;
        }
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
            match broker.controller.create_topics(topics, false).await {
                Ok(outcomes) => {
                    for (name, outcome) in names.iter().zip(outcomes) {
                        let Err(refusal) = outcome else { continue };
                        // Two clients may ask for the same topic; that is no news.
                        if refusal.reason == Reason::TopicAlreadyExists {
                            continue;
                        }
                        broker.complain(name, &refusal);
                    }
                }
                Err(err) => warn!(%err, "topics cannot be created automatically"),
            }
        });
    }

    /// Says why a topic cannot be created that somebody waits for, who only sees that it is not there.
    fn complain(&self, name: &str, refusal: &Refusal) {
        let mut complaints = self
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_news = complaints.is_news(&format!("{name}: {refusal}"), clock::steady_now());
        drop(complaints);
        if !is_news {
            return;
        }
        let keys = if topic_name::is_internal(name) {
            "the keys that begin with offsets.topic and transaction.state.log say how it is made"
        } else {
            "num.partitions and default.replication.factor say how it is made"
        };
        warn!(topic = name, %refusal, "clients wait for a topic that cannot be created; {keys}");
    }

    /// Follows the cluster image: dynamic configuration first, which the logs are opened with, then partitions, then
    /// who coordinates what is in them.
    pub(crate) fn apply(&self, image: &Arc<ClusterImage>) {
        let overrides = Overrides::of(image, self.node_id);
        let mut applied = self
            .overrides
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *applied != overrides {
            let (config, ignored) = self.fixed_config.following(&overrides.all, &overrides.own);
            for one in ignored {
                error!(
                    "a dynamic configuration that is stored cannot be followed and counts as none until it is set \
                     anew: {one}"
                );
            }
            let before = self.config.swap(Arc::new(config));
            let idle = self.config();
            let idle = idle.idle_dynamic().iter();
            let new: Vec<&str> = idle
                .filter(|key| !before.idle_dynamic().contains(key))
                .map(String::as_str)
                .collect();
            if !new.is_empty() {
                warn!(
                    "dynamic configuration keys that have no effect here: {}",
                    new.join(", ")
                );
            }
            self.partitions.reconfigure();
            *applied = overrides;
        }
        drop(applied);
        self.partitions.apply(image, clock::now());
        self.groups.follow(image);
        self.transactions.runtime().follow(image);
    }

    /// Returns when this broker has applied all that the cluster knows by now, or when the time of the
    /// request is over. Being late is no failure: what was decided stands.
    pub(crate) async fn catch_up(&self, ctx: &Context, timeout_ms: i32) {
        let applied = self.partitions.applied(self.image().offset);
        let _ = ctx.within(timeout_ms, applied).await;
    }

    /// Tells the controller where replicas are, where it knows nothing or something else.
    pub(crate) async fn tell_places(&self) {
        let places = self.partitions.misplaced(&self.image());
        if places.is_empty() {
            return;
        }
        let (id, epoch) = (self.node_id, self.broker_epoch);
        match self.controller.assign_directories(id, epoch, places).await {
            Ok(Ok(())) => (),
            Ok(Err(refusal)) => error!(%refusal, "the controller does not take where replicas are"),
            Err(err) => error!(%err, "cannot tell the controller where replicas are"),
        }
    }

    /// Tells the controller which directories take no new partitions, if that has changed.
    pub(crate) async fn tell_cordoned(&self) {
        let config = self.config();
        let directories = self.partitions.directories().iter();
        let is_cordoned = |one: &&Arc<Directory>| {
            config
                .cordoned_log_dirs
                .iter()
                .any(|path| path == one.path())
        };
        let cordoned: Vec<Uuid> = directories
            .filter(is_cordoned)
            .map(|one| one.id())
            .collect();
        drop(config);
        let image = self.image();
        let known = image.brokers.get(&self.node_id);
        if known.is_none_or(|known| known.cordoned() == cordoned) {
            return;
        }
        let (id, epoch) = (self.node_id, self.broker_epoch);
        match self
            .controller
            .cordon_directories(id, epoch, cordoned)
            .await
        {
            Ok(Ok(())) => (),
            Ok(Err(refusal)) => error!(%refusal, "the controller does not take what is cordoned"),
            Err(err) => error!(%err, "cannot tell the controller what is cordoned"),
        }
    }

    /// Tells the controller which directories are left, if one has failed. Without any, or without the one
    /// that has the metadata log, the broker cannot go on.
    pub(crate) async fn tell_directories(&self) {
        let directories = self.partitions.directories();
        let online = directories.iter().filter(|one| !one.is_offline());
        let online: Vec<Uuid> = online.map(|directory| directory.id()).collect();
        if online.len() == directories.len() {
            return;
        }
        let metadata = &self.fixed_config.metadata_log_dir;
        let has_metadata = |one: &&Arc<Directory>| one.path() == metadata;
        let why = if online.is_empty() {
            let paths = directories
                .iter()
                .map(|one| one.path().display().to_string());
            let paths: Vec<String> = paths.collect();
            format!("all log dirs in {} have failed", paths.join(", "))
        } else if directories
            .iter()
            .any(|one| has_metadata(&one) && one.is_offline())
        {
            format!("the metadata log dir {} has failed", metadata.display())
        } else {
            let (id, epoch) = (self.node_id, self.broker_epoch);
            match self.controller.fail_directories(id, epoch, online).await {
                Ok(Ok(())) => return,
                Ok(Err(refusal)) => format!("a failed log dir cannot be given up: {refusal}"),
                Err(err) => format!("a failed log dir cannot be given up: {err}"),
            }
        };
        self.fail(why);
    }

    /// The broker cannot go on.
    fn fail(&self, why: String) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(why);
            first
        });
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Completes when the broker begins to stop.
    pub(crate) fn stopping(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut stopping = self.stopping.subscribe();
        async move {
            // An error means that the broker is gone, which is as good a reason.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

/// What the cluster says about the configuration of all brokers, and of this one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Overrides {
    all: BTreeMap<String, String>,
    own: BTreeMap<String, String>,
}

impl Overrides {
    fn of(image: &ClusterImage, node_id: i32) -> Self {
        let of = |name: &str| {
            let found = image.config(ResourceKind::Broker, name);
            found
                .map(|overrides| BTreeMap::clone(overrides))
                .unwrap_or_default()
        };
        Self {
            all: of(""),
            own: of(&node_id.to_string()),
        }
    }
}

/// How a coordinator's topic is made; `None` for one that no coordinator here uses.
fn internal_topic(config: &Config, name: String) -> Option<NewTopic> {
    let (groups, transactions) = (&config.groups, &config.transactions);
    let (partition_count, replication_factor, configs) = match &*name {
        topic_name::OFFSETS => (
            groups.offsets_topic_num_partitions,
            groups.offsets_topic_replication_factor,
            vec![
                ("compression.type", "producer".to_owned()),
                (
                    "segment.bytes",
                    groups.offsets_topic_segment_bytes.to_string(),
                ),
            ],
        ),
        topic_name::TRANSACTIONS => (
            transactions.state_log_num_partitions,
            transactions.state_log_replication_factor,
            vec![
                ("compression.type", "uncompressed".to_owned()),
                (
                    "min.insync.replicas",
                    transactions.state_log_min_isr.to_string(),
                ),
                (
                    "segment.bytes",
                    transactions.state_log_segment_bytes.to_string(),
                ),
                ("unclean.leader.election.enable", "false".to_owned()),
            ],
        ),
        _ => return None,
    };
    let own = |(key, value): (&str, String)| (key.to_owned(), Some(value));
    let compact = ("cleanup.policy", "compact".to_owned());
    Some(NewTopic {
        name,
        partition_count,
        replication_factor,
        assignments: Vec::new(),
        configs: configs.into_iter().chain([compact]).map(own).collect(),
    })
}

/// What partitions need of a topic's configuration.
fn partition_config(config: TopicConfig) -> partition::Config {
    partition::Config {
        rules: replication::admission::Rules {
            max_message_bytes: config.max_message_bytes,
            max_decompressed_bytes: config.max_decompressed_message_bytes,
            timestamp_type: config.message_timestamp_type,
            timestamp_before_max_ms: config.message_timestamp_before_max_ms,
            timestamp_after_max_ms: config.message_timestamp_after_max_ms,
            compression: match config.compression_type {
                Compression::Producer => None,
                Compression::Codec(codec, level) => Some((codec, level)),
            },
            keys_required: config.log.compact,
        },
        min_insync_replicas: config.min_insync_replicas,
        log: config.log,
    }
}

/// Why the broker did not start. The text says what was tried and what to do.
#[derive(Debug)]
pub enum StartError {
    /// A log directory cannot be used.
    Directory(storage::error::Error),
    Listen {
        listener: config::Listener,
        source: io::Error,
    },
    /// The address for metrics cannot be bound.
    Metrics {
        address: SocketAddr,
        source: io::Error,
    },
    Controller(replication::error::Error),
    /// The controller does not want this broker.
    Refused(Refusal),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(err) => write!(f, "{err}"),
            Self::Listen { listener, source } => write!(f, "cannot listen on {listener}: {source}"),
            Self::Metrics { address, source } => {
                write!(f, "cannot serve metrics on {address}: {source}")
            }
            Self::Controller(err) => write!(f, "the controller does not start: {err}"),
            Self::Refused(refusal) => {
                write!(
                    f,
                    "the controller refuses to register this broker: {refusal}"
                )
            }
        }
    }
}

impl std::error::Error for StartError {}

impl From<storage::error::Error> for StartError {
    fn from(err: storage::error::Error) -> Self {
        Self::Directory(err)
    }
}

impl From<replication::error::Error> for StartError {
    fn from(err: replication::error::Error) -> Self {
        Self::Controller(err)
    }
}

/// A broker that serves. Dropping it stops nothing: call [`Running::stop`].
pub struct Running {
    broker: Arc<Broker>,
    addresses: BTreeMap<String, SocketAddr>,
    metrics_address: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts a broker, and returns when it serves.
pub async fn start(config: Config) -> Result<Running, StartError> {
    start_on(disk::real(), config).await
}

/// The same with its logs on any disk. The controller's database is on the machine's own, whatever is said.
pub async fn start_on(disk: Arc<dyn Disk>, config: Config) -> Result<Running, StartError> {
    let now = clock::now();
    let cluster_id = cluster_id(&*disk, &config)?;
    let shares = Shares::of_process(config.log_dirs.len());
    let (directories, unusable) = open_directories(&disk, &config, &cluster_id, shares.files, now)?;
    let listeners = bind(&config).await?;
    let endpoint = match config.metrics_listener {
        Some(address) => Some(bind_metrics(address).await?),
        None => None,
    };
    let addresses: BTreeMap<String, SocketAddr> = listeners
        .iter()
        .filter_map(|listener| Some((listener.name().to_owned(), listener.address().ok()?)))
        .collect();

    let shared_config = Arc::new(ArcSwap::from_pointee(config.clone()));
    let controller = Controller::start(controller_config(
        &config,
        &cluster_id,
        disk,
        &directories,
        Arc::clone(&shared_config),
    ))
    .await?;
    let registered = controller.register_broker(Registration {
        broker_id: config.node_id,
        cluster_id,
        incarnation_id: Uuid::new_v4(),
        endpoints: endpoints(&config.advertised_listeners, &addresses),
        features: features::tolerated()
            .into_iter()
            .map(|(name, (min, max))| SupportedFeature { name, min, max })
            .collect(),
        rack: config.broker_rack.clone(),
        log_dirs: directories.iter().map(|directory| directory.id()).collect(),
        previous_epoch: previous_epoch(&directories),
        ready: true,
    });
    let broker_epoch = registered.await?.map_err(StartError::Refused)?;

    let config_of = {
        let config = Arc::clone(&shared_config);
        move |overrides: &BTreeMap<String, String>| partition_config(config.load().topic(overrides))
    };
    let partitions = Partitions::new(
        config.node_id,
        directories,
        unusable,
        config.num_recovery_threads_per_data_dir,
        Box::new(config_of),
        now,
    )?;
    let partitions = Arc::new(partitions);
    let host = || Host {
        node_id: config.node_id,
        partitions: Arc::clone(&partitions),
        config: Arc::clone(&shared_config),
        image: {
            let images = controller.watch();
            Box::new(move || Arc::clone(&images.borrow()))
        },
    };
    let group_figures = Arc::new(Figures::default());
    let groups = Runtime::new(
        topic_name::OFFSETS,
        host(),
        {
            let figures = Arc::clone(&group_figures);
            move || GroupCoordinator::counting(Arc::clone(&figures))
        },
        |job: Job<GroupCoordinator>| match job.task {},
    );
    // Markers are written by the broker that has the coordinator which wants them written.
    let written_by = Arc::new(OnceLock::<Weak<Broker>>::new());
    let transactions = Runtime::new(
        topic_name::TRANSACTIONS,
        host(),
        TransactionCoordinator::default,
        {
            let written_by = Arc::clone(&written_by);
            move |job| {
                if let Some(broker) = written_by.get().and_then(Weak::upgrade) {
                    tokio::spawn(markers::write(broker, job));
                }
            }
        },
    );
    let broker = Arc::new(Broker {
        node_id: config.node_id,
        broker_epoch,
        fetch_sessions: Mutex::new(FetchSessions::new(
            config.max_incremental_fetch_session_cache_slots,
            SESSION_PARTITIONS_MAX,
        )),
        connections: Arc::new(Connections::new(shares.connections)),
        config: shared_config,
        fixed_config: config,
        overrides: Mutex::default(),
        controller,
        partitions,
        groups: Arc::new(groups),
        group_figures,
        transactions: Transactions::new(transactions),
        producer_ids: AsyncMutex::default(),
        complaints: Mutex::default(),
        metrics: Arc::default(),
        cleaner: Cleaner::default(),
        stopping: watch::Sender::new(false),
        failed: watch::Sender::new(None),
    });
    // Nothing is coordinated yet, and so there are no markers to be written either.
    let _ = written_by.set(Arc::downgrade(&broker));

    let mut tasks = upkeep::start(&broker).await;
    tasks.push({
        let (broker, failed) = (Arc::clone(&broker), broker.controller.failed());
        let stopping = broker.stopping();
        tokio::spawn(async move {
            tokio::select! {
                why = failed => broker.fail(why),
                () = stopping => (),
            }
        })
    });
    for warning in warnings::of_replication(&broker.config(), &broker.image()) {
        warn!("{warning}");
    }
    if let Some(warning) = warnings::of_tiered_topics(&broker.image()) {
        error!("{warning}");
    }
    gauges::register(&broker);
    let metrics_address = endpoint
        .as_ref()
        .and_then(|endpoint| endpoint.address().ok());
    if let Some(endpoint) = endpoint {
        info!(address = ?metrics_address, "metrics are served");
        let scrapes = endpoint.serve(Arc::clone(&broker.metrics));
        let stopping = broker.stopping();
        tasks.push(tokio::spawn(async move {
            tokio::select! {
                () = scrapes => (),
                () = stopping => (),
            }
        }));
    }
    for listener in listeners {
        info!(listener = listener.name(), address = ?listener.address().ok(), "serving");
        tasks.push(tokio::spawn(listener.serve(Arc::clone(&broker))));
    }
    info!("Transitioning from RECOVERY to RUNNING");
    Ok(Running {
        broker,
        addresses,
        metrics_address,
        tasks,
    })
}

impl Running {
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Where a listener is bound.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.addresses.get(listener).copied()
    }

    /// Where metrics are served, if they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Returns when the broker cannot go on, with the reason. There is nothing left to stop in good order:
    /// the process should end.
    pub async fn failed(&self) -> String {
        let mut failed = self.broker.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The broker, which this holds, has the other end.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops: what is in flight is answered, logs are closed, and the next start finds nothing to do.
    pub async fn stop(self) {
        info!("stopping");
        let broker = self.broker;
        broker.stopping.send_replace(true);
        // Who waits for a rebalance waits for longer than a broker takes to stop.
        broker.groups.close();
        broker.transactions.runtime().close();
        if tokio::time::timeout(DRAIN_MAX, broker.connections.gone())
            .await
            .is_err()
        {
            warn!(
                connections = broker.connections.count(),
                "clients are still connected after {} s: closing their connections",
                DRAIN_MAX.as_secs()
            );
        }
        for task in self.tasks {
            // A task that has panicked has said so.
            let _ = task.await;
        }
        // What they would append from now on could be neither synced nor checked by the next start.
        broker.connections.cut_off();
        let _ = tokio::time::timeout(DRAIN_MAX, broker.connections.gone()).await;
        broker.controller.shutdown().await;
        let closing = Arc::clone(&broker);
        let closed = tokio::task::spawn_blocking(move || {
            for partition in closing.partitions.all() {
                partition.close();
            }
            for directory in closing.partitions.directories() {
                if let Err(err) = directory.close(closing.broker_epoch) {
                    error!(%err, "a log directory is not left clean: the next start will recover it");
                }
            }
        });
        let _ = closed.await;
        info!("stopped");
    }
}

/// The epoch this broker had when it last stopped in good order. All directories must say the same: one that
/// was not left clean may have lost records.
fn previous_epoch(directories: &[Arc<Directory>]) -> i64 {
    let mut epochs = directories
        .iter()
        .map(|directory| directory.previous_broker_epoch());
    match epochs.next().flatten() {
        Some(first) if epochs.all(|epoch| epoch == Some(first)) => first,
        _ => -1,
    }
}

/// The cluster this node belongs to: what its directories say, else what it was told, else a new one.
fn cluster_id(disk: &dyn Disk, config: &Config) -> Result<String, StartError> {
    for path in &config.log_dirs {
        if let Some(id) = directory::cluster_id(disk, path)? {
            return Ok(id);
        }
    }
    let new = || properties::encode_uuid(Uuid::new_v4());
    Ok(config.cluster_id.clone().unwrap_or_else(new))
}

/// Locks every log directory, and says which cannot be used: that is no reason not to start while another
/// works, as in Kafka, unless it is the one with the metadata log.
fn open_directories(
    disk: &Arc<dyn Disk>,
    config: &Config,
    cluster_id: &str,
    files_max: usize,
    now: i64,
) -> Result<(Vec<Arc<Directory>>, Vec<PathBuf>), StartError> {
    let identity = Identity {
        cluster_id: cluster_id.to_owned(),
        node_id: config.node_id,
    };
    let open = |path: &Path| -> Result<Directory, storage::error::Error> {
        directory::create(&**disk, path)?;
        Directory::open(Arc::clone(disk), path, &identity, files_max, now)
    };
    let (mut directories, mut unusable) = (Vec::new(), Vec::new());
    for path in &config.log_dirs {
        match open(path) {
            Ok(directory) => directories.push(Arc::new(directory)),
            Err(err @ storage::error::Error::Io { .. }) if *path != config.metadata_log_dir => {
                error!(%err, dir = %path.display(), "the log directory is offline");
                unusable.push(path.clone());
            }
            Err(err) => return Err(err.into()),
        }
    }
    Ok((directories, unusable))
}

async fn bind_metrics(address: SocketAddr) -> Result<metrics::Endpoint, StartError> {
    let bound = metrics::Endpoint::bind(address).await;
    bound.map_err(|source| StartError::Metrics { address, source })
}

async fn bind(config: &Config) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    for listener in &config.listeners {
        let (host, sockets) = (&listener.host, config.sockets);
        let bound = Listener::bind(&listener.name, host, listener.port, sockets).await;
        listeners.push(bound.map_err(|source| StartError::Listen {
            listener: listener.clone(),
            source,
        })?);
    }
    Ok(listeners)
}

/// What clients are told, with the ports that were really bound.
fn endpoints(
    listeners: &[config::Listener],
    addresses: &BTreeMap<String, SocketAddr>,
) -> Vec<Endpoint> {
    let endpoint = |listener: &config::Listener| Endpoint {
        name: listener.name.clone(),
        host: listener.host.clone(),
        port: match listener.port {
            0 => addresses.get(&listener.name).map_or(0, SocketAddr::port),
            port => port,
        },
        security_protocol: listener.protocol.code(),
    };
    listeners.iter().map(endpoint).collect()
}

fn controller_config(
    config: &Config,
    cluster_id: &str,
    disk: Arc<dyn Disk>,
    directories: &[Arc<Directory>],
    shared: Arc<ArcSwap<Config>>,
) -> ControllerConfig {
    let is_home = |directory: &&Arc<Directory>| directory.path() == config.metadata_log_dir;
    let home = directories.iter().find(is_home).unwrap_or(&directories[0]);
    let endpoints = endpoints(&config.controller_listeners, &BTreeMap::new());
    let address = endpoints
        .first()
        .map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port));
    let voters = config
        .controller_quorum_voters
        .iter()
        .map(|voter| (voter.id, format!("{}:{}", voter.host, voter.port)));
    let mut voters: BTreeMap<i32, String> = voters.collect();
    if voters.is_empty() {
        // A node that was told of no quorum is one by itself.
        voters.insert(config.node_id, address.unwrap_or_default());
    }
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    ControllerConfig {
        node_id: config.node_id,
        voters,
        cluster_id: cluster_id.to_owned(),
        directory: Arc::clone(home),
        disk,
        log: config.metadata_log(),
        history: History {
            bytes: config.metadata_max_retention_bytes,
            ms: config.metadata_max_retention_ms,
        },
        snapshot_bytes: config.metadata_log_max_record_bytes_between_snapshots,
        snapshot_interval_ms: millis(config.metadata_log_max_snapshot_interval),
        endpoints,
        supported_features: features::supported(),
        features: features::initial(),
        defaults: Defaults {
            partition_count: config.num_partitions,
            replication_factor: config.default_replication_factor,
        },
        rules: Arc::new(Rules::new(shared)),
    }
}
