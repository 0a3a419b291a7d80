//! Producer id to its last five batches: duplicates, gaps, fencing, open transactions. Pure, with
//! the format of the `.snapshot` file.
//!
//! The rules are those of Kafka 4.4's ProducerAppendInfo:
//!
//! - a batch whose sequences are those of one of the last five is a duplicate, answered with the
//!   offsets of the first time;
//! - otherwise its first sequence must follow the last one (after `i32::MAX` comes 0); a producer
//!   not known here may begin anywhere, for what it wrote before may have been deleted;
//! - a new epoch begins at sequence 0, an older epoch is fenced.
//!
//! [`Producers::check`] changes nothing, so that a refused or failed append leaves no trace;
//! [`Producers::apply`] is the only mutator, for an append, a follower's copy and recovery alike.

use std::collections::{BTreeMap, HashMap, VecDeque};

use protocol::{
    batch::{Batch, Header},
    records::control::ControlRecord,
};

use crate::error::Error;

/// Who asks for an append, which decides what is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A producer: epoch and sequence must fit.
    Client,
    /// A producer in a transaction, in which this log must have part.
    Transaction {
        standing: Standing,
        /// The producer's epoch is another one in every transaction (KIP-890), so that what it writes first in
        /// one has sequence 0.
        bumps: bool,
    },
    /// A group coordinator that writes down what a producer commits in a transaction, without sequences.
    Offsets { standing: Standing },
    /// A transaction coordinator writing a marker. From transaction version 2 (KIP-890) on, each
    /// marker bumps the epoch, so a marker with the current epoch is from the past.
    Coordinator { transaction_version: i16 },
    /// A leader whose log is copied, or our own log read again: what is written is true.
    Replication,
}

/// What was known of a producer's transaction when a batch of it was let through.
///
/// Whoever begins a transaction in a log that its coordinator does not know to be part of it holds back the log's
/// readers for good, for no marker will come. So the coordinator is asked first, and its answer is good for as long
/// as no marker of the producer comes between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody was asked.
    Unverified,
    /// It had begun here already.
    Open,
    /// It had not, but its coordinator says that this log is part of it. This many markers of the producer had
    /// been written here before it was asked.
    Verified { marker_count: u32 },
}

/// A batch that was appended, as it is remembered to recognise its retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    pub last_sequence: i32,
    pub last_offset: i64,
    pub offset_delta: i32,
    pub timestamp: i64,
}

impl Remembered {
    pub fn first_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }

    pub fn first_sequence(&self) -> i32 {
        // Backwards over the wrap, as `sequence_after` goes forwards.
        self.last_sequence.wrapping_sub(self.offset_delta) & i32::MAX
    }
}

const BATCHES_KEPT: usize = 5;

/// What is known about one producer in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    pub epoch: i16,
    /// Of the coordinator that wrote its last marker; -1 before the first.
    pub coordinator_epoch: i32,
    /// Of its last batch or marker.
    pub last_timestamp: i64,
    /// When the batch or marker was appended or found in the log; -1 if that was before the snapshot. Records may be of
    /// any time, so silence is measured from the later of the two.
    pub last_seen: i64,
    pub current_txn_first_offset: Option<i64>,
    /// Of the current epoch, oldest first, at most five.
    pub batches: VecDeque<Remembered>,
}

impl Producer {
    fn unknown() -> Producer {
        Producer {
            epoch: NO_EPOCH,
            coordinator_epoch: -1,
            last_timestamp: -1,
            last_seen: -1,
            current_txn_first_offset: None,
            batches: VecDeque::new(),
        }
    }

    pub fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(-1, |last| last.last_sequence)
    }

    fn set_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }
}

const NO_EPOCH: i16 = -1;

/// The end of a transaction, as its control record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    pub commit: bool,
    pub coordinator_epoch: i32,
    pub timestamp: i64,
}

