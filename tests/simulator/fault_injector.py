"""Random decisions from a seed: how likely each fault is in a history, and when it occurs."""

import random
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class FaultRates:
    """The probability of each fault, at each moment at which it can occur.

    A history has many faults of some kinds and none of others, so that all combinations are met.
    """

    crash: float
    """A process dies."""
    redis_fails: float
    """A command does not reach Redis, or its answer does not come back."""
    redis_refuses: float
    """Redis is full and takes nothing in."""
    outage: float
    """Redis is away, or full, for seconds."""
    disk_fails: float
    """The disk of a producer is full, or fails."""
    power_fails: float
    """A producer's machine dies, and with it what its disk had not been told to keep."""
    exit: float
    """A producer's process ends in good order."""
    database_fails: float
    """A statement fails and the connection with it, or just its transaction."""
    commit_fails: float
    """COMMIT does not arrive, or its answer does not."""
    overtaking: float
    """Another process acts while this one waits."""
    redelivery: float
    """A frame comes again, in whole or in other pieces."""
    clock_jump: float
    """A clock jumps."""
    poison: float
    """An event that the database refuses."""
    unreadable_frame: float
    """A frame that cannot be decoded."""
    deletion: float
    """A run is deleted."""
    feed_loss: float
    """A generation rises without an entry in the change feed, or the feed loses its entries."""
    stop: float
    """A worker is asked to stop."""


_RATES = {
    "crash": (0, 0, 0.005, 0.03),
    "redis_fails": (0, 0, 0.02, 0.15),
    "redis_refuses": (0, 0, 0, 0.1),
    "outage": (0, 0, 0.01, 0.05),
    "disk_fails": (0, 0, 0, 0.05),
    "power_fails": (0, 0, 0.3),
    "exit": (0, 0, 0.05),
    "database_fails": (0, 0, 0.02, 0.1),
    "commit_fails": (0, 0, 0.05, 0.3),
    "overtaking": (0, 0.1, 0.3, 0.5),
    "redelivery": (0, 0.05, 0.2),
    "clock_jump": (0, 0, 0.1),
    "poison": (0, 0, 0, 0.03),
    "unreadable_frame": (0, 0, 0, 0.05),
    "deletion": (0, 0, 0.02, 0.1),
    "feed_loss": (0, 0, 0, 0.02),
    "stop": (0, 0, 0.02),
}


class FaultInjector:
    """All random decisions of one history. `calm`: no fault occurs any more."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.calm = False
        self.occurred: set[str] = set()
        self.rates = FaultRates(
            **{each.name: self.rng.choice(_RATES[each.name]) for each in fields(FaultRates)}
        )
        self._rates: dict[str, float] = vars(self.rates)

    def occurs(self, fault: str) -> bool:
        """Return whether this fault occurs now."""
        probability = self._rates[fault]
        if not probability or self.calm or self.rng.random() >= probability:
            return False
        self.occurred.add(fault)
        return True

    def occurs_with(self, probability: float) -> bool:
        """Return whether a fault of this probability occurs now; never when `calm`."""
        return not self.calm and probability > 0 and self.rng.random() < probability
