"""Select a run's payloads from its events, as the fold selects its facts.

A slot belongs to the earliest event by (time, id) that claims it: `queued`, `started`, the end of
the run, start and end of each attempt at a node. `started` takes precedence over `queued`. Metadata
is merged key by key; the latest value wins.
"""

import logging
from collections.abc import Iterable
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Raw

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
from runfold_storage.postgres.connections import ReadConnection

from . import sql

MAX_EVENTS: Final = 25_000
MAX_BYTES: Final = 64 * 1024 * 1024
"""Limits for one run; beyond them `truncated` is true."""

_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_log = logging.getLogger(__name__)


class Payloads:
    """The events that own the slots, added in the order of (time, id)."""

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
        """Add the next event; the first that claims a slot owns it."""
        self.is_empty = False
        match event:
            case NodeStarted():
                self.node_starts.setdefault((event.node, event.attempt), event)
            case NodeFinished():
                self.node_ends.setdefault((event.node, event.attempt), event)
            case Queued():
                self.queued = self.queued or event
            case Started():
                self.started = self.started or event
            case Completed() | Failed() | Cancelled():
                self.end = self.end or event
        # Only an object's keys are merged; any other value stays in the ledger.
        if isinstance(event, Queued | Started | Annotated) and bytes(event.metadata)[:1] == b"{":
            self._metadata.update(_OBJECT.decode(event.metadata))

    @property
    def inputs(self) -> Raw | None:
        return first_present(begin.inputs for begin in (self.started, self.queued) if begin)

    @property
    def trigger_data(self) -> Raw | None:
        triggers = [begin.trigger for begin in (self.started, self.queued) if begin]
        return first_present([trigger.data for trigger in triggers if trigger][:1])

    @property
    def outputs(self) -> Raw | None:
        if isinstance(self.end, Completed | Failed):
            return first_present([self.end.outputs])
        return None

    @property
    def metadata(self) -> Raw | None:
        return Raw(msgspec.json.encode(self._metadata)) if self._metadata else None


def read_payloads(connection: ReadConnection, shard: int, run: UUID) -> Payloads:
    """Return the payloads of a run, up to the limits."""
    limits = {"max_bytes": MAX_BYTES, "limit": MAX_EVENTS}
    rows = connection.execute(sql.PAYLOADS, {"shard": shard, "run": run, **limits}).fetchall()
    payloads = payloads_of((row.type, row.body) for row in rows)
    payloads.truncated = bool(rows) and rows[0].n > len(rows)
    return payloads


def payloads_of(bodies: Iterable[tuple[str, str]]) -> Payloads:
    """Return the payloads of events given as (type, body) in the order of (time, id)."""
    payloads = Payloads()
    for kind, body in bodies:
        try:
            payloads.add(decode_body(kind, body.encode()))
        except BrokenEvent as error:  # accepted by an older version; lists of events show it
            _log.warning("an event of the ledger cannot be read", extra={"reason": str(error)})
    return payloads


def first_present(payloads: Iterable[Raw]) -> Raw | None:
    """Return the first payload that is present; null counts as missing."""
    return next((raw for raw in payloads if bytes(raw) not in (b"", b"null")), None)
