//! Groups as ConsumerGroupDescribe shows them.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::{
    GroupId,
    consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions},
};
use protocol::error::ErrorCode;
use replication::cluster::ClusterImage;
use uuid::Uuid;

use super::{
    ConsumerGroup,
    refusal::{not_a_consumer_group, not_found},
};
use crate::coordinator::{
    Env, Ticket,
    group::{
        Effects, Group, GroupCoordinator,
        request::{DescribeConsumerGroups, Response},
    },
};

/// Which protocol a member speaks.
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;

impl GroupCoordinator {
    pub(in super::super) fn consumer_describe(
        &mut self,
        ticket: Ticket,
        groups: &DescribeConsumerGroups,
        env: &mut Env<'_>,
    ) -> Effects {
        let described = groups.0.iter().map(|group_id| {
            let refusal = match self.groups.get(group_id) {
                Some(Group::Consumer(group)) => return group.described(group_id, env),
                Some(Group::Classic(_)) => not_a_consumer_group(group_id),
                None => not_found(group_id),
            };
            DescribedGroup::default()
                .with_group_id(GroupId((**group_id).to_owned().into()))
                .with_error_code(ErrorCode::GroupIdNotFound.code())
                .with_error_message(Some(refusal.message.into()))
        });
        let described = described.collect();
        Effects::answer(ticket, Ok(Response::ConsumerDescribe(described)))
    }
}

impl ConsumerGroup {
    fn described(&self, group_id: &str, env: &Env<'_>) -> DescribedGroup {
        let text = |text: Option<&str>| text.map(|text| text.to_owned().into());
        let members = self.members.iter().map(|(id, member)| {
            let (about, current) = (&member.about, &member.current);
            let names = about.topic_names.iter();
            let names =
                names.map(|name| kafka_protocol::messages::TopicName((**name).to_owned().into()));
            let assigned = current.assigned.iter();
            let assigned = assigned.map(|(topic, it)| (*topic, it.keys().copied().collect()));
            let target = self.targets.get(id);
            let target = target.into_iter().flat_map(|target| target.iter());
            let target = target.map(|(topic, indexes): (&Uuid, &BTreeSet<i32>)| {
                (*topic, indexes.iter().copied().collect())
            });
            Member::default()
                .with_member_id((**id).to_owned().into())
                .with_instance_id(text(about.instance_id.as_deref()))
                .with_rack_id(text(about.rack_id.as_deref()))
                .with_member_epoch(current.epoch)
                .with_client_id((*about.client_id).to_owned().into())
                .with_client_host((*about.client_host).to_owned().into())
                .with_subscribed_topic_names(names.collect())
                .with_subscribed_topic_regex(text(Some(&*about.topic_regex)))
                .with_assignment(assignment(assigned, env.image))
                .with_target_assignment(assignment(target, env.image))
                .with_member_type(if member.is_classic() {
                    CLASSIC
                } else {
                    CONSUMER
                })
        });
        DescribedGroup::default()
            .with_group_id(GroupId(group_id.to_owned().into()))
            .with_group_state(self.state().into())
            .with_group_epoch(self.epoch)
            .with_assignment_epoch(self.target_epoch)
            .with_assignor_name(self.assignor(&env.config.groups).name().into())
            .with_members(members.collect())
    }
}

/// Topics that do not exist any more have no name, and are left out.
fn assignment(
    partitions: impl Iterator<Item = (Uuid, Vec<i32>)>,
    image: &ClusterImage,
) -> Assignment {
    let named = partitions.filter_map(|(id, indexes)| {
        let topic = image.topic_by_id(id)?;
        Some((&*topic.name, (id, indexes)))
    });
    let named: BTreeMap<&str, _> = named.collect();
    let topics = named.into_iter().map(|(name, (id, indexes))| {
        TopicPartitions::default()
            .with_topic_id(id)
            .with_topic_name(kafka_protocol::messages::TopicName(name.to_owned().into()))
            .with_partitions(indexes)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
