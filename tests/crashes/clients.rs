//! Clients that go on whatever becomes of the broker, and write down what they did: transactional producers of both
//! generations, and members of groups that read one topic and write to another.
//!
//! They are strict: what a client has no reason to expect when a broker is killed, they fail at.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ConsumerGroupHeartbeatRequest,
        EndTxnRequest, GroupId, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest,
        OffsetFetchRequest, ProducerId, SyncGroupRequest, TransactionalId, TxnOffsetCommitRequest,
        add_partitions_to_txn_request::AddPartitionsToTxnTopic,
        fetch_response::PartitionData,
        join_group_request::JoinGroupRequestProtocol,
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        sync_group_request::SyncGroupRequestAssignment,
        txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
    },
    protocol::{Request, StrBytes},
};
use protocol::{batch::Builder, error::ErrorCode};

use crate::{
    check::{Chain, Outcome, Place, Transaction},
    common::{
        Client, fetch_request, produce_request, read_committed, requests::Random, topic_name,
    },
};

/// What the members of groups read, and producers write.
pub(crate) const INPUT: &str = "in";
pub(crate) const INPUT_PARTITIONS: i32 = 3;
pub(crate) const OUTPUT_PARTITIONS: i32 = 2;

/// How long a transaction may go on.
pub(crate) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a member may be silent.
const SESSION_TIMEOUT_MS: i32 = 1500;

/// Between two looks at what must be waited for.
const REST: Duration = Duration::from_millis(2);

/// Which protocol a client of transactions speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    /// AddPartitionsToTxn first, and the epoch stays (transaction version 1).
    First,
    /// Partitions are added by writing to them, and each end bumps the epoch (KIP-890).
    Second,
}

/// What all clients share.
pub(crate) struct Shared {
    address: SocketAddr,
    stop: AtomicBool,
    request_count: AtomicU64,
    journal: Mutex<Vec<Transaction>>,
}

/// Why a client does not go on as it was.
#[derive(Debug)]
enum Halt {
    /// The test ends.
    Stopped,
    /// The transaction, the producer or the member is not what it was.
    Over(ErrorCode),
}

impl Shared {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stop: AtomicBool::new(false),
            request_count: AtomicU64::new(0),
            journal: Mutex::default(),
        }
    }

    /// Everybody stops where it stands.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// How many requests were answered so far.
    pub(crate) fn request_count(&self) -> u64 {
        self.request_count.load(Ordering::SeqCst)
    }

    pub(crate) fn journal(&self) -> Vec<Transaction> {
        self.with_journal(|journal| journal.clone())
    }

    fn with_journal<T>(&self, work: impl FnOnce(&mut Vec<Transaction>) -> T) -> T {
        work(&mut self.journal.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A transaction of which nothing is known yet; returns its place in the journal.
    fn begin(&self, name: &str) -> usize {
        self.with_journal(|journal| {
            journal.push(Transaction {
                name: name.to_owned(),
                records: Vec::new(),
                offsets: Vec::new(),
                outcome: Outcome::Abandoned,
            });
            journal.len() - 1
        })
    }

    fn note(&self, at: usize, note: impl FnOnce(&mut Transaction)) {
        self.with_journal(|journal| note(&mut journal[at]));
    }
}

/// A connection that is made again when it is gone.
struct Link<'a> {
    shared: &'a Shared,
    client: Option<Client>,
}

impl<'a> Link<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            client: None,
        }
    }

    /// Sends it, again and again, until it is answered.
    fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, Halt> {
        loop {
            if self.shared.is_stopped() {
                return Err(Halt::Stopped);
            }
            if let Some(answer) = self.call_once(version, request) {
                self.shared.request_count.fetch_add(1, Ordering::SeqCst);
                return Ok(answer);
            }
            rest();
        }
    }

    fn call_once<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::try_connect(self.shared.address).ok()?,
        };
        let answer = client.try_call(version, request).ok()?;
        self.client = Some(client);
        Some(answer)
    }

    /// Sends it and does not care.
    fn send_and_leave<R: Request>(&mut self, version: i16, request: &R) {
        if let Some(mut client) = self.client.take() {
            // It may arrive or not.
            let _ = client.try_send(version, request);
        }
    }

    /// The same as [`Link::call`], and again while it is answered that it should come again.
    fn ask<R: Request + fmt::Debug>(
        &mut self,
        version: i16,
        request: &R,
        code: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response, Halt> {
        loop {
            let answer = self.call(version, request)?;
            match ErrorCode::try_from_code(code(&answer)) {
                None => return Ok(answer),
                Some(code) if is_passing(code) => rest(),
                Some(code) if ends_something(code) => return Err(Halt::Over(code)),
                Some(code) => panic!("{code:?} to {request:?}"),
            }
        }
    }
}

