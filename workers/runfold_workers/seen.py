"""Which events of a run have been seen: duplicates are known without asking the ledger."""

from typing import Final

_COUNTER: Final = 2**32 - 1


class Seen:
    """A set of event ids, small because emitters count.

    For each emitter it holds how far the ids are complete, and beyond that the single ids.
    """

    __slots__ = ("_beyond", "_complete")

    def __init__(self) -> None:
        self._complete: dict[int, int] = {}
        self._beyond: set[int] = set()

    @property
    def singles(self) -> int:
        """How many ids are held one by one, for those before them are missing."""
        return len(self._beyond)

    def add(self, event_id: int) -> bool:
        """Whether this id is new."""
        emitter, counter = event_id >> 32, event_id & _COUNTER
        complete = self._complete.get(emitter, 0)
        if counter > complete:
            if event_id in self._beyond:
                return False
            self._beyond.add(event_id)
            return True
        if counter < complete:
            return False
        complete += 1
        if self._beyond:
            following = emitter << 32 | complete
            while following in self._beyond:
                self._beyond.remove(following)
                complete += 1
                following += 1
        self._complete[emitter] = complete
        return True
