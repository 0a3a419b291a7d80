//! The records of `__consumer_offsets`: committed offsets, and groups of every protocol.
//!
//! A trap in the defaults: four tagged fields say in Kafka's schemas that they are null unless
//! set, but in a way that its generator passes over. Its readers take them for *empty* when they
//! are not there, and its writers write null; what comes of a member's classic metadata being taken
//! for empty is that it counts as a classic member. So the default here is `Some` and empty as well,
//! and who makes such a record says `None` and has it written.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::{
    error::DecodeError,
    json::Json,
    records::{coordinator_records, number},
    schema::{self, EncodeError, Field, Form, schema},
};

coordinator_records! {
    /// A record of the group coordinator's log.
    GroupRecord {
        LegacyOffsetCommit(OffsetCommitKey, LegacyOffsetCommitValue) = 0,
        OffsetCommit(OffsetCommitKey, OffsetCommitValue) = 1,
        GroupMetadata(GroupMetadataKey, GroupMetadataValue) = 2,
        ConsumerGroupMetadata(GroupKey, ConsumerGroupMetadataValue) = 3,
        ConsumerGroupPartitionMetadata(GroupKey, ConsumerGroupPartitionMetadataValue) = 4,
        ConsumerGroupMemberMetadata(MemberKey, ConsumerGroupMemberMetadataValue) = 5,
        ConsumerGroupTargetAssignmentMetadata(GroupKey, TargetAssignmentMetadataValue) = 6,
        ConsumerGroupTargetAssignmentMember(MemberKey, TargetAssignmentMemberValue) = 7,
        ConsumerGroupCurrentMemberAssignment(MemberKey, ConsumerGroupCurrentMemberAssignmentValue) = 8,
        ShareGroupMemberMetadata(MemberKey, ShareGroupMemberMetadataValue) = 10,
        ShareGroupMetadata(GroupKey, ShareGroupMetadataValue) = 11,
        ShareGroupTargetAssignmentMetadata(GroupKey, TargetAssignmentMetadataValue) = 12,
        ShareGroupTargetAssignmentMember(MemberKey, TargetAssignmentMemberValue) = 13,
        ShareGroupCurrentMemberAssignment(MemberKey, ShareGroupCurrentMemberAssignmentValue) = 14,
        ShareGroupStatePartitionMetadata(GroupKey, ShareGroupStatePartitionMetadataValue) = 15,
        ConsumerGroupRegularExpression(RegularExpressionKey, ConsumerGroupRegularExpressionValue) = 16,
        StreamsGroupMetadata(GroupKey, StreamsGroupMetadataValue) = 17,
        StreamsGroupMemberMetadata(MemberKey, StreamsGroupMemberMetadataValue) = 19,
        StreamsGroupTargetAssignmentMetadata(GroupKey, TargetAssignmentMetadataValue) = 20,
        StreamsGroupTargetAssignmentMember(MemberKey, StreamsGroupTargetAssignmentMemberValue) = 21,
        StreamsGroupCurrentMemberAssignment(MemberKey, StreamsGroupCurrentMemberAssignmentValue) = 22,
        StreamsGroupTopology(GroupKey, StreamsGroupTopologyValue) = 23,
    }
}

// Keys. They have no flexible version, and no version but 0. Many types of record are kept by group,
// or by group and member, and share a shape.
schema! {
    pub struct OffsetCommitKey 0..=0, flexible 1 {
        group: StrBytes,
        topic: StrBytes,
        partition: i32,
    }

    pub struct GroupMetadataKey 0..=0, flexible 1 {
        group: String,
    }

    pub struct GroupKey 0..=0, flexible 1 {
        group_id: String,
    }

    pub struct MemberKey 0..=0, flexible 1 {
        group_id: String,
        member_id: String,
    }

    pub struct RegularExpressionKey 0..=0, flexible 1 {
        group_id: String,
        regular_expression: String,
    }
}

