import static java.util.Map.entry;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConfigEntry.ConfigSource;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.QuorumInfo;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.config.ConfigResource.Type;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java client's program. Assignment is manual here: who joins a group is in Groups, what is transactional in Transactions. */
final class Scenarios {
    private static final Admin ADMIN = Admin.create(Map.of("bootstrap.servers", Talk.BOOTSTRAP));

    private Scenarios() {}

    public static void main(String[] arguments) throws Exception {
        Map<String, Talk.Scenario> scenarios = new HashMap<>(Groups.SCENARIOS);
        scenarios.putAll(Transactions.SCENARIOS);
        scenarios.putAll(Map.ofEntries(
            entry("cluster", Scenarios::cluster),
            entry("features", Scenarios::features),
            entry("quorum", Scenarios::quorum),
            entry("create-topic", Scenarios::createTopic),
            entry("create-topic-refused", Scenarios::createTopicRefused),
            entry("create-topic-validate-only", Scenarios::createTopicValidateOnly),
            entry("describe-topic", Scenarios::describeTopic),
            entry("list-topics", Scenarios::listTopics),
            entry("unknown-topic", Scenarios::unknownTopic),
            entry("create-partitions", Scenarios::createPartitions),
            entry("delete-topic", Scenarios::deleteTopic),
            entry("auto-create", Scenarios::autoCreate),
            entry("many-partitions", Scenarios::manyPartitions),
            entry("topic-config", Scenarios::topicConfig),
            entry("topic-config-refused", Scenarios::topicConfigRefused),
            entry("broker-config", Scenarios::brokerConfig),
            entry("list-config-resources", Scenarios::listConfigResources),
            entry("acks-0", Scenarios::acks0),
            entry("acks-1", topic -> roundTrip(topic, Map.of("acks", "1", "enable.idempotence", false))),
            entry("acks-all", topic -> roundTrip(topic, Map.of("acks", "all", "enable.idempotence", false))),
            entry("codec-gzip", topic -> roundTrip(topic, Map.of("compression.type", "gzip"))),
            entry("codec-snappy", topic -> roundTrip(topic, Map.of("compression.type", "snappy"))),
            entry("codec-lz4", topic -> roundTrip(topic, Map.of("compression.type", "lz4"))),
            entry("codec-zstd", topic -> roundTrip(topic, Map.of("compression.type", "zstd"))),
            entry("codec-of-topic", Scenarios::codecOfTopic),
            entry("idempotent", topic -> roundTrip(topic, Map.of("enable.idempotence", true))),
            entry("keys-headers", Scenarios::keysHeaders),
            entry("tombstone", Scenarios::tombstone),
            entry("log-append-time", Scenarios::logAppendTime),
            entry("big-message", Scenarios::bigMessage),
            entry("too-large", Scenarios::tooLarge),
            entry("consume-middle", Scenarios::consumeMiddle),
            entry("long-poll", Scenarios::longPoll),
            entry("offset-out-of-range", Scenarios::offsetOutOfRange),
            entry("offsets-by-time", Scenarios::offsetsByTime),
            entry("read-committed", Scenarios::readCommitted),
            entry("delete-records", Scenarios::deleteRecords),
            entry("log-dirs", Scenarios::logDirs),
            entry("producers", Scenarios::producers),
            entry("elect-leaders", Scenarios::electLeaders),
            entry("reassignments", Scenarios::reassignments),
            entry("restart", topic -> survives(topic, "restart")),
            entry("kill-9", topic -> survives(topic, "kill")),
            entry("idempotent-kills", Scenarios::idempotentKills)));
        Talk.answerScenarios(scenarios, Map.of(
            "api-versions", "not in its public interface; kafka-tools does it",
            "leader-epoch", "not in its public interface",
            "dump-log", "kafka-tools does it",
            "dump-compacted", "kafka-tools does it",
            "group-lag", "kafka-tools does it",
            "group-offsets-topic", "kafka-tools does it"));
    }

    // The cluster

    static void cluster(String topic) throws Exception {
        var seen = ADMIN.describeCluster();
        Talk.same(seen.nodes().get().stream().map(node -> node.id() + " " + node.host() + ":" + node.port()).toList(),
            List.of("1 " + Talk.BOOTSTRAP));
        Talk.same(seen.controller().get().id(), 1);
        Talk.same(seen.clusterId().get().length(), 22);
    }

