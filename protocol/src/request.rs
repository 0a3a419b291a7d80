//! A frame becomes a header and a typed body, or the connection is closed.
//!
//! Versions are checked here and nowhere else: what comes out is served. There is one exception,
//! an ApiVersions request of a version we do not know: it comes out with that version and an empty
//! body, since the handler answers it with UNSUPPORTED_VERSION and what we do know, and
//! [`crate::response`] encodes that as version 0. Every other unknown version closes the
//! connection, as in Kafka.

use bytes::{Buf, Bytes};
use kafka_protocol::{
    messages::{ApiKey, RequestKind},
    protocol::StrBytes,
};

use crate::{
    by_topic_id,
    error::DecodeError,
    messages::{ApiVersionsRequest, TxnOffsetCommitRequest, WriteTxnMarkersRequest},
    shape, versions,
};

/// Who sent what is in the frame, and what to call the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub api_key: ApiKey,
    pub version: i16,
    /// The client's number for the request; its answer carries it back.
    pub correlation_id: i32,
    /// What the client calls itself. A view into the frame: copy it to keep it.
    pub client_id: Option<StrBytes>,
}

/// A request of a version we serve (but see the head of this file).
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub header: Header,
    pub body: Body,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// The codec lacks its newest version.
    ApiVersions(ApiVersionsRequest),
    /// Here too.
    WriteTxnMarkers(WriteTxnMarkersRequest),
    /// And here.
    TxnOffsetCommit(TxnOffsetCommitRequest),
    Codec(RequestKind),
}

/// Understands a frame (without its length prefix).
///
/// Bytes after the request are passed over, as Apache Kafka 4.4.0 does.
///
/// Strings and record batches in the result are views into the frame.
pub fn decode(mut frame: Bytes) -> Result<Request, DecodeError> {
    // Key, version and correlation id have the same place in every header.
    if frame.len() < 8 {
        return Err(DecodeError::new(format!(
            "a frame of {} bytes has no request header",
            frame.len()
        )));
    }
    let key = frame.get_i16();
    let version = frame.get_i16();
    let correlation_id = frame.get_i32();
    let api_key = ApiKey::try_from(key)
        .map_err(|()| DecodeError::new(format!("unknown API key {key} (version {version})")))?;
    let served = versions::served(api_key).ok_or_else(|| {
        DecodeError::new(format!("{api_key:?} is not served (version {version})"))
    })?;

    let header = Header {
        api_key,
        version,
        correlation_id,
        client_id: None,
    };
    if !served.contains(version) {
        if api_key == ApiKey::ApiVersions {
            let body = Body::ApiVersions(ApiVersionsRequest::default());
            return Ok(Request { header, body });
        }
        return Err(DecodeError::new(format!(
            "{api_key:?} version {version} is not served"
        )));
    }

    let client_id = client_id(&mut frame)?;
    if api_key.request_header_version(version) >= 2 {
        let mut rest = &frame[..];
        shape::skip_tagged_fields(&mut rest)?;
        let skipped = frame.len() - rest.len();
        frame.advance(skipped);
    }
    let nulls = shape::check(api_key, version, &frame)?;
    if !nulls.is_empty() {
        frame = shape::with_nulls(&frame, &nulls);
    }
    let body = match api_key {
        ApiKey::ApiVersions => {
            ApiVersionsRequest::decode(&mut frame, version).map(Body::ApiVersions)
        }
        ApiKey::WriteTxnMarkers => {
            WriteTxnMarkersRequest::decode(&mut frame, version).map(Body::WriteTxnMarkers)
        }
        ApiKey::TxnOffsetCommit => {
            TxnOffsetCommitRequest::decode(&mut frame, version).map(Body::TxnOffsetCommit)
        }
        _ => by_topic_id::decode(api_key, version, &mut frame)
            .unwrap_or_else(|| {
                RequestKind::decode(api_key, &mut frame, versions::in_codec(api_key, version))
                    .map_err(|err| DecodeError::new(err.to_string()))
            })
            .map(Body::Codec),
    };
    let body =
        body.map_err(|err| DecodeError::new(format!("{api_key:?} request v{version}: {err}")))?;
    Ok(Request {
        header: Header {
            client_id,
            ..header
        },
        body,
    })
}

