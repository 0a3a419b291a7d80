//! `sordini topics`: what `kafka-topics.sh` does.

mod describe;

use std::collections::BTreeMap;

use clap::Args;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
    delete_topics_request::DeleteTopicState,
};
use protocol::error::ErrorCode;

use super::{
    Connection, Failure, console::Console, not_together, required, topic_filter::TopicFilter,
};
use crate::client::{Client, refused, topic_name};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    /// Create a topic
    #[arg(long)]
    create: bool,
    /// List topics
    #[arg(long)]
    list: bool,
    /// Describe topics
    #[arg(long)]
    describe: bool,
    /// Add partitions to a topic
    #[arg(long)]
    alter: bool,
    /// Delete topics
    #[arg(long)]
    delete: bool,
    /// A topic's name; except with --create a regular expression
    #[arg(long, value_name = "name")]
    topic: Option<String>,
    /// The id of the topic to describe
    #[arg(long, value_name = "id")]
    topic_id: Option<String>,
    /// How many partitions it is to have
    #[arg(long, value_name = "count", allow_negative_numbers = true)]
    partitions: Option<String>,
    /// How many replicas each partition is to have
    #[arg(long, value_name = "count", allow_negative_numbers = true)]
    replication_factor: Option<String>,
    /// The replicas themselves: brokers of a partition joined by ':', partitions by ','
    #[arg(long, value_name = "1:2,2:1,...")]
    replica_assignment: Option<String>,
    /// A configuration of the new topic; may be repeated
    #[arg(long, value_name = "key=value")]
    config: Vec<String>,
    /// Gone since Kafka 4.0: `sordini configs` changes configurations
    #[arg(long, value_name = "key", hide = true)]
    delete_config: Vec<String>,
    /// Do nothing about topics that do not exist
    #[arg(long)]
    if_exists: bool,
    /// Do nothing about a topic that exists already
    #[arg(long)]
    if_not_exists: bool,
    /// Only partitions with replicas that are not in sync
    #[arg(long)]
    under_replicated_partitions: bool,
    /// Only partitions without a leader
    #[arg(long)]
    unavailable_partitions: bool,
    /// Only partitions with fewer replicas in sync than min.insync.replicas
    #[arg(long)]
    under_min_isr_partitions: bool,
    /// Only partitions with as many replicas in sync as min.insync.replicas
    #[arg(long)]
    at_min_isr_partitions: bool,
    /// Only topics with configurations of their own
    #[arg(long)]
    topics_with_overrides: bool,
    /// Leave out the brokers' own topics
    #[arg(long)]
    exclude_internal: bool,
    /// How many partitions one answer of the broker may hold
    #[arg(long, value_name = "count", default_value_t = 2000)]
    partition_size_limit_per_response: i32,
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    if options.connection.bootstrap_server.is_none() {
        return Err(Failure::Usage(
            "--bootstrap-server must be specified".to_owned(),
        ));
    }
    let actions = [
        options.create,
        options.list,
        options.describe,
        options.alter,
        options.delete,
    ];
    if actions.iter().filter(|&&chosen| chosen).count() != 1 {
        return Err(Failure::Usage(
            "Command must include exactly one action: --list, --describe, --create, --alter or --delete"
                .to_owned(),
        ));
    }
    check(&options, console)?;
    let mut client = options.connection.open("sordini-topics", console).await?;
    if options.create {
        create(&options, &mut client, console).await
    } else if options.list {
        list(&options, &mut client, console).await
    } else if options.describe {
        describe::run(&options, &mut client, console).await
    } else if options.alter {
        alter(&options, &mut client).await
    } else {
        delete(&options, &mut client).await
    }
}

