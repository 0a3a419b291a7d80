//! Copies that agree.
//!
//! What the cluster knows about itself ([`cluster`]) is decided by the [`controller`] and agreed on
//! by Raft. Nothing here answers a client: only [`peer`] has sockets, to other brokers.

pub mod admission;
pub mod cluster;
pub mod controller;
pub mod error;
pub mod partition;
pub mod partitions;
pub mod peer;
pub mod watermark;
