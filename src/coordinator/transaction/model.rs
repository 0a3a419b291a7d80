//! The coordinator with the logs of a topic's partitions, and clients of both generations at random, against what a
//! reader may see.
//!
//! Nothing here waits or is parallel: what is parallel in a broker is cut into steps, and chance decides whose is next.
//! Answers are lost and requests made again, also late; instances are replaced and go on; the time of transactions
//! runs out; the broker crashes, and what it keeps is loaded again. Then all comes to rest, and
//!
//! - what was committed is visible as a whole, once; what was not is not visible at all,
//! - nothing is left open in any log.
//!
//! The glue between coordinator and logs is [`super::markers`] and [`super::verification`], once more and without IO.
//! That the model finds what it is for is shown by faults in that glue.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use protocol::batch::{Batch, Builder};
use replication::{cluster::ClusterImage, partition::Marker};
use storage::{
    error::Error as StorageError,
    producers::{self, Producers, Standing, Verdict},
};
use uuid::Uuid;

use super::{
    request::{Request, Response},
    state::{BUMPING, Partitions},
    *,
};
use crate::{
    config::Config,
    coordinator::{Producer, Ticket},
};

const SEEDS: u64 = 300;
const STEPS: usize = 400;

const TOPIC: &str = "t";
const PARTITIONS: usize = 3;
const TRANSACTIONAL_IDS: usize = 3;
const TIMEOUT_MS: i32 = 5000;

/// How many instances there have ever been of a transactional id, and a few before are still about.
const ZOMBIES_MAX: usize = 2;

#[test]
fn a_reader_sees_committed_transactions_whole_and_nothing_else() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let config = Config::single_node(&[]).expect("a configuration");
    let seeds = seed.map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut committed_count = 0;
    for seed in seeds {
        match run(seed, None, &config) {
            Ok(count) => committed_count += count,
            Err(fault) => panic!("SEED={seed}: {fault}"),
        }
    }
    assert!(
        seed.is_some() || 2 * SEEDS < committed_count as u64,
        "only {committed_count} transactions were committed in {SEEDS} worlds: too few to show anything"
    );
}

/// Each of these once was a way to lose or to tear transactions, in this broker or in another.
#[test]
fn what_is_broken_on_purpose_is_found() {
    let config = Config::single_node(&[]).expect("a configuration");
    for broken in [
        Broken::NobodyIsVerified,
        Broken::LooksTooLate,
        Broken::EpochsAreIgnored,
        Broken::MarkersAreForgotten,
        Broken::APartitionIsNotTold,
        Broken::TheLastRowIsLost,
        Broken::ARetriedMarkerAborts,
        Broken::TimeNeverEnds,
    ] {
        let found =
            (0..SEEDS).find_map(|seed| Some((seed, run(seed, Some(broken), &config).err()?)));
        assert!(found.is_some(), "{broken:?} is not found by {SEEDS} seeds");
    }
}

/// What a broker could do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Partitions let everybody write who names a transaction.
    NobodyIsVerified,
    /// It is noted what the log has seen after the coordinator has answered, and not before.
    LooksTooLate,
    /// Whoever comes is taken for who is current.
    EpochsAreIgnored,
    /// After a crash nobody goes on telling partitions.
    MarkersAreForgotten,
    APartitionIsNotTold,
    /// An answer was given for what a crash takes back.
    TheLastRowIsLost,
    ARetriedMarkerAborts,
    TimeNeverEnds,
}

/// Small, seeded, and good enough.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).expect("31 bits") % bound
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// A record: its transaction, and which of its records it is.
type Label = (usize, usize);

/// One partition's log, as far as readers of transactions are concerned.
#[derive(Default)]
struct Log {
    producers: Producers,
    end_offset: i64,
    /// Written in transactions that are not over, by producer id.
    open: BTreeMap<i64, Vec<Label>>,
    visible: Vec<Label>,
}

/// What the model knows of a transaction.
#[derive(Debug, Default)]
struct Known {
    /// Where its records were sent to.
    sent: Vec<usize>,
    commit_asked: bool,
    /// It was asked for more than once, or by somebody who did not hear the answer.
    is_in_doubt: bool,
    is_committed: bool,
    is_refused: bool,
}

#[derive(Debug, Clone)]
enum Ask {
    Init {
        expected: Option<Producer>,
    },
    Add {
        index: usize,
    },
    Produce {
        index: usize,
        sequence: i32,
        label: Label,
    },
    End {
        commit: bool,
    },
}

