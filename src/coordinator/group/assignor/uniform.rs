//! Even shares, and as little movement as evenness allows.
//!
//! - Everybody keeps what he had as far as he still reads it and has not more than his share; the rest goes to those
//!   who have least.
//! - Where all read the same topics a share is the mean, rounded up for as many as it takes: first for those who
//!   have that much already, so that a group that is even stays as it is.
//! - Where subscriptions differ, a partition moves as long as that makes two members more even; where nobody could
//!   take one directly, along a chain of members who each take one and give one.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use uuid::Uuid;

use super::{Partitions, Subscriber, read_the_same};

/// How many steps evening out takes in all: some tenths of a second, in which nobody else in the group's partition is
/// served, and members may ask for it each second. It ends by itself long before in groups as there are. What it had
/// found until then is valid in any case, and the next assignment goes on from there.
const STEPS_MAX: usize = 1_000_000;

pub(super) fn assign<'a>(
    members: &[Subscriber<'a>],
    counts: &BTreeMap<Uuid, i32>,
) -> Vec<Cow<'a, Partitions>> {
    if members.is_empty() {
        return Vec::new();
    }
    let (kept, free) = keep(members, counts);
    if read_the_same(members) {
        same_topics(members, kept, free)
    } else {
        let shares = different_topics(members, kept, &free, STEPS_MAX);
        shares.given.into_iter().map(Cow::Owned).collect()
    }
}

/// What each member had and may keep, and the partitions that nobody has.
fn keep<'a>(
    members: &[Subscriber<'a>],
    counts: &BTreeMap<Uuid, i32>,
) -> (Vec<Cow<'a, Partitions>>, Vec<(Uuid, i32)>) {
    let mut free: BTreeMap<Uuid, Vec<bool>> = counts
        .iter()
        .map(|(topic, count)| (*topic, vec![true; usize::try_from(*count).unwrap_or(0)]))
        .collect();
    let kept = members.iter().map(|member| {
        let mut kept = Cow::Borrowed(member.before);
        for (topic, indexes) in member.before {
            let free = free.get_mut(topic);
            let Some(free) = free.filter(|_| member.topics.contains(topic)) else {
                kept.to_mut().remove(topic);
                continue;
            };
            for index in indexes {
                let free = usize::try_from(*index).ok().and_then(|at| free.get_mut(at));
                if !free.is_some_and(std::mem::take) {
                    take(kept.to_mut(), topic, index);
                }
            }
        }
        kept
    });
    let kept = kept.collect();
    let free = free.into_iter().flat_map(|(topic, free)| {
        let indexes = (0..).zip(free).filter(|(_, free)| *free);
        indexes.map(move |(index, _)| (topic, index))
    });
    (kept, free.collect())
}

fn take(given: &mut Partitions, topic: &Uuid, index: &i32) {
    if let Some(indexes) = given.get_mut(topic) {
        indexes.remove(index);
        if indexes.is_empty() {
            given.remove(topic);
        }
    }
}

fn same_topics<'a>(
    members: &[Subscriber<'a>],
    mut kept: Vec<Cow<'a, Partitions>>,
    mut free: Vec<(Uuid, i32)>,
) -> Vec<Cow<'a, Partitions>> {
    let sizes: Vec<usize> = kept.iter().map(|it| size(it)).collect();
    let total = sizes.iter().sum::<usize>() + free.len();
    let share = total / members.len();
    let mut larger = total % members.len();

    let mut quotas = vec![share; members.len()];
    let by_need = |has_more: bool| {
        let sizes = &sizes;
        (0..sizes.len()).filter(move |&index| (share < sizes[index]) == has_more)
    };
    for index in by_need(true).chain(by_need(false)) {
        if larger == 0 {
            break;
        }
        quotas[index] += 1;
        larger -= 1;
    }
    for ((given, size), quota) in kept.iter_mut().zip(sizes).zip(&quotas) {
        if *quota < size {
            take_beyond(given.to_mut(), *quota, &mut free);
        }
    }
    // In the order of topics: what is given up is then not all of one topic.
    free.sort_unstable();
    let mut free = free.into_iter();
    for (given, quota) in kept.iter_mut().zip(&quotas) {
        let wanted = quota.saturating_sub(size(given));
        for (topic, index) in free.by_ref().take(wanted) {
            given.to_mut().entry(topic).or_default().insert(index);
        }
    }
    kept
}

