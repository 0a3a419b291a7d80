"""librdkafka's scenarios with groups, and the one with compaction. A group has its topic's name."""

import subprocess
import sys
import threading

from confluent_kafka import Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, ConsumerGroupType, KafkaException, TopicPartition
from scenarios import BASE, admin, consume, create, numbers, produce, refused, values
from talk import broker, eventually, same, scenario


class Member:
    """A consumer in a group, with all that came to it and all that was taken from it."""

    def __init__(self, group, topics=None, **config):
        self.records, self.given, self.taken = [], [], []
        self.consumer = Consumer(BASE | {
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 50,
            "topic.metadata.refresh.interval.ms": 500,
        } | {key.replace("_", "."): value for key, value in config.items()})
        self.consumer.subscribe(
            topics or [group],
            on_assign=lambda _, partitions: self.given.append(indexes(partitions)),
            on_revoke=lambda _, partitions: self.taken.append(indexes(partitions)),
        )

    def poll(self):
        message = self.consumer.poll(0.05)
        if message and not message.error():
            self.records.append(message)
        elif message and message.error().name() not in ("_TRANSPORT", "_ALL_BROKERS_DOWN", "UNKNOWN_TOPIC_OR_PART"):
            raise KafkaException(message.error())

    def has(self):
        return indexes(self.consumer.assignment())

    def close(self):
        self.consumer.close()


def indexes(partitions):
    return sorted(partition.partition for partition in partitions)


def together(*members, wanted, seconds=60):
    """Let the members poll in turn until what is `wanted` holds, as a consumer must to keep its place."""

    def turn():
        for member in members:
            member.poll()
        if not wanted():
            raise AssertionError(f"not in time: {[(member.has(), len(member.records)) for member in members]}")

    eventually(turn, seconds)


def spread(topic, each, first=0):
    """`each` records into each of four partitions; the values."""
    records = [{"value": b"%d-%d" % (partition, number), "partition": partition}
               for partition in range(4) for number in range(first, first + each)]
    produce(topic, records)
    return sorted(record["value"] for record in records)


def both_have_two(a, b):
    return len(a.has()) == len(b.has()) == 2 and sorted(a.has() + b.has()) == [0, 1, 2, 3]


def shared(topic, **config):
    """Two members with two partitions each; every record once; what one leaves the other gets."""
    create(topic, 4)
    a, b = Member(topic, **config), Member(topic, **config)
    together(a, b, wanted=lambda: both_have_two(a, b))
    sent = spread(topic, 25)
    together(a, b, wanted=lambda: len(a.records) + len(b.records) >= len(sent))
    same(sorted(values(a.records + b.records)), sent)
    same([len(a.records), len(b.records)], [50, 50])
    a.consumer.commit(asynchronous=False)
    b.consumer.commit(asynchronous=False)
    b.close()
    together(a, wanted=lambda: a.has() == [0, 1, 2, 3])
    a.records.clear()
    more = spread(topic, 5, first=25)
    together(a, wanted=lambda: len(a.records) >= len(more))
    same(sorted(values(a.records)), more)
    a.close()


def described(group):
    return admin.describe_consumer_groups([group])[group].result(30)


@scenario
def group_consume(topic):
    create(topic)
    produce(topic, numbers(0, 100))
    first = Member(topic)
    together(first, wanted=lambda: len(first.records) == 100)
    same(values(first.records), numbers(0, 100))
    first.consumer.commit(asynchronous=False)
    first.close()
    broker("restart")
    produce(topic, numbers(100, 150))
    second = Member(topic)
    together(second, wanted=lambda: len(second.records) >= 50)
    same(values(second.records), numbers(100, 150))
    same(second.consumer.committed([TopicPartition(topic, 0)], 30)[0].offset, 100)
    second.close()


@scenario
def group_two_members(topic):
    shared(topic, partition_assignment_strategy="range")