/// An instance of a producer; it has one request under way.
#[derive(Debug, Clone)]
struct Client {
    number: usize,
    id: usize,
    bumps: bool,
    producer: Option<Producer>,
    transaction: Option<usize>,
    sequences: BTreeMap<usize, i32>,
    added: BTreeSet<usize>,
    ask: Option<Ask>,
    /// Its Produce is with the broker.
    waits: bool,
    attempts: usize,
    is_out_of_count: bool,
}

/// A request that was sent and that nobody waits for any more.
#[derive(Debug, Clone)]
struct Late {
    client: Client,
    ask: Ask,
}

/// A Produce on its way through the broker.
struct Writing {
    client: Client,
    /// `None` if nobody waits for the answer.
    answers: bool,
    index: usize,
    sequence: i32,
    label: Label,
    stage: Stage,
}

enum Stage {
    Looks,
    Asks(Standing),
    Appends(Standing),
}

/// Markers on their way.
struct Telling {
    task: WriteMarkers,
    coordinator_epoch: i32,
    left: Vec<usize>,
}

struct World<'a> {
    random: Random,
    broken: Option<Broken>,
    config: &'a Config,
    image: Arc<ClusterImage>,
    now: i64,
    machine: TransactionCoordinator,
    rows: Vec<(Bytes, Option<Bytes>)>,
    coordinator_epoch: i32,
    next_id: i64,
    logs: Vec<Log>,
    telling: Vec<Telling>,
    writing: Vec<Writing>,
    clients: Vec<Client>,
    client_count: usize,
    late: Vec<Late>,
    known: Vec<Known>,
    is_resting: bool,
    was_silent: bool,
}

/// Returns how many transactions were committed, or what was wrong.
fn run(seed: u64, broken: Option<Broken>, config: &Config) -> Result<usize, String> {
    let mut world = World {
        random: Random(seed),
        broken,
        config,
        image: Arc::new(ClusterImage::empty("tests")),
        now: 1_700_000_000_000,
        machine: TransactionCoordinator::default(),
        rows: Vec::new(),
        coordinator_epoch: 0,
        next_id: 100,
        logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
        telling: Vec::new(),
        writing: Vec::new(),
        clients: Vec::new(),
        client_count: 0,
        late: Vec::new(),
        known: Vec::new(),
        is_resting: false,
        was_silent: false,
    };
    world.load();
    for id in 0..TRANSACTIONAL_IDS {
        // In some worlds there have been very many before.
        if world.random.one_in(3) {
            world.use_up_epochs(id);
        }
        world.instance(id);
    }
    for _ in 0..STEPS {
        world.step()?;
    }
    world.rest()?;
    world.check()?;
    Ok(world.known.iter().filter(|it| it.is_committed).count())
}

