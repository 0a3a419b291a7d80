//! Messages of Apache Kafka 4.4 that the codec, generated from 4.1, lacks in their newest version.
//!
//! What only has a new number and no new field needs no table: see [`crate::versions::in_codec`].

use bytes::Bytes;
use kafka_protocol::{messages, protocol::StrBytes};
use uuid::Uuid;

use crate::{
    error::DecodeError,
    schema::{self, Field, schema},
};

schema! {
    /// What a client asks first.
    pub struct ApiVersionsRequest 0..=5, flexible 3 {
        client_software_name: StrBytes [3..],
        client_software_version: StrBytes [3..],
        /// The cluster and the broker that the client believes to be talking to (KIP-1242).
        cluster_id: Option<StrBytes> [5..],
        node_id: i32 [5..] = -1,
    }

    /// Transactions that are to be ended in partitions.
    pub struct WriteTxnMarkersRequest 1..=2, flexible 1 {
        markers: Vec<WritableTxnMarker>,
    }

    pub struct WritableTxnMarker 1..=2, flexible 1 {
        producer_id: i64,
        producer_epoch: i16,
        /// Is it committed?
        transaction_result: bool,
        topics: Vec<WritableTxnMarkerTopic>,
        /// The leader epoch in which the transaction's coordinator leads.
        coordinator_epoch: i32,
        /// 2 if the producer's epoch is another one after each transaction (KIP-890).
        transaction_version: i8 [2..; ignorable],
    }

    pub struct WritableTxnMarkerTopic 1..=2, flexible 1 {
        name: StrBytes,
        partition_indexes: Vec<i32>,
    }

    /// Up to where a group has read, noted down in a producer's transaction.
    pub struct TxnOffsetCommitRequest 0..=6, flexible 3 {
        transactional_id: StrBytes,
        group_id: StrBytes,
        producer_id: i64,
        producer_epoch: i16,
        generation_id_or_member_epoch: i32 [3..] = -1,
        member_id: StrBytes [3..],
        group_instance_id: Option<StrBytes> [3..],
        topics: Vec<TxnOffsetCommitRequestTopic>,
    }

    pub struct TxnOffsetCommitRequestTopic 0..=6, flexible 3 {
        name: StrBytes [0..=5; ignorable],
        /// In place of the name (KIP-848).
        topic_id: Uuid [6..; ignorable],
        partitions: Vec<TxnOffsetCommitRequestPartition>,
    }

    pub struct TxnOffsetCommitRequestPartition 0..=6, flexible 3 {
        partition_index: i32,
        committed_offset: i64,
        committed_leader_epoch: i32 [2..; ignorable] = -1,
        committed_metadata: Option<StrBytes>,
    }

    pub struct TxnOffsetCommitResponse 0..=6, flexible 3 {
        throttle_time_ms: i32,
        topics: Vec<TxnOffsetCommitResponseTopic>,
    }

    pub struct TxnOffsetCommitResponseTopic 0..=6, flexible 3 {
        name: StrBytes [0..=5; ignorable],
        topic_id: Uuid [6..; ignorable],
        partitions: Vec<TxnOffsetCommitResponsePartition>,
    }

    pub struct TxnOffsetCommitResponsePartition 0..=6, flexible 3 {
        partition_index: i32,
        error_code: i16,
    }

    /// What became of groups that were to be deleted.
    pub(crate) struct DeleteGroupsResponse 0..=3, flexible 2 {
        throttle_time_ms: i32,
        results: Vec<DeletableGroupResult>,
    }

    pub(crate) struct DeletableGroupResult 0..=3, flexible 2 {
        group_id: StrBytes,
        error_code: i16,
        /// A real broker says nothing here, not of a group that is not there either.
        error_message: Option<StrBytes> [3..; ignorable],
    }

    /// The log directories of a broker.
    pub struct DescribeLogDirsResponse 1..=5, flexible 2 {
        throttle_time_ms: i32,
        error_code: i16 [3..; ignorable],
        results: Vec<DescribeLogDirsResult>,
    }

    pub struct DescribeLogDirsResult 1..=5, flexible 2 {
        error_code: i16,
        log_dir: String,
        topics: Vec<DescribeLogDirsTopic>,
        /// Bytes of the file system; -1 if not known.
        total_bytes: i64 [4..; ignorable] = -1,
        usable_bytes: i64 [4..; ignorable] = -1,
        /// No new replica is placed in it (KIP-1066).
        is_cordoned: bool [5..; ignorable],
    }

    pub struct DescribeLogDirsTopic 1..=5, flexible 2 {
        name: String,
        partitions: Vec<DescribeLogDirsPartition>,
    }

    pub struct DescribeLogDirsPartition 1..=5, flexible 2 {
        partition_index: i32,
        partition_size: i64,
        offset_lag: i64,
        /// The replica is on its way into this directory.
        is_future_key: bool,
    }
}

