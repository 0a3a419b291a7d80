//! What every row works with: the two programs, the sizes, and a scratch directory that is gone afterwards.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Options, Result, Size,
    broker::{Broker, Side},
    kafka::{self, Kafka},
    turns::BySide,
};

const MB: u64 = 1_000_000;
const GB: u64 = 1_000 * MB;

pub(crate) struct Bench {
    pub(crate) runs: u32,
    pub(crate) sides: Vec<Side>,
    pub(crate) sizes: Sizes,
    pub(crate) kafka: Kafka,
    pub(crate) sordini: PathBuf,
    scratch: PathBuf,
}

/// How much work a run is.
pub(crate) struct Sizes {
    /// Payload of one throughput run.
    pub(crate) load_bytes: u64,
    pub(crate) small_records: u64,
    /// With every append on the disk before it is answered.
    pub(crate) flushed_bytes: u64,
    pub(crate) latency_records: u32,
    /// What the second consumer reads from the disk.
    pub(crate) cold_bytes: u64,
    pub(crate) tail_seconds: u64,
    /// The log directory whose opening is timed.
    pub(crate) start_partitions: i32,
    pub(crate) start_bytes: u64,
    pub(crate) connections: usize,
    pub(crate) partitions: i32,
    /// Commits of a hundred partitions.
    pub(crate) commits: u64,
    pub(crate) groups: i64,
    /// Of one group that all join at the same time.
    pub(crate) members: usize,
    /// New groups with one consumer, one after the other.
    pub(crate) joins: u32,
    pub(crate) transactions: u32,
    pub(crate) transactional_ids: u32,
    /// The log that is compacted. Of ten records, nine are outdated.
    pub(crate) compact_bytes: u64,
}

impl Sizes {
    fn of(size: Size) -> Sizes {
        match size {
            Size::Full => Sizes {
                load_bytes: 2 * GB,
                small_records: 5_000_000,
                flushed_bytes: 250 * MB,
                latency_records: 45_000,
                cold_bytes: 8 * GB,
                tail_seconds: 10,
                start_partitions: 1_000,
                start_bytes: 10 * GB,
                connections: 5_000,
                partitions: 10_000,
                commits: 16_000,
                groups: 10_000,
                members: 1_000,
                joins: 10,
                transactions: 500,
                transactional_ids: 10_000,
                compact_bytes: 10 * GB,
            },
            Size::Small => Sizes {
                load_bytes: 100 * MB,
                small_records: 200_000,
                flushed_bytes: 20 * MB,
                latency_records: 1_500,
                cold_bytes: 200 * MB,
                tail_seconds: 2,
                start_partitions: 50,
                start_bytes: 100 * MB,
                connections: 200,
                partitions: 200,
                commits: 800,
                groups: 200,
                members: 50,
                joins: 2,
                transactions: 50,
                transactional_ids: 200,
                compact_bytes: 200 * MB,
            },
        }
    }
}

impl Bench {
    pub(crate) fn open(options: &Options) -> Result<Bench> {
        let sides = match options.only {
            Some(side) => vec![side],
            None => vec![Side::Sordini, Side::Kafka],
        };
        let sordini = if sides.contains(&Side::Sordini) {
            sordini()?
        } else {
            PathBuf::new()
        };
        let scratch = scratch()?;
        // What an interrupted run has left.
        remove(&scratch)?;
        fs::create_dir_all(&scratch)?;
        let mut sizes = Sizes::of(options.sizes);
        if let Some(megabytes) = options.compact {
            sizes.compact_bytes = megabytes * MB;
        }
        Ok(Bench {
            runs: options.runs,
            sides,
            sizes,
            kafka: Kafka::fetch()?,
            sordini,
            scratch,
        })
    }

    /// A fresh directory of that name, for a broker's data or anything else.
    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.scratch.join(name);
        remove(&dir)?;
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// A fresh broker of each side that takes part.
    pub(crate) fn brokers(&self, group: &str) -> Result<BySide<Broker>> {
        BySide::try_new(&self.sides, |side| self.broker(side, group))
    }

    pub(crate) fn broker(&self, side: Side, group: &str) -> Result<Broker> {
        Broker::start(self, side, &self.dir(&format!("{group}-{side}"))?)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(err) = remove(&self.scratch) {
            eprintln!("sordini-bench: {err}");
        }
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {err}", dir.display()).into())
        }
        _ => Ok(()),
    }
}

/// In `TMPDIR` if that is set, else beside the programs: /tmp is memory on many machines.
fn scratch() -> Result<PathBuf> {
    let parent = match env::var_os("TMPDIR") {
        Some(dir) => PathBuf::from(dir),
        None => target_dir()?,
    };
    Ok(parent.join("sordini-bench-data"))
}

/// The directory this program was built into.
fn target_dir() -> Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program
        .parent()
        .ok_or("this program is in no directory")?
        .to_owned())
}

/// The broker to measure: `SORDINI`, or built now with the same profile as this program.
fn sordini() -> Result<PathBuf> {
    if let Some(program) = env::var_os("SORDINI") {
        return Ok(program.into());
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--release",
        "--package",
        "sordini",
        "--manifest-path",
    ]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
    kafka::run(&mut cargo)?;
    Ok(target_dir()?.join("sordini"))
}
