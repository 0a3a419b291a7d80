//! Configs over the wire: describing, altering and listing them, and that a change takes effect. What is
//! asserted here was answered by Apache Kafka 4.4.0 too, unless a comment says otherwise.

mod common;

use common::{Client, TestBroker, batch};
use kafka_protocol::{
    messages::{
        AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
        ListConfigResourcesRequest, alter_configs_request, describe_configs_request,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
        incremental_alter_configs_request,
    },
    protocol::StrBytes,
};
use protocol::{
    batch::{Batch, Builder},
    records::metadata::{ConfigRecord, MetadataRecord},
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn text(text: &str) -> StrBytes {
    text.to_owned().into()
}

fn describe(
    client: &mut Client,
    version: i16,
    kind: i8,
    name: &str,
    keys: &[&str],
) -> DescribeConfigsResult {
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(Some(keys.iter().map(|key| text(key)).collect()));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    client.call(version, &request).results.remove(0)
}

/// `value @source`, then what else it could have been.
fn told(config: &DescribeConfigsResourceResult) -> String {
    let mut told = format!(
        "{} @{}",
        config.value.as_deref().unwrap_or("null"),
        config.config_source
    );
    for synonym in &config.synonyms {
        let value = synonym.value.as_deref().unwrap_or("null");
        told += &format!(", {}={value} @{}", &*synonym.name, synonym.source);
    }
    told
}

fn value(client: &mut Client, kind: i8, name: &str, key: &str) -> String {
    told(&describe(client, 4, kind, name, &[key]).configs[0])
}

type Operations<'a> = &'a [(&'a str, i8, Option<&'a str>)];

fn alter(client: &mut Client, changes: &[(i8, &str, Operations<'_>)]) -> Vec<(i16, String)> {
    alter_as(client, 1, changes, false)
}

fn alter_as(
    client: &mut Client,
    version: i16,
    changes: &[(i8, &str, Operations<'_>)],
    validate_only: bool,
) -> Vec<(i16, String)> {
    use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let resources = changes.iter().map(|(kind, name, operations)| {
        let configs = operations.iter().map(|(key, operation, value)| {
            AlterableConfig::default()
                .with_name(text(key))
                .with_config_operation(*operation)
                .with_value(value.map(text))
        });
        AlterConfigsResource::default()
            .with_resource_type(*kind)
            .with_resource_name(text(name))
            .with_configs(configs.collect())
    });
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(resources.collect())
        .with_validate_only(validate_only);
    let responses = client.call(version, &request).responses;
    let told = responses.into_iter().map(|response| {
        (
            response.error_code,
            response.error_message.as_deref().unwrap_or("").to_owned(),
        )
    });
    told.collect()
}

/// The one outcome of altering one resource.
fn altered(client: &mut Client, kind: i8, name: &str, operations: Operations<'_>) -> (i16, String) {
    alter(client, &[(kind, name, operations)]).remove(0)
}

fn replaced(
    client: &mut Client,
    kind: i8,
    name: &str,
    configs: &[(&str, Option<&str>)],
) -> (i16, String) {
    use alter_configs_request::{AlterConfigsResource, AlterableConfig};
    let configs = configs.iter().map(|(key, value)| {
        AlterableConfig::default()
            .with_name(text(key))
            .with_value(value.map(text))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let response = client.call(2, &request).responses.remove(0);
    (
        response.error_code,
        response.error_message.as_deref().unwrap_or("").to_owned(),
    )
}

fn refused(code: i16, why: &str) -> (i16, String) {
    (code, why.to_owned())
}

const DONE: (i16, String) = (0, String::new());

#[test]
fn every_resource_describes_all_it_has_in_every_version() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    for version in 1..=4 {
        for (kind, name, count) in [
            (TOPIC, "t", 37),
            (GROUP, "g", 21),
            (CLIENT_METRICS, "cm", 3),
            (BROKER_LOGGER, "1", 1),
        ] {
            let result = describe(&mut client, version, kind, name, &[]);
            assert_eq!(
                (result.error_code, result.error_message.as_deref()),
                (0, Some(""))
            );
            assert_eq!(result.configs.len(), count, "v{version} {kind}");
        }
        let broker = describe(&mut client, version, BROKER, "1", &[]);
        assert!(
            300 < broker.configs.len(),
            "{} configs of a broker",
            broker.configs.len()
        );
    }
}

#[test]
fn keys_that_are_not_there_are_not_mentioned() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let result = describe(
        &mut client,
        4,
        TOPIC,
        "t",
        &["nope", "retention.ms", "retention.ms"],
    );
    let names: Vec<_> = result.configs.iter().map(|config| &*config.name).collect();
    assert_eq!(names, ["retention.ms"]);
    assert_eq!(
        (result.configs[0].config_type, result.configs[0].read_only),
        (5, false)
    );
}

/// Apache Kafka has this one for tests, and clients' tests use it: segments of 1 MiB are too large for them.
#[test]
fn segments_can_be_smaller_than_allowed_and_only_who_says_so_is_shown_it() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("plain", 1);
    client.create_topic_with("small", 1, &[("internal.segment.bytes", "100")]);
    client.create_topic_with("none", 1, &[("internal.segment.bytes", "-5")]);
    let mut shown = |topic| {
        let result = describe(&mut client, 4, TOPIC, topic, &["internal.segment.bytes"]);
        result.configs.iter().map(told).collect::<Vec<_>>()
    };
    assert!(shown("plain").is_empty());
    assert_eq!(
        shown("small"),
        ["100 @1, internal.segment.bytes=100 @1".to_owned()]
    );

    let mut produce = |topic| {
        let response = client.produce(topic, 0, batch(&["a value"]));
        response.responses[0].partition_responses[0].error_code
    };
    assert_eq!([produce("small"), produce("small")], [0, 0]);
    let partition = broker.dir.path().join("data/small-0");
    assert!(partition.join("00000000000000000001.log").exists());
    assert_eq!(produce("none"), 18, "RECORD_LIST_TOO_LARGE");
}

#[test]
fn what_cannot_be_described_is_refused_in_kafkas_words() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let malformed = "This most likely occurs because of a request being malformed by the client \
                     library or the message was sent to an incompatible broker. \
                     See the broker logs for more details.";
    for (kind, name, code, why) in [
        (TOPIC, "nope", 3, ""),
        (
            TOPIC,
            "",
            17,
            "Topic name is invalid: the empty string is not allowed",
        ),
        (
            BROKER,
            "2",
            42,
            "Unexpected broker id, expected 1 or empty string, but received 2",
        ),
        (
            BROKER,
            "x",
            42,
            "Broker id must be an integer, but it is: x",
        ),
        (
            BROKER_LOGGER,
            "2",
            42,
            "Unexpected broker id, expected 1 but received 2",
        ),
        (BROKER_LOGGER, "", 42, "Broker id must not be empty"),
        (GROUP, "", 42, "Group name must not be empty"),
        (
            CLIENT_METRICS,
            "",
            42,
            "Client metrics subscription name must not be empty",
        ),
        (3, "x", 42, malformed),
    ] {
        let result = describe(&mut client, 4, kind, name, &[]);
        assert_eq!(
            (result.error_code, result.error_message.as_deref()),
            (code, Some(why)),
            "{kind} {name:?}"
        );
        assert!(result.configs.is_empty());
    }
}

#[test]
fn a_topics_config_can_be_set_extended_shortened_and_unset() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let default = "604800000 @5";
    assert_eq!(value(&mut client, TOPIC, "t", "retention.ms"), default);
    for version in 0..=1 {
        let set: Operations<'_> = &[("retention.ms", SET, Some("9000"))];
        assert_eq!(
            alter_as(&mut client, version, &[(TOPIC, "t", set)], false),
            [DONE]
        );
        assert_eq!(
            value(&mut client, TOPIC, "t", "retention.ms"),
            "9000 @1, retention.ms=9000 @1"
        );
        assert_eq!(
            altered(&mut client, TOPIC, "t", &[("retention.ms", DELETE, None)]),
            DONE
        );
        assert_eq!(value(&mut client, TOPIC, "t", "retention.ms"), default);
    }
    let policy = |client: &mut Client| value(client, TOPIC, "t", "cleanup.policy");
    let inherited = "log.cleanup.policy=delete @5";
    assert_eq!(
        altered(
            &mut client,
            TOPIC,
            "t",
            &[("cleanup.policy", APPEND, Some("compact"))]
        ),
        DONE
    );
    assert_eq!(
        policy(&mut client),
        format!("delete,compact @1, cleanup.policy=delete,compact @1, {inherited}")
    );
    assert_eq!(
        altered(
            &mut client,
            TOPIC,
            "t",
            &[("cleanup.policy", SUBTRACT, Some("delete"))]
        ),
        DONE
    );
    assert_eq!(
        policy(&mut client),
        format!("compact @1, cleanup.policy=compact @1, {inherited}")
    );
}

#[test]
fn a_resource_is_altered_as_a_whole_or_not_at_all() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let bad = "Invalid value abc for configuration retention.ms: Not a number of type LONG";
    let operations: Operations<'_> = &[
        ("retention.ms", SET, Some("abc")),
        ("max.message.bytes", SET, Some("5")),
    ];
    assert_eq!(
        altered(&mut client, TOPIC, "t", operations),
        refused(40, bad)
    );
    assert_eq!(
        value(&mut client, TOPIC, "t", "max.message.bytes"),
        "1048588 @5, message.max.bytes=1048588 @5"
    );
    let good: Operations<'_> = &[("retention.ms", SET, Some("77"))];
    assert_eq!(
        alter(&mut client, &[(TOPIC, "nope", good), (TOPIC, "t", good)]),
        [refused(3, "The topic 'nope' does not exist."), DONE]
    );
    assert_eq!(
        alter_as(
            &mut client,
            1,
            &[(TOPIC, "t", &[("retention.ms", SET, Some("5"))])],
            true
        ),
        [DONE]
    );
    assert_eq!(
        value(&mut client, TOPIC, "t", "retention.ms"),
        "77 @1, retention.ms=77 @1"
    );
}

