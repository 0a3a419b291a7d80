//! Which handler answers which request: the one table.
//!
//! Decoding, versions, encoding and ordering are done around the handlers; a handler takes a typed
//! body and returns one. A key that is not here is not in `protocol::versions` either, and so never
//! arrives.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    FetchRequest, ProduceRequest, RequestKind as Req, ResponseKind as Res,
};
use protocol::{
    messages::{DescribeLogDirsResponse, TxnOffsetCommitResponse},
    request::{Body, Header, Request},
    response::{self, Encoded},
};
use storage::log::Slice;

use super::{Context, outbox::Pending};
use crate::{
    api::{
        self,
        fetch::{self, Fetched},
        produce::{self, Outcome, Produced},
    },
    broker::Broker,
};

/// What goes to the socket.
pub(crate) enum Reply {
    /// Nothing: a Produce with `acks=0`.
    None,
    Bytes(Bytes),
    /// An answer with holes, each filled from one of the slices.
    Files(Encoded, Vec<Slice>),
    /// No answer: the connection ends, for this reason.
    Close(String),
}

impl Reply {
    /// Bytes that go to the socket.
    pub(super) fn size(&self) -> usize {
        match self {
            Reply::None | Reply::Close(_) => 0,
            Reply::Bytes(bytes) => bytes.len(),
            Reply::Files(encoded, _) => {
                encoded.head.len() + encoded.holes.iter().map(|hole| hole.size).sum::<usize>()
            }
        }
    }
}

/// How a request is answered.
pub(crate) enum Answer {
    Ready(Reply),
    /// Not ready, and the connection serves nothing else before it is.
    InOrder(Pending),
    /// Not ready, but what had to happen in order has happened: the next request may be served.
    Later(Pending),
}

pub(super) fn dispatch(broker: &Arc<Broker>, ctx: Context, request: Request) -> Answer {
    let Request { header, body } = request;
    match body {
        Body::Codec(Req::Produce(req)) => produced(broker, &ctx, header, req),
        Body::Codec(Req::Fetch(req)) => fetched(broker, &ctx, header, req),
        Body::ApiVersions(req) => {
            let response = api::api_versions::handle(broker, &ctx, req);
            Answer::Ready(encode(broker, &header, &Res::ApiVersions(response)))
        }
        Body::WriteTxnMarkers(req) => {
            let broker = Arc::clone(broker);
            Answer::InOrder(Box::pin(async move {
                let response = api::write_txn_markers::handle(&broker, &ctx, req).await;
                encode(&broker, &header, &Res::WriteTxnMarkers(response))
            }))
        }
        Body::TxnOffsetCommit(req) => {
            let broker = Arc::clone(broker);
            Answer::InOrder(Box::pin(async move {
                let response = api::txn_offset_commit::handle(&broker, &ctx, req).await;
                encode_txn_offset_commit(&broker, &header, &response)
            }))
        }
        Body::Codec(Req::DescribeLogDirs(req)) => {
            let response = api::describe_log_dirs::handle(broker, &ctx, req);
            Answer::Ready(encode_log_dirs(broker, &header, &response))
        }
        Body::Codec(body) => {
            let broker = Arc::clone(broker);
            Answer::InOrder(Box::pin(async move {
                match others(&broker, &ctx, body).await {
                    Some(body) => encode(&broker, &header, &body),
                    None => Reply::Close(format!("{:?} has no handler", header.api_key)),
                }
            }))
        }
    }
}

fn produced(broker: &Arc<Broker>, ctx: &Context, header: Header, req: ProduceRequest) -> Answer {
    match produce::start(broker, ctx, req) {
        Produced::Done(outcome) => Answer::Ready(finished(broker, &header, outcome)),
        Produced::Verifying(verifying) => {
            let broker = Arc::clone(broker);
            Answer::InOrder(Box::pin(async move {
                let outcome = verifying.answer(&broker).await;
                finished(&broker, &header, outcome)
            }))
        }
        Produced::Waiting(waiting) => {
            let broker = Arc::clone(broker);
            Answer::Later(Box::pin(async move {
                encode(&broker, &header, &Res::Produce(waiting.answer().await))
            }))
        }
    }
}