// Committed offsets and groups of the classic protocol. Nothing else is written as often: its strings
// are those of the request.
schema! {
    pub struct LegacyOffsetCommitValue 0..=0, flexible 1 {
        offset: i64,
        metadata: StrBytes,
        commit_timestamp: i64,
    }

    pub struct OffsetCommitValue 0..=4, flexible 4 {
        offset: i64,
        leader_epoch: i32 [3..; ignorable] = -1,
        metadata: StrBytes,
        /// When it was committed (ms).
        commit_timestamp: i64,
        /// When it goes (ms), if the client said so; such a value is written as version 1.
        expire_timestamp: i64 [1..=1; ignorable] = -1,
        topic_id: Uuid [4.., tag 0; ignorable],
    }

    pub struct GroupMetadataValue 0..=4, flexible 4 {
        protocol_type: String,
        generation: i32,
        protocol: Option<String>,
        leader: Option<String>,
        /// When the group came into its state (ms).
        current_state_timestamp: i64 [2..; ignorable] = -1,
        members: Vec<MemberMetadata>,
    }

    pub struct MemberMetadata 0..=4, flexible 4 {
        member_id: String,
        group_instance_id: Option<String> [3..; ignorable],
        client_id: String,
        client_host: String,
        /// ms
        rebalance_timeout: i32 [1..; ignorable] = -1,
        /// ms
        session_timeout: i32,
        subscription: Bytes,
        assignment: Bytes,
    }
}

// What consumers of the classic protocol say and are told, inside a member's `subscription` and `assignment`, behind its
// version.
schema! {
    pub struct ConsumerProtocolSubscription 0..=3, flexible 32767 {
        topics: Vec<String>,
        user_data: Option<Bytes>,
        owned_partitions: Vec<ConsumerProtocolPartitions> [1..],
        generation_id: i32 [2..] = -1,
        rack_id: Option<String> [3..],
    }

    pub struct ConsumerProtocolAssignment 0..=3, flexible 32767 {
        assigned_partitions: Vec<ConsumerProtocolPartitions>,
        user_data: Option<Bytes>,
    }

    pub struct ConsumerProtocolPartitions 0..=3, flexible 32767 {
        topic: String,
        partitions: Vec<i32>,
    }
}

/// The type of the groups that consumers are in.
const CONSUMERS: &str = "consumer";

/// Puts into `shown`, which is what tools are shown of `group`, what consumers say and are told in the place of its bytes,
/// as far as those can be understood.
pub fn explain_members(group: &GroupMetadataValue, shown: &mut Json) {
    let Some(Json::Array(members)) = shown.get_mut("members") else {
        return;
    };
    if group.protocol_type != CONSUMERS {
        return;
    }
    for (member, shown) in group.members.iter().zip(members) {
        let subscription = explained::<ConsumerProtocolSubscription>(
            &member.subscription,
            ConsumerProtocolSubscription::form,
        );
        let assignment = explained::<ConsumerProtocolAssignment>(
            &member.assignment,
            ConsumerProtocolAssignment::form,
        );
        for (name, explained) in [("subscription", subscription), ("assignment", assignment)] {
            if let (Some(place), Some(explained)) = (shown.get_mut(name), explained) {
                *place = explained;
            }
        }
    }
}

fn explained<T: Field>(bytes: &Bytes, form: impl Fn(i16) -> Form) -> Option<Json> {
    let mut bytes = bytes.clone();
    let version = number(&mut bytes).ok()?;
    let form = form(version);
    Some(T::read(&mut bytes, form).ok()?.json(form))
}

