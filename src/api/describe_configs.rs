//! DescribeConfigs (key 32), v1-v4: what is configured for topics, brokers, groups and client metrics,
//! and where each value comes from.
//!
//! - No keys in the request (null or none) means all keys; one that does not exist is not mentioned.
//! - A broker describes itself, and what is set for all brokers (the empty name), but no other broker.
//! - A topic must exist. A group or a subscription to client metrics need not: it has its defaults.
//! - What is named twice is answered twice, until that comes to a few megabytes.
//! - The logger has one name, and a level that is set by `RUST_LOG` when the broker starts.
//!
//! Versions: v3 types and documentation (KIP-569), v4 flexible.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use kafka_protocol::{
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{
            DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
        },
    },
    protocol::StrBytes,
};
use replication::{
    cluster::{ClusterImage, ResourceKind},
    controller::topics,
    error::{Reason, Refusal},
};
use tracing::level_filters::LevelFilter;

use super::{
    again::{self, Room},
    config_resource::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, ROOT_LOGGER, TOPIC},
    error::Error,
};
use crate::{
    broker::Broker,
    config::{Config, Entry, Kind},
    server::Context,
};

/// Where the level of a logger comes from, as the wire says it.
const DYNAMIC_BROKER_LOGGER: i8 = 6;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let (image, config) = (broker.image(), Arc::clone(&broker.config()));
    let (mut named, mut room) = (HashSet::new(), Room::default());
    let mut results = Vec::with_capacity(req.resources.len());
    for resource in &req.resources {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            // "No error" is an empty text here, not a missing one.
            .with_error_message(Some(StrBytes::new()));
        let is_new = is_known(&image, resource) && named.insert(identity(resource));
        if !is_new && !room.is_left() {
            let why = "Too many resources that are named twice or have no configs of their own";
            results.push(
                result
                    .with_error_code(again::REFUSED.code())
                    .with_error_message(Some(StrBytes::from_static_str(why))),
            );
            continue;
        }
        results.push(
            match describe(broker.node_id(), &image, &config, resource) {
                Ok(configs) => {
                    let mut result = result.with_configs(configs);
                    if !is_new {
                        // Of everything, as everything has been made.
                        room.take(&result, ctx.version);
                    }
                    narrow(&mut result.configs, resource, &req);
                    result
                }
                Err(err) => {
                    let message = match err {
                        Error::UnknownResourceType => err.explained(),
                        _ => err.message(),
                    };
                    result
                        .with_error_code(err.code().code())
                        .with_error_message(Some(message.unwrap_or_default().into()))
                }
            },
        );
        // A resource takes up to some milliseconds, and all topics of a cluster may be asked for.
        tokio::task::yield_now().await;
    }
    DescribeConfigsResponse::default().with_results(results)
}

/// Leaves what was asked for.
fn narrow(
    configs: &mut Vec<DescribeConfigsResourceResult>,
    resource: &DescribeConfigsResource,
    req: &DescribeConfigsRequest,
) {
    let asked = resource.configuration_keys.as_deref().unwrap_or_default();
    if !asked.is_empty() {
        configs.retain(|config| asked.contains(&config.name));
    }
    for config in configs {
        if !req.include_synonyms {
            config.synonyms.clear();
        }
        if !req.include_documentation {
            config.documentation = None;
        }
    }
}

/// Whether it is one of those that the cluster has. Groups and subscriptions are described without being there, and of
/// such names there is no end.
fn is_known(image: &ClusterImage, resource: &DescribeConfigsResource) -> bool {
    let has_configs = |kind| image.config(kind, &resource.resource_name).is_some();
    match resource.resource_type {
        GROUP => has_configs(ResourceKind::Group),
        CLIENT_METRICS => has_configs(ResourceKind::ClientMetrics),
        _ => true,
    }
}

/// A broker goes by many names: 1, +1, 01.
fn identity(resource: &DescribeConfigsResource) -> (i8, StrBytes) {
    let name = &resource.resource_name;
    let name = match (resource.resource_type, name.parse::<i32>()) {
        (BROKER | BROKER_LOGGER, Ok(id)) => id.to_string().into(),
        _ => name.clone(),
    };
    (resource.resource_type, name)
}

fn describe(
    node_id: i32,
    image: &ClusterImage,
    config: &Config,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, Error> {
    let name = &*resource.resource_name;
    let none = BTreeMap::new();
    let overrides = |kind| image.config(kind, name).map_or(&none, |configs| &**configs);
    let entries = match resource.resource_type {
        TOPIC => {
            if let Some(why) = topics::why_invalid(name) {
                let why = format!("Topic name is invalid: {why}");
                return Err(Refusal::new(Reason::InvalidTopic, why).into());
            }
            image.topic(name).ok_or(Error::UnknownTopicOrPartition)?;
            config.describe_topic(overrides(ResourceKind::Topic))
        }
        BROKER if name.is_empty() => config.describe_broker_defaults(),
        BROKER => {
            check_is_this_broker(node_id, name, &format!("{node_id} or empty string,"))?;
            config.describe_broker()
        }
        BROKER_LOGGER if name.is_empty() => return Err(invalid("Broker id must not be empty")),
        BROKER_LOGGER => {
            check_is_this_broker(node_id, name, &node_id.to_string())?;
            return Ok(vec![root_logger()]);
        }
        CLIENT_METRICS if name.is_empty() => {
            return Err(invalid(
                "Client metrics subscription name must not be empty",
            ));
        }
        CLIENT_METRICS => config.describe_client_metrics(overrides(ResourceKind::ClientMetrics)),
        GROUP if name.is_empty() => return Err(invalid("Group name must not be empty")),
        GROUP => config.describe_group(overrides(ResourceKind::Group)),
        _ => return Err(Error::UnknownResourceType),
    };
    Ok(entries.into_iter().map(result).collect())
}

fn check_is_this_broker(node_id: i32, name: &str, expected: &str) -> Result<(), Error> {
    match name.parse::<i32>() {
        Ok(id) if id == node_id => Ok(()),
        Ok(id) => Err(invalid(&format!(
            "Unexpected broker id, expected {expected} but received {id}"
        ))),
        Err(_) => Err(invalid(&format!(
            "Broker id must be an integer, but it is: {name}"
        ))),
    }
}

fn invalid(why: &str) -> Error {
    Refusal::new(Reason::InvalidRequest, why).into()
}

fn result(entry: Entry) -> DescribeConfigsResourceResult {
    let synonyms = entry.synonyms.into_iter().map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(synonym.name.into())
            .with_value(synonym.value.map(StrBytes::from))
            .with_source(synonym.source.code())
    });
    DescribeConfigsResourceResult::default()
        .with_name(entry.name.into())
        .with_value(entry.value.map(StrBytes::from))
        .with_read_only(entry.is_read_only)
        .with_config_source(entry.source.code())
        .with_is_sensitive(entry.is_sensitive)
        .with_synonyms(synonyms.collect())
        .with_config_type(entry.kind.map_or(0, Kind::code))
        .with_documentation(Some(entry.documentation.into()))
}

fn root_logger() -> DescribeConfigsResourceResult {
    let level = LevelFilter::current().to_string().to_ascii_uppercase();
    DescribeConfigsResourceResult::default()
        .with_name(ROOT_LOGGER.into())
        .with_value(Some(level.into()))
        .with_read_only(true)
        .with_config_source(DYNAMIC_BROKER_LOGGER)
        .with_documentation(Some(StrBytes::new()))
}
