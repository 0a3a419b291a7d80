//! The error codes in an answer, one for each thing asked, as Kafka counts them.

use kafka_protocol::messages::ResponseKind as Res;

/// Calls `count` with every code of the answer, 0 for what succeeded.
pub(crate) fn each(body: &Res, count: &mut impl FnMut(i16)) {
    macro_rules! each {
        ($items:expr) => {
            $items.iter().for_each(|item| count(item.error_code))
        };
        ($items:expr, $inner:ident) => {
            $items.iter().for_each(|item| each!(item.$inner))
        };
    }
    match body {
        Res::AddPartitionsToTxn(res) => {
            let batches = res.results_by_transaction.iter();
            let topics = batches.flat_map(|transaction| &transaction.topic_results);
            topics
                .chain(&res.results_by_topic_v3_and_below)
                .flat_map(|topic| &topic.results_by_partition)
                .for_each(|partition| count(partition.partition_error_code));
        }
        Res::AlterConfigs(res) => each!(res.responses),
        Res::AlterReplicaLogDirs(res) => each!(res.results, partitions),
        Res::ConsumerGroupDescribe(res) => each!(res.groups),
        Res::CreatePartitions(res) => each!(res.results),
        Res::CreateTopics(res) => each!(res.topics),
        Res::DeleteGroups(res) => each!(res.results),
        Res::DeleteRecords(res) => each!(res.topics, partitions),
        Res::DeleteTopics(res) => each!(res.responses),
        Res::DescribeConfigs(res) => each!(res.results),
        Res::DescribeGroups(res) => each!(res.groups),
        Res::DescribeProducers(res) => each!(res.topics, partitions),
        Res::DescribeTransactions(res) => each!(res.transaction_states),
        Res::DescribeTopicPartitions(res) => each!(res.topics),
        Res::IncrementalAlterConfigs(res) => each!(res.responses),
        Res::ListOffsets(res) => each!(res.topics, partitions),
        Res::Metadata(res) => each!(res.topics),
        Res::OffsetCommit(res) => each!(res.topics, partitions),
        Res::OffsetForLeaderEpoch(res) => each!(res.topics, partitions),
        Res::TxnOffsetCommit(res) => each!(res.topics, partitions),
        Res::WriteTxnMarkers(res) => {
            let topics = res.markers.iter().flat_map(|marker| &marker.topics);
            topics.for_each(|topic| each!(topic.partitions));
        }
        Res::Produce(res) => each!(res.responses, partition_responses),
        // These succeed or fail as a whole, or have a code for that beside those of their parts.
        Res::AddOffsetsToTxn(res) => count(res.error_code),
        Res::ApiVersions(res) => count(res.error_code),
        Res::ConsumerGroupHeartbeat(res) => count(res.error_code),
        Res::DescribeCluster(res) => count(res.error_code),
        Res::DescribeLogDirs(res) => {
            count(res.error_code);
            each!(res.results);
        }
        Res::DescribeQuorum(res) => count(res.error_code),
        Res::ElectLeaders(res) => {
            count(res.error_code);
            each!(res.replica_election_results, partition_result);
        }
        Res::EndTxn(res) => count(res.error_code),
        // Before version 4 there is one coordinator, and its code is that of the answer.
        Res::FindCoordinator(res) => {
            if res.coordinators.is_empty() {
                count(res.error_code);
            }
            each!(res.coordinators);
        }
        Res::Heartbeat(res) => count(res.error_code),
        Res::InitProducerId(res) => count(res.error_code),
        Res::JoinGroup(res) => count(res.error_code),
        Res::LeaveGroup(res) => {
            count(res.error_code);
            each!(res.members);
        }
        Res::ListConfigResources(res) => count(res.error_code),
        Res::ListGroups(res) => count(res.error_code),
        Res::ListPartitionReassignments(res) => count(res.error_code),
        // Before version 8 the code of the one group stands in front.
        Res::OffsetFetch(res) => {
            if res.groups.is_empty() {
                count(res.error_code);
            }
            each!(res.topics, partitions);
            each!(res.groups);
            res.groups
                .iter()
                .for_each(|group| each!(group.topics, partitions));
        }
        Res::OffsetDelete(res) => {
            count(res.error_code);
            each!(res.topics, partitions);
        }
        Res::ListTransactions(res) => count(res.error_code),
        Res::SyncGroup(res) => count(res.error_code),
        Res::UnregisterBroker(res) => count(res.error_code),
        Res::UpdateFeatures(res) => {
            count(res.error_code);
            each!(res.results);
        }
        // Those of a fetch are counted where it is answered; what is not served is not counted.
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        FindCoordinatorResponse, HeartbeatResponse, LeaveGroupResponse, ListOffsetsResponse,
        find_coordinator_response::Coordinator,
        leave_group_response::MemberResponse,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    };

    use super::*;

    #[test]
    fn every_part_of_an_answer_has_its_code() {
        let part = |code| ListOffsetsPartitionResponse::default().with_error_code(code);
        let topic = |codes: &[i16]| {
            ListOffsetsTopicResponse::default()
                .with_partitions(codes.iter().map(|code| part(*code)).collect())
        };
        let answer = ListOffsetsResponse::default().with_topics(vec![topic(&[0, 3]), topic(&[6])]);
        assert_eq!(codes(&Res::ListOffsets(answer)), [0, 3, 6]);
    }

    #[test]
    fn a_rebalance_can_be_seen_in_the_codes_of_its_group() {
        let heartbeat = HeartbeatResponse::default().with_error_code(27);
        assert_eq!(codes(&Res::Heartbeat(heartbeat)), [27]);
        let left = MemberResponse::default().with_error_code(25);
        let leave = LeaveGroupResponse::default().with_members(vec![left]);
        assert_eq!(codes(&Res::LeaveGroup(leave)), [0, 25]);
        let one = FindCoordinatorResponse::default().with_error_code(15);
        assert_eq!(codes(&Res::FindCoordinator(one.clone())), [15]);
        let each = Coordinator::default().with_error_code(16);
        let several = one.with_coordinators(vec![each]);
        assert_eq!(codes(&Res::FindCoordinator(several)), [16]);
    }

    fn codes(answer: &Res) -> Vec<i16> {
        let mut codes = Vec::new();
        each(answer, &mut |code| codes.push(code));
        codes
    }
}
