//! The cluster over the wire: who serves what, who leads what, and ids for producers. What is asserted here
//! was answered by Apache Kafka 4.4.0 too, unless a comment says otherwise.

mod common;

use std::collections::BTreeSet;

use common::{Client, TestBroker, batch, produce_request, topic_name};
use kafka_protocol::{
    messages::{
        AlterReplicaLogDirsRequest, ApiKey, ApiVersionsRequest, ApiVersionsResponse, BrokerId,
        DescribeClusterRequest, DescribeLogDirsRequest, DescribeProducersRequest,
        DescribeQuorumRequest, ElectLeadersRequest, InitProducerIdRequest,
        ListPartitionReassignmentsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
        ProducerId, TransactionalId, UnregisterBrokerRequest, UpdateFeaturesRequest,
        alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
        describe_log_dirs_request::DescribableLogDirTopic,
        describe_producers_request,
        describe_quorum_request::{PartitionData, TopicData},
        elect_leaders_request::TopicPartitions,
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        update_features_request::FeatureUpdateKey,
    },
    protocol::{Decodable, StrBytes},
};
use protocol::{batch::Builder, error::ErrorCode, versions};

fn api_versions(client: &mut Client, version: i16) -> ApiVersionsResponse {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("a-client"))
        .with_client_software_version(StrBytes::from_static_str("1.0"));
    client.call(version, &request)
}

#[test]
fn every_version_of_api_versions_lists_what_is_served() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    for version in 0..=4 {
        let response = api_versions(&mut client, version);
        assert_eq!(response.error_code, 0);
        let listed: Vec<_> = response
            .api_keys
            .iter()
            .map(|row| (row.api_key, row.min_version, row.max_version))
            .collect();
        let served: Vec<_> = versions::advertised()
            .map(|(key, range)| (key as i16, range.min, range.max))
            .collect();
        assert_eq!(listed, served);
        // librdkafka takes a broker without Produce v0 for one that cannot compress.
        assert_eq!(listed[0], (0, 0, 13));
        assert_eq!(response.supported_features.is_empty(), version < 3);
        let from_zero = response
            .supported_features
            .iter()
            .any(|feature| feature.min_version == 0);
        assert_eq!(
            from_zero,
            version == 4,
            "clients of v3 take such a feature for an error"
        );
        let metadata = response
            .finalized_features
            .iter()
            .find(|f| &*f.name == "metadata.version");
        assert_eq!(metadata.is_some(), 3 <= version);
    }
}

#[test]
fn a_version_above_ours_is_answered_in_a_form_that_everybody_reads() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    for version in [6_i16, 99] {
        let mut frame = vec![0, 18];
        frame.extend(version.to_be_bytes());
        frame.extend([0, 0, 0, 7]);
        frame.extend([0, 1, b't', 0]);
        frame.extend([2, b't', 2, b'1', 0]);
        client.send_frame(&frame);
        let mut answer = client.receive_frame().expect("an answer");
        assert_eq!(answer.split_to(4)[..], [0, 0, 0, 7]);
        let response = ApiVersionsResponse::decode(&mut answer, 0).expect("the form of v0");
        assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.code());
        let rows: Vec<_> = response
            .api_keys
            .iter()
            .map(|row| (row.api_key, row.min_version, row.max_version))
            .collect();
        assert_eq!(rows, [(18, 0, 5)]);
        assert!(answer.is_empty());
        assert_eq!(
            api_versions(&mut client, 4).error_code,
            0,
            "the connection lives on"
        );
    }
}

#[test]
fn a_client_must_say_who_it_is_in_legal_characters() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("a b"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    let response = client.call(3, &request);
    assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
    assert!(response.api_keys.is_empty() && response.finalized_features.is_empty());
}

/// As many keys as there are in the table, which `hostile.rs` asks for in every version.
#[test]
fn what_is_listed_is_served() {
    let broker = TestBroker::start();
    let listed: BTreeSet<i16> = api_versions(&mut broker.client(), 4)
        .api_keys
        .iter()
        .map(|row| row.api_key)
        .collect();
    assert_eq!(listed.len(), versions::SERVED.len());
    for key in [
        ApiKey::DescribeCluster,
        ApiKey::UnregisterBroker,
        ApiKey::ListConfigResources,
    ] {
        assert!(listed.contains(&(key as i16)), "{key:?}");
    }
}

