//! The rows, one file per group that shares its brokers and its load.

mod compaction;
mod consume;
mod groups;
mod joins;
mod latency;
mod memory;
mod partitions;
mod produce;
mod start;
mod tail;
mod transactions;

use clap::ValueEnum;

use crate::{Result, bench::Bench, report::Measured};

/// Rows that are measured together and stand in one table, in the order of `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    Produce,
    Idempotent,
    Small,
    Consume,
    Flush,
    Latency,
    Tail,
    Start,
    Memory,
    Partitions,
    Commits,
    Groups,
    Offsets,
    Joins,
    Transactions,
    TransactionalIds,
    Compaction,
}

impl Group {
    /// Its subcommand, and its marker in BENCHMARKS.md.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Group::Produce => "Produce, 1 KiB records, acks=1, one partition",
            Group::Idempotent => "Produce, 1 KiB records, idempotent, acks=all, one partition",
            Group::Small => "Produce, 100 B records, acks=1, one partition",
            Group::Consume => "Consume from the page cache, 1 KiB records, one partition",
            Group::Flush => "Produce with every append on the disk",
            Group::Latency => "End to end latency, one record at a time",
            Group::Tail => "A consumer at the tail while another reads from the disk",
            Group::Start => "From exec to the first ApiVersions answer",
            Group::Memory => "Resident memory",
            Group::Partitions => "Many partitions on one node",
            Group::Commits => "Committing offsets",
            Group::Groups => "Many groups",
            Group::Offsets => "Loading a partition of offsets",
            Group::Joins => "Joining a group",
            Group::Transactions => "Transactions, 100 records over 10 partitions, one producer",
            Group::TransactionalIds => "Many transactional ids",
            Group::Compaction => "Compaction, 1 KiB records, one thread",
        }
    }

    pub(crate) fn measure(self, bench: &Bench) -> Result<Measured> {
        eprintln!("measuring: {}", self.title());
        match self {
            Group::Produce => produce::one_kib(bench),
            Group::Idempotent => produce::idempotent(bench),
            Group::Small => produce::small(bench),
            Group::Consume => consume::measure(bench),
            Group::Flush => produce::flushed(bench),
            Group::Latency => latency::measure(bench),
            Group::Tail => tail::measure(bench),
            Group::Start => start::measure(bench),
            Group::Memory => memory::measure(bench),
            Group::Partitions => partitions::measure(bench),
            Group::Commits => groups::commits(bench),
            Group::Groups => groups::many(bench),
            Group::Offsets => groups::load(bench),
            Group::Joins => joins::measure(bench),
            Group::Transactions => transactions::measure(bench),
            Group::TransactionalIds => transactions::restart(bench),
            Group::Compaction => compaction::measure(bench),
        }
    }
}
