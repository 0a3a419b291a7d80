//! The transaction coordinator: one partition of `__transaction_state` as a machine.
//!
//! - [`state`] is one transactional id; here are the map of them, the deadlines, and which request is whose.
//! - How a transaction ends is decided by a record; then [`markers`] tells every partition that has part in it, and
//!   when it has, a second record says so. What was decided before a crash is carried out after it.
//! - [`verification`] is for those who write in a transaction: is this partition part of it?

pub(crate) mod markers;
#[cfg(test)]
mod model;
mod record;
pub(crate) mod request;
pub(crate) mod state;
#[cfg(test)]
mod tests;
pub(crate) mod verification;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ProducerId, TransactionalId,
        describe_transactions_response::{TopicData, TransactionState as Described},
        list_transactions_response::TransactionState as Listed,
    },
    protocol::StrBytes,
};
use protocol::{
    error::{DecodeError, ErrorCode},
    records::{Encoded, transaction::TransactionRecord},
    schema::EncodeError,
};

use self::{
    request::{ListFilter, Request, Response},
    state::{Next, Partitions, State, Status, Transaction},
};
use super::{Answer, Env, Machine, Origin, Producer, Ticket, timers::Timers};

pub(crate) type Effects = super::Effects<TransactionCoordinator>;

/// How long to wait before what could not be written is tried again.
const RETRY_MS: i64 = 1000;

/// How many transactional ids are forgotten in one batch.
const FORGOTTEN_MAX: usize = 1000;

/// A partition's transactional ids.
#[derive(Debug, Default)]
pub(crate) struct TransactionCoordinator {
    /// In order, so that what a load and an expiry start comes in the same order each time.
    transactions: BTreeMap<Arc<str>, Transaction>,
    timers: Timers<Timer>,
    /// How far the steady clock, by which deadlines are kept, is ahead of the one whose time is in records (ms).
    clock_offset: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    /// It is time to look for transactional ids that nobody uses.
    Forget,
    /// The transaction's time is over.
    Abort(Arc<str>),
}

/// A transaction has ended, and these partitions are to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WriteMarkers {
    pub(crate) transactional_id: Arc<str>,
    pub(crate) producer: Producer,
    pub(crate) commit: bool,
    pub(crate) partitions: Partitions,
    pub(crate) transaction_version: i16,
}

impl Machine for TransactionCoordinator {
    type Request = Request;
    type Response = Response;
    type Record = TransactionRecord;
    type Task = WriteMarkers;

    fn encode(record: &TransactionRecord, out: &mut Encoded) -> Result<(), EncodeError> {
        record.encode(record.latest_version(), out)
    }

    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<TransactionRecord>, DecodeError> {
        Ok(match TransactionRecord::decode(key, value)? {
            TransactionRecord::Unknown(_) => None,
            record => Some(record),
        })
    }

    fn handle(&mut self, ticket: Ticket, request: Request, env: &mut Env<'_>) -> Effects {
        self.clock_offset = env.steady_now - env.now;
        let decided = match request {
            Request::Init {
                transactional_id,
                expected,
                timeout_ms,
                new_id,
            } => self.init(&transactional_id, expected, timeout_ms, new_id, env),
            Request::Add {
                transactional_id,
                producer,
                partitions,
                client_version,
            } => self
                .find(&transactional_id)
                .and_then(|known| known.add(producer, &partitions, client_version, env.now))
                .map(|next| self.carry_out(&transactional_id, next, env, |_| Response::Done)),
            Request::Verify {
                transactional_id,
                producer,
                partitions,
            } => self
                .verify(&transactional_id, producer, partitions)
                .map(Decided::answer),
            Request::End {
                transactional_id,
                producer,
                commit,
                bumps,
                new_id,
            } => self
                .find(&transactional_id)
                .and_then(|known| match bumps {
                    true => known.end_and_bump(producer, commit, new_id, env.now),
                    false => known.end(producer, commit, env.now),
                })
                .map(|next| {
                    let told = |state: &State| Response::Producer(state.producer_afterwards());
                    self.carry_out(&transactional_id, next, env, told)
                }),
            Request::MarkersWritten {
                transactional_id,
                producer,
                new_id,
            } => self.markers_written(&transactional_id, producer, new_id, env),
            Request::Describe(transactional_id) => self
                .describe(&transactional_id)
                .map(|described| Decided::answer(Response::Described(Box::new(described)))),
            Request::List(filter) => Ok(Decided::answer(Response::Listed(self.list(&filter, env)))),
        };
        match decided {
            Ok(decided) => decided.effects(ticket),
            Err(code) => Effects::answer(ticket, Err(code)),
        }
    }

