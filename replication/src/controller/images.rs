//! Where the newest cluster image is published: read without a lock, or watched.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::cluster::ClusterImage;

#[derive(Debug)]
pub(super) struct Images {
    current: ArcSwap<ClusterImage>,
    changes: watch::Sender<Arc<ClusterImage>>,
}

impl Images {
    pub(super) fn new(image: Arc<ClusterImage>) -> Images {
        Images {
            current: ArcSwap::new(image.clone()),
            changes: watch::Sender::new(image),
        }
    }

    pub(super) fn current(&self) -> Arc<ClusterImage> {
        self.current.load_full()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.changes.subscribe()
    }

    pub(super) fn publish(&self, image: Arc<ClusterImage>) {
        self.current.store(image.clone());
        self.changes.send_replace(image);
    }
}
