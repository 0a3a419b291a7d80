//! A log against a model of it: a list of batches.
//!
//! Each seed is one life of a log: random appends of plain, idempotent and transactional producers and of a
//! leader to its follower, reads at random, look-ups by time, deletions, truncations, retention, compaction,
//! clean stops and kills. After each step the log tells what the list tells. A failure prints its seed:
//! `MODEL_SEED=n cargo test -p sordini-storage --test model` repeats it, and `MODEL_SEEDS=n` runs as many.
//!
//! What a failing disk does to a log is another test's matter: `crash.rs`.

mod common;
#[path = "common/faulty.rs"]
mod faulty;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use common::{NOW, identity, marker, whole_batches};
use faulty::{FaultyDisk, Random};
use protocol::{
    batch::{Batch, Builder, Header},
    compression::Compression,
};
use storage::{
    aborted::Aborted,
    compaction::{Flow, Settings},
    config::Config,
    directory::Directory,
    disk::Mode,
    error::Error,
    log::{Log, Shutdown},
    producers::Origin,
};

#[test]
fn a_log_is_a_list_of_batches() {
    let seeds = match std::env::var("MODEL_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..std::env::var("MODEL_SEEDS").map_or(250, |count| count.parse().unwrap()),
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| Life::new(seed).live());
        if let Err(panic) = result {
            eprintln!("MODEL_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

const ROOT: &str = "/data";
const NAME: &str = "orders-0";
const DELETE_RETENTION_MS: i64 = 40;
const RETENTION_MS: i64 = 150;
const RETENTION_BYTES: i64 = 6000;

const SETTINGS: Settings = Settings {
    map_bytes: 1 << 16,
    map_load_factor: 0.9,
    buffer_bytes: 700,
    decompressed_max: 1 << 20,
};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rec {
    offset: i64,
    timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
}

/// A batch as it must be read back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    header: Header,
    bytes: Bytes,
    records: Vec<Rec>,
}

impl Entry {
    fn of(batch: &Batch) -> Entry {
        let records = batch.records(1 << 20).unwrap().map(|record| {
            let record = record.unwrap();
            Rec {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key,
                value: record.value,
            }
        });
        Entry {
            header: *batch.header(),
            bytes: batch.bytes().clone(),
            records: records.collect(),
        }
    }

    /// What the log makes of a batch that is appended.
    fn stored(batch: &Batch, base_offset: i64, leader_epoch: i32) -> Entry {
        let mut bytes = batch.bytes().to_vec();
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        Entry::of(&Batch::parse(bytes.into()).unwrap())
    }

    fn last(&self) -> i64 {
        self.header.last_offset()
    }
}

/// A batch of a producer, or a marker that ended its transaction. Remembered when the batch is gone.
#[derive(Debug, Clone)]
struct Written {
    header: Header,
    batch: Batch,
    commit: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Transaction {
    producer: i64,
    first: i64,
    /// The offset of its marker, and what that says.
    end: Option<(i64, bool)>,
}

fn transactions<'a>(written: impl Iterator<Item = &'a Written>) -> Vec<Transaction> {
    let mut all: Vec<Transaction> = Vec::new();
    for Written { header, commit, .. } in written {
        let open = all
            .iter_mut()
            .find(|it| it.producer == header.producer_id && it.end.is_none());
        match (open, commit) {
            (Some(open), Some(commit)) => open.end = Some((header.base_offset, *commit)),
            (None, None) if header.is_transactional() => all.push(Transaction {
                producer: header.producer_id,
                first: header.base_offset,
                end: None,
            }),
            _ => (),
        }
    }
    all
}

/// Of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    epoch: i16,
    /// Where its open transaction begins.
    open: Option<i64>,
    /// Sequence and offset of its last record.
    last: Option<(i32, i64)>,
}

fn known<'a>(written: impl Iterator<Item = &'a Written> + Clone) -> BTreeMap<i64, Known> {
    let mut all = BTreeMap::new();
    for Written { header, commit, .. } in written.clone() {
        let known = all.entry(header.producer_id).or_insert(Known {
            epoch: header.producer_epoch,
            open: None,
            last: None,
        });
        known.epoch = header.producer_epoch;
        if commit.is_none() {
            known.last = Some((header.last_sequence(), header.last_offset()));
        }
    }
    for open in transactions(written).iter().filter(|it| it.end.is_none()) {
        all.entry(open.producer)
            .and_modify(|known| known.open = Some(open.first));
    }
    all
}

