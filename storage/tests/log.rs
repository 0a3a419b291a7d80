//! A log and its directory from the outside, on a real disk: what was appended is read, before and
//! after reopening, and what retention, truncation and time ask for is what Kafka would do.

mod common;
#[path = "common/watched.rs"]
mod watched;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::{
    NOW, batch, directory, idempotent, identity, marker, offsets, small, transactional,
    whole_batches,
};
use protocol::batch::{Batch, Builder};
use storage::{
    aborted::Aborted,
    config::Config,
    directory::{Directory, State},
    disk,
    error::Error,
    log::{Log, Shutdown},
    producers::{Origin, Standing},
    properties::Identity,
};
use watched::{Call, watched};

#[test]
fn what_was_appended_is_read_before_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    {
        let directory = directory(dir.path());
        assert_eq!(directory.shutdown(), Shutdown::PowerLost, "nobody knows");
        let log = directory.open_log("orders-0", small(), NOW).unwrap();
        for at in 0..100 {
            let appended = log.append(&batch(3, NOW + at), 5, NOW).unwrap();
            assert_eq!(appended.base_offset, at * 3);
            assert_eq!(appended.last_offset, at * 3 + 2);
        }
        assert!(log.segment_count() > 1);
        assert_eq!(offsets(&log, 0), (0..300).collect::<Vec<_>>());
        assert_eq!(log.latest_epoch(), Some(5));
        directory.close(7).unwrap();
    }
    let directory = directory(dir.path());
    assert_eq!(directory.shutdown(), Shutdown::Clean);
    assert_eq!(directory.previous_broker_epoch(), Some(7));
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    assert_eq!((log.start_offset(), log.end_offset()), (0, 300));
    assert_eq!(log.flushed_offset(), 300);
    assert_eq!(log.epochs(), [(5, 0)]);
    assert_eq!(offsets(&log, 0), (0..300).collect::<Vec<_>>());
    assert_eq!(offsets(&log, 298), [297, 298, 299], "the whole batch");
    let next = log.append(&batch(1, NOW), 6, NOW).unwrap();
    assert_eq!(next.base_offset, 300);
    assert_eq!(log.end_offset_for_epoch(5), (5, 300));
}

