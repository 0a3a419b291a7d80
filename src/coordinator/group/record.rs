//! Records of `__consumer_offsets` as bytes, in the versions that Apache Kafka 4.4 writes.

use protocol::{
    records::{Encoded, group::GroupRecord},
    schema::EncodeError,
};

/// # Errors
/// If it has a string that is longer than 32,767 bytes.
pub(super) fn encode(record: &GroupRecord, out: &mut Encoded) -> Result<(), EncodeError> {
    record.encode(version(record), out)
}

/// As seen in a real broker's log. Kafka has newer versions of some records than it writes, so that the broker before
/// it could read them after a downgrade.
fn version(record: &GroupRecord) -> i16 {
    match record {
        // Only version 1 says when the offset goes, and only clients of long ago say it.
        GroupRecord::OffsetCommit {
            value: Some(value), ..
        } if value.expire_timestamp != -1 => 1,
        GroupRecord::GroupMetadata { .. } => 3,
        other => other.latest_version(),
    }
}
