//! The partitions on this broker: which there are, where their logs are, and how a new cluster image
//! changes that.
//!
//! Looking a partition up takes no lock. An image is applied by one caller at a time; it opens, creates
//! and removes logs, so it runs where it may wait for the disk.

mod opening;
mod relocation;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use storage::{
    checkpoint::Offsets,
    directory::{Directory, Found, State},
};
use tokio::sync::Notify;
use tracing::{error, info, warn};
use uuid::Uuid;

pub use self::relocation::Relocation;
use self::{
    opening::{Opened, Opening, set_aside},
    relocation::Relocations,
};
use crate::{
    cluster::{ClusterImage, PartitionInfo, ResourceKind, Topic, is_assigned},
    controller::{self, directories::Place},
    partition::{Config, Leadership, Name, Partition},
    watermark::{Waiter, Watermark},
};

/// What a topic's overrides amount to, on top of what holds for all topics now.
pub type ConfigOf = dyn Fn(&BTreeMap<String, String>) -> Config + Send + Sync;

/// Fewer logs than this are opened one after the other: a thread costs as much as a few logs.
const PARALLEL_MIN: usize = 16;

pub struct Partitions {
    node_id: i32,
    directories: Vec<Arc<Directory>>,
    /// Configured, and not usable from the start.
    unusable: Vec<PathBuf>,
    /// A directory has failed, or a replica is somewhere else.
    attention: Arc<Notify>,
    /// Threads that open logs, for each directory.
    openers: usize,
    config_of: Box<ConfigOf>,
    index: ArcSwap<Index>,
    state: Mutex<Applied>,
    /// Offset of the newest image that was applied.
    applied: Watermark,
    /// That image.
    applied_image: ArcSwapOption<ClusterImage>,
    relocations: Relocations,
}

/// Only who applies an image touches this.
#[derive(Default)]
struct Applied {
    image: Option<Arc<ClusterImage>>,
    /// Logs that were there at the start and that no image has named yet: name to directory, and to
    /// two when a stop came between the two renames of a [move](relocation).
    unclaimed: HashMap<String, Vec<Arc<Directory>>>,
    /// Renamed logs whose files may go at a time (ms).
    doomed: Vec<Doomed>,
    /// Topics of which the controller may not know where their replicas are here.
    unplaced: HashSet<Uuid>,
}

struct Doomed {
    at: i64,
    directory: Arc<Directory>,
    name: String,
}

#[derive(Debug, Clone, Default)]
struct Index {
    by_name: HashMap<Arc<str>, Arc<TopicPartitions>>,
    by_id: HashMap<Uuid, Arc<TopicPartitions>>,
}

/// The partitions of one topic that this broker has.
#[derive(Debug, Clone)]
pub struct TopicPartitions {
    name: Arc<str>,
    id: Uuid,
    slots: BTreeMap<i32, Slot>,
}

#[derive(Debug, Clone)]
enum Slot {
    Here(Arc<Partition>),
    /// Its log could not be opened, or its directory has failed.
    Offline,
}

/// Why there is no partition to work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The topic does not have it, or this broker has no replica of it.
    Unknown,
    /// Its log directory has failed.
    Offline,
}

impl TopicPartitions {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn id(&self) -> Uuid {
        self.id
    }

    pub fn get(&self, index: i32) -> Result<Arc<Partition>, Missing> {
        match self.slots.get(&index) {
            Some(Slot::Here(partition)) => Ok(Arc::clone(partition)),
            Some(Slot::Offline) => Err(Missing::Offline),
            None => Err(Missing::Unknown),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::Here(partition) => Some(partition),
            Slot::Offline => None,
        })
    }
}

impl fmt::Debug for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partitions({} topics)", self.index.load().by_id.len())
    }
}