#[test]
fn changes_that_make_no_sense_are_refused_in_kafkas_words() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let five = Some("5");
    for (kind, name, operations, code, why) in [
        (
            TOPIC,
            "t",
            &[("retention.ms", SET, None)][..],
            42,
            "Null value not supported for : retention.ms",
        ),
        (
            TOPIC,
            "t",
            &[("retention.ms", SET, five), ("retention.ms", SET, five)],
            42,
            "Error due to duplicate config keys",
        ),
        (
            TOPIC,
            "t",
            &[("nope", SET, five)],
            40,
            "Unknown topic config name: nope",
        ),
        (
            TOPIC,
            "t",
            &[("retention.ms", APPEND, five)],
            40,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            TOPIC,
            "",
            &[("retention.ms", SET, five)],
            42,
            "Default topic resources are not allowed.",
        ),
        (
            GROUP,
            "",
            &[],
            42,
            "Default group resources are not allowed.",
        ),
        (
            BROKER,
            "2",
            &[("num.io.threads", SET, five)],
            42,
            "Unexpected broker id, expected 1, but received 2",
        ),
        (
            BROKER,
            "x",
            &[("num.io.threads", SET, five)],
            42,
            "Node id must be an integer, but it is: x",
        ),
        (
            BROKER,
            "1",
            &[("node.id", SET, five)],
            42,
            "Cannot update these configs dynamically: [node.id]",
        ),
        (
            BROKER_LOGGER,
            "1",
            &[("kafka", SET, five)],
            40,
            "Logger kafka does not exist!",
        ),
        (3, "x", &[("a", SET, five)], 42, "Unknown resource type 3"),
    ] {
        assert_eq!(
            altered(&mut client, kind, name, operations),
            refused(code, why),
            "{kind} {name:?}"
        );
    }
    // Kafka answers UNKNOWN_SERVER_ERROR to an operation it does not know.
    assert_eq!(
        altered(&mut client, TOPIC, "t", &[("retention.ms", 7, five)]).0,
        42
    );

    let twice: Operations<'_> = &[("retention.ms", SET, five)];
    let why = "Each resource must appear at most once.";
    assert_eq!(
        alter(&mut client, &[(TOPIC, "t", twice), (TOPIC, "t", twice)]),
        [refused(42, why), refused(42, why)]
    );
}

