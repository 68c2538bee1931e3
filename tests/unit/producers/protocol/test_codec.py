"""Events to and from bytes."""

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from runfold import BrokenEvent, Completed, Error, Failed, Heartbeat, Logged, Started
from runfold.protocol.codec import (
    MAX_US,
    MIN_US,
    Envelope,
    decode_event,
    encode_event,
    make_envelope,
    replace_unstorable,
    to_datetime,
    to_rfc3339,
    to_us,
)
from runfold.protocol.events import MAX_EVENT_BYTES

AT = "2026-11-21T02:00:00.000001Z"
AT_US = 1_795_226_400_000_001


def raw_event(**fields: Any) -> bytes:
    known = {"type": "logged", "run": "r1", "id": 3, "at": AT, "v": 1, "text": "hello"}
    return json.dumps({k: v for k, v in (known | fields).items() if v is not ...}).encode()


def reason(raw: bytes) -> str:
    with pytest.raises(BrokenEvent) as caught:
        decode_event(raw)
    return str(caught.value)


def test_an_event_is_read_into_its_envelope_and_its_struct() -> None:
    """Envelope and further fields are separated; the latter are unchanged."""
    envelope, event = decode_event(raw_event())
    assert envelope == Envelope("logged", "r1", 3, AT_US, b'{"text":"hello"}')
    assert event == Logged(text="hello")


def test_sealing_and_reading_give_the_same_event() -> None:
    """What a producer writes is what a worker reads."""
    failed = Failed(error=Error(type="E", message="m"), outputs=Raw(b'{"a": [1, 2]}'), exit_code=3)
    envelope = make_envelope(failed, run="r1", id=7, at_us=AT_US)
    assert decode_event(encode_event(envelope)) == (envelope, failed)


def test_the_envelope_goes_before_the_events_own_fields() -> None:
    """Fields of the envelope that an event has itself do not get into its body."""
    event = Logged(run="mine", id=1, at=datetime(2020, 1, 1, tzinfo=UTC), text="x")
    assert make_envelope(event, run="r1", id=7, at_us=5) == Envelope(
        "logged", "r1", 7, 5, b'{"text":"x"}'
    )


def test_an_event_without_fields_has_an_empty_body() -> None:
    """The shortest event is still an object, in both forms."""
    envelope = make_envelope(Heartbeat(), run="r1", id=1, at_us=AT_US)
    assert envelope.body == b"{}"
    assert json.loads(encode_event(envelope)) == {
        "type": "heartbeat",
        "run": "r1",
        "id": 1,
        "at": AT,
        "v": 1,
    }


def test_unknown_fields_are_kept() -> None:
    """An event of a newer producer loses nothing on its way."""
    envelope, _ = decode_event(raw_event(colour={"r": 1}))
    assert json.loads(envelope.body) == {"text": "hello", "colour": {"r": 1}}


def test_payload_bytes_are_kept_as_they_are() -> None:
    """Spaces and the spelling of numbers inside a payload survive."""
    raw = b'{"type":"completed","run":"r","at":"2026-11-21T02:00:00Z","outputs":{"n": 1.50e1}}'
    _, event = decode_event(raw)
    assert isinstance(event, Completed)
    assert bytes(event.outputs) == b'{"n": 1.50e1}'


