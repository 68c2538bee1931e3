"""Run ids in paths: any text, also with slashes, dots and percent signs.

A server passes paths decoded, which makes `a%2Fb` and `a/b` equal, and routers merge double
slashes. So before routing, the id is taken from the raw path and put back as one encoded segment.
The id is everything after `/api/v1/runs/`, except a last segment `events` or `live`. An id that
ends in `/events` or `/live` has to be sent with `%2F`.
"""

from typing import Final, cast
from urllib.parse import quote, unquote

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import HTTPScope, LifeSpanScope, Receive, Scope, Send

RUNS: Final = "/api/v1/runs"
PARTS: Final = ("events", "live")


class RunPathsApp(Litestar):
    """An application that passes run ids to its routes as one encoded segment."""

    async def __call__(self, scope: Scope | LifeSpanScope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        if scope["type"] == ScopeType.HTTP:
            _encode_run(cast("HTTPScope", scope))
        await super().__call__(scope, receive, send)


def decode_run(segment: str) -> str:
    """Return the run id of a path segment."""
    return unquote(segment, errors="replace")


def split_run_path(rest: str) -> tuple[str, str | None] | None:
    """Split the encoded rest of a path after `/api/v1/runs/` into (id, part); None if empty."""
    rest = rest.removesuffix("/")
    run, slash, last = rest.rpartition("/")
    if slash and run and last in PARTS:
        return run, last
    return (rest, None) if rest else None


def _encode_run(scope: HTTPScope) -> None:
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
