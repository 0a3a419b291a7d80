//! A member of a consumer group, of the classic protocol.
//!
//! The member asks the coordinator to join and waits until all others have; one of them, the leader, says who reads what,
//! which may be this one. From then on it says regularly that it is alive, and learns so that the group rebalances.

use std::{collections::BTreeMap, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ConsumerProtocolAssignment, ConsumerProtocolSubscription, GroupId, HeartbeatRequest,
        JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
        consumer_protocol_assignment::TopicPartition, join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity, sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use protocol::error::ErrorCode;
use tokio::time::Instant;

use super::assignor::{self, Member};
use crate::client::{
    Assignment, Client, Committed, Committer, Error, Partition, Refusal, decode_assignment,
    refused, topic_name,
};

const SESSION_TIMEOUT_MS: i32 = 45_000;
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// How long the others may take to join; this member waits a little longer for the answer.
const REBALANCE_TIMEOUT_MS: i32 = 300_000;
const REBALANCE_PATIENCE: Duration = Duration::from_secs(310);

/// The assignor that all of Kafka's Java clients offer.
const ASSIGNOR: StrBytes = StrBytes::from_static_str("range");
const PROTOCOL_TYPE: StrBytes = StrBytes::from_static_str("consumer");

/// The version of subscriptions and assignments that is written: the first says all there is to say here.
const EMBEDDED: i16 = 0;

#[derive(Debug)]
pub(super) struct Membership {
    group: String,
    member_id: StrBytes,
    generation: i32,
    heard_at: Instant,
    committed_at: Instant,
    committed: BTreeMap<Partition, Committed>,
    /// The coordinator does not know this member any more, or not in this generation.
    is_lost: bool,
}

impl Membership {
    pub(super) fn new(group: String) -> Membership {
        Membership {
            group,
            member_id: StrBytes::from_static_str(""),
            generation: -1,
            heard_at: Instant::now(),
            committed_at: Instant::now(),
            committed: BTreeMap::new(),
            is_lost: false,
        }
    }

    pub(super) fn group(&self) -> &str {
        &self.group
    }

    fn group_id(&self) -> GroupId {
        GroupId(self.group.clone().into())
    }

    /// Joins the group, or joins it again, until it has settled; what this member is to read then.
    pub(super) async fn join(
        &mut self,
        topics: &[String],
        client: &mut Client,
    ) -> Result<Vec<Partition>, Error> {
        loop {
            let joined = self.join_once(topics, client).await?;
            let joined = match refused(joined.error_code, None) {
                Ok(()) => joined,
                Err(refusal) => {
                    self.start_over(&joined, refusal)?;
                    continue;
                }
            };
            self.member_id = joined.member_id.clone();
            self.generation = joined.generation_id;
            let assignments = match joined.leader == joined.member_id {
                true => assign(&joined, client).await?,
                false => Vec::new(),
            };
            let request = SyncGroupRequest::default()
                .with_group_id(self.group_id())
                .with_generation_id(self.generation)
                .with_member_id(self.member_id.clone())
                .with_protocol_type(Some(PROTOCOL_TYPE))
                .with_protocol_name(joined.protocol_name.clone())
                .with_assignments(assignments);
            let synced = client
                .in_group_for(
                    &self.group,
                    5,
                    &request,
                    |synced| synced.error_code,
                    REBALANCE_PATIENCE,
                )
                .await?;
            match refused(synced.error_code, None) {
                Ok(()) => {
                    self.is_lost = false;
                    self.heard_at = Instant::now();
                    self.committed_at = Instant::now();
                    self.committed.clear();
                    return Ok(partitions(&decode_assignment(synced.assignment)));
                }
                Err(refusal) => self.start_over(&joined, refusal)?,
            }
        }
    }

    async fn join_once(
        &self,
        topics: &[String],
        client: &mut Client,
    ) -> Result<JoinGroupResponse, Error> {
        let subscription = ConsumerProtocolSubscription::default()
            .with_topics(topics.iter().map(|topic| topic.clone().into()).collect());
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(ASSIGNOR)
            .with_metadata(embedded(&subscription)?);
        let request = JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_session_timeout_ms(SESSION_TIMEOUT_MS)
            .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
            .with_member_id(self.member_id.clone())
            .with_protocol_type(PROTOCOL_TYPE)
            .with_protocols(vec![protocol]);
        client
            .in_group_for(
                &self.group,
                9,
                &request,
                |joined| joined.error_code,
                REBALANCE_PATIENCE,
            )
            .await
    }

    /// What to do about a refusal to join: join anew where that is the remedy.
    fn start_over(&mut self, joined: &JoinGroupResponse, refusal: Refusal) -> Result<(), Error> {
        match refusal.code {
            // The coordinator gives an id first, so that a member whose answer is lost does not join twice.
            ErrorCode::MemberIdRequired => self.member_id = joined.member_id.clone(),
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => {
                self.member_id = StrBytes::from_static_str("");
                self.generation = -1;
            }
            ErrorCode::RebalanceInProgress => (),
            _ => return Err(refusal.into()),
        }
        Ok(())
    }

    /// Says that this member is alive, if it is time to. `true`: the group rebalances, and it must join again.
    pub(super) async fn heartbeat(&mut self, client: &mut Client) -> Result<bool, Error> {
        if self.is_lost {
            return Ok(true);
        }
        if self.heard_at.elapsed() < HEARTBEAT_INTERVAL {
            return Ok(false);
        }
        self.heard_at = Instant::now();
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.member_id.clone());
        let answer = client
            .in_group(&self.group, 4, &request, |answer| answer.error_code)
            .await?;
        match refused(answer.error_code, None) {
            Ok(()) => Ok(false),
            Err(refusal) => self.judge(refusal).map(|()| true),
        }
    }

    pub(super) fn commit_is_due(&self) -> bool {
        COMMIT_INTERVAL <= self.committed_at.elapsed()
    }

    /// Commits what has been read since the last time.
    pub(super) async fn commit(
        &mut self,
        consumed: &BTreeMap<Partition, Committed>,
        client: &mut Client,
    ) -> Result<(), Error> {
        self.committed_at = Instant::now();
        if *consumed == self.committed || self.is_lost || self.generation < 0 {
            return Ok(());
        }
        let committer = Committer {
            member_id: self.member_id.to_string(),
            generation: self.generation,
        };
        match client.commit(&self.group, &committer, consumed).await {
            Ok(()) => {
                self.committed.clone_from(consumed);
                Ok(())
            }
            Err(Error::Refused(refusal)) => self.judge(refusal),
            Err(err) => Err(err),
        }
    }

    /// Joining did not come to its end: who is to read what is open, and so it must join again.
    pub(super) fn lose(&mut self) {
        self.is_lost = true;
    }

    /// A refusal that joining again puts right is remembered; others are errors.
    fn judge(&mut self, refusal: Refusal) -> Result<(), Error> {
        match refusal.code {
            ErrorCode::RebalanceInProgress => (),
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => {
                self.is_lost = true;
                if refusal.code == ErrorCode::UnknownMemberId {
                    self.member_id = StrBytes::from_static_str("");
                }
            }
            _ => return Err(refusal.into()),
        }
        Ok(())
    }

    /// Leaves, so that the others need not wait until this member's session is over.
    pub(super) async fn leave(&mut self, client: &mut Client) -> Result<(), Error> {
        if self.generation < 0 || self.member_id.is_empty() {
            return Ok(());
        }
        let coordinator = client.coordinator(&self.group).await?;
        let version = client
            .peer(coordinator)
            .await?
            .version::<LeaveGroupRequest>(5)?;
        let request = LeaveGroupRequest::default().with_group_id(self.group_id());
        let request = match version < 3 {
            true => request.with_member_id(self.member_id.clone()),
            false => request.with_members(vec![
                MemberIdentity::default().with_member_id(self.member_id.clone()),
            ]),
        };
        // Whatever the answer: the session ends by itself.
        client.at(coordinator, 5, &request).await?;
        self.generation = -1;
        Ok(())
    }
}

