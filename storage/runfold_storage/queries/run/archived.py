"""Read archived runs: details and events, with the same bounds as reads of the database."""

import heapq
from collections.abc import Iterator
from operator import gt, lt
from typing import Final

from msgspec import Raw

from runfold_storage.archive.lookup import find_events, find_run
from runfold_storage.archive.store import Archive
from runfold_storage.ledger.events import LedgerEvent

from .detail import RunDetail, make_detail
from .events import MAX_PAGE_BYTES, EventKey, EventPage, EventQuery, make_event, node_of, page_of
from .payloads import MAX_BYTES, MAX_EVENTS, Payloads, payloads_of

_LATEST: Final = 2**63


def read_archived_run(archive: Archive, run: str) -> RunDetail | None:
    """Return a run that the database lacks; None if the archive lacks it too, or it was deleted."""
    found = find_run(archive, run)
    if found is None:
        return None
    nodes = sorted(
        found.nodes,
        key=lambda n: (_LATEST if n.started_us is None else n.started_us, n.node, n.attempt),
    )
    payloads = read_archived_payloads(archive, run)
    state = "removed" if payloads.is_empty else "archived"
    return make_detail(found.row, nodes, payloads, source="archive", payloads=state)


def read_archived_payloads(archive: Archive, run: str) -> Payloads:
    """Return the payloads of a run, up to a size limit; empty if the archive has none."""
    events = (event for event in find_events(archive, run) if event.type != "logged")
    first = _first(events, MAX_EVENTS + 1)
    bodies: list[tuple[str, str]] = []
    size = 0
    for event in first[:MAX_EVENTS]:
        size += len(event.body)
        if size > MAX_BYTES:
            break
        bodies.append((event.type, event.body))
    payloads = payloads_of(bodies)
    payloads.truncated = len(bodies) < len(first)
    return payloads


def read_archived_events(archive: Archive, query: EventQuery) -> EventPage | None:
    """Return a page of a run's events; None if the archive has none."""
    is_known = False
    is_ahead = lt if query.backwards else gt

    def wanted() -> Iterator[LedgerEvent]:
        nonlocal is_known
        for event in find_events(archive, query.run):
            is_known = True
            if (
                (not query.types or event.type in query.types)
                and (query.key is None or is_ahead((event.at_us, event.id), query.key))
                and (query.node is None or node_of(event.type, event.body) == query.node)
            ):
                yield event

    first = _first(wanted(), query.limit + 1, backwards=query.backwards)
    if not is_known:
        return None
    found: list[tuple[EventKey, Raw]] = []
    size = 0
    for event in first[: query.limit]:
        if found and size > MAX_PAGE_BYTES:
            break
        size += len(event.body)
        sent = make_event(query.run, event.type, event.id, event.at_us, event.body)
        found.append(((event.at_us, event.id), sent))
    return page_of(query, found, found[-1][0] if len(first) > len(found) else None)


def _first(events: Iterator[LedgerEvent], n: int, *, backwards: bool = False) -> list[LedgerEvent]:
    """Return the first, or the last, by (time, id); duplicates across files count once."""
    seen: set[int] = set()

    def each() -> Iterator[LedgerEvent]:
        for event in events:
            if event.id not in seen:
                seen.add(event.id)
                yield event

    choose = heapq.nlargest if backwards else heapq.nsmallest
    return choose(n, each(), key=lambda event: (event.at_us, event.id))