impl Marker {
    /// The marker in a control batch. `None` for other control records (a leader change) and for a
    /// batch that compaction has emptied.
    pub fn of(batch: &Batch) -> Result<Option<Marker>, Error> {
        const MALFORMED: Error = Error::InvalidRecord {
            reason: "a control record does not follow the format",
        };
        // Markers are a few dozen bytes; nobody compresses them.
        const SIZE_MAX: usize = 1 << 16;
        let mut records = batch.records(SIZE_MAX).map_err(|_| MALFORMED)?;
        let Some(record) = records.next() else {
            return Ok(None);
        };
        let record = record.map_err(|_| MALFORMED)?;
        let (Some(key), Some(value)) = (record.key, record.value) else {
            return Err(MALFORMED);
        };
        let (commit, marker) = match ControlRecord::decode(key, value) {
            Ok(ControlRecord::Commit(marker)) => (true, marker),
            Ok(ControlRecord::Abort(marker)) => (false, marker),
            Ok(_) => return Ok(None),
            Err(_) => return Err(MALFORMED),
        };
        Ok(Some(Marker {
            commit,
            coordinator_epoch: marker.coordinator_epoch,
            timestamp: record.timestamp,
        }))
    }
}

/// Whether a batch is to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Append,
    /// It is here already.
    Duplicate(Remembered),
}

/// A transaction that has just ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    pub producer_id: i64,
    pub first_offset: i64,
    /// Of the marker.
    pub last_offset: i64,
    pub commit: bool,
    /// Up to which everything was decided once this one was.
    pub last_stable_offset: i64,
}

/// An open transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ongoing {
    pub first_offset: i64,
    /// Of what its producer has written last (ms).
    pub last_timestamp: i64,
}

/// All producers of a partition.
#[derive(Debug, Clone, Default)]
pub struct Producers {
    known: HashMap<i64, Producer>,
    /// Open transactions: first offset to producer id.
    ongoing: BTreeMap<i64, i64>,
    /// How many markers of a producer were applied since this was loaded: see [`Standing`]. Nothing of it is kept.
    marker_counts: HashMap<i64, u32>,
}

