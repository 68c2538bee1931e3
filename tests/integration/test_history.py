"""Reads from a real PostgreSQL, of events that were folded as the worker does."""

import itertools
import json
import random
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest

from conditions import wait_until
from folded_events import START, events_of, fold_events, make_event, make_run_events
from runfold.protocol.ids import make_run_id
from runfold_storage.errors import BadParameter, DatabaseUnreachable, ReadTooSlow, SchemaOutdated
from runfold_storage.history import History
from runfold_storage.queries.run.detail import RunDetail
from runfold_storage.read_models.watermarks import read_watermark

INJECTIONS = ["' OR 1=1 --", '"; DROP TABLE runs; --', "%s", "%(x)s", ":x", "\\", "a'b", "$1", "{}"]


def ids(page: Any) -> list[str]:
    """Return the ids of the runs of a page."""
    return [run.id for run in page.runs]


def details(history: History, run: str) -> RunDetail:
    """Return the details of a run that exists."""
    found = history.run(run)
    assert found is not None
    return found


def plain(value: Any) -> Any:
    """As JSON."""
    return json.loads(msgspec.json.encode(value))


def test_newest_first(migrated_url: str) -> None:
    """Runs come newest first, by their first event."""
    fold_events(migrated_url, itertools.chain(*(make_run_events(f"run-{n}", n) for n in (3, 1, 2))))
    with History(migrated_url) as history:
        assert ids(history.runs()) == ["run-3", "run-2", "run-1"]


def test_summary(migrated_url: str) -> None:
    """A summary has the contract's fields, in its units."""
    run = make_run_id()
    begin = {
        "workflow": "report",
        "project": "acme",
        "trigger": {"type": "schedule", "data": {"cron": "@daily"}},
        "user": "ann",
        "session": "s1",
        "tags": {"env": "prod", "n": 3},
        "parent_run": "p",
        "attempt": 2,
        "nodes": [{"node": "a"}, {"node": "b", "parents": ["a"]}],
    }
    usage = {"input_tokens": 120, "output_tokens": 40, "cost_usd": 0.002}
    error = {"type": "ValueError", "message": "no", "stack": "long", "node": "a"}
    fold_events(
        migrated_url,
        [
            make_event("queued", run, 0, **begin),
            make_event("started", run, 1.5),
            make_event("node_started", run, 2, node="a"),
            make_event("node_finished", run, 3, node="a", usage=usage, error=error),
            make_event("failed", run, 4, error=error, exit_code=3, duration_ms=2500.125),
        ],
    )
    with History(migrated_url) as history:
        (summary,) = history.runs().runs
    shown = plain(summary)
    assert shown == {
        "id": run,
        "project": "acme",
        "workflow": "report",
        "incomplete": False,
        "status": "failed",
        "attempt": 2,
        "parent_run": "p",
        "trigger_type": "schedule",
        "user": "ann",
        "session": "s1",
        "tags": {"env": "prod", "n": "3"},
        "queued_at": "2026-11-20T10:00:00Z",
        "started_at": "2026-11-20T10:00:01.500000Z",
        "finished_at": "2026-11-20T10:00:04Z",
        "duration_ms": 2500.125,
        "nodes": {
            "total": 2,
            "pending": 1,
            "running": 0,
            "completed": 0,
            "failed": 1,
            "skipped": 0,
            "cancelled": 0,
        },
        "usage": {
            "input_tokens": 120,
            "output_tokens": 40,
            "total_tokens": 160,
            "cost_usd": 0.002,
        },
        "error": {"type": "ValueError", "message": "no", "node": "a"},
        "exit_code": 3,
    }


