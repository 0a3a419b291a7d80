//! DescribeCluster (key 60), v0-v2: the cluster's id, its brokers, and whom to ask for changes.
//!
//! - Brokers are given the address of the listener the client came in by. One without such a listener
//!   is left out: there is no way to it from where the client is.
//! - `controller_id` is a broker, this one, and not the controller: clients of a KRaft cluster cannot reach
//!   the controller, and any broker passes their changes on.
//! - Brokers are what is described. Who asks for controllers has come to the wrong listener.
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

use super::operations;
use crate::{broker::Broker, server::Context};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) fn handle(
    broker: &Broker,
    ctx: &Context,
    req: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let response = DescribeClusterResponse::default();
    let refused = match req.endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some((
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type \
             CONTROLLER"
                .to_owned(),
        )),
        other => Some((
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
    let brokers = image
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
        .collect();
    let response = response
        .with_cluster_id(image.cluster_id.to_string().into())
        .with_controller_id(BrokerId(broker.node_id()))
        .with_brokers(brokers);
    if req.include_cluster_authorized_operations {
        return response.with_cluster_authorized_operations(operations::CLUSTER);
    }
    response
}
