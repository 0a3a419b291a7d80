//! What is not counted but read off the broker at every scrape.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
};

use replication::{
    cluster::ClusterImage,
    partition::{Leadership, Partition},
};

use storage::producers::Ongoing;

use super::{Scrape, groups, list, transactions};
use crate::{broker::Broker, clock};

/// By how much a transaction outlives `transaction.max.timeout.ms` before Kafka counts it as late (ms).
const LATE_TRANSACTION_BUFFER_MS: i64 = 5 * 60 * 1000;

/// Kafka's numbers for a broker's states.
const RUNNING: f64 = 3.0;
const STOPPING: f64 = 6.0;

/// Has the broker's gauges read at every scrape, for as long as there is a broker.
pub(crate) fn register(broker: &Arc<Broker>) {
    let weak = Arc::downgrade(broker);
    broker.metrics().on_scrape(move |to| {
        if let Some(broker) = weak.upgrade() {
            scrape(&broker, to);
        }
    });
}

fn scrape(broker: &Broker, to: &mut Scrape<'_>) {
    let state = if broker.is_stopping() {
        STOPPING
    } else {
        RUNNING
    };
    to.gauge(&list::BROKER_STATE, &[], state);
    scrape_partitions(broker, to);
    scrape_cleaner(broker, to);
    scrape_cluster(broker, to);
    groups::scrape(broker, to);
    transactions::scrape(broker, to);

    let sessions = broker
        .fetch_sessions()
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    to.gauge(&list::FETCH_SESSION_COUNT, &[], sessions.len() as f64);
    to.gauge(
        &list::FETCH_SESSION_PARTITION_COUNT,
        &[],
        sessions.partitions() as f64,
    );
}

fn scrape_partitions(broker: &Broker, to: &mut Scrape<'_>) {
    let partitions = broker.partitions().all();
    let topics: HashSet<&str> = partitions
        .iter()
        .map(|partition| &*partition.name().topic)
        .collect();
    broker
        .metrics()
        .retain_topics(|topic| topics.contains(topic));

    let image = broker.image();
    let late_before = clock::now()
        - i64::from(broker.config().transactions.max_timeout_ms)
        - LATE_TRANSACTION_BUFFER_MS;
    let (mut led, mut under_replicated, mut under_min_isr, mut late) = (0, 0, 0, 0);
    for partition in &partitions {
        scrape_log(partition, to);
        let leadership = partition.leadership();
        if leadership.leader == broker.node_id() {
            led += 1;
            scrape_led(&image, partition, &leadership, to);
            under_replicated += usize::from(leadership.isr.len() < leadership.replicas);
            under_min_isr += usize::from(leadership.isr.len() < leadership.min_insync_replicas);
            late += usize::from(is_late(partition.log().oldest_transaction(), late_before));
        }
    }
    to.gauge(&list::PARTITION_COUNT, &[], partitions.len() as f64);
    to.gauge(&list::LEADER_COUNT, &[], led as f64);
    to.gauge(
        &list::UNDER_REPLICATED_PARTITIONS,
        &[],
        under_replicated as f64,
    );
    to.gauge(
        &list::UNDER_MIN_ISR_PARTITION_COUNT,
        &[],
        under_min_isr as f64,
    );
    to.gauge(&list::PARTITIONS_WITH_LATE_TRANSACTIONS, &[], late as f64);
    to.gauge(
        &list::OFFLINE_REPLICA_COUNT,
        &[],
        broker.partitions().offline_count() as f64,
    );

    let opened = broker.partitions().directories().iter();
    let opened = opened.map(|directory| (directory.path(), directory.is_offline()));
    let unusable = broker.partitions().unusable().iter();
    let mut offline = 0;
    for (path, is_offline) in opened.chain(unusable.map(|path| (&**path, true))) {
        offline += usize::from(is_offline);
        let labels = [("logDirectory", &*path.to_string_lossy())];
        let value = f64::from(u8::from(is_offline));
        to.gauge(&list::LOG_DIRECTORY_OFFLINE, &labels, value);
    }
    to.gauge(&list::OFFLINE_LOG_DIRECTORY_COUNT, &[], offline as f64);

    let image = broker.image();
    let mut cordoned = 0;
    for directory in broker.partitions().directories() {
        let is_cordoned = image.has_cordoned(broker.node_id(), directory.id());
        cordoned += usize::from(is_cordoned);
        let labels = [("logDirectory", &*directory.path().to_string_lossy())];
        let value = f64::from(u8::from(is_cordoned));
        to.gauge(&list::LOG_DIRECTORY_CORDONED, &labels, value);
    }
    to.gauge(&list::CORDONED_LOG_DIRECTORY_COUNT, &[], cordoned as f64);
}

/// By Kafka's rule, which goes by what the producer has written last, and knows of no record without a time.
fn is_late(oldest: Option<Ongoing>, late_before: i64) -> bool {
    oldest.is_some_and(|oldest| (1..late_before).contains(&oldest.last_timestamp))
}

fn scrape_log(partition: &Partition, to: &mut Scrape<'_>) {
    let name = partition.name();
    let index = name.index.to_string();
    let labels = [("topic", &*name.topic), ("partition", &*index)];
    let log = partition.log();
    to.gauge(&list::LOG_SIZE, &labels, log.size() as f64);
    to.gauge(&list::LOG_START_OFFSET, &labels, log.start_offset() as f64);
    to.gauge(&list::LOG_END_OFFSET, &labels, log.end_offset() as f64);
}

