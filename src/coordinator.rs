//! Coordinators: state machines whose memory is a partition of an internal topic.
//!
//! ```text
//! request -> handle (decide) -> append -> replay -> high watermark -> answer
//! ```
//!
//! A coordinator is a pure [`Machine`]; [`runtime`] is the one loop around all of them.
//!
//! - What must survive is changed by *replay* alone, one record at a time, on every path: live, while a partition
//!   is loaded, in tests. `handle` looks at it and returns the records that would change it.
//! - What need not survive (who waits for an answer, when whose session ends) is changed by `handle` and `tick`.
//! - An append comes first and is replayed afterwards: what could not be appended has changed nothing.
//! - No answer leaves before the high watermark has passed all that its machine had replayed when it was given: a
//!   reader is not shown what a change of leader could take back.

pub(crate) mod group;
pub(crate) mod runtime;
mod timers;
pub(crate) mod transaction;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use protocol::{
    compression::Compression,
    error::{DecodeError, ErrorCode},
    records::Encoded,
    schema::EncodeError,
};
use replication::cluster::ClusterImage;
use uuid::Uuid;

use crate::config::Config;

/// Somebody waits for an answer, and is given exactly one.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl Ticket {
    pub(crate) fn new(number: u64) -> Self {
        Self(number)
    }

    /// For who keeps tickets in a map.
    pub(crate) fn number(&self) -> u64 {
        self.0
    }
}

/// An incarnation of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// What a machine may know of the world when it decides.
pub(crate) struct Env<'a> {
    /// Milliseconds since the epoch: for what is written down.
    pub(crate) now: i64,
    /// Milliseconds on a clock that nobody sets: for deadlines. When the other is set right by a minute no session
    /// ends for it.
    pub(crate) steady_now: i64,
    pub(crate) image: &'a Arc<ClusterImage>,
    pub(crate) config: &'a Config,
    /// More than this in keys and values cannot be appended at once.
    pub(crate) records_bytes_max: usize,
    /// Makes ids that nobody has had before.
    pub(crate) new_id: &'a mut dyn FnMut() -> Uuid,
}

/// What a machine has decided. What it holds outside the log and follows from the append is not changed before it:
/// what could not be appended then has nothing to be undone.
#[derive(Debug)]
pub(crate) struct Effects<M: Machine> {
    /// Appended as one batch, all or nothing, and replayed in this order.
    pub(crate) append: Vec<M::Record>,
    /// In whose transaction the records are written, if in one: they count when it has committed.
    pub(crate) producer: Option<Producer>,
    /// Given when what is appended here, and before, has committed. If it cannot be appended, each of these gets
    /// the error instead.
    pub(crate) answers: Vec<(Ticket, Answer<M>)>,
    /// Done when what is appended here has been replayed, or could not be appended.
    pub(crate) then: Option<Then<M>>,
    /// Begun when what is appended here, and before, has committed; never if it cannot be appended.
    pub(crate) tasks: Vec<M::Task>,
}

/// What becomes of what a machine holds outside the log when it knows what became of an append.
pub(crate) struct Then<M: Machine>(Box<Follow<M>>);

