//! Transactions over the wire. What is asserted here was answered by Apache Kafka 4.4.0 too, unless a comment says
//! otherwise.

mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use common::{Client, TestBroker, fetch_request, produce_request, topic_name};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ApiVersionsRequest, DeleteTopicsRequest,
    DescribeTransactionsRequest, EndTxnRequest, FindCoordinatorRequest, GroupId,
    InitProducerIdRequest, ListTransactionsRequest, MetadataRequest, OffsetFetchRequest,
    ProducerId, TransactionalId, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
    add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
    offset_fetch_request::OffsetFetchRequestTopic,
    txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
    write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
};
use protocol::{batch::Builder, error::ErrorCode, messages::TxnOffsetCommitResponse};
use uuid::Uuid;

const SETTINGS: [(&str, &str); 3] = [
    ("offsets.topic.num.partitions", "2"),
    ("transaction.state.log.num.partitions", "2"),
    ("group.initial.rebalance.delay.ms", "0"),
];

const PATIENCE: Duration = Duration::from_secs(60);

/// Versions of Produce, and what they can do.
const KNOWS_ABORTABLE: i16 = 11;
const ADDS: i16 = 12;

const FIRST: i16 = 4;
const BUMPS: i16 = 5;

/// A broker with the topics `t` (3 partitions) and `u` (1), and coordinators.
fn started() -> (TestBroker, Client) {
    let broker = TestBroker::start_with(&SETTINGS);
    let mut client = broker.client();
    client.create_topic("t", 3);
    client.create_topic("u", 1);
    find_coordinators(&mut client);
    (broker, client)
}

/// Waits until groups and transactional ids have coordinators that answer.
fn find_coordinators(client: &mut Client) {
    for key_type in [0, 1] {
        until(|| {
            let request = FindCoordinatorRequest::default()
                .with_key_type(key_type)
                .with_coordinator_keys(vec!["g".into()]);
            let found = client.call(4, &request).coordinators.remove(0);
            let expected = [0, ErrorCode::CoordinatorNotAvailable.code()];
            assert!(expected.contains(&found.error_code), "{found:?}");
            found.error_code == 0
        });
    }
    until(|| committed_offset(client, false).1 == 0);
    for id in ["probe-1", "probe-2", "probe-3", "probe-4"] {
        until(|| {
            let loading = [
                ErrorCode::NotCoordinator.code(),
                ErrorCode::CoordinatorLoadInProgress.code(),
            ];
            !loading.contains(&describe(client, id).error_code)
        });
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "it does not come to be");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// A transactional producer as a client has it.
#[derive(Debug, Clone, PartialEq)]
struct Producer {
    name: &'static str,
    id: i64,
    epoch: i16,
}

impl Producer {
    /// Begins anew, as often as it is told to come again.
    fn new(client: &mut Client, name: &'static str) -> Self {
        let mut producer = Err(0);
        until(|| {
            producer = Self::init(client, name, None, 60_000);
            producer != Err(ErrorCode::ConcurrentTransactions.code())
        });
        producer.expect("a producer")
    }

    fn init(
        client: &mut Client,
        name: &'static str,
        before: Option<&Self>,
        timeout_ms: i32,
    ) -> Result<Self, i16> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(name)))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(ProducerId(before.map_or(-1, |before| before.id)))
            .with_producer_epoch(before.map_or(-1, |before| before.epoch));
        let answer = client.call(4, &request);
        match answer.error_code {
            0 => Ok(Self {
                name,
                id: answer.producer_id.0,
                epoch: answer.producer_epoch,
            }),
            code => Err(code),
        }
    }

    fn batch(&self, sequence: i32, values: &[&str]) -> Bytes {
        // Not long before the markers: those would begin another segment.
        self.batch_of(now(), sequence, values)
    }

    fn batch_of(&self, time: i64, sequence: i32, values: &[&str]) -> Bytes {
        let mut batch = Builder::new()
            .producer(self.id, self.epoch, sequence)
            .transactional();
        for value in values {
            batch.push(time, None, Some(value.as_bytes()), &[]);
        }
        batch.build().expect("a batch").bytes().clone()
    }

    fn add(&self, client: &mut Client, topic: &str, indexes: &[i32]) -> Vec<i16> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(indexes.to_vec());
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional_id(self.name))
            .with_v3_and_below_producer_id(ProducerId(self.id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let answer = client.call(3, &request);
        let results = answer.results_by_topic_v3_and_below;
        let partitions = results.iter().flat_map(|topic| &topic.results_by_partition);
        partitions
            .map(|result| result.partition_error_code)
            .collect()
    }

    fn verify(&self, client: &mut Client, topic: &str, indexes: &[i32]) -> Vec<i16> {
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(indexes.to_vec());
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(transactional_id(self.name))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_verify_only(true)
            .with_topics(vec![topic]);
        let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
        let answer = client.call(5, &request);
        let topics = answer.results_by_transaction[0].topic_results.iter();
        let partitions = topics.flat_map(|topic| &topic.results_by_partition);
        partitions
            .map(|result| result.partition_error_code)
            .collect()
    }

    /// Returns code and base offset.
    fn produce(
        &self,
        client: &mut Client,
        version: i16,
        (topic, index): (&str, i32),
        sequence: i32,
        value: &str,
    ) -> (i16, i64) {
        let request = produce_request(topic, index, self.batch(sequence, &[value]))
            .with_transactional_id(Some(transactional_id(self.name)));
        let answer = client.call(version, &request);
        let partition = &answer.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    /// Returns the code, or who the producer is from now on.
    fn end(&self, client: &mut Client, version: i16, commit: bool) -> Result<Self, i16> {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id(self.name))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_committed(commit);
        let answer = client.call(version, &request);
        match answer.error_code {
            0 if version < BUMPS => Ok(self.clone()),
            0 => Ok(Self {
                name: self.name,
                id: answer.producer_id.0,
                epoch: answer.producer_epoch,
            }),
            code => Err(code),
        }
    }

    fn commit_offset(&self, client: &mut Client, version: i16, offset: i64) -> i16 {
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset)
            .with_committed_metadata(Some("".into()));
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(transactional_id(self.name))
            .with_group_id(GroupId("g".into()))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_topics(vec![topic]);
        let answer = client.call(version, &request);
        answer.topics[0].partitions[0].error_code
    }

    fn add_offsets(&self, client: &mut Client) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(transactional_id(self.name))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_group_id(GroupId("g".into()));
        client.call(3, &request).error_code
    }
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a time after 1970").as_millis();
    i64::try_from(now).expect("a date")
}

