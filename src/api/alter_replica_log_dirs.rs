//! AlterReplicaLogDirs (key 34), v1-v2: move replicas to another log directory of this broker (KIP-113).
//!
//! - The answer only says that the move has begun. The replica is copied in the background and keeps
//!   serving; DescribeLogDirs shows how far the copy is.
//! - Who names the directory the replica is in calls off a move that is under way.
//! - The directory is looked at before the partition: an unknown one is LOG_DIR_NOT_FOUND for whatever is
//!   to be moved there.

use std::{path, sync::Arc};

use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse,
    alter_replica_log_dirs_response::{
        AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
    },
};

use storage::directory::Directory;

use super::{error::Error, merge::merged};
use crate::{broker::Broker, clock, server::Context};

pub(crate) fn handle(
    broker: &Broker,
    _ctx: &Context,
    req: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let results = req.dirs.into_iter().flat_map(|dir| {
        let to = directory(broker, &dir.path);
        dir.topics.into_iter().map(move |topic| {
            let partitions = topic.partitions.iter().map(|&index| {
                let outcome = relocate(broker, &topic.name, index, to);
                AlterReplicaLogDirPartitionResult::default()
                    .with_partition_index(index)
                    .with_error_code(outcome.err().map_or(0, |err| err.code().code()))
            });
            let partitions = partitions.collect();
            AlterReplicaLogDirTopicResult::default()
                .with_topic_name(topic.name)
                .with_partitions(partitions)
        })
    });
    // A topic may be named under several directories, and is answered once.
    let results = merged(
        results,
        |result| result.topic_name.clone(),
        |first, later| first.partitions.extend(later.partitions),
    );
    AlterReplicaLogDirsResponse::default().with_results(results)
}

/// `None` if no directory has this path. It is byte for byte the one that DescribeLogDirs answers: a real broker does
/// not find a directory by a path that only means the same.
fn directory<'a>(broker: &'a Broker, path: &str) -> Option<&'a Arc<Directory>> {
    let is_meant =
        |known: &path::Path| path::absolute(known).is_ok_and(|known| known.as_os_str() == path);
    let directories = broker.partitions().directories();
    directories
        .iter()
        .find(|directory| is_meant(directory.path()))
}

fn relocate(
    broker: &Broker,
    topic: &str,
    index: i32,
    to: Option<&Arc<Directory>>,
) -> Result<(), Error> {
    let to = to.ok_or(Error::LogDirNotFound)?;
    if to.is_offline() {
        return Err(Error::Offline);
    }
    let partition = broker.partition(topic, index)?;
    if broker.image().has_cordoned(broker.node_id(), to.id()) {
        return Err(Error::CordonedLogDir);
    }
    broker
        .partitions()
        .relocate(&partition, Arc::clone(to), clock::now);
    Ok(())
}
