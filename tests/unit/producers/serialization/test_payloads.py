"""Payloads: bounded JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from runfold.protocol.events import ABSENT
from runfold.serialization.payloads import MAX_PAYLOAD_BYTES, encode_payload, redact_raw, shrink
from runfold.serialization.redaction import Redactor

REDACTOR = Redactor()


def loads(raw: Raw) -> Any:
    return json.loads(bytes(raw))


def test_nothing_is_a_payload_that_was_not_given() -> None:
    """`None` leaves the field out; an empty object is an object."""
    assert encode_payload(None, REDACTOR) is ABSENT
    assert bytes(encode_payload({}, REDACTOR)) == b"{}"


def test_a_payload_is_what_it_was_at_the_call() -> None:
    """A later change of the object does not change the record."""
    value = {"rows": [1]}
    raw = encode_payload(value, REDACTOR)
    value["rows"].append(2)
    assert loads(raw) == {"rows": [1]}


@pytest.mark.parametrize("text", ["x" * 3_000_000, "é" * 2_000_000, "\x01" * 500_000])
def test_long_texts_are_cut_with_their_length(text: str) -> None:
    """A text that no event can hold is cut, visibly, with the original length."""
    raw = encode_payload({"long": text, "short": "kept"}, REDACTOR)
    assert len(raw) <= MAX_PAYLOAD_BYTES
    value = loads(raw)
    assert value["short"] == "kept"
    assert value["long"].endswith(f"…[cut, {len(text)} characters]")
    assert value["long"].startswith(text[:1024])


def test_a_text_below_the_limit_is_whole() -> None:
    """Nothing is cut that fits."""
    text = "x" * (MAX_PAYLOAD_BYTES - 100)
    assert loads(encode_payload({"t": text}, REDACTOR)) == {"t": text}


def test_many_items_are_cut_with_their_number() -> None:
    """A list that is too long as a whole keeps its beginning."""
    value = loads(encode_payload([{"n": n, "s": "y" * 50} for n in range(30_000)], REDACTOR))
    assert value[0] == {"n": 0, "s": "y" * 50}
    assert value[-1].startswith("…[cut, ")


def test_the_last_resort_is_a_text() -> None:
    """Even what cannot be shortened step by step ends within the limit."""
    value = {f"key{n:04}" + "k" * 1000: {"x": 1} for n in range(50)}
    raw = shrink(Raw(json.dumps(value).encode()), 200)
    assert loads(raw).startswith("[cut, ")


@given(
    st.recursive(
        st.text(max_size=5000) | st.integers(0, 9),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner),
        max_leaves=30,
    ),
    st.integers(100, 5000),
)
def test_shrinking_always_reaches_the_limit(value: object, most: int) -> None:
    """Whatever the shape, the result is valid JSON and small enough."""
    raw = shrink(Raw(json.dumps(value).encode()), most)
    loads(raw)
    assert len(raw) <= most


def test_raw_json_without_secrets_keeps_its_bytes() -> None:
    """JSON that a caller encoded is changed only if necessary."""
    raw = Raw(b'{ "n": 1.50e1, "input_tokens": 5 }')
    assert redact_raw(raw, REDACTOR) is raw


@pytest.mark.parametrize("raw", [b'{"password":"x"}', b'[{"a":{"x-api-key":"x"}}]'])
def test_raw_json_with_secrets_is_masked(raw: bytes) -> None:
    """A caller's own JSON is redacted, too."""
    assert b'"x"' not in bytes(redact_raw(Raw(raw), REDACTOR))


@pytest.mark.parametrize("raw", [b"{", b"nope", b"1e999", b'"\xff"', b"[" * 100_000])
def test_raw_bytes_that_are_no_json_are_replaced(raw: bytes) -> None:
    """A broken payload must not break its event."""
    assert loads(redact_raw(Raw(raw), REDACTOR)).startswith("[not recorded: not JSON")


def test_raw_json_that_nests_too_deeply_is_flattened() -> None:
    """A payload deeper than the contract allows is cut instead of refused."""
    raw = redact_raw(Raw(b"[" * 500 + b"]" * 500), REDACTOR)
    assert bytes(raw).count(b"[") <= 110


def test_a_callable_sees_raw_json_too() -> None:
    """With a callable every payload is looked at."""
    redactor = Redactor(redact=lambda key, value: 0 if key == "n" else value)
    assert loads(redact_raw(Raw(b'{"n":5}'), redactor)) == {"n": 0}
