"""Exactly once in effect, on PostgreSQL: whatever fails, the tables are those of the definition."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings

from conditions import wait_until
from cutting_proxy import CuttingProxy
from event_histories import (
    NOON_US,
    SHARDS,
    History,
    cut_into_steps,
    draw_history,
    generate_runs,
    to_entry,
)
from oracle import Event, Projection, project
from runfold.protocol.ids import make_run_id, run_key
from runfold.protocol.streams import shard_of
from runfold.protocol.time_limits import EARLIEST_US, MAX_FUTURE_S
from runfold_storage.checkpoints.positions import ensure_shards, load_positions
from runfold_storage.errors import PositionMoved
from runfold_storage.ledger import partitions
from runfold_storage.postgres.connections import connect
from runfold_storage.projections.batch_encoding import SingleStatementLimits
from runfold_storage.rollups.recompute import find_wrong_days
from runfold_workers.consumer.committer import Committer
from runfold_workers.consumer.pipeline import Pipeline
from runfold_workers.fold.frame_decoder import StreamEntry
from table_reader import (
    count_rows,
    delete_all_rows,
    merge_all_deltas,
    read_dead_letters,
    read_projection,
)

Connect = Callable[..., psycopg.Connection]
"""Takes the URL; by default that of the test's database."""


MakeCommitter = Callable[..., Committer]
"""Takes a connection and arguments of `Committer`."""


@pytest.fixture(params=[0, 400], ids=["step by step", "at once"])
def committer_on(request: pytest.FixtureRequest) -> MakeCommitter:
    """Committers of all shards: every test holds for both ways to write small batches."""
    limits = SingleStatementLimits(events=request.param)

    def make(connection: psycopg.Connection, **arguments: Any) -> Committer:
        committer = Committer(connection, single_statement=limits, **arguments)
        committer.own(range(SHARDS))
        return committer

    return make


@pytest.fixture
def open_connection(migrated_url: str) -> Iterator[Connect]:
    """Connections as a worker makes them, to a database of this test's own."""
    opened: list[psycopg.Connection] = []

    def open_one(url: str = migrated_url) -> psycopg.Connection:
        opened.append(connect(url, autocommit=True))
        return opened[-1]

    ensure_shards(open_one(), SHARDS)
    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def database(open_connection: Connect) -> psycopg.Connection:
    """A connection to look at the tables."""
    return open_connection()


def deliver(committer: Committer, entries: Sequence[StreamEntry]) -> None:
    """Commit those frames that lie behind the committed positions, as a worker reads them."""
    left = [
        entry
        for entry in entries
        if number_of(entry.id) > number_of(committer.positions[entry.shard].position)
    ]
    if left:
        committer.commit(left)


def number_of(stream_id: str) -> int:
    return int(stream_id.partition("-")[0])


def started(run: str = "a run", event_id: int = 0, **fields: Any) -> Event:
    return {"type": "started", "run": run, "id": event_id, "at_us": NOON_US, **fields}


def ended(run: str, event_id: int) -> Event:
    """A second event, which changes everything that the first has counted."""
    return {"type": "completed", "run": run, "id": event_id, "at_us": NOON_US + 5, "exit_code": 0}


def frame_of(*events: Event, number: int = 1) -> StreamEntry:
    """A frame of events of one shard."""
    return to_entry(shard_of(events[0]["run"], SHARDS), number, events, packed=False)


def runs_on_shard(shard: int, wanted: int) -> list[str]:
    """Ids of runs that live on the same shard."""
    names = (f"job {n}" for n in range(1000))
    return [name for name in names if shard_of(name, SHARDS) == shard][:wanted]


def without_seen(projection: Projection) -> Projection:
    """Without the last sign of life: the ledger does not keep heartbeats."""
    return replace(
        projection,
        runs={ref: row._replace(last_event_us=0) for ref, row in projection.runs.items()},
    )


