"""kafka-python's scenarios. Assignment is always manual: who joins a group is in groups.py."""

import os
import random
import threading
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import AlterConfigOp, ConfigFilterType, ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec
from kafka.errors import (
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from talk import BOOTSTRAP, broker, eventually, same, scenario

admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
TOPIC, BROKER = ConfigResourceType.TOPIC, ConfigResourceType.BROKER


def create(topic, partitions=1, **configs):
    attempt_create(topic, partitions, 1, {key.replace("_", "."): value for key, value in configs.items()})
    eventually(lambda: same(describe(topic)["error_code"], 0))


def attempt_create(topic, partitions, replicas, configs, **options):
    new = {"num_partitions": partitions, "replication_factor": replicas, "configs": configs}
    return admin.create_topics({topic: new}, **options)


def describe(topic):
    return admin.describe_topics([topic])[0]


def produce(topic, records, **config):
    """Produce values, or dicts of what `send` takes; return the offsets in the records' order."""
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, **config)
    try:
        sent = [producer.send(topic, **(record if isinstance(record, dict) else {"value": record})) for record in records]
        return [future.get(30).offset for future in sent]
    finally:
        producer.close()


def consume(topic, count, partition=0, start=0, **config):
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, fetch_max_wait_ms=50, consumer_timeout_ms=40_000, **config)
    try:
        consumer.assign([TopicPartition(topic, partition)])
        if start is None:
            consumer.seek_to_beginning()
        else:
            consumer.seek(TopicPartition(topic, partition), start)
        return [record for _, record in zip(range(count), consumer)]
    finally:
        consumer.close()


def values(records):
    return [record.value for record in records]


def numbers(first, last):
    return [b"value-%06d" % number for number in range(first, last)]


def refused(error, attempt, text=""):
    try:
        attempt()
    except error as refusal:
        same(text in str(refusal), True)
    else:
        raise AssertionError(f"not refused; wanted {error.__name__}")


def config(kind, name, key):
    seen = admin.describe_configs([ConfigResource(kind, name)], config_filter=ConfigFilterType.ALL)
    entry = seen[kind.name.lower()][name][key]
    return entry["value"], entry["config_source"]


def shows(kind, name, key, value, source):
    eventually(lambda: same(config(kind, name, key), (value, source)))


class AlterRefused(Exception):
    """Its client raises nothing here: it returns the error's text."""


def alter(kind, name, **changes):
    changes = {key.replace("_", "."): change for key, change in changes.items()}
    answers = admin.alter_configs([ConfigResource(kind, name, changes)], raise_on_unknown=False)
    if answers[kind.name.lower()][name] != "OK":
        raise AlterRefused(answers[kind.name.lower()][name])


# The cluster and its topics


@scenario
def cluster(topic):
    seen = admin.describe_cluster()
    same([(node["broker_id"], f"{node['host']}:{node['port']}") for node in seen["brokers"]], [(1, BOOTSTRAP)])
    same(seen["controller_id"], 1)
    same(len(seen["cluster_id"]), 22)


@scenario
def features(topic):
    seen = admin.describe_features()["metadata.version"]
    (low, high), (_, finalized) = seen["supported"], seen["finalized"]
    same(low <= finalized <= high, True)


@scenario
def quorum(topic):
    seen = admin.describe_metadata_quorum()["topics"][0]["partitions"][0]
    same(seen["leader_id"], 1)
    same([voter["replica_id"] for voter in seen["current_voters"]], [1])
    same(seen["observers"], [])
    same(0 < seen["high_watermark"], True)


@scenario
def create_topic(topic):
    create(topic, 3, retention_ms="86400000", cleanup_policy="compact,delete")
    shows(TOPIC, topic, "retention.ms", "86400000", "DYNAMIC_TOPIC_CONFIG")
    shows(TOPIC, topic, "cleanup.policy", "compact,delete", "DYNAMIC_TOPIC_CONFIG")
    same(len(describe(topic)["partitions"]), 3)


@scenario
def create_topic_refused(topic):
    create(topic)
    for error, arguments, text in [
        (TopicAlreadyExistsError, (topic, 1, 1, {}), f"Topic '{topic}' already exists."),
        (InvalidTopicError, ("bad name", 1, 1, {}), "contains one or more characters other than ASCII alphanumerics"),
        (InvalidPartitionsError, ("none", 0, 1, {}), "Number of partitions was set to an invalid non-positive value."),
        (InvalidReplicationFactorError, ("three", 1, 3, {}), "The target replication factor of 3 cannot be reached"),
        (InvalidConfigurationError, ("key", 1, 1, {"no.such.key": "1"}), "Unknown topic config name: no.such.key"),
        (InvalidConfigurationError, ("value", 1, 1, {"retention.ms": "soon"}),
            "Invalid value soon for configuration retention.ms: Not a number of type LONG"),
    ]:
        refused(error, lambda: attempt_create(*arguments), text)


