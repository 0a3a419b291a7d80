"""How a client program written in Python talks to the runner: see README.md beside this file.

A scenario is a function with the scenario's name, underscores for hyphens, under @scenario. It is given
its topic, fails by any exception, and may return a detail.
"""

import os
import sys
import time
import traceback

BOOTSTRAP = os.environ["BOOTSTRAP"]

_scenarios = {}
_answers = sys.stdout
sys.stdout = sys.stderr


def scenario(function):
    _scenarios[function.__name__.replace("_", "-")] = function
    return function


def broker(what):
    """Have the runner end the broker ("restart": in order, "kill": at once) and start it again."""
    print("BROKER", what, file=_answers, flush=True)
    sys.stdin.readline()


def same(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {shorten(got)}, wanted {shorten(wanted)}")


def eventually(attempt, seconds=30):
    """What `attempt` returns once it no longer fails. Apache Kafka answers a client before all parts of the
    broker know of a new topic, or lead their partitions after a start: there clients try again, and so here."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except Exception:
            if deadline < time.monotonic():
                raise
            time.sleep(0.02)


def shorten(value):
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}... ({len(value)})"


def answer_scenarios(cannot):
    """Serve the runner. `cannot`: scenario -> why this client has no such thing."""
    for line in sys.stdin:
        name = line.strip()
        if name not in _scenarios:
            print("NONE", cannot.get(name, "not a thing this client does"), file=_answers, flush=True)
            continue
        try:
            detail = _scenarios[name](name)
            print("PASS", detail or "", file=_answers, flush=True)
        except Exception as error:
            traceback.print_exc()
            text = " ".join(f"{type(error).__name__}: {error}".split())
            print("FAIL", text, file=_answers, flush=True)
