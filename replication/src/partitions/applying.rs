//! What a new cluster image changes here: logs are opened, begun and set aside, partitions are told who leads.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use storage::directory::{Directory, State};
use tracing::{error, info};
use uuid::Uuid;

use super::{
    Applied, Doomed, Partitions,
    index::{Index, Slot},
    opening::{Opened, Opening, set_aside},
};
use crate::{
    cluster::{ClusterImage, PartitionInfo, ResourceKind, Topic},
    partition::{Config, Leadership, Name},
};

/// Fewer logs than this are opened one after the other: a thread costs as much as a few logs.
const PARALLEL_MIN: usize = 16;

impl Partitions {
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
