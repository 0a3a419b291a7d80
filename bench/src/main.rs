//! `sordini-bench`: the same work against this broker and against Apache Kafka, in turns, on one machine.
//!
//! ```text
//! options -> Bench (both brokers' programs, a scratch directory)
//!   rows/*      one file per group of rows: starts brokers, loads them, returns `Row`s
//!   turns       who goes when, and how often
//!   report      rows -> a table, on the terminal and in BENCHMARKS.md
//! ```
//!
//! Three things make the figures worth reading. The brokers take turns, several times, each measured
//! run right after a warm-up of the same size: on a virtual machine the first touch of memory is ten
//! times slower than its reuse, and whoever goes first would pay for it. Topics of the throughput rows
//! keep 1 GiB, so the broker deletes while it is measured, as it does in its real life. The load
//! comes from librdkafka and Kafka's own tools, never from a client written to flatter us.

// A command line tool: its answer is what it prints.
#![allow(clippy::print_stdout)]

mod baseline;
mod bench;
mod broker;
mod client;
mod kafka;
mod machine;
mod probe;
mod process;
mod quiet;
mod reader;
mod report;
mod rows;
mod stats;
mod turns;
mod wire;

use std::{process::ExitCode, sync::LazyLock};

use clap::{Parser, ValueEnum, builder::PossibleValue};

use crate::{bench::Bench, broker::Side, rows::Group};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures this broker and Apache Kafka 4.4.0 side by side.
#[derive(Debug, Parser)]
#[command(name = "sordini-bench", version)]
struct Options {
    /// Which rows to measure
    #[arg(value_enum, default_value_t = What::All)]
    what: What,
    /// How often each broker takes its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measure one broker alone
    #[arg(long, value_enum)]
    only: Option<Side>,
    /// `small` finishes in a minute or two and says only whether everything works
    #[arg(long, value_enum, default_value_t = Size::Full)]
    sizes: Size,
    /// How much the compaction rows compact, in MB, instead of what `sizes` says
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..))]
    compact: Option<u64>,
    /// Write the tables into BENCHMARKS.md, as `all` does by itself
    #[arg(long)]
    write: bool,
    /// Be the reader of the tail's row
    #[arg(long = reader::OPTION, hide = true, num_args = 3)]
    reader: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Group(Group),
    All,
}

impl ValueEnum for What {
    fn value_variants<'a>() -> &'a [What] {
        static VARIANTS: LazyLock<Vec<What>> = LazyLock::new(|| {
            let groups = Group::value_variants().iter().copied();
            groups.map(What::Group).chain([What::All]).collect()
        });
        &VARIANTS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            What::Group(group) => group.to_possible_value(),
            What::All => Some(PossibleValue::new("all")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Size {
    Full,
    Small,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = if options.reader.is_empty() {
        run(&options)
    } else {
        reader::run(&options.reader)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("sordini-bench: {err}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let groups = match options.what {
        What::All => Group::value_variants(),
        What::Group(group) => &[group],
    };
    let whole = options.what == What::All && options.sizes == Size::Full && options.only.is_none();
    let write = options.write || whole;

    let bench = Bench::open(options)?;
    let machine = machine::describe(&bench);
    println!("{machine}");
    if write {
        report::write("machine", &machine)?;
    }
    let mut failed = Vec::new();
    for group in groups {
        // Each group's table is printed and written when it is done: what has been measured is kept,
        // whatever happens to the rest.
        let section = match group.measure(&bench) {
            Ok(measured) => report::section(&bench, group.title(), &measured),
            Err(err) => {
                eprintln!("sordini-bench: {}: {err}", group.name());
                failed.push(group.name());
                report::failed_section(group.title())
            }
        };
        println!("\n{section}");
        if write {
            report::write(&group.name(), &section)?;
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("not measured: {}", failed.join(", ")).into())
    }
}
