//! Committing: OffsetCommit, and TxnOffsetCommit in a transaction.
//!
//! - A request that is refused is refused as a whole; what is too much beside an offset is refused with its partition.
//! - Whoever commits to a group that is not there, and does not claim to be a member, makes one.

use kafka_protocol::{
    messages::{
        OffsetCommitRequest, OffsetCommitResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        txn_offset_commit_response::{
            TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
        },
    },
    protocol::StrBytes,
};
use protocol::{
    error::ErrorCode,
    records::group::{GroupRecord, OffsetCommitKey, OffsetCommitValue},
};
use uuid::Uuid;

use super::super::{
    Committer, Effects, Group, GroupCoordinator,
    request::{From, Response},
};
use crate::coordinator::{Env, Producer, Ticket};

/// First versions that tell a member that its group is not there, and not that its generation is an old one.
const GROUP_ID_NOT_FOUND: i16 = 9;
const GROUP_ID_NOT_FOUND_IN_TRANSACTION: i16 = 6;

/// The client leaves it to the broker when an offset goes.
const DEFAULT_RETENTION: i64 = -1;

/// One offset to be committed, whichever request brought it.
struct New {
    offset: i64,
    leader_epoch: i32,
    metadata: Option<StrBytes>,
}

impl GroupCoordinator {
    pub(in super::super) fn commit(
        &mut self,
        ticket: Ticket,
        commit: From<OffsetCommitRequest>,
        env: &mut Env<'_>,
    ) -> Effects {
        let From { client, body } = commit;
        let group_id = body.group_id.0;
        let partitions = |each: &mut dyn FnMut(Uuid, i32)| {
            for topic in &body.topics {
                for partition in &topic.partitions {
                    each(topic.topic_id, partition.partition_index);
                }
            }
        };
        let committer = Committer {
            member_id: &body.member_id,
            group_instance_id: body.group_instance_id.as_deref(),
            epoch: body.generation_id_or_member_epoch,
            transactional: false,
            version: client.version,
            partitions: &partitions,
        };
        let not_found = match client.version {
            GROUP_ID_NOT_FOUND.. => ErrorCode::GroupIdNotFound,
            _ => ErrorCode::IllegalGeneration,
        };
        if let Err(code) = self.check_commit(&group_id, &committer, not_found) {
            return Effects::answer(ticket, Err(code));
        }
        if let Some(Group::Classic(_)) = self.groups.get(&*group_id) {
            self.classic_committed(&group_id, &body.member_id, env);
        }

        let expire_timestamp = match body.retention_time_ms {
            DEFAULT_RETENTION => -1,
            retention_ms => env.now.saturating_add(retention_ms),
        };
        let mut records = Vec::new();
        let mut topics = Vec::with_capacity(body.topics.len());
        for topic in body.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let answer = OffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index);
                let new = New {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata,
                };
                partitions.push(match new.value(env) {
                    Err(code) => answer.with_error_code(code.code()),
                    Ok(value) => {
                        let value = OffsetCommitValue {
                            expire_timestamp,
                            topic_id: topic.topic_id,
                            ..value
                        };
                        let index = partition.partition_index;
                        records.push(record(&group_id, &topic.name, index, value));
                        answer
                    }
                });
            }
            topics.push(
                OffsetCommitResponseTopic::default()
                    .with_name(topic.name)
                    .with_topic_id(topic.topic_id)
                    .with_partitions(partitions),
            );
        }
        self.figures.offset_commits.add(records.len());
        let response = OffsetCommitResponse::default().with_topics(topics);
        Effects::append(records, ticket, Response::Commit(response))
    }

    /// What is committed here counts when the producer's transaction has been committed.
    pub(in super::super) fn commit_in_transaction(
        &mut self,
        ticket: Ticket,
        commit: From<TxnOffsetCommitRequest>,
        env: &mut Env<'_>,
    ) -> Effects {
        let From { client, body } = commit;
        let group_id = body.group_id.0;
        // The request has names only; the id is that of the topic which has the name now.
        let image = env.image;
        let id_of = |name: &str| image.topic(name).map(|topic| topic.id).unwrap_or_default();
        let partitions = |each: &mut dyn FnMut(Uuid, i32)| {
            for topic in &body.topics {
                for partition in &topic.partitions {
                    each(id_of(&topic.name), partition.partition_index);
                }
            }
        };
        let committer = Committer {
            member_id: &body.member_id,
            group_instance_id: body.group_instance_id.as_deref(),
            epoch: body.generation_id,
            transactional: true,
            version: client.version,
            partitions: &partitions,
        };
        let since = GROUP_ID_NOT_FOUND_IN_TRANSACTION;
        let not_found = if client.version >= since {
            ErrorCode::GroupIdNotFound
        } else {
            ErrorCode::IllegalGeneration
        };
        if let Err(code) = self.check_commit(&group_id, &committer, not_found) {
            let code = match code {
                // The versions before know generations only.
                ErrorCode::StaleMemberEpoch if client.version < since => {
                    ErrorCode::IllegalGeneration
                }
                code => code,
            };
            return Effects::answer(ticket, Err(code));
        }

        let mut records = Vec::new();
        let mut topics = Vec::with_capacity(body.topics.len());
        for topic in body.topics {
            let topic_id = id_of(&topic.name);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let answer = TxnOffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index);
                let new = New {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata,
                };
                partitions.push(match new.value(env) {
                    Err(code) => answer.with_error_code(code.code()),
                    Ok(value) => {
                        let value = OffsetCommitValue { topic_id, ..value };
                        let index = partition.partition_index;
                        records.push(record(&group_id, &topic.name, index, value));
                        answer
                    }
                });
            }
            topics.push(
                TxnOffsetCommitResponseTopic::default()
                    .with_name(topic.name)
                    .with_partitions(partitions),
            );
        }
        self.figures.offset_commits.add(records.len());
        let response = TxnOffsetCommitResponse::default().with_topics(topics);
        Effects {
            producer: Some(Producer {
                id: body.producer_id.0,
                epoch: body.producer_epoch,
            }),
            ..Effects::append(records, ticket, Response::CommitInTransaction(response))
        }
    }

    fn check_commit(
        &self,
        group_id: &str,
        committer: &Committer<'_>,
        not_found: ErrorCode,
    ) -> Result<(), ErrorCode> {
        match self.groups.get(group_id) {
            Some(group) => group.check_commit(committer),
            // An administrator's tool, or a consumer that assigns itself what it reads. The group comes to be when
            // the record is replayed.
            None if committer.epoch < 0 => Ok(()),
            None => Err(not_found),
        }
    }
}

impl New {
    fn value(self, env: &Env<'_>) -> Result<OffsetCommitValue, ErrorCode> {
        let metadata = self.metadata.unwrap_or_default();
        // Java counts a string in units of UTF-16, of which there are never more than bytes.
        let max = env.config.groups.offset_metadata_max_bytes;
        if metadata.len() > max && metadata.encode_utf16().count() > max {
            return Err(ErrorCode::OffsetMetadataTooLarge);
        }
        Ok(OffsetCommitValue {
            offset: self.offset,
            leader_epoch: self.leader_epoch,
            metadata,
            commit_timestamp: env.now,
            ..OffsetCommitValue::default()
        })
    }
}

fn record(
    group_id: &StrBytes,
    topic: &StrBytes,
    partition: i32,
    value: OffsetCommitValue,
) -> GroupRecord {
    GroupRecord::OffsetCommit {
        key: OffsetCommitKey {
            group: group_id.clone(),
            topic: topic.clone(),
            partition,
        },
        value: Some(value),
    }
}