struct Life {
    seed: u64,
    random: Random,
    disk: FaultyDisk,
    config: Config,
    clock: i64,
    leader_epoch: i32,
    high_watermark: i64,
    /// Ascending; those below `start` as long as their segment is there.
    entries: Vec<Entry>,
    start: i64,
    end: i64,
    /// The highest it has been.
    deleted_to: i64,
    /// The start offset that a kill leaves.
    checkpointed_start: i64,
    written: Vec<Written>,
    /// What was written below is not known of producers any more.
    known_from: i64,
    /// Leader epochs and where they begin.
    epochs: Vec<(i32, i64)>,
    /// Markers below may count as known to all: a log that was opened or cut off has lost sight of them.
    settled: i64,
}

type Opened = (Directory, Arc<Log>);

impl Life {
    fn new(seed: u64) -> Life {
        let mut random = Random::new(seed);
        let delete = random.chance(60);
        let compact = !delete || random.chance(30);
        let either = |random: &mut Random, value| if random.chance(70) { value } else { -1 };
        let config = Config {
            segment_bytes: 700 + u32::try_from(random.below(2000)).unwrap(),
            index_interval_bytes: 1 + u32::try_from(random.below(600)).unwrap(),
            segment_ms: if random.chance(30) { 40 } else { i64::MAX },
            retention_ms: either(&mut random, RETENTION_MS),
            retention_bytes: either(&mut random, RETENTION_BYTES),
            delete_retention_ms: DELETE_RETENTION_MS,
            file_delete_delay_ms: 10,
            min_cleanable_dirty_ratio: 0.0,
            delete,
            compact,
            ..Config::default()
        };
        Life {
            seed,
            disk: FaultyDisk::new(seed, Path::new(ROOT)),
            random,
            config,
            clock: NOW,
            leader_epoch: 0,
            high_watermark: 0,
            entries: Vec::new(),
            start: 0,
            end: 0,
            deleted_to: 0,
            checkpointed_start: 0,
            written: Vec::new(),
            known_from: 0,
            epochs: Vec::new(),
            settled: 0,
        }
    }

    fn live(mut self) {
        let mut opened = self.open(Shutdown::PowerLost);
        for _ in 0..60 + self.random.below(120) {
            self.clock += i64::try_from(self.random.below(4)).unwrap();
            let (directory, log) = &opened;
            let step = self.random.below(100);
            if std::env::var_os("MODEL_SEED").is_some() {
                eprintln!(
                    "step {step}, at {}, {}..{}",
                    self.clock - NOW,
                    self.start,
                    self.end
                );
            }
            match step {
                0..50 => self.append(log),
                50..58 => self.refused(log),
                58..64 => self.assigned(log),
                64..74 => self.advance(),
                74..77 => assert_eq!(log.flush().unwrap(), self.end),
                77..79 => self.truncate(log),
                79..82 => self.delete_records(directory, log),
                82..87 => self.retain(log),
                87..93 => self.compact(directory, log),
                93..95 => self.leader_epoch += 1,
                95..97 => opened = self.close(opened),
                97..99 => opened = self.kill(opened),
                _ => self.scan(log),
            }
            self.check(&opened.1);
        }
        let opened = self.close(opened);
        self.scan(&opened.1);
        let opened = self.kill(opened);
        self.scan(&opened.1);
    }

    fn open(&mut self, expected: Shutdown) -> Opened {
        let root = Path::new(ROOT);
        let directory =
            Directory::open(self.disk.disk(), root, &identity(), 8, self.clock).unwrap();
        assert_eq!(directory.shutdown(), expected);
        let log = directory
            .open_log(NAME, self.config.clone(), self.clock)
            .unwrap();
        (directory, log)
    }

    fn close(&mut self, (directory, log): Opened) -> Opened {
        directory.close(1).unwrap();
        drop((directory, log));
        self.checkpointed_start = self.start;
        self.after_restart(Shutdown::Clean)
    }

    fn kill(&mut self, opened: Opened) -> Opened {
        drop(opened);
        self.disk.restart();
        self.after_restart(Shutdown::Killed)
    }

