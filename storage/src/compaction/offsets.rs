//! The newest offset of each key, in a table of fixed size.
//!
//! A key is remembered by a hash, not by its bytes: of the 128 bits of two SipHashes with random
//! keys, 40 choose the slot and 88 are kept, next to 40 bits for the offset, which counts from where the
//! table begins. Sixteen bytes a key, where Kafka needs 24. Two of eight million keys are taken for one
//! another once in 10^13 tables, and nobody who does not know the random keys can choose such two.

use std::hash::{BuildHasher, RandomState};

const ENTRY_SIZE: u64 = 16;
const OFFSET_BITS: u32 = 40;
/// Entries hold the offset plus one, so that none is zero.
const OFFSET_MAX: u128 = (1 << OFFSET_BITS) - 2;

pub(crate) struct OffsetMap {
    slots: Vec<u128>,
    /// Zero is empty: the upper bits are of the hash, the lower ones the offset plus one.
    used: usize,
    used_max: usize,
    base_offset: i64,
    hashers: (RandomState, RandomState),
}

/// The table takes no more keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl OffsetMap {
    /// For keys of records from `base_offset` on, at most `records` of them. Takes at most `bytes`
    /// of memory, and no more of it than is used: the kernel hands out pages when they are written.
    pub(crate) fn new(bytes: u64, load_factor: f64, base_offset: i64, records: u64) -> OffsetMap {
        const SLOTS_MIN: u64 = 16;
        let load_factor = if load_factor > 0.0 && load_factor < 1.0 {
            load_factor
        } else {
            0.9
        };
        let most = (bytes / ENTRY_SIZE).max(SLOTS_MIN);
        // Twice what is needed at most: probing is short then.
        let slots = records.saturating_mul(2).clamp(SLOTS_MIN, most);
        let slots = usize::try_from(slots).unwrap_or(usize::MAX);
        // A fraction of a number that fits.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let used_max = ((slots as f64 * load_factor) as usize).max(1);
        OffsetMap {
            slots: vec![0; slots],
            used: 0,
            used_max,
            base_offset,
            hashers: (RandomState::new(), RandomState::new()),
        }
    }

    /// The record at `offset` has this key. Offsets ascend.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) -> Result<(), Full> {
        let relative = u128::try_from(offset - self.base_offset).map_err(|_| Full)?;
        if relative > OFFSET_MAX {
            return Err(Full);
        }
        let (slot, tag) = self.find(key);
        if self.slots[slot] == 0 {
            if self.used == self.used_max {
                return Err(Full);
            }
            self.used += 1;
        }
        self.slots[slot] = tag | (relative + 1);
        Ok(())
    }

    /// The newest offset of the key, if it was put in.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let (slot, _) = self.find(key);
        let entry = self.slots[slot];
        // Below 2^40, so it fits.
        let relative = i64::try_from(entry & ((1 << OFFSET_BITS) - 1)).ok()?;
        (entry != 0).then(|| self.base_offset + relative - 1)
    }

    /// The slot of the key, or the one it would get, and the bits that name it there.
    fn find(&self, key: &[u8]) -> (usize, u128) {
        let high = u128::from(self.hashers.0.hash_one(key));
        let low = u128::from(self.hashers.1.hash_one(key));
        let tag = (high << 64 | low) & !((1 << OFFSET_BITS) - 1);
        // Invariant: a slot is free, because the load factor is below one.
        let fraction = low & ((1 << OFFSET_BITS) - 1);
        let scaled = (fraction * self.slots.len() as u128) >> OFFSET_BITS;
        let mut slot = usize::try_from(scaled).unwrap_or(0);
        loop {
            let entry = self.slots[slot];
            if entry == 0 || entry >> OFFSET_BITS == tag >> OFFSET_BITS {
                return (slot, tag);
            }
            slot = if slot + 1 == self.slots.len() {
                0
            } else {
                slot + 1
            };
        }
    }

    /// The share of the table that is used.
    pub(crate) fn utilization(&self) -> f64 {
        self.used as f64 / self.slots.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_offset_of_a_key_is_found() {
        let mut map = OffsetMap::new(1 << 20, 0.9, 1000, 10_000);
        for offset in 1000..11_000_i64 {
            map.put(&(offset % 3000).to_be_bytes(), offset).unwrap();
        }
        for key in 0..3000_i64 {
            let newest = (1000..11_000).rfind(|offset| offset % 3000 == key);
            assert_eq!(map.get(&key.to_be_bytes()), newest);
        }
        assert_eq!(map.get(b"another"), None);
        assert_eq!(map.get(b""), None);
    }

    #[test]
    fn it_is_full_at_the_load_factor_but_known_keys_go_on() {
        let mut map = OffsetMap::new(100 * 16, 0.5, 0, u64::MAX);
        for key in 0..50_i64 {
            map.put(&key.to_be_bytes(), key).unwrap();
        }
        assert_eq!(map.put(b"one more", 50), Err(Full));
        map.put(&7_i64.to_be_bytes(), 51).unwrap();
        assert_eq!(map.get(&7_i64.to_be_bytes()), Some(51));
        assert!((map.utilization() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn an_offset_too_far_away_fills_it() {
        let mut map = OffsetMap::new(1 << 10, 0.9, 0, 10);
        let far = (1 << 40) - 2;
        map.put(b"a", far).unwrap();
        assert_eq!(map.get(b"a"), Some(far));
        assert_eq!(map.put(b"b", far + 1), Err(Full));
    }
}
