"""REST over the history of runs: `create_app` for any ASGI server, `serve` for ours."""

from .app import create_app
from .server import serve
from .settings import Settings

__all__ = ["Settings", "create_app", "serve"]
