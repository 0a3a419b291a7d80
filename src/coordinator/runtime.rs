//! The one loop around every coordinator: load, decide, append, replay, answer when committed, wake.
//!
//! A shard is one partition of the internal topic that this broker leads, in one leader epoch, and the machine that
//! its records make. Its lock is held for a decision, a write into the page cache and the replay of what was
//! written; whoever waits for the watermark waits outside.

mod batches;
mod loading;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use protocol::{compression::Compression, error::ErrorCode};
use replication::{
    cluster::ClusterImage,
    partition::{Appended, Marker, Partition},
    partitions::Partitions,
};
use storage::producers::{self, Standing};
use tokio::sync::{Notify, oneshot};
use tracing::error;
use uuid::Uuid;

use self::batches::DECOMPRESSED_MAX;
pub(super) use self::batches::{batch_of, replay};
use super::{Answer, Effects, Env, Machine, Origin, Producer, Ticket};
use crate::{api::error::Error as ApiError, clock, complaints::Complaints, config::Config};

/// What a shard does on its own before it lets others have their turn.
const TICKS_MAX: usize = 64;

/// How much smaller than before records may be expected to be when they are compressed.
const COMPRESSION_MAX: usize = 16;

/// How much of a record is shown in the broker's log, in characters.
const RECORD_SHOWN_MAX: usize = 200;

/// No shard waits for a time.
const NEVER: i64 = i64::MAX;

/// Where a runtime finds what its machines may know.
pub(crate) struct Host {
    pub(crate) node_id: i32,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) config: Arc<ArcSwap<Config>>,
    pub(crate) image: Box<dyn Fn() -> Arc<ClusterImage> + Send + Sync>,
}

pub(crate) struct Runtime<M: Machine> {
    topic: &'static str,
    host: Host,
    /// Makes the machine of a partition of which nothing has been replayed.
    empty: Box<dyn Fn() -> M + Send + Sync>,
    /// Begins what a machine wants done outside.
    begin: Box<dyn Fn(Job<M>) + Send + Sync>,
    shards: ArcSwap<HashMap<i32, Arc<Shard<M>>>>,
    /// When the first of the shards wants to be woken, by the steady clock (ms).
    wake_at: AtomicI64,
    /// `wake_at` has come closer.
    sooner: Notify,
    complaints: Mutex<Complaints>,
}

/// What a machine wants done outside.
pub(crate) struct Job<M: Machine> {
    /// The machine's partition.
    pub(crate) partition: Arc<Partition>,
    /// In which this broker leads it.
    pub(crate) leader_epoch: i32,
    pub(crate) task: M::Task,
    after: Option<Appended>,
}

impl<M: Machine> Job<M> {
    /// Returns when what led to the task has committed. `false` if it may not commit, or this broker does not lead
    /// any more.
    pub(crate) async fn committed(&self, timeout: Duration) -> bool {
        let Some(after) = &self.after else {
            return true;
        };
        if self.partition.is_committed(after, true) {
            return true;
        }
        let deadline = Instant::now() + timeout;
        let committed = self.partition.committed(after, true, deadline).await;
        committed.is_ok()
    }
}

struct Shard<M: Machine> {
    partition: Arc<Partition>,
    leader_epoch: i32,
    state: Mutex<State<M>>,
}

enum State<M: Machine> {
    Loading,
    Active(Active<M>),
    /// Its log cannot be understood, or another broker leads it now.
    Gone,
}

struct Active<M: Machine> {
    machine: M,
    next_ticket: u64,
    waiting: HashMap<u64, oneshot::Sender<Given<M>>>,
    /// The newest append: what the machine knows has committed when this has.
    newest: Option<Appended>,
}

/// How many of the partitions that this broker leads are what.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct States {
    pub(crate) loading: usize,
    pub(crate) active: usize,
    /// Could not be loaded.
    pub(crate) failed: usize,
}

/// An answer, and what must have committed before it may leave.
struct Given<M: Machine> {
    answer: Answer<M>,
    after: Option<Appended>,
}

