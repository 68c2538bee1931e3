"""Whose payloads count: the winners of the fold's slots, told from a run's events.

A slot belongs to the earliest event by (time, id) that claims it: `queued`, `started`, the end of
the run, start and end of each attempt at a node. What `started` says goes before what `queued`
says. Metadata is merged key by key, the latest value wins.
"""

import logging
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Raw
from sqlalchemy import Connection, Select, bindparam, func, select

from runfold.errors import BrokenEvent
from runfold.protocol.codec import decode_body
from runfold.protocol.events import (
    Annotated,
    Cancelled,
    Completed,
    Event,
    Failed,
    NodeFinished,
    NodeStarted,
    Queued,
    Started,
)
from runfold_storage.postgres.statements import compile_statement
from runfold_storage.tables import events

MAX_EVENTS: Final = 25_000
MAX_BYTES: Final = 64 * 1024 * 1024
"""What is read at most for one run; beyond it `truncated` is true."""

_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_log = logging.getLogger(__name__)


class Payloads:
    """The winners of the slots, told from a run's events in the order of (time, id)."""

    def __init__(self) -> None:
        self.is_empty = True
        self.truncated = False
        self.queued: Queued | None = None
        self.started: Started | None = None
        self.end: Completed | Failed | Cancelled | None = None
        self.node_starts: dict[tuple[str, int], NodeStarted] = {}
        self.node_ends: dict[tuple[str, int], NodeFinished] = {}
        self._metadata: dict[str, Raw] = {}

    def add(self, event: Event) -> None:
        """Take the next event into account; the first that claims a slot keeps it."""
        self.is_empty = False
        match event:
            case NodeStarted():
                self.node_starts.setdefault((event.node, event.attempt), event)
            case NodeFinished():
                self.node_ends.setdefault((event.node, event.attempt), event)
            case Queued():
                self.queued = self.queued or event
                self._merge(event.metadata)
            case Started():
                self.started = self.started or event
                self._merge(event.metadata)
            case Annotated():
                self._merge(event.metadata)
            case Completed() | Failed() | Cancelled():
                self.end = self.end or event
            case _:
                pass

    @property
    def inputs(self) -> Raw | None:
        return first_given(
            begin.inputs for begin in (self.started, self.queued) if begin is not None
        )

    @property
    def trigger_data(self) -> Raw | None:
        for begin in (self.started, self.queued):
            if begin is not None and begin.trigger is not None:
                return first_given([begin.trigger.data])
        return None

    @property
    def outputs(self) -> Raw | None:
        if isinstance(self.end, Completed | Failed):
            return first_given([self.end.outputs])
        return None

    @property
    def metadata(self) -> Raw | None:
        return Raw(msgspec.json.encode(self._metadata)) if self._metadata else None

    def _merge(self, metadata: Raw) -> None:
        """Only objects have keys; anything else says nothing and stays in the ledger."""
        if bytes(metadata).startswith(b"{"):
            self._metadata.update(_OBJECT.decode(metadata))


def read_payloads(connection: Connection, shard: int, run: UUID) -> Payloads:
    """The payloads of a run, as far as they fit."""
    rows = _PAYLOADS.run(connection, {"shard": shard, "run": run})
    payloads = payloads_of((row.type, row.body) for row in rows)
    payloads.truncated = bool(rows) and rows[0].n > len(rows)
    return payloads


def payloads_of(told: Iterable[tuple[str, str]]) -> Payloads:
    """What these events, (type, body) in the order of (time, id), have to say."""
    payloads = Payloads()
    for event in _decoded(told):
        payloads.add(event)
    return payloads


def _payloads() -> Select[Any]:
    """A run's events that carry payloads, up to a number of bytes, and how many there are."""
    order = (events.c.at, events.c.id)
    every = (
        select(
            *order,
            events.c.type,
            events.c.body,
            func.sum(func.octet_length(events.c.body)).over(order_by=order).label("bytes"),
            func.count().over().label("n"),
        )
        .where(
            events.c.shard == bindparam("shard"),
            events.c.run == bindparam("run"),
            events.c.type != "logged",
        )
        .subquery()
    )
    return (
        select(every.c.type, every.c.body, every.c.n)
        .where(every.c.bytes <= MAX_BYTES)
        .order_by(every.c.at, every.c.id)
        .limit(MAX_EVENTS)
    )


_PAYLOADS: Final = compile_statement(_payloads())


def _decoded(told: Iterable[tuple[str, str]]) -> Iterable[Event]:
    for kind, body in told:
        try:
            yield decode_body(kind, body.encode())
        except BrokenEvent as error:  # an older Runfold let it in; the ledger's view still has it
            _log.warning("an event of the ledger cannot be read", extra={"reason": str(error)})


def first_given(payloads: Iterable[Raw]) -> Raw | None:
    """The first payload that was given; a null is none."""
    return next((raw for raw in payloads if bytes(raw) not in (b"", b"null")), None)