    fn replay(&mut self, record: TransactionRecord, _origin: Origin) {
        let TransactionRecord::TransactionLog { key, value } = record else {
            return;
        };
        let Some(value) = value else {
            let id: Arc<str> = Arc::from(key.transactional_id);
            self.transactions.remove(&id);
            self.timers.cancel(&Timer::Abort(id));
            return;
        };
        let Some(state) = record::state(value) else {
            return;
        };
        let transactional_id = match self.transactions.get_key_value(&*key.transactional_id) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(key.transactional_id),
        };
        self.set_deadline(&transactional_id, &state);
        match self.transactions.get_mut(&transactional_id) {
            Some(known) => known.replay(state),
            None => {
                self.transactions
                    .insert(transactional_id, Transaction::new(state));
            }
        }
    }

    /// Nobody writes to this topic in a transaction.
    fn end_transaction(&mut self, _producer: Producer, _commit: bool) {}

    fn loaded(&mut self, env: &mut Env<'_>) -> Effects {
        let check_interval = env.config.transactions.remove_expired_interval_ms;
        self.timers
            .set(Timer::Forget, env.steady_now + check_interval);
        self.clock_offset = env.steady_now - env.now;
        for (transactional_id, known) in &self.transactions {
            if let Some(deadline) = deadline(known.state(), self.clock_offset) {
                let timer = Timer::Abort(Arc::clone(transactional_id));
                self.timers.set(timer, deadline);
            }
        }
        let prepared = self
            .transactions
            .iter()
            .filter(|(_, known)| known.state().status.is_prepared());
        let tasks = prepared.map(|(id, known)| write_markers(id, known.state()));
        Effects {
            tasks: tasks.collect(),
            ..Effects::default()
        }
    }

    fn image_changed(&mut self, _env: &mut Env<'_>) {}

    fn next_deadline(&self) -> Option<i64> {
        self.timers.next()
    }

    fn tick(&mut self, env: &mut Env<'_>) -> Option<Effects> {
        self.clock_offset = env.steady_now - env.now;
        Some(match self.timers.pop(env.steady_now)? {
            Timer::Forget => self.forget_idle(env),
            Timer::Abort(transactional_id) => match self.transactions.get(&transactional_id) {
                Some(known) if known.state().status == Status::Ongoing => {
                    let aborted = known.fenced(env.now);
                    let (append, tasks) = prepare(&transactional_id, &aborted, env.now);
                    Effects {
                        append,
                        tasks,
                        ..Effects::default()
                    }
                }
                _ => Effects::default(),
            },
        })
    }

    fn append_failed(
        &mut self,
        records: Vec<TransactionRecord>,
        _code: ErrorCode,
        env: &mut Env<'_>,
    ) -> Vec<(Ticket, Answer<Self>)> {
        for record in records {
            let TransactionRecord::TransactionLog { key, .. } = record else {
                continue;
            };
            let Some((id, known)) = self.transactions.get_key_value(&*key.transactional_id) else {
                continue;
            };
            // It may have been its deadline that was to be written.
            let timer = Timer::Abort(Arc::clone(id));
            if known.state().status == Status::Ongoing && self.timers.get(&timer).is_none() {
                self.timers.set(timer, env.steady_now + RETRY_MS);
            }
        }
        Vec::new()
    }
}

/// What a request comes to.
struct Decided {
    append: Vec<TransactionRecord>,
    tasks: Vec<WriteMarkers>,
    answer: Result<Response, ErrorCode>,
}

impl Decided {
    fn answer(response: Response) -> Self {
        Self {
            append: Vec::new(),
            tasks: Vec::new(),
            answer: Ok(response),
        }
    }

    fn effects(self, ticket: Ticket) -> Effects {
        Effects {
            append: self.append,
            tasks: self.tasks,
            answers: vec![(ticket, self.answer)],
            ..Effects::default()
        }
    }
}

