//! Configs of topics, brokers, groups and client metrics (pure).
//!
//! - A resource is altered as a whole or not at all; one that is refused leaves the others alone.
//! - Which names there are, and what may be said about them, is the broker's to know: it passes its
//!   table in as [`ConfigRules`].
//! - A broker's config is written even if it says what it said: that is how a broker is made to read
//!   its key stores again (KAFKA-14136).

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::records::metadata::{ClearElrRecord, ConfigRecord, MetadataRecord};

use super::{Decision, features::ELIGIBLE_LEADER_REPLICAS};
use crate::{
    cluster::{ClusterImage, Resource, ResourceKind},
    error::{Reason, Refusal},
};

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// The longest value that fits a record, in bytes.
const VALUE_MAX: usize = 32_767;

/// What the broker knows about configs: names, types, ranges, defaults.
pub trait ConfigRules: Send + Sync {
    /// Checks what a resource's overrides would be against what they are.
    fn validate(
        &self,
        resource: &Resource,
        proposed: &BTreeMap<String, String>,
        existing: &BTreeMap<String, String>,
    ) -> Result<(), Refusal>;

    /// Whether the config holds a list, to which values can be added.
    fn is_list(&self, kind: ResourceKind, name: &str) -> bool;

    /// What holds without any dynamic override, as text.
    fn default_value(&self, kind: ResourceKind, name: &str) -> Option<String>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub name: String,
    pub kind: OperationKind,
    pub value: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    Set,
    Delete,
    Append,
    Subtract,
}

/// Everything that a resource shall have as overrides.
pub type Replacement = Vec<(String, Option<String>)>;

/// Applies operations to what is there (IncrementalAlterConfigs).
pub fn alter(
    image: &ClusterImage,
    rules: &dyn ConfigRules,
    changes: &[(Resource, Vec<Operation>)],
    validate_only: bool,
) -> Decision<Vec<Result<(), Refusal>>> {
    decide(image, changes, validate_only, |resource, operations| {
        let records = operated(image, rules, resource, operations)?;
        check(image, rules, resource, &records)?;
        check_exists(image, resource)?;
        Ok(records)
    })
}

/// Replaces what is there (AlterConfigs): what is not named goes back to its default.
pub fn replace(
    image: &ClusterImage,
    rules: &dyn ConfigRules,
    changes: &[(Resource, Replacement)],
    validate_only: bool,
) -> Decision<Vec<Result<(), Refusal>>> {
    decide(image, changes, validate_only, |resource, configs| {
        let current = overrides(image, resource);
        let mut records: Vec<ConfigRecord> = configs
            .iter()
            .filter(|(name, value)| {
                current.get(name) != value.as_ref() || resource.kind == ResourceKind::Broker
            })
            .map(|(name, value)| record(resource, name, value.clone()))
            .collect();
        let dropped = current
            .keys()
            .filter(|name| configs.iter().all(|(named, _)| named != *name));
        records.extend(dropped.map(|name| record(resource, name, None)));
        check(image, rules, resource, &records)?;
        check_exists(image, resource)?;
        Ok(records)
    })
}

/// The configs of a resource that the same decision creates.
pub(super) fn alter_new(
    image: &ClusterImage,
    rules: &dyn ConfigRules,
    resource: &Resource,
    operations: &[Operation],
) -> Result<Vec<MetadataRecord>, Refusal> {
    let records = operated(image, rules, resource, operations)?;
    check(image, rules, resource, &records)?;
    Ok(written(image, records))
}

/// The records that carry config changes out.
///
/// Who may lead below `min.insync.replicas` was found with the old value: with a new one it is not
/// known who has everything, so the eligible leaders are forgotten.
fn written(image: &ClusterImage, configs: Vec<ConfigRecord>) -> Vec<MetadataRecord> {
    let mut cleared = Vec::new();
    if tracks_eligible_leaders(image) {
        for record in configs.iter().filter(|r| r.name == MIN_INSYNC_REPLICAS) {
            let topic_name = match ResourceKind::from_id(record.resource_type) {
                Some(ResourceKind::Topic) => record.resource_name.clone(),
                _ => String::new(),
            };
            cleared.push(MetadataRecord::ClearElr(ClearElrRecord { topic_name }));
        }
    }
    let configs = configs.into_iter().map(MetadataRecord::Config);
    configs.chain(cleared).collect()
}

fn tracks_eligible_leaders(image: &ClusterImage) -> bool {
    0 < image.feature(ELIGIBLE_LEADER_REPLICAS)
}

