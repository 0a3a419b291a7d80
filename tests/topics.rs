//! Topics over the wire: creating, growing, cutting and deleting them. What is asserted here was answered
//! by Apache Kafka 4.4.0 too, unless a comment says otherwise.

mod common;

use common::{Client, TestBroker, batch, topic_name};
use kafka_protocol::{
    messages::{
        BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest,
        DeleteTopicsRequest, DescribeTopicPartitionsRequest, FindCoordinatorRequest,
        MetadataRequest,
        create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
        create_topics_response::CreatableTopicResult,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_topics_request::DeleteTopicState,
        describe_topic_partitions_request::{Cursor, TopicRequest},
        metadata_request::MetadataRequestTopic,
    },
    protocol::StrBytes,
};
use protocol::error::ErrorCode;
use uuid::Uuid;

fn topic(name: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor)
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = assignments.iter().map(|(index, brokers)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(*index)
            .with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
    });
    topic(name, -1, -1).with_assignments(assignments.collect())
}

fn configured(name: &str, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from((*name).to_owned()))
            .with_value(value.map(|value| value.to_owned().into()))
    });
    topic(name, 1, 1).with_configs(configs.collect())
}

fn create(client: &mut Client, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(10_000);
    client.call(7, &request).topics
}

/// Code and message of each result.
fn outcomes(results: &[CreatableTopicResult]) -> Vec<(&str, i16, &str)> {
    results
        .iter()
        .map(|result| {
            (
                &*result.name.0,
                result.error_code,
                result.error_message.as_deref().unwrap_or(""),
            )
        })
        .collect()
}

fn partition_count(client: &mut Client, name: &str) -> Option<usize> {
    let asked = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![asked]))
        .with_allow_auto_topic_creation(false);
    let topic = client.call(12, &request).topics.remove(0);
    (topic.error_code == 0).then_some(topic.partitions.len())
}

/// Clients take a topic that has a leader at its word: librdkafka's consumer gives up a partition of which it
/// is then told that it does not exist, and kafka-go's writer gives up the write.
#[test]
fn a_topic_that_is_shown_can_be_written_to() {
    let broker = TestBroker::start();
    let mut creator = broker.client();
    let mut client = broker.client();
    let creation = std::thread::spawn(move || creator.create_topic("t", 300));
    let asked = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![asked]))
        .with_allow_auto_topic_creation(false);
    while client.call(12, &request).topics[0].error_code != 0 {}
    let response = client.produce("t", 299, batch(&["at once"]));
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    creation.join().expect("the topic is created");
}

#[test]
fn a_topic_can_be_created_in_every_version_and_used_at_once() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    for version in 2..=7 {
        let name = format!("v{version}");
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic(&name, 2, 1)])
            .with_timeout_ms(10_000);
        let result = client.call(version, &request).topics.remove(0);
        assert_eq!(
            (result.error_code, result.error_message),
            (0, None),
            "v{version}"
        );
        if 5 <= version {
            assert_eq!((result.num_partitions, result.replication_factor), (2, 1));
            assert_eq!(
                result.configs.expect("configs").len(),
                37,
                "as many as a topic has"
            );
        }
        assert_eq!(result.topic_id.is_nil(), version < 7);
        let produced = client.produce(&name, 1, batch(&["now"]));
        assert_eq!(
            produced.responses[0].partition_responses[0].error_code, 0,
            "v{version}"
        );
    }
}

#[test]
fn what_is_left_open_is_the_brokers_default() {
    let broker = TestBroker::start_with(&[("num.partitions", "3")]);
    let mut client = broker.client();
    let results = create(&mut client, vec![topic("t", -1, -1)]);
    assert_eq!(
        (results[0].num_partitions, results[0].replication_factor),
        (3, 1)
    );
}

#[test]
fn one_refusal_does_not_fail_its_neighbours() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("there", 1);
    let results = create(
        &mut client,
        vec![
            topic("a", 1, 1),
            topic("none", 0, 1),
            topic("b", 1, 1),
            topic("there", 1, 1),
            topic("", 1, 1),
        ],
    );
    assert_eq!(
        outcomes(&results),
        [
            ("a", 0, ""),
            (
                "none",
                37,
                "Number of partitions was set to an invalid non-positive value."
            ),
            ("b", 0, ""),
            ("there", 36, "Topic 'there' already exists."),
            (
                "",
                17,
                "Topic name is invalid: the empty string is not allowed"
            ),
        ]
    );
    let refused = &results[1];
    assert_eq!(
        (refused.num_partitions, refused.replication_factor),
        (-1, -1)
    );
    assert!(refused.topic_id.is_nil());
}