impl Producers {
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.known.iter().map(|(id, producer)| (*id, producer))
    }

    pub fn get(&self, producer_id: i64) -> Option<&Producer> {
        self.known.get(&producer_id)
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// The open transaction that began first.
    pub fn oldest_ongoing(&self) -> Option<Ongoing> {
        let (first_offset, producer_id) = self.ongoing.iter().next()?;
        let producer = self.known.get(producer_id)?;
        Some(Ongoing {
            first_offset: *first_offset,
            last_timestamp: producer.last_timestamp,
        })
    }

    /// Has the producer's transaction begun here? If it has not, this holds if the transaction's coordinator says that
    /// this log is part of it.
    pub fn standing(&self, producer_id: i64, epoch: i16) -> Standing {
        match self.known.get(&producer_id) {
            Some(known) if is_open(known, epoch) => Standing::Open,
            _ => Standing::Verified {
                marker_count: self.marker_count(producer_id),
            },
        }
    }

    fn marker_count(&self, producer_id: i64) -> u32 {
        self.marker_counts
            .get(&producer_id)
            .copied()
            .unwrap_or_default()
    }

    /// Is what was known of the transaction still so?
    fn holds(&self, standing: Standing, header: &Header, producer: &Producer) -> bool {
        match standing {
            Standing::Unverified => true,
            _ if is_open(producer, header.producer_epoch) => true,
            Standing::Open => false,
            Standing::Verified { marker_count } => {
                marker_count == self.marker_count(header.producer_id)
            }
        }
    }

    /// Whether the batch of a producer may be appended.
    pub fn check(
        &self,
        header: &Header,
        marker: Option<&Marker>,
        origin: Origin,
    ) -> Result<Verdict, Error> {
        if origin == Origin::Replication {
            return Ok(Verdict::Append);
        }
        let unknown = Producer::unknown();
        let producer = self.known.get(&header.producer_id).unwrap_or(&unknown);
        if header.is_control() {
            return match marker {
                Some(marker) => check_marker(producer, header, marker, origin),
                None => Ok(Verdict::Append),
            };
        }
        let (standing, is_client) = match origin {
            Origin::Transaction { standing, .. } => (standing, true),
            Origin::Offsets { standing } => (standing, false),
            _ => (Standing::Unverified, true),
        };
        if is_client && let Some(duplicate) = duplicate(producer, header) {
            return Ok(Verdict::Duplicate(duplicate));
        }
        if header.is_transactional() && !self.holds(standing, header, producer) {
            return Err(Error::InvalidTxnState {
                producer_id: header.producer_id,
            });
        }
        if header.producer_epoch < producer.epoch {
            return Err(Error::InvalidProducerEpoch {
                producer_id: header.producer_id,
                found: header.producer_epoch,
                current: producer.epoch,
            });
        }
        let bumps = matches!(origin, Origin::Transaction { bumps: true, .. });
        if is_client && !in_sequence(producer, header, bumps) {
            return Err(Error::OutOfOrderSequence {
                producer_id: header.producer_id,
                producer_epoch: header.producer_epoch,
                last: producer.last_sequence(),
                found: header.base_sequence,
            });
        }
        if producer.current_txn_first_offset.is_some() && !header.is_transactional() {
            return Err(Error::InvalidTxnState {
                producer_id: header.producer_id,
            });
        }
        Ok(Verdict::Append)
    }

    /// The batch is in the log at `base_offset`.
    pub fn apply(
        &mut self,
        header: &Header,
        base_offset: i64,
        marker: Option<&Marker>,
        now: i64,
    ) -> Option<Completed> {
        let last_offset = base_offset + i64::from(header.last_offset_delta);
        if header.is_control() {
            return self.end_transaction(header, last_offset, marker?, now);
        }
        let producer = self
            .known
            .entry(header.producer_id)
            .or_insert_with(Producer::unknown);
        producer.set_epoch(header.producer_epoch);
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Remembered {
            last_sequence: header.last_sequence(),
            last_offset,
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        producer.last_timestamp = header.max_timestamp;
        producer.last_seen = now;
        if header.is_transactional() && producer.current_txn_first_offset.is_none() {
            producer.current_txn_first_offset = Some(base_offset);
            self.ongoing.insert(base_offset, header.producer_id);
        }
        None
    }

    fn end_transaction(
        &mut self,
        header: &Header,
        last_offset: i64,
        marker: &Marker,
        now: i64,
    ) -> Option<Completed> {
        let producer = self
            .known
            .entry(header.producer_id)
            .or_insert_with(Producer::unknown);
        let marker_count = self.marker_counts.entry(header.producer_id).or_default();
        *marker_count = marker_count.wrapping_add(1);
        producer.set_epoch(header.producer_epoch);
        producer.coordinator_epoch = marker.coordinator_epoch;
        producer.last_timestamp = marker.timestamp;
        producer.last_seen = now;
        // A marker without a transaction (the coordinator retried it) changes nothing to readers.
        let first_offset = producer.current_txn_first_offset.take()?;
        self.ongoing.remove(&first_offset);
        Some(Completed {
            producer_id: header.producer_id,
            first_offset,
            last_offset,
            commit: marker.commit,
            last_stable_offset: self
                .oldest_ongoing()
                .map_or(last_offset + 1, |oldest| oldest.first_offset),
        })
    }

    /// Forgets who has been silent for `expiration_ms`. An open transaction is never forgotten:
    /// only its marker may end it.
    pub fn expire(&mut self, expiration_ms: i64, now: i64) {
        self.known.retain(|_, producer| {
            let last = producer.last_timestamp.max(producer.last_seen);
            producer.current_txn_first_offset.is_some() || now.saturating_sub(last) < expiration_ms
        });
        self.marker_counts
            .retain(|id, _| self.known.contains_key(id));
    }

    /// The content of a `.snapshot` file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PREFIX_SIZE + self.known.len() * ENTRY_SIZE);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        // Memory ends long before a producer count does.
        let count = i32::try_from(self.known.len()).unwrap_or(i32::MAX);
        bytes.extend_from_slice(&count.to_be_bytes());
        for (id, producer) in &self.known {
            let last = producer.batches.back();
            bytes.extend_from_slice(&id.to_be_bytes());
            bytes.extend_from_slice(&producer.epoch.to_be_bytes());
            bytes.extend_from_slice(&producer.last_sequence().to_be_bytes());
            bytes.extend_from_slice(&last.map_or(-1, |last| last.last_offset).to_be_bytes());
            bytes.extend_from_slice(&last.map_or(0, |last| last.offset_delta).to_be_bytes());
            bytes.extend_from_slice(&producer.last_timestamp.to_be_bytes());
            bytes.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
            let first = producer.current_txn_first_offset.unwrap_or(-1);
            bytes.extend_from_slice(&first.to_be_bytes());
        }
        let crc = crc32c::crc32c(&bytes[CRC_END..]);
        bytes[2..CRC_END].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// From the content of a `.snapshot` file.
    pub fn decode(bytes: &[u8]) -> Result<Producers, &'static str> {
        let mut producers = Producers::default();
        for (id, producer) in decode_snapshot(bytes)? {
            if let Some(first) = producer.current_txn_first_offset {
                producers.ongoing.insert(first, id);
            }
            producers.known.insert(id, producer);
        }
        Ok(producers)
    }
}