impl ApiVersionsRequest {
    /// Understands a request's body; bytes after it are passed over.
    pub(crate) fn decode(body: &mut Bytes, version: i16) -> Result<Self, DecodeError> {
        Self::read(body, Self::form(version))
    }
}

impl WriteTxnMarkersRequest {
    /// Understands a request's body; bytes after it are passed over.
    pub(crate) fn decode(body: &mut Bytes, version: i16) -> Result<Self, DecodeError> {
        Self::read(body, Self::form(version))
    }
}

impl TxnOffsetCommitRequest {
    /// Understands a request's body; bytes after it are passed over.
    pub(crate) fn decode(body: &mut Bytes, version: i16) -> Result<Self, DecodeError> {
        Self::read(body, Self::form(version))
    }
}

impl TxnOffsetCommitResponse {
    /// Understands the body of an answer.
    pub fn decode(body: Bytes, version: i16) -> Result<Self, DecodeError> {
        schema::decode(body, Self::form(version))
    }
}

impl From<&messages::DeleteGroupsResponse> for DeleteGroupsResponse {
    fn from(response: &messages::DeleteGroupsResponse) -> Self {
        let results = response.results.iter().map(|result| DeletableGroupResult {
            group_id: result.group_id.0.clone(),
            error_code: result.error_code,
            error_message: None,
        });
        Self {
            throttle_time_ms: response.throttle_time_ms,
            results: results.collect(),
        }
    }
}

impl DescribeLogDirsResponse {
    /// Understands the body of an answer.
    pub fn decode(body: Bytes, version: i16) -> Result<Self, DecodeError> {
        schema::decode(body, Self::form(version))
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        messages::{ApiKey, GroupId, TopicName, describe_log_dirs_response as codec},
        protocol::{Decodable, Encodable},
    };

    use super::*;
    use crate::{request::Header, response, schema::Output};

    #[test]
    fn markers_say_of_which_version_their_transaction_is_since_version_2() {
        let body = b"\x02\0\0\0\0\0\0\0\x07\0\x03\x01\x02\x02t\x02\0\0\0\x01\0\0\0\0\x05\x02\0\0";
        let decoded = WriteTxnMarkersRequest::decode(&mut Bytes::from_static(body), 2).unwrap();
        let [marker] = &decoded.markers[..] else {
            panic!("{decoded:?}");
        };
        assert_eq!((marker.producer_id, marker.producer_epoch), (7, 3));
        assert!(marker.transaction_result);
        assert_eq!(&*marker.topics[0].name, "t");
        assert_eq!(marker.topics[0].partition_indexes, [1]);
        assert_eq!(
            (marker.coordinator_epoch, marker.transaction_version),
            (5, 2)
        );
    }

