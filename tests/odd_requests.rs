//! Requests that few clients send, and what Apache Kafka 4.4.0 was seen to answer to each of them.

mod common;

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use common::{
    Client, TestBroker, batch, fetch_request, produce_request, receive_of, topic_name, values,
};
use kafka_protocol::messages::{
    ApiKey, BrokerId, DeleteTopicsRequest, DescribeTransactionsRequest, FetchRequest,
    FetchResponse, FindCoordinatorRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse,
    ProduceRequest, ProduceResponse, TransactionalId,
    delete_topics_request::DeleteTopicState,
    fetch_request::ReplicaState,
    fetch_response::PartitionData,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    metadata_request::MetadataRequestTopic,
    produce_request::PartitionProduceData,
    produce_response::PartitionProduceResponse,
};
use protocol::{
    batch::{Batch, Builder},
    error::ErrorCode,
    messages::DescribeLogDirsResponse,
};
use uuid::Uuid;

fn built(builder: Builder, values: &[&str]) -> Bytes {
    let mut builder = builder;
    for value in values {
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &[]);
    }
    let batch = builder.build().expect("records make a batch");
    batch.bytes().clone()
}

fn transactional(values: &[&str]) -> Bytes {
    built(Builder::new().producer(5000, 0, 0).transactional(), values)
}

fn first(response: ProduceResponse) -> PartitionProduceResponse {
    let mut topic = response.responses.into_iter().next().expect("a topic");
    topic.partition_responses.remove(0)
}

/// Topic, partition, code and base offset of everything answered.
fn all(response: &ProduceResponse) -> Vec<(String, i32, i16, i64)> {
    let topics = response.responses.iter();
    topics
        .flat_map(|topic| {
            topic.partition_responses.iter().map(|partition| {
                let name = topic.name.to_string();
                (
                    name,
                    partition.index,
                    partition.error_code,
                    partition.base_offset,
                )
            })
        })
        .collect()
}

fn fetched(response: FetchResponse) -> PartitionData {
    let mut topic = response.responses.into_iter().next().expect("a topic");
    topic.partitions.remove(0)
}

fn stored(client: &mut Client, topic: &str, index: i32) -> Vec<String> {
    let request = fetch_request(topic, index, 0).with_max_wait_ms(0);
    let records = fetched(client.call(12, &request)).records;
    let values = values(records.unwrap_or_default());
    values.into_iter().map(|(_, value)| value).collect()
}

fn produce_all(topics: &[(&str, &[(i32, &str)])]) -> ProduceRequest {
    let mut request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000);
    for (topic, partitions) in topics {
        let data = partitions.iter().map(|(index, value)| {
            PartitionProduceData::default()
                .with_index(*index)
                .with_records(Some(batch(&[value])))
        });
        let mut topic = produce_request(topic, 0, Bytes::new()).topic_data.remove(0);
        topic.partition_data = data.collect();
        request.topic_data.push(topic);
    }
    request
}

#[test]
fn of_a_partition_named_twice_the_last_batch_is_appended() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 2);
    client.create_topic("u", 1);
    let request = produce_all(&[
        ("t", &[(7, "a"), (1, "b"), (0, "c"), (1, "b again")]),
        ("u", &[(0, "d")]),
        ("t", &[(0, "c again"), (7, "a again")]),
    ]);
    let response = client.call(9, &request);
    let expected = [
        ("t", 7, 3, -1),
        ("t", 1, 0, 0),
        ("t", 0, 0, 0),
        ("u", 0, 0, 0),
    ];
    let expected = expected.map(|(topic, index, code, offset)| (topic.into(), index, code, offset));
    assert_eq!(all(&response), expected);
    assert_eq!(stored(&mut client, "t", 0), ["c again"]);
    assert_eq!(stored(&mut client, "t", 1), ["b again"]);
}

#[test]
fn acks_that_do_not_exist_are_told_to_partitions_that_do() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let request = produce_all(&[("t", &[(0, "a"), (9, "b")])]).with_acks(5);
    let response = client.call(9, &request);
    let (invalid, unknown) = (
        ErrorCode::InvalidRequiredAcks,
        ErrorCode::UnknownTopicOrPartition,
    );
    let expected = [
        ("t".into(), 0, invalid.code(), -1),
        ("t".into(), 9, unknown.code(), -1),
    ];
    assert_eq!(all(&response), expected);
    assert_eq!(stored(&mut client, "t", 0), [""; 0]);
}

