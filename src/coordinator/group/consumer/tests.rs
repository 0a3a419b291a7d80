//! Scripts of what members say and are told, and what always holds whatever they do.
//!
//! Every record goes through its bytes, and at the end of a script a coordinator that is loaded from all of them has to
//! be the same. What a script expects has been seen at Apache Kafka 4.4.0, but for where a comment says otherwise.

mod recorded;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ConsumerGroupHeartbeatRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
        LeaveGroupRequest, OffsetCommitRequest, OffsetDeleteRequest, SyncGroupRequest, TopicName,
        consumer_group_heartbeat_request::TopicPartitions,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};
use proptest::prelude::*;
use protocol::{
    error::ErrorCode,
    records::{
        group::GroupRecord,
        metadata::{MetadataRecord, PartitionRecord, RemoveTopicRecord, TopicRecord},
    },
};
use replication::cluster::ClusterImage;
use uuid::Uuid;

use super::{
    ConsumerGroup, ResolveExpressions,
    embedded::{decode_assignment, encode_assignment},
    member::{Owned, State},
};
use crate::{
    config::Config,
    coordinator::{
        Answer, Env, Machine, Origin, Ticket,
        group::{
            Committer, Effects, Group, GroupCoordinator,
            request::{Client, ConsumerHeartbeat, Request, Response, Sent},
        },
    },
};

const GROUP: &str = "g";

/// A coordinator, and the world around it.
struct World {
    machine: GroupCoordinator,
    log: Vec<GroupRecord>,
    now: i64,
    /// How far the clock that is set is ahead of the one that nobody sets (ms).
    ahead_ms: i64,
    image: Arc<ClusterImage>,
    config: Config,
    next_ticket: u64,
    next_id: u128,
    /// Answers that nobody has looked at.
    answers: BTreeMap<u64, Result<Response, ErrorCode>>,
    /// The next append fails.
    fails: bool,
    /// What expressions match cannot be appended.
    fails_to_resolve: bool,
    /// Nor can it when it is more topics than this.
    topics_max: usize,
    /// A topic gets so many partitions after the next append, before what follows from it.
    meanwhile: Option<(String, i32)>,
    /// Tasks wait in `tasks` until they are let go.
    holds_tasks: bool,
    tasks: Vec<ResolveExpressions>,
}

impl World {
    fn new(properties: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("log.dirs", "/tmp/nowhere"),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("group.initial.rebalance.delay.ms", "0"),
        ];
        all.extend_from_slice(properties);
        Self {
            machine: GroupCoordinator::default(),
            log: Vec::new(),
            now: 1_000_000,
            ahead_ms: 0,
            image: Arc::new(ClusterImage::empty("cluster")),
            config: Config::single_node(&all).expect("a configuration"),
            next_ticket: 0,
            next_id: 0,
            answers: BTreeMap::new(),
            fails: false,
            fails_to_resolve: false,
            topics_max: usize::MAX,
            meanwhile: None,
            holds_tasks: false,
            tasks: Vec::new(),
        }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut GroupCoordinator, &mut Env<'_>) -> T) -> T {
        let next_id = &mut self.next_id;
        let mut new_id = || {
            *next_id += 1;
            Uuid::from_u128(*next_id)
        };
        work(
            &mut self.machine,
            &mut Env {
                now: self.now + self.ahead_ms,
                steady_now: self.now,
                image: &self.image,
                config: &self.config,
                records_bytes_max: usize::MAX,
                new_id: &mut new_id,
            },
        )
    }

    fn carry_out(&mut self, mut effects: Effects) {
        let resolves = |it: &GroupRecord| {
            matches!(
                it,
                GroupRecord::ConsumerGroupRegularExpression { value: Some(_), .. }
            )
        };
        let fails_to_resolve = self.fails_to_resolve && effects.append.iter().any(resolves);
        let failed =
            fails_to_resolve || !effects.append.is_empty() && std::mem::take(&mut self.fails);
        let topic_counts = effects.append.iter().map(|it| match it {
            GroupRecord::ConsumerGroupRegularExpression {
                value: Some(value), ..
            } => value.topics.len(),
            _ => 0,
        });
        let written = if failed {
            Err(ErrorCode::NotCoordinator)
        } else if self.topics_max < topic_counts.sum() {
            Err(ErrorCode::UnknownServerError)
        } else {
            Ok(())
        };
        if let Err(code) = written {
            let append = std::mem::take(&mut effects.append);
            let answers = self.with(|machine, env| machine.append_failed(append, code, env));
            self.give(answers);
        }
        for record in effects.append {
            let (key, value) = GroupCoordinator::encoded(&record).unwrap();
            let decoded = GroupCoordinator::decode(key, value).expect("a record");
            let decoded = decoded.expect("a record of this version");
            assert_eq!(decoded, record);
            self.log.push(record);
            self.machine.replay(decoded, ORIGIN);
        }
        let answers = effects.answers.into_iter();
        let answers = answers.map(|(ticket, answer)| (ticket, written.and(answer)));
        self.give(answers.collect());
        if let Some((name, count)) = self.meanwhile.take() {
            self.set_topic(&name, count);
        }
        if let Some(then) = effects.then {
            let answers = self.with(|machine, env| then.run(machine, written, env));
            self.give(answers);
        }
        self.check_disjoint();
        self.tasks.extend(effects.tasks);
        if !self.holds_tasks {
            self.do_tasks();
        }
    }

    /// Does what the machine wants done outside, and tells it.
    fn do_tasks(&mut self) {
        for task in std::mem::take(&mut self.tasks) {
            let ticket = self.send(Request::Resolved(task.run()));
            assert!(self.answers.remove(&ticket).is_some());
        }
    }

    fn give(&mut self, answers: Vec<(Ticket, Answer<GroupCoordinator>)>) {
        for (ticket, answer) in answers {
            // Every ticket is answered once.
            assert!(self.answers.insert(ticket.number(), answer).is_none());
        }
    }

    fn ask(&mut self, request: Request) -> Result<Response, ErrorCode> {
        self.ask_and_wait(request).expect("an answer")
    }

    /// `None` if the answer is to come later.
    fn ask_and_wait(&mut self, request: Request) -> Option<Result<Response, ErrorCode>> {
        let ticket = self.send(request);
        self.pass(0);
        self.answers.remove(&ticket)
    }

    fn send(&mut self, request: Request) -> u64 {
        let number = self.next_ticket;
        self.next_ticket += 1;
        let effects = self.with(|machine, env| machine.handle(Ticket::new(number), request, env));
        self.carry_out(effects);
        number
    }

    /// Lets time pass, and what is due happen.
    fn pass(&mut self, ms: i64) {
        let end = self.now + ms;
        loop {
            let due = self.machine.next_deadline().filter(|due| *due <= end);
            self.now = due.map_or(end, |due| due.max(self.now));
            let Some(effects) = self.with(|machine, env| machine.tick(env)) else {
                break;
            };
            self.carry_out(effects);
        }
        self.now = end;
    }

    /// A new leader: all that is known is what is in the log.
    fn reload(&mut self) {
        self.machine = loaded(&self.log);
        let effects = self.with(|machine, env| machine.loaded(env));
        self.carry_out(effects);
    }

    fn change_image(&mut self, records: Vec<MetadataRecord>) {
        let mut image = (*self.image).clone();
        for record in records {
            let offset = image.offset + 1;
            image.replay(offset, &record).expect("a record that fits");
        }
        self.image = Arc::new(image);
        self.with(|machine, env| machine.image_changed(env));
    }

    /// The topic has this many partitions from now on; with none it is gone.
    fn set_topic(&mut self, name: &str, count: i32) {
        let known = self.image.topic(name).cloned();
        let id = known.as_ref().map_or_else(
            || {
                // Another one whenever a topic is created.
                let mut bytes = [0; 16];
                bytes[..name.len()].copy_from_slice(name.as_bytes());
                bytes[8..].copy_from_slice(&self.image.offset.to_be_bytes());
                Uuid::from_bytes(bytes)
            },
            |topic| topic.id,
        );
        let mut records = Vec::new();
        if known.is_none() {
            records.push(MetadataRecord::Topic(TopicRecord {
                name: name.to_owned(),
                topic_id: id,
            }));
        }
        let has = known.map_or(0, |topic| i32::try_from(topic.partitions.len()).unwrap());
        records.extend((has..count).map(|partition_id| {
            MetadataRecord::Partition(PartitionRecord {
                partition_id,
                topic_id: id,
                replicas: vec![1],
                isr: vec![1],
                leader: 1,
                ..PartitionRecord::default()
            })
        }));
        if count == 0 {
            records.push(MetadataRecord::RemoveTopic(RemoveTopicRecord {
                topic_id: id,
            }));
        }
        self.change_image(records);
    }

    fn group(&self) -> Option<&Group> {
        self.machine.groups.get(GROUP)
    }

    fn consumer_group(&self) -> Option<&ConsumerGroup> {
        match self.group()? {
            Group::Consumer(group) => Some(group),
            Group::Classic(_) => None,
        }
    }

    fn name(&self, topic: Uuid) -> String {
        let topic = self.image.topic_by_id(topic);
        topic.map_or("?".to_owned(), |topic| topic.name.to_string())
    }

    fn show_owned(&self, owned: &Owned) -> String {
        let mut shown: Vec<String> = Vec::new();
        for (topic, partitions) in owned {
            let name = self.name(*topic);
            shown.extend(partitions.keys().map(|index| format!("{name}{index}")));
        }
        shown.sort();
        shown.join(" ")
    }

    /// State, epochs, and each member with its epoch and what it has; behind a minus what it has to give back.
    fn show(&self) -> String {
        let group = match self.group() {
            None => return "none".to_owned(),
            Some(Group::Classic(group)) => return format!("classic {group}"),
            Some(Group::Consumer(group)) => group,
        };
        let mut shown = format!("{} {}/{}", group.state(), group.epoch, group.target_epoch);
        for (id, member) in &group.members {
            let mark = if member.is_classic() { "*" } else { "" };
            shown += &format!(" {id}{mark}@{}", member.current.epoch);
            if member.current.state == State::Unreleased {
                shown += "?";
            }
            let assigned = self.show_owned(&member.current.assigned);
            let revoking = self.show_owned(&member.current.revoking);
            shown += &format!("[{assigned}");
            if !revoking.is_empty() {
                shown += &format!("-{revoking}");
            }
            shown += "]";
        }
        shown
    }

    /// Nobody has what another has.
    fn check_disjoint(&self) {
        let Some(group) = self.consumer_group() else {
            return;
        };
        let mut owners = BTreeMap::new();
        for (id, member) in &group.members {
            for owned in [&member.current.assigned, &member.current.revoking] {
                for (topic, partitions) in owned {
                    for index in partitions.keys() {
                        let other = owners.insert((*topic, *index), id);
                        assert_eq!(other, None, "{index} is also {id}'s");
                        assert!(!group.is_free(*topic, *index));
                    }
                }
            }
        }
        let (mut topics, mut patterns) = (BTreeSet::new(), BTreeSet::new());
        for about in group.members.values().map(|member| &member.about) {
            topics.extend(&about.topic_names);
            patterns.extend(Some(&about.topic_regex).filter(|it| !it.is_empty()));
        }
        assert!(group.patterns().eq(patterns), "{:?}", group.subscriptions);
        assert!(group.topic_names().eq(topics), "{:?}", group.subscriptions);
        let known: usize = group.owners.values().map(BTreeMap::len).sum();
        assert_eq!(known, owners.len());
    }
}

