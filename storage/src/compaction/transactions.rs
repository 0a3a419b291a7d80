//! Which transactional batches compaction may drop. Pure.
//!
//! Fed with the batches of a log in order, and with its index of aborted transactions ahead of them:
//!
//! - records of an aborted transaction are of no use to anybody, now that it is known to be;
//! - a marker is needed as long as records of its transaction are left. When the last of them has
//!   gone it may go too, though not at once: a reader that has seen the records must find it.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::batch::Header;

use crate::{aborted::Aborted, producers::Marker};

/// What became of the transactions up to a batch.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// Aborted ones that are still to come: by first offset and producer.
    ahead: BTreeMap<(i64, i64), Aborted>,
    /// Aborted ones that have begun, by producer, and whether records of theirs were seen.
    aborted: HashMap<i64, (Aborted, bool)>,
    /// Producers with records whose marker is still to come.
    ongoing: HashSet<i64>,
    /// Aborted ones whose records were seen: what the index of the compacted segment must have.
    kept: Vec<Aborted>,
}

impl Transactions {
    /// Aborted transactions with records from the next batch on. The same may come twice.
    pub(crate) fn announce(&mut self, aborted: impl IntoIterator<Item = Aborted>) {
        for entry in aborted {
            let key = (entry.first_offset, entry.producer_id);
            let begun = self
                .aborted
                .get(&entry.producer_id)
                .is_some_and(|(known, _)| known.first_offset == entry.first_offset);
            if !begun {
                self.ahead.insert(key, entry);
            }
        }
    }

    /// The next batch of records. True if they were aborted.
    pub(crate) fn records(&mut self, header: &Header) -> bool {
        self.begin_up_to(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&header.producer_id) {
            Some((_, seen)) => {
                *seen = true;
                true
            }
            None => {
                self.ongoing.insert(header.producer_id);
                false
            }
        }
    }

    /// The next marker, or `None` for a control batch without one. True if its transaction has no
    /// records any more.
    pub(crate) fn control(&mut self, header: &Header, marker: Option<ControlBatch>) -> bool {
        self.begin_up_to(header.last_offset());
        match marker {
            Some(ControlBatch::Empty) => true,
            Some(ControlBatch::Marker(marker)) if marker.commit => {
                !self.ongoing.remove(&header.producer_id)
            }
            Some(ControlBatch::Marker(_)) => match self.aborted.remove(&header.producer_id) {
                Some((entry, true)) => {
                    self.kept.push(entry);
                    false
                }
                _ => true,
            },
            None => false,
        }
    }

    /// The aborted transactions whose markers have come since the last call.
    pub(crate) fn take_kept(&mut self) -> Vec<Aborted> {
        std::mem::take(&mut self.kept)
    }

    fn begin_up_to(&mut self, offset: i64) {
        while let Some(entry) = self.ahead.first_entry()
            && entry.key().0 <= offset
        {
            let entry = entry.remove();
            self.aborted
                .entry(entry.producer_id)
                .or_insert((entry, false));
        }
    }
}

/// What a control batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ControlBatch {
    /// Nothing any more: compaction has been here.
    Empty,
    Marker(Marker),
}