#[test]
fn the_cluster_is_one_broker_at_the_address_the_client_used() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    for version in 0..=2 {
        let response = client.call(version, &DescribeClusterRequest::default());
        assert_eq!((response.error_code, response.error_message), (0, None));
        assert_eq!(response.cluster_id.len(), 22);
        assert_eq!(response.controller_id, BrokerId(1));
        assert_eq!(response.brokers.len(), 1);
        let only = &response.brokers[0];
        assert_eq!((only.broker_id, &*only.host), (BrokerId(1), "127.0.0.1"));
        assert_eq!(only.port, i32::from(broker.address.port()));
        assert_eq!(response.cluster_authorized_operations, i32::MIN);
    }
    let asked = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    assert_eq!(client.call(2, &asked).cluster_authorized_operations, 8096);
    let mut refused = |endpoint_type| {
        let request = DescribeClusterRequest::default().with_endpoint_type(endpoint_type);
        let response = client.call(1, &request);
        assert!(response.brokers.is_empty());
        response.error_code
    };
    assert_eq!(refused(2), 114, "controllers are elsewhere");
    assert_eq!(refused(3), 115, "nothing is of that type");
}

#[test]
fn producer_ids_are_never_given_twice() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let mut last = -1;
    for version in 0..=5 {
        let response = client.call(
            version,
            &InitProducerIdRequest::default().with_transactional_id(None),
        );
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        assert!(last < response.producer_id.0);
        last = response.producer_id.0;
    }
    let broker = broker.restart(&[]);
    let mut client = broker.client();
    let response = client.call(
        4,
        &InitProducerIdRequest::default().with_transactional_id(None),
    );
    assert!(
        last < response.producer_id.0,
        "{} after {last}",
        response.producer_id.0
    );
}

#[test]
fn producer_ids_are_refused_to_those_who_contradict_themselves() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let mut init = |id: i64, epoch: i16, transactional_id: Option<&'static str>, timeout: i32| {
        let request = InitProducerIdRequest::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch)
            .with_transaction_timeout_ms(timeout)
            .with_transactional_id(
                transactional_id.map(|id| TransactionalId(StrBytes::from_static_str(id))),
            );
        client.call(4, &request).error_code
    };
    assert_eq!(init(7, 3, None, 1000), 0);
    assert_eq!(init(-1, 3, None, 1000), 42);
    assert_eq!(init(3, -1, None, 1000), 42);
    assert_eq!(
        init(-1, -1, None, -1),
        0,
        "the time-out is for transactions"
    );
    assert_eq!(init(-1, -1, Some(""), 1000), 42);
    assert_eq!(init(-1, -1, Some("t"), 0), 50);
    assert_eq!(init(-1, -1, Some("t"), 900_001), 50);
    // Nobody has looked for a coordinator of transactions, so that there is none yet, as on a real broker.
    assert_eq!(init(-1, -1, Some("t"), 1000), 16);
}

#[test]
fn an_epoch_ends_where_the_next_begins() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 2);
    client.produce("t", 0, batch(&["a", "b"]));
    let mut end = |version, topic: &str, index, current, epoch| {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(current)
            .with_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        let result = client
            .call(version, &request)
            .topics
            .remove(0)
            .partitions
            .remove(0);
        (result.error_code, result.leader_epoch, result.end_offset)
    };
    for version in 2..=4 {
        assert_eq!(end(version, "t", 0, -1, 0), (0, 0, 2));
    }
    assert_eq!(end(4, "t", 0, 0, 0), (0, 0, 2));
    assert_eq!(end(4, "t", 1, -1, 0), (0, 0, 0), "nothing has been written");
    assert_eq!(end(4, "t", 0, -1, 5), (0, -1, -1), "an epoch to come");
    assert_eq!(end(4, "t", 0, -1, -1), (0, -1, -1));
    assert_eq!(
        end(4, "t", 0, 5, 0),
        (75, -1, -1),
        "the client is ahead of us"
    );
    assert_eq!(end(4, "t", 9, -1, 0), (3, -1, -1));
    assert_eq!(end(4, "nope", 0, -1, 0), (3, -1, -1));
}