#[test]
fn a_name_given_twice_is_refused_once_and_last() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let results = create(
        &mut client,
        vec![topic("t", 1, 1), topic("ok", 1, 1), topic("t", 2, 1)],
    );
    assert_eq!(
        outcomes(&results),
        [("ok", 0, ""), ("t", 42, "Duplicate topic name.")]
    );
    assert_eq!(partition_count(&mut client, "t"), None);
}

#[test]
fn names_that_cannot_be_are_refused() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let long = "x".repeat(250);
    for name in [".", "..", "a b", "a/b", "é", &long] {
        assert_eq!(
            create(&mut client, vec![topic(name, 1, 1)])[0].error_code,
            17,
            "{name}"
        );
    }
    let longest = "x".repeat(249);
    assert_eq!(
        create(&mut client, vec![topic(&longest, 1, 1)])[0].error_code,
        0
    );
    client.create_topic("a.b", 1);
    let results = create(
        &mut client,
        vec![topic("a_b", 1, 1), topic("__cluster_metadata", 1, 1)],
    );
    assert_eq!(
        outcomes(&results),
        [
            ("a_b", 17, "Topic 'a_b' collides with existing topic: a.b"),
            (
                "__cluster_metadata",
                42,
                "Creation of internal topic __cluster_metadata is prohibited."
            ),
        ]
    );
}

#[test]
fn counts_that_cannot_be_are_refused() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let mut refused = |partitions, factor| {
        create(&mut client, vec![topic("t", partitions, factor)])[0].error_code
    };
    assert_eq!(refused(-2, 1), ErrorCode::InvalidPartitions.code());
    assert_eq!(refused(1, 0), ErrorCode::InvalidReplicationFactor.code());
    assert_eq!(refused(1, -2), ErrorCode::InvalidReplicationFactor.code());
    assert_eq!(refused(1, 2), ErrorCode::InvalidReplicationFactor.code());
    assert_eq!(refused(10_001, 1), ErrorCode::PolicyViolation.code());
    assert_eq!(refused(i32::MAX, 1), ErrorCode::PolicyViolation.code());
    let both = create(&mut client, vec![topic("a", 6000, 1), topic("b", 6000, 1)]);
    let why = "Excessively large number of partitions per request.";
    assert_eq!(outcomes(&both), [("a", 44, why), ("b", 44, why)]);
}

#[test]
fn replicas_can_be_assigned_by_hand() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let results = create(&mut client, vec![assigned("t", &[(1, &[1]), (0, &[1])])]);
    assert_eq!((results[0].error_code, results[0].num_partitions), (0, 2));
    let mut refused = |topic: CreatableTopic| create(&mut client, vec![topic])[0].error_code;
    for wrong in [
        &[(0, &[2][..])][..],
        &[(0, &[1, 1])],
        &[(0, &[])],
        &[(1, &[1])],
        &[(0, &[1]), (2, &[1])],
        &[(0, &[1]), (0, &[1])],
        &[(0, &[-1])],
    ] {
        assert_eq!(refused(assigned("u", wrong)), 39, "{wrong:?}");
    }
    assert_eq!(
        refused(assigned("u", &[(0, &[1])]).with_num_partitions(1)),
        42
    );
    assert_eq!(
        refused(assigned("u", &[(0, &[1])]).with_replication_factor(1)),
        42
    );
}

#[test]
fn configs_are_checked_before_the_topic_is_made() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    for (name, value, why) in [
        ("nope", Some("1"), "Unknown topic config name: nope"),
        (
            "retention.ms",
            Some("abc"),
            "Invalid value abc for configuration retention.ms: Not a number of type LONG",
        ),
        (
            "retention.ms",
            None,
            "Null value not supported for topic configs: retention.ms",
        ),
        (
            "cleanup.policy",
            Some("x"),
            "Invalid value x for configuration cleanup.policy: String must be one of: compact, delete",
        ),
        (
            "segment.bytes",
            Some("10"),
            "Invalid value 10 for configuration segment.bytes: Value must be at least 1048576",
        ),
    ] {
        let results = create(&mut client, vec![configured("t", &[(name, value)])]);
        assert_eq!(outcomes(&results), [("t", 40, why)]);
    }
    assert_eq!(partition_count(&mut client, "t"), None);
    let results = create(
        &mut client,
        vec![configured(
            "t",
            &[("cleanup.policy", Some("compact, delete"))],
        )],
    );
    let configs = results[0].configs.as_ref().expect("configs");
    let policy = configs
        .iter()
        .find(|config| &*config.name == "cleanup.policy")
        .expect("a policy");
    assert_eq!(
        (policy.value.as_deref(), policy.config_source),
        (Some("compact,delete"), 1)
    );
}

