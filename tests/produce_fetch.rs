//! What producers and consumers are promised, over the wire.

mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use common::{TestBroker, batch, fetch_request, produce_request, values};
use kafka_protocol::messages::{FetchRequest, FetchResponse, MetadataRequest, ProduceResponse};
use protocol::{
    batch::{Batch, Builder},
    compression::Compression,
    error::ErrorCode,
};

fn produced(response: &ProduceResponse) -> (i16, i64) {
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

fn fetched(response: FetchResponse) -> (i16, i64, Bytes) {
    let partition = response
        .responses
        .into_iter()
        .next()
        .expect("a topic")
        .partitions
        .remove(0);
    (
        partition.error_code,
        partition.high_watermark,
        partition.records.unwrap_or_default(),
    )
}

#[test]
fn what_was_produced_is_fetched_byte_for_byte() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 2);
    let sent = batch(&["a", "b"]);
    assert_eq!(produced(&client.produce("t", 1, sent.clone())), (0, 0));
    assert_eq!(produced(&client.produce("t", 1, batch(&["c"]))), (0, 2));

    let (error, high_watermark, records) = fetched(client.fetch("t", 1, 0));
    assert_eq!((error, high_watermark), (0, 3));
    assert_eq!(
        values(records.clone()),
        [
            (0, "a".to_owned()),
            (1, "b".to_owned()),
            (2, "c".to_owned())
        ]
    );
    // Only the base offset and the leader epoch are the broker's.
    assert_eq!(records[16..sent.len()], sent[16..]);
}

#[test]
fn every_version_of_produce_and_fetch_is_answered() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let topic_id = {
        let metadata: kafka_protocol::messages::MetadataResponse =
            client.call(12, &MetadataRequest::default().with_topics(None));
        metadata.topics[0].topic_id
    };
    let mut offset = 0;
    for version in 3..=13 {
        let mut request = produce_request("t", 0, batch(&["x"]));
        if version >= 13 {
            request.topic_data[0].topic_id = topic_id;
        }
        assert_eq!(
            produced(&client.call(version, &request)),
            (0, offset),
            "v{version}"
        );
        offset += 1;
    }
    for version in 4..=18 {
        let mut request = fetch_request("t", 0, 10);
        if version >= 13 {
            request.topics[0].topic_id = topic_id;
        }
        let (error, high_watermark, records) = fetched(client.call(version, &request));
        assert_eq!((error, high_watermark), (0, offset), "v{version}");
        assert_eq!(values(records), [(10, "x".to_owned())], "v{version}");
    }
}

#[test]
fn a_large_answer_comes_from_the_file_and_a_small_one_from_memory() {
    let broker = TestBroker::start_with(&[("sordini.fetch.sendfile.min.bytes", "1000")]);
    let mut client = broker.client();
    client.create_topic("t", 1);
    let large = "x".repeat(200_000);
    client.produce("t", 0, batch(&["small"]));
    client.produce("t", 0, batch(&[&large]));
    let (_, _, records) = fetched(client.fetch("t", 0, 1));
    assert_eq!(values(records), [(1, large.clone())]);
    let (_, _, records) = fetched(client.fetch("t", 0, 0));
    assert_eq!(values(records), [(0, "small".to_owned()), (1, large)]);
}

#[test]
fn data_is_there_after_a_restart() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 3);
    client.produce("t", 2, batch(&["kept"]));
    let broker = broker.restart(&[]);
    let mut client = broker.client();
    let (_, high_watermark, records) = fetched(client.fetch("t", 2, 0));
    assert_eq!(high_watermark, 1);
    assert_eq!(values(records), [(0, "kept".to_owned())]);
    assert_eq!(produced(&client.produce("t", 2, batch(&["more"]))), (0, 1));
}

