//! One log on one disk, in Apache Kafka's own file formats, byte for byte.
//!
//! Blocking calls, no runtime, no clock (`now` is an argument, in milliseconds since the epoch), no
//! Kafka API, no cluster. A [`directory::Directory`] holds partitions; each is a [`log::Log`].
//!
//! ```text
//! directory   lock, checkpoints, going offline, the flusher        one per log.dirs entry
//!   log       append, read, truncate, flush, retain                one per partition
//!     segment a .log file with its indexes                         one per 1 GiB or 7 days
//!       files a bounded number of open file descriptors
//!         disk the system calls
//! ```

pub mod aborted;
pub mod checkpoint;
pub mod compaction;
pub mod config;
pub mod directory;
pub mod disk;
pub mod epochs;
pub mod error;
mod files;
pub mod index;
pub mod log;
pub mod producers;
pub mod properties;
mod read;
mod recovery;
pub mod retention;
mod segment;
