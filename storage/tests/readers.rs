//! Readers of a log that is appended to, rolled, cut at its start and compacted at the same time: each sees
//! all there is, in order, whole.

mod common;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
};

use common::{NOW, identity, whole_batches};
use protocol::batch::{Batch, Builder};
use storage::{
    compaction::{Flow, Settings},
    config::Config,
    directory::Directory,
    disk,
    error::Error,
    log::Log,
};

const NAME: &str = "orders-0";
const KEYS: i64 = 7;

const SETTINGS: Settings = Settings {
    map_bytes: 1 << 16,
    map_load_factor: 0.9,
    buffer_bytes: 1 << 12,
    decompressed_max: 1 << 20,
};

fn config() -> Config {
    Config {
        segment_bytes: 3000,
        index_interval_bytes: 300,
        min_cleanable_dirty_ratio: 0.0,
        retention_ms: -1,
        // Nobody waits here: who reads a file for long may still have it.
        file_delete_delay_ms: i64::MAX / 2,
        ..Config::default()
    }
}

/// A log under change, and what is known of it by who changes it.
struct Changing<'a> {
    log: &'a Log,
    /// Compaction has made holes below, or may be about to.
    holes_below: AtomicI64,
    ended: AtomicBool,
}

impl Changing<'_> {
    /// Reads from the start to the end, over and over, until the changes have ended and all is read.
    fn read_on(&self, max_bytes: usize) -> u64 {
        let mut batches = 0;
        loop {
            let ended = self.ended.load(Ordering::Acquire);
            let mut next = self.log.start_offset();
            while let Some(batch) = self.next_batches(&mut next, max_bytes) {
                batches += batch;
            }
            if ended {
                return batches;
            }
        }
    }

    /// Follows the end.
    fn follow(&self, max_bytes: usize) -> u64 {
        let (mut batches, mut next) = (0, 0);
        loop {
            let ended = self.ended.load(Ordering::Acquire);
            while let Some(batch) = self.next_batches(&mut next, max_bytes) {
                batches += batch;
            }
            if ended {
                return batches;
            }
        }
    }

    /// How many batches there were at `next`, which moves behind them. `None` at the end.
    fn next_batches(&self, next: &mut i64, max_bytes: usize) -> Option<u64> {
        let end = self.log.end_offset();
        if *next >= end {
            return None;
        }
        let slice = match self.log.read(*next, max_bytes, true, end) {
            Ok(slice) => slice,
            Err(Error::OffsetOutOfRange { start, .. }) => {
                assert!(*next < start, "{next} is not below {start}");
                *next = start;
                return Some(0);
            }
            Err(err) => panic!("{err}"),
        };
        let bytes = match slice.read() {
            Ok(bytes) => bytes,
            // Compacted twice since it was found: it can be found again.
            Err(Error::Gone { .. }) if self.holes_below.load(Ordering::Acquire) > *next => {
                return Some(0);
            }
            Err(err) => panic!("{err}"),
        };
        // Which looks at each CRC.
        let batches = whole_batches(bytes);
        let holes_below = self.holes_below.load(Ordering::Acquire);
        for batch in &batches {
            let header = batch.header();
            assert!(header.last_offset() >= *next, "{next} again: {header:?}");
            let hole = *next..header.base_offset;
            assert!(
                hole.is_empty() || hole.end <= holes_below,
                "a hole {hole:?}, and none is to be from {holes_below} on"
            );
            check(batch);
            *next = header.next_offset();
        }
        if batches.is_empty() {
            // All up to the end of a moment ago has gone since.
            assert!(end <= holes_below, "nothing at {next} below {end}");
            *next = end;
        }
        Some(batches.len() as u64)
    }
}

/// Records that tell of themselves where they belong.
fn batch(first: i64, count: i64) -> Batch {
    let mut builder = Builder::new();
    for offset in first..first + count {
        let key = (offset % KEYS).to_be_bytes();
        builder.push(NOW + offset, Some(&key), Some(&offset.to_be_bytes()), &[]);
    }
    builder.build().unwrap()
}

fn check(batch: &Batch) {
    for record in batch.records(1 << 20).unwrap() {
        let record = record.unwrap();
        assert_eq!(
            record.value.as_deref(),
            Some(&record.offset.to_be_bytes()[..])
        );
        assert_eq!(record.timestamp, NOW + record.offset);
    }
}

/// Appends so many batches and calls `change` after each, with readers at work.
fn with_readers(config: Config, batches: i64, change: impl Fn(&Directory, &Changing<'_>, i64)) {
    let root = tempfile::tempdir().unwrap();
    // Few files at a time: they are opened again and again, under whatever name they have by then.
    let directory = open(root.path(), 4);
    let log = directory.open_log(NAME, config, NOW).unwrap();
    let changing = Changing {
        log: &log,
        holes_below: AtomicI64::new(0),
        ended: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let readers = [
            scope.spawn(|| changing.follow(500)),
            scope.spawn(|| changing.read_on(700)),
            scope.spawn(|| changing.read_on(100_000)),
        ];
        let ends = Ends(&changing.ended);
        for at in 0..batches {
            let batch = batch(log.end_offset(), 1 + at % 4);
            log.append(&batch, 0, NOW).unwrap();
            change(&directory, &changing, at);
        }
        drop(ends);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    assert!(!directory.is_offline());
}

fn open(root: &Path, files_max: usize) -> Directory {
    Directory::open(disk::real(), root, &identity(), files_max, NOW).unwrap()
}

/// Tells readers that nothing comes any more, in a panic too.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn of_a_log_that_grows() {
    with_readers(config(), 1500, |_, changing, at| {
        if at % 100 == 0 {
            changing.log.flush().unwrap();
        }
    });
}

#[test]
fn of_a_log_whose_oldest_segments_go() {
    let small = Config {
        retention_bytes: 12_000,
        ..config()
    };
    with_readers(small, 1000, |_, changing, at| {
        let log = changing.log;
        if at % 20 == 0 {
            log.retain(log.end_offset(), NOW).unwrap();
        }
        if at % 97 == 0 {
            let middle = i64::midpoint(log.start_offset(), log.end_offset());
            assert_eq!(log.delete_records(middle).unwrap(), middle);
        }
    });
}

#[test]
fn of_a_log_that_is_compacted() {
    let compacted = Config {
        delete: false,
        compact: true,
        ..config()
    };
    with_readers(compacted, 800, compact);
}

#[test]
fn of_a_log_that_is_compacted_and_whose_oldest_segments_go() {
    let both = Config {
        retention_bytes: 9000,
        compact: true,
        ..config()
    };
    with_readers(both, 800, |directory, changing, at| {
        compact(directory, changing, at);
        if at % 30 == 0 {
            let log = changing.log;
            log.retain(log.end_offset(), NOW).unwrap();
        }
    });
}

fn compact(directory: &Directory, changing: &Changing<'_>, at: i64) {
    if at % 50 != 49 {
        return;
    }
    let log = changing.log;
    let cleaned = directory.cleaned_offset(NAME);
    let dirty = log.dirty(cleaned, log.end_offset(), NOW).unwrap();
    changing.holes_below.fetch_max(dirty.end, Ordering::AcqRel);
    log.compact(&dirty, &SETTINGS, NOW, &mut |_| Flow::Continue)
        .unwrap();
}
