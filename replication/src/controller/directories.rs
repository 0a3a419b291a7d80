//! Log directories: where a broker keeps its replicas, and what follows when a directory fails (pure).
//!
//! A replica in a directory that its broker does not have online cannot be in sync and cannot lead. The
//! broker says where each replica is once it has put it somewhere, and which directories it has left when
//! one fails (KIP-858).

use std::collections::{BTreeMap, HashMap};

use protocol::records::metadata::{BrokerRegistrationChangeRecord, MetadataRecord};
use uuid::Uuid;

use super::{Decision, Scene, brokers, leaders};
use crate::{
    cluster::{ClusterImage, METADATA_VERSION, UNASSIGNED_DIRECTORY},
    error::Refusal,
};

/// From this metadata.version (3.7-IV2) on the cluster knows directories.
const METADATA_VERSION_FOR_DIRECTORIES: i16 = 17;

/// And from this one on (4.3-IV0) that some take no new partitions.
const METADATA_VERSION_FOR_CORDONS: i16 = 30;

/// A broker's replica of a partition is in this directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub topic_id: Uuid,
    pub index: i32,
    pub directory: Uuid,
}

/// Where a new replica goes: a broker with one directory has no choice, any other says it later.
pub(super) fn default_directory(image: &ClusterImage, broker: i32) -> Uuid {
    match image.brokers.get(&broker).map(|b| b.log_dirs.as_slice()) {
        Some([only]) => *only,
        _ => UNASSIGNED_DIRECTORY,
    }
}

/// A broker tells where replicas of it are. What is known already, or of a partition that is gone, changes
/// nothing.
pub fn assign(
    scene: &Scene<'_>,
    broker: i32,
    epoch: i64,
    places: &[Place],
) -> Decision<Result<(), Refusal>> {
    if let Err(refusal) = brokers::check_epoch(scene.image, broker, epoch) {
        return Decision::refused(Err(refusal));
    }
    let mut by_topic: HashMap<Uuid, BTreeMap<i32, Uuid>> = HashMap::new();
    for place in places {
        let of_topic = by_topic.entry(place.topic_id).or_default();
        of_topic.insert(place.index, place.directory);
    }
    let records = match knows_directories(scene.image) {
        true => leaders::after_placement(scene, broker, &by_topic),
        false => Vec::new(),
    };
    Decision {
        records,
        answer: Ok(()),
    }
}

/// Directories of a broker have failed, and `online` are those it has left.
pub fn fail(
    scene: &Scene<'_>,
    broker: i32,
    epoch: i64,
    online: &[Uuid],
) -> Decision<Result<(), Refusal>> {
    if let Err(refusal) = brokers::check_epoch(scene.image, broker, epoch) {
        return Decision::refused(Err(refusal));
    }
    let known = scene.image.brokers.get(&broker);
    let is_news = known.is_some_and(|known| known.log_dirs != online);
    if !is_news || !knows_directories(scene.image) {
        return Decision {
            records: Vec::new(),
            answer: Ok(()),
        };
    }
    let mut records = leaders::after_directory_failure(scene, broker, online);
    records.push(MetadataRecord::BrokerRegistrationChange(
        BrokerRegistrationChangeRecord {
            broker_id: broker,
            broker_epoch: epoch,
            log_dirs: online.to_vec(),
            ..BrokerRegistrationChangeRecord::default()
        },
    ));
    Decision {
        records,
        answer: Ok(()),
    }
}