/// What a client waits out.
fn is_passing(code: ErrorCode) -> bool {
    use ErrorCode as E;
    matches!(
        code,
        E::CoordinatorLoadInProgress
            | E::CoordinatorNotAvailable
            | E::NotCoordinator
            | E::ConcurrentTransactions
            | E::UnstableOffsetCommit
            | E::NotLeaderOrFollower
            | E::LeaderNotAvailable
            | E::NotEnoughReplicas
    )
}

/// After which a client must begin something anew.
fn ends_something(code: ErrorCode) -> bool {
    use ErrorCode as E;
    matches!(
        code,
        E::ProducerFenced
            | E::InvalidProducerEpoch
            | E::InvalidTxnState
            | E::TransactionAbortable
            | E::MemberIdRequired
            | E::IllegalGeneration
            | E::UnknownMemberId
            | E::RebalanceInProgress
            | E::FencedMemberEpoch
            | E::StaleMemberEpoch
    )
}

fn rest() {
    thread::park_timeout(REST);
}

/// A transactional producer, of as many incarnations as it takes.
struct Producer<'a> {
    link: Link<'a>,
    name: String,
    generation: Generation,
    id: i64,
    epoch: i16,
    next_sequences: BTreeMap<Place, i32>,
    added: BTreeSet<Place>,
}

impl<'a> Producer<'a> {
    fn new(shared: &'a Shared, name: String, generation: Generation) -> Self {
        Self {
            link: Link::new(shared),
            name,
            generation,
            id: -1,
            epoch: -1,
            next_sequences: BTreeMap::new(),
            added: BTreeSet::new(),
        }
    }

    fn transactional_id(&self) -> TransactionalId {
        TransactionalId(text(&self.name))
    }

    /// Begins anew, or goes on after an error as who it was, if it still may.
    fn init(&mut self, mut resumes: bool) -> Result<(), Halt> {
        loop {
            let before = match resumes {
                true => (self.id, self.epoch),
                false => (-1, -1),
            };
            let request = InitProducerIdRequest::default()
                .with_transactional_id(Some(self.transactional_id()))
                .with_transaction_timeout_ms(
                    i32::try_from(TRANSACTION_TIMEOUT.as_millis()).expect("short"),
                )
                .with_producer_id(ProducerId(before.0))
                .with_producer_epoch(before.1);
            match self.link.ask(4, &request, |answer| answer.error_code) {
                Ok(answer) => {
                    self.id = answer.producer_id.0;
                    self.epoch = answer.producer_epoch;
                    self.next_sequences.clear();
                    self.added.clear();
                    return Ok(());
                }
                // An answer that was lost has fenced it.
                Err(Halt::Over(ErrorCode::ProducerFenced)) if resumes => resumes = false,
                Err(halt) => return Err(halt),
            }
        }
    }

    fn send(&mut self, place: &Place, values: &[String]) -> Result<(), Halt> {
        if self.generation == Generation::First && self.added.insert(place.clone()) {
            let topic = AddPartitionsToTxnTopic::default()
                .with_name(topic_name(&place.0))
                .with_partitions(vec![place.1]);
            let request = AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(self.transactional_id())
                .with_v3_and_below_producer_id(ProducerId(self.id))
                .with_v3_and_below_producer_epoch(self.epoch)
                .with_v3_and_below_topics(vec![topic]);
            self.link.ask(3, &request, |answer| {
                let topic = &answer.results_by_topic_v3_and_below[0];
                topic.results_by_partition[0].partition_error_code
            })?;
        }
        let sequence = self.next_sequences.get(place).copied().unwrap_or_default();
        let request = produce_request(&place.0, place.1, self.batch(sequence, values))
            .with_transactional_id(Some(self.transactional_id()));
        let version = match self.generation {
            Generation::First => 9,
            Generation::Second => 12,
        };
        self.link.ask(version, &request, |answer| {
            answer.responses[0].partition_responses[0].error_code
        })?;
        let count = i32::try_from(values.len()).expect("few");
        self.next_sequences.insert(place.clone(), sequence + count);
        Ok(())
    }

    fn batch(&self, sequence: i32, values: &[String]) -> Bytes {
        let mut batch = Builder::new()
            .producer(self.id, self.epoch, sequence)
            .transactional();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("a time after 1970").as_millis();
        for value in values {
            let now = i64::try_from(now).expect("a date");
            batch.push(now, None, Some(value.as_bytes()), &[]);
        }
        batch.build().expect("a batch").bytes().clone()
    }

