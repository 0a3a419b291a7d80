//! The bytes on disk, as Apache Kafka's own tools read them.
//!
//! The log made here was read with `kafka-dump-log.sh` of Kafka 4.4 (`--files` on each of its files,
//! `--print-data-log --deep-iteration --verify-index-only`). To do so again:
//! `FORMAT_DIR=/some/empty/dir cargo test --release -p sordini-storage --test format`.

mod common;

use std::path::{Path, PathBuf};

use common::{NOW, batch, directory, idempotent, marker, transactional};
use storage::{config::Config, log::Log, producers::Origin};

const COORDINATOR: Origin = Origin::Coordinator {
    transaction_version: 0,
};

/// A log with two segments, an index entry for each batch but the first, one producer, a
/// transaction committed and one aborted, and two leader epochs; closed.
fn make(root: &Path) -> PathBuf {
    let config = Config {
        segment_bytes: 1000,
        index_interval_bytes: 1,
        ..Config::default()
    };
    let directory = directory(root);
    let log = directory.open_log("orders-0", config, NOW).unwrap();
    directory
        .set_topic_id("orders-0", uuid::Uuid::from_u128(0x0123_4567_89ab_cdef))
        .unwrap();
    log.append(&batch(3, NOW), 0, NOW).unwrap();
    log.append(&idempotent(5, 2, 0, 2), 0, NOW).unwrap();
    log.append(&batch(1, NOW + 10), 0, NOW).unwrap();
    log.append(&transactional(6, 0, 2), 0, NOW).unwrap();
    log.append_from(&marker(6, 0, 1, true), 0, COORDINATOR, NOW)
        .unwrap();
    log.append(&transactional(7, 0, 1), 3, NOW).unwrap();
    log.append_from(&marker(7, 0, 1, false), 3, COORDINATOR, NOW)
        .unwrap();
    fill(&log);
    directory.checkpoint().unwrap();
    directory.close(11).unwrap();
    root.join("orders-0")
}

/// Rolls once.
fn fill(log: &Log) {
    while log.segment_count() == 1 {
        log.append(&batch(4, NOW + 20), 3, NOW).unwrap();
    }
}

fn with_log(check: impl FnOnce(&Path)) {
    match std::env::var_os("FORMAT_DIR") {
        Some(root) => check(&make(Path::new(&root))),
        None => {
            let root = tempfile::tempdir().unwrap();
            check(&make(root.path()));
        }
    }
}

#[test]
fn a_log_on_disk_is_kafkas_byte_for_byte() {
    with_log(|dir| {
        let root = dir.parent().unwrap();
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "00000000000000000000.index",
                "00000000000000000000.log",
                "00000000000000000000.timeindex",
                "00000000000000000000.txnindex",
                "00000000000000000019.index",
                "00000000000000000019.log",
                "00000000000000000019.snapshot",
                "00000000000000000019.timeindex",
                "00000000000000000023.snapshot",
                "leader-epoch-checkpoint",
                "partition.metadata",
            ]
        );
        batches(&read(dir, "00000000000000000000.log"));
        assert_eq!(
            hex(&read(dir, "00000000000000000000.index")),
            // Last offset of a batch and where it begins.
            "00000004 0000008b  00000005 000000d8  00000007 0000012f  00000008 0000017c \
             00000009 000001ca  0000000a 0000020f  0000000e 0000025d  00000012 00000302"
                .replace(' ', "")
        );
        assert_eq!(
            hex(&read(dir, "00000000000000000000.timeindex")),
            // The largest time so far and the last offset of its batch, when it has grown.
            "0000018bcfe56802 00000002  0000018bcfe5680a 00000005  0000018bcfe56817 0000000e"
                .replace(' ', "")
        );
        assert_eq!(
            hex(&read(dir, "00000000000000000000.txnindex")),
            // Version, producer, first offset, last offset, last stable offset.
            "0000 0000000000000007 0000000000000009 000000000000000a 000000000000000b"
                .replace(' ', "")
        );
        snapshot(&read(dir, "00000000000000000019.snapshot"));
        assert_eq!(text(dir, "leader-epoch-checkpoint"), "0\n2\n0 0\n3 9\n");
        assert_eq!(
            text(dir, "partition.metadata"),
            "version: 0\ntopic_id: AAAAAAAAAAABI0VniavN7w"
        );
        assert_eq!(
            text(root, "recovery-point-offset-checkpoint"),
            "0\n1\norders 0 23\n"
        );
        assert_eq!(
            text(root, ".kafka_cleanshutdown"),
            "{\"version\":0,\"brokerEpoch\":11}"
        );
    });
}

/// Base offsets and leader epochs are ours, all else is the client's.
fn batches(log: &[u8]) {
    let expected = [
        (batch(3, NOW), 0, 0),
        (idempotent(5, 2, 0, 2), 3, 0),
        (batch(1, NOW + 10), 5, 0),
        (transactional(6, 0, 2), 6, 0),
        (marker(6, 0, 1, true), 8, 0),
        (transactional(7, 0, 1), 9, 3),
        (marker(7, 0, 1, false), 10, 3),
        (batch(4, NOW + 20), 11, 3),
        (batch(4, NOW + 20), 15, 3),
    ];
    let mut bytes = Vec::new();
    for (batch, base_offset, leader_epoch) in expected {
        let mut stored = batch.bytes().to_vec();
        stored[..8].copy_from_slice(&i64::to_be_bytes(base_offset));
        stored[12..16].copy_from_slice(&i32::to_be_bytes(leader_epoch));
        bytes.extend_from_slice(&stored);
    }
    assert_eq!(hex(log), hex(&bytes));
}

/// Entries are in no order, in Kafka's snapshots as in ours.
fn snapshot(bytes: &[u8]) {
    assert_eq!(bytes[..2], [0, 1], "version");
    assert_eq!(bytes[2..6], crc32c::crc32c(&bytes[6..]).to_be_bytes());
    assert_eq!(bytes[6..10], [0, 0, 0, 3], "count");
    let mut entries: Vec<_> = bytes[10..].chunks(46).map(hex).collect();
    entries.sort();
    let expected = [
        // Producer, epoch, last sequence, last offset, offset delta, time, coordinator epoch,
        // first offset of the open transaction.
        "0000000000000005 0002 00000001 0000000000000004 00000001 0000018bcfe56800 ffffffff ffffffffffffffff",
        "0000000000000006 0000 00000001 0000000000000007 00000001 0000018bcfe56800 00000001 ffffffffffffffff",
        "0000000000000007 0000 00000000 0000000000000009 00000000 0000018bcfe56800 00000001 ffffffffffffffff",
    ];
    assert_eq!(entries, expected.map(|entry| entry.replace(' ', "")));
}

fn read(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name)).unwrap()
}

fn text(dir: &Path, name: &str) -> String {
    String::from_utf8(read(dir, name)).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
