//! One partition on this broker: the one door to its log.
//!
//! Appending checks leadership and the topic's rules, writes, and moves the high watermark; reading is
//! bounded by the watermark; [`Partition::committed`] waits for it. A partition with one replica is not
//! a special case: its in-sync replicas are the leader, so its watermark is its log end.
//!
//! Positions: `log_start_offset <= high_watermark <= log_end_offset`, and `flushed <= log_end_offset`.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use protocol::{
    batch::{Batch, Builder},
    records::control::{ControlRecord, EndTxnMarker},
};
use storage::{
    aborted::Aborted,
    config::Config as LogConfig,
    directory::Directory,
    log::{Log, Slice},
    producers::{Origin, Standing},
};
use tokio::runtime::{Handle, RuntimeFlavor};
use uuid::Uuid;

use crate::{
    admission::{self, Admitted, Refusal, Rules},
    cluster::NO_LEADER,
    watermark::{Waiter, Watermark},
};

/// Why a partition refused or failed a request.
#[derive(Debug)]
pub enum Error {
    /// Another broker leads, or none does (-1).
    NotLeader {
        leader: i32,
        epoch: i32,
    },
    /// The client knows an older epoch than the one in force.
    FencedLeaderEpoch,
    /// The client knows a newer epoch than this broker.
    UnknownLeaderEpoch,
    NotEnoughReplicas {
        in_sync: usize,
        required: usize,
    },
    /// The write is in the leader's log but did not reach the replicas in time. It may yet commit.
    ReplicationTimedOut,
    /// The batch may not be in this log.
    Refused(Refusal),
    Storage(storage::error::Error),
    ShuttingDown,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotLeader { leader, epoch } => {
                write!(
                    f,
                    "this broker does not lead: node {leader} does, in epoch {epoch}"
                )
            }
            Self::FencedLeaderEpoch => f.write_str("the client's leader epoch is over"),
            Self::UnknownLeaderEpoch => {
                f.write_str("the client's leader epoch is not known here yet")
            }
            Self::NotEnoughReplicas { in_sync, required } => {
                write!(f, "{in_sync} replicas are in sync, {required} are required")
            }
            Self::ReplicationTimedOut => f.write_str("the replicas did not follow in time"),
            Self::Refused(refusal) => write!(f, "{refusal:?}"),
            Self::Storage(err) => write!(f, "{err}"),
            Self::ShuttingDown => f.write_str("the broker is shutting down"),
        }
    }
}

impl std::error::Error for Error {}

impl From<storage::error::Error> for Error {
    fn from(err: storage::error::Error) -> Self {
        Self::Storage(err)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// An epoch later than any: the partition's topic is gone.
const CLOSED: i32 = i32::MAX;

/// Which partition: a topic's name and id, and the partition's index in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    pub topic: Arc<str>,
    pub topic_id: Uuid,
    pub index: i32,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

/// What the cluster image says of a partition, as far as this broker must obey it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Node id of the leader; -1 when there is none.
    pub leader: i32,
    pub leader_epoch: i32,
    /// How many replicas there are, in sync or not.
    pub replicas: usize,
    /// In-sync replicas, the leader among them.
    pub isr: Vec<i32>,
    pub min_insync_replicas: usize,
}

/// A topic's configuration, as a partition uses it.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub log: LogConfig,
    pub rules: Rules,
    pub min_insync_replicas: usize,
}

/// How much a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset, with a list of aborted transactions on the way.
    ReadCommitted,
}

/// The result of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: i64,
    /// The offset after the batch: done when the watermark reaches it.
    pub end_offset: i64,
    /// When the broker stamped it, for a topic with `LogAppendTime`; the newest time in a batch that was
    /// here already.
    pub log_append_time: Option<i64>,
    pub log_start_offset: i64,
    /// The topic asks that this append be on disk before it is acknowledged.
    pub flush: bool,
}

/// The end of a producer's transaction, as its coordinator has it written into every log that has part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub commit: bool,
    /// The leader epoch in which the coordinator leads.
    pub coordinator_epoch: i32,
    /// 2 if the producer's epoch is another one after each transaction (KIP-890).
    pub transaction_version: i16,
}

