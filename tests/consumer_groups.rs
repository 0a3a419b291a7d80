//! Groups of the consumer protocol (KIP-848) over the wire: joining, being led to an assignment, fencing, leaving, and
//! what is left after a restart. What is asserted here was answered by Apache Kafka 4.4.0 too, unless a comment says
//! otherwise.

mod common;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use common::{Client, TestBroker, topic_name};
use kafka_protocol::{
    messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DescribeGroupsRequest,
        FindCoordinatorRequest, GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest,
        JoinGroupRequest, JoinGroupResponse, MetadataRequest, OffsetCommitRequest,
        SyncGroupRequest, TopicName,
        consumer_group_describe_response::DescribedGroup,
        consumer_group_heartbeat_request::TopicPartitions,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        join_group_request::JoinGroupRequestProtocol,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};
use protocol::error::ErrorCode;
use uuid::Uuid;

/// Assignments at once, and sessions as short as a group wants them.
const SETTINGS: [(&str, &str); 4] = [
    ("offsets.topic.num.partitions", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.consumer.assignment.interval.ms", "0"),
    ("group.consumer.min.session.timeout.ms", "100"),
];

const PATIENCE: Duration = Duration::from_secs(60);

fn text(text: &str) -> StrBytes {
    text.to_owned().into()
}

fn name_of(code: i16) -> String {
    ErrorCode::try_from_code(code).map_or_else(|| "none".to_owned(), |code| format!("{code:?}"))
}

/// A broker with the topic `t` of three partitions, and what a test says to the group `g`.
struct World {
    broker: TestBroker,
    client: Client,
    topics: BTreeMap<String, Uuid>,
}

impl World {
    fn start_with(properties: &[(&str, &str)]) -> Self {
        let mut all = SETTINGS.to_vec();
        all.extend_from_slice(properties);
        let broker = TestBroker::start_with(&all);
        let mut world = Self {
            client: broker.client(),
            broker,
            topics: BTreeMap::new(),
        };
        world.create_topic("t", 3);
        world.find_coordinator();
        world
    }

    fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same data in another broker.
    fn restart(self) -> Self {
        let broker = self.broker.restart(&SETTINGS);
        let mut world = Self {
            client: broker.client(),
            broker,
            topics: self.topics,
        };
        world.find_coordinator();
        world
    }

    fn create_topic(&mut self, name: &str, count: i32) {
        self.client.create_topic(name, count);
        let answer = self
            .client
            .call(12, &MetadataRequest::default().with_topics(None));
        for topic in answer.topics {
            let name = topic.name.expect("a name").to_string();
            self.topics.insert(name, topic.topic_id);
        }
    }

    /// Waits until the group has a coordinator that answers.
    fn find_coordinator(&mut self) {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.client.call(4, &request).coordinators.remove(0);
            // A group that is not there is an answer.
            let answers = [0, ErrorCode::GroupIdNotFound.code()];
            if found.error_code == 0 && answers.contains(&self.describe().error_code) {
                return;
            }
            let described = self.describe();
            assert!(
                Instant::now() < deadline,
                "no coordinator: {found:?} {described:?}"
            );
        }
    }

    /// `A 0 reads=t`, `A 2 owns=t0,t1`, `A -1`; `regex=`, `instance=`, `assignor=` and `timeout=` besides. The answer is
    /// the member's epoch and what it is to have, or what was wrong.
    fn say(&mut self, words: &str) -> String {
        let mut words = words.split_whitespace();
        let member_id = words.next().expect("a member");
        let epoch = words.next().expect("an epoch").parse().expect("an epoch");
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(text(if member_id == "-" { "" } else { member_id }))
            .with_member_epoch(epoch);
        if epoch == 0 {
            request.rebalance_timeout_ms = 60_000;
            request.topic_partitions = Some(Vec::new());
        }
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match name {
                "group" => request.group_id = GroupId(text(value)),
                "regex" => request.subscribed_topic_regex = Some(text(value)),
                "instance" => request.instance_id = Some(text(value)),
                "assignor" => request.server_assignor = Some(text(value)),
                "timeout" => request.rebalance_timeout_ms = value.parse().expect("a time"),
                "reads" => {
                    let names = value.split(',').map(|name| TopicName(text(name)));
                    request.subscribed_topic_names = Some(names.collect());
                }
                "owns" => request.topic_partitions = Some(self.partitions(value)),
                _ => panic!("unknown word: {name}"),
            }
        }
        let answer = self.client.call(1, &request);
        if answer.error_code != 0 {
            assert!(answer.error_message.is_some(), "{answer:?}");
            return name_of(answer.error_code);
        }
        let mut shown = answer.member_epoch.to_string();
        if let Some(assignment) = answer.assignment {
            let mut given: Vec<String> = Vec::new();
            for topic in assignment.topic_partitions {
                let name = self.topics.iter().find(|(_, id)| **id == topic.topic_id);
                let (name, _) = name.expect("a topic");
                given.extend(
                    topic
                        .partitions
                        .iter()
                        .map(|index| format!("{name}{index}")),
                );
            }
            given.sort();
            shown += &format!(" [{}]", given.join(" "));
        }
        shown
    }

    /// Says it again until it is answered as wanted.
    #[track_caller]
    fn say_until(&mut self, words: &str, want: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let got = self.say(words);
            if got == want {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{words}: {got} instead of {want}"
            );
        }
    }

    /// `t0,t1` by topic.
    fn partitions(&self, words: &str) -> Vec<TopicPartitions> {
        let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let (topic, index) = word.split_at(1);
            let indexes = topics.entry(self.topics[topic]).or_default();
            indexes.push(index.parse().expect("a partition"));
        }
        let topics = topics.into_iter().map(|(topic, indexes)| {
            TopicPartitions::default()
                .with_topic_id(topic)
                .with_partitions(indexes)
        });
        topics.collect()
    }

    fn describe(&mut self) -> DescribedGroup {
        let request =
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text("g"))]);
        self.client.call(1, &request).groups.remove(0)
    }

    /// State, epochs and assignor, and of each member its epoch, what it has and what it is to have.
    fn shown(&mut self) -> String {
        let group = self.describe();
        if group.error_code != 0 {
            return name_of(group.error_code);
        }
        let mut shown = format!(
            "{} {}/{} {}",
            group.group_state, group.group_epoch, group.assignment_epoch, group.assignor_name
        );
        for member in group.members {
            let partitions = |topics: &[kafka_protocol::messages::consumer_group_describe_response::TopicPartitions]| {
                let topics = topics.iter().flat_map(|topic| {
                    let name = topic.topic_name.to_string();
                    topic.partitions.iter().map(move |index| format!("{name}{index}"))
                });
                topics.collect::<Vec<_>>().join(" ")
            };
            shown += &format!(
                ", {}@{} [{}] [{}]",
                &*member.member_id,
                member.member_epoch,
                partitions(&member.assignment.topic_partitions),
                partitions(&member.target_assignment.topic_partitions),
            );
        }
        shown
    }

    /// Commits an offset of a partition of `t`.
    fn commit(&mut self, version: i16, member_id: &str, epoch: i32, index: i32) -> String {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(0);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(text(member_id))
            .with_generation_id_or_member_epoch(epoch)
            .with_topics(vec![topic]);
        let answer = self.client.call(version, &request);
        name_of(answer.topics[0].partitions[0].error_code)
    }

    fn set_config(&mut self, name: &str, value: &str) {
        let config = AlterableConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(32)
            .with_resource_name(text("g"))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.client.call(1, &request);
        assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    }

    /// A member of the classic protocol joins, with what it still has.
    fn join(&mut self, member_id: &str, owned: &[i32]) -> JoinGroupResponse {
        let mut metadata = b"\0\x01\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\x01\0\x01t".to_vec();
        metadata.extend(i32::try_from(owned.len()).expect("a few").to_be_bytes());
        metadata.extend(owned.iter().flat_map(|index| index.to_be_bytes()));
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(metadata.into());
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(text(member_id))
            .with_session_timeout_ms(45_000)
            .with_rebalance_timeout_ms(60_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        self.client.call(9, &request)
    }

    /// What a classic member has, as Kafka's assignment: the partitions of `t`.
    fn sync(
        &mut self,
        member_id: &str,
        generation: i32,
        given: &[i32],
    ) -> Result<Vec<i32>, String> {
        let mut request = SyncGroupRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(text(member_id))
            .with_generation_id(generation)
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")));
        if !given.is_empty() {
            let mut assignment = b"\0\x01\0\0\0\x01\0\x01t".to_vec();
            assignment.extend(i32::try_from(given.len()).expect("a few").to_be_bytes());
            assignment.extend(given.iter().flat_map(|index| index.to_be_bytes()));
            assignment.extend([0xff; 4]);
            let of_member = SyncGroupRequestAssignment::default()
                .with_member_id(text(member_id))
                .with_assignment(assignment.into());
            request.assignments = vec![of_member];
        }
        let answer = self.client.call(5, &request);
        if answer.error_code != 0 {
            return Err(name_of(answer.error_code));
        }
        let indexes = answer.assignment.get(13..answer.assignment.len() - 4);
        let indexes = indexes.unwrap_or_default().chunks(4);
        Ok(indexes
            .map(|it| i32::from_be_bytes(it.try_into().expect("four bytes")))
            .collect())
    }

    fn classic_heartbeat(&mut self, member_id: &str, generation: i32) -> String {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text("g")))
            .with_member_id(text(member_id))
            .with_generation_id(generation);
        name_of(self.client.call(4, &request).error_code)
    }
}

