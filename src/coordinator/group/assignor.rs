//! Who reads what: the assignors that the broker runs for groups of the consumer protocol (pure).
//!
//! - Every partition of every topic that somebody is subscribed to goes to exactly one of those subscribed to it.
//! - What comes out depends on what goes in alone, and members are looked at in the order of their ids.
//! - Racks play no part, as they play none in the assignors of Apache Kafka since 4.0: they are known, and a
//!   topic whose replicas move to other racks is assigned anew, with the same outcome.

mod range;
mod uniform;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use uuid::Uuid;

/// Partitions by topic. Invariant: no topic without partitions.
pub(super) type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Assignor {
    /// As even as subscriptions allow, and as much as possible as it was.
    Uniform,
    /// A range of each topic's partitions for each member, so that members get partitions of the same numbers.
    Range,
}

/// What an assignor goes by of one member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subscriber<'a> {
    pub(super) id: &'a str,
    pub(super) instance_id: Option<&'a str>,
    /// Topics that exist.
    pub(super) topics: &'a BTreeSet<Uuid>,
    /// What it has been assigned before.
    pub(super) before: &'a Partitions,
}

impl Assignor {
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Range]
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// What each of `members` gets, in their order; borrowed is what somebody had. `partition_count` knows every
    /// topic subscribed to.
    pub(super) fn assign<'a>(
        self,
        members: &[Subscriber<'a>],
        partition_count: impl Fn(Uuid) -> i32,
    ) -> Vec<Cow<'a, Partitions>> {
        let topics: BTreeSet<Uuid> = match members {
            [first, ..] if read_the_same(members) => first.topics.clone(),
            _ => members
                .iter()
                .flat_map(|member| member.topics.iter().copied())
                .collect(),
        };
        let counts = topics
            .into_iter()
            .map(|topic| (topic, partition_count(topic)))
            .collect();
        match self {
            Self::Uniform => uniform::assign(members, &counts),
            Self::Range => {
                let assigned = range::assign(members, &counts);
                assigned.into_iter().map(Cow::Owned).collect()
            }
        }
    }
}

