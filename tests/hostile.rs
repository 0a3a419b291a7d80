//! Bad input: the connection that sent it is closed, and nothing else notices.

mod common;

use std::{
    io::ErrorKind,
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use common::{
    Client, TestBroker, batch, fetch_request, produce_request,
    requests::{self, Random, Schema},
    topic_name,
};
use kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, ApiVersionsRequest, ApiVersionsResponse,
    ConsumerGroupDescribeRequest, DescribeConfigsRequest, DescribeConfigsResponse,
    DescribeGroupsRequest, DescribeProducersRequest, DescribeTransactionsRequest, FetchRequest,
    FindCoordinatorRequest, GroupId, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, OffsetFetchRequest, ProduceRequest, TransactionalId,
    alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
    alter_replica_log_dirs_response::AlterReplicaLogDirTopicResult,
    describe_configs_request::DescribeConfigsResource,
    describe_producers_request::TopicRequest,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
};
use kafka_protocol::protocol::Encodable;
use protocol::error::ErrorCode;

const PATIENCE: Duration = Duration::from_secs(60);

fn assert_serves(broker: &TestBroker) {
    let answer: ApiVersionsResponse = broker.client().call(0, &ApiVersionsRequest::default());
    assert_eq!(answer.error_code, 0);
    assert!(answer.api_keys.len() > 10);
}

/// Sends bytes and demands that the broker closes this connection and serves others.
fn check(broker: &TestBroker, what: &str, bytes: &[u8]) {
    let mut client = broker.client();
    client.send_raw(bytes).expect("the broker reads");
    assert!(client.is_closed(), "{what}");
    assert_serves(broker);
}

fn frame(body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).expect("small");
    [&size.to_be_bytes(), body].concat()
}

/// A request header of the old form, without a client id.
fn header(key: i16, version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(key.to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend(1i32.to_be_bytes());
    bytes.extend((-1i16).to_be_bytes());
    bytes
}

#[test]
fn what_is_not_a_request_closes_its_connection() {
    let broker = TestBroker::start();
    for size in 0..8 {
        check(
            &broker,
            "a frame without room for a header",
            &frame(&vec![0; size]),
        );
    }
    check(&broker, "a negative frame size", &(-1i32).to_be_bytes());
    check(&broker, "a frame of 2 GiB", &i32::MAX.to_be_bytes());
    check(
        &broker,
        "one byte more than socket.request.max.bytes",
        &104_857_601i32.to_be_bytes(),
    );
    check(&broker, "an unknown API key", &frame(&header(999, 0)));
    check(&broker, "a negative API key", &frame(&header(-1, 0)));
    check(&broker, "an API of brokers only", &frame(&header(4, 0)));
    check(&broker, "a version that never was", &frame(&header(3, 99)));
    check(
        &broker,
        "an advertised version that is not served",
        &frame(&header(0, 0)),
    );
    check(
        &broker,
        "a request that ends early",
        &frame(&[header(3, 1), vec![0, 0]].concat()),
    );
    check(
        &broker,
        "text",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    check(
        &broker,
        "a TLS hello",
        &[&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 600]].concat(),
    );
}

#[test]
fn an_array_that_claims_more_than_the_frame_holds_costs_no_memory() {
    let broker = TestBroker::start();
    let before = resident_bytes();
    for _ in 0..400 {
        // Metadata v1: the count of its topics, and nothing after it.
        let body = [header(3, 1), 0x7fff_ffffi32.to_be_bytes().to_vec()].concat();
        let mut client = broker.client();
        client.send_raw(&frame(&body)).expect("the broker reads");
        assert!(client.is_closed());
    }
    assert_serves(&broker);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "400 such frames cost {grown} bytes");
}

/// Comparing each with each takes minutes.
#[test]
fn a_great_many_replicas_are_not_moved_in_no_time() {
    let broker = TestBroker::start();
    let topics = (0..50_000).map(|at| {
        AlterReplicaLogDirTopic::default()
            .with_name(topic_name(&format!("nope-{at}")))
            .with_partitions(vec![0])
    });
    let topics: Vec<_> = topics.collect();
    let dir = |path: &'static str| {
        AlterReplicaLogDir::default()
            .with_path(path.into())
            .with_topics(topics.clone())
    };
    let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir("/a"), dir("/b")]);
    let answer = broker.client().call(2, &request);
    assert_eq!(answer.results.len(), topics.len());
    let of_both = |result: &AlterReplicaLogDirTopicResult| result.partitions.len() == 2;
    assert!(answer.results.iter().all(of_both));
}