    static void features(String topic) throws Exception {
        var seen = ADMIN.describeFeatures().featureMetadata().get();
        var finalized = seen.finalizedFeatures().get("metadata.version");
        var supported = seen.supportedFeatures().get("metadata.version");
        Talk.same(supported.minVersion() <= finalized.minVersionLevel(), true);
        Talk.same(finalized.maxVersionLevel() <= supported.maxVersion(), true);
    }

    static void quorum(String topic) throws Exception {
        QuorumInfo seen = ADMIN.describeMetadataQuorum().quorumInfo().get();
        Talk.same(seen.leaderId(), 1);
        Talk.same(seen.voters().stream().map(QuorumInfo.ReplicaState::replicaId).toList(), List.of(1));
        Talk.same(seen.observers(), List.of());
        Talk.same(0 < seen.highWatermark(), true);
    }

    // Topics

    static void createTopic(String topic) throws Exception {
        create(topic, 3, Map.of("retention.ms", "86400000", "cleanup.policy", "compact,delete"));
        Config seen = config(Type.TOPIC, topic);
        Talk.same(seen.get("retention.ms").value(), "86400000");
        Talk.same(seen.get("retention.ms").source(), ConfigSource.DYNAMIC_TOPIC_CONFIG);
        Talk.same(seen.get("cleanup.policy").value(), "compact,delete");
        Talk.same(describe(topic).partitions().size(), 3);
    }

    static void createTopicRefused(String topic) throws Exception {
        create(topic, 1, Map.of());
        refused(create(new NewTopic(topic, 1, (short) 1)), "TopicExistsException", "Topic '" + topic + "' already exists.");
        refused(create(new NewTopic("bad name", 1, (short) 1)), "InvalidTopicException", "Topic name is invalid: 'bad name' "
            + "contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'");
        refused(create(new NewTopic("none", 0, (short) 1)), "InvalidPartitionsException",
            "Number of partitions was set to an invalid non-positive value.");
        refused(create(new NewTopic("three", 1, (short) 3)), "InvalidReplicationFactorException", "Unable to replicate the "
            + "partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are "
            + "registered or some brokers have all their log directories cordoned.");
        refused(create(new NewTopic("key", 1, (short) 1).configs(Map.of("no.such.key", "1"))), "InvalidConfigurationException",
            "Unknown topic config name: no.such.key");
        refused(create(new NewTopic("value", 1, (short) 1).configs(Map.of("retention.ms", "soon"))),
            "InvalidConfigurationException", "Invalid value soon for configuration retention.ms: Not a number of type LONG");
    }

    static void createTopicValidateOnly(String topic) throws Exception {
        var answer = ADMIN.createTopics(List.of(new NewTopic(topic, 2, (short) 1)), new CreateTopicsOptions().validateOnly(true));
        Talk.same(answer.numPartitions(topic).get(), 2);
        Talk.same(ADMIN.listTopics().names().get().contains(topic), false);
    }

    static void describeTopic(String topic) throws Exception {
        create(topic, 2, Map.of());
        TopicDescription seen = describe(topic);
        Talk.same(seen.isInternal(), false);
        Talk.same(seen.partitions().stream().map(TopicPartitionInfo::partition).toList(), List.of(0, 1));
        for (TopicPartitionInfo partition : seen.partitions()) {
            Talk.same(partition.leader().id(), 1);
            Talk.same(partition.replicas().stream().map(Node::id).toList(), List.of(1));
            Talk.same(partition.isr().stream().map(Node::id).toList(), List.of(1));
            Talk.same(partition.elr(), List.of());
        }
    }

    static void listTopics(String topic) throws Exception {
        create(topic, 3, Map.of());
        var seen = ADMIN.listTopics().namesToListings().get().get(topic);
        Talk.same(seen.topicId(), describe(topic).topicId());
    }

    static void unknownTopic(String topic) throws Exception {
        String text = "This server does not host this topic-partition.";
        refused(ADMIN.describeTopics(List.of(topic)).topicNameValues().get(topic), "UnknownTopicOrPartitionException", null);
        refused(ADMIN.deleteTopics(List.of(topic)).topicNameValues().get(topic), "UnknownTopicOrPartitionException", text);
    }

