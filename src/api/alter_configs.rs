//! AlterConfigs (key 33), v0-v2: replace the configs of a resource.
//!
//! What the request does not name goes back to its default; who wants to change one config and keep the
//! others uses IncrementalAlterConfigs. A resource is altered as a whole or not at all, and each is
//! answered on its own.
//!
//! A resource that occurs twice is refused twice. (A real broker never answers such a request.)

use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse,
    alter_configs_request::{AlterConfigsResource, AlterableConfig},
    alter_configs_response::AlterConfigsResourceResponse,
};
use replication::error::{Reason, Refusal};

use super::config_resource::{self, BROKER_LOGGER, Change, TAKING_EFFECT_MAX_MS, Value};
use crate::{broker::Broker, server::Context};

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let changes = req.resources.iter().map(|resource| Change {
        kind: resource.resource_type,
        name: &resource.resource_name,
        configs: resource
            .configs
            .iter()
            .map(|config| (&*config.name, Value::Given(config.value.as_deref())))
            .collect(),
        wanted: wanted(resource),
    });
    let (accepted, outcomes) = config_resource::check(broker.node_id(), changes);
    let decided = broker
        .controller()
        .replace_configs(accepted, req.validate_only)
        .await;
    let outcomes = outcomes.decided(decided);
    broker.catch_up(ctx, TAKING_EFFECT_MAX_MS).await;
    let responses = req.resources.iter().enumerate().map(|(index, resource)| {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match outcomes.refusal(index) {
            None => response.with_error_message(None),
            Some(err) => response
                .with_error_code(err.code().code())
                .with_error_message(err.message().map(Into::into)),
        }
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

fn wanted(resource: &AlterConfigsResource) -> Result<Vec<(String, Option<String>)>, Refusal> {
    if resource.resource_type == BROKER_LOGGER {
        // Loggers can only be altered one by one. Here they are not even a resource.
        let why = format!("Unknown resource type {BROKER_LOGGER}");
        return Err(Refusal::new(Reason::InvalidRequest, why));
    }
    let value = |config: &AlterableConfig| config.value.as_deref().map(str::to_owned);
    Ok(resource
        .configs
        .iter()
        .map(|config| (config.name.to_string(), value(config)))
        .collect())
}
