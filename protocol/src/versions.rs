//! The one table: which API is served in which versions.
//!
//! The ranges are those of Apache Kafka 4.4.0. The codec (`kafka-protocol` 0.18) is generated from 4.1:
//! [`in_codec`] says where it is behind, and [`crate::messages`] has what it lacks. What is not here is
//! not advertised, and who asks for it all the same has its connection closed, as Kafka does.

use kafka_protocol::messages::ApiKey;

/// Versions from `min` to `max`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub min: i16,
    pub max: i16,
}

impl Range {
    pub fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

/// What is served, in the order of keys.
pub const SERVED: &[(ApiKey, Range)] = &[
    (ApiKey::Produce, versions(3, 13)),
    (ApiKey::Fetch, versions(4, 18)),
    (ApiKey::ListOffsets, versions(1, 11)),
    (ApiKey::Metadata, versions(0, 13)),
    (ApiKey::OffsetCommit, versions(2, 10)),
    (ApiKey::OffsetFetch, versions(1, 10)),
    (ApiKey::FindCoordinator, versions(0, 6)),
    (ApiKey::JoinGroup, versions(0, 9)),
    (ApiKey::Heartbeat, versions(0, 4)),
    (ApiKey::LeaveGroup, versions(0, 5)),
    (ApiKey::SyncGroup, versions(0, 5)),
    (ApiKey::DescribeGroups, versions(0, 6)),
    (ApiKey::ListGroups, versions(0, 5)),
    (ApiKey::ApiVersions, versions(0, 5)),
    (ApiKey::CreateTopics, versions(2, 7)),
    (ApiKey::DeleteTopics, versions(1, 6)),
    (ApiKey::DeleteRecords, versions(0, 2)),
    (ApiKey::InitProducerId, versions(0, 5)), // 6 is unstable and hidden in Kafka too
    (ApiKey::OffsetForLeaderEpoch, versions(2, 4)),
    (ApiKey::AddPartitionsToTxn, versions(0, 5)),
    (ApiKey::AddOffsetsToTxn, versions(0, 4)),
    (ApiKey::EndTxn, versions(0, 5)),
    (ApiKey::WriteTxnMarkers, versions(1, 2)),
    (ApiKey::TxnOffsetCommit, versions(0, 6)),
    (ApiKey::DescribeConfigs, versions(1, 4)),
    (ApiKey::AlterConfigs, versions(0, 2)),
    (ApiKey::AlterReplicaLogDirs, versions(1, 2)),
    (ApiKey::DescribeLogDirs, versions(1, 5)),
    (ApiKey::CreatePartitions, versions(0, 3)),
    (ApiKey::DeleteGroups, versions(0, 3)),
    (ApiKey::ElectLeaders, versions(0, 2)),
    (ApiKey::IncrementalAlterConfigs, versions(0, 1)),
    (ApiKey::ListPartitionReassignments, versions(0, 0)),
    (ApiKey::OffsetDelete, versions(0, 0)),
    (ApiKey::DescribeQuorum, versions(0, 2)),
    (ApiKey::UpdateFeatures, versions(0, 2)),
    (ApiKey::DescribeCluster, versions(0, 2)),
    (ApiKey::DescribeProducers, versions(0, 0)),
    (ApiKey::UnregisterBroker, versions(0, 0)),
    (ApiKey::DescribeTransactions, versions(0, 0)),
    (ApiKey::ListTransactions, versions(0, 2)),
    (ApiKey::ConsumerGroupHeartbeat, versions(0, 1)),
    (ApiKey::ConsumerGroupDescribe, versions(0, 1)),
    (ApiKey::ListConfigResources, versions(0, 1)),
    (ApiKey::DescribeTopicPartitions, versions(0, 0)),
];

/// What a controller's listener serves of it, as in Apache Kafka: what is asked about the cluster and changes it. What
/// only other nodes ask of a controller is not here, nor is anything else.
pub const OF_CONTROLLERS: &[ApiKey] = &[
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::DescribeConfigs,
    ApiKey::AlterConfigs,
    ApiKey::CreatePartitions,
    ApiKey::ElectLeaders,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::ListPartitionReassignments,
    ApiKey::DescribeQuorum,
    ApiKey::UpdateFeatures,
    ApiKey::DescribeCluster,
    ApiKey::UnregisterBroker,
];

/// The versions in which `key` is served, if it is.
pub fn served(key: ApiKey) -> Option<Range> {
    SERVED
        .iter()
        .find(|(served, _)| *served == key)
        .map(|(_, range)| *range)
}

/// The version under which the codec knows what `version` looks like.
pub fn in_codec(key: ApiKey, version: i16) -> i16 {
    match (key, version) {
        // Only one more timestamp with a special meaning (KIP-1023).
        (ApiKey::ListOffsets, 11) => 10,
        // The answer is the old one; the request has a table of its own.
        (ApiKey::ApiVersions, 5) => 4,
        // The request is the old one; the answer has a table of its own.
        (ApiKey::DescribeLogDirs, 5) => 4,
        // The answer is the old one; the request has a table of its own.
        (ApiKey::WriteTxnMarkers, 2) => 1,
        // Request and answer have tables of their own.
        (ApiKey::TxnOffsetCommit, 6) => 5,
        // The request is the old one; the answer has a table of its own.
        (ApiKey::DeleteGroups, 3) => 2,
        _ => version,
    }
}

/// What the answer to ApiVersions lists: [`SERVED`], but Produce from 0.
///
/// librdkafka up to 2.x takes a broker that does not list Produce v0 for one too old to compress
/// (KAFKA-18659), so Apache Kafka lists versions it has not served since 4.0.
pub fn advertised() -> impl Iterator<Item = (ApiKey, Range)> {
    SERVED.iter().map(|&(key, range)| match key {
        ApiKey::Produce => (key, Range { min: 0, ..range }),
        _ => (key, range),
    })
}

const fn versions(min: i16, max: i16) -> Range {
    Range { min, max }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_within_the_codec() {
        assert!(SERVED.is_sorted_by_key(|(key, _)| *key as i16));
        for (key, range) in SERVED {
            let codec = key.valid_versions();
            // Of these the codec has the newest version as an answer; `by_topic_id` has it as a request.
            let ours = matches!(key, ApiKey::OffsetCommit | ApiKey::OffsetFetch);
            let newest = in_codec(*key, range.max) - i16::from(ours);
            assert!(codec.min == range.min && newest <= codec.max, "{key:?}");
        }
    }

    #[test]
    fn produce_is_listed_from_0_but_served_from_3() {
        assert_eq!(served(ApiKey::Produce), Some(versions(3, 13)));
        assert!(advertised().any(|row| row == (ApiKey::Produce, versions(0, 13))));
        assert_eq!(advertised().count(), SERVED.len());
    }

    #[test]
    fn what_is_not_in_the_table_is_not_served() {
        assert_eq!(served(ApiKey::Vote), None);
    }
}
