import static java.util.Map.entry;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.OffsetMetadataTooLarge;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.errors.TimeoutException;

/** The scenarios with groups, and the one with compaction. A group has its topic's name. */
final class Groups {
    static final Map<String, Talk.Scenario> SCENARIOS = Map.ofEntries(
        entry("group-consume", Groups::consume),
        entry("group-two-members", topic -> share(topic, classic(RangeAssignor.class))),
        entry("group-cooperative", Groups::cooperative),
        entry("group-static", Groups::staticMembers),
        entry("group-consumer-protocol", Groups::consumerProtocol),
        entry("group-migrate", Groups::migrate),
        entry("group-member-killed", Groups::memberKilled),
        entry("group-reset", Groups::reset),
        entry("group-kill-9", Groups::kills),
        entry("offsets", Groups::offsets),
        entry("groups-admin", Groups::admin),
        entry("compacted-topic", Groups::compacted));

    private static final Admin ADMIN = Admin.create(Map.of("bootstrap.servers", Talk.BOOTSTRAP));
    private static final Map<String, Object> NEW = Map.of("group.protocol", "consumer");

    private Groups() {}

    /** A consumer in a group, with all that came to it and all that was taken from it. */
    private static final class Member implements ConsumerRebalanceListener, AutoCloseable {
        final KafkaConsumer<byte[], byte[]> consumer;
        final List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        final List<List<TopicPartition>> given = new ArrayList<>();
        final List<List<TopicPartition>> taken = new ArrayList<>();

        Member(String group, Map<String, Object> config) {
            Map<String, Object> whole = new HashMap<>(Map.of("group.id", group, "auto.offset.reset", "earliest",
                "enable.auto.commit", false, "metadata.max.age.ms", 500));
            whole.putAll(config);
            consumer = Scenarios.consumer(whole);
        }

        Member join(String topic) {
            consumer.subscribe(List.of(topic), this);
            return this;
        }

        void poll() {
            consumer.poll(Duration.ofMillis(50)).forEach(records::add);
        }

        List<String> has() {
            return consumer.assignment().stream().map(TopicPartition::toString).sorted().toList();
        }

        @Override public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            given.add(List.copyOf(partitions));
        }