/// A string with an i16 size in front in every header version, even the flexible one. What is not UTF-8
/// in it is replaced, as in Kafka.
fn client_id(frame: &mut Bytes) -> Result<Option<StrBytes>, DecodeError> {
    let cut = || DecodeError::new("the request header ends inside the client id");
    let size = frame.try_get_i16().map_err(|_| cut())?;
    let Ok(size) = usize::try_from(size) else {
        return Ok(None);
    };
    if size > frame.len() {
        return Err(cut());
    }
    let bytes = frame.split_to(size);
    let replaced = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned().into();
    let client_id = StrBytes::from_utf8(bytes.clone()).unwrap_or_else(|_| replaced(&bytes));
    Ok(Some(client_id))
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use kafka_protocol::{
        messages::{MetadataRequest, ProduceRequest, RequestHeader},
        protocol::Encodable,
    };

    use super::*;
    use crate::schema::{Field, Output};

    #[test]
    fn every_version_served_of_every_api_is_understood() {
        for (key, range) in versions::SERVED {
            for version in range.min..=range.max {
                let body = empty(*key, version);
                let frame = frame(*key, version, &body);
                let request =
                    decode(frame).unwrap_or_else(|err| panic!("{key:?} v{version}: {err}"));
                assert_eq!(request.header.api_key, *key);
                assert_eq!(
                    (request.header.version, request.header.correlation_id),
                    (version, 7)
                );
                assert_eq!(request.header.client_id.as_deref(), Some("me"));
            }
        }
    }

    #[test]
    fn short_unknown_and_unserved_frames_are_refused() {
        for size in 0..8 {
            assert!(decode(vec![0; size].into()).is_err());
        }
        let refused = |key: i16, version: i16| {
            let mut frame = BytesMut::new();
            frame.put_i16(key);
            frame.put_i16(version);
            frame.put_i32(1);
            frame.put_i16(-1);
            decode(frame.freeze()).unwrap_err().to_string()
        };
        assert_eq!(refused(-1, 0), "unknown API key -1 (version 0)");
        assert_eq!(refused(999, 0), "unknown API key 999 (version 0)");
        assert_eq!(refused(52, 0), "Vote is not served (version 0)");
        assert_eq!(refused(0, 2), "Produce version 2 is not served");
        assert_eq!(refused(3, -1), "Metadata version -1 is not served");
    }

    #[test]
    fn an_api_versions_request_from_the_future_is_passed_on_to_be_answered() {
        let mut frame = BytesMut::new();
        frame.put_i16(18);
        frame.put_i16(99);
        frame.put_i32(7);
        frame.put_slice(b"whatever a later version puts here");
        let request = decode(frame.freeze()).unwrap();
        assert_eq!(request.header.version, 99);
        assert_eq!(request.header.correlation_id, 7);
        assert_eq!(
            request.body,
            Body::ApiVersions(ApiVersionsRequest::default())
        );
    }

    #[test]
    fn a_frame_cut_anywhere_is_refused_and_one_that_goes_on_is_not() {
        for (key, range) in versions::SERVED {
            for version in range.min..=range.max {
                let whole = frame(*key, version, &empty(*key, version));
                for size in 0..whole.len() {
                    assert!(
                        decode(whole.slice(..size)).is_err(),
                        "{key:?} v{version} cut to {size}"
                    );
                }
                let longer = [&whole[..], b"\0"].concat();
                assert!(
                    decode(longer.into()).is_ok(),
                    "{key:?} v{version} and a byte"
                );
            }
        }
    }

    #[test]
    fn a_client_may_call_itself_anything() {
        let client_id = |id: &[u8]| {
            let key = [0, 3, 0, 1, 0, 0, 0, 7];
            let frame = [&key, id, &0i32.to_be_bytes()].concat();
            decode(frame.into()).unwrap().header.client_id
        };
        // As Apache Kafka 4.4.0 was seen to take it.
        assert_eq!(client_id(b"\0\x03a\xffb").as_deref(), Some("a\u{fffd}b"));
        assert_eq!(client_id(b"\0\0").as_deref(), Some(""));
        assert_eq!(client_id(b"\xff\xff"), None);
        assert_eq!(client_id(b"\x80\0"), None);
    }

    #[test]
    fn any_negative_size_is_null_where_null_may_be() {
        let metadata = |version: u8, count: i32| {
            let key = [0, 3, 0, version, 0, 0, 0, 7, 0xff, 0xff];
            let frame = [&key[..], &count.to_be_bytes()].concat();
            decode(frame.into()).map(|request| request.body)
        };
        for count in [-1, -2, i32::MIN] {
            let Ok(Body::Codec(RequestKind::Metadata(decoded))) = metadata(1, count) else {
                panic!("not a Metadata request");
            };
            assert_eq!(decoded.topics, None, "{count}");
        }
        // ListOffsets: replica -1, and topics that may not be null.
        for count in [-1i32, -7] {
            let key = [0, 2, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
            let frame = [&key[..], &count.to_be_bytes()].concat();
            assert!(decode(frame.into()).is_err(), "{count}");
        }
    }

    #[test]
    fn records_are_views_into_the_frame() {
        let mut produce = ProduceRequest::default();
        let partition = kafka_protocol::messages::produce_request::PartitionProduceData::default()
            .with_records(Some(Bytes::from_static(b"records")));
        let topic = kafka_protocol::messages::produce_request::TopicProduceData::default()
            .with_partition_data(vec![partition]);
        produce.topic_data.push(topic);
        let mut body = BytesMut::new();
        produce.encode(&mut body, 9).unwrap();
        let frame = frame(ApiKey::Produce, 9, &body);
        let inside = frame.as_ptr_range();
        let Body::Codec(RequestKind::Produce(decoded)) = decode(frame.clone()).unwrap().body else {
            panic!("not a Produce request");
        };
        let records = decoded.topic_data[0].partition_data[0]
            .records
            .clone()
            .unwrap();
        assert!(inside.contains(&records.as_ptr()));
        assert_eq!(decoded, produce);
    }

    #[test]
    fn null_topics_are_understood_where_the_version_has_them() {
        let mut body = BytesMut::new();
        MetadataRequest::default()
            .with_topics(None)
            .encode(&mut body, 12)
            .unwrap();
        let Body::Codec(RequestKind::Metadata(decoded)) =
            decode(frame(ApiKey::Metadata, 12, &body)).unwrap().body
        else {
            panic!("not a Metadata request");
        };
        assert_eq!(decoded.topics, None);
    }

    fn frame(key: ApiKey, version: i16, body: &[u8]) -> Bytes {
        let mut frame = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(7)
            .with_client_id(Some(StrBytes::from_static_str("me")))
            .encode(&mut frame, key.request_header_version(version))
            .unwrap();
        frame.extend_from_slice(body);
        frame.freeze()
    }

    /// The body with all fields at their defaults.
    fn empty(key: ApiKey, version: i16) -> Bytes {
        use kafka_protocol::messages as m;
        fn encoded(message: &impl Encodable, version: i16) -> Bytes {
            let mut out = BytesMut::new();
            message.encode(&mut out, version).unwrap();
            out.freeze()
        }
        match (key, version) {
            (ApiKey::ApiVersions, _) => {
                let mut out = Output::default();
                let form = ApiVersionsRequest::form(version);
                ApiVersionsRequest::default().write(&mut out, form).unwrap();
                return out.bytes.into();
            }
            (ApiKey::TxnOffsetCommit, _) => {
                let mut out = Output::default();
                let form = TxnOffsetCommitRequest::form(version);
                TxnOffsetCommitRequest::default()
                    .write(&mut out, form)
                    .unwrap();
                return out.bytes.into();
            }
            (ApiKey::OffsetCommit, 10) => {
                return Bytes::from_static(b"\x01\xff\xff\xff\xff\x01\0\x01\0");
            }
            (ApiKey::OffsetFetch, 10) => return Bytes::from_static(b"\x01\0\0"),
            _ => (),
        }
        let version = versions::in_codec(key, version);
        macro_rules! encode {
            ($($key:ident $request:ident,)*) => {
                match key {
                    $(ApiKey::$key => encoded(&m::$request::default(), version),)*
                    _ => panic!("{key:?} is not served"),
                }
            };
        }
        encode! {
            Produce ProduceRequest,
            Fetch FetchRequest,
            ListOffsets ListOffsetsRequest,
            Metadata MetadataRequest,
            OffsetCommit OffsetCommitRequest,
            OffsetFetch OffsetFetchRequest,
            FindCoordinator FindCoordinatorRequest,
            OffsetDelete OffsetDeleteRequest,
            DeleteGroups DeleteGroupsRequest,
            JoinGroup JoinGroupRequest,
            SyncGroup SyncGroupRequest,
            Heartbeat HeartbeatRequest,
            LeaveGroup LeaveGroupRequest,
            ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest,
            ConsumerGroupDescribe ConsumerGroupDescribeRequest,
            DescribeGroups DescribeGroupsRequest,
            ListGroups ListGroupsRequest,
            CreateTopics CreateTopicsRequest,
            DeleteTopics DeleteTopicsRequest,
            DeleteRecords DeleteRecordsRequest,
            InitProducerId InitProducerIdRequest,
            OffsetForLeaderEpoch OffsetForLeaderEpochRequest,
            AddPartitionsToTxn AddPartitionsToTxnRequest,
            AddOffsetsToTxn AddOffsetsToTxnRequest,
            EndTxn EndTxnRequest,
            WriteTxnMarkers WriteTxnMarkersRequest,
            DescribeTransactions DescribeTransactionsRequest,
            ListTransactions ListTransactionsRequest,
            DescribeConfigs DescribeConfigsRequest,
            AlterConfigs AlterConfigsRequest,
            AlterReplicaLogDirs AlterReplicaLogDirsRequest,
            DescribeLogDirs DescribeLogDirsRequest,
            CreatePartitions CreatePartitionsRequest,
            ElectLeaders ElectLeadersRequest,
            IncrementalAlterConfigs IncrementalAlterConfigsRequest,
            ListPartitionReassignments ListPartitionReassignmentsRequest,
            DescribeQuorum DescribeQuorumRequest,
            UpdateFeatures UpdateFeaturesRequest,
            DescribeCluster DescribeClusterRequest,
            DescribeProducers DescribeProducersRequest,
            UnregisterBroker UnregisterBrokerRequest,
            ListConfigResources ListConfigResourcesRequest,
            DescribeTopicPartitions DescribeTopicPartitionsRequest,
        }
    }
}
