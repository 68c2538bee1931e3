"""A month as a company has it, for reads: runs of 10 events with all that lists are filtered by.

Values are as common and as rare as they are in life: of some every other run has one, of some one
run in twenty thousand. Everything follows from the run's number, so two fillings are the same.
"""

import random
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from benchmarks.workload import EVENTS_PER_RUN, run_event
from runfold.protocol import streams
from runfold.protocol.codec import Envelope, make_envelope
from runfold.protocol.ids import make_run_id

DAYS: Final = 30
DAY_US: Final = 86_400_000_000
STILL_RUNNING: Final = 40
"""The newest runs, which have not ended."""
RARE: Final = 20_000
"""One run in so many has what is rare."""

_PROJECTS: Final = 5
_WORKFLOWS: Final = 20
_VARIANTS: Final = 500
_ERRORS: Final = ("Timeout", "ValueError", "ConnectionError", "KeyError", "HTTPError", "OSError")
_TRIGGERS: Final = ("schedule",) * 6 + ("webhook",) * 3 + ("manual",)
_ENVIRONMENTS: Final = ("prod", "prod", "prod", "stage", "dev")


def envelopes(
    first: int, runs: int, of: int, *, shards: int, end_us: int
) -> Iterator[tuple[int, Envelope]]:
    """The events of the runs from number `first` on, of a month of `of` runs, in time order."""
    nodes = [
        [make_envelope(run_event("", number), run="-", id=0, at_us=0) for number in range(1, 9)]
        for _ in range(_VARIANTS)
    ]
    begin_us, step_us = end_us - DAYS * DAY_US, DAYS * DAY_US / of
    for number in range(first, first + runs):
        at_us = int(begin_us + number * step_us)
        chance = random.Random(number)
        run = make_run_id(at_us)
        shard = streams.shard_of(run, shards)
        kind, end, took_us = _end(chance, number)
        yield shard, Envelope("started", run, 0, at_us, _body(_beginning(chance, number)))
        for place, sealed in enumerate(nodes[number % _VARIANTS], start=1):
            reached_us = at_us + took_us * place // EVENTS_PER_RUN
            yield shard, Envelope(sealed.type, run, place, reached_us, sealed.body)
        if number < of - STILL_RUNNING:
            yield shard, Envelope(kind, run, EVENTS_PER_RUN - 1, at_us + took_us, _body(end))


def _beginning(chance: random.Random, number: int) -> dict[str, Any]:
    workflow = number % _WORKFLOWS
    tags = {"env": chance.choice(_ENVIRONMENTS), "team": f"team-{int(chance.expovariate(0.5))}"}
    if number % RARE == 1:
        tags["incident"] = "yes"
    return {
        "workflow": f"workflow-{workflow}",
        "project": f"project-{workflow % _PROJECTS}",
        "trigger": {"type": "backfill" if number % RARE == 2 else chance.choice(_TRIGGERS)},
        "user": "rare" if number % RARE == 3 else f"user-{int(chance.expovariate(0.05))}",
        "session": f"session-{number // 5}",
        "tags": tags,
        "inputs": {"number": number},
    }


def _end(chance: random.Random, number: int) -> tuple[str, dict[str, Any], int]:
    """The end's type, its fields, and how long the run took."""
    took_us = int(chance.lognormvariate(15, 1.2))  # 3 s, give or take
    if number % RARE == 4:
        took_us = 3_600_000_000
    fields: dict[str, Any] = {"duration_ms": took_us / 1000}
    if number % RARE == 5:
        fields["usage"] = {"cost_usd": 25.0}
    kind = "completed"
    if chance.random() < 0.05 or number % RARE == 6:
        kind = "failed"
        error = "Unheard" if number % RARE == 6 else chance.choice(_ERRORS)
        message = f"no answer of 10.0.0.{number % 250} after {took_us // 1000} ms"
        fields["error"] = {"type": error, "message": message, "node": "node-4"}
    elif number % 1000 == 7:
        kind = "cancelled"
    return kind, fields, took_us


def _body(fields: dict[str, Any]) -> bytes:
    return msgspec.json.encode(fields)
