//! What members are refused for, in Kafka's words.

use kafka_protocol::messages::ConsumerGroupHeartbeatRequest;
use protocol::error::ErrorCode;

use super::{
    heartbeat::UNCHANGED,
    member::{AWAY, Current, LEFT, owns_all},
};
use crate::{
    config::Groups,
    coordinator::group::assignor::{Assignor, Partitions},
};

/// Why a request is refused, as the response says it.
#[derive(Debug, PartialEq)]
pub(in super::super) struct Refusal {
    pub(in super::super) code: ErrorCode,
    pub(in super::super) message: String,
}

pub(super) fn refusal(code: ErrorCode, message: impl Into<String>) -> Refusal {
    Refusal {
        code,
        message: message.into(),
    }
}

/// What a request can be refused for that stands in it alone.
pub(super) fn validate(
    request: &ConsumerGroupHeartbeatRequest,
    version: i16,
    config: &Groups,
) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(refusal(ErrorCode::InvalidRequest, message));
    let is_blank = |text: Option<&str>| text.is_some_and(|text| text.trim().is_empty());
    let no_member_id = is_blank(Some(&request.member_id));
    if is_blank(Some(&request.group_id)) {
        return invalid("GroupId can't be empty.");
    }
    if is_blank(request.instance_id.as_deref()) {
        return invalid("InstanceId can't be empty.");
    }
    if is_blank(request.rack_id.as_deref()) {
        return invalid("RackId can't be empty.");
    }
    // In version 0 the broker gives members their ids.
    if no_member_id && !(version == 0 && request.member_epoch == 0) {
        return invalid("MemberId can't be empty.");
    }
    match request.member_epoch {
        0 => {
            if request.rebalance_timeout_ms == UNCHANGED {
                return invalid("RebalanceTimeoutMs must be provided in first request.");
            }
            if request
                .topic_partitions
                .as_ref()
                .is_none_or(|it| !it.is_empty())
            {
                return invalid("TopicPartitions must be empty when (re-)joining.");
            }
            if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none()
            {
                return invalid(
                    "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
                );
            }
        }
        AWAY if request.instance_id.is_none() => return invalid("InstanceId can't be null."),
        AWAY | LEFT | 1.. => (),
        _ => return invalid("MemberEpoch is invalid."),
    }
    if let Some(name) = request.server_assignor.as_deref() {
        let supported = &config.consumer_assignors;
        let is_known = supported.iter().any(|it| *it == *name);
        if !is_known || Assignor::named(name).is_none() {
            let supported = supported.join(", ");
            return Err(refusal(
                ErrorCode::UnsupportedAssignor,
                format!(
                    "ServerAssignor {name} is not supported. Supported assignors: {supported}."
                ),
            ));
        }
    }
    Ok(())
}

/// An answer may have been lost: who says its former epoch, and has nothing but what is its own, goes on. Who joins
/// again under its id does so too.
pub(super) fn check_epoch(
    current: &Current,
    epoch: i32,
    owned: Option<&Partitions>,
) -> Result<(), Refusal> {
    let known = current.epoch;
    let is_retry = epoch == 0
        || (epoch == current.previous_epoch
            && owned.is_some_and(|owned| owns_all(&current.assigned, owned)));
    let differs = match epoch.cmp(&known) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Less if is_retry => return Ok(()),
        std::cmp::Ordering::Less => "smaller",
        std::cmp::Ordering::Greater => "greater",
    };
    Err(refusal(
        ErrorCode::FencedMemberEpoch,
        format!(
            "The consumer group member has a {differs} member epoch ({epoch}) than the one known by the group \
             coordinator ({known}). The member must abandon all its partitions and rejoin."
        ),
    ))
}

/// The instance id has to be this member's.
pub(super) fn check_instance(
    owner: &str,
    member_id: &str,
    instance_id: &str,
) -> Result<(), Refusal> {
    if owner == member_id {
        return Ok(());
    }
    Err(refusal(
        ErrorCode::FencedInstanceId,
        format!(
            "Static member {member_id} with instance id {instance_id} was fenced by member {owner}."
        ),
    ))
}

pub(super) fn unknown_instance(instance_id: &str) -> Refusal {
    refusal(
        ErrorCode::UnknownMemberId,
        format!("Instance id {instance_id} is unknown."),
    )
}

pub(super) fn unknown_member(group_id: &str, member_id: &str) -> Refusal {
    refusal(
        ErrorCode::UnknownMemberId,
        format!("Member {member_id} is not a member of group {group_id}."),
    )
}

pub(super) fn not_found(group_id: &str) -> Refusal {
    refusal(
        ErrorCode::GroupIdNotFound,
        format!("Group {group_id} not found."),
    )
}

pub(super) fn not_a_consumer_group(group_id: &str) -> Refusal {
    refusal(
        ErrorCode::GroupIdNotFound,
        format!("Group {group_id} is not a consumer group."),
    )
}
