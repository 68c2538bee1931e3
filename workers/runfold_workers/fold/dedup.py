"""Which events of a run were folded: duplicates are dropped without a query."""

from msgspec import Struct


class EventIdSet(Struct, gc=False):
    """A set of event ids, small because emitters number their events without gaps.

    `expected` is the next id of the first emitter; the caller may raise it by one when that id
    comes and nothing is `beyond`. `others` has the next id of every other emitter. Ids that came
    early are held one by one in `beyond`.
    """

    expected: int = -1
    beyond: set[int] | None = None
    others: dict[int, int] | None = None

    def add(self, event_id: int) -> bool:
        """Add an id; return whether it is new."""
        emitter = event_id >> 32
        if self.expected < 0:
            self.expected = emitter << 32
        first = self.expected >> 32 == emitter
        if first:
            expected = self.expected
        else:
            if self.others is None:
                self.others = {}
            expected = self.others.get(emitter, emitter << 32)
        if event_id > expected:
            return self._hold(event_id)
        if event_id < expected:
            return False
        expected += 1
        beyond = self.beyond
        if beyond:
            while expected in beyond:
                beyond.remove(expected)
                expected += 1
            if not beyond:
                self.beyond = None
        if first:
            self.expected = expected
        elif self.others is not None:
            self.others[emitter] = expected
        return True

    def _hold(self, event_id: int) -> bool:
        if self.beyond is None:
            self.beyond = set()
        elif event_id in self.beyond:
            return False
        self.beyond.add(event_id)
        return True
