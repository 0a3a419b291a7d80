//! `--describe`: a group's offsets and lag, its members, or its state.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{Options, chosen};
use crate::{
    client::{Assignment, Client, Error, Group, Member, Partition, Refusal},
    tools::{
        Failure,
        console::Console,
        table::{self, Column, fixed, growing},
    },
};

/// The time that means the end of a log.
const LATEST: i64 = -1;

pub(super) async fn run(
    options: &Options,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), Failure> {
    for id in chosen(options, client).await? {
        let group = client.describe_group(&id).await.map_err(|err| match err {
            // Kafka's tool names the exception here.
            Error::Refused(refusal) => Error::Refused(Refusal {
                code: refusal.code,
                message: Some(refusal.with_exception()),
            }),
            other => other,
        })?;
        tell_state(&group, console)?;
        let (columns, rows) = if options.members {
            members(&group, options.verbose)
        } else if options.state.is_some() {
            state(&group, options.verbose, client).await?
        } else {
            offsets(&group, options.verbose, client).await?
        };
        if group.state == "Dead" || (rows.is_empty() && !options.members) {
            continue;
        }
        console.line("")?;
        for line in table::lines(&columns, &rows) {
            console.line(&line)?;
        }
    }
    Ok(())
}

/// What a reader of the table should know about it.
fn tell_state(group: &Group, console: &mut Console) -> Result<(), Failure> {
    let id = &group.id;
    match &*group.state {
        "Empty" => console.complain(&format!("\nConsumer group '{id}' has no active members.")),
        "PreparingRebalance" | "CompletingRebalance" | "Assigning" | "Reconciling" => {
            console.complain(&format!("\nWarning: Consumer group '{id}' is rebalancing."));
        }
        "Dead" => console.line(&format!("\nError: Consumer group '{id}' does not exist."))?,
        _ => (),
    }
    Ok(())
}

type Table = (Vec<Column>, Vec<Vec<String>>);

async fn offsets(group: &Group, verbose: bool, client: &mut Client) -> Result<Table, Failure> {
    let committed = client.committed(&group.id).await?;
    let assigned: BTreeSet<Partition> = group
        .members
        .iter()
        .flat_map(|member| partitions(&member.assignment))
        .collect();
    let wanted: BTreeMap<Partition, i64> = committed
        .keys()
        .chain(&assigned)
        .map(|partition| (partition.clone(), LATEST))
        .collect();
    let ends = client.list_offsets(&wanted).await?;

    let mut rows = Vec::new();
    let mut row = |partition: &Partition, member: Option<&Member>| {
        let committed = committed.get(partition);
        let end = ends.get(partition).and_then(|end| end.as_ref().ok());
        let lag = committed.zip(end).map(|(at, end)| end.offset - at.offset);
        let epoch = committed
            .map(|at| at.leader_epoch)
            .filter(|&epoch| 0 <= epoch);
        let mut row = vec![
            group.id.clone(),
            partition.0.clone(),
            partition.1.to_string(),
        ];
        if verbose {
            row.push(or_dash(epoch));
        }
        row.extend([
            or_dash(committed.map(|at| at.offset)),
            or_dash(end.map(|end| end.offset)),
            or_dash(lag),
        ]);
        row.extend(who(member));
        rows.push(row);
    };
    let members = busiest_first(group);
    for member in &members {
        for partition in partitions(&member.assignment) {
            row(&partition, Some(member));
        }
    }
    for partition in committed
        .keys()
        .filter(|partition| !assigned.contains(*partition))
    {
        row(partition, None);
    }
    for member in members
        .into_iter()
        .filter(|member| member.assignment.is_empty())
    {
        let columns = if verbose { 6 } else { 5 };
        let mut row = vec![group.id.clone()];
        row.extend(std::iter::repeat_n("-".to_owned(), columns));
        row.extend(who(Some(member)));
        rows.push(row);
    }

    let mut columns = vec![
        growing("GROUP", 15),
        growing("TOPIC", 15),
        fixed("PARTITION", 10),
    ];
    if verbose {
        columns.push(fixed("LEADER-EPOCH", 15));
    }
    columns.extend([
        fixed("CURRENT-OFFSET", 15),
        fixed("LOG-END-OFFSET", 15),
        fixed("LAG", 15),
        growing("CONSUMER-ID", 15),
        growing("HOST", 15),
        fixed("CLIENT-ID", 0),
    ]);
    Ok((columns, rows))
}

