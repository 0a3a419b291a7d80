//! A member of a group of the consumer protocol, and its two records.
//!
//! What it says of itself ([`About`]) and what it has been given ([`Current`]) change apart from one another, and each is
//! a record of its own.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use protocol::records::group::{
    AssignedPartitions, ClassicMemberMetadata, ClassicProtocol,
    ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataValue, GroupRecord,
    MemberKey,
};
use uuid::Uuid;

use super::super::assignor::Partitions;

/// In requests and records: it has gone.
pub(in super::super) const LEFT: i32 = -1;

/// It has gone for a while: a static member, whose place is kept.
pub(in super::super) const AWAY: i32 = -2;

/// Partitions by topic, each with the epoch in which the member was given it. Invariant: no topic without
/// partitions.
pub(in super::super) type Owned = BTreeMap<Uuid, BTreeMap<i32, i32>>;

#[derive(Debug, Clone, Default, PartialEq)]
pub(in super::super) struct Member {
    pub(in super::super) about: Arc<About>,
    pub(in super::super) current: Arc<Current>,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct About {
    pub(in super::super) instance_id: Option<Arc<str>>,
    pub(in super::super) rack_id: Option<Arc<str>>,
    pub(in super::super) client_id: Arc<str>,
    pub(in super::super) client_host: Arc<str>,
    /// In order, each once.
    pub(in super::super) topic_names: Box<[Arc<str>]>,
    /// Empty for none.
    pub(in super::super) topic_regex: Arc<str>,
    pub(in super::super) rebalance_timeout_ms: i32,
    pub(in super::super) assignor: Option<Arc<str>>,
    /// Of a member that speaks the classic protocol.
    pub(in super::super) classic: Option<Box<Classic>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Classic {
    pub(in super::super) session_timeout_ms: i32,
    /// Name and metadata, the one it likes best first. Invariant: there is one.
    pub(in super::super) protocols: Box<[(Arc<str>, Bytes)]>,
}

/// What a member has been given, and how far it has come with it.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Current {
    pub(in super::super) epoch: i32,
    pub(in super::super) previous_epoch: i32,
    pub(in super::super) state: State,
    pub(in super::super) assigned: Owned,
    /// What it has to give back, and has not said yet that it did.
    pub(in super::super) revoking: Owned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum State {
    /// It has all that it is to have in its epoch.
    Stable = 0,
    /// It has to give back partitions before it comes into the next epoch.
    Unrevoked = 1,
    /// It waits for partitions that others have not given back yet.
    Unreleased = 2,
    /// As a version of Kafka that is not known yet has written it.
    Unknown = 127,
}

impl Default for About {
    fn default() -> Self {
        let nothing: Arc<str> = Arc::from("");
        Self {
            instance_id: None,
            rack_id: None,
            client_id: Arc::clone(&nothing),
            client_host: Arc::clone(&nothing),
            topic_names: Box::default(),
            topic_regex: nothing,
            rebalance_timeout_ms: -1,
            assignor: None,
            classic: None,
        }
    }
}

impl Default for Current {
    fn default() -> Self {
        Self {
            epoch: 0,
            previous_epoch: 0,
            state: State::Stable,
            assigned: Owned::new(),
            revoking: Owned::new(),
        }
    }
}

impl Member {
    pub(in super::super) fn is_classic(&self) -> bool {
        self.about.classic.is_some()
    }

    /// Has it all that it is to have in this epoch?
    pub(in super::super) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.current.state == State::Stable && self.current.epoch == target_epoch
    }
}

impl About {
    pub(in super::super) fn record(&self, group_id: &str, member_id: &str) -> GroupRecord {
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let classic = self.classic.as_ref().map(|classic| ClassicMemberMetadata {
            session_timeout_ms: classic.session_timeout_ms,
            supported_protocols: classic
                .protocols
                .iter()
                .map(|(name, metadata)| ClassicProtocol {
                    name: (**name).to_owned(),
                    metadata: metadata.clone(),
                })
                .collect(),
        });
        GroupRecord::ConsumerGroupMemberMetadata {
            key: key(group_id, member_id),
            value: Some(ConsumerGroupMemberMetadataValue {
                instance_id: text(&self.instance_id),
                rack_id: text(&self.rack_id),
                client_id: (*self.client_id).to_owned(),
                client_host: (*self.client_host).to_owned(),
                subscribed_topic_names: self
                    .topic_names
                    .iter()
                    .map(|name| (**name).to_owned())
                    .collect(),
                subscribed_topic_regex: Some((*self.topic_regex).to_owned()),
                rebalance_timeout_ms: self.rebalance_timeout_ms,
                server_assignor: text(&self.assignor),
                classic_member_metadata: classic,
            }),
        }
    }

