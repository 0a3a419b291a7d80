//! IncrementalAlterConfigs (key 44), v0-v1: change single configs and keep the others (KIP-339).
//!
//! - A config is set (0), taken back to its default (1), or, if it is a list, extended (2) or shortened (3).
//!   A list that is not set yet starts from what holds for it without being set.
//! - A resource is altered as a whole or not at all, and each is answered on its own.

use kafka_protocol::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    incremental_alter_configs_response::AlterConfigsResourceResponse,
};
use replication::{
    controller::config::{Operation, OperationKind},
    error::{Reason, Refusal},
};

use super::config_resource::{self, Change, TAKING_EFFECT_MAX_MS, Value};
use crate::{broker::Broker, server::Context};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let changes = req.resources.iter().map(change);
    let (accepted, outcomes) = config_resource::check(broker.node_id(), changes);
    let decided = broker
        .controller()
        .alter_configs(accepted, req.validate_only)
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
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn change(resource: &AlterConfigsResource) -> Change<'_, Vec<Operation>> {
    Change {
        kind: resource.resource_type,
        name: &resource.resource_name,
        configs: resource
            .configs
            .iter()
            .map(|config| match config.config_operation {
                DELETE => (&*config.name, Value::None),
                _ => (&*config.name, Value::Given(config.value.as_deref())),
            })
            .collect(),
        wanted: resource.configs.iter().map(operation).collect(),
    }
}

fn operation(config: &AlterableConfig) -> Result<Operation, Refusal> {
    let kind = match config.config_operation {
        SET => OperationKind::Set,
        DELETE => OperationKind::Delete,
        APPEND => OperationKind::Append,
        SUBTRACT => OperationKind::Subtract,
        // A real broker answers UNKNOWN_SERVER_ERROR, which tells the client nothing.
        other => {
            let why = format!("Unknown operation {other} for config {}", &*config.name);
            return Err(Refusal::new(Reason::InvalidRequest, why));
        }
    };
    Ok(Operation {
        name: config.name.to_string(),
        kind,
        value: config.value.as_deref().map(str::to_owned),
    })
}
