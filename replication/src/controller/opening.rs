//! What the controller finds in its directory, and how it makes that its own.
//!
//! ```text
//! __cluster_metadata-0/
//!   00000000000000000000.log ...    the metadata log, ours and Apache Kafka's alike
//!   *.checkpoint  quorum-state      Kafka's; we write checkpoints too, and leave quorum-state
//!   raft/                           our database: who has it is the controller of this log
//!   raft.new/                       the same while it is being made
//! ```
//!
//! Taking over a log from Apache Kafka is one rename: the database is made elsewhere, whole and on
//! disk, before it gets its name, and until then nothing of Kafka's has been changed. Kafka passes
//! over `raft`, so it can open the directory again; what it then wrote is taken over like the first
//! time.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use openraft::BasicNode;
use storage::disk::{Disk, Mode};

use super::{
    ControllerConfig, blocking,
    checkpoint::{BOOTSTRAP, Checkpoint},
    metadata_log::{MetadataLog, TOPIC_ID, log_config},
    proposer::now,
    raft::{Membership, StoredMembership, Vote, log_id},
    raft_log::{Base, Closed, RaftLog},
};
use crate::{
    cluster::{ClusterImage, METADATA_VERSION},
    error::Error,
};

const LOG: &str = "__cluster_metadata-0";
const DATABASE: &str = "raft";
const NEW_DATABASE: &str = "raft.new";
const OLD_DATABASE: &str = "raft.old";
const QUORUM_STATE: &str = "quorum-state";

/// What starting a controller on a directory will do. Its text says it to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// There is no cluster yet: one begins.
    New,
    /// `kafka-storage format` was here: the cluster it described begins.
    Formatted,
    /// Our own: it goes on.
    Ours,
    /// An Apache Kafka node's: it is taken over.
    Kafkas,
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Opening::New => "no metadata yet: a new cluster begins",
            Opening::Formatted => "formatted for Apache Kafka: the cluster begins as formatted",
            Opening::Ours => "metadata of this node: it goes on",
            Opening::Kafkas => {
                "metadata of an Apache Kafka node: it is taken over. A database (raft) is added \
                 beside its log in one step, and the log goes on where it ends; no file of Apache \
                 Kafka's is removed, and it can open the directory again"
            }
        })
    }
}

/// Looks, and touches nothing.
pub fn opening(disk: &dyn Disk, log_dir: &Path) -> Result<Opening, Error> {
    let root = list(disk, log_dir)?;
    let beginning = match root.iter().any(|name| name == BOOTSTRAP) {
        true => Opening::Formatted,
        false => Opening::New,
    };
    if root.iter().all(|name| name != LOG) {
        return Ok(beginning);
    }
    let dir = log_dir.join(LOG);
    let names = list(disk, &dir)?;
    if names.iter().any(|name| name == DATABASE) {
        return Ok(Opening::Ours);
    }
    let mut has_records = false;
    for name in names.iter().filter(|name| name.ends_with(".log")) {
        let path = dir.join(name);
        let size = disk
            .size(&path)
            .map_err(|err| io_error("stat", &path, err))?;
        has_records |= 0 < size;
    }
    let checkpoints = Checkpoint::list(disk, &dir)?;
    Ok(match checkpoints.last() {
        _ if has_records => Opening::Kafkas,
        Some(checkpoint) if 0 < checkpoint.end_offset => Opening::Kafkas,
        Some(_) => Opening::Formatted,
        None => beginning,
    })
}

pub(super) struct Opened {
    pub(super) log: MetadataLog,
    pub(super) database: (RaftLog, Closed),
}

