//! How a broker comes up.
//!
//! The listeners are bound early, so that a port that is taken is found out before anything is changed,
//! and served last, so that nobody meets a broker without its partitions.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use replication::{
    cluster::Endpoint,
    controller::{
        Controller, ControllerConfig, History,
        brokers::{Registration, SupportedFeature},
        topics::Defaults,
    },
    error::Refusal,
    partition,
    partitions::Partitions,
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

use super::{Broker, Running};
use crate::{
    cleaner::Cleaner,
    clock,
    config::{self, Compression, Config, TopicConfig},
    coordinator::{
        group::{
            GroupCoordinator,
            expressions::{self, Threads},
            figures::Figures,
        },
        runtime::{Host, Job, Runtime},
        transaction::{TransactionCoordinator, markers, request::Transactions},
    },
    descriptors::Shares,
    features,
    fetch_sessions::FetchSessions,
    metrics::{self, gauges},
    rules::Rules,
    server::{Connections, Listener, OwnLimits, Role, Unresolved},
    topic_name, upkeep, warnings,
};

/// Partitions that all fetch sessions together may remember. A partition costs about 200 bytes.
const SESSION_PARTITIONS_MAX: usize = 1_000_000;

const OWN_LIMITS: &str = "max.connections.per.ip.overrides";

const METRICS_LISTENER: &str = "sordini.metrics.listener";

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
    /// A host has no address.
    Host {
        key: &'static str,
        host: String,
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
                write!(
                    f,
                    "cannot serve metrics on {address} ({METRICS_LISTENER}): {source}"
                )
            }
            Self::Host { key, host, source } => {
                write!(f, "the host {host} of {key} has no address: {source}")
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

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // What it says itself is in the text already.
            Self::Directory(err) => err.source(),
            _ => None,
        }
    }
}

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

/// Starts a broker, and returns when it serves.
pub async fn start(config: Config) -> Result<Running, StartError> {
    start_on(disk::real(), config).await
}

