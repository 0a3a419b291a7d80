//! Groups over the wire: joining, committing and what is left of it after a restart. What is asserted here was
//! answered by Apache Kafka 4.4.0 too, unless a comment says otherwise.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use common::{Client, TestBroker, batch, receive_of, topic_name};
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, DeleteGroupsRequest, DescribeGroupsRequest,
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, ListGroupsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteRequest, OffsetFetchRequest, OffsetFetchResponse,
    SyncGroupRequest, SyncGroupResponse,
    join_group_request::JoinGroupRequestProtocol,
    leave_group_request::MemberIdentity,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    },
    sync_group_request::SyncGroupRequestAssignment,
};
use kafka_protocol::protocol::StrBytes;
use protocol::error::ErrorCode;
use uuid::Uuid;

/// Two partitions, and members that need not wait for one another.
const SETTINGS: [(&str, &str); 2] = [
    ("offsets.topic.num.partitions", "2"),
    ("group.initial.rebalance.delay.ms", "0"),
];

const PATIENCE: Duration = Duration::from_secs(60);

/// What a member says it reads: the topic `t`, in Kafka's form.
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";

fn group_id(group: &str) -> GroupId {
    GroupId(group.to_owned().into())
}

/// Waits until the group has a coordinator that answers.
fn find_coordinator(client: &mut Client, group: &str) {
    let request = FindCoordinatorRequest::default()
        .with_key_type(0)
        .with_coordinator_keys(vec![group.to_owned().into()]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = client.call(4, &request).coordinators.remove(0);
        if found.error_code == 0 {
            assert_eq!(&*found.key, group);
            let code = fetch(client, group, &[]).groups[0].error_code;
            if code == 0 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the coordinator still answers {code}"
            );
        } else {
            assert_eq!(
                found.error_code,
                ErrorCode::CoordinatorNotAvailable.code(),
                "{found:?}"
            );
        }
        assert!(Instant::now() < deadline, "no coordinator: {found:?}");
    }
}

/// A broker with the topics `t` (3 partitions) and `u` (1), and a coordinator for each group.
fn started() -> (TestBroker, Client) {
    let broker = TestBroker::start_with(&SETTINGS);
    let mut client = broker.client();
    client.create_topic("t", 3);
    client.create_topic("u", 1);
    find_coordinator(&mut client, "g");
    find_coordinator(&mut client, "h");
    (broker, client)
}

/// Who commits: member id and generation.
type Who<'a> = (&'a str, i32);

const NOBODY: Who<'static> = ("", -1);

type Offset<'a> = (&'a str, i32, i64, &'a str);

fn commit_request(group: &str, who: Who<'_>, offsets: &[Offset<'_>]) -> OffsetCommitRequest {
    let topics = offsets.iter().map(|(topic, index, offset, metadata)| {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(*index)
            .with_committed_offset(*offset)
            .with_committed_metadata(Some((*metadata).to_owned().into()));
        OffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition])
    });
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_member_id(who.0.to_owned().into())
        .with_generation_id_or_member_epoch(who.1)
        .with_topics(topics.collect())
}

/// The codes of the answer, with topic and partition.
fn codes(answer: &OffsetCommitResponse) -> Vec<(String, i32, i16)> {
    let topics = answer.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|it| (topic.name.to_string(), it.partition_index, it.error_code))
    });
    topics.collect()
}

fn commit(client: &mut Client, group: &str, who: Who<'_>, offsets: &[Offset<'_>]) -> Vec<i16> {
    let answer = client.call(9, &commit_request(group, who, offsets));
    codes(&answer)
        .into_iter()
        .map(|(_, _, code)| code)
        .collect()
}

/// Offsets of these partitions, or all if none is named.
fn fetch(client: &mut Client, group: &str, asked: &[(&str, i32)]) -> OffsetFetchResponse {
    let topics = asked.iter().map(|(topic, index)| {
        OffsetFetchRequestTopics::default()
            .with_name(topic_name(topic))
            .with_partition_indexes(vec![*index])
    });
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(group_id(group))
        .with_member_epoch(-1)
        .with_topics((!asked.is_empty()).then(|| topics.collect()));
    client.call(9, &OffsetFetchRequest::default().with_groups(vec![group]))
}

