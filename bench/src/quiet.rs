//! What a figure of milliseconds needs of the machine: nothing to write back, processors that do not fall asleep,
//! and to know how late a thread is woken all the same.
//!
//! A virtual processor that has nothing to do is given back to the host, and comes again when the host has one to spare:
//! on an idle virtual machine one sleep of 0.5 ms in a thousand was seen to last 3 ms longer, and 0.2 ms longer once something of
//! the lowest kind kept the processors busy. A record at a time is four such wakings, with either broker.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{errno::Errno, libc};

use crate::{Result, stats::quantile};

const NAP: Duration = Duration::from_micros(500);

/// How much later than asked for a thread was woken that slept for half a millisecond at a time, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lateness {
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// Does `work`, and looks meanwhile how late the machine wakes a thread.
pub(crate) fn with_lateness<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Lateness)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| sleep_and_look(&done));
        let outcome = work();
        done.store(true, Ordering::Release);
        let lateness = sleeper.join().map_err(|_| "the sleeping thread panicked")?;
        Ok((outcome?, lateness))
    })
}

// Microseconds far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn sleep_and_look(done: &AtomicBool) -> Lateness {
    let mut late = Vec::new();
    while !done.load(Ordering::Acquire) {
        let begin = Instant::now();
        thread::sleep(NAP);
        let over = begin.elapsed().saturating_sub(NAP);
        late.push(u64::try_from(over.as_micros()).unwrap_or(u64::MAX));
    }
    let mut at = |share| quantile(&mut late, share) as f64 / 1e3;
    Lateness {
        p99: at(0.99),
        p999: at(0.999),
    }
}

/// Does `work` while no processor falls asleep.
pub(crate) fn awake<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = AtomicBool::new(false);
    let processors = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| keep_awake(&done));
        }
        let outcome = work();
        done.store(true, Ordering::Release);
        outcome
    })
}

/// Takes what nobody wants of a processor, one call of the kernel at a time.
fn keep_awake(done: &AtomicBool) {
    if give_way().is_ok() {
        while !done.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    }
}

/// From now on the calling thread, and those it starts, run only where nobody else wants to: who does has the processor at
/// once. That is what the kernel's idle class is for, and it needs no privilege; with a mere `nice` of 19 a thread was seen to
/// keep a processor for 3 ms from one that had just been woken.
pub(crate) fn give_way() -> Result<()> {
    let lowest = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads `lowest`, changes how the calling thread is scheduled, and touches no other memory of ours.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const lowest) };
    Errno::result(done)?;
    Ok(())
}
