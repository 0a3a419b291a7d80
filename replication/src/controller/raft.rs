//! How the controllers agree: Raft, by openraft.
//!
//! - What they agree on is record batches: an entry holds the very bytes that are appended to the
//!   metadata log, but for base offset and leader epoch, which follow from the entry's place.
//! - At most one leader in a term (`single-term-leader`), because the term is the leader epoch.
//! - A quorum of one elects itself at once, keeps no timers, and talks to nobody.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{BasicNode, CommittedLeaderId, Config, RaftMetrics, SnapshotPolicy, error::Fatal};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::watch;

use super::{checkpoint::Checkpoint, raft_log::RaftLog, raft_network::Peers, raft_state::State};
use crate::error::Error;

openraft::declare_raft_types!(
    pub(super) TypeConfig:
        D = Batches,
        R = (),
        NodeId = i32,
        Node = BasicNode,
        SnapshotData = Checkpoint,
);

pub(super) type NodeId = i32;
pub(super) type Raft = openraft::Raft<TypeConfig>;
pub(super) type Entry = openraft::Entry<TypeConfig>;
pub(super) type LogId = openraft::LogId<NodeId>;
pub(super) type Vote = openraft::Vote<NodeId>;
pub(super) type Membership = openraft::Membership<NodeId, BasicNode>;
pub(super) type StoredMembership = openraft::StoredMembership<NodeId, BasicNode>;

/// Record batches, one after the other, at offsets counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batches(pub(super) Bytes);

impl Serialize for Batches {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Batches {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Batches, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|bytes| Batches(bytes.into()))
    }
}

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, NodeId::default()), index)
}

/// Starts Raft and returns when this node, the only voter, leads.
pub(super) async fn start(node_id: NodeId, log: RaftLog, state: State) -> Result<Raft, Error> {
    let config = Config {
        cluster_name: "sordini".to_owned(),
        // The only voter has nobody to send heartbeats to, and nobody's to wait for.
        enable_tick: false,
        // Checkpoints are due by bytes and age, which the controller watches.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        ..Config::default()
    };
    let raft = Raft::new(node_id, Arc::new(config), Peers, log, state)
        .await
        .map_err(|err| fatal(&err))?;
    // Answered once Raft has read its log, where it may find that it leads already.
    raft.is_initialized().await.map_err(|err| fatal(&err))?;
    if !raft.metrics().borrow().state.is_leader() {
        raft.trigger().elect().await.map_err(|err| fatal(&err))?;
    }
    raft.wait(Some(Duration::from_secs(30)))
        .metrics(
            |metrics| metrics.current_leader == Some(node_id),
            "election",
        )
        .await
        .map_err(|err| fatal(&err))?;
    Ok(raft)
}

pub(super) type Metrics = watch::Receiver<RaftMetrics<NodeId, BasicNode>>;

/// Completes when Raft has ended though nobody has told it to, and says why.
pub(super) async fn failed(mut metrics: Metrics) -> String {
    let is_over = |metrics: &RaftMetrics<NodeId, BasicNode>| {
        let state = &metrics.running_state;
        matches!(state, Err(fatal) if !matches!(fatal, Fatal::Stopped))
    };
    if let Ok(metrics) = metrics.wait_for(is_over).await
        && let Err(fatal) = &metrics.running_state
    {
        return format!("the controller has failed: {fatal}");
    }
    // Told to end.
    std::future::pending().await
}

pub(super) fn fatal(err: &impl std::error::Error) -> Error {
    tracing::error!(error = %err, "the controller's Raft has failed");
    Error::Stopped
}