#[test]
fn the_two_checkpoints_are_written_each_in_its_own_time() {
    let root = tempfile::tempdir().unwrap();
    let directory = directory(root.path());
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    log.append(&batch(10, NOW), 0, NOW).unwrap();
    log.delete_records(4).unwrap();
    directory.flush(&log, 10).unwrap();
    let written = |name: &str| {
        let text = std::fs::read_to_string(root.path().join(name)).unwrap_or_default();
        text.lines().skip(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let starts = || written("log-start-offset-checkpoint");
    let recovery_points = || written("recovery-point-offset-checkpoint");
    assert_eq!((starts(), recovery_points()), (vec![], vec![]));
    directory.checkpoint_start_offsets().unwrap();
    assert_eq!(starts(), ["orders 0 4"]);
    assert_eq!(recovery_points(), [""; 0]);
    directory.checkpoint_recovery_points().unwrap();
    assert_eq!(recovery_points(), ["orders 0 10"]);
}

/// A flush and an append that begins an epoch both replace the file of epochs.
#[test]
fn epochs_may_begin_while_others_flush() {
    let root = tempfile::tempdir().unwrap();
    let directory = directory(root.path());
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    let epochs = 300;
    std::thread::scope(|scope| {
        let flushing = scope.spawn(|| while log.flush().unwrap() < epochs {});
        for epoch in 0..epochs {
            let epoch = i32::try_from(epoch).unwrap();
            log.append(&batch(1, NOW), epoch, NOW).unwrap();
        }
        flushing.join().unwrap();
    });
    assert!(!directory.is_offline());
    let text = std::fs::read_to_string(root.path().join("orders-0/leader-epoch-checkpoint"));
    assert_eq!(text.unwrap().lines().last(), Some("299 299"));
}

#[test]
fn a_killed_broker_finds_all_it_wrote_but_a_torn_end() {
    let dir = tempfile::tempdir().unwrap();
    {
        let directory = directory(dir.path());
        let log = directory.open_log("orders-0", small(), NOW).unwrap();
        for at in 0..200 {
            log.append(&batch(3, NOW + at), 0, NOW).unwrap();
        }
    }
    let newest = files(&dir.path().join("orders-0"), ".log").pop().unwrap();
    let newest = dir.path().join("orders-0").join(newest);
    let size = std::fs::metadata(&newest).unwrap().len();
    let file = std::fs::File::options().write(true).open(&newest).unwrap();
    file.set_len(size - 5).unwrap();
    let directory = directory(dir.path());
    assert_eq!(directory.shutdown(), Shutdown::Killed);
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    assert_eq!(log.end_offset(), 597);
    assert_eq!(offsets(&log, 0), (0..597).collect::<Vec<_>>());
    log.append(&batch(3, NOW), 0, NOW).unwrap();
    assert_eq!(offsets(&log, 590), (588..600).collect::<Vec<_>>());
}

/// Kafka reserves ten megabytes for the indexes of a segment it writes to, and a metadata log is not
/// always trimmed when it stops.
#[test]
fn zeros_at_the_end_of_kafkas_indexes_are_no_entries() {
    let dir = tempfile::tempdir().unwrap();
    {
        let directory = directory(dir.path());
        let log = directory.open_log("orders-0", small(), NOW).unwrap();
        for at in 0..20 {
            log.append(&batch(1, NOW + at), 0, NOW).unwrap();
        }
        assert_eq!(log.segment_count(), 1);
        directory.close(7).unwrap();
    }
    for suffix in [".index", ".timeindex"] {
        let name = files(&dir.path().join("orders-0"), suffix).pop().unwrap();
        let file = std::fs::File::options()
            .write(true)
            .open(dir.path().join("orders-0").join(name))
            .unwrap();
        file.set_len(10 << 20).unwrap();
    }
    let directory = directory(dir.path());
    assert_eq!(directory.shutdown(), Shutdown::Clean);
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    log.append(&batch(1, NOW + 20), 0, NOW).unwrap();
    assert_eq!(log.segment_count(), 1, "the indexes are not full");
    assert_eq!(offsets(&log, 0), (0..21).collect::<Vec<_>>());
    let found = log.offset_for_timestamp(NOW + 20).unwrap().unwrap();
    assert_eq!(found.offset, 20);
}

#[test]
fn duplicates_are_answered_and_gaps_refused_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for start in ["fresh", "killed", "closed"] {
        let directory = directory(dir.path());
        let log = directory.open_log("orders-0", small(), NOW).unwrap();
        if start == "fresh" {
            for at in 0..7 {
                log.append(&idempotent(9, 0, at * 2, 2), 0, NOW).unwrap();
            }
            let again = log.append(&idempotent(9, 0, 8, 2), 0, NOW).unwrap();
            assert!(again.duplicate.is_some());
            assert_eq!((again.base_offset, again.last_offset), (8, 9));
            // Six batches ago is more than is remembered.
            let old = log.append(&idempotent(9, 0, 2, 2), 0, NOW).unwrap_err();
            let refused = matches!(
                old,
                Error::OutOfOrderSequence {
                    last: 13,
                    found: 2,
                    ..
                }
            );
            assert!(refused, "{old}");
        }
        let last = log.append(&idempotent(9, 0, 12, 2), 0, NOW).unwrap();
        assert!(last.duplicate.is_some(), "{start}");
        assert_eq!(last.base_offset, 12);
        let gap = log.append(&idempotent(9, 0, 15, 2), 0, NOW).unwrap_err();
        assert!(matches!(gap, Error::OutOfOrderSequence { .. }), "{gap}");
        assert_eq!(log.end_offset(), 14);
        if start == "killed" {
            directory.close(0).unwrap();
        }
    }
}

#[test]
fn an_open_transaction_holds_back_the_last_stable_offset() {
    let dir = tempfile::tempdir().unwrap();
    let directory = directory(dir.path());
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    let append = |batch: &Batch| log.append(batch, 0, NOW).unwrap();
    let end = |producer, commit| {
        let origin = Origin::Coordinator {
            transaction_version: 0,
        };
        let marker = marker(producer, 0, 0, commit);
        log.append_from(&marker, 0, origin, NOW).unwrap()
    };
    append(&batch(2, NOW));
    append(&transactional(1, 0, 2));
    append(&transactional(2, 0, 2));
    let stable = |high_watermark| log.last_stable_offset(high_watermark, NOW).unwrap();
    assert_eq!(stable(6), 2);
    end(2, true);
    assert_eq!(stable(7), 2);
    end(1, false);
    assert_eq!(stable(7), 2, "the abort is not below the high watermark");
    assert_eq!(stable(8), 8);
    let aborted = log.aborted(0, 8, NOW).unwrap();
    assert_eq!(aborted.len(), 1);
    assert_eq!((aborted[0].producer_id, aborted[0].first_offset), (1, 2));
    assert_eq!(
        (aborted[0].last_offset, aborted[0].last_stable_offset),
        (7, 8)
    );
    assert!(log.aborted(8, 9, NOW).unwrap().is_empty());
}

/// All of them up to the last stable offset make the answer larger than its records, and reading a log quadratic.
#[test]
fn a_read_names_the_aborted_transactions_within_it() {
    const COUNT: i64 = 600;
    let dir = tempfile::tempdir().unwrap();
    let directory = directory(dir.path());
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    let append = |batch| log.append(&batch, 0, NOW).unwrap();
    let end = |producer, commit| append(marker(producer, 0, 0, commit));
    // Ends in another segment than it begins in.
    append(transactional(7, 0, 1));
    for at in 0..COUNT {
        let sequence = i32::try_from(2 * at).unwrap();
        append(transactional(1, sequence, 2));
        end(1, at % 2 == 0);
        if at == COUNT / 2 {
            end(7, false);
        }
    }
    let stable = log.end_offset();
    assert_eq!(log.last_stable_offset(stable, NOW).unwrap(), stable);
    let all = log.aborted(0, stable, NOW).unwrap();
    assert_eq!(all.len(), 301);

    let (mut next, mut listed, mut reads) = (0, 0, 0);
    while next < stable {
        let (slice, aborted) = log.read_committed(next, 800, true, stable, NOW).unwrap();
        let from = next;
        for batch in whole_batches(slice.read().unwrap()) {
            next = batch.header().next_offset();
        }
        let matters = |it: &&Aborted| it.first_offset < next && from <= it.last_offset;
        for missing in all.iter().filter(matters) {
            assert!(aborted.contains(missing), "{missing:?} of {from}..{next}");
        }
        listed += aborted.len();
        reads += 1;
    }
    assert!(reads > 60, "{reads} reads");
    // The long one in half of them, the others once, and again where a read ends within an interval of the index.
    assert!(listed < 300 + reads * 6, "{listed} listed in {reads} reads");
    let (_, none) = log.read_committed(stable, 800, true, stable, NOW).unwrap();
    assert!(none.is_empty());
}

#[test]
fn the_last_stable_offset_is_never_below_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let directory = directory(dir.path());
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    log.append(&transactional(1, 0, 2), 0, NOW).unwrap();
    log.append(&batch(8, NOW), 0, NOW).unwrap();
    assert_eq!(log.last_stable_offset(10, NOW).unwrap(), 0);
    log.delete_records(5).unwrap();
    assert_eq!(log.last_stable_offset(10, NOW).unwrap(), 5);
}

