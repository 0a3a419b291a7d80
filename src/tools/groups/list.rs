//! `--list`: the groups, with their types and states if asked.

use kafka_protocol::messages::list_groups_response::ListedGroup;

use super::Options;
use crate::{
    client::Client,
    tools::{
        Failure,
        console::Console,
        table::{self, fixed, growing},
    },
};

/// The states a consumer group can be in, as Kafka's tool names them when it refuses others.
const STATES: [&str; 7] = [
    "Assigning",
    "Stable",
    "Empty",
    "CompletingRebalance",
    "Dead",
    "PreparingRebalance",
    "Reconciling",
];

const TYPES: [&str; 2] = ["Consumer", "Classic"];

pub(super) async fn run(
    options: &Options,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let states = wanted(options.state.as_deref(), &STATES, "state")?;
    let types = wanted(options.kind.as_deref(), &TYPES, "types")?;
    let groups = client.list_groups(&states, &types).await?;
    let groups: Vec<ListedGroup> = groups.into_iter().filter(is_consumer_group).collect();
    let (with_state, with_type) = (options.state.is_some(), options.kind.is_some());
    if !with_state && !with_type {
        for group in &groups {
            console.line(&group.group_id)?;
        }
        return Ok(());
    }
    let mut columns = vec![growing("GROUP", 25)];
    if with_type {
        columns.push(fixed("TYPE", 20));
    }
    if with_state {
        columns.push(fixed("STATE", 20));
    }
    let row = |group: &ListedGroup| {
        let mut row = vec![group.group_id.to_string()];
        if with_type {
            row.push(canonical(&group.group_type, &TYPES));
        }
        if with_state {
            row.push(canonical(&group.group_state, &STATES));
        }
        row
    };
    let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
    for line in table::lines(&columns, &rows) {
        console.line(&line)?;
    }
    Ok(())
}

/// Share and streams groups have tools of their own; a group without members may have no protocol.
pub(super) fn is_consumer_group(group: &ListedGroup) -> bool {
    let another = matches!(&*group.group_type.to_ascii_lowercase(), "share" | "streams");
    !another && (group.protocol_type.is_empty() || &*group.protocol_type == "consumer")
}

/// The names in a list after `--state` or `--type`, in whatever case they are written.
fn wanted(list: Option<&str>, known: &[&str], what: &str) -> Result<Vec<String>, Failure> {
    let list = list.unwrap_or_default();
    let words = list
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty());
    words
        .map(|word| {
            let name = known.iter().find(|name| name.eq_ignore_ascii_case(word));
            name.map(|name| (*name).to_owned()).ok_or_else(|| {
                Failure::Usage(format!(
                    "Invalid {what} list '{list}'. Valid {} are: {}",
                    if what == "state" { "states" } else { what },
                    known.join(", ")
                ))
            })
        })
        .collect()
}

/// A broker may write `classic` where Kafka's tool shows `Classic`; what it does not say is unknown.
fn canonical(text: &str, known: &[&str]) -> String {
    let name = known.iter().find(|name| name.eq_ignore_ascii_case(text));
    match name {
        Some(name) => (*name).to_owned(),
        None if text.is_empty() => "Unknown".to_owned(),
        None => text.to_owned(),
    }
}