/// Each line is what is said, and the answer behind `=>`.
#[track_caller]
fn script(world: &mut World, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (words, want) = line.split_once("=>").expect("words => answer");
        let words = words.trim();
        let got = match words {
            "describe" => world.shown(),
            _ => world.say(words),
        };
        assert_eq!(got, want.trim(), "{words}");
    }
}

#[test]
fn members_are_led_to_their_shares_step_by_step() {
    let mut world = World::start();
    script(
        &mut world,
        "describe                 => GroupIdNotFound
         A 0 reads=t              => 2 [t0 t1 t2]
         A 2                      => 2
         B 0 reads=t              => 3 []
         describe                 => Reconciling 3/3 uniform, A@2 [t0 t1 t2] [t0 t1], B@3 [] [t2]
         A 2                      => 2 [t0 t1]
         A 2 owns=t0,t1,t2        => 2
         B 3                      => 3
         A 2 owns=t0,t1           => 3
         B 3                      => 3 [t2]
         B 3                      => 3
         describe                 => Stable 3/3 uniform, A@3 [t0 t1] [t0 t1], B@3 [t2] [t2]
         A -1                     => -1
         describe                 => Assigning 4/3 uniform, B@3 [t2] [t2]
         B 3                      => 4 [t0 t1 t2]
         B -1                     => -1
         B 4                      => UnknownMemberId
         describe                 => Empty 5/5 uniform",
    );
}