/// Leaves `quota` partitions, the first ones.
fn take_beyond(given: &mut Partitions, mut quota: usize, free: &mut Vec<(Uuid, i32)>) {
    given.retain(|topic, indexes| {
        if quota < indexes.len() {
            let beyond: Vec<i32> = indexes.iter().skip(quota).copied().collect();
            for index in beyond {
                indexes.remove(&index);
                free.push((*topic, index));
            }
        }
        quota -= indexes.len();
        !indexes.is_empty()
    });
}

fn size(given: &Partitions) -> usize {
    given.values().map(BTreeSet::len).sum()
}

fn different_topics(
    members: &[Subscriber<'_>],
    kept: Vec<Cow<'_, Partitions>>,
    free: &[(Uuid, i32)],
    steps_max: usize,
) -> Shares {
    let given: Vec<Partitions> = kept.into_iter().map(Cow::into_owned).collect();
    let mut subscribers: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        for topic in member.topics {
            subscribers.entry(*topic).or_default().push(index);
        }
    }
    let mut shares = Shares {
        sizes: given.iter().map(size).collect(),
        given,
        subscribers,
        steps: 0,
        steps_max,
    };
    shares.hand_out(free);
    while shares.even_out() && !shares.is_enough() {}
    shares.even_out_along_chains();
    shares
}

struct Shares {
    given: Vec<Partitions>,
    sizes: Vec<usize>,
    /// Who reads each topic.
    subscribers: BTreeMap<Uuid, Vec<usize>>,
    /// How often a reader of a topic has been looked at, or a partition moved, to make shares more even.
    steps: usize,
    steps_max: usize,
}

impl Shares {
    fn is_enough(&self) -> bool {
        self.steps_max < self.steps
    }

    /// Each partition goes to the one with least of those who read it; topics that few read come first, for their
    /// partitions can go nowhere else.
    fn hand_out(&mut self, free: &[(Uuid, i32)]) {
        let mut by_topic: Vec<&[(Uuid, i32)]> = free.chunk_by(|a, b| a.0 == b.0).collect();
        by_topic.sort_by_key(|partitions| self.subscribers[&partitions[0].0].len());
        for partitions in by_topic {
            let readers = &self.subscribers[&partitions[0].0];
            let mut by_size: BTreeSet<(usize, usize)> = readers
                .iter()
                .map(|&index| (self.sizes[index], index))
                .collect();
            for (topic, partition) in partitions {
                let Some((size, member)) = by_size.pop_first() else {
                    break;
                };
                self.given[member]
                    .entry(*topic)
                    .or_default()
                    .insert(*partition);
                self.sizes[member] = size + 1;
                by_size.insert((size + 1, member));
            }
        }
    }

    /// Moves partitions of each topic from who has most to who has least of those who read it. `false` when there
    /// was nothing to move: then no two members can be made more even directly.
    fn even_out(&mut self) -> bool {
        let mut has_moved = false;
        for (topic, readers) in &self.subscribers {
            if self.is_enough() {
                break;
            }
            let of_topic = |given: &Partitions| given.contains_key(topic);
            self.steps += readers.len();
            let mut takers: BTreeSet<(usize, usize)> = readers
                .iter()
                .map(|&index| (self.sizes[index], index))
                .collect();
            let mut givers: BTreeSet<(usize, usize)> = takers
                .iter()
                .filter(|(_, index)| of_topic(&self.given[*index]))
                .copied()
                .collect();
            while let (Some(&most), Some(&least)) = (givers.last(), takers.first()) {
                if most.0 < least.0 + 2 {
                    break;
                }
                has_moved = true;
                self.steps += 1;
                let ((size, from), (least_size, to)) = (most, least);
                move_one(&mut self.given, *topic, from, to);
                takers.remove(&most);
                givers.remove(&most);
                takers.remove(&least);
                givers.remove(&least);
                self.sizes[from] = size - 1;
                self.sizes[to] = least_size + 1;
                takers.insert((size - 1, from));
                takers.insert((least_size + 1, to));
                if of_topic(&self.given[from]) {
                    givers.insert((size - 1, from));
                }
                givers.insert((least_size + 1, to));
            }
        }
        has_moved
    }

