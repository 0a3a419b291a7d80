//! `sordini configs`: what `kafka-configs.sh` does for topics, brokers, loggers, groups and client metrics.
//!
//! Users, clients and IP addresses have quotas and credentials, which are other requests: they are refused by name.

mod values;

use std::path::PathBuf;

use clap::Args;
use kafka_protocol::messages::{
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
    describe_configs_request::DescribeConfigsResource,
    describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsSynonym},
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};

use super::{Connection, Failure, console::Console};
use crate::{
    client::{Client, pairs, refused},
    topic_name,
};

const SET: i8 = 0;
const DELETE: i8 = 1;

/// Where a value of a broker comes from that was set for all brokers.
const DYNAMIC_DEFAULT_BROKER: i8 = 3;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    /// A controller to ask: not spoken to by this tool
    #[arg(long, value_name = "host:port", hide = true)]
    bootstrap_controller: Option<String>,
    /// Show configurations
    #[arg(long)]
    describe: bool,
    /// Change configurations
    #[arg(long)]
    alter: bool,
    /// Of what: topics, brokers, broker-loggers, groups, client-metrics
    #[arg(long, value_name = "type")]
    entity_type: Vec<String>,
    /// Its name, or a broker's id
    #[arg(long, value_name = "name")]
    entity_name: Vec<String>,
    /// All brokers that say nothing themselves
    #[arg(long)]
    entity_default: bool,
    /// Also what nobody has set
    #[arg(long)]
    all: bool,
    /// What to set; commas in a value go between brackets
    #[arg(long, value_name = "k=v,k=[v,v],...")]
    add_config: Option<String>,
    /// A file of what to set
    #[arg(long, value_name = "file")]
    add_config_file: Option<PathBuf>,
    /// What to set back to its default
    #[arg(long, value_name = "k,k,...")]
    delete_config: Option<String>,
    /// Short for --entity-type topics --entity-name
    #[arg(long, value_name = "name")]
    topic: Option<String>,
    /// Short for --entity-type brokers --entity-name
    #[arg(long, value_name = "id")]
    broker: Option<String>,
    /// Short for --entity-type brokers --entity-default
    #[arg(long)]
    broker_defaults: bool,
    /// Short for --entity-type broker-loggers --entity-name
    #[arg(long, value_name = "id")]
    broker_logger: Option<String>,
    /// Short for --entity-type groups --entity-name
    #[arg(long, value_name = "id")]
    group: Option<String>,
    /// Short for --entity-type client-metrics --entity-name
    #[arg(long, value_name = "name")]
    client_metrics: Option<String>,
    /// Quotas and credentials: not yet
    #[arg(long, value_name = "name", hide = true)]
    user: Option<String>,
    #[arg(long, hide = true)]
    user_defaults: bool,
    #[arg(long, value_name = "id", hide = true)]
    client: Option<String>,
    #[arg(long, hide = true)]
    client_defaults: bool,
    #[arg(long, value_name = "address", hide = true)]
    ip: Option<String>,
    #[arg(long, hide = true)]
    ip_defaults: bool,
    /// Set configurations the broker does not know: it takes them as they are
    #[arg(long, hide = true)]
    force: bool,
}

/// What has configurations here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Topic,
    Broker,
    Logger,
    Group,
    ClientMetrics,
}

impl Kind {
    fn parse(plural: &str) -> Result<Kind, Failure> {
        Ok(match plural {
            "topics" => Self::Topic,
            "brokers" => Self::Broker,
            "broker-loggers" => Self::Logger,
            "groups" => Self::Group,
            "client-metrics" => Self::ClientMetrics,
            "users" | "clients" | "ips" => {
                return Err(Failure::Refused(format!(
                    "Quotas and credentials of {plural} cannot be described or changed here yet: the broker has none. \
                     Entity types that can: topics, brokers, broker-loggers, groups, client-metrics"
                )));
            }
            other => {
                return Err(Failure::Refused(format!(
                    "Invalid entity type {other}, the entity type must be one of topics, clients, users, brokers, ips, \
                     client-metrics, groups, broker-loggers with a --bootstrap-server or --bootstrap-controller argument"
                )));
            }
        })
    }

