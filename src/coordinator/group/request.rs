//! What the group coordinator is asked, and what it answers.
//!
//! Bodies are Kafka's messages as they came; what the connection knows besides stands in [`Client`]. A request goes
//! to the partition that keeps its group. One that names several groups has been taken apart before.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest,
    HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    SyncGroupRequest, SyncGroupResponse, consumer_group_describe_response,
    delete_groups_response::DeletableGroupResult, describe_groups_response,
    list_groups_response::ListedGroup, offset_fetch_request::OffsetFetchRequestGroup,
    offset_fetch_response::OffsetFetchResponseGroup,
};
use protocol::{
    error::ErrorCode,
    messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse},
};

use super::consumer::{Resolution, check_regex};
use crate::{
    coordinator::{Machine, group::GroupCoordinator, runtime::Runtime},
    server::Context,
};

/// A request's body, and who sent it.
#[derive(Debug, Clone)]
pub(crate) struct Sent<T> {
    pub(crate) client: Client,
    pub(crate) body: T,
}

#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Version of the request.
    pub(crate) version: i16,
    /// Empty if it did not say.
    pub(crate) id: Arc<str>,
    pub(crate) address: IpAddr,
}

impl<T> Sent<T> {
    pub(crate) fn new(ctx: &Context, body: T) -> Self {
        let client = Client {
            version: ctx.version,
            id: Arc::from(ctx.client_id.as_deref().unwrap_or_default()),
            address: ctx.peer,
        };
        Self { client, body }
    }
}

impl Client {
    /// The host as Kafka notes it down: Java prints an address behind a slash.
    pub(crate) fn host(&self) -> String {
        format!("/{}", self.address)
    }
}

/// A member of the consumer protocol speaks.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerHeartbeat {
    pub(crate) sent: Sent<ConsumerGroupHeartbeatRequest>,
    /// What is wrong with the regular expression in it, if anything is. It is read before the group is asked: that may
    /// take milliseconds, in which all groups of a partition would wait.
    pub(crate) regex: Result<(), String>,
}

impl ConsumerHeartbeat {
    pub(crate) fn new(sent: Sent<ConsumerGroupHeartbeatRequest>) -> Self {
        let regex = sent.body.subscribed_topic_regex.as_deref();
        let regex = regex.map_or(Ok(()), check_regex);
        Self { sent, regex }
    }
}

/// Offsets of one group, as OffsetFetch from version 8 on asks for them; older versions are brought into this form.
#[derive(Debug, Clone)]
pub(crate) struct FetchOffsets {
    pub(crate) group: OffsetFetchRequestGroup,
    /// Offsets that a transaction is about to change are refused instead of shown.
    pub(crate) require_stable: bool,
}

/// Which groups ListGroups is about. Shared, as every partition of groups is asked with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListFilter {
    states: Arc<HashSet<String>>,
    types: Arc<HashSet<String>>,
}

impl ListFilter {
    /// Nothing in one of them asks for all.
    pub(crate) fn new<'a>(
        states: impl Iterator<Item = &'a str>,
        types: impl Iterator<Item = &'a str>,
    ) -> Self {
        Self {
            states: Arc::new(states.map(|state| state.trim().to_lowercase()).collect()),
            types: Arc::new(types.map(str::to_ascii_lowercase).collect()),
        }
    }

    pub(crate) fn has(&self, state: &str, kind: &str) -> bool {
        (self.states.is_empty() || self.states.contains(&state.to_lowercase()))
            && (self.types.is_empty() || self.types.contains(&kind.to_ascii_lowercase()))
    }
}

macro_rules! requests {
    ($($(#[$meta:meta])* $variant:ident($body:ty) -> $answer:ty,)*) => {
        #[derive(Debug)]
        pub(crate) enum Request {
            $($(#[$meta])* $variant($body),)*
        }

        #[derive(Debug, PartialEq)]
        pub(crate) enum Response {
            $($variant($answer),)*
        }

        $(impl Ask for $body {
            type Answer = $answer;
            fn request(self) -> Request {
                Request::$variant(self)
            }
            fn answer(response: Response) -> Option<$answer> {
                match response {
                    Response::$variant(answer) => Some(answer),
                    _ => None,
                }
            }
        })*
    };
}

/// A request whose answer is of a known type.
pub(crate) trait Ask {
    type Answer;
    fn request(self) -> <GroupCoordinator as Machine>::Request;
    /// `None` for the answer to something else.
    fn answer(response: <GroupCoordinator as Machine>::Response) -> Option<Self::Answer>;
}

requests! {
    Join(Sent<JoinGroupRequest>) -> JoinGroupResponse,
    Sync(Sent<SyncGroupRequest>) -> SyncGroupResponse,
    Heartbeat(Sent<HeartbeatRequest>) -> HeartbeatResponse,
    Leave(Sent<LeaveGroupRequest>) -> LeaveGroupResponse,
    Commit(Sent<OffsetCommitRequest>) -> OffsetCommitResponse,
    CommitInTransaction(Sent<TxnOffsetCommitRequest>) -> TxnOffsetCommitResponse,
    FetchOffsets(FetchOffsets) -> OffsetFetchResponseGroup,
    DeleteOffsets(OffsetDeleteRequest) -> OffsetDeleteResponse,
    /// Groups to delete, with their offsets.
    Delete(DeleteGroups) -> Vec<DeletableGroupResult>,
    List(ListFilter) -> Vec<ListedGroup>,
    /// As DescribeGroups shows them.
    Describe(DescribeGroups) -> Vec<describe_groups_response::DescribedGroup>,
    ConsumerHeartbeat(ConsumerHeartbeat) -> ConsumerGroupHeartbeatResponse,
    /// What members' expressions have been found to match.
    Resolved(Resolution) -> (),
    /// As ConsumerGroupDescribe shows them.
    ConsumerDescribe(DescribeConsumerGroups) -> Vec<consumer_group_describe_response::DescribedGroup>,
}

impl Runtime<GroupCoordinator> {
    /// Asks the coordinator of this group.
    pub(crate) async fn ask_group<A: Ask>(
        self: &Arc<Self>,
        group_id: &str,
        ask: A,
    ) -> Result<A::Answer, ErrorCode> {
        answer::<A>(self.ask(group_id, ask.request()).await?)
    }

    /// The same of a group that somebody is in, which has a name.
    pub(crate) async fn ask_named_group<A: Ask>(
        self: &Arc<Self>,
        group_id: &str,
        ask: A,
    ) -> Result<A::Answer, ErrorCode> {
        if group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        self.ask_group(group_id, ask).await
    }

    /// Asks about all groups of this partition, or about those that the request names.
    pub(crate) async fn ask_groups<A: Ask>(
        self: &Arc<Self>,
        partition: i32,
        ask: A,
    ) -> Result<A::Answer, ErrorCode> {
        answer::<A>(self.ask_partition(partition, ask.request()).await?)
    }
}

fn answer<A: Ask>(response: Response) -> Result<A::Answer, ErrorCode> {
    // A machine answers what it is asked.
    A::answer(response).ok_or(ErrorCode::UnknownServerError)
}

/// Ids of groups of one partition.
#[derive(Debug, Clone)]
pub(crate) struct DeleteGroups(pub(crate) Vec<Arc<str>>);

#[derive(Debug, Clone)]
pub(crate) struct DescribeGroups {
    pub(crate) group_ids: Vec<Arc<str>>,
    /// Of the request: from version 6 on a group that is not there is an error.
    pub(crate) version: i16,
}

#[derive(Debug, Clone)]
pub(crate) struct DescribeConsumerGroups(pub(crate) Vec<Arc<str>>);