impl<M: Machine> fmt::Debug for Runtime<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Runtime({})", self.topic)
    }
}

impl<M: Machine> Runtime<M> {
    /// Nothing is coordinated before the first [`Runtime::follow`].
    pub(crate) fn new(
        topic: &'static str,
        host: Host,
        empty: impl Fn() -> M + Send + Sync + 'static,
        begin: impl Fn(Job<M>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            topic,
            host,
            empty: Box::new(empty),
            begin: Box::new(begin),
            shards: ArcSwap::default(),
            wake_at: AtomicI64::new(NEVER),
            sooner: Notify::new(),
            complaints: Mutex::default(),
        }
    }

    /// The partition that keeps `key`, which is a group's id or a transactional id; `None` while the topic does
    /// not exist.
    pub(crate) fn partition_of(&self, key: &str) -> Option<i32> {
        let image = (self.host.image)();
        let count = image.topic(self.topic)?.partitions.len();
        Some(partition_of(key, i32::try_from(count).ok()?))
    }

    /// Hands a request to the shard that keeps `key`, and waits for its answer.
    pub(crate) async fn ask(self: &Arc<Self>, key: &str, request: M::Request) -> Answer<M> {
        let index = self.partition_of(key).ok_or(ErrorCode::NotCoordinator)?;
        self.ask_partition(index, request).await
    }

    /// The same for who knows the partition.
    pub(crate) async fn ask_partition(
        self: &Arc<Self>,
        index: i32,
        request: M::Request,
    ) -> Answer<M> {
        self.ask_in_transaction(index, request, Standing::Unverified)
            .await
    }

    /// The same for a request that may write records of a transaction, of which this is known.
    pub(crate) async fn ask_in_transaction(
        self: &Arc<Self>,
        index: i32,
        request: M::Request,
        standing: Standing,
    ) -> Answer<M> {
        let shard = self.shards.load().get(&index).cloned();
        let shard = shard.ok_or(ErrorCode::NotCoordinator)?;
        let answer = self.submit(&shard, request, standing)?;
        // The sender goes without a word when the shard does.
        let given = answer.await.map_err(|_| ErrorCode::NotCoordinator)?;
        if let Some(appended) = given.after.filter(|_| given.answer.is_ok())
            && !shard.partition.is_committed(&appended, true)
        {
            let timeout = self.host.config.load().groups.offsets_commit_timeout;
            let deadline = Instant::now() + timeout;
            let committed = shard.partition.committed(&appended, true, deadline).await;
            committed.map_err(|err| code_of(ApiError::from(err).code()))?;
        }
        given.answer
    }

    /// Ends a producer's transaction in one of the topic's partitions: writes the marker, and tells the machine.
    pub(crate) fn end_transaction(
        self: &Arc<Self>,
        index: i32,
        marker: &Marker,
    ) -> Result<(Arc<Partition>, Appended), ApiError> {
        let shard = self.shards.load().get(&index).cloned();
        let shard = shard.ok_or(ApiError::NotCoordinator)?;
        let ended = self.turn(&shard, |active| {
            let now = clock::now();
            let (batch, origin) = marker.batch(now);
            let partition = Arc::clone(&shard.partition);
            let appended = partition.append_own(&batch, shard.leader_epoch, origin, now)?;
            let producer = Producer {
                id: marker.producer_id,
                epoch: marker.producer_epoch,
            };
            active.machine.end_transaction(producer, marker.commit);
            active.newest = Some(appended.clone());
            Ok((partition, appended))
        });
        ended.unwrap_or_else(|code| {
            Err(match code {
                ErrorCode::CoordinatorLoadInProgress => ApiError::CoordinatorLoading,
                _ => ApiError::NotCoordinator,
            })
        })
    }

    /// The partitions that are coordinated here, loaded or not.
    pub(crate) fn coordinated(&self) -> Vec<i32> {
        self.shards.load().keys().copied().collect()
    }

