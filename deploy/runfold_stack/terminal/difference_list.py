"""The output of `verify` and `repair`: differences between tables and ledger."""

from typing import Any, Final

from runfold_workers.integrity.diff import Mismatch
from runfold_workers.integrity.repair import Findings

from .output import Output, plain

MAX_LISTED: Final = 1000
"""Further differences are only counted."""


class Listing:
    """Prints each difference as it is found, or collects them for the JSON document."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.listed: list[Mismatch] = []
        self.left_out = 0

    def add(self, difference: Mismatch) -> None:
        """Print or collect one difference."""
        if len(self.listed) == MAX_LISTED:
            self.left_out += 1
            return
        self.listed.append(difference)
        if not self._output.is_json:
            self._output.line(describe(difference))


def print_findings(
    output: Output, findings: Findings, listing: Listing, *, repaired: int | None = None
) -> None:
    """Print the summary, or the JSON document."""
    if output.is_json:
        corrected = {} if repaired is None else {"repaired": repaired}
        output.json(
            {
                "looked_at": findings.looked_at,
                "differences": findings.differences,
                **corrected,
                "listed": listing.listed,
            }
        )
        return
    if listing.left_out:
        output.line(f"… and {listing.left_out:,} more")
    corrected_text = "" if repaired is None else f", {repaired:,} corrected"
    found = f"{findings.differences:,} differences" if findings.differences else "no differences"
    output.line(
        f"compared {findings.looked_at:,} runs and their statistics: {found}{corrected_text}"
    )


def describe(difference: Mismatch) -> str:
    """Return a difference as one line."""
    of = " ".join(f"{key}={_shown(value)}" for key, value in difference.of.items() if value)
    fields = ", ".join(
        f"{field.name}: {_shown(field.found)} instead of {_shown(field.expected)}"
        for field in difference.fields
    )
    rest = fields or difference.reason or ""
    head = f"{difference.table} {difference.what}: {of} shard={difference.shard}"
    return plain(f"{head}: {rest}" if rest else head)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 200 else text[:200] + "…"
