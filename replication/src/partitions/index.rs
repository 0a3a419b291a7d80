//! Which partitions are here, by topic: what is looked up for every request.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use uuid::Uuid;

use crate::{cluster::Topic, partition::Partition};

/// The partitions of one topic that this broker has.
#[derive(Debug, Clone)]
pub struct TopicPartitions {
    pub(super) name: Arc<str>,
    pub(super) id: Uuid,
    pub(super) slots: BTreeMap<i32, Slot>,
}

#[derive(Debug, Clone)]
pub(super) enum Slot {
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

#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub(super) by_name: HashMap<Arc<str>, Arc<TopicPartitions>>,
    pub(super) by_id: HashMap<Uuid, Arc<TopicPartitions>>,
}

impl Index {
    /// Adds partitions to a topic, which may be new.
    pub(super) fn extend(&mut self, topic: &Topic, slots: Vec<(i32, Slot)>) {
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

    pub(super) fn insert(&mut self, topic: TopicPartitions) {
        let topic = Arc::new(topic);
        self.by_name
            .insert(Arc::clone(&topic.name), Arc::clone(&topic));
        self.by_id.insert(topic.id, topic);
    }

    pub(super) fn remove(&mut self, id: Uuid) -> Option<Arc<TopicPartitions>> {
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
