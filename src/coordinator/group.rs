//! The group coordinator: one partition of `__consumer_offsets` as a machine.
//!
//! - [`classic`] and [`consumer`] are the two kinds of group, each a state machine of its own; [`offsets`] is what
//!   groups have committed, whatever their kind. Each brings its part of `impl GroupCoordinator`.
//! - Here is what they share: the map of groups, the deadlines, and which request, record or deadline is whose.

mod assignor;
mod classic;
mod consumer;
pub(crate) mod expressions;
pub(crate) mod figures;
mod offsets;
mod protocols;
mod record;
pub(crate) mod request;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use protocol::{
    compression::Compression,
    error::{DecodeError, ErrorCode},
    records::{Encoded, group::GroupRecord},
    schema::EncodeError,
};
use uuid::Uuid;

use self::{
    classic::ClassicGroup,
    consumer::{ConsumerGroup, ResolveExpressions},
    figures::Figures,
    offsets::Offsets,
    request::{Request, Response},
};
use super::{Answer, Env, Machine, Origin, Producer, Ticket, timers::Timers};

pub(crate) type Effects = super::Effects<GroupCoordinator>;

/// A partition's groups and their offsets.
#[derive(Debug, Default)]
pub(crate) struct GroupCoordinator {
    groups: HashMap<Arc<str>, Group>,
    classic: classic::Figures,
    offsets: Offsets,
    timers: Timers<Timer>,
    figures: Arc<Figures>,
    /// Who waited in a group when the record was replayed that ended it.
    called_off: Vec<Ticket>,
    /// What was written before has been replayed: what is replayed now happens now.
    is_live: bool,
}

#[derive(Debug)]
pub(crate) enum Group {
    Classic(ClassicGroup),
    Consumer(ConsumerGroup),
}

/// What is waited for. Setting the same one again moves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    /// It is time to look for offsets that have expired.
    ExpireOffsets,
    /// Of topics that have gone since.
    DropDeletedTopics,
    Classic(Arc<str>, classic::Timer),
    Consumer(Arc<str>, consumer::Timer),
}

impl GroupCoordinator {
    /// A partition of which nothing has been replayed yet, and which counts here.
    pub(crate) fn counting(figures: Arc<Figures>) -> Self {
        Self {
            figures,
            ..Self::default()
        }
    }
}

impl Group {
    /// May this member commit offsets? `epoch` is a generation in classic groups; without a group's member (a
    /// "simple" consumer) it is negative and the member id empty.
    fn check_commit(&self, commit: &Committer<'_>) -> Result<(), ErrorCode> {
        match self {
            Self::Classic(group) => group.check_commit(commit),
            Self::Consumer(group) => group.check_commit(commit),
        }
    }

    /// May this member (`None`: nobody in particular) be told of the group's offsets?
    fn check_fetch(&self, member_id: Option<&str>, member_epoch: i32) -> Result<(), ErrorCode> {
        match self {
            Self::Classic(group) => group.check_fetch(member_id, member_epoch),
            Self::Consumer(group) => group.check_fetch(member_id, member_epoch),
        }
    }

    /// May the group be deleted?
    fn check_delete(&self) -> Result<(), ErrorCode> {
        match self {
            Self::Classic(group) => group.check_delete(),
            Self::Consumer(group) => group.check_delete(),
        }
    }

    /// May offsets of the group be deleted, of topics its members do not read?
    fn check_delete_offsets(&self) -> Result<(), ErrorCode> {
        match self {
            Self::Classic(group) => group.check_delete_offsets(),
            // A real broker asks nothing of a group that says what it reads but that.
            Self::Consumer(_) => Ok(()),
        }
    }

    /// The tombstones of all that the log holds of the group, but for its offsets.
    fn tombstones(&self, group_id: &str) -> Vec<GroupRecord> {
        match self {
            Self::Classic(group) => group.tombstones(group_id),
            Self::Consumer(group) => group.tombstones(group_id),
        }
    }

    /// Do its members read this topic? Its offsets are then neither expired nor deleted.
    fn is_subscribed_to(&self, topic: &str) -> bool {
        match self {
            Self::Classic(group) => group.is_subscribed_to(topic),
            Self::Consumer(group) => group.is_subscribed_to(topic),
        }
    }

    /// From when an offset's retention counts; `None` while offsets of the group do not expire at all.
    fn retention_base(&self) -> Option<RetentionBase> {
        match self {
            Self::Classic(group) => group.retention_base(),
            Self::Consumer(group) => group.retention_base(),
        }
    }

    /// Its state as ListGroups names it.
    fn state(&self) -> &'static str {
        match self {
            Self::Classic(group) => group.state(),
            Self::Consumer(group) => group.state(),
        }
    }

    fn member_count(&self) -> usize {
        match self {
            Self::Classic(group) => group.member_count(),
            Self::Consumer(group) => group.member_count(),
        }
    }

    /// Has it no members?
    fn is_empty(&self) -> bool {
        match self {
            Self::Classic(group) => group.is_empty(),
            Self::Consumer(group) => group.is_empty(),
        }
    }
}

/// Is shown topics' ids and partitions.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(Uuid, i32);

