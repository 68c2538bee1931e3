"""Differences between tables and ledger, as `verify` and `repair` print them."""

from typing import Any, Final

from runfold_workers.integrity.diff import Mismatch
from runfold_workers.integrity.repair import Findings

from .output import Output, plain

MOST_LISTED: Final = 1000
"""Differences that are told one by one; the rest is counted."""


class Listing:
    """Tells each difference as it comes, or keeps it for the JSON document."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.listed: list[Mismatch] = []
        self.left_out = 0

    def add(self, difference: Mismatch) -> None:
        """One more."""
        if len(self.listed) == MOST_LISTED:
            self.left_out += 1
            return
        self.listed.append(difference)
        if not self._output.is_json:
            self._output.line(described(difference))


def print_findings(
    output: Output, findings: Findings, listing: Listing, *, repaired: int | None = None
) -> None:
    """What came of it."""
    if output.is_json:
        mended = {} if repaired is None else {"repaired": repaired}
        output.json(
            {
                "looked_at": findings.looked_at,
                "differences": findings.differences,
                **mended,
                "listed": listing.listed,
            }
        )
        return
    if listing.left_out:
        output.line(f"… and {listing.left_out:,} more")
    mended_too = "" if repaired is None else f", {repaired:,} were put right"
    found = f"{findings.differences:,} differences" if findings.differences else "no differences"
    output.line(f"compared {findings.looked_at:,} runs and their statistics: {found}{mended_too}")


def described(difference: Mismatch) -> str:
    """One difference on one line."""
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