#[test]
fn the_older_way_to_alter_replaces_everything() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic_with(
        "t",
        1,
        &[("cleanup.policy", "compact"), ("retention.ms", "5000")],
    );
    assert_eq!(
        replaced(&mut client, TOPIC, "t", &[("retention.ms", Some("6000"))]),
        DONE
    );
    assert_eq!(
        value(&mut client, TOPIC, "t", "retention.ms"),
        "6000 @1, retention.ms=6000 @1"
    );
    assert_eq!(
        value(&mut client, TOPIC, "t", "cleanup.policy"),
        "delete @5, log.cleanup.policy=delete @5"
    );
    assert_eq!(
        replaced(&mut client, TOPIC, "t", &[("retention.ms", None)]),
        refused(42, "Null value not supported for : retention.ms")
    );
    assert_eq!(
        replaced(&mut client, BROKER_LOGGER, "1", &[]),
        refused(42, "Unknown resource type 8")
    );
    assert_eq!(replaced(&mut client, TOPIC, "t", &[]), DONE);
    assert_eq!(
        value(&mut client, TOPIC, "t", "retention.ms"),
        "604800000 @5"
    );
}

#[test]
fn a_brokers_dynamic_config_is_nearer_than_that_of_all_brokers() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let key = "log.retention.ms";
    assert_eq!(
        altered(&mut client, BROKER, "", &[(key, SET, Some("654321"))]),
        DONE
    );
    let of_all = "log.retention.ms=654321 @3, log.retention.hours=168 @5";
    assert_eq!(
        value(&mut client, BROKER, "1", key),
        format!("654321 @3, {of_all}")
    );
    assert_eq!(
        value(&mut client, BROKER, "", key),
        "654321 @3, log.retention.ms=654321 @3"
    );
    assert_eq!(
        altered(&mut client, BROKER, "1", &[(key, SET, Some("123456"))]),
        DONE
    );
    let own = format!("123456 @2, log.retention.ms=123456 @2, {of_all}");
    assert_eq!(value(&mut client, BROKER, "1", key), own);
    assert_eq!(
        value(&mut client, TOPIC, "t", "retention.ms"),
        own,
        "the topic has none of its own"
    );
    assert_eq!(
        altered(&mut client, BROKER, "1", &[(key, DELETE, None)]),
        DONE
    );
    assert_eq!(
        altered(&mut client, BROKER, "", &[(key, DELETE, None)]),
        DONE
    );
    assert_eq!(value(&mut client, BROKER, "1", key), "null @5");
}

