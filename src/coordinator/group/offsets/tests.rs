//! Scripts of what is committed, read, deleted and forgotten.
//!
//! A line is `command = answer | what was written`. An offset is `topic-partition=offset`, with `:metadata` if it has
//! some; a tombstone is `topic-partition=gone`. Answers are what Apache Kafka 4.4.0 gave, but where a comment says
//! otherwise. Every record goes through its bytes, and at the end of a script a machine that is loaded from all of
//! them has to hold the same offsets.

mod recorded;
mod rules;

use std::{fmt::Write as _, sync::Arc};

use bytes::Bytes;
use kafka_protocol::messages::{
    GroupId, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetDeleteRequest,
    SyncGroupRequest, TopicName,
    join_group_request::JoinGroupRequestProtocol,
    leave_group_request::MemberIdentity,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
    sync_group_request::SyncGroupRequestAssignment,
};
use protocol::{
    error::ErrorCode,
    messages::{
        TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
    },
    records::{
        group::GroupRecord,
        metadata::{MetadataRecord, PartitionRecord, RemoveTopicRecord, TopicRecord},
    },
};
use replication::cluster::ClusterImage;
use uuid::Uuid;

use crate::{
    config::Config,
    coordinator::{
        Effects, Env, Machine, Origin, Producer, Ticket,
        group::{
            GroupCoordinator,
            request::{Client, DeleteGroups, FetchOffsets, Request, Response, Sent},
        },
    },
};

/// What the log holds: a record, or the marker that ends a transaction.
#[derive(Clone)]
enum Entry {
    Record(Bytes, Option<Bytes>, Option<Producer>),
    End(Producer, bool),
}

/// A coordinator, and the world around it.
struct World {
    machine: GroupCoordinator,
    config: Config,
    image: Arc<ClusterImage>,
    now: i64,
    log: Vec<Entry>,
    /// What was written since it was last looked at.
    written: String,
    /// The next append fails.
    fails: bool,
    /// What can be appended at once.
    records_bytes_max: usize,
    member_id: String,
    generation: i32,
}

#[track_caller]
fn check(script: &str) {
    check_with(&[], script);
}

#[track_caller]
fn check_with(settings: &[(&str, &str)], script: &str) {
    let mut all = vec![("group.initial.rebalance.delay.ms", "0")];
    all.extend_from_slice(settings);
    let mut world = World::new(&all);
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let nothing = || Some((line.strip_suffix(" =")?, ""));
        let parts = line.split_once(" = ").or_else(nothing);
        let (command, want) = parts.expect("command = expectation");
        let answer = world.command(command);
        let written = std::mem::take(&mut world.written);
        let got = match written.trim() {
            "" => answer,
            written => format!("{answer} | {written}"),
        };
        assert_eq!(got.trim(), want.trim(), "after `{}`", command.trim());
    }
    let before = world.shown();
    world.reload();
    assert_eq!(world.shown(), before, "when loaded from the log");
}

impl World {
    fn new(settings: &[(&str, &str)]) -> Self {
        let mut world = Self {
            machine: GroupCoordinator::default(),
            config: Config::single_node(settings).expect("a configuration"),
            image: Arc::new(ClusterImage::empty("tests")),
            now: 1_000_000,
            log: Vec::new(),
            written: String::new(),
            fails: false,
            records_bytes_max: usize::MAX,
            member_id: String::new(),
            generation: -1,
        };
        world.set_topic("t", 3);
        world.set_topic("u", 1);
        let effects = world.with_env(Machine::loaded);
        world.carry_out(effects);
        world.wait(0);
        world
    }

