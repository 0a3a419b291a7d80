import static java.util.Map.entry;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.admin.TransactionListing;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ProducerFencedException;

/** The scenarios with transactions. A scenario's transactional id has its topic's name. */
final class Transactions {
    static final Map<String, Talk.Scenario> SCENARIOS = Map.ofEntries(
        entry("txn-commit", Transactions::commit),
        entry("txn-abort", Transactions::abort),
        entry("txn-fencing", Transactions::fencing),
        entry("txn-offsets", Transactions::offsets),
        entry("txn-kill-9", Transactions::kills),
        entry("txn-admin", Transactions::admin),
        entry("txn-streams", Transactions::streams));

    private static final Admin ADMIN = Admin.create(Map.of("bootstrap.servers", Talk.BOOTSTRAP));
    private static final IsolationLevel COMMITTED = IsolationLevel.READ_COMMITTED;
    private static final IsolationLevel UNCOMMITTED = IsolationLevel.READ_UNCOMMITTED;
    private static final int PARTITIONS = 3;

    private Transactions() {}

    private static KafkaProducer<byte[], byte[]> transactional(String id) {
        KafkaProducer<byte[], byte[]> producer = Scenarios.producer(Map.of("transactional.id", id));
        producer.initTransactions();
        return producer;
    }

    /** Values into each partition; what they are there. */
    private static List<List<String>> send(KafkaProducer<byte[], byte[]> producer, String topic, int first, int last) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (String text : Scenarios.texts(first, last)) {
            for (TopicPartition partition : partitions(topic)) {
                sent.add(producer.send(new ProducerRecord<>(topic, partition.partition(), null, Scenarios.bytes(text))));
            }
        }
        producer.flush();
        for (Future<RecordMetadata> each : sent) {
            each.get();
        }
        return all(Scenarios.texts(first, last));
    }

    private static <T> List<T> all(T each) {
        return IntStream.range(0, PARTITIONS).mapToObj(partition -> each).toList();
    }

    private static List<TopicPartition> partitions(String topic) {
        return IntStream.range(0, PARTITIONS).mapToObj(partition -> new TopicPartition(topic, partition)).toList();
    }

    /** Where each partition ends: for read_committed, at its last stable offset. */
    private static List<Long> ends(String topic, IsolationLevel isolation) throws Exception {
        Map<TopicPartition, OffsetSpec> asked = partitions(topic).stream().collect(Collectors.toMap(each -> each, each -> OffsetSpec.latest()));
        var answer = ADMIN.listOffsets(asked, new ListOffsetsOptions(isolation));
        List<Long> ends = new ArrayList<>();
        for (TopicPartition partition : partitions(topic)) {
            ends.add(answer.partitionResult(partition).get().offset());
        }
        return ends;
    }

    private static void ends(String topic, long wanted) throws Exception {
        Talk.eventually(() -> {
            Talk.same(ends(topic, COMMITTED), all(wanted));
            return null;
        });
        Talk.same(ends(topic, UNCOMMITTED), all(wanted));
    }

    /** Wait until no transaction is open. */
    private static void closed(String topic) throws Exception {
        Talk.eventually(() -> {
            Talk.same(ends(topic, COMMITTED), ends(topic, UNCOMMITTED));
            return null;
        });
    }

    private static List<List<byte[]>> values(String topic, IsolationLevel isolation) throws Exception {
        List<Long> ends = ends(topic, isolation);
        List<List<byte[]>> values = new ArrayList<>();
        try (var consumer = Scenarios.consumer(Map.of("isolation.level", isolation.toString()))) {
            for (TopicPartition partition : partitions(topic)) {
                consumer.assign(List.of(partition));
                consumer.seekToBeginning(consumer.assignment());
                List<byte[]> seen = new ArrayList<>();
                long deadline = System.nanoTime() + 40_000_000_000L;
                while (consumer.position(partition) < ends.get(partition.partition())) {
                    consumer.poll(Duration.ofMillis(100)).forEach(record -> seen.add(record.value()));
                    Talk.same(System.nanoTime() < deadline, true);
                }
                values.add(seen);
            }
        }
        return values;
    }

    private static List<List<String>> read(String topic, IsolationLevel isolation) throws Exception {
        return values(topic, isolation).stream().map(seen -> seen.stream().map(Scenarios::text).toList()).toList();
    }

    private static void commit(String topic) throws Exception {
        Scenarios.create(topic, PARTITIONS, Map.of());
        try (var producer = transactional(topic)) {
            producer.beginTransaction();
            List<List<String>> sent = send(producer, topic, 0, 10);
            Talk.same(ends(topic, UNCOMMITTED), all(10L));
            Talk.same(ends(topic, COMMITTED), all(0L));
            Talk.same(read(topic, UNCOMMITTED), sent);
            producer.commitTransaction();
            ends(topic, 11);
            Talk.same(read(topic, COMMITTED), sent);
            Talk.same(read(topic, UNCOMMITTED), sent);
        }
    }

    private static void abort(String topic) throws Exception {
        Scenarios.create(topic, PARTITIONS, Map.of());
        try (var producer = transactional(topic)) {
            producer.beginTransaction();
            List<List<String>> aborted = send(producer, topic, 0, 10);
            producer.abortTransaction();
            ends(topic, 11);
            Talk.same(read(topic, COMMITTED), all(List.of()));
            Talk.same(read(topic, UNCOMMITTED), aborted);
            producer.beginTransaction();
            List<List<String>> kept = send(producer, topic, 10, 15);
            producer.commitTransaction();
            ends(topic, 17);
            Talk.same(read(topic, COMMITTED), kept);
            Talk.same(read(topic, UNCOMMITTED), all(Scenarios.texts(0, 15)));
        }
    }

    private static void fencing(String topic) throws Exception {
        Scenarios.create(topic, PARTITIONS, Map.of());
        var first = transactional(topic);
        first.beginTransaction();
        send(first, topic, 0, 5);
        try (var second = transactional(topic)) {
            try {
                first.commitTransaction();
                throw new AssertionError("not fenced");
            } catch (KafkaException fenced) {
                Talk.same(fenced.getClass(), ProducerFencedException.class);
            }
            first.close();
            second.beginTransaction();
            List<List<String>> kept = send(second, topic, 5, 10);
            second.commitTransaction();
            closed(topic);
            Talk.same(read(topic, COMMITTED), kept);
        }
    }

    private static void offsets(String topic) throws Exception {
        transform(topic + "-classic", "classic");
        transform(topic + "-consumer", "consumer");
    }

    /** Ten records in, ten out and their offsets in a transaction: every other one is aborted and done again. */
    private static void transform(String topic, String protocol) throws Exception {
        String target = topic + "-out";
        Scenarios.create(topic, PARTITIONS, Map.of());
        Scenarios.create(target, PARTITIONS, Map.of());
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (String text : Scenarios.texts(0, 1000)) {
            records.add(new ProducerRecord<>(topic, records.size() % PARTITIONS, null, Scenarios.bytes(text)));
        }
        Scenarios.produce(records, Map.of());
        Map<TopicPartition, OffsetAndMetadata> committed = new HashMap<>();
        int copied = 0;
        try (var producer = transactional(topic); var consumer = Scenarios.consumer(Map.of("group.id", topic, "group.protocol", protocol,
                "auto.offset.reset", "earliest", "enable.auto.commit", false, "isolation.level", "read_committed", "max.poll.records", 10))) {
            consumer.subscribe(List.of(topic));
            for (int transaction = 1; copied < records.size(); transaction++) {
                ConsumerRecords<byte[], byte[]> read = Talk.eventually(() -> {
                    ConsumerRecords<byte[], byte[]> polled = consumer.poll(Duration.ofMillis(100));
                    Talk.same(polled.isEmpty(), false);
                    return polled;
                });
                producer.beginTransaction();
                for (ConsumerRecord<byte[], byte[]> record : read) {
                    producer.send(new ProducerRecord<>(target, record.partition(), null, record.value()));
                }
                producer.sendOffsetsToTransaction(read.nextOffsets(), consumer.groupMetadata());
                boolean keep = transaction % 2 == 0;
                if (keep) {
                    producer.commitTransaction();
                    committed.putAll(read.nextOffsets());
                    copied += read.count();
                } else {
                    producer.abortTransaction();
                }
                Map<TopicPartition, OffsetAndMetadata> seen = new HashMap<>(consumer.committed(Set.copyOf(partitions(topic))));
                seen.values().removeIf(offset -> offset == null);
                Talk.same(positions(seen), positions(committed));
                if (!keep) {
                    consumer.assignment().forEach(partition -> consumer.seek(partition,
                        committed.containsKey(partition) ? committed.get(partition).offset() : 0));
                }
            }
        }
        closed(target);
        Talk.same(read(target, COMMITTED).stream().flatMap(List::stream).sorted().toList(), Scenarios.texts(0, 1000));
        Talk.same(1000 < read(target, UNCOMMITTED).stream().mapToInt(List::size).sum(), true);
    }

    private static Map<TopicPartition, Long> positions(Map<TopicPartition, OffsetAndMetadata> offsets) {
        return offsets.entrySet().stream().collect(Collectors.toMap(Map.Entry::getKey, each -> each.getValue().offset()));
    }

    private enum Outcome { COMMITTED, ABORTED, UNKNOWN }

    /** One record into each partition a transaction, every fourth aborted, while the broker is killed five times. */
    private static void kills(String topic) throws Exception {
        Scenarios.create(topic, PARTITIONS, Map.of());
        var outcomes = new ConcurrentSkipListMap<Integer, Outcome>();
        var stop = new AtomicReference<>("");
        Thread thread = new Thread(() -> {
            KafkaProducer<byte[], byte[]> producer = null;
            for (int number = 1; stop.get().isEmpty(); number++) {
                try {
                    outcomes.put(number, Outcome.UNKNOWN);
                    producer = producer == null ? transactional(topic) : producer;
                    transact(producer, topic, number, outcomes);
                } catch (KafkaException failure) {
                    System.err.println(number + ": " + failure);
                    if (producer != null) { // the next one of this id aborts what is open, or waits for its end
                        producer.close(Duration.ZERO);
                        producer = null;
                    }
                }
            }
            if (producer != null) {
                producer.close();
            }
        });
        thread.setUncaughtExceptionHandler((of, failure) -> stop.set(failure.toString()));
        thread.start();
        for (int kill = 0; kill < 5; kill++) {
            long wanted = count(outcomes, Outcome.COMMITTED) + 20;
            while (count(outcomes, Outcome.COMMITTED) < wanted && stop.get().isEmpty()) {
                Thread.sleep(10);
            }
            Talk.broker("kill");
        }
        Talk.same(stop.getAndSet("enough"), "");
        thread.join();
        transactional(topic).close();
        closed(topic);
        wholeOrNotAtAll(outcomes, values(topic, COMMITTED));
    }

    private static void transact(KafkaProducer<byte[], byte[]> producer, String topic, int number, Map<Integer, Outcome> outcomes) {
        producer.beginTransaction();
        for (TopicPartition partition : partitions(topic)) {
            producer.send(new ProducerRecord<>(topic, partition.partition(), null, ByteBuffer.allocate(4).putInt(number).array()));
        }
        if (number % 4 == 0) {
            outcomes.put(number, Outcome.ABORTED);
            producer.flush();
            producer.abortTransaction();
        } else {
            producer.commitTransaction();
            outcomes.put(number, Outcome.COMMITTED);
        }
    }

    private static long count(Map<Integer, Outcome> outcomes, Outcome wanted) {
        return outcomes.values().stream().filter(wanted::equals).count();
    }

    /** Of each transaction one record in every partition, or none in any; all of what was acknowledged, none of what was aborted. */
    private static void wholeOrNotAtAll(Map<Integer, Outcome> outcomes, List<List<byte[]>> stored) {
        List<Map<Integer, Long>> seen = stored.stream().map(values -> values.stream()
            .collect(Collectors.groupingBy(value -> ByteBuffer.wrap(value).getInt(), Collectors.counting()))).toList();
        List<String> bad = new ArrayList<>();
        outcomes.forEach((number, outcome) -> {
            List<Long> counts = seen.stream().map(partition -> partition.getOrDefault(number, 0L)).toList();
            boolean whole = counts.equals(all(1L));
            boolean none = counts.equals(all(0L));
            if (!(outcome != Outcome.ABORTED && whole || outcome != Outcome.COMMITTED && none)) {
                bad.add(number + " " + outcome + " " + counts);
            }
        });
        System.err.println(count(outcomes, Outcome.COMMITTED) + " committed of " + outcomes.size());
        Talk.same(bad, List.of());
    }

    private static void admin(String topic) throws Exception {
        Scenarios.create(topic, PARTITIONS, Map.of());
        Scenarios.refused(ADMIN.describeTransactions(List.of("not-there")).description("not-there"), "TransactionalIdNotFoundException", null);
        try (var producer = transactional(topic)) {
            long before = System.currentTimeMillis();
            producer.beginTransaction();
            send(producer, topic, 0, 10);
            Talk.same(listed(topic, new ListTransactionsOptions()), List.of(TransactionState.ONGOING));
            Talk.same(listed(topic, new ListTransactionsOptions().filterStates(Set.of(TransactionState.ONGOING))), List.of(TransactionState.ONGOING));
            Talk.same(listed(topic, new ListTransactionsOptions().filterStates(Set.of(TransactionState.COMPLETE_COMMIT))), List.of());
            Talk.same(listed(topic, new ListTransactionsOptions().filterOnTransactionalIdPattern("txn-a.*n")), List.of(TransactionState.ONGOING));
            Talk.same(listed(topic, new ListTransactionsOptions().filterOnTransactionalIdPattern("txn-a")), List.of());
            Talk.same(listed(topic, new ListTransactionsOptions().filterOnDuration(600_000)), List.of());
            TransactionDescription open = described(topic);
            Talk.same(open.state() + " " + open.coordinatorId() + " " + open.transactionTimeoutMs(), "Ongoing 1 60000");
            Talk.same(open.topicPartitions(), Set.copyOf(partitions(topic)));
            long start = open.transactionStartTimeMs().getAsLong();
            Talk.same(before <= start && start <= System.currentTimeMillis(), true);
            Talk.same(starts(topic), List.of(0L));
            producer.commitTransaction();
            Talk.eventually(() -> {
                Talk.same(described(topic).state(), TransactionState.COMPLETE_COMMIT);
                return null;
            });
            TransactionDescription over = described(topic);
            Talk.same(over.topicPartitions(), Set.of());
            Talk.same(over.producerId(), open.producerId());
            Talk.same(listed(topic, new ListTransactionsOptions().filterProducerIds(Set.of(over.producerId()))), List.of(TransactionState.COMPLETE_COMMIT));
            Talk.same(starts(topic), List.of(-1L));
        }
    }

    private static TransactionDescription described(String id) throws Exception {
        return ADMIN.describeTransactions(List.of(id)).description(id).get();
    }

    /** The state of the transactional id in a list. */
    private static List<TransactionState> listed(String id, ListTransactionsOptions options) throws Exception {
        return ADMIN.listTransactions(options).all().get().stream().filter(each -> each.transactionalId().equals(id))
            .map(TransactionListing::state).toList();
    }

    /** Where the transactions begin that partition 0's producers have open; -1 for one without. */
    private static List<Long> starts(String topic) throws Exception {
        TopicPartition partition = new TopicPartition(topic, 0);
        return ADMIN.describeProducers(List.of(partition)).partitionResult(partition).get().activeProducers().stream()
            .map(producer -> producer.currentTransactionStartOffset().orElse(-1)).toList();
    }

    /** Words come in while the instance that counts them and the broker are killed in turn. */
    private static void streams(String topic) throws Exception {
        Scenarios.create(topic, PARTITIONS, Map.of());
        Scenarios.create(topic + "-out", PARTITIONS, Map.of());
        var stop = new AtomicReference<>("");
        Map<String, Long> sent = new TreeMap<>();
        Thread thread = new Thread(() -> {
            try (var producer = Scenarios.producer(Map.of())) {
                for (int number = 0; stop.get().isEmpty(); number++) {
                    String word = "word-" + number % 10;
                    producer.send(new ProducerRecord<>(topic, number % PARTITIONS, null, Scenarios.bytes(word)));
                    sent.merge(word, 1L, Long::sum);
                    Thread.sleep(5);
                }
            } catch (InterruptedException ended) {
                Thread.currentThread().interrupt();
            }
        });
        thread.setUncaughtExceptionHandler((of, failure) -> stop.set(failure.toString()));
        thread.start();
        Map<String, List<Long>> counts = new TreeMap<>();
        Process instance = instance(topic);
        try (var consumer = Scenarios.consumer(Map.of("isolation.level", "read_committed"))) {
            consumer.assign(partitions(topic + "-out"));
            consumer.seekToBeginning(consumer.assignment());
            for (int kill = 0; kill < 4; kill++) {
                long wanted = total(counts) + 100;
                counted(consumer, counts, () -> wanted <= total(counts));
                if (kill % 2 == 0) {
                    instance.destroyForcibly().waitFor();
                    instance = instance(topic);
                } else {
                    Talk.broker("kill");
                }
            }
            Talk.same(stop.getAndSet("enough"), "");
            thread.join();
            long words = sent.values().stream().mapToLong(Long::longValue).sum();
            counted(consumer, counts, () -> words <= total(counts));
            Map<String, List<Long>> once = new TreeMap<>();
            sent.forEach((word, number) -> once.put(word, LongStream.rangeClosed(1, number).boxed().toList()));
            Talk.same(counts, once);
        } finally {
            stop.set("enough");
            instance.destroyForcibly().waitFor();
        }
        System.err.println(sent);
    }

    private static void counted(org.apache.kafka.clients.consumer.Consumer<byte[], byte[]> consumer, Map<String, List<Long>> counts,
            java.util.function.BooleanSupplier enough) {
        long deadline = System.nanoTime() + 240_000_000_000L;
        while (!enough.getAsBoolean()) {
            consumer.poll(Duration.ofMillis(100)).forEach(record -> counts
                .computeIfAbsent(Scenarios.text(record.key()), word -> new ArrayList<>()).add(ByteBuffer.wrap(record.value()).getLong()));
            if (deadline < System.nanoTime()) {
                throw new AssertionError("not in time: " + total(counts) + " counts");
            }
        }
    }

    private static long total(Map<String, List<Long>> counts) {
        return counts.values().stream().mapToLong(List::size).sum();
    }

    private static Process instance(String topic) throws Exception {
        return new ProcessBuilder(Stream.of(System.getProperty("java.home") + "/bin/java", "-Xmx256m", "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1", "-cp", System.getProperty("streams"), "Words", Talk.BOOTSTRAP, topic).toList())
            .redirectOutput(ProcessBuilder.Redirect.DISCARD).redirectError(ProcessBuilder.Redirect.INHERIT).start();
    }
}