#[test]
fn a_fetch_at_the_end_waits_for_the_next_record() {
    let broker = TestBroker::start();
    let (mut consumer, mut producer) = (broker.client(), broker.client());
    producer.create_topic("t", 1);
    consumer.send(12, &fetch_request("t", 0, 0));
    assert_eq!(produced(&producer.produce("t", 0, batch(&["now"]))), (0, 0));
    let response = consumer.receive::<FetchRequest>(12);
    assert_eq!(values(fetched(response).2), [(0, "now".to_owned())]);
}

#[test]
fn a_fetch_with_nothing_to_tell_comes_back_after_its_time() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let asked_at = Instant::now();
    let request = fetch_request("t", 0, 0).with_max_wait_ms(200);
    let (error, high_watermark, records) = fetched(client.call(12, &request));
    assert!(asked_at.elapsed() >= Duration::from_millis(200));
    assert_eq!((error, high_watermark, records.len()), (0, 0, 0));
}

#[test]
fn an_error_does_not_wait() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let asked_at = Instant::now();
    let (error, high_watermark, _) = fetched(client.fetch("t", 0, 1));
    assert_eq!(
        (error, high_watermark),
        (ErrorCode::OffsetOutOfRange.code(), -1)
    );
    let (error, ..) = fetched(client.fetch("t", 7, 0));
    assert_eq!(error, ErrorCode::UnknownTopicOrPartition.code());
    let (error, ..) = fetched(client.fetch("nope", 0, 0));
    assert_eq!(error, ErrorCode::UnknownTopicOrPartition.code());
    assert!(
        asked_at.elapsed() < Duration::from_secs(5),
        "the requests asked to wait for 10 s"
    );
}

#[test]
fn the_first_batch_is_returned_whole_whatever_the_limits() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let first = batch(&["first"]);
    client.produce("t", 0, first.clone());
    client.produce("t", 0, batch(&["second"]));
    let mut request = fetch_request("t", 0, 0);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    let (_, _, records) = fetched(client.call(12, &request));
    assert_eq!(records.len(), first.len());
    // A last batch may be cut off anywhere.
    request.topics[0].partitions[0].partition_max_bytes =
        i32::try_from(first.len() + 10).expect("small");
    let (_, _, records) = fetched(client.call(12, &request));
    assert_eq!(records.len(), first.len() + 10);
}

#[test]
fn a_fetch_waits_for_as_much_as_it_asks_for() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let records = batch(&[&"x".repeat(300)]);
    client.produce("t", 0, records.clone());
    let wanted = i32::try_from(records.len() + 1).expect("small");
    let request = fetch_request("t", 0, 0)
        .with_min_bytes(wanted)
        .with_max_wait_ms(60_000);
    let mut waiting = broker.client();
    waiting.send(12, &request);
    client.produce("t", 0, records.clone());
    let (error, _, records_of_both) = fetched(waiting.receive::<FetchRequest>(12));
    assert_eq!((error, records_of_both.len()), (0, 2 * records.len()));
}

/// `max_bytes` is of all partitions together, whatever each of them may have.
#[test]
fn an_answer_is_no_larger_than_asked_for() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 3);
    let records = batch(&[&"x".repeat(1000)]);
    for index in 0..3 {
        for _ in 0..3 {
            client.produce("t", index, records.clone());
        }
    }
    let size = i32::try_from(records.len()).expect("small");
    for (max_bytes, expected) in [(4 * size, [3, 1, 0]), (1, [1, 0, 0]), (i32::MAX, [3, 3, 3])] {
        let mut request = fetch_request("t", 0, 0).with_max_bytes(max_bytes);
        let first = request.topics[0].partitions[0].clone();
        request.topics[0].partitions = (0..3)
            .map(|index| first.clone().with_partition(index))
            .collect();
        let response = client.call(12, &request);
        let counts: Vec<usize> = response.responses[0]
            .partitions
            .iter()
            .map(|partition| partition.records.as_ref().map_or(0, Bytes::len) / records.len())
            .collect();
        assert_eq!(counts, expected, "{max_bytes}");
    }
}

