"""From the buffer to an envelope that every reader accepts."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import Raw

from runfold import (
    Annotated,
    BrokenEvent,
    Completed,
    Error,
    Event,
    Failed,
    Logged,
    NodeStarted,
    PlannedNode,
    Started,
    Trigger,
)
from runfold.protocol.codec import Envelope, decode_body, encode_event
from runfold.protocol.events import MAX_EVENT_BYTES
from runfold.protocol.frames import decode_frame
from runfold.serialization.event_cleanup import encode_bounded, us_of
from runfold.serialization.redaction import Redactor


def make_envelope(event: Event, run: Any = "r", event_id: int = 1, at_us: int = 0) -> Envelope:
    envelope = encode_bounded((event, run, event_id, at_us, 0, False), Redactor())
    frame = decode_frame({b"events": b"[" + encode_event(envelope) + b"]"})
    assert frame.broken == []
    decode_body(envelope.type, envelope.body)
    return envelope


def body(event: Event) -> Any:
    return json.loads(make_envelope(event).body)


def test_every_payload_is_masked() -> None:
    """Inputs, metadata, the trigger's data and tags are redacted alike."""
    secret = Raw(b'{"password":"hunter2"}')
    event = Started(
        inputs=secret,
        metadata=secret,
        trigger=Trigger(type="webhook", data=secret),
        tags={"api_key": "hunter2", "team": "a"},
    )
    envelope = make_envelope(event)
    assert b"hunter2" not in envelope.body
    assert json.loads(envelope.body)["tags"] == {"api_key": "[redacted]", "team": "a"}


def test_outputs_are_masked() -> None:
    """The ends of runs are redacted like their beginnings."""
    assert body(Completed(outputs=Raw(b'{"token":"x"}')))["outputs"] == {"token": "[redacted]"}


def test_names_are_made_to_fit() -> None:
    """An event that a caller built with long names is repaired instead of dropped."""
    fields = body(NodeStarted(node="n" * 300, parents=["p" * 300], name="a\ud800"))
    assert fields["node"] == "n" * 199 + "…"
    assert fields["parents"] == ["p" * 199 + "…"]
    assert fields["name"] == "a\ufffd"


def test_lone_surrogates_in_texts_are_replaced() -> None:
    """A log line from a broken decoder is recorded."""
    assert body(Logged(text="a\ud800\0b")) == {"text": "a\ufffd\ufffdb"}


@pytest.mark.parametrize("run", ["x" * 300, "a\0b", "a\ud800b", ""])
def test_an_invalid_run_id_is_normalized(run: str) -> None:
    """One bad id must not take the rest of its packed frame along."""
    assert 1 <= len(make_envelope(Logged(text="x"), run=run).run) <= 200


def test_a_huge_payload_is_cut_to_fit() -> None:
    """A payload of a caller is bounded like one of ours, and keeps most of the room."""
    envelope = make_envelope(Completed(outputs=Raw(json.dumps("x" * 3_000_000).encode())))
    assert MAX_EVENT_BYTES // 2 < len(envelope.body) < MAX_EVENT_BYTES
    assert json.loads(envelope.body)["outputs"].endswith("[cut, 3000000 characters]")


def test_several_large_payloads_share_the_room() -> None:
    """Payloads that fit alone but not together are cut, the largest first."""
    event = Started(
        workflow="w",
        inputs=Raw(json.dumps("i" * 900_000).encode()),
        metadata=Raw(json.dumps("m" * 800_000).encode()),
        trigger=Trigger(type="webhook", data=Raw(json.dumps("t" * 700_000).encode())),
    )
    envelope = json.loads(make_envelope(event).body)
    assert envelope["workflow"] == "w"
    assert envelope["inputs"].endswith("[cut, 900000 characters]")


def test_a_huge_text_is_cut_to_fit() -> None:
    """A log event of a caller that is too long keeps its beginning."""
    text = body(Logged(text="x" * 3_000_000))["text"]
    assert text.endswith("…[cut, 3000000 characters]")


def test_a_huge_error_is_cut_to_fit() -> None:
    """The stack of a runaway recursion does not cost the end of the run."""
    error = body(Failed(error=Error(type="E", message="m", stack="s" * 2_000_000)))["error"]
    assert error["stack"].endswith("…[cut, 2000000 characters]")
    assert error["type"] == "E"


def test_lists_that_do_not_fit_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A plan of a hundred thousand nodes costs the plan, not the run, and is reported."""
    nodes = [PlannedNode(node=f"node-{n:06}") for n in range(100_000)]
    assert body(Started(workflow="w", nodes=nodes)) == {"workflow": "w"}
    assert "nodes" in caplog.text


@pytest.mark.parametrize(
    ("event", "event_id", "at_us"),
    [
        (Logged(text="x"), -1, 0),
        (Logged(text="x"), 2**63, 0),
        (Logged(text="x", stream=object()), 1, 0),  # type: ignore[arg-type]
        (Annotated(usage=object()), 1, 0),  # type: ignore[arg-type]
    ],
)
def test_an_invalid_event_is_refused_alone(event: Event, event_id: int, at_us: int) -> None:
    """An event that no reader would accept does not reach a frame."""
    with pytest.raises(BrokenEvent):
        encode_bounded((event, "r", event_id, at_us, 0, False), Redactor())


def test_a_time_without_a_zone_is_local() -> None:
    """As usual in Python; with a zone, the zone counts."""
    naive = datetime(2026, 1, 1)  # noqa: DTZ001, that is the point
    assert us_of(naive) == int(naive.timestamp() * 1_000_000)
    assert us_of(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)) == 1_000_000
