//! The newest offset of each key, in a table that grows to a fixed size.
//!
//! A key is remembered by a hash, not by its bytes: of the 128 bits of two SipHashes with random
//! keys 88 are kept, next to 40 bits for the offset, which counts from where the table begins.
//! Sixteen bytes a key, where Kafka needs 24. Two of eight million keys are taken for one another once
//! in 10^13 tables, and nobody who does not know the random keys can choose such two.
//!
//! How many keys there are is known only when all records have been seen, and a table that has room for
//! as many as there are records would be out of reach of the processor's caches.

use std::hash::{BuildHasher, RandomState};

const ENTRY_SIZE: u64 = 16;
const OFFSET_BITS: u32 = 40;
/// Entries hold the offset plus one, so that none is zero.
const OFFSET_MAX: u128 = (1 << OFFSET_BITS) - 2;

pub(crate) struct OffsetMap {
    /// Zero is empty: the upper bits are of the hash, and choose the slot; the lower ones are the offset
    /// plus one.
    slots: Vec<u128>,
    used: usize,
    /// Of the slots that there are now, before there have to be more.
    used_max: usize,
    slots_max: usize,
    load_factor: f64,
    base_offset: i64,
    hashers: (RandomState, RandomState),
}

/// The bits that name a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag(u128);

/// The table takes no more keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl OffsetMap {
    /// For keys of records from `base_offset` on, at most `records` of them. Takes at most `bytes` of
    /// memory, and half as much again while it grows for the last time, and for [`Self::newest`].
    pub(crate) fn new(bytes: u64, load_factor: f64, base_offset: i64, records: u64) -> OffsetMap {
        const SLOTS_MIN: u64 = 16;
        const SLOTS_FIRST: usize = 1 << 14;
        let load_factor = if load_factor > 0.0 && load_factor < 1.0 {
            load_factor
        } else {
            0.9
        };
        let most = (bytes / ENTRY_SIZE).max(SLOTS_MIN);
        // Twice what is needed at most: probing is short then.
        let slots = records.saturating_mul(2).clamp(SLOTS_MIN, most);
        let slots_max = usize::try_from(slots).unwrap_or(usize::MAX);
        let mut map = OffsetMap {
            slots: Vec::new(),
            used: 0,
            used_max: 0,
            slots_max,
            load_factor,
            base_offset,
            hashers: (RandomState::new(), RandomState::new()),
        };
        map.resize(slots_max.min(SLOTS_FIRST));
        map
    }

    fn resize(&mut self, slots: usize) {
        let entries = std::mem::replace(&mut self.slots, vec![0; slots]);
        // A fraction of a number that fits.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let used_max = (slots as f64 * self.load_factor) as usize;
        self.used_max = used_max.max(1);
        for entry in entries.into_iter().filter(|entry| *entry != 0) {
            let slot = self.slot_of(entry);
            self.slots[slot] = entry;
        }
    }

    /// The record at `offset` has this key. Offsets ascend.
    pub(crate) fn put(&mut self, Tag(tag): Tag, offset: i64) -> Result<(), Full> {
        let relative = u128::try_from(offset - self.base_offset).map_err(|_| Full)?;
        if relative > OFFSET_MAX {
            return Err(Full);
        }
        let mut slot = self.slot_of(tag);
        if self.slots[slot] == 0 {
            if self.used == self.used_max {
                if self.slots.len() == self.slots_max {
                    return Err(Full);
                }
                self.resize(self.slots.len().saturating_mul(2).min(self.slots_max));
                slot = self.slot_of(tag);
            }
            self.used += 1;
        }
        self.slots[slot] = tag | (relative + 1);
        Ok(())
    }

    /// The newest offset of the key, if it was put in.
    pub(crate) fn get(&self, Tag(tag): Tag) -> Option<i64> {
        let entry = self.slots[self.slot_of(tag)];
        let relative = relative(entry);
        (entry != 0).then(|| self.base_offset + relative)
    }

    pub(crate) fn tag(&self, key: &[u8]) -> Tag {
        let high = u128::from(self.hashers.0.hash_one(key));
        let low = u128::from(self.hashers.1.hash_one(key));
        Tag((high << 64 | low) & !((1 << OFFSET_BITS) - 1))
    }

    /// Which offsets below `end` are the newest of their keys: to be asked in the order of offsets, which takes a
    /// fraction of what looking up each key again takes. `None` if the offsets are so far apart that this would be
    /// larger than the table.
    pub(crate) fn newest(&self, end: i64) -> Option<Newest> {
        let span = usize::try_from(end - self.base_offset).ok()?;
        let words = span.div_ceil(64);
        if self.slots.len() < words {
            return None;
        }
        let mut bits = vec![0; words];
        for entry in self.slots.iter().filter(|entry| **entry != 0) {
            let at = usize::try_from(relative(*entry)).ok()?;
            // Of a batch that the table had no room for some keys may be in it: their newest is beyond the end.
            if let Some(word) = bits.get_mut(at / 64) {
                *word |= 1 << (at % 64);
            }
        }
        Some(Newest {
            base_offset: self.base_offset,
            bits,
        })
    }

    /// The slot of what has these upper bits, or the one it would get.
    fn slot_of(&self, tag: u128) -> usize {
        // Invariant: a slot is free, because the load factor is below one.
        let scaled = ((tag >> 64) * self.slots.len() as u128) >> 64;
        let mut slot = usize::try_from(scaled).unwrap_or(0);
        loop {
            let entry = self.slots[slot];
            if entry == 0 || entry >> OFFSET_BITS == tag >> OFFSET_BITS {
                return slot;
            }
            slot = if slot + 1 == self.slots.len() {
                0
            } else {
                slot + 1
            };
        }
    }

    /// The share of the table that is used, of the largest that it may be.
    pub(crate) fn utilization(&self) -> f64 {
        self.used as f64 / self.slots_max as f64
    }
}

