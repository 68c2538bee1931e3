"""Exceptions in the words of the contract."""

import asyncio

import pytest

from runfold import Error
from runfold.serialization.exceptions import (
    MAX_STACK,
    describe,
    exit_code_of,
    is_cancellation,
    mark_node,
    node_of,
    reason_of,
)
from runfold.serialization.redaction import Redactor

REDACTOR = Redactor()


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def throw(error: BaseException) -> None:
    raise error


def raised(error: BaseException) -> BaseException:
    try:
        throw(error)
    except BaseException as caught:
        return caught
    raise AssertionError


def test_an_exception_is_described_with_its_stack() -> None:
    """Type, message and where it happened."""
    error = describe(raised(ValueError("bad input")), REDACTOR)
    assert (error.type, error.message) == ("ValueError", "bad input")
    assert error.stack is not None
    assert "in throw" in error.stack
    assert error.stack.endswith("ValueError: bad input\n")


def test_causes_are_part_of_the_stack() -> None:
    """The first error of a chain is in the stack, too."""
    second = ValueError("second")
    second.__cause__ = raised(KeyError("first"))
    assert "KeyError: 'first'" in (describe(raised(second), REDACTOR).stack or "")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("it broke", Error(type="Error", message="it broke")),
        (Error(type="T", message="m", node="n"), Error(type="T", message="m", node="n")),
        ({"type": "T", "message": 5, "other": 1}, Error(type="T", message="5")),
        (Broken(), "[Broken: RuntimeError]"),
    ],
)
def test_errors_come_in_any_shape(fault: object, expected: object) -> None:
    """A text, an `Error`, its fields, or an exception whose `__str__` raises."""
    described = describe(fault, REDACTOR)  # type: ignore[arg-type]
    assert (described if isinstance(expected, Error) else described.message) == expected


def test_long_stacks_lose_their_middle() -> None:
    """Both the beginning and the end of a runaway recursion are kept."""
    stack = describe(Error(stack="a" * MAX_STACK + "b" * MAX_STACK), REDACTOR).stack or ""
    assert stack.startswith("aaa")
    assert stack.endswith("bbb")
    assert f"…[cut, {2 * MAX_STACK} characters]" in stack
    assert len(stack) < MAX_STACK + 100


def test_the_callable_sees_messages_and_stacks() -> None:
    """The message of an exception can be redacted, too."""
    redactor = Redactor(redact=lambda key, value: f"<{key}>")
    error = describe(ValueError("x"), redactor)
    assert (error.message, error.stack) == ("<message>", "<stack>")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncio.CancelledError(), True),
        (KeyboardInterrupt(), True),
        (GeneratorExit(), True),
        (SystemExit(1), False),
        (ValueError(), False),
    ],
)
def test_cancellations_differ_from_failures(error: BaseException, expected: bool) -> None:
    """A cancellation is not an error."""
    assert is_cancellation(error) is expected


def test_a_cancellation_has_a_reason() -> None:
    """The kind of cancellation, and its message if there is one."""
    assert reason_of(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert reason_of(asyncio.CancelledError("shutdown")) == "CancelledError: shutdown"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SystemExit(), 0),
        (SystemExit(0), 0),
        (SystemExit(3), 3),
        (SystemExit("usage"), 1),
        (ValueError(), None),
    ],
)
def test_an_exit_has_a_code(error: BaseException, expected: int | None) -> None:
    """As the interpreter will report it."""
    assert exit_code_of(error) == expected


def test_the_innermost_node_is_remembered() -> None:
    """An exception that passes several nodes of a run is blamed on the first, for each run."""
    error = ValueError()
    mark_node(error, "child", "c")
    mark_node(error, "run", "inner")
    mark_node(error, "run", "outer")
    assert node_of(error, "run") == "inner"
    assert node_of(error, "child") == "c"
    assert node_of(error, "another") is None


def test_the_node_is_found_through_causes_and_groups() -> None:
    """Wrapping an exception, or a task group, does not hide where it came from."""
    inner = ValueError()
    mark_node(inner, "run", "n")
    group = ExceptionGroup("several", [KeyError(), inner])
    outer = RuntimeError()
    outer.__cause__ = group
    assert node_of(outer, "run") == "n"


def test_a_chain_in_a_circle_ends() -> None:
    """Two exceptions that name each other do not hang the runner."""
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert node_of(one, "run") is None