#[test]
fn validating_only_creates_nothing() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic("t", 3, 1), topic("bad", 0, 1)])
        .with_timeout_ms(10_000)
        .with_validate_only(true);
    let results = client.call(7, &request).topics;
    assert_eq!((results[0].error_code, results[0].num_partitions), (0, 3));
    assert_eq!(results[1].error_code, 37);
    assert_eq!(partition_count(&mut client, "t"), None);
}

#[test]
fn no_time_means_not_done() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic("t", 1, 1)])
        .with_timeout_ms(0);
    assert_eq!(client.call(7, &request).topics[0].error_code, 7);
    assert_eq!(partition_count(&mut client, "t"), None);
}

#[test]
fn a_topic_is_deleted_by_name_or_by_id() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    for version in 1..=5 {
        client.create_topic("t", 1);
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name("t"), topic_name("nope")])
            .with_timeout_ms(10_000);
        let mut results = client.call(version, &request).responses;
        results.sort_by(|a, b| b.name.cmp(&a.name));
        let codes: Vec<i16> = results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [0, 3], "v{version}");
        assert_eq!(partition_count(&mut client, "t"), None, "v{version}");
    }
    let id = create(&mut client, vec![topic("t", 1, 1)])[0].topic_id;
    let by_id = DeleteTopicState::default()
        .with_name(None)
        .with_topic_id(id);
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![by_id])
        .with_timeout_ms(10_000);
    let deleted = client.call(6, &request).responses.remove(0);
    assert_eq!(
        (deleted.error_code, deleted.name),
        (0, Some(topic_name("t")))
    );
    assert_eq!(
        client.call(6, &request).responses[0].error_code,
        ErrorCode::UnknownTopicId.code()
    );
}

#[test]
fn a_topic_that_was_deleted_comes_back_empty() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.produce("t", 0, batch(&["old"]));
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name("t")])
        .with_timeout_ms(10_000);
    assert_eq!(client.call(5, &request).responses[0].error_code, 0);
    client.create_topic("t", 1);
    let produced = client.produce("t", 0, batch(&["new"]));
    assert_eq!(produced.responses[0].partition_responses[0].base_offset, 0);
}

#[test]
fn a_topic_named_twice_stays() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let id = create(&mut client, vec![topic("t", 1, 1)])[0].topic_id;
    let named = |name: Option<&str>, id| {
        DeleteTopicState::default()
            .with_name(name.map(topic_name))
            .with_topic_id(id)
    };
    let (by_name, by_id) = (named(Some("t"), Uuid::nil()), named(None, id));
    for (asked, why) in [
        (
            vec![by_name.clone(), by_name.clone()],
            "Duplicate topic name.",
        ),
        (vec![by_id.clone(), by_id.clone()], "Duplicate topic id."),
        (
            vec![by_name, by_id],
            "The provided topic name maps to an ID that was already supplied.",
        ),
        (
            vec![named(Some("t"), id)],
            "You may not specify both topic name and topic id.",
        ),
        (
            vec![named(None, Uuid::nil())],
            "Neither topic name nor id were specified.",
        ),
    ] {
        let request = DeleteTopicsRequest::default()
            .with_topics(asked)
            .with_timeout_ms(10_000);
        let results = client.call(6, &request).responses;
        let told: Vec<_> = results
            .iter()
            .map(|result| (result.error_code, result.error_message.as_deref()))
            .collect();
        assert_eq!(told, [(42, Some(why))]);
    }
    assert_eq!(partition_count(&mut client, "t"), Some(1));
}