/// What does not go together, in Kafka's words.
fn check(options: &Options, console: &mut Console) -> Result<(), Failure> {
    if !options.delete_config.is_empty() {
        console.complain(
            "delete-config is no longer an option of this tool: `sordini configs --alter --delete-config` does it.",
        );
    }
    if options.alter && !options.config.is_empty() {
        return Err(Failure::Usage(
            "Option combination \"[[config], [bootstrap-server]]\" can't be used with option \"[alter]\" \
             (To alter topic configurations, the kafka-configs tool can be used.)"
                .to_owned(),
        ));
    }
    let needs_topic =
        (options.create || options.alter || options.delete) && options.topic.is_none();
    if needs_topic && (options.topic_id.is_none() || options.create) {
        required(options.topic.as_deref(), "topic")?;
    }
    if options.alter {
        required(options.partitions.as_deref(), "partitions")?;
    }
    let assigned = ("replica-assignment", options.replica_assignment.is_some());
    if options.create {
        not_together(("partitions", options.partitions.is_some()), assigned)?;
        not_together(
            ("replication-factor", options.replication_factor.is_some()),
            assigned,
        )?;
    }
    let narrowed = [
        (
            "under-replicated-partitions",
            options.under_replicated_partitions,
        ),
        ("under-min-isr-partitions", options.under_min_isr_partitions),
        ("at-min-isr-partitions", options.at_min_isr_partitions),
        ("unavailable-partitions", options.unavailable_partitions),
    ];
    for (at, first) in narrowed.iter().enumerate() {
        not_together(
            ("topics-with-overrides", options.topics_with_overrides),
            *first,
        )?;
        for second in &narrowed[at + 1..] {
            not_together(*first, *second)?;
        }
        let (name, chosen) = first;
        only_with((name, *chosen), ("describe", options.describe))?;
    }
    only_with(
        ("topics-with-overrides", options.topics_with_overrides),
        ("describe", options.describe),
    )?;
    only_with(
        ("if-not-exists", options.if_not_exists),
        ("create", options.create),
    )?;
    only_with(
        ("config", !options.config.is_empty()),
        ("create", options.create),
    )?;
    only_with(
        ("replication-factor", options.replication_factor.is_some()),
        ("create", options.create),
    )
}

fn only_with(option: (&str, bool), action: (&str, bool)) -> Result<(), Failure> {
    match option.1 && !action.1 {
        false => Ok(()),
        true => Err(Failure::Usage(format!(
            "Option \"[{}]\" can only be used with option \"[{}]\"",
            option.0, action.0
        ))),
    }
}

async fn create(
    options: &Options,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let name = required(options.topic.as_deref(), "topic")?;
    let partitions = number(options.partitions.as_deref(), "partitions")?;
    if partitions.is_some_and(|count| count < 1) {
        return Err(Failure::Refused(
            "The partitions must be greater than 0".to_owned(),
        ));
    }
    let factor = number(options.replication_factor.as_deref(), "replication-factor")?;
    let factor = match factor.map(i16::try_from) {
        None => None,
        Some(Ok(factor)) if 0 < factor => Some(factor),
        Some(_) => {
            return Err(Failure::Refused(
                "The replication factor must be between 1 and 32767 inclusive".to_owned(),
            ));
        }
    };
    if name.contains(['.', '_']) {
        console.line(
            "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could collide. \
             To avoid issues it is best to use either, but not both.",
        )?;
    }
    let assignments = match &options.replica_assignment {
        None => Vec::new(),
        Some(text) => replica_assignment(text)?,
    };
    let assignment = |(index, brokers): (i32, Vec<i32>)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(brokers.into_iter().map(Into::into).collect())
    };
    let configs = options.config.iter().map(|pair| config(pair));
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        // The cluster's default, or what the assignment says.
        .with_num_partitions(partitions.unwrap_or(-1))
        .with_replication_factor(factor.unwrap_or(-1))
        .with_assignments((0..).zip(assignments).map(assignment).collect())
        .with_configs(configs.collect::<Result<_, _>>()?);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(client.timeout_ms());
    let response = client.any(7, &request).await?;
    let outcome = response.topics.first().map_or(Ok(()), |topic| {
        refused(topic.error_code, topic.error_message.as_ref())
    });
    match outcome {
        Ok(()) => console.line(&format!("Created topic {name}.")),
        Err(refusal) if options.if_not_exists && refusal.code == ErrorCode::TopicAlreadyExists => {
            Ok(())
        }
        Err(refusal) => Err(refusal.into()),
    }
}

fn config(pair: &str) -> Result<CreatableTopicConfig, Failure> {
    let (key, value) = pair.split_once('=').ok_or_else(|| {
        Failure::Refused(format!(
            "Invalid topic config: all configs to be added must be in the format \"key=val\", not \"{pair}\""
        ))
    })?;
    Ok(CreatableTopicConfig::default()
        .with_name(key.trim().to_owned().into())
        .with_value(Some(value.trim().to_owned().into())))
}