/// Waits until somebody keeps this transactional id.
fn coordinated(client: &mut Client, id: &'static str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let request = DescribeTransactionsRequest::default()
        .with_transactional_ids(vec![TransactionalId(id.into())]);
    let find = FindCoordinatorRequest::default()
        .with_key_type(1)
        .with_coordinator_keys(vec![id.into()]);
    let there = ErrorCode::TransactionalIdNotFound.code();
    while client.call(4, &find).coordinators[0].error_code != 0
        || client.call(0, &request).transaction_states[0].error_code != there
    {
        assert!(Instant::now() < deadline, "no coordinator");
    }
}

#[test]
fn a_transaction_of_nobody_known_is_not_begun() {
    let broker = TestBroker::start_with(&[("transaction.state.log.num.partitions", "1")]);
    let mut client = broker.client();
    client.create_topic("t", 2);
    coordinated(&mut client, "me");
    // Without a transactional id the whole request is refused, whatever else is in it.
    let mut request = produce_all(&[("t", &[(0, "a"), (1, "b"), (7, "c")])]);
    request.topic_data[0].partition_data[1].records = Some(transactional(&["x"]));
    let codes: Vec<_> = all(&client.call(9, &request))
        .iter()
        .map(|row| row.2)
        .collect();
    let code = ErrorCode::TransactionalIdAuthorizationFailed.code();
    assert_eq!(codes, [code; 3]);

    // With one, what the coordinator says: it has not given out this producer id.
    request.transactional_id = Some(TransactionalId("me".into()));
    for version in [9, 11, 12] {
        let codes: Vec<_> = all(&client.call(version, &request))
            .iter()
            .map(|row| row.2)
            .collect();
        let code = ErrorCode::InvalidProducerIdMapping.code();
        assert_eq!(codes, [0, code, 3], "v{version}");
    }
    assert_eq!(stored(&mut client, "t", 1), [""; 0]);
    let request = fetch_request("t", 0, 0).with_isolation_level(1);
    let partition = fetched(client.call(12, &request));
    assert_eq!(
        partition.last_stable_offset, 3,
        "nothing holds back its readers"
    );

    // What claims a transaction but has no producer begins none, and is a batch as any other.
    let request = produce_request("t", 1, built(Builder::new().transactional(), &["y"]));
    let response = client.call(
        9,
        &request.with_transactional_id(Some(TransactionalId("me".into()))),
    );
    assert_eq!(first(response).error_code, 0);
}

#[test]
fn the_beginning_of_a_second_batch_is_passed_over() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let one = batch(&["a"]);
    let mut and = |rest: &[u8]| {
        let records = [&one[..], rest].concat();
        first(client.produce("t", 0, records.into()))
    };
    for size in [1, 11, 20, 60, one.len() - 1] {
        assert_eq!(and(&one[..size]).error_code, 0, "{size} more bytes");
    }
    assert_eq!(and(&one).error_code, ErrorCode::InvalidRecord.code());
    assert_eq!(and(&[0; 11]).error_code, 0);
    assert_eq!(and(&[0; 12]).error_code, ErrorCode::CorruptMessage.code());
    assert_eq!(stored(&mut client, "t", 0), ["a"; 6]);
}

