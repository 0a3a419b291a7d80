//! Compacts the logs of compacted topics, the dirtiest first.
//!
//! - At most `log.cleaner.threads` at a time, each on a blocking thread; when nothing is due, the next look is
//!   after `log.cleaner.backoff.ms`.
//! - A log that cannot be compacted (a damaged batch, say) is left alone until the next start and shown in
//!   `uncleanable-partitions-count`; the others go on.
//! - A log that is deleted or moved to another directory meanwhile is let go of at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use replication::partition::{Home, Partition};
use storage::{
    compaction::{Compacted, Dirty, Flow, Settings},
    directory::Directory,
    error::Error,
};
use tokio::task::JoinSet;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{broker::Broker, clock, config::Config};

/// What a batch may decompress to. What was let in must be let through, so this is no setting.
const DECOMPRESSED_MAX: usize = 1 << 30;

/// Waiting for the rate limit is cut into pieces, so that a broker that stops need not wait for it.
const NAP: Duration = Duration::from_millis(50);

const BACKOFF_MIN: Duration = Duration::from_millis(10);

/// Bytes read and written too soon.
#[derive(Debug)]
struct Owed {
    bytes: f64,
    at: Instant,
}

impl Owed {
    /// How long to wait until no more than `rate` bytes a second were read and written.
    fn add(&mut self, bytes: f64, rate: f64) -> Duration {
        let now = Instant::now();
        let passed = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        self.bytes = (self.bytes - passed * rate).max(0.0) + bytes;
        Duration::try_from_secs_f64(self.bytes / rate).unwrap_or(Duration::MAX)
    }
}

/// What the cleaner is at and what it has seen.
#[derive(Debug)]
pub(crate) struct Cleaner {
    state: Mutex<State>,
    /// Over all threads.
    owed: Mutex<Owed>,
}

#[derive(Debug)]
struct State {
    in_progress: BTreeSet<Place>,
    uncleanable: BTreeMap<Place, u64>,
    looked: Instant,
    stopped: bool,
    seen: Seen,
}

/// A log. A topic of the same name may take another's place: what is known is not of that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    directory: PathBuf,
    topic_id: Uuid,
    name: String,
}

impl Place {
    fn of(partition: &Partition, home: &Home) -> Place {
        Place {
            directory: home.directory.path().to_owned(),
            topic_id: partition.name().topic_id,
            name: partition.name().to_string(),
        }
    }
}

/// Of the last look and the last compaction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) max_dirty_ratio: f64,
    pub(crate) max_delay_ms: i64,
    pub(crate) recopy_ratio: f64,
    pub(crate) map_utilization: f64,
    pub(crate) took: Duration,
}

/// A log that is to be compacted now.
struct Job {
    place: Place,
    partition: Arc<Partition>,
    home: Arc<Home>,
    dirty: Dirty,
}

/// Whether to look for the next log at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Done,
    /// Nothing has come of it: the same log might be chosen again and again.
    InVain,
}

impl Default for Cleaner {
    fn default() -> Cleaner {
        let now = Instant::now();
        Cleaner {
            state: Mutex::new(State {
                in_progress: BTreeSet::new(),
                uncleanable: BTreeMap::new(),
                looked: now,
                stopped: false,
                seen: Seen::default(),
            }),
            owed: Mutex::new(Owed {
                bytes: 0.0,
                at: now,
            }),
        }
    }
}

