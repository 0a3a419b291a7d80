//! Compaction from the outside: who reads a compacted log to its end knows what one knows who has read
//! it all, and producers, transactions and crashes change nothing in that.

mod common;
#[path = "common/faulty.rs"]
mod faulty;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use common::{NOW, identity, marker, whole_batches};
use faulty::{Fault, FaultyDisk, Random};
use protocol::{
    batch::{Batch, Builder, Header},
    compression::Compression,
};
use storage::{
    compaction::{Compacted, Flow, Settings},
    config::Config,
    directory::Directory,
    disk::{self, Disk},
    log::Log,
    producers::Origin,
};

const ROOT: &str = "/data";
const NAME: &str = "accounts-0";
const COORDINATOR: Origin = Origin::Coordinator {
    transaction_version: 0,
};

fn config() -> Config {
    Config {
        segment_bytes: 2000,
        index_interval_bytes: 200,
        delete: false,
        compact: true,
        delete_retention_ms: 1000,
        file_delete_delay_ms: 10,
        min_cleanable_dirty_ratio: 0.0,
        retention_ms: -1,
        ..Config::default()
    }
}

const SETTINGS: Settings = Settings {
    map_bytes: 1 << 20,
    map_load_factor: 0.9,
    buffer_bytes: 700,
    decompressed_max: 1 << 20,
};

fn open(disk: Arc<dyn Disk>, root: &Path) -> Directory {
    Directory::open(disk, root, &identity(), 32, NOW).unwrap()
}

fn compact(directory: &Directory, log: &Log, now: i64) -> Compacted {
    let dirty = log
        .dirty(directory.cleaned_offset(NAME), log.end_offset(), now)
        .unwrap();
    let done = log
        .compact(&dirty, &SETTINGS, now, &mut |_| Flow::Continue)
        .unwrap();
    if done.cleaned.is_some() {
        assert_eq!(directory.cleaned_offset(NAME), done.cleaned);
    }
    done
}

/// Rolls, so that everything so far can be compacted.
fn seal(log: &Log, now: i64) {
    let segments = log.segment_count();
    while log.segment_count() == segments {
        log.append(&keyed(now, &[("filler", Some("x"))]), 0, now)
            .unwrap();
    }
}

fn keyed(now: i64, records: &[(&str, Option<&str>)]) -> Batch {
    keyed_in(Builder::new(), now, records)
}

fn keyed_in(mut builder: Builder, now: i64, records: &[(&str, Option<&str>)]) -> Batch {
    for (key, value) in records {
        let value = value.map(str::as_bytes);
        builder.push(now, Some(key.as_bytes()), value, &[(b"h", Some(b"1"))]);
    }
    builder.build().unwrap()
}

fn batches(log: &Log) -> Vec<Batch> {
    let (mut next, end) = (log.start_offset(), log.end_offset());
    let mut found = Vec::new();
    while next < end {
        let slice = log.read(next, 1000, true, end).unwrap();
        let more = whole_batches(slice.read().unwrap());
        assert!(!more.is_empty(), "nothing at {next}, the end is {end}");
        for batch in more {
            assert!(batch.header().last_offset() >= next, "offsets ascend");
            next = batch.header().next_offset();
            found.push(batch);
        }
    }
    found
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    offset: i64,
    timestamp: i64,
    key: String,
    value: Option<String>,
}

/// As a `read_committed` consumer sees it.
fn records(log: &Log) -> Vec<Read> {
    let aborted = log
        .aborted(log.start_offset(), log.end_offset(), NOW)
        .unwrap();
    let mut found: Vec<Read> = Vec::new();
    for batch in batches(log) {
        let header = *batch.header();
        if header.is_control() {
            continue;
        }
        let is_aborted = header.is_transactional()
            && aborted.iter().any(|aborted| {
                aborted.producer_id == header.producer_id
                    && (aborted.first_offset..aborted.last_offset).contains(&header.base_offset)
            });
        if is_aborted {
            continue;
        }
        for record in batch.records(1 << 20).unwrap() {
            let record = record.unwrap();
            assert!(found.last().is_none_or(|last| last.offset < record.offset));
            assert_eq!(record.headers.len(), 1);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            found.push(Read {
                offset: record.offset,
                timestamp: record.timestamp,
                key: text(&record.key.unwrap()),
                value: record.value.as_deref().map(text),
            });
        }
    }
    found
}

