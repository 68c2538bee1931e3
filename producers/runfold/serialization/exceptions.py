"""Exceptions in the words of the contract: what ended a run or a node, and where.

Reading an exception never raises, whatever its `__str__` does. The node that an exception came
out of is noted on the exception itself, so that the run it passes through later can name it;
nothing else holds the exception, or its frames, any longer than the caller does.
"""

import traceback
from asyncio import CancelledError
from collections.abc import Mapping
from typing import Final

from runfold.protocol.events import Error
from runfold.protocol.truncation import cut_text

from .normalize import normalize_name, normalize_text
from .redaction import Redactor

MAX_MESSAGE: Final = 10_000
MAX_STACK: Final = 64 * 1024

_NODES: Final = "__runfold_nodes__"

ErrorLike = BaseException | Error | Mapping[str, object] | str
"""What `fail` takes."""


def is_cancellation(error: BaseException) -> bool:
    """Whether someone ended this on purpose."""
    return isinstance(error, CancelledError | KeyboardInterrupt | GeneratorExit)


def exit_code_of(error: BaseException) -> int | None:
    """The code of a `SystemExit`; `None` for anything else."""
    if not isinstance(error, SystemExit):
        return None
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1


def reason_of(error: BaseException) -> str:
    """Why something was cancelled."""
    message = normalize_text(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def describe(error: ErrorLike, redactor: Redactor, node: str | None = None) -> Error:
    """The error of a run or node, within the contract's limits."""
    if isinstance(error, BaseException):
        kind, message, stack = type(error).__qualname__, normalize_text(error), _stack_of(error)
    elif isinstance(error, Error):
        kind, message, stack, node = error.type, error.message, error.stack, node or error.node  # type: ignore[assignment]  # optional from here on
    elif isinstance(error, Mapping):
        return describe(_error_from(error), redactor, node)
    else:
        kind, message, stack = "Error", normalize_text(error), None
    return Error(
        type=normalize_name(kind),
        message=_bound_text("message", message, MAX_MESSAGE, redactor),
        stack=_bound_text("stack", stack, MAX_STACK, redactor),
        node=normalize_name(node),
    )


def mark_node(error: BaseException, run: str, node: str) -> None:
    """Remember the innermost node of a run that an exception left."""
    try:
        nodes = error.__dict__.setdefault(_NODES, {})
        nodes.setdefault(run, node)
    except Exception:  # noqa: S110, an exception that takes no notes; the run is told nothing
        pass


def node_of(error: BaseException, run: str) -> str | None:
    """The node of this run that the exception, or what it came from or consists of, left."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting and len(seen) < 100:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        node = getattr(one, "__dict__", {}).get(_NODES, {}).get(run)
        if node is not None:
            return str(node)
        waiting += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
    return None


def _error_from(fields: Mapping[str, object]) -> Error:
    known = {name: fields.get(name) for name in Error.__struct_fields__}
    return Error(
        **{name: normalize_text(value) for name, value in known.items() if value is not None}
    )


def _bound_text(key: str, text: str | None, most: int, redactor: Redactor) -> str | None:
    if text is None:
        return None
    text = redactor.apply_to_text(key, normalize_text(text))
    if key == "stack" and len(text) > most:  # the end says what happened, the start how it began
        middle = f"\n…[cut, {len(text)} characters]\n"
        return text[: most // 4] + middle + text[-(most - most // 4) :]
    return cut_text(text, most)


def _stack_of(error: BaseException) -> str | None:
    try:
        return "".join(traceback.format_exception(error))
    except Exception as failure:  # someone else's __repr__ or __notes__
        return f"[not recorded: {type(failure).__name__}]"
