"""A client of the API's server-sent events that reconnects and resumes where it was.

Protocol: https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from runfold.delivery.stream_sender import Backoff
from runfold_stack.errors import FAILED, USAGE, CommandFailed

SILENT_S: Final = 45.0
"""Three times the API's longest silence: after that the connection counts as lost."""
CONNECT_S: Final = 10.0
_NOT_FOUND_PAUSE_S: Final = 0.2


class Connected(NamedTuple):
    """The stream is open."""


class Received(NamedTuple):
    """One event; `data` is JSON."""

    event: str
    data: bytes
    id: str | None


class Disconnected(NamedTuple):
    """The connection failed; the client tries again."""

    reason: str


StreamSignal = Connected | Received | Disconnected


def follow(
    url: str, *, waits: bool = False, sleep: Callable[[float], None] = time.sleep
) -> Iterator[StreamSignal]:
    """Yield signals without end, after a 404 if it `waits`; raise `CommandFailed` if refused."""
    last_id: str | None = None
    pause = Backoff(first_s=0.5, longest_s=5.0)
    while True:
        try:
            for signal in _connect(url, last_id):
                if isinstance(signal, Received) and signal.id is not None:
                    last_id = signal.id
                if not (isinstance(signal, Received) and not signal.event):
                    yield signal
                pause.reset()
            yield Disconnected("the API has ended the connection")
        except _NotFound:
            if not waits:
                raise
            sleep(_NOT_FOUND_PAUSE_S)
            continue
        except (OSError, HTTPException, _Unavailable) as error:
            yield Disconnected(str(error) or type(error).__name__)
        pause.record_failure()
        sleep(pause.remaining_s())


class _Unavailable(Exception):
    """The API cannot answer at the moment."""


class _NotFound(CommandFailed):
    """The API has answered 404."""


def _connect(url: str, last_id: str | None) -> Iterator[StreamSignal]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=CONNECT_S)
    headers = {"accept": "text/event-stream"}
    if last_id is not None:
        headers["last-event-id"] = last_id
    try:
        connection.request("GET", f"{parts.path}?{parts.query}".rstrip("?"), headers=headers)
        if connection.sock is not None:
            connection.sock.settimeout(SILENT_S)
        response = connection.getresponse()
        if response.status != 200:
            raise _refusal(response)
        yield Connected()
        yield from parse(iter(response.readline, b""))
    finally:
        connection.close()


def parse(lines: Iterator[bytes]) -> Iterator[Received]:
    """Yield the events of a stream; one without a name only advances the id."""
    name, data, event_id = "", b"", None
    for raw in lines:
        line = raw.rstrip(b"\r\n")
        if line:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                name = value.decode()
            elif field == b"data":
                data += (b"\n" if data else b"") + value
            elif field == b"id":
                event_id = value.decode()
            continue
        if data:
            yield Received(name or "message", data, event_id)
        elif event_id is not None:
            yield Received("", b"", event_id)
        name, data, event_id = "", b"", None


def _refusal(response: HTTPResponse) -> Exception:
    try:
        problem = msgspec.json.decode(response.read(65_536))
        detail = str(problem["detail"])
    except (msgspec.DecodeError, KeyError, TypeError):
        detail = f"the API answers {response.status} {response.reason}"
    if response.status == 404:
        return _NotFound(detail, FAILED)
    if response.status in (408, 429) or response.status >= 500:
        return _Unavailable(detail)
    return CommandFailed(detail, USAGE if response.status == 400 else FAILED)
