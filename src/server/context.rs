//! Who is asking, and when.

use std::{
    future::Future,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use kafka_protocol::{messages::ApiKey, protocol::StrBytes};
use protocol::versions;

use crate::api::error::Error;

/// What a handler may know about the request besides its body.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// When the request's last byte had been read. Time-outs in the body count from here.
    pub(crate) received_at: Instant,
    /// The same moment in milliseconds since the epoch.
    pub(crate) now: i64,
    /// Version of the request; already checked against the served range.
    pub(crate) version: i16,
    pub(crate) client_id: Option<StrBytes>,
    /// Where the client is.
    pub(crate) peer: IpAddr,
    /// Name of the listener the client came in by: its answers advertise this listener's addresses.
    pub(crate) listener: Arc<str>,
    /// Whom it reaches by that.
    pub(crate) role: Role,
}

/// What a node is to those who come in by a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Broker,
    /// Named in `controller.listener.names`.
    Controller,
}

impl Role {
    /// Is this for it to answer?
    pub(crate) fn serves(self, key: ApiKey) -> bool {
        match self {
            Self::Broker => true,
            Self::Controller => versions::OF_CONTROLLERS.contains(&key),
        }
    }
}

impl Context {
    /// Does `work` within the time-out of the request's body, which counts from the moment it came. A
    /// time-out of nothing means that nothing is done, as a real broker has it.
    pub(crate) async fn within<T>(
        &self,
        timeout_ms: i32,
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        if timeout.is_zero() {
            return Err(Error::TimedOut);
        }
        let deadline = self.received_at + timeout;
        tokio::time::timeout_at(deadline.into(), work)
            .await
            .map_err(|_| Error::TimedOut)
    }
}
