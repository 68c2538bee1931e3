"""The thread that keeps a worker's leases, while the one that folds does what it does."""

import time

import psycopg
import pytest

from conditions import wait_until
from frame_delivery import SHARDS
from runfold_workers.shards.ownership import TTL_S, ShardLeases

pytestmark = pytest.mark.usefixtures("deployment")

ALL = frozenset(range(SHARDS))


def follow(ownership: ShardLeases) -> frozenset[int]:
    """What a worker without a batch on its way does."""
    surplus = ownership.surplus
    ownership.give_up(surplus)
    return ownership.shards - surplus


def test_a_worker_that_is_busy_keeps_its_leases(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """The thread that folds does nothing for longer than a lease runs; nobody can take over."""
    with ShardLeases(migrated_url, "busy") as busy:
        time.sleep(TTL_S + 1)
        with ShardLeases(migrated_url, "other") as other:
            assert other.shards == frozenset()
            assert busy.shards == ALL
            lived = "SELECT bool_and(owner = 'busy' AND expires_at > now()) FROM leases"
            assert database.execute(lived).fetchone() == (True,)


def test_two_come_to_share(database: psycopg.Connection, migrated_url: str) -> None:
    """Each ends with half; the first has all again when the second leaves."""
    with ShardLeases(migrated_url, "one") as one:
        with ShardLeases(migrated_url, "two") as two:
            wait_until(lambda: len(follow(one)) == len(follow(two)) == SHARDS // 2)
            assert one.shards | two.shards == ALL
        wait_until(lambda: follow(one) == ALL, what="the first to have all again")


def test_an_invalidated_shard_is_looked_up_again(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """Somebody moved a shard: it comes back if the lease is ours, and does not if it is not."""
    with ShardLeases(migrated_url, "one") as one:
        one.invalidate(1)
        assert 1 not in one.shards
        wait_until(lambda: one.shards == ALL, what="the shard to come back")

        database.execute("UPDATE leases SET owner = 'thief', expires_at = now() + interval '1 h'")
        for shard in ALL:
            one.invalidate(shard)
        time.sleep(0.5)
        assert one.shards == frozenset()


def test_the_end_of_the_connection_is_raised(
    database: psycopg.Connection, migrated_url: str
) -> None:
    """Whoever asks for the shards learns that nobody renews the leases any more."""
    with ShardLeases(migrated_url, "one") as one:
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

        def is_told() -> bool:
            try:
                one.shards  # noqa: B018
            except psycopg.OperationalError:
                return True
            return False

        wait_until(is_told, what="the failure")


def test_leaving_leaves_nothing(database: psycopg.Connection, migrated_url: str) -> None:
    """No lease and no worker."""
    with ShardLeases(migrated_url, "one"):
        assert database.execute("SELECT count(*) FROM leases").fetchone() == (SHARDS,)
    for table in ("leases", "workers"):
        assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