        @Override public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            taken.add(List.copyOf(partitions));
        }

        @Override public void close() {
            consumer.close();
        }
    }

    private static Map<String, Object> classic(Class<?> assignor) {
        return Map.of("partition.assignment.strategy", assignor.getName());
    }

    private static Map<String, Object> with(Map<String, Object> config, String key, Object value) {
        Map<String, Object> whole = new HashMap<>(config);
        whole.put(key, value);
        return whole;
    }

    /** Let the members poll in turn until what is wanted holds, as a consumer must to keep its place. */
    private static void together(List<Member> members, Callable<Boolean> wanted) throws Exception {
        Talk.eventually(() -> {
            members.forEach(Member::poll);
            Talk.same(wanted.call(), true);
            return null;
        });
    }

    private static List<String> all(String topic) {
        return IntStream.range(0, 4).mapToObj(partition -> topic + "-" + partition).toList();
    }

    private static boolean bothHaveTwo(String topic, Member a, Member b) {
        return a.has().size() == 2 && Stream.concat(a.has().stream(), b.has().stream()).sorted().toList().equals(all(topic));
    }

    /** Records into each of four partitions, numbered from `first` to before `last`; their values. */
    private static List<String> spread(String topic, int first, int last) throws Exception {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int partition = 0; partition < 4; partition++) {
            for (int number = first; number < last; number++) {
                records.add(new ProducerRecord<>(topic, partition, null, Scenarios.bytes(partition + "-" + number)));
            }
        }
        Scenarios.produce(records, Map.of());
        return records.stream().map(record -> Scenarios.text(record.value())).sorted().toList();
    }

    private static List<String> sorted(Member... members) {
        return Stream.of(members).flatMap(member -> Scenarios.texts(member.records).stream()).sorted().toList();
    }

    private static void consume(String topic) throws Exception {
        Scenarios.create(topic, 1, Map.of());
        Scenarios.produce(Scenarios.numbers(topic, 0, 100), Map.of());
        try (Member first = new Member(topic, Map.of()).join(topic)) {
            together(List.of(first), () -> first.records.size() == 100);
            Talk.same(Scenarios.texts(first.records), Scenarios.texts(0, 100));
            first.consumer.commitSync();
        }
        Talk.broker("restart");
        Scenarios.produce(Scenarios.numbers(topic, 100, 150), Map.of());
        try (Member second = new Member(topic, Map.of()).join(topic)) {
            together(List.of(second), () -> 50 <= second.records.size());
            Talk.same(Scenarios.texts(second.records), Scenarios.texts(100, 150));
        }
    }

    /** Two members with two partitions each; every record once; what one leaves the other gets. */
    private static void share(String topic, Map<String, Object> config) throws Exception {
        Scenarios.create(topic, 4, Map.of());
        try (Member a = new Member(topic, config).join(topic)) {
            try (Member b = new Member(topic, config).join(topic)) {
                together(List.of(a, b), () -> bothHaveTwo(topic, a, b));
                List<String> sent = spread(topic, 0, 25);
                together(List.of(a, b), () -> sent.size() <= a.records.size() + b.records.size());
                Talk.same(sorted(a, b), sent);
                Talk.same(a.records.size(), 50);
                a.consumer.commitSync();
                b.consumer.commitSync();
            }
            together(List.of(a), () -> a.has().equals(all(topic)));
            a.records.clear();
            List<String> more = spread(topic, 25, 30);
            together(List.of(a), () -> more.size() <= a.records.size());
            Talk.same(sorted(a), more);
        }
    }

    private static void cooperative(String topic) throws Exception {
        Scenarios.create(topic, 4, Map.of());
        try (Member a = new Member(topic, classic(CooperativeStickyAssignor.class)).join(topic)) {
            together(List.of(a), () -> a.has().equals(all(topic)));
            try (Member b = new Member(topic, classic(CooperativeStickyAssignor.class)).join(topic)) {
                together(List.of(a, b), () -> bothHaveTwo(topic, a, b));
                // What stays is not revoked.
                Talk.same(a.taken.stream().map(taken -> taken.stream().map(TopicPartition::toString).sorted().toList()).toList(),
                    List.of(b.has()));
            }
            together(List.of(a), () -> a.has().equals(all(topic)));
            Talk.same(a.taken.size(), 1);
        }
    }

    private static void staticMembers(String topic) throws Exception {
        Scenarios.create(topic, 4, Map.of());
        Map<String, Object> config = with(classic(RangeAssignor.class), "session.timeout.ms", 30_000);
        try (Member a = new Member(topic, with(config, "group.instance.id", "a")).join(topic)) {
            List<String> before;
            int generation;
            try (Member b = new Member(topic, with(config, "group.instance.id", "b")).join(topic)) {
                together(List.of(a, b), () -> bothHaveTwo(topic, a, b));
                Talk.same(describe(topic).members().stream().map(member -> member.groupInstanceId().orElse("")).sorted().toList(),
                    List.of("a", "b"));
                before = b.has();
                generation = b.consumer.groupMetadata().generationId();
            }
            // A static member says nothing when it goes.
            int rebalances = a.given.size() + a.taken.size();
            try (Member b = new Member(topic, with(config, "group.instance.id", "b")).join(topic)) {
                together(List.of(a, b), () -> b.has().equals(before));
                Talk.same(b.consumer.groupMetadata().generationId(), generation);
                List<String> sent = spread(topic, 0, 5);
                together(List.of(a, b), () -> a.records.size() + b.records.size() == sent.size());
                Talk.same(a.given.size() + a.taken.size(), rebalances);
            }
        }
    }

    private static void consumerProtocol(String topic) throws Exception {
        share(topic, with(NEW, "group.remote.assignor", "range"));
        Scenarios.create(topic + ".1", 2, Map.of());
        try (Member regex = new Member(topic + "-regex", NEW)) {
            regex.consumer.subscribe(new SubscriptionPattern(topic + "[.][0-9]+"), regex);
            together(List.of(regex), () -> regex.has().equals(List.of(topic + ".1-0", topic + ".1-1")));
            Scenarios.create(topic + ".2", 1, Map.of());
            together(List.of(regex), () -> regex.has().equals(List.of(topic + ".1-0", topic + ".1-1", topic + ".2-0")));
            ConsumerGroupDescription seen = describe(topic + "-regex");
            Talk.same(seen.groupState() + " " + seen.type() + " " + seen.partitionAssignor() + " " + seen.members().size(),
                "Stable Consumer uniform 1");
            Talk.same(seen.groupEpoch().equals(seen.targetAssignmentEpoch()), true);
        }
    }

    private static void migrate(String topic) throws Exception {
        Scenarios.create(topic, 4, Map.of());
        try (Member a = new Member(topic, classic(RangeAssignor.class)).join(topic)) {
            together(List.of(a), () -> a.has().equals(all(topic)));
            Talk.same(describe(topic).type(), GroupType.CLASSIC);
            try (Member b = new Member(topic, NEW).join(topic)) {
                together(List.of(a, b), () -> bothHaveTwo(topic, a, b));
                Talk.same(describe(topic).type(), GroupType.CONSUMER);
                // Of a group of type consumer, which member has upgraded.
                Talk.same(describe(topic).members().stream().map(member -> member.upgraded().orElse(null)).sorted().toList(),
                    List.of(false, true));
                List<String> sent = spread(topic, 0, 25);
                together(List.of(a, b), () -> sent.size() <= a.records.size() + b.records.size());
                Talk.same(sorted(a, b), sent);
                a.consumer.commitSync();
                b.consumer.commitSync();
            }
            together(List.of(a), () -> a.has().equals(all(topic)));
            Talk.same(describe(topic).type(), GroupType.CLASSIC);
        }
    }

    private static final Map<String, Object> KILLED = Map.of("session.timeout.ms", 6_000, "heartbeat.interval.ms", 500,
        "partition.assignment.strategy", RangeAssignor.class.getName());

    /** A member in a process of its own, which commits what it reads, until it is killed. */
    public static void main(String[] arguments) {
        try (Member member = new Member(arguments[0], arguments[1].equals("classic") ? KILLED : NEW).join(arguments[0])) {
            while (true) {
                member.poll();
                member.consumer.commitSync();
            }
        }
    }

    private static void memberKilled(String topic) throws Exception {
        takesOver(topic, "classic", KILLED);
        takesOver(topic + "-consumer", "consumer", NEW);
    }

    /** A member is killed and says nothing: in time the other has its partitions, from what was committed. */
    private static void takesOver(String topic, String protocol, Map<String, Object> config) throws Exception {
        Scenarios.create(topic, 4, Map.of());
        try (Member a = new Member(topic, config).join(topic)) {
            together(List.of(a), () -> a.has().equals(all(topic)));
            Process b = new ProcessBuilder(System.getProperty("java.home") + "/bin/java", "-Xmx64m", "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1", "-cp", System.getProperty("java.class.path"), "Groups", topic, protocol)
                .redirectOutput(ProcessBuilder.Redirect.DISCARD).redirectError(ProcessBuilder.Redirect.INHERIT).start();
            try {
                together(List.of(a), () -> a.has().size() == 2);
                spread(topic, 0, 5);
                // What b has committed.
                together(List.of(a), () -> a.records.size() == 10
                    && stored(topic).values().stream().mapToLong(Long::longValue).sum() == 10);
                a.consumer.commitSync();
            } finally {
                b.destroyForcibly().waitFor();
            }
            together(List.of(a), () -> a.has().equals(all(topic)));
            a.records.clear();
            List<String> more = spread(topic, 5, 8);
            together(List.of(a), () -> more.size() <= a.records.size());
            Talk.same(sorted(a), more);
        }
    }

    private static void reset(String topic) throws Exception {
        Scenarios.create(topic, 1, Map.of());
        Scenarios.produce(Scenarios.numbers(topic, 0, 100), Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        Talk.same(begins(topic, topic + "-earliest", Map.of()), 0L);
        try (Member latest = new Member(topic + "-latest", Map.of("auto.offset.reset", "latest")).join(topic)) {
            together(List.of(latest), () -> latest.has().size() == 1);
            Talk.same(latest.consumer.position(partition), 100L);
        }
        Talk.same(begins(topic, topic + "-duration", Map.of("auto.offset.reset", "by_duration:PT1H")), 0L);
        thrown(NoOffsetForPartitionException.class, () -> begins(topic, topic + "-none", Map.of("auto.offset.reset", "none")));
        ADMIN.alterConsumerGroupOffsets(topic + "-before", Map.of(partition, new OffsetAndMetadata(10))).all().get();
        ADMIN.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(40))).all().get();
        Talk.same(begins(topic, topic + "-before", Map.of()), 40L);
    }

    /** The offset of the first record that the group's only member reads. */
    private static long begins(String topic, String group, Map<String, Object> config) {
        try (Member member = new Member(group, config).join(topic)) {
            long deadline = System.nanoTime() + 60_000_000_000L;
            while (member.records.isEmpty()) {
                member.poll();
                Talk.same(System.nanoTime() < deadline, true);
            }
            return member.records.get(0).offset();
        }
    }

    private static void kills(String topic) throws Exception {
        Scenarios.create(topic, 1, Map.of());
        Scenarios.produce(Scenarios.numbers(topic, 0, 20_000), Map.of());
        throughKills(topic, topic + "-classic", Map.of());
        throughKills(topic, topic + "-consumer", NEW);
    }

    /** A member commits after every batch through a kill; another goes on from what is committed; three times. */
    private static void throughKills(String topic, String group, Map<String, Object> protocol) throws Exception {
        TopicPartition partition = new TopicPartition(topic, 0);
        long read = 0;
        long acknowledged = 0;
        for (int kill = 0; kill < 3; kill++) {
            try (Member member = new Member(group, with(protocol, "max.poll.records", 10)).join(topic)) {
                together(List.of(member), () -> !member.records.isEmpty());
                long next = member.records.get(0).offset();
                Talk.same(acknowledged <= next && next <= read, true);
                Thread killer = null;
                for (int batches = 0; killer == null || killer.isAlive() || batches < 3; member.poll()) {
                    if (!member.records.isEmpty()) {
                        long first = member.records.get(0).offset();
                        if (first < next) { // after the broker was away it may join anew, and reads again from what is committed
                            Talk.same(acknowledged <= first, true);
                            next = first;
                        }
                        Talk.same(member.records.stream().map(ConsumerRecord::offset).toList(),
                            LongStream.range(next, next + member.records.size()).boxed().toList());
                        next += member.records.size();
                        member.records.clear();
                        read = Math.max(read, next);
                        try {
                            member.consumer.commitSync();
                            acknowledged = next;
                            batches++;
                        } catch (RetriableException | CommitFailedException away) {
                            // The broker is, or was: what was not acknowledged may be there or not.
                        }
                    }
                    if (killer == null && batches == 20) {
                        killer = new Thread(() -> {
                            try {
                                Talk.broker("kill");
                            } catch (java.io.IOException ended) {
                                throw new java.io.UncheckedIOException(ended);
                            }
                        });
                        killer.start();
                        batches = 0;
                    }
                }
            }
        }
        long wanted = acknowledged;
        Talk.eventually(() -> {
            Talk.same(stored(group), Map.of(partition, wanted));
            return null;
        });
    }

    private static void offsets(String topic) throws Exception {
        Scenarios.create(topic, 2, Map.of());
        TopicPartition zero = new TopicPartition(topic, 0);
        TopicPartition one = new TopicPartition(topic, 1);
        try (var consumer = Scenarios.consumer(Map.of("group.id", topic, "enable.auto.commit", false))) {
            consumer.commitSync(Map.of(zero, new OffsetAndMetadata(42, "a note")));
            Map<TopicPartition, OffsetAndMetadata> seen = consumer.committed(Set.of(zero, one));
            Talk.same(seen.get(zero), new OffsetAndMetadata(42, "a note"));
            Talk.same(seen.get(one), null);
            // UNKNOWN_TOPIC_OR_PARTITION: it tries again until its time is over.
            thrown(TimeoutException.class, () -> consumer.commitSync(
                Map.of(new TopicPartition(topic, 7), new OffsetAndMetadata(1)), Duration.ofSeconds(1)));
            thrown(OffsetMetadataTooLarge.class, () -> consumer.commitSync(Map.of(zero, new OffsetAndMetadata(43, "x".repeat(4097)))));
            Talk.same(consumer.committed(Set.of(zero)).get(zero).offset(), 42L);
            consumer.commitSync(Map.of(zero, new OffsetAndMetadata(43, "x".repeat(4096))));
            Talk.same(consumer.committed(Set.of(zero)).get(zero).offset(), 43L);
        }
    }

    private static void thrown(Class<? extends Exception> wanted, Runnable attempt) {
        try {
            attempt.run();
        } catch (RuntimeException failure) {
            Talk.same(failure.getClass(), wanted);
            return;
        }
        throw new AssertionError("not refused; wanted " + wanted);
    }

    private static ConsumerGroupDescription describe(String group) throws Exception {
        return ADMIN.describeConsumerGroups(List.of(group)).describedGroups().get(group).get();
    }

    /** "state type" of a group in a list. */
    private static List<String> listed(String group, ListGroupsOptions options) throws Exception {
        return ADMIN.listGroups(options).all().get().stream().filter(listing -> listing.groupId().equals(group))
            .map((GroupListing listing) -> listing.groupState().get() + " " + listing.type().get() + " " + listing.protocol()).toList();
    }

    private static Map<TopicPartition, Long> stored(String group) throws Exception {
        Map<TopicPartition, Long> offsets = new HashMap<>();
        ADMIN.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get()
            .forEach((partition, offset) -> offsets.put(partition, offset.offset()));
        return offsets;
    }

    private static void admin(String topic) throws Exception {
        Scenarios.create(topic, 2, Map.of());
        Scenarios.produce(Scenarios.numbers(topic, 0, 10), Map.of());
        TopicPartition zero = new TopicPartition(topic, 0);
        TopicPartition one = new TopicPartition(topic, 1);
        var all = new ListGroupsOptions();
        Talk.same(listed(topic, all), List.of());
        Scenarios.refused(ADMIN.deleteConsumerGroups(List.of(topic)).all(), "GroupIdNotFoundException", null);
        Scenarios.refused(ADMIN.describeConsumerGroups(List.of(topic)).all(), "GroupIdNotFoundException",
            "Group groups-admin not found.");
        try (Member member = new Member(topic, with(classic(RangeAssignor.class), "client.id", "a client")).join(topic)) {
            together(List.of(member), () -> member.records.size() == 10);
            member.consumer.commitSync();
            Talk.same(listed(topic, all), List.of("Stable Classic consumer"));
            Talk.same(listed(topic, new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY))), List.of());
            Talk.same(listed(topic, new ListGroupsOptions().withTypes(Set.of(GroupType.CONSUMER))), List.of());
            Talk.same(listed(topic, new ListGroupsOptions().inGroupStates(Set.of(GroupState.STABLE)).withTypes(Set.of(GroupType.CLASSIC))),
                List.of("Stable Classic consumer"));
            ConsumerGroupDescription seen = describe(topic);
            Talk.same(seen.groupState() + " " + seen.partitionAssignor() + " " + seen.coordinator().id(), "Stable range 1");
            Talk.same(seen.members().stream().map(each -> each.clientId() + " " + each.host() + " " + each.assignment().topicPartitions().size()).toList(),
                List.of("a client /127.0.0.1 2"));
            Talk.same(stored(topic), Map.of(zero, 10L, one, 0L));
            Scenarios.refused(ADMIN.alterConsumerGroupOffsets(topic, Map.of(zero, new OffsetAndMetadata(3))).partitionResult(zero),
                "UnknownMemberIdException", null);
            Scenarios.refused(ADMIN.deleteConsumerGroupOffsets(topic, Set.of(zero)).partitionResult(zero),
                "GroupSubscribedToTopicException", null);
            Scenarios.refused(ADMIN.deleteConsumerGroups(List.of(topic)).all(), "GroupNotEmptyException", null);
        }
        Talk.eventually(() -> {
            Talk.same(listed(topic, all), List.of("Empty Classic consumer"));
            return null;
        });
        ADMIN.alterConsumerGroupOffsets(topic, Map.of(zero, new OffsetAndMetadata(3), one, new OffsetAndMetadata(1))).all().get();
        Talk.same(stored(topic), Map.of(zero, 3L, one, 1L));
        ADMIN.deleteConsumerGroupOffsets(topic, Set.of(one)).all().get();
        Talk.same(stored(topic), Map.of(zero, 3L));
        ADMIN.deleteConsumerGroups(List.of(topic)).all().get();
        Talk.same(listed(topic, all), List.of());
        Talk.same(stored(topic), Map.of());
    }

    private static void compacted(String topic) throws Exception {
        Scenarios.create(topic, 1, Map.of("cleanup.policy", "compact", "segment.bytes", "1048576",
            "min.cleanable.dirty.ratio", "0.01", "delete.retention.ms", "100"));
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int number = 0; number < 200; number++) {
            for (int key = 0; key < 5; key++) {
                records.add(new ProducerRecord<>(topic, Scenarios.bytes("key-" + key), Scenarios.bytes("" + number)));
            }
        }
        records.add(new ProducerRecord<>(topic, Scenarios.bytes("key-0"), null));
        Scenarios.produce(records, Map.of());
        Talk.eventually(() -> {
            // What is written last stays in the active segment, which is never cleaned: so it has to be passed on.
            var filler = new ProducerRecord<>(topic, Scenarios.bytes("filler"), new byte[600_000]);
            long end = Scenarios.produce(List.of(filler), Map.of()).get(0);
            List<String> left = new ArrayList<>();
            try (var consumer = Scenarios.consumer(Map.of())) {
                consumer.assign(List.of(new TopicPartition(topic, 0)));
                consumer.seekToBeginning(consumer.assignment());
                while (consumer.position(new TopicPartition(topic, 0)) <= end) {
                    consumer.poll(Duration.ofMillis(100)).forEach(record -> left.add(record.offset() + " " + Scenarios.text(record.key())
                        + " " + Optional.ofNullable(record.value()).map(Scenarios::text).filter(text -> text.length() < 10).orElse("-")));
                }
            }
            left.removeIf(line -> line.contains("filler"));
            Talk.same(left, List.of("996 key-1 199", "997 key-2 199", "998 key-3 199", "999 key-4 199"));
            return null;
        });
    }
}