    #[test]
    fn a_request_is_that_of_the_codec_and_since_v5_says_where_it_wants_to_go() {
        for version in 0..=5 {
            let mut ours = ApiVersionsRequest::default();
            let mut theirs = messages::ApiVersionsRequest::default();
            if version >= 3 {
                ours.client_software_name = "me".into();
                theirs.client_software_name = "me".into();
            }
            if version >= 5 {
                ours.cluster_id = Some("cluster".into());
                ours.node_id = 7;
            }
            let mut out = Output::default();
            let form = ApiVersionsRequest::form(version);
            ours.write(&mut out, form)
                .expect("every field has its version");
            let written = Bytes::from(out.bytes);
            let decoded = ApiVersionsRequest::decode(&mut written.clone(), version);
            assert_eq!(decoded, Ok(ours), "v{version}");
            if version < 5 {
                let decoded = messages::ApiVersionsRequest::decode(&mut written.clone(), version);
                assert_eq!(decoded.expect("the codec reads it"), theirs, "v{version}");
            } else {
                assert_eq!(written, &b"\x03me\x01\x08cluster\0\0\0\x07\0"[..]);
            }
        }
    }

    #[test]
    fn an_offset_commit_is_that_of_the_codec_and_since_v6_has_topic_ids() {
        use kafka_protocol::messages::{
            ProducerId, TransactionalId,
            txn_offset_commit_request::{
                TxnOffsetCommitRequestPartition as TheirPartition,
                TxnOffsetCommitRequestTopic as TheirTopic,
            },
        };
        for version in 0..=6_i16 {
            let mut ours = TxnOffsetCommitRequest {
                transactional_id: "x".into(),
                group_id: "g".into(),
                producer_id: 7,
                producer_epoch: 3,
                topics: vec![TxnOffsetCommitRequestTopic {
                    partitions: vec![TxnOffsetCommitRequestPartition {
                        partition_index: 1,
                        committed_offset: 5,
                        committed_leader_epoch: if version >= 2 { 4 } else { -1 },
                        committed_metadata: Some("m".into()),
                    }],
                    ..TxnOffsetCommitRequestTopic::default()
                }],
                ..TxnOffsetCommitRequest::default()
            };
            match version {
                6 => ours.topics[0].topic_id = Uuid::from_bytes([9; 16]),
                _ => ours.topics[0].name = "t".into(),
            }
            let partition = TheirPartition::default()
                .with_partition_index(1)
                .with_committed_offset(5)
                .with_committed_leader_epoch(if version >= 2 { 4 } else { -1 })
                .with_committed_metadata(Some("m".into()));
            let topic = TheirTopic::default()
                .with_name(TopicName("t".into()))
                .with_partitions(vec![partition]);
            let mut theirs = messages::TxnOffsetCommitRequest::default()
                .with_transactional_id(TransactionalId("x".into()))
                .with_group_id(GroupId("g".into()))
                .with_producer_id(ProducerId(7))
                .with_producer_epoch(3)
                .with_topics(vec![topic]);
            if version >= 3 {
                ours.generation_id_or_member_epoch = 2;
                ours.member_id = "me".into();
                theirs = theirs.with_generation_id(2).with_member_id("me".into());
            }
            let mut body = BytesMut::new();
            theirs
                .encode(&mut body, version.min(5))
                .expect("the codec writes it");
            let mut body = body.to_vec();
            if version == 6 {
                // In place of the name.
                let name = body
                    .windows(2)
                    .position(|bytes| bytes == b"\x02t")
                    .expect("it is there");
                body.splice(name..name + 2, [9; 16]);
            }
            let decoded = TxnOffsetCommitRequest::decode(&mut Bytes::from(body), version);
            assert_eq!(decoded, Ok(ours), "v{version}");
        }
    }

