"""Where events live in Redis."""

import fakeredis
import pytest
import redis.asyncio

from runfold import ShardsDiffer
from runfold.protocol.streams import agree_on_shards, changes_channel, connect, shard_of, stream_key


def test_keys_carry_a_hash_tag() -> None:
    """All keys of a shard live in one slot of a Redis Cluster."""
    assert stream_key(3) == "runfold:{3}:events"


@pytest.mark.parametrize(("path", "db"), [("", 0), ("/0", 0), ("/5", 5), ("?db=7", 7)])
def test_a_database_has_a_channel_of_its_own(path: str, db: int) -> None:
    """In any notation of its number, for workers and the API."""
    url = f"redis://127.0.0.1:6379{path}"
    assert changes_channel(connect(url)) == f"runfold:changes:{db}"
    assert changes_channel(redis.asyncio.Redis.from_url(url)) == f"runfold:changes:{db}"


def test_hashing_is_fixed() -> None:
    """The shard of a run never changes between versions; CRC-32's check value is CBF43926."""
    assert [shard_of(run, 8) for run in ("a", "123456789", "漢字")] == [3, 6, 7]


def test_all_shards_are_used() -> None:
    """Runs spread over every shard, and only over those there are."""
    assert {shard_of(f"run-{n}", 8) for n in range(200)} == set(range(8))


def test_the_first_to_ask_decides(fake_server: fakeredis.FakeServer) -> None:
    """A process without a setting gets the number that was agreed on."""
    client = fakeredis.FakeRedis(server=fake_server)
    assert agree_on_shards(client, 4) == 4
    assert agree_on_shards(client) == 4


def test_without_a_wish_there_is_a_default(fake_server: fakeredis.FakeServer) -> None:
    """A deployment works without any setting."""
    assert agree_on_shards(fakeredis.FakeRedis(server=fake_server)) == 8


def test_another_wish_later_is_refused(fake_server: fakeredis.FakeServer) -> None:
    """Two processes cannot hash a run to different streams; the message says what to do."""
    client = fakeredis.FakeRedis(server=fake_server)
    agree_on_shards(client, 4)
    with pytest.raises(ShardsDiffer, match="RUNFOLD_SHARDS=4"):
        agree_on_shards(client, 8)


@pytest.mark.parametrize("wanted", [0, -1, 1025])
def test_impossible_numbers_are_refused(wanted: int, fake_server: fakeredis.FakeServer) -> None:
    """A wrong setting is refused before it is written."""
    client = fakeredis.FakeRedis(server=fake_server)
    with pytest.raises(ShardsDiffer, match="choose 1 to 1024"):
        agree_on_shards(client, wanted)
    assert client.keys() == []


def test_a_client_neither_connects_early_nor_sends_twice() -> None:
    """Making a client opens no socket, and a command that failed is not repeated by it."""
    client = connect("redis://127.0.0.1:1/0")
    retry = client.get_retry()
    assert retry is not None
    assert retry.get_retries() == 0
    assert client.connection_pool.connection_kwargs["retry_on_error"] == []
