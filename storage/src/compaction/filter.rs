//! What is left of a batch. Pure.

use bytes::Bytes;
use protocol::{
    batch::{Batch, BatchError, Builder, Header},
    record::View,
};

/// What is known of a batch before its records are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Its transaction was aborted, or it is a marker of one without records.
    pub(crate) obsolete: bool,
    /// Its header stays when its records are gone: it says which sequence its producer was at, or
    /// where the log ended.
    pub(crate) header_stays: bool,
}

/// How a record stands to the others of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There is a newer one.
    Outdated,
    /// No newer one is known, of all that were looked at.
    Newest,
    /// It comes after all that were looked at.
    Undecided,
}

/// When compaction takes place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time {
    pub(crate) now: i64,
    pub(crate) delete_retention_ms: i64,
}

/// What becomes of a batch.
#[derive(Debug)]
pub(crate) enum Left {
    Nothing,
    /// As it was.
    All,
    /// With fewer records, or with a delete horizon.
    Part(Bytes),
}

/// Counts records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) read: u64,
    pub(crate) kept: u64,
    /// Without a key, on a compacted topic: dropped.
    pub(crate) keyless: u64,
}

/// Takes from the batch what is not needed any more.
pub(crate) fn filter(
    batch: &Batch,
    verdict: Verdict,
    time: Time,
    decompressed_max: usize,
    standing: impl Fn(&View<'_>) -> Standing,
    counts: &mut Counts,
) -> Result<Left, BatchError> {
    let header = batch.header();
    let past_horizon = header
        .delete_horizon()
        .is_some_and(|horizon| horizon <= time.now);
    // A marker goes some time after the last record of its transaction.
    let all_go = verdict.obsolete && (!header.is_control() || past_horizon);
    if all_go {
        counts.read += u64::from(header.record_count.unsigned_abs());
        return Ok(if verdict.header_stays {
            emptied(header)
        } else {
            Left::Nothing
        });
    }
    let mut kept = Vec::new();
    let mut tombstones = false;
    let records = batch.records(decompressed_max)?;
    for record in records.views() {
        let record = record?;
        counts.read += 1;
        if !header.is_control() {
            let goes = match standing(&record) {
                Standing::Undecided => false,
                _ if record.key.is_none() => {
                    counts.keyless += 1;
                    true
                }
                Standing::Outdated => true,
                Standing::Newest => record.value.is_none() && past_horizon,
            };
            if goes {
                continue;
            }
        }
        tombstones |= record.value.is_none();
        kept.push(record);
    }
    counts.kept += kept.len() as u64;
    if kept.is_empty() {
        return Ok(if verdict.header_stays {
            emptied(header)
        } else {
            Left::Nothing
        });
    }
    let expires = tombstones || (header.is_control() && verdict.obsolete);
    let new_horizon = expires && !header.has_delete_horizon();
    if kept.len() as u64 == u64::from(header.record_count.unsigned_abs()) && !new_horizon {
        return Ok(Left::All);
    }
    let mut builder = Builder::like(header);
    if new_horizon {
        builder = builder.delete_horizon(time.now.saturating_add(time.delete_retention_ms));
    }
    for record in &kept {
        push(&mut builder, record);
    }
    Ok(rebuilt(builder, Left::All))
}

fn push(builder: &mut Builder, record: &View<'_>) {
    let headers: Vec<(&[u8], Option<&[u8]>)> = record.headers().collect();
    builder.push_at(
        record.offset_delta,
        record.timestamp,
        record.key,
        record.value,
        &headers,
    );
}

/// Its header alone, as Kafka writes it: no codec, no horizon, no base timestamp.
fn emptied(header: &Header) -> Left {
    if header.record_count == 0 {
        return Left::All;
    }
    let bare = Header {
        base_timestamp: -1,
        attributes: header.attributes & !DELETE_HORIZON,
        ..*header
    };
    let builder = Builder::like(&bare).max_timestamp(header.max_timestamp);
    rebuilt(builder, Left::All)
}

const DELETE_HORIZON: i16 = 0x40;

fn rebuilt(builder: Builder, otherwise: Left) -> Left {
    match builder.build() {
        Some(batch) => Left::Part(batch.bytes().clone()),
        // Larger than a batch may be, which recompressing could make it.
        None => otherwise,
    }
}