type Content = BTreeMap<String, String>;

fn content(log: &Log) -> Content {
    let mut content = Content::new();
    for record in records(log) {
        match record.value {
            Some(value) => content.insert(record.key, value),
            None => content.remove(&record.key),
        };
    }
    content
}

/// A damaged record in a copy would have a right CRC, and be believed for ever.
#[test]
fn a_damaged_batch_stops_compaction_and_the_log_stays_as_it_is() {
    for is_cleaned in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let directory = open(disk::real(), dir.path());
        let log = directory.open_log(NAME, config(), NOW).unwrap();
        let fill = || {
            for at in 0..100 {
                let key = format!("key-{}", at % 10);
                log.append(&keyed(NOW, &[(&key, Some("value"))]), 0, NOW)
                    .unwrap();
            }
            seal(&log, NOW);
        };
        fill();
        if is_cleaned {
            // The first pass does not look there any more.
            compact(&directory, &log, NOW);
        }
        let segments = std::fs::read_dir(dir.path().join(NAME)).unwrap();
        let mut segments: Vec<_> = segments.map(|entry| entry.unwrap().path()).collect();
        segments.sort();
        let has_batches = |path: &&PathBuf| {
            path.extension().is_some_and(|suffix| suffix == "log")
                && path.metadata().unwrap().len() > 0
        };
        let path = segments.iter().find(has_batches).unwrap();
        let mut damaged = std::fs::read(path).unwrap();
        let in_the_last_record = damaged.len() - 4;
        damaged[in_the_last_record] ^= 1;
        std::fs::write(path, &damaged).unwrap();
        fill();

        let cleaned = directory.cleaned_offset(NAME);
        let dirty = log.dirty(cleaned, log.end_offset(), NOW).unwrap();
        let refused = log
            .compact(&dirty, &SETTINGS, NOW, &mut |_| Flow::Continue)
            .unwrap_err();
        let reason = "the batch's CRC is wrong";
        assert!(refused.to_string().contains(reason), "{refused}");
        assert_eq!(std::fs::read(path).unwrap(), damaged);
    }
}

/// Random keys and deletions, several rounds, restarts: after each compaction a reader has what one has
/// who was there all the time.
#[test]
fn a_reader_of_the_compacted_log_knows_what_one_of_the_whole_log_knows() {
    for seed in 0..10 {
        let disk = FaultyDisk::new(seed, Path::new(ROOT));
        let mut random = Random::new(seed);
        let codec = Compression::ALL[usize::try_from(seed % 5).unwrap()];
        let mut expected = Content::new();
        let mut now = NOW;
        for _ in 0..4 {
            let directory = open(disk.disk(), Path::new(ROOT));
            let log = directory.open_log(NAME, config(), now).unwrap();
            assert_eq!(content(&log), expected, "seed {seed}, after opening");
            for _ in 0..150 {
                now += 1;
                let mut builder = Builder::new().compression(codec, None);
                for _ in 0..=random.below(3) {
                    let key = format!("key-{}", random.below(20));
                    let value = (!random.chance(30)).then(|| format!("value-{now}"));
                    builder.push(
                        now,
                        Some(key.as_bytes()),
                        value.as_deref().map(str::as_bytes),
                        &[(b"h", None)],
                    );
                    match value {
                        Some(value) => expected.insert(key, value),
                        None => expected.remove(&key),
                    };
                }
                log.append(&builder.build().unwrap(), 0, now).unwrap();
                if random.chance(5) {
                    let before = log.end_offset();
                    compact(&directory, &log, now);
                    assert_eq!(log.end_offset(), before);
                    assert_eq!(content(&log), expected, "seed {seed}");
                    log.retain(before, now).unwrap();
                    times(&log, now);
                }
            }
            seal(&log, now);
            expected.insert("filler".to_owned(), "x".to_owned());
            compact(&directory, &log, now);
            // Of each key at most one record is left below the active segment.
            let mut seen = HashMap::new();
            let cleaned = directory.cleaned_offset(NAME).unwrap();
            for record in records(&log) {
                if record.offset < cleaned {
                    let before = seen.insert(record.key.clone(), record.offset);
                    assert_eq!(before, None, "seed {seed}: {record:?}");
                }
            }
            assert_eq!(content(&log), expected);
            // Killed or closed.
            if random.chance(50) {
                directory.close(1).unwrap();
            }
        }
        // All tombstones but those that were just found go when their time is over.
        now += 5000;
        let directory = open(disk.disk(), Path::new(ROOT));
        let log = directory.open_log(NAME, config(), now).unwrap();
        seal(&log, now);
        compact(&directory, &log, now);
        now += 1001;
        seal(&log, now);
        compact(&directory, &log, now);
        let cleaned = directory.cleaned_offset(NAME).unwrap();
        let tombstones = records(&log)
            .iter()
            .filter(|record| record.offset < cleaned && record.value.is_none())
            .count();
        assert_eq!(tombstones, 0, "seed {seed}");
        assert_eq!(content(&log), expected);
    }
}

