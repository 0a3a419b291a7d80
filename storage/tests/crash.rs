//! A log on a disk that fails: whatever happens, what was acknowledged as flushed is there, nothing
//! is there twice, offsets have no hole, and a producer's retry is recognised.
//!
//! Each seed is one life of a directory: random appends, flushes, rolls, truncations, deletions and
//! clean stops, a fault at a random system call, a restart or a power cut, a check, and on. A failure
//! prints its seed: `CRASH_SEED=n cargo test --release -p sordini-storage --test crash` repeats it,
//! and `CRASH_SEEDS=n` runs as many.

mod common;
#[path = "common/faulty.rs"]
mod faulty;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use common::{NOW, identity, marker, whole_batches};
use faulty::{Fault, FaultyDisk, Random};
use protocol::batch::{Batch, Builder, Header};
use storage::{
    config::Config,
    directory::Directory,
    error::Error,
    log::{Log, Shutdown},
    producers::Origin,
};

/// Seeds that have found something once.
const FOUND: &[u64] = &[
    91, 105, 238, 249, 312, 352, 664, 775, 1220, 1237, 1689, 1708, 3790,
];

#[test]
fn what_was_flushed_survives_whatever_happens() {
    let seeds: Vec<u64> = match std::env::var("CRASH_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => {
            let count = std::env::var("CRASH_SEEDS").map_or(1200, |count| count.parse().unwrap());
            FOUND.iter().copied().chain(0..count).collect()
        }
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| Life::new(seed).live());
        if let Err(panic) = result {
            eprintln!("CRASH_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// The kernel reports a page that it could not write once, and then takes it for written.
#[test]
fn after_a_failed_sync_the_page_cache_is_not_believed() {
    let root = Path::new(ROOT);
    let disk = FaultyDisk::new(1, root);
    let open = || Directory::open(disk.disk(), root, &identity(), 16, NOW).unwrap();
    let batch = common::batch(10, NOW);
    {
        let directory = open();
        let log = directory.open_log(LOGS[0], config(), NOW).unwrap();
        for _ in 0..5 {
            log.append(&batch, 0, NOW).unwrap();
        }
        directory.flush(&log, 50).unwrap();
        directory.checkpoint().unwrap();
        for _ in 0..20 {
            log.append(&batch, 0, NOW).unwrap();
        }
        disk.fail_in(0, Fault::SyncFails);
        assert!(directory.flush(&log, 250).is_err());
        assert!(directory.is_offline());
    }
    disk.restart();
    let directory = open();
    assert_eq!(directory.shutdown(), Shutdown::PowerLost);
    let log = directory.open_log(LOGS[0], config(), NOW).unwrap();
    let end = log.end_offset();
    assert!((50..250).contains(&end), "{end}");
    assert_eq!(common::offsets(&log, 0), (0..end).collect::<Vec<_>>());
    drop((log, directory));
    // Nobody has said that all was looked at.
    assert_eq!(open().shutdown(), Shutdown::PowerLost);
    let directory = open();
    directory.recovered().unwrap();
    drop(directory);
    assert_eq!(open().shutdown(), Shutdown::Killed);
}

const ROOT: &str = "/data";
const LOGS: [&str; 2] = ["orders-0", "orders-1"];

/// What a log must hold.
#[derive(Default)]
struct Model {
    /// Batches by base offset as they must be read back. The last ones may be missing after a
    /// power cut, those below `flushed` may not.
    batches: BTreeMap<i64, Bytes>,
    start: i64,
    flushed: i64,
    /// The start offset the disk is known to have.
    durable_start: i64,
    /// The append that was under way when the process died may have happened or not.
    maybe: Option<(i64, Bytes)>,
    /// A truncation was under way: anything from here on may be gone.
    cut: Option<i64>,
    /// What it would have cut off. It was not said to be done, and until the next flush a power cut
    /// may undo it.
    undone: BTreeMap<i64, Bytes>,
}

impl Model {
    fn end(&self) -> i64 {
        self.batches
            .values()
            .next_back()
            .map_or(self.start, |bytes| {
                Header::parse(bytes).unwrap().next_offset()
            })
            .max(self.start)
    }
}

struct Life {
    random: Random,
    disk: FaultyDisk,
    models: Vec<Model>,
    clock: i64,
}

impl Life {
    fn new(seed: u64) -> Life {
        Life {
            random: Random::new(seed),
            disk: FaultyDisk::new(seed, Path::new(ROOT)),
            models: LOGS.iter().map(|_| Model::default()).collect(),
            clock: NOW,
        }
    }

    fn live(mut self) {
        let rounds = 2 + self.random.below(5);
        let mut left = Left::Fresh;
        for _ in 0..rounds {
            let fault = match self.random.below(4) {
                0 => Fault::Full,
                1 => Fault::SyncFails,
                _ => Fault::Die,
            };
            let broken = self.random.chance(20);
            if let Some(opened) = self.open(left, broken) {
                self.disk.fail_in(1 + self.random.below(150), fault);
                let clean = self.act(&opened);
                left = self.end(opened, clean, fault);
            } else {
                left = Left::PowerLost;
                self.disk.lose_power();
            }
        }
        self.disk.restart();
        assert!(self.open(left, false).is_some(), "opens without a fault");
    }

    /// Opens all logs, perhaps with a fault on the way, and checks what they hold.
    fn open(&mut self, left: Left, broken: bool) -> Option<(Directory, Vec<Arc<Log>>)> {
        if broken {
            self.disk.fail_in(self.random.below(20), Fault::Die);
        }
        let opened = self.try_open();
        match opened {
            Ok((directory, logs)) => {
                if left == Left::Closed {
                    assert_eq!(directory.shutdown(), Shutdown::Clean);
                }
                self.disk.restart();
                for (at, log) in logs.iter().enumerate() {
                    self.check(at, log, left);
                }
                Some((directory, logs))
            }
            Err(err) => {
                assert!(
                    broken,
                    "cannot open: {err}: {:?}",
                    std::error::Error::source(&err)
                );
                // Dying while opening loses nothing either.
                None
            }
        }
    }

    fn try_open(&mut self) -> Result<(Directory, Vec<Arc<Log>>), Error> {
        let root = Path::new(ROOT);
        let directory = Directory::open(self.disk.disk(), root, &identity(), 16, NOW)?;
        let logs = LOGS
            .iter()
            .map(|name| directory.open_log(name, config(), self.clock))
            .collect::<Result<Vec<_>, _>>()?;
        directory.recovered()?;
        Ok((directory, logs))
    }

    /// Does things until one fails. True if the directory was closed at the end.
    fn act(&mut self, (directory, logs): &(Directory, Vec<Arc<Log>>)) -> bool {
        let steps = self.random.below(120);
        for _ in 0..steps {
            self.clock += 1;
            let at = usize::try_from(self.random.below(LOGS.len() as u64)).unwrap();
            let done = match self.random.below(100) {
                0..70 => self.append(at, &logs[at]),
                70..80 => self.flush(at, &logs[at]),
                80..84 => self.truncate(at, &logs[at]),
                84..88 => self.delete(at, directory, &logs[at]),
                88..92 => logs[at]
                    .retain(self.models[at].end(), self.clock)
                    .map(|_| ()),
                92..96 => directory.checkpoint(),
                _ => self.stable(at, &logs[at]),
            };
            if std::env::var_os("CRASH_SEED").is_some() {
                let model = &self.models[at];
                let (start, end) = (logs[at].start_offset(), logs[at].end_offset());
                eprintln!(
                    "{} log {start}..{end} model {}..{} {done:?}",
                    LOGS[at],
                    model.start,
                    model.end()
                );
            }
            if done.is_err() {
                for log in logs {
                    let after = log.append(&self.record(), 0, self.clock);
                    assert!(
                        matches!(after, Err(Error::Offline { .. })),
                        "goes on after {done:?}"
                    );
                }
                return false;
            }
        }
        if self.random.chance(50) && directory.close(1).is_ok() {
            for (model, log) in self.models.iter_mut().zip(logs) {
                model.flushed = log.end_offset();
                model.durable_start = model.start;
                model.undone.clear();
            }
            return true;
        }
        false
    }

    fn end(&mut self, opened: (Directory, Vec<Arc<Log>>), clean: bool, fault: Fault) -> Left {
        drop(opened);
        if self.random.chance(50) {
            self.disk.lose_power();
            if clean { Left::Closed } else { Left::PowerLost }
        } else if fault == Fault::SyncFails && self.disk.has_failed_to_sync() {
            // What could not be written is not in the page cache for long.
            self.disk.restart();
            Left::PowerLost
        } else {
            self.disk.restart();
            if clean { Left::Closed } else { Left::Killed }
        }
    }

    fn record(&mut self) -> Batch {
        let size = usize::try_from(self.random.below(300)).unwrap();
        let count = 1 + self.random.below(3);
        let mut builder = Builder::new();
        for _ in 0..count {
            builder.push(self.clock, None, Some(&vec![7; size]), &[]);
        }
        builder.build().unwrap()
    }

    /// A batch of a producer that continues what the log holds of it.
    fn produced(&mut self, log: &Log) -> Result<(Batch, Origin), Error> {
        let producer = i64::try_from(self.random.below(3)).unwrap();
        let known = log.producers(self.clock)?;
        let known = known.iter().find(|(id, _)| *id == producer);
        let open = known.is_some_and(|(_, known)| known.current_txn_first_offset.is_some());
        if open && self.random.chance(40) {
            let origin = Origin::Coordinator {
                transaction_version: 0,
            };
            let commit = self.random.chance(50);
            return Ok((marker(producer, 0, 0, commit), origin));
        }
        let next = known.map_or(0, |(_, known)| known.last_sequence() + 1);
        let transactional = open || self.random.chance(50);
        let mut builder = Builder::new().producer(producer, 0, next);
        if transactional {
            builder = builder.transactional();
        }
        for _ in 0..=self.random.below(3) {
            builder.push(self.clock, None, Some(b"produced"), &[]);
        }
        Ok((builder.build().unwrap(), Origin::Client))
    }

    fn append(&mut self, at: usize, log: &Log) -> Result<(), Error> {
        let (batch, origin) = if self.random.chance(50) {
            (self.record(), Origin::Client)
        } else {
            self.produced(log)?
        };
        let epoch = i32::try_from((self.clock - NOW) / 64).unwrap();
        let end = log.end_offset();
        assert_eq!(end, self.models[at].end());
        let mut stored = batch.bytes().to_vec();
        stored[..8].copy_from_slice(&end.to_be_bytes());
        stored[12..16].copy_from_slice(&epoch.to_be_bytes());
        let stored = Bytes::from(stored);
        match log.append_from(&batch, epoch, origin, self.clock) {
            Ok(appended) => {
                assert!(appended.duplicate.is_none());
                assert_eq!(appended.base_offset, end);
                self.models[at].batches.insert(end, stored);
                Ok(())
            }
            Err(err) => {
                self.models[at].maybe = Some((end, stored));
                Err(err)
            }
        }
    }

    fn flush(&mut self, at: usize, log: &Log) -> Result<(), Error> {
        let flushed = log.flush()?;
        let model = &mut self.models[at];
        assert_eq!(flushed, model.end());
        model.flushed = flushed;
        model.undone.clear();
        Ok(())
    }

    fn truncate(&mut self, at: usize, log: &Log) -> Result<(), Error> {
        let model = &mut self.models[at];
        let span = u64::try_from(model.end() - model.start).unwrap();
        let back = i64::try_from(self.random.below(span.min(20) + 1)).unwrap();
        let to = model.end() - back;
        model.cut = Some(to);
        let end = log.truncate(to, self.clock)?;
        model.cut = None;
        model
            .batches
            .retain(|_, bytes| Header::parse(bytes).unwrap().last_offset() < to);
        assert!(end <= to);
        if log.start_offset() == end {
            // Nothing was left, and the log begins anew.
            model.start = end;
            model.durable_start = end;
            model.batches.clear();
        }
        assert_eq!(end, model.end(), "truncated to {to}");
        model.flushed = model.flushed.min(end);
        Ok(())
    }

    fn delete(&mut self, at: usize, directory: &Directory, log: &Log) -> Result<(), Error> {
        let model = &mut self.models[at];
        let span = u64::try_from(model.end() - model.start).unwrap();
        let before = model.start + i64::try_from(self.random.below(span + 1)).unwrap();
        // As a broker does it: never above what is durable.
        let before = before.min(model.flushed);
        model.start = log.delete_records(before)?.max(model.start);
        model
            .batches
            .retain(|_, bytes| Header::parse(bytes).unwrap().last_offset() >= model.start);
        directory.checkpoint()?;
        model.durable_start = model.start;
        Ok(())
    }

    fn stable(&mut self, at: usize, log: &Log) -> Result<(), Error> {
        let end = self.models[at].end();
        let stable = log.last_stable_offset(end, self.clock)?;
        if self.models[at].start == 0 {
            assert_eq!(stable, self.first_open(at).unwrap_or(end));
        }
        Ok(())
    }

    /// Where the oldest open transaction begins, by the model's batches. Of no use once the start
    /// was deleted: one may have begun there.
    fn first_open(&self, at: usize) -> Option<i64> {
        let mut open = BTreeMap::new();
        for bytes in self.models[at].batches.values() {
            let header = Header::parse(bytes).unwrap();
            if header.is_control() {
                open.remove(&header.producer_id);
            } else if header.is_transactional() {
                open.entry(header.producer_id).or_insert(header.base_offset);
            }
        }
        open.values().min().copied()
    }

    /// The log holds what it must, and nothing else.
    fn check(&mut self, at: usize, log: &Log, left: Left) {
        let model = &mut self.models[at];
        let (start, end) = (log.start_offset(), log.end_offset());
        if std::env::var_os("CRASH_SEED").is_some() {
            eprintln!(
                "{} {left:?}: {start}..{end}, model {}..{} flushed {} cut {:?}",
                LOGS[at],
                model.start,
                model.end(),
                model.flushed,
                model.cut
            );
        }
        let mut floor = match left {
            Left::PowerLost => model.flushed,
            Left::Fresh => 0,
            Left::Closed | Left::Killed => model.end(),
        };
        if let Some(cut) = model.cut.take() {
            floor = floor.min(cut);
            model.undone = model.batches.clone();
            let straddles = |bytes: &&Bytes| {
                let header = Header::parse(bytes).unwrap();
                header.base_offset < cut && header.next_offset() > cut
            };
            if let Some(bytes) = model.batches.values().find(straddles) {
                floor = floor.min(Header::parse(bytes).unwrap().base_offset);
            }
        }
        assert!(
            end >= floor,
            "{left:?}: ends at {end}, {floor} was promised"
        );
        assert!(start >= model.durable_start.min(end) && start <= end);
        if let Some((offset, bytes)) = model.maybe.take()
            && (start..end).contains(&offset)
        {
            model.batches.insert(offset, bytes);
        }
        let undone_end = model.undone.values().next_back();
        let undone_end = undone_end.map_or(0, |bytes| Header::parse(bytes).unwrap().next_offset());
        assert!(
            end <= model.end().max(start).max(undone_end),
            "nothing was made up"
        );
        model
            .batches
            .retain(|_, bytes| Header::parse(bytes).unwrap().next_offset() <= end);

        let mut next = start;
        let mut read = BTreeMap::new();
        while next < end {
            let slice = log.read(next, 4096, true, end).unwrap();
            let batches = whole_batches(slice.read().unwrap());
            assert!(!batches.is_empty(), "nothing at {next}, the end is {end}");
            for batch in batches {
                let header = *batch.header();
                assert!(
                    header.base_offset <= next,
                    "a hole before {}",
                    header.base_offset
                );
                next = header.next_offset();
                read.insert(header.base_offset, batch.bytes().clone());
            }
        }
        assert_eq!(next, end);
        for (offset, bytes) in &model.batches {
            let found = read.get(offset);
            if Header::parse(bytes).unwrap().last_offset() >= start
                && (found.is_none() || found != model.undone.get(offset))
            {
                assert_eq!(found, Some(bytes), "at {offset}");
            }
        }
        if left == Left::PowerLost {
            model.undone.clear();
        }
        model.batches = read;
        model.start = start;
        model.flushed = model
            .flushed
            .min(end)
            .max(log.flushed_offset().min(model.flushed));
        let epochs = log.epochs();
        assert!(epochs.is_sorted(), "{epochs:?}");
        for bytes in model.batches.values() {
            let header = Header::parse(bytes).unwrap();
            let offset = header.base_offset.max(start);
            assert_eq!(
                log.epoch_at(offset),
                Some(header.leader_epoch),
                "{epochs:?}"
            );
        }
        self.retries(at, log);
        self.times(at, log);
    }

    /// The last batch of each producer is recognised when it comes again.
    fn retries(&mut self, at: usize, log: &Log) {
        let mut last = BTreeMap::new();
        for bytes in self.models[at].batches.values() {
            let batch = Batch::parse(bytes.clone()).unwrap();
            if batch.header().has_producer() && !batch.header().is_control() {
                last.insert(batch.header().producer_id, batch);
            }
        }
        for batch in last.into_values() {
            let again = log.append(&batch, 0, self.clock);
            let known = log.producers(self.clock).unwrap();
            let again = again.unwrap_or_else(|err| panic!("{err}: {known:?}"));
            assert!(again.duplicate.is_some());
            assert_eq!(again.base_offset, batch.header().base_offset);
        }
        // A transaction may have begun below the start offset: then nothing is said here.
        if self.models[at].start == 0 {
            let end = log.end_offset();
            let stable = log.last_stable_offset(end, self.clock).unwrap();
            assert_eq!(stable, self.first_open(at).unwrap_or(end));
            self.aborts(at, log);
        }
    }

    fn aborts(&self, at: usize, log: &Log) {
        let mut open = BTreeMap::new();
        let mut expected = Vec::new();
        for bytes in self.models[at].batches.values() {
            let batch = Batch::parse(bytes.clone()).unwrap();
            let header = *batch.header();
            if header.is_control() {
                let record = batch.records(1 << 16).unwrap().next().unwrap().unwrap();
                let first = open.remove(&header.producer_id);
                if let (Some(first), Some([0, 0, 0, 0])) = (first, record.key.as_deref()) {
                    expected.push((header.producer_id, first, header.base_offset));
                }
            } else if header.is_transactional() {
                open.entry(header.producer_id).or_insert(header.base_offset);
            }
        }
        let aborted = log.aborted(0, log.end_offset(), self.clock).unwrap();
        let found: Vec<_> = aborted
            .iter()
            .map(|aborted| {
                (
                    aborted.producer_id,
                    aborted.first_offset,
                    aborted.last_offset,
                )
            })
            .collect();
        assert_eq!(found, expected);
    }

    /// The time index finds what a look at all records finds.
    fn times(&mut self, at: usize, log: &Log) {
        let model = &self.models[at];
        let mut records = Vec::new();
        for bytes in model.batches.values() {
            let batch = Batch::parse(bytes.clone()).unwrap();
            for record in batch.records(1 << 16).unwrap() {
                let record = record.unwrap();
                if record.offset >= model.start {
                    records.push((record.timestamp, record.offset));
                }
            }
        }
        for _ in 0..3 {
            let span = u64::try_from(self.clock - NOW).unwrap() + 2;
            let timestamp = NOW + i64::try_from(self.random.below(span)).unwrap();
            let expected = records.iter().find(|(time, _)| *time >= timestamp);
            let found = log.offset_for_timestamp(timestamp).unwrap();
            let found = found.map(|found| (found.timestamp, found.offset));
            assert_eq!(found.as_ref(), expected, "for {}", timestamp - NOW);
        }
    }
}

/// How the last process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Fresh,
    Closed,
    Killed,
    PowerLost,
}

fn config() -> Config {
    Config {
        segment_bytes: 2000,
        index_interval_bytes: 200,
        retention_ms: -1,
        file_delete_delay_ms: 3,
        ..Config::default()
    }
}
