"""The fields of a run's start."""

from typing import Any
from uuid import UUID

import pytest
from msgspec import Raw

from runfold import PlannedNode, Trigger
from runfold.recording.run_start import (
    RunFields,
    make_started,
    normalize_planned,
    normalize_trigger,
    payload_bytes,
)
from runfold.serialization.redaction import Redactor

REDACTOR = Redactor()


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        (None, None),
        ("schedule", Trigger(type="schedule")),
        ({"type": "webhook", "data": {"a": 1}}, Trigger(type="webhook", data=Raw(b'{"a":1}'))),
        ({"type": "webhook", "path": "/x"}, Trigger(type="webhook", data=Raw(b'{"path":"/x"}'))),
        (
            {"type": "t", "data": 1, "more": 2},
            Trigger(type="t", data=Raw(b'{"data":1,"more":2}')),
        ),
        ({"cron": "* * * * *"}, Trigger(type="manual", data=Raw(b'{"cron":"* * * * *"}'))),
        (Trigger(type="manual"), Trigger(type="manual")),
        (
            Trigger(type="webhook", data=Raw(b'{"token":"x"}')),
            Trigger(type="webhook", data=Raw(b'{"token":"[redacted]"}')),
        ),
        ("", None),
        (5, Trigger(type="5")),
    ],
)
def test_triggers_come_in_any_shape(trigger: Any, expected: Trigger | None) -> None:
    """A type, a struct or a mapping, with redacted data in each."""
    assert normalize_trigger(trigger, REDACTOR) == expected


@pytest.mark.parametrize(
    "nodes",
    [
        ["a", {"node": "b", "parents": ["a"]}],
        ["a", PlannedNode(node="b", parents=["a"])],
        {"a": [], "b": ["a"]},
        {"a": None, "b": "a"},
        ["a", {"node": "", "name": "left out"}, {"node": "b", "parents": "a", "other": 1}],
    ],
)
def test_plans_come_in_any_shape(nodes: Any) -> None:
    """Names, mappings, structs, or a mapping to the parents."""
    assert normalize_planned(nodes) == [PlannedNode(node="a"), PlannedNode(node="b", parents=["a"])]


def test_everything_is_made_to_fit() -> None:
    """Strange values in any argument lead to an event that the contract allows."""
    opening: dict[str, Any] = {
        "project": "p" * 300,
        "user": 7,
        "session": UUID(int=1),
        "tags": "no mapping",
        "parent_run": "x" * 300,
        "attempt": "many",
        "inputs": {"password": "x"},
    }
    started = make_started(REDACTOR, "", RunFields(**opening))  # type: ignore[typeddict-item]
    assert started.workflow is None
    assert started.project == "p" * 199 + "…"
    assert started.user == "7"
    assert started.session == str(UUID(int=1))
    assert started.tags == {"tags": "no mapping"}
    assert started.parent_run is not None
    assert len(started.parent_run) <= 200
    assert started.attempt is None
    assert bytes(started.inputs) == b'{"password":"[redacted]"}'


def test_payloads_are_counted() -> None:
    """The buffer is bounded by bytes, so the size of a start is known."""
    started = make_started(
        REDACTOR, "w", {"inputs": 11, "metadata": 222, "trigger": {"type": "t", "data": 3333}}
    )
    assert payload_bytes(started) == 9