#[test]
fn a_wrong_epoch_is_fenced_and_may_not_commit() {
    let mut world = World::start();
    script(
        &mut world,
        "A 0 reads=t              => 2 [t0 t1 t2]
         A 1                      => FencedMemberEpoch
         A 3                      => FencedMemberEpoch
         B 3                      => UnknownMemberId
         B 0 reads=t              => 3 []
         A 2                      => 2 [t0 t1]
         A 2 owns=t0,t1           => 3
         B 3                      => 3 [t2]
         A 2 owns=t0              => 3
         A 2 owns=t0,t2           => FencedMemberEpoch",
    );
    for (version, member_id, epoch, index, want) in [
        (9, "A", 3, 0, "none"),
        (9, "A", 2, 0, "none"),
        // It was another's in this epoch.
        (9, "B", 2, 2, "StaleMemberEpoch"),
        (9, "A", 1, 0, "StaleMemberEpoch"),
        (9, "A", 4, 0, "StaleMemberEpoch"),
        (8, "A", 3, 0, "UnsupportedVersion"),
        (9, "X", 3, 0, "UnknownMemberId"),
        (9, "", -1, 0, "UnknownMemberId"),
    ] {
        let got = world.commit(version, member_id, epoch, index);
        assert_eq!(got, want, "{member_id} {epoch} {index}");
    }
}

#[test]
fn an_instance_is_one_member_at_a_time_and_keeps_its_place() {
    let mut world = World::start();
    script(
        &mut world,
        "A 0 reads=t instance=i   => 2 [t0 t1 t2]
         B 0 reads=t instance=i   => UnreleasedInstanceId
         B 2 instance=i           => FencedInstanceId
         A 2 instance=j           => UnknownMemberId
         A -2 instance=i          => -2
         B 0 reads=t instance=i   => 2 [t0 t1 t2]
         A 2 instance=i           => FencedInstanceId
         describe                 => Stable 2/2 uniform, B@2 [t0 t1 t2] [t0 t1 t2]
         B -1 instance=i          => -1
         describe                 => Empty 3/3 uniform",
    );
}

