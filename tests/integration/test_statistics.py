"""Statistics of any span, bucket, zone and group, against figures computed in Python."""

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import psycopg
import pytest

from folded_events import SHARDS, START, fold_events, make_event, make_run_events
from runfold_storage.errors import BadParameter
from runfold_storage.history import History
from runfold_storage.postgres.connections import connect
from runfold_storage.queries.stats import sql
from runfold_storage.queries.stats.query import StatsQuery, make_stats_query
from runfold_storage.read_models.summaries import RunSummary
from runfold_storage.rollups.store import rebuild_days

DAYS = """
    SELECT workflow, project, day, shard, queued, running, completed, failed, cancelled, lost,
           duration_count, duration_min_us, duration_max_us, duration_sum_us, input_tokens,
           output_tokens, cost_nano_usd,
           (SELECT jsonb_object_agg(bin, n) FROM unnest(bins, bin_counts) AS each (bin, n)
            WHERE n <> 0)
    FROM rollups_daily
    WHERE queued + running + completed + failed + cancelled + lost > 0
    ORDER BY workflow, project, day, shard
"""


def made_up(migrated_url: str, runs: int = 120, *, is_merged: bool = True) -> None:
    """Runs over five days, of all lengths and ends; a few are corrected later.

    The figures of the first half are merged in any case.
    """
    chance = random.Random(3)
    events: list[dict[str, Any]] = []
    for n in range(runs):
        names = {"workflow": chance.choice("xyz"), "project": chance.choice("pq")}
        end = chance.choice(["completed", "completed", "failed", "cancelled", None])
        second = chance.randrange(5 * 86_400)
        events.append(make_event("started", f"run-{n}", second, **names))
        if end is not None:
            fields: dict[str, Any] = {}
            if end != "cancelled":
                fields["usage"] = {"input_tokens": n, "cost_usd": 0.01}
            if end == "failed" and chance.random() < 0.8:
                fields["error"] = {"type": chance.choice(["Timeout", "ValueError"])}
            events.append(
                make_event(end, f"run-{n}", second + chance.lognormvariate(3, 2), **fields)
            )
    fold_events(migrated_url, events[::2])
    fold_events(migrated_url, events[1::2], is_merged=is_merged)
    late = [make_event("queued", f"run-{n}", -3600 * n) for n in range(10)]
    fold_events(migrated_url, late, is_merged=is_merged)


def began(run: RunSummary) -> datetime:
    return min(at for at in (run.queued_at, run.started_at, run.finished_at) if at is not None)


def bucket_of(at: datetime, bucket: str, tz: str) -> datetime:
    """As the documentation says: the hour's start decides, in the zone."""
    if bucket == "minute":
        return at.replace(second=0, microsecond=0)
    hour = at.replace(minute=0, second=0, microsecond=0)
    if bucket == "hour":
        return hour
    local = hour.astimezone(ZoneInfo(tz)).replace(hour=0, minute=0)
    if bucket == "week":
        local -= timedelta(days=local.weekday())
    if bucket == "month":
        local = local.replace(day=1)
    return local.replace(tzinfo=None).replace(tzinfo=ZoneInfo(tz)).astimezone(UTC)


def check(figures: Any, runs: Iterable[RunSummary]) -> None:
    """What is counted is exact; percentiles are within 1%."""
    runs = list(runs)
    assert figures.total == len(runs)
    for status in ("completed", "failed", "cancelled", "running", "queued", "lost"):
        assert getattr(figures, status) == sum(run.status == status for run in runs)
    assert figures.usage.input_tokens == sum(run.usage.input_tokens for run in runs)
    assert figures.usage.cost_usd == pytest.approx(sum(run.usage.cost_usd for run in runs))
    lengths = sorted(run.duration_ms for run in runs if run.duration_ms is not None)
    took = figures.duration_ms
    if not lengths:
        assert took.avg is None
        return
    assert (took.min, took.max) == (lengths[0], lengths[-1])
    assert took.avg == pytest.approx(sum(lengths) / len(lengths), abs=0.001)
    for name, fraction in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        true = lengths[max(math.ceil(fraction * len(lengths)), 1) - 1]
        assert getattr(took, name) == pytest.approx(true, rel=0.0101, abs=0.002)


