"""kafka-python's scenarios with transactions. A scenario's transactional id has its topic's name."""

import time

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, ProducerFencedError, TransactionalIdNotFoundError
from groups import stored
from killed import whole_or_not_at_all, while_killed
from scenarios import admin, create, numbers, produce, refused
from talk import BOOTSTRAP, eventually, same, scenario

PARTITIONS = range(3)
COMMITTED, UNCOMMITTED = "read_committed", "read_uncommitted"


def transactional(topic):
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=topic)
    producer.init_transactions()
    return producer


def send(producer, topic, first, last):
    """Values into each partition; what they are there."""
    sent = [producer.send(topic, value, partition=partition) for value in numbers(first, last) for partition in PARTITIONS]
    producer.flush(30)
    for future in sent:
        future.get(30)
    return [numbers(first, last)] * len(PARTITIONS)


def ends(topic, isolation):
    """Where each partition ends: for read_committed, at its last stable offset."""
    asked = {TopicPartition(topic, partition): OffsetSpec.LATEST for partition in PARTITIONS}
    seen = admin.list_partition_offsets(asked, isolation_level=isolation)
    return [seen[TopicPartition(topic, partition)].offset for partition in PARTITIONS]


def read(topic, isolation):
    left = {TopicPartition(topic, partition): end for partition, end in enumerate(ends(topic, isolation)) if end}
    seen = [[] for _ in PARTITIONS]
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, fetch_max_wait_ms=20, isolation_level=isolation)
    try:
        consumer.assign(list(left))
        if left:
            consumer.seek_to_beginning()
        deadline = time.monotonic() + 40
        while any(consumer.position(partition) < end for partition, end in left.items()):
            same(time.monotonic() < deadline, True)
            for partition, records in consumer.poll(100).items():
                seen[partition.partition].extend(record.value for record in records)
        return seen
    finally:
        consumer.close()


@scenario
def txn_commit(topic):
    create(topic, len(PARTITIONS))
    producer = transactional(topic)
    producer.begin_transaction()
    sent = send(producer, topic, 0, 10)
    same((ends(topic, UNCOMMITTED), ends(topic, COMMITTED)), ([10] * 3, [0] * 3))
    same(read(topic, UNCOMMITTED), sent)
    producer.commit_transaction()
    eventually(lambda: same(ends(topic, COMMITTED), [11] * 3))
    same(read(topic, COMMITTED), sent)
    same(read(topic, UNCOMMITTED), sent)
    producer.close()


@scenario
def txn_abort(topic):
    create(topic, len(PARTITIONS))
    producer = transactional(topic)
    producer.begin_transaction()
    aborted = send(producer, topic, 0, 10)
    producer.abort_transaction()
    eventually(lambda: same(ends(topic, COMMITTED), [11] * 3))
    same(read(topic, COMMITTED), [[]] * 3)
    same(read(topic, UNCOMMITTED), aborted)
    producer.begin_transaction()
    kept = send(producer, topic, 10, 15)
    producer.commit_transaction()
    eventually(lambda: same(ends(topic, COMMITTED), [17] * 3))
    same(read(topic, COMMITTED), kept)
    same(read(topic, UNCOMMITTED), [numbers(0, 15)] * 3)
    producer.close()


@scenario
def txn_fencing(topic):
    create(topic, len(PARTITIONS))
    first = transactional(topic)
    first.begin_transaction()
    send(first, topic, 0, 5)
    second = transactional(topic)
    refused(ProducerFencedError, first.commit_transaction)
    second.begin_transaction()
    kept = send(second, topic, 5, 10)
    second.commit_transaction()
    eventually(lambda: same(ends(topic, COMMITTED), ends(topic, UNCOMMITTED)))
    same(read(topic, COMMITTED), kept)
    first.close(0)
    second.close()


