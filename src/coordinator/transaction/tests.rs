//! Scripts of what one transactional id goes through. The codes and epochs are those that Apache Kafka 4.4.0 answered
//! to the same requests, and the last test reads what it wrote.

use std::collections::BTreeSet;

use protocol::records::transaction::TransactionRecord;
use replication::cluster::ClusterImage;
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

#[test]
fn a_producer_is_given_another_epoch_each_time() {
    check(
        "init                = 100/0 | Empty 100/0
         init                = 100/1 | Empty 100/1
         init from 100/0     = ProducerFenced
         init from 100/1     = 100/2 | Empty 100/2
         init from 100/1     = 100/2 | Empty 100/2
         init from 100/0     = ProducerFenced
         init from 100/9     = ProducerFenced
         init from 999/2     = ProducerFenced
         init                = 100/3 | Empty 100/3
         init from 100/2     = ProducerFenced",
    );
}

#[test]
fn whoever_claims_to_have_been_somebody_nobody_knows_begins_anew() {
    check("init from 777/3 = 100/0 | Empty 100/0");
}

#[test]
fn the_first_generation_keeps_its_epoch() {
    check(
        "add 100/0 t-0       = InvalidProducerIdMapping
         init                = 100/0 | Empty 100/0
         commit 100/0        = InvalidTxnState
         abort 100/0         = InvalidTxnState
         add 999/0 t-0       = InvalidProducerIdMapping
         add 100/1 t-0       = ProducerFenced
         add 100/0 t-0       = Done | Ongoing 100/0 t-0
         add 100/0 t-1       = Done | Ongoing 100/0 t-0 t-1
         add 100/0 t-0       = Done
         commit 100/1        = ProducerFenced
         commit 999/0        = InvalidProducerIdMapping
         commit 100/0        = 100/0 | PrepareCommit 100/0 t-0 t-1 | tell commit 100/0 v0 t-0 t-1
         commit 100/0        = ConcurrentTransactions
         abort 100/0         = InvalidTxnState
         add 100/0 u-0       = ConcurrentTransactions
         init                = ConcurrentTransactions
         verify 100/0 t-0    = ConcurrentTransactions
         told 100/0          = Done | CompleteCommit 100/0
         told 100/0          = InvalidTxnState
         commit 100/0        = 100/0
         abort 100/0         = InvalidTxnState
         commit 100/0 v2     = InvalidTxnState
         verify 100/0 t-0    = not t-0
         add 100/0 u-0       = Done | Ongoing 100/0 u-0
         verify 100/0 u-0    = all
         verify 100/0 u-0 t-0 = not t-0
         verify 100/1 u-0    = ProducerFenced
         verify 999/0 u-0    = InvalidProducerIdMapping
         abort 100/0         = 100/0 | PrepareAbort 100/0 u-0 | tell abort 100/0 v0 u-0
         told 100/0          = Done | CompleteAbort 100/0
         abort 100/0         = 100/0
         commit 100/0        = InvalidTxnState",
    );
}

#[test]
fn the_second_generation_is_bumped_by_every_end() {
    check(
        "init                = 100/0 | Empty 100/0
         commit 100/0 v2     = InvalidTxnState
         abort 100/0 v2      = 100/1 | CompleteAbort 100/1
         abort 100/0 v2      = 100/1
         commit 100/0 v2     = InvalidTxnState
         commit 100/1 v2     = InvalidTxnState
         add 100/0 t-0 v2    = ProducerFenced
         add 100/1 t-0 v2    = Done | Ongoing 100/1 t-0
         commit 100/0 v2     = ProducerFenced
         commit 100/1 v2     = 100/2 | PrepareCommit 100/2 t-0 | tell commit 100/2 v2 t-0
         commit 100/1 v2     = ConcurrentTransactions
         abort 100/1 v2      = InvalidTxnState
         commit 100/2 v2     = ProducerFenced
         told 100/2          = Done | CompleteCommit 100/2
         commit 100/1 v2     = 100/2
         abort 100/1 v2      = InvalidTxnState
         commit 100/2 v2     = InvalidTxnState
         commit 100/2        = 100/2
         abort 100/2         = InvalidTxnState
         abort 100/2 v2      = 100/3 | CompleteAbort 100/3
         init from 100/2     = 100/3 | Empty 100/3
         init from 100/1     = ProducerFenced",
    );
}

