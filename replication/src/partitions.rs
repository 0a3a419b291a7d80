//! The partitions on this broker: which there are, where their logs are, and how a new cluster image
//! changes that.
//!
//! Looking a partition up takes no lock. An image is applied by one caller at a time; it opens, creates
//! and removes logs, so it runs where it may wait for the disk.

mod applying;
mod index;
mod opening;
mod placing;
mod relocation;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use storage::{
    checkpoint::Offsets,
    directory::{Directory, Found, State},
};
use tokio::sync::Notify;
use tracing::{error, warn};
use uuid::Uuid;

use self::{
    index::{Index, Slot},
    relocation::Relocations,
};
pub use self::{
    index::{Missing, TopicPartitions},
    relocation::Relocation,
};
use crate::{
    cluster::ClusterImage,
    controller::{self, directories::Place},
    partition::{Config, Partition},
    watermark::{Waiter, Watermark},
};

/// What a topic's overrides amount to, on top of what holds for all topics now.
pub type ConfigOf = dyn Fn(&BTreeMap<String, String>) -> Config + Send + Sync;

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

    fn lock(&self) -> MutexGuard<'_, Applied> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
