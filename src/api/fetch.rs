//! Fetch (key 1), v4-v18: read record batches from partitions this broker leads.
//!
//! - Whole files' ranges are answered, not bytes: what is large leaves by `sendfile` from the page
//!   cache, what is small is copied next to the header. A range that is not in the page cache is read
//!   by another thread first, so that no connection waits for another's disk (Kafka stalls here,
//!   KAFKA-7504).
//! - With less than `min_bytes` to tell the answer waits up to `max_wait_ms`. An error does not wait.
//! - The first batch of the first partition with data is returned whole whatever the limits say: a
//!   consumer must be able to get past a batch that is larger than it expected. A last batch may be
//!   cut off anywhere; consumers expect that.
//! - A reader that says which epoch its last record is of is told where its log and this one part
//!   (KIP-595), or that this log never had the epoch: OFFSET_OUT_OF_RANGE.
//! - A partition that is named twice is read once, as it was named last.
//! - Nobody fetches as a replica: the partitions here have no followers.
//! - Sessions: see `fetch_sessions`.
//!
//! Versions: v4 isolation level, v5 log start offset, v7 sessions, v9 leader epochs, v11 racks, v12
//! flexible, v13 topic ids (KIP-516), v15 replica state, v16 who leads instead (KIP-951).

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use kafka_protocol::{
    messages::{FetchRequest, TopicName},
    protocol::StrBytes,
};
use protocol::{
    error::ErrorCode,
    fetch::{
        AbortedTransaction, EpochEndOffset, FetchResponse, FetchableTopicResponse,
        LeaderIdAndEpoch, PartitionData, Records,
    },
};
use replication::{
    partition::{Error as PartitionError, Isolation, Partition, Read},
    watermark::Waiter,
};
use storage::{aborted::Aborted, log::Slice};
use tracing::error;
use uuid::Uuid;

use super::{error::Error, producer_state};
use crate::{
    broker::Broker,
    fetch_sessions::{self, Key, Plan, Told, Wanted},
    metrics::Counts,
    random,
    server::Context,
};

/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;
/// First version that says in a struct of its own who fetches.
const REPLICA_STATE: i16 = 15;
/// First version that can tell who leads instead.
const CURRENT_LEADER: i16 = 16;

/// A Fetch that has looked at every partition once.
pub(crate) enum Fetched {
    Ready(Answer),
    /// There is too little to tell yet, or it has to come from the disk.
    Waiting(Waiting),
}

/// A response, and the files its records are in.
pub(crate) struct Answer {
    pub(crate) response: FetchResponse,
    pub(crate) slices: Vec<Slice>,
}

pub(crate) struct Waiting {
    broker: Arc<Broker>,
    plan: Plan,
    reads: Vec<One>,
    limits: Limits,
    deadline: Instant,
    version: i16,
}

#[derive(Clone, Copy)]
struct Limits {
    min_bytes: usize,
    max_bytes: usize,
    isolation: Isolation,
    /// The request is a replica's, by its own account.
    by_replica: bool,
    /// When the request came (ms since the epoch).
    now: i64,
}

/// One partition of the request.
struct One {
    partition: Option<Arc<Partition>>,
    outcome: Result<Read, Error>,
    /// The last epoch that the reader and this log have in common, and where it ends here: the reader
    /// has something else after that.
    divergence: Option<EpochEndOffset>,
    /// What was read, if it is so little that it goes into the answer itself.
    inline: Option<Bytes>,
}

/// Looks at every partition, and answers at once if there is enough to tell.
pub(crate) fn start(broker: &Arc<Broker>, ctx: &Context, req: FetchRequest) -> Fetched {
    let waits = Duration::from_millis(u64::try_from(req.max_wait_ms).unwrap_or(0));
    let limits = limits(broker, ctx, &req);
    let plan = match plan(broker, ctx, req) {
        Ok(plan) => plan,
        Err(refusal) => return Fetched::Ready(Answer::refused(refusal)),
    };
    let partitions = plan
        .wanted
        .iter()
        .map(|(key, _)| find(broker, ctx.version, key));
    let reads = partitions.map(One::new).collect();
    let mut waiting = Waiting {
        broker: Arc::clone(broker),
        plan,
        reads,
        limits,
        deadline: ctx.received_at + waits,
        version: ctx.version,
    };
    if waiting.knows_producers() {
        let enough = waiting.read();
        if (enough || waits.is_zero()) && waiting.is_at_hand() {
            return Fetched::Ready(waiting.answer());
        }
    }
    Fetched::Waiting(waiting)
}

