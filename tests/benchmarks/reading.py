"""How long reads take, in PostgreSQL and over HTTP, and how much longer with ten times the runs.

`sql` is what the statements of one read take together, with their way there and back; `http` is
the whole request, from a client that does as little as it can to one process of the API.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

import psycopg
from sqlalchemy import event

from benchmarks.children import Child
from runfold_storage.history import History

_WARM_UP: Final = 5


class ReadFailed(Exception):
    """The API did not answer a read."""


class Read(NamedTuple):
    """One question, in Python and over HTTP."""

    name: str
    ask: Callable[[History], Any]
    path: str
    is_bounded: bool = False
    """It looks at up to 50,000 runs, for its filters together match next to nothing."""


def measure(redis_url: str, database_url: str, rounds: int) -> dict[str, dict[str, float]]:
    """p50 and p99 in milliseconds of each read."""
    figures = {}
    with (
        History(database_url) as history,
        Child("serving", redis_url=redis_url, database_url=database_url) as serving,
    ):
        serving.go()
        client = HTTPConnection(urlsplit(serving.answer()["url"]).netloc)
        for read in _reads(history):
            few = max(rounds // 20, 5) if read.is_bounded else rounds
            sql = _sql_ms(history, read, few)
            http = _http_ms(client, read, few)
            figures[read.name] = {
                "sql_p50": sql[len(sql) // 2],
                "sql_p99": sql[len(sql) * 99 // 100],
                "http_p50": http[len(http) // 2],
                "http_p99": http[len(http) * 99 // 100],
                "bounded": read.is_bounded,
            }
    return figures


def _reads(history: History) -> Iterator[Read]:
    now = datetime.now(UTC)
    deep = history.runs(limit=50, offset=5000)
    if deep.next_cursor is None:  # of a month that is as short
        deep = history.runs(limit=50, offset=500)
    yield Read("nothing", _ask_nothing, "/healthz")
    yield _list("list")
    yield _list("list, deep cursor", cursor=deep.next_cursor)
    for name, filters in _FILTERS.items():
        yield _list(f"list, {name}", **filters)
    day = {"started_after": now - timedelta(days=20), "started_before": now - timedelta(days=19)}
    yield _list("list, a day", **day)
    yield _list("list, from tomorrow on (none)", started_after=now + timedelta(days=1))
    for name, filters in _NEXT_TO_NOTHING.items():
        yield _list(f"list, {name}", **filters)._replace(is_bounded=True)
    run = deep.runs[0].id
    yield _list("list, text (the id)", q=run)
    yield _list("list, text (the id's end)", q=run[-8:])
    yield Read("one run", lambda history: history.run(run), f"/api/v1/runs/{run}")
    # Whole days, as the page asks for them.
    since = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=30)
    for name, question in (
        ("a month by day", {}),
        ("a month by day, a project", {"project": "project-2"}),
        ("a month by day, a workflow", {"workflow": "workflow-7"}),
    ):
        query = {"since": since, "bucket": "day", **question}
        yield Read(name, _stats(query), f"/api/v1/stats?{_encoded(query)}")
    yield _list("count", limit=1)


_FILTERS: Final[dict[str, dict[str, Any]]] = {
    "project": {"project": "project-2"},
    "workflow": {"workflow": "workflow-7"},
    "failed (5%)": {"status": "failed"},
    "cancelled (0.1%)": {"status": "cancelled"},
    "lost (none)": {"status": "lost"},
    "running": {"status": "running"},
    "trigger (30%)": {"trigger": "webhook"},
    "trigger (rare)": {"trigger": "backfill"},
    "user (4%)": {"user": "user-3"},
    "user (rare)": {"user": "rare"},
    "session": {"session": "session-777"},
    "tag (60%)": {"tag": "env=prod"},
    "tag (0.5%)": {"tag": "team=team-9"},
    "tag (rare)": {"tag": "incident=yes"},
    "tag (none)": {"tag": "no=such"},
    "10 minutes or longer": {"min_duration_ms": 600_000},
    "$20 or more": {"min_cost_usd": 20},
    "error type (1%)": {"error_type": "Timeout"},
    "error type (rare)": {"error_type": "Unheard"},
    "user and workflow": {"user": "user-1", "workflow": "workflow-3"},
    "user and error type": {"user": "user-1", "error_type": "Timeout"},
    "project and workflow (none)": {"project": "project-3", "workflow": "workflow-7"},
    "user and trigger, both rare (none)": {"user": "rare", "trigger": "backfill"},
    "workflow and rare trigger (none)": {"workflow": "workflow-3", "trigger": "backfill"},
    "text (rare)": {"q": "unheard"},
    "text (5%)": {"q": "workflow-7"},
    "text (none)": {"q": "no such text"},
    "cancelled, of a user (none)": {"status": "cancelled", "user": "rare"},
}
_NEXT_TO_NOTHING: Final[dict[str, dict[str, Any]]] = {
    "1 ms or shorter (none)": {"max_duration_ms": 1},
    "common tag, 5 ms or shorter (none)": {"tag": "env=prod", "max_duration_ms": 5},
}


def _ask_nothing(history: History) -> None:
    """What any statement takes, and what the machine happens to add."""
    with history._snapshot() as connection:
        connection.execute("SELECT 1").fetchall()


def _list(name: str, **filters: Any) -> Read:
    return Read(name, lambda history: history.runs(**filters), f"/api/v1/runs?{_encoded(filters)}")


def _stats(query: dict[str, Any]) -> Callable[[History], Any]:
    return lambda history: history.stats(**query)


def _encoded(query: dict[str, Any]) -> str:
    return urlencode(
        {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in query.items()
        }
    )


def _sql_ms(history: History, read: Read, rounds: int) -> list[float]:
    times = []
    with _statement_times(history) as spent:
        for number in range(rounds + _WARM_UP):
            spent.clear()
            read.ask(history)
            if number >= _WARM_UP:
                times.append(sum(spent) * 1000)
    return sorted(times)


def _http_ms(client: HTTPConnection, read: Read, rounds: int) -> list[float]:
    times = []
    client.close()  # the server may have: it was left alone for as long as the other half took
    for number in range(rounds + _WARM_UP):
        began = time.perf_counter()
        client.request("GET", read.path)
        response = client.getresponse()
        body = response.read()
        if number >= _WARM_UP:
            times.append((time.perf_counter() - began) * 1000)
        if response.status != HTTPStatus.OK:
            raise ReadFailed(f"{read.path}: {response.status} {body.decode()}")
    return sorted(times)


@contextmanager
def _statement_times(history: History) -> Iterator[list[float]]:
    """Seconds of each statement, as they are executed."""
    pool = history._snapshot._pool  # it has no other way in, and needs none but here
    spent: list[float] = []

    class Timed(psycopg.Cursor[Any]):
        def execute(self, *args: Any, **kwargs: Any) -> Self:
            began = time.perf_counter()
            try:
                return super().execute(*args, **kwargs)
            finally:
                spent.append(time.perf_counter() - began)

    def connected(connection: psycopg.Connection, *_: object) -> None:
        connection.cursor_factory = Timed

    pool.dispose()
    event.listen(pool, "connect", connected)
    try:
        yield spent
    finally:
        event.remove(pool, "connect", connected)
        pool.dispose()
