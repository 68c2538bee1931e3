"""A client of server-sent events: as a browser does, it remembers ids and comes back with them."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import httpx

from conditions import wait_until


class SseEvent(NamedTuple):
    """One event."""

    event: str
    data: Any
    id: str | None


class SseClient:
    """Reads a stream in a thread until it ends or `cut` is called."""

    def __init__(self, url: str, last_id: str | None = None) -> None:
        self.events: list[SseEvent] = []
        self.signs_of_life = 0
        self.last_id = last_id
        self.status: int | None = None
        self.ended = threading.Event()
        self.error: Exception | None = None
        self._url = url
        self._client = httpx.Client(timeout=httpx.Timeout(60))
        self._response: httpx.Response | None = None
        self._is_cut = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def named(self, event: str) -> list[Any]:
        """The data of all events of this name."""
        return [each.data for each in list(self.events) if each.event == event]

    def wait(self, condition: Callable[[list[SseEvent]], object], *, what: str) -> None:
        """Until what was received is so."""
        wait_until(lambda: condition(list(self.events)), what=what)

    def cut(self) -> None:
        """Close the connection, as a client that goes away does."""
        self._is_cut = True
        wait_until(lambda: self._response is not None or self.ended.is_set(), what="an answer")
        if self._response is not None and not self.ended.is_set():
            network = self._response.extensions["network_stream"]
            with suppress(OSError):  # it has just ended by itself
                network.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _read(self) -> None:
        headers = {} if self.last_id is None else {"last-event-id": self.last_id}
        try:
            with self._client.stream("GET", self._url, headers=headers) as response:
                self._response = response
                self.status = response.status_code
                self._parse(response.iter_lines())
        except Exception as error:
            if not self._is_cut:
                self.error = error
        finally:
            self._client.close()
            self.ended.set()

    def _parse(self, lines: Iterator[str]) -> None:
        """https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream"""
        name, data, event_id = "message", "", None
        for line in lines:
            if not line:
                if event_id is not None:
                    self.last_id = event_id
                if data:
                    self.events.append(SseEvent(name, json.loads(data), event_id))
                name, data, event_id = "message", "", None
            elif line.startswith(":"):
                self.signs_of_life += 1
            else:
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data += value
                elif field == "id":
                    event_id = value


@contextmanager
def open_event_stream(
    client: httpx.Client, path: str, last_id: str | None = None
) -> Iterator[SseClient]:
    """A listener to a path of the server that this client talks to."""
    listener = SseClient(str(client.base_url.join(path)), last_id)
    try:
        yield listener
    finally:
        listener.cut()