/// Everything a group has committed: `topic-partition=offset:metadata`.
fn committed(client: &mut Client, group: &str) -> Vec<String> {
    let answer = fetch(client, group, &[]);
    assert_eq!(answer.groups[0].error_code, 0);
    let mut shown = Vec::new();
    for topic in &answer.groups[0].topics {
        shown.extend(topic.partitions.iter().map(|it| {
            assert_eq!(it.error_code, 0);
            let (index, offset) = (it.partition_index, it.committed_offset);
            let metadata = it.metadata.as_deref().unwrap_or_default();
            format!("{}-{index}={offset}:{metadata}", &*topic.name)
        }));
    }
    shown.sort();
    shown
}

fn join(client: &mut Client, group: &str, member_id: &str) -> JoinGroupResponse {
    join_in(client, 9, group, member_id)
}

fn join_in(client: &mut Client, version: i16, group: &str, member_id: &str) -> JoinGroupResponse {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name("range".into())
        .with_metadata(SUBSCRIPTION.into());
    let request = JoinGroupRequest::default()
        .with_group_id(group_id(group))
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(member_id.to_owned().into())
        .with_protocol_type("consumer".into())
        .with_protocols(vec![protocol]);
    client.call(version, &request)
}

/// Joins as the only member, and is given its assignment.
fn live(client: &mut Client, group: &str) -> (String, i32) {
    let asked = join(client, group, "");
    assert_eq!(asked.error_code, ErrorCode::MemberIdRequired.code());
    let joined = join(client, group, &asked.member_id);
    assert_eq!(joined.error_code, 0);
    assert_eq!(joined.leader, joined.member_id);
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(b"mine"[..].into());
    let request = SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_member_id(joined.member_id.clone())
        .with_generation_id(joined.generation_id)
        .with_protocol_type(Some("consumer".into()))
        .with_protocol_name(Some("range".into()))
        .with_assignments(vec![assignment]);
    let synced: SyncGroupResponse = client.call(5, &request);
    assert_eq!((synced.error_code, &*synced.assignment), (0, &b"mine"[..]));
    (joined.member_id.to_string(), joined.generation_id)
}

fn heartbeat(client: &mut Client, group: &str, (member_id, generation): Who<'_>) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group_id(group))
        .with_member_id(member_id.to_owned().into())
        .with_generation_id(generation);
    client.call(4, &request).error_code
}

fn leave(client: &mut Client, group: &str, member_id: &str) {
    let member = MemberIdentity::default().with_member_id(member_id.to_owned().into());
    let request = LeaveGroupRequest::default()
        .with_group_id(group_id(group))
        .with_members(vec![member]);
    let answer = client.call(5, &request);
    assert_eq!((answer.error_code, answer.members[0].error_code), (0, 0));
}

fn delete(client: &mut Client, groups: &[&str]) -> Vec<(String, i16)> {
    let names = groups.iter().map(|group| group_id(group));
    let request = DeleteGroupsRequest::default().with_groups_names(names.collect());
    let mut results: Vec<_> = client
        .call(2, &request)
        .results
        .into_iter()
        .map(|result| (result.group_id.to_string(), result.error_code))
        .collect();
    results.sort();
    results
}

/// Id, type and state of each group.
fn listed(client: &mut Client) -> Vec<(String, String, String)> {
    let answer = client.call(5, &ListGroupsRequest::default());
    assert_eq!(answer.error_code, 0);
    let mut groups: Vec<_> = answer
        .groups
        .into_iter()
        .map(|group| {
            (
                group.group_id.to_string(),
                group.group_type.to_string(),
                group.group_state.to_string(),
            )
        })
        .collect();
    groups.sort();
    groups
}

fn topic_id(client: &mut Client, name: &str) -> Uuid {
    let answer = client.call(12, &MetadataRequest::default().with_topics(None));
    let mut topics = answer.topics.into_iter();
    let found = topics.find(|topic| topic.name.as_ref() == Some(&topic_name(name)));
    found.expect("a topic").topic_id
}