/// The producers in a `.snapshot` file, by id, in its order. Of the last five batches only the last is kept there.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Vec<(i64, Producer)>, &'static str> {
    let mut reader = Reader(bytes);
    if reader.i16()? != VERSION {
        return Err("the snapshot's version is unknown");
    }
    let crc = u32::from_be_bytes(reader.take()?);
    if crc != crc32c::crc32c(&bytes[CRC_END..]) {
        return Err("the snapshot's CRC is wrong");
    }
    let count = reader.i32()?;
    let mut producers = Vec::new();
    for _ in 0..count {
        let id = reader.i64()?;
        let epoch = reader.i16()?;
        let last_sequence = reader.i32()?;
        let last_offset = reader.i64()?;
        let offset_delta = reader.i32()?;
        let last_timestamp = reader.i64()?;
        let coordinator_epoch = reader.i32()?;
        let first = reader.i64()?;
        let batches = (last_offset >= 0).then_some(Remembered {
            last_sequence,
            last_offset,
            offset_delta,
            timestamp: last_timestamp,
        });
        let producer = Producer {
            epoch,
            coordinator_epoch,
            last_timestamp,
            last_seen: -1,
            current_txn_first_offset: (first >= 0).then_some(first),
            batches: batches.into_iter().collect(),
        };
        producers.push((id, producer));
    }
    Ok(producers)
}

fn duplicate(producer: &Producer, header: &Header) -> Option<Remembered> {
    if header.producer_epoch != producer.epoch {
        return None;
    }
    let (first, last) = (header.base_sequence, header.last_sequence());
    producer
        .batches
        .iter()
        .find(|batch| batch.first_sequence() == first && batch.last_sequence == last)
        .copied()
}

fn is_open(producer: &Producer, epoch: i16) -> bool {
    producer.current_txn_first_offset.is_some() && producer.epoch == epoch
}

fn in_sequence(producer: &Producer, header: &Header, bumps: bool) -> bool {
    let first = header.base_sequence;
    if producer.epoch == NO_EPOCH {
        return first == 0 || !bumps;
    }
    if header.producer_epoch != producer.epoch {
        return first == 0;
    }
    let last = producer.last_sequence();
    i64::from(first) == i64::from(last) + 1 || (first == 0 && last == i32::MAX)
}

fn check_marker(
    producer: &Producer,
    header: &Header,
    marker: &Marker,
    origin: Origin,
) -> Result<Verdict, Error> {
    let bumps = matches!(
        origin,
        Origin::Coordinator { transaction_version } if transaction_version >= 2
    );
    let current = producer.epoch;
    let stale = if bumps {
        // The marker's epoch is the transaction's plus one; at the largest there is no room.
        let retry = header.producer_epoch == current
            && (producer.current_txn_first_offset.is_none() || header.producer_epoch == i16::MAX);
        header.producer_epoch <= current && !retry
    } else {
        header.producer_epoch < current
    };
    if stale {
        return Err(Error::InvalidProducerEpoch {
            producer_id: header.producer_id,
            found: header.producer_epoch,
            current,
        });
    }
    if marker.coordinator_epoch < producer.coordinator_epoch {
        return Err(Error::CoordinatorFenced {
            producer_id: header.producer_id,
            found: marker.coordinator_epoch,
            current: producer.coordinator_epoch,
        });
    }
    Ok(Verdict::Append)
}

const VERSION: i16 = 1;
const CRC_END: usize = 6;
const PREFIX_SIZE: usize = 10;
const ENTRY_SIZE: usize = 46;

/// Big-endian numbers off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self
            .0
            .split_first_chunk()
            .ok_or("the snapshot is cut off")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn i16(&mut self) -> Result<i16, &'static str> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, &'static str> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, &'static str> {
        self.take().map(i64::from_be_bytes)
    }
}
