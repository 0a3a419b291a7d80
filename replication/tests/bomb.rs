//! A batch of a few kilobytes that decompresses to many megabytes, in a topic that has a codec of its own: it costs time,
//! but no memory. Alone in its program, whose memory is measured.

use bytes::Bytes;
use protocol::{
    batch::{Builder, TimestampType},
    compression::Compression,
};
use sordini_replication::admission::{self, Refusal, Rules};

const NOW: i64 = 1_700_000_000_000;

/// What comes out of it.
const SIZE: usize = 64 << 20;

#[test]
fn what_decompresses_to_a_lot_is_never_in_memory_at_once() {
    let bomb = bomb();
    let max_message_bytes = 1 << 20;
    assert!(bomb.len() < max_message_bytes);
    for codec in [Compression::Lz4, Compression::Snappy, Compression::None] {
        let rules = Rules {
            max_message_bytes,
            max_decompressed_bytes: i32::MAX as usize,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compression: Some((codec, None)),
            keys_required: false,
        };
        let before = begin();
        let admitted = admission::admit(bomb.clone(), &rules, NOW);
        let grown = peak().saturating_sub(before);
        assert!(grown < 16 << 20, "{codec}: {grown} bytes");
        match admitted {
            Ok(admitted) => {
                assert_eq!(codec, Compression::Lz4);
                let header = admitted.batch.header();
                assert_eq!((header.compression(), header.record_count), (codec, 1));
            }
            // As exact as if it had all been kept.
            Err(Refusal::TooLarge { size, max }) => {
                assert_eq!(max, max_message_bytes, "{codec}");
                let out_of = match codec {
                    Compression::None => SIZE..SIZE + 100,
                    _ => SIZE / 64..SIZE / 16,
                };
                assert!(out_of.contains(&size), "{codec}: {size}");
            }
            Err(other) => panic!("{codec}: {other:?}"),
        }
    }
}

fn bomb() -> Bytes {
    let mut builder = Builder::new().compression(Compression::Zstd, None);
    builder.push(NOW, None, Some(&vec![0; SIZE]), &[]);
    builder.build().expect("a batch").bytes().clone()
}

/// Forgets how much memory there once was. Returns how much there is.
fn begin() -> usize {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux forgets");
    peak()
}

/// The most memory there has been.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kib.expect("a number") << 10
}