/// What is said in the log of the broker, one line each: message and fields.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// `flush.ms` counts from the first record that is not on the disk yet.
#[test]
fn what_has_waited_for_flush_ms_is_due() {
    let dir = tempfile::tempdir().unwrap();
    let directory = directory(dir.path());
    let config = Config {
        flush_ms: 1000,
        ..small()
    };
    let log = directory.open_log("orders-0", config, NOW).unwrap();
    assert!(!log.flush_due(NOW + 5000), "there is nothing to flush");
    log.append(&batch(1, NOW), 0, NOW).unwrap();
    log.append(&batch(1, NOW), 0, NOW + 900).unwrap();
    assert!(!log.flush_due(NOW + 999));
    assert!(log.flush_due(NOW + 1000));
    directory.flush(&log, log.end_offset()).unwrap();
    assert!(!log.flush_due(NOW + 5000));
    log.append(&batch(1, NOW), 0, NOW + 5000).unwrap();
    assert!(!log.flush_due(NOW + 5999));
    assert!(log.flush_due(NOW + 6000));
}

/// `segment.ms` counts by the times of records, and `segment.jitter.ms` takes no more than itself from that.
#[test]
fn a_segment_that_was_written_to_for_segment_ms_is_followed_by_another() {
    let segments = |name: &str, jitter_ms: i64, later: i64| {
        let dir = tempfile::tempdir().unwrap();
        let directory = directory(dir.path());
        let config = Config {
            segment_ms: 1000,
            segment_jitter_ms: jitter_ms,
            ..small()
        };
        let log = directory.open_log(name, config, NOW).unwrap();
        log.append(&batch(1, NOW), 0, NOW).unwrap();
        log.append(&batch(1, NOW + later), 0, NOW).unwrap();
        log.segment_count()
    };
    assert_eq!(segments("orders-0", 0, 1000), 1);
    assert_eq!(segments("orders-0", 0, 1001), 2);
    for index in 0..20 {
        let name = format!("orders-{index}");
        assert_eq!(segments(&name, 400, 600), 1, "{name}");
        assert_eq!(segments(&name, 400, 1001), 2, "{name}");
    }
}

