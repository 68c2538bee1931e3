"""The ledger's own view of a run: its events, each as it was sent, in the order of the fold.

The order is (time, event id), on every page, whether pages are read from the first on or from the
last back. An event that arrives late but carries an earlier time takes its place among the earlier
ones; a reader who has passed that place does not see it.
"""

import struct
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select, func, select, tuple_

from runfold.errors import BrokenEvent
from runfold.protocol.codec import TYPES, Envelope, decode_body, encode_event, to_datetime, to_us
from runfold_storage.errors import BadParameter
from runfold_storage.parameters import check_choice, check_name, check_number
from runfold_storage.read_models.cursors import decode_cursor, encode_cursor
from runfold_storage.tables import events

MAX_EVENTS: Final = 1000
MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page ends early, with a cursor, when its events are larger than this (one always fits)."""

Key = tuple[int, int]
"""(time in µs, event id): the order of the ledger."""

_SEARCHED_PAGES: Final = 20
_KEY: Final = struct.Struct(">qq")


class EventPage(Struct, frozen=True):
    """Events as JSON objects, envelope and all."""

    events: list[Raw]
    next_cursor: str | None
    prev_cursor: str | None


class EventQuery(NamedTuple):
    """Which events of a run are wanted; `key` is where the reading begins, exclusive."""

    run: str
    types: tuple[str, ...]
    node: str | None
    limit: int
    backwards: bool = False
    key: Key | None = None

    def question(self) -> bytes:
        """The same bytes for the same question, for its cursors."""
        return repr(("events", self.run, self.types, self.node)).encode(errors="backslashreplace")


def make_event_query(
    run: str,
    *,
    types: str | Iterable[str] | None = None,
    node: str | None = None,
    after: str | None = None,
    before: str | None = None,
    tail: bool = False,
    limit: int = 200,
) -> EventQuery:
    """A checked question; with a `node` only the events that name it are meant."""
    wanted = {types} if isinstance(types, str) else set(types or ())
    for name in sorted(wanted, key=str):
        check_choice("types", name, TYPES)
    check_name("node", node)
    check_number("limit", limit, 1, MAX_EVENTS)
    given = [name for name, value in (("after", after), ("before", before)) if value is not None]
    if len(given) + tail > 1:
        raise BadParameter(given[-1], "goes with no other place to read from: give one of them")
    query = EventQuery(run, tuple(sorted(wanted)), node, limit, tail or before is not None)
    for parameter, cursor in (("after", after), ("before", before)):
        if cursor is not None:
            query = query._replace(key=_decode(query, cursor, parameter))
    return query


def read_events(connection: Connection, shard: int, run: UUID, query: EventQuery) -> EventPage:
    """One page of events; those of a node are searched for, and the search is bounded too."""
    found: list[tuple[Key, Raw]] = []
    size = 0
    reached = query.key
    is_more = False
    for _ in range(_SEARCHED_PAGES if query.node is not None else 1):
        rows = connection.execute(event_statement(shard, run, query, reached)).all()
        is_more = bool(rows) and rows[0].n > min(len(rows), query.limit)
        for row in rows[: query.limit]:
            if len(found) == query.limit or size > MAX_PAGE_BYTES:
                is_more = True
                break
            reached = (to_us(row.at), row.id)
            if query.node is None or node_of(row.type, row.body) == query.node:
                found.append((reached, event_of(query.run, row)))
                size += len(row.body)
        if not is_more or len(found) == query.limit or size > MAX_PAGE_BYTES:
            break
    return page_of(query, found, reached if is_more else None)


def page_of(query: EventQuery, found: list[tuple[Key, Raw]], reached: Key | None) -> EventPage:
    """What was `found` in the direction of the reading; `reached`, if it goes on from there."""
    if query.backwards:
        found = found[::-1]
    # Behind a page there is something if the reading began there, at another page.
    first, last = (found[0][0], found[-1][0]) if found and query.key is not None else (None, None)
    following, preceding = (last, reached) if query.backwards else (reached, first)
    return EventPage(
        [event for _, event in found],
        next_cursor=_encode(query, following, "after"),
        prev_cursor=_encode(query, preceding, "before"),
    )


def event_statement(shard: int, run: UUID, query: EventQuery, key: Key | None) -> Select[Any]:
    """The page's events, as far as they fit, and in `n` how many there are up to one more."""
    conditions = [events.c.shard == shard, events.c.run == run]
    if query.types:
        conditions.append(events.c.type.in_(query.types))
    if key is not None:
        place, bound = tuple_(events.c.at, events.c.id), tuple_(to_datetime(key[0]), key[1])
        conditions.append(place < bound if query.backwards else place > bound)
    page = (
        select(events.c.id, events.c.at, events.c.type, events.c.body)
        .where(*conditions)
        .order_by(*_order(events, query))
        .limit(query.limit + 1)
        .subquery()
    )
    size = func.octet_length(page.c.body)
    sized = select(
        *page.c,
        func.count().over().label("n"),
        (func.sum(size).over(order_by=_order(page, query)) - size).label("before"),
    ).subquery()
    return (
        select(sized.c.id, sized.c.at, sized.c.type, sized.c.body, sized.c.n)
        .where(sized.c.before < MAX_PAGE_BYTES)
        .order_by(*_order(sized, query))
    )


def _order(rows: FromClause, query: EventQuery) -> tuple[ColumnElement[Any], ...]:
    columns = (rows.c.at, rows.c.id)
    return tuple(column.desc() for column in columns) if query.backwards else columns


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
    """The node that an event names."""
    try:
        event = decode_body(kind, body.encode())
    except BrokenEvent:
        return None
    return getattr(event, "node", None)


def _decode(query: EventQuery, cursor: str, parameter: str) -> Key:
    key = decode_cursor(query.question(), cursor, parameter=parameter)
    try:
        at_us, event_id = _KEY.unpack(key)
        to_datetime(at_us)
    except (struct.error, OverflowError):
        raise BadParameter(parameter, "not a cursor of a list of events") from None
    return at_us, event_id


def _encode(query: EventQuery, key: Key | None, parameter: str) -> str | None:
    if key is None:
        return None
    return encode_cursor(query.question(), _KEY.pack(*key), parameter=parameter)
