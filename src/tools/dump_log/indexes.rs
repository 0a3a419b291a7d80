//! The indexes of a segment, compared with its log.

use std::path::Path;

use storage::index::{Entry, OffsetEntry, TimeEntry};

use super::{Options, Problems, absolute, base_offset, batches::Batches, read};
use crate::tools::{Failure, console::Console};

/// An index's entries, whatever they are: a file that is being written ends in zeros.
fn entries<E: Entry>(bytes: &[u8]) -> Vec<E> {
    bytes.chunks_exact(E::SIZE).filter_map(E::decode).collect()
}

fn is_whole<E: Entry>(path: &Path, bytes: &[u8], kind: &str) -> Result<(), Failure> {
    match bytes.len() % E::SIZE {
        0 => Ok(()),
        _ => Err(Failure::Refused(format!(
            "{kind} file {} is corrupt, found {} bytes which is neither positive nor a multiple of {}",
            absolute(path).display(),
            bytes.len(),
            E::SIZE
        ))),
    }
}

pub(super) fn dump_offsets(
    path: &Path,
    options: &Options,
    problems: &mut Problems,
    console: &mut Console,
) -> Result<(), Failure> {
    let base = base_offset(path)?;
    let bytes = read(path)?;
    let entries: Vec<OffsetEntry> = entries(&bytes);
    let Some(last) = entries.last() else {
        return console.line(&format!("{} is empty.", path.display()));
    };
    if options.index_sanity_check {
        if last.relative_offset < 0 {
            return Err(Failure::Refused(format!(
                "Corrupt index found, index file ({}) has non-zero size but the last offset is {} which is less than the \
                 base offset {base}",
                absolute(path).display(),
                base + i64::from(last.relative_offset)
            )));
        }
        is_whole::<OffsetEntry>(path, &bytes, "Index")?;
        return console.line(&format!("{} passed sanity check.", path.display()));
    }
    let log = path.with_extension("log");
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 && entry.relative_offset == 0 {
            return Ok(());
        }
        let offset = base + i64::from(entry.relative_offset);
        let position = u64::try_from(entry.position).unwrap_or(u64::MAX);
        let size_max = u64::from(options.max_message_size.unsigned_abs());
        let Some(found) = Batches::open(&log, position, size_max)?.next()? else {
            return Err(Failure::Refused(format!(
                "There is no whole batch at position {} of {}",
                entry.position,
                log.display()
            )));
        };
        if found.header.last_offset() != offset {
            let mismatches = problems.mismatches.entry(absolute(path)).or_default();
            mismatches.insert(offset, found.header.last_offset());
        }
        if !options.verify_index_only {
            console.line(&format!("offset: {offset} position: {}", entry.position))?;
        }
    }
    Ok(())
}

pub(super) fn dump_times(
    path: &Path,
    options: &Options,
    problems: &mut Problems,
    console: &mut Console,
) -> Result<(), Failure> {
    let base = base_offset(path)?;
    let bytes = read(path)?;
    let entries: Vec<TimeEntry> = entries(&bytes);
    if options.index_sanity_check {
        check_times(path, base, &entries)?;
        is_whole::<TimeEntry>(path, &bytes, "Time index")?;
        return console.line(&format!("{} passed sanity check.", path.display()));
    }
    let log = path.with_extension("log");
    let mut positions: Vec<OffsetEntry> = self::entries(&read(&path.with_extension("index"))?);
    // An index that is still written to ends in zeros.
    let used = positions.iter().rposition(|it| !it.is_zero());
    positions.truncate(used.map_or(0, |last| last + 1));
    let mut before = -1;
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 && entry.relative_offset == 0 {
            return Ok(());
        }
        let offset = base + i64::from(entry.relative_offset);
        compare_time(&log, &positions, *entry, offset, before, |problem| {
            let (all, index, other) = match problem {
                Problem::NotFound(other) => (&mut problems.not_found, offset, other),
                Problem::Time(other) => (&mut problems.times, entry.timestamp, other),
                Problem::Order(other) => (&mut problems.out_of_order, entry.timestamp, other),
            };
            all.entry(absolute(path)).or_default().push((index, other));
        })?;
        if !options.verify_index_only {
            console.line(&format!("timestamp: {} offset: {offset}", entry.timestamp))?;
        }
        before = entry.timestamp;
    }
    Ok(())
}

/// What is wrong with an entry, and what is there instead.
enum Problem {
    NotFound(i64),
    Time(i64),
    Order(i64),
}

fn compare_time(
    log: &Path,
    positions: &[OffsetEntry],
    entry: TimeEntry,
    offset: i64,
    before: i64,
    mut wrong: impl FnMut(Problem),
) -> Result<(), Failure> {
    let after = positions.partition_point(|it| it.relative_offset <= entry.relative_offset);
    let at = positions[..after].last();
    let position = at.map_or(0, |it| u64::try_from(it.position).unwrap_or(0));
    let mut batches = Batches::open(log, position, u64::MAX)?;
    let found = loop {
        match batches.next()? {
            Some(found) if found.header.last_offset() < offset => (),
            found => break found,
        }
    };
    let Some(found) = found else {
        wrong(Problem::NotFound(-1));
        return Ok(());
    };
    if found.header.last_offset() != offset {
        wrong(Problem::NotFound(found.header.last_offset()));
        return Ok(());
    }
    let records = found.records().map_err(|err| {
        Failure::Refused(format!(
            "At position {} of {}: {err}",
            found.position,
            log.display()
        ))
    })?;
    let newest = records.iter().map(|record| record.timestamp).max();
    let newest = newest.unwrap_or(-1);
    if newest != entry.timestamp {
        wrong(Problem::Time(newest));
    }
    if entry.timestamp <= before {
        wrong(Problem::Order(before));
    }
    Ok(())
}

/// Would a broker use the index as it is?
fn check_times(path: &Path, base: i64, entries: &[TimeEntry]) -> Result<(), Failure> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Ok(());
    };
    let (what, found, less_than) = if last.timestamp < first.timestamp {
        ("timestamp", last.timestamp, first.timestamp)
    } else if last.relative_offset < 0 {
        ("offset", base + i64::from(last.relative_offset), base)
    } else {
        return Ok(());
    };
    Err(Failure::Refused(format!(
        "Corrupt time index found, time index file ({}) has non-zero size but the last {what} is {found} which is less \
         than the first {what} {less_than}",
        absolute(path).display()
    )))
}
