//! One file per API key, named as Kafka names it. A handler takes the decoded request and returns the
//! response; `server::dispatch` does everything around it.

pub(crate) mod error;

pub(crate) mod api_versions;
pub(crate) mod create_topics;
pub(crate) mod fetch;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod operations;
pub(crate) mod produce;
