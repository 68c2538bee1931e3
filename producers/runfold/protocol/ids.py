"""Names of runs and events.

A run id made here is a UUIDv7 (RFC 9562 §5.7): time-ordered, so that runs of one week share a
ledger partition. Any other id is the caller's own and is kept as given; its *run key*, the UUID
that tables are keyed by, is a hash in a range that no date reaches.
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
"""UUIDv7s from outside these days come from a broken clock, or from a caller who makes
UUIDv7s of something else; they are treated as the caller's own ids. The bounds are constants,
because the key of a run must not depend on when it is asked for."""

_FIRST_MS: Final = int(FIRST_DAY.timestamp() * 1000)
_LAST_MS: Final = int(LAST_DAY.timestamp() * 1000)
_FIRST: Final = _FIRST_MS.to_bytes(6, "big")
_LAST: Final = _LAST_MS.to_bytes(6, "big")
_OWN: Final = b"\xff\xff"


def make_run_id(at_us: int | None = None) -> str:
    """A new UUIDv7; `at_us`: microseconds since the epoch, by default now."""
    now_us = time.time_ns() // 1000 if at_us is None else at_us
    now_us = min(max(now_us, _FIRST_MS * 1000), _LAST_MS * 1000 - 1)
    milliseconds, microseconds = divmod(now_us, 1000)
    # RFC 9562 §6.2, method 3: rand_a holds the fraction of the millisecond.
    fraction = (microseconds << 12) // 1000
    random = int.from_bytes(os.urandom(8), "big") & (2**62 - 1)
    return str(UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random))


def run_key(run_id: str) -> UUID:
    """The UUID that stands for this run in every table: a pure function of the id."""
    return UUID(bytes=run_key_bytes(run_id))


def run_key_bytes(run_id: str) -> bytes:
    """The 16 bytes of a run's key; in their order, keys are ordered by time."""
    if _UUID7.fullmatch(run_id):
        key = bytes.fromhex(run_id.replace("-", ""))
        if _FIRST <= key < _LAST:
            return key
    digest = blake2b(run_id.encode(), digest_size=16, person=b"runfold.run").digest()
    return _OWN + digest[2:]


def is_own_id(key: UUID | bytes) -> bool:
    """Whether this key is a hash, so that the caller's own id has to be stored beside it."""
    return (key if isinstance(key, bytes) else key.bytes).startswith(_OWN)


def make_emitter() -> int:
    """A number for a process that writes to a run which another one opened: 31 random bits."""
    return _random.getrandbits(31) or 1


_random: Final = Random()  # noqa: S311, no secret; a source of our own that nobody else seeds
os.register_at_fork(after_in_child=_random.seed)  # or both processes would draw the same numbers


def make_event_id(emitter: int, counter: int) -> int:
    """The upper half names the emitter (0: the one that opened the run), the lower half counts."""
    return emitter << 32 | counter


def derive_event_id(content: bytes) -> int:
    """An id for an event that came without one: the same content gives the same id."""
    digest = blake2b(content, digest_size=8, person=b"runfold.event").digest()
    return int.from_bytes(digest, "big") >> 1