@scenario
def create_topic_validate_only(topic):
    same(attempt_create(topic, 2, 1, {}, validate_only=True)["topics"][0]["num_partitions"], 2)
    same(topic in admin.list_topics(), False)


@scenario
def describe_topic(topic):
    create(topic, 2)
    seen = describe(topic)
    same(seen["is_internal"], False)
    partitions = sorted(seen["partitions"], key=lambda partition: partition["partition_index"])
    same([(partition["partition_index"], partition["leader_id"], partition["replica_nodes"], partition["isr_nodes"])
          for partition in partitions], [(0, 1, [1], [1]), (1, 1, [1], [1])])


@scenario
def list_topics(topic):
    create(topic, 3)
    same(topic in admin.list_topics(), True)


@scenario
def unknown_topic(topic):
    same(describe(topic)["error_code"], UnknownTopicOrPartitionError.errno)
    refused(UnknownTopicOrPartitionError, lambda: admin.delete_topics([topic]), "This server does not host this topic-partition.")


@scenario
def create_partitions(topic):
    create(topic)
    produce(topic, numbers(0, 10))
    admin.create_partitions({topic: 4})
    eventually(lambda: same(len(describe(topic)["partitions"]), 4))
    produce(topic, [{"value": b"new", "partition": 3}])
    same(values(consume(topic, 1, partition=3)), [b"new"])
    same(values(consume(topic, 10)), numbers(0, 10))
    refused(InvalidPartitionsError, lambda: admin.create_partitions({topic: 2}),
            f"The topic {topic} currently has 4 partition(s); 2 would not be an increase.")
    refused(InvalidPartitionsError, lambda: admin.create_partitions({topic: 4}), "Topic already has 4 partition(s).")


@scenario
def delete_topic(topic):
    create(topic)
    produce(topic, numbers(0, 10))
    old = describe(topic)["topic_id"]
    admin.delete_topics([topic])
    eventually(lambda: same(topic in admin.list_topics(), False))
    create(topic)
    same(describe(topic)["topic_id"] == old, False)
    same(produce(topic, [b"anew"]), [0])
    same(values(consume(topic, 1)), [b"anew"])


@scenario
def auto_create(topic):
    same(produce(topic, numbers(0, 3)), [0, 1, 2])
    same(values(consume(topic, 3)), numbers(0, 3))


@scenario
def many_partitions(topic):
    create(topic, 50)
    produce(topic, [{"value": b"%d-%d" % (partition, n), "partition": partition} for n in range(20) for partition in range(50)])
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, consumer_timeout_ms=40_000)
    consumer.assign([TopicPartition(topic, partition) for partition in range(50)])
    consumer.seek_to_beginning()
    seen = {partition: [] for partition in range(50)}
    for _, record in zip(range(1000), consumer):
        seen[record.partition].append(record.value)
    consumer.close()
    for partition, records in seen.items():
        same(records, [b"%d-%d" % (partition, n) for n in range(20)])


# Configs


@scenario
def topic_config(topic):
    create(topic)
    shows(TOPIC, topic, "max.message.bytes", "1048588", "DEFAULT_CONFIG")
    alter(TOPIC, topic, max_message_bytes="2000000", cleanup_policy=(AlterConfigOp.APPEND, "compact"))
    shows(TOPIC, topic, "max.message.bytes", "2000000", "DYNAMIC_TOPIC_CONFIG")
    shows(TOPIC, topic, "cleanup.policy", "delete,compact", "DYNAMIC_TOPIC_CONFIG")
    alter(TOPIC, topic, max_message_bytes=(AlterConfigOp.DELETE, None), cleanup_policy=(AlterConfigOp.SUBTRACT, "delete"))
    shows(TOPIC, topic, "max.message.bytes", "1048588", "DEFAULT_CONFIG")
    shows(TOPIC, topic, "cleanup.policy", "compact", "DYNAMIC_TOPIC_CONFIG")


@scenario
def topic_config_refused(topic):
    create(topic)
    refused(AlterRefused, lambda: alter(TOPIC, topic, no_such_key="1"),
            "InvalidConfigurationError: Unknown topic config name: no.such.key")
    refused(AlterRefused, lambda: alter(TOPIC, topic, retention_ms="soon"),
            "InvalidConfigurationError: Invalid value soon for configuration retention.ms: Not a number of type LONG")
    refused(AlterRefused, lambda: alter(TOPIC, "not-there", retention_ms="1"),
            "UnknownTopicOrPartitionError: The topic 'not-there' does not exist.")
    shows(TOPIC, topic, "retention.ms", "604800000", "DEFAULT_CONFIG")


