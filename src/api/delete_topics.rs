//! DeleteTopics (key 20), v1-v6: delete topics, by name or by id.
//!
//! - A topic that is named twice in a request, in whatever way, is refused and stays.
//! - The answer is sent when the deletion is in the metadata log and this broker serves the topic no
//!   more; its files go after `file.delete.delay.ms`.
//! - `delete.topic.enable=false` refuses everything.
//!
//! Versions: v5 error message, v6 topic ids (KIP-516).

use std::collections::{HashMap, HashSet};

use kafka_protocol::messages::{
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName, delete_topics_request::DeleteTopicState,
    delete_topics_response::DeletableTopicResult,
};
use replication::{
    cluster::ClusterImage,
    controller::topics::TopicRef,
    error::{Reason, Refusal},
};
use uuid::Uuid;

use super::error::Error;
use crate::{broker::Broker, server::Context};

/// First version that may name a topic by its id.
const TOPIC_IDS: i16 = 6;

/// First version that has a code for "topics are not deleted here".
const DELETION_DISABLED: i16 = 3;

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let asked = if ctx.version < TOPIC_IDS {
        let by_name = |name| DeleteTopicState::default().with_name(Some(name));
        req.topic_names.into_iter().map(by_name).collect()
    } else {
        req.topics
    };
    if !broker.config().delete_topic_enable {
        let err = match ctx.version {
            ..DELETION_DISABLED => {
                let why = "This version does not support topic deletion.";
                Refusal::new(Reason::InvalidRequest, why).into()
            }
            _ => Error::TopicDeletionDisabled,
        };
        return response(
            asked
                .iter()
                .map(|topic| result(topic.name.clone(), topic.topic_id, Err(&err))),
        );
    }

    let mut results = Vec::with_capacity(asked.len());
    let mut targets = Vec::with_capacity(asked.len());
    for topic in Named::sort(&broker.image(), asked) {
        match topic.refusal {
            Some(refusal) => results.push(result(topic.name, topic.id, Err(&refusal.into()))),
            None => targets.push(topic),
        }
    }
    let refs = targets.iter().map(Named::reference).collect();
    let deleted = ctx
        .within(req.timeout_ms, broker.controller().delete_topics(refs))
        .await;
    broker.catch_up(ctx, req.timeout_ms).await;
    match deleted.and_then(|deleted| deleted.map_err(Error::from)) {
        Ok(outcomes) => {
            for (topic, outcome) in targets.into_iter().zip(outcomes) {
                results.push(match outcome {
                    Ok(deleted) => {
                        let name = TopicName(deleted.name.into());
                        result(Some(name), deleted.id, Ok(()))
                    }
                    Err(refusal) => result(topic.name, topic.id, Err(&refusal.into())),
                });
            }
        }
        Err(err) => {
            results.extend(
                targets
                    .into_iter()
                    .map(|topic| result(topic.name, topic.id, Err(&err))),
            );
        }
    }
    response(results)
}

/// A topic as the client named it, and why that will not do.
struct Named {
    name: Option<TopicName>,
    id: Uuid,
    refusal: Option<Refusal>,
}

impl Named {
    /// One item for each topic that is meant: those that were named more than once are refused once.
    fn sort(image: &ClusterImage, asked: Vec<DeleteTopicState>) -> Vec<Named> {
        let mut by_name: HashMap<TopicName, usize> = HashMap::new();
        let mut by_id: HashMap<Uuid, usize> = HashMap::new();
        for topic in &asked {
            match &topic.name {
                Some(name) => *by_name.entry(name.clone()).or_default() += 1,
                None => *by_id.entry(topic.topic_id).or_default() += 1,
            }
        }
        let mut seen = HashSet::new();
        asked
            .into_iter()
            .filter(|topic| seen.insert((topic.name.clone(), topic.topic_id)))
            .filter_map(
                |DeleteTopicState {
                     name, topic_id: id, ..
                 }| {
                    let known = name
                        .as_ref()
                        .and_then(|name| image.topic(name))
                        .map(|topic| topic.id);
                    let why = match &name {
                        None if id.is_nil() => Some("Neither topic name nor id were specified."),
                        Some(_) if !id.is_nil() => {
                            Some("You may not specify both topic name and topic id.")
                        }
                        Some(name) if 1 < by_name[name] => Some("Duplicate topic name."),
                        None if 1 < by_id[&id] => Some("Duplicate topic id."),
                        Some(_) if known.is_some_and(|id| by_id.contains_key(&id)) => {
                            Some("The provided topic name maps to an ID that was already supplied.")
                        }
                        // The same topic by its name: that one is answered for both.
                        None if Self::is_named(image, id, &by_name) => return None,
                        _ => None,
                    };
                    let id = match known {
                        Some(known)
                            if id.is_nil() && why.is_some() && by_id.contains_key(&known) =>
                        {
                            known
                        }
                        _ => id,
                    };
                    let refusal = why.map(|why| Refusal::new(Reason::InvalidRequest, why));
                    Some(Named { name, id, refusal })
                },
            )
            .collect()
    }

    fn is_named(image: &ClusterImage, id: Uuid, by_name: &HashMap<TopicName, usize>) -> bool {
        image
            .topic_by_id(id)
            .is_some_and(|topic| by_name.keys().any(|name| **name == *topic.name))
    }

    fn reference(&self) -> TopicRef {
        match &self.name {
            Some(name) => TopicRef::Name(name.to_string()),
            None => TopicRef::Id(self.id),
        }
    }
}

fn result(name: Option<TopicName>, id: Uuid, outcome: Result<(), &Error>) -> DeletableTopicResult {
    let result = DeletableTopicResult::default()
        .with_name(name)
        .with_topic_id(id);
    match outcome {
        Ok(()) => result,
        Err(err) => result
            .with_error_code(err.code().code())
            .with_error_message(err.explained().map(Into::into)),
    }
}

fn response(results: impl IntoIterator<Item = DeletableTopicResult>) -> DeleteTopicsResponse {
    DeleteTopicsResponse::default().with_responses(results.into_iter().collect())
}