fn read_the_same(members: &[Subscriber<'_>]) -> bool {
    let mut pairs = members.iter().zip(members.iter().skip(1));
    pairs.all(|(a, b)| std::ptr::eq(a.topics, b.topics) || a.topics == b.topics)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn topic(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// A group as a test writes it down: a member a line, `id[@instance] topics [: topic-partition,...]`.
    pub(super) struct Group {
        pub(super) members: Vec<(String, Option<String>, BTreeSet<Uuid>, Partitions)>,
    }

    impl Group {
        pub(super) fn parse(text: &str) -> Self {
            let members = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let members = members.map(|line| {
                let (who, before) = line.split_once(':').unwrap_or((line, ""));
                let mut words = who.split_whitespace();
                let id = words.next().expect("an id");
                let (id, instance_id) = match id.split_once('@') {
                    Some((id, instance_id)) => (id, Some(instance_id.to_owned())),
                    None => (id, None),
                };
                let number = |text: &str| text.parse::<u128>().expect("a number");
                let topics = words.map(|word| topic(number(word))).collect();
                let mut partitions = Partitions::new();
                for word in before.split_whitespace() {
                    let (of, index) = word.split_once('-').expect("topic-partition");
                    let index = index.parse().expect("a partition");
                    partitions
                        .entry(topic(number(of)))
                        .or_default()
                        .insert(index);
                }
                (id.to_owned(), instance_id, topics, partitions)
            });
            Self {
                members: members.collect(),
            }
        }

        pub(super) fn subscribers(&self) -> Vec<Subscriber<'_>> {
            let members = self.members.iter();
            members
                .map(|(id, instance_id, topics, before)| Subscriber {
                    id,
                    instance_id: instance_id.as_deref(),
                    topics,
                    before,
                })
                .collect()
        }
    }

    /// Runs `assignor` on a group whose topics all have `count` partitions, and writes down what comes of it.
    #[track_caller]
    pub(super) fn check(assignor: Assignor, count: i32, group: &str, want: &str) {
        let group = Group::parse(group);
        let assigned = assignor.assign(&group.subscribers(), |_| count);
        let shown = group.members.iter().zip(&assigned).map(|(member, given)| {
            let mut line = format!("{}:", member.0);
            for (topic, indexes) in &**given {
                for index in indexes {
                    line += &format!(" {}-{index}", topic.as_u128());
                }
            }
            line
        });
        let want: Vec<&str> = want
            .lines()
            .map(str::trim)
            .filter(|it| !it.is_empty())
            .collect();
        assert_eq!(shown.collect::<Vec<_>>(), want);
    }

    /// How many partitions topics have, the topics of each member, and what some earlier assignment gave members:
    /// member, topic, partition.
    type Drawn = (Vec<i32>, Vec<BTreeSet<u128>>, Vec<(usize, u128, i32)>);

    /// Members with up to five of five topics each.
    fn groups() -> impl Strategy<Value = Drawn> {
        let counts = proptest::collection::vec(1..9_i32, 5);
        let topics = proptest::collection::btree_set(0..5_u128, 0..6);
        let members = proptest::collection::vec(topics, 1..9);
        let before = proptest::collection::vec((0..9_usize, 0..5_u128, 0..9_i32), 0..30);
        (counts, members, before)
    }

    proptest! {
        #[test]
        fn every_partition_goes_to_one_subscriber((counts, topics, before) in groups()) {
            let count = |topic: Uuid| counts[usize::try_from(topic.as_u128()).unwrap()];
            let mut group = Group { members: Vec::new() };
            for (index, topics) in topics.iter().enumerate() {
                let topics = topics.iter().map(|number| topic(*number)).collect();
                group.members.push((format!("m{index}"), None, topics, Partitions::new()));
            }
            for (member, of, index) in before {
                let taken = group.members.iter().any(|it| {
                    it.3.get(&topic(of)).is_some_and(|indexes| indexes.contains(&index))
                });
                if !taken && let Some(member) = group.members.get_mut(member) {
                    member.3.entry(topic(of)).or_default().insert(index);
                }
            }
            for assignor in [Assignor::Uniform, Assignor::Range] {
                let assigned = assignor.assign(&group.subscribers(), count);
                let mut owners = BTreeMap::new();
                for (member, given) in group.members.iter().zip(&assigned) {
                    for (topic, indexes) in &**given {
                        prop_assert!(member.2.contains(topic) && !indexes.is_empty());
                        for index in indexes {
                            prop_assert!(owners.insert((*topic, *index), &member.0).is_none());
                        }
                    }
                }
                let read: BTreeSet<Uuid> = group.members.iter().flat_map(|it| it.2.clone()).collect();
                let all: i32 = read.iter().map(|topic| count(*topic)).sum();
                prop_assert_eq!(owners.len(), usize::try_from(all).unwrap());
            }
            // What is even stays, and nobody has two more than another who could take one of his.
            let given = Assignor::Uniform.assign(&group.subscribers(), count);
            let given: Vec<Partitions> = given.into_iter().map(Cow::into_owned).collect();
            let size = |it: &Partitions| it.values().map(BTreeSet::len).sum::<usize>();
            for (member, more) in group.members.iter().zip(&given) {
                for (other, fewer) in group.members.iter().zip(&given) {
                    let could = more.keys().any(|topic| other.2.contains(topic));
                    prop_assert!(!could || size(more) <= size(fewer) + 1, "{} {}", member.0, other.0);
                }
            }
            for (member, given) in group.members.iter_mut().zip(&given) {
                member.3 = given.clone();
            }
            let again = Assignor::Uniform.assign(&group.subscribers(), count);
            let is_copied = again.iter().any(|it| matches!(it, Cow::Owned(_)));
            prop_assert!(!is_copied || !read_the_same(&group.subscribers()));
            let again: Vec<Partitions> = again.into_iter().map(Cow::into_owned).collect();
            prop_assert_eq!(again, given);
        }
    }
}
