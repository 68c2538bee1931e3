"""The streaming routes: changes of lists and of single runs as server-sent events.

Protocol: https://html.spec.whatwg.org/multipage/server-sent-events.html. The `id` of an event is
the client's position once it has the event. A comment every `KEEP_ALIVE_S` keeps the connection
open and carries the newest id.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from litestar import HttpMethod, Request, route
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from runfold_api.live.broker import Broker
from runfold_api.live.run_subscriptions import RunTopics
from runfold_api.live.subscribers import Subscriber
from runfold_api.live.updates import SnapshotCache, read_missed
from runfold_api.web import query_params
from runfold_api.web.problems import described, run_unknown
from runfold_api.web.run_paths import decode_run
from runfold_storage.change_feed.reader import decode_feed_cursor, encode_feed_cursor
from runfold_storage.errors import BadParameter
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.filters.validation import make_run_filter
from runfold_storage.history import History
from runfold_storage.queries.runs.pages import make_page

KEEP_ALIVE_S: Final = 15.0
_RETRY_MS: Final = 1000
_STREAM: Final[dict[str, Any]] = {
    "media_type": "text/event-stream",
    "headers": {"cache-control": "no-store", "x-accel-buffering": "no"},
}


def encode_event(event: str, data: bytes, event_id: str | None = None) -> bytes:
    """Encode one event; `data` is JSON without line breaks."""
    identity = "" if event_id is None else f"id: {event_id}\n"
    return f"{identity}event: {event}\ndata: ".encode() + data + b"\n\n"


def encode_keep_alive(event_id: str) -> bytes:
    """Encode a comment with an id, which the client remembers."""
    return f": keep-alive\nid: {event_id}\n\n".encode()


class Live:
    def __init__(self, broker: Broker, runs: RunTopics, history: History) -> None:
        self.broker = broker
        self._history = history
        self.runs = runs
        self._snapshots = SnapshotCache(history.snapshot)

    async def list_events(
        self, wanted: RunFilter, limit: int, last_id: str | None
    ) -> AsyncIterator[bytes]:
        """Yield the stream of a list until the client disconnects or the process stops."""
        subscriber = await self.broker.subscribe(wanted)
        try:
            yield f"retry: {_RETRY_MS}\n\n".encode()
            await self._catch_up(subscriber, wanted, last_id)
            while not self.broker.ended:
                if subscriber.needs_snapshot:
                    yield await self._snapshot(subscriber, wanted, limit)
                elif waiting := subscriber.take():
                    yield b"".join(
                        encode_event(event.event, event.data, event_id)
                        for event_id, event in waiting
                    )
                elif not await subscriber.wakeup.within(KEEP_ALIVE_S):
                    yield encode_keep_alive(subscriber.position())
        finally:
            self.broker.unsubscribe(subscriber)

    async def _catch_up(
        self, subscriber: Subscriber, wanted: RunFilter, last_id: str | None
    ) -> None:
        after = decode_feed_cursor(last_id)
        missed = None
        if after is not None:
            subscriber.start_queueing()
            missed = await asyncio.to_thread(read_missed, self._history, wanted, after)
        if missed is None:
            subscriber.request_snapshot()
            return
        subscriber.set_position(after or ())
        subscriber.add(*missed)

    async def _snapshot(self, subscriber: Subscriber, wanted: RunFilter, limit: int) -> bytes:
        subscriber.start_queueing()
        cursor, page = await self._snapshots.get(wanted, limit)
        subscriber.set_position(cursor)
        return encode_event("snapshot", msgspec.json.encode(page), encode_feed_cursor(cursor))

    async def run_events(self, run: str, last_id: str | None) -> AsyncIterator[bytes]:
        async with self.runs.subscribe(run) as found:
            if found is None:
                return
            topic, subscriber = found
            if last_id == str(topic.change_seq):
                subscriber.needs_snapshot = False
            yield f"retry: {_RETRY_MS}\n\n".encode()
            while not self.broker.ended:
                event_id = str(topic.change_seq)
                waiting = subscriber.take(topic)
                for number, (event, data) in enumerate(waiting, 1):
                    # Only the last has an id: a client that misses it gets a snapshot.
                    yield encode_event(event, data, event_id if number == len(waiting) else None)
                    if event == "deleted":
                        return
                if not await subscriber.wakeup.within(KEEP_ALIVE_S):
                    yield encode_keep_alive(str(topic.change_seq))


@route("/live", http_method=[HttpMethod.GET], responses=described(400, 503))
async def watch_runs(
    request: Request[Any, Any, Any],
    live: NamedDependency[Live],
    history: NamedDependency[History],
    filters: NamedDependency[dict[str, Any]],
    limit: query_params.Limit = 50,
) -> Stream:
    """Stream a list: a `snapshot` (a page of the list), then `changed`, `removed` and `deleted`."""
    wanted = make_run_filter(**filters)
    if wanted.payload is not None:
        raise BadParameter(
            "payload", "only lists and exports take it: payloads are indexed after the fold"
        )
    make_page(wanted, limit, 0, None)
    await asyncio.to_thread(history.feed_cursor)  # errors become problems before the stream starts
    return Stream(live.list_events(wanted, limit, _last_id(request)), **_STREAM)


@route("/runs/{run:str}/live", http_method=[HttpMethod.GET], responses=described(404, 503))
async def watch_run(
    request: Request[Any, Any, Any],
    live: NamedDependency[Live],
    history: NamedDependency[History],
    run: FromPath[str],
) -> Stream:
    """Stream a run: a `snapshot`, then `changed`, `nodes`, `logged` and `deleted`."""
    run = decode_run(run)
    if await asyncio.to_thread(history.locate, run) is None:
        raise run_unknown(run)
    return Stream(live.run_events(run, _last_id(request)), **_STREAM)


def _last_id(request: Request[Any, Any, Any]) -> str | None:
    return request.headers.get("last-event-id")


ROUTES = [watch_runs, watch_run]
