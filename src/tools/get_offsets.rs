//! `sordini get-offsets`: what `kafka-get-offsets.sh` does.

mod patterns;

use std::collections::BTreeMap;

use clap::Args;
use protocol::error::ErrorCode;

use super::{Connection, Failure, console::Console, required};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    /// Topics, as a regular expression; all if none are named
    #[arg(long, value_name = "regex")]
    topic: Option<String>,
    /// Partitions' indexes; all if none are named
    #[arg(long, value_name = "0,1,...")]
    partitions: Option<String>,
    /// Topics and partitions: topic1:1, topic2:0-3, topic3, topic4:5-, topic5:-3
    #[arg(long, value_name = "pattern,...")]
    topic_partitions: Option<String>,
    /// earliest, latest, max-timestamp, earliest-local, latest-tiered, or milliseconds since the epoch
    #[arg(
        long,
        value_name = "time",
        default_value = "latest",
        allow_negative_numbers = true
    )]
    time: String,
    /// Leave out the brokers' own topics
    #[arg(long)]
    exclude_internal_topics: bool,
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    required(
        options.connection.bootstrap_server.as_deref(),
        "bootstrap-server",
    )?;
    if options.topic_partitions.is_some()
        && (options.topic.is_some() || options.partitions.is_some())
    {
        return Err(Failure::Refused(
            "--topic-partitions cannot be used with --topic or --partitions".to_owned(),
        ));
    }
    let time = time(&options.time)?;
    let patterns = patterns::Patterns::new(&options)?;
    let mut client = options
        .connection
        .open("sordini-get-offsets", console)
        .await?;

    let metadata = client.metadata(None).await?;
    let mut wanted = BTreeMap::new();
    for topic in &metadata.topics {
        let Some(name) = &topic.name else { continue };
        if options.exclude_internal_topics && topic.is_internal {
            continue;
        }
        for partition in &topic.partitions {
            let index = partition.partition_index;
            if !patterns.matches(name, index) {
                continue;
            }
            match partition.leader_id.0 {
                -1 => console.complain(&format!(
                    "Skip getting offsets for topic-partition {}-{index} since it has no leader",
                    &***name
                )),
                _ => drop(wanted.insert((name.to_string(), index), time)),
            }
        }
    }
    if wanted.is_empty() {
        return Err(Failure::Refused(
            "Could not match any topic-partitions with the specified filters".to_owned(),
        ));
    }
    for ((topic, index), listed) in client.list_offsets(&wanted).await? {
        match listed {
            Ok(listed) if listed.offset < 0 => (),
            Ok(listed) => console.line(&format!("{topic}:{index}:{}", listed.offset))?,
            Err(refusal) if refusal.code == ErrorCode::UnsupportedVersion => {
                return Err(Failure::Refused(format!(
                    "The broker does not know the time '{}'",
                    options.time
                )));
            }
            Err(refusal) => console.complain(&format!(
                "Skip getting offsets for topic-partition {topic}-{index} due to error: {refusal}"
            )),
        }
    }
    Ok(())
}

fn time(text: &str) -> Result<i64, Failure> {
    Ok(match text {
        "latest" => -1,
        "earliest" => -2,
        "max-timestamp" => -3,
        "earliest-local" => -4,
        "latest-tiered" => -5,
        _ => text.parse().map_err(|_| {
            Failure::Refused(format!(
                "Malformed time argument {text}. Please use -1 or latest / -2 or earliest / -3 or max-timestamp / \
                 -4 or earliest-local / -5 or latest-tiered, or a specified long format timestamp"
            ))
        })?,
    })
}
