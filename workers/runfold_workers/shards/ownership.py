"""Which shards this worker folds: its share, by leases that a thread of its own keeps.

Invariant: `shards` are those of which the last look at the leases said that they are ours, without
those that we have given up since or have reason to doubt. A fold or a commit that takes long does
not lose a lease, for the thread that renews does nothing else. A worker that was paused or cut off
finds at its next look what others have taken; whatever it wrote in between, the compare-and-set of
the positions refused. Dying leaves leases that run out.
"""

import logging
import threading
import time
from types import TracebackType
from typing import Final, Self

from runfold.crash_points import crash_point
from runfold_storage.checkpoints.leases import LeaseState, give_up, leave, renew_leases
from runfold_storage.postgres.connections import connect

log = logging.getLogger(__name__)

TTL_S: Final = 3.0
"""How long a dead worker keeps its shards from others."""
RENEW_S: Final = 1.0
"""How often a worker looks at the leases."""
_LEAST_S: Final = 0.02
"""Between two looks."""


class ShardLeases:
    """The leases of one worker; use it as a context manager, which gives all up in the end.

    Everything but the looks themselves happens in the thread that folds.
    """

    def __init__(self, database_url: str, owner: str) -> None:
        self._url = database_url
        self._owner = owner
        self._changed = threading.Condition()
        self._look_now = threading.Event()
        self._stopped = False
        self._holding = LeaseState([], 0, None)
        self._looked_at: float | None = None
        self._given_up: set[int] = set()
        self._invalidated: set[int] = set()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)

    @property
    def shards(self) -> frozenset[int]:
        """What to fold. Raises what has ended the thread that renews them."""
        with self._changed:
            if self._failure is not None:
                raise self._failure
            return frozenset(self._holding.shards) - self._given_up - self._invalidated

    @property
    def surplus(self) -> frozenset[int]:
        """Those of `shards` that another worker waits for."""
        with self._changed:
            return frozenset(self._holding.surplus) - self._given_up - self._invalidated

    def give_up(self, shards: frozenset[int]) -> None:
        """Leave these to others; nothing of them may be on its way to the database."""
        with self._changed:
            self._given_up |= shards
        self._look_now.set()

    def invalidate(self, shard: int) -> None:
        """Somebody else has moved this shard: it is not ours until another look says so."""
        with self._changed:
            self._invalidated.add(shard)
        self._look_now.set()

    def wait(self, timeout_s: float) -> None:
        """Until there is something to fold, or the time is over."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._stopped and self._failure is None:
                ours = set(self._holding.shards) - self._given_up - self._invalidated
                if ours or not self._changed.wait(max(deadline - time.monotonic(), 0)):
                    return

    def __enter__(self) -> Self:
        # Leases need not survive a crash of the server, so that its disk cannot hold them up.
        self._connection = connect(self._url, autocommit=True, options="-c synchronous_commit=off")
        try:
            self._look()
        except BaseException:
            self._connection.close()
            raise
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._stopped = True
        self._look_now.set()
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
                self._look_now.wait(RENEW_S if expiry_s is None else min(RENEW_S, expiry_s))
                self._look_now.clear()
                if not self._stopped:
                    time.sleep(_LEAST_S)
                    self._look()
        except Exception as error:  # of whatever kind: nobody renews the leases any more
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _look(self) -> None:
        with self._changed:
            given_up, invalidated = set(self._given_up), set(self._invalidated)
        now = time.monotonic()
        # Whoever could not renew in time himself judges nobody: the server may have been slow
        # for all, and then all leases have run out.
        was_late = self._looked_at is not None and now - self._looked_at > TTL_S - RENEW_S
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
            self._looked_at = now
            self._holding = holding
            self._given_up -= given_up
            self._invalidated -= invalidated
            self._changed.notify_all()