/// Opens log and database, at the same time where they do not depend on each other.
pub(super) async fn open(config: &ControllerConfig) -> Result<Opened, Error> {
    let found = opening(&*config.disk, config.directory.path())?;
    tracing::info!(dir = %config.directory.path().display(), "{found}");

    let dir = config.directory.path().join(LOG);
    let takeover = Takeover {
        disk: config.disk.clone(),
        node_id: config.node_id,
        cluster_id: config.cluster_id.clone(),
        voters: config.voters.clone(),
        metadata_versions: config
            .supported_features
            .get(METADATA_VERSION)
            .copied()
            .unwrap_or_default(),
    };
    let log = {
        let (directory, disk) = (config.directory.clone(), config.disk.clone());
        let (dir, log, history) = (dir.clone(), log_config(&config.log), config.history);
        move || {
            let log = directory.open_log(LOG, log, now())?;
            if directory.topic_id(LOG)?.is_none() {
                directory.set_topic_id(LOG, TOPIC_ID)?;
            }
            MetadataLog::new(log, disk, &dir, history)
        }
    };
    if found == Opening::Kafkas {
        return blocking(move || {
            let log = log()?;
            takeover.run(log)
        })
        .await;
    }
    if matches!(found, Opening::New | Opening::Formatted) {
        // RocksDB makes its own directory, but not the one around it.
        match config.disk.create_dir(&dir) {
            Err(err) if err.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(io_error("create", &dir, err));
            }
            _ => {}
        }
    }
    let database = dir.join(DATABASE);
    let (log, database) =
        tokio::try_join!(blocking(log), blocking(move || RaftLog::open(&database)),)?;
    blocking(move || {
        let raft_log = &database.0;
        let owner = takeover.owner();
        match raft_log.owner()? {
            None => raft_log.begin(&owner, takeover.node_id, takeover.membership())?,
            Some(found) if found == owner => {}
            Some(found) => {
                return Err(Error::Setup(format!(
                    "the controller's database in {} belongs to {found}, and this is {owner}",
                    dir.display()
                )));
            }
        }
        takeover.unless_foreign(log, database)
    })
    .await
}

/// Makes a database for a log that somebody else has written.
struct Takeover {
    disk: Arc<dyn Disk>,
    node_id: i32,
    cluster_id: String,
    voters: BTreeMap<i32, String>,
    /// The lowest and the highest level that can be read and written.
    metadata_versions: (i16, i16),
}

impl Takeover {
    /// As a database says whose it is.
    fn owner(&self) -> String {
        format!("node {} of cluster {}", self.node_id, self.cluster_id)
    }

    fn membership(&self) -> Membership {
        let nodes: BTreeMap<i32, BasicNode> = self
            .voters
            .iter()
            .map(|(id, address)| (*id, BasicNode::new(address)))
            .collect();
        Membership::new(vec![self.voters.keys().copied().collect()], nodes)
    }

    /// Our own log, unless it has an epoch that we have not: a vote is on disk before anything is written in
    /// its term, so Apache Kafka has had the directory since. That its log is no longer than ours says
    /// nothing: a power cut takes the end of the metadata log, which is not synced, and not of the
    /// database.
    fn unless_foreign(
        self,
        log: MetadataLog,
        database: (RaftLog, Closed),
    ) -> Result<Opened, Error> {
        let raft_log = &database.0;
        let end = raft_log.end(&raft_log.base()?, i64::MAX)?.end_offset;
        let term = raft_log.vote()?.map_or(0, |vote| vote.leader_id.term);
        let epoch = log.latest_epoch();
        let is_ours = u64::try_from(epoch).is_ok_and(|epoch| epoch <= term);
        if is_ours && log.end_offset() <= end {
            return Ok(Opened { log, database });
        }
        if is_ours {
            return Err(Error::Corrupt(format!(
                "the metadata log ends at {}, and the controller's database at {end}, in the same \
                 term {term}: one of them is not from here",
                log.end_offset()
            )));
        }
        // Theirs began where the log ended then.
        let term = i32::try_from(term).unwrap_or(i32::MAX);
        let (_, theirs) = log.log().end_offset_for_epoch(term);
        tracing::warn!(
            ours = end,
            theirs,
            end = log.end_offset(),
            epoch,
            lost = (end - theirs).max(0),
            "Apache Kafka has gone on with the metadata since: taking it over again; what a power cut had \
             taken from the log before is lost"
        );
        drop(database);
        self.run(log)
    }

    fn run(self, mut log: MetadataLog) -> Result<Opened, Error> {
        let image = log.load(&self.cluster_id)?;
        self.check(&log, &image)?;
        // A transaction that never ended is as if it had not begun: the log is cut there.
        let end_offset = image.transaction_began().unwrap_or(image.offset + 1);
        let epoch = log.epoch_before(end_offset);
        let index = u64::try_from(end_offset - 1)
            .map_err(|_| Error::Setup("the metadata log to take over is empty".to_owned()))?;
        let last_epoch = epoch.max(log.latest_epoch()).max(self.leader_epoch(&log)?);
        let applied = log_id(u64::try_from(epoch).unwrap_or(0), index);
        let base = Base {
            applied: Some(applied),
            membership: StoredMembership::new(Some(applied), self.membership()),
            end_offset,
        };
        // Not committed: the next term is the first of ours.
        let vote = Vote::new(u64::try_from(last_epoch).unwrap_or(0), self.node_id);
        log.flush()?;

        let dir = log.dir().to_owned();
        let (new, old, ours) = (
            dir.join(NEW_DATABASE),
            dir.join(OLD_DATABASE),
            dir.join(DATABASE),
        );
        self.remove_all(&new)?;
        self.remove_all(&old)?;
        {
            let (database, _closed) = RaftLog::open(&new)?;
            database.seed(&self.owner(), &base, &vote)?;
        }
        // Between these two the directory is Apache Kafka's again, and would be taken over again.
        if list(&*self.disk, &dir)?.iter().any(|name| name == DATABASE) {
            self.rename(&ours, &old)?;
        }
        self.rename(&new, &ours)?;
        self.remove_all(&old)?;
        Ok(Opened {
            log,
            database: RaftLog::open(&ours)?,
        })
    }

