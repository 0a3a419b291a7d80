import java.util.Arrays;
import java.util.Map;

import org.apache.kafka.clients.consumer.ConsumerInterceptor;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerInterceptor;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;

/**
 * Finer eyes for Kafka's EndToEndLatency, which rounds its percentiles to whole milliseconds: an
 * interceptor on its producer and on its consumer, from send() to the poll() that returns the record.
 *
 * The first third of the records warms both virtual machines up and is not counted.
 */
public class Stopwatch implements ProducerInterceptor<byte[], byte[]>, ConsumerInterceptor<byte[], byte[]> {
    // EndToEndLatency has one record under way at a time, and sends and polls from one thread.
    private static long sent;
    private static int count;
    private static long[] elapsed = new long[1 << 20];

    static {
        Runtime.getRuntime().addShutdownHook(new Thread(Stopwatch::print));
    }

    @Override
    public ProducerRecord<byte[], byte[]> onSend(ProducerRecord<byte[], byte[]> record) {
        sent = System.nanoTime();
        return record;
    }

    @Override
    public ConsumerRecords<byte[], byte[]> onConsume(ConsumerRecords<byte[], byte[]> records) {
        if (count < elapsed.length) {
            elapsed[count++] = System.nanoTime() - sent;
        }
        return records;
    }

    private static void print() {
        long[] counted = Arrays.copyOfRange(elapsed, count / 3, count);
        Arrays.sort(counted);
        if (counted.length > 0) {
            System.out.printf("Microseconds: %d %d %d%n", at(counted, 0.5), at(counted, 0.99), at(counted, 0.999));
        }
    }

    private static long at(long[] sorted, double quantile) {
        return sorted[(int) (sorted.length * quantile)] / 1000;
    }

    @Override
    public void onAcknowledgement(RecordMetadata metadata, Exception exception) { }

    @Override
    public void onCommit(Map<TopicPartition, OffsetAndMetadata> offsets) { }

    @Override
    public void close() { }

    @Override
    public void configure(Map<String, ?> configs) { }
}
