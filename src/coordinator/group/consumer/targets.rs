//! Who is to have what: the target assignment, computed anew.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use replication::cluster::ClusterImage;
use uuid::Uuid;

use super::{ConsumerGroup, member::About, partition_count};
use crate::{
    config::Groups,
    coordinator::{
        Env,
        group::assignor::{Assignor, Partitions, Subscriber},
    },
};

static NOTHING: Partitions = Partitions::new();

/// What a member is to have.
pub(super) struct Target<'a> {
    pub(super) id: &'a str,
    before: Option<&'a Arc<Partitions>>,
    /// `None` if it is as before.
    other: Option<Partitions>,
}

impl Target<'_> {
    pub(super) fn is_new(&self) -> bool {
        let is_other = |before: &Arc<Partitions>| {
            let other = self.other.as_ref();
            other.is_some_and(|other| **before != *other)
        };
        self.before.is_none_or(is_other)
    }

    pub(super) fn assigned(&self) -> &Partitions {
        let before = self.before.map_or(&NOTHING, |before| &**before);
        self.other.as_ref().unwrap_or(before)
    }

    pub(super) fn into_assigned(self) -> Arc<Partitions> {
        match self.other {
            Some(other) => Arc::new(other),
            None => self.before.cloned().unwrap_or_default(),
        }
    }
}

/// What members read, the same of many kept once.
struct Topics {
    sets: Vec<BTreeSet<Uuid>>,
    /// Which of the sets is whose.
    members: Vec<usize>,
}

impl Topics {
    fn of<'a>(
        group: &ConsumerGroup,
        abouts: impl Iterator<Item = &'a About>,
        image: &ClusterImage,
    ) -> Self {
        let mut sets = Vec::new();
        let mut known: BTreeMap<(&[Arc<str>], &str), usize> = BTreeMap::new();
        let mut last: Option<(&About, usize)> = None;
        let reads_the_same =
            |a: &About, b: &About| a.topic_names == b.topic_names && a.topic_regex == b.topic_regex;
        let members = abouts.map(|about| {
            let set = match last {
                Some((last, set)) if reads_the_same(last, about) => set,
                _ => *known
                    .entry((&about.topic_names, &about.topic_regex))
                    .or_insert_with(|| {
                        sets.push(group.topic_ids(about, image));
                        sets.len() - 1
                    }),
            };
            last = Some((about, set));
            set
        });
        let members = members.collect();
        Self { sets, members }
    }

    /// `index` counts the members that this was made of.
    fn of_member(&self, index: usize) -> &BTreeSet<Uuid> {
        &self.sets[self.members[index]]
    }
}

impl ConsumerGroup {
    /// What everybody is to have when this member says `about` of itself.
    ///
    /// All members of a large group coming at once is one of these for each of them: what is as it was is looked at
    /// once, and not copied.
    pub(super) fn assign<'a>(
        &'a self,
        member_id: &'a Arc<str>,
        about: &'a About,
        replaces: Option<&Arc<str>>,
        env: &Env<'_>,
    ) -> Vec<Target<'a>> {
        let others = self.members.iter();
        let others = others.filter(|(id, _)| *id != member_id && replaces != Some(*id));
        let mut abouts: Vec<(&str, &About)> =
            others.map(|(id, member)| (&**id, &*member.about)).collect();
        let place = abouts.partition_point(|(id, _)| *id < &**member_id);
        abouts.insert(place, (member_id, about));

        let topics = Topics::of(self, abouts.iter().map(|(_, about)| *about), env.image);
        let mut targets = self.targets.iter().peekable();
        let befores: Vec<Option<&Arc<Partitions>>> = abouts
            .iter()
            .map(|&(id, _)| {
                while targets.next_if(|(other, _)| &***other < id).is_some() {}
                let own = targets.next_if(|(other, _)| &***other == id);
                match replaces {
                    Some(former) if *id == **member_id => self.targets.get(former),
                    _ => own.map(|(_, target)| target),
                }
            })
            .collect();
        let members: Vec<Subscriber<'_>> = abouts
            .iter()
            .zip(&befores)
            .enumerate()
            .map(|(index, ((id, about), before))| Subscriber {
                id,
                instance_id: about.instance_id.as_deref(),
                topics: topics.of_member(index),
                before: before.map_or(&NOTHING, |before| &**before),
            })
            .collect();
        let assignor = preferred(abouts.iter().map(|(_, about)| *about), &env.config.groups);
        let image: &ClusterImage = env.image;
        let assigned = assignor.assign(&members, |topic| partition_count(image, topic));
        let targets = abouts.iter().zip(befores).zip(assigned);
        targets
            .map(|(((id, _), before), assigned)| Target {
                id,
                before,
                other: match assigned {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(assigned) => Some(assigned),
                },
            })
            .collect()
    }

    /// The assignor that most members want.
    pub(super) fn assignor(&self, config: &Groups) -> Assignor {
        preferred(self.members.values().map(|member| &*member.about), config)
    }
}

fn preferred<'a>(members: impl Iterator<Item = &'a About>, config: &Groups) -> Assignor {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for name in members.filter_map(|about| about.assignor.as_deref()) {
        *votes.entry(name).or_default() += 1;
    }
    let supported = config.consumer_assignors.iter();
    let supported = supported.filter_map(|name| Assignor::named(name));
    let vote = |assignor: &Assignor| votes.get(assignor.name()).copied().unwrap_or(0);
    // Between equals the one that stands first in the configuration.
    let preferred = supported.rev().max_by_key(vote);
    preferred.unwrap_or(Assignor::Uniform)
}