    fn after_restart(&mut self, shutdown: Shutdown) -> Opened {
        // A log that was cut off inside of a hole has forgotten the hole, as Kafka's has.
        let last = self.entries.last().map_or(0, |it| it.header.next_offset());
        let newest = self.segments().last().map_or(0, |(base, _)| *base);
        self.end = last.max(newest);
        self.high_watermark = self.high_watermark.min(self.end);
        let opened = self.open(shutdown);
        let start = opened.1.start_offset();
        assert!(
            (self.checkpointed_start..=self.start).contains(&start),
            "{shutdown:?}: starts at {start}, not {}..={}",
            self.checkpointed_start,
            self.start
        );
        self.start = start;
        // Those that a deletion had passed are found in the batches again.
        let known = std::mem::take(&mut self.epochs);
        let first_known = known.first().map_or(self.end, |(_, first)| *first);
        let again = self.entries.iter().filter(|it| it.last() >= start);
        let again = again.map(|it| (it.header.leader_epoch, it.header.base_offset.max(start)));
        let again = again.filter(|(_, first)| *first < first_known);
        for (epoch, first) in again.chain(known) {
            if self.epochs.last().map(|(last, _)| *last) != Some(epoch) && first < self.end {
                self.epochs.push((epoch, first));
            }
        }
        if self.start == self.end {
            // Whether the last epoch is known of an empty log depends on whether its files are empty too.
            let latest = self
                .entries
                .last()
                .map(|it| (it.header.leader_epoch, self.end));
            self.epochs = opened.1.epochs();
            assert!(self.epochs.iter().all(|epoch| Some(*epoch) == latest));
        }
        self.settled = self.end;
        self.scan(&opened.1);
        self.check_producers(&opened.1);
        opened
    }

    // What is done to both.

    fn batch(&mut self, mut builder: Builder) -> Batch {
        let codec = Compression::ALL[usize::try_from(self.seed % 5).unwrap()];
        builder = builder.compression(codec, None);
        for _ in 0..=self.random.below(3) {
            // Times come as producers' clocks have them.
            let timestamp = self.clock + i64::try_from(self.random.below(30)).unwrap() - 15;
            let key = format!("key-{}", self.random.below(12));
            let size = usize::try_from(self.random.below(120)).unwrap();
            let value = vec![u8::try_from(self.random.below(256)).unwrap(); size];
            let value = self.random.chance(75).then_some(value);
            builder.push(timestamp, Some(key.as_bytes()), value.as_deref(), &[]);
        }
        builder.build().unwrap()
    }

    fn append(&mut self, log: &Log) {
        let producer = i64::try_from(self.random.below(5)).unwrap() - 1;
        let (batch, commit) = if producer < 0 {
            (self.batch(Builder::new()), None)
        } else {
            let last = self.last_of(producer);
            let open = self.is_open(producer);
            let (epoch, next) = match last.map(|last| last.header) {
                Some(last) if open || !self.random.chance(5) => {
                    (last.producer_epoch, last.last_sequence() + 1)
                }
                Some(last) => (last.producer_epoch + 1, 0),
                None => (0, 0),
            };
            if open && self.random.chance(40) {
                let commit = self.random.chance(50);
                (marker(producer, epoch, 0, commit), Some(commit))
            } else {
                let mut builder = Builder::new().producer(producer, epoch, next);
                if open || self.random.chance(50) {
                    builder = builder.transactional();
                }
                (self.batch(builder), None)
            }
        };
        let origin = match commit {
            Some(_) => Origin::Coordinator {
                transaction_version: 0,
            },
            None => Origin::Client,
        };
        let appended = log
            .append_from(&batch, self.leader_epoch, origin, self.clock)
            .unwrap();
        assert_eq!(appended.duplicate, None);
        assert_eq!(appended.base_offset, self.end);
        assert_eq!(appended.log_start_offset, self.start);
        self.push(&batch, self.end, commit);
        assert_eq!(appended.last_offset, self.end - 1);
    }

    fn push(&mut self, batch: &Batch, base_offset: i64, commit: Option<bool>) {
        let entry = Entry::stored(batch, base_offset, self.leader_epoch);
        if self.epochs.last().map(|(epoch, _)| *epoch) != Some(self.leader_epoch) {
            // One that had nothing to its name is forgotten.
            self.epochs.retain(|(_, first)| *first < base_offset);
            self.epochs.push((self.leader_epoch, base_offset));
        }
        self.end = entry.header.next_offset();
        if entry.header.has_producer() {
            self.written.push(Written {
                header: entry.header,
                batch: batch.clone(),
                commit,
            });
        }
        self.entries.push(entry);
    }

