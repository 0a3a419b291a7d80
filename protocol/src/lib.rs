//! Kafka's wire format: bytes in, types out.
//!
//! Nothing here opens a socket or a file, reads a clock, spawns or locks. Whatever comes from
//! outside is checked before it is believed, and what does not pass is an error, never a panic and
//! never a reservation of memory larger than the input justifies.

pub mod batch;
pub mod compression;
pub mod error;
pub mod fetch;
pub mod frame;
pub mod json;
pub mod messages;
pub mod record;
pub mod records;
pub mod request;
pub mod response;
pub mod schema;
pub mod validate;
pub mod versions;

mod by_topic_id;
mod shape;
mod varint;
