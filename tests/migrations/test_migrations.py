"""The schema: up, down, and the same as declared."""

import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from runfold_storage.errors import BadParameter, DatabaseUnreachable, SchemaOutdated
from runfold_storage.ledger import partitions
from runfold_storage.migrate import check_schema, current_revision, differences, head, migrate
from runfold_storage.postgres import connections
from runfold_storage.tables import metadata

TODAY = datetime.now(UTC).date()

LEFT_BEHIND = """
    SELECT c.relkind::text, c.relname FROM pg_class AS c
    WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'type', t.typname FROM pg_type AS t WHERE t.typnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'function', p.proname FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace
"""


def objects_in(url: str) -> set[tuple[str, str]]:
    """Every table, index, sequence, view, type and function of the schema `public`."""
    with connections.connect(url) as connection:
        return {(kind, name) for kind, name in connection.execute(LEFT_BEHIND)}


def test_what_is_migrated_is_what_is_declared(migrated_url: str) -> None:
    """Alembic finds nothing to change between the database and `tables`."""
    assert differences(migrated_url) == []


def test_up_down_and_up_again(database_url: str) -> None:
    """Each revision undoes what it did, and the second way up leads to the same schema."""
    assert migrate(database_url) == head()
    first = objects_in(database_url)

    assert migrate(database_url, "base") is None
    assert {kind for kind, name in objects_in(database_url) if "alembic" not in name} == set()

    assert migrate(database_url) == head()
    assert objects_in(database_url) == first
    assert differences(database_url) == []


def test_nothing_is_left_behind(migrated_url: str) -> None:
    """No table, index, type, function or view, with partitions and rows in use as without."""
    with connections.connect(migrated_url, autocommit=True) as connection:
        partitions.ensure_weeks(connection, [date(2027, 6, 7)])
        connection.execute("INSERT INTO positions (shard) VALUES (0)")

    migrate(migrated_url, "base")

    left = {name for _, name in objects_in(migrated_url)}
    assert {name for name in left if not name.lstrip("_").startswith("alembic_version")} == set()


def test_migrating_again_changes_nothing(migrated_url: str) -> None:
    """So that every start of a worker may do it."""
    before = objects_in(migrated_url)

    assert migrate(migrated_url) == head()
    assert objects_in(migrated_url) == before


def test_rows_survive_a_second_migration(migrated_url: str) -> None:
    """Being at head already, nothing is dropped and made again."""
    with connections.connect(migrated_url, autocommit=True) as connection:
        connection.execute("INSERT INTO positions (shard, consumed) VALUES (3, 7)")

    migrate(migrated_url)

    with connections.connect(migrated_url) as connection:
        found = connection.execute("SELECT shard, consumed FROM positions").fetchall()
    assert found == [(3, 7)]


def test_two_processes_at_once(database_url: str) -> None:
    """The second waits for the first and finds nothing to do."""
    program = "import sys; from runfold_storage.migrate import migrate; print(migrate(sys.argv[1]))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, database_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=60) for process in processes]

    assert [(answer.strip(), errors) for answer, errors in answers] == [(head(), "")] * 2
    assert differences(database_url) == []


def test_a_migration_that_dies_halfway_leaves_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each runs in a transaction: the next try starts from where the last one did."""
    with connections.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE tombstones (mine integer)")
    with pytest.raises(Exception, match="already exists"):
        migrate(database_url)
    assert current_revision(database_url) is None

    with connections.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE tombstones")
    assert migrate(database_url) == head()


def test_check_schema_says_what_to_run(database_url: str) -> None:
    """An empty database, a good one, and one from the future."""
    with pytest.raises(SchemaOutdated, match=rf"is empty, not {head()}; run: runfold migrate"):
        check_schema(database_url)

    migrate(database_url)
    check_schema(database_url)

    with connections.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaOutdated, match=r"is 9999, .* newer Runfold: upgrade this one"):
        check_schema(database_url)


def test_a_server_that_does_not_answer_is_named(tmp_path: object) -> None:
    """With its own words."""
    with pytest.raises(DatabaseUnreachable, match=r"did not answer.*No such file"):
        check_schema(f"postgresql://runfold@/runfold?host={tmp_path}")


def test_a_url_of_another_database_is_refused() -> None:
    """With what is expected."""
    with pytest.raises(BadParameter, match="expected postgresql://"):
        migrate("mysql://root@/runfold")


def test_tables_of_others_are_none_of_our_business(migrated_url: str) -> None:
    """Neither the comparison nor the way down looks at them."""
    with connections.connect(migrated_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE unrelated (id integer)")

    assert differences(migrated_url) == []
    migrate(migrated_url, "base")

    assert ("r", "unrelated") in objects_in(migrated_url)


def test_weeks_are_made_ahead(database: psycopg.Connection) -> None:
    """After a migration there is room for now, the next weeks, and the callers' own ids."""
    wanted = {partitions.partition_name(week) for week in partitions.weeks_ahead(TODAY)}

    assert wanted | {"events_own_ids"} == partitions.existing_partitions(database)


def test_weeks_that_exist_are_left_alone(database: psycopg.Connection) -> None:
    """Asking twice makes nothing; asking for more makes what is missing."""
    week = partitions.weeks_ahead(TODAY)[-1]
    next_week = week + timedelta(days=7)

    assert partitions.ensure_weeks(database, [week, next_week]) == [
        partitions.partition_name(next_week)
    ]
    assert partitions.ensure_weeks(database, [week, next_week]) == []


def test_many_make_the_same_weeks_at_once(database: psycopg.Connection, migrated_url: str) -> None:
    """Each is created once, in any order of arrival."""
    monday = date(2029, 1, 1)
    weeks = [monday + timedelta(days=7 * n) for n in range(6)]
    made: list[str] = []
    errors: list[BaseException] = []
    together = threading.Barrier(4)

    def make() -> None:
        try:
            with connections.connect(migrated_url, autocommit=True) as connection:
                together.wait(30)
                made.extend(partitions.ensure_weeks(connection, weeks))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert sorted(made) == sorted(map(partitions.partition_name, weeks))


def test_every_declared_table_has_a_primary_key() -> None:
    """Replication and upserts need one."""
    assert [table.name for table in metadata.sorted_tables if not table.primary_key] == []


@pytest.mark.parametrize(
    ("week", "name"),
    [
        (date(2026, 12, 28), "events_2026w53"),
        (date(2025, 12, 29), "events_2026w01"),
        (None, "events_own_ids"),
    ],
)
def test_a_partition_is_named_for_its_iso_week(week: date | None, name: str) -> None:
    """Which may belong to another year than its Monday."""
    assert partitions.partition_name(week) == name


def test_a_partition_covers_its_week_to_the_millisecond(database: psycopg.Connection) -> None:
    """A run that was named on Sunday's last millisecond is not put into the next week."""
    monday = date(2027, 3, 1)
    partitions.ensure_weeks(database, [monday - timedelta(days=7), monday])
    start_ms = int(datetime(2027, 3, 1, tzinfo=UTC).timestamp() * 1000)

    for at_ms, week in ((start_ms - 1, "events_2027w08"), (start_ms, "events_2027w09")):
        run = f"{at_ms:012x}"[:8] + "-" + f"{at_ms:012x}"[8:] + "-7fff-bfff-ffffffffffff"
        found = database.execute(
            """
            INSERT INTO events (run, id, at, type, shard, body)
            VALUES (%s, 0, now(), 'started', 0, '{}') RETURNING tableoid::regclass::text
            """,
            [run],
        ).fetchone()
        assert found == (week,)
