//! A position in a log that only moves forward, and those who wait for it to move.
//!
//! The high watermark travels upward through this type: the partition advances it and does not know
//! who listens. A waiter may listen to many positions at once (a Fetch asks for hundreds of
//! partitions), so waiting is registering one [`Waiter`] with each of them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicI64, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// A position that starts somewhere and only grows.
#[derive(Debug)]
pub struct Watermark {
    position: AtomicI64,
    /// How many waiters are in the list: an append without listeners must not take the lock.
    count: AtomicUsize,
    waiters: Mutex<Vec<Arc<Waiter>>>,
}

/// Someone who waits for any of several watermarks to move.
///
/// A wake-up that comes before [`Waiter::woken`] is awaited is kept, so the order is: register, look,
/// then wait.
#[derive(Debug, Default)]
pub struct Waiter {
    notify: Notify,
}

impl Waiter {
    /// Returns when a watermark this waiter is registered with has moved since the last call.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Watermark {
    pub fn new(position: i64) -> Self {
        Self {
            position: AtomicI64::new(position),
            count: AtomicUsize::new(0),
            waiters: Mutex::default(),
        }
    }

    pub fn get(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }

    /// Moves forward to `position`; a smaller one changes nothing.
    pub fn advance(&self, position: i64) {
        let before = self.position.fetch_max(position, Ordering::SeqCst);
        if before < position {
            self.wake();
        }
    }

    /// Moves to `position` even when that is backward: after a truncation, or when a log's start
    /// passes its watermark.
    pub fn reset(&self, position: i64) {
        self.position.store(position, Ordering::SeqCst);
        self.wake();
    }

    /// Wakes everyone without moving: what they wait for may have become impossible.
    pub fn wake(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for waiter in self.list().iter() {
            waiter.notify.notify_one();
        }
    }

    pub fn register(&self, waiter: &Arc<Waiter>) {
        let mut list = self.list();
        list.push(Arc::clone(waiter));
        self.count.store(list.len(), Ordering::SeqCst);
    }

    pub fn forget(&self, waiter: &Arc<Waiter>) {
        let mut list = self.list();
        if let Some(at) = list.iter().position(|other| Arc::ptr_eq(other, waiter)) {
            list.swap_remove(at);
        }
        if list.is_empty() {
            // 10,000 partitions that were once listened to must not keep their lists.
            *list = Vec::new();
        }
        self.count.store(list.len(), Ordering::SeqCst);
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Waiter>>> {
        // The list is valid after every statement above, so a panic elsewhere leaves it usable.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wake_up_between_looking_and_waiting_is_not_lost() {
        let (a, b) = (Watermark::new(0), Watermark::new(5));
        let waiter = Arc::new(Waiter::default());
        a.register(&waiter);
        b.register(&waiter);
        b.advance(6);
        waiter.woken().await;
        assert_eq!(b.get(), 6);
    }

    #[tokio::test]
    async fn only_movement_forward_wakes() {
        let mark = Watermark::new(10);
        let waiter = Arc::new(Waiter::default());
        mark.register(&waiter);
        mark.advance(9);
        assert_eq!(mark.get(), 10);
        tokio::select! {
            biased;
            () = waiter.woken() => panic!("nothing moved"),
            () = std::future::ready(()) => (),
        }
        mark.forget(&waiter);
        assert_eq!(mark.count.load(Ordering::SeqCst), 0);
    }
}
