"""The HTTP server: bind, announce, serve until told to stop."""

import gc
import socket
from collections.abc import Callable
from typing import Final

import uvicorn

from runfold_api.live.broker import Broker

from .app import create_app
from .settings import Settings

HOST: Final = "127.0.0.1"
PORT: Final = 8420


def bind(host: str = HOST, port: int = PORT) -> socket.socket:
    """A listening address; port 0 takes a free one. Raises `OSError` when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's delay off only where the protocol is named: 40 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a listener is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Ends the streams of those who watch before it waits for open requests."""

    def __init__(self, feed: Broker, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._feed = feed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._feed.end()
        await super().shutdown(sockets)


def make_server(settings: Settings) -> uvicorn.Server:
    """A server that `run(sockets=[…])` starts and `should_exit = True` stops."""
    app = create_app(settings)
    return _Server(
        app.state.feed,
        uvicorn.Config(
            app,
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=round(settings.shutdown_s),
        ),
    )


def serve(
    settings: Settings,
    host: str = HOST,
    port: int = PORT,
    *,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; `announce` is told the URL once requests can come in."""
    with bind(host, port) as listener:
        listener.listen()
        if announce is not None:
            announce(url_of(listener))
        server = make_server(settings)
        freeze_gc()
        server.run(sockets=[listener])


def freeze_gc() -> None:
    """Everything that is there when a process begins to serve stays until it ends.

    The cyclic collector need not walk it again and again: all modules take it a tenth of a second,
    in which no watcher is told anything.
    """
    gc.collect()
    gc.freeze()