#[test]
fn deletion_can_be_forbidden() {
    let broker = TestBroker::start_with(&[("delete.topic.enable", "false")]);
    let mut client = broker.client();
    client.create_topic("t", 1);
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name("t")])
        .with_timeout_ms(10_000);
    assert_eq!(client.call(1, &request).responses[0].error_code, 42);
    assert_eq!(client.call(5, &request).responses[0].error_code, 73);
    assert_eq!(partition_count(&mut client, "t"), Some(1));
}

/// A topic, the number of partitions it shall have, and who shall have the new ones.
type Growth<'a> = (&'a str, i32, Option<&'a [&'a [i32]]>);

#[test]
fn partitions_are_added_and_never_taken_away() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 2);
    let mut grow = |version, topics: Vec<Growth<'_>>| {
        let topics = topics.into_iter().map(|(name, count, assignments)| {
            let assignment = |brokers: &&[i32]| {
                let brokers = brokers.iter().copied().map(BrokerId).collect();
                CreatePartitionsAssignment::default().with_broker_ids(brokers)
            };
            CreatePartitionsTopic::default()
                .with_name(topic_name(name))
                .with_count(count)
                .with_assignments(assignments.map(|all| all.iter().map(assignment).collect()))
        });
        let request = CreatePartitionsRequest::default()
            .with_topics(topics.collect())
            .with_timeout_ms(10_000);
        let results = client.call(version, &request).results;
        let told = results.into_iter().map(|result| {
            (
                result.error_code,
                result.error_message.as_deref().unwrap_or("").to_owned(),
            )
        });
        told.collect::<Vec<_>>()
    };
    for version in 0..=3 {
        assert_eq!(
            grow(version, vec![("t", 3 + i32::from(version), None)]),
            [(0, String::new())]
        );
    }
    let told = |code, why: &str| [(code, why.to_owned())];
    assert_eq!(
        grow(3, vec![("t", 6, None)]),
        told(37, "Topic already has 6 partition(s).")
    );
    assert_eq!(
        grow(3, vec![("t", 5, None)]),
        told(
            37,
            "The topic t currently has 6 partition(s); 5 would not be an increase."
        )
    );
    assert_eq!(grow(3, vec![("nope", 5, None)]), told(3, ""));
    assert_eq!(
        grow(3, vec![("t", 7, None), ("t", 8, None)]),
        told(42, "Duplicate topic name.")
    );
    assert_eq!(grow(3, vec![("t", 7, Some(&[]))])[0].0, 39);
    assert_eq!(grow(3, vec![("t", 7, Some(&[&[2]]))])[0].0, 39);
    assert_eq!(grow(3, vec![("t", 20_000, None)])[0].0, 44);
    assert_eq!(grow(3, vec![("t", 7, Some(&[&[1]]))]), [(0, String::new())]);
    let produced = client.produce("t", 6, batch(&["the seventh"]));
    assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
}

#[test]
fn the_start_of_a_partition_moves_and_does_not_move_back() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 2);
    client.create_topic_with("compacted", 1, &[("cleanup.policy", "compact")]);
    client.produce("t", 0, batch(&["0", "1", "2", "3", "4"]));
    let mut cut = |version, topic: &str, index, offset| {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(index)
            .with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let result = client
            .call(version, &request)
            .topics
            .remove(0)
            .partitions
            .remove(0);
        (result.error_code, result.low_watermark)
    };
    assert_eq!(cut(0, "t", 0, 1), (0, 1));
    assert_eq!(cut(1, "t", 0, 3), (0, 3));
    assert_eq!(cut(2, "t", 0, 2), (0, 3), "below the start");
    assert_eq!(cut(2, "t", 0, 6), (1, -1), "above the end");
    assert_eq!(cut(2, "t", 0, -2), (1, -1));
    assert_eq!(cut(2, "t", 0, -1), (0, 5), "everything");
    assert_eq!(cut(2, "t", 1, 0), (0, 0), "an empty partition");
    assert_eq!(cut(2, "t", 9, 0), (3, -1));
    assert_eq!(cut(2, "nope", 0, 0), (3, -1));
    assert_eq!(cut(2, "compacted", 0, 0), (44, -1));
    let fetched = client.fetch("t", 0, 4);
    assert_eq!(
        fetched.responses[0].partitions[0].error_code, 1,
        "what was cut is gone"
    );
}

