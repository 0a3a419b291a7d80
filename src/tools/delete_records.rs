//! `sordini delete-records`: what `kafka-delete-records.sh` does.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use kafka_protocol::messages::{
    DeleteRecordsRequest,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
};
use serde_json::Value;

use super::{Connection, Failure, console::Console, required};
use crate::client::{Client, Partition, refused, topic_name};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    /// {"partitions": [{"topic": "t", "partition": 0, "offset": 5}], "version": 1}
    #[arg(long, value_name = "file")]
    offset_json_file: Option<PathBuf>,
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    required(
        options.connection.bootstrap_server.as_deref(),
        "bootstrap-server",
    )?;
    let file = required(options.offset_json_file.as_ref(), "offset-json-file")?;
    let text = std::fs::read_to_string(file).map_err(|err| {
        Failure::Refused(format!("Unable to read file {}: {err}", file.display()))
    })?;
    let wanted = parse(&text).map_err(Failure::Refused)?;
    let mut client = options
        .connection
        .open("sordini-delete-records", console)
        .await?;
    console.line("Executing records delete operation")?;
    let lines = delete(&wanted, &mut client).await?;
    console.line("Records delete operation completed:")?;
    for line in lines.into_values() {
        console.line(&line)?;
    }
    Ok(())
}

/// Asks the leader of each partition; what became of it is a line for each.
async fn delete(
    wanted: &BTreeMap<Partition, i64>,
    client: &mut Client,
) -> Result<BTreeMap<Partition, String>, Failure> {
    let mut topics: Vec<&str> = wanted.keys().map(|(topic, _)| topic.as_str()).collect();
    topics.dedup();
    let leaders = client.leaders(&topics).await?;
    let mut lines = BTreeMap::new();
    for (partition, offset) in wanted {
        let (topic, index) = partition;
        let leader = leaders
            .get(partition)
            .copied()
            .filter(|&leader| 0 <= leader);
        let Some(leader) = leader else {
            let why = crate::client::unknown_partition().with_exception();
            lines.insert(
                partition.clone(),
                format!("partition: {topic}-{index}\terror: {why}"),
            );
            continue;
        };
        let at = DeleteRecordsPartition::default()
            .with_partition_index(*index)
            .with_offset(*offset);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![
                DeleteRecordsTopic::default()
                    .with_name(topic_name(topic))
                    .with_partitions(vec![at]),
            ])
            .with_timeout_ms(client.timeout_ms());
        let response = client.at(leader, 2, &request).await?;
        for result in response.topics.iter().flat_map(|topic| &topic.partitions) {
            let outcome = match refused(result.error_code, None) {
                Ok(()) => format!("low_watermark: {}", result.low_watermark),
                Err(refusal) => format!("error: {}", refusal.with_exception()),
            };
            lines.insert(
                partition.clone(),
                format!("partition: {topic}-{index}\t{outcome}"),
            );
        }
    }
    Ok(lines)
}

fn parse(text: &str) -> Result<BTreeMap<Partition, i64>, String> {
    let json: Value = serde_json::from_str(text)
        .map_err(|err| format!("The input string is not a valid JSON: {err}"))?;
    let version = json.get("version").map_or(Some(1), Value::as_i64);
    if version != Some(1) {
        return Err(format!(
            "Not supported version field value {}",
            json["version"]
        ));
    }
    let list = json.get("partitions").and_then(Value::as_array);
    let list = list.ok_or("Missing partitions field")?;
    let mut wanted = BTreeMap::new();
    for entry in list {
        let parsed = || {
            let topic = entry.get("topic")?.as_str()?.to_owned();
            let index = i32::try_from(entry.get("partition")?.as_i64()?).ok()?;
            Some(((topic, index), entry.get("offset")?.as_i64()?))
        };
        let (partition, offset) = parsed()
            .ok_or_else(|| format!("topic, partition and offset are expected, not {entry}"))?;
        if wanted.insert(partition.clone(), offset).is_some() {
            return Err(format!(
                "Offset json file contains duplicate topic partitions: {}-{}",
                partition.0, partition.1
            ));
        }
    }
    Ok(wanted)
}
