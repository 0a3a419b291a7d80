//! Compiling members' expressions and holding them against the names of topics, on threads that nobody else waits for.

use std::sync::Arc;

use tokio::{sync::Semaphore, task};
use tracing::error;

use super::GroupCoordinator;
use crate::{broker::Broker, coordinator::runtime::Job};

/// The threads, `group.coordinator.background.threads` of them.
#[derive(Debug)]
pub(crate) struct Threads(Arc<Semaphore>);

impl Threads {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// Does `work` when a thread is free. `None` if it has failed, which is a fault of the broker.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        // Nobody closes it.
        let thread = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let done = task::spawn_blocking(move || {
            let _thread = thread;
            work()
        });
        done.await
            .inspect_err(|err| error!(%err, "expressions cannot be resolved"))
            .ok()
    }
}

/// Resolves expressions of a group, and tells its coordinator. Ends when the broker stops.
pub(crate) async fn resolve(broker: Arc<Broker>, job: Job<GroupCoordinator>) {
    let index = job.partition.name().index;
    let resolve_and_tell = async {
        // If it has failed the coordinator asks again when it has not heard of it for long. Where the answer cannot be
        // taken, as by who does not lead the partition any more, nobody waits for it.
        if let Some(resolution) = broker.group_threads().run(move || job.task.run()).await {
            let _ = broker.groups().ask_groups(index, resolution).await;
        }
    };
    tokio::select! {
        () = resolve_and_tell => (),
        () = broker.stopping() => (),
    }
}
