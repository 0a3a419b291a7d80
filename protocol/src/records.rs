//! Records that Kafka keeps in logs of its own.

pub mod control;
pub mod metadata;