/// What each member reads, decided by this one as the leader.
async fn assign(
    joined: &JoinGroupResponse,
    client: &mut Client,
) -> Result<Vec<SyncGroupRequestAssignment>, Error> {
    let mut members = Vec::new();
    for member in &joined.members {
        members.push(Member {
            id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(|id| id.to_string()),
            topics: subscribed(member.metadata.clone()),
        });
    }
    let mut topics: Vec<&str> = members
        .iter()
        .flat_map(|member| &member.topics)
        .map(String::as_str)
        .collect();
    topics.sort_unstable();
    topics.dedup();
    let mut counts: BTreeMap<String, i32> = BTreeMap::new();
    for (topic, index) in client.leaders(&topics).await?.into_keys() {
        let count = counts.entry(topic).or_default();
        *count = (*count).max(index + 1);
    }
    assignor::range(&members, &counts)
        .into_iter()
        .map(|(member, assignment)| {
            Ok(SyncGroupRequestAssignment::default()
                .with_member_id(member.into())
                .with_assignment(encoded(&assignment)?))
        })
        .collect()
}

/// The topics in a member's subscription; none if it cannot be read, and then it gets none.
fn subscribed(mut bytes: Bytes) -> Vec<String> {
    let Some(version) = bytes
        .first_chunk::<2>()
        .map(|version| i16::from_be_bytes(*version))
    else {
        return Vec::new();
    };
    bytes::Buf::advance(&mut bytes, 2);
    // A later version only adds fields at the end.
    let subscription = ConsumerProtocolSubscription::decode(&mut bytes, version.clamp(0, 3));
    let topics = subscription
        .map(|subscription| subscription.topics)
        .unwrap_or_default();
    topics.into_iter().map(|topic| topic.to_string()).collect()
}

fn encoded(assignment: &Assignment) -> Result<Bytes, Error> {
    let topic = |(name, partitions): (&String, &Vec<i32>)| {
        TopicPartition::default()
            .with_topic(topic_name(name))
            .with_partitions(partitions.clone())
    };
    embedded(
        &ConsumerProtocolAssignment::default()
            .with_assigned_partitions(assignment.iter().map(topic).collect()),
    )
}

/// A version, and what is written in it.
fn embedded(message: &impl Encodable) -> Result<Bytes, Error> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(EMBEDDED);
    message.encode(&mut bytes, EMBEDDED).map_err(|err| {
        Error::Refused(Refusal {
            code: ErrorCode::InvalidRequest,
            message: Some(format!("the subscription cannot be written: {err}")),
        })
    })?;
    Ok(bytes.freeze())
}

fn partitions(assignment: &Assignment) -> Vec<Partition> {
    let topics = assignment.iter();
    topics
        .flat_map(|(topic, indexes)| indexes.iter().map(|index| (topic.clone(), *index)))
        .collect()
}