// Groups of the consumer protocol (KIP-848). Some shapes serve share and streams groups too.
schema! {
    pub struct ConsumerGroupMetadataValue 0..=0, flexible 0 {
        epoch: i32,
        /// Of the topics subscribed to; another hash means another assignment.
        metadata_hash: i64 [0.., tag 0],
    }

    /// Superseded by the hash in [`ConsumerGroupMetadataValue`], but still in old logs.
    pub struct ConsumerGroupPartitionMetadataValue 0..=0, flexible 0 {
        topics: Vec<TopicMetadata>,
    }

    pub struct TopicMetadata 0..=0, flexible 0 {
        topic_id: Uuid,
        topic_name: String,
        num_partitions: i32,
        partition_metadata: Vec<PartitionMetadata>,
    }

    pub struct PartitionMetadata 0..=0, flexible 0 {
        partition: i32,
        racks: Vec<String>,
    }

    pub struct ConsumerGroupMemberMetadataValue 0..=0, flexible 0 {
        instance_id: Option<String>,
        rack_id: Option<String>,
        client_id: String,
        client_host: String,
        subscribed_topic_names: Vec<String>,
        subscribed_topic_regex: Option<String>,
        rebalance_timeout_ms: i32 = -1,
        server_assignor: Option<String>,
        /// Set for a member that speaks the classic protocol.
        classic_member_metadata: Option<ClassicMemberMetadata> [0.., tag 0]
            = Some(ClassicMemberMetadata::default()),
    }

    pub struct ClassicMemberMetadata 0..=0, flexible 0 {
        session_timeout_ms: i32,
        supported_protocols: Vec<ClassicProtocol>,
    }

    pub struct ClassicProtocol 0..=0, flexible 0 {
        name: String,
        metadata: Bytes,
    }

    pub struct TargetAssignmentMetadataValue 0..=0, flexible 0 {
        assignment_epoch: i32,
        /// When it was computed (ms).
        assignment_timestamp: i64 [0.., tag 0; ignorable],
    }

    pub struct TargetAssignmentMemberValue 0..=0, flexible 0 {
        topic_partitions: Vec<TopicPartitions>,
    }

    pub struct TopicPartitions 0..=0, flexible 0 {
        topic_id: Uuid,
        partitions: Vec<i32>,
    }

    pub struct ConsumerGroupCurrentMemberAssignmentValue 0..=0, flexible 0 {
        member_epoch: i32,
        previous_member_epoch: i32,
        state: i8,
        assigned_partitions: Vec<AssignedPartitions>,
        partitions_pending_revocation: Vec<AssignedPartitions>,
    }

    pub struct AssignedPartitions 0..=0, flexible 0 {
        topic_id: Uuid,
        partitions: Vec<i32>,
        /// The epoch in which the member got each partition (KIP-1251).
        assignment_epochs: Option<Vec<i32>> [0.., tag 0] = Some(Vec::new()),
    }

    pub struct ConsumerGroupRegularExpressionValue 0..=0, flexible 0 {
        /// The topics that matched.
        topics: Vec<String>,
        /// The offset of the metadata log at which they did.
        version: i64,
        timestamp: i64,
    }
}

// Share groups (KIP-932).
schema! {
    pub struct ShareGroupMemberMetadataValue 0..=0, flexible 0 {
        rack_id: Option<String>,
        client_id: String,
        client_host: String,
        subscribed_topic_names: Vec<String>,
    }

    pub struct ShareGroupMetadataValue 0..=0, flexible 0 {
        epoch: i32,
        metadata_hash: i64,
    }

    pub struct ShareGroupCurrentMemberAssignmentValue 0..=0, flexible 0 {
        member_epoch: i32,
        previous_member_epoch: i32,
        state: i8,
        assigned_partitions: Vec<TopicPartitions>,
    }

    pub struct ShareGroupStatePartitionMetadataValue 0..=0, flexible 0 {
        initializing_topics: Vec<TopicPartitionsInfo>,
        initialized_topics: Vec<TopicPartitionsInfo>,
        deleting_topics: Vec<DeletingTopicInfo>,
    }

    pub struct TopicPartitionsInfo 0..=0, flexible 0 {
        topic_id: Uuid,
        topic_name: String,
        partitions: Vec<i32>,
    }

    pub struct DeletingTopicInfo 0..=0, flexible 0 {
        topic_id: Uuid,
        topic_name: String,
    }
}