fn transactional_id(name: &'static str) -> TransactionalId {
    TransactionalId(name.into())
}

/// What group `g` has committed of `t-0`, and the code.
fn committed_offset(client: &mut Client, require_stable: bool) -> (i64, i16) {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId("g".into()))
        .with_topics(Some(vec![topic]))
        .with_require_stable(require_stable);
    let answer = client.call(7, &request);
    match answer.topics.first() {
        Some(topic) => {
            let partition = &topic.partitions[0];
            (partition.committed_offset, partition.error_code)
        }
        None => (-1, answer.error_code),
    }
}

fn describe(
    client: &mut Client,
    name: &'static str,
) -> kafka_protocol::messages::describe_transactions_response::TransactionState {
    let request =
        DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional_id(name)]);
    client.call(0, &request).transaction_states.remove(0)
}

fn state(client: &mut Client, name: &'static str) -> String {
    describe(client, name).transaction_state.to_string()
}

fn list(client: &mut Client, states: &[&'static str]) -> Vec<String> {
    let request = ListTransactionsRequest::default()
        .with_state_filters(states.iter().map(|state| (*state).into()).collect());
    let answer = client.call(2, &request);
    assert_eq!(answer.error_code, 0);
    let ids = answer.transaction_states.iter();
    let mut ids: Vec<String> = ids
        .map(|state| state.transactional_id.to_string())
        .collect();
    ids.sort();
    ids
}

/// What a `read_committed` consumer makes of a partition: the values it shows, and the last stable offset.
fn read_committed(client: &mut Client, topic: &str, index: i32) -> (Vec<String>, i64) {
    let request = fetch_request(topic, index, 0)
        .with_isolation_level(1)
        .with_max_wait_ms(0);
    let partition = client
        .call(12, &request)
        .responses
        .remove(0)
        .partitions
        .remove(0);
    assert_eq!(partition.error_code, 0);
    let (shown, _) = common::read_committed(&partition);
    let shown = shown.into_iter().map(|(_, value)| value).collect();
    (shown, partition.last_stable_offset)
}

/// Waits until the partition holds nobody back at this offset, and returns what is shown of it.
fn settled(client: &mut Client, (topic, index): (&str, i32), offset: i64) -> Vec<String> {
    until(|| read_committed(client, topic, index).1 == offset);
    read_committed(client, topic, index).0
}

#[test]
fn a_reader_sees_whole_transactions_only_whatever_the_generation() {
    let (_broker, mut client) = started();
    for (topic, version, end) in [("t", 9, FIRST), ("u", ADDS, BUMPS)] {
        let mut producer = Producer::new(&mut client, "p");
        let adds = |producer: &Producer, client: &mut Client| {
            if version < ADDS {
                assert_eq!(producer.add(client, topic, &[0]), [0]);
            }
        };
        adds(&producer, &mut client);
        assert_eq!(
            producer.produce(&mut client, version, (topic, 0), 0, "a"),
            (0, 0)
        );
        assert_eq!(
            producer.produce(&mut client, version, (topic, 0), 1, "b"),
            (0, 1)
        );
        assert_eq!(read_committed(&mut client, topic, 0), (vec![], 0));
        producer = producer.end(&mut client, end, true).expect("a commit");
        assert_eq!(settled(&mut client, (topic, 0), 3), ["a", "b"]);

        let next = if end < BUMPS { 2 } else { 0 };
        until(|| state(&mut client, "p") == "CompleteCommit");
        adds(&producer, &mut client);
        assert_eq!(
            producer.produce(&mut client, version, (topic, 0), next, "no"),
            (0, 3)
        );
        assert_eq!(read_committed(&mut client, topic, 0).1, 3);
        producer.end(&mut client, end, false).expect("an abort");
        assert_eq!(settled(&mut client, (topic, 0), 5), ["a", "b"]);
    }
}

#[test]
fn a_partition_that_was_not_added_is_not_written_to() {
    let (_broker, mut client) = started();
    let producer = Producer::new(&mut client, "p");
    assert_eq!(producer.add(&mut client, "t", &[0]), [0]);
    let refused = [
        (9, ErrorCode::InvalidTxnState),
        (KNOWS_ABORTABLE, ErrorCode::TransactionAbortable),
    ];
    for (version, code) in refused {
        let produced = producer.produce(&mut client, version, ("t", 1), 0, "x");
        assert_eq!(produced, (code.code(), -1), "v{version}");
    }
    assert_eq!(
        producer.verify(&mut client, "t", &[0, 1]),
        [0, ErrorCode::TransactionAbortable.code()]
    );
    // Its offsets are a partition like others.
    let code = ErrorCode::InvalidTxnState.code();
    assert_eq!(producer.commit_offset(&mut client, 3, 7), code);
}

/// It would begin a transaction that nobody ends, and hold back all readers for good.
#[test]
fn what_comes_after_the_end_of_its_transaction_is_refused() {
    let (_broker, mut client) = started();
    let producer = Producer::new(&mut client, "p");
    assert_eq!(producer.add(&mut client, "t", &[0]), [0]);
    assert_eq!(producer.produce(&mut client, 9, ("t", 0), 0, "no"), (0, 0));
    producer.end(&mut client, FIRST, false).expect("an abort");
    until(|| state(&mut client, "p") == "CompleteAbort");
    let late = producer.produce(&mut client, 9, ("t", 0), 1, "late");
    assert_eq!(late, (ErrorCode::InvalidTxnState.code(), -1));
    assert_eq!(read_committed(&mut client, "t", 0), (vec![], 2));

    let producer = Producer::new(&mut client, "q");
    let produced = producer.produce(&mut client, ADDS, ("u", 0), 0, "yes");
    assert_eq!(produced, (0, 0));
    let next = producer.end(&mut client, BUMPS, true).expect("a commit");
    assert_eq!((next.id, next.epoch), (producer.id, producer.epoch + 1));
    assert_eq!(settled(&mut client, ("u", 0), 2), ["yes"]);
    let late = producer.produce(&mut client, ADDS, ("u", 0), 1, "late");
    assert_eq!(late, (ErrorCode::InvalidProducerEpoch.code(), -1));
    assert_eq!(producer.end(&mut client, BUMPS, true), Ok(next), "a retry");
    assert_eq!(read_committed(&mut client, "u", 0), (vec!["yes".into()], 2));
}

#[test]
fn the_next_instance_fences_the_one_before() {
    let (_broker, mut client) = started();
    let old = Producer::new(&mut client, "p");
    assert_eq!(old.produce(&mut client, ADDS, ("t", 0), 0, "no"), (0, 0));
    let again = Producer::init(&mut client, "p", None, 60_000);
    assert_eq!(again, Err(ErrorCode::ConcurrentTransactions.code()));
    let new = Producer::new(&mut client, "p");
    assert_eq!((new.id, new.epoch), (old.id, old.epoch + 2));
    assert_eq!(settled(&mut client, ("t", 0), 2), [""; 0]);
    let fenced = ErrorCode::InvalidProducerEpoch.code();
    assert_eq!(
        old.produce(&mut client, ADDS, ("t", 0), 1, "x"),
        (fenced, -1)
    );
    assert_eq!(
        old.produce(&mut client, ADDS, ("t", 1), 0, "x"),
        (fenced, -1)
    );
    let fenced = ErrorCode::ProducerFenced.code();
    assert_eq!(old.end(&mut client, BUMPS, true), Err(fenced));
    assert_eq!(old.add(&mut client, "t", &[2]), [fenced]);
    let resumed = Producer::init(&mut client, "p", Some(&old), 60_000);
    assert_eq!(resumed, Err(fenced));
    assert_eq!(new.produce(&mut client, ADDS, ("t", 0), 0, "yes"), (0, 2));
    new.end(&mut client, BUMPS, true).expect("a commit");
    assert_eq!(settled(&mut client, ("t", 0), 4), ["yes"]);
}

#[test]
fn offsets_count_with_the_transaction() {
    let (_broker, mut client) = started();
    let unstable = ErrorCode::UnstableOffsetCommit.code();
    let producer = Producer::new(&mut client, "p");
    assert_eq!(producer.add_offsets(&mut client), 0);
    assert_eq!(producer.commit_offset(&mut client, 3, 7), 0);
    assert_eq!(committed_offset(&mut client, false), (-1, 0));
    assert_eq!(committed_offset(&mut client, true), (-1, unstable));
    producer.end(&mut client, FIRST, true).expect("a commit");
    until(|| committed_offset(&mut client, true) == (7, 0));

    until(|| state(&mut client, "p") == "CompleteCommit");
    assert_eq!(producer.commit_offset(&mut client, 5, 8), 0);
    assert_eq!(committed_offset(&mut client, true), (-1, unstable));
    let producer = producer.end(&mut client, BUMPS, false).expect("an abort");
    until(|| committed_offset(&mut client, true) == (7, 0));
    until(|| state(&mut client, "p") == "CompleteAbort");
    assert_eq!(producer.commit_offset(&mut client, 5, 9), 0);
    let next = producer.end(&mut client, BUMPS, true).expect("a commit");
    until(|| committed_offset(&mut client, true) == (9, 0));
    let fenced = ErrorCode::InvalidProducerEpoch.code();
    assert_eq!(producer.commit_offset(&mut client, 5, 10), fenced);
    assert_eq!(next.epoch, producer.epoch + 1);
}

#[test]
fn what_takes_too_long_is_aborted() {
    let (_broker, mut client) = started();
    let producer = Producer::init(&mut client, "p", None, 100).expect("a producer");
    let produced = producer.produce(&mut client, ADDS, ("t", 0), 0, "no");
    assert_eq!(produced, (0, 0));
    assert_eq!(settled(&mut client, ("t", 0), 2), [""; 0]);
    // The epoch is that of a producer which has ended a transaction, but this one was not committed.
    assert_eq!(
        producer.end(&mut client, BUMPS, true),
        Err(ErrorCode::InvalidTxnState.code())
    );
    let added = producer.add(&mut client, "t", &[0]);
    assert_eq!(added, [ErrorCode::ProducerFenced.code()]);
}

#[test]
fn transactions_go_on_after_a_restart() {
    let (broker, mut client) = started();
    let one = Producer::new(&mut client, "one");
    assert_eq!(one.produce(&mut client, ADDS, ("t", 0), 0, "a"), (0, 0));
    assert_eq!(one.commit_offset(&mut client, 5, 3), 0);
    let two = Producer::new(&mut client, "two");
    assert_eq!(two.produce(&mut client, ADDS, ("t", 0), 0, "no"), (0, 1));
    let two = two.end(&mut client, BUMPS, false).expect("an abort");
    drop(client);

    let broker = broker.restart(&SETTINGS);
    let mut client = broker.client();
    find_coordinators(&mut client);
    assert_eq!(state(&mut client, "one"), "Ongoing");
    until(|| state(&mut client, "two") == "CompleteAbort");
    assert_eq!(read_committed(&mut client, "t", 0), (vec![], 0));
    assert_eq!(
        committed_offset(&mut client, true),
        (-1, ErrorCode::UnstableOffsetCommit.code())
    );
    // The broker may have stopped before it had noted that the marker was written: then there are two.
    let (code, offset) = one.produce(&mut client, ADDS, ("t", 0), 1, "b");
    assert_eq!(code, 0);
    one.end(&mut client, BUMPS, true).expect("a commit");
    assert_eq!(settled(&mut client, ("t", 0), offset + 2), ["a", "b"]);
    until(|| committed_offset(&mut client, true) == (3, 0));
    let produced = two.produce(&mut client, ADDS, ("t", 0), 0, "c");
    assert_eq!(produced, (0, offset + 2));
    two.end(&mut client, BUMPS, true).expect("a commit");
    assert_eq!(settled(&mut client, ("t", 0), offset + 4), ["a", "b", "c"]);
}

#[test]
fn transactions_are_described_and_listed() {
    let (_broker, mut client) = started();
    let one = Producer::new(&mut client, "one");
    assert_eq!(one.add(&mut client, "t", &[2, 0]), [0, 0]);
    Producer::new(&mut client, "two");
    let described = describe(&mut client, "one");
    assert_eq!(
        (&*described.transaction_state, described.producer_id.0),
        ("Ongoing", one.id)
    );
    assert_eq!(described.topics.len(), 1);
    assert_eq!(described.topics[0].partitions, [0, 2]);
    assert!(described.transaction_start_time_ms > 0);
    let unknown = describe(&mut client, "three");
    assert_eq!(
        unknown.error_code,
        ErrorCode::TransactionalIdNotFound.code()
    );
    assert_eq!(&**unknown.transactional_id, "three");
    assert_eq!(list(&mut client, &[]), ["one", "two"]);
    assert_eq!(list(&mut client, &["Ongoing", "Dead"]), ["one"]);
    assert_eq!(list(&mut client, &["ongoing"]), [""; 0]);

    let mut with = |request: ListTransactionsRequest| {
        let answer = client.call(2, &request);
        let ids = answer.transaction_states.iter();
        let ids: Vec<String> = ids.map(|it| it.transactional_id.to_string()).collect();
        (answer.error_code, answer.unknown_state_filters, ids)
    };
    let all = ListTransactionsRequest::default;
    let only = |id: &str| (0, Vec::new(), vec![id.to_owned()]);
    assert_eq!(
        with(all().with_transactional_id_pattern(Some("t.*".into()))),
        only("two")
    );
    assert_eq!(
        with(all().with_producer_id_filters(vec![ProducerId(one.id)])),
        only("one")
    );
    // What has never begun is older than anything.
    assert_eq!(with(all().with_duration_filter(1_000_000)), only("two"));
    assert_eq!(
        with(all().with_transactional_id_pattern(Some("[".into()))),
        (ErrorCode::InvalidRegularExpression.code(), vec![], vec![])
    );
    assert_eq!(
        with(all().with_state_filters(vec!["Bogus".into()])),
        (0, vec!["Bogus".into()], vec![])
    );
}

/// As `kafka-transactions.sh abort` does it.
#[test]
fn an_administrator_ends_a_transaction_that_hangs() {
    let (_broker, mut client) = started();
    let producer = Producer::new(&mut client, "p");
    let produced = producer.produce(&mut client, ADDS, ("u", 0), 0, "no");
    assert_eq!(produced, (0, 0));
    let mut end = |epoch: i16, coordinator_epoch: i32| -> Vec<i16> {
        let topic = |name: &str| {
            WritableTxnMarkerTopic::default()
                .with_name(topic_name(name))
                .with_partition_indexes(vec![0])
        };
        let marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(epoch)
            .with_topics(vec![topic("u"), topic("nope")])
            .with_coordinator_epoch(coordinator_epoch);
        let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
        let answer = client.call(1, &request);
        let topics = answer.markers.iter().flat_map(|marker| &marker.topics);
        let partitions = topics.flat_map(|topic| &topic.partitions);
        partitions.map(|partition| partition.error_code).collect()
    };
    let missing = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(end(producer.epoch, 5), [0, missing]);
    let fenced = ErrorCode::TransactionCoordinatorFenced.code();
    assert_eq!(end(producer.epoch, 4), [fenced, missing]);
    assert_eq!(read_committed(&mut client, "u", 0), (vec![], 2));
}

#[test]
fn a_partition_whose_transaction_nobody_will_end_is_counted() {
    let (broker, mut client) = started();
    let late = || broker.metric("kafka_server_replicamanager_partitionswithlatetransactionscount");
    // transaction.max.timeout.ms is a quarter of an hour, and Kafka adds five minutes.
    let almost = now() - 19 * 60_000;
    let before = now() - 21 * 60_000;
    let producers = [
        ("p", ("t", 0), almost),
        ("q", ("t", 1), before),
        ("r", ("u", 0), before),
    ];
    let producers = producers.map(|(name, at, time)| {
        let producer = Producer::new(&mut client, name);
        let request = produce_request(at.0, at.1, producer.batch_of(time, 0, &["x"]))
            .with_transactional_id(Some(transactional_id(name)));
        let answer = client.call(ADDS, &request);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        producer
    });
    assert_eq!(late(), 2.0);
    // Who still writes is not late, whenever it began.
    let went_on = producers[2].produce(&mut client, ADDS, ("u", 0), 1, "y");
    assert_eq!(went_on, (0, 1));
    assert_eq!(late(), 1.0);
    producers[1].end(&mut client, BUMPS, true).expect("an end");
    settled(&mut client, ("t", 1), 2);
    assert_eq!(late(), 0.0);
}

/// Comparing each with each takes minutes.
#[test]
fn a_great_many_markers_are_refused_in_no_time() {
    const COUNT: i32 = 50_000;
    let (_broker, mut client) = started();
    let topic = |name: &str, indexes| {
        WritableTxnMarkerTopic::default()
            .with_name(topic_name(name))
            .with_partition_indexes(indexes)
    };
    let marker = |producer_id: i64, topics| {
        WritableTxnMarker::default()
            .with_producer_id(ProducerId(producer_id))
            .with_topics(topics)
    };
    let names: Vec<String> = (0..COUNT).map(|at| format!("nope-{at}")).collect();
    let topics = names.iter().map(|name| topic(name, vec![0]));
    let mut markers = vec![
        marker(1, vec![topic("nope", (0..COUNT).collect())]),
        marker(1, topics.collect()),
        marker(1, vec![topic("nope", vec![0, 0, COUNT])]),
    ];
    markers.extend((0..i64::from(COUNT)).map(|at| marker(2 + at, vec![topic("nope", vec![0])])));
    let answer = client.call(1, &WriteTxnMarkersRequest::default().with_markers(markers));
    assert_eq!(answer.markers.len(), names.len() + 1);
    let first = &answer.markers[0];
    assert_eq!(first.topics.len(), names.len() + 1);
    // What was named again is answered once.
    assert_eq!(first.topics[0].partitions.len(), names.len() + 1);
    let missing = ErrorCode::UnknownTopicOrPartition.code();
    let partitions = first.topics.iter().flat_map(|topic| &topic.partitions);
    assert!(partitions.into_iter().all(|it| it.error_code == missing));
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let (_broker, mut client) = started();
    let producer = Producer::new(&mut client, "p");
    let code = ErrorCode::InvalidTxnState.code();
    assert_eq!(producer.end(&mut client, FIRST, true), Err(code));
    assert_eq!(producer.end(&mut client, FIRST, false), Err(code));
    assert_eq!(producer.end(&mut client, BUMPS, true), Err(code));
    let stranger = Producer {
        id: producer.id + 1000,
        ..producer.clone()
    };
    let code = ErrorCode::InvalidProducerIdMapping.code();
    assert_eq!(stranger.add(&mut client, "t", &[0]), [code]);
    assert_eq!(stranger.end(&mut client, BUMPS, true), Err(code));
    let produced = stranger.produce(&mut client, ADDS, ("t", 0), 0, "x");
    assert_eq!(produced, (code, -1));
    let nobody = Producer {
        name: "nobody",
        ..producer.clone()
    };
    assert_eq!(nobody.add(&mut client, "t", &[0]), [code]);
    assert_eq!(nobody.end(&mut client, FIRST, false), Err(code));
    assert_eq!(nobody.add_offsets(&mut client), code);
    // All or nothing.
    let added = producer.add(&mut client, "t", &[0, 7]);
    let not_attempted = ErrorCode::OperationNotAttempted.code();
    let missing = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(added, [not_attempted, missing]);
    let internal = producer.add(&mut client, "__consumer_offsets", &[0]);
    assert_eq!(internal, [ErrorCode::TopicAuthorizationFailed.code()]);
    assert_eq!(state(&mut client, "p"), "Empty");
    // A producer that has been bumped begins at 0 wherever it writes.
    let produced = producer.produce(&mut client, ADDS, ("t", 0), 5, "x");
    assert_eq!(produced, (ErrorCode::OutOfOrderSequenceNumber.code(), -1));
    assert_eq!(read_committed(&mut client, "t", 0), (vec![], 0));
}

#[test]
fn clients_are_told_that_epochs_are_bumped() {
    let broker = TestBroker::start_with(&SETTINGS);
    let request = ApiVersionsRequest::default()
        .with_client_software_name("test".into())
        .with_client_software_version("1".into());
    let answer = broker.client().call(4, &request);
    let feature = answer
        .finalized_features
        .iter()
        .find(|feature| &*feature.name == "transaction.version");
    assert_eq!(feature.map(|feature| feature.max_version_level), Some(2));
}

/// Two hundred in a row, each begun as soon as the one before was answered: none of them has to wait for long for
/// markers, and none is torn.
#[test]
fn one_transaction_follows_another() {
    let (_broker, mut client) = started();
    let mut producer = Producer::new(&mut client, "p");
    let mut expected = Vec::new();
    for round in 0..200 {
        let value = format!("{round}");
        for index in 0..3 {
            let mut code = -1;
            until(|| {
                code = producer
                    .produce(&mut client, ADDS, ("t", index), 0, &value)
                    .0;
                code != ErrorCode::NotEnoughReplicas.code()
            });
            assert_eq!(code, 0, "round {round}");
        }
        let commit = round % 2 == 0;
        if commit {
            expected.push(value);
        }
        producer = producer.end(&mut client, BUMPS, commit).expect("an end");
    }
    for index in 0..3 {
        assert_eq!(settled(&mut client, ("t", index), 400), expected);
    }
}

/// As Apache Kafka 4.4.0 answered, with the order of topics.
#[test]
fn offsets_are_committed_by_topic_id() {
    let (_broker, mut client) = started();
    let topics = client
        .call(12, &MetadataRequest::default().with_topics(None))
        .topics;
    let id_of = |name: &str| {
        let name = Some(topic_name(name));
        let topic = topics.iter().find(|topic| topic.name == name);
        topic.expect("the topic").topic_id
    };
    let (t, u) = (id_of("t"), id_of("u"));
    let (nobody, nil) = (Uuid::from_bytes([7; 16]), Uuid::nil());
    let producer = Producer::new(&mut client, "p");
    let mut commit = |producer: &Producer, group: &str, epoch: i32, asked: &[(Uuid, &[i32])]| {
        let mut frame = b"\0\x1c\0\x06\0\0\0\x07\0\x04test\0".to_vec();
        for text in ["p", group] {
            frame.push(u8::try_from(text.len() + 1).expect("short"));
            frame.extend(text.as_bytes());
        }
        frame.extend(producer.id.to_be_bytes());
        frame.extend(producer.epoch.to_be_bytes());
        frame.extend(epoch.to_be_bytes());
        // No member, no instance.
        frame.extend([1, 0]);
        frame.push(u8::try_from(asked.len() + 1).expect("few"));
        for (id, indexes) in asked {
            frame.extend(id.as_bytes());
            frame.push(u8::try_from(indexes.len() + 1).expect("few"));
            for index in *indexes {
                frame.extend(index.to_be_bytes());
                frame.extend(7i64.to_be_bytes());
                frame.extend((-1i32).to_be_bytes());
                frame.extend([1, 0]);
            }
            frame.push(0);
        }
        frame.push(0);
        client.send_frame(&frame);
        let answer = client.receive_frame().expect("an answer").slice(5..);
        let answer = TxnOffsetCommitResponse::decode(answer, 6).expect("it decodes");
        let topics = answer.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter();
            let codes = partitions.map(|it| (it.partition_index, it.error_code));
            (topic.topic_id, codes.collect())
        });
        topics.collect::<Vec<(Uuid, Vec<(i32, i16)>)>>()
    };
    assert_eq!(commit(&producer, "g", -1, &[]), []);
    assert_eq!(
        commit(&producer, "g", -1, &[(nobody, &[0][..])]),
        [(nobody, vec![(0, 100)])]
    );
    assert_eq!(
        commit(
            &producer,
            "g",
            -1,
            &[
                (t, &[0, 9][..]),
                (nobody, &[0][..]),
                (u, &[0][..]),
                (nil, &[0][..])
            ]
        ),
        [
            (t, vec![(9, 3), (0, 0)]),
            (nobody, vec![(0, 100)]),
            (nil, vec![(0, 100)]),
            (u, vec![(0, 0)]),
        ]
    );
    assert_eq!(
        commit(
            &producer,
            "g",
            -1,
            &[(t, &[0][..]), (u, &[0][..]), (t, &[1][..])]
        ),
        [(t, vec![(0, 0)]), (u, vec![(0, 0)]), (t, vec![(1, 0)])]
    );
    assert_eq!(
        commit(
            &producer,
            "g",
            -1,
            &[(t, &[0][..]), (nobody, &[0][..]), (t, &[1, 7][..])]
        ),
        [(nobody, vec![(0, 100)]), (t, vec![(7, 3), (0, 0), (1, 0)])]
    );
    let later = Producer {
        epoch: producer.epoch + 1,
        ..producer.clone()
    };
    assert_eq!(
        commit(&later, "g", -1, &[(t, &[0][..])]),
        [(t, vec![(0, 47)])]
    );
    assert_eq!(
        commit(&producer, "", -1, &[(t, &[0][..])]),
        [(t, vec![(0, 24)])]
    );
    // Before version 6 this is an illegal generation.
    assert_eq!(
        commit(&producer, "new", 3, &[(t, &[0][..])]),
        [(t, vec![(0, 69)])]
    );
    producer.end(&mut client, BUMPS, true).expect("a commit");
    until(|| committed_offset(&mut client, true) == (7, 0));
}

/// There is nobody to be told there, and the others are not to wait for it.
#[test]
fn a_topic_that_is_deleted_holds_no_transaction_back() {
    let (_broker, mut client) = started();
    let producer = Producer::new(&mut client, "p");
    for topic in ["t", "u"] {
        let produced = producer.produce(&mut client, ADDS, (topic, 0), 0, "a");
        assert_eq!(produced, (0, 0));
    }
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name("u")])
        .with_timeout_ms(10_000);
    assert_eq!(client.call(5, &request).responses[0].error_code, 0);
    assert_eq!(state(&mut client, "p"), "Ongoing");
    let producer = producer.end(&mut client, BUMPS, true).expect("a commit");
    until(|| state(&mut client, "p") == "CompleteCommit");
    assert_eq!(settled(&mut client, ("t", 0), 2), ["a"]);
    let produced = producer.produce(&mut client, ADDS, ("t", 0), 0, "b");
    assert_eq!(produced, (0, 2));
}