/// "Where are yesterday's records?"
#[test]
fn whatever_is_deleted_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let lines = Arc::new(Lines::default());
    let said = |wanted: &[&str]| {
        let lines = lines.0.lock().unwrap();
        let count = lines
            .iter()
            .filter(|line| wanted.iter().all(|wanted| line.contains(wanted)))
            .count();
        assert!(count > 0, "{wanted:?} in {lines:?}");
        count
    };
    let _here = tracing::subscriber::set_default(Arc::clone(&lines));
    {
        let directory = directory(dir.path());
        let config = Config {
            retention_ms: 1000,
            ..small()
        };
        let log = directory.open_log("orders-0", config, NOW).unwrap();
        for _ in 0..40 {
            log.append(&batch(10, NOW), 0, NOW).unwrap();
        }
        log.delete_records(15).unwrap();
        said(&[
            "INFO",
            "start offset moved: records were deleted by request",
            "from=0 to=15",
        ]);
        let deleted = log.retain(300, NOW + 2000).unwrap();
        assert!(deleted > 1);
        let each = said(&[
            "INFO",
            "deleting a segment: its newest record is older than retention.ms=1000",
            "orders-0",
            "base_offset=",
            "bytes=",
        ]);
        assert_eq!(each, deleted);
        said(&[
            "INFO",
            "start offset moved: segments were deleted",
            "from=15",
        ]);
        directory.flush(&log, 400).unwrap();
    }
    // The power goes, and with it the end of a segment.
    let logs = std::fs::read_dir(dir.path().join("orders-0")).unwrap();
    let mut logs: Vec<_> = logs
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "log"))
        .collect();
    logs.sort();
    let [damaged, lost, ..] = &logs[..] else {
        panic!("{logs:?}");
    };
    let file = std::fs::OpenOptions::new().write(true).open(damaged);
    file.unwrap().set_len(100).unwrap();
    std::fs::write(dir.path().join(".lock"), "another start of the machine").unwrap();
    let directory = directory(dir.path());
    assert_eq!(directory.shutdown(), Shutdown::PowerLost);
    directory.open_log("orders-0", small(), NOW).unwrap();
    said(&["WARN", "cut the log", damaged.to_str().unwrap()]);
    said(&["WARN", "removed a segment", lost.to_str().unwrap()]);
}