    /// From each member, those with most first: as long as a chain leads to somebody with two less, one partition
    /// moves along every link of it.
    fn even_out_along_chains(&mut self) {
        let mut order: Vec<usize> = (0..self.given.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(self.sizes[index]));
        let mut settled = Settled::new();
        for start in order {
            while let Some(chain) = self.chain(start, &mut settled) {
                settled.clear();
                self.sizes[start] -= 1;
                let mut from = start;
                for (topic, to) in chain {
                    move_one(&mut self.given, topic, from, to);
                    from = to;
                }
                self.sizes[from] += 1;
            }
            if self.is_enough() {
                return;
            }
        }
    }

    /// The shortest chain from `start` to a member with at least two less: which topic's partition goes to whom.
    fn chain(&mut self, start: usize, settled: &mut Settled) -> Option<Vec<(Uuid, usize)>> {
        let most = self.sizes[start];
        let mut came_by: BTreeMap<usize, (Uuid, usize)> = BTreeMap::new();
        let mut seen_topics = BTreeSet::new();
        let mut queue = VecDeque::from([start]);
        while let Some(from) = queue.pop_front() {
            for topic in self.given[from].keys() {
                let is_settled = settled.get(topic).is_some_and(|level| most <= *level);
                if is_settled || !seen_topics.insert(*topic) {
                    continue;
                }
                for &to in &self.subscribers[topic] {
                    self.steps += 1;
                    if to == start || came_by.contains_key(&to) {
                        continue;
                    }
                    came_by.insert(to, (*topic, from));
                    if self.sizes[to] + 2 <= most {
                        let mut chain = vec![(*topic, to)];
                        let mut at = from;
                        while let Some(&(topic, from)) = came_by.get(&at) {
                            chain.push((topic, at));
                            at = from;
                        }
                        chain.reverse();
                        return Some(chain);
                    }
                    queue.push_back(to);
                }
            }
            if self.is_enough() {
                return None;
            }
        }
        settled.extend(seen_topics.into_iter().map(|topic| (topic, most)));
        None
    }
}

/// Topics that a search has found to lead to nobody who has two less than this. A search from somebody with no more
/// than that need not look there again, until something has moved.
type Settled = BTreeMap<Uuid, usize>;

