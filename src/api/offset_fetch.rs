//! OffsetFetch (key 9), v1-v10: up to where groups have read.
//!
//! - Groups are asked for one by one, and answered in the order of the request.
//! - A group that cannot be answered for has its code: since v8 its own, before that one for the whole answer, and in
//!   v1, which has no place for it, with every partition.
//! - Whether a topic exists is not asked, but for its name where only an id was given.
//!
//! Versions: v2 all topics of a group, v5 leader epoch, v7 stable offsets (KIP-447), v8 many groups (KIP-709), v9 member
//! epochs (KIP-848), v10 topic ids instead of names (KIP-848).

use std::collections::HashSet;

use kafka_protocol::{
    messages::{
        GroupId, OffsetFetchRequest, OffsetFetchResponse,
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
    protocol::StrBytes,
};
use protocol::error::ErrorCode;

use super::again::{self, Room};
use crate::{broker::Broker, coordinator::group::request::FetchOffsets, server::Context};

/// First version whose answer has a code for itself.
const OWN_CODE: i16 = 2;
/// First version that asks for many groups.
const MANY: i16 = 8;
/// First version that names topics by their ids.
const TOPIC_IDS: i16 = 10;

/// What a partition takes in an answer beside what was committed with its offset, and a little more.
const PARTITION_SIZE: usize = 64;

/// What a request has named so far.
#[derive(Default)]
struct Named {
    groups: HashSet<GroupId>,
    room: Room,
}

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let require_stable = req.require_stable;
    if ctx.version < MANY {
        let group = single(req);
        let asked = group.topics.clone().unwrap_or_default();
        let answer = fetch(broker, ctx, group, require_stable, &mut Named::default()).await;
        return as_single(ctx.version, answer, asked);
    }
    let mut groups = Vec::with_capacity(req.groups.len());
    let mut named = Named::default();
    for group in req.groups {
        groups.push(fetch(broker, ctx, group, require_stable, &mut named).await);
    }
    OffsetFetchResponse::default().with_groups(groups)
}

/// A request of the versions before 8 in the form of those since.
fn single(req: OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topics = req.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic.name)
                .with_partition_indexes(topic.partition_indexes)
        });
        topics.collect()
    });
    OffsetFetchRequestGroup::default()
        .with_group_id(req.group_id)
        .with_member_id(None)
        .with_member_epoch(-1)
        .with_topics(topics)
}

/// And back again. `asked` is what v1 has to repeat when there is nothing but a code.
fn as_single(
    version: i16,
    group: OffsetFetchResponseGroup,
    asked: Vec<OffsetFetchRequestTopics>,
) -> OffsetFetchResponse {
    let topics = if group.error_code != 0 && version < OWN_CODE {
        let refused = |topic| refused(topic, group.error_code);
        asked.iter().map(refused).collect()
    } else {
        group.topics
    };
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_committed_offset(partition.committed_offset)
                .with_committed_leader_epoch(partition.committed_leader_epoch)
                .with_metadata(partition.metadata)
                .with_error_code(partition.error_code)
        });
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default()
        .with_topics(topics.collect())
        .with_error_code(group.error_code)
}

async fn fetch(
    broker: &Broker,
    ctx: &Context,
    mut group: OffsetFetchRequestGroup,
    require_stable: bool,
    named: &mut Named,
) -> OffsetFetchResponseGroup {
    let mut nameless = Vec::new();
    if ctx.version >= TOPIC_IDS {
        let image = broker.image();
        if let Some(topics) = &mut group.topics {
            let asked = std::mem::take(topics);
            for topic in asked {
                match image.topic_by_id(topic.topic_id) {
                    Some(known) => topics.push(
                        topic.with_name(StrBytes::from_string(known.name.to_string()).into()),
                    ),
                    None => nameless.push(refused(&topic, ErrorCode::UnknownTopicId.code())),
                }
            }
        }
    }
    let group_id = group.group_id.clone();
    let is_new = named.groups.insert(group_id.clone());
    let asks_for_all = group.topics.is_none();
    if asks_for_all && !is_new && !named.room.is_left() {
        return OffsetFetchResponseGroup::default()
            .with_group_id(group_id)
            .with_error_code(again::REFUSED.code());
    }
    // What has been committed with an offset is answered with it.
    let size_max = broker.config().groups.offset_metadata_max_bytes + PARTITION_SIZE;
    let refused_again = match &mut group.topics {
        Some(topics) => too_often(topics, is_new, size_max, &mut named.room),
        None => Vec::new(),
    };
    let fetch = FetchOffsets {
        group,
        require_stable,
    };
    match broker.groups().ask_group(&group_id, fetch).await {
        Ok(mut answer) => {
            if ctx.version >= TOPIC_IDS {
                // Of a topic that is gone only the name is known, and that is not asked for.
                answer.topics.retain(|topic| !topic.topic_id.is_nil());
            }
            answer.topics.extend(nameless);
            answer.topics.extend(refused_again);
            if asks_for_all && !is_new {
                named.room.take(&answer, ctx.version.max(MANY));
            }
            answer
        }
        Err(code) => OffsetFetchResponseGroup::default()
            .with_group_id(group_id)
            .with_error_code(code_of(code).code()),
    }
}

/// Takes out the partitions that are named again and for which there is no more room, and answers them.
fn too_often(
    topics: &mut Vec<OffsetFetchRequestTopics>,
    is_new: bool,
    size_max: usize,
    room: &mut Room,
) -> Vec<OffsetFetchResponseTopics> {
    let mut named = HashSet::new();
    let mut answers = Vec::new();
    topics.retain_mut(|topic| {
        let mut unheard = Vec::new();
        topic.partition_indexes.retain(|&index| {
            let is_new = is_new && named.insert((topic.name.clone(), index));
            let is_heard = is_new || room.take_bytes(size_max);
            if !is_heard {
                unheard.push(index);
            }
            is_heard
        });
        if unheard.is_empty() {
            return true;
        }
        let rest = OffsetFetchRequestTopics::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_partition_indexes(unheard);
        answers.push(refused(&rest, again::REFUSED.code()));
        !topic.partition_indexes.is_empty()
    });
    answers
}

/// Consumers before 3.9 do not know what to do about COORDINATOR_NOT_AVAILABLE here; the other code has them look for
/// the coordinator again.
fn code_of(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::CoordinatorNotAvailable => ErrorCode::NotCoordinator,
        other => other,
    }
}

/// The same code for every partition of a topic.
fn refused(topic: &OffsetFetchRequestTopics, code: i16) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter().map(|&index| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(StrBytes::default()))
            .with_error_code(code)
    });
    OffsetFetchResponseTopics::default()
        .with_name(topic.name.clone())
        .with_topic_id(topic.topic_id)
        .with_partitions(partitions.collect())
}