impl Marker {
    /// The control batch, and who appends it.
    pub fn batch(&self, now: i64) -> (Batch, Origin) {
        let marker = EndTxnMarker {
            coordinator_epoch: self.coordinator_epoch,
        };
        let record = match self.commit {
            true => ControlRecord::Commit(marker),
            false => ControlRecord::Abort(marker),
        };
        let (key, value) = record.encode();
        let mut batch = Builder::new()
            .producer(self.producer_id, self.producer_epoch, -1)
            .transactional()
            .control();
        batch.push(now, Some(&key), Some(&value), &[]);
        let Some(batch) = batch.build() else {
            unreachable!("a marker is a few dozen bytes");
        };
        let origin = Origin::Coordinator {
            transaction_version: self.transaction_version,
        };
        (batch, origin)
    }
}

/// What a reader got, and where the log stands.
#[derive(Debug)]
pub struct Read {
    /// `None` when there is nothing to read at the offset yet.
    pub slice: Option<Slice>,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// Transactions aborted within the slice; only for [`Isolation::ReadCommitted`].
    pub aborted: Option<Vec<Aborted>>,
}

/// Where a partition's records are.
#[derive(Debug, Clone)]
pub struct Home {
    pub log: Arc<Log>,
    pub directory: Arc<Directory>,
}

#[derive(Debug)]
pub struct Partition {
    name: Name,
    node_id: i32,
    /// Swapped when the replica moves to another log directory.
    home: ArcSwap<Home>,
    /// Replaced whole; read without waiting for anybody.
    leadership: ArcSwap<Leadership>,
    /// Held by an append and by whoever changes who leads or which log it is: an append must not
    /// land in a log that is being left, nor under an epoch that has ended.
    changing: Mutex<()>,
    rules: ArcSwap<Rules>,
    high_watermark: Watermark,
}

impl Partition {
    pub fn new(name: Name, node_id: i32, home: Home, rules: Rules, leadership: Leadership) -> Self {
        let partition = Self {
            name,
            node_id,
            // Until it is known who leads, nothing more is known to be on all replicas.
            high_watermark: Watermark::new(home.log.start_offset()),
            home: ArcSwap::from_pointee(home),
            leadership: ArcSwap::from_pointee(leadership),
            changing: Mutex::new(()),
            rules: ArcSwap::from_pointee(rules),
        };
        partition.advance(&partition.lock());
        partition
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The log and its directory, for what needs no leadership: sizes, look-ups, maintenance.
    pub fn home(&self) -> Guard<Arc<Home>> {
        self.home.load()
    }

    pub fn log(&self) -> Arc<Log> {
        Arc::clone(&self.home.load().log)
    }

    /// The topic is being deleted, or the broker stops: whoever appends or waits is refused.
    pub fn close(&self) {
        let _held = self.lock();
        self.leadership.store(Arc::new(Leadership {
            leader: NO_LEADER,
            leader_epoch: CLOSED,
            ..Leadership::clone(&self.leadership())
        }));
        self.high_watermark.wake();
    }

    pub fn leadership(&self) -> Guard<Arc<Leadership>> {
        self.leadership.load()
    }

    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.get()
    }

    /// Follows the cluster image. An older epoch than the one in force changes nothing.
    pub fn lead(&self, leadership: Leadership) {
        let held = self.lock();
        let current = self.leadership();
        if leadership.leader_epoch < current.leader_epoch || **current == leadership {
            return;
        }
        self.leadership.store(Arc::new(leadership));
        self.advance(&held);
        // Whoever waits for replicas of an epoch that has ended must hear of it.
        self.high_watermark.wake();
    }

    pub fn configure(&self, config: &Config) {
        self.rules.store(Arc::new(config.rules.clone()));
        // Under the lock, so that a log that takes this one's place meanwhile does not miss it.
        let _held = self.lock();
        self.log().set_config(config.log.clone());
        self.leadership.store(Arc::new(Leadership {
            min_insync_replicas: config.min_insync_replicas,
            ..Leadership::clone(&self.leadership())
        }));
    }

    /// Puts the records somewhere else, as `change` says, which is told where they are and the leader
    /// epoch. While it works nothing is appended. Returns where they were, `None` if the topic has been
    /// deleted.
    pub(crate) fn rehome<E>(
        &self,
        change: impl FnOnce(&Home, i32) -> Result<Home, E>,
    ) -> Result<Option<Arc<Home>>, E> {
        let _held = self.lock();
        let leader_epoch = self.leadership().leader_epoch;
        if leader_epoch == CLOSED {
            return Ok(None);
        }
        let home = change(&self.home.load(), leader_epoch)?;
        Ok(Some(self.home.swap(Arc::new(home))))
    }