    fn with_env<T>(&mut self, work: impl FnOnce(&mut GroupCoordinator, &mut Env<'_>) -> T) -> T {
        work(
            &mut self.machine,
            &mut Env {
                now: self.now,
                steady_now: self.now,
                image: &self.image,
                config: &self.config,
                records_bytes_max: self.records_bytes_max,
                new_id: &mut || Uuid::from_u128(1),
            },
        )
    }

    fn ask(&mut self, request: Request) -> Result<Response, ErrorCode> {
        let effects = self.with_env(|machine, env| machine.handle(Ticket::new(0), request, env));
        let mut answer = self.carry_out(effects);
        while let Some(effects) = self.with_env(Machine::tick) {
            answer = answer.or(self.carry_out(effects));
        }
        answer.expect("an answer")
    }

    /// Appends and replays; what is answered, if anything.
    fn carry_out(
        &mut self,
        effects: Effects<GroupCoordinator>,
    ) -> Option<Result<Response, ErrorCode>> {
        let Effects {
            append,
            producer,
            answers,
            then,
            tasks: _,
        } = effects;
        let fails = !append.is_empty() && std::mem::take(&mut self.fails);
        let written = match fails {
            true => Err(ErrorCode::NotCoordinator),
            false => Ok(()),
        };
        if let Err(code) = written {
            let append = append.clone();
            self.with_env(|machine, env| machine.append_failed(append, code, env));
        }
        for record in append.into_iter().filter(|_| written.is_ok()) {
            note(&mut self.written, &record);
            let (key, value) = GroupCoordinator::encoded(&record).unwrap();
            self.log.push(Entry::Record(key, value, producer));
            let offset = i64::try_from(self.log.len()).expect("a short log");
            replay(
                &mut self.machine,
                self.log[self.log.len() - 1].clone(),
                offset,
            );
        }
        let answers = answers.into_iter();
        let mut answers: Vec<_> = answers.map(|(_, answer)| written.and(answer)).collect();
        if let Some(then) = then {
            let more = self.with_env(|machine, env| then.run(machine, written, env));
            answers.extend(more.into_iter().map(|(_, answer)| answer));
        }
        assert!(answers.len() <= 1, "one has asked");
        answers.pop()
    }

    /// The machine that another broker would make of the log.
    fn reload(&mut self) {
        self.machine = GroupCoordinator::default();
        for (offset, entry) in (1..).zip(self.log.clone()) {
            replay(&mut self.machine, entry, offset);
        }
        let effects = self.with_env(Machine::loaded);
        self.carry_out(effects);
    }

    fn wait(&mut self, ms: i64) {
        let until = self.now + ms;
        while let Some(at) = self.machine.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            if let Some(effects) = self.with_env(Machine::tick) {
                self.carry_out(effects);
            }
        }
        self.now = until;
    }

