//! OffsetCommit (key 8), v2-v10: note down up to where a group has read.
//!
//! - Partitions that do not exist are refused here, each on its own, and what is left goes to the group's coordinator.
//!   If nothing is left nobody is asked whether the group may be committed to.
//! - In the answer stands first what was refused here, as a real broker has it.
//! - The empty group id is a group like others: very old consumers commit under it.
//!
//! Versions: v5 no retention of its own, v6 leader epoch, v7 group instance id (KIP-345), v9 member epochs and their
//! errors (KIP-848), v10 topic ids instead of names (KIP-848).

use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, offset_commit_request::OffsetCommitRequestTopic,
};

use super::committed_topics::{By, Named, both, refuse, sort};
use crate::{broker::Broker, coordinator::group::request::Sent, server::Context};

/// First version that names topics by their ids.
const TOPIC_IDS: i16 = 10;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    mut req: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let asked = std::mem::take(&mut req.topics);
    let by = match ctx.version {
        TOPIC_IDS.. => By::Id,
        _ => By::Name,
    };
    let (known, refused) = sort(&broker.image(), by, asked);
    if known.is_empty() {
        let topics = both::<OffsetCommitRequestTopic>(refused, Vec::new());
        return OffsetCommitResponse::default().with_topics(topics);
    }
    let named: Vec<Named> = known.iter().map(Named::new).collect();
    req.topics = known;
    let group_id = req.group_id.clone();
    let commit = Sent::new(ctx, req);
    let answered = match broker.groups().ask_group(&group_id, commit).await {
        Ok(answer) => answer.topics,
        Err(code) => refuse::<OffsetCommitRequestTopic>(named, code),
    };
    let topics = both::<OffsetCommitRequestTopic>(refused, answered);
    OffsetCommitResponse::default().with_topics(topics)
}
