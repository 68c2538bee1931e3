"""Which shards this worker folds: its share, by leases that a thread of its own renews.

Invariant: `shards` are those that this worker held at the last renewal, without those that it has
given up or invalidated since. A worker that was paused or cut off learns at its next renewal which
shards others have taken.
"""

import logging
import threading
import time
from typing import Final, Self

from runfold.crash_points import crash_point
from runfold_storage.checkpoints.leases import LeaseState, give_up, leave, renew_leases
from runfold_storage.postgres.connections import connect

log = logging.getLogger(__name__)

TTL_S: Final = 3.0
"""How long a lease outlives a dead worker."""
RENEW_S: Final = 1.0
"""How often a worker renews its leases."""
_MIN_PAUSE_S: Final = 0.02
"""Between two renewals."""


class ShardLeases:
    """The leases of one worker; use it as a context manager, which releases them at the end.

    All methods are called by the folding thread; only renewals happen in another one.
    """

    def __init__(self, database_url: str, owner: str) -> None:
        self._url = database_url
        self._owner = owner
        self._changed = threading.Condition()
        self._renew_now = threading.Event()
        self._stopped = False
        self._holding = LeaseState([], 0, None)
        self._renewed_at: float | None = None
        self._given_up: set[int] = set()
        self._invalidated: set[int] = set()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)

    @property
    def shards(self) -> frozenset[int]:
        """Return the shards to fold. Raise the error that has ended the renewing thread."""
        with self._changed:
            if self._failure is not None:
                raise self._failure
            return frozenset(self._holding.shards) - self._given_up - self._invalidated

    @property
    def surplus(self) -> frozenset[int]:
        """Return those of `shards` that another worker waits for."""
        with self._changed:
            return frozenset(self._holding.surplus) - self._given_up - self._invalidated

    def give_up(self, shards: frozenset[int]) -> None:
        """Release these shards; none of their frames may be in flight."""
        with self._changed:
            self._given_up |= shards
        self._renew_now.set()

    def invalidate(self, shard: int) -> None:
        """Stop folding a shard that another worker has moved, until the next renewal."""
        with self._changed:
            self._invalidated.add(shard)
        self._renew_now.set()

    def wait(self, timeout_s: float) -> None:
        """Wait until there is a shard to fold, at most `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._stopped and self._failure is None:
                ours = set(self._holding.shards) - self._given_up - self._invalidated
                if ours or not self._changed.wait(max(deadline - time.monotonic(), 0)):
                    return

    def __enter__(self) -> Self:
        # Leases need not survive a crash of the server, so they need not wait for its disk.
        self._connection = connect(self._url, autocommit=True, options="-c synchronous_commit=off")
        try:
            self._renew()
        except BaseException:
            self._connection.close()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
        self._renew_now.set()
        self._thread.join()
        with self._connection:
            if not self._connection.broken:
                crash_point("before_lease_release")
                leave(self._connection, self._owner)
                crash_point("after_lease_release")

    def _keep(self) -> None:
        try:
            while not self._stopped:
                expiry_s = self._holding.next_expiry_s
                self._renew_now.wait(RENEW_S if expiry_s is None else min(RENEW_S, expiry_s))
                self._renew_now.clear()
                if not self._stopped:
                    time.sleep(_MIN_PAUSE_S)
                    self._renew()
        except Exception as error:  # of any kind: the leases are not renewed any more
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _renew(self) -> None:
        with self._changed:
            given_up, invalidated = set(self._given_up), set(self._invalidated)
        now = time.monotonic()
        # A worker that renewed late must not expire the leases of others: the server may have been
        # slow for all of them.
        was_late = self._renewed_at is not None and now - self._renewed_at > TTL_S - RENEW_S
        if given_up:
            give_up(self._connection, self._owner, given_up)
        renews = bool(self._holding.shards)
        crash_point("before_lease_renew" if renews else "before_lease_take")
        holding = renew_leases(
            self._connection, self._owner, ttl_s=TTL_S, grace_s=TTL_S if was_late else 0.0
        )
        crash_point("after_lease_renew" if renews else "after_lease_take")
        with self._changed:
            if holding.shards != self._holding.shards:
                log.info("folding shards: shards=%s share=%d", holding.shards, holding.share)
            self._renewed_at = now
            self._holding = holding
            self._given_up -= given_up
            self._invalidated -= invalidated
            self._changed.notify_all()
