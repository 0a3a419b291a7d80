//! Questions that only a group's coordinator can answer.

use std::{collections::BTreeMap, time::Duration};

use kafka_protocol::{
    messages::{
        ConsumerGroupDescribeRequest, ConsumerProtocolAssignment, DescribeGroupsRequest,
        FindCoordinatorRequest, GroupId, ListGroupsRequest, OffsetCommitRequest,
        OffsetFetchRequest, consumer_group_describe_response, describe_groups_response,
        list_groups_response::ListedGroup,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestGroup,
    },
    protocol::{Decodable, Request, StrBytes},
};
use protocol::error::ErrorCode;
use replication::peer;

use super::{Client, Error, Partition, Refusal, refused, topic_name};

/// A group as its coordinator describes it, of either protocol.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) coordinator: i32,
    pub(crate) state: String,
    pub(crate) assignor: String,
    /// The group's epoch and that of its target assignment; only the newer protocol has them.
    pub(crate) epochs: Option<(i32, i32)>,
    pub(crate) members: Vec<Member>,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) host: String,
    pub(crate) client_id: String,
    pub(crate) epoch: Option<i32>,
    pub(crate) assignment: Assignment,
    pub(crate) target: Option<Assignment>,
}

/// The partitions of each topic.
pub(crate) type Assignment = BTreeMap<String, Vec<i32>>;

/// An offset a group has committed, or is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    /// Of the last record read: a log that was cut since is noticed by it. -1: unknown.
    pub(crate) leader_epoch: i32,
}

/// Who commits: a member of the group, or with [`Committer::NOBODY`] somebody outside of it.
#[derive(Debug, Clone)]
pub(crate) struct Committer {
    pub(crate) member_id: String,
    pub(crate) generation: i32,
}

impl Committer {
    pub(crate) const NOBODY: Committer = Committer {
        member_id: String::new(),
        generation: -1,
    };
}

/// The newest OffsetCommit and OffsetFetch that name topics; later ones know them by id only.
const OFFSETS: i16 = 9;

/// From this version on an OffsetFetch asks for groups.
const GROUPED: i16 = 8;

/// From this version on a FindCoordinator names many groups; this client still asks for one at a time.
const BATCHED: i16 = 4;

