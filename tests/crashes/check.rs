//! Exactly once, as a pure function: what clients did and what is read afterwards, compared.
//!
//! - A committed transaction is read once and whole, in order. One that nobody has asked to commit is not read. One
//!   whose commit was asked for and not answered is one or the other.
//! - What a chain has written is what it has read below the offsets that its group has committed: nothing is missing,
//!   nothing is there twice.
//! - No transaction holds a partition back once its time is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// A partition: topic and index.
pub(crate) type Place = (String, i32);

/// How a transaction ended, as far as its client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nobody has asked to commit it.
    Abandoned,
    /// It was asked for, and the answer did not come.
    Unknown,
    Committed,
}

/// What a client did in one transaction.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    /// The first word of each of its values. No other transaction has it.
    pub(crate) name: String,
    /// In the order in which they were sent.
    pub(crate) records: Vec<(Place, String)>,
    /// Committed in it: a group, a partition of what it reads, and the offset to go on at.
    pub(crate) offsets: Vec<(String, i32, i64)>,
    pub(crate) outcome: Outcome,
}

/// A group that reads one topic and writes for each record another, `transaction partition:offset`, to another topic.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) group: String,
    pub(crate) input: String,
    pub(crate) output: String,
}

/// A partition as a `read_committed` consumer finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) records: Vec<(i64, String)>,
    pub(crate) last_stable_offset: i64,
    pub(crate) high_watermark: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) partitions: BTreeMap<Place, Reading>,
    /// Group and index: the offset; nothing where the answer was that it is not decided.
    pub(crate) committed: BTreeMap<(String, i32), Option<i64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Lost {
        transaction: String,
    },
    Doubled {
        value: String,
    },
    Torn {
        transaction: String,
    },
    Disordered {
        transaction: String,
        place: Place,
    },
    AbortedIsVisible {
        transaction: String,
    },
    Unheard {
        value: String,
    },
    /// A record below the group's offset that nothing was written for.
    OffsetAhead {
        group: String,
        input: (i32, i64),
    },
    /// What was written for a record that the group has still to read.
    OffsetBehind {
        group: String,
        input: (i32, i64),
    },
    /// Written for what is not there, or for the same record twice.
    WrongOutput {
        group: String,
        value: String,
    },
    LostOffset {
        group: String,
        index: i32,
        acknowledged: i64,
    },
    Stuck {
        place: Place,
    },
    StuckOffset {
        group: String,
        index: i32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Everything that is not as it must be.
pub(crate) fn faults(journal: &[Transaction], chains: &[Chain], world: &World) -> BTreeSet<Fault> {
    let mut faults = BTreeSet::new();
    check_transactions(journal, world, &mut faults);
    for chain in chains {
        check_chain(journal, chain, world, &mut faults);
    }
    for (place, reading) in &world.partitions {
        if reading.last_stable_offset != reading.high_watermark {
            let place = place.clone();
            faults.insert(Fault::Stuck { place });
        }
    }
    faults
}

fn check_transactions(journal: &[Transaction], world: &World, faults: &mut BTreeSet<Fault>) {
    let mut seen: BTreeMap<&str, BTreeMap<&Place, Vec<&str>>> = BTreeMap::new();
    for (place, reading) in &world.partitions {
        for (_, value) in &reading.records {
            let in_place = seen.entry(name_of(value)).or_default().entry(place);
            in_place.or_default().push(value);
        }
    }
    for transaction in journal {
        let name = &transaction.name;
        let seen = seen.remove(&**name).unwrap_or_default();
        let mut sent: BTreeMap<&Place, Vec<&str>> = BTreeMap::new();
        for (place, value) in &transaction.records {
            sent.entry(place).or_default().push(value);
        }
        if transaction.outcome == Outcome::Abandoned {
            if !seen.is_empty() {
                let transaction = name.clone();
                faults.insert(Fault::AbortedIsVisible { transaction });
            }
            continue;
        }
        if seen.is_empty() {
            if transaction.outcome == Outcome::Committed && !sent.is_empty() {
                let transaction = name.clone();
                faults.insert(Fault::Lost { transaction });
            }
            continue;
        }
        let mut is_torn = false;
        for (place, values) in &seen {
            let mut once = BTreeSet::new();
            let sent = sent.get(place).map_or(&[][..], Vec::as_slice);
            for value in values {
                if !sent.contains(value) {
                    let value = (*value).to_owned();
                    faults.insert(Fault::Unheard { value });
                } else if !once.insert(*value) {
                    let value = (*value).to_owned();
                    faults.insert(Fault::Doubled { value });
                }
            }
            let positions = values
                .iter()
                .filter_map(|value| sent.iter().position(|it| it == value));
            if !positions.is_sorted() {
                let (transaction, place) = (name.clone(), (*place).clone());
                faults.insert(Fault::Disordered { transaction, place });
            }
        }
        for (place, values) in &sent {
            let seen = seen.get(place).map_or(&[][..], Vec::as_slice);
            is_torn |= values.iter().any(|value| !seen.contains(value));
        }
        if is_torn {
            let transaction = name.clone();
            faults.insert(Fault::Torn { transaction });
        }
    }
    for value in seen.into_values().flat_map(BTreeMap::into_values).flatten() {
        let value = value.to_owned();
        faults.insert(Fault::Unheard { value });
    }
}

fn check_chain(
    journal: &[Transaction],
    chain: &Chain,
    world: &World,
    faults: &mut BTreeSet<Fault>,
) {
    let group = || chain.group.clone();
    let mut written = BTreeSet::new();
    for (_, reading) in world
        .partitions
        .iter()
        .filter(|((topic, _), _)| *topic == chain.output)
    {
        for (_, value) in &reading.records {
            if !input_of(value).is_some_and(|input| written.insert(input)) {
                let (group, value) = (group(), value.clone());
                faults.insert(Fault::WrongOutput { group, value });
            }
        }
    }
    for ((topic, index), reading) in &world.partitions {
        if *topic != chain.input {
            continue;
        }
        let committed = world.committed.get(&(chain.group.clone(), *index));
        let Some(committed) = committed.copied().flatten() else {
            let (group, index) = (group(), *index);
            faults.insert(Fault::StuckOffset { group, index });
            continue;
        };
        let acknowledged = journal.iter().filter(|it| it.outcome == Outcome::Committed);
        let acknowledged = acknowledged.flat_map(|it| &it.offsets);
        let of_this = acknowledged.filter(|(group, at, _)| *group == chain.group && at == index);
        if let Some(&(_, index, acknowledged)) = of_this.max_by_key(|(_, _, offset)| *offset)
            && committed < acknowledged
        {
            let group = group();
            faults.insert(Fault::LostOffset {
                group,
                index,
                acknowledged,
            });
        }
        for (offset, _) in &reading.records {
            let input = (*index, *offset);
            let group = group();
            match (*offset < committed, written.remove(&input)) {
                (true, false) => faults.insert(Fault::OffsetAhead { group, input }),
                (false, true) => faults.insert(Fault::OffsetBehind { group, input }),
                _ => true,
            };
        }
    }
    for (index, offset) in written {
        let (group, value) = (group(), format!("{index}:{offset}"));
        faults.insert(Fault::WrongOutput { group, value });
    }
}

fn name_of(value: &str) -> &str {
    value.split(' ').next().unwrap_or_default()
}

/// The record that a chain has written this for.
fn input_of(value: &str) -> Option<(i32, i64)> {
    let (index, offset) = value.split(' ').nth(1)?.split_once(':')?;
    Some((index.parse().ok()?, offset.parse().ok()?))
}

/// A checker that finds nothing is worth what it finds when there is something.
mod tests {
    use super::*;

    fn place(topic: &str, index: i32) -> Place {
        (topic.to_owned(), index)
    }

    fn transaction(name: &str, outcome: Outcome, places: &[(&str, i32)]) -> Transaction {
        let records = places.iter().enumerate();
        let records =
            records.map(|(at, (topic, index))| (place(topic, *index), format!("{name} {at}")));
        Transaction {
            name: name.to_owned(),
            records: records.collect(),
            offsets: Vec::new(),
            outcome,
        }
    }

    fn reading(records: &[(i64, &str)], end: i64) -> Reading {
        Reading {
            records: records
                .iter()
                .map(|(offset, value)| (*offset, (*value).to_owned()))
                .collect(),
            last_stable_offset: end,
            high_watermark: end,
        }
    }

    /// Two producers' transactions and one of a chain which has read the first partition; all as it should be.
    fn right() -> (Vec<Transaction>, Vec<Chain>, World) {
        let mut copied = transaction("c1", Outcome::Committed, &[]);
        copied.records = vec![
            (place("out", 0), "c1 0:0".to_owned()),
            (place("out", 0), "c1 0:1".to_owned()),
        ];
        copied.offsets = vec![("g".to_owned(), 0, 2)];
        let journal = vec![
            transaction("a1", Outcome::Committed, &[("in", 0), ("in", 0), ("in", 1)]),
            transaction("a2", Outcome::Abandoned, &[("in", 0), ("in", 1)]),
            transaction("b1", Outcome::Unknown, &[("in", 0), ("in", 1)]),
            transaction("b2", Outcome::Unknown, &[("in", 1)]),
            copied,
        ];
        let chain = Chain {
            group: "g".to_owned(),
            input: "in".to_owned(),
            output: "out".to_owned(),
        };
        let world = World {
            partitions: BTreeMap::from([
                (
                    place("in", 0),
                    reading(&[(0, "a1 0"), (1, "a1 1"), (7, "b1 0")], 9),
                ),
                (place("in", 1), reading(&[(0, "a1 2"), (3, "b1 1")], 5)),
                (place("out", 0), reading(&[(0, "c1 0:0"), (1, "c1 0:1")], 3)),
            ]),
            committed: BTreeMap::from([
                (("g".to_owned(), 0), Some(2)),
                (("g".to_owned(), 1), Some(0)),
            ]),
        };
        (journal, vec![chain], world)
    }

    /// Makes one thing wrong, and expects exactly these faults.
    #[track_caller]
    fn check(spoil: impl FnOnce(&mut Vec<Transaction>, &mut World), expected: &[Fault]) {
        let (mut journal, chains, mut world) = right();
        spoil(&mut journal, &mut world);
        let expected: BTreeSet<Fault> = expected.iter().cloned().collect();
        assert_eq!(faults(&journal, &chains, &world), expected);
    }

    fn at<'a>(world: &'a mut World, topic: &str, index: i32) -> &'a mut Reading {
        world
            .partitions
            .get_mut(&place(topic, index))
            .expect("it is there")
    }

    #[test]
    fn what_is_right_is_right() {
        check(|_, _| (), &[]);
    }

    #[test]
    fn a_lost_record_is_found_and_a_lost_transaction() {
        let torn = Fault::Torn {
            transaction: "a1".to_owned(),
        };
        check(
            |_, world| drop(at(world, "in", 1).records.remove(0)),
            &[torn],
        );
        let lost = Fault::Lost {
            transaction: "d1".to_owned(),
        };
        let add = |journal: &mut Vec<Transaction>, _: &mut World| {
            journal.push(transaction("d1", Outcome::Committed, &[("in", 1)]));
        };
        check(add, &[lost]);
    }

    #[test]
    fn a_doubled_record_is_found() {
        let doubled = Fault::Doubled {
            value: "b1 1".to_owned(),
        };
        let twice = (4, "b1 1".to_owned());
        check(
            |_, world| at(world, "in", 1).records.push(twice),
            &[doubled],
        );
    }

    #[test]
    fn a_torn_transaction_is_found_though_nobody_knows_how_it_ended() {
        let torn = Fault::Torn {
            transaction: "b1".to_owned(),
        };
        check(|_, world| drop(at(world, "in", 1).records.pop()), &[torn]);
    }

    #[test]
    fn a_visible_aborted_record_is_found() {
        let visible = Fault::AbortedIsVisible {
            transaction: "a2".to_owned(),
        };
        let aborted = (4, "a2 1".to_owned());
        check(
            |_, world| at(world, "in", 1).records.push(aborted),
            &[visible],
        );
    }

    #[test]
    fn records_in_another_order_are_found_and_those_that_nobody_sent() {
        let place = place("in", 0);
        let disordered = Fault::Disordered {
            transaction: "a1".to_owned(),
            place,
        };
        let swap = |_: &mut Vec<Transaction>, world: &mut World| {
            let records = &mut at(world, "in", 0).records;
            *records = vec![
                (0, "a1 1".to_owned()),
                (1, "a1 0".to_owned()),
                (7, "b1 0".to_owned()),
            ];
        };
        check(swap, &[disordered]);
        let unheard = Fault::Unheard {
            value: "x 1".to_owned(),
        };
        let stranger = (4, "x 1".to_owned());
        check(
            |_, world| at(world, "in", 1).records.push(stranger),
            &[unheard],
        );
    }

    #[test]
    fn an_offset_ahead_of_the_output_is_found_and_one_behind_it() {
        let set = |offset| {
            move |_: &mut Vec<Transaction>, world: &mut World| {
                world.committed.insert(("g".to_owned(), 0), Some(offset));
            }
        };
        let group = || "g".to_owned();
        check(
            set(8),
            &[Fault::OffsetAhead {
                group: group(),
                input: (0, 7),
            }],
        );
        let lost = Fault::LostOffset {
            group: group(),
            index: 0,
            acknowledged: 2,
        };
        check(
            set(1),
            &[
                Fault::OffsetBehind {
                    group: group(),
                    input: (0, 1),
                },
                lost,
            ],
        );
    }

    #[test]
    fn an_output_of_nothing_is_found_and_one_that_is_there_twice() {
        let wrong = |value: &str| Fault::WrongOutput {
            group: "g".to_owned(),
            value: value.to_owned(),
        };
        let unread = |journal: &mut Vec<Transaction>, world: &mut World| {
            let value = "c1 0:5".to_owned();
            journal[4].records.push((place("out", 0), value.clone()));
            at(world, "out", 0).records.push((2, value));
        };
        check(unread, &[wrong("0:5")]);
        let again = |journal: &mut Vec<Transaction>, world: &mut World| {
            let mut again = transaction("c2", Outcome::Committed, &[]);
            again.records = vec![(place("out", 0), "c2 0:1".to_owned())];
            journal.push(again);
            at(world, "out", 0).records.push((2, "c2 0:1".to_owned()));
        };
        check(again, &[wrong("c2 0:1")]);
    }

    #[test]
    fn a_last_stable_offset_that_is_stuck_is_found_and_offsets_that_are() {
        let stuck = Fault::Stuck {
            place: place("in", 1),
        };
        check(
            |_, world| at(world, "in", 1).last_stable_offset = 3,
            &[stuck],
        );
        let undecided = |_: &mut Vec<Transaction>, world: &mut World| {
            world.committed.insert(("g".to_owned(), 1), None);
        };
        let (group, index) = ("g".to_owned(), 1);
        check(undecided, &[Fault::StuckOffset { group, index }]);
    }
}