/// The time index finds what a look at all records finds.
fn times(log: &Log, now: i64) {
    let all = records(log);
    for timestamp in (NOW..now).step_by(97) {
        let expected = all.iter().find(|record| record.timestamp >= timestamp);
        let found = log.offset_for_timestamp(timestamp).unwrap();
        assert_eq!(
            found.map(|found| found.offset),
            expected.map(|record| record.offset)
        );
    }
}

#[test]
fn a_tombstone_gets_a_horizon_and_goes_after_it() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let log = directory.open_log(NAME, config(), NOW).unwrap();
    log.append(&keyed(NOW, &[("a", Some("1")), ("b", Some("1"))]), 7, NOW)
        .unwrap();
    log.append(&keyed(NOW + 1, &[("b", Some("2")), ("a", None)]), 7, NOW)
        .unwrap();
    seal(&log, NOW);
    compact(&directory, &log, NOW + 10);
    let first = &batches(&log)[0];
    let header = first.header();
    assert_eq!(header.base_offset, 2, "nothing is left of the first batch");
    assert_eq!(header.leader_epoch, 7);
    assert_eq!(header.delete_horizon(), Some(NOW + 1010));
    assert_eq!(header.max_timestamp, NOW + 1);
    let left: Vec<_> = records(&log);
    assert_eq!((left[0].offset, left[0].timestamp), (2, NOW + 1));
    assert_eq!((left[1].offset, left[1].value.as_ref()), (3, None));

    seal(&log, NOW);
    compact(&directory, &log, NOW + 1009);
    assert_eq!(records(&log)[1].offset, 3, "not yet");
    assert_eq!(batches(&log)[0].header().delete_horizon(), Some(NOW + 1010));
    seal(&log, NOW);
    compact(&directory, &log, NOW + 1010);
    let header = *batches(&log)[0].header();
    assert_eq!((header.base_offset, header.last_offset()), (2, 3));
    assert_eq!(header.record_count, 1);
    assert_eq!(records(&log)[0].timestamp, NOW + 1);
}