    /// Appends a client's batch as the leader.
    ///
    /// `acks_all` asks for enough in-sync replicas before anything is written.
    pub fn append(
        &self,
        batch: Bytes,
        origin: Origin,
        acks_all: bool,
        now: i64,
    ) -> Result<Appended, Error> {
        let admitted = admit(batch, &self.rules.load_full(), now)?;
        let (batch, time) = (&admitted.batch, admitted.log_append_time);
        self.append_admitted(&self.lock(), batch, origin, acks_all, time, now)
    }

    /// Has the producer's transaction begun in this partition? See [`Log::standing`].
    pub fn standing(
        &self,
        producer_id: i64,
        epoch: i16,
        bumps: bool,
        now: i64,
    ) -> Result<Standing, Error> {
        self.check_leader()?;
        Ok(self.log().standing(producer_id, epoch, bumps, now)?)
    }

    /// Ends a producer's transaction here, as the leader.
    pub fn append_marker(&self, marker: &Marker, now: i64) -> Result<Appended, Error> {
        let (batch, origin) = marker.batch(now);
        self.append_admitted(&self.lock(), &batch, origin, true, None, now)
    }

    /// Appends a batch that this broker made itself, as who leads in `leader_epoch`: a coordinator's records, or a
    /// transaction's marker.
    pub fn append_own(
        &self,
        batch: &Batch,
        leader_epoch: i32,
        origin: Origin,
        now: i64,
    ) -> Result<Appended, Error> {
        let held = self.lock();
        if self.leadership().leader_epoch != leader_epoch {
            return Err(Error::FencedLeaderEpoch);
        }
        self.append_admitted(&held, batch, origin, true, None, now)
    }