/// As a real broker does, which answers all of them, out of a heap that ends somewhere.
#[test]
fn what_is_named_again_is_answered_again() {
    let broker = TestBroker::start_with(&[("offsets.topic.num.partitions", "1")]);
    let mut client = broker.client();
    client.create_topic("t", 1);
    find_coordinator(&mut client);
    let described = |answer: DescribeConfigsResponse| {
        let results = answer.results.into_iter();
        results.map(|it| {
            (
                it.resource_name.to_string(),
                it.error_code,
                it.configs.len(),
            )
        })
    };
    let told: Vec<_> = described(client.call(4, &describe_configs(2, "t", 3))).collect();
    assert_eq!(told, vec![told[0].clone(); 3]);
    assert_eq!((&*told[0].0, told[0].1), ("t", 0));
    assert!(told[0].2 > 30, "{} configs", told[0].2);
    let told = client.call(5, &describe_groups("g", 3));
    assert_eq!(told.groups.len(), 3);
    assert!(told.groups.iter().all(|group| group.error_code == 0));
    let told = client.call(0, &describe_producers(3));
    assert_eq!(
        told.topics[0].partitions,
        vec![told.topics[0].partitions[0].clone(); 3]
    );
    let told = client.call(9, &fetch_offsets(&["g", "g"], 2));
    assert_eq!(told.groups, vec![told.groups[0].clone(); 2]);
    assert_eq!(told.groups[0].topics.len(), 1);
    assert_eq!(told.groups[0].topics[0].partitions.len(), 2);
}

/// A group may have thousands of members, a partition thousands of producers, and an offset kilobytes of metadata.
#[test]
fn what_is_named_without_end_is_answered_for_some_megabytes() {
    const COUNT: usize = 30_000;
    let broker = TestBroker::start_with(&[("offsets.topic.num.partitions", "1")]);
    let mut client = broker.client();
    client.create_topic("t", 1);
    find_coordinator(&mut client);
    let refused = ErrorCode::InvalidRequest.code();

    for (kind, name) in [(4, "1"), (32, "no such group")] {
        let answer = client.call(4, &describe_configs(kind, name, 5_000));
        let codes: Vec<i16> = answer.results.iter().map(|it| it.error_code).collect();
        assert_eq!((codes.len(), codes[0], codes[10]), (5_000, 0, 0), "{name}");
        assert_eq!(codes[4_999], refused, "{name}");
        let size = answer.compute_size(4).expect("it has come");
        assert!(size < 6 << 20, "{name}: {size} bytes");
    }
    let other_names = (0..5_000).map(|at| format!("{}1", "0".repeat(at % 50)));
    let mut request = describe_configs(4, "1", 5_000);
    for (resource, name) in request.resources.iter_mut().zip(other_names) {
        resource.resource_name = name.into();
    }
    let answer = client.call(4, &request);
    assert_eq!(answer.results[4_999].error_code, refused);

    let long = "g".repeat(200);
    let answer = client.call(5, &describe_groups(&long, COUNT));
    assert_eq!(answer.groups.len(), COUNT);
    assert_eq!(answer.groups[100].error_code, 0);
    assert_eq!(answer.groups[COUNT - 1].error_code, refused);
    let request =
        ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(&long); COUNT]);
    let answer = client.call(1, &request);
    assert_eq!(answer.groups.len(), COUNT);
    assert_eq!(answer.groups[COUNT - 1].error_code, refused);
    let ids = vec![TransactionalId(long.clone().into()); COUNT];
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    let answer = client.call(0, &request);
    assert_eq!(answer.transaction_states.len(), COUNT);
    assert_eq!(answer.transaction_states[COUNT - 1].error_code, refused);
    let answer = client.call(0, &describe_producers(COUNT));
    let partitions = &answer.topics[0].partitions;
    assert_eq!((partitions.len(), partitions[100].error_code), (COUNT, 0));

    let answer = client.call(9, &fetch_offsets(&["g"; 20], 100));
    let topics = answer.groups.iter().flat_map(|group| &group.topics);
    let partitions = topics.flat_map(|topic| &topic.partitions);
    let codes: Vec<i16> = partitions.map(|partition| partition.error_code).collect();
    assert_eq!((codes.len(), codes[999], codes[1_999]), (2_000, 0, refused));
    let answer = client.call(9, &fetch_offsets(&[&*long; COUNT], 0));
    assert_eq!(answer.groups.len(), COUNT);
    assert_eq!(answer.groups[COUNT - 1].error_code, refused);
}

