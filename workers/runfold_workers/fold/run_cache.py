"""The states of recent runs, cached so that a steady batch reads nothing from the ledger.

Invariant: a cached state is the fold of all events of its run up to the last folded batch, together
with the rows that the tables have after that batch. It may be dropped at any time, and must be
dropped when a batch was not committed. What is not committed is never evicted.

A run that is not cached is usually known to be new without a query: UUIDv7 keys are ordered by
time, so a key that is later than every key of the tables when the shard was taken, and than every
key evicted since, has not been folded before.

Runs are ordered by the last batch that touched them: those of uncommitted batches are at the end.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from typing import Final, NamedTuple
from uuid import UUID

from runfold.protocol.codec import TYPE_NUMBERS
from runfold.protocol.ids import is_own_id, run_key_bytes
from runfold_storage.ledger.events import StoredEvent

from .event_facts import NoFacts, read_fact
from .projection import node_row, run_row
from .reducers import apply
from .run_state import RunState, state_bytes

RunRef = tuple[int, bytes]
"""(shard, run key)."""

_LOGGED: Final = TYPE_NUMBERS["logged"]
_NO_FACTS: Final = NoFacts()
_LAST_KEY: Final = b"\xff" * 16


class Loaded(NamedTuple):
    """What storage has of runs that are not cached; `deleted` and `expired` take no more events."""

    events: Iterable[StoredEvent]
    deleted: Set[RunRef]
    expired: Set[RunRef] = frozenset()


Load = Callable[[Sequence[RunRef]], Loaded]


class RunCache:
    """Runs of at most `max_bytes`, as `state_bytes` estimates them, and uncommitted ones."""

    def __init__(self, load: Load, max_bytes: int) -> None:
        self._load = load
        self._max_bytes = max_bytes
        self._bytes = 0
        self._runs: OrderedDict[tuple[int, str], RunState] = OrderedDict()
        self._known_up_to: dict[int, bytes] = {}
        self._unknown: dict[RunRef, RunState] = {}
        self._asked = self._missing = self._loaded = 0
        self.expired: set[tuple[int, str]] = set()
        """Runs of the last batch whose payloads have expired."""

    def know(self, shard: int, newest: bytes) -> None:
        """Take runs with keys later than `newest` as new; only this cache folds the shard."""
        self._known_up_to[shard] = newest

    def admit(self, shard: int, runs: Sequence[str]) -> None:
        """Add these runs to the cache; those that the ledger may have need `look_up`."""
        cached = self._runs
        missing = [run for run in runs if (shard, run) not in cached]
        self._asked += len(runs)
        if not missing:
            return
        self._missing += len(missing)
        known_up_to = self._known_up_to.get(shard, _LAST_KEY)
        for run_id in missing:
            key = run_key_bytes(run_id)
            own = is_own_id(key)
            state = cached[shard, run_id] = RunState(shard, key, run_id, run_id if own else None)
            if own or key <= known_up_to:
                self._unknown[shard, key] = state

    def look_up(self) -> None:
        """Fold the ledger's events of the admitted runs; drop those deleted or `expired`."""
        unknown, self._unknown = self._unknown, {}
        self.expired.clear()
        if not unknown:
            return
        self._loaded += len(unknown)
        try:
            events, deleted, expired = self._load(list(unknown))
            for stored in events:
                state = unknown[stored.shard, stored.run]
                if state.seen.add(stored.id):
                    apply_stored(state, stored)
        except BaseException:
            for state in unknown.values():
                del self._runs[state.shard, state.id]
            raise
        for ref, state in unknown.items():
            if ref in expired:
                self.expired.add((state.shard, state.id))
            if ref in expired or ref in deleted:
                del self._runs[state.shard, state.id]
            else:
                settle(state)

    def recall(self, shard: int, runs: Sequence[str]) -> list[RunState | None]:
        """Return these admitted runs; None for those that are deleted or `expired`."""
        cached = self._runs
        recalled: list[RunState | None] = []
        for run in runs:
            state = cached.get((shard, run))
            if state is not None:
                cached.move_to_end((shard, run))
            recalled.append(state)
        return recalled

    def take_recalls(self) -> tuple[int, int, int]:
        """Return how many runs were cached, new, or read from the ledger since the last call."""
        asked, missing, loaded = self._asked, self._missing, self._loaded
        self._asked = self._missing = self._loaded = 0
        return asked - missing, missing - loaded, loaded

    def uncached_runs(self, shard: int, runs: Sequence[str]) -> Iterator[int]:
        """Return the indexes of those runs that are not cached."""
        cached = self._runs
        return (index for index, run in enumerate(runs) if (shard, run) not in cached)

    def weigh(self, grown: Iterable[RunState]) -> None:
        """Take into account that these runs may have grown."""
        for run in grown:
            size = state_bytes(run)
            self._bytes += size - run.cached_bytes
            run.cached_bytes = size

    def shrink(self, written: int) -> None:
        """Evict the least recently touched runs until the rest fits; keep uncommitted ones."""
        while self._bytes > self._max_bytes and self._runs:
            ref, run = next(iter(self._runs.items()))
            if run.batch > written:
                return
            self._drop(ref)

    def rewind(self, written: int) -> None:
        """Drop the runs that batches after this one have touched."""
        while self._runs:
            ref = next(reversed(self._runs))
            if 0 < self._runs[ref].batch <= written:  # 0: of a batch that could not be folded
                return
            self._drop(ref)

    def forget_runs(self, shard: int, keys: Collection[bytes]) -> None:
        """Drop these runs; when they come again, they are read from the ledger."""
        hashed = {key for key in keys if is_own_id(key)}
        refs = [(shard, str(UUID(bytes=key))) for key in keys if key not in hashed]
        if hashed:  # the key is a hash of the id
            refs += [ref for ref, run in self._runs.items() if run.key in hashed]
        for ref in refs:
            if ref in self._runs:
                self._drop(ref)
        for key in keys:
            self._look_up_from_now_on(shard, key)

    def forget(self, shard: int | None = None) -> None:
        """Drop all runs of a shard, or everything."""
        for ref in [ref for ref in self._runs if shard is None or ref[0] == shard]:
            self._bytes -= self._runs.pop(ref).cached_bytes
        for known in [known for known in self._known_up_to if shard is None or known == shard]:
            del self._known_up_to[known]

    def _drop(self, ref: tuple[int, str]) -> None:
        run = self._runs.pop(ref)
        self._bytes -= run.cached_bytes
        self._look_up_from_now_on(run.shard, run.key)

    def _look_up_from_now_on(self, shard: int, key: bytes) -> None:
        known = self._known_up_to.get(shard)
        if known is not None and not is_own_id(key):
            self._known_up_to[shard] = max(known, key)


def apply_stored(state: RunState, stored: StoredEvent) -> None:
    """Apply an event of the ledger."""
    kind = TYPE_NUMBERS[stored.type]
    # The text of log lines is not loaded; the fold does not need it.
    fact = _NO_FACTS if kind == _LOGGED else read_fact(kind, stored.body)
    apply(state, kind, stored.at_us, stored.id, fact)


def settle(state: RunState) -> None:
    """Derive the rows from the state."""
    for attempt in state.take_changed():
        attempt.row = node_row(state, attempt)
    state.row = run_row(state)
    state.has_output = False
