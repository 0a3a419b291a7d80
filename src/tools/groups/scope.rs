//! `--topic orders:0,1`: a topic, or some of its partitions.

use crate::{
    client::{Client, Partition},
    tools::Failure,
};

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) topic: String,
    /// Empty means all.
    pub(super) partitions: Vec<i32>,
}

pub(super) fn parse(arguments: &[String]) -> Result<Vec<Scope>, Failure> {
    arguments
        .iter()
        .map(|argument| parse_one(argument))
        .collect()
}

fn parse_one(argument: &str) -> Result<Scope, Failure> {
    let (topic, indexes) = match argument.split_once(':') {
        Some((topic, indexes)) => (topic, indexes),
        None => (argument, ""),
    };
    let index = |text: &str| {
        text.parse().map_err(|_| {
            Failure::Usage(format!(
                "Invalid partition '{text}' specified in topic arg '{argument}''"
            ))
        })
    };
    let indexes = indexes.split(',').filter(|text| !text.is_empty());
    Ok(Scope {
        topic: topic.to_owned(),
        partitions: indexes.map(index).collect::<Result<_, _>>()?,
    })
}

impl Scope {
    /// The partitions themselves. All of them must exist.
    pub(super) async fn resolve(&self, client: &mut Client) -> Result<Vec<Partition>, Failure> {
        let there = client.partitions(&self.topic).await?;
        let missing = self
            .partitions
            .iter()
            .filter(|index| !there.contains(index));
        let missing: Vec<String> = missing
            .map(|index| format!("{}-{index}", self.topic))
            .collect();
        if !missing.is_empty() {
            return Err(Failure::Refused(format!(
                "The partitions \"{}\" do not exist",
                missing.join(", ")
            )));
        }
        let wanted = match self.partitions.is_empty() {
            true => there,
            false => self.partitions.clone(),
        };
        Ok(wanted
            .into_iter()
            .map(|index| (self.topic.clone(), index))
            .collect())
    }
}