#[test]
fn a_member_and_its_offsets_are_there_after_a_restart() {
    let (broker, mut client) = started();
    let (member_id, generation) = live(&mut client, "g");
    let who = (&*member_id, generation);
    let offsets = [("t", 0, 5, "five"), ("t", 2, 7, "")];
    assert_eq!(commit(&mut client, "g", who, &offsets), [0, 0]);
    assert_eq!(commit(&mut client, "h", NOBODY, &[("u", 0, 1, "")]), [0]);

    let broker = broker.restart(&SETTINGS);
    let mut client = broker.client();
    find_coordinator(&mut client, "g");
    find_coordinator(&mut client, "h");
    assert_eq!(committed(&mut client, "g"), ["t-0=5:five", "t-2=7:"]);
    assert_eq!(committed(&mut client, "h"), ["u-0=1:"]);
    assert_eq!(heartbeat(&mut client, "g", who), 0);
    assert_eq!(commit(&mut client, "g", who, &[("t", 0, 6, "")]), [0]);
    let asked = DescribeGroupsRequest::default().with_groups(vec![group_id("g")]);
    let described = client.call(5, &asked).groups.remove(0);
    assert_eq!(
        (
            described.error_code,
            &*described.group_state,
            &*described.protocol_data
        ),
        (0, "Stable", "range")
    );
    let member = &described.members[0];
    assert_eq!(
        (
            &*member.member_id,
            &*member.client_id,
            &*member.client_host,
            &*member.member_assignment
        ),
        (who.0, "test", "/127.0.0.1", &b"mine"[..])
    );
}

/// What listens on every address shows IPv4 ones as IPv6 ones, which is nobody's address.
#[test]
fn a_member_that_came_by_ipv4_has_an_ipv4_host_on_the_default_listener() {
    let broker =
        TestBroker::start_with(&[SETTINGS[0], SETTINGS[1], ("listeners", "PLAINTEXT://:0")]);
    let mut client = Client::connect((Ipv4Addr::LOCALHOST, broker.address.port()).into());
    client.create_topic("t", 1);
    find_coordinator(&mut client, "g");
    let member_id = join(&mut client, "g", "").member_id;
    join(&mut client, "g", &member_id);
    let asked = DescribeGroupsRequest::default().with_groups(vec![group_id("g")]);
    let described = client.call(5, &asked).groups.remove(0);
    assert_eq!(&*described.members[0].client_host, "/127.0.0.1");
}

#[test]
fn offsets_are_compressed_if_asked_for_and_read_all_the_same() {
    const ZSTD: u8 = 4;
    let zstd = [
        SETTINGS[0],
        SETTINGS[1],
        ("offsets.topic.compression.codec", "4"),
    ];
    let broker = TestBroker::start_with(&zstd);
    let mut client = broker.client();
    client.create_topic("t", 1);
    find_coordinator(&mut client, "g");
    assert_eq!(commit(&mut client, "g", NOBODY, &[("t", 0, 5, "")]), [0]);
    let codecs: Vec<u8> = (0..2)
        .filter_map(|index| {
            let log = format!("data/__consumer_offsets-{index}/00000000000000000000.log");
            let log = fs::read(broker.dir.path().join(log)).expect("a log");
            // The lower byte of the first batch's attributes.
            log.get(22).map(|attributes| attributes & 7)
        })
        .collect();
    assert_eq!(codecs, [ZSTD]);
    let broker = broker.restart(&SETTINGS);
    let mut client = broker.client();
    find_coordinator(&mut client, "g");
    assert_eq!(committed(&mut client, "g"), ["t-0=5:"]);
}

/// What a broker that is killed leaves behind is what its files hold at that moment.
#[test]
fn what_was_answered_is_there_after_the_broker_was_killed() {
    let (broker, mut client) = started();
    let (member_id, generation) = live(&mut client, "g");
    for offset in 0..100 {
        let offsets = [("t", 0, offset, "")];
        assert_eq!(
            commit(&mut client, "g", (&member_id, generation), &offsets),
            [0]
        );
    }
    let left = tempfile::tempdir().expect("a temporary directory");
    copy(broker.dir.path(), left.path());

    let broker = TestBroker::start_in(left, &SETTINGS);
    let mut client = broker.client();
    find_coordinator(&mut client, "g");
    assert_eq!(committed(&mut client, "g"), ["t-0=99:"]);
    assert_eq!(heartbeat(&mut client, "g", (&member_id, generation)), 0);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).expect("a file is copied");
        }
    }
}