#[test]
fn thread_pools_change_by_a_factor_of_two_at_most_and_connections_are_not_locked_out() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let mut set =
        |key: &str, value: &str| altered(&mut client, BROKER, "1", &[(key, SET, Some(value))]);
    let threads = |change: &str, why: &str| {
        let why = format!("Dynamic thread count update validation failed for {change}, {why}");
        refused(42, &in_the_end(&why))
    };
    assert_eq!(
        set("num.io.threads", "3"),
        threads(
            "num.io.threads=3",
            "value should be at least half the current value 8"
        )
    );
    assert_eq!(
        set("num.io.threads", "17"),
        threads(
            "num.io.threads=17",
            "value should not be greater than double the current value 8"
        )
    );
    assert_eq!(set("num.io.threads", "16"), DONE);
    // What counts is what it is now.
    assert_eq!(set("num.io.threads", "32"), DONE);
    for key in ["max.connections", "max.connection.creation.rate"] {
        assert_eq!(
            set(key, "0"),
            refused(42, &in_the_end(&format!("Invalid {key} 0")))
        );
    }
}

/// Apache Kafka opens and closes listeners then. Here nothing would happen, and it would be described as if it had.
#[test]
fn what_is_bound_at_the_start_is_not_changed_afterwards() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    for key in ["listeners", "listener.security.protocol.map"] {
        let before = value(&mut client, BROKER, "1", key);
        let why = "cannot be changed while the broker runs: set it where the broker is started, and start it again";
        assert_eq!(
            altered(
                &mut client,
                BROKER,
                "1",
                &[(key, SET, Some("PLAINTEXT://127.0.0.1:1"))]
            ),
            refused(42, &format!("{key} {why}"))
        );
        assert_eq!(value(&mut client, BROKER, "1", key), before);
    }
}

