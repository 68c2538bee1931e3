"""The checks of `runfold doctor`.

A check returns findings with a level (`ok`, `warn`, `fail`) and, unless it is `ok`, a remedy.
`warn`: the part works, but maybe not for long or not as expected. Checks change nothing. A check
whose server is unavailable is skipped, so that the others still run.
"""

from functools import partial
from typing import Literal

from msgspec import Struct


class Finding(Struct, frozen=True, omit_defaults=True):
    """One line of the report; `remedy` is empty only for the level `ok`."""

    level: Literal["ok", "warn", "fail"]
    check: str
    found: str
    remedy: str = ""


ok = partial(Finding, "ok")
warn = partial(Finding, "warn")
fail = partial(Finding, "fail")