    /// Shows every loaded machine to `look`, whose requests wait meanwhile. Returns how many partitions are in which
    /// state.
    pub(crate) fn each(&self, mut look: impl FnMut(&M)) -> States {
        let mut states = States::default();
        for shard in self.shards.load().values() {
            match &*shard.lock() {
                State::Loading => states.loading += 1,
                State::Gone => states.failed += 1,
                State::Active(active) => {
                    states.active += 1;
                    look(&active.machine);
                }
            }
        }
        states
    }

    /// Follows the cluster image: partitions that this broker has come to lead are loaded, those it has lost are
    /// forgotten. Call it when the partitions have been applied.
    pub(crate) fn follow(self: &Arc<Self>, image: &Arc<ClusterImage>) {
        let led = self.led(image);
        let before = self.shards.load_full();
        let mut after = HashMap::with_capacity(led.len());
        let mut fresh = Vec::new();
        for (index, (partition, leader_epoch)) in led {
            let shard = match before.get(&index) {
                Some(shard)
                    if shard.leader_epoch == leader_epoch
                        && Arc::ptr_eq(&shard.partition, &partition) =>
                {
                    Arc::clone(shard)
                }
                _ => {
                    let shard = Arc::new(Shard {
                        partition,
                        leader_epoch,
                        state: Mutex::new(State::Loading),
                    });
                    fresh.push(Arc::clone(&shard));
                    shard
                }
            };
            after.insert(index, shard);
        }
        let gone = before.iter().filter(|(index, shard)| {
            !after
                .get(index)
                .is_some_and(|kept| Arc::ptr_eq(kept, shard))
        });
        let gone: Vec<Arc<Shard<M>>> = gone.map(|(_, shard)| Arc::clone(shard)).collect();
        self.shards.store(Arc::new(after));
        for shard in gone {
            *shard.lock() = State::Gone;
        }
        for shard in self.shards.load().values() {
            // What is not loaded, or must be loaded again, will see the new image then.
            let _ = self.turn(shard, |active| {
                self.with_env(shard, |env| active.machine.image_changed(env));
            });
        }
        for shard in fresh {
            self.start_loading(shard);
        }
    }

    /// Nothing is coordinated here any more: who waits is sent away. For a broker that stops.
    pub(crate) fn close(&self) {
        for shard in self.shards.swap(Arc::default()).values() {
            *shard.lock() = State::Gone;
        }
    }

