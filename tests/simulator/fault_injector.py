"""Chance, from a seed: how likely each misfortune is in this history, and when it strikes."""

import random
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class FaultRates:
    """How likely a misfortune is each time that it could strike.

    A history has some kinds in plenty and others not at all, so that each meets the others.
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
    """Somebody else acts while this one waits."""
    redelivery: float
    """A frame comes again, in whole or in other pieces."""
    clock_jump: float
    """A clock jumps."""
    poison: float
    """An event that the database refuses."""
    unreadable_frame: float
    """A frame that nobody can read."""
    deletion: float
    """A run is deleted."""
    feed_loss: float
    """A generation is raised without a word, or what was said of others is forgotten."""
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
    """All chance of one history. `calm`: nothing bad happens any more."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.calm = False
        self.occurred: set[str] = set()
        self.rates = FaultRates(
            **{each.name: self.rng.choice(_RATES[each.name]) for each in fields(FaultRates)}
        )
        self._rates: dict[str, float] = vars(self.rates)

    def occurs(self, misfortune: str) -> bool:
        """Whether it happens now."""
        probability = self._rates[misfortune]
        if not probability or self.calm or self.rng.random() >= probability:
            return False
        self.occurred.add(misfortune)
        return True

    def occurs_with(self, probability: float) -> bool:
        """Something bad, so never when all is calm."""
        return not self.calm and probability > 0 and self.rng.random() < probability
