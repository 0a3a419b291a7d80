"""kafka-python's scenarios with groups, and the one with compaction. A group has its topic's name."""

import queue
import subprocess
import sys
import threading
from concurrent.futures import Future

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.admin import GroupState, GroupType
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    GroupIdNotFoundError,
    GroupSubscribedToTopicError,
    KafkaError,
    KafkaTimeoutError,
    NoOffsetForPartitionError,
    NonEmptyGroupError,
    OffsetMetadataTooLargeError,
    UnknownMemberIdError,
)
from scenarios import admin, create, numbers, produce, refused, values
from talk import BOOTSTRAP, broker, eventually, same, scenario


class Member(ConsumerRebalanceListener):
    """A consumer in a group, with all that came to it and all that was taken from it.

    It reads in a thread of its own: when this client's poll runs out of time while it joins, it may believe that it has
    joined and never take its partitions.
    """

    def __init__(self, group, topic=None, thread=True, **config):
        self.records, self.given, self.taken = [], [], []
        self.asked, self.failure = queue.Queue(), None
        self.consumer = KafkaConsumer(**{
            "bootstrap_servers": BOOTSTRAP,
            "group_id": group,
            "auto_offset_reset": "earliest",
            "enable_auto_commit": False,
            "fetch_max_wait_ms": 50,
            "heartbeat_interval_ms": 500,
            "partition_assignment_strategy": [RangePartitionAssignor],
        } | config)
        self.consumer.subscribe([topic or group], listener=self)
        if thread:
            threading.Thread(target=self.read, daemon=True).start()

    def on_partitions_assigned(self, partitions):
        self.given.append(indexes(partitions))

    def on_partitions_revoked(self, partitions):
        self.taken.append(indexes(partitions))

    def poll(self):
        for records in self.consumer.poll(2_000).values():
            self.records.extend(records)

    def read(self):
        try:
            action = None
            while action != self.consumer.close:
                self.poll()
                while not self.asked.empty():
                    action, done = self.asked.get()
                    done.set_result(action())
        except Exception as failure:
            self.failure = failure

    def ask(self, action):
        done = Future()
        self.asked.put((action, done))
        done.result(60)

    def commit(self):
        self.ask(self.consumer.commit)

    def close(self):
        self.ask(self.consumer.close)

    def has(self):
        return indexes(self.consumer.assignment())


def indexes(partitions):
    return sorted(partition.partition for partition in partitions)


def together(*members, wanted):
    """Wait until what is `wanted` of the members holds."""

    def attempt():
        if not wanted():
            raise AssertionError(f"not in time: {[(member.has(), len(member.records), member.failure) for member in members]}")

    eventually(attempt, 60)


def spread(topic, each, first=0):
    """`each` records into each of four partitions; the values."""
    records = [{"value": b"%d-%d" % (partition, number), "partition": partition}
               for partition in range(4) for number in range(first, first + each)]
    produce(topic, records)
    return sorted(record["value"] for record in records)


def both_have_two(a, b):
    return len(a.has()) == len(b.has()) == 2 and sorted(a.has() + b.has()) == [0, 1, 2, 3]


def stored(group):
    return {partition.partition: seen.offset for partition, seen in admin.list_group_offsets([group])[group].items()}


@scenario
def group_consume(topic):
    create(topic)
    produce(topic, numbers(0, 100))
    first = Member(topic)
    together(first, wanted=lambda: len(first.records) == 100)
    same(values(first.records), numbers(0, 100))
    first.commit()
    first.close()
    broker("restart")
    produce(topic, numbers(100, 150))
    second = Member(topic)
    together(second, wanted=lambda: len(second.records) >= 50)
    same(values(second.records), numbers(100, 150))
    second.close()
    eventually(lambda: same(stored(topic), {0: 100}))  # the admin client takes a while to connect again


@scenario
def group_two_members(topic):
    create(topic, 4)
    a, b = Member(topic), Member(topic)
    together(a, b, wanted=lambda: both_have_two(a, b))
    sent = spread(topic, 25)
    together(a, b, wanted=lambda: len(a.records) + len(b.records) >= len(sent))
    same(sorted(values(a.records + b.records)), sent)
    same([len(a.records), len(b.records)], [50, 50])
    a.commit()
    b.commit()
    b.close()
    together(a, wanted=lambda: a.has() == [0, 1, 2, 3])
    a.records.clear()
    more = spread(topic, 5, first=25)
    together(a, wanted=lambda: len(a.records) >= len(more))
    same(sorted(values(a.records)), more)
    a.close()


