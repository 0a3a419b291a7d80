"""librdkafka's scenarios by confluent-kafka, the thinnest layer over the C library.

Assignment is always manual: who joins a group is in groups.py.
"""

import random
import threading
import time

from confluent_kafka import Consumer, ElectionType, IsolationLevel, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from talk import BOOTSTRAP, broker, eventually, same, scenario

BASE = {"bootstrap.servers": BOOTSTRAP}
admin = AdminClient(BASE)


def create(topic, partitions=1, **config):
    new = NewTopic(topic, partitions, 1, config={key.replace("_", "."): value for key, value in config.items()})
    admin.create_topics([new])[topic].result(30)
    eventually(lambda: describe(topic))


def describe(topic):
    return admin.describe_topics(TopicCollection([topic]))[topic].result(30)


def produce(topic, records, **config):
    """Produce (key, value) pairs or more of what `produce` takes; return the offsets in order of delivery."""
    offsets, errors = [], []

    def delivered(error, message):
        (errors if error else offsets).append(error or message.offset())

    producer = Producer(BASE | {key.replace("_", "."): value for key, value in config.items()})
    for record in records:
        arguments = record if isinstance(record, dict) else {"value": record}
        producer.produce(topic, on_delivery=delivered, **arguments)
        producer.poll(0)
    producer.flush(30)
    if errors:
        raise KafkaException(errors[0])
    return offsets


def consume(topic, partition=0, start=0, end=None, **config):
    """Every message of a partition from `start` (an offset or -2, the earliest) up to `end` (now's by default)."""
    consumer = Consumer(BASE | {"group.id": "none", "enable.auto.commit": False, "enable.partition.eof": True} | config)
    try:
        if end is None:
            end = consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)[1]
        consumer.assign([TopicPartition(topic, partition, start)])
        messages = []
        for message in iter(lambda: consumer.poll(20), None):
            if message.error() and message.error().code() != KafkaError._PARTITION_EOF:
                raise KafkaException(message.error())
            if not message.error():
                messages.append(message)
            if end <= message.offset() + (not message.error()):
                return messages
        raise AssertionError(f"{len(messages)} messages, then nothing for 20 s, end offset {end}")
    finally:
        consumer.close()


def values(messages):
    return [message.value() for message in messages]


def numbers(first, last):
    return [b"value-%06d" % number for number in range(first, last)]


def refused(future):
    """The error a future fails with: its name and its text."""
    try:
        future.result(30)
    except KafkaException as failure:
        return failure.args[0].name(), failure.args[0].str()
    return None


def configs(kind, name):
    resource = ConfigResource(kind, name)
    return admin.describe_configs([resource])[resource].result(30)


def alter_config(kind, name, *changes):
    entries = [ConfigEntry(key, value, incremental_operation=operation) for key, operation, value in changes]
    resource = ConfigResource(kind, name, incremental_configs=entries)
    return admin.incremental_alter_configs([resource])[resource]


# The cluster and its topics


@scenario
def cluster(topic):
    seen = admin.describe_cluster().result(30)
    same([(node.id, f"{node.host}:{node.port}") for node in seen.nodes], [(1, BOOTSTRAP)])
    same(seen.controller.id, 1)
    same(len(seen.cluster_id), 22)


@scenario
def create_topic(topic):
    create(topic, 3, retention_ms="86400000", cleanup_policy="compact,delete")
    seen = configs(ResourceType.TOPIC, topic)
    same(seen["retention.ms"].value, "86400000")
    same(seen["retention.ms"].source, ConfigSource.DYNAMIC_TOPIC_CONFIG.value)
    same(seen["cleanup.policy"].value, "compact,delete")
    same(len(admin.list_topics(topic, 10).topics[topic].partitions), 3)


@scenario
def create_topic_refused(topic):
    create(topic)
    cases = [
        (NewTopic(topic, 1, 1), "TOPIC_ALREADY_EXISTS", f"Topic '{topic}' already exists."),
        (NewTopic("bad name", 1, 1), "TOPIC_EXCEPTION", "Topic name is invalid: 'bad name' contains one or more "
            "characters other than ASCII alphanumerics, '.', '_' and '-'"),
        (NewTopic("none", 0, 1), "INVALID_PARTITIONS", "Number of partitions was set to an invalid non-positive value."),
        (NewTopic("three", 1, 3), "INVALID_REPLICATION_FACTOR", "Unable to replicate the partition 3 time(s): The target "
            "replication factor of 3 cannot be reached because only 1 broker(s) are registered"),
        (NewTopic("key", 1, 1, config={"no.such.key": "1"}), "INVALID_CONFIG", "Unknown topic config name: no.such.key"),
        (NewTopic("value", 1, 1, config={"retention.ms": "soon"}), "INVALID_CONFIG",
            "Invalid value soon for configuration retention.ms: Not a number of type LONG"),
    ]
    for new, name, text in cases:
        got = refused(admin.create_topics([new])[new.topic])
        same((got[0], got[1][:len(text)]), (name, text))


