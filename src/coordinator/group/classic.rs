//! Groups of the classic protocol: members join, one of them leads and assigns, all learn what they got.
//!
//! - A generation begins when all members have joined, or those who did not in time are gone. It is written down
//!   when the leader has brought the assignment, and is what a group is loaded with.
//! - Who is joining, who has to come and whose session ends when is known to this broker alone. After a change of
//!   leader or a restart the generation that was written last is in force, and members that are gone since are
//!   noticed by their sessions.
//! - The subject of a group, its members' metadata and its assignment, is the clients' business. The one look
//!   that is taken at it is [`subscription`].
//!
//! [`member`], [`state`] and the rounds of joining ([`rebalance`]) are beneath the requests: [`join`], [`sync`] with
//! heartbeats, and [`leave`]. [`show`] is for who lists and describes groups.

pub(super) mod join;
pub(super) mod leave;
mod member;
mod migration;
mod rebalance;
mod show;
mod state;
mod subscription;
mod sync;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
    sync::Arc,
};

use protocol::{
    error::ErrorCode,
    records::group::{GroupMetadataKey, GroupMetadataValue, GroupRecord},
};
use uuid::Uuid;

use self::{member::Member, rebalance::InitialDelay, state::State};
use super::{
    Committer, Effects, Group, GroupCoordinator, RetentionBase, protocols::CONSUMER,
    request::Response,
};
use crate::{
    config::Groups,
    coordinator::{Answer, Env, Ticket, timers::Timers},
};

#[derive(Debug)]
pub(crate) struct ClassicGroup {
    state: State,
    /// When it came into its state (ms); records of long ago do not say.
    since: Option<i64>,
    protocol_type: Option<Arc<str>>,
    /// The protocol that its members have voted for.
    protocol: Option<Arc<str>>,
    generation: i32,
    leader: Option<Arc<str>>,
    /// By id. Invariant: all have the group's protocol type, and there is a protocol that all have.
    members: BTreeMap<Arc<str>, Box<Member>>,
    /// Instance ids of static members, and the member ids they go by.
    static_members: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids that were given out and with which nobody has joined yet.
    pending_join: BTreeSet<Arc<str>>,
    /// Members of this generation that have not asked for their assignment yet.
    pending_sync: BTreeSet<Arc<str>>,
    /// In the first rebalance after being empty.
    initial: Option<InitialDelay>,
    /// The topics that its members read, if they are consumers and say it in a way that can be read.
    subscribed: Option<Box<[Box<str>]>>,
    /// A member that a record names which is about to be appended: it comes with that record.
    staged: Option<(Arc<str>, Box<Member>)>,
}

/// What a group waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The members that have not joined.
    Join,
    /// The members that have not asked for their assignment.
    Sync,
    /// A sign of life from this member.
    Session(Arc<str>),
}

impl ClassicGroup {
    /// A group without members.
    fn empty(now: i64) -> Self {
        Self {
            state: State::Empty,
            since: Some(now),
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            initial: None,
            subscribed: None,
            staged: None,
        }
    }

    /// A group that has offsets and nothing else. It is in no record.
    pub(super) fn simple() -> Self {
        Self {
            since: None,
            ..Self::empty(0)
        }
    }

