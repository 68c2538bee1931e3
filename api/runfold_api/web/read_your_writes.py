"""Read-your-writes: a read waits until the fold has reached the position of a write.

A waiting request holds neither a thread nor a connection between two checks.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from runfold_storage.errors import FoldBehind
from runfold_storage.history import MAX_WAIT_S, POLL_S, History
from runfold_storage.read_models.watermarks import fold_behind, missing_shards, parse_positions

from .query_params import WaitFor


def provide_history(history: History) -> Callable[..., Awaitable[History]]:
    """Return a dependency that provides `history`, after the request's `wait_for` is folded."""

    async def once_folded(wait_for: WaitFor = None) -> History:
        if wait_for is None:
            return history
        wanted = parse_positions("wait_for", wait_for)
        until = time.monotonic() + MAX_WAIT_S
        loop = asyncio.get_running_loop()
        while missing := missing_shards(
            wanted, await loop.run_in_executor(None, history.positions)
        ):
            if time.monotonic() >= until:
                raise FoldBehind(fold_behind(missing, MAX_WAIT_S))
            await asyncio.sleep(POLL_S)
        return history

    return once_folded