@scenario
def create_topic_validate_only(topic):
    admin.create_topics([NewTopic(topic, 2, 1)], validate_only=True)[topic].result(30)
    same(topic in admin.list_topics(timeout=10).topics, False)


@scenario
def describe_topic(topic):
    create(topic, 2)
    seen = describe(topic)
    same(seen.name, topic)
    same(seen.is_internal, False)
    for index, partition in enumerate(seen.partitions):
        same((partition.id, partition.leader.id), (index, 1))
        same([node.id for node in partition.replicas], [1])
        same([node.id for node in partition.isr], [1])


@scenario
def list_topics(topic):
    create(topic, 3)
    same(len(admin.list_topics(timeout=10).topics[topic].partitions), 3)


@scenario
def unknown_topic(topic):
    same(refused(admin.describe_topics(TopicCollection([topic]))[topic])[0], "UNKNOWN_TOPIC_OR_PART")
    same(refused(admin.delete_topics([topic])[topic])[0], "UNKNOWN_TOPIC_OR_PART")


@scenario
def create_partitions(topic):
    create(topic)
    produce(topic, numbers(0, 10))
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(30)
    same(len(admin.list_topics(topic, 10).topics[topic].partitions), 4)
    produce(topic, [{"value": b"new", "partition": 3}])
    same(values(consume(topic, 3)), [b"new"])
    same(values(consume(topic, 0)), numbers(0, 10))
    for count, text in [
        (2, f"The topic {topic} currently has 4 partition(s); 2 would not be an increase."),
        (4, "Topic already has 4 partition(s)."),
    ]:
        same(refused(admin.create_partitions([NewPartitions(topic, count)])[topic]), ("INVALID_PARTITIONS", text))


@scenario
def delete_topic(topic):
    create(topic)
    produce(topic, numbers(0, 10))
    old = describe(topic).topic_id
    admin.delete_topics([topic])[topic].result(30)
    same(topic in admin.list_topics(timeout=10).topics, False)
    create(topic)
    new = describe(topic).topic_id
    same(str(old) == str(new), False)
    produce(topic, [b"anew"])
    same(values(consume(topic)), [b"anew"])


@scenario
def auto_create(topic):
    same(produce(topic, numbers(0, 3)), [0, 1, 2])
    same(values(consume(topic)), numbers(0, 3))


@scenario
def many_partitions(topic):
    create(topic, 50)
    produce(topic, [{"value": b"%d-%d" % (partition, n), "partition": partition} for n in range(20) for partition in range(50)])
    for partition in range(50):
        same(values(consume(topic, partition)), [b"%d-%d" % (partition, n) for n in range(20)])


# Configs


@scenario
def topic_config(topic):
    create(topic)

    def seen():
        entries = configs(ResourceType.TOPIC, topic)
        size = entries["max.message.bytes"]
        return size.value, ConfigSource(size.source).name, entries["cleanup.policy"].value

    same(seen(), ("1048588", "DEFAULT_CONFIG", "delete"))
    alter_config(ResourceType.TOPIC, topic, ("max.message.bytes", AlterConfigOpType.SET, "2000000"),
                 ("cleanup.policy", AlterConfigOpType.APPEND, "compact")).result(30)
    eventually(lambda: same(seen(), ("2000000", "DYNAMIC_TOPIC_CONFIG", "delete,compact")))
    alter_config(ResourceType.TOPIC, topic, ("max.message.bytes", AlterConfigOpType.DELETE, None),
                 ("cleanup.policy", AlterConfigOpType.SUBTRACT, "delete")).result(30)
    eventually(lambda: same(seen(), ("1048588", "DEFAULT_CONFIG", "compact")))


@scenario
def topic_config_refused(topic):
    create(topic)
    for name, key, value, wanted in [
        (topic, "no.such.key", "1", ("INVALID_CONFIG", "Unknown topic config name: no.such.key")),
        (topic, "retention.ms", "soon", ("INVALID_CONFIG", "Invalid value soon for configuration retention.ms: Not a number of type LONG")),
        ("not-there", "retention.ms", "1", ("UNKNOWN_TOPIC_OR_PART", "The topic 'not-there' does not exist.")),
    ]:
        same(refused(alter_config(ResourceType.TOPIC, name, (key, AlterConfigOpType.SET, value))), wanted)
    same(configs(ResourceType.TOPIC, topic)["retention.ms"].value, "604800000")