    pub(super) fn state(&self) -> &'static str {
        self.state.name()
    }

    pub(super) fn member_count(&self) -> usize {
        self.members.len()
    }

    pub(super) fn check_commit(&self, commit: &Committer<'_>) -> Result<(), ErrorCode> {
        if commit.epoch < 0 && self.state == State::Empty {
            return Ok(());
        }
        let is_member =
            0 <= commit.epoch || !commit.member_id.is_empty() || commit.group_instance_id.is_some();
        if is_member {
            self.check_member(commit.member_id, commit.group_instance_id)?;
            if commit.epoch != self.generation {
                return Err(ErrorCode::IllegalGeneration);
            }
        } else if !commit.transactional && self.state != State::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        // A client that knows this generation and commits before it has its assignment. Transactions are not held up
        // by the group's state.
        if !commit.transactional && self.state == State::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// Offsets of classic groups are shown to everybody.
    pub(super) fn check_fetch(
        &self,
        _member_id: Option<&str>,
        _member_epoch: i32,
    ) -> Result<(), ErrorCode> {
        Ok(())
    }

    /// May offsets of the group be deleted? Those of topics that it reads are then still kept.
    pub(super) fn check_delete_offsets(&self) -> Result<(), ErrorCode> {
        if self.state == State::Empty || self.is_of_consumers() {
            Ok(())
        } else {
            Err(ErrorCode::NonEmptyGroup)
        }
    }

    pub(super) fn check_delete(&self) -> Result<(), ErrorCode> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(ErrorCode::NonEmptyGroup)
        }
    }

    pub(super) fn tombstones(&self, group_id: &str) -> Vec<GroupRecord> {
        vec![GroupRecord::GroupMetadata {
            key: key(group_id),
            value: None,
        }]
    }

    /// Consumers whose subscription cannot be read may read any topic.
    pub(super) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics
                .binary_search_by(|known| (**known).cmp(topic))
                .is_ok(),
            None => self.is_of_consumers(),
        }
    }

    pub(super) fn retention_base(&self) -> Option<RetentionBase> {
        match self.state {
            _ if self.protocol_type.is_none() => Some(RetentionBase::Commit),
            State::Empty => Some(
                self.since
                    .map_or(RetentionBase::Commit, RetentionBase::Empty),
            ),
            State::Stable if self.subscribed.is_some() => Some(RetentionBase::Commit),
            _ => None,
        }
    }

    /// Nobody is joining it either.
    pub(super) fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    pub(super) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// Is this one of the members, and the one that goes by this instance id?
    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(known) if **known != *member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => (),
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(ErrorCode::UnknownMemberId)
        }
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// The longest that any of its members wants to be waited for.
    fn rebalance_timeout_ms(&self) -> i32 {
        let timeouts = self.members.values();
        let timeouts = timeouts.map(|member| member.rebalance_timeout_ms);
        timeouts.max().unwrap_or(0).max(0)
    }

    fn enter(&mut self, state: State, now: i64) {
        self.state = state;
        self.since = Some(now);
    }

    /// The record of this generation, where every member has what `assignment` gives it.
    fn record(
        &self,
        group_id: &str,
        assignment: impl Fn(&str, &Member) -> bytes::Bytes,
    ) -> GroupRecord {
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self
            .members
            .iter()
            .map(|(id, member)| member.record(id, protocol, assignment(id, member)));
        GroupRecord::GroupMetadata {
            key: key(group_id),
            value: Some(GroupMetadataValue {
                protocol_type: text(&self.protocol_type).unwrap_or_default(),
                generation: self.generation,
                protocol: text(&self.protocol),
                leader: text(&self.leader),
                current_state_timestamp: self.since.unwrap_or(-1),
                members: members.collect(),
            }),
        }
    }

    /// Applies a record of this group. What members hold besides stays with those that stay. Returns whether
    /// a rebalance ends with it.
    fn replay(&mut self, value: &GroupMetadataValue) -> bool {
        let staged = self.staged.take();
        let protocol_type = &*value.protocol_type;
        self.protocol_type = (!protocol_type.is_empty()).then(|| Arc::from(protocol_type));
        self.protocol = value.protocol.as_deref().map(Arc::from);
        self.generation = value.generation;
        self.leader = value.leader.as_deref().map(Arc::from);
        self.since = (value.current_state_timestamp != -1).then_some(value.current_state_timestamp);

        let mut known = mem::take(&mut self.members);
        known.extend(staged);
        self.static_members.clear();
        let protocol = value.protocol.as_deref().unwrap_or_default();
        for metadata in &value.members {
            let (id, member) = match known.remove_entry(&*metadata.member_id) {
                Some((id, mut member)) => {
                    member.follow(metadata, protocol);
                    (id, member)
                }
                None => {
                    let id = Arc::from(&*metadata.member_id);
                    (id, Box::new(Member::loaded(metadata, protocol)))
                }
            };
            if let Some(instance_id) = &member.instance_id {
                let instance_id = Arc::clone(instance_id);
                self.static_members.insert(instance_id, Arc::clone(&id));
            }
            self.members.insert(id, member);
        }
        let members = &self.members;
        self.pending_sync.retain(|id| members.contains_key(id));
        self.note_subscriptions();
        let before = self.state;
        self.state = if self.members.is_empty() {
            State::Empty
        } else {
            State::Stable
        };
        before == State::CompletingRebalance && self.state == State::Stable
    }

    /// Looks at what the members read.
    fn note_subscriptions(&mut self) {
        self.subscribed = None;
        if !self.is_of_consumers() {
            return;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let metadata = self
                .protocol
                .as_deref()
                .and_then(|name| member.metadata(name));
            let Some(()) = metadata.and_then(|it| subscription::add_topics(it, &mut topics)) else {
                return;
            };
        }
        self.subscribed = Some(topics.into_iter().collect());
    }
}

