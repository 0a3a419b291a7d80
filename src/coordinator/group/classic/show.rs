//! Groups as ListGroups and DescribeGroups show them.

use kafka_protocol::messages::{
    GroupId,
    describe_groups_response::{DescribedGroup, DescribedGroupMember},
    list_groups_response::ListedGroup,
};
use protocol::error::ErrorCode;

use super::{
    ClassicGroup,
    state::{DEAD, State},
};
use crate::coordinator::{
    Ticket,
    group::{
        Effects, Group, GroupCoordinator,
        protocols::CONSUMER,
        request::{DescribeGroups, ListFilter, Response},
    },
};

/// From this version on DescribeGroups says of a group that is not there that it is not (KIP-1043).
const NOT_FOUND_IS_AN_ERROR: i16 = 6;

impl GroupCoordinator {
    /// Groups of every kind.
    pub(in super::super) fn list(&mut self, ticket: Ticket, filter: &ListFilter) -> Effects {
        let listed = self.groups.iter();
        let listed = listed.map(|(group_id, group)| group.listed(group_id));
        let is_wanted = |listed: &ListedGroup| filter.has(&listed.group_state, &listed.group_type);
        let listed = listed.filter(is_wanted).collect();
        Effects::answer(ticket, Ok(Response::List(listed)))
    }

    pub(in super::super) fn describe(
        &mut self,
        ticket: Ticket,
        groups: &DescribeGroups,
    ) -> Effects {
        let described = groups.group_ids.iter().map(|group_id| {
            let missing = match self.groups.get(group_id) {
                Some(Group::Classic(group)) => return group.described(group_id),
                Some(Group::Consumer(_)) => format!("Group {group_id} is not a classic group."),
                None => format!("Group {group_id} not found."),
            };
            let described = DescribedGroup::default()
                .with_group_id(GroupId((**group_id).to_owned().into()))
                .with_group_state(DEAD.into());
            if NOT_FOUND_IS_AN_ERROR <= groups.version {
                described
                    .with_error_code(ErrorCode::GroupIdNotFound.code())
                    .with_error_message(Some(missing.into()))
            } else {
                described
            }
        });
        Effects::answer(ticket, Ok(Response::Describe(described.collect())))
    }
}

impl Group {
    fn listed(&self, group_id: &str) -> ListedGroup {
        let (group_type, protocol_type) = match self {
            Self::Classic(group) => ("classic", group.protocol_type.as_deref()),
            Self::Consumer(_) => ("consumer", Some(CONSUMER)),
        };
        let protocol_type = protocol_type.unwrap_or_default().to_owned();
        ListedGroup::default()
            .with_group_id(GroupId(group_id.to_owned().into()))
            .with_protocol_type(protocol_type.into())
            .with_group_state(self.state().into())
            .with_group_type(group_type.into())
    }
}

impl ClassicGroup {
    /// Metadata are shown when there is an assignment that they have led to.
    fn described(&self, group_id: &str) -> DescribedGroup {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned().into();
        let protocol = self
            .protocol
            .as_deref()
            .filter(|_| self.state == State::Stable);
        let members = self.members.iter().map(|(id, member)| {
            let instance_id = member.instance_id.as_deref();
            let metadata = protocol.and_then(|protocol| member.metadata(protocol));
            DescribedGroupMember::default()
                .with_member_id(text(Some(id)))
                .with_group_instance_id(instance_id.map(|id| text(Some(id))))
                .with_client_id(text(Some(member.client_id())))
                .with_client_host(text(Some(member.client_host())))
                .with_member_metadata(metadata.cloned().unwrap_or_default())
                .with_member_assignment(member.assignment.clone())
        });
        DescribedGroup::default()
            .with_group_id(GroupId(group_id.to_owned().into()))
            .with_group_state(self.state.name().into())
            .with_protocol_type(text(self.protocol_type.as_deref()))
            .with_protocol_data(text(protocol))
            .with_members(members.collect())
    }
}