    /// The topic has this many partitions from now on; with none it is gone.
    fn set_topic(&mut self, name: &str, count: i32) {
        let known = self.image.topic(name).map(|topic| topic.id);
        let fresh = Uuid::from_u128((7 << 64) + u128::from(self.image.offset.unsigned_abs()));
        let topic_id = known.unwrap_or(fresh);
        let mut records = Vec::new();
        if known.is_none() {
            records.push(MetadataRecord::Topic(TopicRecord {
                name: name.to_owned(),
                topic_id,
            }));
        }
        records.extend((0..count).map(|partition_id| {
            MetadataRecord::Partition(PartitionRecord {
                partition_id,
                topic_id,
                replicas: vec![1],
                isr: vec![1],
                leader: 1,
                ..PartitionRecord::default()
            })
        }));
        if count == 0 {
            records.push(MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id }));
        }
        let mut image = (*self.image).clone();
        for record in records {
            let offset = image.offset + 1;
            image.replay(offset, &record).expect("a record that fits");
        }
        self.image = Arc::new(image);
        self.with_env(Machine::image_changed);
    }

    fn command(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (verb, words) = words.split_first().expect("a verb");
        let option = |name: &str| {
            let mut words = words.iter().filter_map(|word| word.split_once('='));
            words
                .find(|(known, _)| *known == name)
                .map(|(_, text)| text)
        };
        let number = |name: &str, default: i64| {
            option(name).map_or(default, |text| text.parse().expect("a number"))
        };
        match (*verb, words) {
            ("topic", [name, count]) => {
                self.set_topic(name, count.parse().expect("a count"));
                self.wait(0);
                String::new()
            }
            ("wait", [ms]) => {
                self.wait(ms.parse().expect("milliseconds"));
                String::new()
            }
            ("reload", []) => {
                self.reload();
                String::new()
            }
            ("append-fails", []) => {
                self.fails = true;
                String::new()
            }
            ("commit", [group_id, offsets @ ..]) => {
                let is_member = option("gen").is_some();
                let member_id = match option("as") {
                    Some("m") => self.member_id.clone(),
                    Some(other) => other.to_owned(),
                    None => String::new(),
                };
                let generation = number("gen", -1)
                    + if option("as") == Some("m") {
                        i64::from(self.generation)
                    } else {
                        0
                    };
                let generation = if is_member { generation } else { -1 };
                let body = OffsetCommitRequest::default()
                    .with_group_id(GroupId((*group_id).to_owned().into()))
                    .with_member_id(member_id.into())
                    .with_generation_id_or_member_epoch(
                        i32::try_from(generation).expect("an epoch"),
                    )
                    .with_retention_time_ms(number("keep", -1))
                    .with_topics(self.commits(offsets));
                let version = i16::try_from(number("v", 9)).expect("a version");
                shown(self.ask(Request::Commit(from(version, body))))
            }
            ("txn", [producer, group_id, offsets @ ..]) => {
                let body = TxnOffsetCommitRequest {
                    group_id: (*group_id).to_owned().into(),
                    producer_id: parsed(producer).id,
                    generation_id_or_member_epoch: i32::try_from(number("gen", -1))
                        .expect("an epoch"),
                    member_id: option("as").unwrap_or_default().to_owned().into(),
                    topics: self.commits_in_transaction(offsets),
                    ..TxnOffsetCommitRequest::default()
                };
                let version = i16::try_from(number("v", 5)).expect("a version");
                shown(self.ask(Request::CommitInTransaction(from(version, body))))
            }
            ("end", [producer, outcome]) => {
                let (producer, commit) = (parsed(producer), *outcome == "commit");
                self.log.push(Entry::End(producer, commit));
                self.machine.end_transaction(producer, commit);
                String::new()
            }
            ("fetch", [group_id, asked @ ..]) => {
                let require_stable = asked.contains(&"stable");
                let mut topics: Vec<OffsetFetchRequestTopics> = Vec::new();
                for (topic, partition) in asked.iter().filter_map(|word| word.rsplit_once('-')) {
                    let topic_id = self.image.topic(topic).map(|topic| topic.id);
                    topics.push(
                        OffsetFetchRequestTopics::default()
                            .with_name(name(topic))
                            .with_topic_id(topic_id.unwrap_or_default())
                            .with_partition_indexes(vec![partition.parse().expect("an index")]),
                    );
                }
                let group = OffsetFetchRequestGroup::default()
                    .with_group_id(GroupId((*group_id).to_owned().into()))
                    .with_member_epoch(-1)
                    .with_topics((!topics.is_empty()).then_some(topics));
                shown(self.ask(Request::FetchOffsets(FetchOffsets {
                    group,
                    require_stable,
                })))
            }
            ("delete-offsets", [group_id, asked @ ..]) => {
                let topics = asked.iter().map(|word| {
                    let (topic, index) = word.rsplit_once('-').expect("topic-partition");
                    let index = index.parse().expect("an index");
                    OffsetDeleteRequestTopic::default()
                        .with_name(name(topic))
                        .with_partitions(vec![
                            OffsetDeleteRequestPartition::default().with_partition_index(index),
                        ])
                });
                let body = OffsetDeleteRequest::default()
                    .with_group_id(GroupId((*group_id).to_owned().into()))
                    .with_topics(topics.collect());
                shown(self.ask(Request::DeleteOffsets(body)))
            }
            ("delete", group_ids) => {
                let group_ids = group_ids.iter().map(|id| Arc::from(*id)).collect();
                shown(self.ask(Request::Delete(DeleteGroups(group_ids))))
            }
            ("groups", []) => {
                let groups = &self.machine.groups;
                let mut groups: Vec<String> = groups
                    .iter()
                    .map(|(id, group)| format!("{id}:{}", group.state()))
                    .collect();
                groups.sort();
                groups.join(" ")
            }
            ("join", [group_id, topic]) => self.join(group_id, topic),
            ("leave", [group_id]) => {
                let member =
                    MemberIdentity::default().with_member_id(self.member_id.clone().into());
                let body = LeaveGroupRequest::default()
                    .with_group_id(GroupId((*group_id).to_owned().into()))
                    .with_members(vec![member]);
                shown(self.ask(Request::Leave(from(3, body))))
            }
            _ => panic!("unknown command: {command}"),
        }
    }

    /// One member that has joined and has its assignment.
    fn join(&mut self, group_id: &str, topic: &str) -> String {
        let topics = u16::try_from(topic.len()).expect("a name").to_be_bytes();
        let subscription = [
            b"\0\0\0\0\0\x01",
            &topics[..],
            topic.as_bytes(),
            b"\0\0\0\0",
        ];
        let protocol = JoinGroupRequestProtocol::default()
            .with_name("range".into())
            .with_metadata(subscription.concat().into());
        let join = JoinGroupRequest::default()
            .with_group_id(GroupId(group_id.to_owned().into()))
            .with_session_timeout_ms(1_800_000)
            .with_rebalance_timeout_ms(1_800_000)
            .with_protocol_type("consumer".into())
            .with_protocols(vec![protocol]);
        let Ok(Response::Join(joined)) = self.ask(Request::Join(from(3, join))) else {
            panic!("nobody joined");
        };
        self.member_id = joined.member_id.to_string();
        self.generation = joined.generation_id;
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment(Bytes::from_static(b"mine"));
        let sync = SyncGroupRequest::default()
            .with_group_id(GroupId(group_id.to_owned().into()))
            .with_member_id(joined.member_id)
            .with_generation_id(joined.generation_id)
            .with_assignments(vec![assignment]);
        shown(self.ask(Request::Sync(from(3, sync))))
    }

    /// `t-0=5:meta` and so on, each topic as often as it is named.
    fn commits(&self, words: &[&str]) -> Vec<OffsetCommitRequestTopic> {
        let offsets = words.iter().filter_map(|word| {
            let (target, offset) = word.split_once('=')?;
            let (topic, index) = target.rsplit_once('-')?;
            let (offset, metadata) = offset.split_once(':').unwrap_or((offset, ""));
            let metadata = match metadata.split_once('*') {
                Some((text, times)) => text.repeat(times.parse().expect("a count")),
                None => metadata.to_owned(),
            };
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(index.parse().expect("an index"))
                .with_committed_offset(offset.parse().expect("an offset"))
                .with_committed_metadata(Some(metadata.into()));
            let topic_id = self.image.topic(topic).map(|topic| topic.id);
            Some(
                OffsetCommitRequestTopic::default()
                    .with_name(name(topic))
                    .with_topic_id(topic_id.unwrap_or_default())
                    .with_partitions(vec![partition]),
            )
        });
        offsets.collect()
    }

    fn commits_in_transaction(&self, words: &[&str]) -> Vec<TxnOffsetCommitRequestTopic> {
        let topics = self.commits(words).into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter();
            let partitions = partitions.map(|partition| TxnOffsetCommitRequestPartition {
                partition_index: partition.partition_index,
                committed_offset: partition.committed_offset,
                committed_leader_epoch: partition.committed_leader_epoch,
                committed_metadata: partition.committed_metadata,
            });
            let found = self.image.topic(&topic.name);
            TxnOffsetCommitRequestTopic {
                topic_id: found.map(|topic| topic.id).unwrap_or_default(),
                partitions: partitions.collect(),
                name: topic.name.0,
            }
        });
        topics.collect()
    }

    /// All that counts and all that is pending.
    fn shown(&self) -> String {
        let offsets = &self.machine.offsets;
        let mut lines = Vec::new();
        let tables = [(None, &offsets.committed)]
            .into_iter()
            .chain(offsets.pending.iter().map(|(id, table)| (Some(*id), table)));
        for (producer, table) in tables {
            for (group_id, topics) in table.groups() {
                for (topic, partitions) in topics {
                    let all = partitions.iter();
                    lines.extend(all.map(|it| format!("{producer:?} {group_id} {topic} {it:?}")));
                }
            }
        }
        lines.sort();
        lines.join("\n")
    }
}

