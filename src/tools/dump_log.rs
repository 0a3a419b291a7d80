//! `sordini dump-log`: what `kafka-dump-log.sh` does. It reads files and asks no broker, so it works on what a broker has
//! left behind, and beside one that runs.
//!
//! What differs: formats before magic 2, which no broker has written since 2017, are not read, nor decoders by their Java
//! classes, remote log metadata and share groups' state.

mod batches;
mod decoder;
mod indexes;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use storage::{aborted, producers};

use self::decoder::Decoder;
use super::{Failure, console::Console, required};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The files: .log, .index, .timeindex, .snapshot, .txnindex, .checkpoint
    #[arg(long, value_name = "file,...", value_delimiter = ',')]
    files: Option<Vec<PathBuf>>,
    /// Print keys and values too; a decoder does so by itself
    #[arg(long)]
    print_data_log: bool,
    /// Print each record, not just each batch; so does --print-data-log
    #[arg(long)]
    deep_iteration: bool,
    /// Records are those of __consumer_offsets
    #[arg(long)]
    offsets_decoder: bool,
    /// Records are those of __transaction_state
    #[arg(long)]
    transaction_log_decoder: bool,
    /// Records are those of __cluster_metadata
    #[arg(long)]
    cluster_metadata_decoder: bool,
    /// Print keys and values without offsets, times and sizes
    #[arg(long)]
    skip_record_metadata: bool,
    /// Of an index only say whether a broker would use it as it is
    #[arg(long)]
    index_sanity_check: bool,
    /// Compare an index with its log without printing it
    #[arg(long)]
    verify_index_only: bool,
    /// Read so many bytes of a log
    #[arg(long, value_name = "bytes", default_value_t = i32::MAX, hide_default_value = true, value_parser = clap::value_parser!(i32).range(0..))]
    max_bytes: i32,
    /// The largest batch that an index is compared with
    #[arg(long, value_name = "bytes", default_value_t = 5 << 20, value_parser = clap::value_parser!(i32).range(0..))]
    max_message_size: i32,
}

impl Options {
    fn decoder(&self) -> Decoder {
        if self.offsets_decoder {
            Decoder::Offsets
        } else if self.transaction_log_decoder {
            Decoder::Transactions
        } else if self.cluster_metadata_decoder {
            Decoder::Metadata
        } else {
            Decoder::Text
        }
    }

    fn prints_data(&self) -> bool {
        self.print_data_log || self.decoder() != Decoder::Text
    }

    fn is_deep(&self) -> bool {
        self.deep_iteration || self.prints_data()
    }
}

/// What is wrong with files, told when all of them have been read. By file.
#[derive(Debug, Default)]
struct Problems {
    /// Offsets of an index, and of the batches that are there instead.
    mismatches: BTreeMap<PathBuf, BTreeMap<i64, i64>>,
    /// Times of an index, and of the batches.
    times: BTreeMap<PathBuf, Vec<(i64, i64)>>,
    /// Times of an index, and of the entries before.
    out_of_order: BTreeMap<PathBuf, Vec<(i64, i64)>>,
    /// Offsets of a time index, and of the batches that are there instead.
    not_found: BTreeMap<PathBuf, Vec<(i64, i64)>>,
    /// Offsets of records, and of those after them.
    gaps: BTreeMap<PathBuf, BTreeMap<i64, i64>>,
}

