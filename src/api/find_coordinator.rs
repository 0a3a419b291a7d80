//! FindCoordinator (key 10), v0-v6: which broker keeps a group, or a transactional id.
//!
//! - It is the leader of the partition of the internal topic that the key belongs to. While there is no such topic
//!   it is created, and the answer is COORDINATOR_NOT_AVAILABLE: the client asks again, and by then it is there.
//! - Keys of a kind that nothing here keeps are answered as by a broker whose coordinator is not there yet.
//! - Of an error that is expected, versions before 4 are told in words; since 4 the words are empty.
//!
//! Versions: v1 key type and message, v4 many keys (KIP-699), v6 share groups (KIP-932).

use std::sync::Arc;

use kafka_protocol::{
    messages::{
        FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator,
    },
    protocol::StrBytes,
};
use protocol::error::{self, ErrorCode};

use crate::{broker::Broker, server::Context, topic_name};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// First version that asks for many keys at once.
const MANY: i16 = 4;
/// First version that knows share groups.
const SHARE_GROUPS: i16 = 6;

pub(crate) fn handle(
    broker: &Arc<Broker>,
    ctx: &Context,
    req: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let asked = ctx.version < MANY || !req.coordinator_keys.is_empty();
    if let Some(topic) = topic_of(req.key_type)
        && asked
        && broker.image().topic(topic).is_none()
    {
        broker.create_missing(vec![topic.to_owned()]);
    }
    if ctx.version < MANY {
        return single(find(broker, ctx, req.key_type, req.key));
    }
    let keys = req.coordinator_keys.into_iter();
    let coordinators = keys.map(|key| find(broker, ctx, req.key_type, key));
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

/// One answer in the form of the versions that have one.
fn single(found: Coordinator) -> FindCoordinatorResponse {
    let message = match ErrorCode::try_from_code(found.error_code) {
        None => Some(StrBytes::from_static_str("NONE")),
        Some(ErrorCode::CoordinatorNotAvailable) => Some(StrBytes::from_static_str(
            "The coordinator is not available.",
        )),
        Some(_) => found.error_message,
    };
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

fn find(broker: &Arc<Broker>, ctx: &Context, key_type: i8, key: StrBytes) -> Coordinator {
    let answer = Coordinator::default().with_key(key.clone());
    let refused = |answer: Coordinator, code: ErrorCode, message: &'static str| {
        answer
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_static_str(message)))
            .with_node_id((-1).into())
            .with_port(-1)
    };
    match key_type {
        GROUP | TRANSACTION => match leader(broker, ctx, key_type, &key) {
            Some((node_id, host, port)) => answer
                .with_error_message(Some(StrBytes::default()))
                .with_node_id(node_id.into())
                .with_host(host.into())
                .with_port(port.into()),
            None => refused(answer, ErrorCode::CoordinatorNotAvailable, ""),
        },
        SHARE if ctx.version < SHARE_GROUPS || !is_share_key(&key) => {
            refused(answer, ErrorCode::InvalidRequest, "")
        }
        SHARE => refused(answer, ErrorCode::CoordinatorNotAvailable, ""),
        _ => refused(
            answer,
            ErrorCode::InvalidRequest,
            error::sentence(ErrorCode::InvalidRequest).unwrap_or_default(),
        ),
    }
}

/// Where coordinators of this kind keep what they know.
fn topic_of(key_type: i8) -> Option<&'static str> {
    match key_type {
        GROUP => Some(topic_name::OFFSETS),
        TRANSACTION => Some(topic_name::TRANSACTIONS),
        _ => None,
    }
}

/// Where the leader of the key's partition is to be found, as seen from the client's listener.
fn leader(
    broker: &Arc<Broker>,
    ctx: &Context,
    key_type: i8,
    key: &str,
) -> Option<(i32, String, u16)> {
    let index = match key_type {
        TRANSACTION => broker.transactions().runtime().partition_of(key),
        _ => broker.groups().partition_of(key),
    };
    let image = broker.image();
    let partition = image.partition(topic_of(key_type)?, index?)?;
    let leader = image.brokers.get(&partition.leader)?;
    let endpoint = leader
        .endpoints
        .iter()
        .find(|endpoint| endpoint.name == *ctx.listener)?;
    Some((leader.id, endpoint.host.clone(), endpoint.port))
}

/// Share groups' state is kept by `group:topic id:partition`, the id in Kafka's form of 22 characters.
fn is_share_key(key: &str) -> bool {
    let mut parts = key.rsplitn(3, ':');
    let partition = parts.next().and_then(|part| part.parse::<u32>().ok());
    let topic_id = parts.next().is_some_and(|part| part.len() == 22);
    let group = parts.next().is_some_and(|part| !part.is_empty());
    partition.is_some() && topic_id && group
}
