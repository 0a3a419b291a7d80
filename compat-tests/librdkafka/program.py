"""The whole program: what the scenario files define, answered."""

import groups  # noqa: F401
import scenarios  # noqa: F401
import transactions  # noqa: F401
from talk import answer_scenarios

answer_scenarios({
    "api-versions": "not in its interface",
    "group-migrate": "Java does it",
    "group-lag": "it has no such call; kafka-tools does it",
    "group-offsets-topic": "kafka-tools does it",
    "txn-admin": "not in its binding",
    "txn-streams": "Kafka Streams is Java",
})
