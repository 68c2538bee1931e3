"""Any Python object as plain JSON types."""

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import uuid
from collections import OrderedDict, deque, namedtuple
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runfold.protocol.truncation import cut_text
from runfold.serialization.objects import MAX_PAYLOAD_DEPTH, ObjectSerializer
from runfold.serialization.redaction import REDACTED, Redactor


def read(value: object, redactor: Redactor | None = None) -> Any:
    tree = ObjectSerializer(redactor or Redactor()).read(value)
    msgspec.json.encode(tree)
    return tree


@dataclasses.dataclass
class Point:
    x: int
    password: str = "p"


class Struct(msgspec.Struct):
    y: int
    api_key: str = "k"


class Model:
    def model_dump(self) -> dict[str, object]:
        return {"z": 1, "secret": "s"}


class Attrs:
    __attrs_attrs__ = (type("A", (), {"name": "a"}), type("A", (), {"name": "token"}))
    a = 1
    token = "t"


class Array:
    size = 3

    def tolist(self) -> list[int]:
        return [1, 2, 3]


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no")


Pair = namedtuple("Pair", "a b")


class Client:
    def __init__(self, **options: object) -> None:
        self.options = options

    def __repr__(self) -> str:
        return f"Client({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 2.5, None, True, "x"]}, {"a": [1, 2.5, None, True, "x"]}),
        ((1, 2, 3), [1, 2, 3]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"a"}), ["a"]),
        (deque([1]), [1]),
        (range(3), [0, 1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Pair(1, 2), {"a": 1, "b": 2}),
        (Point(1), {"x": 1, "password": REDACTED}),
        (Struct(1), {"y": 1, "api_key": REDACTED}),
        (Model(), {"z": 1, "secret": REDACTED}),
        (Attrs(), {"a": 1, "token": REDACTED}),
        (Array(), [1, 2, 3]),
        (Colour.RED, "red"),
        (Number.ONE, 1),
        (Text("plain"), "plain"),
        (b"text", "text"),
        (b"\xff\x00", "base64:/wA="),
        (bytearray(b"x"), "x"),
        (memoryview(b"x"), "x"),
        (decimal.Decimal("1.10"), "1.10"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "2026-01-02T00:00:00+00:00"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.timedelta(seconds=90), "0:01:30"),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (2**64 - 1, 2**64 - 1),
        (2**64, str(2**64)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        ("a\ud800b", "a\ufffdb"),
        ({"a\ud800": 1}, {"a\ufffd": 1}),
        (msgspec.Raw(b'{"password": "x"}'), {"password": REDACTED}),
        (int, "<class 'int'>"),
        (Client(host="h", password="p"), "Client(host='h', password=[redacted])"),
    ],
)
def test_objects_become_plain_json_types(value: object, expected: object) -> None:
    """Each kind of object is recorded in the form that a person would expect."""
    assert read(value) == expected


def test_a_number_that_python_will_not_print_is_described() -> None:
    """A whole number of thousands of digits costs neither time nor an exception."""
    assert read(10**5000) == "[a whole number of 16610 bits]"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (1, "1"),
        (None, "null"),
        (True, "true"),
        ((1, "a"), '[1,"a"]'),
        (b"k", "k"),
        (Colour.RED, "red"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
    ],
)
def test_keys_become_texts(key: object, expected: str) -> None:
    """A key that JSON does not know is written as its value would be."""
    assert read({key: 5}) == {expected: 5}


def test_keys_that_become_the_same_text_are_both_kept() -> None:
    """`1` and `"1"` are two keys in Python, and stay two."""
    assert read({"1": "text", 1: "number"}) == {"1": "text", "1 (int)": "number"}


@pytest.mark.parametrize("name", ["Authorization", b"authorization"])
def test_pairs_are_masked_like_items(name: str | bytes) -> None:
    """Headers as a list of pairs are as secret as headers in a dict."""
    assert read([(name, "Bearer x"), ("Accept", "*/*")])[0][1] == REDACTED
    assert read([("Accept", "*/*")]) == [["Accept", "*/*"]]


def test_secrets_are_masked_at_every_depth() -> None:
    """A secret is found at any depth."""
    tree = read({"a": [{"b": {"db_password": "x", "input_tokens": 5}}]})
    assert tree == {"a": [{"b": {"db_password": REDACTED, "input_tokens": 5}}]}