def test_however_events_arrive_the_tables_are_those_of_the_definition(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """Order, cuts, duplicates, forgetting and restarts change nothing in PostgreSQL either."""

    @settings(
        max_examples=40,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(draw_history())
    def check(history: History) -> None:
        delete_all_rows(database)
        connection = open_connection()
        committer = committer_on(connection, max_cache_bytes=history.max_cache_bytes)
        for step in history.steps:
            if step.restart:
                connection.close()
                connection = open_connection()
                committer = committer_on(connection, max_cache_bytes=history.max_cache_bytes)
                merge_all_deltas(database)
            committer.commit(step.entries)
        connection.close()
        expected = without_seen(project(history.events, SHARDS))
        assert without_seen(read_projection(database)) == expected
        merge_all_deltas(database)
        assert without_seen(read_projection(database)) == expected
        assert (count_rows(database, "pending_rollups"), find_wrong_days(database)) == (0, [])
        assert read_dead_letters(database) == []

    check()


def test_extremes_that_were_taken_back_are_looked_up_among_their_own(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """Earlier ends correct the shortest and the longest; rows of other rollups do not count."""

    def history_of(
        run: str,
        ms: int,
        *,
        node: str = "n",
        node_ms: int | None = None,
        end: str = "completed",
        late: int = 9,
        at_us: int = NOON_US,
        **begin: Any,
    ) -> list[Event]:
        sent: list[Event] = [
            {"type": "started", "at_us": at_us, "workflow": "w", **begin},
            {
                "type": "node_finished",
                "at_us": at_us + late,
                "node": node,
                "duration_ms": node_ms or ms,
            },
            {"type": end, "at_us": at_us + late, "duration_ms": ms},
        ]
        return [event | {"run": run, "id": late * 10 + n} for n, event in enumerate(sent)]

    shortest, middle, longest, *others = runs_on_shard(1, 8)
    events = [
        *history_of(shortest, 10),
        *history_of(middle, 20),
        *history_of(longest, 30),
        *history_of(others[0], 1, at_us=NOON_US + 3_600_000_000),
        *history_of(others[1], 1, workflow="another"),
        *history_of(others[2], 99, project="another"),
        *history_of(others[3], 20, node="another", node_ms=99),
        *history_of(others[4], 1, node_ms=20, end="failed"),
        *history_of(runs_on_shard(2, 1)[0], 1),
    ]
    corrections = [*history_of(shortest, 15, late=5), *history_of(longest, 25, late=5)]
    steps = cut_into_steps(
        events + corrections, [""] * (len(events) - 1) + ["batch"] + [""] * 6, packed=True
    )
    committer = committer_on(open_connection())

    for step in steps:
        committer.commit(step.entries)

    expected = project(events + corrections, SHARDS)
    assert read_projection(database) == expected
    assert (15_000, 25_000) in {
        (stat.duration_min_us, stat.duration_max_us) for stat in expected.stats.values()
    }


def test_the_feed_numbers_every_change_once(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """Runs carry the number of their last change; none is given out twice on a shard."""
    committer = committer_on(open_connection())
    events = [event for run in generate_runs(seed=5, events=400) for event in run]
    steps = cut_into_steps(
        events, [["", "batch"][n % 20 == 0] for n in range(len(events))], packed=True
    )

    given_out = [
        (row.shard, change_seq)
        for step in steps
        for batch in committer.commit(step.entries)
        for row, change_seq in batch.runs
    ]

    assert len(given_out) == len(set(given_out))
    for shard, position in load_positions(database).items():
        numbers = [change_seq for of, change_seq in given_out if of == shard]
        assert numbers == list(range(1, position.change_seq + 1))
        assert position.consumed == sum(e.shard == shard for s in steps for e in s.entries)
    rows = database.execute("SELECT shard, change_seq FROM runs").fetchall()
    assert set(rows) <= set(given_out)


def test_the_second_worker_on_a_shard_loses(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """With leases off, the second commit finds that the position has moved."""
    first, second = committer_on(open_connection()), committer_on(open_connection())
    frame = frame_of(started())
    first.commit([frame])

    with pytest.raises(PositionMoved) as moved:
        second.commit([frame])
    second.disown(moved.value.shard)
    second.own(range(SHARDS))
    deliver(second, [frame, frame_of(ended("a run", 1), number=2)])

    expected = project([started(), ended("a run", 1)], SHARDS)
    assert read_projection(database) == expected


def test_workers_that_fight_for_every_shard_count_nothing_twice(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """Four workers on all shards at once, without leases: the tables are exact."""
    events = [event for run in generate_runs(seed=6, events=1500) for event in run]
    steps = cut_into_steps(
        events, [["", "batch"][n % 30 == 0] for n in range(len(events))], packed=True
    )
    entries = [entry for step in steps for entry in step.entries]
    errors: list[BaseException] = []

    def work(committer: Committer) -> None:
        try:
            while any(
                number_of(committer.positions[entry.shard].position) < number_of(entry.id)
                for entry in entries
            ):
                behind = [
                    entry
                    for entry in entries
                    if number_of(entry.id) > number_of(committer.positions[entry.shard].position)
                ]
                try:
                    committer.commit(behind[:7])
                except PositionMoved as moved:
                    committer.disown(moved.shard)
                    committer.own(range(SHARDS))
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=[committer_on(open_connection())]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert without_seen(read_projection(database)) == without_seen(project(events, SHARDS))


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "not committed"])
def test_a_lost_reply_to_commit_is_settled_by_the_position(
    committed: bool,
    open_connection: Connect,
    committer_on: MakeCommitter,
    database: psycopg.Connection,
    migrated_url: str,
) -> None:
    """The worker cannot know whether its COMMIT arrived; the next read shows it."""
    frame = frame_of(started(), ended("a run", 1))
    with CuttingProxy(migrated_url) as proxy:
        committer = committer_on(open_connection(proxy.url))
        proxy.cut_at_commit(after=committed)

        with pytest.raises(psycopg.OperationalError):
            committer.commit([frame])

    shard = shard_of("a run", SHARDS)
    assert load_positions(database)[shard].position == ("1-0" if committed else "0-0")
    deliver(committer_on(open_connection()), [frame])
    expected = project([started(), ended("a run", 1)], SHARDS)
    assert read_projection(database) == expected


def test_a_commit_that_failed_leaves_the_worker_as_if_it_had_not_read(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """A lock that is not to be had rolls everything back, and the same call then succeeds."""
    connection = open_connection()
    connection.execute("SET lock_timeout = '50ms'")
    committer = committer_on(connection)
    committer.commit([frame_of(started())])
    second = frame_of(ended("a run", 1), number=2)
    with open_connection().transaction() as other:
        other.connection.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            committer.commit([second])

    committer.commit([second])

    expected = project([started(), ended("a run", 1)], SHARDS)
    assert read_projection(database) == expected


@pytest.fixture
def poisoned(database: psycopg.Connection) -> psycopg.Connection:
    """A database that refuses events which mention poison."""
    database.execute("ALTER TABLE events ADD CHECK (body NOT LIKE '%poison%')")
    return database


@pytest.mark.parametrize(
    ("frames", "bad"),
    [
        ([1], {0}),
        ([2], {0}),
        ([2], {1}),
        ([2], {0, 1}),
        ([17], {3}),
        ([17], {0, 8, 9, 16}),
        ([3, 3, 3], {4}),
        ([5, 1, 4, 1, 7], {0, 5, 9, 10, 17}),
        ([1, 1, 1, 1], {0, 1, 2, 3}),
    ],
)
def test_only_events_that_postgresql_refuses_are_dead_letters(
    frames: list[int],
    bad: set[int],
    open_connection: Connect,
    committer_on: MakeCommitter,
    poisoned: psycopg.Connection,
) -> None:
    """They are found one by one, with the reason; all others fold, in order and once."""
    events = []
    for n, run in enumerate(runs_on_shard(1, sum(frames))):
        events.append(started(run, user="poison" if n in bad else "ada"))
    entries, places, taken = [], [], 0
    for number, size in enumerate(frames, 1):
        entries.append(frame_of(*events[taken : taken + size], number=number))
        places += [(f"{number}-0", ordinal) for ordinal in range(size)]
        taken += size

    committer = committer_on(open_connection())
    committer.commit(entries)

    letters = read_dead_letters(poisoned)
    assert sorted((frame, ordinal) for _, frame, ordinal, _, _ in letters) == [
        places[n] for n in sorted(bad)
    ]
    for _, _, _, reason, raw in letters:
        assert "refused by PostgreSQL" in reason
        assert "violates check constraint" in reason
        assert b'"poison"' in raw
    fine = [event for n, event in enumerate(events) if n not in bad]
    assert read_projection(poisoned) == project(fine, SHARDS)
    assert load_positions(poisoned)[1].consumed == len(frames)
    assert committer.positions == load_positions(poisoned)


def test_poison_on_one_shard_leaves_the_others_alone(
    open_connection: Connect, committer_on: MakeCommitter, poisoned: psycopg.Connection
) -> None:
    """A batch over all shards is cut up, and every shard's position ends at its last frame."""
    events = [event for run in generate_runs(seed=7, events=300) for event in run]
    bad = started(runs_on_shard(2, 1)[0], user="poison")
    delivered = [*events[:150], bad, *events[150:]]
    [step] = cut_into_steps(delivered, ["frame"] * len(delivered), packed=False)

    committer_on(open_connection()).commit(step.entries)

    assert without_seen(read_projection(poisoned)) == without_seen(project(events, SHARDS))
    assert len(read_dead_letters(poisoned)) == 1


def test_sums_that_postgresql_cannot_hold_are_dead_letters(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """Ten thousand times a million dollars overflow a run's cost: the last straw is refused."""
    rich = [
        {"type": "annotated", "usage": {"cost_usd": 1e6}} | {"run": "r", "id": n, "at_us": NOON_US}
        for n in range(9224)
    ]
    shard = shard_of("r", SHARDS)
    committer = committer_on(open_connection())

    committer.commit([to_entry(shard, 1, rich[:9000], packed=True)])
    committer.commit([to_entry(shard, 2, rich[9000:], packed=True)])
    committer.commit([frame_of(started("r", 10_000), number=3)])

    assert [letter[2] for letter in read_dead_letters(database)] == [223]
    expected = project([*rich[:9223], started("r", 10_000)], SHARDS)
    assert read_projection(database) == expected


def test_a_tombstone_rejects_late_events(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """A run that was deleted stays deleted; its neighbours fold."""
    [deleted, other] = runs_on_shard(0, 2)
    database.execute("INSERT INTO tombstones (shard, run) VALUES (0, %s)", [run_key(deleted)])

    committer_on(open_connection()).commit([frame_of(started(deleted), started(other))])

    assert read_projection(database) == project([started(other)], SHARDS)
    assert read_dead_letters(database) == []


def test_a_run_deleted_outside_the_fold_is_not_revived(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """A generation that was raised without a word: the worker forgets the whole shard at once."""
    committer = committer_on(open_connection())
    committer.commit([frame_of(started())])
    shard, key = shard_of("a run", SHARDS), run_key("a run")
    with database.transaction():
        database.execute("INSERT INTO tombstones (shard, run) VALUES (%s, %s)", [shard, key])
        for table in ("events", "runs", "rollup_deltas", "rollups_hourly", "rollups_daily"):
            database.execute(f"DELETE FROM {table}")
        database.execute("UPDATE positions SET generation = generation + 1")

    committer.commit([frame_of(started("a run", 1), number=2)])

    assert read_projection(database) == project([], SHARDS)


def test_a_week_without_a_partition_gets_one(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """Run ids of two years from now fold like any other, next to ids of today."""
    in_two_years = make_run_id(NOON_US + 2 * 365 * 86_400_000_000)
    week = partitions.week_of(run_key(in_two_years))
    assert week is not None
    assert week >= date(2027, 12, 27)
    assert partitions.partition_name(week) not in partitions.existing_partitions(database)
    [step] = cut_into_steps([started(in_two_years), started()], ["", ""], packed=True)

    committer_on(open_connection()).commit(step.entries)

    assert partitions.partition_name(week) in partitions.existing_partitions(database)
    assert read_projection(database) == project([started(in_two_years), started()], SHARDS)


def test_a_partition_that_was_dropped_is_made_again(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """Retention drops a week that the worker knows; a late run of that week still folds."""
    early, late = make_run_id(NOON_US), make_run_id(NOON_US)
    committer = committer_on(open_connection())
    [step] = cut_into_steps([started(early)], [""], packed=True)
    committer.commit(step.entries)
    week = partitions.week_of(run_key(early))
    database.execute(f"DROP TABLE {partitions.partition_name(week)}")
    shard = shard_of(late, SHARDS)

    committer.commit([to_entry(shard, 2, [started(late)], packed=True)])

    found = read_projection(database)
    assert found.runs == project([started(early), started(late)], SHARDS).runs
    assert found.ledger == project([started(late)], SHARDS).ledger
    assert read_dead_letters(database) == []


def test_a_ledger_that_knows_more_than_memory_is_believed(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """Events that were folded behind the worker's back: memory is loaded again, none twice."""
    committer = committer_on(open_connection())
    committer.commit([frame_of(started())])
    other = committer_on(open_connection())
    other.commit([frame_of(ended("a run", 1), number=2)])
    database.execute("UPDATE positions SET position = '1-0', change_seq = 1 WHERE position = '2-0'")
    database.execute("DELETE FROM changes WHERE change_seq = 2")
    third = {"type": "annotated", "run": "a run", "id": 2, "at_us": NOON_US, "tags": {"a": "b"}}

    committer.commit([frame_of(ended("a run", 1), third, number=2)])

    assert read_projection(database) == project([started(), ended("a run", 1), third], SHARDS)
    assert read_dead_letters(database) == []


def test_events_at_the_ends_of_time_fold(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """The year 2000 and almost a day from now, which are as far as a clock may be wrong.

    What claims to be of the future does not hide how far the fold is behind.
    """
    latest_us = int((time.time() + MAX_FUTURE_S - 60) * 1e6)
    times = {"first": EARLIEST_US, "last": latest_us}
    events = [started(run) | {"at_us": at_us} for run, at_us in times.items()]
    for number, event in enumerate(events, 1):
        committer_on(open_connection()).commit([frame_of(event, number=number)])

    assert read_projection(database) == project(events, SHARDS)
    row = database.execute(
        "SELECT max(folded_at) BETWEEN now() - interval '1 minute' AND now() FROM positions"
    ).fetchone()
    assert row == (True,)


def test_a_heartbeat_survives_a_restart(
    open_connection: Connect, committer_on: MakeCommitter, database: psycopg.Connection
) -> None:
    """`last_event_at` never goes back, although the ledger does not keep heartbeats."""
    heartbeat = {"type": "heartbeat", "run": "a run", "id": 1, "at_us": NOON_US + 60_000_000}
    committer_on(open_connection()).commit([frame_of(started(), heartbeat)])

    late = ended("a run", 2)
    committer_on(open_connection()).commit([frame_of(late, number=2)])

    expected = project([started(), heartbeat, late], SHARDS)
    assert read_projection(database) == expected


@pytest.mark.parametrize("regained", [True, False])
def test_a_refused_batch_of_a_shard_that_was_lost_meanwhile(
    regained: bool,
    open_connection: Connect,
    committer_on: MakeCommitter,
    poisoned: psycopg.Connection,
) -> None:
    """Its frames were folded by another worker: the position does not go back to them."""
    committer, other = committer_on(open_connection()), committer_on(open_connection())
    frames = [frame_of(started(user="poison")), frame_of(ended("a run", 1), number=2)]
    shard = shard_of("a run", SHARDS)
    with Pipeline(committer, lambda _: None) as pipeline:
        pipeline.submit(frames[:1])
        wait_until(lambda: not pipeline.busy, what="the batch to be refused")
        committer.own([])
        other.commit(frames)
        committer.own([shard] if regained else [])

        pipeline.drain()

    checkpoint = load_positions(poisoned)[shard]
    assert (checkpoint.position, checkpoint.consumed) == ("2-0", 2)
    assert committer.positions == ({shard: checkpoint} if regained else {})
    assert read_projection(poisoned) == project([ended("a run", 1)], SHARDS)


def test_a_shard_that_was_given_up_is_forgotten(
    open_connection: Connect, committer_on: MakeCommitter
) -> None:
    """Owned again later, it is folded from its committed position."""
    committer, other = committer_on(open_connection()), committer_on(open_connection())
    committer.commit([frame_of(started())])
    shard = shard_of("a run", SHARDS)
    committer.own([])
    assert committer.positions == {}
    other.own([])
    other.own(range(SHARDS))
    other.commit([frame_of(started("a run", 1), number=2)])

    committer.own([shard])

    assert {k: p.position for k, p in committer.positions.items()} == {shard: "2-0"}