fn limits(broker: &Broker, ctx: &Context, req: &FetchRequest) -> Limits {
    let max_bytes = usize::try_from(req.max_bytes).unwrap_or(0);
    let replica = match ctx.version {
        REPLICA_STATE.. => req.replica_state.replica_id,
        _ => req.replica_id,
    };
    Limits {
        min_bytes: usize::try_from(req.min_bytes).unwrap_or(0),
        max_bytes: max_bytes.min(broker.config().fetch_max_bytes),
        isolation: match req.isolation_level {
            0 => Isolation::ReadUncommitted,
            _ => Isolation::ReadCommitted,
        },
        by_replica: 0 <= replica.0,
        now: ctx.now,
    }
}

fn plan(
    broker: &Broker,
    ctx: &Context,
    req: FetchRequest,
) -> Result<Plan, fetch_sessions::Refusal> {
    let key = |topic: &TopicName, topic_id, index| Key {
        topic: topic.clone(),
        topic_id,
        index,
    };
    let by_id = TOPIC_IDS <= ctx.version;
    let wanted = req.topics.iter().flat_map(|topic| {
        let name = match by_id {
            true => name_of(broker, topic.topic_id),
            false => topic.topic.clone(),
        };
        topic.partitions.iter().map(move |partition| {
            let wanted = Wanted {
                offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
                leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            };
            (key(&name, topic.topic_id, partition.partition), wanted)
        })
    });
    let forgotten = req.forgotten_topics_data.iter().flat_map(|topic| {
        topic
            .partitions
            .iter()
            .map(|index| key(&topic.topic, topic.topic_id, *index))
    });
    let request = fetch_sessions::Request {
        session_id: req.session_id,
        epoch: req.session_epoch,
        by_id,
        wanted: wanted.collect(),
        forgotten: forgotten.collect(),
    };
    let mut sessions = broker
        .fetch_sessions()
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    sessions.plan(request, ctx.now, random::positive)
}

/// What the topic with this id is called; nothing if there is none.
fn name_of(broker: &Broker, id: Uuid) -> TopicName {
    let topic = broker.partitions().topic_by_id(id);
    TopicName(topic.map_or_else(StrBytes::default, |topic| topic.name().to_string().into()))
}

fn find(broker: &Broker, version: i16, key: &Key) -> Result<Arc<Partition>, Error> {
    if version < TOPIC_IDS {
        return Ok(broker.partition(&key.topic, key.index)?);
    }
    let partitions = broker.partitions();
    match partitions.topic_by_id(key.topic_id) {
        Some(topic) => Ok(topic.get(key.index)?),
        // A session outlives a topic, and remembers what the id was.
        None if key.topic.is_empty() => Err(Error::UnknownTopicId),
        None if partitions.topic(&key.topic).is_some() => Err(Error::InconsistentTopicId),
        None => Err(Error::UnknownTopicOrPartition),
    }
}

impl One {
    fn new(found: Result<Arc<Partition>, Error>) -> Self {
        match found {
            Ok(partition) => Self {
                partition: Some(partition),
                outcome: Err(Error::NotReadYet),
                divergence: None,
                inline: None,
            },
            Err(err) => Self {
                partition: None,
                outcome: Err(err),
                divergence: None,
                inline: None,
            },
        }
    }

    /// Reads again, and returns how many bytes there are.
    fn read(&mut self, wanted: &Wanted, max_bytes: usize, min_one: bool, limits: Limits) -> usize {
        let Some(partition) = &self.partition else {
            return 0;
        };
        self.inline = None;
        (self.outcome, self.divergence) = match read(partition, wanted, max_bytes, min_one, limits)
        {
            Ok((read, divergence)) => (Ok(read), divergence),
            Err(err) => (Err(err), None),
        };
        self.slice().map_or(0, Slice::size)
    }

    /// Is there something to tell that does not wait for records?
    fn is_urgent(&self) -> bool {
        self.outcome.is_err() || self.divergence.is_some()
    }

    /// Reads what goes into the answer itself. False where that, or sending the rest, would wait for the disk.
    fn is_at_hand(&mut self, inline_max: usize) -> bool {
        let Some(slice) = self.slice() else {
            return true;
        };
        if inline_max <= slice.size() {
            return slice.resident();
        }
        // What cannot be read is said where the answer is made.
        self.inline = slice.read_now().unwrap_or_default();
        self.inline.is_some()
    }

    fn slice(&self) -> Option<&Slice> {
        self.outcome.as_ref().ok()?.slice.as_ref()
    }
}

