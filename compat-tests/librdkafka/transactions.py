"""librdkafka's scenarios with transactions. A scenario's transactional id has its topic's name."""

from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from groups import stored
from killed import whole_or_not_at_all, while_killed
from scenarios import BASE, consume, create, numbers, produce, values
from talk import eventually, same, scenario

PARTITIONS = range(3)
COMMITTED, UNCOMMITTED = IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED


def transactional(topic):
    producer = Producer(BASE | {"transactional.id": topic})
    producer.init_transactions(60)
    return producer


def send(producer, topic, first, last):
    """Values into each partition; what they are there."""
    for value in numbers(first, last):
        for partition in PARTITIONS:
            producer.produce(topic, value, partition=partition)
    same(producer.flush(30), 0)
    return [numbers(first, last)] * len(PARTITIONS)


def ends(topic, isolation):
    """Where each partition ends: for read_committed, at its last stable offset."""
    # By a client of its own: one that knows the leaders from before a kill goes on with their old epoch, in vain.
    admin = AdminClient(BASE)
    seen = admin.list_offsets({TopicPartition(topic, partition): OffsetSpec.latest() for partition in PARTITIONS}, isolation_level=isolation)
    return [seen[TopicPartition(topic, partition)].result(30).offset for partition in PARTITIONS]


def read(topic, isolation):
    level = {COMMITTED: "read_committed", UNCOMMITTED: "read_uncommitted"}[isolation]
    return [values(consume(topic, partition, end=end, **{"isolation.level": level, "fetch.wait.max.ms": 20})) if end else []
            for partition, end in enumerate(ends(topic, isolation))]


@scenario
def txn_commit(topic):
    create(topic, len(PARTITIONS))
    producer = transactional(topic)
    producer.begin_transaction()
    sent = send(producer, topic, 0, 10)
    same(read(topic, UNCOMMITTED), sent)
    same((ends(topic, UNCOMMITTED), ends(topic, COMMITTED)), ([10] * 3, [0] * 3))
    producer.commit_transaction(30)
    eventually(lambda: same(ends(topic, COMMITTED), [11] * 3))
    same(read(topic, COMMITTED), sent)
    same(read(topic, UNCOMMITTED), sent)


@scenario
def txn_abort(topic):
    create(topic, len(PARTITIONS))
    producer = transactional(topic)
    producer.begin_transaction()
    aborted = send(producer, topic, 0, 10)
    producer.abort_transaction(30)
    eventually(lambda: same(ends(topic, COMMITTED), [11] * 3))
    same(read(topic, COMMITTED), [[]] * 3)
    same(read(topic, UNCOMMITTED), aborted)
    producer.begin_transaction()
    kept = send(producer, topic, 10, 15)
    producer.commit_transaction(30)
    eventually(lambda: same(ends(topic, COMMITTED), [17] * 3))
    same(read(topic, COMMITTED), kept)
    same(read(topic, UNCOMMITTED), [before + after for before, after in zip(aborted, kept)])


@scenario
def txn_fencing(topic):
    create(topic, len(PARTITIONS))
    first = transactional(topic)
    first.begin_transaction()
    send(first, topic, 0, 5)
    second = transactional(topic)
    try:
        first.commit_transaction(30)
        raise AssertionError("not fenced")
    except KafkaException as fenced:
        same((fenced.args[0].name(), fenced.args[0].fatal()), ("_FENCED", True))
    second.begin_transaction()
    kept = send(second, topic, 5, 10)
    second.commit_transaction(30)
    eventually(lambda: same(ends(topic, COMMITTED), ends(topic, UNCOMMITTED)))
    same(read(topic, COMMITTED), kept)


@scenario
def txn_offsets(topic):
    return f"{[transform(topic, protocol) for protocol in ('classic', 'consumer')]} transactions"


def transform(topic, protocol):
    """Ten records in, ten out and their offsets in a transaction: every other one is aborted and done again."""
    source, group = f"{topic}-{protocol}", f"{topic}-{protocol}"
    target = f"{source}-out"
    create(source, len(PARTITIONS))
    create(target, len(PARTITIONS))
    records = numbers(0, 1000)
    produce(source, [{"value": value, "partition": index % 3} for index, value in enumerate(records)])
    producer = transactional(group)
    consumer = Consumer(BASE | {"group.id": group, "group.protocol": protocol, "auto.offset.reset": "earliest",
                                "enable.auto.commit": False, "isolation.level": "read_committed", "fetch.wait.max.ms": 50})
    consumer.subscribe([source])
    committed, copied, transactions = {}, 0, 0
    while copied < len(records):
        messages = [message for message in consumer.consume(10, 30) if not message.error()]
        same(len(messages) > 0, True)
        ahead = committed | {message.partition(): message.offset() + 1 for message in messages}
        producer.begin_transaction()
        for message in messages:
            producer.produce(target, message.value(), partition=message.partition())
        # An abort takes back what has not been sent, and a broker may be quicker than the client's linger.
        same(producer.flush(30), 0)
        offsets = [TopicPartition(source, partition, offset) for partition, offset in ahead.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        transactions += 1
        if transactions % 2:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
            committed, copied = ahead, copied + len(messages)
        seen = consumer.committed(consumer.assignment(), 30)
        same({at.partition: at.offset for at in seen if at.offset >= 0}, committed)
        if transactions % 2:
            for partition in PARTITIONS:
                consumer.seek(TopicPartition(source, partition, committed.get(partition, 0)))
    consumer.close()
    eventually(lambda: same(ends(target, COMMITTED), ends(target, UNCOMMITTED)))
    same(stored(group, PARTITIONS), committed)
    same(sorted(sum(read(target, COMMITTED), [])), records)
    same(len(sum(read(target, UNCOMMITTED), [])) > len(records), True)
    return transactions


@scenario
def txn_kill_9(topic):
    """One record into each partition a transaction, every fourth aborted, while the broker is killed five times."""
    create(topic, len(PARTITIONS))

    def transact(outcomes, stop):
        producer, number = None, 0
        while not stop.is_set():
            try:
                producer = producer or transactional(topic)
                number += 1
                outcomes[number] = "unknown"
                producer.begin_transaction()
                for partition in PARTITIONS:
                    producer.produce(topic, b"%d" % number, partition=partition)
                if number % 4:
                    producer.commit_transaction(60)
                    outcomes[number] = "committed"
                else:
                    outcomes[number] = "aborted"
                    producer.flush(60)
                    producer.abort_transaction(60)
            except KafkaException as failure:
                print(f"{number}: {failure}")
                producer = None  # the next one of this id aborts what is open, or waits for its end

    outcomes = while_killed(transact)
    transactional(topic)
    eventually(lambda: same(ends(topic, COMMITTED), ends(topic, UNCOMMITTED)))
    return whole_or_not_at_all(outcomes, read(topic, COMMITTED))
