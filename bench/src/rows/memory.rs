//! Resident memory: idle, after a load, and what idle connections add.

use std::{net::TcpStream, thread, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    Result,
    bench::Bench,
    broker::{Broker, Side},
    client::{self, Load},
    probe, process,
    report::{Measured, Wanted},
    turns::{BySide, in_turns},
};

const TOPIC: &str = "load";
const RECORD_SIZE: usize = 1024;
/// What a broker does by itself after a start or a load has settled.
const SETTLE: Duration = Duration::from_secs(5);
const RUNS_MAX: u32 = 3;

struct Run {
    idle_mib: f64,
    loaded_mib: f64,
    connection_kib: f64,
}

pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;

    let runs_each = bench.runs.min(RUNS_MAX);
    let mut sides = BySide::try_new(&bench.sides, Ok)?;
    let runs = in_turns(&mut sides, runs_each, |side, _| {
        let (idle_mib, loaded_mib) = idle_and_loaded(bench, side)?;
        Ok(Run {
            idle_mib,
            loaded_mib,
            connection_kib: per_connection(bench, side)?,
        })
    })?;

    let connections = bench.sizes.connections;
    let rows = vec![
        runs.row("idle", "MiB", |run| run.idle_mib, Wanted::AtMost(20.0)),
        runs.row(
            "after the load",
            "MiB",
            |run| run.loaded_mib,
            Wanted::AtMost(64.0),
        ),
        runs.row(
            format!("each of {connections} idle connections"),
            "KiB",
            |run| run.connection_kib,
            Wanted::AtMost(10.0),
        ),
    ];
    let note = format!(
        "The load: {} MB of 1 KiB records produced and consumed. Each connection has asked for ApiVersions once.",
        bench.sizes.load_bytes / 1_000_000
    );
    Ok(Measured {
        rows,
        runs: runs_each,
        notes: vec![note],
    })
}

fn idle_and_loaded(bench: &Bench, side: Side) -> Result<(f64, f64)> {
    let broker = bench.broker(side, "memory")?;
    thread::sleep(SETTLE);
    let idle = resident_kib(&broker)?;

    let records = bench.sizes.load_bytes / RECORD_SIZE as u64;
    let load = Load {
        topic: TOPIC,
        partitions: 1,
        records,
        record_size: RECORD_SIZE,
        settings: &[("acks", "1")],
    };
    client::create_topic(&broker, TOPIC, 1, &[])?;
    client::produce(&broker, load)?;
    client::consume(&broker.address(), TOPIC, records)?;
    thread::sleep(SETTLE);
    Ok((idle / 1024.0, resident_kib(&broker)? / 1024.0))
}

/// On a broker that has done nothing else: a heap that a load has blown up would hide them.
fn per_connection(bench: &Bench, side: Side) -> Result<f64> {
    let broker = bench.broker(side, "connections")?;
    thread::sleep(SETTLE);
    let before = resident_kib(&broker)?;
    let connections: Vec<TcpStream> = (0..bench.sizes.connections)
        .map(|_| probe::connect(broker.port()))
        .collect::<std::io::Result<_>>()?;
    thread::sleep(SETTLE);
    let after = resident_kib(&broker)?;
    // A few thousand.
    #[allow(clippy::cast_precision_loss)]
    let count = connections.len() as f64;
    Ok((after - before) / count)
}

// Far below 2^53 KiB.
#[allow(clippy::cast_precision_loss)]
fn resident_kib(broker: &Broker) -> Result<f64> {
    Ok(process::resident_kib(broker.pid())? as f64)
}