#[test]
fn codec_offsets_and_times_of_a_batch_stay() {
    for codec in Compression::ALL {
        let root = tempfile::tempdir().unwrap();
        let directory = open(disk::real(), root.path());
        let log = directory.open_log(NAME, config(), NOW).unwrap();
        let builder = || Builder::new().compression(codec, None);
        let value = "v".repeat(100);
        let batch = keyed_in(
            builder(),
            NOW,
            &[
                ("a", Some(&value)),
                ("b", Some(&value)),
                ("c", Some(&value)),
            ],
        );
        log.append(&batch, 0, NOW).unwrap();
        log.append(
            &keyed_in(
                builder().log_append_time(NOW + 5),
                NOW,
                &[("a", Some("2")), ("b", Some("2")), ("d", Some("2"))],
            ),
            0,
            NOW,
        )
        .unwrap();
        log.append(&keyed(NOW, &[("d", Some("3"))]), 0, NOW)
            .unwrap();
        seal(&log, NOW);
        compact(&directory, &log, NOW);
        let left = batches(&log);
        let header = left[0].header();
        assert_eq!(header.compression(), codec);
        assert_eq!((header.base_offset, header.last_offset()), (0, 2));
        assert_eq!(header.record_count, 1);
        let record = left[0].records(1000).unwrap().next().unwrap().unwrap();
        assert_eq!((record.offset, record.timestamp), (2, NOW));
        let header = left[1].header();
        assert_eq!((header.base_offset, header.last_offset()), (3, 5));
        assert_eq!(header.max_timestamp, NOW + 5);
        let times: Vec<_> = records(&log)[1..3].iter().map(|r| r.timestamp).collect();
        assert_eq!(times, [NOW + 5, NOW + 5]);
    }
}

#[test]
fn a_producer_goes_on_where_it_was_though_its_records_are_gone() {
    let root = tempfile::tempdir().unwrap();
    let produced = |sequence| {
        let builder = Builder::new().producer(9, 0, sequence);
        keyed_in(builder, NOW, &[("a", Some("1")), ("b", Some("1"))])
    };
    {
        let directory = open(disk::real(), root.path());
        let log = directory.open_log(NAME, config(), NOW).unwrap();
        for at in 0..5 {
            log.append(&produced(2 * at), 0, NOW).unwrap();
        }
        log.append(&keyed(NOW, &[("a", Some("2")), ("b", Some("2"))]), 0, NOW)
            .unwrap();
        seal(&log, NOW);
        compact(&directory, &log, NOW);
        let first = *batches(&log)[0].header();
        assert_eq!((first.base_offset, first.last_offset()), (8, 9));
        assert_eq!((first.record_count, first.last_sequence()), (0, 9));
        assert_eq!((first.base_timestamp, first.max_timestamp), (-1, NOW));
        assert!(
            log.append(&produced(8), 0, NOW)
                .unwrap()
                .duplicate
                .is_some()
        );
        directory.close(1).unwrap();
    }
    // All it knows is what the batches say.
    for entry in std::fs::read_dir(root.path().join(NAME)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|suffix| suffix == "snapshot") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let directory = open(disk::real(), root.path());
    let log = directory.open_log(NAME, config(), NOW).unwrap();
    assert!(
        log.append(&produced(8), 0, NOW)
            .unwrap()
            .duplicate
            .is_some()
    );
    assert!(log.append(&produced(12), 0, NOW).is_err(), "a gap");
    assert!(
        log.append(&produced(10), 0, NOW)
            .unwrap()
            .duplicate
            .is_none()
    );
}

fn in_transaction(producer: i64, sequence: i32, records: &[(&str, Option<&str>)]) -> Batch {
    let builder = Builder::new()
        .producer(producer, 0, sequence)
        .transactional();
    keyed_in(builder, NOW, records)
}

fn end(log: &Log, producer: i64, commit: bool) {
    log.append_from(&marker(producer, 0, 0, commit), 0, COORDINATOR, NOW)
        .unwrap();
}

