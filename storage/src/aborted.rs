//! Aborted transactions, as a `read_committed` consumer must skip them: the `.txnindex` format.
//!
//! ```text
//! version i16 0 | producer id i64 | first offset i64 | last offset i64 | last stable offset i64
//! ```
//!
//! Entries ascend by last offset (their markers' order); the file exists only if there are some.

use std::io;

use crate::{disk::File, producers::Completed};

/// One aborted transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    pub producer_id: i64,
    pub first_offset: i64,
    /// Of the abort marker.
    pub last_offset: i64,
    /// Where the oldest transaction still open then began: no later entry begins before it.
    pub last_stable_offset: i64,
}

impl From<Completed> for Aborted {
    fn from(completed: Completed) -> Aborted {
        Aborted {
            producer_id: completed.producer_id,
            first_offset: completed.first_offset,
            last_offset: completed.last_offset,
            last_stable_offset: completed.last_stable_offset,
        }
    }
}

pub const ENTRY_SIZE: usize = 34;
const VERSION: i16 = 0;
/// Entries that are read at a time: a page.
const CHUNK: usize = 120;

impl Aborted {
    pub fn encode(&self) -> [u8; ENTRY_SIZE] {
        let mut bytes = [0; ENTRY_SIZE];
        bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
        bytes[2..10].copy_from_slice(&self.producer_id.to_be_bytes());
        bytes[10..18].copy_from_slice(&self.first_offset.to_be_bytes());
        bytes[18..26].copy_from_slice(&self.last_offset.to_be_bytes());
        bytes[26..].copy_from_slice(&self.last_stable_offset.to_be_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; ENTRY_SIZE]) -> Option<Aborted> {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            i64::from_be_bytes(number)
        };
        let version = i16::from_be_bytes([bytes[0], bytes[1]]);
        (version == VERSION).then(|| Aborted {
            producer_id: number(2),
            first_offset: number(10),
            last_offset: number(18),
            last_stable_offset: number(26),
        })
    }
}

/// The entries in a whole file; what a crash cut off or left unwritten at the end is left out.
pub fn decode_all(bytes: &[u8]) -> Vec<Aborted> {
    let (chunks, _) = bytes.as_chunks();
    let mut entries: Vec<Aborted> = Vec::new();
    for entry in chunks.iter().map_while(Aborted::decode) {
        // A marker comes after what it ends: not so in zeros.
        let ascends = entries
            .last()
            .is_none_or(|last| last.last_offset < entry.last_offset);
        if entry.first_offset >= entry.last_offset || !ascends {
            break;
        }
        entries.push(entry);
    }
    entries
}

/// Adds to `found` what has records in `from..to`, without reading more of the file than that. True if no later entry
/// begins before `to`.
pub(crate) fn within(
    file: &dyn File,
    from: i64,
    to: i64,
    found: &mut Vec<Aborted>,
) -> io::Result<bool> {
    let mut at = first_ending_at(file, from)?;
    let mut bytes = [0; CHUNK * ENTRY_SIZE];
    loop {
        let read = file.read_at(&mut bytes, at * ENTRY_SIZE as u64)?;
        let entries = decode_all(&bytes[..read]);
        at += entries.len() as u64;
        let is_last = entries.len() < CHUNK;
        for entry in entries {
            if entry.first_offset < to {
                found.push(entry);
            }
            if entry.last_stable_offset >= to {
                return Ok(true);
            }
        }
        if is_last {
            return Ok(false);
        }
    }
}

/// The place of the first entry whose marker is at or after `offset`, by bisection: the number of entries if there is
/// none.
fn first_ending_at(file: &dyn File, offset: i64) -> io::Result<u64> {
    let mut bytes = [0; ENTRY_SIZE];
    let (mut low, mut high) = (0, file.size()? / ENTRY_SIZE as u64);
    while low < high {
        let middle = low.midpoint(high);
        let read = file.read_at(&mut bytes, middle * ENTRY_SIZE as u64)?;
        match decode_all(&bytes[..read]).first() {
            Some(entry) if entry.last_offset < offset => low = middle + 1,
            // It ends there, or a crash has left nothing in its place: those before it are whole.
            _ => high = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_34_bytes_and_comes_back() {
        let entry = Aborted {
            producer_id: 1,
            first_offset: 2,
            last_offset: 3,
            last_stable_offset: 4,
        };
        let mut bytes = entry.encode().to_vec();
        assert_eq!(bytes.len(), 34);
        assert_eq!(bytes[9], 1);
        bytes.extend_from_slice(&entry.encode()[..20]);
        assert_eq!(decode_all(&bytes), [entry]);
        bytes.truncate(ENTRY_SIZE);
        bytes.resize(10 * ENTRY_SIZE, 0);
        assert_eq!(decode_all(&bytes), [entry]);
        assert_eq!(decode_all(&bytes[ENTRY_SIZE..]), []);
    }
}
