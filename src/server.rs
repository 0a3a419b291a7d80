//! Sockets: who may connect, what a connection does, and which handler answers which request.

mod connection;
mod context;
mod dispatch;
mod listener;
mod outbox;

pub(crate) use context::{Context, Role};
pub(crate) use listener::{Connections, Listener, OwnLimits, Unresolved};
