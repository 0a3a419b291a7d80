//! What a client's batch must be before it enters a log, and what it becomes there (pure).
//!
//! The rules are Kafka's `LogValidator`. A batch that satisfies them is stored as it came; only
//! LogAppendTime, a wrong max timestamp and a `compression.type` other than the client's make a new one.

use bytes::Bytes;
use protocol::{
    batch::{Batch, BatchError, Header, TimestampType},
    compression::Compression,
    validate,
};

/// The part of a topic's configuration that judges batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// `max.message.bytes`: of a whole batch as it is stored, header included.
    pub max_message_bytes: usize,
    /// `max.decompressed.message.bytes`.
    pub max_decompressed_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far behind the broker's clock a record may be.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far ahead.
    pub timestamp_after_max_ms: i64,
    /// `compression.type` and its level; `None` is `producer`: as the client chose.
    pub compression: Option<(Compression, Option<i32>)>,
    /// A compacted topic keeps the newest record of each key, so each must have one.
    pub keys_required: bool,
}

/// Why a batch was turned away. Nothing of it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are not one batch.
    Malformed(BatchError),
    /// It is a batch, but its records break the format's or the topic's rules.
    Records(validate::Refusal),
    /// A record's time is outside the topic's window, or the client claimed to know the time of the
    /// append. `range` is what was allowed, in milliseconds.
    Timestamp {
        errors: validate::RecordErrors,
        range: (i64, i64),
    },
    TooLarge {
        size: usize,
        max: usize,
    },
}

/// A batch that may be appended.
#[derive(Debug)]
pub struct Admitted {
    pub batch: Batch,
    /// The time it was stamped with, for a topic with LogAppendTime.
    pub log_append_time: Option<i64>,
}

/// What a batch may decompress to for it to be judged in no time.
const DECOMPRESSED_QUICKLY: usize = 8 << 20;

/// Judges a batch as [`admit`] does, unless that may take long: then it is `None`.
pub fn admit_quickly(bytes: Bytes, rules: &Rules, now: i64) -> Option<Result<Admitted, Refusal>> {
    let is_compressed =
        Header::parse(&bytes).is_ok_and(|header| header.compression() != Compression::None);
    if !is_compressed || rules.max_decompressed_bytes <= DECOMPRESSED_QUICKLY {
        return Some(admit(bytes, rules, now));
    }
    let quick = Rules {
        max_decompressed_bytes: DECOMPRESSED_QUICKLY,
        ..rules.clone()
    };
    match admit(bytes, &quick, now) {
        Err(Refusal::Records(validate::Refusal::Malformed(BatchError::DecompressedTooLarge {
            ..
        }))) => None,
        judged => Some(judged),
    }
}

/// Judges a batch as it came from a client at `now` (ms).
pub fn admit(bytes: Bytes, rules: &Rules, now: i64) -> Result<Admitted, Refusal> {
    let bytes = Batch::only(bytes).map_err(Refusal::Malformed)?;
    // Kafka looks at the size before it reads the batch, and again if it has recompressed.
    check_size(bytes.len(), rules)?;
    let batch = Batch::parse(bytes).map_err(Refusal::Malformed)?;

    let range = (
        now.saturating_sub(rules.timestamp_before_max_ms),
        now.saturating_add(rules.timestamp_after_max_ms),
    );
    let append_time = rules.timestamp_type == TimestampType::LogAppendTime;
    let summary = validate::client_batch(
        &batch,
        &validate::Rules {
            keyed: rules.keys_required,
            timestamps: (!append_time).then_some(range.0..=range.1),
            decompressed_max: rules.max_decompressed_bytes,
        },
    )
    .map_err(|refusal| match refusal {
        validate::Refusal::Records(errors) if errors.any_timestamp => {
            Refusal::Timestamp { errors, range }
        }
        refusal => Refusal::Records(refusal),
    })?;

    let batch = match rules.compression {
        Some((codec, level)) if codec != batch.header().compression() => {
            let max = rules.max_message_bytes;
            let recompressed = batch
                .recompressed(codec, level, max)
                .map_err(Refusal::Malformed)?;
            recompressed.map_err(|size| Refusal::TooLarge { size, max })?
        }
        _ => batch,
    };
    if append_time {
        return Ok(Admitted {
            batch: batch.with_log_append_time(now),
            log_append_time: Some(now),
        });
    }
    Ok(Admitted {
        batch: batch.with_create_time(summary.max_timestamp),
        log_append_time: None,
    })
}

