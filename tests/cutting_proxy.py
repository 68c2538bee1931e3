"""A proxy before PostgreSQL that cuts the connection at the worst moment: around a COMMIT."""

import socket
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from psycopg.conninfo import conninfo_to_dict

_LAST_WORDS = (b"COMMIT\0", b"runfold_batch\0")
"""The end of a transaction, and a small batch, which is one by itself (`at_once`)."""
_READY = b"Z\0\0\0\x05"


class CuttingProxy:
    """Passes bytes on, on a Unix socket of its own, until it is told to cut."""

    def __init__(self, url: str) -> None:
        parts = conninfo_to_dict(url)
        name = f".s.PGSQL.{parts['port']}"
        self._folder = tempfile.TemporaryDirectory(prefix="rf")
        self._target = str(Path(str(parts["host"])) / name)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(Path(self._folder.name) / name))
        self._cut: bool | None = None
        self._threads: list[threading.Thread] = []
        self.url = (
            f"postgresql://{parts['user']}@/{parts['dbname']}"
            f"?host={self._folder.name}&port={parts['port']}"
        )

    def cut_at_commit(self, *, after: bool) -> None:
        """Let the next COMMIT arrive but not its reply, or (`after=False`) not even itself."""
        self._cut = after

    def __enter__(self) -> Self:
        self._listener.listen()
        self._run(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        self._folder.cleanup()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._target)
        answers = threading.Thread(target=_pass_on, args=[server, client], daemon=True)
        answers.start()
        with client, server:
            while data := _receive(client):
                if self._cut is not None and any(words in data for words in _LAST_WORDS):
                    if self._cut:
                        # The answers stop here, so that this thread alone sees the last one.
                        client.shutdown(socket.SHUT_RDWR)
                        server.sendall(data)
                        answers.join(10)
                    break
                server.sendall(data)
            _end(server)
            _end(client)
            answers.join(10)

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Until the source ends, or the target is gone and the source has answered once more."""
    while data := _receive(source):
        try:
            target.sendall(data)
        except OSError:
            if _READY in data:
                return


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
