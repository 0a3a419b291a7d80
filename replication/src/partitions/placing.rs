//! Which log directory a replica belongs in.

use std::sync::Arc;

use storage::directory::Directory;

use super::{Partitions, index::Index};
use crate::cluster::{ClusterImage, PartitionInfo, is_assigned};

impl Partitions {
    /// The directory that the image says, if it works.
    pub(super) fn named(&self, info: &PartitionInfo) -> Option<Arc<Directory>> {
        let place = info.replicas.iter().position(|id| *id == self.node_id)?;
        let wanted = info.directories.get(place)?;
        let named = self
            .directories
            .iter()
            .find(|directory| directory.id() == *wanted && !directory.is_offline());
        named.cloned()
    }

    /// Is the log perhaps in a directory that has failed? An empty one in its place would be taken for it.
    pub(super) fn may_be_out_of_reach(&self, info: &PartitionInfo) -> bool {
        let any_offline = || self.directories.iter().any(|one| one.is_offline());
        let noted = info.directory_of(self.node_id);
        noted.is_some_and(is_assigned)
            && self.named(info).is_none()
            && (!self.unusable.is_empty() || any_offline())
    }

    /// Where a new log goes: where the image says, else where the fewest are of those that are not
    /// cordoned, if there are any.
    pub(super) fn choose(
        &self,
        image: &ClusterImage,
        info: &PartitionInfo,
        counts: &mut [usize],
    ) -> Option<Arc<Directory>> {
        let named = self.named(info).and_then(|named| {
            let is_it = |other| Arc::ptr_eq(other, &named);
            self.directories.iter().position(is_it)
        });
        let at = named.or_else(|| {
            (0..self.directories.len())
                .filter(|at| !self.directories[*at].is_offline())
                .min_by_key(|at| {
                    let cordoned = image.has_cordoned(self.node_id, self.directories[*at].id());
                    (cordoned, counts[*at])
                })
        })?;
        counts[at] += 1;
        Some(Arc::clone(&self.directories[at]))
    }

    pub(super) fn counts(&self, index: &Index) -> Vec<usize> {
        let mut counts = vec![0; self.directories.len()];
        for partition in index.by_id.values().flat_map(|topic| topic.iter()) {
            let home = partition.home();
            let at = self
                .directories
                .iter()
                .position(|other| Arc::ptr_eq(other, &home.directory));
            if let Some(at) = at {
                counts[at] += 1;
            }
        }
        counts
    }
}
