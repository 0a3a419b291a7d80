//! ListGroups (key 16), v0-v5: the groups that this broker coordinates, of whatever protocol.
//!
//! - While a partition of groups is being loaded the answer is COORDINATOR_LOAD_IN_PROGRESS and no group: a list with
//!   a part missing would look whole.
//!
//! Versions: v4 states (KIP-518), v5 types (KIP-848).

use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse};
use protocol::error::ErrorCode;

use crate::{broker::Broker, coordinator::group::request::ListFilter, server::Context};

pub(crate) async fn handle(
    broker: &Broker,
    _ctx: &Context,
    req: ListGroupsRequest,
) -> ListGroupsResponse {
    let filter = ListFilter::new(
        req.states_filter.iter().map(|state| &**state),
        req.types_filter.iter().map(|kind| &**kind),
    );
    let mut groups = Vec::new();
    for partition in broker.groups().coordinated() {
        match broker.groups().ask_groups(partition, filter.clone()).await {
            Ok(listed) => groups.extend(listed),
            // Another broker has come to lead it just now, and lists its groups.
            Err(ErrorCode::NotCoordinator) => (),
            Err(code) => return ListGroupsResponse::default().with_error_code(code.code()),
        }
    }
    ListGroupsResponse::default().with_groups(groups)
}