    /// What producers send and must not be appended: retries, gaps, zombies.
    fn refused(&mut self, log: &Log) {
        let producer = i64::try_from(self.random.below(4)).unwrap();
        let Some(last) = self.last_of(producer).cloned() else {
            return;
        };
        let header = last.header;
        let sent = |batch: &Batch| log.append(batch, self.leader_epoch, self.clock);
        let again = sent(&last.batch).unwrap();
        // Its time is not in a snapshot, which has only that of the producer's last sign of life.
        assert!(again.duplicate.is_some());
        assert_eq!(
            (again.base_offset, again.last_offset),
            (header.base_offset, header.last_offset())
        );
        let (epoch, next) = (header.producer_epoch, header.last_sequence() + 1);
        let of = |epoch, sequence| {
            let mut builder = Builder::new().producer(producer, epoch, sequence);
            builder.push(self.clock, None, None, &[]);
            builder
        };
        let gap = sent(&of(epoch, next + 7).build().unwrap());
        assert!(
            matches!(gap, Err(Error::OutOfOrderSequence { .. })),
            "{gap:?}"
        );
        if epoch > 0 {
            let zombie = sent(&of(epoch - 1, 0).build().unwrap());
            assert!(
                matches!(zombie, Err(Error::InvalidProducerEpoch { .. })),
                "{zombie:?}"
            );
        }
        if self.is_open(producer) {
            let outside = sent(&of(epoch, next).build().unwrap());
            assert!(
                matches!(outside, Err(Error::InvalidTxnState { .. })),
                "{outside:?}"
            );
        }
    }

    /// As a follower, of a leader whose log has holes.
    fn assigned(&mut self, log: &Log) {
        let mut next = self.end + i64::try_from(self.random.below(4)).unwrap();
        let mut batches = Vec::new();
        for _ in 0..=self.random.below(4) {
            let batch = self.batch(Builder::new());
            let entry = Entry::stored(&batch, next, self.leader_epoch);
            batches.push(Batch::parse(entry.bytes).unwrap());
            next = entry.header.next_offset() + i64::try_from(self.random.below(3)).unwrap();
        }
        if let Some(below) = self.end.checked_sub(1).filter(|below| *below >= 0) {
            let entry = Entry::stored(&batches[0], below, self.leader_epoch);
            let wrong = log.append_assigned(&[Batch::parse(entry.bytes).unwrap()], self.clock);
            assert!(
                matches!(wrong, Err(Error::UnexpectedOffset { .. })),
                "{wrong:?}"
            );
        }
        let appended = log.append_assigned(&batches, self.clock).unwrap();
        assert_eq!(appended.base_offset, batches[0].header().base_offset);
        for batch in batches {
            self.push(&batch, batch.header().base_offset, None);
        }
        assert_eq!(appended.last_offset, self.end - 1);
    }

    /// The high watermark moves to the end of some batch.
    fn advance(&mut self) {
        let above = self
            .entries
            .iter()
            .map(|entry| entry.header.next_offset())
            .filter(|end| *end > self.high_watermark);
        let above: Vec<i64> = above.collect();
        if let Some(at) = usize::try_from(self.random.below(above.len() as u64 + 3))
            .unwrap()
            .checked_sub(3)
        {
            self.high_watermark = above[at];
        } else {
            self.high_watermark = self.end;
        }
    }

    fn truncate(&mut self, log: &Log) {
        let floor = self.high_watermark.max(self.start);
        let to = self.between(floor, self.end + 3);
        let got = log.truncate(to, self.clock).unwrap();
        if to >= self.end {
            assert_eq!(got, self.end);
            return;
        }
        let cut = self.entries.iter().find(|entry| entry.last() >= to);
        let mut end = cut.map_or(to, |entry| entry.header.base_offset.min(to));
        if end <= self.start {
            // Nothing is left, and the log begins anew.
            if end < self.start {
                end = to;
            }
            self.entries.clear();
            self.written.clear();
            self.epochs.clear();
            self.start = end;
            self.deleted_to = 0;
            self.checkpointed_start = end;
        }
        assert_eq!(got, end, "truncated to {to}");
        self.entries.retain(|entry| entry.last() < end);
        self.written.retain(|it| it.header.last_offset() < end);
        self.epochs.retain(|(_, first)| *first < end);
        self.end = end;
        self.settled = end;
        self.high_watermark = self.high_watermark.min(end);
        self.check_producers(log);
    }

    fn delete_records(&mut self, directory: &Directory, log: &Log) {
        let before = self.between(self.start, self.high_watermark.max(self.start));
        assert_eq!(log.delete_records(before).unwrap(), before);
        self.move_start(before);
        if self.random.chance(50) {
            directory.checkpoint().unwrap();
            self.checkpointed_start = self.start;
        }
    }

