//! What of a classic group goes with it into the consumer protocol, and comes back from it.

use std::sync::Arc;

use bytes::Bytes;

use super::ClassicGroup;
use crate::coordinator::{Env, group::GroupCoordinator};

/// What a member is, for a group of another kind.
pub(in super::super) struct Portrait<'a, P> {
    pub(in super::super) id: &'a Arc<str>,
    pub(in super::super) instance_id: Option<&'a str>,
    pub(in super::super) client_id: &'a str,
    pub(in super::super) client_host: &'a str,
    pub(in super::super) rebalance_timeout_ms: i32,
    pub(in super::super) session_timeout_ms: i32,
    /// Name and metadata, the one it likes best first.
    pub(in super::super) protocols: P,
    /// What it says for the group's protocol, or if it has none yet for the one it likes best.
    pub(in super::super) metadata: &'a Bytes,
    pub(in super::super) assignment: &'a Bytes,
}

impl ClassicGroup {
    pub(in super::super) fn generation(&self) -> i32 {
        self.generation
    }

    pub(in super::super) fn portraits(
        &self,
    ) -> impl Iterator<Item = Portrait<'_, impl Iterator<Item = (&str, &Bytes)>>> {
        static NOTHING: Bytes = Bytes::new();
        self.members.iter().map(|(id, member)| {
            let chosen = self.protocol.as_deref();
            let chosen = chosen.and_then(|protocol| member.metadata(protocol));
            let first = || member.offers().next().map(|(_, metadata)| metadata);
            Portrait {
                id,
                instance_id: member.instance_id.as_deref(),
                client_id: member.client_id(),
                client_host: member.client_host(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                protocols: member.offers(),
                metadata: chosen.or_else(first).unwrap_or(&NOTHING),
                assignment: &member.assignment,
            }
        })
    }
}

impl GroupCoordinator {
    /// A group has come from the consumer protocol. Its members are minded from now on, and called if it has to be
    /// assigned anew.
    pub(in super::super) fn classic_adopted(
        &mut self,
        group_id: &str,
        rebalance: bool,
        env: &mut Env<'_>,
    ) {
        let Some((group, mut turn)) = self.classic(group_id, env) else {
            return;
        };
        for (id, member) in &group.members {
            turn.expect(id, member.session_timeout_ms);
        }
        if rebalance {
            // Nobody waits yet, so this answers and writes nothing.
            group.prepare_rebalance(&mut turn, "it has come from the consumer protocol");
        }
    }
}
