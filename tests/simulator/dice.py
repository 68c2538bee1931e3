"""Chance, from a seed: how likely each misfortune is in this history, and when it strikes."""

import random
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Odds:
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
    overtaken: float
    """Somebody else acts while this one waits."""
    echo: float
    """A frame comes again, in whole or in other pieces."""
    jump: float
    """A clock jumps."""
    poison: float
    """An event that the database refuses."""
    junk: float
    """A frame that nobody can read."""
    deletion: float
    """A run is deleted."""
    silence: float
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
    "overtaken": (0, 0.1, 0.3, 0.5),
    "echo": (0, 0.05, 0.2),
    "jump": (0, 0, 0.1),
    "poison": (0, 0, 0, 0.03),
    "junk": (0, 0, 0, 0.05),
    "deletion": (0, 0, 0.02, 0.1),
    "silence": (0, 0, 0, 0.02),
    "stop": (0, 0, 0.02),
}


class Dice:
    """All chance of one history. `calm`: nothing bad happens any more."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.calm = False
        self.struck: set[str] = set()
        self.odds = Odds(**{each.name: self.rng.choice(_RATES[each.name]) for each in fields(Odds)})
        self._rates: dict[str, float] = vars(self.odds)

    def strikes(self, misfortune: str) -> bool:
        """Whether it happens now."""
        probability = self._rates[misfortune]
        if not probability or self.calm or self.rng.random() >= probability:
            return False
        self.struck.add(misfortune)
        return True

    def happens(self, probability: float) -> bool:
        """Something bad, so never when all is calm."""
        return not self.calm and probability > 0 and self.rng.random() < probability
