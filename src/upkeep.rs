//! What a broker does when nobody asks: follow the cluster image, look after its directories, apply retention,
//! compact, write checkpoints.

use std::{sync::Arc, time::Duration};

use replication::partitions;
use storage::{directory::Directory, error::Error};
use tokio::task::JoinHandle;
use tracing::error;

use crate::{broker::Broker, cleaner, clock};

/// How often it is looked whether a topic's `flush.ms` is over and whether deleted files may go.
const TICK: Duration = Duration::from_secs(1);

/// Applies the image there is, and starts the tasks that go on until the broker stops.
pub(crate) async fn start(broker: &Arc<Broker>) -> Vec<JoinHandle<()>> {
    let mut images = broker.controller().watch();
    let image = Arc::clone(&images.borrow_and_update());
    blocking(broker, move |broker| broker.apply(&image)).await;
    broker.tell_places().await;
    broker.tell_cordoned().await;

    let follow = {
        let broker = Arc::clone(broker);
        async move {
            let stopping = broker.stopping();
            tokio::pin!(stopping);
            loop {
                tokio::select! {
                    changed = images.changed() => if changed.is_err() { return },
                    () = &mut stopping => return,
                }
                let image = Arc::clone(&images.borrow_and_update());
                blocking(&broker, move |broker| broker.apply(&image)).await;
                broker.tell_places().await;
                broker.tell_cordoned().await;
            }
        }
    };
    let watch_directories = {
        let broker = Arc::clone(broker);
        async move {
            let stopping = broker.stopping();
            tokio::pin!(stopping);
            loop {
                tokio::select! {
                    () = broker.partitions().attention() => (),
                    () = &mut stopping => return,
                }
                blocking(&broker, |broker| broker.partitions().take_offline()).await;
                broker.tell_directories().await;
                broker.tell_places().await;
            }
        }
    };
    let keep_time = {
        let broker = Arc::clone(broker);
        async move {
            tokio::select! {
                () = broker.groups().keep_time() => (),
                () = broker.transactions().runtime().keep_time() => (),
                () = broker.stopping() => (),
            }
        }
    };
    let config = broker.config();
    vec![
        tokio::spawn(follow),
        tokio::spawn(keep_time),
        tokio::spawn(cleaner::run(Arc::clone(broker))),
        tokio::spawn(watch_directories),
        every(broker, TICK, |broker| {
            flush_what_is_due(broker);
            broker.partitions().remove_doomed(clock::now());
        }),
        every(broker, config.log_retention_check_interval, retain),
        every(
            broker,
            config.replica_high_watermark_checkpoint_interval,
            write_high_watermarks,
        ),
        every(
            broker,
            config.log_flush_offset_checkpoint_interval,
            |broker| checkpoint(broker, Directory::checkpoint_recovery_points),
        ),
        every(
            broker,
            config.log_flush_start_offset_checkpoint_interval,
            |broker| checkpoint(broker, Directory::checkpoint_start_offsets),
        ),
    ]
}

/// Runs `work` where it may wait for the disk.
async fn blocking(broker: &Arc<Broker>, work: impl FnOnce(&Broker) + Send + 'static) {
    let broker = Arc::clone(broker);
    let done = tokio::task::spawn_blocking(move || work(&broker)).await;
    if let Err(err) = done {
        error!(%err, "upkeep failed");
    }
}

fn every(broker: &Arc<Broker>, period: Duration, work: fn(&Broker)) -> JoinHandle<()> {
    let broker = Arc::clone(broker);
    tokio::spawn(async move {
        let stopping = broker.stopping();
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                () = tokio::time::sleep(period) => blocking(&broker, work).await,
                () = &mut stopping => return,
            }
        }
    })
}

/// `flush.ms`: what was appended this long ago must be on disk.
fn flush_what_is_due(broker: &Broker) {
    let now = clock::now();
    for partition in broker.partitions().all() {
        let home = partition.home();
        if home.log.flush_due(now)
            && let Err(err) = home.directory.flush(&home.log, home.log.end_offset())
            && !matches!(err, Error::Gone { .. })
        {
            error!(partition = %partition.name(), %err, "cannot flush");
        }
    }
}

fn retain(broker: &Broker) {
    for partition in broker.partitions().all() {
        // A topic may be deleted, with all its files, before its turn comes.
        if let Err(err) = partition
            .log()
            .retain(partition.high_watermark(), clock::now())
            && !matches!(err, Error::Gone { .. })
        {
            error!(partition = %partition.name(), %err, "cannot apply retention");
        }
    }
}

fn checkpoint(broker: &Broker, write: fn(&Directory) -> Result<(), Error>) {
    for directory in broker.partitions().directories() {
        if let Err(err) = write(directory) {
            error!(%err, "cannot write a checkpoint");
        }
    }
}

fn write_high_watermarks(broker: &Broker) {
    let all = broker.partitions().all();
    for directory in broker.partitions().directories() {
        let offsets = partitions::high_watermarks(&all, directory);
        if let Err(err) = directory.write_high_watermarks(&offsets) {
            error!(%err, "cannot write the high watermarks");
        }
    }
}
