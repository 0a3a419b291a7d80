//! One transactional id, as a pure state machine.
//!
//! ```text
//!          add            end(commit)               markers_written
//!  Empty ------> Ongoing ------------> PrepareCommit ---------------> CompleteCommit --add--> Ongoing
//!                        ------------> PrepareAbort  ---------------> CompleteAbort  --add--> Ongoing
//!                         end(abort), fence
//! ```
//!
//! - *decide* (`&self`): check a request against the state; return the whole new state, or the code that refuses it.
//! - *replay* (`&mut self`): take over a new state. Nothing else changes one, save for what a producer had before it
//!   was given what it has now: that is known to nobody but the coordinator that gave it.
//!
//! Clients come in two generations, and each request says of which it is. In the older one (transaction version 1)
//! a producer keeps its epoch through all its transactions. In the newer one (version 2, KIP-890) the end of each
//! transaction bumps it, so that what comes late is of an older epoch; and aborting is allowed even when nothing was
//! begun, since partitions are added on the way, and the client cannot know whether one was.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use protocol::error::ErrorCode;

use crate::coordinator::Producer;

/// The partitions of a transaction: topic to indexes.
pub(crate) type Partitions = BTreeMap<Arc<str>, BTreeSet<i32>>;

/// What is written for a client that bumps its epoch with every transaction, and of aborts that the coordinator
/// itself decides on. Other transactions have 0.
pub(crate) const BUMPING: i16 = 2;

/// No producer.
pub(crate) const NO_ID: i64 = -1;

/// No epoch.
const NO_EPOCH: i16 = -1;

/// A transaction has not begun.
pub(crate) const NO_TIME: i64 = -1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl Status {
    /// Is it decided how the transaction ends, but not everybody told?
    pub(crate) fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// A row of `__transaction_state`: everything, so that replaying one twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) producer: Producer,
    /// Whose id this transactional id had before this row.
    pub(crate) previous_producer_id: i64,
    /// Whose id it has when the markers are written, because the epochs of this one are used up.
    pub(crate) next_producer_id: i64,
    pub(crate) timeout_ms: i32,
    pub(crate) status: Status,
    /// Invariant: empty unless the status is `Ongoing` or a `Prepare`.
    pub(crate) partitions: Partitions,
    /// Since when the transaction is going on; [`NO_TIME`] before the first.
    pub(crate) start_timestamp: i64,
    pub(crate) last_update_timestamp: i64,
    /// [`BUMPING`], or 0.
    pub(crate) client_version: i16,
}

#[derive(Debug)]
pub(crate) struct Transaction {
    state: State,
    /// The epoch that the producer had before its present one, if it may still call itself by it: the answer that
    /// told it of the present one may have been lost.
    last_epoch: i16,
    /// Who was given a new epoch by a request that named the one before, and that one.
    resumed: Option<(Producer, i16)>,
}

/// What comes of a request that is not refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is so already.
    Unchanged,
    Write(State),
    /// The same request has to be made again, with the id of a new producer.
    NeedsId,
}

/// Is there no epoch left that a producer may be given? The last one is kept for fencing it.
fn is_exhausted(epoch: i16) -> bool {
    i16::MAX - 1 <= epoch
}

impl State {
    /// Of a transactional id that nobody has used before.
    pub(crate) fn fresh(producer_id: i64, timeout_ms: i32, now: i64) -> Self {
        Self {
            producer: Producer {
                id: producer_id,
                epoch: 0,
            },
            previous_producer_id: producer_id,
            next_producer_id: NO_ID,
            timeout_ms,
            status: Status::Empty,
            partitions: Partitions::new(),
            start_timestamp: NO_TIME,
            last_update_timestamp: now,
            client_version: 0,
        }
    }

    /// The producer's id and epoch as soon as the markers are written.
    pub(crate) fn producer_afterwards(&self) -> Producer {
        match self.next_producer_id {
            NO_ID => self.producer,
            id => Producer { id, epoch: 0 },
        }
    }

    /// Was the last epoch of all taken to fence the producer, and is it not known yet who goes on? Nobody may have that
    /// epoch: whoever had it could not be fenced.
    pub(crate) fn needs_successor(&self) -> bool {
        self.producer.epoch == i16::MAX && self.next_producer_id == NO_ID
    }

    /// Every partition has its marker. `successor` is the id of a new producer, if there has to be one.
    pub(crate) fn completed(&self, successor: Option<i64>, now: i64) -> Option<Self> {
        let status = match self.status {
            Status::PrepareCommit => Status::CompleteCommit,
            Status::PrepareAbort => Status::CompleteAbort,
            _ => return None,
        };
        let producer = match successor {
            Some(id) if self.needs_successor() => Producer { id, epoch: 0 },
            _ => self.producer_afterwards(),
        };
        Some(Self {
            producer,
            previous_producer_id: self.producer.id,
            next_producer_id: NO_ID,
            status,
            partitions: Partitions::new(),
            last_update_timestamp: now,
            ..self.clone()
        })
    }
}