    /// The largest batch the topic takes, in bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.rules.load().max_message_bytes
    }

    fn append_admitted(
        &self,
        held: &MutexGuard<'_, ()>,
        batch: &Batch,
        origin: Origin,
        acks_all: bool,
        log_append_time: Option<i64>,
        now: i64,
    ) -> Result<Appended, Error> {
        let leadership = self.check_leader()?;
        // No more can be required than there are (eligible leader replicas, KIP-966).
        let required = leadership.min_insync_replicas.min(leadership.replicas);
        if acks_all && leadership.isr.len() < required {
            return Err(Error::NotEnoughReplicas {
                in_sync: leadership.isr.len(),
                required,
            });
        }
        let home = self.home.load();
        let log = &home.log;
        let appended = log.append_from(batch, leadership.leader_epoch, origin, now)?;
        self.advance(held);
        Ok(Appended {
            base_offset: appended.base_offset,
            end_offset: appended.last_offset + 1,
            // Of a batch that was here already Kafka tells the time, whoever's clock it is.
            log_append_time: appended.duplicate.or(log_append_time),
            log_start_offset: appended.log_start_offset,
            flush: log.flush_due(now),
        })
    }

    /// May `appended` be acknowledged at once? `replicated`: not before the high watermark passed it.
    pub fn is_committed(&self, appended: &Appended, replicated: bool) -> bool {
        let on_disk = || appended.end_offset <= self.log().flushed_offset();
        let passed = || appended.end_offset <= self.high_watermark.get();
        (!appended.flush || on_disk()) && (!replicated || passed())
    }

    /// Returns when `appended` may be acknowledged: it is on disk where the topic asks for that, and
    /// if `replicated`, the high watermark has passed it.
    pub async fn committed(
        self: &Arc<Self>,
        appended: &Appended,
        replicated: bool,
        deadline: Instant,
    ) -> Result<(), Error> {
        if appended.flush && self.log().flushed_offset() < appended.end_offset {
            self.flush(appended.end_offset).await?;
        }
        if !replicated {
            return Ok(());
        }
        let passed = || appended.end_offset <= self.high_watermark.get();
        if passed() {
            return Ok(());
        }
        let waiter = Arc::new(Waiter::default());
        let waiting = self.listen(&waiter);
        let outcome = tokio::time::timeout_at(deadline.into(), async {
            loop {
                if passed() {
                    return Ok(());
                }
                self.check_leader()?;
                waiter.woken().await;
            }
        });
        let outcome = outcome.await.unwrap_or(Err(Error::ReplicationTimedOut));
        drop(waiting);
        outcome
    }

    /// Reads from `offset`: at most `max_bytes`, except that with `min_one` a larger first batch is
    /// returned whole, as Kafka does so that a consumer cannot get stuck.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        min_one: bool,
        isolation: Isolation,
        now: i64,
    ) -> Result<Read, Error> {
        self.check_leader()?;
        let home = self.home.load();
        let log = &home.log;
        let high_watermark = self.high_watermark.get();
        let last_stable_offset = log.last_stable_offset(high_watermark, now)?;
        let (slice, aborted) = match isolation {
            Isolation::ReadUncommitted => {
                (log.read(offset, max_bytes, min_one, high_watermark)?, None)
            }
            Isolation::ReadCommitted => {
                let (slice, aborted) =
                    log.read_committed(offset, max_bytes, min_one, last_stable_offset, now)?;
                (slice, Some(aborted))
            }
        };
        let slice = (!slice.is_empty()).then_some(slice);
        Ok(Read {
            slice,
            high_watermark,
            last_stable_offset,
            log_start_offset: log.start_offset(),
            aborted,
        })
    }

    /// Where a reader's log has parted from this one, whose last record was of `last_fetched` and which
    /// now asks for `offset`: the last epoch both have, and where it ends here. `None` if it has not.
    pub fn divergence(&self, offset: i64, last_fetched: i32) -> Result<Option<(i32, i64)>, Error> {
        let current = self.check_leader()?.leader_epoch;
        let log = self.log();
        let (start, end) = (log.start_offset(), log.end_offset());
        let (epoch, end_of_epoch) = match last_fetched == current {
            // Under this epoch nothing may have been written yet; it ends here all the same.
            true => (current, end),
            false => log.end_offset_for_epoch(last_fetched),
        };
        // Without an epoch in common there is nothing to go back to.
        if epoch < 0 || offset < start {
            let err = storage::error::Error::OffsetOutOfRange { offset, start, end };
            return Err(Error::Storage(err));
        }
        let parted = epoch < last_fetched || end_of_epoch < offset;
        Ok(parted.then_some((epoch, end_of_epoch)))
    }

    /// Moves the log's start to `before` (-1: the high watermark), as DeleteRecords asks.
    /// Returns the new low watermark.
    pub fn delete_records(&self, before: i64) -> Result<i64, Error> {
        let _held = self.lock();
        self.check_leader()?;
        let high_watermark = self.high_watermark.get();
        let before = if before == -1 { high_watermark } else { before };
        let home = self.home.load();
        let log = &home.log;
        if before < 0 || high_watermark < before {
            return Err(Error::Storage(storage::error::Error::OffsetOutOfRange {
                offset: before,
                start: log.start_offset(),
                end: high_watermark,
            }));
        }
        log.delete_records(before)?;
        Ok(log.start_offset())
    }

    /// Is this broker the leader, and is `epoch` (-1: not known to the client) the one in force?
    pub fn check_epoch(&self, epoch: i32) -> Result<i32, Error> {
        let leadership = self.leadership();
        let current = leadership.leader_epoch;
        match epoch {
            _ if 0 <= epoch && epoch < current => Err(Error::FencedLeaderEpoch),
            _ if current < epoch => Err(Error::UnknownLeaderEpoch),
            _ => self.led(leadership).map(|_| current),
        }
    }

    /// Wakes `waiter` whenever the watermark moves, until the result is dropped.
    pub fn listen(self: &Arc<Self>, waiter: &Arc<Waiter>) -> Listening {
        self.high_watermark.register(waiter);
        Listening {
            partition: Arc::clone(self),
            waiter: Arc::clone(waiter),
        }
    }

    /// Waits until everything below `upto` is on disk, together with whoever else waits for it.
    fn flush(&self, upto: i64) -> impl Future<Output = Result<(), Error>> + use<> {
        let (done, waiting) = tokio::sync::oneshot::channel();
        let home = self.home.load();
        let flushed = Box::new(move |outcome| {
            // Whoever waited may have gone: the flush is done all the same.
            let _ = done.send(outcome);
        });
        home.directory.flush_then(&home.log, upto, flushed);
        async move {
            match waiting.await {
                Ok(outcome) => outcome.map(|_| ()).map_err(Error::Storage),
                Err(_) => Err(Error::ShuttingDown),
            }
        }
    }

    fn check_leader(&self) -> Result<Guard<Arc<Leadership>>, Error> {
        self.led(self.leadership())
    }

    /// Is it this broker that leads?
    fn led(&self, leadership: Guard<Arc<Leadership>>) -> Result<Guard<Arc<Leadership>>, Error> {
        if leadership.leader == self.node_id {
            return Ok(leadership);
        }
        Err(Error::NotLeader {
            leader: leadership.leader,
            epoch: leadership.leader_epoch,
        })
    }

    /// The watermark is the smallest log end of the in-sync replicas; without followers, ours.
    fn advance(&self, _held: &MutexGuard<'_, ()>) {
        if self.leadership().isr == [self.node_id] {
            self.high_watermark
                .advance(self.home.load().log.end_offset());
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // What it guards is replaced whole, so a panic while it was held has not left half of it.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registration with a partition's watermark; ends when dropped.
#[derive(Debug)]
pub struct Listening {
    partition: Arc<Partition>,
    waiter: Arc<Waiter>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.partition.high_watermark.forget(&self.waiter);
    }
}

/// A few kilobytes may decompress to gigabytes, which takes seconds: others are served meanwhile.
fn admit(batch: Bytes, rules: &Rules, now: i64) -> Result<Admitted, Refusal> {
    if let Some(judged) = admission::admit_quickly(batch.clone(), rules, now) {
        return judged;
    }
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match runtime {
        Ok(RuntimeFlavor::MultiThread) => {
            tokio::task::block_in_place(|| admission::admit(batch, rules, now))
        }
        _ => admission::admit(batch, rules, now),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use storage::{disk, properties::Identity};

    use super::*;

    const NODE: i32 = 1;

    /// Whoever read from a partition once waited for whoever wrote to it.
    #[test]
    fn reading_waits_neither_for_an_append_nor_for_a_move() {
        let dir = tempfile::tempdir().unwrap();
        let partition = Arc::new(partition(dir.path()));
        let held = partition.lock();
        let (done, read) = mpsc::channel();
        let reading = Arc::clone(&partition);
        let reader = thread::spawn(move || {
            let outcome = reading.read(0, 1 << 20, true, Isolation::ReadUncommitted, 0);
            let epochs = (reading.check_epoch(3), reading.check_epoch(2));
            let seen = reading.leadership().leader;
            // Nobody listens if this came too late.
            let _ = done.send((outcome, epochs, seen));
        });
        let (outcome, epochs, seen) = read
            .recv_timeout(Duration::from_secs(60))
            .expect("an answer while the partition is held");
        assert_eq!(outcome.unwrap().high_watermark, 0);
        assert!(matches!(epochs, (Ok(3), Err(Error::FencedLeaderEpoch))));
        assert_eq!(seen, NODE);
        drop(held);
        reader.join().unwrap();
    }

    #[test]
    fn an_append_is_of_the_epoch_in_force_and_an_older_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let partition = partition(dir.path());
        let marker = Marker {
            producer_id: 7,
            producer_epoch: 0,
            commit: true,
            coordinator_epoch: 0,
            transaction_version: 1,
        };
        partition.lead(leadership(NODE, 2));
        assert_eq!(partition.leadership().leader_epoch, 3);
        assert_eq!(partition.append_marker(&marker, 0).unwrap().base_offset, 0);
        partition.lead(leadership(NODE + 1, 4));
        assert!(matches!(
            partition.append_marker(&marker, 0),
            Err(Error::NotLeader {
                leader: 2,
                epoch: 4
            })
        ));
        partition.lead(leadership(NODE, 5));
        assert_eq!(partition.append_marker(&marker, 0).unwrap().base_offset, 1);
        assert_eq!(partition.log().epochs(), [(3, 0), (5, 1)]);
        partition.close();
        assert!(partition.append_marker(&marker, 0).is_err());
        partition.lead(leadership(NODE, 6));
        assert_eq!(partition.leadership().leader, NO_LEADER);
    }

    fn leadership(leader: i32, leader_epoch: i32) -> Leadership {
        Leadership {
            leader,
            leader_epoch,
            replicas: 1,
            isr: vec![leader],
            min_insync_replicas: 1,
        }
    }

    fn partition(dir: &std::path::Path) -> Partition {
        let identity = Identity {
            cluster_id: "cluster".to_owned(),
            node_id: NODE,
        };
        let directory = Directory::open(disk::real(), dir, &identity, 16, 0).unwrap();
        let home = Home {
            log: directory.open_log("t-0", LogConfig::default(), 0).unwrap(),
            directory: Arc::new(directory),
        };
        let rules = Rules {
            max_message_bytes: 1 << 20,
            max_decompressed_bytes: 1 << 20,
            timestamp_type: protocol::batch::TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
            compression: None,
            keys_required: false,
        };
        let name = Name {
            topic: Arc::from("t"),
            topic_id: Uuid::from_u128(1),
            index: 0,
        };
        Partition::new(name, NODE, home, rules, leadership(NODE, 3))
    }
}
