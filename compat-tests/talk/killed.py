"""Transactions while the broker is killed, and what may be seen of each afterwards: the same for every client in Python."""

import threading
from collections import Counter

from talk import broker, same


def while_killed(transact):
    """What became of each transaction, while the broker is killed five times, twenty commits apart.

    `transact` is given what it fills, number to "unknown", "committed" or "aborted", and an event that ends it.
    """
    outcomes, failures, stop = {}, [], threading.Event()

    def guarded():
        try:
            transact(outcomes, stop)
        except Exception as failure:
            failures.append(failure)

    thread = threading.Thread(target=guarded)
    thread.start()
    for _ in range(5):
        wanted = list(outcomes.values()).count("committed") + 20
        while list(outcomes.values()).count("committed") < wanted and not failures:
            stop.wait(0.01)
        broker("kill")
    stop.set()
    thread.join()
    same(failures, [])
    return outcomes


def whole_or_not_at_all(outcomes, partitions):
    """Of each transaction one record in every partition, or none in any; all of what was acknowledged, none of what was aborted."""
    seen = [Counter(map(int, records)) for records in partitions]
    bad = []
    for number, outcome in outcomes.items():
        counts = {partition[number] for partition in seen}
        if counts not in {"committed": [{1}], "aborted": [{0}], "unknown": [{0}, {1}]}[outcome]:
            bad.append((number, outcome, [partition[number] for partition in seen]))
    detail = ", ".join(f"{count} {outcome}" for outcome, count in sorted(Counter(outcomes.values()).items()))
    if bad:
        raise AssertionError(f"{detail}; transaction, outcome, records: {bad[:5]} ({len(bad)})")
    return detail