    fn commit_offset(&mut self, member: &Member, index: i32, offset: i64) -> Result<(), Halt> {
        let group = GroupId(text(&member.group));
        let version = match self.generation {
            Generation::Second => 5,
            Generation::First => {
                let request = AddOffsetsToTxnRequest::default()
                    .with_transactional_id(self.transactional_id())
                    .with_producer_id(ProducerId(self.id))
                    .with_producer_epoch(self.epoch)
                    .with_group_id(group.clone());
                self.link.ask(3, &request, |answer| answer.error_code)?;
                3
            }
        };
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("")));
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(topic_name(INPUT))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(self.transactional_id())
            .with_group_id(group)
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_generation_id(member.epoch)
            .with_member_id(text(&member.id))
            .with_topics(vec![topic]);
        let asked = self.link.ask(version, &request, |answer| {
            answer.topics[0].partitions[0].error_code
        });
        asked.map(|_| ())
    }

    /// Commits, aborts, or is gone before it has; the journal says which. Whether the transaction was committed.
    fn end(&mut self, at: usize, random: &mut Random) -> Result<bool, Halt> {
        let shared = self.link.shared;
        let commit = match random.below(16) {
            0 => {
                self.init(false)?;
                return Ok(false);
            }
            1 => {
                self.init(true)?;
                return Ok(false);
            }
            // Its last words cross the first ones of who comes after it.
            2 => {
                shared.note(at, |noted| noted.outcome = Outcome::Unknown);
                let (version, request) = self.end_request(true);
                self.link.send_and_leave(version, &request);
                self.init(false)?;
                return Ok(false);
            }
            3..6 => false,
            _ => true,
        };
        if commit {
            shared.note(at, |noted| noted.outcome = Outcome::Unknown);
        }
        let (version, request) = self.end_request(commit);
        let answer = self
            .link
            .ask(version, &request, |answer| answer.error_code)?;
        if commit {
            shared.note(at, |noted| noted.outcome = Outcome::Committed);
        }
        if self.generation == Generation::Second {
            self.id = answer.producer_id.0;
            self.epoch = answer.producer_epoch;
            self.next_sequences.clear();
        }
        self.added.clear();
        Ok(commit)
    }

    fn end_request(&self, commit: bool) -> (i16, EndTxnRequest) {
        let version = match self.generation {
            Generation::First => 3,
            Generation::Second => 5,
        };
        let request = EndTxnRequest::default()
            .with_transactional_id(self.transactional_id())
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_committed(commit);
        (version, request)
    }
}

/// Writes transactions over the partitions of the topic that groups read, until the test ends.
pub(crate) fn produce(shared: &Shared, name: &str, generation: Generation, seed: u64) {
    let mut random = Random::new(seed);
    let mut producer = Producer::new(shared, name.to_owned(), generation);
    let mut transaction = |producer: &mut Producer<'_>, number: usize| -> Result<(), Halt> {
        let name = format!("{}/{number}", producer.name);
        let at = shared.begin(&name);
        let mut count = 0;
        for _ in 0..=random.below(5) {
            let index = random.below(usize::try_from(INPUT_PARTITIONS).expect("a count"));
            let place = (INPUT.to_owned(), i32::try_from(index).expect("an index"));
            let values: Vec<String> = (0..=random.below(3))
                .map(|_| {
                    count += 1;
                    // So large that segments are rolled.
                    format!("{name} {count} {}", "x".repeat(300))
                })
                .collect();
            let sent = values.iter().map(|value| (place.clone(), value.clone()));
            shared.note(at, |noted| noted.records.extend(sent));
            producer.send(&place, &values)?;
        }
        producer.end(at, &mut random).map(|_| ())
    };
    let mut went = producer.init(false);
    for number in 0.. {
        went = match went {
            Ok(()) => transaction(&mut producer, number),
            // As a client that has lost its place, or its life.
            Err(Halt::Over(_)) => producer.init(number % 2 == 0),
            Err(Halt::Stopped) => return,
        };
    }
}

/// How a member speaks to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Classic,
    Consumer,
}

struct Member {
    group: String,
    protocol: Protocol,
    id: String,
    /// Its generation, or its epoch.
    epoch: i32,
    assigned: BTreeSet<i32>,
    input_id: uuid::Uuid,
}

impl Member {
    /// Returns when it is known which partitions are its own.
    fn join(&mut self, link: &mut Link<'_>) -> Result<(), Halt> {
        match self.protocol {
            Protocol::Classic => self.join_classic(link),
            Protocol::Consumer => {
                self.epoch = 0;
                self.assigned.clear();
                self.beat_consumer(link).map(|_| ())
            }
        }
    }

