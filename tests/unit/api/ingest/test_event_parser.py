"""Events out of request bodies: one, an array, lines, and what is wrong with each."""

import pytest

from runfold.serialization.intake import Intake
from runfold_api.ingest.event_parser import read_envelopes
from runfold_api.web.problems import EventProblem, RequestRefused

GOOD = b'{"type":"started","run":"a","at":"2026-11-21T02:00:00Z"}'
JSON = "application/json"
NDJSON = "application/x-ndjson"
INTAKE = Intake()


@pytest.mark.parametrize(
    ("body", "media_type", "count"),
    [
        (GOOD, JSON, 1),
        (b"  [" + GOOD + b"," + GOOD + b"]\n", JSON, 2),
        (GOOD + b"\n" + GOOD + b"\n", JSON, 2),
        (GOOD + b"\r\n\r\n" + GOOD, NDJSON, 2),
        (GOOD.replace(b",", b",\n"), JSON, 1),
    ],
)
def test_shapes(body: bytes, media_type: str, count: int) -> None:
    """One object, even on several lines, an array, and lines with gaps."""
    assert len(read_envelopes(body, media_type, INTAKE)) == count


@pytest.mark.parametrize("body", [b"", b" \n ", b"[]"])
def test_no_events(body: bytes) -> None:
    """A body without events is a mistake, not a success."""
    with pytest.raises(RequestRefused, match="no events"):
        read_envelopes(body, JSON, INTAKE)


def test_each_broken_event_is_named() -> None:
    """Index, field and reason of each; the good ones do not go through without them."""
    body = b"\n".join([GOOD, b'{"type":"started","run":7}', b"{", GOOD])
    with pytest.raises(RequestRefused, match="2 of 4 events are broken") as caught:
        read_envelopes(body, NDJSON, INTAKE)
    first, second = caught.value.fields["events"]
    assert (first.index, first.field) == (1, "run")
    assert (second.index, second.field) == (2, None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"type":"strated","run":"a","at":"2026-11-21T02:00:00Z"}', "type"),
        (b'{"type":"started","run":"a"}', "at"),
        (b'{"type":"started","run":"a","at":"2026-11-21T02:00:00"}', "at"),
        (GOOD[:-1] + b',"v":2}', "v"),
        (GOOD[:-1] + b',"attempt":0}', "attempt"),
        (GOOD[:-1] + b',"trigger":{"type":5}}', "trigger.type"),
        (GOOD[:-1] + b',"trigger":{}}', "trigger.type"),
    ],
)
def test_field_of_a_problem(body: bytes, field: str) -> None:
    """The problem names the wrong field, also a nested one."""
    with pytest.raises(RequestRefused) as caught:
        read_envelopes(body, JSON, INTAKE)
    problem: EventProblem = caught.value.fields["events"][0]
    assert problem.field == field


def test_few_of_many_problems_are_shown() -> None:
    """An account of a thousand broken events stays readable."""
    with pytest.raises(RequestRefused, match="1000 of 1000") as caught:
        read_envelopes(b"[" + b",".join([b"{}"] * 1000) + b"]", JSON, INTAKE)
    assert len(caught.value.fields["events"]) == 20


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"[1", b"nul"])
def test_hostile_bodies(body: bytes) -> None:
    """Whatever comes is refused as a bad request."""
    with pytest.raises(RequestRefused):
        read_envelopes(body, JSON, INTAKE)


def test_same_content_same_id() -> None:
    """Without an id, the same event sent twice is a duplicate, not a second event."""
    assert read_envelopes(GOOD, JSON, INTAKE) == read_envelopes(GOOD + b"\n", NDJSON, INTAKE)