/// The texts of refusals, and whether the log's start is told: only by who got as far as the log.
#[test]
fn a_refused_batch_is_explained_where_a_real_broker_does() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.create_topic_with("c", 1, &[("cleanup.policy", "compact")]);
    let one = batch(&["a"]);
    let with_byte = |at: usize, value: u8| {
        let mut bytes = one.to_vec();
        bytes[at] = value;
        Bytes::from(bytes)
    };
    let mut zeros = with_byte(11, 0).to_vec();
    zeros[8..12].fill(0);
    let cases = [
        ("two", Bytes::from([&one[..], &one[..]].concat()), None, -1),
        ("cut", one.slice(..one.len() - 1), None, -1),
        ("a wrong CRC", with_byte(one.len() - 2, 0x77), None, -1),
        ("magic 1", with_byte(16, 1), None, -1),
        (
            "magic 3",
            with_byte(16, 3),
            Some("Invalid magic found in record: 3"),
            -1,
        ),
        (
            "no size",
            zeros.into(),
            Some("Record size 0 is less than the minimum record overhead (14)"),
            -1,
        ),
        (
            "a control batch",
            built(Builder::new().control(), &["x"]),
            None,
            0,
        ),
        ("base offset 5", with_byte(7, 5), None, 0),
    ];
    for (what, records, message, log_start_offset) in cases {
        let answer = first(client.produce("t", 0, records));
        assert_ne!(answer.error_code, 0, "{what}");
        assert_eq!(answer.error_message.as_deref(), message, "{what}");
        assert_eq!(answer.log_start_offset, log_start_offset, "{what}");
    }
    let answer = first(client.produce("c", 0, batch(&["a", "b", "c", "d"])));
    let no_key = "Compacted topic cannot accept message without key in topic partition c-0";
    assert_eq!(answer.record_errors.len(), 4);
    let told = answer.record_errors[3].batch_index_error_message.as_deref();
    assert_eq!(told, Some(no_key));
    let shown: Vec<String> = (0..3)
        .map(|index| format!("RecordError(batchIndex={index}, message='{no_key}')"))
        .collect();
    let expected = format!(
        "One or more records have been rejected due to 4 record errors in total, \
         and only showing the first three errors at most: [{}]",
        shown.join(", ")
    );
    assert_eq!(answer.error_message.as_deref(), Some(&*expected));
}

#[test]
fn a_retry_is_told_the_time_of_what_it_repeats() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.create_topic_with(
        "appended",
        1,
        &[("message.timestamp.type", "LogAppendTime")],
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.expect("after 1970").as_millis()).expect("a date");
    let mut builder = Builder::new().producer(4000, 0, 0);
    builder.push(now, None, Some(b"a"), &[]);
    let records = builder.build().expect("a batch").bytes().clone();
    let mut time = |topic| {
        let answer = first(client.produce(topic, 0, records.clone()));
        assert_eq!((answer.error_code, answer.base_offset), (0, 0));
        answer.log_append_time_ms
    };
    assert_eq!([time("t"), time("t")], [-1, now]);
    let stamped = time("appended");
    assert!(now <= stamped);
    assert_eq!(time("appended"), stamped);
}

#[test]
fn a_reader_whose_log_parted_is_told_where() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 2);
    client.produce("t", 0, batch(&["a"]));
    client.produce("t", 0, batch(&["b"]));
    let mut ask = |index: i32, offset: i64, last_fetched: i32| {
        let mut request = fetch_request("t", index, offset);
        request.topics[0].partitions[0].last_fetched_epoch = last_fetched;
        if offset == 2 || index == 1 {
            request.max_wait_ms = 0;
        }
        let partition = fetched(client.call(12, &request));
        let diverging = partition.diverging_epoch;
        let records = partition.records.unwrap_or_default();
        let code = partition.error_code;
        (
            code,
            records.is_empty(),
            (diverging.epoch, diverging.end_offset),
        )
    };
    let (none, out_of_range) = ((-1, -1), ErrorCode::OffsetOutOfRange.code());
    assert_eq!(ask(0, 1, 0), (0, false, none));
    assert_eq!(ask(0, 2, 0), (0, true, none));
    // It waits for nothing.
    assert_eq!(ask(0, 3, 0), (0, true, (0, 2)));
    // An epoch that this log never had.
    assert_eq!(ask(0, 1, 5), (out_of_range, true, none));
    assert_eq!(ask(0, 3, 5), (out_of_range, true, none));
    assert_eq!(ask(1, 0, 5), (out_of_range, true, none));
    assert_eq!(ask(1, 0, 0), (0, true, none));
    assert_eq!(ask(0, 0, -2), (0, false, none));
}