fn read(
    partition: &Partition,
    wanted: &Wanted,
    max_bytes: usize,
    min_one: bool,
    limits: Limits,
) -> Result<(Read, Option<EpochEndOffset>), Error> {
    let epoch = partition.check_epoch(wanted.leader_epoch)?;
    if limits.by_replica {
        let leader = partition.leadership().leader;
        return Err(Error::NotAReplica { leader, epoch });
    }
    let Limits { isolation, now, .. } = limits;
    let parted = match wanted.last_fetched_epoch {
        ..0 => None,
        last_fetched => partition.divergence(wanted.offset, last_fetched)?,
    };
    if let Some((epoch, end_offset)) = parted {
        // Nothing is read, but the reader is told where the log stands.
        let read = partition.read(end_offset, 0, false, isolation, now)?;
        return Ok((read, Some(EpochEndOffset { epoch, end_offset })));
    }
    let read = partition.read(wanted.offset, max_bytes, min_one, isolation, now)?;
    Ok((read, None))
}

impl Waiting {
    /// Waits for enough to tell, for the deadline, and for cold data to be in memory.
    pub(crate) async fn wait(mut self) -> Answer {
        producer_state::load(self.partitions(), self.limits.now).await;
        let waiter = Arc::new(Waiter::default());
        let listening: Vec<_> = self
            .partitions()
            .map(|partition| partition.listen(&waiter))
            .collect();
        // Listen first, look then: what comes in between wakes us.
        while !self.read() {
            if tokio::time::timeout_at(self.deadline.into(), waiter.woken())
                .await
                .is_err()
            {
                self.read();
                break;
            }
        }
        drop(listening);
        if !self.is_at_hand() {
            warm(&self.reads).await;
        }
        self.answer()
    }

    /// Reads every partition. `true` when the answer need not wait: enough bytes, an error, or
    /// nothing to wait for.
    fn read(&mut self) -> bool {
        let mut left = self.limits.max_bytes;
        let mut size = 0;
        let mut urgent = false;
        for (one, (_, wanted)) in self.reads.iter_mut().zip(&self.plan.wanted) {
            let max_bytes = usize::try_from(wanted.max_bytes).unwrap_or(0).min(left);
            let found = one.read(wanted, max_bytes, size == 0, self.limits);
            urgent |= one.is_urgent();
            size += found;
            left = left.saturating_sub(found);
        }
        urgent || self.reads.is_empty() || self.limits.min_bytes <= size
    }

    fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.reads.iter().filter_map(|one| one.partition.as_ref())
    }

    /// Whether the last stable offsets are known without a look at the disk.
    fn knows_producers(&self) -> bool {
        self.partitions()
            .all(|partition| partition.log().knows_producers())
    }

    /// Whether answering now would not wait for the disk.
    fn is_at_hand(&mut self) -> bool {
        let inline_max = self.broker.config().sendfile_min_bytes;
        self.reads.iter_mut().all(|one| one.is_at_hand(inline_max))
    }

    fn answer(self) -> Answer {
        let news = self.news();
        let inline_max = self.broker.config().sendfile_min_bytes;
        let mut topics: Vec<FetchableTopicResponse> = Vec::new();
        let mut slices = Vec::new();
        for ((one, (key, _)), news) in self.reads.into_iter().zip(self.plan.wanted).zip(news) {
            if !news {
                continue;
            }
            let partition = one.partition.clone();
            let size = one.slice().map_or(0, Slice::size);
            let data = one.response(&key, self.version, inline_max, &mut slices);
            if let Some(partition) = partition {
                let metrics = self.broker.metrics();
                metrics.count(&partition.name().topic, |counts| {
                    count(counts, data.error_code, size);
                });
            }
            match topics.last_mut() {
                Some(topic) if topic.topic == *key.topic && topic.topic_id == key.topic_id => {
                    topic.partitions.push(data);
                }
                _ => topics.push(FetchableTopicResponse {
                    topic: key.topic.0,
                    topic_id: key.topic_id,
                    partitions: vec![data],
                }),
            }
        }
        let response = FetchResponse {
            session_id: self.plan.session_id,
            responses: topics,
            ..FetchResponse::default()
        };
        Answer { response, slices }
    }

    /// Which partitions belong in the answer.
    fn news(&self) -> Vec<bool> {
        if self.plan.session_id == 0 {
            return vec![true; self.reads.len()];
        }
        let sessions = self.broker.fetch_sessions();
        let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let told = self.reads.iter().map(One::told).zip(&self.plan.wanted);
        told.map(|(told, (key, _))| sessions.tell(&self.plan, key, told))
            .collect()
    }
}

