//! Every metric: its name, its unit and what it means.
//!
//! A name is the one under which `jmx_exporter` with the usual rules for Kafka (`kafka-2_0_0.yml`,
//! `kafka-kraft-3_0_0.yml`) publishes Apache Kafka's MBean, so that dashboards and alerts made for those find what
//! they look for. Lag, and what else `kafka_exporter` (danielqsj) tells of topics and groups, has the names and labels
//! that it has there. What neither has begins with `sordini_`; `process_` is what every Prometheus client says.

use metrics::Unit;

/// One row of the list.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub meaning: &'static str,
    /// Its place in [`ALL`].
    pub(super) index: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    /// Quantiles of the last minutes, and sum and count since the start.
    Summary,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
        }
    }
}

macro_rules! metrics {
    ($($id:ident = $name:literal, $kind:ident, $unit:ident; $meaning:literal;)*) => {
        /// In the order of the answer to a scrape.
        pub static ALL: &[&Metric] = &[$(&$id),*];

        /// Only for numbering the rows.
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Index { $($id),* }

        $(#[doc = $meaning]
        pub static $id: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            meaning: $meaning,
            index: Index::$id as usize,
        };)*
    };
}

metrics! {
    BYTES_IN = "kafka_server_brokertopicmetrics_bytesin_total", Counter, Bytes;
        "Bytes of record batches appended for producers; without a topic, over all of them.";
    BYTES_OUT = "kafka_server_brokertopicmetrics_bytesout_total", Counter, Bytes;
        "Bytes of record batches sent to consumers.";
    BYTES_REJECTED = "kafka_server_brokertopicmetrics_bytesrejected_total", Counter, Bytes;
        "Bytes of record batches refused for their size.";
    MESSAGES_IN = "kafka_server_brokertopicmetrics_messagesin_total", Counter, Count;
        "Records appended for producers.";
    PRODUCE_REQUESTS = "kafka_server_brokertopicmetrics_totalproducerequests_total", Counter, Count;
        "Partitions in Produce requests.";
    PRODUCE_FAILURES = "kafka_server_brokertopicmetrics_failedproducerequests_total", Counter, Count;
        "Those of them that were answered with an error.";
    FETCH_REQUESTS = "kafka_server_brokertopicmetrics_totalfetchrequests_total", Counter, Count;
        "Partitions in answers to Fetch requests.";
    FETCH_FAILURES = "kafka_server_brokertopicmetrics_failedfetchrequests_total", Counter, Count;
        "Those of them that carried an error.";

    REQUESTS = "kafka_network_requestmetrics_requests_total", Counter, Count;
        "Requests answered, by API and version.";
    REQUEST_ERRORS = "kafka_network_requestmetrics_errors_total", Counter, Count;
        "Answers by API and error, NONE included.";
    TOTAL_TIME = "kafka_network_requestmetrics_totaltimems", Summary, Milliseconds;
        "From the last byte of a request to the last byte of its answer given to the socket.";
    LOCAL_TIME = "kafka_network_requestmetrics_localtimems", Summary, Milliseconds;
        "The part of it spent serving the request.";
    REMOTE_TIME = "kafka_network_requestmetrics_remotetimems", Summary, Milliseconds;
        "The part of it spent waiting: for replicas, or for records to come.";
    REQUEST_BYTES = "kafka_network_requestmetrics_requestbytes", Summary, Bytes;
        "The size of requests.";
    RESPONSE_BYTES = "sordini_network_requestmetrics_responsebytes", Summary, Bytes;
        "The size of answers.";

    CONNECTION_COUNT = "kafka_server_socketservermetrics_connection_count", Gauge, Count;
        "Connections open now, by listener.";
    CONNECTIONS_CREATED = "kafka_server_socketservermetrics_connection_creation_total", Counter, Count;
        "Connections accepted.";
    CONNECTIONS_CLOSED = "kafka_server_socketservermetrics_connection_close_total", Counter, Count;
        "Connections closed, by either side.";
    CONNECTIONS_EXPIRED = "kafka_server_socketservermetrics_expired_connections_killed_count", Counter, Count;
        "Connections closed because nothing came for connections.max.idle.ms.";
    CONNECTIONS_REFUSED = "sordini_server_connections_refused_total", Counter, Count;
        "Connections refused by max.connections or max.connections.per.ip.";

    PARTITION_COUNT = "kafka_server_replicamanager_partitioncount", Gauge, Count;
        "Partitions on this broker.";
    LEADER_COUNT = "kafka_server_replicamanager_leadercount", Gauge, Count;
        "Partitions this broker leads.";
    OFFLINE_REPLICA_COUNT = "kafka_server_replicamanager_offlinereplicacount", Gauge, Count;
        "Partitions on log directories that have failed.";
    UNDER_REPLICATED_PARTITIONS = "kafka_server_replicamanager_underreplicatedpartitions", Gauge, Count;
        "Partitions led here with fewer replicas in sync than there are.";
    UNDER_MIN_ISR_PARTITION_COUNT = "kafka_server_replicamanager_underminisrpartitioncount", Gauge, Count;
        "Partitions led here with fewer replicas in sync than min.insync.replicas.";
    PARTITIONS_WITH_LATE_TRANSACTIONS = "kafka_server_replicamanager_partitionswithlatetransactionscount", Gauge, Count;
        "Partitions led here with a transaction that has been open for longer than any may be: nobody will end it. After a \
         restart a partition counts once it is written, or read by read_committed.";
    FETCH_SESSION_COUNT = "kafka_server_fetchsessioncache_numincrementalfetchsessions", Gauge, Count;
        "Incremental fetch sessions.";
    FETCH_SESSION_PARTITION_COUNT = "kafka_server_fetchsessioncache_numincrementalfetchpartitionscached", Gauge, Count;
        "Partitions in those sessions.";
    BROKER_STATE = "kafka_server_kafkaserver_brokerstate", Gauge, Count;
        "1 starting, 2 recovering, 3 running, 6 stopping, as Kafka numbers them.";

    LOG_SIZE = "kafka_log_log_size", Gauge, Bytes;
        "The size of a partition's log.";
    LOG_START_OFFSET = "kafka_log_log_logstartoffset", Gauge, Count;
        "The first offset of a partition's log.";
    LOG_END_OFFSET = "kafka_log_log_logendoffset", Gauge, Count;
        "The offset the next record of a partition's log will get.";
    CLEANER_DEAD_THREAD_COUNT = "kafka_log_logcleaner_deadthreadcount", Gauge, Count;
        "1 if logs are not compacted any more though the broker runs.";
    CLEANER_RECOPY_PERCENT = "kafka_log_logcleaner_cleaner_recopy_percent", Gauge, Percent;
        "Of what the last compaction read, the share it wrote again.";
    CLEANER_MAX_BUFFER_UTILIZATION_PERCENT = "kafka_log_logcleaner_max_buffer_utilization_percent", Gauge, Percent;
        "Of the last compaction's memory for keys, the share that was used.";
    CLEANER_MAX_CLEAN_TIME = "kafka_log_logcleaner_max_clean_time_secs", Gauge, Seconds;
        "How long the last compaction took.";
    CLEANER_MAX_COMPACTION_DELAY = "kafka_log_logcleaner_max_compaction_delay_secs", Gauge, Seconds;
        "By how much a record has passed max.compaction.lag.ms without being compacted.";
    CLEANER_MAX_DIRTY_PERCENT = "kafka_log_logcleanermanager_max_dirty_percent", Gauge, Percent;
        "Of the dirtiest log, the share that is not compacted.";
    CLEANER_TIME_SINCE_LAST_RUN = "kafka_log_logcleanermanager_time_since_last_run_ms", Gauge, Milliseconds;
        "Since it was last looked which logs are to be compacted.";
    UNCLEANABLE_BYTES = "kafka_log_logcleanermanager_uncleanable_bytes", Gauge, Bytes;
        "What is not compacted of logs that cannot be, in a log directory.";
    UNCLEANABLE_PARTITIONS_COUNT = "kafka_log_logcleanermanager_uncleanable_partitions_count", Gauge, Count;
        "Logs in a log directory that cannot be compacted; the reason is in the broker's log.";
    OFFLINE_LOG_DIRECTORY_COUNT = "kafka_log_logmanager_offlinelogdirectorycount", Gauge, Count;
        "Log directories that have failed.";
    CORDONED_LOG_DIRECTORY_COUNT = "kafka_log_logmanager_cordonedlogdirectorycount", Gauge, Count;
        "Log directories that take no new partitions.";
    LOG_DIRECTORY_CORDONED = "kafka_log_logmanager_logdirectorycordoned", Gauge, Count;
        "1 where a log directory takes no new partitions, 0 where it does.";
    LOG_DIRECTORY_OFFLINE = "kafka_log_logmanager_logdirectoryoffline", Gauge, Count;
        "1 where a log directory has failed, 0 where it works.";

    ACTIVE_CONTROLLER_COUNT = "kafka_controller_kafkacontroller_activecontrollercount", Gauge, Count;
        "1 on the active controller, 0 elsewhere.";
    ACTIVE_BROKER_COUNT = "kafka_controller_kafkacontroller_activebrokercount", Gauge, Count;
        "Brokers that may serve.";
    FENCED_BROKER_COUNT = "kafka_controller_kafkacontroller_fencedbrokercount", Gauge, Count;
        "Brokers that are registered and may not serve.";
    GLOBAL_TOPIC_COUNT = "kafka_controller_kafkacontroller_globaltopiccount", Gauge, Count;
        "Topics in the cluster.";
    GLOBAL_PARTITION_COUNT = "kafka_controller_kafkacontroller_globalpartitioncount", Gauge, Count;
        "Partitions in the cluster.";
    OFFLINE_PARTITIONS_COUNT = "kafka_controller_kafkacontroller_offlinepartitionscount", Gauge, Count;
        "Partitions without a leader.";
    LAST_APPLIED_RECORD_OFFSET = "kafka_controller_kafkacontroller_lastappliedrecordoffset", Gauge, Count;
        "The last offset of the metadata log that was applied.";

    GROUPS = "kafka_coordinator_group_groupmetadatamanager_numgroups", Gauge, Count;
        "Groups of the classic protocol that this broker coordinates.";
    GROUPS_PREPARING = "kafka_coordinator_group_groupmetadatamanager_numgroupspreparingrebalance", Gauge, Count;
        "Those of them whose members are called to join.";
    GROUPS_COMPLETING = "kafka_coordinator_group_groupmetadatamanager_numgroupscompletingrebalance", Gauge, Count;
        "Those of them whose members wait for their assignment.";
    GROUPS_STABLE = "kafka_coordinator_group_groupmetadatamanager_numgroupsstable", Gauge, Count;
        "Those of them whose members have their assignment.";
    GROUPS_EMPTY = "kafka_coordinator_group_groupmetadatamanager_numgroupsempty", Gauge, Count;
        "Those of them without members.";
    GROUPS_DEAD = "kafka_coordinator_group_groupmetadatamanager_numgroupsdead", Gauge, Count;
        "Those of them that are no more; they are forgotten at once.";
    OFFSETS = "kafka_coordinator_group_groupmetadatamanager_numoffsets", Gauge, Count;
        "Offsets that groups have committed.";
    GROUPS_BY_PROTOCOL = "kafka_server_group_coordinator_metrics_group_count", Gauge, Count;
        "Groups that this broker coordinates, by protocol.";
    CLASSIC_GROUPS = "kafka_server_group_coordinator_metrics_classic_group_count", Gauge, Count;
        "Groups of the classic protocol, by state.";
    CONSUMER_GROUPS = "kafka_server_group_coordinator_metrics_consumer_group_count", Gauge, Count;
        "Groups of the consumer protocol, by state.";
    GROUP_OFFSETS = "kafka_server_group_coordinator_metrics_offset_count", Gauge, Count;
        "Offsets that groups have committed.";
    GROUP_PARTITIONS = "kafka_server_group_coordinator_metrics_num_partitions", Gauge, Count;
        "Partitions of __consumer_offsets led here, by what became of loading them.";
    TRANSACTIONAL_IDS = "sordini_transactional_ids", Gauge, Count;
        "Transactional ids that this broker coordinates, by what their transactions are doing.";
    TRANSACTION_PARTITIONS = "sordini_transaction_state_partitions", Gauge, Count;
        "Partitions of __transaction_state led here, by what became of loading them.";
    OFFSET_COMMITS = "kafka_server_group_coordinator_metrics_offset_commit_count", Counter, Count;
        "Offsets committed, one for each partition.";
    OFFSET_EXPIRATIONS = "kafka_server_group_coordinator_metrics_offset_expiration_count", Counter, Count;
        "Offsets that went by offsets.retention.minutes.";
    OFFSET_DELETIONS = "kafka_server_group_coordinator_metrics_offset_deletion_count", Counter, Count;
        "Offsets deleted on request, or with their topic.";
    COMPLETED_REBALANCES = "kafka_server_group_coordinator_metrics_group_completed_rebalance_count", Counter, Count;
        "Rebalances of classic groups that ended with an assignment.";
    CONSUMER_REBALANCES = "kafka_server_group_coordinator_metrics_consumer_group_rebalance_count", Counter, Count;
        "New epochs of groups of the consumer protocol.";

    GROUP_LAG = "kafka_consumergroup_lag", Gauge, Count;
        "Records between what a group has committed and the end of the partition.";
    GROUP_LAG_SUM = "kafka_consumergroup_lag_sum", Gauge, Count;
        "The same over all partitions of a topic.";
    GROUP_OFFSET = "kafka_consumergroup_current_offset", Gauge, Count;
        "The offset that a group has committed.";
    GROUP_OFFSET_SUM = "kafka_consumergroup_current_offset_sum", Gauge, Count;
        "The same over all partitions of a topic.";
    GROUP_MEMBERS = "kafka_consumergroup_members", Gauge, Count;
        "Members of a group.";
    GROUPS_LEFT_OUT = "sordini_consumergroups_left_out", Gauge, Count;
        "Groups of which nothing is shown by itself, because there are too many.";

    BROKERS = "kafka_brokers", Gauge, Count;
        "Brokers in the cluster.";
    BROKER_INFO = "kafka_broker_info", Gauge, Count;
        "1 for each broker, with its id and its address.";
    TOPIC_PARTITIONS = "kafka_topic_partitions", Gauge, Count;
        "Partitions of a topic.";
    TOPIC_CURRENT_OFFSET = "kafka_topic_partition_current_offset", Gauge, Count;
        "The offset up to which consumers can read a partition that this broker leads.";
    TOPIC_OLDEST_OFFSET = "kafka_topic_partition_oldest_offset", Gauge, Count;
        "The first offset of a partition that this broker leads.";
    TOPIC_LEADER = "kafka_topic_partition_leader", Gauge, Count;
        "The leader's id.";
    TOPIC_REPLICAS = "kafka_topic_partition_replicas", Gauge, Count;
        "Replicas of a partition.";
    TOPIC_IN_SYNC_REPLICAS = "kafka_topic_partition_in_sync_replica", Gauge, Count;
        "Those of them that are in sync.";
    TOPIC_LEADER_IS_PREFERRED = "kafka_topic_partition_leader_is_preferred", Gauge, Count;
        "1 if the leader is the first of the replicas.";
    TOPIC_UNDER_REPLICATED = "kafka_topic_partition_under_replicated_partition", Gauge, Count;
        "1 if a replica is not in sync.";

    PROCESS_CPU_SECONDS = "process_cpu_seconds_total", Counter, Seconds;
        "Processor time used, in user and kernel mode.";
    PROCESS_RESIDENT_MEMORY = "process_resident_memory_bytes", Gauge, Bytes;
        "Memory in use.";
    PROCESS_VIRTUAL_MEMORY = "process_virtual_memory_bytes", Gauge, Bytes;
        "Address space in use.";
    PROCESS_OPEN_FILES = "process_open_fds", Gauge, Count;
        "Open file descriptors.";
    PROCESS_OPEN_FILES_MAX = "process_max_fds", Gauge, Count;
        "The most file descriptors that may be open.";
    PROCESS_THREADS = "process_threads", Gauge, Count;
        "Threads.";
    PROCESS_START_TIME = "process_start_time_seconds", Gauge, Seconds;
        "When the process was started, since the epoch.";
}
