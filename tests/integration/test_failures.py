"""Failures grouped by fingerprint."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from folded_events import START, fold_events, make_event
from runfold_storage.errors import BadParameter
from runfold_storage.history import History
from runfold_storage.queries.stats.failures import make_failure_query, read_failures

ALIKE = [
    ("no answer of 10.0.0.7 after 3000 ms", "no answer of 10.0.0.201 after 15 ms"),
    (
        "run 019b0000-0000-7000-8000-000000000001 is gone",
        "run 019B0000-aaaa-7000-8000-0000000000ff is gone",
    ),
    ("cannot open '/tmp/a b.csv'", "cannot open '/var/lib/x.csv'"),
    ("cannot open /tmp/a.csv: denied", "cannot open /var/lib/xyz.parquet: denied"),
    ('key "a\'b" is missing', 'key "other" is missing'),
    ("at 0x7ffee4c0 in frame deadbeef", "at 0x11 in frame 00c0ffee42"),
    ("GET https://example.org/a?b=1 failed", "GET https://example.com/ failed"),
    ("", ""),
]


def fingerprint(database: psycopg.Connection, *arguments: str | None) -> str:
    row = database.execute("SELECT runfold_fingerprint(%s, %s, %s)", arguments).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_alike(database: psycopg.Connection, one: str, other: str) -> None:
    """Messages that differ only in variable parts have the same fingerprint."""
    assert fingerprint(database, "E", "n", one) == fingerprint(database, "E", "n", other)


def test_not_alike(database: psycopg.Connection) -> None:
    """Other types, nodes or words have other fingerprints; so has a failure without an error."""
    kinds = [
        ("E", "n", "no answer"),
        ("F", "n", "no answer"),
        ("E", "m", "no answer"),
        ("E", "n", "no question"),
        ("E", None, "n no answer"),
        (None, None, None),
        *(("E", "n", one) for one, _ in ALIKE),
    ]
    assert len({fingerprint(database, *kind) for kind in kinds}) == len(kinds)


def failed(run: str, second: float, message: str, **names: Any) -> list[dict[str, Any]]:
    """Return the events of a run that failed because of its node."""
    error = {"type": "Timeout", "message": message}
    return [
        make_event("started", run, second, **names),
        make_event("node_started", run, second, node="fetch"),
        make_event("node_finished", run, second + 1, node="fetch", error=error),
        make_event("failed", run, second + 2, error={**error, "node": "fetch"}),
    ]


def test_groups(migrated_url: str) -> None:
    """A group has counts, first and last time and an example; runs share it with their nodes."""
    events = [make_event("started", "retried", 0), make_event("completed", "retried", 99)]
    for attempt in (1, 2, 3, 4):
        error = {"type": "OSError", "message": f"try {attempt}"}
        events.append(
            make_event("node_finished", "retried", attempt, node="n", attempt=attempt, error=error)
        )
    for n in range(3):
        events += failed(f"run-{n}", n * 60, f"no answer after {n} ms", workflow="w", project="p")
    events += failed("other", 7200, "refused", workflow="v")
    fold_events(migrated_url, events)
    with History(migrated_url) as history:
        found = history.failures()
        assert found.relation == "exact"
        retried, timeout, refused = found.failures
        assert (retried.error_type, retried.node, retried.runs, retried.node_attempts) == (
            *("OSError", "n", 0, 4),
        )
        assert (timeout.message, timeout.runs, timeout.node_attempts, timeout.example_run) == (
            *("no answer after 2 ms", 3, 3, "run-2"),
        )
        assert timeout.first_seen_at == START + timedelta(seconds=1)
        assert timeout.last_seen_at == START + timedelta(seconds=122)
        assert refused.message == "refused"
        of_group = history.runs(fingerprint=timeout.fingerprint)
        assert [run.id for run in of_group.runs] == ["run-2", "run-1", "run-0"]
        assert of_group.total.value == 3
        assert history.failures(limit=1).failures == [retried]
        assert history.failures(workflow="w", project="p").failures == [timeout]
        late = history.failures(since=START + timedelta(hours=1))
        assert [group.message for group in late.failures] == ["refused"]
        early = history.failures(until=START + timedelta(seconds=3))
        assert [group.runs for group in early.failures] == [0, 1]
        with pytest.raises(BadParameter, match="until"):
            history.failures(since=START, until=START)
        query = make_failure_query(project=None, workflow=None, since=None, until=None, limit=50)
        with history._snapshot() as connection:
            assert read_failures(connection, query, max_examined=3).relation == "at_least"
