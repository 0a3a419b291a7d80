//! `sordini log-dirs`: what `kafka-log-dirs.sh` does.

use std::collections::BTreeSet;

use clap::Args;
use kafka_protocol::messages::{
    DescribeLogDirsRequest, describe_log_dirs_request::DescribableLogDirTopic,
    describe_log_dirs_response::DescribeLogDirsResult,
};
use serde_json::json;

use super::{Connection, Failure, console::Console, required};
use crate::client::{Client, refused, topic_name};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    /// Describe the log directories
    #[arg(long)]
    describe: bool,
    /// Of which brokers; all if none are named
    #[arg(
        long = "broker-list",
        value_name = "0,1,...",
        default_value = "",
        hide_default_value = true
    )]
    brokers: String,
    /// Of which topics; all if none are named
    #[arg(
        long,
        value_name = "topic,...",
        default_value = "",
        hide_default_value = true
    )]
    topic_list: String,
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    required(
        options.connection.bootstrap_server.as_deref(),
        "bootstrap-server",
    )?;
    required(options.describe.then_some(&()), "describe")?;
    let mut client = options.connection.open("sordini-log-dirs", console).await?;
    let brokers = chosen(&options.brokers, &mut client).await?;
    console.line("Querying brokers for log directories information")?;

    let topics: BTreeSet<&str> = words(&options.topic_list).collect();
    let request = DescribeLogDirsRequest::default().with_topics(match topics.is_empty() {
        true => None,
        false => Some(named(&topics, &mut client).await?),
    });
    let mut answers = Vec::new();
    for broker in &brokers {
        let response = client.at(*broker, 4, &request).await?;
        refused(response.error_code, None)?;
        let dirs: Vec<String> = response.results.iter().map(directory).collect();
        answers.push(format!(
            "{{\"broker\":{broker},\"logDirs\":[{}]}}",
            dirs.join(",")
        ));
    }
    let asked: Vec<String> = brokers.iter().map(i32::to_string).collect();
    console.line(&format!(
        "Received log directory information from brokers {}",
        asked.join(",")
    ))?;
    console.line(&format!(
        "{{\"brokers\":[{}],\"version\":1}}",
        answers.join(",")
    ))
}

/// Kafka's keys stand in Kafka's order, which a map would not keep.
fn directory(dir: &DescribeLogDirsResult) -> String {
    let mut partitions = Vec::new();
    for topic in &dir.topics {
        for partition in &topic.partitions {
            partitions.push(format!(
                "{{\"partition\":{},\"size\":{},\"offsetLag\":{},\"isFuture\":{}}}",
                json!(format!("{}-{}", &**topic.name, partition.partition_index)),
                partition.partition_size,
                partition.offset_lag,
                partition.is_future_key
            ));
        }
    }
    let error = match refused(dir.error_code, None) {
        Ok(()) => json!(null),
        Err(refusal) => json!(refusal.with_exception()),
    };
    format!(
        "{{\"partitions\":[{}],\"error\":{error},\"logDir\":{}}}",
        partitions.join(","),
        json!(&*dir.log_dir)
    )
}

async fn chosen(list: &str, client: &mut Client) -> Result<Vec<i32>, Failure> {
    let there: Vec<i32> = client.brokers().await?.into_keys().collect();
    let mut chosen = Vec::new();
    for word in words(list) {
        chosen.push(word.parse().map_err(|_| {
            Failure::Refused(format!("'{word}' in --broker-list is not a broker's id"))
        })?);
    }
    let joined = |brokers: &[i32]| {
        let brokers: Vec<String> = brokers.iter().map(i32::to_string).collect();
        brokers.join(",")
    };
    let missing: Vec<i32> = chosen
        .iter()
        .copied()
        .filter(|id| !there.contains(id))
        .collect();
    if !missing.is_empty() {
        return Err(Failure::Refused(format!(
            "ERROR: The given brokers do not exist from --broker-list: {}. Current existent brokers: {}",
            joined(&missing),
            joined(&there)
        )));
    }
    Ok(if chosen.is_empty() { there } else { chosen })
}

/// The topics with all their partitions, since a broker is asked about partitions. Those that do not exist have none.
async fn named(
    topics: &BTreeSet<&str>,
    client: &mut Client,
) -> Result<Vec<DescribableLogDirTopic>, Failure> {
    let names: Vec<&str> = topics.iter().copied().collect();
    let leaders = client.leaders(&names).await?;
    let topic = |name: &str| {
        let partitions = leaders.keys().filter(|(topic, _)| topic == name);
        DescribableLogDirTopic::default()
            .with_topic(topic_name(name))
            .with_partitions(partitions.map(|(_, index)| *index).collect())
    };
    Ok(names.into_iter().map(topic).collect())
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}
