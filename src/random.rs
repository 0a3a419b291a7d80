//! Random numbers for ids: from the system, through the crate that makes our UUIDs.

/// A number from 1 to `i32::MAX`.
pub(crate) fn positive() -> i32 {
    let [a, b, c, d, ..] = *uuid::Uuid::new_v4().as_bytes();
    (i32::from_be_bytes([a, b, c, d]) & i32::MAX).max(1)
}
