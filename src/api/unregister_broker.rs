//! UnregisterBroker (key 64), v0: forget a broker that is not coming back (KIP-500).
//!
//! Its replicas stay assigned to it; what it led gets another leader where there is one.

use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::error::Error;
use crate::{broker::Broker, server::Context};

pub(crate) async fn handle(
    broker: &Broker,
    _ctx: &Context,
    req: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let outcome = broker.controller().unregister_broker(req.broker_id.0).await;
    let outcome = outcome
        .map_err(Error::from)
        .and_then(|done| done.map_err(Error::from));
    match outcome {
        Ok(()) => UnregisterBrokerResponse::default(),
        Err(err) => UnregisterBrokerResponse::default()
            .with_error_code(err.code().code())
            .with_error_message(err.message().map(Into::into)),
    }
}