/// Directories of a broker take no new partitions, all others do (KIP-1066).
pub fn cordon(
    scene: &Scene<'_>,
    broker: i32,
    epoch: i64,
    cordoned: &[Uuid],
) -> Decision<Result<(), Refusal>> {
    if let Err(refusal) = brokers::check_epoch(scene.image, broker, epoch) {
        return Decision::refused(Err(refusal));
    }
    let known = scene.image.brokers.get(&broker);
    let is_news = known.is_some_and(|known| known.cordoned() != cordoned);
    let has_words = METADATA_VERSION_FOR_CORDONS <= scene.image.feature(METADATA_VERSION);
    let mut records = Vec::new();
    if is_news && has_words {
        let change = BrokerRegistrationChangeRecord {
            broker_id: broker,
            broker_epoch: epoch,
            cordoned_log_dirs: Some(cordoned.to_vec()),
            ..BrokerRegistrationChangeRecord::default()
        };
        records.push(MetadataRecord::BrokerRegistrationChange(change));
    }
    Decision {
        records,
        answer: Ok(()),
    }
}

fn knows_directories(image: &ClusterImage) -> bool {
    METADATA_VERSION_FOR_DIRECTORIES <= image.feature(METADATA_VERSION)
}

#[cfg(test)]
mod tests {
    use crate::controller::script::check;

    /// As Apache Kafka 4.4.0 decided when one of a broker's two directories ran full.
    #[test]
    fn what_is_in_a_directory_that_fails_has_no_leader() {
        check(
            "broker 1 dirs=210,211
             create orders 0:1 1:1 => 2x1
             show orders-0 => leader 1 epoch 0 isr [1] in [1]
             place 1 orders-0 210
             place 1 orders-1 211
             show orders-0 => leader 1 epoch 0 isr [1] in [210]
             online 1 211
             show orders-0 => leader -1 epoch 1 isr [] eligible [1] last [1] in [210]
             show orders-1 => leader 1 epoch 0 isr [1] in [211]
             elect preferred orders-0 => PreferredLeaderNotAvailable
             elect unclean orders-0 => EligibleLeadersNotAvailable
             create more 0:1 => 1x1
             show more-0 => leader 1 epoch 0 isr [1] in [211]",
        );
    }

    #[test]
    fn a_replica_that_turns_up_elsewhere_leads_again() {
        check(
            "broker 1 dirs=210,211
             create orders 0:1 => 1x1
             place 1 orders-0 210
             online 1 211
             place 1 orders-0 211
             show orders-0 => leader 1 epoch 2 isr [1] in [211]",
        );
    }

    #[test]
    fn a_directory_that_is_missing_at_a_start_has_failed() {
        check(
            "broker 1 dirs=210,211
             create orders 0:1 => 1x1
             place 1 orders-0 210
             restart 1 dirs=211
             show orders-0 => leader -1 epoch 1 isr [] eligible [1] last [1] in [210]
             restart 1 dirs=210,211
             show orders-0 => leader 1 epoch 2 isr [1] in [210]",
        );
    }

    /// In the words of Apache Kafka 4.4.0.
    #[test]
    fn who_has_all_directories_cordoned_gets_no_new_partitions() {
        check(
            "broker 1 dirs=210,211
             cordon 1 210
             create one 1 1 => 1x1
             cordon 1 210,211
             create two 1 1 => InvalidReplicationFactor: Unable to replicate the partition 1 time(s): All brokers are currently fenced, or have all their log directories cordoned.
             create two 0:1 => InvalidReplicaAssignment: The manual partition assignment includes broker 1, but all its log directories are cordoned.
             grow one 2 => InvalidReplicationFactor: All brokers are currently fenced, or have all their log directories cordoned.
             broker 2
             create two 1 2 => InvalidReplicationFactor: Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned.
             create three 1 1 => 1x1
             show three-0 => leader 2 epoch 0 isr [2] in [1002]
             cordon 1 none
             create two 1 2 => 1x2",
        );
    }

    #[test]
    fn another_broker_leads_what_one_has_lost() {
        check(
            "broker 1 dirs=210,211
             broker 2
             create orders 0:1,2 => 1x2
             place 1 orders-0 210
             online 1 211
             show orders-0 => leader 2 epoch 1 isr [2] in [210, 1002]",
        );
    }
}
