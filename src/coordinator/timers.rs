//! Deadlines by what they are for (pure): setting one again moves it.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

#[derive(Debug)]
pub(crate) struct Timers<K> {
    by_time: BTreeSet<(i64, K)>,
    by_key: HashMap<K, i64>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self {
            by_time: BTreeSet::new(),
            by_key: HashMap::new(),
        }
    }
}

impl<K: Ord + Hash + Clone> Timers<K> {
    /// `key` is due at `at` (ms), and no longer when it was due before.
    pub(crate) fn set(&mut self, key: K, at: i64) {
        if let Some(before) = self.by_key.insert(key.clone(), at) {
            if before == at {
                return;
            }
            let entry = (before, key);
            self.by_time.remove(&entry);
            self.by_time.insert((at, entry.1));
        } else {
            self.by_time.insert((at, key));
        }
    }

    pub(crate) fn cancel(&mut self, key: &K) {
        if let Some((key, at)) = self.by_key.remove_entry(key) {
            self.by_time.remove(&(at, key));
        }
    }

    /// When `key` is due, if it is.
    pub(crate) fn get(&self, key: &K) -> Option<i64> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn next(&self) -> Option<i64> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the one that has been due longest.
    pub(crate) fn pop(&mut self, now: i64) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_again_is_due_once_and_then() {
        let mut timers = Timers::default();
        timers.set("a", 10);
        timers.set("b", 20);
        timers.set("a", 30);
        assert_eq!(timers.next(), Some(20));
        assert_eq!(timers.pop(19), None);
        assert_eq!(timers.pop(30), Some("b"));
        assert_eq!(timers.pop(30), Some("a"));
        assert_eq!(timers.pop(30), None);
    }

    #[test]
    fn what_is_cancelled_is_never_due() {
        let mut timers = Timers::default();
        timers.set("a", 10);
        timers.cancel(&"a");
        timers.cancel(&"b");
        assert_eq!((timers.next(), timers.pop(99)), (None, None));
    }
}