def test_pages_miss_and_repeat_nothing(migrated_url: str) -> None:
    """Cursors lead through all runs once, including those that began at the same time."""
    runs = [f"run-{n:03}" for n in range(70)]
    fold_events(
        migrated_url,
        itertools.chain(*(make_run_events(run, n // 10) for n, run in enumerate(runs))),
    )
    with History(migrated_url) as history:
        found: list[str] = []
        cursor = None
        while True:
            page = history.runs(limit=7, cursor=cursor)
            found += ids(page)
            cursor = page.next_cursor
            if cursor is None:
                break
        everything = ids(history.runs(limit=100))
        by_offset = ids(history.runs(limit=30, offset=40))
    assert sorted(found) == runs
    assert found == everything
    assert by_offset == everything[40:70]


def test_new_runs_do_not_shift_pages(migrated_url: str) -> None:
    """A run that arrives between two pages is on neither of them."""
    fold_events(migrated_url, itertools.chain(*(make_run_events(f"run-{n}", n) for n in range(6))))
    with History(migrated_url) as history:
        first = history.runs(limit=3)
        fold_events(migrated_url, make_run_events("run-new", 100))
        second = history.runs(limit=3, cursor=first.next_cursor)
    assert ids(first) + ids(second) == [f"run-{n}" for n in (5, 4, 3, 2, 1, 0)]


def test_filters_agree_with_a_plain_search(migrated_url: str) -> None:
    """Every combination of filters returns the runs that Python finds, and their total."""
    chance = random.Random(5)
    events = []
    for n in range(120):
        names = {
            "workflow": chance.choice("xyz"),
            "project": chance.choice(["p", "q"]),
        }
        second = chance.randrange(4 * 3600)
        end = chance.choice(["completed", "failed", "cancelled", None, None])
        events.append(make_event("queued", f"run-{n}", second, **names))
        if end is not None or chance.random() < 0.5:
            events.append(make_event("started", f"run-{n}", second + 60))
        if end is not None:
            events.append(make_event(end, f"run-{n}", second + 90))
    fold_events(migrated_url, events)
    after, before = START + timedelta(hours=1), START + timedelta(hours=2, minutes=30)
    with History(migrated_url) as history:
        everything = history.runs(limit=500).runs
        assert len(everything) == 120
        for project, workflow, status, low, high in itertools.product(
            (None, "p"),
            (None, "x"),
            (None, ["failed"], ["queued", "running"], ["lost"]),
            (None, after),
            (None, before),
        ):
            page = history.runs(
                project=project,
                workflow=workflow,
                status=status,
                started_after=low,
                started_before=high,
                limit=500,
            )
            expected = [
                run.id
                for run in everything
                if project in (None, run.project)
                and workflow in (None, run.workflow)
                and (status is None or run.status in status)
                and (low is None or (run.started_at is not None and run.started_at >= low))
                and (high is None or (run.started_at is not None and run.started_at < high))
            ]
            assert ids(page) == expected
            assert (page.total.value, page.total.relation) == (len(expected), "exact")


def test_rare_status_pages(migrated_url: str) -> None:
    """Pages of a rare status are full, wherever its runs are."""
    events = []
    for n in range(60):
        end = "failed" if n in (0, 1, 30, 59) else "completed"
        events += make_run_events(f"run-{n}", n * 1800, end=end)
    fold_events(migrated_url, events)
    with History(migrated_url) as history:
        first = history.runs(status="failed", limit=3)
        rest = history.runs(status="failed", limit=3, cursor=first.next_cursor)
    assert ids(first) == ["run-59", "run-30", "run-1"]
    assert ids(rest) == ["run-0"]
    assert rest.next_cursor is None


def test_cursor_of_other_filters(migrated_url: str) -> None:
    """A cursor with other filters is an error, and so is one with an offset."""
    fold_events(migrated_url, itertools.chain(*(make_run_events(f"run-{n}", n) for n in range(3))))
    with History(migrated_url) as history:
        cursor = history.runs(limit=1).next_cursor
        with pytest.raises(BadParameter, match="another query"):
            history.runs(limit=1, cursor=cursor, status="failed")
        with pytest.raises(BadParameter, match="offset: cannot be combined"):
            history.runs(limit=1, cursor=cursor, offset=1)
        assert len(history.runs(limit=2, cursor=cursor).runs) == 2


def test_watermark(migrated_url: str) -> None:
    """The watermark has each shard's position, and the age of the newest folded event."""
    fold_events(migrated_url, make_run_events("a", 0))
    with History(migrated_url) as history:
        watermark = history.watermark()
        assert set(watermark.position) == {"0", "1", "2", "3"}
        assert sorted(watermark.position.values())[:3] == ["0-0"] * 3
        assert watermark.folded_at == START + timedelta(seconds=1)
        assert watermark.age_s is not None
        assert watermark.age_s >= 0
        assert history.runs().watermark.position == watermark.position


def test_nothing_folded_yet(migrated_url: str) -> None:
    """Before the first worker has run, everything is empty and nothing fails."""
    fold_events(migrated_url, [])
    with History(migrated_url) as history:
        assert history.runs().runs == []
        assert history.runs().total.value == 0
        assert history.run("a") is None
        assert history.events("a") is None
        stats = history.stats()
        assert (stats.total, stats.success_rate, stats.duration_ms.p50) == (0, None, None)
        assert history.workflows().workflows == []
        assert history.watermark().age_s is None


def test_details(migrated_url: str) -> None:
    """Details have the payloads as they were sent, nodes by their start, and the whole error."""
    run = "nightly/2026"
    error = {"type": "E", "message": "m" * 5000, "stack": "s\n" * 5000, "node": "b"}
    fold_events(
        migrated_url,
        [
            make_event(
                "queued",
                run,
                0,
                inputs={"x": 1},
                metadata={"a": 1, "b": 1},
                trigger={"type": "webhook", "data": [1, 2]},
                nodes=[{"node": "c", "node_type": "llm"}],
            ),
            make_event("started", run, 1, inputs={"x": 2.50}, metadata={"b": 2}),
            make_event("annotated", run, 9, metadata={"c": {"d": []}}),
            make_event("node_started", run, 3, node="b", inputs={"n": 1}, parents=["a"]),
            make_event("node_started", run, 2, node="a", inputs=[1]),
            make_event("node_finished", run, 2.5, node="a", outputs="done"),
            make_event("node_finished", run, 4, node="b", error=error),
            make_event("node_started", run, 5, node="b", attempt=2),
            make_event("failed", run, 6, error=error, outputs={"o": None}, exit_code=1),
        ],
    )
    with History(migrated_url) as history:
        detail = details(history, run)
    assert detail.id == run
    assert bytes(detail.inputs or b"") == b'{"x":2.5}'
    assert json.loads(bytes(detail.outputs or b"")) == {"o": None}
    assert json.loads(bytes(detail.metadata or b"")) == {"a": 1, "b": 2, "c": {"d": []}}
    assert detail.trigger is not None
    assert (detail.trigger.type, bytes(detail.trigger.data or b"")) == ("webhook", b"[1,2]")
    assert detail.error is not None
    assert (detail.error.message, detail.error.stack) == ("m" * 5000, "s\n" * 5000)
    assert [(node.node, node.attempt, node.status) for node in detail.nodes] == [
        ("a", 1, "completed"),
        ("b", 1, "failed"),
        ("b", 2, "running"),
        ("c", 1, "pending"),
    ]
    assert bytes(detail.nodes[0].inputs or b"") == b"[1]"
    assert bytes(detail.nodes[0].outputs or b"") == b'"done"'
    assert detail.nodes[0].duration_ms == 500
    assert detail.nodes[1].error is not None
    assert detail.nodes[1].error.stack == "s\n" * 5000
    assert detail.nodes[1].parents == ["a"]
    assert detail.node_counts.total == 3
    assert not detail.truncated


def test_first_end_wins_in_details(migrated_url: str) -> None:
    """Outputs and reason belong to the end that decided the status, whatever came later."""
    fold_events(
        migrated_url,
        [
            make_event("started", "a", 0),
            make_event("completed", "a", 5, outputs={"late": True}, exit_code=0),
            make_event("cancelled", "a", 4, reason="no longer needed"),
            make_event("started", "b", 0, inputs=None),
            make_event("queued", "b", 0, inputs={"from": "queued"}),
            make_event("completed", "b", 2, outputs={"first": True}),
            make_event("failed", "b", 3, error={"type": "late"}, outputs={"first": False}),
        ],
    )
    with History(migrated_url) as history:
        a, b = details(history, "a"), details(history, "b")
    assert (a.status, a.reason, a.outputs, a.exit_code) == (
        "cancelled",
        "no longer needed",
        None,
        None,
    )
    assert (b.status, b.error) == ("completed", None)
    assert bytes(b.outputs or b"") == b'{"first":true}'
    assert bytes(b.inputs or b"") == b'{"from":"queued"}'


def test_details_do_not_depend_on_the_order_of_arrival(migrated_url: str) -> None:
    """The same events in any order and batches give the same details."""
    chance = random.Random(11)
    events = [
        make_event("queued", "?", 0, inputs=1, metadata={"k": 0}),
        make_event("started", "?", 1, metadata={"k": 1}),
        make_event("started", "?", 1.5, metadata={"k": 2}, inputs=2),
        make_event("node_started", "?", 2, node="n", inputs="first"),
        make_event("node_started", "?", 3, node="n", inputs="second"),
        make_event("node_finished", "?", 4, node="n", outputs="first"),
        make_event("node_finished", "?", 5, node="n", outputs="second"),
        make_event("completed", "?", 6, outputs="first"),
        make_event("failed", "?", 7, outputs="second"),
    ]
    for n in range(4):
        shuffled = [{**item, "run": f"run-{n}", "id": i} for i, item in enumerate(events)]
        chance.shuffle(shuffled)
        cut = chance.randrange(len(shuffled))
        fold_events(migrated_url, shuffled[:cut])
        fold_events(migrated_url, shuffled[cut:])
    with History(migrated_url) as history:
        shown = [plain(details(history, f"run-{n}")) for n in range(4)]
    for one in shown:
        del one["id"]
    assert shown[0]["outputs"] == "first"
    assert shown[0]["metadata"] == {"k": 2}
    assert shown[0]["inputs"] == 1
    assert all(one == shown[0] for one in shown)


def test_unknown_runs(migrated_url: str) -> None:
    """The details of an unknown id are None, whatever it looks like."""
    fold_events(migrated_url, make_run_events("a", 0))
    with History(migrated_url) as history:
        for run in ["", "b", "x" * 201, "\0", "\ud800", make_run_id(), *INJECTIONS]:
            assert history.run(run) is None
            assert history.events(run) is None
            assert history.logs(run) is None


def test_stats(migrated_url: str) -> None:
    """Counts, rates, durations and usage of a workflow, and the same per hour."""
    events = []
    for n in range(10):
        end = "failed" if n == 0 else "completed"
        events += make_run_events(
            f"a{n}", n * 720, duration_s=n + 1, end=end, workflow="w", project="p"
        )
    usage = {"input_tokens": 10, "output_tokens": 5, "cost_usd": 0.5}
    events.append(make_event("annotated", "a3", 9999, usage=usage))
    events.append(make_event("started", "b", 0, workflow="w", project="p"))
    events += make_run_events("c", 0, workflow="other", project="q")
    fold_events(migrated_url, events)
    with History(migrated_url) as history:
        stats = history.stats(workflow="w", bucket="hour")
        since = history.stats(since=START + timedelta(minutes=90), until=START + timedelta(hours=3))
        grouped = history.stats(group_by="project", bucket="day")
        by_status = history.stats(group_by="status")
    assert (stats.total, stats.completed, stats.failed, stats.running) == (11, 9, 1, 1)
    assert stats.success_rate == 0.9
    assert (stats.duration_ms.min, stats.duration_ms.max, stats.duration_ms.avg) == (
        1000,
        10000,
        5500,
    )
    assert stats.duration_ms.p50 == pytest.approx(5000, rel=0.01)
    assert stats.duration_ms.p99 == pytest.approx(10000, rel=0.01)
    assert (stats.usage.total_tokens, stats.usage.cost_usd) == (15, 0.5)
    assert isinstance(stats.buckets, list)
    assert [(one.start, one.total) for one in stats.buckets] == [
        (START, 6),
        (START + timedelta(hours=1), 5),
    ]
    assert (since.since, since.total) == (START + timedelta(hours=1), 5)
    assert isinstance(grouped.groups, list)
    assert [(one.project, one.total) for one in grouped.groups] == [("p", 11), ("q", 1)]
    assert isinstance(grouped.groups[0].buckets, list)
    assert [one.total for one in grouped.groups[0].buckets] == [11]
    assert isinstance(by_status.groups, list)
    assert [(one.status, one.total) for one in by_status.groups] == [
        ("completed", 10),
        ("failed", 1),
        ("running", 1),
    ]


def test_stats_of_nodes(migrated_url: str) -> None:
    """Grouped by node, attempts at nodes are counted instead of runs."""
    fold_events(
        migrated_url,
        [
            make_event("started", "a", 0, workflow="w", nodes=[{"node": "x"}, {"node": "y"}]),
            make_event("node_started", "a", 1, node="x"),
            make_event("node_finished", "a", 2, node="x", status="failed"),
            make_event("node_started", "a", 3, node="x", attempt=2),
            make_event("node_finished", "a", 5, node="x", attempt=2),
            make_event("node_finished", "a", 5, node="z", status="skipped"),
        ],
    )
    with History(migrated_url) as history:
        stats = history.stats(workflow="w", group_by="node")
    assert isinstance(stats.groups, list)
    assert [(one.node, one.total) for one in stats.groups] == [("x", 2), ("y", 1), ("z", 1)]
    x, y, z = stats.groups
    assert (x.completed, x.failed, x.success_rate, x.duration_ms.max) == (1, 1, 0.5, 2000)
    assert (y.pending, z.skipped, z.success_rate) == (1, 1, None)


def test_stats_follow_corrections(migrated_url: str) -> None:
    """A run that changes its status no longer counts for the old one."""
    fold_events(migrated_url, [make_event("queued", "a", 0, workflow="w")])
    fold_events(migrated_url, [make_event("started", "a", 1), make_event("completed", "a", 2)])
    with History(migrated_url) as history:
        stats = history.stats(group_by="status")
        assert (stats.total, stats.queued, stats.completed) == (1, 0, 1)
        assert isinstance(stats.groups, list)
        assert [one.status for one in stats.groups] == ["completed"]
        assert history.runs(status="queued").total.value == 0


@pytest.mark.parametrize("is_merged", [True, False])
def test_workflows(migrated_url: str, is_merged: bool) -> None:
    """Each workflow of each project with its figures and its newest run, page by page."""
    events = []
    for n, (workflow, project) in enumerate([("a", "p"), ("a", "q"), ("b", "p"), ("ü/'", "p")]):
        events += make_run_events(f"{n}", n * 60, workflow=workflow, project=project)
        events += make_run_events(
            f"{n}-late", 7200 + n, end="failed", workflow=workflow, project=project
        )
    fold_events(migrated_url, events, is_merged=is_merged)
    with History(migrated_url) as history:
        first = history.workflows(limit=3)
        rest = history.workflows(limit=3, cursor=first.next_cursor)
        only = history.workflows(project="q")
    found = [(one.workflow, one.project) for one in first.workflows + rest.workflows]
    assert found == [("a", "p"), ("a", "q"), ("b", "p"), ("ü/'", "p")]
    assert rest.next_cursor is None
    assert [one.workflow for one in only.workflows] == ["a"]
    (one,) = only.workflows
    assert (one.total, one.completed, one.failed, one.success_rate) == (2, 1, 1, 0.5)
    assert one.last_run_at == START + timedelta(seconds=7201)


@pytest.mark.parametrize("text", INJECTIONS)
def test_injections_are_just_names(migrated_url: str, text: str) -> None:
    """SQL in a parameter is a name that no run has, or that one run has."""
    fold_events(
        migrated_url,
        make_run_events(text, 0, workflow=text, project=text) + make_run_events("other", 1),
    )
    with History(migrated_url) as history:
        assert ids(history.runs(project=text)) == [text]
        assert ids(history.runs(workflow=text)) == [text]
        assert details(history, text).workflow == text
        assert len(events_of(history.events(text))) == 2
        assert history.stats(workflow=text, project=text).total == 1
        assert len(history.workflows(project=text).workflows) == 1
        assert events_of(history.logs(text, node=text)) == []
        for refused in (
            lambda: history.runs(status=text),
            lambda: history.runs(cursor=text),
            lambda: history.stats(bucket=text),
            lambda: history.stats(group_by=text),
            lambda: history.events(text, types=text),
            lambda: history.events(text, after=text),
            lambda: history.workflows(cursor=text),
        ):
            with pytest.raises(BadParameter):
                refused()


def test_database_away() -> None:
    """A database that does not answer raises one clear error."""
    history = History("postgresql://nobody@127.0.0.1:1/none")
    with history, pytest.raises(DatabaseUnreachable, match="did not answer"):
        history.runs()


def test_schema_missing(database_url: str) -> None:
    """The error for a database without the schema names the command to run."""
    with History(database_url) as history, pytest.raises(SchemaOutdated, match="runfold migrate"):
        history.runs()


def test_connections_that_broke_are_replaced(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """A read after PostgreSQL has cut all connections works again."""
    fold_events(migrated_url, make_run_events("a", 0))
    ours = "FROM pg_stat_activity WHERE application_name = 'runfold-history'"
    with History(migrated_url) as history:
        history.runs()
        database.execute(f"SELECT pg_terminate_backend(pid) {ours}")
        wait_until(lambda: database.execute(f"SELECT count(*) {ours}").fetchone() == (0,))
        assert ids(history.runs()) == ["a"]


def test_a_connection_cut_in_the_middle(
    database: psycopg.Connection, migrated_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A read that loses its server raises an error and logs nothing; the next one works."""
    fold_events(migrated_url, make_run_events("a", 0))

    def cut(history: History) -> None:
        with history._snapshot() as connection:
            read_watermark(connection)
            database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'runfold-history'"
            )
            read_watermark(connection)

    with History(migrated_url) as history:
        with pytest.raises(DatabaseUnreachable, match="terminating connection"):
            cut(history)
        assert caplog.messages == []
        assert ids(history.runs()) == ["a"]


def test_slow_reads_are_cut(migrated_url: str) -> None:
    """A read that takes too long raises an error with a remedy; its connection stays usable."""
    fold_events(migrated_url, make_run_events("a", 0))
    with History(migrated_url, timeout_s=0.3) as history:
        with psycopg.connect(migrated_url) as other:
            other.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(ReadTooSlow, match="narrow"):
                history.runs()
        assert ids(history.runs()) == ["a"]


def test_reads_write_nothing(migrated_url: str) -> None:
    """The connections of a history cannot write, whatever happens in between."""
    fold_events(migrated_url, make_run_events("a", 0))
    with History(migrated_url) as history, history._snapshot() as connection:
        mode = connection.execute("SHOW transaction_read_only").fetchone()
    assert mode == ("on",)