#[test]
fn every_version_of_commit_and_fetch_is_answered() {
    let (_broker, mut client) = started();
    for version in 2..=9 {
        let offset = i64::from(version);
        let request = commit_request("g", NOBODY, &[("t", 1, offset, "m")]);
        let answer = client.call(version, &request);
        assert_eq!(codes(&answer), [("t".to_owned(), 1, 0)], "v{version}");
        assert_eq!(committed(&mut client, "g"), [format!("t-1={offset}:m")]);
    }
    for version in 1..=7 {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name("t"))
            .with_partition_indexes(vec![1, 2]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group_id("g"))
            .with_topics(Some(vec![topic]));
        let answer = client.call(version, &request);
        let partitions = &answer.topics[0].partitions;
        let offsets: Vec<i64> = partitions.iter().map(|it| it.committed_offset).collect();
        assert_eq!(
            (answer.error_code, &offsets[..]),
            (0, &[9, -1][..]),
            "v{version}"
        );
        assert_eq!(partitions[1].error_code, 0);
    }
    for version in 2..=7 {
        let request = OffsetFetchRequest::default()
            .with_group_id(group_id("g"))
            .with_topics(None);
        let answer = client.call(version, &request);
        assert_eq!(
            answer.topics[0].partitions[0].committed_offset, 9,
            "v{version}"
        );
    }
    for version in 8..=9 {
        let groups = ["g", "nobody", "g"].map(|group| {
            OffsetFetchRequestGroup::default()
                .with_group_id(group_id(group))
                .with_member_epoch(-1)
                .with_topics(None)
        });
        let request = OffsetFetchRequest::default().with_groups(groups.into());
        let answer = client.call(version, &request);
        let counts = answer.groups.iter().map(|group| group.topics.len());
        assert_eq!(counts.collect::<Vec<_>>(), [1, 0, 1], "v{version}");
    }
}

#[test]
fn every_version_of_find_coordinator_is_answered() {
    let (broker, mut client) = started();
    let port = i32::from(broker.address.port());
    for version in 0..4 {
        let request = FindCoordinatorRequest::default().with_key("g".into());
        let found = client.call(version, &request);
        let node = (found.error_code, *found.node_id, found.port);
        assert_eq!(node, (0, 1, port), "v{version}");
    }
    for version in 4..=6 {
        let keys = ["h", "g", "i"].map(StrBytes::from_static_str);
        let request = FindCoordinatorRequest::default().with_coordinator_keys(keys.to_vec());
        let found = client.call(version, &request).coordinators;
        let named: Vec<_> = found
            .iter()
            .map(|it| (&*it.key, it.error_code, *it.node_id, it.port))
            .collect();
        let node = |key| (key, 0, 1, port);
        assert_eq!(named, [node("h"), node("g"), node("i")], "v{version}");
    }
}

/// One member's life in each: joins, has its assignment, beats, is described, leaves.
#[test]
fn every_version_of_a_members_requests_is_answered() {
    let (_broker, mut client) = started();
    for version in 0..=9 {
        let group = format!("v{version}");
        find_coordinator(&mut client, &group);
        let mut joined = join_in(&mut client, version, &group, "");
        if version >= 4 {
            let required = ErrorCode::MemberIdRequired.code();
            assert_eq!(joined.error_code, required, "v{version}");
            joined = join_in(&mut client, version, &group, &joined.member_id);
        }
        assert_eq!(
            (joined.error_code, joined.generation_id),
            (0, 1),
            "v{version}"
        );
        assert_eq!(
            (&joined.leader, joined.members.len()),
            (&joined.member_id, 1)
        );

        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment(b"mine"[..].into());
        let mut sync = SyncGroupRequest::default()
            .with_group_id(group_id(&group))
            .with_member_id(joined.member_id.clone())
            .with_generation_id(1)
            .with_assignments(vec![assignment]);
        if version >= 5 {
            sync.protocol_type = Some("consumer".into());
            sync.protocol_name = Some("range".into());
        }
        let synced = client.call(version.min(5), &sync);
        assert_eq!((synced.error_code, &*synced.assignment), (0, &b"mine"[..]));
        let beat = HeartbeatRequest::default()
            .with_group_id(group_id(&group))
            .with_member_id(joined.member_id.clone())
            .with_generation_id(1);
        assert_eq!(client.call(version.min(4), &beat).error_code, 0);

        let describe = DescribeGroupsRequest::default().with_groups(vec![group_id(&group)]);
        let described = client.call(version.min(6), &describe).groups.remove(0);
        let shown = (
            described.error_code,
            &*described.group_state,
            &*described.protocol_data,
        );
        assert_eq!(shown, (0, "Stable", "range"), "v{version}");
        let member = &described.members[0];
        assert_eq!(member.member_id, joined.member_id);
        assert_eq!(&*member.member_assignment, b"mine");

        // Before version 3 one member leaves, and what is wrong stands in the head.
        let unknown = ErrorCode::UnknownMemberId.code();
        for code in [0, unknown] {
            let mut leave = LeaveGroupRequest::default().with_group_id(group_id(&group));
            if version < 3 {
                leave.member_id = joined.member_id.clone();
            } else {
                let member = MemberIdentity::default().with_member_id(joined.member_id.clone());
                leave.members = vec![member];
            }
            let left = client.call(version.min(5), &leave);
            let of_member = left.members.first().map(|it| it.error_code);
            let want = if version < 3 {
                (code, None)
            } else {
                (0, Some(code))
            };
            assert_eq!((left.error_code, of_member), want, "v{version}");
        }
    }
}

