//! Small files replaced atomically, in Kafka's text formats.
//!
//! ```text
//! recovery-point-offset-checkpoint          leader-epoch-checkpoint
//!   0                 version                 0            version
//!   2                 lines                   1            lines
//!   orders 0 4711     topic partition offset  3 4711       epoch first-offset
//!   orders 1 12
//! ```

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, IoSlice},
    path::{Path, PathBuf},
};

use crate::{
    disk::{Disk, Mode, write_all},
    files::read_small,
};

/// Replaces the file at `path`: whoever reads it after a crash sees the old content or the new one.
pub fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let tmp = tmp(path);
    let file = disk.open(&tmp, Mode::Replace)?;
    write_all(&*file, &mut [IoSlice::new(content)], 0)?;
    file.sync()?;
    drop(file);
    // Synced before it is renamed, or the new name could show an empty file; and the directory
    // after, or a crash could bring the old file back.
    disk.rename(&tmp, path)?;
    match path.parent() {
        Some(dir) => disk.sync_dir(dir),
        None => Ok(()),
    }
}

/// As [`replace`], for what survives the process but need not survive the machine.
pub(crate) fn replace_unsynced(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let tmp = tmp(path);
    let file = disk.open(&tmp, Mode::Replace)?;
    write_all(&*file, &mut [IoSlice::new(content)], 0)?;
    disk.rename(&tmp, path)
}

fn tmp(path: &Path) -> PathBuf {
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    PathBuf::from(tmp)
}

/// Offsets by partition directory name (`topic-partition`).
pub type Offsets = BTreeMap<String, i64>;

/// Reads a checkpoint of offsets; absent is empty.
pub fn read_offsets(disk: &dyn Disk, path: &Path) -> io::Result<Offsets> {
    let Some(content) = read_small(disk, path)? else {
        return Ok(Offsets::new());
    };
    parse(&content, |words| match words {
        [topic, partition, offset] => {
            let partition: u32 = partition.parse().ok()?;
            Some((format!("{topic}-{partition}"), offset.parse().ok()?))
        }
        _ => None,
    })
}

pub fn write_offsets(disk: &dyn Disk, path: &Path, offsets: &Offsets) -> io::Result<()> {
    let lines = offsets.iter().filter_map(|(name, offset)| {
        // A directory that is being deleted or moved has a suffix and no place in the file.
        let (topic, partition) = name.rsplit_once('-')?;
        let partition: u32 = partition.parse().ok()?;
        Some(format!("{topic} {partition} {offset}"))
    });
    replace(disk, path, &render(lines))
}

/// Reads `epoch first-offset` lines; absent is empty.
pub(crate) fn read_epochs(disk: &dyn Disk, path: &Path) -> io::Result<Vec<(i32, i64)>> {
    let Some(content) = read_small(disk, path)? else {
        return Ok(Vec::new());
    };
    // Not synced each time it is replaced: a power cut may leave the first digits of a last offset.
    if !content.ends_with(b"\n") {
        return Err(malformed());
    }
    parse(&content, |words| match words {
        [epoch, offset] => Some((epoch.parse().ok()?, offset.parse().ok()?)),
        _ => None,
    })
}

pub(crate) fn render_epochs(epochs: &[(i32, i64)]) -> Vec<u8> {
    render(
        epochs
            .iter()
            .map(|(epoch, offset)| format!("{epoch} {offset}")),
    )
}

fn render(lines: impl Iterator<Item = String>) -> Vec<u8> {
    let lines: Vec<String> = lines.collect();
    let mut text = format!("0\n{}\n", lines.len());
    for line in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text.into_bytes()
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed checkpoint")
}

fn parse<T: FromIterator<E>, E>(
    content: &[u8],
    entry: impl Fn(&[&str]) -> Option<E>,
) -> io::Result<T> {
    let text = std::str::from_utf8(content).map_err(|_| malformed())?;
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some("0") {
        return Err(malformed());
    }
    let count: usize = lines
        .next()
        .and_then(|line| line.trim().parse().ok())
        .ok_or_else(malformed)?;
    let mut seen = 0;
    let entries = lines
        .map(|line| {
            seen += 1;
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            entry(&words).ok_or_else(malformed)
        })
        .collect::<io::Result<T>>()?;
    // Kafka refuses the file too when lines are missing.
    if seen == count {
        Ok(entries)
    } else {
        Err(malformed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk;

    #[test]
    fn offsets_come_back_as_written_and_look_like_kafkas() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recovery-point-offset-checkpoint");
        let disk = disk::real();
        let offsets = Offsets::from([
            ("a-b-0".to_owned(), 7),
            ("orders-11".to_owned(), 0),
            ("gone-0.0123-delete".to_owned(), 3),
        ]);
        write_offsets(&*disk, &path, &offsets).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "0\n2\na-b 0 7\norders 11 0\n");
        let read = read_offsets(&*disk, &path).unwrap();
        assert_eq!(read["a-b-0"], 7);
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn epochs_that_were_cut_off_are_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leader-epoch-checkpoint");
        let disk = disk::real();
        let whole = render_epochs(&[(0, 37), (1, 52)]);
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(read_epochs(&*disk, &path).unwrap(), [(0, 37), (1, 52)]);
        for size in 0..whole.len() {
            std::fs::write(&path, &whole[..size]).unwrap();
            assert!(read_epochs(&*disk, &path).is_err(), "{size} bytes");
        }
    }

    #[test]
    fn a_damaged_checkpoint_is_an_error_and_an_absent_one_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let disk = disk::real();
        assert!(read_offsets(&*disk, &path).unwrap().is_empty());
        for text in ["", "1\n0\n", "0\n2\na 0 1\n", "0\n1\na b c\n", "0\nx\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(read_offsets(&*disk, &path).is_err(), "{text:?}");
        }
    }
}