@pytest.mark.parametrize("is_merged", [True, False])
def test_every_query_agrees_with_the_runs(migrated_url: str, is_merged: bool) -> None:
    """Any mixture of filters, span, bucket, zone and group."""
    made_up(migrated_url, is_merged=is_merged)
    chance = random.Random(4)
    with History(migrated_url) as history:
        runs = history.runs(limit=500).runs
        assert len(runs) == 120
        for _ in range(150):
            since = chance.choice([None, START + timedelta(hours=chance.randrange(-9, 90))])
            until = chance.choice([None, START + timedelta(hours=chance.randrange(91, 125))])
            bucket = chance.choice([None, "hour", "day", "week", "month", "day"])
            group_by = chance.choice([None, "workflow", "project", "status", "error_type"])
            tz = chance.choice([None, "UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"])
            project, workflow = chance.choice([None, "p"]), chance.choice([None, "x"])
            if chance.random() < 0.15:
                since = since or START
                bucket, until = "minute", since + timedelta(hours=5, minutes=30)
            stats = history.stats(
                project=project,
                workflow=workflow,
                since=since,
                until=until,
                bucket=bucket,
                group_by=group_by,
                tz=tz,
            )
            meant = [
                run
                for run in runs
                if project in (None, run.project)
                and workflow in (None, run.workflow)
                and (since is None or began(run) >= since)
                and (until is None or began(run) < until)
                and (group_by != "error_type" or run.status == "failed")
            ]
            check(stats, meant)
            if bucket is not None:
                buckets = defaultdict(list)
                for run in meant:
                    buckets[bucket_of(began(run), bucket, tz or "UTC")].append(run)
                assert isinstance(stats.buckets, list)
                assert [one.start for one in stats.buckets] == sorted(buckets)
                for one in stats.buckets:
                    check(one, buckets[one.start])
            if group_by is not None:
                groups = defaultdict(list)
                for run in meant:
                    error = (run.error.type if run.error else None) or ""
                    name = error if group_by == "error_type" else getattr(run, group_by)
                    groups[name].append(run)
                assert isinstance(stats.groups, list)
                assert {getattr(one, group_by) for one in stats.groups} == set(groups)
                for group in stats.groups:
                    check(group, groups[getattr(group, group_by)])


def test_days_are_the_sum_of_their_hours(migrated_url: str) -> None:
    """Daily rows, updated by deltas, equal the sum of the hourly rows."""
    made_up(migrated_url)
    with connect(migrated_url, autocommit=True) as connection:
        kept = connection.execute(DAYS).fetchall()
        hours = connection.execute(
            "SELECT extract(epoch FROM hour)::bigint FROM rollups_hourly"
        ).fetchall()
        for shard in range(SHARDS):
            rebuild_days(connection, shard, (hour * 1_000_000 for (hour,) in hours))
        assert connection.execute(DAYS).fetchall() == kept
    assert {row[:2] for row in kept} >= {("", ""), ("", "p"), ("x", "p")}


@pytest.mark.parametrize("is_merged", [True, False])
def test_a_corrected_duration_leaves_no_trace_in_its_day(
    migrated_url: str, is_merged: bool
) -> None:
    """A correction shortens the longest run of a day."""
    runs = make_run_events("a", 0, duration_s=50) + make_run_events("b", 0, duration_s=3)
    fold_events(migrated_url, runs, is_merged=is_merged)
    fold_events(migrated_url, [make_event("cancelled", "a", 2)], is_merged=is_merged)
    with History(migrated_url) as history:
        for stats in (history.stats(), history.stats(project="default")):
            assert (stats.duration_ms.min, stats.duration_ms.max) == (2000, 3000)


