//! What the topics are that members read: by name, by regular expression, and as ids of topics that exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use replication::cluster::{ClusterImage, Topic};
use twox_hash::XxHash3_64;
use uuid::Uuid;

use super::{ConsumerGroup, member::About, regex::Resolved};

/// Version of the layout of what is hashed.
const TOPIC_HASH_VERSION: u8 = 0;

type Regexes = BTreeMap<Arc<str>, Resolved>;

/// The names of what a member with this subscription reads, as far as its expression has been resolved.
fn names<'a>(about: &'a About, regexes: &'a Regexes) -> impl Iterator<Item = &'a Arc<str>> {
    let resolved = regexes.get(&about.topic_regex);
    let matched = resolved.into_iter().flat_map(|resolved| &*resolved.topics);
    about.topic_names.iter().chain(matched)
}

/// What members of a group are subscribed to, and how many of them: whoever comes or goes is not to cost a look at all
/// the others.
#[derive(Debug, Clone, Default)]
pub(super) struct Subscriptions {
    topics: BTreeMap<Arc<str>, usize>,
    patterns: BTreeMap<Arc<str>, usize>,
}

/// The hash of topics, as metadata of some offset has them.
#[derive(Debug)]
pub(super) struct Hashed {
    offset: i64,
    /// Their names, in order.
    topics: Vec<Arc<str>>,
    pub(super) hash: i64,
}

impl Hashed {
    fn is_of(&self, topics: &BTreeSet<&Arc<str>>, image: &ClusterImage) -> bool {
        self.offset == image.offset && self.topics.iter().eq(topics.iter().copied())
    }
}

impl Subscriptions {
    pub(super) fn add(&mut self, about: &About) {
        for name in &about.topic_names {
            count(&mut self.topics, name);
        }
        if !about.topic_regex.is_empty() {
            count(&mut self.patterns, &about.topic_regex);
        }
    }

    pub(super) fn remove(&mut self, about: &About) {
        for name in &about.topic_names {
            discount(&mut self.topics, name);
        }
        discount(&mut self.patterns, &about.topic_regex);
    }
}

fn count(counts: &mut BTreeMap<Arc<str>, usize>, name: &Arc<str>) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            counts.insert(Arc::clone(name), 1);
        }
    }
}

fn discount(counts: &mut BTreeMap<Arc<str>, usize>, name: &Arc<str>) {
    match counts.get_mut(name) {
        Some(count) if 1 < *count => *count -= 1,
        Some(_) => {
            counts.remove(name);
        }
        None => (),
    }
}

impl ConsumerGroup {
    /// The topics that exist of those that a member with this subscription reads.
    pub(super) fn topic_ids(&self, about: &About, image: &ClusterImage) -> BTreeSet<Uuid> {
        let topics = names(about, &self.regexes).filter_map(|name| image.topic(name));
        topics.map(|topic| topic.id).collect()
    }

    /// The hash of all topics that the group reads when those in `changed` say this of themselves: `None` for who
    /// leaves.
    pub(super) fn hash(
        &self,
        changed: &BTreeMap<&str, Option<&About>>,
        regexes: &Regexes,
        image: &ClusterImage,
    ) -> i64 {
        hash(&self.read(changed, regexes), image)
    }

    /// The same, with the expressions as they are. Of a large topic a hash is work: when many come one after the
    /// other who read what the group reads already, it is the one that was computed last.
    pub(super) fn hash_after(
        &self,
        changed: &BTreeMap<&str, Option<&About>>,
        image: &ClusterImage,
    ) -> Arc<Hashed> {
        let read = self.read(changed, &self.regexes);
        let known = self.looked.hashed.as_ref();
        let known = known.filter(|known| known.is_of(&read, image));
        known.map_or_else(
            || {
                Arc::new(Hashed {
                    offset: image.offset,
                    topics: read.iter().map(|name| Arc::clone(name)).collect(),
                    hash: hash(&read, image),
                })
            },
            Arc::clone,
        )
    }

    /// Is the group's hash that of the topics as this image has them?
    pub(super) fn has_looked_at(&self, image: &ClusterImage) -> bool {
        let hashed = self.looked.hashed.as_ref();
        hashed.is_some_and(|it| it.offset == image.offset && it.hash == self.metadata_hash)
    }

