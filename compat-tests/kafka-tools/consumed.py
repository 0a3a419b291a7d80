"""What VerifiableConsumers have said, together: consumed.py OUTPUT...

Prints "read=N twice=N committed=PARTITION:OFFSET,...", and fails if a record was left out or if a consumer began
before an offset whose commit had been acknowledged.
"""

import json
import sys


def events(path):
    with open(path) as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                return  # the consumer was killed in the middle of it


def main(paths):
    read, records, acknowledged = {}, 0, {}
    for event in sorted((event for path in paths for event in events(path)), key=lambda event: event["timestamp"]):
        if event["name"] == "records_consumed":
            for part in event["partitions"]:
                partition, first, last = part["partition"], part["minOffset"], part["maxOffset"]
                if not acknowledged.get(partition, 0) <= first <= read.get(partition, 0):
                    sys.exit(f"partition {partition}: {first} to {last} after {read.get(partition, 0)} were read, "
                             f"{acknowledged.get(partition, 0)} acknowledged")
                read[partition] = max(read.get(partition, 0), last + 1)
                records += part["count"]
        elif event["name"] == "offsets_committed" and event["success"]:
            for part in event["offsets"]:
                acknowledged[part["partition"]] = part["offset"]
    once = sum(read.values())
    committed = ",".join(f"{partition}:{offset}" for partition, offset in sorted(acknowledged.items()))
    print(f"read={once} twice={records - once} committed={committed}")


main(sys.argv[1:])