def test_a_callable_sees_every_key() -> None:
    """What it returns is read in place of the value."""
    redactor = Redactor(redact=lambda key, value: {"kept": 1} if key == "pii" else value)
    assert read({"pii": "x", "list": [{"pii": 2}]}, redactor) == {
        "pii": {"kept": 1},
        "list": [{"pii": {"kept": 1}}],
    }


def test_cycles_end() -> None:
    """An object that contains itself is recorded up to there."""
    value: dict[str, Any] = {"a": 1}
    value["self"] = [value]
    assert read(value) == {"a": 1, "self": ["[circular: dict]"]}


def test_shared_objects_are_no_cycles() -> None:
    """The same object twice, side by side, is recorded twice."""
    shared = [1]
    assert read([shared, shared]) == [[1], [1]]


def test_deep_nesting_ends() -> None:
    """Depth is bounded, below what readers of JSON can take."""
    value: Any = "bottom"
    for _ in range(5000):
        value = [value]
    encoded = msgspec.json.encode(read(value))
    assert encoded.count(b"[") == MAX_PAYLOAD_DEPTH + 1
    assert b"[nested too deeply: list]" in encoded


def test_an_object_that_dumps_itself_ends() -> None:
    """A `model_dump` that returns its own object does not hang the runner."""

    class Mirror:
        def model_dump(self) -> object:
            return Mirror()

    assert read(Mirror()) == "[nested too deeply: Mirror]"


@pytest.mark.parametrize("name", ["model_dump", "__repr__", "tolist"])
def test_failing_objects_are_named(name: str) -> None:
    """A foreign method that raises affects this value only."""

    def broken(self: object) -> object:
        raise RuntimeError("secret details")

    value = type("Broken", (), {name: broken, "size": 1})()
    assert read({"bad": value, "good": 1}) == {
        "bad": "[not recorded: Broken: RuntimeError]",
        "good": 1,
    }


def test_iterators_are_not_consumed() -> None:
    """Recording a generator does not take its items from the runner."""
    items = iter([1, 2])
    assert "list_iterator" in read(items)
    assert list(items) == [1, 2]


def test_huge_lists_are_cut_with_their_length() -> None:
    """No more is read than an event can hold."""
    tree = read(range(10**9))
    assert len(tree) < 3_000_000
    assert tree[-1] == "…[cut, 1000000000 items]"


@pytest.mark.slow
def test_huge_dicts_are_cut_with_their_length() -> None:
    """A cut mapping says how many keys it had."""
    tree = read(dict.fromkeys(range(600_000), 0))
    assert len(tree) < 600_000
    assert tree["…"] == "[cut, 600000 keys]"


def test_many_long_texts_are_kept_short_but_all_there() -> None:
    """When there is no room for more text, every further key still shows what it held."""
    tree = read({str(n): "x" * 1000 for n in range(10_000)})
    assert len(tree) == 10_000
    assert tree["9999"] == "x" * 64 + "…[cut, 1000 characters]"


@pytest.mark.slow
def test_shared_references_do_not_explode() -> None:
    """A small object that stands for 2**40 items is read only as far as there is room."""
    value: list[Any] = []
    for _ in range(40):
        value = [value, value]
    assert len(msgspec.json.encode(read(value))) < 50_000_000


def test_cutting_twice_keeps_the_first_length() -> None:
    """The mark names the original, however often a text is cut."""
    once = cut_text("x" * 1000, 500)
    assert once == "x" * 500 + "…[cut, 1000 characters]"
    assert cut_text(once, 10) == "x" * 10 + "…[cut, 1000 characters]"


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.decimals()
    | st.datetimes(),
    lambda children: (
        st.lists(children)
        | st.dictionaries(st.text(st.characters(exclude_categories=())) | st.integers(), children)
        | st.tuples(children, children)
        | st.frozensets(st.integers() | st.text())
    ),
    max_leaves=20,
)


@given(plain)
def test_everything_becomes_valid_json(value: object) -> None:
    """Whatever goes in, any reader of JSON can read what comes out."""
    json.loads(msgspec.json.encode(read(value)))
