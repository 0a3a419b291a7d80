//! Copies that agree.
//!
//! What the cluster knows about itself ([`cluster`]) is decided by the [`controller`] and agreed on
//! by Raft. Nothing here knows Kafka's error codes or opens a client's socket.

pub mod admission;
pub mod cluster;
pub mod controller;
pub mod error;
pub mod partition;
pub mod partitions;
pub mod watermark;
