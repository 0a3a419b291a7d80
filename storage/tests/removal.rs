//! Logs that are deleted while others still look at them, or made anew under the same name: neither costs the
//! directory, nor the new log its records.

mod common;
#[path = "common/watched.rs"]
mod watched;

use std::{
    cell::Cell,
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use common::{NOW, batch, directory, identity, offsets, small};
use storage::{
    checkpoint,
    compaction::{Flow, Settings},
    config::Config,
    directory::{Directory, State},
    disk::{self, Disk},
    error::Error,
    log::{Log, Shutdown},
};
use watched::{Call, watched};

const NAME: &str = "orders-0";

const CHECKPOINTS: [&str; 3] = [
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "cleaner-offset-checkpoint",
];

fn open(disk: Arc<dyn Disk>, root: &Path) -> Directory {
    Directory::open(disk, root, &identity(), 64, NOW).unwrap()
}

fn fill(log: &Log, batches: i32) {
    for at in 0..batches {
        log.append(&batch(10, NOW + i64::from(at)), 0, NOW).unwrap();
    }
}

/// The checkpoints of the directory that name the log.
fn naming(root: &Path, name: &str) -> Vec<&'static str> {
    let names = |file: &&str| {
        let offsets = checkpoint::read_offsets(&*disk::real(), &root.join(file)).unwrap();
        offsets.contains_key(name)
    };
    CHECKPOINTS.into_iter().filter(names).collect()
}

/// A log with an entry in each checkpoint, which is then deleted.
fn checkpointed_and_deleted(directory: &Directory, name: &str) {
    let log = directory.open_log(name, small(), NOW).unwrap();
    fill(&log, 5);
    directory.flush(&log, 50).unwrap();
    log.delete_records(20).unwrap();
    directory.set_cleaned_offset(name, 30).unwrap();
    directory.checkpoint().unwrap();
    assert_eq!(naming(directory.path(), name), CHECKPOINTS);
    directory.rename(&log, name, State::Deleted).unwrap();
}

#[test]
fn a_log_made_anew_has_nothing_of_its_namesake_after_a_kill() {
    let root = tempfile::tempdir().unwrap();
    let old = directory(root.path());
    checkpointed_and_deleted(&old, NAME);
    let log = old.open_log(NAME, small(), NOW).unwrap();
    assert_eq!(naming(root.path(), NAME), [""; 0]);
    fill(&log, 1);
    drop((log, old));

    let directory = directory(root.path());
    assert_eq!(directory.shutdown(), Shutdown::Killed);
    assert_eq!(directory.cleaned_offset(NAME), None);
    let log = directory.open_log(NAME, small(), NOW).unwrap();
    assert_eq!((log.start_offset(), log.end_offset()), (0, 10));
    assert_eq!(offsets(&log, 0).len(), 10);
}

#[test]
fn a_log_that_is_moved_to_where_its_namesake_was_has_nothing_of_it() {
    let root = tempfile::tempdir().unwrap();
    let directory = directory(root.path());
    checkpointed_and_deleted(&directory, NAME);
    let copy = State::Future.name_of(NAME);
    let copy = directory.open_log(&copy, small(), NOW).unwrap();
    fill(&copy, 1);
    directory.rename(&copy, NAME, State::Live).unwrap();
    assert_eq!(naming(root.path(), NAME), [""; 0]);
}

#[test]
fn a_compacted_log_made_anew_is_not_taken_for_compacted_after_a_clean_stop() {
    let root = tempfile::tempdir().unwrap();
    let old = directory(root.path());
    checkpointed_and_deleted(&old, NAME);
    old.close(1).unwrap();
    drop(old);
    assert_eq!(naming(root.path(), NAME), [""; 0]);
}