@scenario
def group_cooperative(topic):
    create(topic, 4)
    a = Member(topic, partition_assignment_strategy="cooperative-sticky")
    together(a, wanted=lambda: a.has() == [0, 1, 2, 3])
    b = Member(topic, partition_assignment_strategy="cooperative-sticky")
    together(a, b, wanted=lambda: both_have_two(a, b))
    same([len(taken) for taken in a.taken], [2])  # what stays is not revoked
    same(a.taken[0], b.has())
    b.close()
    together(a, wanted=lambda: a.has() == [0, 1, 2, 3])
    same(len(a.taken), 1)
    a.close()


@scenario
def group_static(topic):
    create(topic, 4)
    config = {"partition_assignment_strategy": "range", "session_timeout_ms": 30_000}
    a, b = Member(topic, group_instance_id="a", **config), Member(topic, group_instance_id="b", **config)
    together(a, b, wanted=lambda: both_have_two(a, b))
    same(sorted(member.group_instance_id for member in described(topic).members), ["a", "b"])
    before, rebalances = b.has(), (len(a.given), len(a.taken))
    b.close()  # a static member says nothing when it goes
    b = Member(topic, group_instance_id="b", **config)
    together(a, b, wanted=lambda: b.has() == before)
    sent = spread(topic, 5)
    together(a, b, wanted=lambda: len(a.records) + len(b.records) == len(sent))
    same((len(a.given), len(a.taken)), rebalances)
    a.close()
    b.close()


@scenario
def group_consumer_protocol(topic):
    new = {"group_protocol": "consumer"}
    shared(topic, **new, group_remote_assignor="range")
    create(f"{topic}.1", 2)
    regex = Member(f"{topic}-regex", [f"^{topic}[.][0-9]+$"], **new)
    together(regex, wanted=lambda: regex.has() == [0, 1])
    create(f"{topic}.2", 1)
    together(regex, wanted=lambda: regex.has() == [0, 0, 1])
    seen = described(f"{topic}-regex")
    same((seen.state, seen.type, seen.partition_assignor, len(seen.members)),
         (ConsumerGroupState.STABLE, ConsumerGroupType.CONSUMER, "uniform", 1))
    regex.close()


def alone(topic):
    """A member in a process of its own, which commits what it reads, until it is killed."""
    return subprocess.Popen([sys.executable, __file__, *topic], stdin=subprocess.DEVNULL, stdout=sys.stderr)


def takes_over(topic, protocol, **config):
    """A member is killed and says nothing: in time the other has its partitions, from what was committed."""
    create(topic, 4)
    a = Member(topic, group_protocol=protocol, **config)
    together(a, wanted=lambda: a.has() == [0, 1, 2, 3])
    with alone([topic, protocol]) as b:
        try:
            together(a, wanted=lambda: len(a.has()) == 2 == len(assigned_elsewhere(topic, a)))
            spread(topic, 5)
            together(a, wanted=lambda: len(a.records) == 10 == sum(stored(topic, assigned_elsewhere(topic, a)).values()))
            a.consumer.commit(asynchronous=False)
        finally:
            b.kill()
    together(a, wanted=lambda: a.has() == [0, 1, 2, 3])
    a.records.clear()
    more = spread(topic, 3, first=5)
    together(a, wanted=lambda: len(a.records) >= len(more))
    same(sorted(values(a.records)), more)
    a.close()


def assigned_elsewhere(topic, member):
    others = [one for one in described(topic).members if one.member_id != member.consumer.memberid()]
    return [index for one in others for index in indexes(one.assignment.topic_partitions)]


def stored(group, partitions):
    answer = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(30)
    return {seen.partition: seen.offset for seen in answer.topic_partitions if seen.partition in partitions}


@scenario
def group_member_killed(topic):
    takes_over(topic, "classic", **KILLED)
    takes_over(f"{topic}-consumer", "consumer")


KILLED = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 500}