impl Partitions {
    /// Looks at what is in the directories. No log is opened before an image asks for it.
    ///
    /// `unusable` are configured directories that could not even be opened.
    /// `openers` is the number of threads for each directory (`num.recovery.threads.per.data.dir`).
    pub fn new(
        node_id: i32,
        directories: Vec<Arc<Directory>>,
        unusable: Vec<PathBuf>,
        openers: usize,
        config_of: Box<ConfigOf>,
        now: i64,
    ) -> Result<Self, storage::error::Error> {
        let mut state = Applied::default();
        for directory in &directories {
            for Found { name, state: found } in directory.logs()? {
                match found {
                    State::Live if is_metadata_log(&name) => (),
                    State::Live => {
                        let places = state.unclaimed.entry(name).or_default();
                        places.push(Arc::clone(directory));
                    }
                    // A stop came between the rename and the removal, or before a copy was whole.
                    State::Deleted | State::Future => {
                        state.doomed.push(Doomed {
                            at: now,
                            directory: Arc::clone(directory),
                            name,
                        });
                    }
                    State::Stray => (),
                }
            }
        }
        let attention = Arc::<Notify>::default();
        for directory in &directories {
            let attention = Arc::clone(&attention);
            directory.when_offline(move || attention.notify_one());
        }
        Ok(Self {
            node_id,
            directories,
            unusable,
            attention,
            openers,
            config_of,
            index: ArcSwap::default(),
            state: Mutex::new(state),
            applied: Watermark::new(-1),
            applied_image: ArcSwapOption::empty(),
            relocations: Relocations::default(),
        })
    }

    pub fn directories(&self) -> &[Arc<Directory>] {
        &self.directories
    }

    /// Configured directories that could not be used from the start.
    pub fn unusable(&self) -> &[PathBuf] {
        &self.unusable
    }

    /// Returns when a directory has failed, or a replica has moved to another one: see
    /// [`Partitions::take_offline`] and [`Partitions::misplaced`].
    pub async fn attention(&self) {
        self.attention.notified().await;
    }

    pub fn topic(&self, name: &str) -> Option<Arc<TopicPartitions>> {
        self.index.load().by_name.get(name).cloned()
    }

    pub fn topic_by_id(&self, id: Uuid) -> Option<Arc<TopicPartitions>> {
        self.index.load().by_id.get(&id).cloned()
    }

    pub fn partition(&self, topic: &str, index: i32) -> Result<Arc<Partition>, Missing> {
        match self.index.load().by_name.get(topic) {
            Some(topic) => topic.get(index),
            None => Err(Missing::Unknown),
        }
    }

