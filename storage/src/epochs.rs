//! Which leader wrote what: leader epoch to the first offset written in it. Pure.
//!
//! Followers find with it where their log parts from a new leader's. It can be rebuilt from the
//! batches, which carry their epoch, so it is written to `leader-epoch-checkpoint` only before the
//! batches that would tell are no longer scanned: when the log is flushed past them, and at close.

/// Epochs and their first offsets, both ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Epochs {
    entries: Vec<(i32, i64)>,
}

impl Epochs {
    /// From a checkpoint. Entries that do not ascend are what Kafka drops too.
    pub fn new(entries: Vec<(i32, i64)>) -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, start) in entries {
            epochs.assign(epoch, start);
        }
        epochs
    }

    pub fn entries(&self) -> &[(i32, i64)] {
        &self.entries
    }

    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// A batch of this epoch begins at `start`. True if that is news.
    pub fn assign(&mut self, epoch: i32, start: i64) -> bool {
        // Known already, which is so for all batches of an epoch but the first.
        if epoch < 0 || self.latest() == Some(epoch) {
            return false;
        }
        // What contradicts the newcomer is a leftover: the log is the truth.
        let kept = self
            .entries
            .partition_point(|(known, first)| *known < epoch && *first < start);
        self.entries.truncate(kept);
        self.entries.push((epoch, start));
        true
    }

    /// The epoch in which the record at `offset` was (or will be) written.
    pub fn at(&self, offset: i64) -> Option<i32> {
        let count = self.entries.partition_point(|(_, first)| *first <= offset);
        count.checked_sub(1).map(|at| self.entries[at].0)
    }

    /// The largest epoch known that is not above `epoch`, and where it ends: the answer to
    /// OffsetsForLeaderEpoch. `None` for an epoch we have not come to.
    pub fn end_of(&self, epoch: i32, log_end: i64) -> Option<(i32, i64)> {
        if epoch < 0 {
            return None;
        }
        if self.latest() == Some(epoch) {
            return Some((epoch, log_end));
        }
        let above = self.entries.partition_point(|(known, _)| *known <= epoch);
        let end = self.entries.get(above)?.1;
        let floor = match above.checked_sub(1) {
            Some(at) => self.entries[at].0,
            // Older than anything here: what it wrote ended where our oldest begins.
            None => epoch,
        };
        Some((floor, end))
    }

    /// Forgets what is at or after `end`. True if that changed anything.
    pub fn truncate_from_end(&mut self, end: i64) -> bool {
        let kept = self.entries.partition_point(|(_, first)| *first < end);
        let changed = kept < self.entries.len();
        self.entries.truncate(kept);
        changed
    }

    /// Forgets epochs that ended before `start`; the one it lies in now begins there.
    pub fn truncate_from_start(&mut self, start: i64) -> bool {
        let passed = self.entries.partition_point(|(_, first)| *first <= start);
        let Some(holds_start) = passed.checked_sub(1) else {
            return false;
        };
        let changed = holds_start > 0 || self.entries[0].1 != start;
        self.entries.drain(..holds_start);
        self.entries[0].1 = start;
        changed
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs() -> Epochs {
        Epochs::new(vec![(1, 0), (3, 10), (4, 25)])
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins_and_the_newest_at_the_log_end() {
        let epochs = epochs();
        assert_eq!(epochs.end_of(1, 40), Some((1, 10)));
        assert_eq!(epochs.end_of(2, 40), Some((1, 10)), "the one below answers");
        assert_eq!(epochs.end_of(3, 40), Some((3, 25)));
        assert_eq!(epochs.end_of(4, 40), Some((4, 40)));
        assert_eq!(epochs.end_of(5, 40), None, "not here yet");
        assert_eq!(epochs.end_of(0, 40), Some((0, 0)), "gone from here");
        assert_eq!(epochs.end_of(-1, 40), None);
    }

    #[test]
    fn offsets_are_found_in_their_epoch() {
        let epochs = epochs();
        assert_eq!(epochs.at(0), Some(1));
        assert_eq!(epochs.at(9), Some(1));
        assert_eq!(epochs.at(10), Some(3));
        assert_eq!(epochs.at(1000), Some(4));
        assert_eq!(Epochs::default().at(0), None);
        assert_eq!(Epochs::new(vec![(7, 5)]).at(4), None);
    }

    #[test]
    fn a_new_epoch_drops_what_contradicts_it() {
        let mut epochs = epochs();
        assert!(!epochs.assign(4, 30));
        assert!(epochs.assign(5, 20));
        assert_eq!(epochs.entries(), [(1, 0), (3, 10), (5, 20)]);
        assert!(epochs.assign(2, 30));
        assert_eq!(epochs.entries(), [(1, 0), (2, 30)]);
    }

    #[test]
    fn truncation_keeps_the_epoch_the_boundary_lies_in() {
        let mut epochs = epochs();
        assert!(epochs.truncate_from_start(12));
        assert_eq!(epochs.entries(), [(3, 12), (4, 25)]);
        assert!(!epochs.truncate_from_start(12));
        assert!(epochs.truncate_from_end(25));
        assert_eq!(epochs.entries(), [(3, 12)]);
        assert!(!epochs.truncate_from_end(25));
        assert!(!epochs.truncate_from_start(3));
    }
}