    static void createPartitions(String topic) throws Exception {
        create(topic, 1, Map.of());
        produce(numbers(topic, 0, 10), Map.of());
        increase(topic, 4).get();
        Talk.eventually(() -> {
            Talk.same(describe(topic).partitions().size(), 4);
            return null;
        });
        produce(List.of(new ProducerRecord<>(topic, 3, null, bytes("new"))), Map.of());
        Talk.same(texts(consume(topic, 3, 0, 1, Map.of())), List.of("new"));
        Talk.same(texts(consume(topic, 0, 0, 10, Map.of())), texts(0, 10));
        refused(increase(topic, 2), "InvalidPartitionsException",
            "The topic " + topic + " currently has 4 partition(s); 2 would not be an increase.");
        refused(increase(topic, 4), "InvalidPartitionsException", "Topic already has 4 partition(s).");
    }

    static void deleteTopic(String topic) throws Exception {
        create(topic, 1, Map.of());
        produce(numbers(topic, 0, 10), Map.of());
        Uuid old = describe(topic).topicId();
        ADMIN.deleteTopics(List.of(topic)).all().get();
        Talk.eventually(() -> {
            Talk.same(ADMIN.listTopics().names().get().contains(topic), false);
            return null;
        });
        create(topic, 1, Map.of());
        Talk.same(describe(topic).topicId().equals(old), false);
        Talk.same(produce(List.of(record(topic, "anew")), Map.of()), List.of(0L));
        Talk.same(texts(consume(topic, 0, 0, 1, Map.of())), List.of("anew"));
    }

    static void autoCreate(String topic) throws Exception {
        Talk.same(produce(numbers(topic, 0, 3), Map.of()), List.of(0L, 1L, 2L));
        Talk.same(texts(consume(topic, 0, 0, 3, Map.of())), texts(0, 3));
    }