fn describe_configs(kind: i8, name: &str, count: usize) -> DescribeConfigsRequest {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(name.to_owned().into())
        .with_configuration_keys(None);
    DescribeConfigsRequest::default()
        .with_resources(vec![resource; count])
        .with_include_synonyms(true)
        .with_include_documentation(true)
}

fn describe_groups(group: &str, count: usize) -> DescribeGroupsRequest {
    DescribeGroupsRequest::default().with_groups(vec![group_id(group); count])
}

fn describe_producers(count: usize) -> DescribeProducersRequest {
    let topic = TopicRequest::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0; count]);
    DescribeProducersRequest::default().with_topics(vec![topic])
}

/// Of partition 0, this often, or if that is never, of all there are.
fn fetch_offsets(groups: &[&str], count: usize) -> OffsetFetchRequest {
    let groups = groups.iter().map(|group| {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(topic_name("t"))
            .with_partition_indexes(vec![0; count]);
        OffsetFetchRequestGroup::default()
            .with_group_id(group_id(group))
            .with_member_epoch(-1)
            .with_topics((count != 0).then(|| vec![topic]))
    });
    OffsetFetchRequest::default().with_groups(groups.collect())
}

fn group_id(group: &str) -> GroupId {
    GroupId(group.to_owned().into())
}

/// Waits until the groups have a coordinator that answers.
fn find_coordinator(client: &mut Client) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec!["g".into()]);
        let found = client.call(4, &request).coordinators.remove(0);
        let mut answers = || client.call(9, &fetch_offsets(&["g"], 1)).groups[0].error_code == 0;
        if found.error_code == 0 && answers() {
            return;
        }
        assert!(Instant::now() < deadline, "no coordinator: {found:?}");
    }
}

#[test]
fn a_frame_that_was_only_announced_reserves_nothing() {
    let broker = TestBroker::start();
    let before = resident_bytes();
    let clients: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = broker.client();
            client
                .send_raw(&100_000_000i32.to_be_bytes())
                .expect("the broker reads");
            client
        })
        .collect();
    assert_serves(&broker);
    let grown = resident_bytes().saturating_sub(before);
    assert!(
        grown < 64 << 20,
        "100 announcements of 100 MB cost {grown} bytes"
    );
    drop(clients);
}

#[test]
fn a_version_of_api_versions_from_the_future_is_told_what_there_is() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.send_frame(&header(18, 99));
    let answer = client.receive_frame().expect("an answer");
    // Correlation id 1, UNSUPPORTED_VERSION, and the range of this one key.
    assert_eq!(&answer[..12], [0, 0, 0, 1, 0, 35, 0, 0, 0, 1, 0, 18]);
    client.send_frame(&header(18, 0));
    assert!(client.receive_frame().is_ok(), "the connection lives on");
}

#[test]
fn random_bytes_never_do_more_than_close_a_connection() {
    let broker = TestBroker::start();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..300 {
        let keys = [0, 1, 2, 3, 18, 19, 20, 32, 44];
        let pick = usize::try_from(random() % keys.len() as u64).expect("small");
        let version = i16::try_from(random() % 14).expect("small");
        let mut body = header(keys[pick], version);
        body.extend((0..random() % 64).map(|_| random().to_be_bytes()[0]));
        let mut client = broker.client();
        client.send_raw(&frame(&body)).expect("the broker reads");
    }
    assert_serves(&broker);
}

/// Every API in every version: whatever a well-formed request asks for is answered, one that ends early or
/// has bytes changed is answered or closes its connection, and nothing panics or grows.
#[test]
fn requests_of_every_api_made_up_cut_off_and_changed_do_no_harm() {
    // Most of the time is spent waiting for answers, so several wait at once.
    const CLIENTS: usize = 8;
    count_panics();
    let broker = TestBroker::start();
    let schemas = requests::schemas();
    broker.client().create_topic("t", 2);
    let before = resident_bytes();
    std::thread::scope(|scope| {
        for first in 0..CLIENTS {
            let (broker, schemas) = (&broker, &schemas);
            scope.spawn(move || {
                let mut random = Random::new(4711 + first as u64);
                for (key, range) in protocol::versions::SERVED
                    .iter()
                    .skip(first)
                    .step_by(CLIENTS)
                {
                    let key = *key as i16;
                    let schema = schemas.iter().find(|schema| schema.key == key);
                    let schema = schema.expect("every API has a schema");
                    for version in range.min..=range.max {
                        for _ in 0..4 {
                            make_up(broker, schema, version, &mut random);
                        }
                        assert_eq!(PANICS.load(Relaxed), 0, "API {key} version {version}");
                    }
                }
            });
        }
    });
    assert_eq!(PANICS.load(Relaxed), 0);
    assert_serves(&broker);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 256 << 20, "they cost {grown} bytes");
}

