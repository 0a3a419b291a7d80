//! The `sordini` binary: reads the command line and runs a broker until it is told to stop.

use std::process::ExitCode;

use sordini::{
    Config, StartError,
    cli::{self, Exit},
    descriptors, logging, resident,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

/// A write into the page cache can stall when the kernel throttles dirty pages, so there are more
/// workers than cores to wait for it.
const WORKERS_PER_CORE: usize = 2;

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
        Ok(runtime) => runtime.block_on(run(config)),
        Err(err) => {
            error!("cannot start the runtime: {err}");
            Exit::Failed
        }
    }
}

async fn run(config: Config) -> Exit {
    let running = match sordini::start(config).await {
        Ok(running) => running,
        Err(err) => {
            let cause = std::error::Error::source(&err).map(|cause| format!(": {cause}"));
            error!("cannot start: {err}{}", cause.unwrap_or_default());
            return match err {
                StartError::Directory(_) => Exit::Directory,
                StartError::Listen { .. } | StartError::Metrics { .. } => Exit::Address,
                StartError::Controller(_) | StartError::Refused(_) => Exit::Failed,
            };
        }
    };
    resident::release_code();
    let told = tokio::select! {
        told = told_to_stop() => told,
        why = running.failed() => {
            error!("Shutdown broker because {why}");
            return Exit::Directory;
        }
    };
    match told {
        Ok(signal) => info!("{signal} received"),
        Err(err) => error!("cannot wait for signals: {err}"),
    }
    running.stop().await;
    Exit::Done
}

async fn told_to_stop() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