#[test]
fn traffic_is_counted_where_it_passes() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let records = batch(&["one", "two", "three"]);
    client.produce("t", 0, records.clone());
    let (_, _, answer) = fetched(client.fetch("t", 0, 0));
    assert_eq!(answer.len(), records.len());
    let size = f64::from(u32::try_from(records.len()).expect("small"));
    // An answer is counted when it has been sent, which is when the client may have read it already.
    client.fetch("t", 0, 0);
    for (metric, value) in [
        (
            "kafka_server_brokertopicmetrics_messagesin_total{topic=\"t\"}",
            3.0,
        ),
        (
            "kafka_server_brokertopicmetrics_bytesin_total{topic=\"t\"}",
            size,
        ),
        ("kafka_log_log_size{topic=\"t\",partition=\"0\"}", size),
        (
            "kafka_log_log_logstartoffset{topic=\"t\",partition=\"0\"}",
            0.0,
        ),
        (
            "kafka_log_log_logendoffset{topic=\"t\",partition=\"0\"}",
            3.0,
        ),
        (
            "kafka_network_requestmetrics_requests_total{request=\"Produce\"",
            1.0,
        ),
    ] {
        assert_eq!(broker.metric(metric), value, "{metric}");
    }
    let out = broker.metric("kafka_server_brokertopicmetrics_bytesout_total{topic=\"t\"}");
    assert!((size..=2.0 * size).contains(&out), "{out}");
}

#[test]
fn acks_0_is_not_answered_and_acks_2_is_refused() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.send(9, &produce_request("t", 0, batch(&["silent"])).with_acks(0));
    let response = client.call(9, &produce_request("t", 0, batch(&["loud"])).with_acks(1));
    assert_eq!(
        produced(&response),
        (0, 1),
        "the answer is the second request's"
    );
    let response = client.call(9, &produce_request("t", 0, batch(&["x"])).with_acks(2));
    assert_eq!(
        produced(&response),
        (ErrorCode::InvalidRequiredAcks.code(), -1)
    );
}

#[test]
fn an_error_with_acks_0_closes_the_connection() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.send(9, &produce_request("nope", 0, batch(&["x"])).with_acks(0));
    assert!(client.is_closed());
}

/// Bytes of a batch with one of them changed, its CRC made right again.
fn doctored(position: usize, value: u8) -> Bytes {
    let mut bytes = batch(&["a"]).to_vec();
    bytes[position] = value;
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// CRC-32C, bit by bit: the tests must not trust the code they test.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1))
        })
    };
    !bytes.iter().fold(!0, step)
}

#[test]
fn bad_batches_get_the_error_a_real_broker_gives_and_nothing_is_appended() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let good = batch(&["a"]);
    let damaged = {
        let mut bytes = good.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        Bytes::from(bytes)
    };
    let bomb = {
        let mut builder = Builder::new().compression(Compression::Gzip, None);
        builder.push(0, None, Some(&vec![0; 8 << 20]), &[]);
        builder
            .build()
            .expect("a record makes a batch")
            .bytes()
            .clone()
    };
    client.create_topic_with("small", 1, &[("max.decompressed.message.bytes", "1000000")]);
    let cases = [
        ("damaged", damaged, ErrorCode::CorruptMessage),
        ("empty", Bytes::new(), ErrorCode::InvalidRecord),
        (
            "cut off",
            good.slice(..good.len() - 1),
            ErrorCode::InvalidRecord,
        ),
        (
            "two batches",
            [&good[..], &good[..]].concat().into(),
            ErrorCode::InvalidRecord,
        ),
        ("zeros", vec![0; 61].into(), ErrorCode::CorruptMessage),
        ("magic 1", doctored(16, 1), ErrorCode::InvalidRecord),
        ("magic 3", doctored(16, 3), ErrorCode::CorruptMessage),
        (
            "control batch",
            doctored(22, 0x20),
            ErrorCode::InvalidRecord,
        ),
        (
            "count 2, one record",
            doctored(60, 2),
            ErrorCode::InvalidRecord,
        ),
        (
            "last offset delta 5",
            doctored(26, 5),
            ErrorCode::InvalidRecord,
        ),
        (
            "gzip that is not",
            doctored(22, 1),
            ErrorCode::InvalidRecord,
        ),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(
            produced(&client.produce("t", 0, bytes)),
            (code.code(), -1),
            "{what}"
        );
    }
    let refused = produced(&client.produce("small", 0, bomb));
    assert_eq!(
        refused,
        (ErrorCode::InvalidRecord.code(), -1),
        "a decompression bomb"
    );
    let large = batch(&[&"x".repeat(1_048_588)]);
    assert_eq!(
        produced(&client.produce("t", 0, large)),
        (ErrorCode::MessageTooLarge.code(), -1)
    );
    let request = fetch_request("t", 0, 0).with_max_wait_ms(0);
    assert_eq!(
        fetched(client.call(12, &request)).1,
        0,
        "nothing was appended"
    );
}

