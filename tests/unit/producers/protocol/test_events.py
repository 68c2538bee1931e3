"""The events as the contract has them."""

import re
from pathlib import Path

import msgspec
import pytest

from runfold.protocol import events
from runfold.protocol.events import ABSENT, EVENT_CLASSES, Event


def test_the_types_are_the_contracts_in_the_order_of_their_numbers() -> None:
    """Packed frames and the ledger number the types: nothing is reordered."""
    assert [cls.type for cls in EVENT_CLASSES] == [
        "queued",
        "started",
        "node_started",
        "node_finished",
        "logged",
        "annotated",
        "heartbeat",
        "completed",
        "failed",
        "cancelled",
        "lost",
    ]


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=lambda cls: cls.type)
def test_each_class_carries_its_type_as_the_tag(cls: type[Event]) -> None:
    """The `type` in JSON and the attribute are the same word."""
    assert cls.__struct_config__.tag == cls.type


def test_what_was_not_given_is_not_written() -> None:
    """Fields at their defaults are left out."""
    assert msgspec.json.encode(events.Started(workflow="w")) == (
        b'{"type":"started","workflow":"w"}'
    )
    assert events.Started().inputs is ABSENT


def test_events_are_frozen() -> None:
    """An event is a fact: it does not change once it is made."""
    with pytest.raises(AttributeError):
        events.Heartbeat().run = "other"  # type: ignore[misc]


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=lambda cls: cls.type)
def test_every_event_is_documented(cls: type[Event]) -> None:
    """The table in PROTOCOL.md has each type, with its number and all of its fields."""
    text = (Path(__file__).parents[4] / "producers" / "PROTOCOL.md").read_text()
    number = EVENT_CLASSES.index(cls)
    (row,) = re.findall(rf"^\| {number} \| `{cls.type}` \| (.*) \|$", text, re.MULTILINE)
    if cls is events.Started:
        assert row == "the same"
        return
    for name in set(cls.__struct_fields__) - {"run", "id", "at", "v"}:
        assert f"`{name}`" in row
