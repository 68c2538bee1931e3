"""Decode many JSON frames at once, as they come from writers that send one event at a time.

To decode them one by one, with `frames.decode_frame`, costs five times as much. Frames with any
peculiarity, from a missing id to an invalid event, are left to that function.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from runfold.errors import BrokenEvent

from .codec import (
    EPOCH,
    MAX_US,
    MIN_US,
    TYPE_NUMBERS,
    check_body,
    check_numbers,
    replace_unstorable,
)
from .events import VERSION, EventId, RunId
from .frames import Columns


class _Head(Struct, frozen=True, gc=False):
    """An envelope with all fields that are optional elsewhere."""

    type: str
    run: RunId
    id: EventId
    at: Annotated[datetime, Meta(tz=True)]
    v: int = VERSION


_HEADS: Final = msgspec.json.Decoder(list[list[_Head]])
_FIELDS: Final = msgspec.json.Decoder(list[list[dict[str, Raw]]])
_encode = msgspec.json.Encoder().encode


def unpack_json(
    frames: Sequence[bytes], mask: Callable[[bytes], bytes]
) -> tuple[Columns, list[int]] | None:
    """Return the events of these frames, and the number of events of each frame.

    None if any frame has to be decoded by itself. `mask` receives the body of each event and
    returns the body to keep.
    """
    text = b"[" + b",".join(frames) + b"]"
    try:
        if replace_unstorable(text) is not text:
            return None
        for frame in frames:
            check_body(frame)  # the limit is for each event, not for all of them together
        check_numbers(text)
        heads = _HEADS.decode(text)
        fields = _FIELDS.decode(text)
    except (BrokenEvent, msgspec.MsgspecError, RecursionError):
        return None
    if len(heads) != len(frames) or not all(heads):
        return None
    return _to_columns(heads, fields, mask)


def _to_columns(
    heads: list[list[_Head]], fields: list[list[dict[str, Raw]]], mask: Callable[[bytes], bytes]
) -> tuple[Columns, list[int]] | None:
    runs: dict[str, int] = {}
    rows = []
    for of_frame, fields_of_frame in zip(heads, fields, strict=True):
        for head, further in zip(of_frame, fields_of_frame, strict=True):
            kind = TYPE_NUMBERS.get(head.type)
            run = head.run
            since = head.at - EPOCH
            at_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
            if kind is None or head.v != VERSION or not MIN_US <= at_us <= MAX_US:
                return None
            if run not in runs:
                if "\0" in run or "\ufffd" in run:
                    return None
                runs[run] = len(runs)
            del further["type"], further["run"], further["id"], further["at"]
            further.pop("v", None)
            rows.append((runs[run], kind, head.id, at_us, mask(_encode(further))))
    columns = Columns(list(runs), *zip(*rows, strict=True))
    return columns, [len(of_frame) for of_frame in heads]
