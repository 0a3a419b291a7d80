//! Committed offsets by group, topic and partition (pure): a broker keeps a million of them in memory.
//!
//! An offset takes 56 bytes if nothing was written beside it. Ids and names are shared; partitions of a topic are in
//! one sorted vector, since most groups read few partitions of few topics.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use protocol::records::group::OffsetCommitValue;
use uuid::Uuid;

/// An offset does not say when it goes.
const NO_EXPIRY: i64 = -1;

/// Up to where a group has read a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(super) commit_timestamp: i64,
    /// Where in the log this is: the later of two holds, in whatever order their transactions end.
    pub(super) record_offset: i64,
    beside: Option<Box<Beside>>,
    /// Nil if the record did not say.
    pub(super) topic_id: Uuid,
    /// -1 if the client did not say.
    pub(super) leader_epoch: i32,
    pub(crate) partition: i32,
}

/// What most clients leave empty.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Beside {
    metadata: Box<str>,
    expire_timestamp: i64,
}

impl Committed {
    pub(super) fn new(partition: i32, value: OffsetCommitValue, record_offset: i64) -> Self {
        let is_plain = value.metadata.is_empty() && value.expire_timestamp == NO_EXPIRY;
        let beside = (!is_plain).then(|| {
            Box::new(Beside {
                metadata: value.metadata.as_str().into(),
                expire_timestamp: value.expire_timestamp,
            })
        });
        Self {
            offset: value.offset,
            commit_timestamp: value.commit_timestamp,
            record_offset,
            beside,
            topic_id: value.topic_id,
            leader_epoch: value.leader_epoch,
            partition,
        }
    }

    pub(super) fn metadata(&self) -> &str {
        self.beside.as_ref().map_or("", |beside| &beside.metadata)
    }

    /// When it goes (ms), if the client said so.
    pub(super) fn expire_timestamp(&self) -> Option<i64> {
        let timestamp = self.beside.as_ref()?.expire_timestamp;
        (timestamp != NO_EXPIRY).then_some(timestamp)
    }

    /// Was it committed for another topic than this, one that had the same name?
    pub(super) fn is_of_another(&self, topic_id: Uuid) -> bool {
        !self.topic_id.is_nil() && !topic_id.is_nil() && self.topic_id != topic_id
    }
}

/// A group's offsets. Invariant: a topic's are in the order of partitions, and there is one at least.
pub(crate) type Topics = BTreeMap<Arc<str>, Vec<Committed>>;

/// Invariant: a group that is in here has an offset at least.
#[derive(Debug, Default)]
pub(super) struct Table {
    groups: HashMap<Arc<str>, Topics>,
    /// Of all groups' offsets.
    len: usize,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn group(&self, group_id: &str) -> Option<&Topics> {
        self.groups.get(group_id)
    }

    #[cfg(test)]
    pub(super) fn groups(&self) -> impl Iterator<Item = (&Arc<str>, &Topics)> {
        self.groups.iter()
    }

    pub(super) fn into_groups(self) -> impl Iterator<Item = (Arc<str>, Topics)> {
        self.groups.into_iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn get(&self, group_id: &str, topic: &str, partition: i32) -> Option<&Committed> {
        find(self.group(group_id)?.get(topic)?, partition)
    }

    pub(super) fn put(&mut self, group_id: &Arc<str>, topic: &Arc<str>, committed: Committed) {
        // Nearly every commit is of a group and a topic that are known already.
        let topics = match self.groups.get_mut(group_id) {
            Some(topics) => topics,
            None => self.groups.entry(Arc::clone(group_id)).or_default(),
        };
        let Some(partitions) = topics.get_mut(topic) else {
            topics.insert(Arc::clone(topic), vec![committed]);
            self.len += 1;
            return;
        };
        match partitions.binary_search_by_key(&committed.partition, |known| known.partition) {
            Ok(place) => partitions[place] = committed,
            Err(place) => {
                partitions.insert(place, committed);
                self.len += 1;
            }
        }
    }

    pub(super) fn remove(&mut self, group_id: &str, topic: &str, partition: i32) {
        let Some(topics) = self.groups.get_mut(group_id) else {
            return;
        };
        let Some(partitions) = topics.get_mut(topic) else {
            return;
        };
        if let Ok(place) = partitions.binary_search_by_key(&partition, |known| known.partition) {
            partitions.remove(place);
            self.len -= 1;
        }
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.groups.remove(group_id);
        }
    }
}

/// The offset of a partition, if one is committed.
pub(super) fn find(partitions: &[Committed], partition: i32) -> Option<&Committed> {
    let place = partitions
        .binary_search_by_key(&partition, |known| known.partition)
        .ok()?;
    Some(&partitions[place])
}

/// Every topic's name once, however many groups read it.
#[derive(Debug, Default)]
pub(super) struct Names {
    all: HashSet<Arc<str>>,
    /// What was asked for last: a commit is of many partitions of few topics.
    last: Option<Arc<str>>,
}

impl Names {
    pub(super) fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(last) = self.last.as_ref().filter(|last| &***last == name) {
            return Arc::clone(last);
        }
        let shared = match self.all.get(name) {
            Some(known) => Arc::clone(known),
            None => {
                let name: Arc<str> = Arc::from(name);
                self.all.insert(Arc::clone(&name));
                name
            }
        };
        self.last = Some(Arc::clone(&shared));
        shared
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.all.contains(name)
    }

    /// Forgets those that nobody else has.
    pub(super) fn drop_unused(&mut self) {
        self.last = None;
        self.all.retain(|name| Arc::strong_count(name) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_with_nothing_beside_it_takes_56_bytes() {
        assert_eq!(size_of::<Committed>(), 56);
    }

    #[test]
    fn partitions_stay_in_order_and_what_is_empty_goes() {
        let mut table = Table::default();
        let (group, topic) = (Arc::from("g"), Arc::from("t"));
        for partition in [2, 0, 1, 2] {
            let value = OffsetCommitValue::default();
            table.put(&group, &topic, Committed::new(partition, value, 0));
        }
        let partitions = &table.group("g").expect("a group")["t"];
        assert_eq!(table.len(), 3);
        let order: Vec<i32> = partitions.iter().map(|known| known.partition).collect();
        assert_eq!(order, [0, 1, 2]);
        table.remove("g", "t", 7);
        table.remove("g", "u", 0);
        table.remove("h", "t", 0);
        for partition in order {
            assert!(!table.is_empty());
            table.remove("g", "t", partition);
        }
        assert!(table.is_empty());
        assert_eq!(table.len, 0);
    }
}
