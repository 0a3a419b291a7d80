//! Who leads a partition (pure).
//!
//! One function decides, whatever the reason: a broker came or went, an administrator asked, a leader
//! shrank its in-sync set. It follows Apache Kafka's `PartitionChangeBuilder`, eligible leader
//! replicas (KIP-966) included: a replica that left the in-sync set below `min.insync.replicas` in
//! good order has everything that was committed, and may lead when the in-sync set is empty.

use std::collections::{BTreeMap, HashMap};

use protocol::records::metadata::{MetadataRecord, PartitionChangeRecord};
use uuid::Uuid;

use super::{Decision, Scene, config, features::ELIGIBLE_LEADER_REPLICAS};
use crate::{
    cluster::{
        ClusterImage, LEADER_UNCHANGED, NO_LEADER, PartitionInfo, RECOVERING, Topic,
        UNASSIGNED_DIRECTORY, may_be_online,
    },
    error::{Reason, Refusal},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// The first of the replicas, if it may lead.
    Preferred,
    /// Stay with the leader there is, if it may lead.
    Online,
    /// Anyone alive rather than no one, and lose what it has not got.
    Unclean,
}

/// Which partitions to elect leaders for; `None` for all of them.
pub type Targets = Option<Vec<(String, Vec<i32>)>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elected {
    pub topic: String,
    pub partitions: Vec<(i32, Result<(), Refusal>)>,
}

/// Elects leaders because an administrator said so.
///
/// Asked for every partition, those that need no election are left out of the answer.
pub fn elect(scene: &Scene<'_>, election: Election, targets: &Targets) -> Decision<Vec<Elected>> {
    let mut records = Vec::new();
    let mut elect = |topic: &str, index: i32| {
        let change = elect_one(scene, election, topic, index)?;
        records.push(MetadataRecord::PartitionChange(change));
        Ok(())
    };
    let answer = match targets {
        Some(targets) => targets
            .iter()
            .map(|(topic, indexes)| Elected {
                topic: topic.clone(),
                partitions: indexes.iter().map(|i| (*i, elect(topic, *i))).collect(),
            })
            .collect(),
        None => scene
            .image
            .topics()
            .map(|topic| Elected {
                topic: topic.name.to_string(),
                partitions: topic
                    .partitions
                    .keys()
                    .map(|index| (*index, elect(&topic.name, *index)))
                    .filter(|(_, elected)| {
                        !matches!(elected, Err(refusal) if refusal.reason == Reason::ElectionNotNeeded)
                    })
                    .collect(),
            })
            .collect(),
    };
    Decision { records, answer }
}

fn elect_one(
    scene: &Scene<'_>,
    election: Election,
    name: &str,
    index: i32,
) -> Result<PartitionChangeRecord, Refusal> {
    let unknown = |message| Refusal::new(Reason::UnknownTopicOrPartition, message);
    let topic = scene
        .image
        .topic(name)
        .ok_or_else(|| unknown(format!("No such topic as {name}")))?;
    let partition = topic
        .partitions
        .get(&index)
        .ok_or_else(|| unknown(format!("No such partition as {name}-{index}")))?;
    let needless = match election {
        Election::Preferred => partition.leader == partition.preferred_leader(),
        Election::Unclean | Election::Online => partition.has_leader(),
    };
    if needless {
        return Err(Refusal::bare(Reason::ElectionNotNeeded));
    }
    Change {
        election,
        ..Change::of(scene, topic, index, partition)
    }
    .record()
    .ok_or_else(|| {
        Refusal::bare(match election {
            Election::Preferred => Reason::PreferredLeaderNotAvailable,
            Election::Unclean | Election::Online => Reason::EligibleLeadersNotAvailable,
        })
    })
}

/// Leaders for the partitions that have none and may now be led by `broker`, which is coming up.
pub(super) fn after_arrival(scene: &Scene<'_>, broker: i32) -> Vec<MetadataRecord> {
    changes(scene, |topic, index, partition| {
        if partition.has_leader() {
            return None;
        }
        Change {
            arriving: Some(broker),
            ..Change::of(scene, topic, index, partition)
        }
        .unclean_if_configured()
        .record()
    })
}

/// Takes `broker`, which is leaving, out of every in-sync set and off every lead.
pub(super) fn after_departure(scene: &Scene<'_>, broker: i32) -> Vec<MetadataRecord> {
    changes(scene, |topic, index, partition| {
        if !partition.isr.contains(&broker) {
            return None;
        }
        Change {
            leaving: Some(broker),
            isr: without(&partition.isr, broker),
            ..Change::of(scene, topic, index, partition)
        }
        .unclean_if_configured()
        .record()
    })
}

