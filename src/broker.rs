//! Owns everything, and knows the order of starting and stopping.
//!
//! ```text
//! start   directories locked -> listeners bound -> controller -> registration -> logs opened -> served
//! stop    nothing new accepted -> answers in flight -> connections cut -> controller -> logs closed, clean shutdown marked
//! ```

mod missing_topics;
mod running;
mod start;

use std::{
    collections::BTreeMap,
    future::Future,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::{ArcSwap, Guard};
use replication::{
    cluster::{ClusterImage, ResourceKind},
    controller::Controller,
    partition::Partition,
    partitions::{Missing, Partitions},
};
use storage::directory::Directory;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tracing::{error, warn};
use uuid::Uuid;

pub use self::{
    running::Running,
    start::{StartError, start, start_on},
};
use crate::{
    api::error::Error,
    cleaner::Cleaner,
    clock,
    complaints::Complaints,
    config::Config,
    coordinator::{
        group::{GroupCoordinator, expressions::Threads, figures::Figures},
        runtime::Runtime,
        transaction::request::Transactions,
    },
    fetch_sessions::FetchSessions,
    metrics::Metrics,
    server::{Connections, Context, OwnLimits, Unresolved},
};

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
    group_threads: Threads,
    transactions: Transactions,
    /// Why topics could not be created automatically.
    complaints: Mutex<Complaints>,
    /// Of clients, apart from those for them: a crowd of the ones shall not hide the others.
    clients_faults: Mutex<Complaints>,
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

    pub(crate) fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>, Missing> {
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

    /// Where members' expressions are compiled.
    pub(crate) fn group_threads(&self) -> &Threads {
        &self.group_threads
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
            self.limit_anew(&before.max_connections_per_ip_overrides);
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

    /// Looks up whose connections have a limit of their own, if that is not what it was.
    fn limit_anew(&self, before: &BTreeMap<String, usize>) {
        let config = self.config();
        let limits = &config.max_connections_per_ip_overrides;
        if limits == before {
            return;
        }
        match OwnLimits::resolve(limits) {
            Ok(limits) => self.connections.set_own_limits(limits),
            Err(Unresolved { host, source }) => error!(
                "max.connections.per.ip.overrides stays what it was: the host {host} has no address: {source}"
            ),
        }
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

    /// Whether to tell of the end of a client's connection: not each time, if it comes back as often as it is closed.
    pub(crate) fn is_news(&self, client: IpAddr, reason: &str) -> bool {
        let mut faults = self
            .clients_faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        faults.is_news(&format!("{client}: {reason}"), clock::steady_now())
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