def test_an_event_without_an_id_gets_one_from_its_content() -> None:
    """The same event has the same id however its fields are ordered; another has another."""
    one, _ = decode_event(raw_event(id=...))
    fields = json.loads(raw_event(id=...))
    reordered, _ = decode_event(json.dumps(dict(reversed(fields.items()))).encode())
    other, _ = decode_event(raw_event(id=..., text="bye"))
    assert one.id == reordered.id != other.id


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b'{"type":"logged"', "not JSON"),
        (b"[]", "an event is a JSON object, not array"),
        (b'"x"', "an event is a JSON object, not str"),
        (raw_event(type=...), "unknown type None"),
        (raw_event(type="exploded"), "unknown type 'exploded'"),
        (raw_event(type=["logged"]), "unknown type ['logged']"),
        (raw_event(v=2), "newer version: v is 2"),
        (raw_event(v=0), "v: expected 1, got 0"),
        (raw_event(v="1"), "v: expected 1, got '1'"),
        (raw_event(run=...), "`run`"),
        (raw_event(run=""), "`$.run`"),
        (raw_event(run="x" * 201), "`$.run`"),
        (raw_event(run=7), "`$.run`"),
        (raw_event(run="a\0b"), "run: an id must not contain"),
        (raw_event(run="a\ud800b"), "run: an id must not contain"),
        (raw_event(at=...), "`at`"),
        (raw_event(at="yesterday"), "`$.at`"),
        (raw_event(at="2026-11-21T02:00:00"), "`$.at`"),
        (raw_event(at="0001-01-01T00:00:00+14:00"), "out of range"),
        (raw_event(id=-1), "`$.id`"),
        (raw_event(id=2**63), "`$.id`"),
        (raw_event(id=1.5), "`$.id`"),
        (raw_event(text=...), "`text`"),
        (raw_event(text=5), "`$.text`"),
        (raw_event(stream="stdin"), "`$.stream`"),
        (raw_event(node="n" * 300), "`$.node`"),
        (raw_event(node=""), "`$.node`"),
        (raw_event(type="node_started", node="n", attempt=0), "`$.attempt`"),
        (raw_event(type="started", tags={"a": []}), "`$.tags"),
        (raw_event(extra=float("nan")), "not JSON"),
        (raw_event()[:-1] + b',"n":1e400}', "not"),
        (raw_event()[:-1] + b',"t":"\xff"}', "not UTF-8"),
        (raw_event(extra=list(range(200_000))), "too large"),
        (raw_event(text="x" * 17 * 1024 * 1024), "too large"),
        (raw_event(extra=json.loads("[" * 200 + "]" * 200)), "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_event_has_a_reason(raw: bytes, expected: str) -> None:
    """Each kind of error has a reason that helps a reader of dead letters."""
    assert expected in reason(raw)


def test_long_strings_are_cut_and_marked_until_the_event_fits() -> None:
    """The longest ones, at any depth; everything else stays, unknown fields too."""
    short, long = "s" * 50_000, "y" * 3_000_000
    raw = raw_event(type="completed", outputs={"a": [short, long]}, extra=long, text=...)

    envelope, _ = decode_event(raw)

    body = json.loads(envelope.body)
    assert len(envelope.body) <= MAX_EVENT_BYTES
    assert body["outputs"]["a"][0] == short
    for text in (body["outputs"]["a"][1], body["extra"]):
        cut, _, mark = text.partition("…")
        assert long.startswith(cut)
        assert mark == "[cut, 3000000 characters]"


def test_ids_of_200_characters_are_fine() -> None:
    """The limit itself is allowed, counted in characters."""
    envelope, _ = decode_event(raw_event(run="é" * 200))
    assert envelope.run == "é" * 200


def test_brackets_in_strings_do_not_count_as_depth() -> None:
    """A text full of brackets is only a text."""
    _, event = decode_event(raw_event(text='[{"' * 1000))
    assert event == Logged(text='[{"' * 1000)


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        ("a\0b", "a\ufffdb"),
        ("a\ud800b", "a\ufffdb"),
        ("a\udc00\ud800b", "a\ufffd\ufffdb"),
        ("\\u0000", "\\u0000"),
        ("\U0001f600", "\U0001f600"),
    ],
)
def test_what_postgresql_cannot_store_is_replaced_visibly(given_text: str, kept: str) -> None:
    """U+0000 and lone surrogates become U+FFFD; look-alikes stay."""
    _, event = decode_event(raw_event(text=given_text))
    assert event == Logged(text=kept)


@given(st.text(st.characters(exclude_categories=())))
def test_replacing_leaves_every_storable_text_alone(text: str) -> None:
    """The replacement equals replacing in the decoded text."""
    paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    cleaned = json.loads(replace_unstorable(json.dumps(text).encode()))
    assert cleaned.count("\ufffd") >= text.count("\0")
    assert "\0" not in cleaned
    cleaned.encode()
    if "\0" not in text and paired == text:
        assert cleaned == text


@given(st.integers(MIN_US, MAX_US))
def test_times_survive_to_the_microsecond(at_us: int) -> None:
    """Every storable time goes to text and back without loss."""
    assert to_us(to_datetime(at_us)) == at_us
    assert to_us(datetime.fromisoformat(to_rfc3339(at_us))) == at_us


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(json_values, st.text(min_size=1, max_size=200), st.integers(0, 2**63 - 1))
def test_any_payload_survives_the_way(value: object, text: str, event_id: int) -> None:
    """Any JSON in an event is the same after encoding and decoding."""
    event = Started(workflow=text, inputs=Raw(json.dumps(value).encode()))
    envelope = make_envelope(event, run="r", id=event_id, at_us=AT_US)
    again, read = decode_event(encode_event(envelope))
    assert again == envelope
    assert isinstance(read, Started)
    expected = json.loads(replace_unstorable(json.dumps(value).encode()))
    assert json.loads(bytes(read.inputs)) == expected


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    """Anything is either an event or a broken one."""
    with contextlib.suppress(BrokenEvent):
        decode_event(raw)
