//! One of what a message may name more than once.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

/// Every item once by its key, at the place where it first came; `join` adds a later one to it. Takes time in proportion
/// to the items: how many there are is for the client to choose.
pub(crate) fn merged<T, K: Eq + Hash>(
    items: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> K,
    join: impl Fn(&mut T, T),
) -> Vec<T> {
    let items = items.into_iter();
    let mut merged: Vec<T> = Vec::with_capacity(items.size_hint().0);
    let mut places = HashMap::with_capacity(items.size_hint().0);
    for item in items {
        match places.entry(key(&item)) {
            Entry::Occupied(place) => {
                let place: usize = *place.get();
                join(&mut merged[place], item);
            }
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push(item);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_joined_to_the_first() {
        let items = [("b", 1), ("a", 2), ("b", 3)];
        let merged = merged(items, |item| item.0, |first, later| first.1 += later.1);
        assert_eq!(merged, [("b", 4), ("a", 2)]);
    }
}