const ORIGIN: Origin = Origin {
    offset: 0,
    producer: None,
};

fn loaded(log: &[GroupRecord]) -> GroupCoordinator {
    let mut machine = GroupCoordinator::default();
    for record in log {
        machine.replay(record.clone(), ORIGIN);
    }
    machine
}

fn text(text: &str) -> StrBytes {
    text.to_owned().into()
}

fn client(version: i16) -> Client {
    Client {
        version,
        id: Arc::from("client"),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

/// `T0 T1 U0` by topic.
fn partitions<'a>(words: impl Iterator<Item = &'a str>) -> Vec<(String, Vec<i32>)> {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for word in words {
        let (topic, index) = word.split_at(1);
        let indexes = topics.entry(topic.to_owned()).or_default();
        indexes.push(index.parse().expect("a partition"));
    }
    topics.into_iter().collect()
}

/// Runs a script of `command = outcome`, one a line.
#[track_caller]
fn check_with(properties: &[(&str, &str)], script: &str) {
    let mut world = World::new(properties);
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (command, want) = match line.split_once(" = ") {
            Some((command, want)) => (command, Some(want)),
            None => (line, None),
        };
        let words: Vec<&str> = command.split_whitespace().collect();
        let got = run(&mut world, &words);
        if let Some(want) = want {
            assert_eq!(
                got.trim(),
                want.trim(),
                "after `{command}`, group: {}",
                world.show()
            );
        }
    }
    check_replayed(&world);
}

/// Who loads the log has the same.
#[track_caller]
fn check_replayed(world: &World) {
    let again = loaded(&world.log);
    if let (Some(group), Some(Group::Consumer(again))) =
        (world.consumer_group(), again.groups.get(GROUP))
    {
        let mut again = again.clone();
        again.looked = group.looked.clone();
        assert_eq!(format!("{group:?}"), format!("{again:?}"), "loaded again");
    } else {
        assert_eq!(
            world.consumer_group().is_none(),
            !matches!(again.groups.get(GROUP), Some(Group::Consumer(_)))
        );
    }
}

#[track_caller]
fn check(script: &str) {
    check_with(&[], script);
}

fn run(world: &mut World, words: &[&str]) -> String {
    match *words {
        ["group"] => world.show(),
        ["topic", name, count] => {
            world.set_topic(name, count.parse().expect("a count"));
            String::new()
        }
        ["meanwhile", name, count] => {
            let count = count.parse().expect("a count");
            world.meanwhile = Some((name.to_owned(), count));
            String::new()
        }
        ["topics-max", count] => {
            world.topics_max = count.parse().expect("a count");
            String::new()
        }
        ["wait", ms] => {
            world.pass(ms.parse().expect("a time"));
            String::new()
        }
        ["ahead", ms] => {
            world.ahead_ms = ms.parse().expect("a time");
            String::new()
        }
        ["fail"] => {
            world.fails = true;
            String::new()
        }
        ["reload"] => {
            world.reload();
            String::new()
        }
        ["config", name, value] => {
            use protocol::records::metadata::ConfigRecord;
            world.change_image(vec![MetadataRecord::Config(ConfigRecord {
                resource_type: 32,
                resource_name: GROUP.to_owned(),
                name: name.to_owned(),
                value: Some(value.to_owned()),
            })]);
            String::new()
        }
        ["commit", member, epoch, ref partitions @ ..] => {
            commit(world, member, epoch, partitions, false)
        }
        ["transaction", member, epoch, ref partitions @ ..] => {
            commit(world, member, epoch, partitions, true)
        }
        ["keep", member, epoch, ref partitions @ ..] => keep(world, member, epoch, partitions),
        ["offsets"] => {
            let topics = world.machine.offsets.of(GROUP).into_iter().flatten();
            let offsets = topics.flat_map(|(topic, offsets)| {
                let partitions = offsets.iter();
                partitions.map(move |it| format!("{topic}{}", it.partition))
            });
            let offsets: Vec<String> = offsets.collect();
            match &*offsets {
                [] => "none".to_owned(),
                offsets => offsets.join(" "),
            }
        }
        ["fetch", member, epoch] => {
            let group = world.group().expect("a group");
            let member = Some(member).filter(|it| *it != "-");
            outcome(group.check_fetch(member, epoch.parse().expect("an epoch")))
        }
        ["delete"] => outcome(world.group().expect("a group").check_delete()),
        ["reads", topic] => world
            .group()
            .expect("a group")
            .is_subscribed_to(topic)
            .to_string(),
        ["classic", member, ref words @ ..] => classic(world, member, words),
        [member, ref words @ ..] => heartbeat(world, member, words),
        [] => String::new(),
    }
}

fn outcome(outcome: Result<(), ErrorCode>) -> String {
    outcome.map_or_else(|code| format!("{code:?}"), |()| "ok".to_owned())
}