    /// As Apache Kafka 4.4.0 answered.
    #[test]
    fn offsets_are_answered_by_topic_id_since_v6() {
        let answer = TxnOffsetCommitResponse {
            topics: vec![TxnOffsetCommitResponseTopic {
                name: "t".into(),
                topic_id: Uuid::from_bytes([9; 16]),
                partitions: vec![TxnOffsetCommitResponsePartition {
                    partition_index: 1,
                    error_code: 113,
                }],
            }],
            ..TxnOffsetCommitResponse::default()
        };
        let encoded = |version| {
            let header = header(ApiKey::TxnOffsetCommit, version);
            response::encode_txn_offset_commit(&header, &answer).expect("an answer")
        };
        let partition = b"\x02\0\0\0\x01\0\x71\0\0\0";
        let expected = [&b"\0\0\0\0\x02"[..], &[9; 16], partition].concat();
        assert_eq!(encoded(6).slice(9..), expected);
        let expected = [&b"\0\0\0\0\x02\x02t"[..], partition].concat();
        assert_eq!(encoded(5).slice(9..), expected);
        let decoded = TxnOffsetCommitResponse::decode(encoded(6).slice(9..), 6);
        assert_eq!(
            decoded.expect("an answer").topics[0].partitions[0].error_code,
            113
        );
    }

    /// As Apache Kafka 4.4.0 answered: there is a place for a message, and nothing in it.
    #[test]
    fn deleted_groups_have_room_for_a_message_since_v3() {
        let result = messages::delete_groups_response::DeletableGroupResult::default()
            .with_group_id(GroupId("g".into()))
            .with_error_code(69);
        let answer = messages::DeleteGroupsResponse::default().with_results(vec![result]);
        let answer = messages::ResponseKind::DeleteGroups(answer);
        let encoded = |version| {
            let header = header(ApiKey::DeleteGroups, version);
            response::encode(&header, &answer).expect("an answer")
        };
        assert_eq!(encoded(3).slice(9..), &b"\0\0\0\0\x02\x02g\0\x45\0\0\0"[..]);
        assert_eq!(encoded(2).slice(9..), &b"\0\0\0\0\x02\x02g\0\x45\0\0"[..]);
    }

    fn header(api_key: ApiKey, version: i16) -> Header {
        Header {
            api_key,
            version,
            correlation_id: 7,
            client_id: None,
        }
    }

    #[test]
    fn an_answer_is_that_of_the_codec_and_since_v5_says_what_is_cordoned() {
        let ours = DescribeLogDirsResponse {
            results: vec![DescribeLogDirsResult {
                log_dir: "/d".into(),
                topics: vec![DescribeLogDirsTopic {
                    name: "t".into(),
                    partitions: vec![DescribeLogDirsPartition {
                        partition_index: 1,
                        partition_size: 2,
                        offset_lag: 3,
                        is_future_key: true,
                    }],
                }],
                total_bytes: 5,
                usable_bytes: 4,
                is_cordoned: true,
                ..DescribeLogDirsResult::default()
            }],
            ..DescribeLogDirsResponse::default()
        };
        let partition = codec::DescribeLogDirsPartition::default()
            .with_partition_index(1)
            .with_partition_size(2)
            .with_offset_lag(3)
            .with_is_future_key(true);
        let topic = codec::DescribeLogDirsTopic::default()
            .with_name(TopicName("t".into()))
            .with_partitions(vec![partition]);
        let theirs = codec::DescribeLogDirsResult::default()
            .with_log_dir("/d".into())
            .with_topics(vec![topic]);
        for version in 1..=5 {
            let header = Header {
                api_key: ApiKey::DescribeLogDirs,
                version,
                correlation_id: 7,
                client_id: None,
            };
            let encoded = response::encode_log_dirs(&header, &ours).expect("an answer");
            let body = encoded.slice(if version >= 2 { 9.. } else { 8.. });
            let theirs = match version {
                4.. => theirs.clone().with_total_bytes(5).with_usable_bytes(4),
                _ => theirs.clone(),
            };
            let theirs = messages::DescribeLogDirsResponse::default().with_results(vec![theirs]);
            let mut expected = BytesMut::new();
            theirs
                .encode(&mut expected, version.min(4))
                .expect("the codec writes it");
            if version == 5 {
                // Behind the space: cordoned, and then the tagged fields of the result and of the answer.
                let at = expected.len() - 2;
                let tags = expected.split_off(at);
                expected.extend_from_slice(&[1]);
                expected.unsplit(tags);
            }
            assert_eq!(body, expected, "v{version}");
        }
    }
}
