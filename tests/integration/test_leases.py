"""Leases and shares on PostgreSQL: every shard has one owner, and nobody has more than others."""

from collections.abc import Callable

import psycopg
import pytest

from runfold_storage.checkpoints.leases import LeaseState, give_up, leave, renew_leases
from runfold_storage.checkpoints.positions import ensure_shards

SHARDS = 8
TTL_S = 60.0


@pytest.fixture
def database(database: psycopg.Connection) -> psycopg.Connection:
    """With the shards of a deployment that has many."""
    ensure_shards(database, SHARDS)
    return database


Look = Callable[..., LeaseState]


@pytest.fixture
def look(database: psycopg.Connection) -> Look:
    """A worker of this name looks at the leases, and gives up what it has too much."""

    def look(owner: str, grace_s: float = 0.0) -> LeaseState:
        holding = renew_leases(database, owner, ttl_s=TTL_S, grace_s=grace_s)
        give_up(database, owner, holding.surplus)
        return holding._replace(shards=holding.shards[: holding.share])

    return look


def die(database: psycopg.Connection, owner: str, ago_s: int = 1) -> None:
    """What a worker leaves behind whose time ran out so long ago."""
    for table in ("workers", "leases"):
        database.execute(
            f"UPDATE {table} SET expires_at = now() - %s * interval '1 s' WHERE owner = %s",
            [ago_s, owner],
        )


def test_the_only_worker_has_all(look: Look) -> None:
    """And keeps it, look after look."""
    assert look("one").shards == list(range(SHARDS))
    assert look("one").shards == list(range(SHARDS))


def test_each_has_its_share(look: Look) -> None:
    """After two looks of each; the shares differ by one at most, and all shards have an owner."""
    owners = ["a", "b", "c", "d", "e"]
    for _ in range(2):
        held = {owner: look(owner).shards for owner in owners}

    assert [len(held[owner]) for owner in owners] == [2, 2, 2, 1, 1]
    assert sorted(shard for shards in held.values() for shard in shards) == list(range(SHARDS))


def test_shares_stay_where_they_are(look: Look) -> None:
    """Once all have their share, nothing moves any more."""
    owners = ["a", "b", "c"]
    for _ in range(2):
        held = [look(owner).shards for owner in owners]

    assert [look(owner).shards for owner in owners] == held


def test_more_workers_than_shards(look: Look) -> None:
    """The last ones stand by, and take over when one goes."""
    owners = [f"worker {n}" for n in range(SHARDS + 1)]
    for _ in range(2):
        held = [len(look(owner).shards) for owner in owners]
    assert held == [1] * SHARDS + [0]


def test_what_is_left_is_free_at_once(look: Look, database: psycopg.Connection) -> None:
    """Who leaves is not counted any more, and its shards need not expire."""
    for _ in range(2):
        look("one"), look("two")

    leave(database, "one")

    assert look("two").shards == list(range(SHARDS))
    assert database.execute("SELECT owner FROM workers").fetchall() == [("two",)]


def test_the_shards_of_the_dead_are_taken(look: Look, database: psycopg.Connection) -> None:
    """All of them in the first look after their leases ran out, and none before."""
    for _ in range(2):
        look("one"), look("two")
    assert len(look("two").shards) == SHARDS // 2

    die(database, "one")

    assert look("two").shards == list(range(SHARDS))
    assert database.execute("SELECT owner FROM workers").fetchall() == [("two",)]


def test_one_that_was_thought_dead_comes_back(look: Look, database: psycopg.Connection) -> None:
    """It has lost what others took, keeps what they did not, and gets a share again."""
    look("one")
    die(database, "one")
    database.execute("UPDATE leases SET expires_at = now() + interval '1 h' WHERE shard > 5")
    assert look("two").shards == list(range(6))

    back = renew_leases(database, "one", ttl_s=TTL_S)

    assert (back.shards, back.share) == ([6, 7], SHARDS // 2)
    assert len(look("two").shards) == SHARDS // 2
    assert len(look("one").shards) == SHARDS // 2


def test_who_was_late_takes_nothing_that_has_only_just_run_out(
    look: Look, database: psycopg.Connection
) -> None:
    """The others may have been held up by the same thing; what is long gone is free."""
    look("one")
    die(database, "one", ago_s=1)
    database.execute("UPDATE leases SET expires_at = now() - interval '1 h' WHERE shard = 3")

    assert look("two", grace_s=60).shards == [3]
    assert look("two").shards == list(range(SHARDS))


def test_a_look_tells_when_the_next_lease_runs_out(look: Look) -> None:
    """So that a worker can look again just then; without others there is none."""
    assert look("one").next_expiry_s is None
    expiry_s = look("two").next_expiry_s
    assert expiry_s is not None
    assert 0 < expiry_s <= TTL_S


def test_a_forgotten_worker_holds_nothing_new(look: Look, database: psycopg.Connection) -> None:
    """One that is told a share of nothing, its time being up already, takes nothing."""
    assert renew_leases(database, "one", ttl_s=-1).shards == []
