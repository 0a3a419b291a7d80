import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.Stores;

/** An instance of Kafka Streams that counts the words of a topic into TOPIC-out, exactly once, until it is killed: Words BOOTSTRAP TOPIC. */
final class Words {
    private Words() {}

    public static void main(String[] arguments) {
        String topic = arguments[1];
        var builder = new StreamsBuilder();
        builder.stream(topic, Consumed.with(Serdes.ByteArray(), Serdes.String()))
            .groupBy((key, word) -> word, Grouped.with(Serdes.String(), Serdes.String()))
            // Without its cache, so that every count comes out.
            .count(Materialized.<String, Long>as(Stores.inMemoryKeyValueStore("counts"))
                .withKeySerde(Serdes.String()).withValueSerde(Serdes.Long()).withCachingDisabled())
            .toStream().to(topic + "-out", Produced.with(Serdes.String(), Serdes.Long()));
        var config = new Properties();
        config.putAll(Map.of(
            StreamsConfig.APPLICATION_ID_CONFIG, topic,
            StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0],
            StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2,
            StreamsConfig.STATE_DIR_CONFIG, "streams-state",
            StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest",
            // What a killed instance leaves behind lasts as long as these say.
            StreamsConfig.consumerPrefix("session.timeout.ms"), 6_000,
            StreamsConfig.consumerPrefix("heartbeat.interval.ms"), 500,
            StreamsConfig.producerPrefix("transaction.timeout.ms"), 5_000));
        var streams = new KafkaStreams(builder.build(), config);
        streams.setUncaughtExceptionHandler(failure -> {
            failure.printStackTrace();
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        streams.start();
    }
}