/// How far after the base offset the offset in this entry is; -1 for an empty one.
fn relative(entry: u128) -> i64 {
    // 40 bits.
    #[allow(clippy::cast_possible_truncation)]
    let relative = (entry as u64 & ((1 << OFFSET_BITS) - 1)).cast_signed();
    relative - 1
}

/// The offsets that are the newest of their keys, a bit for each offset.
pub(crate) struct Newest {
    base_offset: i64,
    bits: Vec<u64>,
}

impl Newest {
    pub(crate) fn contains(&self, offset: i64) -> bool {
        let at = usize::try_from(offset - self.base_offset).ok();
        let word = at.and_then(|at| Some((at, self.bits.get(at / 64)?)));
        word.is_some_and(|(at, word)| word >> (at % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl OffsetMap {
        fn put_key(&mut self, key: &[u8], offset: i64) -> Result<(), Full> {
            self.put(self.tag(key), offset)
        }

        fn get_key(&self, key: &[u8]) -> Option<i64> {
            self.get(self.tag(key))
        }
    }

    #[test]
    fn the_newest_offset_of_a_key_is_found() {
        let mut map = OffsetMap::new(1 << 20, 0.9, 1000, 10_000);
        for offset in 1000..11_000_i64 {
            map.put_key(&(offset % 3000).to_be_bytes(), offset).unwrap();
        }
        for key in 0..3000_i64 {
            let newest = (1000..11_000).rfind(|offset| offset % 3000 == key);
            assert_eq!(map.get_key(&key.to_be_bytes()), newest);
        }
        assert_eq!(map.get_key(b"another"), None);
        assert_eq!(map.get_key(b""), None);
        let newest = map.newest(11_000).unwrap();
        for offset in 0..12_000_i64 {
            assert_eq!(newest.contains(offset), (8000..11_000).contains(&offset));
        }
    }

    #[test]
    fn a_key_that_is_newest_behind_the_end_is_outdated_before_it() {
        let mut map = OffsetMap::new(1 << 10, 0.9, 0, 100);
        for (key, offset) in [(b"a", 5), (b"b", 10), (b"a", 70)] {
            map.put_key(key, offset).unwrap();
        }
        let newest = map.newest(64).unwrap();
        assert!(newest.contains(10) && !newest.contains(5));
    }

    #[test]
    fn offsets_far_apart_have_no_bits() {
        let mut map = OffsetMap::new(1 << 10, 0.9, 0, 10);
        map.put_key(b"a", 1 << 30).unwrap();
        assert!(map.newest((1 << 30) + 1).is_none());
    }

    #[test]
    fn it_grows_to_its_size_and_loses_no_key() {
        const KEYS: i64 = 100_000;
        let mut map = OffsetMap::new(4 << 20, 0.9, 0, 10_000_000);
        let small = map.slots.len();
        for offset in 0..3 * KEYS {
            map.put_key(&(offset % KEYS).to_be_bytes(), offset).unwrap();
        }
        assert!(small < map.slots.len() && map.slots.len() < map.slots_max);
        for key in 0..KEYS {
            assert_eq!(map.get_key(&key.to_be_bytes()), Some(2 * KEYS + key));
        }
        let more = (KEYS..).find(|key| map.put_key(&key.to_be_bytes(), *key).is_err());
        assert_eq!(map.slots.len(), map.slots_max);
        assert_eq!(more, i64::try_from(map.used_max).ok());
    }

    #[test]
    fn it_is_full_at_the_load_factor_but_known_keys_go_on() {
        let mut map = OffsetMap::new(100 * 16, 0.5, 0, u64::MAX);
        for key in 0..50_i64 {
            map.put_key(&key.to_be_bytes(), key).unwrap();
        }
        assert_eq!(map.put_key(b"one more", 50), Err(Full));
        map.put_key(&7_i64.to_be_bytes(), 51).unwrap();
        assert_eq!(map.get_key(&7_i64.to_be_bytes()), Some(51));
        assert!((map.utilization() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn an_offset_too_far_away_fills_it() {
        let mut map = OffsetMap::new(1 << 10, 0.9, 0, 10);
        let far = (1 << 40) - 2;
        map.put_key(b"a", far).unwrap();
        assert_eq!(map.get_key(b"a"), Some(far));
        assert_eq!(map.put_key(b"b", far + 1), Err(Full));
    }
}