#[test]
fn producers_of_a_partition_are_described() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let mut builder = Builder::new().producer(77, 3, 10);
    for value in ["a", "b"] {
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &[]);
    }
    let records = builder.build().expect("a batch").bytes().clone();
    let produced = client.call(9, &produce_request("t", 0, records));
    assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
    let topic = describe_producers_request::TopicRequest::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0, 9]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let partitions = client.call(0, &request).topics.remove(0).partitions;
    let codes: Vec<i16> = partitions
        .iter()
        .map(|partition| partition.error_code)
        .collect();
    assert_eq!(codes, [0, 3]);
    let only = &partitions[0].active_producers[0];
    assert_eq!(
        (only.producer_id, only.producer_epoch, only.last_sequence),
        (ProducerId(77), 3, 11)
    );
    assert_eq!(only.last_timestamp, 1_700_000_000_000);
    assert_eq!(
        (only.coordinator_epoch, only.current_txn_start_offset),
        (-1, -1)
    );
}

#[test]
fn the_quorum_is_one_voter_that_leads() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let topic = |name: &str, index| {
        TopicData::default()
            .with_topic_name(topic_name(name))
            .with_partitions(vec![PartitionData::default().with_partition_index(index)])
    };
    for version in 0..=2 {
        let request =
            DescribeQuorumRequest::default().with_topics(vec![topic("__cluster_metadata", 0)]);
        let response = client.call(version, &request);
        assert_eq!(response.error_code, 0);
        assert_eq!(response.nodes.len(), usize::from(version == 2));
        let quorum = &response.topics[0].partitions[0];
        assert_eq!((quorum.error_code, quorum.leader_id), (0, BrokerId(1)));
        assert_eq!(quorum.current_voters.len(), 1);
        assert_eq!(
            quorum.current_voters[0].log_end_offset,
            quorum.high_watermark
        );
        assert!(0 < quorum.high_watermark && quorum.observers.is_empty());
    }
    for (name, index) in [("t", 0), ("__cluster_metadata", 1)] {
        let request = DescribeQuorumRequest::default().with_topics(vec![topic(name, index)]);
        let refused = client
            .call(2, &request)
            .topics
            .remove(0)
            .partitions
            .remove(0);
        assert_eq!(refused.error_code, 3);
    }
}

#[test]
fn features_move_together_or_not_at_all() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let level = api_versions(&mut client, 4)
        .finalized_features
        .iter()
        .find(|feature| &*feature.name == "metadata.version")
        .expect("a level")
        .max_version_level;
    let mut update = |version, updates: &[(&'static str, i16, i8)]| {
        let updates = updates.iter().map(|(name, level, upgrade_type)| {
            let update = FeatureUpdateKey::default()
                .with_feature(StrBytes::from_static_str(name))
                .with_max_version_level(*level);
            if version == 0 {
                update
            } else {
                update.with_upgrade_type(*upgrade_type)
            }
        });
        let request = UpdateFeaturesRequest::default()
            .with_feature_updates(updates.collect())
            .with_timeout_ms(10_000);
        let response = client.call(version, &request);
        (
            response.error_code,
            response.error_message.as_deref().unwrap_or("").to_owned(),
            response.results.len(),
        )
    };
    for (version, results) in [(0, 1), (1, 1), (2, 0)] {
        let same = [("metadata.version", level, 1)];
        assert_eq!(
            update(version, &same),
            (0, String::new(), results),
            "v{version}"
        );
    }
    let failed = "The update failed for all features since the following feature had an error: ";
    assert_eq!(
        update(2, &[("metadata.version", level, 1), ("nope", 1, 1)]),
        (
            95,
            format!(
                "{failed}Invalid update version 1 for feature nope. \
                 Local controller 1 does not support this feature."
            ),
            0
        )
    );
    assert_eq!(
        update(2, &[("metadata.version", level - 1, 1)]).1,
        format!(
            "{failed}Invalid update version {} for feature metadata.version. Can't downgrade the \
             version of this feature without setting the upgrade type to either safe or unsafe \
             downgrade.",
            level - 1
        )
    );
    assert_eq!(
        update(2, &[("metadata.version", level, 7)]).1,
        format!(
            "{failed}Invalid update version {level} for feature metadata.version. \
             The controller does not support the given upgrade type."
        )
    );
}

