//! What an append costs next to the bare system call, and what opening costs: numbers by hand.
//!
//! `cargo run --release -p sordini-storage --example append -- DIR [GiB] [batch KiB]`
#![allow(clippy::print_stdout)]

use std::{os::unix::fs::FileExt, path::PathBuf, sync::Arc, time::Instant};

use bytes::Bytes;
use nix::sys::resource::{UsageWho, getrusage};
use protocol::batch::{Batch, Builder};
use storage::{config::Config, directory::Directory, disk, log::Log, properties::Identity};

const NOW: i64 = 1_700_000_000_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().unwrap_or_else(|| "/tmp/append".to_owned()));
    let gib: u64 = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(1);
    let kib: usize = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(16);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a directory to write to");

    let batch = batch(kib << 10);
    let count = (gib << 30) / batch.bytes().len() as u64;
    // Twice: the first round makes the machine hand out its memory.
    for _ in 0..2 {
        bare(&dir, &batch, count);
        parsed(&dir, &batch, count);
    }
    many(&dir, &batch, count);
    let _ = std::fs::remove_dir_all(&dir);
}

/// Reads the CRC and writes: what cannot be avoided.
fn bare(dir: &std::path::Path, batch: &Batch, count: u64) {
    let path = dir.join("bare");
    let file = std::fs::File::create(&path).expect("a file to write to");
    measure("crc + pwrite", batch, count, |at| {
        Batch::parse(batch.bytes().clone()).expect("a batch");
        file.write_all_at(batch.bytes(), at * batch.bytes().len() as u64)
            .expect("room on the disk");
    });
    drop(file);
    let _ = std::fs::remove_file(&path);
}

fn parsed(dir: &std::path::Path, batch: &Batch, count: u64) {
    let directory = open(dir);
    let log = directory
        .open_log("bench-0", Config::default(), NOW)
        .expect("a log");
    measure("parse + Log::append", batch, count, |_| append(&log, batch));
    drop((log, directory));
    let _ = std::fs::remove_dir_all(dir.join("bench-0"));
}

/// A thousand logs, closed, killed and opened again.
fn many(dir: &std::path::Path, batch: &Batch, count: u64) {
    const LOGS: u64 = 1000;
    let open_all = |directory: &Directory| -> Vec<Arc<Log>> {
        let (user, system) = cpu();
        let started = Instant::now();
        let logs = (0..LOGS)
            .map(|at| {
                let name = format!("many-{at}");
                directory
                    .open_log(&name, Config::default(), NOW)
                    .expect("a log")
            })
            .collect();
        let (user_after, system_after) = cpu();
        println!(
            "{LOGS} logs opened in {:?}, CPU ms: user {} system {}",
            started.elapsed(),
            (user_after - user) / 1000,
            (system_after - system) / 1000
        );
        logs
    };
    let directory = open(dir);
    println!("created:");
    let logs = open_all(&directory);
    for at in 0..count {
        let at = usize::try_from(at % LOGS).expect("small");
        append(&logs[at], batch);
    }
    directory.checkpoint().expect("a checkpoint");
    drop((logs, directory));
    println!("killed:");
    let directory = open(dir);
    let logs = open_all(&directory);
    let started = Instant::now();
    directory.close(1).expect("a clean close");
    println!("closed in {:?}", started.elapsed());
    drop((logs, directory));
    println!("closed:");
    let directory = open(dir);
    open_all(&directory);
}

fn open(dir: &std::path::Path) -> Directory {
    let identity = Identity {
        cluster_id: "bench".to_owned(),
        node_id: 1,
    };
    Directory::open(disk::real(), dir, &identity, 5000, NOW).expect("a log directory")
}

fn append(log: &Log, batch: &Batch) {
    let batch = Batch::parse(batch.bytes().clone()).expect("a batch");
    log.append(&batch, 0, NOW).expect("an append");
}

fn batch(size: usize) -> Batch {
    let value = Bytes::from(vec![7; 1000]);
    let mut builder = Builder::new();
    while builder.size() < size {
        builder.push(NOW, None, Some(&value), &[]);
    }
    builder.build().expect("a batch")
}

/// User and system time of this thread in microseconds.
fn cpu() -> (i64, i64) {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("own usage");
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    (micros(usage.user_time()), micros(usage.system_time()))
}

fn measure(what: &str, batch: &Batch, count: u64, mut each: impl FnMut(u64)) {
    let (user, system) = cpu();
    let started = Instant::now();
    (0..count).for_each(&mut each);
    let elapsed = started.elapsed();
    let (user_after, system_after) = cpu();
    let gib = (count * batch.bytes().len() as u64) as f64 / f64::from(1 << 30);
    println!(
        "{what:20} {gib:.2} GiB in {elapsed:?}, CPU s/GiB: user {:.3} system {:.3}, {:?} a batch",
        (user_after - user) as f64 / 1e6 / gib,
        (system_after - system) as f64 / 1e6 / gib,
        elapsed / u32::try_from(count).unwrap_or(u32::MAX),
    );
}