fn replay(machine: &mut GroupCoordinator, entry: Entry, offset: i64) {
    match entry {
        Entry::Record(key, value, producer) => {
            let record = GroupCoordinator::decode(key, value).expect("a record");
            machine.replay(record.expect("a known one"), Origin { offset, producer });
        }
        Entry::End(producer, commit) => machine.end_transaction(producer, commit),
    }
}

fn from<T>(version: i16, body: T) -> Sent<T> {
    let client = Client {
        version,
        id: Arc::from("client"),
        address: [127, 0, 0, 1].into(),
    };
    Sent { client, body }
}

fn name(topic: &str) -> TopicName {
    TopicName(topic.to_owned().into())
}

fn parsed(producer: &str) -> Producer {
    Producer {
        id: producer.parse().expect("a producer id"),
        epoch: 0,
    }
}

fn note(written: &mut String, record: &GroupRecord) {
    let done = match record {
        GroupRecord::OffsetCommit { key, value } => {
            let offset = value.as_ref().map(|value| value.offset.to_string());
            let offset = offset.as_deref().unwrap_or("gone");
            let (group, topic, index) = (&key.group, &key.topic, key.partition);
            write!(written, "{group}:{topic}-{index}={offset} ")
        }
        GroupRecord::GroupMetadata { key, value: None } => write!(written, "{}=gone ", key.group),
        // What a classic group writes is told by its own scripts.
        _ => Ok(()),
    };
    done.expect("a string takes it all");
}

