//! The `sordini` binary: reads the command line and runs a broker until it is told to stop.

use std::{process::ExitCode, time::Duration};

use replication::error::Error;
use sordini::{
    Config, StartError,
    cli::{self, Exit},
    descriptors, logging, resident,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

/// A write into the page cache can stall when the kernel throttles dirty pages, so there are more
/// workers than cores to wait for it.
const WORKERS_PER_CORE: usize = 2;

/// How long work may take that nobody waits for any more, when all else has ended.
const LEFT_OVER_MAX: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    cli::run(start)
}

fn start(config: Config) -> Exit {
    logging::init();
    for warning in config.warnings() {
        warn!("{warning}");
    }
    if let Err(err) = descriptors::raise_limit() {
        warn!("cannot raise the limit of open files: {err}");
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores * WORKERS_PER_CORE)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(run(config));
            // A recovery that was interrupted is not waited for: the next start does it again.
            runtime.shutdown_timeout(LEFT_OVER_MAX);
            exit
        }
        Err(err) => {
            error!("cannot start the runtime: {err}");
            Exit::Failed
        }
    }
}

async fn run(config: Config) -> Exit {
    // Before anything else: as the first process of a container it would not be stopped by a signal that it does
    // not listen to, and a start may have much to recover.
    let told = match Signals::new() {
        Ok(signals) => signals.told_to_stop(),
        Err(err) => {
            error!("cannot listen to signals: {err}");
            return Exit::Failed;
        }
    };
    tokio::pin!(told);
    let started = tokio::select! {
        started = sordini::start(config) => started,
        signal = &mut told => {
            info!("{signal} received while starting");
            return Exit::Done;
        }
    };
    let running = match started {
        Ok(running) => running,
        Err(err) => {
            let cause = std::error::Error::source(&err).map(|cause| format!(": {cause}"));
            error!("cannot start: {err}{}", cause.unwrap_or_default());
            return match err {
                StartError::Directory(_) => Exit::Directory,
                StartError::Listen { .. } | StartError::Metrics { .. } => Exit::Address,
                StartError::Host { .. } => Exit::Configuration,
                StartError::Controller(Error::Stopped) => Exit::Failed,
                // What is in the directory does not go on, or not with this configuration: another start does not help.
                StartError::Controller(_) | StartError::Refused(_) => Exit::Directory,
            };
        }
    };
    resident::release_code();
    tokio::select! {
        signal = told => info!("{signal} received"),
        why = running.failed() => {
            error!("Shutdown broker because {why}");
            return Exit::Directory;
        }
    }
    running.stop().await;
    Exit::Done
}

/// Those that ask the process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn told_to_stop(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