/// A value that Kafka took before 4.0 is one that it and we refuse now. It took everything else with it: a retention
/// that was lifted came back, and records were deleted.
#[test]
fn a_stored_value_that_cannot_be_read_counts_as_none_and_the_others_hold() {
    let mut broker = TestBroker::start();
    broker.client().create_topic("t", 1);
    broker.stop();
    let stored = |resource: &str, name: &str, value: &str| {
        MetadataRecord::Config(ConfigRecord {
            resource_type: BROKER,
            resource_name: resource.to_owned(),
            name: name.to_owned(),
            value: Some(value.to_owned()),
        })
    };
    write_as_kafka(
        &broker,
        &[
            stored("", "log.retention.ms", "-1"),
            stored("", "log.segment.bytes", "524288"),
            stored("1", "message.max.bytes", "2000"),
            stored("1", "listeners", "SSL://:9093"),
        ],
    );

    let broker = broker.restart(&[]);
    let mut client = broker.client();
    let mut topic = |key| value(&mut client, TOPIC, "t", key);
    assert_eq!(
        topic("retention.ms"),
        "-1 @3, log.retention.ms=-1 @3, log.retention.hours=168 @5"
    );
    assert_eq!(
        topic("segment.bytes"),
        "1073741824 @5, log.segment.bytes=1073741824 @5"
    );
    assert_eq!(
        topic("max.message.bytes"),
        "2000 @2, message.max.bytes=2000 @2, message.max.bytes=1048588 @5"
    );
    // Nor do they keep others from being changed, and a good value in their place is followed.
    for (name, key, good) in [
        ("1", "message.max.bytes", "3000"),
        ("", "log.segment.bytes", "2097152"),
    ] {
        assert_eq!(
            altered(&mut client, BROKER, name, &[(key, SET, Some(good))]),
            DONE
        );
    }
    assert_eq!(
        value(&mut client, TOPIC, "t", "segment.bytes"),
        "2097152 @3, log.segment.bytes=2097152 @3, log.segment.bytes=1073741824 @5"
    );
}

/// Appends to a stopped broker's metadata log what Apache Kafka wrote when it ran there in between, as the leader of
/// the next epoch.
fn write_as_kafka(broker: &TestBroker, records: &[MetadataRecord]) {
    let log = "data/__cluster_metadata-0/00000000000000000000.log";
    let path = broker.dir.path().join(log);
    let mut log = std::fs::read(&path).expect("a metadata log");
    let batches = Batch::split(log.clone().into()).expect("whole batches");
    let last = batches.last().expect("a batch").header();
    let mut batch = Builder::new()
        .base_offset(last.next_offset())
        .leader_epoch(last.leader_epoch + 1);
    for record in records {
        batch.push(last.max_timestamp, None, Some(&record.encode()), &[]);
    }
    log.extend_from_slice(batch.build().expect("a batch").bytes());
    std::fs::write(&path, log).expect("a metadata log");
}

