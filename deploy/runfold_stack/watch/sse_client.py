"""A client of the API's server-sent events that goes on where it was, for as long as it takes.

https://html.spec.whatwg.org/multipage/server-sent-events.html. The last id that was received is
sent when connecting again, so nothing is missed and nothing comes twice. What the API refuses for
good ends it with a message.
"""

import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from runfold_stack.exit_codes import FAILED, USAGE, CommandFailed

SILENT_S: Final = 45.0
"""Three times as long as the API is ever silent: then the connection is gone."""
CONNECT_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.5
_MOST_PAUSE_S: Final = 5.0
_NOT_THERE_YET_S: Final = 0.2


class Connected(NamedTuple):
    """From now on what happens is told."""


class Received(NamedTuple):
    """One event; `data` is JSON."""

    event: str
    data: bytes
    id: str | None


class Disconnected(NamedTuple):
    """The connection is not there, and tried again."""

    reason: str


StreamSignal = Connected | Received | Disconnected


def follow(
    url: str, *, waits: bool = False, sleep: Callable[[float], None] = time.sleep
) -> Iterator[StreamSignal]:
    """Everything that a stream tells, without end; raises `CommandFailed` if the API refuses.

    `waits`: what is not there (404) may come yet.
    """
    last_id: str | None = None
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            for happening in _connect(url, last_id):
                if isinstance(happening, Received) and happening.id is not None:
                    last_id = happening.id
                if not (isinstance(happening, Received) and not happening.event):
                    yield happening
                pause_s = _FIRST_PAUSE_S
            yield Disconnected("the API has ended the connection")
        except _NotThere:
            if not waits:
                raise
            sleep(_NOT_THERE_YET_S)
            continue
        except (OSError, HTTPException, _Unavailable) as error:
            yield Disconnected(str(error) or type(error).__name__)
        sleep(pause_s)
        pause_s = min(pause_s * 2, _MOST_PAUSE_S)


class _Unavailable(Exception):
    """It passes."""


class _NotThere(CommandFailed):
    """404."""


def _connect(url: str, last_id: str | None) -> Iterator[StreamSignal]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=CONNECT_S)
    headers = {"accept": "text/event-stream"} | (
        {} if last_id is None else {"last-event-id": last_id}
    )
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
    """The events of a stream; one without a name only moves the id on."""
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
        return _NotThere(detail, FAILED)
    if response.status in (408, 429) or response.status >= 500:
        return _Unavailable(detail)
    return CommandFailed(detail, USAGE if response.status == 400 else FAILED)
