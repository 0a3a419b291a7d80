//! DescribeLogDirs (key 35), v1-v5: the log directories of this broker, and what is in them.
//!
//! - Every directory is answered, whatever partitions were asked for (none, or null for all): this is also
//!   how clients learn where a replica could be moved to. Partitions that are not here are left out.
//! - A directory that has failed is answered with KAFKA_STORAGE_ERROR and nothing in it.
//! - A replica that is on its way to another directory is in both; in the new one it is a "future" replica,
//!   and its lag is what has still to be copied.
//!
//! Versions: v3 a code for the whole answer, v4 size and free space of the directory's file system (KIP-827), v5
//! whether it is cordoned (KIP-1066).

use std::{
    collections::{HashMap, HashSet},
    path::{self, Path},
    sync::Arc,
};

use kafka_protocol::messages::{
    DescribeLogDirsRequest, describe_log_dirs_request::DescribableLogDirTopic,
};
use protocol::{
    error::ErrorCode,
    messages::{
        DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult,
        DescribeLogDirsTopic,
    },
};
use replication::{
    partition::{Name, Partition},
    partitions::Relocation,
};
use storage::directory::Directory;

use crate::{broker::Broker, server::Context};

pub(crate) fn handle(
    broker: &Broker,
    _ctx: &Context,
    req: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let asked = req.topics.map(asked_for);
    let is_asked = |replica: &Replica| match &asked {
        None => true,
        Some(asked) => asked
            .get(&*replica.name.topic)
            .is_some_and(|indexes| indexes.contains(&replica.name.index)),
    };
    let (partitions, image) = (broker.partitions(), broker.image());
    let current = partitions
        .all()
        .into_iter()
        .map(|partition| Replica::current(&partition));
    let future = partitions
        .relocations()
        .into_iter()
        .map(|underway| Replica::future(&underway));
    let mut replicas: Vec<Replica> = current.chain(future).filter(is_asked).collect();
    replicas.sort_by(|a, b| (&a.name.topic, a.name.index).cmp(&(&b.name.topic, b.name.index)));
    let results = partitions
        .directories()
        .iter()
        .map(|directory| DescribeLogDirsResult {
            is_cordoned: image.has_cordoned(broker.node_id(), directory.id()),
            ..describe(directory, &replicas)
        });
    let unusable = partitions.unusable().iter().map(|path| failed(path));
    DescribeLogDirsResponse {
        results: results.chain(unusable).collect(),
        ..DescribeLogDirsResponse::default()
    }
}

/// A replica in a directory: the one that serves, or one that is on its way there.
struct Replica {
    name: Name,
    directory: Arc<Directory>,
    size: u64,
    lag: i64,
    is_future: bool,
}

impl Replica {
    fn current(partition: &Partition) -> Replica {
        let home = partition.home();
        Replica {
            name: partition.name().clone(),
            directory: Arc::clone(&home.directory),
            size: home.log.size(),
            lag: 0,
            is_future: false,
        }
    }

    fn future(underway: &Relocation) -> Replica {
        let (size, lag) = underway.progress();
        Replica {
            name: underway.partition().name().clone(),
            directory: Arc::clone(underway.directory()),
            size,
            lag,
            is_future: true,
        }
    }
}

fn asked_for(topics: Vec<DescribableLogDirTopic>) -> HashMap<String, HashSet<i32>> {
    let mut asked: HashMap<String, HashSet<i32>> = HashMap::new();
    for topic in topics {
        asked
            .entry(topic.topic.to_string())
            .or_default()
            .extend(topic.partitions);
    }
    asked
}

/// `replicas` are in the order of the answer.
fn describe(directory: &Arc<Directory>, replicas: &[Replica]) -> DescribeLogDirsResult {
    let space = match directory.space() {
        Ok(space) if !directory.is_offline() => space,
        _ => return failed(directory.path()),
    };
    let mut topics: Vec<DescribeLogDirsTopic> = Vec::new();
    for replica in replicas
        .iter()
        .filter(|it| Arc::ptr_eq(&it.directory, directory))
    {
        let partition = DescribeLogDirsPartition {
            partition_index: replica.name.index,
            partition_size: saturated(replica.size),
            offset_lag: replica.lag,
            is_future_key: replica.is_future,
        };
        match topics.last_mut() {
            Some(topic) if *topic.name == *replica.name.topic => topic.partitions.push(partition),
            _ => topics.push(DescribeLogDirsTopic {
                name: replica.name.topic.to_string(),
                partitions: vec![partition],
            }),
        }
    }
    DescribeLogDirsResult {
        topics,
        total_bytes: saturated(space.total),
        usable_bytes: saturated(space.usable),
        log_dir: shown(directory.path()),
        ..DescribeLogDirsResult::default()
    }
}

fn failed(path: &Path) -> DescribeLogDirsResult {
    DescribeLogDirsResult {
        error_code: ErrorCode::KafkaStorageError.code(),
        log_dir: shown(path),
        ..DescribeLogDirsResult::default()
    }
}

/// Clients name a directory by this path when they move a replica, wherever they are themselves.
fn shown(path: &Path) -> String {
    let path = path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.to_string_lossy().into_owned()
}

fn saturated(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
