"""Ids of runs and events.

The SDK makes run ids as UUIDv7 (RFC 9562 §5.7), ordered by time, so that the runs of a week share a
ledger partition. Any other id is the caller's own and is stored as given; its *run key*, the UUID
by which tables are keyed, is a hash in a range that no date reaches.
"""

import os
import re
import time
from datetime import UTC, datetime
from hashlib import blake2b
from random import Random
from typing import Final
from uuid import UUID

_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

FIRST_DAY: Final = datetime(2025, 1, 1, tzinfo=UTC)
LAST_DAY: Final = datetime(2050, 1, 1, tzinfo=UTC)
"""UUIDv7s from outside of these days come from a wrong clock or do not hold a time; they are
treated as the caller's own ids. Constants, as a run's key must not depend on the current date."""

_FIRST_MS: Final = int(FIRST_DAY.timestamp() * 1000)
_LAST_MS: Final = int(LAST_DAY.timestamp() * 1000)
_FIRST: Final = _FIRST_MS.to_bytes(6, "big")
_LAST: Final = _LAST_MS.to_bytes(6, "big")
_OWN: Final = b"\xff\xff"


def make_run_id(at_us: int | None = None) -> str:
    """Return a new UUIDv7; `at_us` in microseconds since the epoch, by default now."""
    now_us = time.time_ns() // 1000 if at_us is None else at_us
    now_us = min(max(now_us, _FIRST_MS * 1000), _LAST_MS * 1000 - 1)
    milliseconds, microseconds = divmod(now_us, 1000)
    # RFC 9562 §6.2, method 3: rand_a holds the fraction of the millisecond.
    fraction = (microseconds << 12) // 1000
    random = int.from_bytes(os.urandom(8), "big") & (2**62 - 1)
    return str(UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random))


def run_key(run_id: str) -> UUID:
    """Return the UUID of a run in all tables: a pure function of its id."""
    return UUID(bytes=run_key_bytes(run_id))


def run_key_bytes(run_id: str) -> bytes:
    """Return the 16 bytes of a run's key; their order is the order in time."""
    if _UUID7.fullmatch(run_id):
        key = bytes.fromhex(run_id.replace("-", ""))
        if _FIRST <= key < _LAST:
            return key
    digest = blake2b(run_id.encode(), digest_size=16, person=b"runfold.run").digest()
    return _OWN + digest[2:]


def is_own_id(key: UUID | bytes) -> bool:
    """Return whether a key is the hash of a caller's own id, which must then be stored, too."""
    return (key if isinstance(key, bytes) else key.bytes).startswith(_OWN)


def make_emitter() -> int:
    """Return 31 random bits, for a process that writes to a run of another process."""
    return _random.getrandbits(31) or 1


_random: Final = Random()  # noqa: S311, not secret; own, so that no other code seeds it
os.register_at_fork(after_in_child=_random.seed)  # else both processes draw the same numbers


def make_event_id(emitter: int, counter: int) -> int:
    """Return an id: the upper half is the emitter (0: the run's own), the lower half a counter."""
    return emitter << 32 | counter


def derive_event_id(content: bytes) -> int:
    """Return the id of an event that has none: the same content gives the same id."""
    digest = blake2b(content, digest_size=8, person=b"runfold.event").digest()
    return int.from_bytes(digest, "big") >> 1
