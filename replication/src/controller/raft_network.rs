//! How controllers reach each other: not at all, since the quorum has one voter.
//!
//! Raft never asks for a peer then. The controller refuses to start with more voters, so that this
//! answer is never given either.

use openraft::{
    BasicNode, RaftNetwork, RaftNetworkFactory, Snapshot,
    error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
};

use super::raft::{NodeId, TypeConfig, Vote};

pub(super) struct Peers;

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peers;

    async fn new_client(&mut self, _: NodeId, _: &BasicNode) -> Peers {
        Peers
    }
}

impl RaftNetwork<TypeConfig> for Peers {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, BasicNode, RaftError<NodeId>>> {
        Err(unreachable().into())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, BasicNode, RaftError<NodeId>>> {
        Err(unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot<TypeConfig>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        Err(unreachable().into())
    }
}

fn unreachable() -> Unreachable {
    Unreachable::new(&std::io::Error::from(std::io::ErrorKind::HostUnreachable))
}