/// Version 10 of both, whose requests are written by hand.
#[test]
fn topics_may_go_by_their_ids() {
    let (_broker, mut client) = started();
    let (t, stranger) = (topic_id(&mut client, "t"), Uuid::from_u128(7));
    let mut body = b"\0\x08\0\x0a\0\0\0\x01\0\x04test\0\x02g\xff\xff\xff\xff\x01\0\x03".to_vec();
    for id in [t, stranger] {
        body.extend_from_slice(id.as_bytes());
        body.extend_from_slice(b"\x02\0\0\0\x01\0\0\0\0\0\0\0\x05\0\0\0\x06\x02m\0\0");
    }
    body.push(0);
    client.send_frame(&body);
    let answer: OffsetCommitResponse = receive_of(&mut client, 1, 10);
    let mut codes: Vec<_> = answer
        .topics
        .iter()
        .map(|topic| (topic.topic_id, topic.partitions[0].error_code))
        .collect();
    codes.sort();
    let mut want = [(t, 0), (stranger, ErrorCode::UnknownTopicId.code())];
    want.sort();
    assert_eq!(codes, want);

    let mut body = b"\0\x09\0\x0a\0\0\0\x02\0\x04test\0\x02\x02g\0\xff\xff\xff\xff\x03".to_vec();
    for id in [t, stranger] {
        body.extend_from_slice(id.as_bytes());
        body.extend_from_slice(b"\x02\0\0\0\x01\0");
    }
    body.extend_from_slice(b"\0\0\0");
    client.send_frame(&body);
    let answer: OffsetFetchResponse = receive_of(&mut client, 1, 10);
    let topics = answer.groups[0].topics.iter().map(|topic| {
        let it = &topic.partitions[0];
        (
            topic.topic_id,
            it.committed_offset,
            it.committed_leader_epoch,
            it.error_code,
        )
    });
    assert_eq!(
        topics.collect::<Vec<_>>(),
        [
            (t, 5, 6, 0),
            (stranger, -1, -1, ErrorCode::UnknownTopicId.code())
        ]
    );
}

/// Comparing each with each takes minutes.
#[test]
fn a_great_many_topics_are_refused_in_no_time() {
    const COUNT: usize = 100_000;
    let (_broker, mut client) = started();
    let names: Vec<String> = (0..COUNT).map(|at| format!("nope-{at}")).collect();
    let offsets: Vec<Offset<'_>> = names.iter().map(|name| (&**name, 0, 1, "")).collect();
    let answer = client.call(9, &commit_request("g", NOBODY, &offsets));
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let refused = codes(&answer);
    assert_eq!(refused.len(), COUNT);
    assert_eq!(refused[COUNT - 1], (names[COUNT - 1].clone(), 0, unknown));
}

#[test]
fn a_commit_is_refused_partition_by_partition() {
    let (_broker, mut client) = started();
    let offsets = [
        ("t", 0, 1, ""),
        ("t", 7, 1, ""),
        ("nope", 0, 1, ""),
        ("u", 0, 3, ""),
    ];
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let answer = client.call(9, &commit_request("g", NOBODY, &offsets));
    // What was refused stands first.
    let want = [
        ("t", 7, unknown),
        ("t", 0, 0),
        ("nope", 0, unknown),
        ("u", 0, 0),
    ];
    assert_eq!(
        codes(&answer),
        want.map(|(topic, index, code)| (topic.to_owned(), index, code))
    );
    assert_eq!(committed(&mut client, "g"), ["t-0=1:", "u-0=3:"]);

    let long = "x".repeat(4097);
    let offsets = [("t", 0, 2, &*long), ("u", 0, 4, "")];
    let too_large = ErrorCode::OffsetMetadataTooLarge.code();
    assert_eq!(commit(&mut client, "g", NOBODY, &offsets), [too_large, 0]);
    assert_eq!(committed(&mut client, "g"), ["t-0=1:", "u-0=4:"]);
}

