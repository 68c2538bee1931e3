"""The handle of a node: one attempt at one step of a run."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from runfold.protocol.events import Error, NodeEnd, NodeFinished, NodeStarted
from runfold.serialization.exceptions import ErrorLike, describe, mark_node

from .event_writer import EventWriter
from .handle import Handle

_current: ContextVar["Node | None"] = ContextVar("runfold_node", default=None)


def current_node() -> "Node | None":
    """Return the node whose block the caller runs in."""
    return _current.get()


class Node(Handle):
    """Made by `run.node`."""

    _current = _current

    def __init__(
        self,
        writer: EventWriter,
        started: NodeStarted,
        after_end: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(writer)
        self.id: Final = started.node
        self.attempt: Final = started.attempt
        self._started = started
        self._after_end_hook = after_end

    def log(self, text: object, *, level: str | None = None, stream: str = "log") -> None:
        """Record a text; `stream` is `log`, `stdout` or `stderr`."""
        self.writer.log(text, level, stream, self.id)

    def complete(self) -> None:
        self._end("completed")

    def fail(self, error: ErrorLike) -> None:
        if self.writer.saved:
            if isinstance(error, BaseException):
                mark_node(error, self.writer.run, self.id)
            self._end("failed", describe(error, self.writer.redactor))

    def cancel(self, reason: str | None = None) -> None:
        fields = None if reason is None else {"type": "Cancelled", "message": reason}
        self._end("cancelled", None if fields is None else describe(fields, self.writer.redactor))

    def skip(self) -> None:
        """End as skipped, now."""
        self._end("skipped")

    def _begin(self) -> None:
        self.writer.write(self._started, len(self._started.inputs))

    def _end(self, status: NodeEnd, error: Error | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        event = NodeFinished(
            node=self.id,
            attempt=self.attempt,
            status=status,
            outputs=self._encoded,
            error=error,
            usage=self._usage.total,
            duration_ms=self._duration_ms(),
        )
        stack = (error and error.stack) or ""
        self.writer.write(event, len(self._encoded) + len(stack))
        self._after_end()

    def _after_end(self) -> None:
        self._after_end_hook()