@scenario
def broker_config(topic):
    create(topic)

    def seen():
        entry = configs(ResourceType.BROKER, "1")["message.max.bytes"]
        return entry.value, ConfigSource(entry.source).name

    same(seen(), ("1048588", "DEFAULT_CONFIG"))
    alter_config(ResourceType.BROKER, "1", ("message.max.bytes", AlterConfigOpType.SET, "3000000")).result(30)
    eventually(lambda: same(seen(), ("3000000", "DYNAMIC_BROKER_CONFIG")))
    same(configs(ResourceType.TOPIC, topic)["max.message.bytes"].value, "3000000")
    produce(topic, [b"x" * 2_500_000], message_max_bytes=10_000_000)
    alter_config(ResourceType.BROKER, "1", ("message.max.bytes", AlterConfigOpType.DELETE, None)).result(30)
    eventually(lambda: same(seen(), ("1048588", "DEFAULT_CONFIG")))
    same(refused(alter_config(ResourceType.BROKER, "1", ("log.dirs", AlterConfigOpType.SET, "/x"))),
         ("INVALID_REQUEST", "Cannot update these configs dynamically: [log.dirs]"))


# Records


def round_trip(topic, **config):
    create(topic)
    same(produce(topic, numbers(0, 1000), **config), list(range(1000)))
    messages = consume(topic)
    same(values(messages), numbers(0, 1000))
    same([message.offset() for message in messages], list(range(1000)))


@scenario
def acks_0(topic):
    create(topic)
    produce(topic, numbers(0, 1000), acks="0")
    same(values(consume(topic, end=1000)), numbers(0, 1000))


@scenario
def acks_1(topic):
    round_trip(topic, acks="1")


@scenario
def acks_all(topic):
    round_trip(topic, acks="all")


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
    same(values(consume(topic)), numbers(0, 1000))


@scenario
def idempotent(topic):
    round_trip(topic, enable_idempotence=True)


@scenario
def keys_headers(topic):
    create(topic)
    headers = [("a", b"1"), ("b", b""), ("c", None), ("a", b"2")]
    produce(topic, [
        {"key": b"k", "value": b"v", "headers": headers, "timestamp": 1_600_000_000_123},
        {"key": b"", "value": b""},
        {"value": b"no key"},
    ])
    first, second, third = consume(topic)
    same((first.key(), first.value(), first.headers()), (b"k", b"v", headers))
    same(first.timestamp(), (1, 1_600_000_000_123))
    same((second.key(), second.value(), second.headers()), (b"", b"", None))
    same((third.key(), third.value()), (None, b"no key"))


@scenario
def tombstone(topic):
    create(topic)
    produce(topic, [{"key": b"gone", "value": None}, {"key": b"empty", "value": b""}])
    same([(message.key(), message.value()) for message in consume(topic)], [(b"gone", None), (b"empty", b"")])


