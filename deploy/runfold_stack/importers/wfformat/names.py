"""What an imported run, its workflow and its nodes are called."""

import re
from hashlib import blake2b
from typing import Final

import msgspec

from runfold.protocol.events import MAX_NAME

from .graph import Task
from .instance import Instance
from .payloads import cut_name

_RULES: Final = 1
"""Raise it when the same file gives other events: they must not mix with those of before."""

_EXECUTION_MARK: Final = re.compile(
    r"""(?<=.) (?: [-_.] (?: \d{8}T\d{4,6}(?:Z|[+-]\d{4})? | 1\d{9} ) (?:-\d+)?  |  -0 )$""",
    re.VERBOSE,
)


def run_id(instance: Instance, *, project: str | None) -> str:
    """`wfformat:<name>:<hash>`, safe in a URL. Projects are tenants: each gets its own run."""
    digest = _digest(msgspec.json.encode([_RULES, project or "default", instance.digest]))
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", instance.name)
    return f"wfformat:{name[:150]}:{digest}"


def workflow_name(name: str) -> str:
    """The name that executions of one workflow share: without the mark of this execution.

    That is a trailing `.json`, then one of: a time stamp (`-20200401T035039Z`, or seconds
    since 1970) with the number after it, or the `-0` that Pegasus puts behind every name.
    Other numbers stay: `forkjoin-10` and `forkjoin-20` are different workflows.
    """
    stem = name.removesuffix(".json") or name
    return cut_name(_EXECUTION_MARK.sub("", stem))


def node_id(task_id: str) -> str:
    """The task's id; one that is too long keeps its beginning and gets a hash as its end."""
    if len(task_id) <= MAX_NAME and "\0" not in task_id:
        return task_id
    digest = _digest(task_id.encode())
    return f"{task_id[: MAX_NAME - len(digest) - 1]}~{digest}"


def node_type(task: Task) -> str | None:
    """The program. Nextflow records a whole script there, whose first word says nothing
    (`[`, `def`, `unset`): then it is the process, the last part of the task's name."""
    command = task.execution and task.execution.command
    words = ((command and command.program) or "").split()
    if not words:
        return None
    if len(words) == 1:
        return cut_name(words[0].rstrip("/").rpartition("/")[2] or words[0])
    return cut_name(re.split(r"[.:]", task.name)[-1] or task.name)


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=12, person=b"runfold.wfformat").hexdigest()