#[test]
fn a_leader_that_is_preferred_need_not_be_elected() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 2);
    let mut elect = |version, kind, partitions: Option<Vec<i32>>| {
        let topic = |partitions| {
            TopicPartitions::default()
                .with_topic(topic_name("t"))
                .with_partitions(partitions)
        };
        let request = ElectLeadersRequest::default()
            .with_topic_partitions(partitions.map(|partitions| vec![topic(partitions)]))
            .with_timeout_ms(10_000);
        let request = if version == 0 {
            request
        } else {
            request.with_election_type(kind)
        };
        let response = client.call(version, &request);
        let partitions = response
            .replica_election_results
            .iter()
            .flat_map(|topic| &topic.partition_result);
        let told: Vec<_> = partitions
            .map(|partition| {
                (
                    partition.partition_id,
                    partition.error_code,
                    partition.error_message.as_deref().unwrap_or("").to_owned(),
                )
            })
            .collect();
        (response.error_code, told)
    };
    let why = "Leader election not needed for topic partition.".to_owned();
    for version in 0..=2 {
        assert_eq!(
            elect(version, 0, Some(vec![1])),
            (0, vec![(1, 84, why.clone())])
        );
    }
    assert_eq!(
        elect(2, 1, Some(vec![9, 0])),
        (
            0,
            vec![(9, 3, "No such partition as t-9".to_owned()), (0, 84, why)]
        )
    );
    assert_eq!(elect(2, 0, None), (0, vec![]));
    assert_eq!(
        elect(2, 2, Some(vec![0])),
        (42, vec![(0, 42, "Unknown election type 2".to_owned())])
    );
}

#[test]
fn nothing_is_being_reassigned_on_one_broker() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let response = client.call(
        0,
        &ListPartitionReassignmentsRequest::default().with_topics(None),
    );
    assert_eq!(
        (
            response.error_code,
            response.error_message,
            response.topics.len()
        ),
        (0, None, 0)
    );
}

#[test]
fn a_broker_that_was_never_here_cannot_be_unregistered() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(7));
    let response = client.call(0, &request);
    assert_eq!(response.error_code, 102);
    assert_eq!(
        response.error_message.as_deref(),
        Some("Broker ID 7 is not currently registered")
    );
}

/// Apache Kafka lets it happen: there the controller is another process, and the broker registers anew or says why not.
#[test]
fn the_broker_that_runs_is_not_unregistered() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(1));
    let response = client.call(0, &request);
    assert_eq!(response.error_code, 42);
    assert_eq!(
        response.error_message.as_deref(),
        Some("Broker 1 is running, and only one that is gone can be unregistered")
    );
    client.create_topic("t", 1);
    let response = client.produce("t", 0, batch(&["a"]));
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 0);
}

/// Path of each log directory, with the indexes and sizes of `topic`'s partitions in it.
fn log_dirs(client: &mut Client, version: i16, topic: &str) -> Vec<(String, Vec<(i32, i64)>)> {
    let asked = DescribableLogDirTopic::default()
        .with_topic(topic_name(topic))
        .with_partitions((0..10).collect());
    let request = DescribeLogDirsRequest::default().with_topics(Some(vec![asked]));
    let response = client.call(version, &request);
    let dirs = response.results.into_iter().map(|dir| {
        assert_eq!(dir.error_code, 0);
        assert_eq!(0 < dir.total_bytes && 0 <= dir.usable_bytes, 4 <= version);
        let partitions = dir.topics.iter().flat_map(|topic| &topic.partitions);
        // A copy that is on its way to this directory is not there yet.
        let partitions = partitions
            .filter(|partition| !partition.is_future_key)
            .map(|partition| {
                assert_eq!(partition.offset_lag, 0);
                (partition.partition_index, partition.partition_size)
            });
        (dir.log_dir.to_string(), partitions.collect())
    });
    dirs.collect()
}

#[test]
fn log_directories_are_described_with_what_is_in_them() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 2);
    let sent = batch(&["a", "b"]);
    client.produce("t", 1, sent.clone());
    let size = i64::try_from(sent.len()).expect("a small batch");
    for version in 1..=4 {
        let dirs = log_dirs(&mut client, version, "t");
        assert_eq!(dirs.len(), 1);
        assert!(
            dirs[0].0.starts_with('/'),
            "an absolute path, not {}",
            dirs[0].0
        );
        assert_eq!(dirs[0].1, [(0, 0), (1, size)]);
    }
    assert_eq!(log_dirs(&mut client, 4, "nope")[0].1, []);
    let everything = client.call(4, &DescribeLogDirsRequest::default().with_topics(None));
    assert_eq!(everything.results[0].topics.len(), 1);
}

