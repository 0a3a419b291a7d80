//! `sordini metadata-quorum`: what `kafka-metadata-quorum.sh` does, of which describing.

use clap::{Args, Subcommand};
use kafka_protocol::messages::{
    DescribeQuorumRequest,
    describe_quorum_request::{PartitionData, TopicData},
    describe_quorum_response::{self, Node, ReplicaState},
};
use storage::properties::encode_uuid;
use uuid::Uuid;

use super::{Connection, Failure, console::Console};
use crate::{
    client::{refused, topic_name},
    clock,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Describe the quorum
    Describe {
        /// Who leads, who votes, how far behind they are
        #[arg(long)]
        status: bool,
        /// A line for each node
        #[arg(long)]
        replication: bool,
        /// Times as "5 ms ago"
        #[arg(long)]
        human_readable: bool,
    },
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    let Action::Describe {
        status,
        replication,
        human_readable,
    } = options.action;
    if !status && !replication {
        return Err(Failure::Usage(
            "One of --status or --replication must be specified with describe sub-command"
                .to_owned(),
        ));
    }
    let mut client = options
        .connection
        .open("sordini-metadata-quorum", console)
        .await?;
    let cluster_id = client.metadata(Some(&[])).await?.cluster_id;
    let partition = PartitionData::default().with_partition_index(0);
    let topic = TopicData::default()
        .with_topic_name(topic_name("__cluster_metadata"))
        .with_partitions(vec![partition]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    let response = client.any(2, &request).await?;
    refused(response.error_code, response.error_message.as_ref())?;
    let nodes = response.nodes;
    let quorum = response
        .topics
        .into_iter()
        .flat_map(|topic| topic.partitions)
        .next();
    let quorum = quorum.ok_or_else(|| {
        Failure::Refused("the answer does not describe __cluster_metadata".to_owned())
    })?;
    refused(quorum.error_code, quorum.error_message.as_ref())?;
    if replication {
        for line in replication_lines(&quorum, human_readable, clock::now()) {
            console.line(&line)?;
        }
        return Ok(());
    }
    let lag = lag(&quorum);
    let voters: Vec<String> = quorum
        .current_voters
        .iter()
        .map(|voter| voter_text(voter, &nodes))
        .collect();
    let observers: Vec<String> = quorum
        .observers
        .iter()
        .map(|observer| voter_text(observer, &[]))
        .collect();
    for (name, value) in [
        (
            "ClusterId:",
            cluster_id.map(|id| id.to_string()).unwrap_or_default(),
        ),
        ("LeaderId:", quorum.leader_id.0.to_string()),
        ("LeaderEpoch:", quorum.leader_epoch.to_string()),
        ("HighWatermark:", quorum.high_watermark.to_string()),
        ("MaxFollowerLag:", lag.0.to_string()),
        ("MaxFollowerLagTimeMs:", lag.1.to_string()),
        ("CurrentVoters:", format!("[{}]", voters.join(", "))),
        ("CurrentObservers:", format!("[{}]", observers.join(", "))),
    ] {
        console.line(&format!("{name:<23} {value}"))?;
    }
    Ok(())
}

/// How far the slowest voter is behind the leader: in records, and in milliseconds or -1.
fn lag(quorum: &describe_quorum_response::PartitionData) -> (i64, i64) {
    let voters = &quorum.current_voters;
    let leader = voters
        .iter()
        .find(|voter| voter.replica_id == quorum.leader_id);
    let slowest = voters.iter().min_by_key(|voter| voter.log_end_offset);
    let (Some(leader), Some(slowest)) = (leader, slowest) else {
        return (0, -1);
    };
    let records = leader.log_end_offset - slowest.log_end_offset;
    let ms = match (
        leader.last_caught_up_timestamp,
        slowest.last_caught_up_timestamp,
    ) {
        _ if leader.replica_id == slowest.replica_id => 0,
        (at, then) if 0 <= at && 0 <= then => at - then,
        _ => -1,
    };
    (records, ms)
}

fn voter_text(voter: &ReplicaState, nodes: &[Node]) -> String {
    let mut fields = vec![format!("\"id\": {}", voter.replica_id.0)];
    if voter.replica_directory_id != Uuid::nil() {
        fields.push(format!(
            "\"directoryId\": \"{}\"",
            encode_uuid(voter.replica_directory_id)
        ));
    }
    let node = nodes.iter().find(|node| node.node_id == voter.replica_id);
    if let Some(node) = node.filter(|node| !node.listeners.is_empty()) {
        let endpoint = |listener: &describe_quorum_response::Listener| {
            format!(
                "\"{}://{}:{}\"",
                &*listener.name, &*listener.host, listener.port
            )
        };
        let endpoints: Vec<String> = node.listeners.iter().map(endpoint).collect();
        fields.push(format!("\"endpoints\": [{}]", endpoints.join(", ")));
    }
    format!("{{{}}}", fields.join(", "))
}

/// Columns as wide as their widest cell, each with a tab after it.
fn replication_lines(
    quorum: &describe_quorum_response::PartitionData,
    human_readable: bool,
    now: i64,
) -> Vec<String> {
    let is_leader = |state: &&ReplicaState| state.replica_id == quorum.leader_id;
    let leader = quorum.current_voters.iter().find(is_leader);
    let end = leader.map_or(0, |leader| leader.log_end_offset);
    let followers = quorum
        .current_voters
        .iter()
        .filter(|state| !is_leader(state));
    let time = |time: i64| match human_readable && 0 <= time {
        true => format!("{} ms ago", now - time),
        false => time.to_string(),
    };
    let row = |state: &ReplicaState, status: &str| {
        [
            state.replica_id.0.to_string(),
            encode_uuid(state.replica_directory_id),
            state.log_end_offset.to_string(),
            (end - state.log_end_offset).to_string(),
            time(state.last_fetch_timestamp),
            time(state.last_caught_up_timestamp),
            status.to_owned(),
        ]
    };
    let headings = [
        "NodeId",
        "DirectoryId",
        "LogEndOffset",
        "Lag",
        "LastFetchTimestamp",
        "LastCaughtUpTimestamp",
        "Status",
    ];
    let mut rows = vec![headings.map(str::to_owned)];
    rows.extend(leader.map(|state| row(state, "Leader")));
    rows.extend(followers.map(|state| row(state, "Follower")));
    rows.extend(quorum.observers.iter().map(|state| row(state, "Observer")));
    let widths: Vec<usize> = (0..headings.len())
        .map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths);
        cells
            .map(|(cell, width)| format!("{cell:<width$}\t"))
            .collect()
    };
    rows.iter().map(line).collect()
}
