"""Names and payloads of an imported run that fit into an event, whatever the file's size.

Values that are too long are cut and marked: a text ends with its full length, and beside a list
`xs` there is `xsCut: {"kept": …, "of": …}`.
"""

import re
from collections.abc import Iterable, Sized
from hashlib import blake2b
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from runfold.protocol.events import MAX_NAME

from .instance import Instance
from .schema import Task

LIST_BYTES: Final = 128 * 1024
PLAN_BYTES: Final = 384 * 1024
TEXT_CHARACTERS: Final = 4096
"""An event holds at most four lists, or two lists, a plan and 13 texts of up to 6 bytes a
character: below the contract's 1 MiB together."""

_RULES: Final = 1
"""Increase this when the same file yields other events, so that they do not mix with old ones."""

_EXECUTION_MARK: Final = re.compile(
    r"""(?<=.) (?: [-_.] (?: \d{8}T\d{4,6}(?:Z|[+-]\d{4})? | 1\d{9} ) (?:-\d+)?  |  -0 )$""",
    re.VERBOSE,
)

_Item = TypeVar("_Item")


def encode(fields: dict[str, Any]) -> Raw:
    """Encode the fields that are not None."""
    given = {key: _cut(value) for key, value in fields.items() if value is not None}
    return Raw(msgspec.json.encode(given))


def listed(key: str, items: Iterable[Any]) -> dict[str, Any]:
    """Return as much of a list as fits into an event, under its key."""
    everything = [_cut(item) for item in items]
    kept = keep(everything, LIST_BYTES)
    return {key: kept} | cut_mark(key, kept, everything)


def listed_files(key: str, files: Iterable[str], instance: Instance) -> dict[str, Any]:
    sizes = instance.file_sizes
    known = (
        {"id": file} | ({"sizeInBytes": sizes[file]} if file in sizes else {}) for file in files
    )
    return listed(key, known)


def cut_mark(key: str, kept: Sized, everything: Sized) -> dict[str, Any]:
    """Return the mark beside a list that was cut; nothing for a whole one."""
    numbers = {"kept": len(kept), "of": len(everything)}
    return {f"{key}Cut": numbers} if len(kept) < len(everything) else {}


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
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1]}…"


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        mark = f"… [cut: {len(value)} characters]"
        is_long = len(value) > TEXT_CHARACTERS
        return value[: TEXT_CHARACTERS - len(mark)] + mark if is_long else value
    if isinstance(value, msgspec.Struct):
        return _cut(msgspec.to_builtins(value))
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item) for item in value]
    return value


def run_id(instance: Instance, *, project: str | None) -> str:
    """Return `wfformat:<name>:<hash>`, safe in URLs; each project gets a run of its own."""
    digest = _digest(msgspec.json.encode([_RULES, project or "default", instance.digest]))
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", instance.document.name)
    return f"wfformat:{name[:150]}:{digest}"


def workflow_name(name: str) -> str:
    """Return the name that executions of one workflow share, without the execution's suffix.

    The suffix is `.json`, then either a time stamp (`-20200401T035039Z`, or seconds since 1970)
    with an optional number, or the `-0` that Pegasus appends to every name. Other numbers stay:
    `forkjoin-10` and `forkjoin-20` are different workflows.
    """
    stem = name.removesuffix(".json") or name
    return cut_name(_EXECUTION_MARK.sub("", stem))


def node_id(task_id: str) -> str:
    """Return the task's id; if it is too long, its beginning and a hash."""
    if len(task_id) <= MAX_NAME and "\0" not in task_id:
        return task_id
    digest = _digest(task_id.encode())
    return f"{task_id[: MAX_NAME - len(digest) - 1]}~{digest}"


def node_type(task: Task, instance: Instance) -> str | None:
    """Return the program; for a whole script, the last part of the task's name.

    Nextflow records whole scripts, whose first word is meaningless (`[`, `def`, `unset`).
    """
    execution = instance.executions.get(task.id)
    command = execution.command if execution else None
    words = ((command.program if command else None) or "").split()
    if not words:
        return None
    if len(words) == 1:
        return cut_name(words[0].rstrip("/").rpartition("/")[2] or words[0])
    return cut_name(re.split(r"[.:]", task.name)[-1] or task.name)


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=12, person=b"runfold.wfformat").hexdigest()
