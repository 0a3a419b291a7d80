//! ListConfigResources (key 74), v0-v1: what could be asked about in DescribeConfigs (KIP-1142).
//!
//! - Topics and brokers are listed whether or not something is configured for them; groups and client
//!   metrics only if something is.
//! - No types in the request means all types. An unknown one refuses the request.
//!
//! Versions: v0 was ListClientMetricsResources and lists only those.

use std::collections::BTreeSet;

use kafka_protocol::messages::{
    ListConfigResourcesRequest, ListConfigResourcesResponse,
    list_config_resources_response::ConfigResource,
};
use protocol::error::ErrorCode;
use replication::cluster::{ClusterImage, ResourceKind};

use super::config_resource::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::{broker::Broker, server::Context};

/// First version that lists other kinds than client metrics.
const ALL_KINDS: i16 = 1;

/// In the order of a real broker's answer.
const KINDS: [i8; 5] = [GROUP, CLIENT_METRICS, BROKER_LOGGER, BROKER, TOPIC];

pub(crate) fn handle(
    broker: &Broker,
    ctx: &Context,
    req: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let asked: BTreeSet<i8> = match ctx.version {
        ..ALL_KINDS => [CLIENT_METRICS].into(),
        _ if req.resource_types.is_empty() => KINDS.into(),
        _ => req.resource_types.iter().copied().collect(),
    };
    if asked.iter().any(|kind| !KINDS.contains(kind)) {
        return ListConfigResourcesResponse::default()
            .with_error_code(ErrorCode::UnsupportedVersion.code());
    }
    let image = broker.image();
    let resources = KINDS
        .iter()
        .filter(|kind| asked.contains(*kind))
        .flat_map(|&kind| {
            names(&image, kind).into_iter().map(move |name| {
                ConfigResource::default()
                    .with_resource_type(kind)
                    .with_resource_name(name.into())
            })
        });
    ListConfigResourcesResponse::default().with_config_resources(resources.collect())
}

fn names(image: &ClusterImage, kind: i8) -> Vec<String> {
    let configured = |kind: ResourceKind| {
        let resources = image.configs().map(|(resource, _)| resource);
        let resources = resources.filter(move |resource| resource.kind == kind);
        resources.map(|resource| resource.name.clone()).collect()
    };
    let mut names: Vec<String> = match kind {
        TOPIC => image.topics().map(|topic| topic.name.to_string()).collect(),
        BROKER | BROKER_LOGGER => image.brokers.keys().map(i32::to_string).collect(),
        CLIENT_METRICS => configured(ResourceKind::ClientMetrics),
        _ => configured(ResourceKind::Group),
    };
    names.sort();
    names
}
