//! `--reset-offsets`: where a group's offsets are moved, and moving them.

use std::{collections::BTreeMap, path::PathBuf};

use protocol::error::ErrorCode;

use super::{
    Options, chosen,
    scope::{self, Scope},
    time,
};
use crate::{
    client::{Client, Committed, Committer, Error, Partition},
    clock,
    tools::{
        Failure,
        console::Console,
        not_together,
        table::{self, fixed, growing},
    },
};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// What is to be done with the offsets, of which partitions.
#[derive(Debug)]
pub(super) struct Plan {
    goal: Goal,
    /// `None`: all topics the group has committed offsets of.
    scopes: Option<Vec<Scope>>,
}

#[derive(Debug)]
enum Goal {
    Earliest,
    Latest,
    Current,
    Offset(i64),
    ShiftBy(i64),
    /// Milliseconds since the epoch.
    Time(i64),
    File(PathBuf),
}

/// The new offsets of a group.
type Offsets = BTreeMap<Partition, i64>;

impl Plan {
    pub(super) fn new(options: &Options) -> Result<Plan, Failure> {
        let goals: Vec<(&str, Option<Goal>)> = vec![
            ("to-offset", options.to_offset.map(Goal::Offset)),
            (
                "to-datetime",
                match &options.to_datetime {
                    Some(text) => Some(Goal::Time(time::datetime(text).map_err(Failure::Refused)?)),
                    None => None,
                },
            ),
            (
                "by-duration",
                match &options.by_duration {
                    Some(text) => {
                        let span = time::duration(text).map_err(Failure::Refused)?;
                        Some(Goal::Time(clock::now().saturating_sub(span)))
                    }
                    None => None,
                },
            ),
            ("to-earliest", options.to_earliest.then_some(Goal::Earliest)),
            ("to-latest", options.to_latest.then_some(Goal::Latest)),
            ("shift-by", options.shift_by.map(Goal::ShiftBy)),
            ("from-file", options.from_file.clone().map(Goal::File)),
            ("to-current", options.to_current.then_some(Goal::Current)),
        ];
        let mut given = goals
            .into_iter()
            .filter_map(|(name, goal)| Some((name, goal?)));
        let Some((name, goal)) = given.next() else {
            return Err(Failure::Usage(
                "Option '[reset-offsets]' requires one of the following scenarios: [[from-file], [shift-by], [to-offset], \
                 [to-earliest], [to-current], [to-latest], [by-duration], [to-datetime]]"
                    .to_owned(),
            ));
        };
        if let Some((second, _)) = given.next() {
            not_together((second, true), (name, true))?;
        }
        let from_file = matches!(goal, Goal::File(_));
        if !options.all_topics && options.topic.is_empty() && !from_file {
            return Err(Failure::Usage(
                "One of the reset scopes should be defined: --all-topics, --topic.".to_owned(),
            ));
        }
        let scopes = match options.all_topics || from_file {
            true => None,
            false => Some(scope::parse(&options.topic)?),
        };
        Ok(Plan { goal, scopes })
    }
}

pub(super) async fn run(
    plan: Plan,
    options: &Options,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let groups = chosen(options, client).await?;
    let file = match &plan.goal {
        Goal::File(path) => {
            let single = (groups.len() == 1).then(|| groups[0].clone());
            Some(read(path, single.as_deref())?)
        }
        _ => None,
    };
    let mut planned: BTreeMap<String, Offsets> = BTreeMap::new();
    for group in groups {
        let state = match client.describe_group(&group).await {
            Ok(described) => described.state,
            // Offsets may be given to a group before it exists.
            Err(Error::Refused(refusal)) if refusal.code == ErrorCode::GroupIdNotFound => {
                "Dead".to_owned()
            }
            Err(err) => return Err(err.into()),
        };
        if !matches!(&*state, "Empty" | "Dead") {
            console.line(&format!(
                "\nError: Assignments can only be reset if the group '{group}' is inactive, but the current state is {state}."
            ))?;
            continue;
        }
        let offsets = match &file {
            Some(file) => match file.get(&group) {
                Some(wanted) => clamp(wanted, client, console).await?,
                None => {
                    console.line(&format!("\nError: No reset plan for group {group} found"))?;
                    continue;
                }
            },
            None => new_offsets(&plan, &group, client, console).await?,
        };
        if options.execute && !offsets.is_empty() {
            let moved = offsets.iter().map(|(partition, &offset)| {
                let at = Committed {
                    offset,
                    leader_epoch: -1,
                };
                (partition.clone(), at)
            });
            client
                .commit(&group, &Committer::NOBODY, &moved.collect())
                .await?;
        }
        planned.insert(group, offsets);
    }
    match options.export {
        true => export(&planned, options, console),
        false => show(&planned, console),
    }
}

fn show(planned: &BTreeMap<String, Offsets>, console: &mut Console) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = planned
        .iter()
        .flat_map(|(group, offsets)| {
            offsets.iter().map(move |((topic, index), offset)| {
                vec![
                    group.clone(),
                    topic.clone(),
                    index.to_string(),
                    offset.to_string(),
                ]
            })
        })
        .collect();
    let columns = [
        growing("GROUP", 15),
        growing("TOPIC", 15),
        fixed("PARTITION", 10),
        fixed("NEW-OFFSET", 0),
    ];
    console.line("")?;
    for line in table::lines(&columns, &rows) {
        console.line(&line)?;
    }
    Ok(())
}

/// Lines that `--from-file` reads: with the group in front if there may be several.
fn export(
    planned: &BTreeMap<String, Offsets>,
    options: &Options,
    console: &mut Console,
) -> Result<(), Failure> {
    let single = options.group.len() == 1 && !options.all_groups;
    for (group, offsets) in planned {
        for ((topic, index), offset) in offsets {
            console.line(&match single {
                true => format!("{topic},{index},{offset}"),
                false => format!("{group},{topic},{index},{offset}"),
            })?;
        }
    }
    console.line("")
}