    fn join_classic(&mut self, link: &mut Link<'_>) -> Result<(), Halt> {
        let joined = loop {
            let request = JoinGroupRequest::default()
                .with_group_id(GroupId(text(&self.group)))
                .with_session_timeout_ms(SESSION_TIMEOUT_MS)
                .with_rebalance_timeout_ms(SESSION_TIMEOUT_MS)
                .with_member_id(text(&self.id))
                .with_protocol_type(text("copies"))
                .with_protocols(vec![
                    JoinGroupRequestProtocol::default().with_name(text("even")),
                ]);
            let answer = link.call(5, &request)?;
            match ErrorCode::try_from_code(answer.error_code) {
                None => break answer,
                Some(ErrorCode::MemberIdRequired) => self.id = answer.member_id.to_string(),
                Some(ErrorCode::UnknownMemberId) => self.id.clear(),
                Some(code) if is_passing(code) || code == ErrorCode::RebalanceInProgress => rest(),
                Some(code) => panic!("{code:?} to who joins"),
            }
        };
        self.id = joined.member_id.to_string();
        self.epoch = joined.generation_id;
        let members = joined.members.iter().enumerate();
        let assignments = members.map(|(at, member)| {
            let partitions = 0..INPUT_PARTITIONS;
            let its = partitions.filter(|index| {
                let index = usize::try_from(*index).expect("an index");
                index % joined.members.len() == at
            });
            let its: Vec<String> = its.map(|index| index.to_string()).collect();
            SyncGroupRequestAssignment::default()
                .with_member_id(member.member_id.clone())
                .with_assignment(its.join(",").into())
        });
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.epoch)
            .with_member_id(text(&self.id))
            .with_assignments(assignments.collect());
        let answer = link.ask(3, &request, |answer| answer.error_code)?;
        let assigned = String::from_utf8(answer.assignment.to_vec()).expect("text");
        let indexes = assigned.split(',').filter(|index| !index.is_empty());
        self.assigned = indexes
            .map(|index| index.parse().expect("an index"))
            .collect();
        Ok(())
    }

    /// Whether it still has what it had.
    fn beat(&mut self, link: &mut Link<'_>) -> Result<bool, Halt> {
        if self.protocol == Protocol::Consumer {
            return self.beat_consumer(link);
        }
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.epoch)
            .with_member_id(text(&self.id));
        link.ask(3, &request, |answer| answer.error_code)?;
        Ok(true)
    }

    fn beat_consumer(&mut self, link: &mut Link<'_>) -> Result<bool, Halt> {
        use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_member_id(text(&self.id))
            .with_member_epoch(self.epoch)
            .with_topic_partitions(Some(Vec::new()));
        if self.epoch == 0 {
            request.rebalance_timeout_ms = SESSION_TIMEOUT_MS;
            request.subscribed_topic_names = Some(vec![topic_name(INPUT)]);
        } else if !self.assigned.is_empty() {
            let owned = TopicPartitions::default()
                .with_topic_id(self.input_id)
                .with_partitions(self.assigned.iter().copied().collect());
            request.topic_partitions = Some(vec![owned]);
        }
        let answer = link.ask(1, &request, |answer| answer.error_code)?;
        self.epoch = answer.member_epoch;
        let Some(assignment) = answer.assignment else {
            return Ok(true);
        };
        let topics = assignment.topic_partitions.into_iter();
        let assigned: BTreeSet<i32> = topics.flat_map(|topic| topic.partitions).collect();
        let is_same = assigned == self.assigned;
        self.assigned = assigned;
        Ok(is_same)
    }

    /// Where to go on. Waits for what is not decided.
    fn positions(&self, link: &mut Link<'_>) -> Result<BTreeMap<i32, i64>, Halt> {
        let request = offsets_request(&self.group).with_require_stable(true);
        let answer = link.ask(8, &request, |answer| {
            let group = &answer.groups[0];
            let topics = group.topics.iter().flat_map(|topic| &topic.partitions);
            let mut codes = topics.map(|partition| partition.error_code);
            codes.find(|code| *code != 0).unwrap_or(group.error_code)
        })?;
        let topics = answer.groups[0].topics.iter();
        let partitions = topics.flat_map(|topic| &topic.partitions);
        let assigned = partitions.filter(|it| self.assigned.contains(&it.partition_index));
        let positions = assigned.map(|it| (it.partition_index, it.committed_offset.max(0)));
        Ok(positions.collect())
    }
}

