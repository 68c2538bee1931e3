"""The HTTP server: bind a port, report the URL, serve until a signal stops it."""

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
    """Ends all streams before it waits for open requests."""

    def __init__(self, broker: Broker, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._broker = broker

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._broker.end()
        await super().shutdown(sockets)


def make_server(settings: Settings) -> uvicorn.Server:
    """Return a server; `run(sockets=[…])` starts it, `should_exit = True` stops it."""
    app = create_app(settings)
    return _Server(
        app.state.broker,
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
    """Exclude all objects that exist at the start from cyclic garbage collection.

    They live as long as the process, and a collection of all modules would pause every stream for
    a tenth of a second.
    """
    gc.collect()
    gc.freeze()