#[test]
fn who_is_no_replica_is_not_served_as_one() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.produce("t", 0, batch(&["a"]));
    let id = topic_id(&mut client, "t");
    let refused = ErrorCode::NotLeaderOrFollower.code();
    for (replica, code) in [(0, refused), (1, refused), (99, refused), (-1, 0), (-2, 0)] {
        let request = fetch_request("t", 0, 0).with_replica_id(BrokerId(replica));
        let partition = fetched(client.call(12, &request));
        assert_eq!(partition.error_code, code, "v12, replica {replica}");
        let mut request = fetch_request("t", 0, 0)
            .with_replica_state(ReplicaState::default().with_replica_id(BrokerId(replica)));
        request.topics[0].topic_id = id;
        let partition = fetched(client.call(17, &request));
        assert_eq!(partition.error_code, code, "v17, replica {replica}");
        let leader = if code == 0 { -1 } else { 1 };
        assert_eq!(partition.current_leader.leader_id, BrokerId(leader));
    }
    // An epoch that is wrong comes first, and so does a partition that is not there.
    let mut request = fetch_request("t", 0, 0).with_replica_id(BrokerId(5));
    request.topics[0].partitions[0].current_leader_epoch = 7;
    let partition = fetched(client.call(12, &request));
    assert_eq!(partition.error_code, ErrorCode::UnknownLeaderEpoch.code());
    let request = fetch_request("t", 9, 0).with_replica_id(BrokerId(5));
    assert_eq!(fetched(client.call(12, &request)).error_code, 3);
}

#[test]
fn a_partition_is_fetched_as_it_was_named_last() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.produce("t", 0, batch(&["a"]));
    client.produce("t", 0, batch(&["b"]));
    let mut request = fetch_request("t", 0, 0);
    let again = request.topics[0].partitions[0].clone().with_fetch_offset(1);
    request.topics[0].partitions.push(again);
    let response: FetchResponse = client.call(12, &request);
    assert_eq!(response.responses[0].partitions.len(), 1);
    let records = fetched(response).records.expect("records");
    assert_eq!(values(records), [(1, "b".to_owned())]);
}

fn topic_id(client: &mut Client, name: &str) -> Uuid {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let response: MetadataResponse = client.call(12, &request);
    response.topics[0].topic_id
}

fn delete(client: &mut Client, name: &str) {
    let topic = DeleteTopicState::default().with_name(Some(topic_name(name)));
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    assert_eq!(client.call(6, &request).responses[0].error_code, 0);
}

/// A session remembers what a topic was called: the client asks for metadata by that name.
#[test]
fn a_session_outlives_a_topic() {
    let broker = TestBroker::start();
    let (mut client, mut admin) = (broker.client(), broker.client());
    admin.create_topic("t", 1);
    let id = topic_id(&mut admin, "t");
    let by_id = |mut request: FetchRequest| {
        for topic in &mut request.topics {
            topic.topic_id = id;
        }
        request.with_max_wait_ms(0)
    };
    let opened = by_id(fetch_request("t", 0, 0).with_session_epoch(0));
    let session = client.call(17, &opened).session_id;
    assert_ne!(session, 0);
    let mut epoch = 0;
    let mut next = |client: &mut Client| {
        epoch += 1;
        let request = FetchRequest::default()
            .with_session_id(session)
            .with_session_epoch(epoch);
        let response: FetchResponse = client.call(17, &request);
        assert_eq!((response.error_code, response.session_id), (0, session));
        response
            .responses
            .into_iter()
            .next()
            .map(|mut topic| topic.partitions.remove(0).error_code)
    };
    assert_eq!(next(&mut client), None);
    delete(&mut admin, "t");
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!([next(&mut client), next(&mut client)], [Some(unknown); 2]);
    admin.create_topic("t", 1);
    assert_eq!(
        next(&mut client),
        Some(ErrorCode::InconsistentTopicId.code())
    );
    // Whoever comes without a session, or with a new one, comes with an id that nobody knows.
    for epoch in [-1, 0] {
        let request = by_id(fetch_request("t", 0, 0).with_session_epoch(epoch));
        let partition = fetched(client.call(17, &request));
        assert_eq!(partition.error_code, ErrorCode::UnknownTopicId.code());
    }
}