    pub(in super::super) fn of_record(value: ConsumerGroupMemberMetadataValue) -> Self {
        let text = |text: Option<String>| text.map(Arc::from);
        let classic = value.classic_member_metadata;
        let classic = classic.filter(|classic| !classic.supported_protocols.is_empty());
        Self {
            instance_id: text(value.instance_id),
            rack_id: text(value.rack_id),
            client_id: Arc::from(value.client_id),
            client_host: Arc::from(value.client_host),
            topic_names: sorted(value.subscribed_topic_names.iter().map(|name| &**name)),
            topic_regex: Arc::from(value.subscribed_topic_regex.unwrap_or_default()),
            rebalance_timeout_ms: value.rebalance_timeout_ms,
            assignor: text(value.server_assignor),
            classic: classic.map(|classic| {
                let protocols = classic.supported_protocols.iter().map(|protocol| {
                    let name = Arc::from(&*protocol.name);
                    // A copy: a slice would keep all that was read from the log with it.
                    (name, Bytes::copy_from_slice(&protocol.metadata))
                });
                Box::new(Classic {
                    session_timeout_ms: classic.session_timeout_ms,
                    protocols: protocols.collect(),
                })
            }),
        }
    }
}

impl Current {
    pub(in super::super) fn record(&self, group_id: &str, member_id: &str) -> GroupRecord {
        let partitions = |owned: &Owned| {
            let topics = owned
                .iter()
                .map(|(topic_id, partitions)| AssignedPartitions {
                    topic_id: *topic_id,
                    partitions: partitions.keys().copied().collect(),
                    assignment_epochs: Some(partitions.values().copied().collect()),
                });
            topics.collect()
        };
        GroupRecord::ConsumerGroupCurrentMemberAssignment {
            key: key(group_id, member_id),
            value: Some(ConsumerGroupCurrentMemberAssignmentValue {
                member_epoch: self.epoch,
                previous_member_epoch: self.previous_epoch,
                state: self.state as i8,
                assigned_partitions: partitions(&self.assigned),
                partitions_pending_revocation: partitions(&self.revoking),
            }),
        }
    }

    pub(in super::super) fn of_record(value: ConsumerGroupCurrentMemberAssignmentValue) -> Self {
        let epoch = value.member_epoch;
        let owned = |topics: Vec<AssignedPartitions>| {
            let mut owned = Owned::new();
            for topic in topics {
                // Kafka has written epochs since 4.3. What was assigned before counts as assigned in this one.
                let epochs = topic.assignment_epochs.unwrap_or_default();
                let epochs = epochs.into_iter().chain(std::iter::repeat(epoch));
                let partitions = topic.partitions.into_iter().zip(epochs);
                owned.entry(topic.topic_id).or_default().extend(partitions);
            }
            owned.retain(|_, partitions: &mut BTreeMap<_, _>| !partitions.is_empty());
            owned
        };
        Self {
            epoch,
            previous_epoch: value.previous_member_epoch,
            state: match value.state {
                0 => State::Stable,
                1 => State::Unrevoked,
                2 => State::Unreleased,
                _ => State::Unknown,
            },
            assigned: owned(value.assigned_partitions),
            revoking: owned(value.partitions_pending_revocation),
        }
    }

    /// The same for a static member that has gone for a while. What it had is kept for its instance id, with no
    /// word of since when: a real broker forgets that too.
    pub(in super::super) fn away(&self) -> Self {
        let mut current = Self {
            epoch: AWAY,
            revoking: Owned::new(),
            ..self.clone()
        };
        for epoch in current.assigned.values_mut().flat_map(BTreeMap::values_mut) {
            *epoch = 0;
        }
        current
    }

    /// The same for who comes back with that instance id.
    pub(in super::super) fn returning(&self) -> Self {
        Self {
            epoch: 0,
            previous_epoch: 0,
            ..self.clone()
        }
    }
}

pub(in super::super) fn key(group_id: &str, member_id: &str) -> MemberKey {
    MemberKey {
        group_id: group_id.to_owned(),
        member_id: member_id.to_owned(),
    }
}

/// What goes with a member, in the order in which Kafka takes it back.
pub(in super::super) fn tombstones(group_id: &str, member_id: &str) -> [GroupRecord; 3] {
    let key = || key(group_id, member_id);
    [
        GroupRecord::ConsumerGroupCurrentMemberAssignment {
            key: key(),
            value: None,
        },
        GroupRecord::ConsumerGroupTargetAssignmentMember {
            key: key(),
            value: None,
        },
        GroupRecord::ConsumerGroupMemberMetadata {
            key: key(),
            value: None,
        },
    ]
}

/// In order, each once.
pub(in super::super) fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Box<[Arc<str>]> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(Arc::from).collect()
}

/// Is every one of `partitions` among those owned?
pub(in super::super) fn owns_all(owned: &Owned, partitions: &Partitions) -> bool {
    partitions.iter().all(|(topic, indexes)| {
        let owned = owned.get(topic);
        let owns = |index: &i32| owned.is_some_and(|owned| owned.contains_key(index));
        indexes.iter().all(owns)
    })
}
