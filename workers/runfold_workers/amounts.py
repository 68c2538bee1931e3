"""Usage and durations in whole numbers, so that sums are exact."""

from typing import Final

from runfold.events import Usage

Amounts = tuple[int, int, int]
"""Input tokens, output tokens, and money in nano-dollars, whole so that sums are exact."""

NO_AMOUNTS: Final = (0, 0, 0)


def amounts_of(usage: Usage | None) -> Amounts:
    """Usage in whole numbers."""
    if usage is None:
        return NO_AMOUNTS
    cost = to_nano_usd(usage.cost_usd or 0)
    return (usage.input_tokens or 0, usage.output_tokens or 0, cost)


def to_nano_usd(cost_usd: float) -> int:
    """Whole nano-dollars."""
    return round(cost_usd * 1e9)


def to_us(milliseconds: float) -> int:
    """Whole microseconds."""
    return round(milliseconds * 1000)
