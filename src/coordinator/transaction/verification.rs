//! Whoever writes in a transaction must have added the partition to it, or adds it by writing: otherwise no marker
//! would ever come, and the partition's readers would wait for it for good.
//!
//! Clients of the first generation have added the partition by a request of its own, and it is looked whether they
//! have. Those of the second (KIP-890) leave it to the broker.

use std::{sync::Arc, time::Duration};

use protocol::error::ErrorCode;

use super::{
    request::{Request, Response},
    state::{BUMPING, Partitions},
};
use crate::{broker::Broker, coordinator::Producer};

/// What a client can make of an answer, by the version of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// Takes INVALID_TXN_STATE for what it is: fatal.
    First,
    /// Knows TRANSACTION_ABORTABLE.
    Abortable,
    /// Has partitions added by writing to them.
    Adding,
}

impl Client {
    /// Who sends this version, when it is known since which versions are what.
    pub(crate) fn of(version: i16, abortable: i16, adding: i16) -> Self {
        if adding <= version {
            Self::Adding
        } else if abortable <= version {
            Self::Abortable
        } else {
            Self::First
        }
    }

    /// Does the producer's epoch change with every transaction?
    pub(crate) fn bumps(self) -> bool {
        self == Self::Adding
    }
}

/// Are these partitions part of the producer's transaction, and the transaction still going on? Those that are not
/// are returned with the code for them; `Err` is for all of them.
///
/// `look` is called before the coordinator is: it notes the [`storage::producers::Standing`] in the partitions.
pub(crate) async fn verify(
    broker: &Broker,
    client: Client,
    transactional_id: &str,
    producer: Producer,
    partitions: Partitions,
    look: impl FnMut(),
) -> Result<(Partitions, ErrorCode), ErrorCode> {
    let refusal = match client {
        Client::First => ErrorCode::InvalidTxnState,
        Client::Abortable | Client::Adding => ErrorCode::TransactionAbortable,
    };
    let transactional_id: Arc<str> = Arc::from(transactional_id);
    let (request, patience) = match client {
        Client::Adding => {
            let request = Request::Add {
                transactional_id: Arc::clone(&transactional_id),
                producer,
                partitions,
                client_version: BUMPING,
            };
            let patience = broker.config().transactions.add_partitions_retry_max;
            (request, patience)
        }
        Client::First | Client::Abortable => {
            let request = Request::Verify {
                transactional_id: Arc::clone(&transactional_id),
                producer,
                partitions,
            };
            (request, Duration::ZERO)
        }
    };
    let transactions = broker.transactions();
    let answer = transactions.ask_patiently(&transactional_id, request, patience, look);
    match answer.await {
        Ok(Response::Missing(missing)) => Ok((missing, refusal)),
        Ok(_) => Ok((Partitions::new(), refusal)),
        // To who writes it is the epoch that is wrong.
        Err(ErrorCode::ProducerFenced) => Err(ErrorCode::InvalidProducerEpoch),
        Err(code) => Err(code),
    }
}