impl World<'_> {
    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn use_up_epochs(&mut self, id: usize) {
        let mut state = State::fresh(self.next_id, TIMEOUT_MS, self.now);
        self.next_id += 1;
        state.producer.epoch = i16::MAX - 8;
        let row = record::row(&format!("id-{id}"), &state);
        self.rows
            .push(TransactionCoordinator::encoded(&row).expect("a record encodes"));
        self.machine.replay(row, NOWHERE);
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(40) {
            0 => self.crash(),
            1 => self.pass(self.random_time()),
            2 => {
                let id = self.random.below(TRANSACTIONAL_IDS);
                self.instance(id);
            }
            3 if self.random.one_in(20) => self.long_silence(),
            4..8 => self.deliver_late()?,
            8..18 => self.write_on()?,
            18..26 => self.tell_on(),
            _ => {
                let at = self.random.below(self.clients.len());
                self.go_on(at)?;
            }
        }
        Ok(())
    }

    fn random_time(&self) -> i64 {
        // Not so often that nothing is ever committed.
        (self.now / 7) % i64::from(TIMEOUT_MS / 2)
    }

    /// Another instance of a transactional id; the ones before do not know of it.
    fn instance(&mut self, id: usize) {
        let same = |it: &Client| it.id == id;
        if ZOMBIES_MAX < self.clients.iter().filter(|it| same(it)).count() {
            let place = self.clients.iter().position(same).expect("there are some");
            self.clients.remove(place);
        }
        self.client_count += 1;
        self.clients.push(Client {
            number: self.client_count,
            id,
            bumps: self.random.below(2) == 0,
            producer: None,
            transaction: None,
            sequences: BTreeMap::new(),
            added: BTreeSet::new(),
            ask: Some(Ask::Init { expected: None }),
            waits: false,
            attempts: 0,
            is_out_of_count: false,
        });
    }

    /// Lets a client send what it has to, and hear the answer or not.
    fn go_on(&mut self, at: usize) -> Result<(), String> {
        if self.clients[at].waits {
            if self.random.one_in(20) {
                self.give_up(at);
            }
            return Ok(());
        }
        let ask = match self.clients[at].ask.clone() {
            Some(ask) => ask,
            None => self.decide(at),
        };
        let client = &mut self.clients[at];
        client.ask = Some(ask.clone());
        client.attempts += 1;
        if let (Ask::End { commit: true }, Some(transaction)) = (&ask, client.transaction) {
            let known = &mut self.known[transaction];
            known.commit_asked = true;
            known.is_in_doubt |= 1 < client.attempts;
        }
        let client = client.clone();
        self.send_twice(&client, &ask)?;
        if let Ask::Produce {
            index,
            sequence,
            label,
        } = ask
        {
            self.clients[at].waits = true;
            self.writing.push(Writing {
                client,
                answers: true,
                index,
                sequence,
                label,
                stage: Stage::Looks,
            });
            return Ok(());
        }
        let answer = self.coordinate(&client, &ask);
        if self.random.one_in(8) {
            // The answer is lost; it is asked again.
            return Ok(());
        }
        self.hear(client.number, &ask, answer)
    }

    /// The client waits no longer for its Produce, which may still be written, and aborts.
    fn give_up(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.waits = false;
        client.attempts = 0;
        client.ask = Some(Ask::End { commit: false });
        // What it sends next would not follow what it has given up.
        client.is_out_of_count = true;
        for writing in &mut self.writing {
            writing.answers &= writing.client.number != client.number;
        }
    }

    /// A client may have sent a request before, on a connection that it gave up. What the first generation sends so
    /// is served before what it sends next; only the second is safe whenever it comes.
    fn send_twice(&mut self, client: &Client, ask: &Ask) -> Result<(), String> {
        if !self.random.one_in(8) {
            return Ok(());
        }
        if let (Ask::End { commit: true }, Some(transaction)) = (ask, client.transaction) {
            self.known[transaction].is_in_doubt = true;
        }
        let may_be_late = client.bumps || matches!(ask, Ask::Produce { .. });
        let late = Late {
            client: client.clone(),
            ask: ask.clone(),
        };
        match may_be_late {
            true => self.late.push(late),
            false => drop(self.coordinate(&late.client, &late.ask)),
        }
        Ok(())
    }

    fn deliver_late(&mut self) -> Result<(), String> {
        if self.late.is_empty() {
            return Ok(());
        }
        let Late { client, ask } = self.late.swap_remove(self.random.below(self.late.len()));
        match ask {
            Ask::Produce {
                index,
                sequence,
                label,
            } => self.writing.push(Writing {
                client,
                answers: false,
                index,
                sequence,
                label,
                stage: Stage::Looks,
            }),
            _ => drop(self.coordinate(&client, &ask)),
        }
        Ok(())
    }

    /// What a client does next that has nothing to repeat.
    fn decide(&mut self, at: usize) -> Ask {
        let end = self.random.below(8);
        let index = self.random.below(PARTITIONS);
        let client = &mut self.clients[at];
        client.attempts = 0;
        if client.producer.is_none() {
            return Ask::Init { expected: None };
        }
        let transaction = *client.transaction.get_or_insert_with(|| {
            self.known.push(Known::default());
            self.known.len() - 1
        });
        let sent = &mut self.known[transaction].sent;
        match end {
            0 if !sent.is_empty() => Ask::End { commit: false },
            1..4 if !sent.is_empty() => Ask::End { commit: true },
            4 if end == index + 3 => Ask::Init {
                expected: client.producer,
            },
            _ if client.bumps || client.added.contains(&index) => {
                sent.push(index);
                Ask::Produce {
                    index,
                    sequence: client.sequences.get(&index).copied().unwrap_or(0),
                    label: (transaction, sent.len() - 1),
                }
            }
            _ => Ask::Add { index },
        }
    }

    /// The client learns what came of its request.
    fn hear(
        &mut self,
        number: usize,
        ask: &Ask,
        answer: Result<Response, ErrorCode>,
    ) -> Result<(), String> {
        let Some(client) = self.clients.iter_mut().find(|it| it.number == number) else {
            return Ok(());
        };
        client.waits = false;
        let transaction = client.transaction;
        if let Ok(Response::Producer(Producer {
            epoch: i16::MAX, ..
        })) = answer
        {
            return Err(format!(
                "{client:?} is given the epoch that is for fencing it"
            ));
        }
        match (ask, answer) {
            (_, Err(ErrorCode::ConcurrentTransactions)) => return Ok(()),
            (Ask::Init { .. }, Ok(Response::Producer(producer))) => {
                client.producer = Some(producer);
                client.transaction = None;
                client.sequences.clear();
                client.added.clear();
                client.is_out_of_count = false;
            }
            (Ask::Add { index }, Ok(Response::Done)) => drop(client.added.insert(*index)),
            (Ask::Produce { index, .. }, Ok(_)) => {
                *client.sequences.entry(*index).or_default() += 1;
            }
            (Ask::End { commit }, Ok(Response::Producer(producer))) => {
                if let Some(transaction) = transaction.filter(|_| *commit) {
                    self.known[transaction].is_committed = true;
                }
                if client.bumps {
                    client.producer = Some(producer);
                    client.sequences.clear();
                } else if client.producer != Some(producer) {
                    return Err(format!("{client:?} is told that it is {producer:?}"));
                }
                client.transaction = None;
                client.added.clear();
                if client.is_out_of_count {
                    client.is_out_of_count = false;
                    client.ask = Some(Ask::Init {
                        expected: client.producer,
                    });
                    return Ok(());
                }
            }
            (ask, Ok(other)) => return Err(format!("{other:?} to {ask:?} of {client:?}")),
            (Ask::Init { expected: None }, Err(code)) => {
                return Err(format!("{code:?} to who begins anew: {client:?}"));
            }
            // It has lost its place, its epoch or its transaction.
            (ask, Err(code)) => {
                if let (Ask::End { commit: true }, Some(transaction)) = (ask, transaction) {
                    self.known[transaction].is_refused = true;
                }
                // A log that has forgotten a producer and is then told that its transaction is over knows the
                // epoch, and no sequence: in Apache Kafka too.
                let has_lost_count = code == ErrorCode::OutOfOrderSequenceNumber;
                if has_lost_count && self.broken.is_none() && !self.was_silent {
                    return Err(format!("{client:?} has lost count at {ask:?}"));
                }
                let resumes = matches!(ask, Ask::Produce { .. }) && client.number % 2 == 0;
                let id = client.id;
                match (resumes, client.producer) {
                    (true, expected @ Some(_)) => {
                        client.ask = Some(Ask::Init { expected });
                        client.transaction = None;
                        client.attempts = 0;
                    }
                    _ => {
                        self.clients.retain(|it| it.number != number);
                        if !self.clients.iter().any(|it| it.id == id) {
                            self.instance(id);
                        }
                    }
                }
                return Ok(());
            }
        }
        if let Some(client) = self.clients.iter_mut().find(|it| it.number == number) {
            client.ask = None;
        }
        Ok(())
    }

    /// What the coordinator answers. Ids are taken from the controller on the way, as in the API's handlers.
    fn coordinate(&mut self, client: &Client, ask: &Ask) -> Result<Response, ErrorCode> {
        let transactional_id: Arc<str> = Arc::from(format!("id-{}", client.id));
        let producer = self.claimed(client);
        let mut new_id = None;
        loop {
            let transactional_id = Arc::clone(&transactional_id);
            let request = match ask {
                Ask::Init { expected } => Request::Init {
                    transactional_id,
                    expected: *expected,
                    timeout_ms: TIMEOUT_MS,
                    new_id,
                },
                Ask::Add { index } | Ask::Produce { index, .. } => Request::Add {
                    transactional_id,
                    producer,
                    partitions: partitions_of(*index),
                    client_version: if client.bumps { BUMPING } else { 0 },
                },
                Ask::End { commit } => Request::End {
                    transactional_id,
                    producer,
                    commit: *commit,
                    bumps: client.bumps,
                    new_id,
                },
            };
            let answer = self.ask(request)?;
            if answer != Response::NeedsId {
                return Ok(answer);
            }
            new_id = Some(self.next_id);
            self.next_id += 1;
        }
    }

    /// Who the client says it is.
    fn claimed(&self, client: &Client) -> Producer {
        let nobody = Producer { id: -1, epoch: -1 };
        let claimed = client.producer.unwrap_or(nobody);
        let id = format!("id-{}", client.id);
        match self.machine.transactions.get(&*id) {
            Some(known) if self.is(Broken::EpochsAreIgnored) => known.state().producer,
            _ => claimed,
        }
    }

    fn ask(&mut self, request: Request) -> Result<Response, ErrorCode> {
        let effects = self.with_env(|machine, env| machine.handle(Ticket::new(0), request, env));
        self.carry_out(effects).expect("an answer")
    }

    fn with_env<T>(
        &mut self,
        work: impl FnOnce(&mut TransactionCoordinator, &mut Env<'_>) -> T,
    ) -> T {
        work(
            &mut self.machine,
            &mut Env {
                now: self.now,
                steady_now: self.now - 1_600_000_000_000,
                image: &self.image,
                config: self.config,
                records_bytes_max: usize::MAX,
                new_id: &mut || Uuid::from_u128(1),
            },
        )
    }

    fn carry_out(&mut self, effects: Effects) -> Option<Result<Response, ErrorCode>> {
        let Effects {
            append,
            mut answers,
            tasks,
            ..
        } = effects;
        // Now and then it cannot be written.
        if !append.is_empty() && !self.is_resting && self.random.one_in(30) {
            let code = ErrorCode::ConcurrentTransactions;
            self.with_env(|machine, env| machine.append_failed(append, code, env));
            return answers.pop().map(|_| Err(code));
        }
        for record in append {
            self.rows
                .push(TransactionCoordinator::encoded(&record).expect("a record encodes"));
            self.machine.replay(record, NOWHERE);
        }
        self.tell(tasks);
        answers.pop().map(|(_, answer)| answer)
    }

    fn tell(&mut self, tasks: Vec<WriteMarkers>) {
        for task in tasks {
            let indexes = task.partitions.values().flatten();
            let mut left: Vec<usize> = indexes
                .map(|index| usize::try_from(*index).expect("an index"))
                .collect();
            if self.is(Broken::APartitionIsNotTold) && 2 < left.len() {
                left.pop();
            }
            self.telling.push(Telling {
                task,
                coordinator_epoch: self.coordinator_epoch,
                left,
            });
        }
    }

    /// One marker of one transaction, or the coordinator is told that all are written.
    fn tell_on(&mut self) {
        if self.telling.is_empty() {
            return;
        }
        let at = self.random.below(self.telling.len());
        let Telling {
            task,
            coordinator_epoch,
            left,
        } = &mut self.telling[at];
        if left.is_empty() {
            let done = self.telling.swap_remove(at);
            // Who coordinates no more is not heard.
            if done.coordinator_epoch == self.coordinator_epoch {
                let told = |new_id| Request::MarkersWritten {
                    transactional_id: Arc::clone(&done.task.transactional_id),
                    producer: done.task.producer,
                    new_id,
                };
                let request = told(None);
                match self.ask(request) {
                    Err(ErrorCode::ConcurrentTransactions) => self.telling.push(done),
                    Ok(Response::NeedsId) => {
                        let new_id = Some(self.next_id);
                        self.next_id += 1;
                        let request = told(new_id);
                        if self.ask(request) == Err(ErrorCode::ConcurrentTransactions) {
                            self.telling.push(done);
                        }
                    }
                    _ => (),
                }
            }
            return;
        }
        let marker = Marker {
            producer_id: task.producer.id,
            producer_epoch: task.producer.epoch,
            commit: task.commit,
            coordinator_epoch: *coordinator_epoch,
            transaction_version: task.transaction_version,
        };
        let index = left.swap_remove(self.random.below(left.len()));
        // It is written, but that is not known in time: it is written again.
        if self.random.one_in(10) {
            left.push(index);
        }
        match self.logs[index].mark(&marker, self.now) {
            Ok(()) | Err(StorageError::InvalidProducerEpoch { .. }) => (),
            Err(StorageError::CoordinatorFenced { .. }) => drop(self.telling.swap_remove(at)),
            Err(err) => panic!("{err:?} to a marker"),
        }
    }

    /// One step of one Produce.
    fn write_on(&mut self) -> Result<(), String> {
        if self.writing.is_empty() {
            return Ok(());
        }
        let at = self.random.below(self.writing.len());
        let mut writing = self.writing.swap_remove(at);
        let next = self.write(&writing);
        match next {
            Ok(Some(stage)) => {
                writing.stage = stage;
                self.writing.push(writing);
                Ok(())
            }
            done => {
                if !writing.answers {
                    return Ok(());
                }
                let Writing {
                    index,
                    sequence,
                    label,
                    ..
                } = writing;
                let number = writing.client.number;
                if self.random.one_in(8) {
                    let client = self.clients.iter_mut().find(|it| it.number == number);
                    client.into_iter().for_each(|client| client.waits = false);
                    return Ok(());
                }
                let ask = Ask::Produce {
                    index,
                    sequence,
                    label,
                };
                self.hear(number, &ask, done.map(|_| Response::Done))
            }
        }
    }

    fn write(&mut self, writing: &Writing) -> Result<Option<Stage>, ErrorCode> {
        let client = &writing.client;
        let producer = self.claimed(client);
        let log = &self.logs[writing.index];
        match writing.stage {
            Stage::Looks if self.is(Broken::NobodyIsVerified) => {
                Ok(Some(Stage::Appends(Standing::Unverified)))
            }
            Stage::Looks => Ok(Some(match log.standing(producer, client.bumps)? {
                Standing::Open => Stage::Appends(Standing::Open),
                standing => Stage::Asks(standing),
            })),
            Stage::Asks(looked) => {
                match client.bumps {
                    true => {
                        let ask = Ask::Add {
                            index: writing.index,
                        };
                        self.coordinate(client, &ask)?;
                    }
                    false => {
                        let request = Request::Verify {
                            transactional_id: Arc::from(format!("id-{}", client.id)),
                            producer,
                            partitions: partitions_of(writing.index),
                        };
                        match self.ask(request)? {
                            Response::Missing(missing) if missing.is_empty() => (),
                            _ => return Err(ErrorCode::InvalidTxnState),
                        }
                    }
                }
                Ok(Some(Stage::Appends(looked)))
            }
            Stage::Appends(standing) => {
                let standing = match standing {
                    Standing::Verified { .. } if self.is(Broken::LooksTooLate) => {
                        log.standing(producer, client.bumps)?
                    }
                    standing => standing,
                };
                let log = &mut self.logs[writing.index];
                log.append(
                    producer,
                    client.bumps,
                    standing,
                    writing.sequence,
                    writing.label,
                )?;
                Ok(None)
            }
        }
    }

    fn pass(&mut self, ms: i64) {
        self.now += ms + 1;
        if self.is(Broken::TimeNeverEnds) {
            return;
        }
        while let Some(effects) = self.with_env(Machine::tick) {
            self.carry_out(effects);
        }
    }

    /// Nobody says anything for so long that everybody is forgotten, by the coordinator and by the logs.
    fn long_silence(&mut self) {
        self.was_silent = true;
        self.late.clear();
        self.writing.clear();
        for client in &mut self.clients {
            client.waits = false;
        }
        self.pass(8 * 86_400_000);
        for log in &mut self.logs {
            log.producers.expire(86_400_000, self.now);
        }
    }

    /// The broker is gone, and with it what was on its way. What it has written is loaded again.
    fn crash(&mut self) {
        self.writing.clear();
        for client in &mut self.clients {
            client.waits = false;
        }
        // Markers of the coordinator before may still be on their way to other brokers.
        self.telling.retain(|_| self.random.one_in(3));
        if self.is(Broken::TheLastRowIsLost) {
            self.rows.pop();
        }
        for log in &mut self.logs {
            let snapshot = log.producers.encode();
            log.producers = Producers::decode(&snapshot).expect("a snapshot");
        }
        if self.is(Broken::ARetriedMarkerAborts) {
            for telling in &mut self.telling {
                telling.task.commit = false;
                telling.coordinator_epoch += 1;
            }
        }
        self.load();
    }

    fn load(&mut self) {
        self.coordinator_epoch += 1;
        self.machine = TransactionCoordinator::default();
        for (key, value) in self.rows.clone() {
            let record = TransactionCoordinator::decode(key, value).expect("a record");
            self.machine
                .replay(record.expect("a known record"), NOWHERE);
        }
        let mut effects = self.with_env(Machine::loaded);
        if self.is(Broken::MarkersAreForgotten) {
            effects.tasks.clear();
        }
        self.carry_out(effects);
    }

    /// Nobody begins anything any more, and what was begun is over within a transaction's time.
    fn rest(&mut self) -> Result<(), String> {
        self.is_resting = true;
        while !self.late.is_empty() {
            self.deliver_late()?;
        }
        while !self.writing.is_empty() {
            self.write_on()?;
        }
        for _ in 0..3 {
            self.pass(i64::from(TIMEOUT_MS));
            while !self.telling.is_empty() {
                self.tell_on();
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let mut seen: HashMap<Label, usize> = HashMap::new();
        for (index, log) in self.logs.iter().enumerate() {
            if let Some(oldest) = log.producers.oldest_ongoing() {
                return Err(format!(
                    "the last stable offset of {index} is stuck at {}",
                    oldest.first_offset
                ));
            }
            if let Some((id, labels)) = log.open.iter().find(|(_, labels)| !labels.is_empty()) {
                return Err(format!(
                    "{labels:?} of {id} are neither visible nor aborted in {index}"
                ));
            }
            for label in &log.visible {
                if seen.insert(*label, index).is_some() {
                    return Err(format!("{label:?} is there twice"));
                }
            }
        }
        for (number, known) in self.known.iter().enumerate() {
            let labels = (0..known.sent.len()).map(|at| (number, at));
            let visible = labels.filter(|label| seen.contains_key(label)).count();
            let may_be_visible = known.commit_asked && (known.is_in_doubt || !known.is_refused);
            if known.is_committed && visible < known.sent.len() {
                return Err(format!("transaction {number} is lost: {known:?}"));
            }
            if !may_be_visible && 0 < visible {
                return Err(format!("transaction {number} is visible: {known:?}"));
            }
            if 0 < visible && visible < known.sent.len() {
                return Err(format!("transaction {number} is torn: {known:?}"));
            }
        }
        Ok(())
    }
}

const NOWHERE: Origin = Origin {
    offset: 0,
    producer: None,
};

fn partitions_of(index: usize) -> Partitions {
    let index = i32::try_from(index).expect("few");
    Partitions::from([(Arc::from(TOPIC), BTreeSet::from([index]))])
}

impl Log {
    fn standing(&self, producer: Producer, bumps: bool) -> Result<Standing, ErrorCode> {
        match self.producers.get(producer.id) {
            Some(known) if bumps && producer.epoch < known.epoch => {
                Err(ErrorCode::InvalidProducerEpoch)
            }
            _ => Ok(self.producers.standing(producer.id, producer.epoch)),
        }
    }

    fn append(
        &mut self,
        producer: Producer,
        bumps: bool,
        standing: Standing,
        sequence: i32,
        label: Label,
    ) -> Result<(), ErrorCode> {
        let mut batch = Builder::new()
            .producer(producer.id, producer.epoch, sequence)
            .transactional();
        batch.push(0, None, Some(b"record"), &[]);
        let batch = batch.build().expect("a batch");
        let origin = producers::Origin::Transaction { standing, bumps };
        match self.producers.check(batch.header(), None, origin) {
            Ok(Verdict::Append) => (),
            Ok(Verdict::Duplicate(_)) => return Ok(()),
            Err(StorageError::InvalidProducerEpoch { .. }) => {
                return Err(ErrorCode::InvalidProducerEpoch);
            }
            Err(StorageError::InvalidTxnState { .. }) => return Err(ErrorCode::InvalidTxnState),
            Err(StorageError::OutOfOrderSequence { .. }) => {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
            Err(err) => panic!("{err:?} to a batch"),
        }
        self.apply(&batch, None);
        self.open.entry(producer.id).or_default().push(label);
        Ok(())
    }

    fn mark(&mut self, marker: &Marker, now: i64) -> Result<(), StorageError> {
        let (batch, origin) = marker.batch(now);
        let parsed = producers::Marker::of(&batch)?;
        self.producers
            .check(batch.header(), parsed.as_ref(), origin)?;
        self.apply(&batch, parsed.as_ref());
        let ended = self.open.remove(&marker.producer_id).unwrap_or_default();
        if marker.commit {
            self.visible.extend(ended);
        }
        Ok(())
    }

    fn apply(&mut self, batch: &Batch, marker: Option<&producers::Marker>) {
        let now = batch.header().max_timestamp;
        self.producers
            .apply(batch.header(), self.end_offset, marker, now);
        self.end_offset += 1;
    }
}
