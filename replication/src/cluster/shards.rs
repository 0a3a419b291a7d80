//! Maps of which many copies are alive at a time.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
};

const SHARDS: usize = 128;

/// A map cut into pieces that copies share: writing to a copy clones one piece.
///
/// Ten thousand topics cloned for every change would cost more than the change's fsync.
#[derive(Debug, Clone)]
pub(super) struct Shards<K, V> {
    pieces: Vec<Arc<BTreeMap<K, V>>>,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Shards<K, V> {
        let empty = Arc::new(BTreeMap::new());
        Shards {
            pieces: vec![empty; SHARDS],
        }
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Shards<K, V> {
    pub(super) fn get<Q: Ord + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.pieces[shard(key)].get(key)
    }

    pub(super) fn get_mut<Q: Ord + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
    {
        Arc::make_mut(&mut self.pieces[shard(key)]).get_mut(key)
    }

    pub(super) fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        Arc::make_mut(&mut self.pieces[shard(&key)])
            .entry(key)
            .or_default()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        Arc::make_mut(&mut self.pieces[shard(&key)]).insert(key, value);
    }

    pub(super) fn remove<Q: Ord + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        Arc::make_mut(&mut self.pieces[shard(key)]).remove(key)
    }

    /// What an earlier copy has under keys that are not in this one. What the two share is not looked at.
    pub(super) fn gone_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a V> {
        let pieces = before.pieces.iter().zip(&self.pieces);
        let changed = pieces.filter(|(before, now)| !Arc::ptr_eq(before, now));
        changed.flat_map(|(before, now)| {
            let gone = before.iter().filter(|(key, _)| !now.contains_key(key));
            gone.map(|(_, value)| value)
        })
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }
}

fn shard<Q: Hash + ?Sized>(key: &Q) -> usize {
    // `DefaultHasher::new()` has fixed keys: the order of `iter` is the same in every process, so
    // two controllers write the same checkpoint.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0)
}
