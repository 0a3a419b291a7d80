//! Clients that come, go, die, wait and are restarted at random.
//!
//! - In no generation does a partition have two owners.
//! - When nothing has happened for a while, all that live are in one generation and every partition has an owner.
//! - All of it holds across a change of the coordinator, and when records cannot be written.
//! - Another coordinator knows of a stable group what this one does, but for what is not in records.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    SyncGroupRequest, join_group_request::JoinGroupRequestProtocol,
    leave_group_request::MemberIdentity, sync_group_request::SyncGroupRequestAssignment,
};
use proptest::prelude::*;
use protocol::error::ErrorCode;

use super::{Bench, Bytes, from};
use crate::coordinator::group::{
    Group,
    request::{Request, Response},
};

const PARTITIONS: u8 = 7;
const HEARTBEAT_MS: i64 = 3_000;
const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 20_000;

#[derive(Debug, Clone)]
enum Event {
    /// Starts, or is started again if it runs.
    Start(usize),
    Leave(usize),
    /// Stops without a word.
    Die(usize),
    /// Says something else from now on.
    Change(usize),
    Wait(i64),
    /// Another broker takes over.
    Reload,
    FailNextAppend,
}

#[derive(Debug, Default)]
struct Consumer {
    alive: bool,
    instance_id: Option<String>,
    metadata: u8,
    member_id: String,
    generation: i32,
    /// What it owns in this generation, once it has been told.
    owned: Option<BTreeSet<u8>>,
    waits_for: Option<u64>,
    /// It has been told to join again, or what it asked was refused in a way that calls for it.
    must_join: bool,
    next_heartbeat: i64,
}

struct World {
    bench: Bench,
    consumers: Vec<Consumer>,
    /// Who owned what, by generation. A static member that comes back is the owner that it was.
    owners: BTreeMap<(i32, u8), usize>,
}

impl World {
    fn new(initial_delay: &str) -> Self {
        let consumers = (0..5).map(|index| Consumer {
            instance_id: (index >= 3).then(|| format!("static{index}")),
            ..Consumer::default()
        });
        Self {
            bench: Bench::new(&[("group.initial.rebalance.delay.ms", initial_delay)]),
            consumers: consumers.collect(),
            owners: BTreeMap::new(),
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Start(index) => {
                let consumer = &mut self.consumers[index];
                *consumer = Consumer {
                    alive: true,
                    must_join: true,
                    instance_id: consumer.instance_id.take(),
                    metadata: consumer.metadata,
                    ..Consumer::default()
                };
            }
            Event::Leave(index) => {
                let consumer = &mut self.consumers[index];
                if consumer.alive && !consumer.member_id.is_empty() {
                    let member = MemberIdentity::default()
                        .with_member_id(consumer.member_id.clone().into())
                        .with_group_instance_id(consumer.instance_id.clone().map(Into::into));
                    let body = LeaveGroupRequest::default()
                        .with_group_id(GroupId("g".into()))
                        .with_members(vec![member]);
                    self.bench.ask(Request::Leave(from("c", 5, body)));
                }
                self.stop(index);
            }
            Event::Die(index) => self.stop(index),
            Event::Change(index) => {
                let consumer = &mut self.consumers[index];
                consumer.metadata = consumer.metadata.wrapping_add(1);
                consumer.must_join = true;
            }
            Event::Wait(ms) => self.wait(ms),
            Event::Reload => {
                self.bench.reload();
                self.bench.answered.clear();
                for consumer in &mut self.consumers {
                    // Its connection has ended.
                    if consumer.waits_for.take().is_some() {
                        consumer.must_join = true;
                    }
                }
            }
            Event::FailNextAppend => self.bench.failure = Some(ErrorCode::NotCoordinator),
        }
        self.settle();
    }

    fn stop(&mut self, index: usize) {
        let consumer = &mut self.consumers[index];
        *consumer = Consumer {
            instance_id: consumer.instance_id.take(),
            metadata: consumer.metadata,
            ..Consumer::default()
        };
    }

    /// In small steps, so that those who live send their heartbeats.
    fn wait(&mut self, ms: i64) {
        for _ in 0..ms / 500 {
            self.bench.wait(500);
            self.settle();
        }
    }

    /// Everybody does what there is to do now.
    fn settle(&mut self) {
        loop {
            let answered = std::mem::take(&mut self.bench.answered);
            let mut idle = answered.is_empty();
            for (ticket, answer) in answered {
                let waits = |consumer: &Consumer| consumer.waits_for == Some(ticket);
                if let Some(index) = self.consumers.iter().position(waits) {
                    self.consumers[index].waits_for = None;
                    self.told(index, answer);
                }
            }
            for index in 0..self.consumers.len() {
                idle &= !self.act(index);
            }
            if idle {
                return;
            }
        }
    }

    fn told(&mut self, index: usize, answer: Result<Response, ErrorCode>) {
        match answer {
            Ok(Response::Join(joined)) => match ErrorCode::try_from_code(joined.error_code) {
                None => self.joined(index, &joined),
                Some(ErrorCode::MemberIdRequired) => {
                    let consumer = &mut self.consumers[index];
                    consumer.member_id = joined.member_id.to_string();
                    consumer.must_join = true;
                }
                Some(code) => self.refused(index, code),
            },
            Ok(Response::Sync(synced)) => {
                let owned: BTreeSet<u8> = synced.assignment.iter().copied().collect();
                let generation = self.consumers[index].generation;
                for partition in &owned {
                    let owner = self.owners.entry((generation, *partition)).or_insert(index);
                    assert_eq!(*owner, index, "{partition} has two owners in {generation}");
                }
                self.consumers[index].owned = Some(owned);
            }
            Ok(Response::Heartbeat(_)) => (),
            Ok(other) => panic!("{other:?}"),
            Err(code) => self.refused(index, code),
        }
    }