@scenario
def group_reset(topic):
    create(topic)
    produce(topic, numbers(0, 100))
    earliest = Member(f"{topic}-earliest", [topic])
    together(earliest, wanted=lambda: earliest.records)
    same(earliest.records[0].offset(), 0)
    earliest.close()
    latest = Member(f"{topic}-latest", [topic], auto_offset_reset="latest")
    together(latest, wanted=lambda: latest.has() == [0])
    together(latest, wanted=lambda: latest.records or not produce(topic, [b"new"]))
    same(latest.records[0].offset() >= 100, True)
    latest.close()
    none = Member(f"{topic}-none", [topic], auto_offset_reset="error")
    try:
        while not none.records:
            none.poll()
        raise AssertionError("read")
    except KafkaException as refusal:
        same(refusal.args[0].name(), "_AUTO_OFFSET_RESET")
        same("no previously committed offset" in refusal.args[0].str(), True)
    none.close()
    before = Member(f"{topic}-before", [topic])
    together(before, wanted=lambda: before.has() == [0])
    before.consumer.commit(offsets=[TopicPartition(topic, 0, 10)], asynchronous=False)
    before.close()
    admin.delete_records([TopicPartition(topic, 0, 40)])[TopicPartition(topic, 0)].result(30)
    before = Member(f"{topic}-before", [topic])
    together(before, wanted=lambda: before.records)
    same(before.records[0].offset(), 40)
    before.close()


@scenario
def group_kill_9(topic):
    create(topic)
    produce(topic, numbers(0, 20_000))
    counts = [through_kills(topic, f"{topic}-{protocol}", protocol) for protocol in ("classic", "consumer")]
    return f"{counts} committed"


def through_kills(topic, group, protocol):
    """A member commits after every batch through a kill; another goes on from what is committed; three times."""
    read, acknowledged = 0, 0
    for _ in range(3):
        member = Member(group, [topic], group_protocol=protocol)
        together(member, wanted=lambda: member.records)
        start = member.records[0].offset()
        same(acknowledged <= start <= read, True)
        kill, batches = None, 0
        while kill is None or kill.is_alive() or batches < 3:
            member.poll()
            if member.records:
                last = member.records[-1].offset()
                # After the broker was away it may have to join anew, and then reads again from what is committed.
                if member.records[0].offset() < start:
                    start = member.records[0].offset()
                    same(acknowledged <= start, True)
                same([record.offset() for record in member.records], list(range(start, last + 1)))
                read, start = max(read, last + 1), last + 1
                try:
                    member.consumer.commit(message=member.records[-1], asynchronous=False)
                    acknowledged = last + 1
                    batches += 1
                except KafkaException as failure:
                    print(f"commit: {failure}")
                member.records.clear()
            if kill is None and batches == 20:
                kill, batches = threading.Thread(target=broker, args=("kill",)), 0
                kill.start()
        member.close()
    eventually(lambda: same(stored(group, [0]), {0: acknowledged}))
    return acknowledged


@scenario
def offsets(topic):
    create(topic, 2)
    consumer = Consumer(BASE | {"group.id": topic, "enable.auto.commit": False})
    at = lambda partition, offset, note="": TopicPartition(topic, partition, offset, note)

    def commit(partition):
        answer = consumer.commit(offsets=[partition], asynchronous=False)[0]
        return answer.error and answer.error.name()

    def failure(partition):
        try:
            return commit(partition)
        except KafkaException as refusal:
            return refusal.args[0].name()

    eventually(lambda: same(failure(at(0, 42, "a note")), None))  # the group's coordinator may not have begun
    seen = consumer.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], 30)
    same([(partition.offset, partition.metadata) for partition in seen], [(42, "a note"), (-1001, None)])
    same(failure(at(7, 1)), "UNKNOWN_TOPIC_OR_PART")
    same(failure(at(0, 43, "x" * 4097)), "OFFSET_METADATA_TOO_LARGE")
    same(failure(at(0, 43, "x" * 4095)), None)  # one less than others may: it sends an end of string too
    same(consumer.committed([TopicPartition(topic, 0)], 30)[0].offset, 43)
    consumer.close()