/// Reads what is not in the page cache, on a thread that may wait for the disk.
async fn warm(reads: &[One]) {
    let cold = reads
        .iter()
        .filter(|one| one.inline.is_none())
        .filter_map(One::slice)
        .filter(|slice| !slice.resident());
    let cold: Vec<Slice> = cold.cloned().collect();
    let warmed = tokio::task::spawn_blocking(move || {
        for slice in cold {
            // A read that failed will fail again where it can be answered.
            let _ = slice.warm();
        }
    });
    // It only fails when the broker stops; the answer then waits for the disk here.
    let _ = warmed.await;
}

impl One {
    fn told(&self) -> Told {
        match &self.outcome {
            Ok(read) => Told {
                high_watermark: read.high_watermark,
                log_start_offset: read.log_start_offset,
                has_records: read.slice.is_some(),
                is_error: self.divergence.is_some(),
            },
            Err(_) => Told {
                high_watermark: -1,
                log_start_offset: -1,
                has_records: false,
                is_error: true,
            },
        }
    }

    fn response(
        self,
        key: &Key,
        version: i16,
        inline_max: usize,
        slices: &mut Vec<Slice>,
    ) -> PartitionData {
        let inline = self.inline.map(Ok);
        let records = match &self.outcome {
            Ok(Read {
                slice: Some(slice), ..
            }) if slice.size() < inline_max => inline
                .unwrap_or_else(|| slice.read())
                .map(Records::Bytes)
                .map_err(|err| Error::Partition(PartitionError::Storage(err))),
            Ok(Read {
                slice: Some(slice), ..
            }) => Ok(Records::File {
                index: slices.len(),
                size: slice.size(),
            }),
            Ok(Read { slice: None, .. }) | Err(_) => Ok(Records::Empty),
        };
        let data = PartitionData {
            partition_index: key.index,
            ..PartitionData::default()
        };
        match (self.outcome, records) {
            (Ok(read), Ok(records)) => {
                if let Records::File { .. } = records {
                    slices.extend(read.slice);
                }
                PartitionData {
                    high_watermark: read.high_watermark,
                    last_stable_offset: read.last_stable_offset,
                    log_start_offset: read.log_start_offset,
                    diverging_epoch: self.divergence.unwrap_or_default(),
                    aborted_transactions: read.aborted.map(|aborted| {
                        let transaction = |aborted: Aborted| AbortedTransaction {
                            producer_id: aborted.producer_id,
                            first_offset: aborted.first_offset,
                        };
                        aborted.into_iter().map(transaction).collect()
                    }),
                    records,
                    ..data
                }
            }
            (Err(err), _) | (_, Err(err)) => {
                if err.is_ours() {
                    error!(topic = %key.topic.0, topic_id = %key.topic_id, partition = key.index, %err, "a fetch failed");
                }
                refused(data, &err, version)
            }
        }
    }
}

fn refused(mut data: PartitionData, err: &Error, version: i16) -> PartitionData {
    data.error_code = err.code().code();
    (
        data.high_watermark,
        data.last_stable_offset,
        data.log_start_offset,
    ) = (-1, -1, -1);
    if !matches!(err, Error::UnknownTopicOrPartition | Error::UnknownTopicId) {
        // A real broker leaves the empty list only where it never came to look at a partition.
        data.aborted_transactions = None;
    }
    if let Error::Partition(PartitionError::NotLeader { leader, epoch })
    | Error::NotAReplica { leader, epoch } = err
        && CURRENT_LEADER <= version
    {
        data.current_leader = LeaderIdAndEpoch {
            leader_id: *leader,
            leader_epoch: *epoch,
        };
    }
    data
}

/// What the metrics of a topic are to know of a partition's part in an answer.
fn count(counts: &Counts, error_code: i16, size: usize) {
    counts.fetch_requests.fetch_add(1, Relaxed);
    if error_code == 0 {
        counts.bytes_out.fetch_add(size as u64, Relaxed);
    } else {
        counts.fetch_failures.fetch_add(1, Relaxed);
    }
}

impl Answer {
    fn refused(refusal: fetch_sessions::Refusal) -> Self {
        let code = match refusal {
            fetch_sessions::Refusal::NotFound => ErrorCode::FetchSessionIdNotFound,
            fetch_sessions::Refusal::InvalidEpoch => ErrorCode::InvalidFetchSessionEpoch,
            fetch_sessions::Refusal::TopicIds => ErrorCode::FetchSessionTopicIdError,
        };
        let response = FetchResponse {
            error_code: code.code(),
            ..FetchResponse::default()
        };
        Self {
            response,
            slices: Vec::new(),
        }
    }
}