/// As at a real broker, which tells nobody why. There such a group cannot be deleted either: here it takes several
/// batches.
#[test]
fn what_is_too_much_for_a_batch_is_not_committed_but_is_deleted() {
    let mut settings = SETTINGS.to_vec();
    settings.push(("message.max.bytes", "2000"));
    let broker = TestBroker::start_with(&settings);
    let mut client = broker.client();
    client.create_topic("t", 100);
    find_coordinator(&mut client, "g");
    let too_much = vec![ErrorCode::UnknownServerError.code(); 100];
    let again = vec![("t", 0, 1, ""); 100];
    assert_eq!(commit(&mut client, "g", NOBODY, &again), too_much);
    let all: Vec<Offset<'_>> = (0..100).map(|index| ("t", index, 1, "")).collect();
    assert_eq!(commit(&mut client, "g", NOBODY, &all), too_much);
    assert_eq!(listed(&mut client), []);

    for group in ["g", "h", "i"] {
        for some in all.chunks(20) {
            assert_eq!(commit(&mut client, group, NOBODY, some), [0; 20]);
        }
    }
    let gone = |group: &str| (group.to_owned(), 0);
    let mut deleted = delete(&mut client, &["g", "x", "h", "i"]);
    deleted.sort();
    let not_found = ("x".to_owned(), ErrorCode::GroupIdNotFound.code());
    assert_eq!(deleted, [gone("g"), gone("h"), gone("i"), not_found]);
    assert_eq!(listed(&mut client), []);
    assert_eq!(committed(&mut client, "g"), [""; 0]);
}

#[test]
fn who_is_not_of_this_generation_does_not_commit() {
    let (_broker, mut client) = started();
    let offsets = [("t", 0, 1, "")];
    let refused = |code: ErrorCode| [code.code()];
    assert_eq!(
        commit(&mut client, "g", ("m", 0), &offsets),
        refused(ErrorCode::GroupIdNotFound)
    );
    let (member_id, generation) = live(&mut client, "g");
    let unknown = refused(ErrorCode::UnknownMemberId);
    assert_eq!(
        commit(&mut client, "g", ("stranger", generation), &offsets),
        unknown
    );
    assert_eq!(commit(&mut client, "g", NOBODY, &offsets), unknown);
    let stale = refused(ErrorCode::IllegalGeneration);
    assert_eq!(
        commit(&mut client, "g", (&member_id, generation - 1), &offsets),
        stale
    );
    assert_eq!(
        commit(&mut client, "g", (&member_id, generation), &offsets),
        [0]
    );
    assert!(heartbeat(&mut client, "g", (&member_id, generation + 1)) != 0);
}

#[test]
fn a_group_with_members_keeps_itself_and_what_they_read() {
    let (_broker, mut client) = started();
    let (member_id, generation) = live(&mut client, "g");
    let offsets = [("t", 0, 1, ""), ("u", 0, 2, "")];
    assert_eq!(
        commit(&mut client, "g", (&member_id, generation), &offsets),
        [0, 0]
    );
    let delete_offsets = |client: &mut Client, group: &str| {
        let topics = ["t", "u"].map(|topic| {
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
            OffsetDeleteRequestTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(vec![partition])
        });
        let request = OffsetDeleteRequest::default()
            .with_group_id(group_id(group))
            .with_topics(topics.into());
        let answer = client.call(0, &request);
        let codes = answer
            .topics
            .iter()
            .map(|topic| topic.partitions[0].error_code);
        (answer.error_code, codes.collect::<Vec<_>>())
    };
    let subscribed = ErrorCode::GroupSubscribedToTopic.code();
    assert_eq!(delete_offsets(&mut client, "g"), (0, vec![subscribed, 0]));
    assert_eq!(committed(&mut client, "g"), ["t-0=1:"]);
    let not_found = ErrorCode::GroupIdNotFound.code();
    assert_eq!(delete_offsets(&mut client, "h"), (not_found, vec![]));
    let non_empty = ErrorCode::NonEmptyGroup.code();
    assert_eq!(
        delete(&mut client, &["g", "h", "g"]),
        [("g".to_owned(), non_empty), ("h".to_owned(), not_found)]
    );
    let shown = |state: &str| ("g".to_owned(), "classic".to_owned(), state.to_owned());
    assert_eq!(listed(&mut client), [shown("Stable")]);

    leave(&mut client, "g", &member_id);
    assert_eq!(listed(&mut client), [shown("Empty")]);
    assert_eq!(delete(&mut client, &["g"]), [("g".to_owned(), 0)]);
    assert_eq!(listed(&mut client), []);
    assert_eq!(committed(&mut client, "g"), [""; 0]);
}