    fn move_start(&mut self, start: i64) {
        if start <= self.start {
            return;
        }
        self.start = start;
        self.deleted_to = self.deleted_to.max(start);
        let passed = self
            .epochs
            .partition_point(|(_, first)| *first <= self.start);
        if let Some(at) = passed.checked_sub(1) {
            self.epochs.drain(..at);
            self.epochs[0].1 = self.start;
        }
    }

    fn retain(&mut self, log: &Log) {
        let segments = self.segments();
        let mut surplus = segments.iter().map(|(_, size)| *size).sum::<u64>();
        surplus = match u64::try_from(self.config.retention_bytes) {
            Ok(keep) if self.config.delete => surplus.saturating_sub(keep),
            _ => 0,
        };
        let mut gone = 0;
        let mut start = self.start;
        for (at, (base, size)) in segments.iter().enumerate() {
            let next = segments.get(at + 1).map(|(base, _)| *base);
            let (active, end) = (next.is_none(), next.unwrap_or(self.end));
            if end > self.high_watermark || (active && *size == 0) {
                break;
            }
            let inside = |entry: &&Entry| (*base..end).contains(&entry.header.base_offset);
            let times = self.entries.iter().filter(inside);
            let newest = times.map(|entry| entry.header.max_timestamp).max();
            let old = newest.is_none_or(|newest| self.clock - newest > self.config.retention_ms);
            let expired = self.config.delete && self.config.retention_ms >= 0 && old;
            let oversized = *size > 0 && *size <= surplus;
            if !(oversized || expired || (!active && end <= self.start)) {
                break;
            }
            if oversized {
                surplus -= size;
            }
            gone += 1;
            start = start.max(end);
        }
        let deleted = log.retain(self.high_watermark, self.clock).unwrap();
        assert_eq!(deleted, gone, "of {segments:?}");
        if gone > 0 {
            self.move_start(start);
            let left = self.segments();
            match segments.get(gone) {
                Some((first, _)) => assert_eq!(left[0].0, *first),
                None => assert_eq!(left, [(self.end, 0)]),
            }
            let first = left[0].0;
            self.entries.retain(|entry| entry.last() >= first);
            self.checkpointed_start = self.checkpointed_start.max(first);
        }
    }

    fn compact(&mut self, directory: &Directory, log: &Log) {
        if !self.config.compact {
            return;
        }
        let cleaned = directory.cleaned_offset(NAME);
        let dirty = log.dirty(cleaned, self.high_watermark, self.clock).unwrap();
        if !dirty.is_due(0.0) {
            return;
        }
        let done = log
            .compact(&dirty, &SETTINGS, self.clock, &mut |_| Flow::Continue)
            .unwrap();
        let Some(cleaned) = done.cleaned else {
            return;
        };
        assert_eq!(directory.cleaned_offset(NAME), Some(cleaned));
        let left = self.on_disk();
        self.check_compacted(&left, cleaned);
        self.entries = left;
    }

