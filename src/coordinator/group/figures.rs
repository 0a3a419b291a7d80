//! What is shown of groups to who watches them: counts, and a copy of what there is at a moment.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{Group, GroupCoordinator};

/// What all partitions of a broker have counted since it was started. What is replayed while a partition is loaded
/// counts nowhere: it has happened before.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) offset_commits: Count,
    pub(crate) offset_expirations: Count,
    pub(crate) offset_deletions: Count,
    /// Of classic groups: those that ended with an assignment.
    pub(crate) completed_rebalances: Count,
    /// Of groups of the consumer protocol: whenever one comes into another epoch.
    pub(crate) consumer_rebalances: Count,
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, times: usize) {
        self.0.fetch_add(times as u64, Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Groups as they were at one moment. It is made while requests wait, and is therefore a copy of the least there is
/// to compute the rest from.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Groups by protocol and state.
    pub(crate) counts: BTreeMap<(&'static str, &'static str), usize>,
    pub(crate) offset_count: usize,
    pub(crate) groups: Vec<GroupView>,
    /// There are more, for which there was no room.
    pub(crate) left_out: usize,
}

#[derive(Debug)]
pub(crate) struct GroupView {
    pub(crate) id: Arc<str>,
    pub(crate) member_count: usize,
    pub(crate) topics: Vec<TopicView>,
}

#[derive(Debug)]
pub(crate) struct TopicView {
    pub(crate) name: Arc<str>,
    /// Partitions and what is committed for them.
    pub(crate) offsets: Vec<(i32, i64)>,
}

impl GroupCoordinator {
    /// Adds what this partition has. `room` is for how many groups, topics and partitions there is still room.
    pub(crate) fn show(&self, to: &mut View, room: &mut usize) {
        to.offset_count += self.offsets.count();
        for (id, group) in &self.groups {
            let protocol = match group {
                Group::Classic(_) => "classic",
                Group::Consumer(_) => "consumer",
            };
            *to.counts.entry((protocol, group.state())).or_default() += 1;
            let topics = self.offsets.of(id);
            let topics = topics.into_iter().flatten();
            let size = 1 + topics
                .clone()
                .map(|(_, known)| 1 + known.len())
                .sum::<usize>();
            let Some(left) = room.checked_sub(size) else {
                to.left_out += 1;
                continue;
            };
            *room = left;
            let topics = topics.map(|(topic, partitions)| {
                let offsets = partitions.iter().map(|it| (it.partition, it.offset));
                TopicView {
                    name: Arc::clone(topic),
                    offsets: offsets.collect(),
                }
            });
            to.groups.push(GroupView {
                id: Arc::clone(id),
                member_count: group.member_count(),
                topics: topics.collect(),
            });
        }
    }
}