/// `1:2,2:1`: partition 0 on brokers 1 and 2, partition 1 on 2 and 1.
fn replica_assignment(text: &str) -> Result<Vec<Vec<i32>>, Failure> {
    let mut partitions: Vec<Vec<i32>> = Vec::new();
    for (index, brokers) in text.split(',').enumerate() {
        let mut replicas = Vec::new();
        for broker in brokers.split(':') {
            let broker: i32 = broker.trim().parse().map_err(|_| {
                Failure::Refused(format!(
                    "'{broker}' in --replica-assignment is not a broker's id"
                ))
            })?;
            if replicas.contains(&broker) {
                return Err(Failure::Refused(format!(
                    "Partition replica lists may not contain duplicate entries: {broker}"
                )));
            }
            replicas.push(broker);
        }
        if partitions
            .first()
            .is_some_and(|first| first.len() != replicas.len())
        {
            return Err(Failure::Refused(format!(
                "Partition {index} has different replication factor: {replicas:?}"
            )));
        }
        partitions.push(replicas);
    }
    Ok(partitions)
}

async fn list(
    options: &Options,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let names = matching(options, client).await?;
    console.line(&names.join("\n"))
}

async fn alter(options: &Options, client: &mut Client) -> Result<(), Failure> {
    let names = existing(options, client).await?;
    if names.is_empty() {
        return Ok(());
    }
    let count = number(options.partitions.as_deref(), "partitions")?.unwrap_or(0);
    let assignment = match &options.replica_assignment {
        None => None,
        Some(text) => Some(replica_assignment(text)?),
    };
    let mut topics = Vec::new();
    for name in &names {
        let assignments = match &assignment {
            None => None,
            // All partitions are listed, as for a new topic; only what is new about them is sent.
            Some(all) => {
                let there = client.partitions(name).await?.len();
                let new = all.iter().skip(there).map(|brokers| {
                    let brokers = brokers.iter().map(|&broker| broker.into());
                    CreatePartitionsAssignment::default().with_broker_ids(brokers.collect())
                });
                Some(new.collect())
            }
        };
        topics.push(
            CreatePartitionsTopic::default()
                .with_name(topic_name(name))
                .with_count(count)
                .with_assignments(assignments),
        );
    }
    let request = CreatePartitionsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(client.timeout_ms());
    let response = client.any(3, &request).await?;
    for result in &response.results {
        refused(result.error_code, result.error_message.as_ref())?;
    }
    Ok(())
}

async fn delete(options: &Options, client: &mut Client) -> Result<(), Failure> {
    let names = existing(options, client).await?;
    if names.is_empty() {
        return Ok(());
    }
    let request = DeleteTopicsRequest::default().with_timeout_ms(client.timeout_ms());
    let request = match client.version::<DeleteTopicsRequest>(6).await? {
        6 => {
            let topic =
                |name: &String| DeleteTopicState::default().with_name(Some(topic_name(name)));
            request.with_topics(names.iter().map(topic).collect())
        }
        _ => request.with_topic_names(names.iter().map(|name| topic_name(name)).collect()),
    };
    let response = client.any(6, &request).await?;
    for result in &response.responses {
        refused(result.error_code, result.error_message.as_ref())?;
    }
    Ok(())
}

/// The topics that are meant, which must be there unless `--if-exists` is given.
async fn existing(options: &Options, client: &mut Client) -> Result<Vec<String>, Failure> {
    let names = matching(options, client).await?;
    if names.is_empty() && !options.if_exists {
        let topic = options.topic.as_deref().unwrap_or_default();
        return Err(Failure::Refused(format!(
            "Topic '{topic}' does not exist as expected"
        )));
    }
    Ok(names)
}

/// The names of all topics that are meant, sorted.
async fn matching(options: &Options, client: &mut Client) -> Result<Vec<String>, Failure> {
    let filter = match &options.topic {
        None => None,
        Some(pattern) => Some(TopicFilter::new(pattern, options.exclude_internal)?),
    };
    let response = client.metadata(None).await?;
    let mut names = BTreeMap::new();
    for topic in response.topics {
        let Some(name) = topic.name else { continue };
        let is_meant = match &filter {
            Some(filter) => filter.matches(&name, topic.is_internal),
            None => !(topic.is_internal && options.exclude_internal),
        };
        if is_meant {
            names.insert(name.to_string(), ());
        }
    }
    Ok(names.into_keys().collect())
}

fn number(text: Option<&str>, option: &str) -> Result<Option<i32>, Failure> {
    text.map(|text| {
        text.parse().map_err(|_| {
            Failure::Refused(format!("Cannot parse argument '{text}' of option {option}"))
        })
    })
    .transpose()
}