fn finished(broker: &Broker, header: &Header, outcome: Outcome) -> Reply {
    match outcome {
        Outcome::Answer(response) => encode(broker, header, &Res::Produce(response)),
        Outcome::Silence => Reply::None,
        Outcome::Close(reason) => Reply::Close(reason),
    }
}

fn fetched(broker: &Arc<Broker>, ctx: &Context, header: Header, req: FetchRequest) -> Answer {
    match fetch::start(broker, ctx, req) {
        Fetched::Ready(answer) => Answer::Ready(encode_files(broker, &header, answer)),
        Fetched::Waiting(waiting) => {
            let broker = Arc::clone(broker);
            Answer::InOrder(Box::pin(async move {
                encode_files(&broker, &header, waiting.wait().await)
            }))
        }
    }
}

fn encode(broker: &Broker, header: &Header, body: &Res) -> Reply {
    if let Some(api) = broker.metrics().api(header.api_key) {
        api.answered_with(body);
    }
    match response::encode(header, body) {
        Ok(bytes) => Reply::Bytes(bytes),
        Err(err) => Reply::Close(format!("cannot encode the answer: {err}")),
    }
}

fn encode_txn_offset_commit(
    broker: &Broker,
    header: &Header,
    body: &TxnOffsetCommitResponse,
) -> Reply {
    if let Some(api) = broker.metrics().api(header.api_key) {
        let partitions = body.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.for_each(|partition| api.answered(partition.error_code, 1));
    }
    match response::encode_txn_offset_commit(header, body) {
        Ok(bytes) => Reply::Bytes(bytes),
        Err(err) => Reply::Close(format!("cannot encode the answer: {err}")),
    }
}

fn encode_log_dirs(broker: &Broker, header: &Header, body: &DescribeLogDirsResponse) -> Reply {
    if let Some(api) = broker.metrics().api(header.api_key) {
        api.answered(body.error_code, 1);
    }
    match response::encode_log_dirs(header, body) {
        Ok(bytes) => Reply::Bytes(bytes),
        Err(err) => Reply::Close(format!("cannot encode the answer: {err}")),
    }
}

fn encode_files(broker: &Broker, header: &Header, answer: fetch::Answer) -> Reply {
    if let Some(api) = broker.metrics().api(header.api_key) {
        api.answered_with_fetch(&answer.response);
    }
    match response::encode_fetch(header, &answer.response) {
        Ok(encoded) => Reply::Files(encoded, answer.slices),
        Err(err) => Reply::Close(format!("cannot encode the answer: {err}")),
    }
}

