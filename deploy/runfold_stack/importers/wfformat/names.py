"""The names of an imported run, its workflow and its nodes."""

import re
from hashlib import blake2b
from typing import Final

import msgspec

from runfold.protocol.events import MAX_NAME

from .graph import Task
from .instance import Instance
from .payloads import cut_name

_RULES: Final = 1
"""Increase this when the same file yields other events, so that they do not mix with old ones."""

_EXECUTION_MARK: Final = re.compile(
    r"""(?<=.) (?: [-_.] (?: \d{8}T\d{4,6}(?:Z|[+-]\d{4})? | 1\d{9} ) (?:-\d+)?  |  -0 )$""",
    re.VERBOSE,
)


def run_id(instance: Instance, *, project: str | None) -> str:
    """Return `wfformat:<name>:<hash>`, safe in URLs; each project gets a run of its own."""
    digest = _digest(msgspec.json.encode([_RULES, project or "default", instance.digest]))
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", instance.name)
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


def node_type(task: Task) -> str | None:
    """Return the program; for a whole script, the last part of the task's name.

    Nextflow records whole scripts, whose first word is meaningless (`[`, `def`, `unset`).
    """
    command = task.execution and task.execution.command
    words = ((command and command.program) or "").split()
    if not words:
        return None
    if len(words) == 1:
        return cut_name(words[0].rstrip("/").rpartition("/")[2] or words[0])
    return cut_name(re.split(r"[.:]", task.name)[-1] or task.name)


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=12, person=b"runfold.wfformat").hexdigest()