fn make_up(broker: &TestBroker, schema: &Schema, version: i16, random: &mut Random) {
    let whole = schema.frame(version, random);
    let what = format!("API {} version {version}: {whole:02x?}", schema.key);
    let mut client = broker.client();
    client.send_raw(&frame(&whole)).expect("the broker reads");
    let answer = client.receive_frame();
    assert!(answer.is_ok(), "{answer:?} to {what}");

    let cut = random.below(whole.len());
    let mut client = broker.client();
    client
        .send_raw(&frame(&whole[..cut]))
        .expect("the broker reads");
    let end = client.receive_frame().map_err(|err| err.kind());
    let is_gone = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
    assert!(
        end.as_ref().is_ok_and(|answer| !answer.is_empty())
            || end.as_ref().is_err_and(|kind| is_gone.contains(kind)),
        "{end:?} to the first {cut} bytes of {what}"
    );

    // This may ask to be answered in a month, so nobody waits.
    let mut changed = whole.clone();
    for _ in 0..1 + random.below(4) {
        let at = 8 + random.below(changed.len() - 8);
        changed[at] = random.byte();
    }
    let mut client = broker.client();
    client.send_raw(&frame(&changed)).expect("the broker reads");
}

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A panic in a task of the broker ends a connection, and is seen nowhere else.
fn count_panics() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Relaxed);
        shown(panic);
    }));
}

#[test]
fn a_silent_client_is_cut_off() {
    let broker = TestBroker::start_with(&[("connections.max.idle.ms", "300")]);
    let mut client = broker.client();
    assert!(client.is_closed());
    assert_serves(&broker);
}

const EXPIRED: &str = "kafka_server_socketservermetrics_expired_connections_killed_count";

#[test]
fn a_client_that_stops_in_the_middle_of_a_request_is_cut_off() {
    let broker = TestBroker::start_with(&[("connections.max.idle.ms", "500")]);
    let mut client = broker.client();
    client
        .send_raw(&[0, 0, 0, 100, 0, 3])
        .expect("the broker reads");
    assert!(client.is_closed());
    assert_eq!(broker.metric(EXPIRED), 1.0);
    assert_serves(&broker);
}

/// Its answer is larger than what the system keeps for it on the way.
#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let broker = TestBroker::start_with(&[("connections.max.idle.ms", "2000")]);
    broker.client().create_topic("t", 1);
    let records = batch(&[&"x".repeat(1_000_000)]);
    for _ in 0..20 {
        let response = broker.client().produce("t", 0, records.clone());
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }
    let mut client = broker.client();
    let mut request = fetch_request("t", 0, 0);
    request.topics[0].partitions[0].partition_max_bytes = i32::MAX;
    client.send(12, &request);
    let deadline = Instant::now() + PATIENCE;
    while broker.metric(EXPIRED) < 1.0 {
        assert!(Instant::now() < deadline, "it is still waited for");
        assert_serves(&broker);
    }
    let ended = client.receive_frame().expect_err("a part of the answer");
    let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
    assert!(ends.contains(&ended.kind()), "{ended}");
}

/// For as long as the client likes: 24 days.
fn endless_fetch() -> FetchRequest {
    fetch_request("t", 0, 0).with_max_wait_ms(i32::MAX)
}

#[test]
fn a_client_that_waits_for_too_long_is_cut_off() {
    let broker = TestBroker::start_with(&[("connections.max.idle.ms", "1000")]);
    broker.client().create_topic("t", 1);
    let mut client = broker.client();
    client.send(12, &endless_fetch());
    let ended = client
        .receive_frame()
        .expect_err("there is nothing to fetch");
    assert_eq!(ended.kind(), ErrorKind::UnexpectedEof, "{ended}");
}

/// Its connection would count against the limits until its Fetch has waited long enough.
#[test]
fn a_client_that_has_gone_is_not_waited_for() {
    let broker = TestBroker::start_with(&[("max.connections.per.ip", "1")]);
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.send(12, &endless_fetch());
    // Something that is never read lies before the end of the stream.
    client.send(0, &ApiVersionsRequest::default());
    drop(client);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = Client::try_connect(broker.address)
            .and_then(|mut client| client.try_call(0, &ApiVersionsRequest::default()));
        match answer {
            Ok(_) => return,
            Err(err) => assert!(Instant::now() < deadline, "still refused: {err}"),
        }
    }
}