#[test]
fn many_logs_made_anew_cost_one_write_of_each_checkpoint_and_new_names_none() {
    let root = tempfile::tempdir().unwrap();
    let writes = Arc::new(AtomicUsize::new(0));
    let disk = {
        let writes = Arc::clone(&writes);
        watched(move |call, path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if call == Call::Rename && name.ends_with("offset-checkpoint.tmp") {
                writes.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let directory = open(disk, root.path());
    let names: Vec<String> = (0..20).map(|at| format!("orders-{at}")).collect();
    for name in &names {
        checkpointed_and_deleted(&directory, name);
    }
    writes.store(0, Ordering::Relaxed);
    for at in 0..20 {
        let name = format!("payments-{at}");
        directory.open_log(&name, small(), NOW).unwrap();
    }
    assert_eq!(writes.load(Ordering::Relaxed), 0);
    for name in &names {
        directory.open_log(name, small(), NOW).unwrap();
    }
    assert_eq!(writes.load(Ordering::Relaxed), 3);
}

#[test]
fn a_log_may_be_deleted_while_a_flush_writes_its_leader_epochs() {
    let root = tempfile::tempdir().unwrap();
    let (arrived, at_the_sync) = mpsc::sync_channel(1);
    let (renamed, go_on) = mpsc::sync_channel(1);
    let go_on = Mutex::new(go_on);
    let directory = {
        let disk = watched(move |call, path| {
            if call == Call::Sync && path.ends_with("leader-epoch-checkpoint.tmp") {
                let _ = arrived.send(());
                // Either the rename comes in between, or it waits for us.
                let patience = Duration::from_millis(300);
                let _ = go_on.lock().unwrap().recv_timeout(patience);
            }
            Ok(())
        });
        open(disk, root.path())
    };
    let log = directory.open_log(NAME, small(), NOW).unwrap();
    fill(&log, 1);
    thread::scope(|scope| {
        let flush = scope.spawn(|| log.flush());
        at_the_sync.recv().unwrap();
        directory.rename(&log, NAME, State::Deleted).unwrap();
        let _ = renamed.send(());
        let _ = flush.join().unwrap();
    });
    assert!(!directory.is_offline());
}

/// Whatever looks at a log.
fn look_at_all_of(log: &Log, directory: &Directory) {
    let online = |what: &str| assert!(!directory.is_offline(), "after {what}");
    let _ = log.retain(log.end_offset(), NOW);
    online("retain");
    let _ = log.dirty(None, log.end_offset(), NOW);
    online("dirty");
    let _ = log.offset_for_timestamp(NOW);
    online("offset_for_timestamp");
    let _ = log.offset_of_max_timestamp();
    online("offset_of_max_timestamp");
    let _ = log.read(0, 1000, true, log.end_offset());
    online("read");
    let _ = log.aborted(0, log.end_offset(), NOW);
    online("aborted");
    let _ = log.append(&batch(200, NOW), 1, NOW);
    online("append");
    let _ = log.flush();
    online("flush");
    let _ = log.truncate(5, NOW);
    online("truncate");
}

#[test]
fn who_still_looks_at_a_removed_log_finds_it_gone() {
    let root = tempfile::tempdir().unwrap();
    {
        let directory = directory(root.path());
        let log = directory.open_log(NAME, small(), NOW).unwrap();
        fill(&log, 40);
        assert!(log.segment_count() > 2);
        directory.close(1).unwrap();
    }
    let directory = directory(root.path());
    let log = directory.open_log(NAME, small(), NOW).unwrap();
    let slice = log.read(0, 1000, true, 400).unwrap();
    let name = directory.rename(&log, NAME, State::Deleted).unwrap();
    directory.remove(&name).unwrap();
    let read = slice.read();
    assert!(matches!(read, Err(Error::Gone { .. })), "{read:?}");
    look_at_all_of(&log, &directory);
    assert!(matches!(log.flush(), Err(Error::Gone { .. })));

    // One that was never read, and whose records have no time.
    let log = directory.open_log("orders-1", small(), NOW).unwrap();
    log.append(&batch(1, -1), 0, NOW).unwrap();
    let slice = log.read(0, 1000, true, 1).unwrap();
    directory.remove("orders-1").unwrap();
    look_at_all_of(&log, &directory);
    drop(log);
    assert!(matches!(slice.read(), Err(Error::Gone { .. })));
    assert!(!directory.is_offline());
}

#[test]
fn who_still_reads_of_a_removed_log_finds_it_gone_when_its_file_is_not_open_any_more() {
    let root = tempfile::tempdir().unwrap();
    let directory = Directory::open(disk::real(), root.path(), &identity(), 1, NOW).unwrap();
    let log = directory.open_log(NAME, small(), NOW).unwrap();
    fill(&log, 1);
    let slice = log.read(0, 1000, true, 10).unwrap();
    drop(log);
    directory.remove(NAME).unwrap();
    let other = directory.open_log("orders-1", small(), NOW).unwrap();
    fill(&other, 1);
    assert!(matches!(slice.read(), Err(Error::Gone { .. })));
    assert!(!directory.is_offline());
}

#[test]
fn a_compaction_stops_when_retention_has_removed_what_it_was_about_to_read() {
    let root = tempfile::tempdir().unwrap();
    let config = Config {
        compact: true,
        retention_ms: 1000,
        file_delete_delay_ms: 0,
        ..small()
    };
    {
        let directory = directory(root.path());
        let log = directory.open_log(NAME, config.clone(), NOW).unwrap();
        fill(&log, 40);
        directory.close(1).unwrap();
    }
    let directory = directory(root.path());
    let log = directory.open_log(NAME, config, NOW).unwrap();
    let dirty = log.dirty(None, 400, NOW).unwrap();
    let settings = Settings {
        map_bytes: 1 << 16,
        map_load_factor: 0.9,
        buffer_bytes: 1 << 12,
        decompressed_max: 1 << 20,
    };
    let removed = AtomicBool::new(false);
    log.compact(&dirty, &settings, NOW, &mut |_| {
        if !removed.swap(true, Ordering::Relaxed) {
            assert!(log.retain(400, NOW + 5000).unwrap() > 2);
            log.retain(400, NOW + 5000).unwrap();
        }
        Flow::Continue
    })
    .unwrap();
    assert!(removed.into_inner());
    assert!(!directory.is_offline());
}

#[test]
fn an_append_does_not_wait_while_retention_waits_for_the_disk() {
    let root = tempfile::tempdir().unwrap();
    {
        let directory = directory(root.path());
        let log = directory.open_log(NAME, small(), NOW).unwrap();
        fill(&log, 40);
        directory.close(1).unwrap();
    }
    thread_local! {
        static RETAINS: Cell<bool> = const { Cell::new(false) };
    }
    /// During which calls of retention an append went through, and during which it did not.
    #[derive(Default)]
    struct Seen {
        free: BTreeSet<String>,
        stalled: BTreeSet<String>,
    }
    let (ask, asked) = mpsc::channel::<mpsc::SyncSender<()>>();
    let ask = Arc::new(Mutex::new(Some(ask)));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let disk = {
        let (ask, seen) = (Arc::clone(&ask), Arc::clone(&seen));
        watched(move |call, path| {
            let slow = [
                Call::Open,
                Call::Stat,
                Call::Remove,
                Call::SyncDir,
                Call::Sync,
            ];
            if !RETAINS.get() || !slow.contains(&call) {
                return Ok(());
            }
            let suffix = path.extension().unwrap_or_default().to_string_lossy();
            let what = format!("{call:?} {suffix}");
            let mut seen = seen.lock().unwrap();
            if seen.free.contains(&what) || seen.stalled.contains(&what) {
                return Ok(());
            }
            let (done, appended) = mpsc::sync_channel(1);
            if let Some(ask) = &*ask.lock().unwrap() {
                ask.send(done).unwrap();
            }
            match appended.recv_timeout(Duration::from_secs(5)) {
                Ok(()) => seen.free.insert(what),
                Err(_) => seen.stalled.insert(what),
            };
            Ok(())
        })
    };
    let config = Config {
        retention_ms: 1000,
        file_delete_delay_ms: 0,
        ..small()
    };
    let directory = open(disk, root.path());
    let log = directory.open_log(NAME, config, NOW).unwrap();
    fill(&log, 1);
    thread::scope(|scope| {
        let appending = scope.spawn(|| {
            for done in asked {
                log.append(&batch(1, NOW + 9000), 0, NOW + 9000).unwrap();
                let _ = done.send(());
            }
        });
        RETAINS.set(true);
        let deleted = log.retain(400, NOW + 5000);
        let removed = log.retain(400, NOW + 5000);
        RETAINS.set(false);
        ask.lock().unwrap().take();
        appending.join().unwrap();
        assert!(deleted.unwrap() > 2);
        removed.unwrap();
    });
    let seen = seen.lock().unwrap();
    let calls = ["Open timeindex", "Remove deleted", "SyncDir "];
    assert_eq!(seen.stalled, BTreeSet::new(), "free: {:?}", seen.free);
    for call in calls {
        assert!(seen.free.contains(call), "{call}: {:?}", seen.free);
    }
}
