//! How members go: for good, for a while, or because they were waited for in vain.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use protocol::records::group::GroupRecord;

use super::{
    ConsumerGroup, Timer, epoch_record,
    member::{self, AWAY},
    refusal::{
        Refusal, check_instance, not_a_consumer_group, not_found, unknown_instance, unknown_member,
    },
    regex, target_epoch_record,
};
use crate::coordinator::{
    Env, Then,
    group::{Effects, Group, GroupCoordinator},
};

impl GroupCoordinator {
    /// A heartbeat that says that its member goes.
    pub(super) fn heartbeat_leave(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
        env: &mut Env<'_>,
    ) -> Result<(ConsumerGroupHeartbeatResponse, Effects), Refusal> {
        let (group_id, group) = match self.groups.get_key_value(&*request.group_id.0) {
            Some((id, Group::Consumer(group))) => (Arc::clone(id), group),
            Some(_) => return Err(not_a_consumer_group(&request.group_id)),
            None => return Err(not_found(&request.group_id)),
        };
        let member_id = &*request.member_id;
        if let Some(instance_id) = request.instance_id.as_deref() {
            let owner = group.static_members.get(instance_id);
            let owner = owner.ok_or_else(|| unknown_instance(instance_id))?;
            check_instance(owner, member_id, instance_id)?;
        }
        let known = group.members.get_key_value(member_id);
        let (id, member) = known.ok_or_else(|| unknown_member(&group_id, member_id))?;
        let response = ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some(request.member_id.clone()))
            .with_member_epoch(request.member_epoch);
        let id = Arc::clone(id);
        if request.member_epoch != AWAY {
            let effects = self.remove_members(&group_id, &[id], env);
            return Ok((response, effects));
        }
        // Its session goes on, and is all that it has to be back by.
        let append = vec![member.current.away().record(&group_id, member_id)];
        let then = move |machine: &mut Self, _: &mut Env<'_>| {
            machine.cancel_timer(&group_id, Timer::Rebalance(id));
            Vec::new()
        };
        let effects = Effects {
            append,
            then: Some(Then::if_written(then)),
            ..Effects::default()
        };
        Ok((response, effects))
    }

    /// What takes these members out of their group, which may become one of the classic protocol by it.
    pub(super) fn remove_members(
        &self,
        group_id: &Arc<str>,
        member_ids: &[Arc<str>],
        env: &Env<'_>,
    ) -> Effects {
        let Some(Group::Consumer(group)) = self.groups.get(group_id) else {
            return Effects::default();
        };
        let removed: BTreeSet<&Arc<str>> = member_ids.iter().collect();
        let Some(append) = group.downgraded_without(group_id, &removed, env) else {
            return Effects {
                append: group.removal(group_id, &removed, env),
                ..Effects::default()
            };
        };
        let group_id = Arc::clone(group_id);
        let then = move |machine: &mut Self, env: &mut Env<'_>| {
            machine.classic_adopted(&group_id, true, env);
            Vec::new()
        };
        Effects {
            append,
            then: Some(Then::if_written(then)),
            ..Effects::default()
        }
    }
}

impl ConsumerGroup {
    fn removal(
        &self,
        group_id: &str,
        removed: &BTreeSet<&Arc<str>>,
        env: &Env<'_>,
    ) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for member_id in removed {
            records.extend(member::tombstones(group_id, member_id));
        }
        let mut unused: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        let going = removed.iter().filter_map(|id| self.members.get(*id));
        for pattern in going.map(|member| &member.about.topic_regex) {
            *unused.entry(pattern).or_default() += 1;
        }
        unused.retain(|pattern, count| *count == self.regex_subscribers(pattern));
        let unused = unused.into_keys();
        records.extend(unused.map(|pattern| regex::tombstone(group_id, pattern)));

        let changed = removed.iter().map(|id| (&***id, None));
        let changed: BTreeMap<_, _> = changed.collect();
        let hash = self.hash(&changed, &self.regexes, env.image);
        let epoch = self.epoch + 1;
        records.push(epoch_record(group_id, epoch, hash));
        if self.members.keys().all(|id| removed.contains(id)) {
            // Nobody has anything, and nobody is to come and compute that.
            records.push(target_epoch_record(group_id, epoch, 0));
        }
        records
    }
}