@scenario
def broker_config(topic):
    create(topic)
    shows(BROKER, "1", "message.max.bytes", "1048588", "DEFAULT_CONFIG")
    alter(BROKER, "1", message_max_bytes="3000000")
    shows(BROKER, "1", "message.max.bytes", "3000000", "DYNAMIC_BROKER_CONFIG")
    shows(TOPIC, topic, "max.message.bytes", "3000000", "DYNAMIC_BROKER_CONFIG")
    produce(topic, [b"x" * 2_500_000], max_request_size=10_000_000)
    alter(BROKER, "1", message_max_bytes=(AlterConfigOp.DELETE, None))
    shows(BROKER, "1", "message.max.bytes", "1048588", "DEFAULT_CONFIG")
    refused(AlterRefused, lambda: alter(BROKER, "1", log_dirs="/x"),
            "InvalidRequestError: Cannot update these configs dynamically: [log.dirs]")


@scenario
def list_config_resources(topic):
    create(topic)
    seen = admin.list_config_resources(["TOPIC", "BROKER"])
    same(topic in seen["topic"], True)
    same(seen["broker"], ["1"])


# Records


def round_trip(topic, **config):
    create(topic)
    same(produce(topic, numbers(0, 1000), **config), list(range(1000)))
    same(values(consume(topic, 1000)), numbers(0, 1000))


@scenario
def acks_0(topic):
    create(topic)
    produce(topic, numbers(0, 1000), acks=0, enable_idempotence=False)
    same(values(consume(topic, 1000)), numbers(0, 1000))


@scenario
def acks_1(topic):
    round_trip(topic, acks=1, enable_idempotence=False)


@scenario
def acks_all(topic):
    round_trip(topic, acks="all", enable_idempotence=False)


@scenario
def codec_gzip(topic):
    round_trip(topic, compression_type="gzip")


@scenario
def codec_snappy(topic):
    round_trip(topic, compression_type="snappy")


@scenario
def codec_lz4(topic):
    round_trip(topic, compression_type="lz4")


@scenario
def codec_zstd(topic):
    round_trip(topic, compression_type="zstd")


@scenario
def codec_of_topic(topic):
    create(topic, compression_type="zstd")
    produce(topic, numbers(0, 1000), compression_type="gzip")
    same(values(consume(topic, 1000)), numbers(0, 1000))


@scenario
def idempotent(topic):
    round_trip(topic, enable_idempotence=True)


@scenario
def keys_headers(topic):
    create(topic)
    headers = [("a", b"1"), ("b", b""), ("a", b"2")]  # its producer takes no null header
    produce(topic, [
        {"key": b"k", "value": b"v", "headers": headers, "timestamp_ms": 1_600_000_000_123},
        {"key": b"", "value": b""},
        {"value": b"no key"},
    ])
    first, second, third = consume(topic, 3)
    same((first.key, first.value, list(first.headers)), (b"k", b"v", headers))
    same((first.timestamp, first.timestamp_type), (1_600_000_000_123, 0))
    same((second.key, second.value), (b"", b""))
    same((third.key, third.value), (None, b"no key"))


@scenario
def tombstone(topic):
    create(topic)
    produce(topic, [{"key": b"gone"}, {"key": b"empty", "value": b""}])
    same([(record.key, record.value) for record in consume(topic, 2)], [(b"gone", None), (b"empty", b"")])


@scenario
def log_append_time(topic):
    create(topic, message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    produce(topic, [{"value": b"v", "timestamp_ms": 1_600_000_000_123}])
    record = consume(topic, 1)[0]
    same(record.timestamp_type, 1)
    same(before <= record.timestamp <= time.time() * 1000, True)


@scenario
def big_message(topic):
    create(topic)
    value = random.Random(1).randbytes(900_000)
    produce(topic, [value])
    same(values(consume(topic, 1)) == [value], True)


@scenario
def too_large(topic):
    create(topic)
    value = random.Random(1).randbytes(1_500_000)
    refused(MessageSizeTooLargeError, lambda: produce(topic, [value], max_request_size=10_000_000))
    alter(TOPIC, topic, max_message_bytes="2000000")
    same(eventually(lambda: produce(topic, [value], max_request_size=10_000_000)), [0])
    same(values(consume(topic, 1)) == [value], True)


# Reading


@scenario
def consume_middle(topic):
    create(topic)
    produce(topic, numbers(0, 100), linger_ms=100)
    same(values(consume(topic, 63, start=37)), numbers(37, 100))
    same(values(consume(topic, 2, start=98)), numbers(98, 100))


@scenario
def long_poll(topic):
    create(topic)
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, fetch_max_wait_ms=5_000)
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        same(consumer.poll(1_000), {})  # its fetch is at the broker now, and stays there
        producer = threading.Thread(target=produce, args=(topic, [b"late"]))
        producer.start()
        same([values(records) for records in consumer.poll(3_000).values()], [[b"late"]])
        producer.join()
    finally:
        consumer.close()


