//! Topics that are created because somebody asks for them.

use std::sync::{Arc, PoisonError};

use replication::{
    controller::topics::NewTopic,
    error::{Reason, Refusal},
};
use tracing::warn;

use super::Broker;
use crate::{clock, config::Config, topic_name};

impl Broker {
    /// Creates the topics a client has named, if that is allowed, and those that coordinators need, in any case.
    /// Nobody waits for it.
    pub(crate) fn create_missing(self: &Arc<Self>, names: Vec<String>) {
        let config = self.config();
        let topics: Vec<NewTopic> = names
            .into_iter()
            .filter_map(|name| match topic_name::is_internal(&name) {
                true => internal_topic(&config, name),
                false => config.auto_create_topics_enable.then(|| NewTopic {
                    name,
                    partition_count: -1,
                    replication_factor: -1,
                    assignments: Vec::new(),
                    configs: Vec::new(),
                }),
            })
            .collect();
        if topics.is_empty() {
            return;
        }
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
            match broker.controller.create_topics(topics, false).await {
                Ok(outcomes) => {
                    for (name, outcome) in names.iter().zip(outcomes) {
                        let Err(refusal) = outcome else { continue };
                        // Two clients may ask for the same topic; that is no news.
                        if refusal.reason == Reason::TopicAlreadyExists {
                            continue;
                        }
                        broker.complain(name, &refusal);
                    }
                }
                Err(err) => warn!(%err, "topics cannot be created automatically"),
            }
        });
    }

    /// Says why a topic cannot be created that somebody waits for, who only sees that it is not there.
    fn complain(&self, name: &str, refusal: &Refusal) {
        let mut complaints = self
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_news = complaints.is_news(&format!("{name}: {refusal}"), clock::steady_now());
        drop(complaints);
        if !is_news {
            return;
        }
        let keys = if topic_name::is_internal(name) {
            "the keys that begin with offsets.topic and transaction.state.log say how it is made"
        } else {
            "num.partitions and default.replication.factor say how it is made"
        };
        warn!(topic = name, %refusal, "clients wait for a topic that cannot be created; {keys}");
    }
}

/// How a coordinator's topic is made; `None` for one that no coordinator here uses.
fn internal_topic(config: &Config, name: String) -> Option<NewTopic> {
    let (groups, transactions) = (&config.groups, &config.transactions);
    let (partition_count, replication_factor, configs) = match &*name {
        topic_name::OFFSETS => (
            groups.offsets_topic_num_partitions,
            groups.offsets_topic_replication_factor,
            vec![
                ("compression.type", "producer".to_owned()),
                (
                    "segment.bytes",
                    groups.offsets_topic_segment_bytes.to_string(),
                ),
            ],
        ),
        topic_name::TRANSACTIONS => (
            transactions.state_log_num_partitions,
            transactions.state_log_replication_factor,
            vec![
                ("compression.type", "uncompressed".to_owned()),
                (
                    "min.insync.replicas",
                    transactions.state_log_min_isr.to_string(),
                ),
                (
                    "segment.bytes",
                    transactions.state_log_segment_bytes.to_string(),
                ),
                ("unclean.leader.election.enable", "false".to_owned()),
            ],
        ),
        _ => return None,
    };
    let own = |(key, value): (&str, String)| (key.to_owned(), Some(value));
    let compact = ("cleanup.policy", "compact".to_owned());
    Some(NewTopic {
        name,
        partition_count,
        replication_factor,
        assignments: Vec::new(),
        configs: configs.into_iter().chain([compact]).map(own).collect(),
    })
}