impl Transaction {
    pub(crate) fn new(state: State) -> Self {
        Self {
            state,
            last_epoch: NO_EPOCH,
            resumed: None,
        }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// InitProducerId: the id and epoch for a producer that begins anew, or for one that goes on after an error
    /// (`expected`). A transaction that is going on is aborted, and the producer comes again.
    pub(crate) fn init(
        &self,
        expected: Option<Producer>,
        timeout_ms: i32,
        new_id: Option<i64>,
        now: i64,
    ) -> Result<Next, ErrorCode> {
        let state = &self.state;
        if expected.is_some_and(|expected| !self.may_be(expected)) {
            return Err(ErrorCode::ProducerFenced);
        }
        match state.status {
            Status::PrepareCommit | Status::PrepareAbort => {
                return Err(ErrorCode::ConcurrentTransactions);
            }
            Status::Ongoing => return Ok(Next::Write(self.fenced(now))),
            Status::Empty | Status::CompleteCommit | Status::CompleteAbort => (),
        }
        let current = state.producer;
        let producer = match expected {
            // A retry of a call that went well. No other producer has come since, or the epoch before would have
            // been forgotten.
            Some(expected) if expected.epoch != current.epoch => {
                if expected.epoch != self.last_epoch {
                    return Err(ErrorCode::ProducerFenced);
                }
                current
            }
            _ if is_exhausted(current.epoch) => match new_id {
                Some(id) => Producer { id, epoch: 0 },
                None => return Ok(Next::NeedsId),
            },
            _ => Producer {
                epoch: current.epoch + 1,
                ..current
            },
        };
        Ok(Next::Write(State {
            producer,
            previous_producer_id: current.id,
            timeout_ms,
            status: Status::Empty,
            partitions: Partitions::new(),
            start_timestamp: NO_TIME,
            last_update_timestamp: now,
            ..state.clone()
        }))
    }

    /// `producer` is about to be given to who had `before` until now: should the answer be lost, it will ask again as
    /// who it was.
    pub(crate) fn remember(&mut self, producer: Producer, before: i16) {
        self.resumed = Some((producer, before));
    }

    /// AddPartitionsToTxn, and whatever else makes partitions part of the transaction.
    pub(crate) fn add(
        &self,
        from: Producer,
        added: &Partitions,
        client_version: i16,
        now: i64,
    ) -> Result<Next, ErrorCode> {
        let state = &self.state;
        self.check_current(from)?;
        let start_timestamp = match state.status {
            // The last transaction is decided but its markers are still on their way.
            Status::PrepareCommit | Status::PrepareAbort => {
                return Err(ErrorCode::ConcurrentTransactions);
            }
            Status::Ongoing if self.contains_all(added) => return Ok(Next::Unchanged),
            Status::Ongoing => state.start_timestamp,
            Status::Empty | Status::CompleteCommit | Status::CompleteAbort => now,
        };
        let mut partitions = state.partitions.clone();
        for (topic, indexes) in added {
            partitions
                .entry(Arc::clone(topic))
                .or_default()
                .extend(indexes);
        }
        Ok(Next::Write(State {
            previous_producer_id: state.producer.id,
            status: Status::Ongoing,
            partitions,
            start_timestamp,
            last_update_timestamp: now,
            client_version,
            ..state.clone()
        }))
    }

    /// May `from` write to partitions that it has added? Which those are is for [`Transaction::contains`] to say.
    pub(crate) fn verify(&self, from: Producer) -> Result<(), ErrorCode> {
        self.check_current(from)?;
        if self.state.status.is_prepared() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        Ok(())
    }

    pub(crate) fn contains(&self, topic: &str, index: i32) -> bool {
        let indexes = self.state.partitions.get(topic);
        indexes.is_some_and(|indexes| indexes.contains(&index))
    }

    /// EndTxn before version 5: the producer keeps its epoch.
    pub(crate) fn end(&self, from: Producer, commit: bool, now: i64) -> Result<Next, ErrorCode> {
        self.check_current(from)?;
        match (self.state.status, commit) {
            (Status::Ongoing, _) => Ok(Next::Write(State {
                client_version: 0,
                ..self.prepared(commit, now)
            })),
            (Status::PrepareCommit, true) | (Status::PrepareAbort, false) => {
                Err(ErrorCode::ConcurrentTransactions)
            }
            // A retry by a client that did not see the answer.
            (Status::CompleteCommit, true) | (Status::CompleteAbort, false) => Ok(Next::Unchanged),
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// EndTxn since version 5: the producer goes on with the next epoch, or, when there is none, with another id.
    pub(crate) fn end_and_bump(
        &self,
        from: Producer,
        commit: bool,
        new_id: Option<i64>,
        now: i64,
    ) -> Result<Next, ErrorCode> {
        let state = &self.state;
        let current = state.producer;
        // The same request once more: the first time it bumped the epoch, or changed the id.
        let was_bumped =
            from.id == current.id && i32::from(from.epoch) + 1 == i32::from(current.epoch);
        let was_replaced = from.id == state.previous_producer_id
            && from.id != current.id
            && from.epoch == i16::MAX - 1
            && current.epoch == 0;
        let is_retry = was_bumped || was_replaced;
        if from.id != current.id && !was_replaced {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        let is_current = from == current;
        let may_be = match state.status {
            Status::Empty | Status::Ongoing => is_current,
            Status::PrepareCommit | Status::PrepareAbort => was_bumped,
            Status::CompleteCommit | Status::CompleteAbort => is_current || is_retry,
        };
        if !may_be {
            return Err(ErrorCode::ProducerFenced);
        }
        match (state.status, commit) {
            (Status::Ongoing, _) => (),
            (Status::PrepareCommit, true) | (Status::PrepareAbort, false) => {
                return Err(ErrorCode::ConcurrentTransactions);
            }
            (Status::CompleteCommit, true) | (Status::CompleteAbort, false) if is_retry => {
                return Ok(Next::Unchanged);
            }
            (Status::Empty | Status::CompleteCommit | Status::CompleteAbort, false)
                if !is_retry => {}
            _ => return Err(ErrorCode::InvalidTxnState),
        }
        let next_producer_id = match new_id {
            _ if !is_exhausted(current.epoch) => NO_ID,
            Some(id) => id,
            None => return Ok(Next::NeedsId),
        };
        Ok(Next::Write(State {
            producer: next_epoch(current),
            next_producer_id,
            client_version: BUMPING,
            ..self.prepared(commit, now)
        }))
    }

    /// The coordinator itself ends the transaction: its time is over, or another producer wants to begin. Whoever has
    /// been in it is fenced.
    pub(crate) fn fenced(&self, now: i64) -> State {
        State {
            producer: next_epoch(self.state.producer),
            client_version: BUMPING,
            ..self.prepared(false, now)
        }
    }

    fn prepared(&self, commit: bool, now: i64) -> State {
        let state = &self.state;
        let status = match commit {
            true => Status::PrepareCommit,
            false => Status::PrepareAbort,
        };
        State {
            previous_producer_id: state.producer.id,
            status,
            // An abort of nothing has begun when it ended.
            start_timestamp: match state.status {
                Status::Ongoing => state.start_timestamp,
                _ => now,
            },
            last_update_timestamp: now,
            ..state.clone()
        }
    }

    pub(crate) fn replay(&mut self, state: State) {
        let (before, after) = (self.state.producer, state.producer);
        match state.status {
            Status::Empty if before == after => (),
            Status::Empty => {
                let resumed = self.resumed.take();
                self.last_epoch = resumed
                    .filter(|(producer, _)| *producer == after)
                    .map_or(NO_EPOCH, |(_, before)| before);
            }
            Status::PrepareCommit | Status::PrepareAbort if before.epoch < after.epoch => {
                self.last_epoch = before.epoch;
            }
            _ => (),
        }
        self.state = state;
    }

    /// May this be who the producer is now, or was a moment ago?
    fn may_be(&self, expected: Producer) -> bool {
        expected.id == self.state.producer.id
            || (expected.id == self.state.previous_producer_id && is_exhausted(expected.epoch))
    }

    fn check_current(&self, from: Producer) -> Result<(), ErrorCode> {
        if from.id != self.state.producer.id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if from.epoch != self.state.producer.epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        Ok(())
    }

    fn contains_all(&self, added: &Partitions) -> bool {
        added.iter().all(|(topic, indexes)| {
            let known = self.state.partitions.get(topic);
            known.is_some_and(|known| indexes.is_subset(known))
        })
    }
}

/// Nobody is given the last epoch of all: it is there for the coordinator to fence who has the one before.
fn next_epoch(producer: Producer) -> Producer {
    Producer {
        epoch: producer.epoch.saturating_add(1),
        ..producer
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = &self.state;
        let Producer { id, epoch } = state.producer;
        write!(f, "{:?} {id}/{epoch}", state.status)?;
        if state.next_producer_id != NO_ID {
            write!(f, " next {}", state.next_producer_id)?;
        }
        for (topic, indexes) in &state.partitions {
            for index in indexes {
                write!(f, " {topic}-{index}")?;
            }
        }
        Ok(())
    }
}
