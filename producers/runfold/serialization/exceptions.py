"""Convert exceptions to the contract's `Error`: type, message, stack and node.

Reading an exception never raises, whatever its `__str__` does. The node that raised it is stored on
the exception itself, so that no other reference keeps its frames alive.
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
"""The types that `fail` accepts."""


def is_cancellation(error: BaseException) -> bool:
    """Return whether this exception stands for a deliberate end."""
    return isinstance(error, CancelledError | KeyboardInterrupt | GeneratorExit)


def exit_code_of(error: BaseException) -> int | None:
    """Return the code of a `SystemExit`; None for any other exception."""
    if not isinstance(error, SystemExit):
        return None
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1


def reason_of(error: BaseException) -> str:
    """Return the reason of a cancellation as text."""
    message = normalize_text(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def describe(error: ErrorLike, redactor: Redactor, node: str | None = None) -> Error:
    """Return the error of a run or node, redacted and within the contract's limits."""
    if isinstance(error, BaseException):
        kind, message = type(error).__qualname__, normalize_text(error)
        try:
            stack = "".join(traceback.format_exception(error))
        except Exception as failure:  # a foreign __repr__ or __notes__
            stack = f"[not recorded: {type(failure).__name__}]"
    elif isinstance(error, Error):
        kind, message, stack, node = error.type, error.message, error.stack, node or error.node  # type: ignore[assignment]  # optional from here on
    elif isinstance(error, Mapping):
        known = {name: error.get(name) for name in Error.__struct_fields__}
        texts = {name: normalize_text(value) for name, value in known.items() if value is not None}
        return describe(Error(**texts), redactor, node)
    else:
        kind, message, stack = "Error", normalize_text(error), None
    return Error(
        type=normalize_name(kind),
        message=_bound_text("message", message, MAX_MESSAGE, redactor),
        stack=_bound_text("stack", stack, MAX_STACK, redactor),
        node=normalize_name(node),
    )


def mark_node(error: BaseException, run: str, node: str) -> None:
    """Store on an exception which node of a run it left; the innermost one stays."""
    try:
        nodes = error.__dict__.setdefault(_NODES, {})
        nodes.setdefault(run, node)
    except Exception:  # noqa: S110, without a `__dict__`: the run's error names no node then
        pass


def node_of(error: BaseException, run: str) -> str | None:
    """Return the node of a run that an exception, its causes or its parts came from."""
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


def _bound_text(key: str, text: str | None, most: int, redactor: Redactor) -> str | None:
    if text is None:
        return None
    text = redactor.apply_to_text(key, normalize_text(text))
    if key == "stack" and len(text) > most:  # both ends are useful: entry point and failure
        middle = f"\n…[cut, {len(text)} characters]\n"
        return text[: most // 4] + middle + text[-(most - most // 4) :]
    return cut_text(text, most)
