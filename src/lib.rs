//! A broker that speaks Apache Kafka's wire protocol. `ARCHITECTURE.md` is the map.

mod api;
mod broker;
mod cleaner;
pub mod cli;
mod client;
mod clock;
mod complaints;
pub mod config;
mod coordinator;
pub mod descriptors;
mod features;
mod fetch_sessions;
pub mod logging;
pub mod metrics;
mod random;
pub mod resident;
mod rules;
mod server;
mod tools;
mod topic_name;
mod turns;
mod upkeep;
mod warnings;

pub use broker::{Running, StartError, start, start_on};
pub use config::Config;

/// An array count that a frame claims becomes a reservation in the codec. jemalloc makes of it address
/// space that is never touched, where the system's allocator would end the process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Few arenas: a broker has as many threads as it may have waits for the disk, and each arena keeps
/// pages that an idle broker would rather give back.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 47] = b"narenas:2,dirty_decay_ms:5000,tcache_max:16384\0";