#[test]
fn an_idempotent_producers_retry_is_acknowledged_and_kept_once() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    // A producer is forgotten a day after its newest record, by the record's time.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now =
        i64::try_from(now.expect("after 1970").as_millis()).expect("before the year 292 million");
    let numbered = |sequence: i32| {
        let mut builder = Builder::new().producer(4000, 0, sequence);
        builder.push(now, None, Some(sequence.to_string().as_bytes()), &[]);
        builder
            .build()
            .expect("a record makes a batch")
            .bytes()
            .clone()
    };
    for sequence in 0..7 {
        assert_eq!(
            produced(&client.produce("t", 0, numbered(sequence))),
            (0, sequence.into())
        );
    }
    assert_eq!(
        produced(&client.produce("t", 0, numbered(6))),
        (0, 6),
        "a retry"
    );
    assert_eq!(
        produced(&client.produce("t", 0, numbered(2))),
        (0, 2),
        "the fifth last"
    );
    let out_of_order = ErrorCode::OutOfOrderSequenceNumber.code();
    assert_eq!(
        produced(&client.produce("t", 0, numbered(1))),
        (out_of_order, -1)
    );
    assert_eq!(
        produced(&client.produce("t", 0, numbered(9))),
        (out_of_order, -1)
    );

    let broker = broker.restart(&[]);
    let mut client = broker.client();
    assert_eq!(
        produced(&client.produce("t", 0, numbered(6))),
        (0, 6),
        "a retry after a restart"
    );
    assert_eq!(produced(&client.produce("t", 0, numbered(7))), (0, 7));
    let (_, _, records) = fetched(client.fetch("t", 0, 0));
    assert_eq!(Batch::split(records).expect("whole batches").len(), 8);
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic_with("t", 1, &[("flush.messages", "1")]);
    client.create_topic("fast", 1);
    // The first waits for the disk, the second for nothing.
    client.send(9, &produce_request("t", 0, batch(&["slow"])));
    client.send(9, &produce_request("fast", 0, batch(&["fast"])));
    let first = client.receive_frame().expect("an answer");
    let second = client.receive_frame().expect("an answer");
    let correlation_id =
        |frame: &Bytes| i32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
    assert_eq!(correlation_id(&first) + 1, correlation_id(&second));
}

#[test]
fn a_topic_with_append_time_tells_its_clock() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic_with("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let response = client.produce("t", 0, batch(&["a"]));
    let stamped = response.responses[0].partition_responses[0].log_append_time_ms;
    assert!(stamped > 1_700_000_000_000);
    let (_, _, records) = fetched(client.fetch("t", 0, 0));
    let batches = Batch::split(records).expect("whole batches");
    assert_eq!(batches[0].header().max_timestamp, stamped);
}