@scenario
def groups_admin(topic):
    create(topic, 2)
    produce(topic, numbers(0, 10))
    partition = lambda index, offset=-1001: TopicPartition(topic, index, offset)

    def listed(**options):
        result = admin.list_consumer_groups(**options).result(30)
        return [(group.state, group.type) for group in result.valid if group.group_id == topic]

    def stored():
        answer = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(topic)])[topic].result(30)
        return sorted((seen.partition, seen.offset) for seen in answer.topic_partitions)

    def alter(*partitions):
        wanted = ConsumerGroupTopicPartitions(topic, list(partitions))
        answer = admin.alter_consumer_group_offsets([wanted])[topic].result(30)
        return {seen.error and seen.error.name() for seen in answer.topic_partitions}

    same(listed(), [])
    same(refused(admin.delete_consumer_groups([topic])[topic])[0], "GROUP_ID_NOT_FOUND")
    member = Member(topic, partition_assignment_strategy="range", client_id="a client")
    together(member, wanted=lambda: len(member.records) == 10)
    member.consumer.commit(asynchronous=False)

    stable, empty = (ConsumerGroupState.STABLE, ConsumerGroupType.CLASSIC), (ConsumerGroupState.EMPTY, ConsumerGroupType.CLASSIC)
    same(listed(), [stable])
    same(listed(states={ConsumerGroupState.EMPTY}), [])
    same(listed(types={ConsumerGroupType.CONSUMER}), [])
    same(listed(states={ConsumerGroupState.STABLE}, types={ConsumerGroupType.CLASSIC}), [stable])
    seen = described(topic)
    same((seen.state, seen.type, seen.partition_assignor, seen.coordinator.id), (*stable, "range", 1))
    same([(one.client_id, one.host, indexes(one.assignment.topic_partitions)) for one in seen.members],
         [("a client", "/127.0.0.1", [0, 1])])
    same(sum(offset for _, offset in stored() if offset > 0), 10)
    same(alter(partition(0, 3)), {"UNKNOWN_MEMBER_ID"})
    same(refused(admin.delete_consumer_groups([topic])[topic])[0], "NON_EMPTY_GROUP")
    member.close()

    eventually(lambda: same(listed(), [empty]))
    same(alter(partition(0, 3), partition(1, 1)), {None})
    same(stored(), [(0, 3), (1, 1)])
    admin.delete_consumer_groups([topic])[topic].result(30)
    same(listed(), [])
    same(stored(), [])


@scenario
def compacted_topic(topic):
    create(topic, cleanup_policy="compact", segment_bytes="1048576", min_cleanable_dirty_ratio="0.01", delete_retention_ms="100")
    keys = [b"key-%d" % number for number in range(5)]
    produce(topic, [{"key": key, "value": b"%d" % number} for number in range(200) for key in keys])
    produce(topic, [{"key": b"key-0", "value": None}])

    def cleaned():
        # What is written last stays in the active segment, which is never cleaned: so it has to be passed on.
        produce(topic, [{"key": b"filler", "value": b"x" * 600_000}])
        left = [message for message in consume(topic, start=-2) if message.key() != b"filler"]
        same([(message.key(), message.value(), message.offset()) for message in left],
             [(key, b"199", 995 + index) for index, key in enumerate(keys) if index])

    eventually(cleaned, 60)


if __name__ == "__main__":
    name, protocol = sys.argv[1:]
    member = Member(name, group_protocol=protocol, **(KILLED if protocol == "classic" else {}))
    while True:
        member.poll()
        if member.records:
            member.consumer.commit(asynchronous=False)
            member.records.clear()
