//! ConsumerGroupDescribe (key 69), v0-v1: groups of the consumer protocol, with what each member has and is to have.
//!
//! - A group that is not there, or is one of the classic protocol, is answered with GROUP_ID_NOT_FOUND.
//!
//! Versions: v1 which protocol a member speaks (KIP-1099).

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId,
    consumer_group_describe_response::DescribedGroup,
};
use protocol::error::ErrorCode;

use super::{
    again::{self, Room},
    consumer_group_heartbeat::is_served,
    merge::merged,
    operations,
};
use crate::{broker::Broker, coordinator::group::request::DescribeConsumerGroups, server::Context};

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let is_served = is_served(broker);
    let mut by_partition: BTreeMap<Option<i32>, Vec<Arc<str>>> = BTreeMap::new();
    let mut described = Vec::with_capacity(req.group_ids.len());
    for group_id in &req.group_ids {
        let group_id: Arc<str> = Arc::from(&***group_id);
        if !is_served {
            described.push(refused(&group_id, ErrorCode::UnsupportedVersion));
        } else if group_id.is_empty() {
            described.push(refused(&group_id, ErrorCode::InvalidGroupId));
        } else {
            let partition = broker.groups().partition_of(&group_id);
            by_partition.entry(partition).or_default().push(group_id);
        }
    }
    let mut room = Room::default();
    for (partition, group_ids) in by_partition {
        let once = merged(group_ids.iter().cloned(), Arc::clone, |_, _| ());
        let ask = DescribeConsumerGroups(once.clone());
        let answer = match partition {
            Some(partition) => broker.groups().ask_groups(partition, ask).await,
            None => Err(ErrorCode::NotCoordinator),
        };
        let answers = answer.unwrap_or_else(|code| {
            let refused = |group_id: &Arc<str>| refused(group_id, code);
            once.iter().map(refused).collect()
        });
        let refused = |group_id: &Arc<str>| refused(group_id, again::REFUSED);
        described.extend(room.spread(&group_ids, answers, ctx.version, refused));
    }
    if req.include_authorized_operations {
        for group in described.iter_mut().filter(|group| group.error_code == 0) {
            group.authorized_operations = operations::GROUP;
        }
    }
    ConsumerGroupDescribeResponse::default().with_groups(described)
}

fn refused(group_id: &str, code: ErrorCode) -> DescribedGroup {
    DescribedGroup::default()
        .with_group_id(GroupId(group_id.to_owned().into()))
        .with_error_code(code.code())
}