#[test]
fn generations_follow_one_another() {
    check(
        "init                = 100/0 | Empty 100/0
         add 100/0 t-0 v2    = Done | Ongoing 100/0 t-0
         commit 100/0        = 100/0 | PrepareCommit 100/0 t-0 | tell commit 100/0 v0 t-0
         told 100/0          = Done | CompleteCommit 100/0
         add 100/0 t-0       = Done | Ongoing 100/0 t-0
         commit 100/0 v2     = 100/1 | PrepareCommit 100/1 t-0 | tell commit 100/1 v2 t-0
         told 100/1          = Done | CompleteCommit 100/1",
    );
}

#[test]
fn who_comes_next_has_what_was_left_unfinished_aborted() {
    check(
        "init                = 100/0 | Empty 100/0
         add 100/0 t-0       = Done | Ongoing 100/0 t-0
         init from 999/0     = ProducerFenced
         init                = ConcurrentTransactions | PrepareAbort 100/1 t-0 | tell abort 100/1 v2 t-0
         init                = ConcurrentTransactions
         add 100/0 t-0       = ProducerFenced
         told 100/1          = Done | CompleteAbort 100/1
         commit 100/0        = ProducerFenced
         init                = 100/2 | Empty 100/2",
    );
}

/// The producer itself, which lost its place: it goes on with the epoch that fenced it.
#[test]
fn who_goes_on_after_an_error_has_its_own_aborted() {
    check(
        "init                = 100/0 | Empty 100/0
         add 100/0 t-0       = Done | Ongoing 100/0 t-0
         init from 100/0     = ConcurrentTransactions | PrepareAbort 100/1 t-0 | tell abort 100/1 v2 t-0
         told 100/1          = Done | CompleteAbort 100/1
         init from 100/0     = 100/1 | Empty 100/1",
    );
}

#[test]
fn what_takes_too_long_is_aborted() {
    check(
        "init timeout=1000   = 100/0 | Empty 100/0
         wait 5000           =
         add 100/0 t-0       = Done | Ongoing 100/0 t-0
         wait 900            =
         add 100/0 t-1       = Done | Ongoing 100/0 t-0 t-1
         wait 99             =
         wait 1              = | PrepareAbort 100/1 t-0 t-1 | tell abort 100/1 v2 t-0 t-1
         commit 100/0        = ProducerFenced
         told 100/1          = Done | CompleteAbort 100/1
         commit 100/0        = ProducerFenced
         wait 5000           =",
    );
}

#[test]
fn an_abort_that_could_not_be_written_is_tried_again() {
    check(
        "init timeout=1000   = 100/0 | Empty 100/0
         add 100/0 t-0       = Done | Ongoing 100/0 t-0
         fail                =
         wait 1000           =
         wait 1000           = | PrepareAbort 100/1 t-0 | tell abort 100/1 v2 t-0",
    );
}

#[test]
fn what_could_not_be_written_has_changed_nothing() {
    check(
        "init                = 100/0 | Empty 100/0
         fail                =
         init from 100/0     = NotCoordinator
         init from 100/0     = 100/1 | Empty 100/1
         fail                =
         add 100/1 t-0       = NotCoordinator
         commit 100/1        = InvalidTxnState
         add 100/1 t-0       = Done | Ongoing 100/1 t-0
         fail                =
         commit 100/1        = NotCoordinator
         abort 100/1         = 100/1 | PrepareAbort 100/1 t-0 | tell abort 100/1 v0 t-0",
    );
}

