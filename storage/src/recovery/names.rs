//! Which files a log has, after what a crash has left half done was finished or removed.

use std::collections::BTreeSet;

use super::SNAPSHOT;
use crate::{
    disk::Mode,
    error::Error,
    files::{CLEANED, DELETED, Kind, Place, SWAP, file_name},
};

/// The files of a log, after what a crash has left half done was finished or removed.
pub(super) struct Names {
    pub(super) logs: BTreeSet<i64>,
    pub(super) snapshots: BTreeSet<i64>,
    indexes: BTreeSet<(i64, &'static str)>,
}

impl Names {
    pub(super) fn has(&self, base_offset: i64, kind: Kind) -> bool {
        self.indexes.contains(&(base_offset, kind.suffix()))
    }

    pub(super) fn tidy(place: &Place) -> Result<Names, Error> {
        let names = list(place)?;
        if names.iter().any(|name| is_temporary(name)) {
            finish_swap(place, &names)?;
            return Names::collect(place, list(place)?);
        }
        Names::collect(place, names)
    }

    fn collect(place: &Place, names: Vec<String>) -> Result<Names, Error> {
        let mut collected = Names {
            logs: BTreeSet::new(),
            snapshots: BTreeSet::new(),
            indexes: BTreeSet::new(),
        };
        for name in &names {
            match parse(name) {
                Some((offset, "log")) => {
                    collected.logs.insert(offset);
                }
                Some((offset, SNAPSHOT)) => {
                    collected.snapshots.insert(offset);
                }
                Some((offset, suffix)) => {
                    let kind = Kind::ALL.iter().find(|kind| kind.suffix() == suffix);
                    if let Some(kind) = kind {
                        collected.indexes.insert((offset, kind.suffix()));
                    }
                }
                None => (),
            }
        }
        // An index without its log is of no use, and would be in the way of a new segment's.
        let orphans: Vec<_> = collected
            .indexes
            .iter()
            .filter(|(offset, _)| !collected.logs.contains(offset))
            .copied()
            .collect();
        for (offset, suffix) in orphans {
            place.remove(&file_name(offset, suffix))?;
            collected.indexes.remove(&(offset, suffix));
        }
        Ok(collected)
    }
}

fn list(place: &Place) -> Result<Vec<String>, Error> {
    let dir = place.dir();
    let entries = place.volume.done("list", &dir, place.disk().list(&dir))?;
    Ok(entries
        .into_iter()
        .filter(|entry| !entry.is_dir)
        .map(|entry| entry.name)
        .collect())
}

/// `00000000000000000042.index` is (42, "index").
fn parse(name: &str) -> Option<(i64, &str)> {
    let (stem, suffix) = name.split_once('.')?;
    let digits = stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some(())?;
    Some((stem.parse().ok()?, suffix))
}

fn is_temporary(name: &str) -> bool {
    // A metadata snapshot on its way out is its owner's business.
    let deleted = name.ends_with(DELETED) && !name.ends_with(".checkpoint.deleted");
    deleted || name.ends_with(CLEANED) || name.ends_with(SWAP)
}

/// What compaction was doing when the process died, by Kafka's rules: `.cleaned` files are
/// unfinished copies, `.swap` files are finished ones that replace the segments they cover.
fn finish_swap(place: &Place, names: &[String]) -> Result<(), Error> {
    let offset = |name: &str| parse(name).map(|(offset, _)| offset);
    let unfinished = names
        .iter()
        .filter(|name| name.ends_with(CLEANED))
        .filter_map(|name| offset(name))
        .min()
        .unwrap_or(i64::MAX);
    let mut swaps = Vec::new();
    for name in names.iter().filter(|name| is_temporary(name)) {
        match offset(name) {
            Some(offset) if name.ends_with(SWAP) && offset < unfinished => swaps.push(name),
            _ => place.remove(name)?,
        }
    }
    let mut covered: Option<(i64, i64)> = None;
    for name in swaps.iter().filter(|name| name.ends_with(".log.swap")) {
        let Some(base_offset) = offset(name) else {
            continue;
        };
        // An empty one replaces at least the segment it is called like.
        let end = end_of_file(place, name, base_offset)?.max(base_offset + 1);
        let (low, high) = covered.unwrap_or((base_offset, end));
        covered = Some((low.min(base_offset), high.max(end)));
    }
    if let Some((low, high)) = covered {
        for name in names.iter().filter(|name| !is_temporary(name)) {
            if offset(name).is_some_and(|offset| (low..high).contains(&offset)) {
                place.remove(name)?;
            }
        }
    }
    for name in swaps {
        let from = place.path(name);
        let to = place.path(name.trim_end_matches(SWAP));
        let renamed = place.disk().rename(&from, &to);
        place.volume.done("rename", &from, renamed)?;
    }
    place.sync_dir()
}

/// The offset after the last batch of a `.log.swap` file.
fn end_of_file(place: &Place, name: &str, base_offset: i64) -> Result<i64, Error> {
    use protocol::batch::{HEADER_SIZE, Header};
    let path = place.path(name);
    let file = place
        .volume
        .done("open", &path, place.volume.open(&path, Mode::Open))?;
    let size = place.volume.done("stat", &path, file.size())?;
    let mut position = 0;
    let mut end = base_offset;
    let mut bytes = [0; HEADER_SIZE];
    while position < size {
        let count = place
            .volume
            .done("read", &path, file.read_at(&mut bytes, position))?;
        let Ok(header) = Header::parse(&bytes[..count]) else {
            break;
        };
        end = header.next_offset();
        position += header.size as u64;
    }
    Ok(end)
}
