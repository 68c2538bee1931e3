"""The web page as the server hands it out; what it does is tested in a browser."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import httpx
import pytest

from runfold_api.routes.static_files import FOLDER, page_files
from service_threads import run_api

NOWHERE = "redis://127.0.0.1:1/0"
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"
MODULES = [name for name in page_files() if name.endswith(".js")]


@pytest.fixture(scope="module")
def api() -> Iterator[httpx.Client]:
    """The page needs neither Redis nor PostgreSQL."""
    with run_api(NOWHERE, NO_DATABASE) as client:
        yield client


@pytest.mark.parametrize(
    "path", ["/", "/runs/a", "/runs/a%2Fb%3F", "/workflows", "/failures", "/stats", "/jobs"]
)
def test_every_address_gets_the_document(api: httpx.Client, path: str) -> None:
    """Under a policy that lets nothing in but the page's own files."""
    answer = api.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.content == (FOLDER / "index.html").read_bytes()
    policy = dict(
        directive.split(" ", 1)
        for directive in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"


def test_what_a_browser_has_is_not_sent_again(api: httpx.Client) -> None:
    """It asks each time, so that a new version is seen at once."""
    first = api.get("/page/main.js")
    again = api.get("/page/main.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


@pytest.mark.parametrize("path", ["nope.js", "../app.py", "%2e%2e/app.py", ""])
def test_only_files_of_the_page_are_served(api: httpx.Client, path: str) -> None:
    """Nothing else of the package, and nothing of the disk."""
    assert api.get(f"/page/{path}").status_code == 404


def test_every_file_that_the_document_names_is_there(api: httpx.Client) -> None:
    """And every file of the page is named, by the document or by a module."""
    named = set(re.findall(r'"/page/([^"]+)"', page_files()["index.html"].content.decode()))
    for name in MODULES:
        for target in re.findall(r'from "(\.[^"]+)"', page_files()[name].content.decode()):
            named.add(_join(name, target))
    assert named == page_files().keys() - {"index.html"}
    for name in named:
        assert api.get(f"/page/{name}").status_code == 200


def _join(module: str, target: str) -> str:
    parts: list[str] = []
    for part in (*PurePosixPath(module).parent.parts, *PurePosixPath(target).parts):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


@pytest.mark.parametrize("name", MODULES)
def test_text_never_becomes_markup(name: str) -> None:
    """The policy would refuse it; here one learns which module tried."""
    source = page_files()[name].content.decode()
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert forbidden not in source
