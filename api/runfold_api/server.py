"""The HTTP server: bind a port, report the URL, serve until a signal stops it."""

import gc
import socket
from collections.abc import Callable
from typing import Any, Final

import uvicorn

from .app import create_app
from .settings import Settings

HOST: Final = "127.0.0.1"
PORT: Final = 8420


def bind(host: str = HOST, port: int = PORT) -> socket.socket:
    """Return a bound socket; port 0 takes a free port. Raise `OSError` if the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the protocol is given; without it a response takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: Any = self.config.app
        app.state.broker.end()  # it would wait for open streams, which do not end
        await super().shutdown(sockets)


def make_server(settings: Settings) -> uvicorn.Server:
    """Return a server; `run(sockets=[…])` starts it, `should_exit = True` stops it."""
    config = uvicorn.Config(
        create_app(settings),
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.shutdown_s),
    )
    return _Server(config)


def serve(
    settings: Settings,
    host: str = HOST,
    port: int = PORT,
    *,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; call `on_listening(url)` once connections are accepted."""
    with bind(host, port) as listener:
        listener.listen()
        if on_listening is not None:
            on_listening(url_of(listener))
        server = make_server(settings)
        freeze_gc()
        server.run(sockets=[listener])


def freeze_gc() -> None:
    """Exclude the objects of the start from garbage collection, which would pause all streams."""
    gc.collect()
    gc.freeze()