/// Goes on until the broker stops.
pub(crate) async fn run(broker: Arc<Broker>) {
    if !broker.config().log_cleaner_enable {
        return;
    }
    let _ends = Ends(broker.cleaner());
    let stopping = broker.stopping();
    tokio::pin!(stopping);
    let mut jobs = JoinSet::new();
    'running: loop {
        let threads = broker.config().log_cleaner_threads;
        while jobs.len() < threads && !broker.is_stopping() {
            let looking = {
                let broker = Arc::clone(&broker);
                tokio::task::spawn_blocking(move || broker.cleaner().next(&broker))
            };
            match looking.await {
                Ok(Some(job)) => {
                    let broker = Arc::clone(&broker);
                    jobs.spawn_blocking(move || broker.cleaner().clean(&broker, &job));
                }
                Ok(None) => break,
                Err(err) => {
                    error!(%err, "the cleaner cannot look for work");
                    break;
                }
            }
        }
        // Zero is allowed, and must not keep a processor busy.
        let backoff = broker.config().log_cleaner_backoff.max(BACKOFF_MIN);
        let backoff = tokio::time::sleep(backoff);
        tokio::pin!(backoff);
        loop {
            tokio::select! {
                Some(done) = jobs.join_next() => match done {
                    Ok(Turn::Done) => break,
                    Ok(Turn::InVain) => (),
                    Err(err) => {
                        error!(%err, "a compaction failed");
                        break;
                    }
                },
                () = &mut backoff => break,
                () = &mut stopping => break 'running,
            }
        }
    }
    while jobs.join_next().await.is_some() {}
}

/// Notes when nothing is compacted any more, for whatever reason.
struct Ends<'a>(&'a Cleaner);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.state().stopped = true;
    }
}