    // What is known.

    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.random.below(u64::try_from(to - from + 1).unwrap())).unwrap()
    }

    /// The last batch of records of a producer.
    fn last_of(&self, producer: i64) -> Option<&Written> {
        let of = |it: &&Written| it.header.producer_id == producer && it.commit.is_none();
        self.written_from(self.known_from).rfind(of)
    }

    fn written_from(&self, from: i64) -> impl DoubleEndedIterator<Item = &Written> + Clone {
        let is_known = move |it: &&Written| it.header.last_offset() >= from;
        self.written.iter().filter(is_known)
    }

    fn is_open(&self, producer: i64) -> bool {
        let open = |it: &Transaction| it.producer == producer && it.end.is_none();
        self.transactions().iter().any(open)
    }

    fn transactions(&self) -> Vec<Transaction> {
        transactions(self.written_from(self.known_from))
    }

    /// Base offsets and sizes, from the files.
    fn segments(&self) -> Vec<(i64, u64)> {
        let dir = Path::new(ROOT).join(NAME);
        let disk = self.disk.disk();
        let names = disk.list(&dir).unwrap().into_iter().map(|entry| entry.name);
        let mut segments: Vec<_> = names
            .filter_map(|name| {
                let base = name.strip_suffix(".log")?.parse().ok()?;
                Some((base, disk.size(&dir.join(name)).unwrap()))
            })
            .collect();
        segments.sort_unstable();
        segments
    }

    // What is compared.

    fn check(&mut self, log: &Log) {
        assert_eq!(
            (log.start_offset(), log.end_offset()),
            (self.start, self.end)
        );
        let bytes: usize = self.entries.iter().map(|entry| entry.bytes.len()).sum();
        assert_eq!(log.size(), bytes as u64);
        let stable = self.check_stable(log);
        for _ in 0..3 {
            self.check_read(log, stable);
        }
        self.check_time(log);
        self.check_epochs(log);
        self.check_aborted(log);
    }

    /// All as it is read from the start on.
    fn scan(&self, log: &Log) {
        let mut next = self.start;
        let mut expected = self.entries.iter().filter(|it| it.last() >= self.start);
        while next < self.end {
            let slice = log.read(next, 1000, true, self.end).unwrap();
            let batches = whole_batches(slice.read().unwrap());
            let Some(last) = batches.last() else {
                break;
            };
            next = last.header().next_offset();
            for batch in &batches {
                assert_eq!(Some(&Entry::of(batch)), expected.next());
            }
        }
        assert_eq!(expected.next(), None);
    }

    /// All that the files hold, below the start too.
    fn on_disk(&self) -> Vec<Entry> {
        let disk = self.disk.disk();
        let mut found = Vec::new();
        for (base, size) in self.segments() {
            let path = Path::new(ROOT).join(NAME).join(format!("{base:020}.log"));
            let mut bytes = vec![0; usize::try_from(size).unwrap()];
            let file = disk.open(&path, Mode::Open).unwrap();
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
            found.extend(whole_batches(bytes.into()).iter().map(Entry::of));
        }
        found
    }

    fn check_read(&mut self, log: &Log, stable: i64) {
        let offset = self.between((self.start - 3).max(0), self.end + 2);
        let max = usize::try_from(self.random.below(1500)).unwrap();
        let min_one = self.random.chance(50);
        let end = match self.random.below(3) {
            0 => self.end,
            1 => self.high_watermark,
            _ => stable,
        };
        let slice = match log.read(offset, max, min_one, end) {
            Ok(slice) => slice,
            Err(Error::OffsetOutOfRange { .. }) => {
                assert!(offset < self.start || offset > self.end, "{offset}");
                return;
            }
            Err(err) => panic!("{err}"),
        };
        assert!((self.start..=self.end).contains(&offset), "{offset}");
        let found = slice.read().unwrap();
        assert_eq!(found.len(), slice.size());
        let readable = self.entries.iter().filter(|it| it.last() >= offset);
        let readable: Vec<&Entry> = readable.take_while(|it| it.last() < end).collect();
        let mut rest = &found[..];
        for entry in &readable {
            let (one, more) = rest.split_at(entry.bytes.len().min(rest.len()));
            if !entry.bytes.starts_with(one) {
                break;
            }
            rest = more;
        }
        let what = format!("{max} bytes at {offset}, below {end}, at least one: {min_one}");
        if !rest.is_empty() {
            let batches = whole_batches(found).into_iter().map(|it| *it.header());
            let batches: Vec<_> = batches.collect();
            let readable: Vec<_> = readable.iter().map(|it| it.header).collect();
            panic!("{what}: {batches:#?}, not {readable:#?}");
        }
        let first = readable.first().map_or(0, |first| first.bytes.len());
        let least = if first <= max || min_one { first } else { 0 };
        assert!(found.len() >= least, "{what}: {}", found.len());
        assert!(found.len() <= max.max(least), "{what}: {}", found.len());
    }

    fn check_time(&mut self, log: &Log) {
        let timestamp = self.between(self.clock - 150, self.clock + 20);
        let found = log.offset_for_timestamp(timestamp).unwrap();
        let mut records = self.entries.iter().flat_map(|entry| {
            let epoch = entry.header.leader_epoch;
            entry.records.iter().map(move |record| (record, epoch))
        });
        let expected = records.find(|(it, _)| it.offset >= self.start && it.timestamp >= timestamp);
        assert_eq!(
            found.map(|it| (it.offset, it.timestamp, it.leader_epoch)),
            expected.map(|(it, epoch)| (it.offset, it.timestamp, Some(epoch))),
            "the first at {timestamp}"
        );
        // What compaction has emptied still has its time, and nothing to point at.
        let newest = self.entries.iter().map(|it| it.header.max_timestamp).max();
        let of = |it: &&Entry| Some(it.header.max_timestamp) == newest;
        let first = self.entries.iter().find(of);
        if let Some(first) = first.filter(|first| !first.records.is_empty()) {
            let found = log.offset_of_max_timestamp().unwrap().unwrap();
            let record = first.records.iter().find(|it| Some(it.timestamp) == newest);
            assert_eq!(Some(found.offset), record.map(|it| it.offset), "the newest");
        }
    }

    fn check_epochs(&mut self, log: &Log) {
        assert_eq!(log.epochs(), self.epochs);
        let Some(latest) = self.epochs.last().map(|(epoch, _)| *epoch) else {
            return;
        };
        let epoch = i32::try_from(self.between(0, i64::from(latest) + 1)).unwrap();
        let floor = self.epochs.iter().rfind(|(it, _)| *it <= epoch);
        let above = self.epochs.iter().find(|(it, _)| *it > epoch);
        let expected = match (floor, above) {
            _ if epoch > latest => (-1, -1),
            (Some((floor, _)), above) => (*floor, above.map_or(self.end, |(_, first)| *first)),
            (None, Some((_, first))) => (epoch, *first),
            (None, None) => (-1, -1),
        };
        assert_eq!(log.end_offset_for_epoch(epoch), expected, "of {epoch}");
    }

    fn check_stable(&self, log: &Log) -> i64 {
        let found = log
            .last_stable_offset(self.high_watermark, self.clock)
            .unwrap();
        let transactions = self.transactions();
        let lowest = |undecided: &dyn Fn(&Transaction) -> bool| {
            let firsts = transactions.iter().filter(|it| undecided(it));
            let first = firsts.map(|it| it.first).min();
            first.map_or(self.high_watermark, |first| {
                first.max(self.start).min(self.high_watermark)
            })
        };
        let above = self.high_watermark;
        let certain = |it: &Transaction| {
            it.end
                .is_none_or(|(marker, _)| marker >= above.max(self.settled))
        };
        let possible = |it: &Transaction| it.end.is_none_or(|(marker, _)| marker >= above);
        assert!(
            (lowest(&possible)..=lowest(&certain)).contains(&found),
            "{found}, not {}..={} below {}, {transactions:?}",
            lowest(&possible),
            lowest(&certain),
            self.high_watermark
        );
        found
    }

    fn check_aborted(&mut self, log: &Log) {
        let from = self.between(self.start, self.end);
        let to = self.between(from, self.end);
        let found = log.aborted(from, to, self.clock).unwrap();
        let transactions = self.transactions();
        let aborted = |it: &Transaction| match it.end {
            Some((last, false)) => Some((it.producer, it.first, last)),
            _ => None,
        };
        let known: Vec<_> = transactions.iter().filter_map(aborted).collect();
        for it in &found {
            // Where it begins depends on what was below the start when the producers were loaded.
            let is_it = |(producer, _, last): &(i64, i64, i64)| {
                (*producer, *last) == (it.producer_id, it.last_offset)
            };
            let is_old = it.first_offset < self.deleted_to;
            assert!(
                is_old || known.iter().any(is_it),
                "{it:?} is none of {known:?}"
            );
        }
        let known = known.into_iter().filter(|it| it.1 >= self.deleted_to);
        for (producer, first, last) in known {
            let of = |it: &&Entry| {
                let header = &it.header;
                header.producer_id == producer
                    && (first..last).contains(&header.base_offset)
                    && header.base_offset < to
                    && it.last() >= from
                    && !it.records.is_empty()
            };
            if self.entries.iter().any(|it| of(&it)) {
                let is_it = |it: &Aborted| (it.producer_id, it.last_offset) == (producer, last);
                assert!(
                    found.iter().any(is_it),
                    "{producer} aborted {first}..{last}, not in {found:?} of {from}..{to}"
                );
            }
        }
    }

    /// What is known of producers when it has just been loaded: all, or if there was no snapshot any
    /// more, what the batches from the start on tell.
    fn check_producers(&mut self, log: &Log) {
        let found: BTreeMap<i64, _> = log.producers(self.clock).unwrap().into_iter().collect();
        let found: BTreeMap<i64, Known> = found
            .into_iter()
            .map(|(id, found)| {
                let last = found.batches.back();
                let known = Known {
                    epoch: found.epoch,
                    open: found.current_txn_first_offset,
                    last: last.map(|last| (last.last_sequence, last.last_offset)),
                };
                (id, known)
            })
            .collect();
        // By the snapshot: all, or what there was when it came to be that one had to begin at the start.
        let below = self.written.iter().map(|it| it.header.next_offset());
        let loaded_from = below
            .take_while(|end| *end <= self.deleted_to)
            .chain([0, self.known_from, self.start])
            .find(|from| found == known(self.written_from(*from)));
        let all = known(self.written.iter());
        self.known_from = loaded_from.unwrap_or_else(|| panic!("{found:?}, not {all:?}"));
    }

    /// What compaction up to `cleaned` has left is what it had to leave.
    fn check_compacted(&self, left: &[Entry], cleaned: i64) {
        let transactions = self.transactions();
        let fate = |entry: &Entry| {
            let header = &entry.header;
            let of = |it: &&Transaction| {
                it.producer == header.producer_id
                    && it.first <= header.base_offset
                    && it.end.is_none_or(|(last, _)| header.base_offset < last)
            };
            let transaction = header
                .is_transactional()
                .then(|| transactions.iter().find(of));
            match transaction.flatten() {
                Some(it) => it.end.map(|(_, commit)| commit),
                None => Some(true),
            }
        };
        let mut newest = BTreeMap::new();
        for entry in &self.entries {
            if entry.header.is_control() || fate(entry) != Some(true) {
                continue;
            }
            let below = entry.records.iter().filter(|it| it.offset < cleaned);
            newest.extend(below.map(|it| (it.key.clone(), it.offset)));
        }
        let mut kept = left.iter().peekable();
        for entry in &self.entries {
            let header = &entry.header;
            let same = |it: &&Entry| it.header.base_offset == header.base_offset;
            let now = kept.next_if(|it| same(it));
            if header.base_offset >= cleaned {
                assert_eq!(now, Some(entry), "above {cleaned} nothing changes");
                continue;
            }
            if let Some(now) = now {
                assert_eq!(now.last(), entry.last());
                assert_eq!(now.header.leader_epoch, header.leader_epoch);
                assert_eq!(now.header.producer_id, header.producer_id);
                assert_eq!(now.header.base_sequence, header.base_sequence);
            }
            let records = now.map_or(&[][..], |now| &now.records[..]);
            if header.is_control() {
                self.check_marker(left, entry, records);
                continue;
            }
            // What is below the start matters to nobody.
            let from = records.partition_point(|it| it.offset < self.start);
            let (below, records) = records.split_at(from);
            assert!(below.iter().all(|it| entry.records.contains(it)));
            let expired = header.delete_horizon().is_some_and(|at| at <= self.clock);
            let expected: Vec<Rec> = entry
                .records
                .iter()
                .filter(|it| it.offset >= self.start)
                .filter(|it| fate(entry) == Some(true) && newest[&it.key] == it.offset)
                .filter(|it| it.value.is_some() || !expired)
                .cloned()
                .collect();
            assert_eq!(records, expected, "of {header:?}");
            if let (Some(now), true) = (now, expected.iter().any(|it| it.value.is_none())) {
                let first = self.clock + DELETE_RETENTION_MS;
                let horizon = header.delete_horizon().unwrap_or(first);
                assert_eq!(now.header.delete_horizon(), Some(horizon));
            }
        }
        assert_eq!(kept.next(), None, "nothing comes from nowhere");
        for id in 0..4 {
            let last = self.last_of(id).map(|it| it.header.base_offset);
            let has = |all: &[Entry]| all.iter().any(|it| Some(it.header.base_offset) == last);
            assert_eq!(has(&self.entries), has(left), "the last batch of {id}");
        }
    }

    /// A marker stays while there are records of its transaction, and then for some time.
    fn check_marker(&self, left: &[Entry], marker: &Entry, records: &[Rec]) {
        if !records.is_empty() {
            assert_eq!(records, marker.records);
            return;
        }
        let header = &marker.header;
        let before = self.written.iter().rfind(|it| {
            it.header.producer_id == header.producer_id
                && it.commit.is_some()
                && it.header.base_offset < header.base_offset
        });
        let before = before.map_or(0, |it| it.header.base_offset);
        let of = |it: &&Entry| {
            it.header.producer_id == header.producer_id
                && it.header.is_transactional()
                && (before..header.base_offset).contains(&it.header.base_offset)
                && !it.header.is_control()
                && !it.records.is_empty()
        };
        assert_eq!(left.iter().find(of), None, "needs its marker");
        let expired = header.delete_horizon().is_some_and(|at| at <= self.clock);
        assert!(expired || marker.records.is_empty(), "{header:?}");
    }
}