#[test]
fn a_topic_without_name_and_id_fails_the_whole_request() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let topic = |name: Option<&str>, id: u128| {
        MetadataRequestTopic::default()
            .with_name(name.map(topic_name))
            .with_topic_id(Uuid::from_u128(id))
    };
    let mut ask = |version: i16, topics: Vec<MetadataRequestTopic>| {
        let request = MetadataRequest::default().with_topics(Some(topics));
        let response: MetadataResponse = client.call(version, &request);
        let topics = response.topics.iter().map(|topic| {
            let name = topic.name.as_ref().map(|name| name.to_string());
            (topic.error_code, name)
        });
        (
            response.brokers.len(),
            response.error_code,
            topics.collect::<Vec<_>>(),
        )
    };
    let named = |code: i16, name: &str| (code, Some(name.to_owned()));
    let nameless = || vec![topic(Some("t"), 0), topic(None, 0)];
    let invalid = ErrorCode::InvalidRequest.code();
    for version in [10, 11] {
        let refused = (0, 0, vec![named(invalid, "t"), named(invalid, "")]);
        assert_eq!(ask(version, nameless()), refused, "v{version}");
        assert_eq!(
            ask(version, vec![topic(Some("t"), 0), topic(None, 9)]),
            refused
        );
        let refused = (0, 0, vec![named(invalid, "t")]);
        assert_eq!(ask(version, vec![topic(Some("t"), 9)]), refused);
    }
    for (version, code) in [(12, 0), (13, -1)] {
        let refused = (0, code, vec![named(-1, "t"), named(-1, "")]);
        assert_eq!(ask(version, nameless()), refused, "v{version}");
        // One id, and only ids count.
        let unknown = (1, 0, vec![(ErrorCode::UnknownTopicId.code(), None)]);
        assert_eq!(
            ask(version, vec![topic(Some("t"), 0), topic(None, 9)]),
            unknown
        );
        assert_eq!(ask(version, vec![topic(Some("t"), 9)]), unknown);
    }
    let invalid_name = ErrorCode::InvalidTopicException.code();
    assert_eq!(
        ask(12, vec![topic(Some(""), 0)]),
        (1, 0, vec![named(invalid_name, "")])
    );
}

/// Code, timestamp and offset.
fn offset_of(client: &mut Client, version: i16, topic: &str, timestamp: i64) -> (i16, i64, i64) {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    let response = client.call(version, &request);
    let found = &response.topics[0].partitions[0];
    (found.error_code, found.timestamp, found.offset)
}

#[test]
fn where_no_record_has_a_timestamp_the_first_has_the_largest() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    assert_eq!(offset_of(&mut client, 10, "t", -3), (0, -1, -1));
    let push = |client: &mut Client, timestamps: &[i64]| {
        let mut builder = Builder::new();
        for timestamp in timestamps {
            builder.push(*timestamp, None, Some(b"x"), &[]);
        }
        let records = builder.build().expect("a batch").bytes().clone();
        assert_eq!(first(client.produce("t", 0, records)).error_code, 0);
    };
    push(&mut client, &[-1, -1]);
    assert_eq!(offset_of(&mut client, 10, "t", -3), (0, -1, 0));
    push(&mut client, &[5, 3]);
    push(&mut client, &[-1, -1]);
    push(&mut client, &[2, 5]);
    assert_eq!(offset_of(&mut client, 10, "t", -3), (0, 5, 2));
}