fn key(group_id: &str) -> GroupMetadataKey {
    GroupMetadataKey {
        group: group_id.to_owned(),
    }
}

/// A member is shown with its id, and behind it `*` if it leads, `+` while its JoinGroup waits, `~` while its
/// SyncGroup does.
impl fmt::Display for ClassicGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.state, self.generation)?;
        if let Some(protocol) = &self.protocol {
            write!(f, " {protocol}")?;
        }
        for (id, member) in &self.members {
            let mark = |holds: bool, mark| if holds { mark } else { "" };
            let leads = mark(self.is_leader(id), "*");
            let joins = mark(member.joining.is_some(), "+");
            let syncs = mark(member.syncing.is_some(), "~");
            write!(f, " {id}{leads}{joins}{syncs}")?;
        }
        for id in &self.pending_join {
            write!(f, " ({id})")?;
        }
        Ok(())
    }
}

/// One decision: what is known when it is taken, and what comes of it.
struct Turn<'a> {
    group_id: Arc<str>,
    now: i64,
    steady_now: i64,
    config: &'a Groups,
    new_id: &'a mut dyn FnMut() -> Uuid,
    timers: &'a mut Timers<super::Timer>,
    effects: Effects,
}

impl<'a> Turn<'a> {
    fn new(group_id: Arc<str>, env: &'a mut Env<'_>, timers: &'a mut Timers<super::Timer>) -> Self {
        Self {
            group_id,
            now: env.now,
            steady_now: env.steady_now,
            config: &env.config.groups,
            new_id: &mut *env.new_id,
            timers,
            effects: Effects::default(),
        }
    }

    fn wake(&mut self, timer: Timer, delay_ms: i32) {
        let timer = super::Timer::Classic(Arc::clone(&self.group_id), timer);
        self.timers
            .set(timer, self.steady_now + i64::from(delay_ms));
    }

    fn cancel(&mut self, timer: Timer) {
        let timer = super::Timer::Classic(Arc::clone(&self.group_id), timer);
        self.timers.cancel(&timer);
    }

    /// The member's session lasts this long from now.
    fn expect(&mut self, member_id: &Arc<str>, timeout_ms: i32) {
        self.wake(Timer::Session(Arc::clone(member_id)), timeout_ms);
    }

    fn answer(&mut self, ticket: Ticket, response: Response) {
        self.effects.answers.push((ticket, Ok(response)));
    }

    fn refuse(&mut self, ticket: Ticket, code: ErrorCode) {
        self.effects.answers.push((ticket, Err(code)));
    }
}