/// `broker` was killed and has come back: what it had not written to disk may be gone.
///
/// Where others are in sync it is out, and must catch up with them. Where it is the only one, nobody
/// has more: it leads on, under a new leader epoch, by which consumers see what was lost.
pub(super) fn after_kill(scene: &Scene<'_>, broker: i32) -> Vec<MetadataRecord> {
    changes(scene, |topic, index, partition| {
        if partition.isr == [broker] {
            return Some(PartitionChangeRecord {
                leader: partition.leader,
                ..unchanged(topic.id, index)
            });
        }
        let eligible = &partition.eligible_leader_replicas;
        if !partition.isr.contains(&broker) && !eligible.contains(&broker) {
            return None;
        }
        Change {
            leaving: Some(broker),
            killed: Some(broker),
            isr: without(&partition.isr, broker),
            eligible: without(eligible, broker),
            ..Change::of(scene, topic, index, partition)
        }
        .unclean_if_configured()
        .record()
    })
}

/// Takes `broker` off every partition it keeps in a directory that is none of `online`.
pub(super) fn after_directory_failure(
    scene: &Scene<'_>,
    broker: i32,
    online: &[Uuid],
) -> Vec<MetadataRecord> {
    changes(scene, |topic, index, partition| {
        let lost = |directory| !may_be_online(directory, online);
        if !partition.isr.contains(&broker) || !partition.directory_of(broker).is_some_and(lost) {
            return None;
        }
        Change {
            leaving: Some(broker),
            isr: without(&partition.isr, broker),
            ..Change::of(scene, topic, index, partition)
        }
        .unclean_if_configured()
        .record()
    })
}

/// Notes where replicas of `broker` are, by topic id and index. Who had no leader because of where it was
/// thought to be may have one now.
pub(super) fn after_placement(
    scene: &Scene<'_>,
    broker: i32,
    places: &HashMap<Uuid, BTreeMap<i32, Uuid>>,
) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    for (id, indexes) in places {
        let Some(topic) = scene.image.topic_by_id(*id) else {
            continue;
        };
        for (index, directory) in indexes {
            let Some(partition) = topic.partitions.get(index) else {
                continue;
            };
            let at = partition.replicas.iter().position(|id| *id == broker);
            let Some(at) = at.filter(|_| partition.directory_of(broker) != Some(*directory)) else {
                continue;
            };
            let mut directories = partition.directories.clone();
            directories.resize(partition.replicas.len(), UNASSIGNED_DIRECTORY);
            directories[at] = *directory;
            let change = Change {
                directories: Some(directories),
                ..Change::of(scene, topic, *index, partition)
            };
            records.extend(change.record().map(MetadataRecord::PartitionChange));
        }
    }
    records
}

fn changes(
    scene: &Scene<'_>,
    change: impl Fn(&Topic, i32, &PartitionInfo) -> Option<PartitionChangeRecord>,
) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    for topic in scene.image.topics() {
        for (index, partition) in &topic.partitions {
            records.extend(change(topic, *index, partition).map(MetadataRecord::PartitionChange));
        }
    }
    records
}

/// Where one partition shall go; [`Change::record`] finds the record that takes it there.
struct Change<'a> {
    scene: &'a Scene<'a>,
    topic: &'a Topic,
    index: i32,
    partition: &'a PartitionInfo,
    election: Election,
    /// Counts as alive though the image still has it fenced.
    arriving: Option<i32>,
    /// Counts as dead though the image still has it alive.
    leaving: Option<i32>,
    killed: Option<i32>,
    /// The in-sync set wanted.
    isr: Vec<i32>,
    /// The eligible leaders to start from.
    eligible: Vec<i32>,
    /// Where the replicas are, if that is the change.
    directories: Option<Vec<Uuid>>,
}

