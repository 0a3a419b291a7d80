//! Logs that are deleted while others still look at them, or made anew under the same name: neither costs the
//! directory, nor the new log its records.

mod common;
#[path = "common/watched.rs"]
mod watched;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use common::{NOW, batch, directory, identity, offsets, small};
use storage::{
    checkpoint,
    directory::{Directory, State},
    disk::{self, Disk},
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
