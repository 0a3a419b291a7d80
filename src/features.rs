//! The features of the cluster: what this version can live with, and what a new cluster starts with.
//!
//! Clients choose what to do by the finalized levels in ApiVersions, so nothing is finalized here that
//! does not work: groups' and transactions' features come with the coordinators.

use std::collections::BTreeMap;

/// Feature, lowest and highest level that works, and the level of a new cluster.
const FEATURES: &[(&str, i16, i16, i16)] = &[
    ("eligible.leader.replicas.version", 0, 1, 1),
    ("metadata.version", 7, 33, 33),
];

/// Name to the range of levels.
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