#[test]
fn a_replica_moves_to_another_directory_with_what_is_in_it() {
    let dirs = tempfile::tempdir().expect("a directory");
    let [first, second] =
        ["first", "second"].map(|dir| dirs.path().join(dir).display().to_string());
    let broker = TestBroker::start_with(&[("log.dirs", &format!("{first},{second}"))]);
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.produce("t", 0, batch(&["kept"]));
    let home = |client: &mut Client| {
        let dirs = log_dirs(client, 4, "t");
        assert_eq!(dirs.len(), 2);
        dirs.into_iter()
            .find(|(_, partitions)| !partitions.is_empty())
            .expect("it is somewhere")
            .0
    };
    let from = home(&mut client);
    let to = if from == first { &second } else { &first };
    let moved = |client: &mut Client, path: &str, topic: &str, index| {
        let topic = AlterReplicaLogDirTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![index]);
        let dir = AlterReplicaLogDir::default()
            .with_path(path.to_owned().into())
            .with_topics(vec![topic]);
        let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]);
        client
            .call(2, &request)
            .results
            .remove(0)
            .partitions
            .remove(0)
            .error_code
    };
    assert_eq!(moved(&mut client, to, "t", 0), 0);
    assert_eq!(moved(&mut client, "/nope", "t", 0), 57);
    assert_eq!(
        moved(&mut client, "/nope", "nope", 0),
        57,
        "the directory is looked at first"
    );
    assert_eq!(moved(&mut client, to, "nope", 0), 3);
    assert_eq!(moved(&mut client, to, "t", 9), 3);
    while home(&mut client) != *to {
        // The move goes on behind; each look is a round trip to the broker.
    }
    client.produce("t", 0, batch(&["and more"]));
    let fetched = client.fetch("t", 0, 0);
    let records = fetched.responses[0].partitions[0]
        .records
        .clone()
        .expect("records");
    let values: Vec<String> = common::values(records)
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(values, ["kept", "and more"]);
    let broker = broker.restart(&[("log.dirs", &format!("{first},{second}"))]);
    assert_eq!(home(&mut broker.client()), *to);
}

/// What Apache Kafka 4.4.0 answers its tools with `--bootstrap-controller`, at the port where a container's health is
/// looked for. Of the 42 keys that it lists there, all that are served here but Fetch, which only its own nodes ask for.
#[test]
fn a_controllers_listener_serves_what_is_for_controllers() {
    const MISMATCHED_ENDPOINT_TYPE: i16 = 114;
    let broker = TestBroker::start_with(&[
        (
            "listeners",
            "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
        ),
        ("controller.listener.names", "CONTROLLER"),
    ]);
    let running = broker.running.as_ref().expect("it runs");
    let address = running.address("CONTROLLER").expect("it is bound");
    let client = &mut Client::connect(address);
    let served = api_versions(client, 3);
    let keys: Vec<i16> = served.api_keys.iter().map(|api| api.api_key).collect();
    assert_eq!(keys, [18, 19, 20, 32, 33, 37, 43, 44, 46, 55, 57, 60, 64]);
    assert!(!served.finalized_features.is_empty());

    let controllers = DescribeClusterRequest::default().with_endpoint_type(2);
    let brokers = DescribeClusterRequest::default().with_endpoint_type(1);
    let found = client.call(2, &controllers);
    assert_eq!(
        (found.error_code, found.endpoint_type, found.controller_id.0),
        (0, 2, 1)
    );
    let [only] = &found.brokers[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        (only.broker_id.0, &*only.host, only.port),
        (1, "127.0.0.1", i32::from(address.port()))
    );
    let refused = client.call(2, &brokers);
    assert_eq!(refused.error_code, MISMATCHED_ENDPOINT_TYPE);
    assert_eq!(
        refused.error_message.as_deref(),
        Some(
            "The request was sent to an endpoint of type CONTROLLER, but we wanted an endpoint of type BROKER"
        )
    );

    client.create_topic("t", 1);
    let mut other = broker.client();
    let all = other.call(9, &MetadataRequest::default().with_topics(None));
    assert_eq!(all.topics.len(), 1);
    client.send(9, &MetadataRequest::default());
    assert!(client.is_closed(), "Metadata is for brokers");
    assert_eq!(other.call(2, &brokers).error_code, 0);
}
