//! DescribeGroups (key 15), v0-v6: groups of the classic protocol, with their members.
//!
//! - A group that is not there is in state `Dead`; so is one of another protocol, which has a request of its own.
//! - The group with the empty name, which only has offsets, is described too.
//!
//! Versions: v3 authorized operations (KIP-430), v4 static members (KIP-345), v6 GROUP_ID_NOT_FOUND (KIP-1043).

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    describe_groups_response::DescribedGroup,
};
use protocol::error::ErrorCode;

use super::{
    again::{self, Room},
    merge::merged,
    operations,
};
use crate::{broker::Broker, coordinator::group::request::DescribeGroups, server::Context};

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut by_partition: BTreeMap<Option<i32>, Vec<Arc<str>>> = BTreeMap::new();
    for group_id in &req.groups {
        let partition = broker.groups().partition_of(group_id);
        let group_ids = by_partition.entry(partition).or_default();
        group_ids.push(Arc::from(&***group_id));
    }
    let mut described = Vec::with_capacity(req.groups.len());
    let mut room = Room::default();
    for (partition, group_ids) in by_partition {
        let once = merged(group_ids.iter().cloned(), Arc::clone, |_, _| ());
        let answers = describe(broker, ctx, partition, once).await;
        let refused = |group_id: &Arc<str>| refused(group_id, again::REFUSED);
        described.extend(room.spread(&group_ids, answers, ctx.version, refused));
    }
    if req.include_authorized_operations {
        for group in described.iter_mut().filter(|group| group.error_code == 0) {
            group.authorized_operations = operations::GROUP;
        }
    }
    DescribeGroupsResponse::default().with_groups(described)
}

async fn describe(
    broker: &Broker,
    ctx: &Context,
    partition: Option<i32>,
    group_ids: Vec<Arc<str>>,
) -> Vec<DescribedGroup> {
    let ask = DescribeGroups {
        group_ids: group_ids.clone(),
        version: ctx.version,
    };
    let answer = match partition {
        Some(partition) => broker.groups().ask_groups(partition, ask).await,
        None => Err(ErrorCode::NotCoordinator),
    };
    answer.unwrap_or_else(|code| {
        let refused = |group_id| refused(group_id, code);
        group_ids.iter().map(refused).collect()
    })
}

fn refused(group_id: &Arc<str>, code: ErrorCode) -> DescribedGroup {
    DescribedGroup::default()
        .with_group_id(GroupId((**group_id).to_owned().into()))
        .with_error_code(code.code())
}