#[test]
fn what_was_decided_before_a_crash_is_carried_out_after_it() {
    check(
        "init                = 100/0 | Empty 100/0
         add 100/0 t-0       = Done | Ongoing 100/0 t-0
         restart             =
         commit 100/0        = 100/0 | PrepareCommit 100/0 t-0 | tell commit 100/0 v0 t-0
         restart             = | tell commit 100/0 v0 t-0
         told 100/0          = Done | CompleteCommit 100/0
         restart             =
         commit 100/0        = 100/0",
    );
}

#[test]
fn a_deadline_survives_a_restart() {
    check(
        "init timeout=1000   = 100/0 | Empty 100/0
         add 100/0 t-0       = Done | Ongoing 100/0 t-0
         wait 400            =
         restart             =
         wait 600            = | PrepareAbort 100/1 t-0 | tell abort 100/1 v2 t-0",
    );
}

/// A real broker forgets it too: the record has no place for it.
#[test]
fn after_a_restart_a_lost_answer_fences_who_waited_for_it() {
    check(
        "init                = 100/0 | Empty 100/0
         init from 100/0     = 100/1 | Empty 100/1
         restart             =
         init from 100/0     = ProducerFenced
         init from 100/1     = 100/2 | Empty 100/2",
    );
}

/// To the retry a real broker answers UNKNOWN_SERVER_ERROR: it trips over an epoch that is no longer to be bumped.
#[test]
fn epochs_are_used_up_by_beginning_and_another_id_goes_on() {
    check(
        "epoch 32765         =
         init from 100/32765 = 100/32766 | Empty 100/32766
         init from 100/32765 = 100/32766 | Empty 100/32766
         init from 100/32766 = 101/0 | Empty 101/0
         init from 100/32766 = 101/0 | Empty 101/0
         init from 100/32765 = ProducerFenced
         init                = 101/1 | Empty 101/1",
    );
}

#[test]
fn epochs_are_used_up_by_ending_and_another_id_goes_on() {
    check(
        "epoch 32766         =
         add 100/32766 t-0 v2 = Done | Ongoing 100/32766 t-0
         commit 100/32766 v2 = 101/0 | PrepareCommit 100/32767 next 101 t-0 | tell commit 100/32767 v2 t-0
         commit 100/32766 v2 = ConcurrentTransactions
         told 100/32767      = Done | CompleteCommit 101/0
         commit 100/32766 v2 = 101/0
         abort 100/32766 v2  = InvalidTxnState
         commit 100/32765 v2 = InvalidProducerIdMapping
         init from 100/32766 = 101/0 | Empty 101/0
         add 101/0 t-0 v2    = Done | Ongoing 101/0 t-0
         init                = ConcurrentTransactions | PrepareAbort 101/1 t-0 | tell abort 101/1 v2 t-0",
    );
}

#[test]
fn the_last_epoch_of_all_is_for_fencing() {
    check(
        "epoch 32766         =
         add 100/32766 t-0   = Done | Ongoing 100/32766 t-0
         init                = ConcurrentTransactions | PrepareAbort 100/32767 t-0 | tell abort 100/32767 v2 t-0
         told 100/32767      = Done | CompleteAbort 101/0
         commit 100/32766 v2 = InvalidTxnState
         abort 100/32766 v2  = 101/0
         abort 100/32767 v2  = InvalidProducerIdMapping
         add 100/32766 t-0   = InvalidProducerIdMapping
         init                = 101/1 | Empty 101/1",
    );
}