    static void manyPartitions(String topic) throws Exception {
        create(topic, 50, Map.of());
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < 20; number++) {
            for (int partition = 0; partition < 50; partition++) {
                records.add(new ProducerRecord<>(topic, partition, null, bytes(partition + "-" + number)));
            }
        }
        produce(records, Map.of());
        try (var consumer = consumer(Map.of())) {
            consumer.assign(IntStream.range(0, 50).mapToObj(partition -> new TopicPartition(topic, partition)).toList());
            consumer.seekToBeginning(consumer.assignment());
            Map<Integer, List<String>> seen = poll(consumer, 1000).stream().collect(
                Collectors.groupingBy(ConsumerRecord::partition, Collectors.mapping(record -> text(record.value()), Collectors.toList())));
            for (int partition = 0; partition < 50; partition++) {
                int index = partition;
                Talk.same(seen.get(partition), IntStream.range(0, 20).mapToObj(number -> index + "-" + number).toList());
            }
        }
    }

    // Configs

    static void topicConfig(String topic) throws Exception {
        create(topic, 1, Map.of());
        shows(Type.TOPIC, topic, "max.message.bytes", "1048588", ConfigSource.DEFAULT_CONFIG);
        alter(Type.TOPIC, topic, op("max.message.bytes", "2000000", OpType.SET), op("cleanup.policy", "compact", OpType.APPEND)).get();
        shows(Type.TOPIC, topic, "max.message.bytes", "2000000", ConfigSource.DYNAMIC_TOPIC_CONFIG);
        shows(Type.TOPIC, topic, "cleanup.policy", "delete,compact", ConfigSource.DYNAMIC_TOPIC_CONFIG);
        alter(Type.TOPIC, topic, op("max.message.bytes", null, OpType.DELETE), op("cleanup.policy", "delete", OpType.SUBTRACT)).get();
        shows(Type.TOPIC, topic, "max.message.bytes", "1048588", ConfigSource.DEFAULT_CONFIG);
        shows(Type.TOPIC, topic, "cleanup.policy", "compact", ConfigSource.DYNAMIC_TOPIC_CONFIG);
    }

    static void topicConfigRefused(String topic) throws Exception {
        create(topic, 1, Map.of());
        refused(alter(Type.TOPIC, topic, op("no.such.key", "1", OpType.SET)), "InvalidConfigurationException",
            "Unknown topic config name: no.such.key");
        refused(alter(Type.TOPIC, topic, op("retention.ms", "soon", OpType.SET)), "InvalidConfigurationException",
            "Invalid value soon for configuration retention.ms: Not a number of type LONG");
        refused(alter(Type.TOPIC, "not-there", op("retention.ms", "1", OpType.SET)), "UnknownTopicOrPartitionException",
            "The topic 'not-there' does not exist.");
        shows(Type.TOPIC, topic, "retention.ms", "604800000", ConfigSource.DEFAULT_CONFIG);
    }

    static void brokerConfig(String topic) throws Exception {
        create(topic, 1, Map.of());
        shows(Type.BROKER, "1", "message.max.bytes", "1048588", ConfigSource.DEFAULT_CONFIG);
        alter(Type.BROKER, "", op("message.max.bytes", "2000000", OpType.SET)).get();
        shows(Type.BROKER, "1", "message.max.bytes", "2000000", ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG);
        alter(Type.BROKER, "1", op("message.max.bytes", "3000000", OpType.SET)).get();
        shows(Type.BROKER, "1", "message.max.bytes", "3000000", ConfigSource.DYNAMIC_BROKER_CONFIG);
        shows(Type.TOPIC, topic, "max.message.bytes", "3000000", ConfigSource.DYNAMIC_BROKER_CONFIG);
        produce(List.of(record(topic, new byte[2_500_000])), Map.of("max.request.size", 10_000_000));
        alter(Type.BROKER, "1", op("message.max.bytes", null, OpType.DELETE)).get();
        shows(Type.BROKER, "1", "message.max.bytes", "2000000", ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG);
        alter(Type.BROKER, "", op("message.max.bytes", null, OpType.DELETE)).get();
        shows(Type.BROKER, "1", "message.max.bytes", "1048588", ConfigSource.DEFAULT_CONFIG);
        refused(alter(Type.BROKER, "1", op("log.dirs", "/x", OpType.SET)), "InvalidRequestException",
            "Cannot update these configs dynamically: [log.dirs]");
    }

    static void listConfigResources(String topic) throws Exception {
        create(topic, 1, Map.of());
        Collection<ConfigResource> seen = ADMIN.listConfigResources(Set.of(Type.TOPIC, Type.BROKER),
            new org.apache.kafka.clients.admin.ListConfigResourcesOptions()).all().get();
        Talk.same(seen.contains(new ConfigResource(Type.TOPIC, topic)), true);
        Talk.same(seen.contains(new ConfigResource(Type.BROKER, "1")), true);
    }

    // Records

    static void roundTrip(String topic, Map<String, Object> config) throws Exception {
        create(topic, 1, Map.of());
        Talk.same(produce(numbers(topic, 0, 1000), config), IntStream.range(0, 1000).mapToObj(Long::valueOf).toList());
        Talk.same(texts(consume(topic, 0, 0, 1000, Map.of())), texts(0, 1000));
    }

    static void acks0(String topic) throws Exception {
        create(topic, 1, Map.of());
        produce(numbers(topic, 0, 1000), Map.of("acks", "0", "enable.idempotence", false));
        Talk.same(texts(consume(topic, 0, 0, 1000, Map.of())), texts(0, 1000));
    }

    static void codecOfTopic(String topic) throws Exception {
        create(topic, 1, Map.of("compression.type", "zstd"));
        produce(numbers(topic, 0, 1000), Map.of("compression.type", "gzip"));
        Talk.same(texts(consume(topic, 0, 0, 1000, Map.of())), texts(0, 1000));
    }

    static void keysHeaders(String topic) throws Exception {
        create(topic, 1, Map.of());
        List<Header> headers = List.of(new RecordHeader("a", bytes("1")), new RecordHeader("b", bytes("")),
            new RecordHeader("c", (byte[]) null), new RecordHeader("a", bytes("2")));
        produce(List.of(
            new ProducerRecord<>(topic, 0, 1_600_000_000_123L, bytes("k"), bytes("v"), headers),
            new ProducerRecord<>(topic, 0, bytes(""), bytes("")),
            record(topic, "no key")), Map.of());
        var seen = consume(topic, 0, 0, 3, Map.of());
        Talk.same(List.of(text(seen.get(0).key()), text(seen.get(0).value())), List.of("k", "v"));
        Talk.same(Arrays.asList(seen.get(0).headers().toArray()), headers);
        Talk.same(seen.get(0).timestamp(), 1_600_000_000_123L);
        Talk.same(seen.get(0).timestampType(), TimestampType.CREATE_TIME);
        Talk.same(List.of(text(seen.get(1).key()), text(seen.get(1).value())), List.of("", ""));
        Talk.same(seen.get(2).key(), null);
    }

    static void tombstone(String topic) throws Exception {
        create(topic, 1, Map.of());
        produce(List.of(new ProducerRecord<>(topic, bytes("gone"), null), new ProducerRecord<>(topic, bytes("empty"), bytes(""))),
            Map.of());
        var seen = consume(topic, 0, 0, 2, Map.of());
        Talk.same(seen.get(0).value(), null);
        Talk.same(text(seen.get(1).value()), "");
    }

    static void logAppendTime(String topic) throws Exception {
        create(topic, 1, Map.of("message.timestamp.type", "LogAppendTime"));
        long before = System.currentTimeMillis();
        produce(List.of(new ProducerRecord<>(topic, 0, 1_600_000_000_123L, null, bytes("v"))), Map.of());
        var seen = consume(topic, 0, 0, 1, Map.of()).get(0);
        Talk.same(seen.timestampType(), TimestampType.LOG_APPEND_TIME);
        Talk.same(before <= seen.timestamp() && seen.timestamp() <= System.currentTimeMillis(), true);
    }

    static void bigMessage(String topic) throws Exception {
        create(topic, 1, Map.of());
        byte[] value = random(900_000);
        produce(List.of(record(topic, value)), Map.of());
        Talk.same(Arrays.equals(consume(topic, 0, 0, 1, Map.of()).get(0).value(), value), true);
    }

    static void tooLarge(String topic) throws Exception {
        create(topic, 1, Map.of());
        byte[] value = random(1_500_000);
        Map<String, Object> large = Map.of("max.request.size", 10_000_000);
        try (var producer = producer(large)) {
            refused(producer.send(record(topic, value)), "RecordTooLargeException",
                "The request included a message larger than the max message size the server will accept.");
        }
        alter(Type.TOPIC, topic, op("max.message.bytes", "2000000", OpType.SET)).get();
        Talk.same(Talk.eventually(() -> produce(List.of(record(topic, value)), large)), List.of(0L));
        Talk.same(Arrays.equals(consume(topic, 0, 0, 1, Map.of()).get(0).value(), value), true);
    }

    // Reading

    static void consumeMiddle(String topic) throws Exception {
        create(topic, 1, Map.of());
        produce(numbers(topic, 0, 100), Map.of("linger.ms", 100));
        Talk.same(texts(consume(topic, 0, 37, 100, Map.of())), texts(37, 100));
        Talk.same(texts(consume(topic, 0, 98, 100, Map.of())), texts(98, 100));
    }

    static void longPoll(String topic) throws Exception {
        create(topic, 1, Map.of());
        try (var consumer = consumer(Map.of("fetch.max.wait.ms", 5_000))) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            consumer.seekToBeginning(consumer.assignment());
            Talk.same(texts(poll(consumer, 1, 1_000)), List.of()); // its fetch is at the broker now, and stays there
            produce(List.of(record(topic, "late")), Map.of());
            Talk.same(texts(poll(consumer, 1, 2_000)), List.of("late"));
        }
    }

    static void offsetOutOfRange(String topic) throws Exception {
        create(topic, 1, Map.of());
        produce(numbers(topic, 0, 10), Map.of());
        try {
            consume(topic, 0, 1000, 1001, Map.of("auto.offset.reset", "none"));
            throw new AssertionError("read");
        } catch (OffsetOutOfRangeException refusal) {
            Talk.same(refusal.offsetOutOfRangePartitions(), Map.of(new TopicPartition(topic, 0), 1000L));
        }
        try (var consumer = consumer(Map.of("auto.offset.reset", "earliest"))) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            consumer.seek(new TopicPartition(topic, 0), 1000);
            Talk.same(texts(poll(consumer, 10)), texts(0, 10));
        }
    }

    static void offsetsByTime(String topic) throws Exception {
        create(topic, 1, Map.of());
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (long time : new long[] {2_000, 1_000, 5_000, 3_000, 5_000, 4_000}) {
            records.add(new ProducerRecord<>(topic, 0, 1_600_000_000_000L + time, null, bytes("v")));
        }
        produce(records, Map.of());
        Talk.same(listed(topic, OffsetSpec.forTimestamp(1_600_000_000_000L)), "0 1600000002000");
        Talk.same(listed(topic, OffsetSpec.forTimestamp(1_600_000_002_001L)), "2 1600000005000");
        Talk.same(listed(topic, OffsetSpec.forTimestamp(1_600_000_005_000L)), "2 1600000005000");
        Talk.same(listed(topic, OffsetSpec.forTimestamp(1_600_000_005_001L)), "-1 -1");
        Talk.same(listed(topic, OffsetSpec.earliest()), "0 -1");
        Talk.same(listed(topic, OffsetSpec.earliestLocal()), "0 -1");
        Talk.same(listed(topic, OffsetSpec.latest()), "6 -1");
        Talk.same(listed(topic, OffsetSpec.maxTimestamp()), "2 1600000005000");
        Talk.same(listed(topic, OffsetSpec.latestTiered()), "-1 -1");
    }

    static void readCommitted(String topic) throws Exception {
        create(topic, 1, Map.of());
        produce(numbers(topic, 0, 100), Map.of());
        Map<String, Object> committed = Map.of("isolation.level", "read_committed");
        Talk.same(texts(consume(topic, 0, 0, 100, committed)), texts(0, 100));
        try (var consumer = consumer(committed)) {
            Talk.same(consumer.endOffsets(List.of(new TopicPartition(topic, 0))).values().iterator().next(), 100L);
        }
    }

    static void deleteRecords(String topic) throws Exception {
        create(topic, 1, Map.of());
        produce(numbers(topic, 0, 100), Map.of());
        Talk.same(deleteBefore(topic, 40).get().lowWatermark(), 40L);
        Talk.same(listed(topic, OffsetSpec.earliest()), "40 -1");
        try (var consumer = consumer(Map.of())) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            consumer.seekToBeginning(consumer.assignment());
            Talk.same(texts(poll(consumer, 60)), texts(40, 100));
        }
        try {
            consume(topic, 0, 10, 100, Map.of("auto.offset.reset", "none"));
            throw new AssertionError("read");
        } catch (OffsetOutOfRangeException refusal) {
            Talk.same(refusal.offsetOutOfRangePartitions(), Map.of(new TopicPartition(topic, 0), 10L));
        }
        refused(deleteBefore(topic, 101), "OffsetOutOfRangeException",
            "The requested offset is not within the range of offsets maintained by the server.");
        Talk.same(deleteBefore(topic, -1).get().lowWatermark(), 100L);
        Talk.same(listed(topic, OffsetSpec.earliest()), "100 -1");
    }

    // Operations

    static void logDirs(String topic) throws Exception {
        create(topic, 1, Map.of());
        produce(List.of(record(topic, new byte[10_000])), Map.of());
        Map<String, LogDirDescription> seen = ADMIN.describeLogDirs(List.of(1)).allDescriptions().get().get(1);
        Talk.same(seen.keySet(), Set.of(new File(System.getenv("DATA")).getAbsolutePath()));
        LogDirDescription directory = seen.values().iterator().next();
        Talk.same(directory.error(), null);
        Talk.same(0 < directory.totalBytes().getAsLong(), true);
        Talk.same(0 < directory.usableBytes().getAsLong(), true);
        var replica = directory.replicaInfos().get(new TopicPartition(topic, 0));
        Talk.same(10_000 < replica.size() && replica.size() < 11_000, true);
        Talk.same(replica.offsetLag(), 0L);
        Talk.same(replica.isFuture(), false);
    }

    static void producers(String topic) throws Exception {
        create(topic, 1, Map.of());
        produce(numbers(topic, 0, 1000), Map.of("enable.idempotence", true));
        TopicPartition partition = new TopicPartition(topic, 0);
        List<ProducerState> seen = ADMIN.describeProducers(List.of(partition)).partitionResult(partition).get().activeProducers();
        Talk.same(seen.size(), 1);
        Talk.same(seen.get(0).lastSequence(), 999);
        Talk.same(seen.get(0).producerEpoch(), 0);
        Talk.same(seen.get(0).currentTransactionStartOffset().isPresent(), false);
        Talk.same(seen.get(0).coordinatorEpoch().isPresent(), false);
    }

    static void electLeaders(String topic) throws Exception {
        create(topic, 1, Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        Optional<Throwable> seen = ADMIN.electLeaders(ElectionType.PREFERRED, Set.of(partition)).partitions().get().get(partition);
        Talk.same(seen.map(failure -> failure.getClass().getSimpleName() + ": " + failure.getMessage()).orElse("elected"),
            "ElectionNotNeededException: Leader election not needed for topic partition.");
    }

    static void reassignments(String topic) throws Exception {
        Talk.same(ADMIN.listPartitionReassignments().reassignments().get(), Map.of());
    }

    // Restarts

    static void survives(String topic, String how) throws Exception {
        create(topic, 2, Map.of("retention.ms", "86400000"));
        Uuid id = describe(topic).topicId();
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (String text : texts(0, 100)) {
            records.add(new ProducerRecord<>(topic, 1, bytes("k"), bytes(text)));
        }
        produce(records, Map.of());
        Talk.broker(how);
        Talk.same(texts(consume(topic, 1, 0, 100, Map.of())), texts(0, 100));
        Talk.same(describe(topic).topicId(), id);
        shows(Type.TOPIC, topic, "retention.ms", "86400000", ConfigSource.DYNAMIC_TOPIC_CONFIG);
        Talk.same(produce(List.of(new ProducerRecord<>(topic, 1, null, bytes("more"))), Map.of()), List.of(100L));
    }

    /** A producer at its defaults, which are idempotent, goes on through twenty kills of the broker. */
    static void idempotentKills(String topic) throws Exception {
        create(topic, 1, Map.of());
        var acknowledged = new ConcurrentLinkedQueue<Integer>();
        var failed = new ConcurrentLinkedQueue<Exception>();
        var stop = new AtomicBoolean();
        Thread thread = new Thread(() -> {
            try (var producer = producer(Map.of("max.block.ms", 120_000))) {
                for (int number = 0; !stop.get(); number++) {
                    int sent = number;
                    producer.send(record(topic, ByteBuffer.allocate(4).putInt(number).array()), (metadata, failure) -> {
                        if (failure == null) {
                            acknowledged.add(sent);
                        } else {
                            failed.add(failure);
                        }
                    });
                    if (number % 100 == 0) {
                        Thread.sleep(10);
                    }
                }
            } catch (Exception failure) {
                failed.add(failure);
            }
        });
        thread.start();
        for (int kill = 0; kill < 20; kill++) {
            int wanted = acknowledged.size() + 2_000;
            while (acknowledged.size() < wanted && failed.isEmpty()) {
                Thread.sleep(10);
            }
            Talk.broker("kill");
        }
        stop.set(true);
        thread.join();
        int end = (int) Talk.eventually(() -> ADMIN.listOffsets(Map.of(new TopicPartition(topic, 0), OffsetSpec.latest()))
            .partitionResult(new TopicPartition(topic, 0)).get().offset()).longValue();
        List<Integer> stored = consume(topic, 0, 0, end, Map.of()).stream().map(seen -> ByteBuffer.wrap(seen.value()).getInt()).toList();
        Set<Integer> once = new HashSet<>(stored);
        long lost = acknowledged.stream().filter(number -> !once.contains(number)).count();
        long disordered = IntStream.range(1, stored.size()).filter(at -> stored.get(at) < stored.get(at - 1)).count();
        String counts = acknowledged.size() + " acknowledged, " + failed.size() + " failed, " + lost + " lost, "
            + (stored.size() - once.size()) + " twice, " + disordered + " out of order";
        System.err.println(counts);
        if (lost + stored.size() - once.size() + disordered + failed.size() != 0) {
            throw new AssertionError(counts + " " + failed.stream().limit(1).toList());
        }
    }

    // What the scenarios are written in

    static KafkaFuture<Void> create(NewTopic topic) {
        return ADMIN.createTopics(List.of(topic)).values().get(topic.name());
    }

    static void create(String topic, int partitions, Map<String, String> configs) throws Exception {
        create(new NewTopic(topic, partitions, (short) 1).configs(configs)).get();
        Talk.eventually(() -> describe(topic));
    }

    static TopicDescription describe(String topic) throws Exception {
        return ADMIN.describeTopics(List.of(topic)).topicNameValues().get(topic).get();
    }

    static KafkaFuture<Void> increase(String topic, int partitions) {
        return ADMIN.createPartitions(Map.of(topic, NewPartitions.increaseTo(partitions))).values().get(topic);
    }

    static KafkaFuture<org.apache.kafka.clients.admin.DeletedRecords> deleteBefore(String topic, long offset) {
        TopicPartition partition = new TopicPartition(topic, 0);
        return ADMIN.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(offset))).lowWatermarks().get(partition);
    }

    /** "offset timestamp" */
    static String listed(String topic, OffsetSpec spec) throws Exception {
        TopicPartition partition = new TopicPartition(topic, 0);
        var seen = ADMIN.listOffsets(Map.of(partition, spec)).partitionResult(partition).get();
        return seen.offset() + " " + seen.timestamp();
    }

    static Config config(Type type, String name) throws Exception {
        ConfigResource resource = new ConfigResource(type, name);
        return ADMIN.describeConfigs(List.of(resource)).values().get(resource).get();
    }

    static void shows(Type type, String name, String key, String value, ConfigSource source) throws Exception {
        Talk.eventually(() -> {
            ConfigEntry seen = config(type, name).get(key);
            Talk.same(seen.value() + " " + seen.source(), value + " " + source);
            return null;
        });
    }

    static AlterConfigOp op(String key, String value, OpType type) {
        return new AlterConfigOp(new ConfigEntry(key, value), type);
    }

    static KafkaFuture<Void> alter(Type type, String name, AlterConfigOp... ops) {
        ConfigResource resource = new ConfigResource(type, name);
        return ADMIN.incrementalAlterConfigs(Map.of(resource, List.of(ops))).values().get(resource);
    }

    static void refused(Future<?> future, String error, String text) throws Exception {
        try {
            future.get();
        } catch (ExecutionException failure) {
            Throwable cause = failure.getCause();
            Talk.same(cause.getClass().getSimpleName(), error);
            if (text != null) {
                Talk.same(cause.getMessage(), text);
            }
            return;
        }
        throw new AssertionError("not refused; wanted " + error);
    }

    static KafkaProducer<byte[], byte[]> producer(Map<String, Object> config) {
        Map<String, Object> whole = new HashMap<>(config);
        whole.put("bootstrap.servers", Talk.BOOTSTRAP);
        return new KafkaProducer<>(whole, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(Map<String, Object> config) {
        // Closing waits for the fetch under way: a short one, since many consumers are opened here.
        Map<String, Object> whole = new HashMap<>(Map.of("bootstrap.servers", Talk.BOOTSTRAP, "fetch.max.wait.ms", 20));
        whole.putAll(config);
        return new KafkaConsumer<>(whole, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** The offsets, in the records' order. */
    static List<Long> produce(List<ProducerRecord<byte[], byte[]>> records, Map<String, Object> config) throws Exception {
        try (var producer = producer(config)) {
            List<Future<RecordMetadata>> sent = records.stream().map(producer::send).collect(Collectors.toList());
            List<Long> offsets = new ArrayList<>();
            for (Future<RecordMetadata> answer : sent) {
                offsets.add(answer.get().offset());
            }
            return offsets;
        }
    }

    static List<ConsumerRecord<byte[], byte[]>> consume(String topic, int partition, long start, long end, Map<String, Object> config) {
        try (var consumer = consumer(config)) {
            consumer.assign(List.of(new TopicPartition(topic, partition)));
            consumer.seek(new TopicPartition(topic, partition), start);
            return poll(consumer, (int) (end - start));
        }
    }

    static List<ConsumerRecord<byte[], byte[]>> poll(KafkaConsumer<byte[], byte[]> consumer, int count) {
        return poll(consumer, count, 40_000);
    }

    /** What has come when there are `count` records, or the time is over. */
    static List<ConsumerRecord<byte[], byte[]>> poll(KafkaConsumer<byte[], byte[]> consumer, int count, long millis) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        long deadline = System.nanoTime() + millis * 1_000_000;
        while (records.size() < count && System.nanoTime() < deadline) {
            consumer.poll(Duration.ofMillis(100)).forEach(records::add);
        }
        return records;
    }

    static ProducerRecord<byte[], byte[]> record(String topic, String value) {
        return record(topic, bytes(value));
    }

    static ProducerRecord<byte[], byte[]> record(String topic, byte[] value) {
        return new ProducerRecord<>(topic, 0, null, value);
    }

    static List<ProducerRecord<byte[], byte[]>> numbers(String topic, int first, int last) {
        return texts(first, last).stream().map(text -> record(topic, text)).toList();
    }

    static List<String> texts(int first, int last) {
        return IntStream.range(first, last).mapToObj(number -> String.format("value-%06d", number)).toList();
    }

    static List<String> texts(List<ConsumerRecord<byte[], byte[]>> records) {
        return records.stream().map(record -> text(record.value())).toList();
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    static byte[] random(int size) {
        byte[] bytes = new byte[size];
        new Random(1).nextBytes(bytes);
        return bytes;
    }
}