impl Client {
    /// The broker that coordinates a group. It is waited for: the first question about a group makes the cluster
    /// create `__consumer_offsets`.
    pub(crate) async fn coordinator(&mut self, group: &str) -> Result<i32, Error> {
        let key: StrBytes = group.to_owned().into();
        let request = match self.version::<FindCoordinatorRequest>(BATCHED).await? {
            BATCHED => FindCoordinatorRequest::default().with_coordinator_keys(vec![key]),
            _ => FindCoordinatorRequest::default().with_key(key),
        };
        loop {
            let response = self.any(BATCHED, &request).await?;
            let (code, message, node) = match response.coordinators.first() {
                Some(found) => (
                    found.error_code,
                    found.error_message.as_ref(),
                    found.node_id,
                ),
                None => (
                    response.error_code,
                    response.error_message.as_ref(),
                    response.node_id,
                ),
            };
            match refused(code, message) {
                Ok(()) => return Ok(node.0),
                Err(refusal) if refusal.code.is_retriable() && self.pause().await => (),
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// Asks a group's coordinator, and the next one if it moves. `code` finds what is wrong in an answer; only
    /// what concerns the coordinator is asked again, the rest is the caller's.
    pub(crate) async fn in_group<R: Request>(
        &mut self,
        group: &str,
        newest: i16,
        request: &R,
        code: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response, Error> {
        let patience = self.request_timeout();
        self.in_group_for(group, newest, request, code, patience)
            .await
    }

    /// The same for a request that waits for the group's other members.
    pub(crate) async fn in_group_for<R: Request>(
        &mut self,
        group: &str,
        newest: i16,
        request: &R,
        code: impl Fn(&R::Response) -> i16,
        patience: Duration,
    ) -> Result<R::Response, Error> {
        loop {
            let node = self.coordinator(group).await?;
            let response = self.at_for(node, newest, request, patience).await?;
            let moves = matches!(
                ErrorCode::try_from_code(code(&response)),
                Some(
                    ErrorCode::NotCoordinator
                        | ErrorCode::CoordinatorNotAvailable
                        | ErrorCode::CoordinatorLoadInProgress
                )
            );
            if !moves || !self.pause().await {
                return Ok(response);
            }
        }
    }

    /// Groups in these states and of these types; empty means all. Each broker knows those it coordinates.
    pub(crate) async fn list_groups(
        &mut self,
        states: &[String],
        types: &[String],
    ) -> Result<Vec<ListedGroup>, Error> {
        let texts = |texts: &[String]| texts.iter().map(|text| text.clone().into()).collect();
        let mut groups = Vec::new();
        for broker in self.brokers().await?.into_keys() {
            let version = self.peer(broker).await?.version::<ListGroupsRequest>(5)?;
            // A filter that a broker does not know is applied here, to what it says about each group.
            let request = ListGroupsRequest::default()
                .with_states_filter(if 4 <= version {
                    texts(states)
                } else {
                    Vec::new()
                })
                .with_types_filter(if 5 <= version {
                    texts(types)
                } else {
                    Vec::new()
                });
            loop {
                let response = self.at(broker, 5, &request).await?;
                match refused(response.error_code, None) {
                    Ok(()) => {
                        groups.extend(response.groups);
                        break;
                    }
                    Err(refusal) if refusal.code.is_retriable() && self.pause().await => (),
                    Err(refusal) => return Err(refusal.into()),
                }
            }
        }
        groups.sort_by(|a, b| a.group_id.as_str().cmp(b.group_id.as_str()));
        Ok(groups)
    }

    /// A group, whichever protocol its members speak. One that does not exist is an error.
    pub(crate) async fn describe_group(&mut self, id: &str) -> Result<Group, Error> {
        let coordinator = self.coordinator(id).await?;
        let request = ConsumerGroupDescribeRequest::default()
            .with_group_ids(vec![GroupId(id.to_owned().into())]);
        let answer = self
            .in_group(id, 1, &request, |response| {
                response.groups.first().map_or(0, |group| group.error_code)
            })
            .await;
        match answer {
            Ok(response) => {
                let group = response.groups.into_iter().next().ok_or(no_answer())?;
                match refused(group.error_code, group.error_message.as_ref()) {
                    Ok(()) => return Ok(consumer_group(group, coordinator)),
                    // It may be a group of the older protocol.
                    Err(refusal) if is_another_kind(&refusal) => (),
                    Err(refusal) => return Err(refusal.into()),
                }
            }
            Err(Error::Peer(peer::Error::Unserved { .. })) => (),
            Err(err) => return Err(err),
        }
        let request =
            DescribeGroupsRequest::default().with_groups(vec![GroupId(id.to_owned().into())]);
        let response = self
            .in_group(id, 6, &request, |response| {
                response.groups.first().map_or(0, |group| group.error_code)
            })
            .await?;
        let group = response.groups.into_iter().next().ok_or(no_answer())?;
        refused(group.error_code, group.error_message.as_ref())?;
        Ok(classic_group(group, coordinator))
    }

    /// All offsets a group has committed.
    pub(crate) async fn committed(
        &mut self,
        id: &str,
    ) -> Result<BTreeMap<Partition, Committed>, Error> {
        let coordinator = self.coordinator(id).await?;
        let version = self
            .peer(coordinator)
            .await?
            .version::<OffsetFetchRequest>(OFFSETS)?;
        let group = GroupId(id.to_owned().into());
        let request = match version < GROUPED {
            true => OffsetFetchRequest::default()
                .with_group_id(group)
                .with_topics(None),
            false => OffsetFetchRequest::default().with_groups(vec![
                OffsetFetchRequestGroup::default()
                    .with_group_id(group)
                    .with_topics(None),
            ]),
        };
        let response = self
            .in_group(id, OFFSETS, &request, |response| {
                response
                    .groups
                    .first()
                    .map_or(response.error_code, |group| group.error_code)
            })
            .await?;
        let mut committed = BTreeMap::new();
        let mut found = |topic: &str, partition: i32, offset: i64, leader_epoch: i32, code: i16| {
            refused(code, None)?;
            if 0 <= offset {
                let at = (topic.to_owned(), partition);
                committed.insert(
                    at,
                    Committed {
                        offset,
                        leader_epoch,
                    },
                );
            }
            Ok::<(), Refusal>(())
        };
        refused(response.error_code, None)?;
        for topic in &response.topics {
            for p in &topic.partitions {
                let epoch = p.committed_leader_epoch;
                found(
                    &topic.name,
                    p.partition_index,
                    p.committed_offset,
                    epoch,
                    p.error_code,
                )?;
            }
        }
        for group in &response.groups {
            refused(group.error_code, None)?;
            for topic in &group.topics {
                for p in &topic.partitions {
                    let epoch = p.committed_leader_epoch;
                    found(
                        &topic.name,
                        p.partition_index,
                        p.committed_offset,
                        epoch,
                        p.error_code,
                    )?;
                }
            }
        }
        Ok(committed)
    }

    /// Commits offsets of a group.
    pub(crate) async fn commit(
        &mut self,
        id: &str,
        committer: &Committer,
        offsets: &BTreeMap<Partition, Committed>,
    ) -> Result<(), Error> {
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for ((topic, index), at) in offsets {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(*index)
                .with_committed_offset(at.offset)
                .with_committed_leader_epoch(at.leader_epoch)
                .with_committed_metadata(Some(StrBytes::from_static_str("")));
            topics.entry(topic).or_default().push(partition);
        }
        let topic = |(name, partitions): (&str, Vec<OffsetCommitRequestPartition>)| {
            OffsetCommitRequestTopic::default()
                .with_name(topic_name(name))
                .with_partitions(partitions)
        };
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(id.to_owned().into()))
            .with_generation_id_or_member_epoch(committer.generation)
            .with_member_id(committer.member_id.clone().into())
            .with_topics(topics.into_iter().map(topic).collect());
        let first_code = |response: &<OffsetCommitRequest as Request>::Response| {
            let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions
                .find_map(|p| (p.error_code != 0).then_some(p.error_code))
                .unwrap_or(0)
        };
        let response = self.in_group(id, OFFSETS, &request, first_code).await?;
        Ok(refused(first_code(&response), None)?)
    }
}

/// Does the answer only say that the group speaks the older protocol, or none yet?
fn is_another_kind(refusal: &Refusal) -> bool {
    matches!(
        refusal.code,
        ErrorCode::GroupIdNotFound | ErrorCode::UnsupportedVersion
    )
}

fn no_answer() -> Refusal {
    Refusal {
        code: ErrorCode::UnknownServerError,
        message: Some("The coordinator's answer does not mention the group.".to_owned()),
    }
}

fn consumer_group(
    group: consumer_group_describe_response::DescribedGroup,
    coordinator: i32,
) -> Group {
    let assignment = |assignment: consumer_group_describe_response::Assignment| {
        let topics = assignment.topic_partitions.into_iter();
        topics
            .map(|topic| (topic.topic_name.to_string(), topic.partitions))
            .collect()
    };
    let member = |member: consumer_group_describe_response::Member| Member {
        id: member.member_id.to_string(),
        instance_id: member.instance_id.map(|id| id.to_string()),
        host: member.client_host.to_string(),
        client_id: member.client_id.to_string(),
        epoch: Some(member.member_epoch),
        assignment: assignment(member.assignment),
        target: Some(assignment(member.target_assignment)),
    };
    Group {
        id: group.group_id.to_string(),
        coordinator,
        state: group.group_state.to_string(),
        assignor: group.assignor_name.to_string(),
        epochs: Some((group.group_epoch, group.assignment_epoch)),
        members: group.members.into_iter().map(member).collect(),
    }
}

fn classic_group(group: describe_groups_response::DescribedGroup, coordinator: i32) -> Group {
    let member = |member: describe_groups_response::DescribedGroupMember| Member {
        id: member.member_id.to_string(),
        instance_id: member.group_instance_id.map(|id| id.to_string()),
        host: member.client_host.to_string(),
        client_id: member.client_id.to_string(),
        epoch: None,
        assignment: decode_assignment(member.member_assignment),
        target: None,
    };
    Group {
        id: group.group_id.to_string(),
        coordinator,
        state: group.group_state.to_string(),
        assignor: group.protocol_data.to_string(),
        epochs: None,
        members: group.members.into_iter().map(member).collect(),
    }
}

/// What a member of a classic group was assigned, as its leader wrote it: a version, then the assignment. Nothing if
/// the group's members are not consumers.
pub(crate) fn decode_assignment(bytes: bytes::Bytes) -> Assignment {
    let mut rest = bytes;
    let Some(version) = rest.first_chunk::<2>().map(|v| i16::from_be_bytes(*v)) else {
        return Assignment::new();
    };
    bytes::Buf::advance(&mut rest, 2);
    // A later version only adds fields at the end.
    match ConsumerProtocolAssignment::decode(&mut rest, version.clamp(0, 3)) {
        Ok(assignment) => assignment
            .assigned_partitions
            .into_iter()
            .map(|topic| (topic.topic.to_string(), topic.partitions))
            .collect(),
        Err(_) => Assignment::new(),
    }
}