#[test]
fn what_was_aborted_goes_and_its_marker_later() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let log = directory.open_log(NAME, config(), NOW).unwrap();
    log.append(&in_transaction(1, 0, &[("a", Some("1"))]), 0, NOW)
        .unwrap();
    log.append(&in_transaction(2, 0, &[("a", Some("no"))]), 0, NOW)
        .unwrap();
    end(&log, 2, false);
    end(&log, 1, true);
    // These are what producers are remembered by.
    log.append(&in_transaction(1, 1, &[("b", Some("1"))]), 0, NOW)
        .unwrap();
    end(&log, 1, true);
    log.append(&in_transaction(2, 1, &[("c", Some("1"))]), 0, NOW)
        .unwrap();
    end(&log, 2, true);
    let before = content(&log);
    assert_eq!(before["a"], "1", "an aborted record outdates nothing");
    let bases = |log: &Log| -> Vec<i64> {
        let batches = batches(log);
        let bases = batches.iter().map(|batch| batch.header().base_offset);
        bases.take_while(|base| *base < 8).collect()
    };
    let at = |now| {
        seal(&log, NOW);
        compact(&directory, &log, now);
    };
    let horizon = |place: usize| batches(&log)[place].header().delete_horizon();
    at(NOW);
    assert_eq!(bases(&log), [0, 2, 3, 4, 5, 6, 7], "its records are gone");
    assert_eq!(log.aborted(0, 100, NOW).unwrap().len(), 1);
    assert_eq!(horizon(1), None, "who reads now may have seen them");
    at(NOW + 100);
    assert_eq!(horizon(1), Some(NOW + 1100), "nothing is left to abort");
    assert_eq!(log.aborted(0, 100, NOW).unwrap(), []);
    at(NOW + 1099);
    assert_eq!(bases(&log), [0, 2, 3, 4, 5, 6, 7]);
    at(NOW + 1100);
    assert_eq!(bases(&log), [0, 3, 4, 5, 6, 7], "and now its marker");

    log.append(&keyed(NOW, &[("a", Some("2"))]), 0, NOW)
        .unwrap();
    at(NOW + 2000);
    assert_eq!(bases(&log), [3, 4, 5, 6, 7], "a commit without records");
    assert_eq!(horizon(0), None);
    at(NOW + 2100);
    assert_eq!(horizon(0), Some(NOW + 3100));
    at(NOW + 3100);
    assert_eq!(bases(&log), [4, 5, 6, 7]);
}

/// What the offsets topic sees of a consumer that commits its offsets in transactions for ever.
#[test]
fn endless_transactions_leave_a_log_that_does_not_grow() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let log = directory.open_log(NAME, config(), NOW).unwrap();
    let mut now = NOW;
    let mut sizes = Vec::new();
    let mut sequence = 0;
    for round in 0..10 {
        for _ in 0..100 {
            now += 10;
            let aborted = sequence % 3 == 0;
            let value = format!("{sequence}");
            let batch = in_transaction(1, sequence, &[("group", Some(&value))]);
            log.append(&batch, 0, now).unwrap();
            end(&log, 1, !aborted);
            sequence += 1;
        }
        compact(&directory, &log, now);
        log.retain(log.end_offset(), now).unwrap();
        if round > 3 {
            sizes.push(log.size());
        }
    }
    let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
    assert!(most - least < 4000, "{sizes:?}");
    assert!(*most < 60_000, "{sizes:?}");
}

#[test]
fn a_transaction_across_segments_stays_hidden_until_it_ends_and_after() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let log = directory.open_log(NAME, config(), NOW).unwrap();
    log.append(&keyed(NOW, &[("a", Some("0"))]), 0, NOW)
        .unwrap();
    seal(&log, NOW);
    log.append(&in_transaction(1, 0, &[("a", Some("1"))]), 0, NOW)
        .unwrap();
    seal(&log, NOW);
    seal(&log, NOW);
    compact(&directory, &log, NOW);
    let cleaned = directory.cleaned_offset(NAME).unwrap();
    assert!(cleaned <= log.last_stable_offset(log.end_offset(), NOW).unwrap());
    assert_eq!(records(&log)[0].key, "a", "what is open outdates nothing");
    end(&log, 1, false);
    seal(&log, NOW);
    compact(&directory, &log, NOW);
    assert!(directory.cleaned_offset(NAME).unwrap() > cleaned);
    assert_eq!(content(&log)["a"], "0");
}