impl TransactionCoordinator {
    fn set_deadline(&mut self, transactional_id: &Arc<str>, state: &State) {
        let timer = Timer::Abort(Arc::clone(transactional_id));
        match deadline(state, self.clock_offset) {
            Some(deadline) => self.timers.set(timer, deadline),
            None => self.timers.cancel(&timer),
        }
    }

    fn find(&self, transactional_id: &str) -> Result<&Transaction, ErrorCode> {
        self.transactions
            .get(transactional_id)
            .ok_or(ErrorCode::InvalidProducerIdMapping)
    }

    fn init(
        &mut self,
        transactional_id: &Arc<str>,
        expected: Option<Producer>,
        timeout_ms: i32,
        new_id: Option<i64>,
        env: &Env<'_>,
    ) -> Result<Decided, ErrorCode> {
        let Some(known) = self.transactions.get_mut(transactional_id) else {
            let Some(id) = new_id else {
                return Ok(Decided::answer(Response::NeedsId));
            };
            // Whatever it says it was: nobody knows better.
            let state = State::fresh(id, timeout_ms, env.now);
            return Ok(Decided {
                append: vec![record::row(transactional_id, &state)],
                tasks: Vec::new(),
                answer: Ok(Response::Producer(state.producer)),
            });
        };
        let next = known.init(expected, timeout_ms, new_id, env.now)?;
        if let (Next::Write(state), Some(expected)) = (&next, expected)
            && state.status == Status::Empty
        {
            known.remember(state.producer, expected.epoch);
        }
        Ok(self
            .carry_out(transactional_id, next, env, |state| match state.status {
                Status::Empty => Response::Producer(state.producer),
                _ => Response::Done,
            })
            .refused_if(Response::Done, ErrorCode::ConcurrentTransactions))
    }

    /// The records and tasks for what was decided; `told` makes the answer from the state that comes of it.
    fn carry_out(
        &self,
        transactional_id: &Arc<str>,
        next: Next,
        env: &Env<'_>,
        told: impl Fn(&State) -> Response,
    ) -> Decided {
        match next {
            Next::NeedsId => Decided::answer(Response::NeedsId),
            Next::Unchanged => match self.transactions.get(transactional_id) {
                Some(known) => Decided::answer(told(known.state())),
                None => Decided::answer(Response::Done),
            },
            Next::Write(state) if state.status.is_prepared() => {
                let (append, tasks) = prepare(transactional_id, &state, env.now);
                Decided {
                    append,
                    tasks,
                    answer: Ok(told(&state)),
                }
            }
            Next::Write(state) => Decided {
                append: vec![record::row(transactional_id, &state)],
                tasks: Vec::new(),
                answer: Ok(told(&state)),
            },
        }
    }

    fn verify(
        &self,
        transactional_id: &str,
        producer: Producer,
        mut partitions: Partitions,
    ) -> Result<Response, ErrorCode> {
        let known = self.find(transactional_id)?;
        known.verify(producer)?;
        partitions.retain(|topic, indexes| {
            indexes.retain(|index| !known.contains(topic, *index));
            !indexes.is_empty()
        });
        Ok(Response::Missing(partitions))
    }

    fn markers_written(
        &self,
        transactional_id: &Arc<str>,
        producer: Producer,
        new_id: Option<i64>,
        env: &Env<'_>,
    ) -> Result<Decided, ErrorCode> {
        let state = self.find(transactional_id)?.state();
        if state.producer != producer || !state.status.is_prepared() {
            return Err(ErrorCode::InvalidTxnState);
        }
        if state.needs_successor() && new_id.is_none() {
            return Ok(Decided::answer(Response::NeedsId));
        }
        let completed = state.completed(new_id, env.now);
        let completed = completed.ok_or(ErrorCode::InvalidTxnState)?;
        Ok(Decided {
            append: vec![record::row(transactional_id, &completed)],
            tasks: Vec::new(),
            answer: Ok(Response::Done),
        })
    }

    fn describe(&self, transactional_id: &str) -> Result<Described, ErrorCode> {
        let known = self.transactions.get(transactional_id);
        let state = known.ok_or(ErrorCode::TransactionalIdNotFound)?.state();
        let topics = state.partitions.iter().map(|(topic, indexes)| {
            TopicData::default()
                .with_topic(StrBytes::from_string(topic.to_string()).into())
                .with_partitions(indexes.iter().copied().collect())
        });
        Ok(Described::default()
            .with_transaction_state(name(state.status))
            .with_transaction_timeout_ms(state.timeout_ms)
            .with_transaction_start_time_ms(state.start_timestamp)
            .with_producer_id(ProducerId(state.producer.id))
            .with_producer_epoch(state.producer.epoch)
            .with_topics(topics.collect()))
    }

