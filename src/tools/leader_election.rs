//! `sordini leader-election`: what `kafka-leader-election.sh` does.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use kafka_protocol::messages::{ElectLeadersRequest, elect_leaders_request::TopicPartitions};
use protocol::error::ErrorCode;
use serde_json::Value;

use super::{Connection, Failure, console::Console, required};
use crate::client::{Refusal, refused, topic_name};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    /// preferred: back to the first replica; unclean: any replica where no leader is left
    #[arg(long, value_name = "preferred|unclean")]
    election_type: Option<String>,
    /// Of which topic
    #[arg(long, value_name = "topic")]
    topic: Option<String>,
    /// Of which partition of it
    #[arg(long, value_name = "index")]
    partition: Option<i32>,
    /// {"partitions": [{"topic": "t", "partition": 0}]}
    #[arg(long, value_name = "file")]
    path_to_json_file: Option<PathBuf>,
    /// Of all partitions
    #[arg(long)]
    all_topic_partitions: bool,
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    let refuse = |text: &str| Err(Failure::Refused(text.to_owned()));
    required(
        options.connection.bootstrap_server.as_deref(),
        "bootstrap-server",
    )?;
    let kind = match options
        .election_type
        .as_deref()
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        None => return refuse("Missing required option(s): election-type"),
        Some("preferred") => 0,
        Some("unclean") => 1,
        Some(other) => {
            return Err(Failure::Refused(format!(
                "Cannot parse argument '{other}' of option election-type: preferred or unclean is expected"
            )));
        }
    };
    let scopes = [
        options.topic.is_some(),
        options.path_to_json_file.is_some(),
        options.all_topic_partitions,
    ];
    if scopes.iter().filter(|&&given| given).count() != 1 {
        return refuse(
            "One and only one of the following options is required: topic, all-topic-partitions, path-to-json-file",
        );
    }
    if options.topic.is_some() && options.partition.is_none() {
        return refuse("Missing required option(s): partition");
    }
    let partitions = match (&options.topic, &options.path_to_json_file) {
        (Some(topic), _) => Some(vec![(topic.clone(), options.partition.unwrap_or(0))]),
        (_, Some(file)) => Some(read(file)?),
        (None, None) => None,
    };
    let mut client = options
        .connection
        .open("sordini-leader-election", console)
        .await?;
    let request = ElectLeadersRequest::default()
        .with_election_type(kind)
        .with_topic_partitions(partitions.map(grouped))
        .with_timeout_ms(client.timeout_ms());
    let response = client.any(2, &request).await?;
    refused(response.error_code, None)?;

    let (mut elected, mut unneeded, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for topic in response.replica_election_results {
        for result in topic.partition_result {
            let name = format!("{}-{}", &**topic.topic, result.partition_id);
            match refused(result.error_code, result.error_message.as_ref()) {
                Ok(()) => elected.push(name),
                Err(refusal) if refusal.code == ErrorCode::ElectionNotNeeded => unneeded.push(name),
                Err(refusal) => failed.push((name, refusal)),
            }
        }
    }
    let kind = if kind == 0 { "PREFERRED" } else { "UNCLEAN" };
    tell(kind, elected, unneeded, &failed, console)
}

fn tell(
    kind: &str,
    mut elected: Vec<String>,
    mut unneeded: Vec<String>,
    failed: &[(String, Refusal)],
    console: &mut Console,
) -> Result<(), Failure> {
    elected.sort_unstable();
    unneeded.sort_unstable();
    if !elected.is_empty() {
        console.line(&format!(
            "Successfully completed leader election ({kind}) for partitions {}",
            elected.join(", ")
        ))?;
    }
    if !unneeded.is_empty() {
        console.line(&format!(
            "Valid replica already elected for partitions {}",
            unneeded.join(", ")
        ))?;
    }
    for (partition, refusal) in failed {
        console.line(&format!(
            "Error completing leader election ({kind}) for partition: {partition}: {}",
            refusal.with_exception()
        ))?;
    }
    match failed.len() {
        0 => Ok(()),
        count => Err(Failure::Refused(format!(
            "{count} replica(s) could not be elected"
        ))),
    }
}

fn grouped(partitions: Vec<(String, i32)>) -> Vec<TopicPartitions> {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, index) in partitions {
        topics.entry(topic).or_default().push(index);
    }
    let topic = |(name, indexes): (String, Vec<i32>)| {
        TopicPartitions::default()
            .with_topic(topic_name(&name))
            .with_partitions(indexes)
    };
    topics.into_iter().map(topic).collect()
}

fn read(file: &PathBuf) -> Result<Vec<(String, i32)>, Failure> {
    let wrong = |why: String| Failure::Refused(format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|err| wrong(err.to_string()))?;
    let json: Value = serde_json::from_str(&text).map_err(|err| wrong(err.to_string()))?;
    let list = json.get("partitions").and_then(Value::as_array);
    let list = list
        .ok_or_else(|| wrong("Replica election data is missing \"partitions\" field".to_owned()))?;
    let entry = |entry: &Value| {
        let topic = entry.get("topic")?.as_str()?.to_owned();
        Some((
            topic,
            i32::try_from(entry.get("partition")?.as_i64()?).ok()?,
        ))
    };
    list.iter()
        .map(|value| {
            entry(value)
                .ok_or_else(|| wrong(format!("topic and partition are expected, not {value}")))
        })
        .collect()
}