    fn refused(&mut self, index: usize, code: ErrorCode) {
        let consumer = &mut self.consumers[index];
        consumer.must_join = true;
        match code {
            ErrorCode::RebalanceInProgress | ErrorCode::NotCoordinator => (),
            // Fenced it is when a new coordinator knows it by an older id; a client stops then, and is started anew.
            ErrorCode::UnknownMemberId
            | ErrorCode::IllegalGeneration
            | ErrorCode::FencedInstanceId => {
                consumer.member_id.clear();
            }
            other => panic!("{other:?}"),
        }
    }

    fn joined(&mut self, index: usize, joined: &JoinGroupResponse) {
        let consumer = &mut self.consumers[index];
        consumer.member_id = joined.member_id.to_string();
        consumer.generation = joined.generation_id;
        consumer.owned = None;
        let leads = joined.leader == joined.member_id && !joined.skip_assignment;
        let members: Vec<&str> = joined.members.iter().map(|it| &*it.member_id).collect();
        let assignments = members
            .iter()
            .enumerate()
            .filter(|_| leads)
            .map(|(at, id)| {
                let own = (0..PARTITIONS).filter(|it| usize::from(*it) % members.len() == at);
                SyncGroupRequestAssignment::default()
                    .with_member_id((*id).to_owned().into())
                    .with_assignment(own.collect::<Vec<u8>>().into())
            });
        let body = SyncGroupRequest::default()
            .with_group_id(GroupId("g".into()))
            .with_member_id(consumer.member_id.clone().into())
            .with_group_instance_id(consumer.instance_id.clone().map(Into::into))
            .with_generation_id(consumer.generation)
            .with_assignments(assignments.collect());
        let ticket = self.bench.ask(Request::Sync(from("c", 5, body)));
        self.consumers[index].waits_for = Some(ticket);
    }

    /// Whether there was something to do.
    fn act(&mut self, index: usize) -> bool {
        let now = self.bench.now;
        let consumer = &mut self.consumers[index];
        if !consumer.alive || consumer.waits_for.is_some() {
            return false;
        }
        let group_id = GroupId("g".into());
        let member_id = consumer.member_id.clone().into();
        let instance_id = consumer.instance_id.clone().map(Into::into);
        let request = if consumer.must_join {
            consumer.must_join = false;
            consumer.owned = None;
            let protocol = JoinGroupRequestProtocol::default()
                .with_name("range".into())
                .with_metadata(Bytes::copy_from_slice(&[consumer.metadata]));
            let body = JoinGroupRequest::default()
                .with_group_id(group_id)
                .with_member_id(member_id)
                .with_group_instance_id(instance_id)
                .with_session_timeout_ms(SESSION_MS)
                .with_rebalance_timeout_ms(REBALANCE_MS)
                .with_protocol_type("consumer".into())
                .with_protocols(vec![protocol]);
            Request::Join(from("c", 9, body))
        } else if consumer.next_heartbeat <= now {
            consumer.next_heartbeat = now + HEARTBEAT_MS;
            let body = HeartbeatRequest::default()
                .with_group_id(group_id)
                .with_member_id(member_id)
                .with_group_instance_id(instance_id)
                .with_generation_id(consumer.generation);
            Request::Heartbeat(from("c", 4, body))
        } else {
            return false;
        };
        let ticket = self.bench.ask(request);
        self.consumers[index].waits_for = Some(ticket);
        true
    }

    fn check_at_rest(&mut self) {
        let alive = self.consumers.iter().filter(|consumer| consumer.alive);
        let alive: Vec<&Consumer> = alive.collect();
        let Some(first) = alive.first() else { return };
        let group = self.bench.group("g");
        let mut seen: BTreeSet<u8> = BTreeSet::new();
        for consumer in &alive {
            assert_eq!(consumer.generation, first.generation, "{group}");
            seen.extend(consumer.owned.iter().flatten());
        }
        assert_eq!(seen.len(), usize::from(PARTITIONS), "{group}");
        assert!(group.starts_with("Stable"), "{group}");
        let written = |bench: &Bench| match bench.machine.groups.get("g") {
            Some(Group::Classic(group)) => group.record("g", |_, member| member.assignment.clone()),
            other => panic!("{other:?}"),
        };
        let known = written(&self.bench);
        self.bench.reload();
        assert_eq!(written(&self.bench), known, "loaded again");
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..5_usize).prop_map(Event::Start),
        1 => (0..5_usize).prop_map(Event::Leave),
        1 => (0..5_usize).prop_map(Event::Die),
        1 => (0..5_usize).prop_map(Event::Change),
        4 => prop_oneof![Just(500), Just(3_000), Just(11_000), Just(25_000)].prop_map(Event::Wait),
        1 => Just(Event::Reload),
        1 => Just(Event::FailNextAppend),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_partition_has_two_owners_and_at_rest_each_has_one(
        delay in prop_oneof![Just("0"), Just("3000")],
        events in prop::collection::vec(event(), 1..30),
    ) {
        let mut world = World::new(delay);
        for event in &events {
            world.apply(event);
        }
        world.apply(&Event::Wait(400_000));
        world.check_at_rest();
    }
}
