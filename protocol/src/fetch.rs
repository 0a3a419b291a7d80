//! The answer to Fetch (key 1), v4-v18, whose records may stay in their files.
//!
//! The codec's own type wants the records as bytes in memory. Here they may be a range of a file,
//! which [`crate::response::encode_fetch`] turns into a hole in the bytes around it, for the
//! connection to fill by `sendfile` or a read.

use bytes::{BufMut, Bytes};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::{
    error::DecodeError,
    json::Json,
    schema::{self, EncodeError, Field, Form, Hole, Output, schema},
};

/// The record batches of one partition, whole ones, oldest first.
///
/// Where there are none, Kafka sends them present and empty; only an error may be without.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Records {
    Null,
    #[default]
    Empty,
    Bytes(Bytes),
    /// `size` bytes that the caller knows where to find; `index` is the caller's name for them.
    File {
        index: usize,
        size: usize,
    },
}

impl Records {
    pub fn size(&self) -> usize {
        match self {
            Records::Null | Records::Empty => 0,
            Records::Bytes(bytes) => bytes.len(),
            Records::File { size, .. } => *size,
        }
    }
}

impl Field for Records {
    fn write(&self, out: &mut Output, form: Form) -> Result<(), EncodeError> {
        let present = *self != Records::Null;
        out.put_size(form, 4, present.then_some(self.size()))?;
        match self {
            Records::Bytes(bytes) => out.bytes.put_slice(bytes),
            Records::File { index, size } if *size > 0 => {
                out.holes.push(Hole {
                    at: out.bytes.len(),
                    index: *index,
                    size: *size,
                });
            }
            Records::Null | Records::Empty | Records::File { .. } => (),
        }
        Ok(())
    }

    fn read(input: &mut Bytes, form: Form) -> Result<Records, DecodeError> {
        Ok(match schema::read_slice(input, form, 4)? {
            None => Records::Null,
            Some(bytes) if bytes.is_empty() => Records::Empty,
            Some(bytes) => Records::Bytes(bytes),
        })
    }

    /// How much it is, as it may be in a file.
    fn json(&self, _: Form) -> Json {
        match self {
            Records::Null => Json::Null,
            records => Json::Int(i64::try_from(records.size()).unwrap_or(i64::MAX)),
        }
    }
}

schema! {
    /// One answer to one Fetch.
    pub struct FetchResponse 4..=18, flexible 12 {
        /// How long (ms) the client was, or should be, held back by a quota.
        throttle_time_ms: i32,
        /// About the session, or the request as a whole; partitions have their own.
        error_code: i16 [7..; ignorable],
        /// 0 if there is no session.
        session_id: i32 [7..],
        responses: Vec<FetchableTopicResponse>,
        /// Where the leaders named in `current_leader` are, so that a client need not ask (KIP-951).
        node_endpoints: Vec<NodeEndpoint> [16.., tag 0],
    }

    pub struct FetchableTopicResponse 4..=18, flexible 12 {
        topic: StrBytes [4..=12; ignorable],
        topic_id: Uuid [13..; ignorable],
        partitions: Vec<PartitionData>,
    }

    pub struct PartitionData 4..=18, flexible 12 {
        partition_index: i32,
        error_code: i16,
        high_watermark: i64,
        last_stable_offset: i64 = -1,
        log_start_offset: i64 [5..; ignorable] = -1,
        /// Set if the follower's log departs from ours after this epoch and offset.
        diverging_epoch: EpochEndOffset [12.., tag 0],
        /// Set with NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH.
        current_leader: LeaderIdAndEpoch [12.., tag 1],
        /// Set if the metadata log starts later than the offset asked for: fetch this snapshot.
        snapshot_id: SnapshotId [12.., tag 2],
        /// Null for READ_UNCOMMITTED.
        aborted_transactions: Option<Vec<AbortedTransaction>> = Some(Vec::new()),
        /// The broker to fetch from instead; -1 for none.
        preferred_read_replica: i32 [11..] = -1,
        records: Records,
    }

    pub struct EpochEndOffset 4..=18, flexible 12 {
        epoch: i32 = -1,
        end_offset: i64 = -1,
    }

    pub struct LeaderIdAndEpoch 4..=18, flexible 12 {
        leader_id: i32 = -1,
        leader_epoch: i32 = -1,
    }

    pub struct SnapshotId 4..=18, flexible 12 {
        end_offset: i64 = -1,
        epoch: i32 = -1,
    }

    pub struct AbortedTransaction 4..=18, flexible 12 {
        producer_id: i64,
        first_offset: i64,
    }

    pub struct NodeEndpoint 4..=18, flexible 12 {
        node_id: i32,
        host: StrBytes,
        port: i32,
        rack: Option<StrBytes>,
    }
}