/// The code's name, or nothing.
fn code(code: i16) -> String {
    ErrorCode::try_from_code(code).map_or_else(String::new, |code| format!("{code:?}"))
}

fn shown(answer: Result<Response, ErrorCode>) -> String {
    let response = match answer {
        Err(code) => return format!("{code:?}"),
        Ok(response) => response,
    };
    let mut parts = Vec::new();
    let mut part = |topic: &str, index: i32, refused: i16| {
        if refused != 0 {
            parts.push(format!("{topic}-{index}:{}", code(refused)));
        }
    };
    match response {
        Response::Commit(answer) => {
            for topic in &answer.topics {
                for it in &topic.partitions {
                    part(&topic.name, it.partition_index, it.error_code);
                }
            }
        }
        Response::CommitInTransaction(answer) => {
            for topic in &answer.topics {
                for it in &topic.partitions {
                    part(&topic.name, it.partition_index, it.error_code);
                }
            }
        }
        Response::DeleteOffsets(answer) => {
            for topic in &answer.topics {
                for it in &topic.partitions {
                    part(&topic.name, it.partition_index, it.error_code);
                }
            }
        }
        Response::FetchOffsets(answer) => {
            for topic in &answer.topics {
                for it in &topic.partitions {
                    let mut text = format!("{}-{}=", &*topic.name, it.partition_index);
                    match it.error_code {
                        0 => text += &it.committed_offset.to_string(),
                        refused => text += &code(refused),
                    }
                    match it.metadata.as_deref() {
                        None | Some("") => (),
                        Some(metadata) => text = format!("{text}:{metadata}"),
                    }
                    parts.push(text);
                }
            }
            return match &parts[..] {
                [] => "none".to_owned(),
                parts => parts.join(" "),
            };
        }
        Response::Delete(results) => {
            let refused = results.iter().filter(|result| result.error_code != 0);
            parts.extend(refused.map(|it| format!("{}:{}", &**it.group_id, code(it.error_code))));
        }
        Response::Sync(answer) => parts.push(code(answer.error_code)),
        Response::Leave(answer) => parts.push(code(answer.error_code)),
        other => panic!("{other:?} is not shown"),
    }
    match &parts[..] {
        [] => "ok".to_owned(),
        parts if parts.iter().all(String::is_empty) => "ok".to_owned(),
        parts => parts.join(" "),
    }
}
