//! The threads that sync: one for who waits, one for what has become too much.
//!
//! Whoever needs an offset to be durable asks and is called back; all that came while one sync was under way share
//! the next. What is unflushed in all logs together is kept below a bound by the other thread, so that a restart
//! after a power cut has little to check; that is gigabytes at a time, for which nobody who asked shall wait.

use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::Volume;
use crate::{error::Error, log::Log};

/// What may be unflushed in all logs of a directory before we step in. Checking it after a power cut
/// takes about as long as reading it from the disk: Kafka has up to a segment of each partition to
/// check, 1 GiB by default. Until then the kernel writes at its own pace, and what retention deletes
/// before its turn comes is never written at all.
const UNFLUSHED_MAX: u64 = 2 << 30;

/// Called when a flush is done, with the offset below which the log is now durable: it is less than
/// was asked for if the log was truncated meanwhile. Runs on the flusher: it must not block.
pub type Flushed = Box<dyn FnOnce(Result<i64, Error>) + Send>;

/// What there is to flush.
#[derive(Default)]
pub(super) struct Flusher {
    unflushed: AtomicU64,
    queue: Mutex<Queue>,
    asked: Condvar,
    pressed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Request>,
    /// Too much is unflushed.
    pressure: bool,
    closed: bool,
}

pub(super) struct Request {
    pub(super) log: Arc<Log>,
    pub(super) upto: i64,
    pub(super) done: Flushed,
}

impl Volume {
    pub(crate) fn add_unflushed(&self, bytes: u64) {
        let before = self.flusher.unflushed.fetch_add(bytes, Ordering::Relaxed);
        if before <= UNFLUSHED_MAX && before + bytes > UNFLUSHED_MAX {
            self.flusher.queue().pressure = true;
            self.flusher.pressed.notify_all();
        }
    }

    pub(crate) fn flushed(&self, bytes: u64) {
        self.flusher.unflushed.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn ask(&self, request: Request) {
        let mut queue = self.flusher.queue();
        if queue.closed {
            drop(queue);
            let dir = self.root.clone();
            (request.done)(Err(Error::Offline { dir }));
            return;
        }
        queue.waiting.push(request);
        drop(queue);
        self.flusher.asked.notify_all();
    }

    pub(super) fn run_flusher(&self) {
        loop {
            let waiting = {
                let mut queue = self.flusher.queue();
                loop {
                    if !queue.waiting.is_empty() {
                        break std::mem::take(&mut queue.waiting);
                    }
                    if queue.closed {
                        return;
                    }
                    queue = wait(&self.flusher.asked, queue);
                }
            };
            self.serve(waiting);
        }
    }

    pub(super) fn run_writeback(&self) {
        loop {
            let mut queue = self.flusher.queue();
            while !queue.pressure && !queue.closed {
                queue = wait(&self.flusher.pressed, queue);
            }
            if queue.closed {
                return;
            }
            queue.pressure = false;
            drop(queue);
            self.relieve();
        }
    }

    /// One sync for each log, whoever many wait for it.
    fn serve(&self, mut waiting: Vec<Request>) {
        // By log; the order of those who wait for the same stays.
        waiting.sort_by_key(|request| Arc::as_ptr(&request.log));
        let distinct = waiting.chunk_by(|a, b| Arc::ptr_eq(&a.log, &b.log));
        let logs: Vec<Arc<Log>> = distinct.map(|group| Arc::clone(&group[0].log)).collect();
        if logs.len() > 1 {
            // All disks writes under way before the first is waited for.
            for log in &logs {
                log.start_writeback();
            }
        }
        let mut waiting = waiting.into_iter().peekable();
        for log in logs {
            let mut group = Vec::new();
            while let Some(request) = waiting.next_if(|request| Arc::ptr_eq(&request.log, &log)) {
                group.push(request);
            }
            let upto = group.iter().map(|request| request.upto).max().unwrap_or(0);
            let flushed = match log.flushed_offset() {
                flushed if flushed >= upto => Ok(flushed),
                _ => log.flush(),
            };
            let mut failure = None;
            for request in group {
                let result = match &flushed {
                    Ok(offset) => Ok(*offset),
                    Err(Error::Gone { path }) => Err(Error::Gone { path: path.clone() }),
                    Err(_) => Err(Error::Offline {
                        dir: self.root.clone(),
                    }),
                };
                match failure {
                    None => failure = Some((request.done, result)),
                    Some(_) => (request.done)(result),
                }
            }
            // The first to wait gets the failure itself.
            if let Some((done, result)) = failure {
                done(flushed.or(result));
            }
        }
    }

    /// Flushes the logs with the most to flush until half the bound is left.
    fn relieve(&self) {
        let mut logs: Vec<_> = self
            .logs()
            .values()
            .filter_map(|known| known.log.upgrade())
            .map(|log| (log.unflushed_bytes(), log))
            .collect();
        logs.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (_, log) in logs {
            if self.flusher.unflushed.load(Ordering::Relaxed) <= UNFLUSHED_MAX / 2 {
                break;
            }
            match log.flush() {
                Ok(_) | Err(Error::Gone { .. }) => (),
                // What failed is in the log and has taken the directory offline.
                Err(_) => return,
            }
        }
        let _ = self.write_positions();
        // More came in than went out meanwhile: go on.
        if self.flusher.unflushed.load(Ordering::Relaxed) > UNFLUSHED_MAX {
            self.flusher.queue().pressure = true;
        }
    }

    /// Has both threads end when they are done with what they have.
    pub(super) fn stop_flushing(&self) {
        self.flusher.queue().closed = true;
        self.flusher.asked.notify_all();
        self.flusher.pressed.notify_all();
    }
}

impl Flusher {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition
        .wait(guard)
        .unwrap_or_else(PoisonError::into_inner)
}