fn commit(
    world: &World,
    member_id: &str,
    epoch: &str,
    words: &[&str],
    transactional: bool,
) -> String {
    let partitions = partitions(words.iter().copied());
    let image = &world.image;
    let visit = |visit: &mut dyn FnMut(Uuid, i32)| {
        for (topic, indexes) in &partitions {
            let id = image.topic(topic).map_or_else(Uuid::nil, |topic| topic.id);
            indexes.iter().for_each(|index| visit(id, *index));
        }
    };
    let member_id = if member_id == "-" { "" } else { member_id };
    outcome(world.group().expect("a group").check_commit(&Committer {
        member_id,
        group_instance_id: None,
        epoch: epoch.parse().expect("an epoch"),
        transactional,
        version: 9,
        partitions: &visit,
    }))
}

/// Commits for good, where `commit` only asks whether it may.
fn keep(world: &mut World, member_id: &str, epoch: &str, words: &[&str]) -> String {
    let topics = partitions(words.iter().copied()).into_iter();
    let topics = topics.map(|(topic, indexes)| {
        let partitions = indexes.into_iter().map(|index| {
            let partition = OffsetCommitRequestPartition::default().with_partition_index(index);
            partition.with_committed_offset(1)
        });
        OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(&topic)))
            .with_partitions(partitions.collect())
    });
    let body = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member_id))
        .with_generation_id_or_member_epoch(epoch.parse().expect("an epoch"))
        .with_topics(topics.collect());
    let client = client(9);
    let answer = world.ask(Request::Commit(Sent { client, body }));
    outcome(answer.map(|_| ()))
}

