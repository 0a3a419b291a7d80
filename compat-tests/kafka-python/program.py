"""The whole program: what the scenario files define, answered."""

import groups  # noqa: F401
import scenarios  # noqa: F401
import transactions  # noqa: F401
from talk import answer_scenarios

answer_scenarios({
    "api-versions": "its own list knows no key 93, which Apache Kafka 4.4.0 has",
    "group-consumer-protocol": "only the classic protocol",
    "group-migrate": "only the classic protocol",
    "group-lag": "it has no such call; kafka-tools does it",
    "group-offsets-topic": "kafka-tools does it",
    "idempotent-kills": "asked of Java, librdkafka and franz-go",
    "txn-streams": "Kafka Streams is Java",
})