/// What holds for a topic's config: its own override, this node's, the cluster's, or the default.
/// Only for configs that brokers know by the same name.
pub(super) fn effective(
    image: &ClusterImage,
    rules: &dyn ConfigRules,
    node_id: i32,
    topic: &str,
    name: &str,
) -> Option<String> {
    [
        Resource::topic(topic),
        Resource::broker(node_id),
        Resource::all_brokers(),
    ]
    .iter()
    .find_map(|resource| image.configs_of(resource)?.get(name).cloned())
    .or_else(|| rules.default_value(ResourceKind::Topic, name))
}

fn decide<T>(
    image: &ClusterImage,
    changes: &[(Resource, Vec<T>)],
    validate_only: bool,
    alter: impl Fn(&Resource, &[T]) -> Result<Vec<ConfigRecord>, Refusal>,
) -> Decision<Vec<Result<(), Refusal>>> {
    let mut configs = Vec::new();
    let answer = changes
        .iter()
        .map(|(resource, change)| {
            configs.extend(alter(resource, change)?);
            Ok(())
        })
        .collect();
    let mut records = written(image, configs);
    if validate_only {
        records.clear();
    }
    Decision { records, answer }
}

fn operated(
    image: &ClusterImage,
    rules: &dyn ConfigRules,
    resource: &Resource,
    operations: &[Operation],
) -> Result<Vec<ConfigRecord>, Refusal> {
    let current = overrides(image, resource);
    let mut records = Vec::new();
    for Operation { name, kind, value } in operations {
        let old = current.get(name);
        let new = match kind {
            OperationKind::Set => value.clone(),
            OperationKind::Delete => None,
            OperationKind::Append | OperationKind::Subtract => {
                if !rules.is_list(resource.kind, name) {
                    let verb = match kind {
                        OperationKind::Append => "APPEND",
                        _ => "SUBTRACT",
                    };
                    return Err(Refusal::new(
                        Reason::InvalidConfig,
                        format!("Can't {verb} to key {name} because its type is not LIST."),
                    ));
                }
                let base = old
                    .cloned()
                    .or_else(|| rules.default_value(resource.kind, name))
                    .unwrap_or_default();
                Some(changed_list(&base, *kind, value.as_deref().unwrap_or("")))
            }
        };
        if old != new.as_ref() || resource.kind == ResourceKind::Broker {
            records.push(record(resource, name, new));
        }
    }
    Ok(records)
}

/// How long the list of values is, is for the client to choose: none of them is compared with each.
fn changed_list(base: &str, kind: OperationKind, values: &str) -> String {
    let mut items: Vec<&str> = base.split(',').filter(|item| !item.is_empty()).collect();
    if kind == OperationKind::Append {
        let mut known: HashSet<&str> = items.iter().copied().collect();
        items.extend(values.split(',').filter(|value| known.insert(*value)));
    } else {
        // What is in the list twice goes when it is named twice.
        let mut unwanted: HashMap<&str, usize> = HashMap::new();
        for value in values.split(',') {
            *unwanted.entry(value).or_default() += 1;
        }
        items.retain(|item| match unwanted.get_mut(item) {
            Some(count) if 0 < *count => {
                *count -= 1;
                false
            }
            _ => true,
        });
    }
    items.join(",")
}

fn check(
    image: &ClusterImage,
    rules: &dyn ConfigRules,
    resource: &Resource,
    records: &[ConfigRecord],
) -> Result<(), Refusal> {
    let existing = overrides(image, resource);
    let mut proposed = existing.clone();
    for record in records {
        check_record(image, resource, record)?;
        match &record.value {
            Some(value) => proposed.insert(record.name.clone(), value.clone()),
            None => proposed.remove(&record.name),
        };
    }
    rules.validate(resource, &proposed, &existing)
}

fn check_record(
    image: &ClusterImage,
    resource: &Resource,
    record: &ConfigRecord,
) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(Reason::InvalidConfig, message));
    if resource.kind == ResourceKind::Broker
        && record.name == MIN_INSYNC_REPLICAS
        && tracks_eligible_leaders(image)
    {
        if !resource.name.is_empty() {
            return invalid(
                "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
            );
        }
        if record.value.is_none() {
            return invalid(
                "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
            );
        }
    }
    match &record.value {
        Some(value) if VALUE_MAX < value.len() => invalid(
            "The configuration value cannot be added because it exceeds the maximum value size of \
             32767 bytes.",
        ),
        _ => Ok(()),
    }
}

