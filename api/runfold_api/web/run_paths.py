"""Run ids in paths: any text, also with slashes, dots and percent signs.

A server passes paths decoded, which makes `a%2Fb` and `a/b` equal, and routers merge double
slashes. So before routing, the id is taken from the raw path and put back as one encoded segment.
The id is everything after `/api/v1/runs/`, except a last segment `events` or `live`. An id that
ends in `/events` or `/live` has to be sent with `%2F`.
"""

from typing import Final
from urllib.parse import quote, unquote

from litestar.types import HTTPScope

RUNS: Final = "/api/v1/runs"
PARTS: Final = ("events", "live")


def decode_run(segment: str) -> str:
    return unquote(segment, errors="replace")


def split_run_path(rest: str) -> tuple[str, str | None] | None:
    """Split the encoded rest of a path after `/api/v1/runs/` into (id, part); None if empty."""
    rest = rest.removesuffix("/")
    run, slash, last = rest.rpartition("/")
    if slash and run and last in PARTS:
        return run, last
    return (rest, None) if rest else None


def encode_run(scope: HTTPScope) -> None:
    """Make the run id of a request's path one encoded segment."""
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    path = raw.partition(b"?")[0].decode("ascii", "replace")
    prefix = f"{scope.get('root_path', '')}{RUNS}/"
    if not path.startswith(prefix):
        return
    found = split_run_path(path[len(prefix) :])
    if found is not None:
        run, part = found
        encoded = quote(unquote(run, errors="replace"), safe="")
        scope["path"] = "/".join([prefix + encoded, *([part] if part else [])])