    /// The resource's number in the protocol.
    fn resource(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::Logger => 8,
            Self::ClientMetrics => 16,
            Self::Group => 32,
        }
    }

    fn singular(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Broker => "broker",
            Self::Logger => "broker-logger",
            Self::ClientMetrics => "client-metric",
            Self::Group => "group",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Topic => "topics",
            Self::Broker => "brokers",
            Self::Logger => "broker-loggers",
            Self::ClientMetrics => "client-metrics",
            Self::Group => "groups",
        }
    }

    /// The value's origin that means: set for this very resource.
    fn own_source(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::Broker => 2,
            Self::Logger => 6,
            Self::ClientMetrics => 7,
            Self::Group => 8,
        }
    }
}

/// What is described or changed. The empty name of a broker is all brokers' default.
struct Entity {
    kind: Kind,
    name: Option<String>,
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    if options.describe == options.alter {
        return Err(Failure::Usage(
            "Command must include exactly one action: --describe, --alter".to_owned(),
        ));
    }
    if options.bootstrap_controller.is_some() {
        return Err(Failure::Refused(
            "--bootstrap-controller: this tool asks brokers, with --bootstrap-server; they pass on what is the controller's"
                .to_owned(),
        ));
    }
    let entity = entity(&options)?;
    if options.connection.bootstrap_server.is_none() {
        return Err(Failure::Refused(
            "Exactly one of --bootstrap-server or --bootstrap-controller must be specified"
                .to_owned(),
        ));
    }
    if options.alter {
        let changes = changes(&options, &entity)?;
        let mut client = options.connection.open("sordini-configs", console).await?;
        alter(&entity, changes, &mut client, console).await
    } else {
        let mut client = options.connection.open("sordini-configs", console).await?;
        describe(&entity, options.all, &mut client, console).await
    }
}

fn entity(options: &Options) -> Result<Entity, Failure> {
    let users = options.user.is_some() || options.user_defaults;
    let clients = options.client.is_some() || options.client_defaults;
    let ips = options.ip.is_some() || options.ip_defaults;
    for (asked, plural) in [(users, "users"), (clients, "clients"), (ips, "ips")] {
        if asked {
            Kind::parse(plural)?;
        }
    }
    let short = [
        (Kind::Topic, &options.topic),
        (Kind::Broker, &options.broker),
        (Kind::Logger, &options.broker_logger),
        (Kind::Group, &options.group),
        (Kind::ClientMetrics, &options.client_metrics),
    ];
    let mut entities: Vec<Entity> = short
        .into_iter()
        .filter_map(|(kind, name)| {
            let name = Some(name.clone()?);
            Some(Entity { kind, name })
        })
        .collect();
    if options.broker_defaults {
        entities.push(Entity {
            kind: Kind::Broker,
            name: Some(String::new()),
        });
    }
    for (at, plural) in options.entity_type.iter().enumerate() {
        entities.push(Entity {
            kind: Kind::parse(plural)?,
            name: match options.entity_name.get(at) {
                Some(name) => Some(name.clone()),
                None => options.entity_default.then(String::new),
            },
        });
    }
    if 1 < entities.len() {
        return Err(Failure::Refused(
            "Only 'users' and 'clients' entity types may be specified together".to_owned(),
        ));
    }
    let entity = entities
        .pop()
        .ok_or_else(|| Failure::Refused("At least one entity type must be specified".to_owned()))?;
    check(&entity, options)?;
    Ok(entity)
}

