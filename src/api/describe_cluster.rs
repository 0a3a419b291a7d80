//! DescribeCluster (key 60), v0-v2: the cluster's id, its brokers, and whom to ask for changes.
//!
//! - Brokers are given the address of the listener the client came in by. One without such a listener
//!   is left out: there is no way to it from where the client is.
//! - `controller_id` is a broker, this one, and not the controller: clients of brokers cannot reach the controller, and any
//!   broker passes their changes on.
//! - A controller's listener describes controllers, all others brokers. Who asks for the other has come to the wrong one.
//!
//! Versions: v1 endpoint types (KIP-919), v2 fenced brokers (KIP-1073).

use kafka_protocol::{
    messages::{
        BrokerId, DescribeClusterRequest, DescribeClusterResponse,
        describe_cluster_response::DescribeClusterBroker,
    },
    protocol::StrBytes,
};
use protocol::error::ErrorCode;
use replication::cluster::ClusterImage;

use super::operations;
use crate::{
    broker::Broker,
    server::{Context, Role},
};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) fn handle(
    broker: &Broker,
    ctx: &Context,
    req: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let response = DescribeClusterResponse::default();
    let mismatched = |here: &str, wanted: &str| {
        let message = format!(
            "The request was sent to an endpoint of type {here}, but we wanted an endpoint of type {wanted}"
        );
        Some((ErrorCode::MismatchedEndpointType, message))
    };
    let refused = match (req.endpoint_type, ctx.role) {
        (BROKERS, Role::Broker) | (CONTROLLERS, Role::Controller) => None,
        (BROKERS, Role::Controller) => mismatched("CONTROLLER", "BROKER"),
        (CONTROLLERS, Role::Broker) => mismatched("BROKER", "CONTROLLER"),
        (other, _) => Some((
            ErrorCode::UnsupportedEndpointType,
            format!("Unsupported endpoint type {other}"),
        )),
    };
    if let Some((code, message)) = refused {
        return response
            .with_error_code(code.code())
            .with_error_message(Some(message.into()))
            .with_controller_id(BrokerId(-1));
    }

    let image = broker.image();
    let brokers = match ctx.role {
        Role::Broker => brokers(&image, ctx, &req),
        Role::Controller => controllers(&image, ctx),
    };
    let response = response
        .with_endpoint_type(req.endpoint_type)
        .with_cluster_id(image.cluster_id.to_string().into())
        .with_controller_id(BrokerId(broker.node_id()))
        .with_brokers(brokers);
    if req.include_cluster_authorized_operations {
        return response.with_cluster_authorized_operations(operations::CLUSTER);
    }
    response
}

fn brokers(
    image: &ClusterImage,
    ctx: &Context,
    req: &DescribeClusterRequest,
) -> Vec<DescribeClusterBroker> {
    image
        .brokers
        .values()
        .filter(|known| req.include_fenced_brokers || !known.fenced)
        .filter_map(|known| {
            let endpoint = known
                .endpoints
                .iter()
                .find(|known| *known.name == *ctx.listener)?;
            Some(
                DescribeClusterBroker::default()
                    .with_broker_id(BrokerId(known.id))
                    .with_host(endpoint.host.clone().into())
                    .with_port(endpoint.port.into())
                    .with_rack(known.rack.clone().map(StrBytes::from))
                    .with_is_fenced(known.fenced),
            )
        })
        .collect()
}

fn controllers(image: &ClusterImage, ctx: &Context) -> Vec<DescribeClusterBroker> {
    image
        .controllers
        .values()
        .filter_map(|known| {
            let mut endpoints = known.end_points.iter();
            let endpoint = endpoints.find(|known| *known.name == *ctx.listener)?;
            Some(
                DescribeClusterBroker::default()
                    .with_broker_id(BrokerId(known.controller_id))
                    .with_host(endpoint.host.clone().into())
                    .with_port(endpoint.port.into()),
            )
        })
        .collect()
}
