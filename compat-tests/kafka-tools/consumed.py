"""What VerifiableConsumers have said, together: consumed.py [--produced OUTPUT] OUTPUT...

Prints "read=N twice=N committed=PARTITION:OFFSET,...", and fails if a record was left out or if a consumer began
before an offset whose commit had been acknowledged when it was assigned the partition. With the output of a
VerifiableProducer, and of consumers that say each record (--verbose), every record that was acknowledged must have been
read at its offset.
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
    produced = None
    if paths[0] == "--produced":
        produced, paths = paths[1], paths[2:]
    read, records, acknowledged, given, at, values = {}, 0, {}, {}, {}, {}
    said = sorted(((event, path) for path in paths for event in events(path)), key=lambda said: said[0]["timestamp"])
    for event, path in said:
        if event["name"] == "records_consumed":
            for part in event["partitions"]:
                partition, first, last = part["partition"], part["minOffset"], part["maxOffset"]
                # It may be late, and not have heard yet that the partition is another's: then it reads on, or begins
                # where it was to begin when the partition was its own.
                begins = 0 if at.get((path, partition)) == first else given.get((path, partition), 0)
                if not begins <= first <= read.get(partition, 0):
                    sys.exit(f"partition {partition}: {first} to {last} after {read.get(partition, 0)} were read, "
                             f"{begins} acknowledged when it was assigned")
                at[path, partition] = last + 1
                read[partition] = max(read.get(partition, 0), last + 1)
                records += part["count"]
        elif event["name"] == "partitions_assigned":
            for part in event["partitions"]:
                given[path, part["partition"]] = acknowledged.get(part["partition"], 0)
        elif event["name"] == "record_data":
            values[event["partition"], event["offset"]] = event["value"]
        elif event["name"] == "offsets_committed" and event["success"]:
            for part in event["offsets"]:
                acknowledged[part["partition"]] = part["offset"]
    once = sum(read.values())
    committed = ",".join(f"{partition}:{offset}" for partition, offset in sorted(acknowledged.items()))
    print(f"read={once} twice={records - once} committed={committed}", end="" if produced else "\n")
    if produced:
        sent = [event for event in events(produced) if event["name"] == "producer_send_success"]
        lost = [event for event in sent if values.get((event["partition"], event["offset"])) != event["value"]]
        if lost or not sent:
            sys.exit(f"; of {len(sent)} records acknowledged {len(lost)} were not read, such as {lost[:3]}")
        print(f" acknowledged={len(sent)}")


main(sys.argv[1:])
