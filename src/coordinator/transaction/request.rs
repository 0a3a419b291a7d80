//! What the transaction coordinator is asked, and what it answers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use kafka_protocol::messages::{
    describe_transactions_response::TransactionState as Described,
    list_transactions_response::TransactionState as Listed,
};
use protocol::error::ErrorCode;
use regex::Regex;
use tokio::{sync::Notify, time::Instant};

use super::{
    TransactionCoordinator,
    state::{Partitions, Status},
};
use crate::coordinator::{Producer, runtime::Runtime};

#[derive(Debug, Clone)]
pub(crate) enum Request {
    Init {
        transactional_id: Arc<str>,
        /// Who it was, if it goes on after an error.
        expected: Option<Producer>,
        timeout_ms: i32,
        new_id: Option<i64>,
    },
    Add {
        transactional_id: Arc<str>,
        producer: Producer,
        partitions: Partitions,
        client_version: i16,
    },
    Verify {
        transactional_id: Arc<str>,
        producer: Producer,
        partitions: Partitions,
    },
    End {
        transactional_id: Arc<str>,
        producer: Producer,
        commit: bool,
        /// Does the producer expect to have another epoch afterwards?
        bumps: bool,
        new_id: Option<i64>,
    },
    /// Every partition of the transaction has its marker, or is gone.
    MarkersWritten {
        transactional_id: Arc<str>,
        producer: Producer,
        new_id: Option<i64>,
    },
    Describe(Arc<str>),
    List(ListFilter),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Response {
    Done,
    /// Who the producer is from now on.
    Producer(Producer),
    /// Ask again with `new_id`.
    NeedsId,
    /// Those of the partitions asked for that are not part of the transaction.
    Missing(Partitions),
    Described(Box<Described>),
    Listed(Vec<Listed>),
}

/// Which transactional ids ListTransactions is about; what is empty or not there asks for all. Every partition of them
/// is asked with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListFilter {
    /// `None` asks for all.
    pub(crate) statuses: Option<HashSet<Status>>,
    pub(crate) producer_ids: Arc<HashSet<i64>>,
    /// Those that have been going on for longer (ms).
    pub(crate) longer_than_ms: Option<i64>,
    /// Has to match the whole of an id.
    pub(crate) pattern: Option<Regex>,
}

/// The coordinator of the transactional ids whose partitions this broker leads, for those who ask it.
#[derive(Debug)]
pub(crate) struct Transactions {
    runtime: Arc<Runtime<TransactionCoordinator>>,
    /// A transaction's markers have all been written.
    completed: Notify,
}

impl Transactions {
    pub(crate) fn new(runtime: Runtime<TransactionCoordinator>) -> Self {
        Self {
            runtime: Arc::new(runtime),
            completed: Notify::new(),
        }
    }

    pub(crate) fn runtime(&self) -> &Arc<Runtime<TransactionCoordinator>> {
        &self.runtime
    }

    /// Who waits for the end of a transaction may look again.
    pub(super) fn notify(&self) {
        self.completed.notify_waiters();
    }

    pub(crate) async fn ask(
        &self,
        transactional_id: &str,
        request: Request,
    ) -> Result<Response, ErrorCode> {
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        self.runtime.ask(transactional_id, request).await
    }

    /// The same, but while the markers of the producer's last transaction are on their way they are waited for. Each
    /// time before the coordinator is asked, `look` is called: what it finds is as old as the answer, or older.
    pub(crate) async fn ask_patiently(
        &self,
        transactional_id: &str,
        request: Request,
        patience: Duration,
        mut look: impl FnMut(),
    ) -> Result<Response, ErrorCode> {
        let deadline = Instant::now() + patience;
        loop {
            let completed = self.completed.notified();
            tokio::pin!(completed);
            completed.as_mut().enable();
            look();
            let answer = self.ask(transactional_id, request.clone()).await;
            if answer != Err(ErrorCode::ConcurrentTransactions) || deadline <= Instant::now() {
                return answer;
            }
            // Either way it is asked once more.
            let _ = tokio::time::timeout_at(deadline, completed).await;
        }
    }
}