    /// Wakes machines when their time comes, for ever.
    pub(crate) async fn keep_time(self: &Arc<Self>) {
        loop {
            let wake_at = self.wake_at.load(Ordering::SeqCst);
            let wait = u64::try_from(wake_at.saturating_sub(clock::steady_now())).unwrap_or(0);
            if wake_at == NEVER {
                self.sooner.notified().await;
            } else if wait > 0 {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(wait)) => (),
                    () = self.sooner.notified() => continue,
                }
            }
            self.wake();
        }
    }

    /// Lets every machine do what is due.
    fn wake(self: &Arc<Self>) {
        // Before looking: a deadline that is set while we look must be noticed afterwards.
        self.wake_at.store(NEVER, Ordering::SeqCst);
        for shard in self.shards.load().values() {
            // What is being loaded is woken afterwards.
            while let Ok(true) = self.turn(shard, |active| self.tick(shard, active)) {}
        }
    }

    /// Returns whether there may be more to do: who wants the shard gets it in between.
    fn tick(&self, shard: &Shard<M>, active: &mut Active<M>) -> bool {
        for _ in 0..TICKS_MAX {
            let Some(effects) = self.with_env(shard, |env| active.machine.tick(env)) else {
                return false;
            };
            self.carry_out(shard, active, effects);
        }
        true
    }

    /// Lets a loaded shard do something, and sees to it that it is woken in time afterwards.
    ///
    /// A machine that panics may have changed half of what it holds outside the log, and must not take the clock of
    /// all others with it: it is made anew from the log, and who waited is sent to look for the coordinator again.
    fn turn<T>(
        self: &Arc<Self>,
        shard: &Arc<Shard<M>>,
        work: impl FnOnce(&mut Active<M>) -> T,
    ) -> Result<T, ErrorCode> {
        let mut state = shard.lock();
        let active = match &mut *state {
            State::Loading => return Err(ErrorCode::CoordinatorLoadInProgress),
            State::Gone => return Err(ErrorCode::NotCoordinator),
            State::Active(active) => active,
        };
        let done = panic::catch_unwind(AssertUnwindSafe(|| {
            let done = work(active);
            self.mind(active);
            done
        }));
        done.map_err(|_| {
            *state = State::Loading;
            let partition = shard.partition.name();
            error!(%partition, "a coordinator has failed, which is a fault of the broker: it is loaded again");
            self.start_loading(Arc::clone(shard));
            ErrorCode::CoordinatorLoadInProgress
        })
    }

    /// The partitions of the topic that this broker leads, each with its leader epoch.
    fn led(&self, image: &ClusterImage) -> HashMap<i32, (Arc<Partition>, i32)> {
        let Some(topic) = image.topic(self.topic) else {
            return HashMap::new();
        };
        let led = topic
            .partitions
            .iter()
            .filter(|(_, info)| info.leader == self.host.node_id);
        let found = led.filter_map(|(&index, info)| {
            let partition = self.host.partitions.partition(self.topic, index).ok()?;
            Some((index, (partition, info.leader_epoch)))
        });
        found.collect()
    }

    fn submit(
        self: &Arc<Self>,
        shard: &Arc<Shard<M>>,
        request: M::Request,
        standing: Standing,
    ) -> Result<oneshot::Receiver<Given<M>>, ErrorCode> {
        self.turn(shard, |active| {
            let (sender, receiver) = oneshot::channel();
            let number = active.next_ticket;
            active.next_ticket += 1;
            active.waiting.insert(number, sender);
            let ticket = Ticket::new(number);
            let effects = self.with_env(shard, |env| active.machine.handle(ticket, request, env));
            self.carry_out_in(shard, active, effects, standing);
            receiver
        })
    }

    /// Appends, replays, answers, has tasks begun.
    fn carry_out(&self, shard: &Shard<M>, active: &mut Active<M>, effects: Effects<M>) {
        self.carry_out_in(shard, active, effects, Standing::Unverified);
    }

    fn carry_out_in(
        &self,
        shard: &Shard<M>,
        active: &mut Active<M>,
        effects: Effects<M>,
        standing: Standing,
    ) {
        let Effects {
            append,
            producer,
            answers,
            then,
            tasks,
        } = effects;
        let mut written = Ok(());
        if !append.is_empty() {
            match self.append(shard, &append, producer, standing) {
                Ok(appended) => {
                    for (offset, record) in (appended.base_offset..).zip(append) {
                        active.machine.replay(record, Origin { offset, producer });
                    }
                    active.newest = Some(appended);
                }
                Err(code) => {
                    written = Err(code);
                    let failed =
                        |env: &mut Env<'_>| active.machine.append_failed(append, code, env);
                    for (ticket, answer) in self.with_env(shard, failed) {
                        active.give(ticket, answer);
                    }
                }
            }
        }
        for (ticket, answer) in answers {
            active.give(ticket, written.and(answer));
        }
        if let Some(then) = then {
            let follow = |env: &mut Env<'_>| then.run(&mut active.machine, written, env);
            for (ticket, answer) in self.with_env(shard, follow) {
                active.give(ticket, answer);
            }
        }
        for task in tasks.into_iter().filter(|_| written.is_ok()) {
            (self.begin)(Job {
                partition: Arc::clone(&shard.partition),
                leader_epoch: shard.leader_epoch,
                after: active.newest.clone(),
                task,
            });
        }
    }

    fn append(
        &self,
        shard: &Shard<M>,
        records: &[M::Record],
        producer: Option<Producer>,
        standing: Standing,
    ) -> Result<Appended, ErrorCode> {
        let now = clock::now();
        let partition = &shard.partition;
        let compression = M::compression(&self.host.config.load());
        let bytes_max = self.records_bytes_max(shard);
        let batch = batch_of::<M>(records, producer, compression, bytes_max, now);
        // More than fits a record, a batch, or this log's batches.
        let batch = batch.filter(|batch| batch.bytes().len() <= partition.max_message_bytes());
        let Some(batch) = batch else {
            self.complain_of_size(shard, records);
            return Err(ErrorCode::UnknownServerError);
        };
        // What members may write, and in which order, is for the machine to say.
        let origin = producers::Origin::Offsets { standing };
        let appended = partition.append_own(&batch, shard.leader_epoch, origin, now);
        appended.map_err(|err| {
            let err = ApiError::from(err);
            // A producer that comes too late is no news.
            if producer.is_none() || err.is_ours() {
                let partition = partition.name();
                error!(%partition, %err, "a coordinator's records cannot be appended");
            }
            code_of(err.code())
        })
    }

    /// The most that the keys and values of one append may take.
    fn records_bytes_max(&self, shard: &Shard<M>) -> usize {
        let batch_bytes = shard.partition.max_message_bytes();
        match M::compression(&self.host.config.load()) {
            Compression::None => batch_bytes,
            // What it takes compressed is known when it has been.
            _ => batch_bytes
                .saturating_mul(COMPRESSION_MAX)
                .min(DECOMPRESSED_MAX / 2),
        }
    }

    /// Whoever asked is told no more than that the server does not know what to do.
    fn complain_of_size(&self, shard: &Shard<M>, records: &[M::Record]) {
        let partition = shard.partition.name();
        let first = records.first().map(|it| format!("{it:?}"));
        let first = first.iter().flat_map(|it| it.chars());
        let first: String = first.take(RECORD_SHOWN_MAX).collect();
        let complaint = format!("{partition} {first}");
        let mut complaints = self
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if complaints.is_news(&complaint, clock::steady_now()) {
            let (record_count, max) = (records.len(), shard.partition.max_message_bytes());
            error!(
                %partition, record_count, max_message_bytes = max, first_record = first,
                "a coordinator's records cannot be appended: together they take more than max.message.bytes allows",
            );
        }
    }

    /// Sees to it that the machine is woken in time.
    fn mind(&self, active: &Active<M>) {
        let Some(deadline) = active.machine.next_deadline() else {
            return;
        };
        if deadline < self.wake_at.fetch_min(deadline, Ordering::SeqCst) {
            self.sooner.notify_one();
        }
    }

    fn with_env<T>(&self, shard: &Shard<M>, work: impl FnOnce(&mut Env<'_>) -> T) -> T {
        work(&mut Env {
            now: clock::now(),
            steady_now: clock::steady_now(),
            image: &(self.host.image)(),
            config: &self.host.config.load(),
            records_bytes_max: self.records_bytes_max(shard),
            new_id: &mut Uuid::new_v4,
        })
    }
}

impl<M: Machine> Shard<M> {
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        // A panic in a machine is caught before it comes here, and one while loading leaves the state as it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Machine> Active<M> {
    fn give(&mut self, ticket: Ticket, answer: Answer<M>) {
        if let Some(sender) = self.waiting.remove(&ticket.number()) {
            let after = self.newest.clone();
            // Whoever asked may have gone.
            let _ = sender.send(Given { answer, after });
        }
    }
}

/// Kafka's rule: the key's hash as Java makes it, without its sign, over the count of partitions.
fn partition_of(key: &str, count: i32) -> i32 {
    let hash = key.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(unit.into())
    });
    hash.checked_abs().unwrap_or(0) % count.max(1)
}

/// What a coordinator's client is told when an append was refused with `code`. A real broker does not let it see
/// what went wrong in a log that it has never heard of, but where to turn.
fn code_of(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower
        | ErrorCode::FencedLeaderEpoch
        | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge
        | ErrorCode::RecordListTooLarge
        | ErrorCode::InvalidFetchSize => ErrorCode::UnknownServerError,
        other => other,
    }
}
