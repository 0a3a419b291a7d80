//! Moving a replica to another log directory of this broker.
//!
//! The log is copied under another name (`-future`) while the original goes on serving. When little is
//! left, appends wait for a moment: the rest is copied and synced, the copy takes the original's place,
//! and the original's files go as those of a deleted topic do.
//!
//! - A stop before that moment leaves a copy that the next start throws away. A stop between the two
//!   renames leaves two whole logs, and nothing was appended to either since: the next start uses the one
//!   that the controller knows of and deletes the other. There is never none.
//! - A move can be called off, or sent elsewhere, until the copy has taken the original's place.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use protocol::batch::{Batch, BatchError, Header};
use storage::{
    directory::{Directory, State},
    error::Error,
    log::Log,
};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{Doomed, Partitions};
use crate::partition::{Home, Partition};

/// Read and written at a time.
const CHUNK: usize = 1 << 20;

/// What has been copied is made durable when less than this is left.
const REST_MAX: u64 = 4 << 20;

/// Appends, and all who want the partition meanwhile, are made to wait when less than this is left: it is
/// copied and made durable before they may go on.
const LAST_MAX: u64 = 64 << 10;

/// Chunks, after which they wait whatever is left: somebody writes as fast as this copies.
const CHUNKS_MAX: usize = 64;

/// Replicas on their way, by topic id and partition index.
#[derive(Debug, Default)]
pub(super) struct Relocations {
    underway: Mutex<HashMap<(Uuid, i32), Arc<Relocation>>>,
}

/// A replica on its way to another directory.
#[derive(Debug)]
pub struct Relocation {
    partition: Arc<Partition>,
    to: Arc<Directory>,
    /// Not there before the copy has begun.
    copy: OnceLock<Arc<Log>>,
    called_off: AtomicBool,
}

/// Why a replica stays where it is.
enum Stay {
    CalledOff,
    Failed(Error),
}

impl From<Error> for Stay {
    fn from(err: Error) -> Self {
        Self::Failed(err)
    }
}

impl Partitions {
    /// Begins to move a replica, and returns at once. A move to somewhere else is called off; where the
    /// replica is already, it stays.
    pub fn relocate(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        to: Arc<Directory>,
        clock: fn() -> i64,
    ) {
        let key = key(partition);
        let mut underway = self.relocations.lock();
        if let Some(earlier) = underway.get(&key) {
            if Arc::ptr_eq(&earlier.to, &to) {
                return;
            }
            earlier.called_off.store(true, Ordering::Release);
            underway.remove(&key);
        }
        if Arc::ptr_eq(&partition.home().directory, &to) {
            return;
        }
        let relocation = Arc::new(Relocation {
            partition: Arc::clone(partition),
            to,
            copy: OnceLock::new(),
            called_off: AtomicBool::new(false),
        });
        underway.insert(key, Arc::clone(&relocation));
        drop(underway);
        let partitions = Arc::clone(self);
        // Nobody waits for it: what there is to say is logged, and the directories can be looked at.
        drop(tokio::task::spawn_blocking(move || {
            partitions.run(&relocation, clock);
        }));
    }

    /// The moves that are under way.
    pub fn relocations(&self) -> Vec<Arc<Relocation>> {
        self.relocations.lock().values().cloned().collect()
    }

    fn run(&self, relocation: &Arc<Relocation>, clock: fn() -> i64) {
        let Relocation { partition, to, .. } = &**relocation;
        let name = partition.name().to_string();
        let moved = self.relocate_now(relocation, &name, clock);
        let mut underway = self.relocations.lock();
        let key = key(partition);
        // Another move of the same replica may have begun.
        if underway
            .get(&key)
            .is_some_and(|newest| Arc::ptr_eq(newest, relocation))
        {
            underway.remove(&key);
        }
        drop(underway);
        let dir = to.path().display();
        match moved {
            Ok(()) => return info!(partition = name, %dir, "moved to another log directory"),
            Err(Stay::CalledOff) => info!(partition = name, %dir, "the move was called off"),
            Err(Stay::Failed(err)) => {
                error!(partition = name, %dir, %err, "cannot move to the log directory");
            }
        }
        if let Some(copy) = relocation.copy.get()
            && let Err(err) = to.remove(&copy.name())
        {
            error!(partition = name, %dir, %err, "cannot remove the copy of a move that failed");
        }
    }