impl GroupCoordinator {
    /// The classic group of this id, and what it decides in.
    fn classic<'a>(
        &'a mut self,
        group_id: &str,
        env: &'a mut Env<'_>,
    ) -> Option<(&'a mut ClassicGroup, Turn<'a>)> {
        let group_id = Arc::clone(self.groups.get_key_value(group_id)?.0);
        match self.groups.get_mut(&group_id)? {
            Group::Classic(group) => Some((group, Turn::new(group_id, env, &mut self.timers))),
            Group::Consumer(_) => None,
        }
    }

    /// A member of a classic group committed, which shows that it lives, as a heartbeat does.
    pub(super) fn classic_committed(&mut self, group_id: &str, member_id: &str, env: &mut Env<'_>) {
        let Some((group, mut turn)) = self.classic(group_id, env) else {
            return;
        };
        let is_waited_for = matches!(group.state, State::Stable | State::PreparingRebalance);
        if is_waited_for && let Some((id, member)) = group.members.get_key_value(member_id) {
            turn.expect(id, member.session_timeout_ms);
        }
    }

    pub(super) fn replay_classic(
        &mut self,
        key: GroupMetadataKey,
        value: Option<GroupMetadataValue>,
    ) {
        let Some(value) = value else {
            if let Some(Group::Classic(_)) = self.groups.get(&*key.group)
                && let Some((group_id, Group::Classic(group))) =
                    self.groups.remove_entry(&*key.group)
            {
                self.classic_removed(&group_id, group);
            }
            return;
        };
        let known = self.groups.get_key_value(&*key.group);
        let group_id = known.map(|(group_id, _)| Arc::clone(group_id));
        let group_id = group_id.unwrap_or_else(|| Arc::from(key.group));
        let empty = || Group::Classic(ClassicGroup::empty(0));
        let group = self.groups.entry(group_id).or_insert_with(empty);
        if !matches!(group, Group::Classic(_)) {
            // What was there of the other kind has been converted.
            *group = empty();
        }
        if let Group::Classic(group) = group
            && group.replay(&value)
        {
            self.classic.rebalances_completed += 1;
            if self.is_live {
                self.figures.completed_rebalances.add(1);
            }
        }
    }

    /// Nothing is waited for in a group that is no more. Who waited in it waits on, until somebody tells.
    fn classic_removed(&mut self, group_id: &Arc<str>, group: ClassicGroup) {
        let sessions = group.members.keys().chain(&group.pending_join);
        let sessions = sessions.map(|id| Timer::Session(Arc::clone(id)));
        for timer in sessions.chain([Timer::Join, Timer::Sync]) {
            let timer = super::Timer::Classic(Arc::clone(group_id), timer);
            self.timers.cancel(&timer);
        }
        let members = group.members.into_values();
        let waiting = members.flat_map(|member| [member.joining, member.syncing]);
        self.called_off.extend(waiting.flatten());
    }

    pub(super) fn classic_loaded(&mut self, env: &mut Env<'_>) {
        for (group_id, group) in &mut self.groups {
            let Group::Classic(group) = group else {
                continue;
            };
            let mut turn = Turn::new(Arc::clone(group_id), env, &mut self.timers);
            for (id, member) in &group.members {
                turn.expect(id, member.session_timeout_ms);
            }
            if group.members.len() > turn.config.max_size {
                // Nobody waits yet, so this answers and writes nothing.
                group.prepare_rebalance(&mut turn, "it has more members than it may have");
            }
        }
    }

    pub(super) fn classic_due(
        &mut self,
        group_id: &Arc<str>,
        timer: Timer,
        env: &mut Env<'_>,
    ) -> Effects {
        let Some((group, mut turn)) = self.classic(group_id, env) else {
            return Effects::default();
        };
        match timer {
            Timer::Join => group.joining_is_due(&mut turn),
            Timer::Sync => group.syncing_is_due(&mut turn),
            Timer::Session(member_id) => group.session_is_over(&mut turn, &member_id),
        }
        turn.effects
    }

    pub(super) fn classic_append_failed(
        &mut self,
        records: &[GroupRecord],
        code: ErrorCode,
        env: &mut Env<'_>,
    ) -> Vec<(Ticket, Answer<GroupCoordinator>)> {
        let mut answers = Vec::new();
        for record in records {
            let GroupRecord::GroupMetadata {
                key,
                value: Some(value),
            } = record
            else {
                continue;
            };
            if let Some((group, mut turn)) = self.classic(&key.group, env) {
                group.not_written(&mut turn, value, code);
                answers.extend(turn.effects.answers);
            }
        }
        answers
    }
}

/// What is counted over all classic groups of a partition.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Rebalances that ended with an assignment.
    pub(crate) rebalances_completed: u64,
}