/// Every request that is not among those in [`dispatch`], one line each.
async fn others(broker: &Arc<Broker>, ctx: &Context, body: Req) -> Option<Res> {
    use api::*;
    Some(match body {
        Req::ListOffsets(req) => Res::ListOffsets(list_offsets::handle(broker, ctx, req).await),
        Req::Metadata(req) => Res::Metadata(metadata::handle(broker, ctx, req)),
        Req::OffsetCommit(req) => Res::OffsetCommit(offset_commit::handle(broker, ctx, req).await),
        Req::OffsetFetch(req) => Res::OffsetFetch(offset_fetch::handle(broker, ctx, req).await),
        Req::FindCoordinator(req) => {
            Res::FindCoordinator(find_coordinator::handle(broker, ctx, req))
        }
        Req::JoinGroup(req) => Res::JoinGroup(join_group::handle(broker, ctx, req).await),
        Req::Heartbeat(req) => Res::Heartbeat(heartbeat::handle(broker, ctx, req).await),
        Req::LeaveGroup(req) => Res::LeaveGroup(leave_group::handle(broker, ctx, req).await),
        Req::SyncGroup(req) => Res::SyncGroup(sync_group::handle(broker, ctx, req).await),
        Req::DescribeGroups(req) => {
            Res::DescribeGroups(describe_groups::handle(broker, ctx, req).await)
        }
        Req::ListGroups(req) => Res::ListGroups(list_groups::handle(broker, ctx, req).await),
        Req::CreateTopics(req) => Res::CreateTopics(create_topics::handle(broker, ctx, req).await),
        Req::DeleteTopics(req) => Res::DeleteTopics(delete_topics::handle(broker, ctx, req).await),
        Req::DeleteRecords(req) => Res::DeleteRecords(delete_records::handle(broker, ctx, req)),
        Req::InitProducerId(req) => {
            Res::InitProducerId(init_producer_id::handle(broker, ctx, req).await)
        }
        Req::AddPartitionsToTxn(req) => {
            Res::AddPartitionsToTxn(add_partitions_to_txn::handle(broker, ctx, req).await)
        }
        Req::AddOffsetsToTxn(req) => {
            Res::AddOffsetsToTxn(add_offsets_to_txn::handle(broker, ctx, req).await)
        }
        Req::EndTxn(req) => Res::EndTxn(end_txn::handle(broker, ctx, req).await),
        Req::OffsetForLeaderEpoch(req) => {
            Res::OffsetForLeaderEpoch(offset_for_leader_epoch::handle(broker, ctx, req))
        }
        Req::DescribeConfigs(req) => {
            Res::DescribeConfigs(describe_configs::handle(broker, ctx, req).await)
        }
        Req::AlterConfigs(req) => Res::AlterConfigs(alter_configs::handle(broker, ctx, req).await),
        Req::AlterReplicaLogDirs(req) => {
            Res::AlterReplicaLogDirs(alter_replica_log_dirs::handle(broker, ctx, req))
        }
        Req::CreatePartitions(req) => {
            Res::CreatePartitions(create_partitions::handle(broker, ctx, req).await)
        }
        Req::DeleteGroups(req) => Res::DeleteGroups(delete_groups::handle(broker, req).await),
        Req::ElectLeaders(req) => Res::ElectLeaders(elect_leaders::handle(broker, ctx, req).await),
        Req::IncrementalAlterConfigs(req) => {
            Res::IncrementalAlterConfigs(incremental_alter_configs::handle(broker, ctx, req).await)
        }
        Req::ListPartitionReassignments(req) => {
            Res::ListPartitionReassignments(list_partition_reassignments::handle(broker, ctx, req))
        }
        Req::OffsetDelete(req) => Res::OffsetDelete(offset_delete::handle(broker, req).await),
        Req::DescribeQuorum(req) => Res::DescribeQuorum(describe_quorum::handle(broker, ctx, req)),
        Req::UpdateFeatures(req) => {
            Res::UpdateFeatures(update_features::handle(broker, ctx, req).await)
        }
        Req::DescribeCluster(req) => {
            Res::DescribeCluster(describe_cluster::handle(broker, ctx, req))
        }
        Req::DescribeProducers(req) => {
            Res::DescribeProducers(describe_producers::handle(broker, ctx, req))
        }
        Req::UnregisterBroker(req) => {
            Res::UnregisterBroker(unregister_broker::handle(broker, ctx, req).await)
        }
        Req::DescribeTransactions(req) => {
            Res::DescribeTransactions(describe_transactions::handle(broker, ctx, req).await)
        }
        Req::ListTransactions(req) => {
            Res::ListTransactions(list_transactions::handle(broker, req).await)
        }
        Req::ConsumerGroupHeartbeat(req) => {
            Res::ConsumerGroupHeartbeat(consumer_group_heartbeat::handle(broker, ctx, req).await)
        }
        Req::ConsumerGroupDescribe(req) => {
            Res::ConsumerGroupDescribe(consumer_group_describe::handle(broker, ctx, req).await)
        }
        Req::ListConfigResources(req) => {
            Res::ListConfigResources(list_config_resources::handle(broker, ctx, req))
        }
        Req::DescribeTopicPartitions(req) => {
            Res::DescribeTopicPartitions(describe_topic_partitions::handle(broker, ctx, req))
        }
        _ => return None,
    })
}