    fn list(&self, filter: &ListFilter, env: &Env<'_>) -> Vec<Listed> {
        let matching = self.transactions.iter().filter(|(id, known)| {
            let state = known.state();
            let statuses = filter.statuses.as_ref();
            statuses.is_none_or(|wanted| wanted.contains(&state.status))
                && (filter.producer_ids.is_empty()
                    || filter.producer_ids.contains(&state.producer.id))
                && filter
                    .longer_than_ms
                    .is_none_or(|ms| ms < env.now.saturating_sub(state.start_timestamp))
                && filter
                    .pattern
                    .as_ref()
                    .is_none_or(|pattern| pattern.is_match(id))
        });
        let listed = matching.map(|(id, known)| {
            let state = known.state();
            Listed::default()
                .with_transactional_id(TransactionalId(StrBytes::from_string(id.to_string())))
                .with_producer_id(ProducerId(state.producer.id))
                .with_transaction_state(name(state.status))
        });
        listed.collect()
    }

    /// Transactional ids that nobody has used for long.
    fn forget_idle(&mut self, env: &Env<'_>) -> Effects {
        let config = &env.config.transactions;
        let idle_since = env
            .now
            .saturating_sub(config.transactional_id_expiration_ms);
        let idle = self.transactions.iter().filter(|(_, known)| {
            let state = known.state();
            let is_over = !state.status.is_prepared() && state.status != Status::Ongoing;
            is_over && state.last_update_timestamp <= idle_since
        });
        let append: Vec<TransactionRecord> = idle
            .take(FORGOTTEN_MAX)
            .map(|(id, _)| record::tombstone(id))
            .collect();
        let again = match append.len() {
            FORGOTTEN_MAX => RETRY_MS,
            _ => config.remove_expired_interval_ms,
        };
        self.timers.set(Timer::Forget, env.steady_now + again);
        Effects {
            append,
            ..Effects::default()
        }
    }

    /// How many transactional ids there are, by what they are doing.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = Status> {
        self.transactions.values().map(|known| known.state().status)
    }
}

impl Decided {
    fn refused_if(mut self, response: Response, code: ErrorCode) -> Self {
        if self.answer.as_ref() == Ok(&response) {
            self.answer = Err(code);
        }
        self
    }
}

/// When the transaction has taken too long, by the steady clock.
fn deadline(state: &State, clock_offset: i64) -> Option<i64> {
    let end = state
        .start_timestamp
        .saturating_add(state.timeout_ms.into());
    (state.status == Status::Ongoing).then(|| end.saturating_add(clock_offset))
}

/// How a transaction that is to end is written down, and what is to be done then. Without partitions nobody has to be
/// told, and it is over at once, unless another id has to be had first.
fn prepare(
    transactional_id: &Arc<str>,
    state: &State,
    now: i64,
) -> (Vec<TransactionRecord>, Vec<WriteMarkers>) {
    let mut records = vec![record::row(transactional_id, state)];
    if !state.partitions.is_empty() || state.needs_successor() {
        return (records, vec![write_markers(transactional_id, state)]);
    }
    let completed = state.completed(None, now);
    records.extend(completed.map(|state| record::row(transactional_id, &state)));
    (records, Vec::new())
}

fn write_markers(transactional_id: &Arc<str>, state: &State) -> WriteMarkers {
    WriteMarkers {
        transactional_id: Arc::clone(transactional_id),
        producer: state.producer,
        commit: state.status == Status::PrepareCommit,
        partitions: state.partitions.clone(),
        transaction_version: state.client_version,
    }
}

/// As clients know it.
fn name(status: Status) -> StrBytes {
    StrBytes::from_static_str(match status {
        Status::Empty => "Empty",
        Status::Ongoing => "Ongoing",
        Status::PrepareCommit => "PrepareCommit",
        Status::PrepareAbort => "PrepareAbort",
        Status::CompleteCommit => "CompleteCommit",
        Status::CompleteAbort => "CompleteAbort",
    })
}
