"""Generated events: runs with all kinds of ids; events that collide, contradict, come late."""

import random
from collections.abc import Callable
from typing import Any

from oracle import Event
from runfold.protocol.ids import derive_event_id, make_event_id

START_US = 1_767_268_800_000_000  # 2026-01-01T12:00:00Z
HOUR_US = 3_600_000_000

_TYPES = ("queued", "started", "node_started", "node_finished", "logged", "annotated", "heartbeat")
_ENDS = ("completed", "failed", "cancelled")
_BORN_MS = {  # when a UUIDv7 says that its run was named, where that is not simply now
    "long ago": 1_735_900_000_000,  # January 2025, but within the window
    "far ahead": 2_500_000_000_000,  # 2049: no later key is ever newer
    "before": 1_000_000_000_000,  # outside: one of the callers' own
    "after": 3_000_000_000_000,
}


class EventGenerator:
    """Makes the events of one process: with its clock, and numbered for each run."""

    def __init__(self, rng: random.Random, now_us: int) -> None:
        self._rng = rng
        self.now_us = now_us
        self._numbers: dict[str, tuple[int, int]] = {}

    def open_run(self, number: int) -> str:
        """A new run's id, whose first emitter this process is."""
        rng = self._rng
        kind = rng.choice(("now", "now", "now", "now", "own", "own", "upper", *_BORN_MS))
        if kind == "own":
            run = f"job {number}"
        else:
            born_ms = _BORN_MS.get(kind, self.now_us // 1000) + rng.randrange(1000)
            tail = f"7{rng.getrandbits(12):03x}8{rng.getrandbits(60):015x}"
            text = f"{born_ms:012x}{tail}"
            run = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
            run = run.upper() if kind == "upper" else run
        self._numbers[run] = (0, 0)
        return run

    def make_event(self, run: str, *, poison: bool) -> Event:
        """One more event of a run."""
        rng = self._rng
        emitter, count = self._numbers.get(run) or (rng.randrange(1, 2**31), 0)
        self._numbers[run] = (emitter, count + 1)
        event_id = make_event_id(emitter, count)
        if rng.random() < 0.05:
            event_id = derive_event_id(f"{run} {event_id}".encode())
        self.now_us += rng.choice((0, 0, 1, 400_000, 3_000_000))
        late_us = rng.choice((0,) * 8 + (1, 1_500_000, HOUR_US, 3 * HOUR_US))
        event_type = rng.choice(_TYPES if rng.random() < 0.85 else _ENDS)
        fields = _FIELDS[event_type](rng)
        if poison:
            event_type, fields = "annotated", {"tags": {"team": "poison"}}
        stamp = {"type": event_type, "run": run, "id": event_id, "at_us": self.now_us - late_us}
        return stamp | fields


def _some(rng: random.Random, **choices: Any) -> dict[str, Any]:
    """Some of these fields, each with one of its values."""
    return {name: rng.choice(values) for name, values in choices.items() if rng.random() < 0.4}


_TAGS: tuple[dict[str, Any], ...] = (
    {"team": "a"},
    {"team": "b", "size": 3},
    {"team": None},
    {"size": 2.5, "on": True},
    {},
)
_USAGE = (
    {"input_tokens": 7, "cost_usd": 0.002},
    {"output_tokens": 11},
    {"input_tokens": 1000, "output_tokens": 0, "cost_usd": 1.5},
)
_ERROR = ({"type": "ValueError", "message": "boom"}, {"type": "OSError", "node": "load"})
_MS = (0, 1, 2.5, 1500, 1e7)
_PLANS = (
    [{"node": "extract"}, {"node": "load", "parents": ["extract"]}],
    [{"node": "load", "name": "Load"}],
)


def _begin(rng: random.Random) -> dict[str, Any]:
    return _some(
        rng,
        workflow=("etl", "report"),
        project=("acme", "default"),
        user=("ada", "bob"),
        tags=_TAGS,
        nodes=_PLANS,
        attempt=(1, 2),
        inputs=({"n": 1, "text": "läuft ✓"},),
    )


def _node(rng: random.Random) -> dict[str, Any]:
    return {"node": rng.choice(("extract", "load"))} | _some(rng, attempt=(1, 2, 3))


def _node_started(rng: random.Random) -> dict[str, Any]:
    names = ("Extract", "Other")
    return _node(rng) | _some(rng, name=names, parents=([], ["extract"]), inputs=(1,))


def _node_finished(rng: random.Random) -> dict[str, Any]:
    statuses = ("completed", "failed", "skipped", "cancelled")
    result = _some(rng, status=statuses, error=_ERROR, usage=_USAGE, duration_ms=_MS)
    return _node(rng) | result


def _ended(rng: random.Random) -> dict[str, Any]:
    return _some(rng, usage=_USAGE, duration_ms=_MS, exit_code=(0, 1), error=_ERROR)


_FIELDS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "queued": _begin,
    "started": _begin,
    "node_started": _node_started,
    "node_finished": _node_finished,
    "logged": lambda rng: {"text": rng.choice(("a line", 'with "quotes" and \\'))},
    "annotated": lambda rng: _some(rng, tags=_TAGS, usage=_USAGE),
    "heartbeat": lambda _: {},
    "completed": _ended,
    "failed": _ended,
    "cancelled": lambda rng: _some(rng, reason=("too late",), duration_ms=_MS),
}