impl Problems {
    fn tell(&self, console: &mut Console) {
        for (file, pairs) in &self.mismatches {
            console.complain(&format!("Mismatches in :{}", file.display()));
            for (index, log) in pairs.iter().rev() {
                console.complain(&format!("  Index offset: {index}, log offset: {log}"));
            }
        }
        for (file, pairs) in &self.times {
            console.complain(&format!("Found timestamp mismatch in :{}", file.display()));
            for (index, log) in pairs {
                console.complain(&format!("  Index timestamp: {index}, log timestamp: {log}"));
            }
        }
        for (file, pairs) in &self.out_of_order {
            console.complain(&format!(
                "Found out of order timestamp in :{}",
                file.display()
            ));
            for (index, before) in pairs {
                console.complain(&format!(
                    "  Index timestamp: {index}, Previously indexed timestamp: {before}"
                ));
            }
        }
        for (file, pairs) in &self.not_found {
            let file = file.display();
            console.complain(&format!(
                "The following indexed offsets are not found in :{file}"
            ));
            for (index, log) in pairs {
                console.complain(&format!("Indexed offset: {index}, found log offset: {log}"));
            }
        }
        for (file, pairs) in &self.gaps {
            console.complain(&format!("Non-consecutive offsets in {}", file.display()));
            for (before, after) in pairs {
                console.complain(&format!("  {before} is followed by {after}"));
            }
        }
    }
}

pub(super) fn run(options: &Options, console: &mut Console) -> Result<(), Failure> {
    let files = required(options.files.as_deref(), "files")?;
    let mut problems = Problems::default();
    for file in files {
        console.line(&format!("Dumping {}", file.display()))?;
        let suffix = file.extension().and_then(|suffix| suffix.to_str());
        match suffix {
            Some("log" | "checkpoint") => batches::dump(file, options, &mut problems, console)?,
            Some("index") => indexes::dump_offsets(file, options, &mut problems, console)?,
            Some("timeindex") => indexes::dump_times(file, options, &mut problems, console)?,
            Some("snapshot") => dump_producers(file, console)?,
            Some("txnindex") => dump_aborted(file, console)?,
            _ => console.complain(&format!("Ignoring unknown file {}", file.display())),
        }
    }
    problems.tell(console);
    Ok(())
}

fn dump_producers(file: &Path, console: &mut Console) -> Result<(), Failure> {
    let entries = match producers::decode_snapshot(&read(file)?) {
        Ok(entries) => entries,
        Err(reason) => {
            console.complain(&format!("{}: {reason}", file.display()));
            return Ok(());
        }
    };
    for (id, producer) in entries {
        let mut line = format!(
            "producerId: {id} producerEpoch: {} coordinatorEpoch: {} currentTxnFirstOffset: {} lastTimestamp: {}",
            producer.epoch,
            producer.coordinator_epoch,
            optional(producer.current_txn_first_offset),
            producer.last_timestamp
        );
        if let Some(batch) = producer.batches.front() {
            line += &format!(
                " firstSequence: {} lastSequence: {} lastOffset: {} offsetDelta: {} timestamp: {}",
                batch.first_sequence(),
                batch.last_sequence,
                batch.last_offset,
                batch.offset_delta,
                batch.timestamp
            );
        }
        console.line(&line)?;
    }
    Ok(())
}

fn dump_aborted(file: &Path, console: &mut Console) -> Result<(), Failure> {
    for aborted in aborted::decode_all(&read(file)?) {
        console.line(&format!(
            "version: 0 producerId: {} firstOffset: {} lastOffset: {} lastStableOffset: {}",
            aborted.producer_id,
            aborted.first_offset,
            aborted.last_offset,
            aborted.last_stable_offset
        ))?;
    }
    Ok(())
}

/// As Java prints a number that may not be there.
fn optional(number: Option<i64>) -> String {
    number.map_or("OptionalLong.empty".to_owned(), |number| {
        format!("OptionalLong[{number}]")
    })
}

/// The offset that a segment's files are named after.
fn base_offset(file: &Path) -> Result<i64, Failure> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let (number, _) = name.split_once('.').unwrap_or((&name, ""));
    number
        .parse()
        .map_err(|_| Failure::Refused(format!("{} is not named after an offset", file.display())))
}

fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|err| unreadable(file, &err))
}

fn unreadable(file: &Path, err: &std::io::Error) -> Failure {
    Failure::Refused(format!("{}: {err}", file.display()))
}