/// The same with its logs on any disk. The controller's database is on the machine's own, whatever is said.
pub async fn start_on(disk: Arc<dyn Disk>, config: Config) -> Result<Running, StartError> {
    let now = clock::now();
    let own_limits = own_limits(&config).await?;
    let cluster_id = cluster_id(&*disk, &config)?;
    let shares = Shares::of_process(config.log_dirs.len());
    let (directories, unusable) = open_directories(&disk, &config, &cluster_id, shares.files, now)?;
    let listeners = bind(&config).await?;
    let endpoint = bind_metrics(&config).await?;
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
        endpoints(&config.advertised_controller_listeners, &addresses),
        Arc::clone(&shared_config),
    ))
    .await?;
    let endpoints = endpoints(&config.advertised_listeners, &addresses);
    let registration = registration(&config, cluster_id, endpoints, &directories);
    let registered = controller.register_broker(registration).await?;
    let broker_epoch = registered.map_err(StartError::Refused)?;

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
    // What coordinators want done is done by the broker that has them, once it is there.
    let done_by = Arc::new(OnceLock::new());
    let groups = group_coordinators(host(), &group_figures, &done_by);
    let transactions = transaction_coordinators(host(), &done_by);
    let broker = Arc::new(Broker {
        node_id: config.node_id,
        broker_epoch,
        fetch_sessions: Mutex::new(FetchSessions::new(
            config.max_incremental_fetch_session_cache_slots,
            SESSION_PARTITIONS_MAX,
        )),
        connections: Arc::new(Connections::new(shares.connections, own_limits)),
        group_threads: Threads::new(config.groups.background_threads),
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
        clients_faults: Mutex::default(),
        metrics: Arc::default(),
        cleaner: Cleaner::default(),
        stopping: watch::Sender::new(false),
        failed: watch::Sender::new(None),
    });
    // Nothing is coordinated yet, and so there is nothing to be done either.
    let _ = done_by.set(Arc::downgrade(&broker));

    let mut tasks = upkeep::start(&broker).await;
    tasks.push(fail_with_controller(&broker));
    warn_of_metadata(&broker);
    gauges::register(&broker);
    let metrics_address = endpoint
        .as_ref()
        .and_then(|endpoint| endpoint.address().ok());
    tasks.extend(endpoint.map(|endpoint| serve_metrics(&broker, endpoint)));
    for listener in listeners {
        info!(
            listener = listener.name(),
            address = listener.address().ok().map(display),
            "serving"
        );
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

/// What the controller is told of this broker.
fn registration(
    config: &Config,
    cluster_id: String,
    endpoints: Vec<Endpoint>,
    directories: &[Arc<Directory>],
) -> Registration {
    Registration {
        broker_id: config.node_id,
        cluster_id,
        incarnation_id: Uuid::new_v4(),
        endpoints,
        features: features::tolerated()
            .into_iter()
            .map(|(name, (min, max))| SupportedFeature { name, min, max })
            .collect(),
        rack: config.broker_rack.clone(),
        log_dirs: directories.iter().map(|directory| directory.id()).collect(),
        previous_epoch: previous_epoch(directories),
        ready: true,
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

/// The cluster this node belongs to: what it was told, else what its directories say, else a new one. A directory of
/// another is refused when it is opened.
fn cluster_id(disk: &dyn Disk, config: &Config) -> Result<String, StartError> {
    if let Some(id) = &config.cluster_id {
        return Ok(id.clone());
    }
    for path in &config.log_dirs {
        match directory::cluster_id(disk, path) {
            Ok(Some(id)) => return Ok(id),
            Ok(None) => (),
            // It is put aside when it is opened.
            Err(_) if *path != config.metadata_log_dir => (),
            Err(err) => return Err(err.into()),
        }
    }
    Ok(properties::encode_uuid(Uuid::new_v4()))
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

fn group_coordinators(
    host: Host,
    figures: &Arc<Figures>,
    done_by: &Arc<OnceLock<Weak<Broker>>>,
) -> Runtime<GroupCoordinator> {
    let figures = Arc::clone(figures);
    let empty = move || GroupCoordinator::counting(Arc::clone(&figures));
    let done_by = Arc::clone(done_by);
    let begin = move |job: Job<GroupCoordinator>| {
        if let Some(broker) = done_by.get().and_then(Weak::upgrade) {
            tokio::spawn(expressions::resolve(broker, job));
        }
    };
    Runtime::new(topic_name::OFFSETS, host, empty, begin)
}

fn transaction_coordinators(
    host: Host,
    done_by: &Arc<OnceLock<Weak<Broker>>>,
) -> Runtime<TransactionCoordinator> {
    let done_by = Arc::clone(done_by);
    let begin = move |job| {
        if let Some(broker) = done_by.get().and_then(Weak::upgrade) {
            tokio::spawn(markers::write(broker, job));
        }
    };
    let empty = TransactionCoordinator::default;
    Runtime::new(topic_name::TRANSACTIONS, host, empty, begin)
}

/// A broker whose controller has failed cannot go on either.
fn fail_with_controller(broker: &Arc<Broker>) -> JoinHandle<()> {
    let (failed, stopping) = (broker.controller.failed(), broker.stopping());
    let broker = Arc::clone(broker);
    tokio::spawn(async move {
        tokio::select! {
            why = failed => broker.fail(why),
            () = stopping => (),
        }
    })
}

fn warn_of_metadata(broker: &Broker) {
    for warning in warnings::of_replication(&broker.config(), &broker.image()) {
        warn!("{warning}");
    }
    if let Some(warning) = warnings::of_tiered_topics(&broker.image()) {
        error!("{warning}");
    }
}

fn serve_metrics(broker: &Arc<Broker>, endpoint: metrics::Endpoint) -> JoinHandle<()> {
    info!(
        address = endpoint.address().ok().map(display),
        "metrics are served"
    );
    let scrapes = endpoint.serve(Arc::clone(&broker.metrics));
    let stopping = broker.stopping();
    tokio::spawn(async move {
        tokio::select! {
            () = scrapes => (),
            () = stopping => (),
        }
    })
}

/// Nobody has asked for the default address: it may belong to another node on this machine, and is no reason not to
/// start.
async fn bind_metrics(config: &Config) -> Result<Option<metrics::Endpoint>, StartError> {
    let Some(address) = config.metrics_listener else {
        return Ok(None);
    };
    match metrics::Endpoint::bind(address).await {
        Ok(endpoint) => Ok(Some(endpoint)),
        Err(err) if !config.is_set(METRICS_LISTENER) => {
            warn!(
                "metrics are not served, for {address} cannot be listened on ({err}): set {METRICS_LISTENER} to another \
                 address, or to nothing"
            );
            Ok(None)
        }
        Err(source) => Err(StartError::Metrics { address, source }),
    }
}

/// Looks up whose connections have a limit of their own.
async fn own_limits(config: &Config) -> Result<OwnLimits, StartError> {
    let limits = config.max_connections_per_ip_overrides.clone();
    let looked_up = tokio::task::spawn_blocking(move || OwnLimits::resolve(&limits));
    let resolved = looked_up.await.expect("looking up does not panic");
    resolved.map_err(|Unresolved { host, source }| StartError::Host {
        key: OWN_LIMITS,
        host,
        source,
    })
}

async fn bind(config: &Config) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    let brokers = config.listeners.iter().map(|it| (it, Role::Broker));
    let controllers = config.controller_listeners.iter();
    let controllers = controllers.map(|it| (it, Role::Controller));
    for (listener, role) in brokers.chain(controllers) {
        let (host, sockets) = (&listener.host, config.sockets);
        let bound = Listener::bind(&listener.name, role, host, listener.port, sockets).await;
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
    endpoints: Vec<Endpoint>,
    shared: Arc<ArcSwap<Config>>,
) -> ControllerConfig {
    let is_home = |directory: &&Arc<Directory>| directory.path() == config.metadata_log_dir;
    let home = directories.iter().find(is_home).unwrap_or(&directories[0]);
    let own = config.controller_listeners.first();
    let address = own.map(|listener| format!("{}:{}", listener.host, listener.port));
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