type Follow<M> =
    dyn FnOnce(&mut M, Result<(), ErrorCode>, &mut Env<'_>) -> Vec<(Ticket, Answer<M>)>;

impl<M: Machine> Then<M> {
    /// `follow` is told whether it could be appended, and returns answers that are given at once.
    pub(crate) fn new(
        follow: impl FnOnce(&mut M, Result<(), ErrorCode>, &mut Env<'_>) -> Vec<(Ticket, Answer<M>)>
        + 'static,
    ) -> Self {
        Self(Box::new(follow))
    }

    /// The same for what follows only if it could.
    pub(crate) fn if_written(
        follow: impl FnOnce(&mut M, &mut Env<'_>) -> Vec<(Ticket, Answer<M>)> + 'static,
    ) -> Self {
        Self::new(|machine, written, env| match written {
            Ok(()) => follow(machine, env),
            Err(_) => Vec::new(),
        })
    }

    pub(crate) fn run(
        self,
        machine: &mut M,
        written: Result<(), ErrorCode>,
        env: &mut Env<'_>,
    ) -> Vec<(Ticket, Answer<M>)> {
        (self.0)(machine, written, env)
    }
}

impl<M: Machine> fmt::Debug for Then<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Then")
    }
}

/// An answer, or the code it was refused with; the API's handler knows where in its response a code goes.
pub(crate) type Answer<M> = Result<<M as Machine>::Response, ErrorCode>;

impl<M: Machine> Default for Effects<M> {
    fn default() -> Self {
        Self {
            append: Vec::new(),
            producer: None,
            answers: Vec::new(),
            then: None,
            tasks: Vec::new(),
        }
    }
}

impl<M: Machine> Effects<M> {
    /// Nothing but this answer.
    pub(crate) fn answer(ticket: Ticket, answer: Answer<M>) -> Self {
        Self {
            answers: vec![(ticket, answer)],
            ..Self::default()
        }
    }

    /// These records, and this answer when they have committed.
    pub(crate) fn append(records: Vec<M::Record>, ticket: Ticket, response: M::Response) -> Self {
        Self {
            append: records,
            answers: vec![(ticket, Ok(response))],
            ..Self::default()
        }
    }
}

/// Where a record comes from that is replayed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) offset: i64,
    /// The transaction it belongs to, and which is not over.
    pub(crate) producer: Option<Producer>,
}

/// A replicated state machine: one partition's share of a coordinator.
pub(crate) trait Machine: Sized + Send + 'static {
    type Request: Send + 'static;
    type Response: fmt::Debug + Send + 'static;
    type Record: fmt::Debug + Send;
    /// Something to be done outside, of whose end the machine hears by a request.
    type Task: fmt::Debug + Send;

    /// Key and value as Kafka writes them.
    ///
    /// # Errors
    /// If a string in it is too long to be written.
    fn encode(record: &Self::Record, out: &mut Encoded) -> Result<(), EncodeError>;

    /// One record's key and value.
    #[cfg(test)]
    fn encoded(record: &Self::Record) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        let mut out = Encoded::default();
        Self::encode(record, &mut out)?;
        Ok(out.to_bytes())
    }

    /// How batches of records are compressed.
    fn compression(_config: &Config) -> Compression {
        Compression::None
    }

    /// `None` is a record of a later version of Kafka, which is passed over.
    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Self::Record>, DecodeError>;

    /// Decides what comes of a request.
    fn handle(
        &mut self,
        ticket: Ticket,
        request: Self::Request,
        env: &mut Env<'_>,
    ) -> Effects<Self>;

    /// Applies one record.
    fn replay(&mut self, record: Self::Record, origin: Origin);

    /// A transaction is over: what was replayed with this producer counts, or is forgotten.
    fn end_transaction(&mut self, producer: Producer, commit: bool);

    /// All that was written has been replayed, and requests are about to come.
    fn loaded(&mut self, env: &mut Env<'_>) -> Effects<Self>;

    /// The cluster is another one now: topics have come, gone or grown.
    fn image_changed(&mut self, env: &mut Env<'_>);

    /// When [`Machine::tick`] wants to be called next, by [`Env::steady_now`].
    fn next_deadline(&self) -> Option<i64>;

    /// Does one thing whose time has come; `None` when there is none.
    fn tick(&mut self, env: &mut Env<'_>) -> Option<Effects<Self>>;

    /// These records could not be appended, and who was to be answered with them is refused. This is for what the
    /// machine holds outside the log and [`Effects::then`] does not serve: the answers are for others who waited.
    /// What is to happen next is due at once ([`Machine::next_deadline`]).
    fn append_failed(
        &mut self,
        records: Vec<Self::Record>,
        code: ErrorCode,
        env: &mut Env<'_>,
    ) -> Vec<(Ticket, Answer<Self>)>;
}
