//! The features of the cluster: what this version can live with, and what a new cluster starts with.
//!
//! Clients choose what to do by the finalized levels in ApiVersions, so nothing is finalized here that
//! does not work.

use std::collections::BTreeMap;

/// Feature, lowest and highest level that works, and the level of a new cluster.
const FEATURES: &[(&str, i16, i16, i16)] = &[
    ("eligible.leader.replicas.version", 0, 1, 1),
    ("group.version", 0, 1, 1),
    ("metadata.version", 7, 33, 33),
    ("transaction.version", 0, 2, 2),
];

/// Features that Apache Kafka has finalized in a directory taken over from it, and of which nothing works here
/// yet. They are left as they are and shown to nobody.
const LEFT_ALONE: &[(&str, i16, i16)] = &[("share.version", 0, 2), ("streams.version", 0, 1)];

/// May clients be told of this feature?
pub(crate) fn works(name: &str) -> bool {
    FEATURES.iter().any(|(feature, ..)| *feature == name)
}

/// What a broker of this version can live with, in a cluster that has it finalized.
pub(crate) fn tolerated() -> BTreeMap<String, (i16, i16)> {
    let mut ranges = supported();
    let range = |&(name, min, max): &(&str, i16, i16)| (name.to_owned(), (min, max));
    ranges.extend(LEFT_ALONE.iter().map(range));
    ranges
}

/// Name to the range of levels that work.
pub(crate) fn supported() -> BTreeMap<String, (i16, i16)> {
    let range = |&(name, min, max, _): &(&str, i16, i16, i16)| (name.to_owned(), (min, max));
    FEATURES.iter().map(range).collect()
}

/// What a new cluster is formatted with.
pub(crate) fn initial() -> BTreeMap<String, i16> {
    FEATURES
        .iter()
        .map(|&(name, _, _, level)| (name.to_owned(), level))
        .collect()
}
