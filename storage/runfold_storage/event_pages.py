"""The ledger's own view of a run: its events, each as it was sent, in the order of the fold.

The order is (time, event id). An event that arrives late but carries an earlier time takes its
place among the earlier ones; a reader who has passed that place does not see it.
"""

import struct
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import Connection, Row, Select, func, select, tuple_

from runfold.codec import TYPES, Envelope, decode_body, encode_event, to_datetime, to_us
from runfold.errors import BrokenEvent
from runfold.events import Logged

from .cursors import decode_cursor, encode_cursor
from .errors import BadParameter
from .filters import check_choice, check_name, check_number
from .tables import events

MAX_EVENTS: Final = 1000
MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page ends early, with a cursor, when its events are larger than this (one always fits)."""

_SEARCHED_PAGES: Final = 20
_KEY: Final = struct.Struct(">qq")


class EventPage(Struct, frozen=True):
    """Events as JSON objects, envelope and all."""

    events: list[Raw]
    next_cursor: str | None


class EventQuery(NamedTuple):
    """Which events of a run are wanted."""

    run: str
    types: tuple[str, ...]
    node: str | None
    after: tuple[int, int] | None
    limit: int

    def question(self) -> bytes:
        """The same bytes for the same question, for its cursors."""
        return repr(("events", self.run, self.types, self.node)).encode(errors="backslashreplace")


def make_event_query(
    run: str,
    *,
    types: str | Iterable[str] | None = None,
    node: str | None = None,
    after: str | None = None,
    limit: int = 200,
) -> EventQuery:
    """A checked question; `node` is only answered for `logged` events."""
    wanted = {types} if isinstance(types, str) else set(types or ())
    for name in sorted(wanted, key=str):
        check_choice("types", name, TYPES)
    check_name("node", node)
    check_number("limit", limit, 1, MAX_EVENTS)
    query = EventQuery(run, tuple(sorted(wanted)), node, None, limit)
    if after is None:
        return query
    key = decode_cursor(query.question(), after, parameter="after")
    try:
        at_us, event_id = _KEY.unpack(key)
        to_datetime(at_us)
    except (struct.error, OverflowError):
        raise BadParameter("after", "not a cursor of a list of events") from None
    return query._replace(after=(at_us, event_id))


def read_events(connection: Connection, shard: int, run: UUID, query: EventQuery) -> EventPage:
    """One page of events; those of a node are searched for, and the search is bounded too."""
    found: list[Raw] = []
    size = 0
    after = query.after
    for _ in range(_SEARCHED_PAGES if query.node is not None else 1):
        rows = connection.execute(event_statement(shard, run, query, after)).all()
        more = bool(rows) and rows[0].n > min(len(rows), query.limit)
        rows = rows[: query.limit]
        for position, row in enumerate(rows, 1):
            after = (to_us(row.at), row.id)
            if query.node is None or node_of(row.type, row.body) == query.node:
                found.append(event_of(query.run, row))
                size += len(row.body)
            if len(found) == query.limit or size > MAX_PAGE_BYTES:
                more = more or position < len(rows)
                return EventPage(found, cursor_of(query, after) if more else None)
        if not more:
            return EventPage(found, None)
    return EventPage(found, cursor_of(query, after))


def event_statement(
    shard: int, run: UUID, query: EventQuery, after: tuple[int, int] | None
) -> Select[Any]:
    """The page's events, as far as they fit, and in `n` how many there are up to one more."""
    conditions = [events.c.shard == shard, events.c.run == run]
    if query.types:
        conditions.append(events.c.type.in_(query.types))
    if after is not None:
        at_us, event_id = after
        conditions.append(tuple_(events.c.at, events.c.id) > tuple_(to_datetime(at_us), event_id))
    page = (
        select(events.c.id, events.c.at, events.c.type, events.c.body)
        .where(*conditions)
        .order_by(events.c.at, events.c.id)
        .limit(query.limit + 1)
        .subquery()
    )
    size = func.octet_length(page.c.body)
    sized = select(
        *page.c,
        func.count().over().label("n"),
        (func.sum(size).over(order_by=(page.c.at, page.c.id)) - size).label("before"),
    ).subquery()
    return (
        select(sized.c.id, sized.c.at, sized.c.type, sized.c.body, sized.c.n)
        .where(sized.c.before < MAX_PAGE_BYTES)
        .order_by(sized.c.at, sized.c.id)
    )


def event_of(run: str, row: Row[Any]) -> Raw:
    """An event of the ledger as it was sent."""
    return make_event(run, row.type, row.id, to_us(row.at), row.body)


def make_event(run: str, kind: str, event_id: int, at_us: int, text: str) -> Raw:
    """The same from what the ledger has of it."""
    body = text.encode()
    # The ledger keeps a caller's own id in the body; here it stands in the envelope.
    given = b'{"run":' + msgspec.json.encode(run)
    if body.startswith(given):
        body = b"{" + body[len(given) :].removeprefix(b",")
    return Raw(encode_event(Envelope(kind, run, event_id, at_us, body)))


def node_of(kind: str, body: str) -> str | None:
    """The node that a logged event is of."""
    try:
        event = decode_body(kind, body.encode())
    except BrokenEvent:
        return None
    return event.node if isinstance(event, Logged) else None


def cursor_of(query: EventQuery, after: tuple[int, int] | None) -> str | None:
    """Where the next page begins."""
    if after is None:
        return None
    return encode_cursor(query.question(), _KEY.pack(*after), parameter="after")