/// ListOffsets v11 is v10 and one more special timestamp (KIP-1023); the codec has no v11.
#[test]
fn the_newest_list_offsets_knows_what_is_not_uploaded_yet() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.produce("t", 0, batch(&["a"]));
    let mut ask = |version: i16, timestamp: i64| {
        let mut frame = Vec::new();
        frame.put_i16(ApiKey::ListOffsets as i16);
        frame.put_i16(version);
        frame.put_slice(b"\0\0\0\x07\xff\xff\0"); // correlation id, no client id, no tags
        frame.put_slice(b"\xff\xff\xff\xff\0\x02\x02t\x02"); // a consumer; one topic, one partition
        frame.put_slice(b"\0\0\0\0\xff\xff\xff\xff"); // partition 0, no leader epoch
        frame.put_i64(timestamp);
        frame.put_slice(b"\0\0\0\0\0\0\0"); // tags of both, time-out, tags
        client.send_frame(&frame);
        let answer = client.receive_frame().expect("an answer");
        // Behind the correlation id, tags, throttle time, topic and partition: the code; then timestamp
        // and offset.
        let at = 4 + 1 + 4 + 1 + 2 + 1 + 4;
        let code = i16::from_be_bytes([answer[at], answer[at + 1]]);
        let offset = answer.slice(at + 10..at + 18);
        (
            code,
            i64::from_be_bytes(offset[..].try_into().expect("eight bytes")),
        )
    };
    assert_eq!(ask(11, -1), (0, 1));
    assert_eq!(ask(10, -1), (0, 1));
    assert_eq!(ask(11, -6), (0, -1));
    assert_eq!(ask(10, -6), (ErrorCode::UnsupportedVersion.code(), -1));
    assert_eq!(ask(11, -7), (ErrorCode::UnsupportedVersion.code(), -1));
}

#[test]
fn the_newest_api_versions_says_who_is_meant() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let metadata: MetadataResponse = client.call(12, &MetadataRequest::default());
    let ours = metadata.cluster_id.expect("a cluster id").to_string();
    let mut ask = |cluster: Option<&str>, node: i32| {
        let mut frame = b"\0\x12\0\x05\0\0\0\x07\xff\xff\0\x02a\x021".to_vec();
        let size = cluster.map_or(0, |id| id.len() + 1);
        frame.put_u8(u8::try_from(size).expect("a short id"));
        frame.put_slice(cluster.unwrap_or_default().as_bytes());
        frame.put_i32(node);
        frame.put_u8(0);
        client.send_frame(&frame);
        let answer = client.receive_frame().expect("an answer");
        i16::from_be_bytes([answer[4], answer[5]])
    };
    let (invalid, elsewhere) = (
        ErrorCode::InvalidRequest.code(),
        ErrorCode::RebootstrapRequired.code(),
    );
    assert_eq!(ask(None, -1), 0);
    assert_eq!(ask(Some(&ours), 1), 0);
    assert_eq!(ask(Some(&ours), 9), elsewhere);
    assert_eq!(ask(Some(&ours), -2), elsewhere);
    assert_eq!(ask(Some("another"), 1), elsewhere);
    assert_eq!(ask(Some(""), 1), elsewhere);
    assert_eq!(ask(None, 1), invalid);
    assert_eq!(ask(Some(&ours), -1), invalid);
}

#[test]
fn the_newest_describe_log_dirs_says_what_is_cordoned() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.send_frame(b"\0\x23\0\x05\0\0\0\x07\xff\xff\0\0\0");
    let answer = client.receive_frame().expect("an answer");
    let response = DescribeLogDirsResponse::decode(answer.slice(5..), 5).expect("an answer");
    assert_eq!((response.error_code, response.results.len()), (0, 1));
    assert!(!response.results[0].is_cordoned);
    assert!(response.results[0].total_bytes > 0);
}

/// A count below -1 is null, and null is all topics; a client id is anything.
#[test]
fn sloppy_clients_are_served() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.send_frame(b"\0\x03\0\x01\0\0\0\x07\0\x02\xff\xfe\xff\xff\xff\xfe");
    let response: MetadataResponse = receive_of(&mut client, 0, 1);
    assert_eq!(response.topics.len(), 1);
    // Where null may not be, the connection is closed.
    client.send_frame(b"\0\x02\0\x01\0\0\0\x07\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe");
    assert!(client.is_closed());
}

/// A batch that the broker did not take apart is what it was.
#[test]
fn what_came_after_a_batch_is_not_stored() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let one = batch(&["a"]);
    client.produce("t", 0, [&one[..], b"?"].concat().into());
    client.produce("t", 0, one.clone());
    let records = fetched(client.fetch("t", 0, 0)).records.expect("records");
    let batches = Batch::split(records).expect("whole batches");
    let sizes: Vec<usize> = batches.iter().map(|batch| batch.bytes().len()).collect();
    assert_eq!(sizes, [one.len(); 2]);
}
