//! What the tests of this crate share: small logs and batches to put into them.
#![allow(dead_code)] // Each test file uses its part.

use std::path::Path;

use bytes::Bytes;
use protocol::batch::{Batch, Builder, Header};
use storage::{config::Config, directory::Directory, disk, log::Log, properties::Identity};

pub(crate) const NOW: i64 = 1_700_000_000_000;

pub(crate) fn identity() -> Identity {
    Identity {
        cluster_id: "cluster".to_owned(),
        node_id: 1,
    }
}

pub(crate) fn directory(path: &Path) -> Directory {
    Directory::open(disk::real(), path, &identity(), 64, NOW).unwrap()
}

/// Rolls and indexes often.
pub(crate) fn small() -> Config {
    Config {
        segment_bytes: 4096,
        index_interval_bytes: 256,
        ..Config::default()
    }
}

/// A batch of `count` records whose times ascend by one from `timestamp`.
pub(crate) fn batch(count: i32, timestamp: i64) -> Batch {
    let mut builder = Builder::new();
    for at in 0..i64::from(count) {
        builder.push(timestamp + at, None, Some(b"some value or other"), &[]);
    }
    builder.build().unwrap()
}

pub(crate) fn idempotent(producer: i64, epoch: i16, sequence: i32, count: i32) -> Batch {
    let mut builder = Builder::new().producer(producer, epoch, sequence);
    for _ in 0..count {
        builder.push(NOW, None, Some(b"v"), &[]);
    }
    builder.build().unwrap()
}

pub(crate) fn transactional(producer: i64, sequence: i32, count: i32) -> Batch {
    let mut builder = Builder::new()
        .producer(producer, 0, sequence)
        .transactional();
    for _ in 0..count {
        builder.push(NOW, None, Some(b"v"), &[]);
    }
    builder.build().unwrap()
}

pub(crate) fn marker(producer: i64, epoch: i16, coordinator_epoch: i32, commit: bool) -> Batch {
    let mut builder = Builder::new()
        .producer(producer, epoch, -1)
        .transactional()
        .control();
    let mut value = vec![0, 0];
    value.extend_from_slice(&coordinator_epoch.to_be_bytes());
    builder.push(NOW, Some(&[0, 0, 0, u8::from(commit)]), Some(&value), &[]);
    builder.build().unwrap()
}

/// Offsets of all records from the batch with `from` on, fetched as a consumer does.
pub(crate) fn offsets(log: &Log, from: i64) -> Vec<i64> {
    let mut offsets = Vec::new();
    let mut next = from;
    while next < log.end_offset() {
        let slice = log.read(next, 1000, true, log.end_offset()).unwrap();
        for batch in whole_batches(slice.read().unwrap()) {
            let records = batch.records(1 << 20).unwrap();
            offsets.extend(records.map(|record| record.unwrap().offset));
            next = batch.header().next_offset();
        }
    }
    offsets
}

/// The batches in a slice without the last if that is cut off, as clients take it.
pub(crate) fn whole_batches(mut bytes: Bytes) -> Vec<Batch> {
    let mut batches = Vec::new();
    while let Ok(header) = Header::parse(&bytes)
        && header.size <= bytes.len()
    {
        batches.push(Batch::parse(bytes.split_to(header.size)).unwrap());
    }
    batches
}
