//! A machine's records as batches, and back.

use protocol::{
    batch::{Batch, Builder},
    compression::Compression,
    records::{Encoded, control::ControlRecord},
};

use super::loading::LoadError;
use crate::coordinator::{Machine, Origin, Producer};

/// The most that the records of one batch may take when decompressed. Coordinators wrote them, and a client's
/// share of each was bounded then.
pub(super) const DECOMPRESSED_MAX: usize = 256 << 20;

/// Records as one batch, byte for byte as a real broker writes them: the sequence is 0 with and without a producer.
/// `None` if they do not fit, or if their keys and values take more than `bytes_max`.
pub(in crate::coordinator) fn batch_of<M: Machine>(
    records: &[M::Record],
    producer: Option<Producer>,
    compression: Compression,
    bytes_max: usize,
    now: i64,
) -> Option<Batch> {
    let batch = match producer {
        None => Builder::new().producer(-1, -1, 0),
        Some(producer) => Builder::new()
            .producer(producer.id, producer.epoch, 0)
            .transactional(),
    };
    let mut batch = batch.compression(compression, None);
    let mut encoded = Encoded::default();
    let mut bytes = 0;
    for record in records {
        M::encode(record, &mut encoded).ok()?;
        bytes += encoded.key().len() + encoded.value().map_or(0, <[u8]>::len);
        if bytes_max < bytes {
            return None;
        }
        batch.push(now, Some(encoded.key()), encoded.value(), &[]);
    }
    batch.build()
}

/// Replays a batch as it stands in the log. Returns how many records it has.
pub(in crate::coordinator) fn replay<M: Machine>(
    machine: &mut M,
    batch: &Batch,
) -> Result<u64, LoadError> {
    let header = batch.header();
    let producer = Producer {
        id: header.producer_id,
        epoch: header.producer_epoch,
    };
    let mut record_count = 0;
    for record in batch.records(DECOMPRESSED_MAX)? {
        let record = record?;
        record_count += 1;
        let key = record.key.unwrap_or_default();
        if header.is_control() {
            let control = ControlRecord::decode(key, record.value.unwrap_or_default())?;
            match control {
                ControlRecord::Commit(_) => machine.end_transaction(producer, true),
                ControlRecord::Abort(_) => machine.end_transaction(producer, false),
                _ => (),
            }
        } else if let Some(decoded) = M::decode(key, record.value)? {
            let origin = Origin {
                offset: record.offset,
                producer: header.is_transactional().then_some(producer),
            };
            machine.replay(decoded, origin);
        }
    }
    Ok(record_count)
}
