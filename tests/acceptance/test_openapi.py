"""The service against its OpenAPI document: requests that the document allows and forbids.

Schemathesis generates requests from the document and runs all its checks on each response: no 500,
only documented statuses, media types and schemas, no forbidden request accepted, and no allowed
request refused, except for reasons that a schema cannot express.
"""

import json
import traceback
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from databases import create_database, drop_database
from folded_events import fold_events, make_run_events
from runfold_stack.servers.postgres_server import PostgresServer
from runfold_stack.servers.redis_server import RedisServer
from service_threads import run_api

EXAMPLES = 30

NOT_IN_SCHEMA = {
    # Only values that the service has issued.
    *("cursor", "after", "before"),
    # One of about six hundred names.
    "tz",
    # Excluded by another parameter.
    *("offset", "bucket", "group_by", "started_before", "until"),
    *("max_duration_ms", "max_cost_usd"),
    # A key with two values.
    "tag",
    # Required without a filter.
    "all",
    # Only for projects with payload search, and not for deletions.
    "payload",
}


@pytest.fixture(scope="module")
def service(
    postgres_server: PostgresServer, migrated_template: str, redis_server: RedisServer
) -> Iterator[httpx.Client]:
    """A server with a few runs."""
    url = create_database(postgres_server, "openapi", template=migrated_template)
    error = {"type": "Timeout", "message": "30 s"}
    fold_events(url, make_run_events("a", 0, tags={"env": "prod"}) + make_run_events("b/c", 1))
    fold_events(
        url,
        [
            *make_run_events("c", 2)[:1],
            {**make_run_events("c", 2, end="failed")[1], "error": error},
        ],
    )
    with run_api(redis_server.url, url, max_wait_s=0.02) as client:
        yield client
    drop_database(postgres_server, "openapi")


def is_reason_not_in_schema(response: Any) -> bool:
    """Return whether a request was refused for a reason that no schema can express."""
    if response.status_code != 400:
        return False
    if response.request.method == "HEAD":  # checked with the same GET
        return True
    problem = json.loads(response.content)
    if "got `number`" in problem["detail"]:  # 1.0 is an integer in JSON Schema only
        return True
    if "RUNFOLD_MAX_FUTURE_S" in problem["detail"]:  # the bounds of times depend on the clock
        return True
    # The fields of each type of event are in the producers' README, not in the document.
    return problem.get("parameter") in NOT_IN_SCHEMA or "events" in problem


# The service runs in threads of this process, and the pauses of its clients are random.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
def test_every_operation(service: httpx.Client) -> None:
    """A fixed number of reproducible requests to every route."""
    schema = schemathesis.openapi.from_dict(service.get("/api/openapi.json").json())
    schema.config.update(base_url=str(service.base_url))
    wrong = {}
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if operation.path.endswith("/live"):  # a response without an end: see test_live
            continue

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            response = case.call()
            excluded = [positive_data_acceptance] if is_reason_not_in_schema(response) else []
            if b"problem:fold-behind" in response.content or response.status_code == 503:
                assert "wait_for" in (case.query or {})  # for a position that is never reached
                excluded = [not_a_server_error]
            case.validate_response(response, excluded_checks=excluded)

        try:
            ask()
        except (Exception, BaseExceptionGroup) as error:
            wrong[operation.label] = "".join(traceback.format_exception_only(error))[:2000]
    assert not wrong, "\n".join(f"{label}: {reason}" for label, reason in wrong.items())