/// `A join T U`, `A 3`, `A 3 owns T0 T1`, `A 3 reads T`, `A leave`, `A away`; `inst=i`, `regex=r`, `rt=ms`,
/// `assignor=a` and `full` anywhere. A join reads the topics it names.
fn heartbeat(world: &mut World, member_id: &str, words: &[&str]) -> String {
    let mut request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member_id));
    let mut names: Option<Vec<&str>> = None;
    let mut owned: Option<Vec<&str>> = None;
    let mut list = None;
    for (at, word) in words.iter().enumerate() {
        match (word.split_once('='), *word) {
            (Some(("inst", id)), _) => request.instance_id = Some(text(id)),
            (Some(("regex", regex)), _) => request.subscribed_topic_regex = Some(text(regex)),
            (Some(("rt", ms)), _) => request.rebalance_timeout_ms = ms.parse().expect("a time"),
            (Some(("assignor", name)), _) => request.server_assignor = Some(text(name)),
            (_, "join") => {
                request.rebalance_timeout_ms = 60_000;
                owned = Some(Vec::new());
                list = Some("reads");
            }
            (_, "leave") => request.member_epoch = -1,
            (_, "away") => request.member_epoch = -2,
            (_, "owns") => {
                owned = Some(Vec::new());
                list = Some("owns");
            }
            (_, "reads") => {
                names = Some(Vec::new());
                list = Some("reads");
            }
            (_, epoch) if at == 0 => request.member_epoch = epoch.parse().expect("an epoch"),
            (_, word) if list == Some("owns") => owned.get_or_insert_default().push(word),
            (_, word) => names.get_or_insert_default().push(word),
        }
    }
    request.subscribed_topic_names = names.map(|names| {
        names
            .into_iter()
            .map(|name| TopicName(text(name)))
            .collect()
    });
    request.topic_partitions = owned.map(|words| {
        let topics = partitions(words.into_iter())
            .into_iter()
            .map(|(topic, indexes)| {
                let id = world
                    .image
                    .topic(&topic)
                    .map_or_else(Uuid::nil, |topic| topic.id);
                TopicPartitions::default()
                    .with_topic_id(id)
                    .with_partitions(indexes)
            });
        topics.collect()
    });
    let request = Sent {
        client: client(1),
        body: request,
    };
    let response = match world.ask(Request::ConsumerHeartbeat(ConsumerHeartbeat::new(request))) {
        Ok(Response::ConsumerHeartbeat(response)) => response,
        Ok(other) => panic!("not the answer to a heartbeat: {other:?}"),
        Err(code) => return format!("{code:?}"),
    };
    if response.error_code != 0 {
        let code = ErrorCode::try_from_code(response.error_code).expect("a code");
        return format!("{code:?}");
    }
    let mut shown = response.member_epoch.to_string();
    if let Some(assignment) = response.assignment {
        let mut given = Vec::new();
        for topic in assignment.topic_partitions {
            let name = world.name(topic.topic_id);
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

/// Members of the classic protocol: `classic a join T owns T0`, `sync 1 a=T0,T1 b=T2`, `beat 1`, `leave`.
fn classic(world: &mut World, member_id: &str, words: &[&str]) -> String {
    let group_id = GroupId(text(GROUP));
    let member_id = if member_id == "-" { "" } else { member_id };
    let shown = |answer: Result<Response, ErrorCode>| match answer {
        Err(code) => format!("{code:?}"),
        Ok(Response::Join(it)) if it.error_code != 0 => {
            format!(
                "{:?} {}",
                ErrorCode::try_from_code(it.error_code).unwrap(),
                &*it.member_id
            )
        }
        Ok(Response::Join(it)) => format!("{} {}", &*it.member_id, it.generation_id),
        Ok(Response::Sync(it)) => {
            let mut given = Vec::new();
            for (topic, indexes) in decode_assignment(&it.assignment).expect("an assignment") {
                given.extend(indexes.iter().map(|index| format!("{topic}{index}")));
            }
            format!("[{}]", given.join(" "))
        }
        Ok(Response::Heartbeat(_)) => "ok".to_owned(),
        Ok(Response::Leave(it)) => {
            let codes = it
                .members
                .iter()
                .map(|it| ErrorCode::try_from_code(it.error_code));
            codes
                .map(|code| code.map_or("ok".to_owned(), |code| format!("{code:?}")))
                .collect()
        }
        Ok(other) => panic!("not the answer to this: {other:?}"),
    };
    match *words {
        ["join", ref words @ ..] => {
            let mut join = JoinGroupRequest::default()
                .with_group_id(group_id)
                .with_session_timeout_ms(45_000)
                .with_rebalance_timeout_ms(60_000)
                .with_member_id(text(member_id))
                .with_protocol_type(text("consumer"));
            let (mut topics, mut owned, mut protocol) = (Vec::new(), None, "range");
            for word in words {
                match (word.split_once('='), *word) {
                    (Some(("inst", id)), _) => join.group_instance_id = Some(text(id)),
                    (Some(("protocol", name)), _) => protocol = name,
                    (Some(("type", name)), _) => join.protocol_type = text(name),
                    (_, "owns") => owned = Some(Vec::new()),
                    (_, word) if owned.is_some() => owned.get_or_insert_default().push(word),
                    (_, word) => topics.push(word),
                }
            }
            let mut metadata = b"\0\x01".to_vec();
            let put = |out: &mut Vec<u8>, count: usize| {
                out.extend(u32::try_from(count).unwrap().to_be_bytes())
            };
            put(&mut metadata, topics.len());
            for topic in topics {
                metadata.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
                metadata.extend(topic.as_bytes());
            }
            metadata.extend([255; 4]);
            // An assignment is written as what is owned, between a version and nothing.
            let owned = partitions(owned.unwrap_or_default().into_iter());
            let owned = owned
                .iter()
                .map(|(topic, indexes)| (&**topic, indexes.clone()));
            let owned = encode_assignment(1, owned.collect::<Vec<_>>().into_iter());
            metadata.extend(&owned[2..owned.len() - 4]);
            let metadata = if words == ["?"] {
                b"xx".to_vec()
            } else {
                metadata
            };
            join.protocols = vec![
                JoinGroupRequestProtocol::default()
                    .with_name(text(protocol))
                    .with_metadata(Bytes::from(metadata)),
            ];
            let body = Sent {
                client: client(9),
                body: join,
            };
            let answer = world.ask_and_wait(Request::Join(body));
            answer.map_or("waits".to_owned(), shown)
        }
        ["sync", generation, ref given @ ..] => {
            let assignments = given.iter().map(|given| {
                let (member_id, given) = given.split_once('=').expect("member=partitions");
                let given = partitions(given.split(',').filter(|it| !it.is_empty()));
                let given = given
                    .iter()
                    .map(|(topic, indexes)| (&**topic, indexes.clone()));
                SyncGroupRequestAssignment::default()
                    .with_member_id(text(member_id))
                    .with_assignment(encode_assignment(1, given.collect::<Vec<_>>().into_iter()))
            });
            let body = SyncGroupRequest::default()
                .with_group_id(group_id)
                .with_generation_id(generation.parse().expect("a generation"))
                .with_member_id(text(member_id))
                .with_protocol_type(Some(text("consumer")))
                .with_protocol_name(Some(text("range")))
                .with_assignments(assignments.collect());
            shown(world.ask(Request::Sync(Sent {
                client: client(5),
                body,
            })))
        }
        ["beat", generation] => {
            let body = HeartbeatRequest::default()
                .with_group_id(group_id)
                .with_generation_id(generation.parse().expect("a generation"))
                .with_member_id(text(member_id));
            shown(world.ask(Request::Heartbeat(Sent {
                client: client(4),
                body,
            })))
        }
        ["leave"] => {
            let member = MemberIdentity::default().with_member_id(text(member_id));
            let body = LeaveGroupRequest::default()
                .with_group_id(group_id)
                .with_members(vec![member]);
            shown(world.ask(Request::Leave(Sent {
                client: client(5),
                body,
            })))
        }
        _ => panic!("unknown command: {words:?}"),
    }
}

#[test]
fn a_member_comes_and_goes() {
    check(
        "topic T 3
         A join T = 2 [T0 T1 T2]
         group = Stable 2/2 A@2[T0 T1 T2]
         A 2 = 2
         A 2 full reads T = 2
         A 2 rt=60000 reads T owns T0 T1 T2 = 2 [T0 T1 T2]
         delete = NonEmptyGroup
         reads T = true
         A leave = -1
         group = Empty 3/3
         delete = ok
         reads T = false
         A 2 = UnknownMemberId
         A join T = 4 [T0 T1 T2]",
    );
}

#[test]
fn what_one_gives_back_the_other_gets() {
    check(
        "topic T 3
         A join T = 2 [T0 T1 T2]
         wait 1000
         B join T = 3 []
         group = Reconciling 3/3 A@2[T0 T1 T2] B@3?[]
         A 2 = 2 [T0 T1]
         A 2 owns T0 T1 T2 = 2
         group = Reconciling 3/3 A@2[T0 T1-T2] B@3?[]
         B 3 = 3
         A 2 owns T0 T1 = 3
         A 2 owns T0 T1 = 3
         B 3 = 3 [T2]
         B 3 = 3
         group = Stable 3/3 A@3[T0 T1] B@3[T2]
         A leave = -1
         group = Assigning 4/3 B@3[T2]
         wait 1000
         B 3 = 4 [T0 T1 T2]
         B leave = -1
         group = Empty 5/5",
    );
}

#[test]
fn assignments_are_computed_once_in_an_interval() {
    check(
        "topic T 3
         A join T = 2 [T0 T1 T2]
         B join T = 2 []
         group = Assigning 3/2 A@2[T0 T1 T2] B@2[]
         wait 999
         B 2 = 2
         wait 1
         B 2 = 3
         group = Reconciling 3/3 A@2[T0 T1 T2] B@3?[]
         config consumer.assignment.interval.ms 0
         C join T = 4 []",
    );
}

/// It was an hour ahead, or the data are from a machine whose clock was. Nobody was assigned anything for an hour.
#[test]
fn assignments_go_on_when_the_clock_is_set_back() {
    check(
        "topic T 3
         topic ab 1
         ahead 3600000
         A join T = 2 [T0 T1 T2]
         X join regex=a. = 2 []
         ahead 0
         B join T = 4 []
         A 2 = 2 [T0 T1]
         A 2 owns T0 T1 = 4
         wait 1000
         topic ac 1
         wait 10000
         X 2 = 4 [ab0]
         X 4 = 5 [ab0 ac0]",
    );
}

#[test]
fn a_wrong_epoch_is_fenced_unless_the_answer_was_lost() {
    check(
        "topic T 3
         A join T = 2 [T0 T1 T2]
         A 1 = FencedMemberEpoch
         A 3 = FencedMemberEpoch
         wait 1000
         B join T = 3 []
         A 2 = 2 [T0 T1]
         A 2 owns T0 T1 = 3
         A 2 = FencedMemberEpoch
         A 2 owns T0 T1 T2 = FencedMemberEpoch
         A 2 owns T0 = 3
         A join T = 3 [T0 T1]
         C 3 = UnknownMemberId
         A 0 reads T = InvalidRequest",
    );
}

#[test]
fn who_does_not_give_back_in_time_is_removed_and_who_is_silent_too() {
    check(
        "topic T 3
         A join T rt=2000 = 2 [T0 T1 T2]
         wait 1000
         B join T = 3 []
         A 2 = 2 [T0 T1]
         wait 1999
         A 2 = 2
         wait 1
         A 2 = UnknownMemberId
         B 3 = 4 [T0 T1 T2]
         wait 44999
         group = Stable 4/4 B@4[T0 T1 T2]
         wait 1
         group = Empty 5/5",
    );
}

#[test]
fn sessions_begin_again_when_the_group_is_loaded_and_can_be_longer() {
    check(
        "topic T 1
         config consumer.session.timeout.ms 60000
         A join T = 2 [T0]
         wait 50000
         reload
         wait 50000
         A 2 = 2
         wait 60000
         group = Empty 3/3",
    );
}

#[test]
fn members_commit_in_their_epoch_and_in_older_ones_what_they_have_had_since() {
    check(
        "topic T 3
         A join T
         wait 1000
         B join T
         A 2
         A 2 owns T0 T1 = 3
         B 3 = 3 [T2]
         commit A 3 T0 = ok
         commit A 3 T2 = ok
         commit A 2 T0 = ok
         commit A 2 T2 = StaleMemberEpoch
         commit A 2 T0 T2 = StaleMemberEpoch
         commit A 1 T0 = StaleMemberEpoch
         commit A 4 T0 = StaleMemberEpoch
         commit B 2 T2 = StaleMemberEpoch
         commit B 2 T0 = StaleMemberEpoch
         commit X 3 T0 = UnknownMemberId
         commit - -1 T0 = UnknownMemberId
         transaction - -1 T0 = ok
         transaction - 3 T0 = UnknownMemberId
         transaction X -1 T0 = UnknownMemberId
         transaction A 3 T0 = ok
         commit A -1 T0 = StaleMemberEpoch
         fetch A 3 = ok
         fetch A 2 = StaleMemberEpoch
         fetch X 3 = UnknownMemberId
         fetch - -1 = ok
         A leave
         B leave
         commit - -1 T0 = ok
         commit A 3 T0 = UnknownMemberId",
    );
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    check(
        "topic T 3
         A join T inst=i = 2 [T0 T1 T2]
         B join T inst=i = UnreleasedInstanceId
         B 2 inst=i = FencedInstanceId
         B away inst=i = FencedInstanceId
         B leave inst=i = FencedInstanceId
         A 2 inst=j = UnknownMemberId
         A away = InvalidRequest
         A away inst=i = -2
         group = Reconciling 2/2 A@-2[T0 T1 T2]
         A 2 inst=i = FencedMemberEpoch
         commit A 2 T0 = StaleMemberEpoch
         C join T inst=i = 2 [T0 T1 T2]
         group = Stable 2/2 C@2[T0 T1 T2]
         C 2 inst=i = 2
         C away inst=i = -2
         C join T inst=i = 2 [T0 T1 T2]
         wait 44999
         group = Stable 2/2 C@2[T0 T1 T2]
         C away inst=i = -2
         wait 45000
         group = Empty 3/3",
    );
}

#[test]
fn topics_come_grow_and_go() {
    check(
        "topic U 2
         A join U V = 2 [U0 U1]
         topic V 1
         group = Stable 2/2 A@2[U0 U1]
         A 2 = 2
         group = Assigning 3/2 A@2[U0 U1]
         wait 1000
         A 2 = 3 [U0 U1 V0]
         wait 1000
         topic V 2
         A 3 = 4 [U0 U1 V0 V1]
         wait 1000
         topic V 0
         A 4 = 4 [U0 U1]
         A 4 owns U0 U1 = 5
         topic W 9
         A 5 = 5
         group = Stable 5/5 A@5[U0 U1]",
    );
}

#[test]
fn what_is_no_longer_read_is_taken_at_once() {
    check(
        "topic T 2
         topic U 1
         A join T U = 2 [T0 T1 U0]
         A 2 reads U = 2 [U0]
         group = Assigning 3/2 A@2[U0-T0 T1]
         wait 1000
         A 2 owns U0 = 3
         A 3 reads = 3 []
         wait 1000
         A 3 owns = 4
         group = Stable 4/4 A@4[]",
    );
}

#[test]
fn who_reads_nothing_needs_no_epoch() {
    check(
        "A join regex= = 1 []
         group = Stable 1/1 A@1[]
         A leave = -1
         group = Empty 2/2",
    );
}

#[test]
fn expressions_are_resolved_and_kept_up_to_date() {
    check(
        "topic ab 1
         topic ac 1
         topic b 1
         A join regex=a. = 1 []
         A 1 = 2 [ab0 ac0]
         B join regex=( = InvalidRegularExpression
         wait 1000
         B join regex=a. = 3 []
         A 2 = 2 [ab0]
         A 2 owns = 3
         B 3 = 3 [ac0]
         topic ad 1
         wait 10000
         A 3 = 3
         A 3 = 4 [ab0 ad0]
         B 3 = 4
         topic ad 0
         reads b = false
         B leave
         reads ac = true
         A leave
         reads ac = false",
    );
}

#[test]
fn an_assignor_is_what_most_want() {
    check(
        "topic T 2
         topic U 2
         A join T U assignor=range
         wait 1000
         B join T U
         A 2 = 2 [T0 U0]
         C join T assignor=nope = UnsupportedAssignor
         wait 1000
         A 2 assignor=uniform owns T0 U0
         group = Reconciling 4/4 A@4[T0 U0] B@3?[]",
    );
}

#[test]
fn a_full_group_takes_nobody_more() {
    check_with(
        &[("group.consumer.max.size", "1")],
        "topic T 1
         A join T = 2 [T0]
         B join T = GroupMaxSizeReached
         A join T = 2 [T0]",
    );
}

#[test]
fn a_classic_group_is_upgraded_and_downgraded_again() {
    check(
        "topic T 3
         classic - join T = MemberIdRequired client-00000000-0000-0000-0000-000000000001
         classic client-00000000-0000-0000-0000-000000000001 join T = client-00000000-0000-0000-0000-000000000001 1
         classic client-00000000-0000-0000-0000-000000000001 sync 1 client-00000000-0000-0000-0000-000000000001=T0,T1,T2 = [T0 T1 T2]
         B join T = 2 []
         group = Reconciling 2/2 B@2?[] client-00000000-0000-0000-0000-000000000001*@1[T0 T1 T2]
         classic client-00000000-0000-0000-0000-000000000001 beat 1 = RebalanceInProgress
         classic client-00000000-0000-0000-0000-000000000001 beat 2 = IllegalGeneration
         classic client-00000000-0000-0000-0000-000000000001 join T owns T0 T1 T2 = client-00000000-0000-0000-0000-000000000001 1
         classic client-00000000-0000-0000-0000-000000000001 sync 1 = [T0 T1]
         classic client-00000000-0000-0000-0000-000000000001 beat 1 = RebalanceInProgress
         classic client-00000000-0000-0000-0000-000000000001 join T owns T0 T1 = client-00000000-0000-0000-0000-000000000001 2
         classic client-00000000-0000-0000-0000-000000000001 sync 2 = [T0 T1]
         classic client-00000000-0000-0000-0000-000000000001 beat 2 = ok
         B 2 = 2 [T2]
         commit client-00000000-0000-0000-0000-000000000001 1 T1 = ok
         commit client-00000000-0000-0000-0000-000000000001 1 T2 = IllegalGeneration
         classic B beat 2 = UnknownMemberId
         classic x beat 2 = UnknownMemberId
         classic - join protocol=other T = InconsistentGroupProtocol
         classic - join type=connect T = InconsistentGroupProtocol
         classic - join ? = InconsistentGroupProtocol
         reload
         group = Stable 2/2 B@2[T2] client-00000000-0000-0000-0000-000000000001*@2[T0 T1]
         B leave = -1
         group = classic PreparingRebalance 2 range client-00000000-0000-0000-0000-000000000001*
         classic client-00000000-0000-0000-0000-000000000001 beat 2 = RebalanceInProgress
         classic client-00000000-0000-0000-0000-000000000001 join T = client-00000000-0000-0000-0000-000000000001 3",
    );
}

#[test]
fn groups_that_cannot_be_upgraded_stay_what_they_are() {
    let joins = |words: &str| {
        format!(
            "classic - join {words}
             classic client-00000000-0000-0000-0000-000000000001 join {words}
             classic client-00000000-0000-0000-0000-000000000001 sync 1
             B join T = GroupIdNotFound
             B 1 = GroupIdNotFound
             B leave = GroupIdNotFound"
        )
    };
    check(&joins("type=connect T"));
    check(&joins("?"));
    check_with(
        &[("group.consumer.migration.policy", "downgrade")],
        &joins("T"),
    );
}

/// By the time of each commit, also when the group is empty: a real broker takes the time at which it became so for
/// classic groups only.
#[test]
fn offsets_go_when_they_are_old_and_nobody_reads_their_topic() {
    let settings = [
        ("offsets.retention.minutes", "1"),
        ("offsets.retention.check.interval.ms", "1000"),
    ];
    for joins in [
        "A join T = 2 [T0 T1]",
        "A join regex=T = 1 []\nA 1 = 2 [T0 T1]",
    ] {
        check_with(
            &settings,
            &format!(
                "reload
                 topic T 2
                 topic U 1
                 {joins}
                 keep A 2 T0 U0 = ok
                 wait 30000
                 A 2 = 2
                 wait 29000
                 offsets = T0 U0
                 A 2 = 2
                 wait 2000
                 offsets = T0
                 wait 40000
                 A 2 = 2
                 keep A 2 T1 = ok
                 wait 40000
                 offsets = T0 T1
                 A leave = -1
                 wait 1000
                 offsets = T1
                 group = Empty 3/3
                 wait 20000
                 offsets = none
                 group = none"
            ),
        );
    }
}

/// The group may not become a classic one, and nobody is left whose heartbeats compute who is to have what. Apache Kafka
/// 4.4.0 answers the classic members as if nothing were wrong then, and what the others had is read by nobody until
/// somebody joins.
#[test]
fn classic_members_that_are_alone_are_called_to_what_the_others_had() {
    let script = "topic T 2
         B join T = 2 [T0 T1]
         wait 1000
         classic a join T = a 3
         B 2 = 2 [T0]
         B 2 owns T0 = 3
         classic a beat 3 = RebalanceInProgress
         classic a join T = a 3
         classic a sync 3 = [T1]
         classic a beat 3 = ok
         B leave = -1
         group = Assigning 4/3 a*@3[T1]
         classic a beat 3 = ok
         wait 1000
         classic a beat 3 = RebalanceInProgress
         classic a join T owns T1 = a 4
         classic a sync 4 = [T0 T1]
         classic a beat 4 = ok
         wait 1000
         topic U 1
         classic a beat 4 = ok
         topic T 3
         classic a beat 4 = RebalanceInProgress
         classic a join T owns T0 T1 = a 5
         classic a sync 5 = [T0 T1 T2]
         classic a beat 5 = ok
         group = Stable 5/5 a*@5[T0 T1 T2]
         reload
         classic a beat 5 = ok";
    for policy in ["upgrade", "disabled"] {
        check_with(&[("group.consumer.migration.policy", policy)], script);
    }
}

/// Heartbeats of the consumer protocol compute it then, and nobody else is called for that.
#[test]
fn classic_members_wait_for_others_to_compute_what_everybody_is_to_have() {
    check(
        "topic T 2
         B join T = 2 [T0 T1]
         wait 1000
         classic a join T = a 3
         B 2 = 2 [T0]
         B 2 owns T0 = 3
         classic a beat 3 = RebalanceInProgress
         classic a join T = a 3
         wait 1000
         topic T 3
         classic a beat 3 = ok
         B 3 = 4 [T0 T2]
         classic a beat 3 = RebalanceInProgress",
    );
}

#[test]
fn a_classic_member_joins_and_is_the_last_to_stay() {
    check(
        "topic T 2
         B join T = 2 [T0 T1]
         wait 1000
         classic a join T = a 3
         classic a sync 3 = []
         classic a beat 3 = ok
         B 2 = 2 [T0]
         B 2 owns T0 = 3
         classic a beat 3 = RebalanceInProgress
         classic a join T = a 3
         classic a sync 3 = [T1]
         classic a beat 3 = ok
         wait 44000
         classic a beat 3 = ok
         B 3 = 3
         wait 44000
         classic a beat 3 = ok
         wait 1000
         group = classic PreparingRebalance 3 range a*",
    );
}

#[test]
fn a_classic_member_that_is_called_and_does_not_come_is_removed() {
    check(
        "topic T 2
         classic a join T = UnknownMemberId
         B join T = 2 [T0 T1]
         wait 1000
         classic a join T
         classic a sync 3
         B 2
         B 2 owns T0
         classic a beat 3 = RebalanceInProgress
         wait 40000
         B 3 = 3
         classic a beat 3 = RebalanceInProgress
         wait 20000
         B 3 = 4 [T0 T1]
         group = Stable 4/4 B@4[T0 T1]",
    );
}

#[test]
fn empty_groups_change_their_kind() {
    check(
        "topic T 1
         B join T = 2 [T0]
         B leave
         classic x join T = UnknownMemberId
         group = Empty 3/3
         classic - join T = MemberIdRequired client-00000000-0000-0000-0000-000000000001
         classic client-00000000-0000-0000-0000-000000000001 join T
         classic client-00000000-0000-0000-0000-000000000001 leave = ok
         B 3 = GroupIdNotFound
         B join T = 2 [T0]
         group = Stable 2/2 B@2[T0]",
    );
}

#[test]
fn a_static_member_takes_its_place_in_the_other_protocol() {
    check(
        "topic T 1
         A join T inst=i = 2 [T0]
         classic - join T inst=i = AAAAAAAAAAAAAAAAAAAAAQ 2
         group = classic Stable 2 range AAAAAAAAAAAAAAAAAAAAAQ*
         B join T inst=i = 2 [T0]
         group = Stable 2/2 B@2[T0]",
    );
}

/// Everybody in the group is in the records that make it a classic one. When those could not be written all of them
/// once counted as members to be removed, the living with the dead.
#[test]
fn who_lives_stays_when_a_downgrade_cannot_be_written() {
    check(
        "topic T 2
         B join T = 2 [T0 T1]
         wait 1000
         classic a join T = a 3
         classic a sync 3 = []
         wait 43000
         classic a beat 3 = ok
         fail
         wait 1000
         group = Reconciling 3/3 B@2[T0 T1] a*@3?[]
         wait 999
         group = Reconciling 3/3 B@2[T0 T1] a*@3?[]
         classic a beat 3 = ok
         wait 1
         group = classic PreparingRebalance 3 range a*
         wait 44000
         group = classic PreparingRebalance 3 range a*",
    );
}

#[test]
fn a_member_that_could_not_leave_is_a_member_as_before() {
    check(
        "topic T 1
         A join T = 2 [T0]
         A 2 = 2
         fail
         A leave = NotCoordinator
         wait 44000
         A 2 = 2
         wait 44999
         group = Stable 2/2 A@2[T0]
         fail
         wait 1
         group = Stable 2/2 A@2[T0]
         wait 999
         group = Stable 2/2 A@2[T0]
         A 2 = 2
         wait 44999
         group = Stable 2/2 A@2[T0]
         wait 1
         group = Empty 3/3",
    );
}

/// A static member that is away has its session to come back in, also if it could not be replaced.
#[test]
fn who_could_not_be_replaced_keeps_its_place() {
    check(
        "topic T 1
         A join T inst=i = 2 [T0]
         A away inst=i = -2
         fail
         B join T inst=i = NotCoordinator
         wait 44999
         group = Reconciling 2/2 A@-2[T0]
         A join T inst=i = 2 [T0]
         wait 44999
         group = Stable 2/2 A@2[T0]
         wait 1
         group = Empty 3/3",
    );
}

/// Nothing that a group waited for in one protocol is waited for in the other.
#[test]
fn the_deadlines_of_a_classic_group_end_with_it() {
    check(
        "topic T 2
         classic - join T = MemberIdRequired client-00000000-0000-0000-0000-000000000001
         classic client-00000000-0000-0000-0000-000000000001 join T = client-00000000-0000-0000-0000-000000000001 1
         classic client-00000000-0000-0000-0000-000000000001 sync 1 client-00000000-0000-0000-0000-000000000001=T0,T1 = [T0 T1]
         classic - join T = MemberIdRequired client-00000000-0000-0000-0000-000000000002
         classic client-00000000-0000-0000-0000-000000000001 join T = waits
         group = classic PreparingRebalance 1 range client-00000000-0000-0000-0000-000000000001*+ (client-00000000-0000-0000-0000-000000000002)
         B join T inst=i = 2 []
         classic - join T inst=i = AAAAAAAAAAAAAAAAAAAAAw 2
         group = classic Stable 2 range AAAAAAAAAAAAAAAAAAAAAw* client-00000000-0000-0000-0000-000000000001
         wait 40000
         classic AAAAAAAAAAAAAAAAAAAAAw beat 2 = ok
         classic client-00000000-0000-0000-0000-000000000001 beat 2 = ok
         wait 40000
         classic client-00000000-0000-0000-0000-000000000001 beat 2 = ok
         group = classic Stable 2 range AAAAAAAAAAAAAAAAAAAAAw* client-00000000-0000-0000-0000-000000000001",
    );
}

#[test]
fn who_is_called_again_in_another_life_of_the_group_has_all_the_time() {
    check(
        "topic T 2
         B join T = 2 [T0 T1]
         wait 1000
         classic a join T = a 3
         classic a sync 3 = []
         B 2 = 2 [T0]
         B 2 owns T0 = 3
         classic a beat 3 = RebalanceInProgress
         B leave = -1
         group = classic PreparingRebalance 3 range a*
         classic a join T = a 4
         classic a sync 4 a=T0,T1 = [T0 T1]
         wait 40000
         C join T = 5 []
         classic a beat 4 = RebalanceInProgress
         wait 20000
         group = Reconciling 5/5 C@5?[] a*@4[T0 T1]
         C 5 = 5
         classic a beat 4 = RebalanceInProgress
         wait 39999
         C 5 = 5
         group = Reconciling 5/5 C@5?[] a*@4[T0 T1]",
    );
}

/// A classic consumer that comes to an empty group of the consumer protocol finds it as it was when the change could
/// not be written: what it has committed hangs on there being a group.
#[test]
fn a_group_that_could_not_be_converted_is_still_there() {
    check(
        "topic T 1
         B join T = 2 [T0]
         B leave
         fail
         classic - join T = NotCoordinator
         group = Empty 3/3
         classic - join T = MemberIdRequired client-00000000-0000-0000-0000-000000000001
         group = classic Empty 0 (client-00000000-0000-0000-0000-000000000001)",
    );
    check(
        "topic T 2
         classic - join T = MemberIdRequired client-00000000-0000-0000-0000-000000000001
         classic client-00000000-0000-0000-0000-000000000001 join T = client-00000000-0000-0000-0000-000000000001 1
         classic client-00000000-0000-0000-0000-000000000001 sync 1 client-00000000-0000-0000-0000-000000000001=T0,T1 = [T0 T1]
         classic - join T = MemberIdRequired client-00000000-0000-0000-0000-000000000002
         classic client-00000000-0000-0000-0000-000000000001 join T = waits
         fail
         B join T = NotCoordinator
         group = classic PreparingRebalance 1 range client-00000000-0000-0000-0000-000000000001*+ (client-00000000-0000-0000-0000-000000000002)
         wait 44999
         group = classic PreparingRebalance 1 range client-00000000-0000-0000-0000-000000000001*+ (client-00000000-0000-0000-0000-000000000002)
         wait 1
         group = classic CompletingRebalance 2 range client-00000000-0000-0000-0000-000000000001*",
    );
}

/// Offsets of topics that are read neither expire nor are deleted.
#[test]
fn an_expression_that_has_not_been_resolved_may_match_anything() {
    let mut world = World::new(&[]);
    world.set_topic("ab", 1);
    run(&mut world, &["A", "join", "T"]);
    assert_eq!(run(&mut world, &["reads", "ab"]), "false");
    world.fails_to_resolve = true;
    run(&mut world, &["B", "join", "regex=a."]);
    assert_eq!(run(&mut world, &["reads", "ab"]), "true");
    assert_eq!(run(&mut world, &["reads", "c"]), "true");
}

/// What expressions match was once taken for looked up when it could not be written down, and new topics waited for
/// ten minutes. Looked up at each heartbeat it would be the broker that waits.
/// Whoever may ask names as many topics as a request holds. Each was once looked for among all that the expressions of
/// the group matched, which took half a minute here, and nobody else's requests were served meanwhile.
#[test]
fn offsets_are_deleted_in_no_time_however_much_expressions_match() {
    let mut world = World::new(&[]);
    let topics = (0..5000).map(|at| {
        MetadataRecord::Topic(TopicRecord {
            name: format!("topic-{at}"),
            topic_id: Uuid::from_u128(at + 1),
        })
    });
    world.change_image(topics.collect());
    assert_eq!(
        heartbeat(&mut world, "A", &["join", "regex=topic-.*"]),
        "1 []"
    );
    world.pass(0);
    let mut ask = |name: &str, count: usize| {
        let partition = OffsetDeleteRequestPartition::default();
        let topic = OffsetDeleteRequestTopic::default()
            .with_name(TopicName(text(name)))
            .with_partitions(vec![partition]);
        let delete = OffsetDeleteRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_topics(vec![topic; count]);
        let began = Instant::now();
        let Ok(Response::DeleteOffsets(answer)) = world.ask(Request::DeleteOffsets(delete)) else {
            panic!("offsets may be deleted while the group lives");
        };
        let topics = answer.topics.iter();
        let codes = topics.map(|topic| topic.partitions[0].error_code);
        (codes.collect::<Vec<_>>(), began.elapsed())
    };
    let refused = ErrorCode::GroupSubscribedToTopic.code();
    assert_eq!(ask("topic-4999", 2).0, [refused; 2]);
    let (codes, took) = ask("another", 600_000);
    assert!(codes.len() == 600_000 && codes.iter().all(|code| *code == 0));
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn expressions_whose_topics_could_not_be_written_down_are_resolved_again() {
    check(
        "topic ab 1
         A join regex=a. = 1 []
         A 1 = 2 [ab0]
         topic ac 1
         wait 10000
         fail
         A 2 = 2
         A 2 = 2
         wait 9999
         A 2 = 2
         A 2 = 2
         wait 1
         A 2 = 2
         A 2 = 3 [ab0 ac0]",
    );
}

/// The partition was in the metadata when the group noted that it had looked, and not when it had looked: it was
/// nobody's until something else happened.
#[test]
fn a_partition_that_comes_while_a_heartbeat_is_written_is_seen_by_the_next() {
    check(
        "topic T 1
         A join T = 2 [T0]
         wait 1000
         meanwhile T 2
         A 2 = 2
         A 2 = 3 [T0 T1]",
    );
}

/// A hash of what was read before was written down for what is read now, and another topic began an epoch in which
/// nothing was different.
#[test]
fn who_joins_after_another_reads_something_else_is_in_the_last_epoch_of_it() {
    check(
        "topic ab 1
         topic T 2
         A join regex=ab = 1 []
         A 1 = 2 [ab0]
         wait 1000
         C join T = 3 [T0 T1]
         A 2 = 3
         A 3 regex=zz = 3 []
         A 3 owns = 3
         wait 1000
         D join T = 4 []
         C 3 = 3 [T0]
         C 3 owns T0 = 4
         topic U 1
         wait 1000
         D 4 = 4 [T1]
         A 3 = 4
         group = Stable 4/4 A@4[] C@4[T0] D@4[T1]",
    );
}

/// Nobody was told, and the same eight expressions were tried again and again.
#[test]
fn an_expression_that_matches_too_much_does_not_keep_the_others_from_being_resolved() {
    check(
        "topics-max 3
         topic aa 1
         topic ab 1
         topic ac 1
         topic ad 1
         topic z 1
         A join regex=a. = 1 []
         B join regex=z = 1 []
         wait 200
         B 1 = 2 [z0]
         A 1 = 2
         group = Stable 2/2 A@2[] B@2[z0]",
    );
}

/// Resolving takes milliseconds an expression, in which the partition's other groups wait.
#[test]
fn many_expressions_are_resolved_a_few_at_a_time() {
    let mut world = World::new(&[]);
    world.set_topic("a", 1);
    for at in 0..20 {
        run(
            &mut world,
            &[&format!("m{at}"), "join", &format!("regex=(a|b|m{at})")],
        );
    }
    world.pass(1_000);
    let with = |world: &World, topic: &str| {
        let group = world.consumer_group().expect("a group");
        let regexes = group.regexes.values();
        regexes
            .filter(|it| it.topics.iter().any(|it| **it == *topic))
            .count()
    };
    assert_eq!(with(&world, "a"), 20);
    world.set_topic("b", 1);
    world.pass(10_000);
    let beat = |world: &mut World| {
        let group = world.consumer_group().expect("a group");
        let epoch = group.members["m0"].current.epoch.to_string();
        run(world, &["m0", &epoch]);
    };
    for count in [8, 16, 20, 20] {
        // However many heartbeats come meanwhile.
        for _ in 0..2 {
            beat(&mut world);
            assert_eq!(with(&world, "b"), count);
        }
        world.pass(50);
    }
    // Those that were resolved before topics changed once more have their turn again.
    world.set_topic("m19", 1);
    world.pass(10_000);
    beat(&mut world);
    world.set_topic("m0", 1);
    world.pass(11_000);
    assert_eq!((with(&world, "m19"), with(&world, "m0")), (1, 0));
    beat(&mut world);
    world.pass(1_000);
    assert_eq!((with(&world, "m19"), with(&world, "m0")), (1, 1));
}

/// Compiling and matching once held up all groups of the partition.
#[test]
fn a_group_goes_on_while_its_expressions_are_resolved() {
    let mut world = World::new(&[]);
    world.set_topic("ab", 1);
    world.set_topic("b", 1);
    world.holds_tasks = true;
    let beat = |world: &mut World| {
        let group = world.consumer_group().expect("a group");
        let epoch = group.members["A"].current.epoch.to_string();
        run(world, &["A", &epoch])
    };
    let topics = |world: &World| {
        let group = world.consumer_group().expect("a group");
        group.regexes["a."].topics.join(" ")
    };
    assert_eq!(run(&mut world, &["A", "join", "regex=a."]), "1 []");
    assert_eq!(beat(&mut world), "1");
    assert_eq!(run(&mut world, &["B", "join", "regex=b"]), "1 []");
    // One task for a group at a time, whoever speaks.
    assert_eq!(world.tasks.len(), 1);
    world.do_tasks();
    assert_eq!(beat(&mut world), "2 [ab0]");
    // What came meanwhile has its turn afterwards.
    world.pass(50);
    assert_eq!(world.tasks.len(), 1);
    // If its members have gone by then it is not written down.
    run(&mut world, &["B", "leave"]);
    world.do_tasks();
    let group = world.consumer_group().expect("a group");
    assert_eq!(group.regexes.len(), 1, "{:?}", group.regexes);
    check_replayed(&world);

    // A task that nobody hears of is begun again, and of two answers the one about newer topics holds.
    world.set_topic("ac", 1);
    world.pass(10_000);
    beat(&mut world);
    world.pass(30_000);
    beat(&mut world);
    world.set_topic("ad", 1);
    world.pass(29_999);
    assert_eq!(world.tasks.len(), 1);
    world.pass(1);
    assert_eq!(world.tasks.len(), 2);
    world.tasks.reverse();
    world.do_tasks();
    assert_eq!(topics(&world), "ab ac ad");

    // The coordinator may be another one when the answer comes, and the group may be gone.
    world.set_topic("ae", 1);
    world.pass(10_000);
    beat(&mut world);
    assert_eq!(world.tasks.len(), 1);
    world.reload();
    world.do_tasks();
    assert_eq!(topics(&world), "ab ac ad ae");
    beat(&mut world);
    world.set_topic("af", 1);
    world.pass(10_000);
    beat(&mut world);
    assert_eq!(world.tasks.len(), 1);
    run(&mut world, &["A", "leave"]);
    let written = world.log.len();
    world.do_tasks();
    assert_eq!(world.log.len(), written);
    check_replayed(&world);
}

/// A static member that is away has its session to come back, whatever it has to give back.
#[test]
fn who_is_away_is_not_waited_for_to_give_back() {
    check(
        "topic T 2
         A join T inst=i rt=2000 = 2 [T0 T1]
         wait 1000
         B join T = 3 []
         A 2 inst=i = 2 [T0]
         A away inst=i = -2
         wait 40000
         B 3 = 3 [T1]
         group = Reconciling 3/3 A@-2[T0] B@3[T1]
         reload
         wait 40000
         B 3 = 3
         group = Reconciling 3/3 A@-2[T0] B@3[T1]",
    );
}

/// Who changes its mind twice before anything is computed for it gives back twice, and in the epoch that it is in: the
/// one after it is no epoch yet that anything was computed for, and the member fell back from it.
#[test]
fn nobody_is_ahead_of_what_has_been_computed() {
    check(
        "topic T 2
         topic U 1
         topic V 1
         A join T U = 2 [T0 T1 U0]
         A 2 owns T0 T1 U0 reads U = 2 [U0]
         A 2 owns U0 reads T V = 2 []
         group = Assigning 4/2 A@2[-U0]
         A 2 owns = 2 [T0 T1]
         wait 1000
         A 2 = 4 [T0 T1 V0]",
    );
}

/// A consumer as it should be: it reads what it was last told to, and gives back before it says so.
#[derive(Debug, Default, Clone)]
struct Consumer {
    epoch: i32,
    owned: BTreeSet<(Uuid, i32)>,
    /// It has a new assignment and has not told the broker that it goes by it.
    has_news: bool,
    /// It wants to read these from now on, and the broker does not know.
    to_say: bool,
    /// Of [`SUBSCRIPTIONS`].
    subscription: usize,
    is_alive: bool,
    silent_since: i64,
}

/// The topic `W` comes later, `X` never.
const SUBSCRIPTIONS: [&[&str]; 4] = [&["T", "U"], &["U"], &["T", "V"], &["T", "W", "X"]];

fn beat(world: &mut World, consumers: &mut [Consumer], at: usize) {
    let consumer = &mut consumers[at];
    let mut request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(&format!("m{at}")))
        .with_member_epoch(consumer.epoch);
    if consumer.epoch == 0 || consumer.has_news {
        let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, index) in &consumer.owned {
            topics.entry(*topic).or_default().push(*index);
        }
        let topics = topics.into_iter().map(|(topic, indexes)| {
            TopicPartitions::default()
                .with_topic_id(topic)
                .with_partitions(indexes)
        });
        request.topic_partitions = Some(topics.collect());
        consumer.has_news = false;
    }
    if consumer.epoch == 0 {
        request.rebalance_timeout_ms = 5_000;
    }
    if consumer.epoch == 0 || consumer.to_say {
        let names = SUBSCRIPTIONS[consumer.subscription];
        let names = names.iter().map(|name| TopicName(text(name)));
        request.subscribed_topic_names = Some(names.collect());
        consumer.to_say = false;
    }
    let request = Sent {
        client: client(1),
        body: request,
    };
    let Ok(Response::ConsumerHeartbeat(response)) =
        world.ask(Request::ConsumerHeartbeat(ConsumerHeartbeat::new(request)))
    else {
        panic!("not the answer to a heartbeat");
    };
    let consumer = &mut consumers[at];
    consumer.silent_since = world.now;
    if response.error_code != 0 {
        *consumer = Consumer {
            is_alive: true,
            silent_since: world.now,
            subscription: consumer.subscription,
            ..Consumer::default()
        };
        return;
    }
    assert!(consumer.epoch <= response.member_epoch, "epochs only grow");
    consumer.epoch = response.member_epoch;
    if let Some(assignment) = response.assignment {
        let topics = assignment.topic_partitions.into_iter();
        consumer.owned = topics
            .flat_map(|it| {
                it.partitions
                    .into_iter()
                    .map(move |index| (it.topic_id, index))
            })
            .collect();
        consumer.has_news = true;
    }
}

/// Nobody reads what somebody reads who may still be a member.
fn check_readers(world: &World, consumers: &[Consumer]) {
    let group = world.consumer_group();
    let mut readers = BTreeSet::new();
    for (at, consumer) in consumers.iter().enumerate() {
        let is_member = group.is_some_and(|group| group.members.contains_key(&*format!("m{at}")));
        if consumer.is_alive && is_member {
            for partition in &consumer.owned {
                assert!(
                    readers.insert(*partition),
                    "{partition:?} is read twice: {}",
                    world.show()
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nobody_reads_what_another_reads_and_in_the_end_everything_is_read(
        steps in proptest::collection::vec((0..19_u8, 0..6_usize), 1..150),
    ) {
        let mut world = World::new(&[]);
        for (topic, count) in [("T", 5), ("U", 3), ("V", 1)] {
            world.set_topic(topic, count);
        }
        let mut consumers = vec![Consumer::default(); 6];
        for (at, consumer) in consumers.iter_mut().enumerate() {
            consumer.subscription = at % 3;
        }
        let mut grown = 5;
        let mut epoch = 0;
        for (step, at) in steps {
            match step {
                0..=7 => {
                    consumers[at].is_alive = true;
                    beat(&mut world, &mut consumers, at);
                }
                8 => world.pass(300),
                9 => world.pass(1_100),
                10 => world.pass(6_000),
                // It dies: nobody reads for it from now on, and the broker does not know.
                11 => consumers[at] = Consumer { subscription: at % 3, ..Consumer::default() },
                12 if consumers[at].epoch > 0 => {
                    let leave = ConsumerGroupHeartbeatRequest::default()
                        .with_group_id(GroupId(text(GROUP)))
                        .with_member_id(text(&format!("m{at}")))
                        .with_member_epoch(-1);
                    consumers[at] = Consumer { subscription: at % 3, ..Consumer::default() };
                    let leave = Sent { client: client(1), body: leave };
                    let _ = world.ask(Request::ConsumerHeartbeat(ConsumerHeartbeat::new(leave)));
                }
                13 => world.reload(),
                14 if grown < 9 => {
                    grown += 1;
                    world.set_topic("T", grown);
                }
                15 => world.pass(50_000),
                16 | 17 => {
                    consumers[at].subscription = (consumers[at].subscription + 1) % SUBSCRIPTIONS.len();
                    consumers[at].to_say = true;
                }
                18 if world.image.topic("W").is_none() => world.set_topic("W", 2),
                _ => (),
            }
            check_readers(&world, &consumers);
            let now = world.consumer_group().map_or(epoch, |group| group.epoch);
            prop_assert!(epoch <= now, "the group's epoch only grows");
            epoch = now;
        }
        // Those who live go on, those who do not are noticed.
        for consumer in &mut consumers[..3] {
            consumer.is_alive = true;
        }
        for _ in 0..60 {
            world.pass(1_000);
            for at in 0..consumers.len() {
                if consumers[at].is_alive {
                    beat(&mut world, &mut consumers, at);
                }
            }
            check_readers(&world, &consumers);
        }
        let group = world.consumer_group().expect("a group");
        prop_assert_eq!(group.state(), "Stable", "{}", world.show());
        let read: BTreeSet<(Uuid, i32)> = consumers.iter().flat_map(|it| it.owned.clone()).collect();
        let alive = consumers.iter().filter(|it| it.is_alive);
        let names: BTreeSet<&str> = alive.flat_map(|it| SUBSCRIPTIONS[it.subscription]).copied().collect();
        let topics = names.iter().filter_map(|name| world.image.topic(name));
        let all: usize = topics.map(|topic| topic.partitions.len()).sum();
        prop_assert_eq!(read.len(), all, "{}", world.show());
        check_replayed(&world);
    }
}
