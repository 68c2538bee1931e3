"""The routes that go on: changes of lists and of single runs, as server-sent events.

The protocol is that of the HTML standard (https://html.spec.whatwg.org/multipage/
server-sent-events.html). The `id` of an event says how far its client is once it has it; a browser
sends it back as `Last-Event-ID` when it connects again. A comment every `KEEP_ALIVE_S` tells both
sides that the other one is there, and carries the newest id.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from litestar import HttpMethod, Request, route
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from runfold_api.live.broker import Broker
from runfold_api.live.catch_up import SnapshotCache, read_missed, read_snapshot
from runfold_api.live.run_subscriptions import RunTopics
from runfold_api.live.subscribers import Subscriber
from runfold_api.web import query_params
from runfold_api.web.problems import RunUnknown, described
from runfold_api.web.run_paths import decode_run
from runfold_storage.change_feed.reader import decode_feed_cursor, encode_feed_cursor, read_cursor
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
    """One event; JSON holds no line breaks."""
    identity = "" if event_id is None else f"id: {event_id}\n"
    return f"{identity}event: {event}\ndata: ".encode() + data + b"\n\n"


def encode_sign_of_life(event_id: str) -> bytes:
    """No event, but the client remembers the id."""
    return f": keep-alive\nid: {event_id}\n\n".encode()


class Live:
    """What the streams of one process share."""

    def __init__(self, feed: Broker, runs: RunTopics) -> None:
        self.feed = feed
        self.runs = runs
        self._snapshots = SnapshotCache(
            lambda wanted, limit: feed.read(
                lambda connection: read_snapshot(connection, wanted, limit)
            )
        )

    async def list_events(
        self, wanted: RunFilter, limit: int, last_id: str | None
    ) -> AsyncIterator[bytes]:
        """The stream of a list, until its client leaves or the process stops."""
        watcher = await self.feed.join(wanted)
        try:
            yield f"retry: {_RETRY_MS}\n\n".encode()
            await self._catch_up(watcher, wanted, last_id)
            while not self.feed.ended:
                if watcher.needs_snapshot:
                    yield await self._snapshot(watcher, wanted, limit)
                elif waiting := watcher.take():
                    yield b"".join(
                        encode_event(said.event, said.data, event_id) for event_id, said in waiting
                    )
                elif not await watcher.sleep(KEEP_ALIVE_S):
                    yield encode_sign_of_life(watcher.position())
        finally:
            self.feed.leave(watcher)

    async def _catch_up(self, watcher: Subscriber, wanted: RunFilter, last_id: str | None) -> None:
        after = decode_feed_cursor(last_id)
        missed = None
        if after is not None:
            watcher.prepare()
            missed = await self.feed.read(lambda connection: read_missed(connection, wanted, after))
        if missed is None:
            watcher.start_over()
            return
        watcher.begin(after or ())
        watcher.tell(missed.said, missed.cursor)

    async def _snapshot(self, watcher: Subscriber, wanted: RunFilter, limit: int) -> bytes:
        watcher.prepare()
        cursor, page = await self._snapshots.get(wanted, limit)
        watcher.begin(cursor)
        return encode_event("snapshot", msgspec.json.encode(page), encode_feed_cursor(cursor))

    async def run_events(self, run: str, last_id: str | None) -> AsyncIterator[bytes]:
        """The stream of one run."""
        async with self.runs.watching(run) as found:
            if found is None:
                return
            watched, watcher = found
            if last_id == str(watched.change_seq):
                watcher.needs_snapshot = False
            yield f"retry: {_RETRY_MS}\n\n".encode()
            while not self.feed.ended:
                event_id = str(watched.change_seq)
                waiting = watcher.take(watched)
                for number, (event, data) in enumerate(waiting, 1):
                    # Only the last says how far that is: who misses it begins with a snapshot.
                    yield encode_event(event, data, event_id if number == len(waiting) else None)
                    if event == "deleted":
                        return
                if not await watcher.sleep(KEEP_ALIVE_S):
                    yield encode_sign_of_life(str(watched.change_seq))


@route("/live", http_method=[HttpMethod.GET], responses=described(400, 503))
async def watch_runs(
    request: Request[Any, Any, Any],
    live: NamedDependency[Live],
    filters: NamedDependency[dict[str, Any]],
    limit: query_params.Limit = 50,
) -> Stream:
    """Runs as they change: a `snapshot`, which is a page of the list, then `changed`, `removed` and
    `deleted`."""
    wanted = make_run_filter(**filters)
    if wanted.payload is not None:
        raise BadParameter(
            "payload", "only lists and exports take it: runs are found behind the fold"
        )
    make_page(wanted, limit, 0, None)
    await live.feed.read(read_cursor)  # what can be wrong is told as a problem, before it begins
    return Stream(live.list_events(wanted, limit, _last_id(request)), **_STREAM)


@route("/runs/{run:str}/live", http_method=[HttpMethod.GET], responses=described(404, 503))
async def watch_run(
    request: Request[Any, Any, Any],
    live: NamedDependency[Live],
    history: NamedDependency[History],
    run: FromPath[str],
) -> Stream:
    """One run as it goes on: a `snapshot`, then `changed`, `nodes`, `logged`, and `deleted`."""
    run = decode_run(run)
    if await live.feed.read(lambda connection: history.find(connection, run)) is None:
        raise RunUnknown(run)
    return Stream(live.run_events(run, _last_id(request)), **_STREAM)


def _last_id(request: Request[Any, Any, Any]) -> str | None:
    return request.headers.get("last-event-id")


ROUTES = [watch_runs, watch_run]