impl Cleaner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dirtiest log that is due.
    fn next(&self, broker: &Broker) -> Option<Job> {
        let now = clock::now();
        let mut seen = Seen::default();
        let mut known = BTreeSet::new();
        let mut dirtiest: Option<Job> = None;
        let moving = broker.partitions().relocations();
        for partition in broker.partitions().all() {
            let home = Arc::clone(&partition.home());
            let config = home.log.config();
            let place = Place::of(&partition, &home);
            known.insert(place.clone());
            if !config.compact
                || home.directory.is_offline()
                || home.log.segment_count() < 2
                || self.leaves_alone(&place)
                || moving
                    .iter()
                    .any(|moving| Arc::ptr_eq(moving.partition(), &partition))
            {
                continue;
            }
            let cleaned = home.directory.cleaned_offset(&place.name);
            let dirty = match home.log.dirty(cleaned, partition.high_watermark(), now) {
                Ok(dirty) => dirty,
                Err(err) => {
                    self.failed(place, &err, home.log.size());
                    continue;
                }
            };
            seen.max_dirty_ratio = seen.max_dirty_ratio.max(dirty.ratio());
            seen.max_delay_ms = seen.max_delay_ms.max(dirty.overdue_ms);
            let dirtier = |job: &Job| job.dirty.ratio() < dirty.ratio();
            if dirty.is_due(config.min_cleanable_dirty_ratio)
                && dirtiest.as_ref().is_none_or(dirtier)
            {
                dirtiest = Some(Job {
                    place,
                    partition,
                    home,
                    dirty,
                });
            }
        }
        let mut state = self.state();
        state.uncleanable.retain(|place, _| known.contains(place));
        state.looked = Instant::now();
        state.seen.max_dirty_ratio = seen.max_dirty_ratio;
        state.seen.max_delay_ms = seen.max_delay_ms;
        if let Some(job) = &dirtiest {
            state.in_progress.insert(job.place.clone());
        }
        dirtiest
    }

    fn leaves_alone(&self, place: &Place) -> bool {
        let state = self.state();
        state.in_progress.contains(place) || state.uncleanable.contains_key(place)
    }

    fn clean(&self, broker: &Broker, job: &Job) -> Turn {
        let settings = settings(&broker.config());
        let started = Instant::now();
        let mut pace = |bytes| self.pace(broker, job, bytes);
        let mut compact = || {
            let log = &job.home.log;
            log.compact(&job.dirty, &settings, clock::now(), &mut pace)
        };
        // What a panic leaves half done is a copy, which the next start throws away.
        let done = panic::catch_unwind(AssertUnwindSafe(&mut compact));
        let turn = match done {
            Ok(Ok(done)) => self.finished(job, &done, started.elapsed()),
            Ok(Err(err)) => {
                self.failed(job.place.clone(), &err, job.dirty.dirty_bytes);
                Turn::Done
            }
            Err(_) => {
                let why = "a fault of the broker, which has just been printed";
                self.give_up(job.place.clone(), &why, job.dirty.dirty_bytes);
                Turn::Done
            }
        };
        self.state().in_progress.remove(&job.place);
        turn
    }

    fn finished(&self, job: &Job, done: &Compacted, took: Duration) -> Turn {
        let Some(cleaned) = done.cleaned else {
            return Turn::InVain;
        };
        if done.records_without_key > 0 {
            warn!(
                log = job.place.name,
                records = done.records_without_key,
                "dropped records without a key from a compacted log"
            );
        }
        info!(
            log = job.place.name,
            from = job.dirty.first_dirty,
            to = cleaned,
            bytes_read = done.bytes_read,
            bytes_written = done.bytes_written,
            records_read = done.records_read,
            records_written = done.records_written,
            ms = took.as_millis(),
            "compacted"
        );
        let mut state = self.state();
        state.seen.recopy_ratio = match done.bytes_read {
            0 => 0.0,
            read => done.bytes_written as f64 / read as f64,
        };
        state.seen.map_utilization = done.map_utilization;
        state.seen.took = took;
        Turn::Done
    }

    /// A failure of the disk has taken the directory offline and said so, and what is gone retention has
    /// deleted. Any other is the log's own.
    fn failed(&self, place: Place, err: &Error, bytes: u64) {
        if matches!(
            err,
            Error::Io { .. } | Error::Offline { .. } | Error::Gone { .. }
        ) {
            return;
        }
        self.give_up(place, err, bytes);
    }

    fn give_up(&self, place: Place, err: &dyn fmt::Display, bytes: u64) {
        error!(
            dir = %place.directory.display(),
            log = place.name,
            %err,
            "the log cannot be compacted, it is left as it is until the next start"
        );
        self.state().uncleanable.insert(place, bytes);
    }

    /// Keeps to `log.cleaner.io.max.bytes.per.second`, which may change while this waits.
    fn pace(&self, broker: &Broker, job: &Job, bytes: usize) -> Flow {
        let mut bytes = bytes as f64;
        loop {
            if broker.is_stopping() || job.is_off(broker) {
                return Flow::Stop;
            }
            let rate = broker.config().log_cleaner_io_max_bytes_per_second.max(1.0);
            let wait = {
                let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
                owed.add(std::mem::take(&mut bytes), rate)
            };
            // Too short to be worth a turn of the scheduler: the next call pays for both.
            if wait < Duration::from_millis(1) {
                return Flow::Continue;
            }
            thread::sleep(wait.min(NAP));
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.state().seen
    }

    pub(crate) fn since_last_look(&self) -> Duration {
        self.state().looked.elapsed()
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().stopped
    }

    /// Logs of a directory that cannot be compacted, and what of them is not.
    pub(crate) fn uncleanable(&self, directory: &Directory) -> (usize, u64) {
        let state = self.state();
        let here = state
            .uncleanable
            .iter()
            .filter(|(place, _)| place.directory == directory.path());
        here.fold((0, 0), |(count, sum), (_, bytes)| (count + 1, sum + bytes))
    }
}

impl Job {
    /// The log is deleted, or about to be somewhere else.
    fn is_off(&self, broker: &Broker) -> bool {
        let moving = broker.partitions().relocations();
        self.home.log.name() != self.place.name
            || moving
                .iter()
                .any(|moving| Arc::ptr_eq(moving.partition(), &self.partition))
    }
}

/// Memory is for all threads together.
fn settings(config: &Config) -> Settings {
    let threads = config.log_cleaner_threads.max(1);
    Settings {
        map_bytes: config.log_cleaner_dedupe_buffer_size / threads as u64,
        map_load_factor: config.log_cleaner_io_buffer_load_factor,
        // One to read into and one to write from.
        buffer_bytes: config.log_cleaner_io_buffer_size / threads / 2,
        decompressed_max: DECOMPRESSED_MAX,
    }
}
