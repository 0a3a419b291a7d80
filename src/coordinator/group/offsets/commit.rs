//! Committing: OffsetCommit, and TxnOffsetCommit in a transaction.
//!
//! - A request that is refused is refused as a whole; what is too much beside an offset is refused with its partition.
//! - Whoever commits to a group that is not there, and does not claim to be a member, makes one.

use kafka_protocol::{
    messages::{
        OffsetCommitRequest, OffsetCommitResponse,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
    protocol::StrBytes,
};
use protocol::{
    error::ErrorCode,
    messages::{
        TxnOffsetCommitRequest, TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition,
        TxnOffsetCommitResponseTopic,
    },
    records::group::{GroupRecord, OffsetCommitKey, OffsetCommitValue},
};
use uuid::Uuid;

use super::super::{
    Committer, Effects, Group, GroupCoordinator,
    request::{Response, Sent},
};
use crate::coordinator::{Env, Producer, Ticket};

/// First versions that tell a member that its group is not there, and not that its generation is an old one.
const GROUP_ID_NOT_FOUND: i16 = 9;
const GROUP_ID_NOT_FOUND_IN_TRANSACTION: i16 = 6;

/// The client leaves it to the broker when an offset goes.
const DEFAULT_RETENTION: i64 = -1;

/// The offset goes by the broker's rules.
const NO_EXPIRY: i64 = -1;

/// What a record's key and value take without their texts, in any version.
const RECORD_BYTES_MIN: usize = 34;

/// One offset to be committed, whichever request brought it.
struct New<'a> {
    topic: &'a StrBytes,
    topic_id: Uuid,
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: Option<StrBytes>,
}

/// What of a request will be committed.
struct Accepted<'a, 'env> {
    group_id: StrBytes,
    expire_timestamp: i64,
    records: Vec<GroupRecord>,
    /// What these take at least.
    bytes: usize,
    env: &'a Env<'env>,
}

impl GroupCoordinator {
    pub(in super::super) fn commit(
        &mut self,
        ticket: Ticket,
        commit: Sent<OffsetCommitRequest>,
        env: &mut Env<'_>,
    ) -> Effects {
        let Sent { client, body } = commit;
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
            DEFAULT_RETENTION => NO_EXPIRY,
            retention_ms => env.now.saturating_add(retention_ms),
        };
        let mut accepted = Accepted {
            group_id,
            expire_timestamp,
            records: Vec::new(),
            bytes: 0,
            env,
        };
        let topics = body.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                let index = partition.partition_index;
                let new = New {
                    topic: &topic.name,
                    topic_id: topic.topic_id,
                    partition: index,
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata,
                };
                OffsetCommitResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(accepted.add(new))
            });
            let partitions = partitions.collect();
            OffsetCommitResponseTopic::default()
                .with_name(topic.name)
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions)
        });
        let response = OffsetCommitResponse::default().with_topics(topics.collect());
        let records = accepted.records;
        self.figures.offset_commits.add(records.len());
        Effects::append(records, ticket, Response::Commit(response))
    }

    /// What is committed here counts when the producer's transaction has been committed.
    pub(in super::super) fn commit_in_transaction(
        &mut self,
        ticket: Ticket,
        commit: Sent<TxnOffsetCommitRequest>,
        env: &mut Env<'_>,
    ) -> Effects {
        let Sent { client, body } = commit;
        let group_id = body.group_id;
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

        let mut accepted = Accepted {
            group_id,
            expire_timestamp: NO_EXPIRY,
            records: Vec::new(),
            bytes: 0,
            env,
        };
        let topics = body.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                let index = partition.partition_index;
                let new = New {
                    topic: &topic.name,
                    topic_id: topic.topic_id,
                    partition: index,
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.committed_metadata,
                };
                TxnOffsetCommitResponsePartition {
                    partition_index: index,
                    error_code: accepted.add(new),
                }
            });
            let partitions = partitions.collect();
            TxnOffsetCommitResponseTopic {
                name: topic.name,
                topic_id: topic.topic_id,
                partitions,
            }
        });
        let response = TxnOffsetCommitResponse {
            topics: topics.collect(),
            ..TxnOffsetCommitResponse::default()
        };
        let records = accepted.records;
        self.figures.offset_commits.add(records.len());
        Effects {
            producer: Some(Producer {
                id: body.producer_id,
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

impl Accepted<'_, '_> {
    /// The code to answer with: 0 if it will be committed.
    fn add(&mut self, new: New<'_>) -> i16 {
        let metadata = new.metadata.unwrap_or_default();
        // Java counts a string in units of UTF-16, of which there are never more than bytes.
        let max = self.env.config.groups.offset_metadata_max_bytes;
        if metadata.len() > max && metadata.encode_utf16().count() > max {
            return ErrorCode::OffsetMetadataTooLarge.code();
        }
        // When it is more than can be appended nothing of the request will be, and the rest need not be built: there
        // may be millions, since a partition counts as often as it is named.
        if self.env.records_bytes_max < self.bytes {
            return 0;
        }
        let texts = self.group_id.len() + new.topic.len() + metadata.len();
        self.bytes += RECORD_BYTES_MIN + texts;
        self.records.push(GroupRecord::OffsetCommit {
            key: OffsetCommitKey {
                group: self.group_id.clone(),
                topic: new.topic.clone(),
                partition: new.partition,
            },
            value: Some(OffsetCommitValue {
                offset: new.offset,
                leader_epoch: new.leader_epoch,
                metadata,
                commit_timestamp: self.env.now,
                expire_timestamp: self.expire_timestamp,
                topic_id: new.topic_id,
            }),
        });
        0
    }
}