    /// The names of all topics that the group reads after that.
    fn read<'a>(
        &'a self,
        changed: &BTreeMap<&str, Option<&'a About>>,
        regexes: &'a Regexes,
    ) -> BTreeSet<&'a Arc<str>> {
        // How many of those who read something now do not then.
        let mut gone: BTreeMap<&str, usize> = BTreeMap::new();
        let mut gone_patterns: BTreeMap<&str, usize> = BTreeMap::new();
        let known = changed.keys().filter_map(|id| self.members.get(*id));
        for about in known.map(|member| &member.about) {
            for name in &about.topic_names {
                *gone.entry(name).or_default() += 1;
            }
            *gone_patterns.entry(&about.topic_regex).or_default() += 1;
        }
        let topics = self.subscriptions.topics.iter();
        let topics = topics.filter(|(name, count)| gone.get(&***name) != Some(count));
        let mut read: BTreeSet<&Arc<str>> = topics.map(|(name, _)| name).collect();
        let patterns = self.subscriptions.patterns.iter();
        let patterns = patterns.filter(|(name, count)| gone_patterns.get(&***name) != Some(count));
        let resolved = patterns.filter_map(|(pattern, _)| regexes.get(pattern));
        read.extend(resolved.flat_map(|resolved| &*resolved.topics));
        for about in changed.values().flatten() {
            read.extend(names(about, regexes));
        }
        read
    }

    /// The topics that members are subscribed to by name.
    #[cfg(test)]
    pub(super) fn topic_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.subscriptions.topics.keys()
    }

    /// The expressions that members are subscribed to.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &Arc<str>> {
        self.subscriptions.patterns.keys()
    }

    pub(super) fn reads(&self, topic: &str) -> bool {
        // What has not been resolved may match anything.
        let matches = |pattern| {
            let resolved = self.regexes.get(pattern);
            resolved.is_none_or(|it| it.has(topic))
        };
        self.subscriptions.topics.contains_key(topic) || self.patterns().any(matches)
    }

    /// How many members are subscribed to this expression.
    pub(super) fn regex_subscribers(&self, regex: &str) -> usize {
        let count = self.subscriptions.patterns.get(regex);
        count.copied().unwrap_or(0)
    }
}

/// What tells one state of these topics, in the order of their names, from another: another hash means another
/// assignment. It is in records and nowhere else; the algorithm is Kafka's, so that neither of the two brokers
/// assigns a group anew that the other has left.
fn hash(topics: &BTreeSet<&Arc<str>>, image: &ClusterImage) -> i64 {
    let mut input = Vec::new();
    for topic in topics.iter().filter_map(|name| image.topic(name)) {
        input.extend(topic_hash(topic, image).to_le_bytes());
    }
    match &*input {
        [] => 0,
        input => XxHash3_64::oneshot(input).cast_signed(),
    }
}

fn topic_hash(topic: &Topic, image: &ClusterImage) -> u64 {
    let mut input = vec![TOPIC_HASH_VERSION];
    let (high, low) = topic.id.as_u64_pair();
    input.extend(high.to_le_bytes());
    input.extend(low.to_le_bytes());
    put_text(&mut input, &topic.name);
    put_count(&mut input, topic.partitions.len());
    for (index, partition) in &topic.partitions {
        input.extend(index.to_le_bytes());
        let brokers = partition
            .replicas
            .iter()
            .filter_map(|id| image.brokers.get(id));
        let mut racks: Vec<&str> = brokers.filter_map(|it| it.rack.as_deref()).collect();
        racks.sort_unstable();
        for rack in racks {
            put_count(&mut input, rack.encode_utf16().count());
            put_text(&mut input, rack);
        }
    }
    XxHash3_64::oneshot(&input)
}

/// As Java's characters, two bytes each, and their count.
fn put_text(input: &mut Vec<u8>, text: &str) {
    let mut count = 0;
    for unit in text.encode_utf16() {
        input.extend(unit.to_le_bytes());
        count += 1;
    }
    put_count(input, count);
}

fn put_count(input: &mut Vec<u8>, count: usize) {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    input.extend(count.to_le_bytes());
}
