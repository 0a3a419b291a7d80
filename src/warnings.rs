//! What a start warns of that only shows in the cluster's metadata (pure).

use replication::cluster::{ClusterImage, ResourceKind};

use crate::{config::Config, topic_name};

/// How many topics a warning names.
const NAMES_MAX: usize = 10;

/// Topics that cannot be made as the configuration says. Clients only see that they are not there.
pub(crate) fn of_replication(config: &Config, image: &ClusterImage) -> Vec<String> {
    let brokers = image
        .brokers
        .values()
        .filter(|broker| broker.is_active())
        .count();
    let is_there = |name: &str| image.topic(name).is_some();
    let factors = [
        (
            "default.replication.factor",
            config.default_replication_factor,
            "topics that are created automatically",
            false,
        ),
        (
            "offsets.topic.replication.factor",
            config.groups.offsets_topic_replication_factor,
            topic_name::OFFSETS,
            is_there(topic_name::OFFSETS),
        ),
        (
            "transaction.state.log.replication.factor",
            config.transactions.state_log_replication_factor,
            topic_name::TRANSACTIONS,
            is_there(topic_name::TRANSACTIONS),
        ),
    ];
    let is_too_many =
        |factor: i16| usize::try_from(factor).is_ok_and(|replicas| brokers < replicas);
    factors
        .into_iter()
        .filter(|(_, factor, _, is_there)| !is_there && is_too_many(*factor))
        .map(|(key, factor, what, _)| {
            format!("{key} is {factor}, and brokers are {brokers}: {what} cannot be created")
        })
        .collect()
}

/// Topics of which the older part is in a tiered storage, which only a directory that was taken over can have.
pub(crate) fn of_tiered_topics(image: &ClusterImage) -> Option<String> {
    let is_tiered = |value: &String| value.trim().eq_ignore_ascii_case("true");
    let tiered: Vec<&str> = image
        .configs()
        .filter(|(resource, _)| resource.kind == ResourceKind::Topic)
        .filter(|(_, configs)| configs.get("remote.storage.enable").is_some_and(is_tiered))
        .map(|(resource, _)| &*resource.name)
        .collect();
    if tiered.is_empty() {
        return None;
    }
    let named = tiered.iter().take(NAMES_MAX).copied();
    let mut names = named.collect::<Vec<_>>().join(", ");
    if NAMES_MAX < tiered.len() {
        names += ", ...";
    }
    Some(format!(
        "{} topics have remote.storage.enable=true, and there is no tiered storage here: what of them is not on this \
         disk is not served, and consumers that begin at the earliest offset pass over it: {names}",
        tiered.len()
    ))
}

#[cfg(test)]
mod tests {
    use protocol::records::metadata::{
        ConfigRecord, MetadataRecord, RegisterBrokerRecord, TopicRecord,
    };
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_replication_factor_above_the_number_of_brokers_is_warned_of() {
        let config =
            |settings: &[(&str, &str)]| Config::single_node(settings).expect("a configuration");
        let mut image = image();
        assert_eq!(of_replication(&config(&[]), &image), [""; 0]);
        let three = config(&[
            ("default.replication.factor", "3"),
            ("offsets.topic.replication.factor", "3"),
        ]);
        assert_eq!(
            of_replication(&three, &image),
            [
                "default.replication.factor is 3, and brokers are 1: topics that are created automatically cannot be \
                 created",
                "offsets.topic.replication.factor is 3, and brokers are 1: __consumer_offsets cannot be created",
            ]
        );
        let topic = MetadataRecord::Topic(TopicRecord {
            name: topic_name::OFFSETS.to_owned(),
            topic_id: Uuid::from_u128(7),
        });
        image.replay(1, &topic).expect("a topic");
        assert_eq!(of_replication(&three, &image).len(), 1, "it is there");
    }

    #[test]
    fn topics_that_were_tiered_are_named() {
        let mut image = image();
        assert_eq!(of_tiered_topics(&image), None);
        for (offset, name, value) in [(1, "a", "true"), (2, "b", "false"), (3, "c", "TRUE")] {
            let config = MetadataRecord::Config(ConfigRecord {
                resource_type: ResourceKind::Topic.id(),
                resource_name: name.to_owned(),
                name: "remote.storage.enable".to_owned(),
                value: Some(value.to_owned()),
            });
            image.replay(offset, &config).expect("a config");
        }
        let warning = of_tiered_topics(&image).expect("a warning");
        assert!(warning.starts_with("2 topics"), "{warning}");
        assert!(warning.ends_with(": a, c"), "{warning}");
    }

    /// A cluster of one broker.
    fn image() -> ClusterImage {
        let mut image = ClusterImage::empty("cluster");
        let broker = MetadataRecord::RegisterBroker(RegisterBrokerRecord {
            broker_id: 1,
            fenced: false,
            ..RegisterBrokerRecord::default()
        });
        image.replay(0, &broker).expect("a broker");
        image
    }
}