impl<'a> Change<'a> {
    fn of(
        scene: &'a Scene<'a>,
        topic: &'a Topic,
        index: i32,
        partition: &'a PartitionInfo,
    ) -> Change<'a> {
        Change {
            scene,
            topic,
            index,
            partition,
            election: Election::Online,
            arriving: None,
            leaving: None,
            killed: None,
            isr: partition.isr.clone(),
            eligible: partition.eligible_leader_replicas.clone(),
            directories: None,
        }
    }

    fn unclean_if_configured(mut self) -> Change<'a> {
        let allowed = self.topic_config("unclean.leader.election.enable");
        if allowed.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            self.election = Election::Unclean;
        }
        self
    }

    fn record(mut self) -> Option<PartitionChangeRecord> {
        let partition = self.partition;
        let tracks_eligible = 0 < self.scene.image.feature(ELIGIBLE_LEADER_REPLICAS);
        if tracks_eligible {
            self.eligible = self.eligible_leaders();
        }

        let mut record = unchanged(self.topic.id, self.index);
        record.directories = self.directories.clone();
        let (leader, unclean) = self.elected(tracks_eligible);
        if leader != partition.leader {
            record.leader = leader;
            if self.eligible.contains(&leader) {
                self.isr = vec![leader];
                self.eligible.retain(|id| *id != leader);
            } else if unclean {
                // Its log is the partition's log from here on, whatever it lacks.
                self.isr = vec![leader];
                if !partition.leader_recovering {
                    record.leader_recovery_state = RECOVERING;
                }
            }
        }
        if unclean || !tracks_eligible {
            self.eligible.clear();
        }
        if self.eligible != partition.eligible_leader_replicas {
            record.eligible_leader_replicas = Some(self.eligible.clone());
        }
        // Without eligible leaders to fall back on, the last in-sync replica stays in the set: it is
        // the only one known to have everything.
        if self.isr != partition.isr && (tracks_eligible || !self.isr.is_empty()) {
            record.isr = Some(self.isr.clone());
        }
        if tracks_eligible {
            record.last_known_elr = self.last_known_leader(&record);
        }
        (record != unchanged(self.topic.id, self.index)).then_some(record)
    }

    /// The new leader, and whether it may lack what was committed.
    fn elected(&self, tracks_eligible: bool) -> (i32, bool) {
        let partition = self.partition;
        let preferred = partition.preferred_leader();
        if self.election == Election::Preferred && self.may_lead(preferred) {
            return (preferred, false);
        }
        if self.may_lead(partition.leader) {
            return (partition.leader, false);
        }
        let replicas = || partition.replicas.iter().copied();
        if let Some(leader) = replicas().find(|id| self.may_lead(*id)) {
            return (leader, false);
        }
        if tracks_eligible
            && self.isr.is_empty()
            && self.eligible.is_empty()
            && let [last] = partition.last_known_eligible_leader_replicas[..]
            && self.is_alive(last)
        {
            return (last, true);
        }
        if self.election == Election::Unclean
            && let Some(leader) = replicas().find(|id| self.is_alive(*id))
        {
            return (leader, true);
        }
        (NO_LEADER, false)
    }

    fn may_lead(&self, id: i32) -> bool {
        let in_sync = self.isr.contains(&id);
        (in_sync || self.isr.is_empty() && self.eligible.contains(&id)) && self.is_alive(id)
    }

    fn is_alive(&self, id: i32) -> bool {
        let image = self.scene.image;
        self.leaving != Some(id)
            && (self.arriving == Some(id) || image.is_active(id))
            && self.directory_is_online(image, id)
    }

    fn directory_is_online(&self, image: &ClusterImage, id: i32) -> bool {
        let (Some(broker), Some(at)) = (
            image.brokers.get(&id),
            self.partition.replicas.iter().position(|r| *r == id),
        ) else {
            return false;
        };
        let directories = self
            .directories
            .as_ref()
            .unwrap_or(&self.partition.directories);
        let directory = directories.get(at).copied();
        directory.is_none_or(|directory| may_be_online(directory, &broker.log_dirs))
    }

    /// Who left the in-sync set in good order since it fell below its minimum.
    fn eligible_leaders(&self) -> Vec<i32> {
        if self.min_isr() <= self.isr.len() {
            return Vec::new();
        }
        let mut eligible = self.eligible.clone();
        for id in &self.partition.isr {
            if !eligible.contains(id) {
                eligible.push(*id);
            }
        }
        eligible.retain(|id| !self.isr.contains(id) && self.killed != Some(*id));
        eligible
    }

    fn last_known_leader(&self, record: &PartitionChangeRecord) -> Option<Vec<i32>> {
        let partition = self.partition;
        let known = &partition.last_known_eligible_leader_replicas;
        let emptied = record.isr.as_ref().is_some_and(Vec::is_empty);
        if emptied && known[..] != [partition.leader] {
            return Some(vec![partition.leader]);
        }
        let leads_on = partition.has_leader() && record.leader != NO_LEADER;
        if (0 <= record.leader || leads_on) && !known.is_empty() {
            return Some(Vec::new());
        }
        None
    }

    fn min_isr(&self) -> usize {
        let configured = self
            .topic_config("min.insync.replicas")
            .and_then(|value| value.parse().ok())
            .unwrap_or(1);
        self.partition.replicas.len().min(configured)
    }

    fn topic_config(&self, name: &str) -> Option<String> {
        config::effective(
            self.scene.image,
            self.scene.rules,
            self.scene.node_id,
            &self.topic.name,
            name,
        )
    }
}

