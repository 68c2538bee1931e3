"""Build payloads that fit into an event, whatever the file's size.

Values that are too long are cut and marked: a text ends with its full length, and beside a list
`xs` there is `xsCut: {"kept": …, "of": …}`.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from runfold.protocol.events import MAX_NAME

LIST_BYTES: Final = 128 * 1024
PLAN_BYTES: Final = 384 * 1024
TEXT_CHARACTERS: Final = 4096
"""An event holds at most four lists, or two lists, a plan and 13 texts of up to 6 bytes a
character: below the contract's 1 MiB together."""

_Item = TypeVar("_Item")


def encode(fields: dict[str, Any]) -> Raw:
    """Encode the fields that are not None."""
    return Raw(
        msgspec.json.encode(
            {key: _cut(value) for key, value in fields.items() if value is not None}
        )
    )


def put(fields: dict[str, Any], key: str, items: Iterable[Any]) -> None:
    """Add as much of a list as fits into an event."""
    everything = [_cut(item) for item in items]
    fields[key] = keep(everything, LIST_BYTES)
    mark_cut(fields, key, kept=len(fields[key]), of=len(everything))


def put_files(
    fields: dict[str, Any], key: str, files: Iterable[str], sizes: dict[str, int | float]
) -> None:
    """Add a list of files with their known sizes."""
    put(
        fields,
        key,
        (
            {"id": file, "sizeInBytes": sizes[file]} if file in sizes else {"id": file}
            for file in files
        ),
    )


def mark_cut(fields: dict[str, Any], key: str, *, kept: int, of: int) -> None:
    """Mark a list that was cut."""
    if kept < of:
        fields[f"{key}Cut"] = {"kept": kept, "of": of}


def keep(items: Iterable[_Item], max_bytes: int) -> list[_Item]:
    """Return as many of the first items as fit."""
    kept = []
    for item in items:
        max_bytes -= len(msgspec.json.encode(item)) + 1
        if max_bytes < 0:
            break
        kept.append(item)
    return kept


def cut_name(text: str) -> str:
    """Cut a text to the maximum length of a name."""
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1]}…"


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= TEXT_CHARACTERS else _cut_text(value)
    if isinstance(value, msgspec.Struct):
        return _cut(msgspec.to_builtins(value))
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item) for item in value]
    return value


def _cut_text(text: str) -> str:
    mark = f"… [cut: {len(text)} characters]"
    return text[: TEXT_CHARACTERS - len(mark)] + mark
