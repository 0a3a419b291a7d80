//! Blocks of producer ids: a broker takes one at a time and hands the ids out itself (pure).

use protocol::records::metadata::{MetadataRecord, ProducerIdsRecord};

use super::{Decision, brokers};
use crate::{
    cluster::ClusterImage,
    error::{Reason, Refusal},
};

pub const BLOCK_SIZE: i64 = 1000;

/// The ids `first .. first + count`, for one broker to hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    pub first: i64,
    pub count: i64,
}

pub fn allocate(
    image: &ClusterImage,
    broker_id: i32,
    broker_epoch: i64,
) -> Decision<Result<Block, Refusal>> {
    let decided = brokers::check_epoch(image, broker_id, broker_epoch).and_then(|()| {
        let first = image.next_producer_id();
        let next = first.checked_add(BLOCK_SIZE).ok_or_else(|| {
            Refusal::new(
                Reason::UnknownServerError,
                "Exhausted all producerIds as the next block's end producerId has exceeded the \
                 int64 type limit",
            )
        })?;
        Ok((first, next))
    });
    match decided {
        Err(refusal) => Decision::refused(Err(refusal)),
        Ok((first, next)) => Decision {
            records: vec![MetadataRecord::ProducerIds(ProducerIdsRecord {
                broker_id,
                broker_epoch,
                next_producer_id: next,
            })],
            answer: Ok(Block {
                first,
                count: BLOCK_SIZE,
            }),
        },
    }
}