fn unchanged(topic_id: Uuid, partition_id: i32) -> PartitionChangeRecord {
    PartitionChangeRecord {
        topic_id,
        partition_id,
        leader: LEADER_UNCHANGED,
        ..PartitionChangeRecord::default()
    }
}

fn without(ids: &[i32], gone: i32) -> Vec<i32> {
    ids.iter().copied().filter(|id| *id != gone).collect()
}

#[cfg(test)]
mod tests {
    use crate::controller::script::check;

    #[test]
    fn another_in_sync_replica_takes_over() {
        check(
            "broker 1
             broker 2
             create orders 0:1,2 => 1x2
             fence 1
             show orders-0 => leader 2 epoch 1 isr [2]
             unfence 1
             show orders-0 => leader 2 epoch 1 isr [2]",
        );
    }

    /// What Apache Kafka 4.4.0 wrote for the only replica of a partition, at a controlled shutdown
    /// and at the start after it.
    #[test]
    fn the_last_replica_leaves_in_good_order_and_comes_back() {
        check(
            "broker 1
             create orders 0:1 => 1x1
             stop 1
             show orders-0 => leader -1 epoch 1 isr [] eligible [1] last [1]
             restart 1
             show orders-0 => leader 1 epoch 2 isr [1]",
        );
    }

    /// Also as observed: what it had not flushed may be gone, so it leads unclean.
    #[test]
    fn the_last_replica_was_killed_and_is_the_best_there_is() {
        check(
            "broker 1
             create orders 0:1 => 1x1
             kill 1
             show orders-0 => leader 1 epoch 2 isr [1] recovering",
        );
    }

    /// It is not the one to lead without the other, though both left in good order first.
    #[test]
    fn who_was_killed_after_leaving_waits_for_one_who_has_everything() {
        check(
            "broker 1
             broker 2
             create orders 0:1,2 => 1x2
             set topic:orders min.insync.replicas=2
             fence 1
             fence 2
             show orders-0 => leader -1 epoch 2 isr [] eligible [1, 2] last [2]
             crash 1
             show orders-0 => leader -1 epoch 2 isr [] eligible [2] last [2]
             restart 2
             show orders-0 => leader 2 epoch 3 isr [2]",
        );
    }

    #[test]
    fn who_crashed_and_is_back_before_anyone_noticed_must_catch_up_with_the_others() {
        check(
            "broker 1
             broker 2
             create orders 0:1,2 => 1x2
             create alone 0:1 => 1x1
             crash 1
             show orders-0 => leader 2 epoch 1 isr [2]
             show alone-0 => leader 1 epoch 1 isr [1]",
        );
    }

    #[test]
    fn nobody_without_everything_leads_unless_the_topic_says_so() {
        check(
            "broker 1
             broker 2
             create safe 0:1,2 => 1x2
             create fast 0:1,2 => 1x2
             set topic:fast unclean.leader.election.enable=true
             fence 2
             fence 1
             show safe-0 => leader -1 epoch 1 isr [] eligible [1] last [1]
             show fast-0 => leader -1 epoch 1 isr [] eligible [1] last [1]
             unfence 2
             show safe-0 => leader -1 epoch 1 isr [] eligible [1] last [1]
             show fast-0 => leader 2 epoch 2 isr [2] recovering
             elect unclean safe-0
             show safe-0 => leader 2 epoch 2 isr [2] recovering",
        );
    }

    #[test]
    fn an_election_may_be_needless_or_impossible() {
        check(
            "broker 1
             broker 2
             create orders 0:1,2 => 1x2
             elect preferred orders-0 => ElectionNotNeeded
             elect unclean orders-0 => ElectionNotNeeded
             fence 1
             elect preferred orders-0 => PreferredLeaderNotAvailable
             fence 2
             elect unclean orders-0 => EligibleLeadersNotAvailable
             elect preferred orders-7 => UnknownTopicOrPartition: No such partition as orders-7
             elect preferred none-0 => UnknownTopicOrPartition: No such topic as none",
        );
    }
}
