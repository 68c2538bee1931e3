"""Deleted runs leave nothing, the rest is exact, and nothing brings them back."""

import itertools
import random
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest

from conditions import is_folded, run_fold_worker, wait_until
from event_histories import NOON_US, generate_runs
from frame_delivery import SHARDS, Sender, assert_exact, fold, interleave_runs, make_frames
from oracle import Event, project
from rebuild_checks import find_mismatches, rebuild_all
from runfold.protocol.ids import run_key
from runfold.protocol.streams import agree_on_shards, connect, shard_of
from runfold_storage.admin import Admin, Deleted, make_deletion
from runfold_storage.checkpoints.positions import ensure_shards
from runfold_storage.errors import BadParameter
from runfold_storage.filters.run_filter import RunFilter
from runfold_storage.jobs import Job, JobInterrupted
from runfold_storage.postgres import connections
from runfold_storage.projections.batch_writer import prepare_session
from runfold_storage.retention import run_deletion
from runfold_storage.retention.run_deletion import (
    Deletion,
    DeletionLimits,
    delete_run,
    delete_runs,
    newest_key,
    purge_left,
)
from table_reader import delete_all_rows, read_projection

EVENTS = [
    event
    for run in generate_runs(seed=11, events=1500)
    for event in run
    if event["type"] != "heartbeat"
]
WHOLE = project(EVENTS, SHARDS)
RUNS = sorted({event["run"] for event in EVENTS})


@pytest.fixture
def database(database: psycopg.Connection, migrated_url: str) -> psycopg.Connection:
    """With what `EVENTS` makes, folded."""
    ensure_shards(database, SHARDS)
    prepare_session(database)
    fold(migrated_url, EVENTS)
    return database


def without(gone: Iterable[str]) -> list[Event]:
    gone = set(gone)
    return [event for event in EVENTS if event["run"] not in gone]


def runs_like(**fields: object) -> list[str]:
    """The ids of runs with these values."""
    by_key = {(shard_of(run, SHARDS), run_key(run).bytes): run for run in RUNS}
    return [
        by_key[ref]
        for ref, row in WHOLE.runs.items()
        if all(getattr(row, name) == value for name, value in fields.items())
    ]


def test_one_run_goes_with_all_that_is_its(database: psycopg.Connection) -> None:
    """Rows, events and figures; what is left is what there would be without it."""
    assert delete_run(database, RUNS[0])
    assert read_projection(database) == project(without([RUNS[0]]), SHARDS)
    assert not delete_run(database, RUNS[0])
    assert not delete_run(database, "never heard of")
    assert not delete_run(database, "")
    assert not delete_run(database, "\ud800")