fn check_size(size: usize, rules: &Rules) -> Result<(), Refusal> {
    if rules.max_message_bytes < size {
        return Err(Refusal::TooLarge {
            size,
            max: rules.max_message_bytes,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::batch::Builder;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn rules() -> Rules {
        Rules {
            max_message_bytes: 1000,
            max_decompressed_bytes: 1 << 20,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compression: None,
            keys_required: false,
        }
    }

    fn batch(timestamp: i64, value: &[u8]) -> Bytes {
        let mut builder = Builder::new();
        builder.push(timestamp, Some(b"k"), Some(value), &[]);
        builder
            .build()
            .expect("a record makes a batch")
            .bytes()
            .clone()
    }

    #[test]
    fn what_a_client_sent_is_stored_as_it_came() {
        let sent = batch(NOW, b"value");
        let admitted = admit(sent.clone(), &rules(), NOW).expect("a plain batch");
        assert_eq!(admitted.batch.bytes(), &sent);
        assert_eq!(admitted.log_append_time, None);
    }

    #[test]
    fn a_record_more_than_an_hour_ahead_is_refused() {
        let refused = admit(batch(NOW + 3_600_001, b""), &rules(), NOW);
        assert!(
            matches!(refused, Err(Refusal::Timestamp { range: (_, end), .. }) if end == NOW + 3_600_000)
        );
        assert!(admit(batch(NOW + 3_600_000, b""), &rules(), NOW).is_ok());
    }

    #[test]
    fn a_topic_with_append_time_stamps_its_batches() {
        let rules = Rules {
            timestamp_type: TimestampType::LogAppendTime,
            ..rules()
        };
        let admitted = admit(batch(5, b""), &rules, NOW).expect("any time is right");
        assert_eq!(admitted.log_append_time, Some(NOW));
        assert_eq!(admitted.batch.header().max_timestamp, NOW);
        assert_eq!(
            admitted.batch.header().timestamp_type(),
            TimestampType::LogAppendTime
        );
    }

    #[test]
    fn a_topic_may_ask_for_its_own_codec() {
        let rules = Rules {
            compression: Some((Compression::Lz4, None)),
            ..rules()
        };
        let value = vec![b'a'; 500];
        let admitted = admit(batch(NOW, &value), &rules, NOW).expect("a plain batch");
        assert_eq!(admitted.batch.header().compression(), Compression::Lz4);
        assert!(admitted.batch.bytes().len() < 200);
        let records: Vec<_> = admitted
            .batch
            .records(1 << 20)
            .expect("lz4 decompresses")
            .collect();
        assert_eq!(records.len(), 1);
        assert_eq!(
            records[0].as_ref().expect("a record").value.as_deref(),
            Some(&value[..])
        );
    }

    #[test]
    fn what_takes_long_is_not_judged_quickly() {
        let rules = Rules {
            max_message_bytes: 1 << 20,
            max_decompressed_bytes: 1 << 30,
            ..rules()
        };
        let zeros = |size: usize| {
            let mut builder = Builder::new().compression(Compression::Zstd, None);
            builder.push(NOW, None, Some(&vec![0; size]), &[]);
            builder.build().expect("a batch").bytes().clone()
        };
        for (size, is_quick) in [(1 << 20, true), (DECOMPRESSED_QUICKLY, false)] {
            let judged = admit_quickly(zeros(size), &rules, NOW);
            assert_eq!(judged.is_some(), is_quick, "{size}");
            assert!(judged.is_none_or(|judged| judged.is_ok()), "{size}");
            assert!(admit(zeros(size), &rules, NOW).is_ok(), "{size}");
        }
    }

    #[test]
    fn records_are_the_same_in_whatever_codec_they_come_and_go() {
        let read = |batch: &Batch| -> Vec<_> {
            let records = batch.records(1 << 20).expect("they decompress");
            let records = records.map(|record| record.expect("a record"));
            let of = |it: protocol::record::Record| (it.offset, it.key, it.value);
            records.map(of).collect()
        };
        for from in Compression::ALL {
            let mut builder = Builder::new().compression(from, None).producer(7, 3, 41);
            for (at, value) in [&[b'a'; 100][..], b"", &[b'b'; 300]].iter().enumerate() {
                let at = i64::try_from(at).expect("small");
                builder.push(NOW - at, Some(&[b'k'; 3]), Some(value), &[(b"h", None)]);
            }
            let sent = builder.build().expect("a batch");
            for to in Compression::ALL {
                for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
                    let rules = Rules {
                        compression: Some((to, None)),
                        timestamp_type,
                        ..rules()
                    };
                    let what = format!("{from} to {to}, {timestamp_type:?}");
                    let admitted = admit(sent.bytes().clone(), &rules, NOW + 1).expect(&what);
                    let header = admitted.batch.header();
                    assert_eq!(header.compression(), to, "{what}");
                    assert_eq!(header.timestamp_type(), timestamp_type, "{what}");
                    let max = match timestamp_type {
                        TimestampType::CreateTime => NOW,
                        TimestampType::LogAppendTime => NOW + 1,
                    };
                    assert_eq!(header.max_timestamp, max, "{what}");
                    assert_eq!(
                        (header.producer_id, header.base_sequence),
                        (7, 41),
                        "{what}"
                    );
                    assert_eq!(read(&admitted.batch), read(&sent), "{what}");
                    let parsed = Batch::parse(admitted.batch.bytes().clone());
                    assert_eq!(parsed.as_ref(), Ok(&admitted.batch), "{what}");
                }
            }
        }
    }

    #[test]
    fn the_beginning_of_another_batch_is_passed_over_and_a_whole_one_is_not() {
        let sent = batch(NOW, b"value");
        let followed_by = |rest: &[u8]| {
            let bytes = Bytes::from([&sent[..], rest].concat());
            admit(bytes, &rules(), NOW).map(|admitted| admitted.batch.bytes().clone())
        };
        // As Apache Kafka 4.4.0 was seen to answer.
        for size in [1, 11, 12, 16, 17, 60, 61, sent.len() - 1] {
            assert_eq!(followed_by(&sent[..size]), Ok(sent.clone()), "{size} more");
        }
        let refused = |rest: &[u8]| match followed_by(rest) {
            Err(Refusal::Malformed(err)) => err,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&sent), BatchError::Trailing(sent.len()));
        assert_eq!(followed_by(&[0; 11]), Ok(sent.clone()));
        assert_eq!(refused(&[0; 12]), BatchError::Garbage(12));
        let mut magic_5 = sent[..17].to_vec();
        magic_5[16] = 5;
        assert_eq!(refused(&magic_5), BatchError::Garbage(17));
    }

    #[test]
    fn size_is_judged_as_stored() {
        let refused = admit(batch(NOW, &[0; 1000]), &rules(), NOW);
        assert!(matches!(refused, Err(Refusal::TooLarge { max: 1000, .. })));
    }
}
