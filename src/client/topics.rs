//! Questions about partitions that only their leaders can answer.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    ListOffsetsRequest,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};
use protocol::error::ErrorCode;

use super::{Client, Error, Refusal, refused, topic_name};

/// The newest ListOffsets that is filled in here.
const LIST_OFFSETS: i16 = 10;

/// A topic's name and a partition's index.
pub(crate) type Partition = (String, i32);

/// An offset, and the time of the record there if one was found by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    /// -1: no record is as young as that.
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
}

impl Client {
    /// The indexes of a topic's partitions; `Err` if there is no such topic.
    pub(crate) async fn partitions(&mut self, topic: &str) -> Result<Vec<i32>, Error> {
        let response = self.metadata(Some(&[topic])).await?;
        let topic = response.topics.first().ok_or(unknown_partition())?;
        refused(topic.error_code, None)?;
        let mut partitions: Vec<i32> = topic.partitions.iter().map(|p| p.partition_index).collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Who leads each partition of these topics; -1 where nobody does. A topic that does not exist has none.
    pub(crate) async fn leaders(
        &mut self,
        topics: &[&str],
    ) -> Result<BTreeMap<Partition, i32>, Error> {
        let response = self.metadata(Some(topics)).await?;
        let mut leaders = BTreeMap::new();
        for topic in &response.topics {
            let Some(name) = &topic.name else { continue };
            for partition in &topic.partitions {
                let at = (name.to_string(), partition.partition_index);
                leaders.insert(at, partition.leader_id.0);
            }
        }
        Ok(leaders)
    }

    /// Asks the leaders for offsets by time, or by one of the times with a meaning (-1 latest, -2 earliest...).
    pub(crate) async fn list_offsets(
        &mut self,
        wanted: &BTreeMap<Partition, i64>,
    ) -> Result<BTreeMap<Partition, Result<Listed, Refusal>>, Error> {
        let mut answers: BTreeMap<Partition, Result<Listed, Refusal>> = BTreeMap::new();
        let mut open = wanted.clone();
        loop {
            let mut topics: Vec<&str> = open.keys().map(|(topic, _)| topic.as_str()).collect();
            topics.dedup();
            let leaders = self.leaders(&topics).await?;
            let mut by_leader: BTreeMap<i32, BTreeMap<Partition, i64>> = BTreeMap::new();
            for (partition, time) in &open {
                match leaders.get(partition) {
                    None => drop(answers.insert(partition.clone(), Err(unknown_partition()))),
                    Some(-1) => drop(answers.insert(partition.clone(), Err(leaderless()))),
                    Some(&leader) => {
                        let group = by_leader.entry(leader).or_default();
                        group.insert(partition.clone(), *time);
                    }
                }
            }
            for (leader, wanted) in by_leader {
                answers.extend(self.list_offsets_at(leader, &wanted).await?);
            }
            open.retain(|partition, _| answers.get(partition).is_none_or(may_pass));
            if open.is_empty() || !self.pause().await {
                return Ok(answers);
            }
        }
    }

    async fn list_offsets_at(
        &mut self,
        leader: i32,
        wanted: &BTreeMap<Partition, i64>,
    ) -> Result<Vec<(Partition, Result<Listed, Refusal>)>, Error> {
        let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for ((topic, index), time) in wanted {
            let partition = ListOffsetsPartition::default()
                .with_partition_index(*index)
                .with_timestamp(*time);
            topics.entry(topic).or_default().push(partition);
        }
        let topic = |(name, partitions): (&str, Vec<ListOffsetsPartition>)| {
            ListOffsetsTopic::default()
                .with_name(topic_name(name))
                .with_partitions(partitions)
        };
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(topics.into_iter().map(topic).collect())
            .with_timeout_ms(self.timeout_ms());
        let response = self.at(leader, LIST_OFFSETS, &request).await?;
        let mut answers = Vec::new();
        for topic in response.topics {
            for answer in topic.partitions {
                let partition = (topic.name.to_string(), answer.partition_index);
                let listed = refused(answer.error_code, None).map(|()| Listed {
                    offset: answer.offset,
                    leader_epoch: answer.leader_epoch,
                });
                answers.push((partition, listed));
            }
        }
        Ok(answers)
    }
}

/// What a cluster says of a partition that it does not have.
pub(crate) fn unknown_partition() -> Refusal {
    Refusal {
        code: ErrorCode::UnknownTopicOrPartition,
        message: None,
    }
}

fn leaderless() -> Refusal {
    Refusal {
        code: ErrorCode::LeaderNotAvailable,
        message: None,
    }
}

/// Is it worth asking again?
fn may_pass(answer: &Result<Listed, Refusal>) -> bool {
    answer.as_ref().is_err_and(|refusal| {
        refusal.code.is_retriable() && refusal.code != ErrorCode::UnknownTopicOrPartition
    })
}