@scenario
def log_append_time(topic):
    create(topic, message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    produce(topic, [{"value": b"v", "timestamp": 1_600_000_000_123}])
    kind, timestamp = consume(topic)[0].timestamp()
    same(kind, 2)
    same(before <= timestamp <= time.time() * 1000, True)


@scenario
def big_message(topic):
    create(topic)
    value = random.Random(1).randbytes(900_000)
    produce(topic, [value])
    same(values(consume(topic)) == [value], True)


@scenario
def too_large(topic):
    create(topic)
    value = random.Random(1).randbytes(1_500_000)
    try:
        produce(topic, [value], message_max_bytes=10_000_000)
        raise AssertionError("accepted")
    except KafkaException as refusal:
        same(refusal.args[0].name(), "MSG_SIZE_TOO_LARGE")
    alter_config(ResourceType.TOPIC, topic, ("max.message.bytes", AlterConfigOpType.SET, "2000000")).result(30)
    same(produce(topic, [value], message_max_bytes=10_000_000), [0])
    same(values(consume(topic)) == [value], True)


# Reading


@scenario
def consume_middle(topic):
    create(topic)
    produce(topic, numbers(0, 100), linger_ms=100)
    same(values(consume(topic, start=37)), numbers(37, 100))
    same(values(consume(topic, start=98)), numbers(98, 100))


@scenario
def long_poll(topic):
    create(topic)
    read = []
    reader = threading.Thread(target=lambda: read.extend(consume(topic, end=1, **{"fetch.wait.max.ms": 20_000})))
    reader.start()
    time.sleep(1)  # it waits at the end now, or will soon: either way it must see the record at once
    began = time.monotonic()
    produce(topic, [b"late"])
    reader.join(30)
    same(values(read), [b"late"])
    same(time.monotonic() - began < 5, True)


@scenario
def offset_out_of_range(topic):
    create(topic)
    produce(topic, numbers(0, 10))
    try:
        consume(topic, start=1000, end=1001, **{"auto.offset.reset": "error"})
        raise AssertionError("read")
    except KafkaException as refusal:
        same(refusal.args[0].name(), "_AUTO_OFFSET_RESET")
        same("Broker: Offset out of range" in refusal.args[0].str(), True)
    same(values(consume(topic, start=1000, **{"auto.offset.reset": "earliest"})), numbers(0, 10))


def listed(topic, spec, **options):
    partition = TopicPartition(topic, 0)
    seen = admin.list_offsets({partition: spec}, **options)[partition].result(30)
    return seen.offset, seen.timestamp


@scenario
def offsets_by_time(topic):
    create(topic)
    times = [2_000, 1_000, 5_000, 3_000, 5_000, 4_000]
    produce(topic, [{"value": b"v", "timestamp": 1_600_000_000_000 + t} for t in times])
    at = lambda t: listed(topic, OffsetSpec.for_timestamp(1_600_000_000_000 + t))
    same(at(0), (0, 1_600_000_002_000))
    same(at(2_001), (2, 1_600_000_005_000))
    same(at(5_000), (2, 1_600_000_005_000))
    same(at(5_001), (-1, -1))
    same(listed(topic, OffsetSpec.earliest()), (0, -1))
    same(listed(topic, OffsetSpec.latest()), (6, -1))
    same(listed(topic, OffsetSpec.max_timestamp()), (2, 1_600_000_005_000))


@scenario
def read_committed(topic):
    create(topic)
    produce(topic, numbers(0, 100))
    same(values(consume(topic, **{"isolation.level": "read_committed"})), numbers(0, 100))
    same(listed(topic, OffsetSpec.latest(), isolation_level=IsolationLevel.READ_COMMITTED), (100, -1))


@scenario
def delete_records(topic):
    create(topic)
    produce(topic, numbers(0, 100))
    delete = lambda offset: admin.delete_records([TopicPartition(topic, 0, offset)])[TopicPartition(topic, 0)]
    same(delete(40).result(30).low_watermark, 40)
    same(listed(topic, OffsetSpec.earliest()), (40, -1))
    same(values(consume(topic, start=-2)), numbers(40, 100))
    same(refused(delete(101))[0], "OFFSET_OUT_OF_RANGE")
    same(delete(-1).result(30).low_watermark, 100)
    same(listed(topic, OffsetSpec.earliest()), (100, -1))


# Operations


@scenario
def elect_leaders(topic):
    create(topic)
    partition = TopicPartition(topic, 0)
    seen = admin.elect_leaders(ElectionType.PREFERRED, [partition]).result(30)[partition]
    same((seen.name(), seen.str()), ("ELECTION_NOT_NEEDED", "Leader election not needed for topic partition."))


# Restarts


def survives(topic, how):
    create(topic, 2, retention_ms="86400000")
    old = describe(topic).topic_id
    produce(topic, [{"value": value, "key": b"k", "partition": 1} for value in numbers(0, 100)])
    broker(how)
    same(values(eventually(lambda: consume(topic, 1))), numbers(0, 100))
    same(str(describe(topic).topic_id), str(old))
    same(configs(ResourceType.TOPIC, topic)["retention.ms"].value, "86400000")
    same(produce(topic, [{"value": b"more", "partition": 1}]), [100])


@scenario
def restart(topic):
    survives(topic, "restart")


@scenario
def kill_9(topic):
    survives(topic, "kill")


@scenario
def idempotent_kills(topic):
    """A producer at its defaults but for idempotence goes on through twenty kills of the broker."""
    create(topic)
    acknowledged, failed = [], []
    stop = threading.Event()
    producer = Producer(BASE | {"enable.idempotence": True})

    def produce_on():
        number = 0
        while not stop.is_set():
            try:
                producer.produce(topic, b"%d" % number, on_delivery=delivered)
                number += 1
                producer.poll(0.01 if number % 100 == 0 else 0)
            except BufferError:  # full while the broker is away
                producer.poll(0.1)
        producer.flush(120)

    def delivered(error, message):
        if error:
            failed.append(error)
        else:
            acknowledged.append(int(message.value()))

    thread = threading.Thread(target=produce_on)
    thread.start()
    for _ in range(20):
        wanted = len(acknowledged) + 2_000
        while len(acknowledged) < wanted and not failed:
            time.sleep(0.01)
        broker("kill")
    stop.set()
    thread.join()
    stored = eventually(lambda: consume(topic))
    return once_in_order([int(value) for value in values(stored)], acknowledged, failed)


def once_in_order(stored, acknowledged, failed):
    twice = len(stored) - len(set(stored))
    lost = len(set(acknowledged) - set(stored))
    disordered = sum(later < earlier for earlier, later in zip(stored, stored[1:]))
    counts = f"{len(acknowledged)} acknowledged, {len(failed)} failed, {lost} lost, {twice} twice, {disordered} out of order"
    if lost or twice or disordered or failed:
        raise AssertionError(f"{counts} {failed[:1]}")
    return counts