/// Who had it would not be fenced when its time is over, and could commit one half of what was aborted with the other.
#[test]
fn nobody_is_given_the_last_epoch_of_all() {
    check(
        "epoch 32766         =
         add 100/32766 t-0   = Done | Ongoing 100/32766 t-0
         init from 100/32766 = ConcurrentTransactions | PrepareAbort 100/32767 t-0 | tell abort 100/32767 v2 t-0
         restart             = | tell abort 100/32767 v2 t-0
         told 100/32767      = Done | CompleteAbort 101/0
         restart             =
         abort 100/32766 v2  = 101/0
         init from 100/32767 = ProducerFenced",
    );
    check(
        "epoch 32766         =
         add 100/32766 t-0   = Done | Ongoing 100/32766 t-0
         init from 100/32766 = ConcurrentTransactions | PrepareAbort 100/32767 t-0 | tell abort 100/32767 v2 t-0
         told 100/32767      = Done | CompleteAbort 101/0
         init from 100/32766 = 101/0 | Empty 101/0
         init from 100/32767 = ProducerFenced
         init                = 101/1 | Empty 101/1
         init from 100/32766 = ProducerFenced",
    );
    // Without a partition it is over as soon as there is another id.
    check(
        "epoch 32766         =
         add 100/32766       = Done | Ongoing 100/32766
         init                = ConcurrentTransactions | PrepareAbort 100/32767 | tell abort 100/32767 v2
         told 100/32767      = Done | CompleteAbort 101/0",
    );
    check(
        "epoch 32766         =
         add 100/32766 t-0 v2 = Done | Ongoing 100/32766 t-0
         wait 60000          = | PrepareAbort 100/32767 t-0 | tell abort 100/32767 v2 t-0
         abort 100/32766 v2  = ConcurrentTransactions
         told 100/32767      = Done | CompleteAbort 101/0
         abort 100/32766 v2  = 101/0",
    );
}

#[test]
fn a_transaction_of_nothing_is_over_at_once() {
    check(
        "init                = 100/0 | Empty 100/0
         add 100/0           = Done | Ongoing 100/0
         commit 100/0        = 100/0 | CompleteCommit 100/0
         abort 100/0 v2      = 100/1 | CompleteAbort 100/1",
    );
}

#[test]
fn who_has_been_silent_for_long_is_forgotten() {
    check(
        "init                = 100/0 | Empty 100/0
         wait 604800000      = | gone
         init                = 101/0 | Empty 101/0
         add 101/0 t-0       = Done | Ongoing 101/0 t-0
         commit 101/0        = 101/0 | PrepareCommit 101/0 t-0 | tell commit 101/0 v0 t-0
         wait 604800000      =
         told 101/0          = Done | CompleteCommit 101/0
         wait 604800000      = | gone
         commit 101/0        = InvalidProducerIdMapping
         restart             =",
    );
}

struct World {
    machine: TransactionCoordinator,
    config: Config,
    image: Arc<ClusterImage>,
    now: i64,
    log: Vec<(Bytes, Option<Bytes>)>,
    next_id: i64,
    fails: bool,
    tasks: Vec<WriteMarkers>,
}

const ID: &str = "id";

/// Runs a script of `command = answer | state afterwards | what is to be done`; what is empty or as before is left out.
#[track_caller]
fn check(script: &str) {
    let mut world = World {
        machine: TransactionCoordinator::default(),
        config: Config::single_node(&[]).expect("a configuration"),
        image: Arc::new(ClusterImage::empty("tests")),
        now: 1_700_000_000_000,
        log: Vec::new(),
        next_id: 100,
        fails: false,
        tasks: Vec::new(),
    };
    world.restart();
    for line in script.lines().map(str::trim) {
        let (command, want) = line.split_once('=').expect("command = expectation");
        // `timeout=` has one too.
        let (command, want) = match line.split_once(" = ") {
            Some(parts) => parts,
            None => (
                line.strip_suffix('=').unwrap_or(command),
                want.strip_suffix('=').unwrap_or(""),
            ),
        };
        let before = world.shown();
        let mut got = world.command(command.trim());
        let after = world.shown();
        if before != after && command.split_whitespace().next() != Some("epoch") {
            got += &format!(" | {after}");
        } else if got.contains('/') && after.starts_with("Empty") && command.starts_with("init") {
            // Written once more, and the same.
            got += &format!(" | {after}");
        }
        for task in std::mem::take(&mut world.tasks) {
            got += &format!(" | {}", told(&task));
        }
        assert_eq!(got.trim(), want.trim(), "after `{}`", command.trim());
    }
    let before = world.shown();
    world.restart();
    assert_eq!(world.shown(), before, "when loaded from the log");
}

