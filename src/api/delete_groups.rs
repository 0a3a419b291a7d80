//! DeleteGroups (key 42), v0-v3: delete groups without members, with all that they have committed.
//!
//! - Every group is answered on its own, a group that is named twice once. The order is not the request's, as with a
//!   real broker: groups that one partition keeps go together.
//! - The empty group id is a group like others.
//!
//! Versions: v2 flexible, v3 room for an error message, in which a real broker says nothing.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, GroupId,
    delete_groups_response::DeletableGroupResult,
};
use protocol::error::ErrorCode;

use crate::{broker::Broker, coordinator::group::request::DeleteGroups};

pub(crate) async fn handle(broker: &Broker, req: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(req.groups_names.len());
    let mut seen = HashSet::new();
    let mut by_partition: BTreeMap<i32, Vec<Arc<str>>> = BTreeMap::new();
    for group_id in req.groups_names {
        if !seen.insert(group_id.clone()) {
            continue;
        }
        match broker.groups().partition_of(&group_id) {
            None => results.push(refused(&group_id, ErrorCode::NotCoordinator)),
            Some(index) => by_partition
                .entry(index)
                .or_default()
                .push(Arc::from(&**group_id)),
        }
    }
    for (index, mut group_ids) in by_partition {
        // Some at a time, and of one with many offsets some of these.
        while !group_ids.is_empty() {
            let groups = DeleteGroups(group_ids.clone());
            match broker.groups().ask_groups(index, groups).await {
                Ok(deleted) => {
                    let done: HashSet<&str> = deleted.iter().map(|it| &**it.group_id).collect();
                    group_ids.retain(|group_id| !done.contains(&**group_id));
                    results.extend(deleted);
                }
                Err(code) => {
                    let left = group_ids.drain(..);
                    results.extend(left.map(|group_id| refused(&group_id, code)));
                }
            }
        }
    }
    DeleteGroupsResponse::default().with_results(results)
}

fn refused(group_id: &str, code: ErrorCode) -> DeletableGroupResult {
    DeletableGroupResult::default()
        .with_group_id(GroupId(group_id.to_owned().into()))
        .with_error_code(code.code())
}