    fn relocate_now(
        &self,
        relocation: &Relocation,
        name: &str,
        clock: fn() -> i64,
    ) -> Result<(), Stay> {
        let Relocation {
            partition,
            to,
            copy,
            called_off,
        } = relocation;
        let original = partition.log();
        let config = (*original.config()).clone();
        let log = to.open_log(&State::Future.name_of(name), config, clock())?;
        let log = copy.get_or_init(|| log);
        let _as_it_is = original.keep_from_compaction();
        to.set_topic_id(&log.name(), partition.name().topic_id)?;
        begin(&original, log, clock())?;
        let check = || match called_off.load(Ordering::Acquire) {
            true => Err(Stay::CalledOff),
            false => Ok(()),
        };
        while log.size() + REST_MAX < original.size() {
            check()?;
            if !copy_some(&original, log, clock())? {
                break;
            }
        }
        to.flush(log, log.end_offset())?;
        for _ in 0..CHUNKS_MAX {
            check()?;
            if log.size() + LAST_MAX >= original.size() || !copy_some(&original, log, clock())? {
                break;
            }
        }
        to.flush(log, log.end_offset())?;

        let mut renamed = Ok(String::new());
        let left = partition.rehome(|home, leader_epoch| {
            check()?;
            while copy_some(&home.log, log, clock())? {}
            log.set_config((*home.log.config()).clone());
            log.delete_records(home.log.start_offset())?;
            log.assign_epoch(leader_epoch)?;
            to.flush(log, log.end_offset())?;
            to.rename(log, name, State::Live)?;
            // The copy has replaced the original: from here on nothing makes the move fail.
            let cleaned = home.directory.cleaned_offset(name);
            if let Some(Err(err)) = cleaned.map(|offset| to.set_cleaned_offset(name, offset)) {
                warn!(partition = name, %err, "the log will be compacted from its start");
            }
            renamed = home.directory.rename(&home.log, name, State::Deleted);
            Ok::<_, Stay>(Home {
                log: Arc::clone(log),
                directory: Arc::clone(to),
            })
        })?;
        let Some(left) = left else {
            return Err(Stay::CalledOff);
        };
        let mut state = self.lock();
        match renamed {
            Ok(doomed) => state.doomed.push(Doomed {
                at: clock().saturating_add(left.log.config().file_delete_delay_ms),
                directory: Arc::clone(&left.directory),
                name: doomed,
            }),
            Err(err) => {
                let dir = left.directory.path().display();
                error!(partition = name, %dir, %err, "cannot delete the log that has been moved away");
            }
        }
        state.unplaced.insert(partition.name().topic_id);
        drop(state);
        self.attention.notify_one();
        Ok(())
    }
}

impl Relocations {
    fn lock(&self) -> MutexGuard<'_, HashMap<(Uuid, i32), Arc<Relocation>>> {
        // Each change of the map is one call: a panic has not left half of one.
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relocation {
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    pub fn directory(&self) -> &Arc<Directory> {
        &self.to
    }

    /// How large the copy is, and how many offsets it is behind.
    pub fn progress(&self) -> (u64, i64) {
        let end = self.partition.log().end_offset();
        match self.copy.get() {
            Some(copy) => (copy.size(), end.saturating_sub(copy.end_offset()).max(0)),
            None => (0, end),
        }
    }
}

fn key(partition: &Partition) -> (Uuid, i32) {
    (partition.name().topic_id, partition.name().index)
}

/// Makes the copy start where the original does, or where its first batch does: that may begin below
/// the start offset, and in a compacted log above.
fn begin(original: &Log, copy: &Log, now: i64) -> Result<(), Error> {
    let start = original.start_offset();
    let batches = batches(original, start)?;
    let first = batches.first().map(|first| first.header().base_offset);
    copy.truncate_fully(first.map_or(start, |first| first.min(start)), now)
}

/// Copies a chunk. `false` when there is nothing left.
fn copy_some(original: &Log, copy: &Log, now: i64) -> Result<bool, Error> {
    let next = copy.end_offset();
    if original.end_offset() <= next {
        return Ok(false);
    }
    match batches(original, next) {
        // Retention has overtaken the copy.
        Err(Error::OffsetOutOfRange { .. }) => begin(original, copy, now).map(|()| true),
        Err(err) => Err(err),
        Ok(batches) if batches.is_empty() => Ok(false),
        Ok(batches) => copy.append_assigned(&batches, now).map(|_| true),
    }
}

/// Whole batches from the one with `offset` on.
fn batches(log: &Log, offset: i64) -> Result<Vec<Batch>, Error> {
    let slice = log.read(offset, CHUNK, true, log.end_offset())?;
    let mut bytes = slice.read()?;
    let mut batches = Vec::new();
    while let Some(batch) = next_batch(&mut bytes) {
        batches.push(batch.map_err(|_| Error::Corrupt {
            path: log.dir(),
            position: 0,
            reason: "a batch that is to be moved to another directory does not pass its check",
        })?);
    }
    Ok(batches)
}

/// `None` at the end, or where the last batch is cut off.
fn next_batch(bytes: &mut Bytes) -> Option<Result<Batch, BatchError>> {
    let size = Header::parse(bytes).ok()?.size;
    (size <= bytes.len()).then(|| Batch::parse(bytes.split_to(size)))
}