fn check(entity: &Entity, options: &Options) -> Result<(), Failure> {
    let refuse = |text: String| Err(Failure::Refused(text));
    let plural = entity.kind.plural();
    if options.entity_default && entity.kind != Kind::Broker {
        let action = if options.alter {
            "--alter"
        } else {
            "--describe"
        };
        return refuse(format!(
            "--entity-default must not be specified with {action} of {plural}"
        ));
    }
    match &entity.name {
        None if options.alter => refuse(format!(
            "An entity name must be specified with --alter of {plural}"
        )),
        None if entity.kind == Kind::Logger => refuse(format!(
            "An entity name must be specified with --describe of {plural}"
        )),
        Some(name) if entity.kind == Kind::Topic => match topic_name::check(name) {
            Ok(()) => Ok(()),
            Err(why) => refuse(format!("Topic name is invalid: {why}")),
        },
        Some(name)
            if matches!(entity.kind, Kind::Broker | Kind::Logger)
                && !name.is_empty()
                && name.parse::<i32>().is_err() =>
        {
            refuse(format!(
                "The entity name for {plural} must be a valid integer broker id, but it is: {name}"
            ))
        }
        _ => Ok(()),
    }
}

/// What `--alter` is to set, and to set back.
fn changes(options: &Options, entity: &Entity) -> Result<Vec<AlterableConfig>, Failure> {
    let added = match (&options.add_config, &options.add_config_file) {
        (None, None) if options.delete_config.is_none() => {
            return Err(Failure::Refused(
                "At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter"
                    .to_owned(),
            ));
        }
        (Some(_), Some(_)) => {
            return Err(Failure::Refused(
                "Only one of --add-config or --add-config-file must be specified".to_owned(),
            ));
        }
        (None, None) => Vec::new(),
        (Some(text), None) => values::parse(text).map_err(Failure::Refused)?,
        (None, Some(file)) => pairs(file)?
            .into_iter()
            .map(|(key, value)| (key, value.trim().to_owned()))
            .collect(),
    };
    let mut changes: Vec<AlterableConfig> = added
        .into_iter()
        .map(|(key, value)| {
            AlterableConfig::default()
                .with_name(key.into())
                .with_config_operation(SET)
                .with_value(Some(value.into()))
        })
        .collect();
    let deleted = options
        .delete_config
        .iter()
        .flat_map(|keys| keys.split(','));
    for key in deleted.map(str::trim).filter(|key| !key.is_empty()) {
        if changes.iter().any(|change| *change.name == *key) {
            return Err(Failure::Refused(format!(
                "{key} of the {} is to be set and to be deleted: only one is possible",
                entity.kind.singular()
            )));
        }
        changes.push(
            AlterableConfig::default()
                .with_name(key.to_owned().into())
                .with_config_operation(DELETE)
                .with_value(None),
        );
    }
    Ok(changes)
}

async fn alter(
    entity: &Entity,
    changes: Vec<AlterableConfig>,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let name = entity.name.clone().unwrap_or_default();
    let resource = AlterConfigsResource::default()
        .with_resource_type(entity.kind.resource())
        .with_resource_name(name.clone().into())
        .with_configs(changes);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = match broker_of(entity) {
        Some(broker) => client.at(broker, 1, &request).await?,
        None => client.any(1, &request).await?,
    };
    for result in &response.responses {
        refused(result.error_code, result.error_message.as_ref())?;
    }
    if name.is_empty() {
        return console.line("Completed updating default config for brokers in the cluster.");
    }
    console.line(&format!(
        "Completed updating config for {} {name}.",
        entity.kind.singular()
    ))
}

/// A broker's own configuration is the broker's to tell and to change.
fn broker_of(entity: &Entity) -> Option<i32> {
    match entity.kind {
        Kind::Broker | Kind::Logger => entity.name.as_ref()?.parse().ok(),
        _ => None,
    }
}