/// Checked last, as in Apache Kafka: a bad value for a topic that is not there is a bad value.
fn check_exists(image: &ClusterImage, resource: &Resource) -> Result<(), Refusal> {
    match resource.kind {
        ResourceKind::Topic if image.topic(&resource.name).is_none() => Err(Refusal::new(
            Reason::UnknownTopicOrPartition,
            format!("The topic '{}' does not exist.", resource.name),
        )),
        ResourceKind::Broker if !resource.name.is_empty() => {
            let id: i32 = resource.name.parse().map_err(|_| {
                Refusal::new(
                    Reason::InvalidRequest,
                    format!("Invalid broker name {}", resource.name),
                )
            })?;
            if image.brokers.contains_key(&id) || image.controllers.contains_key(&id) {
                return Ok(());
            }
            Err(Refusal::new(
                Reason::BrokerIdNotRegistered,
                format!("No node with id {id} found."),
            ))
        }
        _ => Ok(()),
    }
}

fn overrides(image: &ClusterImage, resource: &Resource) -> BTreeMap<String, String> {
    image
        .configs_of(resource)
        .map(|configs| BTreeMap::clone(configs))
        .unwrap_or_default()
}

fn record(resource: &Resource, name: &str, value: Option<String>) -> ConfigRecord {
    ConfigRecord {
        resource_type: resource.kind.id(),
        resource_name: resource.name.clone(),
        name: name.to_owned(),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::script::check;

    /// Comparing each with each takes minutes, and the controller does nothing else meanwhile.
    #[test]
    fn a_great_many_values_are_added_and_taken_in_no_time() {
        let names = (0..300_000).map(|at| at.to_string());
        let values = names.collect::<Vec<_>>().join(",");
        let all = changed_list("a,7,b", OperationKind::Append, &values);
        assert!(all.starts_with("a,7,b,0,1,2,3,4,5,6,8,"));
        let rest = changed_list(&all, OperationKind::Subtract, &values);
        assert_eq!(rest, "a,b");
        let twice = changed_list("a,b,a,a", OperationKind::Subtract, "a,c,a");
        assert_eq!(twice, "b,a");
    }

    #[test]
    fn a_list_is_added_to_and_taken_from_starting_at_its_default() {
        check(
            "broker 1
             create orders 1 1 => 1x1
             append topic:orders cleanup.policy=compact
             show topic:orders => cleanup.policy=delete,compact
             append topic:orders cleanup.policy=compact
             subtract topic:orders cleanup.policy=delete
             show topic:orders => cleanup.policy=compact
             append topic:orders retention.ms=5 => InvalidConfig: Can't APPEND to key retention.ms because its type is not LIST.
             unset topic:orders cleanup.policy
             show topic:orders =>",
        );
    }

    #[test]
    fn replacing_drops_what_is_not_named() {
        check(
            "broker 1
             create orders 1 1 retention.ms=5 cleanup.policy=compact => 1x1
             replace topic:orders retention.ms=7 flush.ms=1
             show topic:orders => flush.ms=1 retention.ms=7
             replace topic:orders retention.ms=soon => InvalidConfig: not a number
             show topic:orders => flush.ms=1 retention.ms=7
             replace topic:orders
             show topic:orders =>",
        );
    }

    #[test]
    fn a_resource_must_exist_but_a_bad_value_is_found_first() {
        check(
            "broker 1
             set topic:none retention.ms=soon => InvalidConfig: not a number
             set topic:none retention.ms=1 => UnknownTopicOrPartition: The topic 'none' does not exist.
             set broker:7 a=b => BrokerIdNotRegistered: No node with id 7 found.
             set broker:x a=b => InvalidRequest: Invalid broker name x
             set broker:1 a=b
             set broker: a=c
             show broker:1 => a=b
             set group:any a=b",
        );
    }

    #[test]
    fn the_minimum_in_sync_is_the_clusters_while_eligible_leaders_are_tracked() {
        check(
            "broker 1
             set broker:1 min.insync.replicas=2 => InvalidConfig: Broker-level min.insync.replicas cannot be altered while ELR is enabled.
             set broker: min.insync.replicas=2
             unset broker: min.insync.replicas => InvalidConfig: Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
        );
    }

    #[test]
    fn another_minimum_forgets_who_is_eligible() {
        check(
            "broker 1
             broker 2
             create orders 0:1,2 => 1x2
             set topic:orders min.insync.replicas=2
             fence 2
             show orders-0 => leader 1 epoch 0 isr [1] eligible [2]
             set topic:orders min.insync.replicas=1
             show orders-0 => leader 1 epoch 0 isr [1]",
        );
    }
}