fn members(group: &Group, verbose: bool) -> Table {
    let with_instances = group
        .members
        .iter()
        .any(|member| member.instance_id.is_some());
    let mut columns = vec![growing("GROUP", 15), growing("CONSUMER-ID", 15)];
    if with_instances {
        columns.push(growing("GROUP-INSTANCE-ID", 17));
    }
    columns.extend([
        growing("HOST", 15),
        growing("CLIENT-ID", 15),
        fixed("#PARTITIONS", 15),
    ]);
    if !verbose {
        // Kafka's tool ends these lines with a blank.
        columns.push(fixed("", 0));
    } else {
        columns.extend([
            fixed("CURRENT-EPOCH", 15),
            growing("CURRENT-ASSIGNMENT", 20),
            fixed("TARGET-EPOCH", 15),
            growing("TARGET-ASSIGNMENT", 20),
        ]);
    }
    let row = |member: &Member| {
        let mut row = vec![group.id.clone(), member.id.clone()];
        if with_instances {
            row.push(member.instance_id.clone().unwrap_or_default());
        }
        row.extend([
            member.host.clone(),
            member.client_id.clone(),
            partitions(&member.assignment).len().to_string(),
        ]);
        if !verbose {
            row.push(String::new());
        } else {
            row.extend([
                or_dash(member.epoch),
                shown(&member.assignment),
                or_dash(group.epochs.map(|(_, target)| target)),
                member.target.as_ref().map_or("-".to_owned(), shown),
            ]);
        }
        row
    };
    (columns, busiest_first(group).into_iter().map(row).collect())
}

/// The members with the most partitions first, as in Kafka's tool.
fn busiest_first(group: &Group) -> Vec<&Member> {
    let mut members: Vec<&Member> = group.members.iter().collect();
    members.sort_by_key(|member| {
        let count = partitions(&member.assignment).len();
        (Reverse(count), member.id.clone())
    });
    members
}

async fn state(group: &Group, verbose: bool, client: &mut Client) -> Result<Table, Failure> {
    let brokers = client.brokers().await?;
    let address = brokers.get(&group.coordinator).map_or("-", String::as_str);
    let mut columns = vec![
        growing("GROUP", 15),
        growing("COORDINATOR (ID)", 25),
        fixed("ASSIGNMENT-STRATEGY", 20),
        fixed("STATE", 20),
    ];
    let assignor = match group.assignor.is_empty() {
        true => "-".to_owned(),
        false => group.assignor.clone(),
    };
    let mut row = vec![
        group.id.clone(),
        format!("{address}  ({})", group.coordinator),
        assignor,
        group.state.clone(),
    ];
    if verbose {
        columns.extend([
            fixed("GROUP-EPOCH", 15),
            fixed("TARGET-ASSIGNMENT-EPOCH", 25),
        ]);
        row.extend([
            or_dash(group.epochs.map(|(epoch, _)| epoch)),
            or_dash(group.epochs.map(|(_, target)| target)),
        ]);
    }
    columns.push(fixed("#MEMBERS", 0));
    row.push(group.members.len().to_string());
    Ok((columns, vec![row]))
}

fn who(member: Option<&Member>) -> [String; 3] {
    let of = |text: Option<&String>| text.map_or("-".to_owned(), String::clone);
    [
        of(member.map(|member| &member.id)),
        of(member.map(|member| &member.host)),
        of(member.map(|member| &member.client_id)),
    ]
}

fn partitions(assignment: &Assignment) -> Vec<Partition> {
    let of_topic = |(topic, indexes): (&String, &Vec<i32>)| {
        let mut indexes = indexes.clone();
        indexes.sort_unstable();
        let topic = topic.clone();
        indexes
            .into_iter()
            .map(move |index| (topic.clone(), index))
            .collect::<Vec<_>>()
    };
    assignment.iter().flat_map(of_topic).collect()
}

/// `ga:0,1;gb:0`
fn shown(assignment: &Assignment) -> String {
    let topic = |(topic, indexes): (&String, &Vec<i32>)| {
        let mut indexes = indexes.clone();
        indexes.sort_unstable();
        let indexes: Vec<String> = indexes.iter().map(i32::to_string).collect();
        format!("{topic}:{}", indexes.join(","))
    };
    match assignment.is_empty() {
        true => "-".to_owned(),
        false => assignment.iter().map(topic).collect::<Vec<_>>().join(";"),
    }
}

fn or_dash(number: Option<impl ToString>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}
