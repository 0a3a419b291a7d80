//! A topic and its partitions as the cluster knows them, and the records that say so.

use std::{collections::BTreeMap, sync::Arc};

use protocol::records::metadata::{PartitionChangeRecord, PartitionRecord};
use uuid::Uuid;

/// The leader of a partition that has none.
pub const NO_LEADER: i32 = -1;

/// A replica in this directory has not said yet where it is.
pub const UNASSIGNED_DIRECTORY: Uuid = Uuid::from_u128(1);

/// A replica whose place was never noted, because there were no directory ids when it was made. Another
/// reserved id, 2, is a directory that is lost.
const MIGRATING_DIRECTORY: Uuid = Uuid::from_u128(0);

/// In a change record: the leader stays who it is.
pub(crate) const LEADER_UNCHANGED: i32 = -2;

/// A leader's recovery state after an unclean election.
pub(crate) const RECOVERING: i8 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub id: Uuid,
    pub name: Arc<str>,
    pub partitions: BTreeMap<i32, Arc<PartitionInfo>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The first is the preferred leader.
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    pub removing_replicas: Vec<i32>,
    pub adding_replicas: Vec<i32>,
    pub leader: i32,
    /// Set by an unclean election until the new leader has said that it is consistent again.
    pub leader_recovering: bool,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    /// Where each of `replicas` keeps its copy, in their order.
    pub directories: Vec<Uuid>,
    /// Left the in-sync set with everything committed, and were not killed since (KIP-966).
    pub eligible_leader_replicas: Vec<i32>,
    pub last_known_eligible_leader_replicas: Vec<i32>,
}

impl PartitionInfo {
    pub fn has_leader(&self) -> bool {
        self.leader != NO_LEADER
    }

    pub fn preferred_leader(&self) -> i32 {
        self.replicas.first().copied().unwrap_or(NO_LEADER)
    }

    /// Where `broker` keeps its replica, as far as it has said.
    pub fn directory_of(&self, broker: i32) -> Option<Uuid> {
        let at = self.replicas.iter().position(|id| *id == broker)?;
        self.directories.get(at).copied()
    }

    pub fn is_reassigning(&self) -> bool {
        !self.removing_replicas.is_empty() || !self.adding_replicas.is_empty()
    }

    pub(super) fn change(&mut self, record: &PartitionChangeRecord) {
        fn set<T: Clone>(field: &mut T, to: &Option<T>) {
            if let Some(to) = to {
                *field = to.clone();
            }
        }
        set(&mut self.isr, &record.isr);
        set(&mut self.replicas, &record.replicas);
        set(&mut self.directories, &record.directories);
        set(&mut self.removing_replicas, &record.removing_replicas);
        set(&mut self.adding_replicas, &record.adding_replicas);
        set(
            &mut self.eligible_leader_replicas,
            &record.eligible_leader_replicas,
        );
        set(
            &mut self.last_known_eligible_leader_replicas,
            &record.last_known_elr,
        );
        if record.leader != LEADER_UNCHANGED {
            self.leader = record.leader;
            self.leader_epoch += 1;
        }
        if record.leader_recovery_state != -1 {
            self.leader_recovering = record.leader_recovery_state == RECOVERING;
        }
        self.partition_epoch += 1;
    }

    pub(super) fn record(&self, topic_id: Uuid, partition_id: i32) -> PartitionRecord {
        let unless_empty = |ids: &Vec<i32>| (!ids.is_empty()).then(|| ids.clone());
        PartitionRecord {
            partition_id,
            topic_id,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            removing_replicas: self.removing_replicas.clone(),
            adding_replicas: self.adding_replicas.clone(),
            leader: self.leader,
            leader_recovery_state: i8::from(self.leader_recovering),
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            directories: self.directories.clone(),
            eligible_leader_replicas: unless_empty(&self.eligible_leader_replicas),
            last_known_elr: unless_empty(&self.last_known_eligible_leader_replicas),
        }
    }
}

impl From<&PartitionRecord> for PartitionInfo {
    fn from(record: &PartitionRecord) -> PartitionInfo {
        PartitionInfo {
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            removing_replicas: record.removing_replicas.clone(),
            adding_replicas: record.adding_replicas.clone(),
            leader: record.leader,
            leader_recovering: record.leader_recovery_state == RECOVERING,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            directories: record.directories.clone(),
            eligible_leader_replicas: record.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_eligible_leader_replicas: record.last_known_elr.clone().unwrap_or_default(),
        }
    }
}

/// Is a certain directory noted as a replica's?
pub fn is_assigned(directory: Uuid) -> bool {
    directory != UNASSIGNED_DIRECTORY && directory != MIGRATING_DIRECTORY
}

/// May a replica be online that is noted in `directory`? It is taken for granted where no place is noted,
/// and of a broker whose directories are not known.
pub fn may_be_online(directory: Uuid, online: &[Uuid]) -> bool {
    !is_assigned(directory) || online.is_empty() || online.contains(&directory)
}