/// As Kafka words a refusal that only shows when the change is made.
fn in_the_end(why: &str) -> String {
    format!(
        "Invalid value org.apache.kafka.common.config.ConfigException: {why} \
         for configuration Invalid dynamic configuration"
    )
}

#[test]
fn groups_and_client_metrics_can_be_configured() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let key = "consumer.session.timeout.ms";
    assert_eq!(
        altered(&mut client, GROUP, "g", &[(key, SET, Some("50000"))]),
        DONE
    );
    assert_eq!(
        value(&mut client, GROUP, "g", key),
        format!("50000 @8, {key}=50000 @8, group.{key}=45000 @5")
    );
    assert_eq!(
        altered(&mut client, GROUP, "g", &[("nope", SET, Some("1"))]),
        refused(40, "Unknown group config name: nope")
    );
    assert_eq!(
        altered(
            &mut client,
            CLIENT_METRICS,
            "cm",
            &[("interval.ms", SET, Some("100"))]
        ),
        DONE
    );
    assert_eq!(
        value(&mut client, CLIENT_METRICS, "cm", "interval.ms"),
        "100 @7, interval.ms=100 @7"
    );
}

#[test]
fn resources_with_configs_are_listed() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    altered(
        &mut client,
        GROUP,
        "g",
        &[("consumer.session.timeout.ms", SET, Some("50000"))],
    );
    altered(
        &mut client,
        CLIENT_METRICS,
        "cm",
        &[("interval.ms", SET, Some("100"))],
    );
    let mut list = |version, kinds: &[i8]| {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec());
        let response = client.call(version, &request);
        let resources = response.config_resources.into_iter();
        let resources: Vec<_> = resources
            .map(|resource| format!("{} {}", resource.resource_type, &*resource.resource_name))
            .collect();
        (response.error_code, resources.join(", "))
    };
    // Version 0 knows client metrics only, and says so by not saying it.
    assert_eq!(list(0, &[]).1, "16 cm");
    assert_eq!(list(1, &[]), refused(0, "32 g, 16 cm, 8 1, 4 1, 2 t"));
    assert_eq!(list(1, &[TOPIC, GROUP]), refused(0, "32 g, 2 t"));
    assert_eq!(list(1, &[BROKER, 99]), refused(35, ""));
}

#[test]
fn a_changed_config_takes_effect_and_survives() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let produce = |client: &mut Client| {
        let response = client.produce("t", 0, batch(&["a value of more than a few bytes"]));
        response.responses[0].partition_responses[0].error_code
    };
    assert_eq!(produce(&mut client), 0);
    assert_eq!(
        altered(
            &mut client,
            TOPIC,
            "t",
            &[("max.message.bytes", SET, Some("80"))]
        ),
        DONE
    );
    assert_eq!(produce(&mut client), 10, "MESSAGE_TOO_LARGE");

    let broker = broker.restart(&[]);
    let mut client = broker.client();
    assert_eq!(produce(&mut client), 10, "still");
    assert_eq!(
        altered(
            &mut client,
            TOPIC,
            "t",
            &[("max.message.bytes", DELETE, None)]
        ),
        DONE
    );
    assert_eq!(produce(&mut client), 0);
    // What the broker allows is what a topic allows that says nothing itself.
    assert_eq!(
        altered(
            &mut client,
            BROKER,
            "",
            &[("message.max.bytes", SET, Some("80"))]
        ),
        DONE
    );
    assert_eq!(produce(&mut client), 10);
}
