//! What logs know of their producers, read before a request asks for it.
//!
//! The first question after a start reads the log since its last snapshot of producers, from a disk that may be cold: not on
//! a thread that serves everybody else too.

use std::sync::Arc;

use replication::partition::Partition;

/// Loads what is not known yet, on a thread that may wait for the disk. `now` is in ms.
pub(super) async fn load<'a>(partitions: impl Iterator<Item = &'a Arc<Partition>>, now: i64) {
    let unknown: Vec<Arc<Partition>> = partitions
        .filter(|partition| !partition.log().knows_producers())
        .cloned()
        .collect();
    if unknown.is_empty() {
        return;
    }
    let loading = tokio::task::spawn_blocking(move || {
        for partition in unknown {
            // What cannot be read is said where it is asked for.
            let _ = partition.log().load_producers(now);
        }
    });
    // It only fails when the broker stops; the request then reads it here.
    let _ = loading.await;
}