/// Who commits offsets, as OffsetCommit and TxnOffsetCommit say it.
#[derive(Clone, Copy)]
pub(crate) struct Committer<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) group_instance_id: Option<&'a str>,
    /// Generation or member epoch.
    pub(crate) epoch: i32,
    pub(crate) transactional: bool,
    /// Of the request.
    pub(crate) version: i16,
    /// Names what is committed, by topic id, to the function it is given. Looked at only when the epoch is an older
    /// one: a member may still commit in it what it has had since (KIP-1251).
    pub(crate) partitions: &'a dyn Fn(Visit<'_>),
}

/// When the retention of a group's offsets begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetentionBase {
    /// With each commit.
    Commit,
    /// When the group became empty (ms), also for what was committed later: a real broker took such a commit away
    /// with the others.
    Empty(i64),
}

impl Machine for GroupCoordinator {
    type Request = Request;
    type Response = Response;
    type Record = GroupRecord;
    type Task = ResolveExpressions;

    fn compression(config: &crate::Config) -> Compression {
        config.groups.offsets_topic_compression
    }

    fn encode(record: &GroupRecord, out: &mut Encoded) -> Result<(), EncodeError> {
        record::encode(record, out)
    }

    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<GroupRecord>, DecodeError> {
        Ok(match GroupRecord::decode(key, value)? {
            GroupRecord::Unknown(_) => None,
            record => Some(record),
        })
    }

    fn handle(&mut self, ticket: Ticket, request: Request, env: &mut Env<'_>) -> Effects {
        match request {
            Request::Join(join) => self.join(ticket, join, env),
            Request::Sync(sync) => self.sync(ticket, sync, env),
            Request::Heartbeat(heartbeat) => self.heartbeat(ticket, heartbeat, env),
            Request::Leave(leave) => self.leave(ticket, leave, env),
            Request::Commit(commit) => self.commit(ticket, commit, env),
            Request::CommitInTransaction(commit) => self.commit_in_transaction(ticket, commit, env),
            Request::FetchOffsets(fetch) => self.fetch_offsets(ticket, fetch, env),
            Request::DeleteOffsets(delete) => self.delete_offsets(ticket, delete, env),
            Request::Delete(group_ids) => self.delete(ticket, group_ids, env),
            Request::List(filter) => self.list(ticket, &filter),
            Request::Describe(group_ids) => self.describe(ticket, &group_ids),
            Request::ConsumerHeartbeat(heartbeat) => {
                self.consumer_heartbeat(ticket, heartbeat, env)
            }
            Request::Resolved(resolution) => self.resolved(ticket, resolution, env),
            Request::ConsumerDescribe(group_ids) => self.consumer_describe(ticket, &group_ids, env),
        }
    }

    fn replay(&mut self, record: GroupRecord, origin: Origin) {
        use GroupRecord as R;
        match record {
            R::LegacyOffsetCommit { key, value } => self.replay_legacy_offset(key, value, origin),
            R::OffsetCommit { key, value } => self.replay_offset(key, value, origin),
            R::GroupMetadata { key, value } => self.replay_classic(key, value),
            R::ConsumerGroupMetadata { ref value, .. } => {
                if value.is_some() && self.is_live {
                    self.figures.consumer_rebalances.add(1);
                }
                self.replay_consumer(record, origin);
            }
            R::ConsumerGroupPartitionMetadata { .. }
            | R::ConsumerGroupMemberMetadata { .. }
            | R::ConsumerGroupTargetAssignmentMetadata { .. }
            | R::ConsumerGroupTargetAssignmentMember { .. }
            | R::ConsumerGroupCurrentMemberAssignment { .. }
            | R::ConsumerGroupRegularExpression { .. } => self.replay_consumer(record, origin),
            // Share and streams groups of a directory taken over from Kafka: kept in the log, not served.
            _ => (),
        }
    }

    fn end_transaction(&mut self, producer: Producer, commit: bool) {
        self.offsets.end_transaction(producer, commit);
    }

    fn loaded(&mut self, env: &mut Env<'_>) -> Effects {
        self.is_live = true;
        let check_interval = env.config.groups.offsets_retention_check_interval_ms;
        let at = env.steady_now.saturating_add(check_interval);
        self.timers.set(Timer::ExpireOffsets, at);
        self.timers.set(Timer::DropDeletedTopics, env.steady_now);
        self.classic_loaded(env);
        self.consumer_loaded(env);
        Effects::default()
    }

    fn image_changed(&mut self, env: &mut Env<'_>) {
        self.timers.set(Timer::DropDeletedTopics, env.steady_now);
        self.consumer_image_changed(env);
    }

    fn next_deadline(&self) -> Option<i64> {
        self.timers.next()
    }

    fn tick(&mut self, env: &mut Env<'_>) -> Option<Effects> {
        Some(match self.timers.pop(env.steady_now)? {
            Timer::ExpireOffsets => self.expire_offsets(env),
            Timer::DropDeletedTopics => self.drop_deleted_topics(env),
            Timer::Classic(group_id, timer) => self.classic_due(&group_id, timer, env),
            Timer::Consumer(group_id, timer) => self.consumer_due(&group_id, timer, env),
        })
    }

    fn append_failed(
        &mut self,
        records: Vec<GroupRecord>,
        code: ErrorCode,
        env: &mut Env<'_>,
    ) -> Vec<(Ticket, Answer<Self>)> {
        self.offsets_append_failed(&records, env);
        self.classic_append_failed(&records, code, env)
    }
}