/// Neither who never pauses nor who waits for ever holds it up, and what was acknowledged is there.
#[test]
fn a_broker_that_stops_serves_nobody_any_more() {
    let mut broker = TestBroker::start();
    let mut waiting = broker.client();
    waiting.create_topic("t", 1);
    waiting.create_topic("busy", 1);
    waiting.send(12, &endless_fetch());
    let mut busy = broker.client();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let busy = std::thread::spawn(move || {
        let request = produce_request("busy", 0, batch(&["one"]));
        for _ in 0..5 {
            busy.send(9, &request);
        }
        let deadline = Instant::now() + PATIENCE;
        let mut acknowledged = 0;
        while Instant::now() < deadline {
            let answer = busy.try_receive::<ProduceRequest>(9);
            match answer.and_then(|it| busy.try_send(9, &request).map(|()| it)) {
                Ok(it) if it.responses[0].partition_responses[0].error_code == 0 => {
                    acknowledged += 1
                }
                Ok(_) => (),
                Err(err) => return (acknowledged, Some(err.kind())),
            }
            let _ = begun.send(());
        }
        (acknowledged, None)
    });
    has_begun.recv().expect("it is served");
    broker.stop();
    let (acknowledged, ended) = busy.join().expect("no panic");
    let ends = [
        ErrorKind::UnexpectedEof,
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
    ];
    assert!(ended.is_some_and(|kind| ends.contains(&kind)), "{ended:?}");
    let ended = waiting.receive_frame().expect_err("it is closed");
    assert!(ends.contains(&ended.kind()), "{ended}");
    let broker = broker.restart(&[]);
    let fetched = broker.client().fetch("busy", 0, 0);
    let end = fetched.responses[0].partitions[0].high_watermark;
    assert!(acknowledged <= end, "{acknowledged} of {end}");
}

#[test]
fn no_more_connections_from_one_address_than_allowed() {
    let broker = TestBroker::start_with(&[("max.connections.per.ip", "2")]);
    let mut first = broker.client();
    let mut second = broker.client();
    let _: ApiVersionsResponse = first.call(0, &ApiVersionsRequest::default());
    let _: ApiVersionsResponse = second.call(0, &ApiVersionsRequest::default());
    assert!(broker.client().is_closed(), "a third connection");
    let _: ApiVersionsResponse = second.call(0, &ApiVersionsRequest::default());
}

/// The default listener's socket takes both kinds of address, and shows the one kind in the form of the other.
#[test]
fn a_limit_of_its_own_finds_its_client_on_the_default_listener() {
    for host in ["127.0.0.1", "localhost"] {
        let broker = TestBroker::start_with(&[
            ("listeners", "PLAINTEXT://:0"),
            ("max.connections.per.ip.overrides", &format!("{host}:1")),
        ]);
        let address = (Ipv4Addr::LOCALHOST, broker.address.port()).into();
        let mut first = Client::connect(address);
        let _: ApiVersionsResponse = first.call(0, &ApiVersionsRequest::default());
        assert!(Client::connect(address).is_closed(), "a second of {host}");
        let _: ApiVersionsResponse = first.call(0, &ApiVersionsRequest::default());
    }
}

/// As in Apache Kafka: a limit for nobody would be a limit that does nothing.
#[test]
fn a_limit_for_a_host_without_an_address_is_refused_at_the_start() {
    let key = "max.connections.per.ip.overrides";
    let err = TestBroker::try_start(&[(key, "no.such.host.invalid:5")]);
    let err = err.err().expect("it has no address").to_string();
    assert!(err.contains(key), "{err}");
    assert!(err.contains("no.such.host.invalid"), "{err}");
}

/// `max.connections` can be changed while they are there: nobody is cut off, and nobody new comes in.
#[test]
fn a_lower_limit_on_connections_holds_for_those_who_come_next() {
    let broker = TestBroker::start();
    let mut first = broker.client();
    let mut second = broker.client();
    let mut limit_to = |value: &str| {
        let limit = AlterableConfig::default()
            .with_name("max.connections".to_owned().into())
            .with_value(Some(value.to_owned().into()));
        let all_brokers = AlterConfigsResource::default()
            .with_resource_type(4)
            .with_configs(vec![limit]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![all_brokers]);
        let answer: IncrementalAlterConfigsResponse = first.call(1, &request);
        answer.responses[0].error_code
    };
    assert_eq!(limit_to("2"), 0);
    assert!(broker.client().is_closed(), "a third connection");
    let _: ApiVersionsResponse = second.call(0, &ApiVersionsRequest::default());
    assert_eq!(limit_to("3"), 0);
    assert_serves(&broker);
}

/// Memory of this process (the brokers run in it) as the kernel counts it.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    pages * 4096
}