// Streams groups (KIP-1071).
schema! {
    pub struct StreamsGroupMetadataValue 0..=0, flexible 0 {
        epoch: i32,
        metadata_hash: i64,
        validated_topology_epoch: i32 [0.., tag 0] = -1,
        last_assignment_configs: Option<Vec<KeyValue>> [0.., tag 1] = Some(Vec::new()),
        stored_description_topology_epoch: i32 [0.., tag 2] = -1,
        failed_description_topology_epoch: i32 [0.., tag 3] = -1,
    }

    pub struct KeyValue 0..=0, flexible 0 {
        key: String,
        value: String,
    }

    pub struct StreamsGroupMemberMetadataValue 0..=0, flexible 0 {
        instance_id: Option<String>,
        rack_id: Option<String>,
        client_id: String,
        client_host: String,
        rebalance_timeout_ms: i32 = -1,
        topology_epoch: i32,
        process_id: String,
        user_endpoint: Option<Endpoint>,
        client_tags: Vec<KeyValue>,
    }

    pub struct Endpoint 0..=0, flexible 0 {
        host: String,
        port: u16,
    }

    pub struct StreamsGroupTargetAssignmentMemberValue 0..=0, flexible 0 {
        active_tasks: Vec<TaskIds>,
        standby_tasks: Vec<TaskIds>,
        warmup_tasks: Vec<TaskIds>,
    }

    pub struct TaskIds 0..=0, flexible 0 {
        subtopology_id: String,
        partitions: Vec<i32>,
        /// The epoch in which the member got each task; only in its current assignment.
        assignment_epochs: Option<Vec<i32>> [0.., tag 0] = Some(Vec::new()),
    }

    pub struct StreamsGroupCurrentMemberAssignmentValue 0..=0, flexible 0 {
        member_epoch: i32,
        previous_member_epoch: i32,
        state: i8,
        active_tasks: Vec<TaskIds>,
        standby_tasks: Vec<TaskIds>,
        warmup_tasks: Vec<TaskIds>,
        active_tasks_pending_revocation: Vec<TaskIds>,
        standby_tasks_pending_revocation: Vec<TaskIds>,
        warmup_tasks_pending_revocation: Vec<TaskIds>,
    }

    pub struct StreamsGroupTopologyValue 0..=0, flexible 0 {
        epoch: i32,
        subtopologies: Vec<Subtopology>,
    }

    pub struct Subtopology 0..=0, flexible 0 {
        subtopology_id: String,
        source_topics: Vec<String>,
        source_topic_regex: Vec<String>,
        state_changelog_topics: Vec<TopicInfo>,
        repartition_sink_topics: Vec<String>,
        repartition_source_topics: Vec<TopicInfo>,
        copartition_groups: Vec<CopartitionGroup>,
    }

    /// Indexes into the subtopology's lists.
    pub struct CopartitionGroup 0..=0, flexible 0 {
        source_topics: Vec<i16>,
        source_topic_regex: Vec<i16>,
        repartition_source_topics: Vec<i16>,
    }

    pub struct TopicInfo 0..=0, flexible 0 {
        name: String,
        partitions: i32,
        replication_factor: i16,
        topic_configs: Vec<KeyValue>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_read_back_from_its_newest_version() {
        for record in one_of_each() {
            let (key, value) = record.encoded(record.latest_version()).unwrap();
            assert_eq!(GroupRecord::decode(key, value), Ok(record));
        }
    }

    #[test]
    fn a_committed_offset_is_what_kafka_writes_in_every_version() {
        let key = OffsetCommitKey {
            group: "g".into(),
            topic: "t".into(),
            partition: 1,
        };
        let value = OffsetCommitValue {
            offset: 5,
            leader_epoch: 6,
            metadata: "m".into(),
            commit_timestamp: 7,
            ..OffsetCommitValue::default()
        };
        let record = GroupRecord::OffsetCommit {
            key,
            value: Some(value),
        };
        let encoded = |version| {
            let (key, value) = record.encoded(version).unwrap();
            assert_eq!(key, &b"\0\x01\0\x01g\0\x01t\0\0\0\x01"[..]);
            value.unwrap()
        };
        assert_eq!(
            encoded(0),
            &b"\0\0\0\0\0\0\0\0\0\x05\0\x01m\0\0\0\0\0\0\0\x07"[..]
        );
        let with_epoch = b"\0\x03\0\0\0\0\0\0\0\x05\0\0\0\x06\0\x01m\0\0\0\0\0\0\0\x07";
        assert_eq!(encoded(3), &with_epoch[..]);
        let flexible = b"\0\x04\0\0\0\0\0\0\0\x05\0\0\0\x06\x02m\0\0\0\0\0\0\0\x07\0";
        assert_eq!(encoded(4), &flexible[..]);
    }

    #[test]
    fn what_may_be_null_is_read_back_both_ways() {
        let classic = ClassicMemberMetadata {
            session_timeout_ms: 9,
            supported_protocols: vec![ClassicProtocol {
                name: "range".into(),
                metadata: Bytes::new(),
            }],
        };
        for classic_member_metadata in [None, Some(classic)] {
            let value = ConsumerGroupMemberMetadataValue {
                classic_member_metadata,
                ..ConsumerGroupMemberMetadataValue::default()
            };
            let key = MemberKey {
                group_id: "g".into(),
                member_id: "m".into(),
            };
            let record = GroupRecord::ConsumerGroupMemberMetadata {
                key,
                value: Some(value),
            };
            let (key, value) = record.encoded(0).unwrap();
            assert_eq!(GroupRecord::decode(key, value), Ok(record));
        }
    }

    #[test]
    fn an_unknown_type_is_passed_on_and_an_unknown_version_refused() {
        let decode = |key: &'static [u8], value: &'static [u8]| {
            GroupRecord::decode(Bytes::from_static(key), Some(Bytes::from_static(value)))
        };
        assert_eq!(decode(b"\0\x63", b""), Ok(GroupRecord::Unknown(99)));
        assert!(decode(b"\0\x03\0\x01g", b"\0\x09").is_err());
        assert!(decode(b"\0", b"").is_err());
    }
}