async fn new_offsets(
    plan: &Plan,
    group: &str,
    client: &mut Client,
    console: &mut Console,
) -> Result<Offsets, Failure> {
    let committed: Offsets = match (&plan.scopes, &plan.goal) {
        (None, _) | (_, Goal::Current | Goal::ShiftBy(_)) => {
            let committed = client.committed(group).await?;
            committed
                .into_iter()
                .map(|(partition, at)| (partition, at.offset))
                .collect()
        }
        _ => Offsets::new(),
    };
    let mut partitions: Vec<Partition> = Vec::new();
    match &plan.scopes {
        None => partitions.extend(committed.keys().cloned()),
        Some(scopes) => {
            for scope in scopes {
                partitions.extend(scope.resolve(client).await?);
            }
        }
    }
    let at = |time: i64| {
        partitions
            .iter()
            .map(|partition| (partition.clone(), time))
            .collect()
    };
    match &plan.goal {
        Goal::Earliest => listed(&at(EARLIEST), client).await,
        Goal::Latest => listed(&at(LATEST), client).await,
        Goal::Offset(offset) => clamp(&at(*offset), client, console).await,
        Goal::Time(time) => by_time(&at(*time), client, console).await,
        Goal::Current => {
            let mut offsets = listed(&at(LATEST), client).await?;
            for (partition, offset) in &mut offsets {
                if let Some(committed) = committed.get(partition) {
                    *offset = *committed;
                }
            }
            Ok(offsets)
        }
        Goal::ShiftBy(count) => {
            let shifted = |partition: &Partition| match committed.get(partition) {
                Some(offset) => Ok((partition.clone(), offset.saturating_add(*count))),
                None => Err(Failure::Refused(format!(
                    "Cannot shift offset for partition {}-{} since there is no current committed offset",
                    partition.0, partition.1
                ))),
            };
            let wanted = partitions.iter().map(shifted).collect::<Result<_, _>>()?;
            clamp(&wanted, client, console).await
        }
        // Read before, since it names the groups.
        Goal::File(_) => Ok(Offsets::new()),
    }
}

/// Offsets by time or by a time with a meaning.
async fn listed(wanted: &Offsets, client: &mut Client) -> Result<Offsets, Failure> {
    let answers = client.list_offsets(wanted).await?;
    let offset = |(partition, listed): (Partition, Result<crate::client::Listed, _>)| {
        Ok((partition, listed.map_err(Error::Refused)?.offset))
    };
    answers.into_iter().map(offset).collect()
}

async fn by_time(
    wanted: &Offsets,
    client: &mut Client,
    console: &mut Console,
) -> Result<Offsets, Failure> {
    let mut offsets = listed(wanted, client).await?;
    let none: Offsets = offsets
        .iter()
        .filter(|(_, offset)| **offset < 0)
        .map(|(partition, _)| (partition.clone(), LATEST))
        .collect();
    for (topic, index) in none.keys() {
        console.line(&format!(
            "\nWarn: Partition {index} from topic {topic} is empty. Falling back to latest known offset."
        ))?;
    }
    offsets.extend(listed(&none, client).await?);
    Ok(offsets)
}

/// Moves offsets that are outside of their logs to the nearest end, and says so.
async fn clamp(
    wanted: &Offsets,
    client: &mut Client,
    console: &mut Console,
) -> Result<Offsets, Failure> {
    let at = |time: i64| {
        wanted
            .keys()
            .map(|partition| (partition.clone(), time))
            .collect()
    };
    let starts = listed(&at(EARLIEST), client).await?;
    let ends = listed(&at(LATEST), client).await?;
    let mut offsets = Offsets::new();
    for (partition, &offset) in wanted {
        let (Some(&start), Some(&end)) = (starts.get(partition), ends.get(partition)) else {
            continue;
        };
        let name = format!("{}-{}", partition.0, partition.1);
        if offset < start {
            console.complain(&format!(
                "New offset ({offset}) is lower than earliest offset for topic partition {name}. Value will be set to {start}"
            ));
        } else if end < offset {
            console.complain(&format!(
                "New offset ({offset}) is higher than latest offset for topic partition {name}. Value will be set to {end}"
            ));
        }
        offsets.insert(partition.clone(), offset.clamp(start, end.max(start)));
    }
    Ok(offsets)
}

/// `topic,partition,offset` lines, or `group,topic,partition,offset`, of which the former mean the only group.
fn read(path: &PathBuf, single: Option<&str>) -> Result<BTreeMap<String, Offsets>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|err| {
        Failure::Refused(format!("Unable to read file {}: {err}", path.display()))
    })?;
    let mut groups: BTreeMap<String, Offsets> = BTreeMap::new();
    for (at, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let wrong = || {
            Failure::Refused(format!(
                "{}:{}: topic,partition,offset or group,topic,partition,offset is expected, not {line}",
                path.display(),
                at + 1
            ))
        };
        let fields: Vec<&str> = line
            .split(',')
            .map(|field| field.trim().trim_matches('"'))
            .collect();
        let (group, topic, index, offset) = match (fields[..].as_ref(), single) {
            ([topic, index, offset], Some(group)) => (group, topic, index, offset),
            ([group, topic, index, offset], _) => (*group, topic, index, offset),
            _ => return Err(wrong()),
        };
        let index: i32 = index.parse().map_err(|_| wrong())?;
        let offset: i64 = offset.parse().map_err(|_| wrong())?;
        let offsets = groups.entry(group.to_owned()).or_default();
        offsets.insert(((*topic).to_owned(), index), offset);
    }
    Ok(groups)
}