@scenario
def group_cooperative(topic):
    create(topic, 4)
    config = {"partition_assignment_strategy": [CooperativeStickyAssignor]}
    a = Member(topic, **config)
    together(a, wanted=lambda: a.has() == [0, 1, 2, 3])
    b = Member(topic, **config)
    together(a, b, wanted=lambda: both_have_two(a, b))
    same([taken for taken in a.taken if taken], [b.has()])  # what stays is not revoked
    b.close()
    together(a, wanted=lambda: a.has() == [0, 1, 2, 3])
    same(len([taken for taken in a.taken if taken]), 1)
    a.close()


@scenario
def group_static(topic):
    create(topic, 4)
    config = {"session_timeout_ms": 30_000}
    a, b = Member(topic, group_instance_id="a", **config), Member(topic, group_instance_id="b", **config)
    together(a, b, wanted=lambda: both_have_two(a, b))
    members = admin.describe_groups([topic])[topic]["members"]
    same(sorted(member["group_instance_id"] for member in members), ["a", "b"])
    before, rebalances = b.has(), (len(a.given), len(a.taken))
    b.close()  # a static member says nothing when it goes
    b = Member(topic, group_instance_id="b", **config)
    together(a, b, wanted=lambda: b.has() == before)
    sent = spread(topic, 5)
    together(a, b, wanted=lambda: len(a.records) + len(b.records) == len(sent))
    same((len(a.given), len(a.taken)), rebalances)
    a.close()
    b.close()


KILLED = {"session_timeout_ms": 6_000}


@scenario
def group_member_killed(topic):
    """A member is killed and says nothing: in time the other has its partitions, from what was committed."""
    create(topic, 4)
    a = Member(topic, **KILLED)
    together(a, wanted=lambda: a.has() == [0, 1, 2, 3])
    with subprocess.Popen([sys.executable, __file__, topic], stdin=subprocess.DEVNULL, stdout=sys.stderr) as b:
        try:
            together(a, wanted=lambda: len(a.has()) == 2)
            spread(topic, 5)
            together(a, wanted=lambda: len(a.records) == 10 == sum(stored(topic).values()))  # what b has committed
            a.commit()
        finally:
            b.kill()
    together(a, wanted=lambda: a.has() == [0, 1, 2, 3])
    a.records.clear()
    more = spread(topic, 3, first=5)
    together(a, wanted=lambda: len(a.records) >= len(more))
    same(sorted(values(a.records)), more)
    a.close()


@scenario
def group_reset(topic):
    create(topic)
    produce(topic, numbers(0, 100))
    earliest = Member(f"{topic}-earliest", topic)
    together(earliest, wanted=lambda: earliest.records)
    same(earliest.records[0].offset, 0)
    earliest.close()
    latest = Member(f"{topic}-latest", topic, auto_offset_reset="latest")
    together(latest, wanted=lambda: latest.has() == [0])
    together(latest, wanted=lambda: latest.records or not produce(topic, [b"new"]))
    same(latest.records[0].offset >= 100, True)
    latest.close()
    none = Member(f"{topic}-none", topic, auto_offset_reset="none")
    together(none, wanted=lambda: none.failure)
    same(type(none.failure), NoOffsetForPartitionError)
    none.consumer.close()
    admin.alter_group_offsets(f"{topic}-before", {TopicPartition(topic, 0): OffsetAndMetadata(10, "", -1)})
    admin.delete_records({TopicPartition(topic, 0): 40})
    before = Member(f"{topic}-before", topic)
    together(before, wanted=lambda: before.records)
    same(before.records[0].offset, 40)
    before.close()


@scenario
def group_kill_9(topic):
    """A member commits after every batch through a kill; another goes on from what is committed; three times."""
    create(topic)
    produce(topic, numbers(0, 20_000))
    read, acknowledged = 0, 0
    for _ in range(3):
        member = Member(topic, thread=False, max_poll_records=10)
        while not member.records:
            member.poll()
        next = member.records[0].offset
        same(acknowledged <= next <= read, True)
        kill, batches = None, 0
        while kill is None or kill.is_alive() or batches < 3:
            if member.records:
                same([record.offset for record in member.records], list(range(next, next + len(member.records))))
                next += len(member.records)
                read = max(read, next)
                member.records.clear()
                try:
                    member.consumer.commit(timeout_ms=10_000)
                    acknowledged = next
                    batches += 1
                except KafkaError as failure:
                    same(failure.retriable or isinstance(failure, KafkaTimeoutError), True)
            if kill is None and batches == 20:
                kill, batches = threading.Thread(target=broker, args=("kill",)), 0
                kill.start()
            member.poll()
        member.consumer.close()
    eventually(lambda: same(stored(topic), {0: acknowledged}))
    return f"{acknowledged} committed"