#[test]
fn offsets_of_a_deleted_topic_are_gone_also_when_its_name_is_used_again() {
    let (broker, mut client) = started();
    let offsets = [("t", 0, 1, ""), ("u", 0, 2, "")];
    assert_eq!(commit(&mut client, "g", NOBODY, &offsets), [0, 0]);
    let request = kafka_protocol::messages::DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name("u")])
        .with_timeout_ms(10_000);
    assert_eq!(client.call(5, &request).responses[0].error_code, 0);
    client.create_topic("u", 1);
    client.produce("u", 0, batch(&["new"]));
    let deadline = Instant::now() + PATIENCE;
    while committed(&mut client, "g").len() != 1 {
        assert!(
            Instant::now() < deadline,
            "the offset of a deleted topic stays"
        );
    }
    assert_eq!(committed(&mut client, "g"), ["t-0=1:"]);
    let broker = broker.restart(&SETTINGS);
    let mut client = broker.client();
    find_coordinator(&mut client, "g");
    assert_eq!(committed(&mut client, "g"), ["t-0=1:"]);
}

#[test]
fn groups_that_are_not_there_are_no_error_to_read_from() {
    let (_broker, mut client) = started();
    let answer = fetch(&mut client, "nobody", &[("t", 0), ("nope", 3)]);
    let topics = answer.groups[0].topics.iter().map(|topic| {
        let it = &topic.partitions[0];
        (it.partition_index, it.committed_offset, it.error_code)
    });
    assert_eq!(topics.collect::<Vec<_>>(), [(0, -1, 0), (3, -1, 0)]);
    assert_eq!(listed(&mut client), []);
}