    fn check(&self, log: &MetadataLog, image: &ClusterImage) -> Result<(), Error> {
        self.check_metadata_version(log, image)?;
        self.check_quorum(log, image)
    }

    /// As Apache Kafka 4.4 does not know what is below its minimum, nor what comes after it.
    fn check_metadata_version(&self, log: &MetadataLog, image: &ClusterImage) -> Result<(), Error> {
        let level = image.feature(METADATA_VERSION);
        // The first records of a cluster say the level, and they may not have been written yet.
        let has_begun = 0 < level || !image.brokers.is_empty() || 0 < image.topic_count();
        let (min, max) = self.metadata_versions;
        if !has_begun || (min..=max).contains(&level) {
            return Ok(());
        }
        Err(Error::Setup(format!(
            "the metadata in {} has metadata.version {level} finalized, and this version can take over \
             {min} to {max}; nothing has been changed. Where it is lower, let the Apache Kafka that wrote \
             it finalize a later one first (kafka-features upgrade)",
            log.dir().display(),
        )))
    }

    /// Its quorum was this node alone, too.
    fn check_quorum(&self, log: &MetadataLog, image: &ClusterImage) -> Result<(), Error> {
        let mut voters: Vec<i64> = Vec::new();
        if let Some(quorum) = &image.quorum {
            let ids = quorum
                .voters
                .voters
                .iter()
                .map(|voter| i64::from(voter.voter_id));
            voters.extend(ids);
        } else if let Some(state) = self.quorum_state(log)? {
            let listed = state["currentVoters"].as_array().into_iter().flatten();
            voters.extend(listed.filter_map(|voter| voter["voterId"].as_i64()));
        }
        if voters.iter().all(|id| *id == i64::from(self.node_id)) {
            return Ok(());
        }
        Err(Error::Setup(format!(
            "the metadata in {} belongs to a quorum of the nodes {voters:?}; it can be taken over \
             from a quorum of node {} alone",
            log.dir().display(),
            self.node_id
        )))
    }

    fn leader_epoch(&self, log: &MetadataLog) -> Result<i32, Error> {
        let state = self.quorum_state(log)?;
        let epoch = state.and_then(|state| i32::try_from(state["leaderEpoch"].as_i64()?).ok());
        Ok(epoch.unwrap_or(0))
    }

    fn quorum_state(&self, log: &MetadataLog) -> Result<Option<serde_json::Value>, Error> {
        let path = log.dir().join(QUORUM_STATE);
        let read = || -> std::io::Result<Vec<u8>> {
            let file = self.disk.open(&path, Mode::Open)?;
            let mut bytes = vec![0; usize::try_from(file.size()?).unwrap_or(0)];
            let read = file.read_at(&mut bytes, 0)?;
            bytes.truncate(read);
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|err| Error::Setup(format!("{}: {err}", path.display()))),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(io_error("read", &path, err)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let synced = self
            .disk
            .sync_dir(from)
            .and_then(|()| self.disk.rename(from, to))
            .and_then(|()| to.parent().map_or(Ok(()), |dir| self.disk.sync_dir(dir)));
        synced.map_err(|err| io_error("rename", from, err))
    }

    /// RocksDB's files are all in one level.
    fn remove_all(&self, dir: &Path) -> Result<(), Error> {
        let entries = match self.disk.list(dir) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            listed => listed.map_err(|err| io_error("list", dir, err))?,
        };
        for entry in entries {
            let path = dir.join(entry.name);
            self.disk
                .remove_file(&path)
                .map_err(|err| io_error("remove", &path, err))?;
        }
        self.disk
            .remove_dir(dir)
            .map_err(|err| io_error("remove", dir, err))
    }
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, Error> {
    let entries = disk.list(dir).map_err(|err| io_error("list", dir, err))?;
    Ok(entries.into_iter().map(|entry| entry.name).collect())
}

fn io_error(op: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        op,
        path: path.to_owned(),
        source,
    }
}