/// What a group has committed of everything that groups read.
pub(crate) fn offsets_request(group: &str) -> OffsetFetchRequest {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(topic_name(INPUT))
        .with_partition_indexes((0..INPUT_PARTITIONS).collect());
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(Some(vec![topic]));
    OffsetFetchRequest::default().with_groups(vec![group])
}

/// One of a chain's members, until the test ends.
pub(crate) struct Copier<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) chain: &'a Chain,
    pub(crate) protocol: Protocol,
    pub(crate) generation: Generation,
    pub(crate) input_id: uuid::Uuid,
    pub(crate) number: usize,
}

impl Copier<'_> {
    /// Reads, writes, and commits how far it has read, all in one transaction after another.
    pub(crate) fn run(&self, seed: u64) {
        let mut random = Random::new(seed);
        let name = format!("{}-{}", self.chain.group, self.number);
        let mut link = Link::new(self.shared);
        let mut producer = Producer::new(self.shared, name, self.generation);
        let mut transaction_count = 0;
        let mut went = producer.init(false);
        for incarnation in 0.. {
            let mut member = Member {
                group: self.chain.group.clone(),
                protocol: self.protocol,
                // Members of classic groups are given their ids.
                id: match self.protocol {
                    Protocol::Classic => String::new(),
                    Protocol::Consumer => format!("{}-{incarnation}", producer.name),
                },
                epoch: 0,
                assigned: BTreeSet::new(),
                input_id: self.input_id,
            };
            // Now and then somebody else comes, without a word from the one before.
            while random.below(20) != 0 {
                if matches!(went, Ok(()) | Err(Halt::Over(_))) {
                    went = self.copy(
                        &mut member,
                        &mut link,
                        &mut producer,
                        &mut random,
                        &mut transaction_count,
                    );
                }
                match went {
                    Ok(()) => (),
                    Err(Halt::Stopped) => return,
                    Err(Halt::Over(_)) => went = producer.init(random.below(2) == 0),
                }
            }
        }
    }

    /// Joins, and copies until something is not as it was.
    fn copy(
        &self,
        member: &mut Member,
        link: &mut Link<'_>,
        producer: &mut Producer<'_>,
        random: &mut Random,
        transaction_count: &mut usize,
    ) -> Result<(), Halt> {
        member.join(link)?;
        let mut positions = member.positions(link)?;
        loop {
            if !member.beat(link)? {
                positions = member.positions(link)?;
            }
            let indexes: Vec<i32> = positions.keys().copied().collect();
            if indexes.is_empty() {
                rest();
                continue;
            }
            let index = indexes[random.below(indexes.len())];
            let position = positions[&index];
            let (records, next_offset) = read_committed(&fetch(link, INPUT, index, position)?);
            let Some(next_offset) = next_offset.filter(|next| position < *next) else {
                rest();
                continue;
            };
            // A batch is fetched whole, wherever in it one begins.
            let mut records: Vec<(i64, String)> = records
                .into_iter()
                .filter(|(offset, _)| position <= *offset)
                .collect();
            let taken = 1 + random.below(8);
            let next_offset = match records.get(taken) {
                Some((offset, _)) => *offset,
                None => next_offset,
            };
            records.truncate(taken);

            *transaction_count += 1;
            let name = format!("{}/{transaction_count}", producer.name);
            let at = self.shared.begin(&name);
            for (offset, _) in records {
                let out = i32::try_from(offset % i64::from(OUTPUT_PARTITIONS)).expect("small");
                let place = (self.chain.output.clone(), out);
                let value = format!("{name} {index}:{offset}");
                let sent = (place.clone(), value.clone());
                self.shared.note(at, |noted| noted.records.push(sent));
                producer.send(&place, &[value])?;
            }
            let offset = (member.group.clone(), index, next_offset);
            self.shared.note(at, |noted| noted.offsets.push(offset));
            producer.commit_offset(member, index, next_offset)?;
            match producer.end(at, random)? {
                true => positions.insert(index, next_offset),
                false => return Ok(()),
            };
        }
    }
}

fn fetch(link: &mut Link<'_>, topic: &str, index: i32, offset: i64) -> Result<PartitionData, Halt> {
    let request = fetch_request(topic, index, offset)
        .with_isolation_level(1)
        .with_max_wait_ms(0);
    let mut answer = link.ask(12, &request, |answer| {
        answer.responses[0].partitions[0].error_code
    })?;
    Ok(answer.responses.remove(0).partitions.remove(0))
}

fn text(text: &str) -> StrBytes {
    text.to_owned().into()
}
