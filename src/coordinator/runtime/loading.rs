//! A shard is made from its partition's log, from the first record to the last.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::{
    batch::{Batch, BatchError},
    error::DecodeError,
};
use replication::partition::Appended;
use tracing::{error, info};

use super::{Active, Runtime, Shard, State, replay};
use crate::coordinator::Machine;

/// What one read of a log being loaded takes.
const LOAD_BYTES: usize = 4 << 20;

/// How long a partition that could not be read rests before it is tried again: at first, and at most.
const LOAD_REST: Duration = Duration::from_secs(1);
const LOAD_REST_MAX: Duration = Duration::from_secs(60);

/// What a partition's log has made.
struct Loaded<M> {
    machine: M,
    record_count: u64,
    /// Up to where it was read: the last of it may not have committed yet.
    end: Appended,
}

/// Why a partition could not be loaded.
#[derive(Debug)]
pub(in crate::coordinator) enum LoadError {
    Storage(storage::error::Error),
    Batch(BatchError),
    Record(DecodeError),
}

impl<M: Machine> Runtime<M> {
    /// Loads the shard, again and again if its log cannot be read: nobody else would ever try.
    pub(super) fn start_loading(self: &Arc<Self>, shard: Arc<Shard<M>>) {
        let runtime = Arc::clone(self);
        tokio::spawn(async move {
            let mut rest = LOAD_REST;
            loop {
                let opened = {
                    let (runtime, shard) = (Arc::clone(&runtime), Arc::clone(&shard));
                    tokio::task::spawn_blocking(move || runtime.open(&shard)).await
                };
                let partition = shard.partition.name();
                match opened {
                    Ok(Ok(())) => return,
                    Err(err) if err.is_cancelled() => return,
                    Ok(Err(err)) => {
                        error!(%partition, %err, ?rest, "a coordinator's log cannot be read: it is tried again");
                    }
                    Err(err) => {
                        error!(%partition, %err, ?rest, "a coordinator has failed while it was loaded: it is tried again");
                    }
                }
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(LOAD_REST_MAX);
            }
        });
    }

    /// # Errors
    /// If the log could not be read this time. What was read and made no sense will not make any later.
    fn open(&self, shard: &Shard<M>) -> Result<(), storage::error::Error> {
        let started = Instant::now();
        let partition = shard.partition.name();
        let loaded = self.load(shard);
        let mut state = shard.lock();
        if !matches!(*state, State::Loading) {
            return Ok(());
        }
        match loaded {
            Ok(Loaded {
                machine,
                record_count,
                end,
            }) => {
                let mut active = Active {
                    machine,
                    next_ticket: 0,
                    waiting: HashMap::new(),
                    newest: Some(end),
                };
                let effects = self.with_env(shard, |env| active.machine.loaded(env));
                self.carry_out(shard, &mut active, effects);
                self.mind(&active);
                *state = State::Active(active);
                if record_count > 0 {
                    let took_ms = started.elapsed().as_millis();
                    info!(%partition, record_count, took_ms, "coordinator loaded");
                }
            }
            Err(LoadError::Storage(err)) => return Err(err),
            Err(err) => {
                error!(%partition, %err, "a coordinator's log cannot be understood: what it keeps is not served");
                *state = State::Gone;
            }
        }
        Ok(())
    }

    /// Replays the partition from its first record to its last.
    fn load(&self, shard: &Shard<M>) -> Result<Loaded<M>, LoadError> {
        let log = shard.partition.log();
        let end = log.end_offset();
        let mut offset = log.start_offset();
        let start_offset = offset;
        let mut machine = (self.empty)();
        let mut record_count = 0;
        while offset < end {
            let bytes = log.read(offset, LOAD_BYTES, true, end)?.read()?;
            let batches = Batch::whole(bytes)?;
            // Nothing but emptiness up to the end: compaction may leave that.
            let Some(last) = batches.last() else { break };
            offset = last.header().next_offset();
            for batch in &batches {
                record_count += replay(&mut machine, batch)?;
            }
        }
        Ok(Loaded {
            machine,
            record_count,
            end: Appended {
                base_offset: end,
                end_offset: end,
                log_append_time: None,
                log_start_offset: start_offset,
                flush: false,
            },
        })
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(err) => write!(f, "{err}"),
            Self::Batch(err) => write!(f, "{err}"),
            Self::Record(err) => write!(f, "{err}"),
        }
    }
}

impl From<storage::error::Error> for LoadError {
    fn from(err: storage::error::Error) -> Self {
        Self::Storage(err)
    }
}

impl From<BatchError> for LoadError {
    fn from(err: BatchError) -> Self {
        Self::Batch(err)
    }
}

impl From<DecodeError> for LoadError {
    fn from(err: DecodeError) -> Self {
        Self::Record(err)
    }
}