@pytest.mark.parametrize("is_merged", [True, False])
def test_cached_days_that_have_changed(migrated_url: str, is_merged: bool) -> None:
    """A repeated query includes later runs, in each kind of bucket, and none twice."""
    made_up(migrated_url)
    with History(migrated_url) as history:
        queries: list[dict[str, Any]] = [
            {"bucket": bucket} for bucket in (None, "day", "week", "month")
        ]
        queries += [{"bucket": "day", "project": "p"}, {"bucket": "day", "workflow": "x"}]
        for second in (10, 86_400, 10):
            fold_events(
                migrated_url,
                make_run_events(f"more-{second}", second, second, workflow="x", project="p"),
                is_merged=is_merged,
            )
            for parameters in queries:
                cached = history.stats(**parameters)
                with History(migrated_url) as other:
                    fresh = other.stats(**parameters)
                assert cached.duration_ms == fresh.duration_ms
                assert cached.buckets == fresh.buckets
                assert cached.total == fresh.total


@pytest.mark.parametrize(
    ("tz", "begin"),
    [
        ("Europe/Berlin", datetime(2026, 3, 20, 22, tzinfo=UTC)),
        ("Asia/Kolkata", datetime(2026, 3, 20, 5, tzinfo=UTC)),
        ("America/Havana", datetime(2026, 10, 25, 1, tzinfo=UTC)),  # two midnights on November 1
        ("Africa/Cairo", datetime(2026, 4, 17, 3, tzinfo=UTC)),  # none on April 24
    ],
)
def test_local_days_are_cached(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch, tz: str, begin: datetime
) -> None:
    """Every query has the answer that adding up the hours would give."""
    chance = random.Random(5)
    offset = int((begin - START).total_seconds())

    def fold_some(first: int, last: int) -> None:
        events: list[dict[str, Any]] = []
        for n in range(first, last):
            run, at = f"run-{n}", offset + chance.randrange(14 * 24 * 3600)
            events += make_run_events(run, at, workflow=chance.choice("vw"))
        fold_events(migrated_url, events)

    with History(migrated_url) as history:
        for round_ in range(3):
            fold_some(100 * round_, 100 * round_ + 100 // (round_ + 1) ** 3)
            for bucket, hours, workflow in itertools.product(
                ("day", "week", "month"), (None, 0, 7), (None, "v")
            ):
                parameters: dict[str, Any] = {"tz": tz, "bucket": bucket, "workflow": workflow}
                if hours is not None:
                    parameters["since"] = begin + timedelta(hours=30 + hours)
                    parameters["until"] = begin + timedelta(days=12, hours=hours)
                answers = [history.stats(**parameters) for _ in range(2)]
                with monkeypatch.context() as patch, History(migrated_url) as fresh:
                    patch.setattr(StatsQuery, "is_of_days", False)
                    expected = fresh.stats(**parameters)
                for each in answers:
                    assert each.buckets == expected.buckets, parameters
                    assert each.duration_ms == expected.duration_ms
                    assert each.total == expected.total > 0


@pytest.mark.parametrize("is_merged", [True, False])
def test_views_agree_with_the_module(migrated_url: str, is_merged: bool) -> None:
    """The SQL views return what the module returns."""
    made_up(migrated_url, is_merged=is_merged)
    columns = """
        total, failed, success_rate, duration_avg_ms, duration_min_ms, duration_max_ms,
        duration_p50_ms, duration_p99_ms, input_tokens, cost_usd
    """
    with History(migrated_url) as history, connect(migrated_url) as connection:
        stats = history.stats(workflow="x", project="p", bucket="day")
        assert isinstance(stats.buckets, list)
        rows = connection.execute(
            f"SELECT day, {columns} FROM daily_stats "
            "WHERE workflow = 'x' AND project = 'p' ORDER BY day"
        ).fetchall()
        assert [row[0] for row in rows] == [one.start for one in stats.buckets]
        for one, (_, *figures) in zip(stats.buckets, rows, strict=True):
            took = one.duration_ms
            assert [None if value is None else float(value) for value in figures[:6]] == [
                *(one.total, one.failed, one.success_rate),
                *(took.avg and pytest.approx(took.avg, abs=0.001), took.min, took.max),
            ]
            for value, true in ((figures[6], took.p50), (figures[7], took.p99)):
                # The module also knows that no estimate lies outside the extremes.
                assert value == (true and pytest.approx(true, rel=0.0101, abs=0.002))
            assert figures[8] == one.usage.input_tokens
            assert float(figures[9]) == pytest.approx(one.usage.cost_usd)
        by_hour = connection.execute(
            "SELECT sum(total), count(DISTINCT hour) FROM hourly_stats WHERE node IS NULL"
        ).fetchone()
        hours = history.stats(bucket="hour").buckets
        assert isinstance(hours, list)
        assert by_hour == (120, len(hours))


@pytest.mark.parametrize(
    ("parameters", "parameter"),
    [
        ({"tz": "Mars/Olympus"}, "tz"),
        ({"tz": "'; DROP TABLE runs; --"}, "tz"),
        ({"tz": ""}, "tz"),
        ({"bucket": "minute"}, "bucket"),
        ({"bucket": "minute", "since": START, "until": START + timedelta(hours=7)}, "bucket"),
        ({"bucket": "second"}, "bucket"),
        (
            {
                "bucket": "minute",
                "since": START,
                "until": START + timedelta(hours=1),
                "group_by": "node",
            },
            "group_by",
        ),
    ],
)
def test_invalid_queries(parameters: dict[str, Any], parameter: str) -> None:
    """The error names the parameter, and no connection is made."""
    with History("postgresql:///nowhere") as history, pytest.raises(BadParameter) as caught:
        history.stats(**parameters)
    assert caught.value.parameter == parameter


def test_postgresql_knows_every_accepted_zone(postgres_server: Any) -> None:
    """No zone that passes validation fails in the database."""
    with psycopg.connect(postgres_server.url) as connection:
        names = connection.execute("SELECT name FROM pg_timezone_names").fetchall()
    known = {name for (name,) in names}
    assert available_timezones() - {"localtime", "Factory"} <= known


def test_too_large_answers_are_refused_before_reading_them(
    migrated_url: str, database: psycopg.Connection
) -> None:
    """No histograms come with more sums than an answer may have."""
    database.execute(
        """
        INSERT INTO rollups_hourly (workflow, project, node, hour, status, shard, n, duration_count,
                           duration_min_us, duration_max_us, bins, bin_counts)
        SELECT 'w' || w, 'p', '', %s + make_interval(hours => h), 'completed', 0, 1, 1,
               1000, 1000, '{350}', '{1}'
        FROM generate_series(1, 200) AS w, generate_series(0, 100) AS h
        """,
        (START,),
    )
    query = make_stats_query(bucket="hour", group_by="workflow", now=datetime.now(UTC))
    (part,) = query.parts()
    with History(migrated_url) as history:
        for workflows, n_histograms in ((200, 0), (100, 10_100)):
            database.execute(
                "DELETE FROM rollups_hourly WHERE substr(workflow, 2)::int > %s", (workflows,)
            )
            with history._snapshot() as connection:
                statement = sql.figures(query, part)
                rows = connection.execute(statement, query.parameters(part)).fetchall()
            assert sum(row.bins is not None for row in rows) == n_histograms
            if not n_histograms:
                with pytest.raises(BadParameter, match="choose larger buckets"):
                    history.stats(bucket="hour", group_by="workflow")
        groups = history.stats(bucket="hour", group_by="workflow").groups
    assert isinstance(groups, list)
    assert len(groups) == 100
