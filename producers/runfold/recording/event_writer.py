"""Give the events of one run their ids and times, and pass them to the emitter.

Times never decrease within a writer, as a run is folded in the order of (at, id).
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from itertools import count
from typing import Any, Final

import msgspec
from msgspec import Raw

from runfold.delivery import process_hooks
from runfold.delivery.emitter import Emitter
from runfold.protocol.codec import MAX_US, MIN_US, to_datetime
from runfold.protocol.events import ABSENT, Dollars, Event, Logged, Tokens, Usage
from runfold.protocol.ids import make_emitter, make_event_id
from runfold.serialization.event_cleanup import MAX_TEXT, us_of
from runfold.serialization.normalize import (
    normalize_count,
    normalize_name,
    normalize_number,
    normalize_text,
)
from runfold.serialization.payloads import encode_payload
from runfold.serialization.redaction import Redactor


class EventIds:
    """The event ids of one run in this process; a forked child continues as another emitter."""

    __slots__ = ("count", "generation")

    def __init__(self, emitter: int | None = None) -> None:
        self._renew(make_emitter() if emitter is None else emitter)

    def take(self) -> int:
        if self.generation != process_hooks.generation:
            self._renew(make_emitter())
        return next(self.count)

    def _renew(self, emitter: int) -> None:
        self.count = count(make_event_id(emitter, 0))
        self.generation = process_hooks.generation


class EventIdAllocator:
    """The event ids of all runs for which events without ids are emitted.

    Bounded: a run that was evicted, or that has events after its end, continues as another emitter.
    """

    def __init__(self, max_runs: int = 100_000) -> None:
        self._max_runs = max_runs
        self._ids: dict[str, EventIds] = {}

    def take(self, run: str) -> int:
        """Return the next id of a run, which may be new."""
        ids = self._ids.get(run)
        if ids is not None and ids.generation == process_hooks.generation:
            return next(ids.count)
        if ids is None:
            if len(self._ids) >= self._max_runs:
                with suppress(RuntimeError):  # another thread adds a run: evict next time
                    self.forget(next(iter(self._ids)))
            ids = self._ids.setdefault(run, EventIds())
        return ids.take()

    def add(self, run: str, ids: EventIds) -> None:
        """Share the ids of a handle's run."""
        self._ids[run] = ids

    def forget(self, run: str) -> None:
        """Remove a run that has ended."""
        self._ids.pop(run, None)


EVENT_OVERHEAD: Final = 600
"""Approximate bytes of memory of an event, without its payloads."""


class EventWriter:
    """With `saved=False` every event is discarded before any work is done."""

    __slots__ = ("_last_us", "emitter", "ids", "redactor", "run", "saved")

    def __init__(
        self, run: str, ids: EventIds, emitter: Emitter, redactor: Redactor, *, saved: bool = True
    ) -> None:
        self.run = run
        self.ids = ids
        self.redactor = redactor
        self.saved = saved
        self.emitter = emitter
        self._last_us = 0

    def payload(self, value: object) -> Raw:
        """Encode an object now."""
        return encode_payload(value, self.redactor) if self.saved else ABSENT

    def write(self, event: Event, size: int = 0, at_us: int | None = None) -> None:
        """Emit an event of normalized fields; `size`: bytes of its payloads and texts.

        `at_us` is a time that the caller gave; if it is out of bounds, the event is not valid.
        """
        if not self.saved:
            return
        is_clean = at_us is None
        if at_us is None:
            at_us = self._last_us = max(time.time_ns() // 1000, self._last_us)
        else:
            event = msgspec.structs.replace(event, at=to_datetime(at_us))
        item = (event, self.run, self.ids.take(), at_us, EVENT_OVERHEAD + size, is_clean)
        self.emitter.put(item)

    def log(self, text: object, level: str | None, stream: str, node: str | None) -> None:
        """Emit a text, a very long one as several events."""
        if self.saved:
            for event in log_events(text, level, stream, node, self.redactor):
                self.write(event, len(event.text))


class UsageSum:
    """Sums usage, without a lock: no other thread can run between reading and writing a sum."""

    __slots__ = ("_cost_usd", "_input_tokens", "_output_tokens")

    def __init__(self) -> None:
        self._input_tokens: int | None = None
        self._output_tokens: int | None = None
        self._cost_usd: float | None = None

    def add(self, usage: Usage | None) -> None:
        if usage is None:
            return
        if usage.input_tokens is not None:
            self._input_tokens = (self._input_tokens or 0) + usage.input_tokens
        if usage.output_tokens is not None:
            self._output_tokens = (self._output_tokens or 0) + usage.output_tokens
        if usage.cost_usd is not None:
            self._cost_usd = (self._cost_usd or 0.0) + usage.cost_usd

    @property
    def total(self) -> Usage | None:
        return normalize_usage(self._input_tokens, self._output_tokens, self._cost_usd)


def normalize_usage(
    input_tokens: object = None, output_tokens: object = None, cost_usd: object = None
) -> Usage | None:
    """Return usage within the contract's limits; None if nothing is given."""
    normalized: tuple[Tokens | None, Tokens | None, Dollars | None] = (
        None if input_tokens is None else normalize_count(input_tokens, 0, 10**12),
        None if output_tokens is None else normalize_count(output_tokens, 0, 10**12),
        None if cost_usd is None else normalize_number(cost_usd, 0, 1e6),
    )
    return None if normalized == (None, None, None) else Usage(*normalized)


def read_usage(usage: Usage | Mapping[str, Any] | None) -> Usage | None:
    """Return normalized usage from a struct or a mapping."""
    if usage is None:
        return None
    fields = msgspec.structs.asdict(usage) if isinstance(usage, Usage) else usage
    return normalize_usage(**{name: fields.get(name) for name in Usage.__struct_fields__})


def normalize_time(at: datetime | None) -> int | None:
    """Return microseconds since the epoch, clamped to the calendar; None for what is not a time."""
    if at is None:
        return None
    try:
        return min(max(us_of(at), MIN_US), MAX_US)
    except Exception:  # not a time; foreign code may raise anything
        return None


def log_events(
    text: object, level: str | None, stream: str, node: str | None, redactor: Redactor
) -> list[Logged]:
    """Return a text as one event, or as several if it is too long for one."""
    whole = redactor.apply_to_text("text", normalize_text(text))
    return [
        Logged(
            node=normalize_name(node),
            stream=stream if stream in ("stdout", "stderr") else "log",  # type: ignore[arg-type]  # just checked
            level=normalize_name(level),
            text=whole[start : start + MAX_TEXT],
        )
        for start in range(0, len(whole), MAX_TEXT)
    ]
