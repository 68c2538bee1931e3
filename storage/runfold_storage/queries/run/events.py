"""Pages of a run's events from the ledger, each event as it was sent, by (time, event id).

A reader that has passed the position of an event that arrives late does not see it.
"""

import struct
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypedDict, Unpack
from uuid import UUID

import msgspec
from msgspec import Raw, Struct

from runfold.errors import BrokenEvent
from runfold.protocol.codec import TYPES, Envelope, decode_body, encode_event, to_datetime, to_us
from runfold_storage.errors import BadParameter
from runfold_storage.parameters import check_choice, check_keywords, check_name, check_number
from runfold_storage.postgres.connections import ReadConnection
from runfold_storage.read_models.cursors import decode_cursor, encode_cursor

from . import sql

MAX_EVENTS: Final = 1000
MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page ends early, with a cursor, when its events exceed this size (one always fits)."""

EventKey = tuple[int, int]
"""(time in µs, event id): the order of the ledger."""

_SEARCHED_PAGES: Final = 20
_KEY: Final = struct.Struct(">qq")


class EventPage(Struct, frozen=True):
    """Events as JSON objects, including the envelope."""

    events: list[Raw]
    next_cursor: str | None
    prev_cursor: str | None


class EventQuery(NamedTuple):
    """A checked query for events of a run; reading begins after `key` (exclusive)."""

    run: str
    types: tuple[str, ...]
    node: str | None
    limit: int
    backwards: bool = False
    key: EventKey | None = None

    def cache_key(self) -> bytes:
        """Return bytes that identify this query, for its cursors."""
        return repr(("events", self.run, self.types, self.node)).encode(errors="backslashreplace")


class EventParameters(TypedDict, total=False):
    """A query as keyword arguments; None is the same as leaving one out."""

    types: str | Iterable[str] | None
    node: str | None
    after: str | None
    before: str | None
    tail: bool
    limit: int


def make_event_query(run: str, **given: Unpack[EventParameters]) -> EventQuery:
    """Return a checked query; with a `node` it selects only events that name it."""
    check_keywords(given, EventParameters)
    types, tail, limit = given.get("types"), given.get("tail", False), given.get("limit", 200)
    node = check_name("node", given.get("node"))
    wanted = {types} if isinstance(types, str) else set(types or ())
    for name in sorted(wanted, key=str):
        check_choice("types", name, TYPES)
    check_number("limit", limit, 1, MAX_EVENTS)
    cursors = {"after": given.get("after"), "before": given.get("before")}
    named = [(name, cursor) for name, cursor in cursors.items() if cursor is not None]
    if len(named) + tail > 1:
        raise BadParameter(named[-1][0], "give at most one of `tail`, `after` and `before`")
    backwards = tail or cursors["before"] is not None
    query = EventQuery(run, tuple(sorted(wanted)), node, limit, backwards)
    for name, cursor in named:
        query = query._replace(key=_decode(query, cursor, name))
    return query


def read_events(connection: ReadConnection, shard: int, run: UUID, query: EventQuery) -> EventPage:
    """Return one page of events; the scan for events of a node is bounded."""
    found: list[tuple[EventKey, Raw]] = []
    size = 0
    reached = query.key
    is_more = False
    for _ in range(_SEARCHED_PAGES if query.node is not None else 1):
        rows = read_rows(connection, shard, run, query, reached)
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


def page_of(
    query: EventQuery, found: list[tuple[EventKey, Raw]], reached: EventKey | None
) -> EventPage:
    """Return the page of the events `found`; it continues after `reached`, unless that is None."""
    if query.backwards:
        found = found[::-1]
    # The side that reading came from has another page only if reading began at a cursor.
    first, last = (found[0][0], found[-1][0]) if found and query.key is not None else (None, None)
    following, preceding = (last, reached) if query.backwards else (reached, first)
    return EventPage(
        [event for _, event in found],
        next_cursor=_encode(query, following, "after"),
        prev_cursor=_encode(query, preceding, "before"),
    )


def read_rows(
    connection: ReadConnection,
    shard: int,
    run: UUID,
    query: EventQuery,
    key: EventKey | None,
    *,
    max_bytes: int = MAX_PAGE_BYTES,
) -> list[Any]:
    """Return the next events that fit, up to one beyond the limit (`sql.event_page`)."""
    statement = sql.event_page(
        has_types=bool(query.types), has_key=key is not None, backwards=query.backwards
    )
    parameters: dict[str, Any] = {"shard": shard, "run": run, "types": list(query.types)}
    parameters |= {"limit": query.limit, "max_bytes": max_bytes}
    if key is not None:
        parameters |= {"at": to_datetime(key[0]), "id": key[1]}
    return connection.execute(statement, parameters).fetchall()


def event_of(run: str, row: Any) -> Raw:
    """Return an event of the ledger as it was sent."""
    return make_event(run, row.type, row.id, to_us(row.at), row.body)


def make_event(run: str, kind: str, event_id: int, at_us: int, text: str) -> Raw:
    """Return an event as it was sent, from its stored fields."""
    body = text.encode()
    # The ledger stores a caller's own run id in the body; answers have it in the envelope.
    own_id = b'{"run":' + msgspec.json.encode(run)
    if body.startswith(own_id):
        body = b"{" + body[len(own_id) :].removeprefix(b",")
    return Raw(encode_event(Envelope(kind, run, event_id, at_us, body)))


def node_of(kind: str, body: str) -> str | None:
    """Return the node that an event names, if any."""
    try:
        event = decode_body(kind, body.encode())
    except BrokenEvent:
        return None
    return getattr(event, "node", None)


def _decode(query: EventQuery, cursor: str, parameter: str) -> EventKey:
    key = decode_cursor(query.cache_key(), cursor, parameter=parameter)
    try:
        at_us, event_id = _KEY.unpack(key)
        to_datetime(at_us)
    except (struct.error, OverflowError):
        raise BadParameter(parameter, "not a cursor of a list of events") from None
    return at_us, event_id


def _encode(query: EventQuery, key: EventKey | None, parameter: str) -> str | None:
    if key is None:
        return None
    return encode_cursor(query.cache_key(), _KEY.pack(*key), parameter=parameter)