@scenario
def txn_offsets(topic):
    """Ten records in, ten out and their offsets in a transaction: every other one is aborted and done again."""
    target = f"{topic}-out"
    create(topic, len(PARTITIONS))
    create(target, len(PARTITIONS))
    records = numbers(0, 1000)
    produce(topic, [{"value": value, "partition": index % 3} for index, value in enumerate(records)])
    producer = transactional(topic)
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=topic, auto_offset_reset="earliest", enable_auto_commit=False,
                             isolation_level=COMMITTED, fetch_max_wait_ms=50, max_poll_records=10)
    consumer.subscribe([topic])
    committed, copied, transactions = {}, 0, 0
    deadline = time.monotonic() + 200
    while copied < len(records):
        same(time.monotonic() < deadline, True)
        messages = sum(consumer.poll(2_000).values(), [])
        if not messages:
            continue
        ahead = committed | {message.partition: message.offset + 1 for message in messages}
        producer.begin_transaction()
        for message in messages:
            producer.send(target, message.value, partition=message.partition)
        offsets = {TopicPartition(topic, partition): OffsetAndMetadata(offset, "", -1) for partition, offset in ahead.items()}
        producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
        transactions += 1
        if transactions % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
            committed, copied = ahead, copied + len(messages)
        # Its consumer may show the last commit before the markers of this one are written.
        eventually(lambda: same(stored(topic), committed))
        if transactions % 2:
            for partition in PARTITIONS:
                consumer.seek(TopicPartition(topic, partition), committed.get(partition, 0))
    consumer.close()
    producer.close()
    eventually(lambda: same(ends(target, COMMITTED), ends(target, UNCOMMITTED)))
    same(sorted(sum(read(target, COMMITTED), [])), records)
    same(len(sum(read(target, UNCOMMITTED), [])) > len(records), True)
    return f"{transactions} transactions"


@scenario
def txn_kill_9(topic):
    """One record into each partition a transaction, every fourth aborted, while the broker is killed five times."""
    create(topic, len(PARTITIONS))

    def transact(outcomes, stop):
        producer, number = None, 0
        while not stop.is_set():
            number += 1
            outcomes[number] = "unknown"
            try:
                producer = producer or transactional(topic)
                producer.begin_transaction()
                for partition in PARTITIONS:
                    producer.send(topic, b"%d" % number, partition=partition)
                if number % 4:
                    producer.commit_transaction()
                    outcomes[number] = "committed"
                else:
                    outcomes[number] = "aborted"
                    producer.flush(60)
                    producer.abort_transaction()
            except KafkaError as failure:
                print(f"{number}: {failure!r}")
                if producer:  # the next one of this id aborts what is open, or waits for its end
                    producer.close(0)
                    producer = None

    outcomes = while_killed(transact)
    eventually(lambda: transactional(topic).close())
    eventually(lambda: same(ends(topic, COMMITTED), ends(topic, UNCOMMITTED)))
    return whole_or_not_at_all(outcomes, read(topic, COMMITTED))


@scenario
def txn_admin(topic):
    create(topic, len(PARTITIONS))

    def listed(**filters):
        return [str(each.state.value) for listings in admin.list_transactions(**filters).values() for each in listings if each.transactional_id == topic]

    def described():
        return admin.describe_transactions([topic])[topic]

    def starts():
        partition = TopicPartition(topic, 0)
        return [producer.current_transaction_start_offset for producer in admin.describe_producers([partition])[partition].active_producers]

    refused(TransactionalIdNotFoundError, lambda: admin.describe_transactions(["not-there"]))
    producer = transactional(topic)
    before = int(time.time() * 1000)
    producer.begin_transaction()
    send(producer, topic, 0, 10)
    same((listed(), listed(state_filters=["Ongoing"]), listed(state_filters=["CompleteCommit"])), (["Ongoing"], ["Ongoing"], []))
    same((listed(transactional_id_pattern="txn-a.*n"), listed(transactional_id_pattern="txn-a")), (["Ongoing"], []))
    same(listed(duration_filter_ms=600_000), [])
    opened = described()
    same((opened.state.value, opened.coordinator_id, opened.transaction_timeout_ms), ("Ongoing", 1, 60_000))
    same(opened.topic_partitions, {TopicPartition(topic, partition) for partition in PARTITIONS})
    same(before <= opened.transaction_start_time_ms <= time.time() * 1000, True)
    same(starts(), [0])
    producer.commit_transaction()
    eventually(lambda: same(described().state.value, "CompleteCommit"))
    same((described().topic_partitions, described().producer_id), (set(), opened.producer_id))
    same(listed(producer_id_filters=[opened.producer_id]), ["CompleteCommit"])
    same(starts(), [-1])
    producer.close()