    /// Every partition, in no order.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        let index = self.index.load();
        index
            .by_id
            .values()
            .flat_map(|topic| topic.iter().cloned())
            .collect()
    }

    /// Partitions whose log could not be opened or whose directory has failed.
    pub fn offline_count(&self) -> usize {
        let index = self.index.load();
        let slots = index.by_id.values().flat_map(|topic| topic.slots.values());
        slots.filter(|slot| matches!(slot, Slot::Offline)).count()
    }

    /// Takes partitions out of service whose directory has failed. They come back with a restart.
    pub fn take_offline(&self) {
        let _applying = self.lock();
        let mut index = Index::clone(&self.index.load());
        let failed = |slot: &Slot| match slot {
            Slot::Here(partition) => partition.home().directory.is_offline(),
            Slot::Offline => false,
        };
        let topics = index.by_id.values();
        let hit: Vec<Arc<TopicPartitions>> = topics
            .filter(|topic| topic.slots.values().any(failed))
            .cloned()
            .collect();
        for topic in &hit {
            let mut topic = TopicPartitions::clone(topic);
            for (partition, slot) in &mut topic.slots {
                if failed(slot) {
                    warn!(partition = %format_args!("{}-{partition}", topic.name), "the partition is offline");
                    *slot = Slot::Offline;
                }
            }
            index.insert(topic);
        }
        self.index.store(Arc::new(index));
    }

    /// Replicas here of which the image says that they are somewhere else, or does not know yet. What has
    /// been told once is not told again.
    pub fn misplaced(&self, image: &ClusterImage) -> Vec<Place> {
        let topics = std::mem::take(&mut self.lock().unplaced);
        let index = self.index.load();
        let mut places = Vec::new();
        for (topic, here) in topics
            .iter()
            .filter_map(|id| Some((image.topic_by_id(*id)?, index.by_id.get(id)?)))
        {
            for partition in here.iter() {
                let at = partition.name().index;
                let directory = partition.home().directory.id();
                let info = topic.partitions.get(&at);
                if info.is_some_and(|info| info.directory_of(self.node_id) != Some(directory)) {
                    places.push(Place {
                        topic_id: topic.id,
                        index: at,
                        directory,
                    });
                }
            }
        }
        places
    }

    /// Returns when the image with this offset has been applied: what it created can be used.
    pub async fn applied(&self, offset: i64) {
        let waiter = Arc::new(Waiter::default());
        self.applied.register(&waiter);
        while self.applied.get() < offset {
            waiter.woken().await;
        }
        self.applied.forget(&waiter);
    }

    /// The newest image of which all that is to be here is here; `None` until the first has been applied.
    pub fn applied_image(&self) -> Option<Arc<ClusterImage>> {
        self.applied_image.load_full()
    }

    /// Follows the cluster: opens and creates logs, removes those of deleted topics, and tells
    /// partitions who leads and what their configuration is. Blocks.
    pub fn apply(&self, image: &Arc<ClusterImage>, now: i64) {
        let mut state = self.lock();
        let previous = state.image.replace(Arc::clone(image));
        if previous
            .as_ref()
            .is_some_and(|previous| image.offset <= previous.offset)
        {
            return;
        }
        let mut index = Index::clone(&self.index.load());
        let gone = self.remove_deleted(&mut state, &mut index, image, now);
        let changed: Vec<&Arc<Topic>> = image
            .topics()
            .filter(|topic| has_changed(previous.as_deref(), image, topic))
            .collect();
        let todo = self.to_open(&mut state, &index, image, &changed);
        let opened = self.open(todo, now);
        let is_first = previous.is_none();

        if gone || !changed.is_empty() {
            let mut opened_of: HashMap<Uuid, Vec<(i32, Slot)>> = HashMap::new();
            for Opened { name, slot, doomed } in opened {
                opened_of
                    .entry(name.topic_id)
                    .or_default()
                    .push((name.index, slot));
                state.doomed.extend(doomed);
            }
            for topic in changed {
                self.update(&index, image, topic);
                state.unplaced.insert(topic.id);
                index.extend(topic, opened_of.remove(&topic.id).unwrap_or_default());
            }
            self.index.store(Arc::new(index));
        }
        if is_first {
            self.set_strays_aside(&mut state, now);
            self.note_recovered();
        }
        self.applied_image.store(Some(Arc::clone(image)));
        self.applied.advance(image.offset);
    }

    /// Every log that was there at the start has been opened, unless one could not be.
    fn note_recovered(&self) {
        if self.offline_count() > 0 {
            return;
        }
        for directory in &self.directories {
            if let Err(err) = directory.recovered() {
                error!(%err, "the logs will be checked again at the next start");
            }
        }
    }

    /// Tells partitions their configuration again: what holds for all topics has changed.
    pub fn reconfigure(&self) {
        let state = self.lock();
        let Some(image) = &state.image else { return };
        for topic in self.index.load().by_id.values() {
            let config = self.config(image, &topic.name);
            topic
                .iter()
                .for_each(|partition| partition.configure(&config));
        }
    }

    /// Removes the files of deleted logs whose time has come. Blocks.
    pub fn remove_doomed(&self, now: i64) {
        let due: Vec<Doomed> = {
            let mut state = self.lock();
            let (due, rest) = std::mem::take(&mut state.doomed)
                .into_iter()
                .partition(|doomed| doomed.at <= now);
            state.doomed = rest;
            due
        };
        for Doomed {
            directory, name, ..
        } in due
        {
            if let Err(err) = directory.remove(&name) {
                error!(name, %err, "cannot remove a deleted log");
            }
        }
    }

    fn remove_deleted(
        &self,
        state: &mut Applied,
        index: &mut Index,
        image: &ClusterImage,
        now: i64,
    ) -> bool {
        let is_gone = |id: &Uuid| image.topic_by_id(*id).is_none();
        let gone: Vec<Uuid> = index.by_id.keys().copied().filter(is_gone).collect();
        for id in &gone {
            let Some(topic) = index.remove(*id) else {
                continue;
            };
            for partition in topic.iter() {
                partition.close();
                let home = partition.home();
                let delay = home.log.config().file_delete_delay_ms;
                let name = partition.name().to_string();
                match home.directory.rename(&home.log, &name, State::Deleted) {
                    Ok(name) => state.doomed.push(Doomed {
                        at: now.saturating_add(delay),
                        directory: Arc::clone(&home.directory),
                        name,
                    }),
                    Err(err) => error!(name, %err, "cannot set the log of a deleted topic aside"),
                }
            }
            info!(topic = &*topic.name, "deleted");
        }
        !gone.is_empty()
    }

    /// The partitions of `changed` topics that should be here and are not.
    fn to_open(
        &self,
        state: &mut Applied,
        index: &Index,
        image: &ClusterImage,
        changed: &[&Arc<Topic>],
    ) -> Vec<Opening> {
        let mut todo = Vec::new();
        let mut counts: Vec<usize> = self.counts(index);
        for topic in changed {
            let known = index.by_id.get(&topic.id);
            let config = self.config(image, &topic.name);
            for (&partition, info) in &topic.partitions {
                let is_here = known.is_some_and(|known| known.slots.contains_key(&partition));
                if is_here || !info.replicas.contains(&self.node_id) {
                    continue;
                }
                let name = Name {
                    topic: topic.name.clone(),
                    topic_id: topic.id,
                    index: partition,
                };
                let noted = info.directory_of(self.node_id);
                let mut found = state
                    .unclaimed
                    .remove(&name.to_string())
                    .unwrap_or_default();
                found.sort_by_key(|found| noted != Some(found.id()));
                let directory = match found.first() {
                    Some(found) => self.named(info).or_else(|| Some(Arc::clone(found))),
                    None if self.may_be_out_of_reach(info) => None,
                    None => self.choose(image, info, &mut counts),
                };
                let leadership = leadership(info, &config);
                todo.push(Opening {
                    name,
                    found,
                    directory,
                    config: config.clone(),
                    leadership,
                });
            }
        }
        todo
    }

    /// The directory that the image says, if it works.
    fn named(&self, info: &PartitionInfo) -> Option<Arc<Directory>> {
        let place = info.replicas.iter().position(|id| *id == self.node_id)?;
        let wanted = info.directories.get(place)?;
        let named = self
            .directories
            .iter()
            .find(|directory| directory.id() == *wanted && !directory.is_offline());
        named.cloned()
    }

    /// Is the log perhaps in a directory that has failed? An empty one in its place would be taken for it.
    fn may_be_out_of_reach(&self, info: &PartitionInfo) -> bool {
        let any_offline = || self.directories.iter().any(|one| one.is_offline());
        let noted = info.directory_of(self.node_id);
        noted.is_some_and(is_assigned)
            && self.named(info).is_none()
            && (!self.unusable.is_empty() || any_offline())
    }

    /// Where a new log goes: where the image says, else where the fewest are of those that are not
    /// cordoned, if there are any.
    fn choose(
        &self,
        image: &ClusterImage,
        info: &PartitionInfo,
        counts: &mut [usize],
    ) -> Option<Arc<Directory>> {
        let named = self.named(info).and_then(|named| {
            let is_it = |other| Arc::ptr_eq(other, &named);
            self.directories.iter().position(is_it)
        });
        let at = named.or_else(|| {
            (0..self.directories.len())
                .filter(|at| !self.directories[*at].is_offline())
                .min_by_key(|at| {
                    let cordoned = image.has_cordoned(self.node_id, self.directories[*at].id());
                    (cordoned, counts[*at])
                })
        })?;
        counts[at] += 1;
        Some(Arc::clone(&self.directories[at]))
    }

    fn counts(&self, index: &Index) -> Vec<usize> {
        let mut counts = vec![0; self.directories.len()];
        for partition in index.by_id.values().flat_map(|topic| topic.iter()) {
            let home = partition.home();
            let at = self
                .directories
                .iter()
                .position(|other| Arc::ptr_eq(other, &home.directory));
            if let Some(at) = at {
                counts[at] += 1;
            }
        }
        counts
    }

    fn open(&self, todo: Vec<Opening>, now: i64) -> Vec<Opened> {
        if todo.len() < PARALLEL_MIN {
            return todo
                .into_iter()
                .map(|opening| opening.run(self.node_id, Directory::set_topic_id, now))
                .collect();
        }
        // A thousand new logs would be two thousand fsyncs, one after the other.
        let any_new = AtomicBool::new(false);
        let set_topic_id = |directory: &Directory, name: &str, id: Uuid| {
            any_new.store(true, Ordering::Relaxed);
            directory.set_topic_id_unsynced(name, id)
        };
        let threads = (self.openers * self.directories.len()).clamp(1, todo.len());
        let todo = Mutex::new(todo);
        let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let work = || -> Vec<Opened> {
            std::iter::from_fn(next)
                .map(|opening| opening.run(self.node_id, set_topic_id, now))
                .collect()
        };
        let opened = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let joined = workers.into_iter().flat_map(|worker| worker.join());
            joined.flatten().collect()
        });
        if any_new.load(Ordering::Relaxed) {
            for directory in self.directories.iter().filter(|one| !one.is_offline()) {
                if let Err(err) = directory.sync() {
                    error!(%err, "the new logs may not survive a power cut");
                }
            }
        }
        opened
    }

    /// Tells the partitions that are here already what has changed.
    fn update(&self, index: &Index, image: &ClusterImage, topic: &Arc<Topic>) {
        let Some(known) = index.by_id.get(&topic.id) else {
            return;
        };
        let config = self.config(image, &topic.name);
        for partition in known.iter() {
            if let Some(info) = topic.partitions.get(&partition.name().index) {
                partition.configure(&config);
                partition.lead(leadership(info, &config));
            }
        }
    }

    /// Logs that were on disk and that the cluster does not know are kept, but out of the way.
    fn set_strays_aside(&self, state: &mut Applied, now: i64) {
        for (name, directories) in std::mem::take(&mut state.unclaimed) {
            for directory in directories {
                set_aside(&directory, &name, now);
            }
        }
    }

    fn config(&self, image: &ClusterImage, topic: &str) -> Config {
        match image.config(ResourceKind::Topic, topic) {
            Some(overrides) => (self.config_of)(overrides),
            None => (self.config_of)(&BTreeMap::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Applied> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// Adds partitions to a topic, which may be new.
    fn extend(&mut self, topic: &Topic, slots: Vec<(i32, Slot)>) {
        let known = self.by_id.get(&topic.id).map(|known| known.slots.clone());
        if known.is_some() && slots.is_empty() {
            return;
        }
        let mut all = known.unwrap_or_default();
        all.extend(slots);
        let topic = TopicPartitions {
            name: topic.name.clone(),
            id: topic.id,
            slots: all,
        };
        self.insert(topic);
    }

    fn insert(&mut self, topic: TopicPartitions) {
        let topic = Arc::new(topic);
        self.by_name
            .insert(Arc::clone(&topic.name), Arc::clone(&topic));
        self.by_id.insert(topic.id, topic);
    }

    fn remove(&mut self, id: Uuid) -> Option<Arc<TopicPartitions>> {
        let topic = self.by_id.remove(&id)?;
        // A new topic of the same name may have taken its place.
        if self
            .by_name
            .get(&topic.name)
            .is_some_and(|named| named.id == id)
        {
            self.by_name.remove(&topic.name);
        }
        Some(topic)
    }
}

/// Is there anything new about this topic?
fn has_changed(previous: Option<&ClusterImage>, image: &ClusterImage, topic: &Arc<Topic>) -> bool {
    let Some(previous) = previous else {
        return true;
    };
    let same_topic = previous
        .topic_by_id(topic.id)
        .is_some_and(|known| Arc::ptr_eq(known, topic));
    let config = |image: &ClusterImage| {
        image
            .config(ResourceKind::Topic, &topic.name)
            .map(Arc::as_ptr)
    };
    !same_topic || config(previous) != config(image)
}

fn leadership(info: &PartitionInfo, config: &Config) -> Leadership {
    Leadership {
        leader: info.leader,
        leader_epoch: info.leader_epoch,
        replicas: info.replicas.len(),
        isr: info.isr.clone(),
        min_insync_replicas: config.min_insync_replicas,
    }
}

fn is_metadata_log(name: &str) -> bool {
    name.rsplit_once('-')
        .is_some_and(|(topic, _)| topic == controller::TOPIC)
}

/// High watermarks of all partitions, by directory: what `replication-offset-checkpoint` holds.
pub fn high_watermarks(partitions: &[Arc<Partition>], directory: &Arc<Directory>) -> Offsets {
    let here = partitions
        .iter()
        .filter(|partition| Arc::ptr_eq(&partition.home().directory, directory));
    here.map(|partition| (partition.name().to_string(), partition.high_watermark()))
        .collect()
}
