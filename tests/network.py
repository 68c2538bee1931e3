"""A network that fails on demand: TCP connections to a server that are slowed, stopped and cut."""

import socket
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing drops what is on its way, and the other side sees a reset."""


class Link:
    """Listens on a free port of 127.0.0.1 and passes on to a server's Unix socket and back."""

    def __init__(self, socket_path: str) -> None:
        self._target = socket_path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: Final[int] = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._delay_s = 0.0
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def slow(self, delay_s: float) -> None:
        """Hold every piece back for so long."""
        self._delay_s = delay_s

    def stop(self) -> None:
        """Swallow everything, connected or not, without a word to either side."""
        self._flows.clear()

    def resume(self) -> None:
        """As fast as it goes; what was swallowed arrives late."""
        self._delay_s = 0.0
        self._flows.set()

    def cut(self) -> None:
        """Reset all connections; new ones are welcome."""
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            _shut_down(end)
            end.close()

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(10)
        self.resume()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._target)
            except OSError:  # the server is away
                client.close()
                continue
            with self._lock:
                self._ends |= {client, server}
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                time.sleep(self._delay_s)
                self._flows.wait()
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            _shut_down(end)


def _shut_down(end: socket.socket) -> None:
    with suppress(OSError):  # the other side was faster
        end.shutdown(socket.SHUT_RDWR)
