"""Every wrong parameter of every route is refused by name, with what is allowed.

The values are generated from the OpenAPI document, so a new route or parameter is tested too.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from databases import create_database, drop_database
from service_threads import run_api

Operation = tuple[str, str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def api(redis_server: Any, migrated_template: str, postgres_server: Any) -> Iterator[httpx.Client]:
    """A server over an empty database."""
    name = "wrong_parameters"
    url = create_database(postgres_server, name, template=migrated_template)
    with run_api(redis_server.url, url) as client:
        yield client
    drop_database(postgres_server, name)


def operations(api: httpx.Client) -> list[Operation]:
    """Method, path and parameters of every route under /api/v1."""
    return [
        (method.upper(), path, operation.get("parameters", []))
        for path, item in api.get("/api/openapi.json").json()["paths"].items()
        for method, operation in item.items()
        if path.startswith("/api/v1")
    ]


def wrong_values(schema: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Values that a schema forbids, each with the words that the problem must contain."""
    kind, items = schema["type"], schema.get("items", {})
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    if kind in ("integer", "number"):
        yield from ((text, ["number"]) for text in ("x", "", "nan", "1e2x", "0x10", "1_000"))
        if kind == "integer":
            yield from (("1.5", ["whole number"]), ("9" * 30, ["whole number"]))
        if lowest is not None:
            yield f"{lowest - 1:.0f}", [f"{lowest:,.0f}"]
        if highest is not None:
            yield f"{highest + 1:.0f}", [f"{highest:,.0f}"]
    elif kind == "boolean":
        yield from ((text, ["true", "false"]) for text in ("maybe", "", "2"))
    elif "enum" in schema or "enum" in items:
        yield "nonsense", schema.get("enum") or items["enum"]
    elif kind == "array":
        yield from ((text, ["key:value"]) for text in ("nonsense", ":", "k:" + "v" * 2000))
    elif schema.get("format") == "date-time":
        yield from ((text, ["2026-11-21T02:00:00Z"]) for text in ("yesterday", "", "2026-13-01"))
    elif "maxLength" in schema:
        yield from ((text, [str(schema["maxLength"])]) for text in ("", "x" * 201))
        yield "\0", ["U+0000"]
    elif "pattern" in schema:
        yield "nonsense", ["5:1795226400000-3"]
    else:  # a cursor or a time zone
        yield "nonsense", []


def ask(api: httpx.Client, method: str, path: str, query: list[tuple[str, str]]) -> httpx.Response:
    """Return the answer; its body only where the route refuses, because a stream has no end."""
    path = path.replace("{", "").replace("}", "")
    with api.stream(method, path, params=tuple(query)) as response:
        if response.status_code != 200:
            response.read()
    return response


def complaint(
    response: httpx.Response, name: str, words: list[str], kind: str = "bad-parameter"
) -> str | None:
    """Return what is wrong with the answer to a wrong parameter; None if it is as promised."""
    if response.status_code != 400:
        return f"status {response.status_code}"
    if response.headers["content-type"] != "application/problem+json":
        return response.headers["content-type"]
    if response.request.method == "HEAD":
        return None
    problem = response.json()
    if problem["type"] != f"urn:runfold:problem:{kind}" or problem.get("parameter") != name:
        return response.text
    reason = problem["detail"].removeprefix(f"{name}: ")
    missing = [word for word in words if word not in reason]
    if reason == problem["detail"] or len(reason.split()) < 2 or missing:
        return f"{problem['detail']!r} lacks {missing}"
    return None


def required(parameters: list[dict[str, Any]], name: str) -> list[tuple[str, str]]:
    """A valid value for each query parameter that the route needs, except for this one."""
    return [
        (each["name"], each["schema"]["enum"][0])
        for each in parameters
        if each["in"] == "query" and each.get("required") and each["name"] != name
    ]


def test_every_wrong_value_is_named_with_what_is_allowed(api: httpx.Client) -> None:
    """Wrong types, values beyond the bounds, words that are not in the enumeration."""
    wrong = {}
    asked = 0
    for method, path, parameters in operations(api):
        for parameter in parameters:
            if parameter["in"] != "query":
                continue
            name = parameter["name"]
            others = required(parameters, name)
            for value, words in wrong_values(parameter["schema"]):
                asked += 1
                found = complaint(ask(api, method, path, [(name, value), *others]), name, words)
                if found is not None:
                    wrong[f"{method} {path}?{name}={value[:30]}"] = found
    assert asked > 500
    assert wrong == {}


def test_every_value_too_many_or_missing_is_named(api: httpx.Client) -> None:
    """A single value that is given twice, and a required one that is not given at all."""
    wrong = {}
    for method, path, parameters in operations(api):
        for parameter in parameters:
            name, schema = parameter["name"], parameter["schema"]
            if parameter["in"] != "query":
                continue
            others = required(parameters, name)
            if schema["type"] != "array":
                query = [(name, "1"), (name, "1"), *others]
                wrong[f"{method} {path}?{name} twice"] = complaint(
                    ask(api, method, path, query), name, ["expected one value, got 2"]
                )
            if parameter.get("required"):
                wrong[f"{method} {path} without {name}"] = complaint(
                    ask(api, method, path, others), name, ["required", *schema["enum"]]
                )
    assert {label: found for label, found in wrong.items() if found is not None} == {}


def test_every_route_lists_its_parameters_to_an_unknown_one(api: httpx.Client) -> None:
    """A misspelt filter is an error, and never an answer that leaves the filter out."""
    for method, path, parameters in operations(api):
        response = ask(api, method, path, [("nonsense", "1")])
        assert complaint(response, "nonsense", [], "unknown-parameter") is None, path
        if method != "HEAD":
            names = {each["name"] for each in parameters if each["in"] == "query"}
            assert set(response.json()["allowed"]) == names


def test_every_path_that_names_nothing_is_not_found(api: httpx.Client) -> None:
    """Whatever the path's parameter is: a problem that names it, and where those are that exist."""
    for method, path, parameters in operations(api):
        for name in [each["name"] for each in parameters if each["in"] == "path"]:
            for value in ("x", "%00", "%FF", "x" * 300, "%3Cb%3E"):
                response = api.request(method, path.replace(f"{{{name}}}", value))
                assert response.status_code == 404, (path, value)
                assert response.headers["content-type"] == "application/problem+json"
                if method != "HEAD":
                    assert response.json()["type"] == f"urn:runfold:problem:{name}-unknown"
                    assert response.json()["detail"].startswith(f"there is no {name} ")