impl FetchResponse {
    /// Understands the body of an answer, for followers. Records are views into `body`.
    pub fn decode(body: Bytes, version: i16) -> Result<FetchResponse, DecodeError> {
        if !FetchResponse::VERSIONS.contains(&version) {
            return Err(DecodeError::new(format!(
                "there is no Fetch version {version}"
            )));
        }
        schema::decode(body, FetchResponse::form(version))
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        messages::{self, ApiKey, BrokerId, ProducerId, TopicName, fetch_response as codec},
        protocol::{Decodable, Encodable},
    };

    use super::*;
    use crate::{request::Header, response::encode_fetch};

    #[test]
    fn the_bytes_are_those_of_the_codec_in_every_version() {
        for version in FetchResponse::VERSIONS {
            let ours = sample(version);
            let encoded = encode_fetch(&header(version), &ours).unwrap();
            assert_eq!(encoded.holes, []);
            let body = encoded.head.slice(if version >= 12 { 9.. } else { 8.. });

            let mut theirs = BytesMut::new();
            sample_by_codec(version)
                .encode(&mut theirs, version)
                .unwrap();
            assert_eq!(body, theirs, "v{version}");
            let decoded = messages::FetchResponse::decode(&mut body.clone(), version).unwrap();
            assert_eq!(decoded, sample_by_codec(version), "v{version}");
            assert_eq!(FetchResponse::decode(body, version), Ok(ours), "v{version}");
        }
    }

    #[test]
    fn file_ranges_are_holes_and_filling_them_gives_the_same_bytes() {
        for version in [4, 11, 12, 18] {
            let file = b"0123456789";
            let partition = |records| PartitionData {
                records,
                ..PartitionData::default()
            };
            let response = |first, second, third| FetchResponse {
                responses: vec![FetchableTopicResponse {
                    partitions: vec![partition(first), partition(second), partition(third)],
                    ..FetchableTopicResponse::default()
                }],
                ..FetchResponse::default()
            };
            let in_memory = response(
                Records::Bytes(Bytes::from_static(&file[..3])),
                Records::Empty,
                Records::Bytes(Bytes::from_static(&file[3..])),
            );
            let in_file = response(
                Records::File { index: 7, size: 3 },
                Records::File { index: 8, size: 0 },
                Records::File { index: 9, size: 7 },
            );
            let expected = encode_fetch(&header(version), &in_memory).unwrap();
            let encoded = encode_fetch(&header(version), &in_file).unwrap();
            assert_eq!(encoded.size(), expected.head.len());
            assert_eq!(
                encoded
                    .holes
                    .iter()
                    .map(|hole| hole.index)
                    .collect::<Vec<_>>(),
                [7, 9]
            );

            let mut filled = Vec::new();
            let (mut from, mut file) = (0, &file[..]);
            for hole in &encoded.holes {
                filled.extend_from_slice(&encoded.head[from..hole.at]);
                let (range, rest) = file.split_at(hole.size);
                filled.extend_from_slice(range);
                (from, file) = (hole.at, rest);
            }
            filled.extend_from_slice(&encoded.head[from..]);
            assert_eq!(filled, expected.head);
        }
    }

    #[test]
    fn an_answer_of_2_gib_is_an_error_and_not_a_wrapped_length() {
        let records = Records::File {
            index: 0,
            size: i32::MAX as usize,
        };
        let response = FetchResponse {
            responses: vec![FetchableTopicResponse {
                partitions: vec![PartitionData {
                    records,
                    ..PartitionData::default()
                }],
                ..FetchableTopicResponse::default()
            }],
            ..FetchResponse::default()
        };
        assert!(encode_fetch(&header(12), &response).is_err());
    }