def test_neither_late_events_nor_a_rebuild_bring_it_back(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """Whatever was sent twice or comes late."""
    [gone, *_] = runs_like(status="completed")
    assert delete_run(database, gone)
    last = max(event["at_us"] for event in EVENTS)
    late: Event = {"type": "annotated", "run": gone, "id": 10**9, "at_us": last, "tags": {"a": "b"}}
    again = [event for event in EVENTS if event["run"] == gone]
    fold(migrated_url, [*again, late], first=10_000)
    expected = project(without([gone]), SHARDS)
    assert read_projection(database) == expected

    with connections.connect(migrated_url, autocommit=True) as connection:
        assert rebuild_all(connection).runs == 0
    assert read_projection(database) == expected


def test_a_worker_that_remembers_a_run_forgets_it(
    database: psycopg.Connection, migrated_url: str, redis_url: str
) -> None:
    """Deleted while a worker has it in memory, with more of its events to come."""
    halves = EVENTS[: len(EVENTS) // 2], EVENTS
    delete_all_rows(database)
    gone = {event["run"] for event in halves[0][::40]}
    with connect(redis_url) as client:
        agree_on_shards(client, SHARDS)
        with run_fold_worker(redis_url, migrated_url, SHARDS):
            for number, events in enumerate(halves):
                sender = Sender(redis_url, make_frames(events), pause_s=0)
                sender.start()
                sender.join()
                wait_until(lambda: is_folded(client, database), what="everything to be folded")
                if not number:
                    assert all(delete_run(database, run) for run in gone)
        found = read_projection(database)
    assert found == project(without(gone), SHARDS)


@pytest.mark.parametrize("runs_of_a_page", [3, 500])
@pytest.mark.parametrize(
    ("filters", "fields"),
    [
        ({"project": "acme"}, {"project": "acme"}),
        ({"workflow": "etl"}, {"workflow": "etl"}),
        ({"status": ["failed"]}, {"status": "failed"}),
        ({"status": ["failed"], "project": "acme"}, {"status": "failed", "project": "acme"}),
    ],
)
def test_what_a_filter_means_goes(
    database: psycopg.Connection,
    migrated_url: str,
    runs_of_a_page: int,
    filters: dict[str, object],
    fields: dict[str, object],
) -> None:
    """No more and no less, in pages of any size."""
    limits = DeletionLimits(
        page_runs=runs_of_a_page, purged_events=5 * runs_of_a_page, least_rows=runs_of_a_page
    )
    gone = runs_like(**fields)
    assert 0 < len(gone) < len(RUNS)
    deletion = make_deletion(**filters)  # type: ignore[arg-type]
    assert delete_runs(database, deletion, limits=limits) == len(gone)
    assert read_projection(database) == project(without(gone), SHARDS)
    assert Admin(migrated_url).delete_runs(**filters) == Deleted(0)  # type: ignore[arg-type]


def test_age_counts_from_the_end(database: psycopg.Connection) -> None:
    """Of a run without an end, from its last sign of life."""
    ends = sorted(row.finished_us or row.last_event_us for row in WHOLE.runs.values())
    middle_us = ends[len(ends) // 2]
    middle = datetime.fromtimestamp(middle_us / 1e6, UTC)
    keys = {run_key(run).bytes: run for run in RUNS}
    gone = [
        keys[key]
        for (_, key), row in WHOLE.runs.items()
        if (row.finished_us or row.last_event_us) < middle_us
    ]
    assert delete_runs(database, Deletion(RunFilter(), middle)) == len(gone) > 0
    assert read_projection(database) == project(without(gone), SHARDS)


def timed_run(run: str, seconds: int, **fields: object) -> list[Event]:
    """A run that took so long, and so did its node."""
    begin = {"run": run, "at_us": NOON_US}
    end = begin | {"at_us": NOON_US + seconds * 1_000_000}
    return [
        {"type": "started", "id": 0, "workflow": "timed", "project": "old"} | begin | fields,
        {"type": "node_started", "id": 1, "node": "a"} | begin,
        {"type": "node_finished", "id": 2, "node": "a"} | end,
        {"type": "completed", "id": 3} | end,
    ]


def test_minima_and_maxima_are_right_after_every_step(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """Equal durations: a run that is known to have one is deleted, renamed, or takes longer."""
    limits = DeletionLimits(least_rows=4, most_rows=4)
    chance = random.Random(3)
    names = (f"timed/{number}" for number in itertools.count())
    runs = list(itertools.islice((run for run in names if shard_of(run, SHARDS) == 0), 40))
    history = [timed_run(run, chance.choice([10, 10, 10, 20, 30, 30])) for run in runs]
    later = timed_run("later", 15, project="new")
    events = [event for run in history for event in run]
    fold(migrated_url, events, first=10_000)
    changes: list[list[Event]] = [
        [{"type": "started", "run": run, "id": 4, "at_us": NOON_US + 1, "workflow": "renamed"}]
        if number % 2
        else [{"type": "node_started", "run": run, "id": 4, "at_us": NOON_US - 1, "node": "a"}]
        for number, run in enumerate(runs)
    ]
    steps = itertools.count(1)

    def compare(deleted: int, _: object) -> None:
        if not deleted:
            return
        change = changes.pop()  # of a run that is deleted late
        events.extend(change + later)
        fold(migrated_url, change + later, first=10_000 + 1_000 * next(steps))
        later.clear()
        found = read_projection(database)
        left = [
            event
            for event in EVENTS + events
            if (shard_of(event["run"], SHARDS), run_key(event["run"]).bytes) in found.runs
        ]
        assert found == project(left, SHARDS)

    delete_runs(database, make_deletion(project="old"), on_progress=compare, limits=limits)
    assert next(steps) > 10


def test_runs_that_begin_after_the_request_stay(database: psycopg.Connection) -> None:
    """Newer than the newest at the time of asking: none of those that were meant."""
    newest, *rest = sorted((row.created_us, key) for (_, key), row in WHOLE.runs.items())[::-1]
    up_to = max(rest)
    place = datetime.fromtimestamp(up_to[0] / 1e6, UTC), UUID(bytes=up_to[1])
    everything = make_deletion(everything=True)
    assert newest_key(database, everything) != place
    assert delete_runs(database, everything, up_to=place) == len(RUNS) - 1
    assert database.execute("SELECT count(*) FROM rollups_hourly WHERE n = 0").fetchone() == (0,)
    assert [key for _, key in read_projection(database).runs] == [newest[1]]


def test_a_deletion_that_was_stopped_goes_on(database: psycopg.Connection) -> None:
    """A deletion stops after the present step, and resumes from the reported key."""
    limits = DeletionLimits(page_runs=4)
    everything = make_deletion(everything=True)
    up_to = newest_key(database, everything)
    after, deleted, stops = None, 0, 0
    stop = threading.Event()
    stop.set()

    def report(n: int, place: run_deletion.ListKey | None) -> None:
        nonlocal after, deleted
        after, deleted = place, deleted + n

    while True:
        try:
            delete_runs(
                database,
                everything,
                up_to=up_to,
                after=after,
                on_progress=report,
                stop=stop,
                limits=limits,
            )
        except JobInterrupted:
            stops += 1
        else:
            break
    assert deleted == len(RUNS)
    assert stops >= len(RUNS) // 4
    assert read_projection(database) == project([], SHARDS)


def test_events_that_were_left_go_with_the_next_deletion(database: psycopg.Connection) -> None:
    """The tombstone of an interrupted deletion marks that events are left."""
    shard = shard_of(RUNS[0], SHARDS)
    assert run_deletion._delete_with_tombstones(
        database, shard, [run_key(RUNS[0])], Deletion(RunFilter())
    )
    assert read_projection(database) != project(without(RUNS[:1]), SHARDS)
    assert delete_runs(database, make_deletion(workflow="there is none")) == 0
    assert read_projection(database) == project(without(RUNS[:1]), SHARDS)
    assert purge_left(database) == 0


def test_many_become_a_job(database: psycopg.Connection, migrated_url: str) -> None:
    """Nothing is deleted until a worker does it; the job says how many there are."""
    n = len(runs_like(project="acme"))
    job = Admin(migrated_url, at_once=n - 1).delete_runs(project="acme")
    assert isinstance(job, Job)
    assert (job.kind, job.status, job.background, job.arguments["runs"]) == (
        *("delete", "queued", True),
        n,
    )
    assert read_projection(database) == WHOLE
    assert Admin(migrated_url, at_once=n).delete_runs(project="acme") == Deleted(n)


def test_deleting_everything_must_be_explicit(migrated_url: str) -> None:
    """Without a filter nothing is deleted by mistake; contradictions are errors."""
    upkeep = Admin(migrated_url)
    with pytest.raises(BadParameter, match="all=true"):
        upkeep.delete_runs()
    with pytest.raises(BadParameter, match="no filter"):
        upkeep.delete_runs(everything=True, project="acme")
    with pytest.raises(BadParameter, match="older_than_days"):
        upkeep.delete_runs(older_than_days=0)
    assert upkeep.delete_runs(everything=True) == Deleted(0)


def test_deleting_and_rebuilding_while_events_arrive(redis_url: str, migrated_url: str) -> None:
    """Damage, rebuilds and deletions at once, under load: in the end all is as the events say."""
    rng = random.Random(29)
    events = [event for event in interleave_runs(rng, 10_000) if event["type"] != "heartbeat"]
    gone = set(rng.sample(sorted({event["run"] for event in events}), 40))
    frames = make_frames(events, size=10)
    with (
        connect(redis_url) as client,
        connections.connect(migrated_url, autocommit=True) as database,
        connections.connect(migrated_url, autocommit=True) as rebuilding,
        connections.connect(migrated_url, autocommit=True) as deleting,
    ):
        ensure_shards(database, SHARDS)
        agree_on_shards(client, SHARDS)
        prepare_session(deleting)
        with run_fold_worker(redis_url, migrated_url, SHARDS):
            sender = Sender(redis_url, frames, pause_s=0.0045, endless=True)
            sender.start()
            waiting = set(gone)
            rebuilds = 0
            while rebuilds < 2 or sender.sent < sender.total:
                database.execute(
                    "UPDATE runs SET status = 'lost' WHERE hashtext(run::text) %% 5 = %s",
                    (rebuilds % 5,),
                )
                rebuild_all(rebuilding)
                rebuilds += 1
                waiting -= {run for run in sorted(waiting)[:8] if delete_run(deleting, run)}
            sender.finish()
            wait_until(lambda: is_folded(client, database), what="everything to be folded")
            waiting -= {run for run in waiting if delete_run(deleting, run)}
            assert not waiting
            rebuild_all(rebuilding)
            assert_exact(client, database, [each for each in events if each["run"] not in gone])
            assert find_mismatches(rebuilding) == []