@scenario
def offsets(topic):
    create(topic, 2)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=topic, enable_auto_commit=False)
    consumer.assign([zero, one])
    consumer.commit({zero: OffsetAndMetadata(42, "a note", -1)})
    same(consumer.committed(zero, metadata=True), OffsetAndMetadata(42, "a note", -1))
    same(consumer.committed(one), None)
    # UNKNOWN_TOPIC_OR_PARTITION: it tries again until its time is over.
    refused(KafkaTimeoutError, lambda: consumer.commit({TopicPartition(topic, 7): OffsetAndMetadata(1, "", -1)}, timeout_ms=1_000))
    refused(OffsetMetadataTooLargeError, lambda: consumer.commit({zero: OffsetAndMetadata(43, "x" * 4097, -1)}))
    same(consumer.committed(zero), 42)
    consumer.commit({zero: OffsetAndMetadata(43, "x" * 4096, -1)})
    same(consumer.committed(zero), 43)
    consumer.close()


@scenario
def groups_admin(topic):
    create(topic, 2)
    produce(topic, [{"value": value, "partition": 0} for value in numbers(0, 10)])
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)

    def listed(**filters):
        return [(group["group_state"], group["group_type"], group["protocol_type"])
                for group in admin.list_groups(**filters) if group["group_id"] == topic]

    def alter():
        return admin.alter_group_offsets(topic, {zero: OffsetAndMetadata(3, "", -1), one: OffsetAndMetadata(1, "", -1)})

    same(listed(), [])
    same(admin.delete_groups([topic]), {topic: GroupIdNotFoundError.__name__})
    missing = admin.describe_groups([topic])[topic]
    same((missing["group_state"], missing["error"]), ("Dead", "[Error 69] GroupIdNotFoundError: Group groups-admin not found."))
    member = Member(topic, client_id="a client")
    together(member, wanted=lambda: len(member.records) == 10)
    member.commit()

    stable, empty = ("Stable", "classic", "consumer"), ("Empty", "classic", "consumer")
    same(listed(), [stable])
    same(listed(states_filter=[GroupState.EMPTY]), [])
    same(listed(types_filter=[GroupType.CONSUMER]), [])
    same(listed(states_filter=[GroupState.STABLE], types_filter=[GroupType.CLASSIC]), [stable])
    seen = admin.describe_groups([topic])[topic]
    same((seen["group_state"], seen["protocol_type"], seen["protocol_data"]), ("Stable", "consumer", "range"))
    same([(one["client_id"], one["client_host"], one["member_assignment"]["assigned_partitions"]) for one in seen["members"]],
         [("a client", "/127.0.0.1", [{"topic": topic, "partitions": [0, 1]}])])
    same(stored(topic)[0], 10)
    same(set(alter().values()), {UnknownMemberIdError})
    same(admin.delete_group_offsets(topic, [zero]), {zero: GroupSubscribedToTopicError})
    same(admin.delete_groups([topic]), {topic: NonEmptyGroupError.__name__})
    member.close()

    eventually(lambda: same(listed(), [empty]))
    alter()
    same(stored(topic), {0: 3, 1: 1})
    admin.delete_group_offsets(topic, [one])
    same(stored(topic), {0: 3})
    same(admin.delete_groups([topic]), {topic: "OK"})
    same(listed(), [])
    same(stored(topic), {})


@scenario
def compacted_topic(topic):
    create(topic, cleanup_policy="compact", segment_bytes="1048576", min_cleanable_dirty_ratio="0.01", delete_retention_ms="100")
    keys = [b"key-%d" % number for number in range(5)]
    produce(topic, [{"key": key, "value": b"%d" % number} for number in range(200) for key in keys] + [{"key": b"key-0"}])

    def cleaned():
        # What is written last stays in the active segment, which is never cleaned: so it has to be passed on.
        end = produce(topic, [{"key": b"filler", "value": b"x" * 600_000}])[0]
        left = []
        consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, fetch_max_wait_ms=50, consumer_timeout_ms=40_000)
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        for record in consumer:
            if record.key != b"filler":
                left.append((record.key, record.value, record.offset))
            if record.offset == end:
                break
        consumer.close()
        same(left, [(key, b"199", 995 + index) for index, key in enumerate(keys) if index])

    eventually(cleaned, 60)


if __name__ == "__main__":
    member = Member(sys.argv[1], thread=False, **KILLED)
    while True:
        member.poll()
        if member.records:
            member.consumer.commit()
            member.records.clear()