    fn header(version: i16) -> Header {
        Header {
            api_key: ApiKey::Fetch,
            version,
            correlation_id: 1,
            client_id: None,
        }
    }

    fn sample(version: i16) -> FetchResponse {
        let flexible = version >= 12;
        FetchResponse {
            throttle_time_ms: 5,
            error_code: if version >= 7 { 70 } else { 0 },
            session_id: if version >= 7 { 99 } else { 0 },
            responses: vec![FetchableTopicResponse {
                topic: StrBytes::from_static_str(if version <= 12 { "orders" } else { "" }),
                topic_id: if version >= 13 {
                    Uuid::from_u128(42)
                } else {
                    Uuid::nil()
                },
                partitions: vec![
                    PartitionData {
                        partition_index: 3,
                        high_watermark: 1000,
                        last_stable_offset: 900,
                        log_start_offset: if version >= 5 { 10 } else { -1 },
                        aborted_transactions: Some(vec![AbortedTransaction {
                            producer_id: 8,
                            first_offset: 20,
                        }]),
                        preferred_read_replica: if version >= 11 { 2 } else { -1 },
                        records: Records::Bytes(Bytes::from_static(b"batches")),
                        ..PartitionData::default()
                    },
                    PartitionData {
                        error_code: 6,
                        current_leader: if flexible {
                            LeaderIdAndEpoch {
                                leader_id: 4,
                                leader_epoch: 7,
                            }
                        } else {
                            LeaderIdAndEpoch::default()
                        },
                        diverging_epoch: if flexible {
                            EpochEndOffset {
                                epoch: 1,
                                end_offset: 2,
                            }
                        } else {
                            EpochEndOffset::default()
                        },
                        aborted_transactions: None,
                        ..PartitionData::default()
                    },
                ],
            }],
            node_endpoints: if version >= 16 {
                vec![NodeEndpoint {
                    node_id: 4,
                    host: StrBytes::from_static_str("host"),
                    port: 9092,
                    rack: None,
                }]
            } else {
                Vec::new()
            },
        }
    }

    fn sample_by_codec(version: i16) -> messages::FetchResponse {
        let ours = sample(version);
        let partitions = ours.responses[0].partitions.iter().map(|ours| {
            let aborted = ours.aborted_transactions.as_ref().map(|list| {
                list.iter()
                    .map(|aborted| {
                        codec::AbortedTransaction::default()
                            .with_producer_id(ProducerId(aborted.producer_id))
                            .with_first_offset(aborted.first_offset)
                    })
                    .collect()
            });
            let records = match &ours.records {
                Records::Bytes(bytes) => bytes.clone(),
                _ => Bytes::new(),
            };
            codec::PartitionData::default()
                .with_partition_index(ours.partition_index)
                .with_error_code(ours.error_code)
                .with_high_watermark(ours.high_watermark)
                .with_last_stable_offset(ours.last_stable_offset)
                .with_log_start_offset(ours.log_start_offset)
                .with_diverging_epoch(
                    codec::EpochEndOffset::default()
                        .with_epoch(ours.diverging_epoch.epoch)
                        .with_end_offset(ours.diverging_epoch.end_offset),
                )
                .with_current_leader(
                    codec::LeaderIdAndEpoch::default()
                        .with_leader_id(BrokerId(ours.current_leader.leader_id))
                        .with_leader_epoch(ours.current_leader.leader_epoch),
                )
                .with_aborted_transactions(aborted)
                .with_preferred_read_replica(BrokerId(ours.preferred_read_replica))
                .with_records(Some(records))
        });
        let topic = codec::FetchableTopicResponse::default()
            .with_topic(TopicName(ours.responses[0].topic.clone()))
            .with_topic_id(ours.responses[0].topic_id)
            .with_partitions(partitions.collect());
        let endpoints = ours.node_endpoints.iter().map(|ours| {
            codec::NodeEndpoint::default()
                .with_node_id(BrokerId(ours.node_id))
                .with_host(ours.host.clone())
                .with_port(ours.port)
                .with_rack(ours.rack.clone())
        });
        messages::FetchResponse::default()
            .with_throttle_time_ms(ours.throttle_time_ms)
            .with_error_code(ours.error_code)
            .with_session_id(ours.session_id)
            .with_responses(vec![topic])
            .with_node_endpoints(endpoints.collect())
    }
}