#[test]
fn with_little_memory_it_takes_more_than_one_turn() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let log = directory.open_log(NAME, config(), NOW).unwrap();
    let mut expected = Content::new();
    for round in 0..3 {
        for key in 0..100 {
            let (key, value) = (format!("{key}"), format!("{round}"));
            log.append(&keyed(NOW, &[(&key, Some(&value))]), 0, NOW)
                .unwrap();
            expected.insert(key, value);
        }
    }
    seal(&log, NOW);
    expected.insert("filler".to_owned(), "x".to_owned());
    let little = Settings {
        map_bytes: 50 * 16,
        ..SETTINGS
    };
    let mut turns = 0;
    loop {
        let cleaned = directory.cleaned_offset(NAME);
        let dirty = log.dirty(cleaned, log.end_offset(), NOW).unwrap();
        if !dirty.is_due(0.0) {
            break;
        }
        let done = log
            .compact(&dirty, &little, NOW, &mut |_| Flow::Continue)
            .unwrap();
        assert!(done.cleaned.unwrap() > dirty.first_dirty);
        assert_eq!(content(&log), expected);
        turns += 1;
    }
    assert!(turns > 3, "{turns}");
    let left = records(&log);
    assert_eq!(
        left.iter().filter(|record| record.key != "filler").count(),
        100
    );
    // A batch that needs more than there is cannot be compacted at all.
    let keys: Vec<String> = (0..60).map(|key| format!("{key}")).collect();
    let many: Vec<_> = keys.iter().map(|key| (&**key, Some("y"))).collect();
    seal(&log, NOW);
    compact(&directory, &log, NOW);
    log.append(&keyed(NOW, &many), 0, NOW).unwrap();
    seal(&log, NOW);
    let mut failed = None;
    for _ in 0..3 {
        let dirty = log
            .dirty(directory.cleaned_offset(NAME), log.end_offset(), NOW)
            .unwrap();
        match log.compact(&dirty, &little, NOW, &mut |_| Flow::Continue) {
            Ok(_) => (),
            Err(err) => failed = Some(err),
        }
    }
    assert!(failed.unwrap().to_string().contains("more keys"));
    assert!(!directory.is_offline());
}

#[test]
fn it_stops_when_told_to_and_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let log = directory.open_log(NAME, config(), NOW).unwrap();
    for at in 0..200 {
        log.append(&keyed(NOW, &[("a", Some(&format!("{at}")))]), 0, NOW)
            .unwrap();
    }
    let dirty = log.dirty(None, log.end_offset(), NOW).unwrap();
    for calls in 0..20 {
        let mut left = calls;
        let done = log.compact(&dirty, &SETTINGS, NOW, &mut |_| {
            left -= 1;
            if left < 0 { Flow::Stop } else { Flow::Continue }
        });
        assert_eq!(done.unwrap().cleaned, None);
        assert_eq!(content(&log)["a"], "199");
        for entry in std::fs::read_dir(root.path().join(NAME)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                !name.ends_with(".cleaned") && !name.ends_with(".swap"),
                "{name}"
            );
        }
    }
}

#[test]
fn a_log_that_is_truncated_meanwhile_keeps_what_it_has() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let log = directory.open_log(NAME, config(), NOW).unwrap();
    for at in 0..200 {
        log.append(&keyed(NOW, &[("a", Some(&format!("{at}")))]), 0, NOW)
            .unwrap();
    }
    let dirty = log.dirty(None, log.end_offset(), NOW).unwrap();
    let mut truncated = false;
    let done = log.compact(&dirty, &SETTINGS, NOW, &mut |_| {
        if !truncated {
            log.truncate(10, NOW).unwrap();
            truncated = true;
        }
        Flow::Continue
    });
    assert_eq!(done.ok().and_then(|done| done.cleaned), None);
    assert_eq!(records(&log).len(), 10);
}

#[test]
fn who_reads_an_old_segment_reads_on() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let log = directory.open_log(NAME, config(), NOW).unwrap();
    for at in 0..100 {
        log.append(&keyed(NOW, &[("a", Some(&format!("{at}")))]), 0, NOW)
            .unwrap();
    }
    let slice = log.read(0, 1000, true, log.end_offset()).unwrap();
    let before = slice.read().unwrap();
    compact(&directory, &log, NOW);
    assert!(log.read(0, 1 << 20, true, log.end_offset()).unwrap().size() < 1000);
    assert_eq!(slice.read().unwrap(), before);
    // And is told so when the files are gone.
    log.retain(log.end_offset(), NOW + 100).unwrap();
    assert!(!directory.is_offline());
}