/// There may be a million in a segment: an abort must not read them all.
#[test]
fn an_abort_does_not_read_those_before_it() {
    let reads = Arc::new(AtomicUsize::new(0));
    let disk = {
        let reads = Arc::clone(&reads);
        watched(move |call, path| {
            if call == Call::Read && path.extension().is_some_and(|it| it == "txnindex") {
                reads.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let dir = tempfile::tempdir().unwrap();
    let abort = |log: &Log, at: i32| {
        log.append(&transactional(1, at, 1), 0, NOW).unwrap();
        let origin = Origin::Coordinator {
            transaction_version: 0,
        };
        log.append_from(&marker(1, 0, 0, false), 0, origin, NOW)
            .unwrap();
    };
    let open = || Directory::open(Arc::clone(&disk), dir.path(), &identity(), 64, NOW).unwrap();
    {
        let directory = open();
        let log = directory
            .open_log("orders-0", Config::default(), NOW)
            .unwrap();
        (0..100).for_each(|at| abort(&log, at));
        assert!(reads.load(Ordering::Relaxed) <= 1);
        assert_eq!(log.aborted(0, 200, NOW).unwrap().len(), 100);
    }
    reads.store(0, Ordering::Relaxed);
    let directory = open();
    let log = directory
        .open_log("orders-0", Config::default(), NOW)
        .unwrap();
    (100..200).for_each(|at| abort(&log, at));
    // Recovery looks for what is too much at its end.
    assert!(reads.load(Ordering::Relaxed) <= 3);
    let aborted = log.aborted(0, 400, NOW).unwrap();
    let first: Vec<i64> = aborted.iter().map(|aborted| aborted.first_offset).collect();
    assert_eq!(first, (0..200).map(|at| 2 * at).collect::<Vec<_>>());
}

/// A consumer's first question must not wait until a gigabyte of cold batches has been looked at.
#[test]
fn who_asks_for_transactions_first_waits_for_little_of_the_log() {
    let reads = Arc::new(AtomicUsize::new(0));
    let disk = {
        let reads = Arc::clone(&reads);
        watched(move |call, path| {
            if call == Call::Read && path.extension().is_some_and(|it| it == "log") {
                reads.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let dir = tempfile::tempdir().unwrap();
    let open = || Directory::open(Arc::clone(&disk), dir.path(), &identity(), 64, NOW).unwrap();
    let mut large = Builder::new();
    large.push(NOW, None, Some(&[b'v'; 100 << 10]), &[]);
    let large = large.build().unwrap();
    let batches = 300;
    {
        let directory = open();
        let log = directory
            .open_log("orders-0", Config::default(), NOW)
            .unwrap();
        for _ in 0..batches {
            log.append(&large, 0, NOW).unwrap();
        }
        reads.store(0, Ordering::Relaxed);
        assert_eq!(log.last_stable_offset(batches, NOW).unwrap(), batches);
        assert_eq!(reads.load(Ordering::Relaxed), 0, "it was begun here");
        // Killed.
    }
    let directory = open();
    let log = directory
        .open_log("orders-0", Config::default(), NOW)
        .unwrap();
    reads.store(0, Ordering::Relaxed);
    assert_eq!(log.last_stable_offset(batches, NOW).unwrap(), batches);
    let reads = reads.load(Ordering::Relaxed);
    assert!(reads <= 50, "{reads} reads for 4 MiB of such batches");
}

/// It mirrors another cluster, say: silence is not told by its records' time.
#[test]
fn a_producer_of_old_records_is_known_after_a_kill_and_while_it_lives() {
    const DAY: i64 = 24 * 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let mut builder = Builder::new().producer(1, 0, 0);
    builder.push(NOW - 2 * DAY, None, Some(b"v"), &[]);
    let old = builder.build().unwrap();
    let config = || Config {
        retention_ms: -1,
        ..small()
    };
    {
        let directory = directory(dir.path());
        let log = directory.open_log("orders-0", config(), NOW).unwrap();
        assert_eq!(log.append(&old, 0, NOW).unwrap().duplicate, None);
    }
    let directory = directory(dir.path());
    let log = directory.open_log("orders-0", config(), NOW).unwrap();
    let again = || log.append(&old, 0, NOW).unwrap().duplicate.is_some();
    assert!(again());
    log.retain(1, NOW + DAY - 1).unwrap();
    assert!(again());
    log.retain(1, NOW + 2 * DAY).unwrap();
    assert!(!again(), "silent for a day");
    log.retain(1, NOW + DAY - 1).unwrap();
    assert!(again());
}

/// It would hold back the last stable offset for good.
#[test]
fn what_was_let_through_before_a_marker_begins_no_transaction_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let directory = directory(dir.path());
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    let standing = |bumps| log.standing(1, 0, bumps, NOW);
    let append = |standing, bumps, sequence| {
        let origin = Origin::Transaction { standing, bumps };
        log.append_from(&transactional(1, sequence, 2), 0, origin, NOW)
    };
    let refused = |outcome| matches!(outcome, Err(Error::InvalidTxnState { .. }));
    let late = standing(false).unwrap();
    assert_eq!(late, Standing::Verified { marker_count: 0 });
    assert!(refused(append(Standing::Open, false, 0)), "it is not open");
    append(late, false, 0).unwrap();
    assert_eq!(standing(false).unwrap(), Standing::Open);
    append(Standing::Open, false, 2).unwrap();
    let end = Origin::Coordinator {
        transaction_version: 0,
    };
    log.append_from(&marker(1, 0, 0, false), 0, end, NOW)
        .unwrap();
    assert!(refused(append(late, false, 4)));
    assert!(refused(append(Standing::Open, false, 4)));
    assert_eq!(log.last_stable_offset(5, NOW).unwrap(), 5);
    // A retry of what was in time is recognised all the same.
    assert!(append(late, false, 2).unwrap().duplicate.is_some());
    append(standing(false).unwrap(), false, 4).unwrap();
    assert_eq!(log.last_stable_offset(7, NOW).unwrap(), 5);

    // Where each transaction has an epoch of its own that alone tells who comes late, and all begin at 0.
    let end = Origin::Coordinator {
        transaction_version: 2,
    };
    log.append_from(&marker(1, 1, 0, true), 0, end, NOW)
        .unwrap();
    let fenced = |outcome| matches!(outcome, Err(Error::InvalidProducerEpoch { .. }));
    assert!(fenced(standing(true).map(|_| ())));
    let unknown = Origin::Transaction {
        standing: Standing::Verified { marker_count: 0 },
        bumps: true,
    };
    let gap = log.append_from(&transactional(9, 5, 2), 0, unknown, NOW);
    assert!(matches!(gap, Err(Error::OutOfOrderSequence { .. })));
}

#[test]
fn offsets_in_a_transaction_have_no_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let directory = directory(dir.path());
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    let origin = Origin::Offsets {
        standing: Standing::Unverified,
    };
    for at in 0..3 {
        let mut batch = Builder::new().producer(1, 0, -1).transactional();
        batch.push(NOW, Some(b"group"), Some(b"offset"), &[]);
        let appended = log.append_from(&batch.build().unwrap(), 0, origin, NOW);
        assert_eq!(appended.unwrap().base_offset, at);
    }
}

#[test]
fn records_are_found_by_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let directory = directory(dir.path());
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    assert_eq!(log.offset_for_timestamp(0).unwrap(), None);
    assert_eq!(log.offset_of_max_timestamp().unwrap(), None);
    for at in 0..100 {
        log.append(&batch(3, NOW + at * 10), 2, NOW).unwrap();
    }
    let find = |timestamp| log.offset_for_timestamp(timestamp).unwrap();
    for at in 0..100 {
        let time = NOW + at * 10 + 1;
        let exact = find(time).unwrap();
        assert_eq!((exact.offset, exact.timestamp), (at * 3 + 1, time));
        assert_eq!(exact.leader_epoch, Some(2));
    }
    assert_eq!(find(NOW + 5).unwrap().offset, 3, "in the next batch");
    assert_eq!(find(0).unwrap().offset, 0);
    assert_eq!(find(NOW + 10_000), None);
    log.append(&batch(1, NOW), 2, NOW).unwrap();
    let newest = log.offset_of_max_timestamp().unwrap().unwrap();
    assert_eq!((newest.offset, newest.timestamp), (299, NOW + 992));
    log.delete_records(100).unwrap();
    assert_eq!(find(0).unwrap().offset, 100, "not below the start");
}

#[test]
fn retention_deletes_from_the_start_and_readers_finish() {
    let dir = tempfile::tempdir().unwrap();
    let directory = directory(dir.path());
    let config = Config {
        retention_bytes: 8192,
        ..small()
    };
    let log = directory.open_log("orders-0", config, NOW).unwrap();
    for at in 0..300 {
        log.append(&batch(3, NOW + at), 0, NOW).unwrap();
    }
    let slice = log.read(0, 1000, true, 900).unwrap();
    assert_eq!(log.retain(0, NOW).unwrap(), 0, "nothing is replicated");
    assert!(log.retain(900, NOW).unwrap() > 1);
    let start = log.start_offset();
    assert!(start > 0);
    assert!(log.size() >= 8192 && log.size() < 8192 + 4096);
    let below = log.read(0, 1000, true, 900).unwrap_err();
    assert!(matches!(below, Error::OffsetOutOfRange { .. }));
    let read = slice.read().expect("found before it was deleted");
    assert!(
        800 < read.len() && read.len() == slice.size(),
        "whole batches"
    );
    assert_eq!(offsets(&log, start), (start..900).collect::<Vec<_>>());
    let partition = dir.path().join("orders-0");
    assert!(!files(&partition, ".deleted").is_empty());
    // After the delay the files go.
    log.retain(900, NOW + 60_000).unwrap();
    assert!(files(&partition, ".deleted").is_empty());
    assert!(matches!(slice.read(), Err(Error::Gone { .. })));
    assert!(!directory.is_offline());
}

#[test]
fn a_follower_truncates_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let directory = directory(dir.path());
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    for at in 0..100 {
        let epoch = if at < 50 { 1 } else { 2 };
        log.append(&batch(3, NOW + at), epoch, NOW).unwrap();
    }
    assert_eq!(log.truncate(400, NOW).unwrap(), 300, "nothing above");
    assert_eq!(log.truncate(149, NOW).unwrap(), 147, "before the batch");
    assert_eq!((log.latest_epoch(), log.end_offset()), (Some(1), 147));
    assert_eq!(offsets(&log, 0), (0..147).collect::<Vec<_>>());
    let newest = log.offset_of_max_timestamp().unwrap().unwrap();
    assert_eq!(newest.offset, 146);
    let mut copied = Builder::new().base_offset(147).leader_epoch(3);
    copied.push(NOW, None, Some(b"x"), &[]);
    let copied = copied.build().unwrap();
    log.append_assigned(std::slice::from_ref(&copied), NOW)
        .unwrap();
    assert_eq!(log.epochs(), [(1, 0), (3, 147)]);
    let again = log.append_assigned(&[copied], NOW).unwrap_err();
    let refused = matches!(
        again,
        Error::UnexpectedOffset {
            expected: 148,
            found: 147
        }
    );
    assert!(refused, "{again}");
    log.truncate_fully(1000, NOW).unwrap();
    assert_eq!((log.start_offset(), log.end_offset()), (1000, 1000));
    assert_eq!(
        log.append(&batch(1, NOW), 4, NOW).unwrap().base_offset,
        1000
    );
    assert_eq!(offsets(&log, 1000), [1000]);
}

#[test]
fn one_sync_serves_all_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let directory = directory(dir.path());
    let log = directory.open_log("orders-0", small(), NOW).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    for _ in 0..10 {
        let end = log.append(&batch(3, NOW), 0, NOW).unwrap().last_offset + 1;
        let sender = sender.clone();
        let done = Box::new(move |result: Result<i64, Error>| {
            sender.send(result.unwrap() >= end).unwrap();
        });
        directory.flush_then(&log, end, done);
    }
    for _ in 0..10 {
        assert!(receiver.recv().unwrap());
    }
    assert_eq!(log.flushed_offset(), 30);
    assert_eq!(directory.flush(&log, 30).unwrap(), 30);
}

#[test]
fn a_directory_is_held_by_one_and_knows_its_logs() {
    let dir = tempfile::tempdir().unwrap();
    let held = directory(dir.path());
    let again = Directory::open(disk::real(), dir.path(), &identity(), 64, NOW).unwrap_err();
    assert!(matches!(again, Error::InUse { .. }));
    let log = held.open_log("a-b-0", small(), NOW).unwrap();
    let id = uuid::Uuid::from_u128(77);
    held.set_topic_id("a-b-0", id).unwrap();
    assert_eq!(held.topic_id("a-b-0").unwrap(), Some(id));
    log.append(&batch(1, NOW), 0, NOW).unwrap();
    let slice = log.read(0, 1000, true, 1).unwrap();
    let name = held.rename(&log, "a-b-0", State::Deleted).unwrap();
    assert!(
        name.starts_with("a-b-0.") && name.ends_with("-delete"),
        "{name}"
    );
    assert!(!slice.read().unwrap().is_empty(), "readers finish");
    let found = held.logs().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].name, found[0].state), (&name, State::Deleted));
    held.remove(&name).unwrap();
    assert!(held.logs().unwrap().is_empty());
    // The same name begins anew.
    let log = held.open_log("a-b-0", small(), NOW).unwrap();
    assert_eq!(log.end_offset(), 0);
    drop((log, slice, held));
    let stranger = Identity {
        node_id: 2,
        ..identity()
    };
    let refused = Directory::open(disk::real(), dir.path(), &stranger, 64, NOW).unwrap_err();
    assert!(matches!(refused, Error::NotOurs { key: "node.id", .. }));
}

#[test]
fn ten_times_as_many_logs_as_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(disk::real(), dir.path(), &identity(), 8, NOW).unwrap();
    let logs: Vec<Arc<Log>> = (0..80)
        .map(|at| {
            directory
                .open_log(&format!("t-{at}"), small(), NOW)
                .unwrap()
        })
        .collect();
    for _ in 0..3 {
        for log in &logs {
            log.append(&batch(1, NOW), 0, NOW).unwrap();
        }
    }
    let open = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .filter(|file| file.starts_with(dir.path()))
        .count();
    assert!(open <= 9, "{open} files open");
    for log in &logs {
        assert_eq!(offsets(log, 0), [0, 1, 2]);
    }
}

fn files(dir: &Path, suffix: &str) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(suffix))
        .collect();
    names.sort();
    names
}