async fn describe(
    entity: &Entity,
    all: bool,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let known = known(entity.kind, client).await?;
    let names = match &entity.name {
        Some(name) if name.is_empty() || known.contains(name) => vec![name.clone()],
        Some(name) => {
            return console.line(&format!(
                "The {} '{name}' doesn't exist and doesn't have dynamic config.",
                entity.kind.singular()
            ));
        }
        None => known,
    };
    for name in &names {
        let is_default = name.is_empty();
        // Kafka shows all there is to a logger, whether asked or not.
        let all = all || entity.kind == Kind::Logger;
        console.line(&match (is_default, all) {
            (true, _) => "Default configs for brokers in the cluster are:".to_owned(),
            (false, true) => format!("All configs for {} {name} are:", entity.kind.singular()),
            (false, false) => format!("Dynamic configs for {} {name} are:", entity.kind.singular()),
        })?;
        let source = match is_default {
            true => DYNAMIC_DEFAULT_BROKER,
            false => entity.kind.own_source(),
        };
        for config in configs(entity.kind, name, client).await? {
            if all && !is_default || config.config_source == source {
                let source = (!all || is_default).then_some(source);
                console.line(&line(&config, source))?;
            }
        }
    }
    Ok(())
}

/// The names of all resources of a kind, sorted; of brokers also the empty one, for what holds for all.
async fn known(kind: Kind, client: &mut Client) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = match kind {
        Kind::Topic => {
            let topics = client.metadata(None).await?.topics;
            topics
                .into_iter()
                .filter_map(|topic| topic.name)
                .map(|name| name.to_string())
                .collect()
        }
        Kind::Broker | Kind::Logger => {
            let brokers = client.brokers().await?;
            let mut names: Vec<String> = brokers.keys().map(i32::to_string).collect();
            names.push(String::new());
            return Ok(names);
        }
        Kind::Group | Kind::ClientMetrics => {
            let request =
                ListConfigResourcesRequest::default().with_resource_types(vec![kind.resource()]);
            let response = client.any(1, &request).await?;
            refused(response.error_code, None)?;
            let resources = response.config_resources.into_iter();
            resources
                .map(|resource| resource.resource_name.to_string())
                .collect()
        }
    };
    names.sort_unstable();
    Ok(names)
}

async fn configs(
    kind: Kind,
    name: &str,
    client: &mut Client,
) -> Result<Vec<DescribeConfigsResourceResult>, Failure> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind.resource())
        .with_resource_name(name.to_owned().into())
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    let broker = match kind {
        Kind::Broker | Kind::Logger => name.parse().ok(),
        _ => None,
    };
    let response = match broker {
        Some(broker) => client.at(broker, 4, &request).await?,
        None => client.any(4, &request).await?,
    };
    let mut configs = Vec::new();
    for result in response.results {
        refused(result.error_code, result.error_message.as_ref())?;
        configs.extend(result.configs);
    }
    configs.sort_unstable_by_key(|config| config.name.to_string());
    Ok(configs)
}

/// A configuration's line; `of` narrows the synonyms of a broker's default to what was set for all brokers.
fn line(config: &DescribeConfigsResourceResult, of: Option<i8>) -> String {
    let synonyms = config.synonyms.iter();
    let synonyms =
        synonyms.filter(|synonym| of != Some(DYNAMIC_DEFAULT_BROKER) || Some(synonym.source) == of);
    let synonyms: Vec<String> = synonyms
        .map(|synonym| synonym_text(synonym, config.is_sensitive))
        .collect();
    format!(
        "  {}={} sensitive={} synonyms={{{}}}",
        &*config.name,
        shown(config.value.as_deref()),
        config.is_sensitive,
        synonyms.join(", ")
    )
}

fn synonym_text(synonym: &DescribeConfigsSynonym, is_sensitive: bool) -> String {
    let source = match synonym.source {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    };
    let value = match is_sensitive {
        true => "null",
        false => shown(synonym.value.as_deref()),
    };
    format!("{source}:{}={value}", &*synonym.name)
}

fn shown(value: Option<&str>) -> &str {
    value.unwrap_or("null")
}
