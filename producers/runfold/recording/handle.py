"""The base of the handles of runs and nodes: one start, one end, outputs and usage in between."""

import logging
import time
from abc import ABC, abstractmethod
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from msgspec import Raw

from runfold.delivery import process_hooks
from runfold.protocol.events import ABSENT, Usage
from runfold.serialization.exceptions import ErrorLike, exit_code_of, is_cancellation, reason_of

from .event_writer import EventWriter, UsageSum, normalize_usage

_log = logging.getLogger("runfold")


class Handle(ABC):
    """For `with` and `async with`, or call `start` and later `complete`, `fail` or `cancel`."""

    _current: ContextVar[Any]

    def __init__(self, writer: EventWriter) -> None:
        self.writer = writer
        self._generation = process_hooks.generation
        self._began_ns: int | None = None
        self._ended = False
        self._outputs: object = None
        self._encoded: Raw = ABSENT
        self._usage = UsageSum()
        self._token: Token[Any] | None = None

    @property
    def outputs(self) -> object:
        """The result. It is read when it is assigned: after a change, assign it again."""
        return self._outputs

    @outputs.setter
    def outputs(self, value: object) -> None:
        if self._ended:
            _log.warning("outputs of run %s were set after its end: not recorded", self.writer.run)
        self._outputs = value
        self._encoded = self.writer.payload(value)

    def usage(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """Add to the usage, which is sent with the end or, after that, at once."""
        self._add_usage(normalize_usage(input_tokens, output_tokens, cost_usd))

    def _add_usage(self, usage: Usage | None) -> None:
        self._usage.add(usage)

    def start(self) -> Self:
        """Start now; a second call changes nothing."""
        if self._began_ns is None:
            self._began_ns = time.monotonic_ns()
            self._begin()
        return self

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def complete(self) -> None:
        """End successfully, now."""

    @abstractmethod
    def fail(self, error: ErrorLike) -> None:
        """End with an error, now: an exception, a text, an `Error` or its fields."""

    @abstractmethod
    def cancel(self, reason: str | None = None) -> None:
        """End as cancelled, now."""

    @property
    def is_inherited(self) -> bool:
        """Whether this process inherited the handle by a fork."""
        return self._generation != process_hooks.generation

    @abstractmethod
    def _after_end(self) -> None:
        """Called after the end or the block, which may be the last call in this process."""

    def _duration_ms(self) -> float | None:
        if self._began_ns is None:
            return None
        return (time.monotonic_ns() - self._began_ns) / 1e6

    def _leave(self, error: BaseException | None) -> None:
        if error is None or exit_code_of(error) == 0:
            self.complete()
        elif is_cancellation(error):
            self.cancel(reason_of(error))
        else:
            self.fail(error)

    def __enter__(self) -> Self:
        self.start()
        self._token = self._current.set(self)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            try:
                self._current.reset(token)
            except ValueError:  # left in another context than entered, as generators may be
                if self._current.get() is self:
                    self._current.set(None)
        had_ended = self._ended
        if not self.is_inherited:  # otherwise the parent process will end it
            self._leave(error)
        if self._ended == had_ended:  # otherwise the end has called it
            self._after_end()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *error: Any) -> None:
        self.__exit__(*error)