fn told(task: &WriteMarkers) -> String {
    assert_eq!(&*task.transactional_id, ID);
    let end = match task.commit {
        true => "commit",
        false => "abort",
    };
    let Producer { id, epoch } = task.producer;
    let mut text = format!("tell {end} {id}/{epoch} v{}", task.transaction_version);
    for name in names(&task.partitions) {
        text += &format!(" {name}");
    }
    text
}

fn names(partitions: &Partitions) -> Vec<String> {
    let each = |(topic, indexes): (&Arc<str>, &BTreeSet<i32>)| -> Vec<String> {
        indexes
            .iter()
            .map(|index| format!("{topic}-{index}"))
            .collect()
    };
    partitions.iter().flat_map(each).collect()
}

impl World {
    fn with_env<T>(
        &mut self,
        work: impl FnOnce(&mut TransactionCoordinator, &mut Env<'_>) -> T,
    ) -> T {
        work(
            &mut self.machine,
            &mut Env {
                now: self.now,
                // The clocks do not begin together.
                steady_now: self.now - 1_600_000_000_000,
                image: &self.image,
                config: &self.config,
                records_bytes_max: usize::MAX,
                new_id: &mut || Uuid::from_u128(1),
            },
        )
    }

    fn restart(&mut self) {
        self.machine = TransactionCoordinator::default();
        for (key, value) in self.log.clone() {
            let record = TransactionCoordinator::decode(key, value).expect("a record");
            let origin = Origin {
                offset: 0,
                producer: None,
            };
            self.machine.replay(record.expect("a known record"), origin);
        }
        let effects = self.with_env(Machine::loaded);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects) -> Option<Result<Response, ErrorCode>> {
        let Effects {
            append,
            producer,
            mut answers,
            then,
            tasks,
        } = effects;
        assert!(producer.is_none() && then.is_none());
        if !append.is_empty() && std::mem::take(&mut self.fails) {
            let code = ErrorCode::NotCoordinator;
            let others = self.with_env(|machine, env| machine.append_failed(append, code, env));
            assert!(others.is_empty());
            return answers.pop().map(|_| Err(code));
        }
        for record in append {
            let encoded = TransactionCoordinator::encoded(&record);
            self.log.push(encoded.expect("a record encodes"));
            let origin = Origin {
                offset: 0,
                producer: None,
            };
            self.machine.replay(record, origin);
        }
        self.tasks.extend(tasks);
        answers.pop().map(|(_, answer)| answer)
    }

    fn shown(&self) -> String {
        let known = self.machine.transactions.get(ID);
        known.map_or_else(|| "gone".to_owned(), ToString::to_string)
    }

    fn command(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (verb, rest) = words.split_first().expect("a command");
        let bumps = rest.last() == Some(&"v2");
        let rest = match bumps {
            true => &rest[..rest.len() - 1],
            false => rest,
        };
        let transactional_id: Arc<str> = Arc::from(ID);
        match *verb {
            "init" => {
                let timeout = rest.iter().find_map(|word| word.strip_prefix("timeout="));
                let expected = rest.iter().skip_while(|word| **word != "from").nth(1);
                let request = |new_id| Request::Init {
                    transactional_id: Arc::clone(&transactional_id),
                    expected: expected.map(|text| producer(text)),
                    timeout_ms: timeout.map_or(60_000, |ms| ms.parse().expect("a number")),
                    new_id,
                };
                self.ask_with_id(request)
            }
            "add" => self.ask(Request::Add {
                transactional_id,
                producer: producer(rest[0]),
                partitions: partitions(&rest[1..]),
                client_version: if bumps { BUMPING } else { 0 },
            }),
            "verify" => self.ask(Request::Verify {
                transactional_id,
                producer: producer(rest[0]),
                partitions: partitions(&rest[1..]),
            }),
            "commit" | "abort" => self.ask_with_id(|new_id| Request::End {
                transactional_id: Arc::clone(&transactional_id),
                producer: producer(rest[0]),
                commit: *verb == "commit",
                bumps,
                new_id,
            }),
            "told" => self.ask_with_id(|new_id| Request::MarkersWritten {
                transactional_id: Arc::clone(&transactional_id),
                producer: producer(rest[0]),
                new_id,
            }),
            "wait" => {
                self.now += rest[0].parse::<i64>().expect("a number");
                while let Some(effects) = self.with_env(Machine::tick) {
                    self.carry_out(effects);
                }
                String::new()
            }
            "fail" => {
                self.fails = true;
                String::new()
            }
            "restart" => {
                self.restart();
                String::new()
            }
            // As after very many transactions.
            "epoch" => {
                let mut state = State::fresh(100, 60_000, self.now);
                state.producer.epoch = rest[0].parse().expect("a number");
                self.next_id = 101;
                let effects = Effects {
                    append: vec![record::row(ID, &state)],
                    ..Effects::default()
                };
                self.carry_out(effects);
                String::new()
            }
            _ => panic!("unknown command: {command}"),
        }
    }

    fn ask_with_id(&mut self, request: impl Fn(Option<i64>) -> Request) -> String {
        let answer = self.ask(request(None));
        if answer != "NeedsId" {
            return answer;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.ask(request(Some(id)))
    }

    fn ask(&mut self, request: Request) -> String {
        let effects = self.with_env(|machine, env| machine.handle(Ticket::new(0), request, env));
        match self.carry_out(effects).expect("an answer") {
            Ok(Response::Producer(Producer { id, epoch })) => format!("{id}/{epoch}"),
            Ok(Response::Missing(missing)) if missing.is_empty() => "all".to_owned(),
            Ok(Response::Missing(missing)) => format!("not {}", names(&missing).join(" ")),
            Ok(other) => format!("{other:?}"),
            Err(code) => format!("{code:?}"),
        }
    }
}

fn producer(text: &str) -> Producer {
    let (id, epoch) = text.split_once('/').expect("id/epoch");
    Producer {
        id: id.parse().expect("an id"),
        epoch: epoch.parse().expect("an epoch"),
    }
}

fn partitions(names: &[&str]) -> Partitions {
    let mut partitions = Partitions::new();
    for name in names {
        let (topic, index) = name.rsplit_once('-').expect("topic-index");
        let index = index.parse().expect("an index");
        partitions
            .entry(Arc::from(topic))
            .or_default()
            .insert(index);
    }
    partitions
}

/// Values as Apache Kafka 4.4.0 wrote them: a new id, a partition added by producing, its commit, and the commit of a
/// producer that had no epoch left.
#[test]
fn records_are_those_of_a_real_broker() {
    let begun = "00010000000000000bbd00000000ea600000000001a1feecadb4ffffffffffffffff0100080000000000000bbd";
    let ongoing = "00010000000000000bbd00010000ea6001020274020000000200000001a1feecade0000001a1feecade0\
                   0200080000000000000bbd02020002";
    let ended = "00010000000000000bc27fff0000ea6002020274020000000300000001a1feed2de0000001a1feed2dda\
                 0300080000000000000bc201080000000000000bc302020002";
    for (bytes, shown) in [
        (begun, "Empty 3005/0"),
        (ongoing, "Ongoing 3005/1 t-2"),
        (ended, "PrepareCommit 3010/32767 next 3011 t-3"),
    ] {
        let value = Bytes::from(unhex(bytes));
        let key = Bytes::from_static(b"\0\0\0\x02id");
        let record = TransactionRecord::decode(key.clone(), Some(value.clone())).expect("a record");
        let TransactionRecord::TransactionLog {
            value: Some(fields),
            ..
        } = record
        else {
            panic!("{record:?}");
        };
        let state = record::state(fields).expect("a known status");
        assert_eq!(Transaction::new(state.clone()).to_string(), shown);
        assert_eq!(
            TransactionCoordinator::encoded(&record::row(ID, &state)),
            Ok((key, Some(value))),
            "{shown}"
        );
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(u8::is_ascii_hexdigit)
        .map(|digit| match digit {
            b'0'..=b'9' => digit - b'0',
            _ => digit - b'a' + 10,
        })
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