/// A reader who knows an older end may find nothing below it any more; with the end of now it goes on.
#[test]
fn nothing_is_left_below_an_older_end() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let log = directory.open_log(NAME, config(), NOW).unwrap();
    for _ in 0..100 {
        log.append(&keyed(NOW, &[("a", Some("1"))]), 0, NOW)
            .unwrap();
    }
    let seen = |end| {
        let slice = log.read(5, 2000, true, end).unwrap();
        let batches = whole_batches(slice.read().unwrap());
        batches.first().map(|batch| batch.header().base_offset)
    };
    assert_eq!(seen(10), Some(5));
    seal(&log, NOW);
    compact(&directory, &log, NOW);
    assert_eq!(seen(10), None);
    assert!(seen(log.end_offset()).is_some_and(|offset| offset > 10));
}

#[test]
fn small_segments_become_one_and_old_ones_are_still_deleted() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let both = Config {
        delete: true,
        retention_ms: 5000,
        ..config()
    };
    let log = directory.open_log(NAME, both, NOW).unwrap();
    for at in 0..300 {
        log.append(&keyed(NOW + at, &[("a", Some("x"))]), 0, NOW)
            .unwrap();
    }
    let segments = log.segment_count();
    assert!(segments > 5);
    compact(&directory, &log, NOW);
    // They are small only now.
    seal(&log, NOW + 300);
    compact(&directory, &log, NOW);
    assert!(log.segment_count() <= 3, "{}", log.segment_count());
    let (count, end) = (log.segment_count(), log.end_offset());
    assert_eq!(log.retain(end, NOW + 6000).unwrap(), count);
    assert_eq!(log.start_offset(), end);
}

#[test]
fn what_is_younger_than_the_least_lag_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let lagging = Config {
        min_compaction_lag_ms: 1000,
        ..config()
    };
    let log = directory.open_log(NAME, lagging, NOW).unwrap();
    seal(&log, NOW);
    let first = log.end_offset() - 1;
    log.append(&keyed(NOW + 500, &[("a", Some("x"))]), 0, NOW)
        .unwrap();
    seal(&log, NOW);
    let second = log.end_offset() - 1;
    for (now, end) in [(999, 0), (1001, first), (1499, first), (1501, second)] {
        let dirty = log.dirty(None, log.end_offset(), NOW + now).unwrap();
        assert_eq!(dirty.end, end, "{now} ms later");
    }
}

/// It is due however little of the log it is, and does not wait for its segment to be full.
#[test]
fn what_is_older_than_the_greatest_lag_is_compacted() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let prompt = Config {
        max_compaction_lag_ms: 1000,
        ..config()
    };
    let log = directory.open_log(NAME, prompt, NOW).unwrap();
    seal(&log, NOW);
    let is_due = |now| {
        let dirty = log.dirty(None, log.end_offset(), now).unwrap();
        dirty.is_due(1.0)
    };
    assert!(!is_due(NOW + 999));
    assert!(is_due(NOW + 1001));

    let segments = log.segment_count();
    for (at, rolled) in [(900, 0), (1001, 1), (1002, 1)] {
        let now = NOW + at;
        log.append(&keyed(now, &[("a", Some("x"))]), 0, now)
            .unwrap();
        assert_eq!(log.segment_count(), segments + rolled, "{at} ms later");
    }
}

/// One log, its keys written over and over, with an idempotent producer and transactions.
fn fill(log: &Log) -> Content {
    let mut expected = Content::new();
    for at in 0..60_i32 {
        let key = format!("{}", at % 7);
        let value = format!("{at}");
        let (batch, ends) = match at % 4 {
            0 => (keyed(NOW, &[(&key, Some(&value))]), None),
            1 => (
                in_transaction(1, at / 4, &[(&key, Some(&value))]),
                Some(true),
            ),
            2 => (
                in_transaction(2, at / 4, &[(&key, Some(&value))]),
                Some(false),
            ),
            _ => (keyed(NOW, &[(&key, None)]), None),
        };
        log.append(&batch, 0, NOW).unwrap();
        if let Some(commit) = ends {
            end(log, if commit { 1 } else { 2 }, commit);
        }
        match at % 4 {
            2 => None,
            3 => expected.remove(&key),
            _ => expected.insert(key, value),
        };
    }
    expected
}

