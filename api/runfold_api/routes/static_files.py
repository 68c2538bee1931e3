"""Serves the web page: the files of the folder `page`, under a strict Content-Security-Policy.

The policy allows only the page's own files and no inline scripts or styles; with Trusted Types, no
content of an event can become markup.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from litestar import Request, Response, route
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from .history import METHODS

FOLDER: Final = Path(__file__).parents[1] / "page"

_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    # Cached, but revalidated each time, so that a new version is used at once.
    "cache-control": "no-cache",
}
_OF_PAGE: Final[dict[str, Any]] = {
    "http_method": METHODS,
    "include_in_schema": False,
    "sync_to_thread": False,
}


class PageFile(NamedTuple):
    content: bytes
    media_type: str
    etag: str


@cache
def page_files() -> dict[str, PageFile]:
    """Return all files of the page by their path below `/page/`."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
            name = path.relative_to(FOLDER).as_posix()
            found[name] = PageFile(content, _TYPES[path.suffix], etag)
    return found


@route(
    ["/", "/runs", "/runs/{rest:path}", "/workflows", "/failures", "/stats", "/jobs"], **_OF_PAGE
)
def get_page(request: Request[Any, Any, Any]) -> Response[bytes]:
    return _send(request, page_files()["index.html"])


@route("/page/{path:path}", **_OF_PAGE)
def get_page_file(request: Request[Any, Any, Any], path: FromPath[str]) -> Response[bytes]:
    file = page_files().get(path.removeprefix("/"))
    if file is None:
        raise NotFoundException
    return _send(request, file)


def _send(request: Request[Any, Any, Any], file: PageFile) -> Response[bytes]:
    headers = {**_HEADERS, "etag": file.etag}
    cached = {each.strip() for each in request.headers.get("if-none-match", "").split(",")}
    if file.etag in cached:
        return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
    return Response(file.content, headers=headers, media_type=file.media_type)


ROUTES = [get_page, get_page_file]