/// The last partition of `topic` that `from` has goes to `to`.
fn move_one(given: &mut [Partitions], topic: Uuid, from: usize, to: usize) {
    let Some(indexes) = given[from].get_mut(&topic) else {
        return;
    };
    let moved = indexes.pop_last();
    if indexes.is_empty() {
        given[from].remove(&topic);
    }
    given[to].entry(topic).or_default().extend(moved);
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, collections::BTreeMap};

    use uuid::Uuid;

    use super::super::{
        Assignor,
        tests::{Group, check, topic},
    };

    #[test]
    fn shares_differ_by_one_at_most() {
        check(
            Assignor::Uniform,
            4,
            "a 1 2
             b 1 2
             c 1 2",
            "a: 1-0 1-1 1-2
             b: 1-3 2-0 2-1
             c: 2-2 2-3",
        );
    }

    #[test]
    fn who_comes_gets_a_share_of_what_the_others_have() {
        check(
            Assignor::Uniform,
            3,
            "a 1 2 : 1-0 1-1 1-2 2-0 2-1 2-2
             b 1 2",
            "a: 1-0 1-1 1-2
             b: 2-0 2-1 2-2",
        );
    }

    #[test]
    fn an_even_group_stays_as_it_is_whoever_has_more() {
        check(
            Assignor::Uniform,
            5,
            "a 1 : 1-4
             b 1 : 1-0 1-2
             c 1 : 1-1 1-3",
            "a: 1-4
             b: 1-0 1-2
             c: 1-1 1-3",
        );
    }

    #[test]
    fn who_leaves_is_inherited_and_the_rest_stays() {
        check(
            Assignor::Uniform,
            6,
            "a 1 : 1-0 1-1
             c 1 : 1-4 1-5",
            "a: 1-0 1-1 1-2
             c: 1-3 1-4 1-5",
        );
    }

    #[test]
    fn what_is_no_longer_read_or_gone_is_given_up() {
        check(
            Assignor::Uniform,
            2,
            "a 2 : 1-0 1-1 2-0 2-7
             b 2 : 2-1",
            "a: 2-0
             b: 2-1",
        );
    }

    #[test]
    fn a_partition_claimed_twice_stays_with_the_first() {
        check(
            Assignor::Uniform,
            2,
            "a 1 : 1-0 1-1
             b 1 : 1-0 1-1",
            "a: 1-0
             b: 1-1",
        );
    }

    #[test]
    fn nobody_reads_anything() {
        check(Assignor::Uniform, 2, "a\nb", "a:\nb:");
        check(Assignor::Uniform, 2, "", "");
    }

    #[test]
    fn subscriptions_that_differ_are_evened_out_as_far_as_they_allow() {
        check(
            Assignor::Uniform,
            4,
            "a 1
             b 1 2
             c 2 3",
            "a: 1-0 1-1 1-2 1-3
             b: 2-0 2-1 2-2 2-3
             c: 3-0 3-1 3-2 3-3",
        );
    }

    #[test]
    fn a_chain_evens_out_those_who_share_no_topic() {
        // c can take nothing of a, but one of b, who can take one of a.
        check(
            Assignor::Uniform,
            3,
            "a 1 : 1-0 1-1 1-2
             b 1 2 : 2-0 2-1
             c 2 : 2-2",
            "a: 1-0 1-1
             b: 1-2 2-0
             c: 2-1 2-2",
        );
    }

    #[test]
    fn a_thousand_members_and_thousands_of_partitions_take_few_steps() {
        let mut different = String::new();
        let mut same = String::new();
        for member in 0..1000 {
            let topics: Vec<String> = (0..10)
                .map(|it| ((member + it * 7) % 100).to_string())
                .collect();
            different += &format!("m{member:04} {}\n", topics.join(" "));
            same += &format!("m{member:04} 1 2 3 4 5 6 7 8 9 10\n");
        }
        for (text, count) in [(different, 50), (same, 500)] {
            let mut group = Group::parse(&text);
            assert!(steps(&group, count) < 200_000, "{}", steps(&group, count));
            let assigned = Assignor::Uniform.assign(&group.subscribers(), |_| count);
            let assigned: Vec<_> = assigned.into_iter().map(Cow::into_owned).collect();
            for (member, given) in group.members.iter_mut().zip(assigned) {
                assert_eq!(super::size(&given), 5);
                member.3 = given;
            }
            // One topic grows, one member goes.
            group.members.pop();
            let again = Assignor::Uniform.assign(&group.subscribers(), |it| {
                count + i32::from(it == topic(1)) * 10
            });
            let moved = group
                .members
                .iter()
                .zip(&again)
                .filter(|(it, now)| it.3 != ***now);
            assert!(moved.count() < 30);
        }
    }

    /// What members read is for them to say, and a group may be assigned anew each second. Each here shares a topic with
    /// the one before it and one with the one behind it, and who comes first could have far too much.
    #[test]
    fn a_search_without_end_is_given_up_and_what_was_found_is_valid() {
        let count = 400_u16;
        let lines = (0..count).map(|member| format!("m{member:04} {member} {}\n", member + 1));
        let group = Group::parse(&lines.collect::<String>());
        let size_of = |topic: Uuid| i32::from(count) - i32::try_from(topic.as_u128()).unwrap();
        let subscribers = group.subscribers();
        let counts = (0..u128::from(count)).map(|it| (topic(it), size_of(topic(it))));
        let counts: BTreeMap<Uuid, i32> = counts.collect();
        let (kept, free) = super::keep(&subscribers, &counts);
        for (steps_max, ends) in [(10, false), (1_000, false), (super::STEPS_MAX, true)] {
            let shares = super::different_topics(&subscribers, kept.clone(), &free, steps_max);
            assert_eq!(shares.steps < steps_max, ends, "{}", shares.steps);
            assert!(shares.steps < steps_max + 1_000, "{}", shares.steps);
            let given = shares.given.iter().map(super::size);
            assert_eq!(given.sum::<usize>(), free.len());
        }
    }

    /// What it takes to assign this group, whose members read different topics.
    fn steps(group: &Group, count: i32) -> usize {
        let subscribers = group.subscribers();
        let topics = subscribers.iter().flat_map(|it| it.topics.iter().copied());
        let counts = topics.map(|topic| (topic, count)).collect();
        let (kept, free) = super::keep(&subscribers, &counts);
        super::different_topics(&subscribers, kept, &free, super::STEPS_MAX).steps
    }
}