#[test]
fn who_is_silent_or_gives_nothing_back_is_removed() {
    let mut world = World::start();
    world.set_config("consumer.session.timeout.ms", "4000");
    script(
        &mut world,
        "A 0 reads=t              => 2 [t0 t1 t2]
         B 0 reads=t              => 3 []",
    );
    // A says no more.
    world.say_until("B 3", "4 [t0 t1 t2]");
    script(&mut world, "A 2 => UnknownMemberId");
    // B lives, and does not let go.
    script(
        &mut world,
        "B 4 timeout=1000         => 4
         C 0 reads=t              => 5 []
         B 4                      => 4 [t0 t1]",
    );
    world.say_until("B 4", "UnknownMemberId");
    world.say_until("C 5", "6 [t0 t1 t2]");
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let mut world = World::start();
    script(
        &mut world,
        "A 0 group= reads=t       => InvalidRequest
         A 0                      => InvalidRequest
         A 0 reads=t timeout=-1   => InvalidRequest
         A 0 reads=t owns=t0      => InvalidRequest
         A 0 reads=t instance=    => InvalidRequest
         A -2                     => InvalidRequest
         A -3                     => InvalidRequest
         - 0 reads=t              => InvalidRequest
         A 0 reads=t assignor=x   => UnsupportedAssignor
         A 0 regex=(              => InvalidRegularExpression
         A 0 regex=(?=a)          => InvalidRegularExpression
         A 0 regex=((x{99}){99}){99} => InvalidRegularExpression
         A 1                      => GroupIdNotFound
         A -1                     => GroupIdNotFound
         describe                 => GroupIdNotFound",
    );
}

#[test]
fn an_expression_is_resolved_by_the_broker() {
    let mut world = World::start();
    world.create_topic("u", 1);
    assert_eq!(world.say("A 0 regex=[tu]"), "1 []");
    world.say_until("A 1", "2 [t0 t1 t2 u0]");
    // A new one matches nothing until it has been resolved.
    assert_eq!(world.say("A 2 regex=u"), "2 []");
    let described = world.describe();
    assert_eq!(
        described.members[0].subscribed_topic_regex.as_deref(),
        Some("u")
    );
    let deadline = Instant::now() + PATIENCE;
    let mut epoch = "2".to_owned();
    loop {
        let answer = world.say(&format!("A {epoch} owns="));
        if answer.ends_with("[u0]") {
            return;
        }
        assert!(Instant::now() < deadline, "{answer}");
        epoch = answer;
    }
}

#[test]
fn a_restart_loses_no_member() {
    let mut world = World::start();
    script(
        &mut world,
        "A 0 reads=t              => 2 [t0 t1 t2]
         B 0 reads=t instance=i   => 3 []
         A 2                      => 2 [t0 t1]
         C 0 regex=t|u            => 3 []",
    );
    let before = world.shown();
    let mut world = world.restart();
    let after = world.shown();
    // The group's epoch may have gone on for the expression.
    let members = |shown: &str| {
        shown
            .split_once(", ")
            .map(|(_, members)| members.to_owned())
    };
    assert_eq!(members(&after), members(&before));
    script(&mut world, "B 3 instance=j => UnknownMemberId");
    let answer = world.say("A 2 owns=t0,t1");
    assert!(answer.starts_with(['3', '4']), "{answer}");
    assert_eq!(world.say("D 0 reads=t instance=i"), "UnreleasedInstanceId");
}

#[test]
fn a_classic_group_becomes_one_of_the_consumer_protocol_and_a_classic_one_again() {
    let mut world = World::start();
    let id = world.join("", &[]).member_id.to_string();
    assert_eq!(world.join(&id, &[]).generation_id, 1);
    assert_eq!(world.sync(&id, 1, &[0, 1, 2]), Ok(vec![0, 1, 2]));
    assert_eq!(world.shown(), "GroupIdNotFound");
    assert_eq!(world.say("B 0 reads=t"), "2 []");
    assert_eq!(world.classic_heartbeat(&id, 1), "RebalanceInProgress");
    // It gives back what it is not to have any more, and joins again.
    assert_eq!(world.join(&id, &[0, 1, 2]).generation_id, 1);
    assert_eq!(world.sync(&id, 1, &[]), Ok(vec![0, 1]));
    assert_eq!(world.say("B 2"), "2");
    assert_eq!(world.join(&id, &[0, 1]).generation_id, 2);
    assert_eq!(world.sync(&id, 2, &[]), Ok(vec![0, 1]));
    assert_eq!(world.classic_heartbeat(&id, 2), "none");
    assert_eq!(world.say("B 2"), "2 [t2]");
    let types: Vec<i8> = world
        .describe()
        .members
        .iter()
        .map(|it| it.member_type)
        .collect();
    assert_eq!(types.iter().map(|it| i32::from(*it)).sum::<i32>(), 1);

    assert_eq!(world.say("B -1"), "-1");
    assert_eq!(world.shown(), "GroupIdNotFound");
    // A real broker calls the others in the same breath; here it is the next thing that is done.
    let deadline = Instant::now() + PATIENCE;
    while world.classic_heartbeat(&id, 2) != "RebalanceInProgress" {
        assert!(Instant::now() < deadline);
    }
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text("g"))]);
    let described = world.client.call(6, &request).groups.remove(0);
    assert_eq!(&*described.group_state, "PreparingRebalance");
    assert_eq!(described.members.len(), 1);
    let joined = world.join(&id, &[0, 1]);
    assert_eq!((joined.generation_id, &*joined.leader), (3, &*id));
}

#[test]
fn a_cluster_can_do_without_the_consumer_protocol() {
    let broker = TestBroker::start_with(&[("group.coordinator.rebalance.protocols", "classic")]);
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_member_id(text("A"))
        .with_rebalance_timeout_ms(1000)
        .with_subscribed_topic_names(Some(vec![topic_name("t")]))
        .with_topic_partitions(Some(Vec::new()));
    let answer = broker.client().call(1, &request);
    assert_eq!(answer.error_code, ErrorCode::UnsupportedVersion.code());
}
