"""A child that is many clients of the API's streams, and notes when each run's end comes to each.

A client does as little as it can: it looks for the end of a run in the lines of its stream, and
parses no JSON. All of them are in one thread, so what they take counts in what is measured.
"""

import asyncio
import sys
import time
from collections import Counter
from typing import Final
from urllib.parse import urlsplit

from benchmarks.children import arguments, await_go, say

_MOST_LINE_BYTES: Final = 1 << 22
_RUN: Final = b'data: {"id":"'
_ENDED: Final = b'"status":"completed"'
_AT_A_TIME: Final = 50
_QUIET_NS: Final = 3_000_000_000
"""When nothing has come for so long, everything has."""


class _Ends:
    """When the first and the last client were told of each run's end, and how many were."""

    def __init__(self) -> None:
        self.first_ns: dict[str, int] = {}
        self.last_ns: dict[str, int] = {}
        self.told: Counter[str] = Counter()

    def note(self, run: str) -> None:
        """One more client knows it."""
        now_ns = time.monotonic_ns()
        self.first_ns.setdefault(run, now_ns)
        self.last_ns[run] = now_ns
        self.told[run] += 1


def main() -> None:
    """In the child: says how many are connected, and at the end of its input what they saw."""
    given = arguments()
    await_go()
    asyncio.run(_watch(given["url"], given["queries"]))


async def _watch(url: str, queries: list[str]) -> None:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    ends = _Ends()
    room = asyncio.Semaphore(_AT_A_TIME)
    ready: list[asyncio.Event] = []
    tasks = []
    for query in queries:
        ready.append(asyncio.Event())
        client = _client(parts.hostname, parts.port, query, ends, ready[-1], room)
        tasks.append(asyncio.create_task(client))
    await asyncio.gather(*(event.wait() for event in ready))
    say({"connected": len(tasks)})
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    # There is no event for that nothing comes any more.
    while time.monotonic_ns() - max(ends.last_ns.values(), default=0) < _QUIET_NS:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    failed = [str(task.exception()) for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    say(
        {
            "first_ns": ends.first_ns,
            "last_ns": ends.last_ns,
            "told": ends.told,
            "failed": failed[:5],
        }
    )


async def _client(
    host: str,
    port: int,
    query: str,
    ends: _Ends,
    is_ready: asyncio.Event,
    room: asyncio.Semaphore,
) -> None:
    async with room:
        reader, writer = await asyncio.open_connection(host, port, limit=_MOST_LINE_BYTES)
        request = f"GET /api/v1/live?{query} HTTP/1.1\r\nhost: {host}\r\n\r\n"
        writer.write(request.encode())
        while not (await _line(reader)).startswith(b"event: snapshot"):
            pass
        is_ready.set()
    known: set[bytes] = set()
    while True:
        line = await _line(reader)
        if line.startswith(_RUN) and _ENDED in line:
            run = line[len(_RUN) : line.index(b'"', len(_RUN))]
            if run not in known:
                known.add(run)
                ends.note(run.decode())


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line:
        raise ConnectionError("the API has ended the stream")
    return line


if __name__ == "__main__":
    main()