#[test]
fn topics_are_described_a_page_at_a_time() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    for name in ["b", "a"] {
        client.create_topic(name, 3);
    }
    let mut page = |names: &[&str], limit, cursor: Option<(&str, i32)>| {
        let cursor = cursor.map(|(topic, index)| {
            Cursor::default()
                .with_topic_name(topic_name(topic))
                .with_partition_index(index)
        });
        let topics = names
            .iter()
            .map(|name| TopicRequest::default().with_name(topic_name(name)));
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(topics.collect())
            .with_response_partition_limit(limit)
            .with_cursor(cursor);
        let response = client.call(0, &request);
        let topics: Vec<_> = response
            .topics
            .into_iter()
            .map(|topic| {
                let name = topic.name.map(|name| name.to_string()).unwrap_or_default();
                let indexes: Vec<i32> = topic
                    .partitions
                    .iter()
                    .map(|partition| partition.partition_index)
                    .collect();
                (name, topic.error_code, indexes)
            })
            .collect();
        let next = response
            .next_cursor
            .map(|next| (next.topic_name.to_string(), next.partition_index));
        (topics, next)
    };
    let whole = |name: &str| (name.to_owned(), 0, vec![0, 1, 2]);
    let next = |name: &str, index| Some((name.to_owned(), index));
    let unknown = ("nope".to_owned(), 3, vec![]);
    assert_eq!(
        page(&["b", "nope", "a", "b"], 2000, None),
        (vec![whole("a"), whole("b"), unknown], None)
    );
    assert_eq!(page(&[], 2000, None), (vec![whole("a"), whole("b")], None));
    assert_eq!(
        page(&["a", "b"], 4, None),
        (vec![whole("a"), ("b".to_owned(), 0, vec![0])], next("b", 1))
    );
    assert_eq!(
        page(&["a", "b"], 4, Some(("b", 1))),
        (vec![("b".to_owned(), 0, vec![1, 2])], None)
    );
    assert_eq!(page(&["a", "b"], 3, None), (vec![whole("a")], next("b", 0)));
    assert_eq!(
        page(&["a", "b"], 0, None),
        (vec![("a".to_owned(), 0, vec![0])], next("a", 1))
    );
    assert_eq!(
        page(&[], 2, Some(("a", 2))),
        (
            vec![("a".to_owned(), 0, vec![2]), ("b".to_owned(), 0, vec![0])],
            next("b", 1)
        )
    );
    for cursor in [("a", -1), ("zzz", 0)] {
        let (topics, next) = page(&["a", "b"], 9, Some(cursor));
        assert!(topics.iter().all(|topic| topic.1 == 42), "{topics:?}");
        assert_eq!((topics.len(), next), (2, None));
    }
}

/// Apache Kafka 4.4.0 calls the coordinators' topics internal before they are there, and makes them for Metadata as
/// little as any other if topics are not to be made by asking.
#[test]
fn what_is_not_to_be_created_by_asking_is_not() {
    const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    let asked = |client: &mut Client, name: &str, may_create: bool| {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(may_create);
        let answer = client.call(9, &request).topics.remove(0);
        (answer.error_code, answer.is_internal)
    };
    let broker = TestBroker::start_with(&[("auto.create.topics.enable", "false")]);
    let client = &mut broker.client();
    for (name, is_internal) in [
        ("__consumer_offsets", true),
        ("__transaction_state", true),
        ("t", false),
    ] {
        let expected = (UNKNOWN_TOPIC_OR_PARTITION, is_internal);
        assert_eq!(asked(client, name, true), expected, "{name}");
    }
    // What is created one after the other is there when the last one is.
    client.create_topic("last", 1);
    let all = client.call(9, &MetadataRequest::default().with_topics(None));
    assert_eq!(all.topics.len(), 1, "{all:?}");
    // Whoever needs a coordinator gets its topic.
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec!["g".into()]);
    client.call(4, &request);
    client.create_topic("last-but-one", 1);
    let expected = (0, true);
    assert_eq!(asked(client, "__consumer_offsets", true), expected);

    let broker = TestBroker::start();
    let client = &mut broker.client();
    asked(client, "__consumer_offsets", false);
    asked(client, "t", false);
    client.create_topic("last", 1);
    let all = client.call(9, &MetadataRequest::default().with_topics(None));
    assert_eq!(all.topics.len(), 1, "{all:?}");
    asked(client, "t", true);
    client.create_topic("last-but-one", 1);
    assert_eq!(asked(client, "t", true), (0, false));
}
