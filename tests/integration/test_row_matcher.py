"""The row matcher agrees with SQL about every row and filter."""

from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import psycopg
import pytest

from oracle import project
from runfold_storage.filters.catalogue import FILTERS
from runfold_storage.filters.run_filter import RunFilter, match_of
from runfold_storage.projections import batch_writer
from runfold_storage.records.rows import Batch, RunRow

pytestmark = pytest.mark.usefixtures("deployment")

NOON = datetime(2026, 11, 21, 12, 0, 0, 1, tzinfo=UTC)
NOON_US = int(NOON.timestamp()) * 1_000_000 + 1
[PLAIN] = project(
    [{"type": "queued", "run": "plain", "id": 0, "at_us": NOON_US, "workflow": "w"}], shards=1
).runs.values()
ROWS = [
    PLAIN,
    PLAIN._replace(project="p", workflow="W", status="running", started_us=NOON_US),
    PLAIN._replace(status="completed", started_us=NOON_US + 1, duration_us=0, tags={}),
    PLAIN._replace(status="lost", started_us=NOON_US - 1, tags={"env": "prod", "a": "1"}),
    PLAIN._replace(status="failed", duration_us=2**40, error_type="E", error_message="no"),
    PLAIN._replace(trigger_type="cron", user="ünal", session="s", parent_run="plain"),
    PLAIN._replace(trigger_type="", user="ünal ", cost_nano_usd=2**40, tags={"env": "Prod"}),
    PLAIN._replace(cost_nano_usd=-1, duration_us=1, tags={"ключ": '"\\', "env": ""}),
]
ROWS = [row._replace(run=bytes([number]) * 16) for number, row in enumerate(ROWS)]

VALUES: dict[str, list[Any]] = {
    "project": ["p", "default"],
    "workflow": ["w", "W"],
    "statuses": [("lost",), ("completed", "failed")],
    "trigger": ["cron", ""],
    "user": ["ünal", "ünal "],
    "session": ["s"],
    "tags": [(("env", "prod"),), (("a", "1"), ("env", "prod")), (("env", ""),), (("ключ", '"\\'),)],
    "started_after": [NOON, NOON + timedelta(microseconds=1)],
    "started_before": [NOON, NOON + timedelta(microseconds=1)],
    "min_duration_us": [0, 1],
    "max_duration_us": [0, 2**40],
    "min_cost_nano_usd": [0, 2**40],
    "max_cost_nano_usd": [-1, 0],
    "error_type": ["E", "e"],
    "parent_run": ["plain"],
}
ONLY_SQL = {"fingerprint", "q", "payload"}


def test_every_field_of_a_filter_is_tested() -> None:
    """A new filter has values here, or only SQL can evaluate it."""
    assert set(RunFilter.__struct_fields__) == VALUES.keys() | ONLY_SQL
    assert {each.stored_as for each in FILTERS} == VALUES.keys() | ONLY_SQL


@pytest.mark.parametrize("name", sorted(ONLY_SQL))
def test_filters_that_only_sql_can_evaluate(name: str) -> None:
    """There is no matcher, also in combination with other filters."""
    given: dict[str, Any] = {name: "x", "project": "p"}
    assert match_of(RunFilter(**given)) is None


def test_matcher_agrees_with_sql(database: psycopg.Connection) -> None:
    """About every row, for each value alone and for any two together."""
    batch_writer.write_projections(
        database, Batch(advances=[], new_runs=[(row, n) for n, row in enumerate(ROWS, 1)])
    )
    single = [{name: value} for name, values in VALUES.items() for value in values]
    pairs = [one | other for one, other in combinations(single, 2) if not one.keys() & other.keys()]
    found = 0
    for given in [{}, *single, *pairs]:
        wanted = RunFilter(**given)
        match = match_of(wanted)
        assert match is not None
        conditions = " AND ".join(wanted.conditions()) or "true"
        stored = database.execute(
            f"SELECT run FROM runs WHERE {conditions}".encode(), wanted.parameters()
        )
        own = {row.run for row in ROWS if match(row)}
        assert own == {run.bytes for (run,) in stored}, given
        found += len(own)
    assert found > len(pairs) / 2  # not that nothing is ever found


def test_times_of_a_row_equal_those_of_the_tables() -> None:
    """They agree to the microsecond."""
    row: RunRow = ROWS[2]._replace(queued_us=None, finished_us=NOON_US)
    assert (row.queued_at, row.started_at) == (None, NOON + timedelta(microseconds=1))
    assert row.finished_at == NOON
