//! OffsetCommit and OffsetFetch in version 10, which the codec has as answers but not as requests: topics go by
//! their ids and have no names; all else is as in version 9.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ApiKey, OffsetCommitRequest, OffsetFetchRequest, RequestKind,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use crate::{
    error::DecodeError,
    schema::{Field, schema},
};

const VERSION: i16 = 10;

schema! {
    struct Commit 10..=10, flexible 8 {
        group_id: StrBytes,
        generation_id_or_member_epoch: i32,
        member_id: StrBytes,
        group_instance_id: Option<StrBytes>,
        topics: Vec<CommitTopic>,
    }

    struct CommitTopic 10..=10, flexible 8 {
        topic_id: Uuid,
        partitions: Vec<CommitPartition>,
    }

    struct CommitPartition 10..=10, flexible 8 {
        partition_index: i32,
        committed_offset: i64,
        committed_leader_epoch: i32,
        committed_metadata: Option<StrBytes>,
    }

    struct Fetch 10..=10, flexible 6 {
        groups: Vec<FetchGroup>,
        require_stable: bool,
    }

    struct FetchGroup 10..=10, flexible 6 {
        group_id: StrBytes,
        member_id: Option<StrBytes>,
        member_epoch: i32,
        topics: Option<Vec<FetchTopic>>,
    }

    struct FetchTopic 10..=10, flexible 6 {
        topic_id: Uuid,
        partition_indexes: Vec<i32>,
    }
}

/// The body, if it is of one of these two; the codec has all others.
pub(crate) fn decode(
    api_key: ApiKey,
    version: i16,
    body: &mut Bytes,
) -> Option<Result<RequestKind, DecodeError>> {
    match (api_key, version) {
        (ApiKey::OffsetCommit, VERSION) => {
            let read = Commit::read(body, Commit::form(VERSION));
            Some(read.map(|commit| RequestKind::OffsetCommit(commit.into())))
        }
        (ApiKey::OffsetFetch, VERSION) => {
            let read = Fetch::read(body, Fetch::form(VERSION));
            Some(read.map(|fetch| RequestKind::OffsetFetch(fetch.into())))
        }
        _ => None,
    }
}

impl From<Commit> for OffsetCommitRequest {
    fn from(commit: Commit) -> Self {
        let topics = commit.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                OffsetCommitRequestPartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_committed_offset(partition.committed_offset)
                    .with_committed_leader_epoch(partition.committed_leader_epoch)
                    .with_committed_metadata(partition.committed_metadata)
            });
            OffsetCommitRequestTopic::default()
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions.collect())
        });
        OffsetCommitRequest::default()
            .with_group_id(commit.group_id.into())
            .with_generation_id_or_member_epoch(commit.generation_id_or_member_epoch)
            .with_member_id(commit.member_id)
            .with_group_instance_id(commit.group_instance_id)
            .with_topics(topics.collect())
    }
}

impl From<Fetch> for OffsetFetchRequest {
    fn from(fetch: Fetch) -> Self {
        let topic = |topic: FetchTopic| {
            OffsetFetchRequestTopics::default()
                .with_topic_id(topic.topic_id)
                .with_partition_indexes(topic.partition_indexes)
        };
        let groups = fetch.groups.into_iter().map(|group| {
            let topics = group
                .topics
                .map(|topics| topics.into_iter().map(topic).collect());
            OffsetFetchRequestGroup::default()
                .with_group_id(group.group_id.into())
                .with_member_id(group.member_id)
                .with_member_epoch(group.member_epoch)
                .with_topics(topics)
        });
        OffsetFetchRequest::default()
            .with_groups(groups.collect())
            .with_require_stable(fetch.require_stable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the Java client of 4.4.0 sends it, but for the id.
    #[test]
    fn a_commit_by_topic_id_is_understood() {
        let mut body = Vec::new();
        body.extend_from_slice(b"\x02g\xff\xff\xff\xff\x01\0\x02");
        body.extend_from_slice(&[7; 16]);
        body.extend_from_slice(b"\x02\0\0\0\x01\0\0\0\0\0\0\0\x05\0\0\0\x06\x02m\0\0\0");
        let mut body = Bytes::from(body);
        let decoded = decode(ApiKey::OffsetCommit, 10, &mut body);
        let Some(Ok(RequestKind::OffsetCommit(commit))) = decoded else {
            panic!("{decoded:?}");
        };
        assert!(body.is_empty());
        assert_eq!(
            (&**commit.group_id, commit.generation_id_or_member_epoch),
            ("g", -1)
        );
        let topic = &commit.topics[0];
        assert_eq!(
            (topic.topic_id, &**topic.name),
            (Uuid::from_bytes([7; 16]), "")
        );
        let partition = &topic.partitions[0];
        assert_eq!(
            (
                partition.partition_index,
                partition.committed_offset,
                partition.committed_leader_epoch,
                partition.committed_metadata.as_deref(),
            ),
            (1, 5, 6, Some("m"))
        );
    }

    #[test]
    fn a_fetch_by_topic_id_is_understood_and_may_ask_for_all() {
        let mut body = Vec::new();
        body.extend_from_slice(b"\x03\x02g\0\xff\xff\xff\xff\x02");
        body.extend_from_slice(&[7; 16]);
        body.extend_from_slice(b"\x02\0\0\0\x03\0\0\x02h\x02m\0\0\0\x04\0\0\x01\0");
        let mut body = Bytes::from(body);
        let decoded = decode(ApiKey::OffsetFetch, 10, &mut body);
        let Some(Ok(RequestKind::OffsetFetch(fetch))) = decoded else {
            panic!("{decoded:?}");
        };
        assert!(body.is_empty() && fetch.require_stable);
        let [first, second] = &fetch.groups[..] else {
            panic!("{fetch:?}");
        };
        let topics = first.topics.as_ref().expect("topics");
        assert_eq!(topics[0].topic_id, Uuid::from_bytes([7; 16]));
        assert_eq!(topics[0].partition_indexes, [3]);
        assert_eq!(
            (second.member_id.as_deref(), second.member_epoch),
            (Some("m"), 4)
        );
        assert_eq!(second.topics, None);
    }

    #[test]
    fn other_versions_are_the_codecs() {
        assert!(decode(ApiKey::OffsetCommit, 9, &mut Bytes::new()).is_none());
        assert!(matches!(
            decode(ApiKey::OffsetFetch, 10, &mut Bytes::new()),
            Some(Err(_))
        ));
    }
}
