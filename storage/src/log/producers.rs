//! What is known of producers and their transactions, and its snapshots.

use std::{io::IoSlice, sync::Arc};

use super::{Log, Transactions, Writer};
use crate::{
    aborted::Aborted,
    disk::{Mode, write_all},
    error::Error,
    files::file_name,
    producers::{Ongoing, Producer, Producers, Standing},
    recovery::{self, SNAPSHOT},
    segment::Segment,
};

/// Unless producers are very many, this much log at most lies between the last snapshot of producer
/// state and a crash.
pub(super) const SNAPSHOT_INTERVAL: u64 = 4 << 20;

impl Log {
    /// What is known of each producer, by id.
    pub fn producers(&self, now: i64) -> Result<Vec<(i64, Producer)>, Error> {
        let mut writer = self.writer()?;
        let producers = self.producers_of(&mut writer, now)?;
        Ok(producers
            .iter()
            .map(|(id, known)| (id, known.clone()))
            .collect())
    }

    /// Has the producer's transaction begun here? Fails if the producer has had a later epoch here and `bumps`: then its
    /// transaction is over, whatever its coordinator says.
    pub fn standing(
        &self,
        producer_id: i64,
        epoch: i16,
        bumps: bool,
        now: i64,
    ) -> Result<Standing, Error> {
        let mut writer = self.writer()?;
        let producers = self.producers_of(&mut writer, now)?;
        match producers.get(producer_id) {
            Some(known) if bumps && epoch < known.epoch => Err(Error::InvalidProducerEpoch {
                producer_id,
                found: epoch,
                current: known.epoch,
            }),
            _ => Ok(producers.standing(producer_id, epoch)),
        }
    }

    /// Where the oldest transaction begins that is open, or whose end is not below the high
    /// watermark; the high watermark if there is none before it. Not below the start offset, to which records may have
    /// been deleted since: a consumer is sent there.
    pub fn last_stable_offset(&self, high_watermark: i64, now: i64) -> Result<i64, Error> {
        self.load_producers(now)?;
        let mut transactions = self.transactions();
        transactions
            .ended
            .retain(|(_, last)| *last >= high_watermark);
        let ended = transactions.ended.iter().map(|(first, _)| *first);
        let oldest = transactions.oldest.map(|oldest| oldest.first_offset);
        let first = ended.chain(oldest).min();
        let start_offset = self.start_offset();
        Ok(first.map_or(high_watermark, |first| {
            first.max(start_offset).min(high_watermark)
        }))
    }

    /// The open transaction that began first, as far as it is known: nothing is read for this, and `None` stands for
    /// "nobody has asked about producers or transactions since the log was opened" too.
    pub fn oldest_transaction(&self) -> Option<Ongoing> {
        self.transactions().oldest
    }

    /// Aborted transactions with records in `from..to`.
    pub fn aborted(&self, from: i64, to: i64, now: i64) -> Result<Vec<Aborted>, Error> {
        // Loading completes what a crash may have lost of the index.
        self.load_producers(now)?;
        self.unless_gone(|| self.aborted_once(from, to))
    }

    fn aborted_once(&self, from: i64, to: i64) -> Result<Vec<Aborted>, Error> {
        let segments: Vec<_> = {
            let view = self.view();
            let floor = view.segments.range(..=from).next_back();
            let floor = floor.map_or(from, |(base_offset, _)| *base_offset);
            view.segments
                .range(floor..)
                .map(|(_, s)| s.clone())
                .collect()
        };
        aborted_in(&segments, from, to)
    }

    /// Whether questions about producers and transactions are answered from memory. If not, the next one waits for
    /// [`Self::load_producers`].
    pub fn knows_producers(&self) -> bool {
        self.transactions().known
    }

    /// Reads, from a disk that may be slow, what is known of producers since the last snapshot: as a rule a few MiB of batch
    /// headers. Nothing if it is known.
    pub fn load_producers(&self, now: i64) -> Result<(), Error> {
        if !self.knows_producers() {
            let mut writer = self.writer()?;
            self.producers_of(&mut writer, now)?;
        }
        Ok(())
    }

    /// The producers, loaded from the last snapshot and the log after it if they are not.
    pub(super) fn producers_of<'a>(
        &self,
        writer: &'a mut Writer,
        now: i64,
    ) -> Result<&'a mut Producers, Error> {
        if writer.producers.is_none() {
            let (start_offset, end_offset, segments) = {
                let view = self.view();
                (view.start_offset, view.end_offset, view.segments.clone())
            };
            let loaded = recovery::load_producers(
                &self.place,
                &segments,
                &mut writer.snapshots,
                (start_offset, end_offset),
                &self.config(),
                now,
            )?;
            let mut transactions = self.transactions();
            transactions.known = true;
            transactions.oldest = loaded.oldest_ongoing();
            writer.producers = Some(loaded);
        }
        // Just filled.
        Ok(writer.producers.get_or_insert_default())
    }

    /// Writes producer state and index entries where a crash of the process finds them.
    pub(super) fn write_snapshot(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.active.spill()?;
        self.write_snapshot_at(writer, writer.next_offset)
    }

    pub(super) fn write_snapshot_at(&self, writer: &mut Writer, offset: i64) -> Result<(), Error> {
        writer.bytes_since_snapshot = 0;
        let Some(producers) = &writer.producers else {
            return Ok(());
        };
        let bytes = producers.encode();
        writer.snapshot_size = bytes.len() as u64;
        // Not synced: it has a CRC, and without it the batches are read.
        self.place
            .at("write", &file_name(offset, SNAPSHOT), |path| {
                let file = self.place.volume.open(path, Mode::Replace)?;
                write_all(&*file, &mut [IoSlice::new(&bytes)], 0)
            })?;
        // Between segment starts only the newest is of use.
        let active_base = writer.active.segment.base_offset;
        let stale: Vec<i64> = writer
            .snapshots
            .range(active_base + 1..offset.max(active_base + 1))
            .copied()
            .collect();
        for offset in stale {
            self.place.remove(&file_name(offset, SNAPSHOT))?;
            writer.snapshots.remove(&offset);
        }
        writer.snapshots.insert(offset);
        Ok(())
    }

    /// What is known of producers goes back to before the truncation when next asked for.
    pub(super) fn forget_producers(&self, writer: &mut Writer, end: i64) -> Result<(), Error> {
        writer.producers = None;
        *self.transactions() = Transactions::default();
        for offset in writer.snapshots.split_off(&(end + 1)) {
            self.place.remove(&file_name(offset, SNAPSHOT))?;
        }
        Ok(())
    }
}

/// Aborted transactions with records in `from..to`, by the indexes of the segment with `from` and of those after it.
pub(super) fn aborted_in(
    segments: &[Arc<Segment>],
    from: i64,
    to: i64,
) -> Result<Vec<Aborted>, Error> {
    let mut found = Vec::new();
    for segment in segments {
        if segment.aborted_within(from, to, &mut found)? {
            break;
        }
    }
    Ok(found)
}
