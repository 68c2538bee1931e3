"""Read and validate one WfFormat file.

In a valid instance every execution belongs to a planned task, every parent exists, the graph has no
cycle, and the start is a valid time, so later steps need no checks.
"""

import sys
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from runfold.protocol import codec

from .schema import VERSIONS, Document, Execution, ExecutionPart, Task, WfFormatError, refuse

_EXPECTED: Final = (
    "expected an instance as in github.com/wfcommons/WfInstances, "
    f"schemaVersion {' '.join(VERSIONS)}"
)
_CONVERT: Final = (
    "convert the file with tools/wfcommons-migrate-instance.py from github.com/wfcommons/WfFormat"
)


class Instance(Struct, frozen=True):
    """One execution: tasks in the file's order; executions and file sizes by their ids."""

    source: str
    """The name of the file."""
    digest: str
    """Identifies the content: independent of whitespace and the order of keys."""
    document: Document
    execution: ExecutionPart
    executed_at: datetime
    tasks: tuple[Task, ...]
    executions: dict[str, Execution]
    """Without the tasks that never ran."""
    file_sizes: dict[str, int | float]


def read_instance(path: Path) -> Instance:
    """Read a WfFormat file (`-`: standard input); raise `WfFormatError`."""
    is_stdin = str(path) == "-"
    try:
        raw = sys.stdin.buffer.read() if is_stdin else path.read_bytes()
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        reason = error.strerror or error
        raise WfFormatError(f"{path}: cannot be read ({reason}); check the path") from error
    document, digest = _decode(path, raw)
    execution = document.workflow.execution
    if execution is None:
        refuse(path, "workflow.execution", "is missing; import an instance that has run")
    specification = document.workflow.specification
    _check_tasks(path, specification.tasks, execution.tasks)
    return Instance(
        source="stdin" if is_stdin else path.name,
        digest=digest,
        document=document,
        execution=execution,
        executed_at=_read_start(path, execution),
        tasks=specification.tasks,
        executions={each.id: each for each in execution.tasks},
        file_sizes={file.id: file.size_in_bytes for file in specification.files},
    )


def _decode(path: Path, raw: bytes) -> tuple[Document, str]:
    """Return the document and its digest."""
    try:
        content = msgspec.json.decode(raw)
        sorted_content = msgspec.json.encode(content, order="sorted")
        digest = blake2b(sorted_content, digest_size=16, person=b"runfold.wfformat")
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        remedy = "check that it is complete and not compressed"
        raise WfFormatError(f"{path}: not JSON: {error}; {remedy}") from error
    if not isinstance(content, dict):
        raise WfFormatError(f"{path}: not WfFormat, because not a JSON object; {_EXPECTED}")
    _check_version(path, content)
    try:
        return msgspec.convert(content, Document), digest.hexdigest()
    except msgspec.ValidationError as error:
        raise WfFormatError(
            f"{path}: not valid WfFormat {content['schemaVersion']}: {error}; "
            "correct that place, or check the file with WfCommons' wfcommons-validator.py"
        ) from error


def _check_version(path: Path, content: dict[str, Any]) -> None:
    """Check the version before the layout: it often explains why the layout is invalid."""
    for key in ("schemaVersion", "workflow"):
        if key not in content:
            refuse(path, key, f"is missing, so this is not WfFormat; {_EXPECTED}")
    version, workflow = content["schemaVersion"], content["workflow"]
    if version not in VERSIONS:
        supported = ", ".join(map(repr, VERSIONS))
        refuse(path, "schemaVersion", f"is {version!r}; supported are {supported}; {_CONVERT}")
    if isinstance(workflow, dict) and "tasks" in workflow and "specification" not in workflow:
        what = "is the flat layout of WfFormat up to 1.4, which is not supported"
        refuse(path, "workflow.tasks", f"{what}; {_CONVERT}")


def _check_tasks(path: Path, tasks: tuple[Task, ...], executions: tuple[Execution, ...]) -> None:
    place = "workflow.execution.tasks"
    known, seen = {task.id for task in tasks}, set[str]()
    for number, execution in enumerate(executions):
        if execution.id in seen:
            refuse(path, f"{place}[{number}]", f"{execution.id!r} occurs twice; remove one")
        if execution.id not in known:
            what = f"{execution.id!r} ran but is not in workflow.specification.tasks"
            refuse(path, f"{place}[{number}]", f"{what}; add it there or remove it here")
        seen.add(execution.id)
    graph: dict[str, tuple[str, ...]] = {}
    place = "workflow.specification.tasks"
    for number, task in enumerate(tasks):
        if task.id in graph:
            refuse(path, f"{place}[{number}]", f"{task.id!r} occurs twice; give each its own id")
        for parent in task.parents:
            if parent not in known:
                what = f"{task.id!r} names the parent {parent!r}, which does not exist"
                where = f"{place}[{number}].parents"
                refuse(path, where, f"{what}; add that task or remove the name")
        graph[task.id] = task.parents
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = " <- ".join(reversed(error.args[1]))
        what = f"the parents form a cycle ({cycle}), so none of these tasks can start"
        refuse(path, place, f"{what}; remove one of the dependencies")


def _read_start(path: Path, execution: ExecutionPart) -> datetime:
    at = read_date(execution.executed_at)
    if at is None:
        what = f"is {execution.executed_at!r}, which is not a date"
        remedy = "write it as ISO 8601, for example 2020-04-01T03:50:43+00:00"
        refuse(path, "workflow.execution.executedAt", f"{what}; {remedy}")
    # The latest possible end: all tasks run one after the other.
    runtimes_s = sum(task.runtime_in_seconds for task in execution.tasks)
    latest_us = codec.MAX_US - (execution.makespan_in_seconds + runtimes_s) * 1e6
    if not codec.MIN_US <= codec.to_us(at) <= latest_us:
        what = "ends outside the years 1 to 9999; correct executedAt and the runtimes"
        refuse(path, "workflow.execution", what)
    return at


def read_date(text: str) -> datetime | None:
    """Parse a date as found in WfInstances; None if it is invalid. Without an offset it is UTC.

    Formats: ISO 8601, basic and extended; and month-day-year as written by the parser for
    Pegasus 5, `05-10-23T16:23:32Z` (such files have a `createdAt` to compare with).
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        try:
            at = datetime.strptime(text, "%m-%d-%yT%H:%M:%S%z")
        except ValueError:
            return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at