/// A crash at every call that changes something: the old content or the new, never a mixture that
/// tells something else, and the next compaction gets through.
#[test]
fn a_crash_at_any_point_loses_nothing() {
    for power in [false, true] {
        for calls in 1.. {
            let disk = FaultyDisk::new(calls, Path::new(ROOT));
            let (expected, stable) = {
                let directory = open(disk.disk(), Path::new(ROOT));
                let log = directory.open_log(NAME, config(), NOW).unwrap();
                let expected = fill(&log);
                log.flush().unwrap();
                directory.checkpoint().unwrap();
                (
                    expected,
                    log.last_stable_offset(log.end_offset(), NOW).unwrap(),
                )
            };
            let died = {
                disk.restart();
                let directory = open(disk.disk(), Path::new(ROOT));
                let log = directory.open_log(NAME, config(), NOW).unwrap();
                let dirty = log.dirty(None, log.end_offset(), NOW).unwrap();
                disk.fail_in(calls, Fault::Die);
                let done = log.compact(&dirty, &SETTINGS, NOW, &mut |_| Flow::Continue);
                done.is_err()
            };
            if power {
                disk.lose_power();
            } else {
                disk.restart();
            }
            // The policy may have been changed meanwhile: gaps are still no damage.
            let deleting = Config {
                compact: false,
                ..config()
            };
            let directory = open(disk.disk(), Path::new(ROOT));
            let log = directory.open_log(NAME, deleting, NOW).unwrap();
            assert_eq!(content(&log), expected, "power {power}, call {calls}");
            assert_eq!(
                log.last_stable_offset(log.end_offset(), NOW).unwrap(),
                stable
            );
            log.set_config(config());
            let again = in_transaction(1, 14, &[("4", Some("57"))]);
            assert!(log.append(&again, 0, NOW).unwrap().duplicate.is_some());
            compact(&directory, &log, NOW);
            assert_eq!(
                content(&log),
                expected,
                "power {power}, call {calls}, again"
            );
            seal(&log, NOW);
            compact(&directory, &log, NOW + 2000);
            let mut expected = expected;
            expected.insert("filler".to_owned(), "x".to_owned());
            assert_eq!(
                content(&log),
                expected,
                "power {power}, call {calls}, later"
            );
            if !died {
                assert!(calls > 20, "{calls}");
                break;
            }
        }
    }
}

/// A reader at work while segments are exchanged under it.
#[test]
fn readers_go_on_while_segments_are_exchanged() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(disk::real(), root.path());
    let log = directory.open_log(NAME, config(), NOW).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while last < 499 {
                let mut next = 0;
                let end = log.end_offset();
                while next < end {
                    let slice = log.read(next, 2000, true, end).unwrap();
                    let batches = whole_batches(slice.read().unwrap());
                    if batches.is_empty() {
                        // All up to the end of a moment ago has gone since; not what follows it.
                        let slice = log.read(next, 2000, true, log.end_offset()).unwrap();
                        assert!(!slice.read().unwrap().is_empty(), "nothing at {next}");
                        break;
                    }
                    for batch in batches {
                        let header: Header = *batch.header();
                        assert!(header.last_offset() >= next);
                        next = header.next_offset();
                        for record in batch.records(1000).unwrap() {
                            last = record.unwrap().offset.max(last);
                        }
                    }
                }
            }
        });
        for at in 0..500_i32 {
            let key = format!("{}", at % 5);
            log.append(&keyed(NOW, &[(&key, Some("value"))]), 0, NOW)
                .unwrap();
            if at % 50 == 49 {
                compact(&directory, &log, NOW);
            }
        }
        reader.join().unwrap();
    });
}
