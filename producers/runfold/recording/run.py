"""The handle of one run, and the heartbeats of all open runs."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from itertools import count
from typing import Any, Final
from weakref import ref

import msgspec

from runfold.delivery import process_hooks
from runfold.protocol.events import (
    Annotated,
    Cancelled,
    Completed,
    Error,
    Failed,
    Heartbeat,
    NodeStarted,
    Queued,
    Started,
    Usage,
)
from runfold.serialization.event_cleanup import normalize_tags
from runfold.serialization.exceptions import ErrorLike, describe, exit_code_of, node_of
from runfold.serialization.normalize import normalize_count, normalize_name, normalize_names
from runfold.serialization.payloads import encode_payload

from .event_writer import EventWriter, read_usage
from .handle import Handle
from .node import Node
from .run_start import payload_bytes

_MAX_ATTEMPT: Final = 32_767

_current: ContextVar["Run | None"] = ContextVar("runfold_run", default=None)


def current_run() -> "Run | None":
    """Return the run whose block the caller runs in."""
    return _current.get()


class Run(Handle):
    """Made by `recorder.run`, or by `recorder.join` for a run that another process opened.

    The block of a joined run neither starts nor ends it. An `exit_code` other than 0 that is set
    before `complete` makes the run fail.
    """

    _current = _current

    def __init__(
        self,
        writer: EventWriter,
        started: Started | None,
        queued_us: int | None = None,
        on_start: Callable[["Run"], None] = lambda _: None,
        on_end: Callable[["Run"], None] = lambda _: None,
        after_end: Callable[["Run"], None] = lambda _: None,
    ) -> None:
        super().__init__(writer)
        self.id: Final = writer.run
        self.saved: Final = writer.saved
        self.workflow: Final = None if started is None else started.workflow
        self.exit_code: int | None = None
        self._started = started
        self._queued_us = queued_us
        self._on_start = on_start
        self._on_end = on_end
        self._after_end_hook = after_end
        self._attempts: dict[str, count[int]] = {}

    def node(
        self,
        node: str,
        *,
        name: str | None = None,
        node_type: str | None = None,
        attempt: int | None = None,
        parents: Sequence[str] | None = None,
        inputs: object = None,
    ) -> Node:
        """Return a node by its id; without `attempt`, the next attempt at it from this handle."""
        node_id = normalize_name(node) or "node"
        if attempt is None:
            number = min(next(self._attempts.setdefault(node_id, count(1))), _MAX_ATTEMPT)
        else:
            number = normalize_count(attempt, 1, _MAX_ATTEMPT) or 1
            self._attempts[node_id] = count(number + 1)
        started = NodeStarted(
            node=node_id,
            name=normalize_name(name),
            node_type=normalize_name(node_type),
            attempt=number,
            parents=normalize_names(parents),
            inputs=self.writer.payload(inputs),
        )
        # An inherited run ends in another process, so the node's end may be the last event here.
        if self.is_inherited:
            return Node(self.writer, started, self._after_end)
        return Node(self.writer, started)

    def log(
        self,
        text: object,
        *,
        level: str | None = None,
        stream: str = "log",
        node: str | None = None,
    ) -> None:
        """Record a text of the run or of a node; `stream` is `log`, `stdout` or `stderr`."""
        self.writer.log(text, level, stream, node)

    def annotate(
        self,
        *,
        tags: Mapping[str, Any] | None = None,
        metadata: object = None,
        usage: Usage | Mapping[str, Any] | None = None,
    ) -> None:
        """Add tags, metadata and usage, even after the end of the run."""
        if not self.saved:
            return
        event = Annotated(
            tags=normalize_tags(tags, self.writer.redactor),
            metadata=encode_payload(metadata, self.writer.redactor),
            usage=read_usage(usage),
        )
        self.writer.write(event, len(event.metadata))

    def _add_usage(self, usage: Usage | None) -> None:
        if self._ended or self._started is None:  # another handle sends the end, or it is sent
            self.annotate(usage=usage)
        else:
            super()._add_usage(usage)

    def heartbeat(self) -> None:
        """Send a heartbeat, in addition to the automatic ones."""
        self.writer.write(Heartbeat())

    def complete(self) -> None:
        if self.exit_code:
            self.fail(Error(type="ExitCode", message=f"exit code {self.exit_code}"))
        elif self._ends():
            self._write_end(Completed())

    def fail(self, error: ErrorLike) -> None:
        if self._ends() and self.saved:
            node = node_of(error, self.id) if isinstance(error, BaseException) else None
            described = describe(error, self.writer.redactor, node)
            self._write_end(Failed(error=described), len(described.stack or ""))

    def cancel(self, reason: str | None = None) -> None:
        if self._ends():
            if self._usage.total is not None:
                self.annotate(usage=self._usage.total)  # `cancelled` has no such field
            message = describe({"message": reason or ""}, self.writer.redactor).message
            self.writer.write(Cancelled(reason=message or None, duration_ms=self._duration_ms()))
            self._after_end()

    def _begin(self) -> None:
        started = self._started
        if started is None:
            return
        if self._queued_us is not None:
            queued = Queued(workflow=started.workflow, project=started.project)
            self.writer.write(queued, at_us=self._queued_us)
        self.writer.write(started, payload_bytes(started))
        self._on_start(self)

    def _ends(self) -> bool:
        """Return whether this is the first end."""
        if self._ended:
            return False
        self._ended = True
        self._on_end(self)
        return True

    def _write_end(self, event: Completed | Failed, size: int = 0) -> None:
        end = msgspec.structs.replace(
            event,
            outputs=self._encoded,
            exit_code=normalize_count(self.exit_code, -(2**31), 2**31 - 1),
            usage=self._usage.total,
            duration_ms=self._duration_ms(),
        )
        self.writer.write(end, size + len(end.outputs))
        self._after_end()

    def _after_end(self) -> None:
        self._after_end_hook(self)

    def _leave(self, error: BaseException | None) -> None:
        if self._started is None:  # joined: the process that started the run will end it
            return
        if error is not None and self.exit_code is None:
            self.exit_code = exit_code_of(error)
        super()._leave(error)


class Heartbeats:
    """Heartbeats of all open runs of this process, from one timer in the flusher's thread.

    None is sent for a run whose handle was garbage-collected, or that a forked child inherited, nor
    while Redis is away: it would be out of date on arrival. `every_s=0` sends none.
    """

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._open: dict[int, tuple[ref[Run], int]] = {}
        self._next: float | None = None

    def add(self, run: Run) -> None:
        """Start the heartbeats of a run."""
        self._open[id(run)] = (ref(run), process_hooks.generation)

    def remove(self, run: Run) -> None:
        """Stop the heartbeats of a run."""
        self._open.pop(id(run), None)

    def send_due(self, is_connected: bool) -> float | None:
        """Emit the heartbeats that are due; return the seconds until the next ones, or None."""
        if not self._every_s or not self._open:
            self._next = None
            return None
        now = self._clock()
        if self._next is None:
            self._next = now + self._every_s
        elif now >= self._next:
            self._next = now + self._every_s
            for key, (known, generation) in list(self._open.items()):
                run = known()
                if run is None or generation != process_hooks.generation:
                    self._open.pop(key, None)
                elif is_connected:
                    run.heartbeat()
        return self._next - now