/// What `kafka_exporter` shows of a partition; of all brokers the leader does.
fn scrape_led(
    image: &ClusterImage,
    partition: &Partition,
    leadership: &Leadership,
    to: &mut Scrape<'_>,
) {
    let name = partition.name();
    let index = name.index.to_string();
    let labels = [("topic", &*name.topic), ("partition", &*index)];
    let info = image.partition(&name.topic, name.index);
    let first = info.and_then(|info| info.replicas.first().copied());
    let in_sync = leadership.isr.len();
    for (metric, value) in [
        (&list::TOPIC_CURRENT_OFFSET, partition.high_watermark()),
        (&list::TOPIC_OLDEST_OFFSET, partition.log().start_offset()),
    ] {
        to.gauge(metric, &labels, value as f64);
    }
    for (metric, value) in [
        (&list::TOPIC_LEADER, f64::from(leadership.leader)),
        (&list::TOPIC_REPLICAS, leadership.replicas as f64),
        (&list::TOPIC_IN_SYNC_REPLICAS, in_sync as f64),
        (
            &list::TOPIC_LEADER_IS_PREFERRED,
            f64::from(first == Some(leadership.leader)),
        ),
        (
            &list::TOPIC_UNDER_REPLICATED,
            f64::from(in_sync < leadership.replicas),
        ),
    ] {
        to.gauge(metric, &labels, value);
    }
}

fn scrape_cleaner(broker: &Broker, to: &mut Scrape<'_>) {
    let cleaner = broker.cleaner();
    let seen = cleaner.seen();
    let dead = cleaner.is_dead() && !broker.is_stopping();
    to.gauge(
        &list::CLEANER_DEAD_THREAD_COUNT,
        &[],
        f64::from(u8::from(dead)),
    );
    // Kafka rounds the percentages.
    let percent = |ratio: f64| (100.0 * ratio).round();
    to.gauge(
        &list::CLEANER_RECOPY_PERCENT,
        &[],
        percent(seen.recopy_ratio),
    );
    to.gauge(
        &list::CLEANER_MAX_BUFFER_UTILIZATION_PERCENT,
        &[],
        percent(seen.map_utilization),
    );
    to.gauge(
        &list::CLEANER_MAX_CLEAN_TIME,
        &[],
        seen.took.as_secs() as f64,
    );
    let delay = seen.max_delay_ms / 1000;
    to.gauge(&list::CLEANER_MAX_COMPACTION_DELAY, &[], delay as f64);
    to.gauge(
        &list::CLEANER_MAX_DIRTY_PERCENT,
        &[],
        percent(seen.max_dirty_ratio),
    );
    to.gauge(
        &list::CLEANER_TIME_SINCE_LAST_RUN,
        &[],
        cleaner.since_last_look().as_millis() as f64,
    );
    for directory in broker.partitions().directories() {
        let path = directory.path().to_string_lossy();
        let labels = [("logDirectory", &*path)];
        let (count, bytes) = cleaner.uncleanable(directory);
        to.gauge(&list::UNCLEANABLE_PARTITIONS_COUNT, &labels, count as f64);
        to.gauge(&list::UNCLEANABLE_BYTES, &labels, bytes as f64);
    }
}

fn scrape_cluster(broker: &Broker, to: &mut Scrape<'_>) {
    let image = broker.image();
    let fenced = image
        .brokers
        .values()
        .filter(|broker| broker.fenced)
        .count();
    let (mut topics, mut partitions, mut leaderless) = (0, 0, 0);
    for topic in image.topics() {
        topics += 1;
        let labels = [("topic", &*topic.name)];
        to.gauge(
            &list::TOPIC_PARTITIONS,
            &labels,
            topic.partitions.len() as f64,
        );
        partitions += topic.partitions.len();
        leaderless += topic
            .partitions
            .values()
            .filter(|partition| partition.leader < 0)
            .count();
    }
    to.gauge(&list::BROKERS, &[], image.brokers.len() as f64);
    for broker in image.brokers.values() {
        let Some(endpoint) = broker.endpoints.first() else {
            continue;
        };
        let (id, address) = (
            broker.id.to_string(),
            format!("{}:{}", endpoint.host, endpoint.port),
        );
        to.gauge(
            &list::BROKER_INFO,
            &[("id", &id), ("address", &address)],
            1.0,
        );
    }
    // The only voter is the active controller for as long as it lives.
    to.gauge(&list::ACTIVE_CONTROLLER_COUNT, &[], 1.0);
    to.gauge(
        &list::ACTIVE_BROKER_COUNT,
        &[],
        (image.brokers.len() - fenced) as f64,
    );
    to.gauge(&list::FENCED_BROKER_COUNT, &[], fenced as f64);
    to.gauge(&list::GLOBAL_TOPIC_COUNT, &[], topics as f64);
    to.gauge(&list::GLOBAL_PARTITION_COUNT, &[], partitions as f64);
    to.gauge(&list::OFFLINE_PARTITIONS_COUNT, &[], leaderless as f64);
    to.gauge(&list::LAST_APPLIED_RECORD_OFFSET, &[], image.offset as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_late_when_its_time_is_over_and_known() {
        let late_before = 1_000_000;
        for (last_timestamp, want) in [
            (999_999, true),
            (1_000_000, false),
            (1, true),
            (0, false),
            (-1, false),
        ] {
            let oldest = Ongoing {
                first_offset: 0,
                last_timestamp,
            };
            assert_eq!(is_late(Some(oldest), late_before), want, "{last_timestamp}");
        }
        assert!(!is_late(None, late_before));
    }
}
