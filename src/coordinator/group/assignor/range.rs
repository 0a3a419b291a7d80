//! Ranges: of each topic, members get partitions that follow one another, in the members' order.
//!
//! Members with the same subscriptions get partitions of the same numbers of topics of the same size, which is what
//! those want who join topics. Static members come first, by their instance ids: those are the same after a
//! restart, and so are their ranges.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Partitions, Subscriber};

/// What is left of a topic while ranges are cut from it.
struct Rest {
    next: i32,
    /// What each still to come gets, and how many of them get one more.
    quota: i32,
    larger: i32,
}

pub(super) fn assign(members: &[Subscriber<'_>], counts: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
    let mut subscribed: BTreeMap<Uuid, i32> = BTreeMap::new();
    for topic in members.iter().flat_map(|member| member.topics) {
        *subscribed.entry(*topic).or_default() += 1;
    }
    let mut rests: BTreeMap<Uuid, Rest> = subscribed
        .into_iter()
        .map(|(topic, subscribers)| {
            let count = counts.get(&topic).copied().unwrap_or(0);
            let rest = Rest {
                next: 0,
                quota: count / subscribers,
                larger: count % subscribers,
            };
            (topic, rest)
        })
        .collect();

    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|&index| {
        let member = &members[index];
        (member.instance_id.is_none(), member.instance_id, member.id)
    });
    let mut assigned = vec![Partitions::new(); members.len()];
    for index in order {
        for topic in members[index].topics {
            let Some(rest) = rests.get_mut(topic) else {
                continue;
            };
            let size = rest.quota + i32::from(0 < rest.larger);
            rest.larger -= 1;
            if 0 < size {
                let range = rest.next..rest.next + size;
                rest.next = range.end;
                assigned[index].insert(*topic, range.collect());
            }
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::super::{Assignor, tests::check};

    #[test]
    fn members_get_the_same_numbers_of_every_topic() {
        check(
            Assignor::Range,
            3,
            "a 1 2
             b 1 2",
            "a: 1-0 1-1 2-0 2-1
             b: 1-2 2-2",
        );
    }

    #[test]
    fn each_topic_is_shared_by_those_who_read_it() {
        check(
            Assignor::Range,
            3,
            "a 1 2
             b 1 3
             c 2 3",
            "a: 1-0 1-1 2-0 2-1
             b: 1-2 3-0 3-1
             c: 2-2 3-2",
        );
    }

    #[test]
    fn static_members_come_first_whatever_their_member_ids() {
        check(
            Assignor::Range,
            3,
            "a 1
             x@i2 1
             y@i1 1",
            "a: 1-2
             x: 1-1
             y: 1-0",
        );
    }

    #[test]
    fn there_may_be_more_members_than_partitions() {
        check(
            Assignor::Range,
            1,
            "a 1
             b 1
             c",
            "a: 1-0
             b:
             c:",
        );
    }
}