/// What Prometheus is told, as lines.
fn scrape(broker: &TestBroker) -> Vec<String> {
    let running = broker.running.as_ref().expect("a broker");
    let address = running.metrics_address().expect("metrics are served");
    let mut socket = TcpStream::connect(address).expect("an endpoint");
    socket
        .write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
        .expect("a request sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer.lines().map(str::to_owned).collect()
}

/// Names and labels are those of `kafka_exporter`, and of Kafka's own metrics as `jmx_exporter` writes them.
#[test]
fn prometheus_is_told_of_groups_and_their_lag() {
    let mut settings = SETTINGS.to_vec();
    settings.push(("sordini.metrics.listener", "127.0.0.1:0"));
    let broker = TestBroker::start_with(&settings);
    let mut client = broker.client();
    client.create_topic("t", 3);
    find_coordinator(&mut client, "g");
    find_coordinator(&mut client, "h");
    for index in 0..2 {
        client.produce("t", index, batch(&["a", "b", "c"]));
    }
    let (member_id, generation) = live(&mut client, "g");
    let offsets = [("t", 0, 1, ""), ("t", 1, 3, "")];
    let who = (&*member_id, generation);
    assert_eq!(commit(&mut client, "g", who, &offsets), [0, 0]);
    assert_eq!(commit(&mut client, "h", NOBODY, &[("t", 2, -1, "")]), [0]);

    let lines = scrape(&broker);
    for want in [
        "kafka_consumergroup_lag{consumergroup=\"g\",topic=\"t\",partition=\"0\"} 2",
        "kafka_consumergroup_lag{consumergroup=\"g\",topic=\"t\",partition=\"1\"} 0",
        "kafka_consumergroup_lag_sum{consumergroup=\"g\",topic=\"t\"} 2",
        "kafka_consumergroup_current_offset{consumergroup=\"g\",topic=\"t\",partition=\"1\"} 3",
        "kafka_consumergroup_current_offset_sum{consumergroup=\"g\",topic=\"t\"} 4",
        "kafka_consumergroup_members{consumergroup=\"g\"} 1",
        "kafka_consumergroup_members{consumergroup=\"h\"} 0",
        "kafka_consumergroup_lag{consumergroup=\"h\",topic=\"t\",partition=\"2\"} -1",
        "kafka_consumergroup_lag_sum{consumergroup=\"h\",topic=\"t\"} 0",
        "sordini_consumergroups_left_out 0",
        "kafka_topic_partitions{topic=\"t\"} 3",
        "kafka_topic_partition_current_offset{topic=\"t\",partition=\"0\"} 3",
        "kafka_topic_partition_oldest_offset{topic=\"t\",partition=\"0\"} 0",
        "kafka_topic_partition_leader{topic=\"t\",partition=\"0\"} 1",
        "kafka_topic_partition_in_sync_replica{topic=\"t\",partition=\"0\"} 1",
        "kafka_topic_partition_leader_is_preferred{topic=\"t\",partition=\"0\"} 1",
        "kafka_topic_partition_under_replicated_partition{topic=\"t\",partition=\"0\"} 0",
        "kafka_brokers 1",
        "kafka_coordinator_group_groupmetadatamanager_numgroups 2",
        "kafka_coordinator_group_groupmetadatamanager_numgroupsstable 1",
        "kafka_coordinator_group_groupmetadatamanager_numgroupsempty 1",
        "kafka_coordinator_group_groupmetadatamanager_numoffsets 3",
        "kafka_server_group_coordinator_metrics_group_count{protocol=\"classic\"} 2",
        "kafka_server_group_coordinator_metrics_group_count{protocol=\"consumer\"} 0",
        "kafka_server_group_coordinator_metrics_classic_group_count{state=\"Stable\"} 1",
        "kafka_server_group_coordinator_metrics_num_partitions{state=\"active\"} 2",
        "kafka_server_group_coordinator_metrics_offset_commit_count 3",
        "kafka_server_group_coordinator_metrics_group_completed_rebalance_count 1",
    ] {
        let matching = lines.iter().filter(|line| *line == want).count();
        assert_eq!(matching, 1, "{want}\n{}", lines.join("\n"));
    }

    // What has happened before the start is not counted again.
    let broker = broker.restart(&settings);
    let mut client = broker.client();
    find_coordinator(&mut client, "g");
    find_coordinator(&mut client, "h");
    let lines = scrape(&broker);
    for want in [
        "kafka_server_group_coordinator_metrics_offset_commit_count 0",
        "kafka_server_group_coordinator_metrics_group_completed_rebalance_count 0",
        "kafka_coordinator_group_groupmetadatamanager_numoffsets 3",
    ] {
        assert!(lines.iter().any(|line| line == want), "{want}");
    }
}

#[test]
fn prometheus_is_told_of_groups_of_the_newer_protocol_and_of_what_is_deleted() {
    let mut settings = SETTINGS.to_vec();
    settings.push(("sordini.metrics.listener", "127.0.0.1:0"));
    let broker = TestBroker::start_with(&settings);
    let mut client = broker.client();
    client.create_topic("t", 3);
    find_coordinator(&mut client, "g");
    find_coordinator(&mut client, "h");
    let join = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group_id("g"))
        .with_member_id("m".into())
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(vec![topic_name("t")]))
        .with_topic_partitions(Some(Vec::new()));
    let joined = client.call(1, &join);
    assert_eq!((joined.error_code, joined.member_epoch), (0, 2));
    let all = [("t", 0, 1, ""), ("t", 1, 1, ""), ("t", 2, 1, "")];
    assert_eq!(commit(&mut client, "h", NOBODY, &all), [0; 3]);
    let partitions =
        [0, 2].map(|index| OffsetDeleteRequestPartition::default().with_partition_index(index));
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(topic_name("t"))
        .with_partitions(partitions.into());
    let request = OffsetDeleteRequest::default()
        .with_group_id(group_id("h"))
        .with_topics(vec![topic]);
    assert_eq!(client.call(0, &request).error_code, 0);

    let lines = scrape(&broker);
    for want in [
        "kafka_consumergroup_members{consumergroup=\"g\"} 1",
        "kafka_coordinator_group_groupmetadatamanager_numoffsets 1",
        "kafka_server_group_coordinator_metrics_offset_count 1",
        "kafka_server_group_coordinator_metrics_group_count{protocol=\"classic\"} 1",
        "kafka_server_group_coordinator_metrics_group_count{protocol=\"consumer\"} 1",
        "kafka_server_group_coordinator_metrics_consumer_group_count{state=\"Stable\"} 1",
        "kafka_server_group_coordinator_metrics_consumer_group_count{state=\"Empty\"} 0",
        "kafka_server_group_coordinator_metrics_consumer_group_rebalance_count 1",
        "kafka_server_group_coordinator_metrics_offset_deletion_count 2",
        "kafka_server_group_coordinator_metrics_offset_expiration_count 0",
        "kafka_server_group_coordinator_metrics_num_partitions{state=\"loading\"} 0",
        "kafka_server_group_coordinator_metrics_num_partitions{state=\"failed\"} 0",
    ] {
        let matching = lines.iter().filter(|line| *line == want).count();
        let groups = lines.iter().filter(|line| line.contains("group"));
        let groups: Vec<_> = groups.map(String::as_str).collect();
        assert_eq!(matching, 1, "{want}\n{}", groups.join("\n"));
    }
}
