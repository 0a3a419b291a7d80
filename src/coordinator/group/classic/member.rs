//! A member of a group of the classic protocol.
//!
//! What a request or a record brings is copied: a slice would keep the whole frame, or the whole of what was read
//! from the log, for as long as the member lives.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use protocol::records::group::MemberMetadata;

use super::super::request::Client;
use crate::coordinator::Ticket;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) instance_id: Option<Arc<str>>,
    client_id: Arc<str>,
    client_host: Box<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// What it can be assigned partitions by, the one it likes best first.
    protocols: Box<[Protocol]>,
    pub(super) assignment: Bytes,
    /// It has joined, and in no generation yet: it cannot send heartbeats.
    pub(super) is_new: bool,
    /// Its JoinGroup, which is answered when the generation begins.
    pub(super) joining: Option<Ticket>,
    /// Its SyncGroup, which is answered when there is an assignment.
    pub(super) syncing: Option<Ticket>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Protocol {
    name: Box<str>,
    metadata: Bytes,
}

impl Member {
    pub(super) fn new(client: &Client, join: &JoinGroupRequest) -> Self {
        let mut member = Self {
            instance_id: join.group_instance_id.as_ref().map(|id| Arc::from(&**id)),
            client_id: Arc::clone(&client.id),
            client_host: client.host().into(),
            rebalance_timeout_ms: 0,
            session_timeout_ms: 0,
            protocols: Box::default(),
            assignment: Bytes::new(),
            is_new: true,
            joining: None,
            syncing: None,
        };
        member.update(join);
        member
    }

    /// As a record has it, in a group that has chosen `protocol`.
    pub(super) fn loaded(metadata: &MemberMetadata, protocol: &str) -> Self {
        let mut member = Self {
            instance_id: None,
            client_id: Arc::from(&*metadata.client_id),
            client_host: (&*metadata.client_host).into(),
            rebalance_timeout_ms: 0,
            session_timeout_ms: 0,
            protocols: Box::default(),
            assignment: Bytes::new(),
            is_new: false,
            joining: None,
            syncing: None,
        };
        member.follow(metadata, protocol);
        member
    }

    /// What is in the record holds. What is not, its other protocols and what it waits for, stays: a record that has
    /// just been made of this member changes nothing but the assignment, and of two that are loaded the later counts.
    pub(super) fn follow(&mut self, metadata: &MemberMetadata, protocol: &str) {
        self.instance_id = metadata.group_instance_id.as_deref().map(Arc::from);
        if *self.client_id != *metadata.client_id {
            self.client_id = Arc::from(&*metadata.client_id);
        }
        if *self.client_host != *metadata.client_host {
            self.client_host = (&*metadata.client_host).into();
        }
        self.session_timeout_ms = metadata.session_timeout;
        // Records of long ago know of one time-out.
        self.rebalance_timeout_ms = match metadata.rebalance_timeout {
            -1 => metadata.session_timeout,
            timeout => timeout,
        };
        if self.metadata(protocol) != Some(&metadata.subscription) {
            self.protocols = Box::new([Protocol {
                name: protocol.into(),
                metadata: copied(&metadata.subscription),
            }]);
        }
        self.assignment = copied(&metadata.assignment);
    }

    /// The same member with what it says now.
    pub(super) fn update(&mut self, join: &JoinGroupRequest) {
        self.rebalance_timeout_ms = join.rebalance_timeout_ms;
        self.session_timeout_ms = join.session_timeout_ms;
        if !self.matches(join) {
            let protocols = join.protocols.iter().map(|protocol| Protocol {
                name: (&*protocol.name).into(),
                metadata: copied(&protocol.metadata),
            });
            self.protocols = protocols.collect();
        }
    }

    /// Who takes the place of this static member: what it says is new, what it was assigned is not.
    pub(super) fn replaced_by(&self, join: &JoinGroupRequest) -> Self {
        let mut member = Self {
            instance_id: self.instance_id.clone(),
            client_id: Arc::clone(&self.client_id),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: 0,
            session_timeout_ms: 0,
            protocols: self.protocols.clone(),
            assignment: self.assignment.clone(),
            is_new: false,
            joining: None,
            syncing: None,
        };
        member.update(join);
        member
    }

    /// Has it said the same before?
    pub(super) fn matches(&self, join: &JoinGroupRequest) -> bool {
        let same = |(own, sent): (&Protocol, &JoinGroupRequestProtocol)| {
            *own.name == *sent.name && own.metadata == sent.metadata
        };
        self.protocols.len() == join.protocols.len()
            && self.protocols.iter().zip(&join.protocols).all(same)
    }

    /// The names of its protocols, the one it likes best first.
    pub(super) fn protocols(&self) -> impl Iterator<Item = &str> + Clone {
        self.protocols.iter().map(|protocol| &*protocol.name)
    }

    /// The same with what it says for the case that each is chosen.
    pub(super) fn offers(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        let protocols = self.protocols.iter();
        protocols.map(|protocol| (&*protocol.name, &protocol.metadata))
    }

    /// What it says for the case that this protocol is chosen.
    pub(super) fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        let mut found = self.protocols.iter();
        let found = found.find(|own| *own.name == *protocol)?;
        Some(&found.metadata)
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(super) fn client_host(&self) -> &str {
        &self.client_host
    }

    /// Who waits for the group is alive, unless it is new: its connection may have ended, and it cannot know the id
    /// under which it waits.
    pub(super) fn is_alive_without_heartbeats(&self) -> bool {
        !self.is_new && (self.joining.is_some() || self.syncing.is_some())
    }

    /// As it is written down, with this assignment.
    pub(super) fn record(&self, id: &str, protocol: &str, assignment: Bytes) -> MemberMetadata {
        MemberMetadata {
            member_id: id.to_owned(),
            group_instance_id: self.instance_id.as_deref().map(str::to_owned),
            client_id: (*self.client_id).to_owned(),
            client_host: (*self.client_host).to_owned(),
            rebalance_timeout: self.rebalance_timeout_ms,
            session_timeout: self.session_timeout_ms,
            subscription: self.metadata(protocol).cloned().unwrap_or_default(),
            assignment,
        }
    }
}

pub(super) fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