@scenario
def offset_out_of_range(topic):
    create(topic)
    produce(topic, numbers(0, 10))
    refused(OffsetOutOfRangeError, lambda: consume(topic, 1, start=1000, auto_offset_reset="none"))
    same(values(consume(topic, 10, start=1000, auto_offset_reset="earliest")), numbers(0, 10))


def listed(topic, spec, **options):
    partition = TopicPartition(topic, 0)
    seen = admin.list_partition_offsets({partition: spec}, **options)[partition]
    return seen.offset, seen.timestamp


@scenario
def offsets_by_time(topic):
    create(topic)
    times = [2_000, 1_000, 5_000, 3_000, 5_000, 4_000]
    produce(topic, [{"value": b"v", "timestamp_ms": 1_600_000_000_000 + t} for t in times])
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP)
    for t, wanted in [(0, (0, 1_600_000_002_000)), (2_001, (2, 1_600_000_005_000)), (5_000, (2, 1_600_000_005_000)), (5_001, None)]:
        found = consumer.offsets_for_times({TopicPartition(topic, 0): 1_600_000_000_000 + t})[TopicPartition(topic, 0)]
        same(found and (found.offset, found.timestamp), wanted)
    consumer.close()
    same(listed(topic, OffsetSpec.EARLIEST), (0, -1))
    same(listed(topic, OffsetSpec.LATEST), (6, -1))
    same(listed(topic, OffsetSpec.MAX_TIMESTAMP), (2, 1_600_000_005_000))


@scenario
def read_committed(topic):
    create(topic)
    produce(topic, numbers(0, 100))
    same(values(consume(topic, 100, isolation_level="read_committed")), numbers(0, 100))
    same(listed(topic, OffsetSpec.LATEST, isolation_level="read_committed"), (100, -1))


@scenario
def delete_records(topic):
    create(topic)
    produce(topic, numbers(0, 100))
    partition = TopicPartition(topic, 0)
    same(admin.delete_records({partition: 40})[partition]["low_watermark"], 40)
    same(listed(topic, OffsetSpec.EARLIEST), (40, -1))
    same(values(consume(topic, 60, start=None)), numbers(40, 100))
    refused(OffsetOutOfRangeError, lambda: consume(topic, 1, start=10, auto_offset_reset="none"))
    refused(OffsetOutOfRangeError, lambda: admin.delete_records({partition: 101}))
    same(admin.delete_records({partition: -1})[partition]["low_watermark"], 100)


# Operations


@scenario
def log_dirs(topic):
    create(topic)
    produce(topic, [random.Random(1).randbytes(10_000)])
    directories = admin.describe_log_dirs([topic])[0]["log_dirs"]
    same([(directory["error_code"], directory["log_dir"]) for directory in directories], [(0, os.environ["DATA"])])
    partition = directories[0]["topics"][0]["partitions"][0]
    same(10_000 < partition["partition_size"] < 11_000, True)
    same((partition["offset_lag"], partition["is_future_key"]), (0, False))


@scenario
def producers(topic):
    create(topic)
    produce(topic, numbers(0, 1000), enable_idempotence=True)
    partition = TopicPartition(topic, 0)
    seen = admin.describe_producers([partition])[partition].active_producers
    same([(producer.last_sequence, producer.producer_epoch, producer.current_transaction_start_offset) for producer in seen],
         [(999, 0, -1)])


@scenario
def elect_leaders(topic):
    create(topic)
    admin.elect_leaders(0, {topic: [0]})  # it takes ELECTION_NOT_NEEDED for success


@scenario
def reassignments(topic):
    same(admin.list_partition_reassignments(), {})


# Restarts


def survives(topic, how):
    create(topic, 2, retention_ms="86400000")
    old = describe(topic)["topic_id"]
    produce(topic, [{"value": value, "key": b"k", "partition": 1} for value in numbers(0, 100)])
    broker(how)
    same(values(consume(topic, 100, partition=1)), numbers(0, 100))
    eventually(lambda: same(describe(topic)["topic_id"], old))
    shows(TOPIC, topic, "retention.ms", "86400000", "DYNAMIC_TOPIC_CONFIG")
    same(produce(topic, [{"value": b"more", "partition": 1}]), [100])


@scenario
def restart(topic):
    survives(topic, "restart")


@scenario
def kill_9(topic):
    survives(topic, "kill")
