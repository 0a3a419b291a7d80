//! A broker that serves, until it is stopped.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::Broker;

/// How long answers in flight are waited for when the broker stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A broker that serves. Dropping it stops nothing: call [`Running::stop`].
pub struct Running {
    pub(super) broker: Arc<Broker>,
    pub(super) addresses: BTreeMap<String, SocketAddr>,
    pub(super) metrics_address: Option<SocketAddr>,
    pub(super) tasks: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Where a listener is bound.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.addresses.get(listener).copied()
    }

    /// Where metrics are served, if they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Returns when the broker cannot go on, with the reason. There is nothing left to stop in good order:
    /// the process should end.
    pub async fn failed(&self) -> String {
        let mut failed = self.broker.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The broker, which this holds, has the other end.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops: what is in flight is answered, logs are closed, and the next start finds nothing to do.
    pub async fn stop(self) {
        info!("stopping");
        let broker = self.broker;
        broker.stopping.send_replace(true);
        // Who waits for a rebalance waits for longer than a broker takes to stop.
        broker.groups.close();
        broker.transactions.runtime().close();
        if tokio::time::timeout(DRAIN_MAX, broker.connections.gone())
            .await
            .is_err()
        {
            warn!(
                connections = broker.connections.count(),
                "clients are still connected after {} s: closing their connections",
                DRAIN_MAX.as_secs()
            );
        }
        for task in self.tasks {
            // A task that has panicked has said so.
            let _ = task.await;
        }
        // What they would append from now on could be neither synced nor checked by the next start.
        broker.connections.cut_off();
        let _ = tokio::time::timeout(DRAIN_MAX, broker.connections.gone()).await;
        broker.controller.shutdown().await;
        let closing = Arc::clone(&broker);
        let closed = tokio::task::spawn_blocking(move || {
            for partition in closing.partitions.all() {
                partition.close();
            }
            for directory in closing.partitions.directories() {
                if let Err(err) = directory.close(closing.broker_epoch) {
                    error!(%err, "a log directory is not left clean: the next start will recover it");
                }
            }
        });
        let _ = closed.await;
        info!("stopped");
    }
}
