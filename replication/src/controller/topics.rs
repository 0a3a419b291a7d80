//! Topics: creating, growing and deleting them (pure).
//!
//! Refusals and their wording are those of Apache Kafka's `ReplicationControlManager`. Every topic of
//! a request is answered on its own; one refusal never fails its neighbours.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use protocol::records::metadata::{
    MetadataRecord, PartitionRecord, RemoveTopicRecord, TopicRecord,
};
use uuid::Uuid;

use super::{
    Decision, Scene,
    config::{self, Operation},
    dice::Dice,
    directories, placement,
};
use crate::{
    cluster::{ClusterImage, Resource, Topic},
    error::{Reason, Refusal},
};

/// The longest name a directory `NAME-PARTITION` leaves room for.
const NAME_MAX: usize = 249;

/// How many partitions one request may create, as in Apache Kafka.
pub const PARTITIONS_MAX: i64 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewTopic {
    pub name: String,
    /// -1 for the default, and with `assignments`.
    pub partition_count: i32,
    /// -1 for the default, and with `assignments`.
    pub replication_factor: i16,
    /// Partition index and replicas, as the client gave them.
    pub assignments: Vec<(i32, Vec<i32>)>,
    pub configs: Vec<(String, Option<String>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub name: String,
    pub id: Uuid,
    pub partition_count: i32,
    pub replication_factor: i16,
    /// The overrides it was created with.
    pub configs: BTreeMap<String, String>,
}

/// What holds for a topic that leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    pub partition_count: i32,
    pub replication_factor: i16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicRef {
    Name(String),
    Id(Uuid),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    pub name: String,
    pub id: Uuid,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MorePartitions {
    pub topic: String,
    /// How many there shall be in all.
    pub count: i32,
    /// Replicas of each new partition; `None` leaves it to the controller.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Creates what can be created. With `validate_only` the answer is the same and nothing is written.
pub fn create(
    scene: &mut Scene<'_>,
    defaults: Defaults,
    topics: &[NewTopic],
    validate_only: bool,
) -> Decision<Vec<Result<Created, Refusal>>> {
    let wanted = topics.iter().map(|topic| match topic.partition_count {
        _ if !topic.assignments.is_empty() => size(topic.assignments.len()),
        -1 => i64::from(defaults.partition_count),
        count => i64::from(count.max(0)),
    });
    if PARTITIONS_MAX < wanted.sum() {
        let refusal = Refusal::new(
            Reason::PolicyViolation,
            "Excessively large number of partitions per request.",
        );
        return Decision::refused(vec![Err(refusal); topics.len()]);
    }

    let mut names = Names::new(scene.image);
    let mut records = Vec::new();
    let mut answer = Vec::with_capacity(topics.len());
    for topic in topics {
        let created = names
            .take(&topic.name)
            .and_then(|()| create_one(scene, defaults, topic));
        answer.push(created.map(|(created, written)| {
            records.extend(written);
            created
        }));
    }
    if validate_only {
        records.clear();
    }
    Decision { records, answer }
}

fn create_one(
    scene: &mut Scene<'_>,
    defaults: Defaults,
    topic: &NewTopic,
) -> Result<(Created, Vec<MetadataRecord>), Refusal> {
    let configs = creation_configs(scene, topic)?;
    let partitions = if topic.assignments.is_empty() {
        placed(scene, defaults, topic)?
    } else {
        assigned(scene.image, topic)?
    };
    let id = scene.dice.topic_id();
    let created = Created {
        name: topic.name.clone(),
        id,
        partition_count: i32::try_from(partitions.len()).unwrap_or(i32::MAX),
        replication_factor: replication_factor(partitions.first()),
        configs: topic
            .configs
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
            .collect(),
    };
    let mut records = vec![MetadataRecord::Topic(TopicRecord {
        name: topic.name.clone(),
        topic_id: id,
    })];
    // Kafka's order: the configs come after the topic and before its partitions, so that who
    // creates a partition's log knows them.
    records.extend(configs);
    records.extend((0..).zip(&partitions).map(|(index, placement)| {
        MetadataRecord::Partition(partition_record(scene.image, id, index, placement))
    }));
    Ok((created, records))
}

fn creation_configs(scene: &Scene<'_>, topic: &NewTopic) -> Result<Vec<MetadataRecord>, Refusal> {
    let nulls: Vec<&str> = topic
        .configs
        .iter()
        .filter(|(_, value)| value.is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    if !nulls.is_empty() {
        return Err(Refusal::new(
            Reason::InvalidConfig,
            format!(
                "Null value not supported for topic configs: {}",
                nulls.join(",")
            ),
        ));
    }
    let operations: Vec<Operation> = topic
        .configs
        .iter()
        .map(|(name, value)| Operation {
            name: name.clone(),
            kind: config::OperationKind::Set,
            value: value.clone(),
        })
        .collect();
    if operations.is_empty() {
        return Ok(Vec::new());
    }
    config::alter_new(
        scene.image,
        scene.rules,
        &Resource::topic(&topic.name),
        &operations,
    )
}

/// A partition's replicas, in order, and those of them that are in sync from the start.
struct Placement {
    replicas: Vec<i32>,
    isr: Vec<i32>,
}

fn placed(
    scene: &mut Scene<'_>,
    defaults: Defaults,
    topic: &NewTopic,
) -> Result<Vec<Placement>, Refusal> {
    let factor = match topic.replication_factor {
        -1 => defaults.replication_factor,
        i16::MIN..=0 => {
            return Err(Refusal::new(
                Reason::InvalidReplicationFactor,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            ));
        }
        factor => factor,
    };
    let count = match topic.partition_count {
        -1 => defaults.partition_count,
        i32::MIN..=0 => {
            return Err(Refusal::new(
                Reason::InvalidPartitions,
                "Number of partitions was set to an invalid non-positive value.",
            ));
        }
        count => count,
    };
    place(scene.image, scene.dice, count, factor).map_err(|refusal| {
        let why = refusal.message.unwrap_or_default();
        let text = format!("Unable to replicate the partition {factor} time(s): {why}");
        Refusal::new(refusal.reason, text)
    })
}

fn place(
    image: &ClusterImage,
    dice: &mut Dice,
    count: i32,
    factor: i16,
) -> Result<Vec<Placement>, Refusal> {
    let unable = |why: String| Refusal::new(Reason::InvalidReplicationFactor, why);
    let places = placement::place(image, dice, count, factor).map_err(unable)?;
    places
        .into_iter()
        .map(|replicas| {
            let isr = active(image, &replicas);
            if isr.is_empty() {
                return Err(unable(
                    "All brokers are currently fenced or in controlled shutdown.".to_owned(),
                ));
            }
            Ok(Placement { replicas, isr })
        })
        .collect()
}

fn assigned(image: &ClusterImage, topic: &NewTopic) -> Result<Vec<Placement>, Refusal> {
    if topic.replication_factor != -1 {
        return Err(Refusal::new(
            Reason::InvalidRequest,
            "A manual partition assignment was specified, but replication factor was not set to -1.",
        ));
    }
    if topic.partition_count != -1 {
        return Err(Refusal::new(
            Reason::InvalidRequest,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        ));
    }
    let mut placements: BTreeMap<i32, Placement> = BTreeMap::new();
    let mut factor = None;
    for (index, replicas) in &topic.assignments {
        if placements.contains_key(index) {
            return Err(Refusal::new(
                Reason::InvalidReplicaAssignment,
                format!("Found multiple manual partition assignments for partition {index}"),
            ));
        }
        let placement = assign(image, *index, replicas, factor)?;
        factor = Some(replicas.len());
        placements.insert(*index, placement);
    }
    if placements.keys().copied().ne((0..).take(placements.len())) {
        return Err(Refusal::new(
            Reason::InvalidReplicaAssignment,
            "partitions should be a consecutive 0-based integer sequence",
        ));
    }
    Ok(placements.into_values().collect())
}

/// Checks replicas that a client chose.
fn assign(
    image: &ClusterImage,
    index: i32,
    replicas: &[i32],
    factor: Option<usize>,
) -> Result<Placement, Refusal> {
    let invalid = |message: String| Refusal::new(Reason::InvalidReplicaAssignment, message);
    if replicas.is_empty() {
        return Err(invalid(
            "The manual partition assignment includes an empty replica list.".to_owned(),
        ));
    }
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    let mut previous = None;
    for id in sorted {
        let Some(broker) = image.brokers.get(&id) else {
            return Err(invalid(format!(
                "The manual partition assignment includes broker {id}, but no such broker is \
                 registered."
            )));
        };
        if broker.is_cordoned() {
            return Err(invalid(format!(
                "The manual partition assignment includes broker {id}, but all its log directories \
                 are cordoned."
            )));
        }
        if previous == Some(id) {
            return Err(invalid(format!(
                "The manual partition assignment includes the broker {id} more than once."
            )));
        }
        previous = Some(id);
    }
    if let Some(factor) = factor
        && replicas.len() != factor
    {
        return Err(invalid(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is \
             not consistent with previous partitions, which have {factor} replica(s).",
            replicas.len()
        )));
    }
    let isr = active(image, replicas);
    if isr.is_empty() {
        return Err(invalid(format!(
            "All brokers specified in the manual partition assignment for partition {index} are \
             fenced or in controlled shutdown."
        )));
    }
    Ok(Placement {
        replicas: replicas.to_vec(),
        isr,
    })
}

fn active(image: &ClusterImage, replicas: &[i32]) -> Vec<i32> {
    replicas
        .iter()
        .copied()
        .filter(|id| image.is_active(*id))
        .collect()
}

fn partition_record(
    image: &ClusterImage,
    topic_id: Uuid,
    partition_id: i32,
    placement: &Placement,
) -> PartitionRecord {
    PartitionRecord {
        partition_id,
        topic_id,
        replicas: placement.replicas.clone(),
        isr: placement.isr.clone(),
        leader: placement.isr[0],
        leader_epoch: 0,
        partition_epoch: 0,
        directories: placement
            .replicas
            .iter()
            .map(|id| directories::default_directory(image, *id))
            .collect(),
        ..PartitionRecord::default()
    }
}

fn replication_factor(placement: Option<&Placement>) -> i16 {
    placement.map_or(0, |p| i16::try_from(p.replicas.len()).unwrap_or(i16::MAX))
}

/// Deletes topics, with their configs. Two references to one topic are the caller's to refuse.
pub fn delete(
    image: &ClusterImage,
    topics: &[TopicRef],
) -> Decision<Vec<Result<Deleted, Refusal>>> {
    let mut records = Vec::new();
    let mut gone = BTreeSet::new();
    let answer = topics
        .iter()
        .map(|topic| {
            let (found, reason) = match topic {
                TopicRef::Name(name) => (image.topic(name), Reason::UnknownTopicOrPartition),
                TopicRef::Id(id) => (image.topic_by_id(*id), Reason::UnknownTopicId),
            };
            let topic = found
                .filter(|topic| gone.insert(topic.id))
                .ok_or_else(|| Refusal::bare(reason))?;
            records.push(MetadataRecord::RemoveTopic(RemoveTopicRecord {
                topic_id: topic.id,
            }));
            Ok(Deleted {
                name: topic.name.to_string(),
                id: topic.id,
            })
        })
        .collect();
    Decision { records, answer }
}

pub fn create_partitions(
    scene: &mut Scene<'_>,
    topics: &[MorePartitions],
    validate_only: bool,
) -> Decision<Vec<Result<(), Refusal>>> {
    let wanted = topics.iter().map(|more| {
        let have = scene.image.topic(&more.topic);
        let have = have.map_or(i64::MAX, |topic| size(topic.partitions.len()));
        i64::from(more.count).saturating_sub(have).max(0)
    });
    if PARTITIONS_MAX < wanted.sum() {
        let refusal = Refusal::new(
            Reason::PolicyViolation,
            "Excessively large number of additional partitions per request.",
        );
        return Decision::refused(vec![Err(refusal); topics.len()]);
    }

    let mut records = Vec::new();
    let mut answer = Vec::with_capacity(topics.len());
    for topic in topics {
        answer.push(grow(scene, topic).map(|written| records.extend(written)));
    }
    if validate_only {
        records.clear();
    }
    Decision { records, answer }
}

fn grow(scene: &mut Scene<'_>, more: &MorePartitions) -> Result<Vec<MetadataRecord>, Refusal> {
    let image = scene.image;
    let topic: &Topic = image
        .topic(&more.topic)
        .ok_or_else(|| Refusal::bare(Reason::UnknownTopicOrPartition))?;
    let have = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    if more.count == have {
        return Err(Refusal::new(
            Reason::InvalidPartitions,
            format!("Topic already has {have} partition(s)."),
        ));
    }
    if more.count < have {
        return Err(Refusal::new(
            Reason::InvalidPartitions,
            format!(
                "The topic {} currently has {have} partition(s); {} would not be an increase.",
                more.topic, more.count
            ),
        ));
    }
    let additional = more.count - have;
    if let Some(assignments) = &more.assignments
        && i32::try_from(assignments.len()) != Ok(additional)
    {
        return Err(Refusal::new(
            Reason::InvalidReplicaAssignment,
            format!(
                "Attempted to add {additional} additional partition(s), but only {} assignment(s) \
                 were specified.",
                assignments.len()
            ),
        ));
    }
    let factor = topic
        .partitions
        .values()
        .next()
        .map_or(0, |first| first.replicas.len());
    let placements = match &more.assignments {
        Some(assignments) => (have..)
            .zip(assignments)
            .map(|(index, replicas)| assign(image, index, replicas, Some(factor)))
            .collect::<Result<Vec<_>, _>>()?,
        None => {
            let factor = i16::try_from(factor).unwrap_or(i16::MAX);
            place(image, scene.dice, additional, factor)?
        }
    };
    Ok((have..)
        .zip(&placements)
        .map(|(index, placement)| {
            MetadataRecord::Partition(partition_record(image, topic.id, index, placement))
        })
        .collect())
}

fn size(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The names of a request against those that exist.
struct Names<'a> {
    image: &'a ClusterImage,
    /// Existing names with '.' or '_', by how a metric would spell them. Built when first needed.
    colliding: Option<HashMap<String, String>>,
    taken: BTreeSet<String>,
}

impl<'a> Names<'a> {
    fn new(image: &'a ClusterImage) -> Names<'a> {
        Names {
            image,
            colliding: None,
            taken: BTreeSet::new(),
        }
    }

    fn take(&mut self, name: &str) -> Result<(), Refusal> {
        if !self.taken.insert(name.to_owned()) {
            return Err(Refusal::new(
                Reason::InvalidRequest,
                "Duplicate topic name.",
            ));
        }
        let invalid = |message: String| Refusal::new(Reason::InvalidTopic, message);
        if let Some(why) = why_invalid(name) {
            return Err(invalid(format!("Topic name is invalid: {why}")));
        }
        if self.image.topic(name).is_some() {
            return Err(Refusal::new(
                Reason::TopicAlreadyExists,
                format!("Topic '{name}' already exists."),
            ));
        }
        if !has_collision_chars(name) {
            return Ok(());
        }
        let image = self.image;
        let colliding = self.colliding.get_or_insert_with(|| {
            image
                .topics()
                .filter(|topic| has_collision_chars(&topic.name))
                .map(|topic| (unified(&topic.name), topic.name.to_string()))
                .collect()
        });
        match colliding.get(&unified(name)) {
            Some(existing) => Err(invalid(format!(
                "Topic '{name}' collides with existing topic: {existing}"
            ))),
            None => Ok(()),
        }
    }
}

/// Why a topic cannot have this name; `None` if it can.
pub fn why_invalid(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name {
        "" => Some("the empty string is not allowed".to_owned()),
        "." => Some("'.' is not allowed".to_owned()),
        ".." => Some("'..' is not allowed".to_owned()),
        _ if NAME_MAX < name.encode_utf16().count() => Some(format!(
            "the length of '{name}' is longer than the max allowed length {NAME_MAX}"
        )),
        _ if !name.chars().all(allowed) => Some(format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        )),
        _ => None,
    }
}

// Metrics spell '.' as '_', so two topics that differ only there could not be told apart.
fn has_collision_chars(name: &str) -> bool {
    name.contains(['.', '_'])
}

fn unified(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::script::check;

    #[test]
    fn what_is_left_open_takes_the_defaults() {
        check(
            "broker 1
             create orders -1 -1 => 1x1
             create orders -1 -1 => TopicAlreadyExists: Topic 'orders' already exists.
             show orders-0 => leader 1 epoch 0 isr [1]",
        );
    }

    #[test]
    fn a_name_must_be_one_and_differ_from_others_in_more_than_a_dot() {
        check(
            r#"broker 1
             create "" 1 1 => InvalidTopic: Topic name is invalid: the empty string is not allowed
             create .. 1 1 => InvalidTopic: Topic name is invalid: '..' is not allowed
             create a/b 1 1 => InvalidTopic: Topic name is invalid: 'a/b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'
             create my.topic 1 1 => 1x1
             create my_topic 1 1 => InvalidTopic: Topic 'my_topic' collides with existing topic: my.topic
             create my-topic 1 1 => 1x1"#,
        );
        assert_eq!(why_invalid(&"a".repeat(249)), None);
        assert!(why_invalid(&"a".repeat(250)).is_some());
    }

    #[test]
    fn counts_and_replicas_must_be_possible() {
        check(
            "create orders 1 1 => InvalidReplicationFactor: Unable to replicate the partition 1 time(s): All brokers are currently fenced, or have all their log directories cordoned.
             broker 1
             create orders 0 1 => InvalidPartitions: Number of partitions was set to an invalid non-positive value.
             create orders 1 0 => InvalidReplicationFactor: Replication factor must be larger than 0, or -1 to use the default value.
             create orders 1 3 => InvalidReplicationFactor: Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned.
             create orders 10001 1 => PolicyViolation: Excessively large number of partitions per request.
             create orders 10000 1 => 10000x1",
        );
    }

    #[test]
    fn replicas_may_be_chosen_by_the_client() {
        check(
            "broker 1
             broker 2
             create orders 0:1,2 1:2,1 => 2x2
             show orders-1 => leader 2 epoch 0 isr [2, 1]
             create a 0:1 2:1 => InvalidReplicaAssignment: partitions should be a consecutive 0-based integer sequence
             create a 0:1 0:2 => InvalidReplicaAssignment: Found multiple manual partition assignments for partition 0
             create a 0:1,1 => InvalidReplicaAssignment: The manual partition assignment includes the broker 1 more than once.
             create a 0:3 => InvalidReplicaAssignment: The manual partition assignment includes broker 3, but no such broker is registered.
             create a 0:1,2 1:1 => InvalidReplicaAssignment: The manual partition assignment includes a partition with 1 replica(s), but this is not consistent with previous partitions, which have 2 replica(s).
             create a 0: => InvalidReplicaAssignment: The manual partition assignment includes an empty replica list.
             fence 2
             create a 0:2 => InvalidReplicaAssignment: All brokers specified in the manual partition assignment for partition 0 are fenced or in controlled shutdown.
             create a 0:1,2 => 1x2
             show a-0 => leader 1 epoch 0 isr [1]",
        );
    }

    #[test]
    fn configs_are_checked_and_go_with_the_topic() {
        check(
            "broker 1
             create orders 1 1 retention.ms=soon => InvalidConfig: not a number
             create orders 1 1 retention.ms => InvalidConfig: Null value not supported for topic configs: retention.ms
             create orders 1 1 retention.ms=5 => 1x1
             show topic:orders => retention.ms=5
             delete orders
             show topic:orders =>
             delete orders => UnknownTopicOrPartition",
        );
    }

    #[test]
    fn a_topic_only_grows() {
        check(
            "broker 1
             broker 2
             create orders 2 1 => 2x1
             grow orders 2 => InvalidPartitions: Topic already has 2 partition(s).
             grow orders 1 => InvalidPartitions: The topic orders currently has 2 partition(s); 1 would not be an increase.
             grow none 5 => UnknownTopicOrPartition
             grow orders 4 1 => InvalidReplicaAssignment: Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.
             grow orders 3 1,2 => InvalidReplicaAssignment: The manual partition assignment includes a partition with 2 replica(s), but this is not consistent with previous partitions, which have 1 replica(s).
             grow orders 3 2
             show orders-2 => leader 2 epoch 0 isr [2]
             grow orders 20000 => PolicyViolation: Excessively large number of additional partitions per request.",
        );
    }
}
